"""Studies: a file with a question, a grid and margins becomes cells, records, and a result.

`run(find("variance-vs-batch"))` returns a `Result`, plain data that `qsim.report` renders.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import Literal, Protocol

from qsim.studies.result import Result
from qsim.studies.run import cores  # before `run` is defined here: a module that is loaded takes its name
from qsim.studies.study import KINDS, Study, available, find

__all__ = ["Result", "Study", "available", "check", "find", "run"]


class Kind(Protocol):
    """What the module of a kind of study offers."""

    def plan(self, study: Study, size: Literal["full", "quick"]) -> object:
        """Plan the cells; raise `InputError` naming what is wrong in the file."""
        ...

    def run(
        self, study: Study, size: Literal["full", "quick"], jobs: int, start: Callable[[float], Callable[[float], None]]
    ) -> Result:
        """Plan the cells, run them, and make claims of their records."""
        ...


def check(study: Study) -> None:
    """Raise `InputError` if the study cannot be planned, naming the file, the table and the key that is wrong."""
    kind: Kind = importlib.import_module(KINDS[study.kind])
    kind.plan(study, "full")
    kind.plan(study, "quick")


def run(
    study: Study,
    size: Literal["full", "quick"] = "full",
    *,
    jobs: int | None = None,
    start: Callable[[float], Callable[[float], None]] = lambda _: lambda _: None,
) -> Result:
    """Run `study` and return what it found.

    `jobs` processes run its cells, as many as there are cores by default. `start` is told the total work, and returns
    what is told each finished piece of it: a progress bar.
    """
    kind: Kind = importlib.import_module(KINDS[study.kind])
    return kind.run(study, size, jobs or cores(), start)
