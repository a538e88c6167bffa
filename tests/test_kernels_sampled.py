"""The kernels against the definition where there is too much to enumerate: any table or format, any number, any word."""

from __future__ import annotations

import itertools
import math
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from covered import covers
from enumeration import exactly, first_word, place, roundings
from hypothesis import given, settings
from hypothesis import strategies as st
from strategies import KINDS, drawn_formats, inputs, taken

from qsim import reference
from qsim.arrays import encode
from qsim.errors import InputError
from qsim.formats import Format, Grid, Table, table_format
from qsim.rounding import NANS, Mode, saturations

# --- Lists of values -------------------------------------------------------------------------------------------------


@st.composite
def tables(draw: st.DrawFn) -> Table:
    """Return a table of any values: integers of up to 53 bits times powers of two, of any sizes and in any order.

    With codes of their own, a NaN, points beyond the ends, and thresholds anywhere between the values, or without.
    """
    least = draw(st.integers(-1074, 900))
    spread = draw(st.sampled_from([0, 3, 9, 40]))
    digits = st.one_of(st.integers(-8, 8), st.integers(-(2**53) + 1, 2**53 - 1))
    value = st.tuples(digits, st.integers(0, spread)).map(lambda pair: math.ldexp(pair[0], least + pair[1]))
    values = draw(st.lists(value, min_size=4, max_size=12, unique=True))
    fields: dict[str, Any] = {}
    for name, end in ("below", min(values)), ("above", max(values)):
        if draw(st.booleans()):
            fields[name] = end
            values.remove(end)
    if 0 not in values:
        fields["zero_to"] = draw(st.sampled_from(["min", "max"]))
    if draw(st.booleans()):
        share = st.sampled_from([0.0, 2.0**-40, 0.25, 1 / 3, 0.5, 0.75, 1.0])
        fields["thresholds"] = [
            min(max(low + draw(share) * (high - low), low), high) for low, high in itertools.pairwise(sorted(values))
        ]
    if draw(st.booleans()):
        values.append(math.nan)
    numbers = draw(st.lists(st.integers(0, 31), min_size=len(values), max_size=len(values), unique=True))
    return table_format("drawn", values, "a test", codes=numbers, bits=5, **fields)


def near_table(fmt: Table, draw: st.DrawFn) -> list[float]:
    """Return floats that a table may round wrong: points, numbers between them at all fractions, and beside these."""
    line = fmt.line
    found = [0.0, -0.0, math.inf, -math.inf, math.nan, 5e-324, -5e-324, 1.7e308]
    for low, high in itertools.pairwise(line):
        part = draw(
            st.sampled_from([Fraction(1, 2), Fraction(1, 3), Fraction(1, 4), Fraction(1, 2**53), Fraction(3, 7)])
        )
        middle = float(Fraction(low) + (Fraction(high) - Fraction(low)) * part)
        found += [low, middle, math.nextafter(middle, high), math.nextafter(low, high)]
    for turn in fmt.thresholds:
        found += [turn, math.nextafter(turn, math.inf), math.nextafter(turn, -math.inf)]
    return [*found, line[-1], math.nextafter(line[0], -math.inf), math.nextafter(line[-1], math.inf)]


def too_far_apart(fmt: Table) -> bool:
    """Return whether two neighbours, as integers in units of the last place of both, do not fit 62 bits."""
    for pair in itertools.pairwise(fmt.line):
        (a, b), (c, d) = (end.as_integer_ratio() for end in pair)
        common = max(b, d)  # powers of two
        low, high = a * (common // b), c * (common // d)
        shared = math.gcd(low, high)
        power = shared & -shared
        if max(abs(low), abs(high)) // power >= 1 << 62:
            return True
    return False


@pytest.mark.parametrize(("far", "fits"), [(100.0, True), (127.0, True), (128.0, False), (1000.0, False)])
def test_how_far_apart_neighbours_may_be(far: float, fits: bool) -> None:
    """Arrays take neighbours of up to 62 bits in units of the last place of the finer one, the definition takes any."""
    fmt = table_format("t", [0.0, 0.1, far], "a test")
    assert Fraction(0.1).denominator == 2**55
    assert too_far_apart(fmt) is not fits
    assert reference.encode(60.0, fmt) == 1 + (far < 119)
    if fits:
        assert encode(np.array([60.0]), fmt) == [1 + (far < 119)]
    else:
        with pytest.raises(InputError, match=f"its values 0.1 and {far} are neighbours of too different magnitude"):
            encode(np.array([60.0]), fmt)


@covers("sampled", formats="any table whose neighbours fit 62 bits", modes=Mode, inputs="any float, any word")
@settings(max_examples=150)
@given(st.data())
def test_any_table(data: st.DataObject) -> None:
    """Numbers round to a table of any values as the definition says, in every mode, words of up to 63 or 64 bits.

    Where two neighbours are of too different magnitude, that is said.
    """
    fmt = data.draw(tables())
    x = np.array(near_table(fmt, data.draw))
    if too_far_apart(fmt):
        with pytest.raises(InputError, match="are neighbours of too different magnitude"):
            encode(x, fmt)
        return
    assert_kernel_is_reference(fmt, x, data.draw)


def deep(fmt: Format) -> bool:
    """Return whether float64 has two binades of normal numbers below those of a format, or a bit of precision too few."""
    return not isinstance(fmt, Grid) or fmt.even or fmt.man_bits == 52 or fmt.emin >= -1020


def assert_kernel_is_reference(fmt: Format, x: np.ndarray, draw: st.DrawFn) -> None:
    """Assert that codes are the definition's: each mode with one rule, random words and thresholds, or those where x turns."""
    random = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    rule = draw(st.sampled_from(saturations(fmt)))
    flushed = [False, True, "before", "result"] if deep(fmt) else [False, "before", "result"]
    flags = {"ftz_out": draw(st.sampled_from(flushed)), "nan": draw(st.sampled_from(NANS))}
    width = 8 * max(x.dtype.itemsize, 4)
    numbers = exactly(x).tolist()
    at = place(fmt, exactly(x)) if fmt.bits <= 8 else None  # only to find words that are worth a try
    for mode in Mode:
        each: list[dict[str, Any]] = [{} for _ in numbers]
        whole: dict[str, Any] = {}
        if mode is Mode.THR:
            eps = np.ldexp(
                random.integers(0, 1 << random.integers(1, 54), x.size).astype(float), -int(random.choice([53, 64]))
            )
            if at is not None and random.integers(0, 2):
                eps = next(roundings(mode, at, (), 0))["eps"]
            whole, each = {"eps": eps}, [{"eps": value} for value in eps.tolist()]
        elif mode.stochastic:
            most = width - (width == 64 and mode in {Mode.SRB, Mode.SRC})
            n = width if mode is Mode.SR else int(random.integers(mode is Mode.SRE, most + 1))
            word = (
                random.integers(0, 1 << n, x.size, np.uint64)
                if n < 64
                else random.integers(0, 2**64, x.size, np.uint64)
            )
            if at is not None and n < 64 and random.integers(0, 2):
                word = np.minimum(
                    first_word(mode, at, n) - random.integers(0, 2, x.size, np.uint64), np.uint64((1 << n) - 1)
                )
            whole, each = {"sr_bits": n, "rbits": word}, [{"sr_bits": n, "rbits": r} for r in word.tolist()]
        got = encode(x, fmt, mode, saturation=rule, **flags, **whole).tolist()
        for number, code, one in zip(numbers, got, each, strict=True):
            expected = reference.encode(number, fmt, mode, saturation=rule, **flags, **one)
            assert code == expected, (number, mode, rule, one)


# --- Any format ------------------------------------------------------------------------------------------------------


@covers(
    "sampled",
    formats="any exponent, mantissa, bias and special values, up to 16 bits",
    modes=Mode,
    inputs="any float16, bfloat16, float32, float64, any word",
)
@settings(max_examples=300)
@given(st.data())
def test_any_format_any_number_any_mode(data: st.DataObject) -> None:
    """Numbers of any bit pattern and any type round to a random format as the definition says, in every mode.

    A format that reaches beyond float64 is refused, and says so.
    """
    fmt, kind = data.draw(drawn_formats()), data.draw(st.sampled_from(KINDS))
    x = np.array(data.draw(st.lists(inputs(fmt, kind), min_size=1, max_size=8)), kind)
    if not taken(fmt):
        with pytest.raises(InputError, match="has values beyond float64, or fewer exact bits there"):
            encode(x, fmt)
        return
    assert_kernel_is_reference(fmt, x, data.draw)
