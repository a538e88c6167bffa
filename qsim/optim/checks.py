"""Checks of the arguments of optimizers: rates must be numbers in range, states must be of this optimizer."""

from __future__ import annotations

import math
from numbers import Real
from typing import Any

import numpy as np

from qsim.errors import InputError

__all__ = ["at_least_zero", "check_parts", "next_step"]


def at_least_zero(name: str, value: Any) -> float:
    """Return a finite number of at least 0 as a float; refuse all else."""
    if not isinstance(value, Real) or not 0 <= float(value) < math.inf:
        raise InputError(f"{name} = {value!r} must be a finite number of at least 0")
    return float(value)


def check_parts(what: str, state: Any, *names: str) -> None:
    """Refuse a state that is no dict of exactly these parts."""
    if not isinstance(state, dict) or state.keys() != set(names):
        found = sorted(map(str, state)) if isinstance(state, dict) else type(state).__name__
        raise InputError(
            f"the state of {what} has the parts {sorted(names)}, not {found}: it is that of something else; begin with init"
        )


def next_step(what: str, state: Any, *parts: str) -> int:
    """Return the number of the step that a state with a "step" and these other parts is at, from 0."""
    check_parts(what, state, "step", *parts)
    step = np.asarray(state["step"])
    if step.ndim or step.dtype.kind not in "iu":
        raise InputError(f"the state of {what} has step = {state['step']!r}, which is no integer; begin with init")
    return int(step)
