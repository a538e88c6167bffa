"""`qsim show`: that everything it says of a format reads back as what is so, and is what the kernels do."""

from __future__ import annotations

import json
import math
import re
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from command import printed, refused, tables, value_of
from strategies import BIASED, CATALOGUE, FIXED, GAPPED, P3109, PARAMETRIC, TABLES, UNSIGNED, WIDE_P3109

import qsim
from qsim.cli import show, text
from qsim.formats import Format, Grid, catalogue, get_format, table_format, variants
from qsim.rounding import Mode, Quantizer, saturations

FAR = [get_format(name) for name in ("e4m3b4000f", "e4m3b-4000f", "e2m1b30000fu")]
"""Formats of few bits whose values no float64 holds."""
REFUSING = table_format("refusing", [-1.0, 0.0, 2.0], "a test", nan_to="error")
VARIANTS = [get_format(f"{of}@{variant.name}") for variant in variants() for of in variant.of if "{" not in of]
LINED = [
    *CATALOGUE,
    *VARIANTS,
    get_format("Binary8p4uf@p3109-4.0"),
    *P3109[::7],
    *WIDE_P3109[::40],
    *PARAMETRIC[::9],
    *UNSIGNED[::9],
    *BIASED,
    *FIXED,
    *FAR,
]
"""Formats that a command line can name, of every kind."""
SHOWN = [*LINED, *(fmt for fmt in (*TABLES, *GAPPED, REFUSING) if fmt.name not in catalogue())]
"""Those, and formats of a caller's own."""

# --- What it is ------------------------------------------------------------------------------------------------------


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
    for name, stated in landmarks.items():
        decimal, _, product = stated.partition(" = ")
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
                  "0 min min", "between 0 and min min min", "has a minus sign, -0 too min NaN",
                  'as data nan_to = "nan", zero_to = "min", negative_to = "nan"',
                  "warning no two libraries agree on ties, 0, negative numbers and overflow",
                  "variants float8_e8m0fnu@cuda, float8_e8m0fnu@torch, float8_e8m0fnu@ml_dtypes, float8_e8m0fnu@onnxruntime",
                  "converter 0.75 3 0 -3 2^-149 5*2^-129 3e38 inf NaN is",
                  "torch 2.13.0 1 4 2^-127 4 2^-127 2^-126 NaN NaN NaN @torch"]),
        ("e8m0@torch", ["variant of float8_e8m0fnu: the same values and codes", "converts as PyTorch 2.13.0",
                        "in OvfNaN (default) SatFinite", "has a minus sign, -0 too magnitude magnitude", "-infinity NaN max",
                        'as data nan_to = "nan", zero_to = "min", negative_to = "magnitude", ties = "away"', "RNE is RNA"]),
        ("e4m3@cuda", ['as data nan_to = "nan", nan = "signed_overflow"', "converts as NVIDIA, CUDA 13.5, cuda_fp8.h"]),
        ("e5m2@torch", ["NaN 0x7d .. 0x7f, 0xfd .. 0xff; results have 0x7f"]),
        ("e2m1@ml_dtypes", ["NaN -0", 'as data nan_to = "opposite_zero"']),
        ("Binary8p4sf", ["revision p3109-2026-07: SatNone makes NaN of", "variants Binary8p4sf@p3109-4.0, Binary8p4sf@",
                         "also taken SatNone for OvfNaN, SatPropagate for SatFinite, as p3109-2026-07 has it for"]),
        ("Binary8p4sf@p3109-4.0", ["revision p3109-4.0: SatNone makes the extremum of what overflows a finite format",
                                   "in SatFinite (default) SatNone OvfNaN", "rounds above max max max NaN",
                                   "also taken SatPropagate for SatFinite", "converts as IEEE P3109"]),
        ("Binary8p4ue@p3109-4.0", ["rounds above max, RTZ RDN RTO max max max", "rounds below 0 NaN 0 0"]),
        ("posit8", ["special values a NaN", "NaN 0x80; results have 0x80", "zero 0x00; there is no -0",
                    "rounding to nearest turns at thresholds, not in the middle; stochastic is linear", "infinity NaN max NaN",
                    "bits 8, a code for each of a list of values", "in InfNaN (default) SatFinite OvfNaN"]),
        ("nf4_bitsandbytes", ["rounding to nearest turns at thresholds"]),
        ("nf4", ["rounding to nearest is by distance", "special values none", "zero 0x7; there is no -0",
                 "smallest positive 0.07958029955625534 = 10681087*2^-27"]),
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
    if name == "posit8":
        assert (
            "14 of 254 are not the middle: 0, 2^-22, 2^-19, 2^-17, 2^17, 2^19, 2^22, and likewise below 0; nothing"
            in out
        )


# --- What becomes of what a format cannot hold -----------------------------------------------------------------------

ALL_MODES = [mode for mode in Mode if mode is not Mode.THR]


def words_of(fmt: Format) -> dict[str, float]:
    """Return the values that the words of the table stand for."""
    named = {"NaN": math.nan, "infinity": math.inf, "-infinity": -math.inf, "0": 0.0, "-0": -0.0}
    return named | {"max": fmt.max, "min": fmt.min}


@pytest.mark.in_part(4)
@pytest.mark.parametrize(
    "name",
    ["e4m3", "e5m2", "e2m1", "e4m3fnuz", "e8m0", "ue4m3", "int8", "int8sym", "uint4", "ternary", "binary", "nf4", "posit8",
     "Q3.4", "UQ0.8", "e3m2 normal", "cfloat8_1_4_3_half", "bfloat16", "Binary8p4se", "Binary8p4ue", "Binary8p4uf",
     "Binary8p4sf", "Binary8p1ue", "refusing", "positive", "e8m0@cuda", "e8m0@ml_dtypes", "ue5m3@cuda", "ue5m3@llvm",
     "e2m1@ml_dtypes", "e2m1@jax", "int8@onnx", "Binary8p4ue@p3109-4.0", "Binary8p4uf@p3109-4.0", "Binary8p4sf@p3109-4.0"],
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
                named = (
                    next(other for other in table if other.startswith(f"{general}, RTZ")).removeprefix(general).split()
                )
                directed = [mode for mode in ALL_MODES if mode.name not in named]
            elif not modes:
                directed = ALL_MODES
            zero = math.copysign(math.ldexp(fmt.smallest_subnormal, -3), -1) if "rounds to it" in label else None
            inputs = {
                "NaN": [math.nan], "infinity": [math.inf], "-infinity": [-math.inf], "0": [0.0, -0.0],
                "rounds above max": [fmt.max + 9 * span, 2 * fmt.max + 9 * span],
                "rounds below min": [fmt.min - 9 * span], "rounds below 0": [-fmt.max, -9 * fmt.max],
                "-0, or rounds to it": [-0.0, zero], "between 0 and min": [5e-324, fmt.min / 2],
                "has a minus sign, -0 too": [-0.0, -5e-324, -fmt.min, -9 * fmt.max],
            }[general]  # fmt: skip
            if label == "0" and not fmt.has_zero and not fmt.signed:
                inputs = inputs[:1]
            if word == "magnitude":
                assert_magnitude(fmt, rule, [*inputs, -1.25], directed)
                continue
            for mode in directed:
                assert_becomes(fmt, rule, [x for x in inputs if x is not None], mode, word)


def assert_magnitude(fmt: Format, rule: str, inputs: list[float], modes: list[Mode]) -> None:
    """Assert that the kernels make of `inputs` what they make of the numbers without the sign."""
    for mode in modes:
        if not mode.stochastic:
            of, without = (qsim.encode(x, fmt, mode, saturation=rule) for x in (np.array(inputs), np.abs(inputs)))
            assert of.tolist() == without.tolist()


def assert_becomes(fmt: Format, rule: str, inputs: list[float], mode: Mode, word: str) -> None:
    """Assert that the kernels make of `inputs`, those that round to zero only if they do in this mode, what `word` says."""
    q = Quantizer(fmt, mode, saturation=rule, sr_bits=4 if mode in (Mode.SRA, Mode.SRB, Mode.SRC) else None)
    key = qsim.Key(0) if mode.stochastic else None
    for x in inputs:
        tiny = fmt.has_zero and 0 < abs(x) < fmt.smallest_subnormal
        kept = (Mode.RTZ, Mode.RDN if fmt.negative_to == "magnitude" else Mode.RUP)
        if tiny and mode not in (*kept, *([Mode.RNE] if fmt.name != "posit8" else [])):
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


# --- As JSON, and of a file ------------------------------------------------------------------------------------------


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
    """A format of a file is shown as any other, whatever its values; a wrong path or entry is refused by name."""
    monkeypatch.chdir(tmp_path)
    Path("mine.toml").write_text(TOML, encoding="utf-8")
    out = printed(capsys, "show", "mine.toml#sixes")
    assert "sixes, which mine.toml#sixes stands for" in out
    assert "the line goes on above at 60\n" in out
    assert 'nan_to = "max"' in printed(capsys, "show", str(tmp_path / "mine.toml#e3m4b6"))
    assert json.loads(printed(capsys, "show", "mine.toml#sixes", "--json"))["values"] == [-6.0, 0.0, 0.5, 6.0]
    large = '[[format]]\nname = "large"\nkind = "table"\nvalues = [2, 4]\nsource = "drawn by a test"\n'
    Path("large.toml").write_text(large, encoding="utf-8")
    out = printed(capsys, "show", "large.toml")  # without an eps, since 1 is below its values
    assert re.search(r"^max +4 .*\nmin +2 .*\nsmallest positive +2 .*\nfinite values +2$", out, re.MULTILINE)
    for spelled, fragment in {
        "gone.toml#sixes": "gone.toml: cannot be read (No such file or directory)",
        "no/where.toml": "no/where.toml: cannot be read (No such file",
        "mine.toml#sevens": "mine.toml: has no format called 'sevens'; name one, such as mine.toml#",
        "mine.toml": "mine.toml: has 2 formats; name one, such as mine.toml#",
    }.items():
        assert fragment in refused(capsys, "show", spelled)
    Path("mine.toml").write_text(TOML.replace('specials = "fn"', 'specials = "nf"'), encoding="utf-8")
    assert "mine.toml: format 2 (e3m4b6): " in refused(capsys, "show", "mine.toml#sixes")
