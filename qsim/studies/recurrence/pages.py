"""The pages of the study: answer, setup and method, with the figures and the tables."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

from qsim.formats import short_name
from qsim.studies.recurrence.cell import FEWEST, ROUNDS
from qsim.studies.recurrence.claims import sound
from qsim.studies.recurrence.plan import Plan
from qsim.studies.result import Claim, Figure, Panel, Result, Series, Table
from qsim.studies.study import Study
from qsim.verdicts import Outcome

__all__ = ["result"]

Record = dict[str, Any]


def drift_table(plan: Plan, records: Sequence[Record]) -> Table:
    """Return the exact drift of every format and rounding, a column a memory."""
    decays = sorted({r["decay"] for r in records})
    rows = []
    for kind in ("charge", "decay"):
        for fmt, mode in dict.fromkeys((r["format"], r["mode"]) for r in sound(records)):
            cells = {r["decay"]: r for r in sound(records, format=fmt, mode=mode, input=kind, rounds=ROUNDS)}
            drift = [100 * cells[k]["exact.drift"] if k in cells else None for k in decays]
            spread = cells.get(plan.longest, {}).get("exact.deviation")
            rows.append((short_name(fmt), mode, kind, *drift, None if spread is None else 100 * spread))
    heads = tuple(f"drift, a = 1 - 2^-{k} (%)" for k in decays)
    return Table(
        id="drift", title="Drift of the state from the unrounded one, exact over all random words",
        columns=("format", "rounding", "input", *heads, "standard deviation at the longest (%)"), rows=tuple(rows),
        note="Of the unrounded state after the last step; the deviation is in per cent of 1. A charge begins at 0, a decay at "
        "the target without input.",
    )  # fmt: skip


def enough(plan: Plan, records: Sequence[Record], drift: float) -> Table:
    """Return the least number of random bits of the grid with which a charge at the longest memory drifts by little."""
    rows = []
    for fmt in dict.fromkeys(r["format"] for r in records):
        row: list[Any] = [short_name(fmt)]
        for most in (10 * drift, drift, drift / 10):
            cells = [
                r for r in sound(records, format=fmt, decay=plan.longest, input="charge", rounds=ROUNDS) if r["bits"]
            ]
            few = [r["bits"] for r in cells if abs(r["exact.drift"]) <= most]
            row.append(min(few) if few else None)
        rows.append(tuple(row))
    heads = tuple(f"drift at most {100 * most:g} %" for most in (10 * drift, drift, drift / 10))
    return Table(
        id="enough", title=f"Fewest random bits of the grid that are enough, a = 1 - 2^-{plan.longest}",
        columns=("format", *heads), rows=tuple(rows), note="Of the numbers of random bits in the grid; 32 is SR.",
    )  # fmt: skip


def bits_figure(records: Sequence[Record]) -> Figure:
    """Return the drift of a charge against the number of random bits, exact and simulated."""
    panels = []
    for decay in sorted({r["decay"] for r in records}):
        series = []
        for fmt in dict.fromkeys(r["format"] for r in records):
            cells = sorted(
                (r for r in sound(records, format=fmt, decay=decay, input="charge", rounds=ROUNDS) if 0 < r["bits"] < 32),
                key=lambda r: r["bits"],
            )  # fmt: skip
            cells = [r for r in cells if r["exact.drift"] < 0]
            if not cells:
                continue
            x = tuple(float(r["bits"]) for r in cells)
            exact = tuple(-100 * r["exact.drift"] for r in cells)
            name = short_name(fmt)
            series.append(Series(label=name, group=name, kind="theory", x=x, y=exact, role="exact"))
            seen = [(r, 1 - r["simulated.mean"] / r["unrounded.state"]) for r in cells]
            seen = [(r, d) for r, d in seen if d > 4 * r["simulated.mean.error"] / r["unrounded.state"]]
            if seen:
                half = [4 * r["simulated.mean.error"] / r["unrounded.state"] for r, _ in seen]
                series.append(Series(
                    label=name, group=name, kind="measured", x=tuple(float(r["bits"]) for r, _ in seen),
                    y=tuple(100 * d for _, d in seen), low=tuple(100 * (d - e) for (_, d), e in zip(seen, half, strict=True)),
                    high=tuple(100 * (d + e) for (_, d), e in zip(seen, half, strict=True)), role="simulated",
                ))  # fmt: skip
        panels.append(Panel(
            title=f"a = 1 - 2^-{decay}", xlabel="random bits N", ylabel="drift toward zero (%)", xscale="linear",
            yscale="log10", series=tuple(series),
        ))  # fmt: skip
    return Figure(
        id="bits", title="Drift against random bits",
        caption="Drift of a charged state toward zero under StochasticA with N random bits. Lines: exact over all words. "
        "Rings: simulated chains, with four standard errors; those that are not above zero by so much are left out.",
        alt="Each random bit more halves the drift, in every format; a longer memory drifts more.", panels=tuple(panels),
    )  # fmt: skip


def spread_figure(records: Sequence[Record]) -> Figure:
    """Return the deviates of the chi-square tests of all cells."""
    formats = list(dict.fromkeys(short_name(r["format"]) for r in records))
    series = []
    for rounds in sorted({r["rounds"] for r in sound(records)}, reverse=True):
        cells = [r for r in sound(records, rounds=rounds) if r["fit.bins"] > 1]
        x = tuple(float(formats.index(short_name(r["format"]))) for r in cells)
        name = f"{rounds} rounds"
        series.append(Series(
            label=name, group=name, kind="measured", x=x, y=tuple(r["fit.z"] for r in cells), role=name, small=rounds == ROUNDS,
        ))  # fmt: skip
    panel = Panel(
        title="All cells with more than one state", xlabel="", ylabel="chi-square (standard deviations)", xscale="linear",
        yscale="linear", series=tuple(series), categories=tuple(formats), sideways=True,
    )  # fmt: skip
    return Figure(
        id="spread", title="Simulated chains against the exact distribution",
        caption="How far the states of the simulated chains are from their exact distribution, as a normal deviate of "
        "Pearson's chi-square: a point a cell.",
        alt="The deviates of all cells lie around zero, for ten, seven and five rounds of Philox alike.", panels=(panel,),
    )  # fmt: skip


def answer_of(plan: Plan, records: Sequence[Record], found: Sequence[Claim], table: Table) -> str:
    """Return the answer, made from the numbers."""
    verdicts = {claim.id: claim for claim in found}
    lines = []
    if "distribution" in verdicts:
        lines.append(
            f"Simulated chains {'have' if verdicts['distribution'].outcome is Outcome.HELD else 'do not all have'} the exact "
            f"distribution: {verdicts['distribution'].covered}."
        )
    longest = [row for row in table.rows if row[2] is not None]
    if longest:
        told = ", ".join(f"{row[0]} {row[2]}" for row in longest)
        lines.append(
            f"Random bits that keep the drift of a state with a memory of 2^{plan.longest} tokens within 1 %: {told}."
        )
    nearest = sound(records, mode="RNE", decay=plan.longest, input="charge")
    if nearest:
        told = ", ".join(f"{short_name(r['format'])} {100 * r['exact.drift']:+.3g} %" for r in nearest)
        lines.append(f"Rounding to nearest drifts: {told}.")
    stochastic = [r for r in sound(records, mode="SR", rounds=ROUNDS) if r["wide.drift"] is not None]
    if stochastic:
        most, wide = (max(abs(r[name]) for r in stochastic) for name in ("exact.drift", "wide.drift"))
        lines.append(
            f"SR with 32 random bits drifts by at most {most:.2g} of the state, alike in all formats: so much comes of a h + u "
            f"in float32. With the sum in float64 it drifts by at most {wide:.1g}, the error of computing the distribution."
        )
    if "rounds" in verdicts:
        outcome = verdicts["rounds"].outcome
        lines.append(
            "Five and seven rounds of Philox cannot be told from ten by the states."
            if outcome is Outcome.HELD
            else f"That five and seven rounds of Philox do as well is {outcome}."
        )
    guesses = {name: margin["guess"] for name, margin in plan.margins.items()}
    missed = [claim.id for claim in found if not claim.fault and str(claim.outcome) != guesses[claim.id]]
    told = (
        f"guessed otherwise before the first run: {', '.join(missed)}"
        if missed
        else "nothing was guessed otherwise before"
    )
    lines.append(f"{told[0].upper()}{told[1:]}.")
    return "\n".join(lines)


METHOD = (
    (
        "Over all random words the state is a Markov chain on the values of its format: of the 2^N words floor(nu 2^N) take a "
        "number up, nu being the fraction of its interval. The distribution is propagated step by step in float64, without "
        "sampling, and gives mean, deviation and drift exactly, to rounding errors of the order of 1e-12."
    ),
    (
        "The simulated chains are rounded by the kernels. Their states after the last step are compared with that "
        f"distribution by Pearson's chi-square, states that are expected to hold fewer than {FEWEST:.0f} chains sharing a bin, "
        "and the probability of so much by chance is written as a normal deviate. Fewer rounds than ten are computed by NumPy."
    ),
    "Drift is E h less the unrounded state, over that state. It is exact, so its intervals are points.",
)


def result(
    study: Study, size: Literal["full", "quick"], plan: Plan, records: Sequence[Record], found: Sequence[Claim]
) -> Result:  # fmt: skip
    """Return the result of the study."""
    fewest = enough(plan, records, 0.01)
    cell = plan.cells[0]
    return Result(
        study=study.name, title=study.title, question=study.question, answer=answer_of(plan, records, found, fewest),
        lead="bits", main="enough", run=size, command=study.command,
        setup=(
            ("recurrence", "h <- Q(fl(fl(a h) + u)), products and sums in float32"),
            ("first state and target", f"charge: 0 to {cell.target:g}; decay: from {cell.target:g} without input"),
            ("steps", f"{cell.spans} times 2^k, a = 1 - 2^-k"),
            ("chains", f"{cell.chains} of each cell, independent"),
            ("integers", "a frozen step of 2^(1 - bits), so that the range is -1 to 1"),
            ("random words", f"Philox4x32, seed {cell.seed}, a stream a cell; chain i takes word i + t chains in step t"),
        ),
        claims=tuple(found), figures=(bits_figure(records), spread_figure(records)),
        tables=(fewest, drift_table(plan, records)),
        method=METHOD,
        cells=tuple(records),
        terms=(
            ("SR", "stochastic rounding with 32 random bits"),
            ("SRA(N)", "stochastic rounding with N random bits, StochasticA of IEEE P3109: up iff floor(nu 2^N) + R >= 2^N"),
            ("RNE", "rounding to nearest, ties to the even code"),
            ("drift", "mean of the state over all random words, less the unrounded state, over that state"),
        ),
    )  # fmt: skip
