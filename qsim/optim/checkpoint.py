"""Checkpoints: nested dicts of arrays and integers as one `.npz`, without pickles, whole or not at all.

The name of a member is its path, "params/layer0/w"; a Python integer ends in "#int", an empty dict in "#dict". So a checkpoint
can be read by `numpy.load` alone. The same tree gives the same bytes.
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
    """Write a tree of arrays and integers to `path`, in place of what was there; uncompressed.

    Raise `InputError` for keys that are no strings, are empty or hold "/" or "#", and for leaves that are no numbers.
    """
    if not isinstance(tree, dict):
        raise InputError(f"a checkpoint is a dict of what is saved, not {type(tree).__name__}")
    members = dict(_members(tree, ""))
    try:
        with whole(Path(path)) as file, zipfile.ZipFile(file, "w") as archive:
            archive.comment = _comment(len(members))
            for name, array in members.items():
                # A fixed date, 1980, so that equal trees are equal files.
                with archive.open(zipfile.ZipInfo(f"{name}.npy"), "w", force_zip64=True) as member:
                    np.lib.format.write_array(member, array, allow_pickle=False)
    except OSError as error:
        raise InputError(f"{path}: cannot be written ({error.strerror})") from None


def _members(tree: Any, path: str) -> Iterator[tuple[str, Any]]:
    if isinstance(tree, dict):
        if not tree:
            yield f"{path}#dict", np.zeros(0, np.uint8)
        for name, branch in tree.items():
            if not isinstance(name, str) or not name or "/" in name or "#" in name:
                raise InputError(f"{path or 'a checkpoint'} has the key {name!r}; keys are strings without / and #")
            yield from _members(branch, f"{path}/{name}" if path else name)
    elif isinstance(tree, int) and not isinstance(tree, bool):
        if not -(1 << 63) <= tree < 1 << 63:
            raise InputError(f"{path} = {tree} does not fit 64 bits")
        yield f"{path}#int", np.array(tree, np.int64)
    elif isinstance(tree, np.ndarray | np.generic) and tree.dtype.kind in "biuf":
        yield path, np.asanyarray(tree)
    else:
        found = tree.dtype if isinstance(tree, np.ndarray) else type(tree).__name__
        raise InputError(f"{path} is {found}; a checkpoint holds arrays of numbers, and integers")


def _comment(members: int) -> bytes:
    """Return the comment of the archive: a damaged list of members can lack some and still be read."""
    return f"qsim checkpoint of {members} members".encode()


def load(path: str | Path) -> dict[str, Any]:
    """Return the tree that `save` wrote to `path`, its keys in the same order.

    Raise `InputError` for a file that cannot be read, is damaged, or is no checkpoint.
    """
    what = "a checkpoint, which qsim.optim.save writes"
    arrays, comment = read_npz(Path(path), what)
    if comment != _comment(len(arrays)):
        raise InputError(f"{path}: damaged, or another file; expected {what}")
    tree: dict[str, Any] = {}
    for name, array in arrays.items():
        _put(tree, name, array)
    return tree


def _put(tree: dict[str, Any], name: str, array: Any) -> None:
    """Put a member where its name says."""
    path, _, kind = name.partition("#")
    leaf: Any = {} if kind == "dict" else int(array) if kind == "int" else array
    *above, last = path.split("/")
    if not path and kind == "dict":  # the whole tree is empty
        return
    for part in above:
        tree = tree.setdefault(part, {})
    tree[last] = leaf
