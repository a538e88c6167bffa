"""How files are read and written: TOML, or a sentence why not; and whole, or not at all."""

from __future__ import annotations

import contextlib
import secrets
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

from qsim.errors import InputError

__all__ = ["read_toml", "whole"]


def read_toml(path: Path) -> dict[str, Any]:
    """Return what the TOML file `path` holds; raise `InputError` naming it if it cannot be read or is none."""
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror})") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: not valid TOML: {error}") from None


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
