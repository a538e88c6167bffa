"""Walk every float32 past the kernel, and compare its results with `qsim.prove.sweep`.

Within a tile one value and one code are right, so the loop compares with constants and vectorizes. It calls the functions of
the core that the library's loops call; `directed_difference` calls these loops themselves, on patterns that are more likely to
go wrong than others.
"""

from __future__ import annotations

import functools
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
from qsim.kernels.compiled import portable
from qsim.kernels.core import Addends, Parameters, Stochastic
from qsim.kernels.lowering import wide_vectors
from qsim.kernels.parameters import Shortcut, route, shortcut
from qsim.processes import cores
from qsim.prove.specification import Pair
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

GRID = slice(Parameters._fields.index("largest"), Parameters._fields.index("smallest"))
"""The fields of `Parameters` that say where the grid lies: the same for values and for codes."""
FIRST, END = GRID.start, GRID.stop


@portable
def on_grid(q: Any, p: Any) -> Any:
    """Return `q` with the grid of `p`, which is its own: a compiler that is told so rounds once for both."""
    return Parameters(*(q[:FIRST] + p[FIRST:END] + q[END:]))


@portable
def as_they_are(q: Any, p: Any) -> Any:  # noqa: ARG001 - instead of `on_grid`
    """Return `q`, whose grid is another: one of both is wrong."""
    return q


def grids(both: Pair) -> Loop:
    """Return the code that a loop makes with a pair's parameters."""
    return on_grid if both.value[GRID] == both.code[GRID] else as_they_are


@functools.lru_cache(maxsize=8)
def rounding_loop(core: ModuleType, to_value: Shortcut, to_code: Shortcut, of_grid: Loop) -> Loop:
    """Return the loop over tiles, compiled for these shortcuts.

    It takes the first and the last patterns of tiles, their results, the number added in each to a fraction, and the words of
    the parameters, and returns the first wrong pattern; -1 for none.
    """
    last_to_zero = core.last_to_zero
    finish_value, finish_code = getattr(core, to_value), getattr(core, to_code)
    value_of, code_of = getattr(core, route(to_value, codes=False)), getattr(core, route(to_code, codes=True))
    value_fields, code_fields = cpu.FIELDS[False], cpu.FIELDS[True]

    @numba.njit(nogil=True)
    def count(first: Any, last: Any, value: Any, code: Any, even: Any, odd: Any, of_value: Any, of_code: Any) -> Any:
        wide_vectors()
        p = value_fields(of_value)
        q = of_grid(code_fields(of_code), p)
        small = last_to_zero(even, p)
        wrong = uint32(0)
        for i in range(last - first + 1):
            u = uint32(uint32(first) + uint32(i))
            a = uint32(u & uint32(p.sign - uint32(1)))
            y = finish_value(value_of(a, even, odd, small, p), u, p)
            c = finish_code(code_of(a, even, odd, small, q), u, q)
            wrong |= uint32(uint32(y ^ value) | uint32(c ^ code))
        return wrong

    @numba.njit(nogil=True)
    def walk(
        first: Any, last: Any, value: Any, code: Any, even: Any, odd: Any, of_value: Any, of_code: Any
    ) -> Any:  # fmt: skip
        for k in range(first.size):
            if count(first[k], last[k], value[k], code[k], even[k], odd[k], of_value, of_code):
                u = first[k]
                while not count(u, u, value[k], code[k], even[k], odd[k], of_value, of_code):
                    u += 1
                return u
        return -1

    loop: Loop = walk
    return loop


def first_difference(
    tiles: Tiles,
    t: Addends,
    both: Pair,
    *,
    span: Span = ALL,
    advance: Callable[[float], None] = lambda _: None,
    core: ModuleType = scalar_core,
) -> int | None:
    """Return the first pattern of `span` whose rounding, by `t` and `both`, is not as its tile says; or `None`.

    `advance` is told, by any thread, how many patterns have been walked since it was told last. `core` is the module whose
    functions are walked.
    """
    negative = tiles.first >= 1 << (tiles.carrier.width - 1)  # no tile has numbers of both signs
    added = [np.where(negative, *pair) for pair in ((t.even_neg, t.even_pos), (t.odd_neg, t.odd_pos))]
    columns = [column.astype(np.uint32) for column in (tiles.value, tiles.code, *added)]
    loop = rounding_loop(core, *map(shortcut, both), grids(both))
    return in_pieces(loop, tiles.first, tiles.last, columns, span, advance, *map(cpu.words_of, both))


@functools.lru_cache(maxsize=8)
def carrying_loop(core: ModuleType, mode: Mode, to_value: str, to_code: str, of_grid: Loop) -> Loop:
    """Return the loop over intervals, compiled for a mode and these shortcuts.

    Each number is rounded with the smallest word of `n` bits that takes it to the outer neighbour, and with the word below,
    which does not. Where no word does, or all do, that is the word 0 twice over and the largest, which wrap round to each
    other. The bits below the word, which must not matter, are those that would do harm.
    """
    stochastic, addend = core.stochastic, core.addend
    finish_value, finish_code = getattr(core, to_value), getattr(core, to_code)
    value_fields, code_fields, source_of = cpu.FIELDS[False], cpu.FIELDS[True], cpu.stochastic_of
    going_out = GOING_OUT[mode]
    plain = mode in (Mode.SR, Mode.SRA, Mode.SRB)
    one, none, width32 = uint64(1), uint64(0), uint64(32)

    @numba.njit(nogil=True)
    def count(
        first: Any,
        last: Any,
        origin: Any,
        width: Any,
        v0: Any,
        c0: Any,
        v1: Any,
        c1: Any,
        n: Any,
        of_value: Any,
        of_code: Any,
    ) -> Any:
        wide_vectors()
        p, source = value_fields(of_value), source_of(of_value)
        q = of_grid(code_fields(of_code), p)
        whole = uint64(one << n)
        places = uint32(width32 - n)
        some, rest = uint32(places >> uint32(1)), uint32(places - uint32(places >> uint32(1)))  # 32 at once is too far
        spare = uint32(uint64(one << uint64(places)) - one)
        wrong = uint32(0)
        for i in range(last - first + 1):
            u = uint32(uint32(first) + uint32(i))
            a = uint32(u & uint32(p.sign - uint32(1)))
            words = going_out(uint64(uint64(first - origin) + uint64(i)), width, n)
            least = uint32(uint32(0) - uint32(words))
            at = uint32(uint32(least << some) << rest)
            r, sticky = addend(at, source)
            sticky = uint32(0) if plain else sticky
            y = finish_value(stochastic(a, r, sticky, p), u, p)
            c = finish_code(stochastic(a, r, sticky, q), u, q)
            out = words > none
            wrong |= uint32(uint32(y ^ (v1 if out else v0)) | uint32(c ^ (c1 if out else c0)))
            below = uint32(uint32(uint32(uint32(least - uint32(1)) << some) << rest) | spare)
            r, sticky = addend(below, source)
            sticky = uint32(0) if plain else sticky
            y = finish_value(stochastic(a, r, sticky, p), u, p)
            c = finish_code(stochastic(a, r, sticky, q), u, q)
            out = words == whole
            wrong |= uint32(uint32(y ^ (v1 if out else v0)) | uint32(c ^ (c1 if out else c0)))
        return wrong

    @numba.njit(nogil=True)
    def walk(
        first: Any, last: Any, origin: Any, width: Any, v0: Any, c0: Any, v1: Any, c1: Any, n: Any, of_value: Any, of_code: Any
    ) -> Any:  # fmt: skip
        for k in range(first.size):
            run = (origin[k], width[k], v0[k], c0[k], v1[k], c1[k], n, of_value, of_code)
            if count(first[k], last[k], *run):
                u = first[k]
                while not count(u, u, *run):
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
    both: Pair,
    *,
    span: Span = ALL,
    advance: Callable[[float], None] = lambda _: None,
    core: ModuleType = scalar_core,
) -> int | None:
    """Return the first pattern of `span` whose rounding with a word at its carry, or just below, is wrong; or `None`."""
    first, last, offset, width, *results = intervals
    origin = first.astype(np.int64) - offset.astype(np.int64)
    narrow: list[NDArray[Any]] = [origin, width, *(result.astype(np.uint32) for result in results)]
    loop = carrying_loop(core, mode, *map(shortcut, both), grids(both))
    return in_pieces(loop, first, last, narrow, span, advance, np.uint64(n), *(cpu.words_of(p, source) for p in both))


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
    """Return the results of `driver` for float32 patterns, widened."""
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

    pool = ThreadPoolExecutor(cores())
    try:
        return next((found for found in pool.map(walk, range(span[0], span[1] + 1, PIECE)) if found >= 0), None)
    finally:
        pool.shutdown(cancel_futures=True)


# --- The library's own loops, on chosen patterns ------------------------------------------------------------


def directed_difference(tiles: Tiles, patterns: Words, t: Addends, both: Pair) -> int | None:
    """Return the first of `patterns`, which ascend, that the drivers round or encode otherwise than the tiles; or `None`."""
    x = patterns.astype(tiles.carrier.word)
    y, codes = np.empty_like(x), np.empty(x.size, np.uint32)
    cpu.round_by_addends(x, y, t, both.value)
    cpu.round_by_addends(x, codes, t, both.code, codes=True)
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
        """Print the next step."""
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
