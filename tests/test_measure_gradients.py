"""Statistics of gradients: held against theory where it is exact, against faults it must see, and against all draws at once."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import qsim
from qsim import autograd as ag
from qsim import theory
from qsim.autograd import leaves_of, value_and_grad
from qsim.formats import get_format
from qsim.measure import gradient_statistics
from qsim.measure.predictions import ALL, limit_of, variance_of
from qsim.nn import MLP, Llama, WideResNet
from qsim.rounding import Quantizer

RNG = np.random.default_rng(0)
MODEL = MLP((8, 7, 6, 4))
PARAMS = MODEL.init(RNG)
BATCH = RNG.standard_normal((5, 8)), RNG.integers(0, 4, 5)
COARSE = Quantizer("e4m0fn", "SR")  # range enough for all tensors here: nothing saturates


def contains(interval: Any, value: float, error: float = 0.0) -> bool:
    """Return whether an interval, widened by four standard errors of the value, contains it but for a last digit."""
    slack = 4 * error + 1e-12 * abs(value)
    return bool(interval.low - slack <= value <= interval.high + slack)


@pytest.mark.parametrize("errors", ["per_sample", "mean"])
@pytest.mark.parametrize(
    "policy", [{"bwd_grad": COARSE}, {"bwd_grad": COARSE, "bwd_act": COARSE}, {"bwd_weight": COARSE}], ids=str
)
def test_where_theory_is_exact_the_measurement_contains_it(policy: dict[str, Quantizer], errors: str) -> None:
    """Three layers to E4M0: every variance that theory gives lies in its simultaneous interval, alone and together; no bias."""
    found = gradient_statistics(MODEL, PARAMS, BATCH, policy, seeds=1000, errors=errors)
    assert all(counts.saturated == 0 for counts in found.counts.values())
    checked = set()
    for site, statistics in {"": found.together, **found.alone}.items():
        for s in statistics.values():
            if s.theory is not None:
                assert contains(s.variance, s.theory.variance.value, s.theory.variance.error)
                assert s.theory.variance.value <= s.theory.bound * (1 + 1e-12)
                checked.add((s.theory.by, bool(site)))
            if "bwd_weight" not in policy:
                assert contains(s.bias_squared, 0.0)
    expected = {"bwd_weight": {("A-T2", True), ("untouched", True)}}
    assert checked == expected.get("+".join(policy), {("martingale", False), ("A-T1", True), ("untouched", True)})


def test_the_martingale_identity_is_not_the_first_order_formula() -> None:
    """With E4M0 errors in three layers variances at unrounded errors fall short of what is measured; the identity does not."""
    model = MLP((12, 16, 16, 5))
    params = model.init(np.random.default_rng(8))
    batch = np.random.default_rng(9).standard_normal((6, 12)), np.arange(6) % 5
    found = gradient_statistics(model, params, batch, {"bwd_grad": COARSE}, seeds=2000, alone=True).together
    alone = gradient_statistics(model, params, batch, {"bwd_grad": COARSE}, seeds=32).alone
    first_order = sum(s[ALL].theory.variance.value for s in alone.values())
    whole = found[ALL]
    assert contains(whole.variance, whole.theory.variance.value, whole.theory.variance.error)
    assert first_order < whole.variance.low
    assert whole.theory.by == "martingale"
    assert whole.variance.high < whole.theory.bound < 10 * whole.variance.value


@pytest.mark.parametrize(
    "site", ["stem.bwd_grad", "stage1.block0.conv0.bwd_act", "stage1.block0.conv0.bwd_grad", "head.bwd_act"]
)
def test_convolutions_obey_a_t1(site: str) -> None:
    """Rounded alone, errors and inputs of a convolution and of the head give their own layer the variance of A-T1."""
    model = WideResNet(10, 1, classes=3, norm="group", groups=4)
    params = model.init(np.random.default_rng(2))
    batch = np.random.default_rng(3).standard_normal((2, 8, 8, 3)), np.array([0, 2])
    q = Quantizer("e4m0fn", "SR", scale="pow2") if site.endswith("bwd_grad") else COARSE
    found = gradient_statistics(model, params, batch, {site: q}, seeds=128)
    layer, _, point = site.rpartition(".")
    weight = found.together[f"{layer}.w"]
    assert weight.theory is not None
    assert weight.theory.by == "A-T1"
    assert weight.variance.value > 0
    assert contains(weight.variance, weight.theory.variance.value)
    others = [s for name, s in found.together.items() if name not in (f"{layer}.w", ALL)]
    assert point != "bwd_act" or all(s.theory.by == "untouched" and s.variance.high == 0 for s in others)


def test_a_tied_weight_is_left_to_measurement() -> None:
    """Theory says nothing of a weight that two layers share, and of a lookup; it speaks of the other layers."""
    model = Llama(5, 4, 1, 2, tied=True)
    params = model.init(np.random.default_rng(2))
    batch = np.array([[0, 1, 2]]), np.array([[1, 2, 3]])
    found = gradient_statistics(model, params, batch, {"bwd_act": Quantizer("e4m0fn", "SR", scale="absmax")}, seeds=32)
    assert found.together["embedding.w"].theory is None
    assert all(s.theory is None for s in found.alone["head.bwd_act"].values())
    assert found.alone["block0.up.bwd_act"]["block0.up.w"].theory is not None


def test_statistics_are_those_of_all_draws() -> None:
    """Running sums over chunks say what NumPy says of all gradients at once; chunks do not change them."""
    policy = {"fwd_weight": "e4m0fn:SR", "bwd_grad": COARSE}
    found = gradient_statistics(MODEL, PARAMS, BATCH, policy, seeds=range(10, 74), seed=3, alone=False).together
    with qsim.numerics(policy, draws=64, first_draw=10, seed=3):
        grads = value_and_grad(MODEL.loss)(PARAMS, BATCH)[1]
    reference = value_and_grad(MODEL.loss)(PARAMS, BATCH)[1]
    g = np.concatenate([leaf.reshape(64, -1) for leaf in leaves_of(grads)], 1)
    ref = np.concatenate([leaf.ravel() for leaf in leaves_of(reference)])
    whole = found[ALL]
    assert whole.variance.value == pytest.approx(((g[0::2] - g[1::2]) ** 2).sum(1).mean() / 2, rel=1e-12)
    mean = g.mean(0) - ref
    groups = np.stack([(g[j::16] - ref).mean(0) for j in range(16)])
    unbiased = (mean @ mean) - ((groups - mean) ** 2).sum() / 15 / 16
    assert whole.bias_squared.value == pytest.approx(unbiased, rel=1e-9)
    lengths = np.linalg.norm(g, axis=1)
    assert whole.cosine.value == pytest.approx((g @ ref / lengths / np.linalg.norm(ref)).mean(), rel=1e-12)
    assert whole.norm_ratio.value == pytest.approx(lengths.mean() / np.linalg.norm(ref), rel=1e-12)
    assert whole.theory is None


def test_chunks_change_no_bit(monkeypatch: pytest.MonkeyPatch) -> None:
    """Taken two draws at a time, and all at once, the statistics are equal."""
    results = []
    for size in (1, 1 << 30):
        monkeypatch.setattr("qsim.measure.gradients.CHUNK_BYTES", size)
        monkeypatch.setattr("qsim.autograd.tape.CACHE", size)
        found = gradient_statistics(MODEL, PARAMS, BATCH, {"bwd_grad": COARSE, "bwd_act": COARSE}, seeds=64)
        results.append(found.rows())
    for one, other in zip(*results, strict=True):
        for name in one:  # the predictions add terms of all draws in another order
            assert one[name] == other[name] or (
                name.startswith("theory") and one[name] == pytest.approx(other[name], rel=1e-12)
            )


def test_a_reused_word_is_seen() -> None:
    """Samples that share their words have another variance than A-T1 says: the planted fault leaves the interval."""
    same = np.repeat(BATCH[0][:1], 5, 0), np.repeat(BATCH[1][:1], 5)
    right, wrong = (
        gradient_statistics(MODEL, PARAMS, same, {"layer2.bwd_grad": COARSE}, seeds=400, sample_draws=choice).together
        for choice in ("per_sample", "shared")
    )
    known = right["layer2.w"].theory.variance.value
    assert contains(right["layer2.w"].variance, known)
    assert wrong["layer2.w"].variance.low > known
    assert wrong["layer2.w"].theory is None


def test_saturation_is_shown_beside_theory() -> None:
    """Where a rounding clamps, the prediction says how often: its hypothesis is broken."""
    q = Quantizer("e4m0fn", "SR", scale=2.0**-9)
    found = gradient_statistics(MODEL, PARAMS, BATCH, {"bwd_act": q}, seeds=32)
    assert found.counts["layer0.bwd_act"].saturated > 0
    assert found.alone["layer0.bwd_act"]["layer0.w"].theory.saturated == found.counts["layer0.bwd_act"].saturated


def test_sensitivities_are_squared_jacobians() -> None:
    """What an error of a layer leads to, differentiated element by element, has the squared length that the formula gives."""
    weights = [PARAMS[name]["w"] for name in MODEL.layers]
    inputs = [BATCH[0]]
    for name in MODEL.layers[:-1]:
        inputs.append(np.maximum(inputs[-1] @ PARAMS[name]["w"].T + PARAMS[name]["b"], 0))
    for biases in (False, True):
        table = theory.error_sensitivities(weights, inputs, biases=biases)
        for last in range(3):
            for s in range(5):
                for i in range(len(weights[last])):
                    e = np.zeros(len(weights[last]))
                    e[i] = 1.0
                    for j in range(last, -1, -1):
                        leads_to = e if biases else np.outer(e, inputs[j][s])
                        assert table[last][j][s, i] == pytest.approx((leads_to**2).sum(), rel=1e-12, abs=1e-15)
                        e = (weights[j].T @ e) * (inputs[j][s] > 0) if j else e


@pytest.mark.parametrize(
    "q", [COARSE, Quantizer("e4m3", "SR"), Quantizer("int4", "SR", scale=0.1), Quantizer("e2m1", "SR", scale=2.0)]
)
def test_the_limit_of_a_rounding_holds_for_numbers_of_every_size(q: Quantizer) -> None:
    """v(e) <= c e^2 + a for numbers over all binades of the format and below, equality somewhere near."""
    scale = 1.0 if q.scale == "none" else float(q.scale)
    fmt = get_format(q.format)
    x = np.geomspace(fmt.smallest_subnormal * scale / 100, fmt.max * scale, 20001)[None]
    c, a = limit_of(q)
    v = variance_of(x, q)
    assert (v <= (c * x**2 + a) * (1 + 1e-9)).all()
    assert (v / (c * x**2 + a)).max() > 0.5


@pytest.mark.parametrize("seeds", [0, 33, 30, range(0, 64, 2)])
def test_draws_that_make_no_groups_are_refused(seeds: Any) -> None:
    """An even number of at least 32 neighbouring draws is asked for."""
    with pytest.raises(qsim.InputError, match="must be an even number of at least 32 neighbouring draws"):
        gradient_statistics(MODEL, PARAMS, BATCH, {"bwd_act": COARSE}, seeds=seeds)
    with pytest.raises(qsim.InputError, match="draws is said by seeds here"):
        gradient_statistics(MODEL, PARAMS, BATCH, {"bwd_act": COARSE}, draws=4)


def test_rows_are_plain() -> None:
    """Every row names its site and its parameter; numbers are floats."""
    found = gradient_statistics(MODEL, PARAMS, BATCH, {"bwd_act": COARSE}, seeds=32)
    rows = found.rows()
    assert len(rows) == (len(MODEL.layers) * 2 + 1) * (1 + len(MODEL.layers))
    assert {row["site"] for row in rows} == {"all in force", *(f"{layer}.bwd_act" for layer in MODEL.layers)}
    assert all(isinstance(value, str | int | float) for row in rows for value in row.values())
    assert ag.sites(MODEL, PARAMS).keys() >= {row["site"] for row in rows} - {"all in force"}


def test_a_loss_scale_changes_no_theory() -> None:
    """With errors 1024 times as large, on a grid 1024 times as coarse, all numbers are the same."""
    q, wide = Quantizer("int8", "SR", scale=2.0**-6), Quantizer("int8", "SR", scale=2.0**4)
    plain = gradient_statistics(MODEL, PARAMS, BATCH, {"bwd_grad": q}, seeds=64).rows()
    scaled = gradient_statistics(MODEL, PARAMS, BATCH, {"bwd_grad": wide}, seeds=64, loss_scale=1024.0).rows()
    assert plain == scaled


def test_theory_is_silent_where_it_is_not_exact() -> None:
    """A remembered scale, a forward rounding or dropout beside a site, or in a model that only looks like an MLP."""

    class Other(MLP):
        """A perceptron with another activation."""

        def logits(self, params: Any, x: Any) -> Any:
            for name in self.layers:
                x = ag.silu(ag.linear(x, params[name]["w"], params[name]["b"], name=name))
            return x

    class Dropping(MLP):
        """A perceptron with dropout before its last layer."""

        def logits(self, params: Any, x: Any) -> Any:
            x = ag.relu(ag.linear(x, params["layer0"]["w"], params["layer0"]["b"], name="layer0"))
            return ag.linear(
                ag.dropout(x, rate=0.5, name="drop"), params["layer1"]["w"], params["layer1"]["b"], name="layer1"
            )

    forward = {"fwd_act": Quantizer("int4", scale=0.1), "layer1.bwd_grad": COARSE}
    assert all(s.theory is None for s in gradient_statistics(MODEL, PARAMS, BATCH, forward, seeds=32).together.values())
    other = gradient_statistics(Other((8, 7, 6, 4)), PARAMS, BATCH, {"layer2.bwd_grad": COARSE}, seeds=32).together
    assert other["layer2.w"].theory is not None
    assert other["layer0.w"].theory is None
    model = Dropping((8, 7, 4))
    dropped = gradient_statistics(model, model.init(RNG), BATCH, {"layer1.bwd_grad": COARSE}, seeds=32).together
    assert all(s.theory is None for s in dropped.values())


def test_a_rare_rounding_leaves_no_interval() -> None:
    """Where errors round up once in many thousands of draws nothing is seen, and nothing is claimed: not held, not refuted."""
    q = Quantizer("int8", "SR", scale=1e5)
    found = gradient_statistics(MODEL, PARAMS, BATCH, {"layer2.bwd_grad": q}, seeds=64).together["layer2.w"]
    for interval in (found.variance, found.bias_squared, found.norm_ratio):
        assert (interval.low, interval.high) == (-np.inf, np.inf)
    assert found.theory.variance.value > 0
    nearest = gradient_statistics(MODEL, PARAMS, BATCH, {"layer2.bwd_grad": Quantizer("int8", scale=1e5)}, seeds=32)
    assert nearest.together["layer2.w"].variance == nearest.together["layer2.w"].variance.__class__(0.0, 0.0, 0.0)


def test_a_remembered_scale_takes_one_draw_at_a_time() -> None:
    """A scale that comes from earlier tensors belongs to one run of training; many draws of it are refused."""
    with pytest.raises(qsim.InputError, match="remembers its scale, which belongs to one run of training"):
        gradient_statistics(
            MODEL, PARAMS, BATCH, {"bwd_grad": ag.Frozen(Quantizer("int4", "SR", scale="absmax"))}, seeds=32
        )


def test_each_term_of_the_identity_is_needed() -> None:
    """Rounded inputs meet rounded errors: the variance of their products, v(e) v(x), is in the identity and in the bound.

    One layer of one sample: E |e_hat|^2 = |e|^2 + v(e), in closed form.
    """
    model = MLP((3, 2))
    params, batch = model.init(np.random.default_rng(5)), (np.array([[1.3, 0.4, -2.7]]), np.array([1]))
    found = gradient_statistics(model, params, batch, {"bwd_grad": COARSE, "bwd_act": COARSE}, seeds=32, alone=False)
    logits = batch[0] @ params["layer0"]["w"].T
    e = np.exp(logits) / np.exp(logits).sum() - np.array([[0.0, 1.0]])
    v_e, v_x = variance_of(e[None], COARSE)[0], variance_of(batch[0][None], COARSE)[0]
    exact = (e**2).sum() * v_x.sum() + (batch[0] ** 2).sum() * v_e.sum() + v_e.sum() * v_x.sum()
    theory_of = found.together["layer0.w"].theory
    assert theory_of.variance.value == pytest.approx(exact, rel=1e-12)
    c, a = limit_of(COARSE)
    bounded = c * e**2 + a
    limit = ((e**2) + bounded).sum() * v_x.sum() + (batch[0] ** 2).sum() * bounded.sum()
    assert theory_of.bound == pytest.approx(limit, rel=1e-12)


def test_all_intervals_share_one_rate(monkeypatch: pytest.MonkeyPatch) -> None:
    """The rate is split over four intervals a parameter and for the whole, together and for each site alone."""
    families = []
    real = __import__("qsim.measure.gradients", fromlist=["Family"]).Family
    monkeypatch.setattr("qsim.measure.gradients.Family", lambda *a: families.append(a) or real(*a))
    gradient_statistics(MODEL, PARAMS, BATCH, {"bwd_act": COARSE}, seeds=32, rate=0.01)
    assert families == [(0.01, 4 * 7 * (1 + 3))]


@pytest.mark.parametrize("policy", [{"bwd_act": "int8:SR"}, {"bwd_grad": "float64:SR"}, {"fwd_weight": "int16:SR"}])
def test_a_rounding_without_error_is_known_to_have_none(policy: dict[str, str]) -> None:
    """Where every element was on the grid nothing was rounded: variance and bias are 0, as intervals that are points."""
    model = MLP((8, 4))
    params = {"layer0": {"w": np.round(4 * PARAMS["layer0"]["w"][:4]), "b": np.zeros(4)}}
    batch = np.round(3 * BATCH[0]), BATCH[1]
    found = gradient_statistics(model, params, batch, policy, seeds=32)
    for s in (found.together[ALL], found.together["layer0.w"], *(alone[ALL] for alone in found.alone.values())):
        for interval, value in ((s.variance, 0), (s.bias_squared, 0), (s.bias, 0), (s.norm_ratio, 1)):
            assert interval.value == interval.low == interval.high == pytest.approx(value, rel=1e-15)
    assert found.counts
    one_off = {"layer0": {**params["layer0"], "w": params["layer0"]["w"] + 2.0**-40}}
    off = gradient_statistics(model, one_off, batch, {"fwd_weight": "int16:SR"}, seeds=32).together[ALL]
    assert (off.variance.low, off.variance.high) == (-np.inf, np.inf)  # a rounding that rarely goes up is none of these


@pytest.mark.parametrize("mode", ["SR", "RNE"])
@pytest.mark.parametrize("point", ["fwd_weight", "fwd_act", "bwd_grad", "bwd_weight"])
def test_draws_that_overflow_have_no_interval(point: str, mode: str) -> None:
    """Draws that hold infinities or NaN decide nothing, and nobody is warned."""
    found = gradient_statistics(MODEL, PARAMS, BATCH, {point: Quantizer("e5m2", mode, scale=2.0**-40)}, seeds=32)
    whole = found.together[ALL]
    assert not np.isfinite(whole.variance.value)
    for interval in (whole.variance, whole.bias_squared, whole.cosine, whole.norm_ratio):
        assert (interval.low, interval.high) == (-np.inf, np.inf)
    assert (whole.bias.low, whole.bias.high) == (0, np.inf)
    assert len(found.rows()) == 7 * (1 + len(found.alone))


def test_gradients_of_any_size_have_statistics() -> None:
    """Squares of large gradients, and of large loss scales, are infinite at worst, and no error."""
    params = {name: {"w": 1e60 * layer["w"], "b": layer["b"]} for name, layer in PARAMS.items()}
    for exponent in (-900, 600, 900):
        for policy in ({"bwd_grad": COARSE}, {"bwd_grad": COARSE, "bwd_act": COARSE}, {"bwd_weight": COARSE}):
            gradient_statistics(MODEL, params, BATCH, policy, seeds=32, loss_scale=2.0**exponent)


def test_a_gradient_of_zero_has_no_relative_bias() -> None:
    """Where the reference is 0 nothing is known of the direction, nor of lengths over its own."""
    params = {name: {part: np.zeros_like(array) for part, array in layer.items()} for name, layer in PARAMS.items()}
    found = gradient_statistics(MODEL, params, BATCH, {"bwd_grad": COARSE}, seeds=32).together["layer0.w"]
    for interval in (found.cosine, found.norm_ratio):
        assert (interval.low, interval.high) == (-np.inf, np.inf)
    assert (found.bias.low, found.bias.high) == (0, np.inf)


def test_weights_take_one_draw_by_default() -> None:
    """Without a word weights are rounded once a step: statistics are those of "shared", and not those of "separate"."""
    policy = {"fwd_weight": COARSE, "bwd_weight": COARSE}
    default, shared, separate = (
        gradient_statistics(MODEL, PARAMS, BATCH, policy, seeds=64, alone=False, **choices).rows()
        for choices in ({}, {"weight_draws": "shared"}, {"weight_draws": "separate"})
    )
    assert default == shared
    assert default != separate


@pytest.mark.parametrize("choice", ["shared", "separate"])
def test_theory_of_backward_weights_holds_for_either_choice(choice: Any) -> None:
    """A-T2 is of one rounding of a weight, whose words these are does not matter."""
    found = gradient_statistics(MODEL, PARAMS, BATCH, {"layer2.bwd_weight": COARSE}, seeds=1000, weight_draws=choice)
    below = found.together["layer1.w"]
    assert below.theory.by == "A-T2"
    assert contains(below.variance, below.theory.variance.value)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [({"erors": "mean"}, "no choice of numerics is called 'erors'"), ({"rate": 2.0}, "rate = 2.0 must be above 0 and below 1")],
)  # fmt: skip
def test_what_is_no_choice_is_refused(wrong: Any, message: str) -> None:
    """A misspelt choice and a rate that is none are named."""
    with pytest.raises(qsim.InputError, match=message):
        gradient_statistics(MODEL, PARAMS, BATCH, {"bwd_act": COARSE}, seeds=32, **wrong)
