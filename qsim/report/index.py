"""One page over several reports: the question, the verdicts, and the place of each."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

from qsim.errors import InputError
from qsim.files import whole
from qsim.report import html, text
from qsim.studies.result import Result, read_result

__all__ = ["write_index"]

SHORT = 60
"""Characters of a value that tells one report from another."""


@dataclass(frozen=True, slots=True)
class Row:
    """Hold the entry of one report."""

    link: str
    result: Result
    standings: dict[str, int]
    """How many claims, faults included, are good, open and bad."""
    differs: tuple[tuple[str, str], ...]
    """What was in force here, and not in the other reports on the same study."""


def _differs(result: Result, others: Sequence[Result]) -> Iterator[tuple[str, str]]:
    """Yield the options of `result` that one of `others` has not, as label and value."""
    for label, value in (("run", result.run), *result.setup, *result.made):
        if any((label, value) not in (("run", other.run), *other.setup, *other.made) for other in others):
            yield label, value if len(value) <= SHORT else value[: SHORT - 1] + "…"


def is_ours(path: Path) -> bool:
    """Return whether no file of somebody else's is at `path`: an index that this module wrote, or no file at all."""
    try:
        with path.open(encoding="utf-8", errors="replace") as file:
            return "<title>qsim reports</title>" in file.read(4096)
    except (FileNotFoundError, IsADirectoryError):  # the latter is told when the index is written
        return True


def write_index(folder: str | os.PathLike[str]) -> Path:
    """Write `index.html` over the reports in the folders of `folder`, by name, and return its path.

    A folder without a `result.json` that this version and this user can read is passed over. Raises `OSError` if that fails.
    """
    found: list[tuple[str, Result]] = []
    for report in sorted(Path(folder).iterdir()):
        try:
            result = read_result(report / "result.json")
        except InputError:
            continue
        found.append((f"{quote(os.fsencode(report.name))}/report.html", result))
    rows = []
    for link, result in found:
        standings = [text.standing(claim) for claim in result.claims]
        others = [other for _, other in found if other is not result and other.study == result.study]
        counted = {name: standings.count(name) for name in text.STANDINGS}
        rows.append(Row(link, result, counted, tuple(_differs(result, others))))
    target = Path(folder, "index.html")
    if not is_ours(target):
        raise FileExistsError(errno.EEXIST, "is there, and is no index of qsim's; move it away", str(target))
    with whole(target) as file:
        file.write(html.index(rows).encode(errors="backslashreplace"))  # JSON may hold half of a surrogate pair
    return target
