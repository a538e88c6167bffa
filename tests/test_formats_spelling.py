"""How a format is spelled or built of its fields, and which cannot exist."""

from __future__ import annotations

import dataclasses
import math
import re
from fractions import Fraction

import numpy as np
import pytest
from alike import same_values
from strategies import BIASED, CATALOGUE, FIXED, P3109, PARAMETRIC, UNSIGNED, WIDE_P3109

from qsim.errors import InputError
from qsim.formats import catalogue, fixed_format, get_format, integer_format, short_name, table_format

# --- Spellings -------------------------------------------------------------------------------------------------------


def test_a_name_means_its_format() -> None:
    """The name and the aliases of a format, and the format itself, are spellings of it and of no other."""
    for fmt in (*CATALOGUE, *P3109, *WIDE_P3109, *PARAMETRIC, *UNSIGNED, *BIASED, *FIXED):
        for name in (fmt.name, *fmt.aliases, fmt):
            assert get_format(name) == fmt
        assert fmt.source


@pytest.mark.parametrize(
    ("spelling", "name"),
    [
        ("e8m23", "float32"), ("e11m52", "float64"), ("float16_e5m10", "float16"), ("e8m7", "bfloat16"),
        ("float19_e8m10", "tf32"), ("e4m3fn", "float8_e4m3fn"), ("e4m3", "float8_e4m3fn"), ("e5m2", "float8_e5m2"),
        ("e2m3", "float6_e2m3fn"), ("e3m2", "float6_e3m2fn"), ("e2m1", "float4_e2m1fn"), ("e2m1f", "float4_e2m1fn"),
        ("e2m1fn", "float4_e2m1fn"), ("float8_e4m3fnuz", "float8_e4m3fnuz"), ("e4m3fnuz", "float8_e4m3fnuz"),
        ("e5m2fnuz", "float8_e5m2fnuz"), ("e4m3b11fnuz", "float8_e4m3b11fnuz"), ("e4m3b8fnuz", "float8_e4m3fnuz"),
        ("e3m4", "float8_e3m4"), ("float8_e3m4", "float8_e3m4"), ("float7_e4m2fn", "e4m2fn"), ("e8m0fnu", "float8_e8m0fnu"),
        ("e8m0", "float8_e8m0fnu"), ("ue8m0", "float8_e8m0fnu"), ("ue4m3", "float7_e4m3fnu"), ("e4m3fnu", "float7_e4m3fnu"),
        ("ue5m3", "float8_e5m3fnu"), ("float8_e5m3fnu", "float8_e5m3fnu"), ("e4m3b7fn", "float8_e4m3fn"),
        ("e04m03fn", "float8_e4m3fn"), ("int2sym", "ternary"), ("e4m3b11f", "e4m3b11f"), ("e4m3b-2fn", "e4m3b-2fn"),
    ],
)  # fmt: skip
def test_spellings_of_one_format(spelling: str, name: str) -> None:
    """A parametric spelling of a named format is that format, and OCP's short names are OCP's formats."""
    assert get_format(spelling).name == name


def test_ieee_like_namesakes_of_ocp() -> None:
    """float8_e4m3 is LLVM's IEEE-like format, not OCP's e4m3, and says so in its name."""
    fmt = get_format("float8_e4m3")
    assert fmt.specials == "ieee"
    assert fmt.name == "float8_e4m3" != get_format("e4m3").name
    assert get_format("float6_e3m2").specials == "ieee"
    assert get_format("float6_e3m2").name == "float6_e3m2" != get_format("e3m2").name


def test_spellings_of_unsigned_and_biased_floats() -> None:
    """A final u takes away the sign, bB sets the bias; without mantissa bits an unsigned format has no zero."""
    fmt = get_format("e3m2b5fnu")
    assert (fmt.bits, fmt.signed, fmt.bias, fmt.has_zero, fmt.min) == (5, False, 5, True, 0.0)
    fmt = get_format("e3m0fu")
    assert (fmt.bits, fmt.has_zero, fmt.zero_to, fmt.negative_to) == (3, False, "min", "min")
    assert fmt.values().tolist() == [2.0**e for e in range(-3, 5)]
    assert "bias 5" in get_format("e3m2b5fnu").source


@pytest.mark.parametrize(
    ("spelling", "bits", "low", "high", "step"),
    [
        ("Q3.4", 8, -8.0, 7.9375, 0.0625), ("Q0.7", 8, -1.0, 0.9921875, 2.0**-7), ("UQ0.8", 8, 0.0, 0.99609375, 2.0**-8),
        ("UQ4.0", 4, 0.0, 15.0, 1.0), ("Q1.0", 2, -2.0, 1.0, 1.0), ("Q0.1", 2, -1.0, 0.5, 0.5), ("UQ0.1", 1, 0.0, 0.5, 0.5),
        ("Q15.16", 32, -32768.0, 32768.0 - 2.0**-16, 2.0**-16), ("UQ32.0", 32, 0.0, 2.0**32 - 1, 1.0),
    ],
)  # fmt: skip
def test_fixed_point(spelling: str, bits: int, low: float, high: float, step: float) -> None:
    """Qm.n is sign + m integer + n fraction bits (TI's count), UQm.n the same without a sign."""
    fmt = get_format(spelling)
    assert (fmt.bits, fmt.min, fmt.max, fmt.smallest_subnormal, fmt.smallest_normal) == (bits, low, high, step, step)
    assert fmt.code(fmt.ordinal(high)) == (1 << (bits - (low < 0))) - 1
    assert fmt.kind == ("fixed" if step < 1 else "integer")
    assert fmt.name == spelling
    assert math.isnan(fmt.eps) == (high <= 1)
    assert math.isnan(fmt.eps) or fmt.eps == step


@pytest.mark.parametrize(
    ("spelling", "fragment"),
    [
        ("e4m0", "e4m0fn, e4m0fnuz or e4m0f can exist"),
        ("e1m3", "e1m3fn, e1m3fnuz or e1m3f can exist"),
        ("e1m0", "e1m0fnuz or e1m0f can exist"),
        ("e1m0fn", "e1m0fnuz or e1m0f can exist"),
        ("e1m3u", "e1m3fnu or e1m3fu can exist"),
        ("e4m3fnuzu", "no code of -0"),
        ("e11m0", "IEEE-like"),
        ("e0m3fn", "1 to 11 exponent bits"),
        ("e12m3", "1 to 11 exponent bits"),
        ("e17m3fn", "1 to 11 exponent bits"),
        ("e8m53", "0 to 52 mantissa bits"),
        ("float9_e4m3fn", "spelled float8_e4m3fn"),
        ("float8_e4m3fnu", "4 + 3 bits are 7, which is spelled float7_e4m3fnu"),
        ("e4m3b99999f", "bias 99999 is beyond"),
        ("e4m3b-4097f", "bias -4097 is beyond"),
        ("e4m3b123456f", "did you mean"),
        ("Q0.0", "at least one bit beside the sign, and 32 at most"),
        ("UQ0.0", "at least one bit, and 32 at most"),
        ("Q16.16", "32 at most"),
        ("UQ16.17", "32 at most"),
        ("Q-1.8", "`qsim formats` lists the names and spellings"),
        ("Q3", "fixed point is spelled Qm.n or UQm.n"),
        ("bfloat", "bfloat16"),
        ("e4m3fnx", "e4m3fn"),
        ("Binary8p4s", "Binary8p4s"),
        ("Binary17p4se", "did you mean"),
        ("int33", "integers are int2 to int32"),
        ("int1", "integers are int2 to int32"),
        ("uint8sym", "did you mean"),
        ("e" + 5000 * "9" + "m1", "; `qsim formats` lists the names and spellings"),
        ("e٤m3fn", "did you mean"),
        ("", "no format is called ''; `qsim formats` lists the names and spellings"),
        ("zzz", "no format is called 'zzz'; `qsim formats` lists the names and spellings"),
        ("int88", "integers are int2 to int32"),
    ],
)
def test_spellings_that_cannot_exist(spelling: str, fragment: str) -> None:
    """A spelling without a format is refused with ones that have one."""
    with pytest.raises(InputError, match=re.escape(fragment)) as caught:
        get_format(spelling)
    for suggested in re.findall(r"\be\d+m\d+[fnuz]*\b", fragment):
        assert get_format(suggested)
    assert repr(spelling)[1:-1][:50] in str(caught.value)  # a long one is cut
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("spelling", "name"),
    [
        ("E4M3", "float8_e4m3fn"), ("E4M2", "e4m2"), ("E4M2FN", "e4m2fn"), ("INT4", "int4"), ("BF16", "bfloat16"),
        ("FP16", "float16"), ("binary8P4SE", "Binary8p4se"), ("q3.4", "Q3.4"), ("uq0.8", "UQ0.8"), ("NF4", "nf4"),
        ("Float8_E4M3", "float8_e4m3"), ("UE8M0", "float8_e8m0fnu"), ("BINARY", "binary"), ("Binary16", "float16"),
        ("E4M3B11FNUZ", "float8_e4m3b11fnuz"), ("E3M2B5FNU", "e3m2b5fnu"), ("TF32", "tf32"), ("Posit8", "posit8"),
    ],
)  # fmt: skip
def test_upper_and_lower_case_are_one(spelling: str, name: str) -> None:
    """A name in other letters is the format of that name, under its own."""
    assert get_format(spelling) == get_format(name)
    assert get_format(spelling).name == name


def test_no_two_names_differ_in_case_alone() -> None:
    """Every name and alias of the catalogue is found in upper and in lower case, for no two are one then."""
    for fmt in catalogue().values():
        for name in (fmt.name, *fmt.aliases):
            assert get_format(name.upper()) is get_format(name.lower()) is fmt


def test_letters_that_only_fold_are_no_names() -> None:
    """What becomes a name by Unicode's rules for case alone is none: the sign of the kelvin, a long s."""
    for spelling in ("bfloat16\u212a", "po\u017fit8", "\uff25\uff14\uff2d\uff13"):
        with pytest.raises(InputError, match="no format is called"):
            get_format(spelling)


def test_short_names() -> None:
    """The short name of a format is found again, is no longer than its name, and belongs to no other."""
    found = {short_name(fmt.name): fmt for fmt in catalogue().values()}
    assert len(found) == len(catalogue())
    for short, fmt in found.items():
        assert get_format(short) is fmt
        assert len(short) <= len(fmt.name)
    names = [
        "e4m2",
        "e4m2fn",
        "float8_e4m3",
        "float8_e4m3fn",
        "float8_e4m3fnuz",
        "Q3.4",
        "E5M2",
        "bfloat16",
        "own.toml#x",
    ]
    assert [short_name(name) for name in names] == [
        "e4m2", "e4m2fn", "float8_e4m3", "e4m3", "e4m3fnuz", "Q3.4", "e5m2", "bf16", "own.toml#x",
    ]  # fmt: skip


def test_only_names_are_names() -> None:
    """What is neither a string nor a format is refused."""
    with pytest.raises(InputError, match="not int"):
        get_format(8)  # type: ignore[arg-type]


# --- Integers and fixed point ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fields", "fragment"),
    [
        ({"bits": 1}, "2 to 32 bits"),
        ({"bits": 33}, "2 to 32 bits"),
        ({"bits": 0, "signed": False}, "1 to 32 without sign"),
        ({"bits": 33, "signed": False}, "1 to 32 without sign"),
        ({"bits": 8, "signed": False, "symmetric": True}, "an unsigned integer cannot be symmetric"),
        ({"bits": 8, "frac_bits": 1001}, "1001 fraction bits are far outside"),
        ({"bits": 8, "frac_bits": -1001}, "-1001 fraction bits are far outside"),
    ],
    ids=str,
)
def test_integers_that_cannot_exist(fields: dict, fragment: str) -> None:
    """Integers of impossible widths, and unsigned symmetric ones, are refused by name."""
    with pytest.raises(InputError, match=f"^own: .*{fragment}"):
        integer_format("own", source="a test", **fields)


def test_integers_scaled_by_any_power_of_two() -> None:
    """Fraction bits may be more than there are bits, or negative: steps far below 1, or above it."""
    small, large = (integer_format("own", 4, "a test", frac_bits=n) for n in (10, -3))
    assert (small.max, small.min, small.smallest_subnormal) == (7 / 1024, -8 / 1024, 1 / 1024)
    assert (large.max, large.min, large.smallest_subnormal) == (56.0, -64.0, 8.0)
    assert (small.kind, large.kind) == ("fixed", "fixed")


def test_fixed_point_by_its_function() -> None:
    """`fixed_format` gives Qm.n of any name."""
    assert dataclasses.replace(fixed_format("own", 3, 4, "a test", signed=True), name="Q3.4") == get_format("Q3.4")


# --- Tables ----------------------------------------------------------------------------------------------------------


def test_tables_in_any_order() -> None:
    """A table numbers its values along the line whatever order they and their codes are given in."""
    fmt = table_format("t", [3.0, -1.0, 0.5, math.nan, -0.0], "a test", codes=[1, 6, 0, 5, 7])
    assert (fmt.bits, fmt.bottom, fmt.top, fmt.nan_code) == (3, 1, 2, 5)
    assert [fmt.value(n) for n in range(-1, 3)] == [-1, 0, Fraction(1, 2), 3]
    assert [fmt.code(n) for n in range(-1, 3)] == [6, 7, 0, 1]
    assert same_values(fmt.values(), np.array([0.5, 3.0, math.nan, math.nan, math.nan, math.nan, -1.0, 0.0]))
    assert same_values(np.array([fmt.decode(code) for code in (0, 1, 5, 6, 7)]), fmt.values()[[0, 1, 5, 6, 7]])
    for unused in (2, 3, 4):
        assert not fmt.is_code(unused)
        with pytest.raises(InputError, match=f"{unused} is no code of t: no value has it"):
            fmt.decode(unused)


def test_where_a_line_goes_on() -> None:
    """`above` and `below` are the next values of the line, which is otherwise at its end; they are none of the format."""
    fmt = table_format("t", [-1.0, 0.0, 1.0], "a test", above=2.5, below=-7.0)
    assert (fmt.value(2), fmt.value(-2)) == (Fraction(5, 2), -7)
    assert fmt.split(Fraction(7, 4)) == (1, Fraction(1, 2))
    assert fmt.split(Fraction(-4)) == (-1, Fraction(1, 2))
    assert fmt.split(Fraction(3)) == (2, 0)
    assert fmt.split(Fraction(-8)) == (-2, 0)
    assert (fmt.max, fmt.min) == (1.0, -1.0)
    closed = table_format("t", [-1.0, 0.0, 1.0], "a test")
    assert closed.split(Fraction(5, 4)) == (2, 0)
    for line, beyond in ((fmt, 3), (closed, 2), (closed, -2)):
        with pytest.raises(InputError, match=f"t has no value of ordinal {beyond}; it has -1 .. 1"):
            line.value(beyond)
    with pytest.raises(InputError, match=r"does not hold 2\.5"):
        fmt.ordinal(2.5)


@pytest.mark.parametrize(
    ("values", "fields", "fragment"),
    [
        ([1.0], {}, "at least two values"),
        ([math.nan, 1.0], {}, "at least two values"),
        ([1.0, 1.0], {}, "all different"),
        ([0.0, -0.0], {}, "all different"),
        ([0.0, math.inf], {}, "finite values, and at most one NaN"),
        ([0.0, 1.0, math.nan, math.nan], {}, "finite values, and at most one NaN"),
        ([0.0, 1.0], {"codes": [0, 0]}, "as many codes, all different"),
        ([0.0, 1.0], {"codes": [0, 1, 2]}, "as many codes, all different"),
        ([0.0, 1.0], {"codes": [-1, 1]}, "codes of 1 bits are 0 .. 1"),
        ([0.0, 1.0], {"codes": [0, 4], "bits": 2}, "codes of 2 bits are 0 .. 3"),
        ([0.0, 1.0], {"bits": 17}, "codes of 17 bits are 0 .. 65535"),
        ([0.0, 1.0], {"bits": 0}, "codes of 0 bits"),
        ([0.0, 1.0], {"codes": [0, 1 << 16]}, "codes of 17 bits"),
        ([0.0, 1.0], {"above": 1.0}, "lie beyond the values"),
        ([0.0, 1.0], {"above": math.inf}, "are finite"),
        ([0.0, 1.0], {"above": math.nan}, "are finite"),
        ([0.0, 1.0], {"below": 0.5}, "lie beyond the values"),
        ([0.0, 1.0], {"below": -math.inf}, "are finite"),
        ([-100.0, -1.0, 1.0, 100.0], {}, "zero_to says which it becomes, 'min' (-100.0) or 'max' (100.0)"),
        ([-1.0, math.nan, 1.0], {}, "zero_to says which it becomes, 'min' (-1.0), 'max' (1.0) or 'nan'"),
    ],
    ids=str,
)
def test_tables_that_cannot_exist(values: list[float], fields: dict, fragment: str) -> None:
    """A table that contradicts itself is refused by its name and what is wrong."""
    with pytest.raises(InputError, match=f"^t: .*{re.escape(fragment)}"):
        table_format("t", values, "a test", **fields)
