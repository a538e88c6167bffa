"""The kind of study that measures the error of dot products against their length, by accumulator.

A cell is an accumulator at one length: independent dot products of random operands, added by `qsim.dot`, against the sum in
float64. `plan` reads the file, `compute` measures, `claims` decides, `result` shows.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

import qsim
from qsim.dot import Accumulator, dots_of
from qsim.errors import InputError, nearest
from qsim.formats import get_format
from qsim.measure import Estimate, Family, Interval, log_slope, quotient, sample_mean
from qsim.rounding import Key
from qsim.studies.claims import Check, claim_of, judged_by
from qsim.studies.result import Claim, Figure, Panel, Result, Series, Table
from qsim.studies.study import Study, expect
from qsim.verdicts import Outcome

__all__ = ["Cell", "Plan", "claims", "compute", "plan", "reads", "result"]

Record = dict[str, Any]
PIECE = 1 << 22
"""Terms that are added at a time."""
FAULT = "either neighbour with probability 1/2"


@dataclass(frozen=True, slots=True, kw_only=True)
class Cell:
    """Describe one accumulator at one length of dot products."""

    name: str
    #: The words of `Accumulator`, as JSON.
    accumulator: str
    operands: str
    data: str
    terms: int
    rows: int
    fault: str
    seed: int

    @property
    def label(self) -> str:
        """The words that tell it from the others."""
        return f"{self.name}, n = {self.terms}, {self.data}" + (f" ({self.fault})" if self.fault else "")

    @property
    def cost(self) -> float:
        """The work: terms."""
        return float(self.terms * self.rows)

    @property
    def memory(self) -> int:
        """The bytes that a process needs: the libraries, and a piece of operands."""
        return (250 << 20) + 64 * PIECE

    @property
    def rule(self) -> Accumulator:
        """The accumulator."""
        return Accumulator(**json.loads(self.accumulator))


@dataclass(frozen=True, slots=True)
class Plan:
    """Hold the cells, and the margins of the claims."""

    cells: Sequence[Cell]
    margins: Mapping[str, Mapping[str, Any]]
    faults: Mapping[str, Sequence[str]]
    rate: float


MARGINS: Mapping[str, Mapping[str, Any]] = {
    "unbiased": {"accumulators": list, "bias": float}, "bound": {"accumulators": dict},
    "root": {"accumulators": list, "slope": list}, "stagnates": {"accumulators": list, "bias": float},
    "few-bits": {"accumulators": list, "bias": float}, "enough-bits": {"accumulators": list, "bias": float},
    "remedies": {"accumulators": list, "error": float}, "alignment": {"accumulators": list, "ratio": float},
    "promotion": {"accumulators": list, "ratio": float},
}  # fmt: skip


def plan(study: Study, size: Literal["full", "quick"]) -> Plan:
    """Return the cells of the grid; raise `InputError` naming the line of a wrong entry."""
    place = study.place
    tables = expect(
        place,
        dict(study.tables),
        {"statistics": dict, "grid": dict, "full": dict, "quick": dict, "margins": dict, "faults": dict},
    )
    where = place.at("statistics", label="[statistics]")
    statistics = expect(where, tables["statistics"], {"false_alarm_rate": float, "seed": int})
    where = place.at("grid", label="[grid]")
    grid = expect(where, tables["grid"], {"operands": str, "data": list, "accumulators": dict})
    own = expect(place.at(size, label=f"[{size}]"), tables[size], {"terms": list, "rows": int})
    if set(grid["data"]) - {"positive", "signed"} or own["rows"] < 2 or any(n < 1 or n > 1 << 20 for n in own["terms"]):
        raise where.refuse('data are "positive" or "signed", rows 2 or more, and terms 1 to 2^20')
    cells = []
    shared = {"operands": get_format(grid["operands"]).name, "rows": own["rows"], "seed": statistics["seed"]}
    for name, words in grid["accumulators"].items():
        try:
            Accumulator(**words)
        except (InputError, TypeError) as error:
            raise where.refuse(f"{name}: {error}", "accumulators", name) from None
        cells += [
            Cell(name=name, accumulator=json.dumps(words, sort_keys=True), data=data, terms=n, fault="", **shared)
            for data in grid["data"] for n in own["terms"]
        ]  # fmt: skip
    margins = {}
    for name, margin in tables["margins"].items():
        if name not in MARGINS:
            raise place.at("margins", label="[margins]").refuse(
                f"no claim is called {name!r}; did you mean {nearest(name, MARGINS)}?", name
            )
        where = place.at("margins", name, label=f"[margins.{name}]")
        margins[name] = expect(where, margin, {"guess": str, "expected": str, **MARGINS[name]})
        for key in ("guess", "expected"):
            if margins[name][key] not in {str(outcome) for outcome in Outcome}:
                raise where.refuse(f"{key} = {margins[name][key]!r} must be held, refuted or not decided", key)
        for accumulator in margins[name]["accumulators"]:
            if accumulator not in grid["accumulators"]:
                known = nearest(accumulator, grid["accumulators"])
                raise where.refuse(f"no accumulator is called {accumulator!r}; did you mean {known}?", "accumulators")
    faults = {name: fault["claims"] for name, fault in tables["faults"].items()}
    if set(faults) - {FAULT}:
        raise place.refuse(f"the fault of this kind is called {FAULT!r}", "faults")
    for fault in faults:
        cells += [
            Cell(name="bf16 SR", accumulator='{"format": "bfloat16:SRE"}', data="positive", terms=n, fault=fault, **shared)
            for n in own["terms"]
        ]  # fmt: skip
    return Plan(cells, margins, faults, statistics["false_alarm_rate"])


def reads(_: Cell) -> Mapping[str, str]:
    """Return nothing: operands are drawn by the seed."""
    return {}


def compute(cell: Cell) -> Record:
    """Return bias and root mean square of the error of a cell's dot products, relative to the sum of magnitudes."""
    errors = []
    each = max(PIECE // cell.terms, 1)
    words = repr((cell.name, cell.data, cell.terms, cell.fault)).encode()
    stream = int.from_bytes(hashlib.sha256(words).digest()[:5], "little")
    for begin in range(0, cell.rows, each):
        rows = min(each, cell.rows - begin)
        rng = np.random.Generator(np.random.Philox(key=[cell.seed, (cell.terms << 32) + begin]))  # the same for all
        a, b = (qsim.quantize(rng.standard_normal((rows, cell.terms), np.float32), cell.operands) for _ in range(2))
        if cell.data == "positive":
            a, b = np.abs(a), np.abs(b)
        key = Key(cell.seed, stream, begin) if cell.rule.stochastic else None
        found = dots_of(a, b, cell.rule, inputs=cell.operands, key=key)
        products = a.astype(np.float64) * b
        errors.append((found - products.sum(1)) / np.abs(products).sum(1))
    error = np.concatenate(errors)
    bias, square = sample_mean(error), sample_mean(error**2)
    return {
        "accumulator": cell.name, "words": cell.accumulator, "data": cell.data, "terms": cell.terms, "rows": cell.rows,
        "fault": cell.fault, "bias.value": bias.value, "bias.error": bias.error, "square.value": square.value,
        "square.error": square.error, "largest.error": float(np.abs(error).max()),
    }  # fmt: skip


# --- Claims ----------------------------------------------------------------------------------------------------------


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


def claims(plan: Plan, records: Sequence[Record]) -> list[Claim]:
    """Judge the claims by these records."""
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


# --- The page --------------------------------------------------------------------------------------------------------


def error_table(records: Sequence[Record]) -> Table:
    """Return the root mean square error of every accumulator by length."""
    terms = sorted({r["terms"] for r in records})
    rows = []
    for data in dict.fromkeys(r["data"] for r in records):
        for name in dict.fromkeys(r["accumulator"] for r in records if not r["fault"]):
            cells = {r["terms"]: r for r in of(records, accumulator=name, data=data, fault="")}
            errors = [100 * math.sqrt(cells[n]["square.value"]) if n in cells else None for n in terms]
            last = cells.get(terms[-1])
            rows.append((name, data, *errors, None if last is None else 100 * last["bias.value"]))
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


def result(study: Study, size: Literal["full", "quick"], plan: Plan, records: Sequence[Record]) -> Result:
    """Return the result of the study."""
    found, table = claims(plan, records), error_table(records)
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
