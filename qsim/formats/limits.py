"""The machine parameters of a float format under NumPy's names."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

from qsim.errors import InputError
from qsim.formats.catalogue import get_format
from qsim.formats.format import Format, Grid

__all__ = ["FloatInfo", "finfo"]


@dataclass(frozen=True, slots=True)
class FloatInfo:
    """Hold the machine parameters of a float format, as `np.finfo` names them."""

    format: Format = field(repr=False)
    bits: int
    nexp: int
    nmant: int
    max: float
    min: float
    #: Spacing of the values just above 1, and just below 1, with their binary exponents; NaN and -1 where 1 is no value.
    eps: float
    epsneg: float
    machep: int
    negep: int
    #: Exponent of the smallest normal number, and of the smallest power of two above the largest value.
    minexp: int
    maxexp: int
    smallest_normal: float
    smallest_subnormal: float
    #: Decimal digits that the format holds, and 10^-precision.
    precision: int
    resolution: float

    @property
    def tiny(self) -> float:
        """`smallest_normal`."""
        return self.smallest_normal

    @property
    def iexp(self) -> int:
        """`nexp`."""
        return self.nexp


def finfo(fmt: str | Format) -> FloatInfo:
    """Return the machine parameters of a float format, as `np.finfo` and `ml_dtypes.finfo` do of their types.

    Args:
        fmt: A name, a dtype of that name, or a `Format`.

    Returns:
        bits, nexp, nmant, max, min, eps, epsneg, machep, negep, minexp, maxexp, smallest_normal, smallest_subnormal, tiny,
        precision and resolution. Numbers are floats, exact, and NaN where the format has no such number.

    Raises:
        InputError: for a format that is no float, as an integer or a table of values.
    """
    fmt = get_format(fmt)
    if not isinstance(fmt, Grid) or fmt.kind != "float":
        raise InputError(f"{fmt.name} is no float format; qsim.get_format({fmt.name!r}) has its max, min and values()")
    largest = fmt.value(fmt.top)
    precision = int(fmt.man_bits * math.log10(2))  # as FLT_DIG of C, with which NumPy agrees
    eps = fmt.eps
    below = fmt.neighbours(math.nextafter(1.0, 0.0))[0] if fmt.smallest_subnormal < 1 <= fmt.max else math.nan
    epsneg = 1 - below if not math.isnan(eps) else math.nan
    return FloatInfo(
        format=fmt, bits=fmt.bits, nexp=fmt.exp_bits, nmant=fmt.man_bits, max=fmt.max, min=fmt.min,
        eps=eps, epsneg=epsneg, machep=math.frexp(eps)[1] - 1, negep=math.frexp(epsneg)[1] - 1,
        minexp=fmt.emin, maxexp=math.frexp(float(largest))[1] if largest < 2**1023 else 1024,
        smallest_normal=fmt.smallest_normal, smallest_subnormal=fmt.smallest_subnormal,
        precision=precision, resolution=10.0**-precision,
    )  # fmt: skip
