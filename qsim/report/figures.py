"""Figures as SVG text: same data, same bytes, whatever the machine, its fonts and the user's matplotlib settings."""

from __future__ import annotations

import html
import io
import itertools
import math
import re
import textwrap
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from qsim.report.text import SUPERSCRIPTS, number
from qsim.studies.result import Figure, Panel, Series

if TYPE_CHECKING:  # slow to import, and not everybody who loads a result draws it
    from matplotlib.axes import Axes

__all__ = ["styles", "svg"]

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
"""Okabe and Ito's palette for every kind of colour vision, less its yellow, which white paper swallows."""
MARKERS = ("o", "s", "^", "D", "v", "X", "<", "P", ">")
"""Nine markers against seven colours: 63 groups before a pair comes again."""
DASHES = ("-", "--", ":", "-.")

FONTS = "system-ui, -apple-system, 'Segoe UI', Roboto, Helvetica, Arial, sans-serif"
SETTINGS: dict[Any, Any] = {
    "axes.edgecolor": "#666666",
    "axes.grid": True,
    "axes.labelsize": 8.5,
    "axes.linewidth": 0.6,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "axes.titlelocation": "left",
    "axes.titlesize": 9,
    "axes.titleweight": "bold",
    # Text is laid out with the font matplotlib carries; it is wider than the fonts a reader's browser will take.
    "font.family": "sans-serif",
    "font.sans-serif": ["DejaVu Sans"],
    "font.size": 8.5,
    "grid.color": "#e4e4e4",
    "grid.linewidth": 0.5,
    "legend.fontsize": 8.5,
    "legend.frameon": False,
    "lines.linewidth": 1.0,
    "lines.markersize": 4.5,
    "svg.fonttype": "none",
    # A label may hold a dollar sign.
    "text.parse_math": False,
    "xtick.color": "#666666",
    "xtick.labelcolor": "#222222",
    "xtick.labelsize": 8,
    "xtick.major.width": 0.6,
    "ytick.color": "#666666",
    "ytick.labelcolor": "#222222",
    "ytick.labelsize": 8,
    "ytick.major.width": 0.6,
}

WIDTHS = {1: 5.8, 2: 4.4, 3: 3.1}
HEIGHTS = {1: 3.1, 2: 2.4, 3: 2.0}
"""Inches of a panel with its margins across, and of its axes alone down, by panels a row."""
LINE = 0.16
"""Inches one line of text takes."""


@dataclass(frozen=True, slots=True)
class Axis:
    """Hold what is shown of one direction: limits, ticks and what the ticks say."""

    low: float
    high: float
    ticks: tuple[float, ...]
    labels: tuple[str, ...]


def styles(figures: Iterable[Figure]) -> dict[str, tuple[str, str]]:
    """Return colour and marker of every group in `figures`, by first appearance."""
    groups = dict.fromkeys(series.group for figure in figures for panel in figure.panels for series in panel.series)
    return {group: (COLOURS[i % len(COLOURS)], MARKERS[i % len(MARKERS)]) for i, group in enumerate(groups)}


def svg(figure: Figure, groups: dict[str, tuple[str, str]]) -> str:
    """Return `figure` as one `<svg>` element, to stand alone or in a page beside others.

    `groups` is what `styles` gave for the whole report. Panels with the same label and scale on an
    axis share its limits, so that the eye may compare them. Every id starts with the figure's own.
    """
    import matplotlib as mpl
    from matplotlib.figure import Figure as Canvas

    columns = len(figure.panels) if len(figure.panels) <= 3 else 2 if len(figure.panels) == 4 else 3
    rows = math.ceil(len(figure.panels) / columns)
    axes_height = HEIGHTS[columns]
    ylabels = [textwrap.fill(panel.ylabel, round(axes_height * 14)) for panel in figure.panels]
    left = 0.54 + LINE * (1 + max(label.count("\n") for label in ylabels))
    axes_width = WIDTHS[columns] - left - 0.15
    titles = [textwrap.fill(panel.title, round(axes_width * 13)) for panel in figure.panels]
    top = 0.15 + LINE * (1 + max(title.count("\n") for title in titles))
    names = [name for panel in figure.panels for name in panel.categories]
    row_height = top + axes_height + 0.5 + LINE * max((name.count("\n") for name in names), default=0)
    width = WIDTHS[columns] * columns

    xaxes = _shared((panel.xlabel, panel.xscale, _xs(panel)) for panel in figure.panels)
    yaxes = _shared((panel.ylabel, panel.yscale, _ys(panel)) for panel in figure.panels)
    looks = _looks(figure, groups)

    with mpl.rc_context():
        mpl.rcdefaults()
        mpl.rcParams.update(SETTINGS)
        mpl.rcParams["svg.hashsalt"] = figure.id
        handles = _handles(looks)
        longest = max((len(handle.get_label()) for handle in handles), default=0)
        legend_rows = math.ceil(len(handles) / max(1, int(width / (0.45 + 0.075 * longest))))
        foot = 0.12 + 0.19 * legend_rows
        height = rows * row_height + foot
        canvas = Canvas(figsize=(width, height))
        for i, panel in enumerate(figure.panels):
            row, col = divmod(i, columns)
            across = col * WIDTHS[columns] + left
            down = height - row * row_height - top - axes_height
            axes = canvas.add_axes((across / width, down / height, axes_width / width, axes_height / height))
            _draw(
                axes,
                panel,
                looks,
                _named(panel) or xaxes[panel.xlabel, panel.xscale],
                yaxes[panel.ylabel, panel.yscale],
            )
            axes.set_title(titles[i])
            axes.set_xlabel(panel.xlabel)
            if col == 0 or ylabels[i] != ylabels[i - 1]:
                axes.set_ylabel(ylabels[i])
        canvas.legend(
            handles=handles,
            loc="lower left",
            bbox_to_anchor=(0.02, 0),
            borderaxespad=0,
            columnspacing=1.6,
            ncols=math.ceil(len(handles) / max(1, legend_rows)) or 1,
        )
        file = io.BytesIO()
        canvas.savefig(file, format="svg", metadata=dict.fromkeys(("Creator", "Date", "Format", "Type")))
    return _tidy(file.getvalue().decode(), figure)


def _xs(panel: Panel) -> list[float]:
    return [x for series in panel.series for x in series.x]


def _ys(panel: Panel) -> list[float]:
    """Return what the vertical axis must reach: points and bars, on a log scale the lower half of a bar at most 4x."""
    floor = 0.25 if panel.yscale != "linear" else -math.inf
    found: list[float] = []
    for series in panel.series:
        found += [*series.y, *(series.high or ())]
        found += [max(low, y * floor) if y > 0 else low for low, y in zip(series.low or (), series.y, strict=False)]
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
    from matplotlib.ticker import MaxNLocator

    if scale == "linear":
        low, high = min(values, default=0.0), max(values, default=1.0)
        pad = 0.05 * (high - low) or 0.1 * abs(low) or 1.0
        low, high = low - pad, high + pad
        ticks = [float(tick) for tick in MaxNLocator(6, steps=[1, 2, 5, 10]).tick_values(low, high)]
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
    return Axis(low, high, tuple(ticks), tuple(number(tick) if plain else _power(tick, scale) for tick in ticks))


def _power(tick: float, scale: str) -> str:
    """Return a tick of a log axis as mantissa and power: 2⁻¹⁰, 5×10⁻³."""
    base, log = ("2", math.log2) if scale == "log2" else ("10", math.log10)
    exponent = math.floor(log(tick) + 1e-9)
    mantissa = round(tick / float(base) ** exponent)
    return ("" if mantissa == 1 else f"{mantissa}×") + base + str(exponent).translate(SUPERSCRIPTS)


def _looks(figure: Figure, groups: dict[str, tuple[str, str]]) -> dict[tuple[str, str, str], dict[str, Any]]:
    """Return how each (group, label, kind) of `figure` is drawn.

    A second label of a group keeps colour and marker and is told by a hollow marker or by dashes.
    """
    seen: dict[tuple[str, str], list[str]] = {}
    looks: dict[tuple[str, str, str], dict[str, Any]] = {}
    for series in itertools.chain.from_iterable(panel.series for panel in figure.panels):
        labels = seen.setdefault((series.group, series.kind), [])
        if series.label not in labels:
            labels.append(series.label)
        colour, marker = groups[series.group]
        nth = labels.index(series.label)
        look: dict[str, Any] = {"color": colour, "linestyle": DASHES[nth % len(DASHES)]}
        if series.kind == "measured":
            look = {"color": colour, "linestyle": "none", "marker": marker, "zorder": 3}
            look["markerfacecolor"] = "white" if nth % 2 else colour
        looks[series.group, series.label, series.kind] = look
    return looks


def _handles(looks: dict[tuple[str, str, str], dict[str, Any]]) -> list[Any]:
    """Return the legend: one entry a group and label; where one has marker and line, two grey ones tell them apart."""
    from matplotlib.lines import Line2D

    merged: dict[tuple[str, str], dict[str, Any]] = {}
    for (group, label, kind), look in looks.items():
        entry = merged.setdefault((group, label), {"label": label, "linestyle": "none"})
        entry.update((key, value) for key, value in look.items() if key != "linestyle" or kind == "theory")
    entries = list(merged.values())
    if len(merged) < len(looks):
        entries.append({"label": "measured", "color": "#777777", "linestyle": "none", "marker": "o"})
        entries.append({"label": "theory", "color": "#777777", "linestyle": "-"})
    return [Line2D([], [], **entry) for entry in entries]


def _draw(
    axes: Axes, panel: Panel, looks: dict[tuple[str, str, str], dict[str, Any]], xaxis: Axis, yaxis: Axis
) -> None:
    """Draw the curves of `panel` on `axes`, lines below markers, and say how many points a log scale cannot show."""
    for set_scale, scale in (axes.set_xscale, panel.xscale), (axes.set_yscale, panel.yscale):
        if scale != "linear":
            set_scale("log", base=2 if scale == "log2" else 10)
    logx, logy = panel.xscale != "linear", panel.yscale != "linear"
    hidden = 0
    for series in panel.series:
        look = looks[series.group, series.label, series.kind]
        pairs = enumerate(zip(series.x, series.y, strict=True))
        points = [i for i, (x, y) in pairs if (x > 0 or not logx) and (y > 0 or not logy)]
        hidden += len(series.x) - len(points)
        axes.plot([series.x[i] for i in points], [series.y[i] for i in points], **look)
        if series.low and series.high:
            _bars(axes, series, points, yaxis, look["color"])
    axes.set(xlim=(xaxis.low, xaxis.high), ylim=(yaxis.low, yaxis.high))
    axes.set_xticks(xaxis.ticks, xaxis.labels)
    axes.set_yticks(yaxis.ticks, yaxis.labels)
    axes.minorticks_off()
    if hidden:
        note = f"{hidden} point{'s' * (hidden > 1)} at or below 0 not shown"
        axes.text(0.98, 0.03, note, transform=axes.transAxes, ha="right", fontsize=7.5, color="#444444")


def _bars(axes: Axes, series: Series, points: Sequence[int], shown: Axis, colour: str) -> None:
    """Draw the intervals of `series`; one that leaves the frame is cut at its edge."""
    low, high = series.low or (), series.high or ()
    ends = [(max(low[i], shown.low), min(high[i], shown.high)) for i in points]
    axes.vlines([series.x[i] for i in points], [a for a, _ in ends], [b for _, b in ends], color=colour, linewidth=1)


def _tidy(text: str, figure: Figure) -> str:
    """Return matplotlib's document as an element: named for screen readers, ids its own, no style for the page."""
    text = text[text.index("<svg") :]
    text = re.sub(r" *<defs>\s*<style.*?</style>\s*</defs>\n", "", text, count=1, flags=re.DOTALL)
    # Nothing refers to a group, and its id names the library.
    text = re.sub(r'<g id="[^"]*"', "<g", text)
    text = text.replace("'DejaVu Sans', sans-serif", FONTS)
    # Only inside tags: a label may read id="x". matplotlib escapes < and > everywhere else.
    own = re.compile(r"""(\bid="|(?:xlink:)?href="#|url\(#)""")
    text = re.sub(r"<[^>!]+>", lambda tag: own.sub(rf"\g<1>{figure.id}.", tag[0]), text)
    head, rest = text.split(">", 1)
    head += (
        f' id="{figure.id}.svg" role="img" aria-labelledby="{figure.id}.title {figure.id}.desc"'
        ' style="stroke-linejoin: round; stroke-linecap: butt"'
    )
    title = f'\n <title id="{figure.id}.title">{html.escape(figure.title)}</title>'
    desc = f'\n <desc id="{figure.id}.desc">{html.escape(figure.alt)}</desc>'
    return head + ">" + title + desc + rest.strip("\n").join(("\n", "\n"))
