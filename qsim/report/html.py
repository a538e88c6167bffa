"""The report as one HTML file that works offline: no request leaves it, and it reads without its script."""

from __future__ import annotations

import html
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from qsim.report import figures, text
from qsim.studies.result import Result, Table

__all__ = ["index", "page"]

LONG = 16
"""Rows from which on paper has the first `FIRST` alone, and a screen a box to filter."""
FIRST = 10


def page(result: Result, drawings: Mapping[str, Sequence[str]]) -> str:
    """Return the page on `result`, with `drawings` (figure id to the SVG text of each panel) set into it."""
    import markupsafe

    # The texts in a drawing are escaped already.
    inline = {name: [markupsafe.Markup(panel) for panel in panels] for name, panels in drawings.items()}  # noqa: S704
    words = _template("report.html.jinja").render(
        result=result, order=text.order(result), drawings=inline, body=_body, text=text, long=LONG, first=FIRST,
        linked=_linker(result.terms), term_id=term_id, colours=_colours(), css_string=_css_string,
    )  # fmt: skip
    return str(words)


def index(rows: Sequence[Any]) -> str:
    """Return the page over several reports, a row each."""
    return str(_template("index.html.jinja").render(rows=rows, text=text, colours=_colours()))


def term_id(name: str) -> str:
    """Return the id of a term's definition: its letters and digits, others as their numbers."""
    return "term-" + "".join(c if c.isascii() and c.isalnum() else f"-{ord(c):x}-" for c in name)


def _linker(terms: Sequence[tuple[str, str]]) -> Callable[[str], Any]:
    """Return a function that escapes words and makes each term that stands in them a link to its definition."""
    import markupsafe

    says = dict(terms)
    names = sorted((re.escape(name) for name in says), key=len, reverse=True)
    # A term is none inside a longer word.
    pattern = re.compile(rf"(?<![\w/])(?:{'|'.join(names)})(?![\w/])") if names else None

    def link(found: re.Match[str]) -> str:
        name = html.unescape(found[0])
        return f'<a class="term" href="#{term_id(name)}" title="{html.escape(says[name])}">{html.escape(name)}</a>'

    def linked(words: str) -> Any:
        if pattern is None:
            return markupsafe.escape(words)
        parts, end = [], 0
        for found in pattern.finditer(words):
            parts += [html.escape(words[end : found.start()]), link(found)]
            end = found.end()
        return markupsafe.Markup("".join(parts) + html.escape(words[end:]))  # noqa: S704 (escaped part by part)

    return linked


def _colours() -> dict[str, Any]:
    """Return the style sheet's colours: lists of variables for light and dark, and the rules of the drawings."""
    import markupsafe

    def variables(values: Mapping[str, str]) -> str:
        return " ".join(
            f"--{name}: {value};" for name, value in values.items() if name not in {"ink", "quiet", "paper"}
        )

    light, dark = variables(figures.LIGHT), variables(figures.DARK)
    return {name: markupsafe.Markup(words) for name, words in  # noqa: S704 (constants)
            (("light", light), ("dark", dark), ("rules", figures.rules()))}  # fmt: skip


def _css_string(words: str) -> Any:
    """Return `words` as a string of CSS, every character but letters, digits and spaces as its number."""
    import markupsafe

    escaped = "".join(c if c.isascii() and (c.isalnum() or c == " ") else f"\\{ord(c):06x}" for c in words)
    return markupsafe.Markup(f'"{escaped}"')  # noqa: S704 (nothing in it has a meaning)


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
    """Return the rows of `table`: the text of each cell, whether its column is numeric, and the number to sort by."""
    columns = list(zip(*table.rows, strict=True))
    shown = [text.column(values) for values in columns]
    numeric = [text.numeric(values) for values in columns]
    return [
        [
            {
                "text": shown[j][i],
                "numeric": numeric[j],
                "key": "" if value is None else repr(text.key(value)) if numeric[j] else None,
            }
            for j, value in enumerate(row)
        ]
        for i, row in enumerate(table.rows)
    ]
