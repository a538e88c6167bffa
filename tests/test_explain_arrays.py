"""The causes of many answers at once: a device's file, its right lines included; and bits in place of numbers."""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from fractions import Fraction
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from devices import device
from hypothesis import given
from hypothesis import strategies as st
from strategies import FLOAT32, FLOAT64, SMALL, inputs

import qsim
from qsim import arrays, reference
from qsim.errors import InputError
from qsim.explain import causes, common_causes, explain, make_case
from qsim.explain.faults import faults
from qsim.explain.lines import lines_of, make_lines
from qsim.explain.oracle import expect, place
from qsim.explain.search import Judged, diagnose
from qsim.rounding import Mode, saturations

LINES = 1 << 16


def file_of(count: int = LINES, bits: int = 8, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Return numbers of all sizes, special ones among them, and a random word for each."""
    rng = np.random.default_rng(seed)
    x = (rng.standard_normal(count) * 10.0 ** rng.integers(-4, 4, count)).astype(np.float32)
    x[:5] = [np.nan, np.inf, -np.inf, 0, -np.nan]
    return x, rng.integers(0, 1 << bits, count, np.uint32)


# --- Whole files -----------------------------------------------------------------------------------------------------

WORDS = {"word reversed": "uses the word with its bits reversed",
         "low bits": "uses the low 4 of the word's 8 bits instead of the top ones",
         "greater": "compares with > instead of >=, as if the word were one less",
         "fewer bits": "uses only the top 7 of the word's 8 bits: N is one smaller",
         "carry lost": "the carry does not reach the exponent: the significand wraps around to 0",
         "NaN becomes 0": "a NaN becomes 0"}  # fmt: skip
"""Faults of the device, and how they are named."""


@pytest.mark.parametrize(("fault", "name"), WORDS.items(), ids=WORDS)
def test_file_of_a_device(fault: str, name: str) -> None:
    """The fault of a device is the one cause of all 65,536 lines of its file, and is found in less than 2 s."""
    x, r = file_of()
    got = device("e4m3", "SRA", 8, fault)(x, r)
    causes(x[:64], got[:64], "e4m3", "SRA", sr_bits=8, rbits=r[:64])  # makes what is kept for later
    start = time.process_time()
    assert causes(x, got, "e4m3", "SRA", sr_bits=8, rbits=r) == [name]
    assert time.process_time() - start < 2


def test_right_file() -> None:
    """Nothing is the cause of right answers, and no known fault that of a line that nobody can explain."""
    x, r = file_of()
    got = device("e4m3", "SRA", 8)(x, r)
    assert causes(x, got, "e4m3", "SRA", sr_bits=8, rbits=r) == []
    got[777] ^= 6
    assert causes(x, got, "e4m3", "SRA", sr_bits=8, rbits=r) == []


def test_right_answers_contradict() -> None:
    """One right answer that a fault would have made another one is enough: it is no cause."""
    x, _ = file_of(bits=0)
    got = device("e4m3", fault="ties away")(x)
    assert causes(x, got, "e4m3") == []  # no tie is among them
    ties = np.array([1.0625, -1.0625, 1.1875, 2.125, -2.125], np.float32)
    got = device("e4m3", fault="ties away")(ties)
    assert "ties go away from zero (RNA instead of RNE)" in causes(ties, got, "e4m3")
    got[3] = 0x40
    assert "ties go away from zero (RNA instead of RNE)" not in causes(ties, got, "e4m3")
    inside = np.concatenate([ties, x])
    got = np.concatenate([device("e4m3", fault="ties away")(ties), device("e4m3")(x)])
    assert causes(inside, got, "e4m3") == ["ties go away from zero (RNA instead of RNE)"]


def test_file_with_several_faults() -> None:
    """Where no one fault gives all lines, those are told that give them together, each with the number of lines."""
    x, r = file_of()
    got = np.where(np.isfinite(x), device("e4m3", "SRA", 8, "word reversed")(x, r), 0)
    found = causes(x, got, "e4m3", "SRA", sr_bits=8, rbits=r)
    assert [name.rpartition(" (")[0] for name in found] == [
        "in part: uses the word with its bits reversed",
        "in part: an infinity becomes +0",
        "in part: a NaN becomes 0",
    ]
    counts = [int(re.search(r"\(([\d,]+) of", name)[1].replace(",", "")) for name in found]
    assert counts[0] > 10_000
    assert counts[1:] == [2, 2]


def test_values_and_other_types() -> None:
    """Values are answers as well as codes, from any type of number, and in any shape."""
    x, r = file_of(4096)
    kind = {"mode": "SRA", "sr_bits": 8}
    values = arrays.quantize(x, "e4m3", "SRA", sr_bits=8, rbits=255 - r)
    name = "uses the complemented word: goes away from zero for small words (rand < frac)"
    assert causes(x, values, "e4m3", **kind, rbits=r)[0] == name
    square = (64, 64)
    assert causes(x.reshape(square), values.reshape(square), "e4m3", **kind, rbits=r.reshape(square))[0] == name
    assert causes(x, values.astype(ml_dtypes.float8_e4m3fn), "e4m3", **kind, rbits=r)[0] == name
    for dtype in (np.float16, ml_dtypes.bfloat16, np.float64):
        with np.errstate(over="ignore"):
            y = x.astype(dtype)
        got = arrays.encode(y, "e4m3", "SRA", sr_bits=8, rbits=255 - r)
        assert causes(y, got, "e4m3", **kind, rbits=r)[0] == name
    away = arrays.quantize([1.0625, 1.1875, -1.0625, 1.03], "e4m3", "RNA")
    assert causes([1.0625, 1.1875, -1.0625, 1.03], away, "e4m3") == ["ties go away from zero (RNA instead of RNE)"]


def test_wide_formats() -> None:
    """Formats without a table of values, and words of 64 bits, do as well."""
    x, _ = file_of(4096)
    y = x.astype(np.float64) * (1 + 2**-30)
    got = arrays.quantize(y.astype(np.float32).astype(np.float64), "tf32", "RTZ")
    assert "double rounding: goes through float32 first" not in causes(y, got, "tf32")
    ties = np.concatenate([y, [1 + 2**-11, 1 + 3 * 2**-11, -1 - 2**-11]])
    got = arrays.quantize(ties, "tf32", "RNA")
    assert causes(ties, got, "tf32") == ["ties go away from zero (RNA instead of RNE)"]
    words = np.random.default_rng(0).integers(0, 1 << 64, len(y), np.uint64)
    got = arrays.encode(y, "e4m3", "SR", sr_bits=64, rbits=~words)
    found = causes(y, got, "e4m3", "SR", sr_bits=64, rbits=words)
    assert found[0] == "uses the complemented word: goes away from zero for small words (rand < frac)"


def test_cases_of_several_kinds() -> None:
    """Cases of several types, or with codes and values, have the causes that all of them have."""
    cases = [
        make_case(np.float32(1.0625), "e4m3", got=0x39), make_case(1.1875, "e4m3", got=1.25),
        make_case(np.float16(-1.0625), "e4m3", got=-1.125), make_case(Fraction(41, 40), "e4m3", got=1.0),
    ]  # fmt: skip
    assert common_causes(cases) == ["ties go away from zero (RNA instead of RNE)"]


@given(st.data())
def test_many_are_as_each(data: st.DataObject) -> None:
    """What a fault gives of many lines is what it gives of each of them alone."""
    fmt = data.draw(st.sampled_from(SMALL))
    carrier, mode = data.draw(st.sampled_from([FLOAT32, FLOAT64])), data.draw(st.sampled_from(list(Mode)))
    options: dict[str, Any] = {
        "saturation": data.draw(st.sampled_from(saturations(fmt))), "ftz_in": data.draw(st.booleans()),
        "ftz_out": data.draw(st.booleans()), "nan": data.draw(st.sampled_from(["canonical", "signed", "any"])),
    }  # fmt: skip
    n = data.draw(st.sampled_from([1, 4, 8, 32, 63, 64])) if mode.stochastic else None
    x = data.draw(st.lists(inputs(fmt, carrier), min_size=2, max_size=12))
    words = (
        data.draw(st.lists(st.integers(0, (1 << n) - 1), min_size=len(x), max_size=len(x))) if n else [None] * len(x)
    )
    codes = data.draw(st.lists(st.integers(0, (1 << fmt.bits) - 1), min_size=len(x), max_size=len(x)))
    options |= {"sr_bits": n} | ({"eps": 0.25} if mode is Mode.THR else {})
    cases = [
        make_case(value, fmt, mode, rbits=word, got=code, **options)
        for value, word, code in zip(x, words, codes, strict=True)
    ]
    (lines,) = lines_of(cases)
    name, rule = data.draw(st.sampled_from(list(faults(lines.kind).items())))
    alone = [rule(part)[0] for case in cases for part in lines_of([case])]
    assert np.array_equal(rule(lines), alone), name


@given(st.data())
def test_rationals_are_placed_exactly(data: st.DataObject) -> None:
    """The array oracle gives the reference's codes of any rational, by every mode."""
    fmt, mode = data.draw(st.sampled_from(SMALL)), data.draw(st.sampled_from(list(Mode)))
    n = data.draw(st.sampled_from([1, 7, 62, 63, 64])) if mode.stochastic else 0
    x = np.array(data.draw(st.lists(st.fractions(-600, 600), min_size=1, max_size=4)), object)
    found = expect(fmt, mode, saturations(fmt)[0], x, place(fmt, x), n=n, eps=0.25 if mode is Mode.THR else 0.0)
    for i, value in enumerate(x):
        word = min(max(int(found.first_word[i]) - data.draw(st.integers(0, 1)), 0), (1 << n) - 1)
        code = reference.encode(value, fmt, mode, sr_bits=n, rbits=word, eps=0.25 if mode is Mode.THR else 0.0)
        assert code == (found.outer if word >= found.first_word[i] else found.inner)[i]


def test_diagnosis_counts() -> None:
    """A diagnosis says how many answers are wrong and right; neither is one to a NaN that the format refuses."""
    x, _ = file_of(512)
    got = np.where(np.isnan(x), 0, device("e4m3")(x))
    got[5] ^= 1
    found = diagnose([Judged(make_lines(x, got, "e4m3", "RNE"))])
    assert (found.wrong, found.right) == (3, 509)
    assert diagnose([Judged(make_lines(x, device("e4m3")(x), "e4m3", "RNE"))]).wrong == 0


# --- Bits ------------------------------------------------------------------------------------------------------------


def test_bits_as_text() -> None:
    """The bits of a float, an answer and a word are taken as they stand in a waveform."""
    e = explain("0x3e99999a", "e4m3", got="0x2a")
    assert e.case == explain(np.float32(0.3), "e4m3", got=0x2A).case
    assert e.right
    assert explain("0x3FD3333333333333", "e4m3").case == explain(0.3, "e4m3").case
    assert explain("0x3c01", "e4m3", dtype="float16").case == explain(np.float16(1 + 2**-10), "e4m3").case
    bfloat16 = explain(ml_dtypes.bfloat16(1 + 2**-7), "e4m3").case
    assert explain("0x3f81", "e4m3", dtype="bfloat16").case == bfloat16
    assert explain("0x3f81", "e4m3", dtype=ml_dtypes.bfloat16).case == bfloat16
    assert explain("0xffc00001", "e4m3").case.pattern == 0xFFC00001
    word = explain("0x3e99999a", "e4m3", "SRA", sr_bits=8, rbits="0xd8")
    assert word.case == explain(np.float32(0.3), "e4m3", "SRA", sr_bits=8, rbits=216).case
    assert causes("0x3f880000", "0x39", "e4m3")[0] == "ties go away from zero (RNA instead of RNE)"


def test_module_can_be_called() -> None:
    """`qsim.explain(x, fmt)` explains, as well as `qsim.explain.explain`."""
    assert str(qsim.explain(0.3, "e4m3")) == str(qsim.explain.explain(0.3, "e4m3"))
    assert qsim.explain.causes is causes


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: explain("0x3f81", "e4m3"), "x = '0x3f81' has 4 digits: 8 are a float32, 16 a float64; dtype, one of"),
        (lambda: explain("0x123456789", "e4m3", dtype="float32"), "x = '0x123456789' has 9 digits"),
        (lambda: explain("0x3f81", "e4m3", dtype="int16"), "dtype = 'int16' says which bits they are"),
        (lambda: explain("0xzz", "e4m3"), "x = '0xzz' is no hexadecimal number"),
        (lambda: explain(0.3, "e4m3", dtype="float32"), "dtype = 'float32' with x = 0.3: it is the type whose bits"),
        (lambda: explain(0.3, "e4m3", got="0x100"), "got = 256: codes of float8_e4m3fn are 0 .. 255"),
        (lambda: causes(np.array([7], np.uint32), [1], "e4m3"), "float64 go in; x.view(np.float32) if these are bits"),
        (lambda: causes(np.array(["1"]), [1], "e4m3"), "numbers of float16, bfloat16, float32 or float64 go in"),
        (lambda: causes([1.0, 2.0], [1.0], "e4m3"), "got has the shape (1,), and x (2,): an answer to each number"),
        (lambda: causes([1.0], [256], "e4m3"), "got[0] = 256: codes of float8_e4m3fn are 0 .. 255; give values as floats"),
        (lambda: causes([1.0, 2.0], [1, 2], "e4m3", "SRA", sr_bits=4, rbits=[1, 16]), "rbits[1] = 16 is no word of sr_bits"),
        (lambda: causes([1.0], [1], "e4m3", "SRA", sr_bits=4, rbits=[1.0]), "rbits holds float64 of shape (1,); it is a word"),
        (lambda: causes([1.0], [1], "e4m3", rbits=[1]), "RNE takes no random word"),
    ],
)  # fmt: skip
def test_refused(call: Callable[[], Any], message: str) -> None:
    """What is no number, no answer or no word is refused in one sentence, with the way out."""
    with pytest.raises(InputError, match=re.escape(message)):
        call()
