"""What the options of a rounding over arrays do: thresholds, flushing, the sign of a NaN, wrapping."""

from __future__ import annotations

import dataclasses
import itertools
import math
import re
from collections.abc import Callable
from fractions import Fraction

import numpy as np
import pytest
from alike import same
from definition import codes_by_reference
from enumeration import exactly
from strategies import FLOAT32, KINDS, every_kind, held, numbers, some_numbers

from qsim import reference
from qsim.arrays import encode, quantize
from qsim.errors import InputError
from qsim.formats import get_format, integer_format
from qsim.rounding import FLUSHES, Quantizer, saturations

# --- Threshold -------------------------------------------------------------------------------------------------------


@every_kind
@pytest.mark.parametrize("name", ["e4m3", "int4", "nf4", "cfloat8_1_4_3_half", "e8m0", "e5m3u"])
def test_thresholds(name: str, kind: np.dtype) -> None:
    """Up iff the fraction from the lesser neighbour exceeds eps: one number for all, one a column, one an element."""
    fmt = get_format(name)
    x = np.concatenate([some_numbers(fmt, kind, 20), -some_numbers(fmt, kind, 5)])
    x = x[: x.size // 3 * 3].reshape(-1, 3)
    random = np.random.default_rng(6)
    for eps in (0.0, 0.25, 1 / 3, 2.0**-64, 1 - 2.0**-53, 0, np.float32(0.5), [0.1, 0.5, 0.9], random.random(x.shape)):
        expected = codes_by_reference(x, fmt, "THR", eps=np.asarray(eps, float))
        assert encode(x, fmt, "Threshold", eps=eps).tolist() == expected.tolist()
        if held(kind, fmt):
            values = [fmt.decode(code) for code in expected.ravel().tolist()]
            assert same(quantize(x, fmt, "THR", eps=eps), np.array(values).astype(kind).reshape(x.shape))
    assert encode(x, fmt, "Threshold(0.25)").tolist() == encode(x, fmt, "THR", eps=0.25).tolist()
    assert encode(x, Quantizer(fmt, "THR", eps=0.25)).tolist() == encode(x, f"{name}:Threshold(0.25)").tolist()


@every_kind
def test_thresholds_at_the_fraction(kind: np.dtype) -> None:
    """A fraction that equals eps does not exceed it: 1.03125 is a quarter of the way from 1 to 1.125, -1.03125 three."""
    x = np.array([1.03125, -1.03125], kind)
    for eps, expected in (
        (0.25, [1, -1]),
        (0.25 - 2.0**-54, [1.125, -1]),
        (0.75, [1, -1.125]),
        (0.75 - 2.0**-53, [1, -1]),
    ):
        assert quantize(x, "e4m3", "THR", eps=eps).tolist() == expected


def test_threshold_and_the_directed_modes() -> None:
    """Threshold(0) rounds up, and Threshold(1/2) to nearest with ties down."""
    for fmt in ("e4m3", "nf4", "int4"):
        x = np.concatenate([numbers(500, FLOAT32), some_numbers(get_format(fmt), FLOAT32)])
        assert same(quantize(x, fmt, "THR", eps=0.0), quantize(x, fmt, "RUP"))
        assert same(quantize(x, fmt, "THR", eps=0.5), quantize(x, fmt, "RNN"))


# --- Flushing, NaN ---------------------------------------------------------------------------------------------------


@every_kind
def test_subnormal_inputs_are_flushed(kind: np.dtype) -> None:
    """With ftz_in a subnormal number of the input's own type is a zero of its sign; the smallest normal one is not."""
    fmt = get_format(str(kind))
    smallest = kind.type(fmt.smallest_normal)
    below = np.nextafter(smallest, kind.type(0))
    x = np.array(
        [smallest, below, kind.type(fmt.smallest_subnormal), kind.type(0), kind.type(np.inf), kind.type(np.nan)]
    )
    x = np.concatenate([x, -x])
    with np.errstate(invalid="ignore"):  # bfloat16 warns of NaN
        expected = np.where(np.abs(x) < smallest, np.copysign(kind.type(0), x), x)
    expected = np.where(np.isnan(x), kind.type(np.nan), expected)
    assert same(quantize(x, str(kind), ftz_in=True), expected)
    assert same(quantize(x[:5], str(kind)), x[:5])
    up = encode(np.array([below, smallest, -below, -smallest]), "e4m3", "RAZ", ftz_in=True)
    assert up.tolist() == [0, 1, 0x80, 0x81]
    assert encode(np.array([below]), "e8m0", "RUP", ftz_in=True).tolist() == [0]
    assert encode(np.array([below]), "binary", "RNE", ftz_in=True).tolist() == [1]


FLUSHED = [
    "e4m3", "e5m2", "e4m3fnuz", "e5m3fnu", "e2m1", "bfloat16", "float16", "e8m0", "e4m0fn", "int4", "Q3.4", "nf4", "binary",
    "cfloat8_1_4_3_half", "Binary8p3ue", "e3m3u",
]  # fmt: skip


@pytest.mark.in_part(3)
@every_kind
@pytest.mark.parametrize("name", FLUSHED)
def test_subnormal_results_are_flushed(name: str, kind: np.dtype) -> None:
    """What is tiny becomes a zero of its sign, if the format has one; integers and tables have no such thing."""
    fmt = get_format(name)
    small = fmt.smallest_normal * np.array([1, 0.99, 0.5, 0.26, 0.01, 1.01, 0.9999])
    x = np.concatenate([some_numbers(fmt, kind, 30), small.astype(kind), -small.astype(kind)])
    for mode, more in ("RNE", {}), ("RAZ", {}), ("THR", {"eps": 0.2}), ("SRA", {"sr_bits": 0, "rbits": [0] * x.size}):
        stated = {"sr_bits": 0, "rbits": 0} if mode == "SRA" else more
        for rule, flush in itertools.product(saturations(fmt), FLUSHES):
            codes = encode(x, fmt, mode, ftz_out=flush, saturation=rule, **stated)
            expected = codes_by_reference(x, fmt, mode, ftz_out=flush, saturation=rule, **more)
            assert codes.tolist() == expected.tolist(), flush
    for flush in FLUSHES if fmt.kind == "float" and fmt.has_zero else ():
        values = np.abs(fmt.values()[encode(x, fmt, ftz_out=flush)])
        assert not ((values > 0) & (values < fmt.smallest_normal)).any()


@every_kind
def test_an_overflow_is_nan_whatever_becomes_of_one(kind: np.dtype) -> None:
    """With ftz_out too `nan_to` speaks of a NaN that comes in, and OvfNaN of what an overflow becomes."""
    fmt = dataclasses.replace(get_format("e4m3"), nan_to="max")
    x = np.array([math.nan, fmt.max * 2, -fmt.max * 2, math.inf, 1.0], kind)
    for flushed in (False, True):
        codes = encode(x, fmt, saturation="OvfNaN", ftz_out=flushed)
        assert codes.tolist() == [fmt.top, 0x7F, 0x7F, 0x7F, 0x38]
        assert codes.tolist() == codes_by_reference(x, fmt, saturation="OvfNaN", ftz_out=flushed).tolist()


@every_kind
@pytest.mark.parametrize(
    "name", ["e4m3", "e5m2", "e4m3fnuz", "Binary8p3se", "e5m3fnu", "posit8", "e2m1", "int8", "nf4", "e8m0"]
)
def test_signs_and_payloads_of_nan(name: str, kind: np.dtype) -> None:
    """A NaN result is the format's one, without payload; if it is asked for with the sign of the input, where NaNs have one.

    An overflow that becomes NaN is a result like this.
    """
    fmt, word = get_format(name), np.dtype(f"u{kind.itemsize}").type
    inf = np.array([math.inf, -math.inf], kind).view(word)
    nans = np.concatenate([inf + word(payload) for payload in (1, 5, (1 << (get_format(str(kind)).man_bits - 1)) + 3)])
    largest = get_format(str(kind)).max
    x = np.concatenate([nans.view(kind), np.array([math.inf, -math.inf, largest, -largest]).astype(kind)])
    for rule in saturations(fmt):
        for nan in ("canonical", "signed"):
            codes = encode(x, fmt, nan=nan, saturation=rule)
            assert codes.tolist() == codes_by_reference(x, fmt, nan=nan, saturation=rule).tolist()
            signed = nan == "signed" and fmt.has_neg_zero
            if fmt.has_nan:
                assert codes[:2].tolist() == [fmt.nan_code, fmt.nan_code | signed << (fmt.bits - 1)]
            if held(kind, fmt):
                y = quantize(x, fmt, nan=nan, saturation=rule)
                quiet = np.isnan(y)
                bits = np.where(np.signbit(x) & signed, kind.type(-math.nan), kind.type(math.nan))
                assert y[quiet].tobytes() == np.copysign(kind.type(math.nan), bits)[quiet].tobytes()


def test_nan_without_a_place() -> None:
    """A format whose nan_to is "error" refuses a NaN and says where it is; other numbers pass, nothing else counts as one."""
    strict = integer_format("strict", 8, "a test", nan_to="error")
    for x, where in ([1.0, math.nan], "x[1]"), ([[1.0, 2.0], [math.nan, math.nan]], "x[1, 0]"), (math.nan, "x[]"):
        for kind in KINDS:
            for function in (quantize, encode):
                with pytest.raises(InputError, match=re.escape(f"{where} is NaN, which has no place in strict")):
                    function(np.array(x).astype(kind), strict)
    assert quantize(np.array([math.inf, -math.inf, 1.5]), strict).tolist() == [127, -128, 2]
    with pytest.raises(InputError, match="a NaN has no place in strict"):
        reference.encode(math.nan, strict)


# --- Wrapping --------------------------------------------------------------------------------------------------------

INTEGER_MODES: dict[str, Callable[[Fraction], int]] = {
    "RNE": round, "RTZ": math.trunc, "RUP": math.ceil, "RDN": math.floor,
    "RNP": lambda x: math.floor(x + Fraction(1, 2)), "RNN": lambda x: math.ceil(x - Fraction(1, 2)),
    "RAZ": lambda x: math.ceil(x) if x > 0 else math.floor(x),
}  # fmt: skip
"""Modes that Python's own functions on exact numbers are."""

WRAPPED = [
    "int2",
    "int8",
    "int16",
    "int32",
    "uint2",
    "uint8",
    "uint32",
    "Q3.4",
    "Q0.7",
    "Q7.8",
    "UQ2.3",
    "UQ0.8",
    "Q0.31",
    "UQ8.8",
]


def far_numbers(kind: np.dtype) -> np.ndarray:
    """Return numbers of all sizes of a type: halves, neighbours of powers of two, huge ones."""
    largest = get_format(str(kind)).emax
    powers = np.array([2.0**e for e in range(-10, largest + 1, 1 if largest < 100 else 7)])
    steps = np.concatenate(
        [powers, powers + 1, powers - 0.5, powers * 1.5, powers + 2.0**-4, np.arange(-300, 300, 0.5)]
    )
    with np.errstate(over="ignore"):
        x = np.unique(np.concatenate([steps, -steps]).astype(kind))
    return np.concatenate(
        [x[np.isfinite(x)], np.random.default_rng(8).standard_normal(200).astype(kind) * kind.type(1000)]
    )


@pytest.mark.in_part(3)
@every_kind
@pytest.mark.parametrize("name", WRAPPED)
def test_wrapping_around(name: str, kind: np.dtype) -> None:
    """Under `wrap` the code is the rounded number modulo 2^bits, in Python's integers, however large it is: 2^1000 too."""
    fmt, x = get_format(name), far_numbers(kind)
    scale = 1 / Fraction(fmt.smallest_subnormal)
    exact = [Fraction(value) * scale for value in exactly(x).tolist()]
    for mode, rounded in INTEGER_MODES.items():
        codes = [rounded(value) % (1 << fmt.bits) for value in exact]
        assert encode(x, fmt, mode, saturation="wrap").tolist() == codes
        if held(kind, fmt):
            y = quantize(x, fmt, mode, saturation="wrap")
            assert same(y, np.array([fmt.decode(code) for code in codes]).astype(kind))
            assert not np.signbit(y[y == 0]).any()
    special = np.array([math.inf, -math.inf, math.nan, -0.0]).astype(kind)
    assert encode(special, fmt, saturation="wrap").tolist() == [fmt.code(fmt.top), fmt.code(-fmt.bottom), 0, 0]


def test_wrapping_with_words() -> None:
    """A stochastic rounding wraps what it rounded: just below 2^1000 int8 is 0, and 127.5 is 127 or -128."""
    x = np.array([2.0**1000, -(2.0**1000) + 2.0**947, 127.5, 127.5, -128.5])
    rbits = np.array([0, 0, 0, 1 << 62, 1 << 62], np.uint64)
    codes = codes_by_reference(x, "int8", "SRA", sr_bits=63, rbits=rbits.tolist(), saturation="wrap")
    assert encode(x, "int8", "SRA", sr_bits=63, rbits=rbits, saturation="wrap").tolist() == codes.tolist()
    assert quantize(x, "int8", "SRA", sr_bits=63, rbits=rbits, saturation="wrap").tolist() == [0, 0, 127, -128, 127]
