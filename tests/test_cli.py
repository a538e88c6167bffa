"""The command: what it prints, what it refuses, and what it must not load to do so."""

from __future__ import annotations

import itertools
import json
import math
import os
import re
import subprocess
import sys
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from strategies import BIASED, CATALOGUE, FIXED, GAPPED, P3109, PARAMETRIC, TABLES, UNSIGNED, WIDE_P3109

import qsim
from qsim.cli import formats, main, show, text
from qsim.formats import Format, Grid, catalogue, get_format, table_format
from qsim.rounding import Mode, Quantizer, saturations

FAR = [get_format(name) for name in ("e4m3b4000f", "e4m3b-4000f", "e2m1b30000fu")]
"""Formats of few bits whose values no float64 holds."""
REFUSING = table_format("refusing", [-1.0, 0.0, 2.0], "a test", nan_to="error")
LINED = [*CATALOGUE, *P3109[::7], *WIDE_P3109[::40], *PARAMETRIC[::9], *UNSIGNED[::9], *BIASED, *FIXED, *FAR]
"""Formats that a command line can name, of every kind."""
SHOWN = [*LINED, *(fmt for fmt in (*TABLES, *GAPPED, REFUSING) if fmt.name not in catalogue())]
"""Those, and formats of a caller's own."""


def refused(capsys: pytest.CaptureFixture[str], *argv: str) -> str:
    """Run a command line that must be refused, and return the one sentence on stderr."""
    assert main(argv) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert re.fullmatch(r"qsim: [^\n]+\n", err), err
    return err


def printed(capsys: pytest.CaptureFixture[str], *argv: str) -> str:
    """Run a command line that must do, and return what it printed: ASCII, and no wider than a page."""
    assert main(argv) == 0
    out, err = capsys.readouterr()
    assert err == ""
    assert out.isascii()
    assert max(map(len, out.splitlines())) <= 100 or "--json" in argv
    return out


# --- qsim formats ----------------------------------------------------------------------------------------------------


def tables(out: str) -> dict[str, dict[str, str]]:
    """Read every table of a text back: for the first cell of each line, the others by the heads of their columns."""
    found = {}
    lines = out.splitlines()
    for at, line in enumerate(lines):
        if re.fullmatch(r"-+(  -+)+", line):
            spans = [slice(*match.span()) for match in re.finditer("-+", line)]
            spans[-1] = slice(spans[-1].start, None)
            heads = [lines[at - 1][span].strip() for span in spans]
            for row in itertools.takewhile(bool, lines[at + 1 :]):
                cells = [row[span].strip() for span in spans]
                found[cells[0]] = {"kind": heads[0], **dict(zip(heads[1:], cells[1:], strict=True))}
    return found


def value_of(printed: str) -> Fraction:
    """Return what a number, a product or a difference such as 2^128-2^120 stands for."""
    if "^" not in printed and "*" not in printed:
        return Fraction(printed)
    return eval(re.sub(r"([\d.]+)", r"Fraction('\1')", printed).replace("^", "**"), {"Fraction": Fraction})  # noqa: S307


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
    names = list(tables(printed(capsys, "formats", "--all")))
    out = printed(capsys, "formats", "--json")
    assert printed(capsys, "formats", "--all", "--json") == out
    found = {entry["name"]: entry for entry in json.loads(out)}
    assert list(found) == names
    assert found["float8_e4m3fn"]["source"]
    assert {
        "bits": 8, "exp_bits": 4, "man_bits": 3, "max": 448.0, "eps": 0.125, "specials": "fn", "family": None,
    }.items() <= found["float8_e4m3fn"].items()  # fmt: skip
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


# --- qsim show -------------------------------------------------------------------------------------------------------


def in_float64(fmt: Format) -> bool:
    """Return whether float64 holds the values of a format."""
    try:
        return math.isfinite(fmt.max) and fmt.smallest_subnormal != 0
    except qsim.InputError:
        return False


def shown(fmt: Format) -> str:
    """Return what `qsim show` prints of a format: ASCII, no wider than a page."""
    out = show.show(fmt, fmt.name)
    assert out.isascii()
    assert max(map(len, out.splitlines())) <= 100
    return out


def listed(out: str) -> dict[str, tuple[str, str]]:
    """Read the table of values back: bits and value by the hexadecimal digits of the code."""
    cells = [cell.split() for cell in out[out.index("\ncode ") :].split("0x")[1:]]
    return {code: ("".join(fields), value) for code, *fields, value in cells}


NARROW = [fmt for fmt in (*SHOWN, *P3109, *PARAMETRIC[::5], *UNSIGNED[::5]) if fmt.bits <= 8 and fmt not in FAR]


@pytest.mark.parametrize("fmt", {fmt.name: fmt for fmt in NARROW}.values(), ids=str)
def test_the_table_of_values_reads_back(fmt: Format) -> None:
    """Every code of up to 8 bits stands in the table with its bits and with a number that reads back as its value."""
    found = listed(shown(fmt))
    digits = len(f"{(1 << fmt.bits) - 1:x}")
    assert len(found) == 1 << fmt.bits
    for code, value in enumerate(fmt.values().tolist()):
        bits, printed = found[f"{code:0{digits}x}"]
        assert bits == f"{code:0{fmt.bits}b}"
        if not fmt.is_code(code):
            assert printed == "unused"
        elif "^" in printed:
            assert value_of(printed) == Fraction(value)
        else:
            assert np.array_equal(float(printed), value, equal_nan=True)
            assert math.isnan(value) or printed.startswith("-") == (math.copysign(1, value) < 0)


@pytest.mark.parametrize("fmt", FAR, ids=str)
def test_values_beyond_float64(fmt: Format) -> None:
    """Values that no float64 holds are shown as products with powers of two; with no gap and no NaN all are on the grid."""
    assert isinstance(fmt, Grid)
    assert fmt.specials == "f"
    magnitudes = {}
    for code in range(1 << (fmt.bits - fmt.signed)):
        field, trailing = divmod(code, 1 << fmt.man_bits)
        significand = Fraction(trailing + ((field > 0) << fmt.man_bits), 1 << fmt.man_bits)
        magnitudes[code] = significand * Fraction(2) ** (max(field, 1) - fmt.bias)
    found = {int(code, 16): value_of(printed) for code, (_, printed) in listed(shown(fmt)).items()}
    negative = {code | 1 << (fmt.bits - 1): -value for code, value in magnitudes.items()} if fmt.signed else {}
    assert found == magnitudes | negative
    assert "none are rounded to it" in shown(fmt)
    plain = show.data(fmt, fmt.name)["values"]
    assert [value_of(value) if isinstance(value, str) else value for value in plain] == [
        found[c] for c in sorted(found)
    ]


@pytest.mark.parametrize("fmt", {fmt.name: fmt for fmt in SHOWN}.values(), ids=str)
def test_show_says_what_is_in_force(fmt: Format) -> None:
    """The landmarks read back exactly, as do the decimals where a float64 holds them; the source stands there."""
    out = shown(fmt)
    landmarks = dict(re.findall(r"^(max|min|smallest \w+|eps|spacing) +(\S.*)$", out, re.MULTILINE))
    for name, printed in landmarks.items():
        decimal, _, product = printed.partition(" = ")
        exact = value_of(product or decimal)
        if decimal.startswith("~"):
            assert abs(Fraction(decimal[1:].strip()) / exact - 1) < Fraction(1, 100)
            assert text.as_float(exact) is None
        else:
            key = {"spacing": "smallest_subnormal", "smallest positive": "smallest_subnormal"}.get(name, name)
            assert Fraction(float(decimal)) == exact == Fraction(getattr(fmt, key.replace(" ", "_")))
    assert {"max", "min"} <= set(landmarks)
    assert ("smallest normal" in landmarks, "spacing" in landmarks) == (
        fmt.kind == "float",
        fmt.kind in ("integer", "fixed"),
    )
    assert re.sub(r"\s+", " ", fmt.source) in re.sub(r"\s+", " ", out)
    count = re.search(r"^finite values +(\d+)", out, re.MULTILINE)
    assert count
    if fmt.bits <= 16 and in_float64(fmt):
        finite = fmt.values()[np.isfinite(fmt.values())]
        assert int(count[1]) == np.unique(finite + 0.0).size


def test_show_resolves_names(capsys: pytest.CaptureFixture[str]) -> None:
    """A short name is shown as the format it stands for, and OCP's e4m3 is not the IEEE-like one."""
    assert "float8_e4m3fn, which e4m3 stands for" in printed(capsys, "show", "e4m3")
    assert "stands for" not in printed(capsys, "show", "float8_e4m3fn")
    assert "infinity            0x78, -infinity 0xf8" in printed(capsys, "show", "float8_e4m3")


@pytest.mark.parametrize(
    ("name", "lines"),
    [
        ("e4m3", ["NaN 0x7f, 0xff; results have 0x7f", "zero +0 is 0x00, -0 is 0x80", "bits 8: sign, 4 exponent, 3 mantissa",
                  "exponent emin -6, emax 8, bias 7", "exponent field 0 0.m 2^(1 - bias), as in IEEE 754",
                  "finite values 253 (0 and -0 are one)", "also taken SatNone for OvfNaN, SatPropagate for SatFinite"]),
        ("e5m2", ["infinity 0x7c, -infinity 0xfc", "NaN 0x7d .. 0x7f, 0xfd .. 0xff; results have 0x7e",
                  "in SatNone (default) SatFinite SatPropagate"]),
        ("e4m3fnuz", ["NaN 0x80; results have 0x80", "zero 0x00; there is no -0", "exponent emin -7, emax 7, bias 8"]),
        ("e2m1", ['as data nan_to = "max"', "special values finite values only", "NaN max", "infinity max"]),
        ("int8", ['as data nan_to = "zero"', "special values none", "bits 8, two's complement", "NaN 0 0",
                  "rounds above max max wrapped", "infinity max max", "wrap the low 8 bits of the rounded integer"]),
        ("e8m0", ["zero there is none", "NaN 0xff; results have 0xff", "bits 8: no sign, 8 exponent, 0 mantissa",
                  "exponent emin -127, emax 127, bias 127", "exponent field 0 2^-127, the smallest value",
                  "0, or rounds to it min", 'as data nan_to = "nan", zero_to = "min", negative_to = "nan"',
                  "rounds below 0 min NaN"]),
        ("posit8", ["special values a NaN", "NaN 0x80; results have 0x80", "zero 0x00; there is no -0",
                    "rounding to nearest is by distance", "bits 8, a code for each of a list of values"]),
        ("nf4", ["special values none", "zero 0x7; there is no -0", "smallest positive 0.07958029955625534 = 10681087*2^-27"]),
        ("log4_sqrt2", ["unused codes 0x8"]),
        ("int8sym", ["unused codes 0x80", "bits 8, two's complement without the most negative number", "one of int{bits}sym",
                     "in saturate (default)\n"]),
        ("Q3.4", ["bits 8, two's complement; the value is the integer times 2^-4", "spacing 0.0625 = 2^-4",
                  "max 7.9375 = 2^3-2^-4"]),
        ("UQ0.8", ["bits 8, unsigned; the value is the integer times 2^-8", "rounds below 0 0 wrapped", "min 0\n"]),
        ("uint4", ["bits 4, unsigned", 'as data nan_to = "zero", negative_to = "min"', "-infinity 0 0"]),
        ("dlfloat16", ["exponent field 0 1.m 2^(-bias), but for m = 0, which is zero", "exponent emin -31, emax 32, bias 31"]),
        ("cfloat8_1_4_3_half", ["exponent field 0 0.m 2^(-bias), as the CFloat8 whitepaper prints it: a gap below the smallest",
                                "smallest subnormal 0.0009765625 = 2^-10", "exponent emin -6, emax 8, bias 7"]),
        ("e4m0fn", ["exponent field 0 zero; without mantissa bits there are no subnormal numbers"]),
        ("Binary8p4ue", ["infinity 0xfe; there is no -infinity", "NaN 0xff; results", "rounds below 0 NaN 0 0",
                         "rounds below 0, RTZ RUP 0 0 0", "-infinity NaN 0 0", "one of Binary{K}p{P}{s|u}{e|f}"]),
        ("Binary8p4se", ["infinity 0x7f, -infinity 0xff", "NaN 0x80; results have 0x80"]),
        ("Binary16p1se", ["max ~2.97e+4931 = 2^16382", "smallest normal ~1.68e-4932 = 2^-16383",
                          "arrays none are rounded to it"]),
    ],
)  # fmt: skip
def test_show_special_values(name: str, lines: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    """The layout, the codes of special values, and what becomes of what the format does not hold are shown."""
    out = re.sub(r"(?<=\S)\n {20}", " ", printed(capsys, "show", name))
    out = re.sub(" +", " ", out)
    for line in lines:
        assert f"\n{line}" in out


# --- What becomes of what a format cannot hold -----------------------------------------------------------------------

ALL_MODES = [mode for mode in Mode if mode is not Mode.THR]


def words_of(fmt: Format) -> dict[str, float]:
    """Return the values that the words of the table stand for."""
    named = {"NaN": math.nan, "infinity": math.inf, "-infinity": -math.inf, "0": 0.0, "-0": -0.0}
    return named | {"max": fmt.max, "min": fmt.min}


@pytest.mark.parametrize(
    "name",
    ["e4m3", "e5m2", "e2m1", "e4m3fnuz", "e8m0", "ue4m3", "int8", "int8sym", "uint4", "ternary", "binary", "nf4", "posit8",
     "Q3.4", "UQ0.8", "e3m2 normal", "cfloat8_1_4_3_half", "bfloat16", "Binary8p4se", "Binary8p4ue", "Binary8p4uf",
     "Binary8p4sf", "Binary8p1ue", "refusing", "positive"],
)  # fmt: skip
def test_becomes(name: str) -> None:
    """Under each saturation the kernels do what the table says, in every mode, or in those the line names."""
    own = {fmt.name: fmt for fmt in (*TABLES, *GAPPED, REFUSING)}
    fmt = own[name] if name in own else get_format(name)
    span = fmt.max - fmt.min
    for rule, table in show.becomes(fmt).items():
        for label, word in table.items():
            general, _, modes = label.partition(", RTZ")
            directed = [mode for mode in ALL_MODES if mode.name in f"RTZ{modes}".split()]
            if not modes and any(other.startswith(f"{general}, RTZ") for other in table):
                above = "above" in label
                directed = [mode for mode in ALL_MODES if mode not in (Mode.RTZ, Mode.RDN if above else Mode.RUP)]
            elif not modes:
                directed = ALL_MODES
            zero = math.copysign(math.ldexp(fmt.smallest_subnormal, -3), -1) if "rounds to it" in label else None
            inputs = {
                "NaN": [math.nan], "infinity": [math.inf], "-infinity": [-math.inf], "0": [0.0, -0.0],
                "rounds above max": [fmt.max + 9 * span, 2 * fmt.max + 9 * span],
                "rounds below min": [fmt.min - 9 * span], "rounds below 0": [-fmt.max, -9 * fmt.max],
                "-0, or rounds to it": [-0.0, zero], "0, or rounds to it": [0.0, -0.0, zero],
            }[general]  # fmt: skip
            for mode in directed:
                assert_becomes(fmt, rule, [x for x in inputs if x is not None], mode, word)


def assert_becomes(fmt: Format, rule: str, inputs: list[float], mode: Mode, word: str) -> None:
    """Assert that the kernels make of `inputs`, those that round to zero only if they do in this mode, what `word` says."""
    q = Quantizer(fmt, mode, saturation=rule, sr_bits=4 if mode in (Mode.SRA, Mode.SRB, Mode.SRC) else None)
    key = qsim.Key(0) if mode.stochastic else None
    for x in inputs:
        tiny = 0 < abs(x) < fmt.smallest_subnormal
        if tiny and mode not in (Mode.RNE, Mode.RTZ, Mode.RUP):
            continue  # these need not round to zero
        if word == "refused":
            with pytest.raises(qsim.InputError):
                qsim.quantize([x], q, key=key)
            continue
        found = qsim.quantize([x], q, key=key).item()
        if word == "wrapped":
            steps = np.array([x, found]) / fmt.smallest_subnormal
            assert (steps[0] - steps[1]) % 2**fmt.bits in (0, 1, 2**fmt.bits - 1)  # a rounding apart
            assert fmt.min <= found <= fmt.max
            continue
        expected = words_of(fmt)[word]
        assert np.array_equal(found, expected, equal_nan=True), (mode, rule, x)
        assert math.isnan(expected) or math.copysign(1, found) == math.copysign(1, expected)


@pytest.mark.parametrize("fmt", {fmt.name: fmt for fmt in SHOWN}.values(), ids=str)
def test_the_rules_of_saturation_are_columns(fmt: Format) -> None:
    """Each rule that makes sense for a format is a column, the default first, and NaN and infinities have a line."""
    rules = [str(rule) for rule in saturations(fmt)]
    found = show.becomes(fmt)
    assert list(found) == rules
    table = tables(shown(fmt))
    assert table["NaN"].keys() == table["infinity"].keys() == {"kind", f"{rules[0]} (default)", *rules[1:]}
    assert [*table["NaN"].values()][1:] == [found[rule]["NaN"] for rule in rules]


@pytest.mark.parametrize("fmt", {fmt.name: fmt for fmt in LINED}.values(), ids=str)
def test_show_as_json(fmt: Format, capsys: pytest.CaptureFixture[str]) -> None:
    """As JSON it has the same facts, the codes of special values, and NaN and infinities as strings."""
    found = json.loads(printed(capsys, "show", fmt.name, "--json"))
    assert found["name"] == found["asked"] == fmt.name
    assert found["saturation"] == list(found["becomes"]) == [str(rule) for rule in saturations(fmt)]
    assert [found[key] or "" for key in ("nan_to", "zero_to", "negative_to")] == [
        fmt.nan_to,
        fmt.zero_to,
        fmt.negative_to,
    ]
    assert (found["nan_code"], found["inf_code"], found["signed"]) == (fmt.nan_code, fmt.inf_code, fmt.signed)
    assert (found["exp_bits"] is None) == (fmt.kind != "float")
    if fmt.bits > 8:
        assert found["values"] is None
    elif in_float64(fmt):
        assert found["max"] == fmt.max
        values = [math.nan if value is None else float(value) for value in found["values"]]
        assert np.array_equal(values, fmt.values(), equal_nan=True)
        assert [code for code, value in enumerate(found["values"]) if value is None] == [
            *codes_in(found["unused_codes"])
        ]
        assert [code for code, value in enumerate(found["values"]) if value == "nan"] == [*codes_in(found["nan_codes"])]
    if fmt.bits <= 11:
        unused = [code for code in range(1 << fmt.bits) if not fmt.is_code(code)]
        assert [*codes_in(found["unused_codes"])] == unused
        if in_float64(fmt):
            nans = np.flatnonzero(np.isnan(fmt.values()))
            assert [*codes_in(found["nan_codes"])] == sorted(set(nans.tolist()) - set(unused))


def codes_in(spans: list[list[int]]) -> list[int]:
    """Return the codes of runs."""
    return [code for first, last in spans for code in range(first, last + 1)]


TOML = """
[[format]]
name = "sixes"
kind = "table"
values = [-6.0, 0.0, 0.5, 6.0]
above = 60.0
source = "drawn by a test"

[[format]]
name = "e3m4b6"
kind = "float"
exp_bits = 3
man_bits = 4
bias = 6
specials = "fn"
nan_to = "max"
source = "drawn by a test"
"""


def test_a_file_of_formats(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """A format of a file is shown as any other; a wrong path and an entry that is not there are refused by name."""
    monkeypatch.chdir(tmp_path)
    Path("mine.toml").write_text(TOML, encoding="utf-8")
    out = printed(capsys, "show", "mine.toml#sixes")
    assert "sixes, which mine.toml#sixes stands for" in out
    assert "the line goes on above at 60\n" in out
    assert 'nan_to = "max"' in printed(capsys, "show", str(tmp_path / "mine.toml#e3m4b6"))
    assert json.loads(printed(capsys, "show", "mine.toml#sixes", "--json"))["values"] == [-6.0, 0.0, 0.5, 6.0]
    for spelled, fragment in {
        "gone.toml#sixes": "gone.toml: cannot be read (No such file or directory)",
        "no/where.toml": "no/where.toml: cannot be read (No such file",
        "mine.toml#sevens": "mine.toml: has no format called 'sevens'; name one, such as mine.toml#",
        "mine.toml": "mine.toml: has 2 formats; name one, such as mine.toml#",
    }.items():
        assert fragment in refused(capsys, "show", spelled)
    Path("mine.toml").write_text(TOML.replace('specials = "fn"', 'specials = "nf"'), encoding="utf-8")
    assert "mine.toml: format 2 (e3m4b6): " in refused(capsys, "show", "mine.toml#sixes")


# --- Text ------------------------------------------------------------------------------------------------------------


def test_json_has_no_bare_nan() -> None:
    """NaN and infinities become strings wherever they stand, for JSON has no such numbers."""
    plain = {"a": [float("nan"), (1.5, float("-inf"))], "b": {"c": float("inf")}, "d": None}
    assert json.loads(text.as_json(plain)) == {"a": ["nan", [1.5, "-inf"]], "b": {"c": "inf"}, "d": None}


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (0.125, "2^-3"),
        (448, "1.75*2^8"),
        (3.0, "1.5*2^1"),
        (1.0, "2^0"),
        (0.0, "0"),
        (5e-324, "2^-1074"),
        (65504, "2^16-2^5"),
        (-65504, "-(2^16-2^5)"),
        (-0.3125, "-1.25*2^-2"),
        (2**31 - 1, "2^31-1"),
        (2 - 2.0**-9, "2-2^-9"),
        (-0.6961928009986877, "-11680177*2^-24"),
        (float(2**40 + 1), "1099511627777"),
        (Fraction(7, 2**5000), "1.75*2^-4998"),
    ],
)
def test_products_with_powers_of_two(value: float | Fraction, shown: str) -> None:
    """Numbers are written as a short factor times a power of two, or a difference of two, exactly."""
    assert text.exact(value) == shown
    assert value_of(shown) == value


@given(st.floats(allow_nan=False, allow_infinity=False), st.integers(-3000, 3000))
def test_products_read_back(value: float, exponent: int) -> None:
    """Any number of finitely many binary digits reads back from what is written."""
    number = Fraction(value) * Fraction(2) ** exponent
    assert value_of(text.exact(number)) == number


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (448.0, "448"), (Fraction(448), "448"), (-0.0, "-0"), (Fraction(1, 8), "0.125"), (Fraction(2) ** 16382, "~2.97e+4931"),
        (-(Fraction(2) ** -5000), "~-7.08e-1506"), (Fraction(2**53 + 1), "~9.01e+15"), (math.inf, "inf"),
    ],
)  # fmt: skip
def test_decimals(value: float | Fraction, shown: str) -> None:
    """A number is written so that it reads back, or marked as only near it where no float64 is equal to it."""
    assert text.number(value) == shown


@given(st.sets(st.integers(0, 60)))
def test_spans(numbers: set[int]) -> None:
    """Runs hold the numbers and no others, and none is the continuation of the one before."""
    found = text.spans(sorted(numbers))
    assert [n for first, last in found for n in range(first, last + 1)] == sorted(numbers)
    assert all(before[1] + 1 < after[0] for before, after in itertools.pairwise(found))


def test_a_table_leaves_out_what_is_empty() -> None:
    """A column in which no line has a word is not printed."""
    assert text.table(("a", "b", "c"), [("1", "", "3"), ("10", "", "")], right="a") == " a  c\n--  -\n 1  3\n10"


# --- Bad usage -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("argv", "fragment"),
    [
        (("shwo", "e4m3"), "no command is called 'shwo'; did you mean show?"),
        (("format",), "did you mean formats"),
        (("zzz",), "did you mean formats, plot, prove, quantize, report or show?"),
        (("show",), "FORMAT; `qsim show --help` shows how"),
        (("show", "e4m3", "--jsn"), "qsim show does not take '--jsn'; did you mean --json?"),
        (("show", "e4m3", "--js"), "did you mean --json?"),
        (("show", "e4m3", "e5m2"), "qsim show does not take 'e5m2'"),
        (("formats", "-x"), "qsim formats does not take '-x'"),
        (("formats", "--al"), "did you mean --all"),
        (("show", "Q3.40"), "no format is called 'Q3.40': it needs"),
        (("show", "Binary8p8se"), "no format is called 'Binary8p8se'"),
        (("--jsom",), "COMMAND; `qsim --help`"),
        (("show", "e4m4m"), "no format is called 'e4m4m'; did you mean"),
        (("show", "bfloat"), "bfloat16"),
        (("show", "e4m0"), "e4m0fn, e4m0fnuz or e4m0f can exist"),
        (("show", ""), "no format is called ''"),
    ],
)
def test_bad_usage_is_refused(argv: tuple[str, ...], fragment: str, capsys: pytest.CaptureFixture[str]) -> None:
    """A wrong command, flag or name ends with 2 and one sentence that names the nearest right one."""
    assert fragment in refused(capsys, *argv)


def test_no_command(capsys: pytest.CaptureFixture[str]) -> None:
    """Without a command the help is shown, as for bad usage."""
    assert main([]) == 2
    assert "show one format" in capsys.readouterr().out


@pytest.mark.parametrize("command", ["formats", "show", "plot", "quantize", "prove", "report"])
def test_every_command_takes_json(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Every command has help, and takes --json."""
    with pytest.raises(SystemExit) as caught:
        main([command, "--help"])
    assert caught.value.code == 0
    assert "--json" in capsys.readouterr().out


def test_ctrl_c_is_quiet(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """An interrupt ends the command with 130 and without a word."""

    def interrupted(_: object) -> int:
        raise KeyboardInterrupt

    monkeypatch.setattr(formats, "run", interrupted)
    assert main(["formats"]) == 130
    assert capsys.readouterr() == ("", "")


def test_files_that_fail_are_named(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """A file that cannot be read or written ends the command with 2 and its name."""

    def failing(_: object) -> int:
        raise PermissionError(13, "Permission denied", "somewhere/report.md")

    monkeypatch.setattr(show, "run", failing)
    assert refused(capsys, "show", "e4m3") == "qsim: somewhere/report.md: Permission denied\n"


def test_names_at_the_top() -> None:
    """Every name that `qsim` promises is that of its home, which promises it too."""
    assert set(qsim.__all__) == set(qsim.HOME)
    for name, home in qsim.HOME.items():
        module = getattr(qsim, home)
        assert name in module.__all__
        assert getattr(qsim, name) is getattr(module, name)


# --- As a process ----------------------------------------------------------------------------------------------------

ENVIRONMENT = os.environ | {"PYTHONPATH": str(Path(qsim.__file__).parents[1])}


def process(*argv: str, **options: Any) -> subprocess.CompletedProcess[str]:
    """Run Python with `argv` on the qsim under test."""
    options = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, **options}
    return subprocess.run([sys.executable, *argv], env=ENVIRONMENT, text=True, timeout=60, check=False, **options)


def test_as_a_module() -> None:
    """`python -m qsim` is the command: it says its version, and an error is a sentence, not a traceback."""
    assert process("-m", "qsim", "--version").stdout == f"qsim {qsim.__version__}\n"
    wrong = process("-m", "qsim", "show", "e4m4m")
    assert (wrong.returncode, wrong.stdout) == (2, "")
    assert re.fullmatch(r"qsim: no format is called 'e4m4m'[^\n]*\n", wrong.stderr)


HEAVY = ["IPython", "jinja2", "joblib", "llvmlite", "matplotlib", "mpmath", "numba", "rich", "scipy", "sklearn", "z3"]


@pytest.mark.parametrize(
    "argv", [["--help"], ["formats"], ["show", "e4m3"], ["show", "posit8"], ["show", "int8", "--json"]], ids=" ".join
)
def test_nothing_heavy_is_loaded(argv: list[str]) -> None:
    """The commands that only read formats load neither Numba nor another of the large libraries."""
    program = (
        "import sys\nfrom qsim.cli import main\ntry:\n    main(sys.argv[1:])\nexcept SystemExit:\n    pass\n"
        f"print(sorted(set({HEAVY}) & set(sys.modules)), file=sys.stderr)"
    )
    done = process("-c", program, *argv)
    assert (done.returncode, done.stderr) == (0, "[]\n")
    assert done.stdout


def test_a_closed_pipe_is_quiet() -> None:
    """A reader who goes away, as `head` does, ends the command without a word."""
    read, write = os.pipe()
    os.close(read)
    done = process("-m", "qsim", "show", "e4m3", stdout=write)
    os.close(write)
    assert (done.returncode, done.stderr) == (141, "")


def test_a_full_disk_is_reported() -> None:
    """Output that cannot be written is an error with its reason, once."""
    with Path("/dev/full").open("w") as full:
        done = process("-m", "qsim", "formats", stdout=full)
    assert (done.returncode, done.stderr) == (2, "qsim: No space left on device\n")
