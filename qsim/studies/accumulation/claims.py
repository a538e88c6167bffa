"""The claims of the study: which numbers each rests on, and its verdict."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from qsim.measure import Estimate, Family, Interval, log_slope, quotient
from qsim.studies.accumulation.plan import Plan
from qsim.studies.claims import Check, claim_of, judged_by
from qsim.studies.result import Claim
from qsim.verdicts import Outcome

__all__ = ["decide", "of", "square_of"]

Record = dict[str, Any]


def of(records: Sequence[Record], **where: Any) -> list[Record]:
    """Return the records with these fields, by length."""
    found = [r for r in records if all(r[name] == value for name, value in where.items())]
    return sorted(found, key=lambda r: r["terms"])


def bias_of(record: Record) -> Estimate:
    """Return the mean error of a cell."""
    return Estimate(record["bias.value"], record["bias.error"], record["rows"] - 1)


def square_of(record: Record) -> Estimate:
    """Return the mean square of the error of a cell."""
    return Estimate(record["square.value"], record["square.error"], record["rows"] - 1)


def in_percent(interval: Interval) -> str:
    """Write a share in per cent."""
    return f"{100 * interval.value:.3g} [{100 * interval.low:.3g}, {100 * interval.high:.3g}] %"


def as_error(interval: Interval) -> str:
    """Write the root of a mean square in per cent."""
    low, value, high = (100 * math.sqrt(max(x, 0.0)) for x in (interval.low, interval.value, interval.high))
    return f"error {value:.3g} [{low:.3g}, {high:.3g}] %"


def checks_of(name: str, records: Sequence[Record], margin: Mapping[str, Any]) -> Iterator[Check]:
    """Yield the checks that a claim rests on."""
    names = [known for known in margin["accumulators"] if of(records, accumulator=known)]
    if name in ("unbiased", "enough-bits"):
        for known in names:
            for r in of(records, accumulator=known):
                label, most = f"{known}, n = {r['terms']}, {r['data']}", margin["bias"]
                yield Check(label=label, estimate=bias_of(r), low=-most, high=most, write=in_percent)
    elif name == "bound":
        for known in names:
            for r in of(records, accumulator=known, data="positive"):
                u = 2.0 ** -margin["accumulators"][known]
                most = math.expm1(r["terms"] * math.log1p(u * u))
                yield Check(label=f"{known}, n = {r['terms']}", estimate=square_of(r), high=most, write=as_error)
    elif name == "root":
        for known in names:
            rows = of(records, accumulator=known, data="positive")
            if len(rows) > 1:
                slope = log_slope([r["terms"] for r in rows], [square_of(r) for r in rows])
                half = Estimate(slope.value / 2, slope.error / 2, slope.freedom)
                yield Check(label=known, estimate=half, low=margin["slope"][0], high=margin["slope"][1])
    elif name in ("stagnates", "few-bits"):
        for known in names:
            r = of(records, accumulator=known, data="positive")[-1]
            yield Check(label=f"{known}, n = {r['terms']}", estimate=bias_of(r), high=-margin["bias"], write=in_percent)
    elif name == "remedies":
        for known in names:
            for data in ("positive", "signed"):
                for r in of(records, accumulator=known, data=data)[-1:]:
                    label = f"{known}, n = {r['terms']}, {data}"
                    yield Check(label=label, estimate=square_of(r), high=margin["error"] ** 2, write=as_error)
    elif len(names) == 2:
        for data in ("positive", "signed"):
            several = [of(records, accumulator=known, data=data)[-1:] for known in names]
            if all(several) and several[1][0]["square.value"]:
                ratio = quotient(square_of(several[0][0]), square_of(several[1][0]))
                label = f"squared error, n = {several[0][0]['terms']}, {data}"
                yield Check(label=label, estimate=ratio, low=margin["ratio"] ** 2)


WORDS: Mapping[str, tuple[str, str, str]] = {
    "unbiased": (
        "Stochastic rounding of every partial sum leaves the sum unbiased.",
        "E SR(x) = x for D <= N discarded bits, and every partial sum is rounded given those before (martingale)",
        "|mean error| at most {bias:.1%} of the sum of magnitudes",
    ),
    "bound": (
        "The error of stochastic rounding stays below its bound.",
        "E (SR(x) - x)^2 <= u^2 x^2 (proofs/sr_relative_error.py): relative variance at most (1 + u^2)^n - 1 of positive terms",
        "mean square error at most (1 + u^2)^n - 1, u = 2^-p",
    ),
    "root": (
        "The error of stochastic rounding grows as the root of n.",
        "independent errors of like size add in their squares",
        "slope of log error against log n in {slope}",
    ),
    "stagnates": (
        "Rounding to nearest loses most of a long sum of positive terms.",
        "a term below half an interval of the sum is lost (proofs/nearest_stagnation.py)",
        "mean error at the largest n at least {bias:.0%}, downward",
    ),
    "few-bits": (
        "Few random bits lose terms as well.",
        "a term below 2^-N of an interval never goes up (proofs/sr_up_words.py)",
        "mean error at the largest n at least {bias:.0%}, downward",
    ),
    "enough-bits": (
        "Sixteen random bits are enough.",
        "the bias of a step is below 2^-16 of an interval",
        "|mean error| at most {bias:.1%} of the sum of magnitudes",
    ),
    "remedies": (
        "Compensation, pairs and groups in float32 keep sums in bfloat16 small in error.",
        "Higham, Accuracy and Stability of Numerical Algorithms, 4.2 and 4.3",
        "root mean square error at the largest n at most {error:.0%}",
    ),
    "alignment": (
        "Thirteen alignment bits, as on Hopper with FP8, cost much against twenty-five.",
        "each block loses up to a unit in the last aligned place, downward, and there are n / 32 blocks",
        "error with 13 bits over that with 25 at the largest n at least {ratio:g}",
    ),
    "promotion": (
        "Promotion of every 128 terms to float32 mends part of it.",
        "the outer sum does not lose what is aligned away within blocks",
        "error without promotion over that with it at the largest n at least {ratio:g}",
    ),
}  # fmt: skip
"""Statement, theorem and margin of each claim."""


def decide(plan: Plan, records: Sequence[Record]) -> list[Claim]:
    """Return the claims with their verdicts."""
    sound = [r for r in records if not r["fault"]]
    work = [(name, "", list(checks_of(name, sound, margin))) for name, margin in plan.margins.items()]
    for fault, names in plan.faults.items():
        faulty = [r for r in records if r["fault"] == fault]
        work += [(name, fault, list(checks_of(name, faulty, plan.margins[name]))) for name in names]
    family = Family(plan.rate, max(1, sum(len(checks) for _, _, checks in work)))
    found = []
    for name, fault, checks in work:
        statement, theorem, words = WORDS[name]
        margin = plan.margins[name]
        found.append(claim_of(
            judged_by(checks, family), family, id=f"{name}--either-neighbour" if fault else name, fault=bool(fault),
            statement=f"Planted fault, {fault}: {statement[0].lower()}{statement[1:]}" if fault else statement,
            margin=words.format(**margin), theorem=theorem, expected=Outcome.REFUTED if fault else Outcome(margin["expected"]),
            figure="" if fault else "error", table="" if fault else "error",
        ))  # fmt: skip
    return found
