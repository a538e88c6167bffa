"""Processes: how many workers there may be, that none outlives who started it, and what memory one keeps."""

from __future__ import annotations

import contextlib
import ctypes
import functools
import os
import threading
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from concurrent.futures import Executor

__all__ = ["cores", "end_with", "keep_freed_memory", "workers"]


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


@contextlib.contextmanager
def workers(jobs: int) -> Iterator[Executor]:
    """Give an executor of `jobs` processes; they are ended when the body is left, at once where it is left early."""
    from joblib.externals.loky import get_reusable_executor

    executor = get_reusable_executor(max_workers=jobs, initializer=end_with, initargs=(os.getpid(),))
    finished = False
    try:
        yield executor
        finished = True
    finally:
        executor.shutdown(wait=True, kill_workers=not finished)


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
