"""A kind of study whose cells take no time, wait, raise or die as they are told; run as a program, it is `qsim` with it."""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from qsim.studies import study as files
from qsim.studies.result import Claim, Result, Table
from qsim.studies.study import Study, expect
from qsim.verdicts import Outcome

KIND = "toy"
files.KINDS[KIND] = "toystudy"


class MuteError(Exception):
    """An error that raises another when it is asked what it is."""

    def __str__(self) -> str:
        raise RuntimeError("not a word")


RAISES: Mapping[str, BaseException] = {
    "sys.exit": SystemExit(5), "interrupt": KeyboardInterrupt(), "mute": MuteError(), "half of a pair": ValueError("\udc80"),
    "long": ValueError("x" * 100_000), "no memory": MemoryError(),
}  # fmt: skip
"""What a cell raises that does so."""


class Unreadable:
    """Be pickled, and raise when unpickled; or, with `at_once`, when pickled."""

    def __init__(self, *, at_once: bool) -> None:
        self.at_once = at_once

    def __reduce__(self) -> Any:
        if self.at_once:
            raise TypeError("not to be pickled")
        return int, ("no number",)


@dataclass(frozen=True, slots=True, kw_only=True)
class Cell:
    """Name one cell."""

    number: int
    seconds: float = 0.0
    does: str = ""
    where: str = ""

    label = property(lambda self: f"cell {self.number}")
    cost = property(lambda self: 1.0 + self.number % 3)
    memory = 1 << 20


@dataclass(frozen=True, slots=True)
class Plan:
    """Hold the cells."""

    cells: Sequence[Cell]


def plan(study: Study, size: str) -> Plan:
    """Return `cells` cells, half of them in a quick run, of which some do what they are told."""
    tables = expect(
        study.place, dict(study.tables), {"cells": int, "seconds": float, "does": dict, "log": str, "data": str}
    )
    count = tables["cells"] if size == "full" else tables["cells"] // 2
    does = {int(number): what for number, what in tables["does"].items()}
    return Plan([
        Cell(number=n, seconds=tables["seconds"], does=does.get(n, ""), where=tables["log"]) for n in range(count)
    ])  # fmt: skip


def compute(cell: Cell) -> dict[str, Any]:
    """Return numbers whose last bits depend on how a sum is ordered."""
    if cell.where:
        with Path(cell.where).open("a") as log:
            log.write(f"{cell.number} {os.getpid()}\n")
    time.sleep(cell.seconds)
    if cell.does == "raise":
        raise ValueError(f"no number\nfor {cell.number}")
    if cell.does == "die" or (cell.does == "die once" and not Path(f"{cell.where}.{cell.number}").exists()):
        Path(f"{cell.where}.{cell.number}").touch()
        os.kill(os.getpid(), signal.SIGKILL)
    if cell.does == "print":
        print("a word")  # noqa: T201 - that is what it is about
        os.system("echo a word of a child")  # noqa: S605 - nobody's input
    if cell.does == "edit":
        os.environ["TOY_DATA"] = "edited"  # of which `reads` tells
    if cell.does in RAISES:
        raise RAISES[cell.does]
    if cell.does == "exit":
        os._exit(3)
    x = np.random.Generator(np.random.Philox(cell.number)).standard_normal((200, 300)).astype(np.float32)
    found = float("nan") if cell.does == "nan" else float((x @ x.T).sum())
    half = "\udc80" if cell.does == "half" else None
    return {"number": cell.number, "sum.value": found, "mean.value": float(x.mean()), "é.value": half}


def reads(cell: Cell) -> Mapping[str, str]:
    """Return what cells read: nothing, or what the environment says."""
    return {"data": os.environ.get("TOY_DATA", "")}


def claims(plan: Plan, records: Sequence[dict[str, Any]]) -> list[Claim]:
    """Return one claim, which is held."""
    return [
        Claim(
            id="c", statement="All is well.", margin="none", theorem="none", expected=Outcome.HELD, outcome=Outcome.HELD,
            covered=f"{len(records)} cells", evidence=f"{sum(r['sum.value'] for r in records)!r}", table="t",
        )
    ]  # fmt: skip


def result(study: Study, size: Any, plan: Plan, records: Sequence[dict[str, Any]]) -> Result:
    """Return what was found."""
    rows = tuple((r["number"], r["sum.value"]) for r in records)
    return Result(
        study=study.name, title=study.title, question=study.question, answer="Yes.", lead="", run=size,
        command=study.command, setup=(), claims=tuple(claims(plan, records)), figures=(),
        tables=(Table(id="t", title="T", columns=("number", "sum"), rows=rows),), method=(), cells=tuple(records),
    )  # fmt: skip


def written(
    folder: Path, cells: int = 6, seconds: float = 0.0, does: Mapping[int, str] | None = None, **more: str
) -> Path:
    """Write a study file of this kind, and return its path."""
    path = folder / "toy.toml"
    told = ", ".join(f'{number} = "{what}"' for number, what in (does or {}).items())
    path.write_text(
        f'title = "Toy"\nkind = "{KIND}"\nquestion = "Does it run?"\ncells = {cells}\nseconds = {float(seconds)}\n'
        f'does = {{ {told} }}\nlog = "{more.get("log", "")}"\ndata = ""\n'
    )
    return path


def threads(_: None) -> dict[str, Any]:
    """Return how many threads a cell has, after a Ctrl-C."""
    os.kill(os.getpid(), signal.SIGINT)
    from threadpoolctl import threadpool_info

    from qsim.kernels.threads import get_threads

    blas = {entry["num_threads"] for entry in threadpool_info() if entry["user_api"] == "blas"}
    return {"ours": get_threads(), "blas": sorted(blas)}


if __name__ == "__main__":
    from qsim.cli import main

    sys.exit(main())
