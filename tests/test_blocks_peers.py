"""Blocks against other authors' code: gfloat's six MX formats, and scales and elements as ml_dtypes encodes them."""

from __future__ import annotations

import gfloat
import gfloat.formats
import ml_dtypes
import numpy as np
import pytest

import qsim
from qsim.blocks import get_block_format

MX = ["mxfp8_e4m3", "mxfp8_e5m2", "mxfp6_e3m2", "mxfp6_e2m3", "mxfp4_e2m1", "mxint8"]


def blocks() -> np.ndarray:
    """Return float64 blocks of several magnitudes, some at powers of two and at the largest values, some zeros."""
    rng = np.random.default_rng(4)
    x = rng.normal(size=(120, 32)) * np.exp2(rng.integers(-40, 40, (120, 1)))
    x[:20] = np.round(x[:20] * 4 / np.abs(x[:20]).max(1, keepdims=True)) * 2.0
    x[20, :] = 0.0
    x[21, 0] = 6.0 * np.abs(x[21]).max()
    return x


@pytest.mark.parametrize("name", MX)
def test_gfloat(name) -> None:
    """Values under the rule floor equal gfloat's `quantize_block` with `compute_scale_amax`."""
    fmt = getattr(gfloat.formats, f"format_info_{name}")
    x = blocks()
    ours = qsim.quantize(x, name, scale_rule="floor")
    theirs = np.array([gfloat.quantize_block(fmt, row, gfloat.compute_scale_amax) for row in x])
    if name in (
        "mxfp8_e4m3",
        "mxfp8_e5m2",
    ):  # which it does not clamp: beyond the largest element they are NaN and infinite
        theirs = np.where(np.isfinite(theirs), theirs, ours)
    assert np.array_equal(ours, theirs)


@pytest.mark.parametrize("name", MX[:5])
@pytest.mark.parametrize("rule", ["floor", "ceil", "rceil", "even", "midmax"])
def test_ml_dtypes(name, rule) -> None:
    """The scales are E8M0 codes of ml_dtypes, and where nothing is clamped the codes are its codes of x / s."""
    fmt = get_block_format(name)
    own = getattr(ml_dtypes, fmt.element.name)
    x = blocks().astype(np.float32)
    e = qsim.encode(x, name, scale_rule=rule)
    s = e.scales.view(ml_dtypes.float8_e8m0fnu).astype(np.float32)
    assert np.array_equal(s.astype(ml_dtypes.float8_e8m0fnu).view(np.uint8), e.scales)
    v = x / np.repeat(s, 32, 1)
    inside = np.abs(v) <= float(fmt.largest)
    with np.errstate(all="ignore"):
        codes = v.astype(own).view(np.uint8) & ((1 << fmt.element.bits) - 1)
    assert np.array_equal(e.codes[inside], codes[inside])
    assert inside.mean() > 0.9
