"""Rounding to a list of values in place of a grid: find the interval, and divide.

Only the discarded fraction is had in another way than in `core`; the addends are the same. With x between the
neighbours lo < hi, all in units of the last place of lo and hi, and d the distance from the inner neighbour (lo for x >= 0,
hi for x < 0), of which the part below the unit fills one word and the rest is dropped:

    d = integer . fraction word            hi - lo = D < 2^63
    f = floor(d 2^64 / D)                  long division by two digits of 32 bits

The remainder, and the dropped bits, say whether f is exact. Everything is in 64-bit words; float32 is widened before.

A deterministic mode need not divide each time. In the order of the numbers its result is a step function of the pattern;
`steps` finds where each step begins, by bisection with this kernel, and an array is then a search among them. Where a format
has thresholds, a rounding to nearest is one of the two directed modes on either side of each.
"""

from __future__ import annotations

import functools
import itertools
import math
from fractions import Fraction
from typing import Any, NamedTuple

import numpy as np
from numpy import int64, uint64
from numpy.typing import NDArray

from qsim.errors import InputError
from qsim.formats import Format, Table
from qsim.formats.format import Nans
from qsim.kernels.compiled import Array, fields_of, kernel, portable
from qsim.kernels.core import Addends, Stochastic, addend, eps_addend
from qsim.kernels.parameters import CARRIERS, addends, ends
from qsim.rounding import Mode, Saturation

__all__ = [
    "Line", "Steps", "line", "packed", "round_by_addends", "round_by_eps", "round_by_steps", "round_by_words", "steps",
]  # fmt: skip

FLOAT64 = CARRIERS[np.dtype(np.float64)]
ONE, BOTH, SIGN, LOW = uint64(1), uint64(3), uint64(1 << 63), uint64((1 << 32) - 1)
WORD32, WORD64 = uint64(32), uint64(64)
ROOM = 62
"""The neighbours of every interval are integers of at most this many bits, in units of their last place."""


class Line(NamedTuple):
    """Hold a line of values, with the ends and special values of `core.Parameters`."""

    fraction_bits: Any
    last: Any
    sign: Any
    inf: Any
    top: Any
    bottom: Any
    over_pos: Any
    over_neg: Any
    inf_pos: Any
    inf_neg: Any
    nan_pos: Any
    nan_neg: Any
    zero_pos: Any
    zero_neg: Any
    has_zero: Any
    # the points, in ascending order
    keys: Any  # their patterns, made to ascend as words
    patterns: Any
    odd: Any  # 1 where the code is odd
    first: Any  # numbers of the first and the last point that are values; the line may go on by one at either end
    final: Any
    # the intervals; number i lies between the points i and i + 1
    unit: Any  # position of the last place of its ends
    low: Any  # the ends, in units of that
    high: Any
    places: Any  # zeros above the top bit of their difference, in a word


class Steps(NamedTuple):
    """Hold a deterministic rounding as runs of one result, in the order of `order`: where each begins, and its pattern."""

    first: Any
    value: Any


@portable
def significand(a: Any, p: Any) -> Any:
    """Return the significand of |x| as an integer, hidden bit included; `a` is the pattern of |x|."""
    word = type(a)
    hidden = word(word(1) << p.fraction_bits)
    field = word(a & word(hidden - word(1)))
    return word(field | (hidden if a >= hidden else word(0)))


@portable
def discarded(m: Any, s: Any, p: Any) -> Any:
    """Return the fraction (m mod 2^s) / 2^s, its first bits filling a word; bits below the word are dropped.

    For s <= W - 1, with W the width, that is m << (W - s), in two shifts since s may be 0; above, m >> (s - W).
    """
    word = type(m)
    near = word(word(m << word(1)) << word(p.last - min(s, p.last)))
    beyond = word(max(s, word(p.last + word(1))) - word(p.last + word(1)))
    far = word(m >> min(beyond, p.last))
    return near if s <= p.last else far


@portable
def lost(m: Any, s: Any, p: Any) -> Any:
    """Return 1 if `discarded` dropped a set bit of m, which it can where s exceeds the word's width, else 0."""
    word = type(m)
    beyond = min(word(max(s, word(p.last + word(1))) - word(p.last + word(1))), p.last)
    return word(0) if word(word(m >> beyond) << beyond) == m else word(1)


@portable
def key(u: Any, p: Any) -> Any:
    """Return a word that ascends with the number whose pattern is `u`; both zeros have one."""
    word = type(u)
    a = word(u & word(p.sign - word(1)))
    return word(~u) if (u >= p.sign and a > word(0)) else word(a | p.sign)


@portable
def count_below(keys: Any, k: Any, ties: Any) -> Any:
    """Return how many of the ascending `keys` are below `k`, or equal to it where `ties` is 1."""
    low, high = 0, len(keys)
    while low < high:
        middle = (low + high) // 2
        inside = keys[middle] <= k if ties else keys[middle] < k
        low, high = (middle + 1, high) if inside else (low, middle)
    return low


@portable
def digit(high: Any, next_low: Any, size: Any) -> Any:
    """Return floor((high 2^32 + next_low) / size) and the remainder, for high < size with the top bit of `size` set.

    The first 32 bits of `size` give the digit, or one or two more (Knuth, TAOCP 2, 4.3.1, theorem B).
    """
    first, second = uint64(size >> WORD32), uint64(size & LOW)
    guess = uint64(high // first)
    rest = uint64(high - uint64(guess * first))
    while rest <= LOW and (guess > LOW or uint64(guess * second) > uint64(uint64(rest << WORD32) | next_low)):
        guess = uint64(guess - ONE)
        rest = uint64(rest + first)
    return guess, uint64(uint64(uint64(high << WORD32) | next_low) - uint64(guess * size))


@portable
def divide(d: Any, fraction: Any, size: Any, places: Any) -> Any:
    """Return floor((d + fraction / 2^64) 2^64 / size), for 0 <= d < size < 2^63, and whether a remainder is left.

    `places` moves the top bit of `size` to that of a word; long division by two digits of 32 bits.
    """
    divisor = uint64(size << places)
    high = uint64(uint64(d << places) | uint64(fraction >> uint64(WORD64 - places)))
    low = uint64(fraction << places)
    upper, rest = digit(high, uint64(low >> WORD32), divisor)
    lower, rest = digit(rest, uint64(low & LOW), divisor)
    return uint64(uint64(upper << WORD32) | lower), (ONE if rest > uint64(0) else uint64(0))


@portable
def round_bits(u: Any, even: Any, odd: Any, sticky: Any, p: Any) -> Any:
    """Return the pattern of the value that the float64 pattern `u` rounds to by the addends `even` and `odd`.

    Where the bit of `sticky` for that addend is set, the low one for `even`, x also goes up if f + r is the largest word and
    something was lost: on a grid nothing is lost of a fraction near a half, here every fraction may have a remainder.
    """
    word = type(u)
    a = word(u & word(p.sign - word(1)))
    negative = u >= p.sign and a > word(0)
    k = key(u, p)
    points = len(p.keys)
    inner = count_below(p.keys, k, 0) if negative else count_below(p.keys, k, 1) - 1
    interval = inner - 1 if negative else inner
    between = 0 <= interval < points - 1
    i = min(max(interval, 0), points - 2)
    # |x| in units of the interval: an integer, and the fraction word
    position = max(word(a >> p.fraction_bits), word(1))
    s = word(max(p.unit[i], position) - position)
    m = significand(a, p)
    whole = word(word(m << min(word(max(p.unit[i], position) - p.unit[i]), p.last)) >> min(s, p.last))
    d = word(whole + p.high[i]) if negative else word(whole - p.low[i])
    f, rest = divide(d, discarded(m, s, p), word(p.high[i] - p.low[i]), p.places[i])
    is_odd = p.odd[min(max(inner, 0), points - 1)]
    t = word(~(odd if is_odd > word(0) else even))
    more = word(word(rest | lost(m, s, p)) & word(sticky >> is_odd))
    up = f >= t if more > word(0) else f > t
    outward = (inner - 1 if negative else inner + 1) if up else inner
    # Not between two points, x is on the first or the last one, or beyond it.
    end = min(max(inner, 0), points - 1)
    above = inner == points if negative else inner >= 0
    beyond = end if p.keys[end] == k else (points if above else -1)
    reached = outward if between else beyond
    value = p.patterns[min(max(reached, 0), points - 1)]
    signed = value if value > word(0) else (p.zero_neg if u >= p.sign else p.zero_pos)
    ranged = p.over_pos if reached > p.final else (p.over_neg if reached < p.first else signed)
    settled = (p.zero_neg if u >= p.sign else p.zero_pos) if (a == word(0) and p.has_zero == word(0)) else ranged
    finite = (p.inf_neg if u >= p.sign else p.inf_pos) if a == p.inf else settled
    return (p.nan_neg if u >= p.sign else p.nan_pos) if a > p.inf else finite


SCALARS = 17
"""Fields of a `Line` that are no arrays."""


@portable
def line_of(words: Any, points: Any, intervals: Any) -> Any:
    """Return the `Line` that `packed` made these arrays of."""
    return Line(
        words[0], words[1], words[2], words[3], words[4], words[5], words[6], words[7], words[8], words[9], words[10],
        words[11], words[12], words[13], words[14], points[0], points[1], points[2], int64(words[15]), int64(words[16]),
        intervals[0], intervals[1], intervals[2], intervals[3],
    )  # fmt: skip


def packed(p: Line, *more: Any) -> tuple[NDArray[Any], NDArray[Any], NDArray[Any]]:
    """Return a line as three arrays: its words, which `more` follow, its points and its intervals."""
    words, last = p[:15], (p.first, p.final)
    return np.array([*words, *last, *more], np.uint64), np.stack(p[15:18]), np.stack(p[20:])


addends_of, stochastic_of = fields_of(Addends, SCALARS), fields_of(Stochastic, SCALARS)


@kernel()
def line_by_addends(x: Array, y: Array, words: Array, points: Array, intervals: Array) -> None:
    """Do as `round_by_addends`."""
    p, t = line_of(words, points, intervals), addends_of(words)
    for i in range(x.size):
        negative = x[i] >= p.sign
        even = t.even_neg if negative else t.even_pos
        odd = t.odd_neg if negative else t.odd_pos
        # With the largest word and with half - 1 any remainder carries; half and 0 stand for "from half on" and "never".
        sticky = uint64(uint64(even & ONE) | uint64(uint64(odd & ONE) << ONE))
        y[i] = round_bits(x[i], even, odd, sticky, p)


@portable
def order(u: Any) -> Any:
    """Return the place of the float64 pattern `u` among all: NaNs, numbers in ascending order, -0 before 0, NaNs."""
    return uint64(u ^ SIGN) if u < SIGN else uint64(~u)


def round_by_addends(x: NDArray[Any], y: NDArray[Any], t: Addends, p: Line) -> None:
    """Round every pattern of `x` into `y` with the same `Addends`: the deterministic modes."""
    line_by_addends(x, y, *packed(p, *t))


@kernel()
def line_by_steps(x: Array, y: Array, first: Array, value: Array) -> None:
    """Do as `round_by_steps`."""
    for i in range(x.size):
        place = order(x[i])
        low, size = 0, len(first)
        while size > 1:
            half = size // 2
            low += half if first[low + half] <= place else 0
            size -= half
        y[i] = value[low]


def round_by_steps(x: NDArray[Any], y: NDArray[Any], runs: Steps) -> None:
    """Round every pattern of `x` into `y` as the `Steps` say; the number of comparisons is the same for all."""
    line_by_steps(x, y, runs.first, runs.value)


@kernel()
def round_by_words(x: Array, random: Array, y: Array, words: Array, points: Array, intervals: Array) -> None:
    """Round `x` into `y` stochastically by a `packed` line and `Stochastic`, which selects the bits of `random[i]`."""
    p, source = line_of(words, points, intervals), stochastic_of(words)
    for i in range(x.size):
        r, sticky = addend(random[i], source)
        y[i] = round_bits(x[i], r, r, uint64(sticky * BOTH), p)


@kernel()
def round_by_eps(x: Array, eps: Array, y: Array, words: Array, points: Array, intervals: Array) -> None:
    """Round `x` into `y` by Threshold and a `packed` line; element i has the threshold `eps[i]` / 2^64."""
    p = line_of(words, points, intervals)
    for i in range(x.size):
        r, sticky = eps_addend(eps[i], x[i] >= p.sign)
        y[i] = round_bits(x[i], r, r, uint64(sticky * BOTH), p)


@functools.lru_cache(maxsize=1024)
def line(fmt: Format, saturation: Saturation, mode: Mode = Mode.RNE, *, nan: Nans = "canonical") -> Line:
    """Return the kernel's parameters for rounding float64 to `fmt`, any format of few values; `mode` as in `parameters`.

    Raise `InputError` if two neighbours differ too much in magnitude for the integers of the kernel.
    """
    words = ends(fmt, saturation, mode, nan=nan)._asdict()
    return Line(
        fraction_bits=np.uint64(FLOAT64.fraction_bits),
        last=np.uint64(FLOAT64.width - 1),
        sign=np.uint64(1 << (FLOAT64.width - 1)),
        inf=np.uint64(FLOAT64.infinity),
        top=np.uint64(FLOAT64.pattern(abs(fmt.max))),
        bottom=np.uint64(FLOAT64.pattern(abs(min(fmt.min, 0.0)))),
        **{name: np.uint64(FLOAT64.pattern(end)) for name, end in words.items()},
        has_zero=np.uint64(fmt.has_zero),
        **_points(fmt),
    )


@functools.lru_cache(maxsize=256)
def steps(fmt: Format, saturation: Saturation, mode: Mode, *, nan: Nans = "canonical") -> Steps:
    """Return a deterministic mode as steps; errors are those of `line`.

    Between two points, or a point and a zero, there are two results at most, and none comes back once it is left.
    """
    p = line(fmt, saturation, mode, nan=nan)

    def rounded(patterns: Any, by: Mode) -> Any:
        values = np.empty_like(patterns)
        round_by_addends(patterns, values, addends(by, FLOAT64.dtype), p)
        return values

    def at(places: Any) -> Any:
        patterns = np.where(places >= SIGN, places ^ SIGN, ~places)
        found = rounded(patterns, mode)
        if isinstance(fmt, Table) and fmt.thresholds and mode.nearest:
            between, up = _sides(fmt, mode, patterns.view(np.float64))
            chosen = np.where(up, rounded(patterns, Mode.RUP), rounded(patterns, Mode.RDN))
            found = np.where(between, chosen, found)
        return found

    inf, zero = int(p.inf), 1 << 63  # the places of numbers: pattern + 2^63, or less than it by pattern + 1
    special = [0, zero - 1 - inf, zero - inf, zero - 1, zero, zero + 1, zero + inf, zero + inf + 1]
    negative = p.patterns >= SIGN
    first = np.unique(np.append(np.where(negative, ~p.patterns, p.patterns ^ SIGN), np.array(special, np.uint64)))
    last = np.append(first[1:] - ONE, np.uint64(2**64 - 1))
    before, after = at(first), at(last)
    low, high = first, last
    while (low < high).any():
        middle = low + (high - low) // np.uint64(2)
        same = at(middle) == before
        low, high = np.where(same & (low < high), middle + ONE, low), np.where(same, high, middle)
    starts = np.concatenate([first, low[before != after]])
    starts.sort()
    value = at(starts)
    some = np.append(True, value[1:] != value[:-1])
    return Steps(starts[some], value[some])


@np.errstate(invalid="ignore")  # of signalling NaNs
def _sides(fmt: Table, mode: Mode, x: NDArray[np.float64]) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Return which of `x` lie between two values, and which of these go to the greater one, by thresholds."""
    turns = _turns(fmt, mode)
    interval = np.searchsorted(np.array(fmt.points), x, "right") - 1
    between = (interval >= 0) & (interval < turns.size)
    return between, x >= turns[np.where(between, interval, 0)]


@functools.lru_cache(maxsize=64)
def _turns(fmt: Table, mode: Mode) -> NDArray[np.float64]:
    """Return the least number between each two values that goes to the greater one, by a mode that rounds to nearest.

    A tie goes away from zero iff the addend for the parity of the inner neighbour is at least half a word.
    """
    t, found = addends(mode, FLOAT64.dtype), []
    for lower, turn in enumerate(fmt.thresholds, -fmt.bottom):
        odd = fmt.is_odd(lower + (turn < 0))
        away = ((t.odd_neg if odd else t.even_neg) if turn < 0 else (t.odd_pos if odd else t.even_pos)) >= SIGN
        found.append(turn if away != (turn < 0) else math.nextafter(turn, math.inf))
    return np.array(found)


@functools.lru_cache(maxsize=64)
def _points(fmt: Format) -> dict[str, Any]:
    """Return the fields of `Line` that are the same for every saturation and mode."""
    above = fmt.top + (not isinstance(fmt, Table) or fmt.above is not None)
    below = fmt.bottom + (not isinstance(fmt, Table) or fmt.below is not None)
    ordinals = range(-below, above + 1)
    values = [fmt.value(ordinal) for ordinal in ordinals]
    intervals = [_interval(fmt, *ends_of) for ends_of in itertools.pairwise(values)]
    unit, low, high = (np.array(column, np.uint64) for column in zip(*intervals, strict=True))
    # The point after the largest value may be 2^1024, for which the pattern of infinity stands.
    numbers = [float(value) if abs(value) < 2**1024 else math.inf if value > 0 else -math.inf for value in values]
    patterns = np.array(numbers).view(np.uint64)
    sign = np.uint64(1 << (FLOAT64.width - 1))
    return {
        "keys": np.where((patterns >= sign) & (patterns != sign), ~patterns, patterns | sign),
        "patterns": patterns,
        "odd": np.array([fmt.is_odd(ordinal) for ordinal in ordinals], np.uint64),
        "first": below - fmt.bottom,
        "final": below + fmt.top,
        "unit": unit,
        "low": low,
        "high": high,
        "places": np.array([64 - size.bit_length() for size in (high - low).tolist()], np.uint64),
    }


def _interval(fmt: Format, low: Fraction, high: Fraction) -> tuple[int, int, int]:
    """Return the position of the last place of two neighbours, and both in units of it, in two's complement."""
    unit = min(_last_place(end) for end in (low, high) if end)
    whole = [int(end / Fraction(2) ** unit) for end in (low, high)]
    if max(map(abs, whole)).bit_length() > ROOM:
        raise InputError(
            f"{fmt.name}: its values {float(low)!r} and {float(high)!r} are neighbours of too different magnitude for the "
            f"64-bit arithmetic of arrays; qsim.reference rounds to them"
        )
    return unit + FLOAT64.bias + FLOAT64.fraction_bits, whole[0] % 2**64, whole[1] % 2**64


def _last_place(value: Fraction) -> int:
    """Return the exponent of the last set bit of a dyadic number that is not zero."""
    return (value.numerator & -value.numerator).bit_length() - value.denominator.bit_length()
