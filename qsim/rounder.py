"""How an array is rounded: by which loop, in pieces that stay in a cache, on several threads, whatever its strides and type.

Everything here trusts its arguments; `qsim.arrays` has looked at them. A piece is divided by its scale, rounded, and multiplied
by it before the next one is read, so that memory is passed once and nothing is held beside the result.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from qsim.errors import InputError
from qsim.formats import WIDEST_TABLE, Format, Grid, Table
from qsim.kernels import cpu, table
from qsim.kernels.core import Parameters
from qsim.kernels.parameters import CARRIERS, Carrier, addends, needs_stand_in, parameters, stand_in, stochastic
from qsim.kernels.threads import MANY, in_parts
from qsim.rounding import Flush, Key, Mode, Quantizer, Saturation
from qsim.scales import (
    apply_scale,
    flush_input,
    largest_number,
    number_format,
    overflows,
    remove_scale,
    rows_of,
    saturates,
)

__all__ = [
    "How",
    "Plan",
    "can_hold",
    "check_words",
    "code_dtype",
    "plan_of",
    "random_words",
    "round_and_count",
    "round_array",
]

FLOAT32, FLOAT64 = CARRIERS[np.dtype(np.float32)], CARRIERS[np.dtype(np.float64)]

UNSIGNED = [np.dtype(f"u{size}") for size in (1, 2, 4, 4, 8, 8, 8, 8)]
"""The smallest unsigned types of 1, 2, ... bytes."""

PIECE = 1 << 15
"""Elements of a piece of which arrays are made on the way: as float64 and with a scale it is 1 MiB, which a cache holds."""
GATHERED = 1 << 17
"""Elements of a piece that is only gathered."""


@dataclass(frozen=True, slots=True)
class How:
    """Hold a rounding as asked for: the `Quantizer`, and options that may be arrays or depend on the input's type."""

    q: Quantizer
    #: The number of random bits that was stated; `None`: as many as the input has.
    n: int | None
    eps: ArrayLike | None
    #: A frozen scale that is an array.
    scale: ArrayLike | None
    #: What was made so far: plans by the type of the input, whether codes are wanted and the bits of a word; frozen scales.
    scales: dict[np.dtype[Any], NDArray[Any]] = field(default_factory=dict, compare=False)
    plans: dict[tuple[np.dtype[Any], bool, int], Plan] = field(default_factory=dict, compare=False)


@dataclass(frozen=True, slots=True)
class Plan:
    """Hold how the elements of one type of input are rounded.

    `loop` rounds patterns of the `carrier`, `drawn` draws their random words as well, `rows` those of each row, and `scaled`
    takes a scale a row; `words` are their parameters. `codes`: codes come out. `simple`: nothing is to be done to the input
    before, nor to the result after. `stands_in`: other patterns stand in for some that the loops do not know. `each_eps`: the
    loop takes a threshold for each element, beside `words`.
    """

    carrier: Carrier
    #: Bits of a random word, and of those as many as count.
    width: int
    n: int
    codes: bool
    simple: bool
    stands_in: bool
    each_eps: bool
    loop: Callable[..., None]
    words: NDArray[Any]
    drawn: Callable[..., None] | None = None
    rows: Callable[..., None] | None = None
    scaled: Callable[..., None] | None = None

    @property
    def lift(self) -> int:
        """How far a given word of n bits is from the top of a word; of none no bit is looked at."""
        return self.carrier.width - self.n if self.n else 0


def rule_of(q: Quantizer) -> Saturation:
    """Return the saturation rule in force."""
    assert q.saturation is not None  # Quantizer.__init__ put the default in
    return q.saturation


def code_dtype(fmt: Format) -> np.dtype[Any]:
    """Return the smallest unsigned type that holds a code of `fmt`."""
    return UNSIGNED[(fmt.bits - 1) // 8]


@functools.lru_cache(maxsize=1024)
def can_hold(number: Grid, fmt: Format) -> bool:
    """Return whether every value of `fmt` is a finite value of the input format `number`."""
    ends = (fmt.value(fmt.top), fmt.value(-fmt.bottom))
    if max(map(abs, ends)) > number.value(number.top):
        return False
    if isinstance(fmt, Table):
        return not any(number.split(Fraction(value))[1] for value in fmt.points)
    assert isinstance(fmt, Grid)
    digits = fmt.man_bits if fmt.even else fmt.precision
    return fmt.lsb >= number.lsb and digits <= number.precision


def listed(fmt: Format) -> bool:
    """Return whether a format that the core does not round to may be rounded to by a list of its values.

    Tables are, grids with a gap, and grids of up to 16 bits that reach below the normal numbers of float64, or to its end.
    """
    if not isinstance(fmt, Grid) or fmt.gap:
        return True
    narrow = fmt.bits <= WIDEST_TABLE and fmt.has_zero and not fmt.even
    return narrow and can_hold(number_format(FLOAT64.dtype), fmt)


@functools.lru_cache(maxsize=256)
def _codes(fmt: Format) -> tuple[NDArray[np.float64], NDArray[Any]]:
    """Return the values in ascending order, and their codes, of a format that the core does not encode."""
    ordinals = range(-fmt.bottom, fmt.top + 1)
    values = np.array([float(fmt.value(ordinal)) for ordinal in ordinals])
    return values, np.array([fmt.code(ordinal) for ordinal in ordinals], code_dtype(fmt))


# --- By which loop -----------------------------------------------------------------------------------------


def plan_of(
    how: How, dtype: np.dtype[Any], *, codes: bool = False, back: bool = True, bits: int = 32
) -> Plan:  # fmt: skip
    """Return how an array of `dtype` is rounded; raise `InputError` for a format that no array can be rounded to.

    `back`: values go back into an array of that type, which must hold them. `bits`: those of a random word that is drawn.
    """
    known = how.plans.get((dtype, codes, bits))
    return known or how.plans.setdefault(
        (dtype, codes, bits), _plan(how, dtype, bits, codes=codes, back=back and not codes)
    )


def _plan(how: How, dtype: np.dtype[Any], bits: int, *, codes: bool, back: bool) -> Plan:
    q, fmt = how.q, how.q.format
    if back and not can_hold(number_format(dtype), fmt):
        raise InputError(f"{dtype} cannot hold the values of {fmt}; convert the input to float64, or encode")
    width = 8 * max(dtype.itemsize, 4)
    if bits < FLOAT32.width and q.mode.stochastic:
        if q.mode is Mode.SR:
            raise InputError(
                f"SR takes {width} random bits of {dtype} input, and the key has words of {bits}; SRA({bits}) takes them"
            )
        width = bits
    n = random_bits(q, how.n, width) if q.mode.stochastic else 0
    line = _line_of(q)
    exact = q.order == "exact" and (q.scale != "none" or how.scale is not None)  # quotients come as float64
    each_eps = isinstance(how.eps, np.ndarray)
    short_eps = q.mode is not Mode.THR or (not each_eps and float(2**FLOAT32.width * q.eps).is_integer())
    narrow = dtype.itemsize <= 4 and FLOAT32.holds(line) and short_eps and not exact
    between = q.mode in (Mode.SRB, Mode.SRC) and n == FLOAT32.width  # a bit below the last is looked at
    carrier = FLOAT32 if narrow and not between else FLOAT64
    direct = carrier.holds(line)
    if not direct and (line is not fmt or not listed(fmt)):
        flushed = f", with ftz_out = {q.ftz_out!r}," if line is not fmt else ""
        raise InputError(
            f"{fmt}{flushed} has values beyond float64, or fewer exact bits there; qsim.reference rounds to it"
        )
    plain = q.saturation is not Saturation.wrap and not q.ftz_out
    coded = codes and direct and plain
    each_eps = each_eps or (q.mode is Mode.THR and not direct)
    loops = _grid_loops(q, carrier, n, width, coded, each_eps) if direct else _table_loops(q, n)
    stands_in = needs_stand_in(fmt)
    simple = plain and not q.ftz_in and not stands_in and dtype == carrier.dtype and codes == coded
    return Plan(carrier, width, n, coded, simple, stands_in, each_eps, *loops)


def _line_of(q: Quantizer) -> Format:
    """Return the format whose values a rounding chooses from: its own, or one that goes on below the smallest normal number.

    With ftz_out = "after" results below that number are flushed, and those that reach it were rounded once, as the reference
    has it.
    """
    fmt = q.format
    return fmt.deepened() if _kind_of_flush(q) == "after" and isinstance(fmt, Grid) else fmt


def _kind_of_flush(q: Quantizer) -> Flush | Literal[False]:
    """Return when arrays decide which results are tiny, if any are.

    Of a precision of 53 bits, all numbers of float64 have it: where the exponent has no lower end they stay as they are.
    """
    if q.format.kind != "float" or not isinstance(q.format, Grid):
        return False
    return "before" if q.ftz_out == "after" and q.format.man_bits >= FLOAT64.fraction_bits else q.ftz_out


def _grid_loops(q: Quantizer, carrier: Carrier, n: int, width: int, codes: bool, each_eps: bool) -> tuple[Any, ...]:
    """Return the loop, its words, and the loops that draw words, for one row and for several, and that take scales."""
    line = _line_of(q)
    p = parameters(line, rule_of(q), carrier.dtype, q.mode, nan=q.nan, codes=codes)
    if line is not q.format and not line.signed:  # what is tiny is flushed before its sign matters
        p = p._replace(bottom=carrier.word(carrier.pattern(q.format.smallest_normal) - 1))
    if q.mode.stochastic:
        source = stochastic(q.mode, n, carrier.dtype)
        loop, words = cpu.by_words(p, source, codes=codes), cpu.words_of(p, source)
        if width < FLOAT32.width:
            return loop, words, cpu.by_key(p, source, codes=codes, bits=width)
        if width != carrier.width:
            return loop, words
        return loop, words, cpu.by_key(p, source, codes=codes), cpu.by_keys(p, source, codes=codes)
    if q.mode is Mode.THR:
        if each_eps:
            return cpu.by_eps(codes=codes), cpu.words_of(p)
        assert q.eps is not None
        return cpu.by_threshold(p, codes=codes), cpu.words_of(p, (carrier.word(int(2**carrier.width * q.eps)),))
    t = addends(q.mode, carrier.dtype)
    return cpu.by_addends(p, t, codes=codes), cpu.words_of(p, t), None, None, cpu.by_scales(p, t, codes=codes)


def _table_loops(q: Quantizer, n: int) -> tuple[Any, ...]:
    """Return the loop over float64 that rounds to a list of values, or across a gap."""
    fmt, none = q.format, np.empty(0, np.uint64)
    line = table.line(fmt, rule_of(q), q.mode, nan=q.nan)
    if q.mode.stochastic:
        given = table.packed(line, *stochastic(q.mode, n, FLOAT64.dtype))
        return (lambda x, r, y, lift, _: table.round_by_words(x, r << np.uint64(lift), y, *given)), none
    if q.mode is Mode.THR:
        known = table.packed(line)
        return (lambda x, eps, y, _: table.round_by_eps(x, eps, y, *known)), none
    runs = table.steps(fmt, rule_of(q), q.mode, nan=q.nan)
    return (lambda x, y, _: table.round_by_steps(x, y, runs)), none


def random_bits(q: Quantizer, n: int | None, width: int) -> int:
    """Return the number of random bits, `n` or as many as the input has; refuse a number that the mode cannot take."""
    n = width if n is None else n
    least = int(q.mode is Mode.SRE)
    most = width - (width == FLOAT64.width and q.mode in (Mode.SRB, Mode.SRC))
    if not least <= n <= most:
        raise InputError(f"sr_bits = {n}: {q.mode} of {width}-bit words takes {least} to {most} random bits")
    return n


@functools.lru_cache(maxsize=1024)
def _ends(q: Quantizer, carrier: Carrier) -> NDArray[Any]:
    """Return the words that say where the range of the format ends, and its zeros."""
    rule = Saturation.saturate if q.saturation is Saturation.wrap else rule_of(q)
    line = _line_of(q)
    if carrier.holds(line):
        p = parameters(line, rule, carrier.dtype, q.mode)
    else:
        known = table.line(q.format, rule, q.mode)._asdict()
        p = Parameters(*(known.get(name, carrier.word(0)) for name in Parameters._fields))
    words: NDArray[Any] = cpu.words_of(p)
    return words


# --- In pieces ---------------------------------------------------------------------------------------------


def round_array(
    x: NDArray[Any],
    y: NDArray[Any],
    how: How,
    plan: Plan,
    s: NDArray[Any] | None = None,
    key: Key | None = None,
    given: NDArray[Any] | None = None,
    *,
    codes: bool = False,
    overlap: bool = False,
) -> None:
    """Round `x`, divided by the scale `s`, into `y`, values of its type or `codes`, as `plan` has it.

    Element i takes its random word from `key`, or from `given`, which has its eps likewise; `s` and `given` broadcast. With
    `overlap` element i of both may lie in one place.
    """
    if not x.size:
        return
    both = plan.simple and x.flags.c_contiguous and y.flags.c_contiguous and y.dtype.isnative
    if both and s is None and given is None and (key is None or plan.drawn is not None):
        word = plan.words.dtype
        u, v = x.view(word), y if codes else y.view(word)
        if u.ndim != 1:
            u, v = u.reshape(-1), v.reshape(-1)
        if overlap:
            in_parts(u.size, lambda begin, end: _in_place(u[begin:end], v[begin:end], plan, key, begin))
        elif u.size >= MANY:
            in_parts(u.size, lambda begin, end: _straight(u[begin:end], v[begin:end], plan, key, begin))
        else:
            _straight(u, v, plan, key, 0)
        return
    if both and s is None and given is not None and _plain_words(given, x, plan, how.q) and not overlap:
        word = plan.words.dtype
        u, r, v = x.view(word).reshape(-1), given.reshape(-1), (y if codes else y.view(word)).reshape(-1)
        in_parts(u.size, lambda begin, end: plan.loop(u[begin:end], r[begin:end], v[begin:end], plan.lift, plan.words))
        return
    if both and s is not None and plan.scaled is not None and how.q.order in ("divide", "input") and not overlap:
        rows = rows_of(s, x.shape)
        ends = codes or saturates(how.q) or not overflows(s, how.q, x.dtype)
        if rows is not None and ends:
            _round_scaled(x.reshape(rows, -1), y.reshape(rows, -1), s.reshape(-1), how, plan)
            return
    in_parts(x.size, lambda begin, end: _in_pieces(x, y, how, plan, s, key, given, (begin, end), codes=codes))


def _plain_words(given: NDArray[Any], x: NDArray[Any], plan: Plan, q: Quantizer) -> bool:
    """Return whether these are random words as the loop for the core reads them, one an element of `x`."""
    words = q.mode.stochastic and given.dtype == plan.words.dtype and given.dtype.isnative and plan.words.size > 0
    return bool(words and given.shape == x.shape and given.flags.c_contiguous)


def _patterns(y: NDArray[Any], plan: Plan) -> NDArray[Any]:
    """Return floats as their patterns; codes as they are."""
    return y.view(plan.words.dtype) if y.dtype is plan.carrier.dtype or y.dtype == plan.carrier.dtype else y


def _entering(x: NDArray[Any], fmt: Format, plan: Plan) -> NDArray[Any]:
    """Return the patterns that the loops take in place of these floats of the carrier."""
    patterns = _patterns(x, plan)
    return stand_in(patterns, fmt, plan.carrier.dtype) if plan.stands_in else patterns


def _straight(u: NDArray[Any], v: NDArray[Any], plan: Plan, key: Key | None, begin: int) -> None:
    """Round contiguous patterns, those from element `begin` on, in one call."""
    if key is None:
        plan.loop(u, v, plan.words)
    else:
        assert plan.drawn is not None
        plan.drawn(u, v, key.seed, key.stream, *_place(key.offset + begin, plan.width), plan.words)


def _in_place(u: NDArray[Any], v: NDArray[Any], plan: Plan, key: Key | None, begin: int) -> None:
    """Do the same where `v` is `u`: a loop from an array into itself does not become vectors."""
    for done in range(0, u.size, PIECE):
        some = u[done : done + PIECE]
        rounded = np.empty(some.size, v.dtype)
        _straight(some, rounded, plan, key, begin + done)
        v[done : done + PIECE] = rounded


def _place(number: int, width: int) -> tuple[int, int]:
    """Return the block of the word, or pair of words, of this `number`, and how many stand before it there."""
    return divmod(number, 128 // width)


def _round_scaled(x: NDArray[Any], y: NDArray[Any], s: NDArray[Any], how: How, plan: Plan) -> None:
    """Round the rows of `x`, each with a scale of its own."""
    limit = () if plan.codes else (largest_number(x.dtype) if saturates(how.q) else np.inf,)
    assert plan.scaled is not None
    scaled = plan.scaled
    if len(s) == 1:
        in_parts(x.size, lambda begin, end: scaled(x[:, begin:end], y[:, begin:end], s, *limit, plan.words))
    else:
        wide = max(x.shape[1], 1)
        parts = x.size // wide
        in_parts(
            x.size,
            lambda begin, end: scaled(
                x[begin // wide : _row(end, wide, parts)],
                y[begin // wide : _row(end, wide, parts)],
                s[begin // wide : _row(end, wide, parts)],
                *limit,
                plan.words,
            ),
        )


def _row(end: int, wide: int, rows: int) -> int:
    """Return the first row that does not begin before element `end`'s own."""
    return rows if end >= rows * wide else end // wide


def _in_pieces(
    x: NDArray[Any],
    y: NDArray[Any],
    how: How,
    plan: Plan,
    s: NDArray[Any] | None,
    key: Key | None,
    given: NDArray[Any] | None,
    span: tuple[int, int],
    *,
    codes: bool,
) -> None:
    """Round the elements of `span`, numbered in C order, piece by piece; NumPy's iterator gathers and scatters them."""
    operands = [x, y] + [extra for extra in (s, given) if extra is not None]
    only_gathered = plan.simple and len(operands) == 2 and (key is None or plan.drawn is not None)
    flags: Any = ["external_loop", "buffered", "ranged", "delay_bufalloc"]
    access: Any = [["readonly", "contig"], ["writeonly", "contig"], *[["readonly", "contig"]] * (len(operands) - 2)]
    pieces = np.nditer(
        operands,
        flags,
        access,
        [operand.dtype.newbyteorder("=") for operand in operands],
        order="C",
        casting="equiv",
        buffersize=GATHERED if only_gathered else PIECE,
    )
    with pieces, np.errstate(all="ignore"):  # NumPy's state is a thread's own
        pieces.iterrange = span  # type: ignore[misc] # NumPy's stubs call it read-only
        pieces.reset()
        begin = span[0]
        for some, out, *more in pieces:
            scale = None if s is None else more.pop(0)
            _piece(some, out, how, plan, scale, key, more[0] if more else None, begin, codes=codes)
            begin += some.size


def _piece(
    x: NDArray[Any],
    y: NDArray[Any],
    how: How,
    plan: Plan,
    s: NDArray[Any] | None,
    key: Key | None,
    given: NDArray[Any] | None,
    begin: int,
    *,
    codes: bool,
) -> None:
    """Round one piece, the elements from `begin` on: divide, round, wrap or flush, multiply."""
    q, carrier = how.q, plan.carrier
    scaled = flush_input(x, q)
    if s is not None:
        scaled = apply_scale(scaled, s, q, plan.n)
    u = _flushed_before(np.ascontiguousarray(scaled, carrier.dtype), q)
    out = y if plan.codes or y.dtype == carrier.dtype else np.empty(x.size, carrier.dtype)
    patterns, results = _entering(u, q.format, plan), _patterns(out, plan)
    if given is not None and q.mode.stochastic:
        plan.loop(patterns, given.astype(carrier.word, copy=False), results, plan.lift, plan.words)
    elif given is not None:
        plan.loop(patterns, _eps_words(given), results, plan.words)
    elif key is not None and plan.drawn is None:
        plan.loop(patterns, _wide_words(key, begin, x.size, plan.width), results, 0, plan.words)
    else:
        _straight(patterns, results, plan, key, begin)
    if plan.codes:
        return
    _after(out, q, carrier)
    if codes:
        y[...] = _encoded(out, q, carrier)
        return
    values = out if s is None else remove_scale(out, s, q, y.dtype)
    if values is not y:
        y[...] = values


def check_words(key: Key, count: int) -> None:
    """Refuse a key whose stream has no words left for `count` elements: numbers beyond 2^64 would begin at 0 again."""
    if key.offset + count > 1 << 64:
        raise InputError(
            f"offset = {key.offset} of the key leaves {(1 << 64) - key.offset} words of its stream for {count} elements; take "
            "another stream, for the rest would take words that were used"
        )


def random_words(key: Key, count: int) -> NDArray[Any]:
    """Return the `count` Philox words that a float32 array with this `key` takes, of uint32, or uint16 or uint8 as it says."""
    check_words(key, count)
    return _drawn(key, 0, count, key.bits)


def _drawn(key: Key, begin: int, count: int, width: int) -> NDArray[Any]:
    """Return the words of the elements from `begin` on, which take `width` bits each: of 64 bits two words of 32."""
    block, before = _place(key.offset + begin, width)
    words = np.empty(-(-width * (before + count) // 128) * 4, np.uint32)
    cpu.fill(words, block, key.seed, key.stream)
    each = max(width // 32, 1)
    cut = words if width >= FLOAT32.width else words.astype("<u4", copy=False).view(f"<u{width // 8}")
    return cut[each * before : each * (before + count)].copy()


def _wide_words(key: Key, begin: int, count: int, width: int) -> NDArray[np.uint64]:
    """Return the random words of those elements, at the top of 64-bit words."""
    words = _drawn(key, begin, count, width).astype(np.uint64)
    if width == FLOAT64.width:
        return words[0::2] << np.uint64(32) | words[1::2]
    return words << np.uint64(FLOAT64.width - width)


def _eps_words(eps: NDArray[Any]) -> NDArray[np.uint64]:
    """Return eps 2^64."""
    return np.ldexp(eps.astype(np.float64), 64).astype(np.uint64)


def _flushed_before(x: NDArray[Any], q: Quantizer) -> NDArray[Any]:
    """Return `x` with zeros in place of numbers that are tiny before they are rounded, if `q` flushes that."""
    if _kind_of_flush(q) != "before":
        return x
    return np.where(np.abs(x) < q.format.smallest_normal, np.copysign(x.dtype.type(0), x), x)


def _after(y: NDArray[Any], q: Quantizer, carrier: Carrier) -> None:
    """Wrap, or flush to zero, rounded numbers, in place."""
    fmt = q.format
    if q.saturation is Saturation.wrap:
        number = carrier.dtype.type
        period = number(2.0**fmt.bits * fmt.smallest_subnormal)
        np.copyto(y, np.where(np.isfinite(y), np.fmod(y, period), y))
        # Both terms are multiples of the spacing, and so is the result, of no more than `bits` bits: all of it is exact. The
        # difference is +0 where nothing wraps, and -0 + 0 is 0: integers have no -0.
        y += np.where(y < number(fmt.min), period, number(0)) - np.where(y > number(fmt.max), period, number(0))
    if _kind_of_flush(q) in ("after", "result"):
        limit = carrier.pattern(fmt.smallest_normal)
        flat = y.reshape(-1).view(carrier.word)
        cpu.flush_all(flat, flat, limit, _ends(q, carrier))


def _encoded(y: NDArray[Any], q: Quantizer, carrier: Carrier) -> NDArray[Any]:
    """Return the codes of values of the format, one-dimensional."""
    fmt, codes = q.format, np.empty(y.shape, code_dtype(q.format))
    if carrier.holds(fmt):  # any mode takes a value to itself
        rule = Saturation.saturate if q.saturation is Saturation.wrap else rule_of(q)
        p = parameters(fmt, rule, carrier.dtype, Mode.RTZ, nan=q.nan, codes=True)
        if fmt.has_nan:  # a NaN is a result here, an overflow's perhaps, and no input that `nan_to` speaks of
            nans = (fmt.code_of_nan(negative=negative) for negative in (False, q.nan != "canonical"))
            p = p._replace(
                **{name: carrier.word(code) for name, code in zip(("nan_pos", "nan_neg"), nans, strict=True)}
            )
        cpu.round_by_addends(y.view(carrier.word), codes, addends(Mode.RTZ, carrier.dtype), p, codes=True)
        return codes
    values, ascending = _codes(fmt)
    np.take(ascending, np.searchsorted(values, y), out=codes, mode="clip")
    codes[(y == 0) & np.signbit(y) & fmt.has_neg_zero] |= codes.dtype.type(1 << (fmt.bits - 1))
    if fmt.inf_code is not None:
        codes[np.isposinf(y)] = fmt.inf_code
        codes[np.isneginf(y)] = fmt.code_of_inf(negative=True)
    if fmt.nan_code is not None:
        codes[np.isnan(y)] = fmt.nan_code
        codes[np.isnan(y) & np.signbit(y)] = fmt.code_of_nan(negative=True)
    return codes


# --- In draws ----------------------------------------------------------------------------------------------


def _round_draws(
    rows: NDArray[Any], y: NDArray[Any], how: How, plan: Plan, seed: int, streams: NDArray[np.uint64], offset: int
) -> None:
    """Round each row (or the only one) into a row of `y`; a stochastic mode's row k takes the words of `streams[k]`."""
    q, v = how.q, _patterns(y, plan)
    u = _entering(_flushed_before(rows, q), q.format, plan)
    if plan.rows is not None:
        plan.rows(u, v, seed, streams, *_place(offset, plan.width), plan.words)
    elif q.mode.stochastic:
        for k, stream in enumerate(streams):
            words = _wide_words(Key(seed, int(stream), offset), 0, y.shape[1], plan.width)
            plan.loop(u[min(k, len(u) - 1)], words, v[k], 0, plan.words)
    elif plan.each_eps:
        eps = _eps_words(np.broadcast_to(np.asarray(q.eps, np.float64), y.size))
        plan.loop(u.reshape(-1), eps, v.reshape(-1), plan.words)
    else:
        plan.loop(u.reshape(-1), v.reshape(-1), plan.words)
    _after(y, q, plan.carrier)


def round_and_count(
    rows: NDArray[Any], y: NDArray[Any], how: How, plan: Plan, seed: int, streams: NDArray[np.uint64], offset: int
) -> tuple[int, ...]:
    """Do as `_round_draws`, and count the elements that broke a hypothesis, as `qsim.kernels.cpu.count` does.

    A long draw is done in parts, each of which takes its words where it stands, and is counted while a cache holds it.
    """
    u, v, ends = _entering(rows, how.q.format, plan), _patterns(y, plan), _ends(how.q, plan.carrier)
    plain = how.q.saturation is not Saturation.wrap and not how.q.ftz_out
    alone = plan.rows is not None or not (how.q.mode.stochastic or plan.each_eps)
    if len(v) > 1 or not plain or not alone:
        _round_draws(rows, y, how, plan, seed, streams, offset)
        return _counted(u, v, ends)
    parts: list[tuple[int, ...]] = []  # to which threads may append

    def work(begin: int, end: int) -> None:
        some, out = u[:, begin:end], v[:, begin:end]
        if plan.rows is not None:
            plan.rows(some, out, seed, streams, *_place(offset + begin, plan.width), plan.words)
        else:
            plan.loop(some[0], out[0], plan.words)
        parts.append(_counted(some, out, ends))

    in_parts(v.shape[1], work)
    return parts[0] if len(parts) == 1 else tuple(map(sum, zip(*parts, strict=True)))


def _counted(u: NDArray[Any], v: NDArray[Any], ends: NDArray[Any]) -> tuple[int, ...]:
    """Return the counts of `qsim.kernels.cpu.count`."""
    found = np.zeros(4, np.int64)
    cpu.count(u, v, ends, found)
    return tuple(found.tolist())
