"""Conversions that are no rounding with a range: sums of bit patterns, fixed-point overflow, integer requantization.

A rule takes operands, random words, the format and the parameters of an entry, and returns codes. Each says its source.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

import qsim
from qsim.blocks import integers
from qsim.formats import Format, Grid
from qsim.golden.operands import Operands

__all__ = ["RULES"]

Codes = NDArray[np.int64]
Words = NDArray[np.uint64]
Rule = Callable[[Operands, Words, Format, Mapping[str, Any]], Codes]


# --- Sums of patterns ------------------------------------------------------------------------------------------------


def add_and_cut(x: Operands, words: Words, fmt: Format, how: Mapping[str, Any]) -> Codes:
    """Add to the whole pattern, NaNs included, and keep its top bits: `add` is "none", "half", "even" or "word".

    The sum wraps at the width of the input. "even" adds one less than half, and the last bit kept.
    """
    low = np.uint64(x.number.bits - fmt.bits)
    half = np.uint64(1) << (low - np.uint64(1))
    added: Any = {
        "none": np.uint64(0), "half": half, "even": half - np.uint64(1) + ((x.bits >> low) & np.uint64(1)), "word": words,
    }[how["add"]]  # fmt: skip
    total = (x.bits + added) & np.uint64((1 << x.number.bits) - 1)
    return np.asarray(total >> low).astype(np.int64)


def bias_operand(x: Operands, words: Words, fmt: Format, how: Mapping[str, Any]) -> Codes:
    """Add a word below the kept bits of the normalized significand, carry, and only then cut to the format's grid.

    With `normalize` = false the significand of a subnormal input is taken as it is. With D = bits cut from a normal result, the
    words have D bits (`word_bits` is D). Below the smallest normal result the bits that are shifted out further are cut.
    `overflow` "saturate" gives the largest value, "special" infinity or NaN. Infinities and NaNs are those of a nearest
    conversion; the sum is that of AMD's whole-word reading too, where the sum of the two patterns is converted.
    """
    assert isinstance(fmt, Grid)
    cut = x.number.man_bits - fmt.man_bits
    finite = np.isfinite(x.exact)
    size = np.where(finite, np.abs(x.exact), 0.0)
    fraction, exponent = np.frexp(size)
    least = x.number.lsb + x.number.man_bits  # the exponent of the smallest normal number
    power = exponent.astype(np.int64) - 1
    if not how.get("normalize", True):
        power = np.maximum(power, least)
        fraction = np.ldexp(size, -(power + 1).astype(np.int32))
    significand = np.ldexp(fraction, x.number.man_bits + 1).astype(np.int64)  # exact: an integer of man_bits + 1 bits
    total = significand + (words & np.uint64((1 << cut) - 1)).astype(np.int64)
    # total 2^(power - man_bits), cut to multiples of the spacing of the format at 2^power or, if it carried, above.
    carried = total >> (x.number.man_bits + 1) > 0
    spacing = np.maximum(power + carried - fmt.man_bits, fmt.lsb)
    shift = np.minimum(spacing - (power - x.number.man_bits), 62)
    steps = total >> shift
    values = np.ldexp(np.where(significand == 0, 0, steps).astype(np.float64), spacing.astype(np.int32))
    rule = how.get("saturation") or None
    rounded = qsim.encode(np.copysign(values, np.where(x.negative, -1.0, 1.0)), fmt, "RTZ", saturation=rule)
    with_range = np.abs(values) > fmt.max
    if with_range.any() and how.get("overflow", "saturate") == "special":
        over = qsim.encode(np.where(x.negative, -np.inf, np.inf), fmt, saturation=rule)
        rounded = np.where(with_range, over, rounded)
    other = qsim.encode(np.where(finite, 0.0, x.exact), fmt, saturation=rule)
    return np.where(finite, rounded, other).astype(np.int64)


def wrapped_sum(x: Operands, words: Words, fmt: Format, how: Mapping[str, Any]) -> Codes:
    """Add the word to the fraction field without a carry into the exponent, then convert to nearest, saturating."""
    field = np.uint64((1 << x.number.man_bits) - 1)
    fraction = ((x.bits & field) + words) & field
    finite = np.isfinite(x.exact)
    total = Operands(x.kind, np.where(finite, (x.bits & ~field) | fraction, x.bits))
    return qsim.encode(total.values, fmt, "RNE", saturation=how.get("saturation") or None).astype(np.int64)


def sfpstochrnd(x: Operands, words: Words, fmt: Format, how: Mapping[str, Any]) -> Codes:
    """Round float32 as Tenstorrent's SFPSTOCHRND: away iff the discarded bits, at the top of 23, reach the word.

    A value that is exact goes away with the word 0. Subnormal inputs and -0 become +0, NaN infinity of its sign; a carry may
    reach infinity. Without a word, ties go away from zero. Source: tt-isa-documentation, functional model.
    """
    assert isinstance(fmt, Grid)
    cut = np.uint64(x.number.man_bits - fmt.man_bits)
    discarded = x.bits & ((np.uint64(1) << cut) - np.uint64(1))
    up = (discarded << (np.uint64(23) - cut)) >= words if how["stochastic"] else discarded >> (cut - np.uint64(1)) == 1
    sign = x.bits & np.uint64(1 << 31)
    infinity = np.uint64(0x7F800000)
    size = x.bits & np.uint64(0x7FFFFFFF)
    size = np.where(size >= infinity, infinity, size)
    up &= size < infinity
    total = (size >> cut) + up
    codes = (sign >> cut) | total
    return np.where(size < 0x00800000, 0, codes).astype(np.int64)


# --- Fixed point -----------------------------------------------------------------------------------------------------


def fixed(x: Operands, words: Words, fmt: Format, how: Mapping[str, Any]) -> Codes:  # noqa: ARG001 - as every rule
    """Convert to fixed point by a quantization and an overflow mode of SystemC, `ap_fixed` or `ac_fixed`.

    The names are those of IEEE 1666 (SC_RND without its prefix), RND_CONV_ODD is AC's; `saturated` is n of WRAP and WRAP_SM.
    NaN becomes 0 where the mode wraps, and the last value on its sign's side where it saturates (`ap_fixed`).
    """
    assert isinstance(fmt, Grid)
    t = np.where(np.isfinite(x.exact), x.exact, 0.0)
    t = np.ldexp(t, -fmt.lsb)
    floor = np.floor(t)
    rest = t - floor  # exact: both are multiples of the last bit of t, and it is less than 1
    odd = np.fmod(floor, 2) != 0
    tie, negative = rest == 0.5, t < 0
    up = {
        "TRN": rest > 1, "TRN_ZERO": (rest > 0) & negative, "RND": rest >= 0.5,
        "RND_ZERO": (rest > 0.5) | (tie & negative), "RND_MIN_INF": rest > 0.5,
        "RND_INF": (rest > 0.5) | (tie & ~negative), "RND_CONV": (rest > 0.5) | (tie & odd),
        "RND_CONV_ODD": (rest > 0.5) | (tie & ~odd),
    }[how["quantization"]]  # fmt: skip
    steps = floor + up
    low, high = -fmt.bottom, fmt.top
    overflow, n = how["overflow"], int(how.get("saturated", 0))
    below, above = (steps < low) | np.isneginf(x.exact), (steps > high) | np.isposinf(x.exact)
    wraps = overflow.startswith("WRAP")
    nan = np.isnan(x.exact)
    if wraps:
        codes = _wrapped(steps, fmt.bits, overflow == "WRAP_SM", n, below | above)
        return np.where(np.isfinite(x.exact), codes, 0).astype(np.int64)
    low = -high if overflow == "SAT_SYM" else low
    ends = (0, 0) if overflow == "SAT_ZERO" else (low, high)
    held = np.where(above, ends[1], np.where(below | (steps < low), ends[0], np.clip(steps, low, high))).astype(
        np.int64
    )
    held = np.where(nan, np.where(x.negative, ends[0], ends[1]), held)
    return held & ((1 << fmt.bits) - 1)


def _wrapped(steps: NDArray[np.float64], w: int, mirrored: bool, n: int, over: NDArray[np.bool_]) -> Codes:
    """Return codes of `w` bits of integers that wrap: IEEE 1666-2011, 7.10.9.2, with n saturated bits."""
    period = 2.0 ** (w + 2)  # the lowest deleted bit, too
    low = np.fmod(steps, period)
    low = np.where(low < 0, low + period, low).astype(np.int64)
    kept, negative = low & ((1 << w) - 1), steps < 0
    top = (kept >> (w - 1)) & 1
    if n == 0:
        if not mirrored:
            return kept
        sign = (low >> w) & 1  # the lowest deleted bit
        rest = kept & ((1 << (w - 1)) - 1)
        rest = np.where(sign != top, ~rest & ((1 << (w - 1)) - 1), rest)
        return np.where(over, sign << (w - 1) | rest, kept)
    sign = negative.astype(np.int64)
    fixed_bits = np.where(negative, 0, (1 << (n - 1)) - 1)  # n - 1 bits as saturation has them
    rest = kept & ((1 << (w - n)) - 1)
    if mirrored:
        last = (kept >> (w - n)) & 1
        new = sign if n == 1 else 1 - sign
        rest = np.where(last != new, ~rest & ((1 << (w - n)) - 1), rest)
    return np.where(over, sign << (w - 1) | fixed_bits << (w - n) | rest, kept)


# --- Integers --------------------------------------------------------------------------------------------------------


def requantize(x: Operands, words: Words, fmt: Format, how: Mapping[str, Any]) -> Codes:  # noqa: ARG001 - as every rule
    """Multiply int32 by m 2^-31, shift, round, add the zero point, and saturate to int8.

    "doubling" rounds twice, as gemmlowp's SaturatingRoundingDoublingHighMul (ties up) and RoundingDivideByPOT (ties away);
    "single" rounds the product once, ties up, as TFLite's single-rounding build does. `multiplier` is m, 2^30 <= m < 2^31,
    `shift` how far right.
    """
    rule = "tflite-single" if how["rounding"] == "single" else "gemmlowp"
    codes = integers.requantize(
        x.integers,
        int(how["multiplier"]),
        -int(how["shift"]),
        rule=rule,
        zero_point=int(how.get("zero_point", 0)),
        fmt=fmt.name,
    )
    return codes & ((1 << fmt.bits) - 1)


RULES: Mapping[str, Rule] = {
    "add_and_cut": add_and_cut, "bias_operand": bias_operand, "wrapped_sum": wrapped_sum, "sfpstochrnd": sfpstochrnd,
    "fixed": fixed, "requantize": requantize,
}  # fmt: skip
