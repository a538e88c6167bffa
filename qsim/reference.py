"""The definition of every rounding, over exact rationals: "bit-accurate" means equal to this file.

A finite x is between two values of the format. `Format.split` finds its neighbour toward zero and the discarded fraction nu
in [0, 1) of the way to the outward one; `away` decides between the two; only then is the result compared with the range.
Nothing here is fast, and nothing here is clever.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from fractions import Fraction
from typing import Literal

from qsim.errors import InputError, enumerate_names, integer
from qsim.formats import Format, Grid, get_format
from qsim.rounding import (
    DERIVED,
    ORDERS,
    Flush,
    Mode,
    Order,
    Saturation,
    check_eps,
    parse_ftz_out,
    parse_mode,
    parse_nan,
    parse_saturation,
)
from qsim.underflow import gradual_underflow

__all__ = [
    "arithmetic",
    "away",
    "derived_scale",
    "encode",
    "flushed",
    "locate",
    "quantize",
    "restored",
    "scaled",
    "sr_moments",
    "tiny",
]

HALF = Fraction(1, 2)
CLAMPING = (Saturation.SatFinite, Saturation.SatPropagate, Saturation.InfNaN, Saturation.saturate)


def away(
    mode: Mode, nu: Fraction, odd: bool, negative: bool, sr_bits: int = 0, rbits: int = 0, eps: float = 0.0
) -> bool:
    """Decide whether x goes to its outward neighbour.

    `nu` is the discarded fraction, `odd` whether the inner neighbour's code is odd, `rbits` the random word R of
    N = `sr_bits` bits. The rules are those of `Mode`.
    """
    whole = 1 << sr_bits
    match mode:
        case Mode.RNE:
            return nu > HALF or (nu == HALF and odd)
        case Mode.RNA:
            return nu >= HALF
        case Mode.RNZ:
            return nu > HALF
        case Mode.RNP:
            return nu > HALF or (nu == HALF and not negative)
        case Mode.RNN:
            return nu > HALF or (nu == HALF and negative)
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
        case Mode.THR:  # up iff the fraction from the lesser neighbour, 1 - nu for negative x, exceeds eps
            return nu > 0 and not 1 - nu > eps if negative else nu > eps
        case Mode.SRB:
            return math.floor(nu * 2 * whole) + 2 * rbits + 1 >= 2 * whole
        case Mode.SRC:
            return round(nu * whole) + rbits >= whole  # Python rounds a Fraction's ties to even
        case Mode.SRE:
            return nu > 0 and 2 * rbits >= whole
        case _:  # SRA, and SR with the widest word
            return math.floor(nu * whole) + rbits >= whole


def locate(
    fmt: Format, x: Fraction, mode: Mode, flush: Flush | Literal[False] = False
) -> tuple[int, bool, Fraction]:  # fmt: skip
    """Return the ordinal of x's neighbour toward zero, whether its code is odd, and the discarded fraction nu.

    For a rounding to nearest nu is 1/2 at the format's threshold, which need not be the middle; else it goes by distance.
    With `flush` = "after" a rounding has all bits of the precision below the smallest normal number N too. Next to N lies
    `Grid.below_normal` then, from which nu counts; there is no need to tell apart numbers below that, for all are tiny.
    """
    ordinal, nu = fmt.split(x, nearest=mode.nearest)
    if flush == "after" and isinstance(fmt, Grid) and not fmt.even and abs(ordinal) == fmt.first_normal - 1:
        below, normal = fmt.below_normal, fmt.value(fmt.first_normal)
        return ordinal, not fmt.is_odd(fmt.first_normal), max((abs(x) - below) / (normal - below), Fraction(0))
    return ordinal, fmt.is_odd(ordinal), nu


def tiny(fmt: Format, x: Fraction, ordinal: int, flush: Flush | Literal[False]) -> bool:
    """Return whether x, which rounds to `ordinal`, is flushed to zero. Only floats have a smallest normal number."""
    if not flush or not isinstance(fmt, Grid) or fmt.even:
        return False
    if flush == "before":
        return abs(x) < fmt.value(fmt.first_normal)
    inside = -fmt.bottom <= ordinal <= fmt.top  # of unsigned formats no negative number is a result
    return abs(ordinal) < fmt.first_normal and (inside or flush == "after")


@gradual_underflow
def encode(
    x: float | Fraction,
    fmt: str | Format,
    mode: str | Mode = Mode.RNE,
    *,
    sr_bits: int | None = None,
    rbits: int = 0,
    eps: float = 0.0,
    saturation: str | Saturation | None = None,
    ftz_out: bool | Flush = False,
    nan: str | None = None,
) -> int:
    """Return the code that `x` rounds to; x may be any rational, an infinity, a NaN or a signed zero.

    `rbits` is the random word, 0 <= rbits < 2^sr_bits, for the stochastic modes, `eps` the threshold of Threshold.
    Rounding comes first, on a line that goes on above the largest value; range comes second. A number that the format cannot
    hold follows its data: NaN by `nan_to`, 0 by `zero_to`, an infinity by `saturation`, a negative number and an unsigned
    format by `saturation` and `negative_to`; -0 (and a negative value that rounds to zero) becomes +0 without -0. Where there
    is no zero, a number with a minus sign is negative, however small, -0 too, and a positive one is at least the smallest
    value. `ftz_out` makes zeros of tiny results, see `qsim.rounding.FLUSHES`; `nan` says which NaNs have the sign of the
    input, as in `Quantizer`, if the format's NaNs have one.
    """
    fmt = get_format(fmt)
    flush = parse_ftz_out(ftz_out)
    mode, rule, nan = parse_mode(mode, fmt), parse_saturation(saturation, fmt), parse_nan(nan, fmt)
    if not isinstance(x, float | int | Fraction):
        x = float(x)  # a NumPy scalar, exactly
    if mode is Mode.SR and not sr_bits:
        raise InputError("SR needs sr_bits here, the width of the input's widest word: 32 for float32, 64 for float64")
    if mode.stochastic and sr_bits is None:
        raise InputError(f"{mode} needs sr_bits, the number of random bits, and rbits, the word")
    sr_bits, rbits = integer("sr_bits", sr_bits or 0), integer("rbits", rbits)
    if sr_bits < 0 or not 0 <= rbits < 1 << sr_bits:
        raise InputError(f"rbits = {rbits} is no word of sr_bits = {sr_bits} bits")
    eps = check_eps(eps)
    if fmt.negative_to == "magnitude":
        x = math.fabs(x) if isinstance(x, float) else Fraction(abs(x))
    negative = math.copysign(1.0, x) < 0 if isinstance(x, float) else x < 0
    negative_nan = negative and nan != "canonical"
    if isinstance(x, float) and math.isnan(x):
        return _nan(fmt, negative=negative, signed=nan == "signed")
    if isinstance(x, float) and math.isinf(x):
        return _infinity(fmt, rule, negative=negative, negative_nan=negative_nan)
    exact = Fraction(x)
    if not exact and not fmt.has_zero and (fmt.signed or not negative):
        return _zero(fmt)
    ordinal, odd, nu = locate(fmt, exact, mode, flush)
    if away(mode, nu, odd, negative, sr_bits, rbits, eps):
        ordinal += -1 if negative else 1
    if tiny(fmt, exact, ordinal, flush):
        ordinal = 0
    if rule is Saturation.wrap:  # the values of an even grid are numbered by their integers
        return ordinal % (1 << fmt.bits)
    if -fmt.bottom <= ordinal <= fmt.top:
        return fmt.code(ordinal, negative_zero=negative and not ordinal)
    if not ordinal and fmt.bottom < 0 and not negative:  # a grid without zero: between it and the smallest value
        return fmt.code(-fmt.bottom)
    below = ordinal < -fmt.bottom
    if rule in CLAMPING or mode.inward(fmt, negative=below):
        return fmt.code(-fmt.bottom if below else fmt.top)
    return _beyond(fmt, rule, below=below, negative_nan=negative_nan)


def _beyond(fmt: Format, rule: Saturation, *, below: bool, negative_nan: bool) -> int:
    """Return the code of a number beyond the range, under a rule that does not clamp it."""
    if below and not fmt.signed and fmt.negative_to == "min":
        return fmt.code(-fmt.bottom)
    if rule in (Saturation.OvfNaN, Saturation.InfNaN) or (below and not fmt.signed):
        return fmt.code_of_nan(negative=negative_nan)
    if not fmt.has_inf:  # SatNone as p3109-4.0 has it
        return fmt.code(-fmt.bottom if below else fmt.top)
    return fmt.code_of_inf(negative=below)


def _infinity(fmt: Format, rule: Saturation, *, negative: bool, negative_nan: bool) -> int:
    """Return the code that an infinity becomes."""
    stays = rule is Saturation.SatPropagate and (fmt.signed or not negative)
    if stays or rule in (Saturation.SatNone, Saturation.OvfNaN, Saturation.InfNaN):
        return _beyond(fmt, rule, below=negative, negative_nan=negative_nan)
    return fmt.code(-fmt.bottom if negative else fmt.top)


def _nan(fmt: Format, *, negative: bool, signed: bool) -> int:
    """Return the code that a NaN, `negative` or not, becomes; `signed`: a NaN result keeps its sign."""
    match fmt.nan_to:
        case "nan":
            return fmt.code_of_nan(negative=negative and signed)
        case "error":
            raise InputError(f"a NaN has no place in {fmt.name}, whose nan_to is error")
        case "max":
            return fmt.code(fmt.top)
        case "min":
            return fmt.code(-fmt.bottom)
        case "opposite_zero":
            return fmt.code(0, negative_zero=not negative)
        case _:
            return fmt.code(fmt.ordinal(0.0), negative_zero=fmt.nan_to == "neg_zero")


def _zero(fmt: Format) -> int:
    """Return the code that 0 becomes in a format without zero."""
    if fmt.zero_to == "nan":
        return fmt.code_of_nan(negative=False)
    return fmt.code(fmt.top if fmt.zero_to == "max" else -fmt.bottom)


@gradual_underflow
def quantize(
    x: float | Fraction,
    fmt: str | Format,
    mode: str | Mode = Mode.RNE,
    *,
    sr_bits: int | None = None,
    rbits: int = 0,
    eps: float = 0.0,
    saturation: str | Saturation | None = None,
    ftz_out: bool | Flush = False,
    nan: str | None = None,
) -> float:
    """Return the value that `x` rounds to: the decoded `encode`."""
    fmt = get_format(fmt)
    return fmt.decode(
        encode(x, fmt, mode, sr_bits=sr_bits, rbits=rbits, eps=eps, saturation=saturation, ftz_out=ftz_out, nan=nan)
    )


@gradual_underflow
def flushed(x: float, precision: str | Format) -> float:
    """Return x, or the zero of its sign if it is a subnormal number of `precision`, the input's own format (FTZ-in)."""
    return math.copysign(0.0, x) if abs(x) < get_format(precision).smallest_normal else x


def arithmetic(precision: str | Format, order: Order = "divide") -> Format:
    """Return the format in which scales and quotients are computed, for an input of the format `precision`.

    float32 for inputs of up to 32 bits, float64 for float64; with the order "input" the input's own.
    """
    own = get_format(precision)
    return own if order == "input" or own.bits > 32 else get_format("float32")


@gradual_underflow
def scaled(x: float, s: float, order: Order, precision: str | Format) -> float | Fraction:
    """Return the number that is rounded in place of x when the scale is s: x / s by the named order of operations.

    fl rounds to nearest even in `arithmetic(precision, order)`, `precision` being the input's own format: "divide" and "input"
    are fl(x / s), "reciprocal" is fl(x fl(1 / s)), "exact" the true quotient, a fraction where it is not zero. NaN and
    infinities stay as they are. A scale of 0 makes a zero of the sign of x, but NaN stays NaN.
    """
    if order not in ORDERS:
        raise InputError(f"no order of operations is called {order!r}; it is {enumerate_names(ORDERS)}")
    if not 0 <= s < math.inf:
        raise InputError(f"s = {s!r} must be a positive finite number, or 0")
    if not s:
        return x if math.isnan(x) else math.copysign(0.0, x)
    if not math.isfinite(x) or not x:
        return x
    if order == "exact":
        return Fraction(x) / Fraction(s)
    number = arithmetic(precision, order)
    if order == "reciprocal":
        reciprocal = quantize(1 / Fraction(s), number)
        if math.isinf(reciprocal):  # 1 / s beyond the range
            return math.copysign(reciprocal, x)
        quotient = Fraction(x) * Fraction(reciprocal)
    else:
        quotient = Fraction(x) / Fraction(s)
    y = quantize(quotient, number)
    return math.copysign(y, x)  # a quotient that underflows keeps its sign


@gradual_underflow
def derived_scale(
    x: Iterable[float], fmt: str | Format, scale: str, precision: str | Format, order: Order = "divide"
) -> float:
    """Return the scale that is derived by the rule `scale` from numbers `x` of the format `precision`, rounded to `fmt`.

    With M the largest magnitude that `fmt` has in both signs (in the one it has), as a number of float32 (float64) and at most
    the largest number of `arithmetic(precision, order)`, in which fl rounds:

        "pow2"            the smallest power of two s with s M >= max|x|
        "absmax_nearest"  fl(max|x| / M)
        "absmax"          the same, or the first number above it with which max|x|, scaled by the order, does not exceed M
        "absmean"         fl(mean|x|)

    each clamped to the normal numbers. NaN and infinities do not count; where only zeros are left the scale is 1.
    """
    if scale not in DERIVED:
        raise InputError(f"no rule for scales is called {scale!r}; it is {enumerate_names(DERIVED)}")
    fmt, number = get_format(fmt), arithmetic(precision, order)
    finite = [abs(Fraction(value)) for value in x if math.isfinite(value)]
    largest = max(finite, default=Fraction(0))
    if not largest:
        return 1.0
    wide = arithmetic(precision)
    end = min((end for end in (fmt.value(fmt.top), -fmt.value(-fmt.bottom)) if end > 0), default=Fraction(0))
    limit = min(wide.value(min(wide.split(end)[0], wide.top)), Fraction(number.max))
    least, most = Fraction(number.smallest_normal), Fraction(number.max)
    if scale == "pow2":
        s, most = least, Fraction(2) ** (math.frexp(number.max)[1] - 1)
        while s < most and s * limit < largest:
            s *= 2
        return float(s)
    mean = sum(finite, Fraction(0)) / len(finite)
    s = mean if scale == "absmean" else largest / limit if limit else most
    s = Fraction(quantize(min(max(s, least), most), number))
    if scale == "absmax":
        while s < most and scaled(float(largest), float(s), order, precision) > limit:
            s = number.value(number.split(s)[0] + 1)
    return float(s)


@gradual_underflow
def restored(y: float, s: float, precision: str | Format, *, finite: bool = False) -> float:
    """Return fl(y s), the way back from the scale s: one rounding to nearest even in `precision`, the input's own format.

    `finite`: an overflow of a finite y becomes the largest number. That is so where the rounding saturates, and where the
    scale was derived from the input.
    """
    if not math.isfinite(y) or not y or not s:
        return y * s
    product = quantize(Fraction(y) * Fraction(s), precision)
    product = math.copysign(product, y)  # a product that underflows keeps its sign
    most = get_format(precision).max
    return max(-most, min(product, most)) if finite else product


@gradual_underflow
def sr_moments(x: float | Fraction, fmt: str | Format) -> tuple[Fraction, Fraction]:
    """Return the exact mean and variance of SR(x) with unlimited random bits: x, and (hi - x)(x - lo).

    `x` must be within the range. Source: theory F1 and F2; E SR(x) = lo + (hi - lo) nu = x.
    """
    lo, hi = (Fraction(v) for v in get_format(fmt).neighbours(x))
    exact = Fraction(x)
    return exact, (hi - exact) * (exact - lo)
