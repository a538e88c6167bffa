"""Accumulation of gradients over micro-batches, the running sum rounded at the sites `grad_acc`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from qsim.errors import InputError
from qsim.optim.rounding import WHOLE, Place, Roundings, Spelling
from qsim.optim.tree import check_params, tree_map

__all__ = ["Accumulator"]


@dataclass(frozen=True, slots=True)
class Accumulator:
    """Sum gradients, s' = Q(s + g), and give their mean s / n; on an edge device four times the batch is four of these.

    The state is {"sum", "count", "step"}. Micro-batch k (from 0) of a step takes the words of draw k.
    """

    rounding: Spelling = None
    seed: int = 0

    def init(self, params: Any) -> dict[str, Any]:
        """Return the empty sum, at step 0."""
        check_params(params)
        self._roundings().check(params)
        return {"sum": tree_map(lambda _, p: np.zeros_like(p), params), "count": 0, "step": 0}

    def add(self, grads: Any, state: Any, place: Place = WHOLE) -> dict[str, Any]:
        """Return the state with one more micro-batch in it; a rank that has batches of its own says so by `place`."""
        roundings, step, count = self._roundings(), int(state["step"]), int(state["count"])
        total = tree_map(
            lambda name, s, g: roundings.round(
                name, "grad_acc", (s + g).astype(s.dtype, copy=False), step, place, draw=count
            ),
            state["sum"],
            grads,
        )
        return {"sum": total, "count": count + 1, "step": step}

    def mean(self, state: Any) -> tuple[Any, dict[str, Any]]:
        """Return the mean of the micro-batches, in the type of the sum, and the state that the next step begins with."""
        count = int(state["count"])
        if not count:
            raise InputError("no micro-batch has been added, so there is no mean of gradients")
        grads = tree_map(lambda _, s: s / s.dtype.type(count), state["sum"])
        empty = tree_map(lambda _, s: np.zeros_like(s), state["sum"])
        return grads, {"sum": empty, "count": 0, "step": int(state["step"]) + 1}

    def _roundings(self) -> Roundings:
        return Roundings.parse(self.rounding, ("grad_acc",), self.seed)
