"""The answer of the study: a few lines, of which an interval of the result carries each sentence."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from qsim.formats import short_name
from qsim.measure import Family, Interval, quotient
from qsim.studies.gradient_variance.cell import ALL, estimate
from qsim.studies.gradient_variance.claims import bias, clamped, digits, families, networks_ratio, noise, pairs, slope
from qsim.studies.gradient_variance.plan import BACKWARD, PER_SAMPLE, Plan
from qsim.studies.gradient_variance.point import Point
from qsim.studies.result import Claim
from qsim.verdicts import Outcome

__all__ = ["answer"]

Record = dict[str, Any]


def answer(records: Sequence[Record], plan: Plan, at: Point, claims: Sequence[Claim], family: Family) -> str:
    """Answer the question: a line each on noise, bias, the price of a bit and networks, of the claims that held."""
    held = {c.id for c in claims if c.outcome is Outcome.HELD}
    one = [r for r in records if not r["network"]]
    lines = [
        _noise(one, plan, held),
        _bias(one, plan, held, family),
        [*_bits(one, plan, held), *_price(one, at, held, family)],
        _networks([r for r in records if r["network"]], plan, at, held),
    ]
    said = [" ".join(sentences) for sentences in lines]
    if any(said):
        return "\n".join(filter(None, said))
    sound = [c for c in claims if not c.fault]
    if not sound:
        return "This study makes no claims; figures and tables show what was measured."
    if any(c.outcome is Outcome.REFUTED for c in sound):
        return "No claim of this run is held, and some are refuted; the verdicts below say which."
    return "This run decides no claim; the verdicts below say what is open."


def _noise(records: Sequence[Record], plan: Plan, held: set[str]) -> Iterable[str]:
    if "one-over-b" in held:
        margin = plan.margins["one-over-b"]
        found = [
            slope(group).value
            for _, group in families(records, PER_SAMPLE, mode="SR")
            if group[0]["arm"] in margin["arms"] and len(group) > 1
        ]
        yield (
            "Noise of bwd_act and bwd_grad, drawn anew for each sample, falls as 1/b "
            f"(slopes {min(found):.3f} to {max(found):.3f}, of formats that share their batches)."
        )
    if "variance-exact" in held:
        yield "Where the variance theorem (A-T1) is exact, its size is as predicted from the tensors."
    if "weight-floor" in held:
        yield "Noise of fwd_weight and bwd_weight is shared by the samples and does not average away."
    if "weight-exact" in held:
        yield "Where the theorem on shared weights (A-T2) is exact, the noise of bwd_weight is as predicted."
    if "absmax-slope" in held:
        yield "With an abs-max scale re-derived from each batch, noise falls more slowly than 1/b."


def _bias(records: Sequence[Record], plan: Plan, held: set[str], family: Family) -> Iterable[str]:
    if "sr-unbiased" in held:
        yield (
            "Stochastic rounding at one backward point leaves the gradient unbiased as long as nothing clamps "
            f"(|bias| at most {plan.margins['sr-unbiased']['bias']:.0%} of |g|)."
        )
    if "pass-unbiased" in held:
        formats = plan.margins["pass-unbiased"]["formats"]
        groups = [g for _, g in families(records, (BACKWARD,), mode="SR", scale="frozen") if g[0]["format"] in formats]
        begins = (
            "So does that of" if "sr-unbiased" in held else "The gradient stays unbiased under stochastic rounding of"
        )
        yield (
            f"{begins} the whole backward pass, at most {plan.margins['pass-unbiased']['bias']:.0%}, in "
            f"{_named(formats)}, of whose elements at most {100 * max(map(clamped, groups)):.2g} % clamp."
        )
    if "clamped-biased" in held:
        formats = plan.margins["clamped-biased"]["formats"]
        for _, group in families(records, (BACKWARD,), mode="SR", scale="frozen"):
            if group[0]["format"] in formats:
                yield (
                    f"In {short_name(group[0]['format'])} {100 * clamped(group):.2g} % clamp, and the bias of that pass is "
                    f"{_percent(family.interval(bias(group)))} of |g|."
                )
    if "all-biased" in held:
        largest = _all(records, "SR", family)
        yield f"All five points rounded stochastically bias the gradient, through the forward pass: {largest}."
    if "nearest-biased" in held:
        formats = plan.margins["nearest-biased"]["formats"]
        found = [
            (family.interval(bias(g)), g[0]["format"], g[0]["points"])
            for _, g in families(records, ("bwd_act", "bwd_grad", BACKWARD), mode="RNE")
            if g[0]["format"] in formats
        ]
        worst, name, points = max(found, key=lambda entry: entry[0].value)
        all_points = _all(records, "RNE", family)
        yield (
            f"Rounding the same backward tensors to nearest is biased, up to {_percent(worst)} ({short_name(name)}, {points})"
            + (f"; all five points: {all_points}." if all_points else ".")
        )


def _bits(records: Sequence[Record], plan: Plan, held: set[str]) -> Iterable[str]:
    if "bit-noise" in held:
        yield "The noise of one bit, at the last layer, is as the variance theorem (A-T1) says."
    words = {
        "bit-dense": "{} times in dense cells",
        "bit-underflow": "{} below one step",
        "bit-coarse": "{} with integers whose step is abs-max / (2^(k-1) - 1)",
        "bit-full-range": "{} with the step abs-max / 2^(k-1)",
    }
    found = [text.format(_ratios(records, plan.margins[name])) for name, text in words.items() if name in held]
    if found:
        yield f"One bit fewer makes it grow {', '.join(found)}."


def _price(records: Sequence[Record], at: Point, held: set[str], family: Family) -> Iterable[str]:
    """State the price for a whole network, in the papers' q^2 and sigma^2, where the noise of a batch of one was measured."""
    found = [
        (family.interval(estimate(g[0], f"{ALL}.variance")).scaled(1 / g[0]["whole.gradient_squared"]), g[0]["format"])
        for _, g in families(records, ("bwd_grad",), mode="SR", scale="frozen")
        if g[0]["batch"] == 1
    ]
    if found and "bit-noise" in held:
        most, name = max(found, key=lambda entry: entry[0].value)
        sigma2 = sum(at.sampling_variance(layer) for layer in at.layers) / sum(
            float((at.gradient(layer) ** 2).sum()) for layer in at.layers
        )
        yield (
            f"Over the whole network, bwd_grad has q² = {most} |g|² ({short_name(name)}), where sampling has σ² = "
            f"{sigma2:.4g} |g|²."
        )


def _networks(records: Sequence[Record], plan: Plan, at: Point, held: set[str]) -> Iterable[str]:
    networks = len({r["network"] for r in records})
    words = []
    if "networks-nearest-biased" in held:
        margin = plan.margins["networks-nearest-biased"]
        sizes = [
            100 * math.sqrt(max(0.0, bias(group).value))
            for _, group in families(records, ("bwd_act", "bwd_grad", BACKWARD), mode="RNE")
            if group[0]["format"] in margin["formats"]
        ]
        words.append(
            f"RNE at bwd_grad has a bias of {digits(min(sizes))} to {digits(max(sizes))} % ({_named(margin['formats'])})"
        )
    for name, text in (("networks-bit-dense", "dense cells"), ("networks-bit-coarse", "coarse integers")):
        if name in held:
            found = [check.estimate.value for check in networks_ratio(records, at, plan.margins[name])]
            words.append(f"one bit fewer makes noise grow {min(found):.2f} to {max(found):.2f} times ({text})")
    if words:
        yield f"Over {networks} networks {'; '.join(words)}."


def _all(records: Sequence[Record], mode: str, family: Family) -> str:
    """Return the bias with all five points rounded, by format, the largest first."""
    found = [
        (family.interval(bias(group)), short_name(group[0]["format"]))
        for _, group in families(records, (ALL,), mode=mode, scale="frozen")
    ]
    found.sort(key=lambda entry: -entry[0].value)
    return ", ".join(f"{_percent(interval)} ({name})" for interval, name in found[:2])


def _percent(squared: Interval) -> str:
    """Return |bias| in percent, with its interval, of that of |bias|^2 / |g|^2."""
    value, low, high = (100 * math.sqrt(max(0.0, end)) for end in (squared.value, squared.low, squared.high))
    return f"{digits(value)} % [{digits(low)}, {digits(high)}]"


def _ratios(records: Sequence[Record], margin: Mapping[str, Any]) -> str:
    found = [quotient(noise(fewer), noise(more)).value for _, fewer, more in pairs(records, margin)]
    return f"{min(found):.2f} to {max(found):.2f}" if len(found) > 1 else f"{found[0]:.2f}"


def _named(formats: Iterable[str]) -> str:
    return ", ".join(map(short_name, formats))
