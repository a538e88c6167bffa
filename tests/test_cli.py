"""The command: what it prints, what it refuses, and what it must not load to do so."""

from __future__ import annotations

import json
import math
import os
import re
import subprocess
import sys
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from strategies import CATALOGUE, PARAMETRIC

import qsim
from qsim.cli import formats, main, show, text
from qsim.formats import Format, catalogue
from qsim.rounding import saturations

NARROW = [fmt for fmt in (*CATALOGUE, *PARAMETRIC[::5]) if fmt.bits <= 8]


def refused(capsys: pytest.CaptureFixture[str], *argv: str) -> str:
    """Run a command line that must be refused, and return the one sentence on stderr."""
    assert main(argv) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert re.fullmatch(r"qsim: [^\n]+\n", err), err
    return err


def printed(capsys: pytest.CaptureFixture[str], *argv: str) -> str:
    """Run a command line that must do, and return what it printed: ASCII, and no wider than a page."""
    assert main(argv) == 0
    out, err = capsys.readouterr()
    assert err == ""
    assert out.isascii()
    assert max(map(len, out.splitlines())) <= 100 or "--json" in argv
    return out


# --- qsim formats ----------------------------------------------------------------------------------------------------


def test_formats_lists_the_catalogue(capsys: pytest.CaptureFixture[str]) -> None:
    """Every named format has a line with its width, its largest value and its aliases."""
    lines = {line.split()[0]: line for line in printed(capsys, "formats").splitlines() if line}
    for fmt in CATALOGUE:
        cells = re.split(r"  +", lines[fmt.name])
        assert cells[1:3] == [fmt.kind, str(fmt.bits)]
        assert value_of(cells[4]) == Fraction(fmt.max)
        assert [value_of(cell) for cell in cells[5:8]] == [
            Fraction(value) for value in (fmt.smallest_normal, fmt.smallest_subnormal, fmt.eps)
        ]
        assert set(fmt.aliases) <= set(lines[fmt.name].split())


def test_formats_as_json(capsys: pytest.CaptureFixture[str]) -> None:
    """As JSON it is a list of objects, one a named format, in the order of the table."""
    table = [line.split()[0] for line in printed(capsys, "formats").splitlines()[2:] if line][: len(catalogue())]
    found = json.loads(printed(capsys, "formats", "--json"))
    assert [entry["name"] for entry in found] == table
    assert {entry["name"] for entry in found} == set(catalogue())
    entry = next(entry for entry in found if entry["name"] == "float8_e4m3fn")
    assert entry["source"]
    assert {
        "bits": 8,
        "exp_bits": 4,
        "man_bits": 3,
        "max": 448.0,
        "eps": 0.125,
        "specials": "fn",
    }.items() <= entry.items()
    assert next(entry for entry in found if entry["name"] == "int8")["exp_bits"] is None


# --- qsim show -------------------------------------------------------------------------------------------------------


def value_of(printed: str) -> Fraction:
    """Return what a number or a product such as (2-2^-7)*2^127 stands for."""
    if "^" not in printed:
        return Fraction(printed)
    return eval(re.sub(r"([\d.]+)", r"Fraction('\1')", printed).replace("^", "**"), {"Fraction": Fraction})  # noqa: S307


def rows(out: str) -> dict[str, tuple[str, float]]:
    """Read the table of values back: bits and value by the hexadecimal digits of the code."""
    cells = [cell.split() for cell in out[out.index("\ncode ") :].split("0x")[1:]]
    return {code: ("".join(fields), float(value)) for code, *fields, value in cells}


@pytest.mark.parametrize("fmt", NARROW, ids=str)
def test_the_table_of_values_reads_back(fmt: Format, capsys: pytest.CaptureFixture[str]) -> None:
    """Every code of up to 8 bits stands in the table with its bits and with a decimal that reads back as its value."""
    found = rows(printed(capsys, "show", fmt.name))
    digits = len(f"{(1 << fmt.bits) - 1:x}")
    assert len(found) == 1 << fmt.bits
    for code, value in enumerate(fmt.values().tolist()):
        bits, shown = found[f"{code:0{digits}x}"]
        assert bits == f"{code:0{fmt.bits}b}"
        assert np.array_equal(shown, value, equal_nan=True)


@pytest.mark.parametrize("fmt", [*CATALOGUE, *PARAMETRIC[::5]], ids=str)
def test_show_says_what_is_in_force(fmt: Format, capsys: pytest.CaptureFixture[str]) -> None:
    """The landmarks read back exactly in both forms, and saturation rules stand there, the default first."""
    out = printed(capsys, "show", fmt.name)
    landmarks = dict(re.findall(r"^(max|min|smallest \w+|eps) +(\S.*)$", out, re.MULTILINE))
    for name, shown in landmarks.items():
        decimal, product = shown.split(" = ")
        exact = Fraction(getattr(fmt, name.replace(" ", "_")))
        assert Fraction(float(decimal)) == exact
        sign, magnitude = (-1, product[1:]) if product.startswith("-") else (1, product)
        assert sign * value_of(magnitude) == exact
    assert {"max", "min", "eps"} <= set(landmarks)
    rules = re.findall(r"^(?:beyond the range)? +(\w+)(?:, the default)?:", out, re.MULTILINE)
    assert rules == [str(rule) for rule in saturations(fmt)]
    assert re.sub(r"\s+", " ", fmt.source) in re.sub(r"\s+", " ", out)


def test_show_resolves_names(capsys: pytest.CaptureFixture[str]) -> None:
    """A short name is shown as the format it stands for, and OCP's e4m3 is not the IEEE-like one."""
    assert "float8_e4m3fn, which e4m3 stands for" in printed(capsys, "show", "e4m3")
    assert "stands for" not in printed(capsys, "show", "float8_e4m3fn")
    assert "infinity            0x78, -infinity 0xf8" in printed(capsys, "show", "float8_e4m3")


@pytest.mark.parametrize(
    ("name", "lines"),
    [
        ("e4m3", ["NaN 0x7f, 0xff; results have 0x7f", "NaN in stays NaN", "-0 in stays -0"]),
        ("e5m2", ["infinity 0x7c, -infinity 0xfc", "NaN 0x7d .. 0x7f, 0xfd .. 0xff; results have 0x7e"]),
        ("e4m3fnuz", ["NaN 0x80; results have 0x80", "zero 0x00; there is no -0", "-0 in becomes 0"]),
        ("e2m1", ["NaN in becomes the largest value", "special values finite values only"]),
        ("int8", ["NaN in becomes 0", "-0 in becomes 0", "special values none"]),
    ],
)
def test_show_special_values(name: str, lines: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    """The codes of special values, and what becomes of those that the format does not hold, are shown."""
    out = re.sub(" +", " ", printed(capsys, "show", name))
    for line in lines:
        assert f"\n{line}" in out


@pytest.mark.parametrize("fmt", [*CATALOGUE, *PARAMETRIC[::5]], ids=str)
def test_show_as_json(fmt: Format, capsys: pytest.CaptureFixture[str]) -> None:
    """As JSON it has the same facts, the codes of special values, and NaN and infinities as strings."""
    found = json.loads(printed(capsys, "show", fmt.name, "--json"))
    assert found["name"] == found["asked"] == fmt.name
    assert found["saturation"] == [str(rule) for rule in saturations(fmt)]
    assert (found["max"], found["min"], found["nan_to"]) == (fmt.max, fmt.min, fmt.nan_to)
    assert (found["nan_code"], found["inf_code"]) == (fmt.nan_code, fmt.inf_code)
    if fmt.bits > 8:
        assert found["values"] is None
        return
    values = [float(value) for value in found["values"]]
    assert np.array_equal(values, fmt.values(), equal_nan=True)
    listed = {code for first, last in found["nan_codes"] for code in range(first, last + 1)}
    assert listed == {code for code, value in enumerate(values) if math.isnan(value)}


def test_json_has_no_bare_nan() -> None:
    """NaN and infinities become strings wherever they stand, for JSON has no such numbers."""
    plain = {"a": [float("nan"), (1.5, float("-inf"))], "b": {"c": float("inf")}, "d": None}
    assert json.loads(text.as_json(plain)) == {"a": ["nan", [1.5, "-inf"]], "b": {"c": "inf"}, "d": None}


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (0.125, "2^-3"),
        (448, "1.75*2^8"),
        (3.0, "1.5*2^1"),
        (1.0, "2^0"),
        (5e-324, "2^-1074"),
        (65504, "(2-2^-10)*2^15"),
    ],
)
def test_products_with_powers_of_two(value: float, shown: str) -> None:
    """Numbers are written as a short factor times a power of two."""
    assert text.exact(value) == shown


# --- Bad usage -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("argv", "fragment"),
    [
        (("shwo", "e4m3"), "no command is called 'shwo'; did you mean show?"),
        (("format",), "did you mean formats"),
        (("zzz",), "did you mean formats, prove, report or show?"),
        (("show",), "FORMAT; `qsim show --help` shows how"),
        (("show", "e4m3", "--jsn"), "qsim show does not take '--jsn'; did you mean --json?"),
        (("show", "e4m3", "--js"), "did you mean --json?"),
        (("show", "e4m3", "e5m2"), "qsim show does not take 'e5m2'"),
        (("formats", "-x"), "qsim formats does not take '-x'"),
        (("--jsom",), "COMMAND; `qsim --help`"),
        (("show", "e4m4m"), "no format is called 'e4m4m'; did you mean"),
        (("show", "bfloat"), "bfloat16"),
        (("show", "e4m0"), "e4m0fn, e4m0fnuz or e4m0f can exist"),
        (("show", ""), "no format is called ''"),
    ],
)
def test_bad_usage_is_refused(argv: tuple[str, ...], fragment: str, capsys: pytest.CaptureFixture[str]) -> None:
    """A wrong command, flag or name ends with 2 and one sentence that names the nearest right one."""
    assert fragment in refused(capsys, *argv)


def test_no_command(capsys: pytest.CaptureFixture[str]) -> None:
    """Without a command the help is shown, as for bad usage."""
    assert main([]) == 2
    assert "show one format" in capsys.readouterr().out


@pytest.mark.parametrize("command", ["formats", "show", "prove", "report"])
def test_every_command_takes_json(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Every command has help, and takes --json."""
    with pytest.raises(SystemExit) as caught:
        main([command, "--help"])
    assert caught.value.code == 0
    assert "--json" in capsys.readouterr().out


def test_ctrl_c_is_quiet(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """An interrupt ends the command with 130 and without a word."""

    def interrupted(_: object) -> int:
        raise KeyboardInterrupt

    monkeypatch.setattr(formats, "run", interrupted)
    assert main(["formats"]) == 130
    assert capsys.readouterr() == ("", "")


def test_files_that_fail_are_named(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """A file that cannot be read or written ends the command with 2 and its name."""

    def failing(_: object) -> int:
        raise PermissionError(13, "Permission denied", "somewhere/report.md")

    monkeypatch.setattr(show, "run", failing)
    assert refused(capsys, "show", "e4m3") == "qsim: somewhere/report.md: Permission denied\n"


# --- As a process ----------------------------------------------------------------------------------------------------

ENVIRONMENT = os.environ | {"PYTHONPATH": str(Path(qsim.__file__).parents[1])}


def process(*argv: str, **options: Any) -> subprocess.CompletedProcess[str]:
    """Run Python with `argv` on the qsim under test."""
    options = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, **options}
    return subprocess.run([sys.executable, *argv], env=ENVIRONMENT, text=True, timeout=60, check=False, **options)


def test_as_a_module() -> None:
    """`python -m qsim` is the command: it says its version, and an error is a sentence, not a traceback."""
    assert process("-m", "qsim", "--version").stdout == f"qsim {qsim.__version__}\n"
    wrong = process("-m", "qsim", "show", "e4m4m")
    assert (wrong.returncode, wrong.stdout) == (2, "")
    assert re.fullmatch(r"qsim: no format is called 'e4m4m'[^\n]*\n", wrong.stderr)


HEAVY = ["IPython", "jinja2", "joblib", "llvmlite", "matplotlib", "mpmath", "numba", "rich", "scipy", "sklearn", "z3"]


@pytest.mark.parametrize("argv", [["--help"], ["formats"], ["show", "e4m3"], ["show", "int8", "--json"]], ids=" ".join)
def test_nothing_heavy_is_loaded(argv: list[str]) -> None:
    """The commands that only read formats load neither Numba nor another of the large libraries."""
    program = (
        "import sys\nfrom qsim.cli import main\ntry:\n    main(sys.argv[1:])\nexcept SystemExit:\n    pass\n"
        f"print(sorted(set({HEAVY}) & set(sys.modules)), file=sys.stderr)"
    )
    done = process("-c", program, *argv)
    assert (done.returncode, done.stderr) == (0, "[]\n")
    assert done.stdout


def test_a_closed_pipe_is_quiet() -> None:
    """A reader who goes away, as `head` does, ends the command without a word."""
    read, write = os.pipe()
    os.close(read)
    done = process("-m", "qsim", "show", "e4m3", stdout=write)
    os.close(write)
    assert (done.returncode, done.stderr) == (141, "")


def test_a_full_disk_is_reported() -> None:
    """Output that cannot be written is an error with its reason, once."""
    with Path("/dev/full").open("w") as full:
        done = process("-m", "qsim", "formats", stdout=full)
    assert (done.returncode, done.stderr) == (2, "qsim: No space left on device\n")
