"""Turn one `Result` into a folder a reader can open: report.html, report.md, its figures, cells.csv and result.json.

This floor knows nothing of how the data were made. The same result renders to the same bytes.
"""

from __future__ import annotations

import contextlib
import csv
import errno
import io
import os
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from qsim.files import whole
from qsim.report import figures, html, markdown, text
from qsim.report.difference import Difference, difference
from qsim.report.index import write_index
from qsim.report.text import summary
from qsim.studies.result import FORMULA, TRACE, Result

__all__ = ["Difference", "difference", "is_trace", "render", "summary", "write", "write_index"]

LONGEST = 4096
"""The most bytes that are read of the first line of a figure."""


def render(result: Result) -> dict[str, bytes]:
    """Return the files of the report on `result`: relative name (with `/`) to content, `result.json` last.

    Raises `ValueError` if an id in `result` cannot be a file name, is used twice or names nothing.
    """
    text.check(result)
    looks = figures.styles(result.figures)
    files = {f"figures/{figure.id}.svg": figures.svg(figure, looks) for figure in result.figures}
    files["report.md"] = markdown.page(result)
    files["report.html"] = html.page(result, {figure.id: figures.inline(figure, looks) for figure in result.figures})
    files["cells.csv"] = cells_csv(result.cells)
    files["result.json"] = result.to_json()
    return {name: content.encode() for name, content in files.items()}


def cells_csv(cells: Iterable[Mapping[str, Any]]) -> str:
    """Return the records as comma-separated values (RFC 4180): a column for each key, empty where a record has not the key.

    Numbers have the digits that read back as the same float64. A text that a spreadsheet would take for a formula, since it
    begins with = + - @, a tab or a carriage return, has an apostrophe before it (OWASP, "CSV Injection").
    """
    records = list(cells)
    names = list(dict.fromkeys(name for record in records for name in record))
    text = io.StringIO()
    plain = csv.writer(text, lineterminator="\n")
    quoted = csv.writer(text, lineterminator="\n", quoting=csv.QUOTE_ALL)  # a carriage return alone brings no quotes
    for row in (names, *([record.get(name, "") for name in names] for record in records)):
        writer = quoted if any("\r" in str(entry) for entry in row) else plain
        writer.writerow(map(_no_formula, row))
    return text.getvalue()


def _no_formula(entry: Any) -> Any:
    return f"'{entry}" if isinstance(entry, str) and entry.startswith(FORMULA) else entry


def is_trace(path: Path) -> bool:
    """Return whether a file is a traceback that a report wrote: other people have texts in a folder called `failures` too."""
    head = TRACE.encode() + b"\n"
    with contextlib.suppress(OSError):
        if path.is_file():  # a pipe would be waited for
            with path.open("rb") as file:
                return file.read(len(head)) == head
    return False


def is_figure(path: Path) -> bool:
    """Return whether a file is a figure that a report wrote."""
    with contextlib.suppress(OSError):
        if path.is_file():
            with path.open("rb") as file:
                return figures.MARK.encode() in file.readline(LONGEST)
    return False


def nothing() -> Mapping[str, str]:
    """Return no files."""
    return {}


def write(
    result: Result, folder: str | os.PathLike[str], others: Callable[[], Mapping[str, str]] = nothing
) -> dict[str, Path]:
    """Write the report on `result` into `folder`, made if missing, and return relative name to path.

    `others()`, asked once all is rendered, gives further files as name to content. Every file appears whole or not at all,
    and none before all are on disk; `result.json` comes last, so that a folder that holds it holds the rest. Tracebacks of
    an earlier run go, and nothing else does. Raises `OSError` if that fails, and `FileExistsError` before anything is written
    if somebody else's file has the name of a figure.
    """
    files = render(result)
    for name in files:
        target = Path(folder, name)
        if target.parent.name == "figures" and os.path.lexists(target) and not is_figure(target):
            raise FileExistsError(errno.EEXIST, "is there, and is no figure of qsim's; move it away", str(target))
    files = {**{name: content.encode() for name, content in others().items()}, **files}
    with contextlib.ExitStack() as unfinished:
        for name, content in reversed(files.items()):  # what is opened last takes its place first
            target = Path(folder, name)
            target.parent.mkdir(parents=True, exist_ok=True)
            file = unfinished.enter_context(whole(target))
            file.write(content)
            file.flush()  # on disk before any takes its place
    for old in Path(folder).glob("failures/*.txt"):
        if old.relative_to(folder).as_posix() not in files and is_trace(old):
            with contextlib.suppress(OSError):
                old.unlink()
    return {name: Path(folder, name) for name in files}
