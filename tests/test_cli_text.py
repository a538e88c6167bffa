"""How the commands write numbers, tables and JSON."""

from __future__ import annotations

import itertools
import json
import math
from fractions import Fraction

import pytest
from command import value_of
from hypothesis import given
from hypothesis import strategies as st

from qsim.cli import text


def test_json_has_no_bare_nan() -> None:
    """NaN and infinities become strings wherever they stand, for JSON has no such numbers."""
    plain = {"a": [float("nan"), (1.5, float("-inf"))], "b": {"c": float("inf")}, "d": None}
    assert json.loads(text.as_json(plain)) == {"a": ["nan", [1.5, "-inf"]], "b": {"c": "inf"}, "d": None}


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (0.125, "2^-3"),
        (448, "1.75*2^8"),
        (3.0, "1.5*2^1"),
        (1.0, "2^0"),
        (0.0, "0"),
        (5e-324, "2^-1074"),
        (65504, "2^16-2^5"),
        (-65504, "-(2^16-2^5)"),
        (-0.3125, "-1.25*2^-2"),
        (2**31 - 1, "2^31-1"),
        (2 - 2.0**-9, "2-2^-9"),
        (-0.6961928009986877, "-11680177*2^-24"),
        (float(2**40 + 1), "1099511627777"),
        (Fraction(7, 2**5000), "1.75*2^-4998"),
    ],
)
def test_products_with_powers_of_two(value: float | Fraction, shown: str) -> None:
    """Numbers are written as a short factor times a power of two, or a difference of two, exactly."""
    assert text.exact(value) == shown
    assert value_of(shown) == value


@given(st.floats(allow_nan=False, allow_infinity=False), st.integers(-3000, 3000))
def test_products_read_back(value: float, exponent: int) -> None:
    """Any number of finitely many binary digits reads back from what is written."""
    number = Fraction(value) * Fraction(2) ** exponent
    assert value_of(text.exact(number)) == number


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (448.0, "448"), (Fraction(448), "448"), (-0.0, "-0"), (Fraction(1, 8), "0.125"), (Fraction(2) ** 16382, "~2.97e+4931"),
        (-(Fraction(2) ** -5000), "~-7.08e-1506"), (Fraction(2**53 + 1), "~9.01e+15"), (math.inf, "inf"),
    ],
)  # fmt: skip
def test_decimals(value: float | Fraction, shown: str) -> None:
    """A number is written so that it reads back, or marked as only near it where no float64 is equal to it."""
    assert text.number(value) == shown


@given(st.sets(st.integers(0, 60)))
def test_spans(numbers: set[int]) -> None:
    """Runs hold the numbers and no others, and none is the continuation of the one before."""
    found = text.spans(sorted(numbers))
    assert [n for first, last in found for n in range(first, last + 1)] == sorted(numbers)
    assert all(before[1] + 1 < after[0] for before, after in itertools.pairwise(found))


def test_a_table_leaves_out_what_is_empty() -> None:
    """A column in which no line has a word is not printed."""
    assert text.table(("a", "b", "c"), [("1", "", "3"), ("10", "", "")], right="a") == " a  c\n--  -\n 1  3\n10"
