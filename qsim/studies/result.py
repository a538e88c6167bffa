"""The result of a study, as plain data: claims with verdicts, tables, figures as numbers, cells.

A `Result` is everything a report shows. It holds no dates, no paths and no drawing, so that the
same result renders to the same bytes anywhere.
"""

from __future__ import annotations

import dataclasses
import importlib
import json
import types
import typing
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from qsim.errors import InputError, enumerate_names
from qsim.files import read_text
from qsim.verdicts import Outcome

__all__ = [
    "FORMULA", "TRACE", "Claim", "Failure", "Figure", "Panel", "Result", "Series", "Table", "json_lines", "read_result",
]  # fmt: skip

SCHEMA = 2
"""Raised whenever a reader of an older `result.json` would misread a newer one."""

LARGEST = 1 << 26
"""Bytes of a result that is read."""

TRACE = "qsim report: what failed, and where"
"""The first line of every file of `failures/`, by which it is told from those of other people."""

FORMULA = ("=", "+", "-", "@", "\t", "\r")
"""How a text begins that a spreadsheet takes for a formula (OWASP, "CSV Injection")."""

Cell = str | int | float | None
"""One entry of a table: `None` is "no such number here"."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Series:
    """Hold one curve: points, and for measured ones the interval around each."""

    label: str
    """What the legend says."""
    group: str
    """What the curve is about (a format, a rounding); one group keeps one colour in all figures."""
    kind: Literal["measured", "theory"]
    """Measured points are drawn as markers with bars, theory as a line."""
    x: tuple[float, ...]
    """Where the points stand across: a quantity, or the number of a category."""
    y: tuple[float, ...]
    """What was measured or predicted there."""
    low: tuple[float, ...] | None = None
    """The lower ends of the simultaneous intervals, or null."""
    high: tuple[float, ...] | None = None
    """The upper ends; given with the lower ones."""
    role: str = ""
    """What the marks or the line are (SR, RNE, A-T1), or empty for the kind; one role keeps one mark in all figures."""
    small: bool = False
    """True for points that are shown as dots behind the others, without an entry in the legend."""

    def __post_init__(self) -> None:
        lengths = {len(values) for values in (self.x, self.y, self.low, self.high) if values is not None}
        if len(lengths) > 1 or (self.low is None) != (self.high is None):
            raise ValueError(f"series {self.label!r}: x, y, and low with high if given, must be of one length")


@dataclass(frozen=True, slots=True, kw_only=True)
class Panel:
    """Hold one set of axes: titles with units, scales, curves."""

    title: str
    """What is above the axes."""
    xlabel: str
    """What x is, with its unit."""
    ylabel: str
    """What y is, with its unit."""
    xscale: Literal["linear", "log2", "log10"]
    """How x is spaced."""
    yscale: Literal["linear", "log2", "log10"]
    """How y is spaced."""
    series: tuple[Series, ...]
    """The curves, in the order of the legend."""
    categories: tuple[str, ...] = ()
    """Where x numbers categories 0, 1, ..., what each is called; empty where x is a quantity."""
    sideways: bool = False
    """True where the categories stand at the side, one below the other, and the values run across."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Figure:
    """Hold a figure as numbers: panels side by side, the sentence it shows, a text alternative."""

    id: str
    """The name of its file, without the suffix."""
    title: str
    """What it shows, in a few words."""
    caption: str
    """What it shows, and how it was made."""
    alt: str
    """What it shows, for those who cannot see it."""
    panels: tuple[Panel, ...]
    """The axes, side by side."""

    def __post_init__(self) -> None:
        if not self.panels:
            raise ValueError(f"figure {self.id!r} has no panel")


@dataclass(frozen=True, slots=True, kw_only=True)
class Table:
    """Hold a table: column names with units, rows of texts and numbers."""

    id: str
    """What claims call it."""
    title: str
    """What it holds."""
    columns: tuple[str, ...]
    """The names of the columns, with units."""
    rows: tuple[tuple[Cell, ...], ...]
    """The entries; null where there is no such number."""
    note: str = ""
    """How to read it."""

    def __post_init__(self) -> None:
        for number, row in enumerate(self.rows, 1):
            if len(row) != len(self.columns):
                raise ValueError(f"table {self.id!r}, row {number}: {len(row)} entries for {len(self.columns)} columns")


@dataclass(frozen=True, slots=True, kw_only=True)
class Claim:
    """State one claim, the margin given before the run, and its verdict."""

    id: str
    """What it is called in `study.toml`; a planted fault has the fault's name behind it."""
    statement: str
    """The claim, in a sentence."""
    margin: str
    """The margin from `study.toml`, in words and numbers."""
    theorem: str
    """What the claim rests on: a theorem, a definition, a paper's section."""
    expected: Outcome
    """What it should come to: held, or refuted for a planted fault."""
    outcome: Outcome
    """What it came to."""
    covered: str
    """How many cells, at which simultaneous level."""
    evidence: str
    """The number that decided, with its interval and the cell it came from."""
    figure: str = ""
    """The id of the figure that shows it, or empty."""
    table: str = ""
    """The id of the table behind it, or empty."""
    fault: bool = False
    """True for a planted fault: a claim put on wrong arithmetic, expected to be refuted."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Failure:
    """Name a cell that raised, and is missing from the result."""

    label: str
    """The words that tell the cell from the others."""
    parameters: dict[str, Any]
    """The fields of the cell."""
    error: str
    """What it raised, in a line."""
    trace: str
    """The file with the traceback, relative to the report's folder."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """Hold the result of one run of a study; `to_json` and `from_json` are inverse."""

    study: str
    """The name of the study."""
    title: str
    """The title of the report."""
    question: str
    """What was asked."""
    answer: str
    """A few sentences, made from the numbers, that answer the question; a line for each part of it."""
    lead: str
    """The id of the figure that is shown beside the answer, or empty."""
    run: Literal["full", "quick"]
    """A quick run has a smaller grid and fewer draws."""
    command: str
    """The command that makes this result again."""
    setup: tuple[tuple[str, str], ...]
    """What was in force, as label and value: data with its SHA-256, model, formats, scales, seeds."""
    claims: tuple[Claim, ...]
    """The verdicts, in the order in which they are reported."""
    figures: tuple[Figure, ...]
    """The figures as numbers."""
    tables: tuple[Table, ...]
    """The tables."""
    method: tuple[str, ...]
    """Paragraphs on how the numbers and their intervals were made."""
    cells: tuple[dict[str, Any], ...]
    """One flat record a cell: its parameters (names without a dot), its numbers and counts (names with one)."""
    failures: tuple[Failure, ...] = ()
    """The cells that raised; then no claim is held."""
    main: str = ""
    """The id of the table that is shown beside the answer, or empty."""
    terms: tuple[tuple[str, str], ...] = ()
    """The words, signs and theorems that the report uses, each with what it means; a page links to them by name."""
    made: tuple[tuple[str, str], ...] = ()
    """What made the result, as label and value: the version of qsim, the SHA-256 of its source and of the data."""
    schema: int = SCHEMA
    """Which form of this file it is."""

    def rows(self, name: str = "cells") -> list[dict[str, Any]]:
        """Return the cells, or the table with the id `name`, as a list of dicts by column; `None` is "no such number here".

        Raise `InputError` for a table that is not there.
        """
        if name == "cells":
            names = dict.fromkeys(key for record in self.cells for key in record)
            return [{key: record.get(key) for key in names} for record in self.cells]
        for table in self.tables:
            if table.id == name:
                return [dict(zip(table.columns, row, strict=True)) for row in table.rows]
        raise InputError(
            f"this result has no table {name!r}; it has {enumerate_names(['cells', *(t.id for t in self.tables)])}"
        )

    def frame(self, name: str = "cells") -> Any:
        """Return the cells, or the table with the id `name`, as a `pandas.DataFrame`.

        Raise `InputError` for a table that is not there, and where pandas is not installed, which qsim does not need.
        """
        found = self.rows(name)
        try:
            pandas = importlib.import_module("pandas")
        except ImportError:
            raise InputError(
                f"pandas is not installed; pip install pandas, or take rows({name!r}), a list of dicts"
            ) from None
        return pandas.DataFrame(found)

    def to_json(self) -> str:
        """Return the result as JSON, a line for each small thing; NaN and infinity refused, same bytes for same data."""
        return json_lines(dataclasses.asdict(self), 0) + "\n"

    @classmethod
    def from_json(cls, text: str) -> Result:
        """Return the result that `text` holds.

        Raises `ValueError` if the schema is another one than this version reads.
        """
        plain = json.loads(text)
        if not isinstance(plain, dict) or plain.get("schema") != SCHEMA:
            found = plain.get("schema") if isinstance(plain, dict) else None
            raise ValueError(f"result.json has schema {found!r}; this version of qsim reads schema {SCHEMA}")
        return typing.cast("Result", _load(cls, plain))


def read_result(path: Path) -> Result:
    """Return the result in a `result.json`; raise `InputError` naming the file for whatever is wrong with it."""
    text = read_text(path, LARGEST)
    try:
        return Result.from_json(text)
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError, MemoryError) as error:
        reason = " ".join(str(error).split())
        raise InputError(f"{path} holds no result of a study ({reason})") from None


WIDTH = 120
"""What fits a line is written on one, so that a record, a row or a curve's coordinates can be read and compared."""


def json_lines(value: Any, depth: int) -> str:
    """Return `value` as JSON, broken into lines where a container is too long for one and holds others."""
    flat = json.dumps(value, ensure_ascii=False, allow_nan=False)
    parts = list(value.values()) if isinstance(value, dict) else value
    nested = isinstance(value, dict | list | tuple) and any(isinstance(part, dict | list | tuple) for part in parts)
    if not nested or len(flat) + depth <= WIDTH:
        return flat
    pad = " " * (depth + 1)
    if isinstance(value, dict):
        items = [f"{json.dumps(key, ensure_ascii=False)}: {json_lines(part, depth + 1)}" for key, part in value.items()]
        return "{\n" + pad + f",\n{pad}".join(items) + "\n" + " " * depth + "}"
    return "[\n" + pad + f",\n{pad}".join(json_lines(part, depth + 1) for part in value) + "\n" + " " * depth + "]"


PLAIN: dict[Any, Any] = {str: str, int: int, bool: bool, float: (float, int), dict: dict, tuple: list}
"""What JSON has for each type."""


def _load(kind: Any, plain: Any) -> Any:
    """Build `kind` (a dataclass, enum, tuple or scalar type) from the JSON value `plain`; raise `TypeError` for another."""
    origin, args = typing.get_origin(kind), typing.get_args(kind)
    record = dataclasses.is_dataclass(kind)
    wanted = dict if record else PLAIN.get(origin or kind, object)
    if origin in (typing.Union, types.UnionType):
        if plain is None:
            return None
        inner = [arg for arg in args if arg is not type(None)]
        if len(inner) == 1:
            return _load(inner[0], plain)
        wanted = tuple(inner)
    if not isinstance(plain, wanted) or (isinstance(plain, bool) and wanted in (int, (float, int))):
        raise TypeError(f"{json.dumps(plain)[:80]} stands for a {getattr(origin or kind, '__name__', kind)}")
    if origin is Literal and plain not in args:
        raise ValueError(f"{plain!r} is none of {args}")
    if record:
        hints = typing.get_type_hints(kind)
        return kind(**{name: _load(hints[name], value) for name, value in plain.items()})
    if origin is tuple:
        if args[-1] is Ellipsis:
            return tuple(_load(args[0], item) for item in plain)
        return tuple(_load(arg, item) for arg, item in zip(args, plain, strict=True))
    return Outcome(str(plain)) if kind is Outcome else plain
