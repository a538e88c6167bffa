"""Exact mean and variance of a rounding by blocks, over all its random words.

Given the scale, which no random word changes, a stochastic rounding takes an element to one of two values, y0 and y1, with
p = P(y1) a multiple of 2^-N for words of N bits. So E = y0 + p (y1 - y0) and Var = p (1 - p) (y1 - y0)^2, rational numbers.
"""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from qsim import arrays
from qsim.blocks.encoded import spread, values_of
from qsim.blocks.formats import BlockFormat
from qsim.blocks.recipes import Recipe
from qsim.blocks.rounding import Rounding
from qsim.errors import InputError
from qsim.formats import Grid
from qsim.rounding import Mode, parse_mode
from qsim.underflow import gradual_underflow

__all__ = ["Outcomes", "expect", "outcomes", "variance"]


@dataclass(frozen=True, slots=True)
class Outcomes:
    """Hold the two values that each element may become, float64, and the probability of the second, a multiple of 2^-N."""

    lower: NDArray[np.float64]
    upper: NDArray[np.float64]
    probability: NDArray[np.float64]

    def mean(self, *, exact: bool = False) -> NDArray[Any]:
        """Return y0 + p (y1 - y0): as float64, or `exact`, as Fractions."""
        lower, upper, p = self._numbers(exact=exact)
        mean: NDArray[Any] = lower + p * (upper - lower)
        return mean

    def variance(self, *, exact: bool = False) -> NDArray[Any]:
        """Return p (1 - p) (y1 - y0)^2: as float64, or `exact`, as Fractions."""
        lower, upper, p = self._numbers(exact=exact)
        gap = upper - lower
        spread_: NDArray[Any] = p * (1 - p) * gap * gap
        return spread_

    def _numbers(self, *, exact: bool) -> tuple[NDArray[Any], NDArray[Any], NDArray[Any]]:
        if not exact:
            return self.lower, self.upper, self.probability
        if not (np.isfinite(self.lower).all() and np.isfinite(self.upper).all()):
            raise InputError("an infinity or a NaN has no exact moments; take those of finite blocks, or exact=False")
        fractions: Any = np.frompyfunc(Fraction, 1, 1)
        return fractions(self.lower), fractions(self.upper), fractions(self.probability)


@gradual_underflow
def outcomes(
    x: ArrayLike,
    recipe: str | Recipe | BlockFormat,
    mode: str | Mode = "SR",
    *,
    sr_bits: int = 32,
    scale_rule: str | None = None,
    axis: int | tuple[int, ...] | None = None,
) -> Outcomes:
    """Return the values that the elements of `x` may become, and how likely they do, in exact arithmetic.

    The modes are SR, and SRA with words of `sr_bits` bits; of a mode without random words both values are the same. A recipe
    that chooses between scales by the error chooses with its own mode, before the stochastic rounding.
    """
    parsed = parse_mode(mode)
    if parsed.stochastic and parsed not in (Mode.SR, Mode.SRA):
        raise InputError(f"moments are those of SR and SRA, and of modes without random words, not of {parsed}")
    if not 1 <= sr_bits <= 32:
        raise InputError(f"sr_bits = {sr_bits} must be 1 to 32, the bits of a random word")
    r = Rounding(x, recipe, None, scale_rule, axis, {})
    _check_grid(r.format, parsed)
    known, _ = r.chosen()
    s = np.asarray(known["s"])
    wide = spread(np.broadcast_to(s, s.shape), r.x.shape, r.axes, r.format.size)
    return outcomes_of(r.scaled(known), wide, r.tensor(known), r.recipe, parsed, sr_bits)


def _check_grid(fmt: BlockFormat, mode: Mode) -> None:
    if mode.stochastic and not isinstance(fmt.element, Grid):
        raise InputError(f"moments of stochastic rounding need evenly spaced values, which {fmt.element} lacks")


def outcomes_of(
    v: NDArray[Any], s: NDArray[Any], tensor: float, recipe: Recipe, mode: Mode, sr_bits: int = 32
) -> Outcomes:
    """Return the outcomes of the numbers `v`, float32 or float64, which are rounded to elements with the scales `s`."""
    fmt = recipe.format
    options = {"saturation": "SatFinite"} if fmt.element.kind == "float" and fmt.element.has_inf else {}

    def rounded(word: int) -> NDArray[Any]:
        if not mode.stochastic:
            q = arrays.quantize(v, fmt.element, mode, **options)  # type: ignore[arg-type]
        else:
            q = arrays.quantize(v, fmt.element, "SRA", sr_bits=sr_bits, rbits=word, **options)  # type: ignore[arg-type]
        return np.asarray(q)

    q0 = rounded(0)
    q1 = rounded((1 << sr_bits) - 1) if mode.stochastic else q0
    with np.errstate(all="ignore"):
        inner = np.abs(q0.astype(np.float64))
        gap = np.abs(q1.astype(np.float64)) - inner
        p = np.where(gap > 0, np.floor(np.ldexp((np.abs(v.astype(np.float64)) - inner) / gap, sr_bits)), 0.0)
    p = np.ldexp(np.where(np.isfinite(p), p, 0.0), -sr_bits)
    y0, y1 = (values_of(q, s, tensor, recipe, fmt, v.dtype).astype(np.float64) for q in (q0, q1))
    return Outcomes(y0, y1, p)


def expect(x: ArrayLike, recipe: str | Recipe | BlockFormat, mode: str | Mode = "SR", **options: Any) -> NDArray[Any]:
    """Return the exact mean of the rounding of `x` over all random words; arguments are those of `outcomes`.

    As float64, rounded a few times, or with `exact=True` as an array of Fractions.
    """
    exact = bool(options.pop("exact", False))
    return outcomes(x, recipe, mode, **options).mean(exact=exact)


def variance(x: ArrayLike, recipe: str | Recipe | BlockFormat, mode: str | Mode = "SR", **options: Any) -> NDArray[Any]:
    """Return the exact variance of the rounding of `x` over all random words; arguments are those of `outcomes`.

    As float64, rounded a few times, or with `exact=True` as an array of Fractions.
    """
    exact = bool(options.pop("exact", False))
    return outcomes(x, recipe, mode, **options).variance(exact=exact)
