"""Learning rates as functions of the step, which counts from 0."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from qsim.errors import InputError
from qsim.optim.chain import Transform, differences
from qsim.optim.checks import at_least_zero, next_step
from qsim.optim.rounding import WHOLE, Place
from qsim.optim.tree import computing_type, tree_map

__all__ = ["Schedule", "constant", "cosine", "scale_by_learning_rate", "warmup"]

Schedule = Callable[[int], float]


def constant(rate: float) -> Schedule:
    """Return the schedule that is `rate` at every step."""
    at_least_zero("the learning rate", rate)
    return lambda _: rate


def warmup(steps: int, then: Schedule | float) -> Schedule:
    """Return the schedule that rises linearly over `steps` steps, then is `then`, whose steps count from there.

    Step t < steps has then(0) (t + 1) / steps: the first step is not lost, and step `steps` - 1 has the full rate.
    """
    if steps < 0:
        raise InputError(f"warmup over {steps} steps; give 0 or more")
    after = then if callable(then) else constant(then)
    return lambda step: after(0) * (step + 1) / steps if step < steps else after(step - steps)


def cosine(peak: float, steps: int, *, end: float = 0.0, warm: int = 0) -> Schedule:
    """Return a cosine from `peak` at step 0 to `end` at step `steps` and after: end + (peak - end)(1 + cos(pi t / T)) / 2.

    `warm` steps of linear warm-up come first, and are among the `steps`.
    Source: Loshchilov and Hutter, "SGDR: Stochastic Gradient Descent with Warm Restarts", ICLR 2017, equation 5.
    """
    if not 0 <= warm < steps:
        raise InputError(f"cosine over {steps} steps with {warm} of warm-up; give at least one step after the warm-up")
    at_least_zero("peak", peak)
    at_least_zero("end", end)
    length = steps - warm

    def falling(step: int) -> float:
        return end + (peak - end) * (1 + math.cos(math.pi * min(step, length) / length)) / 2

    return warmup(warm, falling)


def scale_by_learning_rate(rate: Schedule | float) -> Transform:
    """Return the link that multiplies updates by minus the learning rate, at the step that it counts."""
    schedule = rate if callable(rate) else constant(rate)

    def update(updates: Any, state: Any, params: Any, place: Place = WHOLE) -> tuple[Any, Any]:  # noqa: ARG001
        step = next_step("the learning rate", state)
        factor = -at_least_zero(f"the learning rate of step {step}", schedule(step))

        def scaled(_: Any, p: Any, u: Any) -> Any:
            return differences(u, p) * computing_type(p).type(factor)

        return tree_map(scaled, params, updates), {"step": step + 1}

    return Transform(lambda _: {"step": 0}, update)
