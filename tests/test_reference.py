"""The definition of every result: each mode by a second definition, laws, and cases by hand."""

from __future__ import annotations

import decimal
import math
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from alike import alike
from definition import scale_kind
from hypothesis import assume, given
from hypothesis import strategies as st
from strategies import (
    BFLOAT16,
    FLOAT16,
    FLOAT32,
    FLOAT64,
    SMALL,
    TABLES,
    between,
    formats,
    inputs,
    near_thresholds,
    ordinals,
    patterns,
    words,
)

from qsim import reference
from qsim.errors import InputError
from qsim.formats import Format, Table, float_format, get_format, table_format
from qsim.rounding import Mode, Saturation, saturations

INF, NAN = math.inf, math.nan


# --- Every mode by a second definition -------------------------------------------------------------------------------

DECIMAL = {
    "RNE": decimal.ROUND_HALF_EVEN, "RNA": decimal.ROUND_HALF_UP, "RNZ": decimal.ROUND_HALF_DOWN, "RTZ": decimal.ROUND_DOWN,
    "RAZ": decimal.ROUND_UP, "RUP": decimal.ROUND_CEILING, "RDN": decimal.ROUND_FLOOR,
}  # fmt: skip
"""The modes that Python's decimal arithmetic has, by its names."""


@pytest.mark.parametrize("name", ["int8", "Q3.4", "uint8", "int8sym", "UQ2.3"])
def test_integers_by_decimal_arithmetic(name: str) -> None:
    """At all multiples of 1/8 of a step, integers and fixed point round as Python's decimals, then saturate or wrap."""
    fmt = get_format(name)
    context = decimal.Context(prec=60)
    step = fmt.value(1)
    for eighths in range(-8 * fmt.bottom - 100, 8 * fmt.top + 100):
        x = Fraction(eighths, 8)
        for mode, theirs in DECIMAL.items():
            number = int((decimal.Decimal(eighths) / 8).quantize(decimal.Decimal(1), theirs, context))
            for rule in saturations(fmt):
                wrapped = number & ((1 << fmt.bits) - 1)
                clamped = max(-fmt.bottom, min(fmt.top, number)) & ((1 << fmt.bits) - 1)
                expected = wrapped if rule is Saturation.wrap else clamped
                assert reference.encode(x * step, fmt, mode, saturation=rule) == expected, (x, mode, rule)


def turning(fmt: Format, low: Fraction, high: Fraction) -> Fraction:
    """Return where a rounding to nearest turns between two neighbours: in the middle, or at the threshold of a table."""
    if isinstance(fmt, Table) and fmt.thresholds and low != high:
        return Fraction(fmt.thresholds[fmt.points.index(float(low))])
    return (low + high) / 2


def test_nearest_by_floor_and_ceiling() -> None:
    """RNP is floor(x + 1/2), RNN ceil(x - 1/2), and to odd is the number itself or its odd neighbour."""
    fmt = get_format("int8")
    for eighths in range(-1000, 1000):
        x = Fraction(eighths, 8)
        assert reference.quantize(x, fmt, "RNP") == math.floor(x + Fraction(1, 2))
        assert reference.quantize(x, fmt, "RNN") == math.ceil(x - Fraction(1, 2))
        odd = x if x.denominator == 1 else next(n for n in (math.floor(x), math.ceil(x)) if n % 2)
        assert reference.quantize(x, fmt, "RTO") == odd


@given(st.data())
def test_to_odd_saves_from_double_rounding(data: st.DataObject) -> None:
    """Rounding to odd with two bits more, and then to nearest, is rounding to nearest at once (Boldo and Melquiond 2008)."""
    exp_bits, man_bits = data.draw(st.integers(2, 8)), data.draw(st.integers(1, 8))
    narrow, wide = (float_format("own", exp_bits, bits, "ieee", "a test") for bits in (man_bits, man_bits + 2))
    x = Fraction(float(data.draw(near_thresholds(narrow, FLOAT64))))
    between_two = Fraction(reference.quantize(x, wide, "RTO", saturation="SatFinite"))
    for mode in ("RNE", "RNA", "RTZ", "RUP"):
        assert alike(reference.quantize(between_two, narrow, mode), reference.quantize(x, narrow, mode)) or not x


@pytest.mark.parametrize("fmt", SMALL, ids=str)
def test_modes_by_comparing_distances(fmt: Format) -> None:
    """At every eighth of every interval each mode gives the neighbour that its sentence names, by comparing values."""
    some = [n for n in ordinals(fmt) if fmt.bits < 6 or n % 64 < 4 or n > fmt.top - 3]
    for x in between(fmt, 8, some):
        if not (fmt.min <= x <= fmt.max) or (not fmt.has_zero and abs(x) < fmt.smallest_subnormal):
            continue
        low, high = (Fraction(v) for v in fmt.neighbours(x))
        turn = turning(fmt, low, high)
        near = low if x < turn else high
        tie = x == turn and low != high
        inner, outer = (low, high) if x > 0 else (high, low)
        odd = [v for v in (low, high) if fmt.code(fmt.ordinal(v)) % 2]
        expected = {
            "RDN": low, "RUP": high, "RTZ": inner, "RAZ": outer, "RNA": outer if tie else near, "RNZ": inner if tie else near,
            "RNP": high if tie else near, "RNN": low if tie else near,
        }  # fmt: skip
        if len(odd) == 1:
            expected["RTO"] = odd[0]
            expected["RNE"] = (low + high - odd[0]) if tie else near
        if low == high:
            expected = dict.fromkeys([*expected, "RTO", "RNE"], low)
        for mode, value in expected.items():
            assert reference.quantize(x, fmt, mode) == value, (x, mode)


# --- Scales ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("precision", [FLOAT16, BFLOAT16, FLOAT32, FLOAT64], ids=str)
@given(data=st.data())
def test_orders_of_operations(precision: np.dtype, data: st.DataObject) -> None:
    """The processor's x / s, or x times its 1 / s, is rounded in place of x, or the true quotient: float32 for 16 bits."""
    fmt = get_format(precision.name)
    x = data.draw(inputs(fmt, precision))
    for order in ("divide", "reciprocal", "input"):
        number = scale_kind(precision, order)
        s = abs(data.draw(patterns(number)))
        assume(0 < float(s) < INF)
        with np.errstate(all="ignore"):
            wide = np.asarray(x).astype(number)
            # A zero stays one, also where 1 / s overflows.
            expected = wide * (number.type(1) / s) if order == "reciprocal" and wide else wide / s
        assert alike(float(reference.scaled(float(x), float(s), order, fmt)), float(expected)), order  # type: ignore[arg-type]
    exact = reference.scaled(float(x), float(s), "exact", fmt)
    if math.isfinite(x) and x:
        assert exact * Fraction(float(s)) == Fraction(float(x))
    else:
        assert alike(float(exact), float(x))


# --- Laws ------------------------------------------------------------------------------------------------------------

SYMMETRIC = [mode for mode in Mode if mode not in {Mode.RUP, Mode.RDN, Mode.RNP, Mode.RNN, Mode.THR}]
DUAL = {Mode.RUP: Mode.RDN, Mode.RDN: Mode.RUP, Mode.RNP: Mode.RNN, Mode.RNN: Mode.RNP}


@st.composite
def arguments(draw: st.DrawFn, mode: Mode) -> dict[str, Any]:
    """Return a random word or a threshold for `mode`."""
    if mode is Mode.THR:
        return {"eps": draw(st.integers(0, (1 << 53) - 1)) / 2.0**53}
    if not mode.stochastic:
        return {}
    n = draw(st.sampled_from([32, 64]) if mode is Mode.SR else st.integers(mode is Mode.SRE, 64))
    return {"sr_bits": n, "rbits": draw(words(n))}


@given(st.data())
def test_nearest_is_nearest(data: st.DataObject) -> None:
    """Within the range RNE gives the nearer neighbour, and of two equally near ones one with an even code, if there is one.

    Where a table has a threshold, that stands for the middle.
    """
    fmt = data.draw(formats())
    x = Fraction(float(data.draw(near_thresholds(fmt, FLOAT64))))
    assume(fmt.min <= x <= fmt.max and (fmt.has_zero or x))
    lower, upper = (Fraction(v) for v in fmt.neighbours(x))
    code = reference.encode(x, fmt)
    y = Fraction(fmt.decode(code))
    assert y in (lower, upper)
    turn = turning(fmt, lower, upper)
    assert y == (upper if x > turn else lower) or x == turn
    if x == turn and lower != upper and {fmt.code(fmt.ordinal(v)) % 2 for v in (lower, upper)} == {0, 1}:
        assert code % 2 == 0


@given(st.data())
def test_results_are_neighbours(data: st.DataObject) -> None:
    """Within the range every mode gives one of the two neighbours, with any word, threshold and saturation rule."""
    fmt, mode = data.draw(formats()), data.draw(st.sampled_from([*Mode]))
    x = float(data.draw(near_thresholds(fmt, FLOAT64)))
    assume(fmt.min <= x <= fmt.max and (fmt.has_zero or x))
    rule = data.draw(st.sampled_from(saturations(fmt)))
    assert reference.quantize(x, fmt, mode, saturation=rule, **data.draw(arguments(mode))) in fmt.neighbours(x)


@given(st.data())
def test_values_are_fixed_points(data: st.DataObject) -> None:
    """A value of the format is its own rounding in every mode, with every word, threshold and saturation rule."""
    fmt = data.draw(formats())
    code = data.draw(words(fmt.bits))
    assume(fmt.is_code(code))
    x = fmt.decode(code)
    rule, mode = data.draw(st.sampled_from(saturations(fmt))), data.draw(st.sampled_from([*Mode]))
    assume(not math.isnan(x) or fmt.nan_to == "nan")
    y = reference.quantize(x, fmt, mode, saturation=rule, **data.draw(arguments(mode)))
    if math.isfinite(x) or math.isnan(x) or rule.value in ("SatNone", "SatPropagate"):
        assert alike(y, x)


@given(st.data())
def test_rounding_twice_is_rounding_once(data: st.DataObject) -> None:
    """A result rounds to itself, whatever was rounded to it."""
    fmt, mode = data.draw(formats()), data.draw(st.sampled_from([*Mode]))
    rule = data.draw(st.sampled_from(saturations(fmt)))
    how = data.draw(arguments(mode))
    x = float(data.draw(inputs(fmt, FLOAT64)))
    assume(not math.isnan(x) or fmt.nan_to != "error")
    y = reference.quantize(x, fmt, mode, saturation=rule, **how)
    if not math.isnan(y) or fmt.nan_to == "nan":
        assert alike(reference.quantize(y, fmt, mode, saturation=rule, **how), y)


@given(st.data())
def test_rounding_keeps_the_order(data: st.DataObject) -> None:
    """Of two numbers the greater does not round to the lesser, with one word or threshold for both.

    Where the format says what it makes of them: a NaN has no order, 0 may become the largest value, a wrapped number any;
    and without a zero between a negative and a positive value "toward zero" leads across it, from either side.
    """
    fmt, mode = data.draw(formats()), data.draw(st.sampled_from([*Mode]))
    rule = data.draw(st.sampled_from(saturations(fmt)))
    assume(rule is not Saturation.wrap and fmt.zero_to != "max" and (fmt.has_zero or fmt.bottom < 0))
    x, y = sorted(float(data.draw(inputs(fmt, FLOAT64).filter(lambda v: not np.isnan(v)))) for _ in range(2))
    how = data.draw(arguments(mode))
    low, high = (reference.quantize(v, fmt, mode, saturation=rule, **how) for v in (x, y))
    assert low <= high or math.isnan(low) or math.isnan(high)


@given(st.data())
def test_signs_do_not_matter(data: st.DataObject) -> None:
    """A signed float rounds -x to minus what it rounds x to, with the same word; only the sign of zero may be lost.

    In the modes that know no up and down; those that do are each other's mirrors.
    """
    fmt = data.draw(formats().filter(lambda fmt: fmt.kind == "float" and fmt.signed))
    x = abs(float(data.draw(inputs(fmt, FLOAT64))))
    assume(not math.isnan(x))
    rule = data.draw(st.sampled_from(saturations(fmt)))
    mode = data.draw(st.sampled_from([*SYMMETRIC, *DUAL]))
    how = data.draw(arguments(mode))
    plus, minus = (
        reference.quantize(v, fmt, m, saturation=rule, **how) for v, m in ((x, mode), (-x, DUAL.get(mode, mode)))
    )
    assert math.isnan(plus) == math.isnan(minus)
    assert math.isnan(plus) or plus == -minus
    assert math.copysign(1, minus) == (-1 if fmt.has_neg_zero or minus else 1) or math.isnan(plus)


@given(st.data())
def test_zeros_keep_their_sign(data: st.DataObject) -> None:
    """Zeros, and what rounds to zero, have the sign of the input where the format has a -0, and no sign elsewhere."""
    fmt, mode = data.draw(formats().filter(lambda fmt: fmt.has_zero)), data.draw(st.sampled_from([*Mode]))
    x = data.draw(st.sampled_from([0.0, 5e-324, 1e-300])) * data.draw(st.sampled_from([1, -1]))
    y = reference.quantize(x, fmt, mode, **data.draw(arguments(mode)))
    if y == 0:
        assert math.copysign(1, y) == (math.copysign(1, x) if fmt.has_neg_zero else 1)


# --- By hand ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fmt", "rule", "cases"),
    [
        # the grid goes on above 448: 464 is halfway to 480, whose code would be odd, so it is not beyond the range
        ("e4m3", "SatFinite", {464: 448, 464.001: 448, 480: 448, INF: 448, -INF: -448, NAN: NAN, -0.0: -0.0}),
        ("e4m3", "OvfNaN", {464: 448, 464.001: NAN, -464.001: NAN, INF: NAN, -INF: NAN, NAN: NAN, -0.0: -0.0}),
        # 61440 is halfway from 57344 to 65536, whose code would be that of infinity, which is even
        ("e5m2", "SatNone", {61439: 57344, 61440: INF, -61440: -INF, INF: INF, NAN: NAN}),
        ("e5m2", "SatFinite", {61440: 57344, -61440: -57344, INF: 57344, -INF: -57344, NAN: NAN}),
        ("e5m2", "SatPropagate", {61440: 57344, -61440: -57344, INF: INF, -INF: -INF, NAN: NAN}),
        ("e4m3", "SatFinite", {2.0**-10: 0.0, -(2.0**-10): -0.0, 3 * 2.0**-10: 2.0**-8, 1.0625: 1.0, 1.1875: 1.25}),
        ("e4m3fnuz", "SatFinite", {-0.0: 0.0, -(2.0**-11): 0.0, 248: 240, INF: 240, NAN: NAN}),
        ("e4m3fnuz", "OvfNaN", {247: 240, 248: NAN, -248: NAN}),
        ("e2m1", "SatFinite", {0.25: 0.0, -0.25: -0.0, 0.75: 1.0, 2.5: 2.0, 3.5: 4.0, 5: 4.0, 7: 6.0, NAN: 6.0}),
        ("int8", "saturate", {0.5: 0, 1.5: 2, -0.5: 0.0, -2.5: -2, 126.5: 126, 127.5: 127, -128.5: -128, -1e9: -128}),
        ("int8", "saturate", {NAN: 0.0, INF: 127, -INF: -128, -0.0: 0.0}),
        ("int8", "wrap", {127.5: -128, 128: -128, 255: -1, 256: 0, -129: 127, -128.5: -128, INF: 127, -INF: -128, 1e20: 0}),
        ("int2", "saturate", {0.5: 0, 0.51: 1, 1.5: 1, -1.5: -2, -2.5: -2, -9: -2}),
        ("uint4", "saturate", {-0.5: 0, -3: 0, 15.5: 15, 16: 15, INF: 15, -INF: 0, NAN: 0}),
        ("uint4", "wrap", {-0.5: 0, -1: 15, -3: 13, 15.5: 0, 17: 1, -17: 15, INF: 15, -INF: 0}),
        ("int8sym", "saturate", {-128: -127, -127.5: -127, -1e9: -127, -INF: -127, 127.5: 127}),
        ("ternary", "saturate", {0.5: 0, 0.51: 1, -0.5: 0, -0.51: -1, 7: 1, -7: -1, NAN: 0}),
        ("Q3.4", "wrap", {8: -8, 7.96875: -8, 7.96: 7.9375, -8.03125: -8, -8.0625: 7.9375, 16: 0}),
        ("UQ0.8", "saturate", {1: 0.99609375, 0.001953125: 0, 0.00585: 0.00390625, -1: 0}),
        # without mantissa bits the codes of 1, 2, 4 are odd or even in turn; with bias 7 that of 1 is 7
        ("e4m0fn", "SatFinite", {1.5: 2.0, 3.0: 2.0, 6.0: 8.0, 2.0**-7: 0.0, 1.5 * 2.0**-6: 2.0**-5}),
        # E8M0: the code of 1 is 127, odd, so 1.5 goes up to 128 and 3 comes down to it; negative numbers clamp, or are NaN
        ("e8m0", "SatFinite", {1.5: 2.0, 3.0: 2.0, 6.0: 8.0, -0.0: 2.0**-127, -1: 2.0**-127, 2.0**200: 2.0**127}),
        ("e8m0", "OvfNaN", {1.5 * 2.0**127: 2.0**127, 1.6 * 2.0**127: NAN, INF: NAN, 0.0: 2.0**-127, 1e-300: 2.0**-127}),
        ("e8m0", "OvfNaN", {-1: NAN, -1e-38: NAN, -(2.0**-128): NAN, -1e-40: NAN, -1e-300: NAN, -0.0: NAN, -INF: NAN}),
        ("ue4m3", "SatFinite", {464: 448, 470: 448, -1: 0, -(2.0**-11): 0, NAN: NAN}),
        ("ue4m3", "OvfNaN", {464: 448, 470: NAN, -1: NAN, -(2.0**-11): 0, -0.0: 0.0}),
        ("ue5m3", "SatFinite", {114688: 114688, 118784: 114688, INF: 114688, 2.0**-18: 0, 1.5 * 2.0**-17: 2.0**-16}),
        # DLFloat: nothing below 2^-31 (1 + 2^-9), whose code is odd, so its half goes to zero, whose code is even
        ("dlfloat16", "SatFinite", {2.0**-32: 0.0, -(2.0**-32): -0.0, 2.0**-31: 2.0**-31 * (1 + 2.0**-9), 1e10: 8573157376.0}),
        ("dlfloat16", "OvfNaN", {1e10: NAN, INF: NAN, NAN: NAN, 8573157376.0: 8573157376.0}),
        # CFloat8 as printed: 7 * 2^-10 is followed by 2^-6 = 16 * 2^-10; the middle is 11.5 * 2^-10, and the lower code is odd
        ("cfloat8_1_4_3_half", "SatFinite", {11 * 2.0**-10: 7 * 2.0**-10, 11.5 * 2.0**-10: 2.0**-6, 2.0**-11: 0.0, 500: 480}),
        # NF4: of two equally near values the one with the even code; 0 and 1 have the codes 7 and 15
        ("nf4", "SatFinite", {2: 1.0, -INF: -1.0, NAN: 0.0, 0.039790149778127670: 0.07958029955625534, 0.03: 0.0, -0.0: 0.0}),
        ("binary", "SatFinite", {-0.0: 1.0, 1e-300: 1.0, -1e-300: -1.0, -7: -1.0, INF: 1.0, NAN: 1.0}),
        ("posit8", "InfNaN", {1e9: 2.0**24, -INF: NAN, 1e-99: 2.0**-24, -1e-99: -(2.0**-24), 0: 0, NAN: NAN, 2.0**22: 2.0**20}),
        ("posit8", "SatFinite", {1e9: 2.0**24, -INF: -(2.0**24), 2.0**-25: 2.0**-24, NAN: NAN}),
        ("posit8", "OvfNaN", {1e9: NAN, -1e9: NAN, INF: NAN, 2.0**24: 2.0**24}),
        ("e4m3", "InfNaN", {464.001: 448, -1e9: -448, INF: NAN, -INF: NAN, NAN: NAN}),
        ("ue4m3", "InfNaN", {470: 448, -1: 0, -INF: NAN, INF: NAN}),
    ],
)  # fmt: skip
def test_worked_by_hand(fmt: str, rule: str, cases: dict[float, float]) -> None:
    """Ties, the edge of the range, infinities, NaN and zeros come out as worked out from the standards."""
    for x, expected in cases.items():
        assert alike(reference.quantize(float(x), fmt, saturation=rule), float(expected)), x


def test_where_a_table_goes_on() -> None:
    """Without a next value all beyond the end is out of range; with one, what is nearer to the end rounds to it first."""
    closed, open_ended = (table_format("t", [0.0, 1.0, NAN], "a test", above=above) for above in (None, 2.0))
    for x, mode, first, second in (
        (1.25, "RNE", NAN, 1.0), (1.5, "RNE", NAN, NAN), (1.25, "RUP", NAN, NAN), (1.75, "RDN", 1.0, 1.0),
        (1.0, "RUP", 1.0, 1.0), (2.5, "RDN", 1.0, 1.0), (2.5, "RNE", NAN, NAN), (1.25, "RTO", NAN, 1.0),
    ):  # fmt: skip
        assert alike(reference.quantize(x, closed, mode, saturation="OvfNaN"), first), (x, mode)
        assert alike(reference.quantize(x, open_ended, mode, saturation="OvfNaN"), second), (x, mode)


def test_one_side_of_zero_only() -> None:
    """A table of negative values only clamps what is above to its largest; 0 alone is what its entry says."""
    fmt = next(fmt for fmt in TABLES if fmt.name == "all below zero")
    assert [reference.quantize(x, fmt) for x in (0.5, -0.05, 0.0, -5.0, 1e300)] == [-0.125, -0.125, -2.0, -2.0, -0.125]


def test_one_word_by_hand() -> None:
    """With 3 bits a quarter of an interval, 010, goes up for the words 110 and 111 only."""
    assert [reference.quantize(1.03125, "e4m3", "SRA", sr_bits=3, rbits=r) for r in range(8)] == [1.0] * 6 + [1.125] * 2


def test_any_rational_can_be_rounded() -> None:
    """A number need not be a float: a third, a sum just above a tie, and one far beyond every float are rounded."""
    assert reference.quantize(Fraction(1, 3), "e4m3") == 0.34375
    assert reference.quantize(Fraction(17, 16) + Fraction(1, 10**50), "e4m3") == 1.125
    assert reference.quantize(-(Fraction(10) ** 400), "float16") == -INF
    huge = Fraction(2) ** 1800
    assert reference.encode(huge, "Binary13p1sf") == 2048 + 1800
    assert reference.encode(huge * 5 / 4, "Binary13p1sf") == 2048 + 1800


@pytest.mark.parametrize(("bits", "word"), [(0, 1), (3, 8), (3, -1)])
def test_words_that_do_not_fit_are_refused(bits: int, word: int) -> None:
    """A word of more bits than were said is refused."""
    with pytest.raises(InputError, match=f"rbits = {word} is no word of sr_bits = {bits} bits"):
        reference.encode(1.0, "e4m3", "SRA", sr_bits=bits, rbits=word)


@pytest.mark.parametrize("kind", [np.uint8, np.int16, np.uint64, np.int64])
def test_words_of_numpy_do_not_wrap_around(kind: type[np.integer]) -> None:
    """A word may be NumPy's, of any width: sums with it are those of Python's integers."""
    for mode in ("SRA", "SRB", "SRC", "SRE"):
        for word in (0, 100, 127):
            given = {"sr_bits": kind(7), "rbits": kind(word)}
            assert reference.quantize(0.3, "e4m3", mode, **given) == reference.quantize(
                0.3, "e4m3", mode, sr_bits=7, rbits=word
            )


@pytest.mark.parametrize(
    ("given", "fragment"),
    [
        ({"mode": "SRA"}, "SRA needs sr_bits"), ({"mode": "SRE"}, "SRE needs sr_bits"),
        ({"mode": "SRA", "sr_bits": 4, "rbits": 1.5}, "rbits = 1.5 must be an integer"),
        ({"mode": "SRA", "sr_bits": True}, "sr_bits = True must be an integer"),
        ({"nan": "quiet"}, "nan = 'quiet'; it is canonical, signed or signed_overflow"),
        ({"mode": "Threshold", "eps": 1.5}, "eps = 1.5 must be a number"),
    ],
    ids=str,
)  # fmt: skip
def test_what_no_rounding_is_is_refused(given: dict[str, Any], fragment: str) -> None:
    """Words that are missing or no integers, and policies that are none, are refused."""
    with pytest.raises(InputError, match=fragment):
        reference.quantize(0.3, "e4m3", **given)


def test_senseless_arguments_are_refused() -> None:
    """SR without a width, a threshold out of range, and a saturation of another kind of format are refused."""
    with pytest.raises(InputError, match="SR needs sr_bits here"):
        reference.encode(1.0, "e4m3", "SR")
    with pytest.raises(InputError, match=r"eps = 1\.0"):
        reference.encode(1.0, "e4m3", "Threshold", eps=1.0)
    with pytest.raises(InputError, match="no order of operations is called 'both'"):
        reference.scaled(1.0, 2.0, "both", "float32")
    with pytest.raises(InputError, match=r"s = -2\.0 must be a positive finite number, or 0"):
        reference.scaled(1.0, -2.0, "divide", "float32")
    with pytest.raises(
        InputError, match="no rule for scales is called 'none'; it is pow2, absmax, absmax_nearest or absmean"
    ):
        reference.derived_scale([1.0], "int8", "none", "float32")
    with pytest.raises(InputError, match=r"code = 1\.5 must be an integer"):
        get_format("e4m3").decode(1.5)
    with pytest.raises(InputError, match="makes no sense for int8"):
        reference.encode(1.0, "int8", saturation="SatFinite")


@pytest.mark.parametrize("x", [NAN, INF, 449.0])
def test_moments_beyond_the_range_are_refused(x: float) -> None:
    """Without saturation there is no unbiased rounding beyond the range, so there are no moments to state."""
    with pytest.raises(InputError, match="outside the range"):
        reference.sr_moments(x, "e4m3")
