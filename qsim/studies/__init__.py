"""Studies: a file with a question, a grid and margins becomes cells, records, and a result.

`run(find("variance-vs-batch"))` returns a `Result`, plain data that `qsim.report` renders, and how the run went.
"""

from __future__ import annotations

from qsim.studies.executors import Dask, Executor, Here, Processes
from qsim.studies.result import Result
from qsim.studies.run import Finished, Step, Watch, check, needs, run
from qsim.studies.store import Store
from qsim.studies.study import Study, available, find

__all__ = [
    "Dask", "Executor", "Finished", "Here", "Processes", "Result", "Step", "Store", "Study", "Watch", "available",
    "check", "find", "needs", "run",
]  # fmt: skip
