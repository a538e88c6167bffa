"""Layers and models: shapes, starts, and the names of sites."""

from __future__ import annotations

import numpy as np
import pytest

import qsim
from qsim.autograd import POINTS, op, relu, value_and_grad
from qsim.nn import MLP


def test_an_mlp_starts_as_he_et_al_say():
    """Weights have mean 0 and variance 2/n, biases are zero, and a seed gives the same ones again."""
    model = MLP((400, 300, 10))
    params = model.init(np.random.default_rng(0))
    again = model.init(np.random.default_rng(0))
    w = params["layer0"]["w"]
    # 120,000 normals: 5 standard errors of the mean and of the variance.
    assert abs(w.mean()) < 5 * np.sqrt(2 / 400 / w.size)
    assert abs(w.var() * 200 - 1) < 5 * np.sqrt(2 / w.size)
    assert not params["layer0"]["b"].any()
    assert np.array_equal(w, again["layer0"]["w"])
    narrow = model.init(np.random.default_rng(0), np.float32)["layer0"]
    assert narrow["w"].dtype == narrow["b"].dtype == np.float32
    assert np.array_equal(narrow["w"], w.astype(np.float32))


def test_sites_are_numbered_five_a_layer_in_order():
    """The sites of a model are its layers' five points, in the order of the forward pass."""
    model = MLP((4, 3, 2))
    with qsim.numerics() as context:
        value_and_grad(model.loss)(model.init(np.random.default_rng(0)), (np.ones((1, 4)), np.zeros(1, int)))
    assert list(context.numbers) == [f"{layer}.{point}" for layer in model.layers for point in POINTS]
    assert list(context.numbers.values()) == list(range(10))


def test_float32_stays_float32():
    """A float32 model has float32 losses and gradients, rounded or not."""
    model = MLP((4, 3, 2))
    params = {
        name: {part: array.astype(np.float32) for part, array in layer.items()}
        for name, layer in model.init(np.random.default_rng(0)).items()
    }
    batch = np.ones((2, 4), np.float32), np.zeros(2, int)
    for points in ({}, dict.fromkeys(POINTS, "e4m3:SR")):
        with qsim.numerics(**points, draws=2):
            loss, grads = value_and_grad(model.loss)(params, batch)
        assert loss.dtype == np.float32
        assert grads["layer0"]["w"].dtype == np.float32


def test_relu_has_derivative_zero_at_zero():
    """Relu sends nothing back at 0, of either sign, and below."""
    _, grad = value_and_grad(lambda x, _: Sum(relu(x)))(np.array([-1.0, -0.0, 0.0, 2.0]), ())
    assert grad.tolist() == [0, 0, 0, 1]


@op
def Sum(x):
    """Return the sum over the last axis."""
    return x.sum(-1), lambda g, _: (np.broadcast_to(g[..., None], x.shape),)


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        ([0, 1], "2 labels for 3 samples"),
        ([0, 1, 2], r"labels must be integers in 0 \.\. 1"),
        ([0.5, 0.5, 0.5], "labels must be integers"),
        ([-1, 0, 0], "labels must be integers"),
    ],
)
def test_labels_that_are_none_are_refused(labels, message):
    """Labels beyond the classes, of another type or number are refused."""
    model = MLP((4, 2))
    with pytest.raises(qsim.InputError, match=message):
        value_and_grad(model.loss)(model.init(np.random.default_rng(0)), (np.ones((3, 4)), np.array(labels)))
