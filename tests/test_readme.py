"""What the README has its reader type runs as it stands."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from qsim.kernels import threads

README = Path(__file__).resolve().parents[1] / "README.md"


def test_its_python_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The blocks run in their order, in one session; what is said of a gradient's bias there is what comes out.

    Those on quantizers of one's own are left to the tests of `examples`, which have the same calls.
    """
    text = README.read_text(encoding="utf-8")
    blocks = [block for block in re.findall(r"```python\n(.*?)```", text, re.DOTALL) if "testing" not in block]
    assert len(blocks) >= 5
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(threads, "wanted", None)  # which they set, and which is as it was afterwards
    names: dict[str, object] = {}
    for block in blocks:
        exec(compile(block, "README.md", "exec"), names)  # noqa: S102 - our own words
    found = names["found"]
    assert found.together["all"].bias.low == 0  # type: ignore[attr-defined]
    theory = found.together["all"].theory  # type: ignore[attr-defined]
    variance = found.together["all"].variance  # type: ignore[attr-defined]
    assert variance.low <= theory.variance.value + 4 * theory.variance.error
    assert theory.variance.value - 4 * theory.variance.error <= variance.high < theory.bound
    assert (tmp_path / "run.npz").exists()
