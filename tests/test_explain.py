"""One conversion as a picture: its numbers are the reference's, its words fit the page, and wrong answers get their causes."""

from __future__ import annotations

import math
import re
import subprocess
import sys
from fractions import Fraction
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from strategies import FLOAT32, FLOAT64, SMALL, WIDE_P3109, formats, inputs

from qsim import reference
from qsim.errors import InputError
from qsim.explain import causes, common_causes, explain, make_case
from qsim.explain.case import is_code
from qsim.explain.faults import PARTS, faults
from qsim.explain.lines import lines_of
from qsim.explain.search import gives
from qsim.formats import Format, Table
from qsim.rounding import FLUSHES, Mode, saturations

# --- The page --------------------------------------------------------------------------------------------------------

NEAREST = """\
input        0.30000001192092896 = float32 0x3e99999a = 0 01111101 00110011001100110011010
rounding     to float8_e4m3fn by RNE (NearestTiesToEven), SatFinite
toward zero  0.28125, code 0x29 = 0 0101 001
away         0.3125, code 0x2a = 0 0101 010
             0 |-----------------------------T-----x-----------------------| 1
               T: the tie, nu = 1/2
nu           314573/2^19 ~ 0.600000381
rule         to the nearer neighbour; a tie goes to the one with the even code
decides      nu = 314573/2^19 > 1/2: away from zero
rounded      0.3125
range        inside
result       0.3125, code 0x2a = 0 0101 010"""

OVERFLOW = """\
input        -472 = bfloat16 0xc3ec = 1 10000111 1101100
rounding     to float8_e4m3fn by SRA (StochasticA), N = 8, R = 103, OvfNaN
toward zero  -448, code 0xfe = 1 1111 110
away         -480, beyond the range
             0 |-----------------------------------T--------x--------------| 1
               T: where this word carries, nu = 1 - R/2^N
nu           3/4 = 0.75
rule         away from zero iff floor(nu 2^N) + R >= 2^N
decides      192 + 103 = 295 >= 2^8 = 256: away from zero; 192 of the 2^8 words go away from zero,
             those from 64 on
rounded      -480
range        below the smallest value -448: becomes NaN under OvfNaN
result       NaN, code 0x7f = 0 1111 111
got          -448, code 0xfe = 1 1111 110: wrong
causes       ignores the word: rounds by RTZ (TowardZero)
             ignores the word: rounds by RUP (TowardPositive)
             rounds by SRE (StochasticEqual) instead of SRA
             uses the low 5 of the word's 8 bits instead of the top ones
             uses only the top 1 of the word's 8 bits
             takes the word for one of N + 1 bits, its top bit 0: N is one larger
             and 19 more: more answers would narrow them"""

NAN = """\
input        NaN = float16 0x7e00 = 0 11111 1000000000
rounding     to float4_e2m1fn by RNE (NearestTiesToEven), SatFinite
rule         none: a NaN is not rounded
range        a NaN becomes 6 (nan_to of the format is 'max')
result       6, code 0x7 = 0 11 1
got          0, code 0x0 = 0 00 0: wrong
causes       a NaN becomes 0
             a NaN becomes a zero of its sign"""

UNKNOWN = """\
input        3/10 (a rational)
rounding     to int8 by SRC (StochasticC), N = 4, R unknown, saturate
toward zero  0, code 0x00 = 00000000
away         1, code 0x01 = 00000001
             0 |-----------------x-----------------------------------------| 1
nu           3/10 = 0.3
rule         away from zero iff nu 2^N, to the nearest integer with ties to even, plus R >= 2^N
decides      5 of the 2^4 words go away from zero, those from 11 on
range        inside
result       0, code 0x00 = 00000000
             from R = 11 on 1, code 0x01 = 00000001"""


@pytest.mark.parametrize(
    ("page", "arguments"),
    [
        (NEAREST, {"x": np.float32(0.3), "fmt": "e4m3"}),
        (
            OVERFLOW,
            {"x": ml_dtypes.bfloat16(-472), "fmt": "e4m3", "mode": "SRA", "sr_bits": 8, "rbits": 103, "got": 0xFE,
             "saturation": "OvfNaN"},
        ),
        (NAN, {"x": np.float16("nan"), "fmt": "float4_e2m1fn", "got": 0}),
        (UNKNOWN, {"x": Fraction(3, 10), "fmt": "int8", "mode": "SRC", "sr_bits": 4}),
    ],
    ids=["nearest", "overflow", "NaN", "unknown word"],
)  # fmt: skip
def test_page(page: str, arguments: dict[str, Any]) -> None:
    """A page reads as it always did."""
    assert str(explain(**arguments)) == page


def conversion(draw: st.DrawFn, fmt: Format) -> dict[str, Any]:
    """Return the arguments of any conversion to `fmt`."""
    carrier = draw(st.sampled_from([FLOAT32, FLOAT64]))
    mode = draw(st.sampled_from(list(Mode)))
    arguments = {
        "x": draw(inputs(fmt, carrier)), "fmt": fmt, "mode": mode, "saturation": draw(st.sampled_from(saturations(fmt))),
        "ftz_in": draw(st.booleans()), "ftz_out": draw(st.sampled_from([False, *FLUSHES])),
        "nan": draw(st.sampled_from(["canonical", "signed"])),
    }  # fmt: skip
    if mode.stochastic:
        arguments["sr_bits"] = draw(st.integers(mode is Mode.SR, 64))
        arguments["rbits"] = draw(st.none() | st.integers(0, (1 << arguments["sr_bits"]) - 1))
    if mode is Mode.THR:
        arguments["eps"] = draw(st.sampled_from([0.0, 0.25, 0.7]))
    return arguments


@given(st.data())
def test_explanation_is_the_reference(data: st.DataObject) -> None:
    """The result is that of `reference.encode`, the fraction is that of the way, the first word is where words turn."""
    arguments = conversion(data.draw, data.draw(formats()))
    e = explain(**arguments)
    case = e.case
    plain = {key: value for key, value in arguments.items() if key not in ("x", "ftz_in", "rbits", "sr_bits")}
    x = case.entering
    words = [case.rbits] if case.rbits is not None else [0, (1 << case.sr_bits) - 1]
    codes = [reference.encode(x, **plain, sr_bits=case.sr_bits, rbits=word) for word in words]
    assert e.code == (codes[0] if len(set(codes)) == 1 else None)
    if e.code is not None:
        assert e.value == case.format.decode(codes[0]) or math.isnan(e.value)
    if e.inner is None:
        assert not math.isfinite(x) or not (x or case.format.has_zero) or case.ftz_out
        return
    assert 0 <= e.nu < 1
    if e.outer.ordinal != e.inner.ordinal:
        assert e.inner.value + e.nu * (e.outer.value - e.inner.value) == Fraction(x)
    odd, negative = case.format.is_odd(e.inner.ordinal), Fraction(x) < 0
    # A table may turn elsewhere than in the middle, as a posit next to zero does.
    nu = case.format.split(Fraction(x), nearest=case.mode.nearest)[1] if isinstance(case.format, Table) else e.nu
    ways = {reference.away(case.mode, nu, odd, negative, case.sr_bits, word, case.eps) for word in words}
    assert e.away == (ways.pop() if len(ways) == 1 else None)
    assert e.rounded == (None if e.away is None else (e.outer if e.away else e.inner).value)
    if case.mode.stochastic:
        last = (1 << case.sr_bits) - 1
        for word in {0, last, max(e.first_word - 1, 0), min(e.first_word, last)}:
            goes = reference.away(case.mode, e.nu, odd, negative, case.sr_bits, word)
            assert goes == (word >= e.first_word)


@given(st.data())
def test_page_fits(data: st.DataObject) -> None:
    """No line has more than 100 columns, none ends in a space, and a wrong answer is called wrong."""
    arguments = conversion(data.draw, data.draw(formats()))
    fmt = arguments["fmt"]
    got = data.draw(st.integers(0, (1 << fmt.bits) - 1) | st.floats())
    e = explain(**arguments, got=got)
    lines = str(e).splitlines()
    assert max(map(len, lines)) <= 100
    assert not any(line != line.rstrip() for line in lines)
    assert f": {'right' if e.right else 'wrong'}" in str(e)
    assert e.right or "causes " in str(e)


@pytest.mark.parametrize("fmt", WIDE_P3109[::37], ids=str)
def test_beyond_float64(fmt: Format) -> None:
    """Formats that reach beyond float64 are explained as well: their values are exact fractions."""
    for x in (0.75, 1e300, -1e-300, math.inf, Fraction(2) ** 5000):
        e = explain(x, fmt, "RUP", got=0)
        assert e.code == reference.encode(x, fmt, "RUP")
        assert max(map(len, str(e).splitlines())) <= 100


def test_bits_of_the_input() -> None:
    """The bits are those of the number's own type, the sign of a zero and the payload of a NaN included."""
    assert "float16 0x8000 = 1 00000 0000000000" in str(explain(np.float16(-0.0), "int8"))
    payload = np.array([0xFF800001], np.uint32).view(np.float32)[0]
    assert "float32 0xff800001 = 1 11111111 00000000000000000000001" in str(explain(payload, "e4m3"))
    assert "= 0 01111111111 0000000000000000000000000000000000000000000000000001" in str(explain(1 + 2**-52, "e4m3"))
    assert "1/3 (a rational)" in str(explain(Fraction(1, 3), "int8"))


def test_flushed_input() -> None:
    """A subnormal number of the input's own type is said to be flushed, and a normal one is not."""
    assert "taken for a zero (ftz_in)" in str(explain(np.float32(1e-40), "bfloat16", "RUP", ftz_in=True))
    assert "taken for a zero" not in str(explain(1e-40, "bfloat16", "RUP", ftz_in=True))


def test_range_in_words() -> None:
    """The last line but one says what the range, the flush, or a missing code made of the result."""
    said = {
        "beyond the largest value 57344: becomes inf under SatNone": explain(65536.0, "float8_e5m2"),
        "beyond the largest value 57344: becomes 57344 under SatNone, since RDN rounds no further": explain(
            65536.0, "float8_e5m2", "RDN"
        ),
        "below the smallest value -128: becomes 126 under wrap": explain(-130.0, "int8", saturation="wrap"),
        "an infinity becomes 448 under SatFinite": explain(math.inf, "e4m3"),
        "a subnormal value: becomes 0 (ftz_out = 'result')": explain(2.0**-9, "e4m3", ftz_out="result"),
        "inside; a zero of the format has no sign": explain(-0.25, "int8"),
        "0 becomes 5.877471754111438e-39 (zero_to of the format is 'min')": explain(0.0, "float8_e8m0fnu"),
    }
    for words, e in said.items():
        assert e.range == words


# --- Causes ----------------------------------------------------------------------------------------------------------

INF = math.inf

KNOWN = [
    (1.0625, 1.125, "e4m3", {}, "ties go away from zero (RNA instead of RNE)"),
    (-1.0625, -1.125, "e4m3", {}, "ties go to the lesser value (RNN instead of RNE)"),
    (1.1875, 1.125, "e4m3", {}, "ties go to the odd code"),
    (1.1, 1.0, "e4m3", {}, "rounds by RTZ (TowardZero) instead of RNE"),
    (1.07, 1.0, "e4m3", {}, "looks at the top 1 of the discarded bits only: the sticky bit is lost"),
    (1.95, 1.0, "e4m3", {}, "the carry does not reach the exponent: the significand wraps around to 0"),
    (0.0151, 0.0, "e4m3", {}, "the carry does not reach the exponent: the significand wraps around to 0"),
    (0.004, 0.001953125, "e4m3", {}, "shifts subnormals one place too many: the result is halved"),
    (0.004, 0.00439453125, "e4m3", {"mode": "RUP"}, "has no gradual underflow: below the smallest normal value it rounds"),
    (0.004, 0.0, "e4m3", {}, "flushes subnormal results to zero"),
    (449.0, math.nan, "e4m3", {"saturation": "OvfNaN"}, "checks the range before rounding"),
    (300.0, 0.0, "e4m3", {}, "the top binade is missing: what belongs there becomes 0"),
    (65536.0, 57344.0, "float8_e5m2", {}, "saturates by SatFinite instead of SatNone"),
    (65536.0, 65536.0, "float8_e5m2", {}, "does not check the range: the grid goes on beyond the largest value"),
    (INF, 57344.0, "float8_e5m2", {}, "an infinity becomes the largest value"),
    (480.0, 0x7F, "e4m3", {}, "lets the carry run on into the code after that of the largest value"),
    (math.nan, -0.0, "bfloat16", {}, "a NaN becomes -0"),
    (-0.0, 0.0, "e4m3", {}, "loses the sign of zero"),
    (-1e-9, 0.0, "e4m3", {}, "loses the sign of a negative number that rounds to zero, but not that of -0"),
    (-3.0, 3.0, "uint4", {}, "loses the sign of a negative input"),
    (-128.0, -127.0, "int8", {}, "leaves out the most negative value: the range is symmetric"),
    (300.0, 44.0, "int8", {}, "saturates by wrap instead of saturate"),
    (np.float32(1e-40), 0.0, "bfloat16", {}, "flushes subnormal inputs to zero"),
    (1.0625 + 2.0**-30, 1.0, "e4m3", {}, "double rounding: goes through float32 first"),
    (1.0, 0x40, "e4m3", {}, "takes the format for e4m3fn with bias 8, SatFinite"),
    (1.0, 0.5, "e4m3", {}, "the result is halved: an exponent bias is off by one"),
    (1.0, 1.125, "e4m3", {"mode": "SRA", "sr_bits": 4, "rbits": 15}, "adds one more than the word (R + 1, the carry kept)"),
    (1.0625, 1.0, "e4m3", {"mode": "SRA", "sr_bits": 4, "rbits": 8}, "compares with > instead of >="),
    (1.0625, 1.125, "e4m3", {"mode": "SRA", "sr_bits": 4, "rbits": 1}, "uses the word with its bits reversed"),
    (1.0625, 1.125, "e4m3", {"mode": "SRA", "sr_bits": 4, "rbits": 3}, "uses the low 2 of the word's 4 bits"),
    (1.0625, 1.125, "e4m3", {"mode": "SRA", "sr_bits": 16, "rbits": 0x00F0}, "uses the word with its bytes reversed"),
    (1.12, 1.0, "e4m3", {"mode": "SRA", "sr_bits": 4, "rbits": 1}, "uses only the top 3 of the word's 4 bits: N is one"),
    (1.0, 1.125, "e4m3", {"mode": "SRA", "sr_bits": 4, "rbits": 15}, "divides the word by 2^N - 1 instead of 2^N"),
    (-1.03, -1.125, "e4m3", {"mode": "SRA", "sr_bits": 4, "rbits": 2}, "measures the fraction from the lesser neighbour"),
    (-1.5, -2.0, "int8", {"mode": "THR", "eps": 0.25}, "measures the fraction from zero, not from the lesser neighbour"),
    (1.25, 2.0, "int8", {"mode": "THR", "eps": 0.25}, "compares the fraction with >= eps instead of > eps"),
    (2.0**-70, 2.0**-6, "e4m3", {}, "takes shift counts modulo 64"),
    (1.0625, 1.125, "e4m3", {"mode": "SRA", "sr_bits": 4, "rbits": 0}, "uses the word with its top bit inverted"),
    (0.0151, 0.0, "e4m3", {}, "what rounds up to the smallest normal value becomes 0: a carry is lost there"),
    (0.0018, 0.0, "e4m3", {}, "what is below the smallest value becomes 0 without a rounding"),
    (0.002, 0.0, "e4m3", {}, "the smallest value is missing: what belongs there becomes 0"),
    (450.0, 416.0, "e4m3", {}, "the largest value is missing: what belongs there becomes the one below"),
    (-1e9, 448.0, "e4m3", {}, "loses the sign of an overflow"),
    (-INF, INF, "float8_e5m2", {}, "loses the sign of a negative input"),
    (0.0029296875, 0.00390625, "e4m3", {"mode": "RNZ"}, "ties go away from zero (RNA instead of RNZ)"),
]  # fmt: skip
"""Inputs, wrong answers, and one of their causes."""


@pytest.mark.parametrize(
    ("x", "got", "name", "options", "cause"), KNOWN, ids=[f"{x}: {cause}" for x, *_, cause in KNOWN]
)
def test_cause(x: Any, got: Any, name: str, options: dict[str, Any], cause: str) -> None:
    """One wrong answer names its cause among those that give it, and so does the page."""
    found = causes(x, got, name, **options)
    assert any(fault.startswith(cause) for fault in found), found
    e = explain(x, name, **options, got=got)
    assert not e.right
    assert list(e.causes) == found


@given(st.data())
def test_right_answers_have_no_cause(data: st.DataObject) -> None:
    """The reference's own answer, as a code or as a value, is right, and has no cause."""
    arguments = conversion(data.draw, data.draw(formats()))
    e = explain(**arguments)
    if e.code is not None:
        for got in (e.code, e.value):
            assert explain(**arguments, got=got).right
            assert causes(got=got, **arguments) == []


@given(st.data())
def test_every_fault_gives_an_answer(data: st.DataObject) -> None:
    """No rule of a fault breaks down, whatever the case; and what it gives is explained by it."""
    arguments = conversion(data.draw, data.draw(st.sampled_from(SMALL)))
    if arguments.get("rbits", 0) is None:
        arguments["rbits"] = 0
    case = make_case(**arguments, got=0)
    (lines,) = lines_of([case])
    name, rule = data.draw(st.sampled_from(list(faults(case).items())))
    code = int(rule(lines)[0])
    if "NaN" not in name and "takes the format" not in name and is_code(case.format, code):
        (lines,) = lines_of([make_case(**arguments, got=case.format.decode(code))])
        assert gives(rule, [lines]).all()


def test_more_answers_narrow_the_causes() -> None:
    """What several answers have in common is the cause; right answers count as much as wrong ones."""
    one = make_case(1.0625, "e4m3", got=1.125)
    odd = make_case(1.1875, "e4m3", got=1.25)
    minus = make_case(-1.0625, "e4m3", got=-1.125)
    exact = make_case(1.03, "e4m3", got=1.0)
    assert len(common_causes([one])) > 5
    assert "ties go to the odd code" in common_causes([one])
    assert common_causes([one, odd, minus, exact]) == ["ties go away from zero (RNA instead of RNE)"]
    assert common_causes([odd, exact]) == []  # both are right
    assert common_causes([]) == []


def test_parts_are_left_out() -> None:
    """A fault of both signs is not told twice more, for either sign."""
    found = causes(1.1, 1.0, "e4m3")
    assert "rounds by RTZ (TowardZero) instead of RNE" in found
    assert not [name for name in found if name.startswith("rounds by RTZ") and "numbers only" in name]


def test_names_fit_the_page() -> None:
    """The name of each fault stands on one line of the page, but for its restriction to a part of the numbers."""
    for fmt in SMALL:
        for mode in Mode:
            n = 16 if mode.stochastic else None
            case = make_case(1.0, fmt, mode, sr_bits=n, rbits=n and 1, eps=0.5 if mode is Mode.THR else None)
            assert max(map(len, (name for name in faults(case) if not name.endswith(PARTS)))) <= 87


def test_unknown_word() -> None:
    """Without its word an answer is right if some word gives it, and a cause needs none."""
    assert explain(1.03, "e4m3", "SRA", sr_bits=8, got=1.125).right
    assert explain(1.03, "e4m3", "SRA", sr_bits=8, got=1.0).right
    assert "moves values that are exact away from zero" in causes(1.0, 1.125, "e4m3", "SRA", sr_bits=8)


# --- What is refused -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"mode": "SRA"}, "SRA needs sr_bits, the number of random bits N"),
        ({"mode": "SRA", "sr_bits": 4, "rbits": 16}, "rbits = 16 is no word of sr_bits = 4 bits"),
        ({"rbits": 3}, "RNE takes no random word; drop sr_bits and rbits"),
        ({"mode": "THR"}, "eps = None with THR"),
        ({"eps": 0.5}, "eps = 0.5 with RNE"),
        ({"nan": "quiet"}, "nan = 'quiet'; it is 'canonical', 'signed', 'signed_overflow' or 'any'"),
        ({"got": 256}, "got = 256: codes of float8_e4m3fn are 0 .. 255; give a value as a float"),
        ({"got": "one"}, "got = 'one' is neither a code (an integer) nor a value (a float)"),
        ({"x": "one"}, "x = 'one' is no number; give a float, a NumPy float, a Fraction, or the bits of a float as '0x...'"),
        ({"saturation": "wrap"}, "wrap makes no sense for float8_e4m3fn"),
    ],
)  # fmt: skip
def test_refused(arguments: dict[str, Any], message: str) -> None:
    """What contradicts itself is refused in one sentence."""
    with pytest.raises(InputError, match=re.escape(message)):
        explain(**{"x": 1.5, "fmt": "e4m3", **arguments})


def test_floor() -> None:
    """An explanation needs the reference only: neither numba nor the kernels are imported."""
    code = (
        "import sys, qsim.explain; print([name for name in sys.modules if 'numba' in name or 'qsim.kernels' in name])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
