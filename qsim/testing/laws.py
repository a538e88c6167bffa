"""The laws of rounding, each a question to what a quantizer made of many numbers."""

from __future__ import annotations

import functools
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import numpy as np
from numpy.typing import NDArray

from qsim.errors import InputError
from qsim.formats import Grid, Table
from qsim.rounding import LIMITED, Mode
from qsim.testing.inputs import Inputs, exactly, make_inputs
from qsim.testing.observe import Base, Flags, Indices, Seen, Task, ask, filled, turning_words

__all__ = ["LAWS", "MOST_ENUMERATED", "OF_WORDS", "WITHOUT_WORDS", "Broken", "Trial", "spread"]

LAWS: Mapping[str, str] = {
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
}
"""The laws by name, in the order in which the first failure is sought."""

OF_WORDS = ("words", "word order", "moments")
"""The laws of stochastic modes."""

WITHOUT_WORDS = (
    "neighbours",
    "fixed points",
    "subnormals",
    "edges",
    "saturation",
    "specials",
    "sign of zero",
    "idempotent",
    "lengths",
)
"""The laws that a stochastic quantizer can be held to when nobody knows its random words."""

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

GOLDEN = (5**0.5 - 1) / 2

MOST_CELLS = 1024
"""The most cells whose words are counted or sampled."""


@dataclass(frozen=True, slots=True)
class Broken:
    """Say how often a law is broken, and hold wrong conversions that show it: every failure has one."""

    law: str
    count: int
    of: int
    seen: Seen
    #: At which elements of an array of which length.
    where: Indices
    length: int


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

    def broken(self, law: str) -> Iterator[Broken]:
        """Yield what breaks a law; nothing has a count of 0."""
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

    def _ask(self, at: Indices, words: NDArray[Any] | None, base: Base | None = None) -> Seen:
        seen = ask(base or self.base, at, words)
        self.pool.append(seen)
        return seen

    @functools.cached_property
    def main(self) -> list[Seen]:
        """All inputs: each with the words around the one at which it turns, with the lowest and the highest."""
        task, every = self.task, np.arange(len(self.base))
        if not task.mode.stochastic:
            seen = self._ask(every, None)
            self._same_again(seen)
            return [seen]
        if task.unknown:
            return [self._ask(every, None) for _ in range(REPEATS)]
        words = turning_words(task.n, self.base.expected.first_word, ends=len(every) <= MANY)
        found = [self._ask(every, each) for each in words]
        self._same_again(found[0])
        return found

    def _same_again(self, seen: Seen) -> None:
        """Raise `InputError` where the same question has another answer, signs of zeros aside."""
        again, task = ask(seen.base, seen.at, seen.words), self.task
        other = (again.value != seen.value) & ~(np.isnan(again.value) & np.isnan(seen.value))
        if other.any():
            i = int(np.flatnonzero(other)[0])
            same = "with the same random words" if task.words else f"{task.mode} takes no random words"
            raise InputError(
                f"{task.name} answered the same numbers differently: {float(seen.base.exact[seen.at[i]])!r} became "
                f"{float(seen.value[i])!r}, then {float(again.value[i])!r}; {same}"
            )

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
        """Yield what becomes of results, as far as they are values of the format and numbers of the input's type."""
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
        """Yield what becomes of ordinary numbers in short arrays, and where it is not what the long one made of them.

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
        biases = [bias(base, cell) for cell in cells[apart].tolist()]
        if biases:
            self.notes.append(
                f"moments: all 2^{task.n} words of {len(cells):,} cells; the exact bias of the mode there is "
                f"{_short(min(biases))} to {_short(max(biases))} of an interval"
            )


def bias(base: Base, i: int) -> Fraction:
    """Return the exact bias of the mode at the i-th number, in intervals, counted away from zero."""
    whole = 1 << base.task.n
    nu = base.task.fmt.split(Fraction(base.entering[i].item()))[1]
    return Fraction(whole - int(base.expected.first_word[i]), whole) - nu


def spread(indices: Indices, most: int) -> Indices:
    """Return at most `most` of `indices`: one of each of so many equal parts.

    Which one goes by multiples of the golden ratio: equal steps could be in step with the order of the inputs, in which
    each interval has the same fractions.
    """
    if len(indices) <= most:
        return indices
    part = np.arange(most)
    return indices[((part + part * GOLDEN % 1) * len(indices) / most).astype(np.intp)]


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
    """Yield what is broken where `failed`, of what was looked at, by default all; nothing where nothing failed."""
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
    """Return the numbers x of which -x did not become minus what x became, though it should."""
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


def _short(share: Fraction) -> str:
    return str(share) if share.denominator <= 1 << 20 else f"about {float(share):.3g}"
