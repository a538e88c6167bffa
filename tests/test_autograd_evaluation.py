"""Operations and models outside a tape: as functions of plain arrays, without the axis of draws, under numerics too."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import qsim
from qsim import autograd as ag
from qsim.autograd import tree_map, value_and_grad
from qsim.nn import MLP, Llama, WideResNet

RNG = np.random.default_rng(6)


def normal(*shape: int) -> np.ndarray:
    """Return numbers of order 1."""
    return RNG.standard_normal(shape)


def arrays_of(samples: int) -> dict[str, tuple[Any, tuple[np.ndarray, ...]]]:
    """Return each operation with arrays of so many samples, none of them with an axis of draws."""
    b = samples
    images, gain, shift = normal(b, 4, 6, 4), normal(4), normal(4)
    heads = [normal(b, 5, 2, 4) for _ in range(3)]
    return {
        "add": (ag.add, (normal(b, 2), normal(b, 2))),
        "attention": (ag.attention, tuple(heads)),
        "average_pool": (lambda x: ag.average_pool(x, size=2), (images,)),
        "batch_norm": (lambda x, g, s: ag.batch_norm(x, g, s, name="n"), (images, gain, shift)),
        "conv2d": (lambda x, w: ag.conv2d(x, w, name="c", pad=1), (images, normal(3, 3, 3, 4))),
        "cross_entropy": (ag.cross_entropy, (normal(b, 3), RNG.integers(0, 3, b))),
        "dropout": (lambda x: ag.dropout(x, rate=0.4, name="d"), (normal(b, 6),)),
        "embedding": (lambda c, w: ag.embedding(c, w, name="e"), (RNG.integers(0, 4, (b, 3)), normal(4, 3))),
        "gelu": (ag.gelu, (normal(b, 7),)),
        "global_average_pool": (ag.global_average_pool, (images,)),
        "group_norm": (lambda x, g, s: ag.group_norm(x, g, s, groups=2), (images, gain, shift)),
        "layer_norm": (ag.layer_norm, (normal(b, 3, 4), gain, shift)),
        "linear": (lambda x, w, bias: ag.linear(x, w, bias, name="l"), (normal(b, 4), normal(5, 4), normal(5))),
        "linear of texts": (lambda x, w: ag.linear(x, w, name="l"), (normal(b, 3, 4), normal(5, 4))),
        "max_pool": (lambda x: ag.max_pool(x, size=2), (images,)),
        "mean_squared_error": (ag.mean_squared_error, (normal(b, 3), normal(b, 3))),
        "relu": (ag.relu, (normal(b, 7),)),
        "reshape": (lambda x: ag.reshape(x, shape=(-1, 3)), (normal(b, 6),)),
        "rms_norm": (ag.rms_norm, (normal(b, 3, 4), gain)),
        "rope": (ag.rope, (heads[0],)),
        "silu": (ag.silu, (normal(b, 7),)),
        "swiglu": (ag.swiglu, (normal(b, 8),)),
    }


NAMES = list(arrays_of(2))
ROUNDING = dict.fromkeys(ag.POINTS, "e4m1fn:SR")


def test_every_operation_is_tried() -> None:
    """What the package exports as an operation stands in the table above."""
    operations = {name for name in ag.__all__ if getattr(getattr(ag, name), "is_operation", False)}
    assert operations == {name.split()[0] for name in NAMES}


@pytest.mark.parametrize("policy", [{}, ROUNDING], ids=["unrounded", "rounded"])
@pytest.mark.parametrize("samples", [1, 2, 5])
@pytest.mark.parametrize("name", NAMES)
def test_an_operation_of_plain_arrays(name: str, samples: int, policy: Any) -> None:
    """The result has no axis of draws, and the bits that it has with one, and in `value`."""
    operation, arrays = arrays_of(samples)[name]
    with qsim.numerics(policy, seed=3):
        lifted = operation(*(array[None] for array in arrays))
    with qsim.numerics(policy, seed=3):
        whole = ag.value(lambda _, b: operation(*b))((), arrays)
    assert np.shape(whole) == lifted.shape[1:]
    assert np.array_equal(whole, lifted[0])
    if (name, samples) == ("reshape", 1):  # the one that cannot tell by itself
        return
    with qsim.numerics(policy, seed=3):
        plain = operation(*arrays)
    assert np.shape(plain) == lifted.shape[1:]
    assert np.array_equal(plain, lifted[0])


@pytest.mark.parametrize("name", ["linear", "conv2d", "embedding", "dropout"])
def test_an_operation_under_draws(name: str) -> None:
    """With a number of draws in force the result has them all, though nothing be random in it, each as it is alone."""
    operation, arrays = arrays_of(3)[name]
    for policy in ({}, ROUNDING):
        with qsim.numerics(policy, draws=4, seed=1):
            together = operation(*arrays)
        with qsim.numerics(policy, draws=4, seed=1):
            assert np.array_equal(together, ag.value(lambda _, b: operation(*b))((), arrays))
        for draw in range(4):
            with qsim.numerics(policy, first_draw=draw, seed=1):
                assert np.array_equal(together[draw], operation(*arrays))


MODELS: dict[str, tuple[Any, Any, Any]] = {
    "mlp": (MLP((6, 5, 3)), normal(4, 6), np.array([0, 2, 1, 0])),
    "wide residual network": (WideResNet(10, 1, norm="group"), normal(4, 8, 8, 3), np.array([0, 2, 1, 0])),
    "batch norm": (WideResNet(10, 1), normal(4, 8, 8, 3), np.array([0, 2, 1, 0])),
    "llama": (Llama(7, 8, 2, 2), RNG.integers(0, 7, (4, 5)), RNG.integers(0, 7, (4, 5))),
    "tied llama": (Llama(7, 8, 1, 2, tied=True), RNG.integers(0, 7, (4, 5)), RNG.integers(0, 7, (4, 5))),
}


@pytest.mark.parametrize("policy", [{}, ROUNDING], ids=["unrounded", "rounded"])
@pytest.mark.parametrize("samples", [1, 4])
@pytest.mark.parametrize("name", MODELS)
def test_a_model_of_plain_arrays(name: str, samples: int, policy: Any) -> None:
    """Scores and losses have the bits that they have with an axis of draws, and those of a training step, draw by draw."""
    model, x, labels = MODELS[name]
    x, labels = x[:samples], labels[:samples]
    params = model.init(np.random.default_rng(0))
    lifted = tree_map(lambda a: a[None], params)

    def under(function: Any, *arguments: Any, **choices: Any) -> Any:
        with qsim.numerics(policy, seed=2, **choices):
            return function(*arguments)

    scores = under(model.logits, params, x)
    assert scores.shape == (*labels.shape, scores.shape[-1])
    assert np.array_equal(scores, under(model.logits, lifted, x[None])[0])
    loss = under(model.loss, params, (x, labels))
    assert isinstance(loss, float)
    assert loss == under(model.loss, lifted, (x[None], labels[None]))[0]
    assert loss == under(value_and_grad(model.loss), params, (x, labels))[0]
    three, losses = (under(f, params, b, draws=3) for f, b in ((model.logits, x), (model.loss, (x, labels))))
    for draw in range(3):
        assert np.array_equal(three[draw], under(model.logits, params, x, first_draw=draw))
        assert losses[draw] == under(model.loss, params, (x, labels), first_draw=draw)


def test_a_model_without_a_context_rounds_nothing() -> None:
    """Outside `numerics` the scores are those of an empty context, and nothing is left behind."""
    model, x, labels = MODELS["mlp"]
    params = model.init(np.random.default_rng(0))
    with qsim.numerics():
        scores, loss = model.logits(params, x), model.loss(params, (x, labels))
    assert np.array_equal(model.logits(params, x), scores)
    assert model.loss(params, (x, labels)) == loss


def test_many_draws_are_taken_a_few_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """How many draws of scores go together changes no bit; counts and statistics of all of them come together."""
    model, x, _ = MODELS["batch norm"]
    params = model.init(np.random.default_rng(0))
    found = []
    for size in (1, 1 << 40):
        monkeypatch.setattr("qsim.autograd.tape.CACHE", size)
        with qsim.numerics(fwd_act="e4m1fn:SR", draws=5) as context:
            found.append((model.logits(params, x), context.counts, context.observed["norm"][0]))
    assert np.array_equal(found[0][0], found[1][0])
    assert found[0][1] == found[1][1]
    assert np.array_equal(found[0][2], found[1][2])


def test_an_error_in_a_part_of_the_draws_leaves_nothing_in_force(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where draws go along the tape in parts and one of them fails, the numerics are left as they were, and so is the tape."""
    monkeypatch.setattr("qsim.autograd.tape.CACHE", 1)
    params, x = {"w": normal(4, 3)}, normal(2, 3)
    seen = []

    def fails(p: Any, b: Any) -> Any:
        seen.append(ag.current().first_draw)
        y = ag.mean_squared_error(ag.linear(b, p["w"], name="l"), np.zeros((1, 2, 4)))
        return y if len(seen) < 3 else ag.linear(y, y, name="m")

    for run in (value_and_grad(fails), ag.value(fails)):
        seen.clear()
        context = qsim.numerics(fwd_act="e4m3:SR", draws=5)
        with context:
            with pytest.raises(qsim.InputError, match="m: inputs of shape") as caught:
                run(params, x)
            assert ag.current() is context
        assert caught.traceback  # which holds the frames
        assert seen == [0, 1, 2]
        assert ag.context.in_force() is None
        assert ag.relu([-1.0]).tolist() == [0]


def test_value_on_a_tape_is_the_function() -> None:
    """A loss may be made of functions that are evaluated by themselves elsewhere."""
    forward = ag.value(lambda p, b: ag.linear(b, p["w"], name="l"))
    params, x = {"w": normal(4, 3)}, normal(2, 3)

    def loss(p: Any, b: Any) -> Any:
        return ag.mean_squared_error(forward(p, b), np.ones((1, 2, 4)))

    expected = (forward(params, x) - 1).T @ x / 2
    np.testing.assert_allclose(value_and_grad(loss)(params, x)[1]["w"], expected, rtol=1e-14)


def test_running_statistics_are_handed_on() -> None:
    """Known means and variances, one a channel, come after the images, by position or by name."""
    model, x, _ = MODELS["batch norm"]
    params = model.init(np.random.default_rng(0))
    with qsim.numerics() as context:
        own = model.logits(params, x)
    known = {name: (mean[0], variance[0]) for name, (mean, variance) in context.observed.items()}
    fixed = model.logits(params, x, known)
    assert fixed.shape == own.shape
    assert np.array_equal(fixed, model.logits(params, x, statistics=known))
    assert np.allclose(fixed[:2], model.logits(params, x[:2], known), rtol=0, atol=1e-12)


def test_a_model_of_ones_own_in_value() -> None:
    """`value` gives what functions of operations return, trees too; a single sample, reshaped, is no draw."""

    def forward(params: Any, x: Any) -> Any:
        hidden = ag.linear(x, params["w"], name="a")
        return {"hidden": hidden, "pairs": ag.reshape(hidden, shape=(-1, 2)), "none": None}

    params, x = {"w": normal(4, 3)}, normal(1, 3)
    found = ag.value(forward)(params, x)
    assert np.array_equal(found["hidden"], x @ params["w"].T)
    assert np.array_equal(found["pairs"], (x @ params["w"].T).reshape(2, 2))
    assert found["none"] is None
    with qsim.numerics(fwd_act="int8", draws=2):
        assert ag.value(forward)(params, x)["pairs"].shape == (2, 2, 2)


def test_numbers_and_lists_outside_a_tape() -> None:
    """An operation takes what NumPy makes an array of."""
    assert ag.relu([-1.0, 2.0]).tolist() == [0, 2]
    assert float(ag.silu(0.0)) == 0
    assert ag.linear([[1.0, 2.0]], [[3.0, 4.0]], name="l").tolist() == [[11]]
    assert ag.cross_entropy([0.0, 0.0], 1) == pytest.approx(np.log(2))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: MLP((6, 3)).logits({}, normal(2, 6)), "no parameter is called 'layer0.w'; give those that `init`"),
        (lambda: MLP((6, 3)).logits(normal(3, 6), normal(2, 6)), "no parameter is called 'layer0.w'"),
        (lambda: MLP((6, 3, 2)).logits(MLP((6, 3)).init(RNG), normal(2, 6)), "no parameter is called 'layer1', which the loss"),
        (lambda: MLP((6, 3)).logits(MLP((6, 3)).init(RNG), normal(6)), r"layer0: inputs of shape \(6,\) do not fit"),
        (lambda: Llama(7, 8, 1, 2).logits(Llama(7, 8, 1, 2).init(RNG), np.array([[7]])), r"must be integers in 0 \.\. 6"),
        (lambda: Llama(7, 8, 1, 2).logits(Llama(7, 8, 1, 2).init(RNG), [[1, 2]]), "embedding takes arrays, not a list"),
        (lambda: ag.linear(normal(2, 3), normal(4, 5), name="l"), r"inputs of shape \(2, 3\) do not fit a weight of shape"),
        (lambda: ag.relu(np.array([1j])), "relu takes arrays of real numbers, not of complex128"),
        (lambda: ag.gelu(np.array([None])), "gelu takes arrays of real numbers, not of object"),
        (lambda: ag.silu([[1.0], [1.0, 2.0]]), "an argument of silu is a ragged list"),
        (lambda: ag.add(normal(5, 3), normal(4, 3)), r"add takes arrays of one shape, not \(5, 3\) and \(4, 3\)"),
        (lambda: ag.swiglu(1.0), "swiglu halves the last axis of an array; a single number has none"),
        (lambda: ag.global_average_pool(normal(4, 4)), "images .* are pooled"),
        (lambda: ag.attention(*(normal(1, 2, 1, 0) for _ in range(3))), "attention takes three arrays of one shape"),
        (lambda: ag.embedding(np.array([0]), normal(4), name="e"), "e: a table is"),
        (lambda: ag.layer_norm(normal(2, 0), normal(0), normal(0)), "a normalization of"),
        (lambda: ag.cross_entropy(normal(2, 0), np.array([0, 0])), "labels of shape"),
        (lambda: ag.cross_entropy(1.0, 0), "logits are"),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_refused(call: Any, message: str) -> None:
    """A sentence says what does not fit, of the arrays as they were given."""
    with pytest.raises(qsim.InputError, match=message):
        call()
