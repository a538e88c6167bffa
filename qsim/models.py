"""Converters of hardware and software as data: format, mode and saturation, how each was seen, and differences.

Each file of `models/` is one package, device or standard in one version. An entry gives the words of a `Quantizer`, and the
steps that a quantizer has no words for: formats that a number goes through `first`, the codes that inputs of a kind `become`,
a `rule` of `qsim.golden`. Under `differs` stands the same in words, and differences that no step covers. A layout is a way to
put codes into bytes that `qsim.pack` has no word for, as a line of Python. Nothing here rounds: `qsim.golden.model` makes the
converter of an entry, `qsim.Quantizer.preset` the quantizer that is nearest to it.
"""

from __future__ import annotations

import functools
import re
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
    "hardware-verified": "equal to answers that were measured on the hardware",
    "oracle-verified": "a test holds an implementation to it, where that is installed, or its recorded answers",
    "run": "the implementation was run once, and its answers are as the entry says; no test repeats it",
    "spec-only": "as a public specification has it; nobody ran it for this entry",
    "provisional": "a specification leaves something open, and the entry says which reading it takes",
    "disputed": "public texts or models disagree; the other reading has an entry, and the probe decides",
}

INPUTS = ("nan", "infinity", "zero", "subnormal", "finite", "float64")
"""The inputs of which an entry may say that they become something else."""

KINDS = ("nan", "infinity", "zero", "subnormal")
"""The kinds of input that may become a code of their own; with a minus sign before it, those of that sign.

"nan:K" is a NaN whose bit K is set.
"""

OPERANDS = ("float16", "bfloat16", "float32", "float64", "int32")
"""The types of a converter's operands."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Model:
    """Describe one converter: the arguments of the `Quantizer` nearest to it, and where that differs."""

    #: "PACKAGE-VERSION/NAME"
    name: str
    format: str
    mode: str
    saturation: str
    #: Which NaN results have; "": that of the format.
    nan: str = ""
    #: What it takes: one of `OPERANDS`; "": numbers of any float type.
    input: str = ""
    #: N of a stochastic mode, the bits of the random word as it is given, and whether the mode takes its "top" or "low" N.
    sr_bits: int = 0
    word_bits: int = 0
    word_part: str = "top"
    #: Subnormal inputs are zeros; which results are flushed to zero, "" for none, see `qsim.rounding.FLUSHES`.
    ftz_in: bool = False
    ftz_out: str = ""
    #: What is done to a number before it is rounded, in order: "FORMAT:MODE" rounds it to a format; see `qsim.golden.steps`.
    first: tuple[str, ...] = ()
    #: The code of inputs of a kind: see `KINDS`; "LOW..HIGH" is LOW <= |x| < HIGH.
    becomes: Mapping[str, int] = field(default_factory=dict)
    #: A rule of `qsim.golden.rules` in place of the rounding, and its parameters.
    rule: str = ""
    parameters: Mapping[str, Any] = field(default_factory=dict)
    #: One sentence for a reader, and for what is disputed the input that tells the readings apart.
    about: str = ""
    probe: str = ""
    vendor: str = ""
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
    head = _strings(str(path), data, ("package", "version", "status", "source"), ("vendor",))
    _check_status(str(path), head["status"])
    prefix = f"{head['package']}-{head['version']}"
    shared = {key: head[key] for key in ("status", "source")}
    found: list[Model] = []
    for number, entry in enumerate(entries["model"], 1):
        where = f"{path}: model {number}"
        steps = _steps(where, entry) if isinstance(entry, dict) else {}
        fields = _strings(where, entry, ("name", "format", "mode", "saturation"), OPTIONAL)
        if "status" in fields:
            _check_status(where, fields["status"])
        if fields.get("input", "") not in ("", *OPERANDS):
            raise InputError(f"{where}: input is {fields['input']!r}; it is {enumerate_names(OPERANDS)}")
        vendor = head.get("vendor", head["package"])
        texts: dict[str, Any] = {**shared, **fields, "name": f"{prefix}/{fields['name']}", "vendor": vendor}
        found.append(Model(**texts, **steps))
    ways: list[Layout] = []
    for number, entry in enumerate(entries["layout"], 1):
        fields = _strings(f"{path}: layout {number}", entry, ("name", "format", "about", "recipe"))
        ways.append(Layout(**{**fields, "name": f"{prefix}/{fields['name']}"}, **shared))
    return found, ways


OPTIONAL = ("nan", "input", "word_part", "ftz_out", "rule", "about", "probe", "status", "source")
"""The texts that an entry may have."""


def _check_status(where: str, status: str) -> None:
    if status not in STATUSES:
        raise InputError(f"{where}: status is {status!r}; it is {enumerate_names(STATUSES)}")


def _steps(where: str, entry: dict[str, Any]) -> dict[str, Any]:
    """Take the fields that are no texts from an entry, and return them checked."""
    found: dict[str, Any] = {"differs": _strings(f"{where}: differs", entry.pop("differs", {}), (), INPUTS)}
    for key in ("sr_bits", "word_bits"):
        value = entry.pop(key, 0)
        if type(value) is not int or not 0 <= value <= 64:
            raise InputError(f"{where}: {key} = {value!r} must be an integer, 0 to 64")
        found[key] = value
    found["word_bits"] = found["word_bits"] or found["sr_bits"]
    ftz_in = entry.pop("ftz_in", False)
    if not isinstance(ftz_in, bool):
        raise InputError(f"{where}: ftz_in = {ftz_in!r} must be true or false")
    first = entry.pop("first", [])
    if not isinstance(first, list) or not all(isinstance(step, str) and step for step in first):
        raise InputError(f"{where}: first = {first!r} must be a list of texts")
    becomes = entry.pop("becomes", {})
    if not isinstance(becomes, dict):
        raise InputError(f"{where}: becomes is no table of keys")
    for kind, code in becomes.items():
        span = re.fullmatch(r"-?nan:\d+|[^.]+(\.\d+)?\.\.[^.]+(\.\d+)?", kind)
        known = span or kind.removeprefix("-") in KINDS
        if not known or type(code) is not int or code < 0:
            raise InputError(
                f"{where}: becomes has {kind!r} = {code!r}; it is a code for {enumerate_names(KINDS)}, or for LOW..HIGH"
            )
    parameters = entry.pop("parameters", {})
    if not isinstance(parameters, dict):
        raise InputError(f"{where}: parameters is no table of keys")
    return found | {"ftz_in": ftz_in, "first": tuple(first), "becomes": becomes, "parameters": parameters}


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
