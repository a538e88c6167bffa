"""Parts of one array on several threads: plain Python threads, since a compiled loop gives up the interpreter's lock.

They wait for work without spinning, so that they take no core from a BLAS, which Numba's own pool does; any thread of the
program may call, and a forked child begins with none. Results do not depend on how many there are.
"""

from __future__ import annotations

import contextlib
import functools
import itertools
import os
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor, wait
from typing import Any

from qsim.errors import InputError, integer
from qsim.interrupts import kept_for_the_end
from qsim.underflow import gradual_underflow

__all__ = ["ALIGNMENT", "MANY", "get_threads", "in_chunks", "in_parts", "one_blas_thread", "product", "set_threads"]

LEAST = 1 << 17
"""Elements below which a part is not worth handing over: it takes some tens of microseconds to wake a thread."""

MANY = 2 * LEAST
"""Elements from which on there may be several parts."""

ALIGNMENT = 64
"""Parts begin at a multiple of this many elements: at a cache line of bytes, and at a whole block of random words."""

lock = threading.Lock()
pool: ThreadPoolExecutor | None = None
wanted: int | None = None


def available() -> int:
    """Return how many threads the process may use: NUMBA_NUM_THREADS, OMP_NUM_THREADS, or one for each of its cores."""
    for name in ("NUMBA_NUM_THREADS", "OMP_NUM_THREADS"):
        first = os.environ.get(name, "").split(",")[0].strip()  # OpenMP takes a list, a number for each level
        if first.isdigit() and int(first):
            return int(first)
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def get_threads() -> int:
    """Return how many threads share a large array."""
    return available() if wanted is None else wanted


def set_threads(count: int | None) -> None:
    """Let `count` threads share a large array; `None`: as many as the environment says, or as there are cores.

    Raise `InputError` for anything else than a positive number.
    """
    global pool, wanted
    number = None if count is None else integer("the number of threads", count)
    if number is not None and not 1 <= number <= 1024:
        raise InputError(f"the number of threads is 1 to 1024, not {number}")
    with lock:
        former, pool, wanted = pool, None, number
    if former is not None:
        former.shutdown(wait=False)


def in_parts(count: int, work: Callable[[int, int], object]) -> None:
    """Call work(begin, end) for parts that make up 0 .. count, at once if there are many elements, the last part here."""
    parts = min(get_threads(), count // LEAST) if count >= MANY else 1
    if parts <= 1:
        work(0, count)
        return
    size = -(-count // (parts * ALIGNMENT)) * ALIGNMENT
    begins = range(0, count, size)
    started: list[Future[object]] = []
    try:
        started.extend(submit(work, begin, begin + size) for begin in begins[:-1])
        work(begins[-1], count)
    finally:
        wait(started)  # whatever happens here, the arrays are the others' until they are done
    for part in started:
        part.result()


def in_chunks(chunks: int, elements: int, work: Callable[[int], object]) -> None:
    """Call work(k) for each of the `chunks` of an array of so many elements, on several threads if there are many of these.

    Meanwhile a BLAS runs on one thread: each of ours has products of its own, whose digits then depend on no number of threads.
    Other threads do not warn of infinities and NaN.
    """

    def some(first: int, end: int) -> None:
        for k in range(first, end):
            work(k)

    def quietly(first: int, end: int) -> None:
        import numpy as np  # whoever only asks for the number of threads waits for none

        with np.errstate(all="ignore"):  # as here, for NumPy's state is a thread's own
            some(first, end)

    parts = min(get_threads(), chunks) if elements >= MANY else 1
    with one_blas_thread():
        ends = [chunks * part // parts for part in range(parts + 1)]
        started: list[Future[object]] = []
        try:
            started.extend(submit(quietly, begin, end) for begin, end in itertools.pairwise(ends[:-1]))
            some(*ends[-2:])
        finally:
            wait(started)
    for part in started:
        part.result()


@functools.cache
def libraries() -> Any:
    """Return a controller of the BLAS libraries that are loaded; found once.

    The search takes the loader's lock and then the interpreter's; a thread that imports compiled code takes them in the other
    order, and both wait for ever. So nothing of ours imports in a thread. The loader also calls back, for each library, and
    knows nothing of exceptions: a Ctrl-C in there would be lost.
    """
    from threadpoolctl import ThreadpoolController

    with kept_for_the_end():
        return ThreadpoolController().select(user_api="blas")


@contextlib.contextmanager
def one_blas_thread() -> Iterator[None]:
    """Let BLAS libraries use one thread inside the block."""
    controllers = libraries().lib_controllers
    before = [library.num_threads for library in controllers]
    for library, threads in zip(controllers, before, strict=True):
        if threads != 1:
            library.set_num_threads(1)
    try:
        yield
    finally:
        for library, threads in zip(controllers, before, strict=True):
            if threads != 1:
                library.set_num_threads(threads)


flushing: bool | None = None
"""Whether threads of a BLAS make zeros of subnormal numbers; `None` before a product has shown it."""
alone: bool = False
"""Whether a BLAS had one thread when the present pass asked, so that nothing is known of others."""


def new_pass() -> None:
    """Let the next product ask again whether a BLAS has threads of its own: their number may be another in each pass."""
    global alone  # noqa: PLW0603 - of the process, as the threads are
    alone = False


def blas_flushes() -> bool:
    """Return whether threads of a BLAS make zeros of subnormal numbers.

    It starts them when it is loaded, most often by `import numpy`, and they have the flags that their thread had then for ever:
    nobody can tell them otherwise (`qsim.underflow`). A product of small numbers shows it, once.
    """
    global flushing, alone  # noqa: PLW0603 - asked once, and once a pass while there is one thread
    if alone:
        return False
    if flushing is None:
        if all(library.num_threads == 1 for library in libraries().lib_controllers):
            alone = True
            return False
        import numpy as np

        rows, columns = (np.full(shape, 2.0**-70, np.float32) for shape in ((512, 4), (4, 512)))
        flushing = not (rows @ columns).all()
    return flushing


def product(a: Any, b: Any) -> Any:
    """Return a @ b, on one thread of the BLAS if its others make zeros of subnormal numbers."""
    if not blas_flushes():
        return a @ b
    with one_blas_thread():
        return a @ b


def submit(work: Callable[[int, int], object], begin: int, end: int) -> Future[object]:
    """Hand a part to the pool, which is made if need be."""
    global pool  # noqa: PLW0603 - likewise
    with lock:
        if pool is None:
            pool = ThreadPoolExecutor(max(get_threads() - 1, 1), thread_name_prefix="qsim")
        return pool.submit(gradual_underflow(work), begin, end)  # a thread has flags of its own


def forget() -> None:
    """Leave the threads of a parent process, which a forked child does not have."""
    global lock, pool
    lock, pool = threading.Lock(), None


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=forget)
