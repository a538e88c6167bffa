"""`qsim plot`: what it writes and prints, and what it refuses."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import command
import pytest
from strategies import SMALL

from qsim.cli import main, plot
from qsim.formats import Format, get_format, table_format


def refused(capsys: pytest.CaptureFixture[str], *argv: str) -> str:
    """Run `qsim plot`, which must be refused, and return the one sentence on stderr."""
    return command.refused(capsys, "plot", *argv)


# --- What it writes --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "start"), [("a.svg", b"<?xml"), ("a.png", b"\x89PNG"), ("a.pdf", b"%PDF-"), ("A.SVG", b"<?xml")]
)
def test_a_picture(name: str, start: bytes, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The ending of the name says what is written; the path is printed, and nothing else is in the folder."""
    path = tmp_path / name
    path.write_text("an older picture")
    assert main(["plot", "e4m3", "int4", "-o", str(path)]) == 0
    assert capsys.readouterr() == (f"{path}\n", "")
    assert path.read_bytes().startswith(start)
    assert list(tmp_path.iterdir()) == [path]


def test_what_is_drawn(tmp_path: Path) -> None:
    """Each format is a row under its canonical name, whichever name it was asked for by."""
    path = tmp_path / "a.svg"
    assert main(["plot", "e4m3", "bf16", "int4", "--scale", "log", "--range", "1", "8", "-o", str(path)]) == 0
    svg = path.read_text(encoding="utf-8")
    for name in ("float8_e4m3fn", "bfloat16", "int4", "value, logarithmic axis"):
        assert f">{name}</text>" in svg
    assert "385 of 65,279 finite values shown" in svg


def test_as_json(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """As JSON it says which file, which axis, and of each format how many values."""
    path = tmp_path / "a.svg"
    assert main(["plot", "e4m3", "int4", "-o", str(path), "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {
        "file": str(path),
        "scale": "linear",
        "range": [-448.0, 448.0],
        "formats": [
            {"asked": "e4m3", "name": "float8_e4m3fn", "finite_values": 253, "shown": 253},
            {"asked": "int4", "name": "int4", "finite_values": 16, "shown": 16},
        ],
    }
    assert main(["plot", "int4", "--range", "-1e-3", "2.5", "--output", str(path), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["range"], found["formats"][0]["shown"]) == ([-0.001, 2.5], 3)


def test_the_same_bytes_in_another_process(tmp_path: Path) -> None:
    """Neither the user's settings of matplotlib, nor its backend, nor the order of sets changes the file."""
    (tmp_path / "matplotlibrc").write_text("font.size: 30\nsvg.fonttype: path\ntext.usetex: True\n")
    argv = ["plot", "e4m3", "e2m1", "--scale", "log", "-o"]
    assert main([*argv, str(tmp_path / "a.svg")]) == 0
    changed = {"MPLBACKEND": "module://no_such", "MATPLOTLIBRC": str(tmp_path), "PYTHONHASHSEED": "7"}
    done = command.process("-m", "qsim", *argv, str(tmp_path / "b.svg"), env=command.ENVIRONMENT | changed)
    assert (done.returncode, done.stderr) == (0, "")
    assert (tmp_path / "a.svg").read_bytes() == (tmp_path / "b.svg").read_bytes()


@pytest.mark.parametrize("fmt", {fmt.name: fmt for fmt in SMALL}.values(), ids=str)
def test_rows_hold_the_values(fmt: Format) -> None:
    """A row has every finite value once, ascending, and says what else the format has."""
    found = plot.row_of(fmt)
    finite = {value for value in fmt.values().tolist() if math.isfinite(value)}
    assert list(found.values) == sorted(finite)
    assert not any(value == 0 and math.copysign(1, value) < 0 for value in found.values)
    assert (found.values[0], found.values[-1]) == (fmt.min, fmt.max)
    assert ("NaN" in found.specials, "0 and −0" in found.specials) == (fmt.has_nan, fmt.has_neg_zero)
    assert any("∞" in special for special in found.specials) == fmt.has_inf
    assert ("no zero" in found.specials) == (0 not in finite)
    assert (found.smallest_normal is not None) == (fmt.kind == "float")


def test_a_format_without_binades(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A format that is a table, knows no normal numbers, lacks a zero and leaves codes unused is drawn like others."""
    table = table_format("table", [-1.0, 0.75, 0.3, -0.25, math.nan], "a test", codes=[0, 5, 3, 1, 6], zero_to="nan")
    found = plot.row_of(table)
    assert found.values == (-1.0, -0.25, 0.3, 0.75)
    assert (found.smallest_normal, found.specials) == (None, ("no zero", "no infinity", "NaN"))
    monkeypatch.setattr(plot, "get_format", lambda _: table)
    for scale in ("linear", "log"):
        assert main(["plot", "table", "--scale", scale, "-o", str(tmp_path / "a.svg")]) == 0


@pytest.mark.parametrize(
    ("name", "specials"),
    [
        ("Binary8p4ue", ("+∞", "NaN")), ("e8m0", ("no zero", "no infinity", "NaN")), ("int8sym", ("no infinity", "no NaN")),
        ("e5m2", ("0 and −0", "±∞", "NaN")), ("e4m3fnuz", ("no infinity", "NaN")), ("posit8", ("no infinity", "NaN")),
        ("Q3.4", ("no infinity", "no NaN")),
    ],
)  # fmt: skip
def test_specials(name: str, specials: tuple[str, ...]) -> None:
    """A row says which infinities, zeros and NaN the format has."""
    assert plot.row_of(get_format(name)).specials == specials


def test_every_kind_of_format(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Tables, fixed point, formats without a zero or with a gap, and those of a file stand on one axis."""
    (tmp_path / "mine.toml").write_text(
        '[[format]]\nname = "thirds"\nkind = "table"\nvalues = [-1.0, 0.0, 0.375]\nsource = "a test"\n',
        encoding="utf-8",
    )
    names = ["nf4", "posit8", "binary", "ternary", "e8m0", "cfloat8_1_4_3_half", "Q3.4", "UQ0.8", "Binary8p4ue",
             f"{tmp_path}/mine.toml#thirds", f"{tmp_path}/mine.toml"]  # fmt: skip
    assert main(["plot", *names, "-o", str(tmp_path / "a.svg"), "--json"]) == 0
    drawn = json.loads(capsys.readouterr().out)["formats"]
    assert [row["name"] for row in drawn] == [get_format(name).name for name in names]
    assert [row["finite_values"] for row in drawn] == [16, 255, 2, 3, 255, 255, 256, 256, 254, 3, 3]


def test_two_formats_of_one_name_are_told_apart(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A file's format that is called like another is drawn under the name that was typed for it."""
    own = f"{tmp_path}/mine.toml#e4m2"
    text = '[[format]]\nname = "e4m2"\nkind = "table"\nvalues = [0.0, 1.0]\nsource = "a test"\n'
    (tmp_path / "mine.toml").write_text(text, encoding="utf-8")
    assert main(["plot", "E4M2", own, "e4m2fn", own, "-o", str(tmp_path / "a.svg"), "--json"]) == 0
    drawn = json.loads(capsys.readouterr().out)["formats"]
    assert [row["name"] for row in drawn] == ["e4m2", own, "e4m2fn", own]


# --- What it refuses -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("argv", "fragment"),
    [
        (("e4m3",), "missing: -o/--output; `qsim plot --help`"),
        (("-o", "a.svg"), "missing: FORMAT"),
        (("e4m3", "-o", "a.txt"), "a.txt: the name of the picture must end in .svg, .png or .pdf"),
        (("e4m3", "-o", "picture"), "must end in .svg, .png or .pdf"),
        (("e4m4m", "-o", "a.svg"), "no format is called 'e4m4m'; did you mean"),
        (("bfloat16", "-o", "a.svg"),
         "65279 values in all, and at most 4096 of a format are drawn; narrow it with --range LO HI"),
        (("e4m3", "bf16", "--range", "-1", "1", "-o", "a.svg"), "bfloat16 has 32513 values from -1 to 1, and"),
        (("bf16", "--scale", "log", "-o", "a.svg"), "bfloat16 has 32639 values above 0, and"),
        (("float32", "--range", "1", "1.1", "-o", "a.svg"), "float32 has 2^32 values"),
        (("Binary16p1se", "-o", "a.svg"), "Binary16p1se reaches beyond the range of float64, in which a number line is"),
        (("e4m3b4000f", "-o", "a.svg"), "`qsim show e4m3b4000f` says how far"),
        (("gone.toml#mine", "-o", "a.svg"), "gone.toml: cannot be read (No such file"),
        (("e4m3", "--range", "2", "1", "-o", "a.svg"), "--range 2 1: give two finite numbers, the smaller one first"),
        (("e4m3", "--range", "2", "2", "-o", "a.svg"), "the smaller one first"),
        (("e4m3", "--range", "nan", "2", "-o", "a.svg"), "--range nan 2: give two finite numbers"),
        (("e4m3", "--range", "-inf", "2", "-o", "a.svg"), "--range -inf 2: give two finite numbers"),
        (("e4m3", "--range", "1", "-o", "a.svg"), "--range needs 2 values: --range LO HI"),
        (("e4m3", "--range", "1", "x", "-o", "a.svg"), "--range takes a number, not 'x'"),
        (("e4m3", "--range", "0", "2", "--scale", "log", "-o", "a.svg"), "no place for 0; start above 0"),
        (("e4m3", "--range", "-1e-3", "2", "--scale", "log", "-o", "a.svg"), "no place for -0.001; start above 0"),
        (("e4m3", "--range", "1", "1.0000000001", "-o", "a.svg"), "too narrow to draw"),
        (("e4m3", "e2m1", "--range", "500", "1e3", "-o", "a.svg"),
         "float8_e4m3fn or float4_e2m1fn holds no value from 500 to 1000; choose another --range LO HI"),
        (("e4m3", "--range", "1e-200", "2e-200", "-o", "a.svg"), "no value from 1e-200 to 2e-200"),
        (("e4m3", "--range", "-1e308", "1e308", "-o", "a.svg"), "an axis from -1e+308 to 1e+308 cannot be drawn"),
        (("e4m3", "--range", "0", "1e-300", "-o", "a.svg"), "cannot be drawn; choose another --range LO HI, or"),
        (("e4m3", "--range", "1e308", "1.2e308", "--scale", "log", "-o", "a.svg"), "to 1.2e+308 cannot be drawn"),
        (("e4m3", "--scale", "symlog", "-o", "a.svg"), "--scale is linear or log, not 'symlog'"),
        (("e4m3", "-x", "-o", "a.svg"), "qsim plot does not take '-x'"),
        (("e4m3",) * 33 + ("-o", "a.svg"), "33 formats are too many for one number line; give at most 32"),
        (("e4m3", "-o", "missing/a.svg"), "missing/a.svg: cannot be written (No such file or directory); name another"),
        (("e4m3", "-o", "folder.svg"), "folder.svg: cannot be written (Is a directory)"),
        (("e4m3", "-o", "file/a.svg"), "file/a.svg: cannot be written (Not a directory)"),
    ],
)  # fmt: skip
def test_bad_usage_is_refused(
    argv: tuple[str, ...], fragment: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    """What cannot be drawn, or written, ends with 2 and one sentence, and leaves nothing behind."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "folder.svg").mkdir()
    (tmp_path / "file").touch()
    assert fragment in refused(capsys, *argv)
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["file", "folder.svg"]


def test_the_limit_is_the_window_s(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """4096 values are drawn, one more is refused; both ends of the window belong to it."""
    path = str(tmp_path / "a.svg")
    assert main(["plot", "int16", "--range", "0", "4095", "-o", path]) == 0
    capsys.readouterr()
    assert "int16 has 4097 values" in refused(capsys, "int16", "--range", "0", "4096", "-o", path)


def test_one_format_may_be_empty_in_the_window(tmp_path: Path) -> None:
    """A format that ends below the window is part of the answer where another one is not."""
    path = tmp_path / "a.svg"
    assert main(["plot", "e2m1", "e3m2", "--range", "7", "30", "-o", str(path)]) == 0
    assert "0 of 15 finite values shown" in path.read_text(encoding="utf-8")


def test_a_link_stays_one(tmp_path: Path) -> None:
    """Where the name is a link, the picture goes where it leads."""
    (tmp_path / "there").mkdir()
    path = tmp_path / "a.svg"
    path.symlink_to(tmp_path / "there" / "b.svg")
    assert main(["plot", "int4", "-o", str(path)]) == 0
    assert path.is_symlink()
    assert [file.name for file in (tmp_path / "there").iterdir()] == ["b.svg"]


@pytest.mark.parametrize("failing", ["open", "replace"])
def test_whole_or_not_at_all(
    failing: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Where writing fails, the older picture stays as it was and nothing half-written lies beside it."""
    path = tmp_path / "a.svg"
    path.write_text("an older picture")
    method = getattr(Path, failing)

    def fail(part: Path, *arguments: Any, **options: Any) -> Any:
        if part.suffix != ".part":
            return method(part, *arguments, **options)
        part.touch()
        raise OSError(28, "No space left on device", str(part))

    monkeypatch.setattr(Path, failing, fail)
    assert "a.svg: cannot be written (No space left on device)" in refused(capsys, "e4m3", "-o", str(path))
    assert list(tmp_path.iterdir()) == [path]
    assert path.read_text() == "an older picture"


@pytest.mark.parametrize("argv", [["--help"], ["e4m3", "-o", "a.txt"], ["bf16", "-o", "a.svg"]], ids=" ".join)
def test_matplotlib_waits_until_something_is_drawn(argv: list[str], tmp_path: Path) -> None:
    """Help and refusals come without loading matplotlib."""
    program = (
        "import sys\nfrom qsim.cli import main\ntry:\n    main(['plot', *sys.argv[1:]])\nexcept SystemExit:\n    pass\n"
        "print('matplotlib' in sys.modules)"
    )
    done = command.process("-c", program, *argv, cwd=tmp_path)
    assert (done.returncode, done.stdout.splitlines()[-1]) == (0, "False"), done.stderr


def test_help(capsys: pytest.CaptureFixture[str]) -> None:
    """The command says what it does, takes --json, and is in the list of commands."""
    with pytest.raises(SystemExit) as caught:
        main(["plot", "--help"])
    assert caught.value.code == 0
    out = capsys.readouterr().out
    assert out.isascii()
    assert "--json" in out
    with pytest.raises(SystemExit):
        main(["--help"])
    assert "number line" in capsys.readouterr().out


def test_axes_as_long_as_floats_go(tmp_path: Path) -> None:
    """A log axis may reach from one end of float64 to the other."""
    path = str(tmp_path / "a.svg")
    assert main(["plot", "e4m3", "--scale", "log", "--range", "5e-324", "1.7e308", "-o", path]) == 0
    assert main(["plot", "e11m1", "--scale", "log", "-o", path]) == 0
