"""A study file: the question, the grid and the margins; found by name or by path."""

from __future__ import annotations

import os
import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from qsim.errors import InputError, enumerate_names, nearest, shown
from qsim.files import read_toml_and_text
from qsim.folders import folder
from qsim.studies.lines import Place, lines_of

__all__ = ["KINDS", "Study", "available", "find", "load"]

KINDS: dict[str, str] = {
    "gradient_variance": "qsim.studies.gradient_variance", "recurrence": "qsim.studies.recurrence",
    "accumulation": "qsim.studies.accumulation",
}  # fmt: skip
"""The kinds of study, and the module that plans the cells of each and makes claims of their records."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Study:
    """Hold a study file: its header, and the tables that its kind reads."""

    name: str
    path: Path
    title: str
    kind: str
    question: str
    tables: Mapping[str, Any]
    place: Place
    """The file, for errors that name the line of a table or key."""

    @property
    def command(self) -> str:
        """The command that runs it again: by name if it comes with qsim, else by its file."""
        return f"qsim report {self.name if available().get(self.name) == self.path else shlex.quote(self.path.name)}"


def available() -> dict[str, Path]:
    """Return the studies that come with qsim: name and file."""
    return {path.parent.name: path for path in sorted(folder("reports").glob("*/study.toml"))}


def find(name: str) -> Study:
    """Return the study called `name`, or that of the file or folder at the path `name`.

    Raise `InputError` if there is none, or if the file does not hold one.
    """
    known = available()
    if name in known:
        return load(known[name], name)
    path = Path(name)
    # By os.path, for a Path raises where the name is too long. An empty name, as of a shell's variable that is not set, is not
    # this folder.
    inside = bool(name) and os.path.isdir(path)  # noqa: PTH112
    path = path / "study.toml" if inside else path
    if os.path.isfile(path):  # noqa: PTH113
        called = path.resolve().parent.name or "study" if path.name == "study.toml" else path.stem
        try:
            called.encode()
        except UnicodeEncodeError:
            raise InputError(f"{name!r} is no name in UTF-8, after which a report could be called; rename it") from None
        return load(path, called)
    also = ", and that folder holds no study.toml" if inside else ", nor is that a file" if path.suffix else ""
    raise InputError(f"no study is called {name!r}{also}; did you mean {nearest(name, known)}?")


def load(path: Path, name: str) -> Study:
    """Read a study file."""
    tables, written = read_toml_and_text(path)
    place = Place(path, lines_of(written))
    header = {}
    for key in ("title", "kind", "question"):
        header[key] = tables.pop(key, None)
        if not isinstance(header[key], str) or not header[key].strip():
            raise place.refuse(f"key {key!r} is missing or not a text", key)
    if header["kind"] not in KINDS:
        raise place.refuse(f"kind is {shown(header['kind'])}; it must be {enumerate_names(map(repr, KINDS))}", "kind")
    text = {key: " ".join(value.split()) for key, value in header.items()}
    return Study(name=name, path=path, tables=tables, place=place, **text)


TYPES = {
    str: "a text in quotes", int: "an integer", float: "a number", bool: "true or false", list: "a list in brackets",
    dict: "a table",
}  # fmt: skip
"""What a value of TOML is called in a sentence."""


def expect(place: Place, table: Any, keys: Mapping[str, type | tuple[type, ...]]) -> dict[str, Any]:
    """Return `table` if it has exactly `keys`, each of its type; raise `InputError` naming the line, the table and the key."""
    if not isinstance(table, dict):
        raise place.refuse("it is missing or not a table")
    for key, value in table.items():
        if key not in keys:
            raise place.refuse(f"unknown key {shown(key)}; did you mean {nearest(key, keys)}?", key)
        kinds: Any = keys[key] if isinstance(keys[key], tuple) else (keys[key],)
        if type(value) not in kinds and not (type(value) is int and float in kinds):
            raise place.refuse(
                f"{key} = {shown(value)} must be {enumerate_names(TYPES[kind] for kind in kinds if kind in TYPES)}", key
            )
    for key in keys:
        if key not in table:
            raise place.refuse(f"key {key!r} is missing")
    return {key: float(value) if keys[key] is float else value for key, value in table.items()}
