"""The first words on a terminal: that compiling is said after a second, and a report begins to speak at once."""

from __future__ import annotations

import contextlib
import io
import sys
import time
from types import SimpleNamespace

import pytest

import qsim.kernels.compiled  # noqa: F401 - as where something is compiled
from qsim.cli import main, notice, progress, report
from qsim.verdicts import Outcome


class Terminal(io.StringIO):
    """A standard error that is a terminal."""

    def isatty(self) -> bool:
        """Say so."""
        return True


@pytest.mark.parametrize(
    ("terminal", "quiet", "compiles", "said"),
    [(True, False, True, True), (True, True, True, False), (False, False, True, False), (True, False, False, False)],
)
def test_compiling_is_said(
    terminal: bool, quiet: bool, compiles: bool, said: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A terminal gets one line, if something is compiled; pipes and --json get none."""
    monkeypatch.setattr(notice, "PATIENCE", 0.01)
    monkeypatch.setattr(sys, "stderr", Terminal() if terminal else io.StringIO())
    monkeypatch.delitem(sys.modules, "qsim.kernels.lowering", raising=False)
    if compiles:
        monkeypatch.setitem(sys.modules, "qsim.kernels.lowering", sys)
    with notice.compiling(quiet=quiet):
        time.sleep(0.2)
    err = sys.stderr.getvalue()  # type: ignore[attr-defined]
    assert err.count("qsim: compiling once; ") == said
    assert err.count("\n") == said


def test_a_report_speaks_before_it_loads(monkeypatch: pytest.MonkeyPatch) -> None:
    """On a terminal the name of the study is said before the libraries of its kind are loaded."""
    monkeypatch.setattr(sys, "stderr", Terminal())
    seen = []

    def warmed(*_: object) -> contextlib.AbstractContextManager[None]:
        seen.append(sys.stderr.getvalue())  # type: ignore[attr-defined]
        raise KeyboardInterrupt

    monkeypatch.setattr(report, "warmed", warmed)
    assert main(["report", "variance-vs-batch", "--quick"]) == 130
    assert seen == ["variance-vs-batch: planning\n"]


def test_claims_without_cells_wait() -> None:
    """A claim whose cells are not there yet is said to wait, and one with intervals to be as it is."""
    from rich.console import Console

    console = Console(file=io.StringIO(), width=100)
    bars = progress.Bars("study", console)
    claims = [
        SimpleNamespace(id="early", outcome=Outcome.NOT_TESTABLE, covered="0 intervals, none"),
        SimpleNamespace(id="late", outcome=Outcome.HELD, covered="12 intervals, all"),
    ]
    bars.claims = lambda: claims  # type: ignore[assignment,return-value]
    bars.look(time.monotonic())
    console.print(bars.table)
    text = console.file.getvalue()  # type: ignore[attr-defined]
    assert "waiting" in text
    assert "not testable" not in text
    assert "held" in text
