"""From a study file to its cells: the grid, the sizes of a quick and of a full run, the planted faults."""

from __future__ import annotations

import dataclasses
import itertools
import math
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from qsim.autograd import POINTS
from qsim.errors import InputError, enumerate_names, shown
from qsim.formats import Grid, get_format
from qsim.rounding import STREAM_FIELDS
from qsim.studies.gradient_variance.cell import ALL, LAST, Cell
from qsim.studies.gradient_variance.point import ModelSpec
from qsim.studies.lines import Place
from qsim.studies.result import FORMULA
from qsim.studies.study import Study, expect

__all__ = ["BACKWARD", "BOTH", "CLAIMS", "FAULT", "NETWORKS", "PER_SAMPLE", "Plan", "compared", "plan"]

BOTH = f"{LAST}bwd_act+bwd_grad"
BACKWARD = "bwd_act+bwd_weight+bwd_grad"
"""The point set of a whole backward pass."""

NETWORKS = "networks-"
"""How the names of the claims begin that are about the cells of arms with several networks, and about no others."""

PER_SAMPLE = ("bwd_act", "bwd_grad", "bwd_act+bwd_grad", f"{LAST}bwd_grad", BOTH)
"""The point sets whose roundings are drawn anew for each sample, and that do not touch the forward pass."""

FAULT = "fault"
"""The arm of the cells of planted faults."""

DRAWS = ("light", "coarse", "medium", "wide", "fine", "many")
"""How many draws an arm takes: a table of each name in [full] and [quick]."""

WEIGHT_DRAWS = ("shared", "separate")

FAULTS = ("reused draw", "shared word", "after the mean")

CLAIMS: Mapping[str, Mapping[str, type]] = {
    "variance-exact": {"half_width": float},
    "one-over-b": {"slope": list, "arms": list},
    "weight-floor": {"share": float},
    "weight-exact": {"half_width": float},
    "sr-unbiased": {"bias": float},
    "pass-unbiased": {"bias": float, "formats": list},
    "clamped-biased": {"bias": float, "formats": list},
    "all-biased": {"bias": float, "formats": list},
    "nearest-biased": {"bias": float, "formats": list},
    "bit-noise": {"half_width": float, "pairs": list},
    "bit-dense": {"ratio": list, "pairs": list},
    "bit-underflow": {"ratio": list, "pairs": list},
    "bit-coarse": {"ratio": list, "pairs": list},
    "bit-full-range": {"ratio": list, "pairs": list},
    "networks-nearest-biased": {"bias": float, "formats": list},
    "networks-bit-dense": {"ratio": list, "pairs": list},
    "networks-bit-coarse": {"ratio": list, "pairs": list},
    "absmax-slope": {"slope": list},
}
"""The claims that this kind of study can decide, and the margins each needs."""

FORMATS_OF: Mapping[str, tuple[str, tuple[str, ...]]] = {
    "pass-unbiased": ("SR", (BACKWARD,)),
    "clamped-biased": ("SR", (BACKWARD,)),
    "all-biased": ("SR", (ALL,)),
    "nearest-biased": ("RNE", ("bwd_act", "bwd_grad", BACKWARD)),
    "networks-nearest-biased": ("RNE", ("bwd_act", "bwd_grad", BACKWARD)),
}
"""Of each claim that names formats: the mode and the point sets of the cells that test it."""

ON_FAULTS = ("variance-exact", "one-over-b", "weight-floor", "weight-exact", "sr-unbiased")
"""The claims that cells of a planted fault can test: stochastic rounding at a frozen scale, in one format at a time."""

LONGEST_TRAINING, LARGEST_SEED = 1 << 32, (1 << 63) - 1

LONGEST = 100
"""Characters of an arm's name, which stands in tables, labels and files."""

LEAST = 1e-9
"""The least false-alarm rate: 1 minus a share of a smaller one is 1 in float64, and an interval then has no end."""


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
    """Return the cells of a run; raise `InputError` naming the file, the line, the table and the key that is wrong."""
    place = study.place
    tables = expect(place, {"rounding": {}, **study.tables}, {
        "model": dict, "rounding": dict, "statistics": dict, "full": dict, "quick": dict, "arm": list, "fault": list,
        "claims": dict,
    })  # fmt: skip
    model = _model(place.at("model", label="[model]"), tables["model"])
    where = place.at("rounding", label="[rounding]")
    rounding = expect(where, {"weight_draws": "shared", **tables["rounding"]}, {"weight_draws": str})
    _among(where, "weight_draws", rounding["weight_draws"], WEIGHT_DRAWS)
    where = place.at("statistics", label="[statistics]")
    statistics = expect(where, tables["statistics"], {"false_alarm_rate": float, "groups": int, "seed": int})
    for key, low, high in (("groups", 3, 1 << 16), ("seed", 0, (1 << 64) - 1)):
        _within(where, key, statistics[key], low, high)
    if not LEAST <= statistics["false_alarm_rate"] < 1:
        rate = statistics["false_alarm_rate"]
        raise where.refuse(
            f"false_alarm_rate = {rate} must be between 0 and 1, and at least {LEAST}", "false_alarm_rate"
        )
    where = place.at(run, label=f"[{run}]")
    sizes = expect(where, tables[run], {"batch_sizes": list, **dict.fromkeys(DRAWS, dict)})
    _list(where, sizes, "batch_sizes")
    for number, batch in enumerate(sizes["batch_sizes"]):
        _batch(where, batch, number)
    for name in DRAWS:
        spot = where.at(name, label=f"[{run}] {name}")
        counts = expect(spot, sizes[name], {"samples": int, "fewest": int, "most": int, "draws": int})
        for key, number in counts.items():
            _within(spot, key, number, 1, 1 << 32)
        if counts["fewest"] > counts["most"]:
            raise spot.refuse(f"fewest = {counts['fewest']} is more than most = {counts['most']}", "fewest")
    make = _Maker(
        model=model, groups=statistics["groups"], seed=statistics["seed"], sizes=sizes,
        weight_draws=rounding["weight_draws"],
    )  # fmt: skip
    cells: dict[str, Cell] = {}

    def take(spot: Place, made: Iterable[Cell]) -> None:
        for cell in made:
            if cell.label in cells:
                raise spot.refuse(f"the cell {cell.label} is asked for twice")
            cells[cell.label] = cell

    for number, arm in enumerate(tables["arm"]):
        spot = place.at("arm", number)
        if not isinstance(arm, dict):
            raise spot.refuse(f"arm {number + 1} is not a table of keys; write [[arm]] above its keys")
        spot = spot.at(label=_called("[[arm]]", arm))
        _name(spot, arm, tables["arm"][:number])
        take(spot, make.arm(spot, arm))
    faults: dict[str, tuple[str, ...]] = {}
    for number, fault in enumerate(tables["fault"]):
        spot = place.at("fault", number)
        if not isinstance(fault, dict):
            raise spot.refuse(f"fault {number + 1} is not a table of keys; write [[fault]] above its keys")
        spot = spot.at(label=_called("[[fault]]", fault))
        expect(spot, fault, {"name": str, "claims": list, "formats": list, "points": str, "batch_sizes": list})
        _among(spot, "name", fault["name"], FAULTS)
        if fault["name"] in faults:
            raise spot.refuse(f"the fault {fault['name']!r} is planted twice; one table says all about it", "name")
        for key in ("claims", "formats", "batch_sizes"):
            _list(spot, fault, key)
        for number_of_claim, claim in enumerate(fault["claims"]):
            _among(spot, "claims", claim, tables["claims"], number_of_claim)
            if claim not in ON_FAULTS:
                raise spot.refuse(
                    f"no cell of a planted fault tests {claim}; name {enumerate_names(ON_FAULTS)}",
                    "claims",
                    number_of_claim,
                )
        faults[fault["name"]] = tuple(fault["claims"])
        take(spot, make.fault(spot, fault))
    margins = {}
    for name, margin in tables["claims"].items():
        if name not in CLAIMS:
            raise place.at("claims", label="[claims]").refuse(
                f"a claim = {name!r} must be one of {enumerate_names(CLAIMS)}", name
            )
        spot = place.at("claims", name, label=f"[claims.{name}]")
        margins[name] = _margins(spot, expect(spot, margin, CLAIMS[name]))
        these = [c for c in cells.values() if not c.fault and bool(c.network) == name.startswith(NETWORKS)]
        _of_the_grid(spot, name, margins[name], these)
    if not cells:
        raise place.refuse("no arm asks for a cell", "arm")
    return Plan(
        model=model, rate=statistics["false_alarm_rate"], cells=tuple(cells.values()), margins=margins, faults=faults
    )  # fmt: skip


def _called(heading: str, table: Mapping[str, Any]) -> str:
    """Return what a reader calls a table of several."""
    name = table.get("name", "?")
    return f"{heading} {name if isinstance(name, str) and name.isprintable() and len(name) <= LONGEST else shown(name)}"


def _name(place: Place, arm: Mapping[str, Any], before: Sequence[Mapping[str, Any]]) -> None:
    """Refuse a name by which an arm cannot be told from others, in a claim, a table or a spreadsheet."""
    name = arm.get("name", "?")
    if not isinstance(name, str):
        return  # which `expect` refuses
    if not name or name != name.strip() or not name.isprintable() or len(name) > LONGEST:
        problem = f"must be 1 to {LONGEST} printable characters, without blanks at its ends"
    elif name.startswith(FORMULA):
        problem = f"begins with {name[0]}, as a formula does in a spreadsheet that opens cells.csv; begin with a letter"
    elif name == FAULT:
        problem = "is what the cells of planted faults are called; take another"
    elif name in [other.get("name") for other in before]:
        problem = "is asked for twice; claims know an arm by its name, so give each its own"
    else:
        return
    raise place.refuse(f"name = {shown(name)} {problem}", "name")


def _list(place: Place, table: Mapping[str, Any], key: str) -> None:
    """Refuse a list without an entry, or with one that is there twice."""
    if not table[key]:
        raise place.refuse(f"{key} is an empty list", key)
    for number, entry in enumerate(table[key]):
        if entry in table[key][:number]:
            raise place.refuse(f"{key}: {shown(entry)} is asked for twice", key, number)


def _batch(place: Place, batch: Any, number: int) -> None:
    if type(batch) is not int or not 1 <= batch <= 1 << 16:
        raise place.refuse(
            f"batch size {shown(batch)} must be a positive integer of at most 65536", "batch_sizes", number
        )


def _of_the_grid(place: Place, claim: str, margin: Mapping[str, Any], cells: Sequence[Cell]) -> None:
    """Refuse a margin that names arms, formats or pairs of which there is no cell: the claim would not be about them."""
    arms = {cell.arm for cell in cells}
    for number, arm in enumerate(margin.get("arms", ())):
        _among(place, "arms", arm, sorted(arms), number)
        if not any(cell.arm == arm and cell.mode == "SR" and cell.points in PER_SAMPLE for cell in cells):
            points = enumerate_names(PER_SAMPLE)
            raise place.refuse(
                f"no cell of the arm {arm!r} tests this claim, which needs SR at {points}", "arms", number
            )
    mode, sets = FORMATS_OF.get(claim, ("", ()))
    there = {cell.format for cell in cells if cell.mode == mode and cell.points in sets}
    for number, name in enumerate(margin.get("formats", ())):
        if name not in there:
            where = enumerate_names(sets)
            raise place.refuse(
                f"no cell rounds to {name} by {mode} at {where}, which this claim needs", "formats", number
            )
    for number, (arm, *pair) in enumerate(margin.get("pairs", ())):
        if arm not in arms:
            raise place.refuse(
                f"pairs = {shown([arm, *pair])} must begin with the name of an arm: {enumerate_names(sorted(arms))}",
                "pairs", number,
            )  # fmt: skip
        points = compared(arm)
        for at, name in enumerate(pair, 1):
            if not any((c.arm, c.format, c.points, c.mode) == (arm, name, points, "SR") for c in cells):
                raise place.refuse(
                    f"no cell of the arm {arm!r} rounds to {name} by SR at {points!r}, which this claim needs", "pairs",
                    number, at,
                )  # fmt: skip


def compared(arm: str) -> str:
    """Return the point set at which a pair of formats of an arm is compared."""
    return f"{LAST}bwd_grad" if arm == "underflow" else BOTH


def _model(place: Place, table: Any) -> ModelSpec:
    expect(place, table, {
        "widths": list, "train_steps": int, "train_batch": int, "learning_rate": float, "seed": int,
    })  # fmt: skip
    for key, low, high in (
        ("train_steps", 0, LONGEST_TRAINING),
        ("train_batch", 1, 1 << 16),
        ("seed", 0, LARGEST_SEED),
    ):
        _within(place, key, table[key], low, high)
    if not 0 <= table["learning_rate"] < float("inf"):
        raise place.refuse(f"learning_rate = {table['learning_rate']} must be a number of at least 0", "learning_rate")
    widths = table["widths"]
    whole = all(type(w) is int and 0 < w <= 1 << 16 for w in widths)
    if not 3 <= len(widths) <= 100 or not whole or widths[0] != 64 or widths[-1] != 10:
        raise place.refuse(
            f"widths = {shown(widths)} must be 3 to 100 positive integers of at most 65536, from 64 (pixels) to 10 (digits)",
            "widths",
        )
    return ModelSpec(**{**table, "widths": tuple(widths)})


def _within(place: Place, key: str, number: int, low: int, high: int) -> None:
    if not low <= number <= high:
        raise place.refuse(f"{key} = {number} must be in {low} .. {high}", key)


def _margins(place: Place, margin: dict[str, Any]) -> dict[str, Any]:
    """Return the margins of a claim if their lists are what they should be: ends of an interval, formats, pairs."""
    for key in ("half_width", "share", "bias"):
        if not 0 < margin.get(key, 1) < float("inf"):
            raise place.refuse(f"{key} = {margin[key]} must be positive", key)
    if not margin.get("share", 1) <= 1:
        raise place.refuse(f"share = {margin['share']} must be at most 1, which is all of the variance", "share")
    for key in ("slope", "ratio"):
        ends = margin.get(key, [0, 1])
        numbers = all(type(end) is float or (type(end) is int and abs(end) < 1 << 53) for end in ends)
        if len(ends) != 2 or not numbers or not ends[0] < ends[1] or not any(map(math.isfinite, ends)):
            raise place.refuse(f"{key} = {shown(ends)} must be two numbers, the lower first", key)
    if not margin.get("ratio", [0])[0] >= 0:
        raise place.refuse(f"ratio = {margin['ratio']} must not begin below 0: it is one of two variances", "ratio")
    found = dict(margin)
    for key in ("arms", "formats", "pairs"):
        if key in margin:
            _list(place, margin, key)
    for number, arm in enumerate(margin.get("arms", [])):
        if not isinstance(arm, str):
            raise place.refuse(f"arm {shown(arm)} must be the name of one", "arms", number)
    for number, pair in enumerate(margin.get("pairs", [])):
        if not isinstance(pair, list) or len(pair) != 3 or not isinstance(pair[0], str):
            raise place.refuse(
                f"pair {shown(pair)} must be an arm and two formats, the one of more bits first", "pairs", number
            )
    for key in ("pairs", "formats"):  # in the names that the cells have
        if key in margin:
            found[key] = [_named(place, entry, key, number) for number, entry in enumerate(margin[key])]
            _list(place, found, key)  # two spellings may be of one format
    for number, (_, more, fewer) in enumerate(found.get("pairs", [])):
        if not get_format(more).bits > get_format(fewer).bits:
            raise place.refuse(
                f"pair {shown(margin['pairs'][number])} must have the format of more bits first, and {more} has no more than "
                f"{fewer}", "pairs", number,
            )  # fmt: skip
    return found


def _named(place: Place, entry: Any, key: str, number: int) -> Any:
    """Return a format, or a pair with its two formats, by the names that get_format takes."""
    if key == "formats":
        return _format(place, entry, key, number)
    return [entry[0], *(_format(place, entry[at], key, number, at) for at in (1, 2))]


def _format(place: Place, name: Any, *keys: str | int) -> str:
    """Return the one name of a format: its own, or, for an entry of a file, the spelling that finds it there."""
    try:
        fmt = get_format(name)
    except InputError as error:
        beside = place.path.parent / str(name).partition("#")[0]
        found = os.path.isfile(beside)  # noqa: PTH113 - for Path.is_file raises where a name is too long
        hint = "; a file of formats is looked for where the command runs, not beside the study" if found else ""
        raise place.refuse(f"{error}{hint}", *keys) from None
    try:
        return fmt.name if get_format(fmt.name) == fmt else str(name)
    except InputError:
        return str(name)


def _on_a_grid(place: Place, name: str, *keys: str | int) -> None:
    """Refuse a format for which theory has no variance: what is a table of values."""
    fmt = get_format(name)
    if not isinstance(fmt, Grid) or fmt.gap:
        raise place.refuse(
            f"{name} has no binary grid, for which alone theory predicts the variance of SR; give it to an arm of RNE",
            *keys,
        )


def _among(place: Place, key: str, value: Any, known: Any, *at: int) -> None:
    if not isinstance(value, str) or value not in known:
        allowed = f"one of {enumerate_names(known)}" if known else "one of these, and there are none"
        raise place.refuse(f"{key} = {shown(value)} must be {allowed}", key, *at)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Maker:
    model: ModelSpec
    groups: int
    seed: int
    sizes: Mapping[str, Any]
    weight_draws: str

    def arm(self, place: Place, arm: Mapping[str, Any]) -> Iterator[Cell]:
        sizes = arm.get("batch_sizes", self.sizes["batch_sizes"])  # an arm may have batch sizes of its own
        whole = {"seeds": [self.model.seed], "train_steps": [self.model.train_steps], **arm, "batch_sizes": sizes}
        expect(place, whole, {
            "name": str, "draws": str, "formats": list, "modes": list, "points": list, "scale": str, "batch_sizes": list,
            "seeds": list, "train_steps": list,
        })  # fmt: skip
        for key, most in (("seeds", LARGEST_SEED), ("train_steps", LONGEST_TRAINING)):
            _list(place, whole, key)
            for number, entry in enumerate(whole[key]):
                if type(entry) is not int or not 0 <= entry <= most:
                    raise place.refuse(f"{key}: {shown(entry)} must be an integer in 0 .. {most}", key, number)
        _among(place, "draws", arm["draws"], DRAWS)
        for key in ("formats", "modes", "points", "batch_sizes"):  # of an entry that is there twice the cells are
            if not whole[key]:
                raise place.refuse(f"{key} is an empty list", key)
        for number, batch in enumerate(sizes):
            _batch(place, batch, number)
        for number, name in enumerate(arm["formats"]):
            fmt = _format(place, name, "formats", number)
            if "SR" in arm["modes"]:
                _on_a_grid(place, fmt, "formats", number)
            for mode in arm["modes"]:
                for points in arm["points"]:
                    for batch in sizes:
                        cell = self.cell(place, arm["draws"], arm["name"], fmt, mode, points, arm["scale"], batch)
                        if "seeds" not in arm and "train_steps" not in arm:
                            yield cell
                            continue
                        for seed, steps in itertools.product(whole["seeds"], whole["train_steps"]):
                            model = dataclasses.replace(self.model, seed=seed, train_steps=steps)
                            yield dataclasses.replace(cell, model=model, network=f"seed {seed}, {steps} steps")

    def fault(self, place: Place, fault: Mapping[str, Any]) -> Iterator[Cell]:
        for number, batch in enumerate(fault["batch_sizes"]):
            _batch(place, batch, number)
        for number, name in enumerate(fault["formats"]):
            fmt = _format(place, name, "formats", number)
            _on_a_grid(place, fmt, "formats", number)
            for batch in fault["batch_sizes"]:
                yield self.cell(
                    place, "medium", FAULT, fmt, "SR", fault["points"], "frozen", batch, fault=fault["name"]
                )  # fmt: skip

    def cell(
        self,
        place: Place,
        draws: str,
        arm: str,
        fmt: str,
        mode: str,
        points: str,
        scale: str,
        batch: int,
        fault: str = "",
    ) -> Cell:
        if not isinstance(points, str):
            raise place.refuse(f"points = {shown(points)} must be a list of texts", "points")
        _among(place, "modes", mode, ("SR", "RNE"))
        _among(place, "scale", scale, ("frozen", "full-range", "underflow", "absmax"))
        if scale == "full-range" and get_format(fmt).kind != "integer":
            raise place.refuse(f"scale = 'full-range' is a convention of integers, which {fmt} is none of", "scale")
        sites = [] if points.removeprefix(LAST) == ALL else points.removeprefix(LAST).split("+")
        for site in sites:
            if site not in POINTS:
                raise place.refuse(
                    f"points = {shown(points)} must be one of {enumerate_names(POINTS)}, or several of them joined by +, or "
                    f"{ALL}; {LAST!r} before them takes the last layer alone", "points",
                )  # fmt: skip
        if len(set(sites)) < len(sites):
            raise place.refuse(f"points = {shown(points)} names a point twice", "points")
        if sites:  # in the order in which claims know them
            points = points[: -len("+".join(sites))] + "+".join(site for site in POINTS if site in sites)
        size = self.sizes[draws]
        batches = min(max(size["samples"] // batch, size["fewest"]), size["most"])
        batches -= batches % self.groups  # as many in each group
        batches = max(batches, self.groups)
        each = max(2, -(-size["draws"] // batches)) if mode == "SR" else 1
        each += -each % 4 if each > 4 else 0  # so that draws can be taken a few at a time
        if each * batches > 1 << STREAM_FIELDS["draw"]:
            raise place.refuse(f"{each * batches} draws do not fit the {STREAM_FIELDS['draw']} bits of a stream")
        kinds: Any = {"mode": mode, "scale": scale, "fault": fault, "weight_draws": self.weight_draws}
        return Cell(
            model=self.model, arm=arm, format=fmt, points=points, batch=batch, batches=batches,
            draws=each, groups=self.groups, seed=self.seed, **kinds,
        )  # fmt: skip
