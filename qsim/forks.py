"""Forks: a child of a process whose other threads were importing or compiling says so, instead of waiting for ever.

A child has one thread, and every lock is as it was in its parent. A lock that another thread held there, of a module that it
was importing or of a compiler, is released by nobody. So each such block is counted; a child that finds one of another thread
refuses the next. Anything imported and compiled before the fork goes on in it.
"""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Iterator

from qsim.errors import InputError

__all__ = ["undivided"]

TORN = (
    "this process was forked while another thread of its parent was compiling or importing, and can do neither; call qsim once "
    "before the fork, or start processes by 'spawn'"
)

counting = threading.RLock()
"""Held while a block is counted, and by a fork, which a signal handler may make while its thread counts."""
busy: dict[int, int] = {}
"""How many blocks each thread is in."""
torn = False
"""Whether this process was forked beside such a block."""


@contextlib.contextmanager
def undivided() -> Iterator[None]:
    """Count a block that a fork must not divide; raise `InputError` in a child of a process that was in another one."""
    if torn:
        raise InputError(TORN)
    me = threading.get_ident()
    with counting:
        busy[me] = busy.get(me, 0) + 1
    try:
        yield
    finally:
        with counting:
            busy[me] -= 1
            if not busy[me]:
                del busy[me]


def after_in_child() -> None:
    """Forget the other threads, which are not here, and note whether one was in a block."""
    global torn  # noqa: PLW0603 - of this process
    counting.release()
    me = threading.get_ident()
    torn = torn or bool(busy.keys() - {me})
    for thread in busy.keys() - {me}:
        del busy[thread]


if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=counting.acquire, after_in_parent=counting.release, after_in_child=after_in_child)
