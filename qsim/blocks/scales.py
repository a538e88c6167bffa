"""Rules by which the scale of a block follows from its largest magnitude m.

With M the largest magnitude of an element, 2^e its binade, and k = floor(log2 m) - e:

    floor     2^k                                          OCP MX 6.3, microxcaling; m may exceed s M, and is clamped
    ceil      2^k, or 2^(k+1) if m is no power of two      never clamps
    rceil     2^k, or 2^(k+1) if m > 2^k M                 the smallest power of two with m <= s M; never clamps
    even      2^k, or 2^(k+1) if m, rounded to the digits of an element with ties away, is 2^(k+e+1)
    midmax    2^k, or 2^(k+1) if m >= 2^k (M + 2^(e+1))/2  the nearer of s M and the next binade
    nearest   m / M rounded to nearest in the format of the scale
    up        m / M rounded up to it                       never clamps, short of its largest value

The first five are for scales that are powers of two, and differ only in the significand of m at which the next power is
taken. A zero block has the smallest scale; all scales stay within their format. `nearest` and `up` are for other scales.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Mapping
from fractions import Fraction
from typing import Any

import numpy as np
from numpy.typing import NDArray

from qsim import reference
from qsim.arrays import quantize
from qsim.blocks.formats import BlockFormat, floor_log2
from qsim.errors import InputError, nearest
from qsim.formats import Format, Grid

__all__ = ["RULES", "exact_scale", "fits", "parse_rule", "scales_of"]

Threshold = Callable[[BlockFormat], tuple[Fraction, bool]]


def _digits(fmt: BlockFormat) -> int:
    """Return the bits after the leading one that elements have in the binade of the largest."""
    element = fmt.element
    top = element.value(element.top)
    return fmt.emax - floor_log2(top - element.value(element.top - 1))


RULES: Mapping[str, Threshold | None] = {
    "floor": lambda _: (Fraction(2), True),
    "ceil": lambda _: (Fraction(1), False),
    "rceil": lambda fmt: (fmt.largest / Fraction(2) ** fmt.emax, False),
    "even": lambda fmt: (2 - Fraction(1, 2 << _digits(fmt)), True),
    "midmax": lambda fmt: (fmt.largest / Fraction(2) ** fmt.emax / 2 + 1, True),
    "nearest": None,
    "up": None,
}
"""The rules; of a power of two the significand at which the next one is taken, and whether it itself takes it."""


def of_powers(scale: Format) -> bool:
    """Return whether all values of a format of scales are powers of two."""
    return isinstance(scale, Grid) and scale.man_bits == 0 and not scale.even


def fits(rule: str, scale: Format) -> bool:
    """Return whether a rule is one for scales of this format."""
    return (RULES[rule] is not None) == of_powers(scale)


def parse_rule(rule: str | None, fmt: BlockFormat) -> str:
    """Return the scale rule spelled `rule`, or that of the format for `None`; refuse one that makes no sense for it."""
    if rule is None:
        return fmt.rule
    allowed = [name for name in RULES if fits(name, fmt.scale)]
    if rule not in allowed:
        if rule in RULES:
            raise InputError(f"scale_rule = {rule!r} makes no sense for {fmt.name}, which takes {', '.join(allowed)}")
        raise InputError(f"no scale rule is called {rule!r}; did you mean {nearest(str(rule), allowed)}?")
    return rule


@functools.lru_cache(maxsize=256)
def _step(fmt: BlockFormat, rule: str) -> tuple[float, bool, int, int]:
    """Return the significand at which the next power is taken, whether it itself is, and the least and largest exponent."""
    threshold = RULES[rule]
    assert threshold is not None
    at, inclusive = threshold(fmt)
    lowest, highest = (floor_log2(fmt.scale.value(ordinal)) for ordinal in (1, fmt.scale.top))
    return float(at), inclusive, lowest, highest


def scales_of(m: NDArray[Any], fmt: BlockFormat, rule: str) -> NDArray[Any]:
    """Return the scales of blocks with these finite maxima, float32 or float64, in their type, by arrays."""
    if RULES[rule] is None:
        quotient = (m.astype(np.float64) / float(fmt.largest)).astype(m.dtype)
        mode = "RNE" if rule == "nearest" else "RUP"
        return np.asarray(quantize(quotient, fmt.scale, mode, saturation="SatFinite"))
    at, inclusive, lowest, highest = _step(fmt, rule)
    fraction, exponent = np.frexp(m)
    significand = fraction * 2
    upper = significand >= at if inclusive else significand > at
    k = np.clip(exponent - 1 - fmt.emax + upper, lowest, highest)
    k[m == 0] = lowest
    powers: NDArray[Any] = np.ldexp(m.dtype.type(1), k)
    return powers


def exact_scale(m: Fraction, fmt: BlockFormat, rule: str, precision: str = "float32") -> Fraction:
    """Return the scale of a block with the largest magnitude m, by its definition in rationals.

    For `nearest` and `up` the quotient m / M is rounded to `precision` first, as division does.
    """
    if RULES[rule] is None:
        quotient = Fraction(reference.quantize(m / fmt.largest, precision))
        mode = "RNE" if rule == "nearest" else "RUP"
        return Fraction(reference.quantize(quotient, fmt.scale, mode, saturation="SatFinite"))
    lowest, highest = fmt.scale.value(1), fmt.scale.value(fmt.scale.top)
    if not m:
        return lowest
    power = Fraction(2) ** (floor_log2(m) - fmt.emax)
    match rule:
        case "floor":
            take = False
        case "ceil":
            take = m > power * Fraction(2) ** fmt.emax
        case "rceil":
            take = m > power * fmt.largest
        case "even":
            binade = power * Fraction(2) ** fmt.emax
            unit = binade / (1 << _digits(fmt))
            take = math.floor(m / unit + Fraction(1, 2)) * unit >= 2 * binade
        case _:
            take = m >= power * (fmt.largest + Fraction(2) ** (fmt.emax + 1)) / 2
    return min(max(power * (2 if take else 1), lowest), highest)
