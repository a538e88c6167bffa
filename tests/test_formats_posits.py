"""Posits round as their standard says, on the string of bits; and tables turn where their thresholds say.

Standard for Posit Arithmetic (2022), 4.1: a value between two posits of n bits goes to one side of the posit of n + 1 bits
between them, a tie to the even one; beyond the largest posit it becomes that, and no nonzero value becomes 0.
"""

from __future__ import annotations

import functools
import itertools
import math
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from covered import covers
from enumeration import exactly, sixteen_bits
from strategies import both_kinds, posit

import qsim
from qsim import InputError, Quantizer, reference
from qsim.formats import Table, get_format, load_formats, table_format
from qsim.formats.build import posit_format
from qsim.rounding import Mode

NEAREST = ("RNE", "RNA", "RNZ", "RNP", "RNN")


def by_bits(x: float | Fraction, bits: int = 8) -> int:
    """Return the code of x: its string of bits, without end, is cut and rounded to nearest, ties to even.

    |x| = 16^k 2^e (1 + f) is k + 1 ones and a zero (k < 0: -k zeros and a one), e in two bits, and the bits of f.
    """
    if isinstance(x, float) and not math.isfinite(x):
        return 1 << (bits - 1)
    last = (1 << (bits - 1)) - 1
    if not x:
        return 0
    power = min(max(math.frexp(x)[1] - 1, -4 * bits), 4 * bits)  # beyond these there is one posit
    magnitude = abs(Fraction(x)) / Fraction(2) ** power
    regime, exponent = divmod(power, 4)
    string = ("1" * (regime + 1) + "0" if regime >= 0 else "0" * -regime + "1") + f"{exponent:02b}"
    rest = magnitude - 1
    while len(string) < bits:  # the bits that are kept, and the first that is not
        rest *= 2
        string += "1" if rest >= 1 else "0"
        rest -= rest >= 1
    kept, first, sticky = string[: bits - 1], string[bits - 1], "1" in string[bits:] or rest > 0
    code = int(kept, 2)
    code += first == "1" and (sticky or code % 2 == 1)
    code = min(max(code, 1), last)
    return code if x > 0 else (1 << bits) - code


def test_every_threshold() -> None:
    """At each posit of 9 bits, and next to it, and at the ends, a number goes to the side that the standard says."""
    for code in range(1, 127):
        low, middle, high = float(posit(code)), float(posit(2 * code + 1, 9)), float(posit(code + 1))
        for x, up in (
            (math.nextafter(low, 9e9), False), (math.nextafter(middle, 0), False), (middle, code % 2 == 1),
            (math.nextafter(middle, 9e9), True), (math.nextafter(high, 0), True), (low, False), (high, True),
        ):  # fmt: skip
            assert reference.encode(x, "posit8") == by_bits(x) == code + up, x
            assert reference.encode(-x, "posit8") == by_bits(-x) == 256 - (code + up), x
            assert qsim.encode(np.array([x, -x]), "posit8").tolist() == [code + up, 256 - (code + up)]


def test_nothing_becomes_zero_or_not_a_real() -> None:
    """The largest and the smallest numbers of a float64 become the largest and the smallest posit, infinities NaR."""
    x = np.array([2.0**-26, 1e-9, 5e-324, 2.0**23, 1.5 * 2.0**22, 1e308, math.inf, math.nan, 0.0])
    assert [by_bits(v) for v in x.tolist()] == [1, 1, 1, 127, 127, 127, 128, 128, 0]
    for sign in (1, -1):
        assert qsim.encode(sign * x, "posit8").tolist() == [by_bits(v) for v in (sign * x).tolist()]
    assert qsim.quantize(x[:5], "posit8").tolist() == [2.0**-24] * 3 + [2.0**24] * 2
    assert str(Quantizer("posit8")) == "posit8:RNE, InfNaN"
    assert qsim.quantize(np.array([math.inf]), "posit8", saturation="SatFinite")[0] == 2.0**24


@covers("enumerated", formats=[get_format("posit8")], modes=[Mode.RNE], saturations="default",
        inputs="all 65,536 float16 and all bfloat16, against the string of bits")  # fmt: skip
@both_kinds
def test_all_numbers_of_16_bits(kind: np.dtype) -> None:
    """All numbers of 16 bits become the posit that their string of bits is rounded to."""
    x = sixteen_bits(kind)
    half = np.array([by_bits(v) for v in exactly(x[: 1 << 15]).tolist()])  # the others are their negatives
    expected = np.concatenate([half, -half % 256])
    assert (qsim.encode(x, "posit8") == expected).all()
    values = qsim.quantize(exactly(x), "posit8")
    assert values.tobytes() == get_format("posit8").values()[expected].tobytes()


def test_other_modes() -> None:
    """To nearest all modes turn at the threshold, and differ in ties; directed modes go to the neighbour that they name."""
    x = 2.0**22  # the posit of 9 bits between 2^20 and 2^24, nearer to 2^20
    low, high = 2.0**20, 2.0**24
    assert [reference.quantize(x, "posit8", mode) for mode in NEAREST] == [low, high, low, high, low]
    assert [reference.quantize(-x, "posit8", mode) for mode in NEAREST] == [-low, -high, -low, -low, -high]
    above = math.nextafter(x, high)
    for mode in NEAREST:
        assert reference.quantize(above, "posit8", mode) == high
        assert reference.quantize(1e-300, "posit8", mode) == 2.0**-24
        assert reference.quantize(-1e-300, "posit8", mode) == -(2.0**-24)
    expected = {
        "RTZ": (low, 0),
        "RDN": (low, 0),
        "RUP": (high, 2.0**-24),
        "RAZ": (high, 2.0**-24),
        "RTO": (high, 2.0**-24),
    }
    for mode, values in expected.items():
        assert tuple(reference.quantize(v, "posit8", mode) for v in (above, 1e-300)) == values, mode


def test_stochastic_rounding_is_unbiased() -> None:
    """Between 2^20 and 2^24, and below the smallest posit, the mean over all words is x, by distance."""
    for x in (2.0**20 + 15 * 2.0**20 * 5 / 16, 2.0**-24 * 3 / 8, -(2.0**-24) * 7 / 16):
        found = [Fraction(reference.quantize(x, "posit8", "SRA", sr_bits=4, rbits=r)) for r in range(16)]
        assert sum(found) / 16 == Fraction(x)
        words = np.arange(16)
        assert qsim.quantize(np.full(16, x), "posit8", "SRA", sr_bits=4, rbits=words).tolist() == list(
            map(float, found)
        )


@pytest.mark.parametrize("bits", [3, 4, 5, 6, 7, 9, 10])
def test_posits_of_other_widths(bits: int, tmp_path: Path) -> None:
    """A file may have posits of 3 to 16 bits; they have the values of the standard, and round as their strings of bits."""
    path = tmp_path / "own.toml"
    path.write_text(f'[[format]]\nname = "p{{bits}}"\nkind = "posit"\nbits = [{bits}]\nsource = "a test"\n')
    (fmt,) = load_formats(path)
    assert fmt.name == f"p{bits}"
    codes = [code for code in range(1 << bits) if code != fmt.nan_code]
    assert [Fraction(fmt.decode(code)) for code in codes] == [posit(code, bits) for code in codes]
    random = np.random.default_rng(0)
    x = random.standard_normal(500) * np.exp2(random.integers(-4 * bits, 4 * bits, 500))
    x = np.concatenate([x, np.array(fmt.thresholds), np.nextafter(fmt.thresholds, np.inf)])
    expected = [by_bits(v, bits) for v in x.tolist()]
    assert [reference.encode(v, fmt) for v in x.tolist()] == expected
    assert qsim.encode(x, fmt).tolist() == expected


def test_the_widest_posit() -> None:
    """A posit of 16 bits rounds as its strings of bits in the definition; 17 bits and 2 are refused."""
    fmt = posit_format("p16", 16, "a test")
    assert (fmt.max, fmt.smallest_subnormal) == (2.0**56, 2.0**-56)
    random = np.random.default_rng(1)
    for x in (random.standard_normal(300) * np.exp2(random.integers(-60, 60, 300))).tolist():
        assert reference.encode(x, fmt) == by_bits(x, 16)
    for bits in (2, 17):
        with pytest.raises(InputError, match=f"p: posits have 3 to 16 bits here, not {bits}"):
            posit_format("p", bits, "a test")


# --- Thresholds of any table -----------------------------------------------------------------------------------------


@functools.cache
def own() -> list[Table]:
    """Return tables whose thresholds are at values, at zero, beyond the middle, beside ends that go on."""
    return [
        table_format(
            "a", [-3.0, -1.0, 0.0, 2.0, 7.0, 8.0], "a test", above=20.0, below=-9.0, thresholds=[-3.0, -0.5, 0.0, 6.5, 8.0]
        ),
        table_format("b", [5.0, -1.0, 2.0, 7.5], "a test", thresholds=[-0.5, 3.0, 5.5], zero_to="max"),
        table_format("c", [-1.0, 1.0, math.nan], "a test", thresholds=[-0.25], zero_to="min"),
        get_format("nf4_bitsandbytes"),
    ]  # fmt: skip


@pytest.mark.parametrize("at", range(4))
@pytest.mark.parametrize("mode", NEAREST)
def test_thresholds(at: int, mode: str) -> None:
    """Between two values a number above the threshold goes up, one below goes down, and a tie as the mode says."""
    fmt = own()[at]
    for (low, high), turn in zip(itertools.pairwise(fmt.points), fmt.thresholds, strict=True):
        codes = [fmt.code(fmt.ordinal(v)) for v in (low, high)]
        if turn < 0:  # the code toward zero, then the other
            codes.reverse()
        goes_out = {"RNE": codes[0] % 2 == 1, "RNA": True, "RNZ": False, "RNP": turn >= 0, "RNN": turn < 0}[mode]
        tie = (high if goes_out else low) if turn >= 0 else (low if goes_out else high)
        cases = {turn: tie, math.nextafter(turn, 9e9): high, math.nextafter(turn, -9e9): low}
        cases = {x: y for x, y in cases.items() if low < x < high and x}
        for x, y in cases.items():
            assert reference.quantize(x, fmt, mode) == y, x
        x = np.array(list(cases))
        assert qsim.quantize(x, fmt, mode).tolist() == list(cases.values())


def test_beyond_the_thresholds_a_line_goes_on_by_distance() -> None:
    """Where a table says how its line goes on, what lies between an end and that turns in the middle, as ever."""
    fmt = own()[0]
    x = np.array([13.9, 14.1, -5.9, -6.1])
    assert qsim.quantize(x, fmt).tolist() == [8.0, 8.0, -3.0, -3.0]
    assert [fmt.split(Fraction(v), nearest=True) == fmt.split(Fraction(v)) for v in x.tolist()] == [True] * 4


def test_nf4_as_bitsandbytes_rounds_it() -> None:
    """The ten float32 for which bitsandbytes 0.50.2 gives another code than the nearest: at its middles, the lower one."""
    x = np.float32([
        -0.8480963706970215, -0.6106328964233398, -0.33967941999435425, -0.23460739850997925, 0.03979014977812767,
        0.2035212516784668, 0.3893125355243683, 0.5016634464263916, 0.6427869200706482, 0.8614784479141235,
    ])  # fmt: skip
    ours, theirs = qsim.encode(x, "nf4"), qsim.encode(x, "nf4_bitsandbytes", "RNN")
    assert theirs.tolist() == [0, 1, 3, 4, 7, 9, 11, 12, 13, 14]
    assert ours.tolist() == [1, 2, 4, 5, 8, 10, 12, 13, 14, 15]
    step = np.nextafter(x, np.float32(9))
    assert (qsim.encode(step, "nf4") == qsim.encode(step, "nf4_bitsandbytes", "RNN")).all()
    middles = [(a + b) / 2 for a, b in itertools.pairwise(get_format("nf4").points)]
    assert np.float32(middles).tolist() == list(get_format("nf4_bitsandbytes").thresholds)
    every = np.unique(np.concatenate([np.linspace(-1, 1, 200001, dtype=np.float32), np.float32(middles), x]))
    assert every[qsim.encode(every, "nf4") != qsim.encode(every, "nf4_bitsandbytes", "RNN")].tolist() == sorted(
        x.tolist()
    )


def test_wrong_thresholds_are_refused(tmp_path: Path) -> None:
    """Too few thresholds, and one that does not lie between its values, are refused with the numbers."""
    text = '[[format]]\nname = "t"\nkind = "table"\nvalues = [0.0, 1.0, 4.0]\nthresholds = {}\nsource = "a test"\n'
    for given, words in (
        ("[0.5]", "3 values have 2 thresholds between them, not 1"),
        ("[0.5, 0.75]", r"the threshold 0.75 does not lie between 1.0 and 4.0, its neighbours"),
        ("[nan, 2.0]", r"the threshold nan does not lie between 0.0 and 1.0"),
        ("['x', 2.0]", "thresholds has 'x'"),
    ):
        (tmp_path / "own.toml").write_text(text.format(given))
        with pytest.raises(InputError, match=words):
            load_formats(tmp_path / "own.toml")


# --- What is said ----------------------------------------------------------------------------------------------------


def test_a_posit_by_distance_is_refuted_and_named() -> None:
    """A quantizer that rounds to the nearer posit is told so, and the right one holds."""
    plain = table_format("plain", get_format("posit8").values(), "a test")
    verdict = qsim.testing.check_quantizer(lambda x: qsim.encode(x, plain), "posit8", codes=True, examples=64)
    assert "rounds to the nearer value, not by the format's thresholds" in verdict.counterexample
    for mode in ("RNE", "RNA"):
        right = functools.partial(qsim.encode, fmt="posit8", mode=mode)
        verdict = qsim.testing.check_quantizer(right, "posit8", mode, codes=True, examples=64)
        assert str(verdict.outcome) == "held"


def test_an_explanation_names_the_threshold() -> None:
    """The picture turns at the threshold, and the decision compares x with it; the fraction goes by distance."""
    found = qsim.explain.explain(6e6, "posit8")
    assert found.nu == Fraction(6_000_000 - 2**20, 15 * 2**20)
    assert found.threshold == 2**22
    text = " ".join(str(found).split())
    assert "x > 4194304, the threshold: away from zero" in text
    assert "T: the threshold, 4194304" in text
    assert "x is the threshold 4194304, a tie" in " ".join(str(qsim.explain.explain(2.0**22, "posit8")).split())
    assert qsim.explain.explain(6e6, "posit8", "RTZ").threshold is None
