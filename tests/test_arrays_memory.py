"""How much memory a rounding takes beside its result: pieces, and not the array once more."""

from __future__ import annotations

import tracemalloc
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import qsim

COUNT = 1 << 22
X = np.random.default_rng(0).standard_normal(COUNT).astype(np.float32)
TABLE, WIDE, NARROW, KEY = X.reshape(2048, -1), X.astype(np.float64), X.astype(np.float16), qsim.Key(0)
BITS = np.random.default_rng(1).integers(0, 256, COUNT, dtype=np.uint8)

WAYS: dict[str, Callable[[], Any]] = {
    "to nearest": lambda: qsim.quantize(X, "e4m3"),
    "stochastically": lambda: qsim.quantize(X, "e4m3", "SR", key=KEY),
    "float64, stochastically": lambda: qsim.quantize(WIDE, "e4m3", "SR", key=KEY),
    "float16": lambda: qsim.quantize(NARROW, "e4m3"),
    "strided": lambda: qsim.quantize(X[::2], "e4m3"),
    "in place": lambda: qsim.quantize(X, "float32", out=X),
    "given words": lambda: qsim.quantize(X, "e4m3", "SRA", sr_bits=8, rbits=BITS),
    "eps": lambda: qsim.quantize(X, "e4m3", "Threshold", eps=0.25),
    "a given scale": lambda: qsim.quantize(X, "int8", scale=0.1),
    "abs-max": lambda: qsim.quantize(X, "int8", scale="absmax"),
    "abs-max of a strided array": lambda: qsim.quantize(X[::2], "int8", scale="absmax"),
    "abs-max of each column": lambda: qsim.quantize(TABLE, "int8", scale="absmax", per=1),
    "abs-mean": lambda: qsim.quantize(X, "int8", scale="absmean"),
    "power of two, stochastically": lambda: qsim.quantize(X, "e4m3", "SR", key=KEY, scale="pow2"),
    "a list of values": lambda: qsim.quantize(X, "nf4"),
    "wrapped around": lambda: qsim.quantize(X, "int4", saturation="wrap"),
    "flushed": lambda: qsim.quantize(X, "e4m3", ftz_in=True, ftz_out=True),
    "codes": lambda: qsim.encode(X, "e4m3"),
    "codes of a list": lambda: qsim.encode(X, "nf4"),
    "values of codes": lambda: qsim.decode(BITS, "e4m3"),
}
ALLOWED = 6 << 20
"""Bytes beside the result: a thread's piece of 2^14 float64 elements, ten arrays at most, is 1.25 MiB; for four threads."""


@pytest.mark.parametrize("way", WAYS)
def test_memory_beside_the_result(way: str) -> None:
    """Whatever is asked for, at most a few pieces are held beside the result: the limit does not grow with the array."""
    WAYS[way]()  # compiles, and fills tables
    tracemalloc.start()
    try:
        result = WAYS[way]()
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    own = 0 if result is X else result.nbytes
    assert peak - own <= ALLOWED
