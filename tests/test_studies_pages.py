"""What a study shows: no figure, panel or table without data, one name for each thing, and what would decide a claim."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path

import pytest

import qsim.report
import qsim.studies
from qsim.formats import get_format, short_name
from qsim.measure import Estimate, Interval
from qsim.studies import find
from qsim.studies.gradient_variance import pages, tables
from qsim.studies.gradient_variance.claims import Check, Judged
from qsim.studies.result import Result
from qsim.verdicts import Outcome

HEAD = """
title = "Mine"
kind = "gradient_variance"
question = "How much?"
[model]
widths = [64, 8, 10]
train_steps = 2
train_batch = 16
learning_rate = 0.1
seed = 0
[statistics]
false_alarm_rate = 1e-2
groups = 8
seed = 1
[full]
batch_sizes = [2, 4]
light = { samples = 32, fewest = 8, most = 16, draws = 1 }
medium = { samples = 64, fewest = 8, most = 32, draws = 32 }
[quick]
batch_sizes = [2, 4]
light = { samples = 32, fewest = 8, most = 16, draws = 1 }
medium = { samples = 64, fewest = 8, most = 32, draws = 32 }
"""


def study(tmp_path: Path, *arms: str, claims: str = "") -> Result:
    """Return the result of a small study of these arms."""
    path = tmp_path / "study.toml"
    path.write_text(HEAD + "".join(f"[[arm]]\n{arm}\n" for arm in arms) + claims, encoding="utf-8")
    return qsim.studies.run(find(str(path)), "quick").result


def arm(name: str, formats: str, points: str, mode: str = "SR", draws: str = "medium") -> str:
    """Return the table of an arm."""
    return f'name = "{name}"\ndraws = "{draws}"\nformats = {formats}\nmodes = ["{mode}"]\npoints = {points}\nscale = "frozen"'


@pytest.mark.parametrize(
    ("arms", "claims", "drawn"),
    [
        ([arm("one", '["int4"]', '["bwd_grad"]')], "", {"overview", "bias"}),
        ([arm("one", '["int4"]', '["bwd_act"]', "RNE", "light")], "", {"bias"}),
        (
            [arm("one", '["int4", "e4m2fn"]', '["bwd_act"]')],
            "[claims.variance-exact]\nhalf_width = 0.5\n",
            {"overview", "bias", "ratios"},
        ),
        (
            [arm("one", '["int4"]', '["fwd_weight"]'), arm("last layer", '["int4"]', '["last layer: bwd_grad"]')],
            "",
            {"overview", "bias", "weights", "variance"},
        ),
    ],
)
def test_nothing_is_shown_without_data(tmp_path: Path, arms: list[str], claims: str, drawn: set[str]) -> None:
    """A study of few cells has the figures it has numbers for: no empty axes, no legend of a mark that is not there."""
    result = study(tmp_path, *arms, claims=claims)
    assert {figure.id for figure in result.figures} == drawn
    assert result.lead == ("overview" if "overview" in drawn else "")
    for figure in result.figures:
        for panel in figure.panels:
            assert any(series.kind == "measured" and series.x for series in panel.series), (figure.id, panel.title)
            assert all(series.x for series in panel.series), (figure.id, panel.title)
    assert all(table.rows for table in result.tables)
    assert {claim.figure for claim in result.claims} <= drawn | {""}
    assert result.main == "main"
    qsim.report.render(result)


def test_each_thing_has_one_name_that_can_be_typed(tmp_path: Path) -> None:
    """A colour's group is a name that `get_format` takes, alike names stay apart, and terms are those that are used."""
    spelled = ["e4m2", "e4m2fn", "float8_e4m3fn", "float8_e4m3fnuz"]
    result = study(tmp_path, arm("one", str(spelled).replace("'", '"'), '["bwd_grad"]'))
    groups = {s.group for f in result.figures for p in f.panels for s in p.series if s.group}
    assert groups == set(map(short_name, spelled))
    assert {get_format(group) for group in groups} == set(map(get_format, spelled))
    (main,) = [table for table in result.tables if table.id == "main"]
    assert [row[0] for row in main.rows if row[1] == "noise, SR"] == [short_name(name) for name in spelled]
    assert "bwd_grad" in main.columns
    terms = dict(result.terms)
    assert {"bwd_grad", "SR", "q²/b"} <= terms.keys()
    assert "b'/b" not in terms
    assert "below one step" not in terms


def test_the_main_table_says_what_the_cells_say(tmp_path: Path) -> None:
    """The noise beside the answer is the root of the variance over the squared gradient, in percent."""
    result = study(tmp_path, arm("one", '["int4"]', '["bwd_grad"]'))
    (record,) = [cell for cell in result.cells if cell["batch"] == 4]
    (main,) = [table for table in result.tables if table.id == "main"]
    shown = main.rows[0][main.columns.index("bwd_grad")]
    assert isinstance(shown, str)
    wanted = 100 * (record["all.variance"] / record["whole.gradient_squared"]) ** 0.5
    value, error = map(float, re.split(" ± ", shown))
    assert abs(value - wanted) <= max(0.05 * error, 0.6 * 10 ** -len(shown.split(" ")[0].partition(".")[2]))


@pytest.mark.parametrize(
    ("interval", "shown"),
    [
        (Interval(4.0, 3.7, 4.3), "4.0 ± 0.3"),
        (Interval(0.5, -0.1, 1.1), "≤ 1.1"), (Interval(123.0, 100.0, 146.0), "123 ± 23"),
        (Interval(2e-6, 1.9e-6, 2.1e-6), "2.00×10⁻⁶ ± 0.10×10⁻⁶"), (Interval(1.0, 1.0, 1.0), "1.000 ± 0.001"),
    ],
)  # fmt: skip
def test_a_number_is_written_with_its_error(interval: Interval, shown: str) -> None:
    """A number has the digits that its error leaves it; one whose interval reaches zero is a bound."""
    assert tables._plus_minus(interval) == shown


def judged(outcome: Outcome, half: float, value: float = 1.0) -> Judged:
    """Return a check of a slope in [0.9, 1.1]."""
    check = Check(label="x", estimate=Estimate(value, half, 10), low=0.9, high=1.1)
    return Judged(check, Interval(value, value - half, value + half), outcome)


def test_an_open_claim_says_how_many_more_draws_it_wants() -> None:
    """Half an interval falls with the root of the draws: one four times too wide wants sixteen times as many."""
    held, wide, wider = (judged(Outcome.HELD, 0.05), judged(Outcome.NOT_DECIDED, 0.4), judged(Outcome.NOT_DECIDED, 0.2))
    assert pages._wanting([held]) == ""
    assert "With 16 times the draws, the open interval" in pages._wanting([held, wide])
    assert "With 16 times the draws, all 2 open intervals" in pages._wanting([wide, wider])
    assert pages._wanting([judged(Outcome.NOT_DECIDED, 0.4, 1.1)]) == ""  # on its margin no number of draws is enough
    exact = dataclasses.replace(wide.check, equal=1.0, reach=0.1, low=-1e9, high=1e9)
    assert "With 16 times" in pages._wanting([Judged(exact, wide.interval, Outcome.NOT_DECIDED)])
