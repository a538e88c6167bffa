"""The definition of every result, against other authors' conversions, exact moments and cases worked by hand."""

from __future__ import annotations

import math
from fractions import Fraction

import gfloat
import ml_dtypes
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from strategies import FLOAT32, FLOAT64, PARAMETRIC, SMALL, formats, inputs, near_thresholds, words

from qsim import reference
from qsim.errors import InputError
from qsim.formats import Format, get_format
from qsim.rounding import saturations


def alike(a: float, b: float) -> bool:
    """Return whether two results are the same: both NaN, or equal with the same sign, also of zero."""
    return (math.isnan(a) and math.isnan(b)) or (a == b and math.copysign(1, a) == math.copysign(1, b))


# --- Against ml_dtypes -----------------------------------------------------------------------------------------------

OVERFLOW = {
    "float8_e4m3fn": "OvfNaN", "float8_e5m2": "SatNone", "float8_e4m3": "SatNone", "float8_e3m4": "SatNone",
    "float8_e4m3fnuz": "OvfNaN", "float8_e5m2fnuz": "OvfNaN", "float6_e2m3fn": "SatFinite",
    "float6_e3m2fn": "SatFinite", "float4_e2m1fn": "SatFinite",
}  # fmt: skip
"""The types of ml_dtypes of up to 8 bits that we spell, and what ml_dtypes does beyond their range."""


@pytest.mark.parametrize("source", [np.dtype(np.float16), np.dtype(ml_dtypes.bfloat16)], ids=str)
@pytest.mark.parametrize(("name", "rule"), OVERFLOW.items())
def test_nearest_of_ml_dtypes(name: str, rule: str, source: np.dtype) -> None:
    """All 65,536 numbers of 16 bits round to the code that ml_dtypes gives them."""
    fmt = get_format(name)
    with np.errstate(invalid="ignore"):
        x = np.arange(1 << 16, dtype=np.uint16).view(source).astype(np.float64)
        theirs = x.astype(getattr(ml_dtypes, name)).view(np.uint8)
    ours = np.array([reference.encode(value, fmt, "RNE", saturation=rule) for value in x.tolist()])
    expected = fmt.values()[theirs]
    nan = np.isnan(expected)
    if fmt.has_nan:
        assert (ours[nan] == fmt.nan_code).all()
    else:  # these formats have no NaN, and ml_dtypes makes -0 of one, for no stated reason
        nan = np.isnan(x)
        assert (ours[nan] == fmt.code(fmt.top)).all()
    assert np.array_equal(ours[~nan], theirs[~nan])


# --- Against gfloat --------------------------------------------------------------------------------------------------


def peer(fmt: Format) -> gfloat.FormatInfo:
    """Return gfloat's description of the float format `fmt`."""
    nans = {"ieee": (1 << fmt.man_bits) - 1, "fn": 1, "fnuz": 0, "f": 0}[fmt.specials]
    return gfloat.FormatInfo(
        fmt.name, fmt.bits, fmt.precision, bias=fmt.bias, is_signed=True, has_nz=fmt.has_neg_zero, num_high_nans=nans,
        domain=gfloat.Domain.Extended if fmt.has_inf else gfloat.Domain.Finite, has_subnormals=True,
        is_twos_complement=False,
    )  # fmt: skip


GFLOAT_RULES = {"ieee": ("SatFinite", "SatNone"), "fn": ("SatFinite", "OvfNaN"), "fnuz": ("SatFinite", "OvfNaN")}
"""Our rules for gfloat's sat=True and sat=False."""


GFLOAT_MODES = {
    "RNE": "TiesToEven", "RNA": "TiesToAway", "RTZ": "TowardZero", "RUP": "TowardPositive", "RDN": "TowardNegative",
    "SRA": "StochasticFastest", "SRB": "StochasticFast", "SRC": "Stochastic",
}  # fmt: skip
"""gfloat's name of each mode that it has."""


@pytest.mark.parametrize("mode", GFLOAT_MODES)
@given(data=st.data())
def test_rounding_of_gfloat(mode: str, data: st.DataObject) -> None:
    """Each mode gives what gfloat's mode of another name gives, word by word, overflow and special values included."""
    fmt = data.draw(st.sampled_from([fmt for fmt in PARAMETRIC if fmt.specials in GFLOAT_RULES]))
    saturate = data.draw(st.booleans())
    rule = GFLOAT_RULES[fmt.specials][not saturate]
    x = float(data.draw(inputs(fmt, FLOAT32)))
    n = data.draw(st.integers(0, 24)) if mode.startswith("S") else 0
    r = data.draw(words(n)) if n else 0
    theirs = gfloat.round_float(peer(fmt), x, gfloat.RoundMode[GFLOAT_MODES[mode]], sat=saturate, srbits=r, srnumbits=n)
    assert alike(reference.quantize(x, fmt, mode, sr_bits=n, rbits=r, saturation=rule), theirs)


# --- Stochastic rounding by enumeration ------------------------------------------------------------------------------

N = 8


@pytest.mark.parametrize("fmt", SMALL, ids=str)
def test_all_words_together(fmt: Format) -> None:
    """Over all words the moments are those of the theory, or the mean is short of x by what N bits cannot hold."""
    ordinals = sorted(
        {0, 1, 2, (1 << fmt.man_bits) - 1, 1 << fmt.man_bits, fmt.top // 2, fmt.top - 1} & {*range(fmt.top)}
    )
    for n in ordinals:
        lower, upper = fmt.value(n), fmt.value(n + 1)
        gap = upper - lower
        for nu in (
            Fraction(k, 1 << D) for D, k in ((N, 0), (N, 1), (N, 77), (N, 128), (N, 255), (N + 3, 77), (N + 9, 1))
        ):
            for sign in (1, -1):
                x = sign * (lower + nu * gap)
                results = [Fraction(reference.quantize(x, fmt, "SRA", sr_bits=N, rbits=r)) for r in range(1 << N)]
                mean = sum(results) / len(results)
                variance = sum((y - mean) ** 2 for y in results) / len(results)
                bias = (abs(mean) - abs(x)) / gap
                assert -Fraction(1, 1 << N) < bias <= 0
                assert set(results) <= {sign * lower, sign * upper}
                if nu.denominator <= 1 << N:
                    assert (mean, variance) == reference.sr_moments(x, fmt)
                else:
                    assert bias == math.floor(nu * (1 << N)) / Fraction(1 << N) - nu


@given(st.data())
def test_words_are_a_threshold(data: st.DataObject) -> None:
    """A larger word never rounds to a smaller magnitude, the word 0 truncates, and without bits nothing rounds up."""
    fmt = data.draw(formats())
    x = abs(float(data.draw(near_thresholds(fmt, FLOAT64))))
    n = data.draw(st.integers(1, 64))
    small, large = sorted((data.draw(words(n)), data.draw(words(n))))
    truncated, low, high = (reference.quantize(x, fmt, "SRA", sr_bits=n, rbits=r) for r in (0, small, large))
    assert truncated <= low <= high
    assert alike(reference.quantize(x, fmt, "SRA"), truncated)
    if x <= fmt.max:
        assert truncated == fmt.neighbours(x)[0]


# --- Laws ------------------------------------------------------------------------------------------------------------


@given(st.data())
def test_nearest_is_nearest(data: st.DataObject) -> None:
    """Within the range RNE gives the nearer neighbour, and of two equally near ones the one with the even code."""
    fmt = data.draw(formats())
    x = Fraction(float(data.draw(near_thresholds(fmt, FLOAT64).filter(lambda x: abs(x) <= fmt.max))))
    lower, upper = (Fraction(v) for v in fmt.neighbours(x))
    code = reference.encode(x, fmt)
    y = Fraction(fmt.decode(code))
    assert y in (lower, upper)
    assert abs(y - x) == min(x - lower, upper - x)
    if x - lower == upper - x and lower != upper:
        assert code % 2 == 0


@given(st.data())
def test_values_are_fixed_points(data: st.DataObject) -> None:
    """A value of the format is its own rounding in every mode, with every word and every saturation rule."""
    fmt = data.draw(formats())
    x = fmt.decode(data.draw(words(fmt.bits)))
    rule = data.draw(st.sampled_from(saturations(fmt)))
    mode, n = data.draw(st.sampled_from([("RNE", 0), ("SRA", 8), ("SR", 32), ("SR", 64)]))
    y = reference.quantize(x, fmt, mode, sr_bits=n, rbits=data.draw(words(n)), saturation=rule)
    if math.isfinite(x) or rule.value in ("SatNone", "SatPropagate"):
        assert alike(y, x)


@given(st.data())
def test_signs_do_not_matter(data: st.DataObject) -> None:
    """A float format rounds -x to minus what it rounds x to, with the same word; only the sign of zero may be lost."""
    fmt = data.draw(formats().filter(lambda fmt: fmt.kind == "float"))
    x = abs(float(data.draw(inputs(fmt, FLOAT64))))
    rule = data.draw(st.sampled_from(saturations(fmt)))
    r = data.draw(words(8))
    for mode, n in ("RNE", 8), ("SRA", 8):
        plus, minus = (reference.quantize(v, fmt, mode, sr_bits=n, rbits=r, saturation=rule) for v in (x, -x))
        if math.isnan(x):
            assert alike(plus, minus)
        else:
            assert math.isnan(plus) == math.isnan(minus)
            assert math.isnan(plus) or plus == -minus
            assert math.copysign(1, minus) == (-1 if fmt.has_neg_zero or minus else 1) or math.isnan(plus)


# --- By hand ---------------------------------------------------------------------------------------------------------

INF, NAN = math.inf, math.nan


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
        ("int2", "saturate", {0.5: 0, 0.51: 1, 1.5: 1, -1.5: -2, -2.5: -2, -9: -2}),
        # without mantissa bits the codes of 1, 2, 4 are odd or even in turn; with bias 7 that of 1 is 7
        ("e4m0fn", "SatFinite", {1.5: 2.0, 3.0: 2.0, 6.0: 8.0, 2.0**-7: 0.0, 1.5 * 2.0**-6: 2.0**-5}),
    ],
)  # fmt: skip
def test_worked_by_hand(fmt: str, rule: str, cases: dict[float, float]) -> None:
    """Ties, the edge of the range, infinities, NaN and zeros come out as worked out from the standards."""
    for x, expected in cases.items():
        assert alike(reference.quantize(float(x), fmt, saturation=rule), float(expected)), x


def test_one_word_by_hand() -> None:
    """With 3 bits a quarter of an interval, 010, goes up for the words 110 and 111 only."""
    assert [reference.quantize(1.03125, "e4m3", "SRA", sr_bits=3, rbits=r) for r in range(8)] == [1.0] * 6 + [1.125] * 2


def test_any_rational_can_be_rounded() -> None:
    """A number need not be a float: a third, a sum just above a tie, and one far beyond every float are rounded."""
    assert reference.quantize(Fraction(1, 3), "e4m3") == 0.34375
    assert reference.quantize(Fraction(17, 16) + Fraction(1, 10**50), "e4m3") == 1.125
    assert reference.quantize(-(Fraction(10) ** 400), "float16") == -INF


@pytest.mark.parametrize(("bits", "word"), [(0, 1), (3, 8), (3, -1)])
def test_words_that_do_not_fit_are_refused(bits: int, word: int) -> None:
    """A word of more bits than were said is refused."""
    with pytest.raises(InputError, match=f"rbits = {word} is no word of sr_bits = {bits} bits"):
        reference.encode(1.0, "e4m3", "SRA", sr_bits=bits, rbits=word)


@pytest.mark.parametrize("x", [NAN, INF, 449.0])
def test_moments_beyond_the_range_are_refused(x: float) -> None:
    """Without saturation there is no unbiased rounding beyond the range, so there are no moments to state."""
    with pytest.raises(InputError, match="outside the range"):
        reference.sr_moments(x, "e4m3")
