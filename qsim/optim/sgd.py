"""Stochastic gradient descent, with momentum and Nesterov's, and decoupled weight decay."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from numpy.typing import NDArray

from qsim.errors import InputError
from qsim.optim.chain import Transform, chain, differences, stateless
from qsim.optim.checks import at_least_zero, next_step
from qsim.optim.clipping import clip_by_global_norm
from qsim.optim.rounding import WHOLE, Place, Roundings, Spelling
from qsim.optim.schedules import Schedule, scale_by_learning_rate
from qsim.optim.tree import computing_type, tree_map, unzip, zeros
from qsim.optim.writeback import write_back

__all__ = ["Mask", "add_decayed_weights", "finish", "sgd", "trace"]

Mask = Callable[[str, NDArray[Any]], bool]
"""Whether the parameter of this path is decayed; `lambda path, p: p.ndim > 1` leaves out biases and gains."""


def trace(decay: float, *, nesterov: bool = False, rounding: Spelling = None, seed: int = 0) -> Transform:
    """Return the link of momentum: m' = Q(decay m + u) at the sites `moment`; it passes on m', or with `nesterov` u + decay m'.

    Source: Sutskever et al., "On the importance of initialization and momentum in deep learning", ICML 2013, in PyTorch's form.
    """
    if not 0 <= decay < 1:
        raise InputError(f"momentum {decay} must be at least 0 and below 1")
    roundings = Roundings.parse(rounding, ("moment",), seed)

    def init(params: Any) -> dict[str, Any]:
        roundings.check(params)
        return {"step": 0, "moment": tree_map(lambda _, p: zeros(p), params)}

    def update(updates: Any, state: Any, params: Any, place: Place = WHOLE) -> tuple[Any, Any]:
        step = next_step("momentum", state, "moment")

        def both(name: Any, p: Any, u: Any, m: Any) -> tuple[Any, Any]:
            u, beta = differences(u, p), computing_type(p).type(decay)
            m = roundings.round(name, "moment", beta * m + u, step, place)
            return u + beta * m if nesterov else m, m

        new, moments = unzip(tree_map(both, params, updates, state["moment"]), 2)
        return new, {"step": step + 1, "moment": moments}

    return Transform(init, update, roundings.elementwise, (roundings,))


def add_decayed_weights(rate: float, mask: Mask | None = None) -> Transform:
    """Return the link of decoupled weight decay: u + rate p, for the parameters that `mask` keeps.

    It stands before the learning rate, which multiplies both.
    Source: Loshchilov and Hutter, "Decoupled Weight Decay Regularization", ICLR 2019.
    """
    at_least_zero("weight_decay", rate)

    def decayed(name: Any, u: Any, p: Any) -> Any:
        return u + p.dtype.type(rate) * p if mask is None or mask(name.path, p) else u

    return stateless(decayed)


def finish(
    *links: Transform,
    learning_rate: Schedule | float,
    weight_decay: float,
    mask: Mask | None,
    clip: float | None,
    rounding: Spelling,
    kahan: bool,
    seed: int,
) -> Transform:
    """Return clipping, `links`, weight decay, learning rate and write-back, those that are asked for, as one chain."""
    before = [] if clip is None else [clip_by_global_norm(clip)]
    decay = [add_decayed_weights(weight_decay, mask)] if weight_decay != 0 else []
    update = Roundings.parse(rounding, ("update",), seed)
    rounds = kahan or any(q is not None for q in update.policy.values())
    after = [write_back(rounding, kahan=kahan, seed=seed)] if rounds else []
    return chain(*before, *links, *decay, scale_by_learning_rate(learning_rate), *after)


def sgd(
    learning_rate: Schedule | float,
    *,
    momentum: float = 0.0,
    nesterov: bool = False,
    weight_decay: float = 0.0,
    mask: Mask | None = None,
    clip: float | None = None,
    rounding: Spelling = None,
    kahan: bool = False,
    seed: int = 0,
) -> Transform:
    """Return SGD: m = momentum m + g, p' = Q(p - learning_rate (m + weight_decay p)).

    Args:
        learning_rate: A number, or a schedule: a function of the number of the step.
        momentum: Decay of the moment; 0: there is none.
        nesterov: Whether the step looks one gradient ahead: momentum m + g in place of m.
        weight_decay: Decoupled weight decay (Loshchilov and Hutter 2019).
        mask: Says by path and array whether a parameter decays, as `lambda path, p: p.ndim > 1`; by default all do.
        clip: The largest global norm of the gradients; `None`: no clipping.
        rounding: Formats by the sites `update`, `moment` or their names with a parameter before.
        kahan: Whether the write-back is compensated, see `write_back`.
        seed: Of the random words of stochastic roundings.

    Returns:
        A `Transform`: init(params) -> state, update(grads, state, params) -> (updates, state).
    """
    if nesterov and not momentum:
        raise InputError("nesterov needs a momentum above 0")
    if not momentum and isinstance(rounding, Mapping):
        for name, q in Roundings.parse(rounding, ("moment",), seed).policy.items():
            if q is not None:
                raise InputError(
                    f"rounding {name!r} without a momentum has nothing to round; leave it out, or give a momentum"
                )
    links = [trace(momentum, nesterov=nesterov, rounding=rounding, seed=seed)] if momentum else []
    return finish(
        *links,
        learning_rate=learning_rate,
        weight_decay=weight_decay,
        mask=mask,
        clip=clip,
        rounding=rounding,
        kahan=kahan,
        seed=seed,
    )
