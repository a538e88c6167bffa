"""Operations on each number alone."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import special

from qsim.arrays import random_words
from qsim.autograd.context import current
from qsim.autograd.tape import op, tape
from qsim.errors import InputError
from qsim.rounding import Key

__all__ = ["dropout", "gelu", "relu", "reshape", "silu", "swiglu"]

Array = NDArray[Any]


def _logistic(x: Array) -> Array:
    """Return 1 / (1 + exp(-x)); where exp overflows that is 0, as it should be."""
    with np.errstate(over="ignore"):
        y: Array = 1 / (1 + np.exp(-x))
    return y


@op
def relu(x: Array) -> tuple[Array, Any]:
    """Return max(x, 0); its derivative at 0 is 0."""
    word = np.dtype(f"u{x.dtype.itemsize}")
    kept = np.negative((x > 0).astype(word))  # all bits, or none: an infinite error times 0 would be NaN
    return np.maximum(x, x.dtype.type(0)), lambda g, _: ((np.ascontiguousarray(g).view(word) & kept).view(g.dtype),)


@op
def silu(x: Array) -> tuple[Array, Any]:
    """Return x / (1 + exp(-x)). Source: Elfwing, Uchibe and Doya, Neural Networks 107, 2018."""
    p = _logistic(x)
    return x * p, lambda g, _: (g * (p * (1 + x * (1 - p))),)


@op
def gelu(x: Array) -> tuple[Array, Any]:
    """Return x Phi(x), Phi being the normal distribution. Source: Hendrycks and Gimpel, arXiv 1606.08415."""
    p = special.ndtr(x)
    density = x.dtype.type(1 / math.sqrt(2 * math.pi))
    return x * p, lambda g, _: (g * (p + x * density * np.exp(-x * x / 2)),)


@op
def swiglu(x: Array) -> tuple[Array, Any]:
    """Return silu(a) b, a and b being the halves of the last axis of `x`. Source: Shazeer, arXiv 2002.05202."""
    if x.shape[-1] % 2:
        raise InputError(f"swiglu halves the last axis, whose length {x.shape[-1]} is odd")
    a, b = np.split(x, 2, axis=-1)
    p = _logistic(a)
    gate = a * p

    def vjp(g: Array, _: tuple[bool, ...]) -> tuple[Array]:
        return (np.concatenate([g * b * (p * (1 + a * (1 - p))), g * gate], axis=-1),)

    return gate * b, vjp


@op
def reshape(x: Array, *, shape: tuple[int, ...]) -> tuple[Array, Any]:
    """Return `x` with its axes after that of draws in another shape."""
    try:
        y = x.reshape(len(x), *shape)
    except ValueError:
        raise InputError(f"an array of shape {x.shape[1:]} has no shape {shape}") from None
    return y, lambda g, _: (g.reshape(len(g), *x.shape[1:]),)


@op
def dropout(x: Array, *, rate: float, name: str) -> tuple[Array, Any]:
    """Return `x` with each number zero with probability `rate`, and divided by 1 - rate otherwise, `rate` to 2^-32.

    Number i is dropped where the Philox word i of the site "<name>.mask" is below rate 2^32: the mask is a function of
    (seed, step, draw, i). All draws of a gradient have masks of their own. Raise `InputError` unless 0 <= rate < 1.
    Source: Srivastava et al., "Dropout", JMLR 15, 2014.
    """
    if not 0 <= rate < 1:
        raise InputError(f"rate = {rate!r} of dropout {name!r} must be a number with 0 <= rate < 1")
    context = current()
    tape().meet(name)
    context.enrol(name, ("mask",))
    draws = range(context.first_draw, context.first_draw + (context.draws or 1))
    size, offset = math.prod(x.shape[1:]), context.offset(f"{name}.mask")
    kept = np.stack(
        [
            random_words(Key(context.seed, int(stream), offset), size) >= np.uint32(min(round(rate * 2**32), 2**32 - 1))
            for stream in context.streams(f"{name}.mask", draws)
        ]
    ).reshape(-1, *x.shape[1:])
    scale = kept / x.dtype.type(1 - rate)
    return x * scale, lambda g, _: (g * scale,)
