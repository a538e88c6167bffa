"""Hypothesis strategies for your own tests: formats, numbers near every threshold, codes and random words.

    from hypothesis import given, strategies as st
    from qsim.testing import strategies as qst

    @given(st.data())
    def test_result_is_a_neighbour(data):
        fmt = data.draw(qst.formats(dtype=np.float32))
        x = data.draw(qst.values(fmt, inside=True))
        low, high = fmt.neighbours(float(x))
        assert low <= my_quantizer(x, fmt) <= high

`formats` draws formats, `values` numbers on which a rounding to a format should be tried, `arrays` arrays of them, `codes` the
codes of a format, `words` random words, `modes` rounding modes, and `quantizers` roundings. Failures shrink to formats of few
bits and to small words. A file of tests to copy, of a quantizer and of a device, is `examples/test_my_quantizer.py`.

This is the only module of qsim that needs Hypothesis: `pip install 'qsim-numerics[testing]'`.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Collection
from fractions import Fraction
from typing import Any

import numpy as np

try:
    from hypothesis import assume
    from hypothesis import strategies as st
except ModuleNotFoundError:
    raise ModuleNotFoundError(
        "qsim.testing.strategies needs Hypothesis: pip install 'qsim-numerics[testing]'", name="hypothesis"
    ) from None

from qsim.errors import InputError
from qsim.explain.lines import exactly
from qsim.formats import SUFFIX, WIDEST_TABLE, Format, Table, catalogue, get_format
from qsim.rounding import LIMITED, Mode, Quantizer, saturations
from qsim.testing.inputs import number_type, step
from qsim.underflow import gradual_underflow

__all__ = ["arrays", "codes", "formats", "modes", "quantizers", "values", "words"]

KINDS = ("float", "integer", "fixed", "table")


@gradual_underflow
def formats(max_bits: int = 8, *, kinds: Collection[str] = KINDS, dtype: Any = None) -> st.SearchStrategy[Format]:
    """Return formats of at most `max_bits` bits, 16 at most: the catalogue, and every spelling eXmY, Qm.n and UQm.n.

    `kinds` are some of "float", "integer", "fixed" and "table". With `dtype` only formats all of whose values are numbers of
    that type, as `qsim.quantize` asks of its input. Examples shrink to formats of few bits.
    """
    for kind in kinds or ("",):
        if kind not in KINDS:
            raise InputError(f"no format is of the kind {kind!r}; it is one of {', '.join(KINDS)}")
    if not 1 <= max_bits <= WIDEST_TABLE:
        raise InputError(f"max_bits = {max_bits!r} must be 1 to {WIDEST_TABLE}")
    number = None if dtype is None else number_type(dtype)[0]
    found = [fmt for fmt in _formats(max_bits) if fmt.kind in kinds and (number is None or _held(fmt, number))]
    return st.sampled_from(found)


@functools.lru_cache(maxsize=4)
def _formats(max_bits: int) -> tuple[Format, ...]:
    spelled = [
        *(f"e{e}m{m}{letters}u" for e in range(1, 12) for m in range(max_bits - e + 1) for letters in SUFFIX),
        *(f"e{e}m{m}{letters}" for e in range(1, 12) for m in range(max_bits - e + 1) for letters in SUFFIX),
        *(f"{u}Q{i}.{f}" for i in range(max_bits + 1) for f in range(1, max_bits - i + 1) for u in ("", "U")),
    ]  # fmt: skip
    found = {name: fmt for name, fmt in catalogue().items() if fmt.bits <= max_bits}
    for name in spelled:
        try:
            fmt = get_format(name)
        except InputError:  # such a format cannot exist
            continue
        if fmt.bits <= max_bits:
            found.setdefault(fmt.name, fmt)
    return tuple(sorted((fmt for fmt in found.values() if _in_float64(fmt)), key=lambda fmt: fmt.bits))


def _in_float64(fmt: Format) -> bool:
    try:
        return math.isfinite(fmt.max) and math.isfinite(fmt.smallest_subnormal or 1.0)
    except InputError:
        return False


@functools.lru_cache(maxsize=4096)
def _held(fmt: Format, number: np.dtype[Any]) -> bool:
    """Return whether all values of a format are numbers of a type."""
    known = fmt.values()[~np.isnan(fmt.values())]
    with np.errstate(over="ignore", under="ignore"):
        return bool((exactly(known.astype(number)) == known).all())


def values(
    fmt: str | Format, dtype: Any = np.float32, *, inside: bool = False, finite: bool = False
) -> st.SearchStrategy[Any]:
    """Return numbers of `dtype`, as NumPy scalars, on which a rounding to `fmt` should be tried.

    Half of them are next to a threshold: at a quarter, at the middle or at an end of an interval, or at the number of `dtype`
    below or above, up to two steps beyond the range. The others have any bit pattern: NaNs, infinities, subnormals. `finite`
    leaves out NaNs and infinities, `inside` all that is not in fmt.min ... fmt.max.
    """
    fmt, (number, own) = get_format(fmt), number_type(dtype)
    if not inside and not finite:
        return _near(fmt, number) | st.integers(0, (1 << own.bits) - 1).map(lambda p: _of_pattern(p, number))
    low, high = (fmt.min, fmt.max) if inside else (-math.inf, math.inf)
    negative = 1 << own.bits - 1
    found = [_near(fmt, number, (low, high))]
    # The patterns of numbers of one sign are in the order of their magnitudes.
    for sign, least, most in ((0, max(low, 0.0), high), (negative, max(-high, 0.0), -low)):
        first, last = _least(least, number) | sign, _most(most, number)
        if last >= 0 and first <= last | sign:
            found.append(st.integers(first, last | sign).map(lambda pattern: _of_pattern(pattern, number)))
    return st.one_of(found)


def _most(end: float, dtype: np.dtype[Any]) -> int:
    """Return the pattern of the largest finite number of a type that is at most `end`; -1 where `end` is negative."""
    if end < 0:
        return -1
    with np.errstate(over="ignore", under="ignore"):
        x = np.array([end + 0.0]).astype(dtype)  # of -0.0 too the pattern is 0
    pattern = int(x.view(f"u{dtype.itemsize}")[0])
    return pattern - bool(exactly(x)[0] > end or math.isinf(exactly(x)[0]))


def _least(end: float, dtype: np.dtype[Any]) -> int:
    """Return the pattern of the smallest number of a type that is at least `end`, which is 0 or more."""
    at = _most(end, dtype)
    return at + bool(exactly(np.array([at], f"u{dtype.itemsize}").view(dtype))[0] < end)


def arrays(
    fmt: str | Format, dtype: Any = np.float32, shape: Any = None, *, inside: bool = False, finite: bool = False
) -> st.SearchStrategy[Any]:
    """Return arrays of the numbers that `values` draws, of a shape or of shapes that a strategy draws.

    Without `shape` they have 1 to 3 axes of 1 to 6 elements.
    """
    number, elements = number_type(dtype)[0], values(fmt, dtype, inside=inside, finite=finite)
    shapes = st.lists(st.integers(1, 6), min_size=1, max_size=3).map(tuple) if shape is None else shape
    if not isinstance(shapes, st.SearchStrategy):
        shapes = st.just((shape,) if isinstance(shape, int) else tuple(shape))

    def of_shape(sizes: tuple[int, ...]) -> st.SearchStrategy[Any]:
        size = math.prod(sizes)
        return st.lists(elements, min_size=size, max_size=size).map(lambda xs: np.array(xs, number).reshape(sizes))

    return shapes.flatmap(of_shape)


def modes(*, stochastic: bool | None = None) -> st.SearchStrategy[Mode]:
    """Return rounding modes: all, those that take a random word, or those that take none."""
    return st.sampled_from([mode for mode in Mode if stochastic in (None, mode.stochastic)])


@st.composite
def quantizers(
    draw: st.DrawFn,
    fmt: str | Format | None = None,
    *,
    max_bits: int = 8,
    dtype: Any = None,
    stochastic: bool | None = None,
) -> Quantizer:
    """Return roundings without a scale: of `fmt` or of any of `formats`, with a mode of `modes`, its N or eps, a saturation."""
    own = draw(formats(max_bits, dtype=dtype)) if fmt is None else get_format(fmt)
    mode = draw(modes(stochastic=stochastic))
    given: dict[str, Any] = {"sr_bits": draw(st.integers(0, 16))} if mode in LIMITED else {}
    if mode is Mode.THR:
        given["eps"] = draw(st.sampled_from([0.5, 0.0, 0.25, 0.75]))
    return Quantizer(own, mode, saturation=draw(st.sampled_from(saturations(own))), **given)


def _of_pattern(pattern: int, dtype: np.dtype[Any]) -> Any:
    return np.array([pattern], f"u{dtype.itemsize}").view(dtype)[0]


@st.composite
@gradual_underflow
def _near(draw: st.DrawFn, fmt: Format, dtype: np.dtype[Any], ends: tuple[float, float] | None = None) -> Any:
    first, last = -fmt.bottom - 2, fmt.top + 1
    if ends and ends[0] >= fmt.min:
        first, last = -fmt.bottom, max(fmt.top - 1, -fmt.bottom)
    elif isinstance(fmt, Table):  # whose line ends where its entry says
        first, last = -fmt.bottom - (fmt.below is not None), fmt.top - (fmt.above is None)
    ordinal = draw(st.integers(first, last))
    low, high = fmt.value(ordinal), fmt.value(ordinal + 1)
    exact = low + (high - low) * draw(st.sampled_from([Fraction(k, 4) for k in range(5)]))
    most = Fraction(np.finfo(np.float64).max)
    with np.errstate(over="ignore", under="ignore"):  # what the type does not reach is an infinity, or 0
        x = np.array([float(max(-most, min(exact, most)))]).astype(dtype)
    moved = step(x, draw(st.integers(-1, 1)))
    if ends is None:
        return draw(st.sampled_from([moved, -moved]))[0]
    found = [y[0] for y in (moved, -moved, x) if np.isfinite(y[0]) and ends[0] <= exactly(y)[0] <= ends[1]]
    assume(found)  # of a type that does not reach the format there may be none
    return draw(st.sampled_from(found))


def codes(fmt: str | Format) -> st.SearchStrategy[int]:
    """Return the codes of a format that stand for something: a value, an infinity or a NaN."""
    fmt = get_format(fmt)
    if isinstance(fmt, Table):  # few of its codes may stand for anything
        return st.sampled_from(sorted({*fmt.codes} | ({fmt.nan_code} if fmt.nan_code is not None else set())))
    return st.integers(0, (1 << fmt.bits) - 1).filter(fmt.is_code)


def words(bits: int) -> st.SearchStrategy[int]:
    """Return random words of `bits` bits, the lowest, the highest and powers of two among them."""
    if not 0 <= bits <= 64:
        raise InputError(f"bits = {bits!r}: a random word has 0 to 64")
    last = (1 << bits) - 1
    turns = sorted({0, last, *(1 << k for k in range(bits)), *(last ^ 1 << k for k in range(bits))})
    return st.integers(0, last) | st.sampled_from(turns)
