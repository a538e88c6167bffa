"""`qsim formats`: list the formats that have a name, and how the others are spelled."""

from __future__ import annotations

import argparse
from typing import Any

from qsim.cli.text import as_json, exact, number, table
from qsim.formats import SPECIALS, Format, catalogue
from qsim.rounding import saturations

__all__ = ["add", "describe", "run"]

HEADER = ("name", "kind", "bits", "e/m", "max", "normal", "subn.", "eps", "spec.", "aliases")

LEGEND = f"""
e/m: exponent and mantissa bits. normal, subn.: smallest positive normal and subnormal number.
eps: spacing just above 1. spec.: special values,
{chr(10).join(f"  {name:4}  {meaning}" for name, meaning in SPECIALS.items())}
Other floats are spelled eXmY[fn|fnuz|f]: a sign, X exponent bits, Y mantissa bits, and the special
values; without letters they are IEEE-like. Examples: e4m2fn, e6m9, e3m0f.
`qsim show FORMAT` shows one format."""


def add(subparsers: Any) -> None:
    """Register the command."""
    parser = subparsers.add_parser("formats", help="list the number formats", description="List the number formats.")
    parser.add_argument("--json", action="store_true", help="print a JSON list of objects")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Print the catalogue."""
    known = sorted(catalogue().values(), key=lambda fmt: (fmt.kind, fmt.bits, fmt.exp_bits))
    if args.json:
        print(as_json([describe(fmt) for fmt in known]))
    else:
        print(table(HEADER, [row(fmt) for fmt in known], right="bits e/m"))
        print(LEGEND)
    return 0


def row(fmt: Format) -> tuple[str, ...]:
    """Return the line of `fmt` in the table."""
    layout = f"{fmt.exp_bits}/{fmt.man_bits}" if fmt.kind == "float" else "-"
    largest = number(fmt.max)
    return (
        fmt.name, fmt.kind, str(fmt.bits), layout, largest if len(largest) <= 8 else exact(fmt.max),
        short(fmt.smallest_normal), short(fmt.smallest_subnormal), short(fmt.eps), fmt.specials or "-",
        " ".join(fmt.aliases),
    )  # fmt: skip


def short(value: float) -> str:
    """Return a power of two: the usual small ones as such, the others as 2^k."""
    return number(value) if 1 / 8 <= value <= 8 else exact(value)


def describe(fmt: Format) -> dict[str, Any]:
    """Return what defines `fmt` and what follows from it, as plain data; `None` where an integer has no such thing."""
    is_float = fmt.kind == "float"
    return {
        "name": fmt.name,
        "aliases": list(fmt.aliases),
        "source": fmt.source,
        "kind": fmt.kind,
        "bits": fmt.bits,
        "exp_bits": fmt.exp_bits if is_float else None,
        "man_bits": fmt.man_bits if is_float else None,
        "precision": fmt.precision if is_float else None,
        "bias": fmt.bias if is_float else None,
        "emin": fmt.emin if is_float else None,
        "emax": fmt.emax if is_float else None,
        "max": fmt.max,
        "min": fmt.min,
        "smallest_normal": fmt.smallest_normal,
        "smallest_subnormal": fmt.smallest_subnormal,
        "eps": fmt.eps,
        "specials": fmt.specials or None,
        "has_inf": fmt.has_inf,
        "has_nan": fmt.has_nan,
        "has_neg_zero": fmt.has_neg_zero,
        "nan_to": fmt.nan_to,
        "saturation": [str(rule) for rule in saturations(fmt)],
    }
