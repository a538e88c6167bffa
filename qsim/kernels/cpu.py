"""The CPU driver: plain loops over one-dimensional, contiguous arrays of words.

Shapes that vectorize: indices run over `range(x.size)` of a slice, words are filled into a small buffer first and
used in a second loop. Nothing here knows a format: all about one rounding is an array of words, `Parameters` and then
`Addends` or `Stochastic`, so that one compiled loop serves every format. Loops differ in facts that a compiler must know to
make them short: patterns or codes come out, and which `Shortcut` holds.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, Literal

import numpy as np
from numpy import uint32, uint64

from qsim.kernels import compiled, core
from qsim.kernels.compiled import F64, I64, U64, Array, Kernel, fields_of, kernel, portable
from qsim.kernels.core import (
    HALF,
    LOW,
    Addends,
    Parameters,
    Stochastic,
    addend,
    eps_addend,
    exceeds,
    flush,
    last_to_zero,
    negative,
    of_sign,
    philox4x32_10,
    stochastic,
)
from qsim.kernels.parameters import CARRIERS, Shortcut, route, shortcut

__all__ = [
    "FIELDS", "by_addends", "by_eps", "by_key", "by_keys", "by_scales", "by_threshold", "by_words", "count", "fill",
    "flush_all", "largest", "round_by_addends", "round_by_words", "words_of",
]  # fmt: skip

BUFFER = 256
"""Random words held at a time, in scratch of the stack: so many take as long to draw as elements need to come from memory."""


BLOCK, AHEAD = 256, 512
"""Elements after which memory is asked for as many more, and how far ahead these are."""
LINE = 64
"""Bytes of a cache line."""


@portable
def ask_ahead(x: Any, begin: Any, count: Any) -> None:
    """Ask memory for the `count` elements from `begin` on, so that they are in a cache when their turn comes.

    A loop of so much arithmetic reaches only a few cache lines ahead of what it computes, which hides no memory's latency.
    """
    for line in range(count * x.itemsize // LINE + 1):
        compiled.prefetch(x, begin, LINE * line)


def carrier_fields(dtype: Any) -> dict[str, int]:
    """Return the facts about `Parameters` that follow from the type of the words."""
    carrier = CARRIERS[np.dtype(f"f{np.dtype(dtype).itemsize}")]
    sign = 1 << (carrier.width - 1)
    return {"fraction_bits": carrier.fraction_bits, "last": carrier.width - 1, "sign": sign, "inf": carrier.infinity}


def value_fields(dtype: Any) -> dict[str, int]:
    """Return the further facts known if the results are patterns."""
    carrier = carrier_fields(dtype)
    return carrier | {"keep": carrier["last"], "count": 0, "skip": 0, "flip": 0, "minus": carrier["sign"]}


def code_fields(dtype: Any) -> dict[str, int]:
    """Return the further facts known if the results are codes."""
    carrier = carrier_fields(dtype)
    return carrier | {"keep": 0, "count": 2 * carrier["sign"] - 1}


FIELDS = {codes: fields_of(Parameters, 0, known) for codes, known in ((False, value_fields), (True, code_fields))}
AFTER = len(Parameters._fields)
addends_of, stochastic_of = fields_of(Addends, AFTER), fields_of(Stochastic, AFTER)
parameters_of = FIELDS[False]

COUNTED = 1 << 16
"""Elements counted in words of their own width before these are added up."""

ONE, TWO, THREE, FOUR = uint64(1), uint64(2), uint64(3), uint64(4)
EIGHT, SIXTEEN, TWENTY_FOUR, UPPER, TOP = uint32(8), uint32(16), uint32(24), uint32(0xFFFF0000), uint32(0xFF000000)


def words_of(p: Parameters, *more: Any) -> Any:
    """Return `Parameters`, and further words, as the array of words that a loop takes."""
    return np.array([*p, *(word for fields in more for word in fields)])


# --- Deterministic modes -----------------------------------------------------------------------------------


@functools.cache
def neighbour_of(codes: bool, how: Shortcut, parity: bool) -> Callable[..., Any]:
    """Return the function for loops that rounds by a mode that looks at the lower code, `parity`, or else at the sign."""
    rounded = getattr(core, route(how, codes=codes))

    @portable
    def by_parity(u: Any, t: Any, small: Any, p: Any) -> Any:
        word = type(u)
        return rounded(word(u & word(p.sign - word(1))), t.even_pos, t.odd_pos, small[0], p)

    @portable
    def by_sign(u: Any, t: Any, small: Any, p: Any) -> Any:
        word, mask = type(u), negative(u, p)
        r = of_sign(mask, t.even_pos, t.even_neg)
        return rounded(word(u & word(p.sign - word(1))), r, r, of_sign(mask, small[0], small[1]), p)

    return by_parity if parity else by_sign


@functools.cache
def _by_addends(codes: bool, how: Shortcut, parity: bool) -> Kernel:
    fields, finish, neighbour = FIELDS[codes], getattr(core, how), neighbour_of(codes, how, parity)

    @kernel(codes, how, parity)
    def round_by_addends(x: Array, y: Array, words: Array) -> None:
        compiled.wide_vectors()
        p, t = fields(words), addends_of(words)
        small = last_to_zero(t.even_pos, p), last_to_zero(t.even_neg, p)
        for begin in range(0, x.size, BLOCK):
            some, out = x[begin : begin + BLOCK], y[begin : begin + BLOCK]
            ask_ahead(x, begin + AHEAD, some.size)
            for i in range(some.size):
                out[i] = finish(neighbour(some[i], t, small, p), some[i], p)

    return round_by_addends


@functools.cache
def _by_scales(how: Shortcut, parity: bool) -> Kernel:
    fields, finish, neighbour = FIELDS[False], getattr(core, how), neighbour_of(False, how, parity)

    @kernel(how, parity)
    def round_by_scales(x: Array, y: Array, scales: Array, limit: F64, words: Array) -> None:
        compiled.wide_vectors()
        top, bottom = x.dtype.type(limit), x.dtype.type(-limit)
        p, t = fields(words), addends_of(words)
        small = last_to_zero(t.even_pos, p), last_to_zero(t.even_neg, p)
        for k in range(x.shape[0]):
            row, scale = x[k], scales[k]
            for begin in range(0, row.size, BLOCK):
                some, out = row[begin : begin + BLOCK], y[k][begin : begin + BLOCK]
                ask_ahead(row, begin + AHEAD, some.size)
                for i in range(some.size):
                    u = compiled.pattern_of(some[i] / scale)
                    product = compiled.float_of(finish(neighbour(u, t, small, p), u, p)) * scale
                    product = top if product > top else product  # noqa: FURB136 - a NaN stays one
                    out[i] = bottom if product < bottom else product  # noqa: FURB136 - likewise

    return round_by_scales


@functools.cache
def _codes_by_scales(how: Shortcut, parity: bool) -> Kernel:
    fields, finish, neighbour = FIELDS[True], getattr(core, how), neighbour_of(True, how, parity)

    @kernel(how, parity)
    def encode_by_scales(x: Array, y: Array, scales: Array, words: Array) -> None:
        compiled.wide_vectors()
        p, t = fields(words), addends_of(words)
        small = last_to_zero(t.even_pos, p), last_to_zero(t.even_neg, p)
        for k in range(x.shape[0]):
            row, scale = x[k], scales[k]
            for begin in range(0, row.size, BLOCK):
                some, out = row[begin : begin + BLOCK], y[k][begin : begin + BLOCK]
                ask_ahead(row, begin + AHEAD, some.size)
                for i in range(some.size):
                    u = compiled.pattern_of(some[i] / scale)
                    out[i] = finish(neighbour(u, t, small, p), u, p)

    return encode_by_scales


def looks_at_parity(t: Addends) -> bool:
    """Return whether the addends of both signs are alike; a mode of which they are not does not look at codes."""
    return (t.even_pos, t.odd_pos) == (t.even_neg, t.odd_neg)


def by_addends(p: Parameters, t: Addends, *, codes: bool = False) -> Kernel:
    """Return the loop(x, y, words) that rounds every pattern of `x` into `y` by a deterministic mode."""
    return _by_addends(codes, shortcut(p), looks_at_parity(t))


def by_scales(p: Parameters, t: Addends, *, codes: bool = False) -> Kernel:
    """Return the loop(x, y, scales, limit, words) that rounds fl(x / s) and multiplies by s again, s = scales[k] in row k.

    `x` and `y` are 2-D arrays of floats; products end at `limit`. For `codes` nothing is multiplied, and there is no limit.
    """
    return (_codes_by_scales if codes else _by_scales)(shortcut(p), looks_at_parity(t))


def round_by_addends(x: Any, y: Any, t: Addends, p: Parameters, *, codes: bool = False) -> None:
    """Round every pattern of `x` into `y` by a deterministic mode."""
    by_addends(p, t, codes=codes)(x, y, words_of(p, t))


# --- Random words ------------------------------------------------------------------------------------------


@portable
def fill_blocks(words: Any, first: Any, seed: Any, stream: Any) -> None:
    """Fill `words`, a multiple of four long, with those of the blocks from `first` on, which have one upper half."""
    compiled.wide_vectors()
    k0, k1 = uint64(seed & LOW), uint64(seed >> HALF)
    c2, c3 = uint64(stream & LOW), uint64(stream >> HALF)
    lower, upper = uint64(first & LOW), uint64(first >> HALF)
    for j in range(uint64(words.size) // FOUR):
        r0, r1, r2, r3 = philox4x32_10(uint64(lower + uint64(j)), upper, c2, c3, k0, k1)
        i = uint64(FOUR * uint64(j))
        words[i] = uint32(r0)
        words[i + ONE] = uint32(r1)
        words[i + TWO] = uint32(r2)
        words[i + THREE] = uint32(r3)


@portable
def fill_words(words: Any, first: Any, seed: Any, stream: Any) -> None:
    """Fill `words` as `fill` does."""
    done, block = uint64(0), first
    while done < uint64(words.size):
        left = uint64(uint64(LOW + ONE) - uint64(block & LOW))  # blocks until the upper half of the counter changes
        end = min(uint64(words.size), uint64(done + uint64(FOUR * left)))
        fill_blocks(words[done:end], block, seed, stream)
        done, block = end, uint64(block + left)


@kernel()
def fill(words: Array, first: U64, seed: U64, stream: U64) -> None:
    """Fill the uint32 array `words` (a multiple of four long) with the words of the blocks from `first` on."""
    fill_words(words, first, seed, stream)


Kind = Literal["plain", "corrected", "one bit"]
"""What is known of a `Stochastic`: SRA and SRB only add, SRC takes one off odd words, SRE looks at a single bit."""


def known_of(kind: Kind) -> Callable[[Any], dict[str, int]]:
    """Return the facts about the fields of a kind of `Stochastic`, for `fields_of`."""
    return {
        "plain": lambda _: {"last": 0, "flip": 0, "all_or_none": 0},
        "corrected": lambda _: {"all_or_none": 0},
        "one bit": lambda dtype: {
            "half": 0,
            "last": 0,
            "flip": 0,
            "all_or_none": 2 * carrier_fields(dtype)["sign"] - 1,
        },
    }[kind]


def kind_of(source: Stochastic) -> Kind:
    """Return the facts known about `source`."""
    if source.all_or_none:
        return "one bit"
    return "corrected" if source.last or source.flip else "plain"


@functools.cache
def stochastic_rounder(codes: bool, how: Shortcut, kind: Kind) -> Callable[..., None]:
    """Return the function for loops that rounds `x` into `y` by the random words `r`."""
    fields, finish, source_of = FIELDS[codes], getattr(core, how), fields_of(Stochastic, AFTER, known_of(kind))

    @portable
    def round_all(x: Any, r: Any, y: Any, words: Any) -> None:
        compiled.wide_vectors()
        p, source = fields(words), source_of(words)
        word = type(p.sign)
        for i in range(x.size):
            added, sticky = addend(r[i], source)
            y[i] = finish(stochastic(word(x[i] & word(p.sign - word(1))), added, sticky, p), x[i], p)

    return round_all


@functools.cache
def _by_words(codes: bool, how: Shortcut, kind: Kind) -> Kernel:
    round_all = stochastic_rounder(codes, how, kind)

    @kernel(codes, how, kind)
    def round_by_words(x: Array, r: Array, y: Array, lift: U64, words: Array) -> None:
        buffer = compiled.room_like(words)
        word = words.dtype.type
        up = word(word(lift) & word(word(8 * words.itemsize) - word(1)))
        for begin in range(0, x.size, BUFFER):
            some = slice(begin, min(begin + BUFFER, x.size))
            ask_ahead(x, begin + AHEAD, some.stop - begin)
            ask_ahead(r, begin + AHEAD, some.stop - begin)
            given, lifted = r[some], buffer[: some.stop - begin]
            for i in range(given.size):
                lifted[i] = word(word(given[i]) << up)
            round_all(x[some], lifted, y[some], words)

    return round_by_words


@functools.cache
def drawing_rounder(codes: bool, how: Shortcut, kind: Kind, bits: int) -> Callable[..., None]:
    """Return the function for loops that rounds a row by words of so many `bits` that it draws.

    Words of 64 bits are two of the generator's, the first on top; those of 16 and 8 are its words cut, the lowest bits first.
    """
    round_all = stochastic_rounder(codes, how, kind)
    if bits < 32:
        return cutting_rounder(round_all, bits)

    @portable
    def round_row32(x: Any, y: Any, seed: Any, stream: Any, first: Any, before: Any, words: Any) -> None:
        buffer = compiled.room32()
        done, skip, block = 0, before, first
        while done < x.size:
            filled = min(BUFFER, 4 * ((skip + x.size - done + 3) // 4))
            ask_ahead(x, done, filled)  # they come while the words are drawn
            fill_words(buffer[:filled], block, seed, stream)
            n = min(filled - skip, x.size - done)
            round_all(x[done : done + n], buffer[skip : skip + n], y[done : done + n], words)
            done += n
            block, skip = uint64(block + uint64(filled // 4)), 0

    @portable
    def round_row64(x: Any, y: Any, seed: Any, stream: Any, first: Any, before: Any, words: Any) -> None:
        buffer, pairs = compiled.room32(), compiled.room_like(words)
        done, skip, block = 0, before, first
        while done < x.size:
            filled = min(BUFFER, 2 * ((skip + x.size - done + 1) // 2))
            ask_ahead(x, done, filled)
            fill_words(buffer[: 2 * filled], block, seed, stream)
            for i in range(uint64(filled)):
                high = uint64(buffer[TWO * uint64(i)])
                pairs[i] = uint64(uint64(high << HALF) | uint64(buffer[TWO * uint64(i) + ONE]))
            n = min(filled - skip, x.size - done)
            round_all(x[done : done + n], pairs[skip : skip + n], y[done : done + n], words)
            done += n
            block, skip = uint64(block + uint64(filled // 2)), 0

    return round_row64 if bits == 64 else round_row32


@portable
def cut16(buffer: Any, lifted: Any, words: Any) -> None:
    """Write the halves of the words of `buffer`, the lower one first, to the top of the words `lifted`."""
    word = words.dtype.type
    up = word(word(8 * words.itemsize) - word(HALF))
    for j in range(uint64(buffer.size)):
        w, i = buffer[j], uint64(TWO * uint64(j))
        lifted[i] = word(word(w << SIXTEEN) << up)
        lifted[i + ONE] = word(word(w & UPPER) << up)


@portable
def cut8(buffer: Any, lifted: Any, words: Any) -> None:
    """Write the bytes of the words of `buffer`, the lowest one first, to the top of the words `lifted`."""
    word = words.dtype.type
    up = word(word(8 * words.itemsize) - word(HALF))
    for j in range(uint64(buffer.size)):
        w, i = buffer[j], uint64(FOUR * uint64(j))
        lifted[i] = word(word(w << TWENTY_FOUR) << up)
        lifted[i + ONE] = word(word(uint32(w << SIXTEEN) & TOP) << up)
        lifted[i + TWO] = word(word(uint32(w << EIGHT) & TOP) << up)
        lifted[i + THREE] = word(word(w & TOP) << up)


def cutting_rounder(round_all: Callable[..., None], bits: int) -> Callable[..., None]:
    """Return the function for loops that rounds a row by words of 16 or 8 `bits`."""
    each, block_of, cut = 32 // bits, 128 // bits, cut16 if bits == 16 else cut8

    @portable
    def round_row_cut(x: Any, y: Any, seed: Any, stream: Any, first: Any, before: Any, words: Any) -> None:
        buffer, lifted = compiled.room32(), compiled.room_like(words)
        done, skip, block = 0, before, first
        while done < x.size:
            filled = min(BUFFER, block_of * ((skip + x.size - done + block_of - 1) // block_of))
            ask_ahead(x, done, filled)
            fill_words(buffer[: filled // each], block, seed, stream)
            cut(buffer[: filled // each], lifted, words)
            n = min(filled - skip, x.size - done)
            round_all(x[done : done + n], lifted[skip : skip + n], y[done : done + n], words)
            done += n
            block, skip = uint64(block + uint64(filled // block_of)), 0

    return round_row_cut


@functools.cache
def _by_key(codes: bool, how: Shortcut, kind: Kind, bits: int) -> Kernel:
    round_row = drawing_rounder(codes, how, kind, bits)

    @kernel(codes, how, kind, *(() if bits >= 32 else (bits,)))
    def round_by_key(x: Array, y: Array, seed: U64, stream: U64, first: U64, before: I64, words: Array) -> None:
        round_row(x, y, seed, stream, first, before, words)

    return round_by_key


@functools.cache
def _by_keys(codes: bool, how: Shortcut, kind: Kind, bits: int) -> Kernel:
    round_row = drawing_rounder(codes, how, kind, bits)

    @kernel(codes, how, kind)
    def round_by_keys(x: Array, y: Array, seed: U64, streams: Array, first: U64, before: I64, words: Array) -> None:
        for k in range(y.shape[0]):
            round_row(x[min(k, x.shape[0] - 1)], y[k], seed, streams[k], first, before, words)

    return round_by_keys


def by_words(p: Parameters, source: Stochastic, *, codes: bool = False) -> Kernel:
    """Return the loop(x, r, y, lift, words) that rounds `x` into `y`.

    Element i takes of `r[i]` 2^lift, whose bits are those of a word from its top down, the bits that `source` says.
    """
    return _by_words(codes, shortcut(p), kind_of(source))


def round_by_words(x: Any, r: Any, y: Any, source: Stochastic, p: Parameters, *, codes: bool = False) -> None:
    """Round `x` into `y` stochastically."""
    by_words(p, source, codes=codes)(x, r, y, 0, words_of(p, source))


def by_key(p: Parameters, source: Stochastic, *, codes: bool = False, bits: int = 0) -> Kernel:
    """Return the loop(x, y, seed, stream, first, before, words) that rounds `x` into `y` by the words of a stream.

    They begin in block `first`, after those of the elements `before` there. An element takes one, or of float64 two, the high
    one first; or, with `bits` = 16 or 8, so many bits of one.
    """
    return _by_key(codes, shortcut(p), kind_of(source), bits or int(p.last) + 1)


def by_keys(p: Parameters, source: Stochastic, *, codes: bool = False) -> Kernel:
    """Return the loop(x, y, seed, streams, first, before, words) that does so to each row of the 2-D `x`, by a stream each.

    Where `x` has a single row, every row of `y` is a rounding of it.
    """
    return _by_keys(codes, shortcut(p), kind_of(source), int(p.last) + 1)


@functools.cache
def by_eps(*, codes: bool = False) -> Kernel:
    """Return the loop(x, eps, y, words) of Threshold; element i has the threshold `eps[i]` / 2^W, W the width of its word."""
    fields, finish = FIELDS[codes], core.ranged

    @kernel(codes)
    def round_by_eps(x: Array, eps: Array, y: Array, words: Array) -> None:
        compiled.wide_vectors()
        p = fields(words)
        word = type(p.sign)
        for i in range(x.size):
            r, sticky = eps_addend(eps[i], x[i] >= p.sign)
            y[i] = finish(stochastic(word(x[i] & word(p.sign - word(1))), r, sticky, p), x[i], p)

    return round_by_eps


@functools.cache
def _by_threshold(codes: bool, how: Shortcut) -> Kernel:
    fields, finish = FIELDS[codes], getattr(core, how)

    @kernel(codes, how)
    def round_by_threshold(x: Array, y: Array, words: Array) -> None:
        compiled.wide_vectors()
        p, eps = fields(words), words[AFTER]
        word = type(p.sign)
        for begin in range(0, x.size, BLOCK):
            some, out = x[begin : begin + BLOCK], y[begin : begin + BLOCK]
            ask_ahead(x, begin + AHEAD, some.size)
            for i in range(some.size):
                r, sticky = eps_addend(eps, some[i] >= p.sign)
                out[i] = finish(stochastic(word(some[i] & word(p.sign - word(1))), r, sticky, p), some[i], p)

    return round_by_threshold


def by_threshold(p: Parameters, *, codes: bool = False) -> Kernel:
    """Return the loop(x, y, words) of Threshold with one threshold, eps / 2^W, which follows the parameters in `words`."""
    return _by_threshold(codes, shortcut(p))


# --- Afterwards --------------------------------------------------------------------------------------------


@kernel()
def flush_all(x: Array, y: Array, limit: U64, words: Array) -> None:
    """Copy `x` to `y` with zeros in place of elements of smaller magnitude than the pattern `limit`."""
    p = parameters_of(words)
    least = words.dtype.type(limit)
    for i in range(x.size):
        y[i] = flush(x[i], least, p)


@kernel()
def count(x: Array, y: Array, words: Array, found: Array) -> None:
    """Write into `found` how many elements of the rows of `y`, roundings of the rows of `x`, broke a hypothesis.

    Four numbers: saturated (finite, of larger magnitude than the format's largest), underflowed (not zero, and rounded
    to zero), NaN, and on the grid (finite and unchanged; signed zeros count as equal). A single row of `x` stands for all.
    """
    p = parameters_of(words)
    word = type(p.sign)
    zero, one = word(0), word(1)
    saturated, underflowed, nan, on_grid = 0, 0, 0, 0
    for k in range(y.shape[0]):
        row, out = x[min(k, x.shape[0] - 1)], y[k]
        for begin in range(0, row.size, COUNTED):
            some, result = row[begin : begin + COUNTED], out[begin : begin + COUNTED]
            over, under, none, same = zero, zero, zero, zero  # words, as wide as the elements: they become vectors
            for i in range(some.size):
                a = word(some[i] & word(p.sign - one))
                b = word(result[i] & word(p.sign - one))
                beyond, special = exceeds(a, of_sign(negative(some[i], p), p.top, p.bottom), p), exceeds(a, p.inf, p)
                finite = a < p.inf
                over = word(over + (one if (beyond and finite) else zero))
                under = word(under + (one if (a != zero and b == zero and finite) else zero))
                none = word(none + (one if special else zero))
                same = word(same + (one if (a == b and finite) else zero))
            saturated += over
            underflowed += under
            nan += none
            on_grid += same
    found[0], found[1], found[2], found[3] = saturated, underflowed, nan, on_grid


@kernel()
def largest(x: Array, y: Array, least: U64, inf: U64, sign: U64) -> None:
    """Write the largest pattern of a magnitude in each row of `x` into `y`; those below `least` or from `inf` on are none.

    Patterns of magnitudes are ordered as the numbers are, and integers have a maximum in vectors.
    """
    compiled.wide_vectors()
    word = x.dtype.type
    bits, end, last = word(word(sign) - word(1)), word(inf), word(8 * x.itemsize - 1)
    for k in range(x.shape[0]):
        row, found = x[k], word(0)
        for begin in range(0, row.size, BLOCK):
            some = row[begin : begin + BLOCK]
            ask_ahead(row, begin + AHEAD, some.size)
            for i in range(some.size):
                a = word(some[i] & bits)
                number = word(word(0) - word(word(a - end) >> last))  # all bits where a < end, which has no sign bit
                found = max(found, word(a & number))
        y[k] = found if found >= word(least) else word(0)
