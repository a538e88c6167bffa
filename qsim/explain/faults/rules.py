"""A fault: a sentence, and a rule that gives the quantizer's answers for many lines at once."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
from numpy.typing import NDArray

from qsim.explain.lines import Answers, Lines
from qsim.explain.oracle import Flags
from qsim.rounding import Mode

__all__ = [
    "NEAREST", "PARTS", "Named", "Rule", "always", "by_mode", "of_sign", "signed_infinity", "signed_zero", "turning", "where",
]  # fmt: skip

Rule = Callable[[Lines], Answers]
"""The answers of a faulty quantizer; the reference's answer where the fault does not show."""

Named = Iterator[tuple[str, Rule]]
"""Faults by name, the plainest first."""

NEAREST = {
    Mode.RNE: "to the even code", Mode.RNA: "away from zero", Mode.RNZ: "toward zero", Mode.RNP: "to the greater value",
    Mode.RNN: "to the lesser value",
}  # fmt: skip
"""The modes that round to the nearest value, and where they send a tie."""

PARTS = (
    ", but not in an overflow", ", negative numbers only", ", positive numbers only", ", subnormal results only",
    ", normal results only",
)  # fmt: skip
"""Endings of the names of faults that are not worth telling where the one without it explains as much."""


def where(applies: Callable[[Lines], Flags], rule: Rule) -> Rule:
    """Return the rule of a quantizer that is right but where the fault `applies`."""

    def restricted(v: Lines) -> Answers:
        here = applies(v)
        return np.where(here, rule(v), v.right) if here.any() else v.right

    return restricted


def turning(decide: Callable[[Lines], Flags]) -> Rule:
    """Return the rule of a quantizer that finds the right neighbours, and goes away from zero where `decide` says so."""
    return lambda v: v.go(decide(v))


def by_mode(other: Mode) -> Rule:
    """Return the rule of another mode, with the word of a stochastic one."""
    return lambda v: v.round(v.entering, mode=other)


def of_sign(rule: Rule, *, negative: bool) -> Rule:
    """Return the rule for one of the two signs only."""
    return where(lambda v: v.finite & (v.negative == negative), rule)


def always(value: float) -> Rule:
    """Return the rule that answers one value, whatever goes in."""
    return lambda v: v.of_values(np.full(len(v), value))


def signed_zero(v: Lines) -> Answers:
    """Answer a zero of the number's sign."""
    return v.of_values(np.where(v.negative & v.fmt.has_neg_zero, -0.0, 0.0))


def signed_infinity(v: Lines) -> Answers:
    """Answer an infinity of the number's sign."""
    infinity: NDArray[np.float64] = np.where(v.negative, -np.inf, np.inf)
    return v.of_values(infinity)
