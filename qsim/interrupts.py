"""Ctrl-C, and what a program answers as if it were one: kept for the end of work that would lose it."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Iterator

__all__ = ["kept_for_the_end"]

SIGNALS = (signal.SIGINT, signal.SIGTERM)


@contextlib.contextmanager
def kept_for_the_end() -> Iterator[list[int]]:
    """Collect the signals that a function of Python answers, and let it answer them once the block is done.

    What such a function raises in the middle of a call from compiled code has nowhere to go: it is printed and forgotten. The
    list that is yielded grows as signals come, for work that can end early. In another thread than the main one, which alone
    runs such functions, nothing is collected.
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
