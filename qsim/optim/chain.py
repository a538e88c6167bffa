"""A link of an optimizer is a pair of pure functions; `chain` makes one of several, as in optax.

    optimizer = adamw(3e-4, rounding={"update": "bfloat16:SR", "moment": "bfloat16"})
    state = optimizer.init(params)
    updates, state = optimizer.update(grads, state, params)
    params = apply_updates(params, updates)

States are nested dicts of arrays and integers, so that a training checkpoint is one file (`qsim.optim.save`). Arithmetic is in
the type of the parameters, also that of coefficients such as beta and 1 - beta, which are rounded to it once; gradients of
another type are converted to it first. For parameters of float16 and bfloat16 that type is float32, which states have too:
a new parameter is rounded once, to nearest even, to the type that stores it.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from dataclasses import dataclass
from numbers import Real
from typing import Any, Protocol

import numpy as np

from qsim.autograd.tape import note_update
from qsim.errors import InputError
from qsim.optim.checks import check_parts
from qsim.optim.rounding import WHOLE, Place, Roundings
from qsim.optim.tree import ARRAYS, Written, check_params, computing_type, store_as, tree_map, widen
from qsim.underflow import gradual_underflow

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
    rounds: tuple[Roundings, ...] = ()
    """The roundings of its sites: two links of a chain must not take the same words."""

    def __post_init__(self) -> None:
        for name in ("init", "update"):
            object.__setattr__(self, name, gradual_underflow(getattr(self, name)))


@gradual_underflow
def apply_updates(params: Any, updates: Any) -> Any:
    """Return the new parameters: p + u rounded to the type of p, or the value that a link has written.

    For p of 16 bits the sum is one of float32.
    Raise `InputError` for updates of other names or shapes than the parameters'.
    """

    def applied(path: str, p: Any, u: Any) -> Any:
        new = u.value if isinstance(u, Written) else u
        if isinstance(p, dict) or isinstance(new, dict):
            if not (isinstance(p, dict) and isinstance(new, dict) and p.keys() == new.keys()):
                raise InputError(f"{path or 'the updates'}: {_named(new)} goes with {_named(p)} of the parameters")
            if isinstance(u, Written):
                return new
            return {name: applied(f"{path}.{name}" if path else name, below, u[name]) for name, below in p.items()}
        if not all(isinstance(x, ARRAYS) for x in (p, new)) or p.shape != new.shape:
            raise InputError(f"{path or 'the updates'}: {_named(new)} goes with {_named(p)} of the parameters")
        if not isinstance(u, Written):
            new = p + u if p.dtype.itemsize > 2 else widen(p) + u.astype(np.float32)
        return np.asarray(store_as(new, p.dtype))  # of arrays without axes NumPy makes scalars

    note_update()  # what comes next is another step, which takes other random words
    with np.errstate(all="ignore"):
        return applied("", params, updates)


def _named(x: Any) -> str:
    """Return the name of a branch or a leaf in an `InputError`."""
    if isinstance(x, dict):
        return f"the names {sorted(map(str, x))}"
    return f"an array of shape {x.shape}" if isinstance(x, ARRAYS) else type(x).__name__


def chain(*links: Transform) -> Transform:
    """Return the transform that passes updates through `links` in turn; its state is {"0": ..., "1": ...}.

    Raise `InputError` for two links that round stochastically in one role with one seed: they would take the same words.
    """
    if not links:
        raise InputError("chain takes at least one link; scale(-learning_rate) is the smallest optimizer")
    for (first, one), (second, other) in itertools.combinations(enumerate(links), 2):
        for kind in (kind for a in one.rounds for b in other.rounds for kind in a.shared_words(b)):
            raise InputError(
                f"links {first} and {second} of a chain both round {kind} stochastically with the same seed, hence with "
                "the same words; give one of them another seed"
            )

    def init(params: Any) -> dict[str, Any]:
        check_params(params)
        return {str(k): link.init(params) for k, link in enumerate(links)}

    def update(updates: Any, state: Any, params: Any, place: Place = WHOLE) -> tuple[Any, Any]:
        check_parts("a chain", state, *map(str, range(len(links))))
        new = {}
        for k, link in enumerate(links):
            updates, new[str(k)] = link.update(updates, state[str(k)], params, place)
        return updates, new

    elementwise = all(link.elementwise for link in links)
    return Transform(init, update, elementwise, tuple(itertools.chain.from_iterable(link.rounds for link in links)))


def stateless(function: Callable[..., Any], *, elementwise: bool = True) -> Transform:
    """Return the link without a state whose updates are function(parameter, u, p)."""

    def update(updates: Any, state: Any, params: Any, place: Place = WHOLE) -> tuple[Any, Any]:  # noqa: ARG001
        check_parts("a link without one", state)
        return tree_map(
            lambda parameter, p, u: function(parameter, differences(u, p), widen(p)), params, updates
        ), state

    return Transform(lambda _: {}, update, elementwise)


def differences(u: Any, p: Any) -> Any:
    """Return `u`, the update of parameter `p`, in the type that it is computed in; refuse one that is written already."""
    if isinstance(u, Written):
        raise InputError("a link that writes parameters back is the last of its chain; put the others before it")
    dtype = computing_type(p)
    return u if u.dtype == dtype else u.astype(dtype)


def scale(factor: float) -> Transform:
    """Return the link that multiplies updates by `factor`, a finite number."""
    if not isinstance(factor, Real) or not math.isfinite(factor):
        raise InputError(f"scale({factor!r}): updates are multiplied by a finite number")
    return stateless(lambda _, u, p: u * p.dtype.type(factor))
