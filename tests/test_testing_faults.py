"""Faults planted in a device that rounds as hardware does: each is refuted, and named."""

from __future__ import annotations

from pathlib import Path

import pytest
from devices import device, named, unwrapped

from qsim.formats import get_format
from qsim.testing import check_quantizer
from qsim.verdicts import Outcome

ROOT = Path(__file__).resolve().parents[1]


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


@pytest.mark.in_part(3)
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


def test_equivalent_faults_are_named_together() -> None:
    """Where two faults give the same answers everywhere, both are named: bfloat16's subnormals are float32's."""
    verdict = check_quantizer(device("bfloat16", fault="subnormal inputs flushed"), "bfloat16", codes=True)
    assert "flushes subnormal inputs to zero" in named(verdict)
    assert "flushes what is below the smallest normal value before rounding" in named(verdict)
    right = check_quantizer(device("bfloat16", fault="subnormal inputs flushed"), "bfloat16", codes=True, ftz_in=True)
    assert right.outcome is Outcome.HELD
