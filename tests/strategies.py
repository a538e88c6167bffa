"""Hypothesis strategies and lists that several tests share: formats, floats of every pattern, thresholds, words."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
from hypothesis import strategies as st

from qsim.errors import InputError
from qsim.formats import SUFFIX, Format, catalogue, get_format, integer_format
from qsim.kernels.parameters import CARRIERS

FLOAT32, FLOAT64 = np.dtype(np.float32), np.dtype(np.float64)


def _parametric() -> list[Format]:
    """Return the formats of all spellings eXmY of up to 16 bits that can exist and have no name of their own."""
    found = {}
    for exp_bits in range(1, 12):
        for man_bits in range(16 - exp_bits):
            for letters in SUFFIX:
                try:
                    fmt = get_format(f"float{1 + exp_bits + man_bits}_e{exp_bits}m{man_bits}{letters}")
                except InputError:
                    continue
                found[fmt.name] = fmt
    return [fmt for name, fmt in found.items() if name not in catalogue()]


CATALOGUE = list(catalogue().values())
PARAMETRIC = _parametric()
INTEGERS = [integer_format(f"int{bits}", bits, "drawn by a test") for bits in range(2, 33)]
_PARAMETRIC = ("e4m2fn", "e4m1fn", "e4m0fn", "e4m3fnuz", "e5m0fn", "e3m4", "e3m0f", "e1m2fn", "e2m2fnuz")
SMALL = [*(fmt for fmt in CATALOGUE if fmt.bits <= 8), *map(get_format, _PARAMETRIC)]
"""Formats of up to 8 bits: the named ones, and parametric ones with every kind of special values."""


def formats(carrier: np.dtype = FLOAT64) -> st.SearchStrategy[Format]:
    """Return any format that `carrier` holds: named ones, parametric ones of up to 16 bits, integers."""
    groups = ([fmt for fmt in group if CARRIERS[carrier].holds(fmt)] for group in (CATALOGUE, PARAMETRIC, INTEGERS))
    return st.one_of(map(st.sampled_from, groups))


def words(bits: int) -> st.SearchStrategy[int]:
    """Return any random word of `bits` bits."""
    return st.integers(0, (1 << bits) - 1)


def patterns(carrier: np.dtype) -> st.SearchStrategy[np.generic]:
    """Return a float of any bit pattern: NaNs with payloads, infinities, signed zeros and subnormals included."""
    carrier_word = CARRIERS[carrier].word
    return words(8 * carrier.itemsize).map(lambda pattern: carrier_word(pattern).view(carrier))


@st.composite
def near_thresholds(draw: st.DrawFn, fmt: Format, carrier: np.dtype) -> np.generic:
    """Return a grid value of `fmt`, the middle of an interval or a float next to these, up to a step beyond `max`."""
    ordinal = draw(st.integers(0, max(fmt.top, fmt.bottom) + 1))
    lower, upper = fmt.value(ordinal), fmt.value(ordinal + 1)
    exact = draw(st.sampled_from([lower, (lower + upper) / 2]))
    steps = draw(st.integers(-1, 1))
    with np.errstate(over="ignore"):  # what lies beyond the largest float is infinity
        value = carrier.type(float(min(exact, Fraction(np.finfo(np.float64).max))))
        value = np.nextafter(value, carrier.type(steps * np.inf)) if steps else value
    return draw(st.sampled_from([value, -value]))


def inputs(fmt: Format, carrier: np.dtype) -> st.SearchStrategy[np.generic]:
    """Return what a rounding of `carrier` numbers to `fmt` should be tried on."""
    return st.one_of(patterns(carrier), near_thresholds(fmt, carrier))
