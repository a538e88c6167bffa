"""The tables of the study: the main one beside the answer, and those below."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from qsim.formats import short_name
from qsim.measure import Estimate, Family, Interval, quotient
from qsim.studies.gradient_variance.cell import ALL, estimate
from qsim.studies.gradient_variance.claims import (
    Judged,
    bias,
    clamped,
    families,
    gradient_norm,
    noise,
    pairs,
    series,
)
from qsim.studies.gradient_variance.figures import MODES, list_point_sets, locate_labels
from qsim.studies.gradient_variance.plan import BACKWARD, NETWORKS, Plan
from qsim.studies.gradient_variance.point import Point
from qsim.studies.result import Cell, Table

__all__ = ["make_tables"]

Record = dict[str, Any]


def make_tables(
    every: Sequence[Record],
    records: Sequence[Record],
    at: Point,
    plan: Plan,
    judged: Mapping[str, Sequence[Judged]],
    family: Family,
) -> tuple[Table, ...]:
    """Return the tables that have rows: of all records that no fault made, and of those that figures are about."""
    return tuple(table for table in _tables(every, records, at, plan, judged, family) if table.rows)


def _tables(
    every: Sequence[Record],
    records: Sequence[Record],
    at: Point,
    plan: Plan,
    judged: Mapping[str, Sequence[Judged]],
    family: Family,
) -> Iterable[Table]:
    where = locate_labels(every, at)
    yield _main_table(records, at, plan, family)
    for name, id_, title, value in (
        ("variance-exact", "exact", "Measured variance over theory (A-T1)", "measured / theory"),
        ("weight-exact", "shared", "Measured variance over theory (A-T2)", "measured / theory"),
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
        "bit-noise: q² at k-1 bits over q² at k bits, measured over theory (A-T1); the others: as measured.",
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
    """Return how much room is left between an interval and the nearest refuting one; less comes first."""
    check, i = judged.check, judged.interval
    if check.equal is not None:
        return -max(abs(i.low - check.equal), abs(i.high - check.equal))
    return min(i.low - check.low, check.high - i.high)


HEADS = {ALL: "all five", BACKWARD: "all three bwd"}


def _main_table(records: Sequence[Record], at: Point, plan: Plan, family: Family) -> Table:
    """Return the main table: format by point, the noise at one batch size, the bias, and the price of a bit."""
    norm = gradient_norm(at) ** 2
    frozen = [r for r in series(records, scale="frozen") if r["arm"] != "few bits"]
    sets = list_point_sets(frozen)
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
