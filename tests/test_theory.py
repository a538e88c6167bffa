"""The closed forms, against exact rationals and against the engine's own enumeration."""

from __future__ import annotations

import itertools
from fractions import Fraction

import numpy as np
import pytest

from qsim import theory
from qsim.formats import get_format
from qsim.reference import sr_moments
from qsim.rounding import Quantizer


@pytest.mark.parametrize("name", ["float8_e4m3fn", "e4m0fn", "int4", "float8_e5m2"])
def test_sr_variance_is_that_of_exact_rationals(name):
    """v(x) equals (hi - x)(x - lo) of the reference to rounding, at grid points, midpoints, subnormals and elsewhere."""
    fmt = get_format(name)
    values = fmt.values()
    finite = np.unique(values[np.isfinite(values)])
    x = np.concatenate(
        [finite, (finite[1:] + finite[:-1]) / 2, np.random.default_rng(0).uniform(fmt.min, fmt.max, 200)]
    )
    exact = [float(sr_moments(float(v), fmt)[1]) for v in x]
    # Three operations of float64, each within 2^-53.
    assert np.allclose(theory.sr_variance(x, Quantizer(fmt, "SR")), exact, rtol=4 * 2.0**-53, atol=0)


def test_beyond_the_range_nothing_varies():
    """A value beyond the largest rounds to it always, so its variance is zero."""
    assert theory.sr_variance(np.array([500.0, -1e9]), Quantizer("e4m3", "SR")).tolist() == [0, 0]


def test_the_range_is_that_of_the_scaled_grid():
    """Under a scale the variance vanishes beyond the scaled largest value, and not below it."""
    q = Quantizer("int4", "SR")
    assert theory.sr_variance(np.array([13.0, 14.5, -15.0, -16.5]), q, 2.0).tolist() == [1, 0, 1, 0]
    assert theory.sr_variance(np.array([1.7, 1.8]), q, 0.25)[1] == 0
    assert theory.sr_variance(np.array([1.7, 1.8]), q, 0.25)[0] > 0


def test_a_scale_scales_the_grid():
    """The neighbours under a scale are the scaled neighbours."""
    lo, hi = theory.interval_around(np.array([0.3, -0.3]), Quantizer("int4", "SR"), 0.25)
    assert lo.tolist() == [0.25, -0.5]
    assert hi.tolist() == [0.5, -0.25]


def test_per_sample_variance_is_that_of_all_outcomes():
    """A-T1 for one sample equals the variance over all outcomes of both roundings, enumerated in rationals."""
    q = Quantizer("e4m0fn", "SR")
    delta, x = [Fraction(3, 8), Fraction(-5, 16)], [Fraction(5, 4), Fraction(0), Fraction(3, 32)]
    operands = [*delta, *x]
    outcomes = []
    for operand in operands:
        lo, hi = (Fraction(v) for v in q.format.neighbours(operand))
        up = (operand - lo) / (hi - lo) if hi > lo else Fraction(0)
        outcomes.append([(lo, 1 - up), (hi, up)])
    variance = Fraction(0)
    for choice in itertools.product(*outcomes):
        p = Fraction(1)
        for _, probability in choice:
            p *= probability
        d, v = [value for value, _ in choice[:2]], [value for value, _ in choice[2:]]
        variance += p * sum(
            (a * b - e * f) ** 2 for a, e in zip(d, delta, strict=True) for b, f in zip(v, x, strict=True)
        )
    errors, inputs = (np.array([[float(value) for value in part]]) for part in (delta, x))
    found = theory.per_sample_variance(errors, inputs, theory.sr_variance(errors, q), theory.sr_variance(inputs, q))
    assert found[0] == pytest.approx(float(variance), rel=1e-14)


def test_shared_products_are_the_mean_over_the_samples():
    """M is the mean over the samples of the outer product of error, mask and input."""
    rng = np.random.default_rng(1)
    e, m, x = rng.standard_normal((5, 2)), rng.integers(0, 2, (5, 3)).astype(float), rng.standard_normal((5, 4))
    by_hand = sum(np.einsum("i,j,k->ijk", e[s], m[s], x[s]) for s in range(5)) / 5
    assert np.allclose(theory.mean_of_shared_products(e, m, x), by_hand, rtol=1e-13)


def test_a_shared_scalar_weight_does_not_average():
    """A-T2 in one dimension: all outcomes of one shared weight give (mean x^2)^2 v(w), whatever the batch size."""
    q, w = Quantizer("int4", "SR"), 2.25
    for b in (1, 4, 64):
        x = np.linspace(-1, 2, b)
        grads = np.array([np.mean((outcome * x - 0.5) * x) for outcome in (2.0, 3.0)])
        p = np.array([0.75, 0.25])
        variance = p @ grads**2 - (p @ grads) ** 2
        assert theory.shared_scalar_variance(x, float(theory.sr_variance(np.array(w), q))) == pytest.approx(variance)


def test_a_bit_costs_between_one_and_the_noise_ratio():
    """b'/b runs from 1, where sampling noise rules, to the ratio of the noises, where there is none else."""
    assert theory.batch_ratio(0.0, 4.0, 1.0) == 4
    assert theory.batch_ratio(1e12, 4.0, 1.0) == pytest.approx(1)


def test_sampling_variance_is_that_of_the_outer_products():
    """sigma^2 equals the mean squared distance of the samples' gradients from their mean."""
    rng = np.random.default_rng(2)
    e, x = rng.standard_normal((30, 3)), rng.standard_normal((30, 4))
    grads = np.einsum("si,sj->sij", e, x)
    by_hand = ((grads - grads.mean(0)) ** 2).sum((1, 2)).mean()
    assert theory.sampling_variance(e, x) == pytest.approx(by_hand, rel=1e-12)
