"""Faults where binades begin, and below the first of them: carries, subnormal values, flushing to zero."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from qsim.explain.faults.rules import Named, Rule, always, signed_infinity, signed_zero, where
from qsim.explain.lines import Answers, Lines
from qsim.explain.oracle import Flags, Floats, divide, log2
from qsim.formats import Format, Grid
from qsim.rounding import Flush, Mode

__all__ = ["full_precision", "of_grids", "of_subnormals"]


def of_grids(fmt: Format, mode: Mode) -> Named:
    """Yield faults of carries, and of numbers below the smallest normal value."""
    if not isinstance(fmt, Grid) or fmt.even or not fmt.man_bits or fmt.gap:
        return
    whole = 1 << fmt.man_bits

    def carries(v: Lines) -> Flags:
        return np.asarray(v.finite & v.away & (v.rounded % whole == 0))

    def into_normal(v: Lines) -> Flags:
        return np.asarray(carries(v) & (np.abs(v.rounded) == whole))

    yield (
        "the carry does not reach the exponent: the significand wraps around to 0",
        where(carries, lambda v: v.land(v.rounded - whole * v.outward)),
    )
    yield (
        "the carry into the exponent is dropped: the significand stays at all ones",
        where(carries, lambda v: v.land(v.at.ordinal)),
    )
    yield (
        "what rounds up to the smallest normal value becomes 0: a carry is lost there",
        where(into_normal, signed_zero),
    )
    yield (
        "what should round up to the smallest normal value stays subnormal",
        where(into_normal, lambda v: v.land(v.at.ordinal)),
    )
    yield "shifts subnormals one place too few: the result is doubled", where(_low, _shifted(fmt.lsb - 1, 1))
    yield "shifts subnormals one place too many: the result is halved", where(_low, _shifted(fmt.lsb + 1, 1))
    for width in (32, 64):
        yield (
            f"takes shift counts modulo {width}, so that far too small numbers come back",
            _wrapping(width, whole=False),
        )
        yield f"takes shift counts modulo {width}, those of normal numbers included", _wrapping(width, whole=True)
    yield "subnormals: the bits that are shifted out do not reach the sticky bit", where(_low, _without_sticky)
    yield "spaces subnormals twice too widely", where(_low, _shifted(fmt.lsb + 1, 2))
    yield (
        "has no gradual underflow: below the smallest normal value it rounds to full precision",
        where(_low, lambda v: v.of_values(full_precision(v, v.mode))),
    )
    if mode not in (Mode.SR, Mode.SRA):  # where the word is added to the pattern: see `patterns`
        yield (
            "ignores the exponent range: no subnormals, no largest value, and infinities stay",
            where(lambda v: ~v.nan & ~v.zero, _without_range),
        )
    yield "rounds subnormals twice: first to full precision", where(_low, _through_full_precision)


def _low(v: Lines) -> Flags:
    return v.low


def _numbers(v: Lines, applies: Flags) -> NDArray[Any]:
    """Return the numbers that are rounded where a rule applies, elsewhere 1, of which all that follows makes something."""
    return np.where(applies, v.entering, 1.0)


def _shifted(exponent: int, step: int) -> Rule:
    """Return the rule of a quantizer that counts x in units of 2^exponent, and takes each for `step` ordinals."""

    def rule(v: Lines) -> Answers:
        steps, nu = divide(_numbers(v, v.low), exponent)
        return v.land((steps + v.goes(nu=nu, odd=steps % 2 == 1)) * step * v.outward)

    return rule


def _without_sticky(v: Lines) -> Answers:
    """Return the result of shifting the significand down to a subnormal's, and rounding the bits left."""
    if v.kind.number is None:
        return v.right
    assert isinstance(v.fmt, Grid)  # by the family
    unit = v.fmt.emin - v.kind.number.man_bits
    steps, _ = divide(_numbers(v, v.low), unit)
    return v.round(np.copysign(np.ldexp(steps.astype(np.float64), unit), v.floats))


def _wrapping(width: int, *, whole: bool) -> Rule:
    """Return the rule of a unit that shifts the input's significand right by a count of which only the low bits matter.

    The count is that of the bits the format has fewer, plus, below its normal numbers, the exponents that it lacks; these
    alone wrap around, or the `whole` count.
    """

    def rule(v: Lines) -> Answers:
        if v.kind.number is None:
            return v.right
        assert isinstance(v.fmt, Grid)  # by the family
        fmt, number, x = v.fmt, v.kind.number, _numbers(v, v.finite & ~v.zero)
        exponent = np.where(v.zero, number.emin, np.maximum(log2(x), number.emin))
        fewer, lacking = number.man_bits - fmt.man_bits, np.maximum(fmt.emin - exponent, 0)
        count = (fewer + lacking) % width if whole else fewer + lacking % width
        steps, nu = divide(np.where(v.zero, 0.0, x), exponent - number.man_bits + count)
        binades = np.maximum(exponent, fmt.emin) - fmt.emin
        ordinal = steps + v.goes(nu=nu, odd=steps % 2 == 1) + (binades << fmt.man_bits)
        ordinal = np.minimum(ordinal, np.abs(v.outside))  # the line goes on, but to numbers without end
        return np.where(v.finite & (count >= 0), v.land(ordinal * v.outward), v.right)

    return rule


def full_precision(v: Lines, mode: Mode) -> Floats:
    """Return numbers rounded to the format's precision, as if its exponents had no end."""
    assert isinstance(v.fmt, Grid)  # by the family
    x = _numbers(v, v.sized)
    exponent = log2(x) - v.fmt.man_bits
    steps, nu = divide(x, exponent)
    goes = v.goes(mode=mode, nu=nu, odd=steps % 2 == 1)
    with np.errstate(over="ignore"):
        return np.copysign(np.ldexp((steps + goes).astype(np.float64), exponent), v.floats)


def _through_full_precision(v: Lines) -> Answers:
    return v.round(full_precision(v, Mode.RNE))


def _without_range(v: Lines) -> Answers:
    return np.where(v.infinite, signed_infinity(v), v.of_values(full_precision(v, v.mode)))


FLUSHING: Mapping[Flush, str] = {
    "result": "flushes subnormal results to zero",
    "after": "flushes to zero what is tiny after it is rounded with an unbounded exponent",
    "before": "flushes what is below the smallest normal value before rounding",
}


def of_subnormals(flush: Flush | Literal[False]) -> Named:
    """Yield the ways to flush to zero, or not to."""

    def subnormal(v: Lines) -> Flags:
        first = v.fmt.first_normal if isinstance(v.fmt, Grid) else 0
        return np.asarray(v.finite & (v.rounded != 0) & (np.abs(v.rounded) < first))

    if flush:
        yield "does not flush subnormal results", _flushing(to=False)
    for kind, name in FLUSHING.items():
        if kind != flush:
            yield name, _flushing(to=kind)
    if not flush:
        yield "flushes subnormal results to +0", where(subnormal, always(0.0))
    yield (
        "what is below the smallest value becomes 0 without a rounding",
        where(lambda v: v.finite & v.fmt.has_zero & (v.at.ordinal == 0) & ~v.at.nu.zero, signed_zero),
    )
    yield (
        "the smallest value is missing: what belongs there becomes 0",
        where(lambda v: v.finite & v.fmt.has_zero & (np.abs(v.rounded) == 1), signed_zero),
    )
    yield "flushes subnormal inputs to zero", where(lambda v: v.subnormal, lambda v: v.round(v.flush(v.x, to=True)))
    yield "does not flush subnormal inputs", where(lambda v: v.subnormal, lambda v: v.round(v.x))


def _flushing(*, to: Flush | Literal[False]) -> Rule:
    return where(_low, lambda v: v.round(v.entering, ftz_out=to))
