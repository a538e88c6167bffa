"""Words of fixed-point libraries are taken for the modes that they are there; words of two meanings are refused."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import qsim
from qsim import InputError
from qsim.rounding import DIALECTS, TWO_MEANINGS, Mode, parse_mode

# Run in SystemC 2.3.4, ap_fixed and ac_fixed 4.8, which agree.
SEEN = {
    -2.5: {"RND": -2, "RND_ZERO": -2, "RND_MIN_INF": -3, "RND_INF": -3, "RND_CONV": -2, "TRN": -3, "TRN_ZERO": -2},
    -1.5: {"RND": -1, "RND_ZERO": -1, "RND_MIN_INF": -2, "RND_INF": -2, "RND_CONV": -2, "TRN": -2, "TRN_ZERO": -1},
    2.5: {"RND": 3, "RND_ZERO": 2, "RND_MIN_INF": 2, "RND_INF": 3, "RND_CONV": 2, "TRN": 2, "TRN_ZERO": 2},
    -2.4: {"RND": -2, "RND_ZERO": -2, "RND_MIN_INF": -2, "RND_INF": -2, "RND_CONV": -2, "TRN": -3, "TRN_ZERO": -2},
}


@pytest.mark.parametrize("library", ["SC", "AP", "AC"])
def test_words_of_fixed_point_libraries(library) -> None:
    """Each word gives the library's integers, in a Quantizer's spelling too."""
    for x, words in SEEN.items():
        for word, value in words.items():
            assert qsim.quantize(np.float64(x), "int8", f"{library}_{word}") == value
            assert qsim.quantize(np.float64(x), f"int8:{library}_{word}") == value
    assert len(DIALECTS) == 3 * 7 + 6
    assert parse_mode("fixed_truncate") is Mode.RDN
    assert parse_mode("fixed_round") is Mode.RNE
    assert qsim.Quantizer("int8", "AP_RND").mode is Mode.RNP


@pytest.mark.parametrize("name", ["systemc-2.3.4-and-ap_fixed-rounding.txt", "ac_fixed-4.8-rounding.txt"])
def test_tables_of_the_libraries(name, qsim_data: Path) -> None:
    """The outputs that the libraries printed, line by line."""
    library = "SC" if name.startswith("systemc") else "AC"
    for line in (qsim_data / "converters" / name).read_text(encoding="utf-8").splitlines():
        x, *rest = line.split()
        for word, value in zip(rest[::2], rest[1::2], strict=True):
            if word != "RND_CONV_ODD":
                assert qsim.quantize(np.float64(x), "int8", f"{library}_{word}") == int(value), line


@pytest.mark.parametrize("word", TWO_MEANINGS)
def test_words_of_two_meanings(word) -> None:
    """They are refused, with what they mean where."""
    with pytest.raises(InputError, match=r"is no name of a rounding mode here: it is to"):
        parse_mode(word)
