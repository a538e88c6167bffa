"""What the definition makes of an array, element by element, and the random words that its elements take."""

from __future__ import annotations

import functools
from fractions import Fraction
from typing import Any

import numpy as np
from enumeration import exactly
from strategies import FLOAT64

from qsim import reference
from qsim.formats import Format, get_format
from qsim.kernels import core
from qsim.rounding import Key, Mode


def codes_by_reference(
    x: np.ndarray, fmt: str | Format, mode: str | Mode = "RNE", *, rbits: list[int] | None = None,
    eps: np.ndarray | float = 0.0, **rounding: Any,
) -> np.ndarray:  # fmt: skip
    """Return the codes of `x`, element by element, by the definition."""
    each, thresholds = rbits or [0] * x.size, np.broadcast_to(eps, x.shape).ravel().tolist()
    flat = exactly(x).ravel().tolist()
    return np.array(
        [
            reference.encode(value, fmt, mode, rbits=r, eps=threshold, **rounding)
            for value, r, threshold in zip(flat, each, thresholds, strict=True)
        ],
        np.uint64,
    ).reshape(x.shape)


def by_reference(
    x: np.ndarray, fmt: str | Format, mode: str | Mode = "RNE", n: int = 0, rbits: list[int] | None = None, **rounding: Any
) -> np.ndarray:  # fmt: skip
    """Round `x` element by element by the definition."""
    codes = codes_by_reference(x, fmt, mode, sr_bits=n, rbits=rbits, **rounding)
    return np.array([get_format(fmt).decode(code) for code in codes.ravel().tolist()], x.dtype).reshape(x.shape)


def fl(value: Fraction | float, kind: np.dtype) -> float:
    """Return `value` rounded to nearest even in the precision of a type, by the definition."""
    return reference.quantize(value, str(kind))


def scale_kind(kind: np.dtype, order: str = "divide") -> np.dtype:
    """Return the type of the scales and quotients of an array: float32 for 16 bits, but with the order "input" its own."""
    return np.dtype(np.float32) if kind.itemsize == 2 and order != "input" else kind


def width(kind: np.dtype) -> int:
    """Return how many random bits an element of a type takes: 64 where it has 64, else 32."""
    return 64 if kind == FLOAT64 else 32


@functools.cache
def block(number: int, seed: int, stream: int) -> tuple[int, ...]:
    """Return the four words of a Philox block, by the function that the known answers test, in plain Python."""
    halves = [half for whole in (number, stream, seed) for half in (whole & 0xFFFFFFFF, whole >> 32)]
    return tuple(int(word) for word in core.philox4x32_10(*map(np.uint64, halves)))


def words(key: Key, count: int, kind: np.dtype) -> list[int]:
    """Return the random word of each element as the promise states it, N = 32 or 64 bits."""
    at = range(key.offset, key.offset + count)
    if kind != FLOAT64:
        return [block(i // 4, key.seed, key.stream)[i % 4] for i in at]
    blocks = [block(i // 2, key.seed, key.stream)[2 * (i % 2) :] for i in at]
    return [high << 32 | low for high, low, *_ in blocks]
