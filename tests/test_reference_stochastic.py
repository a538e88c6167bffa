"""What all words of a stochastic mode, and all thresholds, give together, by enumeration."""

from __future__ import annotations

import math
from fractions import Fraction

import pytest
from alike import alike
from hypothesis import assume, given
from hypothesis import strategies as st
from strategies import FLOAT64, P3109, SMALL, formats, near_thresholds, words

from qsim import reference
from qsim.formats import Format, Grid, Table, get_format
from qsim.rounding import saturations

# --- All words -------------------------------------------------------------------------------------------------------


def some_intervals(fmt: Format) -> list[tuple[Fraction, Fraction]]:
    """Return the ends of intervals of all kinds: at zero, subnormal, normal, at the largest value, on both sides."""
    whole = 1 << fmt.man_bits if isinstance(fmt, Grid) else 2
    starts = {0, 1, whole - 1, whole, fmt.top // 2, fmt.top - 1}
    at = {*starts, *(-1 - start for start in starts), -fmt.bottom} & {*range(-fmt.bottom, fmt.top)}
    return [(fmt.value(n), fmt.value(n + 1)) for n in sorted(at)]


def check_words(fmt: Format, n: int) -> None:
    """Hold all words of `n` bits together, at points of intervals that `n` bits do and do not hold."""
    whole = 1 << n
    marks = {Fraction(k, whole) for k in (0, 1, whole * 3 // 10, whole // 2, whole - 1)}
    marks |= {Fraction(k, whole << extra) for extra, k in ((3, whole + 5), (9, 1))}
    for low, high in some_intervals(fmt):
        for part in marks:
            x = low + part * (high - low)
            inner, outer = (low, high) if x >= 0 else (high, low)
            nu = (x - inner) / (outer - inner)
            if not fmt.has_zero and not x:
                continue
            for mode, ups in (
                ("SRA", math.floor(nu * whole)),
                ("SRB", math.floor(nu * whole + Fraction(1, 2))),
                ("SRC", round(nu * whole)),
            ):
                results = [Fraction(reference.quantize(x, fmt, mode, sr_bits=n, rbits=r)) for r in range(whole)]
                assert results == [inner] * (whole - ups) + [outer] * ups, (x, mode)
                mean = sum(results) / whole
                variance = sum((y - mean) ** 2 for y in results) / whole
                bias = (mean - x) / (outer - inner)  # in units of the interval, outward
                if nu.denominator <= whole:
                    assert (mean, variance) == reference.sr_moments(x, fmt) == (x, (high - x) * (x - low))
                elif mode == "SRA":
                    assert -Fraction(1, whole) < bias < 0
                else:
                    assert abs(bias) <= Fraction(1, 2 * whole)


@pytest.mark.in_part(3)
@pytest.mark.parametrize("fmt", SMALL, ids=str)
def test_all_words_together(fmt: Format) -> None:
    """Over all words the moments are those of the theory where N bits hold the fraction, else the bias is bounded.

    As many words go up as the rule says: A is short by less than 2^-N of an interval, toward zero; B and C by half of that.
    """
    check_words(fmt, 3)


@pytest.mark.parametrize("name", ["float8_e4m3fn", "float8_e8m0fnu", "nf4"])
def test_all_words_of_eight_bits(name: str) -> None:
    """The same with 8 bits."""
    check_words(get_format(name), 8)


@pytest.mark.exhaustive
@pytest.mark.parametrize("fmt", [*SMALL, *P3109], ids=lambda fmt: fmt.name)
@pytest.mark.parametrize("n", [0, 1, 8])
def test_all_words_everywhere(fmt: Format, n: int) -> None:
    """The same in every small format, with 8 bits, one, and none."""
    check_words(fmt, n)


def test_equal_chances() -> None:
    """StochasticEqual goes up for the half of the words whose top bit is set, wherever between two values a number is."""
    for x, low, high in ((1.0000001, 1.0, 1.125), (-1.1, -1.0, -1.125), (2.0**-30, 0.0, 2.0**-9)):
        for n in (1, 2, 5):
            results = [reference.quantize(x, "e4m3", "SRE", sr_bits=n, rbits=r) for r in range(1 << n)]
            assert results == [low] * (1 << (n - 1)) + [high] * (1 << (n - 1))
    assert {reference.quantize(1.125, "e4m3", "SRE", sr_bits=3, rbits=r) for r in range(8)} == {1.125}


@given(st.data())
def test_words_are_a_threshold(data: st.DataObject) -> None:
    """A larger word never rounds to a smaller magnitude, the word 0 truncates, and without bits nothing rounds up."""
    fmt = data.draw(formats())
    x = abs(float(data.draw(near_thresholds(fmt, FLOAT64))))
    assume(fmt.has_zero and not (isinstance(fmt, Table) and fmt.max < x))
    n = data.draw(st.integers(1, 64))
    small, large = sorted((data.draw(words(n)), data.draw(words(n))))
    truncated, low, high = (reference.quantize(x, fmt, "SRA", sr_bits=n, rbits=r) for r in (0, small, large))
    assert truncated <= low <= high or math.isnan(high)
    assert alike(reference.quantize(x, fmt, "SRA", sr_bits=0), truncated)
    if fmt.min <= x <= fmt.max:
        assert truncated == fmt.neighbours(x)[0]


# --- Threshold -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("fmt", SMALL, ids=str)
def test_uniform_thresholds_are_stochastic_rounding(fmt: Format) -> None:
    """Over all eps = k / 2^N the mean is x where N bits hold the fraction (Liu et al.): Threshold is SR with its eps."""
    n = 3
    thresholds = [k / 2.0**n for k in range(1 << n)]
    for low, high in some_intervals(fmt):
        for k in range(1 << n):
            x = low + Fraction(k, 1 << n) * (high - low)
            if not fmt.has_zero and not x:
                continue
            results = [Fraction(reference.quantize(x, fmt, "Threshold", eps=eps)) for eps in thresholds]
            assert results == [high] * k + [low] * ((1 << n) - k), x
            assert sum(results) / len(results) == x


def test_threshold_is_a_ceiling() -> None:
    """On integers Threshold(eps) is ceil(x - eps), for negative numbers too: a threshold of the whole line, not of |x|."""
    for sixteenths in range(-600, 600):
        x = Fraction(sixteenths, 16)
        for eps in (0.0, 0.25, 0.5, 1 / 3, 0.9375, 1 - 2.0**-53):
            assert reference.quantize(x, "int8", "Threshold", eps=eps) == math.ceil(x - Fraction(eps))
        assert reference.quantize(x, "int8", "Threshold", eps=0.5) == reference.quantize(x, "int8", "RNN")


@given(st.data())
def test_ends_of_the_thresholds(data: st.DataObject) -> None:
    """Threshold(0) is RUP, and with the largest threshold it is RDN unless the fraction is larger still."""
    fmt = data.draw(formats())
    x = float(data.draw(near_thresholds(fmt, FLOAT64)))
    rule = data.draw(st.sampled_from(saturations(fmt)))
    assume(math.isfinite(x) and fmt.min <= x <= fmt.max)
    assert alike(
        reference.quantize(x, fmt, "Threshold", eps=0.0, saturation=rule),
        reference.quantize(x, fmt, "RUP", saturation=rule),
    )
    top = 1 - 2.0**-53
    low, high = (Fraction(v) for v in fmt.neighbours(x))
    y = reference.quantize(x, fmt, "Threshold", eps=top, saturation=rule)
    if x and low != high:
        assert y == (high if Fraction(x) - low > Fraction(top) * (high - low) else low)


def test_thresholds_by_hand() -> None:
    """1.03 is 0.24 of the way from 1 to 1.125; -1.03 is 0.76 of the way up from -1.125, so it goes up for more thresholds."""
    for eps, up, down in (
        (0.0, 1.125, -1.0),
        (0.2, 1.125, -1.0),
        (0.25, 1.0, -1.0),
        (0.75, 1.0, -1.0),
        (0.77, 1.0, -1.125),
    ):
        assert reference.quantize(1.03, "e4m3", "Threshold", eps=eps) == up
        assert reference.quantize(-1.03, "e4m3", "Threshold", eps=eps) == down
    assert alike(reference.quantize(-(2.0**-12), "e4m3", "Threshold", eps=0.5), -0.0)
    assert reference.quantize(460.0, "e4m3", "Threshold", eps=0.5, saturation="OvfNaN") == 448.0
    assert math.isnan(reference.quantize(470.0, "e4m3", "Threshold", eps=0.5, saturation="OvfNaN"))
