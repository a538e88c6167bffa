"""The CPU driver: plain loops over one-dimensional, contiguous arrays of words.

Shapes that vectorize: indices run over `range(x.size)` of a slice, words are filled into a small buffer first and
used in a second loop. Nothing here knows a format; everything is in the `Parameters`. They, `Thresholds` and `Stochastic`
may be given as arrays of their words, which a call takes over sooner.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy import uint32, uint64

from qsim.kernels.compiled import compiled, fields_of
from qsim.kernels.core import (
    HALF,
    LOW,
    Parameters,
    Stochastic,
    Thresholds,
    encode_bits,
    eps_threshold,
    flush,
    philox4x32_10,
    round_bits,
    stochastic_threshold,
)

__all__ = [
    "count", "encode", "fill", "flush_all", "round_by_eps", "round_by_thresholds", "round_by_words", "round_rows32",
    "round_rows64",
]  # fmt: skip

BUFFER = 1024
"""Random words held at a time: 4 KiB, well inside the first-level cache."""

parameters_of, thresholds_of, stochastic_of = map(fields_of, (Parameters, Thresholds, Stochastic))

ONE, TWO, THREE, FOUR = uint64(1), uint64(2), uint64(3), uint64(4)


@compiled
def round_by_thresholds(x: Any, y: Any, t: Any, p: Any) -> None:
    """Round every pattern of `x` into `y` with the same `Thresholds`: the deterministic modes."""
    t, p = thresholds_of(t), parameters_of(p)
    for i in range(x.size):
        negative = x[i] >= p.sign
        even = t.even_neg if negative else t.even_pos
        odd = t.odd_neg if negative else t.odd_pos
        y[i] = round_bits(x[i], even, odd, t.sticky, p)


@compiled
def round_by_words(x: Any, words: Any, y: Any, source: Any, p: Any) -> None:
    """Round `x` into `y` stochastically; element i takes the bits of `words[i]` that `source` says."""
    source, p = stochastic_of(source), parameters_of(p)
    for i in range(x.size):
        threshold, sticky = stochastic_threshold(words[i], source)
        y[i] = round_bits(x[i], threshold, threshold, sticky, p)


@compiled
def round_by_eps(x: Any, eps: Any, y: Any, p: Any) -> None:
    """Round `x` into `y` by Threshold; element i has the threshold `eps[i]` / 2^W, W the width of its word."""
    p = parameters_of(p)
    for i in range(x.size):
        threshold, sticky = eps_threshold(eps[i], x[i] >= p.sign)
        y[i] = round_bits(x[i], threshold, threshold, sticky, p)


@compiled
def flush_all(x: Any, y: Any, limit: Any, p: Any) -> None:
    """Copy `x` to `y` with zeros in place of what is of smaller magnitude than the pattern `limit`."""
    p = parameters_of(p)
    for i in range(x.size):
        y[i] = flush(x[i], limit, p)


@compiled
def fill(words: Any, first: Any, seed: Any, stream: Any) -> None:
    """Fill the uint32 array `words` (a multiple of four long) with the words of the blocks from `first` on."""
    k0, k1 = uint64(seed & LOW), uint64(seed >> HALF)
    c2, c3 = uint64(stream & LOW), uint64(stream >> HALF)
    for j in range(uint64(words.size) // FOUR):
        block = uint64(first + uint64(j))
        r0, r1, r2, r3 = philox4x32_10(uint64(block & LOW), uint64(block >> HALF), c2, c3, k0, k1)
        i = uint64(FOUR * uint64(j))
        words[i] = uint32(r0)
        words[i + ONE] = uint32(r1)
        words[i + TWO] = uint32(r2)
        words[i + THREE] = uint32(r3)


@compiled
def round_rows32(x: Any, y: Any, seed: Any, streams: Any, offset: Any, source: Any, p: Any) -> None:
    """Round each row of the 2-D uint32 array `x` into `y`; row k takes the words of `streams[k]`, one an element.

    Where `x` has a single row, every row of `y` is a rounding of it.
    """
    words = np.empty(BUFFER, np.uint32)
    for k in range(y.shape[0]):
        row, out, stream = x[min(k, x.shape[0] - 1)], y[k], streams[k]
        done = np.int64(0)
        skip = np.int64(offset % FOUR)
        block = uint64(offset // FOUR)
        while done < row.size:
            filled = min(BUFFER, 4 * ((skip + row.size - done + 3) // 4))
            fill(words[:filled], block, seed, stream)
            n = min(filled - skip, row.size - done)
            round_by_words(row[done : done + n], words[skip : skip + n], out[done : done + n], source, p)
            done += n
            block = uint64(block + uint64(filled // 4))
            skip = np.int64(0)


@compiled
def round_rows64(x: Any, y: Any, seed: Any, streams: Any, offset: Any, source: Any, p: Any) -> None:
    """Round each row of the 2-D uint64 array `x` into `y`; an element takes two words, the first the high one."""
    words = np.empty(BUFFER, np.uint32)
    pairs = np.empty(BUFFER // 2, np.uint64)
    for k in range(y.shape[0]):
        row, out, stream = x[min(k, x.shape[0] - 1)], y[k], streams[k]
        done = np.int64(0)
        skip = np.int64(offset % TWO)
        block = uint64(offset // TWO)
        while done < row.size:
            filled = min(BUFFER // 2, 2 * ((skip + row.size - done + 1) // 2))
            fill(words[: 2 * filled], block, seed, stream)
            joined = pairs[:filled]
            for i in range(uint64(joined.size)):
                high = uint64(words[TWO * uint64(i)])
                joined[i] = uint64(uint64(high << HALF) | uint64(words[TWO * uint64(i) + ONE]))
            n = min(filled - skip, row.size - done)
            round_by_words(row[done : done + n], pairs[skip : skip + n], out[done : done + n], source, p)
            done += n
            block = uint64(block + uint64(filled // 2))
            skip = np.int64(0)


@compiled
def encode(y: Any, codes: Any, p: Any) -> None:
    """Write the code of every pattern of `y`, values of the format, into `codes` (an unsigned type wide enough)."""
    p = parameters_of(p)
    for i in range(y.size):
        codes[i] = encode_bits(y[i], p)


@compiled
def count(x: Any, y: Any, p: Any) -> Any:
    """Return how many elements of the rows of `y`, roundings of the rows of `x`, broke a hypothesis.

    Four numbers: saturated (finite, of larger magnitude than the format's largest), underflowed (not zero, and rounded
    to zero), NaN, and on the grid (finite and unchanged; signed zeros count as equal). A single row of `x` stands for all.
    """
    p = parameters_of(p)
    word = type(p.sign)
    saturated, underflowed, nan, on_grid = 0, 0, 0, 0
    for k in range(y.shape[0]):
        row, out = x[min(k, x.shape[0] - 1)], y[k]
        for i in range(row.size):
            a = word(row[i] & word(p.sign - word(1)))
            b = word(out[i] & word(p.sign - word(1)))
            limit = p.bottom if row[i] >= p.sign else p.top
            saturated += 1 if (a > limit and a < p.inf) else 0
            underflowed += 1 if (a > word(0) and b == word(0) and a < p.inf) else 0
            nan += 1 if a > p.inf else 0
            on_grid += 1 if (a == b and a < p.inf) else 0
    return saturated, underflowed, nan, on_grid
