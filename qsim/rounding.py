"""The vocabulary of rounding: modes, saturation, random words and their keys, and `Quantizer`.

Only words live here; `qsim.reference` says what they mean and `qsim.kernels` does it fast.
"""

from __future__ import annotations

import enum
import math
import numbers
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, Self

from qsim.errors import InputError, enumerate_names, nearest
from qsim.formats import Format, get_format

__all__ = ["SHARED_RANK", "Key", "Mode", "Quantizer", "Saturation", "stream"]


class Mode(enum.Enum):
    """A rounding mode: the canonical name is the value, the alias in common use is the member's name.

    nu is the discarded fraction of the interval, R a word of N random bits. The stochastic modes A, B, C are those of
    the IEEE P3109 interim report 4.0, section 4.7.4; the others, where no source is named, of IEEE 754-2019, 4.3.
    """

    RNE = "NearestTiesToEven"
    """To the nearest value; of two equally near ones to that with the even code."""
    RNA = "NearestTiesToAway"
    """To the nearest value; of two equally near ones to that of larger magnitude."""
    RNZ = "NearestTiesToZero"
    """To the nearest value; of two equally near ones to that of smaller magnitude (IEEE 754-2019, 9.5)."""
    RNP = "NearestTiesToPositive"
    """To the nearest value; of two equally near ones to the greater (the "RTN" of Liu et al. 2025: down iff frac < 1/2)."""
    RNN = "NearestTiesToNegative"
    """To the nearest value; of two equally near ones to the lesser."""
    RTZ = "TowardZero"
    """To the neighbour of smaller magnitude."""
    RUP = "TowardPositive"
    """To the greater neighbour."""
    RDN = "TowardNegative"
    """To the lesser neighbour."""
    RAZ = "AwayFromZero"
    """To the neighbour of larger magnitude."""
    RTO = "ToOdd"
    """To the neighbour with the odd code (P3109; Boldo and Melquiond 2008)."""
    SRA = "StochasticA"
    """Away from zero iff floor(nu 2^N) + R >= 2^N. Up to 2^-N of an interval is lost toward zero; exact where nu has
    at most N bits."""
    SRB = "StochasticB"
    """Away from zero iff floor(nu 2^(N+1)) + 2R + 1 >= 2^(N+1)."""
    SRC = "StochasticC"
    """Away from zero iff nu 2^N, rounded to the nearest integer with ties to even, plus R is at least 2^N."""
    SRE = "StochasticEqual"
    """Away from zero iff nu > 0 and the top bit of R is set: either neighbour with probability 1/2."""
    SR = "Stochastic"
    """StochasticA with the widest word the input has: N = 32 for inputs of up to 32 bits, 64 for float64."""

    @property
    def stochastic(self) -> bool:
        """Whether the mode takes a random word."""
        return self in STOCHASTIC

    def inward(self, *, negative: bool) -> bool:
        """Whether an overflow of this sign becomes the finite extremum, since the mode never rounds beyond it."""
        return self in (Mode.RTZ, Mode.RTO, Mode.RUP if negative else Mode.RDN)

    def __str__(self) -> str:
        return self.name


STOCHASTIC = frozenset({Mode.SRA, Mode.SRB, Mode.SRC, Mode.SRE, Mode.SR})
LIMITED = frozenset({Mode.SRA, Mode.SRB, Mode.SRC})
"""The modes whose number of random bits is said by `sr_bits`."""

SPELLINGS: Mapping[str, Mode] = {
    **{mode.name: mode for mode in Mode},
    **{mode.value: mode for mode in Mode},
    "RTN": Mode.RNE,  # "round to nearest" of the training papers; printed as RNE
}


class Saturation(enum.Enum):
    """What happens, after rounding, to a value beyond the largest finite one."""

    SatFinite = "SatFinite"
    """Everything out of range, infinities included, becomes the finite value of largest magnitude."""
    SatPropagate = "SatPropagate"
    """Finite values are clamped, infinities stay (formats with infinity)."""
    SatNone = "SatNone"
    """Overflow becomes infinity (formats with infinity), or the extremum where the mode rounds toward it."""
    OvfNaN = "OvfNaN"
    """Overflow and infinities become NaN (OCP E4M3, non-saturating), or overflow the extremum, as with SatNone."""
    saturate = "saturate"
    """Integers: everything out of range, infinities included, is clamped."""

    def __str__(self) -> str:
        return self.value


def parse_mode(mode: str | Mode) -> Mode:
    """Return the mode spelled `mode` (canonical name or alias)."""
    if isinstance(mode, Mode):
        return mode
    if mode not in SPELLINGS:
        raise InputError(f"no rounding mode is called {mode!r}; did you mean {nearest(str(mode), SPELLINGS)}?")
    return SPELLINGS[mode]


def saturations(fmt: Format) -> tuple[Saturation, ...]:
    """Return the saturation rules that make sense for `fmt`, its default first."""
    if fmt.kind == "integer":
        return (Saturation.saturate,)
    if fmt.has_inf:
        return (Saturation.SatNone, Saturation.SatFinite, Saturation.SatPropagate)
    return (Saturation.SatFinite, Saturation.OvfNaN) if fmt.has_nan else (Saturation.SatFinite,)


def parse_saturation(saturation: str | Saturation | None, fmt: Format) -> Saturation:
    """Return the saturation rule spelled `saturation`, or the default of `fmt` for `None`; refuse senseless pairs."""
    allowed = saturations(fmt)
    if saturation is None:
        return allowed[0]
    for rule in allowed:
        if saturation in (rule, rule.value):
            return rule
    known = isinstance(saturation, Saturation) or saturation in {rule.value for rule in Saturation}
    problem = f"{saturation} makes no sense for {fmt.name}" if known else f"no saturation is called {saturation!r}"
    raise InputError(f"{problem}; {fmt.name} takes {enumerate_names(rule.value for rule in allowed)}")


# --- Random words --------------------------------------------------------------------------------------------

STREAM_FIELDS: Mapping[str, int] = {"site": 12, "step": 24, "draw": 18, "rank": 10}
"""Bits of a stream number, most significant first; 64 in all."""

SHARED_RANK = (1 << STREAM_FIELDS["rank"]) - 1
"""The rank that stands for "one draw, shared by all ranks"."""


def stream(site: int = 0, step: int = 0, draw: int = 0, rank: int = SHARED_RANK) -> int:
    """Return the stream number of one site, step, draw and rank: an injective packing into 64 bits.

    Raise `InputError` for a field that overflows its bits (site 12, step 24, draw 18, rank 10).
    """
    packed = 0
    for (name, bits), number in zip(STREAM_FIELDS.items(), (site, step, draw, rank), strict=True):
        if not 0 <= number < 1 << bits:
            raise InputError(f"{name} {number} does not fit the {bits} bits that a stream has for it")
        packed = packed << bits | number
    return packed


@dataclass(frozen=True, slots=True)
class Key:
    """Name the random words of one array: element i takes word i + offset of (seed, stream).

    `seed` and `stream` have 64 bits each. The words are those of Philox4x32-10 with key = seed (lo, hi) and
    counter = (block lo, block hi, stream lo, stream hi), cuRAND's layout: element i takes word i % 4 of block i // 4;
    an element of a float64 array takes words 2 (i % 2) (high) and 2 (i % 2) + 1 (low) of block i // 2.
    So a slice x[4:] continues with offset=4, on any number of threads, on a CPU or a GPU.
    Source: Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", SC 2011.
    """

    seed: int
    stream: int = 0
    offset: int = 0

    def __post_init__(self) -> None:
        for name in ("seed", "stream", "offset"):
            number = getattr(self, name)
            if not isinstance(number, int) or not 0 <= number < 1 << 64:
                raise InputError(f"{name} of a Key must be an integer of 64 bits (0 <= {name} < 2^64), not {number!r}")


# --- A rounding, whole ---------------------------------------------------------------------------------------

Scale = Literal["none", "pow2", "absmax"]
SCALES = ("none", "pow2", "absmax")


@dataclass(frozen=True, slots=True)
class Quantizer:
    """Hold everything about one rounding: format, mode, random bits, scale, saturation.

    With a scale s the result is s round(fl(x / s)), the division rounded to nearest even in the input's own
    precision. `scale` is "none", a positive number (frozen), or re-derived from each array: "absmax" takes
    s = max|x| / max of the format, "pow2" the smallest power of two that is at least that.
    `Quantizer.parse("FORMAT:MODE")` is the short form.
    """

    format: Format
    mode: Mode = Mode.RNE
    sr_bits: int | None = None
    scale: Scale | float = "none"
    saturation: Saturation | None = None

    def __init__(
        self,
        format: str | Format,
        mode: str | Mode = Mode.RNE,
        *,
        sr_bits: int | None = None,
        scale: Scale | float = "none",
        saturation: str | Saturation | None = None,
    ) -> None:
        # A plain dataclass __init__ could not take names for formats and modes and hold what they name.
        fmt, parsed = get_format(format), parse_mode(mode)
        if sr_bits is not None and (parsed not in LIMITED or not isinstance(sr_bits, int) or not 0 <= sr_bits <= 64):
            raise InputError(
                f"sr_bits = {sr_bits!r} with {parsed}: it is the number of random bits of SRA, SRB or SRC, 0 to 64"
            )
        if parsed in LIMITED and sr_bits is None:
            raise InputError(f"{parsed} needs sr_bits, the number of random bits N; SR takes as many as the input has")
        if isinstance(scale, str):
            if scale not in SCALES:
                raise InputError(f"no scale is called {scale!r}; it is {enumerate_names(SCALES)}, or a number")
        elif not (isinstance(scale, numbers.Real) and math.isfinite(scale) and scale > 0):
            raise InputError(f"scale = {scale!r} must be a positive finite number")
        for name, value in {
            "format": fmt, "mode": parsed, "sr_bits": sr_bits, "scale": scale,
            "saturation": parse_saturation(saturation, fmt),
        }.items():  # fmt: skip
            object.__setattr__(self, name, value)

    @classmethod
    def parse(cls, spelling: str | Self) -> Self:
        """Return the quantizer that "FORMAT:MODE" (or "FORMAT", meaning RNE) spells."""
        if isinstance(spelling, cls):
            return spelling
        name, _, mode = str(spelling).partition(":")
        return cls(name, mode or Mode.RNE)

    def __str__(self) -> str:
        bits = f"({self.sr_bits})" if self.sr_bits is not None else ""
        scale = "" if self.scale == "none" else f", scale {self.scale}"
        return f"{self.format}:{self.mode}{bits}{scale}, {self.saturation}"

    def describe(self) -> dict[str, Any]:
        """Return the fields as plain data, for a report."""
        return {
            "format": self.format.name, "mode": self.mode.name, "sr_bits": self.sr_bits, "scale": self.scale,
            "saturation": str(self.saturation),
        }  # fmt: skip
