"""The kind of study that measures weight gradients under rounding against batch size, formats and points.

`plan` reads the file, `point` trains the model a little, `cell` measures, `claims` decides, `pages` shows.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

from qsim.studies.gradient_variance.cell import compute
from qsim.studies.gradient_variance.claims import decide
from qsim.studies.gradient_variance.pages import result
from qsim.studies.gradient_variance.plan import plan
from qsim.studies.gradient_variance.point import point
from qsim.studies.result import Result
from qsim.studies.run import run_cells
from qsim.studies.study import Study

__all__ = ["plan", "run"]


def run(
    study: Study, size: Literal["full", "quick"], jobs: int, start: Callable[[float], Callable[[float], None]]
) -> Result:
    """Run the study and return what it found."""
    planned = plan(study, size)
    advance = start(sum(cell.cost for cell in planned.cells))
    records = run_cells(planned.cells, compute, jobs, advance)
    at = point(planned.model)
    claims, judged, family = decide(planned, records, at)
    return result(study, size, planned, at, records, claims, judged, family)
