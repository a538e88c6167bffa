"""Labelled samples of one's own: a CSV file with a header, or an `.npz` with an array of samples and one of labels."""

from __future__ import annotations

import csv
import hashlib
import io
import math
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from qsim.data.dataset import Dataset
from qsim.errors import InputError, enumerate_names, nearest, shown
from qsim.files import read_npz, read_text

__all__ = ["STANDARDIZE", "checksum", "labelled", "scaled"]

STANDARDIZE = ("columns", "set", "none")
"""How samples are brought to mean 0 and deviation 1: each column by itself, all numbers of the set alike, or not at all."""

LARGEST = 1 << 30
"""Bytes of a CSV file."""


def labelled(path: str | Path, label: str) -> Dataset:
    """Return the samples of a `.csv` or `.npz` file, x (samples, ...) float64 as they stand there, y the number of each class.

    A CSV file has a header; `label` names the column of the classes, and all others hold numbers. An `.npz` has an array
    `label`, (samples,), and one other, or one called "x". Classes are numbered in the order of their values. The SHA-256 is
    that of the file.
    Raise `InputError` naming file, line and column for an entry that is no number, a label that is not there, or less than
    two classes.
    """
    where = Path(path)
    readers = {".csv": _of_csv, ".npz": _of_npz}
    if where.suffix.lower() not in readers:
        raise InputError(f"{where}: samples are read from a file that ends in {enumerate_names(readers)}")
    digest = checksum(where)
    x, labels = readers[where.suffix.lower()](where, label)
    classes, y = np.unique(labels, return_inverse=True)
    if len(classes) < 2:
        raise InputError(f"{where}: the label {label!r} has {len(classes)} class; it takes two to tell apart")
    if len(classes) > max(2, len(x) // 2):
        raise InputError(
            f"{where}: the label {label!r} has {len(classes)} classes in {len(x)} samples; is it one of numbers?"
        )
    return Dataset(where.name, x, y.astype(np.int64).ravel(), digest, f"{where.name}, label {label!r}")


def checksum(path: Path) -> str:
    """Return the SHA-256 of a file."""
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror})") from None
    except ValueError:
        raise InputError(f"{str(path)!r} cannot be the name of a file; give another") from None


def scaled(x: NDArray[Any], how: Literal["columns", "set", "none"]) -> NDArray[np.float64]:
    """Return samples with mean 0 and deviation 1, see `STANDARDIZE`; a column of one value is 0."""
    x = np.asarray(x, np.float64)
    if how == "none":
        return np.asarray(x, np.float64)
    with np.errstate(over="ignore", invalid="ignore"):
        mean, spread = (x.mean(), x.std()) if how == "set" else (x.mean(0), x.std(0))
    if not np.isfinite(spread).all():
        where = (
            ""
            if how == "set"
            else f" of column {np.argmax(~np.isfinite(spread).ravel())}, counted from 0 without the label,"
        )
        raise InputError(f"the deviation{where} is beyond the range of float64; divide those numbers first")
    found: NDArray[np.float64] = (x - mean) / np.where(spread > 0, spread, 1.0)
    return found


def _of_csv(path: Path, label: str) -> tuple[NDArray[np.float64], NDArray[Any]]:
    text = read_text(path, LARGEST).removeprefix("\ufeff")
    try:
        rows = [(number, row) for number, row in _rows(text) if row]
    except csv.Error as error:
        raise InputError(f"{path}: is no CSV file ({error})") from None
    if len(rows) < 2:
        raise InputError(f"{path}: has no line below its header")
    header = [name.strip() for name in rows[0][1]]
    twice = next((name for name in header if header.count(name) > 1), None)
    if twice is not None:
        raise InputError(f"{path}: two columns are called {shown(twice)}; give each a name of its own")
    if all(map(_is_number, header)):
        raise InputError(f"{path}: line 1 holds numbers; a CSV file begins with a line of the names of its columns")
    other = next((mark for mark in ";\t|" if len(header) == 1 and mark in header[0]), "")
    if other:
        raise InputError(f"{path}: line 1 has {other!r} and no comma; columns are separated by commas")
    if label not in header:
        raise InputError(f"{path}: no column is called {label!r}; did you mean {nearest(label, header)}?")
    at = header.index(label)
    if len(header) < 2:
        raise InputError(f"{path}: has no column beside the label {label!r}")
    x, labels = np.empty((len(rows) - 1, len(header) - 1)), []
    for sample, (number, row) in enumerate(rows[1:]):
        if len(row) != len(header):
            raise InputError(f"{path}, line {number}: has {len(row)} columns, and the header {len(header)}")
        labels.append(row[at].strip())
        if not labels[-1]:
            raise InputError(f"{path}, line {number}: the label is empty")
        x[sample] = [_number(path, number, name, text) for name, text in zip(header, row, strict=True) if name != label]
    return x, _typed(labels)


def _rows(text: str) -> Any:
    reader = csv.reader(io.StringIO(text, newline=""))
    for row in reader:
        yield reader.line_num, row


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _number(path: Path, line: int, column: str, text: str) -> float:
    try:
        number = float(text)
    except ValueError:
        number = math.nan
        what = "is no number" if text.strip() else "is empty"
    else:
        what = "is no finite number"
    if not math.isfinite(number):
        raise InputError(
            f"{path}, line {line}, column {shown(column)}: {shown(text.strip())} {what}; all columns but the label hold numbers"
        )
    return number


def _typed(labels: list[str]) -> NDArray[Any]:
    """Return labels as integers, if all are, so that 10 comes after 9."""
    try:
        return np.array([int(text) for text in labels], np.int64)
    except (ValueError, OverflowError):
        return np.array(labels)


def _of_npz(path: Path, label: str) -> tuple[NDArray[np.float64], NDArray[Any]]:
    arrays, _ = read_npz(path, f"an .npz of numbers with an array of samples and one of labels, {label!r}", texts=True)
    if label not in arrays:
        found = f"did you mean {nearest(label, arrays)}?" if arrays else "it holds none"
        raise InputError(f"{path}: no array is called {label!r}; {found}")
    others = [name for name in arrays if name != label]
    name = "x" if "x" in others else others[0] if len(others) == 1 else ""
    if not name:
        raise InputError(f"{path}: holds {len(others)} arrays beside {label!r}; call the one of the samples 'x'")
    x, y = arrays[name], arrays[label]
    if x.ndim < 2 or x.dtype.kind not in "biuf" or y.shape != x.shape[:1] or y.dtype.kind not in "biuSU":
        raise InputError(
            f"{path}: {name} is {x.dtype} {x.shape} and {label} {y.dtype} {y.shape}; samples are numbers (samples, ...), and "
            "labels integers or texts (samples,)"
        )
    x = x.astype(np.float64)
    if not np.isfinite(x).all():
        sample = int(np.argwhere(~np.isfinite(x))[0][0])
        raise InputError(f"{path}: sample {sample} of {name!r} holds a NaN or an infinity; leave such samples out")
    return x, y
