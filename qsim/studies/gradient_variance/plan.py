"""From a study file to its cells: the grid, the sizes of a quick and of a full run, the planted faults."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from qsim.autograd import POINTS
from qsim.errors import InputError, enumerate_names
from qsim.formats import get_format
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
    sizes = expect(f"{where}: [{run}]", tables[run], {"batch_sizes": list, **dict.fromkeys(DRAWS, dict)})
    for name in DRAWS:
        expect(f"{where}: [{run}] {name}", sizes[name], {"samples": int, "fewest": int, "most": int, "draws": int})
    make = _Maker(model=model, groups=statistics["groups"], seed=statistics["seed"], sizes=sizes)
    cells: list[Cell] = []
    for arm in tables["arm"]:
        cells += make.arm(f"{where}: [[arm]] {arm.get('name', '?')}", arm)
    faults: dict[str, tuple[str, ...]] = {}
    for fault in tables["fault"]:
        spot = f"{where}: [[fault]] {fault.get('name', '?')}"
        expect(spot, fault, {"name": str, "claims": list, "formats": list, "points": str, "batch_sizes": list})
        _among(spot, "name", fault["name"], FAULTS)
        for claim in fault["claims"]:
            _among(spot, "claims", claim, CLAIMS)
        faults[fault["name"]] = tuple(fault["claims"])
        cells += make.fault(spot, fault)
    margins = {}
    for name, margin in tables["claims"].items():
        _among(f"{where}: [claims]", "a claim", name, CLAIMS)
        margins[name] = _margins(f"{where}: [claims.{name}]", expect(f"{where}: [claims.{name}]", margin, CLAIMS[name]))
    return Plan(
        model=model, rate=statistics["false_alarm_rate"], cells=tuple(cells), margins=margins, faults=faults
    )  # fmt: skip


def _model(where: str, table: Any) -> ModelSpec:
    expect(where, table, {
        "widths": list, "train_steps": int, "train_batch": int, "learning_rate": float, "seed": int,
    })  # fmt: skip
    widths = table["widths"]
    if len(widths) < 2 or widths[0] != 64 or widths[-1] != 10 or not all(type(w) is int and w > 0 for w in widths):
        raise InputError(f"{where}: widths = {widths} must be positive integers from 64 (pixels) to 10 (digits)")
    return ModelSpec(**{**table, "widths": tuple(widths)})


def _margins(where: str, margin: dict[str, Any]) -> dict[str, Any]:
    """Return the margins of a claim if their lists are what they should be: ends of an interval, formats, pairs."""
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
        _among(where, "modes", mode, ("SR", "RNE"))
        _among(where, "scale", scale, ("frozen", "underflow", "absmax"))
        for site in [] if points.removeprefix(LAST) == ALL else points.removeprefix(LAST).split("+"):
            _among(where, "points", site, POINTS)
        if type(batch) is not int or batch < 1:
            raise InputError(f"{where}: batch size {batch!r} must be a positive integer")
        size = self.sizes[draws]
        batches = min(max(size["samples"] // batch, size["fewest"]), size["most"])
        batches -= batches % self.groups  # as many in each group
        batches = max(batches, self.groups)
        each = max(2, -(-size["draws"] // batches)) if mode == "SR" else 1
        each += -each % 4 if each > 4 else 0  # so that draws can be taken a few at a time
        fmt = _format(where, name)
        kinds: Any = {"mode": mode, "scale": scale, "fault": fault}
        return Cell(
            model=self.model, arm=arm, format=fmt, points=points, batch=batch, batches=batches,
            draws=each, groups=self.groups, seed=self.seed, **kinds,
        )  # fmt: skip
