"""The right answers for whole arrays: the rule of `qsim.reference`, in exact integers. No kernel has a part in it.

For each number the neighbours and the discarded fraction are found once. A deterministic mode then asks only where the
fraction lies among its breakpoints, and `reference.away` answers for each such place; a stochastic one goes away from zero
from one word on, which is an integer. What the two neighbours become, range and all, is the reference's answer for them.
"""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass
from fractions import Fraction
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from qsim import reference
from qsim.explain.case import Nan, landing
from qsim.formats import WIDEST_TABLE, Format, Grid, Table
from qsim.rounding import Flush, Mode, Saturation

__all__ = ["Expected", "Line", "Places", "expect", "line", "place", "tiny", "wide"]

Floats = NDArray[np.float64]

WIDE = 62
"""Random bits beyond which words are Python's integers: 2^N must fit an int64."""


class Line(NamedTuple):
    """Hold the points of a format's line, from one below the smallest value to one above the largest, where there are any."""

    #: The ordinal of the first point, and that of the last.
    first: int
    last: int
    points: Floats
    odd: NDArray[np.bool_]


class Places(NamedTuple):
    """Say where each of many finite numbers lies; a number beyond the line is at its end."""

    #: The number of the neighbour toward zero.
    ordinal: NDArray[np.int64]
    #: floor(nu 2^64), and whether nu 2^64 is no integer.
    word: NDArray[np.uint64]
    more: NDArray[np.bool_]
    odd: NDArray[np.bool_]
    negative: NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Expected:
    """Hold what each of many numbers may become: one of two codes, and which."""

    #: The codes if the number stays at its neighbour toward zero, and if it goes away from zero.
    inner: NDArray[np.int64]
    outer: NDArray[np.int64]
    #: The least word with which it goes away; for deterministic modes 0 or 1, the word being 0.
    first_word: NDArray[Any]
    #: The exact fraction, where it lies on the line, as in `Places`.
    places: Places


def wide(n: int) -> bool:
    """Return whether words of `n` bits are Python's integers in an array of objects."""
    return n > WIDE


# --- Where numbers lie -----------------------------------------------------------------------------------------------


@functools.lru_cache(maxsize=128)
def line(fmt: Format) -> Line:
    """Return the line of a format of up to 16 bits. Where a float64 does not reach, a point is an infinity."""
    if isinstance(fmt, Table):
        first, last = -fmt.bottom - (fmt.below is not None), fmt.top + (fmt.above is not None)
    else:
        first, last = min(-fmt.bottom - 1, -1), fmt.top + 1
    points = [_float(fmt.value(ordinal)) for ordinal in range(first, last + 1)]
    odd = [fmt.is_odd(ordinal) for ordinal in range(first, last + 1)]
    return Line(first, last, np.array(points), np.array(odd))


def _float(value: Fraction) -> float:
    try:
        held = float(value)
    except OverflowError:
        held = math.inf if value > 0 else -math.inf
    assert held == value or math.isinf(held)  # the values of the format are numbers of float64
    return held


def place(fmt: Format, x: Floats, *, wrap: bool = False) -> Places:
    """Return where the numbers `x` lie; NaN and infinities lie at 0.

    Beyond the line only the end is told, unless numbers `wrap` around: then their fractions matter there too.
    """
    finite = np.where(np.isfinite(x), x, 0.0)
    negative = np.signbit(x)
    if fmt.bits > WIDEST_TABLE:
        return _by_definition(fmt, finite, negative)
    known = line(fmt)
    lower = np.searchsorted(known.points, finite, "right") - 1
    upper = np.searchsorted(known.points, finite, "left")
    below, above = lower < 0, upper == known.points.size
    inner = np.clip(np.where(finite < 0, upper, lower), 0, known.points.size - 1)
    outer = np.clip(np.where(finite < 0, lower, upper), 0, known.points.size - 1)
    inside = ~(below | above)
    word, more, sure = _fractions(finite, known.points[inner], known.points[outer])
    word[~inside], more[~inside] = 0, False
    odd = known.odd[inner]
    held = np.isfinite(known.points[inner]) & np.isfinite(known.points[outer])
    for i in np.flatnonzero(inside & ~sure & held).tolist():
        start, end, here = (_units(v.item()) for v in (known.points[inner[i]], known.points[outer[i]], finite[i]))
        word[i], left = divmod(abs(here - start) << 64, abs(end - start))
        more[i] = left > 0
    for i in np.flatnonzero(inside & ~held).tolist():
        _, nu = fmt.split(Fraction(finite[i].item()))
        word[i], left = divmod(nu.numerator << 64, nu.denominator)
        more[i] = left > 0
    for i in np.flatnonzero(~inside & wrap).tolist():
        steps, rest, unit = _steps(fmt, finite[i].item())
        word[i], left = divmod(rest << 64, unit)
        more[i], odd[i] = left > 0, steps % 2 == 1
    # A table may end with its last value: the next ordinal then stands for all that is beyond.
    closed = isinstance(fmt, Table)
    ordinal = inner.astype(np.int64) + known.first
    ordinal = np.where(below, -fmt.bottom - 1 if closed else known.first, ordinal)
    ordinal = np.where(above, fmt.top + 1 if closed else known.last, ordinal)
    return Places(ordinal, word, more, odd, negative)


def _units(value: float) -> int:
    """Return a float64 as an integer, in units of the smallest one."""
    over, under = value.as_integer_ratio()
    return over * ((1 << 1074) // under)


def _steps(fmt: Format, x: float) -> tuple[int, int, int]:
    """Return how many spacings of an even grid are in |x|, what is left, and the spacing, as `_units`."""
    assert isinstance(fmt, Grid)  # only integers and fixed point wrap around
    unit = 1 << (1074 + fmt.lsb)
    return *divmod(_units(abs(x)), unit), unit


@np.errstate(all="ignore")  # where a difference is not exact, it is not used
def _fractions(
    x: Floats, inner: Floats, outer: Floats
) -> tuple[NDArray[np.uint64], NDArray[np.bool_], NDArray[np.bool_]]:
    """Return nu = (x - inner) / (outer - inner) as a word and a flag, and where this is sure to be exact.

    It is where both differences are (their rounding errors are computed, and are 0) and the interval is a power of two.
    """
    d, d_exact = _difference(x, inner)
    gap, gap_exact = _difference(outer, inner)
    half, exponent = np.frexp(np.abs(gap))
    scaled = np.ldexp(np.abs(d), 65 - exponent)  # nu 2^64, since |gap| is 2^(exponent - 1)
    tiny = (d != 0) & (scaled < 2.0**-900)
    on_grid = inner == outer
    sure = on_grid | (d_exact & gap_exact & (half == 0.5) & ~tiny & (scaled < 2.0**64))
    scaled = np.where(sure & ~on_grid, scaled, 0.0)
    whole = np.floor(scaled)
    return whole.astype(np.uint64), scaled != whole, sure


def _difference(a: Floats, b: Floats) -> tuple[Floats, NDArray[np.bool_]]:
    """Return a - b, and whether it is exact, by the error term of Knuth's TwoSum."""
    s = a - b
    back = s - a
    error = (a - (s - back)) + (-b - back)
    return s, (error == 0) & np.isfinite(s)


def _by_definition(fmt: Format, x: Floats, negative: NDArray[np.bool_]) -> Places:
    """Ask the format itself for each different number: of a wide format there is no list."""
    known, at = np.unique(x, return_inverse=True)
    first, last = min(-fmt.bottom - 1, -1), fmt.top + 1
    ordinal, odd = np.empty(known.size, np.int64), np.empty(known.size, bool)
    word, more = np.empty(known.size, np.uint64), np.empty(known.size, bool)
    for i, value in enumerate(known.tolist()):
        number, nu = fmt.split(Fraction(value))
        word[i], left = divmod(nu.numerator << 64, nu.denominator)
        more[i], odd[i] = left > 0, fmt.is_odd(number)
        ordinal[i] = min(max(number, first), last)
    return Places(ordinal[at], word[at], more[at], odd[at], negative)


def tiny(fmt: Format, x: Floats, flush: Flush | Literal[False]) -> NDArray[np.bool_]:
    """Return which numbers are flushed to zero whichever way they would go, so that they are not rounded at all."""
    if flush not in ("before", "after") or not isinstance(fmt, Grid) or fmt.even:
        return np.zeros(x.size, bool)
    normal, below = _float(fmt.value(fmt.first_normal)), fmt.below_normal
    above = float(below) if float(below) > below else math.nextafter(float(below), math.inf)
    least = normal if flush == "before" else above
    return np.asarray((np.abs(x) > 0) & (np.abs(x) < least))


def _decided(fmt: Format, x: Floats, at: Places, mode: Mode, flush: Flush | Literal[False]) -> Places:
    """Return the places of numbers as the mode has them, which may not measure its fractions on the format's own line.

    Rounded to nearest, a list may turn elsewhere than in the middle; and what is flushed after it is rounded has all its bits
    next to the smallest normal number.
    """
    if isinstance(fmt, Table) and fmt.thresholds and mode.nearest:
        these = (x > fmt.points[0]) & (x < fmt.points[-1]) & ((at.word > 0) | at.more)
    elif flush == "after" and isinstance(fmt, Grid) and not fmt.even:
        these = (np.abs(at.ordinal) == fmt.first_normal - 1) & np.isfinite(x) & (x != 0)
    else:
        return at
    word, more, odd = at.word.copy(), at.more.copy(), at.odd.copy()
    for i in np.flatnonzero(these).tolist():
        _, odd[i], nu = reference.locate(fmt, Fraction(x[i].item()), mode, flush)
        word[i], left = divmod(nu.numerator << 64, nu.denominator)
        more[i] = left > 0
    return at._replace(word=word, more=more, odd=odd)


# --- Which way they go -----------------------------------------------------------------------------------------------


def _away(mode: Mode, eps: float, at: Places) -> NDArray[np.bool_]:
    """Return which way a deterministic mode goes: `reference.away`, asked once for each place between its breakpoints."""
    e = Fraction(eps)
    turns = sorted({Fraction(0), e, 1 - e} - {Fraction(1)} if mode is Mode.THR else {Fraction(0), Fraction(1, 2)})
    words = np.array([int(turn * 2**64) for turn in turns], np.uint64)  # exact: eps is a multiple of 2^-64
    last = np.searchsorted(words, at.word, "right") - 1
    between = (at.word != words[last]) | at.more
    samples = [
        turn
        for here, after in zip(turns, [*turns[1:], Fraction(1)], strict=True)
        for turn in (here, (here + after) / 2)
    ]
    table = [
        [[reference.away(mode, nu, odd, negative, eps=eps) for negative in (False, True)] for odd in (False, True)]
        for nu in samples
    ]
    ways: NDArray[np.bool_] = np.array(table)[2 * last + between, at.odd.astype(int), at.negative.astype(int)]
    return ways


def _first_word(mode: Mode, n: int, at: Places, nus: list[Fraction] | None) -> NDArray[Any]:
    """Return the least word of `n` bits with which each number goes away from zero, 2^n where none does.

    SRA: R >= 2^n - floor(nu 2^n). SRC: instead of the floor the nearest integer, ties to even. SRB: with f = floor(nu 2^(n+1)),
    2R >= 2^(n+1) - 1 - f, that is R >= 2^n - (f + 1) div 2. `nus` are the fractions themselves, where 64 bits are too few.
    """
    whole: int = 1 << n
    if nus is not None:
        halves = [math.floor(nu * 2 * whole) if mode is Mode.SRB else round(nu * whole) for nu in nus]
        up = [(f + 1) // 2 for f in halves] if mode is Mode.SRB else halves
        return np.array([whole - u for u in up], object)
    if mode is Mode.SRE:
        ways = np.array([whole, max(whole // 2, 1)], object if wide(n) else np.int64)
        return np.asarray(ways[((at.word > 0) | at.more).astype(int)])
    if wide(n):  # StochasticA alone
        return np.array([whole - (word >> (64 - n)) for word in at.word.tolist()], object)
    floor = (at.word >> np.uint64(64 - n) if n else np.zeros_like(at.word)).astype(np.int64)
    rest, half = at.word << np.uint64(n), np.uint64(1 << 63)  # nu 2^n less its floor, as a word
    if mode is Mode.SRB:
        return np.asarray(whole - floor - (rest >= half))
    if mode is Mode.SRC:
        return np.asarray(whole - floor - ((rest > half) | ((rest == half) & (at.more | (floor % 2 == 1)))))
    return np.asarray(whole - floor)


# --- What they become ------------------------------------------------------------------------------------------------


@functools.lru_cache(maxsize=256)
def _ends(fmt: Format, mode: Mode, rule: Saturation, nan: str, *, ftz_out: Flush | Literal[False]) -> NDArray[np.int64]:
    """Return the codes of all points of a line, range and all: a row for positive numbers, and one for negative ones."""
    first, last = min(-fmt.bottom - 1, -1), fmt.top + 1
    rows = [
        [_land(fmt, mode, rule, nan, ordinal, negative=negative, ftz_out=ftz_out) for ordinal in range(first, last + 1)]
        for negative in (False, True)
    ]
    return np.array(rows, np.int64)


def _land(
    fmt: Format, mode: Mode, rule: Saturation, nan: str, ordinal: int, *, negative: bool,
    ftz_out: Flush | Literal[False],
) -> int:  # fmt: skip
    """Return the code of a number, negative or not, that was rounded to `ordinal`."""
    inside = -fmt.bottom <= ordinal <= fmt.top
    if inside and not ftz_out and (ordinal or isinstance(fmt, Table)):
        return fmt.code(ordinal)
    landed = landing(fmt, ordinal, negative=negative)
    return reference.encode(landed, fmt, mode, sr_bits=1, saturation=rule, ftz_out=ftz_out, nan=nan)


def _codes(
    fmt: Format, mode: Mode, rule: Saturation, nan: str, at: Places, steps: Any, *,
    ftz_out: Flush | Literal[False],
) -> NDArray[np.int64]:  # fmt: skip
    """Return the codes of numbers that were rounded `steps` ordinals away from zero."""
    ordinal = at.ordinal + steps * np.where(at.negative, -1, 1)
    first, last = min(-fmt.bottom - 1, -1), fmt.top + 1
    ordinal = np.clip(ordinal, first, last)
    if fmt.bits <= WIDEST_TABLE:
        table: NDArray[np.int64] = _ends(fmt, mode, rule, nan, ftz_out=ftz_out)[
            at.negative.astype(int), ordinal - first
        ]
        return table
    found = np.empty(ordinal.size, np.int64)
    for negative in (False, True):
        these = at.negative == negative
        known, back = np.unique(ordinal[these], return_inverse=True)
        codes = [_land(fmt, mode, rule, nan, number, negative=negative, ftz_out=ftz_out) for number in known.tolist()]
        found[these] = np.array(codes, np.int64)[back]
    return found


def expect(
    fmt: Format,
    mode: Mode,
    rule: Saturation,
    x: Floats,
    at: Places,
    *,
    n: int = 0,
    eps: float = 0.0,
    ftz_out: Flush | Literal[False] = False,
    nan: Nan = "canonical",
) -> Expected:
    """Return what the numbers `x`, which lie `at`, become by the mode; `n` is the number of random bits.

    `nan` "any" gives the canonical one. A NaN that the format refuses gives the code -1.
    """
    at = _decided(fmt, x, at, mode, ftz_out)
    sign = "canonical" if nan == "any" else nan
    inner = _codes(fmt, mode, rule, sign, at, 0, ftz_out=ftz_out)
    outer = _codes(fmt, mode, rule, sign, at, 1, ftz_out=ftz_out)
    if mode.stochastic:
        deep = mode in (Mode.SRB, Mode.SRC) and wide(n)
        finite = np.where(np.isfinite(x), x, 0.0).tolist() if deep else []
        nus = [reference.locate(fmt, Fraction(v), mode, ftz_out)[2] for v in finite] if deep else None
        first_word = _first_word(mode, n, at, nus)
    else:
        first_word = 1 - _away(mode, eps, at).astype(np.int64)
    if rule is Saturation.wrap:
        _wrap(fmt, x, inner, outer)
    flushed = tiny(fmt, x, ftz_out)
    for special in [*_specials(fmt, x), flushed & ~np.signbit(x), flushed & np.signbit(x)]:
        if not special.any():
            continue
        value = float(x[special][0])
        refused = math.isnan(value) and fmt.nan_to == "error"
        code = (
            -1 if refused else reference.encode(value, fmt, mode, sr_bits=1, saturation=rule, ftz_out=ftz_out, nan=sign)
        )
        inner[special] = outer[special] = code
    return Expected(inner, outer, first_word, at)


def _wrap(fmt: Format, x: Floats, inner: NDArray[np.int64], outer: NDArray[np.int64]) -> None:
    """Put in the codes of numbers beyond the range: the low bits of their integers."""
    mask = (1 << fmt.bits) - 1
    beyond = np.isfinite(x) & ((x > fmt.max) | (x < fmt.min))
    for i in np.flatnonzero(beyond).tolist():
        steps, rest, _ = _steps(fmt, x[i].item())
        sign = 1 if x[i] > 0 else -1
        inner[i], outer[i] = sign * steps & mask, sign * (steps + (rest > 0)) & mask


def _specials(fmt: Format, x: Floats) -> list[NDArray[np.bool_]]:
    """Return the masks of inputs that are not rounded, those of one answer together."""
    sign = np.signbit(x)
    kinds = [np.isnan(x) & sign, np.isnan(x) & ~sign, np.isposinf(x), np.isneginf(x)]
    kinds += [] if fmt.has_zero else [(x == 0) & sign, (x == 0) & ~sign]
    return [kind for kind in kinds if kind.any()]
