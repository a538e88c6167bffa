"""Measurements that know their own error: of numbers, and of gradients."""

from __future__ import annotations

from qsim.measure.estimates import (
    Estimate,
    Family,
    GroupedBias,
    Interval,
    floor_fit,
    judge,
    log_slope,
    pool,
    quotient,
    ratio,
    sample_mean,
)
from qsim.measure.gradients import GradientStatistics, ParameterStatistics, gradient_statistics

__all__ = [
    "Estimate", "Family", "GradientStatistics", "GroupedBias", "Interval", "ParameterStatistics", "floor_fit",
    "gradient_statistics", "judge", "log_slope", "pool", "quotient", "ratio", "sample_mean",
]  # fmt: skip
