"""Turn one `Result` into a folder a reader can open: report.html, report.md, its figures and result.json.

This floor knows nothing of how the data were made. The same result renders to the same bytes.
"""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

from qsim.files import whole
from qsim.report import figures, html, markdown, text
from qsim.report.text import summary
from qsim.studies.result import Result

__all__ = ["render", "summary", "write"]


def render(result: Result) -> dict[str, bytes]:
    """Return the files of the report on `result`: relative name (with `/`) to content, `result.json` last.

    Raises `ValueError` if an id in `result` cannot be a file name, is used twice or names nothing.
    """
    text.check(result)
    groups = figures.styles(result.figures)
    drawings = {figure.id: figures.svg(figure, groups) for figure in result.figures}
    files = {f"figures/{name}.svg": drawing for name, drawing in drawings.items()}
    files["report.md"] = markdown.page(result)
    files["report.html"] = html.page(result, drawings)
    files["result.json"] = result.to_json()
    return {name: content.encode() for name, content in files.items()}


def write(result: Result, folder: str | os.PathLike[str]) -> dict[str, Path]:
    """Write the report on `result` into `folder`, made if missing, and return relative name to path.

    Every file appears whole or not at all, and none before all are on disk; `result.json` comes
    last, so that a folder that holds it holds the rest. Raises `OSError` if that fails.
    """
    files = render(result)
    with contextlib.ExitStack() as unfinished:
        for name, content in reversed(files.items()):  # what is opened last takes its place first
            target = Path(folder, name)
            target.parent.mkdir(parents=True, exist_ok=True)
            file = unfinished.enter_context(whole(target))
            file.write(content)
            file.flush()  # on disk before any takes its place
    return {name: Path(folder, name) for name in files}
