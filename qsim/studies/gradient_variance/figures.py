"""The figures of the study, as numbers: panels with series of points, intervals and lines."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from qsim import theory
from qsim.autograd import POINTS
from qsim.formats import short_name
from qsim.measure import Estimate, Family, quotient
from qsim.studies.gradient_variance.cell import ALL, LAST, estimate
from qsim.studies.gradient_variance.claims import (
    Judged,
    bias,
    families,
    gradient_norm,
    label_of,
    noise,
    pairs,
    predicted_noise,
    series,
)
from qsim.studies.gradient_variance.plan import BACKWARD, BOTH, Plan
from qsim.studies.gradient_variance.point import Point
from qsim.studies.result import Figure, Panel, Series

__all__ = ["MODES", "draw_figures", "list_point_sets", "locate_labels"]

Record = dict[str, Any]
BATCH = "batch size b"
NOISE = "q²/b, in |g|²"

WORDS: Mapping[str, str] = {
    "fwd_act": "forward inputs", "fwd_weight": "forward weights", "bwd_act": "backward inputs",
    "bwd_weight": "backward weights", "bwd_grad": "backward errors", ALL: "all five points",
}  # fmt: skip
"""The points of the study, each with what is rounded there."""


def draw_figures(
    records: Sequence[Record], at: Point, plan: Plan, judged: Mapping[str, Sequence[Judged]], family: Family
) -> tuple[Figure, ...]:
    """Return the figures that have something to show."""
    return tuple(_drawn(_figures(records, at, plan, judged, family)))


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
    return "theory (A-T2)" if "weight" in points else "theory (A-T1)"


def _called(points: str) -> str:
    """Return the name of a point set with the tensors rounded there: "bwd_grad, last layer (backward errors)"."""
    names = points.removeprefix(LAST)
    words = " and ".join(WORDS[name] for name in names.split("+"))
    if names == BACKWARD:
        words = "whole backward pass"
    where = ", last layer" if points.startswith(LAST) else ""
    return f"{names}{where} ({words})" if names != ALL else f"{words}{where}"


def list_point_sets(records: Iterable[Record]) -> list[str]:
    """Return the point sets of `records` that round at all layers: the five one by one, then sets of several."""
    found = dict.fromkeys(r["points"] for r in records if not r["points"].startswith(LAST) and not r["fault"])
    order = [*POINTS, *(points for points in found if points not in (*POINTS, ALL)), ALL]
    return [points for points in order if points in found]


def _overview(records: Sequence[Record], at: Point, family: Family) -> Figure:
    """Show every point set against batch size, a curve a format: the study at a glance."""
    norm = gradient_norm(at) ** 2
    sigma2 = sum(at.sampling_variance(layer) for layer in at.layers) / norm
    panels = []
    for points in list_point_sets(records):
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
    where = locate_labels(records, at)
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
        "theory is exact (A-T1, the variance theorem; for backward weights A-T2, the one on shared weights). Ring and bar: "
        "of each row the one simultaneous interval that reaches farthest from 1. "
        "Line: theory. Cells of one batch size share their batches, so the rows of one panel are "
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
        title="Noise drawn anew for each sample, at the last layer: measured, and in theory (A-T1)",
        caption="Variance of the last layer's weight gradient over stochastic roundings, given the batch, against batch size, "
        "one colour a format. Rings with simultaneous intervals (often smaller than the ring) are measured; lines are theory "
        "(A-T1) on the same batches, no fitted number. Both fall as 1/b.",
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
        "simultaneous intervals are measured; lines are theory (A-T2) where it is exact, with no fitted number.",
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
    panels = [_bias_panel(points, records, family) for points in list_point_sets(records)]
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
        "included, which is exact on both sides. Rings with intervals are measured, short lines are theory (q² by A-T1, the "
        "variance theorem); the colour is that of the format with fewer bits.",
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
                role = "theory (A-T1)" if arm == "last layer" else "theory (A-T1), each batch's step"
                curves.append(line(label, name, [r["batch"] for r in group], says, role))
    return Figure(
        id="absmax",
        title="A scale re-derived from each batch changes the slope",
        caption="Variance of the last layer's gradient over stochastic roundings of inputs and errors, given the batch, "
        "against batch size, one colour a format. Rings: a frozen scale; squares: a scale "
        "re-derived from each batch's largest value, "
        "whose step grows with that value, so that the noise falls more slowly than 1/b. Lines are theory (A-T1).",
        alt="Log-log plot of variance against batch size for INT8 and INT4, with a frozen and with a re-derived scale: the "
        "latter starts lower and falls more slowly.",
        panels=(
            Panel(title=_called(BOTH), xlabel=BATCH, ylabel="q²/b, the last layer's", xscale="log2", yscale="log10",
                  series=tuple(curves)),
        ),
    )  # fmt: skip


# --- Tables --------------------------------------------------------------------------------------------------


def locate_labels(records: Sequence[Record], at: Point) -> dict[str, Record]:
    """Return the subject of each label of a check: a record with its layer, a family of records, or a pair."""
    found: dict[str, Record] = {}
    for r in records:
        found.setdefault(label_of(r), {**r, "b": r["batch"]})
        for layer in at.layers:
            found.setdefault(f"{label_of(r)}, {layer}", {**r, "b": r["batch"], "layer": layer})
    for label, group in families(records, dict.fromkeys(r["points"] for r in records)):
        found.setdefault(label, {**group[0], "b": None})
    return found
