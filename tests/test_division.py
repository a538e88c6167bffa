"""The divisions of the kernels: rounded to odd in 53 bits, and for tables to 64 bits of a fraction."""

from __future__ import annotations

import math
from fractions import Fraction

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from qsim.formats import get_format
from qsim.kernels import table
from qsim.kernels.division import divide_all, divide_to_odd


def rounded_to_odd(q: Fraction) -> int:
    """Return the pattern of the float64 that |q| is, or of that of the two beside it whose last bit is set."""
    below, rest = get_format("float64").split(abs(q))
    largest = (0x7FF << 52) - 1
    return min(below | (rest > 0), largest)


def positive(low: int = 1, high: int = (0x7FF << 52) - 1) -> st.SearchStrategy[int]:
    """Return the pattern of a positive float64: any, one beside a power of two, or a small integer."""
    powers = st.tuples(st.integers(0, 0x7FE), st.integers(-2, 2)).map(lambda pair: (pair[0] << 52) + pair[1])
    small = st.integers(1, 1000).map(lambda n: int(np.float64(n).view(np.uint64)))
    return st.one_of(st.integers(low, high), powers, small).filter(lambda pattern: low <= pattern <= high)


@settings(max_examples=500)
@given(st.integers(0, 1), positive(), positive())
def test_division_rounds_to_odd(sign: int, x: int, s: int) -> None:
    """The result is the quotient where a float64 holds it, else the neighbour whose last bit is set, subnormal or largest."""
    a, b = (Fraction(float(np.uint64(pattern).view(np.float64))) for pattern in (x, s))
    x |= sign << 63
    y = np.empty(1, np.uint64)
    divide_all(np.array([x], np.uint64), np.array([s], np.uint64), y)
    assert y[0] == rounded_to_odd(a / b) | sign << 63
    with np.errstate(over="ignore"):  # wrapping is meant
        assert divide_to_odd(np.uint64(x), np.uint64(s)) == y[0]


def test_division_of_what_is_no_number() -> None:
    """Zeros, infinities and NaN stay as they are."""
    x = np.array([0.0, -0.0, math.inf, -math.inf, math.nan])
    y = np.empty(5, np.uint64)
    divide_all(x.view(np.uint64), np.array([3.0, 5e-324, 1.0, 2.0, 7.0]).view(np.uint64), y)
    assert y.tobytes() == x.tobytes()


def test_the_division_of_tables() -> None:
    """Quotient and remainder are those of Python's integers, for divisors of all widths and digits that are hard to guess."""
    random, word = np.random.default_rng(8), np.uint64
    for bits in range(1, 64):
        low, high = 1 << (bits - 1), 1 << bits
        sizes = {low, high - 1, *(int(random.integers(low, high, dtype=word)) for _ in range(20))}
        sizes |= {size for k in (1, 2, 1 << 32) for size in (low + k, high - k) if low <= size < high}
        for size in sizes:
            for d in {0, size - 1, size // 2, int(random.integers(0, size, dtype=word))}:
                for fraction in (0, 1, (1 << 64) - 1, int(random.integers(0, 1 << 63, dtype=word))):
                    with np.errstate(over="ignore"):
                        found = table.divide(word(d), word(fraction), word(size), word(64 - bits))
                    quotient, rest = divmod((d << 64) + fraction, size)
                    assert tuple(map(int, found)) == (quotient, rest > 0), (d, fraction, size)
