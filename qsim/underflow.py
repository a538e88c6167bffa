"""Gradual underflow, as IEEE 754 has it, whatever the caller's thread has told its processor.

x86 has two flags, flush-to-zero (FTZ, for results) and denormals-are-zero (DAZ, for operands), and ARM has one for both, FZ.
With them subnormal numbers are zeros, in kernels and in NumPy alike. Each thread has flags of its own, which it hands on to
the threads that it starts; `torch.set_flush_denormal` sets them, and so does loading a library that was built with fast-math.

So every public function that computes with floats clears them, and restores them when it returns. To see whether they are
set takes one difference, some nanoseconds. All else is left to `fegetenv` and `fesetenv` of C (C17, 7.6), whose environment
has these flags on both processors; where they are out of reach and a flag is set, `InputError` says so.
"""

from __future__ import annotations

import functools
import os
import struct
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, NamedTuple, ParamSpec, TypeVar

from qsim.errors import InputError

__all__ = ["SMALLER", "SUBNORMAL", "as_caller", "cleared", "gradual_underflow", "with_gradual_underflow"]

P = ParamSpec("P")
T = TypeVar("T")

SUBNORMAL, SMALLER = struct.unpack("=2d", struct.pack("=2Q", 1 << 50, 1 << 49))
"""Two float64 whose difference is 0 with either flag. They are made of their bits, since a literal would be flushed too; a
product would do, but processors take a hundred cycles for one that is subnormal, and none more for a difference."""

ROOM = 256
"""Bytes that hold any `fenv_t`: those of glibc and musl have 32 or less."""

CANNOT = (
    "this thread has told its processor to make zeros of subnormal numbers, and qsim cannot change that on this system; clear "
    "the flag first, as torch.set_flush_denormal(False) does, or do not load the library that sets it"
)


class C(NamedTuple):
    """Hold two functions of C, the type of an environment, and the address of the one that programs begin with."""

    get: Callable[[Any], int]
    put: Callable[[Any], int]
    room: Callable[[], Any]
    default: Any


@functools.cache
def c() -> C | None:
    """Return the functions of C, `None` where they are not known."""
    import ctypes  # few need it

    for name in (None, "libm.so.6"):
        try:
            library = ctypes.PyDLL(name)
            get, put = library.fegetenv, library.fesetenv
            if sys.platform == "linux" and os.uname().machine in ("x86_64", "aarch64"):
                default = ctypes.c_void_p(-1)  # FE_DFL_ENV of glibc and musl
            else:
                default = ctypes.c_void_p(ctypes.addressof(ctypes.c_char.in_dll(library, "_FE_DFL_ENV")))  # macOS
        except (AttributeError, OSError, TypeError, ValueError):
            continue
        get.argtypes = put.argtypes = [ctypes.c_void_p]
        return C(get, put, functools.partial(ctypes.create_string_buffer, ROOM), default)
    return None


class Caller(threading.local):
    """Hold the environment that this thread had when it called, while another one is in force."""

    environment: Any = None


caller = Caller()


def flushed() -> bool:
    """Return whether this thread makes zeros of subnormal numbers."""
    return not SUBNORMAL - SMALLER


def clear() -> None:
    """Put the default environment in force; raise `InputError` where that cannot be done."""
    functions = c()
    if functions is not None:
        functions.put(functions.default)
    if flushed():
        raise InputError(CANNOT)


@contextmanager
def cleared() -> Iterator[None]:
    """Put the default environment in force inside the block, and restore the previous one after it."""
    functions = c()
    if functions is None:
        raise InputError(CANNOT)
    before, outer = functions.room(), caller.environment
    functions.get(before)
    try:
        clear()
        caller.environment = before
        yield
    finally:
        functions.put(before)
        caller.environment = outer


def with_gradual_underflow(function: Callable[..., T], arguments: Mapping[str, Any]) -> T:
    """Return function(**arguments), computed with the flags cleared.

    A function that is called often asks itself, which takes less time than `gradual_underflow`:

        if not SUBNORMAL - SMALLER:
            return with_gradual_underflow(itself, locals())
    """
    with cleared():
        return function(**arguments)


def gradual_underflow(function: Callable[P, T]) -> Callable[P, T]:
    """Let a function compute with the flags cleared, and restore the caller's when it returns."""

    @functools.wraps(function)
    def run(*args: P.args, **options: P.kwargs) -> T:
        if SUBNORMAL - SMALLER:
            return function(*args, **options)
        with cleared():
            return function(*args, **options)

    return run


def as_caller(function: Callable[P, T]) -> Callable[P, T]:
    """Let a function of the user's run as if the user had called it: with the flags of the thread that called us.

    Those that it leaves behind are cleared again, so that every call begins alike, and we compute as before.
    """

    @functools.wraps(function)
    def run(*args: P.args, **options: P.kwargs) -> T:
        functions, environment = c(), caller.environment
        if functions is not None and environment is not None:
            functions.put(environment)
        try:
            return function(*args, **options)
        finally:
            if environment is not None or flushed():
                clear()

    return run
