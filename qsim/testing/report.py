"""The report on a refuted quantizer: the first failure made simple, and the faults that give all answers seen."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from qsim.errors import enumerate_names
from qsim.explain.case import Case
from qsim.explain.faults import faults
from qsim.explain.faults.directions import rounds_by
from qsim.explain.faults.words import FEW
from qsim.explain.lines import Lines, exactly, lines_of
from qsim.explain.picture import LABEL, WIDTH, Explanation, number, of_case
from qsim.explain.search import Judged, diagnose, gives, spread
from qsim.rounding import Mode
from qsim.testing.laws import LENGTHS, MOST_ENUMERATED, Broken, Trial
from qsim.testing.observe import Base, Flags, Indices, Seen, Task, ask, filled, turning_words

__all__ = ["report", "shrink"]

ROUNDS = 200
"""Steps of shrinking; each makes the case strictly simpler, and few need more than ten."""


def report(trial: Trial, broken: Sequence[Broken]) -> str:
    """Return the simplest failure of the first broken law, explained, and which laws are broken how often."""
    task = trial.task
    shown = [found for found in broken if found.seen is not None]
    told = []
    for found in broken:
        if found.seen is None:
            told.append(f"{found.law}: {found.says}")
            told += [f"as if: {words}" for words in trial.likenesses] if found.law == "frequencies" else []
    # What a quantizer answers now, and not again, has no cause in the number.
    lines = (
        told
        if not shown or broken[0].law == "repeatable"
        else [*_explained(trial, shown), *([""] if told else []), *told]
    )
    counts: dict[str, tuple[int, int]] = {}
    for found in broken:
        failed, of = counts.get(found.law, (0, 0))
        counts[found.law] = (failed + found.count, of + found.of)
    listed = ", ".join(f"{name} ({failed:,} of {of:,})" if of > 1 else name for name, (failed, of) in counts.items())
    lines = [*lines, "", *textwrap.wrap(f"laws broken: {listed}", WIDTH, subsequent_indent=" " * LABEL)]
    counted = task.words and "moments" in task.laws and task.n <= MOST_ENUMERATED
    if shown and counted and "words" in counts and "moments" not in counts:
        lines.append(
            "as many words go away from zero as should, so bias and variance are right; but they are other words"
        )
    return "\n".join(lines)


def _explained(trial: Trial, broken: Sequence[Broken]) -> list[str]:
    """Return the simplest failure of the first law that conversions break, with its causes."""
    task, pool = trial.task, trial.pool
    law, signs = broken[0].law, "sign of zero" in task.laws
    failures = [found.seen for found in broken if found.law == law and found.seen is not None]
    alone = [seen for seen in _simplest(failures) if task.unknown or _alone(law, seen) is not None]
    if alone:
        seen = shrink(task, law, alone[0])
        seen = seen if task.unknown else _alone(law, seen) or alone[0]
        case = seen.case(0, signs=signs)
        names, note = _causes(trial, case, signs=signs) if law != "lengths" else ([_tails(broken)], "")
    else:
        seen = _simplest(failures)[0]
        case = seen.case(0, signs=signs)
        names = [_tails(broken)] if law == "lengths" else _lanes(pool)
        note = "alone, in an array of one number, it is right"
    explanation = of_case(case, tuple(names))
    word = seen.word(0)
    drawn = "" if word is None else f" with the word {word} of {task.n} bits"
    lines = [f"{law}: {number(case.x)}{drawn} becomes {_became(seen)}, it should be {_owed(task, explanation)}"]
    if alone:
        lines.append(f"reproduce: {_call(task, seen.base.x[seen.at[0]], word)}")
    wrapped = textwrap.wrap(note, WIDTH, initial_indent=" " * LABEL, subsequent_indent=" " * LABEL)
    return [*lines, "", str(explanation), *wrapped]


def _became(seen: Seen) -> str:
    value = number(seen.value[0].item())
    return value if seen.code is None else f"code {seen.code[0]:#x} ({value})"


def _owed(task: Task, e: Explanation) -> str:
    """Return the right answer in the quantizer's own form, code or value."""
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
    """Convert the one number of `seen` in an array of its own; `None` where it is right there."""
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
    """Return the pattern of the indices of all wrong elements: their rest modulo the greatest power of two."""
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


@dataclass(frozen=True, slots=True)
class Answers:
    """Hold the answers of one call as a run; without `signs` the signs of zeros do not matter."""

    seen: Seen
    signs: bool

    @property
    def wrong(self) -> Flags:
        """Which answers are wrong."""
        return np.asarray(self.seen.wrong | (self.seen.wrong_zero & self.signs))

    @property
    def right(self) -> Flags:
        """Which answers are right."""
        return np.asarray(~self.wrong & ~self.seen.base.refused[self.seen.at])

    def lines(self, chosen: Indices) -> Lines:
        """Return the chosen answers."""
        return self.seen.lines(chosen, signs=self.signs)


def _as_often(trial: Trial, names: list[str]) -> list[str]:
    """Leave out the faults that draw words, where numbers did not go away from zero as often as they would by them."""
    seen = ", ".join(trial.likenesses)
    drawn = {rounds_by(Mode.SRE, trial.task.mode): str(Mode.SRE.value), FEW: "u < nu"}
    return [name for name in names if name not in drawn or drawn[name] in seen]


def _causes(trial: Trial, first: Case, *, signs: bool) -> tuple[list[str], str]:
    """Return the faults that give the answers of the run, and a sentence that says how far they reach.

    A cause gives every answer, the wrong ones and the right ones; where the words are unknown, as often as was seen. Where no
    one fault is left, those are told that give the wrong ones together, or most of them.
    """
    (shown,) = lines_of([first])
    found = diagnose([Judged(shown), *(Answers(seen, signs) for seen in trial.pool)])
    wrong = found.wrong - 1  # the case that is shown is one more
    whole = _as_often(trial, found.whole) if trial.task.unknown else found.whole
    if whole:
        each = "each of these" if len(whole) > 1 else "this"
        return whole, f"{each} gives all {wrong:,} wrong and all {found.right:,} right answers of the run"
    note = f"no known fault gives all {wrong:,} wrong answers of the run and none of the right ones another way"
    known, ways = faults(shown.kind), shown.ways()
    names = sorted(found.parts, key=lambda name: not gives(known[name], ways).all())
    # Faults none of which gives the answer that is shown would mislead.
    if not names or not gives(known[names[0]], ways).all():
        return [], note
    rest = (
        f", and {found.left:,} of the wrong ones are given by none of these"
        if found.left
        else ", but these together do"
    )
    return [f"in part: {name} ({found.parts[name]:,} of {wrong:,} wrong answers)" for name in names], note + rest
