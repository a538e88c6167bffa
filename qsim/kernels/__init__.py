"""The fast way: one portable scalar core (bits in, bits out), Philox words, and a thin driver for CPUs.

`core` is the arithmetic, `parameters` turns a format into the words it reads, `cpu` loops over arrays,
`decoding` goes back from codes to values.
"""
