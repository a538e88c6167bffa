"""The choices of a numerics context, each another estimator: which words, which scale, what is clamped, and whose rounding."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import qsim
from qsim import autograd as ag
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
    """With shared draws the data gradient reads the very weight of the forward pass; else one of its own words."""
    seen = {}
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
    """A derivative is 1 everywhere, or 0 beyond the range; the ends and what rounds to them from within pass."""
    x = np.array([[-2.5, -2.0, -1.9, 0.3, 1.0, 1.4]])
    q = Quantizer("int2", "RNE")  # -2 .. 1
    assert q.format.min == -2
    assert q.format.max == 1

    def through(x: Any, _: Any) -> Any:
        return ag.mean_squared_error(ag.linear(x, np.eye(6)[None], name="l"), np.zeros((1, 1, 6)) + 9)

    grads = {}
    for clamp in ("pass", "stop"):
        with qsim.numerics(fwd_act=q, clamp=clamp):
            grads[clamp] = value_and_grad(through)(x, ())[1][0]
    y = np.array([-2, -2, -2, 0, 1, 1])
    assert grads["pass"].tolist() == (y - 9).tolist()
    assert grads["stop"].tolist() == ((y - 9) * np.array([0, 1, 1, 1, 1, 0])).tolist()


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
    memory: dict[str, list[float]] = {}
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


def test_frozen_scales_are_the_first_ones() -> None:
    """Every step rounds with the scale of the first tensor met, at each site its own."""
    memory: dict[str, list[float]] = {}
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
    with pytest.raises(qsim.InputError, match="parameter 256 has no site: a stream has room for those of 256"):
        ag.parameter_site(256, "update")
    with pytest.raises(qsim.InputError, match="function has no `layers`"):
        ag.sites(lambda: None)
