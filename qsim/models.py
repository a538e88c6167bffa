"""Converters of other packages as data: which format, mode and saturation each has, how that was seen, and what differs.

Each file of `models/` is one package in one version. An entry gives the words of a `Quantizer`; under `differs` stands, for
the inputs that it names, what the package makes of them instead. A layout is a way to put codes into bytes that `qsim.pack`
has no word for, as a line of Python. Nothing here rounds: `qsim.Quantizer.preset` makes a quantizer of a model.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any

from qsim.errors import InputError, enumerate_names, nearest
from qsim.files import read_toml
from qsim.folders import folder

__all__ = ["STATUSES", "Layout", "Model", "get_model", "layouts", "load_models", "models"]

STATUSES: Mapping[str, str] = {
    "tested": "a test holds the package to it, where that is installed: all float16 and all bfloat16 numbers",
    "run": "the package was run once: all float16 and all bfloat16 numbers, and 400,000 float32",
}

INPUTS = ("nan", "infinity", "subnormal", "finite", "float64")
"""The inputs of which an entry may say that they become something else."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Model:
    """Describe one converter: what a `Quantizer` must be told to do the same, and where it does not."""

    #: "PACKAGE-VERSION/NAME"
    name: str
    format: str
    mode: str
    saturation: str
    #: Which NaN results have; "": that of the format.
    nan: str = ""
    #: What the package makes of some inputs instead, by kind of input: "nan", "infinity", "subnormal" (of float32), "finite"
    #: (others), "float64".
    differs: Mapping[str, str] = field(default_factory=dict)
    status: str
    source: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Layout:
    """Describe how a package puts codes into bytes; `recipe` is a line of Python that makes them of `codes`."""

    name: str
    format: str
    about: str
    recipe: str
    status: str
    source: str


@functools.cache
def models() -> Mapping[str, Model]:
    """Return all models by name, in the order of the files."""
    return MappingProxyType({model.name: model for path in _paths() for model in load_models(path)[0]})


@functools.cache
def layouts() -> Mapping[str, Layout]:
    """Return all layouts by name, in the order of the files."""
    return MappingProxyType({layout.name: layout for path in _paths() for layout in load_models(path)[1]})


def get_model(name: str) -> Model:
    """Return the model called `name`; raise `InputError` with the nearest names if there is none."""
    known = models()
    if not isinstance(name, str) or name not in known:
        raise InputError(f"no model is called {name!r}; did you mean {nearest(str(name), known)}?")
    return known[name]


def _paths() -> list[Path]:
    return sorted(folder("models").glob("*.toml"))


def load_models(path: Path) -> tuple[list[Model], list[Layout]]:
    """Read the models and layouts of one file; raise `InputError` naming the file, the entry and the key that is wrong."""
    data = read_toml(path)
    entries = {kind: data.pop(kind, []) for kind in ("model", "layout")}
    head = _strings(str(path), data, ("package", "version", "status", "source"))
    if head["status"] not in STATUSES:
        raise InputError(f"{path}: status is {head['status']!r}; it is {enumerate_names(STATUSES)}")
    prefix = f"{head['package']}-{head['version']}"
    shared = {key: head[key] for key in ("status", "source")}
    found: list[Model] = []
    for number, entry in enumerate(entries["model"], 1):
        where = f"{path}: model {number}"
        differs = entry.pop("differs", {}) if isinstance(entry, dict) else {}
        fields = _strings(where, entry, ("name", "format", "mode", "saturation"), ("nan",))
        differs = _strings(f"{where}: differs", differs, (), INPUTS)
        found.append(Model(**{**fields, "name": f"{prefix}/{fields['name']}"}, differs=differs, **shared))
    ways: list[Layout] = []
    for number, entry in enumerate(entries["layout"], 1):
        fields = _strings(f"{path}: layout {number}", entry, ("name", "format", "about", "recipe"))
        ways.append(Layout(**{**fields, "name": f"{prefix}/{fields['name']}"}, **shared))
    return found, ways


def _strings(where: str, entry: Any, needed: tuple[str, ...], optional: tuple[str, ...] = ()) -> dict[str, str]:
    """Return a table that has the `needed` keys, perhaps some of the `optional` ones, and a text for each."""
    if not isinstance(entry, dict):
        raise InputError(f"{where} is no table of keys")
    for key, value in entry.items():
        if key not in (*needed, *optional):
            raise InputError(f"{where}: unknown key {key!r}; did you mean {nearest(key, (*needed, *optional))}?")
        if not isinstance(value, str) or not value:
            raise InputError(f"{where}: {key} = {value!r} must be a text")
    for key in needed:
        if key not in entry:
            raise InputError(f"{where}: key {key!r} is missing")
    return entry
