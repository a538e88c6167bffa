"""Accumulation of gradients over micro-batches, the running sum rounded at the sites `grad_acc`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from qsim.errors import InputError, enumerate_names
from qsim.optim.checks import next_step
from qsim.optim.rounding import WHOLE, Place, Roundings, Spelling
from qsim.optim.tree import tree_map

__all__ = ["Accumulator"]


@dataclass(frozen=True, slots=True)
class Accumulator:
    """Sum gradients and give their mean s / n; on an edge device four times the batch is four of these.

    `rounds` says what: the running "sum", s' = Q(s + g), or each "gradient" before it is added, s' = s + Q(g).

    The state is {"sum", "count", "step"}. Micro-batch k (from 0) of a step takes the words of draw k.
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
        return {"sum": tree_map(lambda _, p: np.zeros_like(p), params), "count": 0, "step": 0}

    def add(self, grads: Any, state: Any, place: Place = WHOLE) -> dict[str, Any]:
        """Return the state with one more micro-batch in it; a rank that has batches of its own says so by `place`."""
        roundings, step, count = (
            self._roundings(),
            next_step("an Accumulator", state, "sum", "count"),
            int(state["count"]),
        )

        def added(name: Any, s: Any, g: Any) -> Any:
            if self.rounds == "gradient":
                return s + roundings.round(name, "grad_acc", g.astype(s.dtype, copy=False), step, place, draw=count)
            return roundings.round(name, "grad_acc", (s + g).astype(s.dtype, copy=False), step, place, draw=count)

        total = tree_map(added, state["sum"], grads)
        return {"sum": total, "count": count + 1, "step": step}

    def mean(self, state: Any) -> tuple[Any, dict[str, Any]]:
        """Return the mean of the micro-batches, in the type of the sum, and the state that the next step begins with."""
        step, count = next_step("an Accumulator", state, "sum", "count"), int(state["count"])
        if not count:
            raise InputError("no micro-batch has been added, so there is no mean of gradients")
        grads = tree_map(lambda _, s: s / s.dtype.type(count), state["sum"])
        empty = tree_map(lambda _, s: np.zeros_like(s), state["sum"])
        return grads, {"sum": empty, "count": 0, "step": step + 1}

    def _roundings(self) -> Roundings:
        return Roundings.parse(self.rounding, ("grad_acc",), self.seed)
