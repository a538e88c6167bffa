"""How far each float32 is on its way between two values of any format: the words that carry, in exact integers.

`sweep.intervals` has ways of 2^k steps. Between two values of a list, or across a gap, nu is any rational. Inside one interval
and one binade the patterns still step evenly, and so do floor(nu 2^32) and the remainder, as on a Bresenham line:

    pattern      first      first + 1         first + 2
    nu 2^32      q + r/D    q + r/D + step    ...              step = (a + b/D): add a to q, b to r, and carry D

`qsim.reference` is asked for the results at both ends of a run, and `Format.split` for nu at its first two patterns.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import numba
import numpy as np
from numpy import int64

from qsim import reference
from qsim.formats import Format, Table
from qsim.prove.exhaustive import ALL, CHUNK, Span, in_pieces, widened
from qsim.prove.specification import FLOAT32
from qsim.prove.sweep import Words, floats
from qsim.rounding import Mode, Saturation

__all__ = ["Way", "first_stray_word", "misplaced", "ways"]

BITS = 32
"""Random bits of a word: SR of float32."""
LARGEST = (1 << BITS) - 1
ROOM = 1 << 62


@dataclass(frozen=True, slots=True)
class Way:
    """Hold a run of patterns between the same neighbours; pattern first + i has nu 2^32 = (start + i step) / size."""

    first: int
    last: int
    start: int
    step: int
    size: int
    #: Codes of the neighbour that the smallest word gives and of the one that the largest does.
    inner: int
    outer: int

    def words(self, u: int) -> int:
        """Return how many of the 2^32 words take pattern `u` outward: floor(nu 2^32), the largest ones."""
        return (self.start + (u - self.first) * self.step) // self.size


def ways(fmt: Format, saturation: Saturation) -> Iterator[Way]:
    """Yield runs that tile all patterns of float32, in ascending order; a special value is a run on its own.

    Stochastic modes differ in the words alone: none of them keeps an overflow inside.
    """

    def code(u: int, rbits: int) -> int:
        (x,) = floats([u], FLOAT32)
        return reference.encode(x, fmt, Mode.SRA, sr_bits=BITS, rbits=rbits, saturation=saturation)

    def settled(first: int, last: int) -> Way:
        return Way(first, last, 0, 0, 1, code(first, 0), code(first, 0))

    inf, binade = FLOAT32.infinity, 1 << FLOAT32.fraction_bits
    for sign in (0, 1 << 31):
        yield settled(sign, sign)
        values = set(firsts(fmt, negative=sign > 0))
        beyond = max(values, default=0) + 1  # from here on there is nothing to choose
        ends = {*values, *range(binade, beyond, binade), beyond} - {1}
        for begin, end in itertools.pairwise([1, *sorted(ends)]):
            yield from between(fmt, sign + begin, sign + end - 1, code)
        yield settled(sign + beyond, sign + inf - 1)
        yield settled(sign + inf, sign + inf)
        yield settled(sign + inf + 1, sign + (1 << 31) - 1)


def firsts(fmt: Format, *, negative: bool) -> Iterator[int]:
    """Yield the first patterns, without the sign, at or beyond each value of one sign."""
    line = fmt.line if isinstance(fmt, Table) else map(fmt.value, range(-fmt.bottom - 1, fmt.top + 2))
    for value in map(Fraction, line):
        if value and (value < 0) == negative and abs(value) < Fraction(2) ** (FLOAT32.bias + 1):
            nearest = np.float32(abs(float(value)))
            u = int(nearest.view(np.uint32))
            yield u + (Fraction(float(nearest)) < abs(value))


def between(fmt: Format, first: int, last: int, code: Callable[[int, int], int]) -> Iterator[Way]:
    """Yield the runs of `first` .. `last`, all between the same neighbours and in one binade."""
    nu = [fmt.split(Fraction(x))[1] * (1 << BITS) for x in floats([first, min(first + 1, last), last], FLOAT32)]
    step = nu[1] - nu[0]
    size = math.lcm(nu[0].denominator, step.denominator)
    assert nu[0] + (last - first) * step == nu[2]
    if int(nu[0]) == int(nu[2]):  # one number of words for all
        yield Way(first, last, int(nu[0]), 0, 1, code(first, 0), code(last, LARGEST))
    elif size < ROOM:
        yield Way(first, last, int(nu[0] * size), int(step * size), size, code(first, 0), code(last, LARGEST))
    else:
        middle = (first + last) // 2
        yield from between(fmt, first, middle, code)
        yield from between(fmt, middle + 1, last, code)


def misplaced(found: list[Way], fmt: Format, saturation: Saturation, sample: int | None = None) -> str | None:
    """Return where the reference does not carry at the word that a way says, or `None`; asked at both ends of all, or some."""
    some = found if sample is None or sample >= len(found) else found[:: len(found) // sample]
    for way in some:
        for u, x in zip((way.first, way.last), floats([way.first, way.last], FLOAT32), strict=True):
            at = LARGEST + 1 - way.words(u)
            if at < 0:
                return f"{fmt}: {way.words(u)} words of {BITS} bits at {x!r}; there are fewer"
            for word, code in ((at - 1, way.inner), (at, way.outer)):
                if 0 <= word <= LARGEST:
                    right = reference.encode(x, fmt, Mode.SRA, sr_bits=BITS, rbits=word, saturation=saturation)
                    if right != code:
                        return f"{fmt}: with {word:#x} the reference gives {x!r} code {right:#x}, not {code:#x}"
    return None


@numba.njit(nogil=True)
def line(words: Any, q: Any, r: Any, a: Any, b: Any, size: Any) -> None:
    """Fill `words` with q, and the numbers after it on the line whose remainder is r: each a + b / size more."""
    for i in range(words.size):
        words[i] = q
        q += a
        r += b
        if r >= size:
            r -= size
            q += int64(1)


Rounding = Callable[[Words, Words, Words], object]
"""Rounds patterns of float64 by 64-bit words into others."""


def first_stray_word(
    found: list[Way],
    fmt: Format,
    rounding: Rounding,
    *,
    span: Span = ALL,
    advance: Callable[[float], None] = lambda _: None,
) -> int | None:
    """Return the first pattern of `span` that goes another way at its carry, or at the word below; or `None`.

    Each number is rounded with the smallest word that takes it outward and with the word below, which does not. The bits below
    the 32 of a word, which must not matter, are those that would do harm.
    """
    values = fmt.values().view(np.uint64)

    def chunk(way: Way, low: int, high: int) -> int:
        words = np.empty(high - low + 1, np.int64)
        q, r = divmod(way.start + (low - way.first) * way.step, way.size)
        a, b = divmod(way.step, way.size)
        line(words, int64(q), int64(r), int64(a), int64(b), int64(way.size))
        x = widened(np.arange(low, high + 1))
        spare = (1 << BITS) - 1
        at = ((1 << BITS) - words) % (1 << BITS) << BITS
        below = ((1 << BITS) - words - 1) % (1 << BITS) << BITS | spare
        for word, out in ((at, words > 0), (below, words > LARGEST)):
            rounding(x, word.view(np.uint64), y := np.empty_like(x))
            wrong = np.flatnonzero(y != np.where(out, values[way.outer], values[way.inner]))
            if wrong.size:
                return low + int(wrong[0])
        return -1

    def walk(first: Any, last: Any, numbers: Any) -> int:
        for begin, end, number in zip(first.tolist(), last.tolist(), numbers.tolist(), strict=True):
            for low in range(begin, end + 1, CHUNK):
                wrong = chunk(found[number], low, min(low + CHUNK - 1, end))
                if wrong >= 0:
                    return wrong
        return -1

    begins, ends = (np.array([getattr(way, name) for way in found], np.uint64) for name in ("first", "last"))
    return in_pieces(walk, begins, ends, [np.arange(len(found))], span, advance)
