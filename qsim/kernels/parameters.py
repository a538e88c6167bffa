"""From a format, a mode and a saturation rule to the words that `core` reads."""

from __future__ import annotations

import functools
import math
import struct
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from qsim.errors import InputError
from qsim.formats import Format, Grid
from qsim.formats.format import Nans
from qsim.kernels.core import Addends, Parameters, Stochastic
from qsim.rounding import Mode, Saturation

__all__ = [
    "CARRIERS", "Carrier", "Shortcut", "addends", "ends", "needs_stand_in", "parameters", "route", "shortcut", "stand_in",
    "stochastic",
]  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class Carrier:
    """Describe the float type that brings values in and takes results out."""

    dtype: np.dtype[Any]
    word: type[np.uint32 | np.uint64]
    width: int
    fraction_bits: int
    bias: int

    def pattern(self, value: float) -> int:
        """Return the bit pattern of `value`, which the carrier holds exactly; a NaN is `nan`, with the sign that it has."""
        if math.isnan(value):
            return self.nan | (math.copysign(1.0, value) < 0) << (self.width - 1)
        codes = ("<f", "<I") if self.width == 32 else ("<d", "<Q")
        return int(struct.unpack(codes[1], struct.pack(codes[0], value))[0])

    @property
    def nan(self) -> int:
        """The pattern of the positive quiet NaN without payload, the one NaN that results have."""
        return self.infinity | 1 << (self.fraction_bits - 1)

    @property
    def infinity(self) -> int:
        """The pattern of +infinity."""
        return (2 * self.bias + 1) << self.fraction_bits

    def holds(self, fmt: Format) -> bool:
        """Whether the core can round to `fmt` in this carrier.

        Every value is a number of the carrier, a normal one if it is a normal one of `fmt`, on a grid without a gap.
        """
        return _holds(self, fmt)


@functools.lru_cache(maxsize=1024)
def _holds(carrier: Carrier, fmt: Format) -> bool:
    return (
        isinstance(fmt, Grid)
        and not fmt.gap
        and fmt.man_bits <= carrier.fraction_bits
        and fmt.emin >= 1 - carrier.bias
        and fmt.emax <= carrier.bias
    )


CARRIERS = {
    np.dtype(np.float32): Carrier(
        dtype=np.dtype(np.float32), word=np.uint32, width=32, fraction_bits=23, bias=127
    ),
    np.dtype(np.float64): Carrier(
        dtype=np.dtype(np.float64), word=np.uint64, width=64, fraction_bits=52, bias=1023
    ),
}  # fmt: skip


class Ends(NamedTuple):
    """Hold the results of numbers that are not values of the format."""

    over_pos: Any
    over_neg: Any
    inf_pos: Any
    inf_neg: Any
    nan_pos: Any
    nan_neg: Any
    zero_pos: Any
    zero_neg: Any


def ends(fmt: Format, saturation: Saturation, mode: Mode, *, nan: Nans = "canonical") -> Ends:
    """Return the results of overflows, infinities, NaN and zeros under a saturation rule, as floats.

    Where there is no zero, "zero" is any number between it and the smallest value of either sign. Of 0 itself it is right only
    where `needs_stand_in` says nothing else; of negative numbers only where their sign counts.
    """
    clamped, unbounded = (fmt.max, fmt.min), (math.inf, -math.inf)
    positive, negative = math.nan, math.copysign(math.nan, -1 if fmt.has_neg_zero else 1)
    nowhere = (positive, positive if nan == "canonical" else negative)
    match saturation:
        case Saturation.OvfNaN:
            over = infinite = nowhere
        case Saturation.SatNone:  # without infinity it is p3109-4.0's; of unsigned formats the lower end follows
            over = infinite = unbounded if fmt.has_inf else (clamped[0], clamped[1] if fmt.signed else -math.inf)
        case Saturation.SatPropagate:
            over, infinite = clamped, unbounded
        case Saturation.InfNaN:
            over, infinite = clamped, nowhere
        case _:
            over = infinite = clamped
    if not fmt.signed:  # the lower end of the range is no mirror of the upper one
        below = math.nan if fmt.negative_to == "nan" else clamped[1]
        over, infinite = ((high, low if low == clamped[1] else below) for high, low in (over, infinite))
        if saturation is Saturation.SatPropagate:
            infinite = (infinite[0], clamped[1])
    over_pos, over_neg = (
        inside if mode.inward(fmt, negative=negative) else beyond
        for negative, inside, beyond in zip((False, True), clamped, over, strict=True)
    )
    if fmt.has_zero:
        zeros = (0.0, -0.0 if fmt.has_neg_zero else 0.0)
    elif fmt.signed:
        zeros = (zero_of(fmt),) * 2
    else:
        zeros = (clamped[1] if isinstance(fmt, Grid) else zero_of(fmt), over_neg)
    # NaN is refused before the kernel where `nan_to` is "error".
    nans = {
        "max": (clamped[0],) * 2, "min": (clamped[1],) * 2, "zero": (0.0,) * 2, "neg_zero": (-0.0,) * 2,
        "opposite_zero": (-0.0, 0.0),
    }.get(fmt.nan_to, (positive, negative if nan == "signed" else positive))  # fmt: skip
    return Ends(over_pos, over_neg, *infinite, *nans, *zeros)


def zero_of(fmt: Format) -> float:
    """Return the result of +0 in a format without zero."""
    return {"min": fmt.min, "max": fmt.max, "nan": math.nan}[fmt.zero_to]


@functools.lru_cache(maxsize=1024)
def needs_stand_in(fmt: Format) -> bool:
    """Return whether `stand_in` must come before a loop."""
    return fmt.negative_to == "magnitude" or (isinstance(fmt, Grid) and not fmt.has_zero and fmt.zero_to != "min")


def stand_in(patterns: NDArray[Any], fmt: Format, dtype: np.dtype[Any]) -> NDArray[Any]:
    """Return patterns of `dtype` that a loop rounds as the format rounds the given ones.

    Magnitudes, where the sign of a negative number is dropped; and in place of +0 its result, where the format has neither
    a zero nor makes its smallest value of it.
    """
    carrier = CARRIERS[dtype]
    if fmt.negative_to == "magnitude":
        patterns = patterns & carrier.word((1 << (carrier.width - 1)) - 1)
    if isinstance(fmt, Grid) and not fmt.has_zero and fmt.zero_to != "min":
        patterns = np.where(patterns == 0, carrier.word(carrier.pattern(zero_of(fmt))), patterns)
    return patterns


def code_of(value: float, fmt: Format) -> int:
    """Return the code of a value of the format, infinity or NaN; 0 for a special value that it does not have."""
    negative = math.copysign(1.0, value) < 0
    if math.isnan(value):
        return fmt.code_of_nan(negative=negative) if fmt.has_nan else 0
    if math.isinf(value):
        return fmt.code_of_inf(negative=negative) if fmt.has_inf else 0
    return fmt.code(fmt.ordinal(value), negative_zero=negative)


@functools.lru_cache(maxsize=1024)
def parameters(
    fmt: Format,
    saturation: Saturation,
    dtype: np.dtype[Any],
    mode: Mode = Mode.RNE,
    *,
    nan: Nans = "canonical",
    codes: bool = False,
) -> Parameters:
    """Return the core's parameters for rounding a `dtype` array to `fmt`, or to its `codes`.

    Of `mode` it is which overflows stay inside. Under `wrap` the result is the rounded number itself, however large. Raise
    `InputError` if the carrier cannot hold the values of the format.
    """
    carrier = CARRIERS[dtype]
    if not (isinstance(fmt, Grid) and carrier.holds(fmt)):
        raise InputError(f"{dtype} cannot hold the values of {fmt.name}; convert the input to float64")
    fraction_bits, largest = carrier.fraction_bits, (1 << carrier.width) - 1
    lowest = fmt.emin + carrier.bias  # the exponent field of emin
    floor = lowest + fraction_bits - fmt.man_bits
    quantum, halfway = (carrier.pattern(value) for value in (fmt.smallest_subnormal, fmt.smallest_subnormal / 2))
    result: Callable[[float], int] = functools.partial(code_of, fmt=fmt) if codes else carrier.pattern
    if codes:
        top, bottom = fmt.top, max(fmt.bottom, 0)
    elif saturation is Saturation.wrap:
        top = bottom = carrier.infinity - 1
    else:
        top, bottom = carrier.pattern(fmt.max), carrier.pattern(-fmt.min) if fmt.signed else 0
    fields = Parameters(
        fraction_bits=fraction_bits,
        last=carrier.width - 1,
        sign=1 << (carrier.width - 1),
        inf=carrier.infinity,
        keep=0 if codes else carrier.width - 1,
        count=largest if codes else 0,
        skip=int(codes and not fmt.has_zero),
        flip=(1 << fmt.bits) - 1 if codes and fmt.even else 0,
        minus=1 if codes and fmt.even else 1 << ((fmt.bits if codes else carrier.width) - 1),
        largest=largest,
        floor=floor,
        lowest=floor if fmt.even else lowest,
        # Only the exponent field is left of n at s = fraction_bits. The code is then field - (floor - fraction_bits) + 1: with
        # man_bits = 0 since code 1 is the smallest normal value, and with man_bits >= 1 since s reaches fraction_bits only at
        # field = floor - fraction_bits, just above code 1. Without a zero all codes are one less.
        parity=(floor + fraction_bits + fmt.has_zero) % 2 << fraction_bits,
        quantum=quantum,
        halfway=halfway,
        # A subnormal number of the carrier has the position of its first binade.
        tiny=quantum - 1 if floor > fraction_bits + 1 else largest,
        smallest=1 if codes else quantum,
        top=top,
        bottom=bottom,
        **{name: result(end) for name, end in ends(fmt, saturation, mode, nan=nan)._asdict().items()},
    )
    return Parameters(*(carrier.word(value) for value in fields))


Shortcut = Literal["bounded", "clamped", "counted", "mirrored", "ranged", "reflected"]


def shortcut(p: Parameters) -> Shortcut:
    """Return the function of `core` that makes results of magnitudes at the least expense, with these parameters."""

    def signed(y: int) -> int:
        return ((y ^ int(p.flip)) + int(p.minus)) & int(p.largest)

    minus_zero, mirror = p.zero_neg != 0, p.top == p.bottom
    if p.skip or p.zero_pos or p.zero_neg not in (0, signed(0)) or p.nan_pos != p.nan_neg:
        return "ranged"
    lowest = signed(int(p.bottom)) if p.bottom or minus_zero else 0
    if p.over_pos == p.inf_pos == p.top and p.over_neg == p.inf_neg == lowest and (mirror or not minus_zero):
        return "bounded" if minus_zero else "counted" if p.flip else "clamped"
    if p.over_pos == p.inf_pos > 0 and p.over_neg == p.inf_neg == signed(int(p.over_pos)) and mirror:
        return "reflected" if minus_zero else "mirrored"
    return "ranged"


def route(how: Shortcut, *, codes: bool) -> Literal["counting", "deterministic"]:
    """Return the function of `core` that leads to these magnitudes in a deterministic mode at the least expense."""
    return "counting" if codes and how != "ranged" else "deterministic"


@functools.lru_cache(maxsize=64)
def addends(mode: Mode, dtype: np.dtype[Any]) -> Addends:
    """Return the addends of a deterministic mode, words of the carrier `dtype`."""
    carrier = CARRIERS[dtype]
    never, half, always = 0, 1 << (carrier.width - 1), (1 << carrier.width) - 1
    ties_up, ties_down = half, half - 1
    even_pos, odd_pos, even_neg, odd_neg = {
        Mode.RNE: (ties_down, ties_up, ties_down, ties_up),
        Mode.RNA: (ties_up,) * 4,
        Mode.RNZ: (ties_down,) * 4,
        Mode.RNP: (ties_up, ties_up, ties_down, ties_down),
        Mode.RNN: (ties_down, ties_down, ties_up, ties_up),
        Mode.RTZ: (never,) * 4,
        Mode.RUP: (always, always, never, never),
        Mode.RDN: (never, never, always, always),
        Mode.RAZ: (always,) * 4,
        Mode.RTO: (always, never, always, never),
    }[mode]
    return Addends(*(carrier.word(value) for value in (even_pos, odd_pos, even_neg, odd_neg)))


@functools.lru_cache(maxsize=1024)
def stochastic(mode: Mode, n: int, dtype: np.dtype[Any]) -> Stochastic:
    """Return how the top `n` bits of a random word of the carrier `dtype` make the addend of a stochastic mode.

    SRB and SRC need a bit below the last: n is less than the width of the word.
    """
    carrier = CARRIERS[dtype]
    whole = 1 << carrier.width
    n = min(n, 1) if mode is Mode.SRE else n
    last = whole >> n
    fields = Stochastic(
        mask=whole - last,
        half=last >> 1 if mode in (Mode.SRB, Mode.SRC) else 0,
        last=last if mode is Mode.SRC and n else 0,
        flip=int(mode is Mode.SRC and not n),
        all_or_none=whole - 1 if mode is Mode.SRE else 0,
    )
    return Stochastic(*(carrier.word(value) for value in fields))
