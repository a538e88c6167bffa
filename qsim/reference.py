"""The right way: what a rounding *is*, over exact rationals. This file defines bit-accurate.

A finite x is between two values of the format's grid. `split` finds, for |x|, the ordinal n of the lower one and the
discarded fraction nu in [0, 1) of the way to the next; `away` decides between n and n + 1; only then is the result
compared with the range. Nothing here is fast, and nothing here is clever.
"""

from __future__ import annotations

import math
from fractions import Fraction

from qsim.errors import InputError
from qsim.formats import Format, get_format
from qsim.rounding import Mode, Saturation, parse_mode, parse_saturation

__all__ = ["away", "encode", "quantize", "sr_moments"]


def away(mode: Mode, nu: Fraction, odd: bool, negative: bool, sr_bits: int = 0, rbits: int = 0) -> bool:
    """Decide whether a magnitude goes to the upper neighbour.

    `nu` is the discarded fraction, `odd` whether the lower neighbour's code is odd, `rbits` the random word R of
    N = `sr_bits` bits. The rules are those of `Mode`.
    """
    half, whole = Fraction(1, 2), 1 << sr_bits
    match mode:
        case Mode.RNE:
            return nu > half or (nu == half and odd)
        case Mode.RNA:
            return nu >= half
        case Mode.RNZ:
            return nu > half
        case Mode.RNP:
            return nu > half or (nu == half and not negative)
        case Mode.RNN:
            return nu > half or (nu == half and negative)
        case Mode.RTZ:
            return False
        case Mode.RUP:
            return nu > 0 and not negative
        case Mode.RDN:
            return nu > 0 and negative
        case Mode.RAZ:
            return nu > 0
        case Mode.RTO:
            return nu > 0 and not odd
        case Mode.SRB:
            return math.floor(nu * 2 * whole) + 2 * rbits + 1 >= 2 * whole
        case Mode.SRC:
            return round(nu * whole) + rbits >= whole  # Python rounds a Fraction's ties to even
        case Mode.SRE:
            return nu > 0 and 2 * rbits >= whole
        case _:  # SRA, and SR with the widest word
            return math.floor(nu * whole) + rbits >= whole


def encode(
    x: float | Fraction,
    fmt: str | Format,
    mode: str | Mode = Mode.RNE,
    *,
    sr_bits: int = 0,
    rbits: int = 0,
    saturation: str | Saturation | None = None,
) -> int:
    """Return the code that `x` rounds to; x may be any rational, an infinity, a NaN or a signed zero.

    `rbits` is the random word, 0 <= rbits < 2^sr_bits, for the stochastic modes. Rounding comes first, on a grid
    that goes on above the largest value; range comes second. What the format cannot hold follows its data: NaN by
    `nan_to`, an infinity by `saturation`, -0 (and a negative value that rounds to zero) becomes +0 without -0.
    """
    fmt, mode = get_format(fmt), parse_mode(mode)
    rule = parse_saturation(saturation, fmt)
    if not isinstance(x, float | int | Fraction):
        x = float(x)  # a NumPy scalar, exactly
    if mode is Mode.SR and not sr_bits:
        raise InputError("SR needs sr_bits here, the width of the input's widest word: 32 for float32, 64 for float64")
    if sr_bits < 0 or not 0 <= rbits < 1 << sr_bits:
        raise InputError(f"rbits = {rbits} is no word of sr_bits = {sr_bits} bits")
    if isinstance(x, float) and math.isnan(x):
        return {"nan": fmt.nan_code, "max": fmt.code(fmt.top), "zero": 0}[fmt.nan_to] or 0
    negative = math.copysign(1.0, x) < 0 if isinstance(x, float) else x < 0
    limit = fmt.bottom if negative else fmt.top
    if isinstance(x, float) and math.isinf(x):
        return _beyond(fmt, rule, negative, finite=False)
    number, nu = fmt.floor_ordinal(abs(Fraction(x)))
    number += away(mode, nu, number % 2 == 1, negative, sr_bits, rbits)
    if number > limit:
        return (
            fmt.code(-fmt.bottom if negative else fmt.top)
            if mode.inward(negative=negative)
            else (_beyond(fmt, rule, negative, finite=True))
        )
    return fmt.code(-number if negative else number, negative_zero=negative)


def _beyond(fmt: Format, rule: Saturation, negative: bool, finite: bool) -> int:
    """Return the code of a result beyond the range: an infinity if not `finite`, an overflow otherwise."""
    if rule is Saturation.OvfNaN:
        assert fmt.nan_code is not None  # parse_saturation refuses OvfNaN without a NaN
        return fmt.nan_code
    if rule is Saturation.SatNone or (rule is Saturation.SatPropagate and not finite):
        assert fmt.inf_code is not None
        return fmt.inf_code | negative << (fmt.bits - 1)
    return fmt.code(-fmt.bottom if negative else fmt.top)


def quantize(
    x: float | Fraction,
    fmt: str | Format,
    mode: str | Mode = Mode.RNE,
    *,
    sr_bits: int = 0,
    rbits: int = 0,
    saturation: str | Saturation | None = None,
) -> float:
    """Return the value that `x` rounds to: the decoded `encode`."""
    fmt = get_format(fmt)
    return fmt.decode(encode(x, fmt, mode, sr_bits=sr_bits, rbits=rbits, saturation=saturation))


def sr_moments(x: float | Fraction, fmt: str | Format) -> tuple[Fraction, Fraction]:
    """Return the exact mean and variance of SR(x) with unlimited random bits: x, and (hi - x)(x - lo).

    `x` must be within the range. Source: theory F1 and F2; E SR(x) = lo + (hi - lo) nu = x.
    """
    lo, hi = (Fraction(v) for v in get_format(fmt).neighbours(x))
    exact = Fraction(x)
    return exact, (hi - exact) * (exact - lo)
