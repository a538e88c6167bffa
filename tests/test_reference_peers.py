"""The definition against other authors' conversions: ml_dtypes, NumPy and gfloat."""

from __future__ import annotations

import itertools

import gfloat
import ml_dtypes
import numpy as np
import pytest
from alike import alike
from hypothesis import given
from hypothesis import strategies as st
from strategies import (
    BFLOAT16,
    CATALOGUE,
    FLOAT16,
    FLOAT32,
    FLOAT64,
    ML_DTYPES,
    P3109,
    PARAMETRIC,
    UNSIGNED,
    between,
    inputs,
    ordinals,
    words,
)

from qsim import reference
from qsim.formats import Format, Grid, get_format
from qsim.kernels.parameters import CARRIERS

# --- ml_dtypes and NumPy ---------------------------------------------------------------------------------------------

OVERFLOW = {
    "float8_e4m3fn": "OvfNaN", "float8_e5m2": "SatNone", "float8_e4m3": "SatNone", "float8_e3m4": "SatNone",
    "float8_e4m3fnuz": "OvfNaN", "float8_e5m2fnuz": "OvfNaN", "float8_e4m3b11fnuz": "OvfNaN",
    "float6_e2m3fn": "SatFinite", "float6_e3m2fn": "SatFinite", "float4_e2m1fn": "SatFinite",
    "bfloat16": "SatNone", "float8_e8m0fnu": "OvfNaN",
} | ({"float8_e5m3fnu": "OvfNaN"} if ML_DTYPES >= (0, 7) else {})  # fmt: skip
"""The float types of ml_dtypes, all of them, and what ml_dtypes does beyond their range."""


def test_no_type_of_ml_dtypes_is_forgotten() -> None:
    """The table above has every float type of ml_dtypes."""
    kinds = {name for name in dir(ml_dtypes) if name.startswith(("float", "bfloat"))}
    assert kinds == set(OVERFLOW)


def sixteen_bits(source: np.dtype) -> np.ndarray:
    """Return all 65,536 numbers of a 16-bit type as float32: ml_dtypes before 0.7 rounds float64 twice."""
    with np.errstate(invalid="ignore"):  # of signalling NaNs
        return np.arange(1 << 16, dtype=np.uint16).view(source).astype(np.float32)


@pytest.mark.in_part(3)
@pytest.mark.parametrize("source", [FLOAT16, BFLOAT16], ids=str)
@pytest.mark.parametrize(("name", "rule"), [item for item in OVERFLOW.items() if item[0] != "float8_e8m0fnu"])
def test_nearest_of_ml_dtypes(name: str, rule: str, source: np.dtype) -> None:
    """All 65,536 numbers of 16 bits round to the code that ml_dtypes gives them, a NaN with its sign.

    Except that it makes -0 of a NaN, or 0 of a negative one, where there is no NaN (FP6 and FP4), for no stated reason; and NaN
    of negative numbers that round to zero where there is no sign.
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
    if not fmt.signed:
        tiny = (-fmt.smallest_subnormal / 2 <= x) & (x < 0)
        assert (ours[tiny] == 0).all()
        assert (theirs[tiny] == fmt.nan_code).all()
        ours[tiny] = theirs[tiny]
    assert np.array_equal(ours, theirs)


@pytest.mark.parametrize("source", [FLOAT16, BFLOAT16], ids=str)
def test_nearest_of_ml_dtypes_without_zero(source: np.dtype) -> None:
    """All numbers of 16 bits round to E8M0 as in ml_dtypes, where that is nearest: not at ties, zero and below 2^-126.

    It sends every tie up, before 0.7 all of (2^-127, 2^-126) as well, and makes NaN of 0. Both make NaN of what has a minus
    sign.
    """
    fmt = get_format("float8_e8m0fnu")
    x = sixteen_bits(source)
    with np.errstate(invalid="ignore", over="ignore"):
        theirs = x.astype(ml_dtypes.float8_e8m0fnu).view(np.uint8)
    even, up = (
        np.array([reference.encode(v, fmt, mode, saturation="OvfNaN") for v in x.tolist()]) for mode in ("RNE", "RNA")
    )
    small = np.abs(x) < 2.0**-126
    with np.errstate(invalid="ignore"):  # of a NaN, on some machines
        tie = np.frexp(x)[0] == 0.75
    assert np.array_equal(even[~small & ~tie], theirs[~small & ~tie])
    assert np.array_equal(up[~small], theirs[~small])
    lowest = (x > 0) & (x <= 2.0**-127)
    assert np.array_equal(up[lowest], theirs[lowest])
    assert set(up[lowest].tolist()) <= {0}
    between = small & (x > 2.0**-127)
    assert np.array_equal(up[between], (x[between] >= 1.5 * 2.0**-127).astype(int))
    assert np.array_equal(theirs[between], up[between] if ML_DTYPES >= (0, 7) else np.ones(between.sum(), int))
    assert (theirs[x == 0] == fmt.nan_code).all()
    negative = np.signbit(x)
    assert (up[(x == 0) & ~negative] == 0).all()
    assert np.array_equal(up[small & negative], theirs[small & negative])


def test_nearest_of_numpy() -> None:
    """All numbers of bfloat16, and floats beside half of binary16's thresholds, round to binary16 as in NumPy."""
    grid = np.arange(0x7C00, dtype=np.uint16).view(np.float16).astype(np.float32)
    ties = (grid[:-1] + grid[1:])[::7] / np.float32(2)
    edges = np.array([65519.996, 65520, 65520.004], np.float32)
    near = np.concatenate([ties, np.nextafter(ties, np.float32(0)), np.nextafter(ties, np.float32(np.inf)), edges])
    x = np.concatenate([sixteen_bits(BFLOAT16)[::3], near, -near])
    with np.errstate(invalid="ignore", over="ignore"):
        theirs = x.astype(np.float16).astype(np.float64).tolist()
    for value, expected in zip(x.tolist(), theirs, strict=True):
        assert alike(reference.quantize(value, "float16"), expected), value


# --- gfloat ----------------------------------------------------------------------------------------------------------


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


@pytest.mark.in_part(2)
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


@pytest.mark.in_part(2)
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
