"""The models: gradients, sizes, what they refuse, and what their parts see of each other."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from differences import assert_gradient

import qsim
from qsim.autograd import leaves_of, tree_map, value_and_grad
from qsim.nn import MLP, Llama, WideResNet


def noisy(params: Any, rng: np.random.Generator) -> None:
    """Move all parameters off their symmetric starts, in place."""
    for array in leaves_of(params):
        np.add(array, 0.1 * rng.standard_normal(array.shape), out=array)


@pytest.mark.parametrize("norm", ["batch", "group"])
def test_gradients_of_a_wide_residual_network(norm: Any) -> None:
    """Five entries of every parameter agree with central differences to 1e-6."""
    rng = np.random.default_rng(1)
    model = WideResNet(10, 1, classes=3, norm=norm, groups=4)
    params = model.init(rng)
    noisy(params, rng)
    assert_gradient(model.loss, params, (rng.standard_normal((3, 8, 8, 3)), np.array([0, 2, 1])), entries=5)


@pytest.mark.parametrize("tied", [False, True])
def test_gradients_of_a_llama(tied: bool) -> None:
    """Eight entries of every parameter agree with central differences to 1e-6."""
    rng = np.random.default_rng(2)
    model = Llama(9, 8, 2, 2, tied=tied)
    params = model.init(rng)
    noisy(params, rng)
    codes = rng.integers(0, 9, (2, 6))
    assert_gradient(model.loss, params, (codes[:, :-1], codes[:, 1:]), entries=8)


@pytest.mark.parametrize(
    ("depth", "widen", "count"), [(16, 1, 175_066), (10, 1, 77_850), (16, 2, 691_674), (16, 4, 2_748_890)]
)
def test_wide_residual_networks_have_the_sizes_of_the_paper(depth: int, widen: int, count: int) -> None:
    """Each stage has (d - 4) / 6 blocks of 3x3 convolutions of 16k, 32k, 64k channels, 1x1 ones where shapes change."""
    params = WideResNet(depth, widen).init(np.random.default_rng(0), np.float32)
    assert sum(array.size for array in leaves_of(params)) == count
    blocks = (depth - 4) // 6
    by_hand, inputs = 3 * 9 * 16 + 10 * 64 * widen + 10 + 2 * 64 * widen, 16
    for stage in range(3):
        for _ in range(blocks):
            outputs = 16 * widen << stage
            by_hand += 9 * outputs * (inputs + outputs) + 2 * (inputs + outputs)
            by_hand += inputs * outputs if inputs != outputs or (stage and not _) else 0
            inputs = outputs
    assert by_hand == count


def test_known_statistics_make_samples_independent() -> None:
    """With given means and variances the scores of a sample do not depend on the others; with those of the batch they do.

    A BLAS may sum in another order where there are more rows: some hundred additions of numbers near 1, in float64.
    """
    rng = np.random.default_rng(3)
    model = WideResNet(10, 1)
    params = model.init(rng)
    lifted = {"x": rng.standard_normal((1, 4, 8, 8, 3))}
    one = tree_map(lambda a: a[None], params)
    with qsim.numerics() as context:
        model.logits(one, lifted["x"])
    known = {name: (mean[0], variance[0]) for name, (mean, variance) in context.observed.items()}
    assert len(known) == 2 * 3 + 1
    whole = model.logits(one, lifted["x"], known)
    assert np.allclose(whole[:, :2], model.logits(one, lifted["x"][:, :2], known), rtol=0, atol=1e-12)
    assert not np.allclose(
        model.logits(one, lifted["x"])[:, :2], model.logits(one, lifted["x"][:, :2]), rtol=0, atol=1e-3
    )


def test_a_llama_sees_no_later_character() -> None:
    """Scores up to a position do not change when a later character does."""
    model = Llama(9, 8, 2, 2)
    params = tree_map(lambda a: a[None], model.init(np.random.default_rng(4)))
    codes = np.array([[[1, 2, 3, 4, 5]]])
    before = model.logits(params, codes)
    codes[0, 0, 3] = 8
    after = model.logits(params, codes)
    assert np.array_equal(before[:, :, :3], after[:, :, :3])
    assert not np.array_equal(before[:, :, 3], after[:, :, 3])


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: WideResNet(12, 1), r"depth = 12 of a WideResNet must be 6 n \+ 4"),
        (lambda: MLP((6, -3)), r"widths = \(6, -3\) of an MLP are at least two positive integers"),
        (lambda: WideResNet(16, 0), "a widening of at least 1"),
        (lambda: WideResNet(16, 1, norm="layer"), "the norm 'batch' or 'group', not"),  # type: ignore[arg-type]
        (lambda: Llama(9, 10, 1, 2), "width = 10 does not divide into 2 heads of an even size"),
        (lambda: Llama(9, 8, 0, 2), "blocks = 0 of a Llama must be at least 1"),
    ],
)
def test_models_that_cannot_be_are_refused(make: Any, message: str) -> None:
    """A sentence says which number does not fit."""
    with pytest.raises(qsim.InputError, match=message):
        make()


@pytest.mark.parametrize("model", [WideResNet(10, 1), Llama(9, 8, 1, 2)], ids=["wide residual network", "llama"])
def test_float32_models_stay_float32(model: Any) -> None:
    """Loss and gradients have the type of the parameters, rounded at all points or not."""
    params = model.init(np.random.default_rng(5), np.float32)
    images = np.ones((2, 8, 8, 3), np.float32), np.array([1, 2])
    batch = images if isinstance(model, WideResNet) else (np.array([[1, 2]]), np.array([[2, 3]]))
    for policy in ({}, dict.fromkeys(("fwd_act", "fwd_weight", "bwd_act", "bwd_weight", "bwd_grad"), "e4m3:SR")):
        with qsim.numerics(policy):
            loss, grads = value_and_grad(model.loss)(params, batch)
        assert all(array.dtype == np.float32 for array in leaves_of(grads))
        assert np.isfinite(loss)


POINTS = ("fwd_act", "fwd_weight", "bwd_act", "bwd_weight", "bwd_grad")


@pytest.mark.parametrize("points", [("bwd_grad",), ("fwd_weight",), POINTS], ids=" ".join)
@pytest.mark.parametrize("name", ["wide residual network", "with groups", "llama", "tied llama"])
def test_draws_of_a_model_are_what_single_ones_are(name: str, points: tuple[str, ...]) -> None:
    """Draw k of many has the bits of a run whose first draw is k, whether activations or errors alone have draws."""
    model, batch = {
        "wide residual network": (WideResNet(10, 1), (np.ones((2, 4, 4, 3)), np.array([1, 2]))),
        "with groups": (WideResNet(10, 1, norm="group"), (np.ones((2, 4, 4, 3)), np.array([1, 2]))),
        "llama": (Llama(9, 8, 1, 2), (np.array([[1, 2]]), np.array([[2, 3]]))),
        "tied llama": (Llama(9, 8, 1, 2, tied=True), (np.array([[1, 2]]), np.array([[2, 3]]))),
    }[name]  # fmt: skip
    params = model.init(np.random.default_rng(6))
    noisy(params, np.random.default_rng(7))
    policy = dict.fromkeys(points, "e4m3:SR")
    with qsim.numerics(policy, draws=2, seed=4):
        losses, together = value_and_grad(model.loss)(params, batch)
    for k in range(2):
        with qsim.numerics(policy, draws=1, first_draw=k, seed=4):
            loss, alone = value_and_grad(model.loss)(params, batch)
        assert np.broadcast_to(losses, 2)[k] == loss[0]
        for many, one in zip(leaves_of(together), leaves_of(alone), strict=True):
            assert np.array_equal(many[k], one[0])


def test_weights_start_with_the_deviations_of_their_models() -> None:
    """Every weight of a thousand numbers or more: its second moment, to five standard errors of that of a normal law."""

    def assert_deviation(array: np.ndarray, deviation: float) -> None:
        assert array.size >= 1000
        assert abs(np.mean(array**2) / deviation**2 - 1) < 5 * np.sqrt(2 / array.size)

    params = WideResNet(10, 2, classes=100).init(np.random.default_rng(8))
    for stage, outputs in enumerate((32, 64, 128)):
        for conv in ("conv0", "conv1"):
            assert_deviation(params[f"stage{stage}"]["block0"][conv]["w"], np.sqrt(2 / (9 * outputs)))
    assert_deviation(params["stage2"]["block0"]["shortcut"]["w"], np.sqrt(2 / 128))
    assert_deviation(params["head"]["w"], np.sqrt(1 / 128))
    params = Llama(100, 32, 2, 2).init(np.random.default_rng(9))
    for name in ("query", "key", "value", "up"):
        assert_deviation(params["block1"][name]["w"], 0.02)
    for name in ("output", "down"):
        assert_deviation(params["block1"][name]["w"], 0.01)  # 0.02 / sqrt(2 blocks)
    for name in ("embedding", "head"):
        assert_deviation(params[name]["w"], 0.02)
