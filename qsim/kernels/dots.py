"""Loops over dot products: sums that are rounded at every step, and the block fused multiply-adds of tensor cores.

The sum of two floats is known exactly from its two words: t, rounded to nearest, and the error e, which Knuth's two-sum gives
without a branch. `odd_sum` cuts it toward zero and sets the last bit where something was lost, so that a rounding to at
least two bits less comes out as that of the exact sum (Boldo and Melquiond 2008). So the core rounds these sums too. Products
are exact, and no number here is a subnormal one of its carrier: `qsim.dot` takes these loops only where that is so.

A block of a tensor core is a sum of integers: significands are multiplied as integers, shifted, and added.
"""

from __future__ import annotations

import functools
from typing import Any, Literal

from numpy import float64, int64, uint32, uint64

from qsim.kernels import compiled, core
from qsim.kernels.compiled import I64, U64, Array, Kernel, fields_of, kernel, portable
from qsim.kernels.core import LOW, Addends, Parameters, Stochastic, addend, last_to_zero, stochastic
from qsim.kernels.cpu import (
    AFTER,
    FIELDS,
    Kind,
    addends_of,
    fill_words,
    kind_of,
    known_of,
    looks_at_parity,
    neighbour_of,
)
from qsim.kernels.parameters import Shortcut, shortcut

__all__ = ["MODES", "NO_EXPONENT", "block_sums", "by_addends", "by_key", "by_short_sums", "by_short_words"]

NO_EXPONENT = -200_000
"""The exponent of a zero: a product has one below -100,000 then, whatever the other operand."""
TILE = 512
"""Outputs of a row that are added to at a time: they stay in a cache over all products."""
CHUNK = 256
"""Outputs whose random words are drawn at a time, in scratch of the stack that holds 512."""


@portable
def odd_sum(x: Any, y: Any, down: Any, sticky: Any, p: Any) -> Any:
    """Return the pattern of x + y, cut toward zero, its last bit set where something was lost and `sticky` is 1.

    `down` is the sign bit for the rounding toward negative, in which a sum of zero is -0 unless both terms are +0; else 0.
    An infinity or a NaN has an error that is NaN, or none: it stays as it is.
    """
    t = x + y
    z = t - x
    e = (x - (t - z)) + (y - z)
    u, v = compiled.pattern_of(t), compiled.pattern_of(e)
    word = type(u)
    size = word(v << word(1))
    lost = word(1) if size != word(0) else word(0)
    lost = lost if size <= word(p.inf << word(1)) else word(0)
    lost = lost if word(u << word(1)) < word(p.inf << word(1)) else word(0)
    cut = word(u - word(lost & word(word(u ^ v) >> p.last)))
    minus = word(word(compiled.pattern_of(x) | compiled.pattern_of(y)) & down)
    return word(cut | word(lost & sticky)) if word(u << word(1)) != word(0) else word(u | minus)


def finish_of(p: Parameters) -> Shortcut:
    """Return the function of the core that ends a step: the one for IEEE formats if it holds, else the one that always does."""
    return "reflected" if shortcut(p) == "reflected" else "ranged"


@functools.cache
def _by_short_sums(places: int, parity: bool) -> Kernel:
    @portable
    def cut_short(s: Any, base: Any) -> Any:
        u = compiled.pattern_of(s)
        word = type(u)
        up = word(base + word(word(u >> word(places)) & word(1))) if parity else base
        return compiled.float_of(word(word(u + up) & word(~word((1 << places) - 1))))

    @kernel(places, parity)
    def accumulate_short(a: Array, b: Array, c: Array, base: U64, words: Array) -> None:
        compiled.wide_vectors()
        add = words.dtype.type(base)
        for begin in range(0, c.shape[1], TILE):
            end = min(begin + TILE, c.shape[1])
            for i in range(a.shape[0]):
                row = c[i][begin:end]
                whole = a.shape[1] // 4 * 4
                for k in range(0, whole, 4):  # four at a time: fewer ways to memory and back
                    x0, x1, x2, x3 = a[i, k], a[i, k + 1], a[i, k + 2], a[i, k + 3]
                    b0, b1, b2, b3 = b[k][begin:end], b[k + 1][begin:end], b[k + 2][begin:end], b[k + 3][begin:end]
                    for j in range(row.size):
                        s = cut_short(row[j] + x0 * b0[j], add)
                        s = cut_short(s + x1 * b1[j], add)
                        s = cut_short(s + x2 * b2[j], add)
                        row[j] = cut_short(s + x3 * b3[j], add)
                for k in range(whole, a.shape[1]):
                    x, some = a[i, k], b[k][begin:end]
                    for j in range(row.size):
                        row[j] = cut_short(row[j] + x * some[j], add)

    return accumulate_short


def by_short_sums(places: int, *, parity: bool) -> Kernel:
    """Return the loop(a, b, c, base, words) of `by_addends` for sums in the range: it adds and cuts.

    It adds `base`, and 1 to odd ones with `parity`, and cuts `places` bits; of `words` it takes the type. With h half of the
    last place that is kept: h - 1 and `parity` is to nearest even, h away, 0 toward zero. A sum below normal numbers must be
    one of the format. The carrier's own rounding of the sum must do no harm: sums are exact in it, or the mode is to nearest,
    products and starts have at most the bits of the format, p, and the carrier has 2p + 2. A sum that the carrier rounds is
    that of a number of p bits and one so small that ties stay ties, and no other sum becomes one (Figueroa 1995).
    """
    return _by_short_sums(places, parity)


@kernel()
def by_short_words(
    a: Array, b: Array, c: Array, seed: U64, stream: U64, offset: U64, first: U64, half: U64, bits: U64, places: U64
) -> None:
    """Compute as `by_key` for StochasticA of `bits` random bits, where sums are exact in float64, as `by_short_sums` does."""
    compiled.wide_vectors()
    share = uint64(half)
    shift = uint64(uint64(places) & uint64(63))
    keep = uint64(~uint64(uint64(uint64(1) << shift) - uint64(1)))
    counted = uint64(uint64(LOW << uint64(uint64(32) - uint64(bits))) & LOW)  # the top bits of a word
    lift = uint64(uint64(shift - uint64(32)) & uint64(63))
    drawn = compiled.room32()
    for i in range(a.shape[0]):
        for begin in range(0, c.shape[1], CHUNK):
            row = c[i][begin : begin + CHUNK]
            place = uint64(uint64(offset) + uint64(uint64(i) * uint64(c.shape[1]) + uint64(begin)))
            skip = int64(place & uint64(3))
            filled = (skip + row.size + 3) // 4 * 4
            for k in range(a.shape[1]):
                step = uint64(uint64(first) + uint64(k))
                second = uint64(step & share)
                if k == 0 or second == uint64(0):
                    at = uint64(place + uint64(uint64(step >> share) << uint64(40)))
                    fill_words(drawn[:filled], uint64(at >> uint64(2)), uint64(seed), uint64(stream))
                left = uint64(second << uint64(4))
                x, some, given = a[i, k], b[k][begin : begin + CHUNK], drawn[skip : skip + row.size]
                for j in range(row.size):
                    u = compiled.pattern_of(row[j] + x * some[j])
                    r = uint64(uint64(uint64(given[j]) << left) & counted)
                    row[j] = compiled.float_of(uint64(uint64(u + uint64(r << lift)) & keep))


@functools.cache
def _by_addends(how: Shortcut, parity: bool, product: tuple[Literal["ranged"], bool] | None) -> Kernel:
    fields, finish, neighbour = FIELDS[False], getattr(core, how), neighbour_of(False, how, parity)
    if product is None:

        @kernel(how, parity)
        def accumulate(a: Array, b: Array, c: Array, down: U64, words: Array) -> None:
            compiled.wide_vectors()
            p, t = fields(words), addends_of(words)
            word = words.dtype.type
            small = last_to_zero(t.even_pos, p), last_to_zero(t.even_neg, p)
            minus, sticky = word(down), word(1)
            for i in range(a.shape[0]):
                row = c[i]
                for k in range(a.shape[1]):
                    x, some = a[i, k], b[k]
                    for j in range(row.size):
                        u = odd_sum(row[j], x * some[j], minus, sticky, p)
                        row[j] = compiled.float_of(finish(neighbour(u, t, small, p), u, p))

        return accumulate

    end, other = getattr(core, product[0]), neighbour_of(False, *product)

    @kernel(how, parity, *product)
    def accumulate_rounded(a: Array, b: Array, c: Array, down: U64, words: Array, more: Array) -> None:
        p, t, p2, t2 = fields(words), addends_of(words), fields(more), addends_of(more)
        word = words.dtype.type
        small = last_to_zero(t.even_pos, p), last_to_zero(t.even_neg, p)
        small2 = last_to_zero(t2.even_pos, p2), last_to_zero(t2.even_neg, p2)
        minus, sticky = word(down), word(1)
        for i in range(a.shape[0]):
            row = c[i]
            for k in range(a.shape[1]):
                x, some = a[i, k], b[k]
                for j in range(row.size):
                    v = compiled.pattern_of(x * some[j])
                    y = compiled.float_of(end(other(v, t2, small2, p2), v, p2))
                    u = odd_sum(row[j], y, minus, sticky, p)
                    row[j] = compiled.float_of(finish(neighbour(u, t, small, p), u, p))

    return accumulate_rounded


def by_addends(p: Parameters, t: Addends, product: tuple[Parameters, Addends] | None = None) -> Kernel:
    """Return the loop(a, b, c, down, words) that makes c + a b of c, rounding the sum after each product.

    a (M, K), b (K, N) and c (M, N) are floats of one type; `down` is that of `odd_sum`. With a rounding of the product, its
    words follow those of the sum.
    """
    other = None if product is None else ("ranged", looks_at_parity(product[1]))
    return _by_addends(finish_of(p), looks_at_parity(t), other)


@functools.cache
def _by_key(how: Shortcut, kind: Kind) -> Kernel:
    fields, finish, source_of = FIELDS[False], getattr(core, how), fields_of(Stochastic, AFTER, known_of(kind))

    @kernel(how, kind)
    def accumulate_drawn(
        a: Array,
        b: Array,
        c: Array,
        seed: U64,
        stream: U64,
        offset: U64,
        first: U64,
        half: U64,
        sticky: U64,
        words: Array,
    ) -> None:
        compiled.wide_vectors()
        p, source = fields(words), source_of(words)
        word = words.dtype.type
        bit, share = word(sticky), uint64(half)
        # A word of 32 bits comes to the top of a word of the carrier: no shift for 32 bits, one by 32 for 64.
        up = word(word(p.last - word(31)) & p.last)
        drawn = compiled.room32()
        for i in range(a.shape[0]):
            for begin in range(0, c.shape[1], CHUNK):
                row = c[i][begin : begin + CHUNK]
                place = uint64(uint64(offset) + uint64(uint64(i) * uint64(c.shape[1]) + uint64(begin)))
                skip = int64(place & uint64(3))
                filled = (skip + row.size + 3) // 4 * 4
                for k in range(a.shape[1]):
                    step = uint64(uint64(first) + uint64(k))
                    odd = uint64(step & share)
                    if k == 0 or odd == uint64(0):
                        at = uint64(place + uint64(uint64(step >> share) << uint64(40)))
                        fill_words(drawn[:filled], uint64(at >> uint64(2)), uint64(seed), uint64(stream))
                    left = uint32(odd << uint64(4))
                    x, some, given = a[i, k], b[k][begin : begin + CHUNK], drawn[skip : skip + row.size]
                    for j in range(row.size):
                        u = odd_sum(row[j], x * some[j], word(0), bit, p)
                        r = word(word(uint32(given[j] << left)) << up)
                        added, more = addend(r, source)
                        y = stochastic(word(u & word(p.sign - word(1))), added, more, p)
                        row[j] = compiled.float_of(finish(y, u, p))

    return accumulate_drawn


def by_key(p: Parameters, source: Stochastic) -> Kernel:
    """Return the loop of `by_addends` with random words.

    It takes (a, b, c, seed, stream, offset, first, half, sticky, words). Output i takes in step k, counted from `first`, the
    word of element offset + i + k 2^40 of (seed, stream); where `half` is 1 two steps share one. `sticky` is that of `odd_sum`.
    """
    return _by_key(finish_of(p), kind_of(source))


# --- Blocks --------------------------------------------------------------------------------------------------

RTZ, RDN, RNE = 0, 1, 2
MODES = {"RTZ": RTZ, "RDN": RDN, "RNE": RNE}


@portable
def shifted(q: Any, d: Any, mode: Any) -> Any:
    """Return the integer q 2^d, cut to an integer by the mode: toward zero, down, or to the nearest, ties to even."""
    right = int64(min(int64(max(int64(-d), int64(0))), int64(60)))
    left = int64(min(int64(max(int64(d), int64(0))), int64(60)))
    size = q if mode != int64(0) else abs(q)
    whole = int64(int64(size << left) >> right)
    rest = int64(int64(size << left) - int64(whole << right))
    twice = int64(rest << int64(1))
    tie = int64(whole & int64(1)) != int64(0)
    unit = int64(int64(1) << right)
    up = int64(1) if twice > unit or (twice == unit and tie and right > int64(0)) else int64(0)
    near = int64(whole + (up if mode == int64(2) else int64(0)))
    return int64(-near) if mode == int64(0) and q < int64(0) else near


@portable
def exponent_of_integer(q: Any) -> Any:
    """Return the exponent of the leading bit of an integer below 2^53 that is not zero."""
    u = compiled.pattern_of(float64(q))
    return int64(int64(uint64(u >> uint64(52)) & uint64(0x7FF)) - int64(1023))


@functools.cache
def _block_sums(parity: bool) -> Kernel:
    fields, neighbour = FIELDS[False], neighbour_of(False, "ranged", parity)

    @kernel(parity)
    def add_blocks(
        sa: Array, ea: Array, sb: Array, eb: Array, c: Array, paired: I64, width: I64, scale: I64, align: I64, mode: I64,
        after: I64, join: I64, join_mode: I64, normalize: I64, least: I64, emin: I64, words: Array,
    ) -> None:  # fmt: skip
        p, t = fields(words), addends_of(words)
        small = last_to_zero(t.even_pos, p), last_to_zero(t.even_neg, p)
        none = int64(-100_000)
        for i in range(c.shape[0]):
            for j in range(c.shape[1]):
                x, ex = sa[i], ea[i]
                other = i if paired else j
                y, ey = sb[other], eb[other]
                u = c[i, j]
                for begin in range(0, x.size, width):
                    a = uint64(u & uint64(p.sign - uint64(1)))
                    if a >= p.inf:
                        continue
                    own = int64(int64(a >> uint64(52)) - int64(1023))
                    sc = int64(uint64(a & uint64(0xFFFFFFFFFFFFF)) | uint64(0x10000000000000))
                    sc = int64(-sc) if u >= p.sign else sc
                    ec = max(own, int64(emin)) if a > uint64(0) else none
                    m = none if after else ec
                    for k in range(begin, begin + width):
                        e = int64(int64(ex[k]) + int64(ey[k]))
                        if normalize and e > none:
                            q = int64(x[k]) * int64(y[k])
                            e = int64(e + int64(exponent_of_integer(q) - int64(scale))) if q != int64(0) else none
                        m = max(m, e)
                    m = max(m, int64(least)) if m > none else m
                    total = int64(0)
                    for k in range(begin, begin + width):
                        q = int64(int64(x[k]) * int64(y[k]))
                        d = int64(int64(int64(ex[k]) + int64(ey[k])) - int64(int64(scale) + m) + int64(align))
                        total = int64(total + shifted(q, d, int64(mode)))
                    low = int64(m - int64(align))
                    how = int64(mode)
                    if after:
                        m = max(m, ec)
                        m = max(m, int64(least)) if m > none else m
                        total = shifted(total, int64(low - int64(m - int64(join))), int64(join_mode))
                        low = int64(m - int64(join))
                        how = int64(join_mode)
                    if ec > none:
                        more = shifted(sc, int64(int64(own - int64(52)) - int64(m - int64(align))), how)
                        finer = int64(int64(join) - int64(align)) if after else int64(0)
                        total = int64(
                            int64(total << max(int64(-finer), int64(0))) + int64(more << max(finer, int64(0)))
                        )
                        low = min(low, int64(m - int64(align)))
                    u = uint64(0)
                    if total != int64(0):
                        power = compiled.float_of(uint64(uint64(int64(low + int64(1023))) << uint64(52)))
                        v = compiled.pattern_of(float64(total) * power)
                        u = core.ranged(neighbour(v, t, small, p), v, p)
                c[i, j] = u

    return add_blocks


def block_sums(t: Addends) -> Kernel:
    """Return the loop that adds blocks of products to the patterns of float64 `c`, (M, N), rounding once a block.

    `sa` (M, K) and `sb` (N, K; M where `paired`, and N = 1) are significands with a sign, integers of 2^-`scale` in all, `ea`
    and `eb` exponents, `NO_EXPONENT` of a zero. `width` products are a block; K is a multiple. The other arguments are those
    of `Accumulator`: `mode` one of `MODES`, `least` an exponent, `emin` that of the smallest normal sum.
    """
    return _block_sums(looks_at_parity(t))
