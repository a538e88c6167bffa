"""`qsim plot FORMAT [FORMAT ...] -o FILE`: draw the values of formats on a number line, each a row of one axis."""

from __future__ import annotations

import argparse
import dataclasses
import math
import re
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from qsim.cli.files import whole
from qsim.cli.show import HELP
from qsim.cli.text import as_float, as_json, number
from qsim.errors import InputError, enumerate_names
from qsim.formats import Format, get_format

if TYPE_CHECKING:
    from qsim.report.numberline import Row, Scale

__all__ = ["add", "run"]

MOST_TICKS = 4096
"""Values of one format that are drawn at most: more would be a bar, not a number line."""
MOST_ROWS = 32
"""Formats that are drawn at most: more would make a picture higher than some programs open."""


def add(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments to its parser."""
    parser.description = (
        "Draw the values of formats on a number line, each format a row of one axis. Ticks of normal and "
        "subnormal numbers differ; each row's text counts the values and names the special ones."
    )
    parser.add_argument("format", nargs="+", metavar="FORMAT", help=HELP)
    parser.add_argument(
        "-o", "--output", type=Path, required=True, metavar="FILE", help="where to draw: .svg, .png or .pdf"
    )
    parser.add_argument("--scale", choices=("linear", "log"), default="linear",
                        help="log: positive values only, each binade as wide as the next (default: linear)")  # fmt: skip
    parser.add_argument("--range", nargs=2, type=float, metavar=("LO", "HI"), help="only the values from LO to HI")
    parser.add_argument("--json", action="store_true", help="print a JSON object that says what was drawn")
    # argparse takes -1e-3 for an option, as its own pattern of a negative number knows no exponent.
    parser._negative_number_matcher = re.compile(r"-(\d|\.\d|inf|nan)")  # noqa: SLF001
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Draw the formats, and print where."""
    from qsim.report import numberline

    form = form_of(args.output)
    formats = [get_format(name) for name in args.format]
    if len(formats) > MOST_ROWS:
        raise InputError(f"{len(formats)} formats are too many for one number line; give at most {MOST_ROWS}")
    window = checked(args.range, args.scale)
    rows = [row_of(fmt) for fmt in formats]
    called = {fmt: fmt.name for fmt in formats}
    for at, (fmt, asked) in enumerate(zip(formats, args.format, strict=True)):
        if (
            ".toml" in asked and list(called.values()).count(fmt.name) > 1
        ):  # two files may each have a format of one name
            rows[at] = dataclasses.replace(rows[at], name=asked)
    counts = [len(numberline.shown(row, args.scale, window)) for row in rows]
    for row, count in zip(rows, counts, strict=True):
        if count > MOST_TICKS:
            raise InputError(f"{row.name} has {count} values {described(args.scale, window)}, and at most {MOST_TICKS} "
                             f"of a format are drawn; narrow it with --range LO HI")  # fmt: skip
    if not any(counts):
        names = enumerate_names(row.name for row in rows)
        raise InputError(f"{names} holds no value {described(args.scale, window)}; choose another --range LO HI")
    low, high = window or drawable(numberline.ends(rows, args.scale), args.scale)
    picture = numberline.draw(rows, args.scale, window, form)
    with whole(args.output) as file:
        file.write(picture)
    if args.json:
        drawn = [
            {"asked": asked, "name": row.name, "finite_values": len(row.values), "shown": count}
            for asked, row, count in zip(args.format, rows, counts, strict=True)
        ]
        print(as_json({"file": str(args.output), "scale": args.scale, "range": [low, high], "formats": drawn}))
    else:
        print(args.output)
    return 0


def form_of(path: Path) -> str:
    """Return the kind of file that the name of `path` asks for."""
    from qsim.report.numberline import FORMS

    form = path.suffix.lower().removeprefix(".")
    if form not in FORMS:
        endings = enumerate_names(f".{known}" for known in FORMS)
        raise InputError(f"{path}: the name of the picture must end in {endings}, which says what kind of file it is")
    return form


def checked(given: list[float] | None, scale: Scale) -> tuple[float, float] | None:
    """Return --range as the window of the axis, if there can be such an axis."""
    if given is None:
        return None
    low, high = given
    if not (math.isfinite(low) and math.isfinite(high) and low < high):
        raise InputError(f"--range {number(low)} {number(high)}: give two finite numbers, the smaller one first")
    if scale == "log" and low <= 0:
        raise InputError(f"--range {number(low)} {number(high)}: --scale log has no place for {number(low)}; "
                         "start above 0")  # fmt: skip
    return drawable((low, high), scale)


def drawable(window: tuple[float, float], scale: Scale) -> tuple[float, float]:
    """Return `window` if the floats of an axis, and of the drawing, can tell its two ends apart."""
    low, high = window
    if high - low <= 1e-9 * max(abs(low), abs(high)):
        raise InputError(f"--range {number(low)} {number(high)}: this is too narrow to draw; move the ends apart")
    if not 1e-280 < high - low < 1e300 and (scale == "linear" or high < 4 * low):  # else its ticks are powers of two
        raise InputError(f"an axis from {number(low)} to {number(high)} cannot be drawn; choose another --range LO HI, "
                         "or --scale log")  # fmt: skip
    return window


def described(scale: Scale, window: tuple[float, float] | None) -> str:
    """Return which values are drawn, as a sentence goes on after "values"."""
    where = f"from {number(window[0])} to {number(window[1])}" if window else ""
    return " ".join(["above 0"] * (scale == "log" and not window) + [where] * bool(where)) or "in all"


def row_of(fmt: Format) -> Row:
    """Return the data of the plot of `fmt`, read off its table of values."""
    from qsim.report.numberline import Row

    if any(value is not None and as_float(value) is None for value in fmt.landmarks().values()):
        raise InputError(f"{fmt.name} reaches beyond the range of float64, in which a number line is drawn; "
                         f"`qsim show {fmt.name}` says how far")  # fmt: skip
    table = fmt.values()
    zeros = table[table == 0]
    # A format without sign has one infinity.
    infinities = "".join(sign for sign, value in (("+", math.inf), ("−", -math.inf)) if value in table)
    return Row(
        name=fmt.name,
        bits=fmt.bits,
        values=tuple(np.unique(table[np.isfinite(table)] + 0.0).tolist()),
        smallest_normal=fmt.smallest_normal if fmt.kind == "float" else None,
        specials=(
            *(["0 and −0"] if np.signbit(zeros).any() else [] if zeros.size else ["no zero"]),
            {"": "no infinity", "+−": "±∞"}.get(infinities, infinities + "∞"),
            "NaN" if fmt.has_nan else "no NaN",
        ),
    )
