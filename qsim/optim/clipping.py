"""Norms that neither overflow nor underflow on the way, and clipping of gradients by their norm."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from qsim.errors import InputError
from qsim.optim.chain import Transform, differences
from qsim.optim.checks import check_parts
from qsim.optim.rounding import WHOLE, Place
from qsim.optim.tree import computing_type, parameters, tree_map
from qsim.underflow import gradual_underflow

__all__ = ["clip_by_global_norm", "global_norm", "root_mean_square"]

FINE = 2.0**-960
"""A sum of squares from here on is as good as one of scaled squares: of fewer than 2^48 elements, each square that underflows
loses at most 2^-1075, all of them together 2^-67 of the sum."""


@gradual_underflow
def global_norm(tree: Any) -> float:
    """Return the Euclidean norm of all elements together: squares and sums in float64, parameters in order.

    Where the sum of squares would overflow or underflow, elements are scaled first, by a power of two, as in BLAS's `dnrm2`. So
    the norm is infinite only where an element is, or where it exceeds the largest float64 itself.
    """
    return _value(*_norm(tree))


def _value(mantissa: float, exponent: int) -> float:
    """Return m 2^e."""
    try:
        return math.ldexp(mantissa, exponent)
    except OverflowError:
        return math.inf


@np.errstate(all="ignore")
def _norm(tree: Any) -> tuple[float, int]:
    """Return the norm as m and e, that is m 2^e."""
    arrays = [leaf for _, leaf in parameters(tree)]
    total = sum(float(np.square(x, dtype=np.float64).sum()) for x in arrays)
    if FINE <= total < math.inf or math.isnan(total):
        return math.sqrt(total), 0
    largest = max((float(np.abs(x).max(initial=0)) for x in arrays), default=0.0)
    if not 0 < largest < math.inf:
        return largest, 0
    exponent = math.frexp(largest)[1]
    scaled = (np.ldexp(x.astype(np.float64), -exponent) for x in arrays)
    return math.sqrt(sum(float(np.square(x).sum()) for x in scaled)), exponent


@np.errstate(all="ignore")
def root_mean_square(x: Any) -> Any:
    """Return sqrt(mean(x^2)) in the type of `x`, 0 of no elements; these are scaled first where squares would not fit."""
    number = x.dtype.type
    if not x.size:
        return number(0)
    squares = np.mean(np.square(x))
    if np.finfo(x.dtype).tiny * 2.0**48 <= squares < math.inf or np.isnan(squares):
        return np.sqrt(squares)
    largest = np.abs(x).max()
    if not 0 < largest < math.inf:
        return largest
    exponent = math.frexp(float(largest))[1]
    return number(np.ldexp(np.sqrt(np.mean(np.square(np.ldexp(x, -exponent)))), exponent))


def clip_by_global_norm(most: float) -> Transform:
    """Return the link that multiplies all updates by most / norm where the global norm exceeds `most`.

    Finite updates are clipped to finite ones, however large they are. An infinity or NaN among them makes every update NaN
    rather than zero, so that it is seen.
    Source: Pascanu, Mikolov, Bengio, "On the difficulty of training recurrent neural networks", ICML 2013, algorithm 1.
    """
    if not most > 0:
        raise InputError(f"clip_by_global_norm({most}): the largest norm allowed is a positive number")

    def update(updates: Any, state: Any, params: Any, place: Place = WHOLE) -> tuple[Any, Any]:  # noqa: ARG001
        check_parts("a link without one", state)
        mantissa, exponent = _norm(updates)
        norm = _value(mantissa, exponent)
        if norm <= most:
            return updates, state
        if not math.isfinite(mantissa):
            return tree_map(lambda _, p, u: differences(u, p) * np.nan, params, updates), state
        factor = most / norm
        normal = factor >= 2.0**-126  # in either type
        mantissa, more = math.frexp(mantissa)
        mantissa, exponent = 2 * mantissa, exponent + more - 1  # at least 1, so that most / m does not overflow

        def clipped(_: Any, p: Any, u: Any) -> Any:
            dtype = computing_type(p)
            if normal and u.dtype.itemsize <= dtype.itemsize:
                return differences(u, p) * dtype.type(factor)
            # The factor may be no normal number of the type, and `u` of a wider type may be none of its numbers.
            return (np.ldexp(u.astype(np.float64), -exponent) * (most / mantissa)).astype(dtype)

        return tree_map(clipped, params, updates), state

    return Transform(lambda _: {}, update, elementwise=False)
