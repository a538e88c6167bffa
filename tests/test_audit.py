"""Random words: good generators pass at the stated rate, and each kind of bad ones is told what it is."""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from scipy import stats

import qsim
from qsim.arrays import random_words
from qsim.errors import InputError
from qsim.testing import audit_rbits
from qsim.testing.audit import linear_complexity
from qsim.verdicts import Outcome

CALLS, LANES = 1024, 32

# --- Good ones -------------------------------------------------------------------------------------------------------


def philox(seed: int, calls: int = CALLS, lanes: int = LANES) -> np.ndarray:
    """Return the words of arrays of `lanes` elements, call by call: each call has its stream, as a step of training has."""
    return np.stack([random_words(qsim.Key(seed, qsim.rounding.stream(step=t)), lanes) for t in range(calls)])


@pytest.mark.parametrize("bits", [32, 24, 8, 1])
def test_philox(bits: int) -> None:
    """The words of our keys hold: over streams and elements, the top bits of a word, and along one stream."""
    verdict = audit_rbits(philox(1) >> np.uint32(32 - bits), bits)
    assert verdict.outcome is Outcome.HELD, verdict
    verdict = audit_rbits(random_words(qsim.Key(3), 1 << 15) >> np.uint32(32 - bits), bits)
    assert verdict.outcome is Outcome.HELD, verdict


def test_other_generators() -> None:
    """So do PCG64, and 64-bit words; a function is asked for its lanes, call by call."""
    rng = np.random.default_rng(0)
    assert audit_rbits(lambda lanes: rng.integers(0, 1 << 64, lanes, np.uint64), 64, calls=256).outcome is Outcome.HELD
    asked: list[int] = []

    def source(lanes: int) -> np.ndarray:
        asked.append(lanes)
        return rng.integers(0, 256, lanes)

    verdict = audit_rbits(source, 8, lanes=5, calls=300)
    assert verdict.outcome is Outcome.HELD
    assert asked == [5] * 300
    assert verdict.covered.startswith("1,500 words of 8 bits, 300 calls of 5 lanes")
    assert "cannot be seen" in verdict.covered


@pytest.mark.parametrize("count", [100, pytest.param(1000, marks=pytest.mark.exhaustive)])
def test_false_alarms(count: int) -> None:
    """Of many good sources no more are refuted than a rate of 1e-2 allows; a binomial exceeds that limit once in 10^6."""
    rng = np.random.default_rng(1)
    alarms = 0
    for _ in range(count):
        alarms += audit_rbits(rng.integers(0, 256, (64, 16)), 8, alpha=1e-2).outcome is Outcome.REFUTED
    assert alarms <= stats.binom.isf(1e-6, count, 1e-2)


# --- Bad ones --------------------------------------------------------------------------------------------------------


def galois(state: int) -> int:
    """Step an LFSR of 32 bits in Galois' form: the bit that falls out is added to the taps of x^32 + x^22 + x^2 + x + 1."""
    return state >> 1 ^ (0x80200003 if state & 1 else 0)


def fibonacci(state: int) -> int:
    """Step an LFSR of 32 bits in Fibonacci's form: the sum of the taps moves in at the top."""
    return state >> 1 | ((state ^ state >> 10 ^ state >> 30 ^ state >> 31) & 1) << 31


def states(step: Callable[[int], int], count: int, seed: int = 0xACE1) -> np.ndarray:
    """Return the states after each of `count` steps."""
    return np.array(
        list(itertools.islice(itertools.accumulate(itertools.repeat(0), lambda s, _: step(s), initial=seed), count))
    )


def test_registers_have_the_full_period() -> None:
    """The two registers are what they are called: x^32 = 1 only after 2^32 - 1 steps, whose prime factors are known."""

    def power(matrix: list[int], k: int) -> list[int]:
        result = [1 << i for i in range(32)]
        while k:
            if k & 1:
                result = [apply(matrix, column) for column in result]
            matrix = [apply(matrix, column) for column in matrix]
            k >>= 1
        return result

    def apply(matrix: list[int], vector: int) -> int:
        out = 0
        for i in range(32):
            out ^= matrix[i] if vector >> i & 1 else 0
        return out

    whole = (1 << 32) - 1
    for step in (galois, fibonacci):
        columns = [step(1 << i) for i in range(32)]
        unit = [1 << i for i in range(32)]
        assert power(columns, whole) == unit
        assert all(power(columns, whole // prime) != unit for prime in (3, 5, 17, 257, 65537))


@pytest.mark.parametrize("step", [galois, fibonacci])
@pytest.mark.parametrize("stride", [1, LANES])
def test_shared_register(step: Callable[[int], int], stride: int) -> None:
    """Lanes that see one register, each a step further on than the one before it, are told its order and its shift."""
    sequence = states(step, CALLS * stride + LANES)
    words = sequence[stride * np.arange(CALLS)[:, None] + np.arange(LANES)]
    verdict = audit_rbits(words, 32)
    assert verdict.outcome is Outcome.REFUTED
    assert re.search(
        r"neighbours: bit \d+ and bit \d+ of the word 1 lanes further on always agree", verdict.counterexample
    )
    orders = re.findall(r"linear: bit \d+ .* is a linear recurrence of order ([\d,]+): ", verdict.counterexample)
    assert orders[0] == "32" if stride == LANES else orders  # else lane by lane each state comes many times
    assert ("again: " in verdict.counterexample) == (stride == 1)


def test_register_with_long_strides() -> None:
    """A register that is stepped 32 times between words has no two bits that agree: its linear complexity gives it away."""
    words = states(galois, 32 * 4096)[::32]
    verdict = audit_rbits(words, 32)
    assert verdict.counterexample.startswith("linear: ")
    assert "order 32: 4,096 bits in a row follow from so many" in verdict.counterexample


def some(seed: int = 0, lanes: int = LANES) -> np.ndarray:
    """Return good words."""
    return np.random.default_rng(seed).integers(0, 1 << 32, (CALLS, lanes))


def nearly(words: np.ndarray) -> np.ndarray:
    """Return words whose bit 7 is 1 in 9 of 16."""
    return words | (np.random.default_rng(9).integers(0, 8, words.shape) == 0).astype(np.int64) << 7


EVEN, NINTH = np.arange(LANES) & ~1, np.arange(LANES) == 9
CALL, NINTH_CALL = np.arange(CALLS)[:, None], np.arange(CALLS)[:, None] == 9
ALL = np.arange(CALLS * LANES)

BAD = [
    (np.full((CALLS, LANES), 0xBEEF), "as if: every word is 0xbeef\n"),
    (ALL.reshape(CALLS, LANES), "as if: a counter, each word 1 more than the one before, lane by lane"),
    (ALL * 0x9E3779B9 % (1 << 32), "as if: a counter, each word 2,654,435,769 more"),
    (np.repeat(some(lanes=1), LANES, 1), "as if: all lanes of a call take the same word"),
    (some() | 1 << 4, "bits: bit 4 of a word is always 1"),
    (some() & ~(1 << 31), "bits: bit 31 of a word is always 0"),
    (nearly(some()), r"bits: bit 7 of a word is 1 in 18,\d+ of 32,768"),
    (np.where(np.arange(LANES) == 5, some() | 1, some()), "bits of a lane: bit 0 of lane 5 is always 1"),
    (np.tile(some()[:100], (10, 1)), r"again: \d+ words .* from call 0, lane 0 come again from call 100, lane 0"),
    (some()[:, EVEN], r"again: \d+ words call by call from call 0, lane \d+ come again from call 0, lane \d+"),
    (
        np.where(NINTH, np.roll(some()[:, 2:3], 40, 0), some()),
        r"again: \d+ words call by call from call \d+, lane 2 come again from call \d+, lane 9",
    ),
    (
        some(5) & 0xFFFF | some()[:, :1] & 0xFFFF0000,
        r"neighbours: bit \d\d and bit \d\d of the word 1 lanes further on always agree",
    ),
    (
        np.where(NINTH, some()[:, 2:3] ^ 1, some()),
        "lanes: the words of lanes 2 and 9, bit by bit, in 31,744 of 32,768 agree",
    ),
    (
        np.where(NINTH_CALL, ~some()[2] & 0xFFFFFFFF, some()),
        "calls: the words of calls 2 and 9, bit by bit, never agree",
    ),
    (
        np.where(CALL % 2, np.roll(some(), 1, 0) ^ (some(7) & 0xFFFF0000), some()),
        r"time: bit (\d+) and bit \1 of the word 1 calls later in 2\d,\d+ of 32,736 agree",
    ),
    (some() & ~(1 << 9) | (some() & 1) << 9, "two bits: bits 0 and 9 of a word always agree"),
    (np.where(some() >> 24 == 0x55, some(5), some()), r"values: the top 8 bits are 0x55 in \d of"),
]
"""Words with one fault, and what is said first."""


@pytest.mark.parametrize(("words", "says"), BAD, ids=[f"{i} {says[:24].strip()}" for i, (_, says) in enumerate(BAD)])
def test_bad_words(words: np.ndarray, says: str) -> None:
    """Words with one fault are refuted, and the first thing that is said is the fault."""
    verdict = audit_rbits(words, 32)
    assert verdict.outcome is Outcome.REFUTED
    assert re.match(says, verdict.counterexample), verdict.counterexample


def test_linear_generators_of_libraries() -> None:
    """The lowest bit of xorshift128+, a sum of linear words, is linear itself."""
    a, b, out = 1, 2, []
    for _ in range(2048):
        a, b = b, a
        b ^= b << 23 & (1 << 64) - 1
        b ^= b >> 17 ^ a ^ a >> 26
        out.append((a + b) % (1 << 64))
    verdict = audit_rbits(np.array(out[64:], np.uint64), 64)
    assert re.search("linear: bit 0 of lane 0 is a linear recurrence of order 1[0-9][0-9]", verdict.counterexample)


# --- The linear complexity -------------------------------------------------------------------------------------------


def test_linear_complexity_of_every_sequence() -> None:
    """Of all 2^12 sequences as many have each complexity as theory says, and it is the least order of any recurrence."""
    n = 12
    found = [linear_complexity(list(bits)) for bits in itertools.product((0, 1), repeat=n)]
    for order in range(n + 1):
        theory = 1 if order == 0 else 2 ** min(2 * n - 2 * order, 2 * order - 1)
        assert found.count(order) == theory
        within = sum(count <= order for count in found)
        assert within <= 2 ** (2 * order)  # the bound in use, 2^(2 l - n) of them
    for bits in itertools.product((0, 1), repeat=8):
        assert linear_complexity(list(bits)) == _least_order(bits)


def _least_order(bits: tuple[int, ...]) -> int:
    """Return the least l with c_1 .. c_l so that s_i is the sum of the c_j s_(i-j) for all i >= l, by trying all of them."""
    for order in range(len(bits) + 1):
        for taps in itertools.product((0, 1), repeat=order):
            if all(sum(c & bits[i - j] for j, c in enumerate(taps, 1)) % 2 == bits[i] for i in range(order, len(bits))):
                return order
    raise AssertionError


# --- What is refused -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((np.arange(4), 0), "bits = 0: a random word has 1 to 64"),
        ((np.arange(4), 1), "rbits of 1 bits are 0 .. 1, not 0 .. 3"),
        ((np.array([-1, 3]), 8), "rbits of 8 bits are 0 .. 255, not -1 .. 3"),
        ((np.zeros(4), 8), "rbits of float64 (4,): integers of shape (calls, lanes) or (calls,), two at least"),
        ((np.zeros((2, 2, 2), int), 8), "rbits of int64 (2, 2, 2)"),
        ((lambda lanes: np.zeros(lanes + 1, int), 8), "call 0 of the source returned an array of shape (65,)"),
    ],
)
def test_refused(arguments: tuple[Any, ...], message: str) -> None:
    """What are no words of so many bits is refused in one sentence."""
    with pytest.raises(InputError, match=re.escape(message)):
        audit_rbits(*arguments)
    with pytest.raises(InputError, match="alpha = 2 must lie between 0 and 1"):
        audit_rbits(np.arange(4), 8, alpha=2)


def test_few_words_refute_nothing() -> None:
    """Two words, though equal, refute nothing: the bounds hold for any number, however small."""
    for words in (np.array([5, 5]), np.array([[5, 5]])):
        assert audit_rbits(words, 8).outcome is Outcome.NOT_DECIDED


def test_too_few_words() -> None:
    """Of words so few that not even a stuck bit could show nothing is said, but how many it takes."""
    verdict = audit_rbits([1, 2, 3], bits=8)
    assert verdict.outcome is Outcome.NOT_DECIDED
    assert "shows in 28 or more" in verdict.covered
    assert audit_rbits(np.full(28, 255), bits=8).outcome is Outcome.REFUTED
