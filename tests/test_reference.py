"""The definition of every result, against other authors' conversions, the standard's text, exact moments and cases by hand."""

from __future__ import annotations

import decimal
import itertools
import math
from collections.abc import Iterable, Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

import gfloat
import ml_dtypes
import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from strategies import (
    BFLOAT16,
    CATALOGUE,
    FIXED,
    FLOAT16,
    FLOAT32,
    FLOAT64,
    GAPPED,
    P3109,
    PARAMETRIC,
    SMALL,
    TABLES,
    UNSIGNED,
    formats,
    inputs,
    near_thresholds,
    ordinals,
    posit,
    words,
)  # fmt: skip

import qsim
from qsim import reference
from qsim.errors import InputError
from qsim.formats import Format, Grid, Table, float_format, get_format, load_formats, table_format
from qsim.kernels.parameters import CARRIERS
from qsim.rounding import Mode, Saturation, saturations

INF, NAN = math.inf, math.nan


def alike(a: float, b: float) -> bool:
    """Return whether two results are the same: both NaN, or equal with the same sign, also of zero."""
    return (math.isnan(a) and math.isnan(b)) or (a == b and math.copysign(1, a) == math.copysign(1, b))


# --- Against ml_dtypes -----------------------------------------------------------------------------------------------

OVERFLOW = {
    "float8_e4m3fn": "OvfNaN", "float8_e5m2": "SatNone", "float8_e4m3": "SatNone", "float8_e3m4": "SatNone",
    "float8_e4m3fnuz": "OvfNaN", "float8_e5m2fnuz": "OvfNaN", "float8_e4m3b11fnuz": "OvfNaN",
    "float6_e2m3fn": "SatFinite", "float6_e3m2fn": "SatFinite", "float4_e2m1fn": "SatFinite",
    "bfloat16": "SatNone", "float8_e8m0fnu": "OvfNaN",
}  # fmt: skip
"""The float types of ml_dtypes, all of them, and what ml_dtypes does beyond their range."""


def test_no_type_of_ml_dtypes_is_forgotten() -> None:
    """The table above has every float type of ml_dtypes."""
    kinds = {name for name in dir(ml_dtypes) if name.startswith(("float", "bfloat"))}
    assert kinds == set(OVERFLOW)


def sixteen_bits(source: np.dtype) -> np.ndarray:
    """Return all 65,536 numbers of a 16-bit type as float32: ml_dtypes rounds float64 twice."""
    with np.errstate(invalid="ignore"):  # of signalling NaNs
        return np.arange(1 << 16, dtype=np.uint16).view(source).astype(np.float32)


@pytest.mark.parametrize("source", [FLOAT16, BFLOAT16], ids=str)
@pytest.mark.parametrize(("name", "rule"), [item for item in OVERFLOW.items() if item[0] != "float8_e8m0fnu"])
def test_nearest_of_ml_dtypes(name: str, rule: str, source: np.dtype) -> None:
    """All 65,536 numbers of 16 bits round to the code that ml_dtypes gives them, a NaN with its sign.

    Except that it makes -0 of a NaN, or 0 of a negative one, where there is no NaN (FP6 and FP4), for no stated reason.
    """
    fmt = get_format(name)
    x = sixteen_bits(source)
    with np.errstate(invalid="ignore", over="ignore"):
        theirs = x.astype(getattr(ml_dtypes, name)).view(np.uint16 if fmt.bits > 8 else np.uint8)
    ours = np.array([reference.encode(value, fmt, "RNE", saturation=rule, nan="signed") for value in x.tolist()])
    if not fmt.has_nan:
        nan = np.isnan(x)
        assert (ours[nan] == fmt.code(fmt.top)).all()
        assert (theirs[nan] == np.where(np.signbit(x[nan]), 0, 1 << (fmt.bits - 1))).all()
        ours[nan] = theirs[nan]
    assert np.array_equal(ours, theirs)


@pytest.mark.parametrize("source", [FLOAT16, BFLOAT16], ids=str)
def test_nearest_of_ml_dtypes_without_zero(source: np.dtype) -> None:
    """All numbers of 16 bits round to E8M0 as in ml_dtypes, where that is nearest: not at ties, zero and below 2^-126.

    It sends every tie up, all of (2^-127, 2^-126) as well, and makes NaN of 0 and of negative numbers too small for E8M0.
    """
    fmt = get_format("float8_e8m0fnu")
    x = sixteen_bits(source)
    with np.errstate(invalid="ignore", over="ignore"):
        theirs = x.astype(ml_dtypes.float8_e8m0fnu).view(np.uint8)
    even, up = (
        np.array([reference.encode(v, fmt, mode, saturation="OvfNaN") for v in x.tolist()]) for mode in ("RNE", "RNA")
    )
    small = np.abs(x) < 2.0**-126
    tie = np.frexp(x)[0] == 0.75
    assert np.array_equal(even[~small & ~tie], theirs[~small & ~tie])
    assert np.array_equal(up[~small], theirs[~small])
    lowest = (x > 0) & (x <= 2.0**-127)
    assert np.array_equal(up[lowest], theirs[lowest])
    assert set(up[lowest].tolist()) <= {0}
    between = small & (x > 2.0**-127)
    assert (theirs[between] == 1).all()
    assert np.array_equal(up[between], (x[between] >= 1.5 * 2.0**-127).astype(int))
    assert (theirs[x == 0] == fmt.nan_code).all()
    assert (up[x == 0] == 0).all()


def test_nearest_of_numpy() -> None:
    """All numbers of bfloat16, and floats beside half of binary16's thresholds, round to binary16 as in NumPy."""
    grid = np.arange(0x7C00, dtype=np.uint16).view(np.float16).astype(np.float32)
    ties = (grid[:-1] + grid[1:])[::7] / np.float32(2)
    edges = np.array([65519.996, 65520, 65520.004], np.float32)
    near = np.concatenate([ties, np.nextafter(ties, np.float32(0)), np.nextafter(ties, np.float32(INF)), edges])
    x = np.concatenate([sixteen_bits(BFLOAT16)[::3], near, -near])
    with np.errstate(invalid="ignore", over="ignore"):
        theirs = x.astype(np.float16).astype(np.float64).tolist()
    for value, expected in zip(x.tolist(), theirs, strict=True):
        assert alike(reference.quantize(value, "float16"), expected), value


# --- Against gfloat --------------------------------------------------------------------------------------------------


def peer(fmt: Grid) -> gfloat.FormatInfo:
    """Return gfloat's description of the float format `fmt`."""
    nans = {"ieee": (1 << fmt.man_bits) - 1, "fn": 1, "fnuz": 0, "f": 0, "extended": 0 if fmt.signed else 1}[
        fmt.specials
    ]
    return gfloat.FormatInfo(
        fmt.name, fmt.bits, fmt.precision, bias=fmt.bias, is_signed=fmt.signed, has_nz=fmt.has_neg_zero, num_high_nans=nans,
        domain=gfloat.Domain.Extended if fmt.has_inf else gfloat.Domain.Finite, has_subnormals=True,
        is_twos_complement=False,
    )  # fmt: skip


def rules_of_gfloat(fmt: Format) -> list[tuple[str, bool]]:
    """Return our rules that gfloat has, with its sat: it has no rule for what a format of finite values cannot hold."""
    return [("SatFinite", True), *((("SatNone" if fmt.has_inf else "OvfNaN"), False) for _ in range(fmt.has_nan))]


GFLOAT_MODES = {
    "RNE": "TiesToEven", "RNA": "TiesToAway", "RTZ": "TowardZero", "RUP": "TowardPositive", "RDN": "TowardNegative",
    "SRA": "StochasticFastest", "SRB": "StochasticFast", "SRC": "Stochastic",
}  # fmt: skip
"""gfloat's name of each mode that it has."""

GFLOAT_FORMATS = [
    fmt for fmt in (*CATALOGUE, *PARAMETRIC, *UNSIGNED, *P3109)
    if fmt.kind == "float" and fmt.has_zero and fmt.has_nan and CARRIERS[FLOAT64].holds(fmt) and fmt.bits <= 16
]  # fmt: skip
"""The floats that gfloat describes, with a NaN for it to return."""


@pytest.mark.parametrize("mode", GFLOAT_MODES)
@given(data=st.data())
def test_rounding_of_gfloat(mode: str, data: st.DataObject) -> None:
    """Each mode gives what gfloat's mode of another name gives, word by word, overflow and special values included."""
    fmt = data.draw(st.sampled_from(GFLOAT_FORMATS))
    rule, sat = data.draw(st.sampled_from(rules_of_gfloat(fmt)))
    x = float(data.draw(inputs(fmt, FLOAT32)))
    if not fmt.signed:  # gfloat has no rule for negative numbers there
        x = abs(x)
    n = data.draw(st.integers(0, 24)) if mode.startswith("S") else 0
    r = data.draw(words(n)) if n else 0
    theirs = gfloat.round_float(peer(fmt), x, gfloat.RoundMode[GFLOAT_MODES[mode]], sat=sat, srbits=r, srnumbits=n)
    assert alike(reference.quantize(x, fmt, mode, sr_bits=n, rbits=r, saturation=rule), theirs)


def between(fmt: Format, parts: int, at: Any = None) -> Iterator[Fraction]:
    """Return the points that divide each interval into `parts`, from the first beyond one end to that beyond the other."""
    for ordinal in ordinals(fmt) if at is None else at:
        low, high = fmt.value(ordinal), fmt.value(ordinal + 1)
        yield from (low + (high - low) * Fraction(k, parts) for k in range(parts))


EIGHT = [
    "float8_e4m3fn",
    "float8_e5m2",
    "float8_e4m3fnuz",
    "Binary8p4se",
    "Binary8p1sf",
    "Binary8p3ue",
    "Binary7p7uf",
    "e5m0fn",
]


@pytest.mark.parametrize("name", EIGHT)
def test_every_threshold_of_gfloat(name: str) -> None:
    """At and beside every value and middle, from beyond one end of the range to beyond the other, gfloat agrees."""
    fmt = get_format(name)
    theirs = peer(fmt)
    x = [v for v in map(float, between(fmt, 8)) if fmt.signed or v >= 0]
    for mode in ("RNE", "RNA", "RTZ", "RUP", "RDN"):
        for rule, sat in rules_of_gfloat(fmt):
            for v in x:
                expected = gfloat.round_float(theirs, v, gfloat.RoundMode[GFLOAT_MODES[mode]], sat=sat)
                assert alike(reference.quantize(v, fmt, mode, saturation=rule), expected), (v, mode, rule)


FEW = ["e2m2fnuz", "e3m1", "e3m0fnuz", "Binary4p2se", "Binary4p1sf", "Binary5p1ue", "Binary4p3uf"]


@pytest.mark.parametrize("n", range(5))
def test_every_word_of_gfloat(n: int) -> None:
    """With N = 0 .. 4 bits, every word of A, B and C does in gfloat what it does here, at all points of 2^(N + 2) parts."""
    for fmt in map(get_format, FEW):
        theirs = peer(fmt)
        near = {-1, 0, 1, fmt.top} if n > 2 else {-fmt.bottom - 1, -fmt.bottom, -2, -1, 0, 1, 2, fmt.top - 1, fmt.top}
        at = [ordinal for ordinal in sorted(near) if ordinal in ordinals(fmt) and (fmt.signed or ordinal >= 0)]
        rule, sat = rules_of_gfloat(fmt)[-1]
        for x in map(float, between(fmt, 1 << (n + 2), at)):
            for mode, r in itertools.product(("SRA", "SRB", "SRC"), range(1 << n)):
                y = gfloat.round_float(theirs, x, gfloat.RoundMode[GFLOAT_MODES[mode]], sat=sat, srbits=r, srnumbits=n)
                assert alike(reference.quantize(x, fmt, mode, sr_bits=n, rbits=r, saturation=rule), y), (
                    fmt,
                    x,
                    mode,
                    r,
                )


# --- Against the text of P3109 ---------------------------------------------------------------------------------------


class Standard:
    """A format of IEEE P3109, by the text of the interim report 4.0: projection, in the words of its sections.

    A row that some texts between 3.x and 4.0 have, (SatNone, ToOdd, X, Unsigned) -> Mhi, is in no edition of 4.0.
    """

    def __init__(self, name: str) -> None:
        self.k, self.p = map(int, name[6:-2].split("p"))
        self.signed, self.extended = name[-2] == "s", name[-1] == "e"
        self.bias = 1 << (self.k - self.p - 1) if self.signed else 1 << (self.k - self.p)
        self.half = 1 << (self.k - 1)
        self.nan = self.half if self.signed else 2 * self.half - 1
        self.inf = self.half - 1 if self.signed else 2 * self.half - 2
        self.high = self.decode(self.inf - self.extended)
        self.low = -self.high if self.signed else Fraction(0)
        self.codes: dict[Fraction, int] = {}

    def decode(self, code: int) -> Fraction:
        """4.7.2, for a code that is not negative."""
        e, t = divmod(code, 1 << (self.p - 1))
        whole = t * Fraction(2) ** (1 - self.p)
        return whole * Fraction(2) ** (1 - self.bias) if e == 0 else (1 + whole) * Fraction(2) ** (e - self.bias)

    def round_to_precision(self, x: Fraction, mode: str, n: int, r: int) -> Fraction:
        """4.7.4: Q = max(floor(log2|X|), 1 - B) - P + 1, S = floor(|X| 2^-Q), one more if RoundAway."""
        if x == 0:
            return x
        exponent = abs(x).numerator.bit_length() - x.denominator.bit_length()
        exponent -= Fraction(2) ** exponent > abs(x)
        q = max(exponent, 1 - self.bias) - self.p + 1
        significand = abs(x) / Fraction(2) ** q
        whole = math.floor(significand)
        v = significand - whole
        even = whole % 2 == 0 if self.p > 1 else whole == 0 or (q + self.bias) % 2 == 0
        scaled = v * 2**n
        nearest = math.floor(scaled) + (
            scaled % 1 > Fraction(1, 2) or (scaled % 1 == Fraction(1, 2) and scaled // 1 % 2 == 1)
        )
        away = {
            "RTZ": False,
            "RUP": v > 0 and x > 0,
            "RDN": v > 0 and x < 0,
            "RNA": v >= Fraction(1, 2),
            "RNE": v > Fraction(1, 2) or (v == Fraction(1, 2) and not even),
            "RTO": v > 0 and even,
            "SRA": math.floor(v * 2**n) + r >= 2**n,
            "SRB": math.floor(v * 2 ** (n + 1)) + 2 * r + 1 >= 2 ** (n + 1),
            "SRC": nearest + r >= 2**n,
        }[mode]
        rounded = (whole + away) * Fraction(2) ** q
        return rounded if x > 0 else -rounded

    def saturate(self, rule: str, mode: str, x: Any) -> Any:
        """4.7.5, row by row in its order; the first that matches is it."""
        infinite = isinstance(x, float)
        if x is None or (not infinite and self.low <= x <= self.high):
            return x
        above, below = x > self.high, x < self.low
        match rule:
            case "SatFinite":
                return self.high if above else self.low
            case "SatPropagate":
                if x == INF:
                    return INF if self.extended else self.high
                if x == -INF:
                    return -INF if self.signed and self.extended else self.low
                return self.low if below else self.high
        if mode in {"RTZ", "RDN"} and above and x != INF:
            return self.high
        if mode in {"RTZ", "RUP"} and below and x != -INF:
            return self.low
        if not self.extended:
            return None
        if x == INF:
            return INF
        if x == -INF:
            return -INF if self.signed else None
        if below:
            return -INF if self.signed else None
        return INF

    def encode(self, x: Any) -> int:
        """4.7.6; `None` is NaN."""
        if x is None:
            return self.nan
        if x < 0:
            return self.half + self.encode(-x)
        if isinstance(x, float):
            return self.inf
        if x not in self.codes:
            self.codes |= {self.decode(code): code for code in range(self.inf + 1 - self.extended)}
        return self.codes[x]


P3109_MODES = ["RNE", "RNA", "RTZ", "RUP", "RDN", "RTO", "SRA", "SRB", "SRC"]
"""The modes of P3109, by our aliases."""


def check_projection(fmt: Format, parts: int, n: int, at: Iterable[int]) -> None:
    """Hold every mode, word of `n` bits and saturation against the text, at points that divide some intervals."""
    standard = Standard(fmt.name)
    x: list[Any] = [*between(fmt, parts, at)]
    x += [sign * far * standard.high for sign in (1, -1) for far in (3, 1 << 40)]
    x += [None, INF, -INF, Fraction(0)]
    for mode in P3109_MODES:
        bits = n if mode.startswith("S") else 0
        for v, r in itertools.product(x, range(1 << bits)):
            rounded = standard.round_to_precision(v, mode, bits, r) if isinstance(v, Fraction) else v
            for rule in ("SatFinite", "SatPropagate", "SatNone"):
                expected = standard.encode(standard.saturate(rule, mode, rounded))
                given = NAN if v is None else v
                ours = reference.encode(given, fmt, mode, sr_bits=bits, rbits=r, saturation=rule)
                assert ours == expected, (fmt.name, v, mode, r, rule)
                if v == 0:  # -0 is 0 (4.8.1)
                    assert reference.encode(-0.0, fmt, mode, sr_bits=bits, rbits=r, saturation=rule) == expected == 0


@pytest.mark.parametrize("k", range(3, 9))
def test_projection_of_p3109(k: int) -> None:
    """Near zero, near the ends and beyond, every format of P3109 projects as the text says, in every mode and saturation."""
    for fmt in P3109:
        if fmt.bits == k:
            check_projection(
                fmt, 4, 1, [-fmt.top - 3, -fmt.top - 1, -fmt.top, -1, 0, 1, fmt.top - 1, fmt.top, fmt.top + 2]
            )


@pytest.mark.exhaustive
@pytest.mark.parametrize("fmt", P3109, ids=str)
def test_whole_projection_of_p3109(fmt: Format) -> None:
    """The same at all eighths of all intervals, with 2 random bits, and negative numbers as far as there are positive ones."""
    check_projection(fmt, 8, 2, range(-fmt.top - 2, fmt.top + 2))


def test_saturation_of_p3109_by_hand() -> None:
    """The rows of 4.7.5 as numbers: the largest value, infinity or NaN, by saturation, direction, sign and domain."""
    big, low = 1e9, -1e9
    for name, rule, mode, x, expected in (
        ("Binary8p4se", "SatNone", "RNE", big, INF), ("Binary8p4se", "SatNone", "RTZ", big, 224.0),
        ("Binary8p4se", "SatNone", "RDN", big, 224.0), ("Binary8p4se", "SatNone", "RUP", big, INF),
        ("Binary8p4se", "SatNone", "RTO", big, INF), ("Binary8p4se", "SatNone", "RUP", low, -224.0),
        ("Binary8p4se", "SatNone", "RDN", low, -INF), ("Binary8p4se", "SatNone", "RTZ", INF, INF),
        ("Binary8p4se", "SatPropagate", "RNE", big, 224.0), ("Binary8p4se", "SatPropagate", "RTZ", -INF, -INF),
        ("Binary8p4se", "SatFinite", "RUP", INF, 224.0), ("Binary8p4sf", "SatNone", "RNE", big, NAN),
        ("Binary8p4sf", "SatNone", "RTZ", big, 240.0), ("Binary8p4sf", "SatNone", "RTZ", INF, NAN),
        ("Binary8p4sf", "SatPropagate", "RNE", INF, 240.0), ("Binary8p4ue", "SatNone", "RNE", -1.0, NAN),
        ("Binary8p4ue", "SatNone", "RTZ", -1.0, 0.0), ("Binary8p4ue", "SatNone", "RUP", -1.0, 0.0),
        ("Binary8p4ue", "SatNone", "RDN", -1.0, NAN), ("Binary8p4ue", "SatNone", "RDN", -1e-30, NAN),
        ("Binary8p4ue", "SatNone", "RNE", -1e-30, 0.0), ("Binary8p4ue", "SatNone", "RTZ", -INF, NAN),
        ("Binary8p4ue", "SatPropagate", "RNE", -INF, 0.0), ("Binary8p4ue", "SatFinite", "RDN", -1.0, 0.0),
        ("Binary8p4uf", "SatNone", "RNE", -1.0, NAN), ("Binary8p4uf", "SatNone", "RTZ", -1.0, 0.0),
    ):  # fmt: skip
        assert alike(reference.quantize(x, name, mode, saturation=rule), expected), (name, rule, mode, x)


# --- Every mode by a second definition -------------------------------------------------------------------------------

DECIMAL = {
    "RNE": decimal.ROUND_HALF_EVEN, "RNA": decimal.ROUND_HALF_UP, "RNZ": decimal.ROUND_HALF_DOWN, "RTZ": decimal.ROUND_DOWN,
    "RAZ": decimal.ROUND_UP, "RUP": decimal.ROUND_CEILING, "RDN": decimal.ROUND_FLOOR,
}  # fmt: skip
"""The modes that Python's decimal arithmetic has, by its names."""


@pytest.mark.parametrize("name", ["int8", "Q3.4", "uint8", "int8sym", "UQ2.3"])
def test_integers_by_decimal_arithmetic(name: str) -> None:
    """At all multiples of 1/8 of a step, integers and fixed point round as Python's decimals, then saturate or wrap."""
    fmt = get_format(name)
    context = decimal.Context(prec=60)
    step = fmt.value(1)
    for eighths in range(-8 * fmt.bottom - 100, 8 * fmt.top + 100):
        x = Fraction(eighths, 8)
        for mode, theirs in DECIMAL.items():
            number = int((decimal.Decimal(eighths) / 8).quantize(decimal.Decimal(1), theirs, context))
            for rule in saturations(fmt):
                wrapped = number & ((1 << fmt.bits) - 1)
                clamped = max(-fmt.bottom, min(fmt.top, number)) & ((1 << fmt.bits) - 1)
                expected = wrapped if rule is Saturation.wrap else clamped
                assert reference.encode(x * step, fmt, mode, saturation=rule) == expected, (x, mode, rule)


def test_nearest_by_floor_and_ceiling() -> None:
    """RNP is floor(x + 1/2), RNN ceil(x - 1/2), and to odd is the number itself or its odd neighbour."""
    fmt = get_format("int8")
    for eighths in range(-1000, 1000):
        x = Fraction(eighths, 8)
        assert reference.quantize(x, fmt, "RNP") == math.floor(x + Fraction(1, 2))
        assert reference.quantize(x, fmt, "RNN") == math.ceil(x - Fraction(1, 2))
        odd = x if x.denominator == 1 else next(n for n in (math.floor(x), math.ceil(x)) if n % 2)
        assert reference.quantize(x, fmt, "RTO") == odd


@given(st.data())
def test_to_odd_saves_from_double_rounding(data: st.DataObject) -> None:
    """Rounding to odd with two bits more, and then to nearest, is rounding to nearest at once (Boldo and Melquiond 2008)."""
    exp_bits, man_bits = data.draw(st.integers(2, 8)), data.draw(st.integers(1, 8))
    narrow, wide = (float_format("own", exp_bits, bits, "ieee", "a test") for bits in (man_bits, man_bits + 2))
    x = Fraction(float(data.draw(near_thresholds(narrow, FLOAT64))))
    between_two = Fraction(reference.quantize(x, wide, "RTO", saturation="SatFinite"))
    for mode in ("RNE", "RNA", "RTZ", "RUP"):
        assert alike(reference.quantize(between_two, narrow, mode), reference.quantize(x, narrow, mode)) or not x


@pytest.mark.parametrize("fmt", SMALL, ids=str)
def test_modes_by_comparing_distances(fmt: Format) -> None:
    """At every eighth of every interval each mode gives the neighbour that its sentence names, by comparing values."""
    some = [n for n in ordinals(fmt) if fmt.bits < 6 or n % 64 < 4 or n > fmt.top - 3]
    for x in between(fmt, 8, some):
        if not (fmt.min <= x <= fmt.max) or (not fmt.has_zero and abs(x) < fmt.smallest_subnormal):
            continue
        low, high = (Fraction(v) for v in fmt.neighbours(x))
        near = low if x - low < high - x else high
        tie = x - low == high - x and low != high
        inner, outer = (low, high) if x > 0 else (high, low)
        odd = [v for v in (low, high) if fmt.code(fmt.ordinal(v)) % 2]
        expected = {
            "RDN": low, "RUP": high, "RTZ": inner, "RAZ": outer, "RNA": outer if tie else near, "RNZ": inner if tie else near,
            "RNP": high if tie else near, "RNN": low if tie else near,
        }  # fmt: skip
        if len(odd) == 1:
            expected["RTO"] = odd[0]
            expected["RNE"] = (low + high - odd[0]) if tie else near
        if low == high:
            expected = dict.fromkeys([*expected, "RTO", "RNE"], low)
        for mode, value in expected.items():
            assert reference.quantize(x, fmt, mode) == value, (x, mode)


def test_rounding_of_posits() -> None:
    """Between two posits the table rounds to the nearer one, the standard to one side of the posit of a bit more.

    These are the same but between the three smallest and the three largest of either sign, where exponent bits are cut off;
    and the standard rounds nothing but 0 to zero.
    """
    different = set()
    for code in range(1, 127):
        low, high, middle = posit(code), posit(code + 1), posit(2 * code + 1, 9)
        assert low is not None
        assert high is not None
        assert middle is not None
        for part in range(1, 64):
            x = low + Fraction(part, 64) * (high - low)
            up = x > middle or (x == middle and code % 2 == 1)
            ours = reference.encode(x, "posit8")
            assert ours in (code, code + 1)
            assert reference.encode(-x, "posit8") == 256 - ours
            if ours != code + up:
                different.add(code)
    assert different == {0x01, 0x02, 0x03, 0x7C, 0x7D, 0x7E}
    assert reference.encode(2.0**-26, "posit8") == 0


# --- Stochastic rounding by enumeration ------------------------------------------------------------------------------


def some_intervals(fmt: Format) -> list[tuple[Fraction, Fraction]]:
    """Return the ends of intervals of all kinds: at zero, subnormal, normal, at the largest value, on both sides."""
    whole = 1 << fmt.man_bits if isinstance(fmt, Grid) else 2
    starts = {0, 1, whole - 1, whole, fmt.top // 2, fmt.top - 1}
    at = {*starts, *(-1 - start for start in starts), -fmt.bottom} & {*range(-fmt.bottom, fmt.top)}
    return [(fmt.value(n), fmt.value(n + 1)) for n in sorted(at)]


def check_words(fmt: Format, n: int) -> None:
    """Hold all words of `n` bits together, at points of intervals that `n` bits do and do not hold."""
    whole = 1 << n
    marks = {Fraction(k, whole) for k in (0, 1, whole * 3 // 10, whole // 2, whole - 1)}
    marks |= {Fraction(k, whole << extra) for extra, k in ((3, whole + 5), (9, 1))}
    for low, high in some_intervals(fmt):
        for part in marks:
            x = low + part * (high - low)
            inner, outer = (low, high) if x >= 0 else (high, low)
            nu = (x - inner) / (outer - inner)
            if not fmt.has_zero and not x:
                continue
            for mode, ups in (
                ("SRA", math.floor(nu * whole)),
                ("SRB", math.floor(nu * whole + Fraction(1, 2))),
                ("SRC", round(nu * whole)),
            ):
                results = [Fraction(reference.quantize(x, fmt, mode, sr_bits=n, rbits=r)) for r in range(whole)]
                assert results == [inner] * (whole - ups) + [outer] * ups, (x, mode)
                mean = sum(results) / whole
                variance = sum((y - mean) ** 2 for y in results) / whole
                bias = (mean - x) / (outer - inner)  # in units of the interval, outward
                if nu.denominator <= whole:
                    assert (mean, variance) == reference.sr_moments(x, fmt) == (x, (high - x) * (x - low))
                elif mode == "SRA":
                    assert -Fraction(1, whole) < bias < 0
                else:
                    assert abs(bias) <= Fraction(1, 2 * whole)


@pytest.mark.parametrize("fmt", SMALL, ids=str)
def test_all_words_together(fmt: Format) -> None:
    """Over all words the moments are those of the theory where N bits hold the fraction, else the bias is bounded.

    As many words go up as the rule says: A is short by less than 2^-N of an interval, toward zero; B and C by half of that.
    """
    check_words(fmt, 3)


@pytest.mark.parametrize("name", ["float8_e4m3fn", "float8_e8m0fnu", "nf4"])
def test_all_words_of_eight_bits(name: str) -> None:
    """The same with 8 bits."""
    check_words(get_format(name), 8)


@pytest.mark.exhaustive
@pytest.mark.parametrize("fmt", [*SMALL, *P3109], ids=lambda fmt: fmt.name)
@pytest.mark.parametrize("n", [0, 1, 8])
def test_all_words_everywhere(fmt: Format, n: int) -> None:
    """The same in every small format, with 8 bits, one, and none."""
    check_words(fmt, n)


def test_equal_chances() -> None:
    """StochasticEqual goes up for the half of the words whose top bit is set, wherever between two values a number is."""
    for x, low, high in ((1.0000001, 1.0, 1.125), (-1.1, -1.0, -1.125), (2.0**-30, 0.0, 2.0**-9)):
        for n in (1, 2, 5):
            results = [reference.quantize(x, "e4m3", "SRE", sr_bits=n, rbits=r) for r in range(1 << n)]
            assert results == [low] * (1 << (n - 1)) + [high] * (1 << (n - 1))
    assert {reference.quantize(1.125, "e4m3", "SRE", sr_bits=3, rbits=r) for r in range(8)} == {1.125}


@given(st.data())
def test_words_are_a_threshold(data: st.DataObject) -> None:
    """A larger word never rounds to a smaller magnitude, the word 0 truncates, and without bits nothing rounds up."""
    fmt = data.draw(formats())
    x = abs(float(data.draw(near_thresholds(fmt, FLOAT64))))
    assume(fmt.has_zero and not (isinstance(fmt, Table) and fmt.max < x))
    n = data.draw(st.integers(1, 64))
    small, large = sorted((data.draw(words(n)), data.draw(words(n))))
    truncated, low, high = (reference.quantize(x, fmt, "SRA", sr_bits=n, rbits=r) for r in (0, small, large))
    assert truncated <= low <= high or math.isnan(high)
    assert alike(reference.quantize(x, fmt, "SRA"), truncated)
    if fmt.min <= x <= fmt.max:
        assert truncated == fmt.neighbours(x)[0]


# --- Threshold -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("fmt", SMALL, ids=str)
def test_uniform_thresholds_are_stochastic_rounding(fmt: Format) -> None:
    """Over all eps = k / 2^N the mean is x where N bits hold the fraction (Liu et al.): Threshold is SR with its eps."""
    n = 3
    thresholds = [k / 2.0**n for k in range(1 << n)]
    for low, high in some_intervals(fmt):
        for k in range(1 << n):
            x = low + Fraction(k, 1 << n) * (high - low)
            if not fmt.has_zero and not x:
                continue
            results = [Fraction(reference.quantize(x, fmt, "Threshold", eps=eps)) for eps in thresholds]
            assert results == [high] * k + [low] * ((1 << n) - k), x
            assert sum(results) / len(results) == x


def test_threshold_is_a_ceiling() -> None:
    """On integers Threshold(eps) is ceil(x - eps), for negative numbers too: a threshold of the whole line, not of |x|."""
    for sixteenths in range(-600, 600):
        x = Fraction(sixteenths, 16)
        for eps in (0.0, 0.25, 0.5, 1 / 3, 0.9375, 1 - 2.0**-53):
            assert reference.quantize(x, "int8", "Threshold", eps=eps) == math.ceil(x - Fraction(eps))
        assert reference.quantize(x, "int8", "Threshold", eps=0.5) == reference.quantize(x, "int8", "RNN")


@given(st.data())
def test_ends_of_the_thresholds(data: st.DataObject) -> None:
    """Threshold(0) is RUP, and with the largest threshold it is RDN unless the fraction is larger still."""
    fmt = data.draw(formats())
    x = float(data.draw(near_thresholds(fmt, FLOAT64)))
    rule = data.draw(st.sampled_from(saturations(fmt)))
    assume(math.isfinite(x) and fmt.min <= x <= fmt.max)
    assert alike(
        reference.quantize(x, fmt, "Threshold", eps=0.0, saturation=rule),
        reference.quantize(x, fmt, "RUP", saturation=rule),
    )
    top = 1 - 2.0**-53
    low, high = (Fraction(v) for v in fmt.neighbours(x))
    y = reference.quantize(x, fmt, "Threshold", eps=top, saturation=rule)
    if x and low != high:
        assert y == (high if Fraction(x) - low > Fraction(top) * (high - low) else low)


def test_thresholds_by_hand() -> None:
    """1.03 is 0.24 of the way from 1 to 1.125; -1.03 is 0.76 of the way up from -1.125, so it goes up for more thresholds."""
    for eps, up, down in (
        (0.0, 1.125, -1.0),
        (0.2, 1.125, -1.0),
        (0.25, 1.0, -1.0),
        (0.75, 1.0, -1.0),
        (0.77, 1.0, -1.125),
    ):
        assert reference.quantize(1.03, "e4m3", "Threshold", eps=eps) == up
        assert reference.quantize(-1.03, "e4m3", "Threshold", eps=eps) == down
    assert alike(reference.quantize(-(2.0**-12), "e4m3", "Threshold", eps=0.5), -0.0)
    assert reference.quantize(460.0, "e4m3", "Threshold", eps=0.5, saturation="OvfNaN") == 448.0
    assert math.isnan(reference.quantize(470.0, "e4m3", "Threshold", eps=0.5, saturation="OvfNaN"))


# --- What a format cannot hold ---------------------------------------------------------------------------------------

CLAMPED = {"SatFinite", "SatPropagate", "saturate"}


def stated(fmt: Format, x: float, rule: str, mode: Mode) -> float | None:
    """Return what the data of `fmt` say becomes of a special or an out-of-range number; `None` where it is refused.

    nan_to, zero_to and negative_to are the words of the format's entry, `rule` the saturation.
    """
    ends = {"min": fmt.min, "max": fmt.max, "nan": NAN, "zero": 0.0}
    if math.isnan(x):
        return None if fmt.nan_to == "error" else ends[fmt.nan_to]
    if x == 0:
        return (x if fmt.has_neg_zero else 0.0) if fmt.has_zero else ends[fmt.zero_to]
    negative = x < 0
    end = fmt.min if negative else fmt.max
    if math.isinf(x):
        if rule == "SatPropagate" and negative and not fmt.signed:
            return end
        if rule in {"SatFinite", "saturate", "wrap"}:
            return end
    elif rule in CLAMPED or mode.inward(negative=negative):
        return end
    if negative and not fmt.signed:
        return ends[fmt.negative_to]
    return NAN if rule == "OvfNaN" else x * INF


ENDS = (Mode.RNE, Mode.RTZ, Mode.RUP, Mode.RDN, Mode.RTO)


def check_unheld(fmt: Format, modes: tuple[Mode, ...] = ENDS) -> None:
    """Hold definition and arrays against what the data of `fmt` say, for NaN, infinities, zeros and numbers out of range."""
    beyond = 4 * max(fmt.max, -fmt.min, 1.0) if max(fmt.max, -fmt.min) < 1e300 else INF
    x = np.array([NAN, -NAN, INF, -INF, 0.0, -0.0, beyond, -beyond])
    for rule, mode in itertools.product(saturations(fmt), modes):
        finite_wraps = rule is Saturation.wrap
        for value in x.tolist():
            expected = stated(fmt, value, rule.value, mode)
            if finite_wraps and math.isfinite(value) and value:
                low, high = fmt.value(-fmt.bottom), fmt.value(1) * (1 << fmt.bits)
                expected = float((Fraction(value) - low) % high + low)
            if expected is None:
                with pytest.raises(InputError, match=f"a NaN has no place in {fmt}"):
                    reference.encode(value, fmt, mode, saturation=rule)
                with pytest.raises(InputError, match=f"is NaN, which has no place in {fmt}"):
                    qsim.encode(np.array([value]), fmt, mode, saturation=rule)
                continue
            code = reference.encode(value, fmt, mode, saturation=rule)
            assert alike(reference.quantize(value, fmt, mode, saturation=rule), expected), (fmt, value, rule, mode)
            assert alike(fmt.decode(code), expected)
            assert qsim.encode(np.array([value]), fmt, mode, saturation=rule).tolist() == [code], (
                fmt,
                value,
                rule,
                mode,
            )


@pytest.mark.parametrize(
    "fmt", {fmt.name: fmt for fmt in (*CATALOGUE, *P3109, *SMALL, *TABLES, *GAPPED, *FIXED)}.values(), ids=str
)
def test_what_a_format_cannot_hold(fmt: Format) -> None:
    """What the data of every format say becomes of NaN, infinities, zeros, negative and too large numbers, does."""
    check_unheld(fmt)


SAID = {
    "float16": ("nan", "", ""), "bfloat16": ("nan", "", ""), "float32": ("nan", "", ""), "float64": ("nan", "", ""),
    "float8_e4m3fn": ("nan", "", ""), "float8_e4m3fnuz": ("nan", "", ""), "dlfloat16": ("nan", "", ""),
    "float6_e2m3fn": ("max", "", ""), "float6_e3m2fn": ("max", "", ""), "float4_e2m1fn": ("max", "", ""),
    "cfloat8_1_4_3": ("max", "", ""), "cfloat8_1_5_2": ("max", "", ""), "cfloat8_1_4_3_half": ("max", "", ""),
    "float8_e8m0fnu": ("nan", "nan", "min"), "float7_e4m3fnu": ("nan", "nan", ""), "float8_e5m3fnu": ("nan", "nan", ""),
    "Binary8p4se": ("nan", "", ""), "Binary8p4ue": ("nan", "nan", ""), "Binary8p4uf": ("nan", "nan", ""),
    "int8": ("zero", "", ""), "uint8": ("zero", "min", ""), "int8sym": ("zero", "", ""), "ternary": ("zero", "", ""),
    "Q3.4": ("zero", "", ""), "UQ0.8": ("zero", "min", ""), "e4m3fu": ("max", "min", ""), "e4m0fu": ("max", "min", "min"),
    "binary": ("max", "", "max"), "nf4": ("zero", "", ""), "log4_sqrt2": ("zero", "", ""), "posit8": ("nan", "", ""),
}  # fmt: skip
"""nan_to, negative_to and zero_to: PTX's maximum where there is no NaN, a NaN for what is negative where there is one."""


@pytest.mark.parametrize(("name", "words_of"), SAID.items())
def test_what_the_catalogue_says(name: str, words_of: tuple[str, str, str]) -> None:
    """The catalogue and the spellings say what becomes of NaN, negatives and zero, and each says what it can mean."""
    fmt = get_format(name)
    assert (fmt.nan_to, fmt.negative_to, fmt.zero_to) == words_of
    assert bool(fmt.negative_to) == (not fmt.signed)
    assert bool(fmt.zero_to) == (not fmt.has_zero)


BASES = {
    "signed, a NaN": 'kind = "float"\nexp_bits = 3\nman_bits = 2\nspecials = "fn"',
    "signed, infinities": 'kind = "float"\nexp_bits = 3\nman_bits = 2\nspecials = "ieee"',
    "signed, finite only": 'kind = "float"\nexp_bits = 3\nman_bits = 2\nspecials = "f"',
    "unsigned, a NaN": 'kind = "float"\nexp_bits = 3\nman_bits = 2\nspecials = "fn"\nsigned = false',
    "unsigned, infinity": 'kind = "float"\nexp_bits = 3\nman_bits = 2\nspecials = "extended"\nsigned = false',
    "unsigned, finite only": 'kind = "float"\nexp_bits = 3\nman_bits = 2\nspecials = "f"\nsigned = false\nsubnormals = "half"',
    "no zero, a NaN": 'kind = "float"\nexp_bits = 4\nman_bits = 0\nspecials = "fn"\nsigned = false\nzero = false',
    "no zero, finite only": 'kind = "float"\nexp_bits = 4\nman_bits = 0\nspecials = "f"\nsigned = false\nzero = false',
    "integer": 'kind = "integer"\nbits = [5]',
    "unsigned integer": 'kind = "integer"\nbits = [5]\nsigned = false\nfrac_bits = 2',
    "symmetric integer": 'kind = "integer"\nbits = [5]\nsymmetric = true',
    "table": 'kind = "table"\nvalues = [-2, 0, 0.5]',
    "table with a NaN": 'kind = "table"\nvalues = [-2, 0, 0.5, nan]\nabove = 3',
    "table without zero": 'kind = "table"\nvalues = [-2, 1, nan]',
    "positive table": 'kind = "table"\nvalues = [0.5, nan, 1, 4]',
    "negative table": 'kind = "table"\nvalues = [-4, -1]\nbelow = -8',
}
ANY = {"nan_to": ("nan", "max", "zero", "error"), "negative_to": ("nan", "min"), "zero_to": ("min", "max", "nan")}


@pytest.mark.parametrize("base", BASES)
def test_what_a_users_format_cannot_hold(base: str, tmp_path: Path) -> None:
    """Every word that an entry may say about NaN, negatives and zero is what happens; the others are refused, with these."""
    text = f'[[format]]\nname = "own"\nsource = "a test"\n{BASES[base]}\n'
    path = tmp_path / "own.toml"
    path.write_text(text, encoding="utf-8")
    (plain,) = load_formats(path)
    nan, zero, signed = plain.has_nan, plain.has_zero, plain.signed
    allowed = {
        "nan_to": {"max", "error", *(["nan"] if nan else []), *(["zero"] if zero else [])},
        "negative_to": set() if signed else {"min", *(["nan"] if nan else [])},
        "zero_to": set() if zero else {"min", "max", *(["nan"] if nan else [])},
    }
    check_unheld(plain)
    choices = [[None, *words] for words in ANY.values()]
    for chosen in itertools.product(*choices):
        said = {key: word for key, word in zip(ANY, chosen, strict=True) if word}
        path.write_text(text + "".join(f'{key} = "{word}"\n' for key, word in said.items()), encoding="utf-8")
        wrong = [(key, word) for key, word in said.items() if word not in allowed[key]]
        if not wrong:
            (fmt,) = load_formats(path)
            assert {key: getattr(fmt, key) for key in said} == said
            check_unheld(fmt, (Mode.RNE, Mode.RDN))
        elif len(said) == 1:
            key, word = wrong[0]
            with pytest.raises(
                InputError, match=rf"own.toml: format 1 \(own\): own: {key} = '{word}'; for this"
            ) as caught:
                load_formats(path)
            assert "\n" not in str(caught.value)
            for good in allowed[key]:
                assert repr(good) in str(caught.value)


def test_small_numbers_without_a_zero() -> None:
    """Below E8M0's smallest value, half of it and less round to zero, which becomes what zero becomes; more rounds up."""
    least = 2.0**-127
    for zero_to, zero in (("min", least), ("max", 2.0**127), ("nan", NAN)):
        fmt = float_format("own", 8, 0, "fn", "a test", signed=False, zero=False, zero_to=zero_to)
        for mode, threshold in (("RNE", 0.5), ("RNA", 0.5), ("RTZ", 1.0), ("RDN", 1.0), ("RUP", 0.0), ("RAZ", 0.0)):
            for part in (2.0**-60, 0.25, 0.49, 0.5, 0.51, 0.75, 0.99, 1.0):
                up = part > threshold or part == 1 or (mode == "RNA" and part == 0.5)
                assert alike(reference.quantize(part * least, fmt, mode), least if up else zero), (mode, part)


@pytest.mark.parametrize("fmt", [*SMALL, *map(get_format, ("float16", "bfloat16", "dlfloat16"))], ids=str)
def test_flushing(fmt: Format) -> None:
    """With ftz_out exactly the results that are subnormal become zeros, which keep their sign where zeros have one."""
    for ordinal in [*range(-min(fmt.bottom, 40), min(fmt.top, 40) + 1), fmt.top]:
        if not -fmt.bottom <= ordinal <= fmt.top:
            continue
        x = fmt.value(ordinal)
        if not x and not fmt.has_zero:
            continue
        y = reference.quantize(x, fmt, ftz_out=True)
        tiny = fmt.kind == "float" and 0 < abs(x) < fmt.smallest_normal
        expected = (-0.0 if x < 0 and fmt.has_neg_zero else 0.0) if tiny else float(x)
        assert alike(y, expected), x
    if (
        fmt.kind == "float" and fmt.has_zero and not fmt.gap
    ):  # rounded first: what reaches the smallest normal number stays
        edge = (fmt.value(fmt.first_normal) + fmt.value(fmt.first_normal - 1)) / 2
        assert reference.quantize(edge + Fraction(1, 1 << 300), fmt, ftz_out=True) == fmt.smallest_normal
        assert reference.quantize(edge - Fraction(1, 1 << 300), fmt, ftz_out=True) == 0


def test_signs_of_nans() -> None:
    """With nan = "signed" a NaN keeps its sign where NaNs have one, also one that an overflow made; else it is canonical."""
    cases = {"e4m3": (0x7F, 0xFF), "e5m2": (0x7E, 0xFE), "bfloat16": (0x7FC0, 0xFFC0), "float8_e4m3fnuz": (0x80, 0x80)}
    cases |= {"Binary8p4se": (0x80, 0x80), "e8m0": (0xFF, 0xFF), "posit8": (0x80, 0x80)}
    for name, (plus, minus) in cases.items():
        for nan, negative in (("canonical", plus), ("signed", minus)):
            assert reference.encode(NAN, name, nan=nan) == plus
            assert reference.encode(-NAN, name, nan=nan) == negative
    assert reference.encode(-1e9, "e4m3", saturation="OvfNaN", nan="signed") == 0xFF
    assert reference.encode(-INF, "e4m3", saturation="OvfNaN", nan="signed") == 0xFF
    assert reference.encode(-1e9, "e4m3", saturation="OvfNaN") == 0x7F


# --- Scales ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("precision", [FLOAT16, BFLOAT16, FLOAT32, FLOAT64], ids=str)
@given(data=st.data())
def test_orders_of_operations(precision: np.dtype, data: st.DataObject) -> None:
    """What is rounded in place of x is the processor's x / s, or x times its 1 / s, or the true quotient."""
    fmt = get_format(precision.name)
    x, s = (data.draw(inputs(fmt, precision)) for _ in range(2))
    s = abs(s)
    assume(0 < float(s) < INF)
    with np.errstate(all="ignore"):
        divided, multiplied = (
            x / s,
            x * (precision.type(1) / s) if x else x,
        )  # a zero stays one, also where 1 / s overflows
    for order, expected in (("divide", divided), ("reciprocal", multiplied)):
        assert alike(float(reference.scaled(float(x), float(s), order, fmt)), float(expected)), order  # type: ignore[arg-type]
    exact = reference.scaled(float(x), float(s), "exact", fmt)
    if math.isfinite(x) and x:
        assert exact * Fraction(float(s)) == Fraction(float(x))
    else:
        assert alike(float(exact), float(x))


# --- Laws ------------------------------------------------------------------------------------------------------------

SYMMETRIC = [mode for mode in Mode if mode not in {Mode.RUP, Mode.RDN, Mode.RNP, Mode.RNN, Mode.THR}]
DUAL = {Mode.RUP: Mode.RDN, Mode.RDN: Mode.RUP, Mode.RNP: Mode.RNN, Mode.RNN: Mode.RNP}


@st.composite
def arguments(draw: st.DrawFn, mode: Mode) -> dict[str, Any]:
    """Return a random word or a threshold for `mode`."""
    if mode is Mode.THR:
        return {"eps": draw(st.integers(0, (1 << 53) - 1)) / 2.0**53}
    if not mode.stochastic:
        return {}
    n = draw(st.sampled_from([32, 64]) if mode is Mode.SR else st.integers(mode is Mode.SRE, 64))
    return {"sr_bits": n, "rbits": draw(words(n))}


@given(st.data())
def test_nearest_is_nearest(data: st.DataObject) -> None:
    """Within the range RNE gives the nearer neighbour, and of two equally near ones one with an even code, if there is one."""
    fmt = data.draw(formats())
    x = Fraction(float(data.draw(near_thresholds(fmt, FLOAT64))))
    assume(fmt.min <= x <= fmt.max and (fmt.has_zero or x))
    lower, upper = (Fraction(v) for v in fmt.neighbours(x))
    code = reference.encode(x, fmt)
    y = Fraction(fmt.decode(code))
    assert y in (lower, upper)
    assert abs(y - x) == min(x - lower, upper - x)
    if x - lower == upper - x and lower != upper and {fmt.code(fmt.ordinal(v)) % 2 for v in (lower, upper)} == {0, 1}:
        assert code % 2 == 0


@given(st.data())
def test_results_are_neighbours(data: st.DataObject) -> None:
    """Within the range every mode gives one of the two neighbours, with any word, threshold and saturation rule."""
    fmt, mode = data.draw(formats()), data.draw(st.sampled_from([*Mode]))
    x = float(data.draw(near_thresholds(fmt, FLOAT64)))
    assume(fmt.min <= x <= fmt.max and (fmt.has_zero or x))
    rule = data.draw(st.sampled_from(saturations(fmt)))
    assert reference.quantize(x, fmt, mode, saturation=rule, **data.draw(arguments(mode))) in fmt.neighbours(x)


@given(st.data())
def test_values_are_fixed_points(data: st.DataObject) -> None:
    """A value of the format is its own rounding in every mode, with every word, threshold and saturation rule."""
    fmt = data.draw(formats())
    code = data.draw(words(fmt.bits))
    assume(fmt.is_code(code))
    x = fmt.decode(code)
    rule, mode = data.draw(st.sampled_from(saturations(fmt))), data.draw(st.sampled_from([*Mode]))
    assume(not math.isnan(x) or fmt.nan_to == "nan")
    y = reference.quantize(x, fmt, mode, saturation=rule, **data.draw(arguments(mode)))
    if math.isfinite(x) or math.isnan(x) or rule.value in ("SatNone", "SatPropagate"):
        assert alike(y, x)


@given(st.data())
def test_rounding_twice_is_rounding_once(data: st.DataObject) -> None:
    """A result rounds to itself, whatever was rounded to it."""
    fmt, mode = data.draw(formats()), data.draw(st.sampled_from([*Mode]))
    rule = data.draw(st.sampled_from(saturations(fmt)))
    how = data.draw(arguments(mode))
    x = float(data.draw(inputs(fmt, FLOAT64)))
    assume(not math.isnan(x) or fmt.nan_to != "error")
    y = reference.quantize(x, fmt, mode, saturation=rule, **how)
    if not math.isnan(y) or fmt.nan_to == "nan":
        assert alike(reference.quantize(y, fmt, mode, saturation=rule, **how), y)


@given(st.data())
def test_rounding_keeps_the_order(data: st.DataObject) -> None:
    """Of two numbers the greater does not round to the lesser, with one word or threshold for both.

    Where the format says what it makes of them: a NaN has no order, 0 may become the largest value, a wrapped number any;
    and without a zero between a negative and a positive value "toward zero" leads across it, from either side.
    """
    fmt, mode = data.draw(formats()), data.draw(st.sampled_from([*Mode]))
    rule = data.draw(st.sampled_from(saturations(fmt)))
    assume(rule is not Saturation.wrap and fmt.zero_to != "max" and (fmt.has_zero or fmt.bottom < 0))
    x, y = sorted(float(data.draw(inputs(fmt, FLOAT64).filter(lambda v: not np.isnan(v)))) for _ in range(2))
    how = data.draw(arguments(mode))
    low, high = (reference.quantize(v, fmt, mode, saturation=rule, **how) for v in (x, y))
    assert low <= high or math.isnan(low) or math.isnan(high)


@given(st.data())
def test_signs_do_not_matter(data: st.DataObject) -> None:
    """A signed float rounds -x to minus what it rounds x to, with the same word; only the sign of zero may be lost.

    In the modes that know no up and down; those that do are each other's mirrors.
    """
    fmt = data.draw(formats().filter(lambda fmt: fmt.kind == "float" and fmt.signed))
    x = abs(float(data.draw(inputs(fmt, FLOAT64))))
    assume(not math.isnan(x))
    rule = data.draw(st.sampled_from(saturations(fmt)))
    mode = data.draw(st.sampled_from([*SYMMETRIC, *DUAL]))
    how = data.draw(arguments(mode))
    plus, minus = (
        reference.quantize(v, fmt, m, saturation=rule, **how) for v, m in ((x, mode), (-x, DUAL.get(mode, mode)))
    )
    assert math.isnan(plus) == math.isnan(minus)
    assert math.isnan(plus) or plus == -minus
    assert math.copysign(1, minus) == (-1 if fmt.has_neg_zero or minus else 1) or math.isnan(plus)


@given(st.data())
def test_zeros_keep_their_sign(data: st.DataObject) -> None:
    """Zeros, and what rounds to zero, have the sign of the input where the format has a -0, and no sign elsewhere."""
    fmt, mode = data.draw(formats().filter(lambda fmt: fmt.has_zero)), data.draw(st.sampled_from([*Mode]))
    x = data.draw(st.sampled_from([0.0, 5e-324, 1e-300])) * data.draw(st.sampled_from([1, -1]))
    y = reference.quantize(x, fmt, mode, **data.draw(arguments(mode)))
    if y == 0:
        assert math.copysign(1, y) == (math.copysign(1, x) if fmt.has_neg_zero else 1)


# --- By hand ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fmt", "rule", "cases"),
    [
        # the grid goes on above 448: 464 is halfway to 480, whose code would be odd, so it is not beyond the range
        ("e4m3", "SatFinite", {464: 448, 464.001: 448, 480: 448, INF: 448, -INF: -448, NAN: NAN, -0.0: -0.0}),
        ("e4m3", "OvfNaN", {464: 448, 464.001: NAN, -464.001: NAN, INF: NAN, -INF: NAN, NAN: NAN, -0.0: -0.0}),
        # 61440 is halfway from 57344 to 65536, whose code would be that of infinity, which is even
        ("e5m2", "SatNone", {61439: 57344, 61440: INF, -61440: -INF, INF: INF, NAN: NAN}),
        ("e5m2", "SatFinite", {61440: 57344, -61440: -57344, INF: 57344, -INF: -57344, NAN: NAN}),
        ("e5m2", "SatPropagate", {61440: 57344, -61440: -57344, INF: INF, -INF: -INF, NAN: NAN}),
        ("e4m3", "SatFinite", {2.0**-10: 0.0, -(2.0**-10): -0.0, 3 * 2.0**-10: 2.0**-8, 1.0625: 1.0, 1.1875: 1.25}),
        ("e4m3fnuz", "SatFinite", {-0.0: 0.0, -(2.0**-11): 0.0, 248: 240, INF: 240, NAN: NAN}),
        ("e4m3fnuz", "OvfNaN", {247: 240, 248: NAN, -248: NAN}),
        ("e2m1", "SatFinite", {0.25: 0.0, -0.25: -0.0, 0.75: 1.0, 2.5: 2.0, 3.5: 4.0, 5: 4.0, 7: 6.0, NAN: 6.0}),
        ("int8", "saturate", {0.5: 0, 1.5: 2, -0.5: 0.0, -2.5: -2, 126.5: 126, 127.5: 127, -128.5: -128, -1e9: -128}),
        ("int8", "saturate", {NAN: 0.0, INF: 127, -INF: -128, -0.0: 0.0}),
        ("int8", "wrap", {127.5: -128, 128: -128, 255: -1, 256: 0, -129: 127, -128.5: -128, INF: 127, -INF: -128, 1e20: 0}),
        ("int2", "saturate", {0.5: 0, 0.51: 1, 1.5: 1, -1.5: -2, -2.5: -2, -9: -2}),
        ("uint4", "saturate", {-0.5: 0, -3: 0, 15.5: 15, 16: 15, INF: 15, -INF: 0, NAN: 0}),
        ("uint4", "wrap", {-0.5: 0, -1: 15, -3: 13, 15.5: 0, 17: 1, -17: 15, INF: 15, -INF: 0}),
        ("int8sym", "saturate", {-128: -127, -127.5: -127, -1e9: -127, -INF: -127, 127.5: 127}),
        ("ternary", "saturate", {0.5: 0, 0.51: 1, -0.5: 0, -0.51: -1, 7: 1, -7: -1, NAN: 0}),
        ("Q3.4", "wrap", {8: -8, 7.96875: -8, 7.96: 7.9375, -8.03125: -8, -8.0625: 7.9375, 16: 0}),
        ("UQ0.8", "saturate", {1: 0.99609375, 0.001953125: 0, 0.00585: 0.00390625, -1: 0}),
        # without mantissa bits the codes of 1, 2, 4 are odd or even in turn; with bias 7 that of 1 is 7
        ("e4m0fn", "SatFinite", {1.5: 2.0, 3.0: 2.0, 6.0: 8.0, 2.0**-7: 0.0, 1.5 * 2.0**-6: 2.0**-5}),
        # E8M0: the code of 1 is 127, odd, so 1.5 goes up to 128 and 3 comes down to it; negative numbers clamp, or are NaN
        ("e8m0", "SatFinite", {1.5: 2.0, 3.0: 2.0, 6.0: 8.0, -0.0: 2.0**-127, -1: 2.0**-127, 2.0**200: 2.0**127}),
        ("e8m0", "OvfNaN", {-1: NAN, 1.5 * 2.0**127: 2.0**127, 1.6 * 2.0**127: NAN, INF: NAN, -(2.0**-128): 2.0**-127}),
        ("ue4m3", "SatFinite", {464: 448, 470: 448, -1: 0, -(2.0**-11): 0, NAN: NAN}),
        ("ue4m3", "OvfNaN", {464: 448, 470: NAN, -1: NAN, -(2.0**-11): 0, -0.0: 0.0}),
        ("ue5m3", "SatFinite", {114688: 114688, 118784: 114688, INF: 114688, 2.0**-18: 0, 1.5 * 2.0**-17: 2.0**-16}),
        # DLFloat: nothing below 2^-31 (1 + 2^-9), whose code is odd, so its half goes to zero, whose code is even
        ("dlfloat16", "SatFinite", {2.0**-32: 0.0, -(2.0**-32): -0.0, 2.0**-31: 2.0**-31 * (1 + 2.0**-9), 1e10: 8573157376.0}),
        ("dlfloat16", "OvfNaN", {1e10: NAN, INF: NAN, NAN: NAN, 8573157376.0: 8573157376.0}),
        # CFloat8 as printed: 7 * 2^-10 is followed by 2^-6 = 16 * 2^-10; the middle is 11.5 * 2^-10, and the lower code is odd
        ("cfloat8_1_4_3_half", "SatFinite", {11 * 2.0**-10: 7 * 2.0**-10, 11.5 * 2.0**-10: 2.0**-6, 2.0**-11: 0.0, 500: 480}),
        # NF4: of two equally near values the one with the even code; 0 and 1 have the codes 7 and 15
        ("nf4", "SatFinite", {2: 1.0, -INF: -1.0, NAN: 0.0, 0.039790149778127670: 0.07958029955625534, 0.03: 0.0, -0.0: 0.0}),
        ("binary", "SatFinite", {-0.0: 1.0, 1e-300: 1.0, -1e-300: -1.0, -7: -1.0, INF: 1.0, NAN: 1.0}),
        ("posit8", "SatFinite", {1e9: 2.0**24, -INF: -(2.0**24), 2.0**-25: 0.0, 1.1 * 2.0**-25: 2.0**-24, NAN: NAN}),
        ("posit8", "OvfNaN", {1e9: NAN, -1e9: NAN, INF: NAN, 2.0**24: 2.0**24}),
    ],
)  # fmt: skip
def test_worked_by_hand(fmt: str, rule: str, cases: dict[float, float]) -> None:
    """Ties, the edge of the range, infinities, NaN and zeros come out as worked out from the standards."""
    for x, expected in cases.items():
        assert alike(reference.quantize(float(x), fmt, saturation=rule), float(expected)), x


def test_where_a_table_goes_on() -> None:
    """Without a next value all beyond the end is out of range; with one, what is nearer to the end rounds to it first."""
    closed, open_ended = (table_format("t", [0.0, 1.0, NAN], "a test", above=above) for above in (None, 2.0))
    for x, mode, first, second in (
        (1.25, "RNE", NAN, 1.0), (1.5, "RNE", NAN, NAN), (1.25, "RUP", NAN, NAN), (1.75, "RDN", 1.0, 1.0),
        (1.0, "RUP", 1.0, 1.0), (2.5, "RDN", 1.0, 1.0), (2.5, "RNE", NAN, NAN), (1.25, "RTO", NAN, 1.0),
    ):  # fmt: skip
        assert alike(reference.quantize(x, closed, mode, saturation="OvfNaN"), first), (x, mode)
        assert alike(reference.quantize(x, open_ended, mode, saturation="OvfNaN"), second), (x, mode)


def test_one_side_of_zero_only() -> None:
    """A table of negative values only clamps what is above to its largest; 0 alone is what its entry says."""
    fmt = next(fmt for fmt in TABLES if fmt.name == "all below zero")
    assert [reference.quantize(x, fmt) for x in (0.5, -0.05, 0.0, -5.0, 1e300)] == [-0.125, -0.125, -2.0, -2.0, -0.125]


def test_one_word_by_hand() -> None:
    """With 3 bits a quarter of an interval, 010, goes up for the words 110 and 111 only."""
    assert [reference.quantize(1.03125, "e4m3", "SRA", sr_bits=3, rbits=r) for r in range(8)] == [1.0] * 6 + [1.125] * 2


def test_any_rational_can_be_rounded() -> None:
    """A number need not be a float: a third, a sum just above a tie, and one far beyond every float are rounded."""
    assert reference.quantize(Fraction(1, 3), "e4m3") == 0.34375
    assert reference.quantize(Fraction(17, 16) + Fraction(1, 10**50), "e4m3") == 1.125
    assert reference.quantize(-(Fraction(10) ** 400), "float16") == -INF
    huge = Fraction(2) ** 1800
    assert reference.encode(huge, "Binary13p1sf") == 2048 + 1800
    assert reference.encode(huge * 5 / 4, "Binary13p1sf") == 2048 + 1800


@pytest.mark.parametrize(("bits", "word"), [(0, 1), (3, 8), (3, -1)])
def test_words_that_do_not_fit_are_refused(bits: int, word: int) -> None:
    """A word of more bits than were said is refused."""
    with pytest.raises(InputError, match=f"rbits = {word} is no word of sr_bits = {bits} bits"):
        reference.encode(1.0, "e4m3", "SRA", sr_bits=bits, rbits=word)


def test_senseless_arguments_are_refused() -> None:
    """SR without a width, a threshold out of range, and a saturation of another kind of format are refused."""
    with pytest.raises(InputError, match="SR needs sr_bits here"):
        reference.encode(1.0, "e4m3", "SR")
    with pytest.raises(InputError, match=r"eps = 1\.0"):
        reference.encode(1.0, "e4m3", "Threshold", eps=1.0)
    with pytest.raises(InputError, match="makes no sense for int8"):
        reference.encode(1.0, "int8", saturation="SatFinite")


@pytest.mark.parametrize("x", [NAN, INF, 449.0])
def test_moments_beyond_the_range_are_refused(x: float) -> None:
    """Without saturation there is no unbiased rounding beyond the range, so there are no moments to state."""
    with pytest.raises(InputError, match="outside the range"):
        reference.sr_moments(x, "e4m3")
