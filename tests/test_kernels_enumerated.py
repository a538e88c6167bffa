"""Every result of the kernels against the oracle of enumeration.py: all inputs, modes and rules of what can be enumerated."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import pytest
from covered import covers
from enumeration import codes, exactly, first_word, goes_away, place, roundings, sixteen_bits
from strategies import (
    BFLOAT16,
    FLOAT16,
    FLOAT32,
    FLOAT64,
    P3109,
    ROUNDED,
    any_pattern,
    both_carriers,
    both_kinds,
    edges,
    held,
)

from qsim import reference
from qsim.arrays import encode, quantize
from qsim.errors import InputError
from qsim.formats import Format, float_format, get_format
from qsim.rounding import LIMITED, Mode, saturations

DIRECTED = (Mode.RTZ, Mode.RUP, Mode.RDN)
"""The modes whose direction counts beyond the range; the others are all alike there."""

CARRY_BITS = (8, 32)
"""Numbers of random bits whose words are tried where they turn."""


def check(fmt: Format, x: np.ndarray, bits: tuple[int, ...], modes: tuple[Mode, ...] = tuple(Mode)) -> None:
    """Hold codes against the oracle, in every mode of `modes` by every rule, with words of `bits` bits where they turn.

    And values, in some modes, or their refusal where the type of `x` does not hold them.
    """
    exact = exactly(x)
    by_distance, nearest = place(fmt, exact), place(fmt, exact, nearest=True)
    width = 8 * max(x.dtype.itemsize, 4)
    for rule in saturations(fmt):
        known = {mode: codes(fmt, rule, mode, exact, by_distance) for mode in (*DIRECTED, Mode.RNE)}
        for mode in modes:
            at = nearest if mode.nearest else by_distance
            toward, away = known[mode if mode in DIRECTED else Mode.RNE]
            for rounding in roundings(mode, at, bits, width):
                n, r, eps = (rounding.get(name, 0) for name in ("sr_bits", "rbits", "eps"))
                expected = np.where(goes_away(mode, at, n, r, eps), away, toward)
                got = encode(x, fmt, mode, saturation=rule, **rounding)
                wrong = got != expected
                assert not wrong.any(), (rule, mode, x[wrong][0], got[wrong][0], expected[wrong][0], n, np.ravel(r)[-1])
                if mode in {Mode.RNE, Mode.SR}:
                    check_values(fmt, x, expected, mode, saturation=rule, **rounding)


def check_values(fmt: Format, x: np.ndarray, expected: np.ndarray, mode: Mode, **rounding: Any) -> None:
    """Hold `quantize` against the values of codes: a number of the type of x for each, or one sentence of refusal."""
    if not held(x.dtype, fmt):
        with pytest.raises(InputError, match=f"{x.dtype} cannot hold the values of {re.escape(str(fmt))}; convert"):
            quantize(x[:1], fmt)
        return
    y = quantize(x, fmt, mode, **rounding)
    values = fmt.values()[expected] if fmt.bits <= 16 else fmt.decode_array(expected)
    values = np.where(np.isnan(values), np.nan, values).astype(x.dtype)  # the one NaN that results have
    assert y.dtype == x.dtype
    assert y.tobytes() == values.tobytes()


NUMBERS, CARRY = "all 65,536 float16 and all bfloat16", "at the word of the carry and the one below"

SOME_P3109 = [*map(get_format, ("Binary8p4se", "Binary8p1uf", "Binary8p3sf", "Binary7p5ue", "Binary3p1se"))]
EVERY_RUN = [*ROUNDED, *(fmt for fmt in SOME_P3109 if fmt not in ROUNDED)]


@covers("enumerated", formats=EVERY_RUN, modes=Mode, inputs=f"{NUMBERS}; {CARRY}")
@pytest.mark.in_part(3)
@both_kinds
@pytest.mark.parametrize("fmt", EVERY_RUN, ids=str)
def test_all_numbers_of_16_bits(fmt: Format, kind: np.dtype) -> None:
    """All 65,536 numbers of float16 and of bfloat16 round right, in every mode, by every rule.

    The words of the stochastic modes are, for each number, the first that takes it away from zero and the one before.
    """
    check(fmt, sixteen_bits(kind), CARRY_BITS)


@covers(
    "enumerated",
    formats=P3109,
    modes=Mode,
    inputs=f"float16 and bfloat16 at and beside every value and midpoint; {CARRY}",
)
@pytest.mark.in_part(3)
@both_kinds
@pytest.mark.parametrize("fmt", [fmt for fmt in P3109 if fmt not in ROUNDED], ids=str)
def test_all_thresholds_of_p3109(fmt: Format, kind: np.dtype) -> None:
    """At all values and middles, and at the numbers of 16 bits beside these, the formats of P3109 are right as well."""
    check(fmt, edges(fmt, kind), CARRY_BITS)


EVERY_WORD = {
    "float8_e4m3fn": FLOAT16, "float8_e5m2": BFLOAT16, "float8_e8m0fnu": BFLOAT16, "int4": FLOAT16, "Binary8p4se": FLOAT16,
    "ternary": BFLOAT16,
}  # fmt: skip


@covers(
    "enumerated",
    formats=[*map(get_format, EVERY_WORD)],
    modes=(*LIMITED, Mode.SRE),
    saturations="default",
    inputs="all 65,536 float16 or bfloat16, all words of N = 0 .. 8 bits",
)
@pytest.mark.parametrize(("name", "kind"), [*EVERY_WORD.items()], ids=str)
def test_every_word_of_up_to_8_bits(name: str, kind: np.dtype) -> None:
    """All 65,536 numbers round right with each of the 2^N words, in each stochastic mode, N = 0 to 8."""
    check_words(get_format(name), sixteen_bits(kind), range(9))


def check_words(fmt: Format, x: np.ndarray, bits: range) -> None:
    """Hold the stochastic modes against the oracle with every word of so many bits."""
    exact = exactly(x)
    at, rule = place(fmt, exact), saturations(fmt)[0]
    toward, away = codes(fmt, rule, Mode.SRA, exact, at)
    for mode in (*LIMITED, Mode.SRE):
        for n in bits[mode is Mode.SRE :]:
            first = first_word(mode, at, n)
            for r in range(1 << n):
                wrong = encode(x, fmt, mode, sr_bits=n, rbits=r) != np.where(first <= r, away, toward)
                assert not wrong.any(), (mode, n, r, x[wrong][0])


@covers(
    "enumerated",
    formats=[*ROUNDED, *P3109],
    modes=Mode,
    inputs=f"{NUMBERS}, also as float32 and float64; all words of N = 0 .. 8 bits, {CARRY} beyond",
    when="on demand",
)
@pytest.mark.exhaustive
@both_kinds
@pytest.mark.parametrize("fmt", [*ROUNDED, *(fmt for fmt in P3109 if fmt not in ROUNDED)], ids=str)
def test_everything_of_16_bits(fmt: Format, kind: np.dtype) -> None:
    """All 65,536 numbers of both types, in every format of up to 8 bits, every mode and rule, with every word.

    Every word means: of N = 0 to 8 bits all, in each stochastic mode; of 16, 31 and 32 bits, and by each rule, the words
    where numbers turn. And the same numbers as float32 and as float64, which go through the kernels of these.
    """
    x = sixteen_bits(kind)
    check(fmt, x, (*range(9), 16, 31, 32))
    check_words(fmt, x, range(9))
    with np.errstate(invalid="ignore"):  # of signalling NaNs
        check(fmt, x.astype(np.float32), (0, 8, 23, 32))
        check(fmt, x.astype(np.float64), (0, 8, 53, 63))


@covers(
    "enumerated",
    formats=ROUNDED,
    modes=Mode,
    inputs=f"float32 and float64 at and beside every value and midpoint; {CARRY}",
)
@pytest.mark.in_part(2)
@both_carriers
@pytest.mark.parametrize("fmt", ROUNDED, ids=str)
def test_all_thresholds(fmt: Format, carrier: np.dtype) -> None:
    """At all values and middles, at the float32 and float64 beside these, far below, and at random, every mode is right."""
    far = np.array([1e-30, 3e-38, 1e-44, -2e-40, 7e-12], carrier)
    x = np.concatenate([edges(fmt, carrier), far, any_pattern(carrier, 500)])
    check(fmt, x, (0, 5, 8 * carrier.itemsize - (carrier == FLOAT64)))


WIDE = [
    "bfloat16", "float16", "tf32", "float32", "float64", "int16", "int24", "int31", "int32", "uint32", "int32sym", "Q0.31",
    "Q7.8", "UQ8.8", "e8m0fn", "e8m7fnuz", "e5m7fn", "e7m8f", "e10m5", "e5m10u", "dlfloat16", "e10m20fn", "e2m40f",
    "Binary10p1se", "Binary12p3uf", "Binary16p8se",
]  # fmt: skip


@covers(
    "sampled", formats=[*map(get_format, WIDE)], modes=Mode, inputs="float32 and float64 beside values and midpoints"
)
@pytest.mark.in_part(4)
@both_carriers
@pytest.mark.parametrize("fmt", [*map(get_format, WIDE)], ids=str)
def test_wide_formats(fmt: Format, carrier: np.dtype) -> None:
    """Formats of up to 64 bits, some wider than the input, are right at thresholds and at random patterns."""
    modes = tuple(Mode) if fmt.name != "dlfloat16" else (Mode.RNE, Mode.RUP, Mode.SRC)  # each takes a second to prepare
    x = np.concatenate([edges(fmt, carrier, 300), any_pattern(carrier, 1000)])
    check(fmt, x, (9, 8 * carrier.itemsize - (carrier == FLOAT64)), modes)


def test_the_processor_agrees() -> None:
    """Rounding to float16 and float32 is the processor's own conversion, for a million random patterns."""
    for carrier in (FLOAT32, FLOAT64):
        x = any_pattern(carrier, 1_000_000)
        for name in "float16", "float32":
            with np.errstate(over="ignore", invalid="ignore"):
                theirs = x.astype(name).astype(carrier)
            y = quantize(x, name)
            assert np.array_equal(y, theirs, equal_nan=True)
            assert np.array_equal(np.signbit(y)[~np.isnan(y)], np.signbit(theirs)[~np.isnan(y)])


@pytest.mark.parametrize("zero_to", ["min", "max", "nan"])
def test_below_the_smallest_value_of_a_format_without_zero(zero_to: str) -> None:
    """Half of the smallest value, a subnormal float32, becomes what zero does, and anything more the value."""
    given = {"signed": False, "zero": False, "zero_to": zero_to, "specials": "fn", "source": "a test"}
    fmt = float_format("lowest", 7, 0, bias=126, **given)
    half = np.float32(fmt.min / 2)
    x = np.array([half, np.nextafter(half, np.float32(1)), half / 2, fmt.min, 3 * half, 1], np.float32)
    for mode in Mode:
        if not mode.stochastic and mode is not Mode.THR:
            assert encode(x, fmt, mode).tolist() == [reference.encode(float(v), fmt, mode) for v in x], mode
    lowest = float_format("lowest64", 7, 0, bias=1022, **given)
    half = lowest.min / 2
    x = np.array([half, np.nextafter(half, 1), half / 2, lowest.min, 3 * half, 2.0**-1000])
    for mode in Mode.RNE, Mode.RAZ, Mode.RTO:
        assert encode(x, lowest, mode).tolist() == [reference.encode(v, lowest, mode) for v in x.tolist()], mode
