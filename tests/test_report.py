"""The report: same bytes, one file without requests, nothing misread, nothing half-written."""

from __future__ import annotations

import dataclasses
import io
import os
import re
import subprocess
import sys
from collections import Counter
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import pytest
from rich.console import Console

from qsim import report
from qsim.report import figures, text
from qsim.studies.result import Claim, Failure, Figure, Panel, Result, Series, Table
from qsim.verdicts import Outcome

NASTY = """<script>alert("1")</script> & 'it' | `code` $x$ *bold* [a](b)"""
ROOT = Path(report.__file__).parents[2]
"""Where qsim was imported from, for subprocesses: a wheel or the checkout."""
BATCHES = (1.0, 4.0, 16.0, 64.0, 256.0, 1024.0)


def series(group: str, label: str = "", kind: str = "measured", *, scale: float = 1.0) -> Series:
    """Return a curve that falls as 1/batch, with bars if measured."""
    y = tuple(scale / x for x in BATCHES)
    bars = {"low": tuple(0.8 * v for v in y), "high": tuple(1.2 * v for v in y)} if kind == "measured" else {}
    return Series(label=label or group, group=group, kind=kind, x=BATCHES, y=y, **bars)


def panel(*curves: Series, title: str = "MLP", yscale: str = "log10") -> Panel:
    """Return a panel over batches."""
    return Panel(title=title, xlabel="batch", ylabel="variance", xscale="log2", yscale=yscale, series=curves)


def figure(name: str, *panels: Panel, title: str = "Variance", alt: str = "It falls.") -> Figure:
    """Return a figure of `panels`."""
    return Figure(id=name, title=title, caption="One line a format.", alt=alt, panels=panels)


def claim(name: str, **changes: object) -> Claim:
    """Return a claim that held as expected, but for `changes`."""
    given: dict[str, object] = {
        "id": name,
        "statement": f"Statement {name}.",
        "margin": "slope −1 ± 0.02",
        "theorem": "sr_unbiased",
        "expected": Outcome.HELD,
        "outcome": Outcome.HELD,
        "covered": "6 cells at 95 %",
        "evidence": "slope −1.003",
    }
    return Claim(**(given | changes))


@pytest.fixture
def result() -> Result:
    """Return a small result that holds one of everything."""
    both = (series("e4m3fn"), series("e4m3fn", kind="theory"), series("int8", scale=3.0))
    return Result(
        study="batch",
        title="Batch and bits",
        question="Does the variance fall?",
        answer="Yes.",
        lead="",
        run="full",
        command="qsim report batch",
        setup=(("Data", "digits, SHA-256 0f1e"), ("Scale", "pow2")),
        claims=(
            claim("slope", figure="variance", table="slopes"),
            claim("again", figure="variance", table="slopes", outcome=Outcome.NOT_DECIDED),
            claim("wrong", outcome=Outcome.REFUTED),
            claim("fault", fault=True, expected=Outcome.REFUTED, outcome=Outcome.REFUTED),
            claim("missed", fault=True, expected=Outcome.REFUTED),
        ),
        figures=(
            figure("variance", panel(*both), panel(*both, title="LLaMA")),
            figure("nasty", panel(series(NASTY), title=NASTY), title=NASTY, alt=NASTY),
        ),
        tables=(
            Table(
                id="slopes", title="Slopes", columns=("format", "slope", "cells"), rows=(("e4m3fn", -1.0031, 12345),)
            ),
            Table(id="nasty", title=NASTY, columns=(NASTY, "n"), rows=((NASTY, None), ("b", 1e-7)), note=NASTY),
        ),
        method=("Exact gradients in float64.",),
        cells=({"format": "e4m3fn", "batch": 1, "variance": 0.25},),
    )


class Page(HTMLParser):
    """Collect what a browser would act on."""

    def __init__(self, content: str) -> None:
        """Read `content`."""
        super().__init__()
        self.tags: Counter[str] = Counter()
        self.ids: list[str] = []
        self.links: list[str] = []
        self.labels: list[str] = []
        self.words = ""
        self.svg: list[list[str]] = []
        self.feed(content)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Note ids, links and the children of each SVG."""
        self.tags[tag] += 1
        found = {name: value or "" for name, value in attrs}
        self.ids += [found["id"]] if "id" in found else []
        self.links += [found[name] for name in ("src", "href", "xlink:href", "srcset", "action") if name in found]
        self.labels += found.get("aria-labelledby", "").split()
        if tag == "svg":
            self.svg.append([])
        elif self.svg and len(self.svg[-1]) < 2:
            self.svg[-1].append(tag)

    def handle_data(self, data: str) -> None:
        """Keep the words."""
        self.words += data


def html_of(result: Result) -> str:
    """Return the HTML page of `result`."""
    return report.render(result)["report.html"].decode()


def test_same_result_gives_same_bytes_under_hostile_surroundings(result: Result, tmp_path: Path) -> None:
    """Another hash seed, folder, date and matplotlibrc change no byte of any file."""
    (tmp_path / "matplotlibrc").write_text(
        "font.size: 31\nlines.linewidth: 9\naxes.facecolor: red\nsvg.fonttype: path\nsvg.hashsalt: pepper\n"
    )
    (tmp_path / "in.json").write_text(result.to_json(), encoding="utf-8")
    code = (
        "from pathlib import Path; from qsim import report; from qsim.studies.result import Result\n"
        "report.write(Result.from_json(Path('in.json').read_text(encoding='utf-8')), 'out')"
    )
    environment = os.environ | {"PYTHONHASHSEED": "4711", "PYTHONPATH": str(ROOT), "SOURCE_DATE_EPOCH": "1"}
    environment |= {"MATPLOTLIBRC": str(tmp_path / "matplotlibrc")}
    subprocess.run([sys.executable, "-c", code], cwd=tmp_path, env=environment, check=True, timeout=120)
    for name, content in report.render(result).items():
        assert (tmp_path / "out" / name).read_bytes() == content, name


def test_render_leaves_matplotlibs_settings_alone(result: Result) -> None:
    """Drawing a report does not change how the user's own figures look."""
    import matplotlib as mpl

    before = dict(mpl.rcParams)
    with mpl.rc_context({"font.size": 3}):
        report.render(result)
        assert mpl.rcParams["font.size"] == 3
    assert dict(mpl.rcParams) == before


def test_bytes_hold_no_version_and_no_date(result: Result) -> None:
    """A report does not change because a library or a day did."""
    import matplotlib as mpl

    for name, content in report.render(result).items():
        assert mpl.__version__.encode() not in content, name
        assert b"atplotlib" not in content, name
        assert not re.search(rb"\b20\d\d-\d\d-\d\d\b", content), name


def test_result_json_gives_the_result_back(result: Result) -> None:
    """The result.json beside a report renders to the same report."""
    files = report.render(result)
    back = Result.from_json(files["result.json"].decode())
    assert back == result
    assert report.render(back) == files


def test_page_makes_no_request(result: Result) -> None:
    """Everything the page links to is in the page."""
    page = Page(html_of(result))
    for link in page.links:
        assert link.startswith("data:") or (link.startswith("#") and link[1:] in page.ids), link
    assert not page.tags.keys() & {"img", "iframe", "object", "embed", "base", "form"}
    assert "@import" not in html_of(result)
    assert set(re.findall(r"url\(([^)]*)\)", html_of(result))) <= {f"#{name}" for name in page.ids}


def test_ids_are_unique_and_every_figure_is_named_for_a_screen_reader(result: Result) -> None:
    """Each panel is inline once, opens with title and desc, and no two elements share an id."""
    page = Page(html_of(result))
    panels = sum(len(figure.panels) for figure in result.figures)
    assert [name for name, times in Counter(page.ids).items() if times > 1] == []
    assert page.svg == [["title", "desc"]] * panels
    assert len(page.labels) == 2 * panels
    assert set(page.labels) <= set(page.ids)


def test_nasty_words_stay_words_in_html(result: Result) -> None:
    """Markup in any text of the result is shown, not obeyed."""
    texts = {
        field.name: NASTY
        for field in dataclasses.fields(Result)
        if field.type == "str" and field.name not in ("lead", "main")
    }
    bad = claim("bad", statement=NASTY, margin=NASTY, theorem=NASTY, covered=NASTY, evidence=NASTY)
    page = Page(html_of(dataclasses.replace(result, **texts, setup=((NASTY, NASTY),), method=(NASTY,), claims=(bad,))))
    assert page.tags["script"] == 1
    assert page.words.count(NASTY) >= 15


def test_the_leading_figure_stands_beside_the_answer(result: Result) -> None:
    """A result that names a leading figure shows it first, once, before the verdicts, as Figure 1."""
    leading = dataclasses.replace(result, lead="nasty")
    page = html_of(leading)
    assert page.index('id="figure-nasty"') < page.index('id="figure-variance"')
    assert page.count('id="figure-nasty"') == 1
    assert "Figure 1. &lt;script" in page
    markdown = report.render(leading)["report.md"].decode()
    assert markdown.index("figures/nasty.svg") < markdown.index("figures/variance.svg")
    with pytest.raises(ValueError, match="the answer names the figure 'none'"):
        report.render(dataclasses.replace(result, lead="none"))


def test_nasty_words_stay_words_in_markdown(result: Result) -> None:
    """Pipes, backticks and tags do not break a table of Markdown, nor open anything."""
    page = report.render(dataclasses.replace(result, answer=NASTY))["report.md"].decode()
    rows = [line for line in page.splitlines() if line.startswith("|") and "script" in line]
    assert len(rows) == 2
    for row in rows:
        assert len(re.findall(r"(?<!\\)\|", row)) == 3
    assert not re.search(r"(?<!\\)<script", page)
    assert r"\<script\>alert(\"1\")\</script\> \& 'it' \| \`code\` \$x\$ \*bold\* \[a\](b)".replace('\\"', '"') in page


@pytest.mark.parametrize(
    "words", ["1. one", "- dash", "+ plus", "---", "# head", "> quote", "2) two", "__init__", "~~x~~"]
)
def test_words_that_open_like_markdown_are_escaped(result: Result, words: str) -> None:
    """A paragraph never turns into a list, a heading, a rule or emphasis."""
    page = report.render(dataclasses.replace(result, method=(words,)))["report.md"].decode()
    assert words not in page.splitlines()
    assert words in page.replace("\\", "")


def test_svg_is_well_formed_and_its_text_is_text(result: Result) -> None:
    """A figure file parses as XML, names its title, and its labels can be searched."""
    for item in result.figures:
        root = ET.fromstring(report.render(result)[f"figures/{item.id}.svg"])  # noqa: S314 (our own)
        words = [element.text for element in root.iter("{http://www.w3.org/2000/svg}text")]
        assert root[0].text == item.title
        assert root[1].text == item.alt
        assert "batch" in words
        assert {"1", "4", "16", "64", "256", "1024"} <= set(words)


def test_a_group_keeps_its_colour_and_a_role_its_mark_across_figures(result: Result) -> None:
    """What blue means in one figure it means in all, in order of first appearance, and so does a diamond."""
    looks = figures.styles(result.figures)
    assert list(looks.colours) == ["", "e4m3fn", "int8", NASTY]
    alone = figures.svg(figure("alone", panel(series("int8"))), looks)
    assert f'class="m {looks.colours["int8"]}"' in alone
    assert f'class="m {looks.colours["e4m3fn"]}"' not in alone
    modes = [dataclasses.replace(series("int8"), role=role) for role in ("SR", "RNE")]
    looks = figures.styles([figure("both", panel(*modes))])
    assert looks.marks == {"SR": "ring", "RNE": "diamond"}
    assert "<circle" not in figures.svg(figure("nearest", panel(modes[1])), looks)
    assert len(set(figures.styles([figure("ten", panel(*(series(str(i)) for i in range(10))))]).colours.values())) == 11


def test_theory_is_a_line_and_measurement_a_hollow_mark(result: Result) -> None:
    """A curve of theory has no marks, one that was measured no line, so that both are seen where they coincide."""
    looks = figures.styles([figure("f", panel(series("a"), series("a", kind="theory")))])
    theory = figures.inline(figure("f", panel(series("a", kind="theory"))), looks)[0]
    measured = figures.inline(figure("f", panel(series("a"))), looks)[0]
    assert (theory.count('class="m c0"'), theory.count('class="l c0"')) == (0, 1)
    assert (measured.count('class="m c0"'), measured.count('class="l c0"')) == (len(BATCHES), 0)


def test_a_curve_about_no_format_is_dashed() -> None:
    """The noise of sampling, which is of no group, is told from theory by its dashes, also where it is alone."""
    alone = figure("f", panel(dataclasses.replace(series("", "sampling", "theory"), role="sampling")))
    assert figures.dashes(alone) == {"sampling": figures.DASHES[1]}
    both = figure(
        "f", panel(series("", "sampling", "theory"), dataclasses.replace(series("a", kind="theory"), role="A-T1"))
    )
    assert figures.dashes(both) == {"A-T1": "none", "theory": figures.DASHES[1]}


def test_every_mark_tells_its_number(result: Result) -> None:
    """A pointer over a mark is told what it is, where it stands, its value and its interval."""
    drawn = figures.svg(figure("told", panel(series("int8"))), figures.styles([figure("f", panel(series("int8")))]))
    assert "<title>int8, measured, batch = 4: variance 0.25 [0.2, 0.3]</title>" in drawn


def bars(drawn: str) -> list[tuple[float, float]]:
    """Return where the bars of the intervals of a drawing begin and end, down."""
    found = re.findall(r'<path d="M[\d.]+ ([\d.]+)L[\d.]+ ([\d.]+)" class="i c0"/>', drawn)
    return [(float(a), float(b)) for a, b in found]


@pytest.mark.parametrize("low", [-1.0, 0.0, 1e-9])
def test_an_interval_that_leaves_the_axes_ends_in_an_arrow(low: float) -> None:
    """No bar crosses a panel: one whose lower end the log axis cannot show is short and has an arrow."""
    curve = Series(
        label="v", group="v", kind="measured", x=(1.0, 2.0, 4.0), y=(1.0, 1e-3, 1.0), low=(low, 9e-4, 0.9),
        high=(1.1, 1.1e-3, 1.1),
    )  # fmt: skip
    drawn = figures.inline(figure("f", panel(curve)), figures.styles([figure("f", panel(curve))]))[0]
    assert drawn.count("rotate(90)") == 1
    assert [abs(a - b) < 30 for a, b in bars(drawn)] == [True] * 3


def test_an_estimate_that_reaches_zero_is_shown_by_its_upper_end() -> None:
    """Where a log axis cannot show an estimate it shows what the interval excludes, with an arrow below."""
    curve = Series(label="v", group="v", kind="measured", x=(1.0, 2.0), y=(-0.1, 1.0), low=(-1.0, 0.9), high=(0.5, 1.1))
    drawn = figures.inline(figure("f", panel(curve)), figures.styles([figure("f", panel(curve))]))[0]
    assert (drawn.count("<circle"), drawn.count("rotate(90)")) == (2, 1)  # one circle is the legend's
    assert "not shown" not in drawn


def test_points_a_log_scale_cannot_show_are_counted(result: Result) -> None:
    """A zero on a log axis is said, not dropped silently; a panel without points is not drawn, nor its legend."""
    curve = Series(label="v", group="v", kind="measured", x=(1.0, 2.0), y=(0.0, 1.0), low=(-1.0, -1.0), high=(0.0, 2.0))
    zero = figure("zero", panel(curve), panel(title="Nothing here"))
    drawn = figures.svg(zero, figures.styles([zero]))
    assert "1 point at or below 0 not shown" in drawn
    assert "Nothing here" not in drawn
    assert len(figures.inline(zero, figures.styles([zero]))) == 1


def test_panels_with_the_same_axis_share_its_limits() -> None:
    """Panels side by side can be compared by eye: one variance scale for all of them."""
    small, large = panel(series("a")), panel(series("a", scale=1e6))
    shared = figure("shared", small, large)
    drawn = figures.svg(shared, figures.styles([shared]))
    assert drawn.count(">10⁴<") == 2


@pytest.mark.parametrize(
    ("low", "high", "scale", "labels"),
    [
        (1.0, 1024.0, "log2", ["1", "4", "16", "64", "256", "1024"]),
        (2.0**-20, 2.0**-4, "log2", ["2⁻²⁰", "2⁻¹⁶", "2⁻¹²", "2⁻⁸", "2⁻⁴"]),
        (1.1, 1.2, "log2", ["1", "2"]),
        (3e-7, 2e-3, "log10", ["10⁻⁶", "10⁻⁵", "10⁻⁴", "10⁻³"]),
        (0.03, 0.4, "log10", ["0.05", "0.1", "0.2"]),
        (3.0, 3.0, "log10", ["2", "5"]),
        (-0.011, 0.011, "linear", ["−0.01", "−0.005", "0", "0.005", "0.01"]),
    ],
)
def test_ticks_are_round_numbers(low: float, high: float, scale: str, labels: list[str]) -> None:
    """An axis shows at least two round numbers, powers where plain digits would be long."""
    axis = figures._axis([low, high], scale)
    assert list(axis.labels) == labels
    assert axis.low < low <= high < axis.high


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (None, "–"), ("as is", "as is"), (0.0, "0"), (-0.0, "0"), (0.5, "0.5"), (-1.00314159, "−1.003"),
        (1e-7, "1×10⁻⁷"),
        (123456.0, "1.235×10⁵"), (9999, "9999"), (-65536, "−65,536"), (2**32, "4,294,967,296"), (448.0, "448"),
    ],
)  # fmt: skip
def test_numbers_are_shown_for_reading(value: str | float | None, shown: str) -> None:
    """Floats have four significant digits, integers all of theirs, and nothing is an en dash."""
    assert text.number(value) == shown


def test_a_column_has_one_form() -> None:
    """Settings stay short, measurements keep their zeros, and one power of ten brings all."""
    assert text.column([0.5, 2.0, None]) == ["0.5", "2", "–"]
    assert text.column([1.0, 0.12345]) == ["1.000", "0.1235"]
    assert text.column([0.12346, 0.0, 1.2346e-7]) == ["1.235×10⁻¹", "0", "1.235×10⁻⁷"]
    assert text.column([7, 70_000]) == ["7", "70,000"]


def test_an_unexpected_outcome_is_marked(result: Result) -> None:
    """A reader of any rendering sees which outcome was not the expected one, in words."""
    console = Console(file=io.StringIO(), width=100)
    console.print(report.summary(result))
    shown = console.file.getvalue()
    assert "Statement wrong. — not as expected" in shown
    assert "Statement missed. — missed" in shown
    assert "Statement slope.\n" in re.sub(" +\n", "\n", shown)
    assert "3 claims: 1 as expected, 1 open, 1 not as expected. 2 planted faults: 1 caught, 1 missed." in shown
    files = report.render(result)
    assert "✗ refuted | **not as expected** |" in files["report.md"].decode()
    assert "✓ held | **missed** |" in files["report.md"].decode()
    assert files["report.html"].decode().count('class="nowrap bad"') == 2


def test_summary_is_plain_where_there_is_no_terminal(result: Result) -> None:
    """Piped output holds no escape codes, and square brackets in a statement are kept."""
    console = Console(file=io.StringIO(), width=80)
    console.print(report.summary(dataclasses.replace(result, answer="[bold]no[/bold] markup")))
    assert "\x1b" not in console.file.getvalue()
    assert "[bold]no[/bold] markup" in console.file.getvalue()


def test_planted_faults_stand_apart(result: Result) -> None:
    """Faults come after the claims, under a heading that says what is good there."""
    for name in "report.html", "report.md":
        page = report.render(result)[name].decode()
        assert page.index("Statement wrong") < page.index(text.FAULTS) < page.index("Statement fault")


def test_a_quick_run_says_so_everywhere(result: Result) -> None:
    """Nobody can take a quick run for the study."""
    quick = dataclasses.replace(result, run="quick")
    console = Console(file=io.StringIO(), width=400)
    console.print(report.summary(quick))
    assert text.QUICK in console.file.getvalue()
    for name in "report.html", "report.md":
        assert text.QUICK in report.render(quick)[name].decode()
        assert text.QUICK not in report.render(result)[name].decode()


def test_cells_are_a_table_for_other_programs(result: Result) -> None:
    """cells.csv has a column for each name and a row for each record, and its numbers read back to the last bit."""
    import csv

    cells = ({"format": "e4m3fn", "x.y": 0.1 + 0.2}, {"format": 'a "b", c', "z": None, "x.y": 2**60})
    content = report.render(dataclasses.replace(result, cells=cells))["cells.csv"].decode()
    head, *rows = csv.reader(io.StringIO(content, newline=""))
    assert head == ["format", "x.y", "z"]
    assert rows == [["e4m3fn", "0.30000000000000004", ""], ['a "b", c', str(2**60), ""]]
    assert float(rows[0][1]) == 0.1 + 0.2


@pytest.mark.parametrize("text", ["=1+1", "+1", "-1+1", "@SUM(A1)", "\t=1", "\r=1", "=1,2", '="a"', "=", "-f.toml#x"])
def test_a_table_holds_no_formula(result, text):
    """A text that a spreadsheet would compute has an apostrophe before it, as an entry and as a name; no number has."""
    import csv

    cells = ({"arm": text, text: 1, "x.value": -0.5, "y": "a" + text, "z": -3, "n": None},)
    content = report.render(dataclasses.replace(result, cells=cells))["cells.csv"].decode()
    head, row = csv.reader(io.StringIO(content, newline=""))
    assert head == ["arm", f"'{text}", "x.value", "y", "z", "n"]
    assert row == [f"'{text}", "1", "-0.5", "a" + text, "-3", ""]


def test_failed_cells_are_named_on_every_page(result: Result) -> None:
    """A cell that raised is on the pages and in the summary with its parameters, its error and its traceback file."""
    failure = Failure(
        label=NASTY, parameters={"batch": 3, "what": NASTY}, error=f"ValueError: {NASTY}", trace="failures/1.txt"
    )
    failed = dataclasses.replace(result, failures=(failure,) * 12)
    console = Console(file=io.StringIO(), width=1000)
    console.print(report.summary(failed))
    for shown in (console.file.getvalue(), Page(html_of(failed)).words):
        assert "12 cells failed, and the numbers are of the other 1 alone." in shown
        assert f"ValueError: {NASTY}" in shown
        assert "failures/1.txt" in shown
    assert "and 2 more, in the report" in console.file.getvalue()
    assert "batch = 3" in html_of(failed)
    assert r"**12 cells failed, and" in report.render(failed)["report.md"].decode()
    assert Page(html_of(failed)).tags["script"] == 1
    assert Result.from_json(failed.to_json()) == failed


def test_an_empty_result_renders(result: Result) -> None:
    """A study without claims, figures, tables and cells still gives a page."""
    empty = dataclasses.replace(result, claims=(), figures=(), tables=(), cells=(), method=(), setup=())
    assert list(report.render(empty)) == ["report.md", "report.html", "cells.csv", "result.json"]
    assert "Verdicts" not in html_of(empty)
    assert "Verdicts" not in report.render(empty)["report.md"].decode()


def test_write_publishes_what_render_gives(result: Result, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The folder holds the files of `render`, no leftovers, and a second write replaces them, in order, once all are there."""
    report.write(result, tmp_path / "deep" / "er")
    method, waiting, placed = Path.replace, [], []

    def replace(part: Path, target: Path) -> Path:
        waiting.append(sorted(path.stat().st_size for path in tmp_path.rglob("*.part")))
        placed.append(target)
        return method(part, target)

    monkeypatch.setattr(Path, "replace", replace)
    paths = report.write(result, tmp_path / "deep" / "er")
    files = report.render(result)
    assert list(paths) == list(files)
    assert list(files)[-1] == "result.json"
    assert placed == list(paths.values())
    assert waiting[0] == sorted(map(len, files.values()))
    found = {path for path in (tmp_path / "deep" / "er").rglob("*") if path.is_file()}
    assert found == set(paths.values())
    assert all(path.read_bytes() == files[name] for name, path in paths.items())


def test_write_leaves_nothing_half_written(result: Result, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """If the disk fills up on the last file, the folder keeps the old report and no fragment of the new one."""
    report.write(result, tmp_path)
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    method, opened = Path.open, []

    def full(path: Path, *arguments: Any, **options: Any) -> Any:
        opened.append(path)
        if len(opened) < len(before):
            return method(path, *arguments, **options)
        path.touch()
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "open", full)
    with pytest.raises(OSError, match="No space left"):
        report.write(dataclasses.replace(result, title="Another"), tmp_path)
    monkeypatch.undo()
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before


def test_write_refuses_a_folder_that_is_a_file(result: Result, tmp_path: Path) -> None:
    """The caller gets an OSError to report, and the file is left as it was."""
    (tmp_path / "file").write_text("mine")
    with pytest.raises(OSError, match="file"):
        report.write(result, tmp_path / "file")
    assert (tmp_path / "file").read_text() == "mine"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"figures": (figure("../up", panel()),)}, "figure id '../up'"),
        ({"figures": (figure("a", panel()), figure("A", panel()))}, "used 2 times"),
        ({"claims": (claim("c", figure="none"),)}, "claim 'c' names the figure 'none'"),
    ],
)
def test_ids_that_cannot_be_files_or_name_nothing_are_refused(
    result: Result, changes: dict[str, object], message: str
) -> None:
    """A report never writes outside its folder and never links to nothing."""
    with pytest.raises(ValueError, match=re.escape(message)):
        report.render(dataclasses.replace(result, **({"claims": ()} | changes)))


def test_importing_the_report_is_light() -> None:
    """Who only loads the floor pays for neither matplotlib, jinja2 nor rich."""
    code = "import sys, qsim.report; print(*({'matplotlib', 'jinja2', 'rich'} & sys.modules.keys()))"
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, check=True, timeout=60, capture_output=True, text=True
    )
    assert done.stdout.split() == []


# --- The table beside the answer, words and theorems, the foot ---------------------------------------------------------

MAIN = Table(
    id="main", title="Noise and bias", columns=("format", "noise", "bias"),
    rows=(("e4m3", "3.9 ± 0.1", "≤ 0.02"), ("int4", "22 ± 1", "12.5 ± 0.8"), ("bf16", "4.2×10⁻³ ± 0.1×10⁻³", None)),
    note="In units of |g|; see A-T1.",
)  # fmt: skip


def test_the_main_table_stands_open_beside_the_answer(result: Result) -> None:
    """A result that names a main table shows it first, unfolded, as Table 1, on both pages; its numbers can be sorted."""
    told = dataclasses.replace(result, main="main", tables=(*result.tables, MAIN))
    page = html_of(told)
    assert page.index("Table 1. Noise and bias") < page.index('id="verdicts"') < page.index("Table 2. Slopes")
    assert '<details id="table-main"' not in page
    for shown, key in ("3.9 ± 0.1", "3.9"), ("≤ 0.02", "0.02"), ("4.2×10⁻³ ± 0.1×10⁻³", "0.0042"), ("–", ""):
        assert f'<td class="number" data-key="{key}">{shown}</td>' in page
    markdown = report.render(told)["report.md"].decode()
    assert markdown.index("| e4m3 | 3.9 ± 0.1 |") < markdown.index("**Verdicts.**")
    with pytest.raises(ValueError, match="the answer names the table 'none'"):
        report.render(dataclasses.replace(result, main="none"))


@pytest.mark.parametrize(
    ("shown", "key"),
    [
        ("1.5 ± 0.1", 1.5), ("≤ 3", 3.0), ("−2 ± 1", -2.0), ("2.0×10⁻⁶ ± 0.1×10⁻⁶", 2e-6), ("1e-07", 1e-7), (4, 4),
        ("int4", None), ("4 bits", None), ("e4m3 to e4m2fn", None), (None, None), ("1 ± x", 1.0),
    ],
)  # fmt: skip
def test_numbers_in_words_are_sorted_by_their_value(shown: str | float | None, key: float | None) -> None:
    """A number with its error or as a bound is a number; a name that begins with a digit is none."""
    assert text.key(shown) == (pytest.approx(key) if key is not None else None)


def test_terms_are_linked_to_what_they_mean(result: Result) -> None:
    """Each term in the words of a page is a link to its meaning, whole words alone, and markup beside it stays words."""
    terms = (
        ("A-T1", "A theorem, <b>exact</b>."),
        ("A-T12", "Another."),
        ("|g|", "The norm of A-T1."),
        ("q'/b", "A ratio."),
    )
    claims = (claim("c", theorem="A-T1 & A-T12, in |g|, XA-T1", evidence=f"q'/b {NASTY}"),)
    content = html_of(dataclasses.replace(result, terms=terms, claims=claims, answer="By A-T1."))
    page = Page(content)
    targets = [link[1:] for link in page.links if link.startswith("#term-")]
    assert set(targets) <= set(page.ids)
    assert len(set(targets)) == 4
    assert "XA-T1" in page.words
    assert NASTY in page.words
    assert page.tags["script"] == 1
    assert page.tags["b"] == Page(html_of(result)).tags["b"]
    assert (
        r"A theorem, \<b\>exact\</b\>." in report.render(dataclasses.replace(result, terms=terms))["report.md"].decode()
    )


def test_a_claim_leads_to_its_verdict_and_back(result: Result) -> None:
    """A row of the verdicts links to its claim, and the claim to that row."""
    page = Page(html_of(result))
    for item in result.claims:
        for place in f"claim-{item.id}", f"verdict-{item.id}":
            assert place in page.ids
            assert f"#{place}" in page.links


def test_the_foot_says_what_made_the_page(result: Result) -> None:
    """A page that is mailed alone tells the version, the source and the data it was made with, and the study and run."""
    made = (("qsim", "9.8.7"), ("SHA-256 of the data (digits)", "0f1e" * 16))
    rendered = report.render(dataclasses.replace(result, made=made))
    foot = rendered["report.html"].decode().partition("<footer>")[2]
    for words in ("9.8.7", "0f1e" * 16, "full run", result.study):
        assert words in foot
    assert "9.8.7" in rendered["report.md"].decode()


def test_the_title_on_paper_is_no_rule_of_the_style_sheet(result: Result) -> None:
    """A title with quotes, braces and tags stands at the foot of a printed page as it is, and ends no string."""
    page = html_of(dataclasses.replace(result, title='a"; } </style> \\ β'))
    rule = page[page.index("@bottom-left") :].partition("@bottom-right")[0]
    assert rule.count('"') == 2
    escaped = rule.partition('"')[2].partition('"')[0]
    assert re.sub(r"\\([0-9a-f]{6})", lambda m: chr(int(m[1], 16)), escaped) == 'a"; } </style> \\ β'


def test_only_long_tables_are_cut_on_paper(result: Result) -> None:
    """A table of many rows says that paper has the first ten; a short one and the main one are whole."""
    rows = tuple((f"e4m{i}", float(i)) for i in range(30))
    long = Table(id="long", title="Long", columns=("format", "x"), rows=rows)
    page = html_of(dataclasses.replace(result, tables=(*result.tables, long)))
    assert page.count('<table class="sortable long">') == 1
    assert "The first 10 of 30 rows" in page
    assert "The first" not in html_of(dataclasses.replace(result, tables=(*result.tables, long), main="long"))


def test_the_summary_ends_its_lines_with_words(result: Result) -> None:
    """No line that goes into a pipe ends in blanks, however wide the terminal was thought to be."""
    console = Console(file=io.StringIO(), width=90)
    console.print(report.summary(dataclasses.replace(result, run="quick")))
    lines = console.file.getvalue().splitlines()
    assert [line for line in lines if line != line.rstrip()] == []
    assert "Claims" in lines


def test_sideways_panels_have_a_row_for_each_category() -> None:
    """Where categories stand at the side, values run across, and the theory of one is a line down."""
    names = ("e4m3", "e4m2fn", "int4")
    found = [
        Series(label=name, group=name, kind="measured", x=(float(i),), y=(1.0,), low=(0.9,), high=(1.1,))
        for i, name in enumerate(names)
    ]
    one = Series(label="1", group="", kind="theory", x=(-0.5, 2.5), y=(1.0, 1.0))
    forest = Panel(
        title="ratio", xlabel="", ylabel="measured / theory", xscale="linear", yscale="linear", series=(one, *found),
        categories=names, sideways=True,
    )  # fmt: skip
    drawn = figures.inline(figure("f", forest), figures.styles([figure("f", forest)]))[0]
    rings = re.findall(r'<circle cx="([\d.]+)" cy="([\d.]+)" r="3.4" class="m c\d"/>', drawn)
    assert len({x for x, _ in rings}) == 1
    assert [float(y) for _, y in rings] == sorted({float(y) for _, y in rings})
    ((x0, x1),) = re.findall(r'<path d="M([\d.]+) [\d.]+L([\d.]+) [\d.]+" class="l ink"', drawn)
    assert x0 == x1 == rings[0][0]
    assert all(f">{name}</text>" in drawn for name in names)
