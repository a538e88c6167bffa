"""A link of an optimizer is a pair of pure functions; `chain` makes one of several, as in optax.

    optimizer = adamw(3e-4, rounding={"update": "bfloat16:SR", "moment": "bfloat16"})
    state = optimizer.init(params)
    updates, state = optimizer.update(grads, state, params)
    params = apply_updates(params, updates)

States are nested dicts of arrays and integers, so that a training checkpoint is one file (`qsim.optim.save`). Arithmetic is in
the type of the parameters, also that of coefficients such as beta and 1 - beta, which are rounded to it once.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from qsim.errors import InputError
from qsim.optim.rounding import WHOLE, Place
from qsim.optim.tree import check_params, tree_map

__all__ = ["Transform", "Written", "apply_updates", "chain", "scale", "stateless"]


class Update(Protocol):
    """Turn gradients, or the updates that an earlier link made of them, into updates, and a state into the next."""

    def __call__(self, updates: Any, state: Any, params: Any, place: Place = WHOLE) -> tuple[Any, Any]: ...


@dataclass(frozen=True, slots=True)
class Transform:
    """Hold one link: `init(params) -> state` and `update(updates, state, params) -> (updates, state)`."""

    init: Callable[[Any], Any]
    update: Update
    elementwise: bool = True
    """Whether an element's update depends on no other element, so that parameters may be cut into shards."""


@dataclass(frozen=True, slots=True)
class Written:
    """Hold the new value of a parameter, where a link wrote it back rounded.

    A difference would not do: fl(p + fl(new - p)) need not be `new` (p = 12.7, new = 0.3, float32).
    """

    value: Any


def apply_updates(params: Any, updates: Any) -> Any:
    """Return the new parameters: p + u in the type of p, or what a link has written."""

    def applied(p: Any, u: Any) -> Any:
        if isinstance(u, Written):
            return u.value
        if isinstance(u, dict):
            return {name: applied(p[name], below) for name, below in u.items()}
        return (p + u).astype(p.dtype, copy=False)

    with np.errstate(all="ignore"):
        return applied(params, updates)


def chain(*links: Transform) -> Transform:
    """Return the transform that passes updates through `links` in turn; its state is {"0": ..., "1": ...}."""
    if not links:
        raise InputError("chain takes at least one link; scale(-learning_rate) is the smallest optimizer")

    def init(params: Any) -> dict[str, Any]:
        check_params(params)
        return {str(k): link.init(params) for k, link in enumerate(links)}

    def update(updates: Any, state: Any, params: Any, place: Place = WHOLE) -> tuple[Any, Any]:
        new = {}
        for k, link in enumerate(links):
            updates, new[str(k)] = link.update(updates, state[str(k)], params, place)
        return updates, new

    return Transform(init, update, all(link.elementwise for link in links))


def stateless(function: Callable[..., Any], *, elementwise: bool = True) -> Transform:
    """Return the link without a state whose updates are function(parameter, u, p)."""

    def update(updates: Any, state: Any, params: Any, place: Place = WHOLE) -> tuple[Any, Any]:  # noqa: ARG001
        return tree_map(lambda parameter, p, u: function(parameter, differences(u), p), params, updates), state

    return Transform(lambda _: {}, update, elementwise)


def differences(u: Any) -> Any:
    """Return `u`, the update of one parameter; refuse one that is written already."""
    if isinstance(u, Written):
        raise InputError("a link that writes parameters back is the last of its chain; put the others before it")
    return u


def scale(factor: float) -> Transform:
    """Return the link that multiplies updates by `factor`."""
    return stateless(lambda _, u, p: u * p.dtype.type(factor))


def next_step(state: Any) -> int:
    """Return the number of the step that a state is at, from 0."""
    return int(np.asarray(state["step"]))
