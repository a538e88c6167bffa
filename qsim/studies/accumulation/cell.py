"""One cell: the errors of independent dot products of one length by one accumulator."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from typing import Any

import numpy as np

import qsim
from qsim.dot import Accumulator, dots_of
from qsim.measure import sample_mean
from qsim.rounding import Key

__all__ = ["Cell", "compute"]

PIECE = 1 << 22
"""Terms that are added at a time."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Cell:
    """Describe one accumulator at one length of dot products."""

    name: str
    #: The words of `Accumulator`, as JSON.
    accumulator: str
    operands: str
    data: str
    terms: int
    rows: int
    fault: str
    seed: int

    @property
    def label(self) -> str:
        """The words that tell it from the others."""
        return f"{self.name}, n = {self.terms}, {self.data}" + (f" ({self.fault})" if self.fault else "")

    @property
    def cost(self) -> float:
        """The work: terms."""
        return float(self.terms * self.rows)

    @property
    def memory(self) -> int:
        """The bytes that a process needs: the libraries, and a piece of operands."""
        return (250 << 20) + 64 * PIECE

    @property
    def rule(self) -> Accumulator:
        """The accumulator."""
        return Accumulator(**json.loads(self.accumulator))


def compute(cell: Cell) -> dict[str, Any]:
    """Return bias and root mean square of the error of a cell's dot products, relative to the sum of magnitudes."""
    errors = []
    each = max(PIECE // cell.terms, 1)
    words = repr((cell.name, cell.data, cell.terms, cell.fault)).encode()
    stream = int.from_bytes(hashlib.sha256(words).digest()[:5], "little")
    for begin in range(0, cell.rows, each):
        rows = min(each, cell.rows - begin)
        rng = np.random.Generator(np.random.Philox(key=[cell.seed, (cell.terms << 32) + begin]))  # the same for all
        a, b = (qsim.quantize(rng.standard_normal((rows, cell.terms), np.float32), cell.operands) for _ in range(2))
        if cell.data == "positive":
            a, b = np.abs(a), np.abs(b)
        key = Key(cell.seed, stream, begin) if cell.rule.stochastic else None
        found = dots_of(a, b, cell.rule, inputs=cell.operands, key=key)
        products = a.astype(np.float64) * b
        errors.append((found - products.sum(1)) / np.abs(products).sum(1))
    error = np.concatenate(errors)
    bias, square = sample_mean(error), sample_mean(error**2)
    return {
        "accumulator": cell.name, "words": cell.accumulator, "data": cell.data, "terms": cell.terms, "rows": cell.rows,
        "fault": cell.fault, "bias.value": bias.value, "bias.error": bias.error, "square.value": square.value,
        "square.error": square.error, "largest.error": float(np.abs(error).max()),
    }  # fmt: skip
