"""Causal attention, and the rotation that tells it of positions."""

from __future__ import annotations

import functools
import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from qsim.autograd.tape import op

__all__ = ["attention", "rope"]

Array = NDArray[Any]


@functools.lru_cache(maxsize=64)
def _angles(length: int, size: int, base: float, dtype: np.dtype[Any]) -> tuple[Array, Array]:
    """Return cosines and sines, shape (length, 1, size / 2), of position times base^(-2 j / size)."""
    angles = np.arange(length)[:, None, None] * base ** (-2 * np.arange(size // 2) / size)
    return np.cos(angles).astype(dtype), np.sin(angles).astype(dtype)


def _turned(x: Array, base: float, sign: int) -> Array:
    cos, sin = _angles(x.shape[-3], x.shape[-1], base, x.dtype)
    a, b = np.split(x, 2, axis=-1)
    return np.concatenate([a * cos - sign * (b * sin), b * cos + sign * (a * sin)], axis=-1)


@op
def rope(x: Array, *, base: float = 10000.0) -> tuple[Array, Any]:
    """Return `x`, shape (draws, samples, T, heads, n), each pair (j, j + n/2) turned by the angle t base^(-2j/n) at position t.

    The rotation is orthogonal: its vjp is the one by -t. Source: Su et al., "RoFormer", arXiv 2104.09864; the pairing of
    halves is that of LLaMA's common implementations.
    """
    return _turned(x, base, 1), lambda g, _: (_turned(g, base, -1),)


@op
def attention(q: Array, k: Array, v: Array) -> tuple[Array, Any]:
    """Return softmax(q k^T / sqrt(n)) v, where position t sees those up to t; all of shape (draws, samples, T, heads, n).

    Nothing in it rounds: the products are of two activations, and the points are those of products with a weight.
    Source: Vaswani et al., "Attention Is All You Need", NIPS 2017.
    """
    q, k, v = (array.swapaxes(-2, -3) for array in (q, k, v))  # heads before positions
    scale = q.dtype.type(1 / math.sqrt(q.shape[-1]))
    length = q.shape[-2]
    scores = q @ k.swapaxes(-1, -2)
    scores *= scale
    scores += np.triu(np.full((length, length), -np.inf, q.dtype), 1)
    scores -= scores.max(-1, keepdims=True)
    p = np.exp(scores, out=scores)
    p /= p.sum(-1, keepdims=True)

    def vjp(g: Array, _: tuple[bool, ...]) -> tuple[Array, Array, Array]:
        error = g.swapaxes(-2, -3)
        to_p = error @ v.swapaxes(-1, -2)
        to_p -= (to_p * p).sum(-1, keepdims=True)
        to_p *= p
        to_p *= scale
        to_q, to_k, to_v = to_p @ k, to_p.swapaxes(-1, -2) @ q, p.swapaxes(-1, -2) @ error
        return to_q.swapaxes(-2, -3), to_k.swapaxes(-2, -3), to_v.swapaxes(-2, -3)

    return (p @ v).swapaxes(-2, -3), vjp
