"""Infinities and NaN in operations: results that are defined, where they stay, and no warning of any."""

from __future__ import annotations

import math
import warnings
from typing import Any

import numpy as np
import pytest
from differences import weighted

import qsim
from qsim import autograd as ag
from qsim.kernels.threads import MANY
from qsim.nn import Llama
from qsim.rounding import Quantizer

INF, NAN = np.inf, np.nan

# --- No operation warns --------------------------------------------------------------------------------------

LABELS = np.array([[[2, 0], [2, 1]]])
OPERATIONS: dict[str, tuple[Any, list[tuple[int, ...]]]] = {
    "add": (ag.add, [(3, 2), (3, 2)]),
    "attention": (ag.attention, [(2, 5, 2, 4)] * 3),
    "average_pool": (lambda x: ag.average_pool(x, size=2), [(2, 4, 6, 3)]),
    "batch_norm": (lambda x, g, s: ag.batch_norm(x, g, s, name="n", relu=True), [(2, 6, 5, 4), (4,), (4,)]),
    "batch_norm known": (
        lambda x, g, s: ag.batch_norm(x, g, s, name="n", statistics=(np.array([INF, NAN, 0, -1]), np.array([INF, NAN, 0, -1]))),
        [(2, 6, 5, 4), (4,), (4,)],
    ),
    "conv2d": (lambda x, w: ag.conv2d(x, w, name="c", pad=1), [(2, 6, 5, 4), (3, 3, 3, 4)]),
    "cross_entropy": (lambda x: ag.cross_entropy(x, LABELS), [(2, 2, 3)]),
    "dropout": (lambda x: ag.dropout(x, rate=0.4, name="d"), [(5, 6)]),
    "embedding": (lambda w: ag.embedding(LABELS, w, name="e"), [(4, 3)]),
    "gelu": (ag.gelu, [(17,)]),
    "global_average_pool": (ag.global_average_pool, [(2, 4, 6, 3)]),
    "group_norm": (lambda x, g, s: ag.group_norm(x, g, s, groups=2, relu=True), [(2, 6, 5, 4), (4,), (4,)]),
    "layer_norm": (ag.layer_norm, [(2, 3, 5), (5,), (5,)]),
    "linear": (lambda x, w, b: ag.linear(x, w, b, name="l"), [(3, 4), (5, 4), (5,)]),
    "max_pool": (lambda x: ag.max_pool(x, size=2), [(2, 4, 6, 3)]),
    "mean_squared_error": (ag.mean_squared_error, [(4, 3), (4, 3)]),
    "relu": (ag.relu, [(17,)]),
    "reshape": (lambda x: ag.reshape(x, shape=(-1, 3)), [(2, 6)]),
    "rms_norm": (ag.rms_norm, [(2, 3, 5), (5,)]),
    "rope": (ag.rope, [(2, 5, 2, 4)]),
    "silu": (ag.silu, [(17,)]),
    "swiglu": (ag.swiglu, [(3, 8)]),
}  # fmt: skip


def test_every_operation_is_tried() -> None:
    """What the package exports as an operation stands in the table above."""
    operations = {name for name in ag.__all__ if getattr(getattr(ag, name), "is_operation", False)}
    assert operations == {name.split()[0] for name in OPERATIONS}


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("name", OPERATIONS)
def test_no_operation_warns(name: str, dtype: Any) -> None:
    """Forward and backward, rounded or not, with infinities, NaN, the ends of the type and zeros in every array."""
    operation, shapes = OPERATIONS[name]
    largest, least = np.finfo(dtype).max, np.finfo(dtype).smallest_subnormal
    special = np.array([INF, -INF, NAN, largest, -largest, least, 0.0, -0.0, 1.0, -1.0], dtype)
    rng = np.random.default_rng(0)
    for trial in range(8):
        arrays = [rng.standard_normal(shape).astype(dtype) for shape in shapes]
        for array in arrays:
            places = rng.choice(array.size, max(1, array.size // (1 if trial % 2 else 4)), replace=False)
            array.reshape(-1)[places] = rng.choice(special, len(places))
        params = {str(k): array for k, array in enumerate(arrays)}
        whole = operation(*(array[None] for array in arrays))
        weights = rng.choice(special, whole.shape[1:]).astype(dtype)
        policy: Any = (
            {}, dict.fromkeys(ag.POINTS, "e5m2:SR"), dict.fromkeys(ag.POINTS, Quantizer("int8", scale="absmax")),
            dict.fromkeys(ag.POINTS, "uint4"),
        )[trial // 2]  # fmt: skip

        def loss(p: Any, w: Any) -> Any:
            y = operation(*p.values())
            return y if y.value.ndim == 1 else weighted(y, w)

        with qsim.numerics(policy, clamp=("pass", "stop")[trial % 2], draws=(None, 3)[trial // 4], loss_scale=2.0**126):
            ag.value_and_grad(loss)(params, weights)
            operation(*arrays) if name not in ("cross_entropy", "embedding") else None


@pytest.mark.parametrize("name", ["attention", "group_norm", "batch_norm", "conv2d"])
def test_no_thread_warns(name: str) -> None:
    """The same of arrays so large that threads share the work, each of which has a state of NumPy of its own."""
    rng = np.random.default_rng(1)
    shapes = {"attention": [(4, 130, 4, 8)] * 3, "conv2d": [(8, 32, 32, 16), (4, 3, 3, 16)]}
    given = shapes.get(name, [(16, 40, 40, 12), (12,), (12,)])
    arrays = [np.where(rng.random(shape) < 0.1, INF, rng.standard_normal(shape)).astype(np.float32) for shape in given]
    assert MANY <= 4 * 4 * 130**2  # scores
    assert MANY <= 16 * 40 * 40 * 12  # pixels, as many as there are patches' elements at the least
    options: Any = {"group_norm": {"groups": 3}, "batch_norm": {"name": "n"}, "conv2d": {"name": "c"}}.get(name, {})
    params = {str(k): array for k, array in enumerate(arrays)}
    qsim.set_threads(3)
    try:
        with warnings.catch_warnings(record=True) as caught:  # those of threads too, which no error reaches
            warnings.simplefilter("always")
            ag.value_and_grad(
                lambda p, _: ag.mean_squared_error(
                    y := getattr(ag, name)(*p.values(), **options), np.zeros((1, *y.value.shape[1:]), np.float32)
                )
            )(params, ())
    finally:
        qsim.set_threads(None)
    assert [str(warning.message) for warning in caught] == []


# --- Values --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("name", ["silu", "gelu"])
def test_activations_at_infinity_are_their_limits(name: str, dtype: Any) -> None:
    """-0 at -inf, inf at inf, slopes 0 and 1, NaN of NaN; and numbers of any size beside them."""
    x = np.array([[-INF, INF, NAN, -np.finfo(dtype).max, np.finfo(dtype).max, 0.0, -0.0]], dtype)
    y = getattr(ag, name)(x)
    assert np.array_equal(y, [[-0.0, INF, NAN, -0.0, x[0, 4], 0.0, -0.0]], equal_nan=True)
    assert np.signbit(y[0, [0, 3, 6]]).all()
    assert not np.signbit(y[0, 5])
    slope = ag.value_and_grad(lambda p, w: weighted(getattr(ag, name)(p), w))(x[0], np.ones(7, dtype))[1]
    assert np.array_equal(slope, [0, 1, NAN, 0, 1, 0.5, 0.5], equal_nan=True)
    assert y.dtype == slope.dtype == dtype


def test_a_gate_at_infinity() -> None:
    """SwiGLU's gate is silu: closed at -inf, where what it gates is 0, open at inf."""
    x = np.array([-INF, INF, -INF, 1.0, 2.0, 3.0, INF, INF])
    y, slope = ag.swiglu(x), ag.value_and_grad(lambda p, w: weighted(ag.swiglu(p), w))(x, np.ones(4))[1]
    assert np.array_equal(y, [-0.0, INF, NAN, INF], equal_nan=True)
    assert np.array_equal(slope[:7], [0, 3, NAN, INF, -0.0, INF, -0.0], equal_nan=True)
    assert slope[7] == pytest.approx(1 / (1 + math.exp(-1)), rel=1e-15)


def test_dropped_numbers_are_zero_whatever_they_were() -> None:
    """An infinity or NaN that is dropped is 0, and so is its error."""
    x = np.full((1, 200), INF)
    x[0, ::2] = NAN
    y = ag.dropout(x, rate=0.5, name="d")
    dropped = y == 0
    assert 50 < dropped.sum() < 150
    assert not np.isfinite(y[~dropped]).any()


CASES = [
    ([[0.0, 0.0, -INF]], [0], math.log(2), [[-0.5, 0.5, 0]]),
    ([[0.0, 0.0, -INF]], [2], INF, [[0.5, 0.5, -1]]),
    ([[-INF, 0.0, -INF]], [1], 0.0, [[0, 0, 0]]),
    ([[-INF, -INF, -INF]], [0], NAN, [[NAN] * 3]),
    ([[0.0, INF, 1.0]], [1], NAN, [[NAN] * 3]),
    ([[0.0, INF, 1.0]], [0], NAN, [[NAN] * 3]),
    ([[0.0, INF, -INF]], [2], NAN, [[NAN] * 3]),
    ([[0.0, NAN, 1.0]], [0], NAN, [[NAN] * 3]),
    ([[0.0, 0.0, -INF], [0.0, -INF, 0.0]], [0, 1], INF, [[-0.25, 0.25, 0], [0.25, -0.5, 0.25]]),
    ([[-INF] * 3, [0.0, -INF, 0.0]], [0, 2], NAN, [[NAN] * 3, [0.25, 0, -0.25]]),
    ([[1e38, -1e38, -INF]], [0], 0.0, [[0, 0, 0]]),
]  # fmt: skip
"""Logits, labels, the loss and its gradient: those that PyTorch 2.13 gives, to the last digits."""


@pytest.mark.parametrize("errors", ["per_sample", "mean"])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize(("logits", "labels", "value", "gradient"), CASES)
def test_cross_entropy_of_infinite_logits(
    logits: Any, labels: Any, value: float, gradient: Any, dtype: Any, errors: Any
) -> None:
    """A class of logit -inf has probability 0 and no part in the loss, unless it is the label: then that is inf."""
    with qsim.numerics(errors=errors):
        found, grad = ag.value_and_grad(ag.cross_entropy)(np.array(logits, dtype), np.array(labels))
    assert found == pytest.approx(value, rel=1e-6, nan_ok=True)
    np.testing.assert_allclose(grad, gradient, rtol=1e-6)
    assert found == pytest.approx(ag.cross_entropy(np.array(logits, dtype), np.array(labels)), nan_ok=True, abs=0)


def test_cross_entropy_of_masked_classes() -> None:
    """Masked classes change neither the loss nor the gradient of the others: both are those without the classes."""
    rng = np.random.default_rng(2)
    z, y = rng.standard_normal((2, 5, 7)), rng.integers(0, 4, (2, 5))
    mask = np.where(np.arange(7) < 4, 0.0, -INF)

    def loss(p: Any, batch: Any) -> Any:
        return ag.cross_entropy(ag.add(p, batch[0]), batch[1])

    found, grad = ag.value_and_grad(loss)(z, (np.broadcast_to(mask, z.shape), y))
    few, some = ag.value_and_grad(loss)(z[..., :4], (np.zeros((2, 5, 4)), y))
    assert found == pytest.approx(few, rel=1e-15)
    np.testing.assert_allclose(grad[..., :4], some, rtol=1e-14)
    assert not grad[..., 4:].any()


def test_cross_entropy_takes_one_draw_of_labels_for_several_of_logits() -> None:
    """Each draw of the logits meets the labels, and each draw of labels the logits, as a loop over them says."""
    rng = np.random.default_rng(3)
    z, y = rng.standard_normal((3, 4, 5)), rng.integers(0, 5, (3, 4))
    for logits, labels in ((z, y[:1]), (z[:1], y), (z, y)):
        by_hand = [
            float(ag.cross_entropy(logits[min(d, len(logits) - 1)], labels[min(d, len(labels) - 1)])) for d in range(3)
        ]
        np.testing.assert_allclose(ag.cross_entropy(logits, labels), by_hand, rtol=1e-15)


# --- Attention -----------------------------------------------------------------------------------------------

LENGTH = 6


def attention_and_gradients(q: Any, k: Any, v: Any, w: Any) -> list[np.ndarray]:
    """Return what attention gives, and the gradients of its sum with weights w."""
    _, grads = ag.value_and_grad(lambda p, w: weighted(ag.attention(p["q"], p["k"], p["v"]), w))(
        {"q": q, "k": k, "v": v}, w
    )
    return [ag.attention(q, k, v), *grads.values()]


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("bad", [INF, -INF, NAN, "largest"])
@pytest.mark.parametrize("at", range(1, LENGTH))
@pytest.mark.parametrize("which", ["q", "k", "v", "all"])
def test_a_later_position_reaches_no_earlier_one(which: str, at: int, bad: Any, dtype: Any) -> None:
    """Whatever stands at a position, every earlier one has the very bits that it has without it, through scores and values.

    Backward, where errors of the earlier positions alone come in, so have the gradients there, and later ones get nothing.
    """
    rng = np.random.default_rng(at)
    arrays = {name: rng.standard_normal((2, LENGTH, 2, 4)).astype(dtype) for name in "qkv"}
    weights = rng.standard_normal((2, LENGTH, 2, 4)).astype(dtype)
    weights[:, at:] = 0
    before = attention_and_gradients(*arrays.values(), weights)
    number = np.finfo(dtype).max if bad == "largest" else dtype(bad)
    for name in "qkv" if which == "all" else which:
        arrays[name][:, at:, 1, 1:3] = number
        arrays[name][0, at:] = number
    after = attention_and_gradients(*arrays.values(), weights)
    for was, now in zip(before, after, strict=True):
        assert np.array_equal(was[:, :at], now[:, :at])
    assert not np.isnan(after[0][:, :at]).any()
    assert not any(gradient[:, at:].any() for gradient in after[1:])


@pytest.mark.parametrize("bad", [INF, -INF, NAN])
@pytest.mark.parametrize("at", range(LENGTH - 1))
def test_an_error_reaches_no_position_that_it_does_not_see(at: int, bad: float) -> None:
    """An infinite error at a position reaches the queries there and keys and values up to there, and no others."""
    rng = np.random.default_rng(at)
    arrays = [rng.standard_normal((1, LENGTH, 2, 4)) for _ in range(3)]
    weights = rng.standard_normal((1, LENGTH, 2, 4))
    _, *before = attention_and_gradients(*arrays, weights)
    weights[:, at] = bad
    _, to_q, to_k, to_v = attention_and_gradients(*arrays, weights)
    others = np.arange(LENGTH) != at
    assert np.array_equal(to_q[:, others], before[0][:, others])
    for now, was in ((to_k, before[1]), (to_v, before[2])):
        assert np.array_equal(now[:, at + 1 :], was[:, at + 1 :])
        assert not np.isfinite(now[:, : at + 1]).all()


def test_what_is_seen_is_seen() -> None:
    """An infinite value that a position sees makes it infinite; a NaN in a key makes it and every later one NaN."""
    q, k, v = (np.zeros((1, 4, 1, 2)) for _ in range(3))
    v[0, 1, 0] = INF, 1
    v[0, 2, 0] = -INF, 2
    y = ag.attention(q, k, v)[0, :, 0]
    assert np.array_equal(y, [[0, 0], [INF, 0.5], [NAN, 1], [NAN, 0.75]], equal_nan=True)
    k[0, 2] = NAN
    assert np.isnan(ag.attention(q, k, np.ones_like(v))[0, :, 0, 0]).tolist() == [False, False, True, True]


def test_a_llama_sees_no_later_infinity() -> None:
    """A code whose embedding is infinite or NaN changes no score before it, with rotations, norms and gates in between."""
    model = Llama(9, 8, 2, 2)
    params = model.init(np.random.default_rng(4))
    codes = np.array([[1, 2, 3, 4, 5], [5, 4, 3, 2, 1]])
    before = model.logits(params, codes)
    for bad in (INF, NAN, 1e308):
        params["embedding"]["w"][8] = bad
        later = codes.copy()
        later[:, 3] = 8
        after = model.logits(params, later)
        assert np.array_equal(before[:, :3], after[:, :3])
        assert not np.array_equal(before[:, 3:], after[:, 3:])
