"""The definition of every dot product of `qsim.dot`, over exact rationals: short enough to read in one sitting.

Numbers are floats on the way in and out. On the way a number is a `Fraction`, unless it is a zero, which has a sign, an
infinity or a NaN: these are floats.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from fractions import Fraction
from typing import TypeAlias

from qsim import reference
from qsim.arrays import random_words
from qsim.dot.accumulator import STEP_BITS, WORD_BITS, Accumulator, random_bits
from qsim.formats import Format, Grid
from qsim.rounding import Key, Mode, Quantizer

__all__ = ["Number", "add", "blocks_of", "divide", "dot", "multiply", "rounded", "square_root", "step_word"]

Number: TypeAlias = float | Fraction


def lift(x: float) -> Number:
    """Return a float as it is on the way."""
    return Fraction(x) if x and math.isfinite(x) else float(x)


def is_negative(x: Number) -> bool:
    """Return whether x has a minus sign."""
    return math.copysign(1.0, x) < 0 if isinstance(x, float) else x < 0


def multiply(x: Number, y: Number) -> Number:
    """Return x y, exactly; a product of an infinity and a zero is NaN."""
    if isinstance(x, Fraction) and isinstance(y, Fraction):
        return x * y
    signs = [math.copysign(1.0, -1.0 if is_negative(v) else 1.0) if isinstance(v, Fraction) else v for v in (x, y)]
    return signs[0] * signs[1]


def add(terms: Sequence[Number], mode: Mode = Mode.RNE) -> Number:
    """Return the sum of the terms, exactly.

    NaN, and infinities of both signs, make NaN. A sum of zero is +0, but -0 if all terms are -0, or, rounding toward negative,
    if not all of them are +0 (IEEE 754-2019, 6.3).
    """
    special = [x for x in terms if isinstance(x, float) and x]  # NaN is true
    if special:
        return math.fsum(special) if len({*map(str, special)}) == 1 else math.nan
    total = sum((x for x in terms if isinstance(x, Fraction)), Fraction(0))
    if total:
        return total
    minus = [is_negative(x) for x in terms]
    cancelled = any(isinstance(x, Fraction) for x in terms)
    negative = (cancelled or any(minus)) if mode is Mode.RDN else bool(minus) and all(minus) and not cancelled
    return -0.0 if negative else 0.0


def divide(x: Number, y: Number) -> Number:
    """Return x / y, exactly; x / 0 is an infinity, 0 / 0 and infinity / infinity are NaN (IEEE 754-2019, 7.2 and 7.3)."""
    sign = -1.0 if is_negative(x) != is_negative(y) else 1.0
    if isinstance(x, Fraction) and isinstance(y, Fraction):
        return x / y
    if any(isinstance(v, float) and math.isnan(v) for v in (x, y)):
        return math.nan
    if isinstance(y, float):  # 0 or an infinity
        if isinstance(x, float) and (not x) == (not y):
            return math.nan
        return math.copysign(math.inf if not y else 0.0, sign)
    return x * sign * math.copysign(1.0, x) if isinstance(x, float) else x


def square_root(x: Number, bits: int = 128) -> Number:
    """Return the square root of x: exactly if it is a rational, else a number next to it that rounds as it does.

    That is the greatest multiple of 2^-k below it plus half of 2^-k, with `bits` bits: no rounding to fewer tells them apart.
    The root of -0 is -0, that of any other negative number NaN (IEEE 754-2019, 5.4.1).
    """
    if isinstance(x, float):
        return math.nan if x < 0 else x
    if x < 0:
        return math.nan
    exponent = (x.numerator.bit_length() - x.denominator.bit_length()) // 2
    k = bits - exponent
    scaled = x * Fraction(4) ** k
    whole = math.isqrt(scaled.numerator // scaled.denominator)
    exact = Fraction(whole) * Fraction(2) ** -k
    return exact if exact * exact == x else exact + Fraction(2) ** -(k + 1)


def rounded(x: Number, q: Quantizer, word: int = 0) -> float:
    """Return x rounded by q; a stochastic mode takes the top N bits of a 32-bit word."""
    n = random_bits(q) if q.mode.stochastic else 0
    mode = Mode.SRA if q.mode is Mode.SR else q.mode
    return reference.quantize(
        x, q.format, mode, sr_bits=n if q.mode.stochastic else None, rbits=word >> (WORD_BITS - n) if n else 0,
        eps=q.eps or 0.0, saturation=q.saturation, ftz_out=q.ftz_out, nan=q.nan,
    )  # fmt: skip


def step_word(key: Key, element: int, step: int, n: int) -> int:
    """Return the random word of one rounding, its N bits at the top of 32: that of output `element`, in step `step`.

    It is the word of element + step 2^40 of the key. With N <= 16 two steps share a word: step 2j has its upper half, 2j + 1
    its lower one.
    """
    half = n <= WORD_BITS // 2
    place = (key.offset + element + ((step // 2 if half else step) << STEP_BITS)) % (1 << 64)
    word = int(random_words(Key(key.seed, key.stream, place), 1)[0])
    return (word << 16) & 0xFFFFFFFF if half and step % 2 else word


def exponent_of(x: float, fmt: Format | None) -> int:
    """Return the exponent of a number: of a subnormal number of `fmt` that of its smallest normal; 0 where there is none."""
    if not x or not math.isfinite(x):
        return 0
    least = fmt.emin if isinstance(fmt, Grid) and not fmt.even else -2000
    return max(math.frexp(x)[1] - 1, least)


def dot(
    a: Sequence[float],
    b: Sequence[float],
    c: float,
    acc: Accumulator,
    *,
    formats: tuple[Format | None, Format | None] = (None, None),
    key: Key | None = None,
    element: int = 0,
    scales: tuple[Sequence[float], Sequence[float]] | None = None,
) -> float:
    """Return c + a_1 b_1 + ... + a_K b_K as the accumulator has it; see `Accumulator`.

    With `scales` s and t the products are a_k s_k b_k t_k. `formats` are those of the operands, which say where their subnormal
    numbers begin; `element` is the index of this output.
    Rounding number t, counted from 0 over all but those of products, takes the random word of step t.
    """
    steps = iter(range(1 << 62))

    def done(x: Number, q: Quantizer) -> Number:
        step = next(steps)
        word = step_word(key, element, step, random_bits(q)) if q.mode.stochastic and key is not None else 0
        return lift(rounded(x, q, word))

    def plus(x: Number, y: Number, q: Quantizer) -> Number:
        return done(add([x, y], q.mode), q)

    def product(k: int) -> Number:
        p = multiply(lift(a[k]), lift(b[k]))
        return p if scales is None else multiply(p, multiply(lift(scales[0][k]), lift(scales[1][k])))

    def products(begin: int, end: int) -> list[Number]:
        exact = [product(k) for k in range(begin, end)]
        return exact if acc.product is None else [lift(rounded(p, acc.product)) for p in exact]

    def sum_of(begin: int, end: int, start: Number) -> Number:
        if acc.block:
            return blocks(begin, end, start)
        terms, q = products(begin, end), acc.format
        if acc.order == "exact":
            return done(add([start, *terms], q.mode), q)
        if acc.order == "pairwise":
            while len(terms) > 1:
                odd = terms[len(terms) // 2 * 2 :]
                terms = [plus(x, y, q) for x, y in zip(terms[0::2], terms[1::2], strict=False)] + odd
            return plus(start, terms[0] if terms else 0.0, q)
        s: Number = start
        lost: Number = 0.0
        for p in terms:
            if acc.order == "sequential":
                s = plus(s, p, q)
                continue
            y = plus(p, minus(lost), q)
            t = plus(s, y, q)
            lost = plus(plus(t, minus(s), q), minus(y), q)
            s = t
        return s

    def terms_of(some: list[int]) -> list[tuple[Number, int]]:
        """Return the terms of a block, with their exponents: products, or exact sums of as many as are merged."""
        if acc.merge:
            groups = [some[i : i + acc.merge] for i in range(0, len(some), acc.merge)]
            return [(add([product(k) for k in group]), scale_exponent(group[0])) for group in groups]
        return [(product(k), own_exponent(k) + scale_exponent(k)) for k in some]

    def own_exponent(k: int) -> int:
        return exponent_of(a[k], formats[0]) + exponent_of(b[k], formats[1])

    def scale_exponent(k: int) -> int:
        return 0 if scales is None else exponent_of(scales[0][k], None) + exponent_of(scales[1][k], None)

    def blocks(begin: int, end: int, start: Number) -> Number:
        s: Number = 0.0 if acc.start == "last" else start
        for some in blocks_of(range(begin, end), acc):
            s = done(block_sum(terms_of(some), s, acc), acc.format)
        return plus(start, s, acc.outer_rounding) if acc.start == "last" and not acc.group else s

    total: Number = lift(c)
    if acc.group:
        for begin in range(0, len(a), acc.group):
            part = sum_of(begin, min(begin + acc.group, len(a)), 0.0)
            total = plus(total, part, acc.outer_rounding)
    else:
        total = sum_of(0, len(a), total)
    return float(total if acc.output is None else done(total, acc.output))


def minus(x: Number) -> Number:
    """Return -x."""
    return -x


def blocks_of(terms: Sequence[int], acc: Accumulator) -> Iterator[list[int]]:
    """Yield the numbers of the products of each block, in the order of the blocks."""
    width = acc.block
    if acc.lanes == "ascending":
        for begin in range(0, len(terms), width):
            yield list(terms[begin : begin + width])
        return
    first = (lambda k: k % 4 < 2) if acc.lanes == "pairs" else (lambda k: k % 2 == 0)
    choose: Callable[[int], bool] = first
    for begin in range(0, len(terms), 2 * width):
        some = range(begin, min(begin + 2 * width, len(terms)))
        for side in (True, False):
            chosen = [terms[k] for k in some if choose(k - begin) is side]
            if chosen:
                yield chosen


def block_sum(found: Sequence[tuple[Number, int]], c: Number, acc: Accumulator) -> Number:
    """Return the exact sum of the kept bits of a block's terms, before it is rounded."""
    values = [value for value, _ in found]
    if any(isinstance(x, float) and x for x in [*values, c]):  # infinities and NaN
        return add([*values, c])
    terms = [(x, leading(x) if acc.normalize else exponent) for x, exponent in found if isinstance(x, Fraction)]
    sum_format = acc.format.format
    least = sum_format.emin if isinstance(sum_format, Grid) and not sum_format.even else -2000
    own = [(c, max(leading(c), least))] if isinstance(c, Fraction) else []
    if acc.align is None:
        total = sum((value for value, _ in terms + own), Fraction(0))
    elif acc.start == "after":
        part, join = aligned(terms, acc.align, acc.align_mode, acc), acc.join or acc.align
        m = largest(terms + own, acc)
        mode = acc.join_mode or acc.align_mode
        total = cut(part, m - join, mode) + sum((cut(value, m - acc.align, mode) for value, _ in own), Fraction(0))
    else:
        total = aligned(terms + own, acc.align, acc.align_mode, acc)
    return total or 0.0


def leading(x: Fraction) -> int:
    """Return the exponent of the leading bit of x."""
    exponent = abs(x.numerator).bit_length() - x.denominator.bit_length()
    return exponent - (abs(x) < Fraction(2) ** exponent)


def largest(terms: Sequence[tuple[Fraction, int]], acc: Accumulator) -> int:
    """Return m, the largest exponent of the terms, or the least one that there may be."""
    m = max((exponent for _, exponent in terms), default=0)
    return m if acc.least_exponent is None else max(m, acc.least_exponent)


def aligned(terms: Sequence[tuple[Fraction, int]], bits: int, mode: str, acc: Accumulator) -> Fraction:
    """Return the sum of the terms, each cut to a multiple of 2^(m - bits), m the largest of their exponents."""
    m = largest(terms, acc)
    return sum((cut(value, m - bits, mode) for value, _ in terms), Fraction(0))


def cut(x: Fraction, place: int, mode: str) -> Fraction:
    """Return x cut to a multiple of 2^place: toward zero, down, or to the nearest, ties to even."""
    quantum = Fraction(2) ** place
    steps = x / quantum
    whole = math.trunc(steps) if mode == "RTZ" else math.floor(steps) if mode == "RDN" else round(steps)
    return whole * quantum
