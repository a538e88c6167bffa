"""The right result of a kernel for a float32 or float64, from `qsim.reference`: for one number, and as a term of a solver.

`rounded` is any rounding as a term over bit-vectors: |x| is an exact integer X, in units of the carrier's smallest subnormal,
as are the values V_0 < V_1 < ... of the format, and the reference's fraction nu is (X - V_n) / (V_(n+1) - V_n).
"""

from __future__ import annotations

import itertools
import math
import struct
from collections.abc import Callable, Mapping
from fractions import Fraction
from types import ModuleType
from typing import Any, NamedTuple

import numpy as np

from qsim import reference
from qsim.formats import Format
from qsim.formats.format import Nans
from qsim.kernels.core import Parameters
from qsim.kernels.parameters import CARRIERS, Carrier, addends, parameters
from qsim.kernels.parameters import stochastic as sources
from qsim.rounding import Mode, Saturation

__all__ = [
    "FLOAT32", "FLOAT64", "Pair", "Result", "added", "contrast", "deterministic", "evaluate", "nearest_even", "pair", "read",
    "result", "rounded", "stochastic", "threshold", "unknown", "value",
]  # fmt: skip

FLOAT32, FLOAT64 = CARRIERS[np.dtype(np.float32)], CARRIERS[np.dtype(np.float64)]


class Pair(NamedTuple):
    """Hold the core's parameters for rounding to values, and to codes."""

    value: Parameters
    code: Parameters


def pair(
    fmt: Format, saturation: Saturation, carrier: Carrier = FLOAT32, mode: Mode = Mode.RNE, *, nan: Nans = "canonical"
) -> Pair:
    """Return both; arguments are those of `parameters`."""
    return Pair(*(parameters(fmt, saturation, carrier.dtype, mode, nan=nan, codes=codes) for codes in (False, True)))


class Result(NamedTuple):
    """Hold a kernel's result: the bit pattern of the value, and its code."""

    value: int
    code: int


def result(
    x: float | Fraction,
    fmt: Format,
    saturation: Saturation,
    carrier: Carrier = FLOAT32,
    mode: Mode = Mode.RNE,
    nan: Nans = "canonical",
) -> Result:
    """Return the pattern and the code that the reference gives for `x`, by default rounded to nearest, without random bits."""
    code = reference.encode(x, fmt, mode, saturation=saturation, nan=nan, sr_bits=0)
    decoded = fmt.decode(code)
    if math.isnan(decoded):
        negative = fmt.has_neg_zero and code == fmt.code_of_nan(negative=True)
        return Result(carrier.nan | negative << (carrier.width - 1), code)
    return Result(carrier.pattern(decoded), code)


def on_grid(
    ordinal: int,
    sign: int,
    fmt: Format,
    saturation: Saturation,
    carrier: Carrier = FLOAT32,
    mode: Mode = Mode.RNE,
    nan: Nans = "canonical",
) -> Result:
    """Return the result for the grid value `ordinal` with the sign +1 or -1; beyond the range that of an overflow."""
    magnitude = fmt.value(ordinal)
    return result(sign * magnitude if magnitude else math.copysign(0.0, sign), fmt, saturation, carrier, mode, nan)


def value(pattern: int, carrier: Carrier = FLOAT32) -> float:
    """Return the float that has this bit pattern."""
    codes = ("<f", "<I") if carrier is FLOAT32 else ("<d", "<Q")
    return float(struct.unpack(codes[0], struct.pack(codes[1], pattern))[0])


def evaluate(core: ModuleType, u: int, even: int, odd: int, both: Pair, sticky: int | None = None) -> Result:
    """Run the kernel of the module `core` on one pattern, as plain Python over NumPy words.

    Without `sticky` the addends are those of a deterministic mode, with it that of a random word.
    """
    word = type(both.value.sign)
    found = []
    with np.errstate(over="ignore"):  # words wrap around; NumPy warns of that for scalars
        for p in both:
            if sticky is None:
                found.append(core.round_bits(word(u), word(even), word(odd), core.last_to_zero(word(even), p), p))
            else:
                found.append(core.round_word(word(u), word(even), word(sticky), p))
    return Result(*map(int, found))


def read(reader: Any, core: ModuleType, u: Any, even: Any, odd: Any, both: Any, sticky: Any = None) -> tuple[Any, Any]:
    """Return the result of `evaluate` as terms, read by `qsim.prove.smt.Reader`; `both` holds constants or variables."""
    if sticky is None:
        small = (reader.call(core.last_to_zero, even, p) for p in both)
        found = (reader.call(core.round_bits, u, even, odd, limit, p) for limit, p in zip(small, both, strict=True))
    else:
        found = (reader.call(core.round_word, u, even, sticky, p) for p in both)
    value, code = found
    return value, code


def contrast(
    u: int, got: Result, fmt: Format, mode: Mode, saturation: Saturation, carrier: Carrier = FLOAT32, **drawn: Any
) -> str:
    """Compare the results of kernel and reference for the pattern `u`, in words; `drawn` has sr_bits and rbits, or eps."""
    x = value(u, carrier)
    code = reference.encode(x, fmt, mode, saturation=saturation, **drawn)
    given = "".join(
        f", {name} = {value:#x}" if isinstance(value, int) else f", {name} = {value!r}" for name, value in drawn.items()
    )
    return (
        f"{x!r} (pattern {u:#010x}{given}) by {mode}, {saturation}: the kernel gives {value(got.value, carrier)!r} with "
        f"code {got.code:#04x}, the reference {fmt.decode(code)!r} with code {code:#04x}"
    )


# --- As a term ---------------------------------------------------------------------------------------------

Away = Callable[[Any, Any, Any, Any], Any]
"""Decides whether a magnitude goes to the upper neighbour: from X - V_n, from the k of V_(n+1) - V_n = 2^k, from
whether n is odd, and from whether x is negative. The integers are bit-vectors wide enough for all the reference does."""

WIDEST_WORD = 64
"""Random bits for which `rounded` leaves room above X."""


def nearest_even(rest: Any, k: Any, odd: Any, negative: Any) -> Any:
    """Return the term of nu > 1/2, or nu = 1/2 and odd."""
    return deterministic(Mode.RNE)(rest, k, odd, negative)


def deterministic(mode: Mode) -> Away:
    """Return the rule of a deterministic mode: the decision at nu = 1/2, or at 0 < nu."""
    import z3

    def away(rest: Any, k: Any, odd: Any, negative: Any) -> Any:
        interval = z3.BitVecVal(1, rest.size()) << k
        more, tie, inexact = z3.UGT(2 * rest, interval), 2 * rest == interval, rest != 0
        return {
            Mode.RNE: z3.Or(more, z3.And(tie, odd)),
            Mode.RNA: z3.Or(more, tie),
            Mode.RNZ: more,
            Mode.RNP: z3.Or(more, z3.And(tie, z3.Not(negative))),
            Mode.RNN: z3.Or(more, z3.And(tie, negative)),
            Mode.RTZ: z3.BoolVal(val=False),
            Mode.RUP: z3.And(inexact, z3.Not(negative)),
            Mode.RDN: z3.And(inexact, negative),
            Mode.RAZ: inexact,
            Mode.RTO: z3.And(inexact, z3.Not(odd)),
        }[mode]

    return away


def stochastic(sr_bits: Any, rbits: Any, mode: Mode = Mode.SRA) -> Away:
    """Return the rule of a stochastic mode, where N = `sr_bits` and R = `rbits` are words, unknown or not."""
    import z3

    def away(rest: Any, k: Any, odd: Any, negative: Any) -> Any:  # noqa: ARG001 - no tie to break, no direction
        n, r = (z3.ZeroExt(rest.size() - word.size(), word) for word in (sr_bits, rbits))
        whole = z3.BitVecVal(1, rest.size()) << n
        scaled = rest << n  # nu 2^N is this over 2^k, and a shift by k divides and rounds down
        floor, interval = z3.LShR(scaled, k), z3.BitVecVal(1, rest.size()) << k
        left = scaled - (floor << k)
        up = z3.Or(z3.UGT(2 * left, interval), z3.And(2 * left == interval, floor & 1 == 1))
        return {
            Mode.SRA: z3.UGE(floor + r, whole),
            Mode.SRB: z3.UGE(z3.LShR(2 * scaled, k) + 2 * r + 1, 2 * whole),
            Mode.SRC: z3.UGE(z3.If(up, floor + 1, floor) + r, whole),
            Mode.SRE: z3.And(rest != 0, z3.UGE(2 * r, whole)),
        }[mode]

    return away


def threshold(eps: Any) -> Away:
    """Return the rule of Threshold for eps = `eps` / 2^W, a word of W bits, unknown or not."""
    import z3

    def away(rest: Any, k: Any, odd: Any, negative: Any) -> Any:  # noqa: ARG001 - no tie to break
        interval = z3.BitVecVal(1, rest.size()) << k
        reached = z3.ZeroExt(rest.size() - eps.size(), eps) << k
        below = z3.And(rest != 0, z3.ULE((interval - rest) << eps.size(), reached))
        return z3.If(negative, below, z3.UGT(rest << eps.size(), reached))

    return away


def rounded(
    u: Any,
    fmt: Format,
    saturation: Saturation,
    away: Away,
    carrier: Carrier = FLOAT32,
    mode: Mode = Mode.RNE,
    nan: Nans = "canonical",
) -> tuple[Any, Any]:
    """Return the terms of the value's pattern and of the code that the float with pattern `u` rounds to.

    `away` is the rule of `mode`, which also says which overflows stay inside; `nan` is that of `Quantizer`.
    """
    import z3

    width, fraction_bits = carrier.width, carrier.fraction_bits
    wide = 2 * carrier.bias + fraction_bits + 1 + WIDEST_WORD + 1

    def word(number: int) -> Any:
        return z3.BitVecVal(number, width)

    a = u & word((1 << (width - 1)) - 1)
    field, fraction = z3.LShR(a, fraction_bits), a & word((1 << fraction_bits) - 1)
    subnormal = field == 0
    significand = z3.If(subnormal, fraction, fraction | word(1 << fraction_bits))
    x = z3.ZeroExt(wide - width, significand) << z3.ZeroExt(wide - width, z3.If(subnormal, word(0), field - 1))

    # n, V_n and k by looking x up among the values; beyond the range one more value is enough to tell an overflow.
    limit = max(fmt.top, fmt.bottom)
    unit = Fraction(2) ** (1 - carrier.bias - fraction_bits)
    values = [int(fmt.value(n) / unit) for n in range(limit + 3)]
    n, lower, k = word(0), z3.BitVecVal(0, wide), z3.BitVecVal(0, wide)
    for number, (this, following) in enumerate(itertools.pairwise(values)):
        above = z3.UGE(x, z3.BitVecVal(this, wide))
        n = z3.If(above, word(number), n)
        lower = z3.If(above, z3.BitVecVal(this, wide), lower)
        k = z3.If(above, z3.BitVecVal((following - this).bit_length() - 1, wide), k)
    odd = n & 1 == 1 if fmt.has_zero else z3.And(n & 1 == 0, n != 0)
    ordinal = z3.If(away(x - lower, k, odd, z3.UGE(u, 1 << (width - 1))), n + 1, n)

    def signed(sign: int, kind: int) -> Any:
        """Return the term of the value (`kind` 0) or of the code (1) for the numbers of one sign."""
        beyond = max(fmt.bottom, 0) if sign < 0 else fmt.top
        rule = fmt, saturation, carrier, mode, nan
        term = word(on_grid(beyond + 1, sign, *rule)[kind])
        for number in range(beyond, -1, -1):
            term = z3.If(ordinal == number, word(on_grid(number, sign, *rule)[kind]), term)
        term = z3.If(a == carrier.infinity, word(result(sign * math.inf, *rule)[kind]), term)
        return z3.If(z3.UGT(a, carrier.infinity), word(result(math.copysign(math.nan, sign), *rule)[kind]), term)

    def term(kind: int) -> Any:
        return z3.If(z3.UGE(u, 1 << (width - 1)), signed(-1, kind), signed(1, kind))

    return term(0), term(1)


def added(
    core: ModuleType, reader: Any, mode: Mode, n: int, w: Any, negative: Any, carrier: Carrier = FLOAT32
) -> tuple[Any, Any, Any, Any]:
    """Return the terms that `mode` adds for even and for odd codes, whether they are sticky, and its rule for `rounded`.

    `w` is the random word, of whose top bits SRA, SRB, SRC and SRE take `n`, or the eps of Threshold; `negative` says the sign
    of x. A deterministic mode's terms are not sticky: `None`.
    """
    import z3

    from qsim.prove import smt

    width = carrier.width
    if mode.stochastic:
        r, sticky = reader.call(core.addend, w, smt.constants(sources(mode, n, carrier.dtype)))
        return r, r, sticky, stochastic(smt.word(n, width), z3.LShR(w, smt.word(width - n, width)), mode)
    if mode is Mode.THR:
        r, sticky = reader.call(core.eps_addend, w, negative)
        return r, r, sticky, threshold(w)
    t = smt.constants(addends(mode, carrier.dtype))
    even, odd = (z3.If(negative, *two) for two in ((t.even_neg, t.even_pos), (t.odd_neg, t.odd_pos)))
    return even, odd, None, deterministic(mode)


# --- Of any format -----------------------------------------------------------------------------------------


def unknown(z3: Any, carrier: Carrier, *, even: bool) -> tuple[Pair, list[Any], Any, Any, Any]:
    """Return parameters that are variables, the constraints on them, and man_bits, the position of emin, and has_zero.

    Position counts exponents as fields of the carrier do. `even` is for integers and fixed point.
    """
    width, fraction = carrier.width, carrier.fraction_bits
    man, low = z3.BitVecs("man_bits emin", width)
    zero = z3.BitVec("has_zero", 1)
    has_zero = z3.ZeroExt(width - 1, zero)
    floor = low + fraction - man
    one, none, inf = (z3.BitVecVal(value, width) for value in (1, 0, carrier.infinity))
    everything, sign = (1 << width) - 1, 1 << (width - 1)
    quantum = z3.If(z3.ULE(floor, fraction), one << (floor - 1), (floor - fraction) << fraction)
    half = z3.If(z3.ULE(floor, fraction + 1), (one << (floor - 1)) >> 1, (floor - fraction - 1) << fraction)
    shared = {
        "fraction_bits": fraction, "last": width - 1, "sign": sign, "inf": inf, "largest": everything, "floor": floor,
        "lowest": floor if even else low, "parity": ((floor + fraction + has_zero) & 1) << fraction, "quantum": quantum,
        "halfway": half, "tiny": z3.If(z3.UGT(floor, fraction + 1), quantum - 1, z3.BitVecVal(everything, width)),
    }  # fmt: skip
    values = {"keep": width - 1, "count": 0, "skip": none, "flip": 0, "minus": sign, "smallest": quantum}
    codes = {"keep": 0, "count": everything, "skip": 1 - has_zero, "smallest": 1}
    both = Pair(*(variables(z3, width, kind, shared | known) for kind, known in (("value", values), ("code", codes))))
    highest = 2 * carrier.bias
    given = [
        z3.ULE(man, fraction),
        z3.UGE(low, 1),
        z3.ULE(floor if even else low, highest),
        z3.ULE(low, highest),
        *(z3.ULT(end, sign) for p in both for end in (p.top, p.bottom)),
        z3.Or(zero == 1, z3.And(man == 0, not even)),
    ]
    return both, given, man, low, has_zero


def variables(z3: Any, width: int, kind: str, known: Mapping[str, Any]) -> Parameters:
    """Return parameters that are variables but for those that are `known`."""
    fields = {name: z3.BitVec(f"{name} of a {kind}", width) for name in Parameters._fields}
    return Parameters(
        **fields | {name: z3.BitVecVal(it, width) if isinstance(it, int) else it for name, it in known.items()}
    )
