"""A Dask cluster as an executor: two worker processes over TCP on loopback, one of which dies in the middle of a cell."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import toystudy

import qsim
from qsim.cli import main
from qsim.errors import InputError
from qsim.studies import Dask, Step, Store, Watch, find, run

ENVIRONMENT = os.environ | {
    "PYTHONPATH": os.pathsep.join([str(Path(qsim.__file__).parents[1]), str(Path(__file__).parent)]),
    # A cell that kills two workers is given up: by default it takes four.
    "DASK_DISTRIBUTED__SCHEDULER__ALLOWED_FAILURES": "1",
}

CLUSTER = """
import sys
from distributed import LocalCluster
if __name__ == "__main__":
    with LocalCluster(
        n_workers=2, threads_per_worker=1, processes=True, protocol="tcp", host="127.0.0.1", dashboard_address=None,
        memory_limit=None, silence_logs=60,
    ) as cluster:
        print(cluster.scheduler_address, flush=True)
        sys.stdin.read()
"""

pytestmark = pytest.mark.xdist_group("dask")  # one cluster, on one worker of the tests


@contextlib.contextmanager
def cluster(folder: Path) -> Iterator[tuple[str, int]]:
    """Start a cluster in a process group of its own, which is killed at the end; give where its scheduler is, and the group."""
    program = folder / "cluster.py"
    program.write_text(CLUSTER)
    process = subprocess.Popen(
        [sys.executable, program], env=ENVIRONMENT, start_new_session=True, text=True,
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    try:
        assert process.stdout is not None
        found = process.stdout.readline().strip()
        assert found.startswith("tcp://127.0.0.1:")
        yield found, process.pid
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.communicate()


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Start a cluster, and return where its scheduler is."""
    with cluster(tmp_path_factory.mktemp("cluster")) as (found, _):
        yield found


def test_a_cluster_gives_the_same_bytes_though_a_worker_dies(address: str, tmp_path: Path) -> None:
    """A worker killed in a cell is replaced and the cell runs elsewhere; one that always kills is named; same bytes."""
    does = {2: "die once", 3: "raise", 5: "die"}
    study = find(str(toystudy.written(tmp_path, cells=8, does=does, log=str(tmp_path / "log"))))
    dask = Dask(address)
    try:
        there = run(study, executor=dask)
    finally:
        dask.close()
    assert dask.workers == 2
    assert [failure.label for failure in there.result.failures] == ["cell 3", "cell 5"]
    assert "ended without a word" in there.result.failures[1].error
    ran = (tmp_path / "log").read_text().split("\n")
    assert len({line for line in ran if line.startswith("2 ")}) >= 2  # in two processes, or more if a result went too
    here = run(find(str(toystudy.written(tmp_path, cells=8, does={3: "raise", 5: "raise"}, log=str(tmp_path / "log")))))
    assert there.result.cells == here.result.cells
    assert json.dumps(there.result.cells) == json.dumps(here.result.cells)


def test_the_command_takes_a_cluster(address: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """`qsim report --dask` writes the report that one process writes, and says where it was computed."""
    path = toystudy.written(tmp_path)
    assert main(["report", str(path), "-o", str(tmp_path / "there"), "--quiet", "--dask", address]) == 0
    assert main(["report", str(path), "-o", str(tmp_path / "here"), "--quiet", "--jobs", "1"]) == 0
    for name in ("result.json", "report.html", "report.md", "cells.csv"):
        assert (tmp_path / "there" / name).read_bytes() == (tmp_path / "here" / name).read_bytes()
    facts = json.loads((tmp_path / "there" / "provenance.json").read_text())
    assert facts["executor"]["name"].startswith("a Dask cluster of ")


def test_a_worker_with_another_source_is_refused(
    address: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Workers whose qsim differs from the driver's are refused in a sentence, for their bits might differ too."""
    from qsim.studies import executors
    from qsim.studies.source import Source

    monkeypatch.setattr(executors, "source_of", lambda _: Source({"another": "0"}, {}))
    path = toystudy.written(tmp_path)
    assert main(["report", str(path), "-o", str(tmp_path / "out"), "--quiet", "--dask", address]) == 2
    assert "a worker of the cluster has another qsim" in capsys.readouterr().err


@pytest.mark.parametrize("where", ["tcp://127.0.0.1:1", "no address", "ftp://127.0.0.1:1", "localhost"])
def test_a_scheduler_that_does_not_answer_is_refused(
    where: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """An address where no scheduler answers is refused in a sentence, and no folder is made."""
    monkeypatch.setattr("qsim.studies.executors.PATIENCE", 0.5)
    assert main(["report", str(toystudy.written(tmp_path)), "-o", str(tmp_path / "out"), "--dask", where]) == 2
    (told,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("qsim: ")]
    assert f"no Dask scheduler with a worker answers at {where!r}" in told
    assert not (tmp_path / "out").exists()


def test_a_scheduler_that_goes_away_ends_the_run_in_a_sentence(tmp_path: Path) -> None:
    """When the connection is lost the run ends with one sentence, and what was finished is kept."""
    path = toystudy.written(tmp_path, cells=9, seconds=0.5)
    with (
        cluster(tmp_path) as (where, group),
        contextlib.closing(Dask(where)) as dask,
        Store(tmp_path / "kept") as store,
    ):
        watch = Killing(group)
        with pytest.raises(
            InputError, match=f"the Dask scheduler at '{where}' does not answer any more; the cells fin"
        ):
            run(find(str(path)), executor=dask, store=store, watch=watch)
    assert watch.seen < 9
    with Store(tmp_path / "kept") as store:
        assert len(run(find(str(path)), store=store).result.cells) == 9


class Killing(Watch):
    """Kill a process group when a cell is through."""

    def __init__(self, group: int) -> None:
        self.group, self.seen = group, 0

    def step(self, _: Step) -> None:
        self.seen += 1
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.group, signal.SIGKILL)


def test_a_cell_that_no_worker_has_memory_for_is_refused(
    address: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """What a cell needs is held against what each thread of a worker has, before a folder is made."""
    monkeypatch.setattr(toystudy.Cell, "memory", 1 << 60)
    path = toystudy.written(tmp_path)
    assert main(["report", str(path), "-o", str(tmp_path / "out"), "--dask", address]) == 2
    err = capsys.readouterr().err
    assert f"{path}: the cell cell 0 needs 1073741824.0 GiB of memory, and there are " in err
    assert " for each thread of a worker; make it smaller, or start workers with fewer threads or more memory" in err
    assert not (tmp_path / "out").exists()
    with contextlib.closing(Dask(address)) as dask:
        assert 0 < dask.memory < 1 << 60


def test_a_cell_that_no_worker_can_read_is_named_by_that(address: str) -> None:
    """A cell that cannot be unpickled fails with that error; the others finish."""
    cells = [toystudy.Cell(number=0), toystudy.Unreadable(at_once=False), toystudy.Cell(number=2)]
    with contextlib.closing(Dask(address)) as dask:
        found = {done.index: done for done in dask.run(toystudy.compute, list(enumerate(cells)))}
    assert [bool(found[i].record) for i in range(3)] == [True, False, True]
    assert "invalid literal for int()" in found[1].trace
