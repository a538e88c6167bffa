"""The README's table of what is enumerated, proved and sampled is what the tests say beside themselves."""

from __future__ import annotations

import pytest
from covered import BEGIN, END, HOWS, README, covers, rows, table, written

from qsim.formats import get_format
from qsim.rounding import Mode


def test_the_readme_has_the_table() -> None:
    """The README holds the table as the tests make it: `python tests/covered.py` writes it."""
    text = README.read_text(encoding="utf-8")
    assert text == written(text, table(rows()))
    assert text.count(BEGIN) == text.count(END) == 1


def test_every_kind_is_there() -> None:
    """Something is enumerated, something proved, something sampled, and every mode is among what is enumerated."""
    found = rows()
    assert {row.how for row in found} == set(HOWS)
    assert any(row.how == "enumerated" and row.modes == f"all {len(Mode)}" for row in found)


def test_a_row_says_what_a_test_is_run_with() -> None:
    """Formats and modes are counted, not typed."""

    @covers("enumerated", formats=[get_format("e4m3"), get_format("e5m2")], modes=set(Mode), inputs="all codes")
    def stand_in() -> None: ...

    (row,) = stand_in.covers  # type: ignore[attr-defined]
    assert row.formats == "`float8_e4m3fn`, `float8_e5m2`"
    assert row.modes == f"all {len(Mode)}"
    with pytest.raises(AssertionError):
        covers("guessed", formats="all", modes=(), inputs="")
