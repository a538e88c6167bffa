"""What a refuted quantizer did wrong: the first failure made simple, and the faults that give all the answers seen."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from qsim.errors import enumerate_names
from qsim.explain.case import Case
from qsim.explain.faults import Rule, Turning, faults
from qsim.explain.picture import LABEL, WIDTH, Explanation, number, of_case
from qsim.explain.search import consistent, explaining, plainest
from qsim.testing.inputs import exactly
from qsim.testing.laws import LENGTHS, MOST_ENUMERATED, Broken, spread
from qsim.testing.observe import Base, Flags, Indices, Seen, Task, ask, filled, turning_words

__all__ = ["report", "shrink"]

ROUNDS = 200
"""Steps of shrinking; each makes the case strictly simpler, and few need more than ten."""

WRONG, RIGHT = 48, 64
"""How many wrong and how many right answers a fault is tried on first."""

MOST = 0.75
"""The share of the wrong answers that a fault must give to be told though it does not give all."""

LOOKED = 1 << 14
"""Right answers that a fault is held against one by one."""

TRIES = 12
"""Faults that are held against all answers, to be told as parts."""


def report(task: Task, broken: Sequence[Broken], pool: Sequence[Seen]) -> str:
    """Return the simplest failure of the first broken law, explained, and which laws are broken how often."""
    law, signs = broken[0].law, "sign of zero" in task.laws
    failures = [found.seen for found in broken if found.law == law]
    alone = [seen for seen in _simplest(failures) if task.unknown or _alone(law, seen) is not None]
    if alone:
        seen = shrink(task, law, alone[0])
        seen = seen if task.unknown else _alone(law, seen) or alone[0]
        case = seen.case(0, signs=signs)
        faults, note = _causes(case, pool, signs=signs) if law != "lengths" else ([_tails(broken)], "")
    else:
        seen = _simplest(failures)[0]
        case = seen.case(0, signs=signs)
        faults = [_tails(broken)] if law == "lengths" else _lanes(pool)
        note = "alone, in an array of one number, it is right"
    explanation = of_case(case, tuple(faults))
    word = seen.word(0)
    drawn = "" if word is None else f" with the word {word} of {task.n} bits"
    counts: dict[str, tuple[int, int]] = {}
    for found in broken:
        failed, of = counts.get(found.law, (0, 0))
        counts[found.law] = (failed + found.count, of + found.of)
    laws = ", ".join(f"{name} ({failed:,} of {of:,})" for name, (failed, of) in counts.items())
    lines = [f"{law}: {number(case.x)}{drawn} becomes {_became(seen)}, it should be {_owed(task, explanation)}"]
    if alone:
        lines.append(f"reproduce: {_call(task, seen.base.x[seen.at[0]], word)}")
    lines += [
        "",
        str(explanation),
        *textwrap.wrap(note, WIDTH, initial_indent=" " * LABEL, subsequent_indent=" " * LABEL),
        "",
        *textwrap.wrap(f"laws broken: {laws}", WIDTH, subsequent_indent=" " * LABEL),
    ]
    counted = task.words and "moments" in task.laws and task.n <= MOST_ENUMERATED
    if alone and counted and "words" in counts and "moments" not in counts:
        lines.append(
            "as many words go away from zero as should, so bias and variance are right; but they are other words"
        )
    return "\n".join(lines)


def _became(seen: Seen) -> str:
    value = number(seen.value[0].item())
    return value if seen.code is None else f"code {seen.code[0]:#x} ({value})"


def _owed(task: Task, e: Explanation) -> str:
    """Return what should have come out, as the quantizer would have said it."""
    if e.code is None:
        return enumerate_names(number(end.value) for end in (e.inner, e.outer) if end)
    value = "beyond float64" if e.value is None else number(e.value)
    return f"code {e.code:#x} ({value})" if task.codes else value


def _call(task: Task, x: Any, word: int | None) -> str:
    """Return the call that shows the failure, as one line of Python."""
    kind = "ml_dtypes.bfloat16" if task.dtype.name == "bfloat16" else f"np.{task.dtype}"
    value, bits = float(x), 8 * task.dtype.itemsize
    array = f"np.array([{value!r}], {kind})"
    if not math.isfinite(value):
        array = f"np.array([{int(np.asarray(x).view(f'u{bits // 8}')):#x}], np.uint{bits}).view({kind})"
    drawn = "" if word is None else f", rbits=np.array([{word}], np.{task.word_type.__name__})"
    return f"{task.name}({array}{drawn})"


# --- Made simple -----------------------------------------------------------------------------------------------------


def shrink(task: Task, law: str, failure: Seen) -> Seen:
    """Return a wrong conversion that breaks `law` as `failure` does, the simplest to be found: few bits, a small word."""
    best = failure
    for _ in range(ROUNDS):
        simpler = _simpler(task, law, best)
        if simpler is None:
            break
        best = simpler
    return best


def _simplest(failures: Sequence[Seen]) -> list[Seen]:
    """Return a few wrong conversions, the simplest first."""
    every = [(seen, i) for seen in failures for i in spread(np.arange(len(seen)), 256).tolist()]
    return [seen.pick(np.array([i])) for seen, i in sorted(every, key=lambda pair: _simplicity(*pair))[:8]]


def _alone(law: str, seen: Seen) -> Seen | None:
    """Return what becomes of the one number of `seen` in an array of its own; `None` where it is right there."""
    again = ask(Base(seen.base.task, seen.base.x[seen.at]), np.arange(1), seen.words)
    return again if _breaks(law, again).any() else None


def _simpler(task: Task, law: str, seen: Seen) -> Seen | None:
    """Return the simplest conversion next to `seen` that is simpler, and wrong in the domain of the law; or `None`."""
    x = _candidates(seen.base.x[seen.at[0]])
    base, at, words = Base(task, x), np.arange(len(x)), None
    if task.words:
        tried = [filled(task.n, len(x), word) for word in _simpler_words(seen.word(0) or 0, task.n)]
        tried += turning_words(task.n, base.expected.first_word)
        at, words = np.tile(at, len(tried)), np.concatenate(tried)
    found = ask(base, at, words)
    keys = [(_simplicity(found, i), i) for i in np.flatnonzero(_breaks(law, found)).tolist()]
    least = min(keys, default=None)
    if least is None or least[0] >= _simplicity(seen, 0):
        return None
    return found.pick(np.array([least[1]]))


def _breaks(law: str, seen: Seen) -> Flags:
    """Return which conversions are wrong, and in the domain of the law; of laws about pairs, anywhere."""
    base, at = seen.base, seen.at
    match law:
        case "sign of zero":
            return seen.wrong_zero
        case "neighbours":
            return np.asarray(seen.wrong & base.within[at] & ~seen.neighbour)
        case "fixed points":
            return np.asarray(seen.wrong & base.on_grid[at])
        case "specials":
            return np.asarray(seen.wrong & base.special[at])
        case "saturation":
            return np.asarray(seen.wrong & base.beyond[at])
        case "subnormals":
            return np.asarray(seen.wrong & base.low[at])
        case "monotone" | "symmetric" | "idempotent":
            return seen.wrong
        case _:
            return np.asarray(seen.wrong & base.within[at])


def _pattern(x: Any) -> int:
    array = np.asarray(x)
    return int(array.view(f"u{array.dtype.itemsize}"))


def _simplicity(seen: Seen, i: int) -> tuple[Any, ...]:
    """Return a key that is the less the simpler a conversion is."""
    x = seen.base.x[seen.at[i]]
    value, word = float(x), seen.word(i) or 0
    if not math.isfinite(value):
        return (math.isnan(value), math.isinf(value), _pattern(x).bit_count(), _pattern(x), 0, word.bit_count(), word)
    if not value:
        return (False, False, 0, 0, 0, word.bit_count(), word, _pattern(x) > 0)
    top, bottom = abs(value).as_integer_ratio()
    odd = top // (top & -top)
    exponent = top.bit_length() - bottom.bit_length()
    return (False, False, odd.bit_length(), abs(exponent), odd, word.bit_count(), word, value < 0)


def _candidates(x: Any) -> NDArray[Any]:
    """Return numbers of the type of `x` next to it in simplicity: of fewer bits, of an exponent nearer to 0, of either sign."""
    dtype, value = np.asarray(x).dtype, float(x)
    if not value:
        return np.array([0.0, -0.0]).astype(dtype)
    if not math.isfinite(value):
        patterns = [_pattern(x) & ~(1 << bit) for bit in range(8 * dtype.itemsize)]
        found = np.array([_pattern(x), *patterns], f"u{dtype.itemsize}").view(dtype)
        exact = exactly(found)
        return np.asarray(found[(np.isnan(exact) == math.isnan(value)) & (np.isinf(exact) == math.isinf(value))])
    mantissa, exponent = math.frexp(abs(value))
    m = int(mantissa * 2**53)
    low = (m & -m).bit_length() - 1
    cut = [m & ~((1 << k) - 1) for k in range(low, 53)]
    raised = [(m & (m - 1)) | 1 << k for k in range(low, 53)]
    holed = [m & ~(1 << k) for k in range(low, 52)]
    moved = {exponent, 1, 0, exponent - 1, exponent + 1, exponent // 2}
    sizes = [math.ldexp(bits, e - 53) for bits in {m, *cut, *raised, *holed} for e in (exponent, 1)]
    sizes += [math.ldexp(m, e - 53) for e in moved]
    with np.errstate(over="ignore", under="ignore"):
        near = np.array([size for size in sizes if size]).astype(dtype)
    both = np.unique(np.concatenate([near, -near]))
    zeros = np.array([0.0, -0.0]).astype(dtype)  # np.unique takes them for one
    return np.concatenate([zeros, both[np.isfinite(exactly(both)) & (exactly(both) != 0)]])


def _simpler_words(word: int, n: int) -> list[int]:
    """Return words with fewer bits set than `word`, or smaller ones, and itself."""
    found = {word, 0, word >> 1, word & (word - 1) if word else 0, max(word - 1, 0), 1 << word.bit_length() >> 1}
    return sorted(found | ({word & ~(1 << k) for k in range(n)} if n <= MOST_ENUMERATED else set()))


# --- One by one, or together -----------------------------------------------------------------------------------------

LANES: Mapping[str, Callable[[Indices], Indices]] = {
    "every element takes the word of the first one": lambda i: 0 * i,
    "every element takes the word of the last one": lambda i: 0 * i + len(i) - 1,
    "an element takes the word of the next one": lambda i: np.minimum(i + 1, len(i) - 1),
    "an element takes the word of the one before it": lambda i: np.maximum(i - 1, 0),
    "the elements of a pair change words": lambda i: np.minimum(i ^ 1, len(i) - 1),
    "the elements of a pair share the word of the first": lambda i: i & ~1,
    "the elements of a pair share the word of the second": lambda i: np.minimum(i | 1, len(i) - 1),
    "four elements share the word of the first": lambda i: i & ~3,
    "eight elements share the word of the first": lambda i: i & ~7,
    "32 elements share the word of the first": lambda i: i & ~31,
    "the words are taken from the last to the first": lambda i: len(i) - 1 - i,
}
"""The ways to give words to the wrong elements: from the number of an element to that of its word."""


def _lanes(pool: Sequence[Seen]) -> list[str]:
    """Return which elements' words explain all answers, the ends of arrays aside; or that the elements are not independent."""
    asked = [seen for seen in pool if seen.words is not None and len(seen) > 1]
    found = [name for name, word_of in LANES.items() if asked and all(_with_words(seen, word_of) for seen in asked)]
    alike = _alike([np.flatnonzero(seen.wrong) for seen in pool if seen.wrong.any()])
    return found or [f"the answer depends on the other elements of the array, or on what was asked before{alike}"]


def _alike(where: Sequence[Indices]) -> str:
    """Return what the indices of all wrong elements have in common: their rest modulo the greatest power of two."""
    every = np.concatenate([np.empty(0, np.intp), *where])
    for modulus in (64, 32, 16, 8, 4, 2):
        rests = np.unique(every % modulus)
        if len(rests) == 1:
            return f"; wrong are only elements i with i modulo {modulus} = {rests[0]}"
    return ""


def _tails(broken: Sequence[Broken]) -> str:
    """Return at which elements of short arrays the answers are not those of the long array."""
    short = [found for found in broken if found.law == "lengths"]
    failed = {found.length for found in short}
    for width in (2, 4, 8, 16, 32):
        rests = {length for length in LENGTHS if length % width}
        # Some of the last elements may be right by chance.
        if (
            failed <= rests
            and 2 * len(failed) > len(rests)
            and all((found.where >= found.length // width * width).all() for found in short)
        ):
            return (
                f"of n elements the last n modulo {width}, after the last full group of {width}, are treated otherwise"
            )
    if max(failed) < max(LENGTHS):
        return f"arrays of up to {max(failed)} elements are treated otherwise than longer ones"
    listed = ", ".join(map(str, sorted(failed)))
    return f"the answer depends on the length of the array: it is wrong at the lengths {listed}, right in a long one"


def _with_words(seen: Seen, word_of: Callable[[Indices], Indices]) -> bool:
    """Return whether each number of an array was rounded with the word of another one, but for the last eight."""
    assert seen.words is not None  # of arrays with words only
    base, at = seen.base, seen.at
    away = (base.expected.first_word[at] <= seen.words[word_of(np.arange(len(seen)))]).astype(bool)
    due = np.where(away, base.outer[at], base.inner[at])
    return bool(((seen.value == due) | np.isnan(due) | base.refused[at])[: max(len(seen) - 8, 1)].all())


# --- Explained -------------------------------------------------------------------------------------------------------


def _causes(first: Case, pool: Sequence[Seen], *, signs: bool) -> tuple[list[str], str]:
    """Return the faults that give the wrong answers, and a sentence that says how far they reach.

    A cause gives every answer of the run, the wrong ones and the right ones. A choice of them says which faults may be one;
    these are held against all. Where no one fault is left, those are told that give most of the wrong answers, or few that
    give all of them together, and none of which would have broken a right one.
    """
    wrong, right = [first, *_some(pool, WRONG, wrong=True, signs=signs)], []
    known = first.rbits is not None  # else an answer may be right by the luck of its word
    if known:
        right = _some(pool, RIGHT, wrong=False, signs=signs)
    table = {name: given for name, given in explaining(wrong).items() if any(given)}
    honest = consistent(table, right)
    answers = Answers(pool, signs=signs, right=known)
    whole = [name for name in honest if all(table[name])]
    plain = plainest(whole)
    names = answers.giving(plain) or plainest(answers.giving([name for name in whole if name not in plain]))
    if names:
        return names, f"{'each of these' if len(names) > 1 else 'this'} gives all {answers.says(names[0])}"
    parts = _parts({name: table[name] for name in honest}, answers)
    note = f"no known fault gives all {answers.wrong:,} wrong answers of the run and none of the right ones another way"
    if not parts or not any(table[name][0] for name in parts):  # what does not give the answer shown would mislead
        return [], note
    left = answers.wrong - len(set().union(*parts.values()))
    rest = f", and {left:,} of the wrong ones are given by none of these" if left else ", but these together do"
    return [
        f"in part: {name} ({len(given):,} of {answers.wrong:,} wrong answers)" for name, given in parts.items()
    ], note + rest


def _parts(table: Mapping[str, Sequence[bool]], answers: Answers) -> dict[str, set[int]]:
    """Return the faults that give `MOST` of the wrong answers, or up to three that give all of them together."""
    found: dict[str, set[int]] = {}
    left = set(range(len(next(iter(table.values()), ()))))
    every = set(range(answers.wrong))
    candidates, tries = dict(table), 0
    while left and candidates and len(found) < 3 and tries < TRIES:
        name = max(candidates, key=lambda fault: sum(table[fault][i] for i in left))
        row = candidates.pop(name)
        given = {i for i in left if row[i]}
        if not given:
            break
        tries += 1
        if answers.breaks(name):
            continue
        found[name], left = answers.given(name), left - given
    if set().union(*found.values()) != every:
        found = {name: given for name, given in found.items() if len(given) >= MOST * answers.wrong}
    return found


class Answers:
    """Hold a fault against all answers of a run: the wrong ones first, of which the first is enough to rule most out.

    Of a fault that is `Turning` whole groups are looked at at once: conversions within the range of one fraction, parity, sign
    and word. Elsewhere up to `LOOKED` right answers, and twice as many wrong ones, are.
    """

    def __init__(self, pool: Sequence[Seen], *, signs: bool, right: bool) -> None:
        self._pool, self._signs = pool, signs
        self._bad = [seen.wrong | (seen.wrong_zero & signs) for seen in pool]
        self._good = [~bad & ~seen.base.refused[seen.at] & right for bad, seen in zip(self._bad, pool, strict=True)]
        self._looked: dict[str, int] = {}
        self.wrong, self.right = (sum(int(mask.sum()) for mask in masks) for masks in (self._bad, self._good))

    def says(self, name: str) -> str:
        """Say what a fault was held against, and found to give."""
        if not self.right:
            return f"{self.wrong:,} wrong answers of the run"
        looked = self._looked[name]
        some = f"{looked:,} of the " if looked < self.right else ""
        return f"{self.wrong:,} wrong and {some}{self.right:,} right answers of the run"

    def giving(self, names: Sequence[str]) -> list[str]:
        """Return those of the named faults that give every answer."""
        return [
            name
            for name in names
            if all(given.all() for given in self._given(name, wrong=True)) and not self.breaks(name)
        ]

    def given(self, name: str) -> set[int]:
        """Return which of the wrong answers a fault gives."""
        return set(np.flatnonzero(np.concatenate(list(self._given(name, wrong=True)))).tolist())

    def breaks(self, name: str) -> bool:
        """Return whether a fault would have made a right answer wrong."""
        self._looked[name] = 0
        for given in self._given(name, wrong=False):
            if not given.all():
                return True
            self._looked[name] += len(given)
        return False

    def _given(self, name: str, *, wrong: bool) -> Iterator[Flags]:
        """Yield, for runs of the wrong or of the right answers, which a fault gives."""
        masks = self._bad if wrong else self._good
        runs = [(seen, np.flatnonzero(mask)) for seen, mask in zip(self._pool, masks, strict=True) if mask.any()]
        single: list[tuple[Seen, Indices]] = []
        rule: Rule | None = None
        for seen, chosen in runs:
            rule = faults(seen.case(int(chosen[0]), signs=self._signs))[name]
            inside = seen.base.within[seen.at[chosen]] & isinstance(rule, Turning) & (not seen.base.task.unknown)
            if isinstance(rule, Turning) and inside.any():
                yield self._by_groups(rule, seen, chosen[inside], len(chosen) if wrong else LOOKED)
            single.append((seen, chosen[~inside]))
        most = LOOKED << 1 if wrong else LOOKED >> 3 * isinstance(rule, Turning)
        share = min(most / max(sum(len(chosen) for _, chosen in single), 1), 1)
        for seen, chosen in single:
            assert rule is not None  # found above
            yield from self._one_by_one(rule, seen, spread(chosen, math.ceil(share * len(chosen))))

    def _one_by_one(self, rule: Rule, seen: Seen, chosen: Indices) -> Iterator[Flags]:
        for views in seen.views(chosen, signs=self._signs):
            yield np.array([any(view.case.is_answer(rule(view)) for view in views)])

    def _by_groups(self, rule: Turning, seen: Seen, here: Indices, most: int) -> Flags:
        """Ask a fault once for each fraction, parity, sign and word, but for no more than `most` of these."""
        base, at = seen.base, seen.at[here]
        places = base.expected.places
        # Of a fraction of more than 64 bits each number is a group of its own.
        own = np.where(places.more, 1 + np.arange(len(base)), 0)
        keys = np.stack([np.asarray(part, np.uint64) for part in (places.word, own, places.odd, places.negative)])
        _, key = np.unique(keys, axis=1, return_inverse=True)
        drawn = np.zeros(len(here), np.int64) if seen.words is None else seen.words[here]
        words, word = np.unique(drawn, return_inverse=True)
        if rule.word is not None:
            taken = np.array([rule.word(int(each)) for each in words], words.dtype)[word]
            if rule.negative is not None:
                taken = np.where(places.negative[at] == rule.negative, taken, drawn)
            away = (base.expected.first_word[at] <= taken).astype(bool)
        else:
            _, first, back = np.unique(key.reshape(-1)[at] * len(words) + word, return_index=True, return_inverse=True)
            some = spread(np.arange(len(first)), most)
            way = np.zeros(len(first), bool)
            way[some] = [rule.decide(views[0]) for views in seen.views(here[first[some]], signs=self._signs)]
            looked = np.isin(back, some)
            here, at, away = here[looked], at[looked], way[back[looked]]
        due = np.where(away, base.outer[at], base.inner[at])
        return np.asarray((seen.value[here] == due) & ~(seen.wrong_zero[here] & self._signs))


def _some(pool: Sequence[Seen], most: int, *, wrong: bool, signs: bool) -> list[Case]:
    """Return conversions of every kind: wrong ones, or right ones next to the wrong ones and elsewhere."""
    found: list[tuple[Seen, int]] = []
    for seen in pool:
        bad = seen.wrong | (seen.wrong_zero & signs)
        wanted = bad if wrong else ~bad & ~seen.base.refused[seen.at]
        masks = [wanted & kind for kind in _kinds(seen)]
        if not wrong:
            close = np.zeros(len(seen), bool)
            for offset in (-2, -1, 1, 2):
                close[np.clip(np.flatnonzero(bad) + offset, 0, len(seen) - 1)] = True
            masks.append(wanted & close)
        share = max(2 * most // (len(masks) * len(pool)), 1)
        found += [(seen, i) for mask in masks for i in spread(np.flatnonzero(mask), share).tolist()]
    chosen = spread(np.arange(len(found)), most).tolist()
    return [found[i][0].case(found[i][1], signs=signs) for i in chosen]


def _kinds(seen: Seen) -> list[Flags]:
    """Return masks of the kinds of inputs that faults tell apart: by size, by sign, ties by the parity of their neighbours."""
    base, at = seen.base, seen.at
    places = base.expected.places
    tie = (places.word == 1 << 63) & ~places.more & base.within
    normal = base.within & ~base.low & ~tie
    sizes = [
        base.fine & base.within,
        normal & ~base.on_grid,
        tie & places.odd,
        tie & ~places.odd,
        base.low & ~tie,
        base.on_grid,
        base.beyond,
        base.special,
    ]
    negative = np.signbit(base.exact)
    return [(size & (negative == sign))[at] for size in sizes for sign in (False, True)]
