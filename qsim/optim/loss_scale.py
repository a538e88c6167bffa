"""Loss scaling: the loss is multiplied so that small gradients do not underflow, and the gradients are divided again."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from qsim.errors import InputError, integer
from qsim.optim.checks import check_parts
from qsim.optim.tree import tree_map
from qsim.optim.writeback import all_finite

__all__ = ["LossScale"]


FURTHEST = 126
"""The largest exponent e of which both 2^e and 2^-e are normal numbers of float32, so that dividing is exact."""


@dataclass(frozen=True, slots=True)
class LossScale:
    """Say how the loss scale moves; the state is {"scale": its base-2 logarithm, "good": finite steps since it moved}.

    Scales are powers of two, exact to apply short of over- and underflow. After `interval` steps with finite gradients the
    scale doubles, up to 2^`most`; after one with an infinity or NaN it halves, down to 2^`least`, and that step is to be
    skipped (`skip_nonfinite`). `interval` None: the scale is static. Beginning: 2^`first`.
    Either `qsim.numerics(loss_scale=factor(state))` multiplies: `value_and_grad` then divides the gradients itself, and the
    state goes on by `update(state, finite=all_finite(grads))`. Or the caller multiplies the loss, and `unscale` divides.
    Never both: the gradients would be divided twice.
    Source: Micikevicius et al., "Mixed Precision Training", ICLR 2018, section 3.2; the numbers are PyTorch's.
    """

    first: int = 16
    interval: int | None = 2000
    least: int = 0
    most: int = 24

    def __post_init__(self) -> None:
        for name in ("first", "least", "most"):
            if abs(integer(name, getattr(self, name))) > FURTHEST:
                raise InputError(
                    f"{name} = {getattr(self, name)} must lie in -{FURTHEST} .. {FURTHEST}: float32 has to hold the scale "
                    "and its reciprocal"
                )
        if not self.least <= self.first <= self.most:
            raise InputError(f"a loss scale of 2^{self.first} lies outside 2^{self.least} .. 2^{self.most}")
        if self.interval is not None and integer("interval", self.interval) < 1:
            raise InputError(f"interval = {self.interval} must be at least 1 step, or None for a static scale")

    @classmethod
    def static(cls, exponent: int) -> LossScale:
        """Return the scale 2^exponent that never moves."""
        return cls(exponent, None, exponent, exponent)

    def init(self) -> dict[str, int]:
        """Return the first state."""
        return {"scale": self.first, "good": 0}

    def factor(self, state: dict[str, int]) -> float:
        """Return what the loss is multiplied by."""
        check_parts("a LossScale", state, "scale", "good")
        exponent = int(state["scale"])
        if abs(exponent) > FURTHEST:
            raise InputError(f"a state with the scale 2^{exponent}, beyond 2^{FURTHEST}, is none of a LossScale")
        return math.ldexp(1.0, exponent)

    def unscale(self, grads: Any, state: dict[str, int]) -> tuple[Any, dict[str, int]]:
        """Return the gradients of a loss that the caller multiplied, divided by the factor, and the next state.

        Gradients under `qsim.numerics(loss_scale=...)` are divided already: these only need `update`.
        """
        inverse = 1 / self.factor(state)
        return tree_map(lambda _, g: g * g.dtype.type(inverse), grads), self.update(state, finite=all_finite(grads))

    def update(self, state: dict[str, int], *, finite: bool) -> dict[str, int]:
        """Return the state after a step whose gradients were finite or not."""
        check_parts("a LossScale", state, "scale", "good")
        scale, good = int(state["scale"]), int(state["good"])
        if self.interval is None:
            return {"scale": scale, "good": good + finite}
        if not finite:
            return {"scale": max(scale - 1, self.least), "good": 0}
        if good + 1 < self.interval:
            return {"scale": scale, "good": good + 1}
        return {"scale": min(scale + 1, self.most), "good": 0}
