"""`qsim show FORMAT`: everything that is in force for one format, and up to 8 bits all its values."""

from __future__ import annotations

import argparse
import itertools
import math
import textwrap
from collections.abc import Mapping
from typing import Any

from qsim.cli.formats import describe
from qsim.cli.text import WIDTH, as_json, columns, exact, number, table
from qsim.formats import SPECIALS, Format, get_format
from qsim.rounding import Saturation, saturations

__all__ = ["add", "run", "show"]

WIDEST_LISTED = 8
"""Formats of more bits than this are shown without their values."""

RULES: Mapping[Saturation, str] = {
    Saturation.SatFinite: "to the largest finite value of that sign; infinities too",
    Saturation.SatPropagate: "to the largest finite value of that sign; infinities stay",
    Saturation.SatNone: "to infinity; infinities stay",
    Saturation.OvfNaN: "to NaN; infinities too",
    Saturation.saturate: "to the largest or smallest value; infinities too",
}
"""What becomes, after rounding, of a value beyond the range."""

NAN_TO: Mapping[str, str] = {"nan": "stays NaN", "max": "becomes the largest value", "zero": "becomes 0"}


def add(subparsers: Any) -> None:
    """Register the command."""
    parser = subparsers.add_parser(
        "show", help="show one format, and its values", description="Show one format, and up to 8 bits its values."
    )
    parser.add_argument("format", metavar="FORMAT", help="a name that `qsim formats` lists, or eXmY[fn|fnuz|f]")
    parser.add_argument("--json", action="store_true", help='print a JSON object; NaN is "nan", infinity "inf"')
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Print the format."""
    fmt = get_format(args.format)
    print(as_json(data(fmt, args.format)) if args.json else show(fmt, args.format))
    return 0


def data(fmt: Format, asked: str) -> dict[str, Any]:
    """Return `fmt` as plain data: what `qsim formats` has, the codes of the special values, and the values."""
    return {
        "asked": asked,
        **describe(fmt),
        "nan_code": fmt.nan_code,
        "nan_codes": [list(span) for span in nan_codes(fmt)],
        "inf_code": fmt.inf_code,
        "values": fmt.values().tolist() if fmt.bits <= WIDEST_LISTED else None,
    }


def nan_codes(fmt: Format) -> list[tuple[int, int]]:
    """Return the codes that are NaN, as (first, last) of each run."""
    half = 1 << (fmt.bits - 1)
    if fmt.specials == "fnuz":
        return [(half, half)]
    first = (fmt.top if fmt.inf_code is None else fmt.inf_code) + 1
    return [(sign | first, sign | (half - 1)) for sign in (0, half)] if fmt.has_nan else []


def show(fmt: Format, asked: str) -> str:
    """Return everything in force for `fmt`, which was asked for as `asked`, for reading."""
    paragraphs = [entries(facts(fmt, asked)), entries(range_of(fmt)), entries(specials(fmt)), entries(conversions(fmt))]
    if fmt.bits <= WIDEST_LISTED:
        paragraphs.append(values(fmt))
    return "\n\n".join(paragraphs)


def entries(pairs: list[tuple[str, str]]) -> str:
    """Return label and text a line, the texts aligned and wrapped."""
    hang = " " * 20
    return "\n".join(
        textwrap.fill(f"{label:20}{text}", WIDTH, subsequent_indent=hang, break_on_hyphens=False)
        for label, text in pairs
    )


def facts(fmt: Format, asked: str) -> list[tuple[str, str]]:
    """Return what `fmt` is."""
    lines = [("format", fmt.name + (f", which {asked} stands for" if asked != fmt.name else ""))]
    if fmt.aliases:
        lines.append(("also called", ", ".join(fmt.aliases)))
    lines.append(("defined by", fmt.source))
    if fmt.kind == "integer":
        return [*lines, ("bits", f"{fmt.bits}, two's complement")]
    return [
        *lines,
        ("bits", f"{fmt.bits}: sign, {fmt.exp_bits} exponent, {fmt.man_bits} mantissa"),
        ("precision", f"{fmt.precision} (significant bits, the hidden one included)"),
        ("exponent", f"emin {fmt.emin}, emax {fmt.emax}, bias {fmt.bias}"),
    ]


def range_of(fmt: Format) -> list[tuple[str, str]]:
    """Return the landmarks of the range: as decimals that read back exactly, and by powers of two."""
    landmarks = {"max": fmt.max, "min": fmt.min}
    if fmt.kind == "float":
        landmarks["smallest normal"] = fmt.smallest_normal
        if fmt.man_bits:
            landmarks["smallest subnormal"] = fmt.smallest_subnormal
    landmarks["eps"] = fmt.eps
    shown = [number(value) for value in landmarks.values()]
    width = max(map(len, shown))
    return [
        (name, text.ljust(width) + "  = " + "-" * (value < 0) + exact(abs(value)))
        for (name, value), text in zip(landmarks.items(), shown, strict=True)
    ]


def specials(fmt: Format) -> list[tuple[str, str]]:
    """Return the codes of the special values."""
    if fmt.kind == "integer":
        return [("special values", "none")]
    half = 1 << (fmt.bits - 1)
    signed = f"+0 is {code(fmt, 0)}, -0 is {code(fmt, half)}" if fmt.has_neg_zero else f"{code(fmt, 0)}; there is no -0"
    lines = [("special values", SPECIALS[fmt.specials] if fmt.specials else ""), ("zero", signed)]
    if fmt.inf_code is not None:
        lines.append(("infinity", f"{code(fmt, fmt.inf_code)}, -infinity {code(fmt, fmt.inf_code | half)}"))
    if fmt.nan_code is not None:
        runs = (code(fmt, a) + (f" .. {code(fmt, b)}" if b > a else "") for a, b in nan_codes(fmt))
        lines.append(("NaN", f"{', '.join(runs)}; results have {code(fmt, fmt.nan_code)}"))
    return lines


def conversions(fmt: Format) -> list[tuple[str, str]]:
    """Return what becomes of what the format does not hold."""
    default, *others = saturations(fmt)
    return [
        ("NaN in", NAN_TO[fmt.nan_to]),
        ("-0 in", "stays -0" if fmt.has_neg_zero else "becomes 0, as do negative values that round to zero"),
        ("beyond the range", f"{default}, the default: {RULES[default]}"),
        *(("", f"{rule}: {RULES[rule]}") for rule in others),
    ]


def code(fmt: Format, number: int) -> str:
    """Return a code in hexadecimal, all digits of the format's width."""
    return f"0x{number:0{-(-fmt.bits // 4)}x}"


def values(fmt: Format) -> str:
    """Return the table of all values, in code order down the columns."""
    fields = {"s": 1, "exp": fmt.exp_bits, "man": fmt.man_bits} if fmt.kind == "float" else {"bits": fmt.bits}
    fields = {name: width for name, width in fields.items() if width}
    rows = []
    for at, value in enumerate(fmt.values().tolist()):
        bits = iter(f"{at:0{fmt.bits}b}")
        split = ("".join(itertools.islice(bits, width)) for width in fields.values())
        rows.append((code(fmt, at), *split, f"{'' if math.copysign(1, value) < 0 else ' '}{number(value)}"))
    return columns(table(("code", *fields, "value"), rows, right="value" if fmt.kind == "integer" else ""))
