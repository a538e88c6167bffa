"""When a matrix product needs no rounding: the test on the operands at hand, after which any BLAS gives the exact result.

With u the lowest set bit over all products (the product of the operands' own) and T = K max|a| max|b| + max|c|, every partial
sum, in any order, is a multiple of u of magnitude T at most. If T <= 2^p u, a format of p bits holds all of them, unless T
overflows or u lies below its smallest normal number: then no operation rounds, fused or not.
"""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import numpy as np
from numpy.typing import NDArray

from qsim.dot.accumulator import Accumulator
from qsim.dot.reference import leading
from qsim.formats import Format, Grid
from qsim.rounding import Mode, Quantizer

__all__ = ["Extent", "blas_dtype", "extent_of", "never_rounds"]


@dataclass(frozen=True, slots=True)
class Extent:
    """Hold the bounds of every partial sum: multiples of 2^`unit`, of magnitude `most` at most."""

    unit: int
    most: Fraction
    #: The largest exponents of the operands' numbers.
    exponents: tuple[int, int]
    #: The most bits of a product, and the lowest bits of the operands.
    bits: int = 0
    units: tuple[int, int] = (0, 0)
    #: The most bits of a start.
    start_bits: int = 0

    @property
    def short(self) -> bool:
        """Whether both operands are normal numbers of float32, and products exact in it, as far as its range goes."""
        return self.bits <= 24 and min(self.units) >= -126 and max(self.exponents) <= 126


def bits_of(x: NDArray[np.float64]) -> tuple[int, int] | None:
    """Return the exponent of the lowest set bit over all elements, and the most bits that one has from its first to its last.

    Elements are finite; of a subnormal number of float64 the zeros before its first bit count. `None` where all are zero.
    """
    u = np.ascontiguousarray(x).view(np.int64).reshape(-1)
    field = (u >> 52) & 0x7FF
    whole = (u & ((1 << 52) - 1)) | (np.minimum(field, 1) << 52)
    last = ((whole & -whole).astype(np.float64).view(np.int64) >> 52) - 1023  # of the bits 0 .. 52; of a zero -1023
    used = whole != 0
    if not used.any():
        return None
    units = np.where(used, np.maximum(field, 1) + last, 1 << 20)
    return int(units.min()) - 1075, 53 - int(np.where(used, last, 52).min())


def extent_of(a: NDArray[np.float64], b: NDArray[np.float64], c: NDArray[np.float64] | None) -> Extent | None:
    """Return the extent of the sums c + a b; `None` for infinities and NaN, and where c holds a -0, whose sign may remain."""
    arrays = [a, b] if c is None else [a, b, c]
    if not all(np.isfinite(x).all() for x in arrays):
        return None
    if c is not None and (np.signbit(c) & (c == 0)).any():
        return None
    sizes = [max(float(x.max(initial=0.0)), -float(x.min(initial=0.0))) for x in arrays]
    found = [bits_of(x) for x in arrays]
    most, places, bits, units, start_bits = Fraction(0), [], 0, (0, 0), 0
    if found[0] is not None and found[1] is not None:
        most += a.shape[-1] * Fraction(sizes[0]) * Fraction(sizes[1])
        places.append(found[0][0] + found[1][0])
        bits, units = found[0][1] + found[1][1], (found[0][0], found[1][0])
    if c is not None and found[-1] is not None:
        most += Fraction(sizes[-1])
        places.append(found[-1][0])
        start_bits = found[-1][1]
    exponents = tuple(math.frexp(size)[1] - 1 if size else 0 for size in sizes[:2])
    return Extent(min(places, default=0), most, (exponents[0], exponents[1]), bits, units, start_bits)


def holds_all(q: Quantizer, extent: Extent) -> bool:
    """Return whether every multiple of 2^unit of that magnitude is a number that q leaves as it is."""
    fmt = q.format
    assert isinstance(fmt, Grid)
    unit = Fraction(2) ** extent.unit
    if fmt.lsb > extent.unit or fmt.gap or not (fmt.has_zero and fmt.signed) or q.mode is Mode.RDN:
        return False
    if min(fmt.value(fmt.top), -fmt.value(-fmt.bottom)) < extent.most:
        return False
    if q.ftz_out and unit < Fraction(fmt.smallest_normal):
        return False
    return fmt.even or extent.most <= unit * 2**fmt.precision


def never_rounds(acc: Accumulator, extent: Extent, formats: tuple[Format | None, Format | None]) -> bool:
    """Return whether no rounding of the accumulator changes anything, so that its result is the exact one."""
    if not all(holds_all(q, extent) for q in acc.roundings):
        return False
    if not acc.block or acc.align is None:
        return True
    largest = max(leading(extent.most) if extent.most else extent.unit, sum(extent.exponents))
    floors = [fmt.emin for fmt in formats if isinstance(fmt, Grid) and not fmt.even]  # exponents of subnormal operands
    if len(floors) == 2:
        largest = max(largest, sum(max(e, f) for e, f in zip(extent.exponents, floors, strict=True)))
    elif floors:
        largest = max(largest, max(extent.exponents) + max(*floors, *extent.exponents))
    sum_format = acc.format.format
    assert isinstance(sum_format, Grid)
    largest = max(largest, sum_format.emin if not sum_format.even else largest, acc.least_exponent or largest)
    return largest - min(acc.align, acc.join or acc.align) <= extent.unit


def blas_dtype(extent: Extent) -> type[np.float32 | np.float64] | None:
    """Return the float type in which a BLAS computes these sums exactly; `None` where none does."""
    for dtype, precision, least, top in ((np.float32, 24, -126, 128), (np.float64, 53, -1022, 1024)):
        if extent.most <= Fraction(2) ** (extent.unit + precision) and extent.unit >= least and extent.most < 2**top:
            return dtype if is_conventional(dtype) else None
    return None


@functools.cache
def is_conventional(dtype: Any) -> bool:
    """Return whether the BLAS adds the products of this type with all their bits, and adds nothing to operands before.

    A product whose sums need every bit of the type tells: shorter operands (TF32, bfloat16) lose bits of the left one, and sums
    of operands (Strassen) have more bits than the type.
    """
    bits, n = np.finfo(dtype).nmant + 1, 128
    state = np.arange(n * n, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15)
    a = (state >> np.uint64(64 - (bits - 7))).astype(np.int64).reshape(n, n)
    b = 1 - 2 * (state >> np.uint64(13) & np.uint64(1)).astype(np.int64).reshape(n, n)
    return bool((np.matmul(a.astype(dtype), b.astype(dtype)) == a @ b).all())
