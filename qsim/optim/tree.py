"""Nested dicts of arrays: walked together, with the name and the number of each parameter."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from qsim.arrays import quantize
from qsim.errors import InputError
from qsim.scales import INPUTS
from qsim.underflow import gradual_underflow

__all__ = [
    "Parameter", "Written", "check_params", "computing_type", "parameters", "store_as", "tree_map", "unzip", "widen", "zeros",
]  # fmt: skip


ARRAYS = (np.ndarray, np.generic)
"""Arrays, and NumPy's scalars."""


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


@gradual_underflow
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
    """Refuse anything else than a nested dict of float16, bfloat16, float32 or float64 arrays."""
    if not isinstance(params, dict):
        raise InputError(f"params are nested dicts of arrays, not {type(params).__name__}")
    for parameter, leaf in parameters(params):
        if not isinstance(leaf, np.ndarray) or leaf.dtype.name not in INPUTS or not leaf.dtype.isnative:
            found = leaf.dtype if isinstance(leaf, np.ndarray) else type(leaf).__name__
            raise InputError(
                f"{parameter.path} is {found}; parameters are arrays of float32 or float64, which also hold the values of "
                "narrower formats, or of float16 or bfloat16, in the machine's byte order"
            )
    seen: set[str] = set()
    for parameter, _ in parameters(params):
        if parameter.path in seen:
            raise InputError(
                f"two parameters are called {parameter.path}, since a key holds a dot; rename one, for sites go by name"
            )
        seen.add(parameter.path)


# --- Types of 16 bits: parameters may be stored in them, and updates are computed in float32 ---------------------


FLOAT32 = np.dtype(np.float32)


def computing_type(p: Any) -> np.dtype[Any]:
    """Return the type that the update of `p` is computed in: that of `p`, or float32 for one of 16 bits."""
    return FLOAT32 if p.dtype.itemsize == 2 else p.dtype


def widen(p: Any) -> Any:
    """Return `p` in the type that its update is computed in."""
    return p.astype(FLOAT32) if p.dtype.itemsize == 2 else p


def zeros(p: Any) -> NDArray[Any]:
    """Return zeros of the shape of `p` in the type that its update is computed in."""
    return np.zeros(p.shape, computing_type(p))


def store_as(x: Any, dtype: np.dtype[Any]) -> Any:
    """Return `x` rounded once, to nearest even, to the type that stores it."""
    if x.dtype == dtype:
        return x
    if dtype.name == "bfloat16" and x.dtype == np.float64:  # ml_dtypes goes by way of float32, rounding twice
        x = quantize(x, "bfloat16")
    return x.astype(dtype)
