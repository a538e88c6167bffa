"""`qsim explain`: that it prints what the library says of the same number, word and answer, and ends by whether it is right."""

from __future__ import annotations

import json
from fractions import Fraction

import numpy as np
import pytest
from command import refused

import qsim
from qsim.cli import main
from qsim.cli.explain import number
from qsim.explain import explain

FORMAT = "e4m3"


@pytest.mark.parametrize(
    ("line", "x", "options", "code"),
    [
        ("0.3 -f e4m3", 0.3, {}, 0),
        ("0x3e99999a -f e4m3", np.float32(0.3), {}, 0),
        ("0x3FD3333333333333 -f E4M3:RTZ", 0.3, {"mode": "RTZ"}, 0),
        ("-1e-3 -f e4m3 --dtype float32 -r RUP", np.float32(-1e-3), {"mode": "RUP"}, 0),
        ("-inf -f e4m3 --saturation OvfNaN", -np.inf, {"saturation": "OvfNaN"}, 0),
        ("0x1.8p-3 -f e4m3", 0.1875, {}, 0),
        (
            "0.3 -f e4m3 -r SRA(8) --rbits 216 --got 0x2a",
            0.3,
            {"mode": "SRA", "sr_bits": 8, "rbits": 216, "got": 0x2A},
            0,
        ),
        (
            "0.3 -f e4m3 -r SRA(8) --rbits 216 --got 0x47",
            0.3,
            {"mode": "SRA", "sr_bits": 8, "rbits": 216, "got": 0x47},
            1,
        ),
        (
            "0.3 -f e4m3:SRA(8) --rbits 0xd8 --got 0.3125",
            0.3,
            {"mode": "SRA", "sr_bits": 8, "rbits": 216, "got": 0.3125},
            0,
        ),
        ("0.3 -f e4m3 --got 0.28125", 0.3, {"got": 0.28125}, 1),
        ("nan -f e4m3 --got nan", np.nan, {"got": np.nan}, 0),
        ("0.3 -f e4m3 -r Threshold(0.25)", 0.3, {"mode": "THR", "eps": 0.25}, 0),
        ("0x3500 -f e4m3 --dtype float16 --ftz-in", np.float16(0.3125), {"ftz_in": True}, 0),
    ],
)
def test_it_prints_what_the_library_says(
    line: str, x: float, options: dict[str, object], code: int, capsys: pytest.CaptureFixture[str]
) -> None:
    """The page is that of `qsim.explain.explain`, and the exit code is 1 of a wrong answer alone; JSON says the same."""
    right = explain(x, FORMAT, **options)  # type: ignore[arg-type]
    assert main(["explain", *line.split()]) == code
    assert capsys.readouterr() == (f"{right}\n", "")
    assert main(["explain", *line.split(), "--json"]) == code
    told = json.loads(capsys.readouterr().out)
    assert (told["code"], told["right"], told["causes"]) == (right.code, right.right, list(right.causes))
    assert told["x_bits"] == right.case.pattern


@pytest.mark.parametrize("dtype", ["float16", "float32"])
def test_a_decimal_is_rounded_once(dtype: str) -> None:
    """A decimal just above a tie of the type goes up, which a float64 between would hide; so does one just below down."""
    step = Fraction(float(np.finfo(dtype).eps))
    for turn, right in ((-1, 1.0), (1, 1 + float(step))):
        text = str(1 + step / 2 + turn * Fraction(1, 2**100))
        assert number(text, dtype) == np.dtype(dtype).type(right)


@pytest.mark.parametrize(
    ("line", "sentence"),
    [
        ("3e99999az -f e4m3", "X = '3e99999az' is no number; write a decimal, 0x1.8p-3, or the bits"),
        ("0x3e999 -f e4m3", "X = 0x3e999 has 5 digits; the bits of a number have 4, 8 or 16"),
        ("0x3e99 -f e4m3", "X = 0x3e99 is the bits of float16 or bfloat16; say so with --dtype"),
        ("0x3e99999a -f e4m3 --dtype float64", "X = 0x3e99999a is the bits of float32; say so with --dtype"),
        ("0.3 -f e4m3 --got 47h", "--got 47h: give a code with 0x before it"),
        ("0.3 -f e4m3 --got 0x147", "got = 327: codes of float8_e4m3fn are 0 .. 255"),
        ("0.3 -f e4m3 --rbits 3", "RNE takes no random word"),
        ("0.3 -f e4m3 -r SRA(8) --rbits 256", "rbits = 256 is no word of sr_bits = 8 bits"),
        ("0.3 -f e4m3 -r SRA(8) --sr-bits 9", "SRA(8) says sr_bits = 8, and --sr-bits 9; drop one"),
        ("0.3", "missing: -f/--format"),
    ],
)
def test_refusals(line: str, sentence: str, capsys: pytest.CaptureFixture[str]) -> None:
    """What is no number, word or answer is refused in a sentence."""
    assert sentence in refused(capsys, "explain", *line.split())


def test_the_module_is_called_like_its_function() -> None:
    """`qsim.explain(0.3, "e4m3")` is `qsim.explain.explain(0.3, "e4m3")`."""
    assert qsim.explain(0.3, "e4m3") == explain(0.3, "e4m3")
