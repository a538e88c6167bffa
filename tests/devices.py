"""A device that rounds as hardware does, with faults to plant, and what a verdict names."""

from __future__ import annotations

import textwrap
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from qsim.formats import Grid, get_format
from qsim.verdicts import Verdict

ROOT = Path(__file__).resolve().parents[1]


def device(name: str, mode: str = "RNE", n: int = 0, fault: str = "", saturation: str = "") -> Callable[..., Any]:
    """Return a unit that turns float32s into codes of a float format as hardware does: by shifts, a guard bit and a carry.

    It knows nothing of `qsim.reference`; of the format it takes the numbers in its data sheet. `fault` breaks one line of it.
    """
    fmt = get_format(name)
    assert isinstance(fmt, Grid)
    m, whole = fmt.man_bits, 1 << fmt.man_bits
    clamps = (saturation or ("SatNone" if fmt.has_inf else "SatFinite")) == "SatFinite"

    def convert(x: np.ndarray, r: np.ndarray | None) -> np.ndarray:
        u = x.view(np.uint32).astype(np.int64)
        sign, magnitude = u >> 31, u & 0x7FFFFFFF
        field = magnitude >> 23
        if fault == "subnormal inputs flushed":
            magnitude = np.where(field == 0, 0, magnitude)
        significand = (magnitude & 0x7FFFFF) | (field > 0) << 23
        e = np.maximum(field, 1) - 127
        further = np.maximum(fmt.emin - e, 0)
        if fault == "subnormals shifted too little":
            further = np.maximum(further - 1, 0)
        if fault == "subnormals shifted too far":
            further = np.where(further > 0, further + 1, 0)
        if fault == "shift of five bits":
            further &= 31
        shift = np.minimum(23 - m + further, 40)
        q, rest, unit = significand >> shift, significand & ((1 << shift) - 1), 1 << shift
        if fault == "sticky lost":
            rest &= ~((unit >> 2) - 1)
        if fault == "guard only":
            rest &= ~((unit >> 1) - 1)
        up = goes_up(q, rest, unit, sign, r)
        if fault == "carry lost":
            q = np.where(up & ((q + 1) % whole == 0), q + 1 - whole, q + up)
        elif fault == "carry dropped":
            q = np.where(up & ((q + 1) % whole == 0), q, q + up)
        else:
            q = q + up
        number = q + ((np.maximum(e, fmt.emin) - fmt.emin) << m)
        infinite, nan = magnitude == 0x7F800000, magnitude > 0x7F800000
        over = (number > fmt.top) & ~infinite & ~nan
        if fault == "range first":
            over = (np.abs(x) > fmt.max) & ~infinite & ~nan
        if fault == "top binade missing":
            number = np.minimum(number, (fmt.top >> m << m) - 1)
            over = np.zeros_like(over)
        beyond = fmt.top if clamps else fmt.inf_code if fmt.has_inf else fmt.nan_code
        if fault == "carry into the next code":
            beyond = np.where(number == fmt.top + 1, number, beyond)
        number = np.where(over, 0 if fault == "overflow becomes 0" else beyond, number)
        inf_code = fmt.top if clamps or fault == "infinity clamped" else beyond
        number = np.where(infinite, inf_code, number)
        if fault == "subnormal results flushed":
            number = np.where(number < whole, 0, number)
        if fault == "zero loses its sign":
            sign = np.where(number == 0, 0, sign)
        if fault == "underflow loses its sign":
            sign = np.where((number == 0) & (magnitude > 0), 0, sign)
        nan_code = {"NaN becomes 0": 0, "NaN becomes max": fmt.top}.get(fault, fmt.nan_code)
        code = np.where(nan, nan_code, number | (sign << (fmt.bits - 1)) * (~nan))
        if fault == "NaN becomes -0":
            code = np.where(nan, 1 << (fmt.bits - 1), code)
        return code

    def goes_up(
        q: np.ndarray, rest: np.ndarray, unit: np.ndarray, sign: np.ndarray, r: np.ndarray | None
    ) -> np.ndarray:
        odd, half = q % 2 == 1, unit >> 1
        if mode == "RNE":
            tie = {"ties away": True, "ties to zero": False, "ties to odd": ~odd, "ties up": sign == 0}.get(fault, odd)
            up = (rest > half) | ((rest == half) & tie)
            if fault == "negative side truncated":
                up &= sign == 0
            if fault == "negative side floors":
                up = np.where(sign == 1, rest > 0, up)
            return up
        assert r is not None
        kept, r = (rest << n) // unit, r.astype(np.int64)
        last = (1 << n) - 1
        match fault:
            case "word plus one":
                return kept + r + 1 > last
            case "word plus one, wrapped":
                return kept + ((r + 1) & last) > last
            case "greater":
                return kept + r > last + 1
            case "word reversed":
                r = sum(((r >> k) & 1) << (n - 1 - k) for k in range(n))
            case "low bits":
                return ((rest << n // 2) // unit) + (r & ((1 << n // 2) - 1)) >> n // 2 > 0
            case "word complemented":
                return r < kept
            case "word complemented, ties too":
                return r <= kept
            case "fewer bits":
                return ((rest << (n - 1)) // unit) + (r >> 1) >> (n - 1) > 0
            case "one bit":
                return (rest > 0) & (r > last // 2)
            case "word ignored":
                return (rest > half) | ((rest == half) & odd)
            case "floor":  # of x + u: for negative numbers from the lesser neighbour
                other = ((unit - rest) << n) // unit
                return np.where((sign == 1) & (rest > 0), other + r <= last, kept + r > last)
            case "exact moved":
                return (kept + r > last) | ((rest == 0) & (q > 0))
        if mode == "SRB":
            return (rest << n + 1) // unit + 2 * r + 1 > 2 * last + 1
        if mode == "SRC":
            floor, left = kept, (rest << n) % unit
            near = floor + ((left > half) | ((left == half) & (floor % 2 == 1)))
            return near + r > last
        return kept + r > last

    if mode == "RNE":

        def unit_under_test(x: np.ndarray) -> np.ndarray:
            return convert(x, None)

        return unit_under_test

    def stochastic_unit(x: np.ndarray, rbits: np.ndarray) -> np.ndarray:
        return convert(x, rbits)

    return stochastic_unit


def named(verdict: Verdict) -> list[str]:
    """Return the causes that a verdict names, each on one line again."""
    lines = verdict.counterexample.splitlines()
    start = next(i for i, line in enumerate(lines) if line.startswith("causes"))
    end = next(i for i, line in enumerate(lines) if not line and i > start)
    return textwrap.dedent(
        lines[start].replace("causes", "      ") + "\n" + "\n".join(lines[start + 1 : end])
    ).splitlines()


def unwrapped(verdict: Verdict) -> str:
    """Return the counterexample as one line."""
    return " ".join(verdict.counterexample.split())
