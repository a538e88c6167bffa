"""The number line: where ticks stand, what tells them apart, and what the text beside them says."""

from __future__ import annotations

import dataclasses
import math
import re
from collections.abc import Sequence
from itertools import pairwise

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from qsim.formats import get_format
from qsim.report import numberline
from qsim.report.numberline import Row, Scale, draw, ends, label, shown


def row(name: str) -> Row:
    """Return a float or integer format as a row."""
    fmt = get_format(name)
    values = {value for value in fmt.values().tolist() if math.isfinite(value)}
    normal = fmt.smallest_normal if fmt.kind == "float" else None
    return Row(fmt.name, fmt.bits, tuple(sorted(values)), normal, ("NaN", "no infinity"))


TABLE = Row("table", 3, (-1.0, -0.7, -0.2, 0.1, 0.25, 0.3, 1.0), None, ("no zero",))
"""A format whose values follow no rule, and which has no zero."""
ROWS = [row(name) for name in ("e4m3", "e2m1", "e2m3", "e4m0fn", "int4")] + [TABLE]
WINDOWS = (None, (0.25, 1.75), (-3.0, 1.0))


def drawing(*rows: Row, scale: Scale = "linear", window: tuple[float, float] | None = None) -> str:
    """Return the SVG of `rows`."""
    return draw(rows, scale, window, "svg").decode()


def ticks(svg: str, group: str) -> list[tuple[float, float]]:
    """Return (place, height) of the ticks of one group, in points."""
    if f'id="{group}"' not in svg:
        return []
    content = svg[svg.index(f'id="{group}"') :].split("</g>", 1)[0]
    found = re.findall(r'd="M (\S+) (\S+) \nL (\S+) (\S+) \n"', content)
    assert all(x == x_top for x, _, x_top, _ in found)
    return [(float(x), float(y) - float(top)) for x, y, _, top in found]


def texts(svg: str) -> list[str]:
    """Return what stands written in a drawing."""
    return re.findall(r"<text[^>]*>([^<]*)</text>", svg)


# --- Ticks -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("window", WINDOWS)
@pytest.mark.parametrize("scale", ["linear", "log"])
@pytest.mark.parametrize("a_row", ROWS, ids=lambda a_row: a_row.name)
def test_a_tick_stands_where_its_value_is(a_row: Row, scale: Scale, window: tuple[float, float] | None) -> None:
    """One tick a value in the window, at its share of the way from one end of the axis to the other."""
    if scale == "log" and window:
        window = (abs(window[0]), window[1] + 3)
    svg = drawing(a_row, scale=scale, window=window)
    found = [x for kind in ("normal", "subnormal", "value", "zero") for x, _ in ticks(svg, f"row1.{kind}")]
    axis = re.search(r'id="patch_2">\s*<path d="M (\S+) \S+ \nL (\S+) ', svg)
    assert axis
    left, right = map(float, axis.groups())
    place = math.log2 if scale == "log" else float
    low, high = map(place, window or ends([a_row], scale))
    values = [place(v) for v in a_row.values if (scale == "linear" or v > 0) and low <= place(v) <= high]
    expected = [left + (right - left) * (value - low) / (high - low) for value in values]
    assert sorted(found) == pytest.approx(expected, abs=2e-6)


def test_kinds_of_ticks() -> None:
    """Subnormal, normal, zero and ruleless values are told apart; every binade starts with a long tick."""
    svg = drawing(row("e2m3"), TABLE)
    counts = {kind: len(ticks(svg, f"row1.{kind}")) for kind in ("normal", "subnormal", "zero", "value")}
    assert counts == {"normal": 48, "subnormal": 14, "zero": 1, "value": 0}
    assert len(ticks(svg, "row2.value")) == len(TABLE.values)
    assert not ticks(svg, "row2.normal") + ticks(svg, "row2.zero")
    by_height: dict[float, int] = {}
    for _, height in ticks(svg, "row1.normal"):
        by_height[height] = by_height.get(height, 0) + 1
    longest, shorter = sorted(by_height, reverse=True)
    assert (by_height[longest], by_height[shorter]) == (6, 42)  # ±1, ±2, ±4
    assert shorter > max(height for _, height in ticks(svg, "row1.subnormal"))
    assert {"normal", "power of two", "subnormal", "zero", "value"} <= set(texts(svg))
    assert not {"normal", "subnormal", "zero"} & set(texts(drawing(TABLE)))


def test_one_axis_for_all_rows() -> None:
    """The same value stands at the same place in every row."""
    svg = drawing(row("e2m1"), row("e3m2"), row("int4"))
    ones = [ticks(svg, group) for group in ("row1.normal", "row2.normal", "row3.value")]
    common = set.intersection(*({round(x, 4) for x, _ in group} for group in ones))
    assert len(common) == 2 * len([1, 2, 3, 4, 6])


@given(st.lists(st.floats(-1e3, 1e3), min_size=2, max_size=20, unique=True), st.data())
def test_shown_is_what_lies_in_the_window(values: list[float], data: st.DataObject) -> None:
    """Both ends of the window belong to it; a log axis has no place for zero and negative values."""
    a_row = Row("drawn", 8, tuple(sorted(values)), None, ())
    low, high = sorted(data.draw(st.lists(st.sampled_from(values), min_size=2, max_size=2, unique=True)))
    assert shown(a_row, "linear", (low, high)) == [v for v in sorted(values) if low <= v <= high]
    assert shown(a_row, "linear", None) == sorted(values)
    assert shown(a_row, "log", None) == [v for v in sorted(values) if v > 0]


def test_ends() -> None:
    """The axis reaches from the smallest to the largest value of all rows, and has a length where that is one value."""
    assert ends([row("e2m1"), row("int4")], "linear") == (-8, 7)
    assert ends([row("e2m1"), row("int4")], "log") == (0.5, 7)
    assert ends([row("int2")], "log") == (0.5, 2)


# --- Text ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.0, "0"), (448.0, "448"), (-57344.0, "−57344"), (-0.5, "−0.5"), (0.0625, "0.0625"), (0.015625, "2⁻⁶"),
        (-(2.0**-9), "−2⁻⁹"), (2.0**127, "2¹²⁷"), (0.46875, "0.46875"), (1e-5, "≈1×10⁻⁵"), (0.1 + 0.2, "≈0.3"),
        (3.3895313892515355e38, "≈3.39×10³⁸"), (-0.6961928009986877, "≈−0.696"), (5e-324, "2⁻¹⁰⁷⁴"),
    ],
)  # fmt: skip
def test_labels(value: float, text: str) -> None:
    """A label is exact, or says that it is not."""
    assert label(value) == text


@pytest.mark.parametrize(
    ("name", "scale", "window", "expected"),
    [
        ("e4m3", "linear", None, "8 bits · 253 finite values · subnormal from 2⁻⁹ · normal from 2⁻⁶ · NaN · no infinity"),
        ("e4m0fn", "linear", None, "5 bits · 29 finite values · normal from 2⁻⁶ · NaN · no infinity"),
        ("int4", "linear", (2.0, 4.5), "4 bits · 3 of 16 finite values shown · NaN · no infinity"),
        ("int4", "log", None,
         "4 bits · 7 of 16 finite values shown · NaN · no infinity · not on a logarithmic axis: 0 and 8 negative"),
        ("e5m2", "log", (2.0, 4.0),
         ("8 bits · 5 of 247 finite values shown · subnormal from 2⁻¹⁶ · normal from 2⁻¹⁴ · NaN · no infinity · "
          "not on a logarithmic axis: 0 and 123 negative")),
    ],
)  # fmt: skip
def test_notes(name: str, scale: Scale, window: tuple[float, float] | None, expected: str) -> None:
    """A row says how many values there are, where they change, which special ones, and what is left out."""
    lines = numberline._note(row(name), scale, window)
    assert " ".join(lines) == expected
    assert all(line in texts(drawing(row(name), scale=scale, window=window)) for line in lines)


def test_the_ends_are_labelled() -> None:
    """The largest and the smallest value stand beside the row, unless they lie outside the window."""
    assert {"−448", "448"} <= set(texts(drawing(row("e4m3"))))
    assert {"2⁻⁹", "448"} <= set(texts(drawing(row("e4m3"), scale="log")))
    assert not {"−448", "448"} & set(texts(drawing(row("e4m3"), window=(-440, 440))))
    assert {"448"} == {"−448", "448"} & set(texts(drawing(row("e4m3"), window=(0, 460))))
    assert texts(drawing(row("int2"), scale="log")).count("1") == 1
    assert texts(drawing(dataclasses.replace(TABLE, values=(0.0, 0.375)))).count("0") == 2  # its mark, and the axis's
    beyond = texts(drawing(row("e2m1"), row("int8"), window=(7, 9)))
    assert not {"−6", "6", "−128", "127"} & set(beyond)


def test_text_is_text() -> None:
    """A name may hold what XML and TeX read as markup."""
    odd = dataclasses.replace(TABLE, name="<a> & $b$")
    assert "&lt;a&gt; &amp; $b$" in texts(drawing(odd))


def numbers(labels: Sequence[str]) -> list[float]:
    """Read labels of an axis back."""
    plain = str.maketrans("⁻⁰¹²³⁴⁵⁶⁷⁸⁹−", "-0123456789-")
    found = (text.translate(plain).partition("×10") for text in labels)
    return [float(f"{mantissa}e{exponent or 0}") for mantissa, _, exponent in found]


WIDE = st.floats(min_value=-1e299, max_value=1e299)


@given(st.tuples(WIDE, WIDE).map(sorted).filter(lambda w: w[1] - w[0] > max(1e-280, 1e-9 * max(map(abs, w)))))
@example([1.0, 1.0 + 2e-9])
@example([-1e-9, 3.0])
@example([-32768.0, 32767.0])
@example([1.1, 1.9])
def test_ticks_of_a_linear_axis(window: list[float]) -> None:
    """A linear axis of any ends has 3 to 11 ticks on it, whose labels differ and read back as what they stand for."""
    low, high = window
    found = numberline._ticks(low, high, "linear")
    assert 3 <= len(found) <= 11
    assert all(low <= tick <= high for tick in found)
    assert all(before < after for before, after in pairwise(numbers(list(found.values()))))
    assert numbers(list(found.values())) == pytest.approx(list(found), abs=(high - low) / 100)


@given(st.tuples(st.floats(5e-324, 1.7e308), st.floats(5e-324, 1.7e308)).map(sorted).filter(lambda w: w[1] > 4 * w[0]))
@example([5e-324, 1.7e308])
@example([1.0, 2.0])
@example([0.75, 2.5])
def test_ticks_of_a_log_axis(window: list[float]) -> None:
    """A log axis has ticks at 2 to 13 powers of two; one with fewer on it has decimals."""
    low, high = window
    found = numberline._ticks(low, high, "log")
    assert 2 <= len(found) <= 13
    assert all(low <= tick <= high for tick in found)
    assert len(set(found.values())) == len(found)


def test_ticks_within_a_binade() -> None:
    """A log axis without two powers of two on it has round decimals instead."""
    assert list(numberline._ticks(1.1, 1.9, "log").values()) == [f"{n / 10:g}" for n in range(11, 20)]


# --- Bytes -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("form", numberline.FORMS)
def test_same_rows_same_bytes(form: str) -> None:
    """Drawn twice, with another drawing and other settings in between, it is the same file, without a date."""
    import matplotlib as mpl

    first = draw(ROWS, "linear", None, form)
    with mpl.rc_context({"text.usetex": True, "savefig.bbox": "tight", "svg.hashsalt": "mine", "font.size": 30}):
        draw([TABLE], "log", None, form)
        assert draw(ROWS, "linear", None, form) == first
        assert mpl.rcParams["svg.hashsalt"] == "mine"
    assert b"Date" not in first
    assert b"atplotlib v" not in first
