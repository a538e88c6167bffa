"""What `value_and_grad` takes: trees and types of parameters, empty batches, loss scales at their ends, words taken twice."""

from __future__ import annotations

import itertools
import warnings
from collections import OrderedDict
from typing import Any, NamedTuple

import ml_dtypes
import numpy as np
import pytest

import qsim
from qsim import autograd as ag
from qsim import optim
from qsim.autograd import leaves_of, tree_map, value_and_grad
from qsim.nn import MLP, Llama, WideResNet

MODEL = MLP((4, 3, 2))
PARAMS = MODEL.init(np.random.default_rng(0))
X, Y = np.random.default_rng(1).standard_normal((5, 4)), np.arange(5) % 2


def layer(params: Any, x: Any) -> Any:
    """Return the squared results of one layer."""
    y = ag.linear(x, params["w"], name="l")
    return ag.mean_squared_error(y, np.zeros((1, *y.value.shape[1:])))


W = np.random.default_rng(2).standard_normal((3, 4))

# --- Trees and types -----------------------------------------------------------------------------------------


class Pair(NamedTuple):
    """Two parameters."""

    w: Any
    b: Any


def test_the_gradient_has_the_structure_of_the_parameters() -> None:
    """Dicts, lists, tuples and named tuples come back as what they are, in and below each other."""

    def loss(p: Any, x: Any) -> Any:
        hidden = ag.linear(x, p["first"].w, p["first"].b, name="a")
        return ag.mean_squared_error(ag.linear(hidden, p["rest"][0][1], name="b"), np.zeros((1, 5, 2)))

    params = {"first": Pair(W, np.ones(3)), "rest": [(np.ones(1), np.ones((2, 3)))]}
    grads = value_and_grad(loss)(params, X)[1]
    assert isinstance(grads["first"], Pair)
    assert type(grads["rest"]) is list
    assert type(grads["rest"][0]) is tuple
    assert [g.shape for g in leaves_of(grads)] == [p.shape for p in leaves_of(params)]
    assert not grads["rest"][0][0].any()  # nothing reads it
    moved = tree_map(lambda p, g: p - g, params, grads)
    assert isinstance(moved["first"], Pair)
    with qsim.numerics(draws=2):
        assert value_and_grad(loss)(params, X)[1]["first"].w.shape == (2, 3, 4)
    one = value_and_grad(lambda p, x: layer({"w": p.w}, x))(Pair(W, np.ones(1)), X)[1]
    assert np.array_equal(one.w, value_and_grad(layer)({"w": W}, X)[1]["w"])
    assert value_and_grad(layer)(OrderedDict(w=W), X)[1].keys() == {"w"}


@pytest.mark.parametrize("dtype", [np.float16, ml_dtypes.bfloat16])
@pytest.mark.parametrize("policy", [{}, dict.fromkeys(ag.POINTS, "e4m3:SR")])
def test_parameters_of_sixteen_bits_are_the_float32_numbers_that_they_are(dtype: Any, policy: Any) -> None:
    """Gradients, losses and scores of float16 and bfloat16 parameters and data are those of the same numbers in float32."""
    narrow, x = tree_map(lambda p: p.astype(dtype), PARAMS), X.astype(dtype)
    wide = tree_map(lambda p: p.astype(np.float32), narrow)
    found = []
    for params, data in ((narrow, x), (wide, x.astype(np.float32))):
        with qsim.numerics(policy, step=1):
            found.append((value_and_grad(MODEL.loss)(params, (data, Y)), MODEL.logits(params, data)))
    (first, second), (scores, others) = zip(*found, strict=True)
    assert first[0] == second[0]
    for got, expected in zip(leaves_of(first[1]), leaves_of(second[1]), strict=True):
        assert got.dtype == np.float32
        assert np.array_equal(got, expected)
    assert np.array_equal(scores, others)
    assert np.array_equal(
        ag.linear(x, narrow["layer0"]["w"], name="l"), ag.linear(x.astype(np.float32), wide["layer0"]["w"], name="l")
    )


def test_numbers_of_the_other_byte_order() -> None:
    """They are the same numbers, and round."""
    for dtype in (np.float32, np.float64):
        swapped = W.astype(np.dtype(dtype).newbyteorder(">"))
        with qsim.numerics(fwd_weight="int8"):
            got = value_and_grad(layer)({"w": swapped}, X.astype(dtype))[1]["w"]
        with qsim.numerics(fwd_weight="int8"):
            assert np.array_equal(got, value_and_grad(layer)({"w": W.astype(dtype)}, X.astype(dtype))[1]["w"])


class Foreign:
    """An array of another package that NumPy cannot read."""

    def __array__(self, *_: Any, **__: Any) -> Any:
        raise RuntimeError("it requires grad")


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"w": W * 1j}, "parameter 'w' is complex128; parameters are arrays of float32 or float64"),
        ({"w": W.astype(object)}, "parameter 'w' is object"),
        ({"w": W.astype(int)}, "parameter 'w' is int64"),
        ({"w": W > 0}, "parameter 'w' is bool"),
        ({"w": None}, "parameter 'w' is object"),
        ({"w": "float32"}, "parameter 'w' is <U7"),
        ({"w": W, "deep": {"er": [W, 1]}}, r"parameter 'deep\.er\.1' is int64"),
        ({"w": np.ma.masked_array(W, W > 1)}, "parameter 'w' is a masked array"),
        ({"w": Foreign()}, r"parameter 'w' is a .*Foreign that NumPy cannot read \(it requires grad\)"),
        ({"w": W.tolist()}, "linear takes arrays, not a list; make an array of it first"),
        ({"v": W}, "no parameter is called 'w', which the loss asks for; those there are 'v'"),
        ({}, "no parameter is called 'w', which the loss asks for; those there are none"),
        (W, "an array of shape .* is asked for its part 'w'"),
        (W.astype(int), "the parameter is int64"),
    ],
)  # fmt: skip
def test_parameters_that_are_none_are_refused(params: Any, message: str) -> None:
    """One sentence names the parameter, what it is, and what it should be."""
    with pytest.raises(qsim.InputError, match=message):
        value_and_grad(layer)(params, X)


@pytest.mark.parametrize(
    ("x", "message"),
    [
        (X * 1j, "linear takes arrays of real numbers, not of complex128"),
        (X.astype(object), "linear takes arrays of real numbers, not of object"),
        (X.tolist(), "linear takes arrays, not a list"),
        ({"x": X}, "linear takes arrays, not a dict"),
        (np.ma.masked_array(X, X > 1), "an array of the batch is a masked array"),
        (Foreign(), "an array of the batch is a .*Foreign that NumPy cannot read"),
        (np.array("x"), "linear takes arrays of real numbers, not of <U1"),
    ],
)
def test_a_batch_of_no_arrays_is_refused(x: Any, message: str) -> None:
    """One sentence says what an operation was given."""
    with pytest.raises(qsim.InputError, match=message):
        value_and_grad(layer)({"w": W}, x)


def test_what_a_loss_does_not_read_may_be_anything() -> None:
    """Names, and nothing, may stand in a batch beside the arrays."""
    batch = {"x": X, "names": ["a", "b"], "mask": None}
    got = value_and_grad(lambda p, b: layer(p, b["x"]) if b["mask"] is None else None)({"w": W}, batch)
    assert got[0] == value_and_grad(layer)({"w": W}, X)[0]


def test_a_missing_parameter_of_a_model_is_named() -> None:
    """A model that misses a layer, or a part of one, says which, and which there are."""
    for missing, message in (
        ({"layer0": PARAMS["layer0"]}, "no parameter is called 'layer1', which the loss asks for; those there are 'layer0'"),
        ({**PARAMS, "layer1": {"w": PARAMS["layer1"]["w"]}}, r"called 'layer1\.b', which .* there are 'layer1\.w'"),
    ):  # fmt: skip
        with pytest.raises(qsim.InputError, match=message):
            value_and_grad(MODEL.loss)(missing, (X, Y))
    with pytest.raises(qsim.InputError, match="one of them is a single number"):
        value_and_grad(layer, batch_per_draw=True)({"w": W}, 1.0)


# --- Empty batches -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("policy", [{}, dict.fromkeys(ag.POINTS, "e4m3:SR")])
@pytest.mark.parametrize("draws", [None, 3])
def test_an_empty_batch_has_gradients_of_zero(policy: Any, draws: int | None) -> None:
    """As PyTorch has it: no samples, so empty gradients of them, and zeros for what they share; and no statistics."""

    @ag.op
    def total(y: Any) -> Any:
        return y.sum(tuple(range(1, y.ndim))), lambda g, _: (np.ones((len(g), *y.shape[1:])),)

    gain, images = np.ones(4), np.zeros((0, 4, 4, 4))
    cases: list[tuple[Any, tuple[np.ndarray, ...]]] = [
        (lambda x, g, s: ag.group_norm(x, g, s, groups=2, relu=True), (images, gain, gain)),
        (lambda x, g, s: ag.batch_norm(x, g, s, name="n"), (images, gain, gain)),
        (lambda x, g, s: ag.batch_norm(x, g, s, name="n", statistics=(gain, gain)), (images, gain, gain)),
        (ag.layer_norm, (np.zeros((0, 3, 4)), gain, gain)),
        (ag.rms_norm, (np.zeros((0, 4)), gain)),
        (lambda x, w: ag.conv2d(x, w, name="c", pad=1), (images, np.ones((3, 3, 3, 4)))),
        (lambda x, w: ag.conv2d(x, w, name="c"), (images, np.ones((3, 1, 1, 4)))),
        (lambda x, w, b: ag.linear(x, w, b, name="l"), (np.zeros((0, 4)), np.ones((3, 4)), np.ones(3))),
        (lambda x, w: ag.linear(x, w, name="l"), (np.zeros((0, 5, 4)), np.ones((3, 4)))),
        (lambda w: ag.embedding(np.zeros((1, 0, 3), int), w, name="e"), (np.ones((5, 4)),)),
        (ag.attention, (np.zeros((0, 5, 2, 4)),) * 3),
        (ag.rope, (np.zeros((0, 5, 2, 4)),)),
        (lambda x: ag.max_pool(x, size=2), (images,)),
        (lambda x: ag.average_pool(x, size=2), (images,)),
        (ag.global_average_pool, (images,)),
        (lambda x: ag.dropout(x, rate=0.5, name="d"), (np.zeros((0, 4)),)),
        (ag.silu, (np.zeros((0, 4)),)),
        (ag.gelu, (np.zeros((0, 4)),)),
        (ag.swiglu, (np.zeros((0, 4)),)),
        (ag.relu, (np.zeros((0, 4)),)),
    ]
    for operation, arrays in cases:
        with qsim.numerics(policy, draws=draws) as context:
            _, grads = value_and_grad(lambda p, _, f=operation: total(f(*p)))(arrays, ())
        assert [g.shape for g in grads] == [(*((draws,) if draws else ()), *array.shape) for array in arrays]
        assert not any(g.any() for g in grads)
        assert not context.observed


# --- Loss scales ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("errors", ["per_sample", "mean"])
@pytest.mark.parametrize("draws", [None, 5])
@pytest.mark.parametrize("exponent", [-126, -100, -24, 0, 1, 24, 100, 120, 126, 127])
def test_a_loss_scale_at_its_ends(
    exponent: int, draws: int | None, errors: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A batch of 256 in float32: b times the scale is beyond the range, and the gradient is the one without a scale.

    Numbers are chosen so that nothing over- or underflows but a product of b and the scale would; cut draws are the same.
    """
    b, size = 256, 2.0 ** (-exponent // 2)
    x, w = np.ones((b, 2), np.float32), np.float32([[size * 3e-3, size * 7e-3]])
    target = np.zeros((b, 1), np.float32)
    plain = None
    for scale, cache in itertools.product((1.0, 2.0**exponent), (1, 1 << 30)):
        monkeypatch.setattr("qsim.autograd.tape.CACHE", cache)
        with qsim.numerics(loss_scale=scale, draws=draws, errors=errors):
            got = value_and_grad(lambda p, d: ag.mean_squared_error(ag.linear(d[0], p, name="l"), d[1]))(
                w, (x, target)
            )[1]
        plain = got if plain is None else plain
        if draws or cache > 1:
            assert np.array_equal(got, plain)
    assert got.any()
    assert np.isfinite(got).all()


@pytest.mark.parametrize("draws", [None, 4])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_a_loss_scale_beyond_the_type_is_refused(dtype: Any, draws: int | None) -> None:
    """A power that the type of a parameter does not hold is refused in a sentence, and the last that it holds is taken."""
    last = np.finfo(dtype).maxexp - 1
    least = np.finfo(dtype).minexp - np.finfo(dtype).nmant
    w, x = W.astype(dtype), X.astype(dtype)

    def run(exponent: int, **more: Any) -> Any:
        with qsim.numerics(loss_scale=2.0**exponent, draws=draws):
            return value_and_grad(layer)({"w": w, **more}, x)

    for exponent in (last, least):
        assert run(exponent)[1]["w"].dtype == dtype
    refused = r"loss_scale = 2\^128 is beyond the range of float32, the type of parameter '{}'"
    with pytest.raises(qsim.InputError, match=refused.format("w" if dtype == np.float32 else "other")):
        run(128, other=np.ones(1, np.float32))
    if dtype == np.float32:
        with pytest.raises(qsim.InputError, match=r"loss_scale = 2\^-150 is beyond the range"):
            run(-150)


def test_a_loss_scale_leaves_subnormal_gradients_rounded_once() -> None:
    """A gradient that is no normal number is the true one rounded to nearest, once, whatever the scale it was computed by."""
    w, x = np.float32([[1.0]]), np.float32([[1.0]] * 3)
    for k in range(1, 40):
        target = np.float32([[1 - k * 2.0**-20]] * 3)
        with qsim.numerics(loss_scale=2.0**100):
            big = value_and_grad(lambda p, d: ag.mean_squared_error(ag.linear(d[0], p, name="l"), d[1]))(
                w, (x, target)
            )[1]
        assert big[0, 0] == np.float32(k * 2.0**-20)
    tiny = np.float32(5 * 2.0**-149)
    with qsim.numerics(loss_scale=2.0**100):
        got = value_and_grad(lambda p, d: ag.mean_squared_error(ag.linear(d[0], p, name="l"), d[1]))(
            np.float32([[0.0]]), (np.float32([[1.0], [1.0], [0.0]]), -np.float32([[tiny], [tiny], [tiny]]))
        )[1]
    assert got[0, 0] == np.float32(10 / 3 * 2.0**-149)


# --- Words that are taken twice ------------------------------------------------------------------------------

SR = {"bwd_grad": "e4m3:SR"}


def gradient(params: Any, batch: Any, loss: Any = MODEL.loss, **choices: Any) -> Any:
    """Return the gradient in a context of its own."""
    with qsim.numerics(SR, **choices):
        return value_and_grad(loss)(params, batch)[1]


def other(params: Any) -> Any:
    """Return the parameters after an update."""
    return tree_map(lambda p: p + 0.125, params)


def test_two_passes_of_a_context_with_the_same_words_are_said() -> None:
    """Training inside one context, and micro-batches that have no numbers: a warning names the words, where the call is."""
    with qsim.numerics(SR, seed=3, step=2, first_draw=1):
        value_and_grad(MODEL.loss)(PARAMS, (X, Y))
        with pytest.warns(ag.SameWords, match="seed = 3, step = 2, first_draw = 1, and had different losses") as caught:
            value_and_grad(MODEL.loss)(other(PARAMS), (X, Y))
        assert caught[0].filename == __file__
        with pytest.warns(ag.SameWords):
            value_and_grad(MODEL.loss)(other(PARAMS), (X[:3], Y[:3]))


@pytest.mark.parametrize("explicit", [{}, {"step": 0}])
def test_a_training_loop_without_steps_is_warned(explicit: Any) -> None:
    """A context a step, all of one number: the second step says so."""
    optimizer, model = optim.sgd(0.1), MLP((4, 3, 2))
    params, state = PARAMS, optimizer.init(PARAMS)

    def step(params: Any, state: Any, **choices: Any) -> Any:
        with qsim.numerics(SR, seed=9, **choices):
            grads = value_and_grad(model.loss)(params, (X, Y))[1]
        updates, state = optimizer.update(grads, state, params)
        return optim.apply_updates(params, updates), state

    params, state = step(params, state, **explicit)
    with pytest.warns(ag.SameWords, match=r"give numerics\(step=...\) the number of the step"):
        step(params, state, **explicit)


def test_what_takes_words_on_purpose_is_not_warned() -> None:
    """Steps, micro-batches, ranks and seeds that have numbers, a pass that is repeated, measurements, another rounding."""
    optimizer = optim.sgd(0.1)
    params, state = PARAMS, optimizer.init(PARAMS)
    for step in range(3):  # training, with two micro-batches a step, each with words of its own
        for micro in range(2):
            grads = gradient(params, (X[micro:], Y[micro:]), step=step, first_draw=micro)
        updates, state = optimizer.update(grads, state, params)
        params = optim.apply_updates(params, updates)
    with qsim.numerics(SR, step=7):  # the same pass twice has the same bits
        first, second = (value_and_grad(MODEL.loss)(params, (X, Y)) for _ in range(2))
    assert first[0] == second[0]
    for seed in range(3):
        gradient(params, (X, Y), seed=seed)
        params = optim.apply_updates(params, tree_map(np.ones_like, params))
    for rank in range(3):
        gradient(params, (X[rank:], Y[rank:]), rank=rank)
        params = optim.apply_updates(params, tree_map(np.ones_like, params))
    with qsim.numerics(SR, draws=2):  # measurements at several points, on the same words
        for at in (PARAMS, params):
            value_and_grad(MODEL.loss)(at, (X, Y))
    for policy in ({"bwd_grad": "e4m3"}, {}):  # nothing random
        with qsim.numerics(policy):
            for at in (PARAMS, params):
                value_and_grad(MODEL.loss)(at, (X, Y))
    for policy in ({"bwd_grad": "e5m2:SR"}, {"bwd_act": "e4m3:SR"}):  # common random numbers, and an update between
        with qsim.numerics(policy):
            value_and_grad(MODEL.loss)(params, (X, Y))
        params = optim.apply_updates(params, tree_map(np.ones_like, params))
    for at in (PARAMS, params):  # one context each, without an update
        gradient(at, (X, Y))
    with qsim.numerics(
        SR
    ):  # two losses of one context: each has layers of its own, or the same words for other reasons
        value_and_grad(MODEL.loss)(PARAMS, (X, Y))
        value_and_grad(layer)({"w": W}, X)


def test_a_warning_can_be_switched_off() -> None:
    """It is a category of its own."""
    with warnings.catch_warnings(), qsim.numerics(SR):
        warnings.simplefilter("ignore", ag.SameWords)
        value_and_grad(MODEL.loss)(PARAMS, (X, Y))
        value_and_grad(MODEL.loss)(other(PARAMS), (X, Y))


@pytest.mark.parametrize("model", [MLP((4, 3, 2)), WideResNet(10, 1), Llama(5, 4, 1, 2)], ids=["mlp", "wide", "llama"])
def test_every_model_has_its_words_watched(model: Any) -> None:
    """Whether an object can be referred to weakly or not."""
    params = model.init(np.random.default_rng(0))
    batch: Any = {MLP: (X, Y), WideResNet: (np.ones((2, 8, 8, 3)), np.array([1, 2]))}.get(
        type(model), (np.array([[1, 2]]), np.array([[2, 3]]))
    )
    with qsim.numerics(SR):
        value_and_grad(model.loss)(params, batch)
        with pytest.warns(ag.SameWords):
            value_and_grad(model.loss)(tree_map(lambda p: p * 1.5, params), batch)
