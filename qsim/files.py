"""How files are read and written: TOML, or a sentence why not; hexadecimal numbers, exactly; and whole, or not at all."""

from __future__ import annotations

import contextlib
import secrets
import tomllib
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any, BinaryIO

from qsim.errors import InputError

__all__ = ["hexadecimal", "read_toml", "whole"]


def read_toml(path: Path) -> dict[str, Any]:
    """Return what the TOML file `path` holds; raise `InputError` naming it if it cannot be read or is none."""
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror})") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: not valid TOML: {error}") from None


def hexadecimal(text: str) -> Fraction:
    """Return the very number that `text`, which is one in C99's hexadecimal notation, stands for."""
    digits, _, exponent = text.lower().replace("0x", "").partition("p")
    integer, _, fraction = digits.partition(".")
    return int(integer + fraction, 16) * Fraction(2) ** (int(exponent or 0) - 4 * len(fraction))


@contextlib.contextmanager
def whole(path: Path) -> Iterator[BinaryIO]:
    """Open a file that takes the place of `path` once the body is through, and is gone if it fails."""
    # In the same folder, so that the rename stays on one file system and is atomic.
    part = path.with_name(f".qsim-{secrets.token_hex(8)}.part")
    try:
        with part.open("xb") as file:
            yield file
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)
