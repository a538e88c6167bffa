"""Claims of any kind of study: numbers with intervals and margins, and the verdict on each."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from qsim.measure import Estimate, Family, Interval, judge
from qsim.studies.result import Claim
from qsim.verdicts import Outcome

__all__ = ["Check", "Judged", "claim_of", "judged_by"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """Hold one number that a claim rests on: held if its interval lies in [low, high].

    With `equal`, the number is predicted to be `equal` exactly: refuted if the interval excludes it, held if it
    contains it and reaches at most `reach` to each side, else not decided.
    """

    label: str
    estimate: Estimate
    low: float = -math.inf
    high: float = math.inf
    equal: float | None = None
    reach: float = math.inf
    #: How the number is written: a function of it, for a reader.
    write: Callable[[Interval], str] = str

    def judge(self, interval: Interval) -> Outcome:
        """Return the verdict of the claim at this number."""
        if self.equal is None:
            return judge(interval, self.low, self.high)
        if not interval.low <= self.equal <= interval.high:
            return Outcome.REFUTED if math.isfinite(interval.value) else Outcome.NOT_DECIDED
        return Outcome.HELD if interval.half_width <= self.reach else Outcome.NOT_DECIDED


@dataclass(frozen=True, slots=True)
class Judged:
    """Hold a check with its simultaneous interval and outcome."""

    check: Check
    interval: Interval
    outcome: Outcome


def judged_by(checks: Iterable[Check], family: Family) -> list[Judged]:
    """Judge each check by its simultaneous interval."""
    return [Judged(check, i := family.interval(check.estimate), check.judge(i)) for check in checks]


def claim_of(
    judged: Sequence[Judged],
    family: Family,
    *,
    id: str,
    statement: str,
    margin: str,
    theorem: str,
    expected: Outcome = Outcome.HELD,
    figure: str = "",
    table: str = "",
    fault: bool = False,
) -> Claim:
    """Return the claim that rests on these checks: refuted or not decided as soon as one is, and held otherwise."""
    outcomes = [j.outcome for j in judged]
    if not outcomes:
        outcome, evidence = Outcome.NOT_TESTABLE, "no cell of this run tests it"
    else:
        outcome = next((o for o in (Outcome.REFUTED, Outcome.NOT_DECIDED) if o in outcomes), Outcome.HELD)
        worst = max((j for j in judged if j.outcome is outcome), key=_severity)
        evidence = f"{worst.check.label}: {worst.check.write(worst.interval)}"
    counts = ", ".join(f"{outcomes.count(o)} {o}" for o in Outcome if o in outcomes)
    counted = f" ({counts})" if counts else ""
    return Claim(
        id=id,
        statement=statement,
        margin=margin,
        theorem=theorem,
        expected=expected,
        outcome=outcome,
        covered=f"{len(judged)} {'interval' if len(judged) == 1 else 'intervals'}{counted}, "
        f"simultaneous with all {family.size} that claims rest on, at a false-alarm rate of {family.rate:g}",
        evidence=evidence,
        figure=figure,
        table=table,
        fault=fault,
    )


def _severity(judged: Judged) -> float:
    """Order checks of one outcome: how far the number is from its prediction, or how near to its margin."""
    check, interval = judged.check, judged.interval
    if check.equal is not None:
        return abs(interval.value - check.equal) + (interval.half_width if judged.outcome is not Outcome.REFUTED else 0)
    return max(check.low - interval.low, interval.high - check.high)
