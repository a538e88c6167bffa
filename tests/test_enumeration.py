"""The oracle of enumeration.py is the definition."""

from __future__ import annotations

import math

import numpy as np
import pytest
from enumeration import codes, exactly, first_word, goes_away, place, roundings, sixteen_bits
from strategies import BFLOAT16, FLOAT16, FLOAT64, P3109, SMALL, both_kinds, edges

from qsim import reference
from qsim.formats import Format, Table, get_format
from qsim.rounding import Mode, saturations


def assert_oracle_is_reference(fmt: Format, x: np.ndarray, shift: int = 0) -> None:
    """Assert that the oracle has the definition's codes: of all `x` in each mode, or (with `shift`) of each number in one.

    Half the words are such where a number turns, or the one before, as are half the thresholds. Number of bits, flushing and
    the sign of NaN change from mode to mode.
    """
    exact, random = exactly(x), np.random.default_rng(3)
    places, numbers = {unbounded: place(fmt, exact, unbounded=unbounded) for unbounded in (False, True)}, exact.tolist()
    nearest = place(fmt, exact, nearest=True)
    for rule in saturations(fmt):
        for m, mode in enumerate(Mode):
            usual = (10, 1, 63, 0, 32)[(m + shift + len(str(rule))) % 5]
            n = {Mode.SRE: 1, Mode.SR: 32}.get(mode, usual)
            last = np.uint64((1 << n) - 1)
            flush = (False, "result", "after", "before")[(m + shift) % 4]
            at = nearest if mode.nearest and isinstance(fmt, Table) else places[flush == "after"]
            turn = np.minimum(first_word(mode, at, n) - random.integers(0, 2, x.shape, np.uint64), last)
            word = np.where(
                random.integers(0, 2, x.shape), turn, random.integers(0, last, x.shape, np.uint64, endpoint=True)
            )
            eps = random.choice([0.0, 0.25, 1 / 3, 1 - 2**-53], x.shape)
            for rounding in roundings(Mode.THR, at, (), 0):
                eps = np.where(random.integers(0, 4, x.shape) == 0, rounding["eps"], eps)
            words, thresholds = word.tolist(), eps.tolist()
            flags = {"ftz_out": flush, "nan": ("canonical", "signed")[m // 2 % 2]}
            mine = np.where(goes_away(mode, at, n, word, eps), *codes(fmt, rule, mode, exact, at, **flags)[::-1])
            for i in range(m if shift else 0, x.size, len(Mode) if shift else 1):
                if fmt.nan_to == "error" and math.isnan(numbers[i]):
                    continue
                code = reference.encode(
                    numbers[i], fmt, mode, sr_bits=n, rbits=words[i], eps=thresholds[i], saturation=rule, **flags
                )
                assert code == mine[i], (numbers[i], mode, rule, n, words[i], thresholds[i], flags)


@pytest.mark.in_part(4)
@pytest.mark.parametrize("fmt", [*SMALL, *(fmt for fmt in P3109 if fmt not in SMALL)], ids=str)
def test_the_oracle_is_the_reference(fmt: Format) -> None:
    """The oracle gives the codes of the definition: in all modes, at thresholds and across the numbers of 16 bits.

    For the family of P3109 each of the numbers in one of the modes.
    """
    some = np.concatenate([exactly(sixteen_bits(kind))[shift::4001] for kind, shift in ((FLOAT16, 1), (BFLOAT16, 2))])
    near, special = edges(fmt, FLOAT64, 400), [math.inf, -math.inf, math.nan, 0.0, -0.0]
    if fmt in P3109:
        assert_oracle_is_reference(fmt, np.concatenate([near[:: max(1, near.size // 600)], some, special]), shift=3)
    else:
        assert_oracle_is_reference(fmt, np.concatenate([near[:: max(1, near.size // 40)], some, special]))


@pytest.mark.parametrize("name", ["float8_e4m3fn", "float8_e8m0fnu", "nf4"])
def test_the_oracle_is_the_reference_for_float16(name: str) -> None:
    """The oracle gives the codes of the definition for all numbers of float16, each in one of the modes."""
    assert_oracle_is_reference(get_format(name), sixteen_bits(FLOAT16), shift=5)


LARGE_CHECK = ("float8_e4m3fn", "float8_e5m2", "Binary8p3se", "Binary8p1uf", "int8", "float8_e8m0fnu", "posit8")


@pytest.mark.exhaustive
@both_kinds
@pytest.mark.parametrize("name", LARGE_CHECK)
def test_the_oracle_is_the_reference_everywhere(name: str, kind: np.dtype) -> None:
    """The oracle gives the codes of the definition for all numbers of both types, in every mode and by every rule."""
    assert_oracle_is_reference(get_format(name), sixteen_bits(kind))
