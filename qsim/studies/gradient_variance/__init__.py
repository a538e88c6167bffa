"""The kind of study that measures weight gradients under rounding against batch size, formats and points.

`plan` reads the file, `point` trains the model a little, `cell` measures, `claims` decides, `pages` shows.
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from qsim.data.tables import checksum
from qsim.formats import Format, get_format
from qsim.studies.gradient_variance import pages
from qsim.studies.gradient_variance.cell import Cell, compute
from qsim.studies.gradient_variance.claims import decide
from qsim.studies.gradient_variance.plan import Plan, plan
from qsim.studies.gradient_variance.point import DataSpec, data_of, point
from qsim.studies.result import Claim, Result
from qsim.studies.study import Study

__all__ = ["claims", "compute", "plan", "reads", "result"]


def reads(cell: Cell) -> Mapping[str, str]:
    """Return the data set and the formats that a cell reads, with the SHA-256 of each.

    Its scales are numbers of float64, and "underflow" is told in steps of E4M3.
    """
    names = [cell.format, "float64", *(["float8_e4m3fn"] if cell.scale == "underflow" else [])]
    data, model = cell.model.data, cell.model
    found = {Path(data.file).name: checksum(Path(data.file))} if data.file else {data.name: _named(data)}
    if model.file:
        found[Path(model.file).name] = checksum(Path(model.file))
    return {**found, **{f"format {name}": _format(get_format(name)) for name in names}}


def claims(plan: Plan, records: Sequence[dict[str, Any]]) -> list[Claim]:
    """Judge the claims by these records."""
    return decide(plan, records, point(plan.model))[0]


def result(study: Study, size: Literal["full", "quick"], plan: Plan, records: Sequence[dict[str, Any]]) -> Result:
    """Return the result of the study."""
    at = point(plan.model)
    decided, judged, family = decide(plan, records, at)
    return pages.result(study, size, plan, at, records, decided, judged, family)


@functools.cache
def _named(data: DataSpec) -> str:
    return data_of(data).sha256


@functools.cache
def _format(fmt: Format) -> str:
    """Return the SHA-256 of a format's definition, wherever it was written down."""
    facts = [(field.name, getattr(fmt, field.name)) for field in dataclasses.fields(fmt) if field.compare]
    return hashlib.sha256(repr(facts).encode()).hexdigest()
