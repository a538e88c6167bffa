"""The effect of a recipe on Gaussian blocks: bias, variance and clipping, summed over all bfloat16 numbers, not sampled.

The elements of a block are independent, normal (or of Laplace's distribution, whose tails are heavier), rounded to bfloat16.
With p(k) the probability of the magnitude k, F its sum up to k, and n elements, the expectation of a sum over the block of
g(element, maximum) is

    n sum_m [ p(m) F(m)^(n-1) g(m, m) + sum_(k < m) p(k) (F(m)^(n-1) - F(m-)^(n-1)) g(k, m) ]

over the bfloat16 maxima m, and g, the squared bias or the variance of an element, comes from `qsim.blocks.moments`. What is
left out has a probability, times its relative size, below 1e-9.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from qsim.blocks.compare import bfloat16_maxima, simplicity
from qsim.blocks.encoded import values_of
from qsim.blocks.formats import BlockFormat
from qsim.blocks.moments import outcomes_of
from qsim.blocks.program import Arrays
from qsim.blocks.recipes import Recipe, get_recipe
from qsim.blocks.rounding import scales_by
from qsim.errors import InputError
from qsim.rounding import Mode, parse_mode
from qsim.underflow import gradual_underflow

__all__ = ["Judgement", "clipped_maxima", "judge"]

LEAST = 2.0**-14
"""Elements below this share of sigma count as zeros of no error."""


@dataclass(frozen=True, slots=True)
class Judgement:
    """Hold the effect of a recipe on Gaussian blocks, relative to the mean square of the elements."""

    recipe: Recipe
    mode: Mode
    sigma: float
    #: The maximum of the tensor; `None` where there is no scale of it.
    tensor: float | None
    #: E (E Q(x) - x)^2 / E x^2.
    bias: float
    #: E Var Q(x) / E x^2.
    variance: float
    #: 1 - E x Q(x) / E x^2: how much shorter the result is along x.
    shrinkage: float
    #: Share of the blocks whose maximum is beyond the largest element.
    clipped: float

    @property
    def error(self) -> float:
        """The mean squared error, relative."""
        return self.bias + self.variance

    def after(self, steps: int) -> float:
        """Return the error that averaging independent roundings leaves: the bias, and the variance over their number."""
        return self.bias + self.variance / steps


@gradual_underflow
def judge(
    recipe: str | Recipe | BlockFormat,
    mode: str | Mode | None = None,
    *,
    sigma: float = 1.0,
    tensor: float | None = None,
    scale_rule: str | None = None,
    tails: Literal["normal", "laplace"] = "normal",
) -> Judgement:
    """Return bias, variance and clipping of a recipe on random blocks of standard deviation `sigma`, in bfloat16.

    The elements are normal, or with `tails` = "laplace" doubly exponential.
    `mode` rounds the elements, by default the recipe's own; SR is exact over all its words of 32 bits. `tensor` is the maximum
    of the tensor where the recipe uses it: all elements are at most that. Recipes that choose a scale by the error of a block
    are refused, since their result depends on all elements.
    """
    own = get_recipe(recipe, scale_rule)
    if own.choose or own.signed_maximum:
        raise InputError(f"{own} looks at more of a block than its maximum, which is what is summed over")
    if own.format.tensor_scale and tensor is None:
        raise InputError(f"{own} needs tensor, the maximum of the tensor")
    parsed = parse_mode(own.mode if mode is None else mode)
    n = math.prod(own.format.size)
    if tails not in ("normal", "laplace"):
        raise InputError(f"tails = {tails!r} must be 'normal' or 'laplace'")
    x, p = _magnitudes(sigma, tensor if own.format.tensor_scale else None, tails)
    above = np.cumsum(p)
    most = above ** (n - 1)
    less = np.concatenate([[0.0], most[:-1]])
    of_maximum = above**n - np.concatenate([[0.0], above[:-1]]) ** n
    places = np.flatnonzero(of_maximum > 1e-13)
    if not len(places):
        raise InputError("sigma is beyond the range of bfloat16")
    bias = spread = along = 0.0
    m = x[places]
    with np.errstate(all="ignore"):
        known = scales_by(own, m, np.float32(tensor if tensor is not None else m.max()))
    for begin in range(0, len(places), 32):
        some = slice(begin, begin + 32)
        at, maxima = places[some], m[some]
        block = {name: value[some, None] if np.ndim(value) else value for name, value in known.items()}
        elements = np.broadcast_to(x[None, :], (len(at), len(x)))
        inside = np.arange(len(x))[None, :] <= at[:, None]
        elements = np.where(inside, elements, maxima[:, None]).astype(np.float32)
        weight = np.where(inside, p[None, :] * (most[at] - less[at])[:, None], 0.0)
        weight[np.arange(len(at)), at] = p[at] * most[at]
        here: dict[str, Any] = dict(block, x=elements)
        with np.errstate(all="ignore"):
            own.program.run(Arrays(own.format, np.dtype(np.float32)), here, "element")
        v = np.ascontiguousarray(np.broadcast_to(here["v"], elements.shape), np.float32)
        s = np.broadcast_to(np.asarray(block["s"], np.float32), elements.shape)
        T = float(known["T"]) if own.format.tensor_scale else 1.0
        found = outcomes_of(v, s, T, own, parsed)
        mean, exact = found.mean(), elements.astype(np.float64)
        bias += float((weight * (mean - exact) ** 2).sum())
        spread += float((weight * found.variance()).sum())
        along += float((weight * (exact - mean) * exact).sum())
    square = float((p * x.astype(np.float64) ** 2).sum())
    clipped = of_maximum[places][clips(own, m, known)].sum()
    return Judgement(
        own, parsed, sigma, tensor, bias / square, spread / square, along / square, float(clipped)
    )  # fmt: skip


def _magnitudes(sigma: float, tensor: float | None, tails: str) -> tuple[NDArray[np.float32], NDArray[np.float64]]:
    """Return the magnitudes of random bfloat16 numbers, in ascending order, and their probabilities."""
    from scipy.special import erf, erfc

    every = bfloat16_maxima()
    wide = every.astype(np.float64)
    end = (9.5 if tails == "normal" else 32) * sigma
    some = every[(wide >= LEAST * sigma) & (wide <= min(end, tensor if tensor is not None else math.inf))]
    x = np.concatenate([np.zeros(1, np.float32), some])
    points = x.astype(np.float64)
    edges = np.concatenate([[0.0], (points[1:] + points[:-1]) / 2, [math.inf if tensor is None else tensor]])
    if tails == "laplace":
        p = -np.diff(np.exp(-math.sqrt(2) * edges / sigma))
    else:
        scaled = edges / (sigma * math.sqrt(2))
        p = np.where(scaled[1:] < 1, np.diff(erf(scaled)), -np.diff(erfc(scaled)))
    return x, p / p.sum()


def clips(recipe: Recipe, m: NDArray[Any], known: dict[str, Any]) -> NDArray[np.bool_]:
    """Return for which maxima the largest element stands for less, by more than the roundings of float32 explain."""
    s = np.ascontiguousarray(np.broadcast_to(known["s"], m.shape), np.float32)
    T = float(known["T"]) if recipe.format.tensor_scale else 1.0
    largest = np.full(m.shape, float(recipe.format.largest), np.float32)
    reached = values_of(largest, s, T, recipe, recipe.format, np.dtype(np.float32)).astype(np.float64)
    beyond: NDArray[np.bool_] = m.astype(np.float64) > reached * (1 + 2.0**-20)
    return beyond


@gradual_underflow
def clipped_maxima(recipe: str | Recipe | BlockFormat, *, tensor: float | None = None) -> tuple[int, int, float | None]:
    """Return how many bfloat16 maxima clip, of how many, and the simplest of them; those of blocks with a normal scale.

    All normal maxima are enumerated, up to `tensor` and down to a 2^12th of it where there is a scale of the tensor.
    """
    own = get_recipe(recipe)
    m = bfloat16_maxima(math.inf if tensor is None else tensor)
    m = m[m >= (2.0**-120 if tensor is None else tensor * 2.0**-12)]
    m = m[m <= 2.0**120]
    with np.errstate(all="ignore"):
        known = scales_by(own, m, np.float32(tensor if tensor is not None else m.max()))
    hit = m[clips(own, m, known)]
    example = float(hit[int(np.argmin(simplicity(hit)))]) if len(hit) else None
    return len(hit), len(m), example
