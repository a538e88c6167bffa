"""Checkpoints: nested dicts of arrays and integers as one `.npz`, without pickles, whole or not at all.

The name of a member is its path, "params/layer0/w". A Python integer ends in "#int", an empty dict in "#dict", a NumPy scalar
in "#scalar". An array of a type of ml_dtypes ends in the name of that type, "#bfloat16", and is held as unsigned integers with
the same bits. So a checkpoint can be read by `numpy.load` alone. The same tree gives the same bytes.
"""

from __future__ import annotations

import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from qsim.errors import InputError
from qsim.files import read_npz, whole

__all__ = ["load", "save"]


def save(path: str | Path, tree: dict[str, Any]) -> None:
    """Write a tree of arrays and integers to `path`, replacing any file there; uncompressed.

    Arrays are of booleans, integers, floats or a type of ml_dtypes; `load` returns them with the same type, shape and bits.
    Raise `InputError` for keys that an archive cannot hold (no strings, empty, with "/", "#" or a null character, too long),
    and for leaves that would come back as something else: masked arrays, lists, texts, truth values, `None`.
    """
    if not isinstance(tree, dict):
        raise InputError(f"a checkpoint is a dict of what is saved, not {type(tree).__name__}")
    try:
        members = dict(_members(tree, ""))
    except RecursionError:
        raise InputError("a checkpoint has dicts nested too deeply, or one that holds itself") from None
    try:
        with whole(Path(path)) as file, zipfile.ZipFile(file, "w") as archive:
            archive.comment = _comment(len(members))
            for name, array in members.items():
                # A fixed date, 1980, so that equal trees are equal files.
                with archive.open(zipfile.ZipInfo(f"{name}.npy"), "w", force_zip64=True) as member:
                    np.lib.format.write_array(member, array, allow_pickle=False)
    except OSError as error:
        raise InputError(f"{path}: cannot be written ({error.strerror})") from None
    except ValueError:
        raise InputError(f"{str(path)!r} cannot be the name of a file; give another") from None


LONGEST = 65_535
"""Bytes of the name of a member, at most: a zip archive has 16 bits for their number."""


def _members(tree: Any, path: str) -> Iterator[tuple[str, Any]]:
    """Yield the name and the array of each member."""
    if isinstance(tree, dict):
        if not tree:
            yield f"{path}#dict", np.zeros(0, np.uint8)
        for name, branch in tree.items():
            if not _is_key(name):
                raise InputError(
                    f"{path or 'a checkpoint'} has the key {name!r:.80}; keys are strings of Unicode characters without /, "
                    "# and the null character"
                )
            below = f"{path}/{name}" if path else name
            if len(below.encode()) > LONGEST - 100:  # what an ending needs is less
                raise InputError(f"{below[:40]}... is a path of over {LONGEST - 100} bytes; shorten its keys")
            yield from _members(branch, below)
    elif isinstance(tree, int) and not isinstance(tree, bool):
        if not -(1 << 63) <= tree < 1 << 63:
            raise InputError(f"{path} = {_shown(tree)} does not fit 64 bits")
        yield f"{path}#int", np.array(tree, np.int64)
    elif type(tree) in (np.ndarray, np.memmap) or isinstance(tree, np.generic):
        array, kinds = np.asarray(tree), ["scalar"] if isinstance(tree, np.generic) else []
        if _is_foreign(array.dtype):
            kinds = [array.dtype.name, *kinds]
            array = array.view(f"u{array.dtype.itemsize}")
        elif array.dtype.kind not in "biuf":
            raise InputError(f"{path} is {array.dtype}; a checkpoint holds arrays of numbers, and integers")
        yield "#".join([path, *kinds]), array
    elif isinstance(tree, np.ma.MaskedArray):
        raise InputError(f"{path} is a masked array; save its data and its mask, for an array in a checkpoint has none")
    else:
        raise InputError(f"{path} is {type(tree).__name__}; a checkpoint holds arrays of numbers, and integers")


def _is_key(name: Any) -> bool:
    """Return whether an archive can hold a key."""
    if not isinstance(name, str) or not name or any(character in name for character in "/#\0"):
        return False
    return not any("\ud800" <= character <= "\udfff" for character in name)  # which UTF-8 has not


def _shown(number: int) -> str:
    """Return a number of any length in words that fit a sentence."""
    return str(number) if number.bit_length() < 256 else f"an integer of {number.bit_length()} bits"


def _is_foreign(dtype: np.dtype[Any]) -> bool:
    """Return whether a type is one of ml_dtypes, which `.npy` files cannot spell."""
    return dtype.type.__module__ == "ml_dtypes" and dtype.isnative


def _comment(members: int) -> bytes:
    """Return the comment of the archive: a damaged list of members can lack some and still be read."""
    return f"qsim checkpoint of {members} members".encode()


def load(path: str | Path) -> dict[str, Any]:
    """Return the tree that `save` wrote to `path`, its keys in the same order.

    Raise `InputError` for a file that cannot be read, is damaged, or is no checkpoint, and for arrays of a type of ml_dtypes
    where that package is not installed.
    """
    what = "a checkpoint, which qsim.optim.save writes"
    arrays, comment = read_npz(Path(path), what, compressed=False)
    tree: dict[str, Any] = {}
    good = comment == _comment(len(arrays))
    for name, array in arrays.items():
        good = good and _put(tree, name, array, path)
    if not good:
        raise InputError(f"{path}: damaged, or another file; expected {what}")
    return tree


def _put(tree: dict[str, Any], name: str, array: Any, path: str | Path) -> bool:
    """Put a member where its name says, and return whether `save` might have written it."""
    keys, *kinds = name.split("#")
    if not keys:  # the whole tree is empty
        return kinds == ["dict"] and not tree
    *above, last = keys.split("/")
    for key in above:
        tree = tree.setdefault(key, {})
        if not isinstance(tree, dict):
            return False
    if last in tree or "" in (*above, last):
        return False
    if kinds == ["dict"]:
        tree[last] = {}
        return bool(array.dtype == np.uint8 and array.shape == (0,))
    if kinds == ["int"]:
        tree[last] = int(array) if array.shape == () else None
        return bool(array.dtype == np.int64 and array.shape == ())
    scalar = kinds[-1:] == ["scalar"] and array.ndim == 0
    for kind in kinds[:-1] if scalar else kinds:
        dtype = _dtype(kind, path)
        if len(kinds) > 1 + scalar or dtype is None or array.dtype != np.dtype(f"u{dtype.itemsize}"):
            return False
        array = array.view(dtype)
    tree[last] = array[()] if scalar else array
    return True


def _dtype(name: str, path: str | Path) -> np.dtype[Any] | None:
    """Return the type of ml_dtypes of this name, `None` if it has none."""
    try:
        import ml_dtypes
    except ImportError:
        raise InputError(f"{path}: holds an array of {name}, a type of ml_dtypes: pip install ml_dtypes") from None
    kind = getattr(ml_dtypes, name, None)
    return np.dtype(kind) if isinstance(kind, type) and issubclass(kind, np.generic) else None
