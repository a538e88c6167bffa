"""Estimators: right on known laws, and their intervals miss as rarely as they say."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats

from qsim.measure import (
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
from qsim.verdicts import Outcome


def misses_allowed(rate: float, trials: int) -> int:
    """Return the number of misses that a true rate of at most `rate` exceeds with probability below 1e-6."""
    return int(stats.binom.ppf(1 - 1e-6, trials, rate))


def test_an_interval_misses_as_rarely_as_it_says():
    """The t interval of a mean of eight normals misses in at most its stated share of 4,000 trials."""
    rng = np.random.default_rng(0)
    family = Family(rate=0.05, size=1)
    missed = 0
    for _ in range(4000):
        i = family.interval(sample_mean(rng.normal(3, 2, 8)))
        missed += not i.low <= 3 <= i.high
    assert missed <= misses_allowed(0.05, 4000)
    assert missed >= 4000 * 0.05 / 2  # and it is no wider than it must be


def test_a_family_of_intervals_misses_as_rarely_as_one():
    """Of 20 intervals at a joint rate of 0.1, one or more miss in at most that share of 1,000 trials."""
    rng = np.random.default_rng(1)
    family = Family(rate=0.1, size=20)
    missed = 0
    for _ in range(1000):
        intervals = [family.interval(sample_mean(rng.normal(0, 1, 10))) for _ in range(20)]
        missed += any(i.low > 0 or i.high < 0 for i in intervals)
    assert missed <= misses_allowed(0.1, 1000)


def test_bias_has_its_noise_taken_out():
    """The estimate of |E d|^2 is unbiased although |mean|^2 is not, and its interval covers, with and without a bias."""
    rng = np.random.default_rng(2)
    for true in (np.zeros(40), np.full(40, 0.1)):
        estimates = []
        for _ in range(300):
            bias = GroupedBias(groups=16, size=40)
            bias.add(0, true + rng.standard_normal((64, 40)))
            estimates.append(bias.squared())
        values = np.array([e.value for e in estimates])
        target = float(true @ true)
        assert abs(values.mean() - target) < 5 * values.std(ddof=1) / math.sqrt(300)
        assert 5 * values.std(ddof=1) / math.sqrt(300) < 40 / 64  # the naive |mean|^2 would be off by far more
        # 300 trials know their deviation to 4 %; the error is right on the average over trials, to that and 1/G.
        assert np.sqrt(np.mean([e.error**2 for e in estimates])) / values.std(ddof=1) == pytest.approx(1, abs=0.2)


def test_bias_is_the_mean_product_of_different_groups():
    """With one vector a group the estimate is |mean|^2 - sum(var)/K, exactly."""
    d = np.random.default_rng(3).standard_normal((10, 6))
    bias = GroupedBias(groups=10, size=6)
    bias.add(0, d)
    by_hand = float(d.mean(0) @ d.mean(0)) - d.var(0, ddof=1).sum() / 10
    assert bias.squared().value == pytest.approx(by_hand, rel=1e-12)
    assert bias.squared(slice(0, 3)).value == pytest.approx(
        float(d.mean(0)[:3] @ d.mean(0)[:3]) - d.var(0, ddof=1)[:3].sum() / 10
    )


def test_slope_and_its_error_are_those_of_a_power_law():
    """Points on y = 3 x^-1.5 with known noise give that slope, within its own error, as often as it says."""
    rng = np.random.default_rng(4)
    x = [1.0, 2.0, 4.0, 8.0, 16.0]
    z = []
    for _ in range(500):
        y = [3 * v**-1.5 for v in x]
        noisy = [Estimate(v * (1 + 0.01 * rng.standard_normal()), 0.01 * v) for v in y]
        slope = log_slope(x, noisy)
        z.append((slope.value + 1.5) / slope.error)
    assert abs(np.mean(z)) < 5 / math.sqrt(500)
    assert np.std(z) == pytest.approx(1, abs=5 / math.sqrt(2 * 500))


def test_a_floor_is_found_where_there_is_one():
    """The fit of F + C/b returns both, with errors that match their spread."""
    rng = np.random.default_rng(5)
    b = [1, 2, 4, 8, 16, 32, 64]
    z = []
    for _ in range(500):
        noisy = [Estimate((0.5 + 3 / v) * (1 + 0.02 * rng.standard_normal()), 0.02 * (0.5 + 3 / v)) for v in b]
        z.append((floor_fit(b, noisy)[0].value - 0.5) / floor_fit(b, noisy)[0].error)
    assert abs(np.mean(z)) < 0.25  # weights from noisy values bias the fit by a fraction of its error
    assert np.std(z) == pytest.approx(1, abs=5 / math.sqrt(2 * 500))


def test_a_pool_weighs_by_precision():
    """Pooling two estimates gives the inverse-variance mean, its error, and Welch's degrees of freedom."""
    pooled = pool([Estimate(1.0, 1.0, 9), Estimate(2.0, 0.5, 9)])
    assert pooled.value == pytest.approx((1 * 1 + 2 * 4) / 5)
    assert pooled.error == pytest.approx(1 / math.sqrt(5))
    assert pooled.freedom == pytest.approx(9 / (0.2**2 + 0.8**2))


def test_ratio_and_quotient():
    """A ratio to predictions takes out what the predictions explain; a quotient propagates both errors."""
    rng = np.random.default_rng(6)
    reference = rng.uniform(1, 100, 50)
    assert ratio(reference, reference) == Estimate(1.0, 0.0, 49)
    q = quotient(Estimate(6.0, 0.3), Estimate(2.0, 0.2))
    assert q.value == 3
    assert q.error == pytest.approx(3 * math.hypot(0.05, 0.1))


def test_degrees_of_freedom_are_those_of_the_units():
    """A bias knows its groups, a slope and a pool their weakest parts by share, a fit and a quotient the weakest part."""
    bias = GroupedBias(groups=12, size=3)
    bias.add(0, np.random.default_rng(8).standard_normal((24, 3)))
    assert bias.squared().freedom == 11
    few, many = Estimate(2.0, 0.1, 5), Estimate(1.0, 0.05, 100)
    assert quotient(few, many).freedom == 5
    assert [e.freedom for e in floor_fit([1, 2, 4], [few, many, many])] == [5, 5]
    # Two points, equal relative errors: each has half of the slope's variance.
    assert log_slope([1, 2], [few, many]).freedom == pytest.approx(1 / (0.25 / 5 + 0.25 / 100))
    assert sample_mean(np.arange(7.0)).freedom == 6


@pytest.mark.parametrize(
    "estimate",
    [Estimate(math.nan, 1.0, 5), Estimate(math.inf, 1.0, 5), Estimate(1.0, math.nan, 5), Estimate(1.0, math.inf, 5)],
)
def test_what_is_no_number_has_an_interval_without_ends(estimate):
    """Nothing is known from an infinite or NaN estimate, or from one whose error is; it decides no claim."""
    interval = Family(1e-3, 1).interval(estimate)
    assert (interval.low, interval.high) == (-math.inf, math.inf)
    assert judge(interval, 0, 1) is judge(interval, low=0) is judge(interval, high=1) is Outcome.NOT_DECIDED


@pytest.mark.parametrize(
    ("low", "high", "outcome"),
    [(0.1, 0.9, Outcome.HELD), (1.1, 1.2, Outcome.REFUTED), (-0.5, -0.1, Outcome.REFUTED), (0.9, 1.1, Outcome.NOT_DECIDED),
     (math.nan, math.nan, Outcome.NOT_DECIDED)],
)  # fmt: skip
def test_a_claim_is_judged_by_the_whole_interval(low, high, outcome):
    """Held inside the margin [0, 1], refuted wholly outside, else not decided."""
    assert judge(Interval((low + high) / 2, low, high), 0, 1) is outcome
