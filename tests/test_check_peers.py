"""The script that asks other packages: what it makes of a faulty rounding, and of one that is not there."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

SCRIPT = Path(__file__).resolve().parents[1] / "examples" / "check_peers.py"


@pytest.fixture(scope="module")
def script() -> ModuleType:
    """Load the script."""
    spec = importlib.util.spec_from_file_location("check_peers", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["check_peers"] = module  # its dataclasses look for it there
    spec.loader.exec_module(module)
    return module


def test_a_fault_is_found_and_reproduced(script: ModuleType, tmp_path: Path) -> None:
    """A rounding toward zero in place of one to nearest is one fault of many laws, and its line shows it when it is run."""
    body = "np.clip(np.trunc(np.where(np.isnan(x), 0, x)) + 0.0, -128, 127)"
    wrong = script.Rounding("numpy", f"lambda x: {body}", "int8")
    (fault,) = script.check(wrong, {"np": np})
    assert fault.name == "rounds by RTZ (TowardZero) instead of RNE"
    assert {"thresholds", "edges", "symmetric"} & set(fault.laws)
    shown = eval(fault.shown, {"np": np})  # noqa: S307 - our own line
    x = eval(fault.shown.removeprefix(f"(lambda x: {body})"), {"np": np})  # noqa: S307 - our own line
    assert shown == np.trunc(x) != np.rint(x)
    text = script.markdown({("numpy", fault.name): [(wrong, fault)]}, {"numpy": [1, 0]}, {"qtorch"})
    assert f"**numpy: {fault.name}**, in int8:RNE from float32." in text
    assert "| qtorch | not installed | |" in text


def test_a_device_is_checked(script: ModuleType) -> None:
    """A package that draws its own words is asked for their frequencies as well."""
    body = "np.floor(x) + (np.random.default_rng().random(x.shape) < 0.5) * (x != np.floor(x))"
    laws = {"laws": ["neighbours"]}
    coin = script.Rounding("numpy", f"lambda x: {body}", "int8", "SR", device=True, options=laws)
    (fault,) = script.check(coin, {"np": np})
    assert (fault.name, fault.says) == ("the random words", "as if: rounds by SRE (StochasticEqual)")


def test_a_package_that_is_not_installed() -> None:
    """It is said so, and nothing fails."""
    code = (
        "import sys, runpy; sys.modules['pychop'] = None; sys.argv[1:] = ['pychop'];"
        f"runpy.run_path({str(SCRIPT)!r}, run_name='__main__')"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "pychop: not installed"
