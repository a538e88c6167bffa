"""The cache of compiled kernels."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
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


ROUND = (
    "import sys, numpy, qsim; print(qsim.quantize(numpy.float32([1.06, 9]), 'e4m3').tolist(), 'numba' in sys.modules)"
)


def ask(cache: Path) -> str:
    """Return what a process prints that rounds two numbers, and whether it imported Numba."""
    environment = os.environ | {"NUMBA_CACHE_DIR": str(cache)}
    command = [sys.executable, "-c", ROUND]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=180, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_a_warm_cache_needs_no_numba(tmp_path: Path) -> None:
    """Numba is imported to compile, and by no process that finds machine code; damaged files are made anew."""
    assert ask(tmp_path) == "[1.0, 9.0] True"
    assert ask(tmp_path) == "[1.0, 9.0] False"
    (file,) = tmp_path.rglob("*.o")
    whole = file.read_bytes()
    for damaged in (b"", whole[:100], whole[:-1] + bytes([whole[-1] ^ 1])):
        file.write_bytes(damaged)
        assert ask(tmp_path) == "[1.0, 9.0] True"
    assert ask(tmp_path) == "[1.0, 9.0] False"


@pytest.mark.parametrize(
    ("x", "words"),
    [
        (np.zeros(8, np.uint32)[::2], "C order"),
        (np.zeros(8, ">u4"), "byte order"),
        (np.zeros((2, 2), np.uint32), "as many dimensions"),
        (np.zeros((4, 2), np.uint32)[:, :1], "as many dimensions"),
    ],
    ids=["strided", "swapped", "2-D", "2-D, strided"],
)
def test_other_arrays_are_refused(x: np.ndarray, words: str) -> None:
    """A kernel that was compiled for arrays in C order of one dimension takes no others."""

    @compiled.kernel()
    def double(x: compiled.Array, y: compiled.Array) -> None:
        for i in range(x.size):
            y[i] = 2 * x[i]

    double(np.arange(3, dtype=np.uint32), y := np.zeros(3, np.uint32))
    assert y.tolist() == [0, 2, 4]
    double(np.arange(3, dtype=np.ulonglong), y := np.zeros(3, np.uint8))  # of other types it is compiled anew
    assert y.tolist() == [0, 2, 4]
    with pytest.raises(TypeError, match=words):
        double(x, np.zeros(8, np.uint32))
    with pytest.raises(TypeError, match=words):
        double(np.zeros(8, np.uint32), x)


@pytest.mark.parametrize("mode", ["r", "c"])
def test_arrays_of_others(mode: str, tmp_path: Path) -> None:
    """What is read may be read-only, and a subclass of NumPy's array."""
    np.save(tmp_path / "x.npy", np.float32([1.06, 9]))
    x = np.load(tmp_path / "x.npy", mmap_mode=mode)
    assert qsim.quantize(x, "e4m3").tolist() == [1.0, 9.0]


def test_without_a_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where no folder can be written, kernels are compiled without a cache rather than not at all."""
    (tmp_path / "file").touch()
    monkeypatch.setenv("NUMBA_CACHE_DIR", str(tmp_path / "file"))
    assert compiled.cache_directory.__wrapped__() is None
