"""A text file as characters."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from qsim.data.dataset import Text
from qsim.data.places import locate, missing
from qsim.errors import InputError

__all__ = ["characters"]

NAMES = ("tinyshakespeare.txt",)


def characters(path: str | Path | None = None, *, train: float = 0.9) -> Text:
    """Return the characters of a UTF-8 text: vocabulary sorted by code point, the first floor(train n) of n for training.

    Without a `path`, tinyshakespeare.txt in the folder `QSIM_DATA`: 1,115,394 characters, 65 distinct (A. Karpathy, char-rnn).
    Raise `InputError` for a file that is missing, is no UTF-8, or leaves one of the parts empty.
    """
    if not 0 < train < 1:
        raise InputError(f"train = {train} must be above 0 and below 1: the share of the text for training")
    where = locate("a text", path, NAMES)
    if where is None:
        raise missing("a text", NAMES, fetch=False)
    try:
        data = where.read_bytes()
        text = data.decode("utf-8")
    except OSError as error:
        raise InputError(f"{where}: cannot be read ({error.strerror})") from None
    except UnicodeDecodeError as error:
        raise InputError(f"{where}: byte {error.start} is no UTF-8; give a text") from None
    points = np.frombuffer(text.encode("utf-32-le"), np.uint32)
    distinct, inverse = np.unique(points, return_inverse=True)
    cut = int(train * len(points))
    if not 0 < cut < len(points):
        raise InputError(f"{where}: {len(points)} characters cannot be cut at {train}; each part has at least one")
    indices: NDArray[Any] = inverse.reshape(-1).astype(np.int32)
    vocabulary = "".join(map(chr, distinct.tolist()))
    digest = hashlib.sha256(data).hexdigest()
    return Text(where.stem, vocabulary, indices[:cut], indices[cut:], digest, where.name)
