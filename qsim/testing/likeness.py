"""The roundings that go away from zero as often as was seen, where the one that was asked for does not."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator

import numpy as np
from numpy.typing import NDArray

from qsim.explain.faults.words import ceil_of
from qsim.explain.oracle import Places, away, first_word, place
from qsim.rounding import LIMITED, Mode
from qsim.testing.observe import Flags, Task

__all__ = ["as_if"]

Floats = NDArray[np.float64]

TOLD = 3
"""How many likenesses are told."""


def as_if(
    task: Task, x: Floats, ups: Floats, n: Floats, free: Flags, fits: Callable[[Floats], bool], alpha: float
) -> list[str]:  # fmt: skip
    """Return the other roundings of the numbers `x` that explain how often, of `n` times, each went away from zero: `ups`.

    `free` marks the numbers with two outcomes. A rounding without random words does if it goes always, or never, where the
    outcome was always the same; one with random words if its probabilities fit, by the tests that refuted those asked for, and
    are not less likely by the rate `alpha` than the best ones. Roundings that do not differ at any of the numbers are one.
    """
    if not free.any():
        return []
    at = place(task.fmt, x)
    always, gone = (ups == 0) | (ups == n), ups > 0
    found: list[str] = []
    likely: dict[str, float] = {}
    asked = _probability(task.mode, task.n, at)
    known: dict[bytes, str] = {}
    for name, p in _others(task, at):
        if ((p == 0) | (p == 1)).all():
            if (always & (gone == (p > 0)))[free].all():
                found.append(f"{name}: no random word is used")
            continue
        key = p[free].tobytes()
        if key in known:
            if known[key] in likely:
                joined = f"{known[key]}, or {name}"
                likely[joined] = likely.pop(known[key])
                known[key] = joined
            continue
        known[key] = name
        if not np.array_equal(p[free], asked[free]) and fits(p):
            with np.errstate(divide="ignore", invalid="ignore"):
                log = np.where(ups, ups * np.log(p), 0.0) + np.where(n - ups, (n - ups) * np.log1p(-p), 0.0)
            likely[name] = float(log[free].sum())
    best = max(likely.values(), default=0.0)
    near = [name for name, log in likely.items() if math.isfinite(log) and log >= best + math.log(alpha)]
    return found + ([", or ".join(near[:TOLD])] if near else [])


def _others(task: Task, at: Places) -> Iterator[tuple[str, Floats]]:
    """Yield the roundings that may be there by mistake, by name, each with its probabilities."""
    widths = range(1, min(task.n, 32) + 1)
    for mode in Mode:
        if mode in (Mode.THR, Mode.SR):
            continue
        for width in widths if mode in LIMITED else (int(mode.stochastic),):
            bits = f" of {width} random bits" if mode in LIMITED else ""
            p = _probability(mode, width, at)
            yield f"rounds by {mode} ({mode.value}){bits}", p
            if mode in LIMITED and width > 1 and task.mode in (mode, Mode.SR):
                whole = 1 << width
                without = np.minimum(whole * p / (whole - 1), 1.0)
                yield f"words 1 .. {whole - 1}, as of a shift register that has no 0, by {mode}{bits}", without
    for k in widths:
        p = np.asarray(ceil_of(at.nu, k) / 2**k, np.float64)
        yield f"goes away iff u < nu, u of {k} random bits: with the probability ceil(nu 2^{k}) / 2^{k}", p


def _probability(mode: Mode, width: int, at: Places) -> Floats:
    """Return the probabilities to go away from zero; of a rounding without random words 0 and 1."""
    if not mode.stochastic:
        return away(mode, 0.0, at).astype(np.float64)
    whole = 1 << width
    return np.asarray((whole - first_word(mode, width, at.nu)) / whole, np.float64)
