"""Scales: which number s the elements of an array are divided by before a rounding and multiplied by after it.

Scales and quotients are float32 for inputs of up to 32 bits, float64 for float64; fl(.) is rounding to nearest even there. With
the order "input" they have the precision of the input. Of float16 and bfloat16 they are then computed in float32 and rounded
once more: 24 bits are at least twice theirs and two more, so that a quotient rounded twice is one rounded once (Figueroa 1995;
below the normal range the quotient is farther from any midpoint still).
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
from qsim.pieces import Pieces, Place
from qsim.rounding import Mode, Order, Per, Quantizer, Saturation
from qsim.underflow import SMALLER, SUBNORMAL, with_gradual_underflow

__all__ = [
    "INPUTS",
    "apply_scale",
    "derive_scale",
    "flush_input",
    "given_scale",
    "is_real",
    "number_format",
    "overflows",
    "remove_scale",
    "rows_of",
    "saturates",
    "scale_type",
    "zeros_for",
]


PIECE = 1 << 16
"""Elements that are looked at in one go where no loop of ours does it."""

SINGLE = np.dtype(np.float32)

READ = 1 << 20
"""Elements that are read from a file in one go."""

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


def scale_type(dtype: np.dtype[Any], order: Order) -> np.dtype[Any]:
    """Return the type of the scales and quotients of an array of `dtype`."""
    return SINGLE if dtype.itemsize == 2 and order != "input" else dtype


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
def derive_scale(x: NDArray[Any] | Pieces, q: Quantizer, lead: int = 0) -> NDArray[Any] | None:
    """Return the scale of `x`, of a shape that broadcasts against it; `None` for no scaling.

    It is float32 for float16, bfloat16 and float32, float64 for float64, and of the type of x with the order "input". With M
    the largest magnitude of the format (of both signs, where it has two; as a number of the type computed in):
    "absmax": fl(max|x| / M), or the first number above it with which max|x|, scaled by `q.order`, does not exceed M.
    "absmax_nearest": fl(max|x| / M). "pow2": the smallest power of two s with s M >= max|x|. "absmean": the mean of |x|,
    rounded once. NaN and infinities do not count, nor with `ftz_in` do subnormal numbers. A scale is a normal number: the
    smallest or largest one (or power of two) where it would be beyond these, and 1 only where no element but zeros is left.
    The first `lead` axes have scales of their own whatever `q.per` says. `decode(codes) * s`, rounded to the type of x, is what
    `quantize` returns. Raise `InputError` for an `x` that cannot be rounded, and for a frozen scale that its type rounds to
    zero or infinity.
    """
    if not SUBNORMAL - SMALLER:
        return with_gradual_underflow(derive_scale, locals())
    if (
        not isinstance(q, Quantizer)
        or not isinstance(x, np.ndarray | np.generic | Pieces)
        or x.dtype.name not in INPUTS
    ):
        raise InputError("derive_scale takes an array of float16, bfloat16, float32 or float64, and a qsim.Quantizer")
    if q.scale == "none":
        return None
    if not isinstance(q.scale, str):
        return given_scale(q.scale, x, q.order, lead)
    x = np.asarray(x) if isinstance(x, np.ndarray) else x  # of a matrix a sum cannot keep its axes
    axes = tuple(lead + axis for axis in shared_axes(q.per, x.ndim - lead))
    own = scale_type(x.dtype, q.order)
    number, limit, least, most = _limits(q.format, own)
    largest = _largest(x, axes, q).astype(number)
    if q.scale == "absmean":
        derived = _mean(x, axes, q, own).astype(number)
    elif q.scale == "pow2":
        # Both are fraction * 2^exponent with fractions in [1/2, 1), so s = 2^(difference), or twice that.
        (fraction, exponent), (part, shift) = np.frexp(largest), np.frexp(limit)
        derived = np.ldexp(number(1), exponent - shift + (fraction > part))
        most = np.ldexp(number(0.5), np.frexp(most)[1])  # the largest power of two
    elif own.itemsize == 2:  # a float64 has enough digits for a quotient that is rounded once more
        derived = _once(largest.astype(np.float64) / limit, own).astype(number)
    else:
        derived = largest / limit
    derived = np.minimum(np.maximum(derived, least), most)
    while q.scale == "absmax":  # the division rounds, and the largest element must not come out above the largest value
        above = (_quotients(largest, derived, q.order, own) > limit) & (derived < most)
        if not above.any():
            break
        derived = np.where(above, np.nextafter(derived.astype(own), own.type(np.inf)).astype(number), derived)
    scale: NDArray[Any] = np.where(largest > 0, derived, number(1)).astype(own)
    return scale


@functools.lru_cache(maxsize=1024)
def _limits(fmt: Format, own: np.dtype[Any]) -> tuple[Any, ...]:
    """Return the type in which a scale of the type `own` is computed, and in it the magnitude to which the largest one goes.

    Likewise the ends of the normal numbers of `own`.
    """
    number: Any = np.dtype(np.float64 if own.itemsize == 8 else np.float32).type
    normal = number_format(own)
    end = min((end for end in (fmt.max, -fmt.min) if end > 0), default=0.0)
    limit = number(end)
    limit = np.nextafter(limit, number(0)) if float(limit) > end else limit
    limit = min(limit, number(normal.max))  # beyond it no quotient can be
    return number, limit, number(normal.smallest_normal), number(normal.max)


def _pieces(
    x: NDArray[Any] | Pieces, axes: tuple[int, ...], within: Place | None = None, most: int = 0
) -> Iterator[tuple[Place, Place]]:
    """Yield where pieces of `x` lie that a cache holds, halves of halves, and where the results along `axes` belong."""
    everywhere = tuple(slice(0, size) for size in x.shape) if within is None else within
    waiting = [everywhere] if x.size else []
    while waiting:
        place = waiting.pop()
        sizes = [part.stop - part.start for part in place]
        if math.prod(sizes) <= (most or PIECE):
            yield place, tuple(slice(0, 1) if axis in axes else part for axis, part in enumerate(place))
            continue
        axis = sizes.index(max(sizes))
        begin, end = place[axis].start, place[axis].stop
        halves = (slice(begin, (begin + end) // 2), slice((begin + end) // 2, end))
        waiting.extend((*place[:axis], part, *place[axis + 1 :]) for part in halves)


def _largest(x: NDArray[Any] | Pieces, axes: tuple[int, ...], q: Quantizer) -> NDArray[Any]:
    """Return the largest finite magnitude along `axes`, which stay with length 1; 0 where there is none.

    Any patterns will do that ascend with magnitudes: those of float16 and bfloat16 are as good as those of float32.
    """
    word, number = np.dtype(f"u{x.dtype.itemsize}").type, number_format(x.dtype)
    least, inf = (int(x.dtype.type(value).view(word)) for value in (number.smallest_normal if q.ftz_in else 0, np.inf))
    sign = 1 << (8 * x.dtype.itemsize - 1)
    shape = tuple(1 if axis in axes else size for axis, size in enumerate(x.shape))
    found = np.zeros(shape, word)
    if isinstance(x, Pieces):
        for place, to in _pieces(x, axes, most=READ):
            found[to] = np.maximum(found[to], _largest(x[place], axes, q).view(word))
        return found.view(x.dtype)
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


def is_real(dtype: np.dtype[Any]) -> bool:
    """Return whether a type is one of real numbers: NumPy's, or one of ml_dtypes, which NumPy calls raw bytes."""
    return dtype.kind in "fiu" or (dtype.kind == "V" and dtype.names is None and np.can_cast(dtype, np.float64))


def given_scale(
    scale: ArrayLike, x: NDArray[Any] | Pieces, order: Order, lead: int = 0, *, zeros: bool = False
) -> NDArray[Any]:
    """Return a frozen scale in the type of quotients of `x`, with `lead` axes before its own; `zeros`: it may be 0.

    Refuse scales that are not positive there.
    """
    array, own = np.asarray(scale), scale_type(x.dtype, order)
    if not is_real(array.dtype):
        raise InputError(f"scale of {array.dtype} must be positive finite numbers")
    with np.errstate(over="ignore"):
        narrow = own.itemsize == 2 and array.dtype == np.float64
        frozen = (_once(array, own) if narrow else array).astype(own)
    wide = _wide(frozen)
    positive = (wide > 0) & np.isfinite(wide)
    if zeros and not positive.all():
        positive |= array.astype(np.float64) == 0
    for bad in array[~positive].reshape(-1)[:1].tolist():
        raise InputError(
            f"scale = {bad!r} must be positive, and within the range of {own}, in which x is divided by it"
        )
    try:
        np.broadcast_to(frozen, x.shape[lead:] if frozen.ndim else x.shape)
    except ValueError:
        raise InputError(f"scale of shape {frozen.shape} does not broadcast to the shape {x.shape} of x") from None
    return frozen.reshape((1,) * (x.ndim - frozen.ndim) + frozen.shape)


def zeros_for(x: NDArray[Any], s: NDArray[Any]) -> tuple[NDArray[Any], NDArray[Any], NDArray[np.bool_]]:
    """Return `x` with zeros of its signs where the scale is 0, `s` with 1 there, and where that is; NaN stays NaN."""
    zero = s == 0
    return np.where(zero & ~np.isnan(x), np.copysign(x.dtype.type(0), x), x), np.where(zero, s.dtype.type(1), s), zero


def _mean(x: NDArray[Any] | Pieces, axes: tuple[int, ...], q: Quantizer, own: np.dtype[Any]) -> NDArray[Any]:
    """Return the mean along `axes` of the finite magnitudes of `x`, rounded once, to the type `own`.

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
    means, below, above = (_once(ends, own) for ends in (near, near * (1 - slack), near * (1 + slack)))
    for at in map(tuple, np.argwhere((below != above) | ~np.isfinite(near)).tolist()):
        some = tuple(slice(0, x.shape[axis]) if axis in axes else slice(k, k + 1) for axis, k in enumerate(at))
        whole = sum((_sum(_finite(x[place], q)[0].reshape(-1)) for place, _ in _pieces(x, axes, some)), Fraction(0))
        means[at] = _nearest(whole / int(counts[at]), number_format(own))
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


def _quotients(wide: NDArray[Any], s: NDArray[Any], order: Order, own: np.dtype[Any]) -> NDArray[Any]:
    """Return x / s in the named order; x and s are held in the type of `_wide`, and `own` is that of the quotients."""
    if order == "exact":  # as a float64, rounded to odd
        u = np.ascontiguousarray(wide, np.float64).view(np.uint64)
        v = np.ascontiguousarray(np.broadcast_to(s, wide.shape), np.float64).view(np.uint64)
        y = np.empty(wide.shape, np.float64)
        divide_all(u.reshape(-1), v.reshape(-1), y.view(np.uint64).reshape(-1))
        return y
    if order == "reciprocal":
        product = wide * (wide.dtype.type(1) / s)
        return np.where(wide == 0, wide, product)  # a zero stays one where 1 / s is beyond the range
    return _fl(wide / s, own)


@np.errstate(all="ignore")
def apply_scale(x: NDArray[Any], s: NDArray[Any], q: Quantizer, bits: int) -> NDArray[Any]:
    """Return the numbers that are rounded in place of `x`: x / s in the order that `q` names; rounded to odd for "exact".

    `s` has the type of `scale_type`, `bits` is the number of random bits. The result is float32 or float64. Raise `InputError`
    where a quotient rounded to odd would not tell the same as the true one.
    """
    if q.order == "exact":
        _check_exact(q, bits)
    return _quotients(_wide(x), _wide(s), q.order, scale_type(x.dtype, q.order))


def _check_exact(q: Quantizer, bits: int) -> None:
    """Refuse a rounding that needs more of a quotient than 53 bits."""
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


def saturates(q: Quantizer) -> bool:
    """Return whether nothing that comes out is infinite."""
    return q.saturation in (Saturation.SatFinite, Saturation.InfNaN, Saturation.saturate)


@functools.lru_cache(maxsize=1024)
def _safe_scale(fmt: Format, dtype: np.dtype[Any]) -> np.float64:
    """Return a scale that takes no value of `fmt` beyond the largest number of `dtype`.

    It is no Python float, which NumPy would round to the type of the scales that it is compared with.
    """
    return np.float64(math.nextafter(largest_number(dtype) / max(fmt.max, -fmt.min), 0.0))


def overflows(s: NDArray[Any], q: Quantizer, dtype: np.dtype[Any]) -> bool:
    """Return whether a finite value times a derived scale may be infinite in `dtype`: then the largest number is the result."""
    derived = isinstance(q.scale, str) and q.scale != "none"
    return derived and bool((s > _safe_scale(q.format, dtype)).any())


@np.errstate(all="ignore")
def remove_scale(y: NDArray[Any], s: NDArray[Any], q: Quantizer, dtype: np.dtype[Any]) -> NDArray[Any]:
    """Return fl(y s) in `dtype`, that of the input, for values `y` of the format, which are overwritten.

    Where the rounding saturates, or the scale is derived, a finite value does not become infinite.
    """
    clamped: Any = saturates(q)
    if not clamped and overflows(s, q, dtype):
        clamped = np.isfinite(y)
    if dtype.itemsize == 2:  # a float64 holds the product
        product = np.multiply(y, s, dtype=np.float64)
    else:
        product = y.astype(dtype, copy=False)
        np.multiply(product, s, out=product)
    if clamped is not False:
        limit = product.dtype.type(largest_number(dtype))
        np.clip(product, -limit, limit, out=product, where=clamped)
    return _narrowed(product, dtype) if dtype.itemsize == 2 else product


def _narrowed(y: NDArray[np.float64], dtype: np.dtype[Any]) -> NDArray[Any]:
    """Return `y` rounded to nearest in a type of 16 bits, whose patterns are the codes of its format."""
    codes = np.empty(y.shape, np.uint16)
    loop, words = _narrowing(dtype)
    loop(np.ascontiguousarray(y).view(np.uint64).reshape(-1), codes.reshape(-1), words)
    return codes.view(dtype)


@functools.cache
def _narrowing(dtype: np.dtype[Any]) -> tuple[Any, NDArray[Any]]:
    """Return the loop that rounds float64 to codes of a type of 16 bits, and its words."""
    wide = np.dtype(np.float64)
    p = parameters(number_format(dtype), Saturation.SatNone, wide, nan="signed", codes=True)
    t = addends(Mode.RNE, wide)
    return cpu.by_addends(p, t, codes=True), cpu.words_of(p, t)
