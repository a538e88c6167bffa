"""The point at which gradients are measured: data, a model trained a little, the tensors there, and the frozen scales."""

from __future__ import annotations

import functools
import importlib.util
import math
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from qsim import theory
from qsim.autograd import POINTS, Numerics, leaves_of, tree_map, value_and_grad
from qsim.autograd.sites import paths
from qsim.data import Dataset, cifar10, digits
from qsim.data.tables import checksum, labelled, scaled
from qsim.errors import InputError, shown
from qsim.formats import Format, get_format
from qsim.nn import MLP, WideResNet
from qsim.rounding import Mode, Quantizer, mode_fields

__all__ = ["DataSpec", "ModelSpec", "Point", "data_of", "leaf", "model_of", "point", "probe", "replaced"]

Floats = NDArray[np.float64]

CHUNK_BYTES = 1 << 25
"""Bytes of what layers read and errors, at most, when tensors over the whole set are looked at."""

MOST_SAMPLES = 4096
"""Samples whose gradients sigma^2 is taken from, of a model that is no MLP: evenly spaced ones, if there are more."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DataSpec:
    """Say which data: "digits", "cifar10", or a file with its label."""

    name: str = "digits"
    file: str = ""
    label: str = ""
    standardize: str = "set"
    samples: int = 0
    """The first so many; 0 for all."""
    sha256: str = ""
    """Of the file."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelSpec:
    """Say how the point is reached; all of it is in study.toml."""

    widths: tuple[int, ...] = ()
    train_steps: int
    train_batch: int
    learning_rate: float
    seed: int
    kind: str = "mlp"
    """"mlp", "wideresnet", or the name of a class in `file`."""
    depth: int = 0
    widen: int = 0
    file: str = ""
    sha256: str = ""
    data: DataSpec = DataSpec()
    #: Numbers that pass the quantization points for each sample, and parameters: what a cell needs memory for.
    elements: int = 0
    parameters: int = 0

    def identity(self) -> dict[str, Any]:
        """Return the fields that random words depend on: no paths, no derived fields, no fields that older studies lacked."""
        kept = ("widths", "train_steps", "train_batch", "learning_rate", "seed")
        new = {"kind": "mlp", "depth": 0, "widen": 0, "sha256": ""}
        found = {name: getattr(self, name) for name in kept}
        found |= {name: getattr(self, name) for name, usual in new.items() if getattr(self, name) != usual}
        if self.data != DataSpec():
            data = self.data
            found["data"] = [data.name, data.label, data.standardize, data.samples, data.sha256]
        return found


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)  # one a model, told apart by being another
class Point:
    """Hold the parameters and, over the whole data set and unrounded, the inputs and errors of each layer."""

    data: Dataset
    #: Standardized samples, (samples, ...).
    x: Floats
    y: NDArray[np.int64]
    model: Any
    params: Any
    #: The weights whose gradients are measured: a name, and where they stand among the parameters.
    weights: Mapping[str, tuple[str, ...]]
    #: The layers that have quantization points, in the order in which they are used.
    site_layers: tuple[str, ...]
    #: Of an MLP, for each layer: its inputs (samples, n) and the errors of its outputs (samples, m), per sample, without 1/b.
    inputs: Mapping[str, Floats]
    errors: Mapping[str, Floats]
    #: Of another model: gradients, sigma^2 and the largest magnitude at each site.
    gradients: Mapping[str, Floats]
    variances: Mapping[str, float]
    largest: Mapping[str, float]
    loss: float
    accuracy: float | None

    @property
    def layers(self) -> tuple[str, ...]:
        """The layers with weights, in the order in which they are used."""
        return tuple(self.weights)

    @property
    def exact(self) -> bool:
        """Whether theory knows the model."""
        return bool(self.inputs)

    @property
    def sizes(self) -> dict[str, int]:
        """The number of weights of each layer."""
        return {name: leaf(self.params, where).size for name, where in self.weights.items()}

    def gradient(self, layer: str) -> Floats:
        """Return the gradient of the whole set with respect to a layer's weights."""
        if not self.exact:
            return self.gradients[layer]
        return self.errors[layer].T @ self.inputs[layer] / len(self.x)

    def tensor(self, layer: str, quantization_point: str) -> Floats:
        """Return the tensor that a quantization point of an MLP rounds, over the whole set."""
        if quantization_point.endswith("_act"):
            return self.inputs[layer]
        found: Floats = self.errors[layer] if quantization_point == "bwd_grad" else self.params[layer]["w"]
        return found

    def quantizer(self, layer: str, quantization_point: str, fmt: Format, mode: Mode | str, scale: str) -> Quantizer:
        """Return the rounding of a site: `scale` is "frozen", "full-range", "underflow", "absmax", derived anew, or "none".

        Frozen is the scale of the whole set's abs-max: for integers the step abs-max / max, for floats of up to 8 bits the
        smallest power of two that maps the abs-max into the range; wider floats have range enough and are left raw.
        Full range is the other convention of integers of k bits, the step abs-max / 2^(k-1): numbers that lie more than half
        a step above the largest value, if anything does, is clamped.
        Underflow is the smallest power of two that leaves all at most 1/4 of the smallest step of E4M3.
        """
        fields = {"mode": mode} if isinstance(mode, Mode) else mode_fields(mode)
        if scale == "none":
            return Quantizer(fmt, **fields)
        if scale == "absmax":
            return Quantizer(fmt, **fields, scale="absmax")
        if self.exact:
            largest = float(np.abs(self.tensor(layer, quantization_point)).max())
        else:
            largest = self.largest.get(f"{layer}.{quantization_point}", 0.0)
        if not largest:  # zeros, or a site that nothing reaches, as the data gradient of the first layer
            return Quantizer(fmt, **fields)
        if scale == "underflow":
            step = get_format("float8_e4m3fn").smallest_subnormal
            return Quantizer(fmt, **fields, scale=2.0 ** math.ceil(math.log2(4 * largest / step)))
        if scale == "full-range":
            return Quantizer(fmt, **fields, scale=largest / 2.0 ** (fmt.bits - 1))
        if fmt.kind == "integer":
            step = largest / fmt.max
            return Quantizer(fmt, **fields, scale=step if largest / step <= fmt.max else math.nextafter(step, math.inf))
        if fmt.bits > 8:
            return Quantizer(fmt, **fields)
        return Quantizer(fmt, **fields, scale=2.0 ** math.ceil(math.log2(largest / fmt.max)))

    def sampling_variance(self, layer: str) -> float:
        """Return sigma^2 of a layer's weight gradient over the samples: exactly, or of as many as `MOST_SAMPLES`."""
        if not self.exact:
            return self.variances[layer]
        return theory.sampling_variance(self.errors[layer], self.inputs[layer])


# --- Data and models -----------------------------------------------------------------------------------------


@functools.lru_cache(maxsize=4)
def data_of(spec: DataSpec) -> Dataset:
    """Return the data set of a study, its samples standardized."""
    if spec.file:
        found = labelled(spec.file, spec.label)
        if spec.sha256 and found.sha256 != spec.sha256:
            raise InputError(f"{spec.file}: was changed while the study ran; run it again")
    elif spec.name == "cifar10":
        images = cifar10()
        x = images.x_train[: spec.samples or None].astype(np.float64) / 255
        found = Dataset("cifar10", x, images.y_train[: len(x)], images.sha256, images.source)
    else:
        found = digits()
    many = spec.samples or len(found.x)
    x, y = found.x[:many], found.y[:many]
    how: Any = spec.standardize
    return Dataset(found.name, scaled(x, how), y, found.sha256, found.source)


def model_of(spec: ModelSpec) -> Any:
    """Return the model: an `MLP`, a `WideResNet` with group norm, or one of a class in a file of the user's own.

    Raise `InputError` where the file cannot be run, or the class is not there or cannot be called without arguments.
    """
    if spec.kind == "mlp":
        return MLP(spec.widths)
    if spec.kind == "wideresnet":
        classes = int(data_of(spec.data).y.max()) + 1
        return WideResNet(spec.depth, spec.widen, classes, norm="group")
    name = f"qsim_study_model_{checksum(Path(spec.file))[:16]}"
    module = sys.modules.get(name)
    if module is None:
        found = importlib.util.spec_from_file_location(name, spec.file)
        if found is None or found.loader is None:
            raise InputError(f"{spec.file}: is no file of Python; a model's ends in .py")
        module = importlib.util.module_from_spec(found)
        sys.modules[name] = module  # which its dataclasses ask for
        try:
            found.loader.exec_module(module)
        except (Exception, SystemExit) as error:  # noqa: BLE001 - it is the user's own code
            del sys.modules[name]
            raise InputError(f"{spec.file}: cannot be run ({_said(error)})") from None
    kind = getattr(module, spec.kind, None)
    if not isinstance(kind, type):
        raise InputError(f"{spec.file}: has no class {spec.kind!r}")
    try:
        model: Any = kind()
    except (Exception, SystemExit) as error:  # noqa: BLE001
        raise InputError(
            f"{spec.file}: {spec.kind}() raised {_said(error)}; a study calls it without arguments"
        ) from None
    lacking = [name for name in ("init", "loss") if not callable(getattr(model, name, None))]
    if lacking:
        raise InputError(
            f"{spec.file}: {spec.kind} has no method {lacking[0]!r}; a model has init(rng) and loss(params, batch)"
        )
    return model


def _said(error: BaseException) -> str:
    """Return the message of an error of the user's code, in a line."""
    return " ".join(f"{type(error).__name__}: {error}".split())[:200]


def samples_of(spec: ModelSpec, data: Dataset) -> Floats:
    """Return the samples as the model takes them: of an MLP, rows."""
    return data.x.reshape(len(data.x), -1) if spec.kind == "mlp" else data.x


def leaf(tree: Any, where: tuple[str, ...]) -> Any:
    """Return the leaf of nested dicts that stands there."""
    for name in where:
        tree = tree[name]
    return tree


def replaced(tree: Any, where: tuple[str, ...], new: Any) -> Any:
    """Return nested dicts with another leaf there."""
    if not where:
        return new
    return {**tree, where[0]: replaced(tree[where[0]], where[1:], new)}


def weights_of(params: Any, site_layers: tuple[str, ...]) -> dict[str, tuple[str, ...]]:
    """Return the weights, which are the parameters of two axes or more, by the layers' names; those in use first.

    A bias, and the gain and shift of a norm, have one axis.
    """
    found = {}
    for path, array in zip(paths(params), leaves_of(params), strict=True):
        if np.ndim(array) >= 2:
            where = tuple(path.split("."))
            found[".".join(where[:-1]) if where[-1] == "w" and len(where) > 1 else path] = where
    ordered = [name for name in site_layers if name in found]
    return {name: found[name] for name in (*ordered, *(name for name in found if name not in ordered))}


@functools.lru_cache(maxsize=16)
def probe(spec: ModelSpec) -> tuple[int, int, tuple[str, ...], tuple[str, ...]]:
    """Return how many numbers pass the quantization points for each sample, how many parameters there are, layers and weights.

    Of a model that is no MLP the loss is taken of two samples. Raise `InputError` naming the model's exception there.
    """
    data = data_of(spec.data)
    model = model_of(spec)
    name = f"{spec.file}: {spec.kind}" if spec.file else spec.kind
    x, y = samples_of(spec, data)[:2], data.y[:2]
    context = Numerics({})
    context.seen = {}
    try:
        params = model.init(np.random.Generator(np.random.Philox(spec.seed)))
    except (Exception, SystemExit) as error:  # noqa: BLE001 - it is the user's own code
        raise InputError(f"{name}: init raised {_said(error)}") from None
    if not isinstance(params, dict):
        raise InputError(f"{name}: init returned {shown(params)}; parameters are nested dicts of arrays")
    try:
        with context:
            loss, grads = value_and_grad(model.loss)(params, (x, y))
    except (Exception, SystemExit) as error:  # noqa: BLE001
        raise InputError(f"{name}: loss of two samples {x.shape} raised {_said(error)}") from None
    if not isinstance(loss, float) or not math.isfinite(loss):
        raise InputError(
            f"{name}: loss of two samples is {shown(loss)}; it must be one finite number, the mean over a batch"
        )
    layers = tuple(dict.fromkeys(site.rpartition(".")[0] for site in context.numbers))
    if not layers:
        raise InputError(f"{name}: loss uses no layer of qsim.autograd, linear or conv2d, at which anything is rounded")
    weights = tuple(weights_of(params, layers))
    if not weights:
        raise InputError(f"{name}: init returned no weight, which is a parameter of two axes or more")
    elements = sum(
        np.size(array) // 2
        for site, array in context.seen.items()
        if isinstance(array, np.ndarray) and site.endswith(("_act", "_grad"))
    )
    return elements, sum(np.size(array) for array in leaves_of(grads)), layers, weights


# --- The point -----------------------------------------------------------------------------------------------


@functools.lru_cache(maxsize=16)
def point(spec: ModelSpec) -> Point:
    """Return the point of `spec`: plain SGD in float64, unrounded, from a seeded start."""
    data = data_of(spec.data)
    x, model = samples_of(spec, data), model_of(spec)
    rng = np.random.Generator(np.random.Philox(spec.seed))
    params = tree_map(lambda array: np.array(array, np.float64), model.init(rng))
    step = value_and_grad(model.loss)
    for _ in range(spec.train_steps):
        chosen = rng.integers(0, len(x), spec.train_batch)
        with Numerics({}):  # nothing rounds, whatever other threads of the process do
            _, grads = step(params, (x[chosen], data.y[chosen]))
        for array, gradient in zip(leaves_of(params), leaves_of(grads), strict=True):
            np.subtract(array, spec.learning_rate * gradient, out=array)
    if not all(np.isfinite(array).all() for array in leaves_of(params)):
        raise InputError(
            f"after {spec.train_steps} steps of SGD at learning_rate = {spec.learning_rate} parameters are no finite numbers"
        )
    return _tensors(data, x, model, params) if spec.kind == "mlp" else _seen(spec, data, model, params)


def _tensors(data: Dataset, x: Floats, model: MLP, params: Any) -> Point:
    """Run the network once over all samples, written out, and keep the inputs of each layer."""
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
        data=data, x=x, y=data.y, model=model, params=params, inputs=inputs, errors=errors, loss=loss, accuracy=accuracy,
        weights={name: (name, "w") for name in model.layers}, site_layers=model.layers, gradients={}, variances={},
        largest={},
    )  # fmt: skip


def _seen(spec: ModelSpec, data: Dataset, model: Any, params: Any) -> Point:
    """Run a model over all samples, some at a time, and keep gradients, their variance, and the largest magnitudes."""
    elements, parameters, site_layers, _ = probe(spec)
    weights = weights_of(params, site_layers)
    x, y = data.x, data.y
    together = max(1, CHUNK_BYTES // (8 * max(elements, 1)))
    step = value_and_grad(model.loss)
    sums = {name: np.zeros_like(leaf(params, where)) for name, where in weights.items()}
    largest: dict[str, float] = {}
    loss, right = 0.0, 0
    for first in range(0, len(x), together):
        batch = x[first : first + together], y[first : first + together]
        context = Numerics({})
        context.seen = {}
        with context:
            mean, grads = step(params, batch)
            if callable(getattr(model, "logits", None)):
                right += int((np.argmax(np.asarray(model.logits(params, batch[0])), -1) == batch[1]).sum())
        loss += mean * len(batch[0]) / len(x)
        for name, where in weights.items():
            sums[name] += leaf(grads, where) * (len(batch[0]) / len(x))
        for site, array in context.seen.items():
            if isinstance(array, np.ndarray) and site.rpartition(".")[2] in POINTS:
                largest[site] = max(largest.get(site, 0.0), float(np.abs(array).max()))
    return Point(
        data=data, x=x, y=y, model=model, params=params, weights=weights, site_layers=site_layers, inputs={}, errors={},
        gradients=sums, variances=_sampling(model, params, weights, x, y, sums, elements + parameters), largest=largest,
        loss=loss, accuracy=right / len(x) if callable(getattr(model, "logits", None)) else None,
    )  # fmt: skip


def _sampling(
    model: Any,
    params: Any,
    weights: Mapping[str, tuple[str, ...]],
    x: Floats,
    y: Any,
    mean: Mapping[str, Floats],
    size: int,
) -> dict[str, float]:
    """Return sigma^2 of each weight: the mean squared distance of the gradients of single samples from that of the set."""
    chosen = np.arange(len(x)) if len(x) <= MOST_SAMPLES else np.linspace(0, len(x) - 1, MOST_SAMPLES).astype(np.int64)
    step = value_and_grad(model.loss, batch_per_draw=True)
    together = max(1, CHUNK_BYTES // (8 * max(size, 1)))
    found = dict.fromkeys(weights, 0.0)
    for first in range(0, len(chosen), together):
        ids = chosen[first : first + together]
        with Numerics({}):
            grads = step(params, (x[ids][:, None], y[ids][:, None]))[1]
        for name, where in weights.items():
            found[name] += float(((leaf(grads, where) - mean[name]) ** 2).sum()) / len(chosen)
    return found
