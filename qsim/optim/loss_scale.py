"""Loss scaling: the loss is multiplied so that small gradients do not underflow, and the gradients are divided again."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from qsim.errors import InputError, integer
from qsim.optim.checks import check_parts
from qsim.optim.tree import computing_type, tree_map, widen
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
        """Return the factor of the loss."""
        return math.ldexp(1.0, self._parts(state)[0])

    def unscale(self, grads: Any, state: dict[str, int]) -> tuple[Any, dict[str, int]]:
        """Return the gradients of a loss that the caller multiplied, divided by the factor, and the next state.

        Gradients of 16 bits come back as float32, which has the quotients that they have not.
        Gradients under `qsim.numerics(loss_scale=...)` are divided already: these only need `update`.
        """
        inverse = 1 / self.factor(state)
        unscaled = tree_map(lambda _, g: widen(g) * computing_type(g).type(inverse), grads)
        return unscaled, self.update(state, finite=all_finite(grads))

    def update(self, state: dict[str, int], *, finite: bool) -> dict[str, int]:
        """Return the state after a step whose gradients were finite or not."""
        scale, good = self._parts(state)
        if self.interval is None:
            return {"scale": scale, "good": good + finite}
        if not finite:
            return {"scale": max(scale - 1, self.least), "good": 0}
        if good + 1 < self.interval:
            return {"scale": scale, "good": good + 1}
        return {"scale": min(scale + 1, self.most), "good": 0}

    def _parts(self, state: dict[str, int]) -> tuple[int, int]:
        """Return the scale's exponent and the number of finite steps; refuse a state that this LossScale cannot be in."""
        check_parts("a LossScale", state, "scale", "good")
        scale, good = (integer(f"{name} of a LossScale", state[name]) for name in ("scale", "good"))
        if not self.least <= scale <= self.most:
            raise InputError(
                f"a state with the scale 2^{scale}, outside 2^{self.least} .. 2^{self.most}, is that of another LossScale; "
                "begin with init"
            )
        return scale, good
