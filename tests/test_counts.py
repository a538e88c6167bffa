"""The engine, the optimizers and the command count clipped, lost, NaN and representable elements by one definition."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from strategies import FLOAT32, FLOAT64

import qsim
from qsim.arrays import Counts, quantize_draws
from qsim.cli.quantize import count
from qsim.errors import InputError
from qsim.formats import catalogue
from qsim.optim.rounding import note
from qsim.rounding import Quantizer
from qsim.scales import derive_scale

X = np.array([
    0, -0.0, 1e-42, -1e-42, 1, -1, 0.3, 500, -500, 3e38, -3e38, math.inf, -math.inf, math.nan, 1e-30, 2.0**-126,
    1.5 * 2.0**-127, 7.3, 2.0**-149,
])  # fmt: skip
SCALES: tuple[Any, ...] = ("none", "absmax", "pow2", 3.0, 1e30)


def by_command(x: np.ndarray, q: Quantizer) -> Counts:
    """Return the counts that `qsim quantize` prints."""
    s = None if q.scale == "none" else derive_scale(x, q)
    return count(x, s, q, qsim.encode(x, q), None, coded=True)


def by_optimizer(x: np.ndarray, q: Quantizer) -> Counts:
    """Return the counts of a rounding of an optimizer, which a context collects."""
    with qsim.numerics({}, seed=0) as context:
        note("site", x, qsim.quantize(x, q), q)
    return context.counts["site"]


@pytest.mark.in_part(4)
@pytest.mark.parametrize("scale", SCALES, ids=str)
@pytest.mark.parametrize("name", catalogue())
def test_all_count_alike(name: str, scale: Any) -> None:
    """Every format, with and without a scale and flushed inputs, in both types, has one answer."""
    for kind in (FLOAT32, FLOAT64):
        x = X.astype(kind)
        for ftz_in in (False, True):
            q = Quantizer(name, scale=scale, ftz_in=ftz_in)
            try:
                engine = quantize_draws(x.reshape(1, -1), q, 0, [0])[1]
            except InputError:  # the type does not hold the format, or NaN is an error there
                continue
            assert engine == by_command(x, q)
            if q.format.negative_to != "magnitude":  # an optimizer has no such parameters
                assert engine == by_optimizer(x, q)


@pytest.mark.parametrize(
    ("fmt", "options", "x", "expected"),
    [
        ("e8m0", {}, [0.0, -3.0, 2.0, 1e-45], Counts(4, saturated=1, on_grid=1)),
        ("e4m3", {"ftz_in": True}, [1e-42, 0.0], Counts(2, underflowed=1, on_grid=1)),
        ("uint4", {}, [-1.0, 16.0, 15.4, 3.0], Counts(4, saturated=3, underflowed=1, on_grid=1)),
        ("e4m3", {"scale": 1e30}, [1e-30, 0.0, 1e30], Counts(3, underflowed=1, on_grid=2)),
    ],
)
def test_the_definition(fmt: str, options: dict[str, Any], x: list[float], expected: Counts) -> None:
    """Less than the smallest value and 0 is beyond the range; what is flushed, divided or clamped to 0 underflowed."""
    x32 = np.array(x, np.float32)
    q = Quantizer(fmt, **options)
    assert quantize_draws(x32.reshape(1, -1), q, 0, [0])[1] == by_command(x32, q) == by_optimizer(x32, q) == expected
