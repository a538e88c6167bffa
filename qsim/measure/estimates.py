"""Estimators that know their own error.

The unit is the independent draw: intervals are over the values |g_k - ref|^2 of independent draws (or batches), never
over the entries of one gradient, which are correlated. `Family` splits one false-alarm rate over all intervals of a report
(Bonferroni), so that all of them hold at once. Intervals are Student's t over the units: exact where these are normal, as sums
over many elements nearly are. A bootstrap would not do: hundreds of intervals at once ask for quantiles near 1 - 10^-6, and
those for ten million resamples of each.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import special

from qsim.underflow import gradual_underflow
from qsim.verdicts import Outcome

__all__ = [
    "Estimate", "Family", "GroupedBias", "Interval", "floor_fit", "judge", "log_slope", "pool",
    "quotient", "ratio", "sample_mean",
]  # fmt: skip

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Estimate:
    """Hold a number with its standard error and the degrees of freedom behind that error."""

    value: float
    error: float
    freedom: float = math.inf


@dataclass(frozen=True, slots=True)
class Interval:
    """Hold an estimate with the interval around it."""

    value: float
    low: float
    high: float

    def scaled(self, factor: float) -> Interval:
        """Return the interval of `factor` (> 0) times the number."""
        return Interval(self.value * factor, self.low * factor, self.high * factor)

    @property
    def half_width(self) -> float:
        """Half the length of the interval."""
        return (self.high - self.low) / 2

    def __str__(self) -> str:
        return f"{self.value:.4g} [{self.low:.4g}, {self.high:.4g}]"


@dataclass(frozen=True, slots=True)
class Family:
    """Hold a simultaneous false-alarm rate and the number of intervals it is split over."""

    rate: float
    size: int

    @gradual_underflow
    def interval(self, estimate: Estimate) -> Interval:
        """Return the estimate -+ t error, with t the 1 - rate / (2 size) quantile of Student's t.

        Where the estimate or its error is no finite number nothing is known: the interval has no ends.
        """
        if not math.isfinite(estimate.value) or not math.isfinite(estimate.error):
            return Interval(estimate.value, -math.inf, math.inf)
        level = 1 - self.rate / (2 * self.size)
        known = math.isfinite(estimate.freedom)
        t = float(special.stdtrit(estimate.freedom, level) if known else special.ndtri(level))
        return Interval(estimate.value, estimate.value - t * estimate.error, estimate.value + t * estimate.error)


@gradual_underflow
def judge(interval: Interval, low: float = -math.inf, high: float = math.inf) -> Outcome:
    """Return held if the whole interval lies in [low, high], refuted if it lies wholly outside, else not decided.

    An interval that is not a number decides nothing.
    """
    if low <= interval.low and interval.high <= high:
        return Outcome.HELD
    if interval.high < low or interval.low > high:
        return Outcome.REFUTED
    return Outcome.NOT_DECIDED


@gradual_underflow
def sample_mean(samples: Floats) -> Estimate:
    """Return the mean of independent samples, with s / sqrt(n) and n - 1 degrees of freedom."""
    n = len(samples)
    return Estimate(float(samples.mean()), float(samples.std(ddof=1)) / math.sqrt(n), n - 1)


@gradual_underflow
def ratio(samples: Floats, reference: Floats) -> Estimate:
    """Return sum(samples) / sum(reference), where theory says that each sample has the mean of its reference.

    The error is that of the mean of the differences, over the mean of the reference: exact when the ratio is 1.
    """
    mean = float(reference.mean())
    difference = sample_mean(samples - reference)
    return Estimate(1 + difference.value / mean, difference.error / mean, difference.freedom)


@gradual_underflow
def log_slope(x: Sequence[float], estimates: Sequence[Estimate]) -> Estimate:
    """Return the slope of log(y) against log(x) by weighted least squares, weights (y / error)^2.

    The estimates are independent, and their relative errors small; the error is that of the weights alone.
    """
    abscissa = np.log(np.asarray(x, np.float64))
    y = np.array([e.value for e in estimates])
    weight = (y / np.array([e.error for e in estimates])) ** 2
    centred = abscissa - (weight * abscissa).sum() / weight.sum()
    spread = float((weight * centred**2).sum())
    value = float((weight * centred * np.log(y)).sum()) / spread
    return Estimate(value, 1 / math.sqrt(spread), _freedom(weight * centred**2 / spread, estimates))


def _freedom(share: Floats, estimates: Sequence[Estimate]) -> float:
    """Return 1 / sum(share^2 / freedom), `share` being of the variance by estimate (Welch and Satterthwaite)."""
    inverse = float((share**2 / np.array([e.freedom for e in estimates])).sum())
    return 1 / inverse if inverse else math.inf


@gradual_underflow
def floor_fit(batches: Sequence[float], estimates: Sequence[Estimate]) -> tuple[Estimate, Estimate]:
    """Return (F, C) of y = F + C / b by weighted least squares: the floor, and the part that averages away."""
    design = np.column_stack([np.ones(len(batches)), 1 / np.asarray(batches, np.float64)])
    y = np.array([e.value for e in estimates])
    weight = 1 / np.array([e.error for e in estimates]) ** 2
    covariance = np.linalg.inv(design.T @ (design * weight[:, None]))
    solution = covariance @ (design.T @ (weight * y))
    freedom = min(e.freedom for e in estimates)
    floor, slope = (Estimate(float(solution[i]), math.sqrt(float(covariance[i, i])), freedom) for i in (0, 1))
    return floor, slope


@gradual_underflow
def pool(estimates: Sequence[Estimate]) -> Estimate:
    """Return the mean of independent estimates of one number, weighted by 1 / error^2.

    Degrees of freedom by Welch and Satterthwaite, 1 / sum(share^2 / freedom).
    """
    weight = np.array([1 / e.error**2 for e in estimates])
    share = weight / weight.sum()
    freedom = _freedom(share, estimates)
    value = float((share * np.array([e.value for e in estimates])).sum())
    return Estimate(value, 1 / math.sqrt(float(weight.sum())), freedom)


@gradual_underflow
def quotient(numerator: Estimate, denominator: Estimate) -> Estimate:
    """Return the quotient of two independent estimates, its error to first order."""
    value = numerator.value / denominator.value
    error = math.hypot(numerator.error, value * denominator.error) / abs(denominator.value)
    return Estimate(value, error, min(numerator.freedom, denominator.freedom))


class GroupedBias:
    """Estimate |E d|^2 from running sums of independent vectors d_j in a few groups.

    The norm of a mean is biased upwards by its noise, E |mean|^2 = |E d|^2 + sum(var) / K, so the products of *different*
    groups are averaged instead: with group means m_1 .. m_G, the estimate is the mean of m_a . m_b over a != b, which
    equals |mean|^2 - sum(var) / K over the groups. Its error is the jackknife's over groups less the part counted twice
    where there is no bias (Efron and Stein 1981): the variance of one product, times 2 / (G (G - 1)).
    """

    def __init__(self, groups: int, size: int) -> None:
        self.sums = np.zeros((groups, size))
        self.counts = np.zeros(groups, np.int64)

    @gradual_underflow
    def add(self, first: int, vectors: Floats) -> None:
        """Add the vectors d_first, d_first + 1, ...; vector j belongs to group j mod G."""
        groups = len(self.counts)
        for position, vector in enumerate(vectors):
            group = (first + position) % groups
            self.sums[group] += vector
            self.counts[group] += 1

    @gradual_underflow
    def squared(self, part: slice = slice(None)) -> Estimate:
        """Return |E d|^2 of the entries `part` of the vectors; every group must hold the same number of vectors."""
        means = self.sums[:, part] / self.counts[:, None]
        gram = means @ means.T
        groups = len(gram)
        off = gram.sum(1) - np.diag(gram)
        total = float(off.sum())
        value = total / (groups * (groups - 1))
        without = (total - 2 * off) / ((groups - 1) * (groups - 2))
        jackknife = (groups - 1) / groups * float(((without - without.mean()) ** 2).sum())
        products = gram[~np.eye(groups, dtype=bool)]
        least = 2 * float(products.var(ddof=1)) / (groups * (groups - 1))  # all there is without a bias
        return Estimate(value, math.sqrt(max(jackknife - least, least)), groups - 1)
