"""What a format is: its values, codes and ordinals, and the files and spellings it comes from."""

from __future__ import annotations

import dataclasses
import functools
import itertools
import math
import pickle
import re
from collections.abc import Iterable
from fractions import Fraction
from pathlib import Path
from typing import NamedTuple

import ml_dtypes
import numpy as np
import pytest
import scipy.stats
from hypothesis import given
from hypothesis import strategies as st
from strategies import (
    BIASED,
    CATALOGUE,
    FAR_TABLES,
    FIXED,
    FLOAT64,
    GAPPED,
    P3109,
    P3109_FAMILY,
    PARAMETRIC,
    SMALL,
    TABLES,
    UNSIGNED,
    WIDE_P3109,
    formats,
    ordinals,
    posit,
    rounded_in,
)  # fmt: skip

from qsim import encode, quantize
from qsim.errors import InputError
from qsim.formats import (
    SPECIALS,
    Format,
    Grid,
    Table,
    catalogue,
    fixed_format,
    float_format,
    get_format,
    integer_format,
    load_formats,
    p3109_format,
    table_format,
)  # fmt: skip
from qsim.formats.build import SUBNORMALS
from qsim.formats.catalogue import _collect
from qsim.rounding import Quantizer

NAMED = [fmt for fmt in CATALOGUE if fmt.bits <= 16]
"""The named formats of up to 16 bits, but for P3109's."""

by_name = pytest.mark.parametrize("fmt", NAMED, ids=str)

GROUPS = {
    "named": NAMED,
    "P3109": P3109,
    "spelled": [fmt for fmt in (*PARAMETRIC, *UNSIGNED, *BIASED) if fmt.bits <= 10],
    "fixed": [fmt for fmt in FIXED if fmt.bits <= 16],
    "lines": [*TABLES, *FAR_TABLES, *GAPPED],
}
by_group = pytest.mark.parametrize("group", GROUPS.values(), ids=GROUPS)


def same(a: np.ndarray, b: np.ndarray) -> bool:
    """Return whether two tables agree value by value, zeros in their sign too."""
    nan = np.isnan(a) & np.isnan(b)
    return bool(np.all(nan | ((a == b) & (np.signbit(a) == np.signbit(b)))))


@functools.cache
def finite(fmt: Format) -> np.ndarray:
    """Return the finite values of `fmt` in ascending order, zero once."""
    table = fmt.values()
    return np.unique(table[np.isfinite(table)])


# --- Floats, by the formula of the standards -------------------------------------------------------------------------


class Fields(NamedTuple):
    """The fields of a float format, as its standard states them."""

    exp_bits: int
    man_bits: int
    bias: int
    specials: str = "ieee"
    signed: bool = True
    zero: bool = True
    subnormals: str = "gradual"

    @property
    def bits(self) -> int:
        """The width of a code."""
        return self.signed + self.exp_bits + self.man_bits


FLOATS = {
    "float16": Fields(5, 10, 15),
    "bfloat16": Fields(8, 7, 127),
    "dlfloat16": Fields(6, 9, 31, "fn", subnormals="normal"),
    "float8_e3m4": Fields(3, 4, 3),
    "float8_e4m3": Fields(4, 3, 7),
    "float8_e4m3fn": Fields(4, 3, 7, "fn"),
    "float8_e4m3fnuz": Fields(4, 3, 8, "fnuz"),
    "float8_e4m3b11fnuz": Fields(4, 3, 11, "fnuz"),
    "float8_e5m2": Fields(5, 2, 15),
    "float8_e5m2fnuz": Fields(5, 2, 16, "fnuz"),
    "float8_e8m0fnu": Fields(8, 0, 127, "fn", signed=False, zero=False),
    "float8_e5m3fnu": Fields(5, 3, 15, "fn", signed=False),
    "float7_e4m3fnu": Fields(4, 3, 7, "fn", signed=False),
    "float6_e2m3fn": Fields(2, 3, 1, "f"),
    "float6_e3m2fn": Fields(3, 2, 3, "f"),
    "float4_e2m1fn": Fields(2, 1, 1, "f"),
    "cfloat8_1_4_3": Fields(4, 3, 7, "f"),
    "cfloat8_1_5_2": Fields(5, 2, 15, "f"),
    "cfloat8_1_4_3_half": Fields(4, 3, 7, "f", subnormals="half"),
}
"""The fields of every named float of up to 16 bits but P3109's, from the documents that the catalogue cites."""


def textbook(f: Fields) -> np.ndarray:
    """Return the value of every code by the formula of the standards, (-1)^s 2^(E - bias) (1 + F / 2^m)."""
    codes = np.arange(1 << f.bits)
    negative = codes >> (f.bits - 1) == 1 if f.signed else np.zeros(codes.size, bool)
    magnitudes = codes & ((1 << (f.exp_bits + f.man_bits)) - 1)
    exponent, fraction = magnitudes >> f.man_bits, magnitudes & ((1 << f.man_bits) - 1)
    hidden = magnitudes > 0 if f.subnormals == "normal" else exponent > 0
    power = exponent - f.bias + ((exponent == 0) & (f.subnormals == "gradual"))
    if not f.zero:
        hidden, power = np.ones_like(hidden), exponent - f.bias
    with np.errstate(over="ignore"):  # of the codes of special values
        values = np.ldexp(hidden + fraction / 2.0**f.man_bits, power)
    last = int(magnitudes.max())
    match f.specials:
        case "ieee":
            values[(exponent == (1 << f.exp_bits) - 1) & (fraction == 0)] = math.inf
            values[(exponent == (1 << f.exp_bits) - 1) & (fraction > 0)] = math.nan
        case "fn":
            values[magnitudes == last] = math.nan
        case "fnuz":
            values[negative & (magnitudes == 0)] = math.nan
        case "extended" if f.signed:
            values[magnitudes == last] = math.inf
            values[negative & (magnitudes == 0)] = math.nan
        case "extended":
            values[last - 1 :] = math.inf, math.nan
    return np.where(negative, -values, values)


@pytest.mark.parametrize(("name", "fields"), FLOATS.items())
def test_named_floats_by_the_textbook(name: str, fields: Fields) -> None:
    """Every code of a named float has the value that its standard's formula gives it."""
    fmt = get_format(name)
    assert fmt.bits == fields.bits
    assert fmt.bias == fields.bias
    assert same(fmt.values(), textbook(fields))


def test_no_named_float_is_forgotten() -> None:
    """The table above has every named float of up to 16 bits."""
    assert {fmt.name for fmt in NAMED if fmt.kind == "float"} == set(FLOATS)


def every_field(widest: int) -> Iterable[Fields]:
    """Return all combinations of fields of up to `widest` bits, with the usual bias, more and less, and none."""
    for exp_bits, man_bits in itertools.product(range(1, widest), range(widest - 1)):
        for specials, signed, zero, subnormals in itertools.product(SPECIALS, (True, False), (True, False), SUBNORMALS):
            usual = (1 << (exp_bits - 1)) - (specials not in {"fnuz", "extended"})
            for bias in sorted({0, usual - 2, usual, usual + 5}):
                fields = Fields(exp_bits, man_bits, bias, specials, signed, zero, subnormals)
                if fields.bits <= widest:
                    yield fields


def own_float(name: str, f: Fields, **words: str) -> Grid:
    """Return the format of these fields."""
    return float_format(
        name, f.exp_bits, f.man_bits, f.specials, "a test", bias=f.bias, signed=f.signed, zero=f.zero,  # type: ignore[arg-type]
        subnormals=f.subnormals, **words,  # type: ignore[arg-type]
    )  # fmt: skip


def possible(f: Fields) -> bool:
    """Return whether the fields can exist together."""
    if not f.zero and (f.signed or f.man_bits):
        return False
    if f.subnormals != "gradual" and not f.man_bits:
        return False
    match f.specials:
        case "ieee":  # an exponent for finite normal numbers, a mantissa for the NaN
            return f.exp_bits > 1 and f.man_bits > 0
        case "fnuz":  # the NaN takes the place of -0
            return f.signed
        case "fn" | "extended":  # a positive value must be left
            return f.exp_bits + f.man_bits > 1
    return True


def test_all_floats_by_the_textbook() -> None:
    """Every code of every float of up to 8 bits that can exist has the formula's value; what cannot exist is refused."""
    number = 0
    for fields in every_field(8):
        if possible(fields):
            fmt = own_float("drawn", fields)
            assert same(fmt.values(), textbook(fields)), fields
            assert fmt.bias == fields.bias, fields
            number += 1
        else:
            with pytest.raises(InputError):
                own_float("drawn", fields)
    assert number > 1500


@pytest.mark.parametrize("letters", ["", "fn", "fnuz", "f"])
@pytest.mark.parametrize("unsigned", ["", "u"])
def test_spellings_by_the_textbook(letters: str, unsigned: str) -> None:
    """Every code of every spelled format of up to 10 bits, with its bias or the usual one, has the formula's value."""
    specials = letters or "ieee"
    number = 0
    for exp_bits, man_bits in itertools.product(range(1, 10), range(9)):
        usual = (1 << (exp_bits - 1)) - (letters != "fnuz")
        for bias in (None, 0, usual + 3, -5):
            fields = Fields(exp_bits, man_bits, usual if bias is None else bias, specials, not unsigned)
            if unsigned and not man_bits:
                fields = fields._replace(zero=False)
            if fields.bits <= 10 and possible(fields):
                spelling = f"e{exp_bits}m{man_bits}{'' if bias is None else f'b{bias}'}{letters}{unsigned}"
                if not get_format(spelling).aliases:  # e2m3, e3m2 and e2m1 mean OCP's formats, which the catalogue has
                    assert same(get_format(spelling).values(), textbook(fields)), spelling
                    number += 1
    assert number > 90 or (letters, unsigned) == ("fnuz", "u")


LANDMARKS = {
    "float64": (1.7976931348623157e308, 2.2250738585072014e-308, 5e-324),
    "float32": (3.4028234663852886e38, 2.0**-126, 2.0**-149),
    "tf32": ((2 - 2.0**-10) * 2.0**127, 2.0**-126, 2.0**-136),
    "float16": (65504.0, 2.0**-14, 2.0**-24),
    "bfloat16": (3.3895313892515355e38, 2.0**-126, 2.0**-133),
    "dlfloat16": (2.0**33 - 2.0**24, 2.0**-31 * (1 + 2.0**-9), 2.0**-31 * (1 + 2.0**-9)),
    "float8_e3m4": (15.5, 2.0**-2, 2.0**-6),
    "float8_e4m3": (240.0, 2.0**-6, 2.0**-9),
    "float8_e4m3fn": (448.0, 2.0**-6, 2.0**-9),
    "float8_e4m3fnuz": (240.0, 2.0**-7, 2.0**-10),
    "float8_e4m3b11fnuz": (30.0, 2.0**-10, 2.0**-13),
    "float8_e5m2": (57344.0, 2.0**-14, 2.0**-16),
    "float8_e5m2fnuz": (57344.0, 2.0**-15, 2.0**-17),
    "float8_e8m0fnu": (2.0**127, 2.0**-127, 2.0**-127),
    "float8_e5m3fnu": (114688.0, 2.0**-14, 2.0**-17),
    "float7_e4m3fnu": (448.0, 2.0**-6, 2.0**-9),
    "float6_e2m3fn": (7.5, 1.0, 2.0**-3),
    "float6_e3m2fn": (28.0, 2.0**-2, 2.0**-4),
    "float4_e2m1fn": (6.0, 1.0, 2.0**-1),
    "cfloat8_1_4_3": (480.0, 2.0**-6, 2.0**-9),
    "cfloat8_1_5_2": (114688.0, 2.0**-14, 2.0**-16),
    "cfloat8_1_4_3_half": (480.0, 2.0**-6, 2.0**-10),
    "posit8": (2.0**24, 2.0**-24, 2.0**-24),
    "nf4": (1.0, 0.07958029955625534, 0.07958029955625534),
}
"""Largest, smallest normal and smallest positive value, as the documents print them."""


@pytest.mark.parametrize(("name", "printed"), LANDMARKS.items())
def test_printed_landmarks(name: str, printed: tuple[float, float, float]) -> None:
    """The largest, the smallest normal and the smallest positive value are those that the documents print."""
    fmt = get_format(name)
    assert (fmt.max, fmt.smallest_normal, fmt.smallest_subnormal) == printed


PEERS = {
    **{name: name for name in (
        "bfloat16", "float16", "float8_e3m4", "float8_e4m3", "float8_e4m3fn", "float8_e4m3fnuz", "float8_e4m3b11fnuz",
        "float8_e5m2", "float8_e5m2fnuz", "float8_e8m0fnu", "float6_e2m3fn", "float6_e3m2fn", "float4_e2m1fn", "int2",
        "int4", "uint2", "uint4", "int8", "uint8", "int16", "uint16",
    )},
    "e2m3f": "float6_e2m3fn", "e3m2f": "float6_e3m2fn", "e2m1f": "float4_e2m1fn", "e4m3b11fnuz": "float8_e4m3b11fnuz",
}  # fmt: skip
"""Our spelling, and the type of ml_dtypes or NumPy."""


@pytest.mark.parametrize(("ours", "theirs"), PEERS.items())
def test_tables_of_ml_dtypes(ours: str, theirs: str) -> None:
    """Every code has the value it has in ml_dtypes or NumPy; LLVM's names mean what LLVM means by them."""
    fmt = get_format(ours)
    dtype = np.dtype(getattr(ml_dtypes, theirs, None) or theirs)
    codes = np.arange(1 << fmt.bits, dtype=f"u{dtype.itemsize}")
    table = codes.view(dtype)
    if fmt.kind == "integer" and fmt.bits < 8 and fmt.signed:  # the spare bits of the byte repeat the sign
        table = (codes.astype(np.int8) << (8 - fmt.bits) >> (8 - fmt.bits)).view(dtype)
    with np.errstate(invalid="ignore"):  # signalling NaNs are codes as well
        assert same(fmt.values(), table.astype(np.float64))


@pytest.mark.parametrize(("layout", "first", "last"), [("e4m3", (1, 15), (-62, -48)), ("e5m2", (1, 31), (-62, -32))])
def test_configurable_floats(layout: str, first: tuple[int, int], last: tuple[int, int]) -> None:
    """CFloat8's bias is a parameter, 0 .. 63, spelled: the ends of its tables come out, and each step halves every value."""
    mantissa = {"e4m3": 1.875, "e5m2": 1.75}[layout]
    whole = get_format(f"{layout}b0f").values()
    for bias in range(64):
        fmt = get_format(f"{layout}b{bias}f")
        assert same(fmt.values(), whole * 2.0**-bias)
        for at, (low, high) in ((0, first), (63, last)):
            if bias == at:
                assert (fmt.smallest_normal, fmt.max) == (2.0**low, mantissa * 2.0**high)


# --- Integers and fixed point ----------------------------------------------------------------------------------------

WHOLE = [
    *(fmt for fmt in CATALOGUE if fmt.kind == "integer"),
    *map(get_format, ("Q3.4", "Q0.7", "Q7.8", "Q0.15", "Q8.0", "UQ0.8", "UQ8.8", "UQ0.1", "UQ16.16", "Q0.31", "Q31.0")),
]


@pytest.mark.parametrize("fmt", WHOLE, ids=str)
def test_integers_are_twos_complement(fmt: Grid) -> None:
    """Codes are two's complement, or plain binary without sign, times a power of two; only int{n}sym leaves one out."""
    symmetric = "sym" in fmt.name or fmt.name == "ternary"
    signed = not fmt.name.startswith("u") and not fmt.name.startswith("UQ")
    fraction = int(fmt.name.split(".")[1]) if "Q" in fmt.name else 0
    half = 1 << (fmt.bits - 1)
    codes = (
        [*range(1 << fmt.bits)]
        if fmt.bits <= 10
        else [0, 1, 2, 77, half - 1, half, half + 1, 2 * half - 2, 2 * half - 1]
    )
    for code in codes:
        number = code - 2 * half if signed and code >= half else code
        if symmetric and code == half:
            with pytest.raises(InputError, match=f"{code} is no code of {fmt}: no value has it"):
                fmt.decode(code)
            continue
        assert fmt.decode(code) == math.ldexp(number, -fraction)
        assert fmt.code(number) == code
        assert fmt.value(number) == Fraction(number, 1 << fraction)
        assert fmt.is_odd(number) == bool(code & 1)
    assert (fmt.bottom, fmt.top) == ((half - symmetric, half - 1) if signed else (0, 2 * half - 1))
    assert not fmt.has_neg_zero
    assert not fmt.has_nan
    assert not fmt.has_inf


def test_wide_integers_are_numpys() -> None:
    """All codes of 16-bit integers are NumPy's numbers of the same bits, and thirds of the 32-bit ones."""
    codes = np.arange(1 << 16, dtype=np.uint16)
    assert same(get_format("int16").values(), codes.view(np.int16).astype(float))
    assert same(get_format("uint16").values(), codes.astype(float))
    assert same(get_format("Q7.8").values(), codes.view(np.int16) / 256)
    assert same(get_format("UQ8.8").values(), codes / 256)
    wide = np.arange(0, 1 << 32, 65521, dtype=np.uint32)
    assert same(get_format("int32").decode_array(wide), wide.view(np.int32).astype(float))
    assert same(get_format("uint32").decode_array(wide), wide.astype(float))
    assert same(get_format("Q0.31").decode_array(wide), wide.view(np.int32) * 2.0**-31)


def test_ternary_and_binary() -> None:
    """Ternary is -1, 0, 1 in two's complement of two bits, of which 10 is unused; binary is -1 and 1 in one bit."""
    assert same(get_format("ternary").values(), np.array([0.0, 1.0, math.nan, -1.0]))
    assert same(get_format("binary").values(), np.array([-1.0, 1.0]))
    assert [get_format("ternary").is_code(code) for code in range(4)] == [True, True, False, True]


# --- P3109 -----------------------------------------------------------------------------------------------------------

P3109_NAME = re.compile(r"Binary(\d+)p(\d+)([su])([ef])")


def standard(name: str) -> tuple[list[int], list[int], dict[int, float]]:
    """Return, for the code points of the format called `name`, S and Q with the value S 2^Q, and the special values.

    The text of IEEE P3109, interim report 4.0: B = 2^(K - P - 1), or 2^(K - P) without sign (3.1). Decode (4.7.2): T = x mod
    2^(P - 1), E = x div 2^(P - 1); E = 0: T 2^(1 - P) 2^(1 - B); else (1 + T 2^(1 - P)) 2^(E - B). NaN is 2^(K - 1), or 2^K - 1
    without sign; +inf 2^(K - 1) - 1, or 2^K - 2; -inf 2^K - 1; x + 2^(K - 1) is minus x.
    """
    match = P3109_NAME.fullmatch(name)
    assert match
    k, p, signed, extended = int(match[1]), int(match[2]), match[3] == "s", match[4] == "e"
    bias = 1 << (k - p - 1) if signed else 1 << (k - p)
    half = 1 << (k - 1)
    significands, exponents = [], []
    for code in range(1 << k):
        e, t = divmod(code - half if signed and code >= half else code, 1 << (p - 1))
        s = t if e == 0 else t + (1 << (p - 1))
        significands.append(-s if signed and code >= half else s)
        exponents.append((1 if e == 0 else e) - bias + 1 - p)
    special = {half if signed else 2 * half - 1: math.nan}
    if extended:
        special[half - 1 if signed else 2 * half - 2] = math.inf
        special |= {2 * half - 1: -math.inf} if signed else {}
    return significands, exponents, special


def test_every_format_of_p3109_is_there() -> None:
    """For K from 3 to 16 there are formats of every P, signed (P < K) and unsigned (P <= K), extended and finite."""
    expected = [
        f"Binary{k}p{p}{sign}{domain}"
        for k in range(3, 17) for sign in "su" for p in range(1, k + (sign == "u")) for domain in "ef"
    ]  # fmt: skip
    assert sorted(expected) == sorted(fmt.name for fmt in (*P3109, *WIDE_P3109))
    assert len(expected) == 504
    assert {fmt.family for fmt in (*P3109, *WIDE_P3109)} == {P3109_FAMILY}


@pytest.mark.parametrize("fmt", [*P3109, *WIDE_P3109], ids=str)
def test_codes_of_p3109(fmt: Grid) -> None:
    """Every code point decodes to the value of the standard's text; formats beyond float64 say so, and are exact without."""
    significands, exponents, special = standard(fmt.name)
    assert {fmt.nan_code} == {code for code, value in special.items() if math.isnan(value)}
    assert {fmt.inf_code} - {None} == {code for code, value in special.items() if value == math.inf}
    assert not fmt.has_neg_zero
    try:
        values = fmt.values()
    except InputError as error:
        assert str(error) == f"{fmt} reaches beyond the range of a float64; `value` and `code` are exact"  # noqa: PT017 - some are in range
        assert max(exponents) > 1000 or min(exponents) < -1074
    else:
        expected = np.ldexp(np.array(significands, float), exponents)
        expected[list(special)] = list(special.values())
        assert same(values + 0.0, expected + 0.0)
        assert not np.signbit(values[values == 0]).any()
    step = 1 if fmt.bits <= 8 else (1 << fmt.bits) // 64 + 1
    check_p3109(fmt, significands, exponents, special, step)


@pytest.mark.exhaustive
@pytest.mark.parametrize("fmt", WIDE_P3109, ids=str)
def test_all_wide_codes_of_p3109(fmt: Grid) -> None:
    """The same, exactly, for every code point of the formats of 9 to 16 bits."""
    check_p3109(fmt, *standard(fmt.name), 1)


def check_p3109(fmt: Grid, significands: list[int], exponents: list[int], special: dict[int, float], step: int) -> None:
    """Hold every `step`-th code point, those beside the special ones and their neighbours against the standard."""
    at = {code + near for code in (0, *special, 1 << (fmt.bits - 1)) for near in range(-2, 3)}
    codes = sorted({*range(0, 1 << fmt.bits, step), *at} & {*range(1 << fmt.bits)} - {*special})
    for code in codes:
        exact = significands[code] * Fraction(2) ** exponents[code]
        ordinal = fmt.ordinal(exact)
        assert fmt.value(ordinal) == exact
        assert fmt.code(ordinal) == fmt.code(ordinal, negative_zero=True) == code
        assert fmt.is_odd(ordinal) == bool(code & 1)
        outer = code + 1
        if ordinal and outer < 1 << fmt.bits and outer not in special:  # the next code is the next value outward
            further = significands[outer] * Fraction(2) ** exponents[outer]
            assert abs(further) > abs(exact)
            assert fmt.split((3 * exact + further) / 4) == (ordinal, Fraction(1, 4))


@pytest.mark.parametrize("k", range(3, 9))
def test_published_tables_of_p3109(k: int, qsim_data: Path) -> None:
    """Every value of the value tables that the P3109 group publishes is ours, for all formats of up to 8 bits."""
    with np.load(qsim_data / "p3109-values-k3-k8.npz") as published:
        names = [name for name in published.files if name.startswith(f"Binary{k}p")]
        assert len(names) == 4 * k - 2
        for name in names:
            assert same(get_format(name).values(), published[name]), name


@pytest.mark.parametrize(
    ("k", "p", "signed"), [(2, 1, True), (17, 3, True), (8, 0, True), (8, 8, True), (8, 9, False), (8, -1, False)]
)
def test_formats_that_p3109_has_not(k: int, p: int, signed: bool) -> None:
    """K is 3 to 16 here and 0 < P < K, or P <= K without sign; anything else is refused by its name."""
    with pytest.raises(InputError, match=f"'Binary{k}p{p}{'s' if signed else 'u'}f'.* P 1 to K"):
        p3109_format(k, p, signed=signed, extended=False, source="a test")
    with pytest.raises(InputError, match="did you mean"):
        get_format(f"Binary{k}p{p}{'s' if signed else 'u'}f")


# --- Tables ----------------------------------------------------------------------------------------------------------


def test_posits_by_their_rule() -> None:
    """Every code of posit8 has the value of the posit standard's rule, NaR being the NaN; signed codes ascend."""
    fmt = get_format("posit8")
    for code in range(256):
        value = posit(code)
        if value is None:
            assert math.isnan(fmt.decode(code))
            assert code == fmt.nan_code == 0x80
        else:
            assert Fraction(fmt.decode(code)) == value
            assert fmt.ordinal(value) == (code + 128) % 256 - 128
    known = {
        0x40: 1,
        0xC0: -1,
        0x41: 1.125,
        0x3F: 0.9375,
        0x50: 4,
        0x60: 16,
        0x70: 256,
        0x7C: 2**16,
        0x7E: 2**20,
        0x7F: 2**24,
    }
    assert {code: fmt.decode(code) for code in known} == known


def test_nf4_are_quantiles_of_the_normal_distribution() -> None:
    """NF4's 16 values are float32 numbers: 8 negative and 9 other normal quantiles without the shared zero, scaled to 1.

    As bitsandbytes makes them: from equally spaced probabilities between 1/2 and 0.9677083, computed in float32.
    """
    fmt = get_format("nf4")
    values = fmt.values()
    assert np.array_equal(values, values.astype(np.float32))
    assert (fmt.bits, fmt.decode(0), fmt.decode(7), fmt.decode(15)) == (4, -1.0, 0.0, 1.0)
    positive = scipy.stats.norm.ppf(np.linspace(0.9677083, 0.5, 9)[:-1])
    negative = -scipy.stats.norm.ppf(np.linspace(0.9677083, 0.5, 8)[:-1])
    made = np.sort(np.concatenate([positive, negative, [0.0]]))
    assert np.allclose(values, made / made.max(), rtol=0, atol=2e-7)


def test_powers_of_the_root_of_two() -> None:
    """The logarithmic table has zero and +-2^((k - 7) / 2), each the float64 nearest to the irrational number."""
    fmt = get_format("log4_sqrt2")
    assert fmt.decode(0) == 0
    assert not fmt.is_code(8)
    for k in range(1, 8):
        value = fmt.decode(k)
        low, high = ((Fraction(value) + Fraction(np.nextafter(value, end))) / 2 for end in (0, math.inf))
        assert low**2 < Fraction(2) ** (k - 7) < high**2
        assert fmt.decode(8 + k) == -value


def test_tables_in_any_order() -> None:
    """A table numbers its values along the line whatever order they and their codes are given in."""
    fmt = table_format("t", [3.0, -1.0, 0.5, math.nan, -0.0], "a test", codes=[1, 6, 0, 5, 7])
    assert (fmt.bits, fmt.bottom, fmt.top, fmt.nan_code) == (3, 1, 2, 5)
    assert [fmt.value(n) for n in range(-1, 3)] == [-1, 0, Fraction(1, 2), 3]
    assert [fmt.code(n) for n in range(-1, 3)] == [6, 7, 0, 1]
    assert same(fmt.values(), np.array([0.5, 3.0, math.nan, math.nan, math.nan, math.nan, -1.0, 0.0]))
    assert same(np.array([fmt.decode(code) for code in (0, 1, 5, 6, 7)]), fmt.values()[[0, 1, 5, 6, 7]])
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
    ],
    ids=str,
)
def test_tables_that_cannot_exist(values: list[float], fields: dict, fragment: str) -> None:
    """A table that contradicts itself is refused by its name and what is wrong."""
    with pytest.raises(InputError, match=f"^t: .*{re.escape(fragment)}"):
        table_format("t", values, "a test", **fields)


# --- Every code of every format --------------------------------------------------------------------------------------


def in_order(fmt: Format) -> np.ndarray:
    """Return the codes of the ordinals -bottom .. top."""
    return np.array([fmt.code(ordinal) for ordinal in range(-fmt.bottom, fmt.top + 1)])


@by_group
def test_ordinals_are_the_order(group: list[Format]) -> None:
    """The codes of the ordinals -bottom .. top, in this order, have all the finite values in ascending order."""
    for fmt in group:
        values = fmt.values()[in_order(fmt)]
        assert (np.diff(values) > 0).all(), fmt
        assert np.array_equal(values, finite(fmt)), fmt


@pytest.mark.parametrize("group", [*GROUPS.values(), WIDE_P3109], ids=[*GROUPS, "wide P3109"])
def test_codes_round_trip(group: list[Format]) -> None:
    """Every value is encoded as its code, and the middle of two values has these two as its neighbours, for all codes."""
    for fmt in group:
        if not rounded_in(FLOAT64, fmt) or fmt in FAR_TABLES:
            continue
        values = fmt.values()
        codes = np.flatnonzero(~np.isnan(values))
        rule = "SatNone" if fmt.has_inf else None
        assert np.array_equal(encode(values[codes], fmt, saturation=rule), codes), fmt
        grid = np.unique(values[np.isfinite(values)])
        middle = grid[:-1] / 2 + grid[1:] / 2
        between = (grid[:-1] < middle) & (middle < grid[1:]) & (fmt.has_zero | (middle != 0))
        assert between.all() or fmt.name in {"neighbours", "binary"}
        low, high = (quantize(middle, fmt, mode) for mode in ("RDN", "RUP"))
        assert np.array_equal(low[between], grid[:-1][between]), fmt
        assert np.array_equal(high[between], grid[1:][between]), fmt


def check_codes(fmt: Format, step: int) -> None:
    """Hold every `step`-th ordinal, and all beside zero and the ends, against the sorted values."""
    grid = finite(fmt).tolist()
    near = {end + by for end in (0, -fmt.bottom, fmt.top) for by in range(-2, 3)}
    for ordinal in sorted({*range(-fmt.bottom, fmt.top + 1, step), *near} & {*range(-fmt.bottom, fmt.top + 1)}):
        at = ordinal + fmt.bottom
        value, exact = grid[at], Fraction(grid[at])
        code = fmt.code(ordinal)
        assert fmt.decode(code) == value
        assert fmt.value(ordinal) == exact
        assert fmt.ordinal(value) == fmt.ordinal(exact) == ordinal
        assert fmt.split(exact) == (ordinal, 0)
        assert fmt.neighbours(value) == (value, value)
        assert fmt.is_odd(ordinal) == bool(code % 2)
        assert fmt.is_code(code)
        if at + 1 < len(grid):
            above = Fraction(grid[at + 1])
            for weight in (Fraction(1, 2), Fraction(1, 1 << 80), 1 - Fraction(1, 1 << 80)):
                x = exact + weight * (above - exact)
                assert fmt.neighbours(x) == (value, grid[at + 1])
                inner, nu = (ordinal, weight) if x >= 0 else (ordinal + 1, 1 - weight)
                assert fmt.split(x) == (inner, nu)


@by_group
def test_ordinals_and_neighbours(group: list[Format]) -> None:
    """Each value has its ordinal, code and exact value; what is between two has both as neighbours, and a fraction.

    For all values of the named formats of up to 8 bits, and of others of up to 5, else some twenty and those at the edges.
    """
    whole = 8 if len(group) < 120 else 5
    for fmt in group:
        check_codes(fmt, 1 if fmt.bits <= whole else len(finite(fmt)) // 20 + 1)


@pytest.mark.exhaustive
@pytest.mark.parametrize("fmt", {f.name: f for group in GROUPS.values() for f in group}.values(), ids=str)
def test_all_ordinals_and_neighbours(fmt: Format) -> None:
    """The same for all values."""
    check_codes(fmt, 1)


@by_group
def test_signed_zeros(group: list[Format]) -> None:
    """-0 has a code of its own where the format tells it from +0, and is the plain zero elsewhere."""
    for fmt in group:
        zeros = np.flatnonzero(fmt.values() == 0).tolist()
        signs = [math.copysign(1, fmt.decode(code)) for code in zeros]
        assert signs == ([1, -1] if fmt.has_neg_zero else [1] * fmt.has_zero), fmt
        if fmt.has_zero:
            assert zeros == [fmt.code(0), fmt.code(0, negative_zero=True)][: len(zeros)], fmt


@by_group
def test_landmarks(group: list[Format]) -> None:
    """Largest, smallest and smallest positive values, eps and the special codes are those of the table of values."""
    for fmt in group:
        table, grid = fmt.values(), finite(fmt)
        assert (fmt.min, fmt.max) == (grid[0], grid[-1])
        assert fmt.signed == (grid[0] < 0)
        assert fmt.has_zero == (0 in grid)
        if (grid > 0).any():
            assert fmt.smallest_subnormal == grid[grid > 0][0]
        if 1 in grid and fmt.max > 1:
            assert fmt.eps == grid[grid > 1][0] - 1, fmt
        elif fmt.kind == "table" or fmt.max <= 1:
            assert math.isnan(fmt.eps)
        if isinstance(fmt, Grid):
            assert fmt.emax == math.frexp(fmt.max)[1] - 1
        if fmt.kind == "float" and not fmt.gap:  # the even part of the grid, from zero on, has 2^m steps
            assert fmt.smallest_normal == fmt.smallest_subnormal * 2**fmt.man_bits
        below = [fmt.is_subnormal(ordinal) for ordinal in range(fmt.top + 1)]
        assert sum(below) == (sum((grid > 0) & (grid < fmt.smallest_normal)) if fmt.kind == "float" else 0)
        unused = np.isnan(table) & (np.arange(table.size) != fmt.nan_code)
        assert fmt.has_nan == (fmt.nan_code is not None)
        assert fmt.has_nan or [fmt.is_code(code) for code in range(table.size)] == (~unused).tolist()
        assert fmt.has_inf == bool(np.isinf(table).any()) == (fmt.inf_code is not None)
        assert fmt.nan_code is None or math.isnan(table[fmt.nan_code])
        assert fmt.inf_code is None or table[fmt.inf_code] == math.inf
        if fmt.has_nan:
            assert math.isnan(fmt.decode(fmt.code_of_nan(negative=True)))
        if fmt.has_inf:
            expected = -math.inf if fmt.signed else math.inf
            assert fmt.decode(fmt.code_of_inf(negative=True)) == expected


@given(st.data())
def test_neighbours_by_search(data: st.DataObject) -> None:
    """The neighbours of a number are the ones that a search of the sorted values finds, itself where it is one."""
    fmt = data.draw(st.sampled_from([fmt for group in GROUPS.values() for fmt in group]))
    x = data.draw(st.floats(fmt.min, fmt.max))
    grid = finite(fmt)
    lower, upper = fmt.neighbours(x)
    assert lower == grid[np.searchsorted(grid, x, "right") - 1]
    assert upper == grid[np.searchsorted(grid, x, "left")]


@given(st.data())
def test_splitting_is_exact(data: st.DataObject) -> None:
    """The inner ordinal and the fraction give back the number exactly, also beyond the range where the line goes on."""
    fmt = data.draw(formats())
    at = ordinals(fmt)
    if data.draw(st.booleans()):
        ends = [float(max(min(fmt.value(n), 10**300), -(10**300))) for n in (at.start, at.stop)]
        x = Fraction(data.draw(st.floats(*ends)))
    else:
        n = data.draw(st.integers(at.start, at.stop - 1))
        low, high = fmt.value(n), fmt.value(n + 1)
        x = low + (high - low) * data.draw(st.fractions(0, 1))
    ordinal, nu = fmt.split(x)
    assert 0 <= nu < 1
    inner = fmt.value(ordinal)
    if nu:
        outer = fmt.value(ordinal + (-1 if x < 0 else 1))
        assert x == inner + nu * (outer - inner)
        assert (inner - x) * (outer - x) < 0
    else:
        assert x == inner


def test_what_has_no_place_is_refused() -> None:
    """NaN, infinities, numbers off the grid or beyond the range, and codes that are too large are refused by name."""
    fmt = get_format("e4m3")
    for value in (math.nan, math.inf, -math.inf, 0.1, 480.0, -480.0, Fraction(1, 3), Fraction(10) ** 400):
        with pytest.raises(InputError, match="float8_e4m3fn"):
            fmt.ordinal(value)
    for value in (math.nan, math.inf, -math.inf, 448.5, -448.5, Fraction(10) ** 400):
        with pytest.raises(InputError, match="range"):
            fmt.neighbours(value)
    for code in (-1, 256):
        with pytest.raises(InputError, match=r"0 \.\. 255"):
            fmt.decode(code)
    with pytest.raises(InputError, match="16 bits"):
        get_format("tf32").values()
    for name in ("e8m0", "binary"):  # without a zero
        with pytest.raises(InputError, match="does not hold 0"):
            get_format(name).ordinal(0.0)
    with pytest.raises(InputError, match="range"):
        get_format("e8m0").neighbours(2.0**-128)
    assert get_format("binary").neighbours(0.0) == (-1.0, 1.0)


@pytest.mark.parametrize("name", ["Binary16p1ue", "Binary13p1sf", "e12m3fn", "e4m3b4000f"])
def test_formats_beyond_float64(name: str) -> None:
    """A format that reaches beyond float64 numbers and codes its values exactly, and refuses to give them as floats."""
    fmt = get_format(name)
    for ordinal in (1, 2, fmt.top // 2, fmt.top - 1, fmt.top):
        exact = fmt.value(ordinal)
        assert fmt.ordinal(exact) == ordinal
        assert fmt.split(exact * Fraction(1 + (1 << 80), 1 << 80))[0] == ordinal
        assert fmt.code(ordinal) == ordinal - (not fmt.has_zero)
    with pytest.raises(InputError, match=f"{name} reaches beyond the range of a float64"):
        fmt.decode_array(np.array([0]))
    for landmark in ("max", "smallest_subnormal", "smallest_normal"):
        try:
            value = Fraction(getattr(fmt, landmark))
        except InputError as error:
            assert "reaches beyond the range of a float64" in str(error)  # noqa: PT017 - it may also be in range
        else:
            assert fmt.value(fmt.ordinal(value)) == value > 0


# --- Objects ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("fmt", {fmt.name: fmt for fmt in (*CATALOGUE, *SMALL, *TABLES, *GAPPED)}.values(), ids=str)
def test_formats_are_values(fmt: Format) -> None:
    """A format cannot be changed, is equal to its pickled copy, and keys a dictionary."""
    with pytest.raises(dataclasses.FrozenInstanceError):
        fmt.bits = 3  # type: ignore[misc]
    copy = pickle.loads(pickle.dumps(fmt))  # noqa: S301 - made a moment ago
    assert copy == fmt
    assert {fmt: 1}[copy] == 1
    assert str(fmt) == fmt.name


def test_tables_cannot_be_changed() -> None:
    """The shared table of values is read-only."""
    for name in ("e4m3", "nf4", "Binary8p3se"):
        with pytest.raises(ValueError, match="read-only"):
            get_format(name).values()[0] = 1


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
        ("Q-1.8", "did you mean"),
        ("q3.4", "did you mean"),
        ("Q3", "did you mean"),
        ("E4M3", "e4m3"),
        ("bfloat", "bfloat16"),
        ("e4m3fnx", "e4m3fn"),
        ("Binary8p4s", "Binary8p4s"),
        ("Binary17p4se", "did you mean"),
        ("int33", "did you mean"),
        ("int1", "did you mean"),
        ("uint8sym", "did you mean"),
        ("e" + 5000 * "9" + "m1", "did you mean"),
        ("e٤m3fn", "did you mean"),
        ("", "did you mean"),
    ],
)
def test_spellings_that_cannot_exist(spelling: str, fragment: str) -> None:
    """A spelling without a format is refused with ones that have one."""
    with pytest.raises(InputError, match=re.escape(fragment)) as caught:
        get_format(spelling)
    for suggested in re.findall(r"\be\d+m\d+[fnuz]*\b", fragment):
        assert get_format(suggested)
    assert repr(spelling)[1:-1] in str(caught.value)
    assert "\n" not in str(caught.value)


def test_only_names_are_names() -> None:
    """What is neither a string nor a format is refused."""
    with pytest.raises(InputError, match="not int"):
        get_format(8)  # type: ignore[arg-type]


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


@pytest.mark.parametrize(
    ("fields", "fragment"),
    [
        (Fields(4, 3, 7, "f", zero=False), "only an unsigned format without mantissa bits can do without a zero"),
        (Fields(4, 3, 7, "f", signed=False, zero=False), "only an unsigned format without mantissa bits"),
        (Fields(4, 0, 7, "f", subnormals="normal"), "without mantissa bits there are no subnormals to be 'normal'"),
        (Fields(4, 3, 7, "f", subnormals="none"), "subnormals 'none' is not one of gradual, normal or half"),
        (Fields(4, 3, 7, "fnu"), "specials 'fnu' is not one of ieee, fn"),
        (Fields(1, 0, 0, "extended"), "no positive value is left"),
        (Fields(4, 3, 40000, "f"), "bias 40000 is beyond"),
        (Fields(4, 53, 7, "f"), "0 to 52 mantissa bits"),
    ],
    ids=str,
)
def test_floats_that_cannot_exist(fields: Fields, fragment: str) -> None:
    """Fields that contradict each other are refused by what is wrong with them."""
    with pytest.raises(InputError, match=f"^own: .*{fragment}"):
        own_float("own", fields)


def test_fixed_point_by_its_function() -> None:
    """`fixed_format` gives Qm.n of any name."""
    assert dataclasses.replace(fixed_format("own", 3, 4, "a test", signed=True), name="Q3.4") == get_format("Q3.4")


# --- Files -----------------------------------------------------------------------------------------------------------

GOOD = {"name": '"a"', "kind": '"float"', "exp_bits": "4", "man_bits": "3", "specials": '"fn"', "source": '"a test"'}
WIDTHS = {"name": '"i{bits}"', "kind": '"integer"', "bits": "[3, 5]", "source": '"a test"'}
TABLE = {"name": '"t"', "kind": '"table"', "values": "[-1, 0.5, 2]", "source": '"a test"'}
FAMILY = {"name": '"p"', "kind": '"p3109"', "bits": "[3]", "source": '"a test"'}


def entry(fields: dict[str, str], **changes: str | None) -> str:
    """Return an entry of a format file: `fields` with `changes`, `None` for one that is left out."""
    lines = [f"{key} = {value}" for key, value in {**fields, **changes}.items() if value is not None]
    return "\n".join(["[[format]]", *lines, ""])


def write(path: Path, text: str) -> Path:
    """Write `text` to `path` and return the path."""
    path.write_text(text, encoding="utf-8")
    return path


def read(path: Path, text: str) -> Format:
    """Return the one format of a file with `text`."""
    (fmt,) = load_formats(write(path, text))
    return fmt


def test_a_file_of_formats(tmp_path: Path) -> None:
    """A file gives its formats in order: one a float entry, one a width of an integer entry, with their aliases."""
    text = entry(GOOD, aliases='["b", "c"]') + entry(WIDTHS, aliases='["j{bits}"]') + entry(TABLE, aliases='["u"]')
    found = load_formats(write(tmp_path / "f.toml", text))
    assert [(fmt.name, fmt.aliases, fmt.bits) for fmt in found] == [
        ("a", ("b", "c"), 8), ("i3", ("j3",), 3), ("i5", ("j5",), 5), ("t", ("u",), 2),
    ]  # fmt: skip
    assert found[0] == dataclasses.replace(get_format("e4m3"), name="a")


@pytest.mark.parametrize(
    ("text", "same_as"),
    [
        (entry(GOOD, bias="11", specials='"fnuz"'), "float8_e4m3b11fnuz"),
        (entry(GOOD, signed="false"), "float7_e4m3fnu"),
        (entry(GOOD, exp_bits="8", man_bits="0", signed="false", zero="false", zero_to='"min"'), "float8_e8m0fnu"),
        (entry(GOOD, exp_bits="6", man_bits="9", subnormals='"normal"'), "dlfloat16"),
        (entry(GOOD, specials='"f"', subnormals='"half"'), "cfloat8_1_4_3_half"),
        (entry(GOOD, specials='"f"', subnormals='"gradual"', signed="true", zero="true", bias="11"), "e4m3b11f"),
        (entry(WIDTHS, bits="[8]", name='"a"'), "int8"),
        (entry(WIDTHS, bits="[8]", name='"a"', symmetric="true"), "int8sym"),
        (entry(WIDTHS, bits="[8]", name='"a"', signed="false"), "uint8"),
        (entry(WIDTHS, bits="[8]", name='"a"', frac_bits="4"), "Q3.4"),
        (entry(WIDTHS, bits="[8]", name='"a"', frac_bits="8", signed="false"), "UQ0.8"),
        (entry(TABLE, name='"a"', values="[-1, 1]", nan_to='"max"', zero_to='"max"', bits="1"), "binary"),
    ],
)
def test_entries_say_what_the_catalogue_says(text: str, same_as: str, tmp_path: Path) -> None:
    """Each key means in a user's file what it means in the catalogue and in a spelling."""
    fmt = read(tmp_path / "f.toml", text)
    assert dataclasses.replace(fmt, name=same_as, family="") == dataclasses.replace(get_format(same_as), family="")


def test_tables_in_files(tmp_path: Path) -> None:
    """Values may be integers, floats, NaN or C99's hexadecimal strings; codes, width and where the line goes on as said."""
    text = entry(
        TABLE, values='["-0x1.8p-1", 0, 3.5, nan, "0x1p-1074"]', codes="[9, 8, 0, 1, 2]", bits="5", above="7",
        below='"-0x1p+3"', nan_to='"zero"',
    )  # fmt: skip
    fmt = read(tmp_path / "f.toml", text)
    assert isinstance(fmt, Table)
    assert fmt.points == (-0.75, 0.0, 5e-324, 3.5)
    assert (fmt.codes, fmt.nan_code, fmt.bits) == ((9, 8, 2, 0), 1, 5)
    assert (fmt.above, fmt.below, fmt.nan_to) == (7.0, -8.0, "zero")


def test_families_in_files(tmp_path: Path) -> None:
    """A p3109 entry stands for all the formats of its widths, whose names are the standard's."""
    found = load_formats(write(tmp_path / "f.toml", entry(FAMILY, bits="[3, 4]")))
    assert [fmt.name for fmt in found] == [fmt.name for fmt in P3109 if fmt.bits in (3, 4)]
    assert found == [dataclasses.replace(fmt, family="p") for fmt in P3109 if fmt.bits in (3, 4)]
    assert {fmt.family for fmt in found} == {"p"}


BAD = {
    "unknown key": (entry(GOOD, man_bit="3"), ["format 1 (a)", "'man_bit'", "man_bits"]),
    "key of another kind": (entry(GOOD, bits="[3]"), ["format 1 (a)", "'bits'"]),
    "missing kind": (entry(GOOD, kind=None), ["format 1 (a)", "kind", "'float', 'integer', 'p3109' or 'table'"]),
    "unknown kind": (entry(GOOD, kind='"flout"'), ["kind", "'flout'", "'float', 'integer', 'p3109' or 'table'"]),
    "kind of wrong type": (entry(GOOD, kind='["float"]'), ["kind", "['float']"]),
    "missing name": (entry(GOOD, name=None), ["format 1", "'name'", "missing"]),
    "empty name": (entry(GOOD, name='""'), ["format 1", "name is empty"]),
    "name of wrong type": (entry(GOOD, name="3"), ["format 1", "name = 3", "str"]),
    "missing source": (entry(GOOD, source=None), ["format 1 (a)", "'source'", "missing"]),
    "missing width": (entry(GOOD, exp_bits=None), ["'exp_bits'", "missing"]),
    "width as a string": (entry(GOOD, exp_bits='"4"'), ["exp_bits", "'4'", "int"]),
    "width as a truth": (entry(GOOD, exp_bits="true"), ["exp_bits", "True", "int"]),
    "width as a float": (entry(GOOD, man_bits="3.0"), ["man_bits", "3.0", "int"]),
    "second entry": (entry(GOOD) + entry(GOOD, name='"z"', man_bits=None), ["format 2 (z)", "'man_bits'"]),
    "unknown specials": (entry(GOOD, specials='"fnux"'), ["format 1 (a)", "'fnux'", "fnuz"]),
    "specials without room": (entry(GOOD, specials='"ieee"', man_bits="0"), ["format 1 (a)", "e4m0fn"]),
    "too wide": (entry(GOOD, exp_bits="17"), ["format 1 (a)", "17"]),
    "alias of wrong type": (entry(GOOD, aliases="[1]"), ["format 1 (a)", "aliases = 1", "str"]),
    "aliases of wrong type": (entry(GOOD, aliases='"b"'), ["format 1 (a)", "aliases", "'b'"]),
    "bias of wrong type": (entry(GOOD, bias="7.0"), ["format 1 (a)", "bias = 7.0", "int"]),
    "bias beyond floats": (entry(GOOD, bias="99999"), ["format 1 (a)", "bias 99999"]),
    "sign as a number": (entry(GOOD, signed="1"), ["format 1 (a)", "signed = 1", "bool"]),
    "zero as a word": (entry(GOOD, zero='"no"'), ["format 1 (a)", "zero = 'no'", "bool"]),
    "no zero, with a sign": (entry(GOOD, zero="false"), ["format 1 (a)", "can do without a zero"]),
    "unknown subnormals": (entry(GOOD, subnormals='"none"'), ["'none'", "gradual, normal or half"]),
    "subnormals as a truth": (entry(GOOD, subnormals="false"), ["subnormals = False", "str"]),
    "unsigned FNUZ": (entry(GOOD, signed="false", specials='"fnuz"'), ["no code of -0"]),
    "symmetric float": (entry(GOOD, symmetric="true"), ["unknown key 'symmetric'"]),
    "integer of wrong width": (entry(WIDTHS, bits="[3, 33]"), ["i33", "2 to 32"]),
    "integer without widths": (entry(WIDTHS, bits=None), ["'bits'", "missing"]),
    "integer with one width": (entry(WIDTHS, bits="3"), ["bits = 3", "list"]),
    "integer with no width": (entry(WIDTHS, bits="[]"), ["bits = []", "list", "not empty"]),
    "width that is no integer": (entry(WIDTHS, bits="[3, true]"), ["bits = ", "True", "int"]),
    "integer with mantissa": (entry(WIDTHS, man_bits="3"), ["'man_bits'"]),
    "unsigned and symmetric": (
        entry(WIDTHS, symmetric="true", signed="false"),
        ["unsigned integer cannot be symmetric"],
    ),
    "symmetric as a word": (entry(WIDTHS, symmetric='"yes"'), ["symmetric = 'yes'", "bool"]),
    "half a fraction bit": (entry(WIDTHS, frac_bits="0.5"), ["frac_bits = 0.5", "int"]),
    "fraction beyond floats": (entry(WIDTHS, frac_bits="2000"), ["2000 fraction bits"]),
    "integer with a NaN": (entry(WIDTHS, nan_to='"nan"'), ["nan_to = 'nan'", "'max', 'zero' or 'error'"]),
    "signed, negatives elsewhere": (entry(WIDTHS, negative_to='"min"'), ["negative_to = 'min'", "left out"]),
    "zero elsewhere": (entry(WIDTHS, zero_to='"min"'), ["zero_to = 'min'", "left out"]),
    "unsigned, negatives NaN": (entry(WIDTHS, signed="false", negative_to='"nan"'), ["negative_to = 'nan'", "'min'"]),
    "unknown nan_to": (entry(GOOD, nan_to='"inf"'), ["nan_to = 'inf'", "'nan', 'max', 'zero' or 'error'"]),
    "nan_to of wrong type": (entry(GOOD, nan_to="0"), ["nan_to = 0", "str"]),
    "nan_to a missing zero": (entry(TABLE, nan_to='"zero"'), ["format 1 (t)", "nan_to = 'zero'", "'max' or 'error'"]),
    "zero_to without NaN": (entry(TABLE, zero_to='"nan"'), ["format 1 (t)", "zero_to = 'nan'", "'min' or 'max'"]),
    "table without values": (entry(TABLE, values=None), ["format 1 (t)", "'values'", "missing"]),
    "table of nothing": (entry(TABLE, values="[]"), ["values = []", "not empty"]),
    "table that is no list": (entry(TABLE, values='"nf4"'), ["values = 'nf4'", "list"]),
    "value that is no number": (entry(TABLE, values='[0, "one"]'), ["values", "'one'", "no number that a float64"]),
    "value that is a truth": (entry(TABLE, values="[0, true]"), ["values", "True", "float"]),
    "decimal in a string": (entry(TABLE, values='[0, "10"]'), ["values", "'10'", "no number"]),
    "integer beyond floats": (
        entry(TABLE, values="[0, 9007199254740993]"),
        ["9007199254740993", "no number that a float64"],
    ),
    "string beyond floats": (entry(TABLE, values='[0, "0x1p+1024"]'), ["'0x1p+1024'", "no number that a float64"]),
    "string of too many digits": (
        entry(TABLE, values='[0, "0x1.00000000000001p0"]'),
        ["'0x1.00000000000001p0'", "float64"],
    ),
    "infinite value": (entry(TABLE, values="[0, inf]"), ["format 1 (t)", "finite values"]),
    "value twice": (entry(TABLE, values="[0, 1, 1.0]"), ["format 1 (t)", "all different"]),
    "too few codes": (entry(TABLE, codes="[0, 1]"), ["format 1 (t)", "3 values need as many codes"]),
    "codes as floats": (entry(TABLE, codes="[0, 1, 2.0]"), ["codes = 2.0", "int"]),
    "codes beyond the width": (entry(TABLE, codes="[0, 1, 4]", bits="2"), ["codes of 2 bits are 0 .. 3"]),
    "width as a list": (entry(TABLE, bits="[2]"), ["bits = [2]", "int"]),
    "above within": (entry(TABLE, above="1.5"), ["format 1 (t)", "above and below", "1.5"]),
    "below within": (entry(TABLE, below="-1"), ["format 1 (t)", "above and below", "-1.0"]),
    "table with a sign": (entry(TABLE, signed="true"), ["unknown key 'signed'"]),
    "family with a bias": (entry(FAMILY, bias="3"), ["format 1 (p)", "unknown key 'bias'"]),
    "family beyond the standard": (entry(FAMILY, bits="[3, 17]"), ["format 1 (p)", "'Binary17p1se'", "K is 3 to 16"]),
    "stray top-level key": ("format_version = 2\n" + entry(GOOD), ["'format_version'"]),
    "no entry": ("", ["no [[format]] entry"]),
    "entry that is no table": ("format = [3]", ["format 1", "[[format]]"]),
    "one table": ("[format]\nname = 'a'", ["[[format]]"]),
    "broken TOML": ("[[format]\n", ["not valid TOML", "line 1"]),
}


@pytest.mark.parametrize(("text", "fragments"), BAD.values(), ids=BAD)
def test_wrong_entries_are_refused(text: str, fragments: list[str], tmp_path: Path) -> None:
    """A wrong entry is refused in one line that names the file, the entry, the key and the value."""
    path = write(tmp_path / "bad.toml", text)
    for ask in (lambda: load_formats(path), lambda: get_format(f"{path}#a")):
        with pytest.raises(InputError) as caught:
            ask()
        message = str(caught.value)
        assert message.startswith(f"{path}: ")
        assert "\n" not in message
        for fragment in fragments:
            assert fragment in message


def test_every_key_is_refused_by_type(tmp_path: Path) -> None:
    """Every key of every kind refuses a value of another type, by its name."""
    keys = {
        "float": (
            GOOD,
            ["name", "source", "exp_bits", "man_bits", "specials", "aliases", "bias", "signed", "zero", "subnormals"],
        ),
        "integer": (WIDTHS, ["name", "source", "bits", "aliases", "signed", "symmetric", "frac_bits"]),
        "table": (TABLE, ["name", "source", "values", "aliases", "bits", "codes", "above", "below"]),
        "p3109": (FAMILY, ["name", "source", "bits"]),
    }
    for kind, (fields, names) in keys.items():
        for name in (*names, *(("nan_to", "negative_to", "zero_to") if kind != "p3109" else ())):
            text = entry(fields, **{name: "1979-05-27"})  # a date is of no key's type
            with pytest.raises(InputError, match=rf"f.toml: format 1.*{name} = datetime.date"):
                load_formats(write(tmp_path / "f.toml", text))


def test_braces_in_a_name(tmp_path: Path) -> None:
    """In an integer's name only {bits} stands for something; other braces are letters like others."""
    found = load_formats(write(tmp_path / "f.toml", entry(WIDTHS, name='"{i{x}{bits}"')))
    assert [fmt.name for fmt in found] == ["{i{x}3", "{i{x}5"]


def test_unreadable_files_are_refused(tmp_path: Path) -> None:
    """A file that is not there, is a folder, or is not UTF-8 is refused by its name."""
    (tmp_path / "folder.toml").mkdir()
    (tmp_path / "latin.toml").write_bytes(b"# caf\xe9\n")
    for name, problem in (("none", "No such file"), ("folder", "directory"), ("latin", "not valid TOML")):
        for ask in (load_formats, lambda path: get_format(str(path)), lambda path: get_format(f"{path}#a")):
            with pytest.raises(InputError, match=f"{name}.toml: .*{problem}"):
                ask(tmp_path / f"{name}.toml")


@pytest.mark.parametrize("one", [entry(GOOD), entry(GOOD, name='"b"', aliases='["a"]')], ids=["name", "alias"])
@pytest.mark.parametrize("two", [entry(GOOD), entry(GOOD, name='"c"', aliases='["a"]')], ids=["name", "alias"])
def test_names_are_taken_once(one: str, two: str, tmp_path: Path) -> None:
    """A name or alias that another file has, as either, is refused with both files."""
    first, other = write(tmp_path / "1.toml", one), write(tmp_path / "2.toml", two)
    with pytest.raises(InputError) as caught:
        _collect([first, other])
    assert str(caught.value) == f"{other}: the name 'a' is already taken by an entry of {first}"


def test_names_are_taken_once_in_a_file(tmp_path: Path) -> None:
    """A name that the same file has already is refused, also when a width repeats, and when the file is a user's own."""
    path = write(tmp_path / "f.toml", entry(WIDTHS, bits="[3, 3]"))
    for ask in (lambda: _collect([path]), lambda: get_format(f"{path}#i3")):
        with pytest.raises(InputError, match="'i3' is already taken"):
            ask()


# --- Formats by path -------------------------------------------------------------------------------------------------


@pytest.fixture
def own(tmp_path: Path) -> Path:
    """Return a file with a float, two integers and a table."""
    return write(tmp_path / "own.toml", entry(GOOD, aliases='["alias"]') + entry(WIDTHS) + entry(TABLE))


def test_formats_by_path(own: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """FILE.toml#NAME is an entry of a user's file, by a full or a relative path, wherever a format is named."""
    assert get_format(f"{own}#a") == dataclasses.replace(get_format("e4m3"), name="a")
    assert get_format(f"{own}#alias") == get_format(f"{own}#a")
    assert get_format(f"{own}#i5").bits == 5
    assert get_format(f"{own}#t").max == 2.0
    monkeypatch.chdir(own.parent)
    assert get_format("own.toml#t") == get_format("./own.toml#t") == get_format(f"{own}#t")
    x = np.array([0.4, 1.3, -2.0])
    assert quantize(x, "own.toml#t").tolist() == quantize(x, "own.toml#t:RNE").tolist() == [0.5, 2.0, -1.0]
    assert encode(x, f"{own}#t").tolist() == [1, 2, 0]
    assert Quantizer("own.toml#a", "SR").format.name == "a"


def test_the_only_format_of_a_file(tmp_path: Path) -> None:
    """FILE.toml is the file's only format; of several none is it, and some are named."""
    path = write(tmp_path / "one.toml", entry(TABLE))
    assert get_format(f"{path}").name == get_format(f"{path}#").name == "t"
    write(path, entry(TABLE, name='"other"'))
    assert get_format(f"{path}").name == "other", "a file that changed is read again"
    write(path, entry(TABLE) + entry(WIDTHS))
    with pytest.raises(InputError, match=re.escape(f"{path}: has 3 formats; name one, such as {path}#t, ")):
        get_format(f"{path}")


def test_missing_entries_are_refused(own: Path) -> None:
    """A name that the file has not is refused with names that it has."""
    with pytest.raises(InputError) as caught:
        get_format(f"{own}#i")
    message = str(caught.value)
    assert message.startswith(f"{own}: has no format called 'i'; name one, such as {own}#i3, {own}#i5")
    assert "\n" not in message
    with pytest.raises(InputError, match="has no format called 'float8_e4m3fn'"):  # the catalogue is not in the file
        get_format(f"{own}#float8_e4m3fn")


@pytest.mark.parametrize(
    ("tail", "mode", "argument"),
    [
        ("", "RNE", None),
        (":SR", "SR", None),
        (":SRA(8)", "SRA", 8),
        (":Threshold(0.25)", "THR", 0.25),
        (":RTN", "RNE", None),
    ],
)
def test_quantizers_by_path(tail: str, mode: str, argument: float | None, own: Path) -> None:
    """A path with a mode behind it spells a quantizer, also where the path holds colons and brackets of its own."""
    folder = own.parent / "a:b (1) #2"
    folder.mkdir()
    for path in (own, write(folder / "own.toml", own.read_text(encoding="utf-8"))):
        q = Quantizer.parse(f"{path}#a{tail}")
        assert (q.format.name, q.mode.name) == ("a", mode)
        assert argument in (q.sr_bits, q.eps)


def test_paths_with_toml_in_a_folder(own: Path) -> None:
    """A folder may be called like a file of formats."""
    folder = own.parent / "my.toml.d"
    folder.mkdir()
    path = write(folder / "own.toml", own.read_text(encoding="utf-8"))
    assert get_format(f"{path}#a").name == "a"


def test_the_catalogue_is_complete() -> None:
    """The formats that the field speaks of by name are there."""
    assert {
        *FLOATS, "float64", "float32", "tf32", "ternary", "binary", "nf4", "posit8", "log4_sqrt2", "Binary8p4se",
        *(f"{kind}{bits}" for kind in ("int", "uint") for bits in range(2, 33)), *(f"int{bits}sym" for bits in range(3, 33)),
    } <= set(catalogue())  # fmt: skip
