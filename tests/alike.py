"""When two answers are the same."""

from __future__ import annotations

import math

import numpy as np
from enumeration import exactly
from strategies import BFLOAT16


def alike(a: float, b: float) -> bool:
    """Return whether two results are the same: both NaN, or equal with the same sign, also of zero."""
    return (math.isnan(a) and math.isnan(b)) or (a == b and math.copysign(1, a) == math.copysign(1, b))


def same_values(a: np.ndarray, b: np.ndarray) -> bool:
    """Return whether two arrays agree in shape and value by value, zeros in their sign too; a NaN is like any other."""
    return np.array_equal(a, b, equal_nan=True) and np.array_equal(np.signbit(a[a == 0]), np.signbit(b[b == 0]))


def same_bits(a: np.ndarray, b: np.ndarray) -> bool:
    """Return whether two arrays agree in shape, type and every bit."""
    return a.shape == b.shape and a.dtype == b.dtype and a.tobytes() == b.tobytes()


def same(a: np.ndarray, b: np.ndarray) -> bool:
    """Return whether two arrays agree in shape, type (byte order of `a` aside) and every bit."""
    return same_bits(a if a.dtype == BFLOAT16 else a.astype(a.dtype.newbyteorder("=")), b)


def identical(a: np.ndarray, expected: list[float]) -> bool:
    """Return whether `a` holds the numbers `expected`, signs of zeros included; NaN is NaN."""
    return same_values(exactly(a).ravel(), np.array(expected, np.float64))
