"""One page over several reports: what each asks, what became of its claims, and where it is."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

from qsim.errors import InputError
from qsim.files import whole
from qsim.report import html, text
from qsim.studies.result import Result, read_result

__all__ = ["write_index"]


@dataclass(frozen=True, slots=True)
class Row:
    """Hold what the page says of one report."""

    link: str
    result: Result
    standings: dict[str, int]
    """How many claims, faults included, are good, open and bad."""


def write_index(folder: str | os.PathLike[str]) -> Path:
    """Write `index.html` over the reports in the folders of `folder`, by name, and return its path.

    A folder without a `result.json` that this version and this user can read is passed over. Raises `OSError` if that fails.
    """
    rows = []
    for report in sorted(Path(folder).iterdir()):
        try:
            result = read_result(report / "result.json")
        except InputError:
            continue
        found = [text.standing(claim) for claim in result.claims]
        link = f"{quote(os.fsencode(report.name))}/report.html"
        rows.append(Row(link, result, {name: found.count(name) for name in text.STANDINGS}))
    target = Path(folder, "index.html")
    with whole(target) as file:
        file.write(html.index(rows).encode(errors="backslashreplace"))  # JSON may hold half of a surrogate pair
    return target
