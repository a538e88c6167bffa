"""Stochastic quantizers as people write them, and the causes that are told: none that a right answer contradicts."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from devices import device, named, unwrapped

from qsim import arrays
from qsim.errors import InputError
from qsim.testing import check_quantizer, check_stochastic_device, plan_device_check
from qsim.verdicts import Outcome


def added(x: np.ndarray, r: np.ndarray, dropped: int = 20) -> np.ndarray:
    """Add words below the bits that are kept, and mask: the SR of many a training script."""
    mask = np.uint32((1 << 32) - (1 << dropped))
    return ((x.view(np.uint32) + r) & mask).view(np.float32)


def split(x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the integer part and the fraction of finite magnitudes, 0 for others."""
    size = np.where(np.isfinite(x), np.abs(x.astype(np.float64)), 0.0)
    return np.floor(size), size - np.floor(size)


def joined(x: np.ndarray, whole: np.ndarray) -> np.ndarray:
    """Return what becomes of numbers that were rounded to integers, by int8's saturation."""
    y = np.clip(np.copysign(np.where(np.isinf(x), 1e9, whole), x), -128, 127)
    return np.where(np.isnan(x), 0.0, y) + 0.0


def significand(x: np.ndarray) -> np.ndarray:
    """Round to four significand bits, with no regard to the exponent."""
    mantissa, exponent = np.frexp(x.astype(np.float64))
    return np.where(np.isfinite(x), np.ldexp(np.rint(np.ldexp(mantissa, 4)), exponent - 4), x)


def kept(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Return `y`, but NaN and infinities as they were."""
    return np.where(np.isfinite(x), y, x)


def to_int8(goes: Callable[[np.ndarray, np.ndarray], np.ndarray]) -> Callable[..., np.ndarray]:
    """Return a rounding to int8 that goes away from zero where `goes` says so of fraction and word."""

    def rounded(x: np.ndarray, rbits: np.ndarray) -> np.ndarray:
        whole, nu = split(x)
        return joined(x, whole + goes(nu, rbits))

    return rounded


def ceiled(bits: int) -> Callable[..., np.ndarray]:
    """Return SR to int8 that compares the top bits of the word with the fraction itself."""
    return to_int8(lambda nu, r: (r >> (32 - bits)) / 2.0**bits < nu)


WRITTEN = [
    ("e4m3", "SR", 32, lambda x, rbits: kept(x, added(x, rbits >> np.uint32(12))),
     "adds the word below the kept bits, masks: no subnormals, no range"),
    ("e4m3", "SR", 32, lambda x, rbits: kept(x, added(x, rbits & np.uint32(0xFFFFF))),
     "adds the word's low bits below the kept bits, masks: no subnormals, no range"),
    ("e4m3", "SRA", 8, lambda x, rbits: kept(x, added(x, rbits << np.uint32(12))),
     "adds the word below the kept bits, masks: no subnormals, no range"),
    ("bfloat16", "SRA", 16, lambda x, rbits: added(x, rbits, 16),
     "adds the word below the kept bits, masks: no subnormals, no range, no NaNs"),
    ("e4m3", "SR", 32,
     lambda x, rbits: np.clip(kept(x, added(x, rbits >> np.uint32(12))), -448, 448).astype(ml_dtypes.float8_e4m3fn),
     "adds the word below the kept bits, masks, then converts to nearest"),
    ("int8", "SR", 32, ceiled(4), "goes away iff u < nu, u of 4 bits: with the probability ceil(nu 2^4) / 2^4"),
    ("int8", "SR", 32, ceiled(24), "goes away iff u < nu, u of 24 bits: with the probability ceil(nu 2^24) / 2^24"),
    ("int8", "SRA", 8, to_int8(lambda nu, r: (r <= nu * 256) & (nu > 0)),
     "goes away from zero iff R <= nu 2^N, exact values aside"),
    ("int8", "SRA", 8, to_int8(lambda nu, r: r <= nu * 256),
     "goes away from zero iff R <= nu 2^N: the complemented word, and one more"),
    ("int8", "SRA", 8, to_int8(lambda nu, r: np.ceil(nu * 256) + r >= 256),
     "rounds the fraction up to 8 bits: with the probability ceil(nu 2^8) / 2^8"),
    ("e4m3", "SRA", 8, lambda x, rbits: device("e4m3", "SRA", 8)(x, np.minimum(rbits.astype(np.int64) + 1, 255)),
     "uses the word R + 1, and the last one as it is"),
    ("e4m3", "SR", 32, lambda x, rbits: arrays.quantize(x, "e4m3", "SRC", sr_bits=4, rbits=rbits >> 28),
     "rounds by SRC (StochasticC) of the top 4 of the word's 32 bits"),
    ("e4m3", "SR", 32, lambda x, rbits: arrays.quantize(x, "e4m3", "SRB", sr_bits=4, rbits=rbits >> 28),
     "rounds by SRB (StochasticB) of the top 4 of the word's 32 bits"),
    ("e4m3", "RNE", None, significand, "ignores the exponent range: no subnormals, no largest value, and infinities stay"),
]  # fmt: skip
"""Formats, modes, bits, functions, and what is wrong with them."""


@pytest.mark.in_part(2)
@pytest.mark.parametrize(("name", "mode", "n", "fn", "cause"), WRITTEN, ids=[f"{w[1]} {w[4]}" for w in WRITTEN])
def test_written_fault(name: str, mode: str, n: int | None, fn: Callable[..., Any], cause: str) -> None:
    """What people write is refuted, and the mistake is a cause that gives all answers, the right ones included."""
    with np.errstate(all="ignore"):
        verdict = check_quantizer(
            fn, name, mode, sr_bits=n, codes=fn(np.ones(1, np.float32), **given(n)).dtype.kind == "i"
        )
    assert verdict.outcome is Outcome.REFUTED
    assert cause in " ".join(verdict.counterexample.split())
    assert "in part" not in verdict.counterexample
    assert " wrong and all " in unwrapped(verdict)


def given(n: int | None) -> dict[str, np.ndarray]:
    """Return a word for one number, if there are any."""
    return {} if n is None else {"rbits": np.zeros(1, np.uint32)}


def test_right_answers_contradict_a_cause() -> None:
    """With words of its own a quantizer that moves exact values has no cause but that: its right answers say so."""
    right, rng = device("e4m3", "SRA", 8), np.random.default_rng(0)

    def moving(x: np.ndarray) -> np.ndarray:
        return right(x, rng.integers(0, 256, len(x))) + ((x == 1.5) | (x == -3))

    verdict = check_quantizer(moving, "e4m3", "SRA", sr_bits=8, codes=True)
    assert verdict.outcome is Outcome.REFUTED
    assert named(verdict)[0] == "none of the known faults gives this answer"


def test_no_cause_of_own_words_by_luck() -> None:
    """A few wrong answers that go away from zero do not make it RAZ where right ones stay."""
    rng = np.random.default_rng(0)

    def few(x: np.ndarray) -> np.ndarray:
        whole, nu = split(x)
        return joined(x, whole + (rng.integers(0, 4, len(x)) / 4 < nu))

    text = check_quantizer(few, "int8", "SR").counterexample
    assert "RAZ" not in text
    assert "as if: goes away iff u < nu, u of 2 random bits: with the probability ceil(nu 2^2) / 2^2" in text


def test_a_variant_that_gives_most_is_told() -> None:
    """A converter differs for ties, zeros and near the least value: a package's variant gives all but the last."""

    def convert(x: np.ndarray) -> np.ndarray:  # as ml_dtypes 0.6 does
        between = (x > 2.0**-127) & (x < 2.0**-126)
        return np.where(between, x.dtype.type(2.0**-126), x).astype(ml_dtypes.float8_e8m0fnu)

    verdict = check_quantizer(convert, "e8m0", saturation="OvfNaN")
    causes = [line for line in named(verdict) if line.startswith("in part: ")]
    assert causes == ["in part: converts as float8_e8m0fnu@ml_dtypes does, OvfNaN (130 of 137 wrong answers)"]


def test_modes_that_do_not_differ() -> None:
    """A device whose frequencies are those of SRB and of SRC is said to be one of the two."""
    rng = np.random.default_rng(0)

    def four_bits(x: np.ndarray) -> np.ndarray:
        return arrays.quantize(x, "e4m3", "SRC", sr_bits=4, rbits=rng.integers(0, 16, len(x)))

    plan = plan_device_check("e4m3", "SR", bias=1 / 64, bits=6)
    first = check_stochastic_device(four_bits, plan).counterexample.splitlines()[0]
    assert first == (
        "as if: rounds by SRB (StochasticB) of 4 random bits, or rounds by SRC (StochasticC) of 4 random bits"
    )


def test_device_of_few_bits() -> None:
    """A device that compares few random bits with the fraction itself is told so."""
    rng = np.random.default_rng(0)

    def few(x: np.ndarray) -> np.ndarray:
        whole, nu = split(x)
        return np.copysign(whole + (rng.integers(0, 16, len(x)) / 16 < nu), x)

    plan = plan_device_check("int8", "SRA", sr_bits=8, bias=1 / 64, bits=6)
    text = check_stochastic_device(few, plan).counterexample
    assert "as if: goes away iff u < nu, u of 4 random bits: with the probability ceil(nu 2^4) / 2^4" in text


# --- Tensors ---------------------------------------------------------------------------------------------------------


class Tensor:
    """Stand for a tensor of a type that NumPy does not have, as torch's are."""

    def __init__(self, dtype: str) -> None:
        self.dtype = dtype

    def __array__(self, dtype: Any = None, copy: Any = None) -> np.ndarray:
        """Refuse, as torch does."""
        raise TypeError(f"Got unsupported ScalarType {self.dtype.removeprefix('torch.').capitalize()}")


@pytest.mark.parametrize(
    ("dtype", "hint"),
    [
        (
            "torch.float8_e4m3fn",
            "Float8_e4m3fn; return its codes, tensor.view(torch.uint8).numpy(), and say codes=True",
        ),
        ("torch.float8_e8m0fnu", "return its codes, tensor.view(torch.uint8).numpy(), and say codes=True"),
        ("torch.bfloat16", "ScalarType Bfloat16; return tensor.float().numpy()"),
        ("torch.complex32", "of which NumPy makes no array: Got unsupported ScalarType Complex32"),
    ],
)
def test_tensors_of_other_types(dtype: str, hint: str) -> None:
    """A result that NumPy makes no array of is refused with what to return in its place."""
    with pytest.raises(InputError) as caught:
        check_quantizer(lambda _: Tensor(dtype), "e4m3")
    assert str(caught.value).endswith(hint)


@pytest.mark.parametrize(
    ("fn", "hint"),
    [
        (lambda x: x.abs(), "x is a NumPy array; a function of torch tensors is given as lambda x: fn(torch.from_numpy(x))"),
        (lambda x, noise: x + noise, "it is called as fn(x), or as fn(x, rbits=...) if it has an argument of that name"),
    ],
)  # fmt: skip
def test_functions_of_something_else(fn: Callable[..., Any], hint: str) -> None:
    """The error of a function that expects something else than an array has a note that says what it was given."""
    with pytest.raises((AttributeError, TypeError)) as caught:
        check_quantizer(fn, "e4m3")
    assert any(note.startswith(hint) for note in caught.value.__notes__)
    assert "it fails for the number 1.0 alone" in caught.value.__notes__[0]
