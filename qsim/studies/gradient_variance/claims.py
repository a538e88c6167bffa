"""The claims of the study: the numbers that each rests on, and its verdict.

Every claim is a list of `Check`s, each one number with its error and its margin. The false-alarm rate is split over all
checks of the report, planted faults included, before any is judged.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from qsim.formats import short_name
from qsim.measure import Estimate, Family, Interval, floor_fit, log_slope, pool, quotient
from qsim.studies.claims import Check, Judged, claim_of, judged_by
from qsim.studies.gradient_variance.cell import ALL, estimate, predicted_noise
from qsim.studies.gradient_variance.plan import BACKWARD, BOTH, FAULT, NETWORKS, PER_SAMPLE, Plan, compared
from qsim.studies.gradient_variance.point import Point
from qsim.studies.result import Claim
from qsim.verdicts import Outcome

__all__ = [
    "Check", "Judged", "bias", "clamped", "decide", "digits", "families", "networks_ratio", "noise", "noisy", "predicted_noise",
    "series", "slope",
]  # fmt: skip

Record = dict[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Statement:
    """Hold the words of a claim and the function that finds its checks."""

    statement: str
    theorem: str
    margin: Callable[[Mapping[str, Any]], str]
    checks: Callable[[Sequence[Record], Point, Mapping[str, Any]], Iterable[Check]]
    figure: str = ""
    table: str = ""


# --- Reading the records -------------------------------------------------------------------------------------


def series(records: Iterable[Record], **where: Any) -> list[Record]:
    """Return the records with these fields, by batch size."""
    chosen = [r for r in records if all(r[name] == value for name, value in where.items())]
    return sorted(chosen, key=lambda r: r["batch"])


def noisy(record: Record) -> bool:
    """Return whether a rounding shows in the numbers of a cell: one to float64 does not, and leaves no error to judge by."""
    names = [name for name in (f"{ALL}.variance", f"{ALL}.bias_squared") if name in record]
    return all(record[f"{name}.error"] > 0 for name in names)


def families(records: Iterable[Record], points: Iterable[str], **where: Any) -> Iterator[tuple[str, list[Record]]]:
    """Return, for each arm, format and point set of `points`, a label and its records by batch size."""
    groups: dict[tuple[str, ...], list[Record]] = {}
    for r in series(records, **where):
        groups.setdefault((r["arm"], r["format"], r["mode"], r["points"], r["fault"], r["network"]), []).append(r)
    for (_, name, mode, point, _, network), group in groups.items():
        if point in points:
            yield f"{short_name(name)} {mode}, {point}" + (f", {network}" if network else ""), group


def noise(group: Sequence[Record], part: str = ALL) -> Estimate:
    """Return q^2, the variance of one sample's gradient, pooled over batch sizes: the mean of b Var(g | batch)."""
    scaled = []
    for r in group:
        e = estimate(r, f"{part}.variance")
        scaled.append(Estimate(r["batch"] * e.value, r["batch"] * e.error, e.freedom))
    return pool(scaled)


@functools.lru_cache(maxsize=4)
def gradient_norm(at: Point) -> float:
    """Return |g|, the norm of the whole set's gradient, all weights."""
    return math.sqrt(sum(float((at.gradient(layer) ** 2).sum()) for layer in at.layers))


# --- The claims ----------------------------------------------------------------------------------------------


def exact_variance(records: Sequence[Record], at: Point, margin: Mapping[str, Any]) -> Iterator[Check]:
    """Check measured / A-T1 in every cell and layer where A-T1 is exact."""
    for r in records:
        for layer in at.layers:
            if f"{layer}.ratio" in r and r["points"] != "bwd_weight":
                label = f"{label_of(r)}, {layer}"
                yield Check(label=label, estimate=estimate(r, f"{layer}.ratio"), equal=1, reach=margin["half_width"])


def one_over_b(records: Sequence[Record], _: Point, margin: Mapping[str, Any]) -> Iterator[Check]:
    """Check the slope of log variance against log batch, for roundings drawn anew for each sample."""
    for label, group in families(records, PER_SAMPLE, mode="SR"):
        if group[0]["arm"] in (*margin["arms"], FAULT) and len(group) > 1:
            yield Check(label=label, estimate=slope(group), low=margin["slope"][0], high=margin["slope"][1])


def slope(group: Sequence[Record]) -> Estimate:
    """Return the slope of log Var(g | batch), all weights, against log b."""
    return log_slope([r["batch"] for r in group], [estimate(r, f"{ALL}.variance") for r in group])


def weight_floor(records: Sequence[Record], _: Point, margin: Mapping[str, Any]) -> Iterator[Check]:
    """Check the share of the variance at the largest batch that a fit F + C / b leaves for b without end."""
    for label, group in families(records, ("fwd_weight", "bwd_weight"), mode="SR"):
        if len(group) < 3:
            continue  # two numbers and no more are fitted by any F and C
        floor, slope_part = floor_fit([r["batch"] for r in group], [estimate(r, f"{ALL}.variance") for r in group])
        largest = floor.value + slope_part.value / group[-1]["batch"]
        share = Estimate(floor.value / largest, floor.error / largest, floor.freedom)
        yield Check(label=label, estimate=share, low=margin["share"])


def weight_exact(records: Sequence[Record], at: Point, margin: Mapping[str, Any]) -> Iterator[Check]:
    """Check measured / A-T2 where shared backward weights are the only roundings, at the layer below the last."""
    for r in records if len(at.layers) > 1 else ():
        name = f"{at.layers[-2]}.ratio"
        if r["points"] == "bwd_weight" and name in r:
            yield Check(label=label_of(r), estimate=estimate(r, name), equal=1, reach=margin["half_width"])


def sr_unbiased(records: Sequence[Record], _: Point, margin: Mapping[str, Any]) -> Iterator[Check]:
    """Check |bias|^2 / |g|^2 of stochastic backward roundings, pooled over batch sizes, on which it does not depend."""
    points = ("bwd_act", "bwd_weight", "bwd_grad", "bwd_act+bwd_grad")
    for label, group in families(records, points, mode="SR", scale="frozen"):
        yield at_most(label, group, margin)


def pass_unbiased(records: Sequence[Record], _: Point, margin: Mapping[str, Any]) -> Iterator[Check]:
    """Check |bias|^2 / |g|^2 of the whole backward pass under SR, in the formats that the margin names."""
    for label, group in families(records, (BACKWARD,), mode="SR", scale="frozen"):
        if group[0]["format"] in margin["formats"]:
            yield at_most(label, group, margin)


def clamped_biased(records: Sequence[Record], _: Point, margin: Mapping[str, Any]) -> Iterator[Check]:
    """Check that the whole backward pass under SR is biased in the formats that the margin names, whose errors clamp."""
    for label, group in families(records, (BACKWARD,), mode="SR", scale="frozen"):
        if group[0]["format"] in margin["formats"]:
            yield at_least(label, group, margin)


def all_biased(records: Sequence[Record], _: Point, margin: Mapping[str, Any]) -> Iterator[Check]:
    """Check that SR at all five points is biased, in the formats that the margin names."""
    for label, group in families(records, (ALL,), mode="SR", scale="frozen"):
        if group[0]["format"] in margin["formats"]:
            yield at_least(label, group, margin)


def nearest_biased(records: Sequence[Record], _: Point, margin: Mapping[str, Any]) -> Iterator[Check]:
    """Check that |bias|^2 / |g|^2 of nearest backward roundings exceeds the margin, for the formats it names.

    In every network, if the arm has several.
    """
    for label, group in families(records, ("bwd_act", "bwd_grad", BACKWARD), mode="RNE"):
        if group[0]["format"] in margin["formats"]:
            yield at_least(label, group, margin)


def at_most(label: str, group: Sequence[Record], margin: Mapping[str, Any]) -> Check:
    """Return the check that a bias is at most the margin."""
    label = f"{label}, {clamped(group):.2g} clamped"
    return Check(label=label, estimate=bias(group), high=margin["bias"] ** 2, write=as_bias)


def at_least(label: str, group: Sequence[Record], margin: Mapping[str, Any]) -> Check:
    """Return the check that a bias is at least the margin."""
    label = f"{label}, {clamped(group):.2g} clamped"
    return Check(label=label, estimate=bias(group), low=margin["bias"] ** 2, write=as_bias)


def clamped(group: Sequence[Record]) -> float:
    """Return which share of the rounded elements was clamped: one beyond the range, whose rounding is biased in any mode."""
    saturated, elements = (sum(int(r[f"count.{name}"]) for r in group) for name in ("saturated", "elements"))
    return saturated / max(elements, 1)


def bias(group: Sequence[Record]) -> Estimate:
    """Return |E g - g|^2 / |g|^2, pooled over batch sizes; g has all weights, also where the last layer alone rounds."""
    norm = group[0]["whole.gradient_squared"]
    pooled = pool([estimate(r, f"{ALL}.bias_squared") for r in group])
    return Estimate(pooled.value / norm, pooled.error / norm, pooled.freedom)


def as_bias(interval: Interval) -> str:
    """Write an interval of |bias|^2 / |g|^2 as one of |bias| in percent of |g|."""
    low, high = (100 * math.sqrt(max(0.0, end)) for end in (interval.low, interval.high))
    return f"|bias| between {digits(low)} % and {digits(high)} % of |g|"


def digits(percent: float) -> str:
    """Write a percentage with two digits, or all those before the point."""
    return f"{percent:.0f}" if percent >= 10 else f"{percent:.2g}"


def bit_noise(records: Sequence[Record], at: Point, margin: Mapping[str, Any]) -> Iterator[Check]:
    """Check the noise at k-1 bits over that at k bits, measured, over that of A-T1, at the last layer."""
    for label, fewer, more in pairs(records, margin):
        says = predicted_noise(at, fewer[0]) / predicted_noise(at, more[0])
        found = quotient(noise(fewer), noise(more))
        relative = Estimate(found.value / says, found.error / says, found.freedom)
        yield Check(
            label=f"{label}, {says:.4g} in theory (A-T1)", estimate=relative, equal=1, reach=margin["half_width"]
        )


def networks_ratio(records: Sequence[Record], _: Point, margin: Mapping[str, Any]) -> Iterator[Check]:
    """Check the noise at k-1 bits over that at k bits in each network.

    The noise of the whole set is that of A-T1 there, times the measured ratio to A-T1 on the batches that were drawn: in a
    trained network a few samples make most of the noise, and other batches would hold others.
    """
    for label, fewer, more in pairs(records, margin):
        measured = [pool([estimate(r, f"{ALL}.ratio") for r in group]) for group in (fewer, more)]
        found, says = quotient(*measured), fewer[0]["whole.noise"] / more[0]["whole.noise"]
        scaled = Estimate(found.value * says, found.error * says, found.freedom)
        yield Check(label=label, estimate=scaled, low=margin["ratio"][0], high=margin["ratio"][1])


def bit_ratio(records: Sequence[Record], _: Point, margin: Mapping[str, Any]) -> Iterator[Check]:
    """Check the noise at k-1 bits over that at k bits."""
    for label, fewer, more in pairs(records, margin):
        estimated = quotient(noise(fewer), noise(more))
        yield Check(label=label, estimate=estimated, low=margin["ratio"][0], high=margin["ratio"][1])


def pairs(records: Sequence[Record], margin: Mapping[str, Any]) -> Iterator[tuple[str, list[Record], list[Record]]]:
    """Return, for each pair of the margin, a label and the last layer's records at k-1 and at k bits."""
    for arm, more, fewer in margin["pairs"]:
        mine = series(records, arm=arm, points=compared(arm), mode="SR")
        for network in dict.fromkeys(r["network"] for r in mine):
            groups = [series(mine, format=name, network=network) for name in (fewer, more)]
            words = f", {network}" if network else ""
            if all(groups):
                yield f"{short_name(more)} to {short_name(fewer)} ({arm}{words})", groups[0], groups[1]


def absmax_slope(records: Sequence[Record], _: Point, margin: Mapping[str, Any]) -> Iterator[Check]:
    """Check the slope where the scale is re-derived from each batch."""
    for label, group in families(records, (BOTH,), mode="SR", scale="absmax"):
        if len(group) < 2:
            continue
        yield Check(label=label, estimate=slope(group), low=margin["slope"][0], high=margin["slope"][1])


def label_of(record: Record) -> str:
    """Return the words that tell a record from others."""
    fault = "".join(f", {record[name]}" for name in ("network", "fault") if record[name])
    rounding = f"{short_name(record['format'])} {record['mode']}"
    return f"{rounding}, {record['points']}, b = {record['batch']} ({record['arm']}{fault})"


def named(formats: Iterable[str]) -> str:
    """Return the formats of a margin, by the names that stand in tables and figures."""
    return ", ".join(map(short_name, formats))


def in_ratio(margin: Mapping[str, Any]) -> str:
    """Return the margin of a ratio of noises in words."""
    return f"noise at k-1 bits over noise at k bits in [{margin['ratio'][0]}, {margin['ratio'][1]}]"


STATEMENTS: Mapping[str, Statement] = {
    "variance-exact": Statement(
        statement="Where the variance theorem (A-T1) is exact, the measured variance is the predicted one, in every cell.",
        theorem="A-T1, exact variance of a weight gradient under independent stochastic rounding "
        "(proofs/at1_weight_gradient_variance.py)",
        margin=lambda m: f"measured / theory: every interval contains 1 and is within ± {m['half_width']:.0%}",
        checks=exact_variance,
        figure="variance",
        table="exact",
    ),
    "one-over-b": Statement(
        statement="Noise drawn anew for each sample falls as 1/b.",
        theorem="A-T1: Var(g | batch) = (1/b^2) sum of q_s^2 over the samples",
        margin=lambda m: f"slope of log variance against log b in [{m['slope'][0]}, {m['slope'][1]}]",
        checks=one_over_b,
        figure="variance",
        table="slopes",
    ),
    "weight-floor": Statement(
        statement="Noise of weights, drawn once and shared by the samples, has a floor that no batch averages away.",
        theorem="A-T2: Var(g) = Var(E[g | weights]) + (1/b) E Var(g_s | weights), the first term free of b",
        margin=lambda m: (
            f"the floor F of a fit F + C/b is at least {m['share']:.0%} of the variance at the largest batch"
        ),
        checks=weight_floor,
        figure="weights",
        table="slopes",
    ),
    "weight-exact": Statement(
        statement="Where the theorem on shared weights (A-T2) is exact (backward weights alone, the layer below the "
        "last), the measured variance is the predicted one.",
        theorem="A-T2: sum over i, j of v(w_ij) |M_ij|^2, M the mean over the batch of delta_i mask_j x",
        margin=lambda m: f"measured / theory: every interval contains 1 and is within ± {m['half_width']:.0%}",
        checks=weight_exact,
        figure="weights",
    ),
    "sr-unbiased": Statement(
        statement="Stochastic rounding at one backward point, or at bwd_act and bwd_grad, leaves the gradient unbiased as long "
        "as nothing clamps.",
        theorem="E SR(x) = x for x in the range (proofs/stochastic_rounding_moments.py), and the backward pass is linear in "
        "each rounded operand",
        margin=lambda m: f"|bias| at most {m['bias']:.0%} of |g|, the norm of all layers' gradient",
        checks=sr_unbiased,
        figure="bias",
        table="bias",
    ),
    "pass-unbiased": Statement(
        statement="A backward pass stochastically rounded at all three of its points is unbiased as long as nothing clamps.",
        theorem="E SR(x) = x for x in the range, drawn anew at each point; frozen scales are those of unrounded tensors, so "
        "that a rounded error can leave the range",
        margin=lambda m: (
            f"|bias| at most {m['bias']:.0%} of |g|, for {named(m['formats'])}; the clamped share is in each label"
        ),
        checks=pass_unbiased,
        figure="bias",
        table="bias",
    ),
    "clamped-biased": Statement(
        statement="Where rounded errors clamp, a stochastically rounded backward pass is biased.",
        theorem="beyond the range the result is the largest value, whatever the word; no theorem predicts the size",
        margin=lambda m: f"|bias| at least {m['bias']:.0%} of |g|, for {named(m['formats'])}",
        checks=clamped_biased,
        figure="bias",
        table="bias",
    ),
    "all-biased": Statement(
        statement="Stochastic rounding at all five points is biased: the loss is not linear in what the forward pass rounds.",
        theorem="E f(SR(x)) is not f(x) for a nonlinear f; no theorem predicts the size",
        margin=lambda m: f"|bias| at least {m['bias']:.1%} of |g|, for {named(m['formats'])}",
        checks=all_biased,
        figure="bias",
        table="bias",
    ),
    "nearest-biased": Statement(
        statement="Rounding the same tensors to nearest is biased, in the formats of few bits.",
        theorem="a deterministic error does not average out; no theorem predicts its size",
        margin=lambda m: f"|bias| at least {m['bias']:.0%} of |g|, for {named(m['formats'])}",
        checks=nearest_biased,
        figure="bias",
        table="bias",
    ),
    "bit-noise": Statement(
        statement="The noise of one bit is as the variance theorem (A-T1) says.",
        theorem="the variance theorem (A-T1): q^2 on the actual tensors of the last layer, at k-1 and at k bits; "
        "nothing is trained, and the batch that A-T4 derives from it, b'/b = "
        "(sigma^2 + q^2 at k-1 bits) / (sigma^2 + q^2 at k bits), is no measurement",
        margin=lambda m: (
            f"measured noise ratio over that of theory (A-T1): every interval contains 1 and is within ± {m['half_width']:.0%}"
        ),
        checks=bit_noise,
        figure="bits",
        table="bits",
    ),
    "bit-dense": Statement(
        statement="Where the steps are dense, one mantissa bit fewer makes the noise 4 times as large, in this network.",
        theorem="v scales with the square of the step on the average over a cell (A-T4)",
        margin=in_ratio,
        checks=bit_ratio,
        figure="bits",
        table="bits",
    ),
    "bit-underflow": Statement(
        statement="Below one step, one bit fewer makes the noise only about twice as large.",
        theorem="v(x) = x (step - x), which is near x step for x far below the step",
        margin=in_ratio,
        checks=bit_ratio,
        figure="bits",
        table="bits",
    ),
    "bit-coarse": Statement(
        statement="With integers of few bits and the step abs-max / (2^(k-1) - 1), one bit fewer makes the noise more than 4 "
        "times as large.",
        theorem="that step more than doubles, as 7, 3 and 1 steps reach the abs-max, and the cross term v(x) v(delta) counts",
        margin=in_ratio,
        checks=bit_ratio,
        figure="bits",
        table="bits",
    ),
    "bit-full-range": Statement(
        statement="With the same integers and the step abs-max / 2^(k-1), one bit fewer makes the noise 4 times as large.",
        theorem="that step doubles; the largest values of one sign clamp",
        margin=in_ratio,
        checks=bit_ratio,
        figure="bits",
        table="bits",
    ),
    "networks-nearest-biased": Statement(
        statement="Rounding bwd_grad to nearest is biased in every network of the grid, in the formats of few bits.",
        theorem="a deterministic error does not average out; no theorem predicts its size",
        margin=lambda m: f"|bias| at least {m['bias']:.0%} of that network's |g|, for {named(m['formats'])}",
        checks=nearest_biased,
        table="networks",
    ),
    "networks-bit-dense": Statement(
        statement="One mantissa bit fewer makes the noise about 4 times as large in every network of the grid.",
        theorem="v scales with the square of the step on the average over a cell (A-T4); how far a network's tensors are from "
        "that average, no theorem says",
        margin=in_ratio,
        checks=networks_ratio,
        table="networks",
    ),
    "networks-bit-coarse": Statement(
        statement="With integers of few bits and the step abs-max / (2^(k-1) - 1), one bit fewer makes the noise more than 4 "
        "times as large in every network of the grid.",
        theorem="that step more than doubles, as 7, 3 and 1 steps reach the abs-max, and the cross term v(x) v(delta) counts",
        margin=in_ratio,
        checks=networks_ratio,
        table="networks",
    ),
    "absmax-slope": Statement(
        statement="With an abs-max scale re-derived from each batch the noise falls more slowly than 1/b.",
        theorem="the variance theorem (A-T1) with each batch's own step, which grows with the batch's maximum",
        margin=lambda m: f"slope of log variance against log b in [{m['slope'][0]}, {m['slope'][1]}]",
        checks=absmax_slope,
        figure="absmax",
        table="slopes",
    ),
}


def decide(plan: Plan, records: Sequence[Record], at: Point) -> tuple[list[Claim], dict[str, list[Judged]], Family]:
    """Return the claims with their outcomes, the checks behind each, and the family of all intervals."""
    records = [r for r in records if noisy(r)]
    sound = [r for r in records if not r["fault"]]
    one, several = ([r for r in sound if bool(r["network"]) == those] for those in (False, True))
    work: dict[str, tuple[str, str, list[Check]]] = {}
    for name, margin in plan.margins.items():
        these = several if name.startswith(NETWORKS) else one
        work[name] = (name, "", list(STATEMENTS[name].checks(these, at, margin)))
    for fault, names in plan.faults.items():
        faulty = series(records, fault=fault)
        for name in names:
            work[f"{name}, {fault}"] = (name, fault, list(STATEMENTS[name].checks(faulty, at, plan.margins[name])))
    family = Family(plan.rate, max(1, sum(len(checks) for _, _, checks in work.values())))
    judged: dict[str, list[Judged]] = {}
    claims = []
    for key, (name, fault, checks) in work.items():
        judged[key] = judged_by(checks, family)
        claims.append(_claim(key, name, fault, judged[key], plan.margins[name], family))
    return claims, judged, family


def _claim(
    key: str,
    name: str,
    fault: str,
    judged: Sequence[Judged],
    margin: Mapping[str, Any],
    family: Family,
) -> Claim:
    words = STATEMENTS[name]
    statement = (
        f"Planted fault, {fault}: {words.statement[0].lower()}{words.statement[1:]}" if fault else words.statement
    )
    return claim_of(
        judged,
        family,
        id=key.replace(", ", "--").replace(" ", "-"),
        statement=statement,
        margin=words.margin(margin),
        theorem=words.theorem,
        expected=Outcome.REFUTED if fault else Outcome.HELD,
        figure="" if fault else words.figure,
        table="" if fault else words.table,
        fault=bool(fault),
    )
