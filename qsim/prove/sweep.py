"""The result of a rounding for every bit pattern of a float, in exact integers: runs of one result, and where words carry.

Within a sign a rounding is a step function of the pattern, with one step a code. Here it is around 1, to nearest even,
where E4M3 steps by 1/8 and the codes go ... 0x38, 0x39, 0x3a:

    pattern   3f78....  3f800000      3f880000        3f900000      3f980000        3fa00000
    value        ...       1          1 + 1/16         1 + 1/8      1 + 3/16         1 + 1/4
    result    ---------- 0x38 -----------] [------------ 0x39 ------------) [--------- 0x3a ---

A midpoint belongs to the even code: to 0x38 on the left, to 0x3a on the right. `tiles` finds these steps for any grid and
deterministic mode: `reference.away` says at which fraction of an interval the mode turns, and the first pattern at or above
that point follows from the values of the format, integers times powers of two. Stochastic rounding chooses between two
results, and `intervals` says how far each pattern is on its way from one to the other, so that the rules below count the
words that go outward.

Nothing here is shared with `qsim.kernels`, and nothing here need be believed: `disagreement` and `carry_disagreement` ask
the reference at both ends of each run. As it is monotone, a result that is right at both ends of a run is right
between them. `searched` finds the same runs by that alone, one number at a time; a list of values has no other way.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from fractions import Fraction
from typing import Any, NamedTuple

import numba
import numpy as np
from numpy import uint64
from numpy.typing import NDArray

from qsim import reference
from qsim.errors import InputError
from qsim.formats import Format, Grid, catalogue
from qsim.kernels.parameters import Carrier
from qsim.prove.specification import FLOAT32, FLOAT64
from qsim.rounding import Mode, Saturation

__all__ = [
    "DETERMINISTIC", "GOING_OUT", "Intervals", "Tiles", "carry_disagreement", "directed", "disagreement", "expected",
    "floats", "intervals", "named", "results", "searched", "tiles", "unheld", "widened",
]  # fmt: skip

DETERMINISTIC = tuple(mode for mode in Mode if not mode.stochastic and mode is not Mode.THR)
"""The deterministic modes that take no number."""

Integers = NDArray[np.int64]
Words = NDArray[np.uint64]

config: Any = numba.config  # Numba is typed in part
if config.DISABLE_JIT:
    raise InputError("NUMBA_DISABLE_JIT is set, and theorems walk through inputs by compiled functions; unset it")


def named(carrier: Carrier = FLOAT32) -> list[Grid]:
    """Return the formats of up to 16 bits that `carrier` holds and that have a name of their own: not P3109's family."""
    formats = (fmt for fmt in catalogue().values() if fmt.bits <= 16 and "{K}" not in fmt.family)
    return [fmt for fmt in formats if isinstance(fmt, Grid) and carrier.holds(fmt)]


def unheld(carrier: Carrier = FLOAT32) -> list[Format]:
    """Return the formats as of `named` to which `carrier` cannot be rounded: lists, grids with a gap, and too wide a range."""
    return [
        fmt for fmt in catalogue().values() if fmt.bits <= 16 and "{K}" not in fmt.family and not carrier.holds(fmt)
    ]


# --- Values and patterns as integers -----------------------------------------------------------------------


class Line(NamedTuple):
    """Hold the ordinals from 0 to the one beyond the range: |value| = m 2^k, whether odd, and codes by sign."""

    m: Integers
    k: Integers
    odd: NDArray[np.bool_]
    codes: tuple[Integers, Integers]


@functools.lru_cache(maxsize=4)
def line(fmt: Format) -> Line:
    """Return the values of the format, and one beyond the larger end; ordinals that a sign lacks have no code (0)."""
    count = max(fmt.top, fmt.bottom) + 2
    m, k = np.zeros(count, np.int64), np.zeros(count, np.int64)
    for n in range(1, count):
        over, under = fmt.value(n).as_integer_ratio()
        low = (over & -over).bit_length() - 1
        m[n], k[n] = over >> low, low - (under.bit_length() - 1)
    k[0] = k[1]
    positive, negative = (
        np.array([fmt.code(sign * n) if 1 <= n <= limit else 0 for n in range(count)])
        for sign, limit in ((1, fmt.top), (-1, fmt.bottom))
    )
    return Line(m, k, np.array([fmt.is_odd(n) for n in range(count)]), (positive, negative))


def between(fmt: Format, nu: Fraction) -> tuple[Integers, Integers]:
    """Return m and k of V_n + nu (V_(n+1) - V_n) for n = 0, 1, ..."""
    m, k, *_ = line(fmt)
    unit = np.minimum(k[:-1], k[1:])
    lower, upper = m[:-1] << (k[:-1] - unit), m[1:] << (k[1:] - unit)
    return lower * nu.denominator + nu.numerator * (upper - lower), unit - (nu.denominator.bit_length() - 1)


def first_pattern(m: Integers, k: Integers, carrier: Carrier, *, inclusive: bool = True) -> Integers:
    """Return the first pattern of a magnitude that is at least m 2^k, or, if not `inclusive`, greater; 0 <= m < 2^53.

    In the binade of 2^e numbers step by 2^(e - fraction_bits), in the lowest one and below it by the smallest subnormal.
    Beyond the largest number it is the pattern of infinity.
    """
    least = 1 - carrier.bias
    exponent = np.where(m, np.maximum(np.frexp(m.astype(np.float64))[1] - 1 + k, least), least)
    places = k - (exponent - carrier.fraction_bits)
    left, right = np.clip(places, 0, 62), np.clip(-places, 0, 62)
    steps = (m << left) >> right
    exact = (steps << right) >> left == m
    pattern = (exponent - least << carrier.fraction_bits) + steps
    first: Integers = np.minimum(pattern + (~exact | (not inclusive)), carrier.infinity)
    return first


def floats(patterns: Any, carrier: Carrier) -> list[float]:
    """Return the numbers that have these patterns."""
    with np.errstate(invalid="ignore"):  # of signalling NaNs
        numbers: list[float] = np.asarray(patterns).astype(carrier.word).view(carrier.dtype).astype(np.float64).tolist()
    return numbers


# --- Results, as the reference gives them --------------------------------------------------------------------


def asked(
    x: float | Fraction, fmt: Format, mode: Mode, saturation: Saturation, carrier: Carrier, **given: Any
) -> tuple[int, int]:
    """Return pattern and code of the reference's result for `x`, without random bits; NaNs get a sign if one is `given`."""
    code = reference.encode(x, fmt, mode, saturation=saturation, sr_bits=0, **given)
    decoded = fmt.decode(code)
    if not math.isnan(decoded):
        return carrier.pattern(decoded), code
    negative = given.get("nan", "canonical") != "canonical" and fmt.has_neg_zero and bool(code >> (fmt.bits - 1))
    return carrier.nan | negative << (carrier.width - 1), code


def results(
    fmt: Format, mode: Mode, saturation: Saturation, carrier: Carrier, *, negative: bool, **given: Any
) -> tuple[Words, Words]:
    """Return patterns and codes of all possible results for the numbers of one sign.

    That is the zero, the values 1, 2, ... of the range, and the results of an overflow, an infinity and a NaN.
    """
    m, k, _, codes = line(fmt)
    sign, limit = (-1 if negative else 1), range_end(fmt, negative=negative)
    beyond = sign * fmt.value(limit + 1)
    special = np.array(
        [
            asked(x, fmt, mode, saturation, carrier, **given)
            for x in (math.copysign(0.0, sign), beyond, sign * math.inf, math.copysign(math.nan, sign))
        ],
        np.uint64,
    )
    inside = first_pattern(m[1 : limit + 1], k[1 : limit + 1], carrier).astype(np.uint64)
    inside |= uint64(negative << (carrier.width - 1))
    patterns, numbers = (
        np.concatenate([special[:1, kind], values, special[1:, kind]])
        for kind, values in enumerate((inside, codes[negative][1 : limit + 1].astype(np.uint64)))
    )
    return patterns, numbers


def range_end(fmt: Format, *, negative: bool) -> int:
    """Return the largest |ordinal| of one sign; 0 where it has no values."""
    return max(fmt.bottom if negative else fmt.top, 0)


def chosen(first: Words, carrier: Carrier, sample: int | None) -> Integers:
    """Return which of the runs that begin at `first` to look at: all, or five at each end of a sign and a `sample`."""
    if sample is None or first.size <= sample + 20:
        return np.arange(first.size)
    middle = int(np.searchsorted(first, 1 << (carrier.width - 1)))
    near = (*range(5), *range(middle - 5, middle + 5), *range(first.size - 5, first.size))
    others = np.random.default_rng(0).integers(0, first.size, sample)
    return np.array(sorted({n for n in near if n < first.size} | set(others.tolist())))


# --- Deterministic rounding --------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, eq=False)
class Tiles:
    """Hold all patterns of `carrier` as runs of one result each: its pattern `value` and its `code`.

    `value` is a pattern of the carrier too, but for tiles that are `widened`.
    """

    carrier: Carrier
    first: Words
    value: Words
    code: Words

    @property
    def last(self) -> Words:
        """The last pattern of each run."""
        return np.append(self.first[1:] - uint64(1), uint64((1 << self.carrier.width) - 1))


def turn(mode: Mode, *, odd: bool, negative: bool, eps: float = 0.0) -> tuple[Fraction, bool]:
    """Return the fraction from which on `reference.away` goes outward, and whether it does so at that fraction itself.

    It is asked at, and just above, the fractions with which a mode may compare.
    """
    just = Fraction(1, 1 << 100)
    for at in sorted({Fraction(0), Fraction(1, 2), Fraction(eps), 1 - Fraction(eps)} - {Fraction(1)}):
        for inclusive, nu in ((True, at), (False, at + just)):
            if reference.away(mode, nu, odd, negative, eps=eps):
                return at, inclusive
    return Fraction(1), True


@functools.lru_cache(maxsize=8)
def starts(fmt: Format, mode: Mode, carrier: Carrier, eps: float, *, negative: bool) -> Words:
    """Return where the magnitudes of one sign begin to have each of the `results`; some have no number at all."""
    limit = range_end(fmt, negative=negative)
    odd = line(fmt).odd[: limit + 1]
    found = np.zeros(limit + 4, np.int64)
    for parity in (False, True):
        at, inclusive = turn(mode, odd=parity, negative=negative, eps=eps)
        outward = first_pattern(*between(fmt, at), carrier, inclusive=inclusive)[: limit + 1]
        np.copyto(found[1:-2], outward, where=odd == parity)
    found[-2:] = carrier.infinity, carrier.infinity + 1
    return found.astype(np.uint64)


def tiles(
    fmt: Format, mode: Mode, saturation: Saturation, carrier: Carrier = FLOAT32, *, eps: float = 0.0, **given: Any
) -> Tiles:
    """Return the results of a deterministic mode for every pattern of `carrier`, which holds the values of the grid `fmt`.

    `eps`, that of Threshold, has at most 24 fraction bits; `given` may be `nan`. Under `wrap` all that is beyond the range
    has the result of the first ordinal there, which is not its result.
    """
    parts = [
        (
            starts(fmt, mode, carrier, eps, negative=negative) + uint64(negative << (carrier.width - 1)),
            *results(fmt, mode, saturation, carrier, negative=negative, **given),
        )
        for negative in (False, True)
    ]
    first, value, code = (np.concatenate(both) for both in zip(*parts, strict=True))
    some = np.append(first[1:] > first[:-1], True)
    return Tiles(carrier, first[some], value[some], code[some])


def searched(fmt: Format, mode: Mode, saturation: Saturation) -> Tiles:
    """Return the tiles of all float32, found by asking the reference: between two numbers of one result there is no other.

    That holds of the numbers of one sign, the zero apart, as the reference is monotone. Halving goes on between two numbers
    of different results until they are neighbours. NaNs, of either sign, are one tile; `value` is as in `widened`.
    """

    @functools.cache
    def code(u: int) -> int:
        (x,) = floats([u], FLOAT32)
        return reference.encode(x, fmt, mode, saturation=saturation)

    first = []
    for sign in (0, 1 << 31):
        low, high, nan = sign + 1, sign + FLOAT32.infinity - 1, sign + FLOAT32.infinity + 1
        first += [low - 1, low, high + 1, nan]
        pending = [(low, high)]
        while pending:
            low, high = pending.pop()
            if code(low) == code(high):
                continue
            middle = (low + high) // 2
            pending += [(low, middle), (middle + 1, high)]
            if code(middle) != code(middle + 1):
                first.append(middle + 1)
    first.sort()
    return _of_codes(fmt, np.array(first, np.uint64), np.array([code(u) for u in first], np.uint64))


def widened(found: Tiles, fmt: Format) -> Tiles:
    """Return tiles of float32 whose values are patterns of float64, as a kernel returns them that widens its input."""
    return _of_codes(fmt, found.first, found.code)


def _of_codes(fmt: Format, first: Words, code: Words) -> Tiles:
    values = fmt.values()[code]
    patterns = np.where(np.isnan(values), uint64(FLOAT64.nan), values.view(np.uint64))
    return Tiles(FLOAT32, first, patterns, code)


def disagreement(
    found: Tiles, fmt: Format, mode: Mode, saturation: Saturation, sample: int | None = None, **given: Any
) -> str | None:
    """Return where tiles are not as the definition says, or `None`.

    All values are held against those of their codes; the reference is asked for the codes at both ends of all tiles, or of a
    `sample` and of those with zeros, the ends of the range, infinities and NaNs.
    """
    decoded = fmt.values()[found.code].astype(found.carrier.dtype)
    minus = found.value & uint64(1 << (found.carrier.width - 1))  # values have no NaN with a sign; results may
    values = np.where(np.isnan(decoded), minus | uint64(found.carrier.nan), decoded.view(found.carrier.word))
    for k in np.flatnonzero(values != found.value)[:1]:
        return f"{fmt}: code {found.code[k]:#x} has the value of pattern {values[k]:#x}, not {found.value[k]:#x}"
    some = chosen(found.first, found.carrier, sample)
    for patterns in (found.first[some], found.last[some]):
        numbers = floats(patterns, found.carrier)
        for x, u, code in zip(numbers, patterns.tolist(), found.code[some].tolist(), strict=True):
            right = reference.encode(x, fmt, mode, saturation=saturation, **given)
            if right != code:
                return f"{fmt}, {mode}, {saturation}: code {code:#x} for {x!r} (pattern {u:#x}); the reference has {right:#x}"
    return None


def directed(fmt: Format, carrier: Carrier = FLOAT32, count: int = 1 << 12) -> Words:
    """Return the patterns that a rounding is most likely to get wrong, of both signs, in ascending order.

    They are the values of the format, one beyond, and the midpoints between them, or where these are no numbers of the
    carrier the next above: each with the pattern below it and two above; likewise the powers of two, and with them the ends
    of the subnormals and of the carrier's range; infinities, and NaNs with payloads; and `count` others at random.
    """
    m, k, *_ = line(fmt)
    random = np.random.default_rng(1)
    top = 1 << carrier.width - 1
    nans = [carrier.infinity + 1, carrier.nan - 1, carrier.nan, carrier.nan + 0x1234, top - 1]
    fields = np.arange(2 * carrier.bias + 2) << carrier.fraction_bits
    centres = np.concatenate(
        [first_pattern(m, k, carrier), first_pattern(*between(fmt, Fraction(1, 2)), carrier), fields]
    )
    near = (centres[:, np.newaxis] + np.arange(-1, 3)).reshape(-1)
    lowest, highest = (int(first_pattern(m[[n]], k[[n]], carrier)[0]) for n in (1, -1))
    others = np.concatenate(
        [random.integers(0, top, count // 2), random.integers(lowest // 2, highest, count - count // 2)]
    )
    magnitudes = np.sort(np.concatenate([near[(near >= 0) & (near < top)], nans, others])).astype(np.uint64)
    magnitudes = magnitudes[np.append(True, magnitudes[1:] != magnitudes[:-1])]
    return np.concatenate([magnitudes, magnitudes + uint64(top)])


def expected(found: Tiles, patterns: Words) -> tuple[Words, Words]:
    """Return the patterns of the values and the codes that the tiles give to `patterns`, which ascend."""
    lengths = np.diff(np.searchsorted(patterns, found.first), append=patterns.size)
    return np.repeat(found.value, lengths), np.repeat(found.code, lengths)


# --- Stochastic rounding -----------------------------------------------------------------------------------


class Intervals(NamedTuple):
    """Hold all patterns as runs between two neighbours in which they step evenly, `first` .. `last`.

    Pattern u is `offset` + u - `first` steps beyond the inner neighbour, and from that it is 2^`width` steps to the outer
    one. Where no word matters, as beyond the range, both have the same result.
    """

    first: Words
    last: Words
    offset: Words
    width: Words
    inner_value: Words
    inner_code: Words
    outer_value: Words
    outer_code: Words


WIDEST = 60
"""Of 2^60 steps or more none of a significand of 24 bits is worth a half of the last of 32 random bits."""


def intervals(fmt: Format, saturation: Saturation, carrier: Carrier = FLOAT32) -> Intervals:
    """Return the neighbours of every pattern of `carrier`, which holds the values of the grid `fmt`, and how far it is.

    They are the same for all stochastic modes: none of these keeps an overflow inside. From a value V_n > 0 to the next the
    numbers step evenly, since no power of two lies between the two; below V_1 each binade of the carrier is a run of its own.
    """
    bits, least = carrier.fraction_bits, 1 - carrier.bias
    m, k, *_ = line(fmt)
    grid = first_pattern(m, k, carrier)
    smallest = int(grid[1])
    rows = []
    for negative in (False, True):
        sign, limit = negative << (carrier.width - 1), range_end(fmt, negative=negative)
        value, code = results(fmt, Mode.SRA, saturation, carrier, negative=negative)
        binades = np.arange((smallest - 1 >> bits) + 1)
        begin = binades << bits
        end = np.minimum(begin + (1 << bits), smallest)
        step = least + np.maximum(binades - 1, 0) - bits
        below = (begin, end, np.where(binades, 1 << bits, 0), k[1] - step, 0 * begin, 0 * begin + 1)
        n = np.arange(1, limit + 1)
        width = np.log2(np.maximum(grid[n + 1] - grid[n], 1)).astype(np.int64)
        inside = (grid[n], grid[n + 1], 0 * n, width, n, n + 1)
        outside = np.array([
            (grid[limit + 1], carrier.infinity, 0, WIDEST, limit + 1, limit + 1),
            (carrier.infinity, carrier.infinity + 1, 0, WIDEST, limit + 2, limit + 2),
            (carrier.infinity + 1, 1 << carrier.width - 1, 0, WIDEST, limit + 3, limit + 3),
        ]).T  # fmt: skip
        begin, end, offset, width, inner, outer = (
            np.concatenate(parts) for parts in zip(below, inside, outside, strict=True)
        )
        some = end > begin
        row = (begin + sign, end - 1 + sign, offset, np.minimum(width, WIDEST), value[inner], code[inner], value[outer],
               code[outer])  # fmt: skip
        rows.append([column[some].astype(np.uint64) for column in row])
    return Intervals(*(np.concatenate(both) for both in zip(*rows, strict=True)))


Rule = Callable[[Any, Any, Any], Any]
"""Counts the words of n bits that take a number z of 2^d steps outward: the n of z, d, n. They are the largest words."""


@numba.njit(nogil=True)
def words_a(z: Any, d: Any, n: Any) -> Any:
    """Floor(nu 2^N) + R >= 2^N: that many words as the floor says."""
    return uint64(uint64(z << n) >> d)


@numba.njit(nogil=True)
def words_b(z: Any, d: Any, n: Any) -> Any:
    """Floor(nu 2^(N+1)) + 2R + 1 >= 2^(N+1): half of the floor and one, rounded down."""
    floor = uint64(uint64(z << uint64(n + uint64(1))) >> d)
    return uint64(uint64(floor + uint64(1)) >> uint64(1))


@numba.njit(nogil=True)
def words_c(z: Any, d: Any, n: Any) -> Any:
    """Nearest(nu 2^N) + R >= 2^N, ties to even: that many words as the integer says."""
    scaled = uint64(z << n)
    floor = uint64(scaled >> d)
    twice = uint64(uint64(scaled - uint64(floor << d)) << uint64(1))
    whole = uint64(uint64(1) << d)
    up = twice > whole or (twice == whole and uint64(floor & uint64(1)) == uint64(1))
    return uint64(floor + uint64(1)) if up else floor


@numba.njit(nogil=True)
def words_e(z: Any, d: Any, n: Any) -> Any:  # noqa: ARG001 - how far it is does not matter
    """2R >= 2^N and nu > 0: half of the words, or none."""
    return uint64(uint64(1) << uint64(n - uint64(1))) if z > uint64(0) else uint64(0)


GOING_OUT: Mapping[Mode, Rule] = {
    Mode.SRA: words_a, Mode.SR: words_a, Mode.SRB: words_b, Mode.SRC: words_c, Mode.SRE: words_e,
}  # fmt: skip


def carry_disagreement(
    found: Intervals, fmt: Format, mode: Mode, n: int, saturation: Saturation, sample: int | None = None
) -> str | None:
    """Return where the reference does not carry at the word of `n` bits that `GOING_OUT` says, or `None`.

    It is asked at that word and at the one below, at both ends of all intervals of float32 or of those that `chosen` says.
    """
    some = chosen(found.first, FLOAT32, sample)
    for patterns in (found.first[some], found.last[some]):
        steps = patterns - found.first[some] + found.offset[some]
        for x, k, z in zip(floats(patterns, FLOAT32), some.tolist(), steps, strict=True):
            words = int(GOING_OUT[mode](z, found.width[k], uint64(n)))
            where = f"{fmt}, {mode}, {saturation}: {words} words of {n} bits at {x!r}"
            if words > 1 << n:
                return f"{where}; there are fewer"
            at = (1 << n) - words
            for word, code in ((at - 1, int(found.inner_code[k])), (at, int(found.outer_code[k]))):
                if 0 <= word < 1 << n:
                    right = reference.encode(x, fmt, mode, saturation=saturation, sr_bits=n, rbits=word)
                    if right != code:
                        return f"{where}; with {word:#x} the reference gives code {right:#x}, not {code:#x}"
    return None
