"""Faults that other simulators and hardware models had, each held against the arrays and the definition here.

A docstring names who had it, in which version, and what went wrong; the test says what is right instead.
"""

from __future__ import annotations

import math
from fractions import Fraction

import ml_dtypes
import numpy as np
import pytest
from strategies import CATALOGUE, FLOAT32, FLOAT64, P3109, PARAMETRIC, SMALL, both_carriers, rounded_in

from qsim import reference
from qsim.arrays import encode, quantize
from qsim.formats import Format, Grid, get_format
from qsim.rounding import Mode, saturations

INF = math.inf
FLOATS = [fmt for fmt in (*CATALOGUE, *P3109, *PARAMETRIC[::9]) if fmt.kind == "float" and rounded_in(FLOAT64, fmt)]
DETERMINISTIC = [mode for mode in Mode if not mode.stochastic and mode is not Mode.THR]


def agree(x: np.ndarray, fmt: str | Format, mode: str | Mode = "RNE", **how: object) -> np.ndarray:
    """Return what `x` rounds to, which the definition confirms element by element."""
    y = quantize(x, fmt, mode, **how)  # type: ignore[arg-type]
    expected = [reference.quantize(v, fmt, mode, **how) for v in x.astype(np.float64).tolist()]  # type: ignore[arg-type]
    assert np.array_equal(y.astype(np.float64), expected, equal_nan=True)
    return y


def float16s() -> np.ndarray:
    """Return all finite numbers of binary16, as float32."""
    x = np.arange(1 << 16, dtype=np.uint16).view(np.float16).astype(np.float32)
    return x[np.isfinite(x)]


# --- The ends of the range -------------------------------------------------------------------------------------------


def test_top_binade_of_pychop() -> None:
    """In pychop 0.6.2 (Chop) what rounds up from the last binade became 65536 in fp16, and all of [65536, 131072) became 0.

    Infinity is what is right, or the largest value in the modes that never round beyond it.
    """
    x = np.array([65519.996, 65520.0, 65536.0, 70000.0, 131008.0, 131072.0, 3e38], np.float32)
    assert agree(x, "float16").tolist() == [65504.0] + [INF] * 6
    assert agree(-x, "float16").tolist() == [-65504.0] + [-INF] * 6
    for name, first, beyond in (("float8_e4m3", 248.0, 512.0), ("float8_e5m2", 61440.0, 131072.0)):
        fmt = get_format(name)
        y = float16s()
        top = y[(np.abs(y) >= first) & (np.abs(y) <= beyond)]
        assert top.size > 100
        assert (agree(top, fmt) == np.copysign(INF, top)).all()
        assert (agree(top, fmt, "RTZ") == np.copysign(fmt.max, top)).all()
        assert (agree(top, fmt, "RDN") == np.where(top > 0, fmt.max, -INF)).all()
        assert (agree(top, fmt, "RUP") == np.where(top > 0, INF, fmt.min)).all()
        assert (agree(top, fmt, saturation="SatFinite") == np.copysign(fmt.max, top)).all()


@pytest.mark.in_part(4)
@pytest.mark.parametrize("fmt", FLOATS, ids=str)
def test_no_result_is_outside_the_format(fmt: Format) -> None:
    """In pychop 0.6.2 (Chop) results were powers of two that no format held; in gfloat 0.5.2, 0, -1 and 2^-128 for E8M0.

    Every result is a value of the format, an infinity or a NaN that it has.
    """
    values = fmt.values() if fmt.bits <= 16 else None
    x = np.array([0.0, -0.0, -1.0, 2.0**-128, 2.0**-150, 1.0, fmt.max, fmt.min, INF, -INF, np.nan])
    with np.errstate(over="ignore"):
        x = np.concatenate(
            [x, fmt.max * np.array([1.01, 1.5, 2.0, 3.0, 1e9]), fmt.min * np.array([1.01, 1.5, 2.0, 3.0, 1e9])]
        )
    for rule in saturations(fmt):
        for mode in DETERMINISTIC:
            y = quantize(x, fmt, mode, saturation=rule)
            if values is None:
                continue
            assert np.isin(y[~np.isnan(y)], values[~np.isnan(values)]).all()
            assert fmt.has_nan or not np.isnan(y).any()


def test_overflow_after_rounding_in_hip() -> None:
    """HIP, amd_hip_ocp_host.hpp (2026): |x| > 448 made a NaN before rounding, so that 449 did; it rounds to 448.

    464 is the middle to 480, and the code of 448 is even: only what is greater overflows.
    """
    x = np.array([448.0, 448.001, 449.0, 463.99997, 464.0, 464.00003, 480.0], np.float32)
    for sign in (1, -1):
        assert np.array_equal(
            agree(sign * x, "float8_e4m3fn", saturation="OvfNaN"),
            sign * np.array([448.0] * 5 + [np.nan] * 2),
            equal_nan=True,
        )
    y = agree(np.linspace(449, 463, 57, dtype=np.float32), "float8_e4m3fn", saturation="OvfNaN")
    assert (y == 448).all()


def test_the_extra_binade_of_e4m3() -> None:
    """In chop (2022), CPFloat before 0.6.0 and pychop 0.6.2, E4M3 had emax 7; in custom-float-quant 0.3.0 e4m3fn ended at 240.

    OCP's E4M3 has 256, 288, ... 448 as well.
    """
    x = np.arange(256, 449, 32, dtype=np.float32)
    assert np.array_equal(agree(x, "e4m3"), x)
    assert encode(x, "e4m3").tolist() == [*range(0x78, 0x7F)]


def test_no_infinity_of_fnuz() -> None:
    """In onnx's reference (issue 6220) FNUZ overflowed to an infinity that it has not; it saturates, or gives its NaN."""
    x = np.array([INF, -INF, 1e9, -1e9], np.float32)
    for name, most in (("float8_e4m3fnuz", 240.0), ("float8_e5m2fnuz", 57344.0)):
        assert agree(x, name).tolist() == [most, -most] * 2
        assert np.isnan(agree(x, name, saturation="OvfNaN")).all()
        assert (encode(x, name, saturation="OvfNaN") == 0x80).all()


# --- Small numbers ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["float8_e4m3", "float8_e5m2"])
def test_flushed_subnormals_of_apytypes(name: str) -> None:
    """In apytypes 0.5.1 everything between the largest subnormal and the smallest normal number became 0, but toward zero.

    There is nothing between these two but a choice of one.
    """
    fmt = get_format(name)
    low, high = fmt.smallest_normal - fmt.smallest_subnormal, fmt.smallest_normal
    x = float16s()
    x = x[(np.abs(x) > low) & (np.abs(x) < high)]
    assert x.size > 200
    for mode in DETERMINISTIC:
        y = np.abs(agree(x, fmt, mode))
        assert set(y.tolist()) <= {low, high}, mode
        assert (y[np.abs(x) == (low + high) / 2] > 0).all()
    for r in (0, 1, 100, 255):
        assert set(np.abs(quantize(x, fmt, "SRA", sr_bits=8, rbits=r)).tolist()) <= {low, high}


@both_carriers
def test_half_of_the_smallest_of_pychop(carrier: np.dtype) -> None:
    """In pychop 0.6.2 (FaultChop) floats just above half of the smallest subnormal number became 0, to nearest.

    They are nearer to it than to 0, in every format; half of it exactly goes to 0, whose code is even.
    """
    for fmt in FLOATS:
        if not fmt.has_zero or not rounded_in(carrier, fmt) or fmt.smallest_subnormal / 2 < np.finfo(carrier).tiny:
            continue
        half = carrier.type(fmt.smallest_subnormal / 2)
        x = np.array([half, np.nextafter(half, carrier.type(1)), np.nextafter(half, carrier.type(0))])
        least = fmt.smallest_subnormal
        assert agree(x, fmt).tolist() == [0.0, least, 0.0], fmt
        if fmt.signed:
            assert agree(-x, fmt).tolist() == [0.0, -least, 0.0], fmt


@pytest.mark.parametrize("name", ["float8_e4m3fn", "float8_e5m2", "float8_e4m3fnuz", "float4_e2m1fn", "int8"])
def test_tiny_numbers_of_hip(name: str) -> None:
    """HIP, from_float_sr and its like (2024 to 2026): a shift by 64 or more made up to 2^-6 of 2^-70 (E4M3).

    Below the smallest subnormal number there is nothing but it and zero, however small: no result is larger.
    """
    fmt = get_format(name)
    assert isinstance(fmt, Grid)
    limit = np.float32(fmt.smallest_subnormal).view(np.uint32)
    patterns = np.unique(
        np.concatenate([np.arange(0, limit, 4099), 2 ** np.arange(31), np.arange(127 - 80, 127 - 60) << 23])
    )
    x = patterns[patterns < limit].astype(np.uint32).view(np.float32)
    x = np.concatenate([x, -x])
    least = fmt.smallest_subnormal
    for mode in DETERMINISTIC:
        assert set(np.abs(quantize(x, fmt, mode)).tolist()) <= {0.0, least}, mode
    assert (quantize(x, fmt, "RUP") == np.where(x > 0, least, 0)).all()
    assert (quantize(x[np.abs(x) < least / 2], fmt, "RNE") == 0).all()
    for n, r in ((20, 0), (20, (1 << 20) - 1), (32, (1 << 32) - 1), (8, 255)):
        y = np.abs(quantize(x, fmt, "SRA", sr_bits=n, rbits=r))
        carried = np.floor(np.abs(x.astype(np.float64)) / least * 2.0**n) + r >= 2.0**n
        assert np.array_equal(y, np.where(carried, least, 0)), (n, r)
    agree(x[::50], fmt, "SRA", sr_bits=20, rbits=(1 << 20) - 1)


def test_clamped_float64_of_pychop() -> None:
    """In pychop 0.6.2 max(|x|, 1e-38) was taken in float64, so that formats of a wide exponent lost what is smaller."""
    x = np.array([1e-300, -1e-100, 2.0**-1022, 1e-39])
    y = agree(x, "e11m7")
    assert (np.abs(y / x - 1) < 2.0**-8).all()


# --- Ties and exact values -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("fmt", SMALL, ids=str)
def test_exact_values_do_not_move(fmt: Format) -> None:
    """In pychop 0.6.2 round to odd made 1.0009765625 of 1.0; in Tenstorrent's SFPSTOCHRND >= for > moves exact values.

    No mode moves a value of the format, with any word of 8 bits, and with the largest of 32.
    """
    values = fmt.values()
    x = values[np.isfinite(values)]
    for mode in DETERMINISTIC:
        assert np.array_equal(quantize(x, fmt, mode), x)
    every = np.arange(256)
    for mode in ("SRA", "SRB", "SRC", "SRE"):
        y = quantize(np.broadcast_to(x, (256, x.size)), fmt, mode, sr_bits=8, rbits=every[:, None])
        assert (y == x).all()
    assert np.array_equal(quantize(x, fmt, "SRA", sr_bits=32, rbits=(1 << 32) - 1), x)
    assert np.array_equal(quantize(x, fmt, "Threshold", eps=0.0), x)


def test_near_ties_of_pychop() -> None:
    """In pychop 0.6.2 (Chop) |frac - 0.5| < 1e-6 was a tie, so that RNA of 1.125 - 1e-8 gave 1.25; -1.125 gave -1.0."""
    x = np.array([1.125 - 1e-8, 1.125, 1.125 + 1e-8])
    for mode, expected in (
        ("RNA", [1.0, 1.25, 1.25]), ("RNZ", [1.0, 1.0, 1.25]), ("RNE", [1.0, 1.0, 1.25]), ("RNP", [1.0, 1.25, 1.25]),
    ):  # fmt: skip
        assert agree(x, "float8_e5m2", mode).tolist() == expected
    for mode, tie in (("RNA", -1.25), ("RNZ", -1.0), ("RNE", -1.0), ("RNP", -1.0), ("RNN", -1.25)):
        assert agree(-x, "float8_e5m2", mode).tolist() == [-1.0, tie, -1.25]


def test_double_rounding_of_ml_dtypes() -> None:
    """ml_dtypes 0.6.0: float64 is rounded to float32 first, so that 1.0625 + 2^-40 gave 1.0 in E4M3; 1.125 is nearer.

    Beside every middle of every 8-bit float of the catalogue the side of it decides, however little beside.
    """
    near = np.array([1.0625 + 2.0**-40])
    assert agree(near, "float8_e4m3fn").tolist() == [1.125]
    assert agree(near.astype(np.float32).astype(np.float64), "float8_e4m3fn").tolist() == [1.0]  # rounded twice
    for fmt in CATALOGUE:
        if fmt.kind != "float" or fmt.bits > 8:
            continue
        low, high = (np.array([float(fmt.value(n + by)) for n in range(-fmt.bottom, fmt.top)]) for by in (0, 1))
        middle = low / 2 + high / 2
        for beside, expected in ((2.0**-40, high), (-(2.0**-40), low)):
            x = middle + np.abs(middle) * beside
            assert np.array_equal(quantize(x, fmt), expected), fmt
            assert np.array_equal(x.astype(np.float32), middle)  # what a rounding to float32 would make of them


def test_identity_of_qpytorch() -> None:
    """QPyTorch 0.3.0 (issue 48): FP(8, 23), float32 itself, flipped the sign of 3.0. Every float32 is its own rounding."""
    random = np.random.default_rng(0)
    special = np.array([3.0, -3.0, 0.0, -0.0, INF, 1e-45], np.float32)
    x = np.concatenate([special, random.integers(0, 1 << 32, 1 << 18, np.uint32).view(np.float32)])
    y = quantize(x, "e8m23")
    real = ~np.isnan(x)
    assert np.array_equal(y[real].view(np.uint32), x[real].view(np.uint32))
    assert np.isnan(y[~real]).all()


# --- NaN -------------------------------------------------------------------------------------------------------------


def test_nans_of_add_and_mask() -> None:
    """The bf16 conversion that adds half and masks, in many kernels: the NaN 0x7fffffff carried over and became -0.

    All 2^24 - 2 NaNs of float32 stay NaNs of bfloat16, canonical or with their sign, and of every format that has one.
    """
    u = np.uint32(0x7FFFFFFF)
    assert (u + np.uint32(0x7FFF) + (u >> np.uint32(16) & np.uint32(1))) >> np.uint32(16) == 0x8000  # the fault: -0
    payloads = np.arange(0x7F800001, 0x80000000, dtype=np.uint32)
    assert payloads.size == (1 << 23) - 1
    for sign in (0, 1 << 31):
        x = (payloads | np.uint32(sign)).view(np.float32)
        assert (encode(x, "bfloat16") == 0x7FC0).all()
        assert (encode(x, "bfloat16", nan="signed") == (0xFFC0 if sign else 0x7FC0)).all()
    ends = np.concatenate([payloads[:3], payloads[-3:], payloads[:: 1 << 18]])
    x = np.concatenate([ends, ends | np.uint32(1 << 31)]).view(np.float32)
    for fmt in FLOATS:
        if rounded_in(FLOAT32, fmt) and fmt.has_nan and fmt.nan_to == "nan":
            for mode, how in (("RNE", {}), ("RUP", {}), ("SRA", {"sr_bits": 16, "rbits": 0xFFFF})):
                assert np.isnan(quantize(x, fmt, mode, **how)).all()  # type: ignore[arg-type]
                assert (encode(x, fmt, mode, **how) == fmt.nan_code).all()  # type: ignore[arg-type]


def test_nans_of_small_floats() -> None:
    """ml_dtypes 0.6.0: a NaN became -0 in FP6 and FP4, and a negative one 0. It is the largest value, as in PTX's cvt."""
    x = np.array([np.nan, -np.nan], np.float32)
    for name in ("float6_e2m3fn", "float6_e3m2fn", "float4_e2m1fn"):
        fmt = get_format(name)
        assert (agree(x, fmt) == fmt.max).all()
        assert np.array_equal(x.astype(getattr(ml_dtypes, name)).astype(np.float32), [0, 0])  # the fault


# --- Stochastic rounding ---------------------------------------------------------------------------------------------


def test_dither_in_float32() -> None:
    """floor(x + u) with a float32 u, in INT8 training of torchao 0.18 and others: x + u rounds, so that integers moved.

    Of all 2^24 u, 1, 2, 4, 32 and 64 move 1, 2, 7, 63 and 126; here none of the 2^24 words moves an integer.
    """
    every = np.arange(1 << 24, dtype=np.uint32)
    u = every.astype(np.float32) * np.float32(2.0**-24)
    tail = every[-256:]
    for x, moved in ((1, 1), (2, 2), (7, 4), (63, 32), (126, 64)):
        assert np.count_nonzero(np.floor(np.float32(x) + u) != x) == moved  # the fault
        assert (quantize(np.full(tail.shape, x, np.float32), "int8", "SRA", sr_bits=24, rbits=tail) == x).all()
    assert (quantize(np.full(every.shape, 126, np.float32), "int8", "SRA", sr_bits=24, rbits=every) == 126).all()


def test_every_word_counts() -> None:
    """In oneDNN (issue 2903) stochastic rounding always went down; in TransformerEngine (PR 3281) it gave zeros.

    Of the 256 words of 8 bits as many go up as 256ths of the interval are discarded, in every binade and below the first.
    """
    every = np.arange(256)
    least = 2.0**-9
    for inner, outer in ((1, 1.125), (0, least), (least, 2 * least), (416, 448), (-416, -448), (0, -least)):
        for part in (0, 1, 3, 77, 128, 200, 255):
            x = inner + part / 256 * (outer - inner)
            for carrier in (np.float32, np.float64):
                y = quantize(np.full(256, x, carrier), "e4m3", "SRA", sr_bits=8, rbits=every)
                assert y.astype(np.float64).tolist() == [inner] * (256 - part) + [outer] * part
                assert y.astype(np.float64).mean() == x


def test_carries_into_the_next_binade() -> None:
    """ROCm/llvm-project (issue 3275): the carry of the random bits out of the mantissa was lost.

    Just below a power of two all words but the smallest reach it.
    """
    for power in (1.0, 2.0, 2.0**-6, 2.0**-8, 256.0):
        below = float(np.nextafter(np.float32(power), np.float32(0)))
        for r, expected in ((0xFFFFFF, power), (0, Fraction(reference.quantize(below, "e4m3", "RTZ")))):
            y = agree(np.array([below, -below], np.float32), "e4m3", "SRA", sr_bits=24, rbits=r)
            assert y.tolist() == [expected, -expected]


def test_bias_of_stochastic_a() -> None:
    """In gfloat 0.5.2 the documentation says that StochasticFastest (A) is biased away from zero; it is toward zero."""
    x = 1 + 3 / 8 * 0.125  # 3/8 of an interval, of which 2 bits hold a quarter
    mean = np.mean([reference.quantize(x, "e4m3", "SRA", sr_bits=2, rbits=r) for r in range(4)])
    assert mean == 1 + 0.125 / 4 < x
    assert np.mean([reference.quantize(-x, "e4m3", "SRA", sr_bits=2, rbits=r) for r in range(4)]) == -mean
