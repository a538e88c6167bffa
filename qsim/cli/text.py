"""How the commands write numbers and tables: plain text, ASCII, 100 columns at most."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from typing import Any

__all__ = ["WIDTH", "as_json", "columns", "exact", "number", "table"]

WIDTH = 100


def number(value: float) -> str:
    """Return the shortest decimal that reads back as `value`; whole numbers without their ".0"."""
    return repr(value).removesuffix(".0")


def exact(value: float) -> str:
    """Return a positive `value` as a product with a power of two: "2^-9", "1.75*2^8", "(2-2^-7)*2^127"."""
    fraction, exponent = math.frexp(value)
    fraction, exponent = 2 * fraction, exponent - 1  # 1 <= fraction < 2
    if fraction == 1:
        return f"2^{exponent}"
    missing, places = math.frexp(2 - fraction)
    if missing == 0.5 and places < -1:
        return f"(2-2^{places - 1})*2^{exponent}"
    return f"{number(fraction)}*2^{exponent}"


def table(header: Sequence[str], rows: Sequence[Sequence[str]], right: str = "") -> str:
    """Return `rows` under `header`, two blanks between columns; `right` names the columns that are set to the right."""
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
    """Return `plain` as JSON; NaN and infinities, for which JSON has no numbers, become "nan", "inf" and "-inf"."""
    return json.dumps(_finite(plain), indent=1, ensure_ascii=False, allow_nan=False)


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
