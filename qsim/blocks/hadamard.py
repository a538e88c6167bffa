"""Random Hadamard transforms of blocks: signs that turn at random, then the orthogonal Walsh-Hadamard matrix."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from qsim import arrays
from qsim.errors import InputError, integer
from qsim.rounding import Key

__all__ = ["hadamard", "hadamard_back", "signs"]


def signs(size: int, key: Key | None) -> NDArray[np.float64]:
    """Return `size` signs, +1 or -1: that of element i is the top bit of its random word by `key`; all +1 without a key."""
    if key is None:
        return np.ones(size)
    turned: NDArray[np.float64] = 1.0 - 2.0 * (arrays.random_words(key, size) >> np.uint32(31)).astype(np.float64)
    return turned


def hadamard(x: ArrayLike, size: int = 16, *, key: Key | None = None, axis: int = -1) -> NDArray[Any]:
    """Return H D x for each block of `size` elements along `axis`: D the random signs of `key`, H the Walsh-Hadamard matrix.

    H is Sylvester's, over sqrt(size), so that norms stay. The sums are of float64, rounded once to the type of `x`: exact where
    a float64 holds them and `size` is a power of 4. All blocks have the same signs. Raise `InputError` for a size that is no
    power of two or does not divide the axis.
    """
    array, moved = _blocks(x, size, axis)
    return _back(_transformed(moved * signs(size, key)), array, axis)


def hadamard_back(y: ArrayLike, size: int = 16, *, key: Key | None = None, axis: int = -1) -> NDArray[Any]:
    """Return D H y, which undoes `hadamard` with the same arguments, short of rounding."""
    array, moved = _blocks(y, size, axis)
    return _back(_transformed(moved) * signs(size, key), array, axis)


def _blocks(x: ArrayLike, size: int, axis: int) -> tuple[NDArray[Any], NDArray[np.float64]]:
    array = arrays.as_array(x, "x")
    if array.dtype.kind != "f" and array.dtype.name != "bfloat16":
        array = array.astype(np.float64)
    size, axis = integer("size", size), integer("axis", axis)
    if not -array.ndim <= axis < array.ndim:
        raise InputError(f"axis = {axis} is not one of the {array.ndim} of x")
    if size < 1 or size & (size - 1) or array.shape[axis] % size:
        raise InputError(
            f"size = {size} must be a power of two that divides the {array.shape[axis]} elements along the axis"
        )
    moved = np.moveaxis(array.astype(np.float64), axis, -1)
    return array, moved.reshape(*moved.shape[:-1], moved.shape[-1] // size, size)


def _transformed(x: NDArray[np.float64]) -> NDArray[np.float64]:
    size = x.shape[-1]
    y = x.reshape(-1, size)
    step = 1
    while step < size:
        pairs = y.reshape(len(y), size // (2 * step), 2, step)
        y = np.stack([pairs[:, :, 0] + pairs[:, :, 1], pairs[:, :, 0] - pairs[:, :, 1]], 2).reshape(len(y), size)
        step *= 2
    return (y / math.sqrt(size)).reshape(x.shape)


def _back(y: NDArray[np.float64], array: NDArray[Any], axis: int) -> NDArray[Any]:
    moved = np.moveaxis(array, axis, -1).shape
    result = np.moveaxis(y.reshape(moved), -1, axis)
    if array.dtype.itemsize == 2:
        fmt = "float16" if array.dtype.kind == "f" else "bfloat16"
        return arrays.encode(np.ascontiguousarray(result), fmt, nan="signed").view(array.dtype)
    return np.ascontiguousarray(result).astype(array.dtype, copy=False)
