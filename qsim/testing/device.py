"""A stochastic quantizer whose random words nobody knows: a kernel, a chip, a library with a generator of its own.

    plan = plan_device_check("e4m3", "SR", bias=1 / 32)
    print(plan)  # how much is drawn, which errors are found with which power, and which cannot be seen
    verdict = check_stochastic_device(my_device, plan)

The claim is that each conversion takes a fresh, independent, uniform word. Then every result is one of the two
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

from qsim.errors import InputError
from qsim.explain.picture import fraction, number
from qsim.explain.search import common_causes
from qsim.kernels.threads import one_blas_thread
from qsim.testing.bounds import by_chance, chernoff, hoeffding
from qsim.testing.likeness import as_if
from qsim.testing.observe import Base, Flags, Watch, call, judge
from qsim.testing.plan import PAIRED, WITHIN, DevicePlan, Floats, reach_of_lanes
from qsim.underflow import as_caller, gradual_underflow
from qsim.verdicts import Outcome, Verdict

__all__ = ["check_stochastic_device"]

SHOWN = 3
"""Findings of one test that a verdict shows."""

BLOCK = 1 << 20
"""The outcomes that are looked at in one go."""


@dataclass(frozen=True, slots=True)
class Finding:
    """State the fault, and how likely so much is by chance: a bound on ln P, -inf for impossible events."""

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


@gradual_underflow
def check_stochastic_device(sample_fn: Callable[[NDArray[Any]], Any], plan: DevicePlan) -> Verdict:
    """Ask a device as `plan` says, and refute it where so much would come by chance less often than the plan allows.

    `sample_fn(x)` returns one rounding of each element of the array x, values or codes as the plan says, with new random
    words in each call. The sign of a zero, NaNs, infinities and numbers beyond the range are left to `check_quantizer`.
    "Held" means that no test found anything: errors that the plan calls invisible may still exist.
    """
    if not isinstance(plan, DevicePlan):
        raise InputError(
            f"plan is of type {type(plan).__name__}; it must be what plan_device_check(fmt, mode, ...) returns"
        )
    if not callable(sample_fn):
        raise InputError(f"sample_fn is of type {type(sample_fn).__name__}; it must be a function of an array")
    name = getattr(sample_fn, "__name__", "sample_fn")
    task = dataclasses.replace(plan.task, fn=as_caller(sample_fn), name=name, watch=Watch())
    base = Base(task, plan.x)
    away = np.empty((plan.calls, plan.lanes), bool)
    findings = list(_ask(base, plan, away))
    first = str(plan).splitlines()[0]
    findings += [Finding("arrays", -math.inf, says) for says in (task.watch.overwrites, task.watch.recycles) if says]
    if not findings:  # frequencies and dependence of results that are not even neighbours say nothing
        with one_blas_thread():  # the products are slim: threads would only wait for each other
            findings = [*_frequencies(plan, away), *_dependence(plan, away, plan.p)]
    rates = f"false alarms at most {plan.alpha:g}, power {plan.power:.6g} for a bias of {plan.bias:g}"
    covered = f"{first}; {rates}; cannot be seen: {plan.blind}"
    if not findings:
        return Verdict(outcome=Outcome.HELD, covered=covered)
    return Verdict(
        outcome=Outcome.REFUTED, covered=covered, counterexample="\n".join(_report(base, plan, away, findings))
    )


def _report(base: Base, plan: DevicePlan, away: Flags, findings: list[Finding]) -> list[str]:
    """Return the likely cause, then the findings, those of the least likely test first: the others may follow from them."""
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
        lines += [f"{name}: {found.says}{by_chance(found.chance)}" for found in own[:shown]]
        lines[-1] += f"; and {len(own) - shown:,} more" if len(own) > shown else ""
    return lines


def _certain(plan: DevicePlan, findings: list[Finding]) -> list[Finding]:
    """Leave out findings that may follow from the least likely finding: every bound supposes that all else is independent.

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


def _dependence(plan: DevicePlan, away: Flags, of_cell: Floats) -> Iterator[Finding]:
    """Yield the pairs of calls and of lanes, and the distances, at which outcomes go together more than by chance.

    `of_cell` are the probabilities of the cells that are taken from the outcomes.
    """
    yield from _repeats(plan, away)
    if not plan.steady.any():
        return
    reach, steady = reach_of_lanes(plan) ** 2, plan.steady.astype(np.float64)
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


def _as_if(base: Base, plan: DevicePlan, away: Flags) -> list[str]:
    """Return the roundings other than the one asked for whose frequencies are those that were seen."""
    ups, n = _counts(plan, away)
    lane = np.array([np.flatnonzero(plan.cell == i)[0] for i in range(len(plan.p))])
    x = base.entering[lane]
    return as_if(base.task, x, ups, n, plan.open, lambda q: _fits(plan, ups, n, q), plan.alpha)


def _fits(plan: DevicePlan, ups: Floats, n: Floats, q: Floats) -> bool:
    """Return whether no test of a frequency, of a cell or of all, would refute the probabilities q."""
    free, limit = plan.open, math.log(plan.per_cell)
    if (chernoff(ups, n, q)[free] <= limit).any():
        return False
    excess, total = (ups - n * q)[free], float(n[free].sum())
    return all(hoeffding(float((excess * signs).sum()), total) > limit for signs in (1.0, np.sign(plan.value)[free]))
