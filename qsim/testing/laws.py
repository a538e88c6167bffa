"""The laws of rounding, each a question about a quantizer's answers for many numbers."""

from __future__ import annotations

import functools
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import numpy as np
from numpy.typing import NDArray

from qsim.explain.lines import exactly
from qsim.explain.picture import number
from qsim.explain.search import spread
from qsim.formats import Grid, Table
from qsim.rounding import LIMITED, Mode
from qsim.testing.bounds import by_chance, chernoff
from qsim.testing.inputs import Inputs, make_inputs
from qsim.testing.likeness import as_if
from qsim.testing.moments import Moments, count_cells
from qsim.testing.observe import Base, Flags, Indices, Seen, Task, ask, filled, turning_words

__all__ = ["LAWS", "MOST_ENUMERATED", "OF_WORDS", "WITHOUT_WORDS", "Broken", "Trial"]

LAWS: Mapping[str, str] = {
    "repeatable": "the same numbers become the same again, with the same words, at once and after all other calls",
    "neighbours": "a number within the range becomes one of its two neighbours",
    "fixed points": "a value of the format stays what it is, whatever the word",
    "thresholds": "at, just below and just above every point where the result turns, it is the reference's",
    "subnormals": "the same below the smallest normal value, and for subnormal inputs",
    "edges": "the same at the ends of the range, of the normal values and of the input's type",
    "saturation": "what lies beyond the range becomes what the saturation says, after the rounding",
    "specials": "NaNs of every sign and payload, infinities, and 0 in a format without it, become what the format says",
    "sign of zero": "a result of zero has the sign of the input, or none in a format without -0",
    "monotone": "a greater number never becomes less, with the same word",
    "idempotent": "a result rounded again stays what it is",
    "symmetric": "-x becomes minus what x becomes, with the same word, where mode, format and range are symmetric",
    "lengths": "a result depends on its own element alone: in short arrays it is that of the long one",
    "words": "each of a choice of random words sends x the way that the mode says",
    "word order": "with a greater word no number goes toward zero that went away from it",
    "moments": "over all words of up to 12 bits, bias and variance are exactly those of the mode",
    "frequencies": (
        "where nobody knows the words, as many numbers of a call go away from zero as should: a test that refutes a right "
        "quantizer once in 10^9 times at most, and does not show that one is unbiased"
    ),
    "inputs kept": "the arrays that it is given hold afterwards what they held before",
    "results kept": "an array that it returned does not change when it is called again",
}
"""The laws by name, in the order in which the first failure is sought."""

OF_WORDS = ("words", "word order", "moments", "frequencies")
"""The laws of stochastic modes."""

WITHOUT_WORDS = (
    "neighbours", "fixed points", "subnormals", "edges", "saturation", "specials", "sign of zero", "idempotent", "lengths",
    "frequencies", "inputs kept", "results kept",
)  # fmt: skip
"""The laws that a stochastic quantizer can be held to when nobody knows its random words. That it is unbiased is none."""

FALSE_ALARMS = 1e-9
"""How often, at most, the law of frequencies refutes a quantizer whose words are independent and uniform."""

COMPARED = 1 << 14
"""Numbers of whose outcomes it is asked which other rounding would give them."""

BINS = tuple(k / 16 for k in range(1, 16, 2))
"""Where probabilities are cut into groups, each with about the same one."""

REPEATS = 8
"""How often a quantizer of unknown words is asked."""

MANY = 1 << 17
"""Inputs of which not every one is tried with words that do not turn it."""

MOST_ENUMERATED = 12
"""Random bits up to which all words are tried."""

ENUMERATED = 1 << 18
"""Conversions for the moments: so many cells as this makes with all words."""

LENGTHS = (*range(1, 18), 31, 33)
"""Lengths of short arrays: every rest modulo 8 and 16, and the numbers next to 16 and 32."""

MOST_CELLS = 1024
"""The most cells whose words are counted or sampled."""


@dataclass(frozen=True, slots=True)
class Broken:
    """Say how often a law is broken, and hold wrong conversions that show it, or a sentence."""

    law: str
    count: int
    of: int
    seen: Seen | None
    #: At which elements of an array of which length.
    where: Indices
    length: int
    #: What shows it where no single conversion does.
    says: str = ""


class Trial:
    """Ask a quantizer once for all laws that need the same answers, and hold these."""

    def __init__(self, task: Task) -> None:
        self.task = task
        fractions = _fractions(task)
        further = _further(task, fractions)
        self.inputs: Inputs = make_inputs(task.fmt, task.dtype, fractions, task.seed, task.examples, further)
        #: What a verdict adds to what it covered.
        self.notes: list[str] = []
        #: Numbers come first, NaNs last.
        self.numbers = len(self.inputs.x) - int(np.isnan(self.inputs.exact).sum())
        count = len(self.inputs.x)
        if task.fmt.nan_to == "error":
            count = self.numbers
            self.notes.append("NaNs left out, which the format refuses (nan_to is 'error')")
        self.base = Base(task, self.inputs.x[:count], self.inputs.exact[:count])
        self.base.fine = self.inputs.fine[:count]
        #: All that was seen, to explain a failure by.
        self.pool: list[Seen] = []
        #: What the first question was answered when it was asked again, at once.
        self.again: list[Seen] = []
        #: The moments of the quantizer, where they were counted.
        self.moments: Moments | None = None

    def broken(self, law: str) -> Iterator[Broken]:
        """Yield the violations of a law, each with a count above 0."""
        base, edge = self.base, self.inputs.edge[: len(self.base)] & self.base.within
        domains = {
            "neighbours": base.within,
            "fixed points": base.on_grid,
            "thresholds": base.within & ~edge & ~base.low,
            "subnormals": base.low & ~edge,
            "edges": edge,
            "saturation": base.beyond,
            "specials": base.special,
        }
        if law in domains:
            for seen in self.main:
                here = domains[law][seen.at]
                failed = here & seen.wrong
                yield from _broken(law, seen, failed & ~seen.neighbour if law == "neighbours" else failed, here)
        match law:
            case "sign of zero":
                for seen in self.main:
                    yield from _broken(law, seen, seen.wrong_zero, seen.want == 0)
            case "monotone":
                for seen in self.shared:
                    yield from _broken(law, seen, _falls(seen) & seen.wrong)
            case "symmetric":
                for seen in self.shared:
                    yield from _broken(law, seen, _asymmetric(seen) & seen.wrong)
            case "idempotent":
                for seen in self._again():
                    yield from _broken(law, seen, seen.wrong)
            case "lengths":
                for seen, differs in self._short():
                    yield from _broken(law, seen, differs)
            case "words":
                yield from _broken(law, self.sampled, self.sampled.wrong)
            case "word order":
                yield from _broken(law, self.sampled, _goes_back(self.sampled, self.cells) & self.sampled.wrong)
            case "moments":
                yield from self._moments()
            case "frequencies":
                yield from self._frequencies()
            case "repeatable":
                yield from self._unlike()
            case "inputs kept" | "results kept":
                watch = self.task.watch
                says = watch.overwrites if law == "inputs kept" else watch.recycles
                if says:
                    yield Broken(law, 1, 1, None, np.empty(0, np.intp), 0, says)

    def _ask(self, at: Indices, words: NDArray[Any] | None, base: Base | None = None) -> Seen:
        seen = ask(base or self.base, at, words)
        self.pool.append(seen)
        return seen

    @functools.cached_property
    def main(self) -> list[Seen]:
        """All inputs: each with the words around the one at which it turns, with the lowest and the highest."""
        task, every = self.task, np.arange(len(self.base))
        if task.unknown:
            return [self._ask(every, None) for _ in range(REPEATS)]
        if not task.mode.stochastic:
            found = [self._ask(every, None)]
        else:
            words = turning_words(task.n, self.base.expected.first_word, ends=len(every) <= MANY)
            found = [self._ask(every, each) for each in words]
        self.again = [ask(found[0].base, found[0].at, found[0].words)]
        return found

    def _unlike(self) -> Iterator[Broken]:
        """Yield the answers that are not those to the same question before, signs of zeros aside: asked at once, and last."""
        seen, task = self.main[0], self.task
        for again in (*self.again, ask(seen.base, seen.at, seen.words)):
            other = (again.value != seen.value) & ~(np.isnan(again.value) & np.isnan(seen.value))
            if other.any():
                i = int(np.flatnonzero(other)[0])
                same = "with the same random word" if task.words else f"though {task.mode} takes no random words"
                says = (
                    f"{number(seen.base.exact[seen.at[i]].item())} became {number(seen.value[i].item())}, and, asked again, "
                    f"{number(again.value[i].item())}, {same}: {task.name} keeps a state, or draws words of its own"
                )
                yield Broken("repeatable", int(other.sum()), len(seen), None, np.flatnonzero(other), len(seen), says)
                return

    @functools.cached_property
    def shared(self) -> list[Seen]:
        """All inputs in ascending order with one word for all, for some words; the whole of it for a deterministic mode."""
        task, every = self.task, np.arange(len(self.base))
        if not task.mode.stochastic:
            return self.main
        if len(every) > MANY:  # as many from either side of zero, for the symmetry
            half = spread(np.arange(self.numbers // 2), MANY // 4)
            every = np.concatenate([half, (self.numbers - 1 - half)[::-1]])
        whole = 1 << task.n
        words = sorted({0, whole // 2, max(whole // 2 - 1, 0), whole // 3, whole - 1})
        return [self._ask(every, filled(task.n, len(every), word)) for word in words]

    def _again(self) -> Iterator[Seen]:
        """Round the results again, as far as they are values of the format and numbers of the input's type."""
        task = self.task
        values = np.unique(np.concatenate([np.unique(seen.value) for seen in self.main]))
        values = values[np.isfinite(values)]
        with np.errstate(over="ignore", under="ignore"):
            x = values.astype(task.dtype)
        base = Base(task, x[exactly(x) == values])
        fixed = np.flatnonzero(base.on_grid & (base.inner == base.exact))
        if not task.words:
            yield self._ask(fixed, None, base)
            return
        for word in sorted({0, (1 << task.n) - 1}):
            yield self._ask(fixed, filled(task.n, len(fixed), word), base)

    def _short(self) -> Iterator[tuple[Seen, Flags]]:
        """Round ordinary numbers in short arrays, and yield where the answers differ from those in the long one.

        Only wrong answers count: with unknown words two right ones may differ, and the long array's have laws of their own.
        """
        base, long = self.base, self.main[0]
        between = np.flatnonzero(base.within & ~base.on_grid & (base.inner != base.outer))
        chosen = spread(between, max(LENGTHS))
        for length in LENGTHS if len(chosen) else ():
            at = np.resize(np.roll(chosen, -length), length)
            seen = ask(base, at, None if long.words is None else long.words[at])  # not for the pool: asked before
            before = long.value[at]
            same = (seen.value == before) | (np.isnan(seen.value) & np.isnan(before))
            yield seen, seen.wrong if self.task.unknown else seen.wrong & ~same

    # --- Words -------------------------------------------------------------------------------------------------------

    @functools.cached_property
    def cells(self) -> Indices:
        """A choice of inputs within the range: three of four between two values, the others values themselves."""
        base = self.base
        between = np.flatnonzero(base.within & ~base.on_grid & (base.inner != base.outer))
        most = MOST_CELLS if self.task.n <= MOST_ENUMERATED else MOST_CELLS // 4
        return np.sort(
            np.concatenate([spread(between, most - most // 4), spread(np.flatnonzero(base.on_grid), most // 4)])
        )

    @functools.cached_property
    def sampled(self) -> Seen:
        """The cells, one after another, each with words in ascending order: of few and of many bits, drawn, at the turn."""
        task, cells = self.task, self.cells
        n, last = task.n, (1 << task.n) - 1
        rng = np.random.Generator(np.random.PCG64([task.seed, 1]))
        bits = [1 << k for k in range(n)]
        drawn = [int.from_bytes(rng.bytes(8), "little") >> (64 - n) for _ in range(16)] if n else []
        chosen = {0, last, *bits, *(last ^ bit for bit in bits), *(bit - 1 for bit in bits), *drawn}
        near = turning_words(n, self.base.expected.first_word[cells], ends=False)
        words = np.sort(np.stack([*(filled(n, len(cells), word) for word in chosen), *near]), axis=0)
        return self._ask(np.repeat(cells, len(words)), words.T.reshape(-1))

    def _moments(self) -> Iterator[Broken]:
        """Count, cell by cell, the words that lead to either neighbour."""
        task, base = self.task, self.base
        if task.n > MOST_ENUMERATED:
            self.notes.append(
                f"moments: 2^{task.n} words are too many; they follow from the word at which a number turns"
            )
            return
        whole = 1 << task.n
        cells = spread(self.cells, max(ENUMERATED // whole, 16))
        seen = self._ask(np.repeat(cells, whole), np.tile(np.arange(whole), len(cells)))
        value = seen.value.reshape(len(cells), whole)
        inner, outer = base.inner[cells], base.outer[cells]
        apart = inner != outer
        up = ((value == outer[:, None]) & apart[:, None]).sum(1)
        down = (value == inner[:, None]).sum(1)
        off = (up != np.where(apart, whole - base.expected.first_word[cells], 0)) | (up + down != whole)
        yield from _broken("moments", seen, np.repeat(off, whole) & seen.wrong, count=int(off.sum()), of=len(cells))
        self.notes.append(f"moments: all 2^{task.n} words of {len(cells):,} cells")
        here = np.flatnonzero(apart & np.isfinite(inner) & np.isfinite(outer))
        results = [
            dict(zip(*(part.tolist() for part in np.unique(row, return_counts=True)), strict=True))
            for row in value[here]
        ]
        self.moments = self._counted(cells[here], results, f"all 2^{task.n} words of each")

    def turned(self) -> Moments | None:
        """Return the moments of words too many to try, from the first one with which each cell goes away from zero.

        It is found by halving; so they are exact where no greater word sends a number back.
        """
        task, base = self.task, self.base
        cells = self.cells[(base.inner != base.outer)[self.cells] & np.isfinite(base.outer[self.cells])]
        low = filled(task.n, len(cells), 0)
        high = filled(task.n, len(cells), 1 << task.n)
        for _ in range(task.n + 1):
            open_ = np.asarray(low < high).astype(bool)
            middle = np.where(open_, (low + high) // 2, 0)
            goes = ask(base, cells, middle).value == base.outer[cells]
            high, low = np.where(open_ & goes, middle, high), np.where(open_ & ~goes, middle + 1, low)
        whole = 1 << task.n
        results = [
            {inner: int(first), outer: whole - int(first)}
            for inner, outer, first in zip(base.inner[cells].tolist(), base.outer[cells].tolist(), low, strict=True)
        ]
        return self._counted(
            cells, results, "the word at which each turns, since no greater one was seen to turn it back"
        )

    def _counted(self, cells: Indices, results: list[dict[float, int]], says: str) -> Moments | None:
        base, whole = self.base, 1 << self.task.n
        if not len(cells):
            return None
        x = base.exact[cells]
        nu = [self.task.fmt.split(Fraction(v))[1] for v in base.entering[cells].tolist()]
        away = [whole - int(first) for first in base.expected.first_word[cells]]
        return count_cells(x, nu, (base.inner[cells], base.outer[cells]), results, away, whole, says)

    # --- Frequencies -------------------------------------------------------------------------------------------------

    @functools.cached_property
    def outcomes(self) -> Outcomes:
        """The answers of each call for the numbers with two outcomes."""
        base, whole = self.base, 1 << self.task.n
        p = np.asarray((whole - base.expected.first_word) / whole, np.float64)
        free = np.flatnonzero((p > 0) & (p < 1) & base.within & (base.inner != base.outer))
        away = np.array([seen.value[free] == base.outer[free] for seen in self.main])
        return Outcomes(free, p[free], np.signbit(base.exact[free]), away)

    def _frequencies(self) -> Iterator[Broken]:
        """Count, in each call, how many numbers of about the same probability, and of one sign, go away from zero.

        Only the numbers of one call are taken for independent: a quantizer may take the same words in every call.
        """
        seen = self.outcomes
        if not len(seen.free):
            return
        least, at = seen.alarm(seen.p)
        if least > math.log(FALSE_ALARMS):
            return
        ups, n, p = at
        says = (
            f"of {n:,} numbers that go away from zero with a probability of about {p:.3g}, {ups:,} did in one call, "
            f"{n * p:,.1f} are expected{by_chance(least)}"
        )
        yield Broken("frequencies", 1, 1, None, np.empty(0, np.intp), 0, says)

    @functools.cached_property
    def likenesses(self) -> list[str]:
        """Return the roundings that go away from zero as often as was seen."""
        seen, base = self.outcomes.some(COMPARED), self.base
        if not len(seen.free):
            return []
        calls = np.full(len(seen.free), float(len(seen.away)))
        return as_if(
            self.task, base.entering[seen.free], seen.away.sum(0).astype(np.float64), calls, np.ones(len(calls), bool),
            lambda p: seen.alarm(p)[0] > math.log(FALSE_ALARMS), FALSE_ALARMS,
        )  # fmt: skip


@dataclass(frozen=True, slots=True)
class Outcomes:
    """Hold which of some numbers went away from zero in each of several calls."""

    free: Indices
    #: Their probabilities by the mode, and their signs.
    p: NDArray[np.float64]
    negative: Flags
    #: A row for each call.
    away: Flags

    def some(self, most: int) -> Outcomes:
        """Return the outcomes of at most so many of the numbers."""
        i = spread(np.arange(len(self.free)), most)
        return Outcomes(self.free[i], self.p[i], self.negative[i], self.away[:, i])

    def alarm(self, p: NDArray[np.float64]) -> tuple[float, tuple[int, int, float]]:
        """Return a bound on ln P of the least likely count of a group, for all groups and calls together, and the count.

        The groups are those of the mode's probabilities; the numbers have the probabilities `p`. For independent outcomes of
        the mean probability p the bound of `chernoff` holds, too (Hoeffding 1963, theorem 1).
        """
        group = np.digitize(self.p, BINS) * 2 + self.negative
        n = np.bincount(group)
        kept = n > 0
        n = n[kept].astype(np.float64)
        mean = np.bincount(group, p)[kept] / n
        ups = np.array([np.bincount(group, row)[kept] for row in self.away.astype(np.float64)])
        logs = chernoff(ups, n, np.broadcast_to(mean, ups.shape)) + math.log(ups.size)
        call, worst = np.unravel_index(int(np.argmin(logs)), logs.shape)
        return float(logs[call, worst]), (int(ups[call, worst]), int(n[worst]), float(mean[worst]))


def _fractions(task: Task) -> tuple[Fraction, ...]:
    """Return the fractions of an interval, from the lesser end, at which results turn, 0 and 1/2 among them.

    Of formats of up to 8 bits some more: the quarters, and near the ends of an interval the multiples of 2^-(N+1), where
    StochasticA, B and C begin to differ.
    """
    found = {Fraction(0), Fraction(1, 2)}
    if task.eps:
        found |= {Fraction(task.eps), 1 - Fraction(task.eps)}
    if task.fmt.bits <= 8:
        found |= {Fraction(1, 4), Fraction(3, 4)}
        steps = [Fraction(k, 2 << task.n) for k in (1, 2, 3, 4) if task.mode in LIMITED or task.mode is Mode.SR]
        found |= {share for step in steps if task.n <= 24 for share in (step, 1 - step) if share < 1}
    return tuple(sorted(found))


def _further(task: Task, fractions: tuple[Fraction, ...]) -> tuple[float, ...]:
    """Return the points at which results turn that are no such fractions of an interval."""
    fmt = task.fmt
    if isinstance(fmt, Table):
        return fmt.thresholds if task.mode.nearest else ()
    if task.ftz_out != "after" or not isinstance(fmt, Grid) or fmt.even:
        return ()
    below = fmt.below_normal
    step = fmt.value(fmt.first_normal) - below
    return tuple(sign * float(below + share * step) for share in fractions for sign in (-1, 1))


def _broken(
    law: str, seen: Seen, failed: Flags, here: Flags | None = None, *, count: int | None = None, of: int | None = None
) -> Iterator[Broken]:
    """Yield a violation where `failed`, of the elements looked at, by default all; none if nothing failed."""
    if failed.any():
        total = len(seen) if here is None else int(here.sum())
        yield Broken(law, int(failed.sum()) if count is None else count, total if of is None else of, seen.pick(failed),
                     np.flatnonzero(failed), len(seen))  # fmt: skip


def _falls(seen: Seen) -> Flags:
    """Return the pairs of neighbouring inputs of which the lesser one became greater; NaNs aside."""
    inputs = seen.base.exact[seen.at]
    order = np.flatnonzero(~np.isnan(inputs) & ~np.isnan(seen.value) & ~np.isnan(seen.want))
    want = seen.want[order]
    if np.any(want[1:] < want[:-1]):  # wrapping around, or 0 in a format without it: only within the range it holds
        order = order[seen.base.within[seen.at[order]]]
    value, found = seen.value[order], np.zeros(len(seen), bool)
    falls = np.flatnonzero(value[1:] < value[:-1])
    found[order[falls]] = found[order[falls + 1]] = True
    return found


def _asymmetric(seen: Seen) -> Flags:
    """Return the numbers x for which the answer to -x should be the negative of that to x, and is not."""
    count = int((~np.isnan(seen.base.exact[seen.at])).sum())  # NaNs come last
    value, want, found = seen.value[:count], seen.want[:count], np.zeros(len(seen), bool)
    found[:count] = (want == -want[::-1]) & (value != -value[::-1])
    return found


def _goes_back(seen: Seen, cells: Indices) -> Flags:
    """Return the cells in which some word goes away from zero, and a greater one does not."""
    inner, outer = seen.base.inner[seen.at], seen.base.outer[seen.at]
    gone = ((seen.value == outer) & (inner != outer)).reshape(len(cells), -1)
    back = np.maximum.accumulate(gone, axis=1) & ~gone
    return np.repeat(back.any(axis=1), gone.shape[1])
