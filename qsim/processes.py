"""Worker processes: how many there may be, and that none outlives who started it."""

from __future__ import annotations

import contextlib
import os
import threading
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from concurrent.futures import Executor

__all__ = ["cores", "end_with", "workers"]


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
