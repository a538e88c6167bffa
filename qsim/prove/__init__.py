"""Theorems about rounding, each a file of `proofs/` that a machine checks, and the ledger of results.

`frame` finds, loads and runs the files; `specification` gives a kernel's right result, from `qsim.reference`, and `sweep`
says it of all bit patterns at once; `exhaustive` walks every input past a kernel, `ways` does so for random words and lists of
values, and `smt` reads a kernel's source as terms of a solver.
"""

from qsim.prove.frame import Entry, Method, Proof, Theorem, all_held, find, run, settle

__all__ = ["Entry", "Method", "Proof", "Theorem", "all_held", "find", "run", "settle"]
