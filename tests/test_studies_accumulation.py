"""The study of sums: its cells against sums written out, its claims and planted fault, the committed report."""

from __future__ import annotations

import dataclasses
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from command import refused

import qsim.report
from qsim.folders import folder
from qsim.studies import find
from qsim.studies.accumulation import claims
from qsim.studies.accumulation.cell import Cell, compute
from qsim.studies.accumulation.plan import FAULT, plan
from qsim.studies.result import Result

RENDERED = Path(__file__).resolve().parent.parent / "reports" / "accumulation"
TEXT = (folder("reports") / "accumulation" / "study.toml").read_text(encoding="utf-8")
CELL = Cell(
    name="x", accumulator='{"format": "bfloat16:RNE"}', operands="float8_e4m3fn", data="positive", terms=64, rows=8,
    fault="", seed=3,
)  # fmt: skip


@pytest.mark.parametrize("data", ["positive", "signed"])
def test_a_cell_is_sums_written_out(data: str) -> None:
    """Bias and mean square are those of sums of exact products, each partial sum rounded to bfloat16, one after the other."""
    cell = dataclasses.replace(CELL, data=data)
    record = compute(cell)
    rng = np.random.Generator(np.random.Philox(key=[cell.seed, cell.terms << 32]))
    a, b = (qsim.quantize(rng.standard_normal((8, 64), np.float32), "e4m3").astype(float) for _ in range(2))
    a, b = (np.abs(a), np.abs(b)) if data == "positive" else (a, b)
    errors = []
    for u, v in zip(a, b, strict=True):
        s = 0.0
        for x, y in zip(u, v, strict=True):
            s = float(qsim.quantize(s + x * y, "bfloat16"))
        errors.append((s - math.fsum(u * v)) / math.fsum(np.abs(u * v)))
    assert record["bias.value"] == pytest.approx(np.mean(errors), rel=1e-9, abs=1e-15)
    assert record["square.value"] == pytest.approx(np.mean(np.square(errors)), rel=1e-9)
    assert record["bias.error"] == pytest.approx(np.std(errors, ddof=1) / math.sqrt(8), rel=1e-9)


def test_pieces_do_not_matter(monkeypatch: pytest.MonkeyPatch) -> None:
    """Rows added a few at a time take the words of the rows added at once, and their own operands."""
    cell = dataclasses.replace(CELL, accumulator='{"format": "bfloat16:SR"}')
    whole = compute(cell)
    assert compute(cell) == whole
    monkeypatch.setattr("qsim.studies.accumulation.cell.PIECE", 1 << 40)
    assert compute(cell) == whole


@pytest.fixture(scope="module")
def quick() -> tuple[Any, list[dict[str, Any]]]:
    """Return the plan of the quick run, and its records."""
    planned = plan(find("accumulation"), "quick")
    return planned, [compute(cell) for cell in planned.cells if cell.name in ("bf16 SR", "bf16 RNE", "fp16 SR")]


def test_the_bound_holds_and_the_fault_is_caught(quick: tuple[Any, list[dict[str, Any]]]) -> None:
    """SR stays below its bound; either neighbour with probability 1/2 is seen by bias and bound."""
    found = {claim.id: str(claim.outcome) for claim in claims(*quick)}
    assert found["bound"] == "held"
    assert found["unbiased--either-neighbour"] == found["bound--either-neighbour"] == "refuted"


@pytest.mark.parametrize(
    ("old", "new", "sentence"),
    [
        ("bias = 0.5", "bias = 'x'", "bias = 'x' must be a number"),
        ("[margins.root]", "[margins.rot]", "no claim is called 'rot'; did you mean root"),
        ('format = "float16:RNE"', 'format = "float61:RNE"', "fp16 RNE: no format is called 'float61'"),
        (
            'accumulators = ["bf16 RNE"]',
            'accumulators = ["bf61 RNE"]',
            "no accumulator is called 'bf61 RNE'; did you mean bf16 RNE",
        ),
        ('data = ["positive", "signed"]', 'data = ["negative"]', 'data are "positive" or "signed"'),
        ("rows = 256", "row = 256", "unknown key 'row'; did you mean rows"),
        (f'[faults."{FAULT}"]', '[faults."x"]', f"the fault of this kind is called '{FAULT}'"),
    ],
)
def test_wrong_files_are_refused(
    old: str, new: str, sentence: str, here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A wrong entry is refused in a sentence that names its line, before anything is run."""
    assert old in TEXT
    (here / "study.toml").write_text(TEXT.replace(old, new, 1), encoding="utf-8")
    told = refused(capsys, "report", "study.toml", "-o", "out")
    assert "study.toml, line " in told
    assert sentence in told
    assert not Path("out").exists()


@pytest.fixture(scope="module")
def committed() -> Result:
    """Return the committed result of the full run."""
    return Result.from_json((RENDERED / "result.json").read_text(encoding="utf-8"))


def test_the_committed_report_is_what_its_result_renders_to(committed: Result) -> None:
    """Rendering the committed result.json gives the committed report, byte for byte, and nothing else lies there."""
    rendered = qsim.report.render(committed)
    found = {path.relative_to(RENDERED).as_posix() for path in RENDERED.rglob("*") if path.is_file()}
    assert found == {*rendered, "study.toml"}
    for name, content in rendered.items():
        assert (RENDERED / name).read_bytes() == content, name


def test_the_committed_claims_are_those_of_its_cells(committed: Result) -> None:
    """The claims that the committed records give today are the committed ones, of a full run of this study file."""
    planned = plan(find("accumulation"), "full")
    assert committed.run == "full"
    assert tuple(claims(planned, list(committed.cells))) == committed.claims
    assert [(r["accumulator"], r["terms"], r["data"]) for r in committed.cells] == [
        (c.name, c.terms, c.data) for c in planned.cells
    ]
    assert all(json.loads(r["words"]) for r in committed.cells)
    assert not [claim.id for claim in committed.claims if claim.outcome is not claim.expected]
