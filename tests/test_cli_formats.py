"""`qsim formats`: that its tables and its JSON hold the formats as they are."""

from __future__ import annotations

import json
import re
from fractions import Fraction

import numpy as np
import pytest
from command import printed, tables, value_of
from strategies import CATALOGUE

from qsim.formats import Grid, catalogue, get_format, variants


def test_formats_lists_the_named_ones(capsys: pytest.CaptureFixture[str]) -> None:
    """Every format with a name of its own has a line: bits, layout, largest value and so on, and its aliases."""
    found = tables(printed(capsys, "formats"))
    for fmt in CATALOGUE:
        if fmt.family:
            assert fmt.name not in found
            continue
        line = found[fmt.name]
        assert (line["kind"], int(line["bits"])) == (fmt.kind, fmt.bits)
        assert value_of(line["max"]) == Fraction(fmt.max)
        assert line.get("aliases", "").split() == list(fmt.aliases)
        if isinstance(fmt, Grid) and fmt.kind == "float":
            sign, exp_bits, man_bits = map(int, line["s/e/m"].split("/"))
            assert (sign, exp_bits, man_bits) == (fmt.signed, fmt.exp_bits, fmt.man_bits)
            assert (
                Fraction(2) ** int(line["emin"])
                <= Fraction(fmt.smallest_normal)
                < Fraction(2) ** (int(line["emin"]) + 1)
            )
            assert (line["subn."] == "") == (fmt.smallest_subnormal == fmt.smallest_normal)
            assert not line["subn."] or value_of(line["subn."]) == Fraction(fmt.smallest_subnormal)
            assert value_of(line["eps"]) == Fraction(fmt.eps)
            assert line["spec."] == fmt.specials
        else:
            assert int(line["values"]) == np.count_nonzero(np.isfinite(fmt.values()))
            assert value_of(line["min"]) == Fraction(fmt.min)
            assert value_of(line["least"]) == Fraction(fmt.smallest_subnormal)
            assert (line.get("spec.") == "NaN") == fmt.has_nan


def test_formats_has_a_line_for_each_family(capsys: pytest.CaptureFixture[str]) -> None:
    """Of a family there is its spelling, its widths, the number of its formats and one of them."""
    found = tables(printed(capsys, "formats"))
    families = {fmt.family for fmt in catalogue().values()} - {""}
    assert families == {"int{bits}", "uint{bits}", "int{bits}sym", "Binary{K}p{P}{s|u}{e|f}"}
    for family in families:
        members = [fmt for fmt in catalogue().values() if fmt.family == family]
        widths = {fmt.bits for fmt in members}
        assert widths == set(range(min(widths), max(widths) + 1))
        line = found[family]
        assert (line["bits"], line["formats"]) == (f"{min(widths)}..{max(widths)}", str(len(members)))
        assert line["such as"] in [fmt.name for fmt in members]


def of_p3109(name: str) -> dict[str, Fraction]:
    """Return the landmarks of Binary{K}p{P}{s|u}{e|f} by the words of IEEE P3109: sections 3.1 and 4.7.2."""
    match = re.fullmatch(r"Binary(\d+)p(\d+)([su])([ef])", name)
    assert match
    k, p, signed, extended = int(match[1]), int(match[2]), match[3] == "s", match[4] == "e"
    bias = 2 ** (k - p - signed)
    largest = 2 ** (k - signed) - 1 - (not signed) - extended  # its code

    def decode(code: int) -> Fraction:
        field, trailing = divmod(code, 2 ** (p - 1))
        return Fraction(trailing + (field > 0) * 2 ** (p - 1), 2 ** (p - 1)) * Fraction(2) ** (max(field, 1) - bias)

    one = bias * 2 ** (p - 1)
    found = {"max": decode(largest), "min": -decode(largest) * signed, "smallest_subnormal": decode(1)}
    if largest > one:
        found["eps"] = decode(one + 1) - 1
    return found | {"smallest_normal": decode(2 ** (p - 1))}


def test_formats_lists_all(capsys: pytest.CaptureFixture[str]) -> None:
    """With --all every format has a line; those of P3109 are as the report has them, also beyond float64."""
    found = tables(printed(capsys, "formats", "--all"))
    for variant in variants():
        for of in variant.of:
            differs = found.pop(f"{of}@{variant.name}")["what differs"]
            assert differs.count(", ") == len(variant.changes) - 1
            assert all(key in differs for key in variant.changes)
    assert set(found) == set(catalogue())
    for name, line in found.items():
        if name.startswith("Binary"):
            marks = of_p3109(name)
            assert value_of(line["max"]) == marks["max"]
            assert Fraction(2) ** int(line["emin"]) == marks["smallest_normal"]
            assert (line["subn."] == "") == (marks["smallest_normal"] == marks["smallest_subnormal"])
            assert not line["subn."] or value_of(line["subn."]) == marks["smallest_subnormal"]
            assert (line["eps"] == "") == ("eps" not in marks)
            assert not line["eps"] or value_of(line["eps"]) == marks["eps"]


def test_formats_as_json(capsys: pytest.CaptureFixture[str]) -> None:
    """As JSON it is a list of objects, one a format, in the order of the full list, whether --all was given or not."""
    names = [name for name in tables(printed(capsys, "formats", "--all")) if "@" not in name]
    out = printed(capsys, "formats", "--json")
    assert printed(capsys, "formats", "--all", "--json") == out
    found = {entry["name"]: entry for entry in json.loads(out)}
    assert list(found) == names
    assert found["float8_e4m3fn"]["source"]
    assert {
        "bits": 8, "exp_bits": 4, "man_bits": 3, "max": 448.0, "eps": 0.125, "specials": "fn", "family": None,
    }.items() <= found["float8_e4m3fn"].items()  # fmt: skip
    assert found["float8_e8m0fnu"]["variants"][0] == "float8_e8m0fnu@cuda"
    assert found["Binary8p4sf"]["revision"] == "p3109-2026-07"
    grid = ("exp_bits", "man_bits", "precision", "bias", "emin", "emax", "specials")
    for name in ("int8", "nf4"):
        assert [found[name][key] for key in grid] == [None] * len(grid)
    assert found["nf4"]["eps"] is found["int8"]["zero_to"] is found["Binary16p1se"]["max"] is None
    assert found["Binary16p1se"]["exact"]["max"] == "2^16382"
    assert (found["dlfloat16"]["bias"], found["cfloat8_1_4_3_half"]["bias"]) == (31, 7)  # as their papers say
    for name, entry in found.items():
        marks = of_p3109(name) if name.startswith("Binary") else {}
        for key, product in entry["exact"].items():
            number = None if product is None else value_of(product)
            assert number == marks.get(key, number)
            assert entry[key] is None or entry[key] == number
            if not marks and product is not None:
                assert entry[key] == getattr(get_format(name), key)
