"""Studies of one's own: data from a file, a model of a class, any rounding mode, and what is wrong with them in a sentence."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import re
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

import qsim.studies
from qsim.autograd import numerics, value_and_grad
from qsim.cli import main
from qsim.data import labelled
from qsim.errors import InputError
from qsim.measure import Interval, gradient_statistics
from qsim.rounding import LIMITED, SPELLINGS, Mode
from qsim.studies import find
from qsim.studies.gradient_variance.cell import batch_indices, compute, estimate, policy
from qsim.studies.gradient_variance.plan import plan
from qsim.studies.gradient_variance.point import point
from qsim.studies.template import TEMPLATE

RENDERED = Path(__file__).resolve().parent.parent / "reports" / "variance-vs-batch"

NET = """
import numpy as np
from qsim.autograd import cross_entropy, linear, relu

class Net:
    def init(self, rng):
        return {"one": {"w": rng.standard_normal((6, 3)) * 0.6, "b": np.zeros(6)},
                "two": {"w": rng.standard_normal((3, 6)) * 0.4, "b": np.zeros(3)}}

    def loss(self, params, batch):
        x, y = batch
        hidden = relu(linear(x, params["one"]["w"], params["one"]["b"], name="one"))
        return cross_entropy(linear(hidden, params["two"]["w"], params["two"]["b"], name="two"), y)
"""

CNN = """
import numpy as np
from qsim.autograd import conv2d, cross_entropy, global_average_pool, linear, relu

class CNN:
    def init(self, rng):
        return {"conv": {"w": rng.standard_normal((4, 3, 3, 2)) * 0.5}, "head": {"w": rng.standard_normal((3, 4)) * 0.7,
                "b": np.zeros(3)}}

    def loss(self, params, batch):
        x, y = batch
        pooled = global_average_pool(relu(conv2d(x, params["conv"]["w"], name="conv", pad=1)))
        return cross_entropy(linear(pooled, params["head"]["w"], params["head"]["b"], name="head"), y)
"""

DATA = TEMPLATE[TEMPLATE.index("[data]") : TEMPLATE.index("\n\n[model]")]
QUICK = re.search(r"\[quick\].*?\n\n", TEMPLATE, re.DOTALL)
CLAIMS = TEMPLATE[TEMPLATE.index("[claims") :]


def samples(where: Path, count: int = 120) -> list[list[str]]:
    """Write a CSV file of three numbers and one of three colours a line; return its lines."""
    rng = np.random.Generator(np.random.Philox(5))
    kinds = rng.integers(0, 3, count)
    x = rng.standard_normal((count, 3)) + kinds[:, None] * [1.0, -1.0, 0.0]
    lines = [["a", "b", "c", "kind"]]
    lines += [[*(f"{v:.4f}" for v in row), ("red", "green", "blue")[k]] for row, k in zip(x, kinds, strict=True)]
    (where / "samples.csv").write_text("".join(",".join(line) + "\n" for line in lines))
    return lines


def study(where: Path, *, data: str = 'file = "samples.csv"\nlabel = "kind"', model: str = "", **changes: str) -> Path:
    """Write the study of `qsim report --init` with other data, another model and other lines."""
    assert DATA in TEMPLATE
    text = TEMPLATE.replace(DATA, f"[data]\n{data}")
    model = model or 'kind = "mlp"\nwidths = [3, 6, 3]'
    text = re.sub(r'kind = "mlp"\nwidths = [^\n]*', lambda _: model, text)
    small = "batch_sizes = [4, 16]\nmedium = { samples = 256, fewest = 32, most = 32, draws = 64 }"
    text = re.sub(r"batch_sizes = \[4, 16, 64(, 256)?\]\nmedium = [^\n]*", small, text)
    for old, new in changes.items():
        text = re.sub(rf"(?m)^{old} = .*$", lambda _, old=old, new=new: f"{old} = {new}", text)
    path = where / "study.toml"
    path.write_text(text)
    return path


def test_a_csv_and_a_network_of_ones_own_are_reported(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """`--init`, the file, the label and the class edited in, and the report says whose data and model it is of."""
    assert main(["report", "--init", "mine"]) == 0
    assert Path("mine/study.toml").read_text() == TEMPLATE
    assert main(["report", "--init", "mine"]) == 2
    samples(Path("mine"))
    Path("mine/net.py").write_text(NET)
    study(Path("mine"), model='kind = "net.py:Net"')
    assert main(["report", "mine", "--jobs", "1", "--quiet"]) in (0, 1)
    assert "Traceback" not in capsys.readouterr().err
    result = qsim.studies.result.read_result(Path("qsim-reports/mine/result.json"))
    assert result.failures == ()
    setup = dict(result.setup)
    assert setup["data"].startswith("samples.csv, label 'kind'; 120 samples, standardized: each column by itself")
    assert setup["SHA-256 of the data"] == hashlib.sha256(Path("mine/samples.csv").read_bytes()).hexdigest()
    assert hashlib.sha256(Path("mine/net.py").read_bytes()).hexdigest() in setup["model"]
    read = json.loads(Path("qsim-reports/mine/provenance.json").read_text())
    assert "samples.csv" in json.dumps(read)
    assert "too little" not in result.answer
    rows = result.rows()
    assert len(rows) == len(result.cells) == 24
    assert {row["column"] for row in result.rows("columns")} == set(rows[0])
    assert all(row["what it is"] for row in result.rows("columns"))
    with pytest.raises(InputError, match="no table 'nothing'; it has cells"):
        result.rows("nothing")
    norm = rows[0]["one.gradient_squared"] + rows[0]["two.gradient_squared"]
    assert rows[0]["whole.gradient_squared"] == pytest.approx(norm, rel=1e-8)
    seen = [row for row in rows if row["points"] == "bwd_grad" and row["mode"] == "SR"]
    assert all(row["all.variance"] > 0 and "all.theory" not in row for row in seen)


def test_a_result_is_a_frame_where_there_is_pandas(monkeypatch: pytest.MonkeyPatch) -> None:
    """`frame` gives the rows to pandas; without it a sentence says what there is instead."""
    result = qsim.studies.result.read_result(RENDERED / "result.json")
    monkeypatch.setitem(sys.modules, "pandas", SimpleNamespace(DataFrame=tuple))
    assert result.frame("bits") == tuple(result.rows("bits"))
    assert len(result.frame()) == len(result.cells)
    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(InputError, match=r"pandas is not installed; pip install pandas, or take rows\('bits'\)"):
        result.frame("bits")


def test_a_csv_under_an_mlp_has_theory(here: Path) -> None:
    """An MLP on one's own data has A-T1, and measured is what it says."""
    samples(here)
    planned = plan(find(str(study(here))), "full")
    cell = next(c for c in planned.cells if (c.points, c.mode, c.format) == ("bwd_act", "SR", "int4"))
    record = compute(cell)
    found = estimate(record, "all.ratio")
    assert abs(found.value - 1) < 5 * found.error


def test_a_study_of_a_cnn_is_that_of_gradient_statistics(here: Path) -> None:
    """A cell's variance is that of the very draws of each batch, and lies in the intervals of `gradient_statistics`."""
    rng = np.random.Generator(np.random.Philox(3))
    np.savez(here / "images.npz", x=rng.standard_normal((40, 6, 6, 2)), y=rng.integers(0, 3, 40))
    (here / "cnn.py").write_text(CNN)
    path = study(
        here, data='file = "images.npz"\nlabel = "y"', model='kind = "cnn.py:CNN"', formats='["int4"]',
        points='["bwd_act+bwd_grad", "fwd_weight", "last layer: bwd_grad"]', modes='["SR"]', groups="4", train_steps="3",
        medium="{ samples = 16, fewest = 4, most = 4, draws = 128 }", batch_sizes="[4]",
    )  # fmt: skip
    for cell in plan(find(str(path)), "full").cells:
        at, record = point(cell.model), compute(cell)
        assert (cell.batches, cell.draws) == (4, 32)
        names = ["head"] if cell.points.startswith("last") else ["conv", "head"]
        variance: dict[str, list[float]] = {name: [] for name in names}
        inside: dict[str, list[Interval]] = {name: [] for name in names}
        for j, ids in enumerate(batch_indices(cell, 40)):
            batch, rounds = (at.x[ids], at.y[ids]), policy(cell, at)
            with numerics(rounds, seed=cell.key, draws=32, first_draw=32 * j):
                grads = value_and_grad(at.model.loss)(at.params, batch)[1]
            found = gradient_statistics(
                at.model, at.params, batch, rounds, seeds=range(32 * j, 32 * j + 32), seed=cell.key, alone=False
            )
            for name in names:
                variance[name].append(grads[name]["w"].reshape(32, -1).var(0, ddof=1).sum())
                inside[name].append(found.together[f"{name}.w"].variance)
        for name in names:
            assert record[f"{name}.variance"] == pytest.approx(np.mean(variance[name]), rel=1e-8), (cell.points, name)
            low, high = (np.mean([getattr(i, end) for i in inside[name]]) for end in ("low", "high"))
            assert low <= record[f"{name}.variance"] <= high


def test_the_gradient_and_its_spread_are_those_of_single_samples(here: Path) -> None:
    """For a model that theory does not know, |g|^2 and sigma^2 are those of the gradients of all samples, one by one."""
    samples(here)
    (here / "net.py").write_text(NET)
    at = point(plan(find(str(study(here, model='kind = "net.py:Net"'))), "full").model)
    step = value_and_grad(at.model.loss)
    each = np.array([step(at.params, (at.x[i : i + 1], at.y[i : i + 1]))[1]["two"]["w"] for i in range(len(at.x))])
    assert np.allclose(at.gradient("two"), each.mean(0), rtol=0, atol=1e-12)
    assert at.sampling_variance("two") == pytest.approx(each.var(0).sum(), rel=1e-9)
    assert np.allclose(at.x.mean(0), 0, atol=1e-12)
    assert np.allclose(at.x.std(0), 1)


def test_every_mode_is_one_of_a_study(here: Path) -> None:
    """All modes, in every spelling, with a number of random bits or an eps where they have one; the label has the short one."""
    samples(here)
    bits = {name: "(6)" for name, mode in SPELLINGS.items() if mode in LIMITED}
    modes = [name + (bits | {"Threshold": "(0.25)", "THR": "(0.5)"}).get(name, "") for name in SPELLINGS]
    kept: dict[str, str] = {}
    for mode in modes:
        path = study(here, modes=json.dumps([mode]), points='["bwd_grad"]', formats='["int4"]')
        cells = plan(find(str(path)), "quick").cells
        kept[mode] = cells[0].mode
        assert (cells[0].draws > 1) == cells[0].stochastic
    assert {mode.partition("(")[0] for mode in kept.values()} == {mode.name for mode in Mode}
    assert kept["StochasticA(6)"] == "SRA(6)"
    planned = plan(find(str(study(here, modes='["SRA(8)", "RTZ"]', points='["all"]', formats='["int4"]'))), "quick")
    assert {compute(cell)["mode"] for cell in planned.cells} == {"SRA(8)", "RTZ"}


def test_a_study_without_claims_says_so(here: Path) -> None:
    """No claim is no open claim: the answer says that none is made; nothing is missing."""
    samples(here)
    path = study(here, points='["bwd_act"]', modes='["SR"]', formats='["int4"]')
    path.write_text(path.read_text().replace(CLAIMS, ""))
    result = qsim.studies.run(find(str(path)), "quick").result
    assert result.answer == "This study makes no claims; figures and tables show what was measured."
    assert result.claims == ()


def test_the_shorter_beginning_is_the_same_study(here: Path) -> None:
    """`--minimal` leaves out the comments, and nothing else."""
    import tomllib

    assert main(["report", "--init", "short", "--minimal"]) == 0
    text = Path("short/study.toml").read_text()
    assert "#" not in text
    assert tomllib.loads(text) == tomllib.loads(TEMPLATE)
    assert main(["report", "--minimal"]) == 2


def test_studies_of_one_name_have_folders_of_their_own(here: Path) -> None:
    """a/my and b/my do not write to one folder."""
    for name in ("a/my", "b/my"):
        Path(name).mkdir(parents=True)
        samples(Path(name))
        study(Path(name), points='["bwd_act"]', modes='["SR"]', formats='["int4"]')
    main(["report", "a/my", "b/my/study.toml", "--quick", "--jobs", "1", "--quiet"])
    assert {path.name for path in Path("qsim-reports").iterdir() if path.is_dir()} == {"a-my", "b-my"}


def test_data_that_changed_makes_cells_stale_and_not_the_folder(here: Path) -> None:
    """The words of a cell depend on the bytes of the file, and not on where it lies."""
    keys = []
    for name in ("one", "two", "three"):
        Path(name).mkdir()
        samples(Path(name), 120 if name != "three" else 121)
        keys.append([cell.key for cell in plan(find(str(study(Path(name)))), "quick").cells])
    assert keys[0] == keys[1] != keys[2]


CSV = [
    ("label", "a,b\n1,2\n3,4\n", "no column is called 'kind'; did you mean"),
    ("text", "a,kind\n1,x\ntwo,y\n", "line 3, column 'a': 'two' is no number"),
    ("nan", "a,kind\n1,x\nnan,y\n", "line 3, column 'a': 'nan' is no finite number"),
    ("empty", "a,kind\n1,x\n,y\n", "line 3, column 'a': '' is empty"),
    ("column", "a,b,kind\n1,2,x\n3,y\n", "line 3: has 2 columns, and the header 3"),
    ("one class", "a,kind\n1,x\n2,x\n", "has 1 class; it takes two"),
    ("numbers", "a,kind\n" + "".join(f"{i},{i}.5\n" for i in range(20)), "20 classes in 20 samples"),
    ("header", "a,kind\n", "has no line below its header"),
    ("no header", "1,2,3\n4,5,6\n", "line 1 holds numbers; a CSV file begins with a line of the names"),
    ("semicolons", "a;kind\n1;x\n2;y\n", "line 1 has ';' and no comma; columns are separated by commas"),
    (
        "range",
        "a,b,kind\n1,1e308,x\n2,-1e308,y\n",
        "the deviation of column 1, counted from 0 without the label, is beyond",
    ),
    ("twice", "a,a,kind\n1,2,x\n", "two columns are called 'a'"),
    ("bytes", "\x00\x01", "samples.csv"),
]


@pytest.mark.parametrize(("text", "told"), [case[1:] for case in CSV], ids=[case[0] for case in CSV])
def test_a_wrong_csv_is_refused(here: Path, text: str, told: str, capsys: pytest.CaptureFixture[str]) -> None:
    """One sentence with the study, the file and the place; exit 2, and nothing is written."""
    Path("samples.csv").write_text(text)
    study(here)
    refused(told, capsys)


def refused(told: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Run the study here, and see that it is refused in a sentence that says so."""
    assert main(["report", "study.toml", "--jobs", "1"]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert told in err
    assert re.fullmatch(r"qsim: study\.toml, line \d+: [^\n]+\n", err), err
    assert not Path("qsim-reports").exists()


ARRAYS: list[tuple[str, Any, str]] = [
    ("label", {"x": np.zeros((4, 3)), "z": np.arange(4)}, "no array is called 'y'"),
    ("object", {"x": np.zeros((4, 3)), "y": np.array([0, 1, None, 1], object)}, "damaged, or another file"),
    ("shape", {"x": np.zeros((4, 3)), "y": np.zeros(3, int)}, "samples are numbers (samples, ...)"),
    ("NaN", {"x": np.array([[0.0], [np.nan]]), "y": np.arange(2)}, "sample 1 of 'x' holds a NaN"),
    ("which", {"a": np.zeros((4, 3)), "b": np.zeros((4, 3)), "y": np.arange(4)}, "call the one of the samples 'x'"),
    ("floats", {"x": np.zeros((4, 3)), "y": np.zeros(4)}, "labels integers or texts"),
]


@pytest.mark.parametrize(("arrays", "told"), [case[1:] for case in ARRAYS], ids=[case[0] for case in ARRAYS])
def test_a_wrong_npz_is_refused(here: Path, arrays: Any, told: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Arrays that are none of numbers, or do not go together; pickles are not read."""
    np.savez("samples.npz", **arrays)
    study(here, data='file = "samples.npz"\nlabel = "y"')
    refused(told, capsys)


def test_what_is_no_npz_is_refused(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A text called .npz, a file that is not there, and one of another kind."""
    Path("samples.npz").write_text("no archive")
    study(here, data='file = "samples.npz"\nlabel = "y"')
    refused("damaged, or another file", capsys)
    study(here, data='file = "nowhere.npz"\nlabel = "y"')
    refused("cannot be read (No such file or directory)", capsys)
    Path("samples.txt").write_text("1")
    study(here, data='file = "samples.txt"\nlabel = "y"')
    refused("ends in .csv or .npz", capsys)


MODELS = [
    ("class", NET, 'kind = "net.py:Ned"', "net.py: has no class 'Ned'"),
    ("syntax", "class Net(:", 'kind = "net.py:Net"', "cannot be run (SyntaxError"),
    ("file", "", 'kind = "ned.py:Net"', "cannot be read (No such file or directory)"),
    ("loss", NET.replace("x, y = batch", "raise ValueError('of mine')"), 'kind = "net.py:Net"', "raised ValueError: of mine"),
    ("init", NET.replace("return {", "return 1 / 0, {"), 'kind = "net.py:Net"', "init raised ZeroDivisionError"),
    ("exit of loss", NET.replace("x, y = batch", "raise SystemExit(3)"), 'kind = "net.py:Net"', "raised SystemExit: 3"),
    ("exit", "raise SystemExit(3)", 'kind = "net.py:Net"', "cannot be run (SystemExit: 3)"),
    ("no loss", NET.replace("def loss", "def lose"), 'kind = "net.py:Net"', "has no method 'loss'"),
    ("arguments", NET.replace("class Net:", "class Net(np.ndarray):"), 'kind = "net.py:Net"', "calls it without arguments"),
    ("shapes", NET.replace("(6, 3)", "(6, 4)"), 'kind = "net.py:Net"', "loss of two samples (2, 3) raised"),
    ("kind", NET, 'kind = "mpl"', "kind = 'mpl' must be mlp or wideresnet, or 'file.py:Class'"),
    ("images", NET, 'kind = "wideresnet"\ndepth = 10\nwiden = 1', "takes images (samples, height, width, channels)"),
    ("widths", NET, 'kind = "mlp"\nwidths = [4, 6, 2]', "from 3 (numbers of a sample) to 3 (classes)"),
]  # fmt: skip


@pytest.mark.parametrize(("net", "model", "told"), [case[1:] for case in MODELS], ids=[case[0] for case in MODELS])
def test_a_wrong_model_is_refused(
    here: Path, net: str, model: str, told: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """What the user's own code raises is said in the same sentence, before the run."""
    samples(here)
    Path("net.py").write_text(net)
    study(here, model=model)
    refused(told, capsys)


def test_integers_are_numbers(here: Path) -> None:
    """A whole number may stand where a number is wanted, and its range is checked as such."""
    samples(here)
    whole, point = (plan(find(str(study(here, learning_rate=rate))), "quick") for rate in ("1", "1.0"))
    assert [cell.key for cell in whole.cells] == [cell.key for cell in point.cells]
    with pytest.raises(InputError, match=r"false_alarm_rate = 2\.0 must be"):
        plan(find(str(study(here, false_alarm_rate="2"))), "quick")


def test_files_of_others_are_left_alone(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A page or a figure that qsim did not write is neither replaced nor taken for one of its own."""
    samples(here)
    study(here)
    index = Path("qsim-reports", "index.html")
    index.parent.mkdir()
    index.write_text("mine")
    assert main(["report", "study.toml", "--quick", "--jobs", "1"]) == 2
    assert "is there, and is no index of qsim's" in capsys.readouterr().err
    assert main(["report", "--index", "qsim-reports"]) == 2
    assert "is there, and is no index of qsim's" in capsys.readouterr().err
    assert index.read_text() == "mine"
    assert sorted(path.name for path in index.parent.iterdir()) == ["index.html"]
    figure = Path("out", "figures", "overview.svg")
    figure.parent.mkdir(parents=True)
    figure.write_text("mine")
    assert main(["report", "study.toml", "--quick", "--jobs", "1", "-o", "out"]) == 2
    assert "overview.svg is there, and is no figure of qsim's" in capsys.readouterr().err
    assert figure.read_text() == "mine"
    assert not Path("out", "result.json").exists()
    figure.rename("mine.svg")
    for _ in range(2):  # its own is replaced
        main(["report", "study.toml", "--quick", "--jobs", "1", "-o", "out"])
        assert "<svg" in figure.read_text()


def test_a_model_that_prints_leaves_json_alone(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Standard output holds the objects of --json alone, a line each, and nothing that the user's own code says."""
    samples(here)
    Path("net.py").write_text(NET.replace("x, y = batch", "print('hello'); x, y = batch"))
    study(here, model='kind = "net.py:Net"')
    main(["report", "study.toml", "--quick", "--jobs", "1", "--json", "-o", "out"])
    out, err = capsys.readouterr()
    *cells, told = map(json.loads, out.splitlines())
    assert {cell["state"] for cell in cells} == {"computed"}
    assert told["run"] == "quick"
    assert "hello" in err


def test_claims_of_theory_are_refused_where_there_is_none(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A claim that compares with A-T1 is none of a model that theory does not know."""
    samples(here)
    Path("net.py").write_text(NET)
    path = study(here, model='kind = "net.py:Net"')
    path.write_text(path.read_text() + "\n[claims.variance-exact]\nhalf_width = 0.1\n")
    refused("variance-exact needs theory, which knows an mlp alone", capsys)


def test_classes_are_in_the_order_of_their_values(tmp_path: Path) -> None:
    """10 comes after 9, and texts by their letters; a byte order mark and blanks around names do not matter."""
    path = tmp_path / "s.csv"
    path.write_text("\ufeffa, kind\n" + "".join(f"{i},{label}\n" for i, label in enumerate([10, 9, 2, 9, 10, 2])))
    found = labelled(path, "kind")
    assert found.y.tolist() == [2, 1, 0, 1, 2, 0]
    assert found.x.shape == (6, 1)


def test_a_wide_residual_network_is_a_model_of_a_study(here: Path) -> None:
    """Images of an npz under a WRN-10-1 with group norm: one cell, with all its weights."""
    rng = np.random.Generator(np.random.Philox(3))
    np.savez(here / "images.npz", x=rng.standard_normal((12, 8, 8, 3)), y=rng.integers(0, 2, 12))
    path = study(
        here, data='file = "images.npz"\nlabel = "y"', model='kind = "wideresnet"\ndepth = 10\nwiden = 1', formats='["int4"]',
        points='["bwd_grad"]', modes='["SR"]', groups="3", train_steps="1", train_batch="4",
        medium="{ samples = 6, fewest = 3, most = 3, draws = 6 }", batch_sizes="[2]",
    )  # fmt: skip
    (cell,) = plan(find(str(path)), "full").cells
    record = compute(cell)
    assert record["all.variance"] > 0
    assert {"stem.variance", "stage0.block0.conv0.variance", "head.variance"} <= set(record)


def test_a_gradient_that_is_not_finite_is_said() -> None:
    """Where a format overflows to infinity its cell says so, and warns of nothing."""
    cells = plan(find("variance-vs-batch"), "quick").cells
    cell = next(c for c in cells if (c.points, c.mode, c.format, c.batch) == ("all", "SR", "e4m1fn", 64))
    with pytest.raises(
        InputError, match="infinities or NaN under e4m1 at all, which overflows to infinity; take a format"
    ):
        compute(dataclasses.replace(cell, format="e4m1"))
