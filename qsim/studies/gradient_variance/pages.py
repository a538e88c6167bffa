"""What the study shows: the answer in a few sentences, the setup, figures as numbers, tables."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import PurePath
from typing import Any, Literal

from qsim import theory
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

__all__ = ["result"]

Record = dict[str, Any]
BATCH = "batch size b"

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
    figures = tuple(_figures(telling, at, plan, family))
    drawn = {figure.id for figure in figures}  # a study without the cells for a figure has none
    claims = [dataclasses.replace(c, figure=c.figure if c.figure in drawn else "") for c in claims]
    return Result(
        study=study.name,
        title=study.title,
        question=study.question,
        answer=answer([r for r in records if not r["fault"] and noisy(r)], plan, at, claims, family),
        lead="overview",
        run=run,
        command=study.command + (" --quick" if run == "quick" else ""),
        setup=(*_setup(plan, at, sound), *_silent(sound)),
        claims=tuple(claims),
        figures=figures,
        tables=(*_tables(telling, at, judged, family), columns(dict.fromkeys(name for r in records for name in r))),
        method=tuple(" ".join(paragraph.split()) for paragraph in METHOD.split("\n\n")),
        cells=tuple(records),
    )


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


def _figures(records: Sequence[Record], at: Point, plan: Plan, family: Family) -> Iterable[Figure]:
    yield _overview(records, at, family)
    yield _variance(records, family)
    yield _weights(records, at, family)
    yield _bias(records, family)
    if "bit-noise" in plan.margins and list(pairs(records, plan.margins["bit-noise"])):
        yield _bits(records, at, plan, family)
    yield _absmax(records, family)


def curve(label: str, group: str, points: Sequence[Record], name: str, family: Family, factor: float = 1.0) -> Series:
    """Return the measured curve of one estimate of the records `points` against batch size, times `factor`."""
    found = [family.interval(estimate(r, name)).scaled(factor) for r in points]
    return Series(
        label=label, group=group, kind="measured", x=tuple(float(r["batch"]) for r in points),
        y=tuple(i.value for i in found), low=tuple(i.low for i in found), high=tuple(i.high for i in found),
    )  # fmt: skip


def line(label: str, group: str, x: Iterable[float], y: Iterable[float]) -> Series:
    """Return a curve of theory."""
    return Series(label=label, group=group, kind="theory", x=tuple(map(float, x)), y=tuple(map(float, y)))


def _overview(records: Sequence[Record], at: Point, family: Family) -> Figure:
    """Show each quantization point of one format against batch size, and the biases: the study at a glance."""
    norm = gradient_norm(at) ** 2
    sigma2 = sum(at.sampling_variance(layer) for layer in at.layers) / norm
    shown = "int4"
    names = {
        "fwd_act": "forward activations", "fwd_weight": "forward weights", "bwd_act": "backward activations",
        "bwd_weight": "backward weights", "bwd_grad": "backward errors", "all": "all five",
    }  # fmt: skip
    curves = []
    for point, words in names.items():
        found = [
            r for r in series(records, format=shown, mode="SR", points=point, scale="frozen") if r["arm"] != "few bits"
        ]
        if found:
            curves.append(curve(words, words, found, f"{ALL}.variance", family, 1 / norm))
    batches = sorted({r["batch"] for r in records})
    sampling = line("sampling noise sigma²/b, no rounding", "sampling", batches, [sigma2 / b for b in batches])
    return Figure(
        id="overview",
        title=f"Where the noise comes from, and whether a batch averages it away ({shown})",
        caption=f"Left: variance of the gradient over roundings, given the batch, for stochastic rounding to {shown} at "
        "one quantization point at a time; points parallel to the line average away as 1/b, level ones never do. "
        "Right: the bias of the backward pass, all batch sizes together; stochastic rounding is shown by the upper end of "
        "its interval, which only more draws would lower.",
        alt=f"Log-log plot of gradient variance against batch size, one curve a quantization point of {shown}: "
        "backward activations and errors fall as one over b, weights level off. Beside it the bias by format: rounding to "
        "nearest up to tens of percent, stochastic rounding below a percent.",
        panels=(
            Panel(title="noise by quantization point, SR", xlabel=BATCH, ylabel="variance / |g|²", xscale="log2",
                  yscale="log10", series=(*curves, sampling)),
            _bias_panel("bias of rounded errors", "bwd_grad", records, family),
        ),
    )  # fmt: skip


def _variance(records: Sequence[Record], family: Family) -> Figure:
    panels = []
    titles = {"bwd_act": "inputs, all layers", f"{LAST}bwd_grad": "errors, last layer", BOTH: "both, last layer"}
    for points, title in titles.items():
        curves: list[Series] = []
        for _, group in families(records, (points,), arm="inputs" if points == "bwd_act" else "last layer", mode="SR"):
            name = short_name(group[0]["format"])
            curves.append(curve(name, name, group, f"{ALL}.variance", family))
            if f"{ALL}.theory" in group[0]:
                curves.append(line(name, name, [r["batch"] for r in group], [r[f"{ALL}.theory"] for r in group]))
        panels.append(
            Panel(
                title=title, xlabel=BATCH, ylabel="Var(g | batch)", xscale="log2", yscale="log10", series=tuple(curves)
            )
        )
    return Figure(
        id="variance",
        title="Noise drawn anew for each sample: measured, and A-T1",
        caption="Variance of the weight gradient over stochastic roundings, given the batch, against batch size; points with "
        "simultaneous intervals (often smaller than the mark), lines by A-T1 on the same batches, no fitted number.",
        alt="Three log-log plots of variance against batch size, one curve a format: all fall as one over b, and the "
        "measured points lie on the predicted lines.",
        panels=tuple(panels),
    )


def _weights(records: Sequence[Record], at: Point, family: Family) -> Figure:
    below = at.layers[-2] if len(at.layers) > 1 else ALL
    panels = []
    for points, part, title in (
        ("fwd_weight", ALL, "forward weights, all layers"),
        ("bwd_weight", below, f"backward weights, {below}"),
    ):
        curves: list[Series] = []
        for _, group in families(records, (points,), arm="forward" if points == "fwd_weight" else "weights", mode="SR"):
            name = short_name(group[0]["format"])
            curves.append(curve(name, name, group, f"{part}.variance", family))
            if f"{part}.theory" in group[0]:
                curves.append(line(name, name, [r["batch"] for r in group], [r[f"{part}.theory"] for r in group]))
        panels.append(
            Panel(
                title=title, xlabel=BATCH, ylabel="Var(g | batch)", xscale="log2", yscale="log10", series=tuple(curves)
            )
        )
    return Figure(
        id="weights",
        title="Noise of weights, shared by the samples, has a floor",
        caption="One draw of the rounded weights serves all samples of a batch. Right: backward weights alone, where A-T2 is "
        "exact for the layer below the last (lines).",
        alt="Two log-log plots of variance against batch size, one curve a format: the curves fall at first and then level "
        "off, on the right along the predicted lines.",
        panels=tuple(panels),
    )


def _bias_panel(title: str, point: str, records: Sequence[Record], family: Family) -> Panel:
    """Return a panel of |bias| / |g| by format: nearest with its interval, stochastic by the upper end of its own."""
    names = list(dict.fromkeys(r["format"] for r in records if r["points"] == point and r["scale"] == "frozen"))
    curves = []
    for mode, label in (("RNE", "RNE"), ("SR", "SR, at most")):
        x, y, low, high = [], [], [], []
        for _, group in families(records, (point,), mode=mode, scale="frozen"):
            i = family.interval(bias(group))
            ends = [100 * math.sqrt(max(0.0, end)) for end in (i.low, i.value, i.high)]
            x.append(float(names.index(group[0]["format"])))
            low.append(ends[0] if mode == "RNE" else ends[2])
            y.append(ends[1] if mode == "RNE" else ends[2])
            high.append(ends[2])
        curves.append(
            Series(label=label, group=label, kind="measured", x=tuple(x), y=tuple(y), low=tuple(low), high=tuple(high))
        )
    return Panel(
        title=title, xlabel="format", ylabel="|bias| in % of |g|", xscale="linear", yscale="log10",
        series=tuple(curves), categories=tuple(short_name(name) for name in names),
    )  # fmt: skip


def _bias(records: Sequence[Record], family: Family) -> Figure:
    return Figure(
        id="bias",
        title="Backward: stochastic rounding is unbiased, rounding to nearest is not",
        caption="Norm of the bias of the weight gradient, all layers, relative to the gradient. For stochastic rounding the "
        "upper end of the simultaneous interval is shown: what the draws cannot exclude.",
        alt="Two plots of bias by format: rounding to nearest grows with fewer bits to several percent and more, the "
        "bound for stochastic rounding stays below one percent.",
        panels=(
            _bias_panel("inputs rounded (bwd_act)", "bwd_act", records, family),
            _bias_panel("errors rounded (bwd_grad)", "bwd_grad", records, family),
        ),
    )


def _bits(records: Sequence[Record], at: Point, plan: Plan, family: Family) -> Figure:
    sigma2 = at.sampling_variance(at.layers[-1])
    found = list(pairs(records, plan.margins["bit-noise"]))
    labels = tuple(_pair(fewer, more) for _, fewer, more in found)
    ratios, costs = [], []
    for _, fewer, more in found:
        q = noise(fewer), noise(more)
        ratios.append(family.interval(quotient(*q)))
        costs.append(family.interval(quotient(*(Estimate(sigma2 + e.value, e.error, e.freedom) for e in q))))
    says = [(predicted_noise(at, fewer[0]), predicted_noise(at, more[0])) for _, fewer, more in found]

    def panel(title: str, label: str, measured: Sequence[Interval], predicted: Iterable[float]) -> Panel:
        x = tuple(map(float, range(len(found))))
        points = Series(
            label="measured", group="measured", kind="measured", x=x, y=tuple(i.value for i in measured),
            low=tuple(i.low for i in measured), high=tuple(i.high for i in measured),
        )  # fmt: skip
        # Theory as hollow marks: a line between categories would mean nothing.
        marks = Series(label="theory", group="theory", kind="measured", x=x, y=tuple(predicted))
        return Panel(title=title, xlabel="one bit fewer", ylabel=label, xscale="linear", yscale="log2",
                     series=(marks, points), categories=labels)  # fmt: skip

    return Figure(
        id="bits",
        title="What one bit fewer costs, at the last layer",
        caption="Left: rounding noise at k-1 bits over that at k bits: 4 in dense cells, near 2 where all values lie below "
        "one step (marked <1), above 4 with few-bit integers. Right: the batch that buys the bit back, with sampling noise.",
        alt="Two plots by pair of formats: the noise ratio is near 4 for E4M3 down to E4M0, 5 and 10 for INT4 to INT3 to INT2, "
        "and near 2 below one step; the batch ratio is between 1 and 5. Measured marks lie on those of theory.",
        panels=(
            panel("noise", "noise ratio", ratios, [a / b for a, b in says]),
            panel("batch", "b' / b", costs, [theory.batch_ratio(sigma2, a, b) for a, b in says]),
        ),
    )


def _pair(fewer: Sequence[Record], more: Sequence[Record]) -> str:
    mark = "<1\n" if fewer[0]["arm"] == "underflow" else ""
    return f"{short_name(more[0]['format'])}\n{short_name(fewer[0]['format'])}\n{mark}".strip()


def _absmax(records: Sequence[Record], family: Family) -> Figure:
    curves: list[Series] = []
    for arm, words in (("last layer", "frozen scale"), ("abs-max", "abs-max scale")):
        for _, group in families(records, (BOTH,), arm=arm, mode="SR"):
            name = short_name(group[0]["format"])
            if name not in ("int8", "int4"):
                continue
            label = f"{name}, {words}"
            curves.append(curve(label, label, group, f"{ALL}.variance", family))
            if f"{ALL}.theory" in group[0]:
                curves.append(line(label, label, [r["batch"] for r in group], [r[f"{ALL}.theory"] for r in group]))
    return Figure(
        id="absmax",
        title="A scale re-derived from each batch changes the slope",
        caption="Last layer, inputs and errors rounded. With an abs-max scale the step grows with the batch's maximum, so the "
        "noise falls more slowly than 1/b; lines are A-T1 with each batch's own step.",
        alt="Log-log plot of variance against batch size for INT8 and INT4, with a frozen and with a re-derived scale: the "
        "latter starts lower and falls more slowly.",
        panels=(
            Panel(title="both, last layer", xlabel=BATCH, ylabel="Var(g | batch)", xscale="log2", yscale="log10",
                  series=tuple(curves)),
        ),
    )  # fmt: skip


# --- Tables --------------------------------------------------------------------------------------------------


def _tables(
    records: Sequence[Record], at: Point, judged: Mapping[str, Sequence[Judged]], family: Family
) -> Iterable[Table]:
    for name, id_, title, value in (
        ("variance-exact", "exact", "Measured variance over that of A-T1", "measured / theory"),
        ("weight-exact", "shared", "Measured variance over that of A-T2", "measured / theory"),
    ):
        yield Table(
            id=id_, title=title, columns=("cell", value, "low", "high", "outcome"),
            rows=tuple(_row(j) for j in judged.get(name, ())),
        )  # fmt: skip
    yield Table(
        id="slopes", title="Slopes and floors", columns=("claim", "curve", "value", "low", "high", "outcome"),
        rows=tuple((name, *_row(j)) for name in ("one-over-b", "weight-floor", "absmax-slope") for j in judged.get(name, ())),
        note="Slopes of log variance against log b; for weights the share of the variance at the largest batch that stays. "
        "All cells of one batch size have the same batches, so that what is particular to these is in every slope alike.",
    )  # fmt: skip
    yield _bias_table(records, family)
    yield Table(
        id="bits", title="One bit fewer", columns=("claim", "formats", "value", "low", "high", "outcome"),
        rows=tuple((name, *_row(j)) for name in ("bit-noise", "bit-dense", "bit-underflow", "bit-coarse", "bit-full-range")
                   for j in judged.get(name, ())),
        note="bit-noise: the noise of k-1 over that of k bits, measured over that of A-T1; the others: as measured.",
    )  # fmt: skip
    yield Table(
        id="networks", title="Other networks: each its own interval",
        columns=("claim", "cells", "value", "low", "high", "outcome"),
        rows=tuple((name, *_row(j)) for name in judged if name.startswith(NETWORKS) for j in judged[name]),
        note="|bias|² / |g|² of each network, and the noise of k-1 over that of k bits.",
    )  # fmt: skip
    yield _noise_table(records, at, family)
    yield _count_table(records)


def _row(judged: Judged) -> tuple[Cell, ...]:
    i = judged.interval
    return (judged.check.label, i.value, i.low, i.high, str(judged.outcome))


def _bias_table(records: Sequence[Record], family: Family) -> Table:
    rows: list[tuple[Cell, ...]] = []
    points = ("fwd_act", "fwd_weight", "bwd_act", "bwd_weight", "bwd_grad", "bwd_act+bwd_grad", BACKWARD, "all")
    for label, group in families(records, points, scale="frozen"):
        if group[0]["arm"] != "few bits":
            i = family.interval(bias(group))
            ends = [100 * math.sqrt(max(0.0, end)) for end in (i.value, i.low, i.high)]
            rows.append(
                (short_name(group[0]["format"]), group[0]["mode"], label.split(", ", 1)[1], *ends, 100 * clamped(group))
            )
    return Table(
        id="bias",
        title="Bias of the gradient, in percent of its norm",
        columns=("format", "mode", "points", "|bias| %", "low %", "high %", "clamped %"),
        rows=tuple(rows),
        note="Pooled over batch sizes. 0 stands for an estimate of |bias|² at or below zero. Forward points bias the gradient "
        "even with stochastic rounding, since the loss is not linear in them. Clamped: the share of the rounded elements "
        "that lay beyond the largest value; a clamped element is biased in any mode.",
    )  # fmt: skip


def _noise_table(records: Sequence[Record], at: Point, family: Family) -> Table:
    norm = gradient_norm(at) ** 2
    rows: list[tuple[Cell, ...]] = []
    for r in series(records, scale="frozen"):
        if r["arm"] in ("forward", "backward", "weights", "inputs", "last layer", "nearest") and r["batch"] in (
            1,
            64,
            1024,
        ):
            between = family.interval(estimate(r, f"{ALL}.between")).scaled(1 / norm)
            within: tuple[Cell, Cell] = (None, None)
            if r["mode"] == "SR":
                i = family.interval(estimate(r, f"{ALL}.variance")).scaled(1 / norm)
                within = i.value, i.half_width
            rows.append(
                (short_name(r["format"]), r["mode"], r["points"], r["batch"], *within, between.value, between.half_width)
            )  # fmt: skip
    return Table(
        id="noise", title="Variance over draws and over batches, relative to |g|²",
        columns=("format", "mode", "points", "b", "q²/b, over draws", "±", "σ²/b, over batches", "±"), rows=tuple(rows),
        note="q²/b and σ²/b in the words of Liu et al. Over draws: the mean over batches of Var(g | batch). Over batches: the "
        "mean squared distance of E(g | batch) from the unrounded gradient of the whole set. A deterministic rounding has one "
        "draw. Points of the last layer alone are relative to the whole |g|² too. All batch sizes are in result.json.",
    )  # fmt: skip


def _count_table(records: Sequence[Record]) -> Table:
    rows: list[tuple[Cell, ...]] = []
    for label, group in families(records, dict.fromkeys(r["points"] for r in records)):
        total = {
            name: sum(r[f"count.{name}"] for r in group)
            for name in ("elements", "saturated", "underflowed", "nan", "on_grid")
        }
        share = [100 * total[name] / total["elements"] for name in ("saturated", "underflowed", "nan", "on_grid")]
        rows.append((group[0]["arm"], label, total["elements"], *share))
    return Table(
        id="hypotheses", title="What broke a hypothesis, in percent of the rounded elements",
        columns=("arm", "cells", "elements", "saturated %", "underflowed %", "NaN %", "on the grid %"), rows=tuple(rows),
        note="Unbiasedness needs no saturation. Frozen scales map the unrounded tensors into the range; what rounding "
        "upstream pushes beyond it is counted here. An element rounded to zero is no fault of SR.",
    )  # fmt: skip
