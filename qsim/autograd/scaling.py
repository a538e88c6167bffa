"""Scales that a site remembers: taken from earlier steps, or from the first one for ever."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from qsim.errors import InputError, integer
from qsim.rounding import Quantizer
from qsim.scales import derive_scale

__all__ = ["Delayed", "Frozen", "Memory"]

Memory = dict[str, NDArray[np.float64]]
"""What sites remember, by name: arrays, so that a checkpoint can hold it."""


def _check(q: str | Quantizer) -> Quantizer:
    parsed = Quantizer.parse(q)
    if not isinstance(parsed.scale, str) or parsed.scale == "none" or parsed.per != "tensor":
        raise InputError(
            f"a remembered scale is derived once a tensor, by absmax, pow2 or absmean; this rounding has scale {parsed.scale!r}"
            f" per {parsed.per!r}"
        )
    return parsed


def largest_scale(x: NDArray[Any], q: Quantizer) -> float:
    """Return the scale of `x`, the largest of its draws'."""
    s = derive_scale(x, q)
    assert s is not None  # `_check` refuses roundings without one
    return float(s.max())


@dataclass(frozen=True, slots=True)
class Delayed:
    """Round with the largest scale that the last `window` steps would have had, as if the abs-max came a step late.

    The first step, which has none before it, takes its own; a tensor of zeros is none to remember. One that outgrows its
    history is clamped: `Counts.saturated`.
    Source: NVIDIA TransformerEngine, `DelayedScaling`, whose default window is 1,024 and whose choice is the maximum.
    """

    q: Quantizer
    window: int = 16

    def __init__(self, q: str | Quantizer, window: int = 16) -> None:
        if integer("window", window) < 1:
            raise InputError(f"window = {window} must be at least 1 step")
        object.__setattr__(self, "q", _check(q))
        object.__setattr__(self, "window", int(window))

    def at(self, memory: Memory, site: str, step: int, x: NDArray[Any]) -> tuple[Quantizer, float | None]:
        """Return the rounding and its scale for the tensor `x` of a site, whose own scale is noted for later steps."""
        own = largest_scale(x, self.q)
        if not x.any():  # whose scale of 1 says nothing of those to come
            return self.q, float(max(memory.get(site, np.array([-1.0]))[1:][-self.window :], default=own))
        # A step is met several times when its draws come in parts: each part sees the steps before it alone.
        seen = memory.get(site, np.array([-1.0]))
        if np.ndim(seen) != 1 or not len(seen):
            raise InputError(f"memory of {site} is not what steps left there; give each run a dict of its own")
        newest, scales = seen[0], seen[1:]
        if newest == step:
            before, scales = scales[:-1], np.append(scales[:-1], max(scales[-1], own))
        else:
            before, scales = scales, np.append(scales, own)
        memory[site] = np.append(float(step), scales[-self.window - 1 :])
        return self.q, float(max(before[-self.window :], default=own))


@dataclass(frozen=True, slots=True)
class Frozen:
    """Round with the scale of the first tensor that the site met and that is not all zeros, at every later step too."""

    q: Quantizer

    def __init__(self, q: str | Quantizer) -> None:
        object.__setattr__(self, "q", _check(q))

    def at(
        self,
        memory: Memory,
        site: str,
        step: int,  # noqa: ARG002 - as `Delayed.at`
        x: NDArray[Any],
    ) -> tuple[Quantizer, float | None]:
        """Return the rounding and its scale for the tensor `x` of a site."""
        if site not in memory and not x.any():
            return self.q, 1.0
        if site not in memory:
            memory[site] = np.array([largest_scale(x, self.q)])
        return self.q, float(memory[site][0])
