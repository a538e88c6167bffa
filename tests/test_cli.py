"""The command as a whole: what it refuses, how it ends, and what it must not load."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path

import pytest
from command import ENVIRONMENT, process, refused

import qsim
from qsim import cli
from qsim.cli import formats, main, show

# --- Bad usage -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("argv", "fragment"),
    [
        (("shwo", "e4m3"), "no command is called 'shwo'; did you mean show?"),
        (("format",), "did you mean formats"),
        (("zzz",), "no command is called 'zzz'; `qsim help` lists the commands"),
        (("show",), "FORMAT; `qsim show --help` shows how"),
        (("show", "e4m3", "--jsn"), "qsim show does not take '--jsn'; did you mean --json?"),
        (("show", "e4m3", "--js"), "did you mean --json?"),
        (("formats", "-x"), "qsim formats does not take '-x'"),
        (("formats", "--al"), "did you mean --all"),
        (("show", "Q3.40"), "no format is called 'Q3.40': it needs"),
        (("show", "Binary8p8se"), "no format is called 'Binary8p8se'"),
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


@pytest.mark.parametrize("command", cli.COMMANDS)
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


def test_ctrl_c_while_libraries_are_loaded_is_quiet() -> None:
    """So does an interrupt that comes while the command is still loading what it needs."""
    program = (
        # A process that a shell has put in the background ignores the signal, and so do its children.
        "import signal, sys\nsignal.signal(signal.SIGINT, signal.default_int_handler)\n"
        "class Interrupt:\n    def find_spec(self, name, *_):\n"
        "        if name == 'numpy':\n            signal.raise_signal(signal.SIGINT)\n"
        "sys.meta_path.insert(0, Interrupt())\nfrom qsim.cli import main\nsys.exit(main(['quantize', '--help']))"
    )
    done = process("-c", program)
    assert (done.returncode, done.stdout, done.stderr) == (130, "", "")


def test_files_that_fail_are_named(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """A file that cannot be read or written ends the command with 2 and its name."""

    def failing(_: object) -> int:
        raise PermissionError(13, "Permission denied", "somewhere/report.md")

    monkeypatch.setattr(show, "run", failing)
    assert refused(capsys, "show", "e4m3") == "qsim: somewhere/report.md: Permission denied\n"


def test_names_at_the_top() -> None:
    """Every name that `qsim` promises is that of its home, which promises it too."""
    assert set(qsim.__all__) == set(qsim.HOME)
    for name, home in qsim.HOME.items():
        module = getattr(qsim, home)
        assert name in module.__all__
        assert getattr(qsim, name) is getattr(module, name)


# --- As a process ----------------------------------------------------------------------------------------------------


def test_as_a_module() -> None:
    """`python -m qsim` is the command: it says its version, and an error is a sentence, not a traceback."""
    assert process("-m", "qsim", "--version").stdout == f"qsim {qsim.__version__}\n"
    wrong = process("-m", "qsim", "show", "e4m4m")
    assert (wrong.returncode, wrong.stdout) == (2, "")
    assert re.fullmatch(r"qsim: no format is called 'e4m4m'[^\n]*\n", wrong.stderr)


HEAVY = [
    "IPython", "bitwuzla", "hypothesis", "jinja2", "joblib", "llvmlite", "matplotlib", "mpmath", "numba", "numpy",
    "platformdirs", "rich", "scipy", "sklearn", "threadpoolctl", "z3",
]  # fmt: skip
"""The large libraries, and small ones that only some answers need."""

LOADED = f"print(*sorted(set({HEAVY}) & set(sys.modules)), file=sys.stderr)"


@pytest.mark.parametrize(
    ("line", "loaded"),
    [
        ("--help", ""),
        ("formats", ""),
        ("formats --all --json", ""),
        ("show e4m3", ""),
        ("show posit8", ""),
        ("show int8 --json", ""),
        ("show Binary8p4se", ""),
        ("models", ""),
        ("models torch-2.13/float8_e4m3fn", ""),
        ("report", ""),
        ("shwo e4m3", ""),
        ("show e4m4m", ""),
        ("prove e4m4m", ""),
        ("report e4m4m", ""),
        ("plot e4m4m -o x.svg", "numpy"),
        ("quantize x.npy -f e4m4m -o y.npy", "numpy"),
        ("quantize --help", "numpy"),
    ],
)
def test_nothing_heavy_is_loaded(line: str, loaded: str) -> None:
    """What only reads formats, or is refused, waits for no library that it has no use for."""
    program = (
        f"import sys\nfrom qsim.cli import main\ntry:\n    main(sys.argv[1:])\nexcept SystemExit:\n    pass\n{LOADED}"
    )
    done = process("-c", program, *line.split())
    assert done.returncode == 0
    assert done.stderr.splitlines()[-1] == loaded
    assert done.stdout or re.match("qsim: .*; ", done.stderr)


@pytest.mark.parametrize(
    "program",
    [
        "",
        "qsim.get_format('e4m3').max, qsim.catalogue()",
        "qsim.Quantizer('e4m3', 'SR', scale='absmax'), qsim.Key(seed=0)",
        "qsim.reference.quantize(0.3, 'e4m3')",
    ],
)
def test_the_library_loads_what_is_asked_for(program: str) -> None:
    """Neither `import qsim` nor what is said without arrays loads a large library."""
    done = process("-c", f"import sys\nimport qsim\n{program}\n{LOADED}")
    assert (done.returncode, done.stderr) == (0, "\n")


CLOSE = "import os, sys\nos.close(int(sys.argv[1]))\nos.execv(sys.executable, [sys.executable, '-m', 'qsim', *sys.argv[2:]])"
"""A program that runs the command with one of its three streams closed, as the shell does for <&-, >&- and 2>&-."""


@pytest.mark.parametrize(
    "line", ["quantize x.txt -f e4m3 -o -", "quantize x.txt -f e4m3 -o y.npy", "show e4m3", "--version"]
)
def test_a_closed_output_is_refused(line: str, here: Path) -> None:
    """Where standard output is closed, so that what is printed would be lost in silence, nothing is done."""
    Path("x.txt").write_text("0.3\n", encoding="utf-8")
    done = process("-c", CLOSE, "1", *line.split())
    assert (done.returncode, done.stdout) == (2, "")
    assert re.fullmatch(r"qsim: standard output is closed[^\n]*\n", done.stderr)
    assert [path.name for path in here.iterdir()] == ["x.txt"]


def test_a_closed_input_is_refused(here: Path) -> None:
    """Where standard input is closed there are no numbers, not even none of them."""
    done = process("-c", CLOSE, "0", "quantize", "-", "-f", "e4m3", "-o", "y.npy")
    assert (done.returncode, done.stdout) == (2, "")
    assert re.fullmatch(r"qsim: standard input is closed[^\n]*\n", done.stderr)
    assert not list(here.iterdir())


@pytest.mark.parametrize(("argument", "code", "out"), [("x.txt", 0, "0.3125\n"), ("gone.txt", 2, "")])
def test_nothing_is_said_to_closed_ears(argument: str, code: int, out: str, here: Path) -> None:
    """Where stderr is closed, what is for it does not get into the result on standard output."""
    Path("x.txt").write_text("0.3\n", encoding="utf-8")
    done = process("-c", CLOSE, "2", "quantize", argument, "-f", "e4m3", "-o", "-")
    assert (done.returncode, done.stdout) == (code, out)


def test_any_name_can_be_printed(here: Path) -> None:
    """A name that the encoding of the output has not is printed by its codes; the work and the exit code are the same."""
    entry = '[[format]]\nname = "γ"\nkind = "table"\nvalues = [0, 1]\nsource = "ein Maß"\n'
    Path("mine.toml").write_text(entry, encoding="utf-8")
    Path("x.txt").write_text("0.3\n", encoding="utf-8")
    for encoding in ("utf-8:strict", "ascii", "latin-1"):
        environment = {"env": ENVIRONMENT | {"PYTHONIOENCODING": encoding}, "encoding": encoding.partition(":")[0]}
        shown = process("-m", "qsim", "show", "mine.toml", **environment)
        assert (shown.returncode, shown.stderr) == (0, "")
        assert ("γ" if "utf" in encoding else r"\u03b3") in shown.stdout
        data = process("-m", "qsim", "show", "mine.toml", "--json", **environment)
        assert json.loads(data.stdout)["name"] == "γ"
        argv = "quantize", "x.txt", "-f", "mine.toml", "-o", "\udcff.npy"  # a byte that is no UTF-8
        done = process("-m", "qsim", *argv, **environment)
        assert (done.returncode, done.stderr) == (0, "")
        assert r"\udcff.npy: values" in done.stdout
        assert json.loads(process("-m", "qsim", *argv, "--json", **environment).stdout)["output"] == "\udcff.npy"
    assert sorted(path.name for path in here.iterdir()) == ["mine.toml", "x.txt", "\udcff.npy"]


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


def test_a_sentence_is_one_line_and_commands_no_terminal(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Names with line feeds and escape sequences, and those that are no UTF-8, are shown by their codes."""
    for name, shown in (("a\nb", r"a\nb"), ("\x1b[31mred", r"\x1b[31mred"), (os.fsdecode(b"\xff"), r"\udcff")):
        assert main(["quantize", str(tmp_path / f"{name}.npy"), "-f", "e4m3", "-o", "y.npy"]) == 2
        assert capsys.readouterr().err == f"qsim: {tmp_path}/{shown}.npy: No such file or directory\n"


def test_too_little_memory_is_said_in_a_sentence(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Where memory ends, whatever the command, there is no traceback."""

    def full(*_: object) -> None:
        raise MemoryError

    monkeypatch.setattr("qsim.cli.show.run", full)
    assert main(["show", "e4m3"]) == 2
    assert capsys.readouterr().err.startswith("qsim: there is not enough memory;")
