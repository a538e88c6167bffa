"""The classes of inputs by which mismatches and coverage are told."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from qsim.explain.oracle import place
from qsim.formats import Grid
from qsim.golden.converter import Converter
from qsim.golden.operands import Operands

__all__ = ["CLASSES", "classes_of"]

CLASSES = (
    "NaN", "infinity", "zero", "negative zero", "subnormal input", "overflow", "rounds to zero", "subnormal result, tie",
    "subnormal result", "exact value", "tie", "between two values", "integer",
)  # fmt: skip


def classes_of(converter: Converter, x: Operands) -> NDArray[np.str_]:
    """Return the class of each input, by where it lies in the format of the converter, before any earlier step."""
    if x.kind == "int32":
        return np.full(len(x), "integer")
    fmt, size = converter.format, np.abs(x.exact)
    finite = np.isfinite(size)
    at = place(fmt, np.where(finite, size, 0.0))
    tie = (at.nu.word == np.uint64(1 << 63)) & (at.nu.tail == 0)
    low = np.zeros(len(x), bool)
    if isinstance(fmt, Grid) and not fmt.even:
        low = np.abs(at.ordinal) < fmt.first_normal
    top = float(fmt.value(fmt.top))
    masks = [
        np.isnan(size), np.isinf(size), (size == 0) & ~x.negative, size == 0, x.subnormal, size > top,
        (at.ordinal == 0) & ~at.nu.zero & low, low & tie, low & ~at.nu.zero, at.nu.zero, tie,
    ]  # fmt: skip
    return np.select(masks, CLASSES[: len(masks)], CLASSES[11])
