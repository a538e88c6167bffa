"""Faults at the ends of the range: another saturation, the range looked at too early or not at all."""

from __future__ import annotations

import numpy as np

from qsim.explain.faults.rules import Named, Rule, always, signed_infinity, signed_zero, where
from qsim.explain.lines import Answers, Lines
from qsim.explain.oracle import Flags, code_of, points_at
from qsim.formats import Format, Grid
from qsim.rounding import Saturation, saturations

__all__ = ["of_range", "of_saturation"]


def of_saturation(fmt: Format, saturation: Saturation) -> Named:
    """Yield other rules beyond the range."""
    for rule in saturations(fmt):
        if rule is not saturation:
            yield f"saturates by {rule} instead of {saturation}", _saturating(rule)
    becoming: list[tuple[str, Rule]] = [
        ("the largest value", _last),
        ("infinity", signed_infinity),
        ("NaN", always(np.nan)),
        ("0", signed_zero),
        ("+0", always(0.0)),
    ]
    for result, answer in becoming:
        yield f"an infinity becomes {result}", where(lambda v: v.infinite, answer)
        yield f"a finite overflow becomes {result}", where(lambda v: v.beyond, answer)
        yield f"an overflow and an infinity become {result}", where(lambda v: v.beyond | v.infinite, answer)


def _saturating(rule: Saturation) -> Rule:
    return lambda v: v.round(v.entering, saturation=rule)


def _last(v: Lines) -> Answers:
    return v.of_codes(code_of(v.fmt, v.end))


def of_range(fmt: Format) -> Named:
    """Yield faults at the ends of the range."""
    mask = (1 << fmt.bits) - 1

    def outside(v: Lines) -> Flags:
        """Return whether a number, before it is rounded, is beyond the largest value, or below the smallest one."""
        further = ~v.at.nu.zero
        above = (v.at.ordinal > fmt.top) | ((v.at.ordinal == fmt.top) & further)
        below = (v.at.ordinal < -fmt.bottom) | ((v.at.ordinal == -fmt.bottom) & further) if fmt.signed else ~v.zero
        return np.asarray(v.finite & np.where(v.at.negative, below, above))

    yield (
        "checks the range before rounding: all that is beyond the largest value overflows",
        where(outside, lambda v: v.land(v.outside)),
    )
    yield (
        "lets what rounds up beyond the largest value stay there: only the next point overflows",
        where(lambda v: v.beyond & v.away, _last),
    )
    yield (
        "lets the carry run on into the code after that of the largest value",
        where(lambda v: v.beyond & (v.rounded == v.outside), lambda v: v.of_codes((code_of(fmt, v.end) + 1) & mask)),
    )
    yield "loses the sign of a negative input", where(lambda v: ~v.nan, lambda v: v.round(np.abs(v.entering)))
    if fmt.signed:
        yield (
            "loses the sign of an overflow",
            where(lambda v: v.negative & (v.beyond | v.infinite), lambda v: v.round(np.abs(v.entering))),
        )
    yield (
        "the largest value is missing: what belongs there becomes the one below",
        where(
            lambda v: ~v.nan & (v.right_codes == code_of(fmt, v.end)),
            lambda v: v.of_codes(code_of(fmt, v.end - v.outward)),
        ),
    )
    yield (
        "the largest value is missing: what belongs there overflows",
        where(lambda v: v.finite & (v.rounded == v.end), lambda v: v.land(v.outside)),
    )
    if not isinstance(fmt, Grid):
        return
    yield "does not check the range: the grid goes on beyond the largest value", _going_on(fmt)
    if fmt.even and fmt.bits < 32:
        least = np.int64(fmt.code(-fmt.bottom))

        def overflows(v: Lines) -> Flags:
            return v.infinite | (v.finite & ((v.rounded < -(2**31)) | (v.rounded >= 2**31)))

        def smallest(v: Lines) -> Answers:
            return v.of_codes(np.full(len(v), least))

        yield "goes through int32: what overflows there becomes the smallest value", where(overflows, smallest)
        yield (
            "goes through int32: what overflows there, and a NaN, becomes the smallest value",
            where(lambda v: v.nan | overflows(v), smallest),
        )
    if fmt.signed and fmt.bottom == fmt.top + 1:
        yield (
            "leaves out the most negative value: the range is symmetric",
            where(
                lambda v: v.right_codes == fmt.code(-fmt.bottom),
                lambda v: v.of_codes(np.full(len(v), fmt.code(1 - fmt.bottom))),
            ),
        )
    if not fmt.even and fmt.signed and fmt.top >> fmt.man_bits > 1:
        yield from _of_top_binade(fmt)


def _going_on(fmt: Grid) -> Rule:
    def rule(v: Lines) -> Answers:
        exact = v.at.nu.zero  # as all numbers far beyond the range are: they stay
        points = points_at(fmt, v.rounded)
        held = v.beyond & (exact | np.isfinite(points))  # what a float64 does not reach nobody returns
        values = np.where(exact, v.entering, points)
        return np.where(held, v.of_values(np.where(held, values, 0.0)), v.right) if held.any() else v.right

    return rule


def _of_top_binade(fmt: Grid) -> Named:
    """Yield the fault of taking the top binade for special values only."""
    last = (fmt.top >> fmt.man_bits << fmt.man_bits) - 1
    becoming: list[tuple[str, Rule]] = [
        ("becomes the largest value below", lambda v: v.of_codes(code_of(fmt, last * v.outward))),
        ("overflows", lambda v: v.land(v.outside)),
        ("becomes infinity", signed_infinity),
        ("becomes NaN", always(np.nan)),
        ("becomes 0", signed_zero),
        ("becomes +0", always(0.0)),
    ]
    for result, answer in becoming:
        yield (
            f"the top binade is missing: what belongs there {result}",
            where(lambda v: v.finite & (np.abs(v.rounded) > last), answer),
        )
