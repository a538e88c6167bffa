"""A line on the terminal when kernels are compiled for longer than a second, so that nobody waits in silence."""

from __future__ import annotations

import contextlib
import sys
import threading
from collections.abc import Iterator

__all__ = ["compiling"]

PATIENCE = 1.0
"""Seconds without a word."""


@contextlib.contextmanager
def compiling(*, quiet: bool = False) -> Iterator[None]:
    """Say after a second, on a terminal at standard error, that kernels are being compiled, and where they are kept.

    Pipes, logs and --json get no line, for programs read them; nor does the library say one, whose terminal is its user's.
    """
    if quiet or not sys.stderr.isatty():
        yield
        return
    done = threading.Event()

    def watch() -> None:
        while not done.wait(PATIENCE):
            if (
                "qsim.kernels.lowering" in sys.modules
            ):  # which is imported where something is compiled, and nowhere else
                from qsim.kernels.compiled import cache_directory

                place = cache_directory()
                kept = f"kept in {place}" if place else "not kept; name a folder by NUMBA_CACHE_DIR"
                print(f"qsim: compiling once; {kept}", file=sys.stderr, flush=True)
                return

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()
