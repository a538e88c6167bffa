"""A stochastic quantizer whose random words nobody knows: a kernel, a chip, a library with a generator of its own.

    plan = plan_device_check("e4m3", "SR", bias=1 / 32)
    print(plan)  # how much is drawn, what is found with which power, and what cannot be seen
    verdict = check_stochastic_device(my_device, plan)

What is claimed is that each conversion takes a fresh, independent, uniform word. Then every result is one of the two
neighbours, an element goes away from zero with a probability that the mode names, and all elements of all calls are
independent. Each of the three is tested by a bound that holds for every number of draws (`qsim.testing.bounds`); no limit
theorem is used, and the false-alarm rate of all tests together is at most the one that was asked for.
"""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import fft
from threadpoolctl import threadpool_limits

from qsim.errors import InputError
from qsim.explain.picture import fraction, number
from qsim.explain.search import common_causes
from qsim.formats import Format, Grid, get_format
from qsim.rounding import LIMITED, Mode, Saturation, parse_mode
from qsim.testing.bounds import chernoff, chernoff_size, hoeffding, hoeffding_limit
from qsim.testing.check import make_task
from qsim.testing.observe import Base, Flags, Task, call, judge
from qsim.testing.oracle import expect, place
from qsim.verdicts import Outcome, Verdict

__all__ = ["DevicePlan", "check_stochastic_device", "plan_device_check"]

Floats = NDArray[np.float64]

STEADY = (0.25, 0.75)
"""Probabilities between which an outcome says enough of its word to be compared with another one's."""

PAIRED = 1024
"""The lanes of which every two are compared: the first so many steady ones."""

SHOWN = 3
"""Findings of one test that a verdict shows."""

BLOCK = 1 << 20
"""The outcomes that are looked at in one go."""

SHARES = (*(Fraction(k, 4) for k in (2, 1, 3)), *(Fraction(k, 16) for k in (1, 15, 5, 11, 3, 13, 7, 9)))
"""Fractions of an interval at which inputs lie; the first three, which lie in the steady lanes, are taken more often."""

FAMILIES = {
    "repeat": "any two calls, whether they are the same in every lane",
    "calls": "any two calls, over all lanes",
    "lanes": f"any two of the first {PAIRED:,} steady lanes, over all calls",
    "lag of lanes": "lanes of any distance, over all lanes and calls",
    "lag of calls": "calls of any distance, lane by lane, over all of them",
    "shift": "successive calls, one shifted by any number of lanes, over all of them",
    "mirror": "successive calls, one reversed and shifted by any number of lanes, over all of them",
}
"""The tests of independence: each compares the outcomes of many pairs of conversions."""

WITHIN = ("lanes", "lag of lanes")
"""The tests of elements of the same call; the others compare calls."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DevicePlan:
    """Hold what a device will be asked, and what follows from the answers; `str` says it. `plan_device_check` makes one."""

    #: The rounding; its function is nobody's yet.
    task: Task
    #: The false-alarm rate of all tests together, and the probability with which is found what is said to be.
    alpha: float
    power: float
    #: The least error of a probability that is to be found, in units of the interval.
    bias: float
    #: The random bits that are to be told from fewer.
    bits: int
    #: How often the device is called.
    calls: int
    #: The array that it is given each time: one number a lane.
    x: NDArray[Any]
    #: The cell of each lane: lanes of one cell hold the same number.
    cell: NDArray[np.intp]
    #: Of each cell: its number, the probability to go away from zero, and whether it is a value of the format.
    value: Floats
    p: Floats
    fixed: Flags
    #: The least error of its probability that is found with `power`; infinite where there is nothing to find.
    found: Floats

    @property
    def lanes(self) -> int:
        """The number of elements of the array."""
        return len(self.x)

    @property
    def draws(self) -> int:
        """The number of conversions, all calls and lanes."""
        return self.calls * self.lanes

    @property
    def open(self) -> Flags:
        """The cells with two outcomes."""
        return np.asarray((self.p > 0) & (self.p < 1))

    @property
    def steady(self) -> Flags:
        """The lanes whose outcomes are compared with each other's."""
        p = self.p[self.cell]
        return np.asarray((p >= STEADY[0]) & (p <= STEADY[1]))

    @property
    def per_cell(self) -> float:
        """The false-alarm rate of the test of one cell: half of the whole goes to frequencies, two tests being of all."""
        return self.alpha / 2 / (int(self.open.sum()) + 2)

    @property
    def common(self) -> float:
        """The least error common to all cells that is found with the stated power.

        The mean of the `n` outcomes less their probabilities has a mean of the error e. There is an alarm where it reaches
        t = sqrt(ln(2/alpha) / 2n), and none where it falls short of e by u = sqrt(ln(1/beta) / 2n) or more, with a probability
        of at most beta (`hoeffding`); so e = t + u is enough.
        """
        n = self.calls * int(self.open[self.cell].sum())
        return float(hoeffding_limit(n, self.per_cell / 2) + hoeffding_limit(n, 1 - self.power)) / max(n, 1)

    @property
    def rare(self) -> float:
        """The least rate of results that are no neighbour which is found: (1 - r)^n <= exp(-r n) <= beta."""
        return math.log(1 / (1 - self.power)) / self.draws

    def tests(self, family: str) -> int:
        """Return the number of comparisons of a family."""
        paired = min(int(self.steady.sum()), PAIRED)
        return {
            "repeat": self.calls * (self.calls - 1) // 2,
            "calls": self.calls * (self.calls - 1) // 2,
            "lanes": paired * (paired - 1) // 2,
            "lag of lanes": self.lanes - 1,
            "lag of calls": self.calls - 1,
            "shift": self.lanes - 1,
            "mirror": self.lanes,
        }[family]

    def per_test(self, family: str) -> float:
        """Return the false-alarm rate of one comparison: the other half of the whole, split evenly over families."""
        return self.alpha / 2 / len(FAMILIES) / max(self.tests(family), 1)

    @property
    def repeat(self) -> float:
        """Return ln P that two calls are the same in every lane: independent lanes agree with p^2 + (1 - p)^2 each."""
        p = self.p[self.cell]
        return float(np.log(p**2 + (1 - p) ** 2).sum())

    @property
    def shared_calls(self) -> float:
        """The least share of lanes in which two calls may take the same words and are found; above 1 where none is.

        See `_limits` for the test. In a lane that takes one word twice the product of two outcomes has the mean
        p (1 - p) >= 3/16, elsewhere 0; its range is at most that of the test, c = max(p, 1 - p), so the same bound holds
        below the mean: 3/16 s L must exceed the test's limit by that for the misses.
        """
        squares = float((_reach(self) ** 2).sum())
        limit = hoeffding_limit(squares, self.per_test("calls") / 2) + hoeffding_limit(squares, 1 - self.power)
        lanes = int(self.steady.sum())
        return float(limit) / (3 / 16 * lanes) if lanes else math.inf

    @property
    def shared_lanes(self) -> float:
        """The least share of the pairs of lanes one step apart that may share their words and are found; above 1 where none is.

        A pair with one word for both has a covariance min(p, q) - p q >= 1/16, another pair 0. Where pairs share their
        words, take them one after another: the word of a pair settles at most two products, that within it and the one with the
        outcome before it, whose range together is at most 2. So 4 times the number of pairs, at most half of the products,
        takes the place of the sum of the c_i^2; a lane with its own word settles one product.
        """
        n = int((self.steady[1:] & self.steady[:-1]).sum()) * self.calls
        squares = self.calls * float((_reach(self)[:-1] ** 2 * self.steady[1:]).sum())
        limit = hoeffding_limit(squares, self.per_test("lag of lanes") / 2)
        return float(limit + hoeffding_limit(2 * n, 1 - self.power)) / (n / 16) if n else math.inf

    @property
    def twins(self) -> bool:
        """Whether any two steady lanes with p = 1/2 that always share their words are found, with certainty: T/4 is the sum."""
        halves = int((self.p[self.cell[np.flatnonzero(self.steady)[:PAIRED]]] == 0.5).sum())
        return halves > 1 and bool(self.calls / 4 >= hoeffding_limit(self.calls / 4, self.per_test("lanes") / 2))

    def __str__(self) -> str:
        fine = self.p[self.open & (self.found == self.p)].min(initial=1.0)
        families = ", ".join(f"{name} {self.tests(name):,}" for name in FAMILIES)
        rates = f"{self.alpha / 2:g} for frequencies ({int(self.open.sum())} inputs and 2 sums)"
        moves = f"a value of the format that moves, if it does {self._rare_moves:.2g} times a draw"
        lines = [
            f"{self.task}: {self.calls:,} calls of {self.lanes:,} lanes, {self.draws:,} draws, {len(self.p)} different inputs",
            f"false alarms: at most {self.alpha:g} in all, {rates}, {self.alpha / 2:g} for dependence ({families})",
            f"found with a probability of at least {self.power:.6g}:",
            f"  a result that is no neighbour, if it comes {self.rare:.2g} times a draw; {moves}",
        ]
        lines.append(
            f"  a probability that is off by {self.bias:g} at one of the inputs, or by {self.common:.2g} at all of them"
        )
        if fine < 1:
            lines.append(
                f"  a probability of {fine:.3g} that is 0, or twice as large: fewer random bits than {self.bits}"
            )
        if self.repeat <= math.log(self.per_test("repeat")):
            lines.append("  two calls that take the same words in all lanes")
        if self.shared_calls <= 1:
            lines.append(f"  two calls that take the same words in {self.shared_calls:.2g} of the lanes")
        if self.shared_lanes <= 1:
            lines.append(f"  neighbouring lanes that share their words, {self.shared_lanes:.2g} of the pairs")
        if self.twins:
            lines.append(f"  any two of the first {PAIRED:,} steady lanes with p = 1/2 that always share their words")
        return "\n".join([*lines, f"cannot be seen: {self.blind}"])

    @property
    def blind(self) -> str:
        """What the plan cannot see, in one sentence."""
        return (
            f"a smaller bias or rarer error than these; what happens at other inputs ({self._asked}), or after "
            f"{self.calls:,} calls; "
            f"random bits beyond the first {self.bits}; dependence that shows only among three or more conversions, or in "
            "fewer of them; and which word went where, as long as every conversion has its own: "
            "for this the words must be given (check_quantizer)"
        )

    @property
    def _asked(self) -> str:
        """Where the inputs lie."""
        fmt = self.task.fmt
        normal = ", from the smallest normal value on" if isinstance(fmt, Grid) and not fmt.even else ""
        sides = "of either sign, " if fmt.signed else ""
        return (
            f"asked are, {sides}the intervals next to zero{normal} and at the ends of the range, each at "
            f"{', '.join(str(share) for share in sorted(SHARES[:3]))}, and intervals all over the range, seldom twice in one"
        )

    @property
    def _rare_moves(self) -> float:
        fixed = int(self.fixed[self.cell].sum()) * self.calls
        return math.log(1 / (1 - self.power)) / fixed if fixed else math.inf


def plan_device_check(
    fmt: str | Format,
    mode: str | Mode = Mode.SR,
    *,
    sr_bits: int | None = None,
    bias: float = 1 / 32,
    bits: int = 10,
    alpha: float = 1e-6,
    power: float = 0.99,
    calls: int = 256,
    inputs: int = 64,
    saturation: str | Saturation | None = None,
    codes: bool = False,
    dtype: Any = np.float32,
    seed: int = 0,
    most_draws: int = 1 << 27,
) -> DevicePlan:
    """Return a plan: what a device that rounds stochastically is asked, and how often, to find an error of `bias`.

    `fmt`, `mode`, `sr_bits`, `saturation`, `codes` and `dtype` are those of `check_quantizer`. `bias` is the least error of the
    probability of one input, in units of the interval, that must be found; a device with fewer than `bits` random bits must
    be, too. `inputs` inputs lie all over the range, and others always next to zero, from the smallest normal value on, and at
    the ends of the range. `alpha` bounds the false-alarm rate of all tests together; what the plan says is found has the
    probability `power`. The device is called `calls` times with the same array, in which every input stands as often as its
    test needs, in an order that `seed` determines. Raise `InputError` where that takes more than `most_draws` draws.
    """
    mode = parse_mode(mode)
    if not mode.stochastic:
        raise InputError(f"{mode} is not stochastic; check_quantizer checks a deterministic rounding")
    for name, rate in (("alpha", alpha), ("power", power), ("bias", bias)):
        if not 0 < rate < 1:
            raise InputError(f"{name} = {rate!r} must lie between 0 and 1")
    for name, least, count in (("calls", 2, calls), ("inputs", 1, inputs), ("bits", 1, bits)):
        if type(count) is not int or count < least:
            raise InputError(f"{name} = {count!r} must be an integer of at least {least}")
    task = make_task(_nobody, get_format(fmt), mode, sr_bits, None, saturation, dtype, "any", None, codes=codes, ftz_in=False,
                     ftz_out=False, seed=seed, examples=0)  # fmt: skip
    task = dataclasses.replace(task, words=False)
    finest = min(bits, task.n)
    base, fine = _cells(task, inputs, finest)
    p = _probabilities(base)
    if not ((p > 0) & (p < 1)).any():
        raise InputError(
            f"{task} is never random: no {task.dtype} has two outcomes there; check_quantizer checks the rest"
        )
    off = np.where((p > 0) & (p < 1), np.where(fine, np.minimum(np.minimum(p, 1 - p), bias), bias), np.inf)
    plan = DevicePlan(
        task=task, alpha=alpha, power=power, bias=bias, bits=finest, calls=calls, x=base.x, cell=np.arange(len(p)),
        value=base.exact, p=p, fixed=base.on_grid, found=off,
    )  # fmt: skip
    copies = -(-_draws(plan) // calls)
    lanes = int(copies.sum())
    if lanes * calls > most_draws:
        raise InputError(
            f"bias = {bias:g} with bits = {bits} takes {lanes * calls:.2g} draws, more than most_draws = {most_draws:.2g}"
        )
    rng = np.random.Generator(np.random.PCG64(seed))
    # The many lanes of small probabilities come last: they say little of each other, and would stand between those that do.
    cell = np.concatenate([rng.permutation(np.repeat(np.flatnonzero(some), copies[some])) for some in (~fine, fine)])
    return dataclasses.replace(plan, x=base.x[cell], cell=cell)


def _nobody(_: NDArray[Any]) -> NDArray[Any]:
    """Stand for the device that a plan does not know; `check_stochastic_device` puts it in its place."""
    raise InputError("a plan has no device of its own; give it to check_stochastic_device together with one")


def _cells(task: Task, inputs: int, finest: int) -> tuple[Base, Flags]:
    """Return the inputs, each once, and which of them are there for their small probability, or that of staying.

    They lie in intervals all over the range, at `SHARES`, an eighth more being values of the format; in the intervals where
    units differ most, `_ends`; and two for every power of two down to 2^-finest lie so near to an end.
    """
    fmt = task.fmt
    shares = [SHARES[k % 3] if k % 2 else SHARES[3 + k // 2 % 8] for k in range(inputs)]
    shares += [Fraction(0)] * (-(-inputs // 8))
    near = [share for k in range(2, finest + 1) for share in (Fraction(1, 1 << k), 1 - Fraction(1, 1 << k))]
    first, last = -fmt.bottom, fmt.top
    golden = (5**0.5 - 1) / 2
    chosen = []
    for group in (shares, near):  # multiples of the golden ratio are spread evenly, and out of step with the shares
        for k, share in enumerate(group):
            ordinal = first + int((k + 1) * golden % 1 * (last - first))
            chosen.append(fmt.value(ordinal) + share * (fmt.value(ordinal + 1) - fmt.value(ordinal)))
    between = [
        fmt.value(ordinal) + share * (fmt.value(ordinal + 1) - fmt.value(ordinal))
        for ordinal in _ends(fmt)
        for share in SHARES[:3]
    ]
    with np.errstate(over="ignore", under="ignore"):
        x = np.array([float(value) for value in between + chosen]).astype(task.dtype)
    fine = np.arange(len(x)) >= len(between) + len(shares)
    _, once = np.unique(x.view(f"u{task.dtype.itemsize}"), return_index=True)
    base = Base(task, x[once])
    kept = base.within & ((base.inner != base.outer) | base.on_grid) & (base.exact != 0)
    return Base(task, base.x[kept]), fine[once][kept]


def _ends(fmt: Format) -> list[int]:
    """Return the lesser ends of the intervals next to zero, from the smallest normal value on, and at the ends of the range."""
    first, last = -fmt.bottom, fmt.top - 1
    starts = [0] if not isinstance(fmt, Grid) or fmt.even else [0, fmt.first_normal]
    both = [ordinal for start in starts for ordinal in (start, -start - 1)]
    return sorted({first, last, *(ordinal for ordinal in both if first <= ordinal <= last)})


def _probabilities(base: Base) -> Floats:
    """Return the probability with which each number goes away from zero: the words from the first one on, of 2^n.

    A float64 holds it where n <= 53; else it is off by up to 2^-53 of itself, far less than any draw could show.
    """
    whole = 1 << base.task.n
    return np.array([float(Fraction(whole - int(first), whole)) for first in base.expected.first_word])


def _draws(plan: DevicePlan) -> NDArray[np.int64]:
    """Return how many draws each cell needs, so that an error of what is to be `found` is, on either side."""
    p, off = plan.p, plan.found
    needed = np.full(len(p), 1, np.int64)
    for q in (p - off, p + off):
        possible = plan.open & (q >= 0) & (q <= 1)
        sized = chernoff_size(p[possible], q[possible], plan.per_cell, 1 - plan.power)
        needed[possible] = np.maximum(needed[possible], sized)
    # Values of the format have one outcome: as often as the others in the middle.
    needed[~plan.open] = int(np.median(needed[plan.open]))
    return needed


# --- Asked -----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Finding:
    """Say what is wrong, and how likely so much is by chance: a bound on ln P, -inf for what cannot be."""

    test: str
    chance: float
    says: str
    #: The same bound where the other kind of dependence, within or between calls, may be there as well; 0 where none holds.
    alone: float = 0.0

    @property
    def family(self) -> str:
        """The family of a test of dependence."""
        return self.test.removeprefix("dependence (").removesuffix(")")

    @property
    def within(self) -> bool:
        """Whether the test compares elements of the same call."""
        return self.family in WITHIN


def check_stochastic_device(sample_fn: Callable[[NDArray[Any]], Any], plan: DevicePlan) -> Verdict:
    """Ask a device as `plan` says, and refute it where so much would come by chance less often than the plan allows.

    `sample_fn(x)` returns one rounding of each element of the array x, values or codes as the plan says, with new random
    words in each call. The sign of a zero, NaNs, infinities and what is beyond the range are left to `check_quantizer`.
    "Held" means that no test found anything: what the plan says cannot be seen may still be.
    """
    if not isinstance(plan, DevicePlan):
        raise InputError(
            f"plan is of type {type(plan).__name__}; it must be what plan_device_check(fmt, mode, ...) returns"
        )
    if not callable(sample_fn):
        raise InputError(f"sample_fn is of type {type(sample_fn).__name__}; it must be a function of an array")
    task = dataclasses.replace(plan.task, fn=sample_fn, name=getattr(sample_fn, "__name__", "sample_fn"))
    base = Base(task, plan.x)
    away = np.empty((plan.calls, plan.lanes), bool)
    findings = list(_ask(base, plan, away))
    first = str(plan).splitlines()[0]
    if not findings:  # frequencies and dependence of results that are not even neighbours say nothing
        with threadpool_limits(1):  # the products are slim: threads would only wait for each other
            findings = [*_frequencies(plan, away), *_dependence(plan, away, plan.p)]
    rates = f"false alarms at most {plan.alpha:g}, power {plan.power:.6g} for a bias of {plan.bias:g}"
    covered = f"{first}; {rates}; cannot be seen: {plan.blind}"
    if not findings:
        return Verdict(outcome=Outcome.HELD, covered=covered)
    return Verdict(
        outcome=Outcome.REFUTED, covered=covered, counterexample="\n".join(_report(base, plan, away, findings))
    )


def _report(base: Base, plan: DevicePlan, away: Flags, findings: list[Finding]) -> list[str]:
    """Return what it looks like, then the findings, those of the least likely test first: the others may follow from them."""
    lines: list[str] = []
    frequencies = [found for found in findings if found.test == "frequency"]
    if frequencies:
        # Where probabilities are wrong, outcomes less these go together by that alone; do they, too, less what was seen?
        ups, n = _counts(plan, away)
        constant = bool(((ups == 0) | (ups == n)).all())
        centred = set() if constant else {(found.test, found.says) for found in _dependence(plan, away, ups / n)}
        dependence = [found for found in findings if (found.test, found.says) in centred]
        findings = _certain(plan, dependence) or frequencies
        if not dependence:
            lines += [f"as if: {words}" for words in _as_if(base, plan, away)]
    else:
        findings = _certain(plan, findings)
    if findings[0].test.startswith("dependence") and _in_step(plan, away):
        lines.append("as if: all elements of a call take the same random word")
    tests: dict[str, list[Finding]] = {}
    ordered = sorted(findings, key=lambda found: found.chance)
    least = ordered[0]
    for found in ordered:
        tests.setdefault(found.test, []).append(found)
    for name, own in tests.items():
        shown = SHOWN if own[0] is least else 1
        lines += [f"{name}: {found.says}{_chance(found.chance)}" for found in own[:shown]]
        lines[-1] += f"; and {len(own) - shown:,} more" if len(own) > shown else ""
    return lines


def _certain(plan: DevicePlan, findings: list[Finding]) -> list[Finding]:
    """Leave out what may follow from the least likely finding: every bound supposes that all else is independent.

    Where elements of a call depend on each other, two calls agree more often by chance than the bound says, and where calls
    do, elements. If one kind has a finding whose bound holds all the same, the other kind needs one, too: for a test of calls
    one in which the lanes of a call are a single statistic, for a test of lanes one of a single call.
    """
    least = min(findings, key=lambda found: found.chance, default=None)
    if least is None or not least.test.startswith("dependence"):
        return findings
    sure = [found for found in findings if found.alone <= math.log(plan.per_test(found.family))]
    kinds = {found.within for found in sure} or {least.within}
    if least.within in kinds:  # of the other kind, only what is sure
        others = [dataclasses.replace(found, chance=found.alone) for found in sure if found.within != least.within]
        return [found for found in findings if found.within == least.within] + others
    return [found for found in findings if found.within in kinds]


def _chance(log: float) -> str:
    if math.isinf(log):
        return ""
    ten = log / math.log(10)
    return f" (by chance at most {math.exp(log):.2g})" if ten > -300 else " (by chance < 10^-300)"


def _ask(base: Base, plan: DevicePlan, away: Flags) -> Iterator[Finding]:
    """Call the device, note which elements go away from zero, and yield results that are no neighbours: none ever may be."""
    task, lanes = base.task, np.arange(plan.lanes)
    block = max(BLOCK // plan.lanes, 1)
    wrong: dict[int, tuple[int, int, Any]] = {}
    for start in range(0, plan.calls, block):
        rows = range(start, min(start + block, plan.calls))
        got = np.concatenate([call(task, plan.x, None) for _ in rows])
        seen = judge(base, np.tile(lanes, len(rows)), None, got)
        out = base.outer[seen.at]
        away[start : rows.stop] = ((seen.value == out) & (base.inner[seen.at] != out)).reshape(len(rows), -1)
        bad = np.flatnonzero(seen.wrong)
        cells, once, counts = np.unique(plan.cell[seen.at[bad]], return_index=True, return_counts=True)
        for cell, i, count in zip(cells.tolist(), bad[once].tolist(), counts.tolist(), strict=True):
            before, at, case = wrong.get(cell, (0, start + i // plan.lanes, None))
            wrong[cell] = (before + count, at, case or seen.case(i, signs=False))
    for cell, (count, at, case) in sorted(wrong.items(), key=lambda item: -item[1][0]):
        ends = " or ".join(
            number(float(value))
            for value in sorted({base.inner[plan.cell == cell][0], base.outer[plan.cell == cell][0]})
        )
        shown = f"code {case.got:#x}" if isinstance(case.got, int) else number(case.got)
        causes = common_causes([case])
        why = f"; {causes[0]}" if causes else ""
        yield Finding(
            "support",
            -math.inf,
            f"{number(case.x)} becomes {shown}, it should be {ends}: {count:,} times, first in call {at}{why}",
        )


# --- How often -------------------------------------------------------------------------------------------------------


def _counts(plan: DevicePlan, away: Flags) -> tuple[Floats, Floats]:
    """Return, of each cell, how often it went away from zero, and of how many draws."""
    ups = np.bincount(plan.cell, away.sum(0), len(plan.p))
    return ups.astype(np.float64), plan.calls * np.bincount(plan.cell, minlength=len(plan.p)).astype(np.float64)


def _nu(plan: DevicePlan, cell: int) -> Fraction:
    """Return the fraction of the way from the neighbour toward zero."""
    return plan.task.fmt.split(Fraction(plan.value[cell].item()))[1]


def _frequencies(plan: DevicePlan, away: Flags) -> Iterator[Finding]:
    """Yield the cells whose frequency is too far from their probability, and the sums over all cells that are."""
    ups, n = _counts(plan, away)
    cells = plan.open
    chance = np.where(cells, chernoff(ups, n, plan.p), 0.0)
    for i in np.flatnonzero(chance <= math.log(plan.per_cell)).tolist():
        says = (
            f"{number(plan.value[i].item())} (nu = {fraction(_nu(plan, i))}, p = {plan.p[i]:.6g}) goes away from zero "
            f"{int(ups[i]):,} of {int(n[i]):,} times, {plan.p[i] * n[i]:,.1f} are expected: a bias of "
            f"{ups[i] / n[i] - plan.p[i]:+.3g}"
        )
        yield Finding("frequency", float(chance[i]), says)
    excess, total = np.where(cells, ups - n * plan.p, 0.0), float(n[cells].sum())
    for side, signs in (("away from zero", 1.0), ("to the greater neighbour", np.sign(plan.value))):
        found = float((excess * signs).sum())
        log = float(hoeffding(found, total))  # each outcome less its probability has a range of 1
        if log <= math.log(plan.per_cell):
            says = f"all inputs together go {side} {found:+,.1f} times more often than expected, of {total:,.0f}"
            yield Finding("frequency", log, says)


# --- One conversion and another --------------------------------------------------------------------------------------
#
# Let e = X - p be an outcome (0 or 1) less its probability, of a steady lane; of other lanes e = 0. Of two independent
# conversions the product e e' has the mean 0. Take a sum of such products in an order in which the later factor of each comes
# after all conversions in the products before: given these, the later factor still has the mean 0 and lies in an interval of
# length 1, so the product lies in one of length |e| <= c = max(p, 1 - p), p being the earlier one's. So the sums are
# martingales with ranges c, though they share factors, and `hoeffding` holds with the sum of c^2.
#
# Calls s < t: the order is that of lanes, all of call s first. Lanes i < j: that of calls, lane i first. Distances of lanes
# within calls: that of calls, then of the later lane, which comes once. Distances of calls, shifts and mirrors: that of
# the later call, in which each lane comes once.
#
# If the lanes of a call depend on each other, but calls do not: given the calls before, the sum of the products of two
# successive calls, or of two at a distance, has the mean 0 and lies in an interval of length sum of |e| <= sum of c. So the sum
# over calls is a martingale whose ranges are that, squared for each call: `alone`. For one pair of calls there is no bound.


def _reach(plan: DevicePlan) -> Floats:
    """Return the greatest |e| of each lane."""
    p = plan.p[plan.cell]
    return np.where(plan.steady, np.maximum(p, 1 - p), 0.0)


def _dependence(plan: DevicePlan, away: Flags, of_cell: Floats) -> Iterator[Finding]:
    """Yield the pairs of calls and of lanes, and the distances, at which outcomes go together more than by chance.

    `of_cell` are the probabilities of the cells that are taken from the outcomes.
    """
    yield from _repeats(plan, away)
    if not plan.steady.any():
        return
    reach, steady = _reach(plan) ** 2, plan.steady.astype(np.float64)
    lanes = np.flatnonzero(plan.steady)
    p = of_cell[plan.cell]
    gram = np.zeros((plan.calls, plan.calls))
    for start in range(0, len(lanes), BLOCK // plan.calls + 1):
        some = lanes[start : start + BLOCK // plan.calls + 1]
        e = away[:, some] - p[some]
        gram += e @ e.T
    later = np.triu_indices(plan.calls, 1)
    yield from _found(
        plan, "calls", gram[later], reach.sum(), lambda i: f"calls {later[0][i]} and {later[1][i]} go together"
    )
    sums = np.array([np.trace(gram, k) for k in range(1, plan.calls)])
    counts = np.arange(plan.calls - 1, 0, -1)
    whole = np.sqrt(reach).sum() ** 2
    yield from _found(
        plan, "lag of calls", sums, reach.sum() * counts, lambda i: f"lanes repeat themselves after {i + 1} calls",
        sums, whole * counts,
    )  # fmt: skip
    some = lanes[:PAIRED]
    e = away[:, some] - p[some]
    pairs = np.triu_indices(len(some), 1)
    yield from _found(
        plan, "lanes", (e.T @ e)[pairs], plan.calls * reach[some][pairs[0]],
        lambda i: f"lanes {some[pairs[0][i]]} and {some[pairs[1][i]]} go together",
    )  # fmt: skip
    yield from _distances(plan, away, p, reach, steady)


def _repeats(plan: DevicePlan, away: Flags) -> Iterator[Finding]:
    """Yield the first call that is another one again, and how many are."""
    rows = {row.tobytes(): t for t, row in reversed(list(enumerate(away)))}
    again = [(t, rows[row.tobytes()]) for t, row in enumerate(away) if rows[row.tobytes()] < t]
    if again and plan.repeat <= math.log(plan.per_test("repeat")):
        (t, earlier), count = again[0], len(again)
        says = (
            f"call {t} is call {earlier} again, in every lane; {count:,} of {plan.calls:,} calls are another one again"
        )
        yield Finding("dependence (repeat)", count * plan.repeat, says)


def _distances(plan: DevicePlan, away: Flags, p: Floats, reach: Floats, steady: Floats) -> Iterator[Finding]:
    """Yield the distances within a call, and the shifts between successive calls, at which outcomes go together."""
    lanes = plan.lanes
    length = fft.next_fast_len(2 * lanes, real=True)
    spectrum = functools.partial(fft.rfft, n=length)
    within, shift, mirror = np.zeros(length // 2 + 1), 0j * np.zeros(length // 2 + 1), 0j * np.zeros(length // 2 + 1)
    before: NDArray[np.complex128] | None = None
    most = np.zeros(lanes - 1)
    block = max(BLOCK // length, 1)
    for start in range(0, plan.calls, block):
        f = spectrum((away[start : start + block] - p) * steady)
        within += (np.abs(f) ** 2).sum(0)
        most = np.maximum(most, np.abs(fft.irfft(np.abs(f) ** 2, n=length)[:, 1:lanes]).max(0))
        behind = f[:-1] if before is None else np.concatenate([before[None], f[:-1]])
        ahead = f[1:] if before is None else f
        shift += (behind.conj() * ahead).sum(0)
        mirror += (behind * ahead).sum(0)
        before = f[-1]
    c, s = spectrum(reach), spectrum(steady)
    back = functools.partial(fft.irfft, n=length)
    yield from _found(
        plan, "lag of lanes", back(within)[1:lanes], plan.calls * back(c.conj() * s)[1:lanes],
        lambda i: f"lanes {i + 1} apart go together",
        most, back(c.conj() * s)[1:lanes],
    )  # fmt: skip
    whole = (plan.calls - 1) * np.sqrt(reach).sum() ** 2
    # Lanes in a ring: negative distances of a shift stand at the end of a line, the second round of a mirror after the first.
    shifts, mirrors = (functools.partial(_ring, second=at, lanes=lanes) for at in (length - lanes, lanes))
    yield from _found(
        plan, "shift", shifts(back(shift))[1:], (plan.calls - 1) * shifts(back(c.conj() * s))[1:],
        lambda i: f"a lane goes together with the one {i + 1} further on in the next call (of a ring of {lanes:,})",
        shifts(back(shift))[1:], whole,
    )  # fmt: skip
    yield from _found(
        plan, "mirror", mirrors(back(mirror)), (plan.calls - 1) * mirrors(back(c * s)),
        lambda i: f"lane k goes together with lane {i} - k of the next call (of a ring of {lanes:,})",
        mirrors(back(mirror)), whole,
    )  # fmt: skip


def _ring(line: Floats, second: int, lanes: int) -> Floats:
    """Return the sums over two rounds of a ring of `lanes`: one at the start of `line`, the other from `second` on."""
    folded = line[:lanes].copy()
    other = line[second : second + lanes]
    folded[: len(other)] += other
    return folded


def _found(
    plan: DevicePlan, family: str, sums: Floats, squares: Any, says: Callable[[int], str],
    sums_alone: Floats | None = None, squares_alone: Any = 0.0,
) -> Iterator[Finding]:  # fmt: skip
    """Yield the sums of a family that are too far from 0; with a bound for the sums that stand alone, as in `_certain`.

    A sum of products by FFT is off by less than 1e-13 a product, so that as much is taken off before it is judged, and added
    to the squares.
    """
    slack = 1e-12 * plan.draws

    def bound(sums: Floats, squares: Any) -> Floats:
        chance = hoeffding(np.maximum(np.abs(sums) - slack, 0.0), np.asarray(squares) + slack)
        return np.broadcast_to(chance, sums.shape)

    chance = bound(sums, squares)
    alone = np.zeros(sums.shape) if sums_alone is None else bound(sums_alone, squares_alone)
    if family in WITHIN:  # of any one of the calls
        alone = np.minimum(alone + math.log(plan.calls), 0.0)
    for i in np.flatnonzero(chance <= math.log(plan.per_test(family))).tolist():
        way = "" if sums[i] > 0 else ", one the opposite of the other"
        yield Finding(f"dependence ({family})", float(chance[i]), says(i) + way, float(alone[i]))


def _in_step(plan: DevicePlan, away: Flags) -> bool:
    """Return whether in each call no element stays that is as likely as one that goes away from zero: one word for all."""
    p = plan.p[plan.cell]
    return bool((np.where(away, p, 1).min(1) >= np.where(away, 0, p).max(1)).all())


# --- What it looks like ----------------------------------------------------------------------------------------------


def _as_if(base: Base, plan: DevicePlan, away: Flags) -> Iterator[str]:
    """Yield the roundings other than the one asked for whose frequencies are those that were seen."""
    task = base.task
    ups, n = _counts(plan, away)
    lane = np.array([np.flatnonzero(plan.cell == i)[0] for i in range(len(plan.p))])
    always, free = (ups == 0) | (ups == n), plan.open
    at = place(task.fmt, base.entering[lane])
    likely: dict[str, tuple[Floats, float]] = {}
    for mode, width in _others(task):
        found = expect(task.fmt, mode, task.rule, base.entering[lane], at, n=width)
        whole = 1 << width
        p = (whole - found.first_word.astype(np.float64)) / whole
        if not mode.stochastic:
            if free.any() and bool((always & ((ups > 0) == (p > 0)))[free].all()):
                yield f"rounds by {mode} ({mode.value}): no random word is used"
            continue
        bits = f" of {width} random bits" if mode in LIMITED else ""
        tried = {f"rounds by {mode} ({mode.value}){bits}": p}
        if mode in LIMITED:
            tried[f"words 1 .. {whole - 1}, as of a shift register that has no 0, by {mode}{bits}"] = np.minimum(
                whole * p / (whole - 1), 1.0
            )
        for name, q in tried.items():
            told = any(np.array_equal(q, other) for other, _ in likely.values())
            if not told and not np.array_equal(q, plan.p) and _fits(plan, ups, n, q):
                with np.errstate(divide="ignore", invalid="ignore"):
                    likelihood = np.where(ups, ups * np.log(q), 0.0) + np.where(n - ups, (n - ups) * np.log1p(-q), 0.0)
                likely[name] = q, float(likelihood[free].sum())
    best = max((log for _, log in likely.values()), default=0.0)
    near = [name for name, (_, log) in likely.items() if log >= best + math.log(plan.alpha)]
    if near:
        yield ", or ".join(near[:3])


def _others(task: Task) -> Iterator[tuple[Mode, int]]:
    """Yield the modes that a device may have by mistake, with each number of random bits."""
    for mode in Mode:
        if mode not in (Mode.THR, Mode.SR):
            for width in range(1, min(task.n, 32) + 1) if mode in LIMITED else (int(mode.stochastic),):
                yield mode, width


def _fits(plan: DevicePlan, ups: Floats, n: Floats, q: Floats) -> bool:
    """Return whether no test of a frequency, of a cell or of all, would refute the probabilities q."""
    free, limit = plan.open, math.log(plan.per_cell)
    if (chernoff(ups, n, q)[free] <= limit).any():
        return False
    excess, total = (ups - n * q)[free], float(n[free].sum())
    return all(hoeffding(float((excess * signs).sum()), total) > limit for signs in (1.0, np.sign(plan.value)[free]))
