"""The rule about skips, tried on small runs of pytest under this project's own configuration."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]

PASSES = "def test_passes(): pass"
NEEDS_DATA = "def test_needs_data(qsim_data): pass"
NEEDS_MATPLOTLIB = f"""
import importlib.metadata
importlib.metadata.version = lambda name: "0.0"
{PASSES}
def test_golden(pinned_matplotlib): pass
"""
OTHER_SKIP = f"""
import pytest
{PASSES}
def test_other(): pytest.skip("no time today")
"""
MODULE_SKIP = 'import pytest; pytest.skip("no time today", allow_module_level=True)'
MANY_CASES = f"""
import pytest
{PASSES}
@pytest.mark.parametrize("n", range(9))
def test_many(n): pass
@pytest.mark.parametrize("n", range(4))
def test_few(n): pass
@pytest.mark.in_part(3)
@pytest.mark.parametrize("n", range(9))
def test_long(n): pass
"""
EXPECTED_FAILURE = f"""
import pytest
{PASSES}
@pytest.mark.xfail(reason="a known limit")
def test_limit(): raise AssertionError
"""


def run(folder: Path, body: str, *options: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run pytest on a project of one test module, `body`, with this project's conftest.py and pyproject.toml."""
    tests = folder / "tests"
    tests.mkdir()
    shutil.copy(ROOT / "pyproject.toml", folder)
    shutil.copy(ROOT / "tests" / "conftest.py", tests)
    (tests / "test_one.py").write_text(body, encoding="utf-8")
    inherited = {k: v for k, v in os.environ.items() if k not in {"CI", "QSIM_DATA", "QSIM_OLDEST"}}
    inherited = {k: v for k, v in inherited.items() if not k.startswith(("PYTEST_", "COV_"))}
    return subprocess.run(
        [sys.executable, "-m", "pytest", *options],
        cwd=folder,
        env=inherited | environment,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


@pytest.mark.parametrize(
    ("body", "environment"),
    [
        pytest.param(OTHER_SKIP, {}, id="any-skip-outside-ci"),
        pytest.param(PASSES + "\n" + NEEDS_DATA, {"CI": "true"}, id="no-data"),
        pytest.param(NEEDS_DATA, {"CI": "true", "QSIM_DATA": os.curdir}, id="data"),
        pytest.param(NEEDS_MATPLOTLIB, {"CI": "true", "QSIM_OLDEST": "1"}, id="oldest-matplotlib"),
        pytest.param(EXPECTED_FAILURE, {"CI": "true"}, id="expected-failure"),
    ],
)
def test_expected_skips_pass(tmp_path: Path, body: str, environment: dict[str, str]) -> None:
    """A run with an expected skip or a skip outside CI passes."""
    done = run(tmp_path, body, **environment)
    assert done.returncode == pytest.ExitCode.OK, done.stdout + done.stderr
    assert "unexpected skips" not in done.stdout


@pytest.mark.parametrize(
    ("body", "options", "environment"),
    [
        pytest.param(OTHER_SKIP, [], {}, id="test"),
        pytest.param(OTHER_SKIP, ["-n", "1"], {}, id="test-in-a-worker"),
        pytest.param(MODULE_SKIP, [], {}, id="module"),
        pytest.param(MODULE_SKIP, ["-n", "1"], {}, id="module-in-a-worker"),
        pytest.param(NEEDS_MATPLOTLIB, [], {}, id="matplotlib-elsewhere"),
    ],
)
def test_unexpected_skips_fail(tmp_path: Path, body: str, options: list[str], environment: dict[str, str]) -> None:
    """Under CI a run with a skip that nobody expects fails, and says which."""
    done = run(tmp_path, body, *options, CI="true", **environment)
    assert done.returncode == pytest.ExitCode.TESTS_FAILED, done.stdout + done.stderr
    assert "unexpected skips" in done.stdout
    assert "test_one.py" in done.stdout.split("unexpected skips")[1]


def test_wrong_data_fails(tmp_path: Path) -> None:
    """A `QSIM_DATA` that is no folder fails the test that asks for it, wherever it runs."""
    done = run(tmp_path, NEEDS_DATA, QSIM_DATA="nowhere")
    assert done.returncode == pytest.ExitCode.TESTS_FAILED
    assert "'nowhere', which is not a folder" in done.stdout


def test_a_part_of_the_cases_is_run(tmp_path: Path) -> None:
    """Of tests marked so one in k, on the oldest versions one in eight of each test; the others on demand."""
    for oldest, options, expected in (
        ("0", [], (1, 4, 9, 3)),
        ("1", [], (1, 1, 2, 2)),
        ("0", ["-m", "exhaustive"], (0, 0, 0, 6)),
    ):
        folder = tmp_path / f"{oldest}{len(options)}"
        folder.mkdir()
        done = run(folder, MANY_CASES, *options, QSIM_OLDEST=oldest)
        assert f"{sum(expected)} passed" in done.stdout
