"""Every fault that fixed operators can put into the scalar core is refuted by the theorems, and by directed inputs.

A mutant that no directed input tells from the core is proved to compute what the core does, for float32 and for float64; these
survivors are listed by name, with the reason.
"""

from __future__ import annotations

import functools
import itertools
import math
import random
from collections.abc import Iterable, Iterator
from fractions import Fraction
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import z3
from mutants import loaded
from mutation import mutants
from strategies import NAMED, SMALL

from qsim import reference
from qsim.formats import Format, Grid, get_format
from qsim.kernels import core as honest
from qsim.kernels.parameters import Carrier, addends, route, shortcut, stochastic
from qsim.prove import all_held, smt
from qsim.prove.specification import FLOAT32, FLOAT64, Pair, Result, evaluate, pair, read, value
from qsim.rounding import NANS, Mode, Saturation, saturations
from qsim.verdicts import Outcome, Verdict

ALL = mutants()

CASES: tuple[tuple[str, Saturation, Mode, int, str], ...] = (
    ("float8_e4m3fn", Saturation.SatFinite, Mode.RNE, 0, "canonical"),
    ("int4", Saturation.saturate, Mode.RNE, 0, "canonical"),
    (
        "e4m0b8fn",
        Saturation.OvfNaN,
        Mode.RNE,
        0,
        "signed",
    ),  # the last bit of its codes is not that of the exponent field
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
    ("e4m0b124fn", Saturation.SatFinite, Mode.RNE, 0, "canonical"),  # zero has more bits below its grid than a fraction
    ("float32", Saturation.SatNone, Mode.RAZ, 0, "canonical"),  # nothing to discard
    ("float32", Saturation.SatNone, Mode.RNA, 0, "canonical"),  # and nothing below the smallest value
    ("float8_e4m3fn", Saturation.OvfNaN, Mode.SRA, 8, "canonical"),
    ("float8_e5m2", Saturation.SatPropagate, Mode.SRC, 31, "canonical"),
    ("float8_e4m3fn", Saturation.SatFinite, Mode.SRB, 8, "canonical"),
    ("float8_e4m3fn", Saturation.SatFinite, Mode.THR, 0, "canonical"),
    ("e8m0fn", Saturation.SatFinite, Mode.SRC, 8, "canonical"),
    ("e3m4b126fn", Saturation.SatFinite, Mode.SRA, 32, "canonical"),
    ("e3m4b110fn", Saturation.SatFinite, Mode.SRA, 32, "canonical"),  # subnormal float32 have random bits to meet
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
    "addend, spread: 0 -> 1 [39]": "all_or_none has all bits or none",
    "addend, spread: 0 -> 1 [46]": "SRE keeps the top bit of a word, or none",
    "addend, spread: 0 -> 1 [51]": "no fraction is the largest word, with which 1 would carry: it has too few bits",
    "addend, odd: word(kept & source.last) ^ source.flip -> word(kept & source.last) | source.flip":
        "SRC has a last bit, or N = 0 and flips",
    "addend, sticky: kept > word(0) -> kept >= word(0)": "with 0 nothing carries, whatever was lost",
    "addend, sticky: 1 -> 2": "SRE adds the largest word then, so that a loss of 1 carries as one of 2 does",
    "addend, sticky: 0 -> 1 [122]": "SRE keeps the top bit of a word, or none",
    "addend, sticky: 0 -> 1 [127]": "with 0 nothing carries, whatever was lost",
    "addend, return: spread | source.half -> spread + source.half": "the half is no bit of the mask",
    "last_to_zero, near: 0 -> 1": "no mode adds 1",
    "exceeds, return: word(limit - a) >= p.sign -> word(limit - a) > p.sign":
        "only the largest NaN is so far above -1, and of a NaN nothing else counts",
    "along, r: word(word(a ^ p.parity) << rest) >= p.sign -> word(word(a ^ p.parity) << rest) > p.sign":
        "where no bit is discarded nothing carries, whatever is added",
    "counting, r: word(m << rest) >= p.sign -> word(m << rest) > p.sign":
        "where no bit is discarded nothing carries, whatever is added",
    "stochastic, hidden: a >> p.fraction_bits -> a >> word(p.fraction_bits + word(1))":
        "an exponent field of 1 has its own bit at the top of the significand",
    "sign_always, return: y | word(negative(u, p) & p.minus) -> y + word(negative(u, p) & p.minus)":
        "the bit of the sign is none of a magnitude's",
    "clamped, return: u >= p.sign -> u > p.sign": "-0 lies within both ends",
}  # fmt: skip
"""Mutants that compute what the core does, with the reason."""

EVERY = 24
"""Of the others every twenty-fourth is refuted in an everyday run, and all of them on demand."""


# --- By theorems -----------------------------------------------------------------------------------------------------


def by_theorem(core: ModuleType, case: int, way: str) -> Verdict:
    """Ask the theorem of a case about a core: for this format, or for all with its man_bits where words are random.

    Where the ways to the ends of the range are others than `ranged`, ask whether they are equal to it.
    """
    name, saturation, mode, n, nan = CASES[case]
    fmt = get_format(name)
    assert isinstance(fmt, Grid)
    named = not mode.stochastic and fmt.top <= MANY
    _, module = loaded("shortcuts_smt" if way != WHOLE else "modes_kernel_smt" if named else "any_format_smt")
    module.core = core
    if way != WHOLE:
        _, codes = loaded("counting_smt")
        codes.core = core
        shortcuts = (module.prove_one(how, FLOAT32) for how in {*way.split()} - {WHOLE})
        fixed = [] if mode.stochastic or mode is Mode.THR else [mode]
        return all_held(itertools.chain(shortcuts, (codes.prove_one(mode, even=fmt.even) for mode in fixed)), way)
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
    if name == "e3m4b110fn":  # a subnormal float32, and a word large enough if that were twice as large
        found.append((1 << 22, (1 << 32) - (1 << 19)))
    if mode is Mode.THR:  # half of the last bit of a threshold below it, for which the fraction has no room
        found.append(((108 << 23) | ((1 << 23) - 1), 1 << 23))
    random.Random(1).shuffle(found)  # noqa: S311 - nothing is to be kept secret
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


def by_inputs(
    core: ModuleType, cases: Iterable[int] = range(len(CASES)), most: int | None = None
) -> tuple[int, str, str] | None:
    """Return the first case, way to the ends and input on which a core and the reference differ; `None` if there is none.

    Of each case a few inputs are tried before all, or before as many as `most` says.
    """
    cases = tuple(cases)
    for case, some in [*((case, slice(40)) for case in cases), *((case, slice(40, most)) for case in cases)]:
        name, saturation, mode, n, nan = CASES[case]
        both = pair(get_format(name), saturation, FLOAT32, mode, nan=nan)
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
    return next((found for case in cases for found in far_shifts(core, case)), None)


def far_shifts(core: ModuleType, case: int) -> Iterator[tuple[int, str, str]]:
    """Yield where a shift reaches 64, which NumPy takes for granted and machine code does not: at some inputs of a case."""
    name, saturation, mode, n, nan = CASES[case]
    both = pair(get_format(name), saturation, FLOAT32, mode, nan=nan)
    for u, word in ((0, 0), (1, 1 << 31), (0x3F800000, 0)):
        reader = smt.Reader()
        even, odd, sticky = added(core, mode, n, u, word)
        terms = [None if term is None else smt.word(term, 32) for term in (u, even, odd, sticky)]
        read(reader, core, *terms[:3], [*map(smt.constants, both)], terms[3])
        for shift in reader.obligations:
            if not true(shift.condition):
                yield case, WHOLE, f"{name} {mode} at {u:#x}: {shift.place}"


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
        a, r, how = np.uint32(u & 0x7FFFFFFF), np.uint32(even), shortcut(p)
        if sticky is None:
            y = getattr(core, route(how, codes=p is both.code))(a, r, np.uint32(odd), core.last_to_zero(r, p), p)
        else:
            y = core.stochastic(a, r, np.uint32(sticky), p)
        found.append(int(getattr(core, how)(y, np.uint32(u), p)))
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
    """Return what `parameters` establishes: ends without a sign, and the parity of an exponent field in its lowest bit."""
    lowest = smt.word(1, p.sign.size()) << p.fraction_bits
    return z3.And(z3.ULT(p.top, p.sign), z3.ULT(p.bottom, p.sign), z3.Or(p.parity == 0, p.parity == lowest))


def of_addend(r: Any, p: Any) -> Any:
    """Return what `addends` establishes: a mode adds 0, half less one, half or the largest word."""
    return z3.Or(r == 0, r == p.sign - 1, r == p.sign, r == p.largest)


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


def goes_up(m: Any, k: Any, r: Any, sticky: Any, p: Any) -> Any:
    """Return whether the fraction m / 2^W, its significand at the top of a word, shifted down by k, goes up by an addend."""
    shifted = z3.If(z3.ULE(k, p.last), z3.LShR(m, k), 0)
    lost = z3.If(z3.And(z3.ULE(k, p.last), shifted << k == m), smt.word(0, m.size()), sticky)
    return z3.UGT(shifted + lost, ~r)


def equal(core: ModuleType, function: str, carrier: Carrier) -> Verdict:
    """Ask whether a function of a core is the honest one's, for all arguments that its callers give it.

    An addend may differ where no number tells: two are compared by whether a fraction of the carrier's bits goes up.
    """
    width = carrier.width
    p = unknown(
        honest.Parameters, carrier, fraction_bits=carrier.fraction_bits, last=width - 1, sign=1 << (width - 1),
        inf=carrier.infinity, largest=(1 << width) - 1,
    )  # fmt: skip
    source = unknown(honest.Stochastic, carrier)
    a, u, k, r, t, bits = z3.BitVecs("a u k r t bits", width)
    e = smt.Reader().call(honest.binade, a, p)
    hypotheses = {
        "addend": z3.And(of_source(source), a & (1 << (width - 1 - carrier.fraction_bits)) - 1 == 0),
        "last_to_zero": of_addend(r, p),
        "exceeds": z3.And(z3.ULT(a, p.sign - 1), z3.Or(z3.ULT(t, p.sign), t == p.largest)),
        "along": z3.And(z3.ULT(a, p.sign), z3.Or(a == 0, z3.ULE(p.floor - e, p.fraction_bits))),
        "counting": z3.And(z3.ULT(a, p.sign), z3.UGE(p.floor, p.lowest)),
        "stochastic": z3.And(z3.ULT(a, p.sign), z3.ULE(t, 1)),
        "sign_always": z3.And(z3.ULT(a, p.minus), p.minus & (p.minus - 1) == 0),
        "clamped": z3.And(z3.ULT(a, p.sign), z3.Implies(u & (p.sign - 1) == 0, a == 0)),
    }

    def called(reader: smt.Reader, module: ModuleType) -> Any:
        match function:
            case "addend":
                added, sticky = reader.call(module.addend, bits, source)
                return goes_up(a, k, added, sticky, p)
            case "last_to_zero":
                return reader.call(module.last_to_zero, r, p)
            case "exceeds":
                return reader.call(module.exceeds, a, t, p)
            case "along":
                return reader.call(module.along, a, r, t, p)
            case "counting":
                return reader.call(module.counting, a, r, t, r, p)
            case "stochastic":
                return reader.call(module.stochastic, a, r, t, p)
            case _:
                return reader.call(getattr(module, function), a, u, p)

    mutated, right = smt.Reader(), smt.Reader()
    same = called(mutated, core) == called(right, honest)
    given = [of_parameters(p), hypotheses[function], *(shift.condition for shift in right.obligations)]
    return smt.decide(
        same,
        mutated,
        covered=f"{function} of {carrier.dtype}",
        counterexample=lambda at: f"a = {at(a):#x}, u = {at(u):#x}, k = {at(k)}, bits = {at(bits):#x}",
        given=z3.And(*given),
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


@pytest.mark.parametrize("most", [300, pytest.param(None, marks=pytest.mark.exhaustive)], ids=["some", "all"])
def test_the_directed_inputs_do_not_refute_the_core(most) -> None:
    """The core itself differs from the reference on no directed input: 300 of each case are tried every time, all on demand."""
    assert by_inputs(honest, most=most) is None


@pytest.mark.exhaustive
@pytest.mark.parametrize("case", range(len(CASES)))
def test_the_theorems_do_not_refute_the_core(case) -> None:
    """What refutes the mutants holds of the core itself, also in the modes that a theorem's own list leaves out."""
    name, saturation, mode, _, nan = CASES[case]
    both = pair(get_format(name), saturation, FLOAT32, mode, nan=nan)
    for way in {WHOLE, " ".join(map(shortcut, both))}:
        assert by_theorem(honest, case, way).outcome is Outcome.HELD


@pytest.mark.in_part(2)
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
    assert by_theorem(core, *found[:2]).outcome is Outcome.REFUTED, found[2]


@pytest.mark.in_part(4)
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


def strays(p: Any) -> Iterator[str]:
    """Yield what these parameters give to `exceeds`, `along` and `clamped` that the proofs of equality do not expect.

    Results ascend with magnitudes and with what is added, so that an infinity to which the most is added has the largest.
    """
    word = type(p.sign)
    none, one = word(0), word(1)
    added = (none, word(p.sign - one), p.sign, p.largest)
    smalls = [honest.last_to_zero(r, p) for r in added]
    zeros = [honest.deterministic(none, r, t, small, p) for r, small in zip(added, smalls, strict=True) for t in added]
    zeros += [honest.stochastic(none, r, sticky, p) for r in added for sticky in (none, one)]
    least = p.quantum, (none if p.tiny == p.largest else word(p.tiny + one))
    ends = (
        honest.deterministic(p.inf, p.largest, p.largest, smalls[-1], p),
        honest.stochastic(p.inf, p.largest, one, p),
    )
    if any(limit >= p.sign for limit in (*smalls, p.top, p.bottom)) or p.sign <= p.tiny < p.largest:
        yield "a limit has a sign"
    if any(y >= p.sign - one for y in ends):
        yield "an infinity has a magnitude with a sign, or the largest of all"
    if any(zeros):
        yield "zero becomes another number"
    if any(word(p.floor - honest.binade(a, p)) > p.fraction_bits for a in least):
        yield "no bit of an exponent field is left"


@pytest.mark.parametrize("carrier", CARRIED, ids=lambda carrier: str(carrier.dtype))
def test_of_a_nan_nothing_else_counts(carrier) -> None:
    """Whatever a magnitude becomes, with the pattern of a NaN it is that NaN, so that no limit matters."""
    width = carrier.width
    p = unknown(
        honest.Parameters,
        carrier,
        last=width - 1,
        sign=1 << (width - 1),
        inf=carrier.infinity,
        largest=(1 << width) - 1,
    )
    y, u = z3.BitVecs("y u", width)
    for finish in (honest.ranged, honest.clamped, honest.mirrored):
        reader = smt.Reader()
        nan = z3.If(z3.UGE(u, p.sign), p.nan_neg, p.nan_pos) if finish is honest.ranged else p.nan_pos
        verdict = smt.decide(
            reader.call(finish, y, u, p) == nan,
            reader,
            covered=finish.__name__,
            counterexample=lambda at: f"y = {at(y):#x}, u = {at(u):#x}",
            given=z3.UGT(u & (p.sign - 1), p.inf),
        )
        assert verdict.outcome is Outcome.HELD, str(verdict)


@pytest.mark.parametrize("carrier", CARRIED, ids=lambda carrier: str(carrier.dtype))
def test_the_callers_keep_to_the_hypotheses(carrier) -> None:
    """What the proofs of equality assume holds of the parameters of every format, and of every source of random words."""
    for fmt in {*SMALL, *NAMED}:
        if not (isinstance(fmt, Grid) and carrier.holds(fmt)):
            continue
        choices = itertools.product(saturations(fmt), (Mode.RNE, Mode.RTZ), NANS)
        pairs = {pair(fmt, rule, carrier, mode, nan=nan) for rule, mode, nan in choices}
        for p in {p for both in pairs for p in both}:
            assert true(of_parameters(smt.constants(p))), f"{fmt}: {p}"
            with np.errstate(over="ignore"):
                assert [*strays(p)] == [], f"{fmt}: {p}"
    p = smt.constants(pair(get_format("float8_e4m3fn"), Saturation.SatFinite, carrier).value)
    for mode in Mode:
        if not mode.stochastic and mode is not Mode.THR:
            assert all(true(of_addend(r, p)) for r in smt.constants(addends(mode, carrier.dtype))), mode
    for mode in (mode for mode in Mode if mode.stochastic):
        for n in range(carrier.width + (mode not in {Mode.SRB, Mode.SRC})):
            assert true(of_source(smt.constants(stochastic(mode, n, carrier.dtype)))), f"{mode}, {n}"
