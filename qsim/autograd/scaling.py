"""Scales that a site remembers: taken from earlier steps, or from the first one for ever."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from qsim.errors import InputError, enumerate_names, integer
from qsim.rounding import DERIVED, Quantizer
from qsim.scales import derive_scale, flush_input
from qsim.underflow import gradual_underflow

__all__ = ["Delayed", "Frozen", "Memory"]

Memory = dict[str, NDArray[np.float64]]
"""The memory of each site, by name: arrays, so that a checkpoint can hold it. `Delayed` leaves (step, scales ...), as many
places for scales as its window and one more, oldest first, 0 where there is none yet; `Frozen` leaves one scale."""


def _check(q: str | Quantizer) -> Quantizer:
    parsed = Quantizer.parse(q)
    if not isinstance(parsed.scale, str) or parsed.scale == "none" or parsed.per != "tensor":
        raise InputError(
            f"a remembered scale is derived once a tensor, by {enumerate_names(DERIVED)}; this rounding has scale "
            f"{parsed.scale!r} per {parsed.per!r}"
        )
    return parsed


def _own_scale(x: NDArray[Any], q: Quantizer) -> tuple[float, bool]:
    """Return the scale of `x`, and whether it is one to remember.

    A tensor of zeros has none to tell, nor has one that holds an infinity or NaN: its step overflowed.
    """
    s = derive_scale(x, q)
    assert s is not None  # `_check` refuses roundings without one
    seen = flush_input(x, q)
    return float(s.item()), bool(seen.any() and np.isfinite(seen).all())


def _remembered(memory: Memory, site: str) -> tuple[float, NDArray[np.float64]]:
    """Return the newest step that a site remembers, -1 for none, and its places for scales, the newest last."""
    seen = np.asarray(memory.get(site, (-1.0, 0.0)))
    if seen.ndim == 1 and seen.size and seen.dtype.kind == "f" and np.isfinite(seen).all():
        newest, scales = (-1.0, seen) if seen.size == 1 else (float(seen[0]), seen[1:])
        if (scales >= 0).all():
            return newest, scales
    raise InputError(f"memory of {site} is not what steps left there; give each run a dict of its own")


@dataclass(frozen=True, slots=True)
class Delayed:
    """Round with the largest scale that the last `window` steps would have had, as if the abs-max came a step late.

    The first step, which has none before it, takes its own. A tensor of zeros is none to remember, nor is one that holds an
    infinity or NaN, as after the overflow of a loss scale. A tensor that outgrows its history is clamped: `Counts.saturated`.
    Source: NVIDIA TransformerEngine, `DelayedScaling`, whose default window is 1,024, whose choice is the maximum, and which
    keeps its scale where the abs-max is 0 or not finite.
    """

    q: Quantizer
    window: int = 16

    def __init__(self, q: str | Quantizer, window: int = 16) -> None:
        if integer("window", window) < 1:
            raise InputError(f"window = {window} must be at least 1 step")
        object.__setattr__(self, "q", _check(q))
        object.__setattr__(self, "window", int(window))

    @gradual_underflow
    def at(self, memory: Memory, site: str, step: int, x: NDArray[Any]) -> tuple[Quantizer, float | None]:
        """Return the rounding and its scale for the tensor `x` of a site, whose own scale is noted for later steps."""
        own, telling = _own_scale(x, self.q)
        newest, scales = _remembered(memory, site)
        # A step is met several times when its draws come in parts: each part sees the steps before it alone.
        before, mine = (scales[:-1], scales[-1]) if newest == step else (scales, 0.0)
        if telling:
            places = np.append(np.zeros(self.window + 1), np.append(before, max(mine, own)))
            memory[site] = np.append(float(step), places[-self.window - 1 :])
        largest = before[-self.window :].max(initial=0.0)
        return self.q, float(largest) or own


@dataclass(frozen=True, slots=True)
class Frozen:
    """Round with the scale of the first tensor that the site met, at every later step too.

    A tensor of zeros is passed over, and so is one that holds an infinity or NaN: it takes its own scale, and leaves none.
    Where `Delayed` went before, with the same memory, the scale is the one that its next step would have taken, for ever:
    observe first, then freeze.
    """

    q: Quantizer

    def __init__(self, q: str | Quantizer) -> None:
        object.__setattr__(self, "q", _check(q))

    @gradual_underflow
    def at(
        self,
        memory: Memory,
        site: str,
        step: int,  # noqa: ARG002 - as `Delayed.at`
        x: NDArray[Any],
    ) -> tuple[Quantizer, float | None]:
        """Return the rounding and its scale for the tensor `x` of a site."""
        _, scales = _remembered(memory, site)
        known = (
            scales if scales.size == 1 else scales[1:]
        )  # the oldest place of a history is for a step that is met again
        if known.any():
            return self.q, float(known.max())
        own, telling = _own_scale(x, self.q)
        if telling:
            memory[site] = np.array([own])
        return self.q, own
