"""The floors of the library: a module imports only what stands below it."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import qsim

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = Path(qsim.__file__).parent


def floors() -> dict[str, int]:
    """Return the height of each floor, as the README tells them from the ground up; the names it adds stand below all."""
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    told = text[text.index("Import names and floors") :].partition("\n\n")[0]
    rest, below = told.split("Each imports only what stands")
    heights = {name: height for height, name in enumerate(re.findall(r"`qsim\.(\w+)`", rest))}
    return heights | dict.fromkeys(re.findall(r"`qsim\.(\w+)`", below), -1)


def imports() -> Iterator[tuple[str, str]]:
    """Yield (importer, imported), each a name under `qsim`, but for the two modules at the top of the package."""
    for path in PACKAGE.rglob("*.py"):
        own = path.relative_to(PACKAGE).parts[0].removesuffix(".py")
        if own in {"__init__", "__main__", "_bundle"}:
            continue
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            names = []
            if isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom):
                names = [node.module] if node.module != "qsim" else [f"qsim.{alias.name}" for alias in node.names]
            for name in names:
                if name.startswith("qsim."):
                    yield own, name.split(".")[1]


def test_no_import_goes_up() -> None:
    """Of all imports within the library none goes to a floor above, and every module has its floor."""
    heights, found = floors(), set(imports())
    assert {name for pair in found for name in pair} <= set(heights)
    assert ("testing", "explain") in found
    assert not [(own, other) for own, other in found if own != other and heights[other] > heights[own]]
