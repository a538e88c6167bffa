"""`qsim check`: right and wrong answers, told by class, explained, counted, and in XML and JSON."""

from __future__ import annotations

import json
from pathlib import Path
from xml.etree import ElementTree as ET

import numpy as np
import pytest

from qsim import InputError
from qsim.cli import main
from qsim.golden import model, named
from qsim.golden.check import check
from qsim.golden.compare import same_bits
from qsim.golden.directed import directed
from qsim.golden.vectors import Answers, Vectors, write

E4 = "cuda-13.5/float_e4m3_sat"


def device(name: str, path: str) -> None:
    """Write the answers that a converter gives to the vectors of `E4`."""
    x, _ = directed(model(E4))
    converter = named(name)
    write(Vectors(converter, x, None, converter.convert(x)), path)


def test_right_answers(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Exit 0, and what was covered."""
    device(E4, "d.tv")
    assert main(["check", E4, "d.tv"]) == 0
    out = capsys.readouterr().out
    assert "all 2,515 answers are right" in out
    assert "252 of 252 changes of the code on both sides" in out
    (here / "d.tv").write_text("3f800000 38\n")
    assert main(["check", E4, "d.tv"]) == 0
    out = capsys.readouterr().out
    assert "0 of 252 changes" in out
    assert "without an input: NaN, infinity" in out


def test_wrong_answers(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Exit 1; the classes, the smallest number with its line and its picture, the fault."""
    device("e4m3:RNA", "d.tv")
    assert main(["check", E4, "d.tv", "--junit", "d.xml"]) == 1
    out = capsys.readouterr().out
    for words in ("126 of 2,515 answers are wrong", "tie: 118 of 236", "line 9: 0x3a800000", "it should be 0x00",
                  "nu           1/2", "ties go away from zero"):  # fmt: skip
        assert words in out
    suite = ET.parse(here / "d.xml").getroot()  # noqa: S314 - our own file
    assert (suite.get("failures"), suite.get("tests")) == ("3", "12")
    failed = [case.get("name") for case in suite if case.find("failure") is not None]
    assert failed == ["rounds to zero", "subnormal result, tie", "tie"]
    assert main(["check", E4, "d.tv", "--json", "--no-triage"]) == 1
    data = json.loads(capsys.readouterr().out)
    assert (data["wrong"], data["first"]["x"], data["first"]["right"]) == (126, "0x3a800000", "0x00")


@pytest.mark.parametrize("name", ["x86-2026/vcvtbiasph2bf8@raw", "gemmlowp-2026/requantize_int8", "torch-2.13/float8_e8m0fnu",
                                  "ptx-9.5/cvt.rs.bf16x2.f32", "systemc-2.3.4/fixed4_4_trn_wrap_sm"])  # fmt: skip
def test_every_kind_of_converter_is_checked(name: str) -> None:
    """One wrong answer is found and told, whatever the converter is."""
    converter = model(name)
    x, words = directed(converter)
    codes = converter.convert(x, words)
    assert check(converter, Answers(x, words, codes)).held
    codes = codes.copy()
    codes[5] ^= 1
    report = check(converter, Answers(x, words, codes), triage=False)
    assert report.wrong.sum() == 1
    assert f"gives 0x{codes[5]:0{-(-converter.format.bits // 4)}x}" in str(report)


def test_coverage_of_words() -> None:
    """Directed vectors have the turning words of all inputs; random ones do not, and the first missing inputs are told."""
    converter = named("e4m3:SRA(8)")
    x, words = directed(converter)
    report = check(converter, Answers(x, words, converter.convert(x, words)))
    assert report.reached == report.turns > 1000
    few = slice(0, len(x) // 8)
    report = check(converter, Answers(x[few], words[few], converter.convert(x[few], words[few])))
    assert report.reached < report.turns
    assert len(report.missing) == 3


def test_many_answers(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Hundreds of thousands of answers of an array are no loop in Python; the classes are those of a part of them."""
    converter = model(E4)
    bits = np.random.default_rng(0).integers(0, 1 << 32, 1 << 19, np.uint64)
    np.savez("d.npz", x=bits.astype(np.uint32), code=converter(bits))
    assert main(["check", E4, "d.npz"]) == 0
    assert "the classes are those of 131,072 answers" in capsys.readouterr().out


def test_bits_of_a_simulator() -> None:
    """Texts of 0 and 1 are compared as they are: 8 ones are 255 and not -1, x and z are refused, and so is another width."""
    assert same_bits("11111111", 255, 8)
    assert not same_bits("11111110", 255, 8)
    with pytest.raises(InputError, match="has the digit X"):
        same_bits("1111111X", 255, 8)
    with pytest.raises(InputError, match="of 4 bits; the code has 8"):
        same_bits("1111", 15, 8)
    assert not same_bits("1111", -1 & 7, 4)
