"""What the tests enumerate, prove and sample: each says so beside itself, and the README's table is made of that.

`python tests/covered.py` writes the table into README.md; `test_covered.py` holds the two together.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from qsim.formats import Format
from qsim.rounding import Mode

README = Path(__file__).resolve().parents[1] / "README.md"
BEGIN, END = "<!-- coverage: made by `python tests/covered.py` -->", "<!-- /coverage -->"
HOWS = ("enumerated", "proved", "sampled")
"""Every input of those named; all inputs at once, by a solver; inputs drawn at random."""

Test = TypeVar("Test", bound=Callable[..., object])


@dataclass(frozen=True)
class Row:
    """Hold one line of the table."""

    how: str
    formats: str
    modes: str
    saturations: str
    inputs: str
    when: str
    test: str


def covers(
    how: str,
    *,
    formats: Iterable[Format] | str,
    modes: Iterable[Mode],
    inputs: str,
    saturations: str = "all",
    when: str = "every run",
) -> Callable[[Test], Test]:
    """Note beside a test which cells of the table it fills; `formats` and `modes` are those that it is run with.

    It stands above `in_part`, which says how many of them are run each time.
    """
    assert how in HOWS

    def note(test: Test) -> Test:
        part = next((mark.args[0] for mark in getattr(test, "pytestmark", []) if mark.name == "in_part"), None)
        often = when if part is None else f"one in {part} every run, all on demand"
        row = Row(how, _formats(formats), _modes(modes), saturations, inputs, often, test.__name__)
        test.covers = [*getattr(test, "covers", []), row]  # type: ignore[attr-defined]
        return test

    return note


def _formats(formats: Iterable[Format] | str) -> str:
    """Return how many formats of which kind there are; their names where they are few."""
    if isinstance(formats, str):
        return formats
    chosen = list(dict.fromkeys(fmt.name for fmt in formats))
    if len(chosen) <= 5:
        return ", ".join(f"`{name}`" for name in chosen)
    p3109 = sum(name.startswith("Binary") for name in chosen)
    named = len(chosen) - p3109
    bits = max(fmt.bits for fmt in formats)
    words = [f"{named} formats" if named else "", f"{p3109} of P3109" if p3109 else ""]
    return " and ".join(filter(None, words)) + f", up to {bits} bits"


def _modes(modes: Iterable[Mode]) -> str:
    """Return the modes by name, and larger groups by what they have in common."""
    chosen = set(modes)
    groups = {
        f"all {len(Mode)}": set(Mode),
        "all deterministic": {mode for mode in Mode if not mode.stochastic and mode is not Mode.THR},
        "all deterministic, Threshold": {mode for mode in Mode if not mode.stochastic},
        "all stochastic": {mode for mode in Mode if mode.stochastic},
    }
    for name, group in groups.items():
        if chosen == group:
            return name
    return " ".join(mode.name for mode in Mode if mode in chosen)


def rows() -> list[Row]:
    """Return what all tests say that they cover: enumerated first, then proved, then sampled."""
    found: list[Row] = []
    for path in sorted(Path(__file__).parent.glob("test_*.py")):
        if "@covers" in path.read_text(encoding="utf-8"):
            module = importlib.import_module(path.stem)
            tests = [getattr(module, name) for name in dir(module) if name.startswith("test_")]
            found += [row for test in tests for row in getattr(test, "covers", ())]
    return sorted(found, key=lambda row: (HOWS.index(row.how), row.when != "every run", row.inputs, row.formats))


def table(lines: Sequence[Row]) -> str:
    """Return the rows as a Markdown table."""
    head = "| | formats | modes | saturation | inputs and words | when |\n| --- | --- | --- | --- | --- | --- |"
    body = [
        f"| {row.how} | {row.formats} | {row.modes} | {row.saturations} | {row.inputs} | {row.when} |" for row in lines
    ]
    return "\n".join([head, *dict.fromkeys(body)])


def written(text: str, block: str) -> str:
    """Return the README `text` with `block` between its marks."""
    before, rest = text.split(BEGIN)
    return f"{before}{BEGIN}\n{block}\n{END}{rest.split(END)[1]}"


if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parent))
    from covered import rows as declared  # not this module as __main__: the tests import it by its name

    README.write_text(written(README.read_text(encoding="utf-8"), table(declared())), encoding="utf-8")
