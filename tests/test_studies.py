"""Studies: files that are refused, cells that are pure functions, and the committed report."""

from __future__ import annotations

import dataclasses
import json
import math
import re
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

import qsim.report
from qsim.errors import InputError
from qsim.folders import folder
from qsim.formats import get_format, short_name
from qsim.rounding import Mode
from qsim.studies import available, find
from qsim.studies.executors import Here, Processes
from qsim.studies.gradient_variance import pages, reads
from qsim.studies.gradient_variance.answer import answer as answer_of
from qsim.studies.gradient_variance.cell import Cell, compute, estimate
from qsim.studies.gradient_variance.claims import decide, label_of
from qsim.studies.gradient_variance.plan import plan
from qsim.studies.gradient_variance.point import ModelSpec, point
from qsim.studies.result import Result
from qsim.verdicts import Outcome

CHECKOUT = Path(__file__).resolve().parent.parent
RENDERED = CHECKOUT / "reports" / "variance-vs-batch"
STUDY = folder("reports") / "variance-vs-batch" / "study.toml"

SPEC = ModelSpec(widths=(64, 32, 32, 10), train_steps=20, train_batch=64, learning_rate=0.1, seed=0)
SMALL = Cell(
    model=SPEC, arm="t", format="e4m0fn", mode="SR", points="bwd_act+bwd_grad", scale="frozen", batch=8, batches=64,
    draws=4, groups=32, seed=0,
)  # fmt: skip


@pytest.fixture(scope="module")
def committed() -> Result:
    """Return the committed result of the full run."""
    return Result.from_json((RENDERED / "result.json").read_text(encoding="utf-8"))


def test_the_committed_report_is_what_its_result_renders_to(committed, pinned_matplotlib):
    """Rendering the committed result.json gives the committed report, byte for byte, and nothing else lies there."""
    rendered = qsim.report.render(committed)
    found = {path.relative_to(RENDERED).as_posix() for path in RENDERED.rglob("*") if path.is_file()}
    assert found - {"cells.sqlite", "provenance.json"} == {*rendered, "study.toml"}
    for name, content in rendered.items():
        assert (RENDERED / name).read_bytes() == content, name


def test_labels_of_formats_can_be_typed(committed):
    """Each format of the cells has one label on the page, no two have the same, and `get_format` takes it."""
    spelled = {record["format"] for record in committed.cells}
    labels = {short_name(name): get_format(name) for name in spelled}
    assert len(labels) == len(spelled)
    assert all(get_format(label) is fmt for label, fmt in labels.items())
    drawn = {name for figure in committed.figures for panel in figure.panels for name in panel.categories}
    assert {word for name in drawn for word in name.split(", ")[0].split(" to ")} <= set(labels)
    for table in committed.tables:
        for row in table.rows:
            first = str(row[0]).split()[0]
            assert first in labels or not any(first.lower() in (name, get_format(name).name) for name in spelled), row
    records = [
        dict(next(iter(committed.cells)), format=name) for name in ("e4m2", "e4m2fn", "float8_e4m3", "e4m3", "e4m3fnuz")
    ]
    assert len({label_of(record) for record in records}) == len(records)


def test_the_committed_result_is_of_this_study(committed):
    """The committed result is a full run of the cells that study.toml plans now, and its verdicts are those expected."""
    planned = plan(find(str(CHECKOUT / "reports" / "variance-vs-batch")), "full")
    assert committed.run == "full"
    fields = [name for name in Cell.__slots__ if name not in ("model", "seed")]
    assert [[record[name] for name in fields] for record in committed.cells] == [
        [getattr(cell, name) for name in fields] for cell in planned.cells
    ]
    assert [c.id for c in committed.claims if c.outcome is not c.expected] == []


def test_the_committed_verdicts_follow_from_the_committed_cells(committed):
    """Claims, figures and tables made anew from the committed records are the committed ones, byte for byte."""
    study = find(str(CHECKOUT / "reports" / "variance-vs-batch"))
    planned = plan(study, "full")
    records, at = list(committed.cells), point(planned.model)
    claims, judged, family = decide(planned, records, at)
    again = pages.result(study, "full", planned, at, records, claims, judged, family)
    # On another processor theory may differ in its last bit, and so a drawn coordinate; the words and verdicts may not.
    assert [dataclasses.asdict(c) for c in again.claims] == [dataclasses.asdict(c) for c in committed.claims]
    assert again.answer == committed.answer
    assert again.setup == committed.setup
    assert [t.columns for t in again.tables] == [t.columns for t in committed.tables]
    for ours, theirs in zip(again.tables, committed.tables, strict=True):
        for row, wanted in zip(ours.rows, theirs.rows, strict=True):
            assert row == tuple(pytest.approx(v, rel=1e-9) if isinstance(v, float) else v for v in wanted)


def test_three_committed_cells_are_found_again(committed):
    """Three cells of the committed result, computed again, have the same numbers."""
    planned = plan(find(str(CHECKOUT / "reports" / "variance-vs-batch")), "full")
    wanted = [
        ("bwd_act", "SR", "int4", 64),
        ("all", "RNE", "bfloat16", 64),
        ("last layer: bwd_grad", "SR", "e4m0fn", 256),
    ]
    for points, mode, name, batch in wanted:
        i = next(
            i for i, c in enumerate(planned.cells)
            if (c.points, c.mode, c.format, c.batch, c.fault) == (points, mode, name, batch, "")
        )  # fmt: skip
        again, before = compute(planned.cells[i]), committed.cells[i]
        assert again.keys() == before.keys()
        for key, value in before.items():
            if isinstance(value, float):
                # On another processor sums may run in another order: 1e-16 each, far more than 1e-9 of no sum here, and
                # less than once in a million elements does that turn a rounding over. Errors of near-zero estimates
                # are compared with the estimate's own error.
                scale = max(abs(value), before.get(f"{key}.error", 0.0))
                assert abs(again[key] - value) <= 1e-6 * scale, (points, key)
            else:
                assert again[key] == value, (points, key)


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"mode": "RNE", "draws": 1, "points": "all"},
        {"points": "all"},
        {"fault": "shared word"},
        {"points": "bwd_weight"},
    ],
    ids=str,
)
def test_a_cell_does_not_depend_on_how_its_draws_are_chunked(monkeypatch, changes):
    """The record of a cell has the same bytes whether batches and draws are taken one at a time, some, or all at once."""
    import qsim.studies.gradient_variance.cell as module

    cell = dataclasses.replace(SMALL, **changes)
    records = set()
    for size in (1, 1 << 17, 1 << 19, 1 << 23):
        monkeypatch.setattr(module, "CHUNK_BYTES", size)
        records.add(json.dumps(compute(cell)))
    assert len(records) == 1


def test_a_cell_does_not_depend_on_the_executor():
    """Two processes return the bytes that this one does."""
    cells = list(enumerate(dataclasses.replace(SMALL, batch=b, batches=32, draws=2) for b in (1, 2, 4)))
    here, there = ({done.index: done.record for done in way.run(compute, cells)} for way in (Here(), Processes(2)))
    assert here == there
    assert all(here.values())


def test_the_point_is_that_of_the_engine():
    """The tensors that theory reads, written out layer by layer, give the engine's gradient."""
    from qsim.autograd import value_and_grad

    at = point(SPEC)
    loss, grads = value_and_grad(at.model.loss)(at.params, (at.x, at.y))
    assert loss == pytest.approx(at.loss, rel=1e-12)
    for layer in at.model.layers:
        assert np.allclose(grads[layer]["w"], at.gradient(layer), rtol=0, atol=1e-12 * np.abs(at.gradient(layer)).max())


def test_estimates_of_a_cell_are_those_of_its_draws():
    """Variance, distance and bias from running sums equal those of the stored gradients of the same draws."""
    from qsim.autograd import Numerics, value_and_grad
    from qsim.studies.gradient_variance.cell import batch_indices, policy

    at, record = point(SPEC), compute(SMALL)
    chosen = batch_indices(SMALL, len(at.x))
    within, between, means = [], [], []
    whole = np.concatenate([at.gradient(layer).ravel() for layer in at.model.layers])
    for j, ids in enumerate(chosen):
        batch = at.x[ids], at.y[ids]
        numerics = Numerics(policy(SMALL, at), seed=SMALL.key, draws=4, first_draw=4 * j)
        with numerics:
            grads = value_and_grad(at.model.loss)(at.params, batch)[1]
        ref = value_and_grad(at.model.loss)(at.params, batch)[1]
        g = np.concatenate([grads[layer]["w"].reshape(4, -1) for layer in at.model.layers], axis=1)
        r = np.concatenate([ref[layer]["w"].ravel() for layer in at.model.layers])
        within.append(g.var(0, ddof=1).sum())
        h = g - whole
        gram = h @ h.T
        between.append((gram.sum() - np.trace(gram)) / 12)
        means.append(g.mean(0) - r)
    assert record["all.variance"] == pytest.approx(np.mean(within), rel=1e-8)
    assert record["all.variance.error"] == pytest.approx(np.std(within, ddof=1) / 8, rel=1e-8)
    assert record["all.between"] == pytest.approx(np.mean(between), rel=1e-8)
    groups = np.array([np.mean(means[k::32], axis=0) for k in range(32)])
    gram = groups @ groups.T
    assert record["all.bias_squared"] == pytest.approx((gram.sum() - np.trace(gram)) / (32 * 31), rel=1e-6, abs=1e-12)


def test_estimates_know_their_units():
    """A ratio counts draws, a bias groups, a variance batches."""
    record = {
        "batches": 64, "draws": 4, "groups": 32, **dict.fromkeys(["all.ratio", "all.bias_squared", "all.variance"], 1.0),
        **dict.fromkeys(["all.ratio.error", "all.bias_squared.error", "all.variance.error"], 0.1),
    }  # fmt: skip
    assert [estimate(record, f"all.{name}").freedom for name in ("ratio", "bias_squared", "variance")] == [255, 31, 63]


def test_scales_are_what_the_study_says():
    """Frozen scales map the abs-max to the largest value or just below; underflow leaves all within 1/4 of E4M3's step."""
    at = point(SPEC)
    for layer in at.model.layers:
        for name in ("fwd_act", "fwd_weight", "bwd_grad"):
            largest = np.abs(at.tensor(layer, name)).max()
            for fmt in ("int4", "int8", "e4m0fn", "float8_e4m3fn"):
                q = at.quantizer(layer, name, get_format(fmt), Mode.SR, "frozen")
                assert largest / q.scale <= q.format.max < 2.0000001 * largest / q.scale
            q = at.quantizer(layer, name, get_format("e4m0fn"), Mode.SR, "underflow")
            assert 1 / 8 < largest / q.scale / get_format("float8_e4m3fn").smallest_subnormal <= 1 / 4


def test_the_other_convention_of_integers_has_half_a_range_of_codes():
    """A full-range scale is abs-max / 2^(k-1), so that steps double from k to k-1 bits; other formats are refused it."""
    at = point(SPEC)
    for layer in at.layers:
        largest = np.abs(at.tensor(layer, "bwd_grad")).max()
        scales = [at.quantizer(layer, "bwd_grad", get_format(f"int{k}"), "SR", "full-range").scale for k in (4, 3, 2)]
        assert scales == [largest / 8, largest / 4, largest / 2]


def test_a_record_says_what_was_clamped_and_what_it_is_relative_to():
    """The clamped shares are those of the counts, by point and together; |g|^2 is that of each layer and of all."""
    record = compute(
        dataclasses.replace(SMALL, format="int2", points="bwd_act+bwd_weight+bwd_grad", batches=32, batch=16)
    )
    assert record["clamped.share"] == pytest.approx(record["count.saturated"] / record["count.elements"], rel=1e-9)
    assert record["clamped.bwd_grad"] > record["clamped.share"] > 0 == record["clamped.bwd_act"]
    at = point(SPEC)
    norms = [float((at.gradient(layer) ** 2).sum()) for layer in at.layers]
    assert [record[f"{layer}.gradient_squared"] for layer in at.layers] == pytest.approx(norms, rel=1e-9)
    assert record["whole.gradient_squared"] == record["all.gradient_squared"] == pytest.approx(sum(norms), rel=1e-9)
    last = compute(dataclasses.replace(SMALL, points="last layer: bwd_grad", batches=32))
    assert last["all.gradient_squared"] == record["layer2.gradient_squared"] < last["whole.gradient_squared"]


def test_an_arm_of_several_networks_measures_each():
    """Seeds and steps of an arm are models of its cells, told in labels and records, and in no claim on the one network."""
    planned = plan(find("variance-vs-batch"), "full")
    cells = [cell for cell in planned.cells if cell.arm == "networks, nearest" and cell.format == "int4"]
    assert len({(cell.model.seed, cell.model.train_steps) for cell in cells}) == len(cells) == 12
    records = [compute(dataclasses.replace(cell, batch=64)) for cell in cells[:2]]
    assert [(r["train_seed"], r["train_steps"], r["network"]) for r in records] == [
        (0, 20, "seed 0, 20 steps"), (0, 200, "seed 0, 200 steps"),
    ]  # fmt: skip
    assert records[0]["whole.gradient_squared"] != records[1]["whole.gradient_squared"]
    claims, judged, _ = decide(planned, records, point(planned.model))
    assert len(judged["networks-nearest-biased"]) == 2
    assert {c.id for c in claims if c.outcome is not Outcome.NOT_TESTABLE} == {"networks-nearest-biased"}


def test_a_small_cell_agrees_with_theory():
    """Measured over predicted variance is within five of its standard errors of 1 where A-T1 and A-T2 are exact."""
    for points in ("bwd_act", "last layer: bwd_grad", "last layer: bwd_act+bwd_grad", "bwd_weight"):
        record = compute(dataclasses.replace(SMALL, points=points))
        ratios = [key for key in record if key.endswith(".ratio")]
        assert ratios, points
        for key in ratios:
            found = estimate(record, key)
            assert abs(found.value - 1) < 5 * found.error, (points, key, found)


@pytest.mark.parametrize("fault", ["shared word", "after the mean", "reused draw"])
def test_planted_faults_change_the_numbers(fault):
    """A planted fault gives other draws than the sound cell with the same seed would."""
    cell = dataclasses.replace(SMALL, format="int4", fault=fault)
    assert compute(cell)["all.variance"] != compute(dataclasses.replace(SMALL, format="int4"))["all.variance"]


def test_a_quick_run_makes_every_claim(tmp_path):
    """A study of few cells goes through claims and pages: every claim of the file has a verdict and a margin."""
    text = STUDY.read_text(encoding="utf-8")
    small = text.replace("batch_sizes = [1, 4, 16, 64]", "batch_sizes = [4, 8, 16]")
    small = small.replace("samples = 2048", "samples = 512").replace("samples = 4096", "samples = 512")
    small = small.replace("draws = 256", "draws = 64").replace("draws = 512", "draws = 64")
    seven = '"float8_e4m3fn", "e4m2fn", "e4m1fn", "e4m0fn", "int8", "int4", "bfloat16"'
    small = small.replace(f"formats = [{seven}]", 'formats = ["e4m1fn", "e4m0fn", "int4"]')
    small = small.replace("seeds = [0, 1, 2, 3, 4, 5]", "seeds = [0, 1]").replace("[20, 200]", "[3]")
    small = small.replace("draws = 640", "draws = 64").replace("fewest = 64, most = 512", "fewest = 32, most = 128")
    for more, fewer in (("float8_e4m3fn", "e4m2fn"), ("e4m2fn", "e4m1fn")):  # of which those arms have no cell now
        small = small.replace(f'["last layer", "{more}", "{fewer}"], ', "")
    path = tmp_path / "study.toml"
    path.write_text(small, encoding="utf-8")
    result = qsim.studies.run(find(str(path)), "quick", executor=Processes(2)).result
    planned = plan(find(str(path)), "quick")
    names = {c.id for c in result.claims}
    assert set(planned.margins) <= names
    assert all(c.margin and c.evidence for c in result.claims)
    assert Result.from_json(result.to_json()) == result
    written = qsim.report.write(result, tmp_path / "out")
    assert (tmp_path / "out" / "report.html").stat().st_size > 10_000
    assert "report.html" in written


@pytest.mark.parametrize(
    "cut",
    [
        {"formats": ["int4"], "modes": ["SR"], "points": ["bwd_act"], "batch_sizes": [4]},
        {"formats": ["int4"], "modes": ["RNE"], "points": ["all"], "batch_sizes": [1, 2]},
        {"formats": ["float64"], "modes": ["SR"], "points": ["fwd_weight"], "batch_sizes": [4, 8]},
        {
            "name": "last layer",
            "formats": ["float64", "int4"],
            "modes": ["SR", "RNE"],
            "points": ["bwd_act", "bwd_weight", "last layer: bwd_grad+bwd_act"],
            "batch_sizes": [4, 8, 16],
        },
        {"formats": ["nf4", "posit8"], "modes": ["RNE"], "points": ["bwd_act", "all"], "batch_sizes": [4, 8]},
    ],
    ids=str,
)
def test_a_study_of_few_cells_is_reported(tmp_path, cut):
    """A study with one arm of few cells ends in a report, its claims not testable where no cell tests them."""
    text = STUDY.read_text(encoding="utf-8")
    head, tail = text.index("[[arm]]"), text.index("# --- The claims")
    arm = "".join(f"{key} = {json.dumps(value)}\n" for key, value in cut.items())
    path = tmp_path / "study.toml"
    name = "" if "name" in cut else 'name = "one"\n'
    one = f'[[arm]]\n{name}draws = "coarse"\nscale = "frozen"\n{arm}\n'
    claims = [
        part
        for part in re.split(r"(?m)^(?=\[claims)", text[tail:])
        if not re.search("^(arms|formats|pairs)", part, re.MULTILINE)
    ]
    path.write_text("fault = []\n" + text[:head] + one + "".join(claims), encoding="utf-8")
    result = qsim.studies.run(find(str(path)), "quick").result
    assert Outcome.NOT_TESTABLE in {c.outcome for c in result.claims}
    assert result.study == tmp_path.name
    assert result.command == "qsim report study.toml --quick"
    assert ("no noise" in dict(result.setup)) == ("float64" in cut["formats"])
    covered = {claim.id: claim.covered for claim in result.claims}
    assert covered["absmax-slope"].startswith("0 intervals, simultaneous")
    qsim.report.write(result, tmp_path / "out")


def test_an_answer_says_only_what_held():
    """A sentence of the answer goes when the claim it states is not held."""
    study = find("variance-vs-batch")
    planned = plan(study, "full")
    committed = Result.from_json((RENDERED / "result.json").read_text(encoding="utf-8"))
    records, at = list(committed.cells), point(planned.model)
    margins = {**planned.margins, "bit-dense": {**planned.margins["bit-dense"], "ratio": [10, 12]}}
    claims, judged, family = decide(dataclasses.replace(planned, margins=margins), records, at)
    answer = pages.result(study, "full", planned, at, records, claims, judged, family).answer
    assert "times in dense cells" in committed.answer
    assert "times in dense cells" not in answer
    assert "below one step" in answer
    sound = [r for r in records if not r["fault"]]
    claims, _, family = decide(planned, records, at)
    assert answer_of(sound, planned, at, claims, family) == committed.answer
    for name in planned.margins:  # each has words in the answer, which go with its verdict
        some = [dataclasses.replace(c, outcome=Outcome.NOT_DECIDED) if c.id == name else c for c in claims]
        assert answer_of(sound, planned, at, some, family) != committed.answer, name
    assert answer_of(sound, planned, at, [], family).startswith("This study makes no claims")
    for outcome, words in (
        (Outcome.NOT_DECIDED, "This run decides no claim"),
        (Outcome.REFUTED, "No claim of this run is held"),
    ):
        none = [dataclasses.replace(c, outcome=outcome) for c in claims]
        assert answer_of(sound, planned, at, none, family).startswith(words)


def test_a_cell_with_a_scale_of_its_own_agrees_with_theory():
    """With an abs-max scale re-derived from each batch, A-T1 with each batch's own step predicts the variance."""
    cell = dataclasses.replace(SMALL, points="last layer: bwd_act+bwd_grad", scale="absmax", format="int4", batch=16)
    record = compute(dataclasses.replace(cell, batches=256))
    found = estimate(record, "layer2.ratio")
    assert abs(found.value - 1) < 5 * found.error
    frozen = compute(dataclasses.replace(cell, batches=256, scale="frozen"))
    assert record["layer2.theory"] < 0.9 * frozen["layer2.theory"]


def test_claims_judge_by_margin():
    """Records made up to agree with theory hold the exact claim, and records 20 % off refute it."""
    planned = plan(find("variance-vs-batch"), "quick")
    at = point(planned.model)
    for ratio, outcome in ((1.001, Outcome.HELD), (1.2, Outcome.REFUTED), (1.04, Outcome.NOT_DECIDED)):
        record = {
            **compute(dataclasses.replace(SMALL, points="bwd_act", batches=32, draws=2)),
            **{f"{layer}.ratio": ratio for layer in at.model.layers},
            **{f"{layer}.ratio.error": 0.005 if ratio != 1.04 else 0.02 for layer in at.model.layers},
        }
        margins = {"variance-exact": planned.margins["variance-exact"]}
        claims, _, _ = decide(dataclasses.replace(planned, margins=margins, faults={}), [record], at)
        assert claims[0].outcome is outcome


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (("title =", "titel ="), "key 'title' is missing"),
        (('kind = "gradient_variance"', 'kind = "gradient"'), "kind is 'gradient'"),
        (("widths = [64, 32, 32, 10]", "widths = [10]"), r"\[model\]: widths"),
        (
            ('weight_draws = "separate"', 'weight_draws = "twice"'),
            r"\[rounding\]: weight_draws = 'twice' must be one of shared",
        ),
        (('weight_draws = "separate"', "weight_draw = 1"), r"\[rounding\]: unknown key 'weight_draw'; did you mean"),
        (("train_steps = 20", "train_step = 50"), r"\[model\]: unknown key 'train_step'; did you mean train_steps"),
        (('modes = ["RNE"]', 'modes = ["RTX"]'), "modes = 'RTX': no rounding mode is called 'RTX'"),
        (('"e4m2fn", "e4m1fn", "e4m0fn", "int8"', '"e4m2fx", "int8"'), "no format is called 'e4m2fx'"),
        (('points = ["bwd_act"]', 'points = ["bwd"]'), "points = 'bwd' must be one of"),
        (("[claims.one-over-b]", "[claims.one-over-c]"), "'one-over-b' must be one of variance-exact, one-over-c"),
        (("slope = [-1.02, -0.98]", "slop = [-1.02, -0.98]"), "unknown key 'slop'"),
        (("[full]", "[full"), "not valid TOML"),
        (("groups = 32", "groups = 1"), r"\[statistics\]: groups = 1 must be in 3 \.\. 65536"),
        (("false_alarm_rate = 1e-3", "false_alarm_rate = 2.0"), "false_alarm_rate = 2.0 must be between 0 and 1"),
        (("train_batch = 64", "train_batch = 0"), "train_batch = 0 must be in 1"),
        (("most = 8192, draws = 2048", "most = -1, draws = 2048"), r"\[full\] fine: most = -1 must be in 1"),
        (('points = ["bwd_act"]', "points = []"), "points is an empty list"),
        (('name = "few bits"', 'name = "last layer"'), "is asked for twice"),
        (
            ("half_width = 0.05 # measured / A-T1", "half_width = -0.05 # measured / A-T1"),
            "half_width = -0.05 must be positive",
        ),
        (('name = "reused draw"', 'name = "reused"'), "name = 'reused' must be one of"),
        (
            ("batch_sizes = [1, 4, 16, 64, 256,", "batch_sizes = [0, 4, 16, 64, 256,"),
            "batch size 0 must be a positive integer",
        ),
        (('formats = ["int4", "int3", "int2"]', f'formats = ["{"n" * 5000}"]'), "no format is called 'nnn"),
        (('formats = ["int4", "int3", "int2"]', 'formats = ["nf4"]'), "nf4 has no binary grid, .* to an arm of RNE"),
        (('formats = ["int3"]', 'formats = ["posit8"]'), r"\[\[fault\]\] reused draw: posit8 has no binary grid"),
        (
            ("false_alarm_rate = 1e-3", "false_alarm_rate = 5e-324"),
            "5e-324 must be between 0 and 1, and at least 1e-09",
        ),
        (("slope = [-0.98, -0.5]", f"slope = [-1, {'9' * 400}]"), "must be two numbers, the lower first"),
        (('arms = ["inputs", "backward", "last layer"]', "arms = [3]"), "arm 3 must be the name of one"),
        (('points = "bwd_act+bwd_grad"', 'points = "bwd_act+bwd_act"'), "names a point twice"),
        (('formats = ["int8", "int4"]', 'formats = ["int8", "int8"]'), r"\(abs-max\) is asked for twice"),
    ],
)
def test_a_broken_study_is_refused_with_file_and_key(tmp_path, change, message):
    """Each fault of a study file is named in one sentence with the file and the key."""
    text = STUDY.read_text(encoding="utf-8")
    assert change[0] in text
    path = tmp_path / "study.toml"
    path.write_text(text.replace(*change), encoding="utf-8")
    with pytest.raises(InputError, match=message) as caught:
        plan(find(str(path)), "full")
    assert "\n" not in str(caught.value)
    if "not valid TOML" in message:
        return
    told = re.match(rf"{re.escape(str(path))}, line (\d+): ", str(caught.value))
    assert told, str(caught.value)
    line, first = int(told[1]), text[: text.index(change[0])].count("\n") + 1
    if "missing" in message or "twice" in message:  # told of the table it belongs to
        assert line <= first
    else:  # where it stands, or where a claim is named that is not there
        assert line == first or '"one-over-b"' in text.split("\n")[line - 1]


def test_cells_in_threads_are_those_of_one_after_the_other():
    """Cells that threads of one process compute at the same time, and the network's training, have the same bytes."""
    cells = [
        dataclasses.replace(SMALL, points=points, batches=32) for points in ("all", "bwd_act", "fwd_weight", "bwd_grad")
    ]
    expected = [compute(cell) for cell in cells]
    point.cache_clear()
    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(compute, cells)) == expected


def test_a_study_says_how_weights_are_drawn(tmp_path, committed):
    """One draw for both passes unless the study says otherwise, as the committed one does; the setup says which it was.

    Both choices take the same words. They are the same where one of the passes rounds its weights, and differ where both do.
    """
    text = STUDY.read_text(encoding="utf-8")
    path = tmp_path / "study.toml"
    path.write_text(re.sub(r"\[rounding\].*\nweight_draws.*\n", "", text), encoding="utf-8")
    shared, separate = (plan(find(str(file)), "full") for file in (path, STUDY))
    assert {cell.weight_draws for cell in shared.cells} == {"shared"}
    assert {cell.weight_draws for cell in separate.cells} == {"separate"}
    assert [cell.key for cell in shared.cells] == [cell.key for cell in separate.cells]
    assert dict(committed.setup)["draws of weights"].startswith("separate")
    for points in ("fwd_weight", "bwd_weight", "all"):
        cell = dataclasses.replace(SMALL, points=points)
        one, other = (compute(dataclasses.replace(cell, weight_draws=choice)) for choice in ("shared", "separate"))
        assert (one.pop("weight_draws"), other.pop("weight_draws")) == ("shared", "separate")
        assert (one == other) == (points == "fwd_weight")
        if points == "bwd_weight":  # other words, of the same law
            first, second = (estimate(record, "all.variance") for record in (one, other))
            assert abs(first.value - second.value) < 5 * math.hypot(first.error, second.error)


OWN = '[[format]]\nname = "tiny"\nkind = "float"\nexp_bits = 3\nman_bits = 1\nspecials = "fn"\nsource = "an example"\n'


def test_a_format_of_a_file_is_one_of_a_study(here):
    """A study's format may be an entry of a file of the user's own; its cells go stale when that entry changes."""
    Path("f.toml").write_text(OWN)
    text = STUDY.read_text(encoding="utf-8")
    Path("s.toml").write_text(
        text.replace('"int4", "int3", "int2"]', '"int4", "int3", "int2", "f.toml#tiny", "e4m3"]', 1), encoding="utf-8"
    )
    cells = [cell for cell in plan(find("s.toml"), "quick").cells if cell.arm == "few bits"]
    assert {cell.format for cell in cells} == {"int4", "int3", "int2", "f.toml#tiny", "float8_e4m3fn"}
    own, other = next(cell for cell in cells if "tiny" in cell.format), cells[-1]
    assert (own.format, other.format) == ("f.toml#tiny", "float8_e4m3fn")
    before = reads(own), reads(other)
    Path("f.toml").write_text(OWN.replace("man_bits = 1", "man_bits = 1\nbias = 2"))
    assert reads(own) != before[0]
    assert reads(other) == before[1]
    steps = dataclasses.replace(SMALL, scale="underflow")
    assert set(reads(steps)) == {"digits", "format e4m0fn", "format float64", "format float8_e4m3fn"}
    assert compute(dataclasses.replace(SMALL, format="f.toml#tiny", batches=32, draws=2))["format"] == "f.toml#tiny"


def test_a_format_beside_a_study_is_told_where_files_are_looked_for(tmp_path, monkeypatch):
    """A file of formats is named as seen from where the command runs, like any other file; who thinks otherwise is told so."""
    (tmp_path / "at").mkdir()
    monkeypatch.chdir(tmp_path / "at")
    text = STUDY.read_text(encoding="utf-8").replace('"int4", "int3", "int2"]', '"f.toml#tiny"]')
    path = tmp_path / "study.toml"
    path.write_text(text, encoding="utf-8")
    for told in (
        r"f\.toml: cannot be read \(No such file or directory\)$",
        "where the command runs, not beside the study$",
    ):
        with pytest.raises(InputError, match=told):
            plan(find(str(path)), "full")
        (tmp_path / "f.toml").write_text(OWN)


def test_studies_are_found_by_name_and_unknown_ones_refused():
    """The bundled study is listed; an unknown name is refused with the nearest one."""
    assert "variance-vs-batch" in available()
    with pytest.raises(InputError, match="no study is called 'variance-vs-bach'; did you mean variance-vs-batch"):
        find("variance-vs-bach")
