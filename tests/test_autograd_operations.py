"""Every operation of the tape: its value by definition, its vjp by central differences, its draws."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from differences import assert_vjp

import qsim
from qsim import autograd as ag
from qsim.kernels.threads import MANY

RNG = np.random.default_rng(3)


def normal(*shape: int) -> np.ndarray:
    """Return numbers of order 1, none so near 0 that a difference steps over the kink of a ReLU."""
    x = RNG.standard_normal(shape)
    return x + np.copysign(1e-2, x)


IMAGES = normal(2, 6, 5, 4)

OPERATIONS: dict[str, tuple[Any, tuple[np.ndarray, ...]]] = {
    "linear": (lambda x, w, b: ag.linear(x, w, b, name="l"), (normal(3, 4), normal(5, 4), normal(5))),
    "linear without bias": (lambda x, w: ag.linear(x, w, name="l"), (normal(2, 3, 4), normal(5, 4))),
    "conv2d 3x3": (lambda x, w: ag.conv2d(x, w, name="c", pad=1), (IMAGES, normal(3, 3, 3, 4))),
    "conv2d strides": (lambda x, w: ag.conv2d(x, w, name="c", stride=2, pad=1), (IMAGES, normal(3, 3, 3, 4))),
    "conv2d wide pad": (lambda x, w: ag.conv2d(x, w, name="c", stride=3, pad=4), (IMAGES, normal(2, 2, 4, 4))),
    "conv2d 1x1": (lambda x, w: ag.conv2d(x, w, name="c"), (IMAGES, normal(3, 1, 1, 4))),
    "conv2d 1x1 strides": (lambda x, w: ag.conv2d(x, w, name="c", stride=2), (IMAGES, normal(3, 1, 1, 4))),
    "group_norm": (lambda x, g, s: ag.group_norm(x, g, s, groups=2), (IMAGES, normal(4), normal(4))),
    "group_norm relu": (lambda x, g, s: ag.group_norm(x, g, s, groups=4, relu=True), (IMAGES, normal(4), normal(4))),
    "batch_norm": (lambda x, g, s: ag.batch_norm(x, g, s, name="n"), (IMAGES, normal(4), normal(4))),
    "batch_norm relu": (lambda x, g, s: ag.batch_norm(x, g, s, name="n", relu=True), (IMAGES, normal(4), normal(4))),
    "batch_norm known": (
        lambda x, g, s: ag.batch_norm(x, g, s, name="n", statistics=(np.arange(4.0), np.arange(1.0, 5))),
        (IMAGES, normal(4), normal(4)),
    ),
    "layer_norm": (ag.layer_norm, (normal(2, 3, 5), normal(5), normal(5))),
    "rms_norm": (ag.rms_norm, (normal(2, 3, 5), normal(5))),
    "relu": (ag.relu, (normal(7),)),
    "silu": (ag.silu, (normal(7),)),
    "gelu": (ag.gelu, (normal(7),)),
    "swiglu": (ag.swiglu, (normal(3, 8),)),
    "add": (ag.add, (normal(3, 2), normal(3, 2))),
    "reshape": (lambda x: ag.reshape(x, shape=(-1, 3)), (normal(2, 6),)),
    "rope": (ag.rope, (normal(2, 5, 2, 4),)),
    "attention": (ag.attention, (normal(2, 5, 2, 4), normal(2, 5, 2, 4), normal(2, 5, 2, 4))),
    "global_average_pool": (ag.global_average_pool, (IMAGES,)),
    "average_pool": (lambda x: ag.average_pool(x, size=2), (normal(2, 4, 6, 3),)),
    "max_pool": (lambda x: ag.max_pool(x, size=2), (normal(2, 4, 6, 3),)),
    "dropout": (lambda x: ag.dropout(x, rate=0.4, name="d"), (normal(5, 6),)),
    "embedding": (lambda w: ag.embedding(np.array([[[2, 0], [2, 1]]]), w, name="e"), (normal(4, 3),)),
    "cross_entropy": (lambda x: ag.cross_entropy(x, np.array([[[2, 0], [2, 1]]])), (normal(2, 2, 3),)),
    "mean_squared_error": (ag.mean_squared_error, (normal(4, 3), RNG.standard_normal((4, 3)))),
}


@pytest.mark.parametrize("name", OPERATIONS)
def test_vjps_agree_with_central_differences(name: str) -> None:
    """With respect to each array, in float64, to 1e-6 of the gradient's norm."""
    operation, arrays = OPERATIONS[name]
    if name == "mean_squared_error":  # its target is no parameter
        assert_vjp(lambda y: operation(y, arrays[1][None]), arrays[0])
    else:
        assert_vjp(operation, *arrays)


def test_every_operation_is_checked() -> None:
    """What the package exports as an operation stands in the table above."""
    operations = {name for name in ag.__all__ if getattr(getattr(ag, name), "is_operation", False)}
    assert operations == {name.split()[0] for name in OPERATIONS}


def by_definition(x: np.ndarray, w: np.ndarray, stride: int, pad: int) -> np.ndarray:
    """Return the convolution pixel by pixel."""
    padded = np.pad(x, ((0, 0), (pad, pad), (pad, pad), (0, 0)))
    (high, wide), (kh, kw) = padded.shape[1:3], w.shape[1:3]
    return np.stack(
        [
            np.stack(
                [
                    np.einsum("nuvc,ouvc->no", padded[:, i : i + kh, j : j + kw], w)
                    for j in range(0, wide - kw + 1, stride)
                ],
                1,
            )
            for i in range(0, high - kh + 1, stride)
        ],
        1,
    )


@pytest.mark.parametrize(
    ("kernel", "stride", "pad"), [((3, 3), 1, 1), ((3, 3), 2, 1), ((1, 1), 1, 0), ((1, 1), 2, 0), ((2, 4), 3, 4)]
)
def test_a_convolution_is_its_definition(kernel: tuple[int, int], stride: int, pad: int) -> None:
    """Every pixel of integers is the sum that the docstring has, with kernels of any shape, strides and pads: equality."""
    x = RNG.integers(-9, 10, (3, 7, 6, 5)).astype(float)
    w = RNG.integers(-9, 10, (4, *kernel, 5)).astype(float)
    y = ag.conv2d(x[None], w[None], name="c", stride=stride, pad=pad)
    assert np.array_equal(y[0], by_definition(x, w, stride, pad))


def test_normalizations_are_their_definitions() -> None:
    """Means and variances over groups, the batch, the last axis, written with NumPy; 1e-12 covers the order of sums."""
    x, gain, shift = normal(3, 4, 4, 6), normal(6), normal(6)
    grouped = x.reshape(3, 16, 2, 3)
    mean, var = grouped.mean((1, 3), keepdims=True), grouped.var((1, 3), keepdims=True)
    h = ((grouped - mean) / np.sqrt(var + 1e-5)).reshape(x.shape)
    close = {"rtol": 1e-12, "atol": 1e-12}
    np.testing.assert_allclose(ag.group_norm(x[None], gain[None], shift[None], groups=2)[0], h * gain + shift, **close)
    h = (x - x.mean((0, 1, 2))) / np.sqrt(x.var((0, 1, 2)) + 1e-5)
    with qsim.numerics() as context:
        y = ag.batch_norm(x[None], gain[None], shift[None], name="n", relu=True)[0]
    np.testing.assert_allclose(y, np.maximum(h * gain + shift, 0), **close)
    np.testing.assert_allclose(context.observed["n"][0][0], x.mean((0, 1, 2)), **close)
    np.testing.assert_allclose(context.observed["n"][1][0], x.var((0, 1, 2), ddof=1), **close)
    h = (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + 1e-5)
    np.testing.assert_allclose(ag.layer_norm(x[None], gain[None], shift[None])[0], h * gain + shift, **close)
    h = x / np.sqrt((x**2).mean(-1, keepdims=True) + 1e-5)
    np.testing.assert_allclose(ag.rms_norm(x[None], gain[None])[0], h * gain, **close)


def test_attention_sees_no_later_position() -> None:
    """A change of what stands at position 3 changes nothing before it; and one that sees itself alone takes its value."""
    q, k, v = (normal(1, 2, 5, 2, 4) for _ in range(3))
    before = ag.attention(q, k, v)
    for array in (q, k, v):
        array[:, :, 3] += 1
    after = ag.attention(q, k, v)
    assert np.array_equal(before[:, :, :3], after[:, :, :3])
    assert not np.array_equal(before[:, :, 3:], after[:, :, 3:])
    assert np.array_equal(before[:, :, 0], v[:, :, 0])


def test_rotations_leave_products_to_the_distance() -> None:
    """The product of two rotated vectors depends on the difference of their positions alone, and lengths stay."""
    a, b = normal(4), normal(4)
    x = np.broadcast_to(np.stack([a, b]), (1, 1, 6, 2, 4))
    y = ag.rope(x)[0, 0]
    np.testing.assert_allclose((y[1, 0] @ y[3, 1]), (y[2, 0] @ y[4, 1]), rtol=1e-12)
    np.testing.assert_allclose((y**2).sum(-1), (x[0, 0] ** 2).sum(-1), rtol=1e-12)


def test_attention_and_rotations_are_their_definitions() -> None:
    """Position by position and head by head, with the angles and the scale of the papers; 1e-12 covers the order of sums."""
    q, k, v = (normal(1, 2, 5, 3, 4) for _ in range(3))
    y = ag.attention(q, k, v)[0]
    for s, t, h in np.ndindex(2, 5, 3):
        scores = np.array([q[0, s, t, h] @ k[0, s, u, h] for u in range(t + 1)]) / math.sqrt(4)
        p = np.exp(scores) / np.exp(scores).sum()
        np.testing.assert_allclose(y[s, t, h], p @ v[0, s, : t + 1, h], rtol=1e-12, atol=1e-12)
    turned = ag.rope(q)[0]
    for s, t, h, j in np.ndindex(2, 5, 3, 2):
        angle = t * 10000.0 ** (-2 * j / 4)
        pair = complex(q[0, s, t, h, j], q[0, s, t, h, j + 2]) * complex(math.cos(angle), math.sin(angle))
        np.testing.assert_allclose([turned[s, t, h, j], turned[s, t, h, j + 2]], [pair.real, pair.imag], rtol=1e-12)


def test_pointwise_operations_at_the_ends() -> None:
    """max(x, 0) of infinities and NaN is what NumPy says, and an infinite error stops at a dead unit."""
    x = np.array([[-np.inf, np.inf, -1.0, np.nan]])
    y, vjp = ag.relu.__wrapped__(x)
    assert np.array_equal(y, [[0, np.inf, 0, np.nan]], equal_nan=True)
    assert vjp(np.full((1, 4), np.inf), (True,))[0][0, :3].tolist() == [0, np.inf, 0]


def test_dropout_keeps_by_words_alone() -> None:
    """A mask is a function of seed, step and draw; the rate is met to 5 standard errors; what stays grows."""
    x = np.ones((1, 40, 100))

    def mask(**more: int) -> np.ndarray:
        with qsim.numerics(**more):
            return ag.dropout(x, rate=0.25, name="d")

    first = mask(seed=1)
    assert np.array_equal(first, mask(seed=1))
    assert all(not np.array_equal(first, mask(**more)) for more in ({"seed": 2}, {"seed": 1, "step": 1}))
    assert set(np.unique(first)) == {0, 1 / 0.75}
    assert abs((first == 0).mean() - 0.25) < 5 * math.sqrt(0.25 * 0.75 / first.size)
    assert mask(seed=1, draws=3).shape == (3, 40, 100)
    several = mask(seed=1, draws=3)
    assert np.array_equal(several[0], first[0])
    assert not np.array_equal(several[0], several[1])


@pytest.mark.parametrize(
    ("operation", "message"),
    [
        (lambda: ag.conv2d(normal(1, 2, 3, 3, 4), normal(1, 2, 5, 5, 4), name="c"), "c: kernels of 5x5 pixels and 4 channels"),
        (lambda: ag.conv2d(normal(1, 2, 3, 3, 4), normal(1, 2, 1, 1, 3), name="c"), "do not fit images of 3x3 pixels and 4"),
        (lambda: ag.group_norm(normal(1, 2, 3, 3, 4), normal(1, 4), normal(1, 4), groups=3), "groups = 3 does not divide 4"),
        (lambda: ag.group_norm(normal(1, 2, 3, 3, 4), normal(1, 2), normal(1, 4), groups=2), "takes 4 numbers a weight"),
        (lambda: ag.batch_norm(normal(1, 2, 3, 3, 4), normal(1, 1), normal(1, 4), name="n"), r"not shapes \(1,\)"),
        (lambda: ag.rms_norm(normal(1, 2, 4), normal(1, 1)), "takes 4 numbers"),
        (lambda: ag.add(normal(1, 5, 4), normal(1, 1, 4)), r"add takes arrays of one shape, not \(5, 4\) and \(1, 4\)"),
        (lambda: ag.conv2d(normal(2, 3, 3, 4), normal(1, 2, 1, 1, 4), name="c"), "c: images"),
        (lambda: ag.rope(normal(1, 2, 3, 1, 5)), r"with n even, not an array of shape \(2, 3, 1, 5\)"),
        (lambda: ag.attention(*(normal(1, 2, t, 1, 4) for t in (3, 3, 4))), "attention takes three arrays of one shape"),
        (lambda: ag.swiglu(normal(1, 2, 5)), "swiglu halves the last axis, whose length 5 is odd"),
        (lambda: ag.reshape(normal(1, 2, 5), shape=(3, 3)), r"an array of shape \(2, 5\) has no shape \(3, 3\)"),
        (lambda: ag.average_pool(normal(1, 4, 4), size=2), "images .* are pooled"),
        (lambda: ag.max_pool(normal(1, 2, 3, 4, 4), size=2), "squares of 2x2 pixels do not tile images of 3x4"),
        (lambda: ag.dropout(normal(1, 2), rate=1.0, name="d"), "rate = 1.0 of dropout 'd'"),
        (lambda: ag.embedding(np.array([[4]]), normal(1, 4, 2), name="e"), r"codes of e must be integers in 0 \.\. 3"),
        (lambda: ag.mean_squared_error(normal(1, 2, 3), normal(1, 3, 2)), r"targets of shape \(3, 2\) for results"),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_refused(operation: Any, message: str) -> None:
    """A sentence says which operand does not fit."""
    with pytest.raises(qsim.InputError, match=message):
        operation()


def test_bits_do_not_depend_on_threads() -> None:
    """A convolution and normalizations of many images have the same bits, forward and back, on one thread and on three."""
    x = RNG.standard_normal((6, 32, 32, 16)).astype(np.float32)
    w = RNG.standard_normal((16, 3, 3, 16)).astype(np.float32)
    gain, shift = np.ones(16, np.float32), np.zeros(16, np.float32)
    assert x.size * 9 > MANY

    def loss(params: Any, x: Any) -> Any:
        y = ag.conv2d(x, params["w"], name="c", pad=1)
        y = ag.group_norm(y, params["gain"], params["shift"], groups=4, relu=True)
        y = ag.batch_norm(ag.conv2d(y, params["w"], name="d", pad=1), params["gain"], params["shift"], name="n")
        return ag.mean_squared_error(ag.global_average_pool(y), np.ones((1, 6, 16), np.float32))

    results = []
    for threads in (1, 3):
        qsim.set_threads(threads)
        try:
            with qsim.numerics(fwd_act="e4m3:SR", fwd_weight="e4m3:SR", bwd_act="e4m3:SR", bwd_grad="e5m2:SR"):
                results.append(ag.value_and_grad(loss)({"w": w, "gain": gain, "shift": shift}, x))
        finally:
            qsim.set_threads(None)
    (value, grads), (other, others) = results
    assert value == other
    assert all(np.array_equal(grads[name], others[name]) for name in grads)


@pytest.mark.parametrize("layer", ["linear", "conv2d"])
def test_draws_are_what_single_ones_are(layer: str) -> None:
    """Draw k of many has the bits of a run whose first draw is k, forward and back, when only errors round and when all do."""
    x, w = (normal(4, 6), normal(5, 6)) if layer == "linear" else (normal(4, 5, 5, 2), normal(3, 3, 3, 2))
    gain, shift = normal(3), normal(3)

    def loss(params: Any, x: Any) -> Any:
        if layer == "linear":
            return ag.mean_squared_error(ag.linear(x, params["w"], name="l"), np.zeros((1, 4, 5)))
        y = ag.group_norm(ag.conv2d(x, params["w"], name="c", pad=1), params["gain"], params["shift"], groups=1)
        y = ag.batch_norm(ag.conv2d(ag.relu(y), normal_kernel, name="d"), params["gain"], params["shift"], name="n")
        return ag.mean_squared_error(ag.global_average_pool(y), np.ones((1, 4, 3)))

    normal_kernel = np.random.default_rng(5).standard_normal((1, 3, 1, 1, 3))
    params = {"w": w} if layer == "linear" else {"w": w, "gain": gain, "shift": shift}
    for points in (("bwd_grad",), ag.POINTS):
        policy = dict.fromkeys(points, "e4m3:SR")
        with qsim.numerics(policy, draws=3, seed=4):
            _, together = ag.value_and_grad(loss)(params, x)
        for k in range(3):
            with qsim.numerics(policy, draws=1, first_draw=k, seed=4):
                _, alone = ag.value_and_grad(loss)(params, x)
            assert all(np.array_equal(together[name][k], alone[name][0]) for name in params)
