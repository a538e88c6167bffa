"""The tape and its rounding sites: gradients against central differences, draws, words, and what reads what."""

from __future__ import annotations

import numpy as np
import pytest

import qsim
from qsim.arrays import quantize_draws
from qsim.autograd import POINTS, Numerics, cross_entropy, linear, value_and_grad
from qsim.nn import MLP
from qsim.rounding import Quantizer, stream

MODEL = MLP((6, 5, 4, 3))


@pytest.fixture
def at() -> tuple[dict[str, dict[str, np.ndarray]], tuple[np.ndarray, np.ndarray]]:
    """Return parameters and a batch of seven samples."""
    rng = np.random.default_rng(7)
    params = MODEL.init(rng)
    for layer in params.values():
        layer["b"] += rng.standard_normal(layer["b"].shape) / 4
    return params, (rng.standard_normal((7, 6)), rng.integers(0, 3, 7))


def test_gradients_agree_with_central_differences(at):
    """Every entry of every gradient agrees with a central difference in float64 to 1e-6 of the gradient."""
    params, batch = at
    _, grads = value_and_grad(MODEL.loss)(params, batch)
    h = 1e-6  # truncation h^2 and cancellation 1e-16 / h are both below 1e-9
    for name, layer in params.items():
        for part, array in layer.items():
            numeric = np.empty_like(array)
            for index in np.ndindex(array.shape):
                kept = array[index]
                ends = []
                for moved in (kept + h, kept - h):
                    array[index] = moved
                    ends.append(value_and_grad(MODEL.loss)(params, batch)[0])
                array[index] = kept
                numeric[index] = (ends[0] - ends[1]) / (2 * h)
            assert np.linalg.norm(numeric - grads[name][part]) <= 1e-6 * np.linalg.norm(grads[name][part])


def test_the_loss_is_the_mean_cross_entropy(at):
    """The loss equals -log softmax at the label, averaged, computed by hand."""
    params, (x, y) = at
    hidden = x
    for name in MODEL.layers[:-1]:
        hidden = np.maximum(hidden @ params[name]["w"].T + params[name]["b"], 0)
    scores = hidden @ params[MODEL.layers[-1]]["w"].T + params[MODEL.layers[-1]]["b"]
    by_hand = -np.mean([s[label] - np.log(np.exp(s).sum()) for s, label in zip(scores, y, strict=True)])
    assert value_and_grad(MODEL.loss)(params, (x, y))[0] == pytest.approx(by_hand, rel=1e-14)


def test_without_numerics_nothing_rounds_and_there_is_no_axis_of_draws(at):
    """Outside a numerics context a gradient has the shape of its parameter, and an empty context changes no bit."""
    params, batch = at
    plain = value_and_grad(MODEL.loss)(params, batch)[1]
    with qsim.numerics():
        empty = value_and_grad(MODEL.loss)(params, batch)[1]
    for name in MODEL.layers:
        assert plain[name]["w"].shape == params[name]["w"].shape
        assert np.array_equal(plain[name]["w"], empty[name]["w"])


@pytest.mark.parametrize("point", POINTS)
def test_each_point_rounds_what_its_name_says(at, point):
    """Rounding one point of the last layer gives the gradients of the written-out formula, bit for bit, per draw."""
    params, (x, y) = at
    last, below = MODEL.layers[-1], MODEL.layers[-2]
    q = Quantizer("e4m1fn", "SR")
    with qsim.numerics({f"{last}.{point}": q}, seed=3, draws=4) as context:
        loss, grads = value_and_grad(MODEL.loss)(params, (x, y))
    assert loss.shape == (4,)
    inputs = [x]
    masks = []
    for name in MODEL.layers[:-1]:
        scores = inputs[-1] @ params[name]["w"].T + params[name]["b"]
        masks.append(scores > 0)
        inputs.append(scores * masks[-1])
    for draw in range(4):

        def rounded(tensor, of, draw=draw):
            if of != point:
                return tensor
            drawn = "fwd_weight" if point == "bwd_weight" else point  # one draw of a weight serves both
            words = [stream(site=context.numbers[f"{last}.{drawn}"], draw=draw)]
            return quantize_draws(tensor[None], q, 3, words)[0][0]

        w = params[last]["w"]
        w_forward = rounded(w, "fwd_weight")
        a_forward = rounded(inputs[-1], "fwd_act")
        scores = a_forward @ w_forward.T + params[last]["b"]
        p = np.exp(scores - scores.max(1, keepdims=True))
        p /= p.sum(1, keepdims=True)
        e = rounded(p - np.eye(3)[y], "bwd_grad")
        a_backward = rounded(inputs[-1], "bwd_act") if point == "bwd_act" else a_forward
        w_backward = rounded(w, "bwd_weight") if point == "bwd_weight" else w_forward
        # The rounded operands are the same bits; sums may differ in their order, hence a few ulp of the largest term.
        assert np.allclose(grads[last]["w"][draw], e.T @ a_backward / 7, rtol=1e-13, atol=1e-15)
        assert np.allclose(grads[last]["b"][draw], e.sum(0) / 7, rtol=1e-13, atol=1e-15)
        back = (e @ w_backward) * masks[-1]
        assert np.allclose(grads[below]["w"][draw], back.T @ inputs[-2] / 7, rtol=1e-13, atol=1e-15)


def test_draws_do_not_depend_on_how_many_are_taken_at_a_time(at):
    """Eight draws at once are the same bits as draws 0..2 and then 3..7."""
    params, batch = at
    points = dict.fromkeys(POINTS, "e4m1fn:SR")
    with qsim.numerics(**points, draws=8, seed=1):
        whole = value_and_grad(MODEL.loss)(params, batch)[1]
    parts = []
    for first, draws in ((0, 3), (3, 5)):
        with qsim.numerics(**points, draws=draws, first_draw=first, seed=1):
            parts.append(value_and_grad(MODEL.loss)(params, batch)[1])
    for name in MODEL.layers:
        assert np.array_equal(whole[name]["w"], np.concatenate([part[name]["w"] for part in parts]))


def test_words_of_a_site_do_not_depend_on_other_sites(at):
    """The roundings of one point are the same whether it is switched on alone or with a later one."""
    params, batch = at
    grads = []
    for extra in ({}, {"layer0.bwd_act": "e4m1fn:SR"}):
        with qsim.numerics({"layer2.bwd_act": "e4m1fn:SR", **extra}, draws=3, seed=1):
            grads.append(value_and_grad(MODEL.loss)(params, batch)[1]["layer2"]["w"])
    assert np.array_equal(*grads)


def test_streams_of_draws_are_those_of_the_packing():
    """The streams a context gives its draws are `stream(site, step, draw)`, first and last and between."""
    context = Numerics({}, step=9)
    context.enrol("layer0")
    found = context.streams("layer0.bwd_act", range(5, 9))
    assert [int(s) for s in found] == [stream(site=2, step=9, draw=draw) for draw in range(5, 9)]


def test_a_batch_for_each_draw(at):
    """With `batch_per_draw`, draw k is the gradient of batch k alone."""
    params, (x, y) = at
    batches = np.stack([x, 2 * x]), np.stack([y, y])
    _, grads = value_and_grad(MODEL.loss, batch_per_draw=True)(params, batches)
    for k, scale in enumerate((1, 2)):
        alone = value_and_grad(MODEL.loss)(params, (scale * x, y))[1]
        assert np.allclose(grads["layer1"]["w"][k], alone["layer1"]["w"], rtol=1e-13, atol=1e-16)


def test_errors_after_the_mean_are_those_over_b(at):
    """Rounding errors after the 1/b of the mean rounds error / b: with a step above them all, nearest gives zero."""
    params, batch = at
    q = Quantizer("int8", "RNE", scale=0.5)  # errors are below 1, a seventh of them below half a step
    with qsim.numerics(bwd_grad=q, errors="per_sample"):
        per_sample = value_and_grad(MODEL.loss)(params, batch)[1]
    with qsim.numerics(bwd_grad=q, errors="mean"):
        mean = value_and_grad(MODEL.loss)(params, batch)[1]
    assert np.any(per_sample["layer2"]["w"])
    assert not np.any(mean["layer2"]["w"])


def test_counts_name_the_site(at):
    """A context counts the elements of each site that rounds, and what saturated there."""
    params, batch = at
    with qsim.numerics({"layer0.bwd_act": Quantizer("int2", scale=0.1)}, draws=2) as context:
        value_and_grad(MODEL.loss)(params, batch)
    ((site, counts),) = context.counts.items()
    assert site == "layer0.bwd_act"
    x = batch[0]
    # A deterministic rounding of what both draws share is done once, and stands for both.
    assert counts.elements == 2 * x.size
    assert counts.saturated == 2 * ((x > 0.1) | (x < -0.2)).sum()


def test_bad_points_are_refused_in_one_sentence():
    """A point that does not exist, no draws, and a rounding that does not exist are refused."""
    with pytest.raises(qsim.InputError, match="no quantization point is called 'bwd_activations'"):
        qsim.numerics(bwd_activations="e4m3:SR")
    with pytest.raises(qsim.InputError, match="draws = 0"):
        qsim.numerics(draws=0)
    with pytest.raises(qsim.InputError, match="no format is called 'e4m3x'"):
        qsim.numerics(bwd_act="e4m3x:SR")


def test_a_full_site_name_wins_over_its_point(at):
    """A site named in full takes its own rounding, the other layers that of the point."""
    params, batch = at
    own, general = Quantizer("int4"), Quantizer("int8")
    with qsim.numerics({"layer1.bwd_act": own}, bwd_act=general) as context:
        value_and_grad(MODEL.loss)(params, batch)
    assert context.rounding("layer1", "bwd_act") is own
    assert context.rounding("layer0", "bwd_act") is general


def test_a_site_that_no_layer_has_is_refused(at):
    """A misspelt layer is named when the context ends, rather than rounding nothing."""
    params, batch = at
    with (
        pytest.raises(
            qsim.InputError, match=r"no layer met the site 'layer9\.bwd_act'; the layers were layer0, layer1 or"
        ),
        qsim.numerics({"layer9.bwd_act": "e4m3:SR"}),
    ):
        value_and_grad(MODEL.loss)(params, batch)


def test_a_context_may_be_entered_twice(at):
    """Entering a context inside itself leaves it in force inside, and nothing behind."""
    params, batch = at
    with qsim.numerics(bwd_act="e4m3:SR", draws=2) as context:
        with context:
            inner = value_and_grad(MODEL.loss)(params, batch)[0]
        outer = value_and_grad(MODEL.loss)(params, batch)[0]
    assert inner.shape == outer.shape == (2,)
    assert np.ndim(value_and_grad(MODEL.loss)(params, batch)[0]) == 0


def test_an_error_leaves_nothing_behind(at):
    """After a loss that raises, gradients are what they were."""
    params, (x, y) = at
    before = value_and_grad(MODEL.loss)(params, (x, y))[1]
    with pytest.raises(qsim.InputError, match=r"labels must be integers in 0 \.\. 2"):
        value_and_grad(MODEL.loss)(params, (x, y + 9))
    after = value_and_grad(MODEL.loss)(params, (x, y))[1]
    assert np.array_equal(before["layer0"]["w"], after["layer0"]["w"])


def test_a_tensor_used_twice_gets_both_cotangents():
    """A tensor that two operations read has the sum of what they send back, and an unused loss changes nothing."""
    rng = np.random.default_rng(0)
    w, x, y = rng.standard_normal((3, 3)), rng.standard_normal((4, 3)), np.array([0, 1, 2, 0])
    zero = np.zeros((1, 3))

    def loss(params, batch):
        hidden = linear(batch[0], params, zero, name="a")
        cross_entropy(hidden, batch[1])
        return cross_entropy(linear(hidden, params, zero, name="b"), batch[1])

    _, grad = value_and_grad(loss)(w, (x, y))
    h, numeric = 1e-6, np.empty_like(w)
    for index in np.ndindex(w.shape):
        step = np.zeros_like(w)
        step[index] = h
        numeric[index] = (value_and_grad(loss)(w + step, (x, y))[0] - value_and_grad(loss)(w - step, (x, y))[0]) / (
            2 * h
        )
    assert np.allclose(grad, numeric, rtol=0, atol=1e-8)


@pytest.mark.parametrize(
    "arguments", [{"draws": 2.5}, {"seed": -1}, {"seed": 1.5}, {"step": 1 << 24}, {"first_draw": -1}]
)
def test_numbers_that_are_none_are_refused(arguments):
    """Draws, seeds and steps that do not fit are refused when the context is made."""
    with pytest.raises(qsim.InputError):
        qsim.numerics(**arguments)
