"""Devices whose words nobody knows: right ones hold at the stated rate, planted faults are found with the stated power."""

from __future__ import annotations

import itertools
import math
import re
from collections.abc import Callable
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from scipy import stats

from qsim import arrays
from qsim.errors import InputError
from qsim.formats import get_format
from qsim.testing import check_stochastic_device, device, plan_device_check
from qsim.testing.bounds import chernoff, chernoff_size, divergence, hoeffding, hoeffding_limit
from qsim.testing.plan import FAMILIES, DevicePlan, reach_of_lanes
from qsim.verdicts import Outcome

LEVEL = 1e-6
"""How often a test of a rate may fail though the rate is as stated; the seeds are fixed, so that it fails always or never."""

# --- Devices ---------------------------------------------------------------------------------------------------------


class Integers:
    """A unit that rounds float32s to int8 stochastically, with words of its own; a subclass breaks one thing.

    It knows nothing of `qsim`: the magnitude is split into an integer and a fraction of 32 bits, to which a word is added.
    """

    def __init__(self, seed: int) -> None:
        self.rng = np.random.default_rng(seed)
        self.calls = 0

    def __call__(self, x: np.ndarray) -> np.ndarray:
        """Round one array."""
        self.calls += 1
        return self.convert(x, self.words(len(x)).astype(np.uint64))

    def fresh(self, count: int) -> np.ndarray:
        """Return new words of 32 bits."""
        return self.rng.integers(0, 1 << 32, count, np.uint32)

    def words(self, count: int) -> np.ndarray:
        """Return the words of one call."""
        return self.fresh(count)

    def convert(self, x: np.ndarray, r: np.ndarray) -> np.ndarray:
        """Add the words to the fractions."""
        magnitude = np.abs(x.astype(np.float64))
        whole = np.floor(magnitude)
        fraction = ((magnitude - whole) * 2.0**32).astype(np.uint64)
        return np.copysign(whole + ((fraction + r) >> np.uint64(32)), x)


class SameWordsEachCall(Integers):
    def words(self, count):
        self.rng = np.random.default_rng(5)
        return self.fresh(count)


class WordsAgain(Integers):
    """Calls come in threes, of which the last takes the words of the first."""

    def words(self, count):
        if self.calls % 3 == 1:
            self.first = self.fresh(count)
        return self.first if self.calls % 3 != 2 else self.fresh(count)


class WordsForthAndBack(Integers):
    """Every second call takes the words of the one before it, from the last to the first."""

    def words(self, count):
        self.last = self.fresh(count) if self.calls % 2 else self.last[::-1]
        return self.last


class WordsMoveOn(Integers):
    """A call starts 7 words behind the start of the one before it."""

    stream = None

    def words(self, count):
        if self.stream is None:
            self.stream = self.fresh(count + 7 * 100_000)
        return self.stream[7 * self.calls :][:count]


class PairsShare(Integers):
    def words(self, count):
        return self.fresh(count)[np.arange(count) & ~1]


class BlocksShare(Integers):
    """32 lanes take the words of the 32 before them, in every second block."""

    def words(self, count):
        return self.fresh(count)[np.arange(count) & ~32]


class TwoLanesShare(Integers):
    """Lane 40 takes the word of lane 3; of all the others none."""

    def words(self, count):
        r = self.fresh(count)
        r[40] = r[3]
        return r


class OneWord(Integers):
    def words(self, count):
        return np.repeat(self.fresh(1), count)


class OppositeNeighbours(Integers):
    def words(self, count):
        r = self.fresh(count)
        r[1::2] = ~r[: len(r) - len(r) % 2 : 2]
        return r


class TopBitStuck(Integers):
    def words(self, count):
        return self.fresh(count) | np.uint32(1 << 31)


class EightBits(Integers):
    def words(self, count):
        return self.fresh(count) & np.uint32(0xFF000000)


class LowBitsInPlaceOfHigh(Integers):
    """A word of 16 bits is added at the bottom of a fraction of 32."""

    def words(self, count):
        return self.fresh(count) >> np.uint32(16)


class Biased(Integers):
    """The word is a little too large now and then: every probability below 1 - 1/32 is 1/32 too large."""

    def words(self, count):
        return np.minimum(self.fresh(count).astype(np.uint64) + (1 << 27), (1 << 32) - 1)


class Nearest(Integers):
    def convert(self, x, r):
        return np.rint(x) + 0 * r.astype(np.float64)


class FromBelow(Integers):
    """Takes the complemented word for negative numbers: right on average, and it is."""

    def convert(self, x, r):
        return super().convert(x, np.where(x < 0, ~r & 0xFFFFFFFF, r))


class WrongNowAndThen(Integers):
    """Once in 10^4 conversions the result is one further on."""

    def convert(self, x, r):
        return super().convert(x, r) + (self.rng.random(len(x)) < 1e-4)


class ExactMoves(Integers):
    """A value of the format moves once in 1,000 times."""

    def convert(self, x, r):
        y = super().convert(x, r)
        return y + ((x == np.floor(x)) & (self.rng.random(len(x)) < 1e-3))


@pytest.fixture(scope="module")
def plan() -> DevicePlan:
    """Return the plan that the faults are found by: its stated powers are what is asked for."""
    return plan_device_check("int8", "SR", bias=1 / 16, alpha=1e-6, inputs=32)


# --- Right devices and wrong ones ------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [Integers, FromBelow])
def test_right_device(plan: DevicePlan, kind: type[Integers]) -> None:
    """A device with words of its own holds; which way they are read nobody can tell."""
    verdict = check_stochastic_device(kind(0), plan)
    assert verdict.outcome is Outcome.HELD, verdict
    assert verdict.covered.startswith(str(plan).splitlines()[0])


@pytest.mark.in_part(2)
@pytest.mark.parametrize(
    ("kind", "says"),
    [
        (
            SameWordsEachCall,
            "dependence (repeat): call 1 is call 0 again, in every lane; 255 of 256 calls are another one again",
        ),
        (
            WordsAgain,
            "dependence (repeat): call 2 is call 0 again, in every lane; 85 of 256 calls are another one again",
        ),
        (WordsForthAndBack, r"dependence (mirror): lane k goes together with lane (\d+) - k of the next call"),
        (WordsMoveOn, r"dependence (shift): a lane goes together with the one (\d+) further on in the next call"),
        (PairsShare, "dependence (lag of lanes): lanes 1 apart go together"),
        (BlocksShare, "dependence (lag of lanes): lanes 32 apart go together"),
        (TwoLanesShare, "dependence (lanes): lanes 3 and 40 go together"),
        (OneWord, "as if: all elements of a call take the same random word"),
        (OppositeNeighbours, "dependence (lag of lanes): lanes 1 apart go together, one the opposite of the other"),
        (TopBitStuck, "frequency: all inputs together go away from zero +"),
        (EightBits, "as if: rounds by SRA (StochasticA) of 8 random bits"),
        (LowBitsInPlaceOfHigh, "as if: rounds by RTZ (TowardZero): no random word is used"),
        (Biased, "frequency: "),
        (Nearest, "as if: rounds by RNE (NearestTiesToEven): no random word is used"),
        (WrongNowAndThen, "support: "),
        (ExactMoves, "support: "),
    ],
    ids=lambda value: value.__name__ if isinstance(value, type) else "",
)
def test_planted_fault(plan: DevicePlan, kind: type[Integers], says: str) -> None:
    """A device with one fault is refuted, and what is said first is the fault."""
    verdict = check_stochastic_device(kind(1), plan)
    assert verdict.outcome is Outcome.REFUTED
    pattern = re.escape(says).replace(re.escape(r"(\d+)"), r"(\d+)")
    found = re.match(pattern, verdict.counterexample)
    assert found, verdict.counterexample
    if kind is WordsMoveOn:  # the ring closes after the last lane
        assert int(found[1]) == plan.lanes - 7
    if kind is WordsForthAndBack:
        assert int(found[1]) == plan.lanes - 1


@pytest.mark.in_part(3)
@pytest.mark.parametrize(
    ("name", "low", "high"),
    [("int8", 0, 1), ("int8", 0, -1), ("int8", 126, 127), ("int8", -127, -128), ("e4m3", 0, 2**-9), ("e4m3", 0, -(2**-9)),
     ("e4m3", 2**-6, 2**-6 + 2**-9), ("e4m3", 416, 448), ("e4m3", -416, -448)],
)  # fmt: skip
@pytest.mark.parametrize("seed", [0, 1])
def test_ends_are_always_asked(name: str, low: float, high: float, seed: int) -> None:
    """A device that truncates in one interval, next to zero, to the first normal or at the end of the range, is found."""
    plan = plan_device_check(name, "SR", bias=1 / 16, alpha=1e-6, power=0.99, seed=seed)
    rng, side = np.random.default_rng(seed), np.sign(high)

    def dead(x: np.ndarray) -> np.ndarray:
        y = arrays.quantize(x, name, "SRA", sr_bits=32, rbits=rng.integers(0, 1 << 32, x.size, np.uint32))
        return np.where((np.abs(x) > abs(low)) & (np.abs(x) < abs(high)) & (np.sign(x) == side), low, y)

    assert check_stochastic_device(dead, plan).outcome is Outcome.REFUTED
    assert {0.25, 0.5, 0.75} <= set(((plan.x.astype(np.float64) - low) / (high - low)).tolist())
    assert "the intervals next to zero" in str(plan)


class WarpsShare(Integers):
    """32 lanes share one word, which is fresh in every call."""

    def words(self, count):
        return np.repeat(self.fresh(-(-count // 32)), 32)[:count]


@pytest.mark.parametrize("kind", [WarpsShare, OneWord, PairsShare, BlocksShare])
def test_lanes_that_share_words_are_no_repetition(plan: DevicePlan, kind: type[Integers]) -> None:
    """Where lanes share words within a call, nothing is said of calls, which are independent."""
    text = check_stochastic_device(kind(1), plan).counterexample
    assert "lanes" in text or "all elements of a call" in text
    for claim in ("repeat", "calls", "shift", "mirror"):
        assert f"({claim}" not in text
        assert f"of {claim})" not in text


@pytest.mark.parametrize("kind", [SameWordsEachCall, WordsForthAndBack, WordsMoveOn])
def test_calls_that_share_words_are_no_neighbours(plan: DevicePlan, kind: type[Integers]) -> None:
    """Where calls take each other's words, nothing is said of lanes within one call, which are independent."""
    text = check_stochastic_device(kind(1), plan).counterexample
    assert "(lanes)" not in text
    assert "lag of lanes" not in text


def test_word_without_zero() -> None:
    """Words 1 .. 255 are told as such, and not as a mode whose frequencies are near to theirs."""

    class NeverZero(Integers):
        def words(self, count):
            return self.rng.integers(1, 256, count, np.uint32) << np.uint32(24)

    plan = plan_device_check("int8", "SRA", sr_bits=8, bias=1 / 64, bits=8)
    verdict = check_stochastic_device(NeverZero(0), plan)
    assert verdict.outcome is Outcome.REFUTED
    assert "words 1 .. 255, as of a shift register that has no 0" in verdict.counterexample
    assert "SRB" not in verdict.counterexample


def test_wrong_results_are_explained(plan: DevicePlan) -> None:
    """A result that is no neighbour is shown with what it should be, how often it came, and what may have made it."""

    def doubled(x: np.ndarray) -> np.ndarray:
        return np.clip(2 * np.rint(x), -128, 127)

    verdict = check_stochastic_device(doubled, plan)
    line = verdict.counterexample.splitlines()[0]
    assert re.match(r"support: \S+ becomes \S+, it should be \S+ or \S+: [\d,]+ times, first in call 0", line)
    assert "frequency" not in verdict.counterexample


def test_words_in_another_order_are_not_seen(plan: DevicePlan) -> None:
    """Words that come in the reverse order are as good as any: the plan says that this cannot be seen."""

    class Reversed(Integers):
        def words(self, count):
            return self.fresh(count)[::-1]

    assert check_stochastic_device(Reversed(0), plan).outcome is Outcome.HELD
    assert "which word went where, as long as every conversion has its own" in str(plan)


@pytest.mark.parametrize(
    ("name", "mode", "n", "dtype", "codes"),
    [
        ("e4m3", "SR", None, np.float32, True),
        ("e4m3", "SRA", 3, np.float32, False),
        ("float8_e5m2", "SRB", 2, np.float16, True),
        ("float4_e2m1fn", "SRC", 4, ml_dtypes.bfloat16, False),
        ("bfloat16", "SR", None, np.float64, False),
        ("nf4", "SRE", None, np.float32, True),
        ("float8_e8m0fnu", "SR", None, np.float32, False),
        ("int24", "SRA", 8, np.float64, False),
    ],
)
def test_kernels(name: str, mode: str, n: int | None, dtype: Any, *, codes: bool) -> None:
    """Our own kernels hold in every stochastic mode, from every type; and not in a mode that is not theirs."""
    size = {"calls": 64, "inputs": 16, "bits": 6, "bias": 1 / 8, "dtype": dtype, "codes": codes}
    plan, rng = plan_device_check(name, mode, sr_bits=n, **size), np.random.default_rng(0)
    words = plan.task.n
    convert = arrays.encode if codes else arrays.quantize

    def kernel(x: np.ndarray) -> np.ndarray:
        r = rng.integers(0, 1 << words, x.shape, np.uint64)
        return convert(x, name, mode, sr_bits=words, rbits=r)

    verdict = check_stochastic_device(kernel, plan)
    assert verdict.outcome is Outcome.HELD, verdict
    other = plan_device_check(name, "SRE" if mode != "SRE" else "SR", **size)
    assert check_stochastic_device(kernel, other).outcome is Outcome.REFUTED


# --- The rates -------------------------------------------------------------------------------------------------------

SMALL = {"inputs": 8, "bits": 4, "bias": 0.25, "calls": 64}


def alarms(kind: Callable[[int], Callable], plan: DevicePlan, seeds: range) -> int:
    """Return how many of the devices are refuted."""
    return sum(check_stochastic_device(kind(seed), plan).outcome is Outcome.REFUTED for seed in seeds)


@pytest.mark.parametrize("count", [200, pytest.param(1000, marks=pytest.mark.exhaustive)])
def test_false_alarms(count: int) -> None:
    """Of many right devices no more are refuted than a stated rate of 1e-2 allows: a binomial exceeds that with `LEVEL`."""
    plan = plan_device_check("int8", "SR", alpha=1e-2, **SMALL)
    assert alarms(Integers, plan, range(count)) <= stats.binom.isf(LEVEL, count, 1e-2)


def test_alarms_follow_the_rate() -> None:
    """At a rate of 0.9 there are false alarms, though fewer: the bounds are not so loose that nothing is ever found."""
    plan = plan_device_check("int8", "SR", alpha=0.9, **SMALL)
    assert 0 < alarms(Integers, plan, range(100)) <= 90


def off_at_one_input(plan: DevicePlan, cell: int, error: float) -> Callable[[int], Integers]:
    """Return devices for which the probability of one input is off by `error`."""
    value, low = np.float32(plan.value[cell]), error < 0

    class OffAtOneInput(Integers):
        def convert(self, x, r):
            y, chance = super().convert(x, r), self.rng.random(len(x))
            p = plan.p[cell]
            here = (x == value) & (chance < (abs(error) / (p if low else 1 - p)))
            end = np.copysign(np.floor(np.abs(x)) + (not low), x)  # moves as many from one neighbour to the other one
            return np.where(here, end, y)

    return OffAtOneInput


@pytest.mark.parametrize("count", [6, pytest.param(400, marks=pytest.mark.exhaustive)])
@pytest.mark.parametrize("sign", [-1, 1])
def test_power_for_a_bias(count: int, sign: int) -> None:
    """A bias as large as is stated, at whichever input, is found at least as often as is stated."""
    plan = plan_device_check("int8", "SR", alpha=1e-2, power=0.9, **SMALL)
    found = tried = 0
    for cell in np.flatnonzero(plan.open).tolist():
        error = sign * plan.found[cell]
        if not 0 <= plan.p[cell] + error <= 1:
            continue
        found += alarms(off_at_one_input(plan, cell, error), plan, range(count))
        tried += count
    assert tried >= 5 * count
    assert found >= stats.binom.ppf(LEVEL, tried, plan.power)


@pytest.mark.parametrize("count", [10, pytest.param(400, marks=pytest.mark.exhaustive)])
def test_power_for_the_rest(count: int) -> None:
    """Each other fault, as small as the plan says, is found at least as often as the plan says."""
    plan = plan_device_check("int8", "SR", alpha=1e-2, power=0.9, inputs=32, bits=4, bias=1 / 12, calls=64)
    steady = np.flatnonzero(plan.steady)
    half = steady[:1024][plan.p[plan.cell[steady[:1024]]] == 0.5][:2]

    class CommonBias(Integers):
        def words(self, count):
            return np.minimum(self.fresh(count).astype(np.uint64) + math.ceil(plan.common * 2**32), (1 << 32) - 1)

    class Rare(Integers):
        def convert(self, x, r):
            return super().convert(x, r) + 2 * (self.rng.random(len(x)) < plan.rare)

    class CallsShare(Integers):
        def words(self, count):
            self.kept = self.fresh(count) if self.calls == 1 else self.kept
            r = self.fresh(count)
            if self.calls == 40:
                lanes = self.rng.permutation(steady)[: math.ceil(plan.shared_calls * len(steady))]
                r[lanes] = self.kept[lanes]
            return r if self.calls > 1 else self.kept

    class NeighboursShare(Integers):
        def words(self, count):
            r = self.fresh(count)
            shares = np.flatnonzero(self.rng.random(count // 2) < 2 * plan.shared_lanes)
            r[2 * shares + 1] = r[2 * shares]
            return r

    class Twins(Integers):
        def words(self, count):
            r = self.fresh(count)
            r[half[0]] = r[half[1]]
            return r

    assert plan.twins
    assert plan.shared_calls <= 1
    assert plan.shared_lanes <= 0.5
    for kind in (Rare, CallsShare, NeighboursShare, Twins, CommonBias):
        assert alarms(kind, plan, range(count)) >= stats.binom.ppf(LEVEL, count, plan.power), kind


# --- The bounds ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("p", [0.5, 0.25, 0.9, 2.0**-6])
@pytest.mark.parametrize("n", [1, 7, 50, 400])
def test_chernoff_holds(p: float, n: int) -> None:
    """Counts that are called less likely than alpha have a probability of at most alpha together, for every alpha."""
    k = np.arange(n + 1)
    logs, exact = chernoff(k, n, p), stats.binom.pmf(k, n, p)
    for log in logs:
        assert exact[logs <= log].sum() <= math.exp(log) * (1 + 1e-12)  # pmf is right to about 1e-14
    assert logs.max() == 0


def test_divergence() -> None:
    """It is that of the definition; 0 of a coin from itself, infinite where what cannot be was seen."""
    assert divergence(0.25, 0.5) == pytest.approx(0.25 * math.log(0.5) + 0.75 * math.log(1.5), rel=1e-15)
    assert divergence([0.0, 1.0, 0.3], [0.0, 1.0, 0.3]).tolist() == [0, 0, 0]
    assert divergence([0.1, 0.0], [0.0, 1.0]).tolist() == [math.inf, math.inf]
    assert divergence(0.0, 0.5) == pytest.approx(math.log(2), rel=1e-15)


@pytest.mark.parametrize(("p", "q"), [(0.5, 0.6), (0.5, 0.4), (0.1, 0.0), (0.03, 0.06), (0.9, 1.0), (0.25, 0.75)])
def test_size_is_enough(p: float, q: float) -> None:
    """With so many draws a coin q is missed with at most beta, by its exact distribution; with a quarter as many it is not."""
    alpha, beta = 1e-4, 0.01
    n = int(chernoff_size(p, q, alpha, beta))
    for draws in (n, n + 1, 2 * n):
        k = np.arange(draws + 1)
        missed = stats.binom.pmf(k, draws, q)[chernoff(k, draws, p) > math.log(alpha)].sum()
        assert missed <= beta
    k = np.arange(n // 4 + 1)
    assert stats.binom.pmf(k, n // 4, q)[chernoff(k, n // 4, p) > math.log(alpha)].sum() > beta


def test_products_are_within_the_bound() -> None:
    """Over all outcomes of ten lanes with three probabilities: sums of products at a distance keep to their bound."""
    p = np.array([0.5, 0.25, 0.75, 0.5, 0.5, 0.25, 0.75, 0.75, 0.5, 0.25])
    outcomes = np.array(list(itertools.product((0, 1), repeat=len(p))))
    weight = np.where(outcomes, p, 1 - p).prod(1)
    e, c = outcomes - p, np.maximum(p, 1 - p)
    for lag in range(1, len(p)):
        total = (e[:, :-lag] * e[:, lag:]).sum(1)
        log = hoeffding(total, (c[:-lag] ** 2).sum())
        assert (weight @ total) == pytest.approx(0, abs=1e-12)
        for rate in (0.5, 0.1, 0.01):
            assert weight[log <= math.log(rate)].sum() <= rate
    assert hoeffding(hoeffding_limit(3.0, 0.01), 3.0) == pytest.approx(math.log(0.02))


def test_distances_are_what_they_say() -> None:
    """Sums by FFT are those of a double loop: within a call, of shifts in a ring, and of mirrors."""
    plan = plan_device_check("int8", "SR", inputs=3, bits=2, bias=0.4, alpha=0.5, calls=5)
    rng = np.random.default_rng(0)
    away = rng.random((plan.calls, plan.lanes)) < 0.5
    e = (away - plan.p[plan.cell]) * plan.steady
    seen = {}

    def note(_: DevicePlan, family: str, sums: np.ndarray, squares: np.ndarray, *__: Any) -> list[Any]:
        seen[family] = sums, squares
        return []

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(device, "_found", note)
        list(device._dependence(plan, away, plan.p))
    lanes, calls = range(plan.lanes), range(plan.calls)
    c = reach_of_lanes(plan) ** 2
    steady = plan.steady.astype(float)
    pairs = {
        "lag of lanes": lambda d: [(i, t, i + d, t) for t in calls for i in lanes if i + d in lanes],
        "shift": lambda d: [(i, t, (i + d) % plan.lanes, t + 1) for t in calls[:-1] for i in lanes],
        "mirror": lambda d: [(i, t, (d - i) % plan.lanes, t + 1) for t in calls[:-1] for i in lanes],
        "lag of calls": lambda d: [(i, t, i, t + d) for t in calls for i in lanes if t + d in calls],
    }
    for family, of in pairs.items():
        first = int(family != "mirror")
        sums, squares = seen[family]
        assert len(sums) == plan.tests(family)
        for d, (total, square) in enumerate(zip(sums, squares, strict=True), first):
            assert total == pytest.approx(sum(e[t, i] * e[s, j] for i, t, j, s in of(d)), abs=1e-9)
            assert square == pytest.approx(sum(c[i] * steady[j] for i, _, j, _ in of(d)), abs=1e-9)
    assert {name: len(sums) for name, (sums, _) in seen.items()} == {
        name: plan.tests(name) for name in FAMILIES if name != "repeat"
    }


# --- The plan --------------------------------------------------------------------------------------------------------


def test_plan_says_what_it_does() -> None:
    """Each input stands as often as its error needs; the rates of all tests add up to alpha; the same seed, the same plan."""
    plan = plan_device_check("e4m3", "SR", bias=1 / 32, alpha=1e-3)
    n = plan.calls * np.bincount(plan.cell)
    for i in np.flatnonzero(plan.open):
        for q in (plan.p[i] - plan.found[i], plan.p[i] + plan.found[i]):
            assert not 0 <= q <= 1 or n[i] >= chernoff_size(plan.p[i], q, plan.per_cell, 1 - plan.power)
    rates = [plan.per_cell * (plan.open.sum() + 2), *(plan.per_test(f) * plan.tests(f) for f in FAMILIES)]
    assert sum(rates) == pytest.approx(plan.alpha)
    assert plan.p[plan.open].min() == 2.0**-10
    assert plan.fixed.sum() == 8
    assert np.array_equal(plan_device_check("e4m3", "SR", bias=1 / 32, alpha=1e-3).x, plan.x)
    text = str(plan)
    assert f"{plan.draws:,} draws" in text.splitlines()[0]
    assert "false alarms: at most 0.001 in all" in text
    assert "a probability that is off by 0.03125 at one of the inputs" in text
    assert "cannot be seen: a smaller bias" in text


def test_probabilities_are_those_of_the_mode() -> None:
    """The probability of each input is that of its mode and number of bits, counted over all words of the reference."""
    from qsim import reference

    for mode, n in (("SRA", 3), ("SRB", 3), ("SRC", 3), ("SRE", 1)):
        plan = plan_device_check("e4m3", mode, sr_bits=n, bias=1 / 4)
        fmt = get_format("e4m3")
        for value, p in zip(plan.value.tolist(), plan.p.tolist(), strict=True):
            codes = [reference.encode(value, fmt, mode, sr_bits=n, rbits=r) for r in range(1 << n)]
            assert sum(abs(fmt.decode(code)) > abs(value) for code in codes) / (1 << n) == p


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"mode": "RNE"}, "RNE is not stochastic; check_quantizer checks a deterministic rounding"),
        ({"alpha": 0}, "alpha = 0 must lie between 0 and 1"),
        ({"bias": 1.5}, "bias = 1.5 must lie between 0 and 1"),
        ({"calls": 1}, "calls = 1 must be an integer of at least 2"),
        ({"bias": 1e-5}, "more than most_draws = 1.3e+08"),
        ({"mode": "SRA"}, "SRA needs sr_bits"),
        ({"mode": "SRA", "sr_bits": 0}, "is never random: no float32 has two outcomes there"),
    ],
)
def test_refused(options: dict[str, Any], message: str) -> None:
    """A plan that cannot be is refused in one sentence."""
    with pytest.raises(InputError, match=re.escape(message)):
        plan_device_check("e4m3", options.pop("mode", "SR"), **options)


def test_small_plans_promise_little() -> None:
    """A plan without lanes that tell of their words claims no power for them; without enough calls, none for twins."""
    plan = plan_device_check("e4m3", "SRA", sr_bits=4, inputs=1, bits=4, bias=0.49, calls=8)
    assert not plan.twins
    assert plan.shared_calls > 1
    assert plan.shared_lanes > 1
    assert "share their words" not in str(plan)


def test_device_is_refused() -> None:
    """What is no function, and an answer of another shape, is refused."""
    plan = plan_device_check("e4m3", "SR", **SMALL)
    with pytest.raises(InputError, match="plan is of type str; it must be what plan_device_check"):
        check_stochastic_device(Integers(0), "e4m3")
    with pytest.raises(InputError, match="sample_fn is of type int"):
        check_stochastic_device(3, plan)
    with pytest.raises(InputError, match="returned an array of shape"):
        check_stochastic_device(lambda x: x[:1], plan)
