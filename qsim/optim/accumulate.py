"""Accumulation of gradients over micro-batches, the running sum rounded at the sites `grad_acc`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from qsim.errors import InputError, enumerate_names, integer
from qsim.optim.checks import next_step
from qsim.optim.rounding import WHOLE, Place, Roundings, Spelling
from qsim.optim.tree import tree_map, zeros

__all__ = ["Accumulator"]


@dataclass(frozen=True, slots=True)
class Accumulator:
    """Sum gradients and give their mean s / n; on an edge device four times the batch is four of these.

    `rounds` names the rounded number: the running "sum", s' = Q(s + g), or each "gradient" before it is added, s' = s + Q(g).

    The state is {"sum", "count", "weight", "step"}. Micro-batch k (from 0) of a step takes the words of draw k.
    """

    rounding: Spelling = None
    seed: int = 0
    rounds: Literal["sum", "gradient"] = "sum"

    def __post_init__(self) -> None:
        if self.rounds not in ("sum", "gradient"):
            raise InputError(f"rounds = {self.rounds!r} must be 'sum' or 'gradient'")
        if isinstance(self.rounding, Mapping) and self.rounding and not self._roundings().policy:
            raise InputError(
                f"the rounding of an Accumulator names {enumerate_names(map(repr, self.rounding))} and no grad_acc, so "
                "nothing would be rounded"
            )

    def init(self, params: Any) -> dict[str, Any]:
        """Return the empty sum, at step 0."""
        self._roundings().check(params)
        return {"sum": tree_map(lambda _, p: zeros(p), params), "count": 0, "weight": 0, "step": 0}

    def add(self, grads: Any, state: Any, place: Place = WHOLE, *, weight: int = 1) -> dict[str, Any]:
        """Return the state with one more micro-batch in it; a rank that has batches of its own says so by `place`.

        `weight` is for micro-batches of unequal size: the number of samples or tokens that `grads` is the mean over. Then w g,
        in the type of the sum, stands for g, and the mean is s / (sum of weights).
        """
        if integer("weight", weight) < 0:
            raise InputError(f"weight = {weight} of a micro-batch must be at least 0, a number of samples or tokens")
        roundings, (step, count, total) = self._roundings(), self._parts(state)

        def added(name: Any, s: Any, g: Any) -> Any:
            if weight != 1:
                g = g.astype(s.dtype, copy=False) * s.dtype.type(weight)
            if self.rounds == "gradient":
                return s + roundings.round(name, "grad_acc", g.astype(s.dtype, copy=False), step, place, draw=count)
            return roundings.round(name, "grad_acc", (s + g).astype(s.dtype, copy=False), step, place, draw=count)

        sums = tree_map(added, state["sum"], grads)
        return {"sum": sums, "count": count + 1, "weight": total + int(weight), "step": step}

    def mean(self, state: Any) -> tuple[Any, dict[str, Any]]:
        """Return the mean of the micro-batches, in the type of the sum, and the state that the next step begins with."""
        step, _, total = self._parts(state)
        if not total:
            raise InputError("no micro-batch of a weight above 0 has been added, so there is no mean of gradients")
        grads = tree_map(lambda _, s: s / s.dtype.type(total), state["sum"])
        empty = tree_map(lambda _, s: np.zeros_like(s), state["sum"])
        return grads, {"sum": empty, "count": 0, "weight": 0, "step": step + 1}

    def _parts(self, state: Any) -> tuple[int, int, int]:
        """Return the step of a state, the number of its micro-batches and the sum of their weights."""
        step = next_step("an Accumulator", state, "sum", "count", "weight")
        return step, int(state["count"]), int(state["weight"])

    def _roundings(self) -> Roundings:
        return Roundings.parse(self.rounding, ("grad_acc",), self.seed)
