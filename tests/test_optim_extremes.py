"""Infinities, NaN, zeros and the ends of a type are gradients like others: no warning, and each element has its own result."""

from __future__ import annotations

import warnings
from typing import Any

import ml_dtypes
import numpy as np
import pytest

import qsim
from qsim import optim

SR = {"update": "bfloat16:SR", "moment": "bfloat16:SR"}
OPTIMIZERS: dict[str, optim.Transform] = {
    "sgd": optim.sgd(0.1),
    "momentum": optim.sgd(0.1, momentum=0.9, nesterov=True, weight_decay=0.1),
    "rounded": optim.sgd(0.1, momentum=0.9, rounding=SR),
    "kahan": optim.sgd(0.1, rounding="bfloat16", kahan=True),
    "adamw": optim.adamw(0.01, weight_decay=0.1),
    "rounded adamw": optim.adamw(0.01, rounding={"update": "e4m3:SR", "moment": "float8_e5m2"}),
    "scaled": optim.sgd(0.1, momentum=0.9, rounding={"moment": qsim.Quantizer("int8", scale="absmax")}),
    "master": optim.master_weights(optim.adamw(0.01), "float16"),
    "clipped": optim.sgd(0.1, clip=1.0),
    "adafactor": optim.adafactor(momentum=0.5),
    "rounded adafactor": optim.adafactor(0.01, rounding={"moment2": "e4m3"}),
    "skip": optim.skip_nonfinite(optim.sgd(0.1)),
    "sharded": optim.sharded(optim.adamw(0.01), 3),
    "arm": optim.bf16_adamw("kahan", 0.01).optimizer,
    "large rate": optim.sgd(1e300),
}
ELEMENTWISE = [name for name, optimizer in OPTIMIZERS.items() if optimizer.elementwise and name != "rounded"]


def extremes(dtype: Any) -> np.ndarray:
    """Return zeros, infinities, NaN, and the ends of a type."""
    ends = ml_dtypes.finfo(dtype)
    numbers = [0.0, -0.0, np.inf, -np.inf, np.nan, ends.max, ends.min, ends.tiny, ends.smallest_subnormal, 1.0, -3.0]
    return np.array([np.asarray(x).astype(dtype) for x in numbers], dtype)


@pytest.mark.parametrize("name", OPTIMIZERS)
@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.float16, ml_dtypes.bfloat16])
def test_extreme_gradients_give_no_warning(name: str, dtype: Any) -> None:
    """Every pair of an extreme parameter and an extreme gradient, in any shape, is updated without a warning or an error."""
    x = extremes(dtype)
    params = {
        "pairs": np.repeat(x, len(x)).reshape(len(x), len(x)),
        "same": x.copy(),
        "one": x[2:3].reshape(()).copy(),
        "none": x[:0].copy(),
        "no rows": x[:0].reshape(0, 3).copy(),
        "no columns": x[:0].reshape(3, 0).copy(),
        "zeros": np.zeros((3, 4), dtype),
    }
    grads = {**params, "pairs": np.tile(x, len(x)).reshape(len(x), len(x))}
    optimizer = OPTIMIZERS[name]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        state = optimizer.init(params)
        for _ in range(3):
            updates, state = optimizer.update(grads, state, params)
            params = optim.apply_updates(params, updates)
    assert all(p.dtype == dtype for p in params.values())


@pytest.mark.parametrize("name", ELEMENTWISE)
def test_an_infinity_is_the_business_of_its_own_element(name: str) -> None:
    """Beside infinities and NaN the other elements get the bits that they get without."""
    optimizer, x = OPTIMIZERS[name], extremes(np.float32)
    params = {"w": np.linspace(-2, 2, len(x)).astype(np.float32)}
    calm = np.where(np.isfinite(x), x, np.float32(0))
    ends = []
    for g in (x, calm):
        updates, _ = optimizer.update({"w": g}, optimizer.init(params), params)
        ends.append(optim.apply_updates(params, updates)["w"][np.isfinite(x)])
    assert ends[0].tobytes() == ends[1].tobytes()


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.float16, ml_dtypes.bfloat16])
def test_extreme_arrays_give_no_warning_elsewhere(dtype: Any) -> None:
    """Nor do sums, reductions, norms, casts, codes and loss scales of extreme arrays."""
    x = {"w": extremes(dtype), "none": extremes(dtype)[:0]}
    finite = {"w": np.where(np.isfinite(x["w"]), x["w"], dtype(1))}
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        optim.global_norm(x)
        assert not optim.all_finite(x)
        optim.cast(x, "e4m3")
        optim.cast(x, qsim.Quantizer("int8", scale="absmax"))
        for rounding in (None, "bfloat16:SR"):
            accumulator = optim.Accumulator(rounding)
            accumulator.mean(accumulator.add(x, accumulator.add(x, accumulator.init(x)), weight=3))
            for order in ("ring", "tree"):
                optim.all_reduce([x] * 3, rounding, order=order)
        for exponent in (-126, 126):
            scale = optim.LossScale.static(exponent)
            scale.unscale(x, scale.init())
        for rescale in ("frozen", "updated", "old"):
            dqt = optim.DQT("int4", "absmax", rescale, select=lambda *_: True)
            stored = dqt.store(finite)
            optimizer = dqt.optimizer(optim.skip_nonfinite(optim.sgd(0.1)))
            optimizer.update(finite, optimizer.init(stored), stored)
            dqt.saturated(finite)


def test_numbers_of_an_optimizer_beyond_the_type_give_no_warning() -> None:
    """Coefficients that float32 rounds to zero or infinity are results as well."""
    params = {"w": np.ones((2, 3), np.float32)}
    for optimizer in (
        optim.adamw(1e-60, 0.0, 0.0, 1e-60),
        optim.adamw(1e60, 1 - 1e-12, 1 - 1e-16, 1e60, weight_decay=1e60),
        optim.sgd(1e-46, momentum=1 - 1e-16),
        optim.chain(optim.scale(1e300), optim.scale(1e-300)),
        optim.adafactor(eps=1e-60),
        optim.chain(optim.clip_by_global_norm(1e-300), optim.clip_by_rms(1e-300), optim.scale_by_parameter_rms(1e300)),
    ):
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            optimizer.update(params, optimizer.init(params), params)


def test_second_moments_that_become_zero_are_counted() -> None:
    """Adafactor's eps is 0 in E4M3: at zero gradients an update is 0 / 0, and a context counts the moments that underflowed."""
    params = {"w": np.zeros((4, 4), np.float32), "b": np.zeros(4, np.float32)}
    optimizer = optim.scale_by_factored_rms(rounding={"moment2": "e4m3"})
    with qsim.numerics() as context:
        updates, _ = optimizer.update(params, optimizer.init(params), params)
    assert np.isnan(updates["w"]).all()
    assert np.isnan(updates["b"]).all()
    assert context.counts["w.moment2"].underflowed == 8  # four rows and four columns
    assert context.counts["b.moment2"].underflowed == 4
    wide, _ = optim.scale_by_factored_rms().update(params, optimizer.init(params), params)
    assert (wide["w"] == 0).all()
