"""The report in GitHub-flavoured Markdown, for a repository page, its figures as files beside it."""

from __future__ import annotations

import html
import re
from collections.abc import Iterable, Iterator, Sequence

from qsim.report import text
from qsim.report.text import Entry, Order
from qsim.studies.result import Cell, Claim, Figure, Result, Table

__all__ = ["page", "pipe_table"]


def page(result: Result) -> str:
    """Return the page on `result`; figures are looked for under `figures/`."""
    return "\n\n".join(_blocks(result)) + "\n"


def _blocks(result: Result) -> Iterator[str]:
    """Yield the page block by block, in the order of the HTML page."""
    order = text.order(result)
    yield f"# {_plain(result.title)}"
    if result.run == "quick":
        yield f"> **{_plain(text.QUICK)}**"
    yield f"**Question.** {_plain(result.question)}"
    lines = [_plain(line) for line in result.answer.split("\n")]
    yield (
        f"**Answer.** {lines[0]}"
        if len(lines) == 1
        else "\n".join(["**Answer.**", "", *(f"- {line}" for line in lines)])
    )
    if order.main:
        yield f'<a id="table-{order.main.id}"></a>**Table 1. {_plain(order.main.title)}.**'
        yield _grid(order.main.columns, order.main.rows)
        if order.main.note:
            yield _plain(order.main.note)
    if order.lead:
        yield _figure(order.lead, order)
    if result.failures:
        yield f"> **{_plain(text.failed(result))}**"
    if result.claims:
        yield f"**Verdicts.** {text.tally(result.claims)}"
    if order.claims:
        yield _verdicts(order.claims, "As expected?")
    if order.faults:
        yield "### Planted faults: the check must notice them"
        yield text.FAULTS
        yield _verdicts(order.faults, "Caught?")
    for title, entries in ("Claims", order.claims), ("Planted faults", order.faults):
        if entries:
            yield f"## {title}"
        for entry in entries:
            yield from _entry(entry, order)
    if result.failures:
        yield "## Failed cells"
        rows = [(f.label, f.error, text.parameters(f), f.trace) for f in result.failures]
        yield _grid(("Cell", "Error", "Parameters", "Traceback"), rows)
    if order.figures:
        yield "## Further figures"
        for figure in order.figures:
            yield _figure(figure, order)
    yield "## What was in force"
    yield _grid(("Setting", "Value"), result.setup)
    yield "## Method"
    yield from map(_plain, result.method)
    if result.terms:
        yield "## Words and theorems"
        yield _grid(("Word", "What it means"), result.terms)
    if order.tables:
        yield "## Further tables"
        for table in order.tables:
            yield _table(table, order)
    yield "## The data, and how to make them again"
    yield (
        f"`result.json` beside this page holds every number above and one record for each of the "
        f"{len(result.cells):,} cells of the run (`qsim report --schema` describes it), `cells.csv` the records as a table. "
        "This command makes it again:"
    )
    yield "\n".join(f"    {line}" for line in result.command.splitlines())
    if result.made:
        yield _grid(("Made with", ""), result.made)


def _verdicts(entries: Iterable[Entry], question: str) -> str:
    """Return the table of `entries` that a reader sees first."""
    rows = []
    for claim in (entry.claim for entry in entries):
        outcome, compared = text.verdict(claim)
        shown = f"**{compared}**" if text.standing(claim) == "bad" else compared
        rows.append((f"[{_plain(claim.statement)}](#claim-{claim.id})", str(claim.expected), outcome, shown))
    return pipe_table(("Claim", "Expected", "Outcome", question), rows)


def _entry(entry: Entry, order: Order) -> Iterator[str]:
    """Yield one claim: statement, facts, figure and table (or where they are shown)."""
    claim = entry.claim
    yield f'### <a id="claim-{claim.id}"></a>{_plain(claim.statement)}'
    yield _facts(claim)
    if entry.figure:
        yield _figure(entry.figure, order)
    elif claim.figure:
        yield f"Shown in [Figure {order.figure_numbers[claim.figure]}](#figure-{claim.figure})."
    if entry.table:
        yield _table(entry.table, order)
    elif claim.table:
        yield f"Numbers in [Table {order.table_numbers[claim.table]}](#table-{claim.table})."


def _facts(claim: Claim) -> str:
    outcome, compared = text.verdict(claim)
    facts = {
        "Margin, set before the run": _plain(claim.margin),
        "Rests on": _plain(claim.theorem),
        "Outcome": f"**{outcome}** (expected: {claim.expected}; {compared})",
        "Evidence": _plain(claim.evidence),
        "Covered": _plain(claim.covered),
    }
    return "\n".join(f"* {label}: {fact}" for label, fact in facts.items())


def _figure(figure: Figure, order: Order) -> str:
    caption = f"**Figure {order.figure_numbers[figure.id]}. {_plain(figure.title)}.** {_plain(figure.caption)}"
    anchor = f'<a id="figure-{figure.id}"></a>'
    return f"{anchor}![{_plain(figure.alt)}](figures/{figure.id}.svg)\n\n{caption}"


def _table(table: Table, order: Order) -> str:
    # Between the tags of a block of HTML, GitHub reads Markdown again after an empty line.
    title = f"Table {order.table_numbers[table.id]}. {html.escape(table.title)} ({len(table.rows)} rows)"
    note = f"\n\n{_plain(table.note)}" if table.note else ""
    head = f'<details id="table-{table.id}"><summary>{title}</summary>'
    return f"{head}\n\n{_grid(table.columns, table.rows)}{note}\n\n</details>"


def _grid(columns: Sequence[str], rows: Sequence[Sequence[Cell]]) -> str:
    """Return a table of texts and numbers, columns of numbers to the right."""
    shown = [text.column(values) for values in zip(*rows, strict=True)]
    right = [text.numeric(values) for values in zip(*rows, strict=True)]
    body = [[_plain(cell) for cell in row] for row in zip(*shown, strict=True)]
    return pipe_table([_plain(name) for name in columns], body, right)


def pipe_table(columns: Sequence[str], rows: Iterable[Sequence[str]], right: Sequence[bool] = ()) -> str:
    """Return a table of cells that are Markdown already."""
    marks = ["--:" if i < len(right) and right[i] else "---" for i in range(len(columns))]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in (columns, marks, *rows))


def _plain(words: str) -> str:
    """Return `words` so that Markdown shows them as they are, on one line."""
    line = re.sub(r"([\\`*\[\]<>|$~#&])", r"\\\1", " ".join(words.split()))
    # Inside a word an underscore means itself, and float8_e4m3fn stays readable.
    line = re.sub(r"(?<![^\W_])_|_(?![^\W_])", r"\\_", line)
    # A line that opens like a list or a rule is none.
    return re.sub(r"^(\d*)([-+.)])(?=[-+\s]|$)", r"\1\\\2", line)
