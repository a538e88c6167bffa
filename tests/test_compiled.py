"""The cache of compiled kernels."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from mutants import MUTANTS

import qsim
from qsim.folders import folder
from qsim.kernels import compiled


def test_an_edit_of_the_core_is_noticed(tmp_path: Path) -> None:
    """A warm cache serves the kernels it was made from, and no others: an edit of the core alone changes results."""
    shutil.copytree(Path(qsim.__file__).parent, tmp_path / "qsim", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copytree(folder("formats"), tmp_path / "formats")
    (tmp_path / "pyproject.toml").touch()
    cache, file = tmp_path / "cache", tmp_path / "qsim" / "kernels" / "core.py"
    environment = os.environ | {
        "PYTHONPATH": str(tmp_path), "NUMBA_CACHE_DIR": str(cache), "PYTHONDONTWRITEBYTECODE": "1",
    }  # fmt: skip
    program = "import numpy, qsim; print(qsim.quantize(numpy.float32([1.0625, 1.1875, 1.2]), 'e4m3').tolist())"

    def ask() -> tuple[str, dict[Path, int]]:
        done = subprocess.run(
            [sys.executable, "-c", program], cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=180,
            check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        return done.stdout.strip(), {path: path.stat().st_mtime_ns for path in cache.rglob("*") if path.is_file()}

    cold, first = ask()
    assert cold == "[1.0, 1.25, 1.25]"
    assert first
    assert ask() == (cold, first)  # nothing was compiled anew
    source = file.read_text(encoding="utf-8")
    right, wrong = MUTANTS["addend off by one"]
    assert source.count(right) == 1
    file.write_text(source.replace(right, wrong), encoding="utf-8")
    edited, second = ask()
    assert edited == "[1.125, 1.25, 1.25]"
    assert first.items() < second.items()


def test_without_a_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where no folder can be written, kernels are compiled without a cache rather than not at all."""
    (tmp_path / "file").touch()
    monkeypatch.setenv("NUMBA_CACHE_DIR", str(tmp_path / "file"))
    assert compiled.cache_directory.__wrapped__() is None
