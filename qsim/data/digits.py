"""The handwritten digits of scikit-learn: always at hand, hence the default of studies."""

from __future__ import annotations

import hashlib
import importlib.util
from pathlib import Path

import numpy as np

from qsim.data.dataset import Dataset

__all__ = ["digits"]


def digits() -> Dataset:
    """Return the 1,797 8x8 grey images of handwritten digits that scikit-learn carries, pixels divided by 16.

    Source: E. Alpaydin, C. Kaynak, "Optical Recognition of Handwritten Digits", UCI Machine Learning Repository, 1998.
    """
    table = np.loadtxt(_file(), "<i8", delimiter=",")
    pixels, labels = np.ascontiguousarray(table[:, :-1]), np.ascontiguousarray(table[:, -1])
    digest = hashlib.sha256(pixels.tobytes() + labels.tobytes()).hexdigest()
    source = "UCI Optical Recognition of Handwritten Digits (test set), as carried by scikit-learn"
    return Dataset("digits", pixels / 16, labels.astype(np.int64), digest, source)


def _file() -> Path:
    """Return the file that `sklearn.datasets.load_digits` reads: to import that takes longer than a small study."""
    spec = importlib.util.find_spec("sklearn")
    folders = spec.submodule_search_locations if spec else None
    return Path(*(folders or ["sklearn"])[:1], "datasets", "data", "digits.csv.gz")
