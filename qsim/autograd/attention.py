"""Causal attention, and the rotation that tells it of positions."""

from __future__ import annotations

import functools
import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from qsim.autograd.tape import op
from qsim.errors import InputError
from qsim.kernels.threads import in_chunks

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


@op(alone=(0, 4))
def rope(x: Array, *, base: float = 10000.0) -> tuple[Array, Any]:
    """Return `x`, shape (draws, samples, T, heads, n), each pair (j, j + n/2) turned by the angle t base^(-2j/n) at position t.

    The rotation is orthogonal: its vjp is the one by -t. Source: Su et al., "RoFormer", arXiv 2104.09864; the pairing of
    halves is that of LLaMA's common implementations. Raise `InputError` for an odd n.
    """
    if x.ndim != 5 or x.shape[-1] % 2:
        raise InputError(f"rope turns pairs of (samples, T, heads, n) with n even, not an array of shape {x.shape[1:]}")
    return _turned(x, base, 1), lambda g, _: (_turned(g, base, -1),)


@op(alone=(0, 4))
def attention(q: Array, k: Array, v: Array) -> tuple[Array, Any]:
    """Return softmax(q k^T / sqrt(n)) v, where position t sees those up to t; all of shape (draws, samples, T, heads, n).

    No bit at a position depends on a later one, an infinity or NaN there neither, nor does one of a cotangent on errors of
    positions that do not see it. Nothing in it rounds: the products are of two activations, and the points are those of
    products with a weight. One sample is computed at a time, whose scores a cache holds. Outside a tape arrays lack the axis
    of draws, or have it. Raise `InputError` for shapes that differ.
    Source: Vaswani et al., "Attention Is All You Need", NIPS 2017.
    """
    if q.ndim != 5 or not q.shape[1:] == k.shape[1:] == v.shape[1:] or not q.shape[-1]:
        raise InputError(
            "attention takes three arrays of one shape (samples, T, heads, n), not "
            f"{q.shape[1:]}, {k.shape[1:]} and {v.shape[1:]}"
        )
    draws, (samples, length, heads, n) = max(map(len, (q, k, v))), q.shape[1:]
    scale = q.dtype.type(1 / math.sqrt(n))
    later = np.triu(np.ones((length, length), bool), 1)
    p = np.empty((draws, samples, heads, length, length), q.dtype)
    y = np.empty((draws, *q.shape[1:]), q.dtype)
    calm = np.full((draws, samples), all(np.isfinite(array).all() for array in (q, k, v)))  # and so are p

    def of(array: Array, draw: int, sample: int) -> Array:
        """Return (heads, T, n) of one sample."""
        one: Array = array[min(draw, len(array) - 1), sample].swapaxes(0, 1)
        return one

    def go(at: int) -> None:
        d, s = divmod(at, samples)
        scores = np.matmul(of(q, d, s), of(k, d, s).swapaxes(1, 2), out=p[d, s])
        scores *= scale
        np.copyto(scores, -np.inf, where=later)
        scores -= scores.max(-1, keepdims=True, initial=-np.inf)
        np.exp(scores, out=scores)
        total = scores.sum(-1, keepdims=True)
        scores /= total
        if not np.isfinite(total).all():  # NaN at the positions that are seen, and nothing at those that are not
            np.copyto(scores, 0, where=later)
            calm[d, s] = False
        y[d, s] = _seen(scores, of(v, d, s), calm=calm[d, s]).swapaxes(0, 1)

    in_chunks(draws * samples, p.size, go)

    def vjp(g: Array, _: tuple[bool, ...]) -> tuple[Array, Array, Array]:
        to_q, to_k, to_v = (np.empty((max(len(g), draws), *q.shape[1:]), q.dtype) for _ in range(3))
        finite = bool(np.isfinite(g).all())

        def back(at: int) -> None:
            e, s = divmod(at, samples)
            d = min(e, draws - 1)  # draws of errors may share one of activations
            tame = finite and bool(calm[d, s])
            error, mine, queries = of(g, e, s), p[d, s], of(q, d, s)
            to_p = error @ of(v, d, s).swapaxes(1, 2)
            np.copyto(to_p, 0, where=later)
            if not tame:  # where no error comes in none goes on, whatever it would be multiplied by
                silent = ~error.any(-1)
                to_p, mine, queries = (_without(array, silent) for array in (to_p, mine, queries))
            total = (to_p * mine).sum(-1, keepdims=True)
            to_p -= total
            to_p *= mine
            to_p *= scale
            if not tame:
                np.copyto(to_p, 0, where=later)
            to_v[e, s] = _seen(mine, error, calm=tame, back=True).swapaxes(0, 1)
            own = _seen(to_p, of(k, d, s), calm=tame)
            to_q[e, s] = (own if tame else _without(own, silent)).swapaxes(0, 1)
            to_k[e, s] = _seen(to_p, queries, calm=tame, back=True).swapaxes(0, 1)

        in_chunks(len(to_q) * samples, len(to_q) * p[0].size, back)
        return to_q, to_k, to_v

    return y, vjp


def _without(x: Array, places: Any) -> Array:
    """Return a copy of `x` with zeros in some places, in the same order in memory, by which a BLAS may go."""
    rest = x.copy(order="K")
    rest[places] = 0
    return rest


def _seen(p: Array, x: Array, *, calm: bool, back: bool = False) -> Array:
    """Return p x, or with `back` p^T x, where the zeros above the diagonal of p, which the mask made, meet nothing.

    p: (heads, T, T), x: (heads, T, n). `calm`: all of x is finite. Otherwise infinities and NaNs are left out of the product,
    and added where it is seen: the rest has the bits that it has without it.
    """
    rows = p.swapaxes(1, 2) if back else p
    if calm:
        return rows @ x
    finite = np.isfinite(x)
    y: Array = rows @ _without(x, ~finite)
    for head, position, column in np.argwhere(~finite).tolist():
        those = slice(None, position + 1) if back else slice(position, None)
        y[head, those, column] += rows[head, those, position] * x[head, position, column]
    return y
