"""The work that is timed: from the data of a row each function here makes a call, which the runner times.

What a call writes to exists before it is timed, and so does what it reads: a fresh output costs as much as a copy.
"""

from __future__ import annotations

import functools
import itertools
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numba
import numpy as np
import psutil

import qsim
from qsim.arrays import code_dtype
from qsim.kernels import cpu
from qsim.kernels.parameters import addends, stochastic
from qsim.prove import exhaustive, sweep
from qsim.prove.specification import FLOAT32, pair
from qsim.rounder import How, plan_of
from qsim.rounding import Mode, Quantizer, saturations

Call = Callable[[], Any]
Maker = Callable[["Data"], Call]
"""Makes a call of the data of a row. It raises `ImportError` where the call cannot be made here, and says why."""

KEY = qsim.Key(seed=1)
PIECE = 1 << 20
"""Elements that are drawn at a time, so that drawing 2^30 takes no memory beside them."""
STEPS = 20
"""Training steps in one call, so that the one change from rounding to products in the sum of the parts is a small share."""


class Data:
    """Hold what the calls of one row read and write, each array made when it is first asked for."""

    def __init__(self, kind: str, elements: int, threads: int, folder: Path) -> None:
        self.kind, self.elements, self.threads, self.folder = kind, elements, threads, folder

    @functools.cached_property
    def x(self) -> np.ndarray:
        """Return the input: by `kind` normal numbers, all bit patterns alike, or others that are spelled out here."""
        rng = np.random.default_rng(self.elements)
        if self.kind == "strided":
            return Data("ordinary", 2 * self.elements, self.threads, self.folder).x[::2]
        x = self.empty(np.float64 if self.kind == "float64" else np.float32, "x")
        for start in range(0, x.size, PIECE):
            some = x[start : start + PIECE]
            if self.kind == "patterns":
                some.view(np.uint32)[:] = rng.integers(0, 1 << 32, some.size, np.uint32)
            else:
                rng.standard_normal(out=some, dtype=some.dtype)
                some *= 8
        return x

    @functools.cached_property
    def out(self) -> np.ndarray:
        """Return the array for values, like the input."""
        return self.empty(self.x.dtype, "out")

    @functools.cached_property
    def words(self) -> np.ndarray:
        """Return a random word of 8 bits for each element, in the type that the kernel of float32 reads."""
        return np.random.default_rng(3).integers(0, 256, self.elements, np.uint32)

    @functools.cached_property
    def ordinary(self) -> Data:
        """Return as many normal numbers."""
        return Data("ordinary", self.elements, self.threads, self.folder)

    def codes(self, fmt: str) -> np.ndarray:
        """Return an array for the codes of a format."""
        return self.empty(code_dtype(qsim.get_format(fmt)), "codes")

    def empty(self, dtype: Any, name: str) -> np.ndarray:
        """Return an array whose pages are there: in memory, or in a file where the row says so or memory is too small."""
        size = self.elements * np.dtype(dtype).itemsize
        if self.kind == "mapped" or 4 * size > psutil.virtual_memory().available:
            file = self.folder / f"{name}-{self.elements}"
            array = np.asarray(np.memmap(file, dtype, "w+", shape=(self.elements,)))
        else:
            array = np.empty(self.elements, dtype)
        array.fill(0)
        return array


# --- qsim -------------------------------------------------------------------------------------------------------------


def values(fmt: str, mode: str = "RNE", **options: Any) -> Maker:
    """Round to values."""
    return lambda data: functools.partial(qsim.quantize, data.x, fmt, mode, out=data.out, **options)


def codes(fmt: str, mode: str = "RNE", **options: Any) -> Maker:
    """Round to codes."""
    return lambda data: functools.partial(qsim.encode, data.x, fmt, mode, out=data.codes(fmt), **options)


def by_words(fmt: str, mode: str) -> Maker:
    """Round to values by random words that are given."""
    return lambda data: functools.partial(qsim.quantize, data.x, fmt, mode, out=data.out, sr_bits=8, rbits=data.words)


def decoded(fmt: str) -> Maker:
    """Decode codes."""
    return lambda data: functools.partial(qsim.decode, qsim.encode(data.x, fmt), fmt, out=data.out)


def looped(fmt: str, mode: str = "RNE", *, codes: bool = False, scale: float | None = None, **options: Any) -> Maker:
    """Run the loop alone, without the call around it."""

    def make(data: Data) -> Call:
        q = Quantizer(fmt, Mode[mode], **options)
        plan = plan_of(How(q, q.sr_bits, q.eps, None), data.x.dtype, codes=codes)
        x, y = data.x.view(plan.words.dtype), data.codes(fmt) if codes else data.out.view(plan.words.dtype)
        if scale is not None:
            limit = () if codes else (np.inf,)
            rows = data.x[None], y[None] if codes else data.out[None], np.array([scale], data.x.dtype)
            return functools.partial(plan.scaled, *rows, *limit, plan.words)
        if plan.drawn is not None:
            return functools.partial(plan.drawn, x, y, 1, 0, 0, 0, plan.words)
        return functools.partial(plan.loop, x, y, plan.words)

    return make


def drawn(data: Data) -> Call:
    """Draw a random word for each element."""
    return functools.partial(cpu.fill, data.words, 0, 1, 0)


def swept(fmt: str, mode: str) -> Maker:
    """Hold the kernel against the reference's thresholds on as many float32 as there are elements.

    The thresholds in exact arithmetic are part of it; the loop, which is compiled once for many formats, is there already.
    """

    def make(data: Data) -> Call:
        to, by, span = qsim.get_format(fmt), Mode[mode], (0, data.elements - 1)
        rule = saturations(to)[0]

        def call() -> None:
            for known in (sweep.line, sweep.starts):
                known.cache_clear()
            both = pair(to, rule, FLOAT32, by)
            if by.stochastic:
                source = stochastic(by, 32, FLOAT32.dtype)
                found = exhaustive.first_carry_difference(sweep.intervals(to, rule), by, 32, source, both, span=span)
            else:
                right = sweep.tiles(to, by, rule, FLOAT32)
                found = exhaustive.first_difference(right, addends(by, FLOAT32.dtype), both, span=span)
            if found is not None:
                raise AssertionError(f"{fmt}:{mode} rounds the pattern {found:#010x} wrongly")

        return call

    return make


# --- What it is held against ------------------------------------------------------------------------------------------


@numba.njit(nogil=True)
def copy_part(x, out):  # noqa: D103 - what it says
    for i in range(x.size):
        out[i] = x[i]


@numba.njit(nogil=True)
def fill_part(out):  # noqa: D103 - what it says
    for i in range(out.size):
        out[i] = 1


def copy(data: Data) -> Call:
    """Copy the input by as many threads: one by NumPy, several by a compiled loop in each of them."""
    if data.threads == 1:
        return functools.partial(np.copyto, data.out, data.x)
    return shared(copy_part, data.threads, data.x, data.out)


def fill(data: Data) -> Call:
    """Write a number to each value, with nothing read."""
    if data.threads == 1:
        return functools.partial(data.out.fill, 1)
    return shared(fill_part, data.threads, data.out)


def shared(loop: Any, threads: int, *arrays: np.ndarray) -> Call:
    """Return the call of a compiled loop that each thread runs over its part of the arrays.

    The threads are Python's. Those of Numba's parallel loops spin for some milliseconds when they are done, on the core that
    the next candidate wants.
    """
    ends = [arrays[0].size * k // threads for k in range(threads + 1)]
    parts = [[array[start:stop] for array in arrays] for start, stop in itertools.pairwise(ends)]
    pool = ThreadPoolExecutor(threads - 1)

    def call() -> None:
        started = [pool.submit(loop, *part) for part in parts[1:]]
        loop(*parts[0])
        for other in started:
            other.result()

    return call


def on_ordinary(make: Maker) -> Maker:
    """Do the same with normal numbers."""
    return lambda data: make(data.ordinary)


# --- A training step --------------------------------------------------------------------------------------------------

LAYERS = (784, 256, 256, 10)
BATCH = 128


def training(*, alternating: bool, torch: bool = False) -> Maker:
    """Round what a step of a small network multiplies, and multiply it: in turn, or first all of the one, then the other.

    Both are the same calls in another order, forward in E4M3 and backward in E5M2, `STEPS` steps of them. The products
    are NumPy's, or those of torch, whose threads are others.
    """

    def make(data: Data) -> Call:
        multiply = np.matmul
        if torch:
            import torch as library

            library.set_num_threads(data.threads)

            def multiply(a, b, out):
                library.mm(library.from_numpy(a), library.from_numpy(b), out=library.from_numpy(out))

        rng = np.random.default_rng(4)
        roundings: list[list[Call]] = []
        products: list[list[Call]] = []
        for m, n in itertools.pairwise(LAYERS):
            act, weight, grad = (rng.standard_normal(s, np.float32) for s in ((BATCH, m), (m, n), (BATCH, n)))
            low_act, low_weight, low_grad = map(np.empty_like, (act, weight, grad))
            forward, back, update = (np.empty(s, np.float32) for s in ((BATCH, n), (BATCH, m), (m, n)))
            tensors = ((act, low_act, "e4m3"), (weight, low_weight, "e4m3"), (grad, low_grad, "e5m2"))
            roundings.append([functools.partial(qsim.quantize, x, fmt, out=low) for x, low, fmt in tensors])
            factors = (
                (low_act, low_weight, forward),
                (low_grad, low_weight.T, back),
                (low_act.T, low_grad, update),
            )
            products.append([functools.partial(multiply, a, b, out=out) for a, b, out in factors])
        if alternating:
            step = [call for pair in zip(roundings, products, strict=True) for calls in pair for call in calls]
            calls = step * STEPS
        else:
            calls = [call for kind in (roundings, products) for call in [*itertools.chain(*kind)] * STEPS]
        return lambda: [call() for call in calls]

    return make


# --- Processes --------------------------------------------------------------------------------------------------------

FIRST_CALL = "import numpy, qsim; qsim.quantize(numpy.ones(1 << 16, numpy.float32), 'e4m3', {how})"
NEAREST, STOCHASTIC = FIRST_CALL.format(how="'RNE'"), FIRST_CALL.format(how="'SR', key=qsim.Key(0)")

MEMORY = """
import pathlib, re, sys
import numpy, qsim
def held(name):
    return 1024 * int(re.search(name + r":\\s*(\\d+)", pathlib.Path("/proc/self/status").read_text())[1])
def call(x):
    return {call}
call(numpy.ones(1 << 20, numpy.float32))  # loads the kernels, threads and all, which are not memory of a rounding
x = numpy.ones({elements}, numpy.float32)
before = held("VmRSS")
y = call(x)
print(held("VmHWM") - before - y.nbytes)
"""


def process(*argv: str, cache: str = "", needs: str = "") -> Maker:
    """Run Python with `argv`: its kernels cached as usual, or "warm" or "cold", in a folder of the benchmark's own.

    `needs` names a package that it imports.
    """

    def make(data: Data) -> Call:
        if needs:
            __import__(needs)
        # Compiled modules are kept, as they are where a package is installed: else each start would compile qsim's alone.
        environment = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}

        def call() -> str:
            if cache:
                warm = data.folder / "kernels"
                environment["NUMBA_CACHE_DIR"] = str(warm if cache == "warm" else tempfile.mkdtemp(dir=data.folder))
            command = [sys.executable, *argv]
            # In a folder of no modules, since Python looks there first.
            how = {"cwd": data.folder, "env": environment, "capture_output": True, "text": True, "check": False}
            done = subprocess.run(command, **how)  # noqa: S603, PLW1510 - the lines of the rows
            if done.returncode:
                raise RuntimeError(f"{' '.join(argv)}: {done.stderr.strip().splitlines()[-1]}")
            return done.stdout

        return call

    return make


def memory(call: str) -> Maker:
    """Return how many bytes more than its output a call takes at its peak, in a process of its own."""

    def make(data: Data) -> Call:
        if not Path("/proc/self/status").exists():
            raise ImportError("the peak of memory is read from /proc, which this system lacks")
        run = process("-c", MEMORY.format(call=call, elements=data.elements))(data)
        return lambda: int(run())

    return make
