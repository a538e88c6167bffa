"""`qsim formats`: list the formats that have a name, and how the others are spelled."""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Sequence
from fractions import Fraction
from itertools import groupby
from typing import Any

from qsim.cli.text import as_float, as_json, exact, number, spans, table
from qsim.formats import SPECIALS, Format, Grid, Variant, catalogue, variants, variants_of
from qsim.rounding import saturations

__all__ = ["SPELLINGS", "add", "describe", "run"]

SPELLINGS = "eXmY[bB][fn|fnuz|f][u], Qm.n, UQm.n, Binary{K}p{P}{s|u}{e|f}, FILE.toml#NAME or FORMAT@VARIANT"
"""How a format is spelled that the list does not name."""

LEGEND = f"""
s/e/m: bits of sign, exponent and mantissa. emin: exponent of the smallest normal number. subn.: the
smallest subnormal number. least: the smallest positive value. eps: spacing just above 1.
spec.: special values,
{chr(10).join(f"  {name:8}  {meaning}" for name, meaning in SPECIALS.items())}

Other formats are spelled
{SPELLINGS}:
  e4m3b11fn, e6m9, e5m3fnu  exponent and mantissa bits, the bias if it is not the usual one, the
                            special values (without letters as IEEE's), u without a sign
  Q3.4, UQ0.8               fixed point: integer and fraction bits, beside the sign or without one
  Binary8p4se               IEEE P3109: K bits, precision P, signed or unsigned, extended (with
                            infinities) or finite
  mine.toml#posit6          an entry of a file of yours, written as those in formats/*.toml
  e8m0@torch                a variant: the same values and codes, and what a library, a processor or
                            a revision of a standard makes of numbers that they cannot hold
`qsim formats --all` lists every member of the families, `qsim show FORMAT` shows one format."""


def add(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments to its parser."""
    parser.description = "List the number formats."
    parser.add_argument("--all", action="store_true", help="list every member of the families too")
    parser.add_argument("--json", action="store_true", help="print a JSON list of objects, one for every format")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Print the catalogue."""
    known = sorted(catalogue().values(), key=in_order)
    if args.json:
        print(as_json([describe(fmt) for fmt in known]))
        return 0
    for (kind, family), formats in groupby(known, lambda fmt: (fmt.kind, fmt.family)):
        if args.all or not family:
            print(table_of(kind, family, list(formats)), end="\n\n")
    if not args.all:
        print(families(known), end="\n\n")
    print(variant_names(variants()))
    print(LEGEND)
    return 0


def in_order(fmt: Format) -> tuple[str, str, int, int]:
    """Return the key by which formats are sorted: by kind and layout, and each family in its own order."""
    layout = fmt.exp_bits if isinstance(fmt, Grid) and not fmt.family else 0
    return fmt.kind, fmt.family, fmt.bits, layout


def table_of(kind: str, family: str, formats: Sequence[Format]) -> str:
    """Return the table of formats of one kind and family, whose name stands above theirs."""
    columns = (
        "bits s/e/m emin max subn. eps spec. aliases" if kind == "float" else "bits values min max least spec. aliases"
    )
    right = "bits s/e/m emin" if kind == "float" else "bits values min max"
    return table((family or kind, *columns.split()), [row(fmt) for fmt in formats], right)


def row(fmt: Format) -> tuple[str, ...]:
    """Return the line of `fmt` in the table of its kind."""
    marks = fmt.landmarks()
    largest, least, eps = (marks[name] for name in ("max", "smallest_subnormal", "eps"))
    names = " ".join(fmt.aliases)
    if isinstance(fmt, Grid) and fmt.kind == "float":
        layout = f"{int(fmt.signed)}/{fmt.exp_bits}/{fmt.man_bits}"
        emin = exponent(marks["smallest_normal"])
        subnormal = "" if least == marks["smallest_normal"] else short(least)
        return fmt.name, str(fmt.bits), layout, str(emin), short(largest), subnormal, short(eps), fmt.specials, names
    return (
        fmt.name, str(fmt.bits), str(count(fmt)), short(marks["min"]), short(largest), short(least),
        "NaN" * fmt.has_nan, names,
    )  # fmt: skip


def families(known: Iterable[Format]) -> str:
    """Return a line for each entry of the catalogue that stands for many formats."""
    members: dict[str, list[Format]] = {}
    for fmt in known:
        if fmt.family:
            members.setdefault(fmt.family, []).append(fmt)
    rows = []
    for name, formats in members.items():
        widths = ", ".join(f"{a}..{b}" if b > a else str(a) for a, b in spans(sorted({fmt.bits for fmt in formats})))
        example = next((fmt for fmt in formats if fmt.bits == 8), formats[0])
        rows.append((name, example.kind, widths, str(len(formats)), example.name))
    return table(("family", "kind", "bits", "formats", "such as"), rows, right="formats")


def variant_names(known: Iterable[Variant]) -> str:
    """Return a line for each variant of a format or of several, with the differences."""
    rows = []
    for variant in known:
        says = [
            f"{key} {word:#x}" if isinstance(word, int) else f"{key} {word}" for key, word in variant.changes.items()
        ]
        rows += [(f"{of}@{variant.name}", ", ".join(says)) for of in variant.of]
    return table(("variant", "what differs"), sorted(rows))


def short(value: Fraction | None) -> str:
    """Return a number in few letters: as a decimal if that is short, else by powers of two; "" for `None`."""
    if value is None:
        return ""
    digits = number(value)
    return digits if len(digits) <= 6 and "e" not in digits else exact(value)


def count(fmt: Format) -> int:
    """Return the number of finite values; 0 and -0 are one."""
    return fmt.top + fmt.bottom + 1


def describe(fmt: Format) -> dict[str, Any]:
    """Return the definition of `fmt` and its properties, as plain data; `None` where it has no such thing.

    A landmark of the range is also `None` where a float64 does not hold it; "exact" has it as a product with a power of two.
    """
    grid = fmt if isinstance(fmt, Grid) and fmt.kind == "float" else None
    marks = fmt.landmarks()
    return {
        "name": fmt.name,
        "aliases": list(fmt.aliases),
        "family": fmt.family or None,
        "source": fmt.source,
        "kind": fmt.kind,
        "bits": fmt.bits,
        "signed": fmt.signed,
        "exp_bits": grid and grid.exp_bits,
        "man_bits": grid and grid.man_bits,
        "precision": grid and grid.precision,
        "bias": grid and grid.bias,
        "emin": grid and exponent(marks["smallest_normal"]),
        "emax": grid and grid.emax,
        "finite_values": count(fmt),
        **{name: None if value is None else as_float(value) for name, value in marks.items()},
        "exact": {name: None if value is None else exact(value) for name, value in marks.items()},
        "specials": (grid and grid.specials) or None,
        "has_inf": fmt.has_inf,
        "has_nan": fmt.has_nan,
        "has_zero": fmt.has_zero,
        "has_neg_zero": fmt.has_neg_zero,
        "nan_to": fmt.nan_to,
        "zero_to": fmt.zero_to or None,
        "negative_to": fmt.negative_to or None,
        "ties": fmt.ties,
        "nan": fmt.nan,
        "revision": fmt.revision or None,
        "variant_of": fmt.variant_of or None,
        "variants": [variant.name for variant in variants_of(fmt)],
        "warning": fmt.warning or None,
        "saturation": [str(rule) for rule in saturations(fmt)],
    }


def exponent(value: Fraction | None) -> int:
    """Return floor(log2(value)) of a positive number that binary digits write."""
    assert value is not None  # asked of floats only, which have normal numbers
    return value.numerator.bit_length() - value.denominator.bit_length()
