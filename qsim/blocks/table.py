"""The page of recipes, `docs/block-recipes.md`: the order of operations of each, and its effect on Gaussian blocks."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from qsim.blocks.formats import block_formats
from qsim.blocks.gaussian import clipped_maxima, judge
from qsim.blocks.moments import outcomes
from qsim.blocks.recipes import STATUSES, Recipe, get_recipe, recipes
from qsim.blocks.scales import RULES, fits
from qsim.formats import Grid
from qsim.rounding import parse_mode

__all__ = ["Row", "orders", "page", "rows"]

TENSOR = 4.96875
"""The maximum of the tensor of sigma 1: that of some 10^6 normal numbers, and no 3, 7 or 21 times a power of two."""

SAMPLE = 1 << 14
"""Blocks that are sampled of a recipe which looks at more than the maximum of a block."""

HEADS = (
    "recipe", "rounding", "clips, of all maxima", "clips, Gaussian", "bias", "variance", "shrinks", "clips, /50", "bias, /50",
    "variance, /50", "after 64", "bias, Laplace", "variance, Laplace", "unbiased",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Row:
    """Hold one line of the table: a recipe with one rounding of its elements."""

    recipe: Recipe
    mode: str

    def cells(self) -> tuple[str, ...]:
        """Return the cells, as texts."""
        clip, unbiased = self._maxima()
        stochastic = parse_mode(self.mode).stochastic
        figures: list[str] = []
        left = ""
        for sigma in (1.0, 0.02):
            tensor = TENSOR * sigma if self.recipe.format.tensor_scale else None
            if self.recipe.choose:
                bias, variance, shrinks, error = _sampled(self.recipe, self.mode, sigma)
                clipped = "-"
                more = f" ± {1e3 * error:.2g}"
            else:
                found = judge(self.recipe, self.mode, sigma=sigma, tensor=tensor)
                bias, variance, shrinks, more = found.bias, found.variance, found.shrinkage, ""
                clipped = f"{100 * found.clipped:.1f} %"
                if stochastic and unbiased == "yes" and bias > 1e-10:
                    unbiased = "no: the scale that is stored is not the one that is divided by"
            figures += [clipped, f"{_small(1e3 * bias)}{more}", _small(1e3 * variance)]
            if sigma == 1.0:
                figures.append(_small(1e3 * shrinks))
                left = _small(1e3 * (bias + variance / 64))
        return (self.recipe.name, self.mode, clip, *figures, left, *self._heavy(), unbiased)

    def _heavy(self) -> tuple[str, str]:
        """Return bias and variance where the tails are heavier."""
        if self.recipe.choose:
            return "-", "-"
        tensor = 3 * TENSOR if self.recipe.format.tensor_scale else None
        found = judge(self.recipe, self.mode, tensor=tensor, tails="laplace")
        return _small(1e3 * found.bias), _small(1e3 * found.variance)

    def _maxima(self) -> tuple[str, str]:
        """Return the share of maxima that clip, and whether SR is unbiased, or the smallest block that refutes it."""
        stochastic = parse_mode(self.mode).stochastic
        if self.recipe.choose:
            return "-", "no: the choice" if stochastic else ""
        tensor = TENSOR if self.recipe.format.tensor_scale else None
        count, of, example = clipped_maxima(self.recipe, tensor=tensor)
        share = f"{100 * count / of:.1f} %"
        if not stochastic:
            return share, ""
        if example is None:
            return share, "yes"
        where = f", of {tensor:g}" if tensor is not None else ""
        return share, f"no: {example:g}{where} becomes {_becomes(self.recipe, example, tensor):.6g}"


def _becomes(recipe: Recipe, maximum: float, tensor: float | None) -> float:
    """Return the mean of SR of the maximum of a block."""
    x = np.zeros((2, *recipe.format.size), np.float32)
    x.reshape(2, -1)[:, 0] = maximum, maximum if tensor is None else tensor
    return float(outcomes(x, recipe).mean().reshape(2, -1)[0, 0])


def _small(value: float) -> str:
    """Return a number with three digits, or 0 where it is nothing but rounding."""
    return "0" if abs(value) < 1e-6 else f"{value:.3g}" if abs(value) < 100 else f"{value:.0f}"


def _sampled(recipe: Recipe, mode: str, sigma: float) -> tuple[float, float, float, float]:
    """Return bias, variance, shrinkage and the standard deviation of the bias, of sampled blocks; the choice is made first."""
    rng = np.random.default_rng(0)
    x = (sigma * rng.normal(size=(SAMPLE, *recipe.format.size))).astype(np.float32)
    if recipe.format.tensor_scale:
        x.reshape(-1)[0] = TENSOR * sigma
    found = outcomes(x, recipe, mode)
    wide, mean = x.astype(np.float64), found.mean()
    square = float((wide**2).mean())
    axes = tuple(range(1, x.ndim))
    errors = ((mean - wide) ** 2).mean(axes) / square
    return (
        float(errors.mean()), float(found.variance().mean()) / square, float(((wide - mean) * wide).mean()) / square,
        float(errors.std()) / SAMPLE**0.5,
    )  # fmt: skip


def rows() -> Iterator[Row]:
    """Yield the lines of the table: each scale rule of the MX formats and of NVFP4, and each recipe, to nearest and by SR."""
    for fmt in block_formats().values():
        if len(fmt.size) > 1 or fmt.recipe:
            continue
        for rule in RULES:
            if fits(rule, fmt.scale):
                for mode in ("RNE", "SR"):
                    yield Row(get_recipe(fmt, rule), mode)
    for recipe in recipes().values():
        if len(recipe.format.size) > 1 or recipe.signed_maximum or recipe.input == "bfloat16":
            continue
        yield Row(recipe, recipe.mode)
        if isinstance(recipe.format.element, Grid) and recipe.mode != "SR":
            yield Row(recipe, "SR")


def orders() -> Iterator[str]:
    """Yield a paragraph of Markdown for each recipe: its operations, its source and its status."""
    for recipe in recipes().values():
        yield f"### {recipe.name}\n"
        revision = f", revision {recipe.revision}" if recipe.revision else ""
        yield f"{recipe.source}{revision}. Status: {recipe.status}, {STATUSES[recipe.status]}.\n"
        more = [f"Elements by {recipe.mode}"]
        if recipe.zero != "signed":
            more.append(f"zeros {recipe.zero}")
        if recipe.tops:
            more.append(f"maxima mapped onto {', '.join(f'{top:g}' for top in recipe.tops)}, chosen by {recipe.choose}")
        if recipe.input:
            more.append(f"for {recipe.input} input")
        if recipe.signed_maximum:
            more.append("m has the sign of its element")
        yield "; ".join(more) + f". A NaN or an infinity: {recipe.nonfinite}.\n"
        yield "\n".join(["```", *recipe.steps, *(f"{line}    # decoded" for line in recipe.decode),
                         *(f"{line}    # for the error" for line in recipe.error), "```\n"])  # fmt: skip


INTRODUCTION = f"""# Block formats and their recipes

Generated by `python -m qsim.blocks`. Each recipe is every operation of a package in its order (below), run by NumPy in float32
and held to exact rationals. The table is summed over all bfloat16 numbers, not sampled; rows with ± are recipes that look at
more than a block's maximum, and are sampled ({SAMPLE:,} blocks): the scale is chosen by the recipe's own rounding, before SR.

Elements are normal, of standard deviation 1 and of 1/50, rounded to bfloat16; where there is a scale of the tensor, its maximum
is {TENSOR} standard deviations. With Q the whole rounding, and errors relative to the mean square of x, times 1e-3:

* **bias** E (E Q(x) - x)^2, **variance** E Var Q(x): their sum is the mean squared error. Without random words all is bias.
  **after 64**: what averaging 64 independent roundings leaves, bias + variance / 64.
  **Laplace**: the same where the elements are doubly exponential, of standard deviation 1, in a tensor whose maximum is
  {3 * TENSOR:g}.
* **shrinks** 1 - E x Q(x): positive where the result is shorter along x.
* **clips, of all maxima**: share of the bfloat16 maxima (normal ones; with a scale of the tensor down to a 2^12th of its own)
  that are beyond the largest element times the scale; **clips, Gaussian**: share of the Gaussian blocks.
* **unbiased**: SR has the mean x (to the 2^-32 of its word and float32's rounding of x / s) exactly where nothing clips; else
  the simplest maximum that refutes it.

## Claims in circulation

| claim | verdict |
| --- | --- |
| MXFP4 with SR is unbiased | under `floor` no: 49 % of the maxima clip; under `ceil` and `rceil` yes |
| the factor 3/4 makes clipping impossible under `floor` | yes, over all bfloat16 maxima |
| NVFP4 with SR is unbiased | no: E4M3 rounds half of the scales down, and their blocks clip |
| NVFP4 with scales rounded `up`, or 17/16 larger, and SR is unbiased | yes, over all bfloat16 maxima |
| 4over6 with SR is unbiased, chosen before rounding | no: blocks clip as without it |
| 4over6 with SR is unbiased, chosen after rounding | no: it lengthens x by 0.72 %; products keep an error of 2.1e-4 |
| MS-EDEN with random signs is unbiased | no: it is right along x alone; (4, 1, 0, ...) becomes (85/21, 17/21, 0, ...) |
| nearest rounding shrinks | 1 to 2 % in MXFP4, 0.5 % in NVFP4; but with scales rounded `up` it lengthens by 0.7 % |
| `rceil` is better than `floor`, as it never clips | by the mean squared error of nearest rounding no: 13.3 against 13.2 |

## Published figures of Quartet II, and where they miss

By closed forms over their setting (`tests/test_blocks_quartet.py`) 9.0, 23.5, 9.8 and 7.6 come out as printed, and the products
of 4over6 with SR chosen after rounding, 35.84, 9.11, 2.44 and 0.77, within 0.6 %. These do not:

| figure | printed | exact | |
| --- | --- | --- | --- |
| misalignment of nearest rounding | 0.00790, 0.00792 | 0.00782 | seven standard deviations of their sample; not explained |
| rate of SR | 2.71 bits | 2.705 | two standard deviations |
| product by SR, once | 2.197 bits | 2.196 | likewise; after 1,024: 7.196, as printed |

## The table

"""


def page() -> str:
    """Return the whole page, as Markdown."""
    lines = ["| " + " | ".join(HEADS) + " |", "|" + " --- |" * len(HEADS)]
    lines += ["| " + " | ".join(row.cells()) + " |" for row in rows()]
    return INTRODUCTION + "\n".join(lines) + "\n\n## Orders of operations\n\n" + "\n".join(orders())
