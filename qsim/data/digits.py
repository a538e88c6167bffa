"""The handwritten digits of scikit-learn: always at hand, hence the default of studies."""

from __future__ import annotations

import hashlib
from typing import Any

import numpy as np

from qsim.data.dataset import Dataset

__all__ = ["digits"]


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
