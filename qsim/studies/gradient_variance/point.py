"""The point at which gradients are measured: data, a model trained a little, the tensors there, and the frozen scales."""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from qsim import theory
from qsim.autograd import Numerics, value_and_grad
from qsim.data import Dataset, digits
from qsim.formats import Format, get_format
from qsim.nn import MLP
from qsim.rounding import Mode, Quantizer

__all__ = ["ModelSpec", "Point", "point"]

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelSpec:
    """Say how the point is reached; all of it is in study.toml."""

    widths: tuple[int, ...]
    train_steps: int
    train_batch: int
    learning_rate: float
    seed: int


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)  # one a model, told apart by being another
class Point:
    """Hold the parameters and, over the whole data set and unrounded, what each layer reads and which errors it gets."""

    data: Dataset
    #: Standardized pixels, (samples, features): mean 0 and deviation 1 over the whole set.
    x: Floats
    y: NDArray[np.int64]
    model: MLP
    params: dict[str, dict[str, Floats]]
    #: For each layer: its inputs (samples, n) and the errors of its outputs (samples, m), per sample, without 1/b.
    inputs: dict[str, Floats]
    errors: dict[str, Floats]
    loss: float
    accuracy: float

    @property
    def layers(self) -> tuple[str, ...]:
        """The layers with weights, in the order in which they are used."""
        return self.model.layers

    @property
    def sizes(self) -> dict[str, int]:
        """The number of weights of each layer."""
        return {name: self.params[name]["w"].size for name in self.layers}

    def gradient(self, layer: str) -> Floats:
        """Return the gradient of the whole set with respect to a layer's weights."""
        return self.errors[layer].T @ self.inputs[layer] / len(self.x)

    def tensor(self, layer: str, quantization_point: str) -> Floats:
        """Return the tensor that a quantization point rounds, over the whole set."""
        if quantization_point.endswith("_act"):
            return self.inputs[layer]
        return self.errors[layer] if quantization_point == "bwd_grad" else self.params[layer]["w"]

    def quantizer(self, layer: str, quantization_point: str, fmt: Format, mode: Mode, scale: str) -> Quantizer:
        """Return the rounding of a site: `scale` is "frozen", "full-range", "underflow", or "absmax", derived anew.

        Frozen is the scale of the whole set's abs-max: for integers the step abs-max / max, for floats of up to 8 bits the
        smallest power of two that maps the abs-max into the range; wider floats have range enough and are left raw.
        Full range is the other convention of integers of k bits, the step abs-max / 2^(k-1): what lies more than half a step
        above the largest value, if anything does, is clamped.
        Underflow is the smallest power of two that leaves all at most 1/4 of the smallest step of E4M3.
        """
        largest = float(np.abs(self.tensor(layer, quantization_point)).max())
        if scale == "absmax":
            return Quantizer(fmt, mode, scale="absmax")
        if scale == "underflow":
            step = get_format("float8_e4m3fn").smallest_subnormal
            return Quantizer(fmt, mode, scale=2.0 ** math.ceil(math.log2(4 * largest / step)))
        if scale == "full-range":
            return Quantizer(fmt, mode, scale=largest / 2.0 ** (fmt.bits - 1))
        if fmt.kind == "integer":
            step = largest / fmt.max
            return Quantizer(fmt, mode, scale=step if largest / step <= fmt.max else math.nextafter(step, math.inf))
        if fmt.bits > 8:
            return Quantizer(fmt, mode)
        return Quantizer(fmt, mode, scale=2.0 ** math.ceil(math.log2(largest / fmt.max)))

    def sampling_variance(self, layer: str) -> float:
        """Return sigma^2 of a layer's weight gradient, exactly, over the samples."""
        return theory.sampling_variance(self.errors[layer], self.inputs[layer])


@functools.lru_cache(maxsize=16)
def point(spec: ModelSpec) -> Point:
    """Return the point of `spec`: plain SGD in float64, unrounded, from a seeded start."""
    data = digits()
    x = (data.x - data.x.mean()) / data.x.std()
    model = MLP(spec.widths)
    rng = np.random.Generator(np.random.Philox(spec.seed))
    params = model.init(rng)
    step = value_and_grad(model.loss)
    for _ in range(spec.train_steps):
        chosen = rng.integers(0, len(x), spec.train_batch)
        with Numerics({}):  # nothing rounds, whatever other threads of the process do
            _, grads = step(params, (x[chosen], data.y[chosen]))
        for name in model.layers:
            for part in ("w", "b"):
                params[name][part] -= spec.learning_rate * grads[name][part]
    return _tensors(data, x, model, params)


def _tensors(data: Dataset, x: Floats, model: MLP, params: Any) -> Point:
    """Run the network once over all samples, written out, and keep what passes each layer."""
    inputs: dict[str, Floats] = {}
    hidden = x
    for name in model.layers:
        inputs[name] = hidden
        scores = hidden @ params[name]["w"].T + params[name]["b"]
        hidden = np.maximum(scores, 0)
    p = np.exp(scores - scores.max(1, keepdims=True))
    p /= p.sum(1, keepdims=True)
    rows = np.arange(len(x))
    loss = float(-np.log(p[rows, data.y]).mean())
    accuracy = float((p.argmax(1) == data.y).mean())
    error = p.copy()
    error[rows, data.y] -= 1
    errors: dict[str, Floats] = {}
    for name in reversed(model.layers):
        errors[name] = error
        error = (error @ params[name]["w"]) * (inputs[name] > 0)
    return Point(
        data=data, x=x, y=data.y, model=model, params=params, inputs=inputs, errors=errors, loss=loss, accuracy=accuracy
    )
