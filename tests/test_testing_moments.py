"""The bias and the variance of somebody's own function: exact, number by number, and printed beside those of the mode."""

from __future__ import annotations

import re
from collections.abc import Callable
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from devices import device

from qsim import arrays
from qsim.formats import get_format
from qsim.testing import check_quantizer
from qsim.testing.moments import Cell, Moments
from qsim.verdicts import Outcome


def saturating(r: np.ndarray) -> np.ndarray:
    """Return words that are one larger, but for the last one."""
    return np.minimum(r.astype(np.int64) + 1, 255)


FUNCTIONS = {
    "right": ("SRA", 8, device("e4m3", "SRA", 8)),
    "biased": ("SRA", 8, lambda x, rbits: device("e4m3", "SRA", 8)(x, saturating(rbits))),
    "one more": ("SRA", 8, device("e4m3", "SRA", 8, "word plus one")),
    "fewer bits": ("SRA", 8, device("e4m3", "SRA", 8, "fewer bits")),
    "floor": ("SRA", 8, device("e4m3", "SRA", 8, "floor")),
    "ignored": ("SRA", 5, device("e4m3", "SRA", 5, "word ignored")),
    "low bits": ("SRA", 6, device("e4m3", "SRA", 6, "low bits")),
    "not monotone": ("SRA", 4, device("e4m3", "SRA", 4, "word reversed")),
    "SRB": ("SRB", 5, device("e4m3", "SRB", 5)),
    "SRC for SRB": ("SRB", 5, device("e4m3", "SRC", 5)),
    "carry lost": ("SRA", 3, device("e4m3", "SRA", 3, "carry lost")),
    "no bits": ("SRA", 0, device("e4m3", "SRA", 0)),
}
"""Modes, numbers of random bits, and functions, right and wrong ones."""


@pytest.mark.parametrize(("mode", "n", "fn"), FUNCTIONS.values(), ids=FUNCTIONS)
def test_moments_are_exact(mode: str, n: int, fn: Callable[..., Any]) -> None:
    """Mean and variance are those of all 2^N answers, each a fraction; those of the mode are their closed forms."""
    fmt = get_format("e4m3")
    moments = check_quantizer(fn, "e4m3", mode, sr_bits=n, codes=True, laws="moments").moments
    assert len(moments) > 500
    for cell in list(moments)[:: len(moments) // 60]:
        words = np.arange(1 << n, dtype=np.uint32)
        answers = [Fraction(fmt.decode(int(code))) for code in fn(np.full(1 << n, cell.x, np.float32), rbits=words)]
        mean = sum(answers) / len(answers)
        assert cell.mean == mean
        assert cell.variance == sum((answer - mean) ** 2 for answer in answers) / len(answers)
        inner, nu = fmt.split(Fraction(cell.x))
        outer = inner + (-1 if np.signbit(cell.x) else 1)
        low, high = fmt.value(inner), fmt.value(outer)
        assert (cell.nu, Fraction(cell.inner), Fraction(cell.outer)) == (nu, low, high)
        assert cell.bias == (mean - Fraction(cell.x)) / (high - low)
        p = Fraction(nu * 2**n // 1, 2**n) if mode == "SRA" else Fraction((nu * 2 ** (n + 1) // 1 + 1) // 2, 2**n)
        assert cell.mode_mean == low + p * (high - low)
        assert cell.mode_variance == (high - low) ** 2 * p * (1 - p)
        assert cell.mode_bias == p - nu


def test_known_biases() -> None:
    """StochasticA of 8 bits loses up to 2^-8 of an interval; with the next word it gains 2^-8 where it should lose nothing."""
    right = check_quantizer(FUNCTIONS["right"][2], "e4m3", "SRA", sr_bits=8, codes=True)
    assert right.outcome is Outcome.HELD
    assert Fraction(-1, 256) < right.bias.worst < Fraction(-255, 256 * 256)
    assert right.bias.mean == right.bias.mode_mean < 0
    assert right.bias.worst == right.bias.mode_worst
    biased = check_quantizer(FUNCTIONS["biased"][2], "e4m3", "SRA", sr_bits=8, codes=True)
    assert biased.outcome is Outcome.REFUTED
    assert biased.bias.worst == Fraction(1, 256)
    assert all(
        cell.bias == cell.mode_bias + Fraction(1, 256) for cell in biased.moments if cell.mode_bias + cell.nu > 0
    )
    floor = check_quantizer(FUNCTIONS["floor"][2], "e4m3", "SRA", sr_bits=8, codes=True)
    assert floor.bias.upward < 0
    assert abs(floor.bias.mean) < abs(floor.bias.upward) / 4  # of negative numbers it is away from zero
    assert " toward the greater neighbour)" in str(floor.bias)


def test_bias_is_printed() -> None:
    """The text has both biases, the worst of each with its number; and says so where there is none."""
    text = str(check_quantizer(FUNCTIONS["biased"][2], "e4m3", "SRA", sr_bits=8, codes=True))
    line = " ".join(text[text.index("your bias: ") :].split("\n\n", maxsplit=1)[0].split())
    found = re.fullmatch(
        r"your bias: \+0.00\d+ of an interval away from zero, at worst \+0.00391 at (\S+); "
        r"the mode's: -0.00\d+, at worst -0.00391 at \S+",
        line,
    )
    assert found
    exact = Cell(x=1.5, inner=1.0, outer=2.0, nu=Fraction(1, 2), mean=Fraction(3, 2), variance=Fraction(1, 4),
                 mode_mean=Fraction(3, 2), mode_variance=Fraction(1, 4))  # fmt: skip
    assert str(Moments(cells=(exact,), says="").bias) == "your bias: none; the mode's: none"


def test_rows() -> None:
    """The table is a list of records with exact fractions."""
    moments = check_quantizer(FUNCTIONS["right"][2], "e4m3", "SRA", sr_bits=8, codes=True).moments
    rows = moments.rows()
    assert len(rows) == len(moments)
    assert list(rows[0]) == [
        "x", "inner", "outer", "nu", "mean", "variance", "bias", "mode_mean", "mode_variance", "mode_bias"
    ]  # fmt: skip
    assert all(row["mean"] == row["mode_mean"] and isinstance(row["variance"], Fraction) for row in rows)


@pytest.mark.parametrize(
    ("mode", "n", "dtype"), [("SR", 32, np.float32), ("SRC", 20, np.float32), ("SR", 64, np.float64)]
)
def test_words_too_many_to_try(mode: str, n: int, dtype: type) -> None:
    """Of more words the bias follows from the one at which a number turns; a function one word off is one 2^-N off."""

    def right(x: np.ndarray, rbits: np.ndarray) -> np.ndarray:
        return arrays.quantize(x, "e4m3", mode, sr_bits=n, rbits=rbits)

    def late(x: np.ndarray, rbits: np.ndarray) -> np.ndarray:
        less = np.where(rbits > 0, rbits - rbits.dtype.type(1), 0).astype(rbits.dtype)
        return arrays.quantize(x, "e4m3", mode, sr_bits=n, rbits=less)

    moments = check_quantizer(right, "e4m3", mode, sr_bits=n, dtype=dtype).moments
    assert len(moments) > 100
    assert all(cell.mean == cell.mode_mean and cell.variance == cell.mode_variance for cell in moments)
    assert "the word at which each turns" in moments.says
    moments = check_quantizer(late, "e4m3", mode, sr_bits=n, dtype=dtype).moments
    between = [cell for cell in moments if cell.mode_mean != Fraction(cell.inner)]
    assert all(cell.bias == cell.mode_bias - Fraction(1, 1 << n) for cell in between)


def test_not_counted() -> None:
    """Nothing is counted of a deterministic mode, without the law, and where a greater word turns a number back."""
    assert check_quantizer(device("e4m3"), "e4m3", codes=True).moments is None
    fn = FUNCTIONS["right"][2]
    assert check_quantizer(fn, "e4m3", "SRA", sr_bits=8, codes=True, laws=["words"]).bias is None

    def back(x: np.ndarray, rbits: np.ndarray) -> np.ndarray:
        return arrays.quantize(x, "e4m3", "SR", sr_bits=32, rbits=~rbits)

    verdict = check_quantizer(back, "e4m3", "SR")
    assert "word order" in verdict.counterexample
    assert verdict.moments is None


def test_results_that_are_no_numbers() -> None:
    """A number some of whose results are NaN has no mean, and the function no bias."""
    right = check_quantizer(FUNCTIONS["right"][2], "e4m3", "SRA", sr_bits=8, codes=True, laws="moments")
    chosen = right.moments.cells[7].x

    def lost(x: np.ndarray, rbits: np.ndarray) -> np.ndarray:
        return np.where((x == chosen) & (rbits == 3), 0x7F, FUNCTIONS["right"][2](x, rbits))

    verdict = check_quantizer(lost, "e4m3", "SRA", sr_bits=8, codes=True)
    assert verdict.outcome is Outcome.REFUTED
    (cell,) = [cell for cell in verdict.moments if cell.mean is None]
    assert (cell.x, cell.variance, cell.bias) == (chosen, None, None)
    assert verdict.bias is None
    assert "your bias" not in str(verdict)
