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
from qsim.studies import Dask, find, run

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


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Start a cluster in a process group of its own, which is killed at the end, and return where its scheduler is."""
    program = tmp_path_factory.mktemp("cluster") / "cluster.py"
    program.write_text(CLUSTER)
    process = subprocess.Popen(
        [sys.executable, program], env=ENVIRONMENT, start_new_session=True, text=True,
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    try:
        assert process.stdout is not None
        found = process.stdout.readline().strip()
        assert found.startswith("tcp://127.0.0.1:")
        yield found
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.communicate()


def test_a_cluster_gives_the_same_bytes_though_a_worker_dies(address: str, tmp_path: Path) -> None:
    """A worker killed in a cell is replaced and the cell runs elsewhere; one that always kills is named; same bytes."""
    does = {2: "die once", 3: "raise", 5: "die"}
    study = find(str(toystudy.written(tmp_path, cells=8, does=does, log=str(tmp_path / "log"))))
    cluster = Dask(address)
    try:
        there = run(study, executor=cluster)
    finally:
        cluster.close()
    assert cluster.workers == 2
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


@pytest.mark.parametrize("where", ["tcp://127.0.0.1:1", "no address", "ftp://127.0.0.1:1"])
def test_a_scheduler_that_does_not_answer_is_refused(
    where: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """An address where no scheduler answers is refused in a sentence, and no folder is made."""
    monkeypatch.setattr("qsim.studies.executors.PATIENCE", 0.5)
    assert main(["report", str(toystudy.written(tmp_path)), "-o", str(tmp_path / "out"), "--dask", where]) == 2
    (told,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("qsim: ")]
    assert f"no Dask scheduler with a worker answers at {where!r}" in told
    assert not (tmp_path / "out").exists()
