"""What a check can say: held, refuted, not decided, or not testable here, with what it covered."""

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
    """State the outcome of a check, what it covered, and the counterexample if there is one."""

    outcome: Outcome
    covered: str
    """What was looked at, in words a reader can check: "all 2^32 float32 inputs"."""
    counterexample: str = ""
    """The first failure, empty unless refuted."""

    def __str__(self) -> str:
        """Say all in a line where it fits, else what was found first, and what was covered in a paragraph of its own."""
        tail = f": {self.counterexample}" if self.counterexample else ""
        line = f"{self.outcome} ({self.covered}){tail}"
        if len(line) <= WIDTH and "\n" not in line:
            return line
        covered = textwrap.fill(f"covered: {self.covered}", WIDTH, subsequent_indent=" " * len("covered: "))
        return f"{self.outcome}{tail}\n\n{covered}"
