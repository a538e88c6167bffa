"""The one exception for what a user can mend, and the hint that goes with it."""

from __future__ import annotations

import difflib
import operator
from collections.abc import Iterable
from typing import Any

__all__ = ["InputError", "integer", "nearest"]


class InputError(ValueError):
    """Say in one sentence what was wrong, where, and what would be right; the command exits 2 with it."""


def integer(name: str, value: Any) -> int:
    """Return an integer of Python or NumPy as Python's; refuse all else, truth values too."""
    try:
        if not isinstance(value, bool):
            return operator.index(value)
    except TypeError:  # arrays have the method, whatever they hold
        pass
    raise InputError(f"{name} = {value!r} must be an integer")


def nearest(word: str, known: Iterable[str], count: int = 3) -> str:
    """Return the names in `known` most like `word`, as "a, b or c"; the first few names where none is like it."""
    names = sorted(set(known))
    folded = {name.casefold(): name for name in names}
    close = difflib.get_close_matches(word.casefold(), folded, n=count, cutoff=0.5)
    return enumerate_names([folded[c] for c in close] or names[: 2 * count])


def enumerate_names(names: Iterable[str]) -> str:
    """Join names as a reader would: "a", "a or b", "a, b or c"."""
    listed = list(names)
    return " or ".join([", ".join(listed[:-1]), listed[-1]] if len(listed) > 1 else listed)
