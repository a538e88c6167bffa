"""The page and the chart of a suite of results: same suite, same bytes."""

from __future__ import annotations

import fnmatch
import io
import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import pyperf

from qsim.report.figures import FONTS
from qsim.report.markdown import pipe_table
from qsim.report.numberline import COLOURS, FORMS, SETTINGS
from qsim.report.text import number
from qsim.studies.result import json_lines
from rows import GROUPS, LIMITS, ROWS, Measure, Row

BUSY = 0.1
"""Of a core: what other processes may take of the machine before a row is marked."""

FACTS = (
    "cpu_model_name", "cpu_count", "cpu_affinity", "cpu_config", "llvm_cpu", "simd", "platform", "python_implementation",
    "python_version", "numpy", "numba", "llvmlite", "timer", "environment", "quick",
)  # fmt: skip
"""What all rows of one table have in common: neither names of hosts and folders nor what differs between two runs."""

METHOD = """\
Each round times every candidate right after the reference, and a figure is the median over the rounds of one time divided
by the other, with its quartiles. Where nothing else is said the reference is a copy of the input by as many
threads: `np.copyto` for one, a parallel loop of Numba for more. A share is the time of the reference divided by that of the
candidate, so that 1 is as fast as it and 2 twice as fast. All of qsim's outputs are given with `out=`; other packages make
theirs, as they do for their users. Figures stand beside each other in one row, of one run; times are for orientation."""


@dataclass(frozen=True)
class Figure:
    """Hold what became of one candidate in one row."""

    name: str
    version: str
    low: float
    median: float
    high: float
    #: The seconds, or bytes, of one call, for reading.
    own: str
    #: Of a core, that other processes took.
    others: float


def figures(row: Row, suite: pyperf.BenchmarkSuite) -> list[Figure]:
    """Return the figures of a row: qsim's, which comes first, and those of others, the best first; none if not measured."""
    found = []
    divisor = 1.0
    if row.beside:
        base = figures(ROWS[row.beside], suite)
        if not base:
            return []
        divisor = base[0].median
    for one in suite.get_benchmarks():
        name, _, who = one.get_name().partition("/")
        if name != row.name or "/" in who:
            continue
        values = np.array(one.get_values())
        if row.measure in (Measure.SHARE, Measure.TIMES):
            values /= np.array(suite.get_benchmark(f"{name}/{who}/reference").get_values())
        about = one.get_metadata()
        if row.measure is Measure.SHARE:
            values = 1 / values / divisor
        if row.measure is Measure.ELEMENT:
            values /= about["elements"]
        low, median, high = np.quantile(values, (0.25, 0.5, 0.75)).tolist()
        own = one.format_value(one.median())
        found.append(Figure(who, about["version"], low, median, high, own, about["others"]))
    best = sorted(found, key=lambda one: one.median, reverse=row.measure is Measure.SHARE)
    return sorted(best, key=lambda one: one.name != "qsim")


def render(suite: pyperf.BenchmarkSuite, stem: str) -> dict[str, bytes]:
    """Return the files of a suite by name, the suite itself last."""
    text = io.StringIO()
    suite.dump(text)
    files = {
        f"{stem}.svg": chart(suite),
        f"{stem}.md": "\n\n".join(blocks(suite, stem)) + "\n",
        f"{stem}.json": json_lines(json.loads(text.getvalue()), 0) + "\n",
    }
    return {name: content.encode() for name, content in files.items()}


# --- Words ------------------------------------------------------------------------------------------------------------


def amount(row: Row, value: float) -> str:
    """Return a figure of a row for reading, with its unit."""
    if row.measure in (Measure.SHARE, Measure.TIMES):
        return f"{value:.2f}" if value >= 0.1 else number(value, ".2g")
    return pyperf_value(value, "byte" if row.measure is Measure.BYTES else "second")


def pyperf_value(value: float, unit: str) -> str:
    """Return a number of a unit as pyperf writes it."""
    run = pyperf.Run([value], metadata={"name": "-", "unit": unit}, collect_metadata=False)
    return pyperf.Benchmark([run]).format_value(value)


def goal(row: Row) -> str:
    """Return the goal of a row for reading."""
    if row.goal is None:
        return "–"
    return ("≥ " if row.measure is Measure.SHARE else "≤ ") + amount(row, row.goal)


def peer(row: Row, found: list[Figure]) -> str:
    """Return the best of the others."""
    return f"{found[1].name} {amount(row, found[1].median)}" if found[1:] else "–"


def line(row: Row, suite: pyperf.BenchmarkSuite) -> str:
    """Return a row for a terminal."""
    own, *_ = found = figures(row, suite)
    verdict = "" if row.goal is None else "  reached" if row.meets(own.median) else "  missed"
    spread = f"({amount(row, own.low)} to {amount(row, own.high)})"
    return f"{amount(row, own.median)} {spread}, goal {goal(row)}{verdict}; {own.own}; best peer: {peer(row, found)}"


def threads(row: Row) -> str:
    """Return what a row says of its threads: nothing for one."""
    return f", {row.threads} threads" if row.threads > 1 else ""


# --- The page ---------------------------------------------------------------------------------------------------------


def blocks(suite: pyperf.BenchmarkSuite, stem: str) -> Iterator[str]:
    """Yield the page block by block."""
    about = suite.get_metadata()
    found = {name: figures(row, suite) for name, row in ROWS.items()}
    measured = [row for name, row in ROWS.items() if found[name]]
    yield "# How fast it is"
    if "quick" in about:
        yield "> **Quick run: small arrays and few rounds. It shows that everything runs; its figures mean nothing.**"
    aims = [row for row in measured if row.goal is not None]
    met = sum(row.meets(found[row.name][0].median) for row in aims)
    yield f"Made by `python benchmarks` of {len(measured)} rows; of {len(aims)} goals {met} are reached."
    yield f"![Bars: the speed of each row of the tables below as a share of a copy's, and the best other package's]({stem}.svg)"
    yield METHOD
    yield pipe_table(("machine", ""), [(name, str(about[name])) for name in FACTS if name in about])
    for group, rows in GROUPS.items():
        shown = [row for row in rows if found[row.name]]
        if shown:
            yield f"## {group}"
            heads = ("row", "work", "goal", "reached", "quartiles", "a call", "best other")
            yield pipe_table(heads, [cells(row, found[row.name]) for row in shown], [False] * 2 + [True] * 4)
            reasons = dict.fromkeys(why(row, found) for row in shown if not row.meets(found[row.name][0].median))
            yield from (reason for reason in reasons if reason)
    if any(found[row.name][0].others > BUSY for row in measured):
        yield f"\\* Other processes took more than {BUSY:.0%} of a core meanwhile."
    missing = [f"`{name}`" for name in ROWS if not found[name]]
    if missing:
        yield f"Not measured here: {', '.join(missing)}."
    yield "## Every package"
    heads = ("row", "package", "figure", "quartiles", "a call")
    every = [entry for row in measured for entry in entries(row, found[row.name])]
    yield pipe_table(heads, every, [False] * 2 + [True] * 3)


def why(row: Row, found: Mapping[str, list[Figure]]) -> str:
    """Return what is known of a row that misses its goal: what it takes, and what was tried.

    The name of a row in braces stands for its figure.
    """

    def figure(name: re.Match[str]) -> str:
        return amount(ROWS[name[1]], found[name[1]][0].median) if found[name[1]] else "(not measured here)"

    known = (
        f"Missed, `{pattern}`: {re.sub(r'{(.+?)}', figure, reason)}"
        for pattern, reason in LIMITS.items()
        if fnmatch.fnmatch(row.name, pattern)
    )
    return next(known, "")


def cells(row: Row, found: list[Figure]) -> tuple[str, ...]:
    """Return the entries of a row of the table."""
    own = found[0]
    reached = amount(row, own.median)
    reached = reached if row.meets(own.median) else f"**{reached}, missed**"
    return (
        f"`{row.name}`" + "\\*" * (own.others > BUSY),
        row.what + threads(row),
        goal(row),
        reached,
        f"{amount(row, own.low)} – {amount(row, own.high)}",
        own.own,
        peer(row, found),
    )


def entries(row: Row, found: list[Figure]) -> list[tuple[str, ...]]:
    """Return what each package did in a row, where there are several."""
    return [
        (f"`{row.name}`", f"{one.name} {one.version}", amount(row, one.median),
         f"{amount(row, one.low)} – {amount(row, one.high)}", one.own)
        for one in found if len(found) > 1
    ]  # fmt: skip


# --- The chart --------------------------------------------------------------------------------------------------------

WIDTH, ROW, HEAD, LEFT, FOOT, MARGIN = 8.0, 0.19, 0.28, 2.9, 0.75, 0.15
"""Inches: the whole across; down, of a row and of the title of a group; the names; the axis with the legend; an edge."""
THICK = 0.62
"""Of a row, that its bar fills."""
OURS, THEIRS, MARK = COLOURS[0], COLOURS[4], "#000000"


def chart(suite: pyperf.BenchmarkSuite) -> str:
    """Return the shares as bars: qsim's with its quartiles and its goal, and below it the best other package's."""
    import matplotlib as mpl
    from matplotlib.figure import Figure as Canvas
    from matplotlib.lines import Line2D
    from matplotlib.patches import Patch

    places: list[tuple[float, Row, list[Figure]]] = []
    titles: list[tuple[float, str]] = []
    down = 0.0
    for group, rows in GROUPS.items():
        shown = [(row, found) for row in rows if row.measure is Measure.SHARE and (found := figures(row, suite))]
        if shown:
            titles.append((down + HEAD / 2, group))
            down += HEAD
        for row, found in shown:
            places.append((down + ROW / 2, row, found))
            down += ROW
    height = down + FOOT + MARGIN
    with mpl.rc_context():
        mpl.rcdefaults()
        mpl.rcParams.update(SETTINGS)
        mpl.rcParams.update({"axes.grid.axis": "x", "axes.axisbelow": True, "axes.spines.left": False})
        mpl.rcParams["svg.hashsalt"] = "benchmarks"
        canvas = Canvas(figsize=(WIDTH, height))
        axes = canvas.add_axes((LEFT / WIDTH, FOOT / height, (WIDTH - LEFT - MARGIN) / WIDTH, max(down, ROW) / height))
        for at, row, found in places:
            thick = ROW * THICK / (2 if found[1:] else 1)
            upper = at - thick / 2 if found[1:] else at
            axes.barh(upper, found[0].median, thick, color=OURS)
            axes.hlines(upper, found[0].low, found[0].high, color=MARK, linewidth=0.8)
            if found[1:]:
                axes.barh(at + thick / 2, found[1].median, thick, color=THEIRS)
            if row.goal is not None:
                axes.vlines(row.goal, at - ROW * 0.45, at + ROW * 0.45, color=COLOURS[1], linewidth=1.4)
            axes.text(-0.01, at, f"{row.name}{threads(row)}", transform=axes.get_yaxis_transform(), ha="right",
                      va="center", size=7)  # fmt: skip
        edge = -(LEFT - MARGIN) / (WIDTH - LEFT - MARGIN)
        for at, group in titles:
            axes.text(edge, at, group, transform=axes.get_yaxis_transform(), va="center", size=7.5, weight="bold")
        most = max([1.0, *(one.high for _, _, found in places for one in found[:2])])
        axes.set(xlim=(0, 1.03 * most), ylim=(max(down, ROW), 0), yticks=[])
        axes.set_xlabel("share of the speed of the reference: of a copy, unless the row says otherwise")
        legend = [Patch(color=OURS, label="qsim"), Patch(color=THEIRS, label="best other package"),
                  Line2D([], [], color=MARK, linewidth=0.8, label="quartiles"),
                  Line2D([], [], color=COLOURS[1], marker="|", linestyle="none", markersize=9, label="goal")]  # fmt: skip
        canvas.legend(handles=legend, loc="lower left", bbox_to_anchor=(0.02, 0.06 / height), ncols=4, borderaxespad=0)
        file = io.BytesIO()
        metadata = {**FORMS["svg"], "Title": "The speed of qsim as a share of a copy's"}
        canvas.savefig(file, format="svg", metadata=metadata)
    return file.getvalue().decode().replace("'DejaVu Sans', sans-serif", FONTS)
