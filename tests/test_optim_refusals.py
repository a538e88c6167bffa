"""What does not go together, or is no number of an optimizer, is refused in one sentence, before it does harm."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import pytest

import qsim
from qsim import optim
from qsim.errors import InputError

W = {"w": np.ones((2, 3))}
NAN, INF = float("nan"), float("inf")


class Pair(NamedTuple):
    """Hold two parameters as no optimizer takes them."""

    w: Any
    b: Any


@pytest.mark.parametrize(
    ("updates", "sentence"),
    [
        ({"a": np.zeros(2)}, r"the updates: the names \['a'\] goes with the names \['a', 'l'\]"),
        ({"a": np.zeros((3, 1)), "l": W}, r"a: an array of shape \(3, 1\) goes with an array of shape \(2,\)"),
        ({"a": optim.Written(np.zeros(3)), "l": W}, r"a: an array of shape \(3,\) goes with an array of shape \(2,\)"),
        ({"a": [0.0, 0.0], "l": W}, "a: list goes with an array"),
        ({"a": np.zeros(2), "l": np.zeros((2, 3))}, r"l: an array of shape \(2, 3\) goes with the names \['w'\]"),
        ({"a": np.zeros(2), "l": {"w": W}}, r"l\.w: the names \['w'\] goes with an array of shape \(2, 3\)"),
        ([np.zeros(2)], "the updates: list goes with the names"),
    ],
)
def test_updates_have_the_names_and_shapes_of_the_parameters(updates, sentence):
    """No parameter is dropped, added, or grown by broadcasting."""
    with pytest.raises(InputError, match=sentence):
        optim.apply_updates({"a": np.ones(2), "l": W}, updates)


def test_updates_keep_the_order_of_the_parameters():
    """The order of the keys, which numbers the sites, is that of the parameters, not of the updates."""
    new = optim.apply_updates({"b": np.ones(1), "a": np.ones(1)}, {"a": np.ones(1), "b": np.zeros(1)})
    assert list(new) == ["b", "a"]
    assert (new["a"] == 2).all()


# --- States --------------------------------------------------------------------------------------------------------

LINKS = {
    "chain": optim.sgd(0.1),
    "momentum": optim.trace(0.9),
    "Adam": optim.scale_by_adam(),
    "Adafactor": optim.scale_by_factored_rms(),
    "the learning rate": optim.scale_by_learning_rate(0.1),
    "the write-back": optim.write_back("bfloat16", kahan=True),
    "the rounding of gradients": optim.round_gradients("bfloat16"),
    "master weights": optim.master_weights(optim.sgd(0.1)),
    "skip_nonfinite": optim.skip_nonfinite(optim.sgd(0.1)),
    "sharded": optim.sharded(optim.sgd(0.1), 2),
    "a link without one": optim.clip_by_global_norm(1.0),
    "a link without": optim.scale(1.0),
}


@pytest.mark.parametrize("what", LINKS)
@pytest.mark.parametrize("state", [{"other": 1}, [], None], ids=["other", "list", "none"])
def test_states_of_something_else_are_refused(what, state):
    """Every link names itself, its parts, and what it found in their place."""
    with pytest.raises(InputError, match=rf"the state of .*{what}.* has the parts \[.*\], not .*begin with init"):
        LINKS[what].update(W, state, W)


def test_states_of_other_optimizers_and_models_are_refused():
    """The state of AdamW is none of SGD, and that of another model names the array that does not fit."""
    with pytest.raises(InputError, match=r"has the parts \['0'\], not \['0', '1'\]"):
        optim.sgd(0.1).update(W, optim.adamw(0.1).init(W), W)
    for optimizer in (optim.scale_by_adam(), optim.trace(0.9)):
        with pytest.raises(InputError, match=r"w: an array of shape \(3, 2\) goes with one of shape \(2, 3\)"):
            optimizer.update(W, optimizer.init({"w": np.ones((3, 2))}), W)
    factored = optim.scale_by_factored_rms()
    with pytest.raises(InputError, match=r"w: the state has rows of shape \(3,\), not \(2,\)"):
        factored.update(W, factored.init({"w": np.ones((3, 2))}), W)
    with pytest.raises(InputError, match=r"Adafactor for w has the parts \['columns', 'rows'\], not \['whole'\]"):
        factored.update(W, factored.init({"w": np.ones(3)}), W)
    with pytest.raises(InputError, match=r"step = 1\.5, which is no integer"):
        optim.trace(0.9).update(W, optim.trace(0.9).init(W) | {"step": 1.5}, W)


def test_states_of_dqt_are_those_of_its_weights():
    """A state that counts the codes of another model is refused."""
    dqt = optim.DQT()
    optimizer, stored = dqt.optimizer(optim.scale(1.0)), dqt.store(W)
    with pytest.raises(InputError, match=r"codes changed so far has the parts \['w'\], not \['v'\]"):
        optimizer.update(W, optimizer.init(dqt.store({"v": W["w"]})), stored)
    with pytest.raises(InputError, match="the state of DQT has the parts"):
        optimizer.update(W, {}, stored)


# --- Trees ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "params", [[np.ones(2)], Pair(np.ones(2), np.ones(2)), {"layer": Pair(np.ones(2), np.ones(2))}]
)
@pytest.mark.parametrize("optimizer", [optim.sgd(0.1), optim.trace(0.9), optim.write_back("bfloat16")])
def test_lists_and_tuples_are_no_params(params, optimizer):
    """Params in lists or named tuples are refused where an optimizer begins, whole links or single ones."""
    with pytest.raises(
        InputError, match=r"nested dicts of arrays, not (list|Pair)|layer is Pair; parameters are arrays"
    ):
        optimizer.init(params)


def test_leaves_that_are_no_arrays_are_refused():
    """Gradients in lists, and a branch where a leaf belongs, are named by their path."""
    accumulator = optim.Accumulator()
    for bad in ([1.0], 1.0, None, {"deeper": np.ones(1)}):
        with pytest.raises(InputError, match=f"w: {type(bad).__name__} stands where an array belongs"):
            accumulator.add({"w": bad}, accumulator.init({"w": np.ones(1)}))
    with pytest.raises(InputError, match=r"w: an array of shape \(\) goes with one of shape \(2, 3\)"):
        optim.sgd(0.1).update({"w": np.float64(1)}, {"0": {"step": 0}}, W)
    with pytest.raises(InputError, match="nested dicts of arrays, not list"):
        optim.all_reduce([[1, 2]])
    with pytest.raises(InputError, match="the tree: list stands"):
        optim.LossScale().unscale([np.ones(1)], optim.LossScale().init())


def test_replicas_have_a_state_each():
    """Two states for one replica are refused, before anything is updated."""
    state = optim.sgd(0.1).init(W)
    with pytest.raises(InputError, match="2 states go with 1 replicas"):
        optim.update_replicas(optim.sgd(0.1), W, [state, state], [W])


def test_accumulators_round_what_their_rounding_names():
    """A policy without `grad_acc` would leave the sum unrounded in silence; an empty one says so itself."""
    with pytest.raises(InputError, match="names 'moment' and no grad_acc"):
        optim.Accumulator({"moment": "bfloat16"})
    optim.Accumulator({"update": "bfloat16", "w.grad_acc": "bfloat16"})
    optim.Accumulator({})
    with pytest.raises(InputError, match="an Accumulator has the parts"):
        optim.Accumulator().add(W, optim.LossScale().init())


# --- Numbers -------------------------------------------------------------------------------------------------------


RATES = {
    "sgd": optim.sgd,
    "constant": optim.constant,
    "learning rate": optim.scale_by_learning_rate,
    "warmup": lambda x: optim.warmup(3, x),
    "peak": lambda x: optim.cosine(x, 3),
    "end": lambda x: optim.cosine(1.0, 3, end=x),
    "Adam's eps": lambda x: optim.scale_by_adam(eps=x),
    "Adafactor's eps": lambda x: optim.scale_by_factored_rms(eps=x),
    "least RMS": optim.scale_by_parameter_rms,
    "decay": optim.add_decayed_weights,
    "AdamW's decay": lambda x: optim.adamw(0.1, weight_decay=x),
}


@pytest.mark.parametrize("make", RATES)
def test_rates_are_finite_and_not_negative(make):
    """No learning rate, eps, weight decay or least RMS is NaN, infinite, negative or a text; zero is one."""
    for bad in (NAN, -0.1, INF, "0.1"):
        with pytest.raises(InputError, match=r"must be a finite number of at least 0"):
            RATES[make](bad)
    RATES[make](0.0)


def test_other_numbers_that_are_none_are_refused():
    """Neither NaN nor what is not positive bounds a norm, no schedule may give NaN, and no scale is infinite."""
    for bad in (NAN, -1.0, 0.0):
        with pytest.raises(InputError, match="positive number"):
            optim.clip_by_global_norm(bad)
        with pytest.raises(InputError, match="positive number"):
            optim.clip_by_rms(bad)
    optimizer = optim.sgd(lambda step: NAN if step else 0.1)
    _, state = optimizer.update(W, optimizer.init(W), W)
    with pytest.raises(InputError, match="the learning rate of step 1 = nan"):
        optimizer.update(W, state, W)
    for bad in (NAN, INF):
        with pytest.raises(InputError, match="by a finite number"):
            optim.scale(bad)


@pytest.mark.parametrize("scale", ["absmean", "absmax", "signed_max"])
def test_empty_weights_have_no_codes(scale):
    """A weight without elements has no scale; it may stay as it is."""
    empty = {"w": np.zeros((0, 3))}
    with pytest.raises(InputError, match="w is empty"):
        optim.DQT("int4", scale).store(empty)
    assert optim.DQT("int4", scale, select=lambda *_: False).store(empty)["w"] is empty["w"]


@pytest.mark.parametrize(
    ("fields", "sentence"),
    [
        ({"first": 16.5}, "first = 16.5 must be an integer"),
        ({"interval": 1.5}, "interval = 1.5 must be an integer"),
        ({"interval": 0}, "interval = 0 must be at least 1"),
        ({"most": 127}, "most = 127 must lie in -126 .. 126"),
        ({"first": -127, "least": -127}, "first = -127 must lie in"),
    ],
)
def test_loss_scales_are_powers_of_two_of_float32(fields, sentence):
    """Exponents are integers, and both the scale and its reciprocal are normal numbers of float32."""
    with pytest.raises(InputError, match=sentence):
        optim.LossScale(**fields)


def test_static_loss_scales_divide_exactly_or_are_refused():
    """At both ends of the range a float32 gradient is divided exactly; beyond, it would be multiplied by zero."""
    for exponent in (-126, 126):
        scale = optim.LossScale.static(exponent)
        grads, _ = scale.unscale({"w": np.array([scale.factor(scale.init())], np.float32)}, scale.init())
        assert (grads["w"] == 1).all()
    with pytest.raises(InputError, match="first = 200"):
        optim.LossScale.static(200)
    with pytest.raises(InputError, match=r"the scale 2\^200"):
        optim.LossScale().factor({"scale": 200, "good": 0})
    with pytest.raises(InputError, match="a LossScale has the parts"):
        optim.LossScale().update({"step": 0}, finite=True)


def test_loss_scale_divides_once_either_way():
    """A context that multiplies the loss divides the gradients itself; `unscale` serves a loss multiplied by the caller."""
    model, scale = qsim.nn.MLP((3, 2)), optim.LossScale(first=4)
    params = model.init(np.random.default_rng(0))
    batch = np.ones((2, 3)), np.array([0, 1])
    state = scale.init()
    _, expected = qsim.value_and_grad(model.loss)(params, batch)
    with qsim.numerics(loss_scale=scale.factor(state)):
        _, grads = qsim.value_and_grad(model.loss)(params, batch)
    assert scale.update(state, finite=optim.all_finite(grads)) == {"scale": 4, "good": 1}
    assert np.array_equal(grads["layer0"]["w"], expected["layer0"]["w"])
    multiplied = {"w": expected["layer0"]["w"] * scale.factor(state)}
    assert np.array_equal(scale.unscale(multiplied, state)[0]["w"], expected["layer0"]["w"])


# --- Words ---------------------------------------------------------------------------------------------------------

SR = "bfloat16:SR"


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (optim.trace(0.5, rounding=SR), optim.trace(0.5, rounding=SR)),
        (optim.trace(0.5, rounding=SR), optim.sharded(optim.scale_by_adam(rounding={"w.moment": SR}), 2)),
        (optim.scale_by_factored_rms(rounding=SR), optim.skip_nonfinite(optim.adamw(0.1, rounding={"moment": SR}))),
        (optim.round_gradients(SR), optim.master_weights(optim.chain(optim.round_gradients(SR), optim.scale(1.0)))),
    ],
)
def test_links_that_would_share_words_are_refused(one, other):
    """Two links of a chain that round stochastically in one role, however deep, need different seeds."""
    with pytest.raises(InputError, match=r"links 1 and 2 of a chain both round (moment2?|grad_acc) stochastically"):
        optim.chain(optim.scale(1.0), one, other)


@pytest.mark.parametrize(
    "other",
    [
        optim.trace(0.5, rounding=SR, seed=1),
        optim.trace(0.5, rounding="bfloat16"),
        optim.trace(0.5, rounding={"moment": SR, "a.moment": None}),
        optim.write_back(SR),
    ],
)
def test_links_with_words_of_their_own_are_chained(other):
    """Another seed, role or parameter, or a rounding that takes no words, shares nothing."""
    chained = optim.chain(optim.trace(0.5, rounding={"a.moment": SR}), other)
    assert chained.init({"a": np.zeros(2, np.float32)}).keys() == {"0", "1"}
