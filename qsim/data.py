"""Loaders of real data, with checksums: a study says by SHA-256 what it used."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["Dataset", "digits"]


@dataclass(frozen=True, slots=True)
class Dataset:
    """Hold labelled samples: x (samples, features) float64, y (samples,) int64, and what they are."""

    name: str
    x: NDArray[np.float64]
    y: NDArray[np.int64]
    sha256: str
    """Of the pixels and labels as int64, little-endian, C order, pixels first."""
    source: str


def digits() -> Dataset:
    """Return the 1,797 8x8 grey images of handwritten digits that scikit-learn carries, pixels divided by 16.

    Source: E. Alpaydin, C. Kaynak, "Optical Recognition of Handwritten Digits", UCI Machine Learning Repository, 1998.
    """
    from sklearn.datasets import load_digits

    bunch: Any = load_digits()
    pixels, labels = (np.ascontiguousarray(a, dtype="<i8") for a in (bunch.data, bunch.target))
    digest = hashlib.sha256(pixels.tobytes() + labels.tobytes()).hexdigest()
    source = "UCI Optical Recognition of Handwritten Digits (test set), as carried by scikit-learn"
    return Dataset("digits", pixels / 16, labels.astype(np.int64), digest, source)
