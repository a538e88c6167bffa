"""Several results side by side: what changed between two, and an index over many; and the schema of one."""

from __future__ import annotations

import copy
import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest
from test_report import NASTY, Page, claim

from qsim import report
from qsim.cli import main
from qsim.errors import InputError
from qsim.report.difference import Change
from qsim.studies.result import Result
from qsim.studies.schema import schema
from qsim.verdicts import Outcome

ROOT = Path(__file__).resolve().parents[1]
COMMITTED = ROOT / "reports" / "variance-vs-batch" / "result.json"

CELLS = tuple(
    {"format": name, "batch": batch, "v.value": 1.0, "count.nan": 0} for name in ("a", "b") for batch in (1, 2)
)
RESULT = Result(
    study="s", title="Title", question="Q?", answer="A.", lead="", run="full", command="qsim report s", setup=(("data", "1"),),
    claims=(claim("one"), claim("two")), figures=(), tables=(), method=(), cells=CELLS,
)  # fmt: skip


def changed(at: int, **values: Any) -> tuple[dict[str, Any], ...]:
    """Return the cells with other values in one of them."""
    return tuple(cell | values if i == at else cell for i, cell in enumerate(CELLS))


# --- What changed ----------------------------------------------------------------------------------------------------


def test_two_equal_results_have_no_difference() -> None:
    """Nothing is said of what is the same."""
    found = report.difference(RESULT, RESULT)
    assert (found.verdicts, found.evidence, found.setup, found.columns) == ((), (), (), ())
    assert found.common == 4
    assert "verdicts: the same" in found.text("a", "b")


def test_what_changed_is_told_by_name() -> None:
    """A flipped verdict, other evidence, other settings, cells that came and went, and where a number changed most."""
    after = dataclasses.replace(
        RESULT,
        run="quick",
        setup=(("data", "2"),),
        claims=(claim("one", outcome=Outcome.REFUTED), claim("two", evidence="slope −1.1"), claim("three")),
        cells=(*changed(1, **{"v.value": 1.5})[:3], {"format": "c", "batch": 1, "v.value": 7.0}),
    )
    found = report.difference(RESULT, after)
    assert found.verdicts == (Change("one", "held", "refuted"), Change("three", None, "held"))
    assert found.evidence == (Change("two", "slope −1.003", "slope −1.1"),)
    assert found.setup == (Change("data", "1", "2"), Change("run", "full", "quick"))
    assert (found.common, found.only_before, found.only_after) == (3, ("format=b, batch=2",), ("format=c, batch=1",))
    (column,) = found.columns
    assert (column.name, column.cells, column.cell) == ("v.value", 1, "format=a, batch=2")
    assert column.largest == 1 / 3
    shown = found.text("before", "after")
    assert "  one\n    - held\n    + refuted" in shown
    assert "v.value: 1 changed, most by 0.33 of its size (format=a, batch=2)" in shown


def test_results_of_two_studies_are_not_compared() -> None:
    """Two studies have no cells in common, and it is said so."""
    with pytest.raises(InputError, match="of two studies, s and t; give two of one study"):
        report.difference(RESULT, dataclasses.replace(RESULT, study="t"))


def test_the_command_compares_folders_and_files(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """`--diff A B` takes folders or files; the exit code is 1 if a verdict changed, else 0; --json gives all of it."""
    report.write(RESULT, tmp_path / "a")
    report.write(dataclasses.replace(RESULT, cells=changed(0, **{"v.value": 2.0})), tmp_path / "b")
    flipped = dataclasses.replace(RESULT, claims=(claim("one", outcome=Outcome.NOT_DECIDED), claim("two")))
    report.write(flipped, tmp_path / "c")
    a, b, c = (str(tmp_path / name) for name in "abc")
    assert main(["report", "--diff", a, f"{b}/result.json"]) == 0
    assert "v.value: 1 changed, most by 0.5" in capsys.readouterr().out
    assert main(["report", "--diff", a, c, "--json"]) == 1
    assert json.loads(capsys.readouterr().out)["verdicts"] == [
        {"name": "one", "before": "held", "after": "not decided"}
    ]


@pytest.mark.parametrize(
    "content", [None, "", "[]", "{}", '{"schema": 2}', '{"schema": 1}', '{"schema": 2, "claims": 3}', "[" * 9999]
)
def test_what_holds_no_result_is_refused(
    content: str | None, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A missing file, one of another schema and one that is no result are refused in a sentence, exit 2."""
    path = tmp_path / "result.json"
    if content is not None:
        path.write_text(content)
    assert main(["report", "--diff", str(path), str(COMMITTED)]) == 2
    err = capsys.readouterr().err
    assert err.startswith(f"qsim: {path}")
    assert err.count("\n") == 1


@pytest.mark.parametrize(
    ("where", "value"),
    [
        (("cells",), [1]), (("cells",), 3), (("title",), 5), (("claims", 0), "one"), (("claims", 0, "evidence"), None),
        (("claims", 0, "fault"), 1), (("claims", 0, "outcome"), "perhaps"), (("setup",), [["a", 1]]), (("setup", 0), "ab"),
        (("run",), "slow"), (("method",), "words"), (("tables",), [{"id": "t"}]),
    ],
    ids=str,
)  # fmt: skip
def test_an_entry_of_another_type_is_refused(
    where: tuple[str | int, ...], value: object, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """What the schema does not allow is no result: it is refused in a sentence, and an index passes it over."""
    plain = json.loads(RESULT.to_json())
    place = plain
    for key in where[:-1]:
        place = place[key]
    place[where[-1]] = value
    (tmp_path / "a").mkdir()
    path = tmp_path / "a" / "result.json"
    path.write_text(json.dumps(plain))
    assert main(["report", "--diff", str(path), str(path)]) == 2
    err = capsys.readouterr().err
    assert err.startswith(f"qsim: {path} holds no result of a study (")
    assert err.count("\n") == 1
    assert main(["report", "--index", str(tmp_path)]) == 0


# --- An index --------------------------------------------------------------------------------------------------------


def test_an_index_counts_verdicts_and_links_to_reports(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Each report has a row with its title, its counts and a relative link; what is no report is passed over."""
    other = (claim("one", outcome=Outcome.REFUTED), claim("two", outcome=Outcome.NOT_DECIDED))
    report.write(dataclasses.replace(RESULT, title=NASTY, claims=other), tmp_path / "b #1")
    report.write(RESULT, tmp_path / "a")
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "result.json").write_text("{")
    assert main(["report", "--index", str(tmp_path)]) == 0
    assert capsys.readouterr().out == f"{tmp_path / 'index.html'}\n"
    page = Page((tmp_path / "index.html").read_text(encoding="utf-8"))
    assert [link for link in page.links if not link.startswith("data:")] == ["a/report.html", "b%20%231/report.html"]
    assert page.tags["script"] == 1
    assert NASTY in page.words
    assert "2 reports" in page.words
    text = (tmp_path / "index.html").read_text(encoding="utf-8")
    assert text.index("a/report.html") < text.index('class="number good" data-key="2"') < text.index("b%20%231")
    assert 'class="number bad" data-key="1"' in text


def test_an_index_tells_reports_on_one_study_apart(tmp_path: Path) -> None:
    """Beside reports on the same study stands what was in force for one and not for another, and nothing they share."""
    for name, run, bits in ("a", "full", "64"), ("b", "quick", "32"):
        changed = dataclasses.replace(RESULT, run=run, setup=(("random bits", bits), ("shared", "alike")))
        report.write(changed, tmp_path / name)
    words = Page(report.write_index(tmp_path).read_text(encoding="utf-8")).words
    assert words.count("What differs") == 2
    assert words.count("random bits") == 2
    assert "alike" not in words
    report.write(dataclasses.replace(RESULT, study="another"), tmp_path / "b")
    assert "What differs" not in report.write_index(tmp_path).read_text(encoding="utf-8")


def test_an_index_needs_a_folder(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A folder that is not there is refused."""
    assert main(["report", "--index", str(tmp_path / "none")]) == 2
    assert f"{tmp_path / 'none'} is no folder" in capsys.readouterr().err


def test_one_of_the_other_things_at_a_time(capsys: pytest.CaptureFixture[str]) -> None:
    """A study beside --list is refused, and --list lists."""
    assert main(["report", "variance-vs-batch", "--list"]) == 2
    assert "--list takes no study; leave 'variance-vs-batch' out" in capsys.readouterr().err
    assert main(["report", "--list"]) == 0
    assert "variance-vs-batch" in capsys.readouterr().out


# --- The schema of result.json ---------------------------------------------------------------------------------------

TYPES = {"string": str, "boolean": bool, "null": type(None), "array": list, "object": dict}


def fits(value: Any, rule: dict[str, Any], named: dict[str, Any]) -> bool:
    """Return whether a value fits a JSON Schema, of the words that ours uses."""
    if "$ref" in rule:
        return fits(value, named[rule["$ref"].rpartition("/")[2]], named)
    if "anyOf" in rule:
        return any(fits(value, part, named) for part in rule["anyOf"])
    if "enum" in rule or "const" in rule:
        return value in rule.get("enum", [rule.get("const")])
    if rule["type"] in ("number", "integer"):
        return type(value) is int or (rule["type"] == "number" and type(value) is float)
    if type(value) is not TYPES[rule["type"]]:
        return False
    if rule["type"] == "array":
        parts = rule.get("prefixItems", [rule.get("items")] * len(value))
        return len(parts) == len(value) and all(fits(v, part, named) for v, part in zip(value, parts, strict=True))
    if "properties" not in rule:
        return True
    known = rule["properties"]
    return value.keys() == known.keys() and all(fits(v, known[name], named) for name, v in value.items())


def test_the_schema_describes_the_committed_result(capsys: pytest.CaptureFixture[str]) -> None:
    """The committed result.json fits the printed schema, and stops to when an entry is missing, added or of another type."""
    assert main(["report", "--schema"]) == 0
    rules = json.loads(capsys.readouterr().out)
    assert rules == schema()
    named = rules["$defs"]
    result = json.loads(COMMITTED.read_text(encoding="utf-8"))
    assert fits(result, rules, named)
    for spoil in (
        lambda r: r.pop("answer"),
        lambda r: r.update(more=1),
        lambda r: r.update(schema=1),
        lambda r: r["claims"][0].update(outcome="perhaps"),
        lambda r: r["figures"][0]["panels"][0]["series"][0].update(x=["1"]),
        lambda r: r["setup"].append(["one"]),
    ):
        spoiled = copy.deepcopy({**result, "cells": []})
        assert fits(spoiled, rules, named)
        spoil(spoiled)
        assert not fits(spoiled, rules, named)


def test_the_schema_explains_every_entry() -> None:
    """Each object and each of its entries is described in words, or is of a described object alone."""
    rules = schema()
    for rule in (rules, *rules["$defs"].values()):
        assert rule["description"]
        assert [name for name, part in rule["properties"].items() if not part.get("description")] == []
