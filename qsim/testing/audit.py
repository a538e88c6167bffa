"""The random words themselves: bits, lanes, time, words used again, and generators that are linear.

    audit_rbits(words, bits=32)  # words[t, i] is the word of lane i in call t
    audit_rbits(lambda lanes: my_generator(lanes), bits=16)

The claim is that all bits are fair and independent coins. Sums modulo 2 of such coins, of which none follows from the
others, are again fair and independent coins; so each number that is looked at, of ones or of agreements, is binomial with
p = 1/2, and `qsim.testing.bounds` holds for it. The other tests have exact probabilities.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from qsim.errors import InputError
from qsim.kernels.threads import one_blas_thread
from qsim.testing.bounds import chernoff, hoeffding_limit
from qsim.underflow import as_caller, gradual_underflow
from qsim.verdicts import Outcome, Verdict

__all__ = ["audit_rbits"]

Words = NDArray[np.uint64]
Signs = NDArray[np.float32]

LAGS = 32
"""Lanes, and calls, up to which bits of different words are compared."""

PAIRED = 1024
"""The lanes, and the calls, of which every two are compared: the first ones."""

MOST = 1 << 20
"""The words that are looked at: the first calls. So many signs add up exactly in float32, which holds 2^24."""

LONGEST = 4096
"""The bits of a sequence whose linear complexity is computed."""

VALUES = 8
"""The top bits whose values are counted."""

SHOWN = 3
"""Findings of one test that a verdict shows."""

POWER = 0.99

TESTS = {
    "bits": "each bit of a word",
    "bits of a lane": "each bit of each lane",
    "again": "the same words again, in any lanes at any time",
    "linear": f"each bit's linear complexity, of up to {LONGEST:,} in a row: along a lane, along the lanes",
    "neighbours": f"any bit and any bit of a lane up to {LAGS} further on",
    "time": f"any bit and any bit of the same lane up to {LAGS} calls later",
    "lanes": f"any two of the first {PAIRED:,} lanes, bit by bit",
    "calls": f"any two of the first {PAIRED:,} calls, bit by bit",
    "two bits": "any two bits of a word",
    "values": f"each value of the top {VALUES} bits",
}
"""The tests, among which the false-alarm rate is split evenly."""


@dataclass(frozen=True, slots=True)
class Finding:
    """State the fault, and how likely so much is by chance: a bound on ln P."""

    chance: float
    says: str
    #: How many this one stands for: itself, and less telling ones that are not written down.
    count: int = 1


@gradual_underflow
def audit_rbits(
    rbits: Any,
    bits: int = 32,
    *,
    alpha: float = 1e-6,
    lanes: int = 64,
    calls: int = 1024,
) -> Verdict:
    """Test that random words of `bits` bits are fair and independent, and name the faults found.

    `rbits` are words of shape (calls, lanes): a row holds the words that the elements of one array take at the same time;
    words of one dimension are those of a single lane. Or it is a function that returns the next words of so many lanes, and
    is asked for `lanes` of them `calls` times. `alpha` bounds the false-alarm rate of all tests together. Up to a million
    words are looked at. Raise `InputError` for anything else than words of so many bits.
    """
    if type(bits) is not int or not 1 <= bits <= 64:
        raise InputError(f"bits = {bits!r}: a random word has 1 to 64")
    if not 0 < alpha < 1:
        raise InputError(f"alpha = {alpha!r} must lie between 0 and 1")
    words = _words(_drawn(as_caller(rbits), lanes, calls) if callable(rbits) else np.asarray(rbits), bits)
    rate = math.log(alpha / len(TESTS))
    needed = math.ceil((math.log(2 * bits * len(TESTS) / alpha)) / math.log(2))
    if words.size < needed:
        covered = (
            f"{words.size:,} words of {bits} bits; a bit that is always 1 shows in {needed:,} or more (alpha {alpha:g})"
        )
        return Verdict(outcome=Outcome.NOT_DECIDED, covered=covered)
    with one_blas_thread():  # the products are slim: threads would only wait for each other
        found = {name: sorted(own, key=lambda f: f.chance) for name, own in _tests(words, bits, rate) if own}
    n = words.size
    least = float(hoeffding_limit(n, alpha / len(TESTS) / bits / 2) + hoeffding_limit(n, 1 - POWER)) / n
    covered = (
        f"{n:,} words of {bits} bits, {words.shape[0]:,} calls of {words.shape[1]:,} lanes; {len(TESTS)} tests "
        f"({', '.join(TESTS)}), false alarms at most {alpha:g}; a bit that is 1 too often by {min(least, 0.5):.2g} is found "
        f"with a probability of {POWER}; cannot be seen: less than that, dependence among three bits or more that is not "
        "linear, and whether others know the words"
    )
    if not found:
        return Verdict(outcome=Outcome.HELD, covered=covered)
    lines = _as_if(words, bits)
    # Words that come again make bits unfair and alike; of the rest the least likely is the cause, if any is, of the others.
    for name in sorted(found, key=lambda name: (name != "again", found[name][0].chance)):
        own = found[name][: 1 if lines else SHOWN]
        lines += [f"{name}: {finding.says} (by chance at most {_power(finding.chance)})" for finding in own]
        more = sum(finding.count for finding in found[name]) - len(own)
        lines[-1] += f"; and {more:,} more" if more else ""
    return Verdict(outcome=Outcome.REFUTED, covered=covered, counterexample="\n".join(lines))


def _as_if(words: Words, bits: int) -> list[str]:
    """Name the words where they follow a simple rule."""
    if (words == words[0, 0]).all():
        return [f"as if: every word is {int(words[0, 0]):#x}"]
    steps = np.diff(words.reshape(-1)) & np.uint64((1 << bits) - 1)
    if (steps == steps[0]).all():
        return [f"as if: a counter, each word {int(steps[0]):,} more than the one before, lane by lane"]
    if words.shape[1] > 1 and (words == words[:, :1]).all():
        return ["as if: all lanes of a call take the same word"]
    return []


def _power(log: float) -> str:
    return f"{math.exp(log):.2g}" if log / math.log(10) > -300 else "10^-300"


def _drawn(source: Callable[[int], Any], lanes: int, calls: int) -> NDArray[Any]:
    """Return the words of a source, one row a call."""
    for name, count in (("lanes", lanes), ("calls", calls)):
        if type(count) is not int or count < 1:
            raise InputError(f"{name} = {count!r} must be an integer of at least 1")
    rows = [np.array(source(lanes)) for _ in range(calls)]  # a copy: a source may fill the same array again
    for t, row in enumerate(rows):
        if row.shape != (lanes,):
            raise InputError(
                f"call {t} of the source returned an array of shape {row.shape}; {lanes} lanes were asked for"
            )
    return np.stack(rows)


def _words(given: NDArray[Any], bits: int) -> Words:
    """Return the words as uint64, one row a call."""
    if given.dtype.kind not in "iu" or given.ndim not in (1, 2) or given.size < 2:
        raise InputError(
            f"rbits of {given.dtype} {given.shape}: integers of shape (calls, lanes) or (calls,), two at least"
        )
    if not 0 <= int(given.min()) <= int(given.max()) < 1 << bits:
        raise InputError(f"rbits of {bits} bits are 0 .. {(1 << bits) - 1}, not {given.min()} .. {given.max()}")
    rows = given.astype(np.uint64).reshape(len(given), -1)
    return np.ascontiguousarray(rows[: max(MOST // rows.shape[1], 1), :MOST])


def _tests(words: Words, bits: int, rate: float) -> Iterator[tuple[str, list[Finding]]]:
    """Yield each test with its findings; `rate` is ln of the false-alarm rate of each."""
    calls = len(words)
    signs = _signs(words, bits)
    flat = signs.reshape(-1, bits)
    yield "bits", _unfair(flat.sum(0), len(flat), rate, lambda b: f"bit {b} of a word")
    yield (
        "bits of a lane",
        _unfair(signs.sum(0).reshape(-1), calls, rate, lambda i: f"bit {i % bits} of lane {i // bits}"),
    )
    yield "values", list(_values(words, bits, rate))
    pairs = np.triu_indices(bits, 1)
    yield (
        "two bits",
        _unequal((flat.T @ flat)[pairs], len(flat), rate, lambda i: f"bits {pairs[0][i]} and {pairs[1][i]} of a word"),
    )
    for name, axis, unit in (("neighbours", 1, "lanes further on"), ("time", 0, "calls later")):
        most = min(LAGS, signs.shape[axis] - 1)
        found = []
        for lag in range(1, most + 1):
            near, far = (signs[:, :-lag], signs[:, lag:]) if axis else (signs[:-lag], signs[lag:])
            sums = near.reshape(-1, bits).T @ far.reshape(-1, bits)
            text = _lag_text(bits, lag, unit)
            found += _unequal(sums.reshape(-1), near.size // bits, rate - math.log(most), text)
        yield name, found
    for name, axis in (("lanes", 1), ("calls", 0)):
        rows = np.moveaxis(signs, axis, 0)[:PAIRED]
        first, second = np.triu_indices(len(rows), 1)
        rows = rows.reshape(len(rows), -1)[:, : 1 << 24]
        text = _pair_text(name, first, second)
        yield name, _unequal((rows @ rows.T)[first, second], rows.shape[1], rate, text)
    yield "again", list(_again(words, bits, rate))
    yield "linear", list(_linear(words, bits, rate))


def _lag_text(bits: int, lag: int, unit: str) -> Callable[[int], str]:
    return lambda i: f"bit {i // bits} and bit {i % bits} of the word {lag} {unit}"


def _pair_text(name: str, first: NDArray[np.intp], second: NDArray[np.intp]) -> Callable[[int], str]:
    return lambda i: f"the words of {name} {first[i]} and {second[i]}, bit by bit,"


def _signs(words: Words, bits: int) -> Signs:
    """Return the bits as signs, +1 for 1 and -1 for 0, bit 0 first: shape (calls, lanes, bits)."""
    shifted = words[..., None] >> np.arange(bits, dtype=np.uint64)
    return (2 * (shifted & np.uint64(1)).astype(np.float32)) - 1


# --- Counts ----------------------------------------------------------------------------------------------------------


def _far(sums: NDArray[Any], n: int, rate: float, says: Callable[[int, int], str]) -> list[Finding]:
    """Return which sums of n signs are too far from 0, by the union of all, the least likely ones written down.

    `says` is asked for the number of a sum, and how many of its signs are +.
    """
    if not n or not len(sums):
        return []
    plus = (sums.astype(np.int64) + n) // 2
    chance = chernoff(plus, n, 0.5)
    bad = np.flatnonzero(chance <= rate - math.log(len(sums)))
    worst = bad[np.argsort(chance[bad], kind="stable")][:SHOWN].tolist()
    hidden = len(bad) - len(worst)
    return [
        Finding(float(chance[i]), says(i, int(plus[i])), 1 + hidden * (k == len(worst) - 1))
        for k, i in enumerate(worst)
    ]


def _unfair(sums: NDArray[Any], n: int, rate: float, name: Callable[[int], str]) -> list[Finding]:
    """Return the bits that are 1 too often or too seldom."""
    return _far(
        sums, n, rate,
        lambda i, plus: f"{name(i)} is {f'always {plus // n}' if plus in (0, n) else f'1 in {plus:,} of {n:,}'}",
    )  # fmt: skip


def _unequal(sums: NDArray[Any], n: int, rate: float, name: Callable[[int], str]) -> list[Finding]:
    """Return the pairs of bits that agree too often or too seldom.

    The agreements are fair and independent coins: of pairs (b, c) of different bits each holds its own b, and of pairs of one
    bit, which make chains, each holds the one that the pairs before it in the chain do not.
    """
    return _far(
        sums, n, rate, lambda i, plus: f"{name(i)} {({0: 'never', n: 'always'}).get(plus, f'in {plus:,} of {n:,}')} agree"
    )  # fmt: skip


def _values(words: Words, bits: int, rate: float) -> Iterator[Finding]:
    """Yield the values of the top bits that come too often or too seldom."""
    top = min(bits, VALUES)
    counts = np.bincount((words >> np.uint64(bits - top)).reshape(-1).astype(np.int64), minlength=1 << top)
    chance = chernoff(counts, words.size, 2.0**-top)
    for value in np.flatnonzero(chance <= rate - top * math.log(2)).tolist():
        seen = f"in {counts[value]:,} of {words.size:,}, {words.size / 2**top:,.1f} are expected"
        says = f"the top {top} bits are {value:#x} {seen}"
        yield Finding(float(chance[value]), says)


# --- Again -----------------------------------------------------------------------------------------------------------


def _again(words: Words, bits: int, rate: float) -> Iterator[Finding]:
    """Yield where the same run of words comes twice: along lanes one after another, call by call, and along each lane.

    Two runs of w words at different places, though they may overlap, are the same with the probability 2^(-w bits): given the
    words before, each word of the later run must be one certain word. Of m runs there are m (m - 1) / 2 pairs; w is the least
    for which this many times 2^(-w bits) is within the rate.
    """
    lanes = words.shape[1]
    orders = {"lane by lane": words.reshape(1, -1), "call by call": words.T}
    orders = {name: rows for name, rows in orders.items() if lanes > 1 or name == "call by call"}
    share = rate - math.log(len(orders))
    for name, rows in orders.items():
        length = rows.shape[1]
        for w in range(1, length + 1):
            runs = len(rows) * (length - w + 1)
            chance = math.log(max(runs * (runs - 1) / 2, 1)) - w * bits * math.log(2)
            if chance <= share:
                break
        else:
            continue
        keys = np.zeros((len(rows), length - w + 1), np.uint64)
        for k in range(w):  # a fingerprint modulo 2^64: equal runs have equal ones, others are sorted out below
            keys = keys * np.uint64(0x9E3779B97F4A7C15) + _mixed(rows[:, k : length - w + 1 + k])
        order = np.argsort(keys, axis=None, kind="stable")
        alike = keys.reshape(-1)[order]
        twice = np.flatnonzero(alike[1:] == alike[:-1])
        same = [
            (int(a), int(b))
            for a, b in zip(order[twice].tolist(), order[twice + 1].tolist(), strict=True)
            if np.array_equal(_run(rows, a, w), _run(rows, b, w))
        ]
        if same:
            first, second = min(same, key=lambda pair: pair[1])
            (i, t), (j, s) = (divmod(at, keys.shape[1]) for at in (first, second))
            here, there = (
                f"call {at // lanes}, lane {at % lanes}" if name == "lane by lane" else f"call {at}, lane {row}"
                for row, at in ((i, t), (j, s))
            )
            step = f", {s - t:,} later" if i == j else ""
            many = f"; {len(same):,} of {runs:,} runs come again" if len(same) > 1 else ""
            yield Finding(chance, f"{w:,} words {name} from {here} come again from {there}{step}{many}")


def _mixed(x: Words) -> Words:
    """Return words whose bits are mixed, so that sums of them seldom agree by the structure of x (splitmix64)."""
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))


def _run(rows: Words, at: int, w: int) -> Words:
    i, t = divmod(at, rows.shape[1] - w + 1)
    return rows[i, t : t + w]


# --- Linear ----------------------------------------------------------------------------------------------------------


def _linear(words: Words, bits: int, rate: float) -> Iterator[Finding]:
    """Yield the bits whose sequence a short linear feedback shift register makes.

    Of the 2^n sequences of n bits 2^(2 l - 1) have the linear complexity l, for 1 <= l <= n/2 (Massey 1969; Rueppel 1986), and
    one has 0. So P(complexity <= l) = (1 + 2 (4^l - 1) / 3) / 2^n <= 2^(2 l - n). Every generator whose state is multiplied
    by a matrix of bits has a complexity of at most its size, whichever bit is looked at: LFSRs, xorshift, Mersenne twisters.
    """
    lanes = words.shape[1]
    rows = {"of lane 0": words[:LONGEST, 0], "along the lanes": words.reshape(-1)[:LONGEST]}
    rows = {name: row for name, row in rows.items() if len(row) > 1 and (lanes > 1 or name == "of lane 0")}
    for name, row in rows.items():
        for bit in range(bits):
            sequence = ((row >> np.uint64(bit)) & np.uint64(1)).tolist()
            complexity = linear_complexity(sequence)
            chance = (2 * complexity - len(sequence)) * math.log(2)
            if chance <= rate - math.log(bits * len(rows)):
                yield Finding(
                    chance,
                    f"bit {bit} {name} is a linear recurrence of order {complexity:,}: {len(sequence):,} bits in a row follow "
                    "from so many",
                )


def linear_complexity(sequence: list[int]) -> int:
    """Return the length of the shortest linear feedback shift register that makes a sequence of bits (Berlekamp, Massey 1969).

    Polynomials are integers: bit i of `here` is the coefficient of x^i, and bit i of `past` the bit seen i steps before.
    """
    here, before, length, since, past = 1, 1, 0, 1, 0
    for n, bit in enumerate(sequence):
        past = past << 1 | bit
        if not (here & past).bit_count() & 1:
            since += 1
        elif 2 * length <= n:
            here, before, length, since = here ^ before << since, here, n + 1 - length, 1
        else:
            here, since = here ^ before << since, since + 1
    return length
