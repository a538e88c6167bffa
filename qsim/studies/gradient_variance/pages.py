"""What the study shows: the answer in a few sentences, the setup, figures as numbers, tables."""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import PurePath
from typing import Any, Literal

from qsim import theory
from qsim.autograd import POINTS
from qsim.formats import get_format, short_name
from qsim.measure import Estimate, Family, Interval, quotient
from qsim.rounding import Mode
from qsim.studies.gradient_variance.answer import answer
from qsim.studies.gradient_variance.cell import ALL, LAST, estimate
from qsim.studies.gradient_variance.claims import (
    Judged,
    bias,
    clamped,
    families,
    gradient_norm,
    label_of,
    noise,
    noisy,
    pairs,
    predicted_noise,
    series,
)
from qsim.studies.gradient_variance.columns import columns
from qsim.studies.gradient_variance.plan import BACKWARD, BOTH, NETWORKS, Plan
from qsim.studies.gradient_variance.point import ModelSpec, Point
from qsim.studies.result import Cell, Claim, Figure, Panel, Result, Series, Table
from qsim.studies.study import Study
from qsim.verdicts import Outcome

__all__ = ["result"]

Record = dict[str, Any]
BATCH = "batch size b"
NOISE = "q²/b, in |g|²"

WORDS: Mapping[str, str] = {
    "fwd_act": "forward inputs", "fwd_weight": "forward weights", "bwd_act": "backward inputs",
    "bwd_weight": "backward weights", "bwd_grad": "backward errors", ALL: "all five points",
}  # fmt: skip
"""The points of the study, each with what is rounded there."""

TERMS = (
    ("fwd_act", "the inputs of each layer, rounded in the forward pass"),
    ("fwd_weight", "the weights of each layer, rounded in the forward pass: one rounding serves all samples of a batch"),
    ("bwd_act", "the inputs of each layer, rounded before they are multiplied by the errors to the weight gradient"),
    ("bwd_weight", "the weights, rounded before errors are passed back through them: one rounding serves all samples"),
    ("bwd_grad", "the errors, the derivatives of the loss by the outputs of each layer, rounded for each sample"),
    ("SR", "stochastic rounding: to one of the two neighbours, up with the chance that makes the mean exact"),
    ("RNE", "rounding to the nearest value of the format, ties to the even code; it draws nothing"),
    ("|g|", "the norm of the gradient of the whole data set without rounding, all weights"),
    ("q²/b", ("the noise of rounding at batch size b: Var(g | batch), the mean squared distance of the gradient of a batch "
     "from its mean over the random words; q² is that of one sample. The papers on the subject write it so")),
    ("σ²/b", ("the noise of sampling at batch size b: the variance of the gradient, without rounding, over the choice of the "
     "batch; σ² is that of one sample, exact over the set")),
    ("b'/b", "the factor by which a batch must grow so that rounding to one bit fewer costs no noise"),
    ("A-T1", ("theorem, exact: with random words that are independent between elements, and no saturation, a weight gradient "
     "G = (1/b) sum over the samples s of SR(d_s) SR(x_s) has the mean (1/b) sum d_s x_s and the variance (1/b²) sum of "
     "d_s² v(x_s) + x_s² v(d_s) + v(x_s) v(d_s), with v(z) = (hi - z)(z - lo), lo and hi the neighbours of z in its "
     "format. Proof: proofs/at1_weight_gradient_variance.py")),
    ("A-T2", ("law of total variance: where the samples of a batch share the rounded weights W, Var(g) = Var(E[g | W]) + "
     "(1/b) E Var(g_s | W); the first term does not fall with b. For backward weights alone and the layer below the last it "
     "is exactly the sum over i, j of v(w_ij) |M_ij|², M_ij the mean over the batch of error i, the mask of unit j and "
     "the layer's input")),
    ("A-T4", ("definition: b'/b = (σ² + q² at k-1 bits) / (σ² + q² at k bits), with q² by A-T1; where all values lie in dense "
     "cells v is on the average a sixth of the squared step, and q² grows 4 times with each bit less")),
    ("dense cells", "the values spread over many steps of the format, so that any place between two neighbours is as likely"),
    ("below one step", "all values are smaller than the smallest step of the format, so that each rounds to 0 or to that step"),
    ("proofs/at1_weight_gradient_variance.py", ("the machine-checked proof of A-T1: exact sums over every combination of "
     "outcomes of all roundings in a layer; qsim prove at1_weight_gradient_variance runs it")),
    ("proofs/stochastic_rounding_moments.py", ("E SR(z) = z and Var SR(z) = (hi - z)(z - lo), checked exactly over formats, "
     "values and random words by qsim prove stochastic_rounding_moments")),
)  # fmt: skip
"""What the page says in signs and short words. Those that a report does not use are left out."""

METHOD = """
A cell is one format, rounding, set of quantization points and batch size. It takes many batches, drawn with replacement
and alike for all cells of one batch size, and a few draws of all random words for each. Errors are rounded per sample,
before the 1/b of the mean. Scales are frozen for the study, but for the arm that says otherwise.

Var(g | batch) is estimated from the draws of each batch and averaged over batches. Where A-T1 or A-T2 is exact, the
squared distance of every draw from the unrounded gradient of its batch is compared with the prediction for that batch,
so that the choice of batches adds no noise. The entries of one gradient are correlated, its draws are not: every number
is a sum over the entries, and every interval is over draws or batches.

The squared norm of a mean is too large by its own noise, so |bias|² is the mean product of the means of different groups
of batches, with the jackknife's error over the groups; it may come out negative. It does not depend on the batch size
when every sample is rounded by itself, and is pooled over batch sizes.

Intervals are Student's t (Welch and Satterthwaite where estimates are pooled). Those that claims rest on hold all
together at the stated false-alarm rate, by Bonferroni's inequality; the others in figures and tables are as wide, each
for itself. Held: the whole interval lies inside the margin. Refuted: wholly outside. Where theory predicts a number
exactly, a claim is refuted when an interval excludes it, and held only if every interval is also as short as the margin
asks.

The random words are Philox4x32-10, keyed by a seed made of the cell's parameters and by site, draw and element, so that
any cell can be computed again alone, in any number of processes.
"""


STANDARDIZED = {"set": "all numbers of the set alike", "columns": "each column by itself", "none": "not"}

WEIGHT_DRAWS = {
    "shared": "shared: a weight is rounded once a step, and the forward and the backward pass read the same value",
    "separate": "separate: a weight that both passes round takes random words of its own in each",
}


def result(
    study: Study,
    run: Literal["full", "quick"],
    plan: Plan,
    at: Point,
    records: Sequence[Record],
    claims: Sequence[Claim],
    judged: Mapping[str, Sequence[Judged]],
    family: Family,
) -> Result:
    """Return the result of the study as plain data."""
    sound = [r for r in records if not (r["fault"] or r["network"])]  # of the one network that figures are about
    telling = [r for r in sound if noisy(r)]
    figures = tuple(_drawn(_figures(telling, at, plan, judged, family)))
    every = [r for r in records if not r["fault"]]
    tables = tuple(table for table in _tables(every, telling, at, plan, judged, family) if table.rows)
    there = {figure.id for figure in figures}, {table.id for table in tables}
    claims = [_placed(claim, *there, judged) for claim in claims]
    found = Result(
        study=study.name,
        title=study.title,
        question=study.question,
        answer=answer([r for r in records if not r["fault"] and noisy(r)], plan, at, claims, family),
        lead="overview" if "overview" in there[0] else "",
        run=run,
        command=study.command + (" --quick" if run == "quick" else ""),
        setup=(*_setup(plan, at, sound), *_silent(sound)),
        claims=tuple(claims),
        figures=figures,
        tables=(*tables, columns(dict.fromkeys(name for r in records for name in r))),
        method=tuple(" ".join(paragraph.split()) for paragraph in METHOD.split("\n\n")),
        cells=tuple(records),
        main="main" if "main" in there[1] else "",
    )
    return dataclasses.replace(found, terms=tuple(_used(found)))


FIGURES = {"variance-exact": "ratios", "weight-exact": "ratios"}
TABLES = {"weight-exact": "shared"}
"""The figure and the table of a claim, where they are others than the claim itself names."""


def _placed(claim: Claim, figures: set[str], tables: set[str], judged: Mapping[str, Sequence[Judged]]) -> Claim:
    """Return `claim` beside the figure and the table that this report has for it, and with what it would take to decide it."""
    figure, table = FIGURES.get(claim.id, claim.figure), TABLES.get(claim.id, claim.table)
    key = next((key for key in judged if key.replace(", ", "--").replace(" ", "-") == claim.id), "")
    return dataclasses.replace(
        claim,
        figure=figure if figure in figures else "",
        table=table if table in tables else "",
        evidence=claim.evidence + _wanting(judged.get(key, ())),
    )


def _wanting(judged: Sequence[Judged]) -> str:
    """Return how many times the draws would decide what is open, or nothing where no number of them can be told.

    The half of an interval falls with the root of the draws, and must fit between the estimate and the nearest margin.
    """
    factors = []
    for j in judged:
        if j.outcome is not Outcome.NOT_DECIDED:
            continue
        check, i = j.check, j.interval
        room = check.reach if check.equal is not None else min(abs(i.value - check.low), abs(check.high - i.value))
        if not (math.isfinite(i.half_width) and room > 0):
            return ""
        factors.append((i.half_width / room) ** 2)
    if not factors or max(factors) > 1e6:
        return ""
    times = f"{max(factors):.2g}" if max(factors) < 100 else f"{max(factors):,.0f}"
    return (
        f". With {times} times the draws, all {len(factors)} open intervals would be short enough, if their estimates stay"
        if len(factors) > 1 else
        f". With {times} times the draws, the open interval would be short enough, if its estimate stays"
    )  # fmt: skip


def _used(found: Result) -> Iterable[tuple[str, str]]:
    """Yield the terms that the words of a report use, those used by other terms included."""
    words = [found.question, found.answer, *found.method, *itertools.chain.from_iterable(found.setup)]
    words += [w for c in found.claims for w in (c.statement, c.margin, c.theorem, c.evidence)]
    for figure in found.figures:
        words += [figure.title, figure.caption, *(w for p in figure.panels for w in (p.title, p.ylabel))]
        words += [role for p in figure.panels for s in p.series for role in (s.role, s.label)]
    for table in found.tables:
        words += [table.title, table.note, *table.columns, *(str(cell) for row in table.rows for cell in row)]
    text = "\n".join(words)
    wanted: set[str] = set()
    while True:
        more = {name for name, says in TERMS if name not in wanted and name in text}
        if not more:
            break
        wanted |= more
        text += "\n".join(says for name, says in TERMS if name in more)
    return [(name, says) for name, says in TERMS if name in wanted]


def _setup(plan: Plan, at: Point, records: Sequence[Record]) -> tuple[tuple[str, str], ...]:
    model, names = plan.model, dict.fromkeys(r["format"] for r in records)
    draws = sum(r["batches"] * r["draws"] for r in records)
    sigma2 = sum(at.sampling_variance(layer) for layer in at.layers)
    formats = []
    for name in names:
        q = at.quantizer(at.site_layers[-1], "bwd_grad", get_format(name), Mode.SR, "frozen")
        fmt = get_format(name)
        words = (
            f"{name}: largest {fmt.max:.6g}, smallest {fmt.smallest_subnormal:.4g}, NaN becomes {fmt.nan_to}, "
            f"{q.saturation}; frozen scale of the last layer's errors {q.scale}"
        )
        formats.append((f"format {short_name(name)}", words))
    reached = (
        f"after {model.train_steps} steps of SGD, batch {model.train_batch}, rate {model.learning_rate}, seed {model.seed}: "
        f"loss {at.loss:.4f}" + (f", accuracy {at.accuracy:.1%}" if at.accuracy is not None else "")
    )
    return (
        ("data", f"{at.data.source}; {len(at.x)} samples, standardized: {STANDARDIZED[model.data.standardize]}"),
        ("SHA-256 of the data", at.data.sha256),
        ("model", f"{model_words(model)}, float64, biases not rounded"),
        ("the point", reached),
        (
            "gradient there",
            f"|g| = {gradient_norm(at):.4g}; sampling variance of a batch of one sigma^2 = {sigma2:.4g}",
        ),
        (
            "random bits",
            "SR is StochasticA with 64 random bits (float64 input): no bias where at most 64 bits are discarded",
        ),
        ("straight-through", "the derivative of a rounding is taken as 1, also where it saturates"),
        ("draws of weights", WEIGHT_DRAWS[plan.cells[0].weight_draws]),
        ("size", f"{len(records)} cells and those of the planted faults, {draws:,} gradients"),
        *formats,
    )


def model_words(model: ModelSpec) -> str:
    """Return what the model is, in words."""
    if model.kind == "mlp":
        return f"MLP {'-'.join(map(str, model.widths))}, ReLU, softmax cross-entropy"
    if model.kind == "wideresnet":
        return f"WRN-{model.depth}-{model.widen}, group norm, softmax cross-entropy"
    return f"{model.kind} of {PurePath(model.file).name}, SHA-256 {model.sha256}"


def _silent(records: Sequence[Record]) -> Iterable[tuple[str, str]]:
    """Yield what is said of formats to which a rounding changes nothing."""
    names = dict.fromkeys(short_name(r["format"]) for r in records if not noisy(r))
    if names:
        yield (
            "no noise",
            f"in some cells of {', '.join(names)}, whose numbers are in result.json and in no claim or figure",
        )


# --- Figures -------------------------------------------------------------------------------------------------


def _figures(
    records: Sequence[Record], at: Point, plan: Plan, judged: Mapping[str, Sequence[Judged]], family: Family
) -> Iterable[Figure]:
    yield _overview(records, at, family)
    yield _ratios(records, at, judged)
    yield _variance(records, family)
    yield _weights(records, at, family)
    yield _bias(records, family)
    if "bit-noise" in plan.margins:
        yield _bits(records, at, plan, family)
    yield _absmax(records, family)


def _drawn(figures: Iterable[Figure]) -> Iterable[Figure]:
    """Yield the figures that show something measured, without the panels that do not."""
    for figure in figures:
        panels = tuple(p for p in figure.panels if any(s.kind == "measured" and s.x for s in p.series))
        if panels:
            yield dataclasses.replace(figure, panels=panels)


def curve(label: str, group: str, points: Sequence[Record], name: str, family: Family, factor: float = 1.0) -> Series:
    """Return the measured curve of one estimate of the records `points` against batch size, times `factor`."""
    found = [family.interval(estimate(r, name)).scaled(factor) for r in points]
    role = points[0]["mode"] + (", abs-max scale" if points[0]["scale"] == "absmax" else "")
    return Series(
        label=label, group=group, kind="measured", x=tuple(float(r["batch"]) for r in points),
        y=tuple(i.value for i in found), low=tuple(i.low for i in found), high=tuple(i.high for i in found), role=role,
    )  # fmt: skip


def line(label: str, group: str, x: Iterable[float], y: Iterable[float], role: str) -> Series:
    """Return a curve of theory."""
    return Series(label=label, group=group, kind="theory", x=tuple(map(float, x)), y=tuple(map(float, y)), role=role)


def _curves(
    records: Sequence[Record], points: str, part: str, family: Family, factor: float = 1.0, **where: Any
) -> list[Series]:
    """Return, for each format, the measured variance of a part of the weights at `points`, and theory where it is exact."""
    curves: list[Series] = []
    for _, group in families(records, (points,), mode="SR", **where):
        if any(s.group == short_name(group[0]["format"]) for s in curves) or f"{part}.variance" not in group[0]:
            continue
        name = short_name(group[0]["format"])
        curves.append(curve(name, name, group, f"{part}.variance", family, factor))
        if all(f"{part}.theory" in r for r in group):
            says = [factor * r[f"{part}.theory"] for r in group]
            curves.append(line(name, name, [r["batch"] for r in group], says, _theorem(points)))
    return curves


def _theorem(points: str) -> str:
    return "A-T2" if "weight" in points else "A-T1"


def _called(points: str) -> str:
    """Return the name of a point set with what is rounded there: "bwd_grad, last layer (backward errors)"."""
    names = points.removeprefix(LAST)
    words = " and ".join(WORDS[name] for name in names.split("+"))
    if names == BACKWARD:
        words = "whole backward pass"
    where = ", last layer" if points.startswith(LAST) else ""
    return f"{names}{where} ({words})" if names != ALL else f"{words}{where}"


def _point_sets(records: Iterable[Record]) -> list[str]:
    """Return the point sets of `records` that round at all layers: the five one by one, then sets of several."""
    found = dict.fromkeys(r["points"] for r in records if not r["points"].startswith(LAST) and not r["fault"])
    order = [*POINTS, *(points for points in found if points not in (*POINTS, ALL)), ALL]
    return [points for points in order if points in found]


def _overview(records: Sequence[Record], at: Point, family: Family) -> Figure:
    """Show every point set against batch size, a curve a format: the study at a glance."""
    norm = gradient_norm(at) ** 2
    sigma2 = sum(at.sampling_variance(layer) for layer in at.layers) / norm
    panels = []
    for points in _point_sets(records):
        curves = _curves(records, points, ALL, family, 1 / norm, scale="frozen")
        if not curves:
            continue
        batches = sorted({x for s in curves for x in s.x})
        sampling = line("σ²/b", "", batches, [sigma2 / b for b in batches], "σ²/b, no rounding")
        panels.append(
            Panel(
                title=_called(points),
                xlabel=BATCH,
                ylabel=NOISE,
                xscale="log2",
                yscale="log10",
                series=(*curves, sampling),
            )
        )
    grouped = any(s.kind == "theory" and s.group for panel in panels for s in panel.series)
    exact = "; coloured lines are theory where it is exact, with no fitted number" if grouped else ""
    return Figure(
        id="overview",
        title="Where the noise comes from, and whether a batch averages it away",
        caption="Noise of the gradient of all weights under stochastic rounding, given the batch, relative to the squared norm "
        "|g|² of the gradient, against batch size: one panel a quantization point, one colour a format. Rings with "
        "simultaneous "
        f"intervals are measured{exact}. The dashed line is the noise of sampling alone, which no format changes. What runs "
        "parallel to it averages away as 1/b; what levels off does not.",
        alt="Log-log plots of gradient variance against batch size, one panel a quantization point and one curve a "
        "format, each "
        "beside the line of sampling noise, which falls as one over b.",
        panels=tuple(panels) or (_EMPTY,),
    )


_EMPTY = Panel(title="", xlabel="", ylabel="", xscale="linear", yscale="linear", series=())


SCALES = {
    "frozen": "",
    "underflow": ", below one step",
    "absmax": ", abs-max scale",
    "full-range": ", full-range scale",
}


def _ratios(records: Sequence[Record], at: Point, judged: Mapping[str, Sequence[Judged]]) -> Figure:
    """Show measured over predicted variance, a panel a point set and a row a format: all ratios, and the worst interval."""
    where = _where(records, at)
    found: dict[tuple[str, str, str], dict[str, list[Judged]]] = {}
    for name in "variance-exact", "weight-exact":
        for j in judged.get(name, ()):
            if r := where.get(j.check.label):
                kinds = found.setdefault((name, r["points"], r["scale"]), {})
                kinds.setdefault(short_name(r["format"]), []).append(j)
    panels = []
    for (_, points, scale), rows in sorted(
        found.items(), key=lambda item: (item[0][0], item[0][1], item[0][2] != "frozen")
    ):
        dots, worst = [], []
        for i, (label, group) in enumerate(rows.items()):
            dots.append(Series(
                label=label, group=label, kind="measured", x=(float(i),) * len(group),
                y=tuple(j.interval.value for j in group), role=f"one of {len(group)}", small=True,
            ))  # fmt: skip
            far = max(group, key=lambda j: max(abs(j.interval.low - 1), abs(j.interval.high - 1))).interval
            worst.append(Series(
                label=label, group=label, kind="measured", x=(float(i),), y=(far.value,), low=(far.low,), high=(far.high,),
                role="SR",
            ))  # fmt: skip
        one = line("1", "", (-0.5, len(rows) - 0.5), (1, 1), "theory")
        told = SCALES.get(scale, f", {scale} scale")
        panels.append(Panel(
            title=f"{_called(points)}{told}: {sum(map(len, rows.values()))} intervals", xlabel="",
            ylabel="measured / theory", xscale="linear", yscale="linear", series=(one, *dots, *worst),
            categories=tuple(rows), sideways=True,
        ))  # fmt: skip
    return Figure(
        id="ratios",
        title="Measured variance over predicted variance",
        caption="One panel a quantization point, one row and colour a format. Dots: the ratio in every cell and layer where "
        "theory is exact (A-T1, for backward weights A-T2). Ring and bar: of each row the one simultaneous interval that "
        "reaches farthest from 1. Line: theory. Cells of one batch size share their batches, so the rows of one panel are "
        "not independent of each other.",
        alt="Forest plots of the ratio of measured to predicted variance, a row a format, a panel a point: all lie around 1.",
        panels=tuple(panels) or (_EMPTY,),
    )


def _variance(records: Sequence[Record], family: Family) -> Figure:
    panels = [
        Panel(
            title=_called(points), xlabel=BATCH, ylabel="q²/b, the last layer's", xscale="log2", yscale="log10",
            series=tuple(_curves(records, points, ALL, family, arm="last layer")),
        )
        for points in (f"{LAST}bwd_grad", BOTH)
    ]  # fmt: skip
    return Figure(
        id="variance",
        title="Noise drawn anew for each sample, at the last layer: measured, and A-T1",
        caption="Variance of the last layer's weight gradient over stochastic roundings, given the batch, against batch size, "
        "one colour a format. Rings with simultaneous intervals (often smaller than the ring) are measured; lines are A-T1 on "
        "the same batches, no fitted number. Both fall as 1/b.",
        alt="Log-log plots of variance against batch size, one curve a format: all fall as one over b, and the measured "
        "rings lie on the predicted lines.",
        panels=tuple(panels),
    )


def _weights(records: Sequence[Record], at: Point, family: Family) -> Figure:
    parts = [("fwd_weight", ALL, "all layers")]
    if len(at.layers) > 1:
        parts.append(("bwd_weight", at.layers[-2], f"gradient of {at.layers[-2]}"))
    panels = [
        Panel(
            title=f"{_called(points)}, {where}", xlabel=BATCH, ylabel="Var(g | batch)", xscale="log2", yscale="log10",
            series=tuple(_curves(records, points, part, family, scale="frozen")),
        )
        for points, part, where in parts
    ]  # fmt: skip
    return Figure(
        id="weights",
        title="Noise of weights, shared by the samples, has a floor",
        caption="Variance of the gradient over stochastic roundings of the weights, given the batch, against batch size, one "
        "colour a format. One draw of the rounded weights serves all samples of a batch, so the noise levels off. Rings with "
        "simultaneous intervals are measured; lines, where A-T2 is exact, are theory with no fitted number.",
        alt="Log-log plots of variance against batch size, one curve a format: the curves fall at first and then level off, "
        "backward weights along the predicted lines.",
        panels=tuple(panels),
    )


def _bias_panel(points: str, records: Sequence[Record], family: Family) -> Panel:
    """Return a panel of |bias| / |g|, a row a format: stochastic and nearest rounding, each with its interval."""
    found = [(group, mode) for mode in MODES for _, group in families(records, (points,), mode=mode, scale="frozen")]
    names = list(dict.fromkeys(short_name(group[0]["format"]) for group, _ in found))
    curves = []
    seen = set()
    for group, mode in found:
        name = short_name(group[0]["format"])
        if (name, mode) in seen:
            continue
        seen.add((name, mode))
        i = family.interval(bias(group))
        value, low, high = (100 * math.copysign(math.sqrt(abs(end)), end) for end in (i.value, i.low, i.high))
        if low <= 0:
            value = -abs(value)  # what may be nothing is shown by the upper end alone
        curves.append(Series(
            label=name, group=name, kind="measured", x=(float(names.index(name)),), y=(value,), low=(low,), high=(high,),
            role=mode,
        ))  # fmt: skip
    return Panel(
        title=_called(points), xlabel="", ylabel="|bias| in % of |g|", xscale="linear", yscale="log10", series=tuple(curves),
        categories=tuple(names), sideways=True,
    )  # fmt: skip


MODES = ("SR", "RNE")


def _bias(records: Sequence[Record], family: Family) -> Figure:
    panels = [_bias_panel(points, records, family) for points in _point_sets(records)]
    modes = {s.role for panel in panels for s in panel.series}
    names = {"SR": "rings: stochastic rounding (SR)", "RNE": "diamonds: rounding to nearest (RNE)"}
    marks = "; ".join(words for mode, words in names.items() if mode in modes)
    return Figure(
        id="bias",
        title="Bias of the gradient, point by point",
        caption="Norm of the bias of the gradient of all weights, in percent of its norm |g|, pooled over batch sizes; one "
        "panel a quantization point, one row and colour a format. "
        f"Marks are {marks}; bars: simultaneous intervals. A cap with an arrow is the upper end of an "
        "interval that reaches zero: no bias was seen, and none larger than that is compatible with the draws.",
        alt="Plots of the norm of the bias on a log scale, a panel a quantization point and a row a format, with "
        "intervals; the "
        "table of the bias has the numbers.",
        panels=tuple(panels) or (_EMPTY,),
    )


def _bits(records: Sequence[Record], at: Point, plan: Plan, family: Family) -> Figure:
    sigma2 = at.sampling_variance(at.layers[-1])
    found = [
        pair
        for name in ("bit-noise", "bit-full-range")
        for pair in (pairs(records, plan.margins[name]) if name in plan.margins else ())
    ]
    labels = tuple(_pair(fewer, more) for _, fewer, more in found)

    def panel(title: str, label: str, sigma2: float) -> Panel:
        curves = []
        for i, (_, fewer, more) in enumerate(found):
            name = short_name(fewer[0]["format"])
            q = (Estimate(sigma2 + e.value, e.error, e.freedom) for e in (noise(fewer), noise(more)))
            ratio = family.interval(quotient(*q))
            says = theory.batch_ratio(sigma2, predicted_noise(at, fewer[0]), predicted_noise(at, more[0]))
            curves.append(line(labels[i], "", (i - 0.4, i + 0.4), (says, says), "theory"))
            curves.append(Series(
                label=labels[i], group=name, kind="measured", x=(float(i),), y=(ratio.value,), low=(ratio.low,),
                high=(ratio.high,), role="SR",
            ))  # fmt: skip
        return Panel(title=title, xlabel="", ylabel=label, xscale="linear", yscale="log2", series=tuple(curves),
                     categories=labels, sideways=True)  # fmt: skip

    return Figure(
        id="bits",
        title="What one bit fewer costs, at the last layer",
        caption="Left: noise of rounding, q² at k-1 bits over q² at k bits: 4 in dense cells, near 2 where all values lie "
        "below one step (marked), above 4 with few-bit integers whose step is abs-max / (2^(k-1) - 1). Right: b'/b, "
        "the batch that buys the bit back, sampling noise "
        "included, which is exact on both sides. Rings with intervals are measured, short lines are theory (q² by A-T1); the "
        "colour is that of the format with fewer bits.",
        alt="Two plots by pair of formats: the noise ratio is near 4 for floats, above 4 for INT4 to INT3 to INT2, and near 2 "
        "below one step; the batch ratio is between 1 and 5. Measured rings lie on the lines of theory.",
        panels=(
            panel("noise of rounding", "q² at k-1 bits / q² at k bits", 0.0),
            panel("batch", "b' / b", sigma2),
        ),
    )


def _pair(fewer: Sequence[Record], more: Sequence[Record]) -> str:
    mark = SCALES.get(fewer[0]["scale"], f", {fewer[0]['scale']} scale")
    return f"{short_name(more[0]['format'])} to {short_name(fewer[0]['format'])}{mark}"


def _absmax(records: Sequence[Record], family: Family) -> Figure:
    own = {short_name(r["format"]) for r in series(records, arm="abs-max", mode="SR", points=BOTH)}
    curves: list[Series] = []
    for arm, words in (("last layer", "frozen"), ("abs-max", "abs-max")):
        for _, group in families(records, (BOTH,), arm=arm, mode="SR"):
            name = short_name(group[0]["format"])
            if name in own:
                label = f"{name}, {words}"
                curves.append(curve(label, name, group, f"{ALL}.variance", family))
                if not all(f"{ALL}.theory" in r for r in group):
                    continue
                says = [r[f"{ALL}.theory"] for r in group]
                role = "A-T1" if arm == "last layer" else "A-T1, each batch's step"
                curves.append(line(label, name, [r["batch"] for r in group], says, role))
    return Figure(
        id="absmax",
        title="A scale re-derived from each batch changes the slope",
        caption="Variance of the last layer's gradient over stochastic roundings of inputs and errors, given the batch, "
        "against batch size, one colour a format. Rings: a frozen scale; squares: a scale "
        "re-derived from each batch's largest value, "
        "whose step grows with that value, so that the noise falls more slowly than 1/b. Lines are A-T1.",
        alt="Log-log plot of variance against batch size for INT8 and INT4, with a frozen and with a re-derived scale: the "
        "latter starts lower and falls more slowly.",
        panels=(
            Panel(title=_called(BOTH), xlabel=BATCH, ylabel="q²/b, the last layer's", xscale="log2", yscale="log10",
                  series=tuple(curves)),
        ),
    )  # fmt: skip


# --- Tables --------------------------------------------------------------------------------------------------


def _tables(
    every: Sequence[Record],
    records: Sequence[Record],
    at: Point,
    plan: Plan,
    judged: Mapping[str, Sequence[Judged]],
    family: Family,
) -> Iterable[Table]:
    where = _where(every, at)
    yield _main_table(records, at, plan, family)
    for name, id_, title, value in (
        ("variance-exact", "exact", "Measured variance over that of A-T1", "measured / theory"),
        ("weight-exact", "shared", "Measured variance over that of A-T2", "measured / theory"),
    ):
        yield _judged_table(id_, title, value, {name: judged.get(name, ())}, where, "Farthest from 1 first.")
    yield _judged_table(
        "slopes", "Slopes and floors", "value",
        {name: judged.get(name, ()) for name in ("one-over-b", "weight-floor", "absmax-slope")}, where,
        "Slopes of log variance against log b; for weights (weight-floor) the share of the variance at the largest batch that "
        "stays. Nearest to its margin first. All cells of one batch size share their batches, so the slopes of different "
        "formats are not independent of each other.",
    )  # fmt: skip
    yield _bias_table(records, family)
    yield _judged_table(
        "bits", "One bit fewer", "value",
        {name: judged.get(name, ()) for name in BITS}, where,
        "bit-noise: q² at k-1 bits over q² at k bits, measured over that of A-T1; the others: as measured.",
    )  # fmt: skip
    yield _judged_table(
        "networks", "Other networks: each its own interval", "value",
        {name: found for name, found in judged.items() if name.startswith(NETWORKS)}, where,
        "|bias|² / |g|² of each network, and q² at k-1 bits over q² at k bits.",
    )  # fmt: skip
    yield _noise_table(records, at, family)
    yield _count_table([r for r in every if not r["network"]])


BITS = ("bit-noise", "bit-dense", "bit-underflow", "bit-coarse", "bit-full-range")
COLUMNS = ("format", "mode", "points", "b", "layer", "scale", "network")


def _where(records: Sequence[Record], at: Point) -> dict[str, Record]:
    """Return what each label of a check speaks of: a record with its layer, a family of records, or a pair."""
    found: dict[str, Record] = {}
    for r in records:
        found.setdefault(label_of(r), {**r, "b": r["batch"]})
        for layer in at.layers:
            found.setdefault(f"{label_of(r)}, {layer}", {**r, "b": r["batch"], "layer": layer})
    for label, group in families(records, dict.fromkeys(r["points"] for r in records)):
        found.setdefault(label, {**group[0], "b": None})
    return found


def _judged_table(
    id_: str, title: str, value: str, judged: Mapping[str, Sequence[Judged]], where: Mapping[str, Record], note: str
) -> Table:
    """Return the intervals of some claims, a row each, a column for each thing that varies, the nearest to its margin first."""
    rows: list[tuple[Cell, ...]] = []
    for name, found in judged.items():
        for j in sorted(found, key=_margin):
            label = j.check.label
            r = where.get(label) or where.get(
                label.rpartition(", ")[0], {}
            )  # a check of a bias says what was clamped, too
            told = [short_name(r["format"]) if c == "format" else r.get(c) or None for c in COLUMNS] if r else []
            told = told or [label, *[None] * (len(COLUMNS) - 1)]
            i = j.interval
            rows.append((name, *told, i.value, i.low, i.high, str(j.outcome)))
    names = ("claim", *COLUMNS, value, "low", "high", "outcome")
    return _without_idle(Table(id=id_, title=title, columns=names, rows=tuple(rows), note=note))


def _without_idle(table: Table) -> Table:
    """Return `table` without the columns that are empty, and without that of the claim where there is one alone."""

    def keeps(i: int) -> bool:
        values = {row[i] for row in table.rows}
        return values != {None} and (table.columns[i] != "claim" or len(values) > 1)

    kept = [i for i in range(len(table.columns)) if keeps(i)]
    return dataclasses.replace(
        table,
        columns=tuple(table.columns[i] for i in kept),
        rows=tuple(tuple(row[i] for i in kept) for row in table.rows),
    )


def _margin(judged: Judged) -> float:
    """Return how much room is left between an interval and what would refute it; less comes first."""
    check, i = judged.check, judged.interval
    if check.equal is not None:
        return -max(abs(i.low - check.equal), abs(i.high - check.equal))
    return min(i.low - check.low, check.high - i.high)


HEADS = {ALL: "all five", BACKWARD: "all three bwd"}


def _main_table(records: Sequence[Record], at: Point, plan: Plan, family: Family) -> Table:
    """Return what a reader comes for: format by point, the noise at one batch size, the bias, and the price of a bit."""
    norm = gradient_norm(at) ** 2
    frozen = [r for r in series(records, scale="frozen") if r["arm"] != "few bits"]
    sets = _point_sets(frozen)
    batches = sorted({r["batch"] for r in frozen if r["mode"] == "SR"})
    b = min(batches, key=lambda batch: abs(math.log2(batch) - 6), default=0)
    costs: dict[str, str] = {}
    if "bit-noise" in plan.margins:
        sigma2 = at.sampling_variance(at.layers[-1])
        for _, fewer, more in pairs(records, plan.margins["bit-noise"]):
            if fewer[0]["scale"] == "frozen":
                q = (Estimate(sigma2 + e.value, e.error, e.freedom) for e in (noise(fewer), noise(more)))
                costs[short_name(fewer[0]["format"])] = _plus_minus(family.interval(quotient(*q)), most=3)
    names = dict.fromkeys([*(short_name(r["format"]) for r in frozen), *costs])
    found: dict[tuple[str, str, str], str] = {}
    for r in frozen:
        if r["mode"] == "SR" and r["batch"] == b and f"{ALL}.variance" in r:
            key = ("noise, SR", short_name(r["format"]), r["points"])
            i = family.interval(estimate(r, f"{ALL}.variance")).scaled(1 / norm)
            found.setdefault(key, _percent(i))
    for mode in MODES:
        for _, group in families(frozen, sets, mode=mode):
            i = family.interval(bias(group))
            key = (f"bias, {mode}", short_name(group[0]["format"]), group[0]["points"])
            found.setdefault(key, _percent(i))
    whats = [what for what in ("noise, SR", *(f"bias, {mode}" for mode in MODES)) if any(k[0] == what for k in found)]
    rows: list[tuple[Cell, ...]] = []
    for what in whats:
        for name in names:
            cells = [found.get((what, name, points)) for points in sets]
            cost = costs.get(name) if what == whats[0] else None
            if any(cells) or cost:
                rows.append((name, what, *cells, cost))
    sigma2 = sum(at.sampling_variance(layer) for layer in at.layers) / norm
    price = " but b'/b" if costs else ""
    bought = (
        "b'/b: the batch that buys back the bit which this format has fewer than the one above, inputs and errors of the last "
        "layer rounded. "
        if costs
        else ""
    )
    return _without_idle(Table(
        id="main", title=f"Noise at b = {b}, bias, and the price of a bit" if costs else f"Noise at b = {b}, and bias",
        columns=("format", "% of |g|", *(HEADS.get(points, points) for points in sets), "b'/b"), rows=tuple(rows),
        note=f"Percent of |g|{price}, all weights. Noise: the root of q²/b under stochastic rounding, at b = {b}; that of "
        f"sampling alone, the root of σ²/b, is {100 * math.sqrt(sigma2 / max(b, 1)):.3g} % there. Bias: its norm, pooled over "
        f"batch sizes; ≤ where the interval reaches zero. {bought}± is half of a simultaneous interval; scales are frozen.",
    ))  # fmt: skip


def _plus_minus(interval: Interval, of: Callable[[float], float] = float, most: int = 6) -> str:
    """Write a number with its error, to at most `most` decimal places, or the upper end of an interval that reaches zero."""
    value, low, high = of(interval.value), of(interval.low), of(interval.high)
    if interval.low <= 0:
        return f"≤ {high:.2g}" if high >= 1e-4 else f"≤ {high / 10 ** _power(high):.1f}{_tens(_power(high))}"
    half = max(high - value, value - low)
    power = _power(value) if not 1e-3 <= value < 1e5 else 0
    value, half = value / 10.0**power, half / 10.0**power
    places = min(most, max(0, -_power(half) + (half < 0.2 * 10.0 ** (_power(half) + 1)))) if half > 0 else 3
    half = max(half, 10.0**-places)
    return f"{value:.{places}f}{_tens(power)} ± {half:.{places}f}{_tens(power)}"


def _percent(interval: Interval) -> str:
    """Write an interval of a square as its root, in percent."""
    return _plus_minus(interval, lambda end: 100 * math.sqrt(max(0.0, end)))


def _power(value: float) -> int:
    return math.floor(math.log10(value)) if value > 0 else 0


def _tens(power: int) -> str:
    return f"×10{str(power).translate(SUPERSCRIPTS)}" if power else ""


SUPERSCRIPTS = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")


def _bias_table(records: Sequence[Record], family: Family) -> Table:
    rows: list[tuple[Cell, ...]] = []
    for _, group in families(records, dict.fromkeys(r["points"] for r in records), scale="frozen"):
        first = group[0]
        if first["arm"] != "few bits":
            i = family.interval(bias(group))
            ends = [100 * math.sqrt(max(0.0, end)) for end in (i.value, i.low, i.high)]
            rows.append((short_name(first["format"]), first["mode"], first["points"], *ends, 100 * clamped(group)))
    return Table(
        id="bias",
        title="Bias of the gradient, in percent of its norm",
        columns=("format", "mode", "points", "|bias| %", "low %", "high %", "clamped %"),
        rows=tuple(sorted(rows, key=lambda row: -float(row[5] or 0))),
        note="Pooled over batch sizes; largest first. 0 stands for an estimate of |bias|² at or below zero. Forward points "
        "bias the gradient even with stochastic rounding, since the loss is not linear in them. Points of the last "
        "layer alone are "
        "relative to the norm of the gradient of all layers too. Clamped: the share of the rounded elements that lay "
        "beyond the largest value; a clamped element is biased in any mode.",
    )


def _noise_table(records: Sequence[Record], at: Point, family: Family) -> Table:
    norm = gradient_norm(at) ** 2
    rows: list[tuple[Cell, ...]] = []
    for r in series(records, scale="frozen"):
        if r["arm"] != "few bits" and r["batch"] in (1, 64, 1024):
            between = family.interval(estimate(r, f"{ALL}.between")).scaled(1 / norm)
            within: tuple[Cell, ...] = (None, None, None)
            if r["mode"] == "SR":
                i = family.interval(estimate(r, f"{ALL}.variance")).scaled(1 / norm)
                within = i.value, i.low, i.high
            rows.append((short_name(r["format"]), r["mode"], r["points"], r["batch"], *within,
                         between.value, between.low, between.high))  # fmt: skip
    return Table(
        id="noise", title="Noise of rounding and of sampling, relative to |g|²",
        columns=("format", "mode", "points", "b", "q²/b", "q²/b low", "q²/b high", "σ²/b, rounded", "σ²/b low", "σ²/b high"),
        rows=tuple(sorted(rows, key=lambda row: -float(row[4] or 0))),
        note="q²/b: over draws, the mean over batches of Var(g | batch). σ²/b, rounded: over batches, the mean squared "
        "distance of E(g | batch) from the unrounded gradient of the whole set, squared bias included. A "
        "deterministic rounding has one "
        "draw. Points of the last layer alone are relative to the whole |g|² too. Largest first; all batch sizes are in "
        "result.json.",
    )  # fmt: skip


def _count_table(records: Sequence[Record]) -> Table:
    rows: list[tuple[Cell, ...]] = []
    for _, group in families(records, dict.fromkeys(r["points"] for r in records)):
        first = group[0]
        total = {
            name: sum(r[f"count.{name}"] for r in group)
            for name in ("elements", "saturated", "underflowed", "nan", "on_grid")
        }
        share = [
            100 * total[name] / max(1, total["elements"]) for name in ("saturated", "underflowed", "nan", "on_grid")
        ]
        rows.append(
            (short_name(first["format"]), first["mode"], first["points"], first["scale"], total["elements"], *share)
        )
    return Table(
        id="hypotheses", title="What broke a hypothesis, in percent of the rounded elements",
        columns=("format", "mode", "points", "scale", "elements", "saturated %", "underflowed %", "NaN %", "on the grid %"),
        rows=tuple(sorted(rows, key=lambda row: -float(row[5] or 0))),
        note="Unbiasedness needs no saturation. Frozen scales map the unrounded tensors into the range; what rounding "
        "upstream pushes beyond it is counted here. An element rounded to zero is no fault of SR. Most saturated first.",
    )  # fmt: skip
