"""How kernels are compiled and kept: a disk cache whose path carries a hash of all of `qsim/kernels`.

Numba notices a change of the file that holds a kernel, not of the files whose functions it calls. A cache that served
the old core after an edit would be wrong in the one way nobody looks for, so an edit anywhere in this folder changes
the path.
"""

from __future__ import annotations

import functools
import hashlib
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import numba
from llvmlite import binding, ir
from numba.core import cgutils, types
from numba.core import config as numba_config
from numba.extending import intrinsic, overload
from numba.np.numpy_support import as_dtype
from platformdirs import user_cache_path

__all__ = ["compiled", "fields_of", "float_of", "pattern_of", "prefetch", "wide_vectors"]

F = TypeVar("F", bound=Callable[..., object])


@functools.cache
def cache_directory() -> Path | None:
    """Return the folder for compiled kernels, made if need be; `None` where none can be written."""
    digest = hashlib.sha256()
    for path in sorted(Path(__file__).parent.glob("*.py")):
        digest.update(path.name.encode() + b"\0" + path.read_bytes() + b"\0")
    root = Path(os.environ["NUMBA_CACHE_DIR"]) if "NUMBA_CACHE_DIR" in os.environ else user_cache_path("qsim")
    place = root / f"kernels-{digest.hexdigest()[:16]}"
    try:
        place.mkdir(parents=True, exist_ok=True)
    except OSError:
        return None
    return place if os.access(place, os.W_OK) else None


def fields_of(
    kind: type[Any], start: int = 0, known: Callable[[Any], dict[str, int]] = lambda _: {}
) -> Callable[[Any], Any]:
    """Return a function for kernels that takes an array of words for the named tuple `kind`, whose fields begin at `start`.

    Numba takes an argument that is a tuple apart number by number: 14 us for `core.Parameters`, against 0.4 for an array. And
    an array's type says which word it holds: fields whose value follows from that are constants of the loop, `known`.
    """

    def fields(words: Any) -> Any:
        given = known(words.dtype)
        return kind(*(words.dtype.type(given.get(name, words[start + i])) for i, name in enumerate(kind._fields)))

    def typed(words: Any) -> Any:
        given = known(as_dtype(words.dtype))
        elements = (
            f"word({given[name]})" if name in given else f"words[{start + i}]" for i, name in enumerate(kind._fields)
        )
        scope: dict[str, Any] = {"kind": kind, "word": as_dtype(words.dtype).type}
        # A call of so many arguments, written out; Numba wants the annotations to be those of `fields`.
        exec(f"def build(words: Any) -> Any:\n    return kind({', '.join(elements)})", scope)  # noqa: S102
        return scope["build"]

    overload(fields)(typed)
    return fields


def same_bits(kinds: dict[Any, Any]) -> Any:
    """Return a function for kernels that takes a value of one type of Numba for one of another with the same bits."""

    @intrinsic
    def bits(_: Any, value: Any) -> Any:
        def cast(target: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            return builder.bitcast(arguments[0], target.get_value_type(signature.return_type))

        return kinds[value](value), cast

    return bits


pattern_of = same_bits({types.float32: types.uint32, types.float64: types.uint64})
float_of = same_bits({types.uint32: types.float32, types.uint64: types.float64})


def in_kernels(made: Any) -> Any:
    """Make an intrinsic of Numba; a kernel calls it without the first argument, which `intrinsic` does not tell of."""
    return intrinsic(made)


@in_kernels
def prefetch(_: Any, array: Any, index: Any, offset: Any) -> Any:  # noqa: ARG001 - Numba goes by their names
    """Ask memory for the cache line that lies `offset` bytes after element `index` of a contiguous array.

    Nothing is read, and nothing need be there.
    """

    def ask(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        data = context.make_array(signature.args[0])(context, builder, arguments[0]).data
        address = builder.bitcast(builder.gep(data, [arguments[1]]), ir.IntType(8).as_pointer())
        address = builder.gep(address, [arguments[2]])
        word = ir.IntType(32)
        kind = ir.FunctionType(ir.VoidType(), [address.type, word, word, word])
        insert: Any = cgutils.get_or_insert_function
        function = insert(builder.module, kind, "llvm.prefetch")
        builder.call(function, [address, word(0), word(3), word(1)])  # to read, into all caches, data
        return context.get_dummy_value()

    return types.void(array, types.intp, types.intp), ask


@functools.cache
def has_fast_wide_vectors() -> bool:
    """Whether there are vectors of 512 bits that do not slow the clock: they do before Ice Lake, which lacks VBMI2 too."""
    return bool(binding.get_host_cpu_features().get("avx512vbmi2"))


@in_kernels
def wide_vectors(_: Any) -> Any:
    """Let the loops of the function that calls it use vectors of 512 bits, of which LLVM otherwise takes half."""

    def allow(context: Any, builder: Any, *_: Any) -> Any:
        if has_fast_wide_vectors():
            # llvmlite's own `add` knows a list of attributes, and not this one.
            set.add(builder.function.attributes, '"prefer-vector-width"="512"')
        return context.get_dummy_value()

    return types.void(), allow


def compiled(function: F) -> F:
    """Compile `function` at its first call, from the disk cache where there is one; no fastmath, no GIL.

    A quotient by zero is IEEE's: Python's exception would keep a division from vectors.
    """
    config: Any = numba_config  # its settings are made at run time
    njit: Any = numba.njit
    place = cache_directory()
    before = config.CACHE_DIR
    try:
        config.CACHE_DIR = str(place or "")  # read by numba when the decorator runs, not when the function does
        kernel: F = njit(cache=place is not None, nogil=True, error_model="numpy", no_cfunc_wrapper=True)(function)
        return kernel
    finally:
        config.CACHE_DIR = before
