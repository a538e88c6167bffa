"""The kind of study that rounds the state of a linear recurrence, h <- Q(a h + u), at every step.

`plan` reads the file, `cell` propagates the exact distribution over all random words and simulates chains of the kernels,
`claims` decides, `pages` shows.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any, Literal

from qsim.formats import get_format
from qsim.studies.recurrence import pages
from qsim.studies.recurrence.cell import Cell, compute, grid_of
from qsim.studies.recurrence.claims import decide
from qsim.studies.recurrence.plan import Plan, plan
from qsim.studies.result import Claim, Result
from qsim.studies.study import Study

__all__ = ["claims", "compute", "plan", "reads", "result"]


def reads(cell: Cell) -> Mapping[str, str]:
    """Return the format that a cell reads, with the SHA-256 of its values."""
    fmt = get_format(cell.format)
    return {f"format {fmt.name}": hashlib.sha256(grid_of(fmt).tobytes()).hexdigest()}


def claims(plan: Plan, records: Sequence[dict[str, Any]]) -> list[Claim]:
    """Judge the claims by these records."""
    return decide(plan, records)


def result(study: Study, size: Literal["full", "quick"], plan: Plan, records: Sequence[dict[str, Any]]) -> Result:
    """Return the result of the study."""
    return pages.result(study, size, plan, records, decide(plan, records))
