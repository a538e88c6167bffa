"""Inputs that show faults: those at which the code changes, their neighbours, and the special values of every format.

A conversion is a step function of the bit pattern on each side of zero: it is described by the patterns at which the code
changes. They are found by bisection on the converter itself, so that rules without a formula have them as well.
"""

from __future__ import annotations

import functools

import numpy as np
from numpy.typing import NDArray

from qsim.errors import InputError
from qsim.formats import WIDEST_TABLE
from qsim.golden.converter import Converter
from qsim.golden.operands import Operands, width

__all__ = ["changes", "directed", "exhaustive", "first_words", "random"]

Bits = NDArray[np.uint64]

MOST = 1 << 10
"""Changes of a wide format that get vectors: all of them next to a power of two, or the ends, and a share of the others."""

SPLIT = 1 << 17
"""Intervals that are split at once: of more, the first ones and evenly spread others, so that some changes are not found."""

LARGEST = 1 << 24
"""Pairs of input and word that an exhaustive file may have."""


def infinity(kind: str) -> int:
    """Return the bits of infinity of a float type."""
    return {"float16": 0x7C00, "bfloat16": 0x7F80, "float32": 0x7F800000, "float64": 0x7FF << 52}[kind]


def _codes(converter: Converter, kind: str, bits: Bits, words: Bits | None = None) -> NDArray[np.int64]:
    if words is None and converter.word_bits:
        words = np.zeros(len(bits), np.uint64)
    return converter.convert(Operands(kind, bits), words)


@functools.lru_cache(maxsize=256)
def changes(converter: Converter, kind: str, word: int = 0) -> Bits:
    """Return, ascending, the patterns whose code is not that of the pattern before, both signs, of finite numbers.

    Of a converter with a random word, with `word` for all.
    """
    top, sign = infinity(kind), 1 << (width(kind) - 1)
    found = []
    for base in (0, sign):
        step = max(top >> 15, 1)
        low = np.arange(0, top, step, dtype=np.uint64)
        high = np.minimum(low + np.uint64(step), np.uint64(top))
        words = np.full(len(low), word, np.uint64) if converter.word_bits else None
        at_low = _codes(converter, kind, low | np.uint64(base), words)
        at_high = _codes(converter, kind, high | np.uint64(base), words)
        keep = at_low != at_high
        low, high, at_low, at_high = low[keep], high[keep], at_low[keep], at_high[keep]
        while len(low) and int((high - low).max()) > 1:
            if len(low) > SPLIT:  # a format that wraps changes at every integer
                some = np.unique(
                    np.concatenate([np.arange(SPLIT // 2), np.linspace(0, len(low) - 1, SPLIT // 2).astype(np.int64)])
                )
                low, high, at_low, at_high = low[some], high[some], at_low[some], at_high[some]
            middle = low + (high - low) // np.uint64(2)
            words = np.full(len(low), word, np.uint64) if converter.word_bits else None
            at = _codes(converter, kind, middle | np.uint64(base), words)
            low, high = np.concatenate([low, middle]), np.concatenate([middle, high])
            at_low, at_high = np.concatenate([at_low, at]), np.concatenate([at, at_high])
            keep = (at_low != at_high) & (high > low)
            low, high, at_low, at_high = low[keep], high[keep], at_low[keep], at_high[keep]
        found.append(np.unique(high) | np.uint64(base))
    return np.concatenate(found)


def specials(kind: str) -> Bits:
    """Return zeros, ends of the subnormal and the normal range, infinities and NaNs of a kind, of both signs."""
    if kind == "int32":
        near = np.array([0, 1, 2, 127, 128, 129, 255, 256, (1 << 30) - 1, 1 << 30, (1 << 31) - 1, 1 << 31], np.uint64)
        return np.concatenate([near, (np.uint64(1 << 32) - near) & np.uint64(0xFFFFFFFF)])
    top = infinity(kind)
    fraction = {"float16": 10, "bfloat16": 7, "float32": 23, "float64": 52}[kind]
    one = 1 << fraction
    quiet = top | one >> 1
    size = [0, 1, 2, (one >> 1) - 1, one >> 1, one - 1, one, one + 1, top - 1, top, top + 1, top | one - 1,
            quiet, quiet + 1, quiet - 1, top | (one >> 2), top | 2]  # fmt: skip
    bits = np.unique(np.array([one_of for one_of in size if one_of < 2 * top | one], np.uint64))
    bits = bits[bits < np.uint64(1 << (width(kind) - 1))]
    return np.concatenate([bits, bits | np.uint64(1 << (width(kind) - 1))])


def _values(converter: Converter, kind: str) -> Bits:
    """Return the patterns of the format's own values, as far as the type has them."""
    if converter.format.bits > WIDEST_TABLE // 2 or kind == "int32":
        return np.empty(0, np.uint64)
    try:
        values = np.asarray(converter.format.values(), np.float64)
    except InputError:  # reaches beyond float64
        return np.empty(0, np.uint64)
    values = values[np.isfinite(values)]
    if kind == "bfloat16":
        words = values.astype(np.float32).view(np.uint32)
        return np.unique(words[(words & 0xFFFF) == 0]).astype(np.uint64) >> np.uint64(16)
    with np.errstate(over="ignore", under="ignore"):
        held = values.astype(kind)
    held = held[held.astype(np.float64) == values]
    return np.unique(held.view(f"u{held.dtype.itemsize}")).astype(np.uint64)


def _thinned(at: Bits) -> Bits:
    """Return at most about `MOST` of the changes: the first and last of each side, and evenly spread ones between."""
    if len(at) <= 4 * MOST:
        return at
    share = np.linspace(0, len(at) - 1, MOST).astype(np.int64)
    half = len(at) // 2
    ends = np.concatenate([np.arange(64), half + np.arange(-64, 64), len(at) - 1 - np.arange(64)])
    return np.asarray(at[np.unique(np.concatenate([share, ends]))])


def _near(at: Bits, kind: str) -> Bits:
    """Return patterns with those just before and after, none beyond the type."""
    most = np.uint64((1 << width(kind)) - 1) if width(kind) < 64 else np.uint64(0xFFFFFFFFFFFFFFFF)
    before = np.where(at > 0, at - np.uint64(1), at)
    after = np.where(at < most, at + np.uint64(1), at)
    return np.concatenate([at, before, after])


def _single_bits(at: Bits, kind: str) -> Bits:
    """Return patterns just below changes with one bit flipped: each bit in turn, and all of them near some changes."""
    fraction = {"float16": 10, "bfloat16": 7, "float32": 23, "float64": 52}[kind]
    ties = at - np.uint64(1)  # a change of a rounding to nearest is the tie itself or the next number
    turn = np.uint64(1) << (np.arange(len(ties), dtype=np.uint64) % np.uint64(fraction))
    some = ties[np.unique(np.linspace(0, len(ties) - 1, min(16, len(ties))).astype(np.int64))] if len(ties) else ties
    every = (some[:, None] ^ (np.uint64(1) << np.arange(fraction, dtype=np.uint64))[None, :]).reshape(-1)
    return np.concatenate([ties ^ turn, (at ^ turn), every, every + np.uint64(1)])


def type_of(converter: Converter, kind: str = "") -> str:
    """Return the type that goes in: that of the model, or `kind`, by default float32."""
    if converter.input and kind and kind != converter.input:
        raise InputError(f"{converter.name} takes {converter.input}, not {kind}")
    return converter.input or kind or "float32"


def directed(converter: Converter, kind: str = "") -> tuple[Operands, Bits | None]:
    """Return inputs, and words for a stochastic converter, that show faults: directed by the places where codes change."""
    kind = type_of(converter, kind)
    if kind == "int32":
        bits = _integers(converter)
        return Operands(kind, bits), None
    at = changes(converter, kind)
    if converter.word_bits:
        return _stochastic(converter, kind)
    few = _thinned(at)
    parts = [specials(kind), _near(few, kind), _near(_values(converter, kind), kind), _single_bits(few, kind)]
    return Operands(kind, np.unique(np.concatenate(parts))), None


def _integers(converter: Converter) -> Bits:
    """Return int32 numbers next to which the code changes."""
    half = 1 << 31
    edges = np.unique(
        np.concatenate([np.linspace(-half, half - 1, 1 << 14), np.arange(-(1 << 16), 1 << 16, 8)]).astype(np.int64)
    )
    low, high = edges[:-1], edges[1:]

    def codes(values: NDArray[np.int64]) -> NDArray[np.int64]:
        return _codes(converter, "int32", values.astype(np.uint64) & np.uint64(0xFFFFFFFF))

    keep = codes(low) != codes(high)
    low, high = low[keep], high[keep]
    while len(low) and int((high - low).max()) > 1:
        middle = (low + high) // 2
        same = codes(low) == codes(middle)
        low, high = np.where(same, middle, low), np.where(same, high, np.maximum(middle, low + 1))
    near = np.concatenate([high - 2, high - 1, high, high + 1])
    near = near[(near >= -half) & (near < half)]
    return np.unique(np.concatenate([specials("int32"), near.astype(np.uint64) & np.uint64(0xFFFFFFFF)]))


def first_words(converter: Converter, x: Operands) -> Bits:
    """Return the least word with which each number's code is not that of the word 0; 2^N where there is none."""
    n = converter.word_bits
    last = (1 << n) - 1
    low, high = np.zeros(len(x), np.uint64), np.full(len(x), last, np.uint64)
    start = converter.convert(x, low)
    never = converter.convert(x, high) == start
    while int((high - low).max(initial=0)) > 1:
        middle = low + (high - low) // np.uint64(2)
        same = converter.convert(x, middle) == start
        low, high = np.where(same, middle, low), np.where(same, high, middle)
    return np.where(never, np.uint64(last) + np.uint64(1), high)


def _stochastic(converter: Converter, kind: str) -> tuple[Operands, Bits]:
    """Return values, points between them, and specials, with the words at which each turns, and others."""
    n, last = converter.word_bits, (1 << converter.word_bits) - 1
    low, high = _thinned(changes(converter, kind, 0)), _thinned(changes(converter, kind, last))
    values = _values(converter, kind)
    values = (
        values[np.unique(np.linspace(0, len(values) - 1, min(256, len(values))).astype(np.int64))]
        if len(values)
        else values
    )
    rng = np.random.default_rng(0)
    bits = np.unique(
        np.concatenate([specials(kind), _near(values, kind), _near(low[:256], kind), _near(high[:256], kind)])
    )
    sides = []
    for sign in (0, 1 << (width(kind) - 1)):
        inside = low[(low >= sign) & (low < sign + infinity(kind))]
        if len(inside) > 1:
            gap = inside[1:] - inside[:-1]
            sides += [
                inside[:-1] + (gap.astype(np.float64) * share).astype(np.uint64)
                for share in (0.5, 0.25, 0.75, 1 / 3, 0.1, 0.9)
            ]
            sides.append(inside[:-1] + (gap.astype(np.float64) * rng.random(len(gap))).astype(np.uint64))
    between = np.unique(np.concatenate(sides)) if sides else np.empty(0, np.uint64)
    if len(between) > 2 * MOST:
        between = between[rng.permutation(len(between))[: 2 * MOST]]
    bits = np.unique(np.concatenate([bits, between]))
    x = Operands(kind, bits)
    first = first_words(converter, x)
    ends = [np.zeros_like(first), np.full_like(first, last)]
    turns = [np.minimum(first, np.uint64(last)), np.where(first > 0, first, np.uint64(1)) - np.uint64(1)]
    turns.append(np.minimum(first + np.uint64(1), np.uint64(last)))
    drawn = [rng.integers(0, last, len(bits), np.uint64, endpoint=True) for _ in range(3)]
    single = [np.uint64(1) << (np.arange(len(bits), dtype=np.uint64) % np.uint64(n))]
    words = [np.minimum(w, np.uint64(last)) for w in (*ends, *turns, *drawn, *single)]
    return Operands(kind, np.tile(bits, len(words))), np.concatenate(words)


def random(converter: Converter, count: int, seed: int, kind: str = "") -> tuple[Operands, Bits | None]:
    """Return `count` uniform bit patterns, and words, from NumPy's Philox with this seed."""
    kind = type_of(converter, kind)
    rng = np.random.Generator(np.random.Philox(seed))
    bits = rng.integers(0, (1 << width(kind)) - 1, count, np.uint64, endpoint=True)
    words = None
    if converter.word_bits:
        words = rng.integers(0, (1 << converter.word_bits) - 1, count, np.uint64, endpoint=True)
    return Operands(kind, bits), words


def exhaustive(converter: Converter, kind: str = "") -> tuple[Operands, Bits | None]:
    """Return every input with every word; raise `InputError` where these are too many for a file."""
    kind = type_of(converter, kind)
    total = width(kind) + converter.word_bits
    if 1 << total > LARGEST:
        raise InputError(
            f"{converter.name} has 2^{total} pairs of input and word, and a file holds 2^24; take float16 or bfloat16 "
            "inputs, or --random"
        )
    pairs = np.arange(1 << total, dtype=np.uint64)
    words = pairs & np.uint64((1 << converter.word_bits) - 1) if converter.word_bits else None
    return Operands(kind, pairs >> np.uint64(converter.word_bits)), words
