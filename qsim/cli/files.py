"""How the commands read and write arrays: `.npy`, and text with a row of numbers a line; files are written whole."""

from __future__ import annotations

import contextlib
import io
import math
import os
import re
import struct
import sys
import tempfile
import textwrap
import tokenize
import warnings
from collections.abc import Callable, Iterable, Iterator
from decimal import Decimal
from fractions import Fraction
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

import qsim.files
from qsim.cli.text import number
from qsim.errors import InputError

__all__ = ["check_output", "converted", "pieces", "read_floats", "read_words", "scratch", "whole", "write", "writing"]

SEPARATORS = {".txt": " ", ".csv": ","}
"""The suffixes of text, and what is written between the numbers of a row; either may separate them when read."""

STDIN, STDOUT = "standard input", "standard output"

DECIMAL = re.compile(r"[+-]?((\d+\.?\d*|\.\d+)(e[+-]?\d+)?|inf(inity)?|nan)", re.ASCII | re.IGNORECASE)
# C99 also has hexadecimal floats without the exponent, but those are as likely somebody's bit patterns.
HEXADECIMAL = re.compile(r"[+-]?0x([\da-f]+\.?[\da-f]*|\.[\da-f]+)p[+-]?\d{1,9}", re.ASCII | re.IGNORECASE)
WORD = re.compile(r"\d{1,99}|0x[\da-f]{1,99}", re.ASCII | re.IGNORECASE)

DAMAGED = (ValueError, TypeError, OverflowError, SyntaxError, tokenize.TokenError, MemoryError, RecursionError)
"""How a damaged .npy fails: its header is a Python literal, and the parser has a limit to what is nested."""

Parse = Callable[[str], Any]


# --- Reading ---------------------------------------------------------------------------------------------------------


Make = Callable[[tuple[int, ...], np.dtype[Any]], NDArray[Any]]
"""Makes an array that is not filled: `np.empty`, or one of `scratch`."""


def read_floats(path: str, dtype: str | None = None, make: Make = np.empty) -> NDArray[Any]:
    """Return the numbers of the file `path`, or of standard input for "-".

    Text is read as `dtype` ("float64" if it is `None`), each number rounded once, to nearest even: shape (rows,) where
    every line has one number, (rows, columns) otherwise. A `.npy` is mapped, not read, and `dtype` may widen it
    into an array that `make` makes. Raise `InputError` for what cannot be read, with the line
    of a text.
    """
    if _is_text(path):
        if dtype == "float32":
            return _read_text(path, _float32, np.float32)
        return _read_text(path, _float64, np.float64)
    array = _map(path)
    if array.dtype.kind == "V" and not array.dtype.names:
        raise InputError(
            f"{path} holds raw bytes ({array.dtype}), as an array of an ml_dtypes type is stored; "
            "save x.astype('float32') instead, which has the same values"
        )
    native = array.dtype.newbyteorder("=")
    if native not in ("float16", "float32", "float64"):
        raise InputError(f"{path} holds {array.dtype}; convert it to float16, float32 or float64 first")
    wanted = np.dtype(dtype or native)
    if not np.can_cast(native, wanted):
        raise InputError(f"{path} holds {array.dtype}, which --dtype {dtype} would round once more; leave --dtype out")
    return array if wanted == native else converted(array, wanted, make)


def converted(array: NDArray[Any], dtype: np.dtype[Any], make: Make) -> NDArray[Any]:
    """Return `array` in another type or order of bytes, a piece at a time, in an array that `make` makes."""
    into = make(array.shape, dtype)
    with np.errstate(invalid="ignore"):  # a signalling NaN becomes a quiet one
        for place in pieces(array.shape):
            into[place] = array[place]
    return into


def read_words(path: str, bits: int) -> NDArray[Any]:
    """Return the random words of `bits` bits in the file `path`: integers, in a text decimal or 0x hexadecimal."""
    if _is_text(path):
        return _read_text(path, lambda token: _word(token, bits), np.uint64)
    array = _map(path)
    if array.dtype.kind not in "iu":
        raise InputError(f"{path} holds {array.dtype}; random words are integers")
    begin = 0
    for place in pieces(array.shape):
        part = np.asarray(array[place]).reshape(-1)
        wrong = np.flatnonzero((part < 0) | (part > (1 << bits) - 1))
        if wrong.size:
            raise InputError(f"{path}, index {begin + wrong[0]}: {part[wrong[0]]} is not in 0 .. {(1 << bits) - 1}")
        begin += part.size
    return array


def _is_text(path: str) -> bool:
    suffix = Path(path).suffix.lower()
    if suffix == ".npz":
        raise InputError(f"{path} is an archive of several arrays; save the one to round as .npy")
    if path != "-" and suffix not in (".npy", *SEPARATORS):
        raise InputError(f"{path}: a file of numbers is called .npy, .txt or .csv; - is text on {STDIN}")
    return suffix != ".npy"


def _map(path: str) -> NDArray[Any]:
    try:
        with warnings.catch_warnings(action="ignore"):  # the sentence below says it, or it is about Python 2
            return np.asarray(np.lib.format.open_memmap(path, mode="r"))
    except DAMAGED as error:
        reason = "its header is damaged"
        if isinstance(error, ValueError):  # its first line; those that may follow say how to trust a file
            reason = textwrap.shorten(str(error).partition("\n")[0].rstrip("."), 100, placeholder=" ...")
        if "Python objects" in reason:
            raise InputError(f"{path} holds Python objects, which are not read; save an array of numbers") from None
        raise InputError(f"{path} cannot be read as .npy ({reason}); write it with numpy.save") from None


def _read_text(path: str, parse: Parse, dtype: type[np.generic]) -> NDArray[Any]:
    # What is no UTF-8 shows up as a token that is no number, with its line.
    how: dict[str, Any] = {"encoding": "utf-8-sig", "errors": "backslashreplace"}
    if path == "-":
        if sys.stdin is None:
            raise InputError(f"{STDIN} is closed; name a file, or use </dev/null if there is nothing to read")
        if isinstance(sys.stdin, io.TextIOWrapper):
            sys.stdin.reconfigure(**how)
        return _rows(sys.stdin, STDIN, parse, dtype)
    with Path(path).open(**how) as lines:
        return _rows(lines, path, parse, dtype)


def _rows(lines: Iterable[str], name: str, parse: Parse, dtype: type[np.generic]) -> NDArray[Any]:
    """Return the numbers of `lines`; blank lines do not count."""
    numbers: list[Any] = []
    columns = 0
    for at, line in enumerate(lines, 1):
        if not line.strip():
            continue
        tokens = [token for part in line.split(",") for token in part.split() or [""]]
        if columns and len(tokens) != columns:
            raise InputError(
                f"{name}, line {at}: a row of {len(tokens)} numbers, where those above have {columns}; "
                "rows are of one length"
            )
        columns = len(tokens)
        try:
            numbers += map(parse, tokens)
        except InputError as error:
            raise InputError(f"{name}, line {at}: {error}") from None
    array = np.array(numbers, dtype)
    return array.reshape(-1, columns) if columns > 1 else array


def _float64(token: str) -> float:
    """Return the float64 nearest to a number, ties to even."""
    value = math.inf
    if DECIMAL.fullmatch(token):
        value = float(token)
    elif HEXADECIMAL.fullmatch(token):
        with contextlib.suppress(OverflowError):
            value = float.fromhex(token)
    else:
        raise InputError(f"{_not_a_number(token)}; write decimals, hexadecimal floats such as 0x1.8p-3, inf or nan")
    if math.isinf(value) and "inf" not in token.lower():
        raise InputError(f"{_short(token)} is beyond the range of float64; write inf if it is meant")
    return value


def _float32(token: str) -> float:
    """Return the float32 nearest to a number, ties to even; by way of a float64, yet rounded once."""
    value = _float64(token)
    (bits,) = struct.unpack("<Q", struct.pack("<d", value))
    # Only a float64 halfway between two float32 can hide on which side the number is; those below have another spacing.
    if bits & 0x1FFF_FFFF == 0x1000_0000 or 0 < abs(value) < 2.0**-126:
        exact = _exact(token)
        if exact != value and not bits & 1:  # to odd: such a number is never halfway, and on the right side
            value = math.nextafter(value, math.inf if exact > value else -math.inf)
    try:
        (nearest,) = struct.unpack("<f", struct.pack("<f", value))
    except OverflowError:
        raise InputError(f"{_short(token)} is beyond the range of float32; write inf if it is meant") from None
    return float(nearest)


def _exact(token: str) -> Fraction:
    """Return the very number that a token stands for, which is finite."""
    if DECIMAL.fullmatch(token):
        return Fraction(Decimal(token))  # which, unlike int, takes any number of digits
    return qsim.files.hexadecimal(token)


def _word(token: str, bits: int) -> int:
    if not WORD.fullmatch(token):
        raise InputError(f"{_not_a_number(token, 'random word')}; write integers from 0 on")
    word = int(token, 16 if token[:2] in ("0x", "0X") else 10)
    if word >= 1 << bits:
        raise InputError(f"{_short(token)} is no random word of {bits} bits, 0 .. {(1 << bits) - 1}")
    return word


def _not_a_number(token: str, wanted: str = "number") -> str:
    return f"{_short(token)} is not a {wanted}" if token else f"a {wanted} is missing beside a comma"


def _short(token: str) -> str:
    return repr(token if len(token) <= 40 else f"{token[:37]}...")


# --- Writing ---------------------------------------------------------------------------------------------------------


def check_output(path: str) -> None:
    """Refuse a `path` that could not be written, before there is anything to write."""
    if path == "-":
        return
    target = Path(path)
    if target.suffix.lower() not in (".npy", *SEPARATORS):
        raise InputError(f"{path}: a file of numbers is called .npy, .txt or .csv; - is text on {STDOUT}")
    if target.exists() and not target.is_file():
        raise InputError(f"{path} is there and is no file; name another with -o")
    parent = _followed(path).parent
    if not parent.is_dir():
        raise InputError(f"{path}: cannot be written, for there is no folder {parent}; make it first")


def _followed(path: str | Path) -> Path:
    """Return where `path` leads through links; refuse one that leads back to itself."""
    target = Path(os.path.realpath(path))
    if target.is_symlink():  # where no other file is at the end
        raise InputError(f"{path} is a link that leads back to itself; name another file with -o")
    return target


MAPPED = 1 << 24
"""Bytes from which on an array that is made lies in a file, mapped: it may be larger than memory."""


@contextlib.contextmanager
def writing(path: str, shape: tuple[int, ...], dtype: np.dtype[Any]) -> Iterator[NDArray[Any]]:
    """Hold an array to be filled, which is written to `path` after the body, whole or not at all.

    "-" is text on standard output. A large array of a `.npy` lies in the file itself. Text has a line a row, or a line a
    number for fewer than two axes, in decimals that read back exactly. Raise `InputError` for an array of more axes, and for a
    file that cannot be written.
    """
    separator = " " if path == "-" else SEPARATORS.get(Path(path).suffix.lower())
    nbytes = math.prod(shape) * dtype.itemsize
    if separator is None and nbytes > MAPPED:
        with whole(path) as file:
            header = {"descr": np.lib.format.dtype_to_descr(dtype), "fortran_order": False, "shape": shape}
            np.lib.format.write_array_header_1_0(file, header)
            array = _mapped(file, shape, dtype)
            yield np.asarray(array)
            array.flush()
        return
    small = np.empty(shape, dtype)
    yield small
    text = None if separator is None else _text(path, small, separator)
    if path == "-":
        print(text, end="")
        return
    with whole(path) as file:
        if text is None:
            np.save(file, small, allow_pickle=False)
        else:
            file.write(text.encode())


def write(path: str, array: NDArray[Any]) -> None:
    """Write `array` to `path`, as `writing` does."""
    with writing(path, array.shape, array.dtype) as out:
        out[...] = array


@contextlib.contextmanager
def scratch(path: str) -> Iterator[Make]:
    """Hold what makes arrays that are needed for a while; large ones lie in files without a name in the folder of `path`."""
    folder = None if path == "-" else _followed(path).parent

    def make(shape: tuple[int, ...], dtype: np.dtype[Any]) -> NDArray[Any]:
        if math.prod(shape) * dtype.itemsize <= MAPPED:
            return np.empty(shape, dtype)
        with _said(path):
            file = tempfile.TemporaryFile(dir=folder)  # noqa: SIM115 - the stack closes it
            files.callback(file.close)
            return np.asarray(_mapped(file, shape, dtype))

    with contextlib.ExitStack() as files:
        yield make


def _mapped(file: BinaryIO, shape: tuple[int, ...], dtype: np.dtype[Any]) -> Any:
    """Return an array in a file, from where this stands, on disk that is there: a full one would end a process that maps it."""
    begin, nbytes = file.tell(), math.prod(shape) * dtype.itemsize
    file.flush()
    if hasattr(os, "posix_fallocate"):
        os.posix_fallocate(file.fileno(), begin, nbytes)
    else:
        file.writelines(bytes(min(MAPPED, nbytes - at)) for at in range(0, nbytes, MAPPED))
        file.flush()
    return np.memmap(file, dtype, "r+", begin, shape)


PIECE = 1 << 18
"""Elements of an array that are looked at in one go."""


def pieces(shape: tuple[int, ...]) -> Iterator[tuple[slice, ...]]:
    """Yield where pieces of at most `PIECE` elements lie that make up an array, in C order."""
    most, below = PIECE, math.prod(shape[1:])
    if not math.prod(shape):
        return
    if not shape or below * shape[0] <= most:
        yield tuple(slice(0, size) for size in shape)
    elif below <= most:
        for begin in range(0, shape[0], max(most // below, 1)):
            rows = slice(begin, min(begin + most // below, shape[0]))
            yield (rows, *(slice(0, size) for size in shape[1:]))
    else:
        for row in range(shape[0]):
            for inner in pieces(shape[1:]):
                yield (slice(row, row + 1), *inner)


@contextlib.contextmanager
def whole(path: str | Path) -> Iterator[BinaryIO]:
    """Open a file that takes the place of `path` once the body is through, and is gone if it fails.

    A link stays one. Raise `InputError` for a file that cannot be written.
    """
    with _said(path), qsim.files.whole(_followed(path)) as file:
        yield file


@contextlib.contextmanager
def _said(path: str | Path) -> Iterator[None]:
    """Say in a sentence that a file could not be written."""
    try:
        yield
    except OSError as error:
        raise InputError(f"{path}: cannot be written ({error.strerror or error}); name another file with -o") from None


def _text(path: str, array: NDArray[Any], separator: str) -> str:
    if array.ndim > 2:
        where = STDOUT if path == "-" else path
        raise InputError(f"{where} cannot take an array of shape {array.shape}, for text has rows; write .npy")
    # tolist() makes float64 of float32, and its digits are read back alike as either.
    rows = array.tolist() if array.ndim == 2 else [[value] for value in array.reshape(-1).tolist()]
    return "".join(separator.join(map(number, row)) + "\n" for row in rows)
