"""When two answers are the same."""

from __future__ import annotations

import numpy as np


def same_values(a: np.ndarray, b: np.ndarray) -> bool:
    """Return whether two arrays agree in shape and value by value, zeros in their sign too; a NaN is like any other."""
    return np.array_equal(a, b, equal_nan=True) and np.array_equal(np.signbit(a[a == 0]), np.signbit(b[b == 0]))
