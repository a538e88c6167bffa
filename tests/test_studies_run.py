"""Runs of a study: what is kept, where cells are computed, and what goes wrong, on purpose, without a finished cell lost."""

from __future__ import annotations

import collections
import contextlib
import hashlib
import importlib
import json
import os
import random
import re
import resource
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import toystudy

import qsim
from qsim.cli import main
from qsim.errors import InputError
from qsim.studies import Here, Processes, Step, Store, Watch, find, run
from qsim.studies.executors import Executor
from qsim.studies.source import source_of
from qsim.verdicts import Outcome

ENVIRONMENT = os.environ | {
    "PYTHONPATH": os.pathsep.join([str(Path(qsim.__file__).parents[1]), str(Path(__file__).parent)])
}
TOY = str(Path(__file__).with_name("toystudy.py"))


class States(Watch):
    """Collect what becomes of the cells."""

    def __init__(self) -> None:
        self.seen: list[Step] = []

    def step(self, step: Step) -> None:
        self.seen.append(step)

    def count(self) -> dict[str, int]:
        return dict(collections.Counter(step.state for step in self.seen))


def states(path: Path, store: Path, executor: Executor | None = None, size: str = "full") -> dict[str, int]:
    """Run the study at `path` with a store, and return how many cells were kept, computed and failed."""
    watch = States()
    with Store(store) as kept:
        run(find(str(path)), size, store=kept, watch=watch, executor=executor)
    return watch.count()


def command(*argv: str | Path, **options: Any) -> subprocess.CompletedProcess[str]:
    """Run `qsim report` with the toy kind as a process, and return what it printed."""
    return subprocess.run(
        [sys.executable, TOY, "report", *map(str, argv)],
        env=ENVIRONMENT, capture_output=True, text=True, timeout=120, check=False, **options,
    )  # fmt: skip


# --- What is kept ----------------------------------------------------------------------------------------------------


def test_finished_cells_are_kept_and_taken(tmp_path: Path) -> None:
    """A second run computes nothing; a quick run is of other cells where its cells are others; `clear` starts again."""
    path, store = toystudy.written(tmp_path), tmp_path / "cells.sqlite"
    assert states(path, store, size="quick") == {"computed": 3}
    assert states(path, store) == {"kept": 3, "computed": 3}
    assert states(path, store) == {"kept": 6}
    toystudy.written(tmp_path, cells=8)
    assert states(path, store) == {"kept": 6, "computed": 2}
    with Store(store) as kept:
        kept.clear()
    assert states(path, store) == {"computed": 8}


def test_a_kept_cell_has_the_bytes_of_a_computed_one(tmp_path: Path) -> None:
    """The result does not tell which cells were kept."""
    path, store = toystudy.written(tmp_path), tmp_path / "cells.sqlite"
    alone = run(find(str(path))).result.to_json()
    states(path, store, size="quick")
    with Store(store) as kept:
        assert run(find(str(path)), store=kept).result.to_json() == alone
    with Store(store) as kept:
        assert run(find(str(path)), store=kept).result.to_json() == alone


def test_other_data_or_other_parameters_make_a_cell_stale(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A cell is computed again when the data that it reads changed, and when a field of it did."""
    path, store = toystudy.written(tmp_path), tmp_path / "cells.sqlite"
    assert states(path, store) == {"computed": 6}
    monkeypatch.setenv("TOY_DATA", "another")
    assert states(path, store) == {"computed": 6}
    toystudy.written(tmp_path, seconds=0.001)
    assert states(path, store) == {"computed": 6}
    toystudy.written(tmp_path, seconds=0.001, does={2: "nan"})
    assert states(path, store) == {"kept": 5, "failed": 1}
    toystudy.written(tmp_path, seconds=0.001)
    monkeypatch.setattr("qsim.studies.source.platform.machine", lambda: "another")
    assert states(path, store) == {"computed": 6}  # the digest of the source is in the key


def test_an_edit_below_makes_a_cell_stale_and_an_edit_beside_does_not(tmp_path: Path) -> None:
    """The source of a cell is its module and what that imports, wherever: not the package around it, nor what imports it."""
    files = {
        "__init__": "from made.page import show", "cell": "def f():\n    from made import low\n    import numpy",
        "low": "from .lower import x\nfrom typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    import made.types",
        "lower": "x = 1", "page": "import made.cell\nshow = 1", "types": "",
    }  # fmt: skip
    folder = tmp_path / "made"
    folder.mkdir()
    for name, text in files.items():
        (folder / f"{name}.py").write_text(text)
    code = (
        "import sys; sys.path.insert(0, sys.argv[1])\nfrom qsim.studies.source import source_of\n"
        "s = source_of('made.cell'); print(s.digest, *sorted(s.modules), *s.libraries)"
    )

    def found() -> list[str]:
        done = subprocess.run(
            [sys.executable, "-c", code, tmp_path], env=ENVIRONMENT, check=True, capture_output=True, text=True
        )
        return done.stdout.split()

    digest, *names = found()
    assert names == ["made.cell", "made.low", "made.lower", "python", "numpy"]
    (folder / "page.py").write_text("show = 2")
    assert found()[0] == digest
    (folder / "lower.py").write_text("x = 2")
    assert found()[0] != digest


def test_the_cell_of_the_main_study_rests_on_the_arithmetic_and_not_on_the_pages() -> None:
    """The kernels, the engine and the estimators are below a cell; claims, pages, the report and the command are not."""
    source = source_of("qsim.studies.gradient_variance.cell")
    below = {name.split(".")[1] for name in source.modules}
    assert {
        "kernels",
        "formats",
        "rounding",
        "arrays",
        "scales",
        "autograd",
        "nn",
        "measure",
        "theory",
        "data",
    } <= below
    assert {"qsim.kernels.core", "qsim.kernels.lowering"} <= source.modules.keys()
    assert below.isdisjoint({"report", "cli", "prove", "testing", "explain"})
    beside = {
        f"qsim.studies.gradient_variance{end}" for end in ("", ".answer", ".claims", ".columns", ".pages", ".plan")
    }
    assert source.modules.keys().isdisjoint(beside | {"qsim.studies.run"})
    assert {"numpy", "numba", "llvmlite", "scipy"} <= source.libraries.keys()


def test_what_a_cell_reads_may_not_change_meanwhile(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A cell during which an input was edited is no cell of the old input; it fails by that name, and is computed again."""
    monkeypatch.setenv("TOY_DATA", "")
    path, store = toystudy.written(tmp_path, cells=4, does={2: "edit"}), tmp_path / "cells.sqlite"
    with Store(store) as kept:
        failures = run(find(str(path)), store=kept).result.failures
    assert "cell 2" in {failure.label for failure in failures}
    assert {failure.error for failure in failures} == {
        "data changed while it was computed; the same command computes it again"
    }
    assert states(path, store) == {"computed": 4}
    assert states(path, store) == {"kept": 4}


def test_an_edited_source_does_not_get_into_a_process_that_begins_later(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where a process must be started anew after an edit, the run ends in a sentence, and no record is of both sources."""
    text = (
        "import os, pathlib, signal\n\ndef compute(cell):\n    path = pathlib.Path(__file__)\n"
        "    if cell and 'edited' not in path.read_text().splitlines()[-1]:\n"
        "        path.write_text(path.read_text() + '# edited')\n        os.kill(os.getpid(), signal.SIGKILL)\n"
        "    return {'cell': cell}\n"
    )
    (tmp_path / "editing.py").write_text(text)
    monkeypatch.syspath_prepend(tmp_path)
    editing = importlib.import_module("editing")
    found = Processes(1).run(editing.compute, list(enumerate([0, 1])))
    assert next(found).record == '{"cell": 0}'
    with pytest.raises(InputError, match="the source of the cells was edited while they were computed; those finished"):
        next(found)
    assert not workers()


def digest(record: str) -> str:
    """Return what the store holds beside a record."""
    return hashlib.sha256(record.encode("utf-8", "surrogatepass")).hexdigest()


FOREIGN: dict[str, tuple[str, tuple[Any, ...]]] = {
    "other digits": ("record = replace(record, 'mean', 'moan')", ()),
    "another digest": ("digest = ?", ("0" * 64,)),
    "a digest that is bytes": ("digest = CAST(digest AS BLOB)", ()),
    "a digest that is a number": ("digest = 3.5", ()),
    "bytes": ("record = CAST(record AS BLOB)", ()),
    "a number": ("record = 7", ()),
    "bytes with their digest": ("record = ?, digest = ?", (b"[1]", digest("[1]"))),
    "a number with its digest": ("record = CAST(7 AS INTEGER), digest = ?", (digest("7"),)),
    "no UTF-8": ("record = CAST(x'ff7b7d' AS TEXT)", ()),
    "an empty text": ("record = ?, digest = ?", ("", digest(""))),
    "no JSON": ("record = ?, digest = ?", ("{", digest("{"))),
    "nested deeply": ("record = ?, digest = ?", ("[" * 99999, digest("[" * 99999))),
    "no object": ("record = ?, digest = ?", ("[1, 2]", digest("[1, 2]"))),
    "null": ("record = ?, digest = ?", ("null", digest("null"))),
    "an empty object": ("record = ?, digest = ?", ("{}", digest("{}"))),
    "another object": ("record = ?, digest = ?", ('{"a": 1}', digest('{"a": 1}'))),
    "the record of another cell": (
        "(record, digest) = (SELECT record, digest FROM cells WHERE label = 'cell 1')", ()
    ),
    "not flat": ("record = ?, digest = ?", (told := '{"number": 3, "sum.value": [1], "mean.value": 1}', digest(told))),
    "NaN": ("record = ?, digest = ?", (told := '{"number": 3, "sum.value": NaN, "mean.value": 1}', digest(told))),
    "infinity": ("record = ?, digest = ?", (told := '{"number": 3, "sum.value": 1e999, "mean.value": 1}', digest(told))),
    "half a pair": ("record = ?, digest = ?", (told := '{"number": 3, "sum.value": "\\ud800"}', digest(told))),
    "huge": ("record = zeroblob(20000000)", ()),
    "a huge text": ("record = hex(zeroblob(10000000))", ()),
    "seconds that are a text": ("seconds = 'long'", ()),
    "seconds that are bytes": ("seconds = x'00'", ()),
    "infinite seconds": ("seconds = 9e999", ()),
    "negative seconds": ("seconds = -1", ()),
    "a key that is bytes": ("key = CAST(key AS BLOB)", ()),
    "a key that is no UTF-8": ("key = CAST(x'ff' AS TEXT)", ()),
}  # fmt: skip
"""What somebody else may have written into the row of cell 3."""


@pytest.mark.parametrize("what", FOREIGN)
def test_a_record_that_was_changed_in_the_file_is_computed_again(tmp_path: Path, what: str) -> None:
    """A row that does not hold the cell's own record, whole, is not taken for it, and stops nothing; the others are."""
    path, store = toystudy.written(tmp_path), tmp_path / "cells.sqlite"
    states(path, store)
    change, values = FOREIGN[what]
    with contextlib.closing(sqlite3.connect(store)) as db:
        assert db.execute(f"UPDATE cells SET {change} WHERE label = 'cell 3'", values).rowcount == 1  # noqa: S608
        db.commit()
    assert states(path, store) == {"kept": 5, "computed": 1}
    assert states(path, store) == {"kept": 6}


def test_a_row_of_nothing_is_computed_again(tmp_path: Path) -> None:
    """Where another program made the table anew, without its constraints, NULL is no record, digest, key or time."""
    path, store = toystudy.written(tmp_path), tmp_path / "cells.sqlite"
    states(path, store)
    with contextlib.closing(sqlite3.connect(store)) as db:
        db.execute("CREATE TABLE free AS SELECT * FROM cells")
        db.execute("DROP TABLE cells")
        db.execute("ALTER TABLE free RENAME TO cells")
        for number, name in enumerate(("record", "digest", "key", "seconds")):
            db.execute(f"UPDATE cells SET {name} = NULL WHERE label = 'cell {number}'")  # noqa: S608
        db.commit()
    assert states(path, store) == {"kept": 2, "computed": 4}


@pytest.mark.parametrize("change", ["DROP TABLE cells", "ALTER TABLE cells RENAME COLUMN record TO row"])
def test_a_store_without_its_table_is_damaged(tmp_path: Path, change: str, capsys: pytest.CaptureFixture[str]) -> None:
    """A store whose table is gone, or another, is refused as damaged, and not for want of room."""
    path = toystudy.written(tmp_path)
    argv = ["report", str(path), "-o", str(tmp_path), "--quiet", "--jobs", "1"]
    assert main(argv) == 0
    with contextlib.closing(sqlite3.connect(tmp_path / "cells.sqlite")) as db:
        db.execute(change)
    assert main(argv) == 2
    assert "cells.sqlite is damaged, or no store of finished cells; move it away" in sentence(None, capsys)


# --- Where cells are computed ----------------------------------------------------------------------------------------


def test_a_worker_computes_on_one_thread(tmp_path: Path) -> None:
    """BLAS and our own loops have one thread in a worker, so that cores are not shared twice over; it is deaf to Ctrl-C."""
    (done,) = Processes(1).run(toystudy.threads, [(0, None)])
    assert json.loads(done.record) == {"ours": 1, "blas": [1]}


def test_the_blas_that_a_kind_of_study_brings_has_one_thread_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A library that is loaded with the module of a cell, as SciPy's own, is limited like the one that was there before."""
    text = "import scipy.linalg, toystudy\ndef compute(cell):\n    return toystudy.threads(cell)\n"
    (tmp_path / "bringing.py").write_text(text)
    monkeypatch.syspath_prepend(tmp_path)
    bringing = importlib.import_module("bringing")
    (done,) = Processes(1).run(bringing.compute, [(0, None)])
    assert json.loads(done.record) == {"ours": 1, "blas": [1]}


def test_a_cell_that_raises_is_named_and_the_others_finish(tmp_path: Path) -> None:
    """A failing cell is in the result with its parameters, its error in a line and a traceback; no claim is held then."""
    finished = run(find(str(toystudy.written(tmp_path, does={1: "raise", 4: "nan"}))))
    assert [cell["number"] for cell in finished.result.cells] == [0, 2, 3, 5]
    assert finished.result.answer.startswith("Cells failed")  # not what was answered by the others
    first, second = finished.result.failures
    assert (first.label, first.error) == ("cell 1", "ValueError: no number for 1")
    assert first.parameters["number"] == 1
    assert second.error.startswith("ValueError: Out of range float values are not JSON compliant")
    assert list(finished.traces) == [first.trace, second.trace]
    assert 'raise ValueError(f"no number' in finished.traces[first.trace]
    assert finished.result.claims[0].outcome is Outcome.NOT_DECIDED
    assert finished.counts == {"planned": 6, "kept": 0, "computed": 4, "failed": 2}


def test_processes_give_the_same_bytes_though_some_die(tmp_path: Path) -> None:
    """A cell that kills its process twice is lost, one that does it once is not, nor any other; same bytes as in this one."""
    log = str(tmp_path / "log")
    there = run(
        find(str(toystudy.written(tmp_path, cells=8, does={2: "die", 4: "raise", 5: "die once"}, log=log))),
        executor=Processes(2),
    )
    assert [failure.label for failure in there.result.failures] == ["cell 2", "cell 4"]
    assert "ended without a word" in there.result.failures[0].error
    assert [cell["number"] for cell in there.result.cells] == [0, 1, 3, 5, 6, 7]
    here = run(find(str(toystudy.written(tmp_path, cells=8, does={2: "raise", 4: "raise"}, log=log))), executor=Here())
    assert json.dumps(there.result.cells) == json.dumps(here.result.cells)
    assert there.result.failures[1] == here.result.failures[1]


def test_the_command_names_what_failed_and_exits_1(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """With a failing cell the report is written, names it and its traceback, and exits 1; later the cell is tried again."""
    path, argv = toystudy.written(tmp_path, does={1: "raise"}), ["-o", str(tmp_path / "out"), "--jobs", "1"]
    assert main(["report", str(path), *argv]) == 1
    out, err = capsys.readouterr()
    assert "cell 1: ValueError: no number for 1 (failures/" in " ".join(out.split())
    assert "failed: cell 1" in err
    page = (tmp_path / "out" / "report.html").read_text(encoding="utf-8")
    assert "1 cell failed, and the numbers are of the other 5 alone." in page
    (trace,) = (tmp_path / "out" / "failures").iterdir()
    assert f"failures/{trace.name}" in page
    assert "number = 1" in page
    assert '"number": 1' in trace.read_text()
    toystudy.written(tmp_path)
    assert main(["report", str(path), *argv, "--json"]) == 0
    told = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [line.get("state") for line in told] == ["kept"] * 5 + ["computed", None]
    assert told[-1]["claims"] == {"c": {"expected": "held", "outcome": "held"}}
    assert list((tmp_path / "out" / "failures").iterdir()) == []


@pytest.mark.parametrize(
    ("does", "error"),
    [
        ("sys.exit", "SystemExit: 5"), ("mute", "MuteError"), ("half of a pair", "ValueError: \\udc80"),
        ("no memory", "MemoryError"),
        ("long", f"ValueError: {'x' * 988} ..."),
        ("half", "UnicodeEncodeError: 'utf-8' codec can't encode character '\\udc80' in position"),
    ],
)  # fmt: skip
def test_whatever_a_cell_raises_it_is_named_and_the_others_finish(tmp_path: Path, does: str, error: str) -> None:
    """Not even SystemExit ends a run; an error that no file can hold, has no words or too many, is written all the same."""
    done = command(
        toystudy.written(tmp_path, cells=3, does={1: does}), "-o", tmp_path / "out", "--jobs", "1", "--quiet"
    )
    assert (done.returncode, done.stdout, done.stderr) == (1, "", "")
    result = json.loads((tmp_path / "out" / "result.json").read_text(encoding="utf-8"))
    assert len(result["cells"]) == 2
    (failure,) = result["failures"]
    assert failure["error"].startswith(error)
    assert len(failure["error"]) < 1100


@pytest.mark.parametrize(
    ("does", "error"),
    [
        ("interrupt", "KeyboardInterrupt"),
        ("exit", "the process that computed it ended without a word: EXIT(3)"),
        ("die", "the process that computed it ended without a word, killed or out of memory"),
    ],
)
def test_a_worker_that_ends_is_named_by_how_it_ended(tmp_path: Path, does: str, error: str) -> None:
    """A worker is deaf to Ctrl-C, so that an interrupt there is the cell's own; only one that was killed is called killed."""
    path = toystudy.written(tmp_path, cells=3, does={1: does}, log=str(tmp_path / "log"))
    finished = run(find(str(path)), executor=Processes(2))
    assert [cell["number"] for cell in finished.result.cells] == [0, 2]
    assert [failure.error for failure in finished.result.failures] == [error]


@pytest.mark.parametrize(
    ("at_once", "error"),
    [
        (False, "a process could not read the cell that it was sent: ValueError: invalid literal for int()"),
        (True, "PicklingError: Could not pickle the task"),
    ],
)
def test_a_cell_that_cannot_be_handed_over_is_named_by_that(at_once: bool, error: str) -> None:
    """A cell that cannot be pickled, or unpickled, is none whose process was killed; the others finish."""
    cells = [toystudy.Cell(number=0), toystudy.Unreadable(at_once=at_once), toystudy.Cell(number=2)]
    found = {done.index: done for done in Processes(2).run(toystudy.compute, list(enumerate(cells)))}
    assert [bool(found[i].record) for i in range(3)] == [True, False, True]
    assert found[1].error.startswith(error)
    assert "Traceback" in found[1].trace


@pytest.mark.parametrize("jobs", ["1", "2"])
def test_what_a_cell_prints_is_not_among_the_lines_of_json(tmp_path: Path, jobs: str) -> None:
    """Standard output is for a reader of JSON: what a cell prints goes to standard error."""
    path = toystudy.written(tmp_path, cells=3, does={1: "print"})
    done = command(path, "-o", tmp_path / "out", "--jobs", jobs, "--json")
    told = [line for line in done.stdout.splitlines() if line != "a word of a child"]  # which shares this process's own
    assert len([json.loads(line) for line in told]) == 4
    assert "a word\n" in done.stderr
    assert jobs == "1" or "a word of a child" in done.stderr


# --- What is told ----------------------------------------------------------------------------------------------------


def test_quiet_says_nothing_and_lines_say_how_far_it_is(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """--quiet prints nothing at all; else there are plain lines on standard error. What a killed run left behind goes."""
    path = toystudy.written(tmp_path)
    (tmp_path / "out" / "figures").mkdir(parents=True)
    left = [tmp_path / "out" / ".qsim-0123456789abcdef.part", tmp_path / "out" / "figures" / f".qsim-{2:016x}.part"]
    for part in left:  # of a run that was killed
        part.touch()
        os.utime(part, (0, 0))  # long ago, since its name has no machine
    assert main(["report", str(path), "-o", str(tmp_path / "out"), "--jobs", "1", "--quiet"]) == 0
    assert not any(part.exists() for part in left)
    assert capsys.readouterr() == ("", "")
    assert main(["report", str(path), "-o", str(tmp_path / "out"), "--jobs", "1"]) == 0
    assert capsys.readouterr().err == "toy: 6 cells\ntoy: 6 of 6 cells: 6 kept from before\n"


def test_standard_error_may_be_closed(tmp_path: Path) -> None:
    """Workers have somewhere to write to where a daemon closed standard error, and no file of the run gets its number."""
    path = toystudy.written(tmp_path)
    done = command(path, "-o", tmp_path / "out", "--jobs", "2", preexec_fn=lambda: os.close(2))
    assert done.returncode == 0
    assert "Traceback" not in done.stdout
    assert states(path, tmp_path / "out" / "cells.sqlite") == {"kept": 6}


def test_a_terminal_shows_a_bar_the_pace_and_the_claims_so_far(tmp_path: Path) -> None:
    """On a terminal the cells, the rate and the time left are drawn, and the claims as the cells so far decide them."""
    import io

    from rich.console import Console

    from qsim.cli.progress import Bars

    out = io.StringIO()
    bars = Bars("toy", Console(file=out, force_terminal=True, width=100))
    bars.took = 0.0
    run(find(str(toystudy.written(tmp_path, does={3: "raise"}))), watch=bars)
    shown = out.getvalue()
    assert "6 of 6 cells" in shown
    assert "a second, about 0 s left" in shown
    assert "failed: cell 3: ValueError: no number for 3" in shown
    assert "by the cells so far" in shown
    assert "held" in shown


def test_a_claim_without_cells_is_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    """While a study runs, a claim that no finished cell tests yet is waiting for some, which is no verdict."""
    import io
    from types import SimpleNamespace

    from rich.console import Console

    from qsim.cli.progress import Bars
    from qsim.verdicts import Outcome

    bars = Bars("toy", Console(file=io.StringIO()))
    none = SimpleNamespace(id="a", outcome=Outcome.NOT_TESTABLE, covered="0 intervals, simultaneous with all 3")
    some = SimpleNamespace(id="b", outcome=Outcome.HELD, covered="10 intervals (10 held), simultaneous with all 3")
    monkeypatch.setattr(bars, "claims", lambda: [none, some], raising=False)
    bars.look(0.0)
    out = io.StringIO()
    Console(file=out).print(bars.table)
    assert "waiting" in out.getvalue()
    assert "held" in out.getvalue()
    assert "not testable" not in out.getvalue()


def test_provenance_says_where_a_result_came_from(tmp_path: Path) -> None:
    """Beside the report stand the versions, the source, the data, the seeds and the share of time outside the cells."""
    path = toystudy.written(tmp_path, cells=4, seconds=0.2)
    assert main(["report", str(path), "-o", str(tmp_path / "out"), "--jobs", "1", "--quiet"]) == 0
    facts = json.loads((tmp_path / "out" / "provenance.json").read_text())
    assert facts["command"].startswith("qsim ")
    assert facts["versions"]["numpy"]
    assert set(facts["source"]["modules"]) >= {"toystudy", "qsim.studies.study"}
    assert facts["data"] == {"data": ""}
    assert facts["cells"] == {"planned": 4, "kept": 0, "computed": 4, "failed": 0}
    seconds = facts["seconds"]
    assert 0.8 <= seconds["in_cells"] <= seconds["wall"]
    assert seconds["outside_cells_share"] == pytest.approx(1 - seconds["in_cells"] / seconds["wall"], abs=1e-3)


def test_too_little_memory_takes_fewer_processes_or_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """As many processes run as there is memory for; a cell that needs more than there is, is refused by its name."""
    from qsim.studies import machine

    path, argv = toystudy.written(tmp_path), ["report", str(tmp_path / "toy.toml"), "-o", str(tmp_path / "out")]
    assert machine.memory().total > 1 << 20
    monkeypatch.setattr("qsim.studies.machine.memory", lambda: machine.Memory(1 << 30, 1 << 20))
    assert main([*argv, "--jobs", "3"]) == 0
    assert "1 processes of 3, for a cell may need 0.0 GiB of memory" in capsys.readouterr().err
    monkeypatch.setattr("qsim.studies.machine.memory", lambda: machine.Memory(1 << 19, 1 << 19))
    assert main(argv) == 2
    assert f"{path}: the cell cell 0 needs 0.0 GiB of memory" in capsys.readouterr().err


# --- What goes wrong -------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def started(*argv: str | Path, ignoring: bool = False) -> Iterator[subprocess.Popen[str]]:
    """Start `qsim report` with the toy kind in a group of its own, which is killed at the end."""
    process = subprocess.Popen(
        [sys.executable, TOY, "report", *map(str, argv)],
        env=ENVIRONMENT, start_new_session=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        # A shell that starts the tests in the background has them ignore SIGINT, and a child inherits that.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_IGN if ignoring else signal.SIG_DFL),  # noqa: PLW1509 - no thread of ours holds a lock
    )  # fmt: skip
    try:
        yield process
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.communicate()


def gone(group: int) -> bool:
    """Return whether, within ten seconds, no process of a group is left."""
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        try:
            os.killpg(group, 0)
        except ProcessLookupError:
            return True
        time.sleep(0.1)
    return False


def lines(path: Path, count: int) -> list[str]:
    """Wait until a file has so many lines, and return them."""
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        found = path.read_text().splitlines() if path.exists() else []
        if len(found) >= count:
            return found
        time.sleep(0.02)
    pytest.fail(f"{path} has no {count} lines")


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGINT, signal.SIGTERM], ids=lambda s: s.name)
def test_an_ended_run_leaves_no_worker_and_every_finished_cell(tmp_path: Path, how: signal.Signals) -> None:
    """By whatever signal a run ends, its workers go too, and what was finished is kept; all but SIGKILL says how to go on."""
    log = tmp_path / "log"
    path = toystudy.written(tmp_path, cells=40, seconds=0.3, log=str(log))
    with started(path, "-o", tmp_path / "out", "--jobs", "2") as process:
        begun = len(lines(log, 6))
        # To all of the group, as a terminal does; the workers are deaf to it.
        (os.killpg if how is signal.SIGINT else os.kill)(process.pid, how)
        since = time.monotonic()
        _, err = process.communicate(timeout=60)  # until the last worker has let go of it
        assert process.returncode == (-how if how is signal.SIGKILL else 128 + how)
        assert gone(process.pid)
        assert time.monotonic() - since < 15  # loky's own watch takes longer
    with Store(tmp_path / "out" / "cells.sqlite") as store:
        kept = sum(1 for _ in store.kept(Everything()))
    assert kept >= begun - 3  # two were under way, and one may be on its way to the driver
    if how is not signal.SIGKILL:
        told = re.search(
            r"qsim: stopped; (\d+) of 40 cells are kept in .*, and the same command goes on from them\n", err
        )
        assert told, err
        assert kept - 1 <= int(told[1]) <= kept  # one may have been kept and not yet counted
        assert "Traceback" not in err
    assert not (tmp_path / "out" / "result.json").exists()


def test_a_run_in_the_background_hears_sigterm_in_a_cell(tmp_path: Path) -> None:
    """A shell has a program in the background ignore Ctrl-C; what SIGTERM raises is then still none of the cell's own."""
    path = toystudy.written(tmp_path, cells=3, seconds=0.5, log=str(tmp_path / "log"))
    with started(path, "-o", tmp_path / "out", "--jobs", "1", ignoring=True) as process:
        lines(tmp_path / "log", 2)
        os.kill(process.pid, signal.SIGTERM)
        _, err = process.communicate(timeout=60)
    assert process.returncode == 128 + signal.SIGTERM
    assert "qsim: stopped; 1 of 3 cells are kept" in err


def test_ctrl_c_while_processes_start_is_not_answered_by_each(tmp_path: Path) -> None:
    """A process that a Ctrl-C meets before it can say that it is deaf is deaf too: no traceback of its own."""
    with started(toystudy.written(tmp_path, seconds=5), "-o", tmp_path / "out", "--jobs", "2") as process:
        while not workers(process.pid):
            time.sleep(0.005)
        time.sleep(0.1)  # it imports for longer than that
        os.killpg(process.pid, signal.SIGINT)
        _, err = process.communicate(timeout=60)
        assert process.returncode == 128 + signal.SIGINT
        assert gone(process.pid)
    assert "Traceback" not in err, err
    assert "KeyboardInterrupt" not in err


def test_a_run_stopped_before_its_first_cell_says_no_number(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Where the cells are not yet counted, Ctrl-C does not say that 0 of 0 are kept; nor is a list begun that is empty."""
    path, argv = toystudy.written(tmp_path), ["-o", str(tmp_path / "out"), "--jobs", "1"]

    def stopped(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(toystudy, "compute", stopped)
    assert main(["report", str(path), *argv]) == 130
    assert "\ntoy: 0 of 6 cells\nqsim: stopped; 0 of 6 cells are kept in" in capsys.readouterr().err
    monkeypatch.setattr(toystudy, "reads", stopped)
    assert main(["report", str(path), *argv]) == 130
    assert capsys.readouterr().err.startswith("qsim: stopped; the cells finished before are kept in")


class Everything:
    """Hold every key."""

    def __contains__(self, _: object) -> bool:
        return True


MURDER = """
import os, random, signal, sys, time
import toystudy
from qsim.cli import main
import qsim.report, qsim.studies, qsim.cli.progress, jinja2, rich.console, threadpoolctl
argv, seed = sys.argv[2:], int(sys.argv[1])
chance = random.Random(seed)
killed = 0
while killed < 20:
    pid = os.fork()
    if not pid:
        code = main(["report", *argv])
        os._exit(code)
    time.sleep(chance.uniform(0, 0.15))
    os.kill(pid, signal.SIGKILL)
    _, status = os.waitpid(pid, 0)
    if os.WIFEXITED(status):  # it was through before: from the beginning
        assert os.WEXITSTATUS(status) == 0
        os.unlink(argv[2] + "/cells.sqlite")
        print("from the beginning", flush=True)
    killed += os.WIFSIGNALED(status)
sys.exit(main(["report", *argv]))
"""


def test_twenty_kills_lose_no_finished_cell_and_change_no_byte(tmp_path: Path) -> None:
    """However often the driver is killed, no cell that was told is computed twice, and the report is the undisturbed one."""
    path = toystudy.written(tmp_path, cells=60, seconds=0.004)
    seed = random.randrange(1 << 30)  # noqa: S311 - the moments of the kills
    done = subprocess.run(
        [sys.executable, "-c", MURDER, str(seed), str(path), "-o", str(tmp_path / "out"), "--json", "--jobs", "1"],
        env=ENVIRONMENT, capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert done.returncode == 0, (seed, done.stderr)
    finished: set[str] = set()
    for line in done.stdout.splitlines():
        if line == "from the beginning":
            finished.clear()
        elif '"computed"' in line and line.endswith("}"):  # the last line of a killed run may be cut
            key = json.loads(line)["key"]
            assert key not in finished, seed
            finished.add(key)
    undisturbed = run(find(str(path))).result.to_json()
    assert (tmp_path / "out" / "result.json").read_text(encoding="utf-8") == undisturbed
    assert not list((tmp_path / "out").glob("**/.qsim*")), seed


# --- Files that are not as they should be ----------------------------------------------------------------------------


def sentence(done: subprocess.CompletedProcess[str] | None, capsys: pytest.CaptureFixture[str] | None = None) -> str:
    """Return the one sentence of a refused command."""
    err = done.stderr if done else capsys.readouterr().err if capsys else ""
    told = [line for line in err.splitlines() if line.startswith("qsim: ")]
    assert len(told) == 1, err
    assert "Traceback" not in err
    return told[0]


def test_a_full_disk_is_said_in_a_sentence_and_what_was_finished_is_kept(tmp_path: Path) -> None:
    """Where a file may not grow the run ends with one sentence, and the same command goes on once it may."""
    path = toystudy.written(tmp_path, cells=60)

    def limited() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, resource.RLIM_INFINITY))

    done = command(path, "-o", tmp_path / "out", "--jobs", "1", "--json", preexec_fn=limited)
    assert done.returncode == 2
    assert "cells.sqlite: cannot be written" in sentence(done)
    told = done.stdout.count('"computed"')
    assert 0 < told < 60
    assert not (tmp_path / "out" / "result.json").exists()
    watch = States()
    with Store(tmp_path / "out" / "cells.sqlite") as store:
        result = run(find(str(path)), store=store, watch=watch).result
    assert watch.count() == {"kept": told, "computed": 60 - told}
    assert result.to_json() == run(find(str(path))).result.to_json()


def test_a_disk_that_is_full_at_the_end_keeps_the_cells_and_the_old_report(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """If the report cannot be written, one sentence says that the cells are kept, and no part of a file is left."""
    path, argv = (
        toystudy.written(tmp_path),
        ["report", str(tmp_path / "toy.toml"), "-o", str(tmp_path / "out"), "--quiet"],
    )

    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("qsim.report.write", full)
    assert main([*argv, "--jobs", "1"]) == 2
    assert f"{tmp_path / 'out'}: the report cannot be written (No space left on device)" in sentence(None, capsys)
    assert {file.name for file in (tmp_path / "out").iterdir()} == {"cells.sqlite"}
    assert states(path, tmp_path / "out" / "cells.sqlite") == {"kept": 6}


@pytest.mark.parametrize("what", ["toystudy.result", "qsim.report.render"])
def test_a_report_that_cannot_be_made_is_said_in_a_sentence(
    tmp_path: Path, what: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Whatever goes wrong once the cells are done, they are kept; the traceback is in a file that a later report removes."""

    def broken(*_: object) -> None:
        raise ZeroDivisionError("of all\nthings")

    path, argv = toystudy.written(tmp_path), ["-o", str(tmp_path / "out"), "--quiet", "--jobs", "1"]
    with monkeypatch.context() as context:
        context.setattr(what, broken)
        assert main(["report", str(path), *argv]) == 2
    told = sentence(None, capsys)
    assert (
        f"{tmp_path / 'out'}: no report could be made (ZeroDivisionError: of all things); the cells that finished"
        in told
    )
    trace = tmp_path / "out" / "failures" / "report.txt"
    assert str(trace) in told
    assert "Traceback" in trace.read_text()
    assert main(["report", str(path), *argv]) == 0
    assert not trace.exists()
    assert states(path, tmp_path / "out" / "cells.sqlite") == {"kept": 6}


@pytest.mark.parametrize("place", ["/proc/qsim", "/sys/qsim", "/dev/null/qsim"])
def test_an_output_that_cannot_be_written_is_refused(
    tmp_path: Path, place: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """A folder that cannot be made, even by root, is refused by its name before a cell is computed."""
    assert main(["report", str(toystudy.written(tmp_path, seconds=60)), "-o", place, "--jobs", "1"]) == 2
    assert f"{place}: cannot be written" in sentence(None, capsys)


@pytest.mark.parametrize("how", ["text", "foreign", "truncated", "garbage", "folder", "another version"])
def test_a_store_that_is_none_is_refused_and_left_as_it_is(
    tmp_path: Path, how: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """A file that is no store, is another program's or is damaged is refused with its name, and not a byte of it changes."""
    path, store = toystudy.written(tmp_path, cells=40), tmp_path / "cells.sqlite"
    if how == "text":
        store.write_text("This is a letter to my aunt.\n" * 99)
    elif how == "foreign":
        with contextlib.closing(sqlite3.connect(store)) as db:
            db.execute("CREATE TABLE cells (price REAL)")
    elif how == "folder":
        store.mkdir()
    else:
        assert states(path, store) == {"computed": 40}
        data = bytearray(store.read_bytes())
        if how == "truncated":
            del data[len(data) // 2 :]
        elif how == "garbage":
            data[4096 : 4096 + 512] = b"?" * 512
        else:
            data[60:64] = (99).to_bytes(4, "big")  # the header's user_version
        store.write_bytes(data)
    before = None if how == "folder" else store.read_bytes()
    assert main(["report", str(path), "-o", str(tmp_path), "--quiet", "--fresh", "--jobs", "1"]) == 2
    assert f"{store}" in sentence(None, capsys)
    assert before is None or store.read_bytes() == before
    assert {file.name for file in tmp_path.iterdir()} == {"toy.toml", "cells.sqlite"}


def test_two_runs_in_one_folder_are_one_too_many(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """While a run holds the folder another is refused in a sentence; the first is not disturbed, and later both may."""
    path = toystudy.written(tmp_path)
    with (
        Store(tmp_path / "out.sqlite"),
        pytest.raises(InputError, match="another run is writing there; wait for its end"),
    ):
        states(path, tmp_path / "out.sqlite")
    log = tmp_path / "log"
    slow = toystudy.written(tmp_path, cells=2, seconds=2, log=str(log))
    with started(slow, "-o", tmp_path / "out", "--jobs", "1", "--quiet") as first:
        lines(log, 1)
        assert main(["report", str(slow), "-o", str(tmp_path / "out"), "--jobs", "1"]) == 2
        assert f"{tmp_path / 'out'}: another run is writing there" in sentence(None, capsys)
        assert first.communicate(timeout=60) == ("", "")
        assert first.returncode == 0
    assert main(["report", str(slow), "-o", str(tmp_path / "out"), "--jobs", "1", "--quiet"]) == 0


def test_a_refused_study_ends_the_processes_that_were_started_for_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Processes that start while a study is planned are gone, and silent, when it is refused."""
    path = toystudy.written(tmp_path)
    path.write_text(path.read_text().replace("seconds", "second"))
    assert main(["report", str(path), "-o", str(tmp_path / "out"), "--jobs", "2"]) == 2
    assert "line 5: unknown key 'second'" in sentence(None, capsys)
    assert not workers()


def workers(of: int | str = "self") -> list[str]:
    """Return the command lines of the loky workers of a process."""
    found = []
    for task in Path(f"/proc/{of}/task").iterdir():
        children = ""
        with contextlib.suppress(OSError):  # a thread may end meanwhile, and so may a process
            children = (task / "children").read_text()
        for child in children.split():
            with contextlib.suppress(OSError):
                found.append(Path(f"/proc/{child}/cmdline").read_text())
    return [line for line in found if "loky.backend.popen" in line]
