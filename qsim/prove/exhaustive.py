"""Walk every float32 past the kernel, one step of the specification at a time.

Within a step one value and one code are right, so the loop compares with constants and vectorizes.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
from numpy import uint32

from qsim.kernels.compiled import compiled
from qsim.kernels.core import Parameters, encode_bits, round_bits
from qsim.prove.specification import Step

__all__ = ["first_difference"]

NOT_STICKY = uint32(0)
"""Nearest rounding needs no bits lost below the word: they cannot turn less than a half into more."""


@compiled
def count_wrong(first: Any, last: Any, value: Any, code: Any, even: Any, odd: Any, p: Any) -> Any:
    """Return how many of the patterns `first` .. `last` do not give `value` and `code`."""
    wrong = 0
    for i in range(last - first + 1):
        y = round_bits(uint32(first + i), even, odd, NOT_STICKY, p)
        wrong += 1 if (y != value or encode_bits(y, p) != code) else 0
    return wrong


@compiled
def find_wrong(first: Any, last: Any, value: Any, code: Any, even: Any, odd: Any, p: Any) -> Any:
    """Return the first of the patterns `first` .. `last` that does not give `value` and `code`; -1 for none."""
    for i in range(last - first + 1):
        y = round_bits(uint32(first + i), even, odd, NOT_STICKY, p)
        if y != value or encode_bits(y, p) != code:
            return first + i
    return -1


def first_difference(steps: Iterable[Step], even: int, odd: int, p: Parameters, reach: int | None = None) -> int | None:
    """Return the first pattern whose rounding, by the thresholds `even` and `odd`, is not as its step says; or `None`.

    With `reach` only that many patterns from either end of each step are looked at.
    """
    thresholds = uint32(even), uint32(odd)
    for step in steps:
        ends = [(step.first, step.last)]
        if reach is not None and step.last - step.first >= 2 * reach:
            ends = [(step.first, step.first + reach - 1), (step.last - reach + 1, step.last)]
        wanted = uint32(step.result.value), uint32(step.result.code)
        for first, last in ends:
            bounds = np.int64(first), np.int64(last)
            if count_wrong(*bounds, *wanted, *thresholds, p):
                return int(find_wrong(*bounds, *wanted, *thresholds, p))
    return None
