"""`qsim completion`: that what a shell proposes is what the parsers take; and several formats side by side."""

from __future__ import annotations

import json
import shutil
import subprocess

import pytest
from command import printed

import qsim
from qsim import cli
from qsim.cli import main
from qsim.rounding import parse_mode


def script(capsys: pytest.CaptureFixture[str], shell: str) -> str:
    """Return a script."""
    assert main(["completion", shell]) == 0
    return capsys.readouterr().out


@pytest.mark.parametrize(
    ("line", "wanted", "unwanted"),
    [
        ("qsim sh", "show", "plot"), ("qsim show e4m", "e4m3", "e5m2"), ("qsim quantize x -r Sto", "StochasticA", "RNE"),
        ("qsim quantize --pa", "--pack", "--jobs"), ("qsim report --j", "--jobs", "--pack"), ("qsim help pl", "plot", "show"),
    ],
)  # fmt: skip
def test_bash_proposes(line: str, wanted: str, unwanted: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Bash itself, given the script, proposes the words that begin so."""
    bash = shutil.which("bash")
    assert bash is not None
    words = " ".join(f"'{word}'" for word in line.split())
    asked = f"COMP_WORDS=({words}); COMP_CWORD={len(line.split()) - 1}; _qsim; printf '%s\\n' \"${{COMPREPLY[@]}}\""
    done = subprocess.run(
        [bash, "-c", f"{script(capsys, 'bash')}\n{asked}"], capture_output=True, text=True, check=True
    )
    assert wanted in done.stdout.split()
    assert unwanted not in done.stdout.split()


def test_words_are_taken(capsys: pytest.CaptureFixture[str]) -> None:
    """Every format and mode that is proposed is one, and every command has its options; fish and zsh have them all."""
    assert main(["completion", "bash", "--json"]) == 0
    words = json.loads(capsys.readouterr().out)
    assert list(words["commands"]) == list(cli.COMMANDS)
    for name in words["formats"]:
        qsim.get_format(name)
    for name in words["modes"]:
        parse_mode(name)
    fish, zsh = script(capsys, "fish"), script(capsys, "zsh")
    for name, options in words["commands"].items():
        assert "--help" in options
        assert "--json" in options
        assert f"-a {name} " in fish
        assert all(option in zsh for option in options)


def test_formats_side_by_side(capsys: pytest.CaptureFixture[str]) -> None:
    """Each format has a column with its range, in tables that are no wider than a page; JSON has a list."""
    out = printed(capsys, "show", "e4m3", "e5m2", "int4", "nf4")
    lines = {line.split("  ")[0]: line.split()[1:] for line in out.splitlines() if line}
    assert out.splitlines()[0].split() == ["format", "float8_e4m3fn", "float8_e5m2", "int4", "nf4"]
    assert lines["max"] == ["448", "57344", "7", "1"]
    assert lines["bits"] == ["8", "8", "4", "4"]
    printed(capsys, "show", *list(qsim.catalogue())[:40])
    assert main(["show", "e4m3", "int4", "--json"]) == 0
    assert [one["name"] for one in json.loads(capsys.readouterr().out)] == ["float8_e4m3fn", "int4"]
