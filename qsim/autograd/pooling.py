"""Pooling of images."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from qsim.autograd.tape import op
from qsim.errors import InputError

__all__ = ["average_pool", "global_average_pool", "max_pool"]

Array = NDArray[Any]


@op(alone=(0, 4))
def global_average_pool(x: Array) -> tuple[Array, Any]:
    """Return the mean over the pixels of images (draws, samples, H, W, C), shape (draws, samples, C)."""
    if x.ndim != 5:
        raise InputError(f"images (samples, H, W, C) are pooled, not an array of shape {x.shape[1:]}")
    high, wide = x.shape[2:4]

    def vjp(g: Array, _: tuple[bool, ...]) -> tuple[Array]:
        each = g[:, :, None, None, :] / g.dtype.type(high * wide)
        return (np.broadcast_to(each, (*g.shape[:2], high, wide, g.shape[-1])).copy(),)

    return x.mean((2, 3)), vjp


@op(alone=(0, 4))
def average_pool(x: Array, *, size: int) -> tuple[Array, Any]:
    """Return the means over squares of `size` x `size` pixels, which must tile the images (draws, samples, H, W, C)."""
    tiles = _tiles(x, size)

    def vjp(g: Array, _: tuple[bool, ...]) -> tuple[Array]:
        each = g[:, :, :, None, :, None, :] / g.dtype.type(size * size)
        return (np.broadcast_to(each, (len(g), *tiles.shape[1:])).reshape(len(g), *x.shape[1:]),)

    return tiles.mean((3, 5)), vjp


@op(alone=(0, 4))
def max_pool(x: Array, *, size: int) -> tuple[Array, Any]:
    """Return the largest of each square of `size` x `size` pixels, which tile the images; errors go to the first of equals."""
    tiles = _tiles(x, size)
    draws, samples, high, _, wide, _, channels = tiles.shape
    flat = tiles.transpose(0, 1, 2, 4, 6, 3, 5).reshape(draws, samples, high, wide, channels, size * size)
    first = flat.argmax(-1)[..., None]

    def vjp(g: Array, _: tuple[bool, ...]) -> tuple[Array]:
        spread = np.zeros((len(g), *flat.shape[1:]), g.dtype)
        np.put_along_axis(spread, np.broadcast_to(first, (len(g), *first.shape[1:])), g[..., None], -1)
        back = spread.reshape(len(g), samples, high, wide, channels, size, size).transpose(0, 1, 2, 5, 3, 6, 4)
        return (back.reshape(len(g), *x.shape[1:]),)

    return np.take_along_axis(flat, first, -1)[..., 0], vjp


def _tiles(x: Array, size: int) -> Array:
    """Return images as (draws, samples, H / size, size, W / size, size, C)."""
    if x.ndim != 5:
        raise InputError(f"images (samples, H, W, C) are pooled, not an array of shape {x.shape[1:]}")
    draws, samples, high, wide, channels = x.shape
    if size < 1 or high % size or wide % size:
        raise InputError(f"squares of {size}x{size} pixels do not tile images of {high}x{wide}")
    return x.reshape(draws, samples, high // size, size, wide // size, size, channels)
