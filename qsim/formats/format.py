"""A number format: a finite set of values with codes. Nothing here knows how to round.

The values are numbered along the line by **ordinals**, ..., -1, 0, 1, ..., from `-bottom` to `top`. There are two kinds
of line:

* `Grid`: zero is 0, and a negative value has the negative of its mirror's ordinal. The values 1, 2, ... are evenly spaced
  by 2^(emin - man_bits) below 2^(emin + 1), then with a spacing that doubles in every binade; for integers and fixed point
  it never does. The grid goes on beyond the range, so that rounding comes first and range second.
* `Table`: any finite list of values, each with a code. 0 is the smallest value that is not negative. There is nothing
  beyond its ends unless its entry says where the next value would be.
"""

from __future__ import annotations

import abc
import bisect
import contextlib
import dataclasses
import functools
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from fractions import Fraction
from typing import TYPE_CHECKING, Any, Literal

from qsim.errors import InputError, integer
from qsim.underflow import gradual_underflow

if TYPE_CHECKING:  # a format says what it is without NumPy, which takes the longest to load; only its tables need it
    import numpy as np
    from numpy.typing import NDArray

__all__ = ["SPECIALS", "WIDEST_TABLE", "Format", "Grid", "NanTo", "Nans", "Specials", "Table"]

Specials = Literal["ieee", "fn", "fnuz", "f", "extended"]
NanTo = Literal["nan", "max", "min", "zero", "neg_zero", "opposite_zero", "error"]
Nans = Literal["canonical", "signed", "signed_overflow"]

SPECIALS: Mapping[str, str] = {
    "ieee": "infinities and NaNs in the top binade, as in IEEE 754",
    "fn": "no infinity; the all-ones code is NaN (LLVM: FN)",
    "fnuz": "no infinity, no negative zero; the code of -0 is NaN (LLVM: FNUZ)",
    "f": "finite values only",
    "extended": "infinities, one NaN, no negative zero (P3109: extended)",
}

WIDEST_TABLE = 16
"""Formats of more bits than this have no `values()`: the table would not fit a page of memory."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Format(abc.ABC):
    """Describe a number format: its values, their codes, and the rules for numbers that it cannot hold.

    Two formats are equal when all their fields are.
    """

    name: str
    kind: Literal["float", "integer", "fixed", "table"]
    bits: int
    #: Ordinals of the largest and (negated) of the smallest finite value.
    top: int
    bottom: int
    #: The code a NaN is given, and that of +infinity; `None` where there is none.
    nan_code: int | None
    inf_code: int | None
    #: Whether 0 is a value, and whether -0 is told from +0.
    has_zero: bool
    has_neg_zero: bool
    #: What a NaN becomes: a NaN, the largest or the smallest value, +0, -0, the zero of the opposite sign; "error": refused.
    nan_to: NanTo
    #: Formats without negative values: what becomes of a negative number. "nan": a NaN, unless the saturation clamps it;
    #: "min": the smallest value; "magnitude": its sign is dropped before it is rounded. Else "".
    negative_to: Literal["", "nan", "min", "magnitude"] = ""
    #: Formats without zero: what 0 becomes, the smallest or the largest value or NaN; else "".
    zero_to: Literal["", "min", "max", "nan"] = ""
    #: Which neighbour NearestTiesToEven takes at a tie: that with the even code, or, in a format of powers of two alone,
    #: whose significands are all odd, that of larger magnitude (IEEE 754-2019, 4.3.1).
    ties: Literal["even", "away"] = "even"
    #: The sign of a NaN result where the caller names none, as in `qsim.Quantizer`.
    nan: Nans = "canonical"
    #: The saturation where the caller names none; "": the usual one of its kind.
    saturation: str = ""
    #: Formats of IEEE P3109: the text whose projection `SatNone` follows, "p3109-2026-07" or "p3109-4.0"; else "".
    revision: str = ""
    #: The standard or document that defines it.
    source: str = field(compare=False)
    aliases: tuple[str, ...] = field(default=(), compare=False)
    #: The name of the catalogue's entry where it stands for many formats: "int{bits}".
    family: str = field(default="", compare=False)
    #: The format whose values and codes these are, where only what becomes of other numbers differs; else "".
    variant_of: str = field(default="", compare=False)
    #: What a user should know before taking it, and what others make of some numbers: rows of cells, the heads first.
    warning: str = field(default="", compare=False)
    elsewhere: tuple[tuple[str, ...], ...] = field(default=(), compare=False)

    @property
    def signed(self) -> bool:
        """Whether there are negative values."""
        return self.bottom > 0

    @property
    def has_inf(self) -> bool:
        """Whether the format holds infinities."""
        return self.inf_code is not None

    @property
    def has_nan(self) -> bool:
        """Whether the format holds a NaN."""
        return self.nan_code is not None

    @property
    def max(self) -> float:
        """Largest finite value."""
        return self._float(self.top)

    @property
    def min(self) -> float:
        """Smallest finite value (the most negative)."""
        return self._float(-self.bottom)

    @property
    def smallest_normal(self) -> float:
        """Smallest positive value of full precision; where there is no such notion, the smallest positive value."""
        return self._landmark("smallest_normal")

    @property
    def smallest_subnormal(self) -> float:
        """Smallest positive value; NaN where there is none."""
        return self._landmark("smallest_subnormal")

    @property
    def eps(self) -> float:
        """Spacing of the values just above 1; NaN where 1 is not below the largest one, or is none of a table's.

        Where 1 lies between two values it is their distance.
        """
        return self._landmark("eps")

    @gradual_underflow
    def landmarks(self) -> Mapping[str, Fraction | None]:
        """Return the properties that mark the range, by name, exactly; `None` for those that do not exist."""
        return _landmarks(self)

    @gradual_underflow
    def _landmark(self, name: str) -> float:
        exact = _landmarks(self)[name]
        return math.nan if exact is None else self._in_float64(exact)

    @abc.abstractmethod
    def value(self, ordinal: int) -> Fraction:
        """Return the exact value that `ordinal` numbers."""

    @abc.abstractmethod
    def split(self, x: Fraction, *, nearest: bool = False) -> tuple[int, Fraction]:
        """Return the ordinal of x's neighbour toward zero, and the fraction in [0, 1) of the way to the outward one.

        The outward neighbour of x >= 0 has the next ordinal, that of x < 0 the previous one. Where x lies between a
        negative and a positive value without zero between them, the neighbour on the other side of zero is the inner one.
        With `nearest` the fraction is 1/2 where a rounding to nearest turns, which `Table.thresholds` may say.
        """

    @abc.abstractmethod
    def code(self, ordinal: int, *, negative_zero: bool = False) -> int:
        """Return the code of the finite value that `ordinal` numbers."""

    @abc.abstractmethod
    def _ordinal_of(self, code: int) -> int | None:
        """Return the ordinal of a code, 0 for -0; `None` for special values and codes without a value."""

    @abc.abstractmethod
    def decode_array(self, codes: NDArray[np.integer[Any]]) -> NDArray[np.float64]:
        """Return `decode` of every code, 0 <= code < 2^bits; NaN for a code without a value."""

    def is_odd(self, ordinal: int) -> bool:
        """Return whether the value's code is odd: "even" in ties-to-even means an even code."""
        return self.code(ordinal) % 2 == 1

    def is_subnormal(self, ordinal: int) -> bool:
        """Return whether the value is a subnormal number; zero is none."""
        return isinstance(self, Grid) and 0 < abs(ordinal) < self.first_normal

    def code_of_inf(self, *, negative: bool) -> int:
        """Return the code of an infinity."""
        assert self.inf_code is not None  # asked only of formats with infinities
        return self.inf_code | (negative and self.signed) << (self.bits - 1)

    def code_of_nan(self, *, negative: bool) -> int:
        """Return the code a NaN is given; formats with a -0 have a NaN of either sign, others have one."""
        assert self.nan_code is not None  # asked only of formats with a NaN
        return self.nan_code | (negative and self.has_neg_zero) << (self.bits - 1)

    @gradual_underflow
    def ordinal(self, value: float | Fraction) -> int:
        """Return the ordinal of `value`; raise `InputError` if the format does not hold it."""
        if isinstance(value, float) and not math.isfinite(value):
            raise InputError(f"{value!s} has no ordinal; the finite values of {self.name} have")
        number, rest = self.split(Fraction(value))
        if rest or not -self.bottom <= number <= self.top or not (number or self.has_zero or value):
            raise InputError(f"{self.name} does not hold {value!s}; qsim.quantize rounds a value to it")
        return number

    @gradual_underflow
    def neighbours(self, value: float | Fraction) -> tuple[float, float]:
        """Return the largest value of the format <= `value` and the smallest >= `value`.

        Both are `value` itself where the format holds it. Raise `InputError` outside [min, max].
        """
        if not self.min <= value <= self.max:
            raise InputError(f"{value!s} is outside the range [{self.min!r}, {self.max!r}] of {self.name}")
        inner, rest = self.split(Fraction(value))
        outer = inner + (0 if not rest else -1 if value < 0 else 1)
        low, high = sorted((inner, outer))
        return self._float(low), self._float(high)

    @gradual_underflow
    def decode(self, code: int) -> float:
        """Return the value of `code`, exactly; NaN and infinities as such.

        Raise `InputError` for a number that is no code, and for a value beyond the range of a float64.
        """
        code = integer("code", code)
        if not 0 <= code < 1 << self.bits:
            raise InputError(f"{code} is no code of {self.name}: codes are 0 .. {(1 << self.bits) - 1}")
        number = self._ordinal_of(code)
        negative = self.signed and code >= 1 << (self.bits - 1)
        if number is not None:
            result = self._float(number)
            return -result if negative and not result and self.has_neg_zero else result
        if self.has_inf and code == self.code_of_inf(negative=negative):
            return -math.inf if negative else math.inf
        if not self.is_code(code):
            raise InputError(f"{code} is no code of {self.name}: no value has it")
        return math.nan

    def is_code(self, code: int) -> bool:
        """Return whether `code`, 0 <= code < 2^bits, stands for something: a value, an infinity or a NaN."""
        return self.has_nan or self._ordinal_of(code) is not None

    @gradual_underflow
    def values(self) -> NDArray[np.float64]:
        """Return all values in code order, shape (2^bits,), float64: index i holds the value of code i.

        A code without a value has NaN. Raise `InputError` above 16 bits.
        """
        if self.bits > WIDEST_TABLE:
            raise InputError(f"{self.name} has 2^{self.bits} values; a table is made up to {WIDEST_TABLE} bits")
        return _values(self)

    def _float(self, ordinal: int) -> float:
        """Return the value of `ordinal` as a float; refuse a value that float64 does not hold."""
        return self._in_float64(self.value(ordinal))

    @gradual_underflow
    def _in_float64(self, exact: Fraction) -> float:
        """Return `exact` as a float; refuse a value that float64 does not hold."""
        try:
            rounded = float(exact)
        except OverflowError:
            rounded = math.inf
        if rounded != exact:
            raise InputError(f"{self.name} reaches beyond the range of a float64; `value` and `code` are exact")
        return rounded

    def __str__(self) -> str:
        return self.name


@functools.lru_cache(maxsize=1024)
def _landmarks(fmt: Format) -> Mapping[str, Fraction | None]:
    positive = 1 if fmt.has_zero or isinstance(fmt, Grid) else 0  # ordinals
    normal = fmt.first_normal if isinstance(fmt, Grid) else positive
    one, rest = fmt.split(Fraction(1))
    spaced = one < fmt.top and (isinstance(fmt, Grid) or (one >= -fmt.bottom and not rest))
    return {
        "max": fmt.value(fmt.top),
        "min": fmt.value(-fmt.bottom),
        "smallest_normal": fmt.value(normal) if positive <= fmt.top else None,
        "smallest_subnormal": fmt.value(positive) if positive <= fmt.top else None,
        "eps": fmt.value(one + 1) - fmt.value(one) if spaced else None,
    }


@functools.lru_cache(maxsize=256)
def _values(fmt: Format) -> NDArray[np.float64]:
    import numpy as np

    table = fmt.decode_array(np.arange(1 << fmt.bits))
    table.flags.writeable = False
    return table


@dataclass(frozen=True, slots=True, kw_only=True)
class Grid(Format):
    """Describe a format on a binary grid: a float, an integer, a fixed-point number.

    `man_bits` counts stored bits (no hidden bit), `precision` = man_bits + 1.
    """

    #: Stored exponent bits; 0 for integers and fixed point.
    exp_bits: int
    #: Stored mantissa bits; for integers and fixed point the bits below the sign.
    man_bits: int
    #: Exponent of the smallest normal number; the grid is even below 2^(emin + 1).
    emin: int
    #: How special values are coded; "" for integers and fixed point.
    specials: Specials | Literal[""]
    #: Ordinal after which the line skips `gap` points of the grid: formats whose lowest binades are not gradual.
    gap_at: int = 0
    gap: int = 0

    def __repr__(self) -> str:
        return f"Grid({self.name!r})"

    @property
    def even(self) -> bool:
        """Whether the spacing is the same everywhere: integers and fixed point, whose codes are two's complement."""
        return self.kind != "float"

    @property
    def precision(self) -> int:
        """Significand bits, the hidden one included."""
        return self.man_bits + 1

    @property
    def bias(self) -> int:
        """Exponent bias: the exponent field of 1, in the range or not."""
        return 1 - self.emin - (not self.has_zero) - bool(self.gap)

    @property
    def emax(self) -> int:
        """Exponent of the largest finite value."""
        return _log2(self.value(self.top))

    @property
    def lsb(self) -> int:
        """Exponent of the spacing in the even part of the grid, 2^lsb."""
        return self.emin - self.man_bits

    @property
    def first_normal(self) -> int:
        """Ordinal of the smallest positive value of full precision."""
        return 1 if self.even or (self.gap and not self.gap_at) else 1 << self.man_bits

    @property
    def below_normal(self) -> Fraction:
        """The number next below the smallest normal one, of the same precision, if the exponent had no lower end.

        It lies half as far from a power of two as the next value above does.
        """
        normal, after = self.value(self.first_normal), self.value(self.first_normal + 1)
        power = normal.numerator & (normal.numerator - 1) == 0  # of two; the denominator always is one
        return normal - (after - normal) / (2 if power else 1)

    def deepened(self) -> Grid:
        """Return the same grid, without a gap, with two more binades of full precision below its smallest normal number.

        Two, so that the code of a value stays even or odd. The range is the same, and its specials are none of its own.
        """
        more = 2 << self.man_bits

        def moved(ordinal: int) -> int:
            gap = self.gap if ordinal > self.gap_at else 0
            return ordinal + gap + more if ordinal > 0 else ordinal

        bottom = -moved(-self.bottom) if self.bottom < 0 else moved(self.bottom)
        return dataclasses.replace(self, emin=self.emin - 2, top=moved(self.top), bottom=bottom, gap=0, gap_at=0)

    def value(self, ordinal: int) -> Fraction:
        """Return the exact value on the format's grid that `ordinal` numbers, range or not.

        With n = |ordinal| and M = 2^man_bits: n 2^(emin - man_bits) while n < M, and
        (M + n mod M) 2^(emin + n div M - 1 - man_bits) above. A gap adds its length to the n beyond it.
        """
        whole = 1 << self.man_bits
        number = abs(ordinal) + (self.gap if abs(ordinal) > self.gap_at else 0)
        binade, step = (0, number) if self.even else divmod(number, whole)
        if binade:
            step, binade = step + whole, binade - 1
        return times_power(-step if ordinal < 0 else step, binade + self.lsb)

    def split(self, x: Fraction, *, nearest: bool = False) -> tuple[int, Fraction]:
        """Return the ordinal of x's neighbour toward zero, and the fraction in [0, 1) of the way to the outward one."""
        del nearest  # is by distance on a grid
        magnitude = abs(x)
        binades = max(_log2(magnitude) - self.emin, 0) if magnitude and not self.even else 0
        over, under = magnitude.as_integer_ratio()
        place = binades + self.lsb
        over, under = (over, under << place) if place > 0 else (over << -place, under)
        steps, left = divmod(over, under)
        rest = Fraction(left, under)
        # Within binade b >= 1 the steps run from M to 2M - 1 while the ordinals run from M b to M (b + 1) - 1.
        number = steps + binades * (1 << self.man_bits)
        if self.gap and number >= self.gap_at:
            if number > self.gap_at + self.gap:
                number -= self.gap
            else:
                number = self.gap_at
                low, high = self.value(number), self.value(number + 1)
                rest = (magnitude - low) / (high - low)
        return (-number if x < 0 else number), rest

    def code(self, ordinal: int, *, negative_zero: bool = False) -> int:
        """Return the code of the finite value that `ordinal` numbers."""
        if self.even:
            return ordinal & ((1 << self.bits) - 1)
        sign = (ordinal < 0 or (negative_zero and self.has_neg_zero)) << (self.bits - 1)
        return int(sign) | (abs(ordinal) - (not self.has_zero))

    def is_odd(self, ordinal: int) -> bool:
        """Return whether the value's code is odd: "even" in ties-to-even means an even code."""
        return bool(ordinal) and (ordinal - (not self.has_zero)) % 2 == 1

    def _ordinal_of(self, code: int) -> int | None:
        half = 1 << (self.bits - 1)
        negative = self.signed and code >= half
        if self.even:
            number = code - 2 * half if negative else code
        else:
            number = -(code - half) if negative else code + (not self.has_zero)
            if negative and not number:
                return 0 if self.has_neg_zero else None
        return number if -self.bottom <= number <= self.top else None

    @gradual_underflow
    def decode_array(self, codes: NDArray[np.integer[Any]]) -> NDArray[np.float64]:
        """Return `decode` of every code, 0 <= code < 2^bits; NaN for a code without a value."""
        import numpy as np

        _ = self.max, self.smallest_subnormal  # refuses what float64 does not reach
        words = np.asarray(codes).astype(np.uint64)
        half = 1 << (self.bits - 1)
        negative = words >= half if self.signed else np.zeros(words.shape, bool)
        if self.even:
            number = words.astype(np.int64) - 2 * half * negative
            inside = (number >= -self.bottom) & (number <= self.top)
            return np.where(inside, np.ldexp(number.astype(np.float64), self.lsb), np.nan)
        field = np.where(negative, words & np.uint64(half - 1), words).astype(np.int64)  # without the sign
        number = field + (not self.has_zero)
        point = number + self.gap * (number > self.gap_at)
        binade = point >> self.man_bits
        step = point - (np.maximum(binade - 1, 0) << self.man_bits)
        with np.errstate(over="ignore"):  # of the codes of infinity and NaN, which follow
            magnitude = np.ldexp(step.astype(np.float64), np.maximum(binade - 1, 0) + self.lsb)
        magnitude[(number > self.top) | (negative & (number == 0) & (not self.has_neg_zero))] = np.nan
        if self.inf_code is not None:
            magnitude[field == self.inf_code] = np.inf
        signed: NDArray[np.float64] = np.where(negative, -magnitude, magnitude)
        return signed


@dataclass(frozen=True, slots=True, kw_only=True)
class Table(Format):
    """Describe a format by the list of its values, in ascending order, and their codes."""

    points: tuple[float, ...]
    codes: tuple[int, ...]
    #: Where the line would go on above the largest and below the smallest value; `None`: nowhere.
    above: float | None = None
    below: float | None = None
    #: Between each two values, in ascending order, where a rounding to nearest turns; empty: in the middle.
    thresholds: tuple[float, ...] = ()

    @property
    def line(self) -> tuple[float, ...]:
        """The points, with those where the line would go on."""
        ends = [() if end is None else (end,) for end in (self.below, self.above)]
        return (*ends[0], *self.points, *ends[1])

    @gradual_underflow
    def value(self, ordinal: int) -> Fraction:
        """Return the exact value that `ordinal` numbers, or where the line would go on next to an end."""
        at = ordinal + self.bottom
        if at == -1 and self.below is not None:
            return Fraction(self.below)
        if at == len(self.points) and self.above is not None:
            return Fraction(self.above)
        if not 0 <= at < len(self.points):
            raise InputError(f"{self.name} has no value of ordinal {ordinal}; it has {-self.bottom} .. {self.top}")
        return Fraction(self.points[at])

    def threshold(self, lower: int) -> Fraction:
        """Return where a rounding to nearest turns between the value that the ordinal `lower` numbers and the next."""
        at = lower + self.bottom
        if self.thresholds and 0 <= at < len(self.thresholds):
            return Fraction(self.thresholds[at])
        return (self.value(lower) + self.value(lower + 1)) / 2

    @gradual_underflow
    def split(self, x: Fraction, *, nearest: bool = False) -> tuple[int, Fraction]:
        """Return the ordinal of x's neighbour toward zero, and the fraction in [0, 1) of the way to the outward one.

        Beyond the line it is the first ordinal that no value has, and the fraction 0. With `nearest`, the way to the threshold
        between two values is one half of it, and that from there on the other, each by distance.
        """
        line, first = self.line, -self.bottom - (self.below is not None)
        at: float | Fraction = x
        with contextlib.suppress(OverflowError):
            at = float(x) if float(x) == x else x  # floats are compared much faster with floats
        lower = bisect.bisect_right(line, at) - 1
        upper = bisect.bisect_left(line, at)
        if not 0 <= lower <= upper < len(line):
            return (-self.bottom - 1 if upper == 0 else self.top + 1), Fraction(0)
        inner, outer = (upper, lower) if x < 0 else (lower, upper)
        if inner == outer:
            return first + inner, Fraction(0)
        start, end = Fraction(line[inner]), Fraction(line[outer])
        if not nearest or not self.thresholds:
            return first + inner, (x - start) / (end - start)
        turn = self.threshold(first + lower)
        if abs(x - start) <= abs(turn - start):
            return first + inner, (x - start) / (turn - start) / 2
        return first + inner, 1 - (end - x) / (end - turn) / 2

    def code(self, ordinal: int, *, negative_zero: bool = False) -> int:
        """Return the code of the finite value that `ordinal` numbers."""
        del negative_zero  # no table tells -0 from +0
        at = ordinal + self.bottom
        if not 0 <= at < len(self.codes):  # the next value beyond an end, whose parity a tie may ask for
            return self.codes[-1] + 1 if at > 0 else self.codes[0] + 1
        return self.codes[at]

    def _ordinal_of(self, code: int) -> int | None:
        return self.codes.index(code) - self.bottom if code in self.codes else None

    def decode_array(self, codes: NDArray[np.integer[Any]]) -> NDArray[np.float64]:
        """Return `decode` of every code, 0 <= code < 2^bits; NaN for a code without a value."""
        import numpy as np

        table: NDArray[np.float64] = np.full(1 << self.bits, np.nan)
        table[list(self.codes)] = self.points
        values: NDArray[np.float64] = table[np.asarray(codes)]
        return values

    def is_code(self, code: int) -> bool:
        """Return whether `code` stands for something: a value or the NaN."""
        return code in self.codes or code == self.nan_code


def _log2(value: Fraction) -> int:
    """Return floor(log2(value)) for value > 0, exactly."""
    over, under = value.as_integer_ratio()
    guess = over.bit_length() - under.bit_length()
    reached = under << guess <= over if guess > 0 else under <= over << -guess
    return guess if reached else guess - 1


def times_power(whole: int, exponent: int) -> Fraction:
    """Return `whole` times 2^exponent, without the powers of a `Fraction`, which are slow."""
    return Fraction(whole << exponent) if exponent > 0 else Fraction(whole, 1 << -exponent)
