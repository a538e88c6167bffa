"""What a study file asks of this kind: the grid of cells, and the margins of the claims."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from qsim.errors import InputError, nearest
from qsim.formats import get_format
from qsim.rounding import Mode
from qsim.studies.recurrence.cell import FEWEST, ROUNDS, Cell
from qsim.studies.study import Study, expect
from qsim.verdicts import Outcome

__all__ = ["FAULT", "Plan", "plan"]


@dataclass(frozen=True, slots=True)
class Plan:
    """Hold the cells, and the margins of the claims."""

    cells: Sequence[Cell]
    margins: Mapping[str, Mapping[str, Any]]
    faults: Mapping[str, Sequence[str]]
    rate: float
    longest: int


MARGINS: Mapping[str, Mapping[str, Any]] = {
    "distribution": {}, "rounds": {}, "sr": {"drift": float}, "nearest": {"drift": float, "formats": list},
    "nearest-float16": {"drift": float, "formats": list}, "bits": {"drift": float, "formats": dict},
    "fewer-bits": {"drift": float, "formats": dict},
}  # fmt: skip
FAULT = "one word for all steps"


def plan(study: Study, size: Literal["full", "quick"]) -> Plan:
    """Return the cells of the grid; raise `InputError` naming the line of a wrong entry."""
    place = study.place
    tables = expect(
        place,
        dict(study.tables),
        {"statistics": dict, "grid": dict, "full": dict, "quick": dict, "margins": dict, "faults": dict},
    )
    statistics = expect(
        place.at("statistics", label="[statistics]"), tables["statistics"], {"false_alarm_rate": float, "seed": int}
    )
    lists = dict.fromkeys(("formats", "modes", "inputs", "rounds", "rounds_modes"), list)
    grid = expect(place.at("grid", label="[grid]"), tables["grid"], {"target": float, "spans": int, **lists})
    own = expect(place.at(size, label=f"[{size}]"), tables[size], {"decays": list, "chains": int})
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
    faults = {name: fault["claims"] for name, fault in tables["faults"].items()}
    if set(faults) - {FAULT}:
        raise place.refuse(f"the fault of this kind is called {FAULT!r}", "faults")
    shared = {"target": grid["target"], "spans": grid["spans"], "chains": own["chains"], "seed": statistics["seed"]}
    if not 0 < shared["target"] < 1 or shared["spans"] < 1 or shared["chains"] < FEWEST:
        raise place.refuse(f"target must be between 0 and 1, spans positive, and chains at least {FEWEST:.0f}", "grid")
    cells = [
        Cell(format=get_format(fmt).name, mode=mode, decay=decay, input=kind, rounds=ROUNDS, fault="", **shared)
        for fmt in grid["formats"] for mode in grid["modes"] for decay in own["decays"] for kind in grid["inputs"]
    ]  # fmt: skip
    longest = max(own["decays"])
    cells += [
        Cell(format=get_format(fmt).name, mode=mode, decay=decay, input="charge", rounds=rounds, fault="", **shared)
        for fmt in grid["formats"] for mode in grid["rounds_modes"] for rounds in grid["rounds"] for decay in own["decays"]
    ]  # fmt: skip
    for fault in faults:
        cells += [
            Cell(
                format=get_format(fmt).name,
                mode="SR",
                decay=longest,
                input="charge",
                rounds=ROUNDS,
                fault=fault,
                **shared,
            )
            for fmt in grid["formats"]
        ]
    for cell in cells:
        try:
            check_cell(cell)
        except InputError as error:
            raise place.refuse(str(error), "grid") from None
    return Plan(cells, margins, faults, statistics["false_alarm_rate"], longest)


def check_cell(cell: Cell) -> None:
    """Refuse what this kind does not compute."""
    if cell.fields["mode"] not in (Mode.RNE, Mode.SR, Mode.SRA) or cell.bits > 32:
        raise InputError(f"mode {cell.mode}: a state is rounded by RNE, SR, or SRA(N) with N <= 32")
    if get_format(cell.format).kind not in ("float", "integer"):
        raise InputError(f"{cell.format}: a state is a float or an integer")
    if not 1 <= cell.decay <= 12:
        raise InputError(f"decays must be 1 to 12, not {cell.decay}")
