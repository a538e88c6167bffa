"""Running the command in a test, here or as a process, and reading back what it printed."""

from __future__ import annotations

import itertools
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

import qsim
from qsim.cli import main

ENVIRONMENT = os.environ | {"PYTHONPATH": str(Path(qsim.__file__).parents[1])}

X = np.array([[0.3, -1.7, 500, 1e-9], [math.nan, math.inf, -0.0, 1.75]])
"""Of everything something: between two values of e4m3, beyond its range, too small for it, special, on its grid."""


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


def process(*argv: str, **options: Any) -> subprocess.CompletedProcess[str]:
    """Run Python with `argv` on the qsim under test."""
    usual = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "env": ENVIRONMENT, "timeout": 60, "text": True}
    return subprocess.run([sys.executable, *argv], check=False, **(usual | options))


def quantize(capsys: pytest.CaptureFixture[str], *argv: str) -> str:
    """Run `qsim quantize`, which must do and leave no unfinished file, and return what it printed."""
    assert main(["quantize", *argv]) == 0
    out, err = capsys.readouterr()
    assert err == ""
    assert not list(Path().glob(".*"))
    return out


def quantize_refused(capsys: pytest.CaptureFixture[str], *argv: str) -> str:
    """Run `qsim quantize`, which must be refused with one sentence and leave no file; return the sentence."""
    before = sorted(Path().iterdir())
    sentence = refused(capsys, "quantize", *argv)
    assert sorted(Path().iterdir()) == before
    return sentence


def tables(out: str) -> dict[str, dict[str, str]]:
    """Read every table of a text back: for the first cell of each line, the others by the heads of their columns."""
    found = {}
    lines = out.splitlines()
    for at, line in enumerate(lines):
        if re.fullmatch(r"-+(  -+)+", line):
            spans = [slice(*match.span()) for match in re.finditer("-+", line)]
            spans[-1] = slice(spans[-1].start, None)
            heads = [lines[at - 1][span].strip() for span in spans]
            for row in itertools.takewhile(bool, lines[at + 1 :]):
                cells = [row[span].strip() for span in spans]
                found[cells[0]] = {"kind": heads[0], **dict(zip(heads[1:], cells[1:], strict=True))}
    return found


def value_of(printed: str) -> Fraction:
    """Return what a number, a product or a difference such as 2^128-2^120 stands for."""
    if "^" not in printed and "*" not in printed:
        return Fraction(printed)
    return eval(re.sub(r"([\d.]+)", r"Fraction('\1')", printed).replace("^", "**"), {"Fraction": Fraction})  # noqa: S307
