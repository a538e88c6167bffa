"""Faults of direction: a tie that is broken otherwise, another rounding mode, for all numbers or for some."""

from __future__ import annotations

import dataclasses
import math
from fractions import Fraction

import numpy as np

from qsim import reference
from qsim.explain.faults.rules import NEAREST, PARTS, Named, Rule, by_mode, of_sign, turning, where
from qsim.explain.lines import Answers, Lines
from qsim.explain.oracle import Floats, quantize, spacing
from qsim.formats import Format, Grid, Table
from qsim.rounding import Mode

__all__ = ["HALF", "floored", "of_modes", "of_parts", "of_ties", "rounds_by"]

HALF = (
    "adds 1/2 in the input's own precision and truncates: floor(x + 1/2) in floats",
    "adds 1/2 in the input's own precision and truncates: floor(|x| + 1/2) in floats",
)


def rounds_by(other: Mode, mode: Mode) -> str:
    """Return the name of the fault of rounding by `other` where `mode` is meant."""
    if other in NEAREST and mode in NEAREST:
        return f"ties go {NEAREST[other]} ({other} instead of {mode})"
    if mode.stochastic and not other.stochastic:
        return f"ignores the word: rounds by {other} ({other.value})"
    return f"rounds by {other} ({other.value}) instead of {mode}"


def of_ties(fmt: Format, mode: Mode) -> Named:
    """Yield the other ways to break a tie."""
    if mode not in NEAREST:
        return
    for other in NEAREST:
        if other is not mode:
            yield rounds_by(other, mode), by_mode(other)
    if isinstance(fmt, Table) and fmt.thresholds:
        plain = dataclasses.replace(fmt, thresholds=())
        yield (
            "rounds to the nearer value, not by the format's thresholds",
            lambda v: v.round(v.entering, fmt=plain, saturation=v.kind.saturation),
        )
    yield HALF[0], floored(Fraction(1, 2), signed=True)
    yield HALF[1], floored(Fraction(1, 2), signed=False)
    yield "ties go to the odd code", turning(lambda v: v.goes(mode=Mode.RNZ) | (v.tie & ~v.at.odd))


def of_modes(fmt: Format, mode: Mode, *, known: bool) -> Named:
    """Yield the other modes that are no other way to break a tie.

    Of the stochastic ones those that can be told apart: all where the words are `known`, else StochasticEqual.
    """
    for other in Mode:
        same = other is mode or {other, mode} == {Mode.SR, Mode.SRA} or other in (Mode.SR, Mode.THR)
        told = not other.stochastic or (mode.stochastic and (known or other is Mode.SRE))
        if same or (other in NEAREST and mode in NEAREST) or not told:
            continue
        yield rounds_by(other, mode), by_mode(other)
        if any(other.inward(fmt, negative=sign) != mode.inward(fmt, negative=sign) for sign in (False, True)):
            yield rounds_by(other, mode) + PARTS[0], _inside_by(other)


def _inside_by(other: Mode) -> Rule:
    """Return the rule of a quantizer that chooses by another mode, and treats an overflow as it should."""
    return turning(lambda v: v.goes(mode=other))


def of_parts(fmt: Format, mode: Mode) -> Named:
    """Yield another mode for one of the two signs, or on one side of the smallest normal value."""
    for other in Mode:
        if other is mode or other.stochastic or other is Mode.THR:
            continue
        rule, name = by_mode(other), rounds_by(other, mode)
        yield name + PARTS[1], of_sign(rule, negative=True)
        yield name + PARTS[2], of_sign(rule, negative=False)
        if isinstance(fmt, Grid) and not fmt.even and fmt.man_bits:
            yield name + PARTS[3], where(lambda v: v.low, rule)
            yield name + PARTS[4], where(lambda v: v.finite & ~v.low, rule)


def floored(added: Fraction | None, *, signed: bool) -> Rule:
    """Return the rule of floor(t + u), the sum rounded to the input's own type; t is x, or |x|, in units of its interval.

    u is the number `added`, R / 2^N by default.
    """

    def rule(v: Lines) -> Answers:
        if v.kind.number is None or not isinstance(v.fmt, Grid):
            return v.right
        x = np.where(v.finite, v.floats, 0.0)
        with np.errstate(over="ignore", under="ignore", invalid="ignore"):
            t = np.ldexp(np.abs(x), -spacing(v.fmt, x))
            total = _added(np.where(v.negative & signed, -t, t), v, added)
            further = np.abs(np.floor(total)) - np.floor(t)
        near = np.isfinite(total) & (np.abs(further) <= 1)
        if v.fmt.gap:  # whose interval is wider than the spacing
            near &= np.abs(v.at.ordinal) != v.fmt.gap_at
        steps = np.where(near, further, 0).astype(np.int64)
        return np.where(near & v.finite, v.land(v.at.ordinal + steps * v.outward), v.right)

    return rule


def _added(t: Floats, v: Lines, added: Fraction | None) -> Floats:
    """Return t + u as the input's own type holds it, to nearest even."""
    number = v.kind.number
    assert number is not None  # asked only of numbers with a type
    if added is None and v.n > 53:  # such words are no float64s
        u = [Fraction(int(word), 1 << v.n) for word in v.words]
        exact = [Fraction(a) + b if math.isfinite(a) else None for a, b in zip(t.tolist(), u, strict=True)]
        return np.array([math.inf if total is None else reference.quantize(total, number) for total in exact])
    term = np.full(len(v), float(added)) if added is not None else np.ldexp(v.words.astype(np.float64), -v.n)
    total = t + term
    if number.name == "float64":
        return total
    # Rounded to odd at 53 bits, a sum can be rounded again to any precision of up to 51 bits (Boldo and Melquiond 2008).
    back = total - t
    error = (t - (total - back)) + (term - back)
    even = total.view(np.int64) % 2 == 0
    odd = np.where((error != 0) & even, np.nextafter(total, np.where(error > 0, np.inf, -np.inf)), total)
    return quantize(number, odd, Mode.RNE)
