"""Nested dicts of arrays: walked together, with the name and the number of each parameter."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from qsim.errors import InputError

__all__ = ["Parameter", "Written", "check_params", "parameters", "tree_map", "unzip"]


ARRAYS = (np.ndarray, np.generic)
"""Arrays, and what NumPy makes of those without axes."""


@dataclass(frozen=True, slots=True)
class Parameter:
    """Name one parameter: its path, the keys that lead to it joined by dots, and its place in the order of the tree."""

    path: str
    index: int


@dataclass(frozen=True, slots=True)
class Written:
    """Hold the new value of a parameter, where a link wrote it back rounded.

    A difference would not do: fl(p + fl(new - p)) need not be `new` (p = 12.7, new = 0.3, float32).
    """

    value: Any


def parameters(tree: Any) -> Iterator[tuple[Parameter, Any]]:
    """Yield each leaf of nested dicts with its name, in the order of the keys, as `qsim.autograd.tree_map` goes."""
    for index, (path, leaf) in enumerate(_leaves(tree, "")):
        yield Parameter(path, index), leaf


def _leaves(tree: Any, path: str) -> Iterator[tuple[str, Any]]:
    if not isinstance(tree, dict):
        yield path, tree
        return
    for name, branch in tree.items():
        yield from _leaves(branch, f"{path}.{name}" if path else name)


def tree_map(function: Callable[..., Any], tree: Any, *others: Any, deep: bool = False) -> Any:
    """Return the tree of `function(parameter, leaf, *leaves)`, where `others` have the branches of `tree`.

    With `deep` the others may have a branch of their own where `tree` has a leaf; it goes in whole.
    Raise `InputError` for one that lacks a branch or has one more, for a leaf that is no array, and for an array of another
    shape than the leaf's.
    """
    numbers = iter(range(1 << 30))

    def walk(path: str, branch: Any, *rest: Any) -> Any:
        if not isinstance(branch, dict):
            for leaf in (branch, *rest):
                if not isinstance(leaf, (*ARRAYS, Written, *([dict] if deep else []))):
                    raise InputError(
                        f"{path or 'the tree'}: {type(leaf).__name__} stands where an array belongs; params, gradients and "
                        "states are nested dicts of arrays"
                    )
            for other in rest:
                if isinstance(other, ARRAYS) and isinstance(branch, ARRAYS) and other.shape != branch.shape:
                    raise InputError(
                        f"{path}: an array of shape {other.shape} goes with one of shape {branch.shape}; "
                        "gradients, states and parameters have the same shapes"
                    )
            return function(Parameter(path, next(numbers)), branch, *rest)
        for other in rest:
            if not isinstance(other, dict) or other.keys() != branch.keys():
                found = sorted(map(str, other)) if isinstance(other, dict) else type(other).__name__
                raise InputError(f"{path or 'the tree'}: {found} goes with the names {sorted(map(str, branch))}")
        return {
            name: walk(f"{path}.{name}" if path else name, below, *(other[name] for other in rest))
            for name, below in branch.items()
        }

    with np.errstate(all="ignore"):  # infinities and NaN are results, as everywhere in the library
        return walk("", tree, *others)


def unzip(tree: Any, count: int) -> tuple[Any, ...]:
    """Return `count` trees of a tree of tuples of that length."""

    def part(branch: Any, k: int) -> Any:
        return {name: part(below, k) for name, below in branch.items()} if isinstance(branch, dict) else branch[k]

    return tuple(part(tree, k) for k in range(count))


def check_params(params: Any) -> None:
    """Refuse what is no nested dict of float32 or float64 arrays, the types that rounding is simulated in."""
    if not isinstance(params, dict):
        raise InputError(f"params are nested dicts of arrays, not {type(params).__name__}")
    for parameter, leaf in parameters(params):
        if not isinstance(leaf, np.ndarray) or leaf.dtype not in (np.float32, np.float64):
            found = leaf.dtype if isinstance(leaf, np.ndarray) else type(leaf).__name__
            raise InputError(
                f"{parameter.path} is {found}; parameters are arrays of float32 or float64, which also hold the values of "
                "narrower formats"
            )
    paths = [parameter.path for parameter, _ in parameters(params)]
    twice = next((path for path in paths if paths.count(path) > 1), None)
    if twice is not None:
        raise InputError(
            f"two parameters are called {twice}, since a key holds a dot; rename one, for sites go by name"
        )
