"""The property pack: right quantizers hold, and each of many planted faults is refuted and named."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import textwrap
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from gfloat import RoundMode, round_float
from gfloat.formats import format_info_ocp_e5m2
from hypothesis import given
from hypothesis import strategies as st
from strategies import FLOAT32, FLOAT64, SMALL, held, inputs

from qsim import arrays, reference
from qsim.errors import InputError
from qsim.formats import Format, Grid, get_format
from qsim.rounding import LIMITED, Mode, Saturation, saturations
from qsim.testing import LAWS, assert_quantizer, check_quantizer, elementwise, oracle
from qsim.testing import strategies as qst
from qsim.testing.inputs import exactly, make_inputs, step
from qsim.verdicts import Outcome, Verdict

ROOT = Path(__file__).resolve().parents[1]

# --- A device --------------------------------------------------------------------------------------------------------


def device(name: str, mode: str = "RNE", n: int = 0, fault: str = "", saturation: str = "") -> Callable[..., Any]:
    """Return a unit that turns float32s into codes of a float format as hardware does: by shifts, a guard bit and a carry.

    It knows nothing of `qsim.reference`; of the format it takes the numbers in its data sheet. `fault` breaks one line of it.
    """
    fmt = get_format(name)
    assert isinstance(fmt, Grid)
    m, whole = fmt.man_bits, 1 << fmt.man_bits
    clamps = (saturation or ("SatNone" if fmt.has_inf else "SatFinite")) == "SatFinite"

    def convert(x: np.ndarray, r: np.ndarray | None) -> np.ndarray:
        u = x.view(np.uint32).astype(np.int64)
        sign, magnitude = u >> 31, u & 0x7FFFFFFF
        field = magnitude >> 23
        if fault == "subnormal inputs flushed":
            magnitude = np.where(field == 0, 0, magnitude)
        significand = (magnitude & 0x7FFFFF) | (field > 0) << 23
        e = np.maximum(field, 1) - 127
        further = np.maximum(fmt.emin - e, 0)
        if fault == "subnormals shifted too little":
            further = np.maximum(further - 1, 0)
        if fault == "subnormals shifted too far":
            further = np.where(further > 0, further + 1, 0)
        if fault == "shift of five bits":
            further &= 31
        shift = np.minimum(23 - m + further, 40)
        q, rest, unit = significand >> shift, significand & ((1 << shift) - 1), 1 << shift
        if fault == "sticky lost":
            rest &= ~((unit >> 2) - 1)
        if fault == "guard only":
            rest &= ~((unit >> 1) - 1)
        up = goes_up(q, rest, unit, sign, r)
        if fault == "carry lost":
            q = np.where(up & ((q + 1) % whole == 0), q + 1 - whole, q + up)
        elif fault == "carry dropped":
            q = np.where(up & ((q + 1) % whole == 0), q, q + up)
        else:
            q = q + up
        number = q + ((np.maximum(e, fmt.emin) - fmt.emin) << m)
        infinite, nan = magnitude == 0x7F800000, magnitude > 0x7F800000
        over = (number > fmt.top) & ~infinite & ~nan
        if fault == "range first":
            over = (np.abs(x) > fmt.max) & ~infinite & ~nan
        if fault == "top binade missing":
            number = np.minimum(number, (fmt.top >> m << m) - 1)
            over = np.zeros_like(over)
        beyond = fmt.top if clamps else fmt.inf_code if fmt.has_inf else fmt.nan_code
        if fault == "carry into the next code":
            beyond = np.where(number == fmt.top + 1, number, beyond)
        number = np.where(over, 0 if fault == "overflow becomes 0" else beyond, number)
        inf_code = fmt.top if clamps or fault == "infinity clamped" else beyond
        number = np.where(infinite, inf_code, number)
        if fault == "subnormal results flushed":
            number = np.where(number < whole, 0, number)
        if fault == "zero loses its sign":
            sign = np.where(number == 0, 0, sign)
        if fault == "underflow loses its sign":
            sign = np.where((number == 0) & (magnitude > 0), 0, sign)
        nan_code = {"NaN becomes 0": 0, "NaN becomes max": fmt.top}.get(fault, fmt.nan_code)
        code = np.where(nan, nan_code, number | (sign << (fmt.bits - 1)) * (~nan))
        if fault == "NaN becomes -0":
            code = np.where(nan, 1 << (fmt.bits - 1), code)
        return code

    def goes_up(
        q: np.ndarray, rest: np.ndarray, unit: np.ndarray, sign: np.ndarray, r: np.ndarray | None
    ) -> np.ndarray:
        odd, half = q % 2 == 1, unit >> 1
        if mode == "RNE":
            tie = {"ties away": True, "ties to zero": False, "ties to odd": ~odd, "ties up": sign == 0}.get(fault, odd)
            up = (rest > half) | ((rest == half) & tie)
            if fault == "negative side truncated":
                up &= sign == 0
            if fault == "negative side floors":
                up = np.where(sign == 1, rest > 0, up)
            return up
        assert r is not None
        kept, r = (rest << n) // unit, r.astype(np.int64)
        last = (1 << n) - 1
        match fault:
            case "word plus one":
                return kept + r + 1 > last
            case "word plus one, wrapped":
                return kept + ((r + 1) & last) > last
            case "greater":
                return kept + r > last + 1
            case "word reversed":
                r = sum(((r >> k) & 1) << (n - 1 - k) for k in range(n))
            case "low bits":
                return ((rest << n // 2) // unit) + (r & ((1 << n // 2) - 1)) >> n // 2 > 0
            case "word complemented":
                return r < kept
            case "word complemented, ties too":
                return r <= kept
            case "fewer bits":
                return ((rest << (n - 1)) // unit) + (r >> 1) >> (n - 1) > 0
            case "one bit":
                return (rest > 0) & (r > last // 2)
            case "word ignored":
                return (rest > half) | ((rest == half) & odd)
            case "floor":  # of x + u: for negative numbers from the lesser neighbour
                other = ((unit - rest) << n) // unit
                return np.where((sign == 1) & (rest > 0), other + r <= last, kept + r > last)
            case "exact moved":
                return (kept + r > last) | ((rest == 0) & (q > 0))
        if mode == "SRB":
            return (rest << n + 1) // unit + 2 * r + 1 > 2 * last + 1
        if mode == "SRC":
            floor, left = kept, (rest << n) % unit
            near = floor + ((left > half) | ((left == half) & (floor % 2 == 1)))
            return near + r > last
        return kept + r > last

    if mode == "RNE":

        def unit_under_test(x: np.ndarray) -> np.ndarray:
            return convert(x, None)

        return unit_under_test

    def stochastic_unit(x: np.ndarray, rbits: np.ndarray) -> np.ndarray:
        return convert(x, rbits)

    return stochastic_unit


DEVICES = [
    ("float8_e4m3fn", "RNE", 0), ("float8_e4m3fn", "SRA", 8), ("float8_e4m3fn", "SRB", 5), ("float8_e4m3fn", "SRC", 5),
    ("float8_e5m2", "RNE", 0), ("float8_e5m2", "SRA", 12), ("float6_e3m2fn", "SRA", 4), ("bfloat16", "RNE", 0),
]  # fmt: skip
"""Formats, modes and numbers of random bits for which the device is right."""


@pytest.mark.parametrize(("name", "mode", "n"), DEVICES)
def test_right_device(name: str, mode: str, n: int) -> None:
    """A device that another author might have built holds, whatever becomes of a NaN's sign."""
    fn = device(name, mode, n)
    fmt = get_format(name)
    if fmt.nan_to == "max":  # the device looks for a code of NaN
        fn = device(name, mode, n, "NaN becomes max")
    verdict = check_quantizer(fn, name, mode, sr_bits=n or None, codes=True)
    assert verdict.outcome is Outcome.HELD, verdict


PLANTED = [
    ("RNE", "ties away", "ties go away from zero (RNA instead of RNE)"),
    ("RNE", "ties to zero", "ties go toward zero (RNZ instead of RNE)"),
    ("RNE", "ties to odd", "ties go to the odd code"),
    ("RNE", "ties up", "ties go to the greater value (RNP instead of RNE)"),
    ("RNE", "sticky lost", "looks at the top 2 of the discarded bits only: the sticky bit is lost"),
    ("RNE", "guard only", "looks at the top 1 of the discarded bits only: the sticky bit is lost"),
    ("RNE", "carry lost", "the carry does not reach the exponent: the significand wraps around to 0"),
    ("RNE", "carry dropped", "the carry into the exponent is dropped: the significand stays at all ones"),
    ("RNE", "subnormals shifted too little", "shifts subnormals one place too few: the result is doubled"),
    ("RNE", "subnormals shifted too far", "shifts subnormals one place too many: the result is halved"),
    ("RNE", "shift of five bits", "takes shift counts modulo 32, so that far too small numbers come back"),
    ("RNE", "top binade missing", "the top binade is missing: what belongs there becomes the largest value below"),
    ("RNE", "carry into the next code", "lets the carry run on into the code after that of the largest value"),
    ("RNE", "overflow becomes 0", "a finite overflow becomes 0"),
    ("RNE", "subnormal results flushed", "flushes subnormal results to zero"),
    ("RNE", "zero loses its sign", "loses the sign of zero"),
    ("RNE", "underflow loses its sign", "loses the sign of a negative number that rounds to zero, but not that of -0"),
    ("RNE", "NaN becomes 0", "a NaN becomes 0"),
    ("RNE", "NaN becomes -0", "a NaN becomes -0"),
    ("RNE", "NaN becomes max", "a NaN becomes the largest value"),
    ("RNE", "negative side truncated", "rounds by RTZ (TowardZero) instead of RNE, negative numbers only"),
    ("RNE", "negative side floors", "rounds by RDN (TowardNegative) instead of RNE, negative numbers only"),
    ("SRA", "word plus one", "adds one more than the word (R + 1, the carry kept)"),
    ("SRA", "word plus one, wrapped", "uses the word R + 1, and 0 after the last"),
    ("SRA", "greater", "compares with > instead of >=, as if the word were one less"),
    ("SRA", "word reversed", "uses the word with its bits reversed"),
    ("SRA", "low bits", "uses the low 4 of the word's 8 bits instead of the top ones"),
    ("SRA", "word complemented", "uses the complemented word: goes away from zero for small words (rand < frac)"),
    ("SRA", "word complemented, ties too", "goes away from zero iff R <= nu 2^N: the complemented word, and one more"),
    ("SRA", "fewer bits", "uses only the top 7 of the word's 8 bits: N is one smaller"),
    ("SRA", "one bit", "rounds by SRE (StochasticEqual) instead of SRA"),
    ("SRA", "word ignored", "ignores the word: rounds by RNE (NearestTiesToEven)"),
    ("SRA", "floor", "measures the fraction from the lesser neighbour, as floor(x + u) does"),
    ("SRA", "exact moved", "moves values that are exact away from zero"),
]  # fmt: skip
"""Modes, faults of the device, and how they are named."""

AMBIGUOUS = ("negative side truncated", "negative side floors")
"""Faults that have two names: of negative numbers RTZ is RUP, and RDN is RAZ."""


@pytest.mark.parametrize(("mode", "fault", "cause"), PLANTED, ids=[fault for _, fault, _ in PLANTED])
def test_planted_fault(mode: str, fault: str, cause: str) -> None:
    """A device with one line broken is refuted, and its fault is the cause that is named, and the only one if it can be."""
    verdict = check_quantizer(
        device("e4m3", mode, 8, fault), "e4m3", mode, sr_bits=8 if mode == "SRA" else None, codes=True
    )
    assert verdict.outcome is Outcome.REFUTED
    assert named(verdict)[0] == cause
    assert ("this gives all" in unwrapped(verdict)) == (fault not in AMBIGUOUS)
    assert max(map(len, verdict.counterexample.splitlines()[3:])) <= 100


@pytest.mark.parametrize(("name", "saturation"), [("e4m3", "OvfNaN"), ("float8_e5m2", "SatNone")])
@pytest.mark.parametrize(
    ("fault", "cause"),
    [
        ("range first", "checks the range before rounding: all that is beyond the largest value overflows"),
        ("infinity clamped", "an infinity becomes the largest value"),
    ],
)
def test_planted_fault_of_the_range(name: str, saturation: str, fault: str, cause: str) -> None:
    """What saturates in the wrong order, or infinities alone, is told so; where all is clamped, the order shows nowhere."""
    fn = device(name, fault=fault, saturation=saturation)
    verdict = check_quantizer(fn, name, saturation=saturation, codes=True)
    assert named(verdict)[0] == cause
    assert "this gives all" in unwrapped(verdict)
    clamped = check_quantizer(
        device(name, fault=fault, saturation="SatFinite"), name, saturation="SatFinite", codes=True
    )
    assert clamped.outcome is Outcome.HELD


def named(verdict: Verdict) -> list[str]:
    """Return the causes that a verdict names, each on one line again."""
    lines = verdict.counterexample.splitlines()
    start = next(i for i, line in enumerate(lines) if line.startswith("causes"))
    end = next(i for i, line in enumerate(lines) if not line and i > start)
    return textwrap.dedent(
        lines[start].replace("causes", "      ") + "\n" + "\n".join(lines[start + 1 : end])
    ).splitlines()


def unwrapped(verdict: Verdict) -> str:
    """Return the counterexample as one line."""
    return " ".join(verdict.counterexample.split())


def test_equivalent_faults_are_named_together() -> None:
    """Where two faults give the same answers everywhere, both are named: bfloat16's subnormals are float32's."""
    verdict = check_quantizer(device("bfloat16", fault="subnormal inputs flushed"), "bfloat16", codes=True)
    assert "flushes subnormal inputs to zero" in named(verdict)
    assert "flushes what is below the smallest normal value before rounding" in named(verdict)
    right = check_quantizer(device("bfloat16", fault="subnormal inputs flushed"), "bfloat16", codes=True, ftz_in=True)
    assert right.outcome is Outcome.HELD


# --- What people write -----------------------------------------------------------------------------------------------


def to_bfloat16(x: np.ndarray) -> np.ndarray:
    """Add and mask, as many a kernel does: the carry of a NaN's pattern may run through the exponent into the sign."""
    u = x.view(np.uint32).astype(np.uint64)
    return (((u + 0x7FFF + (u >> 16 & 1)) & 0xFFFFFFFF) >> 16).astype(np.uint16)


def rint(x: np.ndarray) -> np.ndarray:
    """Round to integers, NaN to 0, no -0."""
    return np.where(np.isnan(x), 0.0, np.rint(x)) + 0.0


def through_bfloat16(x: np.ndarray) -> np.ndarray:
    """Convert in two steps."""
    return x.astype(ml_dtypes.bfloat16).astype(ml_dtypes.float8_e4m3fn)


def through_float16(x: np.ndarray) -> np.ndarray:
    """Convert in two steps, the first of which overflows."""
    return x.astype(np.float16).astype(ml_dtypes.float8_e4m3fn)


def floored(x: np.ndarray, rbits: np.ndarray) -> np.ndarray:
    """Round stochastically to int8 by floor(x + u), u a float32 of 24 bits."""
    u = rbits.astype(np.float32) * np.float32(2.0**-24)
    return np.clip(np.floor(np.where(np.isnan(x), 0, x) + u), -128, 127)


def wrapped(x: np.ndarray) -> np.ndarray:
    """Round to int8, modulo 256."""
    y = np.fmod(rint(x), np.float32(256))
    return np.where(
        np.isinf(x), np.clip(x, -128, 127), np.where(y > 127, y - 256, np.where(y < -128, y + 256, y)) + 0.0
    )


WRITTEN = [
    (to_bfloat16, "bfloat16", {"codes": True, "laws": ["specials"]}, "a NaN is taken for a number: its pattern is rounded"),
    (through_bfloat16, "e4m3", {"saturation": "OvfNaN"}, "double rounding: goes through bfloat16 first"),
    (through_float16, "e4m3", {"saturation": "OvfNaN"}, "double rounding: goes through float16 first"),
    (floored, "int8", {"mode": "SRA", "sr_bits": 24}, "adds the word in the input's own precision: floor(x + u) in floats"),
    (rint, "int8", {"laws": ["saturation"]}, "does not check the range: the grid goes on beyond the largest value"),
    (wrapped, "int8", {"laws": ["saturation"]}, "saturates by wrap instead of saturate"),
    (lambda x: np.clip(rint(x), -127, 127), "int8", {}, "leaves out the most negative value: the range is symmetric"),
    (lambda x: np.clip(np.rint(x), -128, 127), "int8", {}, "keeps the sign of zero, for which the format has no code"),
    (lambda x: np.clip(rint(np.abs(x)), 0, 15), "uint4", {}, "loses the sign of a negative input"),
    (lambda x: np.clip(np.trunc(np.where(np.isnan(x), 0, x)) + 0.0, -128, 127), "int8", {}, "rounds by RTZ (TowardZero)"),
    (
        lambda x: np.clip(np.floor(np.where(np.isnan(x), 0, x) + np.float32(0.5)) + 0.0, -128, 127), "int8", {"mode": "RNP"},
        "adds 1/2 in the input's own precision and truncates: floor(x + 1/2) in floats",
    ),
    (lambda x: x.astype(ml_dtypes.float8_e4m3fn), "e4m3", {}, "saturates by OvfNaN instead of SatFinite"),
    (
        lambda x: x.astype(ml_dtypes.float8_e4m3fn).view(np.uint8), "float8_e4m3fnuz",
        {"saturation": "OvfNaN", "codes": True}, "takes the format for e4m3fn with bias 7, OvfNaN",
    ),
    (
        lambda x: np.where(np.abs(x) > 448, np.float32(np.nan), x).astype(ml_dtypes.float8_e4m3fn), "e4m3",
        {"saturation": "OvfNaN"}, "checks the range before rounding: all that is beyond the largest value overflows",
    ),
    (
        lambda x: np.clip(x, -57344, 57344).astype(ml_dtypes.float8_e5m2), "float8_e5m2", {"laws": ["specials"]},
        "saturates by SatFinite instead of SatNone",
    ),
    (lambda x: x.astype(ml_dtypes.float4_e2m1fn), "float4_e2m1fn", {"laws": ["specials"]}, "a NaN becomes a zero of"),
]  # fmt: skip
"""Functions, formats, options of the check, and what is wrong."""


@pytest.mark.parametrize(("fn", "name", "options", "cause"), WRITTEN, ids=[cause for *_, cause in WRITTEN])
def test_written_fault(fn: Callable[..., Any], name: str, options: dict[str, Any], cause: str) -> None:
    """What people write and take for a rounding is refuted, and the first cause that is named is the mistake."""
    verdict = check_quantizer(fn, name, **options)
    assert verdict.outcome is Outcome.REFUTED
    assert named(verdict)[0].removeprefix("in part: ").startswith(cause)  # one of two, perhaps


def test_right_functions() -> None:
    """The same functions are right about what they are meant for, and so is ml_dtypes from each type."""
    assert_quantizer(to_bfloat16, "bfloat16", codes=True, laws=set(LAWS) - {"specials"})
    assert_quantizer(wrapped, "int8", saturation="wrap")
    assert_quantizer(lambda x: np.clip(rint(x), -128, 127).astype(np.int8), "int8", codes=True)
    for dtype in (np.float16, ml_dtypes.bfloat16, np.float32):
        for name, rule in (("float8_e4m3fn", "OvfNaN"), ("float8_e5m2", "SatNone"), ("float8_e5m2fnuz", "OvfNaN")):
            kind = getattr(ml_dtypes, name)
            assert_quantizer(lambda x, kind=kind: x.astype(kind), name, saturation=rule, dtype=dtype)  # fmt: skip


def test_double_rounding_of_a_peer() -> None:
    """ml_dtypes converts a float64 by way of float32 (its issue 401): the check finds it, or holds once it is mended."""
    verdict = check_quantizer(
        lambda x: x.astype(ml_dtypes.float8_e4m3fn), "e4m3", saturation="OvfNaN", dtype=np.float64
    )
    if verdict.outcome is Outcome.REFUTED:
        assert named(verdict)[0] == "double rounding: goes through float32 first"


def test_right_peer() -> None:
    """Gfloat's stochastic modes hold element by element, with its own names; and SRC is not SRB."""

    def peer(x: np.float32, rbits: int) -> float:
        kept = round_float(format_info_ocp_e5m2, float(x), RoundMode.Stochastic, sat=False, srbits=rbits, srnumbits=3)
        return float(kept)

    options = {"sr_bits": 3, "examples": 64, "laws": ["thresholds", "words", "moments"]}
    assert_quantizer(elementwise(peer), "float8_e5m2", "SRC", **options)
    verdict = check_quantizer(elementwise(peer), "float8_e5m2", "SRB", **options)
    assert named(verdict)[0] == "rounds by SRC (StochasticC) instead of SRB"


@pytest.mark.parametrize(
    ("change", "cause"),
    [
        (lambda r: r | 0x100, "bit 8 of the word is always 1"),
        (lambda r: r & 0xFFFB, "bit 2 of the word is always 0"),
        (lambda r: np.minimum(r, 0xFFFE), "never uses the last word, but the one before"),
        (lambda r: r ^ 0x8000, "uses the word with its top bit inverted, as if it were a signed number"),
        (lambda r: (r >> 8) | (r & 0xFF) << 8, "uses the word with its bytes reversed"),
    ],
)
def test_faulty_word(change: Callable[..., Any], cause: str) -> None:
    """A source of words with a stuck bit, or one that is read otherwise than it is written, is found by its answers."""
    right = device("e4m3", "SRA", 16)

    def worn(x: np.ndarray, rbits: np.ndarray) -> np.ndarray:
        return right(x, change(rbits))

    assert named(check_quantizer(worn, "e4m3", "SRA", sr_bits=16, codes=True))[0] == cause


def test_unknown_fault() -> None:
    """A fault that nobody thought of is refuted as well, and no cause is made up for it."""
    right = device("e4m3")
    verdict = check_quantizer(lambda x: right(x * np.float32(1 / 448) * np.float32(448)), "e4m3", codes=True)
    assert verdict.outcome is Outcome.REFUTED
    assert named(verdict)[0] == "none of the known faults gives this answer"


def test_no_false_cause() -> None:
    """A cause that a few wrong answers suggest, but others contradict, is not named: here bits of subnormals are lost."""
    right = device("e4m3")

    def no_jam(x: np.ndarray) -> np.ndarray:
        """Shift the significands of subnormals right, and drop what leaves the word."""
        step = np.float32(2.0**-6 * 2.0**-23)
        low = np.abs(x) < 2.0**-6
        return right(np.where(low, np.trunc(np.where(low, x, 0) / step) * step, x))

    def keeps_half(x: np.ndarray) -> np.ndarray:
        """Round nine tenths of all ties away from zero, and no others: no known fault."""
        tie = x.view(np.uint32) & np.uint32(0xFFFFF) == 0x80000
        odd = (x.view(np.uint32) >> np.uint32(24)) % 8 != 1
        return np.where(tie & odd, device("e4m3", fault="ties away")(x), right(x))

    verdict = check_quantizer(no_jam, "e4m3", codes=True)
    assert named(verdict)[:1] == ["subnormals: the bits that are shifted out do not reach the sticky bit"]
    verdict = check_quantizer(keeps_half, "e4m3", codes=True)
    assert named(verdict)[:1] == ["none of the known faults gives this answer"]


@pytest.mark.parametrize(
    ("mode", "fault", "cause"),
    [
        ("RNE", lambda x: _patterned(x, ~1), "bit 0 of the input is not looked at"),
        ("RNE", lambda x: _patterned(x, ~(1 << 7)), "bit 7 of the input is not looked at"),
        ("SRA", lambda _, r: r & ~8 | (r >> 2 & 1) << 3, "bit 3 of the word reads bit 2"),
        (
            "SRA",
            lambda x, r: np.where(x < 0, 255 - r, r),
            "for negative numbers the word is complemented (floor(x + u)",
        ),
        (
            "SRA",
            lambda x, r: np.where(x < 0, _turned(r), r),
            "uses the word with its bits reversed, negative numbers only",
        ),
        ("SRA", lambda x, r: np.where(x < 0, r | 4, r), "bit 2 of the word is always 1, negative numbers only"),
        ("SRA", lambda x, r: np.where(x > 0, r & ~4, r), "bit 2 of the word is always 0, positive numbers only"),
    ],
)
def test_faulty_wire(mode: str, fault: Callable[..., Any], cause: str) -> None:
    """A wire of the input or of the word that is missing or is another one, for one sign at least, is named."""
    right = device("e4m3", mode, 8)
    if mode == "RNE":
        verdict = check_quantizer(lambda x: right(fault(x)), "e4m3", codes=True)
    else:
        verdict = check_quantizer(
            lambda x, rbits: right(x, fault(x, rbits.astype(np.int64))), "e4m3", "SRA", sr_bits=8, codes=True
        )
    assert named(verdict)[0].startswith(cause)
    assert named(verdict)[1].startswith("this gives all")


def _patterned(x: np.ndarray, mask: int) -> np.ndarray:
    """Return finite numbers with some bits of their patterns cleared."""
    return np.where(np.isfinite(x), (x.view(np.int32) & np.int32(mask)).view(np.float32), x)


def _turned(r: np.ndarray) -> np.ndarray:
    """Return words of eight bits with their bits reversed."""
    return sum(((r >> k) & 1) << (7 - k) for k in range(8))


def test_round_bit_is_missed() -> None:
    """A sticky bit that does not collect the bit after the guard bit is named."""
    right, fmt = device("e4m3"), get_format("e4m3")

    def without(x: np.ndarray) -> np.ndarray:
        with np.errstate(all="ignore"):
            step = np.exp2(np.maximum(np.floor(np.log2(np.abs(x.astype(np.float64)))), fmt.emin) - 3)
            t = np.abs(x) / step
            bare = (t - np.floor(t * 4) % 2 / 4) * step
        inside = np.isfinite(bare) & (np.abs(x) <= fmt.max)
        return right(np.where(inside, np.copysign(bare, x), x).astype(np.float32))

    verdict = check_quantizer(without, "e4m3", codes=True, laws=["thresholds", "subnormals"])
    assert named(verdict)[:1] == ["the sticky bit misses the round bit, the second of the discarded ones"]


@pytest.mark.parametrize("nan", [0, -(2**31)])
def test_int32_overflow(nan: int) -> None:
    """An int8 that is converted by way of int32, whose overflow is the smallest value, is named."""

    def through(x: np.ndarray) -> np.ndarray:
        y = np.rint(x.astype(np.float64))
        lost = (y >= 2**31) | (y < -(2**31))
        return np.clip(np.where(np.isnan(y), nan, np.where(lost, -(2**31), y)), -128, 127) + 0.0

    end = ", and a NaN, becomes" if nan else " becomes"
    assert named(check_quantizer(through, "int8"))[:1] == [
        f"goes through int32: what overflows there{end} the smallest value"
    ]


def test_payload_in_the_low_bits() -> None:
    """A NaN test that looks at the upper half of a float32 only is told from one that rounds the pattern of a NaN."""

    def upper_half(x: np.ndarray) -> np.ndarray:
        u = x.view(np.uint32).astype(np.int64)
        nan, infinite = (u & 0x7FFF0000) > 0x7F800000, (u & 0x7FFF0000) == 0x7F800000
        return np.where(nan, 0x7FC0, np.where(infinite, u >> 16, (u + 0x7FFF + (u >> 16 & 1)) >> 16))

    verdict = check_quantizer(upper_half, "bfloat16", codes=True)
    assert named(verdict)[:1] == ["a NaN of whose payload none of the bits kept is set becomes infinity"]


def test_signed_underflow() -> None:
    """A sign bit that is set where a negative number rounds to zero, but not of -0, is named in a format without -0."""

    def or_ed(x: np.ndarray) -> np.ndarray:
        code = arrays.encode(x, "float8_e4m3fnuz").astype(np.int64)
        return np.where((code == 0) & (x < 0), 0x80, code)

    verdict = check_quantizer(or_ed, "float8_e4m3fnuz", codes=True)
    assert named(verdict)[0].startswith("sets the sign bit of a negative number that rounds to zero")


def test_several_faults() -> None:
    """Of a device with two faults each is named, with the number of wrong answers that it gives."""
    ties, nans = device("e4m3", fault="ties away"), device("e4m3", fault="NaN becomes 0")
    verdict = check_quantizer(lambda x: np.where(np.isnan(x), nans(x), ties(x)), "e4m3", codes=True)
    text = unwrapped(verdict)
    assert re.search(r"ties go away from zero \(RNA instead of RNE\) \([\d,]+ of [\d,]+ wrong answers\)", text)
    assert re.search(r"a NaN becomes 0 \([\d,]+ of [\d,]+ wrong answers\)", text)
    assert "but these together do" in text


def test_small_parts_are_left_out() -> None:
    """What gives few of the wrong answers is no cause of the rest: it is not told."""
    ties = device("e4m3", fault="ties away")
    verdict = check_quantizer(lambda x: np.where(np.abs(x) > 1, ties(x) ^ 4, ties(x)), "e4m3", codes=True)
    assert named(verdict)[:1] == ["none of the known faults gives this answer"]


@pytest.mark.parametrize(
    ("word_of", "cause"),
    [
        (lambda i: 0 * i, "every element takes the word of the first one"),
        (lambda i: i & ~1, "the elements of a pair share the word of the first"),
        (lambda i: i[::-1], "the words are taken from the last to the first"),
        (lambda i: np.roll(i, 5), "the answer depends on the other elements of the array"),
    ],
)
def test_words_of_others(word_of: Callable[..., Any], cause: str) -> None:
    """A device that gives words to the wrong elements is refuted, and said to be right about one number alone."""
    right = device("e4m3", "SRA", 8)

    def shared(x: np.ndarray, rbits: np.ndarray) -> np.ndarray:
        return right(x, rbits[word_of(np.arange(len(x)))])

    verdict = check_quantizer(shared, "e4m3", "SRA", sr_bits=8, codes=True)
    assert named(verdict)[0].startswith(cause)
    assert "alone, in an array of one number, it is right" in unwrapped(verdict)


@pytest.mark.parametrize("width", [2, 8, 16, 32])
def test_tail(width: int) -> None:
    """A loop over full groups that leaves the rest of an array as it is, is refuted, and the group is named."""
    right, stochastic = device("e4m3"), device("e4m3", "SRA", 8)

    def grouped(x: np.ndarray) -> np.ndarray:
        y, full = right(x), len(x) // width * width
        y[full:] = 0
        return y

    def with_words(x: np.ndarray, rbits: np.ndarray) -> np.ndarray:
        y, full = stochastic(x, rbits), len(x) // width * width
        y[full:] = 0
        return y

    for verdict in (
        check_quantizer(grouped, "e4m3", codes=True, laws=["lengths"]),
        check_quantizer(with_words, "e4m3", "SRA", sr_bits=8, codes=True, laws=["lengths"]),
    ):
        assert verdict.outcome is Outcome.REFUTED
        assert f"of n elements the last n modulo {width}, after the last full group of {width}" in unwrapped(verdict)
        assert "reproduce: " in verdict.counterexample


def test_short_arrays() -> None:
    """A path of its own for short arrays, or for one length, is seen, with words of its own as well."""
    right, rng = device("e4m3"), np.random.default_rng(0)
    few = check_quantizer(lambda x: right(x) * (len(x) > 3), "e4m3", codes=True)
    assert "arrays of up to 3 elements are treated otherwise than longer ones" in unwrapped(few)
    one = check_quantizer(lambda x: right(x) * (len(x) != 33), "e4m3", codes=True)
    assert "it is wrong at the lengths 33, right in a long one" in unwrapped(one)
    assert "alone, in an array of one number, it is right" in unwrapped(one)
    sr = device("e4m3", "SRA", 8)
    own = check_quantizer(
        lambda x: sr(x, rng.integers(0, 256, len(x))) * (len(x) != 5), "e4m3", "SRA", sr_bits=8, codes=True
    )
    assert own.outcome is Outcome.REFUTED


def test_every_eighth_element() -> None:
    """Where all wrong elements have the same index modulo a power of two, that is said."""
    right = device("e4m3", "SRA", 8)

    def shared(x: np.ndarray, rbits: np.ndarray) -> np.ndarray:
        i = np.arange(len(x))
        return right(x, rbits[np.where(i % 8 == 7, i - 1, i)])

    text = unwrapped(check_quantizer(shared, "e4m3", "SRA", sr_bits=8, codes=True))
    assert "wrong are only elements i with i modulo 8 = 7" in text


def test_random_word_is_right_on_average() -> None:
    """A reversed word breaks no moment: the verdict says that bias and variance are right, and the bits are not."""
    verdict = check_quantizer(device("e4m3", "SRA", 8, "word reversed"), "e4m3", "SRA", sr_bits=8, codes=True)
    assert "as many words go away from zero as should" in verdict.counterexample
    verdict = check_quantizer(
        device("e4m3", "SRA", 8, "word reversed"), "e4m3", "SRA", sr_bits=8, codes=True, laws=["moments"]
    )
    assert verdict.outcome is Outcome.HELD


# --- The failure -----------------------------------------------------------------------------------------------------


def test_shrunk_and_reproduced() -> None:
    """The failure shown is the simplest, and the line that reproduces it does so when it is run."""
    away = device("e4m3", fault="ties away")
    verdict = check_quantizer(away, "e4m3", codes=True)
    first, call, *_ = verdict.counterexample.splitlines()
    assert first == "thresholds: 1.0625 becomes code 0x39 (1.125), it should be code 0x38 (1)"
    assert call == "reproduce: unit_under_test(np.array([1.0625], np.float32))"
    assert eval(call.removeprefix("reproduce: "), {"np": np, "unit_under_test": away}) == 0x39  # noqa: S307 - our own line
    late = device("e4m3", "SRA", 8, "greater")
    verdict = check_quantizer(late, "e4m3", "SRA", sr_bits=8, codes=True)
    first, call, *_ = verdict.counterexample.splitlines()
    assert first == (
        "thresholds: 1.0625 with the word 128 of 8 bits becomes code 0x38 (1), it should be code 0x39 (1.125)"
    )
    assert eval(call.removeprefix("reproduce: "), {"np": np, "stochastic_unit": late}) == 0x38  # noqa: S307 - our own line


@pytest.mark.parametrize("dtype", [np.float32, ml_dtypes.bfloat16])
def test_special_failure_is_reproduced(dtype: Any) -> None:
    """A NaN is written as its pattern, since there are many; that of fewest bits is shown."""
    verdict = check_quantizer(
        lambda x: np.where(np.isnan(x), 0, x).astype(ml_dtypes.float8_e4m3fn), "e4m3", saturation="OvfNaN", dtype=dtype
    )
    call = verdict.counterexample.splitlines()[1].removeprefix("reproduce: ")
    array = eval(call.removeprefix("<lambda>"), {"np": np, "ml_dtypes": ml_dtypes})  # noqa: S307 - our own line
    assert array.dtype == dtype
    assert np.isnan(exactly(array)).all()


def test_no_word_is_known() -> None:
    """Without `rbits` only what holds for every word is checked; a result that is no neighbour is seen all the same."""
    rng = np.random.default_rng(3)
    right, moving = device("e4m3", "SRA", 8), device("e4m3", "SRA", 8, "word plus one")
    verdict = check_quantizer(lambda x: right(x, rng.integers(0, 256, len(x))), "e4m3", "SRA", sr_bits=8, codes=True)
    assert verdict.outcome is Outcome.HELD
    unknown = "not testable here: words unknown (thresholds, monotone, symmetric, words, word order, moments)"
    assert unknown in verdict.covered
    assert "not tried: other inputs than these" in verdict.covered
    verdict = check_quantizer(lambda x: moving(x, rng.integers(0, 256, len(x))), "e4m3", "SRA", sr_bits=8, codes=True)
    assert verdict.outcome is Outcome.REFUTED
    assert verdict.counterexample.startswith("fixed points: ")
    assert "moves values that are exact away from zero" in unwrapped(verdict)
    verdict = check_quantizer(lambda x: right(x, x), "e4m3", "SRA", sr_bits=8, codes=True, laws=["moments", "words"])
    assert verdict.outcome is Outcome.NOT_TESTABLE


# --- Each law --------------------------------------------------------------------------------------------------------


def broken_laws(verdict: Verdict) -> set[str]:
    """Return the laws that a verdict says are broken."""
    text = unwrapped(verdict)
    listed = text.partition("laws broken: ")[2].partition("as many words")[0]
    return set(re.findall(r"(?:^|, )([a-z ]+) \(", listed))


@pytest.mark.parametrize(
    ("mode", "fault", "laws"),
    [
        ("RNE", "", set()),
        ("SRA", "", set()),
        ("RNE", "ties away", {"thresholds", "subnormals", "edges"}),
        ("RNE", "carry lost", {"neighbours", "thresholds", "subnormals", "edges", "saturation", "monotone"}),
        ("RNE", "overflow becomes 0", {"saturation", "monotone"}),
        ("RNE", "zero loses its sign", {"sign of zero"}),
        ("RNE", "NaN becomes 0", {"specials"}),
        ("RNE", "negative side floors", {"thresholds", "subnormals", "edges", "symmetric"}),
        ("RNE", "subnormals shifted too far", {"neighbours", "fixed points", "subnormals", "edges", "idempotent"}),
        ("SRA", "word reversed", {"thresholds", "subnormals", "edges", "words", "word order"}),
        ("SRA", "greater", {"thresholds", "subnormals", "edges", "words", "moments"}),
    ],
)  # fmt: skip
def test_laws_apart(mode: str, fault: str, laws: set[str]) -> None:
    """Each law sees its own faults, and no others: a lost sign of zero breaks one law, ties break no neighbours."""
    fn, n = device("e4m3", mode, 8, fault), 8 if mode == "SRA" else None
    assert broken_laws(check_quantizer(fn, "e4m3", mode, sr_bits=n, codes=True)) == laws


def test_nan_is_in_no_order() -> None:
    """A NaN that becomes -0 in a format without NaN breaks what is said of NaNs, and no order of numbers."""
    verdict = check_quantizer(lambda x: x.astype(ml_dtypes.float4_e2m1fn), "float4_e2m1fn")
    assert broken_laws(verdict) == {"specials"}


def test_one_law() -> None:
    """A law asked for alone is the one that is checked: it refutes what breaks it, and holds for the rest."""
    fn = device("e4m3", fault="carry lost")
    for law in ("neighbours", "thresholds", "subnormals", "edges", "saturation", "monotone"):
        assert broken_laws(check_quantizer(fn, "e4m3", codes=True, laws=law, examples=0)) == {law}
    rest = {"fixed points", "specials", "sign of zero", "idempotent", "symmetric"}
    assert check_quantizer(fn, "e4m3", codes=True, laws=rest).outcome is Outcome.HELD


def test_nan_policies() -> None:
    """The canonical NaN has no sign, a signed one that of its input, and by default any will do."""
    kept = device("e4m3")  # whose NaN is 0x7f

    def signed(x: np.ndarray) -> np.ndarray:
        return np.where(np.isnan(x) & np.signbit(x), 0xFF, kept(x))

    held = {
        (name, nan)
        for name, fn in (("kept", kept), ("signed", signed))
        for nan in ("any", "canonical", "signed")
        if check_quantizer(fn, "e4m3", codes=True, nan=nan).outcome is Outcome.HELD
    }
    assert held == {("kept", "any"), ("kept", "canonical"), ("signed", "any"), ("signed", "signed")}
    verdict = check_quantizer(signed, "e4m3", codes=True, nan="canonical")
    assert named(verdict)[0] == "a NaN keeps its sign"


def test_invalid_codes() -> None:
    """A code beyond the format, or of no value, is wrong; negative codes are read in two's complement."""
    right = device("e4m3")
    for offset in (256, -256 - 128):
        verdict = check_quantizer(lambda x, offset=offset: right(x) + offset, "e4m3", codes=True)
        assert "which nothing has: wrong" in verdict.counterexample
    assert_quantizer(lambda x: right(x).astype(np.uint8).view(np.int8), "e4m3", codes=True)
    verdict = check_quantizer(lambda x: np.full(len(x), 2), "ternary", codes=True)
    assert "code 0x2 = 10, which nothing has: wrong" in verdict.counterexample


# --- Our own kernels -------------------------------------------------------------------------------------------------


def kernel(fmt: Format, mode: Mode, rule: Saturation, n: int, *, codes: bool, **options: Any) -> Callable[..., Any]:
    """Return `qsim.quantize` or `qsim.encode` as a user would give it to the check."""
    convert = arrays.encode if codes else arrays.quantize

    def stochastic(x: np.ndarray, rbits: np.ndarray) -> np.ndarray:
        return convert(x, fmt, mode, sr_bits=n, rbits=rbits, saturation=rule, **options)

    def deterministic(x: np.ndarray) -> np.ndarray:
        return convert(x, fmt, mode, saturation=rule, **options)

    return stochastic if mode.stochastic else deterministic


def hold_kernel(fmt: Format, mode: Mode, rule: Saturation, dtype: Any, n: int, *, codes: bool, **options: Any) -> None:
    """Hold our kernel to all laws."""
    if mode is Mode.THR:
        options["eps"] = 0.25
    fn = kernel(fmt, mode, rule, n, codes=codes, **options)
    bits = n if mode.stochastic else None
    assert_quantizer(fn, fmt, mode, sr_bits=bits, saturation=rule, codes=codes, dtype=dtype, examples=128, **options)


@pytest.mark.parametrize("fmt", SMALL, ids=str)
def test_kernels_of_small_formats(fmt: Format) -> None:
    """All modes hold for every small format, from float32 where it holds the format, values and codes in turns."""
    dtype = FLOAT32 if held(FLOAT32, fmt) else FLOAT64
    for i, mode in enumerate(Mode):
        rules = saturations(fmt)
        hold_kernel(
            fmt, mode, rules[i % len(rules)], dtype, 5 if mode in LIMITED else 8 * dtype.itemsize, codes=i % 2 == 0
        )


@pytest.mark.exhaustive
@pytest.mark.parametrize("dtype", [np.dtype(np.float16), np.dtype(ml_dtypes.bfloat16), FLOAT32, FLOAT64], ids=str)
@pytest.mark.parametrize("fmt", SMALL, ids=str)
def test_kernels_in_full(fmt: Format, dtype: np.dtype) -> None:
    """All modes hold for every small format under every saturation rule, from every type, flushed or not."""
    for mode in Mode:
        for rule in (
            saturations(fmt) if dtype.itemsize > 2 else saturations(fmt)[:1]
        ):  # of 16 bits all numbers are tried
            for flushed, nan in ((False, "canonical"), (True, "signed")):
                n = 8 if mode in LIMITED else 64 if dtype == FLOAT64 else 32
                hold_kernel(fmt, mode, rule, dtype, n, codes=True, ftz_in=flushed, ftz_out=flushed, nan=nan)


@pytest.mark.parametrize(
    ("name", "mode", "n"),
    [("bfloat16", "RNE", 0), ("float16", "SRC", 6), ("Q7.8", "RUP", 0), ("tf32", "RTO", 0), ("int24", "SRB", 4)],
)
def test_kernels_of_wide_formats(name: str, mode: str, n: int) -> None:
    """Formats of 16 bits are checked at every threshold, wider ones at a choice of them."""
    fmt = get_format(name)
    dtype = FLOAT32 if held(FLOAT32, fmt) else FLOAT64
    hold_kernel(fmt, Mode[mode], saturations(fmt)[0], dtype, n, codes=False)


@pytest.mark.parametrize(
    ("mode", "n"), [("SR", 64), ("SRA", 64), ("SRA", 63), ("SRB", 40), ("SRC", 62), ("SRE", 64), ("SRA", 0)]
)
def test_kernels_with_long_words(mode: str, n: int) -> None:
    """Words of any number of bits are compared exactly."""
    fmt = get_format("e4m3")
    hold_kernel(fmt, Mode[mode], saturations(fmt)[0], FLOAT64, n, codes=True)


# --- The oracle ------------------------------------------------------------------------------------------------------

WIDE = [*map(get_format, ("bfloat16", "float16", "tf32", "int24", "Q0.31", "dlfloat16", "float32", "UQ8.8"))]


@given(st.data())
def test_oracle_is_the_reference(data: st.DataObject) -> None:
    """Both answers to a number, and the word at which one gives way to the other, are those of `reference.encode`."""
    fmt = data.draw(st.sampled_from([*SMALL, *WIDE]))
    mode = data.draw(st.sampled_from(list(Mode)))
    rule = data.draw(st.sampled_from(saturations(fmt)))
    n = data.draw(st.integers(mode is Mode.SR, 64)) if mode.stochastic else 0
    eps = data.draw(st.sampled_from([0.0, 0.25, 0.5, 0.7, 2.0**-12])) if mode is Mode.THR else 0.0
    ftz_out, nan = data.draw(st.booleans()), data.draw(st.sampled_from(["canonical", "signed"]))
    x = data.draw(st.lists(inputs(fmt, FLOAT64).map(float), min_size=1, max_size=8))
    array = np.array(x)
    at = oracle.place(fmt, array, wrap=rule is Saturation.wrap)
    found = oracle.expect(fmt, mode, rule, array, at, n=n, eps=eps, ftz_out=ftz_out, nan=nan)
    for i, value in enumerate(x):
        turn, last = int(found.first_word[i]), (1 << n) - 1
        for word in {0, last, min(max(turn - 1, 0), last), min(turn, last)}:
            right = reference.encode(
                value, fmt, mode, sr_bits=n, rbits=word, eps=eps, saturation=rule, ftz_out=ftz_out, nan=nan
            )
            assert (found.outer[i] if word >= turn else found.inner[i]) == right


@pytest.mark.parametrize("mode", [mode for mode in Mode if mode.stochastic])
@pytest.mark.parametrize("n", [1, 2, 6, 9, 62, 63, 64])
def test_first_words(mode: Mode, n: int) -> None:
    """The word at which a number turns is right at every 1024th of an interval, and just beside it."""
    fmt = get_format("int8")
    x = np.arange(1024) / 1024 + 3
    x = np.concatenate([x, np.nextafter(x, np.inf), np.nextafter(x, -np.inf)])
    at = oracle.place(fmt, x)
    first = oracle.expect(fmt, mode, Saturation.saturate, x, at, n=n).first_word
    for value, turn in zip(x.tolist(), first.tolist(), strict=True):
        nu, last = Fraction(value) % 1, (1 << n) - 1
        for word in {max(turn - 1, 0), min(turn, last)}:
            assert reference.away(mode, nu, odd=True, negative=False, sr_bits=n, rbits=word) == (word >= turn)


def test_oracle_uses_no_kernel() -> None:
    """A check runs without numba: what it says of our kernels it does not know from them."""
    code = (
        "import sys, numpy as np; from qsim.testing import check_quantizer;"
        "print(check_quantizer(np.rint, 'int8').outcome, any('numba' in name for name in sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["refuted", "False"]


# --- Inputs and strategies -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("fmt", SMALL, ids=str)
def test_every_threshold_is_tried(fmt: Format) -> None:
    """On either side of every midpoint that float32 separates from its neighbours stand two float32s with nothing between."""
    tried = make_inputs(fmt, FLOAT32, (Fraction(0), Fraction(1, 2)), 0, 0)
    numbers = tried.exact[~np.isnan(tried.exact)]
    assert (np.diff(numbers) >= 0).all()
    assert np.array_equal(numbers, -numbers[::-1])
    known = set(numbers.tolist())
    for ordinal in range(-fmt.bottom, fmt.top):
        middle = (fmt.value(ordinal) + fmt.value(ordinal + 1)) / 2
        near = np.float32(float(middle))
        if np.isfinite(near):
            around = {float(np.nextafter(near, np.float32(side))) for side in (-np.inf, np.inf)}
            assert {float(near), *around} <= known


def test_inputs_are_fixed() -> None:
    """The same seed gives the same inputs, another seed others; 16-bit types are tried in full."""
    fmt, shares = get_format("e4m3"), (Fraction(0), Fraction(1, 2))
    first, again, other = (make_inputs.__wrapped__(fmt, FLOAT32, shares, seed, 100).x for seed in (0, 0, 1))
    assert np.array_equal(first.view(np.uint32), again.view(np.uint32))
    assert not np.array_equal(first.view(np.uint32), other.view(np.uint32))
    assert len(make_inputs(fmt, np.dtype(np.float16), shares, 0, 0).x) == 1 << 16


@pytest.mark.parametrize("dtype", [np.float16, ml_dtypes.bfloat16, np.float32, np.float64])
def test_step(dtype: Any) -> None:
    """A step is that of nextafter, through zero and up to the infinities."""
    x = _every(np.dtype(dtype))
    for side, steps in ((np.inf, 1), (-np.inf, -1)):
        with np.errstate(over="ignore"):
            assert np.array_equal(step(x, steps), np.nextafter(x, np.dtype(dtype).type(side)))


def _every(dtype: np.dtype) -> np.ndarray:
    """Return numbers of all sizes, no NaN."""
    if dtype.itemsize == 2:
        x = np.arange(1 << 16, dtype=np.uint16).view(dtype)
    else:
        x = np.random.default_rng(0).integers(0, 1 << 64, 10_000, np.uint64).astype(f"u{dtype.itemsize}").view(dtype)
    special = np.array([0.0, -0.0, np.inf, -np.inf]).astype(dtype)
    return np.concatenate([x[~np.isnan(exactly(x))], special, step(special, -1), step(special, 1)])


@given(st.data())
def test_strategies(data: st.DataObject) -> None:
    """Formats are as wide as asked, their codes stand for something, numbers have the type, words their bits."""
    bits = data.draw(st.integers(2, 16))
    fmt = data.draw(qst.formats(bits))
    assert fmt.bits <= bits
    narrow = data.draw(qst.formats(bits, kinds=("float", "table"), dtype=np.float16))
    assert narrow.kind in ("float", "table")
    assert (
        narrow.values()[~np.isnan(narrow.values())].astype(np.float16) == narrow.values()[~np.isnan(narrow.values())]
    ).all()
    assert fmt.is_code(data.draw(qst.codes(fmt)))
    dtype = data.draw(st.sampled_from([np.float16, ml_dtypes.bfloat16, np.float32, np.float64]))
    x = data.draw(qst.values(fmt, dtype))
    assert x.dtype == dtype
    n = data.draw(st.integers(0, 64))
    assert 0 <= data.draw(qst.words(n)) < 1 << n


@pytest.mark.parametrize(
    ("what", "message"),
    [
        (lambda: qst.formats(17), "max_bits = 17 must be 1 to 16"),
        (lambda: qst.formats(8, kinds=["posit"]), "no format is of the kind 'posit'"),
        (lambda: qst.formats(8, kinds=()), "no format is of the kind ''; it is one of float, integer, fixed, table"),
        (lambda: qst.words(65), "bits = 65: a random word has 0 to 64"),
        (lambda: qst.values("e4m3", np.int32), "numbers of float16, bfloat16, float32 or float64 go in, not of int32"),
    ],
)  # fmt: skip
def test_strategies_refuse(what: Callable[[], Any], message: str) -> None:
    """A strategy that nothing could come of is refused."""
    with pytest.raises(InputError, match=re.escape(message)):
        what()


def test_strategies_name_what_they_need() -> None:
    """Without Hypothesis the rest of the pack works, and the strategies say what to install."""
    code = (
        "import sys; sys.modules['hypothesis'] = None; import qsim.testing\n"
        "try: import qsim.testing.strategies\n"
        "except ModuleNotFoundError as error: print(error)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "pip install 'qsim-numerics[testing]'" in done.stdout


def test_example() -> None:
    """The file that a user would copy passes, and fails with an explanation when its quantizer is broken."""
    path = ROOT / "examples" / "test_my_quantizer.py"
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-c", os.devnull, "--rootdir"]
    done = subprocess.run([*command, str(path.parent), str(path)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout
    assert "7 passed" in done.stdout


def test_broken_example(tmp_path: Path) -> None:
    """A user who breaks ties otherwise reads so in the output of pytest."""
    source = (ROOT / "examples" / "test_my_quantizer.py").read_text(encoding="utf-8")
    broken = source.replace("2 * rest + (kept & 1) > unit", "2 * rest >= unit")
    assert broken != source
    path = tmp_path / "test_my_quantizer.py"
    path.write_text(broken, encoding="utf-8")
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-c", os.devnull, "-k", "nearest"]
    done = subprocess.run(
        [*command, "--rootdir", str(tmp_path), str(path)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 1
    assert "ties go away from zero (RNA instead of RNE)" in done.stdout


class Unwilling:
    """Stand for a tensor on a device, of which NumPy makes no array."""

    def __array__(self, dtype: Any = None, copy: Any = None) -> np.ndarray:
        """Refuse."""
        raise TypeError("use Tensor.cpu()")


# --- What is refused -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"mode": "SRA"}, "SRA needs sr_bits"),
        ({"sr_bits": 8}, "sr_bits = 8 with RNE: RNE takes no random bits"),
        ({"fn": lambda x: arrays.encode(x, "e4m3")}, "if they are codes, say codes=True"),
        ({"fn": lambda x: arrays.quantize(x, "e4m3"), "codes": True}, "for values, leave codes out"),
        ({"fn": lambda _: object()}, "returned a object, of which NumPy makes no array"),
        ({"fn": lambda _: 0.0}, "returned an array of shape () for one of shape"),
        ({"fn": lambda _: Unwilling()}, "returned a Unwilling, of which NumPy makes no array: use Tensor.cpu()"),
        ({"fn": lambda x: np.random.default_rng().choice([0, 1.0], len(x))}, "answered the same numbers differently"),
        ({"mode": "SRA", "sr_bits": 65}, "sr_bits = 65 with SRA"),
        ({"mode": "SR", "sr_bits": 0}, "sr_bits = 0 with SR"),
        ({"mode": "THR"}, "eps = None with THR"),
        ({"eps": 0.5}, "eps = 0.5 with RNE"),
        ({"mode": "THR", "eps": 1.5}, "eps = 1.5 must be a number"),
        ({"laws": ["threshold"]}, "no law is called 'threshold'; did you mean thresholds"),
        ({"laws": ["moments"]}, "no law is left for RNE"),
        ({"nan": "quiet"}, "nan = 'quiet'"),
        ({"dtype": np.int8}, "numbers of float16, bfloat16, float32 or float64 go in, not of int8"),
        ({"examples": -1}, "examples = -1"),
        ({"fmt": "float64"}, "float64 has 64 bits"),
        ({"fmt": "Binary12p1ue"}, "reaches beyond the range of a float64"),
        ({"saturation": "wrap"}, "wrap makes no sense for float8_e4m3fn"),
        ({"fn": 3}, "fn is of type int"),
        ({"fn": lambda x: x[:1]}, "returned an array of shape (1,) for one of shape"),
        ({"fn": lambda x: x, "codes": True}, "returned float32; codes are integers"),
        ({"fn": lambda x: x.astype("U")}, "values are real numbers"),
    ],
)  # fmt: skip
def test_refused(options: dict[str, Any], message: str) -> None:
    """What contradicts itself, and a result that is no array of numbers, is refused in one sentence."""
    arguments = {"fn": device("e4m3"), "fmt": "e4m3", **options}
    with pytest.raises(InputError, match=re.escape(message)):
        check_quantizer(arguments.pop("fn"), arguments.pop("fmt"), **arguments)


def test_errors_of_the_quantizer() -> None:
    """An exception of the quantizer's own comes through, with a note of what it was given."""

    def fails(x: np.ndarray) -> np.ndarray:
        raise KeyError("mine")

    with pytest.raises(KeyError) as caught:
        check_quantizer(fails, "e4m3")
    assert re.fullmatch(
        r"fails was given [\d,]+ numbers of float32, NaNs and infinities among them", caught.value.__notes__[0]
    )


def test_assertion() -> None:
    """The asserting twin says nothing of a right quantizer, and raises the whole explanation of a wrong one."""
    assert_quantizer(device("e4m3"), "e4m3", codes=True)
    with pytest.raises(AssertionError, match="ties go away from zero") as caught:
        assert_quantizer(device("e4m3", fault="ties away"), "e4m3", codes=True)
    assert str(caught.value).startswith("refuted: thresholds: 1.0625 becomes")
    assert "covered: float8_e4m3fn:RNE, SatFinite, from float32" in str(caught.value)


def test_threshold_mode() -> None:
    """Threshold is checked at eps and at 1 - eps; one that measures from zero is told so."""

    def from_zero(x: np.ndarray) -> np.ndarray:
        whole = np.trunc(np.where(np.isfinite(x), x, 0))
        up = np.abs(np.where(np.isfinite(x), x, 0) - whole) > 0.25
        y = np.where(np.isinf(x), x, whole + np.where(up, np.sign(x), 0))
        return np.clip(np.where(np.isnan(x), 0, y), -128, 127) + 0.0

    verdict = check_quantizer(from_zero, "int8", "THR", eps=0.25)
    assert named(verdict)[0] == "measures the fraction from zero, not from the lesser neighbour"


def test_quantizer_may_write_into_its_input() -> None:
    """A function that works in place is none the wiser, and does no harm."""
    right = device("e4m3")

    def in_place(x: np.ndarray) -> np.ndarray:
        y = right(x)
        x[:] = 0
        return y

    assert_quantizer(in_place, "e4m3", codes=True)
