"""Every fault that fixed operators can put into the scalar core is refuted by the theorems, and by directed inputs.

A mutant that no directed input tells from the core is proved to compute what the core does, for float32 and for float64; these
survivors are listed by name, with the reason.
"""

from __future__ import annotations

import functools
import itertools
import math
import random
import sys
from collections.abc import Iterable, Iterator
from fractions import Fraction
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import z3
from mutation import mutants
from strategies import NAMED, SMALL

from qsim import reference
from qsim.formats import Format, Grid, get_format
from qsim.kernels import core as honest
from qsim.kernels.parameters import Carrier, addends, shortcut, stochastic
from qsim.prove import all_held, find, smt
from qsim.prove.specification import FLOAT32, FLOAT64, Pair, Result, evaluate, pair, value
from qsim.rounding import Mode, Saturation, saturations
from qsim.verdicts import Outcome, Verdict

ALL = mutants()

CASES: tuple[tuple[str, Saturation, Mode, int, str], ...] = (
    ("float8_e4m3fn", Saturation.SatFinite, Mode.RNE, 0, "canonical"),
    ("int4", Saturation.saturate, Mode.RNE, 0, "canonical"),
    ("e4m0b8fn", Saturation.OvfNaN, Mode.RNE, 0, "signed"),  # the last bit of its codes is not that of the exponent field
    ("float8_e5m2", Saturation.SatNone, Mode.RUP, 0, "signed"),
    ("float8_e5m2", Saturation.SatNone, Mode.RNA, 0, "canonical"),  # mirrored, with -0
    ("Binary6p3se", Saturation.SatNone, Mode.RNZ, 0, "canonical"),  # and without
    ("uint4", Saturation.saturate, Mode.RAZ, 0, "canonical"),
    ("e4m0fnu", Saturation.SatFinite, Mode.RNE, 0, "canonical"),  # without a zero
    ("Binary6p3ue", Saturation.SatNone, Mode.RDN, 0, "canonical"),
    ("float8_e4m3fnuz", Saturation.OvfNaN, Mode.RTO, 0, "canonical"),
    ("float8_e5m2", Saturation.SatPropagate, Mode.RTZ, 0, "canonical"),
    ("int4", Saturation.saturate, Mode.SRC, 0, "canonical"),
    ("e4m0fn", Saturation.SatFinite, Mode.SRE, 8, "canonical"),
    ("e3m4b126fn", Saturation.SatFinite, Mode.RNE, 0, "canonical"),  # its subnormal values are those of float32
    ("float32", Saturation.SatNone, Mode.RAZ, 0, "canonical"),  # nothing to discard
    ("float8_e4m3fn", Saturation.OvfNaN, Mode.SRA, 8, "canonical"),
    ("float8_e5m2", Saturation.SatPropagate, Mode.SRC, 31, "canonical"),
    ("float8_e4m3fn", Saturation.SatFinite, Mode.SRB, 8, "canonical"),
    ("float8_e4m3fn", Saturation.SatFinite, Mode.THR, 0, "canonical"),
    ("e8m0fn", Saturation.SatFinite, Mode.SRC, 8, "canonical"),
    ("e3m4b126fn", Saturation.SatFinite, Mode.SRA, 32, "canonical"),
    ("bfloat16", Saturation.SatNone, Mode.SRA, 16, "signed"),
)
"""Formats, saturations and modes that together reach every line of the core, the quickest first."""

MANY = 300
"""Values of a format up to which every one is tried, and the theorem about named formats is quick."""
WHOLE = "ranged"
"""The way from a magnitude to the result that needs no condition."""
FEW = 20
"""Of these, as many are tried with every word of a list."""

SURVIVORS = {
    "significand, return: field | (hidden if a >= hidden else word(0)) -> field + (hidden if a >= hidden else word(0))":
        "the field ends below the hidden bit",
    "discarded, beyond: p.last + word(1) -> p.last - word(1) [63]": "`far` counts only where s exceeds p.last",
    "discarded, beyond: p.last + word(1) -> p.last | word(1) [63]": "likewise",
    "discarded, beyond: p.last + word(1) -> p.last [63]": "likewise",
    "discarded, beyond: p.last + word(1) -> word(1) [63]": "likewise",
    "discarded, beyond: 1 -> 0 [79]": "likewise",
    "stochastic_threshold, spread: 0 -> 1 [39]": "all_or_none has all bits or none",
    "stochastic_threshold, spread: 0 -> 1 [46]": "SRE keeps the top bit of a word, or none",
    "stochastic_threshold, spread: 0 -> 1 [51]": "no fraction exceeds the largest word but one: it has too few bits",
    "stochastic_threshold, odd: word(kept & source.last) ^ source.flip -> word(kept & source.last) | source.flip":
        "SRC has a last bit, or N = 0 and flips",
    "stochastic_threshold, sticky: kept > word(0) -> kept >= word(0)": "no fraction is the largest word, which SRE then sets",
    "stochastic_threshold, sticky: 0 -> 1 [122]": "SRE keeps the top bit of a word, or none",
    "stochastic_threshold, sticky: 0 -> 1 [127]": "no fraction is the largest word, which SRE then sets",
    "stochastic_threshold, return: spread | source.half -> spread + source.half": "the half is no bit of the mask",
    "round_bits, code: low + (p.parity if s == p.fraction_bits else word(0)) -> "
    "low - (p.parity if s == p.fraction_bits else word(0))": "only the last bit of the code is read",
    "round_bits, signed: y | word(u & p.sign) -> y + word(u & p.sign)": "with the sign bit y is beyond the range, or a NaN",
    "round_bits, return: p.nan | word(u & p.nan_sign) -> p.nan + word(u & p.nan_sign)": "a NaN to be signed has no sign yet",
    "encode_bits, mirrored: ranged | p.code_sign -> ranged + p.code_sign": "the code of a magnitude lies below the sign bit",
    "encode_bits, return: p.code_nan | (p.code_nan_sign if negative else word(0)) -> "
    "p.code_nan + (p.code_nan_sign if negative else word(0))": "a code to be signed has no sign yet",
}  # fmt: skip
"""Mutants that compute what the core does, with the reason."""

EVERY = 6
"""Of the others every sixth is refuted in an everyday run."""


# --- By theorems -----------------------------------------------------------------------------------------------------


def theorem(name: str) -> ModuleType:
    """Return the module of a theorem, loaded anew, to plant a fault in."""
    (proof,) = find([name])
    return sys.modules[proof.prove.__module__]


def by_theorem(core: ModuleType, case: int, way: str) -> Verdict:
    """Ask the theorem of a case about a core: for this format, or for all with its man_bits where words are random.

    Where the ways to the ends of the range are others than `ranged`, ask whether they are equal to it.
    """
    name, saturation, mode, n, nan = CASES[case]
    fmt = get_format(name)
    assert isinstance(fmt, Grid)
    named = not mode.stochastic and fmt.top <= MANY
    module = theorem("shortcuts_smt" if way != WHOLE else "modes_kernel_smt" if named else "any_format_smt")
    module.core = core
    if way != WHOLE:
        return all_held((module.prove_one(how, FLOAT32) for how in {*way.split()} - {WHOLE}), way)
    if named:
        return module.prove_one(fmt, saturation, mode, n, nan)
    return module.prove_one(mode, n, even=fmt.even, man_bits=fmt.man_bits)


# --- By directed inputs ----------------------------------------------------------------------------------------------


LARGEST = Fraction(2) ** 128 - Fraction(2) ** 103
"""From here on float32 has infinity alone."""


def directed(fmt: Format, n: int, few: int) -> Iterator[int]:
    """Yield patterns beside every threshold of a small format, and beside landmarks of float32.

    Where a format has more than `few` values, beside those of the first ones, and of the last. Of `n` random bits also the tie
    nearest to the upper neighbour, and the first thresholds above zero, so small that float32 has bits below the words of the
    core.
    """
    exact = []
    beyond = max(fmt.top, fmt.bottom) + 2
    for ordinal in {*range(min(beyond, few)), *range(max(beyond - 4, 0), beyond)}:
        low, high = fmt.value(ordinal), fmt.value(ordinal + 1)
        parts = (0, Fraction(1, 256), Fraction(1, 2), Fraction(3, 4), 1 - Fraction(1, 2 << n))
        exact += [low + (high - low) * part for part in parts]
    exact += [fmt.value(1) * odd / (2 << n) for odd in (1, 2, 3, 5)]
    near = [FLOAT32.pattern(float(np.float32(float(value)))) for value in exact if value < LARGEST]
    near += [1, 1 << 22, 1 << 23, FLOAT32.infinity, FLOAT32.nan, FLOAT32.nan + 5, (1 << 31) - 2]
    yield from sorted({u + step for u in near for step in (-1, 0, 1) if u + step >= 0})


@functools.cache
def tried(case: int) -> list[tuple[int, int]]:
    """Return the directed inputs of a case, each with its word or eps, in an order in which the first ones are of all kinds."""
    name, _, mode, n, _ = CASES[case]
    words = (0, 1 << (32 - max(n, 1)), 1 << 31, (1 << 31) - 1, (1 << 32) - 1) if mode.stochastic else (0,)
    words = (0, 1 << 20, 1 << 31, 3 << 30, (1 << 32) - 1) if mode is Mode.THR else words
    patterns = directed(get_format(name), n, MANY if len(words) == 1 else FEW)
    found = [(u | sign, w) for u in patterns for sign in (0, 1 << 31) for w in words]
    random.Random(1).shuffle(found)
    return found


@functools.cache
def expected(case: int, at: int) -> Result:
    """Return the value's pattern and the code that the reference gives for an input."""
    name, saturation, mode, n, nan = CASES[case]
    (u, word), fmt = tried(case)[at], get_format(name)
    drawn: dict[str, Any] = {"sr_bits": n, "rbits": word >> (32 - n) if n else 0} if mode.stochastic else {}
    drawn |= {"eps": word / 2**32} if mode is Mode.THR else {}
    code = reference.encode(value(u), fmt, mode, saturation=saturation, nan=nan, **drawn)
    decoded = fmt.decode(code)
    if math.isnan(decoded):
        negative = fmt.has_neg_zero and code == fmt.code_of_nan(negative=True)
        return Result(FLOAT32.nan | negative << 31, code)
    return Result(FLOAT32.pattern(decoded), code)


def by_inputs(core: ModuleType, cases: Iterable[int] = range(len(CASES))) -> tuple[int, str, str] | None:
    """Return the first case, way to the ends and input on which a core and the reference differ; `None` if there is none.

    Of each case a few inputs are tried before all.
    """
    cases = tuple(cases)
    for case, some in [*((case, slice(40)) for case in cases), *((case, slice(40, None)) for case in cases)]:
        name, saturation, mode, n, nan = CASES[case]
        both = pair(get_format(name), saturation, FLOAT32, mode, signed_nan=nan == "signed")
        for at in range(len(tried(case)))[some]:
            (u, word), right = tried(case)[at], expected(case, at)
            for way, rounded in ((WHOLE, whole), (" ".join(map(shortcut, both)), short)):
                with np.errstate(all="ignore"):
                    try:
                        got = rounded(core, u, *added(core, mode, n, u, word), both)
                    except (OverflowError, ValueError):
                        return case, way, f"{name} {mode} at {u:#x}: no word at all"
                if got != right:
                    return case, way, f"{name} {mode} at {u:#x}, word {word:#x}"
    return None


def added(core: ModuleType, mode: Mode, n: int, u: int, word: int) -> tuple[int, int, int | None]:
    """Return the addends for an input, and whether that of a random word is sticky."""
    if mode.stochastic or mode is Mode.THR:
        r, sticky = (
            core.addend(np.uint32(word), stochastic(mode, n, FLOAT32.dtype))
            if mode.stochastic
            else core.eps_addend(np.uint32(word), u >> 31 == 1)
        )
        return int(r), int(r), int(sticky)
    t = addends(mode, FLOAT32.dtype)
    return *map(int, (t.even_neg, t.odd_neg) if u >> 31 else (t.even_pos, t.odd_pos)), None


def whole(core: ModuleType, u: int, even: int, odd: int, sticky: int | None, both: Pair) -> Result:
    """Return what `round_bits` or `round_word` makes of an input."""
    return evaluate(core, u, even, odd, both, sticky)


def short(core: ModuleType, u: int, even: int, odd: int, sticky: int | None, both: Pair) -> Result:
    """Return the same by the short ways to the ends of a range, as the library's loops take them."""
    found = []
    for p in both:
        a, r = np.uint32(u & 0x7FFFFFFF), np.uint32(even)
        if sticky is None:
            y = core.deterministic(a, r, np.uint32(odd), core.last_to_zero(r, p), p)
        else:
            y = core.stochastic(a, r, np.uint32(sticky), p)
        found.append(int(getattr(core, shortcut(p))(y, np.uint32(u), p)))
    return Result(*found)


# --- Equal to the core -----------------------------------------------------------------------------------------------


def unknown(fields: Any, carrier: Carrier, **known: int) -> Any:
    """Return a named tuple of words that are variables, but for what is known of them."""
    names, width = fields._fields, carrier.width
    return fields(
        *(
            smt.word(known[name], width) if name in known else z3.BitVec(f"{fields.__name__} {name}", width)
            for name in names
        )
    )


def of_parameters(p: Any) -> Any:
    """Return what `parameters` establishes: ends without a sign, NaNs that have no sign yet, and one bit for that of a code."""
    return z3.And(
        z3.ULT(p.top, p.sign),
        z3.ULT(p.bottom, p.sign),
        p.nan & p.nan_sign == 0,
        p.code_nan & p.code_nan_sign == 0,
        p.code_sign & (p.code_sign - 1) == 0,
    )


def of_value(u: Any, p: Any) -> Any:
    """Return what holds of a value of the format, if codes are sign and magnitude: -x has the code of x below the sign bit.

    Codes grow with x, so it holds if it holds of the end of the range.
    """
    magnitude = u & ~p.sign
    code = smt.Reader().call(honest.encode_bits, magnitude, p)
    return z3.Or(z3.ULT(u, p.sign), z3.UGT(magnitude, p.inf), p.twos != 0, z3.ULT(code, p.code_sign))


def of_source(source: Any) -> Any:
    """Return what `stochastic` establishes: the half is no bit of the mask, SRC flips or has a last bit, SRE has one bit."""
    none = 0 * source.mask
    top = smt.word(1 << (source.mask.size() - 1), source.mask.size())
    alone = z3.And(z3.Or(source.mask == 0, source.mask == top), source.half == 0, source.last == 0, source.flip == 0)
    return z3.And(
        source.mask & source.half == 0,
        z3.ULE(source.flip, 1),
        z3.Or(source.flip == 0, source.last == 0),
        z3.Or(source.all_or_none == 0, z3.And(source.all_or_none == ~none, alone)),
    )


def equal(core: ModuleType, function: str, carrier: Carrier) -> Verdict:
    """Ask whether a function of a core is the honest one's, for all arguments that its callers give it.

    A threshold may differ where no number tells: the two are compared by whether a fraction of the carrier's bits goes up.
    """
    p = unknown(
        honest.Parameters, carrier, fraction_bits=carrier.fraction_bits, last=carrier.width - 1,
        sign=1 << (carrier.width - 1), inf=carrier.infinity,
    )  # fmt: skip
    source, t = unknown(honest.Stochastic, carrier), unknown(honest.Thresholds, carrier)
    u, s, bits = z3.BitVecs("u s bits", carrier.width)

    def called(reader: smt.Reader, module: ModuleType) -> Any:
        match function:
            case "significand":
                return reader.call(module.significand, u, p)
            case "discarded":
                return reader.call(module.discarded, u, s, p)
            case "encode_bits":
                return reader.call(module.encode_bits, u, p)
            case "stochastic_threshold":
                threshold, sticky = reader.call(module.stochastic_threshold, bits, source)
                m = reader.call(honest.significand, u & ~p.sign, p)
                f, lost = (reader.call(part, m, s, p) for part in (honest.discarded, honest.lost))
                return z3.Or(z3.UGT(f, threshold), z3.And(f == threshold, lost & sticky != 0))
            case _:
                return reader.call(module.round_bits, u, t.even_pos, t.odd_pos, t.sticky, p)

    mutated, right = smt.Reader(), smt.Reader()
    same = called(mutated, core) == called(right, honest)
    given = [of_parameters(p), of_source(source), *(shift.condition for shift in right.obligations)]
    return smt.decide(
        same,
        mutated,
        covered=f"{function} of {carrier.dtype}",
        counterexample=lambda at: f"u = {at(u):#x}, s = {at(s):#x}, bits = {at(bits):#x}",
        given=z3.And(*given, of_value(u, p) if function == "encode_bits" else True),
    )


def true(condition: Any) -> bool:
    """Return whether a condition on constants is true."""
    return z3.is_true(z3.simplify(condition))


# --- The verdicts ----------------------------------------------------------------------------------------------------

OTHERS = [mutant for mutant in ALL if mutant.name not in SURVIVORS]
CARRIED = (FLOAT32, FLOAT64)


def test_the_mutants_are_many_and_have_names() -> None:
    """There are two hundred mutants, each has its own name, and the survivors are among them."""
    names = {mutant.name for mutant in ALL}
    assert len(ALL) == len(names) >= 200
    assert names >= set(SURVIVORS)


def test_the_directed_inputs_do_not_refute_the_core() -> None:
    """The core itself differs from the reference on no directed input."""
    assert by_inputs(honest) is None


@pytest.mark.exhaustive
@pytest.mark.parametrize("case", range(len(CASES)))
def test_the_theorems_do_not_refute_the_core(case) -> None:
    """What refutes the mutants holds of the core itself, also in the modes that a theorem's own list leaves out."""
    assert by_theorem(honest, case).outcome is Outcome.HELD


@pytest.mark.parametrize(
    "mutant",
    [
        pytest.param(mutant, id=mutant.name, marks=[pytest.mark.exhaustive] if at % EVERY else [])
        for at, mutant in enumerate(OTHERS)
    ],
)
def test_a_mutant_is_refuted(mutant, tmp_path) -> None:
    """A directed input tells the mutant from the reference, and the theorem of that input's case is refuted as well."""
    core = mutant.module(tmp_path)
    found = by_inputs(core)
    assert found is not None
    assert by_theorem(core, found[0]).outcome is Outcome.REFUTED, found[1]


@pytest.mark.parametrize("carrier", CARRIED, ids=lambda carrier: str(carrier.dtype))
@pytest.mark.parametrize("name", SURVIVORS)
def test_a_survivor_computes_what_the_core_does(name, carrier, tmp_path) -> None:
    """The mutant's function is the core's for all arguments, and for every format, by SMT."""
    (mutant,) = (mutant for mutant in ALL if mutant.name == name)
    verdict = equal(mutant.module(tmp_path), mutant.function, carrier)
    assert verdict.outcome is Outcome.HELD, str(verdict)


@pytest.mark.parametrize("function", sorted({name.split(",")[0] for name in SURVIVORS}))
def test_another_mutant_does_not(function, tmp_path) -> None:
    """The same question about a mutant that is refuted has another answer."""
    mutant = next(mutant for mutant in OTHERS if mutant.function == function)
    assert equal(mutant.module(tmp_path), function, FLOAT32).outcome is Outcome.REFUTED


@pytest.mark.parametrize("carrier", CARRIED, ids=lambda carrier: str(carrier.dtype))
def test_the_callers_keep_to_the_hypotheses(carrier) -> None:
    """What the proofs of equality assume holds of the parameters of every format, and of every source of random words."""
    for fmt in {*SMALL, *NAMED}:
        if not (isinstance(fmt, Grid) and carrier.holds(fmt)):
            continue
        choices = itertools.product(saturations(fmt), (Mode.RNE, Mode.RTZ), (False, True))
        for p in {parameters(fmt, rule, carrier.dtype, mode, signed_nan=signed) for rule, mode, signed in choices}:
            words = smt.constants(p)
            assert true(of_parameters(words)), f"{fmt}: {p}"
            end = p.bottom | p.sign if p.bottom else p.zero_neg
            for u in {end, p.over_neg, p.inf_neg, p.zero_neg}:
                assert true(of_value(smt.word(int(u), carrier.width), words)), f"{fmt}: {u:#x}, {p}"
    for mode in (mode for mode in Mode if mode.stochastic):
        for n in range(carrier.width + (mode not in {Mode.SRB, Mode.SRC})):
            assert true(of_source(smt.constants(stochastic(mode, n, carrier.dtype)))), f"{mode}, {n}"
