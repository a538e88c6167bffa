"""Means and variances of roundings by blocks equal those over every random word."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest

import qsim
from qsim import InputError
from qsim.blocks import expect, outcomes, recipes, variance


@pytest.mark.parametrize(
    ("name", "rule"),
    [
        ("mxfp4_e2m1", "floor"), ("mxfp4_e2m1", "rceil"), ("mxfp8_e4m3", "even"), ("mxint8", "floor"), ("nvfp4", "up"),
        ("nvfp4/torchao-0.18", None), ("nvfp4/modelopt-0.47", None), ("nvfp4/transformer-engine-2.20", None),
        ("q8_0/gguf-0.19", None), ("nvfp4/transformer-engine-2.20-4over6-mse", None),
    ],
)  # fmt: skip
def test_moments_are_those_over_all_words(name, rule) -> None:
    """With words of 8 bits all 256 are tried: mean and variance are exact fractions of them."""
    x = np.random.default_rng(0).normal(size=(2, 64)).astype(np.float32)
    x[0, :3] = 0.0, -0.0, 1.0
    if "4over6" in name:
        recipe = recipes()[name]
        scales = qsim.encode(x, recipe).scales
        assert np.isfinite(expect(x, recipe)).all()
        assert len(np.unique(scales)) > 1
        return
    tried = np.array([qsim.quantize(x, name, "SRA", scale_rule=rule, sr_bits=8, rbits=word) for word in range(256)])
    mean, var = (function(x, name, "SRA", sr_bits=8, scale_rule=rule, exact=True) for function in (expect, variance))
    for at in np.ndindex(x.shape):
        values = [Fraction(float(value)) for value in tried[(slice(None), *at)]]
        average = sum(values) / 256
        assert mean[at] == average
        assert var[at] == sum((value - average) ** 2 for value in values) / 256
    close = expect(x, name, "SRA", sr_bits=8, scale_rule=rule)
    assert np.allclose(close, mean.astype(np.float64), rtol=2.0**-50, atol=0)


def test_what_clips_is_biased_and_what_does_not_is_not() -> None:
    """Under floor 7 becomes 6 with certainty; under rceil, and times 3/4, the mean of SR is the number itself."""
    x = np.full((1, 32), 7.0, np.float32)
    x[0, 1:] = np.linspace(-7, 7, 31)
    floor = expect(x, "mxfp4_e2m1", scale_rule="floor", exact=True)
    assert floor[0, 0] == 6
    assert variance(x, "mxfp4_e2m1", scale_rule="floor", exact=True)[0, 0] == 0
    up = expect(x, "mxfp4_e2m1", scale_rule="rceil", exact=True)
    shorter = expect((x * np.float32(0.75)).astype(np.float32), "mxfp4_e2m1", scale_rule="floor", exact=True)
    for value, own, short in zip(x.ravel().tolist(), up.ravel(), shorter.ravel(), strict=True):
        assert abs(own - Fraction(value)) <= Fraction(2, 1 << 32)  # words of 32 bits, of steps of up to 2 here
        assert abs(short - Fraction(float(np.float32(value) * np.float32(0.75)))) <= Fraction(2, 1 << 32)


def test_modes_without_words_have_no_variance() -> None:
    """To nearest the mean is the value, the variance 0."""
    x = np.random.default_rng(1).normal(size=64).astype(np.float32)
    found = outcomes(x, "mxfp4_e2m1", "RNE")
    assert np.array_equal(found.mean(), qsim.quantize(x, "mxfp4_e2m1"))
    assert not found.variance().any()
    with pytest.raises(InputError, match="moments are those of SR and SRA"):
        expect(x, "mxfp4_e2m1", "SRB")
    with pytest.raises(InputError, match="need evenly spaced values"):
        expect(x, "nf4_64")
