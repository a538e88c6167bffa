"""Every operation and model computes its published formula: against a second writing of it in 40 digits, and against PyTorch.

The vjp of an operation is checked against central differences of its own forward, which cannot see that the function itself is
another one. Here the values are held.

How far may float64 be off? As far as another evaluation of the formula in float64, which adds in another order: the second
writing is evaluated in Python's floats too, and its distance from its own 40 digits is what rounding does to this formula on
these inputs. Sixteen times the largest such distance is allowed, and 4 roundings of the largest result, since the distance may
happen to be 0.
"""

from __future__ import annotations

import math
from typing import Any

import mpmath
import numpy as np
import pytest
from conftest import NO_TORCH
from forward import Forward

import qsim
from qsim import autograd as ag
from qsim import nn

RNG = np.random.default_rng(8)


def normal(*shape: int) -> np.ndarray:
    """Return numbers of order 1."""
    return RNG.standard_normal(shape)


IMAGES = normal(2, 4, 6, 4)
TARGET = normal(4, 3)
CODES = np.array([[2, 0, 1], [2, 1, 3]])

OPERATIONS: dict[str, tuple[tuple[np.ndarray, ...], dict[str, Any]]] = {
    "linear": ((normal(3, 4), normal(5, 4), normal(5)), {}),
    "linear without bias": ((normal(2, 3, 4), normal(5, 4)), {}),
    "conv2d": ((IMAGES, normal(3, 3, 3, 4)), {"pad": 1}),
    "conv2d strides": ((IMAGES, normal(3, 3, 2, 4)), {"stride": 2, "pad": 1}),
    "conv2d wide pad": ((IMAGES, normal(2, 2, 4, 4)), {"stride": 3, "pad": 4}),
    "conv2d 1x1": ((IMAGES, normal(3, 1, 1, 4)), {"stride": 2}),
    "group_norm": ((IMAGES, normal(4), normal(4)), {"groups": 2}),
    "group_norm relu": ((IMAGES, normal(4), normal(4)), {"groups": 4, "relu": True}),
    "batch_norm": ((IMAGES, normal(4), normal(4)), {}),
    "batch_norm relu": ((IMAGES, normal(4), normal(4)), {"relu": True}),
    "batch_norm known": ((IMAGES, normal(4), normal(4)), {"statistics": (np.arange(4.0), np.arange(1.0, 5))}),
    "layer_norm": ((normal(2, 3, 5), normal(5), normal(5)), {}),
    "rms_norm": ((normal(2, 3, 5), normal(5)), {}),
    "relu": ((normal(40),), {}),
    "silu": ((normal(40) * 4,), {}),
    "gelu": ((normal(40) * 3,), {}),
    "swiglu": ((normal(5, 8) * 2,), {}),
    "add": ((normal(3, 2), normal(3, 2)), {}),
    "rope": ((normal(2, 5, 3, 6),), {}),
    "rope base": ((normal(2, 5, 3, 6),), {"base": 100.0}),
    "attention": ((normal(2, 5, 3, 4), normal(2, 5, 3, 4), normal(2, 5, 3, 4)), {}),
    "global_average_pool": ((IMAGES,), {}),
    "average_pool": ((IMAGES,), {"size": 2}),
    "max_pool": ((IMAGES,), {"size": 2}),
    "embedding": ((CODES, normal(4, 3)), {}),
    "cross_entropy": ((normal(2, 3, 5), CODES), {}),
    "mean_squared_error": ((normal(4, 3), TARGET), {}),
}
"""Arrays without the axis of draws, and options."""

NAMED = ("linear", "conv2d", "batch_norm", "embedding")
"""The operations that are layers, and have a name."""
WITHOUT_A_FORMULA = {"dropout", "reshape"}
"""One is a mask of random words, which its own test holds; the other computes nothing."""


def base(name: str) -> str:
    """Return the name of the operation that a row of the table is about."""
    return name.partition(" ")[0]


def computed(name: str, arrays: tuple[np.ndarray, ...], options: dict[str, Any]) -> np.ndarray:
    """Return what the engine computes, without the axis of draws."""
    operation = getattr(ag, base(name))
    named = {"name": "layer"} if base(name) in NAMED else {}
    result: np.ndarray = np.asarray(operation(*(array[None] for array in arrays), **options, **named))[0]
    return result


def assert_computes(found: np.ndarray, formula: Any) -> None:
    """Assert that `found` is as near `formula(Forward)` in 40 digits as Python's floats are."""
    with mpmath.workdps(40):
        exact = np.asarray(formula(Forward(mpmath.mp)), object)
        rough = np.asarray(formula(Forward(math)), object)
        assert found.shape == exact.shape
        largest = max(abs(v) for v in exact.reshape(-1))
        slack = max(abs(a - b) for a, b in zip(exact.reshape(-1), rough.reshape(-1), strict=True))
        off = max(abs(a - float(b)) for a, b in zip(exact.reshape(-1), found.reshape(-1), strict=True))
        assert slack < 1e-9 * largest  # or the inputs would be such that nothing is held
        assert off <= 16 * slack + 4 * 2.0**-53 * largest


@pytest.mark.parametrize("name", OPERATIONS)
def test_an_operation_is_its_formula(name: str) -> None:
    """Its value is that of the second writing, for inputs of order 1."""
    arrays, options = OPERATIONS[name]
    assert_computes(
        computed(name, arrays, options),
        lambda by: getattr(by, base(name))(*(by.array(array) for array in arrays), **options),
    )


def test_every_operation_has_a_formula() -> None:
    """What the package exports as an operation stands in the table above."""
    operations = {name for name in ag.__all__ if getattr(getattr(ag, name), "is_operation", False)}
    assert operations - WITHOUT_A_FORMULA == {base(name) for name in OPERATIONS}


def shaken(params: Any) -> Any:
    """Return parameters in which no gain is 1, no shift is 0 and no residual is small: a wrong wire changes the result."""
    return ag.tree_map(lambda p: p * 3 + RNG.standard_normal(p.shape) * 0.2, params)


def as_numbers(by: Forward, params: Any) -> Any:
    """Return a tree of parameters in the numbers of a `Forward`."""
    return {name: as_numbers(by, p) if isinstance(p, dict) else by.array(p) for name, p in params.items()}


MLP = nn.MLP((6, 5, 4, 3))
MODELS: dict[str, tuple[Any, Any, np.ndarray]] = {
    "mlp": (MLP, lambda by, p, x: by.mlp(p, x), normal(3, 6)),
    "llama": (
        nn.Llama(5, 8, 2, 2, hidden=12), lambda by, p, x: by.llama(p, x, blocks=2, heads=2),
        np.array([[0, 3, 1, 4], [2, 2, 0, 1]]),
    ),
    "llama tied": (
        nn.Llama(5, 8, 1, 1, hidden=6, tied=True), lambda by, p, x: by.llama(p, x, blocks=1, heads=1), np.array([[4, 0, 2, 1]])
    ),
    "wideresnet batch": (
        nn.WideResNet(10, 1, classes=3), lambda by, p, x: by.wideresnet(p, x, groups=None, blocks=1), normal(2, 2, 2, 3)
    ),
    "wideresnet group": (
        nn.WideResNet(10, 1, classes=3, norm="group", groups=8),
        lambda by, p, x: by.wideresnet(p, x, groups=8, blocks=1), normal(1, 4, 4, 3),
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", MODELS)
def test_a_model_is_its_layers_in_their_order(name: str) -> None:
    """Scores and loss are those of the network written down a second time, and draws beside each other have the same."""
    model, formula, x = MODELS[name]
    params = shaken(model.init(np.random.default_rng(2)))
    labels = x[..., ::-1].copy() if name.startswith("llama") else np.arange(len(x)) % 3

    def scores(by: Forward) -> Any:
        return formula(by, as_numbers(by, params), by.array(x))

    assert_computes(np.asarray(model.logits(ag.tree_map(lambda p: p[None], params), x[None]))[0], scores)
    loss, _ = qsim.value_and_grad(model.loss)(params, (x, labels))
    assert_computes(np.asarray(loss), lambda by: by.cross_entropy(scores(by), labels))


def torch_module() -> Any:
    """Return PyTorch; skip where it is not installed."""
    try:
        import torch
    except ImportError:
        pytest.skip(NO_TORCH)
    return torch


def by_torch(name: str, options: dict[str, Any]) -> Any:
    """Return the function of tensors that PyTorch has for an operation; images are (N, C, H, W) there."""
    torch = torch_module()
    f = torch.nn.functional

    def images(function: Any) -> Any:
        return lambda x, *rest: function(x.permute(0, 3, 1, 2), *rest).permute(0, 2, 3, 1)

    def active(function: Any) -> Any:
        return lambda *tensors: f.relu(function(*tensors)) if options.get("relu") else function(*tensors)

    def heads(q: Any, k: Any, v: Any) -> Any:
        seen = f.scaled_dot_product_attention(*(t.transpose(1, 2) for t in (q, k, v)), is_causal=True)
        return seen.transpose(1, 2)

    known = [torch.as_tensor(s) for s in options.get("statistics", ())] or [None, None]
    table = {
        "linear": f.linear,
        "conv2d": images(
            lambda x, w: f.conv2d(
                x, w.permute(0, 3, 1, 2), stride=options.get("stride", 1), padding=options.get("pad", 0)
            )
        ),
        "group_norm": active(images(lambda x, g, s: f.group_norm(x, options["groups"], g, s))),
        "batch_norm": active(images(lambda x, g, s: f.batch_norm(x, *known, g, s, training=known[0] is None))),
        "layer_norm": lambda x, g, s: f.layer_norm(x, x.shape[-1:], g, s),
        "rms_norm": lambda x, g: f.rms_norm(x, x.shape[-1:], g, 1e-5),
        "relu": f.relu,
        "silu": f.silu,
        "gelu": f.gelu,
        "swiglu": lambda x: f.silu(x[..., : x.shape[-1] // 2]) * x[..., x.shape[-1] // 2 :],
        "add": torch.add,
        "attention": heads,
        "global_average_pool": lambda x: x.mean((1, 2)),
        "average_pool": images(lambda x: f.avg_pool2d(x, options["size"])),
        "max_pool": images(lambda x: f.max_pool2d(x, options["size"])),
        "embedding": f.embedding,
        "cross_entropy": lambda z, labels: f.cross_entropy(z.reshape(-1, z.shape[-1]), labels.reshape(-1)),
        "mean_squared_error": lambda y, t: f.mse_loss(y, t) * y.shape[-1] / 2,
    }
    return table[name]


@pytest.mark.parametrize("name", [name for name in OPERATIONS if not name.startswith("rope")])
def test_an_operation_and_its_gradient_are_those_of_torch(name: str) -> None:
    """In float64, to 1e-12 of the largest number: both round some hundred times. PyTorch has no rotation of its own."""
    arrays, options = OPERATIONS[name]
    function = by_torch(base(name), options)
    torch = torch_module()
    floats = [
        k for k, array in enumerate(arrays) if array.dtype.kind == "f" and not (name == "mean_squared_error" and k)
    ]
    tensors = [torch.tensor(array, requires_grad=k in floats) for k, array in enumerate(arrays)]
    y = function(*tensors)
    weights = np.random.default_rng(4).standard_normal(tuple(y.shape))
    (y * torch.tensor(weights)).sum().backward()

    def close(found: np.ndarray, tensor: Any) -> None:
        expected = tensor.detach().numpy()
        assert found.shape == expected.shape
        assert np.abs(found - expected).max() <= 1e-12 * max(1, np.abs(expected).max())

    close(computed(name, arrays, options), y)
    operation = getattr(ag, base(name))
    named = {"name": "layer"} if base(name) in NAMED else {}

    @ag.op
    def weighted(y: np.ndarray, weights: np.ndarray) -> Any:
        return (y * weights).reshape(len(y), -1).sum(-1), lambda g, _: (
            g.reshape(-1, *(1,) * (y.ndim - 1)) * weights,
            None,
        )

    def loss(params: Any, batch: Any) -> Any:
        given = [params[str(k)] if k in floats else batch[k] for k in range(len(arrays))]
        return weighted(operation(*given, **options, **named), batch[-1])

    batch = (*(array if k not in floats else np.zeros(1) for k, array in enumerate(arrays)), weights)
    _, grads = qsim.value_and_grad(loss)({str(k): arrays[k] for k in floats}, batch)
    for k in floats:
        close(grads[str(k)], tensors[k].grad)
