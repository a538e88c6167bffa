"""From a study to its result: the cells that are kept are taken, the others are computed and kept, and claims are made."""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import importlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol

import qsim
from qsim.errors import InputError
from qsim.kernels.threads import one_blas_thread
from qsim.studies import machine
from qsim.studies.executors import Done, Executor, Here, find_libraries
from qsim.studies.executors import failed as failed_by
from qsim.studies.result import TRACE, Claim, Failure, Result
from qsim.studies.source import Source, source_of
from qsim.studies.store import Store
from qsim.studies.study import KINDS, Study
from qsim.verdicts import Outcome

__all__ = ["Cell", "Finished", "Kind", "Plan", "Size", "Step", "Watch", "check", "kind_of", "needs", "run"]

Size = Literal["full", "quick"]
Record = dict[str, Any]


class Cell(Protocol):
    """The description of a cell: a frozen dataclass, whose fields are all that its record depends on in the study."""

    @property
    def label(self) -> str:
        """The words that tell it from the others of the study."""
        ...

    @property
    def cost(self) -> float:
        """How much work it is, relative to the others."""
        ...

    @property
    def memory(self) -> int:
        """How many bytes a process needs that computes it, at most."""
        ...


class Plan(Protocol):
    """The plan that a kind of study makes of a file."""

    @property
    def cells(self) -> Sequence[Cell]:
        """The cells, in the order in which they are reported."""
        ...


class Kind(Protocol):
    """The functions of the module of a kind of study."""

    def plan(self, study: Study, size: Size) -> Plan:
        """Plan the cells; raise `InputError` naming the fault in the file."""
        ...

    def compute(self, cell: Any) -> Record:
        """Return the record of a cell, plain and flat: a pure function of its fields and of the data it reads."""
        ...

    def reads(self, cell: Any) -> Mapping[str, str]:
        """Return all that a cell reads beside its fields and its source: its name, and its SHA-256."""
        ...

    def claims(self, plan: Any, records: Sequence[Record]) -> Sequence[Claim]:
        """Judge the claims by these records, perhaps not yet all."""
        ...

    def result(self, study: Study, size: Size, plan: Any, records: Sequence[Record]) -> Result:
        """Return the result of the study."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """Report the outcome of one cell."""

    label: str
    key: str
    state: Literal["kept", "computed", "failed"]
    cost: float
    #: That the computation took, now or when it was kept.
    seconds: float
    error: str = ""


class Watch:
    """Be told how a run goes on; this one says nothing."""

    def start(self, cells: int, cost: float, claims: Callable[[], Sequence[Claim]]) -> None:
        """Hear how many cells there are and their cost together; `claims()` judges the claims by the finished ones."""

    def step(self, step: Step) -> None:
        """Hear of a cell."""

    def stop(self) -> None:
        """Hear that no cell is left, or that the run was stopped."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Finished:
    """Hold the result of a run and its course."""

    result: Result
    #: By name below the folder of the report: the tracebacks of cells that failed.
    traces: Mapping[str, str]
    source: Source
    #: What the cells read, and its SHA-256.
    data: Mapping[str, str]
    executor: str
    workers: int
    #: How many cells were kept, computed and failed.
    counts: Mapping[str, int]
    #: In the cells that were computed now, all workers together.
    seconds: float
    #: The most that a cell needs, in bytes.
    memory: int


def kind_of(study: Study) -> Kind:
    """Return the module of a study's kind."""
    kind: Kind = importlib.import_module(KINDS[study.kind])
    return kind


def check(study: Study) -> None:
    """Raise `InputError` if the study cannot be planned, naming the file, the line, the table and the key that is wrong."""
    for size in ("full", "quick"):
        kind_of(study).plan(study, size)


def needs(study: Study, size: Size, each: float | None = None) -> int:
    """Return how many bytes the largest cell needs.

    Raise `InputError` if this machine has not as many, or a cluster that has `each` bytes for each thread of its workers.
    """
    cells = kind_of(study).plan(study, size).cells
    largest = max(cells, key=lambda cell: cell.memory)
    total = machine.memory().total if each is None else each
    if largest.memory > total:
        where, remedy = ("", "run it elsewhere with --dask")
        if each is not None:
            where, remedy = (" for each thread of a worker", "start workers with fewer threads or more memory")
        raise InputError(
            f"{study.path}: the cell {largest.label} needs {largest.memory / 2**30:.1f} GiB of memory, and there are "
            f"{total / 2**30:.1f}{where}; make it smaller, or {remedy}"
        )
    return largest.memory


def run(
    study: Study,
    size: Size = "full",
    *,
    executor: Executor | None = None,
    store: Store | None = None,
    watch: Watch | None = None,
) -> Finished:
    """Run `study`, taking from `store` the cells that it keeps, and return the result.

    `executor` computes the others, in this process by default, the longest first. A cell that raises is left out and
    named in the result; then no claim is held, since a cell that is missing might have refuted it.
    """
    watch, executor = watch or Watch(), executor or Here()
    kind = kind_of(study)
    find_libraries()
    plan = kind.plan(study, size)
    cells = plan.cells
    source = source_of(kind.compute.__module__)
    read = [kind.reads(cell) for cell in cells]
    keys = [_key(study.kind, cell, what, source.digest) for cell, what in zip(cells, read, strict=True)]
    records: dict[int, Record] = {}
    failed: dict[int, Done] = {}
    seconds = 0.0

    def so_far() -> Sequence[Claim]:
        with one_blas_thread():
            return kind.claims(plan, [records[i] for i in sorted(records)])

    watch.start(len(cells), sum(cell.cost for cell in cells), so_far)
    try:
        known = dict(store.kept(frozenset(keys))) if store else {}
        for i, key in enumerate(keys):
            if key not in known:
                continue
            text, took = known[key]
            record = _of_cell(text, cells[i])
            if record is not None:
                records[i] = record
                watch.step(Step(label=cells[i].label, key=key, state="kept", cost=cells[i].cost, seconds=took))
        kept = len(records)
        order = sorted((i for i in range(len(cells)) if i not in records), key=lambda i: -cells[i].cost)
        with contextlib.closing(executor.run(kind.compute, [(i, cells[i]) for i in order])) as finished:
            for ended in finished:
                i, seconds = ended.index, seconds + ended.seconds
                done = ended if ended.error else _unless_edited(ended, kind, cells[i], read[i])
                if done.error:
                    failed[i] = done
                else:
                    if store:
                        store.put(keys[i], cells[i].label, done.record, done.seconds)
                    records[i] = json.loads(done.record)  # as it will be read back, to the last bit
                watch.step(
                    Step(
                        label=cells[i].label, key=keys[i], state="failed" if done.error else "computed",
                        cost=cells[i].cost, seconds=done.seconds, error=done.error,
                    )
                )  # fmt: skip
    finally:
        watch.stop()
    with one_blas_thread():  # so that claims, too, have the same bytes wherever they are made
        result = _concluded(study, size, kind, plan, [records[i] for i in sorted(records)], bool(failed))
    failures = [_failure(cells[i], keys[i], failed[i]) for i in sorted(failed)]
    data = {name: digest for what in read for name, digest in what.items()}
    return Finished(
        result=dataclasses.replace(result, failures=tuple(failures), made=_made(source, data)),
        traces={
            failure.trace: f"{TRACE}\n{failure.label}\n{json.dumps(failure.parameters, indent=1)}\n\n{failed[i].trace}"
            for i, failure in zip(sorted(failed), failures, strict=True)
        },
        source=source,
        data=data,
        executor=executor.name,
        workers=executor.workers,
        counts={"planned": len(cells), "kept": kept, "computed": len(records) - kept, "failed": len(failed)},
        seconds=seconds,
        memory=max(cell.memory for cell in cells),
    )


def _made(source: Source, data: Mapping[str, str]) -> tuple[tuple[str, str], ...]:
    """Return the sources of a result, for its foot: no machine and no date, so that the same things make the same bytes."""
    modules = hashlib.sha256(repr(sorted(source.modules.items())).encode()).hexdigest()
    sets = {name: digest for name, digest in data.items() if not name.startswith("format ")}
    formats = hashlib.sha256(repr(sorted(data.items() - sets.items())).encode()).hexdigest()
    return (
        ("qsim", qsim.__version__),
        ("SHA-256 of the source of a cell", modules),
        *((f"SHA-256 of the data ({name})", digest) for name, digest in sorted(sets.items())),
        ("SHA-256 of the formats", formats),
    )


def _unless_edited(done: Done, kind: Kind, cell: Any, read: Mapping[str, str]) -> Done:
    """Return a cell that is done, as failed if the data it reads have changed meanwhile."""
    try:
        now = kind.reads(cell)
    except InputError as error:
        return failed_by(done.index, error, done.seconds)
    names = sorted(name for name in {**read, **now} if read.get(name) != now.get(name))
    if not names:
        return done
    words = f"{', '.join(names)} changed while it was computed; the same command computes it again"
    return Done(index=done.index, error=words, trace=words + "\n", seconds=done.seconds)


def _of_cell(text: str, cell: Any) -> Record | None:
    """Return the record that was kept for a cell; `None` where the text is no such record, and the cell is computed again.

    It is a flat object of JSON, which holds fields of the cell, each with its value.
    """
    try:
        record = json.loads(text)
        json.dumps(record, ensure_ascii=False, allow_nan=False).encode()  # as the report will write it
    except (ValueError, RecursionError):
        return None
    if not isinstance(record, dict) or any(isinstance(part, dict | list) for part in record.values()):
        return None
    fields = json.loads(json.dumps(dataclasses.asdict(cell)))
    shared = fields.keys() & record.keys()
    return record if shared and all(record[name] == fields[name] for name in shared) else None


def _key(kind: str, cell: Any, read: Mapping[str, str], source: str) -> str:
    """Return the SHA-256 of all that a record depends on."""
    parts = [kind, dataclasses.asdict(cell), sorted(read.items()), source]
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


def _concluded(
    study: Study, size: Size, kind: Kind, plan: Plan, records: Sequence[Record], some_failed: bool
) -> Result:
    if not records:
        return Result(
            study=study.name, title=study.title, question=study.question, answer="No cell of this run finished.", lead="",
            run=size, command=study.command + (" --quick" if size == "quick" else ""), setup=(), claims=(), figures=(),
            tables=(), method=(), cells=(),
        )  # fmt: skip
    result = kind.result(study, size, plan, records)
    if not some_failed:
        return result
    claims = [
        dataclasses.replace(
            claim, outcome=Outcome.NOT_DECIDED, evidence=f"{claim.evidence}; cells failed that might have refuted it"
        )
        if claim.outcome is Outcome.HELD
        else claim
        for claim in result.claims
    ]
    answer = "Cells failed that might have spoken against an answer; the verdicts below say what is open, and what is refuted."
    return dataclasses.replace(result, claims=tuple(claims), answer=answer)


def _failure(cell: Any, key: str, done: Done) -> Failure:
    return Failure(
        label=cell.label, parameters=dataclasses.asdict(cell), error=done.error, trace=f"failures/{key[:16]}.txt"
    )
