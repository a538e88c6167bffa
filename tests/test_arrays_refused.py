"""The ways to ask for a rounding of arrays, and what is refused."""

from __future__ import annotations

import math
import re
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from alike import same
from strategies import FLOAT32, numbers

from qsim.arrays import decode, encode, quantize
from qsim.errors import InputError
from qsim.formats import float_format, get_format
from qsim.rounding import Key, Quantizer


def test_spellings_of_one_rounding(tmp_path: Path) -> None:
    """Format and mode as two names, as one, or as a quantizer are one rounding; a format of one's own file is one as well."""
    x, key = numbers(100, FLOAT32), Key(3)
    expected = quantize(x, "float8_e4m3fn", "SR", key=key)
    for spelled in (("e4m3:SR",), (Quantizer("e4m3", "SR"),), (get_format("e4m3"), "Stochastic")):
        assert same(quantize(x, *spelled, key=key), expected)
    q = Quantizer("e5m2", "SRA", sr_bits=8, saturation="SatFinite", scale=2.0)
    spelled_out = quantize(x, "e5m2", "SRA", sr_bits=8, saturation="SatFinite", scale=2.0, key=key)
    assert same(quantize(x, q, key=key), spelled_out)
    assert same(quantize(x, q, key=key, sr_bits=8), spelled_out)
    assert same(quantize(x, "e5m2:SRA(8)", saturation="SatFinite", scale=2.0, key=key), spelled_out)
    assert same(quantize(x, "e5m2", "SRA(8)", saturation="SatFinite", scale=2.0, key=key), spelled_out)
    file = tmp_path / "mine.toml"
    file.write_text(
        '[[format]]\nname = "mine"\nkind = "table"\nvalues = [-2.0, 0.0, 1.0]\nsource = "me"\n', encoding="utf-8"
    )
    assert quantize([-9.0, 0.4, 0.6], f"{file}#mine").tolist() == quantize([-9.0, 0.4, 0.6], f"{file}:RNE").tolist()
    assert quantize([-9.0, 0.4, 0.6], file.as_posix()).tolist() == [-2, 0, 1]


X = np.ones(4, np.float32)


@pytest.mark.parametrize(
    ("arguments", "options", "fragment"),
    [
        ((X, "e4m4m"), {}, "no format is called 'e4m4m'"),
        ((X, "e4m3", "RNX"), {}, "no rounding mode is called 'RNX'"),
        ((X, "e4m3:RNX"), {}, "no rounding mode is called 'RNX'"),
        (
            (X, "e4m3", "SRA(x)"),
            {},
            "no rounding mode is called 'SRA(x)'; such a spelling is SRA(8) or Threshold(0.25)",
        ),
        ((X, "e4m3", "SR"), {}, "SR needs its random words: key=qsim.Key(seed), or rbits= with sr_bits="),
        ((X, "e4m3", "SRA(8)"), {}, "SRA needs its random words"),
        ((X, "e4m3", "SRA"), {"key": Key(0)}, "SRA needs sr_bits"),
        (
            (X, "e4m3", "SRA"),
            {"key": Key(0), "sr_bits": 33},
            "sr_bits = 33: SRA of 32-bit words takes 0 to 32 random bits",
        ),
        (
            (X, "nf4", "SRA"),
            {"key": Key(0), "sr_bits": 33},
            "sr_bits = 33: SRA of 32-bit words takes 0 to 32 random bits",
        ),
        (
            (X, "e4m3", "SRC"),
            {"key": Key(0), "sr_bits": 33},
            "sr_bits = 33: SRC of 32-bit words takes 0 to 32 random bits",
        ),
        (
            (X.astype(np.float16), "e4m3", "SRB"),
            {"key": Key(0), "sr_bits": 33},
            "sr_bits = 33: SRB of 32-bit words takes 0 to 32",
        ),
        (
            (X.astype(float), "e4m3", "SRB"),
            {"key": Key(0), "sr_bits": 64},
            "sr_bits = 64: SRB of 64-bit words takes 0 to 63",
        ),
        ((X, "e4m3", "SRC"), {"key": Key(0)}, "SRC needs sr_bits, the number of random bits N"),
        ((X, "e4m3", "SRE"), {"rbits": 0, "sr_bits": 0}, "sr_bits = 0: SRE of 32-bit words takes 1 to 32 random bits"),
        ((X, "e4m3", "RUP"), {"rbits": 0, "sr_bits": 1}, "RUP takes no random bits"),
        ((X.astype(float), "e4m3", "SRA"), {"key": Key(0), "sr_bits": 65}, "sr_bits = 65"),
        ((X, "e4m3", "SRA"), {"key": Key(0), "sr_bits": -1}, "sr_bits = -1"),
        ((X, "e4m3", "SRA"), {"key": Key(0), "sr_bits": 8.0}, "sr_bits = 8.0 must be an integer"),
        ((X, "e4m3", "SRA"), {"key": Key(0), "sr_bits": True}, "sr_bits = True must be an integer"),
        ((X, "e4m3", "SR"), {"key": Key(0), "sr_bits": 31}, "SR takes 32 random bits of float32 input, not 31"),
        ((X.astype(float), "e4m3", "SR"), {"key": Key(0), "sr_bits": 32}, "SR takes 64 random bits of float64 input"),
        (
            (X.astype(np.float16), "e4m3", "SR"),
            {"key": Key(0), "sr_bits": 16},
            "SR takes 32 random bits of float16 input",
        ),
        ((X, "e4m3", "SR"), {"key": 7.5}, "key must be a qsim.Key, such as qsim.Key(seed=0), a seed or a"),
        ((X, "e4m3", "SR"), {"rbits": 1}, "rbits needs sr_bits"),
        ((X, "e4m3", "SRA"), {"rbits": 1, "sr_bits": 8, "key": Key(0)}, "takes the place of key"),
        ((X, "e4m3", "SRA"), {"rbits": 256, "sr_bits": 8}, "rbits of 8 bits are 0 .. 255, not 256 .. 256"),
        ((X, "nf4", "SRA"), {"rbits": 256, "sr_bits": 8}, "rbits of 8 bits are 0 .. 255, not 256 .. 256"),
        ((X, "e4m3", "SRA"), {"rbits": [0, -1, 2, 3], "sr_bits": 8}, "rbits of 8 bits are 0 .. 255, not -1 .. 3"),
        ((X, "e4m3", "SRA"), {"rbits": 0.5, "sr_bits": 8}, "rbits are integers, not float64"),
        ((X, "e4m3", "SRA"), {"rbits": True, "sr_bits": 8}, "rbits are integers, not bool"),
        ((X, "e4m3", "SRA"), {"rbits": [1, 2, 3], "sr_bits": 8}, "shape (3,) do not broadcast to the shape (4,)"),
        ((X, "e4m3", "SRA(8)"), {"key": Key(0), "sr_bits": 4}, "sr_bits = 4 contradicts the 8 of SRA(8); drop one"),
        ((X, "e4m3", "RNE"), {"sr_bits": 8}, "RNE takes no random bits"),
        ((X, "e4m3", "RNE"), {"rbits": 8}, "RNE takes no random bits"),
        ((X, "e4m3", "THR"), {}, "Threshold needs eps, 0 <= eps < 1"),
        ((X, "e4m3", "RNE"), {"eps": 0.5}, "eps = 0.5 with RNE"),
        ((X, "e4m3", "SR"), {"eps": 0.5, "key": Key(0)}, "eps = 0.5 with SR"),
        (
            (X, "e4m3", "THR"),
            {"eps": 1.0},
            "eps = 1.0 must be a number with 0 <= eps < 1; RDN is the rounding that never goes up",
        ),
        ((X, "e4m3", "THR"), {"eps": -0.5}, "eps = -0.5 must be"),
        ((X, "e4m3", "THR"), {"eps": math.nan}, "eps = nan must be"),
        ((X, "e4m3", "THR"), {"eps": "half"}, "eps = 'half' must be"),
        ((X, "e4m3", "THR"), {"eps": True}, "eps = True must be"),
        ((X, "e4m3", "THR"), {"eps": [0.5, 0.5, 1.0, 0.5]}, "eps = 1.0 must be"),
        ((X, "e4m3", "THR"), {"eps": [0.5, -0.1, 0, 0.5]}, "eps = -0.1 must be"),
        ((X, "e4m3", "THR"), {"eps": [0.5, math.nan, 0, 0.5]}, "eps = nan must be"),
        ((X, "e4m3", "THR"), {"eps": np.array([True] * 4)}, "eps of bool must be numbers"),
        ((X, "e4m3", "THR"), {"eps": [0.5, 0.5]}, "eps of shape (2,) do not broadcast to the shape (4,) of x"),
        ((X, "e4m3", "THR"), {"eps": 2.0**-65}, "is no multiple of 2^-64; every number from 2^-12 on is, and so is 0"),
        ((X, "e4m3", "THR"), {"eps": [0.5, 0.5, 3 * 2.0**-65, 0.5]}, "is no multiple of 2^-64"),
        ((X, "e4m3", "THR"), {"eps": 0.5, "sr_bits": 3}, "THR takes no random bits"),
        ((X, "e4m3", "THR"), {"eps": 0.5, "rbits": 3}, "THR takes no random bits"),
        ((X, "e4m3", "Threshold(0.5)"), {"eps": 0.25}, "eps = 0.25 contradicts the 0.5 of Threshold(0.5); drop one"),
        ((X, Quantizer("e4m3", "THR", eps=0.5)), {"eps": 0.25}, "a Quantizer says mode"),
        ((X, "e4m3"), {"saturation": "saturate"}, "saturate makes no sense for float8_e4m3fn"),
        ((X, "int8"), {"saturation": "SatNone"}, "SatNone makes no sense for int8"),
        ((X, "int8sym"), {"saturation": "wrap"}, "wrap makes no sense for int8sym"),
        ((X, "nf4"), {"saturation": "OvfNaN"}, "OvfNaN makes no sense for nf4"),
        ((X, "e4m3"), {"nan": "quiet"}, "nan = 'quiet'; it is canonical, signed or signed_overflow"),
        ((X, "e4m3"), {"ftz_in": 1}, "ftz_in = 1 must be True or False"),
        ((X, "e4m3"), {"ftz_out": "yes"}, "ftz_out = 'yes'; it is 'after', 'before' or 'result', True"),
        ((X, Quantizer("e4m3"), "SR"), {}, "a Quantizer says mode"),
        ((X, Quantizer("e4m3")), {"scale": 2.0}, "a Quantizer says mode"),
        ((X, Quantizer("e4m3")), {"ftz_in": True}, "a Quantizer says mode"),
        ((X, Quantizer("e4m3")), {"nan": "signed"}, "a Quantizer says mode"),
        ((X, Quantizer("e4m3")), {"saturation": "OvfNaN"}, "a Quantizer says mode"),
        ((X, Quantizer("e4m3", "SRA", sr_bits=8)), {"sr_bits": 4, "key": Key(0)}, "sr_bits = 4 contradicts the 8"),
        ((np.array([2**53 + 1]), "e4m3"), {}, "9007199254740993 does not fit a float64 exactly; give floats"),
        ((X.astype(np.longdouble), "e4m3"), {}, "up to 64 bits can be rounded, not float128; convert the input first"),
        ((X + 1j, "e4m3"), {}, "not complex64"),
        (("1.0", "e4m3"), {}, "not <U3"),
        ((None, "e4m3"), {}, "not object"),
        (([[1.0], [2.0, 3.0]], "e4m3"), {}, "x is a ragged list; its rows must be of one length"),
        (([1 << 60, (1 << 60) + 1], "e4m3"), {}, "1152921504606846977 does not fit a float64 exactly"),
        ((np.ma.masked_array(X, X > 0), "e4m3"), {}, "x is a masked array; fill it or take its data"),
        ((X, "e4m3"), {"scale": np.ma.masked_array(X, X > 0)}, "scale is a masked array"),
        ((X, "e4m3"), {"scale": [1.0, [2.0]]}, "scale is a ragged list"),
        ((X, "e4m3"), {"scale": 10**400}, "must be a positive finite number"),
        ((X, "e4m3", "SRA"), {"sr_bits": 4, "rbits": [1, [2]]}, "rbits is a ragged list"),
        ((X, "e4m3", "Threshold"), {"eps": [0.5, [0.25]]}, "eps is a ragged list"),
        ((X, "e4m3", "Threshold"), {"eps": 10**400}, "must be a number with 0 <= eps < 1"),
        ((X, "e4m3", ["RNE"]), {}, "no rounding mode is called ['RNE']"),
        ((X, "e4m3", False), {}, "no rounding mode is called False"),
        ((X, "e4m3"), {"saturation": ["SatFinite"]}, "no saturation is called ['SatFinite']"),
        ((X, "e4m3"), {"order": ["divide"], "scale": 2.0}, "no order of operations is called ['divide']"),
        ((X, "e4m3"), {"nan": ["signed"]}, "nan = ['signed']; it is canonical, signed or signed_overflow"),
        ((X, "e4m3"), {"scale": "absmax", "per": (0, True)}, "per = (0, True); it is tensor, sample"),
    ],
)
def test_refusals(arguments: tuple[Any, ...], options: dict[str, Any], fragment: str) -> None:
    """What cannot be done is refused in one sentence with what would do, by `quantize` and by `encode`."""
    for function in (quantize, encode):
        with pytest.raises(InputError, match=re.escape(fragment)) as caught:
            function(*arguments, **options)
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("codes", "name", "fragment"),
    [
        ([256], "e4m3", "codes of float8_e4m3fn are 0 .. 255, not 256 .. 256"),
        ([3, -1], "e4m3", "not -1 .. 3"),
        ([1.0], "e4m3", "codes are integers, not float64"),
        ([True], "e4m3", "codes are integers, not bool"),
        ([1, 128], "int8sym", "128 is no code of int8sym: no value has it"),
        ([0, 2], "ternary", "2 is no code of ternary: no value has it"),
        ([[7], [8]], "log4_sqrt2", "8 is no code of log4_sqrt2: no value has it"),
        ([0x80000000], "int32sym", "2147483648 is no code of int32sym: no value has it"),
    ],
)
def test_wrong_codes_are_refused(codes: list[Any], name: str, fragment: str) -> None:
    """What is no code of the format is refused."""
    with pytest.raises(InputError, match=re.escape(fragment)):
        decode(codes, name)


def test_a_line_that_leaves_float64_is_refused() -> None:
    """A grid with a gap whose largest value is no float64 is left to the definition."""
    fmt = float_format("wide", 11, 4, "ieee", "a test", subnormals="normal", bias=1022)
    with pytest.raises(InputError, match="reaches beyond the range of a float64"):
        encode(X.astype(np.float64), fmt)


def test_ragged_codes_are_refused() -> None:
    """So are rows of different lengths."""
    with pytest.raises(InputError, match="codes is a ragged list"):
        decode([1, [2]], "e4m3")


def test_views_whose_elements_overlap_take_no_result() -> None:
    """An `out` whose elements share memory is refused; one of steps, reversed, or with an axis of length 1 is taken."""
    x, memory = np.ones((3, 2), FLOAT32), np.zeros(20, FLOAT32)
    for out in (np.lib.stride_tricks.sliding_window_view(memory[:4], 2, writeable=True),
                np.lib.stride_tricks.as_strided(memory, (3, 2), (4, 8)), np.broadcast_to(memory[:2], (3, 2))):  # fmt: skip
        with pytest.raises(InputError, match="out has elements that share memory"):
            quantize(x, "e4m3", out=out)
    for out in (memory[:6].reshape(2, 3).T, memory[::-3][:6].reshape(3, 2), memory[6:12].reshape(3, 2)[::-1]):
        assert quantize(x, "e4m3", out=out) is out
        assert (out == 1).all()
    row = memory[:6][None]
    assert quantize(np.full((1, 6), 2, FLOAT32), "e4m3", out=row).tolist() == [[2] * 6]


def test_integers_of_numpy_are_integers() -> None:
    """Numbers of random bits, seeds, axes and words may be NumPy's."""
    x = numbers(60, FLOAT32).reshape(6, 10)
    for axis in (0, np.int64(0)):
        key = Key(np.int64(3), offset=np.uint8(4))
        y = quantize(x, "e4m3", "SRA", sr_bits=np.int32(8), key=key, scale="absmax", per=axis)
        assert same(y, quantize(x, "e4m3", "SRA", sr_bits=8, key=Key(3, offset=4), scale="absmax", per=0))


def test_one_threshold_however_it_is_held() -> None:
    """Fractions, NumPy's numbers of any type and arrays without axes are thresholds; so are arrays of bfloat16."""
    x, bfloat16 = numbers(100, FLOAT32), np.dtype("bfloat16").type
    expected = quantize(x, "e4m3", "Threshold", eps=0.25)
    for eps in (Fraction(1, 4), np.float16(0.25), bfloat16(0.25), np.array(0.25), np.full(100, 0.25, bfloat16)):
        assert same(quantize(x, "e4m3", "Threshold", eps=eps), expected)


def test_values_are_of_a_float_type() -> None:
    """Codes are decoded to the four types that can be rounded."""
    for dtype in (np.int32, np.complex64, np.longdouble):
        with pytest.raises(InputError, match="values are decoded to float16, bfloat16, float32 or float64, not"):
            decode([1], "e4m3", dtype)
    with pytest.raises(InputError, match="dtype = 'real' is no type of NumPy"):
        decode([1], "e4m3", "real")


@pytest.mark.parametrize("name", ["e4m3", "int8", "tf32", "float32", "int32", "nf4"])
def test_a_single_code_is_decoded(name: str) -> None:
    """A code without axes has its value, without axes."""
    fmt = get_format(name)
    value = decode(5, name)
    assert value.shape == ()
    assert value == np.float32(fmt.decode(5))


def test_what_was_asked_before_is_not_mistaken(tmp_path: Path) -> None:
    """A rounding is looked up where it was asked before: not that of a file that changed, nor of 1 where True is given."""
    file = tmp_path / "mine.toml"
    entry = '[[format]]\nname = "mine"\nkind = "table"\nvalues = [0.0, {}]\nsource = "me"\n'
    for largest in (1.0, 2.0):
        file.write_text(entry.format(largest), encoding="utf-8")
        assert quantize([9.0], f"{file}#mine").tolist() == [largest]
    two = np.ones((2, 2), FLOAT32)
    for good, bad in (({"scale": 1}, {"scale": True}), ({"scale": "absmax", "per": 1}, {"scale": "absmax", "per": True}),
                      ({"scale": "absmax", "per": (0, 1)}, {"scale": "absmax", "per": (0, True)})):  # fmt: skip
        assert quantize(two, "int4", **good).tolist() == two.tolist()
        with pytest.raises(InputError, match=r"scale = True|per = "):
            quantize(two, "int4", **bad)
