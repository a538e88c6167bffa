"""Simulated ranks: all-reduces add in the order that is stated, shards and whole parameters give the same bits."""

from __future__ import annotations

import numpy as np
import pytest

import qsim
from qsim import optim
from qsim.errors import InputError
from qsim.rounding import SHARED_RANK, stream

ROUNDINGS = {
    "update": "bfloat16:SR",
    "moment": "float8_e5m2:SRA(8)",
    "moment2": "bfloat16:SR",
    "w.update": "bfloat16:SRC(3)",
}


def params_of(seed=0):
    """Return three parameters, one smaller than the ranks."""
    rng = np.random.default_rng(seed)
    shapes = {"w": (5, 7), "b": (13,), "c": (2,)}
    return {name: rng.normal(size=shape).astype(np.float32) for name, shape in shapes.items()}


def equal(a, b):
    """Return whether two trees of arrays have the same bits."""
    return all((x.view(np.uint32) == b[name].view(np.uint32)).all() for name, x in a.items())


def train(optimizer, steps=3, place=None):
    """Return parameters after some steps."""
    params = params_of()
    state = optimizer.init(params)
    for step in range(steps):
        at = () if place is None else (place,)
        updates, state = optimizer.update(params_of(step + 1), state, params, *at)
        params = optim.apply_updates(params, updates)
    return params, state


@pytest.mark.parametrize("ranks", [1, 3, 4])
@pytest.mark.parametrize(
    "inner",
    [
        optim.adamw(0.1, weight_decay=0.1, rounding=ROUNDINGS, seed=3),
        optim.sgd(0.1, momentum=0.9, nesterov=True, rounding=ROUNDINGS, kahan=True),
        optim.master_weights(optim.adamw(0.1), "bfloat16"),
        optim.chain(optim.round_gradients("e4m3:SR"), optim.sgd(0.1)),
    ],
    ids=["adamw", "sgd-kahan", "o2", "gradients"],
)
def test_shards_give_the_bits_of_whole_parameters(inner, ranks):
    """Whatever the number of ranks, sharded states and stochastic roundings give the very bits of unsharded ones."""
    whole, state = train(inner)
    cut, shards = train(optim.sharded(inner, ranks))
    assert equal(whole, cut)
    assert set(shards) == {f"rank{r}" for r in range(ranks)}
    assert equal(*(train(t, place=optim.Place(rank=2))[0] for t in (inner, optim.sharded(inner, ranks))))
    del state


def test_sharded_states_are_parts():
    """Rank r of four keeps a fourth of each moment: of 35 elements 9, 9, 9 and 8."""
    _, state = train(optim.sharded(optim.adamw(0.1), 4))
    assert [state[f"rank{r}"]["0"]["moment"]["w"].size for r in range(4)] == [9, 9, 9, 8]


def test_shards_within_shards_keep_their_words():
    """Shards of shards still count elements from the beginning of the whole parameter."""
    inner = optim.adamw(0.1, rounding=ROUNDINGS)
    assert equal(train(optim.sharded(optim.sharded(inner, 2), 3))[0], train(inner)[0])


@pytest.mark.parametrize(
    "inner",
    [
        optim.adamw(0.1, clip=1.0),
        optim.adafactor(),
        optim.sgd(0.1, rounding=qsim.Quantizer("int8", "SR", scale="absmax")),
        optim.DQT().optimizer(optim.sgd(0.1)),
        optim.skip_nonfinite(optim.sgd(0.1)),
    ],
    ids=["clip", "adafactor", "scale", "dqt", "skip"],
)
def test_what_needs_the_whole_is_not_cut(inner):
    """A link in which elements depend on each other is refused inside, and works before the sharded ones."""
    with pytest.raises(InputError, match="elements do not depend on each other"):
        optim.sharded(inner, 2)


def test_clipping_before_shards_is_clipping():
    """Clipped whole and then sharded is the same as clipped and not sharded."""
    inner = optim.adamw(0.1, rounding=ROUNDINGS)
    clip = optim.clip_by_global_norm(0.5)
    assert equal(train(optim.chain(clip, optim.sharded(inner, 3)))[0], train(optim.chain(clip, inner))[0])


# --- All-reduce ----------------------------------------------------------------------------------------------------


def test_ring_adds_each_chunk_from_its_own_rank_on():
    """Of three ranks chunk c is ((g_c + g_c+1) + g_c+2) / 3, each partial sum rounded to bfloat16 as it is sent."""
    grads = [{"w": np.random.default_rng(r).normal(size=7).astype(np.float32)} for r in range(3)]

    def q(x):
        return qsim.quantize(x, "bfloat16")

    expected = []
    for c, chunk in enumerate([slice(0, 3), slice(3, 5), slice(5, 7)]):
        first, second, third = (grads[(c + k) % 3]["w"][chunk] for k in range(3))
        expected.append(q((q(q(first) + second) + third) / np.float32(3)))
    assert equal(optim.all_reduce(grads, "bfloat16"), {"w": np.concatenate(expected)})


def test_tree_adds_in_pairs():
    """Of five ranks the tree adds 0+1 and 2+3, then both, then 4; each sent sum is rounded."""
    g = [{"w": np.random.default_rng(r).normal(size=4).astype(np.float32)} for r in range(5)]

    def q(x):
        return qsim.quantize(x, "bfloat16")

    a, b, c, d, e = (each["w"] for each in g)
    expected = q((((a + q(b)) + q(c + q(d))) + q(e)) / np.float32(5))
    assert equal(optim.all_reduce(g, "bfloat16", order="tree"), {"w": expected})


@pytest.mark.parametrize("order", ["ring", "tree"])
def test_unrounded_all_reduce_is_the_mean(order):
    """Of small integers and four ranks both orders give the mean exactly, divided before or after."""
    grads = [{"w": np.arange(10.0) + r, "b": np.full((2, 3), 4.0 * r)} for r in range(4)]
    for divide in ("before", "after"):
        mean = optim.all_reduce(grads, order=order, divide=divide)
        assert (mean["w"] == np.arange(10) + 1.5).all()
        assert (mean["b"] == np.full((2, 3), 6)).all()


def test_dividing_before_keeps_sums_within_the_range():
    """Eight float16 gradients of 61,440 overflow as a sum, and do not when they are divided first."""
    grads = [{"w": np.full(8, 61_440, np.float32)} for _ in range(8)]
    assert np.isinf(optim.all_reduce(grads, "float16")["w"]).all()
    assert (optim.all_reduce(grads, "float16", divide="before")["w"] == 61_440).all()


@pytest.mark.parametrize("draws", ["shared", "independent"])
def test_messages_take_the_words_of_hop_and_sender(draws):
    """The message of rank r at hop h takes draw h of rank r, or of the shared rank, at the elements' own indices."""
    grads = [{"w": np.random.default_rng(r).normal(size=6).astype(np.float32)} for r in range(2)]

    def sent(x, rank, hop, offset):
        number = stream(site=2048 + 4, step=11, draw=hop, rank=SHARED_RANK if draws == "shared" else rank)
        return qsim.quantize(x, "bfloat16:SR", key=qsim.Key(7, number, offset))

    a, b = (g["w"] for g in grads)
    low = sent((sent(a[:3], 0, 0, 0) + b[:3]) / np.float32(2), 1, 1, 0)
    high = sent((sent(b[3:], 1, 0, 3) + a[3:]) / np.float32(2), 0, 1, 3)
    found = optim.all_reduce(grads, {"comm": "bfloat16:SR"}, draws=draws, step=11, seed=7)
    assert equal(found, {"w": np.concatenate([low, high])})


def test_messages_of_a_tree_take_words_too():
    """Of three ranks 1 sends to 0 at hop 0, 2 to 0 at hop 1, and 0 the mean at hop 2."""
    a, b, c = (np.random.default_rng(r).normal(size=50).astype(np.float32) for r in range(3))

    def sent(x, rank, hop):
        return qsim.quantize(x, "bfloat16:SR", key=qsim.Key(0, stream(site=2048 + 4, draw=hop, rank=rank)))

    expected = sent(((a + sent(b, 1, 0)) + sent(c, 2, 1)) / np.float32(3), 0, 2)
    assert equal(optim.all_reduce([{"w": x} for x in (a, b, c)], "bfloat16:SR", order="tree"), {"w": expected})


def test_replicas_drift_without_shared_draws():
    """Replicas that share their draws stay equal bit for bit; with draws of their own they do not."""
    optimizer = optim.sgd(0.01, rounding="bfloat16:SR")
    for draws in ("shared", "independent"):
        replicas = [params_of() for _ in range(3)]
        states = [optimizer.init(params) for params in replicas]
        for step in range(5):
            grads = optim.all_reduce([params_of(10 * step + r) for r in range(3)], "bfloat16")
            replicas, states = optim.update_replicas(optimizer, grads, states, replicas, draws=draws)
        assert equal(replicas[0], replicas[1]) == (draws == "shared")


def test_dqt_replicas_share_their_codes():
    """Replicas of stored codes stay equal with shared draws as well."""
    dqt = optim.DQT()
    optimizer = dqt.optimizer(optim.sgd(0.1))
    for draws in ("shared", "independent"):
        replicas = [dqt.store(params_of()) for _ in range(2)]
        states = [optimizer.init(stored) for stored in replicas]
        replicas, _ = optim.update_replicas(optimizer, params_of(1), states, replicas, draws=draws)
        codes = [stored["w"]["codes"] for stored in replicas]
        assert (codes[0] == codes[1]).all() == (draws == "shared")


def test_senseless_reductions_are_refused():
    """No ranks, another order, and a scale that each message would derive anew are refused."""
    with pytest.raises(InputError, match="at least one rank"):
        optim.all_reduce([])
    with pytest.raises(InputError, match="order = 'star'; it is ring or tree"):
        optim.all_reduce([params_of()], order="star")
    with pytest.raises(InputError, match="freeze it"):
        optim.all_reduce([params_of()], qsim.Quantizer("int8", "SR", scale="absmax"))
    with pytest.raises(InputError, match="draws = 'own'"):
        optim.update_replicas(optim.sgd(0.1), {}, [], [], draws="own")
    with pytest.raises(InputError, match="0 ranks"):
        optim.sharded(optim.sgd(0.1), 0)


# --- Micro-batches -------------------------------------------------------------------------------------------------


def test_accumulation_rounds_each_partial_sum():
    """Four micro-batches are summed one by one, the sum rounded by draw 0 ... 3 of the step, then divided by four."""
    accumulator = optim.Accumulator({"grad_acc": "float8_e5m2:SR"}, seed=2)
    state = accumulator.init(params_of())
    for step in range(2):
        total = np.zeros((5, 7), np.float32)
        for k in range(4):
            grads = params_of(4 * step + k)
            state = accumulator.add(grads, state)
            key = qsim.Key(2, stream(site=2048 + 3, step=step, draw=k))
            total = qsim.quantize(total + grads["w"], "float8_e5m2:SR", key=key)
        mean, state = accumulator.mean(state)
        assert (mean["w"] == total / 4).all()
    assert state["count"] == 0
    assert state["step"] == 2
    with pytest.raises(InputError, match="no micro-batch"):
        accumulator.mean(state)


@pytest.mark.parametrize("rounds", ["sum", "gradient"])
@pytest.mark.parametrize("rounding", [None, "float8_e5m2:SR"])
def test_micro_batches_of_unequal_size_weigh_by_it(rounds, rounding):
    """With weights the mean is that over all samples: w g stands for g, and the sum of weights for their number."""
    accumulator = optim.Accumulator(rounding, seed=2, rounds=rounds)
    weights = [7, 1, 0, 300]
    grads = [{"w": np.random.default_rng(k).normal(size=30).astype(np.float32)} for k in range(4)]
    state = plain = accumulator.init(grads[0])
    for weight, g in zip(weights, grads, strict=True):
        state = accumulator.add(g, state, weight=weight)
        plain = accumulator.add({"w": g["w"] * np.float32(weight)}, plain)
    mean, after = accumulator.mean(state)
    assert (mean["w"] == plain["sum"]["w"] / np.float32(308)).all()
    assert after == accumulator.init({}) | {"sum": after["sum"], "step": 1}
    assert state["count"] == 4
    if rounding is None:
        exact = sum(w * g["w"].astype(np.float64) for w, g in zip(weights, grads, strict=True)) / 308
        # Four products and four sums of at most 600, and a quotient, each within half an ulp.
        assert np.abs(mean["w"] - exact).max() < 9 * 2.0**-24 * 2000 / 308


def test_weights_of_micro_batches_are_numbers_of_samples():
    """Negative weights and fractions are refused, and so is a mean of micro-batches without samples."""
    accumulator, g = optim.Accumulator(), {"w": np.ones(2)}
    for bad, sentence in ((-1, "weight = -1 of a micro-batch"), (0.5, "weight = 0.5 must be an integer")):
        with pytest.raises(InputError, match=sentence):
            accumulator.add(g, accumulator.init(g), weight=bad)
    with pytest.raises(InputError, match="no micro-batch of a weight above 0"):
        accumulator.mean(accumulator.add(g, accumulator.init(g), weight=0))


def test_accumulation_rounds_each_gradient_where_asked():
    """With rounds = "gradient" each micro-batch's gradient is rounded, by the words of its draw, and the sum is exact here."""
    accumulator = optim.Accumulator({"grad_acc": "float8_e5m2:SR"}, seed=2, rounds="gradient")
    state = accumulator.init({"w": np.zeros(50)})
    rng, expected = np.random.default_rng(4), np.zeros(50)
    for draw in range(4):
        g = rng.standard_normal(50)
        state = accumulator.add({"w": g}, state)
        key = qsim.Key(2, qsim.rounding.stream(site=2048 + 3, step=0, draw=draw))
        expected += qsim.quantize(g, "float8_e5m2", "SR", key=key)
    assert np.array_equal(accumulator.mean(state)[0]["w"], expected / 4)
    with pytest.raises(InputError, match="rounds = 'both' must be 'sum' or 'gradient'"):
        optim.Accumulator(rounds="both")


def test_accumulation_to_nearest_stagnates_and_stochastic_does_not():
    """Adding 2^-9 to 1 in bfloat16 600 times: to nearest nothing is added, stochastically the mean of 4,096 sums is right.

    Each step has variance at most gap^2 / 4 = 2^-16, so the mean of 4,096 sums of 600 steps has standard deviation
    below sqrt(600 * 2^-16 / 4096) = 0.0015; the gap above 2 is 2^-6, hence twice that there. Six of them are 0.018.
    """
    for rounding, right in (("bfloat16:RNE", False), ("bfloat16:SR", True)):
        accumulator = optim.Accumulator(rounding)
        state = accumulator.init({"w": np.zeros(4096, np.float32)})
        state = accumulator.add({"w": np.ones(4096, np.float32)}, state)
        for _ in range(600):
            state = accumulator.add({"w": np.full(4096, 2.0**-9, np.float32)}, state)
        found = state["sum"]["w"].mean()
        assert abs(found - (1 + 600 / 512)) < 0.018 if right else found == 1
