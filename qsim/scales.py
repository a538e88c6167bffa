"""Scales: which number s the elements of an array are divided by before a rounding and multiplied by after it.

fl(.) is rounding to nearest even in the input's own precision. float16 and bfloat16 are computed in float32 and rounded once
more: 24 bits are at least twice theirs and two more, so that a quotient or product rounded twice is one rounded once
(Figueroa 1995; below the normal range the quotient is farther from any midpoint still).
"""

from __future__ import annotations

import functools
import math
from collections.abc import Iterator
from fractions import Fraction
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from qsim.errors import InputError
from qsim.formats import Format, Grid, get_format
from qsim.kernels import cpu
from qsim.kernels.division import divide_all
from qsim.kernels.parameters import addends, parameters
from qsim.kernels.threads import in_parts
from qsim.rounding import Mode, Per, Quantizer, Saturation

__all__ = [
    "INPUTS",
    "apply_scale",
    "derive_scale",
    "flush_input",
    "given_scale",
    "number_format",
    "remove_scale",
    "rows_of",
]


PIECE = 1 << 16
"""Elements that are looked at in one go where no loop of ours does it."""

INPUTS = ("float16", "bfloat16", "float32", "float64")
"""The types that bring numbers in, each named as its format."""


@functools.cache
def number_format(dtype: np.dtype[Any]) -> Grid:
    """Return the format of an array's numbers: float16, bfloat16, float32 and float64 have the names of their types."""
    fmt = get_format(dtype.name)
    assert isinstance(fmt, Grid)
    return fmt


@functools.cache
def largest_number(dtype: np.dtype[Any]) -> float:
    """Return the largest finite number of an array's type."""
    return number_format(dtype).max


def _wide(x: NDArray[Any]) -> NDArray[Any]:
    """Return `x` in the type that is computed in."""
    return x if x.dtype.itemsize >= 4 else x.astype(np.float32)


def _fl(y: NDArray[Any], dtype: np.dtype[Any]) -> NDArray[Any]:
    """Return `y`, computed in the type of `_wide`, rounded to nearest even in `dtype`."""
    return y if y.dtype == dtype else y.astype(dtype).astype(y.dtype)


def flush_input(x: NDArray[Any], q: Quantizer) -> NDArray[Any]:
    """Return `x` with zeros of their sign in place of subnormal numbers of its type, if `q` says so."""
    if not q.ftz_in:
        return x
    tiny = x.dtype.type(number_format(x.dtype).smallest_normal)
    return np.where(np.abs(x) < tiny, np.copysign(x.dtype.type(0), x), x)


def shared_axes(per: Per, ndim: int) -> tuple[int, ...]:
    """Return the axes along which a scale is shared; raise `InputError` for an axis that is not there."""
    if per == "tensor":
        return tuple(range(ndim))
    if isinstance(per, str):
        if not ndim:
            raise InputError(f"per = {per!r} needs an array with axes; a single number is its own tensor")
        kept = tuple(range(ndim - 1)) if per == "token" else (0,)
    else:
        kept = per if isinstance(per, tuple) else (per,)
        for axis in kept:
            if not -ndim <= axis < ndim:
                raise InputError(f"per = {per!r} names the axis {axis} of an array of {ndim} axes")
    return tuple(axis for axis in range(ndim) if axis not in {k % ndim for k in kept})


def rows_of(s: NDArray[Any], shape: tuple[int, ...]) -> int | None:
    """Return how many rows, of one scale each, an array of this shape has, its last axes together; `None` if it has none."""
    if s.size == 1:
        return 1
    if s.ndim != len(shape):
        return None
    split = next((axis for axis, count in enumerate(s.shape) if count == 1), s.ndim)
    rows = s.shape == shape[:split] + (1,) * (len(shape) - split)
    return s.size if rows else None


@np.errstate(all="ignore")  # infinities, NaN and underflows are looked at here
def derive_scale(x: NDArray[Any], q: Quantizer, lead: int = 0) -> NDArray[Any] | None:
    """Return the scale of `x`, in its dtype and of a shape that broadcasts against it; `None` for no scaling.

    "absmax": fl(max|x| / max), or the float above it, so that fl(max|x| / s) <= max. "pow2": the smallest power of two s
    with s max >= max|x|. "absmean": the mean of |x|, rounded once. NaN and infinities do not count, nor with `ftz_in` do
    subnormal numbers. The scale is 1 where no element but zeros is left, where it would not be a normal number, and where the
    largest value is none in which x is computed: no quotient could reach it. The first `lead` axes have scales of their own
    whatever `q.per` says. Raise `InputError` for an `x` that cannot be rounded, and for a frozen scale that the dtype rounds to
    zero or infinity.
    """
    if not isinstance(q, Quantizer) or not isinstance(x, np.ndarray | np.generic) or x.dtype.name not in INPUTS:
        raise InputError("derive_scale takes an array of float16, bfloat16, float32 or float64, and a qsim.Quantizer")
    if q.scale == "none":
        return None
    if not isinstance(q.scale, str):
        return given_scale(q.scale, x, lead)
    x = np.asarray(x) if isinstance(x, np.ndarray) else x  # of a matrix a sum cannot keep its axes
    axes = tuple(lead + axis for axis in shared_axes(q.per, x.ndim - lead))
    number, limit, reached, smallest, beyond = _limits(q.format, x.dtype)
    largest = _largest(x, axes, q).astype(number)
    if q.scale == "absmean":
        derived = _mean(x, axes, q).astype(number)
    elif q.scale == "pow2":
        # Both are fraction * 2^exponent with fractions in [1/2, 1), so s = 2^(difference), or twice that.
        (fraction, exponent), (part, shift) = np.frexp(largest), np.frexp(limit)
        derived = np.ldexp(np.ones_like(largest), exponent - shift + (fraction > part))
    else:
        derived = _fl(largest / limit, x.dtype)
        # The division rounds, and the largest element must not come out above the largest value.
        above = _fl(largest / np.where(derived > 0, derived, number(1)), x.dtype) > limit
        derived = np.where(above, np.nextafter(derived.astype(x.dtype), x.dtype.type(np.inf)).astype(number), derived)
    usable = (largest > 0) & reached & (derived >= smallest) & (derived <= beyond)
    scale: NDArray[Any] = np.where(usable, derived, number(1)).astype(x.dtype)
    return scale


@functools.lru_cache(maxsize=1024)
def _limits(fmt: Format, dtype: np.dtype[Any]) -> tuple[Any, ...]:
    """Return the type in which a scale is computed, and in it the format's largest magnitude, and whether it has that.

    Likewise the ends of the normal numbers of `dtype`.
    """
    number: Any = np.dtype(np.float64 if dtype.itemsize == 8 else np.float32).type
    given = number_format(dtype)
    limit = number(fmt.max if fmt.max > 0 else -fmt.min)
    limit = np.nextafter(limit, number(0)) if float(limit) > fmt.max > 0 else limit
    limit = min(limit, number(given.max))  # beyond it no quotient can be
    reached = bool(limit >= number_format(np.dtype(number)).smallest_normal)
    return number, limit, reached, number(given.smallest_normal), number(given.max)


Place = tuple[slice, ...]


def _pieces(x: NDArray[Any], axes: tuple[int, ...]) -> Iterator[tuple[Place, Place]]:
    """Yield where pieces of `x` lie that a cache holds, halves of halves, and where what is found along `axes` belongs."""
    everywhere = tuple(slice(0, size) for size in x.shape)
    waiting = [everywhere] if x.size else []
    while waiting:
        place = waiting.pop()
        sizes = [part.stop - part.start for part in place]
        if math.prod(sizes) <= PIECE:
            yield place, tuple(slice(0, 1) if axis in axes else part for axis, part in enumerate(place))
            continue
        axis = sizes.index(max(sizes))
        begin, end = place[axis].start, place[axis].stop
        halves = (slice(begin, (begin + end) // 2), slice((begin + end) // 2, end))
        waiting.extend((*place[:axis], part, *place[axis + 1 :]) for part in halves)


def _largest(x: NDArray[Any], axes: tuple[int, ...], q: Quantizer) -> NDArray[Any]:
    """Return the largest finite magnitude along `axes`, which stay with length 1; 0 where there is none.

    Any patterns will do that ascend with magnitudes: those of float16 and bfloat16 are as good as those of float32.
    """
    word, number = np.dtype(f"u{x.dtype.itemsize}").type, number_format(x.dtype)
    least, inf = (int(x.dtype.type(value).view(word)) for value in (number.smallest_normal if q.ftz_in else 0, np.inf))
    sign = 1 << (8 * x.dtype.itemsize - 1)
    shape = tuple(1 if axis in axes else size for axis, size in enumerate(x.shape))
    found = np.zeros(shape, word)
    rows = rows_of(found, x.shape)
    if rows and x.flags.c_contiguous and x.size:
        u, flat = x.view(word).reshape(rows, -1), found.reshape(-1)
        if rows > 1:
            cpu.largest(u, flat, least, inf, sign)
        else:
            parts: list[Any] = []

            def look(begin: int, end: int) -> None:
                part = np.zeros(1, word)
                cpu.largest(u[0, begin:end].reshape(1, -1), part, least, inf, sign)
                parts.append(part[0])

            in_parts(u.size, look)
            flat[0] = max(parts)
    else:
        for place, to in _pieces(x, axes):
            a = np.ascontiguousarray(x[place]).view(word) & word(sign - 1)
            a[(a >= inf) | (a < least)] = 0
            found[to] = np.maximum(found[to], a.max(axis=axes, keepdims=True))
    return found.view(x.dtype)


def given_scale(scale: ArrayLike, x: NDArray[Any], lead: int = 0) -> NDArray[Any]:
    """Return a frozen scale in the dtype of `x`, with `lead` axes before its own; refuse what is not positive there."""
    array = np.asarray(scale)
    if array.dtype.kind not in "fiu" and array.dtype.name != "bfloat16":
        raise InputError(f"scale of {array.dtype} must be positive finite numbers")
    with np.errstate(over="ignore"):
        narrow = x.dtype.itemsize == 2 and array.dtype == np.float64
        frozen = (_once(array, x.dtype) if narrow else array).astype(x.dtype)
    wide = _wide(frozen)
    for bad in array[~((wide > 0) & np.isfinite(wide))].reshape(-1)[:1].tolist():
        raise InputError(
            f"scale = {bad!r} must be positive, and within the range of {x.dtype}, in which x is divided by it"
        )
    try:
        np.broadcast_to(frozen, x.shape[lead:] if frozen.ndim else x.shape)
    except ValueError:
        raise InputError(f"scale of shape {frozen.shape} does not broadcast to the shape {x.shape} of x") from None
    return frozen.reshape((1,) * (x.ndim - frozen.ndim) + frozen.shape)


def _mean(x: NDArray[Any], axes: tuple[int, ...], q: Quantizer) -> NDArray[Any]:
    """Return the mean along `axes` of the finite magnitudes of `x`, rounded once, to its type.

    n terms added in float64, in any order, and divided are off by less than (n + 4) 2^-53 of the result. Where the numbers at
    both ends of that round alike they round as the mean does; elsewhere it is summed exactly.
    """
    shape = tuple(1 if axis in axes else size for axis, size in enumerate(x.shape))
    total, counts = np.zeros(shape), np.zeros(shape, np.int64)
    for place, to in _pieces(x, axes):
        finite, counted = _finite(x[place], q)
        total[to] += finite.sum(axis=axes, keepdims=True)
        counts[to] += counted.sum(axis=axes, keepdims=True)
    counts = np.maximum(counts, 1)
    near, slack = total / counts, (math.prod(x.shape[axis] for axis in axes) + 4) * 2.0**-53
    means, below, above = (_once(ends, x.dtype) for ends in (near, near * (1 - slack), near * (1 + slack)))
    for at in map(tuple, np.argwhere((below != above) | ~np.isfinite(near)).tolist()):
        some = x[tuple(slice(None) if axis in axes else slice(k, k + 1) for axis, k in enumerate(at))]
        whole = sum((_sum(_finite(some[place], q)[0].reshape(-1)) for place, _ in _pieces(some, axes)), Fraction(0))
        means[at] = _nearest(whole / int(counts[at]), number_format(x.dtype))
    return means


def _finite(x: NDArray[Any], q: Quantizer) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """Return the finite magnitudes as float64, with 0 in place of others, and which are finite."""
    wide = flush_input(x, q).astype(np.float64)
    counted = np.isfinite(wide)
    return np.where(counted, np.abs(wide), 0.0), counted


def _sum(row: NDArray[np.float64]) -> Fraction:
    """Return the exact sum: the significands, integers of 53 bits, are added in two halves for each exponent."""
    fractions, exponents = np.frexp(row)
    integers = (fractions * 2.0**53).astype(np.int64)
    total = Fraction(0)
    for exponent in np.unique(exponents).tolist():
        some = integers[exponents == exponent]
        whole = (int((some >> 26).sum()) << 26) + int((some & (1 << 26) - 1).sum())
        total += whole * Fraction(2) ** (exponent - 53)
    return total


def _once(y: NDArray[np.float64], dtype: np.dtype[Any]) -> NDArray[np.float64]:
    """Return `y` rounded to nearest in `dtype`, by our kernel: ml_dtypes rounds float64 to bfloat16 by way of float32."""
    p, t = parameters(number_format(dtype), Saturation.SatNone, y.dtype), addends(Mode.RNE, y.dtype)
    rounded = np.empty(y.size)
    patterns = np.ascontiguousarray(y).reshape(-1).view(np.uint64)
    cpu.round_by_addends(patterns, rounded.view(np.uint64), t, p)
    return rounded.reshape(y.shape)


def _nearest(x: Fraction, fmt: Grid) -> float:
    """Return the value of the format nearest to x >= 0, which is within the range; ties go to even."""
    ordinal, nu = fmt.split(x)
    half = Fraction(1, 2)
    return float(fmt.value(ordinal + (nu > half or (nu == half and ordinal % 2 == 1))))


@np.errstate(all="ignore")
def apply_scale(x: NDArray[Any], s: NDArray[Any], q: Quantizer, bits: int) -> NDArray[Any]:
    """Return what is rounded in place of `x`: x / s in the order that `q` names; float64 rounded to odd for "exact".

    `bits` is the number of random bits. Raise `InputError` where a quotient rounded to odd would not tell the same as the
    true one.
    """
    wide, scale = _wide(x), _wide(s)
    if q.order == "divide":
        return _fl(wide / scale, x.dtype)
    if q.order == "reciprocal":
        product = wide * _fl(wide.dtype.type(1) / scale, x.dtype)
        return _fl(np.where(wide == 0, wide, product), x.dtype)  # a zero stays one where 1 / s is beyond the range
    if q.saturation is Saturation.wrap:
        raise InputError(
            "order = 'exact' divides to 53 bits, too few for a large number that wraps around; take another order"
        )
    fmt = q.format
    bits = max(bits, 1) + (q.mode is not Mode.SRA and q.mode is not Mode.SR)  # where a bit below the last one decides
    if q.mode is Mode.THR or not isinstance(fmt, Grid) or fmt.gap or fmt.man_bits + bits > 51 or fmt.lsb - bits < -1073:
        raise InputError(
            f"order = 'exact' divides to 53 bits, too few to decide {q.mode} to {fmt.name} with {bits} bits beyond its own; "
            f"take fewer random bits, or another order"
        )
    u = np.ascontiguousarray(wide, np.float64).view(np.uint64)
    v = np.ascontiguousarray(np.broadcast_to(scale, x.shape), np.float64).view(np.uint64)
    y = np.empty(x.shape, np.float64)
    divide_all(u.reshape(-1), v.reshape(-1), y.view(np.uint64).reshape(-1))
    return y


@np.errstate(all="ignore")
def remove_scale(y: NDArray[Any], s: NDArray[Any], q: Quantizer) -> None:
    """Make fl(y s) of `y`; where the rounding saturates, the product does not overflow either."""
    product = _wide(y)
    np.multiply(product, _wide(s), out=product)
    if q.saturation in (Saturation.SatFinite, Saturation.saturate):
        limit = product.dtype.type(largest_number(y.dtype))
        np.clip(product, -limit, limit, out=product)
    if product is not y:
        y[...] = product
