"""Which of the known faults give the answers at hand."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from qsim.explain.case import Case, look, make_case
from qsim.explain.faults import ANYTHING, INSTEAD, PARTS, faults
from qsim.formats import Format
from qsim.rounding import Mode
from qsim.underflow import gradual_underflow

__all__ = ["causes", "common_causes", "consistent", "explaining", "plainest", "wrong"]


def causes(x: Any, got: Any, fmt: str | Format, mode: str | Mode = Mode.RNE, **options: Any) -> list[str]:
    """Return the faults that make `got` of `x`, each in a sentence; none where `got` is right or no known fault fits.

    `got` is a code if it is an integer, and a value if it is a float. The other arguments are those of `explain`. One wrong
    answer often has many causes; `common_causes` narrows them by more answers.
    """
    return common_causes([make_case(x, fmt, mode, got=got, **options)])


@gradual_underflow
def common_causes(cases: Iterable[Case]) -> list[str]:
    """Return the faults that give the answers of all `cases`, of which at least one must be wrong.

    Cases whose answer is right narrow the choice as well: what would have broken them is not the fault.
    """
    listed = list(cases)
    if not any(wrong(case) for case in listed):
        return []
    return plainest(name for name, given in explaining(listed).items() if all(given))


@gradual_underflow
def explaining(cases: Iterable[Case]) -> dict[str, list[bool]]:
    """Return, for each known fault, which of the answers of `cases` it gives; the cases differ in x, word and answer only."""
    found: dict[str, list[bool]] = {}
    for case in cases:
        views = look(case)
        for name, rule in faults(case).items():
            found.setdefault(name, []).append(any(case.is_answer(rule(view)) for view in views))
    return found


@gradual_underflow
def consistent(names: Iterable[str], cases: Iterable[Case]) -> list[str]:
    """Return those of the named faults that give the answers of all `cases`."""
    left = list(names)
    for case in cases:
        if not left:
            break
        views, known = look(case), faults(case)
        left = [name for name in left if any(case.is_answer(known[name](view)) for view in views)]
    return left


def plainest(names: Iterable[str]) -> list[str]:
    """Leave out the faults that are part of another of them, and those that any answer is an example of."""
    listed = list(names)
    parts = {name + end for name in listed for end in PARTS}
    own = [name for name in listed if name not in parts and not set(INSTEAD.get(name, ())) & set(listed)]
    return [name for name in own if name not in ANYTHING] or own


@gradual_underflow
def wrong(case: Case) -> bool:
    """Return whether what was got is not the reference's answer, with any word where the word is unknown."""
    return not any(case.is_answer(view.right) for view in look(case))
