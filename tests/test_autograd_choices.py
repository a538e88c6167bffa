"""The choices of a numerics context, each another estimator: which words, which scale, what is clamped, and whose rounding."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import qsim
from qsim import autograd as ag
from qsim import optim
from qsim.arrays import quantize_draws
from qsim.autograd import Delayed, Frozen, value_and_grad
from qsim.nn import MLP, Llama, WideResNet
from qsim.rounding import Quantizer, stream

RNG = np.random.default_rng(11)
X, W, TARGET = RNG.standard_normal((4, 6)), RNG.standard_normal((5, 6)), RNG.standard_normal((4, 5))
SR = Quantizer("e4m0fn", "SR")


def loss(w: Any, batch: Any) -> Any:
    """Return the squared error of one linear layer."""
    return ag.mean_squared_error(ag.linear(batch[0], w, name="l"), batch[1])


def gradient(**choices: Any) -> np.ndarray:
    """Return the gradient of the layer under these choices, one draw."""
    with qsim.numerics(seed=5, **choices):
        return value_and_grad(loss)(W, (X, TARGET))[1]


def rounded(x: np.ndarray, site: int, **fields: int) -> np.ndarray:
    """Return `x` rounded by the words of a site's number."""
    return quantize_draws(x[None], SR, 5, [stream(site=site, **fields)])[0][0]


ERRORS = X @ W.T - TARGET


def test_weights_take_one_draw_or_two() -> None:
    """With shared draws, the default, the data gradient reads the weight of the forward pass; else one of its own words."""
    seen = {}
    assert qsim.numerics().weight_draws == ag.Numerics({}).weight_draws == "shared"
    for choice in ("separate", "shared"):
        with qsim.numerics(fwd_weight=SR, bwd_weight=SR, weight_draws=choice, seed=5):
            step = value_and_grad(lambda x, w: ag.mean_squared_error(ag.linear(x, w, name="l"), TARGET[None]))
            seen[choice] = step(X, W)[1]
    errors = X @ rounded(W, 1).T - TARGET
    assert np.array_equal(seen["shared"], errors @ rounded(W, 1) / 4)
    assert np.array_equal(seen["separate"], errors @ rounded(W, 3) / 4)


def test_errors_take_one_draw_or_two() -> None:
    """With separate draws the weight gradient takes the second draw of the site, and the data gradient the first."""
    one, two = (gradient(bwd_grad=SR, error_draws=choice) for choice in ("shared", "separate"))
    assert np.array_equal(one, rounded(ERRORS, 4).T @ X / 4)
    assert np.array_equal(two, rounded(ERRORS, 4 + 1024).T @ X / 4)


def test_samples_take_words_of_their_own_or_the_first_ones() -> None:
    """With shared words every sample of a batch rounds by those of the first: equal samples round alike."""
    same = np.repeat(X[:1], 4, 0)
    seen = {}
    for choice in ("per_sample", "shared"):
        with qsim.numerics(fwd_act=SR, sample_draws=choice, seed=5) as context:
            y = ag.linear(same[None], np.eye(6)[None], name="l")[0]
            assert context.counts["l.fwd_act"].elements == 24
        seen[choice] = y
    assert np.array_equal(seen["shared"], np.repeat(rounded(X[:1], 0), 4, 0))
    assert np.array_equal(seen["per_sample"], rounded(same, 0))
    assert not np.array_equal(seen["per_sample"][0], seen["per_sample"][1])


def test_samples_share_words_in_every_draw_and_keep_the_scale_of_their_tensor() -> None:
    """With several draws each has words of its own, which its samples share; a scale is still that of the whole tensor."""
    q = Quantizer("int4", "SR", scale="absmax")
    with qsim.numerics(fwd_act=q, sample_draws="shared", seed=5, draws=3):
        y = ag.linear(X[None], np.eye(6)[None], name="l")
    scale = float(qsim.derive_scale(X, q).max())
    for draw in range(3):
        for s in range(4):
            key = qsim.Key(5, stream(site=0, draw=draw))
            assert np.array_equal(y[draw, s], qsim.quantize(X[s], "int4", "SR", scale=scale, key=key))


def test_a_bias_takes_the_error_of_the_weight_gradient() -> None:
    """With two draws of the error the bias sums the second, as the weight does."""

    def biased(params: Any, batch: Any) -> Any:
        return ag.mean_squared_error(ag.linear(batch[0], params["w"], params["b"], name="l"), batch[1])

    with qsim.numerics(bwd_grad=SR, error_draws="separate", seed=5):
        grads = value_and_grad(biased)({"w": W, "b": np.zeros(5)}, (X, TARGET))[1]
    assert np.array_equal(grads["b"], rounded(ERRORS, 4 + 1024).sum(0) / 4)


def test_losses_of_several_means_add() -> None:
    """A loss of means over five and over one sample, and of a term that is no mean, has the gradient of the sum."""

    @ag.op
    def penalty(w: Any) -> Any:
        return (w**2).sum((1, 2)) / 2, lambda g, _: (g[:, None, None] * w,)

    many, few = (RNG.standard_normal((5, 6)), TARGET.repeat(2, 0)[:5]), (X[:1], TARGET[:1])

    def total(w: Any, batch: Any, order: int) -> Any:
        terms = [
            ag.mean_squared_error(ag.linear(batch[0][0], w, name="a"), batch[0][1]),
            ag.mean_squared_error(ag.linear(batch[1][0], w, name="b"), batch[1][1]),
            penalty(w),
        ][::order]
        return ag.add(ag.add(terms[0], terms[1]), terms[2])

    by_hand = sum((x @ W.T - y).T @ x / len(x) for x, y in (many, few)) + W
    for errors in ("per_sample", "mean"):
        for order in (1, -1):
            with qsim.numerics(errors=errors):
                got = value_and_grad(lambda w, b, order=order: total(w, b, order))(W, (many, few))[1]
            np.testing.assert_allclose(got, by_hand, rtol=1e-13)


def test_a_clamped_derivative_goes_by_the_quotient_that_was_rounded() -> None:
    """The element that the abs-max scale is made of is not clamped, in any of a thousand tensors, and passes."""
    for number in range(1000):
        x = np.random.default_rng(number).standard_normal((1, 1, 7)).astype(np.float32)
        with qsim.numerics(fwd_act=Quantizer("int4", scale="absmax"), clamp="stop") as context:
            ag.linear(x, np.eye(7, dtype=np.float32)[None], name="l")
            assert context.passes("l", "fwd_act", x).all()


def scales(kind: Any, tensors: Any, memory: Any = None, first: int = 0) -> list[float]:
    """Return the scales that one site takes, step by step."""
    memory = {} if memory is None else memory
    return [kind.at(memory, "s", first + k, np.asarray(x, np.float32)[None])[1] for k, x in enumerate(tensors)]


INT8 = Quantizer("int8", scale="absmax")
UNTELLING = {
    "zeros": [0.0, -0.0], "NaN": [np.nan, np.nan], "infinities": [np.inf, -np.inf], "one infinity": [1e30, np.inf],
    "one NaN": [1e30, np.nan],
}  # fmt: skip


@pytest.mark.parametrize("scale", ["absmax", "pow2", "absmean"])
@pytest.mark.parametrize("name", UNTELLING)
def test_a_step_that_has_no_scale_to_tell_leaves_none(name: str, scale: str) -> None:
    """After zeros, and after a step that overflowed, scales are what they were, as in TransformerEngine's delayed scaling."""
    q, bad = Quantizer("float8_e5m2", scale=scale), UNTELLING[name]
    small, large = [1e-4, 2e-4], [3.0, 5.0]
    own = [float(qsim.derive_scale(np.float32(x), q).max()) for x in (small, large)]
    # In the middle, at the beginning, and where it is all there is.
    assert scales(Delayed(q, 4), [small, bad, *[small] * 5]) == [own[0]] * 7
    assert scales(Delayed(q, 1), [small, bad, large, bad, bad, small]) == [own[0]] * 3 + [own[1]] * 3
    later = scales(Delayed(q, 4), [bad, bad, small, large, small])
    assert later[2:] == [own[0], own[0], own[1]]
    assert scales(Frozen(q), [bad, bad, small, large, bad])[2:] == [own[0]] * 3
    memory: Any = {}
    scales(Delayed(q, 4), [bad] * 3, memory)
    scales(Frozen(q), [bad] * 3, memory)
    assert not memory
    if "one" not in name:
        assert later[:2] == [1.0, 1.0]  # nothing is above the range of any scale


def test_a_step_that_is_met_again_sees_what_it_saw() -> None:
    """A step that comes in parts sees the steps before it alone, whatever its parts are."""
    delayed, memory = Delayed(INT8, 3), {}
    x, y = np.float32([[1.0]]), np.float32([[4.0]])
    before = scales(delayed, [[2.0]], memory)[0]
    for part in (x, np.zeros_like(x), y, np.full_like(x, np.nan), x):
        assert delayed.at(memory, "s", 1, part)[1] == before
    assert delayed.at(memory, "s", 2, x)[1] == float(qsim.derive_scale(y, INT8).max())


@pytest.mark.parametrize("scale", ["absmax", "pow2", "absmean"])
@pytest.mark.parametrize("tiny", [[1e-42, -3e-42], [1e-45, 0.0], [2e-38, 1e-40]])
def test_a_step_of_tiny_numbers_rules_over_no_other(tiny: Any, scale: str) -> None:
    """Numbers too small for a scale of their own leave the smallest one, which no later step of usual size takes."""
    for name in ("float8_e5m2", "e4m3", "int8"):
        q, usual = Quantizer(name, scale=scale), [1e-4, 2e-4]
        own = float(qsim.derive_scale(np.float32(usual), q).max())
        assert scales(Delayed(q, 4), [usual, tiny, *[usual] * 5]) == [own] * 7
        assert scales(Delayed(q, 4), [tiny, *[usual] * 3])[2:] == [own] * 2
        assert 0 < scales(Delayed(q, 4), [tiny])[0] < own


@pytest.mark.parametrize("steps", [1, 2, 3, 7])
def test_observe_then_freeze(steps: int) -> None:
    """Frozen after Delayed takes the scale that the next delayed step would have taken, for ever; the memory can be saved."""
    sizes = [3.0, 1.0, 2.0, 0.5, 0.25, 1.5, 0.125][:steps]
    memory: Any = {}
    scales(Delayed(INT8, 3), [[size] for size in sizes], memory)
    next_one = scales(Delayed(INT8, 3), [[9.0]], {"s": memory["s"].copy()}, steps)[0]
    assert next_one == float(qsim.derive_scale(np.float32([max(sizes[-3:])]), INT8).max())
    assert scales(Frozen(INT8), [[9.0], [0.1], [np.nan], [7.0]], memory, steps) == [next_one] * 4
    assert scales(Delayed(INT8, 3), [[0.1]], memory, steps) == [next_one]  # and on with observing


@pytest.mark.parametrize("steps", [1, 2])
def test_freeze_then_observe(steps: int) -> None:
    """Delayed after Frozen begins with the frozen scale as its history."""
    memory: Any = {}
    first = scales(Frozen(INT8), [[2.0], [8.0]][:steps], memory)[0]
    own = [float(qsim.derive_scale(np.float32([x]), INT8).max()) for x in (1.0, 4.0)]
    assert scales(Delayed(INT8, 2), [[1.0], [4.0], [1.0], [1.0], [1.0]], memory, steps) == [
        first,
        first,
        own[1],
        own[1],
        own[0],
    ]


def test_observe_then_freeze_in_training() -> None:
    """Five observed steps, then frozen ones: the loss is that of the scale from the history, and no step number's."""
    x = np.array([[0.3, 0.7], [1.0, -0.2]])
    memory: Any = {}

    def run(kind: Any, step: int) -> float:
        with qsim.numerics(fwd_act=kind, memory=memory, step=step):
            layer = ag.value_and_grad(
                lambda w, b: ag.mean_squared_error(ag.linear(b, w, name="l"), np.zeros((1, 2, 2)))
            )
            return float(layer(np.eye(2), x)[0])

    for step in range(5):
        run(Delayed(INT8, 4), step)
    known = qsim.quantize(x, "int8", scale=float(qsim.derive_scale(x, INT8).max()))
    for step in (5, 6):
        assert run(Frozen(INT8), step) == pytest.approx((known**2).sum(1).mean() / 2, rel=1e-15)


@pytest.mark.parametrize("bad", [[], [np.nan], [1.0, -1.0], [1.0, np.inf], [[1.0, 2.0]], ["a", "b"], [-1.0]])
@pytest.mark.parametrize("kind", [Delayed(INT8, 2), Frozen(INT8)])
def test_a_memory_that_no_step_left_is_refused(kind: Any, bad: Any) -> None:
    """What is no scale is refused by the name of its site, rather than rounded with."""
    with pytest.raises(qsim.InputError, match="memory of s is not what steps left there"):
        scales(kind, [[1.0]], {"s": np.array(bad)})


@pytest.mark.parametrize("kind", [Delayed, Frozen])
def test_zeros_are_nothing_to_remember(kind: Any) -> None:
    """A first tensor of zeros leaves no scale behind: the next one takes its own. Flushed subnormal numbers are zeros."""
    memory: dict[str, np.ndarray] = {}
    q = Quantizer("e4m3", scale="absmax")
    for step, x in enumerate((np.zeros((4, 6)), X * 1e-9)):
        with qsim.numerics(fwd_act=kind(q), memory=memory, step=step):
            y = ag.linear(x[None], np.eye(6)[None], name="l")[0]
    assert np.array_equal(y, qsim.quantize(X * 1e-9, q))
    flushing = Quantizer("int8", scale="absmax", ftz_in=True)
    assert scales(kind(flushing), [[1e-40], [1.0]])[1] == float(qsim.derive_scale(np.float32([1.0]), INT8).max())


def test_ranks_and_steps_take_words_of_their_own() -> None:
    """The stream is that of site, step, draw and rank; without a rank the words are those shared by all."""
    for choices in ({"rank": 3}, {"step": 7}, {"rank": 3, "step": 7}, {}):
        assert np.array_equal(gradient(bwd_grad=SR, **choices), rounded(ERRORS, 4, **choices).T @ X / 4)


def test_two_policies_share_their_words() -> None:
    """Common random numbers: what one policy rounds takes the same words when another rounds more, or fewer."""
    with qsim.numerics(bwd_grad=SR, seed=5):
        few = value_and_grad(loss)(W, (X, TARGET))[1]
    with qsim.numerics(bwd_grad=SR, bwd_act="int8:SR", bwd_weight=SR, seed=5):
        many = value_and_grad(loss)(W, (X, TARGET))[1]
    with qsim.numerics(bwd_act="int8:SR", seed=5):
        ag.linear(X[None], W[None], name="l")
    assert np.array_equal(few, rounded(ERRORS, 4).T @ X / 4)
    act = quantize_draws(X[None], Quantizer("int8", "SR"), 5, [stream(site=2)])[0][0]
    assert np.array_equal(many, rounded(ERRORS, 4).T @ act / 4)


def test_straight_through_passes_or_stops_at_a_clamp() -> None:
    """A derivative is 1 everywhere, or 0 beyond the range, of the rounded value or of the unrounded one; the ends pass."""
    x = np.array([[-2.6, -2.5, -2.0, -1.9, 0.3, 1.0, 1.4, 1.5]])
    q = Quantizer("int2", "RNE")  # -2 .. 1
    assert q.format.min == -2
    assert q.format.max == 1

    def through(x: Any, _: Any) -> Any:
        return ag.mean_squared_error(ag.linear(x, np.eye(8)[None], name="l"), np.zeros((1, 1, 8)) + 9)

    grads = {}
    for clamp in ("pass", "stop", "stop_unrounded"):
        with qsim.numerics(fwd_act=q, clamp=clamp):
            grads[clamp] = value_and_grad(through)(x, ())[1][0]
    y = np.array([-2, -2, -2, -2, 0, 1, 1, 1])
    assert grads["pass"].tolist() == (y - 9).tolist()
    assert grads["stop"].tolist() == ((y - 9) * np.array([0, 1, 1, 1, 1, 1, 1, 0])).tolist()
    assert grads["stop_unrounded"].tolist() == ((y - 9) * np.array([0, 0, 1, 1, 1, 1, 0, 0])).tolist()


def test_clamping_of_weights_and_scales() -> None:
    """A scale moves the ends of the range; a re-derived abs-max leaves nothing beyond."""
    w = np.array([[3.0, -1.0, 0.4]])
    for q, stops in (
        (Quantizer("int4", scale=0.25), [True, False, False]),
        (Quantizer("int4", scale="absmax"), [False] * 3),
    ):
        with qsim.numerics(fwd_weight=q, clamp="stop"):
            step = value_and_grad(
                lambda w, x: ag.mean_squared_error(ag.linear(x, w, name="l"), np.full((1, 1, 1), 9.0))
            )
            grad = step(w, np.ones((1, 3)))[1][0]
        assert (grad == 0).tolist() == stops


def test_a_policy_names_points_layers_and_sites() -> None:
    """A site's own rounding goes before its layer's, and that before its point's; `None` leaves a site alone."""
    model = MLP((3, 3, 2))
    params = model.init(np.random.default_rng(0))
    batch = np.ones((1, 3)), np.zeros(1, int)
    policy = {
        "layer0": "e5m2",
        "layer0.bwd_grad": "int4",
        "bwd_grad": "e4m3",
        "fwd_act": "int8",
        "layer1.fwd_act": None,
    }
    with qsim.numerics(policy) as context:
        value_and_grad(model.loss)(params, batch)
    names = {site: str(q.format) for site in context.numbers if (q := context.rounding(*site.rsplit(".", 1)))}
    assert names == {
        **{f"layer0.{point}": "float8_e5m2" for point in ag.POINTS}, "layer0.bwd_grad": "int4",
        "layer1.bwd_grad": "float8_e4m3fn",
    }  # fmt: skip
    with pytest.raises(qsim.InputError, match="no layer met the name 'layer7'"), qsim.numerics(layer7="e5m2"):
        value_and_grad(model.loss)(params, batch)


@pytest.mark.parametrize("scale", ["absmax", "pow2"])
def test_delayed_scales_come_from_the_steps_before(scale: str) -> None:
    """Step t rounds with the largest scale of the `window` steps before it, the first with its own; a step counts once."""
    q = Quantizer("int8", scale=scale)
    memory: dict[str, np.ndarray] = {}
    sizes = [1.0, 4.0, 2.0, 8.0, 1.0, 1.0, 1.0]
    own = [float(qsim.derive_scale(size * X, q).max()) for size in sizes]
    for step, size in enumerate(sizes):
        with qsim.numerics(fwd_act=Delayed(q, window=2), memory=memory, step=step):
            y = ag.linear(size * X[None], np.eye(6)[None], name="l")
            again = ag.linear(size * X[None], np.eye(6)[None], name="l")
        expected = max(own[max(step - 2, 0) : step], default=own[0])
        assert np.array_equal(y[0], qsim.quantize(size * X, "int8", scale=expected))
        assert np.array_equal(y, again)
    assert len(memory["l.fwd_act"]) <= 4


def test_memory_and_optimizer_go_on_from_a_checkpoint(tmp_path: Any) -> None:
    """Training with delayed scales, SR at every point and SR write-back goes on from a file bit for bit."""
    model = MLP((3, 4, 2))
    policy: Any = {**dict.fromkeys(ag.POINTS, Delayed(Quantizer("e4m3", "SR", scale="pow2"), 3))}
    optimizer = optim.adamw(0.01, rounding={"update": "bfloat16:SR", "moment": "bfloat16:SR"})
    batch = RNG.standard_normal((5, 3)).astype(np.float32), np.arange(5) % 2

    def run(at: Any, first: int, last: int) -> Any:
        for step in range(first, last):
            with qsim.numerics(policy, seed=1, step=step, memory=at["memory"]):
                grads = value_and_grad(model.loss)(at["params"], batch)[1]
            updates, state = optimizer.update(grads, at["state"], at["params"])
            at = {"params": optim.apply_updates(at["params"], updates), "state": state, "memory": at["memory"]}
        return at

    params = ag.tree_map(lambda a: a.astype(np.float32), model.init(np.random.default_rng(0)))
    start = {"params": params, "state": optimizer.init(params), "memory": {}}
    whole = run(start, 0, 8)
    half = run({**start, "memory": {}}, 0, 4)
    optim.save(tmp_path / "half.npz", half)
    rest = run(optim.load(tmp_path / "half.npz"), 4, 8)
    for name, layer in whole["params"].items():
        assert all(np.array_equal(layer[part], rest["params"][name][part]) for part in layer)
    assert all(np.array_equal(whole["memory"][site], rest["memory"][site]) for site in whole["memory"])


def test_frozen_scales_are_the_first_ones() -> None:
    """Every step rounds with the scale of the first tensor met, at each site its own."""
    memory: dict[str, np.ndarray] = {}
    q = Quantizer("int8", scale="absmax")
    for step, size in enumerate([2.0, 8.0, 1.0]):
        with qsim.numerics(fwd_act=Frozen(q), fwd_weight=Frozen(q), memory=memory, step=step):
            y = ag.linear(size * X[None], np.eye(6)[None], name="l")[0]
        scale = float(qsim.derive_scale(2.0 * X, q).max())
        eye = qsim.quantize(np.eye(6), "int8", scale=1 / 127)
        assert np.array_equal(y, qsim.quantize(size * X, "int8", scale=scale) @ eye.T)
    assert set(memory) == {"l.fwd_act", "l.fwd_weight"}


@pytest.mark.parametrize("kind", [Delayed, Frozen])
@pytest.mark.parametrize("q", ["int8", Quantizer("int8", scale=0.5), Quantizer("int8", scale="absmax", per="token")])
def test_only_derived_scales_of_tensors_are_remembered(kind: Any, q: Any) -> None:
    """A rounding without a scale, with a given one, or with one a token is refused."""
    with pytest.raises(qsim.InputError, match="a remembered scale is derived once a tensor"):
        kind(q)


def test_loss_scaling_moves_errors_and_leaves_gradients() -> None:
    """Unrounded, a power of two changes no bit of the gradient; rounded, errors take 2^k times their place on the grid."""
    assert np.array_equal(gradient(loss_scale=1024.0), gradient())
    got = gradient(bwd_grad="float8_e5m2:RNE", loss_scale=2.0**10)
    assert np.array_equal(got, qsim.quantize(ERRORS * 2.0**10, "float8_e5m2").T @ X / 4 / 2.0**10)
    for bad in (0.0, -1.0, 3.0, np.inf, np.nan):
        with pytest.raises(qsim.InputError, match="must be a power of two"):
            qsim.numerics(loss_scale=bad)


def test_names_and_numbers_that_do_not_fit_are_refused() -> None:
    """A layer met twice, a batch of other draws, a rounding of no kind, a loss that is an array: each in a sentence."""

    def twice(w: Any, x: Any) -> Any:
        return ag.mean_squared_error(ag.linear(ag.linear(x, w, name="l"), w, name="l"), np.zeros((1, 4, 6)))

    square = RNG.standard_normal((6, 6))
    with pytest.raises(qsim.InputError, match="two layers of one loss are called 'l'"):
        value_and_grad(twice)(square, X)
    batch = X[None].repeat(3, 0), TARGET[None].repeat(3, 0)
    with (
        pytest.raises(qsim.InputError, match="a batch for each of 2 draws: its arrays hold 3 of them"),
        qsim.numerics(draws=2),
    ):
        value_and_grad(loss, batch_per_draw=True)(W, batch)
    with pytest.raises(qsim.InputError, match="fwd_act = 3 is no rounding"):
        qsim.numerics(fwd_act=3)  # type: ignore[arg-type]
    with pytest.raises(qsim.InputError, match=r"the loss of each draw is a number, not an array of shape \(4, 5\)"):
        value_and_grad(lambda w, x: ag.linear(x, w, name="l"))(W, X)
    with pytest.raises(qsim.InputError, match=r"inputs of shape \(4, 5\) do not fit a weight of shape \(5, 6\)"):
        value_and_grad(loss)(W, (X[:, :5], TARGET))


def test_dropouts_differ_without_a_context() -> None:
    """Two dropouts of one loss have masks of their own though nobody entered a context."""

    def both(x: Any, _: Any) -> Any:
        return ag.mean_squared_error(
            ag.add(ag.dropout(x, rate=0.5, name="a"), ag.dropout(x, rate=0.5, name="b")), np.zeros((1, 20, 20))
        )

    values = np.unique(np.abs(value_and_grad(both)(np.ones((20, 20)), ())[1] * 20))
    assert len(values) == 3  # dropped by none, by one, by both


@pytest.mark.parametrize("choice", ["errors", "weight_draws", "error_draws", "sample_draws", "clamp"])
def test_choices_have_names(choice: str) -> None:
    """What is no choice is refused with those that are."""
    with pytest.raises(qsim.InputError, match=f"{choice} = 'often' must be '"):
        qsim.numerics(**{choice: "often"})


MODELS = {
    "mlp": (MLP((6, 5, 3)), (np.ones((2, 6)), np.array([0, 2]))),
    "wide residual network": (WideResNet(10, 1), (np.ones((2, 8, 8, 3)), np.array([0, 2]))),
    "llama": (Llama(7, 8, 2, 2), (np.array([[1, 2, 3]]), np.array([[2, 3, 4]]))),
    "tied llama": (Llama(7, 8, 1, 2, tied=True), (np.array([[1, 2, 3]]), np.array([[2, 3, 4]]))),
}


@pytest.mark.parametrize("name", MODELS)
def test_a_model_lists_its_sites_and_each_switches_alone(name: str) -> None:
    """The list has the numbers that a run gives, and every listed site rounds alone, under its full name."""
    model, batch = MODELS[name]
    params = model.init(np.random.default_rng(0))
    with qsim.numerics() as context:
        value_and_grad(model.loss)(params, batch)
    listed = ag.sites(model)
    assert listed == context.numbers
    met = []
    for site in listed:
        with qsim.numerics({site: "bfloat16"}) as alone:
            value_and_grad(model.loss)(params, batch)
        assert set(alone.counts) <= {site}
        met += alone.counts
    # A lookup has no data gradient and no activations; nobody asks for the gradient of the data at the first layer.
    unmet = {site for site in listed if site not in met}
    first = model.layers[0]
    expected = (
        {f"{first}.bwd_weight"}
        if "llama" not in name
        else {f"embedding.{p}" for p in ("fwd_act", "bwd_act", "bwd_weight")}
    )
    assert unmet == expected


def test_parameters_have_sites_too() -> None:
    """Roles of parameters have numbers from 2048 on, eight a parameter, which no layer's site has."""
    model = MLP((3, 3, 2))
    listed = ag.sites(model, model.init(np.random.default_rng(0)))
    assert listed["layer0.w.update"] == 2048
    assert listed["layer1.b.comm"] == 2048 + 8 * 3 + 4
    assert len(set(listed.values())) == len(listed) == 10 + 4 * 5
    with pytest.raises(qsim.InputError, match="function has no `layers`"):
        ag.sites(lambda: None)
