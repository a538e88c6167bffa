"""Identification: the right accumulator is found from few rows, what is open is said, and a few rows tell all models apart."""

from __future__ import annotations

import itertools
import json
from pathlib import Path

import numpy as np
import pytest
from test_dot_instructions import MEASURED, rows_of

from qsim import InputError
from qsim.cli import main
from qsim.dot import (
    Accumulator,
    dots_of,
    get_instruction,
    identify_accumulator,
    probe_rows,
    read_measured,
    write_probes,
)
from qsim.dot.probes import TERMS, directed_rows, probed, split
from qsim.formats import get_format


@pytest.mark.in_part(12)
@pytest.mark.parametrize("name", MEASURED)
def test_two_hundred_measured_rows_name_the_instruction(qsim_data: Path, name: str) -> None:
    """From 200 rows the instruction is named, first of all, and what fits them is held against the other rows of the set."""
    a, b, c, d = rows_of(qsim_data, name)
    entry = get_instruction(MEASURED[name])
    some = slice(0, 400, 2)
    found = identify_accumulator(a[some], b[some], c[some], d[some], inputs=entry.inputs)
    assert entry in found.instructions
    assert entry.accumulator in found.explaining
    if entry.result.name != "float16":  # those rows leave F open, and with it generations
        for other in found.instructions:  # the same accumulator, or one that four products do not tell from it
            assert other.accumulator == entry.accumulator or (other.dots(a, b, c) == d).all()
        assert found.explaining[0] == entry.accumulator
        assert (dots_of(a[1::2], b[1::2], found.explaining[0], c=c[1::2], inputs=entry.inputs) == d[1::2]).all()


UNKNOWN = [
    Accumulator("float32:RTZ", block=8, align=27, normalize=True), Accumulator("float32:RNE", block=4, align=20, start="after"),
    Accumulator("e8m13:RTZ", block=4, align=15, lanes="even-odd"), Accumulator("float32:RNE", order="pairwise", group=4),
]  # fmt: skip


@pytest.mark.in_part(4)
@pytest.mark.parametrize("acc", UNKNOWN, ids=str)
def test_an_accumulator_that_no_instruction_has(acc: Accumulator) -> None:
    """Directed rows of an unknown device lead to its accumulator, or to ones that the next rows, or no rows, tell from it."""
    fmt = get_format("float8_e5m2")
    rows = directed_rows(fmt, 8, 60, seed=5)
    d = dots_of(rows.a, rows.b, acc, c=rows.c, inputs=fmt)
    found = identify_accumulator(rows.a, rows.b, rows.c, d)
    assert found.inputs == fmt
    assert acc in found.explaining
    assert not found.instructions
    assert len(found.explaining) < 100
    if len(found.next_rows):
        results = [
            dots_of(found.next_rows.a, found.next_rows.b, other, c=found.next_rows.c) for other in found.explaining
        ]
        assert len({tuple(row) for row in np.array(results).tolist()}) == found.next_groups > 1
    text = str(found)
    assert text.startswith(f"{len(found.explaining)} accumulators explain all 60 rows (operands: float8_e5m2)")
    assert "no known instruction explains all rows" in text
    assert all(f"not decided: {name} is " in text for name in found.ambiguous)


def test_what_nothing_explains_is_said() -> None:
    """Rows of no accumulator: the nearest are named, and none is said to explain them."""
    rows = directed_rows(get_format("float8_e4m3fn"), 4, 40)
    d = dots_of(rows.a, rows.b, Accumulator("float32:RTZ", block=4, align=20), c=rows.c)
    d[::7] += 1.0
    found = identify_accumulator(rows.a, rows.b, rows.c, d)
    assert not found.explaining
    assert "the nearest: 34 of 40: " in str(found)
    for call, sentence in (
        (lambda: identify_accumulator(rows.a[:0], rows.b[:0], 0, 0), "with at least one of each"),
        (lambda: identify_accumulator(rows.a, rows.b, np.inf, d), "c holds an infinity"),
        (
            lambda: identify_accumulator(rows.a, rows.b, rows.c, d, inputs="float4_e2m1fn"),
            "no numbers of float4_e2m1fn",
        ),
    ):
        with pytest.raises(InputError, match=sentence):
            call()


@pytest.mark.in_part(5)
@pytest.mark.parametrize("name", TERMS)
def test_six_rows_tell_all_instructions_apart(name: str) -> None:
    """Every pair of instructions that 1,000 other directed rows tell apart has different results in the probe."""
    fmt, rows = get_format(name), probe_rows(name)
    assert 1 <= len(rows) <= 6
    other = directed_rows(fmt, TERMS[name], 1000, seed=11)
    entries = probed(fmt)
    probe = [entry.dots(rows.a, rows.b, rows.c) for entry in entries]
    wide = [entry.dots(other.a, other.b, other.c) for entry in entries]
    pairs = [(i, j) for i, j in itertools.combinations(range(len(entries)), 2) if (wide[i] != wide[j]).any()]
    assert len(pairs) >= len(entries)
    assert not [(entries[i].name, entries[j].name) for i, j in pairs if (probe[i] == probe[j]).all()]


@pytest.mark.exhaustive
@pytest.mark.parametrize("name", MEASURED.values())
def test_the_probe_alone_names_the_instruction(name: str) -> None:
    """From the rows of the probe alone each measured instruction is named, and none with another accumulator."""
    entry = get_instruction(name)
    rows = probe_rows(entry.inputs)
    d = entry.dots(rows.a, rows.b, rows.c)
    found = identify_accumulator(rows.a, rows.b, rows.c, d, inputs=entry.inputs)
    assert entry in found.instructions
    assert {other.accumulator for other in found.instructions} == {entry.accumulator}
    assert entry.accumulator in found.explaining


def test_the_greedy_choice() -> None:
    """Rows are added while they tell more apart, and those that are given come first."""
    results = np.array([[0, 0, 1, 5], [0, 1, 1, 5], [1, 0, 1, 5], [1, 1, 1, 5]], float)
    assert split(results) == ([0, 1], 4)
    assert split(results, [2]) == ([2, 0, 1], 4)
    assert split(results, most=1) == ([0], 2)
    assert split(results[:, 2:]) == ([], 1)


def test_files_of_a_probe(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """The probe, the CUDA file and the script are written; measured rows are read back, and wrong lines are named."""
    monkeypatch.setattr("qsim.dot.probes.TERMS", {"tf32": 8})
    paths = write_probes(tmp_path / "probe")
    assert [path.name for path in paths] == ["probe.txt", "probe.cu", "probe_torch.py"]
    compile(paths[2].read_text(encoding="utf-8"), "probe_torch.py", "exec")
    lines = [line for line in paths[0].read_text(encoding="utf-8").splitlines() if not line.startswith("#")]
    rows = probe_rows("tf32")
    assert len(lines) == len(rows)
    entry = get_instruction("sm80-mma/f32.tf32")
    d = entry.dots(rows.a, rows.b, rows.c).astype(np.float32).view(np.uint32)
    measured = tmp_path / "measured.txt"
    measured.write_text(
        "# a device\n" + "".join(f"mma.f32 {line} {int(word):08x}\n" for line, word in zip(lines, d, strict=True)),
        encoding="utf-8",
    )
    ((name, form), read), *rest = read_measured(measured).items()
    assert (name, form, rest) == ("mma.f32", "tf32", [])
    assert (read.a == rows.a).all()
    assert (read.b == rows.b).all()
    assert (read.c == rows.c).all()
    assert read.d is not None
    assert (read.d.astype(np.float32).view(np.uint32) == d).all()
    assert main(["identify", str(measured), "--dots"]) == 0
    assert "sm80-mma/f32.tf32" in capsys.readouterr().out
    assert main(["identify", str(measured), "--dots", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["mma.f32 tf32"]["instructions"] == [
        "sm80-mma/f32.tf32",
        "sm89-mma/f32.tf32",
    ]
    assert main(["vectors", "tensor-core-probe", "-o", str(tmp_path / "again")]) == 0
    assert (tmp_path / "again" / "probe.txt").read_bytes() == paths[0].read_bytes()
    assert main(["vectors", "tensor-core-probe", "-o", str(tmp_path / "again"), "--exhaustive"]) == 2
    for line, sentence in (
        ("mma.f32 tf32 2 0 0 0 0 0", "line 1 is not INSTRUCTION FORMAT K"), ("m tf32 1 0 x 0 0", "bit patterns of binary32"),
        ("m tf32 1 0 0 0 123456789", "has 8 digits"),
    ):  # fmt: skip
        measured.write_text(line + "\n", encoding="utf-8")
        with pytest.raises(InputError, match=sentence):
            read_measured(measured)
    with pytest.raises(InputError, match="no probe has operands of float4_e2m1fn"):
        probe_rows("float4_e2m1fn")
