"""Ctrl-C, and SIGTERM answered as if it were one; and work that neither may interrupt."""

from __future__ import annotations

import contextlib
import signal
import sys
import threading
from collections.abc import Iterator

__all__ = ["kept_for_the_end", "terminable", "unheard"]

SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Terminated(KeyboardInterrupt):
    """Interrupt as Ctrl-C does; Python, which ends itself by SIGINT where one was raised in `exec`, takes it for none."""


@contextlib.contextmanager
def terminable() -> Iterator[None]:
    """Let SIGTERM, by which a batch system ends a job, stop a command as cleanly as Ctrl-C does."""
    if threading.current_thread() is not threading.main_thread():  # which alone may say how a signal is answered
        yield
        return

    def stop(*_: object) -> None:
        raise Terminated

    before = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    except Terminated:
        sys.exit(128 + signal.SIGTERM)  # as a shell reports it
    finally:
        signal.signal(signal.SIGTERM, before)


@contextlib.contextmanager
def kept_for_the_end() -> Iterator[list[int]]:
    """Collect the signals that a function of Python answers, and let it answer them once the block is done.

    An exception of such a function in the middle of a call from compiled code has nowhere to go: it is printed and forgotten.
    The list that is yielded grows as signals come, for work that can end early. In another thread than the main one, which
    alone runs such functions, nothing is collected.
    """
    seen: list[int] = []
    before = {number: signal.getsignal(number) for number in SIGNALS}
    answered = {number: answer for number, answer in before.items() if callable(answer)}
    if threading.current_thread() is not threading.main_thread():
        answered = {}
    try:
        for number in answered:
            signal.signal(number, lambda number, _: seen.append(number))
        yield seen
    finally:
        for number, answer in answered.items():
            signal.signal(number, answer)
        for seen_number in seen:
            signal.raise_signal(seen_number)


@contextlib.contextmanager
def unheard() -> Iterator[None]:
    """Keep a Ctrl-C for the end of the block, and for ever from the processes and threads that start in it.

    A terminal sends it to all; a process that has not come to `qsim.processes.begin` would say so, aloud.
    """
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    from multiprocessing import resource_tracker

    resource_tracker.ensure_running()  # loky starts it too, and up to Python 3.11 that ends any block
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
