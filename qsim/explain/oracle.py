"""The right answers for whole arrays: the rule of `qsim.reference`, in exact integers. No kernel has a part in it.

For each number the neighbour toward zero and the discarded fraction are found once. A deterministic mode then asks only where
the fraction lies among its breakpoints, and `reference.away` answers for each such place; a stochastic one goes away from zero
from one word on, which is an integer. The codes of points inside the range follow from their ordinals; those of zeros, of
flushed values and of numbers beyond the range are the reference's.
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
from qsim.errors import InputError
from qsim.explain.case import Nan, code_of_value, is_code, landing, value_of
from qsim.formats import WIDEST_TABLE, Format, Grid, Table
from qsim.rounding import Flush, Mode, Saturation, parse_saturation

__all__ = [
    "Expected", "Line", "Part", "Places", "away", "code_of", "decided", "decode", "divide", "encode_values", "ends",
    "expect", "first_word", "is_nan_code", "land", "line", "log2", "place", "points_at", "quantize", "spacing", "tiny",
    "wide",
]  # fmt: skip

Floats = NDArray[np.float64]
Flags = NDArray[np.bool_]
Codes = NDArray[np.int64]

WIDE = 62
"""Random bits beyond which words are Python's integers: 2^N must fit an int64."""

FAR = 61
"""Points of a grid are counted exactly up to 2^61; of a number beyond, the low 61 bits of its count are right."""


class Line(NamedTuple):
    """Hold the points of a format's line, from one below the smallest value to one above the largest, where there are any."""

    #: The ordinal of the first point, and that of the last.
    first: int
    last: int
    points: Floats
    odd: Flags


class Part(NamedTuple):
    """Hold fractions in [0, 1) exactly enough for every mode with words of up to 64 bits."""

    #: floor(nu 2^64).
    word: NDArray[np.uint64]
    #: What is left of nu 2^64: 0 nothing, 1 less than a half, 2 a half, 3 more.
    tail: NDArray[np.uint8]

    @property
    def more(self) -> Flags:
        """Whether nu 2^64 is no integer."""
        return np.asarray(self.tail > 0)

    @property
    def zero(self) -> Flags:
        """Whether nu is 0."""
        return np.asarray((self.word == 0) & (self.tail == 0))


@dataclass(frozen=True, slots=True)
class Places:
    """Say where each of many finite numbers lies."""

    #: The number of the neighbour toward zero: on a grid also beyond the range, on the line of a table up to its end.
    ordinal: NDArray[np.int64]
    #: The fraction of the way to the next point away from zero.
    nu: Part
    odd: Flags
    negative: Flags

    def __getitem__(self, chosen: Any) -> Places:
        """Return where some of the numbers lie."""
        nu = Part(self.nu.word[chosen], self.nu.tail[chosen])
        return Places(self.ordinal[chosen], nu, self.odd[chosen], self.negative[chosen])


@dataclass(frozen=True, slots=True)
class Expected:
    """Hold the possible answers for each of many numbers: one or two codes, and the words of each."""

    #: The codes if the number stays at its neighbour toward zero, and if it goes away from zero.
    inner: Codes
    outer: Codes
    #: The least word with which it goes away; for deterministic modes 0 or 1, the word being 0.
    first_word: NDArray[Any]
    #: Where it lies as the mode has it, see `decided`, and by distance.
    places: Places
    placed: Places

    def __getitem__(self, chosen: Any) -> Expected:
        """Return the possible answers for some of the numbers."""
        return Expected(
            self.inner[chosen], self.outer[chosen], self.first_word[chosen], self.places[chosen], self.placed[chosen]
        )


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


def place(fmt: Format, x: NDArray[Any]) -> Places:
    """Return where the numbers `x` lie; NaN and infinities lie at 0. `x` is float64, or holds objects, rationals too."""
    if x.dtype == object:
        return _by_definition(fmt, x)
    finite = np.where(np.isfinite(x), x, np.copysign(0.0, x))
    return _on_grid(fmt, finite) if isinstance(fmt, Grid) else _in_table(fmt, finite)


def divide(x: NDArray[Any], exponent: Any) -> tuple[NDArray[np.int64], Part]:
    """Return |x| / 2^exponent, for an exponent each or one for all: its integer part, and the rest.

    Beyond 2^61 the integer part is 2^61 plus its own remainder modulo 2^61. `x` is finite.
    """
    if x.dtype == object:
        quotients = [abs(Fraction(v)) / _power(q) for v, q in zip(x, np.broadcast_to(exponent, x.shape), strict=True)]
        steps = np.array([q.numerator // q.denominator for q in quotients], object)
        return _counted(steps), _part([q - math.floor(q) for q in quotients])
    size, (_, power) = np.abs(x), np.frexp(x)
    tiny = power - exponent < -65
    far = (power - exponent > FAR + 53) & (size > 0)  # then the low 61 bits of the count are 0
    scaled = np.ldexp(np.where(tiny | far, 0.0, size), -exponent)
    whole = np.floor(scaled)
    rest = np.ldexp(scaled - whole, 64)  # exact: both end where x ends
    word = np.floor(rest)
    over = rest - word
    tail = np.where(over == 0, 0, np.where(over < 0.5, 1, np.where(over == 0.5, 2, 3)))
    tail = np.where(tiny & (size > 0), 1, tail)
    count = np.fmod(whole, 2.0**FAR).astype(np.int64) + np.where(far | (whole >= 2.0**FAR), 1 << FAR, 0)
    return count, Part(word.astype(np.uint64), tail.astype(np.uint8))


def _counted(steps: NDArray[Any]) -> NDArray[np.int64]:
    """Return integers of any size as `divide` counts them."""
    far = 1 << FAR
    return np.array([int(s) if s < far else far + int(s) % far for s in steps], np.int64)


def _part(fractions: list[Fraction]) -> Part:
    word, tail = [], []
    for nu in fractions:
        whole, rest = divmod(nu.numerator << 65, nu.denominator)
        word.append(whole >> 1)
        tail.append((whole & 1) << 1 | (rest > 0))
    return Part(np.array(word, np.uint64), np.array(tail, np.uint8))


def _power(exponent: Any) -> Fraction:
    exponent = int(exponent)
    return Fraction(1 << exponent) if exponent >= 0 else Fraction(1, 1 << -exponent)


def log2(x: NDArray[Any]) -> NDArray[np.int64]:
    """Return floor(log2 |x|) of numbers other than 0; anything for 0."""
    if x.dtype != object:
        return np.asarray(np.frexp(x)[1].astype(np.int64) - 1)
    found = []
    for value in x:
        over, under = abs(Fraction(value)).as_integer_ratio()
        guess = over.bit_length() - under.bit_length()
        found.append(guess - (_power(guess) > abs(Fraction(value))))
    return np.array(found, np.int64)


def spacing(fmt: Grid, x: NDArray[Any]) -> NDArray[np.int64]:
    """Return the exponents of the spacings of a grid, without its gap, at the numbers `x`, in its range or beyond."""
    even = np.full(x.shape, fmt.lsb)
    return even if fmt.even else np.where(x == 0, even, np.maximum(log2(x) - fmt.man_bits, even))


def _on_grid(fmt: Grid, x: Floats) -> Places:
    """Return where numbers lie on a grid, by arithmetic: `Grid.split` for arrays."""
    negative, exponent = np.signbit(x), spacing(fmt, x)
    steps, nu = divide(x, exponent)
    number = steps + ((exponent - fmt.lsb) << fmt.man_bits)
    if fmt.gap:
        between = (number >= fmt.gap_at) & (number <= fmt.gap_at + fmt.gap)
        number = np.where(number > fmt.gap_at + fmt.gap, number - fmt.gap, number)
        exact = _by_definition(fmt, x[between].astype(object))
        number[between] = np.abs(exact.ordinal)
        nu.word[between], nu.tail[between] = exact.nu
    ordinal = np.where(negative, -number, number)
    odd = (ordinal != 0) & ((ordinal - (not fmt.has_zero)) % 2 == 1)
    return Places(ordinal, nu, odd, negative)


def _in_table(fmt: Format, x: Floats) -> Places:
    """Return where numbers lie on the line of a table; one beyond it has the first ordinal that no value has."""
    known = line(fmt)
    lower = np.searchsorted(known.points, x, "right") - 1
    upper = np.searchsorted(known.points, x, "left")
    below, above = lower < 0, upper == known.points.size
    inner = np.clip(np.where(x < 0, upper, lower), 0, known.points.size - 1)
    outer = np.clip(np.where(x < 0, lower, upper), 0, known.points.size - 1)
    inside = ~(below | above)
    word, more, sure = _fractions(x, known.points[inner], known.points[outer])
    word[~inside], tail = 0, np.where(inside, more, 0).astype(np.uint8)
    rest = np.flatnonzero(inside & ~sure)
    word[rest], tail[rest] = _divided(x[rest], known.points[inner[rest]], known.points[outer[rest]])
    # A table may end with its last value: the next ordinal then stands for all that is beyond.
    ordinal = inner.astype(np.int64) + known.first
    ordinal = np.where(below, -fmt.bottom - 1, np.where(above, fmt.top + 1, ordinal))
    return Places(ordinal, Part(word, tail), known.odd[inner], np.signbit(x))


def _divided(x: Floats, inner: Floats, outer: Floats) -> Part:
    """Return nu = (x - inner) / (outer - inner), in Python's integers."""
    word, tail = [], []
    for here, start, end in zip(*(values.tolist() for values in (x, inner, outer)), strict=True):
        (a, p), (b, q), (c, r) = (value.as_integer_ratio() for value in (here, start, end))
        unit = max(p, q, r)  # powers of two
        low = b * (unit // q)
        whole, left = divmod(abs(a * (unit // p) - low) << 65, abs(c * (unit // r) - low))
        word.append(whole >> 1)
        tail.append((whole & 1) << 1 | (left > 0))
    return Part(np.array(word, np.uint64), np.array(tail, np.uint8))


@np.errstate(all="ignore")  # where a difference is not exact, it is not used
def _fractions(x: Floats, inner: Floats, outer: Floats) -> tuple[NDArray[np.uint64], NDArray[np.uint8], Flags]:
    """Return nu = (x - inner) / (outer - inner) as a word and a tail, and where this is sure to be exact.

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
    over = scaled - whole
    tail = np.where(over == 0, 0, np.where(over < 0.5, 1, np.where(over == 0.5, 2, 3)))
    return whole.astype(np.uint64), tail.astype(np.uint8), sure


def _difference(a: Floats, b: Floats) -> tuple[Floats, Flags]:
    """Return a - b, and whether it is exact, by the error term of Knuth's TwoSum."""
    s = a - b
    back = s - a
    error = (a - (s - back)) + (-b - back)
    return s, (error == 0) & np.isfinite(s)


def _by_definition(fmt: Format, x: NDArray[Any]) -> Places:
    """Ask the format itself for each number, which may be any rational; NaN and infinities are taken for 0."""
    negative = np.array([math.copysign(1.0, v) < 0 if isinstance(v, float) else v < 0 for v in x], bool)
    split = [fmt.split(Fraction(v) if not isinstance(v, float) or math.isfinite(v) else Fraction(0)) for v in x]
    size = _counted(np.array([abs(number) for number, _ in split], object))
    ordinal = np.where([number < 0 for number, _ in split], -size, size)
    odd = np.array([fmt.is_odd(number) for number, _ in split], bool)
    return Places(ordinal, _part([nu for _, nu in split]), odd, negative)


def tiny(fmt: Format, x: NDArray[Any], flush: Flush | Literal[False]) -> Flags:
    """Return which numbers are flushed to zero whichever way they would go, so that they are not rounded at all."""
    if flush not in ("before", "after") or not isinstance(fmt, Grid) or fmt.even:
        return np.zeros(x.size, bool)
    normal, below = fmt.value(fmt.first_normal), fmt.below_normal
    if x.dtype == object or float(normal) != normal or float(below) != below:
        finite = [abs(Fraction(v)) if not isinstance(v, float) or math.isfinite(v) else Fraction(0) for v in x.tolist()]
        return np.array([0 < v < normal if flush == "before" else 0 < v <= below for v in finite], bool)
    size = np.abs(x)
    return np.asarray((size > 0) & (size < float(normal) if flush == "before" else size <= float(below)))


def decided(fmt: Format, x: NDArray[Any], at: Places, mode: Mode, flush: Flush | Literal[False]) -> Places:
    """Return the places of numbers as the mode has them: `reference.locate` for arrays. `at` is where they lie by distance.

    Rounded to nearest, a table may turn elsewhere than in the middle; and a number flushed after it is rounded has all its bits
    next to the smallest normal number.
    """
    if isinstance(fmt, Table) and fmt.thresholds and mode.nearest:
        return Places(at.ordinal, _to_thresholds(fmt, x, at), at.odd, at.negative)
    if flush != "after" or not isinstance(fmt, Grid) or fmt.even:
        return at
    finite = np.array([not isinstance(v, float) or math.isfinite(v) for v in x.tolist()], bool)
    these = (np.abs(at.ordinal) == fmt.first_normal - 1) & finite
    near = _part([reference.locate(fmt, Fraction(v), mode, flush)[2] for v in x[these].tolist()])
    word, tail, odd = at.nu.word.copy(), at.nu.tail.copy(), at.odd.copy()
    word[these], tail[these] = near
    odd[these] = not fmt.is_odd(fmt.first_normal)
    return Places(at.ordinal, Part(word, tail), odd, at.negative)


def _to_thresholds(fmt: Table, x: NDArray[Any], at: Places) -> Part:
    """Return the fractions of the ways to the thresholds of a table, of which each is one half, and on from there."""
    inner, outer = at.ordinal, at.ordinal + np.where(at.negative, -1, 1)
    turn = np.minimum(inner, outer) + fmt.bottom
    these = np.flatnonzero(~at.nu.zero & (turn >= 0) & (turn < len(fmt.thresholds)))
    word, tail = at.nu.word.copy(), at.nu.tail.copy()
    turns = np.array(fmt.thresholds)[turn[these]].tolist()
    ends = (points_at(fmt, ordinal[these]).tolist() for ordinal in (inner, outer))
    for i, here, start, end, middle in zip(these.tolist(), x[these].tolist(), *ends, turns, strict=True):
        ratios = [value.as_integer_ratio() for value in (here, start, end, middle)]
        unit = math.lcm(*(under for _, under in ratios))
        here_, start_, end_, middle_ = (over * (unit // under) for over, under in ratios)
        first, last, gap = abs(middle_ - start_), abs(end_ - middle_), abs(end_ - here_)
        if abs(here_ - start_) <= first:
            whole, left = divmod(abs(here_ - start_) << 64, first)
        else:
            whole, left = divmod(2 * last - gap << 64, last)
        word[i], tail[i] = whole >> 1, (whole & 1) << 1 | (left > 0)
    return Part(word, tail)


# --- Which way they go -----------------------------------------------------------------------------------------------


def away(mode: Mode, eps: float, at: Places) -> Flags:
    """Return which way a deterministic mode goes: `reference.away`, asked once for each place between its breakpoints."""
    words, table = _ways(mode, eps)
    last = np.searchsorted(words, at.nu.word, "right") - 1
    between = (at.nu.word != words[last]) | at.nu.more
    ways: Flags = table[2 * last + between, at.odd.astype(int), at.negative.astype(int)]
    return ways


@functools.lru_cache(maxsize=128)
def _ways(mode: Mode, eps: float) -> tuple[NDArray[np.uint64], Flags]:
    """Return the breakpoints of a mode, as words, and which way it goes at each and after it, by parity and by sign."""
    e = Fraction(eps)
    turns = sorted({Fraction(0), e, 1 - e} - {Fraction(1)} if mode is Mode.THR else {Fraction(0), Fraction(1, 2)})
    samples = [
        turn
        for here, after in zip(turns, [*turns[1:], Fraction(1)], strict=True)
        for turn in (here, (here + after) / 2)
    ]
    table = [
        [[reference.away(mode, nu, odd, negative, eps=eps) for negative in (False, True)] for odd in (False, True)]
        for nu in samples
    ]
    words = np.array([int(turn * 2**64) for turn in turns], np.uint64)  # exact: eps is a multiple of 2^-64
    return words, np.array(table)


def first_word(mode: Mode, n: int, nu: Part) -> NDArray[Any]:
    """Return the least word of `n` bits with which each number goes away from zero, 2^n where none does.

    SRA: R >= 2^n - floor(nu 2^n). SRC: instead of the floor the nearest integer, ties to even. SRB: with f = floor(nu 2^(n+1)),
    2R >= 2^(n+1) - 1 - f, that is R >= 2^n - (f + 1) div 2.
    """
    whole: int = 1 << n
    if mode is Mode.SRE:
        ways = np.array([whole, max(whole // 2, 1)], object if wide(n) else np.int64)
        return np.asarray(ways[(~nu.zero).astype(int)])
    if wide(n):
        places = nu.word.astype(object) * 2 + (nu.tail >> 1)  # floor(nu 2^65)
        floor, rest = places >> (65 - n), places & ((1 << (65 - n)) - 1)
        half, odd_tail = 1 << (64 - n), nu.tail % 2 == 1
    else:
        floor = (nu.word >> np.uint64(64 - n) if n else np.zeros_like(nu.word)).astype(np.int64)
        rest, half, odd_tail = nu.word << np.uint64(n), 1 << 63, nu.more  # nu 2^n less its floor, as a word
    if mode is Mode.SRB:
        return np.asarray(whole - floor - (rest >= half))
    if mode is Mode.SRC:
        return np.asarray(whole - floor - ((rest > half) | ((rest == half) & (odd_tail | (floor % 2 == 1)))))
    return np.asarray(whole - floor)


# --- What they become ------------------------------------------------------------------------------------------------


def code_of(fmt: Format, ordinal: NDArray[np.int64]) -> Codes:
    """Return `Format.code` of ordinals inside the range."""
    if isinstance(fmt, Table):
        return np.array(fmt.codes, np.int64)[np.clip(ordinal + fmt.bottom, 0, len(fmt.codes) - 1)]
    assert isinstance(fmt, Grid)  # there is no third kind of line
    if fmt.even:
        return np.asarray(ordinal & ((1 << fmt.bits) - 1))
    return np.asarray(np.where(ordinal < 0, 1 << (fmt.bits - 1), 0) | (np.abs(ordinal) - (not fmt.has_zero)))


def ends(fmt: Format) -> tuple[int, int]:
    """Return ordinals below and above the range, no subnormal ones, as which all others beyond the range are treated."""
    normal = fmt.first_normal if isinstance(fmt, Grid) else 1
    return -max(fmt.bottom + 1, normal), fmt.top + 1


def land(
    fmt: Format, mode: Mode, rule: Saturation, ordinal: NDArray[np.int64], negative: Flags, *,
    ftz_out: Flush | Literal[False] = False, nan: str = "canonical",
) -> Codes:  # fmt: skip
    """Return the codes of numbers, negative or not, that were rounded to the points `ordinal` of the line.

    All points of one kind (zero, flushed, below the range, above it) and of one sign have the same code: the reference's.
    """
    if rule is Saturation.wrap:
        return ordinal & ((1 << fmt.bits) - 1)
    codes = code_of(fmt, ordinal)
    kinds = [ordinal > fmt.top, ordinal < -fmt.bottom]
    if isinstance(fmt, Grid):
        if ftz_out:
            kinds.append((np.abs(ordinal) < fmt.first_normal) & ((ordinal >= -fmt.bottom) | (ftz_out == "after")))
        # In a format without zero it is below the range as well, but has a code of its own.
        kinds = [kind & (ordinal != 0) for kind in kinds] + [ordinal == 0]
    for kind in kinds:
        for sign in (False, True) if kind.any() else ():
            these = kind & (negative == sign)
            if these.any():
                low, high = ends(fmt)
                landed = landing(fmt, min(max(int(ordinal[these][0]), low), high), negative=sign)
                codes[these] = reference.encode(landed, fmt, mode, sr_bits=1, saturation=rule, ftz_out=ftz_out, nan=nan)
    return codes


def expect(
    fmt: Format,
    mode: Mode,
    rule: Saturation,
    x: NDArray[Any],
    at: Places,
    *,
    n: int = 0,
    eps: float = 0.0,
    ftz_out: Flush | Literal[False] = False,
    nan: Nan = "canonical",
) -> Expected:
    """Return the possible answers for numbers `x`, which lie `at`, by the mode; `n` is the number of random bits.

    `nan` "any" gives the canonical one. A NaN that the format refuses gives the code -1.
    """
    placed, at = at, decided(fmt, x, at, mode, ftz_out)
    sign = "canonical" if nan == "any" else nan
    outward = at.ordinal + np.where(at.negative, -1, 1)
    inner, outer = (
        land(fmt, mode, rule, ordinal, at.negative, ftz_out=ftz_out, nan=sign) for ordinal in (at.ordinal, outward)
    )
    first = first_word(mode, n, at.nu) if mode.stochastic else 1 - away(mode, eps, at).astype(np.int64)
    flushed = tiny(fmt, x, ftz_out)
    for special in [*_specials(fmt, x), flushed & at.negative, flushed & ~at.negative]:
        if not special.any():
            continue
        value = x[special][0]
        refused = isinstance(value, float) and math.isnan(value) and fmt.nan_to == "error"
        code = (
            -1 if refused else reference.encode(value, fmt, mode, sr_bits=1, saturation=rule, ftz_out=ftz_out, nan=sign)
        )
        inner[special] = outer[special] = code
    return Expected(inner, outer, first, at, placed)


def _specials(fmt: Format, x: NDArray[Any]) -> list[Flags]:
    """Return the masks of inputs that are not rounded, those of one answer together."""
    signs = x if x.dtype != object else [v if isinstance(v, float) else float(v != 0) for v in x]
    floats = np.asarray(signs, np.float64)
    sign = np.signbit(floats)
    kinds = [np.isnan(floats) & sign, np.isnan(floats) & ~sign, np.isposinf(floats), np.isneginf(floats)]
    kinds += [] if fmt.has_zero else [(floats == 0) & sign, (floats == 0) & ~sign]
    return kinds


def quantize(fmt: Format, x: Floats, mode: Mode) -> Floats:
    """Return the values that the numbers `x` become by a deterministic mode and the usual saturation."""
    found = expect(fmt, mode, parse_saturation(None, fmt), x, place(fmt, x))
    return np.asarray(decode(fmt, np.where(found.first_word == 0, found.outer, found.inner)))


# --- Codes and values ------------------------------------------------------------------------------------------------


def decode(fmt: Format, codes: Codes) -> NDArray[Any]:
    """Return the values of codes; NaN for an integer that is no code, or the code of no value.

    Where a value is beyond float64, all of them are Python's floats and rationals.
    """
    known = (codes >= 0) & (codes < 1 << fmt.bits)
    low = np.where(known, codes, 0)
    try:
        values = fmt.values()[low] if fmt.bits <= WIDEST_TABLE else fmt.decode_array(low)
    except InputError:  # reaches beyond float64
        return np.array([value_of(fmt, int(code)) if is_code(fmt, int(code)) else math.nan for code in codes], object)
    return np.where(known, values, np.nan)


def is_nan_code(fmt: Format, codes: Codes) -> Flags:
    """Return which integers are codes of a NaN."""
    if isinstance(fmt, Table):
        return np.asarray(codes == (-1 if fmt.nan_code is None else fmt.nan_code)) & (codes >= 0)
    values = decode(fmt, codes)
    return np.asarray((values != values) & (codes >= 0) & (codes < 1 << fmt.bits) & fmt.has_nan)  # noqa: PLR0124 - of objects


def points_at(fmt: Format, ordinal: NDArray[np.int64]) -> Floats:
    """Return the points of the line that `ordinal` numbers; NaN where a float64 does not reach.

    A grid goes on beyond its range. Beyond the end of a table is the end of float64.
    """
    if isinstance(fmt, Grid):
        number = np.abs(ordinal) + np.where(np.abs(ordinal) > fmt.gap_at, fmt.gap, 0)
        binade = np.zeros_like(number) if fmt.even else np.maximum((number >> fmt.man_bits) - 1, 0)
        with np.errstate(over="ignore"):
            size = np.ldexp((number - (binade << fmt.man_bits)).astype(np.float64), binade + fmt.lsb)
        reached = np.isfinite(size) & ((binade + fmt.lsb >= -1074) | (ordinal == 0))
        return np.where(reached, np.where(ordinal < 0, -size, size), np.nan)
    known = line(fmt)
    at, last = ordinal - known.first, np.finfo(np.float64).max
    return np.where(
        at < 0, -last, np.where(ordinal > known.last, last, known.points[np.clip(at, 0, len(known.points) - 1)])
    )


def encode_values(fmt: Format, values: NDArray[Any]) -> Codes:
    """Return the code of each value, NaN and infinities included; -1 where the format does not hold it."""
    if values.dtype == object:
        known = [code_of_value(fmt, value) for value in values]
        return np.array([-1 if code is None else code for code in known], np.int64)
    at = place(fmt, values)
    held = at.nu.zero & (at.ordinal <= fmt.top) & (at.ordinal >= -fmt.bottom) & (fmt.has_zero | (values != 0))
    codes = np.where(held, code_of(fmt, at.ordinal), -1)
    if fmt.has_neg_zero:
        codes = np.where((values == 0) & at.negative, 1 << (fmt.bits - 1), codes)
    nan, infinite = np.isnan(values), np.isinf(values)
    codes = np.where(nan, -1 if fmt.nan_code is None else fmt.nan_code, codes)
    for sign in (False, True):
        held = fmt.has_inf and (fmt.signed or not sign)
        codes = np.where(infinite & (at.negative == sign), fmt.code_of_inf(negative=sign) if held else -1, codes)
    return codes
