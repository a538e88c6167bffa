"""Optimizers compute their published formulas, and chains of links pass updates and states through."""

from __future__ import annotations

import math

import ml_dtypes
import numpy as np
import pytest

from qsim import optim
from qsim.errors import InputError


def params_of(dtype=np.float64):
    """Return two layers of random parameters."""
    rng = np.random.default_rng(1)
    return {
        "layer0": {"w": rng.normal(size=(3, 4)).astype(dtype), "b": rng.normal(size=3).astype(dtype)},
        "layer1": {"w": rng.normal(size=(2, 3)).astype(dtype)},
    }


def grads_of(step, dtype=np.float64):
    """Return the gradients of a step."""
    rng = np.random.default_rng(100 + step)
    return {
        "layer0": {"w": rng.normal(size=(3, 4)).astype(dtype), "b": rng.normal(size=3).astype(dtype)},
        "layer1": {"w": rng.normal(size=(2, 3)).astype(dtype)},
    }


def train(optimizer, steps=4, dtype=np.float64):
    """Return the parameters and the state after some steps."""
    params = params_of(dtype)
    state = optimizer.init(params)
    for step in range(steps):
        updates, state = optimizer.update(grads_of(step, dtype), state, params)
        params = optim.apply_updates(params, updates)
    return params, state


# An oracle one element at a time, in Python's floats; the arrays may differ by the order of a product, a few ulps a step.
CLOSE = {"rtol": 1e-13, "atol": 1e-14}


def by_element(rule):
    """Return what `rule(p, gradients)` makes of every parameter, element by element."""
    grads = [grads_of(step) for step in range(4)]
    return {
        layer: {
            name: np.array([
                rule(p, [g[layer][name].flat[i] for g in grads]) for i, p in enumerate(array.flat)
            ]).reshape(array.shape)
            for name, array in branch.items()
        }
        for layer, branch in params_of().items()
    }  # fmt: skip


def assert_close(found, expected):
    """Hold two trees together."""
    for layer, branch in expected.items():
        for name, array in branch.items():
            np.testing.assert_allclose(found[layer][name], array, **CLOSE)


@pytest.mark.parametrize("nesterov", [False, True])
@pytest.mark.parametrize("momentum", [0.0, 0.9])
def test_sgd_is_its_formula(momentum, nesterov):
    """SGD with momentum, Nesterov's or not, and decoupled decay takes the steps of its formula."""
    if nesterov and not momentum:
        with pytest.raises(InputError, match="nesterov needs a momentum"):
            optim.sgd(0.1, nesterov=True)
        return

    def rule(p, grads):
        m = 0.0
        for g in grads:
            m = momentum * m + g
            p -= 0.1 * ((g + momentum * m if nesterov else m) + 0.01 * p)
        return p

    optimizer = optim.sgd(0.1, momentum=momentum, nesterov=nesterov, weight_decay=0.01)
    assert_close(train(optimizer)[0], by_element(rule))


def test_adamw_is_its_formula():
    """AdamW corrects both moments for their beginning, and decays weights apart from the gradient."""

    def rule(p, grads):
        m = v = 0.0
        for t, g in enumerate(grads, 1):
            m, v = 0.8 * m + 0.2 * g, 0.95 * v + 0.05 * g * g
            p -= 0.01 * (m / (1 - 0.8**t) / (math.sqrt(v / (1 - 0.95**t)) + 1e-6) + 0.1 * p)
        return p

    assert_close(train(optim.adamw(0.01, 0.8, 0.95, 1e-6, weight_decay=0.1))[0], by_element(rule))


def test_adafactor_is_its_formula():
    """Adafactor divides by the product of its row and column means, clips the RMS, and steps relative to that of p."""

    def rms(x):
        return math.sqrt((x * x).mean())

    expected = {}
    for layer, branch in params_of().items():
        expected[layer] = {}
        for name, p in branch.items():
            r = c = v = 0.0
            for t in range(1, 5):
                g, beta = grads_of(t - 1)[layer][name], 1 - t**-0.8
                square = g**2 + 1e-30
                if p.ndim > 1:
                    r = beta * r + (1 - beta) * square.mean(1)
                    c = beta * c + (1 - beta) * square.mean(0)
                    second = np.outer(r, c) / r.mean()
                else:
                    second = v = beta * v + (1 - beta) * square
                u = g / np.sqrt(second)
                p = p - min(0.01, t**-0.5) * max(1e-3, rms(p)) * u / max(1, rms(u))  # noqa: PLW2901
            expected[layer][name] = p
    found, state = train(optim.adafactor())
    assert_close(found, expected)
    assert state["0"]["moment2"]["layer0"]["w"]["rows"].shape == (3,)  # nothing of the shape of the weight is kept
    assert state["0"]["moment2"]["layer0"]["w"]["columns"].shape == (4,)


def test_decay_leaves_out_what_the_mask_says():
    """Without gradients only the parameters that the mask keeps decay."""
    optimizer = optim.sgd(1.0, weight_decay=0.5, mask=lambda path, p: path != "layer1.w" and p.ndim > 1)
    params = params_of()
    zeros = {"layer0": {"w": np.zeros((3, 4)), "b": np.zeros(3)}, "layer1": {"w": np.zeros((2, 3))}}
    updates, _ = optimizer.update(zeros, optimizer.init(params), params)
    new = optim.apply_updates(params, updates)
    assert (new["layer0"]["w"] == params["layer0"]["w"] / 2).all()
    assert (new["layer0"]["b"] == params["layer0"]["b"]).all()
    assert (new["layer1"]["w"] == params["layer1"]["w"]).all()


def test_clipping_scales_all_together_and_only_above_the_norm():
    """A gradient of norm 5 clipped to 1 is divided by 5, one clipped to 5 or 10 stays, and NaN stays NaN."""
    grads = {"a": np.array([3.0]), "b": np.array([0.0, 4.0])}
    assert optim.global_norm(grads) == 5
    for most, expected in ((1.0, 0.2), (5.0, 1.0), (10.0, 1.0)):
        clipped, _ = optim.clip_by_global_norm(most).update(grads, {}, grads)
        assert (clipped["a"] == grads["a"] * expected).all()
        assert (clipped["b"] == grads["b"] * expected).all()
    bad = {"a": np.array([np.inf]), "b": np.array([0.0, 4.0])}
    clipped, _ = optim.clip_by_global_norm(1.0).update(bad, {}, grads)
    assert np.isnan(clipped["b"]).all()


def test_schedules_pass_through_their_ends():
    """A warm-up rises by equal steps from the first; a cosine goes from its peak by the middle to its end, and stays."""
    schedule = optim.cosine(0.8, 14, end=0.2, warm=4)
    assert [schedule(t) for t in range(4)] == [0.2, 0.4, 0.6000000000000001, 0.8]
    assert schedule(4) == 0.8
    assert schedule(9) == pytest.approx(0.5, rel=1e-15)
    assert schedule(14) == schedule(1000) == 0.2
    assert optim.constant(0.3)(7) == 0.3
    with pytest.raises(InputError, match="at least one step after the warm-up"):
        optim.cosine(1.0, 4, warm=4)


def test_learning_rate_counts_its_steps():
    """A schedule is asked for step 0, 1, 2, ..., and the state says which is next."""
    asked = []
    optimizer = optim.sgd(lambda step: asked.append(step) or 0.1)
    _, state = train(optimizer, 3)
    assert asked == [0, 1, 2]
    assert state == {"0": {"step": 3}}


def test_updates_keep_the_type_of_the_parameters():
    """Float32 parameters, states and updates stay float32 in every optimizer."""
    for optimizer in (optim.sgd(0.1, momentum=0.9), optim.adamw(0.1, weight_decay=0.1), optim.adafactor()):
        params, state = train(optimizer, 2, np.float32)
        for tree in (params, state):
            for _, leaf in optim.tree.parameters(tree):
                assert not isinstance(leaf, np.ndarray) or leaf.dtype == np.float32


def test_update_does_not_change_what_it_is_given():
    """Gradients, state and parameters are the same before and after an update: the functions are pure."""
    optimizer = optim.adamw(0.1, weight_decay=0.1, clip=0.5, rounding={"update": "bfloat16:SR", "moment": "bfloat16"})
    params, grads = params_of(np.float32), grads_of(0, np.float32)
    state = optimizer.init(params)
    first = optim.apply_updates(params, optimizer.update(grads, state, params)[0])
    second = optim.apply_updates(params, optimizer.update(grads, state, params)[0])
    for layer, branch in first.items():
        for name, array in branch.items():
            assert (array == second[layer][name]).all()
            assert (params[layer][name] == params_of(np.float32)[layer][name]).all()


@pytest.mark.parametrize(
    ("grads", "sentence"),
    [
        ({"w": np.zeros((2, 3))}, r"w: an array of shape \(2, 3\) goes with one of shape \(3,\)"),
        ({"v": np.zeros(3)}, r"\['v'\] goes with the names \['w'\]"),
        (np.zeros(3), "ndarray goes with the names"),
    ],
)
def test_gradients_that_do_not_fit_are_refused(grads, sentence):
    """Gradients of another structure or shape (a leading axis of draws) are refused by name."""
    params = {"w": np.zeros(3)}
    optimizer = optim.sgd(0.1)
    with pytest.raises(InputError, match=sentence):
        optimizer.update(grads, optimizer.init(params), params)


def test_params_that_do_not_fit_are_refused():
    """Integers, lists, floats of 8 bits and floats in another byte order are no parameters."""
    for bad in (np.zeros(3, np.int64), [1.0], np.zeros(3, ml_dtypes.float8_e4m3fn), np.zeros(3, ">f4")):
        with pytest.raises(InputError, match=r"layer\.w is"):
            optim.sgd(0.1).init({"layer": {"w": bad}})
    with pytest.raises(InputError, match=r"two parameters are called a\.b"):
        optim.sgd(0.1).init({"a.b": np.zeros(3), "a": {"b": np.zeros(3)}})
    with pytest.raises(InputError, match="nested dicts"):
        optim.sgd(0.1).init(np.zeros(3))


def test_loss_scale_moves_by_its_rule():
    """The scale doubles after `interval` finite steps, halves after any other, stops at its ends; a static one stays."""
    scale = optim.LossScale(first=3, interval=2, least=1, most=4)
    state = scale.init()
    seen = []
    for finite in (True, True, True, True, True, False, True, False, False, False):
        state = scale.update(state, finite=finite)
        seen.append(int(scale.factor(state)))
    assert seen == [8, 16, 16, 16, 16, 8, 8, 4, 2, 2]
    static = optim.LossScale.static(10)
    state = static.update(static.init(), finite=False)
    assert static.factor(state) == 1024
    grads, state = static.unscale({"w": np.array([2048.0, np.inf], np.float32)}, state)
    assert (grads["w"] == [2, np.inf]).all()
    with pytest.raises(InputError, match="lies outside"):
        optim.LossScale(first=30)


@pytest.mark.parametrize("interval", [1, 2, 3, 5])
def test_loss_scale_counts_finite_steps_in_a_row(interval):
    """The scale doubles after every `interval` finite steps since it last moved, and halves at any other."""
    scale, exponent, row = optim.LossScale(3, interval, 0, 6), 3, 0
    state = scale.init()
    for finite in (np.random.default_rng(interval).random(200) < 0.8).tolist():
        row = row + 1 if finite else 0
        if not finite:
            exponent = max(exponent - 1, 0)
        elif row == interval:
            exponent, row = min(exponent + 1, 6), 0
        state = scale.update(state, finite=finite)
        assert state == {"scale": exponent, "good": row}
    static = optim.LossScale.static(3)
    state = static.init()
    for finite in (True, True, False, True):
        state = static.update(state, finite=finite)
    assert state == {"scale": 3, "good": 3}


@pytest.mark.parametrize("exponent", [-126, -125, 125, 126])
def test_loss_scale_moves_at_the_ends_of_float32(exponent):
    """At either end of the range the scale stays where it cannot move, and moves back by one."""
    scale = optim.LossScale(exponent, 1, -126, 126)
    state = scale.init()
    for finite, step in ((True, 1), (False, -1)):
        after = scale.update(state, finite=finite)
        assert after["scale"] == min(max(exponent + step, -126), 126)
        assert scale.factor(after) == 2.0 ** after["scale"]
    back = scale.update(scale.update(state, finite=exponent > 0), finite=exponent < 0)
    assert abs(back["scale"]) < 126 or abs(exponent) == 125


@pytest.mark.parametrize("exponent", [-126, -24, -15, 0, 24, 30, 126])
@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.float16, ml_dtypes.bfloat16])
def test_gradients_are_unscaled_exactly_at_every_scale(exponent, dtype):
    """A gradient is divided by any scale exactly where float32 (float64) holds the quotient, also one of 16 bits."""
    scale = optim.LossScale.static(exponent)
    g = np.array([1.0, -1.5, 2.0**-14, 0.0, np.inf], dtype)
    found, state = scale.unscale({"w": g}, scale.init())
    exact = np.ldexp(g.astype(np.float64), -exponent)
    with np.errstate(all="ignore"):
        expected = exact.astype(np.float64 if dtype is np.float64 else np.float32)
    assert np.array_equal(found["w"], expected)
    assert found["w"].dtype == expected.dtype
    assert state == {"scale": exponent, "good": 0}


def test_states_that_a_loss_scale_cannot_be_in_are_refused():
    """A scale beyond the ends, or one that is no integer, is that of another loss scale; zero-axis arrays of a file are not."""
    scale = optim.LossScale(first=10, least=8, most=12)
    for bad in (7, 13):
        for call in (scale.factor, lambda state: scale.update(state, finite=False), lambda s: scale.unscale({}, s)):
            with pytest.raises(InputError, match=rf"the scale 2\^{bad}, outside 2\^8 .. 2\^12"):
                call({"scale": bad, "good": 0})
    for bad in (10.5, "10", None, True, np.array(10.5)):
        with pytest.raises(InputError, match=r"scale of a LossScale = .* must be an integer"):
            scale.factor({"scale": bad, "good": 0})
    assert scale.factor({"scale": np.int64(10), "good": np.array(0)}) == 1024


def test_a_loss_scale_goes_on_from_a_file(tmp_path):
    """Saved after any number of steps and loaded, a loss scale moves as one that was never saved."""
    scale = optim.LossScale(first=3, interval=2, least=1, most=5)
    state, rng = scale.init(), np.random.default_rng(0)
    resumed = state
    for finite in (rng.random(60) < 0.7).tolist():
        state = scale.update(state, finite=finite)
        optim.save(tmp_path / "c.npz", {"scale": scale.update(resumed, finite=finite)})
        resumed = optim.load(tmp_path / "c.npz")["scale"]
        assert resumed == state


def test_skipped_steps_change_nothing_but_their_count():
    """With a NaN among the gradients neither parameters nor states move, and the step is counted as skipped."""
    optimizer = optim.skip_nonfinite(optim.adamw(0.1))
    params = params_of()
    state = optimizer.init(params)
    grads = grads_of(0)
    grads["layer0"]["b"][1] = np.nan
    updates, new = optimizer.update(grads, state, params)
    assert new["skipped"] == 1
    assert new["inner"] is state["inner"]
    after = optim.apply_updates(params, updates)
    assert (after["layer0"]["w"] == params["layer0"]["w"]).all()
    updates, new = optimizer.update(grads_of(0), new, params)
    assert new["skipped"] == 1
    assert (optim.apply_updates(params, updates)["layer0"]["w"] != params["layer0"]["w"]).all()


def test_empty_chain_is_refused():
    """A chain without links is no optimizer."""
    with pytest.raises(InputError, match="at least one link"):
        optim.chain()


def test_write_back_is_the_last_link():
    """What a link has written cannot be scaled any more."""
    optimizer, params = optim.chain(optim.write_back("bfloat16"), optim.scale(2.0)), {"w": np.ones(2)}
    state = optimizer.init(params)
    with pytest.raises(InputError, match="last of its chain"):
        optimizer.update(params, state, params)
