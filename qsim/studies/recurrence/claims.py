"""The claims of the study: which numbers each rests on, and its verdict."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from qsim.formats import get_format, short_name
from qsim.measure import Estimate, Family, Interval
from qsim.studies.claims import Check, claim_of, judged_by
from qsim.studies.recurrence.cell import ROUNDS
from qsim.studies.recurrence.plan import Plan
from qsim.studies.result import Claim
from qsim.verdicts import Outcome

__all__ = ["decide", "sound"]

Record = dict[str, Any]


def sound(records: Sequence[Record], **where: Any) -> list[Record]:
    """Return the records without a fault that have these fields."""
    return [r for r in records if not r["fault"] and all(r[name] == value for name, value in where.items())]


def label_of(record: Record) -> str:
    """Return the words that tell a record from others."""
    more = f", {record['rounds']} rounds" if record["rounds"] != ROUNDS else ""
    return f"{short_name(record['format'])} {record['mode']}, a = 1 - 2^-{record['decay']}, {record['input']}{more}"


def deviate(interval: Interval) -> str:
    """Write a normal deviate."""
    return (
        f"chi-square {interval.value:+.2f} standard deviations from its mean, up to {interval.half_width:.2f} allowed"
    )


def percentage(interval: Interval) -> str:
    """Write a drift."""
    return f"drift of {100 * interval.value:.3g} %, exact over all words"


def fits(records: Sequence[Record]) -> Iterator[Check]:
    """Check that the chains of each cell have the exact distribution."""
    for r in records:
        yield Check(label=label_of(r), estimate=Estimate(r["fit.z"], 1.0), equal=0.0, write=deviate)


def drifts(records: Sequence[Record], low: float, high: float) -> Iterator[Check]:
    """Check the size of the drift, which is exact."""
    for r in records:
        estimate = Estimate(abs(r["exact.drift"]), 0.0)
        yield Check(label=label_of(r), estimate=estimate, low=low, high=high, write=percentage)


def with_bits(plan: Plan, records: Sequence[Record], margin: Mapping[str, Any]) -> list[Record]:
    """Return the charges at the longest memory with the random bits that a margin names for each format."""
    bits = {get_format(name).name: f"SRA({n})" for name, n in margin["formats"].items()}
    charges = sound(records, decay=plan.longest, input="charge", rounds=ROUNDS)
    return [r for r in charges if bits.get(r["format"]) == r["mode"]]


def checks_of(name: str, plan: Plan, records: Sequence[Record], margin: Mapping[str, Any]) -> list[Check]:
    """Return the checks that a claim rests on."""
    if name == "distribution":
        return list(fits(sound(records, rounds=ROUNDS)))
    if name == "rounds":
        return list(fits([r for r in sound(records) if r["rounds"] != ROUNDS]))
    if name == "sr":
        return list(drifts(sound(records, mode="SR", rounds=ROUNDS), 0.0, margin["drift"]))
    if name == "bits":
        return list(drifts(with_bits(plan, records, margin), 0.0, margin["drift"]))
    if name == "fewer-bits":
        return list(drifts(with_bits(plan, records, margin), margin["drift"], math.inf))
    names = [get_format(fmt).name for fmt in margin["formats"]]
    these = [r for r in sound(records, mode="RNE", decay=plan.longest, input="charge") if r["format"] in names]
    return list(drifts(these, margin["drift"], math.inf))


WORDS: Mapping[str, tuple[str, str, str]] = {
    "distribution": (
        "The states that qsim's kernels reach by Philox words have the exact distribution over all random words.",
        "independent words make the state a Markov chain, whose distribution is computed without sampling",
        "chi-square over the states after the last step: every deviate is inside the simultaneous interval around 0",
    ),
    "rounds": (
        "With 5 and 7 rounds of Philox in place of 10 the states have that distribution too.",
        "as above; fewer rounds are no standard generator, and the test sees the state alone",
        "the same test",
    ),
    "sr": (
        "Stochastic rounding with 32 random bits does not drift, the sum being computed in float32.",
        "E SR(y) = y for D <= N discarded bits, and the recurrence is linear, so that the mean is the unrounded state",
        "|E h - h unrounded| at most {drift:.0e} of the unrounded state",
    ),
    "nearest": (
        "Rounding to nearest drifts where a token changes the state by less than half an interval.",
        "|u| <= half the interval is lost (proofs/nearest_stagnation.py)",
        "drift of a charge at the longest memory at least {drift:.0%}, for {formats}",
    ),
    "nearest-float16": (
        "Rounding to nearest drifts in float16 as well, at a memory of a thousand tokens.",
        "as above: at 0.7 half an interval of float16 is 2^-12, and a token changes the state by (0.7 - h) 2^-10",
        "drift of a charge at the longest memory at least {drift:.0%}, for {formats}",
    ),
    "bits": (
        "The random bits that were guessed keep the drift small.",
        "one rounding has a bias in (-2^-N, 0] of an interval (proofs/sr_up_words.py), which adds up over 1 / (1 - a) tokens",
        "drift of a charge at the longest memory at most {drift:.0%}, for {formats}",
    ),
    "fewer-bits": (
        "With two random bits fewer the drift is larger.",
        "as above, four times the bias",
        "drift of a charge at the longest memory at least {drift:.0%}, for {formats}",
    ),
}
"""Statement, theorem and margin of each claim."""


def written(margin: Mapping[str, Any], words: str) -> str:
    """Return a margin in words."""
    formats = margin.get("formats", ())
    names = (
        ", ".join(f"{short_name(fmt)} with {n}" for fmt, n in formats.items())
        if isinstance(formats, dict)
        else ", ".join(map(short_name, formats))
    )
    return words.format(drift=margin.get("drift", 0.0), formats=names)


def decide(plan: Plan, records: Sequence[Record]) -> list[Claim]:
    """Return the claims with their verdicts."""
    work: list[tuple[str, str, list[Check]]] = []
    for name, margin in plan.margins.items():
        work.append((name, "", checks_of(name, plan, records, margin)))
    for fault, names in plan.faults.items():
        faulty = [r for r in records if r["fault"] == fault]
        work += [(name, fault, list(fits(faulty))) for name in names]
    family = Family(plan.rate, max(1, sum(len(checks) for _, _, checks in work)))
    found = []
    for name, fault, checks in work:
        statement, theorem, words = WORDS[name]
        expected = Outcome.REFUTED if fault else Outcome(plan.margins[name]["expected"])
        found.append(claim_of(
            judged_by(checks, family), family, id=f"{name}--{fault.replace(' ', '-')}" if fault else name, fault=bool(fault),
            statement=f"Planted fault, {fault}: {statement[0].lower()}{statement[1:]}" if fault else statement,
            margin=written(plan.margins[name], words), theorem=theorem, expected=expected,
            figure="" if fault else {"bits": "bits", "distribution": "spread"}.get(name, ""),
            table="" if fault or name in ("distribution", "rounds") else "drift",
        ))  # fmt: skip
    return found
