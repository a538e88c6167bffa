"""Faults of the discarded fraction: bits that are not looked at, two roundings, exact values that move."""

from __future__ import annotations

import numpy as np

from qsim.explain.faults.rules import Named, Rule, turning, where
from qsim.explain.lines import Answers, Lines
from qsim.explain.oracle import Flags, Part
from qsim.rounding import Mode

__all__ = ["complement", "of_fractions", "top"]

DIRECTED = (Mode.RUP, Mode.RDN, Mode.RAZ, Mode.RTO)
"""The modes that ask whether anything is discarded at all."""

SHORT = 23
"""Bits of an input of which each may be missing: those of a float32's significand."""


def of_fractions(mode: Mode, n: int) -> Named:
    """Yield the ways to see the discarded fraction wrongly; `n` is the number of random bits."""
    seen = range(0) if mode in (Mode.SR, Mode.SRA) else range(0 if mode in DIRECTED else 1, max(n, 5))
    for k in seen:  # StochasticA with N bits is that which looks at N of them
        yield f"looks at the top {k} of the discarded bits only: the sticky bit is lost", _truncated(k)
    for k in range(1, 5):
        yield f"rounds twice: first to {k} more bit{'s' * (k > 1)}, to nearest", _twice(k)
    yield "the sticky bit misses the round bit, the second of the discarded ones", turning(_without_round_bit)
    for k in range(SHORT):
        yield f"bit {k} of the input is not looked at", _without_bit(k)
    yield (
        "moves values that are exact away from zero",
        where(lambda v: v.exact, lambda v: v.land(v.at.ordinal + v.outward)),
    )
    yield (
        "moves values that are exact toward zero",
        where(lambda v: v.exact, lambda v: v.land(v.at.ordinal - v.outward)),
    )
    if mode is Mode.THR:
        yield "measures the fraction from zero, not from the lesser neighbour", turning(_from_zero)
        yield "compares the fraction with >= eps instead of > eps", turning(_reaches_eps)


def top(nu: Part, k: int) -> Part:
    """Return fractions of which the top `k` bits, 0 to 64, are left."""
    mask = np.uint64((1 << 64) - (1 << (64 - k)))
    return Part(nu.word & mask, np.zeros_like(nu.tail))


def complement(nu: Part) -> Part:
    """Return 1 - nu, of fractions other than 0."""
    # nu 2^65 is an integer, or lies between two: 2^65 less it is, or does, too.
    guard, sticky = nu.tail >> 1, nu.tail % 2
    places = guard + sticky  # taken from 2^65, in units of the guard bit
    borrow = (places > 0).astype(np.uint64)
    return Part(np.uint64(0) - nu.word - borrow, ((places % 2) << 1 | sticky).astype(np.uint8))


def _truncated(k: int) -> Rule:
    return turning(lambda v: v.goes(nu=top(v.at.nu, k)))


def _twice(k: int) -> Rule:
    def decide(v: Lines) -> Flags:
        word, tail = v.at.nu
        left, half = word << np.uint64(k), np.uint64(1 << 63)
        kept = word >> np.uint64(64 - k)
        kept = kept + ((left > half) | ((left == half) & ((tail > 0) | (kept % 2 == 1))))
        near = Part(kept << np.uint64(64 - k), np.zeros_like(tail))
        return np.asarray((kept == 1 << k) | v.goes(nu=near))

    return turning(decide)


def _without_round_bit(v: Lines) -> Flags:
    return v.goes(nu=Part(v.at.nu.word & ~np.uint64(1 << 62), v.at.nu.tail))


def _without_bit(k: int) -> Rule:
    """Return the rule of a quantizer that takes bit k of the input's significand for 0."""

    def rule(v: Lines) -> Answers:
        number = v.kind.number
        if number is None or k >= number.man_bits:
            return v.right
        here = v.finite & (v.floats != 0) & ((v.pattern >> np.uint64(k)) % 2 == 1)
        without = number.decode_array(v.pattern & ~np.uint64(1 << k))
        return np.where(here, v.round(np.where(here, without, 0.0)), v.right)

    return rule


def _above(nu: Part, threshold: float, *, reached: bool = False) -> Flags:
    """Return whether fractions exceed a threshold of at most 64 bits; with `reached`, whether they reach it."""
    word = np.uint64(int(threshold * 2**64))
    return np.asarray((nu.word > word) | ((nu.word == word) & (nu.more | reached)))


def _from_zero(v: Lines) -> Flags:
    return _above(v.at.nu, v.kind.eps)


def _reaches_eps(v: Lines) -> Flags:
    up = _above(v.at.nu, v.kind.eps, reached=True)
    down = _above(v.at.nu, 1 - v.kind.eps) if v.kind.eps else np.zeros(len(v), bool)  # 1 - nu < eps
    return ~v.at.nu.zero & np.where(v.at.negative, down, up)
