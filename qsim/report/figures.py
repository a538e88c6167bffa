"""Figures as SVG text: same data, same bytes, on every machine.

One role a colour, one role a mark, in all figures of a report: a colour is a group of `Series` (a format), a ring or
another mark is a measurement, a line is theory. Every mark has a `<title>`, which a browser shows beside the pointer.
Colours are names (`c0`, `ink`); the page gives them values for light, dark and paper, a file of its own carries them.
"""

from __future__ import annotations

import html
import itertools
import math
import textwrap
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from qsim.report.text import SUPERSCRIPTS, number
from qsim.studies.result import Figure, Panel, Series

__all__ = ["DARK", "LIGHT", "Styles", "inline", "rules", "shown", "styles", "svg"]

LIGHT = {
    "ink": "#1d2127", "quiet": "#59626d", "axis": "#8a929b", "grid": "#e4e7ea", "paper": "#ffffff",
    "c0": "#0072b2", "c1": "#d55e00", "c2": "#00805e", "c3": "#b0478e", "c4": "#a87900",
    "c5": "#3d94d0", "c6": "#5b3f9e", "c7": "#7a5230", "c8": "#c2184b", "c9": "#5c6670",
}  # fmt: skip
"""What the names of colours mean on white. Okabe and Ito's order, darkened until each has a contrast of 3 there."""
DARK = {
    "ink": "#e2e5e9", "quiet": "#a0a9b4", "axis": "#7b8591", "grid": "#2c323a", "paper": "#15181c",
    "c0": "#4fa8e8", "c1": "#f58a3c", "c2": "#35c49a", "c3": "#e58cc8", "c4": "#e3b23c",
    "c5": "#9bd4f7", "c6": "#b39df0", "c7": "#c99b6f", "c8": "#ff7a9c", "c9": "#a9b4bf",
}  # fmt: skip
"""The same names on a dark page."""
MARK = 'class="qf" role="img"'
"""Attributes in the first line of every figure, by which a figure of qsim's is known."""
HUES = 10
MARKS = ("ring", "diamond", "square", "triangle", "cross")
DASHES = ("none", "6 3", "2 3", "8 3 2 3")

FONTS = "system-ui, -apple-system, 'Segoe UI', Roboto, Helvetica, Arial, sans-serif"
SIZE, LINE, LETTER = 12.0, 15.0, 6.4
"""Height of letters and of a line, and about the width of a letter, in the units of a drawing."""
WIDTHS = {1: 430.0, 2: 430.0, 3: 310.0}
"""Units of a panel across, by panels a row: a page shows two of 430 or three of 310, a telephone one."""
HEIGHTS = {1: 230.0, 2: 230.0, 3: 175.0}
"""Units of its axes down."""
ROW = 15.0
"""Units of a category down, where categories stand at the side."""
ARROW = 20.0
"""Units that are drawn of an interval that leaves what the axes can show."""
REACH = 8.0
"""How far a log axis follows an interval below its estimate, as a factor; what is below that ends in an arrow."""


@dataclass(frozen=True, slots=True)
class Styles:
    """Hold the colour of every group and the mark of every measured role, by first appearance in the report."""

    colours: dict[str, str]
    marks: dict[str, str]


@dataclass(frozen=True, slots=True)
class Axis:
    """Hold one axis: limits, scale, ticks and their labels."""

    low: float
    high: float
    ticks: tuple[float, ...]
    labels: tuple[str, ...]
    log: bool = False

    def at(self, value: float) -> float:
        """Return where `value` lies, from 0 at the low end to 1 at the high one."""
        low, high, value = (
            (math.log(v) for v in (self.low, self.high, value)) if self.log else (self.low, self.high, value)
        )
        return (value - low) / (high - low)


def styles(figures: Iterable[Figure]) -> Styles:
    """Return the look of every group and role in `figures`. The group "" is ink: it is about no format."""
    found = [series for figure in figures for panel in figure.panels for series in panel.series]
    groups = [group for group in dict.fromkeys(series.group for series in found) if group]
    roles = dict.fromkeys(role_of(series) for series in found if series.kind == "measured" and not series.small)
    return Styles(
        {"": "ink", **{group: f"c{i % HUES}" for i, group in enumerate(groups)}},
        {role: MARKS[i % len(MARKS)] for i, role in enumerate(roles)},
    )


def dashes(figure: Figure) -> dict[str, str]:
    """Return the dashes of every theory of a figure: whole lines first; a curve that is about no group is never whole."""
    found = [(series, panel) for panel in figure.panels for series in panel.series if series.kind == "theory"]
    apart = {role_of(series) for series, panel in found if not (series.group or panel.categories)}
    roles = sorted(dict.fromkeys(role_of(series) for series, _ in found), key=lambda role: role in apart)
    return {role: DASHES[max(i, role in apart) % len(DASHES)] for i, role in enumerate(roles)}


def role_of(series: Series) -> str:
    """Return the legend's name of the marks or the line of `series`."""
    return series.role or series.kind


def shown(panel: Panel) -> bool:
    """Return whether there is a mark or a line to draw on a panel."""
    return any(_drawable(panel, series) for series in panel.series)


def rules(colours: dict[str, str] | None = None) -> str:
    """Return the style sheet of a drawing, its colours by value, or by the page's variables if none are given."""
    value = {name: f"var(--{name})" for name in LIGHT} if colours is None else colours
    return "".join((
        f".qf text{{font:{SIZE:g}px {FONTS};fill:{value['ink']}}}.qf .q{{fill:{value['quiet']}}}.qf .h{{font-weight:600}}",
        f".qf .a{{stroke:{value['axis']};fill:none}}.qf .g{{stroke:{value['grid']};fill:none}}",
        ".qf .l{fill:none;stroke-width:1.5;stroke-linejoin:round}.qf .i{stroke-width:1.3;fill:none}",
        f".qf .m{{stroke-width:1.6;fill:{value['paper']}}}.qf .dot{{stroke:none;opacity:.5}}",
        *(f".qf .{name}{{stroke:{value[name]}}}.qf .f{name}{{fill:{value[name]}}}"
          for name in ("ink", "quiet", *(f"c{i}" for i in range(HUES)))),
    ))  # fmt: skip


def svg(figure: Figure, looks: Styles) -> str:
    """Return `figure` as one `<svg>` element to stand alone, on white: its panels side by side, three a row at most."""
    drawn = panels(figure, looks)
    columns = _columns(len(drawn))
    width = WIDTHS[columns]
    rows = [drawn[i : i + columns] for i in range(0, len(drawn), columns)]
    heights = [max(height for height, _ in row) for row in rows]
    parts = []
    for row, down in zip(rows, itertools.accumulate(heights, initial=0.0), strict=False):
        parts += [f'<g transform="translate({i * width:g} {down:g})">\n{body}\n</g>' for i, (_, body) in enumerate(row)]
    box = f"0 0 {width * columns:g} {sum(heights):g}"
    return "\n".join((
        (f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="{box}" width="{width * columns:g}" height="{sum(heights):g}"'
        f' id="{figure.id}.svg" {MARK} aria-labelledby="{figure.id}.title {figure.id}.desc">'),
        f'<title id="{figure.id}.title">{_escape(figure.title)}</title>',
        f'<desc id="{figure.id}.desc">{_escape(figure.alt)}</desc>',
        f"<style>{rules(LIGHT)}</style>",
        f'<rect width="100%" height="100%" fill="{LIGHT["paper"]}"/>',
        *parts,
        "</svg>\n",
    ))  # fmt: skip


def inline(figure: Figure, looks: Styles) -> list[str]:
    """Return the panels of `figure` as `<svg>` elements for a page, which sets them side by side or below each other."""
    drawn = panels(figure, looks)
    width = WIDTHS[_columns(len(drawn))]
    found = []
    for i, (height, body) in enumerate(drawn, 1):
        name = f"{figure.id}.{i}"
        found.append("\n".join((
            (f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width:g} {height:g}" {MARK}'
            f' aria-labelledby="{name}.title {name}.desc">'),
            f'<title id="{name}.title">{_escape(figure.title)} ({i} of {len(drawn)})</title>',
            f'<desc id="{name}.desc">{_escape(figure.alt)}</desc>',
            body,
            "</svg>",
        )))  # fmt: skip
    return found


def _columns(panels: int) -> int:
    return panels if panels <= 2 else 2 if panels == 4 else 3


def panels(figure: Figure, looks: Styles) -> list[tuple[float, str]]:
    """Return height and content of every panel of `figure` that has something to show.

    Panels with the same label and scale on an axis share its limits, so that the eye may compare them.
    """
    wanted = [panel for panel in figure.panels if shown(panel)] or list(figure.panels[:1])
    columns = _columns(len(wanted))
    width, height = WIDTHS[columns], HEIGHTS[columns]
    titles = [textwrap.wrap(panel.title, round((width - 20) / (LETTER * 1.14))) for panel in wanted]
    dashed = dashes(figure)
    keys = [_key(panel, looks, dashed, width) for panel in wanted]
    xaxes = _shared((panel.xlabel, panel.xscale, _xs(panel)) for panel in wanted)
    yaxes = _shared((panel.ylabel, panel.yscale, _ys(panel)) for panel in wanted)
    drawn = []
    for i, panel in enumerate(wanted):
        row = slice(i // columns * columns, (i // columns + 1) * columns)
        head = LINE * max(map(len, titles[row])) + 4
        top = head + LINE * max(len(lines) for lines in keys[row]) + 10
        quantity = _named(panel) or xaxes[panel.xlabel, panel.xscale]
        axes = (quantity, yaxes[panel.ylabel, panel.yscale])
        drawn.append(_Drawing(panel, looks, dashed, axes, width, height, top).draw(titles[i], keys[i], head))
    return drawn


class _Drawing:
    """Draw one panel: where its axes lie, and how a point of data becomes a point of the drawing."""

    def __init__(
        self,
        panel: Panel,
        looks: Styles,
        dashed: dict[str, str],
        axes: tuple[Axis, Axis],
        width: float,
        height: float,
        top: float,
    ) -> None:
        self.panel, self.looks, self.dashed, self.top = panel, looks, dashed, top
        self.across, self.down = axes[::-1] if panel.sideways else axes
        self.height = ROW * len(panel.categories) if panel.sideways else height
        names = self.down.labels
        self.left = 22 + LETTER * max(map(len, names), default=0) + (0 if panel.sideways else LINE)
        self.names = [] if panel.categories else _direct(panel)
        self.right = 12 + (14 + LETTER * max(len(name) for name, _ in self.names) if self.names else 0)
        self.span = width - self.left - self.right

    def x(self, value: float) -> float:
        """Return the place of a value across."""
        return self.left + self.span * self.across.at(value)

    def y(self, value: float) -> float:
        """Return the place of a value down: categories from the top, quantities from the bottom."""
        share = self.down.at(value)
        return self.top + self.height * (share if self.panel.sideways else 1 - share)

    def place(self, at: float, value: float) -> tuple[float, float]:
        """Return the place of a point: `at` is its x in the data, `value` its y."""
        return (self.x(value), self.y(at)) if self.panel.sideways else (self.x(at), self.y(value))

    def draw(self, title: Sequence[str], key: Sequence[Sequence[tuple[str, str]]], head: float) -> tuple[float, str]:
        """Return height and content."""
        parts = [
            f'<text x="4" y="{LINE * (i + 1) - 3:g}" class="h">{_escape(words)}</text>' for i, words in enumerate(title)
        ]
        for i, entries in enumerate(key):
            parts += self.legend(entries, head + LINE * (i + 1) - 3)
        foot, ticks = self.frame()
        parts += ticks
        for series in self.panel.series:
            if series.kind == "theory":
                parts += self.line(series)
        hidden = 0
        for series in self.panel.series:
            if series.kind == "measured":
                hidden += len(series.x)
                for mark in self.marks(series):
                    hidden -= 1
                    parts.append(mark)
        parts += self.labels()
        if hidden:
            words = f"{hidden} point{'s' * (hidden > 1)} at or below 0 not shown"
            parts.append(
                f'<text x="{self.left + self.span - 4:.1f}" y="{self.top + self.height - 5:.1f}" class="q"'
                f' text-anchor="end">{words}</text>'
            )
        return foot + 8, "\n".join(parts)

    def legend(self, entries: Sequence[tuple[str, str]], y: float) -> Iterator[str]:
        """Yield one line of the legend: each entry a drawing and its words."""
        x = 8.0
        for look, words in entries:
            kind, _, style = look.partition(" ")
            if kind == "line":
                yield f'<path d="M{x - 2:g} {y - 4:g}h18" class="l quiet" stroke-dasharray="{style}"/>'
            elif kind == "swatch":
                yield f'<rect x="{x:g}" y="{y - 9:g}" width="12" height="9" class="f{style}"/>'
            else:
                yield _mark(kind, x + 6, y - 4, "quiet")
            yield f'<text x="{x + 20:g}" y="{y:g}">{_escape(words)}</text>'
            x += 34 + LETTER * len(words)

    def frame(self) -> tuple[float, list[str]]:
        """Return the place of the foot, and grid, ticks and labels of both axes."""
        left, bottom, end = self.left, self.top + self.height, self.left + self.span
        parts = []
        for tick, words in zip(self.down.ticks, self.down.labels, strict=True):
            y = self.y(tick)
            parts.append(f'<path d="M{left:.1f} {y:.1f}H{end:.1f}" class="g"/>')
            parts.append(f'<text x="{left - 6:.1f}" y="{y + 4:.1f}" text-anchor="end">{_escape(words)}</text>')
        lines = max((len(words.split("\n")) for words in self.across.labels), default=1)
        for tick, words in zip(self.across.ticks, self.across.labels, strict=True):
            x = self.x(tick)
            if not self.panel.categories or self.panel.sideways:
                parts.append(f'<path d="M{x:.1f} {self.top:.1f}V{bottom:.1f}" class="g"/>')
            for i, line in enumerate(words.split("\n")):
                parts.append(
                    f'<text x="{x:.1f}" y="{bottom + LINE * (i + 1):.1f}" text-anchor="middle">{_escape(line)}</text>'
                )
        parts.append(f'<path d="M{left:.1f} {self.top:.1f}V{bottom:.1f}H{end:.1f}" class="a"/>')
        foot = bottom + LINE * (lines + 1) + 1
        below, beside = self.panel.xlabel, self.panel.ylabel
        if self.panel.sideways:
            below, beside = beside, ""
        parts.append(
            f'<text x="{(left + end) / 2:.1f}" y="{foot:.1f}" class="q" text-anchor="middle">{_escape(below)}</text>'
        )
        if beside:
            y = self.top + self.height / 2
            parts.append(
                f'<text transform="translate(12 {y:.1f}) rotate(-90)" class="q" text-anchor="middle">{_escape(beside)}</text>'
            )
        return foot, parts

    def line(self, series: Series) -> Iterator[str]:
        """Yield the line of a theory."""
        points = [self.place(*series_point) for _, series_point in _drawable(self.panel, series)]
        if points:
            path = "M" + "L".join(f"{x:.1f} {y:.1f}" for x, y in points)
            colour, dash = self.looks.colours[series.group], self.dashed[role_of(series)]
            yield (
                f'<path d="{path}" class="l {colour}" stroke-dasharray="{dash}">'
                f"<title>{_escape(_words(series.label, role_of(series)))}</title></path>"
            )

    def marks(self, series: Series) -> Iterator[str]:
        """Yield a mark with its interval for every point that the axes can show, or the upper end of its interval alone."""
        colour = self.looks.colours[series.group]
        mark = "dot" if series.small else self.looks.marks[role_of(series)]
        quantity = self.across if self.panel.sideways else self.down
        for i, (at, value) in _drawable(self.panel, series):
            parts = []
            if series.low and series.high:
                parts.append(self.interval(at, series.low[i], value, series.high[i], quantity, colour))
            if value > quantity.low:
                x, y = self.place(at, value)
                parts.append(_mark(mark, x, y, colour))
            yield f"<g><title>{_escape(self.tells(series, i))}</title>{''.join(parts)}</g>"

    def interval(self, at: float, low: float, value: float, high: float, quantity: Axis, colour: str) -> str:
        """Return the line of an interval, with an arrow at an end beyond the limits."""
        ends = []
        for end, inside, sign in ((low, max(low, quantity.low), -1), (high, min(high, quantity.high), 1)):
            place = self.place(at, max(inside, quantity.low))
            beyond = inside != end
            if beyond:  # a short piece with a head, and no line through the whole panel
                from_ = self.place(at, min(max(value if value > quantity.low else high, quantity.low), quantity.high))
                axis = 0 if self.panel.sideways else 1
                towards = sign if self.panel.sideways else -sign
                free = abs(place[axis] - from_[axis])
                moved = from_[axis] + towards * min(ARROW, free)
                place = (moved, place[1]) if self.panel.sideways else (place[0], moved)
            ends.append((place, beyond, sign))
        (start, _, _), (stop, _, _) = ends
        parts = [f'<path d="M{start[0]:.1f} {start[1]:.1f}L{stop[0]:.1f} {stop[1]:.1f}" class="i {colour}"/>']
        for (x, y), beyond, sign in ends:
            if beyond:
                turn = (0 if sign > 0 else 180) if self.panel.sideways else (-90 if sign > 0 else 90)
                parts.append(
                    f'<path d="M0 0L-6 -3.5V3.5Z" transform="translate({x:.1f} {y:.1f}) rotate({turn})" class="f{colour}"/>'
                )
        if value <= quantity.low:  # no mark: the upper end is what the draws say
            x, y = stop
            cap = f"M{x:.1f} {y - 4:.1f}v8" if self.panel.sideways else f"M{x - 4:.1f} {y:.1f}h8"
            parts.append(f'<path d="{cap}" class="i {colour}"/>')
        return "".join(parts)

    def tells(self, series: Series, i: int) -> str:
        """Return the tooltip of a point."""
        panel = self.panel
        at = (
            panel.categories[round(series.x[i])].replace("\n", " ")
            if panel.categories
            else f"{panel.xlabel} = {number(series.x[i])}"
        )
        ends = f" [{number(series.low[i])}, {number(series.high[i])}]" if series.low and series.high else ""
        name = "" if series.label == at else series.label
        return f"{_words(name, role_of(series), at)}: {panel.ylabel} {number(series.y[i])}{ends}"

    def labels(self) -> Iterator[str]:
        """Yield the name of each curve at its right end, moved apart where two would meet."""
        placed = sorted((self.y(series.y[i]), name, series, i) for name, (series, i) in self.names)
        ys = _apart([y for y, *_ in placed], self.top + 4, self.top + self.height)
        end = self.left + self.span
        for y, (was, name, series, i) in zip(ys, placed, strict=True):
            colour = self.looks.colours[series.group]
            yield f'<path d="M{self.x(series.x[i]):.1f} {was:.1f}L{end + 6:.1f} {y:.1f}h5" class="i {colour}" opacity=".6"/>'
            yield f'<text x="{end + 14:.1f}" y="{y + 4:.1f}">{_escape(name)}</text>'


def _words(*parts: str) -> str:
    return ", ".join(part for part in parts if part)


def _mark(kind: str, x: float, y: float, colour: str) -> str:
    """Return one mark, hollow, so that a line below it is seen."""
    if kind == "dot":
        return f'<circle cx="{x:.1f}" cy="{y:.1f}" r="2.1" class="dot f{colour}"/>'
    if kind == "ring":
        return f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3.4" class="m {colour}"/>'
    path = {
        "diamond": "m0 -4.6l4.6 4.6l-4.6 4.6l-4.6 -4.6z", "square": "m-3.3 -3.3h6.6v6.6h-6.6z",
        "triangle": "m0 -4.4l4.2 7.4h-8.4z", "cross": "m-3.4 -3.4l6.8 6.8m0 -6.8l-6.8 6.8",
    }[kind]  # fmt: skip
    return f'<path d="M{x:.1f} {y:.1f}{path}" class="m {colour}"/>'


def _drawable(panel: Panel, series: Series) -> list[tuple[int, tuple[float, float]]]:
    """Return the points of `series` that the scales of `panel` can show, or whose interval's upper end they can."""
    logx, logy = panel.xscale != "linear", panel.yscale != "linear"
    found = []
    for i, (x, y) in enumerate(zip(series.x, series.y, strict=True)):
        top = series.high[i] if series.high and series.kind == "measured" else y
        if (x > 0 or not logx) and (max(y, top) > 0 or not logy):
            found.append((i, (x, y)))
    return found


def _key(panel: Panel, looks: Styles, dashed: dict[str, str], width: float) -> list[list[tuple[str, str]]]:
    """Return the lines of a panel's legend: its marks and lines, and the colours that no label beside them names."""
    entries: dict[tuple[str, str], None] = {}
    for series in panel.series:
        if _drawable(panel, series) and not series.small:
            look = f"line {dashed[role_of(series)]}" if series.kind == "theory" else looks.marks[role_of(series)]
            entries[look, role_of(series)] = None
    if panel.categories:
        named = {words.split("\n")[0] for words in panel.categories} | {
            words.split(",")[0] for words in panel.categories
        }
        for series in panel.series:
            if series.group and series.label not in named | {role_of(series)}:
                entries[f"swatch {looks.colours[series.group]}", series.label] = None
    lines: list[list[tuple[str, str]]] = [[]]
    used = 0.0
    for look, words in entries:
        wide = 34 + LETTER * len(words)
        if lines[-1] and used + wide > width - 8:
            lines.append([])
            used = 0.0
        lines[-1].append((look, words))
        used += wide
    return lines


def _direct(panel: Panel) -> list[tuple[str, tuple[Series, int]]]:
    """Return the name of each curve of `panel`, with the point at its right end."""
    ends: dict[str, tuple[Series, int]] = {}
    for series in panel.series:
        points = [i for i, (_, y) in _drawable(panel, series) if y > 0 or panel.yscale == "linear"]
        if points and series.label not in ends:
            ends[series.label] = series, max(points, key=lambda i: series.x[i])
    return list(ends.items())


def _apart(places: Sequence[float], low: float, high: float) -> list[float]:
    """Return `places`, ascending, moved so that each is a line from the next and all lie in [low, high] if they fit."""
    found: list[float] = []
    for place in places:
        found.append(max(place, low, found[-1] + LINE - 2 if found else low))
    limit = high
    for i in reversed(range(len(found))):
        found[i] = min(found[i], limit)
        limit = found[i] - LINE + 2
    return found


def _xs(panel: Panel) -> list[float]:
    return [x for series in panel.series for x in series.x]


def _ys(panel: Panel) -> list[float]:
    """Return the range of the axis of values: points and bars, on a log scale at most `REACH` times below a point."""
    log = panel.yscale != "linear"
    found: list[float] = []
    for series in panel.series:
        for i, y in enumerate(series.y):
            low, high = (series.low[i], series.high[i]) if series.low and series.high else (y, y)
            found += [y, high]
            found.append((max(low, y / REACH) if y > 0 else high / REACH) if log else low)
    return found


def _shared(panels: Iterable[tuple[str, str, list[float]]]) -> dict[tuple[str, str], Axis]:
    """Return one axis for all panels that have a label and a scale in common."""
    values: dict[tuple[str, str], list[float]] = {}
    for label, scale, found in panels:
        values.setdefault((label, scale), []).extend(found)
    return {(label, scale): _axis(found, scale) for (label, scale), found in values.items()}


def _named(panel: Panel) -> Axis | None:
    """Return the axis of a panel whose x are the numbers of categories; `None` for one whose x are quantities."""
    n = len(panel.categories)
    return Axis(-0.5, n - 0.5, tuple(map(float, range(n))), panel.categories) if n else None


def _axis(values: Sequence[float], scale: str) -> Axis:
    """Return limits that hold all `values` (on a log scale: the positive ones) and at most seven round ticks."""
    if scale == "linear":
        low, high = min(values, default=0.0), max(values, default=1.0)
        pad = 0.05 * (high - low) or 0.1 * abs(low) or 1.0
        low, high = low - pad, high + pad
        ticks = _steps(low, high)
    else:
        values = [value for value in values if value > 0] or [1.0]
        low, high = min(values), max(values)
        base, log = (2.0, math.log2) if scale == "log2" else (10.0, math.log10)
        first, last = math.floor(log(low)), math.ceil(log(high))
        step = 1
        while last - first > 6 * step:
            step *= 2
        exponents = range(first // step * step, last + step + 1, step)
        mantissas = (1, 2, 5) if scale == "log10" and last - first <= 2 else (1,)
        ticks = [m * base**e for e in exponents for m in mantissas]
        pad = (high / low) ** 0.04
        if sum(low / pad <= tick <= high * pad for tick in ticks) < 2:
            low = max(tick for tick in ticks if tick <= low)
            high = min(tick for tick in ticks if tick >= high and tick > low)
            pad = (high / low) ** 0.04
        low, high = low / pad, high * pad
    ticks = [tick for tick in ticks if low <= tick <= high]
    plain = scale == "linear" or all(0.01 <= tick < 100_000 for tick in ticks)
    labels = tuple(number(tick) if plain else _power(tick, scale) for tick in ticks)
    return Axis(low, high, tuple(ticks), labels, log=scale != "linear")


def _steps(low: float, high: float) -> list[float]:
    """Return the multiples of 1, 2 or 5 times a power of ten in [low, high], at most seven."""
    raw = (high - low) / 6
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(m * power for m in (1, 2, 5, 10) if m * power >= raw)
    return [float(f"{k * step:.12g}") for k in range(math.ceil(low / step), math.floor(high / step) + 1)]


def _power(tick: float, scale: str) -> str:
    """Return a tick of a log axis as mantissa and power: 2⁻¹⁰, 5×10⁻³."""
    base, log = ("2", math.log2) if scale == "log2" else ("10", math.log10)
    exponent = math.floor(log(tick) + 1e-9)
    mantissa = round(tick / float(base) ** exponent)
    return ("" if mantissa == 1 else f"{mantissa}×") + base + str(exponent).translate(SUPERSCRIPTS)


def _escape(words: str) -> str:
    """Return `words` as the text of an element."""
    return html.escape(words, quote=False)
