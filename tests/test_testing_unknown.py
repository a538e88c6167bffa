"""Quantizers that draw their own random words: none is held to be unbiased, and those that cannot be are refuted."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest

from qsim import arrays
from qsim.rounding import Key
from qsim.testing import WITHOUT_WORDS, assert_quantizer, check_quantizer
from qsim.testing.laws import FALSE_ALARMS, Outcomes
from qsim.verdicts import Outcome

REASON = "give it an argument rbits, or use check_stochastic_device"


def by_mode(name: str, mode: str) -> Callable[[np.ndarray], np.ndarray]:
    """Return a function that passes another rounding off as stochastic."""
    return lambda x: arrays.encode(x, name, mode)


def drawing(name: str, mode: str = "SR", seed: int = 0) -> Callable[[np.ndarray], np.ndarray]:
    """Return a stochastic quantizer whose words are fresh in each call."""
    rng = np.random.default_rng(seed)
    return lambda x: arrays.encode(x, name, mode, key=Key(int(rng.integers(1 << 60))))


def with_one_word(name: str) -> Callable[[np.ndarray], np.ndarray]:
    """Return a stochastic quantizer that gives one word to all elements of a call."""
    rng = np.random.default_rng(0)
    return lambda x: arrays.encode(x, name, "SR", sr_bits=32, rbits=np.full(x.shape, rng.integers(1 << 32)))


IMPOSTORS = {
    "nearest": lambda name: by_mode(name, "RNE"),
    "nearest, ties away": lambda name: by_mode(name, "RNA"),
    "always up": lambda name: by_mode(name, "RUP"),
    "always away": lambda name: by_mode(name, "RAZ"),
    "always down": lambda name: by_mode(name, "RDN"),
    "always toward zero": lambda name: by_mode(name, "RTZ"),
    "50:50": lambda name: drawing(name, "SRE"),
    "one word for all": with_one_word,
}
"""Roundings that are not stochastic, or not in proportion to the distance."""


@pytest.mark.in_part(3)
@pytest.mark.parametrize("name", ["e4m3", "e2m1", "int4", "nf4", "e8m0", "bfloat16", "ternary"])
@pytest.mark.parametrize("impostor", IMPOSTORS)
def test_impostor(name: str, impostor: str) -> None:
    """What is passed off as stochastic rounding is refuted, in every format."""
    verdict = check_quantizer(IMPOSTORS[impostor](name), name, "SR", codes=True)
    assert verdict.outcome is Outcome.REFUTED
    assert "frequencies" in verdict.counterexample


@pytest.mark.parametrize("dtype", [np.float16, np.float64])
def test_impostor_from_other_types(dtype: type) -> None:
    """It is from other types of numbers, too."""
    assert check_quantizer(by_mode("e4m3", "RNE"), "e4m3", "SR", codes=True, dtype=dtype).outcome is Outcome.REFUTED


@pytest.mark.parametrize(
    ("impostor", "words"),
    [
        ("nearest", "as if: rounds by RNE (NearestTiesToEven): no random word is used"),
        ("nearest, ties away", "as if: rounds by RNA (NearestTiesToAway): no random word is used"),
        ("always up", "as if: rounds by RUP (TowardPositive): no random word is used"),
        ("50:50", "as if: rounds by SRE (StochasticEqual)"),
    ],
)
def test_likeness(impostor: str, words: str) -> None:
    """The verdict says what the impostor looks like, and how unlikely its answers are."""
    verdict = check_quantizer(IMPOSTORS[impostor]("e4m3"), "e4m3", "SR", codes=True)
    assert words in verdict.counterexample.splitlines()
    assert "by chance" in verdict.counterexample


@pytest.mark.parametrize("mode", ["SR", "SRE"])
@pytest.mark.parametrize("name", ["e4m3", "e2m1", "int4", "nf4", "e8m0", "bfloat16", "ternary"])
def test_right_quantizer(name: str, mode: str) -> None:
    """A right one is not decided, and the first line says why and what to do."""
    verdict = check_quantizer(drawing(name, mode), name, mode, codes=True)
    assert verdict.outcome is Outcome.NOT_DECIDED
    first = str(verdict).splitlines()[0]
    assert first.startswith("not decided: unbiasedness was not tested")
    assert first.endswith(REASON)
    assert verdict.moments is None
    assert verdict.bias is None


def test_same_words_in_each_call() -> None:
    """A quantizer with a key of its own takes the same words in each call: it is not refuted, for within one they are fresh."""
    verdict = check_quantizer(lambda x: arrays.quantize(x, "e4m3", "SR", key=Key(seed=3)), "e4m3", "SR")
    assert verdict.outcome is Outcome.NOT_DECIDED


def test_few_inputs() -> None:
    """Where there are too few inputs to refute an impostor it is not decided, and never held."""
    verdict = check_quantizer(by_mode("ternary", "RNE"), "ternary", "SR", codes=True, examples=0)
    assert verdict.outcome is Outcome.NOT_DECIDED


def test_assertion() -> None:
    """The asserting twin raises, and says what to do; naming the laws that hold for every word is the way to assert these."""
    with pytest.raises(AssertionError, match=f"^not decided: .*{REASON}"):
        assert_quantizer(drawing("e4m3"), "e4m3", "SR", codes=True)
    assert_quantizer(drawing("e4m3"), "e4m3", "SR", codes=True, laws=WITHOUT_WORDS)
    with pytest.raises(AssertionError, match=r"^refuted: frequencies"):
        assert_quantizer(by_mode("e4m3", "RNE"), "e4m3", "SR", codes=True, laws=WITHOUT_WORDS)


def test_laws_that_need_words() -> None:
    """Laws named that cannot be tested leave it not decided; where no other is left, nothing is testable."""
    fn = drawing("e4m3")
    some = check_quantizer(fn, "e4m3", "SR", codes=True, laws=["neighbours", "moments"])
    assert some.outcome is Outcome.NOT_DECIDED
    none = check_quantizer(fn, "e4m3", "SR", codes=True, laws=["moments"])
    assert none.outcome is Outcome.NOT_TESTABLE
    assert REASON in str(none).splitlines()[0]


def test_few_bits_are_named() -> None:
    """Few random bits compared with the fraction go away from zero where they never should: the cause is that, not RAZ."""
    rng = np.random.default_rng(0)

    def few(x: np.ndarray) -> np.ndarray:
        whole = np.trunc(np.where(np.isfinite(x), x, 0.0))
        up = rng.integers(0, 16, len(x)) / 16 < np.abs(np.where(np.isfinite(x), x, 0.0) - whole)
        return np.where(np.isnan(x), 0, np.clip(np.where(np.isinf(x), x, whole + np.sign(x) * up), -128, 127)) + 0.0

    text = check_quantizer(few, "int8", "SR").counterexample
    assert "causes       goes away iff u < nu, u of few random bits: with the probability ceil(nu 2^k) / 2^k" in text
    assert "as if: goes away iff u < nu, u of 4 random bits: with the probability ceil(nu 2^4) / 2^4" in text
    assert "RAZ" not in text


def test_false_alarms() -> None:
    """Outcomes with the probabilities of the mode alarm no more often than the bound says, at any level.

    5% of 2,000 are 100; more than 148 come by chance once in 10^6 times.
    """
    rng = np.random.default_rng(0)
    p, negative = rng.random(300), rng.random(300) < 0.5
    alarms = 0
    for _ in range(2000):
        seen = Outcomes(np.arange(300), p, negative, rng.random((2, 300)) < p)
        alarms += seen.alarm(p)[0] <= math.log(0.05)
    assert alarms <= 148
    constant = Outcomes(np.arange(300), p, negative, np.ones((2, 300), bool))
    assert constant.alarm(p)[0] < math.log(FALSE_ALARMS)
