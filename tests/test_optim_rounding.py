"""Every rounding of an optimizer has its site, its words and its rule; the exact facts of BF16 training hold."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest

import qsim
from qsim import optim
from qsim.arrays import quantize_draws
from qsim.autograd import PARAMETER_ROLES, parameter_site, parameter_sites
from qsim.errors import InputError
from qsim.nn import MLP
from qsim.optim.rounding import Roundings
from qsim.rounding import SHARED_RANK, stream

POSITIVE = np.arange(1, 0x7F80, dtype=np.uint32)
"""The patterns of all positive finite bfloat16 numbers."""


def bf16_values():
    """Return all finite bfloat16 numbers but zero, as float32."""
    positive = (POSITIVE << 16).view(np.float32)
    return np.concatenate([-positive[::-1], positive])


def step_of(optimizer, params, grads, state=None):
    """Return parameters and state after one update."""
    updates, state = optimizer.update(grads, optimizer.init(params) if state is None else state, params)
    return optim.apply_updates(params, updates), state


# --- Sites and words -----------------------------------------------------------------------------------------------


def test_site_numbers_are_injective_and_fit_a_stream():
    """Each parameter and kind has a site number of its own; those of the first 256 parameters are within 12 bits."""
    numbers = {parameter_site(p, kind) for p in range(256) for kind in PARAMETER_ROLES}
    assert len(numbers) == 256 * 5
    assert min(numbers) == 2048
    assert max(numbers) == 2048 + 8 * 255 + 4 < 4096
    assert parameter_site(3, "moment2") == 2048 + 24 + 2


def test_sites_have_names():
    """The sites of a model are named by path and kind, in the order of the tree."""
    names = parameter_sites({"b": {"w": np.zeros(1)}, "a": np.zeros(1)})
    assert list(names)[:2] == ["b.w.update", "b.w.moment"]
    assert names["a.comm"] == 2048 + 8 + 4
    assert len(names) == 10


def test_a_site_wins_over_its_kind_and_a_moment_stands_for_both():
    """A rounding is looked up by site, then by kind; the second moment takes that of `moment` unless it has its own."""
    policy = {"moment": "bfloat16", "w.moment2": None, "update": "e5m2", "b.update": "e4m3:SR"}
    both = Roundings.parse(policy, ("moment", "moment2"))
    assert str(both.at("b", "moment2").format) == "bfloat16"
    assert both.at("w", "moment2") is None
    assert both.at("w", "moment") is not None
    update = Roundings.parse(policy, ("update",))
    assert update.at("w", "update").mode.name == "RNE"
    assert update.at("b", "update").mode.name == "SR"
    assert set(update.policy) == {"update", "b.update"}


@pytest.mark.parametrize(
    ("rounding", "sentence"),
    [
        ({"momentum": "bfloat16"}, "no rounding of an optimizer is called 'momentum'"),
        (
            {"w.update": "bfloat16", "v.update": "bfloat16"},
            "no parameter has the site 'v.update'; did you mean w.update",
        ),
        ("bfloat17:SR", "bfloat17"),
        ({3: "bfloat16"}, "3 names no site"),
        ({"updte": "bfloat16"}, "no rounding of an optimizer is called 'updte'; did you mean update?"),
        ({"w.moments": "bfloat16"}, "is called 'w.moments'; did you mean moment"),
        ({"fwd_weights": "bfloat16"}, "no quantization point is called 'fwd_weights'"),
        ({"layer0.bwd_gard": "bfloat16"}, "no quantization point is called 'layer0.bwd_gard'"),
        ({"update": qsim.autograd.Frozen(qsim.Quantizer("int8", scale="absmax"))}, "'update' has a Frozen scale"),
        ({"moment": "bfloat16"}, "rounding 'moment' without a momentum has nothing to round"),
        ({"w.moment": "bfloat16"}, "rounding 'w.moment' without a momentum"),
    ],
)
def test_misspelt_sites_are_refused(rounding, sentence):
    """A kind, a site or a format that does not exist is refused before the first step."""
    with pytest.raises(InputError, match=sentence):
        optim.sgd(0.1, rounding=rounding).init({"w": np.zeros(3)})


def key(seed, path_number, kind, step, rank=SHARED_RANK, draw=0):
    """Return the key of a site of the parameter with this number."""
    return qsim.Key(seed, stream(site=2048 + 8 * path_number + kind, step=step, draw=draw, rank=rank))


@pytest.mark.parametrize("rank", [3, SHARED_RANK])
def test_words_are_those_of_seed_site_step_and_rank(rank):
    """Write-back and both moments are `quantize` with the key of their own site, step and rank."""
    rng = np.random.default_rng(0)
    params = {name: rng.normal(size=50).astype(np.float32) for name in "ab"}
    rounding = {"update": "bfloat16:SR", "moment": "float8_e5m2:SRA(4)", "moment2": "float8_e4m3fn:SR"}
    optimizer = optim.adamw(0.01, 0.5, 0.5, rounding=rounding, seed=9)
    state = optimizer.init(params)
    m, v, number = np.float32(0), np.float32(0), np.float32
    for step in range(2):
        grads = {name: rng.normal(size=50).astype(np.float32) for name in "ab"}
        updates, state = optimizer.update(grads, state, params, optim.Place(rank=rank))
        g = grads["b"]
        m = qsim.quantize(m / 2 + g / 2, rounding["moment"], key=key(9, 1, 1, step, rank))
        v = qsim.quantize(v / 2 + g * g / 2, rounding["moment2"], key=key(9, 1, 2, step, rank))
        assert (state["0"]["moment"]["b"] == m).all()
        assert (state["0"]["moment2"]["b"] == v).all()
        u = (m / number(1 - 0.5 ** (step + 1))) / (np.sqrt(v / number(1 - 0.5 ** (step + 1))) + number(1e-8))
        new = qsim.quantize(params["b"] + u * number(-0.01), "bfloat16:SR", key=key(9, 1, 0, step, rank))
        assert (updates["b"].value == new).all()
        params = optim.apply_updates(params, updates)


def test_words_of_a_factored_moment_are_two_draws():
    """Adafactor's row means take draw 0 of the site of the second moment, its column means draw 1."""
    g = np.random.default_rng(0).normal(size=(30, 30)).astype(np.float32)
    link = optim.scale_by_factored_rms(rounding="float8_e5m2:SR", seed=4)
    _, state = link.update({"w": g}, link.init({"w": g}), {"w": g})
    squares = g * g + np.float32(1e-30)
    for draw, (name, axis) in enumerate((("rows", 1), ("columns", 0))):
        expected = qsim.quantize(squares.mean(axis), "float8_e5m2:SR", key=key(4, 0, 2, 0, draw=draw))
        assert (state["moment2"]["w"][name] == expected).all()


def test_gradients_take_words_that_no_micro_batch_takes():
    """A rounding of whole gradients takes the last draw of the site `grad_acc`, whose first are the micro-batches'."""
    g = np.random.default_rng(0).normal(size=50).astype(np.float32)
    params = {"w": np.ones(50, np.float32)}
    link = optim.round_gradients("float8_e5m2:SR", seed=6)
    state = link.init(params)
    for step in range(3):
        rounded, state = link.update({"w": g}, state, params)
        expected = qsim.quantize(g, "float8_e5m2:SR", key=key(6, 0, 3, step, draw=2**18 - 1))
        assert (rounded["w"] == expected).all()


def test_the_value_itself_is_handed_over():
    """On a grid of tenths in float32, from 12.7 to 0.3, no difference of the two leads back to the rounded value."""
    p, u = np.array([12.7], np.float32), np.array([-12.4], np.float32)
    rounding = qsim.Quantizer("int8", "RNE", scale=0.1)
    new, _ = step_of(optim.write_back(rounding), {"w": p}, {"w": u})
    assert new["w"] == np.float32(0.1) * np.float32(3)
    assert p + (new["w"] - p) != new["w"]


# --- BF16 ----------------------------------------------------------------------------------------------------------


def test_dead_zone_of_nearest_rounding():
    """To nearest, an update of at most 2^-9 |w| is lost for every bfloat16 number w, one above 2^-8 |w| for no normal one.

    Float64 parameters hold w and w + u exactly.
    """
    w = bf16_values().astype(np.float64)
    normal = np.abs(w) >= 2.0**-126
    optimizer = optim.write_back("bfloat16:RNE")
    for sign in (-1, 1):
        lost, _ = step_of(optimizer, {"w": w}, {"w": sign * 2.0**-9 * np.abs(w)})
        assert (lost["w"] == w).all()
        kept, _ = step_of(optimizer, {"w": w}, {"w": sign * (2.0**-8 + 2.0**-30) * np.abs(w)})
        assert (kept["w"] != w)[normal].all()
    # Neither bound can be tightened: between them it depends on w.
    between, _ = step_of(optimizer, {"w": w}, {"w": (2.0**-9 + 2.0**-30) * -np.abs(w)})
    assert 0 < (between["w"] != w).sum() < w.size
    between, _ = step_of(optimizer, {"w": w}, {"w": 2.0**-8 * np.abs(w)})
    assert (between["w"] == w)[normal].any()


def frozen(b2):
    """Return for each positive bfloat16 number whether a second moment of it stays, without a gradient."""
    v = (POSITIVE << 16).view(np.float32)
    adam = optim.scale_by_adam(b2=b2, rounding="bfloat16")
    params = {"w": np.zeros_like(v)}
    state = adam.init(params) | {"moment2": {"w": v}}
    _, state = adam.update(params, state, params)
    return state["moment2"]["w"] == v


def test_second_moment_is_frozen_from_one_minus_2_to_the_minus_9():
    """Every bfloat16 second moment stays for ever iff b2 >= 1 - 2^-9, to the last float32 below."""
    edge = 1 - 2.0**-9
    assert frozen(edge).all()
    assert frozen(0.999).all()
    below = float(np.nextafter(np.float32(edge), np.float32(0)))
    assert not frozen(below).all()
    normal = POSITIVE >= 0x80
    # The powers of two, whose lower neighbour is nearest, are the first to move (below 2^-126 neighbours are no nearer), and
    # at 0.995 every normal number does.
    moves = (POSITIVE % 128 == 0) & (POSITIVE > 0x80)
    assert (frozen(below) == ~moves).all()
    assert not frozen(0.995)[normal].any()
    shares = [frozen(b2)[normal].mean() for b2 in (0.997, 0.998)]
    assert [round(100 * share, 1) for share in shares] == [29.7, 95.3]


def test_nan_stays_nan():
    """A NaN parameter or update is written as NaN, whatever the random word: none is added to its pattern."""
    patterns = np.array([0x7FFFFFFF, 0x7F800001, 0xFFFFFFFF, 0xFF800001, 0x7FC00000], np.uint32)
    nans = np.repeat(patterns, 1 << 14).view(np.float32)
    optimizer = optim.write_back("bfloat16:SR")
    assert np.isnan(step_of(optimizer, {"w": nans}, {"w": np.zeros_like(nans)})[0]["w"]).all()
    assert np.isnan(step_of(optimizer, {"w": np.zeros_like(nans)}, {"w": nans})[0]["w"]).all()


def test_stochastic_write_back_is_unbiased_over_all_words():
    """Over all 2^16 words the mean of SR's bfloat16 results is w + u exactly, and its distance from w is |u| / gap."""
    words = np.arange(1 << 16, dtype=np.uint32)
    for w, u in ((1.0, 2.0**-12), (1.0, -(2.0**-13)), (-1.5, 3 * 2.0**-20), (2.0**-130, 2.0**-140)):
        x = np.full(words.size, np.float32(w) + np.float32(u), np.float32)
        y = qsim.quantize(x, "bfloat16", "SRA", sr_bits=16, rbits=words)
        assert sum(map(Fraction, y.tolist())) / words.size == Fraction(w) + Fraction(u)


def test_kahan_recovers_what_nearest_rounding_loses():
    """1,000 steps of 2^-12 on 1: nearest never moves, with Kahan's compensation the end is within one gap of 1 + 1000/4096."""
    params, grads = {"w": np.ones(1, np.float32)}, {"w": np.full(1, -(2.0**-12), np.float32)}
    for kahan in (False, True):
        optimizer = optim.sgd(1.0, rounding="bfloat16", kahan=kahan)
        w, state = params, optimizer.init(params)
        for _ in range(1000):
            w, state = step_of(optimizer, w, grads, state)
        # p + c is off by the rounding of c alone, at most 2^-9 |c| a step, |c| <= 2^-8: 1000 * 2^-17 < 2^-7.
        assert abs(w["w"][0] - (1 + 1000 / 4096)) < 2.0**-7 + 2.0**-7 if kahan else w["w"][0] == 1
        for tree in (w, state["1"]["compensation"] if kahan else w):
            assert (tree["w"] == qsim.quantize(tree["w"], "bfloat16")).all()


def test_kahan_keeps_the_sum_exactly_where_the_compensation_is_on_the_grid():
    """While no compensation needs rounding, p + c is the exact sum, after every one of 100 steps."""
    w = {"w": np.ones(1, np.float32)}
    optimizer = optim.sgd(1.0, rounding="bfloat16", kahan=True)
    state = optimizer.init(w)
    for step in range(100):
        w, state = step_of(optimizer, w, {"w": np.full(1, -(2.0**-12), np.float32)}, state)
        assert w["w"][0] + state["1"]["compensation"]["w"][0] == 1 + (step + 1) / 4096


ON_GRID = {"sr", "nearest", "kahan", "o2"}


@pytest.mark.parametrize("arm", list(optim.ARMS))
def test_arms_store_what_they_say(arm):
    """The BF16 arms keep parameters on the bfloat16 grid, with states on it too where no float32 copy is kept."""
    rng = np.random.default_rng(0)
    how = optim.bf16_adamw(arm, 1e-2, b2=0.95, weight_decay=0.1, clip=10.0)
    params = how.begin({"w": rng.normal(size=(8, 8)).astype(np.float32)})
    state = how.optimizer.init(params)
    for _ in range(3):
        params, state = step_of(how.optimizer, params, {"w": rng.normal(size=(8, 8)).astype(np.float32)}, state)

    def on_grid(x):
        return (x == qsim.quantize(x, "bfloat16")).all()

    assert on_grid(params["w"]) == (arm in ON_GRID)
    states = [leaf for _, leaf in optim.tree.parameters(state) if isinstance(leaf, np.ndarray)]
    assert len(states) == {"o2": 3, "kahan": 3}.get(arm, 2)
    assert all(map(on_grid, states)) == (arm in {"sr", "nearest", "kahan"})
    assert bool(how.policy) == (arm != "fp32")


def test_master_weights_remember_what_the_cast_loses():
    """O2 steps of 2^-12 on 1: after 32 the bfloat16 copy has moved by one gap, though none of them is visible in it."""
    how = optim.chain(optim.master_weights(optim.sgd(1.0)))
    w = {"w": np.ones(1, np.float32)}
    state = how.init(w)
    seen = []
    for _ in range(32):
        w, state = step_of(how, w, {"w": np.full(1, -(2.0**-12), np.float32)}, state)
        seen.append(float(w["w"][0]))
    assert seen[:16] == [1.0] * 16  # 16 steps are half a gap: a tie, to even
    assert seen[16:] == [1 + 2.0**-7] * 16
    assert state["0"]["master"]["w"][0] == 1 + 32 / 4096


Q16 = "bfloat16:RNE"


def replaced(params, **values):
    """Return parameters with other values of some."""
    return {name: values.get(name, p) for name, p in params.items()}


def trained(optimizer, params, state, steps, seed=0):
    """Return parameters and state after some steps."""
    rng = np.random.default_rng(seed)
    for _ in range(steps):
        params, state = step_of(
            optimizer, params, {k: rng.normal(size=p.shape).astype(p.dtype) for k, p in params.items()}, state
        )
    return params, state


@pytest.mark.parametrize(
    "inner", [optim.sgd(0.01), optim.adamw(0.01), optim.adamw(0.01, rounding={"moment": "bfloat16:SR"})]
)
def test_replaced_parameters_become_the_master_copy(inner):
    """Parameters that are loaded in the middle of training are trained on, as if the master copy were made of them."""
    rng = np.random.default_rng(0)
    optimizer = optim.master_weights(inner, Q16)
    params = {name: rng.normal(size=(5, 4)).astype(np.float32) for name in "ab"}
    params, state = trained(optimizer, params, optimizer.init(params), 3)
    loaded = {name: qsim.quantize(rng.normal(size=(5, 4)).astype(np.float32), "bfloat16") for name in "ab"}
    afresh = {"master": loaded, "inner": state["inner"]}
    found, expected = (trained(optimizer, loaded, begin, 2, seed=3) for begin in (state, afresh))
    assert all((found[0][name] == expected[0][name]).all() for name in "ab")
    assert all((found[1]["master"][name] == expected[1]["master"][name]).all() for name in "ab")


def test_replaced_elements_leave_the_master_copy_of_others():
    """Pruning sets some elements to zero: their masters are zero, and the others keep the digits that bfloat16 has not."""
    rng = np.random.default_rng(1)
    optimizer = optim.master_weights(optim.sgd(0.01), Q16)
    params = {name: rng.normal(size=(6, 6)).astype(np.float32) for name in "ab"}
    params, state = trained(optimizer, params, optimizer.init(params), 3)
    kept = rng.random((6, 6)) < 0.5
    zero = {name: np.zeros((6, 6), np.float32) for name in "ab"}
    _, after = step_of(optimizer, replaced(params, a=params["a"] * kept), zero, state)
    before = state["master"]
    assert (after["master"]["a"] == np.where(kept, before["a"], 0)).all()
    assert (after["master"]["b"] == before["b"]).all()
    assert (before["b"] != params["b"]).any()


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, 0.0, 3.0])
def test_replaced_elements_are_taken_whatever_they_are(value):
    """A NaN or an infinity that somebody wrote is taken over too; one that the rounding itself has made is no replacement."""
    optimizer = optim.master_weights(optim.sgd(1.0), "float16")
    params = {"w": np.array([1.0, 2.0**-30], np.float32)}
    state = optimizer.init(params)
    zero = {"w": np.zeros(2, np.float32)}
    _, after = step_of(optimizer, {"w": np.array([value, 0.0], np.float32)}, zero, state)
    assert np.array_equal(after["master"]["w"], np.array([value, 2.0**-30], np.float32), equal_nan=True)
    for master in (1e30, -1e30, np.nan):
        state = {"master": {"w": np.array([master, 1.0], np.float32)}, "inner": state["inner"]}
        shown = {"w": qsim.quantize(state["master"]["w"], "float16")}
        _, after = step_of(optimizer, shown, zero, state)
        assert np.array_equal(after["master"]["w"], state["master"]["w"], equal_nan=True)


def test_the_first_parameters_may_be_unrounded_or_rounded():
    """A master copy keeps its digits whether its first step sees the parameters that it was made of or their roundings."""
    optimizer = optim.master_weights(optim.sgd(0.01), Q16)
    params = {"w": np.random.default_rng(2).normal(size=40).astype(np.float32)}
    masters = [
        step_of(optimizer, begin, {"w": np.ones(40, np.float32)}, optimizer.init(params))[1]["master"]["w"]
        for begin in (params, optim.cast(params, "bfloat16"))
    ]
    assert (masters[0] == masters[1]).all()
    assert (masters[0] == params["w"] - np.float32(0.01)).all()


def test_a_training_run_replaces_nothing():
    """Over ten steps with a scale that is derived anew, or with skipped steps, every master is that of an unrounded run."""
    rng = np.random.default_rng(3)
    first = {"w": rng.normal(size=(4, 4)).astype(np.float32)}
    grads = [{"w": rng.normal(size=(4, 4)).astype(np.float32)} for _ in range(10)]
    grads[4]["w"][0, 0] = np.inf
    whole = {"w": first["w"].copy()}
    for k, g in enumerate(grads):
        if k != 4:
            whole = {"w": whole["w"] + np.float32(-0.1) * g["w"]}
    for rounding in (Q16, qsim.Quantizer("int4", scale="absmax"), "e4m3"):
        optimizer = optim.skip_nonfinite(optim.master_weights(optim.sgd(0.1), rounding))
        params = optim.cast(first, rounding)
        state = optimizer.init(first)
        for g in grads:
            params, state = step_of(optimizer, params, g, state)
        assert (state["inner"]["master"]["w"] == whole["w"]).all()


def test_senseless_roundings_are_refused():
    """A cast without a site takes no random words, and an unknown arm is named with its neighbours."""
    with pytest.raises(InputError, match="before the first step"):
        optim.cast({"w": np.ones(1)}, "bfloat16:SR")
    with pytest.raises(InputError, match="no site of its own"):
        optim.master_weights(optim.sgd(0.1), "bfloat16:SR")
    with pytest.raises(InputError, match="no arm is called 'bf16'"):
        optim.bf16_adamw("bf16", 1e-3)


# --- BitNet --------------------------------------------------------------------------------------------------------


def test_bitnet_quantizers_are_the_published_formulas():
    """Weights become s {-1, 0, 1} of their abs-mean s; activations 127ths of each token's abs-max."""
    w = np.array([[0.5, -1.5], [0.25, 0.75]], np.float32)  # abs-mean 0.75
    s = np.float32(0.75)
    assert (qsim.quantize(w, optim.ABSMEAN_TERNARY) == s * np.array([[1, -1], [0, 1]], np.float32)).all()
    x = np.array([[127.0, 1.4, -2.6], [0.0, 0.0, 0.0], [254.0, 3.0, -254.0]], np.float32)
    assert (qsim.quantize(x, optim.TOKEN_INT8) == [[127, 1, -3], [0, 0, 0], [254, 4, -254]]).all()
    # a numerics policy takes both
    model = qsim.nn.MLP((4, 3, 2))
    params = model.init(np.random.default_rng(0))
    with qsim.numerics(optim.BITNET) as context:
        qsim.value_and_grad(model.loss)(params, (np.ones((2, 4)), np.array([0, 1])))
    assert context.counts["layer0.fwd_weight"].elements == 12


def test_bitnet_rounds_projections_alone():
    """Of a decoder the policy rounds the six products of each block; embedding and head keep their precision, tied or not."""
    codes = np.arange(6).reshape(1, 6) % 5
    parts = ("query", "key", "value", "output", "up", "down")
    for tied in (False, True):
        model = qsim.nn.Llama(5, 4, 2, 1, tied=tied)
        params = model.init(np.random.default_rng(0))
        with qsim.numerics(optim.BITNET) as context:
            qsim.value_and_grad(model.loss)(params, (codes, codes))
        points = ("fwd_act", "fwd_weight")
        assert set(context.counts) == {
            f"block{k}.{part}.{point}" for k in range(2) for part in parts for point in points
        }
        with qsim.numerics(fwd_weight=optim.ABSMEAN_TERNARY, fwd_act=optim.TOKEN_INT8) as context:
            qsim.value_and_grad(model.loss)(params, (codes, codes))
        assert {"embedding.fwd_weight", "head.fwd_weight", "head.fwd_act"} < set(context.counts)


def test_bitnet_is_a_policy_of_any_model():
    """A perceptron has projections alone; a network of convolutions has a head, which keeps its precision."""
    perceptron, network = qsim.nn.MLP((4, 3, 2)), qsim.nn.WideResNet(10, 1, norm="group")
    params = perceptron.init(np.random.default_rng(0))
    batch = (np.ones((2, 4)), np.array([0, 1]))
    with qsim.numerics(optim.BITNET) as context:
        qsim.value_and_grad(perceptron.loss)(params, batch)
    assert set(context.counts) == {f"layer{k}.fwd_{kind}" for k in (0, 1) for kind in ("act", "weight")}
    without = {**optim.BITNET, "layer1.fwd_weight": None, "layer1.fwd_act": None}
    with qsim.numerics(without) as context:
        qsim.value_and_grad(perceptron.loss)(params, batch)
    assert set(context.counts) == {"layer0.fwd_act", "layer0.fwd_weight"}
    with qsim.numerics(optim.BITNET) as context:
        images = np.random.default_rng(0).normal(size=(2, 8, 8, 3))
        qsim.value_and_grad(network.loss)(network.init(np.random.default_rng(0)), (images, np.array([0, 1])))
    assert not any(site.startswith("head") for site in context.counts)
    assert "stem.fwd_weight" in context.counts


def test_misspelt_layers_are_still_refused():
    """A site left unrounded that no layer met is refused, but for embedding and head; so is a rounding of either."""
    model = qsim.nn.MLP((4, 2))
    params, batch = model.init(np.random.default_rng(0)), (np.ones((2, 4)), np.array([0, 1]))
    for policy in ({"haed.fwd_weight": None}, {"layer7.fwd_act": None}, {"head.fwd_weight": "e4m3"}):
        with pytest.raises(InputError, match="no layer met the site"), qsim.numerics(policy):
            qsim.value_and_grad(model.loss)(params, batch)


def test_one_policy_serves_the_context_and_the_optimizer():
    """The context takes the points of layers from a policy, and an optimizer its own roles; both take it whole."""
    policy = {"bwd_grad": "e4m3:SR", "update": "bfloat16:SR", "layer0.w.moment": "bfloat16"}
    model = MLP((3, 2))
    params = model.init(np.random.default_rng(0))
    optimizer = optim.adamw(0.1, rounding=policy)
    with qsim.numerics(policy) as context:
        _, grads = qsim.value_and_grad(model.loss)(params, (np.ones((2, 3)), np.array([0, 1])))
    assert set(context.counts) == {"layer0.bwd_grad"}
    updates, state = optimizer.update(grads, optimizer.init(params), params)
    new = optim.apply_updates(params, updates)
    assert np.array_equal(new["layer0"]["w"], qsim.quantize(new["layer0"]["w"], "bfloat16"))
    moments = state["0"]["moment"]["layer0"]
    assert np.array_equal(moments["w"], qsim.quantize(moments["w"], "bfloat16"))
    assert not np.array_equal(moments["b"], qsim.quantize(moments["b"], "bfloat16"))


def test_an_optimizer_leaves_to_the_context_what_is_the_context_s():
    """Remembered scales and unrounded points, layers and their formats are no business of an optimizer."""
    q = qsim.Quantizer("int8", scale="absmax")
    policy = {
        "fwd_act": qsim.autograd.Delayed(q),
        "layer0.fwd_weight": qsim.autograd.Frozen(q),
        "bwd_grad": None,
        "layer0": "e4m3",
        "update": "bfloat16",
    }
    qsim.numerics(policy)
    assert set(Roundings.parse(policy, ("update",)).policy) == {"update"}
    optim.adamw(0.1, rounding=policy)
    optim.sgd(0.1, rounding=policy | {"moment": None})


# --- Counts --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "q",
    [
        "float8_e4m3fn:SR",
        "float8_e5m2:RNE",
        "uint4:SRA(6)",
        "ternary:RTZ",
        qsim.Quantizer("int8sym", "SR", scale="absmax"),
        qsim.Quantizer("float6_e2m3fn", "RTZ", scale=0.75),
        qsim.Quantizer("float8_e4m3fn", "RNE", scale="pow2", per="channel", ftz_in=True, ftz_out=True),
        qsim.Quantizer("int4", "SR", scale="absmean", order="exact"),
    ],
    ids=str,
)
def test_sites_of_an_optimizer_count_as_those_of_layers_do(q):
    """A context in force counts at "w.update" what `quantize_draws` counts of the same tensor and the same words."""
    q = qsim.Quantizer.parse(q)
    rng = np.random.default_rng(3)
    x = (rng.normal(size=(6, 50)) * np.exp(rng.normal(size=(6, 50)) * 6)).astype(np.float32)
    x[0, :8] = [np.nan, np.inf, -np.inf, 0, -0.0, 1e-45, 1, -1]
    optimizer = optim.write_back(q, seed=5)
    state = optimizer.init({"w": x})
    with qsim.numerics() as context:
        for _ in range(2):
            written, _ = optimizer.update({"w": np.zeros_like(x)}, state, {"w": x})
    y, expected = quantize_draws(x[None], q, 5, [stream(site=2048)])
    assert np.array_equal(written["w"].value, y[0], equal_nan=True)
    assert context.counts == {"w.update": expected * 2}


def test_every_site_of_an_optimizer_counts_its_elements():
    """Moments, micro-batches, messages, shards and codes count under their own names; without a context nothing does."""
    params = {"a": np.ones(5, np.float32), "w": np.ones((2, 3), np.float32)}
    adam = optim.sharded(optim.adamw(0.1, rounding="bfloat16:SR", kahan=True), 2)
    accumulator, dqt = optim.Accumulator("bfloat16"), optim.DQT()
    coded = dqt.optimizer(optim.scale(-1.0))
    with qsim.numerics() as context:
        adam.update(params, adam.init(params), params)
        accumulator.add(params, accumulator.init(params))
        optim.all_reduce([params] * 2, "bfloat16")
    kinds = {"update": 1, "moment": 1, "moment2": 1, "grad_acc": 1, "comm": 2}  # of two ranks a chunk is sent twice
    sizes = {"a": 5, "w": 6}
    found = {site: counts.elements for site, counts in context.counts.items()}
    assert found == {f"{name}.{kind}": sizes[name] * n for name in sizes for kind, n in kinds.items()}
    stored = dqt.store(params)
    with qsim.numerics() as context:  # codes 1, moved to 1 - 1/2, and in the last row beyond the end
        u = np.array([[0.5, 0.5, 1], [-1, -1, -1]], np.float32)
        coded.update(params | {"w": u}, coded.init(stored), stored)
    counts = context.counts["w.update"]
    assert (counts.elements, counts.saturated, counts.on_grid) == (6, 3, 1)
