"""Where data are: at a path, in the folder that `QSIM_DATA` names, or fetched, with a known checksum."""

from __future__ import annotations

import os
from pathlib import Path

from qsim.errors import InputError, enumerate_names

__all__ = ["LARGEST", "fetched", "locate", "missing"]

LARGEST = 1 << 28
"""Bytes of one file of a data set once it is expanded, at most; those that are loaded here have a fifth of that."""


def locate(what: str, path: str | Path | None, names: tuple[str, ...]) -> Path | None:
    """Return `path`, or the first of `names` in the folder that `QSIM_DATA` names; `None` where that has none of them.

    Raise `InputError` for a path that does not exist, and for a `QSIM_DATA` that is no folder.
    """
    if path is not None:
        if not Path(path).exists():
            raise InputError(f"{path}: does not exist; {what} is one of {enumerate_names(names)}")
        return Path(path)
    named = os.environ.get("QSIM_DATA")
    if not named:
        return None
    if not Path(named).is_dir():
        raise InputError(f"QSIM_DATA is {named!r}, which is not a folder")
    return next((found for name in names if (found := Path(named) / name).exists()), None)


def missing(what: str, names: tuple[str, ...], *, fetch: bool) -> InputError:
    """Return the error that says where data were looked for."""
    advice = ", or fetch = True" if fetch else ""
    return InputError(
        f"{what} is not at hand: give its path, or put {enumerate_names(names)} into the folder QSIM_DATA{advice}"
    )


def fetched(url: str, checksum: str) -> Path:
    """Return the path of the file at `url`, from pooch's cache or the network; `checksum` is "sha256:..." or "md5:...".

    Raise `InputError` without pooch (the extra `data`), without the network, and for a file of another checksum.
    """
    try:
        import pooch
    except ImportError:
        raise InputError(
            f'fetching {url} needs pooch: pip install "qsim-numerics[data]", or give the path of a copy'
        ) from None
    try:
        return Path(pooch.retrieve(url, checksum, path=pooch.os_cache("qsim")))
    except ValueError:
        raise InputError(f"{url} is not the known file: its checksum is not {checksum}; fetch it again later") from None
    except OSError as error:  # all errors of the network are
        raise InputError(f"{url} cannot be fetched ({type(error).__name__}); give the path of a copy") from None
