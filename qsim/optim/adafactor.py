"""Adafactor: second moments of a matrix kept as those of its rows and columns."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from qsim.errors import InputError
from qsim.optim.chain import Transform, differences, stateless
from qsim.optim.checks import at_least_zero, check_parts, next_step
from qsim.optim.clipping import root_mean_square
from qsim.optim.rounding import WHOLE, Place, Roundings, Spelling
from qsim.optim.schedules import Schedule
from qsim.optim.sgd import Mask, finish, trace
from qsim.optim.tree import computing_type, tree_map, unzip

__all__ = ["adafactor", "clip_by_rms", "scale_by_factored_rms", "scale_by_parameter_rms"]


def scale_by_factored_rms(
    decay: float = 0.8, eps: float = 1e-30, *, rounding: Spelling = None, seed: int = 0
) -> Transform:
    """Return the link of Adafactor's second moment, which rounds at the sites `moment2`: u = g / sqrt(V).

    b = 1 - t^-decay, t from 1. With two axes or more the last two are factored, G = g^2 + eps:
    R' = Q(b R + (1 - b) mean over columns of G), C' = Q(b C + (1 - b) mean over rows of G), V = R' C' / mean(R'). With fewer,
    V' = Q(b V + (1 - b) G). R takes the words of draw 0 of its site, C those of draw 1.
    A format that has no number near `eps` rounds the moments of zero gradients to 0, so that u is 0 / 0 = NaN there: a
    numerics context in force counts such moments as `underflowed`.
    Source: Shazeer and Stern, "Adafactor: Adaptive Learning Rates with Sublinear Memory Cost", ICML 2018, algorithm 4.
    """
    if not 0 < decay < 1:
        raise InputError(f"Adafactor's decay = {decay} must be above 0 and below 1: b is 1 - t^-decay")
    at_least_zero("eps", eps)
    roundings = Roundings.parse(rounding, ("moment2",), seed)

    def shapes(p: Any) -> dict[str, tuple[int, ...]]:
        if p.ndim < 2:
            return {"whole": p.shape}
        return {"rows": p.shape[:-1], "columns": (*p.shape[:-2], p.shape[-1])}

    def init(params: Any) -> dict[str, Any]:
        roundings.check(params)

        def zeros(_: Any, p: Any) -> dict[str, Any]:
            return {name: np.zeros(shape, computing_type(p)) for name, shape in shapes(p).items()}

        return {"step": 0, "moment2": tree_map(zeros, params)}

    def update(updates: Any, state: Any, params: Any, place: Place = WHOLE) -> tuple[Any, Any]:
        step = next_step("Adafactor", state, "moment2")
        beta = 1 - (step + 1) ** -decay

        def factored(name: Any, p: Any, g: Any, moment: Any) -> tuple[Any, Any]:
            number, g = computing_type(p).type, differences(g, p)
            check_parts(f"Adafactor for {name.path}", moment, *shapes(p))
            for part, shape in shapes(p).items():
                if np.shape(moment[part]) != shape:
                    raise InputError(
                        f"{name.path}: the state has {part} of shape {np.shape(moment[part])}, not {shape}; begin with init"
                    )
            if not p.size:  # there is no mean of none
                return g, moment
            squares = g * g + number(eps)

            def average(old: Any, new: Any, draw: int) -> Any:
                mixed = number(beta) * old + number(1 - beta) * new
                return roundings.round(name, "moment2", mixed, step, place, draw=draw)

            if p.ndim < 2:
                whole = average(moment["whole"], squares, 0)
                return g / np.sqrt(whole), {"whole": whole}
            rows = average(moment["rows"], squares.mean(-1), 0)
            columns = average(moment["columns"], squares.mean(-2), 1)
            share = rows / rows.mean(-1, keepdims=True)
            return g / np.sqrt(share)[..., None] / np.sqrt(columns)[..., None, :], {"rows": rows, "columns": columns}

        new, moments = unzip(tree_map(factored, params, updates, state["moment2"], deep=True), 2)
        return new, {"step": step + 1, "moment2": moments}

    return Transform(init, update, elementwise=False, rounds=(roundings,))


def clip_by_rms(most: float = 1.0) -> Transform:
    """Return the link that divides the update of each parameter by max(1, RMS(u) / most) (Adafactor, algorithm 4, line 8)."""
    if not most > 0:
        raise InputError(f"clip_by_rms({most}): the largest RMS allowed is a positive number")
    return stateless(
        lambda _, u, p: u / max(p.dtype.type(1), root_mean_square(u) / p.dtype.type(most)), elementwise=False
    )


def scale_by_parameter_rms(least: float = 1e-3) -> Transform:
    """Return the link that multiplies the update of each parameter by max(least, RMS(p)) (Adafactor, algorithm 4, line 4)."""
    at_least_zero("the least RMS", least)
    return stateless(lambda _, u, p: u * max(p.dtype.type(least), root_mean_square(p)), elementwise=False)


def relative_step(step: int) -> float:
    """Return Adafactor's own learning rate, min(0.01, 1 / sqrt(t)), t from 1, which multiplies the RMS of a parameter."""
    return min(1e-2, 1 / math.sqrt(step + 1))


def adafactor(
    learning_rate: Schedule | float | None = None,
    *,
    momentum: float = 0.0,
    decay: float = 0.8,
    eps: float = 1e-30,
    clip_rms: float = 1.0,
    least_rms: float = 1e-3,
    weight_decay: float = 0.0,
    mask: Mask | None = None,
    clip: float | None = None,
    rounding: Spelling = None,
    kahan: bool = False,
    seed: int = 0,
) -> Transform:
    """Return Adafactor (Shazeer and Stern 2018), whose second moments of a matrix are those of its rows and columns.

    Args:
        learning_rate: A number or a schedule; `None`: steps relative to the RMS of each parameter, of size `relative_step`.
        momentum: Decay of the moment; 0: there is none.
        decay: Exponent d of the second moment's decay in step t, 1 - t^-d.
        eps: Added to the squared gradients.
        clip_rms: The largest root mean square of an update.
        least_rms: The root mean square of a parameter that a relative step supposes at least.
        weight_decay: Decoupled weight decay (Loshchilov and Hutter 2019).
        mask: Says by path and array whether a parameter decays, as `lambda path, p: p.ndim > 1`; by default all do.
        clip: The largest global norm of the gradients; `None`: no clipping.
        rounding: Formats by the sites `update`, `moment` (with a momentum), `moment2` or their names with a parameter before.
        kahan: Whether the write-back is compensated, see `write_back`.
        seed: Of the random words of stochastic roundings.

    Returns:
        A `Transform`: init(params) -> state, update(grads, state, params) -> (updates, state).
    """
    links = [scale_by_factored_rms(decay, eps, rounding=rounding, seed=seed), clip_by_rms(clip_rms)]
    links += [scale_by_parameter_rms(least_rms)] if learning_rate is None else []
    links += [trace(momentum, rounding=rounding, seed=seed)] if momentum else []
    return finish(
        *links,
        learning_rate=relative_step if learning_rate is None else learning_rate,
        weight_decay=weight_decay,
        mask=mask,
        clip=clip,
        rounding=rounding,
        kahan=kahan,
        seed=seed,
    )
