"""The benchmark, never timed: every row runs and does what it is held against, and the page says what was measured."""

from __future__ import annotations

import contextlib
import dataclasses
import importlib.util
import io
import math
import subprocess
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import matplotlib as mpl
import numpy as np
import pyperf
import pytest

import qsim
import qsim.cli

FOLDER = Path(__file__).resolve().parents[1] / "benchmarks"


def load(name: str) -> ModuleType:
    """Load a module of the folder by its path; the others find it by its name."""
    spec = importlib.util.spec_from_file_location(name.strip("_"), FOLDER / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


work, peers, _, rows, page = map(load, ("work", "peers", "engine", "rows", "page"))
script = load("__main__")
MACHINE = {"cpu_model_name": "a machine", "numpy": "2.0", "simd": "AVX2"}


@pytest.fixture(autouse=True)
def numbers_of_threads():
    """Leave the number of threads as it was."""
    yield
    qsim.set_threads(None)


@pytest.fixture(autouse=True)
def no_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """Run as on a machine whose BLAS chooses its kernels."""
    for name in script.REFUSED:
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def in_this_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """Run what would be a process of its own in this one, where kernels are loaded and compiled already; and few steps."""

    def run(command: list[str], *, env: dict[str, str], **_: Any) -> subprocess.CompletedProcess[str]:
        assert "PYTHONDONTWRITEBYTECODE" not in env
        printed = io.StringIO()
        with contextlib.redirect_stdout(printed):
            if command[1] == "-c":
                exec(command[2], {})  # noqa: S102 - the lines of the rows
            else:
                assert command[1:3] == ["-m", "qsim"]
                assert qsim.cli.main(command[3:]) == 0
        return subprocess.CompletedProcess(command, 0, printed.getvalue(), "")

    monkeypatch.setattr(work, "subprocess", SimpleNamespace(run=run))
    monkeypatch.setattr(work, "STEPS", 1)


def numbers(result: Any) -> np.ndarray:
    """Return what a package returned, values or codes, as numbers of NumPy."""
    if type(result).__module__ == "torch":
        import torch

        result = result.int_repr() if result.is_quantized else result
        result = (result.view(torch.uint8) if result.dtype.itemsize == 1 else result).numpy()
    array = np.asarray(result)
    return array.view(np.uint8) if array.dtype.itemsize == 1 else array


def suite(names: tuple[str, ...] = (*rows.ROWS,), machine: dict[str, Any] = MACHINE) -> pyperf.BenchmarkSuite:
    """Return results with figures made up: in each row every candidate a little slower than the one before it."""
    found = []
    for row in map(rows.ROWS.get, names):
        for k, name in enumerate(("qsim", *([] if row.peers == {} else ["ml_dtypes"]))):
            times = [(0.004 * (k + 1) + i / 1e4, 0.0039 if row.reference else None) for i in range(7)]
            found += script.kept(row, name, times, 1, row.elements, 0.02 + k, machine)
    return pyperf.BenchmarkSuite(found)


# --- The rows ---------------------------------------------------------------------------------------------------------


@pytest.mark.in_part(3)
@pytest.mark.parametrize("name", rows.ROWS)
@pytest.mark.usefixtures("in_this_process")
def test_a_row_runs_and_its_peers_do_the_same(name: str, tmp_path: Path) -> None:
    """A row runs at a small size; the packages that are there return what qsim does, and a copy copies."""
    row = rows.ROWS[name]
    elements = min(row.elements, 1000)
    data = work.Data(row.data, elements, row.threads, tmp_path)
    with script.threads(row.threads), script.quiet():
        calls, notes = script.prepared(row, data)
        assert all("left out: " in note for note in notes)
        assert not [note for note in notes if "fails" in note]
        if "qsim" not in calls:
            assert "torch" in row.name
            return
        ours = calls["qsim"]()
        kept = np.copy(ours) if isinstance(ours, np.ndarray) else ours
        others = {who: call() for who, call in calls.items() if who != "qsim"}
    if isinstance(ours, np.ndarray):
        assert np.shares_memory(ours, data.out) or ours.dtype.kind == "u"
        assert kept.shape == (elements,)
    for who, result in others.items() if row.alike else ():
        np.testing.assert_array_equal(numbers(result), kept, err_msg=who)
    if row.reference is not None:
        try:
            reference = row.reference(data)
        except ImportError:
            assert "torch" in row.name
            return
        reference()
        if row.reference is work.copy:
            np.testing.assert_array_equal(data.out, data.x)
        if row.reference is work.fill:
            np.testing.assert_array_equal(data.out, 1)


def test_the_rows_are_those_of_the_goals() -> None:
    """What a row stands beside is a row before it; and only what is to be looked at has no goal."""
    before: set[str] = {""}
    for name, row in rows.ROWS.items():
        assert row.beside in before
        assert "/" not in name
        before.add(name)
    assert [name for name, row in rows.ROWS.items() if row.goal is None and not name.startswith("cache-")] == [
        "growth-rne-24",
        "growth-sr-24",
        "mlp-torch",
        "mlp-torch-2",
    ]
    assert len(rows.ROWS) == sum(map(len, rows.GROUPS.values()))


def test_no_folder_is_a_fact_about_a_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    """What the environment sets is told, but for where kernels are kept."""
    monkeypatch.setenv("NUMBA_CACHE_DIR", "anywhere")
    monkeypatch.setenv("NUMBA_CPU_NAME", "haswell")
    assert "anywhere" not in script.facts()["environment"]
    assert "NUMBA_CPU_NAME=haswell" in script.facts()["environment"]


def test_a_reason_names_figures_of_its_own_run() -> None:
    """What a row in braces took stands in the reason of another, and where it was not measured it is said."""
    found = {name: page.figures(row, suite()) for name, row in rows.ROWS.items()}
    for name, row in rows.ROWS.items():
        assert "{" not in page.why(row, found), name
    figure = page.amount(rows.ROWS["cache-rne"], found["cache-rne"][0].median)
    assert f": {figure} an element in a cache" in page.why(rows.ROWS["rna"], found)
    assert ": (not measured here) an element" in page.why(rows.ROWS["rna"], found | {"cache-rne": []})


@pytest.mark.parametrize("kind", ["ordinary", "patterns", "float64", "strided", "mapped"])
def test_inputs_are_what_they_are_called(kind: str, tmp_path: Path) -> None:
    """An input has its kind, and so many elements; the same ones in each run."""
    data = work.Data(kind, 5000, 1, tmp_path)
    assert data.x.shape == data.out.shape == (5000,)
    assert data.x.dtype == data.out.dtype == (np.float64 if kind == "float64" else np.float32)
    assert data.x.flags.c_contiguous is (kind != "strided")
    assert np.isnan(data.x).any() == (kind == "patterns")
    assert sorted(path.name for path in tmp_path.iterdir()) == (["out-5000", "x-5000"] if kind == "mapped" else [])
    np.testing.assert_array_equal(data.x, work.Data(kind, 5000, 1, tmp_path).x)


def test_processes_are_those_of_a_user(tmp_path: Path) -> None:
    """A process starts where no module hides another, with kernels cached as the row says, and its failure is told."""
    data = work.Data("ordinary", 100, 1, tmp_path)
    show = "import os; print(os.getcwd(), os.environ['NUMBA_CACHE_DIR'])"
    cold, warm = (work.process("-c", show, cache=cache)(data) for cache in ("cold", "warm"))
    places = [call().split() for call in (cold, cold, warm, warm)]
    assert {place for place, _ in places} == {str(tmp_path)}
    assert len({cache for _, cache in places}) == 3
    assert places[2] == places[3]
    with pytest.raises(RuntimeError, match=r"^-c 1/0: ZeroDivisionError: division by zero$"):
        work.process("-c", "1/0")(data)()


def test_a_sweep_says_what_is_wrong(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A row of a sweep is no time if a kernel is wrong."""
    monkeypatch.setattr(work.exhaustive, "first_difference", lambda *_, **__: 7)
    with pytest.raises(AssertionError, match=r"^int8:RNE rounds the pattern 0x00000007 wrongly$"):
        work.swept("int8", "RNE")(work.Data("ordinary", 100, 1, tmp_path))()


# --- Who is left out --------------------------------------------------------------------------------------------------


def test_a_package_that_is_not_there_or_fails_is_left_out(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """It is said so, and the others are timed."""

    def failing(_: Any) -> Any:
        raise ValueError("no such format\nat all")

    monkeypatch.setitem(sys.modules, "ml_dtypes", None)
    row = dataclasses.replace(rows.ROWS["decode-float8_e4m3fn"], peers={
        "ml_dtypes": rows.ROWS["decode-float8_e4m3fn"].peers["ml_dtypes"], "failing": failing,
    })  # fmt: skip
    calls, notes = script.prepared(row, work.Data("ordinary", 100, 1, tmp_path))
    assert list(calls) == ["qsim"]
    assert notes[0].startswith("ml_dtypes left out: import of ml_dtypes halted")
    assert notes[1] == "failing left out: it fails with ValueError: no such format"


def test_a_row_of_more_threads_than_there_are_is_left_out() -> None:
    """It is said so."""
    row = dataclasses.replace(rows.ROWS["rne-bfloat16-2"], threads=10_000)
    measured, (note,) = script.measure(row, 100, quick=True)
    assert not measured
    assert note.startswith("left out: it needs 10000 threads, and there are ")


# --- The figures ------------------------------------------------------------------------------------------------------


def test_a_share_is_the_median_over_rounds() -> None:
    """A figure divides the times of one round, and only then takes the median; one row may stand beside another."""
    row, base, grown = (rows.ROWS[name] for name in ("rne-bfloat16", "growth-rne-24", "growth-rne-20"))
    found = script.kept(row, "qsim", [(2.0, 1.0), (4.0, 4.0), (8.0, 2.0)], 1, 16, 0.0, MACHINE)
    found += script.kept(row, "ml_dtypes", [(100.0, 1.0)] * 3, 1, 16, 0.0, MACHINE)
    found += script.kept(row, "gfloat", [(10.0, 1.0)] * 3, 1, 16, 0.0, MACHINE)
    found += script.kept(base, "qsim", [(2.0, 1.0)] * 3, 1, 16, 0.0, MACHINE)
    found += script.kept(grown, "qsim", [(4.0, 1.0)] * 3, 1, 16, 0.0, MACHINE)
    results = pyperf.BenchmarkSuite(found)
    ours, *others = page.figures(row, results)
    assert (ours.low, ours.median, ours.high) == (0.375, 0.5, 0.75)
    assert [(one.name, one.median) for one in others] == [("gfloat", 0.1), ("ml_dtypes", 0.01)]
    assert page.figures(grown, results)[0].median == 0.5
    assert page.line(grown, results).startswith("0.50 (0.50 to 0.50), goal ≥ 0.90  missed; 4.00 sec;")


def test_goals_of_times_are_met_from_below() -> None:
    """A share is at least its goal; times, seconds and bytes are at most theirs."""
    assert rows.ROWS["rne-bfloat16"].meets(0.93)
    assert not rows.ROWS["rne-bfloat16"].meets(0.91)
    assert rows.ROWS["start-import"].meets(1.4)
    assert not rows.ROWS["start-import"].meets(1.6)
    assert rows.ROWS["growth-rne-24"].meets(math.inf)


# --- The page ---------------------------------------------------------------------------------------------------------


def test_the_page_is_made_of_the_suite_alone(tmp_path: Path) -> None:
    """The same suite renders to the same bytes, from memory and from its file, whatever matplotlib is set to."""
    files = page.render(suite(), "results")
    assert list(files) == ["results.svg", "results.md", "results.json"]
    (tmp_path / "results.json").write_bytes(files["results.json"])
    with mpl.rc_context({"font.size": 20, "axes.grid": False, "svg.hashsalt": "other"}):
        assert page.render(script.load(tmp_path / "results.json"), "results") == files
    text = files["results.md"].decode()
    assert all(f"`{name}`" in text for name in rows.ROWS)
    assert "of 100 goals" not in text
    assert "Not measured" not in text
    assert b"<dc:date>" not in files["results.svg"]


def test_the_page_tells_what_is_missing_and_what_is_quick() -> None:
    """Rows that were not measured are named, as is a quick run, and a machine that had other things to do."""
    some = ("rne-bfloat16", "start-import", "memory-rne")
    busy = suite(some, MACHINE | {"quick": "yes"})
    busy.get_benchmark("start-import/qsim").update_metadata({"others": 0.5})
    text = page.render(busy, "quick")["quick.md"].decode()
    assert "> **Quick run" in text
    assert "![Bars" in text
    assert "`start-import`\\*" in text
    assert "\\* Other processes took more than 10% of a core" in text
    missing = next(line for line in text.splitlines() if line.startswith("Not measured here"))
    assert missing.count("`") == 2 * (len(rows.ROWS) - len(some))
    assert "| numpy | 2.0 |" in text


def test_the_page_that_is_kept_is_that_of_its_results() -> None:
    """`python benchmarks --render` changes nothing on it."""
    for file in FOLDER.glob("results.json"):
        assert page.render(script.load(file), "results")["results.md"] == file.with_suffix(".md").read_bytes()


@pytest.mark.usefixtures("pinned_matplotlib")
def test_the_chart_that_is_kept_is_that_of_its_results() -> None:
    """Likewise the chart, with the matplotlib that drew it."""
    for file in FOLDER.glob("results.json"):
        assert page.render(script.load(file), "results")["results.svg"] == file.with_suffix(".svg").read_bytes()


# --- The command ------------------------------------------------------------------------------------------------------


def test_a_quick_run_writes_a_suite_of_pyperf(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """It says what each row reached, writes what pyperf reads, and a second run of one row keeps the others."""
    where = ("--quick", "-o", str(tmp_path / "new"))
    assert script.main(["--only", "small-decode-64", "rtz", *where]) == 0
    out = capsys.readouterr().out.splitlines()
    assert [line.partition(":")[0] for line in out if ", goal " in line] == ["rtz", "small-decode-64"]
    assert out[-1] == str(tmp_path / "new" / "quick.md")
    assert sorted(path.name for path in (tmp_path / "new").iterdir()) == ["quick.json", "quick.md", "quick.svg"]
    first = pyperf.BenchmarkSuite.load(str(tmp_path / "new" / "quick.json"))
    assert {"rtz/qsim", "rtz/qsim/reference", "small-decode-64/qsim"} <= {*first.get_benchmark_names()}
    kept = first.get_metadata()
    assert {"numpy", "numba", "simd", "quick"} <= {*kept}
    assert not {"hostname", "date", "python_executable", "boot_time"} & {*kept}
    assert script.main(["--only", "rtz", *where]) == 0
    second = script.load(tmp_path / "new" / "quick.json")
    assert second.get_benchmark_names() == first.get_benchmark_names()
    before, after = (one.get_benchmark("small-decode-64/qsim").get_values() for one in (first, second))
    assert before == after
    assert script.main(["--render", *where]) == 0


def test_rows_are_named_by_patterns() -> None:
    """A pattern names many; what a row stands beside comes along; without names all rows are meant but the longest."""
    assert [row.name for row in script.named(["growth-sr-2[02]", "rtz"])] == [
        "rtz", "growth-sr-24", "growth-sr-20", "growth-sr-22",
    ]  # fmt: skip


def refused(capsys: pytest.CaptureFixture[str], *argv: str) -> str:
    """Run a command line that must be refused, and return its one sentence."""
    assert script.main(argv) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("benchmarks: ")
    assert err.count("\n") == 1
    return err


def test_what_is_refused(capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A row that is none, a file that is none, another machine's rows, and an environment that changes what is measured."""
    assert "no row is called 'rne-bfloat61'; did you mean rne-bfloat16" in refused(capsys, "--only", "rne-bfloat61")
    assert "unrecognized arguments: --fast" in refused(capsys, "--fast")
    assert "there is no such file; measure something first" in refused(capsys, "--render", "-o", str(tmp_path))
    (tmp_path / "quick.json").write_text("[]")
    assert "is no suite of pyperf" in refused(capsys, "--only", "rtz", "--quick", "-o", str(tmp_path))
    (tmp_path / "quick.json").write_bytes(page.render(suite(("rtz",)), "quick")["quick.json"])
    other = refused(capsys, "--only", "rtz", "--quick", "-o", str(tmp_path))
    assert "holds figures of cpu_model_name 'a machine'" in other
    assert "measure all rows, or give another folder with -o" in other
    assert script.earlier(tmp_path / "quick.json", MACHINE | {"numpy": "2.1"}, partial=False) == {}
    monkeypatch.setenv("OPENBLAS_CORETYPE", "Haswell")
    assert "OPENBLAS_CORETYPE is set" in refused(capsys, "--only", "rtz")
