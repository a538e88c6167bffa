"""The pages of the study: answer, setup and method, with the figure and the table."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Literal

from qsim.measure import Family
from qsim.studies.accumulation.claims import of, square_of
from qsim.studies.accumulation.plan import Plan
from qsim.studies.result import Claim, Figure, Panel, Result, Series, Table
from qsim.studies.study import Study

__all__ = ["result"]

Record = dict[str, Any]


def error_table(records: Sequence[Record]) -> Table:
    """Return the root mean square error of every accumulator by length."""
    terms = sorted({r["terms"] for r in records})
    rows = []
    for data in dict.fromkeys(r["data"] for r in records):
        for name in dict.fromkeys(r["accumulator"] for r in records if not r["fault"]):
            cells = {r["terms"]: r for r in of(records, accumulator=name, data=data, fault="")}
            errors = [f"{100 * math.sqrt(cells[n]['square.value']):.3g}" if n in cells else None for n in terms]
            last = cells.get(terms[-1])
            rows.append((name, data, *errors, None if last is None else f"{100 * last['bias.value']:.3g}"))
    return Table(
        id="error", title="Root mean square error by accumulator, of the sum of magnitudes",
        columns=("accumulator", "terms", *(f"error at n = {n} (%)" for n in terms), f"mean error at n = {terms[-1]} (%)"),
        rows=tuple(rows), note="A mean error as large as the root mean square says that terms are lost one way.",
    )  # fmt: skip


def error_figure(plan: Plan, records: Sequence[Record]) -> Figure:
    """Return the error against the number of terms, with intervals, and the bound of stochastic rounding."""
    family = Family(plan.rate, max(1, len(records)))
    panels = []
    for data in dict.fromkeys(r["data"] for r in records):
        series = []
        for name in dict.fromkeys(r["accumulator"] for r in records if not r["fault"]):
            rows = [r for r in of(records, accumulator=name, data=data, fault="") if r["square.value"] > 0]
            if not rows:
                continue
            intervals = [family.interval(square_of(r)) for r in rows]
            y = [100 * math.sqrt(i.value) for i in intervals]
            low = [100 * math.sqrt(max(i.low, i.value / 100)) for i in intervals]
            high = [100 * math.sqrt(i.high) for i in intervals]
            series.append(Series(
                label=name, group=name, kind="measured", x=tuple(float(r["terms"]) for r in rows), y=tuple(y), low=tuple(low),
                high=tuple(high), role="measured",
            ))  # fmt: skip
        panels.append(Panel(
            title=f"{data} terms", xlabel="terms n", ylabel="root mean square error (%)", xscale="log2", yscale="log10",
            series=tuple(series),
        ))  # fmt: skip
    return Figure(
        id="error", title="Error of dot products against their length",
        caption="Root mean square error over independent dot products, of the sum of magnitudes, with simultaneous intervals.",
        alt="Rounding to nearest in bfloat16 loses most of a long positive sum; stochastic rounding levels off.",
        panels=tuple(panels),
    )  # fmt: skip


METHOD = (
    (
        "Every product is exact, and every partial sum is rounded as the accumulator has it (qsim.dot). The error is the "
        "difference from the sum in float64, whose own error is below 1e-12, over the sum of magnitudes."
    ),
    "Intervals are Student's t over independent dot products.",
)


def result(
    study: Study, size: Literal["full", "quick"], plan: Plan, records: Sequence[Record], found: Sequence[Claim]
) -> Result:  # fmt: skip
    """Return the result of the study."""
    table = error_table(records)
    cell = plan.cells[0]
    most = max(r["terms"] for r in records) if records else 0
    last = {r["accumulator"]: r for r in of(records, data="positive", terms=most, fault="")}
    told = [f"{name} {100 * math.sqrt(r['square.value']):.3g} %" for name, r in last.items()]
    guesses = {name: margin["guess"] for name, margin in plan.margins.items()}
    missed = [claim.id for claim in found if not claim.fault and str(claim.outcome) != guesses[claim.id]]
    lines = [
        f"Error of a dot product of {most} positive terms: {'; '.join(told)}.",
        f"Guessed otherwise before the first run: {', '.join(missed)}."
        if missed
        else "Nothing was guessed otherwise before.",
    ]
    return Result(
        study=study.name, title=study.title, question=study.question, answer="\n".join(lines), lead="error", main="error",
        run=size, command=study.command,
        setup=(
            ("operands", f'normal numbers rounded to {cell.operands}; "positive" takes magnitudes'),
            ("rows", f"{cell.rows} independent dot products a cell, the same operands for every accumulator"),
            ("random words", f"Philox4x32-10, seed {cell.seed}, a stream a cell; N bits a step"),
        ),
        claims=tuple(found), figures=(error_figure(plan, records),), tables=(table,),
        method=METHOD,
        cells=tuple(records),
        terms=(
            ("SR", "stochastic rounding with 32 random bits"),
            ("SRA(N)", "stochastic rounding with N random bits, StochasticA of IEEE P3109"),
            ("RNE", "rounding to nearest, ties to the even code"),
            ("blocks of 32, 13 bits", "block fused multiply-add of 32 products, cut 13 bits below the largest exponent"),
        ),
    )  # fmt: skip
