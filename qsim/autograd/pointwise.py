"""Operations on each number alone."""

from __future__ import annotations

import math
from collections.abc import Callable
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
    """Return x / (1 + exp(-x)); at -inf that is -0, its limit. Source: Elfwing, Uchibe and Doya, Neural Networks 107, 2018."""
    p, y = _silu(x)
    return y, lambda g, _: (g * _silu_slope(x, p),)


def _silu(x: Array) -> tuple[Array, Array]:
    """Return the logistic function of x, and x times that."""
    p = _logistic(x)
    return p, _with_limits(x, x * p, np.maximum)


def _silu_slope(x: Array, p: Array) -> Array:
    """Return the derivative of `silu`; at infinity its limit, which is that of the logistic function."""
    return _with_limits(x, p * (1 + x * (1 - p)), lambda *_: p)


def _with_limits(x: Array, y: Array, limit: Callable[[Array, Any], Array]) -> Array:
    """Return `y`, but limit(x, -0) where x is infinite."""
    infinite = np.isinf(x)
    return np.where(infinite, limit(x, x.dtype.type(-0.0)), y) if infinite.any() else y


@op
def gelu(x: Array) -> tuple[Array, Any]:
    """Return x Phi(x), Phi being the normal distribution; at -inf that is -0, its limit.

    Source: Hendrycks and Gimpel, arXiv 1606.08415.
    """
    p = special.ndtr(x)
    density = x.dtype.type(1 / math.sqrt(2 * math.pi))

    def slope() -> Array:
        return _with_limits(x, p + x * density * np.exp(-x * x / 2), lambda *_: p)

    return _with_limits(x, x * p, np.maximum), lambda g, _: (g * slope(),)


@op
def swiglu(x: Array) -> tuple[Array, Any]:
    """Return silu(a) b, a and b being the halves of the last axis of `x`. Source: Shazeer, arXiv 2002.05202."""
    if not x.ndim:
        raise InputError("swiglu halves the last axis of an array; a single number has none")
    if x.shape[-1] % 2:
        raise InputError(f"swiglu halves the last axis, whose length {x.shape[-1]} is odd")
    a, b = np.split(x, 2, axis=-1)
    p, gate = _silu(a)

    def vjp(g: Array, _: tuple[bool, ...]) -> tuple[Array]:
        return (np.concatenate([g * b * _silu_slope(a, p), g * gate], axis=-1),)

    return gate * b, vjp


def _lacks_draws(x: Array) -> bool:
    """Return whether the first axis is none of draws, of which there are one, or as many as the numerics in force say."""
    return not x.ndim or len(x) not in (1, current().draws or 1)


@op(alone=_lacks_draws)
def reshape(x: Array, *, shape: tuple[int, ...]) -> tuple[Array, Any]:
    """Return `x` with its axes after that of draws in another shape, in which one length may be -1.

    Outside a tape a first axis of length 1, or as long as there are draws in force, is taken for that of draws; in `value`
    nothing is guessed. Raise `InputError` for a shape of another size.
    """
    try:
        y = x.reshape(len(x), *shape)
    except ValueError:
        raise InputError(f"an array of shape {x.shape[1:]} has no shape {shape}") from None
    return y, lambda g, _: (g.reshape(len(g), *x.shape[1:]),)


@op(alone=_lacks_draws)
def dropout(x: Array, *, rate: float, name: str) -> tuple[Array, Any]:
    """Return `x` with each number zero with probability `rate`, and divided by 1 - rate otherwise, `rate` to 2^-32.

    Number i is dropped where the Philox word i of the site "<name>.mask" is below rate 2^32: the mask is a function of
    (seed, step, draw, i). All draws of a gradient have masks of their own. Outside a tape the first axis is taken as `reshape`
    takes it. Raise `InputError` unless 0 <= rate < 1.
    Source: Srivastava et al., "Dropout", JMLR 15, 2014.
    """
    if not 0 <= rate < 1:
        raise InputError(f"rate = {rate!r} of dropout {name!r} must be a number with 0 <= rate < 1")
    context = current()
    context.drew = True
    tape().meet(name)
    context.enrol(name, ("mask",))
    draws = range(context.first_draw, context.first_draw + (context.draws or 1))
    size, offset = math.prod(x.shape[1:]), context.offset(f"{name}.mask")
    kept = np.stack(
        [
            random_words(Key(context.seed, int(stream), offset), size) >= np.uint32(min(round(rate * 2**32), 2**32 - 1))
            for stream in context.streams(f"{name}.mask", draws)
        ]
    ).reshape(len(draws), *x.shape[1:])
    scale = kept / x.dtype.type(1 - rate)

    def masked(array: Array) -> Array:
        """Scale the elements that stay, and zero the others, infinities included."""
        rest: Array = np.where(kept, array * scale, array.dtype.type(0))
        return rest

    return masked(x), lambda g, _: (masked(g),)
