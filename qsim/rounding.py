"""The vocabulary of rounding: modes, saturation, random words and their keys, and `Quantizer`.

Only words live here; `qsim.reference` defines their meaning and `qsim.kernels` does it fast.
"""

from __future__ import annotations

import enum
import functools
import importlib
import math
import numbers
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, Self, cast, get_args

from qsim.errors import InputError, enumerate_names, integer, nearest, shown
from qsim.formats import Format, get_format
from qsim.formats.format import Nans
from qsim.models import get_model
from qsim.underflow import gradual_underflow

__all__ = [
    "FLUSHES", "NANS", "ORDERS", "SHARED_RANK", "Flush", "Key", "Mode", "Quantizer", "Saturation", "site_key", "stream",
]  # fmt: skip


class Mode(enum.Enum):
    """A rounding mode: the canonical name is the value, the alias in common use is the member's name.

    nu is the discarded fraction of the interval, R a word of N random bits. The stochastic modes A, B, C are those of
    the IEEE P3109 interim report 4.0, section 4.7.4, on which its revisions agree; the others, where no source is named, of
    IEEE 754-2019, 4.3.
    """

    RNE = "NearestTiesToEven"
    """To the nearest value; of two equally near ones to that with the even code. A format whose `ties` is "away", a variant
    of E8M0, takes RNA for it."""
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
    THR = "Threshold"
    """To the greater neighbour iff the fraction of the way from the lesser one exceeds eps, 0 <= eps < 1 (the threshold
    quantization function of Liu et al. 2025; eps uniform in [0, 1) makes it stochastic rounding)."""

    def __init__(self, name: str) -> None:
        #: Whether the mode takes a random word.
        self.stochastic = name.startswith("Stochastic")
        #: Whether the mode rounds to the nearest value.
        self.nearest = name.startswith("Nearest")

    def inward(self, fmt: Format, *, negative: bool) -> bool:
        """Whether under SatNone and OvfNaN a finite overflow of this sign becomes the extremum of `fmt`.

        It does in the modes that never round beyond it. To-odd rounding is one of these in IEEE P3109 interim report 4.0,
        4.7.5, for unsigned formats with infinity, whose largest value has an odd code; not in the formal model of July
        2026, which dropped that row. In Berkeley SoftFloat it is one for all formats.
        """
        if self is Mode.RTO:
            return fmt.revision == "p3109-4.0" and fmt.has_inf and not fmt.signed and not negative
        return self in (Mode.RTZ, Mode.RUP if negative else Mode.RDN)

    def __str__(self) -> str:
        return self.name


_FIXED_POINT = {
    "RND": Mode.RNP, "RND_ZERO": Mode.RNZ, "RND_MIN_INF": Mode.RNN, "RND_INF": Mode.RNA, "RND_CONV": Mode.RNE,
    "TRN": Mode.RDN, "TRN_ZERO": Mode.RTZ,
}  # fmt: skip
DIALECTS: Mapping[str, Mode] = {
    **{f"{library}_{word}": mode for library in ("SC", "AP", "AC") for word, mode in _FIXED_POINT.items()},
    "fixed_round": Mode.RNE,
    "fixed_truncate": Mode.RDN,
    "round_nearest": Mode.RNE,
    "round_zero": Mode.RTZ,
    "round_inf": Mode.RUP,
    "round_neginf": Mode.RDN,
}
"""The words of other libraries, which are taken for modes: SystemC, ap_fixed, ac_fixed (IEEE 1666-2011, 7.10.9) and VHDL-2008's
fixed_pkg and float_pkg."""

TWO_MEANINGS: Mapping[str, str] = {
    "trunc": "toward -infinity in SystemC, ap_fixed, ac_fixed and VHDL (RDN), and toward zero in fxpmath and C (RTZ)",
    "truncate": "toward -infinity in SystemC, ap_fixed, ac_fixed and VHDL (RDN), and toward zero in fxpmath and C (RTZ)",
    "RND": "to nearest with ties up in SystemC, ap_fixed and ac_fixed (RNP), and any rounding to nearest elsewhere",
    "AC_RND_CONV_ODD": "to nearest with ties to odd, which qsim has no mode for; RTO goes to odd wherever anything is lost",
}
"""Words that are refused, and why."""


LIMITED = frozenset({Mode.SRA, Mode.SRB, Mode.SRC})
"""The modes whose number of random bits is said by `sr_bits`."""

SPELLINGS: Mapping[str, Mode] = {
    **{mode.name: mode for mode in Mode},
    **{mode.value: mode for mode in Mode},
    "RTN": Mode.RNE,  # "round to nearest" of the training papers; printed as RNE
    "nearest": Mode.RNE,
}
FOLDED: Mapping[str, Mode] = {name.lower(): mode for name, mode in SPELLINGS.items()}
"""The same without regard to upper and lower case: "stochastic" is SR."""


class Saturation(enum.Enum):
    """The treatment, after rounding, of a value beyond the range (IEEE P3109; OCP OFP8).

    Where it says "clamped", the result is the nearest finite value: 0 for a negative one and an unsigned format. The first
    three are those of P3109. Its revisions (`revision` of a format) differ in SatNone: `p3109-2026-07`, the working group's
    formal model of July 2026 and the default, and `p3109-4.0`, interim report 4.0 of 26 June 2026, section 4.7.5.
    """

    SatFinite = "SatFinite"
    """Everything out of range is clamped, infinities included."""
    SatPropagate = "SatPropagate"
    """Finite values are clamped, infinities stay (formats with infinity; without, P3109's SatPropagate is SatFinite)."""
    SatNone = "SatNone"
    """Overflow becomes infinity (formats with infinity), or the extremum where the mode rounds toward it; a negative value
    and an unsigned format: `negative_to` of the format. Without infinity it stands for OvfNaN, as in p3109-2026-07; in a
    format of p3109-4.0 overflow and infinities become the extremum there, but of an unsigned format a negative value what
    `negative_to` says, and overflow does likewise in ToOdd where there is an infinity and no sign."""
    OvfNaN = "OvfNaN"
    """Overflow and infinities become NaN (OCP E4M3, non-saturating), or overflow the extremum, as with SatNone."""
    InfNaN = "InfNaN"
    """Finite values are clamped, infinities become NaN (posits; formats without infinity)."""
    saturate = "saturate"
    """Integers and fixed point: everything out of range is clamped, infinities included."""
    wrap = "wrap"
    """Integers and fixed point: the low bits of the rounded value's two's complement; infinities are clamped."""

    def __str__(self) -> str:
        return self.value


def parse_mode(mode: str | Mode, fmt: Format | None = None) -> Mode:
    """Return the mode spelled `mode` (canonical name or alias), as it is for `fmt`: see its `ties`."""
    if isinstance(mode, Mode):
        parsed = mode
    elif isinstance(mode, str) and mode in SPELLINGS:
        parsed = SPELLINGS[mode]
    elif isinstance(mode, str) and mode in DIALECTS:
        parsed = DIALECTS[mode]
    elif isinstance(mode, str) and mode in TWO_MEANINGS:
        raise InputError(f"{mode!r} is no name of a rounding mode here: it is {TWO_MEANINGS[mode]}")
    elif isinstance(mode, str) and mode.lower() in FOLDED:
        parsed = FOLDED[mode.lower()]
    else:
        raise InputError(f"no rounding mode is called {mode!r}; did you mean {nearest(str(mode), SPELLINGS)}?")
    return Mode.RNA if parsed is Mode.RNE and fmt is not None and fmt.ties == "away" else parsed


def saturations(fmt: Format) -> tuple[Saturation, ...]:
    """Return the saturation rules that make sense for `fmt`, its default first."""
    rules: tuple[Saturation, ...]
    if fmt.kind in ("integer", "fixed"):
        symmetric = fmt.bottom == fmt.top  # leaves out a code that wrapping around would reach
        rules = (Saturation.saturate,) if symmetric else (Saturation.saturate, Saturation.wrap)
    elif fmt.has_inf:
        rules = (Saturation.SatNone, Saturation.SatFinite, Saturation.SatPropagate)
    else:
        own = (Saturation.SatNone,) if fmt.revision == "p3109-4.0" else ()
        rules = (Saturation.SatFinite, *own)
        if fmt.has_nan:
            rules += (Saturation.OvfNaN, Saturation.InfNaN)
    return tuple(sorted(rules, key=lambda rule: rule.value != fmt.saturation)) if fmt.saturation else rules


WITHOUT_INFINITY = {"SatNone": Saturation.OvfNaN, "SatPropagate": Saturation.SatFinite}
"""The meaning of these rules in a format that has a NaN and no infinity, unless it takes them itself."""


def parse_saturation(saturation: str | Saturation | None, fmt: Format) -> Saturation:
    """Return the saturation rule spelled `saturation`, or the default of `fmt` for `None`; refuse senseless pairs."""
    allowed = saturations(fmt)
    if saturation is None:
        saturation = fmt.saturation or allowed[0]
    for rule in allowed:
        if saturation in (rule, rule.value):
            return rule
    if Saturation.OvfNaN in allowed and str(saturation) in WITHOUT_INFINITY:
        return WITHOUT_INFINITY[str(saturation)]
    known = isinstance(saturation, Saturation) or str(saturation) in {rule.value for rule in Saturation}
    problem = f"{saturation} makes no sense for {fmt.name}" if known else f"no saturation is called {saturation!r}"
    raise InputError(f"{problem}; {fmt.name} takes {enumerate_names(rule.value for rule in allowed)}")


def parse_nan(nan: str | None, fmt: Format) -> Nans:
    """Return which NaN results have: `nan`, one of `NANS`, or that of `fmt` for `None`."""
    if nan is None:
        return fmt.nan
    if not isinstance(nan, str) or nan not in NANS:
        raise InputError(f"nan = {nan!r}; it is {enumerate_names(NANS)}")
    return cast("Nans", nan)


# --- Random words --------------------------------------------------------------------------------------------

STREAM_FIELDS: Mapping[str, int] = {"site": 12, "step": 24, "draw": 18, "rank": 10}
"""Bits of a stream number, most significant first; 64 in all."""

SHARED_RANK = (1 << STREAM_FIELDS["rank"]) - 1
"""The rank that stands for "one draw, shared by all ranks"."""


def stream(site: int = 0, step: int = 0, draw: int = 0, rank: int = SHARED_RANK) -> int:
    """Return the stream number of one site, step, draw and rank: an injective packing into 64 bits.

    Raise `InputError` for a field that overflows its bits (site 12, step 24, draw 18, rank 10). `site_key` takes larger sites.
    """
    packed = 0
    for (name, bits), number in zip(STREAM_FIELDS.items(), (site, step, draw, rank), strict=True):
        if not 0 <= number < 1 << bits:
            raise InputError(f"{name} {number} does not fit the {bits} bits that a stream has for it")
        packed = packed << bits | number
    return packed


@dataclass(frozen=True, slots=True)
class Key:
    """Name the random words of one array: element i takes word i + offset of (seed, stream), and of N bits its top N.

    `seed` and `stream` have 64 bits each. The words are those of Philox4x32-10 with key = seed (lo, hi) and
    counter = (block lo, block hi, stream lo, stream hi), cuRAND's layout: element i takes word i % 4 of block i // 4;
    an element of a float64 array takes words 2 (i % 2) (high) and 2 (i % 2) + 1 (low) of block i // 2.
    So a slice x[4:] continues with offset=4, on any number of threads, on a CPU or a GPU.

    With `bits` = 16 or 8 an element, of any type, takes so many bits of those words, the lowest first: element i of 16 bits is
    half i % 2 of the 32-bit word i // 2, as `words.view(np.uint16)[i]` on a little-endian machine. Half and a quarter of the
    blocks are enough then; SRA, SRB and SRC take up to so many random bits, and SR, which takes all, has none of these.
    Source: Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", SC 2011.
    """

    seed: int
    stream: int = 0
    offset: int = 0
    bits: int = 32

    def __post_init__(self) -> None:
        for name in ("seed", "stream", "offset"):
            number = integer(f"{name} of a Key", getattr(self, name))
            if not 0 <= number < 1 << 64:
                raise InputError(f"{name} of a Key must be an integer of 64 bits (0 <= {name} < 2^64), not {number}")
            object.__setattr__(self, name, number)
        if self.bits != 32:
            bits = integer("bits of a Key", self.bits)
            if bits not in WORD_BITS:
                raise InputError(f"bits of a Key, those of a random word, are 8, 16 or 32, not {bits}")
            object.__setattr__(self, "bits", bits)

    def __repr__(self) -> str:
        bits = "" if self.bits == 32 else f", bits={self.bits}"
        return f"Key(seed={self.seed}, stream={self.stream}, offset={self.offset}{bits})"

    def after(self, count: int) -> Key:
        """Return the key of the elements after the first `count`."""
        return Key(self.seed, self.stream, self.offset + count, self.bits)


WORD_BITS = (8, 16, 32)
"""The bits of a random word."""


SITE_BITS, OFFSET_BITS = 27, 47
"""Bits of a site number, and of the index of an element of an array at a site."""


def site_key(seed: int, site: int, *, step: int = 0, draw: int = 0, rank: int = SHARED_RANK, offset: int = 0) -> Key:
    """Return the key of an array at a site whose first element has the index `offset`: an injective packing.

    For a site below 4,096 it is Key(seed, stream(site, step, draw, rank), offset); see `split_site` for larger ones.
    Raise `InputError` for a field that overflows its bits (site 27, step 24, draw 18, rank 10, offset 47).
    """
    low, begin = split_site(site)
    if not 0 <= offset < 1 << OFFSET_BITS:
        raise InputError(f"offset {offset} does not fit the {OFFSET_BITS} bits that a key has for it")
    return Key(seed, stream(low, step, draw, rank), begin + offset)


@functools.lru_cache(1 << 12)
def split_site(site: int) -> tuple[int, int]:
    """Return the field of a site number in a stream, its low 12 bits, and the offset of the first element of an array there.

    The offset is 0 where the other 15 bits, p, are 0, and (2p - 1) 2^48 elsewhere. An element of 64 bits takes two words, so
    arrays of 64 bits begin at twice the block of those of 32 bits, and twice an odd number is not odd: arrays of fewer than
    2^47 elements of either type at different sites never share a word.
    Raise `InputError` for a site number of more than 27 bits.
    """
    if not 0 <= site < 1 << SITE_BITS:
        raise InputError(f"site {site} does not fit the {SITE_BITS} bits that a key has for it")
    page, low = divmod(site, 1 << STREAM_FIELDS["site"])
    return low, (2 * page - 1) << (OFFSET_BITS + 1) if page else 0


# --- A rounding, whole ---------------------------------------------------------------------------------------

Scale = Literal["none", "pow2", "absmax", "absmax_nearest", "absmean"]
DERIVED = ("pow2", "absmax", "absmax_nearest", "absmean")
"""The rules by which a scale is derived from each array."""
SCALES = ("none", *DERIVED)
Per = Literal["tensor", "sample", "channel", "token"] | int | tuple[int, ...]
PERS = ("tensor", "sample", "channel", "token")
Order = Literal["divide", "reciprocal", "exact", "input"]
ORDERS: Mapping[str, str] = {
    "divide": "fl(x / s)",
    "reciprocal": "fl(x fl(1 / s))",
    "exact": "x / s, without a rounding of its own",
    "input": "fl(x / s), and s itself, in the input's own precision",
}
"""The number that is rounded when there is a scale s.

s is a float32, and fl rounds to float32, for inputs of up to 32 bits, and float64 for float64; "input" is another order for
float16 and bfloat16 alone.
"""
NANS = get_args(Nans)
Flush = Literal["after", "before", "result"]
FLUSHES: Mapping[Flush, str] = {
    "after": "what rounds, with an unbounded exponent, below the smallest normal number; as x86 processors and XLA do",
    "before": "what lies below the smallest normal number before it is rounded; as Arm processors do",
    "result": "what rounds to a subnormal number of the format; no processor known does this",
}
"""The results that `ftz_out` flushes to zero: those tiny after rounding, before it, or in the format (IEEE 754-2019, 7.5).

They differ next to the smallest normal number N only. With p significant bits, and rounding to nearest, numbers below N stay
nonzero, and become N: from N (1 - 2^-(p+1)) on by "after", none by "before", from N (1 - 2^-p) on by "result". Sources: Intel
64 and IA-32 Architectures Software Developer's Manual, volume 1, 4.9.1.5 and 10.2.3.3; Arm Architecture Reference Manual for
A-profile, FPCR.FZ and FPRound(); OpenXLA, operation semantics, ReducePrecision.
"""


def parse_ftz_out(ftz_out: bool | Flush) -> Flush | Literal[False]:
    """Return which results are flushed, or `False` for none; `True` is "after"."""
    if isinstance(ftz_out, bool):
        return "after" if ftz_out else False
    if not isinstance(ftz_out, str) or ftz_out not in FLUSHES:
        words = enumerate_names(map(repr, FLUSHES))
        raise InputError(f"ftz_out = {shown(ftz_out)}; it is {words}, True (which is 'after') or False")
    return ftz_out


@dataclass(frozen=True, slots=True)
class Quantizer:
    """Hold everything about one rounding: format, mode, random bits, saturation, scale, flushing.

    `sr_bits` is N of SRA, SRB and SRC, `eps` that of Threshold. With a scale s the result is s round(fl(x / s)), rounded once
    to the type of the input; s and fl are float32 for inputs of up to 32 bits, float64 for float64. `order` names another
    order of operations, see `ORDERS`; "reciprocal" is that of torch. `scale` is "none", a positive number (frozen), or derived
    anew from each array, M being the largest magnitude of the format:

    "absmax"          fl(max|x| / M), or the first number above it with which max|x|, scaled by `order`, does not exceed M: then
                      no finite element overflows, in any mode. For int8 it is above in one array of six or seven.
    "absmax_nearest"  fl(max|x| / M) always, as in PyTorch and ONNX; the largest element may come out just above M.
    "pow2"            the smallest power of two that is at least max|x| / M.
    "absmean"         fl(mean|x|).

    A derived scale is a normal number, and 1 only where there is nothing but zeros (see `derive_scale`). `per` says which
    elements share a scale: those of the "tensor", of a "sample" (index of axis 0), of a "channel" (axis 0 too, where a weight
    has its outputs), of a "token" (all axes but the last), or those of one index of the axis or axes it names. `ftz_in` takes a
    subnormal number of the input's type for a zero. `ftz_out` flushes results of a float format to zero: "after", "before" or
    "result" say which, see `FLUSHES`; `True` is "after". A NaN result is "canonical", or "signed": it has the sign of the
    input; or "signed_overflow": a NaN that an overflow or an infinity becomes has it, and no other (CUDA's FP8 conversions from
    float). Saturation and NaN are by default those of the format's entry.
    `Quantizer.parse("FORMAT:MODE")` is the short form, with N or eps in brackets: "e4m3:SRA(8)".
    """

    format: Format
    mode: Mode = Mode.RNE
    sr_bits: int | None = None
    eps: float | None = None
    scale: Scale | float = "none"
    per: Per = "tensor"
    order: Order = "divide"
    saturation: Saturation | None = None
    ftz_in: bool = False
    ftz_out: Flush | Literal[False] = False
    nan: Nans = "canonical"

    @gradual_underflow
    def __init__(
        self,
        format: str | Format,
        mode: str | Mode = Mode.RNE,
        *,
        sr_bits: int | None = None,
        eps: float | None = None,
        scale: Scale | float = "none",
        per: Per = "tensor",
        order: Order = "divide",
        saturation: str | Saturation | None = None,
        ftz_in: bool = False,
        ftz_out: bool | Flush = False,
        nan: Nans | None = None,
    ) -> None:
        # A plain dataclass __init__ could not take names for formats and modes and hold what they name.
        named, spelled = split_spelling(format) if isinstance(format, str) else (format, "")
        if spelled and mode is not Mode.RNE:
            raise InputError(f"the mode is {spelled} in the spelling of the format, and {mode}; drop one")
        mode, fmt = spelled or mode, get_format(named)
        fields = mode_fields(mode) if isinstance(mode, str) else {}
        for name, given in (("sr_bits", sr_bits), ("eps", eps)):
            if given is not None and name in fields and fields[name] != given:
                raise InputError(f"{name} = {shown(given)} contradicts the {fields[name]} of {mode}; drop one")
        sr_bits, eps = fields.get("sr_bits", sr_bits), fields.get("eps", eps)
        parsed, nan = parse_mode(fields.get("mode", mode), fmt), parse_nan(nan, fmt)
        sr_bits = None if sr_bits is None else integer("sr_bits", sr_bits)
        if sr_bits is not None and (parsed not in LIMITED or not 0 <= sr_bits <= 64):
            raise InputError(
                f"sr_bits = {sr_bits!r} with {parsed}: it is the number of random bits of SRA, SRB or SRC, 0 to 64"
            )
        if parsed in LIMITED and sr_bits is None:
            raise InputError(f"{parsed} needs sr_bits, the number of random bits N; SR takes as many as the input has")
        if parsed is Mode.THR and eps is None:
            raise InputError("Threshold needs eps, 0 <= eps < 1, as in Threshold(0.25)")
        if parsed is not Mode.THR and eps is not None:
            raise InputError(f"eps = {shown(eps)} with {parsed}: it belongs to the mode Threshold")
        eps = None if eps is None else check_eps(eps)
        if isinstance(scale, str):
            if scale not in SCALES:
                raise InputError(f"no scale is called {scale!r}; it is {enumerate_names(SCALES)}, or a number")
        else:
            frozen = number(scale)
            if not 0 < frozen < math.inf:
                raise InputError(f"scale = {shown(scale)} must be a positive finite number")
            scale = frozen
        per = per if per in PERS else axes(per)
        if not isinstance(order, str) or order not in ORDERS:
            raise InputError(f"no order of operations is called {order!r}; it is {enumerate_names(ORDERS)}")
        if not isinstance(ftz_in, bool):
            raise InputError(f"ftz_in = {shown(ftz_in)} must be True or False")
        for name, value in {
            "format": fmt, "mode": parsed, "sr_bits": sr_bits, "eps": eps, "scale": scale, "per": per, "order": order,
            "saturation": parse_saturation(saturation, fmt), "ftz_in": ftz_in, "ftz_out": parse_ftz_out(ftz_out), "nan": nan,
        }.items():  # fmt: skip
            object.__setattr__(self, name, value)

    @classmethod
    @gradual_underflow
    def parse(cls, spelling: str | Self) -> Self:
        """Return the quantizer that "FORMAT:MODE" (or "FORMAT", meaning RNE) spells; MODE may be "SRA(8)"."""
        if isinstance(spelling, cls):
            return spelling
        name, mode = split_spelling(str(spelling))
        return cls(name, **(mode_fields(mode) if mode else {}))

    @classmethod
    def preset(cls, name: str) -> Self:
        """Return the quantizer that rounds as a converter of another package: "torch-2.13/float8_e4m3fn".

        `qsim models` lists them, and the inputs that some of them treat otherwise all the same: `qsim.golden.model` does
        what they do. Raise `InputError` for one that is no rounding.
        """
        model = get_model(name)
        if model.rule:
            raise InputError(f"{name} is more than a rounding; qsim.golden.model({name!r}) converts as it does")
        return cls(
            model.format,
            model.mode,
            sr_bits=model.sr_bits or None,
            ftz_out=parse_ftz_out(cast("Any", model.ftz_out or False)),
            saturation=model.saturation,
            nan=parse_nan(model.nan or None, get_format(model.format)),
        )

    @gradual_underflow
    def __str__(self) -> str:
        argument = self.sr_bits if self.sr_bits is not None else self.eps
        words = [f"{self.format}:{self.mode}" + (f"({argument})" if argument is not None else "")]
        if self.scale != "none":
            words.append(f"scale {self.scale}")
            words += [f"per {self.per}"] if self.per != "tensor" else []
            words += [f"order {self.order}"] if self.order != "divide" else []
        words.append(str(self.saturation))
        words += ["ftz_in"] if self.ftz_in else []
        words += [f"ftz_out {self.ftz_out}"] if self.ftz_out else []
        words += [f"{self.nan.replace('_', ' ')} NaN"] if self.nan != "canonical" else []
        return ", ".join(words)

    @gradual_underflow
    def __repr__(self) -> str:
        argument = self.sr_bits if self.sr_bits is not None else self.eps
        words = [repr(f"{self.format}:{self.mode}" + (f"({argument})" if argument is not None else ""))]
        usual = Quantizer(self.format, self.mode, sr_bits=self.sr_bits, eps=self.eps)
        for name in ("scale", "per", "order", "saturation", "ftz_in", "ftz_out", "nan"):
            value = getattr(self, name)
            if value != getattr(usual, name):
                words.append(f"{name}={(value.value if isinstance(value, Saturation) else value)!r}")
        return f"Quantizer({', '.join(words)})"

    def __call__(self, x: Any, *, key: Any = None, rbits: Any = None, out: Any = None) -> Any:
        """Return `qsim.quantize(x, self)` with these random words, into `out`."""
        return importlib.import_module("qsim.arrays").quantize(x, self, key=key, rbits=rbits, out=out)  # stands above

    def describe(self) -> dict[str, Any]:
        """Return the fields as plain data, for a report; those that most roundings leave alone only where they are set."""
        fields = {
            "format": self.format.name, "mode": self.mode.name, "sr_bits": self.sr_bits, "scale": self.scale,
            "saturation": str(self.saturation),
        }  # fmt: skip
        usual = {"eps": None, "per": "tensor", "order": "divide", "ftz_in": False, "ftz_out": False, "nan": "canonical"}
        return fields | {name: getattr(self, name) for name, value in usual.items() if getattr(self, name) != value}


def as_key(key: Any, *, whole: bool = False) -> Key:
    """Return a `Key`: `key` itself, that of a seed, or one whose seed is drawn from a `np.random.Generator`.

    With `whole` refuse one with words of fewer than 32 bits.
    """
    if isinstance(key, Key):
        if whole and key.bits != 32:
            raise InputError(f"random words of sums have 32 bits, and those of the key {key.bits}; leave bits out")
        return key
    if hasattr(key, "bit_generator"):
        return Key(int(key.integers(0, 1 << 64, dtype="uint64")))
    if isinstance(key, bool) or not hasattr(key, "__index__"):
        raise InputError(
            f"key must be a qsim.Key, such as qsim.Key(seed=0), a seed or a np.random.Generator, not {shown(key)}"
        )
    return Key(key)


def number(value: Any) -> float:
    """Return a real number as a float; NaN for anything else, and beyond the range."""
    if isinstance(value, bool) or not isinstance(value, numbers.Real):
        return math.nan
    try:
        return float(value)
    except OverflowError:
        return math.nan


def check_eps(eps: Any) -> float:
    """Return a threshold as a float; refuse one that is no multiple of 2^-64 in [0, 1): 64-bit fractions decide no other."""
    threshold = number(eps)
    if not 0 <= threshold < 1:
        raise InputError(
            f"eps = {shown(eps)} must be a number with 0 <= eps < 1; RDN is the rounding that never goes up"
        )
    if threshold * 2.0**64 % 1:  # both operations are exact
        raise InputError(f"eps = {shown(eps)} is no multiple of 2^-64; every number from 2^-12 on is, and so is 0")
    return threshold


def split_spelling(spelling: str) -> tuple[str, str]:
    """Return format and mode of "FORMAT:MODE"; the mode is "" where there is none. A path may hold colons of its own."""
    name, colon, mode = spelling.rpartition(":")
    return (name, mode) if colon and ".toml" not in mode else (spelling, "")


def mode_fields(spelling: str) -> dict[str, Any]:
    """Return the fields of a `Quantizer` that "MODE", "MODE(N)" or "Threshold(eps)" spells."""
    name, bracket, argument = spelling.partition("(")
    mode = parse_mode(name)
    if not bracket:
        return {"mode": mode}
    field, kind = ("eps", float) if mode is Mode.THR else ("sr_bits", int)
    try:
        number = kind(argument[:-1] if argument.endswith(")") else "")
    except ValueError:
        raise InputError(
            f"no rounding mode is called {spelling!r}; such a spelling is SRA(8) or Threshold(0.25)"
        ) from None
    return {"mode": mode, field: number}


def axes(per: Any) -> int | tuple[int, ...]:
    """Return the axis or axes that `per` names by number."""
    try:
        several = tuple(integer("axis", axis) for axis in (per if isinstance(per, tuple) else (per,)))
    except InputError:
        several = ()
    if not several:
        raise InputError(f"per = {shown(per)}; it is {enumerate_names(PERS)}, or the number of an axis, or several")
    return several if isinstance(per, tuple) else several[0]
