"""Processes: how many workers there may be, how they end with their parent, and how much memory one keeps."""

from __future__ import annotations

import collections
import ctypes
import functools
import os
import signal
import threading
import time
from collections.abc import Callable, Generator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, wait
from typing import Any, TypeVar

from qsim.interrupts import unheard

__all__ = ["begin", "cores", "end_with", "finished", "keep_freed_memory", "kill"]

T = TypeVar("T")


def cores() -> int:
    """Return the number of cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def end_with(parent: int) -> None:
    """End this worker within a second of the end of process `parent`, which cannot see to it when it is killed."""

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(0.5)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def begin(parent: int) -> None:
    """Prepare a worker process: deaf to Ctrl-C, which a terminal sends to all, and gone when `parent` is, which ends it."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    end_with(parent)


def finished(
    jobs: int, function: Callable[..., T], tasks: Sequence[tuple[Any, ...]]
) -> Generator[tuple[int, Future[T]], None, None]:
    """Yield the number of each task, and the outcome of function(*task), as they end, computed by `jobs` processes.

    The processes are ended when the last has ended, and at once where the generator is closed. A few tasks are handed over at a
    time: over others loky's thread stumbles, aloud, when it is told to end.
    """
    from joblib.externals.loky import get_reusable_executor

    pool = get_reusable_executor(max_workers=jobs, initializer=begin, initargs=(os.getpid(),))
    waiting = collections.deque(enumerate(tasks))
    under_way: dict[Future[T], int] = {}
    through = False
    try:
        while waiting or under_way:
            while waiting and len(under_way) < 2 * jobs:
                index, task = waiting.popleft()
                under_way[submitted(pool, function, task)] = index
            for future in wait(under_way, return_when=FIRST_COMPLETED).done:
                yield under_way.pop(future), future
        through = True
    finally:
        if through:
            pool.shutdown(wait=True)
        else:
            kill(pool, list(under_way))


def submitted(pool: Any, function: Callable[..., T], task: tuple[Any, ...]) -> Future[T]:
    """Hand a task to a pool; where a process of it has died, return a future that says so."""
    from concurrent.futures.process import BrokenProcessPool

    future: Future[T]
    try:
        with unheard():
            future = pool.submit(function, *task)
    except BrokenProcessPool as error:
        future = Future()
        future.set_exception(error)
    return future


def kill(pool: Any, futures: Sequence[Future[Any]]) -> None:
    """End the processes of a pool at once.

    Its thread stumbles, aloud, over a task that was handed over a moment ago and is not yet under way; so it is waited for.
    """
    deadline = time.monotonic() + 1
    while time.monotonic() < deadline and not all(future.running() or future.done() for future in futures):
        time.sleep(0.001)
    pool.shutdown(wait=True, kill_workers=True)


@functools.cache
def keep_freed_memory() -> None:
    """Tell glibc, once, to keep freed arrays, rather than give their pages back and fault them in again at the next step.

    A step of training allocates the same arrays again and again, and without this a third of it may pass in the kernel.
    Nothing happens elsewhere than on glibc, and where the user has settings of their own (MALLOC_..., GLIBC_TUNABLES).
    """
    if any(name.startswith("MALLOC_") or name == "GLIBC_TUNABLES" for name in os.environ):
        return
    trim_threshold, top_pad, mmap_threshold = -1, -2, -3  # malloc.h
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):
        return
    for parameter, size in ((trim_threshold, 1 << 30), (top_pad, 1 << 26), (mmap_threshold, 1 << 25)):
        mallopt(parameter, size)
