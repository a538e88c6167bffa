"""Which of the known faults give the answers at hand."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from qsim.explain.case import Case, make_case
from qsim.explain.faults import ANYTHING, INSTEAD, PARTS, Rule, faults
from qsim.explain.lines import Lines, lines_of, make_lines
from qsim.explain.oracle import Flags
from qsim.formats import Format
from qsim.rounding import Mode
from qsim.underflow import gradual_underflow

__all__ = ["Diagnosis", "Run", "causes", "common_causes", "diagnose", "gives", "plainest", "spread", "wrong"]

Indices = NDArray[np.intp]
Labels = NDArray[np.int64]

GOLDEN = (5**0.5 - 1) / 2

FEW = 64
"""How many wrong answers, and how many right ones, a fault is tried on first."""

BLOCK = 1 << 16
"""How many answers a fault is held against at once."""

WITNESSES = 1 << 14
"""How many wrong answers are looked at for faults that give them together."""

MOST = 0.75
"""The share of the wrong answers that faults must give together to be told though they do not give all."""

MOST_PARTS = 6
"""How many faults are told that give the wrong answers together."""


class Run(Protocol):
    """Hold answers of which it is known whether they are right, and give any of them as lines."""

    @property
    def wrong(self) -> Flags:
        """Which answers are wrong."""
        ...

    @property
    def right(self) -> Flags:
        """Which answers are right; neither right nor wrong is one to a number that the format refuses."""
        ...

    def lines(self, chosen: Indices) -> Lines:
        """Return the chosen answers."""
        ...


class Judged:
    """Hold lines against the reference."""

    def __init__(self, lines: Lines) -> None:
        self._lines = lines
        same = gives(lambda v: v.right, lines.ways())
        self.wrong, self.right = ~same & ~lines.refused, same & ~lines.refused

    def lines(self, chosen: Indices) -> Lines:
        """Return the chosen answers."""
        return self._lines.pick(chosen)


@dataclass(frozen=True, slots=True, kw_only=True)
class Diagnosis:
    """Say which faults give the answers of a run. None of them would have made a right answer another one."""

    #: The faults each of which gives all wrong answers.
    whole: list[str]
    #: Where there are none, faults that give them together, or most of them: each with the number of those it gives.
    parts: dict[str, int]
    #: How many answers are wrong, how many right, and how many of the wrong ones no part gives.
    wrong: int
    right: int
    left: int


def gives(rule: Rule, ways: Sequence[Lines]) -> Flags:
    """Return which answers a fault gives; `ways` are the lines, with each of the words they may have."""
    found = [lines.matches(rule(lines)) for lines in ways]
    return found[0] if len(found) == 1 else found[0] | found[1]


@gradual_underflow
def diagnose(runs: Sequence[Run]) -> Diagnosis:
    """Return the faults that give the answers of `runs`, all of them: wrong ones, and right ones.

    A few answers say which faults may be one, and the rest of the right ones which of these are none. The remaining faults
    are held against the wrong answers.
    """
    wrong, right = (
        [np.flatnonzero(flags) for flags in kind] for kind in zip(*[(r.wrong, r.right) for r in runs], strict=True)
    )
    total, kept = sum(map(len, wrong)), sum(map(len, right))
    if not total:
        return Diagnosis(whole=[], parts={}, wrong=0, right=kept, left=0)
    sorts = _sorts(runs, wrong)
    few, witnesses = (_of_each(wrong, sorts, most) for most in (FEW, WITNESSES))
    names = [name for name, some in _table(runs, few).items() if some.any()]
    for chosen in (_beside(few, right), _share(right, FEW), _share(right, WITNESSES), right):
        names = _giving(names, runs, chosen)
    table = _table(runs, witnesses, names)
    whole = _giving([name for name, some in table.items() if some.all()], runs, wrong)
    parts: dict[str, int] = {}
    left = 0
    if not whole:
        every, looked = np.concatenate(sorts), np.concatenate(_sorts(runs, witnesses))
        parts, left = _parts(table, runs, wrong, every, looked)
    return Diagnosis(whole=plainest(whole), parts=parts, wrong=total, right=kept, left=left)


def _blocks(runs: Sequence[Run], chosen: Sequence[Indices]) -> Iterator[tuple[Mapping[str, Rule], list[Lines]]]:
    """Yield the chosen answers of runs in blocks, each with the faults of its kind."""
    for run, indices in zip(runs, chosen, strict=True):
        for start in range(0, len(indices), BLOCK):
            lines = run.lines(indices[start : start + BLOCK])
            yield faults(lines.kind), lines.ways()


def _giving(names: Sequence[str], runs: Sequence[Run], chosen: Sequence[Indices]) -> list[str]:
    """Return those of the named faults that give all chosen answers."""
    kept = list(names)
    for known, ways in _blocks(runs, chosen) if kept else ():
        kept = [name for name in kept if name in known and gives(known[name], ways).all()]
        if not kept:
            break
    return kept


def _table(runs: Sequence[Run], chosen: Sequence[Indices], names: Sequence[str] | None = None) -> dict[str, Flags]:
    """Return which of the chosen answers each fault gives, of those named or of all."""
    found: dict[str, list[Flags]] = {}
    for known, ways in _blocks(runs, chosen):
        names, nothing = list(known) if names is None else names, np.zeros(len(ways[0]), bool)
        for name in names:
            found.setdefault(name, []).append(gives(known[name], ways) if name in known else nothing)
    return {name: np.concatenate(blocks) for name, blocks in found.items()}


def _parts(
    table: Mapping[str, Flags], runs: Sequence[Run], wrong: Sequence[Indices], sorts: Labels, witnesses: Labels
) -> tuple[dict[str, int], int]:
    """Return the faults that give all wrong answers together, or most of them, and how many these leave.

    `sorts` are the sorts of all wrong answers, `witnesses` those of the answers in the table. Where some answers are left, a
    fault counts for the sorts of which it gives all, or if it gives most of the wrong ones: else it would give some by chance.
    """
    kinds, counts = np.unique(sorts, return_counts=True)
    looked = np.array([(witnesses == kind).sum() for kind in kinds])
    weights = (counts / looked)[np.searchsorted(kinds, witnesses)]
    names = _together(table, weights)
    if not names or not np.any([table[name] for name in names], axis=0).all():
        sure = {}
        for name, row in table.items():
            whole = [kind for kind in kinds if row[witnesses == kind].all()]
            sure[name] = row if (row * weights).sum() >= MOST * len(sorts) else row & np.isin(witnesses, whole)
        names = _together(sure, weights)
    found, left = dict.fromkeys(names, 0), 0
    for known, ways in _blocks(runs, wrong) if names else ():
        rows = [gives(known[name], ways) for name in names]
        for name, row in zip(names, rows, strict=True):
            found[name] += int(row.sum())
        left += int((~np.any(rows, axis=0)).sum())
    return (found, left) if left <= (1 - MOST) * len(sorts) else ({}, 0)


def _together(table: Mapping[str, Flags], weights: NDArray[np.float64]) -> list[str]:
    """Return few faults that together give all that any gives, greedily: most of the remaining answers first."""
    names = sorted(table, key=lambda name: name in ANYTHING)  # whatever else gives an answer comes first
    found: list[str] = []
    left = weights.copy()
    while names and len(found) < MOST_PARTS:
        best = max(names, key=lambda name: float(left[table[name]].sum()))
        if not left[table[best]].any():
            break
        found.append(best)
        left[table[best]] = 0
    return found


def _share(chosen: Sequence[Indices], most: int) -> list[Indices]:
    """Return at most `most` of the chosen answers, as many of each run as its share, but some of each."""
    total = max(sum(map(len, chosen)), 1)
    return [spread(indices, max(most * len(indices) // total, min(len(indices), 4))) for indices in chosen]


def _sorts(runs: Sequence[Run], chosen: Sequence[Indices]) -> list[Labels]:
    """Return the sorts of number of the chosen answers."""
    found = []
    for run, indices in zip(runs, chosen, strict=True):
        blocks = [run.lines(indices[start : start + BLOCK]).sort for start in range(0, len(indices), BLOCK)]
        found.append(np.concatenate([np.empty(0, np.int64), *blocks]))
    return found


def _of_each(chosen: Sequence[Indices], labels: Sequence[Labels], most: int) -> list[Indices]:
    """Return about `most` of the chosen answers, as many of each sort of number if there are."""
    kinds = np.unique(np.concatenate(labels)).tolist()
    shares = [
        _share([i[own == kind] for i, own in zip(chosen, labels, strict=True)], -(-most // len(kinds)))
        for kind in kinds
    ]
    return [np.sort(np.concatenate(parts)) for parts in zip(*shares, strict=True)]


def _beside(few: Sequence[Indices], right: Sequence[Indices]) -> list[Indices]:
    """Return right answers next to a few wrong ones."""
    near = [(some[:, None] + np.array([-1, 1])).reshape(-1) for some in few]
    return [np.intersect1d(close, here) for close, here in zip(near, right, strict=True)]


def spread(indices: Indices, most: int) -> Indices:
    """Return at most `most` of `indices`: one of each of so many equal parts.

    Which one goes by multiples of the golden ratio: equal steps could be in step with the order of the inputs, in which
    each interval has the same fractions.
    """
    if len(indices) <= most:
        return indices
    part = np.arange(most)
    return indices[((part + part * GOLDEN % 1) * len(indices) / most).astype(np.intp)]


def plainest(names: Iterable[str]) -> list[str]:
    """Leave out the faults that are part of another of them, and those that any answer is an example of."""
    listed = list(names)
    parts = {name + end for name in listed for end in PARTS}
    own = [name for name in listed if name not in parts and not set(INSTEAD.get(name, ())) & set(listed)]
    return [name for name in own if name not in ANYTHING] or own


# --- For a caller ----------------------------------------------------------------------------------------------------


@gradual_underflow
def common_causes(cases: Iterable[Case]) -> list[str]:
    """Return the faults that give the answers of all `cases`, of which at least one must be wrong.

    Cases whose answer is right narrow the choice as well: a fault that would have broken them is excluded.
    """
    runs = [Judged(lines) for lines in lines_of(cases)]
    return diagnose(runs).whole if runs else []


@gradual_underflow
def wrong(case: Case) -> bool:
    """Return whether the answer differs from the reference's, with any word where the word is unknown."""
    (lines,) = lines_of([case])
    return bool(Judged(lines).wrong[0])


@gradual_underflow
def causes(
    x: Any,
    got: Any,
    fmt: str | Format,
    mode: str | Mode = Mode.RNE,
    *,
    rbits: Any = None,
    **options: Any,
) -> list[str]:
    """Return the faults that make `got` of `x`, each in a sentence; none where `got` is right or no known fault fits.

    `x` and `got` are a number and an answer, or as many of each in arrays, such as the lines of a device's file: then a fault
    is one that gives every answer, the wrong ones and the right ones. `x` is an array of float16, bfloat16, float32 or float64;
    `got` holds codes if its numbers are integers, and values if they are floats; `rbits` holds the random words. The other
    arguments are those of `explain`. One wrong answer often has many causes; more answers narrow them. Where no fault gives
    all answers of an array, those are returned that give most of the wrong ones together, each as "in part: FAULT (k of m wrong
    answers)".
    """
    if np.ndim(x) == 0 and np.ndim(got) == 0:
        return common_causes([make_case(x, fmt, mode, got=got, rbits=rbits, **options)])
    found = diagnose([Judged(make_lines(x, got, fmt, mode, rbits=rbits, **options))])
    parts = [f"in part: {name} ({count:,} of {found.wrong:,} wrong answers)" for name, count in found.parts.items()]
    return found.whole or parts
