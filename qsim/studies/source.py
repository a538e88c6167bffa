"""The code that makes a cell: the source of its module and of every module that this imports, and the libraries below.

A module is followed to the modules it names, not to the packages around them, so that an edit of a page or a claim leaves
the cells of a study as they are.
"""

from __future__ import annotations

import ast
import functools
import hashlib
import importlib.metadata
import importlib.util
import platform
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

__all__ = ["Source", "source_of"]


@dataclass(frozen=True, slots=True)
class Source:
    """Hold the code that makes the numbers of a cell: modules with the SHA-256 of each, libraries with the version of each."""

    modules: Mapping[str, str]
    libraries: Mapping[str, str]

    @property
    def digest(self) -> str:
        """Return one SHA-256 of all of it, and of the kind of machine: on another one sums may run in another order."""
        facts = [sorted(self.modules.items()), sorted(self.libraries.items()), platform.machine()]
        return hashlib.sha256(repr(facts).encode()).hexdigest()


@functools.cache
def source_of(module: str) -> Source:
    """Return the source of `module`, of the modules under `qsim` and under its own package that it imports, and theirs."""
    own = {"qsim", module.partition(".")[0]}
    modules: dict[str, str] = {}
    libraries = {"python": platform.python_version()}
    waiting = [module]
    while waiting:
        name = waiting.pop()
        if name in modules:
            continue
        text = _path(name).read_bytes()
        modules[name] = hashlib.sha256(text).hexdigest()
        for imported in _imports(ast.parse(text), name, own):
            top = imported.partition(".")[0]
            if top in own:
                waiting.append(imported)
            elif top not in sys.stdlib_module_names:
                libraries.update(_version(top))
    return Source(modules, libraries)


def _path(module: str) -> Path:
    found = importlib.util.find_spec(module)
    assert found is not None
    assert found.origin is not None
    return Path(found.origin)


def _imports(tree: ast.AST, module: str, own: set[str]) -> Iterator[str]:
    """Yield the modules that the module `module` imports anywhere but for the type checker alone."""
    if isinstance(tree, ast.If) and ast.unparse(tree.test).endswith("TYPE_CHECKING"):
        return
    if isinstance(tree, ast.Import):
        yield from (alias.name for alias in tree.names)
    elif isinstance(tree, ast.ImportFrom):
        package = module if _path(module).name == "__init__.py" else module.rpartition(".")[0]
        base = (
            importlib.util.resolve_name("." * tree.level + (tree.module or ""), package) if tree.level else tree.module
        )
        for alias in tree.names:
            name = f"{base}.{alias.name}"
            yield name if name.partition(".")[0] in own and _is_module(name) else str(base)
    for part in ast.iter_child_nodes(tree):
        yield from _imports(part, module, own)


def _is_module(name: str) -> bool:
    try:
        return importlib.util.find_spec(name) is not None
    except ModuleNotFoundError:  # its parent is no package
        return False


def _version(top: str) -> dict[str, str]:
    """Return the version of the library that is imported as `top`; nothing where it is not installed."""
    named = {"sklearn": "scikit-learn"}.get(top, top)  # one that is called otherwise
    try:
        return {named: importlib.metadata.version(named)}
    except importlib.metadata.PackageNotFoundError:
        return {}
