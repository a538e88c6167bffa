"""How a run of a study is told while it goes on: bars on a terminal, lines elsewhere, or a JSON object a cell."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from qsim.studies import Step, Watch

if TYPE_CHECKING:
    from rich.console import RenderableType

    from qsim.studies.result import Claim

__all__ = ["Bars", "JsonLines", "Lines", "Tally"]

PAUSE = 10.0
"""Seconds between two lines."""

CLAIMS_SHARE = 50
"""The claims so far are looked at anew after this many times the seconds that it took, which is 2 % of the run at most."""


class Tally(Watch):
    """Count cells, by number and by cost."""

    def __init__(self) -> None:
        self.cells = self.kept = self.computed = self.failed = 0
        self.cost = self.cost_kept = self.cost_done = 0.0
        self.since = time.monotonic()

    @property
    def done(self) -> int:
        """How many cells are through."""
        return self.kept + self.computed + self.failed

    @property
    def finished(self) -> int:
        """How many cells have a record."""
        return self.kept + self.computed

    def start(self, cells: int, cost: float, claims: Callable[[], Sequence[Claim]]) -> None:
        """Begin to count."""
        self.cells, self.cost, self.claims = cells, cost, claims
        self.since = time.monotonic()

    def step(self, step: Step) -> None:
        """Count a cell."""
        setattr(self, step.state, getattr(self, step.state) + 1)
        if step.state == "kept":
            self.cost_kept += step.cost
        else:
            self.cost_done += step.cost

    def pace(self) -> str:
        """Return the progress: cells, rate, and the time left at the rate so far, by cost."""
        seconds = time.monotonic() - self.since
        computed = self.computed + self.failed
        words = f"{self.done:,} of {self.cells:,} cells"
        if not computed or not seconds:
            return words
        left = seconds * (self.cost - self.cost_kept - self.cost_done) / self.cost_done if self.cost_done else 0.0
        return f"{words}, {computed / seconds:.2g} a second, about {duration(left)} left"


def duration(seconds: float) -> str:
    """Return a time for reading."""
    minutes, hours = seconds / 60, seconds / 3600
    if hours >= 48:
        return f"{hours / 24:.0f} days"
    return f"{seconds:.0f} s" if seconds < 90 else f"{minutes:.0f} min" if minutes < 90 else f"{hours:.1f} h"


class Lines(Tally):
    """Write a line to standard error now and then."""

    def __init__(self, name: str, pause: float = PAUSE) -> None:
        super().__init__()
        self.name, self.pause = name, pause
        self.told = time.monotonic()

    def start(self, cells: int, cost: float, claims: Callable[[], Sequence[Claim]]) -> None:
        """Say that it begins."""
        super().start(cells, cost, claims)
        self.say(f"{cells:,} cells")

    def step(self, step: Step) -> None:
        """Say how far it is, if it is time to."""
        super().step(step)
        if step.state == "failed":
            self.say(f"failed: {step.label}: {step.error}")
        if time.monotonic() - self.told >= self.pause:
            self.told = time.monotonic()
            self.say(self.pace())

    def stop(self) -> None:
        """Print the final counts."""
        parts = [f"{self.kept:,} kept from before", f"{self.computed:,} computed now", f"{self.failed:,} failed"]
        told = ", ".join(part for part in parts if not part.startswith("0 "))
        self.say(f"{self.done:,} of {self.cells:,} cells" + (f": {told}" if told else ""))

    def say(self, words: str) -> None:
        """Write a line."""
        print(f"{self.name}: {words}", file=sys.stderr, flush=True)


class JsonLines(Tally):
    """Write a JSON object a cell to the standard output of the start, as it ends."""

    def __init__(self) -> None:
        super().__init__()
        self.out = sys.stdout  # where cells are run it is standard error, for what they print

    def step(self, step: Step) -> None:
        """Write the cell."""
        super().step(step)
        told: dict[str, Any] = {
            "cell": step.label, "key": step.key, "state": step.state, "seconds": step.seconds, "done": self.done,
            "cells": self.cells,
        }  # fmt: skip
        line = json.dumps(told | ({"error": step.error} if step.error else {})) + "\n"
        print(line, end="", flush=True, file=self.out)  # in one piece, so that no kill comes between a line and its end


class Bars(Tally):
    """Draw a bar, the rate, the time left, and the claims as they fill in, on the terminal of standard error."""

    def __init__(self, name: str, console: Any = None) -> None:
        super().__init__()
        from rich.console import Console
        from rich.live import Live

        self.name = name
        self.live = Live(console=console or Console(stderr=True), refresh_per_second=4, transient=True)
        self.table: RenderableType = ""
        self.looked, self.took = time.monotonic(), 0.1

    def start(self, cells: int, cost: float, claims: Callable[[], Sequence[Claim]]) -> None:
        """Draw the empty bar."""
        super().start(cells, cost, claims)
        self.live.start()
        self.draw()

    def step(self, step: Step) -> None:
        """Draw the state of a cell."""
        super().step(step)
        if step.state == "failed":
            self.live.console.print(f"failed: {step.label}: {step.error}", style="red", markup=False, highlight=False)
        now = time.monotonic()
        if step.state == "computed" and now - self.looked > CLAIMS_SHARE * self.took:
            self.look(now)
        self.draw()

    def stop(self) -> None:
        """Leave the terminal to the summary."""
        self.live.stop()

    def look(self, now: float) -> None:
        """Make the table of claims by the cells so far."""
        from rich.table import Table
        from rich.text import Text

        from qsim.verdicts import Outcome

        table = Table("claim", "so far", "intervals", title="by the cells so far; all may change", box=None)
        try:
            claims = self.claims()
        except Exception:  # noqa: BLE001 - a claim may need cells that are still to come; the end will say
            return
        finally:
            self.looked = time.monotonic()
            self.took = self.looked - now
        for claim in claims:
            covered = claim.covered.partition(", ")[0]
            none = claim.outcome is Outcome.NOT_TESTABLE  # of its cells is there
            outcome = "waiting" if none else str(claim.outcome)
            table.add_row(Text(claim.id), Text(outcome), Text(covered))
        self.table = table

    def draw(self) -> None:
        """Draw all."""
        from rich.console import Group
        from rich.progress_bar import ProgressBar
        from rich.text import Text

        bar = ProgressBar(total=max(self.cost, 1e-9), completed=self.cost_kept + self.cost_done, width=40)
        kept = f", {self.kept:,} of them kept from before" if self.kept else ""
        failed = f", {self.failed:,} failed" if self.failed else ""
        self.live.update(Group(Text(f"{self.name}: {self.pace()}{kept}{failed}"), bar, self.table))
