"""From codes back to values: by arithmetic where it gives the value of every code, else from the table of all values.

A table is read once an element, which vectors do one element after the other. Codes of floats are patterns but for their
exponents, and those of integers are integers. Whether that is so of a format is not argued here but tried, on all its codes.
"""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction
from typing import Any, NamedTuple

import numpy as np
from numpy import int32
from numpy.typing import NDArray

from qsim.formats import Format, Grid
from qsim.kernels import compiled
from qsim.kernels.compiled import F64, I64, Array, fields_of, kernel
from qsim.kernels.cpu import AHEAD, ask_ahead, carrier_fields
from qsim.kernels.parameters import CARRIERS, Carrier

__all__ = ["Decoder", "decoder", "narrowed"]

BLOCK = 1024
"""Codes after which memory is asked for as many more."""


class Decoding(NamedTuple):
    """Hold the relation of a float format's codes to its patterns; every field is a word of the carrier's width."""

    # the carrier
    fraction_bits: Any
    last: Any  # word width - 1
    sign: Any  # patterns
    inf: Any
    nan: Any
    # the codes; where there is no such code, the largest word
    magnitude: Any  # all bits but the sign
    minus: Any  # the sign bit; 0 where there is none
    normal: Any  # the first of a normal number
    beyond: Any  # the first that is infinite or a NaN
    special: Any  # the first that is a NaN
    lone: Any  # a NaN in place of -0
    # from one to the other
    place: Any  # of the lowest bit of a code in a pattern
    up: Any  # how far the sign bit of a pattern is above that of a code
    base: Any  # what is added to the exponent field; codes whose own is 0 are raised by one, and reduced by `unit`
    unit: Any  # pattern of the smallest normal number


decoding_of = fields_of(Decoding, 0, carrier_fields)

Decoder = Callable[[Any, Any], None]
"""Writes the value of every code of the first array into the second; both are 1-D, in C order, of as many elements."""


@kernel()
def decode_floats(codes: Array, y: Array, words: Array) -> None:
    """Write the pattern of every code's value into `y`."""
    compiled.wide_vectors()
    d = decoding_of(words)
    word = words.dtype.type
    none, step = word(0), word(word(1) << word(d.fraction_bits & d.last))
    for begin in range(0, codes.size, BLOCK):
        some, out = codes[begin : begin + BLOCK], y[begin : begin + BLOCK]
        ask_ahead(codes, begin + BLOCK + AHEAD, some.size)
        for i in range(some.size):
            code = word(some[i])
            a = word(code & d.magnitude)
            small = a < d.normal  # 0.m 2^emin = 1.m 2^emin - 2^emin, which is exact and needs no subnormal number
            u = word(word(word(a << word(d.place & d.last)) + d.base) + (step if small else none))
            v = compiled.float_of(u) - compiled.float_of(d.unit if small else none)
            u = word(compiled.pattern_of(v) & word(d.sign - word(1)))  # 1 - 1 is -0 where sums are rounded downward
            u = d.inf if a >= d.beyond else u
            u = d.nan if (a >= d.special or code == d.lone) else u
            out[i] = word(u | word(word(code & d.minus) << word(d.up & d.last)))


@kernel()
def decode_integers(codes: Array, y: Array, sign: I64, unit: F64) -> None:
    """Write `unit` times the integer of every code, in two's complement unless the bit `sign` of it is 0, into `y`."""
    compiled.wide_vectors()
    number = y.dtype.type
    half, step = int32(sign), number(unit)
    for begin in range(0, codes.size, BLOCK):
        some, out = codes[begin : begin + BLOCK], y[begin : begin + BLOCK]
        ask_ahead(codes, begin + BLOCK + AHEAD, some.size)
        for i in range(some.size):
            out[i] = number(int32(int32(int32(some[i]) ^ half) - half)) * step


@kernel()
def look_up(codes: Array, values: Array, y: Array) -> None:
    """Write the value of every code into `y`."""
    for i in range(codes.size):
        y[i] = values[codes[i]]


# --- Which of them -----------------------------------------------------------------------------------------


def decoder(fmt: Format, line: NDArray[Any]) -> Decoder:
    """Return the loop for a format whose codes have the values `line`, of float32 or float64: by arithmetic if it gives these.

    A NaN of `line` where the format has none stands at a code without a value, which nobody decodes.
    """
    loop = by_arithmetic(fmt, CARRIERS[line.dtype])
    if loop is not None:
        codes, found = np.arange(line.size, dtype=np.min_scalar_type(line.size - 1)), np.empty_like(line)
        loop(codes, found)
        meant = ~np.isnan(line) if not fmt.has_nan else np.full(line.size, fill_value=True)
        if found[meant].tobytes() == line[meant].tobytes():
            return loop
    return lambda codes, values: look_up(codes, line, values)


def by_arithmetic(fmt: Format, carrier: Carrier) -> Decoder | None:
    """Return a loop that is right for most formats of its kind, or `None` where it has no such words."""
    if not isinstance(fmt, Grid):
        return None
    if fmt.lsb < 1 - carrier.bias:  # some values are subnormal numbers, which a thread may have set to become 0
        return None
    minus = 1 << (fmt.bits - 1) if fmt.signed else 0
    if fmt.even:
        unit = float(Fraction(2) ** fmt.lsb)
        return lambda codes, values: decode_integers(codes, values, minus, unit)
    base = fmt.emin - 1 + carrier.bias
    if not 0 <= base < 2 * carrier.bias:
        return None
    none = (1 << carrier.width) - 1
    beyond = fmt.top + fmt.has_zero if fmt.inf_code is None else fmt.inf_code
    decoding = Decoding(
        **carrier_fields(carrier.word), nan=carrier.nan, magnitude=(1 << fmt.bits) - 1 - minus, minus=minus,
        normal=1 << fmt.man_bits, beyond=beyond, special=beyond + (fmt.inf_code is not None),
        lone=none if fmt.has_neg_zero else minus or none, place=carrier.fraction_bits - fmt.man_bits,
        up=carrier.width - fmt.bits, base=base << carrier.fraction_bits, unit=(base + 1) << carrier.fraction_bits,
    )  # fmt: skip
    words = np.array(decoding, carrier.word)
    return lambda codes, values: decode_floats(codes, values.view(carrier.word), words)


def narrowed(values: NDArray[np.float64], dtype: np.dtype[Any]) -> NDArray[Any]:
    """Return `values` as an array of `dtype`, which holds them.

    By integers: a cast to float32 makes 0 of a subnormal number where a thread has its processor set so, as torch can, and a
    table is kept for all threads. Casts to float16 have none.
    """
    if dtype.name not in ("float32", "bfloat16"):
        return values.astype(dtype)
    u = values.view(np.int64)
    field = u >> 52 & 0x7FF
    significand = u & ((1 << 52) - 1) | (field > 0).astype(np.int64) << 52
    rise = field - (1023 - 127 + 1)  # above the smallest normal float32; 254 of infinities and NaNs
    magnitude = (np.clip(rise, 0, 254) << 23) + (significand >> np.minimum(29 - np.minimum(rise, 0), 63))
    pattern: NDArray[Any] = (magnitude | (u < 0).astype(np.int64) << 31).astype(np.uint32)
    return pattern.view(dtype) if dtype.name == "float32" else (pattern >> 16).astype(np.uint16).view(dtype)
