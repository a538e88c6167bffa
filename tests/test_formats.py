"""Every code of every format: its value, its ordinal and its neighbours, and the landmarks of the range."""

from __future__ import annotations

import dataclasses
import functools
import math
import pickle
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from strategies import (
    BIASED,
    CATALOGUE,
    FAR_TABLES,
    FIXED,
    FLOAT64,
    GAPPED,
    NAMED,
    P3109,
    PARAMETRIC,
    SMALL,
    TABLES,
    UNSIGNED,
    WIDE_P3109,
    formats,
    ordinals,
    rounded_in,
)

from qsim import encode, quantize
from qsim.errors import InputError
from qsim.formats import Format, Grid, catalogue, get_format

GROUPS = {
    "named": NAMED,
    "P3109": P3109,
    "spelled": [fmt for fmt in (*PARAMETRIC, *UNSIGNED, *BIASED) if fmt.bits <= 10],
    "fixed": [fmt for fmt in FIXED if fmt.bits <= 16],
    "lines": [*TABLES, *FAR_TABLES, *GAPPED],
}
by_group = pytest.mark.parametrize("group", GROUPS.values(), ids=GROUPS)


@functools.cache
def finite(fmt: Format) -> np.ndarray:
    """Return the finite values of `fmt` in ascending order, zero once."""
    table = fmt.values()
    return np.unique(table[np.isfinite(table)])


# --- Every code of every format --------------------------------------------------------------------------------------


def in_order(fmt: Format) -> np.ndarray:
    """Return the codes of the ordinals -bottom .. top."""
    return np.array([fmt.code(ordinal) for ordinal in range(-fmt.bottom, fmt.top + 1)])


@by_group
def test_ordinals_are_the_order(group: list[Format]) -> None:
    """The codes of the ordinals -bottom .. top, in this order, have all the finite values in ascending order."""
    for fmt in group:
        values = fmt.values()[in_order(fmt)]
        assert (np.diff(values) > 0).all(), fmt
        assert np.array_equal(values, finite(fmt)), fmt


@pytest.mark.parametrize(
    "group",
    [
        *GROUPS.values(),
        pytest.param(WIDE_P3109[::7], id="some wide P3109"),
        pytest.param(WIDE_P3109, marks=pytest.mark.exhaustive, id="wide P3109"),
    ],
    ids=[*GROUPS, None, None],
)
def test_codes_round_trip(group: list[Format]) -> None:
    """Every value is encoded as its code, and the middle of two values has these two as its neighbours, for all codes."""
    for fmt in group:
        if not rounded_in(FLOAT64, fmt) or fmt in FAR_TABLES:
            continue
        values = fmt.values()
        codes = np.flatnonzero(~np.isnan(values))
        rule = "SatNone" if fmt.has_inf else None
        assert np.array_equal(encode(values[codes], fmt, saturation=rule), codes), fmt
        grid = np.unique(values[np.isfinite(values)])
        middle = grid[:-1] / 2 + grid[1:] / 2
        between = (grid[:-1] < middle) & (middle < grid[1:]) & (fmt.has_zero | (middle != 0))
        assert between.all() or fmt.name in {"neighbours", "binary"}
        low, high = (quantize(middle, fmt, mode) for mode in ("RDN", "RUP"))
        assert np.array_equal(low[between], grid[:-1][between]), fmt
        assert np.array_equal(high[between], grid[1:][between]), fmt


def check_codes(fmt: Format, step: int) -> None:
    """Hold every `step`-th ordinal, and all beside zero and the ends, against the sorted values."""
    grid = finite(fmt).tolist()
    near = {end + by for end in (0, -fmt.bottom, fmt.top) for by in range(-2, 3)}
    for ordinal in sorted({*range(-fmt.bottom, fmt.top + 1, step), *near} & {*range(-fmt.bottom, fmt.top + 1)}):
        at = ordinal + fmt.bottom
        value, exact = grid[at], Fraction(grid[at])
        code = fmt.code(ordinal)
        assert fmt.decode(code) == value
        assert fmt.value(ordinal) == exact
        assert fmt.ordinal(value) == fmt.ordinal(exact) == ordinal
        assert fmt.split(exact) == (ordinal, 0)
        assert fmt.neighbours(value) == (value, value)
        assert fmt.is_odd(ordinal) == bool(code % 2)
        assert fmt.is_code(code)
        if at + 1 < len(grid):
            above = Fraction(grid[at + 1])
            for weight in (Fraction(1, 2), Fraction(1, 1 << 80), 1 - Fraction(1, 1 << 80)):
                x = exact + weight * (above - exact)
                assert fmt.neighbours(x) == (value, grid[at + 1])
                inner, nu = (ordinal, weight) if x >= 0 else (ordinal + 1, 1 - weight)
                assert fmt.split(x) == (inner, nu)


@by_group
def test_ordinals_and_neighbours(group: list[Format]) -> None:
    """Each value has its ordinal, code and exact value; what is between two has both as neighbours, and a fraction.

    For all values of the named formats of up to 8 bits, and of others of up to 5, else some twenty and those at the edges.
    """
    whole = 8 if len(group) < 120 else 5
    for fmt in group:
        check_codes(fmt, 1 if fmt.bits <= whole else len(finite(fmt)) // 20 + 1)


@pytest.mark.exhaustive
@pytest.mark.parametrize("fmt", {f.name: f for group in GROUPS.values() for f in group}.values(), ids=str)
def test_all_ordinals_and_neighbours(fmt: Format) -> None:
    """The same for all values."""
    check_codes(fmt, 1)


@by_group
def test_signed_zeros(group: list[Format]) -> None:
    """-0 has a code of its own where the format tells it from +0, and is the plain zero elsewhere."""
    for fmt in group:
        zeros = np.flatnonzero(fmt.values() == 0).tolist()
        signs = [math.copysign(1, fmt.decode(code)) for code in zeros]
        assert signs == ([1, -1] if fmt.has_neg_zero else [1] * fmt.has_zero), fmt
        if fmt.has_zero:
            assert zeros == [fmt.code(0), fmt.code(0, negative_zero=True)][: len(zeros)], fmt


@by_group
def test_landmarks(group: list[Format]) -> None:
    """Largest, smallest and smallest positive values, eps and the special codes are those of the table of values."""
    for fmt in group:
        table, grid = fmt.values(), finite(fmt)
        assert (fmt.min, fmt.max) == (grid[0], grid[-1])
        assert fmt.signed == (grid[0] < 0)
        assert fmt.has_zero == (0 in grid)
        if (grid > 0).any():
            assert fmt.smallest_subnormal == grid[grid > 0][0]
        if 1 in grid and fmt.max > 1:
            assert fmt.eps == grid[grid > 1][0] - 1, fmt
        elif fmt.kind == "table" or fmt.max <= 1:
            assert math.isnan(fmt.eps)
        if isinstance(fmt, Grid):
            assert fmt.emax == math.frexp(fmt.max)[1] - 1
        if fmt.kind == "float" and not fmt.gap:  # the even part of the grid, from zero on, has 2^m steps
            assert fmt.smallest_normal == fmt.smallest_subnormal * 2**fmt.man_bits
        below = [fmt.is_subnormal(ordinal) for ordinal in range(fmt.top + 1)]
        assert sum(below) == (sum((grid > 0) & (grid < fmt.smallest_normal)) if fmt.kind == "float" else 0)
        unused = np.isnan(table) & (np.arange(table.size) != fmt.nan_code)
        assert fmt.has_nan == (fmt.nan_code is not None)
        assert fmt.has_nan or [fmt.is_code(code) for code in range(table.size)] == (~unused).tolist()
        assert fmt.has_inf == bool(np.isinf(table).any()) == (fmt.inf_code is not None)
        assert fmt.nan_code is None or math.isnan(table[fmt.nan_code])
        assert fmt.inf_code is None or table[fmt.inf_code] == math.inf
        if fmt.has_nan:
            assert math.isnan(fmt.decode(fmt.code_of_nan(negative=True)))
        if fmt.has_inf:
            expected = -math.inf if fmt.signed else math.inf
            assert fmt.decode(fmt.code_of_inf(negative=True)) == expected


@given(st.data())
def test_neighbours_by_search(data: st.DataObject) -> None:
    """The neighbours of a number are the ones that a search of the sorted values finds, itself where it is one."""
    fmt = data.draw(st.sampled_from([fmt for group in GROUPS.values() for fmt in group]))
    x = data.draw(st.floats(fmt.min, fmt.max))
    grid = finite(fmt)
    lower, upper = fmt.neighbours(x)
    assert lower == grid[np.searchsorted(grid, x, "right") - 1]
    assert upper == grid[np.searchsorted(grid, x, "left")]


@given(st.data())
def test_splitting_is_exact(data: st.DataObject) -> None:
    """The inner ordinal and the fraction give back the number exactly, also beyond the range where the line goes on."""
    fmt = data.draw(formats())
    at = ordinals(fmt)
    if data.draw(st.booleans()):
        ends = [float(max(min(fmt.value(n), 10**300), -(10**300))) for n in (at.start, at.stop)]
        x = Fraction(data.draw(st.floats(*ends)))
    else:
        n = data.draw(st.integers(at.start, at.stop - 1))
        low, high = fmt.value(n), fmt.value(n + 1)
        x = low + (high - low) * data.draw(st.fractions(0, 1))
    ordinal, nu = fmt.split(x)
    assert 0 <= nu < 1
    inner = fmt.value(ordinal)
    if nu:
        outer = fmt.value(ordinal + (-1 if x < 0 else 1))
        assert x == inner + nu * (outer - inner)
        assert (inner - x) * (outer - x) < 0
    else:
        assert x == inner


def test_what_has_no_place_is_refused() -> None:
    """NaN, infinities, numbers off the grid or beyond the range, and codes that are too large are refused by name."""
    fmt = get_format("e4m3")
    for value in (math.nan, math.inf, -math.inf, 0.1, 480.0, -480.0, Fraction(1, 3), Fraction(10) ** 400):
        with pytest.raises(InputError, match="float8_e4m3fn"):
            fmt.ordinal(value)
    for value in (math.nan, math.inf, -math.inf, 448.5, -448.5, Fraction(10) ** 400):
        with pytest.raises(InputError, match="range"):
            fmt.neighbours(value)
    for code in (-1, 256):
        with pytest.raises(InputError, match=r"0 \.\. 255"):
            fmt.decode(code)
    with pytest.raises(InputError, match="16 bits"):
        get_format("tf32").values()
    for name in ("e8m0", "binary"):  # without a zero
        with pytest.raises(InputError, match="does not hold 0"):
            get_format(name).ordinal(0.0)
    with pytest.raises(InputError, match="range"):
        get_format("e8m0").neighbours(2.0**-128)
    assert get_format("binary").neighbours(0.0) == (-1.0, 1.0)


@pytest.mark.parametrize("name", ["Binary16p1ue", "Binary13p1sf", "e12m3fn", "e4m3b4000f"])
def test_formats_beyond_float64(name: str) -> None:
    """A format that reaches beyond float64 numbers and codes its values exactly, and refuses to give them as floats."""
    fmt = get_format(name)
    for ordinal in (1, 2, fmt.top // 2, fmt.top - 1, fmt.top):
        exact = fmt.value(ordinal)
        assert fmt.ordinal(exact) == ordinal
        assert fmt.split(exact * Fraction(1 + (1 << 80), 1 << 80))[0] == ordinal
        assert fmt.code(ordinal) == ordinal - (not fmt.has_zero)
    with pytest.raises(InputError, match=f"{name} reaches beyond the range of a float64"):
        fmt.decode_array(np.array([0]))
    for landmark in ("max", "smallest_subnormal", "smallest_normal"):
        try:
            value = Fraction(getattr(fmt, landmark))
        except InputError as error:
            assert "reaches beyond the range of a float64" in str(error)  # noqa: PT017 - it may also be in range
        else:
            assert fmt.value(fmt.ordinal(value)) == value > 0


# --- Objects ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("fmt", {fmt.name: fmt for fmt in (*CATALOGUE, *SMALL, *TABLES, *GAPPED)}.values(), ids=str)
def test_formats_are_values(fmt: Format) -> None:
    """A format cannot be changed, is equal to its pickled copy, and keys a dictionary."""
    with pytest.raises(dataclasses.FrozenInstanceError):
        fmt.bits = 3  # type: ignore[misc]
    copy = pickle.loads(pickle.dumps(fmt))  # noqa: S301 - made a moment ago
    assert copy == fmt
    assert {fmt: 1}[copy] == 1
    assert str(fmt) == fmt.name


def test_the_catalogue_cannot_be_changed() -> None:
    """Nobody can put a format into the catalogue that all share, or take one out."""
    known: dict = catalogue()  # type: ignore[assignment]
    with pytest.raises(TypeError, match="does not support item assignment"):
        known["mine"] = known["int8"]
    with pytest.raises(TypeError, match="does not support item deletion"):
        del known["int8"]
    assert catalogue() is known


def test_tables_cannot_be_changed() -> None:
    """The shared table of values is read-only."""
    for name in ("e4m3", "nf4", "Binary8p3se"):
        with pytest.raises(ValueError, match="read-only"):
            get_format(name).values()[0] = 1
