"""How files are read and written: TOML, or a sentence why not; hexadecimal numbers, exactly; and whole, or not at all."""

from __future__ import annotations

import contextlib
import functools
import hashlib
import math
import os
import platform
import re
import shutil
import stat
import sys
import time
import tomllib
import zipfile
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any, BinaryIO

from qsim.errors import InputError

try:
    import fcntl
except ImportError:  # not a POSIX system: files of killed writers stay
    fcntl = None  # type: ignore[assignment]

__all__ = ["hexadecimal", "read_npz", "read_text", "read_toml", "read_toml_and_text", "remove_unfinished", "whole"]

LARGEST_TOML = 3 << 20
"""Bytes of a TOML file: those of the largest table of values, each of them with all its digits; it is read in a second."""

LONGEST_KEY = 200
"""Dots in a key: the time that `tomllib` takes to read one grows with their square."""


def read_toml(path: Path) -> dict[str, Any]:
    """Return the contents of the TOML file `path`; raise `InputError` naming it if it cannot be read or is no TOML.

    A byte order mark at its beginning is passed over.
    """
    return read_toml_and_text(path)[0]


def read_toml_and_text(path: Path) -> tuple[dict[str, Any], str]:
    """Return the contents as `read_toml` does, and the text itself, in which lines can be found."""
    try:
        with path.open("rb") as file:
            data = file.read(LARGEST_TOML + 1)
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror})") from None
    except ValueError:  # a null character, or half of a surrogate pair
        raise InputError(f"{str(path)!r} cannot be the name of a file; give another") from None
    if len(data) > LARGEST_TOML:
        raise InputError(f"{path}: has more than {LARGEST_TOML >> 20} MiB; divide it into several files")
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: not valid TOML: {error}") from None
    _refuse_long_keys(path, text)
    try:
        tables = tomllib.loads(text)
        repr(tables)  # fails for the same values as reading does, and then so would a sentence that names them
    except tomllib.TOMLDecodeError as error:
        raise InputError(f"{path}: not valid TOML: {error}") from None
    except ValueError:
        most = sys.get_int_max_str_digits()
        raise InputError(
            f"{path}: has an integer of more than {most} digits; give one that a float64 can hold"
        ) from None
    except RecursionError:
        raise InputError(
            f"{path}: has lists or tables nested too deeply to be read; a list of numbers is enough"
        ) from None
    return tables, text


def _refuse_long_keys(path: Path, text: str) -> None:
    """Refuse a key of hundreds of parts, or thousands with blanks between them, as sentences have them."""
    for number, line in enumerate(text.split("\n"), 1):
        for part in re.split(r"[=,{\[]", line) if line.count(".") > LONGEST_KEY else ():
            most = LONGEST_KEY if " " not in part.strip() else 10 * LONGEST_KEY
            if part.count(".") > most and ".." not in part:
                raise InputError(f"{path}: line {number} has a key of more than {most} parts; a few are enough")


def read_npz(
    path: Path, expected: str, *, compressed: bool = True, texts: bool = False
) -> tuple[dict[str, Any], bytes]:
    """Return the arrays of an `.npz` by name, in its order, and its comment; every checksum is looked at.

    Only arrays of booleans, integers and floats are read, and with `texts` of texts, so no pickle is. Members that are not
    compressed are no larger than the file; others expand to at most 256 MiB, or 100 times the size of the file where that is
    more.
    Raise `InputError` for a file that cannot be read, and with the `expected` type for one that is damaged or none; without
    `compressed` one with a compressed member is none.
    """
    problem = InputError(f"{path}: damaged, or another file; expected {expected}")
    try:
        file = path.open("rb")
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror})") from None
    except ValueError:
        raise InputError(f"{str(path)!r} cannot be the name of a file; give another") from None
    arrays: dict[str, Any] = {}
    try:
        size = os.fstat(file.fileno()).st_size
        with file, zipfile.ZipFile(file) as archive:
            members = archive.infolist()
            stored = all(member.compress_type == zipfile.ZIP_STORED for member in members)
            packed, expanded = (sum(getattr(m, name) for m in members) for name in ("compress_size", "file_size"))
            if packed > size or (stored and expanded > size) or not (stored or compressed):
                raise problem
            if expanded > max(1 << 28, 100 * size):
                raise InputError(f"{path}: expands to over 100 times its size; expected {expected}")
            for member in members:
                name = member.filename.removesuffix(".npy")
                if name in arrays or name == member.filename:
                    raise problem
                with archive.open(member) as content:
                    arrays[name] = _read_array(content, member.file_size)
                if arrays[name].dtype.kind in "SU" and not texts:
                    raise problem
            return arrays, archive.comment
    except InputError:
        raise
    except Exception:  # noqa: BLE001 - a damaged archive raises nearly anything
        raise problem from None


HEADER = re.compile(
    r"\{\s*'descr'\s*:\s*'([<>|][biufSU][0-9]{1,5})'\s*,\s*'fortran_order'\s*:\s*(True|False)\s*,"
    r"\s*'shape'\s*:\s*\(([0-9,\s]*)\)\s*,?\s*\}\s*"
)
"""The header of an array of numbers or texts: its type, the order of its axes, and their lengths."""


def _read_array(content: Any, size: int) -> Any:
    """Return the array of a member of `size` bytes; raise any exception for one that is none."""
    import numpy as np

    version = np.lib.format.read_magic(content)
    width = {(1, 0): 2, (2, 0): 4, (3, 0): 4}[version]
    length = int.from_bytes(content.read(width), "little")
    header = HEADER.fullmatch(content.read(length).decode("ascii"))
    if header is None:
        raise ValueError
    dtype, shape = np.dtype(header[1]), tuple(int(n) for n in header[3].split(",") if n.strip())
    nbytes = math.prod(shape) * dtype.itemsize
    if np.lib.format.MAGIC_LEN + width + length + nbytes != size:  # before memory is asked for
        raise ValueError
    data = np.empty(nbytes, np.uint8)
    view, at = data.data, 0
    while at < nbytes:
        read = content.readinto(view[at : at + (1 << 20)])
        if not read:
            raise EOFError
        at += read
    if content.read(1):  # at its end the checksum is held against what was read
        raise ValueError
    return data.view(dtype).reshape(shape, order="F" if header[2] == "True" else "C")


def read_text(path: Path, most: int) -> str:
    """Return the text of a file of at most `most` bytes; raise `InputError` naming it if it is none, or cannot be read."""
    try:
        if not stat.S_ISREG(path.stat().st_mode):  # a pipe would be waited for
            raise InputError(f"{path}: is no file")
        with path.open("rb") as file:
            data = file.read(most + 1)
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror})") from None
    if len(data) > most:
        raise InputError(f"{path}: has more than {most >> 20} MiB")
    try:
        return data.decode()
    except UnicodeDecodeError:
        raise InputError(f"{path}: is no text in UTF-8") from None


def hexadecimal(text: str) -> Fraction:
    """Return the very number that `text`, which is one in C99's hexadecimal notation, stands for."""
    digits, _, exponent = text.lower().replace("0x", "").partition("p")
    integer, _, fraction = digits.partition(".")
    return int(integer + fraction, 16) * Fraction(2) ** (int(exponent or 0) - 4 * len(fraction))


@contextlib.contextmanager
def whole(path: Path) -> Iterator[BinaryIO]:
    """Open a file that takes the place of `path` once the body is through, and is gone if it fails.

    It has the permissions of the file that it replaces, from the beginning. File and folder are synchronized with the disk
    before and after it takes its place, so that a power cut leaves the old file or the new one. Files of earlier writers that
    were killed are removed from the folder (`remove_unfinished`).
    """
    remove_unfinished(path.parent)
    part, file = _begin(path.parent)
    try:
        with file:
            with contextlib.suppress(FileNotFoundError):
                shutil.copymode(path, part)
            yield file
            file.flush()
            os.fsync(file.fileno())
            if fcntl is not None:
                part.replace(path)  # while it is locked
        if fcntl is None:
            part.replace(path)
        _synchronize(path.parent)
    finally:
        part.unlink(missing_ok=True)


def _begin(folder: Path) -> tuple[Path, BinaryIO]:
    """Return a new file, locked, in the folder of the file that it is to replace: a rename within a file system is atomic."""
    while True:
        part = folder / f".qsim-{_machine()}{os.urandom(8).hex()}.part"
        try:
            file = part.open("x+b")  # readable too, so that it can be mapped
        except FileExistsError:
            continue
        except OSError:
            part.unlink(missing_ok=True)
            raise
        # Between the two calls `remove_unfinished` of another process may have locked and removed it.
        if _lock(file.fileno()) is not False and os.fstat(file.fileno()).st_nlink:
            return part, file
        file.close()


UNFINISHED = re.compile(r"\.qsim-([0-9a-f]{8})?[0-9a-f]{16}\.part")
"""The names of files that `whole` writes: which machine, and a random number."""

DAY = 86400


def remove_unfinished(folder: Path) -> None:
    """Remove from `folder`, but not from folders in it, the unfinished files of writers that were killed.

    A live writer holds a lock on its file. Locks that another machine holds may be invisible here, so a file of another machine
    is removed only when nobody has written to it for a day. Files of other users and files that `whole` did not name stay, and
    so does whatever cannot be removed.
    """
    if fcntl is None:
        return
    try:
        with os.scandir(folder) as entries:
            found = [(Path(entry.path), name[1]) for entry in entries if (name := UNFINISHED.fullmatch(entry.name))]
    except OSError:
        return
    for part, machine in found:
        with contextlib.suppress(OSError):
            _remove_abandoned(part, 0 if machine == _machine() else DAY)


def _remove_abandoned(part: Path, age: float) -> None:
    """Remove an unfinished file of this user that nobody holds and that is at least so many seconds old."""
    # Not through a link, and without waiting for the other end of a pipe.
    descriptor = os.open(part, os.O_RDWR | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        about = os.fstat(descriptor)
        ours = stat.S_ISREG(about.st_mode) and about.st_uid == os.geteuid() and about.st_nlink == 1
        if ours and (not age or about.st_mtime < time.time() - age) and _lock(descriptor):
            part.unlink()
    finally:
        os.close(descriptor)


def _lock(descriptor: int) -> bool | None:
    """Lock a file and return whether that succeeded; `None` where its file system has no locks."""
    if fcntl is None:
        return None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        return None
    return True


@functools.cache
def _machine() -> str:
    """Return eight digits that tell this machine from others."""
    return hashlib.sha256(platform.node().encode()).hexdigest()[:8]


def _synchronize(folder: Path) -> None:
    """Write the changes of names in a folder to the disk, on file systems that can."""
    with contextlib.suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
