"""Direct quantized training keeps codes and a scale alone, flips codes as often as its law says, and hides no trap."""

from __future__ import annotations

import gc
import tracemalloc
from fractions import Fraction

import numpy as np
import pytest

import qsim
from qsim import optim
from qsim.autograd import parameter_site
from qsim.errors import InputError
from qsim.rounding import Quantizer

FORMATS = ["ternary", "binary", *(f"int{bits}" for bits in range(2, 9)), *(f"int{bits}sym" for bits in range(3, 9))]


def weights_of(shape=(16, 8), dtype=np.float32):
    """Return Gaussian weights and a bias."""
    rng = np.random.default_rng(0)
    return {"layer0": {"w": rng.normal(size=shape).astype(dtype), "b": rng.normal(size=shape[0]).astype(dtype)}}


def step_of(dqt, inner, stored, grads, state=None):
    """Return stored parameters and state after one update."""
    optimizer = dqt.optimizer(inner)
    updates, state = optimizer.update(grads, optimizer.init(stored) if state is None else state, stored)
    return optim.apply_updates(stored, updates), state


def zeros_like(params):
    """Return gradients of zero."""
    return {layer: {name: np.zeros_like(p) for name, p in branch.items()} for layer, branch in params.items()}


@pytest.mark.parametrize("scale", ["absmean", "absmax"])
@pytest.mark.parametrize("fmt", FORMATS)
def test_stored_weights_are_packed_codes(fmt, scale):
    """A weight of 128 elements takes 128 b bits and reads back as code x step; the bias stays as it is."""
    dqt, params = optim.DQT(fmt, scale), weights_of()
    stored = dqt.store(params)
    kept = stored["layer0"]["w"]
    assert kept["codes"].nbytes == 16 * qsim.get_format(fmt).bits
    assert kept["codes"].dtype == np.uint8
    assert stored["layer0"]["b"] is params["layer0"]["b"]
    w, step = params["layer0"]["w"], kept["step"]
    q = Quantizer(fmt, "RNE", scale=float(step))
    assert (dqt.weights(stored)["layer0"]["w"] == qsim.quantize(w, q)).all()
    top = qsim.get_format(fmt).max
    if scale == "absmean":
        assert step == np.float32(np.abs(w).mean(dtype=np.float64) / top)
    else:
        assert step == np.float32(np.abs(w).max() / top)
        assert np.abs(dqt.codes(kept)).max() == top


@pytest.mark.parametrize("fmt", FORMATS)
@pytest.mark.parametrize("mode", ["SR", "RNE", "SRC(8)"])
def test_nothing_changes_without_an_update(fmt, mode):
    """With gradients of zero and a frozen scale no code of any format changes, whatever the rounding."""
    if (fmt, mode) == ("binary", "SRC(8)"):
        return  # the distance between -1 and 1 has no such words; the other modes have
    dqt = optim.DQT(fmt, mode=mode)
    stored = dqt.store(weights_of())
    state = None
    new = stored
    for _ in range(3):
        new, state = step_of(dqt, optim.sgd(1.0), new, zeros_like(weights_of()), state)
    assert (new["layer0"]["w"]["codes"] == stored["layer0"]["w"]["codes"]).all()
    assert state["changed"] == state["changed_so_far"] == {"layer0.w": 0}


@pytest.mark.parametrize(("fmt", "gap"), [("ternary", 1), ("int4", 1), ("int8", 1), ("binary", 2)])
def test_flip_law_over_all_words(fmt, gap):
    """Over every word of 8 bits a code changes in the share |u| / distance, and the mean of the new weights is W' exactly."""
    codes = {"ternary": [0, 0, -1], "binary": [-1, 1, -1], "int4": [-3, 2, 6], "int8": [-100, 0, 126]}[fmt]
    for code in codes:
        for part in (1, 3, 100, 255):
            delta = gap * Fraction(part, 256) * (1 if code < 2 else -1)
            delta = -delta if fmt == "binary" and code == 1 else abs(delta) if fmt == "binary" else delta
            x = np.full(256, float(code + delta))
            new = qsim.quantize(x, fmt, "SRA", sr_bits=8, rbits=np.arange(256, dtype=np.uint64))
            assert Fraction(int((new != code).sum()), 256) == abs(delta) / gap
            assert sum(map(Fraction, new.tolist())) / 256 == code + delta


def test_flips_of_a_step_are_those_of_its_words():
    """A step's codes are the rounding of code + u / step by the words of its site, and its counter counts what changed."""
    dqt, params = optim.DQT("int4", "absmax", seed=5), weights_of()
    stored = dqt.store(params)
    u = np.full((16, 8), 0.25 * stored["layer0"]["w"]["step"], np.float32)
    grads = {"layer0": {"w": -u, "b": np.zeros(16, np.float32)}}
    new, state = step_of(dqt, optim.sgd(1.0), stored, grads)
    codes = dqt.codes(stored["layer0"]["w"])
    key = qsim.Key(5, qsim.rounding.stream(site=parameter_site(0, "update"), step=0))
    expected = qsim.quantize(codes + 0.25, "int4", "SR", key=key)
    assert (dqt.codes(new["layer0"]["w"]) == expected).all()
    assert state["changed"]["layer0.w"] == (expected != codes).sum() > 0
    assert state["expected"]["layer0.w"] == 32
    _, again = step_of(dqt, optim.sgd(1.0), new, grads, state)
    assert again["changed_so_far"]["layer0.w"] == state["changed"]["layer0.w"] + again["changed"]["layer0.w"]


def test_share_of_flips_is_the_expected_one():
    """Of 2^16 codes at update 1/4 of a step a quarter changes, within Hoeffding's bound at 1e-9, to nearest none."""
    params = {"w": np.zeros((256, 256), np.float32)}
    # P(|share - 1/4| > t) <= 2 exp(-2 n t^2) = 1e-9 at t = sqrt(ln(2e9) / 2 n) = 0.01279
    for mode, share in (("SR", 0.25), ("RNE", 0.0)):
        dqt = optim.DQT("ternary", mode=mode)
        stored = dqt.store(params)
        grads = {"w": np.full((256, 256), stored["w"]["step"] / 4, np.float32)}
        _, state = step_of(dqt, optim.sgd(1.0), stored, grads)
        assert abs(state["changed"]["w"] / 2**16 - share) <= (0.01279 if mode == "SR" else 0)
        assert state["expected"]["w"] == 2**14


def test_codes_at_the_end_of_the_range_stay():
    """Ternary codes of 1 pushed upward neither change nor are expected to; pushed downward every fourth is."""
    dqt = optim.DQT("ternary")
    stored = dqt.store({"w": np.ones((100, 100), np.float32)})
    up = {"w": np.full((100, 100), -stored["w"]["step"] / 4, np.float32)}
    _, state = step_of(dqt, optim.sgd(1.0), stored, up)
    assert state["changed"]["w"] == state["expected"]["w"] == 0
    _, state = step_of(dqt, optim.sgd(1.0), stored, {"w": -up["w"]})
    assert state["expected"]["w"] == 2500
    assert state["changed"]["w"] > 0


def test_expected_flips_of_binary_weights_go_by_their_distance():
    """From -1 to 1 it is two steps: an update of half a step changes a code with probability 1/4."""
    dqt = optim.DQT("binary")
    stored = dqt.store({"w": np.ones((4, 4), np.float32)})
    grads = {"w": np.full((4, 4), stored["w"]["step"] / 2, np.float32)}
    _, state = step_of(dqt, optim.sgd(1.0), stored, grads)
    assert state["expected"]["w"] == 4


def test_a_rederived_step_is_that_of_the_updated_weights():
    """An abs-max re-derived from W' is max|W'| over the largest code, and codes are rounded on that grid."""
    dqt = optim.DQT("int4", "absmax", "updated", "RNE")
    params, grads = weights_of(), zeros_like(weights_of())
    stored = dqt.store(params)
    grads["layer0"]["w"] += np.random.default_rng(5).normal(size=(16, 8)).astype(np.float32)
    new, _ = step_of(dqt, optim.sgd(1.0), stored, grads)
    w, old, step = (
        dqt.weights(stored)["layer0"]["w"] - grads["layer0"]["w"],
        stored["layer0"]["w"]["step"],
        new["layer0"]["w"]["step"],
    )
    assert step == np.float32(np.abs(w).max() / 7)
    x = dqt.codes(stored["layer0"]["w"]) - grads["layer0"]["w"].astype(np.float64) / old
    assert (dqt.codes(new["layer0"]["w"]) == qsim.quantize(x * (float(old) / float(step)), "int4")).all()


def test_small_updates_are_not_lost_in_a_sum():
    """Code 100 and an update of 2^-30 of a step: rounded away from zero it is 101, though float32's sum is 100."""
    dqt = optim.DQT("int8", mode="RAZ")
    packed = qsim.pack(np.full(4, 100, np.uint8), "int8")
    stored = {"w": {"codes": packed, "step": np.asarray(np.float32(0.25)), "shape": np.array([2, 2])}}
    new, _ = step_of(dqt, optim.sgd(1.0), stored, {"w": np.full((2, 2), -(2.0**-32), np.float32)})
    assert (dqt.codes(new["w"]) == 101).all()
    assert np.float32(100) + np.float32(2.0**-30) == 100


@pytest.mark.parametrize(
    ("inner", "moments"),
    [(optim.sgd(0.01), 0), (optim.adafactor(0.01), 0), (optim.sgd(0.01, momentum=0.9), 1), (optim.adamw(0.01), 2)],
    ids=["sgd", "adafactor", "momentum", "adamw"],
)
def test_no_float_array_of_a_weight_is_alive_between_steps(inner, moments):
    """After a step nothing as large as the weight in any float type is allocated but the optimizer's own moments."""
    shape, dqt = (300, 200), optim.DQT("ternary")
    rng = np.random.default_rng(0)

    def train():
        stored = dqt.store({"w": rng.normal(size=shape).astype(np.float32)})
        state = dqt.optimizer(inner).init(stored)
        for _ in range(2):
            stored, state = step_of(dqt, inner, stored, {"w": rng.normal(size=shape).astype(np.float32)}, state)
        return stored, state

    train()  # compiles
    gc.collect()
    tracemalloc.start()
    try:
        kept = train()
        gc.collect()
        domain = tracemalloc.DomainFilter(inclusive=True, domain=np.lib.tracemalloc_domain)
        traces = tracemalloc.take_snapshot().filter_traces([domain]).traces
    finally:
        tracemalloc.stop()
    assert sum(trace.size >= 2 * 300 * 200 for trace in traces) == moments
    assert optim.stored_bytes(kept[0]) == 300 * 200 // 4 + 4 + 16  # codes of 2 bits, a step, a shape


def test_updates_of_other_parameters_pass_through():
    """Biases stay floats and take the inner optimizer's update, its own rounding included."""
    dqt, params = optim.DQT("ternary"), weights_of()
    stored = dqt.store(params)
    grads = zeros_like(params)
    grads["layer0"]["b"] += 1
    new, _ = step_of(dqt, optim.sgd(0.5), stored, grads)
    assert (new["layer0"]["b"] == params["layer0"]["b"] - np.float32(0.5)).all()
    # a write-back of every parameter is refused, since codes are written here; one of the biases alone has nothing to write
    with pytest.raises(InputError, match=r"layer0\.w is written back by DQT"):
        step_of(dqt, optim.sgd(0.5, rounding="bfloat16"), stored, grads)


# --- The traps of the official code --------------------------------------------------------------------------------


def test_abs_mean_saturates_two_fifths_of_gaussian_weights():
    """The abs-mean scale puts every weight beyond mean|W| at the end of the range, in every format; abs-max none."""
    params = {"w": np.random.default_rng(0).normal(size=(200, 100)).astype(np.float32)}
    for fmt in ("int3", "int8"):
        top = qsim.get_format(fmt).max
        beyond = optim.DQT(fmt, "absmean").saturated(params)["w"]
        mean = np.abs(params["w"]).mean()
        assert beyond == (params["w"] > mean).sum() + (params["w"] < -mean * (top + 1) / top).sum()
        assert optim.DQT(fmt, "absmax").saturated(params)["w"] == 0


def test_a_range_from_the_old_weights_cannot_grow():
    """With the official rescaling the largest weight never rises, whatever the updates; re-derived from W' it does."""
    rng = np.random.default_rng(3)
    params = {"w": rng.normal(size=(16, 16)).astype(np.float32)}
    ranges = {}
    for name, dqt in {
        "old": optim.DQT.official("int3"),
        "updated": optim.DQT("int3", "absmax", "updated"),
        "frozen": optim.DQT("int3", "absmax"),
    }.items():
        stored, state, seen = dqt.store(params), None, []
        for _ in range(20):
            seen.append(float(dqt.weights(stored)["w"].max()))
            grads = {"w": rng.normal(size=(16, 16)).astype(np.float32)}
            stored, state = step_of(dqt, optim.sgd(1.0), stored, grads, state)
        ranges[name] = seen
    # The largest weight is Qp fl(max / Qp), which may be one rounding above max: 2^-23 of it a step.
    assert all(b <= a * (1 + 2.0**-23) for a, b in zip(ranges["old"], ranges["old"][1:], strict=False))
    assert ranges["updated"][-1] > 2 * ranges["updated"][0]
    assert max(ranges["frozen"]) == ranges["frozen"][0]


def test_codes_leave_the_grid_when_the_largest_falls():
    """Codes -3 ... 2 of a grid to 3 are seen as -4.5 ... 3 in halves: -3 becomes -4 without an update, others flip or stay."""
    dqt = optim.DQT.official("int3")
    codes = np.array([[-3.0, -2.0, -1.0, 0.0, 1.0, 2.0]] * 100)
    packed = qsim.pack(qsim.encode(codes.reshape(-1), "int3"), "int3")
    stored = {"w": {"codes": packed, "step": np.asarray(np.float32(0.5)), "shape": np.array([100, 6])}}
    new, state = step_of(dqt, optim.sgd(1.0), stored, {"w": np.zeros((100, 6), np.float32)})
    after = dqt.codes(new["w"])
    assert new["w"]["step"] == np.float32(1 / 3)
    assert (after[:, [0, 1, 3, 5]] == [-4, -3, 0, 3]).all()
    assert set(after[:, 2]) == {-1, -2}
    assert set(after[:, 4]) == {1, 2}
    assert state["changed"]["w"] == (after != codes).sum()


def test_no_positive_weight_is_refused_where_the_scale_needs_one():
    """The official scale divides by the largest weight: without a positive one it is refused, by name, and not NaN."""
    dqt = optim.DQT.official("ternary")
    stored = dqt.store({"w": -np.ones((2, 2), np.float32)})
    with pytest.raises(InputError, match="w has no positive weight"):
        step_of(dqt, optim.sgd(1.0), stored, {"w": np.zeros((2, 2), np.float32)})


def test_the_official_code_also_quantizes_gains_and_biases():
    """By default only weights with two axes are stored as codes; the official choices take every parameter."""
    params = weights_of()
    assert isinstance(optim.DQT().store(params)["layer0"]["b"], np.ndarray)
    assert set(optim.DQT.official().store(params)["layer0"]["b"]) == {"codes", "step", "shape"}


@pytest.mark.parametrize(
    ("storage", "low", "high"), [("codes", 0, 0), ("float32", 0, 0), ("bfloat16", 0.03, 0.07), ("float16", 0.005, 0.02)]
)
def test_dequantized_storage_changes_codes_without_an_update(storage, low, high):
    """Stored as 16-bit floats INT8 weights flip by themselves, about 5 % in bfloat16 and 1.3 % in float16; as codes none."""
    dqt = optim.DQT("int8", storage=storage)
    params = {"w": np.random.default_rng(0).normal(size=(200, 100)).astype(np.float32)}
    stored = dqt.store(params)
    _, state = step_of(dqt, optim.sgd(1.0), stored, {"w": np.zeros((200, 100), np.float32)})
    assert low <= state["changed"]["w"] / 20_000 <= high


def test_rederived_abs_mean_shrinks():
    """An abs-mean re-derived from stored ternary weights is their share that is not zero, times the old one."""
    dqt, params = optim.DQT("ternary", "absmean", "updated"), weights_of()
    stored = dqt.store(params)
    share = np.abs(dqt.codes(stored["layer0"]["w"])).mean()
    new, _ = step_of(dqt, optim.sgd(1.0), stored, zeros_like(params))
    assert new["layer0"]["w"]["step"] == pytest.approx(share * stored["layer0"]["w"]["step"], rel=2**-22)
    assert share < 1


@pytest.mark.parametrize(
    ("fields", "sentence"),
    [
        ({"format": "int9"}, "int9"),
        ({"format": "uint4"}, "uint4 cannot hold DQT's codes"),
        ({"format": "float8_e4m3fn"}, "cannot hold DQT's codes"),
        ({"scale": "mean"}, "scale = 'mean'; it is absmean, absmax or signed_max"),
        ({"rescale": "always"}, "rescale = 'always'"),
        ({"storage": "fp16"}, "storage = 'fp16'"),
        ({"mode": "random"}, "no rounding mode is called 'random'"),
        ({"format": "binary", "scale": "signed_max"}, "has no meaning"),
    ],
)
def test_senseless_choices_are_refused(fields, sentence):
    """A format, scale or mode that DQT does not know is refused in one sentence."""
    with pytest.raises(InputError, match=sentence):
        optim.DQT(**fields)


def test_infinite_weights_and_updates_are_refused():
    """No code stands for an infinity or NaN, in the beginning or in an update."""
    dqt = optim.DQT()
    with pytest.raises(InputError, match="w holds an infinity"):
        dqt.store({"w": np.array([[np.inf]], np.float32)})
    stored = dqt.store({"w": np.ones((1, 1), np.float32)})
    with pytest.raises(InputError, match="the update of w holds"):
        step_of(dqt, optim.sgd(1.0), stored, {"w": np.full((1, 1), np.nan, np.float32)})


def test_weights_learn_with_codes_alone():
    """Under the loss |w - t|^2 / 2 ternary weights reach a pattern t of signs with SR exactly, and never move with RNE.

    A wrong code moves toward its target with probability 0.05 or more a step, a right one stays: after 600 steps one of 32 is
    still on its way with probability below 32 * 601 * 0.95^599 = 1e-9.
    """
    target = np.where(np.random.default_rng(0).random((4, 8)) < 0.5, -1, 1).astype(np.float32)
    first = {"w": (np.arange(8) == 0).astype(np.float32) * np.ones((4, 1), np.float32)}
    for mode in ("SR", "RNE"):
        dqt = optim.DQT("ternary", mode=mode)
        stored, state = dqt.store(first), None
        for _ in range(600):
            grads = {"w": dqt.weights(stored)["w"] - stored["w"]["step"] * target}
            stored, state = step_of(dqt, optim.sgd(0.05), stored, grads, state)
        assert (dqt.codes(stored["w"]) == target).all() == (mode == "SR")
        assert (state["changed_so_far"]["w"] == 0) == (mode == "RNE")


def test_a_network_learns_with_codes_alone():
    """A two-layer network of ternary weights and INT8 activations halves its loss in 60 steps with SR; RNE changes no code.

    Labels are those of a network of the same size, so the loss can fall; the run is fixed by its seeds.
    """
    rng = np.random.default_rng(0)
    model = qsim.nn.MLP((8, 16, 4))
    params = {
        layer: {name: p.astype(np.float32) for name, p in branch.items()} for layer, branch in model.init(rng).items()
    }
    x = rng.normal(size=(128, 8)).astype(np.float32)
    labels = (x @ rng.normal(size=(8, 4))).argmax(1)
    changed, losses = {}, {}
    for mode in ("SR", "RNE"):
        dqt = optim.DQT("ternary", mode=mode)
        stored, optimizer = dqt.store(params), dqt.optimizer(optim.adamw(0.01))
        state, seen = optimizer.init(stored), []
        for step in range(60):
            with qsim.numerics({"fwd_act": optim.TOKEN_INT8}, step=step):
                loss, grads = qsim.value_and_grad(model.loss)(dqt.weights(stored), (x, labels))
            updates, state = optimizer.update(grads, state, stored)
            stored = optim.apply_updates(stored, updates)
            seen.append(loss)
        changed[mode], losses[mode] = sum(state["changed_so_far"].values()), (seen[0], seen[-1])
    assert changed["RNE"] == 0 < changed["SR"]
    assert losses["SR"][1] < losses["SR"][0] / 2
    assert losses["RNE"][1] > losses["SR"][1]


# --- Steps ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf, 0.0, -0.0, -0.5])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_stored_steps_are_positive_numbers(bad, dtype):
    """A stored step that is NaN, infinite, zero or negative is refused by name, wherever the weight is read or written."""
    dqt = optim.DQT("int4", "absmax")
    stored = dqt.store({"layer": {"w": np.ones((2, 2), dtype)}})
    optimizer = dqt.optimizer(optim.sgd(0.1))
    state = optimizer.init(stored)
    stored["layer"]["w"]["step"] = np.asarray(dtype(bad))
    grads = {"layer": {"w": np.zeros((2, 2), dtype)}}
    for call in (
        lambda: dqt.weights(stored),
        lambda: optimizer.init(stored),
        lambda: optimizer.update(grads, state, stored),
    ):
        with pytest.raises(InputError, match=r"layer\.w is stored with the step array\(.*a positive finite number"):
            call()


@pytest.mark.parametrize("bad", [np.array([1.0]), np.array(1), 1.0, None])
def test_stored_steps_are_arrays_without_axes(bad):
    """A step of another form is refused too."""
    dqt = optim.DQT("int4", "absmax")
    stored = dqt.store({"w": np.ones((2, 2))})
    stored["w"]["step"] = bad
    with pytest.raises(InputError, match="w is stored with the step"):
        dqt.weights(stored)


@pytest.mark.parametrize("scale", ["absmean", "absmax"])
@pytest.mark.parametrize("fmt", ["ternary", "binary", "int4", "int8"])
@pytest.mark.parametrize("largest", [0.0, 1e-45, 1e-38, 1e-30, 1e30, 3e38])
def test_steps_of_weights_of_any_size_are_normal_numbers(fmt, scale, largest):
    """The step of finite weights is a normal number of their type, and none of them becomes NaN or changes its sign."""
    w = np.array([[1.0, -0.5], [0.25, 0.0]], np.float32) * np.float32(largest)
    dqt = optim.DQT(fmt, scale)
    stored = dqt.store({"w": w})
    step = stored["w"]["step"]
    assert np.finfo(np.float32).tiny <= step < np.inf
    found = dqt.weights(stored)["w"]
    assert np.isfinite(found).all()
    assert (found * np.sign(w) >= 0).all()
    assert dqt.saturated({"w": w}).keys() == {"w"}


def test_an_update_beyond_the_type_is_refused():
    """Where code x step + u overflows, an updated scale would be infinite: the update is refused, by name."""
    dqt = optim.DQT("int8", "absmax", "updated")
    stored = dqt.store({"w": np.full((2, 2), 3e38, np.float32)})
    with pytest.raises(InputError, match="w is too large for a scale"):
        step_of(dqt, optim.sgd(1.0), stored, {"w": np.full((2, 2), -3e38, np.float32)})
    for bad in (np.inf, np.nan):
        with pytest.raises(InputError, match="the update of w holds an infinity or NaN"):
            step_of(dqt, optim.sgd(1.0), stored, {"w": np.full((2, 2), bad, np.float32)})
