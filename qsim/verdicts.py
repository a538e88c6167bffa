"""The outcomes of a check: held, refuted, not decided, or not testable here, with the inputs covered."""

from __future__ import annotations

import enum
import textwrap
from dataclasses import dataclass

__all__ = ["Outcome", "Verdict"]

WIDTH = 110
"""Of a line of text."""


class Outcome(enum.StrEnum):
    """The four answers a check may give."""

    HELD = "held"
    """The claim was shown, or its whole interval lies inside the stated margin."""
    REFUTED = "refuted"
    """A counterexample was found, or the whole interval lies outside the margin."""
    NOT_DECIDED = "not decided"
    """The interval straddles the margin: more draws are needed."""
    NOT_TESTABLE = "not testable here"
    """The scale, the data or a solver the check needs is out of reach."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """State the outcome of a check, the inputs covered, and the counterexample if there is one."""

    outcome: Outcome
    covered: str
    """The inputs covered, in words a reader can check: "all 2^32 float32 inputs"."""
    counterexample: str = ""
    """The first failure, empty unless refuted."""
    reason: str = ""
    """Why nothing was decided, and a remedy; empty where the outcome says it."""

    def __str__(self) -> str:
        """Say all in a line where it fits, else the finding first, and the inputs covered in a paragraph of their own."""
        found = self.counterexample or self.reason
        tail = f": {found}" if found else ""
        line = f"{self.outcome} ({self.covered}){tail}"
        if len(line) <= WIDTH and "\n" not in line and not self.notes:
            return line
        covered = textwrap.fill(f"covered: {self.covered}", WIDTH, subsequent_indent=" " * len("covered: "))
        return "\n\n".join([f"{self.outcome}{tail}", *self.notes, covered])

    @property
    def notes(self) -> list[str]:
        """Paragraphs that stand between the finding and the inputs covered."""
        return []
