"""The words all renderings share (numbers, outcomes, order of things), and the summary for a terminal."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from qsim.studies.result import Cell, Claim, Failure, Figure, Result, Table
from qsim.verdicts import Outcome

if TYPE_CHECKING:  # slow to import, and only a terminal needs it
    from rich.console import Console, ConsoleOptions, RenderableType
    from rich.segment import Segment

__all__ = [
    "Entry", "Order", "check", "column", "failed", "key", "number", "numeric", "order", "parameters", "standing", "summary",
    "tally", "verdict",
]  # fmt: skip

SYMBOLS = {Outcome.HELD: "✓", Outcome.REFUTED: "✗", Outcome.NOT_DECIDED: "?", Outcome.NOT_TESTABLE: "∅"}
"""One sign an outcome, so that no outcome is told by colour alone."""

STANDINGS = {"good": "as expected", "open": "open", "bad": "not as expected"}
FAULT_STANDINGS = {"good": "caught", "open": "open", "bad": "missed"}

QUICK = (
    "Quick run: a smaller grid and fewer draws than the study asks for. "
    "It shows that the study runs; its verdicts are not the study’s answer."
)
FAULTS = (
    "Each of these puts a claim on arithmetic that was broken on purpose. Here “refuted” is the good outcome: "
    "it shows that the check notices when a claim of this kind is false."
)
SHOWN = 10
"""Failed cells that a terminal names."""

SUPERSCRIPTS = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")


@dataclass(frozen=True, slots=True)
class Entry:
    """Hold a claim with the figure and the table that are shown beside it, `None` where shown elsewhere."""

    claim: Claim
    figure: Figure | None
    table: Table | None


@dataclass(frozen=True, slots=True)
class Order:
    """Return the order of a page: each figure and each table once, at the first claim that rests on it."""

    main: Table | None
    """The table beside the answer."""
    lead: Figure | None
    """The figure beside the answer."""
    claims: tuple[Entry, ...]
    faults: tuple[Entry, ...]
    figures: tuple[Figure, ...]
    """The figures no claim names."""
    tables: tuple[Table, ...]
    """The tables no claim names."""
    figure_numbers: dict[str, int]
    table_numbers: dict[str, int]


def order(result: Result) -> Order:
    """Return the order in which a reader meets the claims, figures and tables of `result`."""
    figures = {figure.id: figure for figure in result.figures}
    tables = {table.id: table for table in result.tables}
    main, lead = tables.pop(result.main, None), figures.pop(result.lead, None)
    figure_numbers: dict[str, int] = {result.lead: 1} if lead else {}
    table_numbers: dict[str, int] = {result.main: 1} if main else {}

    def entries(*, fault: bool) -> Iterable[Entry]:
        for claim in result.claims:
            if claim.fault is fault:
                yield Entry(claim, figures.pop(claim.figure, None), tables.pop(claim.table, None))
                for numbers, name in (figure_numbers, claim.figure), (table_numbers, claim.table):
                    if name:
                        numbers.setdefault(name, len(numbers) + 1)

    claims, faults = tuple(entries(fault=False)), tuple(entries(fault=True))
    for numbers, names in (figure_numbers, figures), (table_numbers, tables):
        for name in names:
            numbers[name] = len(numbers) + 1
    return Order(
        main, lead, claims, faults, tuple(figures.values()), tuple(tables.values()), figure_numbers, table_numbers
    )


def standing(claim: Claim) -> str:
    """Return `good` where the outcome is the expected one, `open` where nothing was decided, else `bad`."""
    if claim.outcome is claim.expected:
        return "good"
    return "open" if claim.outcome in {Outcome.NOT_DECIDED, Outcome.NOT_TESTABLE} else "bad"


def verdict(claim: Claim) -> tuple[str, str]:
    """Return the outcome of `claim` as symbol and word, and how it compares with the expected one."""
    words = FAULT_STANDINGS if claim.fault else STANDINGS
    return f"{SYMBOLS[claim.outcome]} {claim.outcome}", words[standing(claim)]


def tally(claims: Iterable[Claim]) -> str:
    """Return one sentence that counts how `claims` came out: "10 claims: 9 as expected, 1 open."."""
    sentences = []
    groups: dict[bool, list[Claim]] = {False: [], True: []}
    for claim in claims:
        groups[claim.fault].append(claim)
    for fault, group in groups.items():
        if group:
            noun = ("planted fault" if fault else "claim") + "s" * (len(group) > 1)
            counts = Counter(verdict(claim)[1] for claim in group)
            words = (FAULT_STANDINGS if fault else STANDINGS).values()
            sentences.append(f"{len(group)} {noun}: " + ", ".join(f"{counts[w]} {w}" for w in words if counts[w]) + ".")
    return " ".join(sentences)


def failed(result: Result) -> str:
    """Return the sentence that warns of cells that failed."""
    n = len(result.failures)
    return (
        f"{n:,} cell{'s' * (n != 1)} failed, and the numbers are of the other {len(result.cells):,} alone. "
        "No claim is held, since a cell that is missing might have refuted it."
    )


def parameters(failure: Failure) -> str:
    """Return the parameters of a cell that failed, in a line."""
    return ", ".join(f"{name} = {json.dumps(value, ensure_ascii=False)}" for name, value in failure.parameters.items())


def number(value: Cell, form: str = ".4g", *, group: bool = False) -> str:
    """Return `value` for reading: floats by `form` with powers of ten written out, an en dash for `None`.

    Integers keep all their digits, in groups of three from 10,000 on, or always where `group` says so.
    """
    if value is None or isinstance(value, str):
        return "–" if value is None else value
    if isinstance(value, int):
        return f"{value:{',' if group or abs(value) >= 10_000 else 'd'}}".replace("-", "−")
    mantissa, _, exponent = (f"{value:{form}}" if value else "0").partition("e")
    power = f"×10{str(int(exponent)).translate(SUPERSCRIPTS)}" if exponent else ""
    return mantissa.removesuffix(".").replace("-", "−") + power


def column(values: Sequence[Cell]) -> list[str]:
    """Return the entries of one column for reading, all in one form.

    Where one float of the column needs rounding to four digits, all are measurements: they keep their
    trailing zeros, and all take a power of ten if one needs it. Otherwise they are settings (0.5, 2).
    """
    floats = [abs(value) for value in values if isinstance(value, float) and value]
    form = ".4g"
    if any(float(f"{value:.4g}") != value for value in floats):
        form = "#.4g" if all(1e-4 <= value < 1e5 for value in floats) else ".3e"
    group = any(isinstance(value, int) and abs(value) >= 10_000 for value in values)
    return [number(value, form, group=group) for value in values]


LEADING = re.compile(r"(?:[≤≥<>] )?([−-]?\d+(?:\.\d+)?(?:e[+-]\d+)?)(?:×10([⁻⁰¹²³⁴⁵⁶⁷⁸⁹]+))?(?: ± .*| \[.*)?")
"""A number with its error or as a bound, in words: "0.12 ± 0.01", "≤ 0.4"."""
FROM_SUPERSCRIPTS = str.maketrans("⁻⁰¹²³⁴⁵⁶⁷⁸⁹", "-0123456789")


def key(value: Cell) -> float | None:
    """Return the number that an entry is sorted by, `None` for words and for nothing."""
    if value is None or isinstance(value, int | float):
        return value
    found = LEADING.fullmatch(value)
    if not found:
        return None
    mantissa, power = found.groups()
    return float(
        f"{mantissa.replace('−', '-')}e{power.translate(FROM_SUPERSCRIPTS)}" if power else mantissa.replace("−", "-")
    )


def numeric(values: Sequence[Cell]) -> bool:
    """Return whether a column holds numbers only, and at least one."""
    present = [value for value in values if value is not None]
    return bool(present) and all(key(value) is not None for value in present)


def check(result: Result) -> None:
    """Raise `ValueError` where an id cannot be a file name, is used twice, or names nothing."""
    figures, tables = [item.id for item in result.figures], [item.id for item in result.tables]
    for kind, ids in ("figure", figures), ("table", tables), ("claim", [item.id for item in result.claims]):
        # Some file systems take A.svg and a.svg for one file.
        times = Counter(name.lower() for name in ids)
        for name in ids:
            if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_-]*", name):
                raise ValueError(f"{kind} id {name!r}: expected letters, digits, '_' and '-' only")
            if times[name.lower()] > 1:
                raise ValueError(f"{kind} id {name!r} is used {times[name.lower()]} times: expected once")
    for kind, name, ids in ("figure", result.lead, figures), ("table", result.main, tables):
        if name and name not in ids:
            raise ValueError(f"the answer names the {kind} {name!r}, which the result does not hold")
    for claim in result.claims:
        for kind, name, ids in ("figure", claim.figure, figures), ("table", claim.table, tables):
            if name and name not in ids:
                raise ValueError(f"claim {claim.id!r} names the {kind} {name!r}, which the result does not hold")


def summary(result: Result) -> RenderableType:
    """Return the summary for a terminal: question, answer, one line a claim, then the planted faults.

    A `rich` console drops the colours where it does not write to a terminal.
    """
    from rich.console import Group
    from rich.padding import Padding
    from rich.table import Table as Grid
    from rich.text import Text

    colours = {"good": "green", "open": "yellow", "bad": "bold red"}
    # Text() and not markup: a statement may hold square brackets.
    parts: list[RenderableType] = [Text(result.title, "bold")]
    if result.run == "quick":
        parts.append(Text(QUICK, "bold yellow"))
    parts += [Padding(Text(result.question, "italic"), (1, 0)), Text(result.answer)]
    for title, fault in ("Claims", False), ("Planted faults (refuted is the good outcome)", True):
        claims = [claim for claim in result.claims if claim.fault is fault]
        if claims:
            grid = Grid.grid(padding=(0, 2, 0, 0))
            for claim in claims:
                outcome, compared = verdict(claim)
                colour = colours[standing(claim)]
                statement = Text(claim.statement)
                if compared != STANDINGS["good"] or claim.outcome is not Outcome.HELD:
                    statement.append(f" — {compared}", colour)
                grid.add_row(Text(outcome, colour, no_wrap=True), statement)
            parts += [Padding(Text(title, "bold"), (1, 0, 0, 0)), grid]
    parts.append(Padding(Text(tally(result.claims), "bold"), (1, 0, 0, 0)))
    if result.failures:
        parts.append(Padding(Text(failed(result), "bold red"), (1, 0, 0, 0)))
        parts += [Text(f"  {f.label}: {f.error} ({f.trace})") for f in result.failures[:SHOWN]]
        if len(result.failures) > SHOWN:
            parts.append(Text(f"  and {len(result.failures) - SHOWN:,} more, in the report"))
    return _Unpadded(Group(*parts))


class _Unpadded:
    """Show something without the blanks at the ends of its lines, which a pipe or a file would keep."""

    def __init__(self, inner: RenderableType) -> None:
        self.inner = inner

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> Iterator[Segment]:
        """Yield the lines."""
        from rich.segment import Segment

        for line in console.render_lines(self.inner, options, pad=False):
            while line and not line[-1].text.rstrip():
                line.pop()
            if line:
                yield from line[:-1]
                yield Segment(line[-1].text.rstrip(), line[-1].style)
            yield Segment.line()
