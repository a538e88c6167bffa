"""The numbers that a quantizer is tried on: none is drawn by chance but those that a seed names.

Next to every point where a result may change stands the number just below, at and just above it, in the input's own type.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import numpy as np
from numpy.typing import NDArray

from qsim.errors import InputError
from qsim.explain.case import NUMBERS
from qsim.explain.lines import exactly
from qsim.explain.oracle import line
from qsim.formats import WIDEST_TABLE, Format, Grid, Table, get_format

__all__ = ["Inputs", "around", "make_inputs", "number_type", "step", "turning_points"]

Floats = NDArray[np.float64]

WIDEST_EVERYWHERE = 8
"""Formats of up to so many bits have every interval looked at closely; up to 16 its ends and middle, above a choice."""


APPROACHED = 24
"""Intervals whose middle and ends are approached closer and closer."""


@dataclass(frozen=True, slots=True)
class Inputs:
    """Hold numbers in ascending order, -0 before +0, without the NaNs closed under a change of sign; then NaNs."""

    x: NDArray[Any]
    #: The same as float64.
    exact: Floats
    #: Which are at an end of the range, of the subnormal values or of the input's own type, or next to it.
    edge: NDArray[np.bool_]
    #: Which approach the middle or an end of an interval by powers of two.
    fine: NDArray[np.bool_]
    #: What they are, in words.
    says: str


def number_type(dtype: Any) -> tuple[np.dtype[Any], Grid]:
    """Return the input's type and its format; raise `InputError` for one that is none of `NUMBERS`."""
    try:
        wanted = np.dtype(dtype)
    except TypeError:
        raise InputError(f"dtype = {dtype!r}; it is a type of NumPy's or ml_dtypes', such as np.float32") from None
    if wanted.name not in NUMBERS:
        raise InputError(f"numbers of float16, bfloat16, float32 or float64 go in, not of {wanted}")
    number = get_format(wanted.name)
    assert isinstance(number, Grid)
    return wanted, number


def step(x: NDArray[Any], steps: int) -> NDArray[Any]:
    """Return the numbers of x's own type that are `steps` above those of `x`; infinities end the line, NaNs stay.

    Patterns of magnitudes are in the order of their numbers, so that a signed pattern can be counted up and down.
    """
    number = get_format(x.dtype.name)
    assert number.inf_code is not None
    word = np.dtype(f"i{x.dtype.itemsize}")
    low = np.int64((1 << (number.bits - 1)) - 1)
    pattern = x.view(word).astype(np.int64)
    along = np.where(pattern < 0, -(pattern & low), pattern)
    moved = np.clip(along, -number.inf_code + max(-steps, 0), number.inf_code - max(steps, 0)) + steps
    back = np.where(moved < 0, -moved | ~low, moved).astype(word).view(x.dtype)
    return np.where(np.isnan(exactly(x)), x, back)


def around(values: Floats, dtype: np.dtype[Any]) -> NDArray[Any]:
    """Return, for each of `values`, the numbers of `dtype` just below it, at it (or next to it) and just above it."""
    with np.errstate(over="ignore", under="ignore"):
        near = values[np.isfinite(values)].astype(dtype)
    return np.concatenate([step(near, -1), near, step(near, 1)])


def turning_points(fmt: Format, fractions: tuple[Fraction, ...], ordinals: NDArray[np.int64] | None = None) -> Floats:
    """Return the points at these fractions of the intervals of a format, as near as float64 holds them.

    Fractions count from the lesser end. The intervals are those above the points that `ordinals` number, by default all of
    the line, one beyond the range on either side included. Nothing is said of formats of more than 16 bits without `ordinals`.
    """
    if ordinals is None:
        points = line(fmt).points
        low, high = points[:-1], points[1:]
    else:
        pairs = [(fmt.value(number), fmt.value(number + 1)) for number in ordinals.tolist()]
        low, high = (np.array([_near(value) for value in side]) for side in zip(*pairs, strict=True))
    with np.errstate(over="ignore", invalid="ignore"):
        found = [low + float(share) * (high - low) for share in fractions]
    return np.unique(np.concatenate([*found, high[-1:]]))


def _near(value: Fraction) -> float:
    try:
        return float(value)
    except OverflowError:
        return np.inf if value > 0 else -np.inf


def _some_ordinals(fmt: Format, rng: np.random.Generator) -> NDArray[np.int64]:
    """Return a choice of the ordinals of a wide format: small ones, next to powers of two, at the ends, and drawn ones."""
    first, last = min(-fmt.bottom - 1, -1), fmt.top
    powers = [offset + sign * 2**k for k in range(fmt.bits) for sign in (-1, 1) for offset in (-2, -1, 0, 1)]
    whole = 1 << fmt.man_bits if isinstance(fmt, Grid) and not fmt.even else 1
    binades = [offset + sign * k * whole for k in range(1, 257) for sign in (-1, 1) for offset in (-1, 0)]
    ends = [end + offset for end in (first, last) for offset in range(-3, 4)]
    drawn = rng.integers(first, last + 1, 256).tolist()
    chosen = np.unique(np.array([*range(-16, 17), *powers, *binades, *ends, *drawn], np.int64))
    return chosen[(chosen >= first) & (chosen <= last)]


def _specials(number: Grid, dtype: np.dtype[Any]) -> NDArray[Any]:
    """Return NaNs, quiet and signalling, of the smallest, largest and some other payloads, and infinities."""
    inf = number.inf_code
    assert inf is not None
    m = number.man_bits
    payloads = [1, 1 << (m - 1), (1 << m) - 1, (1 << (m - 1)) - 1, (1 << (m - 1)) | 1, 0b10110 & ((1 << m) - 1)]
    magnitudes = [inf, *(inf + payload for payload in payloads)]
    sign = 1 << (number.bits - 1)
    patterns = [*magnitudes, *(sign | magnitude for magnitude in magnitudes)]
    return np.array(patterns, f"u{dtype.itemsize}").view(dtype)


def _sweep(number: Grid, dtype: np.dtype[Any], fmt: Format) -> NDArray[Any]:
    """Return, for each power of two of the type, itself, the numbers next to it and some of few and of many bits.

    Of float64, whose range is that of no small format, every power from well below the smallest value to well above the
    largest, and every eighth beyond.
    """
    low, high = number.lsb, number.emax
    exponents = np.arange(low, high + 1)
    if number.bits == 64:
        ends = [abs(end) for end in (fmt.max, fmt.min, fmt.smallest_subnormal) if abs(end) > 0]
        near = (exponents > np.log2(min(ends)) - 160) & (exponents < np.log2(max(ends)) + 80)
        exponents = exponents[near | (exponents % 8 == 0)]
    shares = np.array([1.0, 1.25, 1.5, 1.75, 1.0 + 1 / 3, 1.0 + 5 / 7])
    with np.errstate(over="ignore", under="ignore"):
        powers = np.ldexp(1.0, exponents).astype(dtype)
        rest = np.ldexp(shares[:, None], exponents).reshape(-1).astype(dtype)
    return np.concatenate([step(powers, -1), powers, step(powers, 1), rest])


def _approaches(fmt: Format, number: Grid, dtype: np.dtype[Any], ordinals: NDArray[np.int64] | None) -> NDArray[Any]:
    """Return, for a choice of intervals, numbers at 2^-3, 2^-4, ... of the interval from its middle, and from its ends.

    How near they must come until a result turns wrong tells how many bits a quantizer keeps on its way.
    """
    low, high = (line(fmt).points[:-1], line(fmt).points[1:]) if ordinals is None else (
        np.array([_near(fmt.value(at + offset)) for at in ordinals.tolist()]) for offset in (0, 1)
    )  # fmt: skip
    kept = np.flatnonzero(np.isfinite(low) & np.isfinite(high))
    chosen = np.unique(kept[np.linspace(0, len(kept) - 1, min(APPROACHED, len(kept))).round().astype(np.intp)])
    near = np.ldexp(1.0, -np.arange(3, min(number.man_bits, 40) + 2))
    shares = np.concatenate([0.5 - near, 0.5 + near, near, 1 - near])
    with np.errstate(over="ignore", under="ignore"):
        found = (low[chosen, None] + shares * (high - low)[chosen, None]).reshape(-1)
        return np.asarray(found[np.isfinite(found)].astype(dtype))


def _edges(fmt: Format, number: Grid, dtype: np.dtype[Any]) -> NDArray[Any]:
    """Return the ends of the range, of the normal and the subnormal values, of the input's own type, and their neighbours."""
    beyond = turning_points(fmt, (Fraction(0), Fraction(1, 2)), _ends(fmt))
    ends = [*beyond.tolist(), fmt.max, fmt.min, fmt.smallest_normal, fmt.smallest_subnormal, fmt.smallest_subnormal / 2, 0.0,
            number.smallest_normal, number.smallest_subnormal, number.max]  # fmt: skip
    near = around(np.array(ends), dtype)
    return np.concatenate([near, step(near, 1), step(near, -1)])


def _ends(fmt: Format) -> NDArray[np.int64]:
    """Return the ordinals of the intervals at the two ends of the range."""
    low, high = -fmt.bottom - 1, fmt.top
    if isinstance(fmt, Table):  # whose line may end with its last value
        low, high = low + (fmt.below is None), high - (fmt.above is None)
    return np.array(sorted({low, high}), np.int64)


@functools.lru_cache(maxsize=16)
def make_inputs(
    fmt: Format, dtype: np.dtype[Any], fractions: tuple[Fraction, ...], seed: int, examples: int,
    further: tuple[float, ...] = (),
) -> Inputs:  # fmt: skip
    """Return the inputs for a rounding of `dtype` numbers to `fmt` that turns at these `fractions` of an interval.

    It turns at the `further` points too. `examples` more are drawn with `seed`: half of them from all bit patterns, half from
    the range of the format.
    """
    number = number_type(dtype)[1]
    rng = np.random.Generator(np.random.PCG64(seed))
    ordinals, intervals = None, "intervals"
    if fmt.bits > WIDEST_TABLE:
        ordinals, intervals = _some_ordinals(fmt, rng), "chosen intervals"
    points = np.union1d(turning_points(fmt, fractions, ordinals), further)
    count = line(fmt).points.size - 1 if ordinals is None else ordinals.size
    edges, fine = _edges(fmt, number, dtype), _approaches(fmt, number, dtype, ordinals)
    if dtype.itemsize == 2:
        x = np.arange(1 << 16, dtype=np.uint16).view(dtype)
        says = f"all 65,536 numbers of {dtype}"
    else:
        drawn = rng.integers(0, 1 << 64, examples // 2, dtype=np.uint64).astype(f"u{dtype.itemsize}").view(dtype)
        with np.errstate(over="ignore", under="ignore", invalid="ignore"):
            at = rng.integers(0, points.size - 1, examples - examples // 2)
            within = (points[at] + rng.random(at.size) * (points[at + 1] - points[at])).astype(dtype)
        parts = [
            around(points, dtype),
            fine,
            edges,
            _sweep(number, dtype, fmt),
            _specials(number, dtype),
            drawn,
            within,
        ]
        x = np.concatenate(parts)
        shares = ", ".join(str(share) for share in fractions)
        says = (f"{count:,} {intervals} at the fractions {shares}, with the {dtype}s next to these points; powers of two; "
                f"middles approached by powers of two; NaNs of all kinds; {examples:,} drawn with seed {seed}")  # fmt: skip
    x = _sorted(x)
    edge, near = (np.isin(_patterns(x), _patterns(np.concatenate([some, -some]))) for some in (edges, fine))
    return Inputs(x, exactly(x), edge, near, says)


def _sorted(x: NDArray[Any]) -> NDArray[Any]:
    """Return the numbers `x` and their negatives, each once, in ascending order, -0 before +0, NaNs last."""
    patterns = np.unique(_patterns(np.concatenate([x, -x])))
    unique = patterns.view(x.dtype)
    exact = exactly(unique)
    return unique[np.lexsort([patterns, ~np.signbit(exact), exact])]


def _patterns(x: NDArray[Any]) -> NDArray[Any]:
    return x.view(f"u{x.dtype.itemsize}")
