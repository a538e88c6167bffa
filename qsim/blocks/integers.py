"""Affine quantization with zero points, and the requantization of int32 accumulators, as inference libraries do them.

A number x stands for s (q - z): s the scale, z the zero point, q an integer code. An accumulator times a real factor, the
product of two scales over a third, is computed by integers alone: a multiplier M of 31 bits and a shift. The libraries round
that product in different ways, and twice or once:

    gemmlowp         the doubled high half of x 2^left M, ties up, then >> right with ties away from zero: two roundings
    tflite-single    (x M + 2^(n-1)) >> n with n = 31 - shift: one rounding, ties up
    tosa             (x M + 2^(n-1)) >> n: the same, for n = 2 .. 62
    tosa-double      the same with 2^30 more, or less for x < 0, where n > 31
    exact            x M 2^-n rounded once, ties to even
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from fractions import Fraction
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from qsim import arrays
from qsim.errors import InputError, enumerate_names, integer, nearest
from qsim.formats import Grid, get_format
from qsim.underflow import gradual_underflow

__all__ = ["AFFINE", "REQUANTIZE", "affine", "affine_parameters", "affine_values", "multiplier_of", "requantize"]

Rule = Literal["onnx", "torch", "tflite"]

AFFINE: Mapping[str, tuple[str, str, str]] = {
    "onnx": ("divide", "RNE", "ONNX, operator QuantizeLinear: round-half-even of fl(x / s), then the zero point"),
    "torch": ("reciprocal", "RNE", "PyTorch, quantize_per_tensor on a CPU: round-half-even of fl(x fl(1 / s))"),
    "tflite": ("divide", "RNA", "TensorFlow Lite, AffineQuantize: round-half-away of fl(x / s)"),
}
"""Rules of affine quantization: the order of the quotient, the rounding, and the source."""


def _grid(fmt: str) -> Grid:
    found = get_format(fmt)
    if not isinstance(found, Grid) or found.kind != "integer":
        raise InputError(f"{found.name} holds no integers; affine quantization goes to int8, uint4 and the like")
    return found


@gradual_underflow
def affine(
    x: ArrayLike, fmt: str, scale: ArrayLike, zero_point: ArrayLike = 0, *, axis: int | None = None, rule: str = "onnx"
) -> NDArray[np.int64]:
    """Return the integers clamp(round(x / s) + z) of float32 numbers, in the range of an integer format.

    `scale` and `zero_point` are numbers, or one for each index of `axis`. NaN becomes the zero point's own value, 0 + z. Raise
    `InputError` for a rule that is none of `AFFINE`, and for parameters that do not fit.
    """
    if rule not in AFFINE:
        raise InputError(
            f"no rule of affine quantization is called {rule!r}; did you mean {nearest(str(rule), AFFINE)}?"
        )
    order, mode, _ = AFFINE[rule]
    grid = _grid(fmt)
    array = np.asarray(x, np.float32)
    s, z = _parameters(array, scale, zero_point, axis)
    with np.errstate(all="ignore"):
        quotient = array / s if order == "divide" else array * (np.float32(1) / s)
    wide = np.asarray(arrays.quantize(np.ascontiguousarray(quotient, np.float64), "int32", mode))
    codes: NDArray[np.int64] = np.clip(wide.astype(np.int64) + z, -grid.bottom, grid.top)
    return codes


@gradual_underflow
def affine_values(
    q: ArrayLike, scale: ArrayLike, zero_point: ArrayLike = 0, *, axis: int | None = None
) -> NDArray[np.float32]:
    """Return the float32 numbers fl(s (q - z)) that integers stand for."""
    codes = arrays.as_array(q, "q")
    if codes.dtype.kind not in "iu":
        raise InputError(f"codes are integers, not {codes.dtype}")
    s, z = _parameters(codes, scale, zero_point, axis)
    values: NDArray[np.float32] = (codes.astype(np.int64) - z).astype(np.float32) * s
    return values


def _parameters(
    x: NDArray[Any], scale: ArrayLike, zero_point: ArrayLike, axis: int | None
) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    s, z = np.asarray(scale, np.float32), np.asarray(zero_point)
    if z.dtype.kind not in "iu":
        raise InputError(f"zero_point must be integers, not {z.dtype}")
    if not (np.isfinite(s) & (s > 0)).all():
        raise InputError("scale must be positive finite numbers")
    if axis is None:
        if s.ndim or z.ndim:
            raise InputError("several scales or zero points need axis, the one along which they lie")
        return s, z.astype(np.int64)
    axis = integer("axis", axis)
    if not -x.ndim <= axis < x.ndim:
        raise InputError(f"axis = {axis} is not one of the {x.ndim} of x")
    shape = [1] * x.ndim
    shape[axis] = x.shape[axis]
    try:
        return np.broadcast_to(s, shape[axis]).reshape(shape), np.broadcast_to(z, shape[axis]).reshape(shape).astype(
            np.int64
        )
    except ValueError:
        raise InputError(f"scale and zero_point must have {shape[axis]} entries, those of the axis") from None


def affine_parameters(low: float, high: float, fmt: str) -> tuple[float, int]:
    """Return the scale and zero point of the range low .. high, widened to hold 0, for an integer format.

    s = fl((high - low) / (levels - 1)), z = round-half-even(least - low / s), clamped; the scale of an empty range is 1.
    Source: ONNX, operator DynamicQuantizeLinear, whose scale of zeros is 1 in onnxruntime.
    """
    grid = _grid(fmt)
    least, most = -grid.bottom, grid.top
    bottom, top = np.float32(min(low, 0.0)), np.float32(max(high, 0.0))
    if not (np.isfinite(bottom) and np.isfinite(top)):
        raise InputError(f"the range {low} .. {high} must be finite")
    s = np.float32((top - bottom) / np.float32(most - least))
    if not s:
        return 1.0, min(max(0, least), most)
    z = int(np.rint(np.float32(least) - bottom / s))
    return float(s), min(max(z, least), most)


# --- Requantization ------------------------------------------------------------------------------------------


def multiplier_of(factor: float) -> tuple[int, int]:
    """Return the multiplier M, 2^30 <= M < 2^31, and the shift with factor = M 2^(shift - 31), M rounded with ties away.

    Source: TensorFlow Lite, QuantizeMultiplier. Factors below 2^-32 become 0, as there.
    """
    if not 0 <= factor < math.inf:
        raise InputError(f"factor = {factor!r} must be a finite number, not negative")
    if not factor:
        return 0, 0
    fraction, shift = math.frexp(factor)
    multiplier = math.floor(Fraction(fraction) * (1 << 31) + Fraction(1, 2))
    if multiplier == 1 << 31:
        multiplier, shift = multiplier // 2, shift + 1
    if shift < -31:
        return 0, 0
    if shift > 30:
        return (1 << 31) - 1, 30
    return multiplier, shift


def _gemmlowp(x: NDArray[np.int64], m: int, shift: int) -> NDArray[np.int64]:
    left, right = max(shift, 0), max(-shift, 0)
    shifted = _wrapped(x << left)
    product = shifted * m
    nudge = np.where(product >= 0, 1 << 30, 1 - (1 << 30))
    total = product + nudge
    high = np.where(total >= 0, total >> 31, -((-total) >> 31))  # C's division goes toward zero
    mask = (1 << right) - 1
    rest, threshold = high & mask, (mask >> 1) + (high < 0)
    result: NDArray[np.int64] = (high >> right) + (rest > threshold)
    return result


def _single(x: NDArray[np.int64], m: int, shift: int) -> NDArray[np.int64]:
    n = 31 - shift
    result: NDArray[np.int64] = (x * m + (1 << (n - 1))) >> n
    return result


def _tosa_double(x: NDArray[np.int64], m: int, shift: int) -> NDArray[np.int64]:
    n = 31 - shift
    half = np.full(x.shape, 1 << (n - 1), np.int64)
    if n > 31:
        half += np.where(x >= 0, 1 << 30, -(1 << 30))
    result: NDArray[np.int64] = (x * m + half) >> n
    return result


def _exact(x: NDArray[np.int64], m: int, shift: int) -> NDArray[np.int64]:
    n = 31 - shift
    product = x * m
    whole, rest = product >> n, product & ((1 << n) - 1)
    half = 1 << (n - 1)
    result: NDArray[np.int64] = whole + ((rest > half) | ((rest == half) & (whole & 1 == 1)))
    return result


REQUANTIZE: Mapping[str, tuple[Callable[[NDArray[np.int64], int, int], NDArray[np.int64]], str]] = {
    "gemmlowp": (
        _gemmlowp,
        "gemmlowp, fixedpoint.h: SaturatingRoundingDoublingHighMul, RoundingDivideByPOT; TensorFlow Lite",
    ),
    "tflite-single": (_single, "TensorFlow Lite, MultiplyByQuantizedMultiplier under TFLITE_SINGLE_ROUNDING"),
    "tosa": (_single, "TOSA 1.0, apply_scale_32 with double_round = false"),
    "tosa-double": (_tosa_double, "TOSA 1.0, apply_scale_32 with double_round = true"),
    "exact": (_exact, "one rounding to nearest even, the definition to compare with"),
}
"""How an accumulator is multiplied by M 2^(shift - 31), and where that is said."""


def _wrapped(x: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return the low 32 bits in two's complement."""
    return x.astype(np.int32).astype(np.int64)


def requantize(
    accumulator: ArrayLike,
    multiplier: int,
    shift: int,
    *,
    rule: str = "gemmlowp",
    zero_point: int = 0,
    fmt: str | None = None,
) -> NDArray[np.int64]:
    """Return int32 accumulators times M 2^(shift - 31), by a rule of `REQUANTIZE`, plus the zero point.

    With `fmt`, an integer format, the result is clamped to its range, else it wraps around at 32 bits, as the libraries' int32.
    `multiplier` and `shift` are those of `multiplier_of`: 0 <= M < 2^31, -31 <= shift <= 30. Raise `InputError` for others, and
    for accumulators that are no int32.
    """
    if rule not in REQUANTIZE:
        raise InputError(f"no rule of requantization is called {rule!r}; it is {enumerate_names(REQUANTIZE)}")
    m, shift = integer("multiplier", multiplier), integer("shift", shift)
    if not 0 <= m < 1 << 31 or not -31 <= shift <= 30:
        raise InputError(
            f"multiplier = {m}, shift = {shift}: they are 0 .. 2^31 - 1 and -31 .. 30, as multiplier_of has them"
        )
    array = arrays.as_array(accumulator, "accumulator")
    if array.dtype.kind not in "iu":
        raise InputError(f"accumulators are integers, not {array.dtype}")
    wide = array.astype(np.int64)
    if array.size and not -(1 << 31) <= int(array.min()) <= int(array.max()) < 1 << 31:
        raise InputError(f"accumulators have 32 bits, not {array.min()} .. {array.max()}")
    result = REQUANTIZE[rule][0](wide, m, shift) + integer("zero_point", zero_point)
    if fmt is None:
        return _wrapped(result)
    grid = _grid(fmt)
    return np.clip(result, -grid.bottom, grid.top)
