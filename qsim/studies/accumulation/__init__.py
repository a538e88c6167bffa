"""The kind of study that measures the error of dot products against their length, by accumulator.

A cell is an accumulator at one length: independent dot products of random operands, added by `qsim.dot`, against the sum in
float64. `plan` reads the file, `cell` measures, `claims` decides, `pages` shows.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

from qsim.studies.accumulation import pages
from qsim.studies.accumulation.cell import Cell, compute
from qsim.studies.accumulation.claims import decide
from qsim.studies.accumulation.plan import Plan, plan
from qsim.studies.result import Claim, Result
from qsim.studies.study import Study

__all__ = ["claims", "compute", "plan", "reads", "result"]


def reads(_: Cell) -> Mapping[str, str]:
    """Return nothing: operands are drawn by the seed."""
    return {}


def claims(plan: Plan, records: Sequence[dict[str, Any]]) -> list[Claim]:
    """Judge the claims by these records."""
    return decide(plan, records)


def result(study: Study, size: Literal["full", "quick"], plan: Plan, records: Sequence[dict[str, Any]]) -> Result:
    """Return the result of the study."""
    return pages.result(study, size, plan, records, decide(plan, records))
