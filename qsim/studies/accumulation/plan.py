"""What a study file asks of this kind: the grid of cells, and the margins of the claims."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from qsim.dot import Accumulator
from qsim.errors import InputError, nearest
from qsim.formats import get_format
from qsim.studies.accumulation.cell import Cell
from qsim.studies.study import Study, expect
from qsim.verdicts import Outcome

__all__ = ["FAULT", "Plan", "plan"]

FAULT = "either neighbour with probability 1/2"


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
