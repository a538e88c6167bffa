"""The named formats against the documents that define them: floats, integers, tables."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable
from fractions import Fraction
from typing import NamedTuple

import ml_dtypes
import numpy as np
import pytest
import scipy.stats
from alike import same_values
from strategies import CATALOGUE, NAMED, posit

from qsim.errors import InputError
from qsim.formats import SPECIALS, Grid, catalogue, float_format, get_format
from qsim.formats.build import SUBNORMALS

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
    assert same_values(fmt.values(), textbook(fields))


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
            assert same_values(fmt.values(), textbook(fields)), fields
            assert fmt.bias == fields.bias, fields
            number += 1
        else:
            with pytest.raises(InputError):
                own_float("drawn", fields)
    assert number > 1500


@pytest.mark.parametrize(
    ("fields", "fragment"),
    [
        (Fields(4, 3, 7, "f", zero=False), "only an unsigned format without mantissa bits can do without a zero"),
        (Fields(4, 3, 7, "f", signed=False, zero=False), "only an unsigned format without mantissa bits"),
        (Fields(4, 0, 7, "f", subnormals="normal"), "without mantissa bits there are no subnormals to be 'normal'"),
        (Fields(4, 3, 7, "f", subnormals="none"), "subnormals 'none' is not one of gradual, normal or half"),
        (Fields(11, 52, 1023, "ieee", subnormals="normal"), "at most 16 bits, not 64"),
        (
            Fields(8, 14, 127, "f", subnormals="half"),
            "rounded by a list of their values, so that .* at most 16 bits, not 23",
        ),
        (Fields(4, 12, 7, "f", subnormals="half"), "at most 16 bits, not 17"),
        (Fields(4, 13, 7, "f", False, subnormals="normal"), "at most 16 bits, not 17"),
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
                    assert same_values(get_format(spelling).values(), textbook(fields)), spelling
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
        assert same_values(fmt.values(), table.astype(np.float64))


@pytest.mark.parametrize(("layout", "first", "last"), [("e4m3", (1, 15), (-62, -48)), ("e5m2", (1, 31), (-62, -32))])
def test_configurable_floats(layout: str, first: tuple[int, int], last: tuple[int, int]) -> None:
    """CFloat8's bias is a parameter, 0 .. 63, spelled: the ends of its tables come out, and each step halves every value."""
    mantissa = {"e4m3": 1.875, "e5m2": 1.75}[layout]
    whole = get_format(f"{layout}b0f").values()
    for bias in range(64):
        fmt = get_format(f"{layout}b{bias}f")
        assert same_values(fmt.values(), whole * 2.0**-bias)
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
    assert same_values(get_format("int16").values(), codes.view(np.int16).astype(float))
    assert same_values(get_format("uint16").values(), codes.astype(float))
    assert same_values(get_format("Q7.8").values(), codes.view(np.int16) / 256)
    assert same_values(get_format("UQ8.8").values(), codes / 256)
    wide = np.arange(0, 1 << 32, 65521, dtype=np.uint32)
    assert same_values(get_format("int32").decode_array(wide), wide.view(np.int32).astype(float))
    assert same_values(get_format("uint32").decode_array(wide), wide.astype(float))
    assert same_values(get_format("Q0.31").decode_array(wide), wide.view(np.int32) * 2.0**-31)


def test_ternary_and_binary() -> None:
    """Ternary is -1, 0, 1 in two's complement of two bits, of which 10 is unused; binary is -1 and 1 in one bit."""
    assert same_values(get_format("ternary").values(), np.array([0.0, 1.0, math.nan, -1.0]))
    assert same_values(get_format("binary").values(), np.array([-1.0, 1.0]))
    assert [get_format("ternary").is_code(code) for code in range(4)] == [True, True, False, True]


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


# --- All of them -----------------------------------------------------------------------------------------------------


def test_the_catalogue_is_complete() -> None:
    """The formats that the field speaks of by name are there."""
    assert {
        *FLOATS, "float64", "float32", "tf32", "ternary", "binary", "nf4", "posit8", "log4_sqrt2", "Binary8p4se",
        *(f"{kind}{bits}" for kind in ("int", "uint") for bits in range(2, 33)), *(f"int{bits}sym" for bits in range(3, 33)),
    } <= set(catalogue())  # fmt: skip
