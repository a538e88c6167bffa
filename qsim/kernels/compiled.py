"""How kernels are compiled, kept, and called: machine code in a file for each loop, loaded without Numba.

Numba compiles, and is imported for that alone: it takes most of the time of a first call. Its result is an object file,
which LLVM loads in a process that finds it there. The path of these files carries a hash of all of `qsim/kernels`: a cache
that served the old core after an edit would be wrong in the one way nobody looks for.

Numba knows a function for kernels only once it has been told of it, and it is told when it is first needed:
`qsim.kernels.lowering`, which imports it, asks for all that waits here.
"""

from __future__ import annotations

import contextlib
import ctypes
import functools
import hashlib
import importlib.util
import logging
import os
import stat
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal, TypeAlias, TypeVar, get_args

from llvmlite import __version__ as llvmlite_version
from llvmlite import binding
from platformdirs import user_cache_path

from qsim.files import whole
from qsim.forks import undivided

__all__ = ["F64", "I64", "U64", "Array", "Kernel", "fields_of", "kernel", "portable", "tell_numba"]

F = TypeVar("F", bound=Callable[..., object])

Array: TypeAlias = Any
"""Annotates an argument of a kernel: an array in C order, whose type of elements is the caller's choice."""
U64: TypeAlias = Any
I64: TypeAlias = Any
F64: TypeAlias = Any
PASSED = {"Array": ctypes.py_object, "U64": ctypes.c_void_p, "I64": ctypes.c_void_p, "F64": ctypes.c_double}
"""How each is handed over: integers as addresses, which have 64 bits too, and which ctypes converts in half the time."""


# --- What Numba is told --------------------------------------------------------------------------------------

waiting: list[Callable[[], object]] = []
"""What Numba is told when it is imported; `lowering`, which imports it, then has it told at once."""
tell: Callable[[Callable[[], object]], object] = waiting.append


def tell_numba(what: Callable[[], object]) -> None:
    """Call `what`, which registers something with Numba: now if Numba is imported, else when it is."""
    tell(what)


parts: dict[str, bool] = {"build": False}
"""The functions that are compiled as part of kernels alone, by Numba's names: whether each has a loop of its own vectors."""


def portable(function: F) -> F:
    """Mark a function of the portable core. It is inlined in the loop that calls it: a call would keep that from vectors.

    Nobody else calls it, so that it needs no entry for Python or C, which take a third of the time of a first compilation.
    """
    parts[function.__qualname__] = "wide_vectors" in function.__code__.co_names

    def register() -> None:
        from numba.extending import register_jitable

        register_jitable(forceinline=True, no_cpython_wrapper=True, no_cfunc_wrapper=True)(function)

    tell_numba(register)
    return function


def fields_of(
    kind: type[Any], start: int = 0, known: Callable[[Any], dict[str, int]] = lambda _: {}
) -> Callable[[Any], Any]:
    """Return a function for kernels that takes an array of words for the named tuple `kind`, whose fields begin at `start`.

    An array's type says which word it holds: fields whose value follows from that are constants of the loop, `known`.
    """

    def fields(words: Any) -> Any:
        given = known(words.dtype)
        return kind(*(words.dtype.type(given.get(name, words[start + i])) for i, name in enumerate(kind._fields)))

    def typed(words: Any) -> Any:
        from numba.np.numpy_support import as_dtype

        dtype = as_dtype(words.dtype)
        given = known(dtype)
        elements = (
            f"word({given[name]})" if name in given else f"words[{start + i}]" for i, name in enumerate(kind._fields)
        )
        scope: dict[str, Any] = {"kind": kind, "word": dtype.type}
        # A call of so many arguments, written out; Numba wants the annotations to be those of `fields`.
        exec(f"def build(words: Any) -> Any:\n    return kind({', '.join(elements)})", scope)  # noqa: S102
        return scope["build"]

    def register() -> None:
        from numba.extending import overload

        overload(fields)(typed)

    tell_numba(register)
    return fields


Intrinsic = Literal["float_of", "pattern_of", "prefetch", "room32", "room_like", "wide_vectors"]


def __getattr__(name: str) -> Any:
    """Return functions that kernels call by this module's name, as `compiled.prefetch`: Numba asks for them."""
    if name in get_args(Intrinsic):
        from qsim.kernels import lowering

        return getattr(lowering, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


# --- Machine code that is kept -----------------------------------------------------------------------------


def trusted(status: os.stat_result) -> bool:
    """Return whether a file or folder is this user's or root's, and nobody else may write to it.

    From any other one machine code could be anybody's; OpenSSH asks the same of its files.
    """
    if not hasattr(os, "geteuid"):  # Windows, where a user's folders are the user's
        return True
    return status.st_uid in (os.geteuid(), 0) and not status.st_mode & (stat.S_IWGRP | stat.S_IWOTH)


@functools.cache
def cache_directory() -> Path | None:
    """Return the folder for compiled kernels, made if need be; `None` where there can be none, or none that is `trusted`."""
    digest = hashlib.sha256()
    for path in sorted(Path(__file__).parent.glob("*.py")):
        digest.update(path.name.encode() + b"\0" + path.read_bytes() + b"\0")
    named = os.environ.get("NUMBA_CACHE_DIR")
    root = Path(named) if named else user_cache_path("qsim")
    place = root / f"kernels-{digest.hexdigest()[:16]}"
    try:
        root.mkdir(parents=True, exist_ok=True)
        with contextlib.suppress(FileExistsError):
            place.mkdir(mode=0o700)
        status = place.lstat()
    except OSError as error:
        say_once(f"{place} cannot be made ({error.strerror})")
        return None
    if not stat.S_ISDIR(status.st_mode):
        say_once(f"{place} is no folder")
        return None
    if not trusted(status):
        say_once(f"{place} belongs to another user, or others may write to it")
        return None
    return place


@functools.cache
def say_once(why: str) -> None:
    """Say, by the logger "qsim", why kernels are compiled anew in every process."""
    logging.getLogger("qsim").warning(
        "compiled kernels are not kept, so that every process takes seconds for each: %s; name another folder by "
        "NUMBA_CACHE_DIR",
        why,
    )


@functools.cache
def compiler() -> str:
    """Return the facts that machine code depends on besides its source: the compilers, their settings, and the processor."""
    spec = importlib.util.find_spec("numba")  # its version takes longer to find out
    made = Path(spec.origin).stat().st_mtime_ns if spec is not None and spec.origin is not None else 0
    settings = sorted(
        f"{name}={value}" for name, value in os.environ.items() if name.startswith("NUMBA_") and name not in UNHEEDED
    )
    features = binding.get_host_cpu_features().flatten()
    return repr((llvmlite_version, made, settings, binding.get_host_cpu_name(), features, object.__basicsize__))


UNHEEDED = ("NUMBA_CACHE_DIR", "NUMBA_NUM_THREADS", "NUMBA_THREADING_LAYER")


def digest_of(file: Path, rest: bytes) -> bytes:
    """Return the digest of the contents of a file of this name: no file is taken for another kernel's, or another version's."""
    return hashlib.sha256(f"{file.parent.name}/{file.name}".encode() + b"\0" + rest).digest()


def read(file: Path) -> tuple[str, bytes] | None:
    """Return the symbol and the machine code in a file, or `None`: there is none, it is not `trusted`, or it is damaged."""
    try:
        descriptor = os.open(file, os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0))
        with os.fdopen(descriptor, "rb") as stream:
            if not trusted(os.fstat(stream.fileno())):
                return None
            content = stream.read()
    except OSError:
        return None
    digest, rest = content[:32], content[32:]
    if digest_of(file, rest) != digest:
        return None
    symbol, _, code = rest.partition(b"\0")
    return symbol.decode(), code


def write(file: Path, symbol: str, code: bytes) -> None:
    """Keep machine code in a file, whole or not at all; a full disk is no reason not to compute."""
    rest = symbol.encode() + b"\0" + code
    try:
        with whole(file) as stream:
            if hasattr(os, "fchmod"):
                os.fchmod(stream.fileno(), 0o600)
            stream.write(digest_of(file, rest) + rest)
    except OSError as error:
        say_once(f"{file.parent} cannot be written ({error.strerror})")


def loaded(symbol: str, code: bytes) -> tuple[Any, int]:
    """Return the engine of LLVM that holds this machine code, and the address of the symbol.

    Each has an engine of its own: Numba numbers its symbols anew in every process, so that different code may have one name.
    """
    binding.initialize_native_target()
    binding.initialize_native_asmprinter()
    target = binding.Target.from_triple(binding.get_process_triple())
    static = {"reloc": "static"} if target.name.startswith("x86") else {}
    engine = binding.create_mcjit_compiler(
        binding.parse_assembly(""), target.create_target_machine(codemodel="jitdefault", jit=True, **static)
    )
    engine.add_object_file(binding.ObjectFileRef.from_data(code))
    engine.finalize_object()
    return engine, engine.get_function_address(symbol)


# --- Kernels -------------------------------------------------------------------------------------------------

lock = threading.RLock()
nowhere = ctypes.c_int64()
NOWHERE = ctypes.addressof(nowhere)
"""Where compiled functions would leave what they return, or raise: kernels do neither."""


Native: TypeAlias = Callable[..., int]
"""Machine code, called with two addresses and the arguments; it returns 0, or another number if these are not what it takes."""
Types: TypeAlias = tuple[tuple[int, int], ...]
"""Of each array the number that NumPy gives the type of its elements, and that of its dimensions."""


def refuse(*_: object) -> int:
    """Stand for the machine code of a kernel that was not called yet."""
    return 1


class Kernel:
    """Hold a loop in machine code, by the types of the arrays that it is called with.

    Its arguments are those of the Python function that it was made of, whose annotations name their types. `variant` is what
    the function has from around it. No fastmath, no GIL; a quotient by zero is IEEE's.
    """

    def __init__(self, function: Callable[..., None], variant: tuple[object, ...] = ()) -> None:
        self.py_func = function
        self.kinds = [
            str(kind).rpartition(".")[2] for name, kind in function.__annotations__.items() if name != "return"
        ]
        if not set(self.kinds) <= set(PASSED):
            raise TypeError(f"{function.__name__}: a kernel's arguments are written as {', '.join(PASSED)}")
        self.name = "-".join([function.__name__, *map(str, variant)]).replace(" ", "_")
        self.arrays = [at for at, kind in enumerate(self.kinds) if kind == "Array"]
        self.native: dict[Types, Native] = {}
        self.latest: Native = refuse
        self.engines: list[Any] = []
        functools.update_wrapper(self, function)

    def __call__(self, *arguments: Any) -> None:
        """Run the loop; raise `TypeError` for an array that is not in C order or has other dimensions than at first.

        The machine code checks itself whether the arrays fit it: that is faster than to ask here.
        """
        if self.latest(NOWHERE, NOWHERE, *arguments):
            native = self.find(arguments)
            if native(NOWHERE, NOWHERE, *arguments):
                raise TypeError(f"{self.name} takes arrays in C order, of the byte order of this machine")
            self.latest = native

    def find(self, arguments: tuple[Any, ...]) -> Native:
        """Return the machine code for arrays of these types: known, from its file, or compiled anew."""
        arrays = [arguments[at] for at in self.arrays]
        types = tuple((array.dtype.num, array.ndim) for array in arrays)
        with undivided(), lock:
            if types not in self.native:
                if any([n for _, n in types] != [n for _, n in known] for known in self.native):
                    raise TypeError(f"{self.name} takes arrays of as many dimensions at every call")
                self.native[types] = self.load(types, arguments)
            return self.native[types]

    def load(self, types: Types, arguments: tuple[Any, ...]) -> Native:
        """Return machine code from its file, or compile it."""
        # The path of the cache knows the source of these kernels alone.
        place = cache_directory() if self.py_func.__module__.startswith("qsim.kernels.") else None
        digest = hashlib.sha256(repr((compiler(), self.kinds, types)).encode()).hexdigest()[:16]
        file = place / f"{self.name}-{digest}.o" if place else None
        found = read(file) if file else None
        if found is None:
            from qsim.kernels import lowering

            found = lowering.object_code(self, arguments)
            if file:
                write(file, *found)
        engine, address = loaded(*found)
        self.engines.append(engine)  # the code lives as long
        passed: Any = (PASSED[kind] for kind in self.kinds)
        return ctypes.CFUNCTYPE(ctypes.c_int32, ctypes.c_void_p, ctypes.c_void_p, *passed)(address)


def kernel(*variant: object) -> Callable[[Callable[..., None]], Kernel]:
    """Return a decorator that makes a `Kernel`; `variant` tells apart those made of one function."""
    return lambda function: Kernel(function, variant)
