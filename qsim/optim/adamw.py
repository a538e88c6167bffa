"""Adam with decoupled weight decay."""

from __future__ import annotations

from typing import Any

import numpy as np

from qsim.errors import InputError
from qsim.optim.chain import Transform, differences
from qsim.optim.checks import at_least_zero, next_step
from qsim.optim.rounding import WHOLE, Place, Roundings, Spelling
from qsim.optim.schedules import Schedule
from qsim.optim.sgd import Mask, finish
from qsim.optim.tree import computing_type, tree_map, unzip, zeros

__all__ = ["adamw", "scale_by_adam"]


def scale_by_adam(
    b1: float = 0.9, b2: float = 0.999, eps: float = 1e-8, *, rounding: Spelling = None, seed: int = 0
) -> Transform:
    """Return the link of Adam, whose moments round at the sites `moment` and `moment2`, each once a step.

    m' = Q(b1 m + (1 - b1) g), v' = Q(b2 v + (1 - b2) g^2), u = (m' / (1 - b1^t)) / (sqrt(v' / (1 - b2^t)) + eps), t from 1.
    With g = 0 and bfloat16 to nearest, v' = v for every v iff b2 >= 1 - 2^-9: such a second moment never decays.
    Source: Kingma and Ba, "Adam: A Method for Stochastic Optimization", ICLR 2015, algorithm 1.
    """
    for name, beta in (("b1", b1), ("b2", b2)):
        if not 0 <= beta < 1:
            raise InputError(f"{name} = {beta} must be at least 0 and below 1")
    at_least_zero("eps", eps)
    roundings = Roundings.parse(rounding, ("moment", "moment2"), seed)

    def init(params: Any) -> dict[str, Any]:
        roundings.check(params)
        first, second = (tree_map(lambda _, p: zeros(p), params) for _ in range(2))
        return {"step": 0, "moment": first, "moment2": second}

    def update(updates: Any, state: Any, params: Any, place: Place = WHOLE) -> tuple[Any, Any]:
        step = next_step("Adam", state, "moment", "moment2")
        correction, correction2 = 1 - b1 ** (step + 1), 1 - b2 ** (step + 1)

        def adam(name: Any, p: Any, g: Any, m: Any, v: Any) -> tuple[Any, Any, Any]:
            number, g = computing_type(p).type, differences(g, p)
            m = roundings.round(name, "moment", number(b1) * m + number(1 - b1) * g, step, place)
            v = roundings.round(name, "moment2", number(b2) * v + number(1 - b2) * (g * g), step, place)
            return (m / number(correction)) / (np.sqrt(v / number(correction2)) + number(eps)), m, v

        new, first, second = unzip(tree_map(adam, params, updates, state["moment"], state["moment2"]), 3)
        return new, {"step": step + 1, "moment": first, "moment2": second}

    return Transform(init, update, roundings.elementwise, (roundings,))


def adamw(
    learning_rate: Schedule | float,
    b1: float = 0.9,
    b2: float = 0.999,
    eps: float = 1e-8,
    *,
    weight_decay: float = 0.0,
    mask: Mask | None = None,
    clip: float | None = None,
    rounding: Spelling = None,
    kahan: bool = False,
    seed: int = 0,
) -> Transform:
    """Return AdamW: p' = Q(p - learning_rate (Adam's u + weight_decay p)).

    Args:
        learning_rate: A number, or a schedule: a function of the number of the step.
        b1: Decay of the first moment.
        b2: Decay of the second moment; rounded to nearest in bfloat16, it freezes from 1 - 2^-9 on.
        eps: Added to the root of the second moment.
        weight_decay: Decoupled weight decay (Loshchilov and Hutter 2019).
        mask: Says by path and array whether a parameter decays, as `lambda path, p: p.ndim > 1`; by default all do.
        clip: The largest global norm of the gradients; `None`: no clipping.
        rounding: Formats by the sites `update`, `moment`, `moment2` or their names with a parameter before.
        kahan: Whether the write-back is compensated, see `write_back`.
        seed: Of the random words of stochastic roundings.

    Returns:
        A `Transform`: init(params) -> state, update(grads, state, params) -> (updates, state).
    """
    adam = scale_by_adam(b1, b2, eps, rounding=rounding, seed=seed)
    return finish(
        adam,
        learning_rate=learning_rate,
        weight_decay=weight_decay,
        mask=mask,
        clip=clip,
        rounding=rounding,
        kahan=kahan,
        seed=seed,
    )
