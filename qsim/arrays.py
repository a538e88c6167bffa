"""Rounding over arrays: `quantize` to values, `encode` to codes, `decode` back, by the kernels."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from qsim.errors import InputError, integer
from qsim.formats import Format, Grid, Table, get_format
from qsim.kernels import cpu, table
from qsim.kernels.core import Parameters
from qsim.kernels.parameters import CARRIERS, Carrier, addends, parameters, stochastic
from qsim.rounding import (
    LIMITED,
    Key,
    Mode,
    Order,
    Per,
    Quantizer,
    Saturation,
    Scale,
    check_eps,
    mode_fields,
    parse_mode,
    split_spelling,
)
from qsim.scales import INPUTS, apply_scale, derive_scale, flush_input, given_scale, number_format, remove_scale

__all__ = ["Counts", "decode", "encode", "quantize", "quantize_draws", "random_words"]

FLOAT32, FLOAT64 = CARRIERS[np.dtype(np.float32)], CARRIERS[np.dtype(np.float64)]


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
    eps: ArrayLike | None = None,
    saturation: str | Saturation | None = None,
    scale: Scale | ArrayLike = "none",
    per: Per = "tensor",
    order: Order = "divide",
    ftz_in: bool = False,
    ftz_out: bool = False,
    nan: str = "canonical",
    out: NDArray[Any] | None = None,
) -> NDArray[Any]:
    """Return the values that the elements of `x` round to, with the shape and dtype of `x`.

    `x` is float16, bfloat16 (of ml_dtypes), float32 or float64 (anything else is converted to float64 if it is Python
    numbers, and refused if it is an array of another type), of any shape, order and stride; its type must hold the values of
    the format. `fmt` names a format, `mode` a rounding ("RNE" by default), or `fmt` is a `Quantizer` and says all that is
    below. A stochastic mode takes its words from `key`, or from `rbits`: one word R of N = `sr_bits` bits an element,
    broadcast to the shape of `x`. Threshold takes `eps`, a number or an array that broadcasts. With a scale s, a name, a
    number or an array that broadcasts, the result is fl(s round(fl(x / s))). `scale`, `per`, `order`, `ftz_in`, `ftz_out` and
    `nan` are those of `Quantizer`. `out` takes the result; it may be `x`.
    Raise `InputError` for a spelling, a dtype, a word or an `out` that does not fit.
    """
    how = _how(fmt, mode, sr_bits, eps, saturation, scale, per, order, ftz_in, ftz_out, nan)
    array = _floats(x)
    if out is not None:
        _check_out(out, array)
    if not _can_hold(number_format(array.dtype), how.q.format):
        raise InputError(
            f"{array.dtype} cannot hold the values of {how.q.format}; convert the input to float64, or encode"
        )
    y, s = _round(array, how, key, rbits)
    values = y.astype(array.dtype, copy=False)
    if s is not None:
        values = remove_scale(values, s, how.q)
    if out is None:
        return _as(values, np.asarray(x).dtype)
    out[...] = values
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
    eps: ArrayLike | None = None,
    saturation: str | Saturation | None = None,
    scale: Scale | ArrayLike = "none",
    per: Per = "tensor",
    order: Order = "divide",
    ftz_in: bool = False,
    ftz_out: bool = False,
    nan: str = "canonical",
) -> NDArray[Any]:
    """Return the codes that the elements of `x` (divided by the scale) round to, in the smallest unsigned type.

    Arguments and errors are those of `quantize`, but that any input type will do for any format.
    """
    how = _how(fmt, mode, sr_bits, eps, saturation, scale, per, order, ftz_in, ftz_out, nan)
    array = _floats(x)
    return _round(array, how, key, rbits, codes=True)[0]


def decode(codes: ArrayLike, fmt: str | Format, dtype: Any = np.float32) -> NDArray[Any]:
    """Return the values of `codes` as `dtype` (float32 by default), float64 where `dtype` cannot hold the format.

    Raise `InputError` for what is no code: codes are integers in 0 .. 2^bits - 1, and some formats leave some of them unused.
    """
    fmt = get_format(fmt)
    array = as_array(codes, "codes")
    if array.dtype.kind not in "iu":
        raise InputError(f"codes are integers, not {array.dtype}")
    if array.size and not 0 <= int(array.min()) <= int(array.max()) < 1 << fmt.bits:
        raise InputError(f"codes of {fmt.name} are 0 .. {(1 << fmt.bits) - 1}, not {array.min()} .. {array.max()}")
    try:
        wanted = np.dtype(dtype)
    except TypeError:
        raise InputError(f"dtype = {dtype!r} is no type of NumPy; float32 is one") from None
    if wanted.name not in INPUTS:
        raise InputError(f"values are decoded to float16, bfloat16, float32 or float64, not {wanted}")
    flat = array.reshape(-1)
    values = (fmt.values()[flat] if fmt.bits <= 16 else fmt.decode_array(flat)).reshape(array.shape)
    if not fmt.has_nan and np.isnan(values).any():
        unused = flat[np.isnan(values.reshape(-1))][0]
        raise InputError(f"{unused} is no code of {fmt.name}: no value has it")
    return values.astype(wanted if _can_hold(number_format(wanted), fmt) else np.float64)


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
    scale is that of each draw, or of its parts that `q.per` names.
    """
    if x.dtype not in CARRIERS:
        raise InputError(f"tensors of float32 and float64 can be rounded, not {x.dtype}; convert the model first")
    if q.mode.stochastic and len(x) not in (1, len(streams)):
        raise InputError(f"x holds {len(x)} draws and there are {len(streams)} streams; one draw stands for all")
    if not _can_hold(number_format(x.dtype), q.format):
        raise InputError(f"{x.dtype} cannot hold the values of {q.format}; convert the model to float64")
    n = CARRIERS[x.dtype].width if q.sr_bits is None else q.sr_bits
    how = _How(q, n if q.mode.stochastic else None, None, None)
    scaled, s = _prepare(x, how, lead=1)
    carrier = _carrier(how, scaled)
    rows = np.ascontiguousarray(scaled.reshape(len(x), -1), carrier.dtype)
    draws = len(streams) if q.mode.stochastic else x.shape[0]
    y = np.empty((draws, rows.shape[1]), carrier.dtype)
    plan = _plan(q, how.n, CARRIERS[x.dtype].width, carrier.dtype, codes=False)
    if q.mode.stochastic:
        _round_rows(rows, y, plan, CARRIERS[x.dtype].width, seed, np.asarray(streams, np.uint64), 0)
    else:
        _round_flat(rows.reshape(-1), y.reshape(-1), plan, _eps_words(q.eps, y.shape))
    _after(y, q, carrier)
    counts = Counts(y.size, *cpu.count(rows.view(carrier.word), y.view(carrier.word), _limits(q, carrier.dtype)))
    values = y.reshape((draws, *x.shape[1:])).astype(x.dtype, copy=False)
    return values if s is None else remove_scale(values, s, q), counts


# --- Behind the border: everything below trusts its arguments ----------------------------------------------


@dataclass(frozen=True, slots=True)
class _How:
    """Hold a rounding as it was asked for: the `Quantizer`, and what may be an array or depend on the input's type."""

    q: Quantizer
    #: The number of random bits that was stated; `None`: as many as the input has.
    n: int | None
    eps: ArrayLike | None
    #: A frozen scale that is an array.
    scale: ArrayLike | None


def _how(*arguments: Any) -> _How:
    """Return the rounding that the arguments of `quantize` spell, from `fmt` to `nan`; looked up where it was asked before."""
    fmt, per = arguments[0], arguments[-5]
    if (isinstance(fmt, str) and ".toml" in fmt) or isinstance(per, tuple):
        return _spelled(*arguments)  # a file may change; and to a look-up (0, True) is (0, 1)
    try:
        return _known(*arguments)
    except TypeError:  # an array or a list among them has no hash
        return _spelled(*arguments)


def _spelled(
    fmt: str | Format | Quantizer,
    mode: str | Mode | None,
    sr_bits: int | None,
    eps: ArrayLike | None,
    saturation: str | Saturation | None,
    scale: Scale | ArrayLike,
    per: Per,
    order: Order,
    ftz_in: bool,
    ftz_out: bool,
    nan: Any,
) -> _How:
    """Return the rounding that the arguments of `quantize` spell."""
    sr_bits = None if sr_bits is None else integer("sr_bits", sr_bits)
    unscaled = isinstance(scale, str) and scale == "none"
    if isinstance(fmt, Quantizer):
        usual = unscaled and (per, order, ftz_in, ftz_out, nan) == ("tensor", "divide", False, False, "canonical")
        if mode is not None or saturation is not None or eps is not None or not usual:
            raise InputError("a Quantizer says mode, scale, saturation and all else; give a format to choose them here")
        if fmt.sr_bits is not None and sr_bits not in (None, fmt.sr_bits):
            raise InputError(f"sr_bits = {sr_bits} contradicts the {fmt.sr_bits} of the Quantizer {fmt}; drop one")
        return _How(fmt, fmt.sr_bits if sr_bits is None else sr_bits, fmt.eps, None)
    name: str | Format = fmt
    if isinstance(fmt, str) and mode is None:
        name, mode = split_spelling(fmt)
    mode = Mode.RNE if mode is None or mode == "" else mode  # "" is that of a spelling without one
    fields: dict[str, Any] = mode_fields(mode) if isinstance(mode, str) else {"mode": parse_mode(mode)}
    stated: int | None = fields.get("sr_bits", sr_bits)
    if sr_bits not in (None, stated):
        raise InputError(f"sr_bits = {sr_bits} contradicts the {stated} of {mode}; drop one")
    if fields["mode"] in LIMITED:
        fields["sr_bits"] = stated
    eps, scale = _one_or_several(eps, "eps"), _one_or_several(scale, "scale")
    given: Any = fields.get("eps", eps)
    if eps is not None and given is not eps:
        raise InputError(f"eps = {eps!r} contradicts the {given} of {mode}; drop one")
    fields["eps"] = 0.0 if isinstance(given, np.ndarray) else given  # arrays are looked at element by element
    several = scale if isinstance(scale, np.ndarray) else None
    if several is not None and per != "tensor":
        raise InputError(f"per = {per!r} with an array of scales, whose shape says which elements share one; drop it")
    single: Any = scale if several is None else "none"
    q = Quantizer(
        name,
        **fields,
        saturation=saturation,
        scale=single,
        per=per,
        order=order,
        ftz_in=ftz_in,
        ftz_out=ftz_out,
        nan=nan,
    )
    return _How(q, stated, given if isinstance(given, np.ndarray) else q.eps, several)


_known = functools.lru_cache(maxsize=1024, typed=True)(_spelled)


def _one_or_several(given: Any, name: str) -> Any:
    """Return numbers that have axes as an array, and a single one, however it is held, as Python's."""
    if given is None or isinstance(given, str | bool | int | float | Fraction):
        return given
    array = as_array(given, name)
    return array if array.ndim else array.item()


def as_array(x: ArrayLike, name: str) -> NDArray[Any]:
    """Return `x` as an array; refuse rows of different lengths, and masks, which no rounding knows."""
    try:
        array = np.asarray(x)
    except ValueError:
        raise InputError(f"{name} is a ragged list; its rows must be of one length") from None
    if isinstance(x, np.ma.MaskedArray):
        raise InputError(f"{name} is a masked array; fill it or take its data, for a mask has no rounding")
    return array


def _floats(x: ArrayLike) -> NDArray[Any]:
    array = as_array(x, "x")
    if not isinstance(x, np.ndarray | np.generic) and array.dtype.kind in "iu":
        floats = array.astype(np.float64)
        for whole, number in zip(array.flat, floats.flat, strict=True):
            if int(whole) != int(number):
                raise InputError(f"{whole} does not fit a float64 exactly; give floats")
        array = floats
    native = _native(array.dtype)
    if native is None:
        raise InputError(
            f"arrays of float16, bfloat16, float32 and float64 can be rounded, not {array.dtype}; convert the input first"
        )
    return array.astype(native, copy=False)


@functools.cache
def _native(dtype: np.dtype[Any]) -> np.dtype[Any] | None:
    """Return the type of an array in the machine's byte order, `None` if it cannot be rounded."""
    native = dtype.newbyteorder("=") if dtype.kind == "f" else dtype
    return native if native.name in INPUTS else None


def _as(y: NDArray[Any], dtype: np.dtype[Any]) -> NDArray[Any]:
    return y.astype(dtype, copy=False) if dtype.kind == "f" else y


def _check_out(out: NDArray[Any], array: NDArray[Any]) -> None:
    if isinstance(out, np.ndarray) and _overlaps(out):
        raise InputError("out has elements that share memory; give an array of its own elements")
    if not isinstance(out, np.ndarray) or out.shape != array.shape or out.dtype.newbyteorder("=") != array.dtype:
        found = f"{out.dtype} {out.shape}" if isinstance(out, np.ndarray) else type(out).__name__
        raise InputError(f"out is {found}; it must be an array of {array.dtype} {array.shape}, as x is")
    if not out.flags.writeable:
        raise InputError("out is read-only; give an array that can be written")


def _overlaps(out: NDArray[Any]) -> bool:
    """Return whether elements of `out` may share memory: a step along one axis is within the reach of the shorter ones."""
    reach = out.itemsize
    for step, count in sorted(
        (abs(step), count) for step, count in zip(out.strides, out.shape, strict=True) if count > 1
    ):
        if step < reach and out.size:
            return True
        reach += step * (count - 1)
    return False


@functools.lru_cache(maxsize=1024)
def _can_hold(number: Grid, fmt: Format) -> bool:
    """Return whether every value of `fmt` is a finite value of the input format `number`."""
    ends = (fmt.value(fmt.top), fmt.value(-fmt.bottom))
    if max(map(abs, ends)) > number.value(number.top):
        return False
    if isinstance(fmt, Table):
        return not any(number.split(Fraction(value))[1] for value in fmt.points)
    assert isinstance(fmt, Grid)
    digits = fmt.man_bits if fmt.even else fmt.precision
    return fmt.lsb >= number.lsb and digits <= number.precision


def _rule(q: Quantizer) -> Saturation:
    assert q.saturation is not None  # Quantizer.__init__ put the default in
    return q.saturation


@functools.lru_cache(maxsize=256)
def _codes(fmt: Format) -> tuple[NDArray[np.float64], NDArray[Any]]:
    """Return the values in ascending order, and their codes, of a format that the core does not encode."""
    ordinals = range(-fmt.bottom, fmt.top + 1)
    values = np.array([float(fmt.value(ordinal)) for ordinal in ordinals])
    return values, np.array([fmt.code(ordinal) for ordinal in ordinals], code_dtype(fmt))


def _carrier(how: _How, scaled: NDArray[Any]) -> Carrier:
    """Return the type that is computed in: float32 where it can, else float64."""
    narrow = scaled.dtype.itemsize <= 4 and FLOAT32.holds(how.q.format) and how.q.mode is not Mode.THR
    between = how.q.mode in (Mode.SRB, Mode.SRC) and how.n == FLOAT32.width  # a bit below the last is looked at
    return FLOAT32 if narrow and not between else FLOAT64


@dataclass(frozen=True, slots=True)
class _Plan:
    """Hold the loop that does a rounding, what it must know, and the loop that draws its random words as well."""

    loop: Callable[..., None]
    words: NDArray[Any]
    rows: Callable[..., None] | None = None


@functools.lru_cache(maxsize=4096)
def _plan(q: Quantizer, n: int | None, width: int, dtype: np.dtype[Any], *, codes: bool) -> _Plan:
    """Return how an array of the carrier `dtype` is rounded to values or `codes`; random words are `n` of `width` bits."""
    carrier, rule, fmt = CARRIERS[dtype], _rule(q), q.format
    signed_nan = q.nan == "signed"
    source = stochastic(q.mode, _random_bits(q, n, width), dtype) if q.mode.stochastic else None
    if carrier.holds(fmt):
        p = parameters(fmt, rule, dtype, q.mode, signed_nan=signed_nan, codes=codes)
        if source is not None:
            rows = cpu.by_rows(p, source, codes=codes) if width == carrier.width else None
            return _Plan(cpu.by_words(p, source, codes=codes), cpu.words_of(p, source), rows)
        if q.mode is Mode.THR:
            return _Plan(cpu.by_eps(codes=codes), cpu.words_of(p))
        t = addends(q.mode, dtype)
        return _Plan(cpu.by_addends(p, t, codes=codes), cpu.words_of(p, t))
    if isinstance(fmt, Grid) and not fmt.gap:
        raise InputError(f"{fmt} has values beyond float64, or fewer exact bits there; qsim.reference rounds to it")
    line, none = table.line(fmt, rule, q.mode, signed_nan=signed_nan), np.empty(0, dtype)
    if source is not None:
        kept = np.array(source)
        return _Plan(lambda x, r, y, _: table.round_by_words(x, r, y, kept, line), none)
    if q.mode is Mode.THR:
        return _Plan(lambda x, eps, y, _: table.round_by_eps(x, eps, y, line), none)
    runs = table.steps(fmt, rule, q.mode, signed_nan=signed_nan)
    return _Plan(lambda x, y, _: table.round_by_steps(x, y, runs), none)


@functools.lru_cache(maxsize=1024)
def _limits(q: Quantizer, dtype: np.dtype[Any]) -> Any:
    """Return the words that say where the range of the format ends, for `cpu.count` and `cpu.flush_all`."""
    rule = Saturation.saturate if q.saturation is Saturation.wrap else _rule(q)
    fmt = q.format
    if CARRIERS[dtype].holds(fmt):
        return cpu.words_of(parameters(fmt, rule, dtype, q.mode, signed_nan=q.nan == "signed"))
    line = table.line(fmt, rule, q.mode, signed_nan=q.nan == "signed")
    known = Parameters(*(getattr(line, name, dtype.type(0).view(line.sign.dtype)) for name in Parameters._fields))
    return cpu.words_of(known)


def _random_bits(q: Quantizer, n: int | None, width: int) -> int:
    """Return the number of random bits of a word, `n` or as many as the input's `width` has; refuse what the mode cannot take."""
    n = width if n is None else n
    least = int(q.mode is Mode.SRE)
    most = width - (width == FLOAT64.width and q.mode in (Mode.SRB, Mode.SRC))
    if not least <= n <= most:
        raise InputError(f"sr_bits = {n}: {q.mode} of {width}-bit words takes {least} to {most} random bits")
    return n


def _prepare(x: NDArray[Any], how: _How, lead: int = 0) -> tuple[NDArray[Any], NDArray[Any] | None]:
    """Return what is rounded in place of `x`, and the scale."""
    q = how.q
    if q.format.nan_to == "error" and np.isnan(x).any():
        at = np.unravel_index(int(np.argmax(np.isnan(x))), x.shape)
        raise InputError(f"x[{', '.join(map(str, at))}] is NaN, which has no place in {q.format}")
    x = flush_input(x, q)
    if how.scale is None and q.scale == "none":
        return x, None
    s = derive_scale(x, q, lead) if how.scale is None else given_scale(how.scale, x, lead)
    assert s is not None
    bits = 0 if not q.mode.stochastic else 8 * max(x.dtype.itemsize, 4) if how.n is None else how.n
    return apply_scale(x, s, q, bits), s


def _round(
    array: NDArray[Any], how: _How, key: Key | None, rbits: ArrayLike | None, *, codes: bool = False
) -> tuple[NDArray[Any], NDArray[Any] | None]:
    """Return `array`, divided by its scale and rounded, in the carrier's type or as `codes`; and the scale."""
    q, n = how.q, how.n
    if key is not None and not isinstance(key, Key):
        raise InputError(f"key must be a qsim.Key, such as qsim.Key(seed=0), not {key!r}")
    width = 8 * max(array.dtype.itemsize, 4)
    if not q.mode.stochastic:
        if rbits is not None or n is not None:
            raise InputError(f"{q.mode} takes no random bits; drop rbits and sr_bits, or name a stochastic mode")
    elif q.mode is Mode.SR and n not in (None, width):
        raise InputError(f"SR takes {width} random bits of {array.dtype} input, not {n}; SRA takes any number")
    elif rbits is not None and (key is not None or n is None):
        raise InputError("rbits needs sr_bits, the number of bits of each word, and takes the place of key")
    elif rbits is None and key is None:
        raise InputError(f"{q.mode} needs its random words: key=qsim.Key(seed), or rbits= with sr_bits=")
    scaled, s = _prepare(array, how)
    carrier = _carrier(how, scaled)
    x = np.ascontiguousarray(scaled, carrier.dtype)
    direct = codes and carrier.holds(q.format) and q.saturation is not Saturation.wrap and not q.ftz_out
    plan = _plan(q, n, width, carrier.dtype, codes=direct)
    y = np.empty(array.shape, code_dtype(q.format) if direct else carrier.dtype)
    if q.mode.stochastic and key is not None:
        streams = np.array([key.stream], np.uint64)
        _round_rows(x.reshape(1, -1), y.reshape(1, -1), plan, width, key.seed, streams, key.offset)
    else:
        words = _eps_words(how.eps, array.shape)
        if rbits is not None:
            words = _words(rbits, n or 0, array.shape, carrier)
        _round_flat(x.reshape(-1), y.reshape(-1), plan, words)
    if not direct:
        _after(y, q, carrier)
    return (_encoded(y, q, carrier) if codes and not direct else y), s


def _patterns(y: NDArray[Any]) -> NDArray[Any]:
    """Return floats as their patterns; codes as they are."""
    return y.view(CARRIERS[y.dtype].word) if y.dtype.kind == "f" else y


def _round_rows(
    x: NDArray[Any],
    y: NDArray[Any],
    plan: _Plan,
    width: int,
    seed: int,
    streams: NDArray[np.uint64],
    offset: int,
) -> None:
    """Round each row of `x` (or its only one) into a row of `y`, by the words of its stream, `width` bits an element."""
    u, out = _patterns(x), _patterns(y)
    if plan.rows is not None:
        plan.rows(u, out, np.uint64(seed), streams, np.uint64(offset), plan.words)
        return
    for k, stream in enumerate(streams):
        words = _wide_words(Key(seed, int(stream), offset), y.shape[1], width)
        plan.loop(u[min(k, len(u) - 1)], words, out[k], plan.words)


def _wide_words(key: Key, count: int, width: int) -> NDArray[np.uint64]:
    """Return the random words of an array whose elements take `width` bits, at the top of 64-bit words."""
    if width == 32:
        return random_words(key, count).astype(np.uint64) << np.uint64(32)
    block, skip = divmod(key.offset, 2)
    pairs = np.empty(-(-(2 * (skip + count)) // 4) * 4, np.uint32)
    cpu.fill(pairs, np.uint64(block), np.uint64(key.seed), np.uint64(key.stream))
    joined = pairs[0::2].astype(np.uint64) << np.uint64(32) | pairs[1::2]
    return joined[skip : skip + count]


def _round_flat(x: NDArray[Any], y: NDArray[Any], plan: _Plan, words: NDArray[Any] | None) -> None:
    """Round `x` into `y` deterministically, or element by element by what `words` holds: random words, or thresholds."""
    plan.loop(_patterns(x), *(() if words is None else (words,)), _patterns(y), plan.words)


def _encoded(y: NDArray[Any], q: Quantizer, carrier: Carrier) -> NDArray[Any]:
    """Return the codes of values of the format."""
    fmt = q.format
    codes, flat = np.empty(y.shape, code_dtype(fmt)), y.reshape(-1)
    if carrier.holds(fmt):  # any mode takes a value to itself
        rule = Saturation.saturate if q.saturation is Saturation.wrap else _rule(q)
        how = Quantizer(fmt, Mode.RTZ, saturation=rule, nan=q.nan)
        _round_flat(flat, codes.reshape(-1), _plan(how, None, carrier.width, carrier.dtype, codes=True), None)
        return codes
    values, ascending = _codes(fmt)
    out = codes.reshape(-1)
    np.take(ascending, np.searchsorted(values, flat), out=out, mode="clip")
    out[(flat == 0) & np.signbit(flat) & fmt.has_neg_zero] |= codes.dtype.type(1 << (fmt.bits - 1))
    if fmt.inf_code is not None:
        out[np.isposinf(flat)] = fmt.inf_code
        out[np.isneginf(flat)] = fmt.code_of_inf(negative=True)
    if fmt.nan_code is not None:
        out[np.isnan(flat)] = fmt.nan_code
        out[np.isnan(flat) & np.signbit(flat)] = fmt.code_of_nan(negative=True)
    return codes


def _eps_words(eps: ArrayLike | None, shape: tuple[int, ...]) -> NDArray[np.uint64] | None:
    """Return eps 2^64 for every element, flat; `None` where there is no eps."""
    if eps is None:
        return None
    array = np.asarray(eps)
    if array.dtype.kind not in "fiu" and array.dtype.name != "bfloat16":
        raise InputError(f"eps of {array.dtype} must be numbers with 0 <= eps < 1")
    lifted = np.ldexp(array.astype(np.float64), 64)
    for problem in np.flatnonzero(~((lifted >= 0) & (lifted < 2.0**64) & (lifted == np.floor(lifted))))[:1]:
        check_eps(array.astype(np.float64).flat[problem].item())
    return np.ascontiguousarray(_broadcast(lifted, shape, "eps").reshape(-1).astype(np.uint64))


def _after(y: NDArray[Any], q: Quantizer, carrier: Carrier) -> None:
    """Wrap, or flush to zero, what was rounded, in place."""
    fmt = q.format
    if q.saturation is Saturation.wrap:
        number = carrier.dtype.type
        period = number(2.0**fmt.bits * fmt.smallest_subnormal)
        np.copyto(y, np.where(np.isfinite(y), np.fmod(y, period), y))
        # Both terms are multiples of the spacing, and so is the result, of no more than `bits` bits: all of it is exact. The
        # difference is +0 where nothing wraps, and -0 + 0 is 0: integers have no -0.
        y += np.where(y < number(fmt.min), period, number(0)) - np.where(y > number(fmt.max), period, number(0))
    if q.ftz_out and fmt.kind == "float" and fmt.smallest_subnormal < fmt.smallest_normal:
        limit = carrier.dtype.type(fmt.smallest_normal).view(carrier.word)
        flat = y.reshape(-1).view(carrier.word)
        cpu.flush_all(flat, flat, limit, _limits(q, carrier.dtype))


def _words(rbits: ArrayLike, bits: int, shape: tuple[int, ...], carrier: Carrier) -> NDArray[Any]:
    """Return `rbits` with the shape of x, flat, each word moved to the top of a word of the carrier."""
    array = as_array(rbits, "rbits")
    if array.dtype.kind not in "iu":
        raise InputError(f"rbits are integers, not {array.dtype}")
    if array.size and not 0 <= int(array.min()) <= int(array.max()) < 1 << bits:
        raise InputError(f"rbits of {bits} bits are 0 .. {(1 << bits) - 1}, not {array.min()} .. {array.max()}")
    words: NDArray[Any] = _broadcast(array, shape, "rbits").astype(carrier.word).reshape(-1)
    lift = carrier.width - bits
    return np.left_shift(words, carrier.word(lift)) if bits else np.zeros_like(words)


def _broadcast(array: NDArray[Any], shape: tuple[int, ...], name: str) -> NDArray[Any]:
    try:
        return np.broadcast_to(array, shape)
    except ValueError:
        raise InputError(f"{name} of shape {array.shape} do not broadcast to the shape {shape} of x") from None
