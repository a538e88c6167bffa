"""Differences between two results of one study: verdicts, evidence, options in force, and the numbers of the cells."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from qsim.errors import InputError
from qsim.report.text import number
from qsim.studies.result import Result

__all__ = ["Change", "Column", "Difference", "difference"]


@dataclass(frozen=True, slots=True)
class Change:
    """Hold one entry of either result, `None` where it is missing."""

    name: str
    before: str | None
    after: str | None


@dataclass(frozen=True, slots=True)
class Column:
    """Hold how one number of the cells changed: in how many, and where most, relative to the larger of the two."""

    name: str
    cells: int
    largest: float
    cell: str
    before: Any
    after: Any


@dataclass(frozen=True, slots=True, kw_only=True)
class Difference:
    """Hold the differences between one result and another."""

    verdicts: tuple[Change, ...]
    evidence: tuple[Change, ...]
    """Of claims whose verdict is the same."""
    setup: tuple[Change, ...]
    only_before: tuple[str, ...]
    """Cells that the other has not."""
    only_after: tuple[str, ...]
    common: int
    """How many cells both have."""
    columns: tuple[Column, ...]

    def plain(self) -> dict[str, Any]:
        """Return all of it as lists and dicts."""
        return dataclasses.asdict(self)

    def text(self, before: str, after: str) -> str:
        """Return it for reading; `before` and `after` are the names of the two."""
        return "\n".join(self._lines(before, after))

    def _lines(self, before: str, after: str) -> Iterator[str]:
        yield f"from {before} to {after}"
        for title, changes in (("verdicts", self.verdicts), ("evidence", self.evidence), ("in force", self.setup)):
            yield f"\n{title}: " + (f"{len(changes)} changed" if changes else "the same")
            for change in changes:
                yield f"  {change.name}"
                yield f"    - {'nothing' if change.before is None else change.before}"
                yield f"    + {'nothing' if change.after is None else change.after}"
        yield f"\ncells: {self.common:,} in both, {len(self.only_before):,} only before, {len(self.only_after):,} only after"
        if not self.columns:
            yield "  the same numbers in those that both have"
        for column in self.columns:
            yield f"  {column.name}: {column.cells:,} changed, most by {column.largest:.2g} of its size ({column.cell})"
            yield f"    - {_shown(column.before)}"
            yield f"    + {_shown(column.after)}"


def difference(before: Result, after: Result) -> Difference:
    """Return the differences between `before` and `after`; raise `InputError` for results of two studies."""
    if before.study != after.study:
        raise InputError(
            f"the results are of two studies, {before.study} and {after.study}; give two of one study to compare"
        )
    verdicts = _changes({c.id: str(c.outcome) for c in before.claims}, {c.id: str(c.outcome) for c in after.claims})
    flipped = {change.name for change in verdicts}
    evidence = _changes(
        {c.id: c.evidence for c in before.claims if c.id not in flipped},
        {c.id: c.evidence for c in after.claims if c.id not in flipped},
    )
    facts = [dict([*r.setup, ("run", r.run), ("failed cells", str(len(r.failures)))]) for r in (before, after)]
    first, second = (_by_parameters(r.cells) for r in (before, after))
    common = [name for name in first if name in second]
    return Difference(
        verdicts=verdicts,
        evidence=evidence,
        setup=_changes(*facts),
        only_before=tuple(name for name in first if name not in second),
        only_after=tuple(name for name in second if name not in first),
        common=len(common),
        columns=tuple(_columns([(name, first[name], second[name]) for name in common])),
    )


def _changes(before: Mapping[str, str], after: Mapping[str, str]) -> tuple[Change, ...]:
    names = dict.fromkeys([*before, *after])
    return tuple(Change(n, before.get(n), after.get(n)) for n in names if before.get(n) != after.get(n))


def _by_parameters(cells: Iterable[Mapping[str, Any]]) -> dict[str, Mapping[str, Any]]:
    """Return the records by their parameters, which have no dot in their names."""
    return {", ".join(f"{k}={v}" for k, v in cell.items() if "." not in k and v != ""): cell for cell in cells}


def _columns(pairs: Sequence[tuple[str, Mapping[str, Any], Mapping[str, Any]]]) -> Iterator[Column]:
    for name in dict.fromkeys(key for _, a, b in pairs for key in (*a, *b)):
        changed = [(_relative(a.get(name), b.get(name)), cell, a.get(name), b.get(name)) for cell, a, b in pairs]
        changed = [change for change in changed if change[0]]
        if changed:
            largest, cell, a, b = max(changed, key=lambda change: change[0])
            yield Column(name, len(changed), largest, cell, a, b)


def _relative(a: Any, b: Any) -> float:
    """Return |a - b| over the larger magnitude; 1 for entries that are no numbers or are missing on one side."""
    if a == b:
        return 0.0
    if isinstance(a, int | float) and isinstance(b, int | float) and math.isfinite(a) and math.isfinite(b):
        return abs(a - b) / max(abs(a), abs(b))
    return 1.0


def _shown(value: Any) -> str:
    return number(value) if value is None or isinstance(value, str | int | float) else str(value)
