"""Rounding over arrays: `quantize` to values, `encode` to codes, `decode` back, by the kernels."""

from __future__ import annotations

import dataclasses
import functools
import importlib
import math
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from qsim.decoder import decode_array, known_way, way_of
from qsim.errors import InputError, integer
from qsim.formats import Format, Table, get_format
from qsim.kernels.parameters import CARRIERS
from qsim.rounder import (
    How,
    Plan,
    can_hold,
    check_words,
    code_dtype,
    plan_of,
    random_words,
    round_and_count,
    round_array,
)
from qsim.rounding import (
    LIMITED,
    Flush,
    Key,
    Mode,
    Order,
    Per,
    Quantizer,
    Saturation,
    Scale,
    as_key,
    check_eps,
    mode_fields,
    number,
    parse_mode,
    split_spelling,
)
from qsim.scales import (
    INPUTS,
    apply_scale,
    derive_scale,
    flush_input,
    given_scale,
    is_real,
    number_format,
    remove_scale,
    zeros_for,
)
from qsim.underflow import SMALLER, SUBNORMAL, with_gradual_underflow

__all__ = [
    "Counts",
    "count_elements",
    "decode",
    "encode",
    "inside_draws",
    "quantize",
    "quantize_draws",
    "random_words",
    "round_piece",
]


@dataclass(frozen=True, slots=True)
class Counts:
    """Count the elements of roundings, and those that broke a hypothesis of unbiasedness.

    The engine, the optimizers and `qsim quantize` count alike; with a scale s the number that is rounded is fl(x / s).
    """

    elements: int = 0
    #: Finite, and beyond the range: above the largest value, or below the smallest one and 0.
    saturated: int = 0
    #: Finite and not zero, and the result is zero: flushed inputs and quotients too.
    underflowed: int = 0
    nan: int = 0
    #: A value of the format, hence unchanged by every rounding.
    on_grid: int = 0

    def __add__(self, other: Counts) -> Counts:
        return Counts(
            self.elements + other.elements,
            self.saturated + other.saturated,
            self.underflowed + other.underflowed,
            self.nan + other.nan,
            self.on_grid + other.on_grid,
        )

    def __mul__(self, times: int) -> Counts:
        return Counts(*(getattr(self, name) * times for name in self.__slots__))


def count_elements(
    x: NDArray[Any], u: NDArray[Any], result: NDArray[Any], q: Quantizer, some: NDArray[np.bool_] | None = None
) -> Counts:
    """Return the counts of a rounding of `x`.

    `u` is the number that is rounded, x or x / s, and `result` its rounding. `some` are the elements other than zero, where `x`
    does not tell.
    """
    fmt, finite = q.format, np.isfinite(x)
    some = x != 0 if some is None else some
    u = np.abs(u) if fmt.negative_to == "magnitude" else u
    underflowed = finite & some & (result == 0)
    counts = (
        finite & ((u > fmt.max) | (u < min(fmt.min, 0.0))),
        underflowed,
        np.isnan(x),
        finite & (u == result) & ~underflowed,
    )
    return Counts(x.size, *(int(np.count_nonzero(each)) for each in counts))


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
    ftz_out: bool | Flush = False,
    nan: str | None = None,
    scale_rule: str | None = None,
    axis: int | tuple[int, ...] | None = None,
    out: NDArray[Any] | None = None,
) -> NDArray[Any]:
    """Return the values that the elements of `x` round to.

    Args:
        x: Numbers of any shape, order and stride: an array of float16, bfloat16, float32 or float64; of a float of ml_dtypes of
            8 bits or fewer (computed in float32); of integers or booleans (in float64, refused where that is not exact); or a
            number or nested lists of numbers (float64).
        fmt: The format: a name ("float8_e4m3fn", "e4m3", "int4", "Q3.4"; `qsim formats` lists them), a dtype of NumPy,
            ml_dtypes or torch, a `Format`, "FORMAT:MODE", or a `Quantizer`, which then says all but key, rbits and out. Also a
            block format or a recipe of `qsim.blocks`.
        mode: To nearest: "RNE" (ties to the even code; the default), "RNA" (ties away from zero), "RNZ" (to zero), "RNP" (up),
            "RNN" (down). Directed: "RTZ" (toward zero), "RUP", "RDN", "RAZ" (away from zero), "RTO" (to the odd code).
            Stochastic: "SR" (unbiased, with as many random bits as the input has), "SRA", "SRB", "SRC" (IEEE P3109, with N =
            `sr_bits` of them), "SRE" (either neighbour with probability 1/2). "Threshold": up iff the fraction exceeds `eps`.
        key: Random words by counter: a `Key`, whose word for element i depends on (seed, stream, i + offset) alone; an integer,
            the seed of one; or a `np.random.Generator`, which draws the seed.
        sr_bits: N, the random bits of SRA, SRB and SRC, 0 to 64.
        rbits: The random words themselves, integers R of `sr_bits` bits, which broadcast to the shape of `x`; not with `key`.
        eps: The threshold, 0 <= eps < 1, a number or an array that broadcasts.
        saturation: The result of a number beyond the range. "SatFinite": the largest value, of infinities too.
            "SatPropagate": the largest value, infinities stay. "SatNone": infinity, where the format has it. "OvfNaN": NaN.
            "InfNaN": the largest value, but NaN of infinities. Integers: "saturate" or "wrap". By default SatNone for formats
            with infinity, SatFinite for floats without, "saturate" for integers; `qsim show FORMAT` prints it.
        scale: s in s round(fl(x / s)), which is rounded once to the type of `x`: "none", "absmax", "absmax_nearest", "pow2",
            "absmean" (see `Quantizer`), a number, or an array that broadcasts, of any type of NumPy or ml_dtypes that holds
            numbers. Where s is 0, x counts as a zero of its sign, and NaN stays NaN.
        per: The elements that share a derived scale: "tensor", "sample" and "channel" (axis 0), "token" (all axes but the
            last), or the number of an axis, or several: each index of it has a scale of its own.
        order: The order of operations of the scale: "divide", "reciprocal", "exact" or "input", see `Quantizer`.
        ftz_in: Take subnormal inputs for zeros.
        ftz_out: Flush tiny results to zero: "after" (or True), "before" or "result", see `Quantizer`.
        nan: The NaN of results: "canonical", "signed" or "signed_overflow"; by default the format's.
        scale_rule: Of a block format, the rule of its scales: "floor", "ceil", "rceil", "even", "midmax", "nearest" or "up".
        axis: Of a block format, the axis or axes along which blocks lie, the last by default; else another word for `per`.
        out: An array that takes the result; it may be `x`.

    Returns:
        The values, with the shape and dtype of `x` (float64 for integers and Python numbers), which must hold the values of
        the format; a scalar for a scalar.

    Raises:
        InputError: for a spelling, a dtype, a word or an `out` that does not fit.
    """
    if not SUBNORMAL - SMALLER:
        return with_gradual_underflow(quantize, locals())
    try:
        if scale_rule is not None or axis is not None:
            raise _ByBlocks
        how = _how(fmt, mode, sr_bits, eps, saturation, scale, per, order, ftz_in, ftz_out, nan)
    except _ByBlocks:
        answer: NDArray[Any] = _by_blocks("quantize", locals())
        return answer
    array = x if type(x) is np.ndarray and x.dtype in CARRIERS else as_floats(x)
    plan = plan_of(how, array.dtype, bits=key.bits if type(key) is Key else 32)
    values = np.empty(array.shape, array.dtype) if out is None else _plain(out, array, array.dtype)
    _round(array, values, how, plan, key, rbits, fresh=out is None)
    if out is not None:
        return out
    return values if array is x else _returned(values, x, how.q.format)


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
    ftz_out: bool | Flush = False,
    nan: str | None = None,
    scale_rule: str | None = None,
    axis: int | tuple[int, ...] | None = None,
    out: NDArray[Any] | None = None,
) -> NDArray[Any]:
    """Return the codes that the elements of `x`, divided by the scale, round to.

    Args and errors are those of `quantize`, but that any input type will do for any format, and `out` takes the codes.

    Returns:
        The codes in the smallest unsigned type that holds them, with the shape of `x`; of a block format a
        `qsim.blocks.Encoded`, codes and scales as one value.
    """
    if not SUBNORMAL - SMALLER:
        return with_gradual_underflow(encode, locals())
    try:
        if scale_rule is not None or axis is not None:
            raise _ByBlocks
        how = _how(fmt, mode, sr_bits, eps, saturation, scale, per, order, ftz_in, ftz_out, nan)
    except _ByBlocks:
        answer: NDArray[Any] = _by_blocks("encode", locals())
        return answer
    array = x if type(x) is np.ndarray and x.dtype in CARRIERS else as_floats(x)
    bits = key.bits if type(key) is Key else 32
    plan, dtype = plan_of(how, array.dtype, codes=True, bits=bits), code_dtype(how.q.format)
    codes = np.empty(array.shape, dtype) if out is None else _plain(out, array, dtype)
    _round(array, codes, how, plan, key, rbits, fresh=out is None, codes=True)
    if out is not None:
        return out
    return codes if array is x or not isinstance(x, int | float | np.generic) else codes[()]


def round_piece(
    x: NDArray[Any],
    s: NDArray[Any] | None,
    begin: int,
    q: Quantizer,
    *,
    n: int | None = None,
    key: Key | None = None,
    rbits: ArrayLike | None = None,
    codes: bool = False,
) -> NDArray[Any]:
    """Return the values or codes of a piece `x` of an array, as `quantize` or `encode` return them for the whole of it.

    `s` is the scale of the whole where it lies over the piece, `begin` the number of its first element there, `n` the number of
    random bits if one was stated, `rbits` the words of the piece.
    """
    how = How(q, q.sr_bits if n is None else n, q.eps, None)
    plan = plan_of(how, x.dtype, codes=codes, bits=32 if key is None else key.bits)
    out = np.empty(x.shape, code_dtype(q.format) if codes else x.dtype)
    place = None if key is None else key.after(begin)
    _round(x, out, how, plan, place, rbits, fresh=True, codes=codes, derived=s)
    return out


def decode(
    codes: ArrayLike, fmt: str | Format, dtype: Any = np.float32, *, out: NDArray[Any] | None = None
) -> NDArray[Any]:
    """Return the values of codes.

    Args:
        codes: Integers in 0 .. 2^bits - 1, of any shape.
        fmt: The format, as in `quantize`.
        dtype: float16, bfloat16, float32 (the default) or float64, which takes the place of a type that cannot hold the format;
            or a float type of ml_dtypes of 8 bits or fewer that holds it.
        out: An array that takes the values.

    Returns:
        The values, with the shape of `codes`, NaN and infinities as such; a scalar for a scalar.

    Raises:
        InputError: for an integer that is no code (some formats leave some of them unused), and for an `out` that does not fit.
    """
    if not SUBNORMAL - SMALLER:
        return with_gradual_underflow(decode, locals())
    if dtype is not np.float32 and (narrow := _narrow(dtype)) is not None:
        return _decode_narrow(codes, get_format(fmt), narrow, out)
    try:
        way = (way_of if isinstance(fmt, str) and ".toml" in fmt else known_way)(fmt, dtype)
    except TypeError:  # what has no hash; and a file may change
        way = way_of(fmt, dtype)
    fmt, wanted = way.format, way.dtype
    array = as_array(codes, "codes")
    if array.dtype.kind not in "iu":
        raise InputError(f"codes are integers, not {array.dtype}")
    fits = array.dtype.kind == "u" and 8 * array.dtype.itemsize <= fmt.bits
    if array.size and not fits and not 0 <= int(array.min()) <= int(array.max()) < 1 << fmt.bits:
        raise InputError(f"codes of {fmt.name} are 0 .. {(1 << fmt.bits) - 1}, not {array.min()} .. {array.max()}")
    values = np.empty(array.shape, wanted) if out is None else _plain(out, array, wanted)
    decode_array(array.copy() if out is not None and _may_share(array, values) else array, values, way)
    if out is not None:
        return out
    return values if array is codes or not isinstance(codes, int | np.generic) else values[()]


def _narrow(dtype: Any) -> np.dtype[Any] | None:
    """Return the float type of ml_dtypes of 8 bits or fewer that `dtype` names; `None` for another type."""
    try:
        found = np.dtype(dtype)
    except TypeError:
        return None
    return found if _is_narrow(found) else None


def _decode_narrow(codes: ArrayLike, fmt: Format, dtype: np.dtype[Any], out: NDArray[Any] | None) -> NDArray[Any]:
    """Return the values of codes in a type of 8 bits or fewer."""
    if not _holds(dtype, fmt):
        raise InputError(f"{dtype} does not hold the values of {fmt}; decode to float32")
    values = decode(codes, fmt).astype(dtype)
    if out is None:
        return values
    _plain(out, values, dtype)[...] = values
    return out


def quantize_draws(
    x: NDArray[Any],
    q: Quantizer,
    seed: int,
    streams: NDArray[np.uint64] | Sequence[int],
    scale: NDArray[Any] | float | None = None,
    offset: int = 0,
) -> tuple[NDArray[Any], Counts]:
    """Round `x`, whose first axis is that of draws, and count the elements that broke a hypothesis.

    Draw k takes the words of (seed, streams[k]), its elements numbered from `offset`. A first axis of length 1 stands for all
    draws alike: a stochastic rounding then returns one row a stream, a deterministic one a single row. A re-derived
    scale is that of each draw, or of its parts that `q.per` names, unless `scale` is given: a number, or an array with the
    axes of x.
    """
    if not SUBNORMAL - SMALLER:
        return with_gradual_underflow(quantize_draws, locals())
    if x.dtype not in CARRIERS:
        raise InputError(f"tensors of float32 and float64 can be rounded, not {x.dtype}; convert the model first")
    if q.mode.stochastic and len(x) not in (1, len(streams)):
        raise InputError(f"x holds {len(x)} draws and there are {len(streams)} streams; one draw stands for all")
    if not can_hold(number_format(x.dtype), q.format):
        raise InputError(f"{x.dtype} cannot hold the values of {q.format}; convert the model to float64")
    how = _drawn_how(q)
    plan = plan_of(how, x.dtype)
    if q.format.nan_to == "error":
        _refuse_nan(x, q)
    draws = len(streams) if q.mode.stochastic else len(x)
    if scale is None and q.scale == "none" and not q.ftz_in and x.dtype == plan.carrier.dtype:
        rows = _rows(x)
        y = np.empty((draws, *x.shape[1:]), x.dtype)
        flat = y.reshape(draws, rows.shape[1])
        return y, Counts(y.size, *round_and_count(rows, flat, how, plan, seed, np.asarray(streams, np.uint64), offset))
    with np.errstate(all="ignore"):
        scaled, s = _quotient(x, q, scale, plan.n)
        rows = _rows(scaled).astype(plan.carrier.dtype, copy=False)
        y = np.empty((draws, rows.shape[1]), plan.carrier.dtype)
        words = np.asarray(streams, np.uint64)
        counts = Counts(y.size, *round_and_count(rows, y, how, plan, seed, words, offset))
        some = np.count_nonzero(y)
        values = y.reshape((draws, *x.shape[1:]))
        result = values.astype(x.dtype, copy=False) if s is None else remove_scale(values, s, q, x.dtype)
        if np.count_nonzero(x) != np.count_nonzero(scaled) or some != np.count_nonzero(result):
            y = np.empty((draws, rows.shape[1]), plan.carrier.dtype)  # its scale was put back in place
            round_and_count(rows, y, how, plan, seed, words, offset)
            kept = np.where(result == 0, 0, y.reshape(result.shape))
            counts = Counts()  # some are zero by flushing, or by their scale, which the loop does not see
            for k in range(draws):
                row = min(k, len(x) - 1)
                counts += count_elements(x[row], scaled[row], kept[k], q)
        return result, counts


def _rows(x: NDArray[Any]) -> NDArray[Any]:
    """Return the draws of `x` as contiguous rows; of an empty array NumPy could not tell how long they are."""
    return np.ascontiguousarray(x).reshape(len(x), math.prod(x.shape[1:]))


def _quotient(
    x: NDArray[Any], q: Quantizer, scale: NDArray[Any] | float | None, bits: int
) -> tuple[NDArray[Any], NDArray[Any] | None]:
    """Return the array that is rounded in place of `x`, and its scale: that of each draw, unless `scale` is given."""
    flushed = flush_input(x, q)
    if scale is None:
        s = derive_scale(flushed, q, lead=1)
    else:
        s = scale if isinstance(scale, np.ndarray) else given_scale(scale, x, q.order, 1)
    return (flushed if s is None else apply_scale(flushed, s, q, bits)), s


def inside_draws(
    x: NDArray[Any],
    q: Quantizer,
    seed: int,
    streams: NDArray[np.uint64] | Sequence[int],
    scale: NDArray[Any] | float | None = None,
    offset: int = 0,
    *,
    rounded: bool = True,
) -> tuple[NDArray[np.bool_], Counts]:
    """Return where the result of `quantize_draws`, with the same arguments, lies in the range before it is clamped.

    The value that is compared is x / s rounded as if the range had no end, or with `rounded` false x / s itself. A table has
    no value beyond its ends, unless its entry says where the line goes on: there nothing rounds back to an end. A NaN is not
    inside. Nothing is counted.
    """
    how = _drawn_how(q)
    plan = plan_of(how, x.dtype)
    number = np.result_type(x.dtype, plan.carrier.dtype).type
    least, most = number(q.format.min), number(q.format.max)
    with np.errstate(all="ignore"):
        scaled = _quotient(x, q, scale, plan.n)[0]
        inside: NDArray[np.bool_] = (scaled >= least) & (scaled <= most)
        wider = _one_further(q) if rounded and not inside.all() else None
        if wider is None:
            return inside, Counts()
        plan = plan_of(wider, x.dtype, back=False)
        rows = _rows(scaled).astype(plan.carrier.dtype, copy=False)
        draws = len(streams) if q.mode.stochastic else len(x)
        y = np.empty((draws, rows.shape[1]), plan.carrier.dtype)
        round_and_count(rows, y, wider, plan, seed, np.asarray(streams, np.uint64), offset)
        within = (y >= least) & (y <= most) & ~np.isnan(rows)
        if isinstance(q.format, Table):  # whose line may go on at one end alone
            within &= (rows >= least) | (q.format.below is not None)
            within &= (rows <= most) | (q.format.above is not None)
        return within.reshape(draws, *x.shape[1:]), Counts()


@functools.lru_cache(maxsize=1024)
def _one_further(q: Quantizer) -> How | None:
    """Return `q` with one more value beyond each end of its format, as its line goes on; `None` where there is none."""
    fmt = q.format
    if isinstance(fmt, Table):
        if fmt.above is None and fmt.below is None:
            return None
        above, below = fmt.above is not None, fmt.below is not None
        wider: Format = dataclasses.replace(
            fmt, top=fmt.top + above, bottom=fmt.bottom + below, points=fmt.line, above=None, below=None,
            codes=(*(fmt.codes[0] + 1,) * below, *fmt.codes, *(fmt.codes[-1] + 1,) * above),
        )  # fmt: skip
    else:
        wider = dataclasses.replace(fmt, top=fmt.top + 1, bottom=fmt.bottom + 1, inf_code=None)
        try:
            _ = wider.max, wider.min
        except InputError:  # beyond the range of float64
            return None
    return How(dataclasses.replace(q, format=wider, saturation=None), q.sr_bits, None, None)


@functools.lru_cache(maxsize=1024)
def _drawn_how(q: Quantizer) -> How:
    """Return the rounding of a site, with the parts made for it so far."""
    return How(q, q.sr_bits, None, None)


# --- Behind the border: everything below trusts its arguments ----------------------------------------------


class _ByBlocks(Exception):  # noqa: N818 - says who answers, and is no error
    """Tell that a call names a block format, which `qsim.blocks` rounds to."""


@functools.lru_cache(maxsize=256)
def _names_blocks(fmt: Any) -> bool:
    """Return whether `fmt` is a block format or a recipe, or names one; a format of that name comes first."""
    if isinstance(fmt, str):
        try:
            get_format(split_spelling(fmt)[0])
        except InputError:
            pass
        else:
            return False
    return bool(_blocks().names_blocks(fmt))


def _blocks() -> Any:
    """Return `qsim.blocks`, which stands on this module: imported when a call names a block format."""
    return importlib.import_module("qsim.blocks")


def _by_blocks(name: str, arguments: dict[str, Any]) -> Any:
    """Return the answer of `qsim.blocks` to a call of `quantize` or `encode` with these arguments.

    Of a format without blocks `axis` is another word for `per`.
    """
    axis, fmt = arguments["axis"], arguments["fmt"]
    blocks = not isinstance(fmt, Quantizer | Format) and isinstance(fmt, Hashable) and _names_blocks(fmt)
    if axis is not None and arguments["scale_rule"] is None and not blocks:
        if arguments["per"] != "tensor":
            raise InputError(
                f"axis = {axis!r} and per = {arguments['per']!r} both say which elements share a scale; drop one"
            )
        return globals()[name](**{**arguments, "per": axis, "axis": None})
    for option, usual in {"eps": None, "scale": "none", "per": "tensor", "order": "divide", "ftz_in": False}.items():
        if isinstance(arguments[option], np.ndarray) or arguments[option] != usual:
            raise InputError(f"{option} does not go with a block format, whose recipe says it; drop {option}")
    given = {option: value for option, value in arguments.items() if value is not None and value is not False}
    kept = {
        option: given[option] for option in ("key", "sr_bits", "rbits", "scale_rule", "axis", "out") if option in given
    }
    for option in ("saturation", "nan", "ftz_out"):
        if option in given:
            raise InputError(f"{option} does not go with a block format, whose entry says it; drop {option}")
    return getattr(_blocks(), name)(arguments["x"], arguments["fmt"], arguments["mode"], **kept)


def _how(*arguments: Any) -> How:
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
    ftz_out: bool | Flush,
    nan: Any,
) -> How:
    """Return the rounding that the arguments of `quantize` spell; raise `_ByBlocks` where they name a block format."""
    if not isinstance(fmt, Quantizer | Format) and isinstance(fmt, Hashable) and _names_blocks(fmt):
        raise _ByBlocks
    sr_bits = None if sr_bits is None else integer("sr_bits", sr_bits)
    unscaled = isinstance(scale, str) and scale == "none"
    if isinstance(fmt, Quantizer):
        usual = unscaled and (per, order, ftz_in, ftz_out, nan) == ("tensor", "divide", False, False, None)
        if mode is not None or saturation is not None or eps is not None or not usual:
            raise InputError("a Quantizer says mode, scale, saturation and all else; give a format to choose them here")
        if fmt.sr_bits is not None and sr_bits not in (None, fmt.sr_bits):
            raise InputError(f"sr_bits = {sr_bits} contradicts the {fmt.sr_bits} of the Quantizer {fmt}; drop one")
        return How(fmt, fmt.sr_bits if sr_bits is None else sr_bits, fmt.eps, None)
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
    if several is None and number(scale) == 0:
        several = np.zeros(())  # which no Quantizer takes, since it is for many arrays
    elif several is not None and per != "tensor":
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
    return How(q, stated, given if isinstance(given, np.ndarray) else q.eps, several)


_known = functools.lru_cache(maxsize=1024, typed=True)(_spelled)


def _one_or_several(given: Any, name: str) -> Any:
    """Return numbers that have axes as an array, and a single one, however it is held, as Python's."""
    if given is None or isinstance(given, str | bool | int | float | Fraction):
        return given
    array = as_array(given, name)
    return array if array.ndim else array.item()


def as_array(x: ArrayLike, name: str) -> NDArray[Any]:
    """Return `x` as an array; refuse ragged rows, masked arrays, and objects that NumPy cannot read."""
    try:
        array = np.asarray(x)
    except (TypeError, ValueError, RuntimeError, BufferError) as error:  # of lists, and of other libraries' arrays
        if isinstance(x, list | tuple) and isinstance(error, ValueError):
            raise InputError(f"{name} is a ragged list; its rows must be of one length") from None
        module, reason = type(x).__module__, str(error).partition("\n")[0].rstrip(".")
        kind = type(x).__name__ if module == "builtins" else f"{module}.{type(x).__name__}"
        how = ", x.detach().cpu().float().numpy()" if module == "torch" else ""
        raise InputError(
            f"{name} is a {kind} that NumPy cannot read ({reason}); give it as a NumPy array{how}"
        ) from None
    if isinstance(x, np.ma.MaskedArray):
        raise InputError(f"{name} is a masked array; fill it or take its data, for a mask has no rounding")
    return array


def as_floats(x: ArrayLike) -> NDArray[Any]:
    """Return `x` as an array of a type that can be rounded: integers as float64, floats of ml_dtypes as float32, exactly."""
    array = as_array(x, "x")
    if array.dtype.kind in "iub":
        return _whole_numbers(array)
    native = _native(array.dtype)
    if native is None:
        raise InputError(
            f"arrays of real numbers of up to 64 bits can be rounded, not {array.dtype}; convert the input first"
        )
    return array.astype(native, copy=False)


def _whole_numbers(array: NDArray[Any]) -> NDArray[Any]:
    """Return integers as float64; refuse one that float64 does not hold."""
    floats = array.astype(np.float64)
    if array.dtype.itemsize == 8:
        large = np.abs(floats) >= 2.0**53
        for whole, number in zip(array[large].tolist(), floats[large].tolist(), strict=True):
            if whole != int(number):
                raise InputError(f"{whole} does not fit a float64 exactly; give floats")
    return floats


@functools.cache
def _holds(dtype: np.dtype[Any], fmt: Format) -> bool:
    """Return whether a float type of ml_dtypes of 8 bits or fewer holds all results of a format."""
    if fmt.bits > 8:
        return False
    values = fmt.values().astype(np.float32)
    with np.errstate(all="ignore"):
        return np.array_equal(values.astype(dtype).astype(np.float32), values, equal_nan=True)


def _returned(values: NDArray[Any], x: ArrayLike, fmt: Format) -> Any:
    """Return the values in the type of `x`, those of a scalar as a scalar."""
    dtype = np.asarray(x).dtype
    if _is_narrow(dtype):
        if not _holds(dtype, fmt):
            raise InputError(f"{dtype} does not hold the values of {fmt}; convert x to float32 first, or encode it")
        values = values.astype(dtype)
    return _as(values, dtype)[()] if isinstance(x, int | float | np.generic) else _as(values, dtype)


@functools.cache
def _native(dtype: np.dtype[Any]) -> np.dtype[Any] | None:
    """Return the type of an array in the machine's byte order, `None` if it cannot be rounded."""
    native = dtype.newbyteorder("=") if dtype.kind == "f" else dtype
    if native.name in INPUTS:
        return native
    return np.dtype(np.float32) if _is_narrow(dtype) else None


def _is_narrow(dtype: np.dtype[Any]) -> bool:
    """Return whether a type is a float of 8 bits or fewer, of ml_dtypes: NumPy calls E5M2 a float, the others raw bytes."""
    return dtype.itemsize == 1 and dtype.kind in "fV" and is_real(dtype)


def _as(y: NDArray[Any], dtype: np.dtype[Any]) -> NDArray[Any]:
    return y.astype(dtype, copy=False) if dtype.kind == "f" else y


def _plain(out: NDArray[Any], array: NDArray[Any], dtype: np.dtype[Any]) -> NDArray[Any]:
    """Return `out` as an array of no subclass; refuse an array that cannot take an element of `dtype` for each of `array`."""
    plain = out
    if type(out) is not np.ndarray:
        if not isinstance(out, np.ndarray):
            raise InputError(
                f"out is {type(out).__name__}; it must be an array of {dtype} {array.shape}, the shape of x"
            )
        if isinstance(out, np.ma.MaskedArray):
            raise InputError("out is a masked array; give its data, for a mask has no rounding")
        plain = np.asarray(out)
    flags = plain.flags
    whole = flags.c_contiguous
    if whole and plain.dtype is dtype and plain.shape == array.shape and flags.writeable:
        return plain  # at once, for a small array takes no longer than these questions
    if not whole and _overlaps(plain):
        raise InputError("out has elements that share memory; give an array of its own elements")
    if plain.shape != array.shape or plain.dtype.newbyteorder("=") != dtype.newbyteorder("="):
        raise InputError(
            f"out is {plain.dtype} {plain.shape}; it must be an array of {dtype} {array.shape}, the shape of x"
        )
    if not flags.writeable:
        raise InputError("out is read-only; give an array that can be written")
    return plain


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


def _round(
    array: NDArray[Any],
    out: NDArray[Any],
    how: How,
    plan: Plan,
    key: Key | None,
    rbits: ArrayLike | None,
    *,
    fresh: bool,
    codes: bool = False,
    derived: NDArray[Any] | None = None,
) -> None:
    """Round `array`, divided by its scale, into `out`; refuse random words that are not as the mode wants them, and NaN.

    A scale that was `derived` from more than the array is not derived anew.
    """
    q, n = how.q, how.n
    if key is not None and type(key) is not Key:
        key = as_key(key)
    if not q.mode.stochastic:
        if rbits is not None or n is not None:
            raise InputError(f"{q.mode} takes no random bits; drop rbits and sr_bits, or name a stochastic mode")
        key = None
    elif q.mode is Mode.SR and n not in (None, plan.width):
        raise InputError(f"SR takes {plan.width} random bits of {array.dtype} input, not {n}; SRA takes any number")
    elif rbits is not None and (key is not None or n is None):
        raise InputError("rbits needs sr_bits, the number of bits of each word, and takes the place of key")
    elif rbits is None and key is None:
        raise InputError(f"{q.mode} needs its random words: key=qsim.Key(seed), or rbits= with sr_bits=")
    if key is not None:
        check_words(key, array.size)
    given = None
    if rbits is not None:
        given = _words(rbits, n or 0, array.shape)
    elif plan.each_eps:
        assert how.eps is not None
        given = _eps(how.eps, array.shape)
    _refuse_nan(array, q)
    if overlap := not fresh and _may_share(array, out):
        overlap = _same_elements(array, out)
        array = array if overlap else array.copy()
    s = zero = None
    if how.scale is not None:
        s = given_scale(how.scale, array, q.order, zeros=True)
        if not s.all():
            array, s, zero = zeros_for(array, s)
            overlap = False
    elif not isinstance(q.scale, str):
        s = how.scales.get(array.dtype)
        if s is None:
            s = how.scales.setdefault(array.dtype, given_scale(q.scale, array, q.order).reshape(()))
    elif q.scale != "none":
        s = derive_scale(array, q) if derived is None else derived
    if not fresh:  # what is read in pieces must not change as `out` is written
        s, given = (extra.copy() if extra is not None and _may_share(extra, out) else extra for extra in (s, given))
    round_array(array, out, how, plan, s, key, given, codes=codes, overlap=overlap)
    if zero is not None and not codes:
        out[np.broadcast_to(zero, out.shape)] *= 0


def _may_share(a: NDArray[Any], b: NDArray[Any]) -> bool:
    """Return whether some memory may be of both; of two owners each has its own, which is soon said."""
    return a is b or (not (a.flags.owndata and b.flags.owndata) and np.may_share_memory(a, b))


def _same_elements(a: NDArray[Any], b: NDArray[Any]) -> bool:
    """Return whether element i of both lies in the same place, for each i."""
    if a is b:
        return True
    first, second = a.__array_interface__["data"], b.__array_interface__["data"]
    return first == second and (a.strides, a.dtype) == (b.strides, b.dtype)


def _refuse_nan(x: NDArray[Any], q: Quantizer) -> None:
    """Refuse a NaN where the format says that it is an error."""
    if q.format.nan_to == "error" and np.isnan(x).any():
        at = np.unravel_index(int(np.argmax(np.isnan(x))), x.shape)
        raise InputError(f"x[{', '.join(map(str, at))}] is NaN, which has no place in {q.format}")


def _eps(eps: ArrayLike, shape: tuple[int, ...]) -> NDArray[Any]:
    """Return eps as an array that broadcasts to the shape of x; refuse numbers that are no thresholds of 64 bits."""
    array = np.asarray(eps)
    if not is_real(array.dtype):
        raise InputError(f"eps of {array.dtype} must be numbers with 0 <= eps < 1")
    with np.errstate(all="ignore"):
        lifted = np.ldexp(array.astype(np.float64), 64)
        for problem in np.flatnonzero(~((lifted >= 0) & (lifted < 2.0**64) & (lifted == np.floor(lifted))))[:1]:
            check_eps(array.astype(np.float64).flat[problem].item())
    return _broadcast(array, shape, "eps")


def _words(rbits: ArrayLike, bits: int, shape: tuple[int, ...]) -> NDArray[Any]:
    """Return `rbits` as an array that broadcasts to the shape of x; refuse numbers that are no words of so many bits."""
    array = as_array(rbits, "rbits")
    if array.dtype.kind not in "iu":
        raise InputError(f"rbits are integers, not {array.dtype}")
    narrow = array.dtype.kind == "u" and 8 * array.dtype.itemsize <= bits
    least = 0 if array.dtype.kind == "u" or not array.size else int(array.min())  # each reads the whole array
    if array.size and not narrow and not 0 <= least <= int(array.max()) < 1 << bits:
        raise InputError(f"rbits of {bits} bits are 0 .. {(1 << bits) - 1}, not {array.min()} .. {array.max()}")
    return _broadcast(array, shape, "rbits")


def _broadcast(array: NDArray[Any], shape: tuple[int, ...], name: str) -> NDArray[Any]:
    try:
        return np.broadcast_to(array, shape)
    except ValueError:
        raise InputError(f"{name} of shape {array.shape} do not broadcast to the shape {shape} of x") from None
