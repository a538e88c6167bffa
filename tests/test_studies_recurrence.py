"""The study of a recurrent state: its exact distribution against all words, its chains, its claims, the committed report."""

from __future__ import annotations

import dataclasses
import itertools
import json
from collections import Counter
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from command import refused
from definition import block

import qsim.report
from qsim import reference
from qsim.cli import main
from qsim.folders import folder
from qsim.formats import get_format
from qsim.rounding import Key
from qsim.studies import find
from qsim.studies.recurrence import claims
from qsim.studies.recurrence.cell import Cell, coefficients, compute, exact_distribution, fit, grid_of, philox, step_of
from qsim.studies.recurrence.plan import FAULT, plan
from qsim.studies.result import Result

RENDERED = Path(__file__).resolve().parent.parent / "reports" / "recurrent-state"
CELL = Cell(
    format="float8_e4m3fn",
    mode="SRA(2)",
    decay=1,
    input="charge",
    rounds=10,
    fault="",
    target=0.7,
    spans=2,
    chains=1024,
    seed=1,
)


@pytest.mark.parametrize(
    "change", [{}, {"format": "float8_e5m2"}, {"format": "int8"}, {"input": "decay"}, {"mode": "RNE"}], ids=str
)
def test_the_distribution_is_that_of_all_words(change: dict[str, Any]) -> None:
    """Every sequence of words of four steps, rounded by the reference, gives the probabilities of the chain."""
    cell = dataclasses.replace(CELL, **change)
    fmt, step = get_format(cell.format), step_of(get_format(cell.format)) or 1.0
    a, u = coefficients(cell)
    grid, p = exact_distribution(cell)
    words = range(1 << cell.bits)
    states: Counter[Fraction] = Counter()
    for sequence in itertools.product(words, repeat=cell.steps):
        h = np.float32(0 if cell.input == "charge" else reference.quantize(Fraction(0.7) / Fraction(step), fmt) * step)
        for word in sequence:
            y = Fraction(float(a * h + u)) / Fraction(step)
            rounding = {"sr_bits": cell.bits, "rbits": word} if cell.bits else {}
            h = np.float32(reference.quantize(y, fmt, "SRA" if cell.bits else "RNE", **rounding) * step)
        states[Fraction(float(h))] += 1
    total = len(words) ** cell.steps
    expected = {state: Fraction(count, total) for state, count in states.items()}
    assert {Fraction(g): Fraction(q) for g, q in zip(grid.tolist(), p.tolist(), strict=True) if q} == expected


@pytest.mark.parametrize("first", [0, 5, (1 << 32) - 2])
def test_philox_of_ten_rounds_is_that_of_the_kernels(first: int) -> None:
    """The words are those of `Key`, across the end of the lower half of the counter; fewer rounds give others."""
    key = Key(0x0123456789ABCDEF, 0xFEDCBA9876543210)
    expected = [word for number in range(first, first + 4) for word in block(number, key.seed, key.stream)]
    assert philox(first, 4, key, 10).tolist() == expected
    assert not set(philox(first, 4, key, 7).tolist()) & set(expected)


def test_chains_of_python_and_of_the_kernels_are_the_same() -> None:
    """The words of ten rounds, computed by NumPy, take every chain where the kernels' own take it."""
    cell = dataclasses.replace(CELL, mode="SRA(8)", decay=4)
    by_kernels = compute(cell)
    own = philox(0, cell.chains // 4 * cell.steps, Key(cell.seed, cell.key), 10).reshape(cell.steps, cell.chains)
    a, u = coefficients(cell)
    h = np.zeros(cell.chains, np.float32)
    for words in own:
        h = qsim.quantize(a * h + u, "e4m3", "SRA", sr_bits=8, rbits=words >> 24)
    assert float(h.astype(np.float64).mean()) == by_kernels["simulated.mean"]


def test_fits_are_normal_and_misfits_are_seen() -> None:
    """Drawn from what is expected the deviates have mean 0 and deviation 1; states moved, or an impossible one, show."""
    rng = np.random.default_rng(0)
    p = np.array([0.1, 0.2, 0.3, 0.2, 0.19, 0.01, 0.0])
    z = np.array([fit(rng.multinomial(4096, p), 4096 * p)[0] for _ in range(400)])
    assert abs(z.mean()) < 5 / 20  # five standard errors of 400 deviates
    assert abs(z.std() - 1) < 5 / np.sqrt(800)
    assert fit(np.array([580, 648, 1229, 819, 779, 41, 0]), 4096 * p)[0] > 5
    assert fit(np.array([409, 819, 1229, 819, 779, 40, 1]), 4096 * p)[0] > 100
    assert fit(np.array([7]), np.array([7.0])) == (0.0, 1)


@pytest.fixture(scope="module")
def few() -> tuple[Any, list[dict[str, Any]]]:
    """Return a plan of the quick run, and the records of the cells of two formats with the shortest memory."""
    planned = plan(find("recurrent-state"), "quick")
    cells = [c for c in planned.cells if c.format in ("float8_e4m3fn", "int8") and (c.decay == 3 or c.fault)]
    return planned, [compute(cell) for cell in cells]


def test_claims_hold_and_the_fault_is_caught(few: tuple[Any, list[dict[str, Any]]]) -> None:
    """Chains have the distribution for all rounds, SR does not drift by more than the sum, and one word for all steps shows."""
    found = {claim.id: claim for claim in claims(*few)}
    assert {found[name].outcome for name in ("distribution", "rounds", "sr")} == {"held"}
    assert found[f"distribution--{FAULT.replace(' ', '-')}"].outcome == "refuted"
    sums = [r["wide.drift"] for r in few[1] if r["wide.drift"] is not None]
    assert max(map(abs, sums)) < 1e-12  # some 10^2 operations in float64 on numbers of order 1


def test_a_wrong_chain_is_seen(few: tuple[Any, list[dict[str, Any]]], monkeypatch: pytest.MonkeyPatch) -> None:
    """With a kernel that takes a little too few up the claim on the distribution is refuted."""
    planned, records = few
    right = qsim.quantize

    def wrong(x: Any, q: Any, **options: Any) -> Any:
        return right(x * np.float32(1 - 2**-7) if "key" in options else x, q, **options)

    monkeypatch.setattr(qsim, "quantize", wrong)
    cell = next(c for c in planned.cells if (c.format, c.mode, c.decay) == ("float8_e4m3fn", "SR", 3))
    faulty = [compute(cell) if r["mode"] == "SR" and r["rounds"] == 10 and not r["fault"] else r for r in records]
    assert next(c for c in claims(planned, faulty) if c.id == "distribution").outcome == "refuted"


# --- The file and the report -----------------------------------------------------------------------------------------

TEXT = (folder("reports") / "recurrent-state" / "study.toml").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("old", "new", "sentence"),
    [
        ("drift = 1e-5", "drift = 'x'", "drift = 'x' must be a number"),
        ("[margins.sr]", "[margins.sir]", "no claim is called 'sir'; did you mean sr"),
        ('"SRA(2)"', '"SRB(2)"', "mode SRB(2): a state is rounded by RNE, SR, or SRA(N)"),
        ('"int8"', '"nf4"', "nf4: a state is a float or an integer"),
        ("decays = [3, 6, 8, 10]", "decays = [3, 60]", "decays must be 1 to 12, not 60"),
        ("target = 0.7", "target = 1.7", "target must be between 0 and 1"),
        ('guess = "held"', 'guess = "hold"', "guess = 'hold' must be held, refuted or not decided"),
        ("chains = 4096", "chain = 4096", "unknown key 'chain'; did you mean chains"),
        (
            '[faults."one word for all steps"]',
            '[faults."x"]',
            "the fault of this kind is called 'one word for all steps'",
        ),
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


def test_a_quick_run_is_written(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The command runs the study with two formats, and writes a page with both tables."""
    text = TEXT.replace(
        '["float16", "bfloat16", "float8_e4m3fn", "float8_e5m2", "int8", "int16"]', '["float8_e4m3fn", "int8"]'
    )
    (here / "study.toml").write_text(text.replace("decays = [3, 6]", "decays = [3]"), encoding="utf-8")
    assert main(["report", "study.toml", "--quick", "-o", "out", "--jobs", "1"]) in (0, 1)
    assert "Five and seven rounds of Philox" in " ".join(capsys.readouterr().out.split())
    page = Path("out/report.html").read_text(encoding="utf-8")
    assert "Fewest random bits" in page
    assert json.loads(Path("out/result.json").read_text(encoding="utf-8"))["run"] == "quick"


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
    planned = plan(find("recurrent-state"), "full")
    assert committed.run == "full"
    assert tuple(claims(planned, list(committed.cells))) == committed.claims
    assert len(committed.cells) == len(planned.cells) > 200
    assert not [claim.id for claim in committed.claims if claim.outcome is not claim.expected]


def test_some_committed_cells_come_out_again(committed: Result) -> None:
    """Cells of the shortest memory, computed anew, have the committed numbers."""
    cells = [c for c in plan(find("recurrent-state"), "full").cells if c.decay == 3 and c.format == "bfloat16"][:4]
    kept = {(r["format"], r["mode"], r["decay"], r["input"], r["rounds"], r["fault"]): r for r in committed.cells}
    for cell in cells:
        record = kept[cell.format, cell.mode, cell.decay, cell.input, cell.rounds, cell.fault]
        for name, value in compute(cell).items():  # sums of 10^4 numbers, perhaps in another order
            assert value == (
                pytest.approx(record[name], rel=1e-12, abs=1e-15) if isinstance(value, float) else record[name]
            )


def test_grids_are_the_values_of_their_formats() -> None:
    """State k of a chain has the value with the ordinal k."""
    for name in ("float8_e4m3fn", "bfloat16", "int8", "float16"):
        fmt, step = get_format(name), step_of(get_format(name)) or 1.0
        grid = grid_of(fmt)
        assert all(grid[k] == float(fmt.value(k)) * step for k in range(0, len(grid), max(len(grid) // 50, 1)))
