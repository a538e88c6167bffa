"""Every float32 input: the kernels against the steps and the carries that the definition gives in exact integers."""

from __future__ import annotations

import dataclasses
import io
import itertools
import math
import os
import random
import re
import sys
from collections.abc import Iterator
from fractions import Fraction
from types import ModuleType

import numpy as np
import pytest
from covered import covers
from hypothesis import given, settings
from hypothesis import strategies as st
from mutants import MUTANTS, OF_WORDS, loaded, mutant
from strategies import CATALOGUE, PARAMETRIC, patterns

import qsim
from qsim import reference
from qsim.formats import Format, catalogue, get_format
from qsim.kernels import core, cpu, table
from qsim.kernels.parameters import Carrier, addends, parameters, shortcut, stochastic
from qsim.prove import exhaustive, find, sweep
from qsim.prove.exhaustive import (
    Meter,
    beside_wide_difference,
    directed_difference,
    first_carry_difference,
    first_difference,
    first_wide_difference,
)
from qsim.prove.specification import FLOAT32, FLOAT64, Pair, pair
from qsim.prove.sweep import DETERMINISTIC, Intervals, Tiles
from qsim.prove.ways import first_stray_word, misplaced, ways
from qsim.rounding import NANS, Mode, Saturation, saturations
from qsim.verdicts import Outcome

THEOREM, WIDENED = "deterministic_kernel_exhaustive", "wide_kernel_exhaustive"
NAMED, ANYWHERE = sweep.named(), sweep.named(FLOAT64)
"""The formats that float32 holds, and that float64 does: E8M0 as well."""
WIDE = sweep.unheld()
"""The others: E8M0, lists of values, and grids with a gap."""
E4M3 = get_format("float8_e4m3fn")
EVERY, EIGHTH = "all 2^32 float32", "an eighth of all 2^32 float32, in every binade"
CARRY = "at the word of the carry and the one below"
BESIDE = "float32 and float64 at and beside every value and midpoint"
FIVE = ["float8_e4m3fn", "float8_e5m2", "float8_e4m3fnuz", "int8", "bfloat16"]
"""The formats of which every run walks an eighth of the 2^32 inputs."""
STOCHASTIC = [
    (Mode.SR, 32), (Mode.SRA, 8), (Mode.SRB, 31), (Mode.SRB, 8), (Mode.SRC, 31), (Mode.SRC, 8), (Mode.SRE, 8),
]  # fmt: skip

every_named = pytest.mark.parametrize("fmt", NAMED, ids=str)
both_carriers = pytest.mark.parametrize("carrier", [FLOAT32, FLOAT64], ids=lambda carrier: str(carrier.dtype))


def rounding(fmt: Format, mode: Mode, rule: Saturation | None = None, carrier: Carrier = FLOAT32, **given: str):
    """Return what a sweep wants: the tiles, the addends, and the parameters."""
    rule = rule or saturations(fmt)[0]
    both = pair(fmt, rule, carrier, mode, nan=given.get("nan", "canonical"))
    return sweep.tiles(fmt, mode, rule, carrier, **given), addends(mode, carrier.dtype), both


def drawing(fmt: Format, mode: Mode, n: int, rule: Saturation | None = None):
    """Return what a stochastic sweep wants: intervals, mode, bits, how the words are read, and the parameters."""
    rule = rule or saturations(fmt)[0]
    both = pair(fmt, rule, FLOAT32, mode)
    return sweep.intervals(fmt, rule), mode, n, stochastic(mode, n, FLOAT32.dtype), both


def by_words(fmt: Format):
    """Return the loop of the library that rounds float64 patterns to the format by 32 random bits each."""
    source, rule = stochastic(Mode.SRA, 32, FLOAT64.dtype), saturations(fmt)[0]
    if FLOAT64.holds(fmt):
        p = parameters(fmt, rule, FLOAT64.dtype)
        return lambda x, words, y: cpu.round_by_words(x, words, y, source, p)
    given = table.packed(table.line(fmt, rule), *source)
    return lambda x, words, y: table.round_by_words(x, words, y, *given)


# --- All 2^32 inputs, and an eighth of them ----------------------------------------------------------------------------


def eighth(turn: int) -> Iterator[tuple[int, int]]:
    """Yield the spans of an eighth of all patterns: of each binade one of eight runs of 2^20, in the next the run before it."""
    for binade in range(1 << 9):
        low = ((binade << 3) + (turn - binade) % 8) << 20
        yield low, low + (1 << 20) - 1


def whose_turn(own: int) -> int:
    """Return which eighth it is this time: under CI a test's own, elsewhere any."""
    return own if os.environ.get("CI") == "true" else random.randrange(8)  # noqa: S311 - nothing is to be kept secret


def test_eight_turns_are_all_patterns() -> None:
    """The spans of the eight turns, in order, follow each other from the first pattern to the last."""
    spans = sorted(span for turn in range(8) for span in eighth(turn))
    assert (spans[0][0], spans[-1][1]) == (0, (1 << 32) - 1)
    assert all(span[1] + 1 == following[0] for span, following in itertools.pairwise(spans))


@covers("enumerated", formats=[*map(get_format, FIVE)], modes=[Mode.RNE], saturations="default", inputs=EIGHTH)
@pytest.mark.parametrize("name", FIVE)
def test_an_eighth_of_float32_to_nearest(name: str) -> None:
    """An eighth of all inputs round to nearest even as the steps say, and the reference says so at both ends of each step.

    All of them are walked on demand, by the theorem.
    """
    fmt = get_format(name)
    right, t, both = rounding(fmt, Mode.RNE)
    assert sweep.disagreement(right, fmt, Mode.RNE, saturations(fmt)[0], None if fmt.bits <= 8 else 500) is None
    turn = whose_turn(FIVE.index(name))
    for span in eighth(turn):
        assert first_difference(right, t, both, span=span) is None, f"turn {turn}"


@covers("enumerated", formats=[E4M3], modes=[Mode.SR], saturations="default", inputs=f"{EIGHTH}, {CARRY}")
def test_an_eighth_of_float32_stochastically() -> None:
    """An eighth of all inputs to E4M3 stay with the word just below the carry, and go outward with the word at it."""
    given, turn = drawing(E4M3, Mode.SR, 32), whose_turn(5)
    for span in eighth(turn):
        assert first_carry_difference(*given, span=span) is None, f"turn {turn}"


@covers("enumerated", formats=NAMED, modes=DETERMINISTIC, saturations="default", inputs=EVERY, when="on demand")
@pytest.mark.exhaustive
def test_every_float32_to_every_format_in_every_mode(capfd) -> None:
    """All 2^32 inputs round as the steps say, to every named format that float32 holds, in every deterministic mode."""
    (theorem,) = find([THEOREM])
    with capfd.disabled():  # for the bar
        verdict = theorem.run()
    assert verdict.outcome is Outcome.HELD, str(verdict)


@covers(
    "enumerated", formats=NAMED, modes=[Mode.SR], saturations="default", inputs=f"{EVERY}, {CARRY}", when="on demand"
)
@covers(
    "enumerated", formats=[*map(get_format, FIVE)], modes={mode for mode in Mode if mode.stochastic},
    saturations="default", inputs=f"{EVERY}, {CARRY}", when="on demand",
)  # fmt: skip
@pytest.mark.exhaustive
def test_every_float32_to_every_format_stochastically(capfd) -> None:
    """All 2^32 inputs stay just below the carry and go outward at it: SR to every format, the other modes to five."""
    cases = [(fmt, *STOCHASTIC[0]) for fmt in NAMED]
    cases += [(get_format(name), mode, n) for name in FIVE for mode, n in STOCHASTIC[1:]]
    with capfd.disabled(), Meter(len(cases) * 2.0**32) as meter:
        for fmt, mode, n in cases:
            meter.begin(f"{fmt}, {mode}({n})")
            sweeping = drawing(fmt, mode, n)
            assert sweep.carry_disagreement(sweeping[0], fmt, mode, n, saturations(fmt)[0]) is None
            found = first_carry_difference(*sweeping, advance=meter.advance)
            assert found is None, (fmt, mode, n, found)


@covers("enumerated", formats=WIDE, modes=DETERMINISTIC, saturations="default", inputs=EVERY, when="on demand")
@pytest.mark.exhaustive
def test_every_float32_to_lists_and_gaps_in_every_mode(capfd) -> None:
    """All 2^32 inputs round as the steps say, to the named formats that are rounded to in float64, in every mode."""
    (theorem,) = find([WIDENED])
    with capfd.disabled():
        verdict = theorem.run()
    assert verdict.outcome is Outcome.HELD, str(verdict)


@covers(
    "enumerated", formats=WIDE, modes=[Mode.SR], saturations="default", inputs=f"{EVERY}, {CARRY}", when="on demand"
)
@pytest.mark.exhaustive
def test_every_float32_to_lists_and_gaps_stochastically(capfd) -> None:
    """All 2^32 inputs stay just below the carry and go outward at it, also between values of a list and across a gap."""
    with capfd.disabled(), Meter(len(WIDE) * 2.0**32) as meter:
        for fmt in WIDE:
            meter.begin(f"{fmt}, SR")
            found, rule = list(ways(fmt, saturations(fmt)[0])), saturations(fmt)[0]
            assert misplaced(found, fmt, rule, 10_000) is None
            assert first_stray_word(found, fmt, by_words(fmt), advance=meter.advance) is None


# --- Every commit: the patterns where faults are likely ----------------------------------------------------------------


@covers("enumerated", formats=ANYWHERE, modes=DETERMINISTIC, saturations="all but wrap", inputs=BESIDE)
@pytest.mark.in_part(4)
@pytest.mark.parametrize("fmt", ANYWHERE, ids=str)
def test_where_faults_are_likely(fmt: Format) -> None:
    """At and beside every value and midpoint, every power of two, infinities, NaNs and others, all modes are right.

    So the quick run of the theorem has it, of float32 and float64 inputs and under every saturation.
    """
    assert list(loaded(THEOREM)[1].failures(fmt, None)) == []


@covers(
    "enumerated", formats=[fmt for fmt in WIDE if fmt.bits <= 8], modes=DETERMINISTIC, saturations="all",
    inputs="float32 at and beside every step",
)  # fmt: skip
@pytest.mark.in_part(2)
@pytest.mark.parametrize("fmt", WIDE, ids=str)
def test_lists_and_gaps_where_faults_are_likely(fmt: Format) -> None:
    """At and beside every step to a list, a grid with a gap or E8M0, each mode is right, and so are the codes of all values."""
    assert list(loaded(WIDENED)[1].failures(fmt, None)) == []


PLACES = {"tiny": (0, 1 << 16), "near 1": (0x3F7F8000, 0x3F810000), "near -1": (0xBF7F8000, 0xBF810000)}


@pytest.mark.parametrize("fmt", [fmt for fmt in WIDE if fmt.bits <= 8], ids=str)
def test_the_ways_to_lists_and_gaps(fmt: Format) -> None:
    """The ways tile all patterns, carry where the reference does, and so do the kernels at some of them."""
    rule = saturations(fmt)[0]
    found = list(ways(fmt, rule))
    assert found[0].first == 0
    assert found[-1].last == (1 << 32) - 1
    assert all(way.last + 1 == following.first for way, following in itertools.pairwise(found))
    assert misplaced(found, fmt, rule) is None
    for span in PLACES.values():
        assert first_stray_word(found, fmt, by_words(fmt), span=span) is None


@pytest.mark.parametrize("field", ["start", "step", "inner", "outer"])
def test_a_wrong_way_is_noticed(field: str) -> None:
    """A way that begins or goes on a word later, or has another neighbour, is neither the reference's nor the kernel's."""
    fmt = get_format("nf4")
    rule, u = saturations(fmt)[0], FLOAT32.pattern(0.5)
    found = list(ways(fmt, rule))
    at = next(k for k, way in enumerate(found) if way.first <= u <= way.last)
    by = found[at].size if field in ("start", "step") else 1
    wrong = dataclasses.replace(found[at], **{field: getattr(found[at], field) + by})
    found[at] = wrong
    assert misplaced(found, fmt, rule) is not None
    assert first_stray_word(found, fmt, by_words(fmt), span=(wrong.first, wrong.first + 100)) is not None


def test_what_is_directed_at() -> None:
    """The chosen patterns hold every value and midpoint, the patterns beside these, and all that is special."""
    fmt = get_format("float8_e5m2")
    chosen = set(sweep.directed(fmt).tolist())
    for x in map(float, fmt.values()[np.isfinite(fmt.values())]):
        outer = float(reference.quantize(x * (1 + 2.0**-20), fmt, "RAZ", saturation="SatFinite"))
        for point in (x, (x + outer) / 2):
            u = FLOAT32.pattern(point)
            assert u in chosen
            assert u + 1 in chosen
            assert u % (1 << 31) == 0 or u - 1 in chosen
    for u in (0, 1, 0x7FFFFF, 0x800000, 0x7F7FFFFF, 0x7F800000, 0x7F800001, 0x7FBFFFFF, 0x7FC00000, 0x7FFFFFFF):
        assert {u, u | 1 << 31} <= chosen


@both_carriers
@pytest.mark.parametrize("fmt", [fmt for fmt in NAMED if fmt.has_neg_zero], ids=str)
def test_the_sign_of_a_nan(fmt: Format, carrier: Carrier) -> None:
    """With signed NaNs a NaN has the sign of the input, also one that an overflow becomes; or that alone has it."""
    chosen = sweep.directed(fmt, carrier, 100)
    for mode, nan in itertools.product((Mode.RNE, Mode.RDN), NANS[1:]):
        for rule in saturations(fmt):
            right, t, both = rounding(fmt, mode, rule, carrier, nan=nan)
            assert sweep.disagreement(right, fmt, mode, rule, 0, nan=nan) is None
            assert directed_difference(right, chosen, t, both) is None


@covers("enumerated", formats=NAMED, modes=[Mode.THR], saturations="all but wrap", inputs="float32 beside every step")
@pytest.mark.in_part(3)
@pytest.mark.parametrize("eps", [0.0, 5033165 / 2**24])
@every_named
def test_threshold(fmt: Format, eps: float) -> None:
    """Threshold rounds float32 at, beside and between its own steps as the definition does, in values and codes."""
    for rule in saturations(fmt):
        if rule is Saturation.wrap:
            continue
        right = sweep.tiles(fmt, Mode.THR, rule, eps=eps)
        assert sweep.disagreement(right, fmt, Mode.THR, rule, 10, eps=eps) is None
        beside = (right.first[:, np.newaxis].astype(np.int64) + np.arange(-1, 2)).reshape(-1)
        chosen = np.unique(
            np.concatenate([beside[(beside >= 0)], sweep.directed(fmt, count=100)[::7].astype(np.int64)])
        )
        value, code = sweep.expected(right, chosen.astype(np.uint64))
        x = chosen.astype(np.uint32).view(np.float32)
        assert np.array_equal(qsim.encode(x, fmt, "Threshold", eps=eps, saturation=rule), code)
        y = qsim.quantize(x, fmt, "Threshold", eps=eps, saturation=rule)
        assert np.array_equal(y.view(np.uint32), value)


@both_carriers
@pytest.mark.parametrize("fmt", [fmt for fmt in NAMED if Saturation.wrap in saturations(fmt)], ids=str)
def test_wrapping_round(fmt: Format, carrier: Carrier) -> None:
    """Integers wrap round as the definition does, in every mode, at the ends of the range and far beyond it."""
    rng = np.random.default_rng(5)
    turns = np.array([1, 1, 1, -1, 2, 3, -5, 1000, -(2**20)]) * 2.0**fmt.bits
    near = np.concatenate([[fmt.min, fmt.max, 0], turns])[:, np.newaxis] + np.array([-1, -0.5, -0.25, 0, 0.5, 1])
    others = rng.normal(size=50) * 2.0 ** (fmt.bits - 1)
    x = np.concatenate([near.reshape(-1), others, [1e30, -1e30, -0.0, 1e-40, np.inf, -np.inf, np.nan]])
    x = x.astype(carrier.dtype)
    for mode in DETERMINISTIC:
        codes = qsim.encode(x, fmt, mode, saturation="wrap")
        assert codes.tolist() == [reference.encode(v, fmt, mode, saturation="wrap") for v in x.tolist()], mode
        values = qsim.quantize(x, fmt, mode, saturation="wrap")
        assert np.array_equal(values, fmt.values()[codes])
        assert not np.signbit(values[values == 0]).any()


def going_out(mode: Mode, nu: Fraction, n: int) -> int:
    """Return how many of the 2^n words go outward at `nu`, by the sentences of `Mode`."""
    whole = 1 << n
    match mode:
        case Mode.SRB:
            return (math.floor(2 * whole * nu) + 1) // 2
        case Mode.SRC:
            return round(whole * nu)
        case Mode.SRE:
            return whole // 2 if nu else 0
    return math.floor(whole * nu)


@covers(
    "sampled", formats=NAMED, modes={mode for mode in Mode if mode.stochastic}, saturations="default",
    inputs=f"float32 and float64, {CARRY}",
)  # fmt: skip
@pytest.mark.in_part(3)
@both_carriers
@every_named
def test_carries(fmt: Format, carrier: Carrier) -> None:
    """Stochastically rounded numbers stay with the word just below the carry and go outward with the word at it.

    The carry follows from the reference's fraction nu; the bits below the word are those that would do harm.
    """
    rng, width = np.random.default_rng(6), carrier.width
    rule = saturations(fmt)[0]
    chosen, low, high = (
        sweep.directed(fmt, carrier),
        carrier.pattern(fmt.smallest_subnormal / 4),
        carrier.pattern(fmt.max),
    )
    magnitude = chosen % np.uint64(1 << (width - 1))
    inside = chosen[(magnitude >= low) & (magnitude <= high)]
    chosen = np.sort(np.concatenate([rng.choice(inside, 250), rng.choice(chosen, 100)]))
    split = [fmt.split(Fraction(x)) if math.isfinite(x) else None for x in sweep.floats(chosen, carrier)]
    negative = chosen >> np.uint64(width - 1) == 1
    for mode, n in [
        (Mode.SRA, width), (Mode.SRA, 8), (Mode.SRA, 0), (Mode.SRB, width - 1), (Mode.SRB, 8), (Mode.SRC, width - 1),
        (Mode.SRC, 8), (Mode.SRC, 0), (Mode.SRE, 1), (Mode.SRE, width),
    ]:  # fmt: skip
        can_be = [np.stack(sweep.results(fmt, mode, rule, carrier, negative=minus)) for minus in (False, True)]
        whole, both = 1 << n, pair(fmt, rule, carrier, mode)
        right, words, x = [], [], []
        for u, minus, at in zip(chosen.tolist(), negative.tolist(), split, strict=True):
            limit = can_be[minus].shape[1] - 4
            if at is None:  # an infinity is the last but one of what can be
                number = limit + 2 + (u % (1 << (width - 1)) > carrier.infinity)
                ways, word = (number, number), 1
            else:
                ways = tuple(min(abs(at[0]) + step, limit + 1) for step in (0, 1))
                word = whole - going_out(mode, at[1], n)
            for drawn, way in ((word - 1, ways[0]), (word, ways[1])):
                if 0 <= drawn < whole:
                    x.append(u)
                    words.append(drawn << (width - n) | ((1 << (width - n)) - 1 if drawn == word - 1 else 0))
                    right.append(can_be[minus][:, way])
        u, y, codes = np.array(x, carrier.word), np.empty(len(x), carrier.word), np.empty(len(x), np.uint64)
        random_words, source = np.array(words, carrier.word), stochastic(mode, n, carrier.dtype)
        cpu.round_by_words(u, random_words, y, source, both.value)
        cpu.round_by_words(u, random_words, codes, source, both.code, codes=True)
        assert np.array_equal(np.stack([y.astype(np.uint64), codes], 1), right), (mode, n)
        for k in rng.integers(0, len(x), 10).tolist():
            number = sweep.floats(u[k], carrier)
            code = reference.encode(number, fmt, mode, sr_bits=n, rbits=words[k] >> (width - n), saturation=rule)
            assert code == right[k][1]


@pytest.mark.parametrize(("mode", "n"), STOCHASTIC, ids=str)
@pytest.mark.parametrize("name", [*FIVE, "float4_e2m1fn", "ternary", "uint4", "float16"])
def test_the_intervals_carry_where_the_reference_does(name: str, mode: Mode, n: int) -> None:
    """The intervals tile all patterns, and the words counted in integers are the reference's at both ends of each."""
    fmt = get_format(name)
    found = sweep.intervals(fmt, saturations(fmt)[0])
    assert found.first[0] == 0
    assert np.array_equal(found.first[1:], found.last[:-1] + np.uint64(1))
    assert found.last[-1] == (1 << 32) - 1
    assert sweep.carry_disagreement(found, fmt, mode, n, saturations(fmt)[0], None if fmt.bits <= 4 else 30) is None


# --- What the sweeps are held against, held against the definition ----------------------------------------------------


def test_the_formats() -> None:
    """The named formats are the grids of the catalogue up to 16 bits that float32 holds, but for P3109's 504."""
    others = [fmt for fmt in catalogue().values() if fmt.bits <= 16 and fmt not in NAMED and "P3109" not in fmt.source]
    assert others == WIDE
    assert set(map(str, others)) == {
        "dlfloat16", "cfloat8_1_4_3_half", "float8_e8m0fnu", "binary", "nf4", "nf4_bitsandbytes", "log4_sqrt2", "posit8",
    }  # fmt: skip
    assert not [fmt for fmt in others if FLOAT32.holds(fmt)]
    assert len(NAMED) == len({fmt.name for fmt in NAMED}) > 50
    assert set(FIVE) < set(map(str, NAMED))


@pytest.mark.parametrize("fmt", [*(fmt for fmt in NAMED if fmt.bits <= 6), E4M3, get_format("uint8")], ids=str)
def test_the_tiles_are_the_steps_of_a_search(fmt: Format) -> None:
    """Each mode has the steps that halving finds among the patterns, one Fraction at a time."""
    for mode in DETERMINISTIC if fmt.bits <= 4 else (Mode.RNE, Mode.RUP):
        for rule in set(saturations(fmt)) - {Saturation.wrap}:
            tiles, steps = sweep.widened(sweep.tiles(fmt, mode, rule), fmt), sweep.searched(fmt, mode, rule)
            assert tiles.first[0] == steps.first[0] == 0
            assert tiles.last[-1] == steps.last[-1] == (1 << 32) - 1
            ends = np.unique(np.concatenate([tiles.first, tiles.last, steps.first, steps.last]))
            assert np.array_equal(sweep.expected(tiles, ends), sweep.expected(steps, ends))


@both_carriers
@settings(max_examples=150)
@given(data=st.data())
def test_any_pattern_is_in_the_right_tile(carrier: Carrier, data) -> None:
    """A pattern of any kind is in a tile with the reference's result, for formats of every kind and any mode."""
    fmt = data.draw(
        st.sampled_from([fmt for fmt in (*CATALOGUE, *PARAMETRIC) if fmt.bits <= 10 and carrier.holds(fmt)])
    )
    rule = data.draw(st.sampled_from([rule for rule in saturations(fmt) if rule is not Saturation.wrap]))
    mode = data.draw(st.sampled_from([*DETERMINISTIC, Mode.THR]))
    eps = data.draw(st.integers(0, (1 << 24) - 1)) / 2**24 if mode is Mode.THR else 0.0
    found = sweep.tiles(fmt, mode, rule, carrier, eps=eps)
    x = data.draw(patterns(carrier.dtype))
    value, code = sweep.expected(found, np.array([x.view(carrier.word)], np.uint64))
    assert code[0] == reference.encode(float(x), fmt, mode, saturation=rule, eps=eps)
    decoded = fmt.decode(int(code[0]))
    assert value[0] == (carrier.nan if math.isnan(decoded) else carrier.pattern(decoded))


def changed(tiles: Tiles, name: str, at: int, by: int) -> Tiles:
    """Return tiles of which one number differs."""
    columns = {name: getattr(tiles, name).copy() for name in ("first", "value", "code")}
    columns[name][[at]] += np.uint64(by % (1 << 64))
    return Tiles(tiles.carrier, **columns)


@pytest.mark.parametrize("by", [1, -1])
@pytest.mark.parametrize("name", ["first", "value", "code"])
@pytest.mark.parametrize("mode", DETERMINISTIC, ids=str)
def test_a_wrong_tile_is_noticed(mode: Mode, name: str, by: int) -> None:
    """A tile that begins one pattern late or early, or has the next value or code, is not the reference's."""
    fmt = E4M3
    right = sweep.tiles(fmt, mode, Saturation.OvfNaN)
    assert sweep.disagreement(right, fmt, mode, Saturation.OvfNaN) is None
    for at in (5, 40, right.first.size - 9):
        assert sweep.disagreement(changed(right, name, at, by), fmt, mode, Saturation.OvfNaN)


@pytest.mark.parametrize("by", [1, -1])
@pytest.mark.parametrize("name", ["offset", "width", "inner_code", "outer_code"])
def test_a_wrong_interval_is_noticed(name: str, by: int) -> None:
    """A way that is a step too long or begins a step late, or another neighbour, is not the reference's."""
    fmt = get_format("float8_e5m2")
    right = sweep.intervals(fmt, Saturation.SatNone)
    assert sweep.carry_disagreement(right, fmt, Mode.SR, 32, Saturation.SatNone, 0) is None
    column = getattr(right, name).copy()
    column[[np.searchsorted(right.first, FLOAT32.pattern(1.25))]] += np.uint64(by % (1 << 64))
    wrong: Intervals = right._replace(**{name: column})
    assert sweep.carry_disagreement(wrong, fmt, Mode.SR, 32, Saturation.SatNone)


# --- Faults planted in the kernel, which the sweeps must find ----------------------------------------------------------

SPANS = {
    "tiny": (0, 1 << 21),
    "subnormal": (0x3A000000, 0x3CFFFFFF),
    "normal": (0x3F800000, 0x3FFFFFFF),
    "large": (0x43000000, 0x43FFFFFF),
    "end of e5m2": (0x47000000, 0x47FFFFFF),
    "special": (0x7F000000, 0x7FFFFFFF),
    "tiny negative": (0x80000000, 0x80200000),
    "negative": (0xBF800000, 0xBFFFFFFF),
    "large negative": (0xC3000000, 0xC3FFFFFF),
    "special negative": (0xFF000000, 0xFFFFFFFF),
}
# field of the parameters: format, by how much it is off, where that shows
OF_BOTH = {
    "largest": ("e4m3", -1, "subnormal"), "floor": ("e4m3", 1, "subnormal"), "lowest": ("e4m3", 1, "normal"),
    "parity": ("e5m0fn", 1 << 23, "normal"),  # without mantissa bits the parity of a code is that of the exponent field
    "quantum": ("e4m3", 1 << 23, "subnormal"), "halfway": ("e4m3", 1, "subnormal"),
    "over_pos": ("e4m3", -1, "large"), "over_neg": ("e4m3", -1, "large negative"), "inf_pos": ("e4m3", -1, "special"),
    "inf_neg": ("e4m3", -1, "special negative"), "nan_pos": ("e4m3", -1, "special"), "zero_pos": ("e4m3", 1, "tiny"),
}  # fmt: skip
OF_VALUES = {
    "top": ("e4m3", 1 << 20, "large"), "bottom": ("e4m3", -(1 << 20), "large negative"),
    "nan_neg": ("e4m3", 1 << 31, "special negative"), "zero_neg": ("e4m3", -(1 << 31), "tiny negative"),
}  # fmt: skip
OF_CODES = {
    "skip": ("e4m0fnu", -1, "normal"), "flip": ("int8", -1, "negative"), "minus": ("e4m3", -64, "negative"),
    "top": ("e4m3", -1, "large"), "bottom": ("e4m3", -1, "large negative"),
    "nan_neg": ("e4m3", 1 << 7, "special negative"), "zero_neg": ("e4m3", -(1 << 7), "tiny negative"),
}  # fmt: skip
FAULTS = {"value": OF_BOTH | OF_VALUES, "code": OF_BOTH | OF_CODES}
OF_WORDS_ALONE = {"largest": -(1 << 12), "tiny": 1 << 22, "smallest": 1}
"""Likewise of what rounding by words reads, to E4M3: how much it is off."""
KNOWN = {"value": cpu.value_fields(np.uint32), "code": cpu.code_fields(np.uint32)}
"""What a loop knows by the type of its words, and reads nowhere."""

WALKED = ("floor", "parity", "over_pos", "nan_pos", "zero_neg", "flip")


def swept(tiles: Tiles, t: core.Addends, both: Pair, span: str, module: ModuleType = core) -> bool:
    """Return whether the walk over a part of the patterns finds a difference."""
    found = first_difference(tiles, t, both, span=SPANS[span], core=module)
    assert found is None or SPANS[span][0] <= found <= SPANS[span][1]
    return found is not None


def off(both: Pair, kind: str, field: str, by: int) -> Pair:
    """Return parameters of which one field, for values or for codes, is off."""
    p = getattr(both, kind)
    return both._replace(**{kind: p._replace(**{field: np.uint32((int(getattr(p, field)) + by) % (1 << 32))})})


@pytest.mark.parametrize("kind", FAULTS)
def test_every_parameter_has_its_fault(kind: str) -> None:
    """Each field that a loop reads is off in one of the tests that follow."""
    read = set(core.Parameters._fields) - set(KNOWN[kind])
    assert read == set(FAULTS[kind]) | set(OF_WORDS_ALONE)


@pytest.mark.parametrize(("kind", "field"), [(kind, field) for kind in FAULTS for field in FAULTS[kind]])
def test_a_wrong_parameter_is_found(kind: str, field: str) -> None:
    """A parameter that is off is found on the chosen patterns, and where it is cheap by the walk where it matters."""
    name, by, span = FAULTS[kind][field]
    fmt = get_format(name)
    mode = Mode.RAZ if field == "largest" else Mode.RNE  # which alone looks whether its addend is that
    rules = [rule for rule in saturations(fmt) if rule is not Saturation.InfNaN]  # whose overflows are the ends
    right, t, both = rounding(fmt, mode, rules[-1] if fmt.kind == "float" else None)
    wrong = off(both, kind, field, by)
    assert field not in WALKED or (swept(right, t, wrong, span) and not swept(right, t, both, span))
    chosen = sweep.directed(fmt)
    assert directed_difference(right, chosen, t, both) is None
    assert directed_difference(right, chosen, t, wrong) is not None


@pytest.mark.parametrize("kind", FAULTS)
@pytest.mark.parametrize("field", OF_WORDS_ALONE)
def test_a_wrong_parameter_of_words_is_found(field: str, kind: str) -> None:
    """So it is of what rounding by random words reads besides, at a carry near the smallest value."""
    *given, both = drawing(E4M3, Mode.SR, 32)
    assert first_carry_difference(*given, both, span=SPANS["subnormal"]) is None
    wrong = off(both, kind, field, OF_WORDS_ALONE[field])
    assert first_carry_difference(*given, wrong, span=SPANS["subnormal"]) is not None


@pytest.mark.parametrize("mode", DETERMINISTIC, ids=str)
def test_a_wrong_addend_is_found(mode: Mode) -> None:
    """An addend that is off is found on the chosen patterns, and by the walk: at a half, where numbers lie, by one."""
    fmt = E4M3
    right, t, both = rounding(fmt, mode)
    half, far = 1 << 31, 1 << 28

    def other(*fields: str) -> core.Addends:
        honest = int(getattr(t, fields[0]))
        added = np.uint32({half: half - 1, half - 1: half, 0: far}.get(honest, honest - far))
        return t._replace(**dict.fromkeys(fields, added))

    # A loop looks at the lower code or at the sign, and reads two of the four.
    parity = t[:2] == t[2:]
    for fields in (
        (("even_pos", "even_neg"), ("odd_pos", "odd_neg"))
        if parity
        else (("even_pos", "odd_pos"), ("even_neg", "odd_neg"))
    ):
        assert directed_difference(right, sweep.directed(fmt), other(*fields), both) is not None
    if mode in (Mode.RNE, Mode.RNP):
        for field in t._fields:
            assert swept(right, other(field), both, "normal" if field.endswith("pos") else "negative")


def test_a_wrong_code_is_found() -> None:
    """One code or one value that is other than the format's is found, wherever it is."""
    fmt = E4M3
    right, t, both = rounding(fmt, Mode.RNE)
    for name in ("value", "code"):
        wrong = changed(right, name, int(np.searchsorted(right.first, SPANS["normal"][0])) + 2, 1)
        assert swept(wrong, t, both, "normal")
        assert directed_difference(wrong, sweep.directed(fmt), t, both) is not None


MATTERS = {
    "tie rule flipped": ("ranged", "normal"),
    "addend off by one": ("ranged", "normal"),
    "grid without floor": ("ranged", "subnormal"),
    "no carry": ("ranged", "normal"),
    "binade begins late": ("ranged", "normal"),
    "limit excluded": ("ranged", "large"),
    "hidden bit forgotten": ("ranged", "subnormal"),
    "carry off by one": ("ranged", "subnormal"),
    "not clamped": ("clamped", "large"),
    "not bounded": ("bounded", "large"),
    "NaN taken for an end": ("bounded", "special"),
    "limit of a mirror excluded": ("mirrored", "end of e5m2"),
    "zero with a sign": ("mirrored", "tiny negative"),
    "limit of a reflection excluded": ("reflected", "end of e5m2"),
    "negative zero lost on the short way": ("reflected", "tiny negative"),
    "binade left in": ("bounded", "normal"),
    "shifted too far": ("bounded", "subnormal"),
}
"""By which way to the ends of the range, and where, some of the faults matter."""
ENDS = {
    "ranged": (E4M3, Saturation.OvfNaN), "clamped": (get_format("float8_e4m3fnuz"), Saturation.SatFinite),
    "bounded": (E4M3, Saturation.SatFinite), "mirrored": (get_format("Binary8p3se"), Saturation.SatNone),
    "reflected": (get_format("float8_e5m2"), Saturation.SatNone),
}  # fmt: skip


EVERY_RUN = {
    "tie rule flipped", "grid without floor", "not clamped", "not bounded", "limit of a mirror excluded", "binade left in",
    "limit of a reflection excluded",
}  # fmt: skip
"""Those of every run, by each way one: a walk is compiled anew for a mutant, which takes seconds. The others are on demand."""


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=() if name in EVERY_RUN else pytest.mark.exhaustive) for name in MATTERS]
)
def test_a_mutant_is_found(name: str, tmp_path) -> None:
    """A kernel with one fault in its source is found where the fault matters, rounding deterministically and by words."""
    (how, span), module = MATTERS[name], mutant(tmp_path, *MUTANTS[name])
    fmt, rule = ENDS[how]
    assert [shortcut(p) for p in pair(fmt, rule)] == [how] * 2
    if name not in OF_WORDS:
        assert swept(*rounding(fmt, Mode.RNE, rule), span, module)
    if name not in {
        "tie rule flipped",
        "binade left in",
        "shifted too far",
    }:  # a word has no ties, nor this way to codes
        assert first_carry_difference(*drawing(fmt, Mode.SR, 32, rule), span=SPANS[span], core=module) is not None


WORDS = {
    "mask": (Mode.SRA, 8, "a bit more"), "half": (Mode.SRB, 8, "none"), "last": (Mode.SRC, 8, "none"),
    "flip": (Mode.SRC, 0, "none"), "all_or_none": (Mode.SRE, 8, "none"),
}  # fmt: skip


@pytest.mark.parametrize("field", WORDS)
def test_a_wrong_reading_of_words_is_found(field: str) -> None:
    """A word that is read otherwise than its mode says is found at a carry."""
    mode, n, what = WORDS[field]
    intervals, *given, source, both = drawing(E4M3, mode, n)
    assert first_carry_difference(intervals, *given, source, both, span=SPANS["normal"]) is None
    value = 0 if what == "none" else int(getattr(source, field)) >> 1 | 1 << 31
    wrong = source._replace(**{field: np.uint32(value)})
    assert first_carry_difference(intervals, *given, wrong, both, span=SPANS["normal"]) is not None


def test_the_theorem_refutes(monkeypatch) -> None:
    """The theorem is refuted by a counterexample that was evaluated, if a tie rule or the reference is another."""
    (theorem,) = find([THEOREM])
    module = sys.modules[f"qsim_proof_{THEOREM}"]
    monkeypatch.setattr(module, "FORMATS", (E4M3,))
    assert theorem.run(quick=True).outcome is Outcome.HELD
    below_half = np.uint32((1 << 31) - 1)
    monkeypatch.setattr(
        module,
        "addends",
        lambda mode, dtype: addends(mode, dtype)._replace(odd_pos=below_half, odd_neg=below_half),
    )
    for quick in (True, False):
        verdict = theorem.run(quick=quick)
        assert verdict.outcome is Outcome.REFUTED
        found = re.search(
            r"kernel gives (\S+) with code (\S+), the reference (\S+) with code (\S+)", verdict.counterexample
        )
        assert found is not None
        assert found.group(1, 2) != found.group(3, 4)
    monkeypatch.undo()
    monkeypatch.setattr(module, "FORMATS", (E4M3,))
    monkeypatch.setattr(reference, "away", lambda _, nu, *__, **___: nu >= Fraction(1, 3))
    assert theorem.run(quick=True).outcome is Outcome.REFUTED


@pytest.mark.parametrize("name", ["nf4", "float8_e8m0fnu", "cfloat8_1_4_3_half"])
@pytest.mark.parametrize("field", ["first", "value"])
def test_a_wrong_step_of_a_list_is_found(name: str, field: str) -> None:
    """A step that begins one pattern early or has another value is found, beside the steps and by the walk."""
    fmt, proof = get_format(name), loaded(WIDENED)[1]
    rule = saturations(fmt)[0]
    right, problem = proof.steps(fmt, Mode.RNE, rule)
    assert problem is None
    to = proof.driver(fmt, Mode.RNE, rule)
    assert beside_wide_difference(right, to) is None
    at = int(np.searchsorted(right.first, FLOAT32.pattern(0.4)))
    wrong = changed(right, field, at, -1)
    near = int(right.first[at])
    assert beside_wide_difference(wrong, to) is not None
    for span in ((near - 100, near + (1 << 17)), (near - 1, near), (near - 70000, near)):
        assert first_wide_difference(right, to, span=span) is None
        assert first_wide_difference(wrong, to, span=span) == near - (field == "first")


def test_the_theorem_of_lists_refutes(monkeypatch) -> None:
    """The theorem is refuted, with both results, by another rule of the reference, and by a wrong code."""
    (theorem,) = find([WIDENED])
    module = sys.modules[f"qsim_proof_{WIDENED}"]
    monkeypatch.setattr(module, "FORMATS", (get_format("nf4"),))
    assert theorem.run(quick=True).outcome is Outcome.HELD
    with monkeypatch.context() as planted:
        planted.setattr(reference, "away", lambda _, nu, *__, **___: nu > Fraction(1, 3))
        verdict = theorem.run(quick=True)
    assert verdict.outcome is Outcome.REFUTED
    found = re.search(r"becomes (\S+); the reference has (\S+)", verdict.counterexample)
    assert found is not None
    assert found[1] != found[2]
    monkeypatch.setattr(qsim, "encode", lambda x, *_: np.arange(len(x))[::-1])
    assert "is encoded as" in theorem.run(quick=True).counterexample


# --- How it is walked ------------------------------------------------------------------------------------------------


def test_pieces_cover_a_span(monkeypatch) -> None:
    """Whatever the pieces, each pattern of a span is walked once, and a fault at either end of one is found."""
    fmt = get_format("float8_e5m2")
    right, t, both = rounding(fmt, Mode.RNE)
    monkeypatch.setattr(exhaustive, "PIECE", 1000)
    low, high = 0x3F7FF000, 0x3F801234
    done: list[float] = []
    assert first_difference(right, t, both, span=(low, high), advance=done.append) is None
    assert sum(done) == high - low + 1
    for at in (low, low + 999, low + 1000, 0x3F800000, high):
        first = np.append(right.first, [np.uint64(at), np.uint64(at + 1)])
        order = np.argsort(first, kind="stable")
        k = int(np.searchsorted(right.first, at, "right")) - 1
        value, code = (
            np.append(column, [column[k] + np.uint64(1), column[k]])[order] for column in (right.value, right.code)
        )
        wrong = Tiles(FLOAT32, first[order], value, code)
        assert first_difference(wrong, t, both, span=(low, high)) == at


class Terminal(io.StringIO):
    """Claims to be a terminal."""

    def isatty(self) -> bool:
        return True


def test_the_meter_draws_a_bar(monkeypatch) -> None:
    """On a terminal there is a bar, with what is being done and how far it has come."""
    monkeypatch.setenv("TERM", "xterm")
    stream = Terminal()
    with Meter(200, stream) as meter:
        meter.begin("int8, RNE")
        meter.advance(50)
        meter.bar.refresh()
    assert "int8, RNE" in stream.getvalue()
    assert "25.0 %" in stream.getvalue()


def test_the_meter_writes_lines() -> None:
    """Elsewhere there is a line when the time has come, and none before."""
    stream = io.StringIO()
    with Meter(200, stream, every=0) as meter:
        meter.begin("int8, RNE")
        meter.advance(50)
    assert re.fullmatch(r"int8, RNE: 25\.0% after 0\.0 min, 0\.0 left\n", stream.getvalue())
    with Meter(200, stream, every=1000) as meter:
        meter.advance(200)
    assert stream.getvalue().count("\n") == 1
