"""From a study file to its cells: the grid, the sizes of a quick and of a full run, the planted faults."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from qsim.autograd import POINTS
from qsim.errors import InputError, enumerate_names
from qsim.formats import get_format
from qsim.rounding import STREAM_FIELDS
from qsim.studies.gradient_variance.cell import ALL, LAST, Cell
from qsim.studies.gradient_variance.point import ModelSpec
from qsim.studies.study import Study, expect

__all__ = ["CLAIMS", "Plan", "plan"]

DRAWS = ("light", "coarse", "medium", "wide", "fine", "many")
"""How many draws an arm takes: a table of each name in [full] and [quick]."""

FAULTS = ("reused draw", "shared word", "after the mean")

CLAIMS: Mapping[str, Mapping[str, type]] = {
    "variance-exact": {"half_width": float},
    "one-over-b": {"slope": list, "arms": list},
    "weight-floor": {"share": float},
    "weight-exact": {"half_width": float},
    "sr-unbiased": {"bias": float},
    "nearest-biased": {"bias": float, "formats": list},
    "bit-cost": {"half_width": float, "pairs": list},
    "bit-dense": {"ratio": list, "pairs": list},
    "bit-underflow": {"ratio": list, "pairs": list},
    "bit-coarse": {"ratio": list, "pairs": list},
    "absmax-slope": {"slope": list},
}
"""The claims that this kind of study can decide, and the margins each needs."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """Hold what will be run: the cells, and the margins that their claims were given."""

    model: ModelSpec
    rate: float
    cells: tuple[Cell, ...]
    #: Claim id -> margins, as in the file.
    margins: Mapping[str, Mapping[str, Any]]
    #: Fault name -> ids of the claims that must refute it.
    faults: Mapping[str, tuple[str, ...]]


def plan(study: Study, run: Literal["full", "quick"]) -> Plan:
    """Return the cells of a run; raise `InputError` naming the file, the table and the key that is wrong."""
    where = str(study.path)
    tables = expect(where, dict(study.tables), {
        "model": dict, "statistics": dict, "full": dict, "quick": dict, "arm": list, "fault": list, "claims": dict,
    })  # fmt: skip
    model = _model(f"{where}: [model]", tables["model"])
    statistics = expect(f"{where}: [statistics]", tables["statistics"], {
        "false_alarm_rate": float, "groups": int, "seed": int,
    })  # fmt: skip
    for key, low, high in (("groups", 3, 1 << 16), ("seed", 0, (1 << 64) - 1)):
        _within(f"{where}: [statistics]", key, statistics[key], low, high)
    if not 0 < statistics["false_alarm_rate"] < 1:
        raise InputError(
            f"{where}: [statistics]: false_alarm_rate = {statistics['false_alarm_rate']} must be between 0 and 1"
        )
    sizes = expect(f"{where}: [{run}]", tables[run], {"batch_sizes": list, **dict.fromkeys(DRAWS, dict)})
    for name in DRAWS:
        counts = expect(
            f"{where}: [{run}] {name}", sizes[name], {"samples": int, "fewest": int, "most": int, "draws": int}
        )
        for key, number in counts.items():
            _within(f"{where}: [{run}] {name}", key, number, 1, 1 << 32)
    make = _Maker(model=model, groups=statistics["groups"], seed=statistics["seed"], sizes=sizes)
    cells: list[Cell] = []
    for number, arm in enumerate(tables["arm"], 1):
        if not isinstance(arm, dict):
            raise InputError(f"{where}: arm {number} is not a table of keys; write [[arm]] above its keys")
        cells += make.arm(f"{where}: [[arm]] {arm.get('name', '?')}", arm)
    faults: dict[str, tuple[str, ...]] = {}
    for number, fault in enumerate(tables["fault"], 1):
        if not isinstance(fault, dict):
            raise InputError(f"{where}: fault {number} is not a table of keys; write [[fault]] above its keys")
        spot = f"{where}: [[fault]] {fault.get('name', '?')}"
        expect(spot, fault, {"name": str, "claims": list, "formats": list, "points": str, "batch_sizes": list})
        _among(spot, "name", fault["name"], FAULTS)
        for claim in fault["claims"]:
            _among(spot, "claims", claim, tables["claims"])
        faults[fault["name"]] = tuple(fault["claims"])
        cells += make.fault(spot, fault)
    margins = {}
    for name, margin in tables["claims"].items():
        _among(f"{where}: [claims]", "a claim", name, CLAIMS)
        margins[name] = _margins(f"{where}: [claims.{name}]", expect(f"{where}: [claims.{name}]", margin, CLAIMS[name]))
    labels = [cell.label for cell in cells]
    twice = next((label for label in labels if labels.count(label) > 1), "") if len(set(labels)) < len(labels) else ""
    if twice or not cells:
        raise InputError(f"{where}: " + (f"the cell {twice} is asked for twice" if twice else "no arm asks for a cell"))
    return Plan(
        model=model, rate=statistics["false_alarm_rate"], cells=tuple(cells), margins=margins, faults=faults
    )  # fmt: skip


def _model(where: str, table: Any) -> ModelSpec:
    expect(where, table, {
        "widths": list, "train_steps": int, "train_batch": int, "learning_rate": float, "seed": int,
    })  # fmt: skip
    for key, low in (("train_steps", 0), ("train_batch", 1), ("seed", 0)):
        _within(where, key, table[key], low, (1 << 63) - 1)
    if not 0 <= table["learning_rate"] < float("inf"):
        raise InputError(f"{where}: learning_rate = {table['learning_rate']} must be a number of at least 0")
    widths = table["widths"]
    if len(widths) < 3 or widths[0] != 64 or widths[-1] != 10 or not all(type(w) is int and w > 0 for w in widths):
        raise InputError(
            f"{where}: widths = {widths} must be three or more positive integers, from 64 (pixels) to 10 (digits)"
        )
    return ModelSpec(**{**table, "widths": tuple(widths)})


def _within(where: str, key: str, number: int, low: int, high: int) -> None:
    if not low <= number <= high:
        raise InputError(f"{where}: {key} = {number} must be in {low} .. {high}")


def _margins(where: str, margin: dict[str, Any]) -> dict[str, Any]:
    """Return the margins of a claim if their lists are what they should be: ends of an interval, formats, pairs."""
    for key in ("half_width", "share", "bias"):
        if not 0 < margin.get(key, 1) < float("inf"):
            raise InputError(f"{where}: {key} = {margin[key]} must be positive")
    for key in ("slope", "ratio"):
        ends = margin.get(key, [0, 1])
        if len(ends) != 2 or not all(type(end) in (int, float) for end in ends) or ends[0] >= ends[1]:
            raise InputError(f"{where}: {key} = {ends} must be two numbers, the lower first")
    for pair in margin.get("pairs", []):
        if not isinstance(pair, list) or len(pair) != 3:
            raise InputError(f"{where}: pair {pair!r} must be an arm and two formats, the one of more bits first")
    for name in [*margin.get("formats", []), *(name for pair in margin.get("pairs", []) for name in pair[1:])]:
        _format(where, name)
    return margin


def _format(where: str, name: Any) -> str:
    try:
        return get_format(name).name
    except InputError as error:
        raise InputError(f"{where}: {error}") from None


def _among(where: str, key: str, value: Any, known: Any) -> None:
    if value not in known:
        raise InputError(f"{where}: {key} = {value!r} must be one of {enumerate_names(known)}")


@dataclass(frozen=True, slots=True, kw_only=True)
class _Maker:
    model: ModelSpec
    groups: int
    seed: int
    sizes: Mapping[str, Any]

    def arm(self, where: str, arm: Mapping[str, Any]) -> Iterator[Cell]:
        sizes = arm.get("batch_sizes", self.sizes["batch_sizes"])  # an arm may have batch sizes of its own
        expect(where, {**arm, "batch_sizes": sizes}, {
            "name": str, "draws": str, "formats": list, "modes": list, "points": list, "scale": str, "batch_sizes": list,
        })  # fmt: skip
        _among(where, "draws", arm["draws"], DRAWS)
        for key in ("formats", "modes", "points", "batch_sizes"):
            if not {**arm, "batch_sizes": sizes}[key]:
                raise InputError(f"{where}: {key} is an empty list")
        for name in arm["formats"]:
            for mode in arm["modes"]:
                for points in arm["points"]:
                    for batch in sizes:
                        yield self.cell(where, arm["draws"], arm["name"], name, mode, points, arm["scale"], batch)

    def fault(self, where: str, fault: Mapping[str, Any]) -> Iterator[Cell]:
        for name in fault["formats"]:
            for batch in fault["batch_sizes"]:
                yield self.cell(
                    where, "medium", "fault", name, "SR", fault["points"], "frozen", batch, fault=fault["name"]
                )  # fmt: skip

    def cell(
        self,
        where: str,
        draws: str,
        arm: str,
        name: str,
        mode: str,
        points: str,
        scale: str,
        batch: Any,
        fault: str = "",
    ) -> Cell:
        if not isinstance(points, str):
            raise InputError(f"{where}: points = {points!r} must be a list of texts")
        _among(where, "modes", mode, ("SR", "RNE"))
        _among(where, "scale", scale, ("frozen", "underflow", "absmax"))
        for site in [] if points.removeprefix(LAST) == ALL else points.removeprefix(LAST).split("+"):
            _among(where, "points", site, POINTS)
        if type(batch) is not int or not 1 <= batch <= 1 << 16:
            raise InputError(f"{where}: batch size {batch!r} must be a positive integer of at most 65536")
        size = self.sizes[draws]
        batches = min(max(size["samples"] // batch, size["fewest"]), size["most"])
        batches -= batches % self.groups  # as many in each group
        batches = max(batches, self.groups)
        each = max(2, -(-size["draws"] // batches)) if mode == "SR" else 1
        each += -each % 4 if each > 4 else 0  # so that draws can be taken a few at a time
        fmt = _format(where, name)
        if each * batches > 1 << STREAM_FIELDS["draw"]:
            raise InputError(f"{where}: {each * batches} draws do not fit the {STREAM_FIELDS['draw']} bits of a stream")
        kinds: Any = {"mode": mode, "scale": scale, "fault": fault}
        return Cell(
            model=self.model, arm=arm, format=fmt, points=points, batch=batch, batches=batches,
            draws=each, groups=self.groups, seed=self.seed, **kinds,
        )  # fmt: skip
