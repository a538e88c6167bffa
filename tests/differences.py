"""Central differences: what a gradient is held against."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from qsim.autograd import Var, op, tree_map, value_and_grad

STEP = 1e-6
"""Truncation is of order STEP^2 = 1e-12 and cancellation of 2^-53 / STEP = 1e-10 of the loss: both far below 1e-6."""


@op
def weighted(y: np.ndarray, weights: np.ndarray) -> tuple[np.ndarray, Any]:
    """Return the sum of all of y times fixed weights, a loss that looks at every element."""
    axes = tuple(range(1, y.ndim))
    return (y * weights).sum(axes), lambda g, _: (g.reshape(-1, *(1,) * (y.ndim - 1)) * weights, None)


def assert_gradient(loss: Callable[[Any, Any], Var], params: Any, batch: Any, *, entries: int | None = None) -> None:
    """Assert that the gradient agrees with central differences to 1e-6 of its norm, parameter by parameter.

    `entries`: only so many of each parameter, evenly spread, since every entry costs two losses.
    """
    both = value_and_grad(loss)
    _, grads = both(params, batch)

    def check(array: np.ndarray, gradient: np.ndarray) -> None:
        flat, analytic = array.reshape(-1), gradient.reshape(-1)
        places = range(0, flat.size, max(1, flat.size // (entries or flat.size)))
        numeric = []
        for k in places:
            kept = flat[k]
            ends = []
            for moved in (kept + STEP, kept - STEP):
                flat[k] = moved
                ends.append(both(params, batch)[0])
            flat[k] = kept
            numeric.append((ends[0] - ends[1]) / (2 * STEP))
        chosen = analytic[list(places)]
        # Where a part of the gradient is 0 but for rounding the whole of it is the measure.
        scale = max(np.linalg.norm(chosen), 1e-3 * np.linalg.norm(analytic), 1e-4)
        assert np.linalg.norm(np.array(numeric) - chosen) <= 1e-6 * scale

    tree_map(check, params, grads)


def assert_vjp(operation: Callable[..., Any], *arrays: np.ndarray, seed: int = 0) -> None:
    """Assert that the vjp of an operation with respect to each of its arrays agrees with central differences."""
    params = {str(k): array.copy() for k, array in enumerate(arrays)}
    shape = operation(*(array[None] for array in arrays)).shape
    weights = np.random.default_rng(seed).standard_normal(shape[1:])
    assert_gradient(lambda p, w: weighted(operation(*p.values()), w), params, weights)
