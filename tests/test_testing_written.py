"""Quantizers as people write them: the right ones hold, and of the others each is refuted by the fault it has."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from devices import device, named, unwrapped
from gfloat import RoundMode, round_float
from gfloat.formats import format_info_ocp_e5m2

from qsim import arrays
from qsim.formats import get_format
from qsim.testing import LAWS, assert_quantizer, check_quantizer, elementwise
from qsim.verdicts import Outcome

ROOT = Path(__file__).resolve().parents[1]


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


@pytest.mark.in_part(3)
@pytest.mark.parametrize(("fn", "name", "options", "cause"), WRITTEN, ids=[cause for *_, cause in WRITTEN])
def test_written_fault(fn: Callable[..., Any], name: str, options: dict[str, Any], cause: str) -> None:
    """What people write and take for a rounding is refuted, and the first cause that is named is the mistake, or one of two."""
    verdict = check_quantizer(fn, name, **options)
    assert verdict.outcome is Outcome.REFUTED
    first, *rest = named(verdict)
    both = [first, *rest] if first.startswith("in part: ") else [first]  # then the one that is shown comes first
    assert any(line.removeprefix("in part: ").startswith(cause) for line in both)


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


@pytest.mark.in_part(2)
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


@pytest.mark.in_part(2)
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
