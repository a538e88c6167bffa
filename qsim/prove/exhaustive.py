"""Walk every float32 past the kernel, and hold what it returns against `qsim.prove.sweep`.

Within a tile one value and one code are right, so the loop compares with constants and vectorizes. It is compiled for one
format and one mode, whose parameters are constants in it as well: that halves the time. `directed_difference` calls the
drivers of the library instead, with parameters as arguments, on patterns that are more likely to go wrong than others.
"""

from __future__ import annotations

import functools
import os
import sys
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from types import ModuleType
from typing import Any, Self, TextIO

import numba
import numpy as np
from numpy import uint32, uint64
from numpy.typing import NDArray

from qsim.kernels import core as scalar_core
from qsim.kernels import cpu
from qsim.kernels.core import Parameters, Stochastic, Thresholds
from qsim.prove.sweep import GOING_OUT, Intervals, Tiles, Words, expected
from qsim.rounding import Mode

__all__ = [
    "ALL", "Meter", "Span", "beside_wide_difference", "directed_difference", "first_carry_difference", "first_difference",
    "first_wide_difference",
]  # fmt: skip

Span = tuple[int, int]
"""The first and the last of the patterns to walk."""

ALL: Span = (0, (1 << 32) - 1)
PIECE = 1 << 25
"""Patterns that a thread takes at a time: some hundredths of a second, after which the bar moves and Ctrl-C is heard."""

Loop = Callable[..., Any]


@functools.lru_cache(maxsize=1)
def rounding_loop(core: ModuleType, t: Thresholds, p: Parameters) -> Loop:
    """Return the loop over tiles, compiled for these thresholds and parameters.

    It takes the first and the last patterns of tiles and their results, and returns the first wrong pattern; -1 for none.
    """
    round_bits, encode_bits = core.round_bits, core.encode_bits

    @numba.njit(nogil=True)
    def count(first: Any, last: Any, value: Any, code: Any) -> Any:
        wrong = 0
        for i in range(last - first + 1):
            u = uint32(first + i)
            negative = u >= p.sign
            even = t.even_neg if negative else t.even_pos
            odd = t.odd_neg if negative else t.odd_pos
            y = round_bits(u, even, odd, t.sticky, p)
            wrong += 1 if (y != value or encode_bits(y, p) != code) else 0
        return wrong

    @numba.njit(nogil=True)
    def walk(first: Any, last: Any, value: Any, code: Any) -> Any:
        for k in range(first.size):
            if count(first[k], last[k], value[k], code[k]):
                u = first[k]
                while not count(u, u, value[k], code[k]):
                    u += 1
                return u
        return -1

    loop: Loop = walk
    return loop


def first_difference(
    tiles: Tiles,
    t: Thresholds,
    p: Parameters,
    *,
    span: Span = ALL,
    advance: Callable[[float], None] = lambda _: None,
    core: ModuleType = scalar_core,
) -> int | None:
    """Return the first pattern of `span` whose rounding, by `t` and `p`, is not as its tile says; or `None`.

    `advance` is told, by any thread, how many patterns have been walked since it was told last. `core` is the module whose
    `round_bits` and `encode_bits` are walked.
    """
    narrow = [tiles.value.astype(np.uint32), tiles.code.astype(np.uint32)]
    return in_pieces(rounding_loop(core, t, p), tiles.first, tiles.last, narrow, span, advance)


@functools.lru_cache(maxsize=1)
def carrying_loop(core: ModuleType, mode: Mode, n: int, p: Parameters) -> Loop:
    """Return the loop over intervals, compiled for a mode with words of `n` bits.

    Each number is rounded with the smallest word that takes it to the outer neighbour, and with the word below, which does
    not. Where no word does, or all do, that is the word 0 twice over and the largest, which wrap round to each other. The
    bits below the word, which must not matter, are those that would do harm.
    """
    round_bits, encode_bits, threshold = core.round_bits, core.encode_bits, core.stochastic_threshold
    going_out = GOING_OUT[mode]
    bits, whole, places, spare = uint64(n), uint64(1 << n), uint64(32 - n), uint32((1 << (32 - n)) - 1)
    largest, one, none = uint64((1 << n) - 1), uint64(1), uint64(0)

    @numba.njit(nogil=True)
    def count(first: Any, last: Any, origin: Any, width: Any, v0: Any, c0: Any, v1: Any, c1: Any, source: Any) -> Any:
        wrong = 0
        for i in range(last - first + 1):
            u = uint32(first + i)
            words = going_out(uint64(first - origin + i), width, bits)
            at = uint32(uint64(uint64(whole - words) & largest) << places)
            t, sticky = threshold(at, source)
            y = round_bits(u, t, t, sticky, p)
            out = words > none
            wrong += 1 if (y != (v1 if out else v0) or encode_bits(y, p) != (c1 if out else c0)) else 0
            below = uint32(uint32(uint64(uint64(whole - words - one) & largest) << places) | spare)
            t, sticky = threshold(below, source)
            y = round_bits(u, t, t, sticky, p)
            out = words == whole
            wrong += 1 if (y != (v1 if out else v0) or encode_bits(y, p) != (c1 if out else c0)) else 0
        return wrong

    @numba.njit(nogil=True)
    def walk(
        first: Any, last: Any, origin: Any, width: Any, v0: Any, c0: Any, v1: Any, c1: Any, source: Any
    ) -> Any:  # fmt: skip
        for k in range(first.size):
            if count(first[k], last[k], origin[k], width[k], v0[k], c0[k], v1[k], c1[k], source):
                u = first[k]
                while not count(u, u, origin[k], width[k], v0[k], c0[k], v1[k], c1[k], source):
                    u += 1
                return u
        return -1

    loop: Loop = walk
    return loop


def first_carry_difference(
    intervals: Intervals,
    mode: Mode,
    n: int,
    source: Stochastic,
    p: Parameters,
    *,
    span: Span = ALL,
    advance: Callable[[float], None] = lambda _: None,
    core: ModuleType = scalar_core,
) -> int | None:
    """Return the first pattern of `span` whose rounding with a word at its carry, or just below, is wrong; or `None`."""
    first, last, offset, width, *results = intervals
    origin = first.astype(np.int64) - offset.astype(np.int64)
    narrow: list[NDArray[Any]] = [origin, width, *(result.astype(np.uint32) for result in results)]
    return in_pieces(carrying_loop(core, mode, n, p), first, last, narrow, span, advance, source)


Driver = Callable[[Words, Words], object]
"""Rounds an array of patterns of float64 into another."""

CHUNK = 1 << 15
"""Patterns that are widened at a time: 256 KiB, inside the second-level cache."""


def first_wide_difference(
    tiles: Tiles, driver: Driver, *, span: Span = ALL, advance: Callable[[float], None] = lambda _: None
) -> int | None:
    """Return the first float32 pattern of `span` that `driver` rounds, widened to float64, otherwise than its tile says.

    The values of the tiles are patterns of float64, those of `sweep.widened`; `None` if all are right.
    """

    def walk(first: NDArray[np.int64], last: NDArray[np.int64], value: Words) -> int:
        for low in range(int(first[0]), int(last[-1]) + 1, CHUNK):
            high = min(low + CHUNK - 1, int(last[-1]))
            some = slice(int(np.searchsorted(last, low)), int(np.searchsorted(first, high, "right")))
            right = np.repeat(value[some], np.minimum(last[some], high) - np.maximum(first[some], low) + 1)
            wrong = np.flatnonzero(rounded_wide(np.arange(low, high + 1), driver) != right)
            if wrong.size:
                return low + int(wrong[0])
        return -1

    return in_pieces(walk, tiles.first, tiles.last, [tiles.value], span, advance)


def widened(patterns: NDArray[Any]) -> Words:
    """Return the float64 patterns of float32 patterns, as an array's conversion has them."""
    with np.errstate(invalid="ignore"):  # of signalling NaNs
        return patterns.astype(np.uint32).view(np.float32).astype(np.float64).view(np.uint64)


def rounded_wide(patterns: NDArray[Any], driver: Driver) -> Words:
    """Return what `driver` makes of float32 patterns, widened."""
    x = widened(patterns)
    driver(x, y := np.empty_like(x))
    return y


def in_pieces(
    loop: Loop,
    first: Words,
    last: Words,
    columns: Sequence[NDArray[Any]],
    span: Span,
    advance: Callable[[float], None],
    *others: Any,
) -> int | None:
    """Walk the runs of `span` in pieces, by as many threads as there are cores; return the first wrong pattern, if any."""
    begins, ends = first.astype(np.int64), last.astype(np.int64)

    def walk(low: int) -> int:
        high = min(low + PIECE - 1, span[1])
        some = slice(int(np.searchsorted(ends, low)), int(np.searchsorted(begins, high, "right")))
        found = loop(
            np.maximum(begins[some], low), np.minimum(ends[some], high), *(column[some] for column in columns), *others
        )
        advance(high - low + 1)
        return int(found)

    pool = ThreadPoolExecutor(threads())
    try:
        return next((found for found in pool.map(walk, range(span[0], span[1] + 1, PIECE)) if found >= 0), None)
    finally:
        pool.shutdown(cancel_futures=True)


def threads() -> int:
    """Return the number of cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


# --- The library's own loops, on chosen patterns ------------------------------------------------------------


def directed_difference(tiles: Tiles, patterns: Words, t: Thresholds, p: Parameters) -> int | None:
    """Return the first of `patterns`, which ascend, that the drivers round or encode otherwise than the tiles; or `None`."""
    x = patterns.astype(tiles.carrier.word)
    y, codes = np.empty_like(x), np.empty(x.size, np.uint32)
    cpu.round_by_thresholds(x, y, t, p)
    cpu.encode(y, codes, p)
    value, code = expected(tiles, patterns)
    wrong = np.flatnonzero((y != value) | (codes != code))
    return int(patterns[wrong[0]]) if wrong.size else None


def beside_wide_difference(tiles: Tiles, driver: Driver, count: int = 1 << 12) -> int | None:
    """Return a float32 pattern at or beside an end of a tile, or of `count` others, that is wrong as above; or `None`."""
    ends = np.concatenate([tiles.first, tiles.last]).astype(np.int64)
    others = np.random.default_rng(2).integers(0, 1 << 32, count)
    near = np.concatenate([(ends[:, np.newaxis] + np.arange(-1, 2)).reshape(-1), others])
    patterns = np.unique(near[(near >= 0) & (near < 1 << 32)]).astype(np.uint64)
    wrong = np.flatnonzero(rounded_wide(patterns, driver) != expected(tiles, patterns)[0])
    return int(patterns[wrong[0]]) if wrong.size else None


# --- How far it has come -----------------------------------------------------------------------------------


class Meter:
    """Say on stderr how far a long walk has come: a bar on a terminal, elsewhere a line every half minute.

    It writes to the process's own stderr, which pytest leaves alone where capturing is disabled.
    """

    def __init__(self, total: float, stream: TextIO | None = None, every: float = 30.0) -> None:
        self.total, self.done, self.name, self.every = total, 0.0, "", every
        self.stream = stream or sys.__stderr__ or sys.stderr
        self.lock = threading.Lock()
        self.bar: Any = None

    def __enter__(self) -> Self:
        self.began = self.said = time.monotonic()
        if self.stream.isatty():
            from rich.console import Console
            from rich.progress import (
                BarColumn,
                Progress,
                TextColumn,
                TimeElapsedColumn,
                TimeRemainingColumn,
            )

            columns = (TextColumn("{task.description:28}"), BarColumn(), TextColumn("{task.percentage:.1f} %"),
                       TimeElapsedColumn(), TextColumn("left:"), TimeRemainingColumn())  # fmt: skip
            self.bar = Progress(*columns, console=Console(file=self.stream), transient=True)
            self.task = self.bar.add_task("", total=self.total)
            self.bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self.bar:
            self.bar.stop()

    def begin(self, name: str) -> None:
        """Say what comes next."""
        self.name = name
        if self.bar:
            self.bar.update(self.task, description=name)

    def advance(self, amount: float) -> None:
        """Note that `amount` of the total has been done; any thread may."""
        with self.lock:
            self.done += amount
            now = time.monotonic()
            if self.bar:
                self.bar.update(self.task, completed=self.done)
            elif now - self.said >= self.every:
                self.said, share = now, self.done / self.total
                spent, left = (now - self.began) / 60, (now - self.began) / 60 * (1 / share - 1)
                print(f"{self.name}: {share:.1%} after {spent:.1f} min, {left:.1f} left", file=self.stream, flush=True)
