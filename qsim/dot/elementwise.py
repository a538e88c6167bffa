"""Elementwise operations, exactly computed and then rounded once: `add`, `sub`, `mul`, `div`, `fma`, `sqrt`.

The exact result of an operation on two float32 numbers may have hundreds of bits. Its first 53, cut toward zero, with the last
one set where something was lost, round to at least two bits less as the exact result does (Boldo and Melquiond 2008). Such a
float64 is an *odd* number here; `qsim.quantize` rounds it.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray

from qsim.arrays import quantize, random_words
from qsim.dot import reference
from qsim.dot.accumulator import STEP_BITS, WORD_BITS, random_bits
from qsim.errors import InputError
from qsim.formats import Format, Grid
from qsim.rounding import Key, Mode, Quantizer, as_key

__all__ = ["Flags", "add", "div", "fma", "mul", "sqrt", "sub"]

Floats: TypeAlias = NDArray[np.float64]
CARRIER_BITS = 53


@dataclass(frozen=True, slots=True)
class Flags:
    """Hold which elements raised which exception of IEEE 754-2019, section 7: arrays of truth values in the result's shape.

    `underflow` is raised where a result is inexact, and tiny after rounding (as by x86 processors).
    """

    inexact: NDArray[np.bool_]
    underflow: NDArray[np.bool_]
    overflow: NDArray[np.bool_]
    div_by_zero: NDArray[np.bool_]
    invalid: NDArray[np.bool_]


# --- Odd numbers -----------------------------------------------------------------------------------------------


def odd_sum(x: Floats, y: Floats, mode: Mode = Mode.RNE) -> Floats:
    """Return x + y as an odd number; terms and sum are far from the ends of float64."""
    with np.errstate(all="ignore"):
        t = x + y
        z = t - x
        e = (x - (t - z)) + (y - z)
        lost = (e != 0) & np.isfinite(e) & np.isfinite(t)
        inward = lost & (np.signbit(e) != np.signbit(t))
    u: NDArray[np.int64] = t.view(np.int64) - inward
    u |= lost
    odd = u.view(np.float64)
    if mode is Mode.RDN:
        odd = np.where((t == 0) & (np.signbit(x) | np.signbit(y)), -0.0, odd)
    return odd


def significands(x: Floats) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return integers m in [2^23, 2^24) and exponents e with |x| = m 2^e for numbers of float32; 2^23 for other numbers."""
    plain = np.where(np.isfinite(x) & (x != 0), np.abs(x), 1.0)
    m, e = np.frexp(plain)
    return np.ldexp(m, 24).astype(np.int64), e.astype(np.int64) - 24


def odd_quotient(x: Floats, y: Floats) -> Floats:
    """Return x / y as an odd number, for numbers of float32."""
    (m, e), (n, f) = significands(x), significands(y)
    whole, rest = np.divmod(m << 38, n)  # 2^37 <= whole < 2^39: with one bit more it is exact in a float64
    with np.errstate(all="ignore"):
        plain = x / y
        size = np.ldexp((2 * whole + (rest != 0)).astype(np.float64), e - f - 39)
    known = np.isfinite(x) & np.isfinite(y) & (x != 0) & (y != 0)
    return np.where(known, np.copysign(size, plain), plain)


def odd_root(x: Floats) -> Floats:
    """Return the square root of x as an odd number, for numbers of float32."""
    m, e = significands(x)
    odd = e & 1
    scaled = (m << odd) << 36  # below 2^61
    root = np.sqrt(scaled.astype(np.float64)).astype(np.int64)
    root -= root * root > scaled
    root += (root + 1) * (root + 1) <= scaled
    with np.errstate(all="ignore"):
        plain = np.sqrt(x)
        size = np.ldexp((2 * root + (root * root != scaled)).astype(np.float64), (e - odd - 36) // 2 - 1)
    return np.where((x > 0) & np.isfinite(x), size, plain)


def odd_bits(q: Quantizer) -> int:
    """Return how many bits of an exact result q looks at, those it only asks whether they are zero left out."""
    assert isinstance(q.format, Grid)
    precision = q.format.precision + (2 if q.ftz_out else 0)
    if (
        q.format.even
    ):  # a sum in the range has as many bits as a code, and one beyond it has all of them above the fraction
        precision = q.format.bits + 1
    return precision + (random_bits(q) if q.mode.stochastic else 0)


def rounds_odd(q: Quantizer, bits: int = CARRIER_BITS) -> bool:
    """Return whether q rounds an odd number of so many bits as the number that it stands for, by `qsim.quantize`."""
    fmt = q.format
    if not isinstance(fmt, Grid) or fmt.gap or not fmt.has_zero or str(q.saturation) == "wrap":
        return False
    limit = Fraction(2) ** 400
    ends = max(abs(fmt.value(fmt.top)), abs(fmt.value(-fmt.bottom)))
    if ends > limit or fmt.lsb < -400 or (q.mode is Mode.THR and q.eps and (q.eps * 2.0**24) % 1):
        return False
    return odd_bits(q) + (24 if q.mode is Mode.THR else 0) + 2 <= bits


def round_odd(x: Floats, q: Quantizer, words: NDArray[np.uint32] | None = None) -> Floats:
    """Return odd numbers rounded by q; a stochastic mode takes the top N bits of 32-bit words."""
    if not q.mode.stochastic:
        return quantize(x, q)
    n = random_bits(q)
    assert words is not None
    lifted = (words >> np.uint32(WORD_BITS - n) if n else np.zeros_like(words)).reshape(x.shape)
    mode = Mode.SRA if q.mode is Mode.SR else q.mode
    return quantize(
        x, q.format, mode, sr_bits=n, rbits=lifted, saturation=q.saturation, ftz_out=q.ftz_out, nan=q.nan
    )  # fmt: skip


def step_words(key: Key, count: int, step: int, n: int, first: int = 0) -> NDArray[np.uint32]:
    """Return the random words of the outputs from `first` on in one step, as `qsim.dot.reference.step_word` defines them."""
    half = n <= WORD_BITS // 2
    place = (key.offset + first + ((step // 2 if half else step) << STEP_BITS)) % (1 << 64)
    words = random_words(Key(key.seed, key.stream, place), count)
    return words << np.uint32(16) if half and step % 2 else words


# --- Operations ------------------------------------------------------------------------------------------------


def add(x: ArrayLike, y: ArrayLike, fmt: str | Quantizer, *, key: Key | None = None, flags: bool = False) -> Any:
    """Return x + y, rounded once by `fmt`, a "FORMAT:MODE" or a `Quantizer`; x and y broadcast.

    Operands are numbers in any format: floats of any type of NumPy or ml_dtypes, or integers, as float64 holds them. The result
    is float32, or float64 where that does not hold the format. A stochastic mode takes at most 32 random bits an element, the
    top ones of the 32-bit words that `key` names: of element i, word i + offset (SR: all 32). With `flags` a pair (result,
    `Flags`) is returned. Raise `InputError` for operands that are no numbers and for a rounding with a scale.
    """
    return _operate("add", (x, y), fmt, key, flags)


def sub(x: ArrayLike, y: ArrayLike, fmt: str | Quantizer, *, key: Key | None = None, flags: bool = False) -> Any:
    """Return x - y, rounded once; see `add`."""
    return _operate("sub", (x, y), fmt, key, flags)


def mul(x: ArrayLike, y: ArrayLike, fmt: str | Quantizer, *, key: Key | None = None, flags: bool = False) -> Any:
    """Return x y, rounded once; see `add`."""
    return _operate("mul", (x, y), fmt, key, flags)


def div(x: ArrayLike, y: ArrayLike, fmt: str | Quantizer, *, key: Key | None = None, flags: bool = False) -> Any:
    """Return x / y, rounded once; see `add`. x / 0 is an infinity, 0 / 0 a NaN, before they are rounded to `fmt`."""
    return _operate("div", (x, y), fmt, key, flags)


def sqrt(x: ArrayLike, fmt: str | Quantizer, *, key: Key | None = None, flags: bool = False) -> Any:
    """Return the square root of x, rounded once; see `add`. That of -0 is -0, that of other negative numbers NaN."""
    return _operate("sqrt", (x,), fmt, key, flags)


def fma(
    x: ArrayLike, y: ArrayLike, z: ArrayLike, fmt: str | Quantizer, *, key: Key | None = None, flags: bool = False
) -> Any:
    """Return x y + z, rounded once; see `add`."""
    return _operate("fma", (x, y, z), fmt, key, flags)


def _exact(name: str, mode: Mode) -> Callable[..., reference.Number]:
    """Return the operation over exact numbers."""
    operations: dict[str, Callable[..., reference.Number]] = {
        "add": lambda x, y: reference.add([x, y], mode),
        "sub": lambda x, y: reference.add([x, reference.minus(y)], mode),
        "mul": reference.multiply,
        "div": reference.divide,
        "sqrt": reference.square_root,
        "fma": lambda x, y, z: reference.add([reference.multiply(x, y), z], mode),
    }
    return operations[name]


def _odd(name: str, operands: tuple[Floats, ...], mode: Mode) -> Floats:
    """Return the operation as odd numbers."""
    x = operands[0]
    with np.errstate(all="ignore"):
        match name:
            case "add":
                return odd_sum(x, operands[1], mode)
            case "sub":
                return odd_sum(x, -operands[1], mode)
            case "mul":
                return x * operands[1]
            case "div":
                return odd_quotient(x, operands[1])
            case "sqrt":
                return odd_root(x)
            case _:
                return odd_sum(x * operands[1], operands[2], mode)


ROOM = {"add": CARRIER_BITS, "sub": CARRIER_BITS, "mul": CARRIER_BITS, "fma": CARRIER_BITS, "div": 39, "sqrt": 32}
"""Bits of an odd number that each operation makes, at least."""


def _operate(name: str, given: tuple[ArrayLike, ...], fmt: str | Quantizer, key: Key | None, flags: bool) -> Any:
    """Return the result of an operation, by odd numbers where they suffice, else by the reference."""
    q = parse_rounding(fmt)
    operands = np.broadcast_arrays(*(as_float64(x, f"operand {i}") for i, x in enumerate(given, 1)))
    operands = tuple(np.ascontiguousarray(x) for x in operands)
    words = None
    if q.mode.stochastic:
        if key is None:
            raise InputError(f"{q} takes random words: give key = qsim.Key(seed)")
        words = random_words(as_key(key, whole=True), operands[0].size).reshape(operands[0].shape)
    if rounds_odd(q, ROOM[name]) and all(map(is_short, operands)):
        odd = _odd(name, operands, q.mode)
        result = round_odd(odd, q, words)
        raised = _flags_of(name, operands, odd, result, q, words) if flags else None
    else:
        result, raised = _by_reference(name, operands, q, words, flags)
    values = result.astype(result_dtype(q.format))
    return (values, raised) if flags else values


def parse_rounding(fmt: str | Quantizer | Format) -> Quantizer:
    """Return the rounding of results that `fmt` names."""
    q = fmt if isinstance(fmt, Quantizer) else Quantizer(fmt) if isinstance(fmt, Format) else Quantizer.parse(fmt)
    if q.scale != "none" or q.ftz_in:
        raise InputError(f"{q}: the result of an operation has no scale, and ftz_in is about operands; drop them")
    if q.mode.stochastic and random_bits(q) > WORD_BITS:
        raise InputError(f"{q}: an operation takes at most {WORD_BITS} random bits")
    return q


def as_float64(x: ArrayLike, what: str) -> Floats:
    """Return numbers as float64, exactly."""
    array = np.asarray(x)
    if array.dtype.kind in "iu":
        wide = array.astype(np.float64)
        if array.dtype.itemsize > 4 and array.size and np.abs(wide).max() > 2.0**53:
            raise InputError(f"{what} holds integers beyond 2^53, which float64 does not")
        return wide
    if array.dtype.kind == "c" or array.dtype.kind in "bOSUmM" or array.dtype.itemsize > 8:
        raise InputError(f"{what} is an array of {array.dtype}; operands are real numbers that float64 holds")
    with np.errstate(all="ignore"):
        try:
            return array.astype(np.float64)
        except (TypeError, ValueError):
            raise InputError(f"{what} is an array of {array.dtype}; operands are real numbers") from None


def is_short(x: Floats) -> bool:
    """Return whether all numbers are float32's, so that products of two are exact in float64."""
    with np.errstate(all="ignore"):
        return bool(np.array_equal(x.astype(np.float32).astype(np.float64), x, equal_nan=True))


def result_dtype(fmt: Format) -> type[np.float32 | np.float64]:
    """Return the float type of results: float32 if it holds every value of the format."""
    assert isinstance(fmt, Grid)
    digits = fmt.man_bits if fmt.even else fmt.precision
    ends = max(abs(fmt.value(fmt.top)), abs(fmt.value(-fmt.bottom)))
    return np.float32 if digits <= 24 and fmt.lsb >= -149 and ends < Fraction(2) ** 128 else np.float64


def _by_reference(
    name: str, operands: tuple[Floats, ...], q: Quantizer, words: NDArray[np.uint32] | None, flags: bool
) -> tuple[Floats, Flags | None]:
    """Return the result, and its flags, element by element in exact rationals."""
    compute = _exact(name, q.mode)
    wider, deeper = _unbounded(q) if flags else (q, q)
    drawn = None if words is None else words.reshape(-1)
    rows = []
    for i, numbers in enumerate(zip(*(x.reshape(-1).tolist() for x in operands), strict=True)):
        exact = compute(*map(reference.lift, numbers))
        word = 0 if drawn is None else int(drawn[i])
        row: list[Any] = [reference.rounded(exact, q, word)]
        if flags and isinstance(exact, Fraction):
            differs = not math.isfinite(row[0]) or exact != Fraction(row[0])
            row += [differs, reference.rounded(exact, wider, word), reference.rounded(exact, deeper, word), 1.0]
        elif flags:
            row += [False, exact, exact, exact]
        rows.append(row)
    table = np.array(rows, np.float64).reshape(len(rows), 5 if flags else 1)
    columns = [table[:, k].reshape(operands[0].shape) for k in range(table.shape[1])]
    if not flags:
        return columns[0], None
    return columns[0], _flags(name, operands, q, columns[1] != 0, columns[2], columns[3], columns[4])


def _flags_of(
    name: str, operands: tuple[Floats, ...], odd: Floats, result: Floats, q: Quantizer, words: NDArray[np.uint32] | None
) -> Flags:
    """Return the exceptions of a result, given the exact ones as odd numbers."""
    wider, deeper = (round_odd(odd, other, words) for other in _unbounded(q))
    return _flags(name, operands, q, odd != result, wider, deeper, odd)


def _unbounded(q: Quantizer) -> tuple[Quantizer, Quantizer]:
    """Return q with one more value beyond each end of its range, and with two more binades below the smallest normal number."""
    fmt = q.format
    assert isinstance(fmt, Grid)
    same: dict[str, Any] = {"mode": q.mode, "sr_bits": q.sr_bits, "eps": q.eps}
    beyond = dataclasses.replace(
        fmt, top=fmt.top + 1, bottom=fmt.bottom + (fmt.bottom > 0), inf_code=None, revision="", saturation=""
    )
    rule = "saturate" if fmt.even else "SatFinite"
    deep = fmt if fmt.even or fmt.gap else fmt.deepened()
    return Quantizer(beyond, saturation=rule, **same), Quantizer(deep, saturation=q.saturation, **same)


def _flags(
    name: str,
    operands: tuple[Floats, ...],
    q: Quantizer,
    differs: NDArray[np.bool_],
    wider: Floats,
    deeper: Floats,
    special: Floats,
) -> Flags:
    """Return the exceptions, given which results differ from the exact ones, results of wider ranges, and exact specials."""
    fmt = q.format
    assert isinstance(fmt, Grid)
    finite = np.isfinite(special)
    nan = np.logical_or.reduce([np.isnan(x) for x in operands])
    zero = np.zeros(finite.shape, bool)
    if name == "div":
        zero = (operands[1] == 0) & np.isfinite(operands[0]) & (operands[0] != 0)
    over = finite & ((wider > fmt.max) | (wider < fmt.min))
    inexact = finite & (differs | over)
    tiny = np.zeros(finite.shape, bool) if fmt.even else np.abs(deeper) < fmt.smallest_normal
    return Flags(inexact, inexact & tiny, over, zero, np.isnan(special) & ~nan)
