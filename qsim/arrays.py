"""Rounding over arrays: `quantize` to values, `encode` to codes, `decode` back, by the kernels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from qsim.errors import InputError
from qsim.formats import Format, get_format
from qsim.kernels import cpu
from qsim.kernels.parameters import CARRIERS, Carrier, parameters, stochastic, thresholds
from qsim.rounding import LIMITED, Key, Mode, Quantizer, Saturation, Scale, parse_mode

__all__ = ["Counts", "decode", "derive_scale", "encode", "quantize", "quantize_draws", "random_words"]


@dataclass(frozen=True, slots=True)
class Counts:
    """Count the elements of roundings, and those that broke a hypothesis of unbiasedness."""

    elements: int = 0
    #: Finite, of larger magnitude than the format's largest value.
    saturated: int = 0
    #: Not zero, and rounded to zero.
    underflowed: int = 0
    nan: int = 0
    #: Already on the grid, hence unchanged.
    on_grid: int = 0

    def __add__(self, other: Counts) -> Counts:
        return Counts(*(getattr(self, name) + getattr(other, name) for name in self.__slots__))

    def __mul__(self, times: int) -> Counts:
        return Counts(*(getattr(self, name) * times for name in self.__slots__))


@np.errstate(over="ignore", invalid="ignore")  # infinities and NaNs are results like any other
def quantize(
    x: ArrayLike,
    fmt: str | Format | Quantizer,
    mode: str | Mode | None = None,
    *,
    key: Key | None = None,
    sr_bits: int | None = None,
    rbits: ArrayLike | None = None,
    saturation: str | Saturation | None = None,
    scale: Scale | float = "none",
    out: NDArray[Any] | None = None,
) -> NDArray[Any]:
    """Return the values that the elements of `x` round to, with the shape and dtype of `x`.

    `x` is float32 or float64 (anything else is converted to float64 if it is Python numbers, and refused if it is an
    array of another type), of any shape, order and stride. `fmt` names a format, `mode` a rounding ("RNE" by default), or
    `fmt` is a `Quantizer` and says both. A stochastic mode takes its words from `key`, or from `rbits`: one
    word R of N = `sr_bits` bits an element, broadcast to the shape of `x`. `out` takes the result; it may be `x`.
    With a scale s the result is s round(fl(x / s)), see `Quantizer`.
    Raise `InputError` for a spelling, a dtype, a word or an `out` that does not fit.
    """
    q, n = _quantizer(fmt, mode, sr_bits, saturation, scale)
    array = _floats(x)
    if out is not None:
        _check_out(out, array)
    carrier = CARRIERS[array.dtype]
    flat = array.reshape(1, -1)
    s = derive_scale(flat, q)
    y = _round(flat if s is None else flat / s, q, carrier, array.shape, key, n, rbits)
    if s is not None:
        _rescale(y, s, q)
    if out is None:
        return _as(y.reshape(array.shape), np.asarray(x).dtype)
    out[...] = y.reshape(array.shape)
    return out


@np.errstate(over="ignore", invalid="ignore")  # infinities and NaNs are results like any other
def encode(
    x: ArrayLike,
    fmt: str | Format | Quantizer,
    mode: str | Mode | None = None,
    *,
    key: Key | None = None,
    sr_bits: int | None = None,
    rbits: ArrayLike | None = None,
    saturation: str | Saturation | None = None,
    scale: Scale | float = "none",
) -> NDArray[Any]:
    """Return the codes that the elements of `x` (divided by the scale) round to, in the smallest unsigned type.

    Arguments and errors are those of `quantize`.
    """
    q, n = _quantizer(fmt, mode, sr_bits, saturation, scale)
    array = _floats(x)
    carrier = CARRIERS[array.dtype]
    flat = array.reshape(1, -1)
    s = derive_scale(flat, q)
    y = _round(flat if s is None else flat / s, q, carrier, array.shape, key, n, rbits)
    codes = np.empty(array.size, code_dtype(q.format))
    cpu.encode(y.reshape(-1).view(carrier.word), codes, _parameters(q, carrier))
    return codes.reshape(array.shape)


def decode(codes: ArrayLike, fmt: str | Format, dtype: Any = np.float32) -> NDArray[Any]:
    """Return the values of `codes` as `dtype` (float32 by default, float64 where float32 cannot hold the format).

    Raise `InputError` if a code is not an integer in 0 .. 2^bits - 1.
    """
    fmt = get_format(fmt)
    array = np.asarray(codes)
    if array.dtype.kind not in "iu":
        raise InputError(f"codes are integers, not {array.dtype}")
    if array.size and not 0 <= int(array.min()) <= int(array.max()) < 1 << fmt.bits:
        raise InputError(f"codes of {fmt.name} are 0 .. {(1 << fmt.bits) - 1}, not {array.min()} .. {array.max()}")
    if not CARRIERS[np.dtype(np.float32)].holds(fmt):
        dtype = np.float64
    if fmt.bits <= 16:
        return np.asarray(fmt.values().astype(dtype)[array])
    flat = [fmt.decode(int(code)) for code in array.reshape(-1)]
    return np.array(flat, dtype=dtype).reshape(array.shape)


def code_dtype(fmt: Format) -> np.dtype[Any]:
    """Return the smallest unsigned type that holds a code of `fmt`."""
    return np.dtype(f"u{next(size for size in (1, 2, 4, 8) if 8 * size >= fmt.bits)}")


def random_words(key: Key, count: int) -> NDArray[np.uint32]:
    """Return the `count` 32-bit Philox words that a float32 array with this `key` takes, shape (count,), uint32."""
    first = key.offset - key.offset % 4
    words = np.empty(-(-(key.offset - first + count) // 4) * 4, np.uint32)
    cpu.fill(words, np.uint64(first // 4), np.uint64(key.seed), np.uint64(key.stream))
    return words[key.offset - first :][:count].copy()


@np.errstate(over="ignore", invalid="ignore")  # infinities and NaNs are results like any other
def quantize_draws(
    x: NDArray[Any], q: Quantizer, seed: int, streams: NDArray[np.uint64] | Sequence[int]
) -> tuple[NDArray[Any], Counts]:
    """Round `x`, whose first axis is that of draws, and count what broke a hypothesis.

    Draw k takes the words of (seed, streams[k]), its elements numbered from 0. A first axis of length 1 stands for all
    draws alike: a stochastic rounding then returns one row a stream, a deterministic one a single row. A re-derived
    scale is that of each row.
    """
    if x.dtype not in CARRIERS:
        raise InputError(f"tensors of float32 and float64 can be rounded, not {x.dtype}; convert the model first")
    carrier = CARRIERS[x.dtype]
    if q.mode.stochastic and len(x) not in (1, len(streams)):
        raise InputError(f"x holds {len(x)} draws and there are {len(streams)} streams; one draw stands for all")
    rows = np.ascontiguousarray(x).reshape(len(x), -1)
    s = derive_scale(rows, q)
    scaled = rows if s is None else rows / s
    draws = len(streams) if q.mode.stochastic else x.shape[0]
    y = np.empty((draws, rows.shape[1]), x.dtype)
    words_in, words_out = scaled.view(carrier.word), y.view(carrier.word)
    p = _parameters(q, carrier)
    if q.mode.stochastic:
        n = carrier.width if q.sr_bits is None else q.sr_bits
        loop = cpu.round_rows32 if carrier.width == 32 else cpu.round_rows64
        source = _source(q, n, carrier)
        loop(words_in, words_out, np.uint64(seed), np.asarray(streams, np.uint64), np.uint64(0), source, p)
    else:
        cpu.round_by_thresholds(words_in.reshape(-1), words_out.reshape(-1), thresholds(q.mode, carrier.dtype), p)
    counts = Counts(y.size, *cpu.count(words_in, words_out, p))
    if s is not None:
        _rescale(y, s, q)
    return y.reshape((draws, *x.shape[1:])), counts


@np.errstate(over="ignore", invalid="ignore")  # infinities and NaNs are results like any other
def derive_scale(rows: NDArray[Any], q: Quantizer) -> NDArray[Any] | None:
    """Return the scale of each row of `rows`, shape (rows, 1), in its dtype; `None` for no scaling.

    "absmax": fl(max|x| / max), or the float above it, so that fl(max|x| / s) <= max. "pow2": the smallest power of two s
    with s max >= max|x|. NaN and infinities do not count. The scale is 1 in a row without another element than zeros, and
    where it would not be a normal number. Raise `InputError` for a frozen scale that the dtype rounds to zero or infinity.
    """
    if q.scale == "none":
        return None
    number = rows.dtype.type
    if not isinstance(q.scale, str):
        frozen = number(q.scale)
        if not 0 < frozen < np.inf:
            raise InputError(f"scale = {q.scale} is beyond the range of {rows.dtype}, in which x is divided by it")
        return np.full((1, 1), frozen)
    finite = np.where(np.isfinite(rows), np.abs(rows), 0)
    largest = finite.max(axis=1, keepdims=True, initial=0)
    if q.scale == "pow2":
        # Both are fraction * 2^exponent with fractions in [1/2, 1), so s = 2^(difference), or twice that.
        (fraction, exponent), (limit, shift) = np.frexp(largest), np.frexp(number(q.format.max))
        derived = np.ldexp(np.ones_like(largest), exponent - shift + (fraction > limit))
    else:
        derived = largest / number(q.format.max)
        # The division rounds, and the largest element must not come out above the largest value.
        above = largest / np.where(derived > 0, derived, 1) > number(q.format.max)
        derived = np.where(above, np.nextafter(derived, number(np.inf)), derived)
    usable = (largest > 0) & (derived >= np.finfo(rows.dtype).smallest_normal) & np.isfinite(derived)
    scale: NDArray[Any] = np.where(usable, derived, number(1))
    return scale


# --- Behind the border: everything below trusts its arguments ----------------------------------------------


def _quantizer(
    fmt: str | Format | Quantizer,
    mode: str | Mode | None,
    sr_bits: int | None,
    saturation: str | Saturation | None,
    scale: Scale | float,
) -> tuple[Quantizer, int | None]:
    """Return the rounding that the arguments of `quantize` spell, and the number of random bits they state."""
    if isinstance(fmt, Quantizer):
        if mode is not None or saturation is not None or scale != "none":
            raise InputError("a Quantizer says mode, scale and saturation itself; give a format to choose them here")
        if fmt.sr_bits is not None and sr_bits not in (None, fmt.sr_bits):
            raise InputError(f"sr_bits = {sr_bits} contradicts the {fmt.sr_bits} of the Quantizer {fmt}; drop one")
        return fmt, fmt.sr_bits if sr_bits is None else sr_bits
    name: str | Format = fmt
    if isinstance(fmt, str) and ":" in fmt and mode is None:
        name, mode = fmt.split(":", 1)
    parsed = parse_mode(mode or Mode.RNE)
    limit = sr_bits if parsed in LIMITED else None
    return Quantizer(name, parsed, sr_bits=limit, scale=scale, saturation=saturation), sr_bits


def _rescale(y: NDArray[Any], s: NDArray[Any], q: Quantizer) -> None:
    """Multiply `y` by its scale in place; where the rounding saturates, the product does not overflow either."""
    np.multiply(y, s, out=y)
    if q.saturation in (Saturation.SatFinite, Saturation.saturate):
        limit = np.finfo(y.dtype).max
        np.clip(y, -limit, limit, out=y)


def _floats(x: ArrayLike) -> NDArray[Any]:
    try:
        array = np.asarray(x)
    except ValueError:
        raise InputError("x is a ragged list; its rows must be of one length") from None
    if isinstance(x, np.ma.MaskedArray):
        raise InputError("a masked array has no rounding of its masked elements; fill them or take its data")
    if not isinstance(x, np.ndarray | np.generic) and array.dtype.kind in "iu":
        if array.size and max(abs(int(array.min())), abs(int(array.max()))) > 1 << 53:
            raise InputError(f"{array.flat[0]} ... does not fit a float64 exactly; give floats")
        array = array.astype(np.float64)
    native = array.dtype.newbyteorder("=")
    if native not in CARRIERS:
        raise InputError(f"arrays of float32 and float64 can be rounded, not {array.dtype}; convert the input first")
    return array.astype(native, copy=False)


def _as(y: NDArray[Any], dtype: np.dtype[Any]) -> NDArray[Any]:
    return y.astype(dtype, copy=False) if dtype.kind == "f" else y


def _check_out(out: NDArray[Any], array: NDArray[Any]) -> None:
    if isinstance(out, np.ndarray) and 0 in out.strides and out.size > 1:
        raise InputError("out has elements that share memory (a broadcast view); give an array of its own elements")
    if not isinstance(out, np.ndarray) or out.shape != array.shape or out.dtype.newbyteorder("=") != array.dtype:
        found = f"{out.dtype} {out.shape}" if isinstance(out, np.ndarray) else type(out).__name__
        raise InputError(f"out is {found}; it must be an array of {array.dtype} {array.shape}, as x is")
    if not out.flags.writeable:
        raise InputError("out is read-only; give an array that can be written")


def _parameters(q: Quantizer, carrier: Carrier) -> Any:
    assert q.saturation is not None  # Quantizer.__init__ put the default in
    return parameters(q.format, q.saturation, carrier.dtype, q.mode)


def _source(q: Quantizer, n: int, carrier: Carrier) -> Any:
    """Return how the core reads a random word of `n` bits; raise `InputError` for a number of bits that it cannot."""
    if not (q.mode is Mode.SRE) <= n <= carrier.width:
        least = int(q.mode is Mode.SRE)
        raise InputError(
            f"sr_bits = {n}: {q.mode} of {carrier.dtype} input takes {least} to {carrier.width} random bits"
        )
    if n == carrier.width and q.mode in (Mode.SRB, Mode.SRC):
        raise InputError(f"sr_bits = {n}: {q.mode} of {carrier.dtype} input takes at most {n - 1} random bits")
    return stochastic(q.mode, n, carrier.dtype)


def _round(
    flat: NDArray[Any],
    q: Quantizer,
    carrier: Carrier,
    shape: tuple[int, ...],
    key: Key | None,
    n: int | None,
    rbits: ArrayLike | None,
) -> NDArray[Any]:
    """Return `flat`, shape (1, size), rounded."""
    if key is not None and not isinstance(key, Key):
        raise InputError(f"key must be a qsim.Key, such as qsim.Key(seed=0), not {key!r}")
    if n is not None and (isinstance(n, bool) or not isinstance(n, int)):
        raise InputError(f"sr_bits = {n!r} must be an integer")
    u = np.ascontiguousarray(flat).view(carrier.word)
    y = np.empty_like(flat)
    out = y.view(carrier.word)
    p = _parameters(q, carrier)
    if not q.mode.stochastic:
        if rbits is not None or n is not None:
            raise InputError(f"{q.mode} takes no random bits; drop rbits and sr_bits, or name a stochastic mode")
        cpu.round_by_thresholds(u[0], out[0], thresholds(q.mode, carrier.dtype), p)
        return y
    if q.mode is Mode.SR and n not in (None, carrier.width):
        raise InputError(
            f"SR takes {carrier.width} random bits of {carrier.dtype} input, not {n}; SRA takes any number"
        )
    bits = carrier.width if n is None else n
    source = _source(q, bits, carrier)
    if rbits is not None:
        if key is not None or n is None:
            raise InputError("rbits needs sr_bits, the number of bits of each word, and takes the place of key")
        words = _words(rbits, bits, shape, carrier)
        cpu.round_by_words(u[0], words, out[0], source, p)
    elif key is None:
        raise InputError(f"{q.mode} needs its random words: key=qsim.Key(seed), or rbits= with sr_bits=")
    else:
        loop = cpu.round_rows32 if carrier.width == 32 else cpu.round_rows64
        streams = np.array([key.stream], np.uint64)
        loop(u, out, np.uint64(key.seed), streams, np.uint64(key.offset), source, p)
    return y


def _words(rbits: ArrayLike, bits: int, shape: tuple[int, ...], carrier: Carrier) -> NDArray[Any]:
    """Return `rbits` with the shape of x, flat, each word moved to the top of a word of the carrier."""
    array = np.asarray(rbits)
    if array.dtype.kind not in "iu":
        raise InputError(f"rbits are integers, not {array.dtype}")
    if array.size and not 0 <= int(array.min()) <= int(array.max()) < 1 << bits:
        raise InputError(f"rbits of {bits} bits are 0 .. {(1 << bits) - 1}, not {array.min()} .. {array.max()}")
    try:
        full = np.broadcast_to(array, shape)
    except ValueError:
        raise InputError(f"rbits of shape {array.shape} do not broadcast to the shape {shape} of x") from None
    words: NDArray[Any] = full.astype(carrier.word).reshape(-1)
    lift = carrier.width - bits
    return np.left_shift(words, carrier.word(lift)) if bits else np.zeros_like(words)
