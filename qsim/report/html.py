"""The report as one HTML file that works offline: no request leaves it, and it reads without its script."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from qsim.report import text
from qsim.studies.result import Result, Table

__all__ = ["index", "page"]


def page(result: Result, drawings: Mapping[str, str]) -> str:
    """Return the page on `result`, with `drawings` (figure id to SVG text) set into it."""
    import markupsafe

    # What matplotlib wrote is markup already: it escaped the texts in it.
    inline = {name: markupsafe.Markup(drawing) for name, drawing in drawings.items()}  # noqa: S704
    words = _template("report.html.jinja").render(
        result=result, order=text.order(result), drawings=inline, body=_body, text=text
    )
    return str(words)


def index(rows: Sequence[Any]) -> str:
    """Return the page over several reports, a row each."""
    return str(_template("index.html.jinja").render(rows=rows, text=text))


def _template(name: str) -> Any:
    import jinja2  # slow, and only this file needs it

    return jinja2.Environment(
        loader=jinja2.PackageLoader("qsim.report"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    ).get_template(name)


def _body(table: Table) -> list[list[dict[str, Any]]]:
    """Return the rows of `table`: what each cell says, whether its column is numeric, and the number to sort by."""
    columns = list(zip(*table.rows, strict=True))
    shown = [text.column(values) for values in columns]
    numeric = [text.numeric(values) for values in columns]
    return [
        [
            {
                "text": shown[j][i],
                "numeric": numeric[j],
                "key": "" if value is None else repr(value) if not isinstance(value, str) else None,
            }
            for j, value in enumerate(row)
        ]
        for i, row in enumerate(table.rows)
    ]
