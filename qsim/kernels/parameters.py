"""From a format and a saturation rule to the words that `core` reads."""

from __future__ import annotations

import functools
import struct
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from qsim.errors import InputError
from qsim.formats import Format, Grid
from qsim.kernels.core import Parameters, Stochastic, Thresholds
from qsim.rounding import Mode, Saturation

__all__ = ["CARRIERS", "Carrier", "parameters", "stochastic", "thresholds"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Carrier:
    """Describe the float type that brings values in and takes results out."""

    dtype: np.dtype[Any]
    word: type[np.uint32 | np.uint64]
    width: int
    fraction_bits: int
    bias: int

    def pattern(self, value: float) -> int:
        """Return the bit pattern of `value`, which the carrier holds exactly."""
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

        Every value is a number of the carrier, a normal one if it is a normal one of `fmt`, on a grid without a gap. Without a
        zero there must be normal numbers of the carrier below the smallest value as well: half of it lies between no two codes,
        and the core sees that only of a number with a hidden bit.
        """
        return _holds(self, fmt)


@functools.lru_cache(maxsize=1024)
def _holds(carrier: Carrier, fmt: Format) -> bool:
    return (
        isinstance(fmt, Grid)
        and not fmt.gap
        and fmt.man_bits <= carrier.fraction_bits
        and fmt.emin >= 1 - carrier.bias + (not fmt.has_zero)
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
    """Hold the patterns of what becomes of numbers that are not values of the format."""

    over_pos: int
    over_neg: int
    inf_pos: int
    inf_neg: int
    nan: int
    nan_sign: int
    zero_pos: int
    zero_neg: int


def ends(fmt: Format, saturation: Saturation, carrier: Carrier, mode: Mode, *, signed_nan: bool) -> Ends:
    """Return what becomes of overflows, infinities, NaN and zeros under a saturation rule, as patterns of the carrier."""
    bits, sign = carrier.pattern, 1 << (carrier.width - 1)
    clamped = (bits(fmt.max), bits(fmt.min))
    unbounded = (carrier.infinity, carrier.infinity | sign)
    nans = (carrier.nan, carrier.nan | (sign if signed_nan and fmt.has_neg_zero else 0))
    match saturation:
        case Saturation.OvfNaN:
            over = infinite = nans
        case Saturation.SatNone:
            over = infinite = unbounded
        case Saturation.SatPropagate:
            over, infinite = clamped, unbounded
        case _:
            over = infinite = clamped
    if not fmt.signed:  # the lower end of the range is no mirror of the upper one
        below = clamped[1] if fmt.negative_to == "min" else nans[0]
        over, infinite = ((high, low if low == clamped[1] else below) for high, low in (over, infinite))
        if saturation is Saturation.SatPropagate:
            infinite = (infinite[0], clamped[1])
    over_pos, over_neg = (
        inside if mode.inward(negative=negative) else beyond
        for negative, inside, beyond in zip((False, True), clamped, over, strict=True)
    )
    if fmt.has_zero:
        zeros = (0, sign if fmt.has_neg_zero else 0)
    else:
        zeros = ({"min": clamped[1], "max": clamped[0], "nan": carrier.nan}[fmt.zero_to],) * 2
    return Ends(
        over_pos=over_pos, over_neg=over_neg, inf_pos=infinite[0], inf_neg=infinite[1],
        # NaN is refused before the kernel where `nan_to` is "error".
        nan={"nan": carrier.nan, "max": clamped[0], "zero": 0, "error": carrier.nan}[fmt.nan_to],
        nan_sign=sign if signed_nan and fmt.nan_to == "nan" and fmt.has_neg_zero else 0,
        zero_pos=zeros[0], zero_neg=zeros[1],
    )  # fmt: skip


@functools.lru_cache(maxsize=1024)
def parameters(
    fmt: Format,
    saturation: Saturation,
    dtype: np.dtype[Any],
    mode: Mode = Mode.RNE,
    *,
    signed_nan: bool = False,
) -> Parameters:
    """Return what the core must know to round a `dtype` array to `fmt`; of `mode`, whether an overflow stays inside.

    Under `wrap` the result is the rounded number itself, however large. Raise `InputError` if the carrier cannot hold the
    values of the format.
    """
    carrier = CARRIERS[dtype]
    if not (isinstance(fmt, Grid) and carrier.holds(fmt)):
        raise InputError(f"{dtype} cannot hold the values of {fmt.name}; convert the input to float64")
    bits = carrier.pattern
    field_of_emin = fmt.emin + carrier.bias
    floor = field_of_emin + carrier.fraction_bits - fmt.man_bits
    wrap = saturation is Saturation.wrap
    fields = Parameters(
        fraction_bits=carrier.fraction_bits,
        last=carrier.width - 1,
        sign=1 << (carrier.width - 1),
        inf=carrier.infinity,
        discard=0 if fmt.even else carrier.fraction_bits - fmt.man_bits,
        floor=floor,
        # Only the exponent field is left of the pattern at s = fraction_bits. The lower neighbour's code is then
        # field - (floor - fraction_bits) + 1: with man_bits = 0 since code 1 is the smallest normal value, and with
        # man_bits >= 1 since s reaches fraction_bits only at field = floor - fraction_bits, just above code 1. Without a
        # zero all codes are one less.
        parity=(floor + carrier.fraction_bits + fmt.has_zero) % 2,
        quantum=bits(fmt.smallest_subnormal),
        top=carrier.infinity - 1 if wrap else bits(fmt.max),
        bottom=carrier.infinity - 1 if wrap else bits(-fmt.min) if fmt.signed else 0,
        **ends(fmt, saturation, carrier, mode, signed_nan=signed_nan)._asdict(),
        normal=carrier.infinity if fmt.even else field_of_emin << carrier.fraction_bits,
        rebias=0 if fmt.even else (field_of_emin - fmt.has_zero) << fmt.man_bits,
        code_sign=1 << (fmt.bits - 1),
        code_mask=(1 << fmt.bits) - 1,
        code_inf=fmt.inf_code or 0,
        code_nan=fmt.nan_code or 0,
        code_nan_sign=fmt.has_neg_zero << (fmt.bits - 1),
        twos=int(fmt.even),
    )
    return Parameters(*(carrier.word(value) for value in fields))


@functools.lru_cache(maxsize=64)
def thresholds(mode: Mode, dtype: np.dtype[Any]) -> Thresholds:
    """Return the thresholds of a deterministic mode, words of the carrier `dtype`: up iff the fraction is above."""
    carrier = CARRIERS[dtype]
    never, half = (1 << carrier.width) - 1, 1 << (carrier.width - 1)
    ties_up, ties_down, always = half - 1, half, 0  # always but at 0, which is on the grid
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
    sticky = int(mode in (Mode.RUP, Mode.RDN, Mode.RAZ, Mode.RTO))
    return Thresholds(*(carrier.word(value) for value in (even_pos, odd_pos, even_neg, odd_neg, sticky)))


@functools.lru_cache(maxsize=1024)
def stochastic(mode: Mode, n: int, dtype: np.dtype[Any]) -> Stochastic:
    """Return how the top `n` bits of a random word of the carrier `dtype` set the threshold of a stochastic mode.

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
