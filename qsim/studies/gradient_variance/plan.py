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
from qsim.data.tables import STANDARDIZE, checksum
from qsim.errors import InputError, enumerate_names, shown
from qsim.formats import Grid, get_format
from qsim.rounding import STREAM_FIELDS, Quantizer, mode_fields
from qsim.studies.gradient_variance.cell import ALL, LAST, Cell
from qsim.studies.gradient_variance.point import DataSpec, ModelSpec, data_of, probe
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

WITH_THEORY = ("variance-exact", "weight-exact", "bit-noise", "networks-bit-dense", "networks-bit-coarse")
"""The claims that compare with theory."""

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
    """Hold the run: the cells, and the margins that their claims were given."""

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
    tables = expect(place, {"data": {}, "rounding": {}, "fault": [], "claims": {}, **study.tables}, {
        "data": dict, "model": dict, "rounding": dict, "statistics": dict, "full": dict, "quick": dict, "arm": list,
        "fault": list, "claims": dict,
    })  # fmt: skip
    data = _data(place.at("data", label="[data]"), tables["data"])
    model = _model(place.at("model", label="[model]"), tables["model"], data)
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
    unused: dict[str, Any] = {name: {} for name in DRAWS if name not in tables[run]}
    sizes = expect(where, {**unused, **tables[run]}, {"batch_sizes": list, **dict.fromkeys(DRAWS, dict)})
    _list(where, sizes, "batch_sizes")
    for number, batch in enumerate(sizes["batch_sizes"]):
        _batch(where, batch, number)
    for name in (name for name in DRAWS if name not in unused):
        spot = where.at(name, label=f"[{run}] {name}")
        counts = expect(spot, sizes[name], {"samples": int, "fewest": int, "most": int, "draws": int})
        for key, number in counts.items():
            _within(spot, key, number, 1, 1 << 32)
        if counts["fewest"] > counts["most"]:
            raise spot.refuse(f"fewest = {counts['fewest']} is more than most = {counts['most']}", "fewest")
    make = _Maker(
        missing=frozenset(unused), run=run, model=model, groups=statistics["groups"], seed=statistics["seed"], sizes=sizes,
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
        if model.kind != "mlp" and name in WITH_THEORY:
            raise place.at("claims", label="[claims]").refuse(f"{name} needs theory, which knows an mlp alone", name)
        margins[name] = _margins(spot, expect(spot, margin, CLAIMS[name]))
        these = [c for c in cells.values() if not c.fault and bool(c.network) == name.startswith(NETWORKS)]
        _of_the_grid(spot, name, margins[name], these)
    if not cells:
        raise place.refuse("no arm asks for a cell", "arm")
    return Plan(
        model=model, rate=statistics["false_alarm_rate"], cells=tuple(cells.values()), margins=margins, faults=faults
    )  # fmt: skip


def _called(heading: str, table: Mapping[str, Any]) -> str:
    """Return the name of one of several tables for a reader."""
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


def _mode(place: Place, spelling: Any, number: int) -> str:
    """Return the one spelling of a mode, "SRA(8)" or "SR"."""
    if not isinstance(spelling, str):
        raise place.refuse(f"modes = {shown(spelling)} must be a list of texts", "modes", number)
    try:
        fields = mode_fields(spelling)
        Quantizer("bfloat16", **fields)
    except InputError as error:
        raise place.refuse(f"modes = {shown(spelling)}: {error}", "modes", number) from None
    (argument,) = [fields[name] for name in ("sr_bits", "eps") if name in fields] or [None]
    return str(fields["mode"].name) + (f"({argument})" if argument is not None else "")


DATA: Mapping[str, type] = {"name": str, "file": str, "label": str, "standardize": str, "samples": int}

NAMED = ("digits", "cifar10")


def _data(place: Place, table: Any) -> DataSpec:
    """Return which data a study is of; a file is looked for beside the study."""
    for key, value in expect(
        place, {**dict.fromkeys(DATA, None), **table}, {k: (v, type(None)) for k, v in DATA.items()}
    ).items():
        if key not in table:
            continue
        if key == "standardize":
            _among(place, key, value, STANDARDIZE)
        elif key == "samples":
            _within(place, key, value, 2, 1 << 32)
        elif key == "name":
            _among(place, key, value, NAMED)
    if "file" not in table:
        if "label" in table:
            raise place.refuse('label belongs to a file; write file = "samples.csv" above it', "label")
        spec = DataSpec(**{"name": "digits", "standardize": "set", **table})
    else:
        if "name" in table:
            raise place.refuse("name and file are two data sets; leave one of them out", "name")
        if "label" not in table:
            raise place.refuse("key 'label' is missing: the column, or the array, of the classes")
        path = place.path.parent / table["file"]
        try:
            spec = DataSpec(**{"standardize": "columns", **table, "name": "", "file": str(path)}, sha256=checksum(path))
        except InputError as error:
            raise place.refuse(str(error), "file") from None
    try:
        found = data_of(spec)
    except InputError as error:
        raise place.refuse(str(error), *(["file"] if "file" in table else ["name"])) from None
    if len(found.x) < table.get("samples", 0):
        raise place.refuse(f"samples = {table['samples']} of {len(found.x)}", "samples")
    return spec


TRAINING: Mapping[str, type] = {"train_steps": int, "train_batch": int, "learning_rate": float, "seed": int}


def _model(place: Place, table: Any, data: DataSpec) -> ModelSpec:
    kind = table.get("kind", "mlp")
    if not isinstance(kind, str):
        raise place.refuse(f"kind = {shown(kind)} must be a text", "kind")
    file, colon, name = kind.rpartition(":")
    if kind not in MODELS and not (colon and file.endswith(".py") and name.isidentifier()):
        raise place.refuse(f"kind = {shown(kind)} must be {enumerate_names(MODELS)}, or 'file.py:Class'", "kind")
    own: Mapping[str, type] = MODELS.get(kind, {})
    table = expect(place, {"kind": kind, **table}, {"kind": str, **own, **TRAINING})
    for key, low, high in (
        ("train_steps", 0, LONGEST_TRAINING),
        ("train_batch", 1, 1 << 16),
        ("seed", 0, LARGEST_SEED),
    ):
        _within(place, key, table[key], low, high)
    if not 0 <= table["learning_rate"] < float("inf"):
        raise place.refuse(f"learning_rate = {table['learning_rate']} must be a number of at least 0", "learning_rate")
    spec = {key: table[key] for key in TRAINING} | {"data": data}
    if kind == "mlp":
        return ModelSpec(**spec, widths=_widths(place, table["widths"], data))
    if kind == "wideresnet":
        if data_of(data).x.ndim != 4:
            raise place.refuse(
                f"kind = 'wideresnet' takes images (samples, height, width, channels), not {data_of(data).x.shape}",
                "kind",
            )
        if data_of(data).x.shape[-1] != 3:
            raise place.refuse(
                f"kind = 'wideresnet' takes images of 3 channels, not {data_of(data).x.shape[-1]}", "kind"
            )
        made = ModelSpec(**spec, kind=kind, depth=table["depth"], widen=table["widen"])
    else:
        path = place.path.parent / file
        try:
            made = ModelSpec(**spec, kind=name, file=str(path), sha256=checksum(path))
        except InputError as error:
            raise place.refuse(str(error), "kind") from None
    elements, parameters, _, _ = _probed(place, made)
    return dataclasses.replace(made, elements=elements, parameters=parameters)


MODELS: Mapping[str, Mapping[str, type]] = {"mlp": {"widths": list}, "wideresnet": {"depth": int, "widen": int}}
"""The kinds of model by name, and the keys that each has beside `TRAINING`."""


def _probed(place: Place, model: ModelSpec) -> tuple[int, int, tuple[str, ...], tuple[str, ...]]:
    try:
        return probe(dataclasses.replace(model, elements=0, parameters=0))
    except InputError as error:
        raise place.refuse(str(error), "kind") from None


def _widths(place: Place, widths: list[Any], data: DataSpec) -> tuple[int, ...]:
    found = data_of(data)
    ends = math.prod(found.x.shape[1:]), int(found.y.max()) + 1
    whole = all(type(w) is int and 0 < w <= 1 << 16 for w in widths)
    if not 3 <= len(widths) <= 100 or not whole or (widths[0], widths[-1]) != ends:
        what = ("pixels", "digits") if found.name == "digits" else ("numbers of a sample", "classes")
        raise place.refuse(
            f"widths = {shown(widths)} must be 3 to 100 positive integers of at most 65536, from {ends[0]} ({what[0]}) to "
            f"{ends[1]} ({what[1]})", "widths",
        )  # fmt: skip
    return tuple(widths)


def _within(place: Place, key: str, number: int, low: int, high: int) -> None:
    if not low <= number <= high:
        raise place.refuse(f"{key} = {number} must be in {low} .. {high}", key)


def _margins(place: Place, margin: dict[str, Any]) -> dict[str, Any]:
    """Return the margins of a claim if their lists are well formed: ends of an interval, formats, pairs."""
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
    """Refuse a format for which theory has no variance: a table of values."""
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
    missing: frozenset[str]
    run: str
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
        self.size(place, arm["draws"])
        for key in ("formats", "modes", "points", "batch_sizes"):  # of an entry that is there twice the cells are
            if not whole[key]:
                raise place.refuse(f"{key} is an empty list", key)
        for number, batch in enumerate(sizes):
            _batch(place, batch, number)
        if self.run == "quick":  # of an arm's own sizes the small ones, if it has some
            most = max(self.sizes["batch_sizes"])
            sizes = [batch for batch in sizes if batch <= most] or sizes
        modes = [_mode(place, mode, number) for number, mode in enumerate(arm["modes"])]
        for number, name in enumerate(arm["formats"]):
            fmt = _format(place, name, "formats", number)
            if "SR" in arm["modes"] and self.model.kind == "mlp":
                _on_a_grid(place, fmt, "formats", number)
            for mode in modes:
                for points in arm["points"]:
                    for batch in sizes:
                        cell = self.cell(place, arm["draws"], arm["name"], fmt, mode, points, arm["scale"], batch)
                        if "seeds" not in arm and "train_steps" not in arm:
                            yield cell
                            continue
                        for seed, steps in itertools.product(whole["seeds"], whole["train_steps"]):
                            model = dataclasses.replace(self.model, seed=seed, train_steps=steps)
                            yield dataclasses.replace(cell, model=model, network=f"seed {seed}, {steps} steps")

    def size(self, place: Place, name: str) -> Mapping[str, int]:
        """Return the size that is called so, which an arm asks for; the others need not be in the file."""
        if name in self.missing:
            raise place.refuse(f"[{self.run}] has no size {name!r}, which this asks for", "draws")
        found: Mapping[str, int] = self.sizes[name]
        return found

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
        _among(place, "scale", scale, ("frozen", "full-range", "underflow", "absmax", "none"))
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
        if points.startswith(LAST) and self.model.kind != "mlp":
            _, _, layers, weights = _probed(place, self.model)
            if layers[-1] not in weights:
                raise place.refuse(
                    f"points = {shown(points)} takes the gradient of the last layer, {layers[-1]!r}, which has no weight",
                    "points",
                )  # fmt: skip
        if sites:  # in the order in which claims know them
            points = points[: -len("+".join(sites))] + "+".join(site for site in POINTS if site in sites)
        size = self.size(place, draws)
        batches = min(max(size["samples"] // batch, size["fewest"]), size["most"])
        batches -= batches % self.groups  # as many in each group
        batches = max(batches, self.groups)
        each = max(2, -(-size["draws"] // batches)) if mode_fields(mode)["mode"].stochastic else 1
        each += -each % 4 if each > 4 else 0  # so that draws can be taken a few at a time
        if each * batches > 1 << STREAM_FIELDS["draw"]:
            raise place.refuse(f"{each * batches} draws do not fit the {STREAM_FIELDS['draw']} bits of a stream")
        kinds: Any = {"mode": mode, "scale": scale, "fault": fault, "weight_draws": self.weight_draws}
        return Cell(
            model=self.model, arm=arm, format=fmt, points=points, batch=batch, batches=batches,
            draws=each, groups=self.groups, seed=self.seed, **kinds,
        )  # fmt: skip
