"""An oracle for arrays, exact and in integers: where a number lies between two values, once; all modes follow from that.

The modes, the words of the stochastic ones and the rules beyond the range are stated here anew, each by the sentence that
defines it, over whole arrays. `qsim.reference` says what is right; a test holds this file against it.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np

from qsim.formats import Format, Grid, Table, get_format
from qsim.rounding import Mode, Saturation

HALF, ONE = np.uint64(1 << 63), np.uint64(1)
HUGE = 1 << 62
"""An ordinal beyond those of every format."""


class Place(NamedTuple):
    """Say where each of many numbers lies: between two values of a format, the discarded fraction being nu."""

    ordinal: np.ndarray
    """Number of the neighbour toward zero, int64; beyond 2^62 it is 2^62 and its last 32 bits."""
    word: np.ndarray
    """floor(nu 2^64), uint64."""
    more: np.ndarray
    """Whether nu 2^64 is no integer."""
    odd: np.ndarray
    """Whether that neighbour's code is odd."""
    negative: np.ndarray


# --- Where a number lies ---------------------------------------------------------------------------------------------


def place(fmt: Format, x: np.ndarray, *, unbounded: bool = False, nearest: bool = False) -> Place:
    """Return where the numbers `x`, float64, lie; NaN and infinities lie at zero.

    `nearest`: as a rounding to nearest sees it, a little less, a half or a little more of the way, by the format's thresholds.
    `unbounded`: where the exponent of a float format has no lower end. Every number has its full precision then, and those
    below the smallest normal one have the ordinals below its own, of either sign.
    """
    x = entering(fmt, x)
    finite = np.where(np.isfinite(x), x, 0.0)
    negative = np.signbit(x)
    if unbounded and fmt.kind == "float":
        ordinal, word, more = _place_on_grid(fmt, finite, unbounded=True)
        ordinal -= np.where(negative, -fmt.gap, fmt.gap)
        return Place(ordinal, word, more, (ordinal - (not fmt.has_zero)) % 2 == 1, negative)
    if isinstance(fmt, Table) or fmt.gap:
        ordinal, word, more = _place_on_line(fmt, finite)
        if nearest and isinstance(fmt, Table) and fmt.thresholds:
            word = _by_thresholds(fmt, finite, word, more)
            more = np.zeros_like(more)
    else:
        ordinal, word, more = _place_on_grid(fmt, finite)
    return Place(ordinal, word, more, _odd(fmt, ordinal), negative)


def entering(fmt: Format, x: np.ndarray) -> np.ndarray:
    """Return the numbers, or their magnitudes where the format's entry says that these are converted."""
    return np.abs(x) if fmt.negative_to == "magnitude" else x


def _place_on_grid(
    fmt: Grid, x: np.ndarray, *, unbounded: bool = False
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:  # fmt: skip
    """Count the grid's points below |x| = m 2^e, m an integer of 53 bits, by shifting m.

    In binade b >= 0, that is from 2^(emin + b) on, the spacing is 2^(lsb + b), and b 2^man_bits points are counted twice
    short: once for each binade below. An even grid has no binades, an `unbounded` one has negative ones too.
    """
    fraction, exponent = np.frexp(np.abs(x))
    m, e = (fraction * 2.0**53).astype(np.int64), exponent.astype(np.int64) - 53
    none = np.zeros_like(e)
    binade = exponent.astype(np.int64) - 1 - fmt.emin
    binade = none if fmt.even else np.where(m > 0, binade if unbounded else np.maximum(binade, none), none)
    s = fmt.lsb + binade - e  # the bits of m below the spacing
    steps = np.where(s >= 64, none, m >> np.clip(s, 0, 63))
    left = m - (steps << np.clip(s, 0, 63))
    # left / 2^s as a fraction of 64 bits, and what is lost of it
    short, long = np.clip(64 - s, 0, 63), np.clip(s - 64, 0, 63)
    word = np.where(s > 64, left >> long, 0).astype(np.uint64)
    word = np.where((s > 0) & (s <= 64), left.astype(np.uint64) << short.astype(np.uint64), word)
    more = (s > 64) & ((left >> long) << long != left)
    # Only even grids have points so far out that m must be shifted up: they are beyond the range.
    up = np.clip(-s, 0, 63)
    low = np.where(-s < 64, m.astype(np.uint64) << up.astype(np.uint64), 0) & np.uint64(0xFFFFFFFF)
    far = (s < 0) & (m > 0) & (m >= HUGE >> up)
    steps = np.where(far, HUGE + low.astype(np.int64), np.where(s < 0, m << np.where(far, 0, up), steps))
    ordinal = steps + (binade << fmt.man_bits)
    return np.where(x < 0, -ordinal, ordinal), word, more


def _place_on_line(fmt: Format, x: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Find the points beside x in a list, and divide Python's integers: all numbers are multiples of 2^-1074."""
    first, points, exact = _line(fmt)
    lower, upper = np.searchsorted(points, x, "right") - 1, np.searchsorted(points, x, "left")
    between = (lower >= 0) & (upper < points.size) & (lower < upper)
    inner = np.where(x < 0, upper, lower)
    word, more = np.zeros(x.size, np.uint64), np.zeros(x.size, bool)
    for i in np.flatnonzero(between).tolist():
        low, high = exact[lower[i]], exact[upper[i]]
        d = abs(_units(x[i].item()) - (low if inner[i] == lower[i] else high))
        word[i], left = divmod(d << 64, high - low)
        more[i] = left > 0
    # Beyond its ends the list says no more than on which side: a step beyond the last value.
    ordinal = np.where(lower < 0, -fmt.bottom - 1, np.where(upper == points.size, fmt.top + 1, first + inner))
    return ordinal, word, more


def _by_thresholds(fmt: Table, x: np.ndarray, word: np.ndarray, more: np.ndarray) -> np.ndarray:
    """Return fractions between two values, of 64 bits, that are a half at the threshold between them; others as they are."""
    interval = np.searchsorted(fmt.points, x, "right") - 1
    inside = (interval >= 0) & (interval < len(fmt.thresholds)) & ((word > 0) | more)
    turn = np.array(fmt.thresholds)[np.where(inside, interval, 0)]
    outward = np.where(x < 0, turn - x, x - turn)  # its sign is exact
    return np.where(inside, HALF + np.sign(outward).astype(np.int64).astype(np.uint64), word)


@functools.lru_cache(maxsize=64)
def _line(fmt: Format) -> tuple[int, np.ndarray, list[int]]:
    """Return the values that roundings choose from, the first one's ordinal, and the values in units of 2^-1074.

    A grid goes on: there is a point beyond its range on either side. A table says whether there is.
    """
    start = -fmt.bottom - (not isinstance(fmt, Table) or fmt.below is not None)
    stop = fmt.top + (not isinstance(fmt, Table) or fmt.above is not None)
    values = [fmt.value(ordinal) for ordinal in range(start, stop + 1)]
    points = np.array([float(value) for value in values])
    assert points.tolist() == values
    return start, points, [_units(value) for value in points.tolist()]


def _units(value: float) -> int:
    numerator, denominator = value.as_integer_ratio()
    return numerator * ((1 << 1074) // denominator)


def _odd(fmt: Format, ordinal: np.ndarray) -> np.ndarray:
    """Return whether codes are odd: of values by their codes, of what lies beyond them by the line's own account."""
    if fmt.bits > 16 or isinstance(fmt, Table):
        known, at = np.unique(ordinal, return_inverse=True)
        return np.array([fmt.is_odd(number) for number in known.tolist()], bool)[at]
    first, codes = _codes(fmt)
    inside = (ordinal >= first) & (ordinal < first + codes.size)
    return np.where(inside, codes[np.clip(ordinal - first, 0, codes.size - 1)] % 2 == 1, ordinal % 2 == 1)


@functools.lru_cache(maxsize=256)
def _codes(fmt: Format) -> tuple[int, np.ndarray]:
    """Return the smallest ordinal of a value, and the codes in the order of ordinals."""
    ordinals = range(-fmt.bottom, fmt.top + 1)
    return -fmt.bottom, np.array([fmt.code(number) for number in ordinals], np.uint64)


# --- Which way it goes -----------------------------------------------------------------------------------------------


def goes_away(mode: Mode, at: Place, n: int = 0, r: np.ndarray | int = 0, eps: np.ndarray | float = 0.0) -> np.ndarray:
    """Return where a mode goes to the neighbour away from zero: `r` is the random word of `n` bits, n < 64 for SRB and SRC."""
    inexact = (at.word > 0) | at.more
    more = (at.word > HALF) | ((at.word == HALF) & at.more)
    tie = (at.word == HALF) & ~at.more
    match mode:
        case Mode.RNE:
            return more | (tie & at.odd)
        case Mode.RNA:
            return more | tie
        case Mode.RNZ:
            return more
        case Mode.RNP:
            return more | (tie & ~at.negative)
        case Mode.RNN:
            return more | (tie & at.negative)
        case Mode.RTZ:
            return np.zeros_like(tie)
        case Mode.RUP:
            return inexact & ~at.negative
        case Mode.RDN:
            return inexact & at.negative
        case Mode.RAZ:
            return inexact
        case Mode.RTO:
            return inexact & ~at.odd
        case Mode.THR:  # the greater neighbour iff nu > eps, for a negative number iff 1 - nu > eps
            e = np.ldexp(np.atleast_1d(np.asarray(eps, np.float64)), 64).astype(np.uint64)
            above = (at.word > e) | ((at.word == e) & at.more)
            reaches = (e > 0) & (at.word >= ~e + ONE)  # nu >= 1 - eps, and 2^64 - e is ~e + 1
            return np.where(at.negative, inexact & reaches, above)
        case Mode.SRE:
            return inexact & (np.asarray(r, np.uint64) >= np.uint64((1 << n) // 2))
    if n == 64:  # SRA and SR: floor(nu 2^64) + r >= 2^64
        return at.word > ~np.asarray(r, np.uint64)
    return np.asarray(r, np.uint64) >= first_word(mode, at, n)


def first_word(mode: Mode, at: Place, n: int) -> np.ndarray:
    """Return the least word of `n` < 64 bits with which a number goes away from zero; 2^n where none does.

    SRA: r >= 2^n - floor(nu 2^n). SRC: r >= 2^n - nu 2^n rounded, ties to even. SRB: 2r >= 2^(n+1) - 1 - f with
    f = floor(nu 2^(n+1)); with f = 2g or f = 2g + 1, g = floor(nu 2^n), that is r >= 2^n - g or r >= 2^n - g - 1.
    """
    whole = np.uint64(1 << n)
    if mode is Mode.SRE:
        return np.where((at.word > 0) | at.more, whole // np.uint64(2), whole)
    floor = at.word >> np.uint64(64 - n) if n else np.zeros_like(at.word)
    rest = at.word << np.uint64(n)  # nu 2^n less its floor, as a word
    if mode is Mode.SRB:
        return whole - floor - (rest >= HALF)
    if mode is Mode.SRC:
        up = (rest > HALF) | ((rest == HALF) & (at.more | (floor % np.uint64(2) == 1)))
        return whole - floor - up
    return whole - floor


def roundings(mode: Mode, at: Place, bits: tuple[int, ...], width: int) -> Iterator[dict[str, Any]]:
    """Yield the ways to ask for a mode: one; words, for each number the first that takes it away from zero, and the one before.

    Or thresholds: for each number the fraction it has, and a little less; and some numbers.
    """
    if mode is Mode.THR:
        fraction = np.where(at.negative, ~at.word + np.uint64(1), at.word) >> np.uint64(11)  # of 53 bits
        for steps in fraction, fraction - (fraction > 0):
            yield {"eps": np.ldexp(steps.astype(np.float64), -53)}
        for eps in 0.0, 1 / 3:
            yield {"eps": eps}
    elif mode.stochastic:
        some = {Mode.SR: (width,), Mode.SRE: (1, width)}.get(mode, bits)
        for n in some:
            last = np.uint64((1 << n) - 1)
            first = ~at.word + np.uint64(1) if n == 64 else first_word(mode, at, n)
            for r in np.minimum(first, last), np.minimum(first - (first > 0), last):
                yield {"sr_bits": n, "rbits": r}
    else:
        yield {}


# --- What it becomes -------------------------------------------------------------------------------------------------


def beyond(
    fmt: Format, rule: Saturation, mode: Mode, *, below: bool, infinite: bool, negative_nan: bool = False
) -> int:
    """Return the code of a rounded number beyond the range, or of an infinity.

    The rows of wSaturate of the formal model of IEEE P3109 of July 2026 (ieee-p3109 7b6f5ba), the first that fits, with a row
    for formats whose entry says that a negative number becomes the smallest value, and OvfNaN and InfNaN for the rows of finite
    formats; and two rows of interim report 4.0, section 4.7.5, for formats of that revision.
    """
    extremum = fmt.code(-fmt.bottom if below else fmt.top)
    holds_infinity = fmt.has_inf and (fmt.signed or not below)
    inward = {Mode.RTZ, Mode.RUP} if below else {Mode.RTZ, Mode.RDN}
    if fmt.revision == "p3109-4.0" and rule is Saturation.SatNone:
        if mode is Mode.RTO and not fmt.signed and fmt.has_inf and not below and not infinite:
            return extremum
        if not fmt.has_inf and (fmt.signed or not below):
            return extremum
    match rule:
        case Saturation.SatFinite | Saturation.saturate | Saturation.wrap:
            return extremum
        case Saturation.SatPropagate if not (infinite and holds_infinity):
            return extremum
        case Saturation.InfNaN if not infinite or (below and fmt.negative_to == "min"):
            return extremum
        case Saturation.SatNone | Saturation.OvfNaN if mode in inward and not infinite:
            return extremum
        case Saturation.SatNone | Saturation.OvfNaN if below and fmt.negative_to == "min":
            return extremum
        case Saturation.SatNone | Saturation.SatPropagate if holds_infinity:
            return fmt.code_of_inf(negative=below)
    return fmt.code_of_nan(negative=negative_nan)


def of_nan(fmt: Format, *, minus: bool, kept: bool) -> int:
    """Return the code of a NaN; `minus`: it has a sign, `kept`: a NaN result keeps that."""
    sign = 1 << (fmt.bits - 1)
    match fmt.nan_to:
        case "nan":
            return fmt.code_of_nan(negative=minus and kept)
        case "max":
            return fmt.code(fmt.top)
        case "min":
            return fmt.code(-fmt.bottom)
        case "neg_zero":
            return sign
        case "opposite_zero":
            return 0 if minus else sign
    return fmt.code(0)


def of_zero(fmt: Format) -> int:
    """Return the code of 0 in a format without it."""
    codes = {"min": lambda: fmt.code(-fmt.bottom), "max": lambda: fmt.code(fmt.top), "nan": lambda: fmt.nan_code}
    return codes[fmt.zero_to]()


def codes(
    fmt: Format, rule: Saturation, mode: Mode, x: np.ndarray, at: Place, *, ftz_out: str | bool = False,
    nan: str = "canonical",
) -> tuple[np.ndarray, np.ndarray]:  # fmt: skip
    """Return the codes of the numbers `x`, float64, which lie `at`: where they go toward zero, and where away from it.

    Of the mode only the direction counts, see `beyond`. With ftz_out = "after" the place is that of an unbounded exponent.
    """
    x = entering(fmt, x)
    outward = np.where(at.negative, -1, 1)
    sign = at.negative & (nan != "canonical")
    zeros = (x == 0) & (fmt.signed | ~at.negative) & (not fmt.has_zero)  # without a sign, -0 is negative
    settled = np.isnan(x) | np.isinf(x) | zeros
    special = np.zeros(x.size, np.uint64)
    if ftz_out == "before" and fmt.kind == "float":  # a zero of its sign, which is not rounded
        small = np.abs(x) < fmt.smallest_normal
        small &= (
            fmt.has_zero | fmt.signed | ~at.negative
        )  # where there is neither zero nor sign they are below the range
        settled |= small
        special[small & at.negative & fmt.has_neg_zero] = 1 << (fmt.bits - 1)
        x = np.where(small, 0.0, x)
    if not fmt.has_zero:
        special[zeros] = of_zero(fmt)
    for below in False, True:
        for negative in False, True:
            code = beyond(fmt, rule, mode, below=below, infinite=True, negative_nan=negative)
            special[np.isinf(x) & (at.negative == below) & (sign == negative)] = code
    for minus in False, True:
        if fmt.nan_to != "error":
            special[np.isnan(x) & (at.negative == minus)] = of_nan(fmt, minus=minus, kept=nan == "signed")
    toward, away = (
        np.where(settled, special, _codes_of(fmt, rule, mode, ordinal, at.negative, sign, ftz_out=ftz_out))
        for ordinal in (at.ordinal, at.ordinal + outward)
    )
    return toward, away


def _codes_of(
    fmt: Format, rule: Saturation, mode: Mode, ordinal: np.ndarray, negative: np.ndarray, sign: np.ndarray, *,
    ftz_out: str | bool,
) -> np.ndarray:  # fmt: skip
    """Return the codes of rounded numbers, `negative` or not: `ordinal` numbers them, inside or beyond the range."""
    if rule is Saturation.wrap:
        return ordinal.astype(np.uint64) & np.uint64((1 << fmt.bits) - 1)
    if ftz_out in ("after", "result") and fmt.kind == "float":
        magnitude = np.where(negative, -ordinal, ordinal)
        small = (magnitude < fmt.ordinal(fmt.smallest_normal)) & ((ftz_out == "after") | (ordinal >= -fmt.bottom))
        ordinal = np.where(small, 0, ordinal)
    result = _code_of(fmt, ordinal)
    result[(ordinal == 0) & negative & fmt.has_neg_zero] = 1 << (fmt.bits - 1)
    for below, outside in (False, ordinal > fmt.top), (True, ordinal < -fmt.bottom):
        for signed in False, True:
            result[outside & (sign == signed)] = beyond(
                fmt, rule, mode, below=below, infinite=False, negative_nan=signed
            )
    if not fmt.has_zero and isinstance(fmt, Grid):
        result[(ordinal == 0) & ~negative] = fmt.code(-fmt.bottom)  # the least that is positive
    return result


def _code_of(fmt: Format, ordinal: np.ndarray) -> np.ndarray:
    """Return the codes of the values that `ordinal` numbers, anything where it numbers none."""
    inside = np.clip(ordinal, -fmt.bottom, fmt.top)
    if fmt.bits <= 16:
        first, known = _codes(fmt)
        return known[inside - first]
    known, at = np.unique(inside, return_inverse=True)
    return np.array([fmt.code(number) for number in known.tolist()], np.uint64)[at]


# --- Division --------------------------------------------------------------------------------------------------------


def quotient(x: np.ndarray, s: np.ndarray) -> np.ndarray:
    """Return x / s, cut after 40 bits, with a last bit that says whether anything was cut: a float64 like the quotient.

    Whatever has at most 30 bits of its own is on the same side of it. Long division of integers of at most 11 bits.
    """
    (m, e), (n, f) = (np.frexp(exactly(part)) for part in (x, s))
    whole, rest = np.divmod((m * 2**11).astype(np.int64) << 40, (n * 2**11).astype(np.int64))
    return np.ldexp((2 * whole + (rest > 0)).astype(np.float64), e.astype(int) - f.astype(int) - 41)


def nearest_codes(kind: np.dtype, x: np.ndarray) -> np.ndarray:
    """Return the patterns of positive float64 `x` rounded to nearest even in a type of 16 bits."""
    at, infinity = place(get_format(str(kind)), x), get_format(str(kind)).inf_code
    up = (at.word > HALF) | ((at.word == HALF) & (at.more | at.odd))
    return np.minimum(at.ordinal + up, infinity).astype(np.uint16)


# --- Numbers to try --------------------------------------------------------------------------------------------------


def sixteen_bits(kind: np.dtype) -> np.ndarray:
    """Return all 65,536 numbers of float16 or bfloat16."""
    return np.arange(1 << 16, dtype=np.uint16).view(kind)


def exactly(x: np.ndarray) -> np.ndarray:
    """Return `x` as float64."""
    with np.errstate(invalid="ignore"):  # of signalling NaNs
        return x.astype(np.float64)


def floats(x: np.ndarray) -> list[float]:
    """Return the numbers of `x`, flat, as Python floats."""
    return exactly(x).ravel().tolist()
