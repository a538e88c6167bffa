"""What every test shares: Hypothesis profiles, where the real data are, an empty folder, and the rule about skips."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
import platform
import shutil
import tomllib
import zlib
from pathlib import Path
from typing import TYPE_CHECKING

import hypothesis
import pytest

if TYPE_CHECKING:
    from collections.abc import Callable

pytest.register_assert_rewrite("command")  # it asserts on behalf of tests, and should say what it found

ROOT = Path(__file__).resolve().parents[1]
CI = os.environ.get("CI") == "true"

# Neither profile has a deadline: the first example of a test may wait for a kernel to be compiled. Under CI the
# examples are always the same ones, so that a failure there is a failure here; elsewhere every run looks at new ones.
hypothesis.settings.register_profile("ci", derandomize=True, deadline=None, print_blob=True)
hypothesis.settings.register_profile("dev", deadline=None)
hypothesis.settings.load_profile("ci" if CI else "dev")


def _pinned_matplotlib() -> str:
    """Return the version of matplotlib that the golden report was rendered with, from pyproject.toml."""
    groups = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["dependency-groups"]
    pin = next(entry for entry in groups["test"] if isinstance(entry, str) and entry.startswith("matplotlib=="))
    return pin.removeprefix("matplotlib==")


NO_DATA = "QSIM_DATA is unset or empty"
NO_AVX2 = "the instructions that are looked for are those of AVX2"
NO_MXCSR = "the flags that are set are those of an x86 processor"
NO_BROWSER = "no Chromium with its driver is installed"
NO_TORCH = "PyTorch is not installed"
PACKAGES = ("bitsandbytes", "compressed_tensors", "gguf", "mlx", "modelopt", "torchao")
"""Packages whose blocks are compared with recipes, where they are installed."""
ORACLES = {
    "apytypes": "apytypes", "cuda": "nvidia", "faiss-cpu": "faiss", "fxpmath": "fxpmath", "jax": "jax",
    "numcodecs": "numcodecs", "onnx": "onnx", "onnxruntime": "onnxruntime", "spfpm": "FixedPoint", "tensorstore": "tensorstore",
    "tinygrad": "tinygrad",
}  # fmt: skip
"""Packages that golden models are of, compared where they are installed, and what each is imported as."""
NO_COMPILER = "no C compiler is installed"
NO_ICARUS = "Icarus Verilog is not installed"
OTHER_MATPLOTLIB = f"needs matplotlib {_pinned_matplotlib()}"


def no_package(name: str) -> str:
    """Return the reason for which a test that needs one of `PACKAGES` may skip."""
    return f"{name} is not installed"


# The reasons for which a test may skip under CI, each with the condition under which it may. Any other skip there is a
# test that silently stopped testing.
EXPECTED_SKIPS: dict[str, Callable[[], bool]] = {
    NO_DATA: lambda: not os.environ.get("QSIM_DATA"),
    NO_AVX2: lambda: platform.machine() not in {"x86_64", "AMD64"},
    NO_MXCSR: lambda: platform.machine() not in {"x86_64", "AMD64"},
    NO_BROWSER: lambda: not (shutil.which("chromium") and shutil.which("chromedriver")),
    NO_TORCH: lambda: importlib.util.find_spec("torch") is None,
    NO_COMPILER: lambda: shutil.which("gcc") is None,
    NO_ICARUS: lambda: shutil.which("iverilog") is None,
    OTHER_MATPLOTLIB: lambda: os.environ.get("QSIM_OLDEST") == "1",
    **{no_package(name): lambda name=name: importlib.util.find_spec(name) is None for name in PACKAGES},
    **{no_package(name): lambda name=name: importlib.util.find_spec(name) is None for name in ORACLES.values()},
}


@pytest.fixture(scope="session")
def qsim_data() -> Path:
    """Return the folder of real data that `QSIM_DATA` names; skip where it is unset, fail where it is wrong."""
    named = os.environ.get("QSIM_DATA")
    if not named:
        pytest.skip(NO_DATA)
    path = Path(named)
    if not path.is_dir():
        pytest.fail(f"QSIM_DATA is {named!r}, which is not a folder")
    return path


@pytest.fixture(scope="session")
def pinned_matplotlib() -> None:
    """Skip unless matplotlib is the version whose figures the golden files hold."""
    if f"needs matplotlib {importlib.metadata.version('matplotlib')}" != OTHER_MATPLOTLIB:
        pytest.skip(OTHER_MATPLOTLIB)


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Work in an empty folder."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


class SkipRule:
    """Collect the skips of a run and fail it for those that nobody expects."""

    def __init__(self) -> None:
        self.unexpected: list[str] = []

    def _look(self, report: pytest.TestReport | pytest.CollectReport) -> None:
        if not report.skipped or hasattr(report, "wasxfail"):
            return
        reason = str(report.longrepr[2] if isinstance(report.longrepr, (tuple, list)) else report.longrepr)
        reason = reason.removeprefix("Skipped: ")
        if not EXPECTED_SKIPS.get(reason, lambda: False)():
            self.unexpected.append(f"{report.nodeid}: {reason}")

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Note a test that skipped."""
        self._look(report)

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        """Note a module that skipped as a whole."""
        self._look(report)

    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        """Turn a run that would pass into one that fails."""
        if self.unexpected and session.exitstatus in {pytest.ExitCode.OK, pytest.ExitCode.NO_TESTS_COLLECTED}:
            session.exitstatus = pytest.ExitCode.TESTS_FAILED

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        """Say which skips failed the run."""
        if self.unexpected:
            terminalreporter.section("unexpected skips: failures under CI", red=True)
            for line in sorted(set(self.unexpected)):
                terminalreporter.write_line(line)


OLDEST = 8
"""On the oldest versions, one in how many cases of a test is run."""


@pytest.hookimpl(tryfirst=True)  # before what is marked `exhaustive` is left out
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Run a part of the cases of tests marked `in_part`, and on the oldest versions of all tests.

    There the question is whether what is called exists and does the same, and a part of the cases of every test asks it; the
    arithmetic is enumerated where all of them run.
    """
    oldest = os.environ.get("QSIM_OLDEST") == "1"
    cases: dict[str, list[pytest.Item]] = {}
    for item in items:
        if item.get_closest_marker("exhaustive"):
            continue
        cases.setdefault(item.nodeid.partition("[")[0], []).append(item)
    for several in cases.values():
        mark = several[0].get_closest_marker("in_part")
        each = OLDEST if oldest else mark.args[0] if mark else 1
        several.sort(key=lambda item: zlib.crc32(item.nodeid.encode()))  # neighbours share a format, or a type
        for item in several[-(-len(several) // each) :]:
            item.add_marker(pytest.mark.exhaustive)


def pytest_configure(config: pytest.Config) -> None:
    """Apply the rule about skips under CI; with xdist once, where all reports come together."""
    if CI and not hasattr(config, "workerinput"):
        config.pluginmanager.register(SkipRule(), "qsim-skip-rule")
