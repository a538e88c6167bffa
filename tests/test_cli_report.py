"""`qsim report`: what it lists, what it writes, and what it refuses before any work is done."""

from __future__ import annotations

import dataclasses
import json

import pytest

import qsim.studies
from qsim.cli import main
from qsim.cli.report import as_expected
from qsim.folders import folder
from qsim.studies import Finished
from qsim.studies.result import Claim, Result
from qsim.studies.source import Source
from qsim.verdicts import Outcome

CLAIM = Claim(
    id="c",
    statement="s",
    margin="m",
    theorem="t",
    expected=Outcome.HELD,
    outcome=Outcome.HELD,
    covered="1 cell",
    evidence="e",
)


@pytest.fixture
def found(monkeypatch) -> list[Result]:
    """Replace the running of a study, which takes minutes, by a result that holds one claim; return what to change."""
    result = Result(
        study="variance-vs-batch", title="T", question="Q", answer="A", lead="", run="full", command="qsim report", setup=(),
        claims=(CLAIM,), figures=(), tables=(), method=(), cells=(),
    )  # fmt: skip
    results = [result]

    def run(*_: object, **__: object) -> Finished:
        return Finished(
            result=results[0], traces={}, source=Source({}, {}), data={}, executor="none", workers=1, seconds=0.0, memory=0,
            counts={"planned": 1, "kept": 0, "computed": 1, "failed": 0},
        )  # fmt: skip

    monkeypatch.setattr(qsim.studies, "run", run)
    return results


def test_without_a_study_it_lists_them(capsys):
    """`qsim report` names every study with its title, in plain text and as JSON."""
    assert main(["report"]) == 0
    assert "variance-vs-batch" in capsys.readouterr().out
    assert main(["report", "--json"]) == 0
    assert [s["study"] for s in json.loads(capsys.readouterr().out)] == [
        path.parent.name for path in sorted(folder("reports").glob("*/study.toml"))
    ]


def test_it_writes_where_it_says(found, tmp_path, monkeypatch, capsys):
    """A report goes to ./qsim-reports/STUDY by default and to -o if given, and the path of the page is printed."""
    monkeypatch.chdir(tmp_path)
    assert main(["report", "variance-vs-batch"]) == 0
    assert capsys.readouterr().out.rstrip().endswith("qsim-reports/variance-vs-batch/report.html")
    assert main(["report", "variance-vs-batch", "-o", "here"]) == 0
    for place in ("qsim-reports/variance-vs-batch", "here"):
        assert {path.name for path in (tmp_path / place).iterdir()} >= {"report.html", "report.md", "result.json"}


def test_json_tells_verdicts_and_folder(found, tmp_path, capsys):
    """With --json the verdicts, expected and found, are one JSON object on standard output."""
    assert main(["report", "variance-vs-batch", "--json", "-o", str(tmp_path)]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["claims"] == {"c": {"expected": "held", "outcome": "held"}}
    assert told["folder"] == str(tmp_path)


@pytest.mark.parametrize(("outcome", "quick", "code"), [
    (Outcome.HELD, False, 0), (Outcome.REFUTED, False, 1), (Outcome.NOT_DECIDED, False, 1),
    (Outcome.REFUTED, True, 1), (Outcome.NOT_DECIDED, True, 0),
])  # fmt: skip
def test_the_exit_code_is_that_of_the_verdicts(found, tmp_path, outcome, quick, code):
    """A verdict other than expected exits 1; only a quick run may leave one undecided."""
    claim = dataclasses.replace(CLAIM, outcome=outcome)
    assert as_expected(claim, quick=quick) == (code == 0)
    found[0] = dataclasses.replace(found[0], claims=(claim,))
    assert main(["report", "variance-vs-batch", "-o", str(tmp_path), *(["--quick"] if quick else [])]) == code


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["variance-vs-bach"], "no study is called 'variance-vs-bach'; did you mean variance-vs-batch?"),
        (["variance-vs-batch", "--jobs", "0"], "--jobs 0: give 1 to 1024 processes"),
        (["variance-vs-batch", "--jobs", "9" * 30], "give 1 to 1024 processes"),
        (["variance-vs-batch", "--jobs", "two"], "--jobs takes an integer, not 'two'"),
        (["variance-vs-batch", "variance-vs-batch", "-o", "x"], "-o names the folder of one report"),
        (["no/such/study.toml"], "no study is called 'no/such/study.toml', nor is that a file"),
        (["/"], "no study is called '/', and that folder holds no study.toml"),
        ([""], "no study is called ''; did you mean"),  # of a shell's variable that is not set, and not this folder
        (["variance-vs-batch", "-o", ""], "--output: it is empty"),
        (["variance-vs-batch", "--dask", ""], "--dask: it is empty"),
        (["variance-vs-batch", "variance-vs-batch"], "two of the studies are called 'variance-vs-batch'"),
    ],
)
def test_bad_usage_is_refused_in_one_sentence(found, capsys, tmp_path, monkeypatch, arguments, message):
    """Wrong arguments exit 2 with one sentence on standard error, and leave no folder behind."""
    monkeypatch.chdir(tmp_path)
    assert main(["report", *arguments]) == 2
    err = capsys.readouterr().err
    assert message in err
    assert len(err.strip().splitlines()) == 1
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_cannot_be_written_is_refused_before_the_run(found, tmp_path, capsys):
    """An output below a file is refused with its name, exit 2."""
    (tmp_path / "file").write_text("")
    assert main(["report", "variance-vs-batch", "-o", str(tmp_path / "file" / "out")]) == 2
    assert f"{tmp_path / 'file' / 'out'}: cannot be written" in capsys.readouterr().err


def test_a_broken_study_file_is_refused(tmp_path, capsys):
    """A study file that is not TOML is refused with its path, exit 2."""
    path = tmp_path / "study.toml"
    path.write_text("[model\n")
    assert main(["report", str(path), "-o", str(tmp_path / "out")]) == 2
    err = capsys.readouterr().err
    assert str(path) in err
    assert "not valid TOML" in err


def test_a_study_that_cannot_be_planned_leaves_no_folder(tmp_path, capsys):
    """A study file with a wrong key is refused before the output folder is made."""
    text = (folder("reports") / "variance-vs-batch" / "study.toml").read_text(encoding="utf-8")
    path = tmp_path / "study.toml"
    path.write_text(text.replace("train_steps", "steps"), encoding="utf-8")
    assert main(["report", str(path), "-o", str(tmp_path / "out")]) == 2
    assert "unknown key 'steps'" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_probing_a_folder_leaves_nothing_in_it(tmp_path):
    """Seeing whether a folder can be written leaves no file behind."""
    from qsim.cli.report import prepared

    assert list(prepared(tmp_path / "a" / "b").iterdir()) == []
