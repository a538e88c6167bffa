"""The exact bias and variance of somebody's stochastic quantizer, number by number, beside those of its mode."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import numpy as np
from numpy.typing import NDArray

from qsim.explain.picture import number
from qsim.underflow import gradual_underflow

__all__ = ["Bias", "Cell", "Moments", "count_cells"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Cell:
    """Hold the mean and the variance of one number's results over all random words, all of it exact."""

    x: float
    #: The results that x may have: the neighbour toward zero, and the one away from it.
    inner: float
    outer: float
    #: Of x.
    nu: Fraction
    #: Of the quantizer's results; `None` where one of them is no finite number.
    mean: Fraction | None
    variance: Fraction | None
    #: Of the mode's results.
    mode_mean: Fraction
    mode_variance: Fraction

    @property
    @gradual_underflow
    def bias(self) -> Fraction | None:
        """The bias in intervals, away from zero: (mean - x) / (outer - inner)."""
        return None if self.mean is None else self._intervals(self.mean)

    @property
    @gradual_underflow
    def mode_bias(self) -> Fraction:
        """That of the mode."""
        return self._intervals(self.mode_mean)

    def _intervals(self, mean: Fraction) -> Fraction:
        return (mean - Fraction(self.x)) / (Fraction(self.outer) - Fraction(self.inner))


@dataclass(frozen=True, slots=True, kw_only=True)
class Bias:
    """Hold the bias of a quantizer over the numbers that were tried, in intervals; positive is away from zero."""

    #: The mean over the numbers that are no values of the format; the bias that is furthest from 0, and where it is.
    mean: Fraction
    worst: Fraction
    at: float
    #: The mean toward the greater neighbour in place of the outer one.
    upward: Fraction
    #: The same of the mode.
    mode_mean: Fraction
    mode_worst: Fraction
    mode_at: float

    @gradual_underflow
    def __str__(self) -> str:
        up = "" if abs(self.upward) <= abs(self.mean) else f" ({_signed(self.upward)} toward the greater neighbour)"
        yours = f"{_signed(self.mean)} of an interval away from zero{up}, at worst {_signed(self.worst)} at {number(self.at)}"
        modes = f"{_signed(self.mode_mean)}, at worst {_signed(self.mode_worst)} at {number(self.mode_at)}"
        return f"your bias: {yours if self.worst else 'none'}; the mode's: {modes if self.mode_worst else 'none'}"


def _signed(share: Fraction) -> str:
    return "0" if not share else f"{float(share):+.3g}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Moments:
    """Hold the exact mean and variance of a stochastic quantizer at each of many numbers between two values of the format.

    `rows` is the table; iterating gives its cells.
    """

    cells: tuple[Cell, ...]
    #: How the words that lead to each result were counted.
    says: str

    def __iter__(self) -> Iterator[Cell]:
        return iter(self.cells)

    def __len__(self) -> int:
        return len(self.cells)

    @gradual_underflow
    def rows(self) -> list[dict[str, Any]]:
        """Return the table as records, for `pandas.DataFrame`: the fields of `Cell`, and its biases, as exact fractions."""
        names = ("x", "inner", "outer", "nu", "mean", "variance", "bias", "mode_mean", "mode_variance", "mode_bias")
        return [{name: getattr(cell, name) for name in names} for cell in self.cells]

    @property
    @gradual_underflow
    def bias(self) -> Bias | None:
        """The bias over all numbers; `None` where a result is no finite number."""
        biases = [cell.bias for cell in self.cells]
        found = [bias for bias in biases if bias is not None]
        if not found or len(found) < len(biases):
            return None
        modes = [cell.mode_bias for cell in self.cells]
        worst, mode_worst = (self._furthest(many) for many in (found, modes))
        between = [i for i, cell in enumerate(self.cells) if cell.nu]
        signs = [-1 if cell.outer < cell.inner else 1 for cell in self.cells]
        return Bias(
            mean=_mean([found[i] for i in between]), worst=found[worst], at=self.cells[worst].x,
            upward=_mean([signs[i] * found[i] for i in between]), mode_mean=_mean([modes[i] for i in between]),
            mode_worst=modes[mode_worst], mode_at=self.cells[mode_worst].x,
        )  # fmt: skip

    def _furthest(self, biases: Sequence[Fraction]) -> int:
        """Return the index of the bias furthest from 0; of several the one of the simplest number."""

        def plain(x: float) -> tuple[int, float, bool]:
            over, under = abs(x).as_integer_ratio()
            return over.bit_length() + under.bit_length(), abs(math.log2(abs(x))) if x else 0.0, x < 0

        most = max(map(abs, biases))
        return min((i for i, bias in enumerate(biases) if abs(bias) == most), key=lambda i: plain(self.cells[i].x))


def _mean(many: Sequence[Fraction]) -> Fraction:
    return sum(many, Fraction(0)) / max(len(many), 1)


def count_cells(
    x: NDArray[np.float64],
    nu: Sequence[Fraction],
    ends: tuple[NDArray[np.float64], NDArray[np.float64]],
    results: Sequence[dict[float, int]],
    away: Sequence[int],
    whole: int,
    says: str,
) -> Moments:
    """Return the moments of numbers of whose `results` each comes from so many of the `whole` number of words.

    By the mode `away` words lead to the outer one of the `ends`.
    """
    cells = []
    for i, (value, inner, outer) in enumerate(zip(x.tolist(), *(end.tolist() for end in ends), strict=True)):
        share = Fraction(away[i], whole)
        gap = Fraction(outer) - Fraction(inner)
        mean, variance = _moments(results[i], whole)
        cells.append(Cell(
            x=value, inner=inner, outer=outer, nu=nu[i], mean=mean, variance=variance,
            mode_mean=Fraction(inner) + share * gap, mode_variance=share * (1 - share) * gap**2,
        ))  # fmt: skip
    return Moments(cells=tuple(cells), says=says)


def _moments(results: dict[float, int], whole: int) -> tuple[Fraction | None, Fraction | None]:
    """Return the mean and the variance of results that come so often each."""
    if not all(map(math.isfinite, results)):
        return None, None
    exact = {Fraction(value): count for value, count in results.items()}
    mean = sum((value * count for value, count in exact.items()), Fraction(0)) / whole
    return mean, sum(((value - mean) ** 2 * count for value, count in exact.items()), Fraction(0)) / whole
