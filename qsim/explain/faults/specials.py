"""Faults of zeros, NaNs, and negative numbers in a format that has none."""

from __future__ import annotations

import numpy as np

from qsim.explain.faults.rules import Named, Rule, always, signed_infinity, signed_zero, where
from qsim.explain.lines import Answers, Lines
from qsim.explain.oracle import Flags, code_of
from qsim.formats import Format, Grid

__all__ = ["ANYTHING", "of_nans", "of_unheld", "of_zeros"]

ANYTHING = ("a NaN is taken for a number: its pattern is rounded", "a NaN has another code than the one it should")
"""Faults that explain whatever came out, to be named only where no other does."""


def of_zeros(fmt: Format) -> Named:
    """Yield faults of the sign of zero."""

    def zero(v: Lines) -> Flags:
        return np.asarray(np.isfinite(v.floats) & (v.right_values == 0))

    def nonzero(v: Lines) -> Flags:
        return np.asarray(zero(v) & ~v.zero)

    plus, minus = always(0.0), always(-0.0)
    yield "loses the sign of zero", where(zero, plus)
    yield "loses the sign of -0, but not that of a number that rounds to it", where(lambda v: zero(v) & v.zero, plus)
    yield "loses the sign of a negative number that rounds to zero, but not that of -0", where(nonzero, plus)
    yield (
        "keeps the sign of zero, for which the format has no code",
        where(lambda v: zero(v) & v.negative & (not v.fmt.has_neg_zero), minus),
    )
    if isinstance(fmt, Grid) and not fmt.even and fmt.signed and not fmt.has_neg_zero:
        sign: Rule = lambda v: v.of_codes(np.full(len(v), np.int64(1 << (fmt.bits - 1))))  # noqa: E731 - a rule, as above
        yield "sets the sign bit of a zero, which makes another code of it", where(lambda v: zero(v) & v.negative, sign)
        yield (
            "sets the sign bit of a negative number that rounds to zero, not of -0: another code",
            where(lambda v: nonzero(v) & v.negative, sign),
        )
    yield "makes -0 of a positive number that rounds to zero", where(lambda v: nonzero(v) & ~v.negative, minus)
    yield "makes -0 of +0", where(lambda v: zero(v) & ~v.negative & v.zero, minus)


def of_unheld(fmt: Format) -> Named:
    """Yield faults of 0 in a format without it, and of negative numbers in an unsigned one."""
    becoming: list[tuple[str, Rule]] = [
        ("NaN", always(np.nan)),
        ("the smallest value", lambda v: v.of_codes(np.full(len(v), np.int64(fmt.code(-fmt.bottom))))),
        ("the largest value", lambda v: v.of_codes(np.full(len(v), np.int64(fmt.code(fmt.top))))),
        ("0", always(0.0)),
    ]
    for result, answer in becoming:
        if not fmt.has_zero:
            yield f"0 becomes {result}", where(lambda v: v.zero, answer)
        if not fmt.signed:
            yield f"a negative number becomes {result}", where(lambda v: v.negative & v.finite & ~v.zero, answer)
    if not fmt.signed:
        yield (
            "drops the sign of a negative number, not of an infinity",
            where(lambda v: v.negative & v.finite, lambda v: v.round(np.where(v.finite, np.abs(v.entering), 1.0))),
        )


def of_nans() -> Named:
    """Yield faults of NaNs."""

    def at_end(v: Lines) -> Answers:
        return v.of_codes(code_of(v.fmt, v.end))

    def at_top(v: Lines) -> Answers:
        return v.of_codes(np.full(len(v), np.int64(v.fmt.code(v.fmt.top))))

    def at_bottom(v: Lines) -> Answers:
        return v.of_codes(np.full(len(v), np.int64(v.fmt.code(-v.fmt.bottom))))

    def other_zero(v: Lines) -> Answers:
        return v.of_values(np.where(v.negative, 0.0, -0.0))

    becoming: list[tuple[str, Rule]] = [
        ("0", always(0.0)),
        ("-0", always(-0.0)),
        ("a zero of its sign", signed_zero),
        ("a zero of the other sign", other_zero),
        ("the largest value", at_top),
        ("the largest value of its sign", at_end),
        ("the smallest value", at_bottom),
        ("infinity", always(np.inf)),
        ("infinity of its sign", signed_infinity),
        ("NaN, which is not what the format makes of it", always(np.nan)),
    ]
    for result, answer in becoming:
        yield f"a NaN becomes {result}", where(_nan, answer)
    yield "a NaN of whose payload none of the bits kept is set becomes infinity", where(_truncated_nan, signed_infinity)
    yield "a NaN keeps its sign", where(_held_nan, _nan_of(sign=True))
    yield "a NaN loses its sign", where(_held_nan, _nan_of(sign=False))
    yield ANYTHING[0], where(_nan, _any_number)
    yield ANYTHING[1], where(_nan, _any_nan)


def _nan(v: Lines) -> Flags:
    return v.nan


def _held_nan(v: Lines) -> Flags:
    return v.nan & v.fmt.has_nan


def _truncated_nan(v: Lines) -> Flags:
    """Return which numbers are NaNs that look like an infinity if their payload is cut to the format's bits."""
    number = v.kind.number
    if number is None or not isinstance(v.fmt, Grid) or v.fmt.even:
        return np.zeros(len(v), bool)
    payload = v.pattern & np.uint64((1 << number.man_bits) - 1)
    return np.asarray(v.nan & (payload >> np.uint64(max(number.man_bits - v.fmt.man_bits, 0)) == 0))


def _nan_of(*, sign: bool) -> Rule:
    def rule(v: Lines) -> Answers:
        codes = [v.fmt.code_of_nan(negative=negative) for negative in (False, sign)]
        return v.of_codes(np.where(v.negative, codes[1], codes[0]))

    return rule


def _any_number(v: Lines) -> Answers:
    return np.where(v.got_nan, v.right, v.got)


def _any_nan(v: Lines) -> Answers:
    return np.where(v.got_nan, v.got, v.right)
