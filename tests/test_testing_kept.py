"""What a quantizer does beside its answers: writes into its input, returns an array it goes on to use, keeps a state."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from devices import device

from qsim.testing import WITHOUT_WORDS, check_quantizer, check_stochastic_device, plan_device_check
from qsim.verdicts import Outcome

RIGHT, STOCHASTIC = device("e4m3"), device("e4m3", "SRA", 8)


def clears(x: np.ndarray) -> np.ndarray:
    """Round, and clear the input."""
    y = RIGHT(x)
    x[:] = 0
    return y


def clears_one(x: np.ndarray) -> np.ndarray:
    """Round, and change the last element of the input."""
    y = RIGHT(x)
    x[-1:] = 1
    return y


def turns_sign_of_zero(x: np.ndarray) -> np.ndarray:
    """Round, and lose the signs of zeros in the input, which compare equal."""
    y = RIGHT(x)
    x[x == 0] = 0.0
    return y


def works_in_place(x: np.ndarray) -> np.ndarray:
    """Return the input, into which the results were written."""
    x[:] = x.astype(ml_dtypes.float8_e4m3fn)
    return x


def reshapes(x: np.ndarray) -> np.ndarray:
    """Round, and give the input another shape."""
    y = RIGHT(x)
    x.shape = (1, -1)
    return y


def shifts_words(x: np.ndarray, rbits: np.ndarray) -> np.ndarray:
    """Round, and take the words apart on the way."""
    y = STOCHASTIC(x, rbits)
    rbits >>= np.uint32(4)
    return y


@pytest.mark.parametrize(
    ("fn", "says", "options"),
    [
        (clears, "inputs kept: clears wrote into x: x[0] was ", {"codes": True}),
        (clears_one, "inputs kept: clears_one wrote into x: x[", {"codes": True}),
        (turns_sign_of_zero, "inputs kept: turns_sign_of_zero wrote into x: x[", {"codes": True}),
        (works_in_place, "inputs kept: works_in_place wrote into x: x[0] was ", {"saturation": "OvfNaN"}),
        (reshapes, "inputs kept: reshapes made of x an array of float32 of shape (1, ", {"codes": True}),
        (shifts_words, "inputs kept: shifts_words wrote into rbits: rbits[", {"codes": True, "mode": "SRA", "sr_bits": 8}),
    ],
)  # fmt: skip
def test_overwritten_input(fn: Callable[..., Any], says: str, options: dict[str, Any]) -> None:
    """A function that writes into an array it was given is refuted, though every answer is right."""
    verdict = check_quantizer(fn, "e4m3", **options)
    assert verdict.outcome is Outcome.REFUTED
    assert verdict.counterexample.startswith(says)
    assert "work on a copy" in verdict.counterexample
    assert "laws broken: inputs kept" in verdict.counterexample


def test_overwritten_input_beside_wrong_answers() -> None:
    """Where answers are wrong as well these come first, and both are told."""
    away = device("e4m3", fault="ties away")

    def both(x: np.ndarray) -> np.ndarray:
        y = away(x)
        x[:] = 0
        return y

    text = check_quantizer(both, "e4m3", codes=True).counterexample
    assert text.startswith("thresholds: ")
    assert "\ninputs kept: both wrote into x" in text


def test_overwritten_input_of_a_device() -> None:
    """A device that draws its own words is refuted for it, too, by either check."""
    rng = np.random.default_rng(0)

    def drawing(x: np.ndarray) -> np.ndarray:
        y = STOCHASTIC(x, rng.integers(0, 256, len(x)))
        x[:] = 0
        return y

    verdict = check_quantizer(drawing, "e4m3", "SRA", sr_bits=8, codes=True, laws=WITHOUT_WORDS)
    assert verdict.counterexample.startswith("inputs kept: drawing wrote into x")
    plan = plan_device_check("e4m3", "SRA", sr_bits=8, bias=1 / 4, bits=3, calls=16, inputs=8, codes=True)
    for _ in range(2):  # the plan keeps nothing of the first device
        verdict = check_stochastic_device(drawing, plan)
        assert verdict.counterexample.startswith("arrays: drawing wrote into x")
    assert check_stochastic_device(lambda x: STOCHASTIC(x, rng.integers(0, 256, len(x))), plan).outcome is Outcome.HELD


def test_recycled_result() -> None:
    """A function that returns the same array again and again changes what it has returned: it is refuted."""
    buffer = np.zeros(1 << 20, np.int64)

    def recycles(x: np.ndarray) -> np.ndarray:
        found = buffer[: len(x)]
        found[:] = RIGHT(x)
        return found

    verdict = check_quantizer(recycles, "e4m3", codes=True)
    assert verdict.outcome is Outcome.REFUTED
    assert verdict.counterexample.startswith(
        "results kept: the array that recycles returned was changed by its next call"
    )


@pytest.mark.parametrize(
    "fn",
    [
        lambda x: x,
        lambda x: x[:],
        lambda x: x[::-1][::-1],
        lambda x: x.view(np.uint16).view(ml_dtypes.bfloat16),
        lambda x: np.concatenate([x, x])[: len(x)],
        lambda x: np.stack([x, x], 1)[:, 0],
        list,
    ],
    ids=["itself", "whole", "turned twice", "as bits", "of a new array", "strided", "a list"],
)
def test_views(fn: Callable[..., Any]) -> None:
    """The input itself, a view of it or of a new array, and a list are results like others where they are right."""
    verdict = check_quantizer(fn, "bfloat16", dtype=ml_dtypes.bfloat16)
    assert verdict.outcome is Outcome.HELD, verdict


class Counting:
    """Round as it should in the first call, and away from zero at ties from then on."""

    def __init__(self, calls: int) -> None:
        self.left, self.away = calls, device("e4m3", fault="ties away")

    def __call__(self, x: np.ndarray) -> np.ndarray:
        self.left -= 1
        return RIGHT(x) if self.left >= 0 else self.away(x)


class Scaling:
    """Scale by the greatest number seen so far, in secret."""

    scale = 1.0

    def __call__(self, x: np.ndarray) -> np.ndarray:
        finite = np.abs(x[np.isfinite(x)])
        self.scale = max(self.scale, float(finite.max(initial=0)) / 448)
        with np.errstate(all="ignore"):
            return RIGHT((x.astype(np.float64) / self.scale).astype(np.float32))


class Drawing:
    """Draw its own words, passed off as deterministic."""

    rng = np.random.default_rng(0)

    def __call__(self, x: np.ndarray, **given: np.ndarray) -> np.ndarray:
        assert set(given) <= {"rbits"}
        return STOCHASTIC(x, self.rng.integers(0, 256, len(x)))


@pytest.mark.parametrize("fn", [Counting(1), Counting(2), Drawing()], ids=["second call", "third call", "draws"])
def test_state(fn: Callable[..., Any]) -> None:
    """A function whose answers depend on the calls before is refuted, and that comes first: no cause lies in a number."""
    verdict = check_quantizer(fn, "e4m3", codes=True)
    assert verdict.outcome is Outcome.REFUTED
    first = verdict.counterexample.splitlines()[0]
    assert first.startswith("repeatable: ")
    assert "though RNE takes no random words" in first
    assert "causes" not in verdict.counterexample


def test_state_with_words() -> None:
    """The same of a function that is given words and draws others."""
    verdict = check_quantizer(Drawing(), "e4m3", "SRA", sr_bits=8, codes=True)
    assert "and, asked again, " in verdict.counterexample.splitlines()[0]
    assert "with the same random word" in verdict.counterexample.splitlines()[0]


def test_scale_in_secret() -> None:
    """A scale that is remembered makes other numbers of all: it is refuted."""
    assert check_quantizer(Scaling(), "e4m3", codes=True).outcome is Outcome.REFUTED


def test_late_state() -> None:
    """A state that shows in the very last call alone is seen, since the first question is asked again then."""
    calls = 0

    def count(x: np.ndarray) -> np.ndarray:
        nonlocal calls
        calls += 1
        return RIGHT(x)

    check_quantizer(count, "e4m3", codes=True)
    verdict = check_quantizer(Counting(calls - 1), "e4m3", codes=True)
    assert verdict.counterexample.startswith("repeatable: ")
