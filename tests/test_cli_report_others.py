"""`qsim report` in folders that hold more than its own: what it removes, replaces, refuses and passes over."""

from __future__ import annotations

import contextlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import toystudy
from command import ENVIRONMENT

from qsim.cli import main
from qsim.files import UNFINISHED, whole
from qsim.studies.result import LARGEST, TRACE

pytestmark = pytest.mark.usefixtures("here")


def report(path: Path | str = "toy.toml", *argv: str) -> int:
    """Run `qsim report` in this process, quietly."""
    return main(["report", str(path), "--jobs", "1", "--quiet", *argv])


def written(folder: str = ".", **more: object) -> str:
    """Write a study file into a folder, made if missing, and return its path."""
    Path(folder).mkdir(parents=True, exist_ok=True)
    return str(toystudy.written(Path(folder), **more))  # type: ignore[arg-type]


# --- What is removed -------------------------------------------------------------------------------------------------

THEIRS = [
    "train/.qsim-notes", "train/.qsim-0123456789abcdef.part", "train/deep/.qsim-1.part", "failures/mine.txt",
    "failures/report.txt", "failures/0123456789abcdef.txt", "failures/deep/0123456789abcdef.txt", "figures/mine.svg",
    "figures/deep/.qsim-1.part", ".qsim-notes", ".qsim-0123456789abcdef.part.bak", ".qsim-12345", "notes.txt", "index.html",
    ".qsim-x/inside", ".qsim-00.part/inside", "figures/.qsim-x/inside", "failures/.qsim-00.part/inside",
]  # fmt: skip


@pytest.mark.parametrize("more", [[], ["--quick"], ["--fresh"]], ids=" ".join)
def test_a_report_touches_no_file_that_is_not_its_own(more: list[str]) -> None:
    """Whatever lies in or below the folder stays, byte for byte, in every run; folders with such names stop nothing."""
    for name in THEIRS:
        path = Path("runs", name)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"mine: {name}")
    Path("runs", "link.txt").symlink_to("notes.txt")
    Path("runs", ".qsim-11.part").symlink_to("notes.txt")
    written(does={1: "raise"})
    assert report("toy.toml", "-o", "runs", *more) == 1
    written()
    assert report("toy.toml", "-o", "runs", *more) == 0
    for name in THEIRS:
        assert Path("runs", name).read_text() == f"mine: {name}"
    assert Path("runs", "link.txt").is_symlink()
    assert Path("runs", ".qsim-11.part").is_symlink()


def test_tracebacks_of_an_earlier_run_go() -> None:
    """What a run wrote of cells that failed is gone once they finish, and begins with the line by which it is known."""
    path = written(does={1: "raise", 2: "raise"})
    assert report(path, "-o", "runs") == 1
    traces = sorted(Path("runs", "failures").iterdir())
    assert len(traces) == 2
    assert all(trace.read_text().startswith(f"{TRACE}\ncell ") for trace in traces)
    written(does={1: "raise"})
    assert report(path, "-o", "runs") == 1
    assert len(set(Path("runs", "failures").iterdir()) & set(traces)) == 1
    os.mkfifo("runs/failures/pipe.txt")  # which is not waited for
    written()
    assert report(path, "-o", "runs") == 0
    assert [path.name for path in Path("runs", "failures").iterdir()] == ["pipe.txt"]


def test_a_fault_of_ours_is_told_beside_a_file_of_the_same_name(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where somebody's text is called as the traceback of a report would be, the traceback takes another name."""

    def broken(*_: object) -> None:
        raise ZeroDivisionError

    Path("runs/failures").mkdir(parents=True)
    Path("runs/failures/report.txt").write_text("mine")
    path = written()
    with monkeypatch.context() as context:
        context.setattr(toystudy, "result", broken)
        assert report(path, "-o", "runs") == 2
    assert {path.name for path in Path("runs", "failures").iterdir()} == {"report.txt", "report-of-qsim.txt"}
    assert report(path, "-o", "runs") == 0
    assert [path.read_text() for path in Path("runs", "failures").iterdir()] == ["mine"]


@pytest.mark.parametrize("folder", ["runs", "runs/figures", "runs/failures"])
def test_parts_go_whose_writers_are_gone(folder: str) -> None:
    """The unfinished files of a killed process go; those of one that lives, in another place or process, stay."""
    Path(folder).mkdir(parents=True)
    path = written()
    begin = "import os, pathlib, sys\nfrom qsim.files import whole\nwith whole(pathlib.Path(sys.argv[1])): "
    kill = f"{begin}os.kill(os.getpid(), 9)"
    dead = subprocess.run([sys.executable, "-c", kill, f"{folder}/x"], env=ENVIRONMENT, check=False)
    assert dead.returncode == -signal.SIGKILL
    (left,) = Path(folder).iterdir()
    assert UNFINISHED.fullmatch(left.name)
    wait = f"{begin}print(flush=True); input()"
    alive = subprocess.Popen(
        [sys.executable, "-c", wait, f"{folder}/y"], env=ENVIRONMENT, stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    try:
        assert alive.stdout
        alive.stdout.readline()
        with whole(Path(folder, "z")) as here:
            assert report(path, "-o", "runs") == 0
            parts = [path.name for path in Path(folder).iterdir() if UNFINISHED.fullmatch(path.name)]
            assert len(parts) == 2
            assert left.name not in parts
            here.write(b"mine")
        alive.communicate(b"\n", timeout=60)
    finally:
        alive.kill()
        alive.wait()
    assert Path(folder, "y").exists()
    assert Path(folder, "z").read_bytes() == b"mine"
    assert not [path for path in Path(folder).iterdir() if UNFINISHED.fullmatch(path.name)]


# --- What is refused -------------------------------------------------------------------------------------------------


def test_another_study_of_the_same_name_does_not_take_the_place_of_a_report(capsys: pytest.CaptureFixture[str]) -> None:
    """Two files that are to be written to one folder: the second is refused before it runs, and the first goes on."""
    first, second = (shutil.move(written(f"{name}/my"), f"{name}/my/study.toml") for name in "ab")
    assert report(first) == 0
    before = Path("qsim-reports/a-my/result.json").read_bytes()
    Path("log").unlink(missing_ok=True)
    Path(second).write_text(Path(second).read_text().replace('log = ""', 'log = "log"').replace('"Toy"', '"Other"'))
    there = ("-o", "qsim-reports/a-my")
    assert report(second, *there) == 2
    told = f"{Path('qsim-reports/a-my')} holds the report on another study of that name, a/my/study.toml; name another"
    assert told in capsys.readouterr().err.replace(f"{Path.cwd()}/", "")
    assert not Path("log").exists()
    assert Path("qsim-reports/a-my/result.json").read_bytes() == before
    assert report(second) == 0
    assert Path("qsim-reports/b-my/result.json").exists()
    assert report(first) == 0
    assert report("a/my") == 0  # the folder is the file in it
    Path("a").rename("c")  # the study was moved
    assert report("c/my", *there) == 0
    shutil.copytree(".", "../copy", dirs_exist_ok=True)  # and the whole of it, with its reports
    with contextlib.chdir("../copy"):
        assert report("c/my", *there) == 0
        assert report("b/my", *there) == 2


def test_a_report_on_a_study_of_another_name_stays(capsys: pytest.CaptureFixture[str]) -> None:
    """An output folder that holds the report on another study is refused by its name, though nothing else tells."""
    assert report(written("a"), "-o", "out") == 0
    Path("out/provenance.json").unlink()
    shutil.move("a/toy.toml", "a/other.toml")
    assert report("a/other.toml", "-o", "out") == 2
    assert "out holds the report on the study 'toy'; name another folder with -o" in capsys.readouterr().err


def test_a_report_that_knows_its_file_or_not_is_replaced() -> None:
    """An earlier report on the study is replaced, also one without its cells or provenance, or half of one."""
    path = written()
    for gone in ([], ["cells.sqlite"], ["provenance.json"], ["cells.sqlite", "provenance.json"], ["result.json"]):
        assert report(path, "-o", "out") == 0
        for name in gone:
            Path("out", name).unlink()
        assert report(path, "-o", "out") == 0
    for damaged in ("result.json", "provenance.json"):
        Path("out", damaged).write_text("{")
        assert report(path, "-o", "out") == 0


@pytest.mark.parametrize("name", ["report.html", "report.md", "cells.csv", "provenance.json", "result.json"])
def test_a_file_of_somebody_else_is_not_replaced(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    """In a folder where no report of ours is, a file that has the name of one is refused before anything runs."""
    Path("out").mkdir()
    Path("out", name).write_text("mine")
    assert report(written(seconds=60), "-o", "out") == 2
    assert f"out/{name} is there, and is no part of a report of qsim's; name another folder" in capsys.readouterr().err
    assert [path.read_text() for path in Path("out").iterdir()] == ["mine"]


@pytest.mark.parametrize("name", ["report.html", "cells.csv", "result.json", "figures", "failures", "cells.sqlite"])
@pytest.mark.parametrize("how", ["the other kind", "a dangling link", "a pipe"])
def test_what_cannot_be_replaced_is_refused_before_the_run(
    name: str, how: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """A folder in place of a file, a file in place of a folder, a link without an end and a pipe are named at once."""
    path = Path("out", name)
    Path("out").mkdir()
    if how == "a pipe":
        os.mkfifo(path)
    elif how == "a dangling link":
        path.symlink_to("nowhere")
    elif name in ("figures", "failures"):
        path.touch()
    else:
        path.mkdir()
    assert report(written(seconds=60), "-o", "out") == 2
    assert f"{path} is there and is no fi" in capsys.readouterr().err.replace("no folder", "no fi")
    assert [path.name for path in Path("out").iterdir()] == [name]


def test_a_name_that_is_no_text_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    """A study whose folder or file is called by bytes that are no UTF-8 could not be named in its report."""
    for path in (b"a\xff/study.toml", b"b\xff.toml"):
        Path(os.fsdecode(path)).parent.mkdir(exist_ok=True)
        shutil.copy(written(), path)
        assert report(os.fsdecode(path)) == 2
        assert "is no name in UTF-8" in capsys.readouterr().err


# --- What is passed over ---------------------------------------------------------------------------------------------


def named(name: str, title: str) -> str:
    """Return a result of another study, as JSON."""
    text = Path("qsim-reports/toy/result.json").read_text(encoding="utf-8")
    return text.replace('"study": "toy"', f'"study": "{name}"').replace('"title": "Toy"', f'"title": "{title}"')


def nested(path: Path) -> None:
    """Write lists within lists."""
    path.write_text("[" * 100_000)


def huge(path: Path) -> None:
    """Make a file that takes no room."""
    with path.open("wb") as file:
        file.truncate(LARGEST + 1)


def looped(path: Path) -> None:
    """Make a link to itself."""
    path.symlink_to(path.name)


def secret(path: Path) -> None:
    """Write what nobody but root may read."""
    path.write_text("{}")
    path.chmod(0)


NEIGHBOURS: dict[str, Callable[[Path], object]] = {
    "a folder": Path.mkdir,
    "a pipe": os.mkfifo,
    "a device": lambda path: path.symlink_to("/dev/zero"),
    "a dangling link": lambda path: path.symlink_to("nowhere"),
    "a link to itself": looped,
    "no permission": secret,
    "empty": Path.touch,
    "no JSON": lambda path: path.write_text("{"),
    "a number": lambda path: path.write_text("7"),
    "a list": lambda path: path.write_text("[]"),
    "null": lambda path: path.write_text("null"),
    "an empty object": lambda path: path.write_text("{}"),
    "another schema": lambda path: path.write_text('{"schema": 1}'),
    "a schema that is a list": lambda path: path.write_text('{"schema": [2]}'),
    "no fields": lambda path: path.write_text('{"schema": 2}'),
    "unknown fields": lambda path: path.write_text(named("x", "x").replace('"setup"', '"set"')),
    "fields of another type": lambda path: path.write_text(named("x", "x").replace('"title": "x"', '"title": 3')),
    "binary": lambda path: path.write_bytes(bytes(range(256)) * 99),
    "UTF-16": lambda path: path.write_text(named("x", "x"), encoding="utf-16"),
    "nested deeply": nested,
    "a number of many digits": lambda path: path.write_text(f'{{"schema": {"9" * 9999}}}'),
    "huge": huge,
    "half a surrogate pair": lambda path: path.write_text(named("x", r"\\ud800")),
}  # fmt: skip


@pytest.mark.parametrize("kind", NEIGHBOURS)
def test_a_neighbour_that_cannot_be_read_is_passed_over(kind: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Whatever lies in a folder beside the report, the run ends as its verdicts say, and the index lists what can be read."""
    path = written()
    assert report(path) == 0
    for name in ("other", "third"):
        Path("qsim-reports", name).mkdir()
    NEIGHBOURS[kind](Path("qsim-reports/other/result.json"))
    Path("qsim-reports/third/result.json").write_text(named("third", "Third"), encoding="utf-8")
    assert report(path) == 0
    assert main(["report", "--index", "qsim-reports"]) == 0
    assert capsys.readouterr() == (f"{Path('qsim-reports/index.html')}\n", "")
    page = Path("qsim-reports/index.html").read_text(encoding="utf-8")
    assert page.count("/report.html") == 2 + (kind == "half a surrogate pair")
    assert 'href="third/report.html"' in page


def test_folders_of_any_name_are_listed() -> None:
    """A folder that is called by no UTF-8, by a sign of HTML or of an address has a link; a file beside them has none."""
    assert report(written()) == 0
    for name in (b"\xff", b"<a>", b"a b#?&%", b".hidden"):
        shutil.copytree("qsim-reports/toy", Path("qsim-reports", os.fsdecode(name)))
    Path("qsim-reports/file").touch()
    assert main(["report", "--index", "qsim-reports"]) == 0
    page = Path("qsim-reports/index.html").read_text(encoding="utf-8")
    for link in ("%FF", "%3Ca%3E", "a%20b%23%3F%26%25", ".hidden", "toy"):
        assert f'href="{link}/report.html"' in page


def test_an_index_that_cannot_be_written_does_not_fail_the_run(capsys: pytest.CaptureFixture[str]) -> None:
    """Where a folder is called index.html a finished run says so and ends as its verdicts say; asked for, it is refused."""
    Path("qsim-reports/index.html").mkdir(parents=True)
    assert report(written()) == 0
    told = "qsim: qsim-reports/index.html: cannot be written (Is a directory); the reports are\n"
    assert capsys.readouterr().err == told
    assert Path("qsim-reports/toy/report.html").exists()
    assert main(["report", "--index", "qsim-reports"]) == 2


@pytest.mark.parametrize(
    "kind", [kind for kind in NEIGHBOURS if kind not in ("half a surrogate pair", "no permission")]
)
def test_a_result_that_is_compared_is_refused_in_a_sentence(kind: str, capsys: pytest.CaptureFixture[str]) -> None:
    """What is passed over beside a report is refused by its name where it is asked for."""
    assert report(written()) == 0
    Path("other").mkdir()
    NEIGHBOURS[kind](Path("other/result.json"))
    for other in ("other", "other/result.json"):
        assert main(["report", "--diff", "qsim-reports/toy", other]) == 2
        (told,) = capsys.readouterr().err.splitlines()
        assert told.startswith("qsim: other")
        assert "give the folder of a report" in told
        assert len(told) < 300


# --- Killed at any moment ------------------------------------------------------------------------------------------------

MURDER = """
import os, random, signal, sys, time
import toystudy
from qsim.cli import main
import qsim.report, qsim.studies, qsim.cli.progress, jinja2, rich.console, threadpoolctl
chance = random.Random(int(sys.argv[1]))
killed = 0
while killed < 25:
    pid = os.fork()
    if not pid:
        os._exit(main(["report", "toy.toml", "-o", "runs", "--jobs", "1", "--quiet"]))
    time.sleep(chance.uniform(0, 0.12))
    os.kill(pid, signal.SIGKILL)
    _, status = os.waitpid(pid, 0)
    assert os.WIFSIGNALED(status) or os.WEXITSTATUS(status) == 1, status
    killed += os.WIFSIGNALED(status)
"""


def test_kills_leave_nothing_that_stays() -> None:
    """After kills at random moments a run ends as ever, and beside its files lie those of other people alone."""
    for name in THEIRS:
        path = Path("runs", name)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"mine: {name}")
    before = {path for path in Path("runs").rglob("*") if path.is_file()}
    written(cells=4, does={1: "raise"})
    seed = random.randrange(1 << 30)  # noqa: S311 - the moments of the kills
    done = subprocess.run(
        [sys.executable, "-c", MURDER, str(seed)], env=ENVIRONMENT | {"PYTHONPATH": os.pathsep.join([
            ENVIRONMENT["PYTHONPATH"], str(Path(__file__).parent)])},
        capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert done.returncode == 0, (seed, done.stderr)
    assert report("toy.toml", "-o", "runs") == 1
    found = {path for path in Path("runs").rglob("*") if path.is_file()}
    (trace,) = json.loads(Path("runs/result.json").read_text())["failures"]
    ours = {"report.html", "report.md", "cells.csv", "provenance.json", "result.json", "cells.sqlite", trace["trace"]}
    assert found - before == {Path("runs", name) for name in ours}, seed
    assert before <= found
