"""How the commands read and write arrays: `.npy`, and text with a row of numbers a line; files are written whole."""

from __future__ import annotations

import array
import contextlib
import copy
import io
import itertools
import math
import os
import re
import struct
import sys
import tempfile
import textwrap
import tokenize
import warnings
import weakref
from collections.abc import Callable, Iterable, Iterator, Sequence
from decimal import Decimal
from fractions import Fraction
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

import qsim.files
from qsim.cli.text import number
from qsim.errors import InputError
from qsim.pieces import Pieces, Place

__all__ = [
    "LARGE", "Stored", "check_output", "in_hex", "pieces", "read_floats", "read_patterns", "read_words", "same_file", "whole",
    "whole_array", "write", "writing",
]  # fmt: skip

SEPARATORS = {".txt": " ", ".csv": ",", ".hex": " ", ".mem": " "}
"""The suffixes of text, and what is written between the numbers of a row; either may separate them when read."""

BITS = (".hex", ".mem")
"""The suffixes of text whose words are bit patterns, in hexadecimal as Verilog's $readmemh reads them."""

NAMES = "a file of numbers is called .npy, .txt, .csv, .hex or .mem"

STDIN, STDOUT = "standard input", "standard output"

DECIMAL = re.compile(r"[+-]?((\d+\.?\d*|\.\d+)(e[+-]?\d+)?|inf(inity)?|nan)", re.ASCII | re.IGNORECASE)
# C99 also has hexadecimal floats without the exponent, but those are as likely somebody's bit patterns.
HEXADECIMAL = re.compile(r"[+-]?0x([\da-f]+\.?[\da-f]*|\.[\da-f]+)p[+-]?\d{1,9}", re.ASCII | re.IGNORECASE)
NAME = re.compile(r"[^\W\d]|[#\"'%;]|//")
"""How a name of a column begins, or a comment."""
PATTERN = re.compile(r"(0x)?[\da-f](_?[\da-f]){0,98}", re.ASCII | re.IGNORECASE)
WORD = re.compile(r"\d{1,99}|0x[\da-f]{1,99}", re.ASCII | re.IGNORECASE)

DAMAGED = (ValueError, TypeError, OverflowError, SyntaxError, tokenize.TokenError, MemoryError, RecursionError)
"""How a damaged .npy fails: its header is a Python literal, and the parser has a limit to what is nested."""

Parse = Callable[[str], Any]


# --- Reading ---------------------------------------------------------------------------------------------------------


class Stored(Pieces):
    """An array in a .npy file, pieces of which are read: it may be larger than memory, and than the address space.

    `stored` is the type of its elements in the file, `dtype` that in which they are read, and `given` that of a result.
    """

    def __init__(self, path: str) -> None:
        """Open a file and read its header; raise `InputError` if it is none, or shorter than it promises."""
        self.path = path
        self.file = Path(path).open("rb", buffering=0)  # noqa: SIM115 - closed with this object
        weakref.finalize(self, self.file.close)
        try:
            with warnings.catch_warnings(action="ignore"):  # the sentence below says it, or it is about Python 2
                major, minor = np.lib.format.read_magic(self.file)
                if major not in (1, 2, 3) or minor:
                    raise ValueError(f"its version is {major}.{minor}")
                header = np.lib.format.read_array_header_1_0 if major == 1 else np.lib.format.read_array_header_2_0
                self.shape, self.fortran, self.stored = header(self.file)
            if not all(type(size) is int and size >= 0 for size in self.shape):
                raise ValueError(f"its shape is {self.shape}")
            if len(self.shape) > 64:  # NumPy has no more
                raise ValueError(f"it has {len(self.shape)} axes")
        except DAMAGED as error:
            reason = "its header is damaged"
            if isinstance(error, ValueError):  # its first line; those that may follow say how to trust a file
                reason = textwrap.shorten(str(error).partition("\n")[0].rstrip("."), 100, placeholder=" ...")
            raise self._damaged(reason) from None
        if self.stored.hasobject:
            raise InputError(f"{path} holds Python objects, which are not read; save an array of numbers")
        self.begin = self.file.tell()
        self.given, self.dtype = self.stored, self.stored.newbyteorder("=")
        self.ndim, self.size = len(self.shape), math.prod(self.shape)
        there = os.fstat(self.file.fileno()).st_size - self.begin
        if there < self.size * self.stored.itemsize:
            raise self._damaged("it ends before the last of its elements")

    def _damaged(self, reason: str) -> InputError:
        return InputError(f"{self.path} cannot be read as .npy ({reason}); write it with numpy.save")

    def __getitem__(self, place: Place) -> NDArray[Any]:
        """Return the elements at a slice of each axis, in the type that this is taken to have."""
        spans = tuple(slice(*part.indices(size)) for part, size in zip(place, self.shape, strict=True))
        turned = slice(None, None, -1 if self.fortran else 1)  # as a file that has the axes in the opposite order
        found = self._block(self.shape[turned], spans[turned], 0)
        found = found.T if self.fortran else found
        with np.errstate(invalid="ignore"):  # a signalling NaN becomes a quiet one
            return np.ascontiguousarray(found, self.dtype).reshape(found.shape)

    def _block(self, shape: tuple[int, ...], spans: tuple[slice, ...], first: int) -> NDArray[Any]:
        """Return the elements at `spans` of an array of a shape, in C order, whose first element is number `first`.

        They are read with the elements between them where these are few, else a slice of the first axis at a time.
        """
        sizes = tuple(len(range(part.start, part.stop)) for part in spans)
        if not math.prod(sizes):
            return np.empty(sizes, self.stored)
        steps = [math.prod(shape[axis + 1 :]) for axis in range(len(shape))]
        begin = first + sum(part.start * step for part, step in zip(spans, steps, strict=True))
        count = 1 + sum((size - 1) * step for size, step in zip(sizes, steps, strict=True))
        if count > max(4 * PIECE, math.prod(sizes)):
            found = np.empty(sizes, self.stored)
            for row in range(sizes[0]):
                found[row] = self._block(shape[1:], spans[1:], first + (spans[0].start + row) * steps[0])
            return found
        flat = self._read(begin, count)
        strides = [step * self.stored.itemsize for step in steps]
        return np.lib.stride_tricks.as_strided(flat, sizes, strides, writeable=False)

    def _read(self, first: int, count: int) -> NDArray[Any]:
        """Return `count` elements as they follow each other in the file."""
        found = np.empty(count, self.stored)
        self.file.seek(self.begin + first * self.stored.itemsize)
        view = memoryview(found.view(np.uint8).data)
        while view:
            done = self.file.readinto(view)
            if not done:
                raise self._damaged("it was cut while it was read")
            view = view[done:]
        return found

    def in_c_order(self, output: str) -> Stored:
        """Return the array as one in C order, whose rows follow each other, in a file without a name beside that of the result.

        In Fortran order a row is all over the file, and would be read with the whole of it.
        """
        if not self.fortran or self.ndim < 2:
            return self
        turned = copy.copy(self)
        turned.fortran, turned.begin = False, 0
        with _said(output):
            folder = None if output == "-" else _followed(output).parent
            turned.file = tempfile.TemporaryFile(dir=folder, buffering=0)  # noqa: SIM115 - closed with the object
            weakref.finalize(turned, turned.file.close)
            steps = [math.prod(self.shape[axis + 1 :]) * self.stored.itemsize for axis in range(self.ndim)]
            for box in boxes(self.shape):
                block = self._block(self.shape[::-1], box[::-1], 0).T
                # Axes from `split` on are in one piece there.
                split = max(axis for axis in range(self.ndim) if axis == 0 or block.shape[axis] < self.shape[axis])
                for at in np.ndindex(block.shape[:split]):
                    where = [span.start + k for span, k in zip(box, (*at, *[0] * self.ndim), strict=False)]
                    turned.file.seek(sum(k * step for k, step in zip(where, steps, strict=True)))
                    _put(turned.file, block[at])
        return turned


def whole_array(read: NDArray[Any] | Stored) -> NDArray[Any]:
    """Return all of an array that was read."""
    return read[tuple(slice(0, size) for size in read.shape)] if isinstance(read, Stored) else read


def boxes(shape: tuple[int, ...]) -> Iterator[Place]:
    """Yield where boxes of at most 4 `PIECE` elements lie that make up an array, long in the first axis and in the last."""
    room = 4 * PIECE
    sizes = [1] * len(shape)
    sizes[0] = min(shape[0], max(math.isqrt(room), room // max(shape[-1], 1)))
    for axis in reversed(range(1, len(shape))):
        sizes[axis] = max(min(shape[axis], room // math.prod(sizes)), 1)
    for begins in itertools.product(*map(range, [0] * len(shape), shape, sizes)):
        yield tuple(slice(begin, min(begin + size, end)) for begin, size, end in zip(begins, sizes, shape, strict=True))


def _put(file: BinaryIO, part: NDArray[Any]) -> None:
    """Write the elements of an array, all of them: a file without a buffer takes as many as it likes at a time."""
    view = memoryview(np.ascontiguousarray(part).reshape(-1).view(np.uint8).data)
    while view:
        view = view[file.write(view) :]


def in_hex(path: str, *, asked: bool = False) -> bool:
    """Return whether the words of a file are bit patterns: always in .hex and .mem, and in other text if that is `asked`."""
    suffix = Path(path).suffix.lower()
    return suffix in BITS or (asked and (path == "-" or suffix in SEPARATORS))


def read_patterns(path: str, dtype: str | None = None, skip: int = 0) -> NDArray[Any] | Stored:
    """Return the numbers of `dtype` whose bit patterns are the hexadecimal words of a text, or the integers of a .npy.

    Without `dtype` words that have 8 or 16 digits, all of them, are those of float32 or float64. A .npy of floats is read as it
    is. The first `skip` lines of a text are left out. Raise `InputError` for a file that cannot be read.
    """
    if not _is_text(path, skip):
        array = Stored(path)
        if array.stored.kind != "u" or array.stored.itemsize == 1:
            return read_floats(path, dtype, skip=skip)
        array.stored = np.dtype(array.stored.str.replace("u", "f"))
        array.given = array.dtype = array.stored.newbyteorder("=")
        if dtype not in (None, array.dtype.name):
            raise InputError(f"{path} holds the bits of {array.dtype}, not of {dtype}; leave --dtype out")
        return array
    digits: set[int] = set()
    words = _read_text(path, lambda token: _pattern(token, digits), np.dtype(np.uint64), [], skip)
    sizes = {"float16": 4, "float32": 8, "float64": 16}
    name = dtype or next((name for name, size in sizes.items() if digits == {size} and size > 4), "")
    if not name:
        raise InputError(
            f"{path}: say of which numbers the words are the bits, with --dtype float16, float32 or float64"
        )
    if max(digits, default=0) > sizes[name]:
        raise InputError(f"{path}: a word of {max(digits)} digits is no {name}, whose bits are {sizes[name]} digits")
    return words.astype(f"u{sizes[name] // 2}").view(name)


def _pattern(token: str, digits: set[int]) -> int:
    """Return the integer of a word in hexadecimal, with 0x or without; how many digits it has is added to `digits`."""
    if not PATTERN.fullmatch(token):
        raise InputError(f"{_not_a_number(token, 'word in hexadecimal')}; write digits 0 to 9 and a to f")
    plain = token.replace("_", "").lower().removeprefix("0x")
    if len(plain) > 16:
        raise InputError(f"{_short(token)} has more than 64 bits")
    digits.add(len(plain))
    return int(plain, 16)


def _without_comments(lines: Iterable[str], name: str) -> Iterator[str]:
    """Yield the lines of a memory file without comments and with as many; an address must be that of the next word anyway."""
    inside, count = False, 0
    for at, line in enumerate(lines, 1):
        kept, rest = "", line
        while rest:
            mark = "*/" if inside else "/*"
            part, found, after = rest.partition(mark)
            if not inside and "//" in part:
                part, found, after = part.partition("//")[0], "", ""
            kept += " " if inside else part
            inside, rest = inside != bool(found), after
        words = kept.split()
        for address in [word for word in words if word.startswith("@")]:
            begin = count + sum(not word.startswith("@") for word in words[: words.index(address)])
            if not PATTERN.fullmatch(address[1:]) or int(address[1:].replace("_", ""), 16) != begin:
                raise InputError(
                    f"{name}, line {at}: {_short(address)} is not @{begin:x}, the address of the next word; write all, in order"
                )
            words.remove(address)
        count += len(words)
        yield " ".join(words)


def read_floats(
    path: str, dtype: str | None = None, lost: list[int] | None = None, skip: int = 0
) -> NDArray[Any] | Stored:
    """Return the numbers of the file `path`, or of standard input for "-".

    Text is read as `dtype` ("float64" if it is `None`), each number rounded once, to nearest even: shape (rows,) where
    every line has one number, (rows, columns) otherwise. The places of those that are not 0 and were rounded to it are
    added to `lost`. The first `skip` lines are left out. A `.npy` is read a piece at a time, and `dtype` may widen it. Raise
    `InputError` for a file that cannot be read, with the line of a text.
    """
    if _is_text(path, skip):
        parse, kind = (_float32, np.float32) if dtype == "float32" else (_float64, np.float64)
        return _read_text(path, parse, np.dtype(kind), [] if lost is None else lost, skip)
    array = Stored(path)
    if array.dtype.kind == "V" and not array.dtype.names:
        raise InputError(
            f"{path} holds raw bytes ({array.dtype}), as an array of an ml_dtypes type is stored; "
            "save x.astype('float32') instead, which has the same values"
        )
    if array.dtype not in ("float16", "float32", "float64"):
        bits = "; give --hex if these are the bits of floats" if array.dtype in ("uint16", "uint32", "uint64") else ""
        raise InputError(f"{path} holds {array.stored}; convert it to float16, float32 or float64 first{bits}")
    wanted = np.dtype(dtype or array.dtype)
    if not np.can_cast(array.dtype, wanted):
        raise InputError(f"{path} holds {array.stored}, which --dtype {dtype} would round once more; leave --dtype out")
    if wanted != array.dtype:
        array.given = array.dtype = wanted
    return array


def read_words(
    path: str, bits: int, what: str = "random word", *, hexadecimal: bool = False, hint: str = ""
) -> NDArray[Any] | Stored:
    """Return the words of `bits` bits in the file `path`: integers, in a text decimal or 0x, or `hexadecimal` without it.

    Raise `InputError` for words that are none; `hint` ends the sentence about one in a `.npy` that is too large.
    """
    if _is_text(path):
        if in_hex(path, asked=hexadecimal):
            return _read_text(
                path, lambda token: _fit(token, _pattern(token, set()), bits, what), np.dtype(np.uint64), []
            )
        return _read_text(path, lambda token: _word(token, bits, what), np.dtype(np.uint64), [])
    array = Stored(path)
    if array.dtype.kind not in "iu":
        raise InputError(f"{path} holds {array.stored}; {what}s are integers")
    begin = 0
    for place in pieces(array.shape):
        part = array[place].reshape(-1)
        wrong = np.flatnonzero((part < 0) | (part > (1 << bits) - 1))
        if wrong.size:
            raise InputError(
                f"{path}, index {begin + wrong[0]}: {part[wrong[0]]} is not in 0 .. {(1 << bits) - 1}{hint}"
            )
        begin += part.size
    return array


def _is_text(path: str, skip: int = 0) -> bool:
    suffix = Path(path).suffix.lower()
    if skip and suffix == ".npy":
        raise InputError(f"--skip leaves out lines of a text, and {path} has none; leave --skip out")
    if suffix == ".npz":
        raise InputError(f"{path} is an archive of several arrays; save the one to round as .npy")
    if path != "-" and suffix not in (".npy", *SEPARATORS):
        raise InputError(f"{path}: {NAMES}; - is text on {STDIN}")
    return suffix != ".npy"


def _read_text(path: str, parse: Parse, dtype: np.dtype[Any], lost: list[int], skip: int = 0) -> NDArray[Any]:
    # What is no UTF-8 shows up as a token that is no number, with its line.
    how: dict[str, Any] = {"encoding": "utf-8-sig", "errors": "backslashreplace"}
    if path == "-":
        if sys.stdin is None:
            raise InputError(f"{STDIN} is closed; name a file, or use </dev/null if there is nothing to read")
        if isinstance(sys.stdin, io.TextIOWrapper):
            sys.stdin.reconfigure(**how)
        return _rows(sys.stdin, STDIN, parse, dtype, lost, skip)
    with Path(path).open(**how) as lines:
        plain = _without_comments(lines, path) if Path(path).suffix.lower() in BITS else lines
        return _rows(plain, path, parse, dtype, lost, skip)


def _rows(
    lines: Iterable[str], name: str, parse: Parse, dtype: np.dtype[Any], lost: list[int], skip: int
) -> NDArray[Any]:
    """Return the numbers of `lines` after the first `skip`; blank ones do not count. Which became 0 is added to `lost`."""
    numbers: array.array[Any] = array.array("d" if dtype.kind == "f" else "Q")
    columns = at = 0
    for at, line in enumerate(lines, 1):
        if at <= skip or not line.strip():
            continue
        tokens = [token for part in line.split(",") for token in part.split() or [""]]
        if columns and len(tokens) != columns:
            raise InputError(
                f"{name}, line {at}: a row of {len(tokens)} numbers, where those above have {columns}; "
                "rows are of one length"
            )
        try:
            found = list(map(parse, tokens))
        except InputError as error:
            if not columns and all(NAME.match(token) for token in tokens):
                raise InputError(
                    f"{name}, line {at}: {_not_a_number(tokens[0])}; leave a line of names or a comment out with --skip {at}"
                ) from None
            raise InputError(f"{name}, line {at}: {error}") from None
        columns = len(tokens)
        if 0 in found:
            lost += [len(numbers) + k for k, token in enumerate(tokens) if not found[k] and not _is_zero(token)]
        numbers.extend(found)
    if skip and not columns:
        raise InputError(f"{name} has {at} lines, and --skip {skip} leaves none of them with a number")
    read = np.asarray(numbers).astype(dtype, copy=False)
    return read.reshape(-1, columns) if columns > 1 else read


def _is_zero(token: str) -> bool:
    """Return whether a token stands for 0, and is not merely rounded to it."""
    digits = token.lower()
    return not re.search("[1-9a-f]", digits.partition("x")[2].partition("p")[0] or digits.partition("e")[0])


def _float64(token: str) -> float:
    """Return the float64 nearest to a number, ties to even."""
    value = math.inf
    if DECIMAL.fullmatch(token):
        value = float(token)
    elif HEXADECIMAL.fullmatch(token):
        with contextlib.suppress(OverflowError):
            value = float.fromhex(token)
    else:
        bits = "; give --hex if it is the bits of one" if PATTERN.fullmatch(token) and token[:2] in ("0x", "0X") else ""
        raise InputError(
            f"{_not_a_number(token)}; write decimals, hexadecimal floats such as 0x1.8p-3, inf or nan{bits}"
        )
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


def _word(token: str, bits: int, what: str) -> int:
    if not WORD.fullmatch(token):
        raise InputError(f"{_not_a_number(token, what)}; write integers from 0 on")
    return _fit(token, int(token, 16 if token[:2] in ("0x", "0X") else 10), bits, what)


def _fit(token: str, word: int, bits: int, what: str) -> int:
    if word >= 1 << bits:
        raise InputError(f"{_short(token)} is no {what} of {bits} bits, 0 .. {(1 << bits) - 1}")
    return word


def _not_a_number(token: str, wanted: str = "number") -> str:
    return f"{_short(token)} is not a {wanted}" if token else f"a {wanted} is missing beside a comma"


def _short(token: str) -> str:
    return repr(token if len(token) <= 40 else f"{token[:37]}...")


# --- Writing ---------------------------------------------------------------------------------------------------------


def check_output(path: str, suffixes: Sequence[str] = (".npy", *SEPARATORS)) -> None:
    """Refuse a `path` that could not be written, before there is anything to write."""
    if path == "-":
        return
    target = Path(path)
    if target.suffix.lower() not in suffixes:
        raise InputError(f"{path}: {NAMES}; - is text on {STDOUT}")
    if target.exists() and not target.is_file():
        raise InputError(f"{path} is there and is no file; name another with -o")
    parent = _followed(path).parent
    if not parent.is_dir():
        raise InputError(f"{path}: cannot be written, for there is no folder {parent}; make it first")


def same_file(a: str, b: str) -> bool:
    """Return whether two paths of results lead to one file, or both are standard output."""
    return a == b or ("-" not in (a, b) and _followed(a) == _followed(b))


def _followed(path: str | Path) -> Path:
    """Return where `path` leads through links; refuse one that leads back to itself."""
    target = Path(os.path.realpath(path))
    if target.is_symlink():  # where no other file is at the end
        raise InputError(f"{path} is a link that leads back to itself; name another file with -o")
    return target


LARGE = 1 << 24
"""Bytes from which on an array is read, rounded and written a piece at a time: it may be larger than memory."""


@contextlib.contextmanager
def writing(path: str, shape: tuple[int, ...], dtype: np.dtype[Any], bits: int = 0) -> Iterator[Any]:
    """Write an array to `path`, whole or not at all: out[place] = ..., pieces in C order.

    "-" is text on standard output. Text has a line a row, or a line a number for fewer than two axes, in decimals that read
    back exactly; with `bits` as words of so many bits, in hexadecimal. Raise `InputError` for an array of more axes, and for a
    file that cannot be written.
    """
    separator = " " if path == "-" else SEPARATORS.get(Path(path).suffix.lower())
    if separator is not None and len(shape) > 2:
        where = STDOUT if path == "-" else path
        raise InputError(f"{where} cannot take an array of shape {shape}, for text has rows; write .npy")
    if path != "-" and math.prod(shape) * dtype.itemsize > LARGE:
        with whole(path) as file:
            yield Appended(file, shape, dtype) if separator is None else Lines(file, shape, dtype, separator, bits)
        return
    small = np.empty(shape, dtype)
    yield small
    if path == "-":
        lines = io.BytesIO()
        Lines(lines, shape, dtype, " ", bits)[...] = small
        print(lines.getvalue().decode(), end="")
        return
    with whole(path) as file:
        if separator is None:
            np.save(file, small, allow_pickle=False)
        else:
            Lines(file, shape, dtype, separator, bits)[...] = small


class Appended:
    """Take the pieces of an array, in C order, into a .npy file."""

    def __init__(self, file: BinaryIO, shape: tuple[int, ...], dtype: np.dtype[Any]) -> None:
        self.file, self.shape, self.dtype = file, shape, dtype
        header = {"descr": np.lib.format.dtype_to_descr(dtype), "fortran_order": False, "shape": shape}
        np.lib.format.write_array_header_1_0(file, header)
        if hasattr(os, "posix_fallocate"):  # a disk without room is noticed before anything is computed
            file.flush()
            os.posix_fallocate(file.fileno(), file.tell(), math.prod(shape) * dtype.itemsize)

    def __setitem__(self, _: object, piece: NDArray[Any]) -> None:
        _put(self.file, piece.astype(self.dtype, copy=False))


class Lines:
    """Take the pieces of an array of at most two axes, in C order, into a text."""

    def __init__(
        self, file: BinaryIO, shape: tuple[int, ...], dtype: np.dtype[Any], separator: str, bits: int = 0
    ) -> None:
        self.file, self.shape, self.dtype, self.separator = file, shape, dtype, separator
        self.digits = -(-bits // 4)
        self.columns, self.at = shape[1] if len(shape) == 2 else 1, 0

    def __setitem__(self, _: object, piece: NDArray[Any]) -> None:
        # tolist() makes float64 of float32, and its digits are read back alike as either.
        flat = np.ascontiguousarray(piece).reshape(-1)
        if self.digits:
            patterns = flat.view(f"u{flat.dtype.itemsize}") if flat.dtype.kind == "f" else flat
            words = [f"{pattern:0{self.digits}x}" for pattern in patterns.tolist()]
        else:
            words = list(map(number, flat.tolist()))
        rows, done = [], 0
        while done < len(words):
            row = words[done : done + self.columns - self.at]
            done += len(row)
            self.at = (self.at + len(row)) % self.columns
            rows.append(self.separator.join(row) + (self.separator if self.at else "\n"))
        self.file.write("".join(rows).encode())


def write(path: str, array: NDArray[Any]) -> None:
    """Write `array` to `path`, as `writing` does."""
    with writing(path, array.shape, array.dtype) as out:
        out[...] = array


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
