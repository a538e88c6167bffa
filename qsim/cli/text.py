"""How the commands write numbers and tables: plain text, ASCII, 100 columns at most."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from decimal import Decimal, localcontext
from fractions import Fraction
from typing import Any

__all__ = ["WIDTH", "as_float", "as_json", "columns", "exact", "number", "spans", "table"]

WIDTH = 100


def number(value: float | Fraction) -> str:
    """Return the shortest decimal that reads back as `value`; whole numbers without their ".0".

    A value that float64 does not hold is printed as a near decimal that starts with "~".
    """
    if isinstance(value, float | int):
        return repr(value).removesuffix(".0")
    held = as_float(value)
    if held is not None:
        return repr(held).removesuffix(".0")
    with localcontext(prec=20):
        return f"~{Decimal(value.numerator) / value.denominator:.2e}"


def as_float(value: Fraction) -> float | None:
    """Return `value` as a float64; `None` if none is equal to it."""
    try:
        held = float(value)
    except OverflowError:
        return None
    return held if held == value else None


def exact(value: float | Fraction) -> str:
    """Return a number with a power of two in it: "2^-9", "1.75*2^8", "2^128-2^120", "-11680265*2^-24"."""
    ratio = Fraction(value)
    if not ratio:
        return "0"
    sign, top = "-" * (ratio < 0), abs(ratio.numerator)
    low = (top & -top).bit_length() - ratio.denominator.bit_length()  # the exponent of its last bit
    odd = top >> (top & -top).bit_length() - 1
    bits = odd.bit_length()
    high = low + bits - 1
    if bits == 1:
        return f"{sign}2^{low}"
    if bits > 3 and odd == (1 << bits) - 1:
        difference = "-".join({0: "1", 1: "2"}.get(power, f"2^{power}") for power in (high + 1, low))
        return f"-({difference})" if sign else difference
    if bits > 8:
        return f"{sign}{odd}" + (f"*2^{low}" if low else "")
    return f"{sign}{odd / (1 << bits - 1)}*2^{high}"


def spans(numbers: Sequence[int]) -> list[tuple[int, int]]:
    """Return ascending integers as (first, last) of each run of consecutive ones."""
    present = set(numbers)
    firsts = (n for n in numbers if n - 1 not in present)
    lasts = (n for n in numbers if n + 1 not in present)
    return list(zip(firsts, lasts, strict=True))


def table(header: Sequence[str], rows: Sequence[Sequence[str]], right: str = "") -> str:
    """Return `rows` under `header`, two blanks between columns; `right` names the columns that are set to the right.

    A column without a word in it is left out.
    """
    kept = [at for at in range(len(header)) if not rows or any(row[at] for row in rows)]
    header, rows = [header[at] for at in kept], [[row[at] for at in kept] for row in rows]
    widths = [max(map(len, column)) for column in zip(header, *rows, strict=True)]
    ruler = ["-" * width for width in widths]
    return "\n".join(
        "  ".join(
            cell.rjust(width) if name in right.split() else cell.ljust(width)
            for name, cell, width in zip(header, row, widths, strict=True)
        ).rstrip()
        for row in (header, ruler, *rows)
    )


def columns(block: str, head: int = 2) -> str:
    """Return the lines of `block` in as many columns as `WIDTH` has room for, its first `head` lines above each."""
    lines = block.splitlines()
    width = max(map(len, lines))
    count = max((WIDTH + 4) // (width + 4), 1)
    body = lines[head:]
    height = -(-len(body) // count)
    stacks = [lines[:head] + body[i : i + height] for i in range(0, len(body), height)]
    return "\n".join(
        "    ".join(stack[i].ljust(width) if i < len(stack) else "" for stack in stacks).rstrip()
        for i in range(head + height)
    )


def as_json(plain: Any) -> str:
    """Return `plain` as JSON, in ASCII; NaN and infinities, for which it has no numbers, become "nan", "inf" and "-inf"."""
    return json.dumps(_finite(plain), indent=1, allow_nan=False)


def _finite(plain: Any) -> Any:
    match plain:
        case dict():
            return {key: _finite(value) for key, value in plain.items()}
        case list() | tuple():
            return [_finite(value) for value in plain]
        case float() if not math.isfinite(plain):
            return str(plain)
        case _:
            return plain
