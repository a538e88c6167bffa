"""How files are read and written: TOML, or a sentence why not; hexadecimal numbers, exactly; and whole, or not at all."""

from __future__ import annotations

import contextlib
import os
import shutil
import sys
import tomllib
import zipfile
import zlib
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any, BinaryIO

from qsim.errors import InputError

__all__ = ["hexadecimal", "read_npz", "read_toml", "read_toml_and_text", "whole"]


def read_toml(path: Path) -> dict[str, Any]:
    """Return what the TOML file `path` holds; raise `InputError` naming it if it cannot be read or is none.

    A byte order mark at its beginning is passed over.
    """
    return read_toml_and_text(path)[0]


def read_toml_and_text(path: Path) -> tuple[dict[str, Any], str]:
    """Return what `read_toml` does, and the text it was read from, for whoever needs to know on which line a thing stood."""
    try:
        data = path.read_bytes()
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror})") from None
    except ValueError:  # a null character, or half of a surrogate pair
        raise InputError(f"{str(path)!r} cannot be the name of a file; give another") from None
    try:
        text = data.decode("utf-8-sig")
        tables = tomllib.loads(text)
        repr(tables)  # fails for the same values as reading does, and then so would a sentence that names them
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
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


def read_npz(path: Path, expected: str) -> tuple[dict[str, Any], bytes]:
    """Return the arrays of an `.npz` by name, in its order, and its comment; no pickles, and every checksum is looked at.

    Raise `InputError` for a file that cannot be read, and with what was `expected` for one that is damaged or none.
    """
    import numpy as np

    arrays = {}
    try:
        # Not by numpy.load, which leaves a damaged file open.
        with path.open("rb") as file, zipfile.ZipFile(file) as archive:
            for name in archive.namelist():
                with archive.open(name) as member:
                    arrays[name.removesuffix(".npy")] = np.lib.format.read_array(member, allow_pickle=False)
                    if member.read(1):  # at its end the checksum is held against what was read
                        raise ValueError(name)
            return arrays, archive.comment
    except FileNotFoundError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror})") from None
    except (OSError, ValueError, EOFError, KeyError, TypeError, RuntimeError, zipfile.BadZipFile, zlib.error):
        raise InputError(f"{path}: damaged, or another file; expected {expected}") from None


def hexadecimal(text: str) -> Fraction:
    """Return the very number that `text`, which is one in C99's hexadecimal notation, stands for."""
    digits, _, exponent = text.lower().replace("0x", "").partition("p")
    integer, _, fraction = digits.partition(".")
    return int(integer + fraction, 16) * Fraction(2) ** (int(exponent or 0) - 4 * len(fraction))


@contextlib.contextmanager
def whole(path: Path) -> Iterator[BinaryIO]:
    """Open a file that takes the place of `path` once the body is through, and is gone if it fails.

    It has the permissions of the file that it replaces, from the beginning.
    """
    # In the same folder, so that the rename stays on one file system and is atomic.
    part = path.with_name(f".qsim-{os.urandom(8).hex()}.part")
    try:
        with part.open("x+b") as file:  # readable too, so that it can be mapped
            with contextlib.suppress(FileNotFoundError):
                shutil.copymode(path, part)
            yield file
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)
