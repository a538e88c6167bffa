"""`matmul`: a matrix product by an accumulator, in the fastest way that gives its bits."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction
from typing import Any, Literal, TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray

from qsim.arrays import quantize
from qsim.dot import reference
from qsim.dot.accumulator import Accumulator, parse_accumulator, random_bits
from qsim.dot.elementwise import as_float64, is_short, odd_sum, result_dtype, round_odd, rounds_odd, step_words
from qsim.dot.exactness import Extent, blas_dtype, extent_of, never_rounds
from qsim.errors import InputError, shown
from qsim.formats import Format, Grid, get_format
from qsim.kernels import cpu, dots
from qsim.kernels.core import Parameters
from qsim.kernels.parameters import CARRIERS, addends, parameters, stochastic
from qsim.kernels.threads import MANY, get_threads, in_chunks
from qsim.rounding import Key, Mode, Quantizer, as_key
from qsim.underflow import gradual_underflow

__all__ = ["Product", "dots_of", "matmul"]

Floats: TypeAlias = NDArray[np.float64]
Path: TypeAlias = Literal["blas", "kernel", "reference", "fast"]
Formats: TypeAlias = tuple[Format | None, Format | None]

FLOAT64, FLOAT32 = np.dtype(np.float64), np.dtype(np.float32)
TREE = 1 << 22
"""Numbers that are held at a time in a pairwise sum."""


@dataclass(frozen=True, slots=True, eq=False)
class Product:
    """Hold a matrix product, and how it was computed; NumPy takes it as the array of its values."""

    values: NDArray[Any]
    #: "blas": exact, since no rounding changes anything (`qsim.dot.exactness`). "kernel", "reference": every rounding was done.
    #: "fast": a BLAS, whose order of sums is its own.
    path: Path

    @property
    def exact(self) -> bool:
        """Whether it is proved that no rounding changed anything: the values are the exact products."""
        return self.path == "blas"

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> NDArray[Any]:
        return np.array(self.values, dtype=dtype, copy=bool(copy)) if copy or dtype is not None else self.values


@gradual_underflow
def matmul(
    a: ArrayLike,
    b: ArrayLike,
    acc: str | Quantizer | Accumulator = "float32",
    *,
    c: ArrayLike | None = None,
    inputs: str | Format | tuple[str | Format, str | Format] | None = None,
    key: Key | None = None,
    scales: tuple[ArrayLike, ArrayLike] | None = None,
) -> Product:
    """Return c + a b, every sum as the accumulator `acc` has it: an `Accumulator`, or the "FORMAT:MODE" of each partial sum.

    a (..., M, K) and b (..., K, N) are numbers of any float or integer type that float64 holds exactly; leading axes broadcast;
    c broadcasts to (..., M, N). The values are float32, or float64 where that does not hold the format of the result. `inputs`
    is the format of the operands, or a pair of them: a block fused multiply-add takes the exponents of subnormal numbers from
    it (from float32 without it). `scales` of block-scaled operands are those of a, (..., M, G), and of b, (..., G, N): K / G
    neighbours share one, and are multiplied by it exactly.
    A stochastic accumulator takes its words from `key`: output element i, in C order, in step t that of element
    offset + i + t 2^40 of (seed, stream); with N <= 16 random bits steps 2j and 2j + 1 are the halves of one word. So the rows
    a[r:] have key offset + r N. acc = "fast" is a BLAS, whose order is unspecified.
    Where no rounding can change anything for the operands at hand, a BLAS computes the exact result; `Product.path` says so.
    Raise `InputError` for shapes that do not fit, for operands that are not in `inputs`, and for a missing key.
    """
    x, y, z = _operands(a, b, c)
    if isinstance(acc, str) and acc == "fast":
        return Product(_fast(x, y, z), "fast")
    rule = parse_accumulator(acc)
    formats = _formats(inputs, x, y)
    spread = None if scales is None else _scales(scales, x, y)
    if spread is not None and not rule.block:  # elsewhere it is the scaled number alone that counts
        x, y, spread, formats = x * spread[0], y * spread[1], None, (None, None)
    if rule.merge and spread is None:
        raise InputError("merge is about operands with scales; give scales")
    if rule.stochastic and key is None:
        raise InputError(f"{rule} takes random words: give key = qsim.Key(seed)")
    key = None if key is None else as_key(key, whole=True)
    dtype = result_dtype(
        (rule.output or (rule.outer if rule.group or rule.start == "last" else None) or rule.format).format
    )
    extent = extent_of(x, y, z)
    if extent is not None and spread is None and never_rounds(rule, extent, formats):
        by = blas_dtype(extent)
        if by is not None:
            with np.errstate(all="ignore"):
                exact = np.matmul(x.astype(by), y.astype(by)).astype(np.float64) + (0.0 if z is None else z)
            return Product(exact.astype(dtype), "blas")
    lead = np.broadcast_shapes(x.shape[:-2], y.shape[:-2])
    m, n = x.shape[-2], y.shape[-1]
    out = np.zeros((*lead, m, n)) if z is None else np.array(np.broadcast_to(z, (*lead, m, n)))
    many = math.prod(lead)
    flat = out.reshape(many, m, n)
    left = np.broadcast_to(x, (*lead, *x.shape[-2:])).reshape(many, *x.shape[-2:])
    right = np.broadcast_to(y, (*lead, *y.shape[-2:])).reshape(many, *y.shape[-2:])
    by_kernel = has_kernel(rule, x, y, z, extent) and (spread is None or scales_fit(rule, x, y, *spread))
    scaled = [np.broadcast_to(v, (*lead, *v.shape[-2:])).reshape(many, *v.shape[-2:]) for v in spread or ()]
    for i in range(many):
        place = None if key is None else Key(key.seed, key.stream, (key.offset + i * m * n) % (1 << 64))
        if by_kernel:
            sums = Sums(left[i], right[i], rule, formats, place, paired=False, extent=extent)
            sums.scales = None if spread is None else (scaled[0][i], scaled[1][i])
            flat[i] = sums.whole(flat[i])
        else:
            each = None if spread is None else (scaled[0][i], scaled[1][i])
            flat[i] = _by_reference(left[i], right[i], flat[i], rule, formats, place, each)
    return Product(out.astype(dtype), "kernel" if by_kernel else "reference")


def dots_of(
    a: ArrayLike,
    b: ArrayLike,
    acc: Accumulator,
    *,
    c: ArrayLike = 0.0,
    inputs: str | Format | tuple[str | Format, str | Format] | None = None,
    key: Key | None = None,
    scales: tuple[ArrayLike, ArrayLike] | None = None,
) -> NDArray[np.float64]:
    """Return the dot products c + sum_k a_k b_k of the rows of a and b, both (R, K), by the accumulator, as float64 (R,).

    Arguments are those of `matmul`; row i is output element i. Both `scales` are (R, G).
    """
    x, y = (as_float64(v, f"operand {i}") for i, v in enumerate((a, b), 1))
    if x.ndim != 2 or x.shape != y.shape:
        raise InputError(f"rows of operands of shapes {x.shape} and {y.shape}; both are (rows, products)")
    start = np.array(np.broadcast_to(as_float64(c, "c"), (len(x),)))
    formats = _formats(inputs, x, y)
    if acc.stochastic and key is None:
        raise InputError(f"{acc} takes random words: give key = qsim.Key(seed)")
    key = None if key is None else as_key(key, whole=True)
    spread = None
    if scales is not None:
        spread = (_spread(scales[0], x.shape, -1, "scales[0]"), _spread(scales[1], y.shape, -1, "scales[1]"))
        if not acc.block:
            x, y, spread, formats = x * spread[0], y * spread[1], None, (None, None)
    if acc.merge and spread is None:
        raise InputError("merge is about operands with scales; give scales")
    if has_kernel(acc, x, y, start) and (spread is None or scales_fit(acc, x, y, *spread)):
        sums = Sums(x, y, acc, formats, key, paired=True)
        sums.scales = spread
        return sums.whole(start[:, None])[:, 0]
    found = np.empty(len(x))
    for i, s in enumerate(start.tolist()):
        each = None if spread is None else (spread[0][i].tolist(), spread[1][i].tolist())
        u, v = x[i].tolist(), y[i].tolist()
        found[i] = reference.dot(u, v, s, acc, formats=formats, key=key, element=i, scales=each)
    return found


# --- Behind the border -------------------------------------------------------------------------------------------


def _operands(a: ArrayLike, b: ArrayLike, c: ArrayLike | None) -> tuple[Floats, Floats, Floats | None]:
    """Return the operands as float64; refuse shapes that do not fit."""
    x, y = as_float64(a, "a"), as_float64(b, "b")
    if x.ndim < 2 or y.ndim < 2 or x.shape[-1] != y.shape[-2]:
        raise InputError(f"a of shape {x.shape} and b of shape {y.shape}; they are (..., M, K) and (..., K, N)")
    try:
        lead = np.broadcast_shapes(x.shape[:-2], y.shape[:-2])
    except ValueError:
        raise InputError(f"the leading axes of a, {x.shape}, and b, {y.shape}, do not broadcast") from None
    if c is None:
        return x, y, None
    z = as_float64(c, "c")
    try:
        np.broadcast_to(z, (*lead, x.shape[-2], y.shape[-1]))
    except ValueError:
        raise InputError(
            f"c of shape {z.shape} does not broadcast to the result's {(*lead, x.shape[-2], y.shape[-1])}"
        ) from None
    return x, y, z


def _spread(scales: ArrayLike, shape: tuple[int, ...], axis: int, name: str) -> Floats:
    """Return the scale of each operand, whose products lie along `axis`, -1 or -2."""
    array = as_float64(scales, name)
    other = -3 - axis
    fits = (
        array.ndim >= 2
        and array.shape[other] == shape[other]
        and array.shape[axis]
        and not shape[axis] % array.shape[axis]
    )
    if not fits:
        raise InputError(
            f"{name} of shape {array.shape} for an operand of shape {shape}; K / G neighbours share a scale"
        )
    return np.repeat(array, shape[axis] // array.shape[axis], axis=axis)


def _scales(scales: tuple[ArrayLike, ArrayLike], x: Floats, y: Floats) -> tuple[Floats, Floats]:
    """Return the scale of each operand of a matrix product."""
    return _spread(scales[0], x.shape, -1, "scales[0]"), _spread(scales[1], y.shape, -2, "scales[1]")


def scales_fit(acc: Accumulator, x: Floats, y: Floats, s: Floats, t: Floats) -> bool:
    """Return whether the loop for blocks takes these operands and scales.

    Scales are powers of two. Where products are merged they have up to 4 bits, and operands are multiples of 1/2 up to 6.
    """
    for array in (x, y) if acc.merge else ():
        if not ((np.abs(array) <= 6).all() and (2 * array == np.trunc(2 * array)).all() and (acc.align or 0) <= 38):
            return False
    for scale in (s, t):
        if not (np.isfinite(scale).all() and (scale >= 2.0**-130).all() and (scale <= 2.0**130).all()):
            return False
        m = np.frexp(scale)[0] * (16 if acc.merge else 2)
        if (m != np.trunc(m)).any():
            return False
    return True


def _formats(inputs: Any, x: Floats, y: Floats) -> Formats:
    """Return the formats of the operands; refuse operands that are not numbers of theirs."""
    if inputs is None:
        return None, None
    names = inputs if isinstance(inputs, tuple) else (inputs, inputs)
    if len(names) != 2:
        raise InputError(f"inputs = {shown(inputs)}; it is a format, or the two of a and b")
    formats = tuple(get_format(name) for name in names)
    for name, fmt, array in (("a", formats[0], x), ("b", formats[1], y)):
        if not array.size:
            continue
        rule = "SatNone" if fmt.has_inf else None
        finite = np.where(np.isfinite(array), array, 0.0)
        with np.errstate(all="ignore"):
            wrong = (quantize(finite, fmt, saturation=rule) != finite) | (np.isinf(array) & (not fmt.has_inf))
        if wrong.any():
            at = tuple(int(i) for i in np.argwhere(wrong)[0])
            raise InputError(f"{name}{list(at)} = {array[at]} is no number of {fmt}; round the operand to it first")
    return formats[0], formats[1]


def _fast(x: Floats, y: Floats, z: Floats | None) -> NDArray[Any]:
    """Return the product as a BLAS gives it, in float32 if that holds the operands."""
    short = is_short(x) and is_short(y) and (z is None or is_short(z))
    dtype = np.float32 if short else np.float64
    with np.errstate(all="ignore"):
        product: NDArray[Any] = np.matmul(x.astype(dtype), y.astype(dtype))
        return product if z is None else product + z.astype(dtype)


def has_kernel(acc: Accumulator, x: Floats, y: Floats, z: Floats | None, extent: Extent | None = None) -> bool:
    """Return whether the loops give the bits of the accumulator for these operands.

    Products of numbers of float32 are exact in float64, and sums are odd numbers of 53 bits. Where an `extent` shows that the
    operands are such numbers, they need not be looked at.
    """
    seen = extent is not None and extent.short
    if not (seen and z is None) and not (is_short(x) and is_short(y) and (z is None or is_short(z))):
        return False
    if acc.order == "exact" or not all(rounds_odd(q) for q in acc.roundings):
        return False
    if not acc.block:
        return True
    finite = bool(np.isfinite(x).all() and np.isfinite(y).all())
    room = acc.align is not None and max(acc.align, acc.join or 0) + 3 + acc.block.bit_length() <= 53
    return (
        finite and room and acc.format.mode is not Mode.THR and not (acc.format.mode.stochastic or acc.format.ftz_out)
    )


def _by_reference(
    x: Floats,
    y: Floats,
    z: Floats,
    acc: Accumulator,
    formats: Formats,
    key: Key | None,
    scales: tuple[Floats, Floats] | None = None,
) -> Floats:
    """Return the product by the reference, element by element."""
    rows, columns = x.tolist(), y.T.tolist()
    own, others = ([], []) if scales is None else (scales[0].tolist(), scales[1].T.tolist())
    out = np.empty_like(z)
    for i, row in enumerate(rows):
        for j, column in enumerate(columns):
            each = None if scales is None else (own[i], others[j])
            start, element = float(z[i, j]), i * len(columns) + j
            out[i, j] = reference.dot(row, column, start, acc, formats=formats, key=key, element=element, scales=each)
    return out


@functools.lru_cache(maxsize=256)
def _parameters(q: Quantizer, dtype: np.dtype[Any]) -> Parameters:
    """Return the core's parameters of a rounding."""
    assert q.saturation is not None
    return parameters(q.format, q.saturation, dtype, q.mode, nan=q.nan)


def in_rows(out: NDArray[Any], work: int, call: Callable[[slice], None]) -> None:
    """Call call(rows) for parts of the rows of `out`, on several threads if there is much work: so many products."""
    parts = max(1, min(get_threads(), len(out), work // MANY))
    ends = [len(out) * part // parts for part in range(parts + 1)]
    in_chunks(parts, work, lambda part: call(slice(ends[part], ends[part + 1])))


class Sums:
    """Compute the sums of one product, or `paired` of rows, by loops; counts its steps as the reference does."""

    def __init__(
        self,
        x: Floats,
        y: Floats,
        acc: Accumulator,
        formats: Formats,
        key: Key | None,
        *,
        paired: bool,
        extent: Extent | None = None,
    ) -> None:
        self.x, self.y, self.acc, self.formats, self.key, self.paired = x, y, acc, formats, key, paired
        self.terms = x.shape[1]
        self.step = 0
        #: The scale of each operand of a block, if it has one.
        self.scales: tuple[Floats, Floats] | None = None
        #: What bounds the sums, if it is known.
        self.extent = extent
        #: Significands by the order of the products, for whoever tries several accumulators on the same operands.
        self.known: dict[Any, Any] = {}

    def again(self, acc: Accumulator) -> Sums:
        """Return the sums of the same operands by another accumulator."""
        other = Sums(self.x, self.y, acc, self.formats, self.key, paired=self.paired)
        other.known = self.known
        return other

    def whole(self, start: Floats) -> Floats:
        """Return start + x y."""
        acc, total = self.acc, start
        if acc.group:
            for begin in range(0, self.terms, acc.group):
                part = self.sums(begin, min(begin + acc.group, self.terms), np.zeros_like(start))
                total = self.plus(total, part, acc.outer_rounding)
        else:
            total = self.sums(0, self.terms, total)
        return total if acc.output is None else self.done(total, acc.output)

    def plus(self, x: Floats, y: Floats, q: Quantizer) -> Floats:
        """Return round(x + y), one step."""
        return self.done(odd_sum(x, y, q.mode), q)

    def done(self, odd: Floats, q: Quantizer) -> Floats:
        """Return odd numbers rounded, one step."""
        words = None
        if q.mode.stochastic:
            assert self.key is not None
            words = step_words(self.key, odd.size, self.step, random_bits(q))
        self.step += 1
        return round_odd(odd, q, words)

    def sums(self, begin: int, end: int, start: Floats) -> Floats:
        """Return start plus the products `begin` .. `end`."""
        acc = self.acc
        if acc.block:
            return self.blocks(begin, end, start)
        if acc.order == "pairwise":
            return self.pairwise(begin, end, start)
        if acc.order == "kahan":
            return self.kahan(begin, end, start)
        return self.sequential(begin, end, start)

    def product(self, k: int) -> Floats:
        """Return the products of index k for all outputs, rounded if they are."""
        p = (self.x[:, k] * self.y[:, k])[:, None] if self.paired else self.x[:, k, None] * self.y[k]
        return p if self.acc.product is None else round_odd(p, self.acc.product)

    def sequential(self, begin: int, end: int, start: Floats) -> Floats:
        """Return the sum whose every step is rounded."""
        acc, q = self.acc, self.acc.format
        looped = not self.paired and not q.ftz_out and q.mode is not Mode.THR and q.nan == "canonical"
        if acc.product is not None:
            looped &= not (acc.product.ftz_out or q.mode.stochastic) and acc.product.nan == "canonical"
        if not looped:
            total = start
            with np.errstate(all="ignore"):
                for k in range(begin, end):
                    total = self.plus(total, self.product(k), q)
            return total
        extent = self.extent
        carrier = self.carrier(extent)
        short = self.short(extent, carrier, end - begin)
        if short is not None and q.mode.stochastic:
            carrier = FLOAT64
        total = np.array(start, carrier)
        x, y = (np.ascontiguousarray(v, carrier) for v in (self.x[:, begin:end], self.y[begin:end]))
        p, n = _parameters(q, carrier), random_bits(q) if q.mode.stochastic else 0
        work, empty = total.size * x.shape[1], np.empty(0, f"u{carrier.itemsize}")
        half = int(n <= 16)
        if q.mode.stochastic:
            assert self.key is not None
            seed, stream, offset = self.key.seed, self.key.stream, self.key.offset
            if short is not None:

                def draw(r: slice) -> None:
                    at = (offset + r.start * total.shape[1]) % (1 << 64)
                    dots.by_short_words(x[r], y, total[r], seed, stream, at, self.step, half, n, short)

            else:
                source = stochastic(Mode.SRA if q.mode is Mode.SR else q.mode, n, carrier)
                odd = 0 if q.mode in (Mode.SR, Mode.SRA, Mode.SRB) else 1
                words, drawn = cpu.words_of(p, source), dots.by_key(p, source)

                def draw(r: slice) -> None:
                    at = (offset + r.start * total.shape[1]) % (1 << 64)
                    drawn(x[r], y, total[r], seed, stream, at, self.step, half, odd, words)

            in_rows(total, work, draw)
        elif short is not None:
            middle = 1 << (short - 1) if q.mode.nearest else 0
            base = middle - (q.mode in (Mode.RNE, Mode.RNZ))
            loop = dots.by_short_sums(short, parity=q.mode is Mode.RNE)
            in_rows(total, work, lambda r: loop(x[r], y, total[r], base, empty))
        else:
            t = addends(q.mode, carrier)
            down = int(p.sign) if q.mode is Mode.RDN else 0
            if acc.product is None:
                loop, words = dots.by_addends(p, t), cpu.words_of(p, t)
                in_rows(total, work, lambda r: loop(x[r], y, total[r], down, words))
            else:
                p2, t2 = _parameters(acc.product, carrier), addends(acc.product.mode, carrier)
                loop, words, more = dots.by_addends(p, t, (p2, t2)), cpu.words_of(p, t), cpu.words_of(p2, t2)
                in_rows(total, work, lambda r: loop(x[r], y, total[r], down, words, more))
        self.step += end - begin
        return total.astype(np.float64)

    def carrier(self, extent: Extent | None) -> np.dtype[Any]:
        """Return the type in which products are exact, and sums known to as many as the roundings look at.

        That of float32 needs sums in its range, and no subnormal numbers: the terms are multiples of a normal number.
        """
        acc = self.acc
        if extent is None or extent.unit < -126 or not extent.short:
            return FLOAT64
        if not all(rounds_odd(q, 24) and CARRIERS[FLOAT32].holds(q.format) for q in acc.roundings):
            return FLOAT64
        ends = max(abs(q.format.value(n)) for q in acc.roundings for n in (q.format.top, -q.format.bottom))
        return FLOAT32 if ends + extent.most < Fraction(2) ** 128 - Fraction(2) ** 103 else FLOAT64

    def short(self, extent: Extent | None, carrier: np.dtype[Any], terms: int) -> int | None:
        """Return the places that `dots.by_short_sums`, or its twin for random words, cuts; `None` where they would be wrong.

        Rounding K times at most grows the largest sum by (1 + 2^(1 - p))^K.
        """
        q, fmt = self.acc.format, self.acc.format.format
        if extent is None or self.acc.product is not None or not isinstance(fmt, Grid) or fmt.even:
            return None
        stochastic_a = q.mode in (Mode.SR, Mode.SRA)
        if not (stochastic_a or q.mode in (Mode.RNE, Mode.RNA, Mode.RNZ, Mode.RTZ)) or not fmt.has_neg_zero:
            return None
        precision = 53 if stochastic_a or carrier == FLOAT64 else 24
        places = precision - fmt.precision
        growth = terms * 2.0 ** (1 - fmt.precision)
        if places < (32 if stochastic_a else 2) or extent.unit < fmt.lsb or growth > 64:
            return None
        if float(extent.most) * math.exp(growth) * 1.001 > fmt.max:
            return None
        exact = Fraction(float(extent.most) * math.exp(growth) * 1.001) <= Fraction(2) ** (extent.unit + precision)
        innocuous = (
            q.mode.nearest
            and max(extent.bits, extent.start_bits) <= fmt.precision
            and precision >= 2 * fmt.precision + 2
        )
        return places if exact or innocuous else None

    def pairwise(self, begin: int, end: int, start: Floats) -> Floats:
        """Return start plus the sum by a tree."""
        if begin == end:
            return self.plus(start, np.zeros_like(start), self.acc.format)
        rows = max(1, TREE // ((end - begin) * start.shape[1]))
        if rows >= len(start) or self.acc.stochastic:
            with np.errstate(all="ignore"):
                terms = [self.product(k) for k in range(begin, end)]
            while len(terms) > 1:
                odd = terms[len(terms) // 2 * 2 :]
                terms = [self.plus(u, v, self.acc.format) for u, v in zip(terms[0::2], terms[1::2], strict=False)] + odd
            return self.plus(start, terms[0], self.acc.format)
        parts = []
        for first in range(0, len(start), rows):
            some = slice(first, first + rows)
            y = self.y[some] if self.paired else self.y
            piece = Sums(self.x[some], y, self.acc, self.formats, self.key, paired=self.paired)
            parts.append(piece.pairwise(begin, end, start[some]))
        return np.concatenate(parts)

    def kahan(self, begin: int, end: int, start: Floats) -> Floats:
        """Return the compensated sum, its four operations a product all rounded."""
        q, total, lost = self.acc.format, start, np.zeros_like(start)
        with np.errstate(all="ignore"):
            for k in range(begin, end):
                y = self.plus(self.product(k), -lost, q)
                t = self.plus(total, y, q)
                lost = self.plus(self.plus(t, -total, q), -y, q)
                total = t
        return total

    def blocks(self, begin: int, end: int, start: Floats) -> Floats:
        """Return the sum by block fused multiply-adds."""
        acc = self.acc
        total = np.zeros_like(start) if acc.start == "last" else start
        if acc.merge:
            return self.merged(begin, end, start, total)
        place = (begin, end, acc.block, acc.lanes)
        if place not in self.known:
            order = [
                k for some in reference.blocks_of(range(begin, end), acc) for k in some + [-1] * (acc.block - len(some))
            ]
            left = _significands(self.x, self.formats[0], order)
            right = _significands(self.y if self.paired else self.y.T, self.formats[1], order)
            if self.scales is not None:
                others = self.scales[1] if self.paired else self.scales[1].T
                for side, scale in ((left, self.scales[0]), (right, others)):
                    used = np.concatenate([scale, np.ones((len(scale), 1))], axis=1)[:, order]
                    side[1][...] += (np.frexp(used)[1] - 1).astype(np.int32)
            self.known[place] = left, right
        left, right = self.known[place]
        return self.by_blocks(left, right, start, total, width=acc.block, paired=self.paired)

    def merged(self, begin: int, end: int, start: Floats, total: Floats) -> Floats:
        """Return the sum by blocks of terms that are exact sums of products, times their scales."""
        acc, (m, n) = self.acc, start.shape
        assert self.scales is not None
        some = [slice(at, min(at + acc.merge, end)) for at in range(begin, end, acc.merge)]
        if self.paired:
            sums = np.stack([(self.x[:, k] * self.y[:, k]).sum(1) for k in some], axis=1)
            factors = [np.stack([scale[:, k.start] for k in some], axis=1) for scale in self.scales]
        else:
            sums = np.stack([self.x[:, k] @ self.y[k] for k in some], axis=2).reshape(m * n, len(some))
            firsts = [np.stack([v[:, k.start] for k in some], axis=1) for v in (self.scales[0], self.scales[1].T)]
            factors = [np.repeat(firsts[0], n, axis=0), np.tile(firsts[1], (m, 1))]
        width, count = acc.block // acc.merge, len(some)
        significands = np.zeros((m * n, -(-count // width) * width), np.int32)
        exponents = np.full_like(significands, dots.NO_EXPONENT)
        (f, e), (g, h) = (np.frexp(v) for v in factors)
        bits = 8  # after the point: sums are multiples of 1/4, and the scales' significands, below 2, of 1/8
        significands[:, :count] = np.ldexp(4 * sums * f * g, bits).astype(np.int32)
        exponents[:, :count] = np.where(sums == 0, dots.NO_EXPONENT, e + h - 2)
        ones = np.ones_like(significands), np.zeros_like(exponents), 0
        column = np.ascontiguousarray(total.reshape(m * n, 1))
        begun = np.ascontiguousarray(start.reshape(m * n, 1))
        found = self.by_blocks((significands, exponents, bits), ones, begun, column, width=width, paired=True)
        return found.reshape(m, n)

    def by_blocks(self, left: Any, right: Any, start: Floats, total: Floats, *, width: int, paired: bool) -> Floats:
        """Return the sum of terms whose significands, exponents and bits after the point these are."""
        acc, q = self.acc, self.acc.format
        assert acc.align is not None
        assert isinstance(q.format, Grid)
        (sa, ea, wa), (sb, eb, wb) = left, right
        t, p = addends(q.mode, FLOAT64), _parameters(q, FLOAT64)
        patterns = np.ascontiguousarray(total).view(np.uint64).copy()
        least = -2000 if acc.least_exponent is None else acc.least_exponent
        emin = -2000 if q.format.even else q.format.emin
        cut, join_cut = (dots.MODES[mode] for mode in (acc.align_mode, acc.join_mode or acc.align_mode))
        loop, words = dots.block_sums(t), cpu.words_of(p, t)

        def add(r: slice) -> None:
            side = r if paired else slice(None)
            loop(
                sa[r], ea[r], sb[side], eb[side], patterns[r], int(paired), width, wa + wb, acc.align, cut,
                int(acc.start == "after"), acc.join or acc.align, join_cut, int(acc.normalize), least, emin, words,
            )  # fmt: skip

        in_rows(patterns, patterns.size * sa.shape[1], add)
        self.step += sa.shape[1] // width
        total = patterns.view(np.float64)
        return self.plus(start, total, acc.outer_rounding) if acc.start == "last" and not acc.group else total


def _significands(x: Floats, fmt: Format | None, order: list[int]) -> tuple[NDArray[Any], NDArray[Any], int]:
    """Return signed significands and exponents of the columns of x in this order, and the bits after the point; -1: zeros."""
    known = isinstance(fmt, Grid) and not fmt.even
    bits = fmt.man_bits if known and isinstance(fmt, Grid) else 23
    taken = np.concatenate([x, np.zeros((len(x), 1))], axis=1)[:, order]
    e = np.frexp(taken)[1] - 1
    if known and isinstance(fmt, Grid):
        e = np.maximum(e, fmt.emin)
    significands = np.ldexp(taken, bits - e).astype(np.int32)
    exponents = np.where(taken == 0, dots.NO_EXPONENT, e).astype(np.int32)
    return np.ascontiguousarray(significands), np.ascontiguousarray(exponents), bits
