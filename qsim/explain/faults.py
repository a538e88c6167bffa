"""The faults that quantizers are known for: each a sentence, and a rule that says what such a quantizer makes of a case.

Sources: the peers' and the vendors' models, and textbooks on rounding units: a tie broken otherwise, a sticky bit or a carry
lost, subnormals shifted by one place too few, the range checked first, NaN taken for a number, a random word used backwards.
"""

from __future__ import annotations

import dataclasses
import functools
import math
import operator
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from fractions import Fraction
from typing import Any, Literal

from qsim import reference
from qsim.errors import InputError
from qsim.explain.case import Answer, Case, View, is_code, is_nan, point, value_of
from qsim.formats import SUFFIX, Format, Grid, Specials, Table, catalogue, float_format, get_format, variants_of
from qsim.rounding import Flush, Mode, Saturation, saturations

__all__ = ["ANYTHING", "INSTEAD", "PARTS", "Rule", "Turning", "faults"]

Rule = Callable[[View], Answer]
"""What a faulty quantizer makes of a case; the reference's answer where the fault does not show."""

Named = Iterator[tuple[str, Rule]]


@dataclass(frozen=True, slots=True)
class Turning:
    """Be the rule of a quantizer that finds the right neighbours, and chooses between them by `decide`.

    `decide` looks at nu, the parity of the neighbour toward zero, the sign and the word only: numbers within the range that
    have these in common go the same way.
    """

    decide: Callable[[View], bool]
    #: The rule where it does something of its own beyond the range.
    rule: Rule | None = None
    #: What it takes for the word, where that is all it does, and the one sign for which it does.
    word: Callable[[int], int] | None = None
    negative: bool | None = None

    def __call__(self, v: View) -> Answer:
        """Return what it makes of a case."""
        if self.rule is not None:
            return self.rule(v)
        return v.right if v.ordinal is None else v.go(away=self.decide(v))


PARTS = (
    ", but not in an overflow", ", negative numbers only", ", positive numbers only", ", subnormal results only",
    ", normal results only",
)  # fmt: skip
"""Endings of the names of faults that are not worth telling where the one without it explains as much."""

ANYTHING = ("a NaN is taken for a number: its pattern is rounded", "a NaN has another code than the one it should")
"""Faults that explain whatever came out, to be named only where no other does."""

HALF = (
    "adds 1/2 in the input's own precision and truncates: floor(x + 1/2) in floats",
    "adds 1/2 in the input's own precision and truncates: floor(|x| + 1/2) in floats",
)
FLOOR = (
    "adds the word in the input's own precision: floor(|x| + u) in floats",
    "adds the word in the input's own precision: floor(x + u) in floats",
)
COMPLEMENTED = "uses the complemented word"
COMPLEMENT_OF_NEGATIVES = "for negative numbers the word is complemented (floor(x + u) on signed values)"
FROM_LESSER = "measures the fraction from the lesser neighbour, as floor(x + u) does"

NEAREST: Mapping[Mode, str] = {
    Mode.RNE: "to the even code", Mode.RNA: "away from zero", Mode.RNZ: "toward zero", Mode.RNP: "to the greater value",
    Mode.RNN: "to the lesser value",
}  # fmt: skip
"""The modes that round to the nearest value, and where they send a tie."""

DIRECTED = (Mode.RUP, Mode.RDN, Mode.RAZ, Mode.RTO)
"""The modes that ask whether anything is discarded at all."""

SHORT = 23
"""Bits of an input of which each may be missing: those of a float32's significand."""

INTERMEDIATE = ("float32", "bfloat16", "float16", "tf32")
"""The formats through which a number may have gone first."""

LETTERS: Mapping[Specials, str] = {
    **{special: letters for letters, special in SUFFIX.items()},
    "extended": " extended",
}


INSTEAD: Mapping[str, tuple[str, ...]] = {
    HALF[0]: tuple(f"ties go to the greater value (RNP instead of {mode})" for mode in NEAREST),
    HALF[1]: tuple(f"ties go away from zero (RNA instead of {mode})" for mode in NEAREST),
    FLOOR[1]: (FROM_LESSER,),
}
"""Faults that lose a little more than others, to be named only where none of these explains as much."""


def faults(case: Case) -> Mapping[str, Rule]:
    """Return the known faults by name, the plainest first, for a rounding such as that of `case`."""
    words = case.sr_bits if case.rbits is not None else 0
    return _faults(case.format, case.mode, case.saturation, case.sr_bits, words, case.ftz_out)


@functools.lru_cache(maxsize=64)
def _faults(
    fmt: Format, mode: Mode, saturation: Saturation, sr_bits: int, words: int, flush: Flush | Literal[False]
) -> Mapping[str, Rule]:
    """Return the known faults; `words` is the number of bits of the known random words, 0 if they are not known."""
    groups = [_of_ties(fmt, mode), _of_modes(fmt, mode, known=words > 0)]
    if mode.stochastic and words:
        groups += [_of_words(mode, words), _of_signed_words(mode, words)]
    groups += [
        _of_detours(fmt), _of_fractions(mode, sr_bits), _of_grids(fmt), _of_saturation(fmt, saturation), _of_range(fmt),
        _of_subnormals(flush), _of_zeros(fmt), _of_nans(), _of_parts(fmt, mode),
        _of_variants(fmt), _of_other_formats(fmt),
    ]  # fmt: skip
    return {name: rule for group in groups for name, rule in group}


# --- Rules -----------------------------------------------------------------------------------------------------------


def _where(applies: Callable[[View], bool], rule: Rule) -> Rule:
    return lambda v: rule(v) if applies(v) else v.right


def _always(answer: Answer) -> Rule:
    return lambda _: answer


def _by_mode(other: Mode) -> Rule:
    """Return the rule of another mode, with the word of a stochastic one."""
    changed = {"mode": other} if other.stochastic else {"mode": other, "sr_bits": 0, "rbits": 0}
    return Turning(
        lambda v: reference.away(other, v.nu, v.odd, v.negative, v.case.sr_bits, v.rbits),
        lambda v: v.case.code(**changed, fmt=dataclasses.replace(v.fmt, ties="even")),
    )


def _of_sign(rule: Rule, *, negative: bool) -> Rule:
    """Return the rule for one of the two signs only."""
    here = _where(lambda v: _finite(v) and v.negative == negative, rule)
    if not isinstance(rule, Turning):
        return here
    decide = rule.decide
    return Turning(lambda v: decide(v) if v.negative == negative else v.away(v.nu), here, rule.word, negative)


def _finite(v: View) -> bool:
    return v.ordinal is not None


def _low(v: View) -> bool:
    """Return whether x is not 0, and below the smallest normal value of a float format."""
    if not isinstance(v.fmt, Grid) or v.fmt.even or v.nan or v.infinite:
        return False
    return 0 < v.magnitude < v.fmt.value(v.fmt.first_normal)


def _nan(v: View) -> bool:
    return v.nan


def _signed_zero(v: View) -> Answer:
    return -0.0 if v.negative and v.fmt.has_neg_zero else 0.0


def _signed_infinity(v: View) -> Answer:
    return v.outward * math.inf


# --- Which way it goes -----------------------------------------------------------------------------------------------


def _rounds_by(other: Mode, mode: Mode) -> str:
    """Return the name of the fault of rounding by `other` where `mode` is meant."""
    if other in NEAREST and mode in NEAREST:
        return f"ties go {NEAREST[other]} ({other} instead of {mode})"
    if mode.stochastic and not other.stochastic:
        return f"ignores the word: rounds by {other} ({other.value})"
    return f"rounds by {other} ({other.value}) instead of {mode}"


def _of_ties(fmt: Format, mode: Mode) -> Named:
    """Yield the other ways to break a tie."""
    if mode not in NEAREST:
        return
    for other in NEAREST:
        if other is not mode:
            yield _rounds_by(other, mode), _by_mode(other)
    if isinstance(fmt, Table) and fmt.thresholds:
        plain = dataclasses.replace(fmt, thresholds=())
        yield "rounds to the nearer value, not by the format's thresholds", lambda v: v.case.code(fmt=plain)
    half = Fraction(1, 2)
    yield HALF[0], _floored(lambda _: half, signed=True)
    yield HALF[1], _floored(lambda _: half, signed=False)
    yield "ties go to the odd code", Turning(lambda v: v.nu > half or (v.nu == half and not v.odd))


def _of_variants(fmt: Format) -> Named:
    """Yield the variants of the format, and that of which it is one: what others make of numbers that it cannot hold."""
    base = catalogue().get(fmt.variant_of, fmt)
    for other in (base, *variants_of(base)):
        if dataclasses.replace(other, name=fmt.name) != fmt:
            rule = saturations(other)[0]
            yield f"converts as {other.name} does, {rule}", _as_other(other, rule, nan=other.nan)


def _of_modes(fmt: Format, mode: Mode, *, known: bool) -> Named:
    """Yield the other modes that are no other way to break a tie; stochastic ones where the word is `known`."""
    for other in Mode:
        same = other is mode or {other, mode} == {Mode.SR, Mode.SRA} or other in (Mode.SR, Mode.THR)
        if same or (other in NEAREST and mode in NEAREST) or (other.stochastic and not (mode.stochastic and known)):
            continue
        yield _rounds_by(other, mode), _by_mode(other)
        if any(
            other.inward(fmt, negative=negative) != mode.inward(fmt, negative=negative) for negative in (False, True)
        ):
            yield _rounds_by(other, mode) + PARTS[0], _inside_by(other)


def _inside_by(other: Mode) -> Rule:
    """Return the rule of a quantizer that chooses by another mode, and treats an overflow as it should."""
    return Turning(lambda v: reference.away(other, v.nu, v.odd, v.negative, v.case.sr_bits, v.rbits))


def _of_parts(fmt: Format, mode: Mode) -> Named:
    """Yield another mode for one of the two signs, or on one side of the smallest normal value."""
    for other in Mode:
        if other is mode or other.stochastic or other is Mode.THR:
            continue
        rule, name = _by_mode(other), _rounds_by(other, mode)
        yield name + PARTS[1], _of_sign(rule, negative=True)
        yield name + PARTS[2], _of_sign(rule, negative=False)
        if isinstance(fmt, Grid) and not fmt.even and fmt.man_bits:
            yield name + PARTS[3], _where(_low, rule)
            yield name + PARTS[4], _where(lambda v: _finite(v) and not _low(v), rule)


def _of_fractions(mode: Mode, n: int) -> Named:
    """Yield the ways to see the discarded fraction wrongly; `n` is the number of random bits."""
    seen = range(0) if mode in (Mode.SR, Mode.SRA) else range(0 if mode in DIRECTED else 1, max(n, 5))
    for k in seen:  # StochasticA with N bits is that which looks at N of them
        yield f"looks at the top {k} of the discarded bits only: the sticky bit is lost", _truncated(k)
    for k in range(1, 5):
        yield f"rounds twice: first to {k} more bit{'s' * (k > 1)}, to nearest", _twice(k)
    yield "the sticky bit misses the round bit, the second of the discarded ones", Turning(_without_round_bit)
    for k in range(SHORT):
        yield f"bit {k} of the input is not looked at", _without_bit(k)
    yield "moves values that are exact away from zero", _where(lambda v: v.exact, lambda v: v.go(away=True))
    yield (
        "moves values that are exact toward zero",
        _where(lambda v: v.exact, lambda v: v.land((v.ordinal or 0) - v.outward)),
    )
    if mode is Mode.THR:
        yield "measures the fraction from zero, not from the lesser neighbour", Turning(lambda v: v.nu > v.case.eps)
        yield "compares the fraction with >= eps instead of > eps", Turning(_reaches_eps)


def _truncated(k: int) -> Rule:
    return Turning(lambda v: v.away(Fraction(math.floor(v.nu * 2**k), 2**k)))


def _twice(k: int) -> Rule:
    def decide(v: View) -> bool:
        near = Fraction(round(v.nu * 2**k), 2**k)
        return near == 1 or v.away(near)

    return Turning(decide)


def _without_round_bit(v: View) -> bool:
    round_bit = math.floor(v.nu * 4) % 2
    return v.away(v.nu - Fraction(round_bit, 4))


def _without_bit(k: int) -> Rule:
    """Return the rule of a quantizer that takes bit k of the input's significand for 0."""

    def rule(v: View) -> Answer:
        number = v.case.number
        if not _finite(v) or not isinstance(number, Grid) or k >= number.man_bits or not v.case.pattern >> k & 1:
            return v.right
        x = v.case.entering
        pattern = v.case.pattern & ~(1 << k)
        return v.case.code(x=number.decode(pattern)) if x else v.right

    return rule


def _reaches_eps(v: View) -> bool:
    eps = Fraction(v.case.eps)
    return bool(v.nu) and (1 - v.nu < eps if v.negative else v.nu >= eps)


# --- Words -----------------------------------------------------------------------------------------------------------


def _of_words(mode: Mode, n: int) -> Named:
    """Yield the ways to use a random word of `n` bits wrongly."""
    whole = 1 << n
    step = 2 if mode in (Mode.SRB, Mode.SRE) else 1

    def one_less(v: View) -> bool:
        total, limit = _sum(v)
        return total > limit

    def one_more(v: View) -> bool:
        total, limit = _sum(v)
        return total + step >= limit

    yield "compares with > instead of >=, as if the word were one less", Turning(one_less)
    yield "adds one more than the word (R + 1, the carry kept)", Turning(one_more)
    yield "uses the word R + 1, and 0 after the last", _by_word(lambda r: (r + 1) % whole, n)
    yield "uses the word R - 1, and the last before 0", _by_word(lambda r: (r - 1) % whole, n)
    yield (
        "uses the complemented word: goes away from zero for small words (rand < frac)",
        _by_word(lambda r: whole - 1 - r, n),
    )
    yield (
        "goes away from zero iff R <= nu 2^N: the complemented word, and one more",
        Turning(lambda v: v.rbits <= v.nu * whole),
    )
    yield "divides the word by 2^N - 1 instead of 2^N", Turning(lambda v: v.nu * (whole - 1) + v.rbits >= whole - 1)
    yield (
        "uses the word with its top bit inverted, as if it were a signed number",
        _by_word(lambda r: r ^ whole // 2, n),
    )
    yield "uses the word with its bits reversed", _by_word(lambda r: int(f"{r:0{n}b}"[::-1], 2), n)
    if n % 8 == 0 and n > 8:
        yield (
            "uses the word with its bytes reversed",
            _by_word(lambda r: int.from_bytes(r.to_bytes(n // 8), "little"), n),
        )
    for k in range(n - 1, 0, -1):
        ending = ": N is one smaller" if k == n - 1 else ""
        yield f"uses only the top {k} of the word's {n} bits{ending}", _by_top(n, k)
        yield f"uses the low {k} of the word's {n} bits instead of the top ones", _by_low(k)
    yield (
        "takes the word for one of N + 1 bits, its top bit 0: N is one larger",
        _by_word(lambda r: r, n + 1, same=False),
    )
    yield (
        FROM_LESSER,
        Turning(lambda v: not v.away(1 - v.nu) if v.negative and v.nu else v.away(v.nu)),
    )
    for k in range(n):
        yield f"bit {k} of the word is always 1", _by_word(functools.partial(operator.or_, 1 << k), n)
        if k:  # without its last bit a word has N - 1
            yield f"bit {k} of the word is always 0", _by_word(functools.partial(operator.and_, ~(1 << k)), n)
    for k in range(n):
        for other in (k - 1, k + 1):
            if 0 <= other < n:
                yield f"bit {k} of the word reads bit {other}", _by_word(functools.partial(_reads, k, other), n)
    yield (
        "never uses the word 0, but 1, as a shift register that has no 0",
        _by_word(lambda r: max(r, min(1, whole - 1)), n),
    )
    yield "never uses the last word, but the one before", _by_word(lambda r: min(r, max(whole - 2, 0)), n)
    yield FLOOR[0], _floored(_word, signed=False)
    yield FLOOR[1], _floored(_word, signed=True)


def _of_signed_words(mode: Mode, n: int) -> Named:
    """Yield the same for one of the two signs."""
    for name, rule in _of_words(mode, n):
        if name in (FROM_LESSER, *FLOOR):
            continue
        both = name.startswith(COMPLEMENTED)
        yield COMPLEMENT_OF_NEGATIVES if both else name + PARTS[1], _of_sign(rule, negative=True)
        yield name + PARTS[2], _of_sign(rule, negative=False)


def _word(v: View) -> Fraction:
    return Fraction(v.rbits, 1 << v.case.sr_bits)


def _sum(v: View) -> tuple[int, int]:
    """Return what a stochastic mode adds up, and what it must reach for x to go away from zero."""
    whole = 1 << v.case.sr_bits
    match v.case.mode:
        case Mode.SRB:
            return math.floor(v.nu * 2 * whole) + 2 * v.rbits + 1, 2 * whole
        case Mode.SRC:
            return round(v.nu * whole) + v.rbits, whole
        case Mode.SRE:
            return 2 * v.rbits if v.nu else -2, whole
        case _:
            return math.floor(v.nu * whole) + v.rbits, whole


def _reads(k: int, other: int, r: int) -> int:
    """Return the word r with its bit `other` in place of bit k."""
    return r & ~(1 << k) | (r >> other & 1) << k


def _by_word(change: Callable[[int], int], n: int, *, same: bool = True) -> Rule:
    return Turning(lambda v: v.away(v.nu, rbits=change(v.rbits), sr_bits=n), word=change if same else None)


def _by_top(n: int, k: int) -> Rule:
    return _by_word(lambda r: r >> (n - k), k, same=False)


def _by_low(k: int) -> Rule:
    return _by_word(lambda r: r & ((1 << k) - 1), k, same=False)


def _floored(added: Callable[[View], Fraction], *, signed: bool) -> Rule:
    """Return the rule of floor(t + u), the sum rounded to the input's own type; t is x, or |x|, in units of its interval."""

    def rule(v: View) -> Answer:
        if v.ordinal is None or v.case.number is None or not isinstance(v.fmt, Grid):
            return v.right
        gap = abs(v.fmt.value(v.ordinal + v.outward) - v.fmt.value(v.ordinal))
        total = reference.quantize((Fraction(v.x) if signed else v.magnitude) / gap + added(v), v.case.number)
        if not math.isfinite(total):
            return v.right
        further = abs(math.floor(total)) - abs(v.fmt.value(v.ordinal)) / gap
        return v.land(v.ordinal + int(further) * v.outward) if further in (-1, 0, 1) else v.right

    return rule


# --- Binades and subnormals ------------------------------------------------------------------------------------------


def _of_grids(fmt: Format) -> Named:
    """Yield what goes wrong where binades begin, and below the first of them."""
    if not isinstance(fmt, Grid) or fmt.even or not fmt.man_bits or fmt.gap:
        return
    whole, lsb = 1 << fmt.man_bits, fmt.value(1)

    def carries(v: View) -> bool:
        return v.rounded is not None and v.rounded != v.ordinal and v.rounded % whole == 0

    yield (
        "the carry does not reach the exponent: the significand wraps around to 0",
        _where(carries, lambda v: v.land((v.rounded or 0) - whole * v.outward)),
    )
    yield (
        "the carry into the exponent is dropped: the significand stays at all ones",
        _where(carries, lambda v: v.go(away=False)),
    )

    def into_normal(v: View) -> bool:
        return carries(v) and abs(v.rounded or 0) == whole

    yield (
        "what rounds up to the smallest normal value becomes 0: a carry is lost there",
        _where(into_normal, _signed_zero),
    )
    yield (
        "what should round up to the smallest normal value stays subnormal",
        _where(into_normal, lambda v: v.go(away=False)),
    )
    yield "shifts subnormals one place too few: the result is doubled", _where(_low, _shifted(lsb / 2, 1))
    yield "shifts subnormals one place too many: the result is halved", _where(_low, _shifted(lsb * 2, 1))
    for width in (32, 64):
        yield (
            f"takes shift counts modulo {width}, so that far too small numbers come back",
            _wrapping(width, all_of_it=False),
        )
        yield f"takes shift counts modulo {width}, those of normal numbers included", _wrapping(width, all_of_it=True)
    yield (
        "subnormals: the bits that are shifted out do not reach the sticky bit",
        _where(lambda v: _low(v) and isinstance(v.case.number, Grid), _without_sticky),
    )
    yield "spaces subnormals twice too widely", _where(_low, _shifted(lsb * 2, 2))
    yield (
        "has no gradual underflow: below the smallest normal value it rounds to full precision",
        _where(_low, lambda v: _full_precision(v, v.case.mode)),
    )
    yield (
        "rounds subnormals twice: first to full precision",
        _where(_low, lambda v: v.case.code(x=_full_precision(v, Mode.RNE))),
    )


def _shifted(unit: Fraction, step: int) -> Rule:
    """Return the rule of a quantizer that counts x in `unit`, and takes each for `step` ordinals."""

    def rule(v: View) -> Answer:
        steps, nu = divmod(v.magnitude / unit, 1)
        return v.land((int(steps) + v.away(nu, odd=steps % 2 == 1)) * step * v.outward)

    return rule


def _without_sticky(v: View) -> Answer:
    """Return what comes of shifting the input's significand down to that of a subnormal, and rounding what is left of it."""
    assert isinstance(v.fmt, Grid)  # by the condition of the rule, as below
    assert isinstance(v.case.number, Grid)
    unit = Fraction(2) ** (v.fmt.emin - v.case.number.man_bits)
    kept = v.magnitude // unit * unit
    return v.case.code(x=kept * v.outward if kept else math.copysign(0.0, v.outward))


def _wrapping(width: int, *, all_of_it: bool) -> Rule:
    """Return the rule of a unit that shifts the input's significand right by a count of which only the low bits matter.

    The count is that of the bits the format has fewer, plus, below its normal numbers, the exponents that it lacks; these
    alone wrap around, or `all_of_it`.
    """

    def rule(v: View) -> Answer:
        if not isinstance(v.case.number, Grid) or not isinstance(v.fmt, Grid) or not _finite(v):
            return v.right
        x, number = v.magnitude, v.case.number
        exponent = max(_log2(x), number.emin) if x else number.emin
        fewer, lacking = number.man_bits - v.fmt.man_bits, max(v.fmt.emin - exponent, 0)
        count = (fewer + lacking) % width if all_of_it else fewer + lacking % width
        if count < 0:
            return v.right
        steps, nu = divmod(x / Fraction(2) ** (exponent - number.man_bits + count), 1)
        binades = max(exponent, v.fmt.emin) - v.fmt.emin
        ordinal = int(steps) + v.away(nu, odd=steps % 2 == 1) + (binades << v.fmt.man_bits)
        return v.land(min(ordinal, abs(v.outside)) * v.outward)  # the line goes on, but to numbers without end

    return rule


def _log2(x: Fraction) -> int:
    """Return floor(log2 x), exactly."""
    guess = x.numerator.bit_length() - x.denominator.bit_length()
    return guess - (Fraction(2) ** guess > x)


def _full_precision(v: View, mode: Mode) -> Fraction:
    """Return x rounded to the format's precision, as if its exponents had no end."""
    assert isinstance(v.fmt, Grid)
    unit = Fraction(2) ** (_log2(v.magnitude) - v.fmt.man_bits)
    steps, nu = divmod(v.magnitude / unit, 1)
    away = reference.away(mode, nu, steps % 2 == 1, v.negative, v.case.sr_bits, v.rbits, v.case.eps)
    return (steps + away) * unit * v.outward


FLUSHING: Mapping[Flush, str] = {
    "result": "flushes subnormal results to zero",
    "after": "flushes to zero what is tiny after it is rounded with an unbounded exponent",
    "before": "flushes what is below the smallest normal value before rounding",
}


def _of_subnormals(flush: Flush | Literal[False]) -> Named:
    """Yield the ways to flush to zero, or not to."""

    def subnormal(v: View) -> bool:
        return v.rounded is not None and v.fmt.is_subnormal(v.rounded)

    if flush:
        yield "does not flush subnormal results", _of_flushing(False)
    for kind, name in FLUSHING.items():
        if kind != flush:
            yield name, _of_flushing(kind)
    if not flush:
        yield "flushes subnormal results to +0", _where(subnormal, _always(0.0))
    yield (
        "what is below the smallest value becomes 0 without a rounding",
        _where(lambda v: _finite(v) and v.fmt.has_zero and v.ordinal == 0 and bool(v.nu), _signed_zero),
    )
    yield (
        "the smallest value is missing: what belongs there becomes 0",
        _where(lambda v: v.fmt.has_zero and v.rounded in (1, -1), _signed_zero),
    )
    yield "flushes subnormal inputs to zero", _where(lambda v: v.case.subnormal, _of_flushed(to=True))
    yield "does not flush subnormal inputs", _where(lambda v: v.case.subnormal, _of_flushed(to=False))


def _of_flushing(kind: Flush | Literal[False]) -> Rule:
    return _where(_low, lambda v: v.case.code(ftz_out=kind))


def _of_flushed(*, to: bool) -> Rule:
    return lambda v: dataclasses.replace(v.case, ftz_in=to).code()


# --- The ends of the range -------------------------------------------------------------------------------------------


def _of_saturation(fmt: Format, saturation: Saturation) -> Named:
    """Yield other rules beyond the range."""
    for rule in saturations(fmt):
        if rule is not saturation:
            yield f"saturates by {rule} instead of {saturation}", _saturating(rule)
    becoming: list[tuple[str, Rule]] = [
        ("the largest value", lambda v: v.fmt.code(v.end)),
        ("infinity", _signed_infinity),
        ("NaN", _always(math.nan)),
        ("0", _signed_zero),
        ("+0", _always(0.0)),
    ]
    for result, answer in becoming:
        yield f"an infinity becomes {result}", _where(lambda v: v.infinite, answer)
        yield f"a finite overflow becomes {result}", _where(lambda v: v.beyond, answer)
        yield f"an overflow and an infinity become {result}", _where(lambda v: v.beyond or v.infinite, answer)


def _saturating(rule: Saturation) -> Rule:
    return lambda v: v.case.code(saturation=rule)


def _of_range(fmt: Format) -> Named:
    """Yield what goes wrong at the ends of the range."""
    mask = (1 << fmt.bits) - 1

    def before(v: View) -> bool:
        if v.ordinal is None:
            return False
        x = Fraction(v.x)
        return x > point(fmt, fmt.top) or (x < point(fmt, -fmt.bottom) and (fmt.signed or v.negative))

    yield (
        "checks the range before rounding: all that is beyond the largest value overflows",
        _where(before, lambda v: v.land(v.outside)),
    )
    yield (
        "lets what rounds up beyond the largest value stay there: only the next point overflows",
        _where(lambda v: v.beyond and v.rounded != v.ordinal, lambda v: fmt.code(v.end)),
    )
    yield (
        "lets the carry run on into the code after that of the largest value",
        _where(lambda v: v.beyond and v.rounded == v.outside, lambda v: (fmt.code(v.end) + 1) & mask),
    )
    yield (
        "loses the sign of a negative input",
        _where(lambda v: not v.nan, lambda v: v.case.code(x=math.inf if v.infinite else v.magnitude)),
    )
    if fmt.signed:
        yield (
            "loses the sign of an overflow",
            _where(lambda v: v.negative and (v.beyond or v.infinite), lambda v: v.case.code(x=-v.x)),
        )
    yield (
        "the largest value is missing: what belongs there becomes the one below",
        _where(lambda v: not v.nan and v.right == fmt.code(v.end), lambda v: fmt.code(v.end - v.outward)),
    )
    yield (
        "the largest value is missing: what belongs there overflows",
        _where(lambda v: v.rounded is not None and v.rounded == v.end, lambda v: v.land(v.outside)),
    )
    if not isinstance(fmt, Grid):
        return
    yield (
        "does not check the range: the grid goes on beyond the largest value",
        _where(lambda v: v.beyond, lambda v: fmt.value(v.rounded or 0)),
    )
    if fmt.even and fmt.bits < 32:
        least, lost = _least(fmt), 2**31

        def overflows(v: View) -> bool:
            return v.infinite or (v.rounded is not None and not -lost <= v.rounded < lost)

        yield "goes through int32: what overflows there becomes the smallest value", _where(overflows, least)
        yield (
            "goes through int32: what overflows there, and a NaN, becomes the smallest value",
            _where(lambda v: v.nan or overflows(v), least),
        )
    if fmt.signed and fmt.bottom == fmt.top + 1:
        yield (
            "leaves out the most negative value: the range is symmetric",
            lambda v: fmt.code(1 - fmt.bottom) if v.right == fmt.code(-fmt.bottom) else v.right,
        )
    if not fmt.even and fmt.signed and fmt.top >> fmt.man_bits > 1:
        yield from _of_top_binade(fmt)


def _least(fmt: Grid) -> Rule:
    return _always(fmt.code(-fmt.bottom))


def _of_top_binade(fmt: Grid) -> Named:
    """Yield what becomes of the numbers of the top binade if it is thought to hold special values only."""
    last = (fmt.top >> fmt.man_bits << fmt.man_bits) - 1
    becoming: list[tuple[str, Rule]] = [
        ("becomes the largest value below", lambda v: fmt.code(last * v.outward)),
        ("overflows", lambda v: v.land(v.outside)),
        ("becomes infinity", _signed_infinity),
        ("becomes NaN", _always(math.nan)),
        ("becomes 0", _signed_zero),
        ("becomes +0", _always(0.0)),
    ]
    for result, answer in becoming:
        yield (
            f"the top binade is missing: what belongs there {result}",
            _where(lambda v: v.rounded is not None and abs(v.rounded) > last, answer),
        )


# --- Zeros and NaNs --------------------------------------------------------------------------------------------------


def _of_zeros(fmt: Format) -> Named:
    """Yield what goes wrong with the sign of zero."""

    def zero(v: View) -> bool:
        return not v.nan and not v.infinite and value_of(v.fmt, v.right) == 0

    def nonzero(v: View) -> bool:
        return zero(v) and bool(v.x)

    plus, minus = _always(0.0), _always(-0.0)
    yield "loses the sign of zero", _where(zero, plus)
    yield (
        "loses the sign of -0, but not that of a number that rounds to it",
        _where(lambda v: zero(v) and not v.x, plus),
    )
    yield "loses the sign of a negative number that rounds to zero, but not that of -0", _where(nonzero, plus)
    yield (
        "keeps the sign of zero, for which the format has no code",
        _where(lambda v: zero(v) and v.negative and not v.fmt.has_neg_zero, minus),
    )
    if isinstance(fmt, Grid) and not fmt.even and fmt.signed and not fmt.has_neg_zero:
        yield (
            "sets the sign bit of a zero, which makes another code of it",
            _where(lambda v: zero(v) and v.negative, _always(1 << (fmt.bits - 1))),
        )
        yield (
            "sets the sign bit of a negative number that rounds to zero, not of -0: another code",
            _where(lambda v: nonzero(v) and v.negative, _always(1 << (fmt.bits - 1))),
        )
    yield "makes -0 of a positive number that rounds to zero", _where(lambda v: nonzero(v) and not v.negative, minus)
    yield "makes -0 of +0", _where(lambda v: zero(v) and not v.negative and not v.x, minus)


def _of_nans() -> Named:
    """Yield what goes wrong with a NaN."""
    becoming: list[tuple[str, Rule]] = [
        ("0", _always(0.0)),
        ("-0", _always(-0.0)),
        ("a zero of its sign", _signed_zero),
        ("a zero of the other sign", lambda v: 0.0 if v.negative else -0.0),
        ("the largest value", lambda v: v.fmt.code(v.fmt.top)),
        ("the largest value of its sign", lambda v: v.fmt.code(v.end)),
        ("the smallest value", lambda v: v.fmt.code(-v.fmt.bottom)),
        ("infinity", _always(math.inf)),
        ("infinity of its sign", _signed_infinity),
        ("NaN, which is not what the format makes of it", _always(math.nan)),
    ]
    for result, answer in becoming:
        yield f"a NaN becomes {result}", _where(_nan, answer)
    yield (
        "a NaN of whose payload none of the bits kept is set becomes infinity",
        _where(_truncated_nan, _signed_infinity),
    )
    yield "a NaN keeps its sign", _where(lambda v: v.nan and v.fmt.has_nan, _nan_of(sign=True))
    yield "a NaN loses its sign", _where(lambda v: v.nan and v.fmt.has_nan, _nan_of(sign=False))
    yield ANYTHING[0], _where(_nan, _any_number)
    yield ANYTHING[1], _where(_nan, _any_nan)


def _truncated_nan(v: View) -> bool:
    """Return whether x is a NaN that looks like an infinity if its payload is cut to the format's bits."""
    number = v.case.number
    if not v.nan or not isinstance(number, Grid) or not isinstance(v.fmt, Grid) or v.fmt.even:
        return False
    payload = v.case.pattern & ((1 << number.man_bits) - 1)
    return not payload >> max(number.man_bits - v.fmt.man_bits, 0)


def _nan_of(*, sign: bool) -> Rule:
    return lambda v: v.fmt.code_of_nan(negative=sign and v.negative)


def _any_number(v: View) -> Answer:
    assert v.case.got is not None  # causes are sought for cases with an answer
    return v.right if is_nan(v.fmt, v.case.got) else v.case.got


def _any_nan(v: View) -> Answer:
    assert v.case.got is not None  # likewise
    return v.case.got if is_nan(v.fmt, v.case.got) else v.right


# --- Other formats ---------------------------------------------------------------------------------------------------


def _of_detours(fmt: Format) -> Named:
    """Yield double rounding: a number goes through another format first."""
    for name in INTERMEDIATE:
        through = get_format(name)
        if through.bits > fmt.bits:
            yield f"double rounding: goes through {name} first", _where(_finite, _through(through, Mode.RNE))
            yield f"double rounding: goes through {name} first, truncated", _where(_finite, _through(through, Mode.RTZ))


def _through(through: Format, mode: Mode) -> Rule:
    return lambda v: v.case.code(x=reference.quantize(v.x, through, mode))


def _of_other_formats(fmt: Format) -> Named:
    """Yield the formats of the same layout that differ in bias or special values."""
    if not isinstance(fmt, Grid) or fmt.even or fmt.gap or not fmt.has_zero:
        return
    yield "the result is doubled: an exponent bias is off by one", _where(_finite, _times(Fraction(2)))
    yield "the result is halved: an exponent bias is off by one", _where(_finite, _times(Fraction(1, 2)))
    for special, letters in LETTERS.items():
        usual = (1 << (fmt.exp_bits - 1)) - (special not in ("fnuz", "extended"))
        for bias in sorted({usual, fmt.bias, fmt.bias - 1, fmt.bias + 1}):
            try:
                other = float_format("", fmt.exp_bits, fmt.man_bits, special, "a fault", bias=bias, signed=fmt.signed)
            except InputError:
                continue
            if (special, bias) != (fmt.specials, fmt.bias):
                layout = f"e{fmt.exp_bits}m{fmt.man_bits}{letters}{'' if fmt.signed else 'u'} with bias {bias}"
                for rule in saturations(other):
                    yield f"takes the format for {layout}, {rule}", _as_other(other, rule)


def _times(factor: Fraction) -> Rule:
    def rule(v: View) -> Answer:
        value = value_of(v.fmt, v.right)
        special = isinstance(value, float) and not math.isfinite(value)
        return v.right if special or not value else Fraction(value) * factor

    return rule


def _as_other(other: Format, saturation: Saturation, **changed: Any) -> Rule:
    """Return the rule of the same rounding into another format: its code or its value, as the case has it."""

    def rule(v: View) -> Answer:
        code, got = v.case.code(fmt=other, saturation=saturation, **changed), v.case.got
        if not isinstance(got, int):
            return value_of(other, code)
        nans = is_nan(other, code) and is_nan(other, got) and is_code(other, got)
        return got if nans and v.case.nan == "any" else code

    return rule
