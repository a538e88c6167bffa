"""Compilation of kernels by Numba: the one module of kernels that imports it."""

from __future__ import annotations

import contextlib
import functools
import sys
from collections.abc import Iterator
from typing import Any

import numba
from llvmlite import binding, ir
from numba.core import cgutils as numba_cgutils
from numba.core import codegen as numba_codegen
from numba.core import compiler as numba_compiler
from numba.core import config as numba_config
from numba.core import types
from numba.core.compiler_lock import global_compiler_lock
from numba.core.registry import cpu_target
from numba.extending import intrinsic
from numba.np.numpy_support import from_dtype

from qsim.kernels import compiled

__all__ = [
    "assembly", "float_of", "njit", "object_code", "pattern_of", "prefetch", "room32", "room_like",
    "wide_vectors",
]  # fmt: skip

# Numba is typed in part, and not the same part in every version.
cgutils: Any = numba_cgutils
codegen: Any = numba_codegen
compiler: Any = numba_compiler
config: Any = numba_config
njit: Any = numba.njit

BYTE, WORD32, WORD64 = (ir.IntType(bits) for bits in (8, 32, 64))
ROOM = 2048
"""Bytes of the scratch arrays of a kernel, on its stack."""


# --- Functions that only kernels have ------------------------------------------------------------------------


def in_kernels(made: Any) -> Any:
    """Make an intrinsic of Numba; a kernel calls it without the first argument, which `intrinsic` does not tell of."""
    return intrinsic(made)


def same_bits(kinds: dict[Any, Any]) -> Any:
    """Return a function for kernels that takes a value of one type of Numba for one of another with the same bits."""

    @in_kernels
    def bits(_: Any, value: Any) -> Any:
        def cast(target: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            return builder.bitcast(arguments[0], target.get_value_type(signature.return_type))

        return kinds[value](value), cast

    return bits


pattern_of = same_bits({types.float32: types.uint32, types.float64: types.uint64})
float_of = same_bits({types.uint32: types.float32, types.uint64: types.float64})


@in_kernels
def prefetch(_: Any, array: Any, index: Any, offset: Any) -> Any:  # noqa: ARG001 - Numba goes by their names
    """Ask memory for the cache line that lies `offset` bytes after element `index` of a contiguous array.

    Nothing is read, and nothing need be there.
    """

    def ask(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        data = context.make_array(signature.args[0])(context, builder, arguments[0]).data
        address = builder.bitcast(builder.gep(data, [arguments[1]]), BYTE.as_pointer())
        address = builder.gep(address, [arguments[2]])
        kind = ir.FunctionType(ir.VoidType(), [address.type, WORD32, WORD32, WORD32])
        function = cgutils.get_or_insert_function(builder.module, kind, "llvm.prefetch")
        builder.call(function, [address, WORD32(0), WORD32(3), WORD32(1)])  # to read, into all caches, data
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


def array_at(context: Any, builder: Any, kind: Any, data: Any, shape: list[Any]) -> Any:
    """Return an array in C order of this shape, an owner of nothing, whose elements begin at `data`."""
    array = context.make_array(kind)(context, builder)
    size = context.get_constant(types.intp, context.get_abi_sizeof(context.get_data_type(kind.dtype)))
    strides: list[Any] = []
    step = size
    for length in reversed(shape):
        strides.insert(0, step)
        step = builder.mul(step, length)
    array.meminfo, array.parent = (cgutils.get_null_value(owner.type) for owner in (array.meminfo, array.parent))
    array.data, array.itemsize, array.nitems = data, size, builder.sdiv(step, size)
    array.shape, array.strides = (cgutils.pack_array(builder, numbers, ty=WORD64) for numbers in (shape, strides))
    return array._getvalue()  # noqa: SLF001 - what Numba's own code does


def room(element: Any) -> tuple[Any, Any]:
    """Return the type and the constructor of a scratch array on a kernel's stack, of `ROOM` bytes."""
    kind = types.Array(element, 1, "C")
    count = ROOM * 8 // element.bitwidth

    def make(context: Any, builder: Any, *_: Any) -> Any:
        data = cgutils.alloca_once(builder, context.get_data_type(element), size=count)
        data.align = 64
        return array_at(context, builder, kind, data, [WORD64(count)])

    return kind, make


@in_kernels
def room32(_: Any) -> Any:
    """Return scratch of uint32."""
    kind, make = room(types.uint32)
    return kind(), make


@in_kernels
def room_like(_: Any, array: Any) -> Any:
    """Return scratch of the type that the elements of `array` have."""
    kind, make = room(array.dtype)
    return kind(array), make


# --- From a Python function to machine code ------------------------------------------------------------------


SWAPPED = ord(">" if sys.byteorder == "little" else "<")


def given_array(kind: Any, number: int) -> Any:
    """Return a function for kernels that returns the array that is the Python object at an address.

    It raises where this is no array in C order of such elements, whose type has that number, or of other dimensions; that it is
    an array is taken for granted. The fields it reads are where NumPy's headers have had it since their first version: in
    `PyArrayObject` data, dimensions, lengths, type and flags, and in `PyArray_Descr` order of bytes and number.
    """

    @in_kernels
    def read(_: Any, address: Any) -> Any:  # noqa: ARG001 - likewise
        def load(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:  # noqa: ARG001
            def field(place: Any, offset: int, of: Any) -> Any:
                place = builder.gep(place, [WORD64(object.__basicsize__ + offset)])
                return builder.load(builder.bitcast(place, of.as_pointer()))

            start = builder.inttoptr(arguments[0], BYTE.as_pointer())
            element = field(start, 40, BYTE.as_pointer())
            right = [
                builder.icmp_signed("==", field(start, 8, WORD32), WORD32(kind.ndim)),
                builder.icmp_signed("!=", field(element, 10, BYTE), BYTE(SWAPPED)),
                builder.icmp_signed("==", field(element, 12, WORD32), WORD32(number)),
                builder.trunc(field(start, 48, WORD32), ir.IntType(1)),  # NPY_ARRAY_C_CONTIGUOUS is its lowest bit
            ]
            with builder.if_then(builder.not_(functools.reduce(builder.and_, right)), likely=False):
                context.call_conv.return_user_exc(builder, TypeError, ())
            lengths = field(start, 16, WORD64.as_pointer())
            shape = [builder.load(builder.gep(lengths, [WORD64(axis)])) for axis in range(kind.ndim)]
            data = field(start, 0, context.get_data_type(kind.dtype).as_pointer())
            return array_at(context, builder, kind, data, shape)

        return kind(types.intp), load

    return read


def entry(kernel: compiled.Kernel, arguments: tuple[Any, ...]) -> tuple[Any, tuple[Any, ...]]:
    """Return the function that C calls, with addresses of arrays, and the types of its arguments."""
    compiled.portable(kernel.py_func)
    compiled.parts[kernel.py_func.__qualname__] = True
    names = [f"a{at}" for at in range(len(kernel.kinds))]
    scope: dict[str, Any] = {"loop": kernel.py_func}
    taken: list[Any] = []
    given = []
    for name, kind, argument in zip(names, kernel.kinds, arguments, strict=True):
        if kind == "Array":
            array = types.Array(from_dtype(argument.dtype), argument.ndim, "C")
            scope[f"read_{name}"] = given_array(array, argument.dtype.num)
            given.append(f"read_{name}({name})")
            taken.append(types.intp)
        else:
            given.append(name)
            taken.append({"U64": types.uint64, "I64": types.int64, "F64": types.float64}[kind])
    exec(f"def entry({', '.join(names)}):\n    loop({', '.join(given)})", scope)  # noqa: S102
    return scope["entry"], tuple(taken)


INTERLEAVED = 4
"""Vectors that a loop has under way at a time. LLVM takes one, for a loop of this length, and then every operation of Philox's
ten rounds waits for the one before; four take less time, though some are kept on the stack. The rows `cache-*` of the
benchmarks show it."""


@contextlib.contextmanager
def own_settings() -> Iterator[None]:
    """Have LLVM work at `INTERLEAVED` vectors in every loop that is compiled in the block, and Numba compile at all.

    After it LLVM chooses by itself again; and NUMBA_DISABLE_JIT, with which users look for errors in functions of their own, is
    in force for these again.
    """
    with global_compiler_lock:  # the settings are those of all of the process
        disabled, config.DISABLE_JIT = config.DISABLE_JIT, 0
        binding.set_option("qsim", f"-force-vector-interleave={INTERLEAVED}")
        try:
            yield
        finally:
            binding.set_option("qsim", "-force-vector-interleave=0")
            config.DISABLE_JIT = disabled


class Part(codegen.JITCodeLibrary):  # type: ignore[misc] # of Numba, which is not typed
    """Hold a function that becomes part of a kernel, as it was lowered: nothing calls it by itself.

    Numba would optimize every such function on its own, with all that it calls, and make machine code of it; LLVM does both
    once, for the kernel, into which all of them are linked.
    """

    def _optimize_final_module(self) -> None:
        pass

    def _finalize_final_module(self) -> None:
        self._finalize_dynamic_globals()
        self._finalized = True


class Loop(Part):
    """Hold a loop, optimized by itself: the width of its vectors is an attribute of a function, and not of its caller."""

    def _optimize_final_module(self) -> None:
        codegen.JITCodeLibrary._optimize_final_module(self)  # noqa: SLF001 - the method that `Part` leaves out


class Entry(codegen.JITCodeLibrary):  # type: ignore[misc] # likewise
    """Hold the function that C calls, which calls a loop that is optimized already."""

    def _optimize_final_module(self) -> None:
        pass


@contextlib.contextmanager
def parts_of(target: Any) -> Iterator[Any]:
    """Make a `Part` or a `Loop` of each function of `compiled.parts` that is compiled in the block.

    Give the library of the function that is the kernel.
    """
    maker = target.codegen()
    whole = Entry(maker, "kernel")
    whole.enable_object_caching()
    usual, set_environment = maker._library_class, maker.set_env  # noqa: SLF001 - what a subclass of it would set
    kinds = {None: usual, False: Part, True: Loop}

    def set_env(name: str, environment: Any) -> None:
        if maker._engine.get_global_value_address(name):  # noqa: SLF001 - a part has no machine code that would look there
            set_environment(name, environment)

    maker._library_class = lambda _, name: kinds[compiled.parts.get(name)](maker, name)  # noqa: SLF001
    maker.set_env = set_env
    try:
        yield whole
    finally:
        del maker._library_class, maker.set_env  # noqa: SLF001 - which leaves those of the class


def library(kernel: compiled.Kernel, arguments: tuple[Any, ...]) -> tuple[str, Any]:
    """Compile a kernel for such arguments; return the name of its entry, and Numba's result."""
    function, kinds = entry(kernel, arguments)
    typing, target = cpu_target.typing_context, cpu_target.target_context
    typing.refresh()
    target.refresh()
    flags = compiler.Flags()
    flags.nrt = False  # nothing is allocated
    flags.error_model = "numpy"  # an exception would keep a division from vectors
    flags.no_cpython_wrapper = flags.no_cfunc_wrapper = True
    with own_settings(), parts_of(target) as whole:
        made = compiler.compile_extra(typing, target, function, kinds, types.void, flags, {}, library=whole)
    return made.fndesc.mangled_name, made.library


def object_code(kernel: compiled.Kernel, arguments: tuple[Any, ...]) -> tuple[str, bytes]:
    """Return the name of a kernel's entry, for such arguments, and its machine code."""
    symbol, made = library(kernel, arguments)
    _, _, (code, _) = made.serialize_using_object_code()
    return symbol, bytes(code)


def assembly(kernel: compiled.Kernel, *arguments: Any) -> str:
    """Return the assembly of a kernel for such arguments."""
    _, made = library(kernel, arguments)
    return str(made.get_asm_str())


def at_once(what: Any) -> None:
    """Tell Numba something now."""
    what()


compiled.tell = at_once
for what in compiled.waiting:
    what()
compiled.waiting.clear()
