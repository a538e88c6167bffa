"""Comparison of a simulator's value with a code: as bits, and never with an x."""

from __future__ import annotations

from typing import Any

from qsim.errors import InputError

__all__ = ["same_bits"]


def same_bits(value: Any, code: int, bits: int) -> bool:
    """Return whether `value`, a text of 0 and 1 or an object printed so (cocotb's `LogicArray`), is the code of `bits` bits.

    Raise `InputError` for a value with another digit, x and z too, or of another width.
    """
    text = str(value)
    unknown = sorted(set(text) - {"0", "1"})
    if unknown:
        raise InputError(f"the device gives {text}, which has the digit {unknown[0]}; a code has 0 and 1 alone")
    if len(text) != bits:
        raise InputError(f"the device gives {text} of {len(text)} bits; the code has {bits}")
    return text == f"{code:0{bits}b}"
