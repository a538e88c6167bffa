"""A number line: the values of formats as ticks, one row a format, on one axis. Same rows, same bytes."""

from __future__ import annotations

import io
import itertools
import math
import textwrap
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from qsim.report.figures import FONTS
from qsim.report.text import SUPERSCRIPTS, number

if TYPE_CHECKING:  # slow to import, and wanted only where something is drawn
    from matplotlib.axes import Axes

__all__ = ["FORMS", "Row", "Scale", "draw", "ends", "label", "shown"]

Scale = Literal["linear", "log"]

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
"""Okabe and Ito's palette for every kind of colour vision, less its yellow, which white paper swallows."""
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
"""What all drawings share, whatever a user's matplotlibrc says."""

FORMS: Mapping[str, Mapping[str, None]] = {
    "svg": dict.fromkeys(("Creator", "Date", "Format", "Type")),
    "png": dict.fromkeys(("Software",)),
    "pdf": dict.fromkeys(("CreationDate", "Creator", "Producer")),
}
"""The kinds of file; of each the metadata it must not hold, which would say when and with what it was made."""

BLACK, GREY, GRID = "#000000", "#666666", "#e4e4e4"
LOOKS: Mapping[str, tuple[str, float]] = {
    "normal": (COLOURS[0], 0.62),
    "subnormal": (COLOURS[1], 0.38),
    "value": (COLOURS[2], 0.62),
}
"""Colour of a tick, and how much of its row's band it fills; "value" where a format knows no subnormal numbers."""

WIDTH = 8.0
"""Inches across, of every figure."""
LINE, BAND, GAP = 0.15, 0.34, 0.30
"""Inches down, of a row: each line of its text, its ticks, and what is free below them."""
FOOT, MARGIN, LETTER = 0.78, 0.20, 0.075
"""Inches of the axis with the legend, of an empty margin, and of one letter beside the ends of a row."""
LETTERS = 122
"""Letters a line of a row's text has room for."""


@dataclass(frozen=True, slots=True)
class Row:
    """Hold the data of one format's row."""

    name: str
    bits: int
    values: tuple[float, ...]
    """The finite values, ascending, each once: 0 and -0 are one."""
    smallest_normal: float | None
    """`None` where the format does not tell normal numbers from subnormal ones."""
    specials: tuple[str, ...]
    """What else the format has or lacks, for reading: "NaN", "no infinity"."""


def shown(row: Row, scale: Scale, window: tuple[float, float] | None) -> list[float]:
    """Return the values of `row` that have a place on the axis (a positive one if it is logarithmic) and in `window`."""
    low, high = window or (-math.inf, math.inf)
    return [value for value in _placed(row, scale) if low <= value <= high]


def ends(rows: Iterable[Row], scale: Scale) -> tuple[float, float]:
    """Return the ends of an axis that holds every value of `rows` that has a place on it; one at least must have."""
    values = [value for row in rows for value in _placed(row, scale)]
    low, high = min(values), max(values)
    if low < high:
        return low, high
    return (low / 2, high * 2) if scale == "log" else (low - 1, high + 1)


def label(value: float) -> str:
    """Return `value` for reading: in six digits if it has no more, a long one as 2⁻⁹ if it is that, else as ≈3.39×10³⁸."""
    digits = number(value, ".6g")
    exact = float(f"{value:.6g}") == value and 1e-4 <= abs(value) < 1e6
    if value == 0 or (exact and len(digits.removeprefix("−")) <= 6):
        return digits
    fraction, exponent = math.frexp(value)
    if abs(fraction) == 0.5:
        return "−" * (value < 0) + _power(exponent - 1)
    return digits if exact else "≈" + number(value, ".3g")


def draw(rows: Sequence[Row], scale: Scale, window: tuple[float, float] | None, form: str) -> bytes:
    """Return a file of the kind `form`, one of `FORMS`, that shows `rows` on one axis.

    `window` is (low, high), both on the axis, and 0 < low if that is logarithmic; `None` is all there is. A tick stands
    where its value is. Neighbours closer than ink is thin merge; the row's text counts them.
    """
    import matplotlib as mpl
    from matplotlib.figure import Figure

    low, high = window or ends(rows, scale)
    notes = [_note(row, scale, window) for row in rows]
    heights = [LINE * (1.3 + len(lines)) + BAND + GAP for lines in notes]
    height = sum(heights) + FOOT + MARGIN
    outside = [_ends(row, scale, low, high) for row in rows]
    left, right = (2 * MARGIN + LETTER * max(map(len, labels)) for labels in zip(*outside, strict=True))

    with mpl.rc_context():
        mpl.rcdefaults()
        mpl.rcParams.update(SETTINGS)
        mpl.rcParams.update({"axes.grid": False, "axes.spines.left": False, "legend.fontsize": 8, "pdf.fonttype": 42})
        mpl.rcParams["svg.hashsalt"] = "numberline"
        canvas = Figure(figsize=(WIDTH, height))
        axes = canvas.add_axes((left / WIDTH, FOOT / height, (WIDTH - left - right) / WIDTH, sum(heights) / height))
        axes.set(xlim=(_place(low, scale), _place(high, scale)), ylim=(0, sum(heights)), yticks=[])
        axes.set_xlabel("value" if scale == "linear" else "value, logarithmic axis")
        ticks = _ticks(low, high, scale)
        axes.set_xticks([_place(tick, scale) for tick in ticks], list(ticks.values()))
        down = sum(heights)
        kinds: set[str] = set()
        for i, (row, lines, sides) in enumerate(zip(rows, notes, outside, strict=True)):
            axes.text(0, down, row.name, transform=axes.get_yaxis_transform(), va="top", weight="bold", size=9)
            axes.text(0, down - 1.2 * LINE, "\n".join(lines), transform=axes.get_yaxis_transform(), va="top", size=7,
                      color="#555555", linespacing=1.3)  # fmt: skip
            down -= heights[i]
            # The grid leaves the texts alone.
            foot = down + 0.08 if i + 1 < len(rows) else down
            axes.vlines([_place(tick, scale) for tick in ticks], foot, down + GAP + BAND, color=GRID, linewidth=0.5)
            kinds |= _draw_row(axes, row, down + GAP, scale, (low, high), sides, f"row{i + 1}")
        canvas.legend(handles=_handles(kinds), loc="lower left", bbox_to_anchor=((left - 0.05) / WIDTH, 0.08 / height),
                      ncols=5, borderaxespad=0, borderpad=0, handlelength=0.8, handletextpad=0.5)  # fmt: skip
        file = io.BytesIO()
        title = f"{', '.join(row.name for row in rows)} on a number line"
        canvas.savefig(file, format=form, dpi=200, metadata={**FORMS[form], "Title": title})
    content = file.getvalue()
    return content.replace(b"'DejaVu Sans', sans-serif", FONTS.encode()) if form == "svg" else content


def _placed(row: Row, scale: Scale) -> list[float]:
    return [value for value in row.values if scale == "linear" or value > 0]


def _place(value: float, scale: Scale) -> float:
    """Return where on the axis `value` stands."""
    return value if scale == "linear" else math.log2(value)


def _power(exponent: int) -> str:
    return "2" + str(exponent).translate(SUPERSCRIPTS)


def _note(row: Row, scale: Scale, window: tuple[float, float] | None) -> list[str]:
    """Return, in lines, the facts that a row's ticks do not show: how many there are, which special values, and omissions."""
    some, every = len(shown(row, scale, window)), len(row.values)
    counts = f"{number(every)} finite values" if some == every else f"{number(some)} of {number(every)} finite values"
    parts = [f"{row.bits} bit{'s' * (row.bits > 1)}", counts + " shown" * (some < every)]
    if row.smallest_normal is not None:
        parts += [f"subnormal from {label(value)}" for value in row.values if 0 < value < row.smallest_normal][:1]
        parts.append(f"normal from {label(row.smallest_normal)}")
    parts += row.specials
    if scale == "log":
        negative = sum(value < 0 for value in row.values)
        unplaced = ["0"] * (0 in row.values) + [f"{number(negative)} negative"] * (negative > 0)
        parts += [f"not on a logarithmic axis: {' and '.join(unplaced)}"] if unplaced else []
    # A line ends between two parts only.
    text = "\xa0· ".join(part.replace(" ", "\xa0") for part in parts)
    return [line.replace("\xa0", " ") for line in textwrap.wrap(text, LETTERS, break_long_words=False)]


def _ends(row: Row, scale: Scale, low: float, high: float) -> tuple[str, str]:
    """Return the labels of the two ends of a row's ticks: the extreme values.

    It is "" for 0, which is marked as such, and for a value beyond the axis.
    """
    placed = _placed(row, scale)
    if not placed:
        return "", ""
    first, last = (label(end) if end and low <= end <= high else "" for end in (placed[0], placed[-1]))
    return first if len(placed) > 1 else "", last


def _ticks(low: float, high: float, scale: Scale) -> dict[float, str]:
    """Return the axis's ticks and labels: powers of two on a log axis that spans some, else round decimals."""
    from matplotlib.ticker import MaxNLocator

    if scale == "log":
        fraction, exponent = math.frexp(low)
        first, last = exponent - (fraction == 0.5), math.frexp(high)[1] - 1
        stride = 1
        while last - first > 12 * stride:
            stride *= 2
        if last > first:
            exponents = range(-(-first // stride) * stride, last + 1, stride)
            return {math.ldexp(1, exponent): _power(exponent) for exponent in exponents}
    found = [float(tick) for tick in MaxNLocator(9, steps=[1, 2, 5, 10]).tick_values(low, high)]
    step = found[1] - found[0]
    # The locator's sums leave 1e-17 for 0, and 1.9000000000000001 for an end at 1.9.
    near = [tick if abs(tick) > step / 2 else 0.0 for tick in found if low - step / 1e6 <= tick <= high + step / 1e6]
    ticks = [min(max(tick, low), high) for tick in near]
    forms = (f".{digits}g" for digits in range(6, 17))
    form = next(form for form in forms if all(abs(float(f"{tick:{form}}") - tick) < step / 100 for tick in ticks))
    return {tick: number(tick, form) for tick in ticks}


def _draw_row(
    axes: Axes, row: Row, base: float, scale: Scale, window: tuple[float, float], sides: tuple[str, str], name: str
) -> set[str]:
    """Draw the ticks of `row` on the height `base`, in inches; return the kinds of tick there are.

    `sides` is the result of `_ends`. The ids of the groups in an SVG start with `name`.
    """
    low, high = window
    values = shown(row, scale, window)
    places = [_place(value, scale) for value in values]
    kinds = [_kind(row, value) for value in values]
    long = [_starts_binade(row, value) for value in values]
    # A tick is at most half as thick as there is room for it, so that only those run together that no eye tells apart.
    inch = axes.get_position().width * WIDTH / (_place(high, scale) - _place(low, scale))
    gaps = [math.inf, *(72 * inch * (after - before) for before, after in itertools.pairwise(places)), math.inf]
    widths = [min(max(min(gaps[i : i + 2]) / 2, 0.6 if long[i] else 0.25), 1.1) for i in range(len(values))]
    for kind, (colour, share) in LOOKS.items():
        at = [i for i in range(len(values)) if kinds[i] == kind]
        if at:
            ticks = axes.vlines(
                [places[i] for i in at], base, [base + BAND * (1 if long[i] else share) for i in at],
                color=colour, linewidth=[widths[i] for i in at],
            )  # fmt: skip
            # Each where its value is, not where the nearest column of pixels happens to be.
            ticks.set(clip_on=False, snap=False, gid=f"{name}.{kind}", zorder=3)
    if "zero" in kinds:
        tick = axes.vlines([0], base - 0.06, base + BAND, color=BLACK, linewidth=0.8)
        tick.set(clip_on=False, snap=False, gid=f"{name}.zero", zorder=4)
        axes.annotate("0", (0, base - 0.06), (0, -1), textcoords="offset points", ha="center", va="top", size=7)
    placed = _placed(row, scale)
    if placed and placed[0] <= high and placed[-1] >= low:
        start, stop = (_place(min(max(end, low), high), scale) for end in (placed[0], placed[-1]))
        axes.hlines(base, start, stop, color=GREY, linewidth=0.6, clip_on=False, zorder=2)
        middle = base + BAND * LOOKS["normal"][1] / 2
        for text, end, shift, align in (sides[0], start, -4, "right"), (sides[1], stop, 4, "left"):
            axes.annotate(text, (end, middle), (shift, 0), textcoords="offset points", ha=align, va="center", size=8)
    return set(kinds)


def _kind(row: Row, value: float) -> str:
    if value == 0:
        return "zero"
    if row.smallest_normal is None:
        return "value"
    return "normal" if abs(value) >= row.smallest_normal else "subnormal"


def _starts_binade(row: Row, value: float) -> bool:
    """Return whether `value` has a long tick, as inches have on a ruler: a power of two in a format of binades."""
    return row.smallest_normal is not None and abs(value) >= row.smallest_normal and abs(math.frexp(value)[0]) == 0.5


def _handles(kinds: set[str]) -> list[Any]:
    """Return the legend: the meanings of the colours and lengths of the ticks in use."""
    from matplotlib.lines import Line2D

    entries = [(name, colour, 9 * share) for name, (colour, share) in LOOKS.items() if name in kinds]
    if "normal" in kinds:
        entries.insert(1, ("power of two", LOOKS["normal"][0], 10))
    if "zero" in kinds:
        entries.append(("zero", BLACK, 10))
    return [
        Line2D([], [], color=colour, marker="|", markersize=size, markeredgewidth=1.1, linestyle="none", label=name)
        for name, colour, size in entries
    ]
