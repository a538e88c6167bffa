"""Clipping of gradients by their norm."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from qsim.errors import InputError
from qsim.optim.chain import Transform
from qsim.optim.checks import check_parts
from qsim.optim.rounding import WHOLE, Place
from qsim.optim.tree import parameters, tree_map

__all__ = ["clip_by_global_norm", "global_norm"]


def global_norm(tree: Any) -> float:
    """Return the Euclidean norm of all elements together: squares and sums in float64, parameters in order."""
    squares = (np.square(leaf, dtype=np.float64).sum() for _, leaf in parameters(tree))
    return math.sqrt(sum(map(float, squares)))


def clip_by_global_norm(most: float) -> Transform:
    """Return the link that multiplies all updates by most / norm where the global norm exceeds `most`.

    A norm that is infinite or NaN makes every update NaN rather than zero, so that it is seen.
    Source: Pascanu, Mikolov, Bengio, "On the difficulty of training recurrent neural networks", ICML 2013, algorithm 1.
    """
    if not most > 0:
        raise InputError(f"clip_by_global_norm({most}): the largest norm allowed is a positive number")

    def update(updates: Any, state: Any, params: Any, place: Place = WHOLE) -> tuple[Any, Any]:  # noqa: ARG001
        check_parts("a link without one", state)
        norm = global_norm(updates)
        if norm <= most:
            return updates, state
        factor = most / norm if math.isfinite(norm) else math.nan
        return tree_map(lambda _, p, u: u * p.dtype.type(factor), params, updates), state

    return Transform(lambda _: {}, update, elementwise=False)
