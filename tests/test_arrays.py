"""Rounding over arrays: any layout, the words each element takes, scales, counts, codes, and what is refused."""

from __future__ import annotations

import functools
import math
import os
import re
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from strategies import CATALOGUE, FLOAT32, FLOAT64, PARAMETRIC, SMALL, formats, inputs

import qsim
from qsim import reference
from qsim.arrays import Counts, decode, derive_scale, encode, quantize, quantize_draws, random_words
from qsim.errors import InputError
from qsim.folders import folder
from qsim.formats import get_format
from qsim.kernels import compiled, core
from qsim.kernels.parameters import CARRIERS
from qsim.rounding import Key, Quantizer

both_carriers = pytest.mark.parametrize("carrier", [FLOAT32, FLOAT64], ids=str)

SEED, STREAM = 0x0123456789ABCDEF, 0xFEDCBA9876543210


def numbers(count: int, carrier: np.dtype) -> np.ndarray:
    """Return `count` numbers of all sizes that e4m3 tells apart, most of them between two of its values."""
    random = np.random.default_rng(0)
    return (random.standard_normal(count) * np.exp2(random.integers(-10, 9, count))).astype(carrier)


def same(a: np.ndarray, b: np.ndarray) -> bool:
    """Return whether two arrays agree in shape, type (byte order aside) and every bit."""
    return a.shape == b.shape and a.dtype.newbyteorder("=") == b.dtype and a.astype(b.dtype).tobytes() == b.tobytes()


@functools.cache
def block(number: int, seed: int, stream: int) -> tuple[int, ...]:
    """Return the four words of a Philox block, by the function that the known answers test, in plain Python."""
    halves = [half for whole in (number, stream, seed) for half in (whole & 0xFFFFFFFF, whole >> 32)]
    return tuple(int(word) for word in core.philox4x32_10(*map(np.uint64, halves)))


def words(key: Key, count: int, carrier: np.dtype) -> list[int]:
    """Return the random word of each element as the promise states it, N = 32 or 64 bits."""
    at = range(key.offset, key.offset + count)
    if carrier == FLOAT32:
        return [block(i // 4, key.seed, key.stream)[i % 4] for i in at]
    blocks = [block(i // 2, key.seed, key.stream)[2 * (i % 2) :] for i in at]
    return [high << 32 | low for high, low, *_ in blocks]


def by_reference(x: np.ndarray, fmt: str, mode: str, n: int = 0, rbits: list[int] | None = None) -> np.ndarray:
    """Round `x` element by element by the definition."""
    flat, each = x.reshape(-1).tolist(), rbits or [0] * x.size
    y = [reference.quantize(value, fmt, mode, sr_bits=n, rbits=r) for value, r in zip(flat, each, strict=True)]
    return np.array(y, x.dtype).reshape(x.shape)


# --- Shapes and layouts ----------------------------------------------------------------------------------------------


def swapped(x: np.ndarray) -> np.ndarray:
    """Return `x` in the other byte order."""
    return x.astype(x.dtype.newbyteorder())


def read_only(x: np.ndarray) -> np.ndarray:
    """Return `x` as an array that cannot be written."""
    x.flags.writeable = False
    return x


LAYOUTS: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "0-d": lambda x: x[7].reshape(()),
    "scalar": lambda x: x[7],
    "empty": lambda x: x[:0],
    "empty 3-d": lambda x: x[:0].reshape(2, 0, 3),
    "1-d": lambda x: x,
    "3-d": lambda x: x.reshape(2, 3, 4),
    "Fortran order": lambda x: np.asfortranarray(x.reshape(4, 6)),
    "transposed": lambda x: x.reshape(2, 3, 4).transpose(1, 2, 0),
    "strided": lambda x: x[1::3],
    "reversed": lambda x: x.reshape(4, 6)[::-1, ::-2],
    "broadcast": lambda x: np.broadcast_to(x[:3], (4, 3)),
    "read-only": read_only,
    "byte-swapped": swapped,
    "byte-swapped and strided": lambda x: swapped(x).reshape(4, 6)[:, ::2],
}


@both_carriers
@pytest.mark.parametrize("layout", LAYOUTS.values(), ids=LAYOUTS)
def test_layouts(layout: Callable[[np.ndarray], np.ndarray], carrier: np.dtype) -> None:
    """Whatever the layout, the result has shape and dtype of x, is writable, and element i in C order takes word i."""
    x = layout(numbers(24, carrier))
    before = x.tobytes()
    key = Key(SEED, STREAM, 5)
    plain = np.array(x, carrier, order="C")
    nearest, stochastic = quantize(x, "e4m3"), quantize(x, "e4m3", "SR", key=key)
    drawn = words(key, plain.size, carrier)
    assert same(nearest, by_reference(plain, "e4m3", "RNE"))
    assert same(stochastic, by_reference(plain, "e4m3", "SR", 8 * carrier.itemsize, drawn))
    codes = encode(x, "e4m3", "SR", key=key)
    assert codes.shape == x.shape
    decoded = decode(codes, "e4m3", carrier)
    assert same(decoded, stochastic.astype(carrier))
    for y in (nearest, stochastic, codes, decoded):
        assert isinstance(y, np.ndarray)
        assert y.flags.writeable
    assert nearest.dtype == x.dtype
    assert x.tobytes() == before


@pytest.mark.parametrize("x", [1.3, 3, [1.3, -2, 700], [[1], [2]], [], (0.5, math.nan)], ids=str)
def test_python_numbers_are_float64(x: Any) -> None:
    """Python's numbers, alone or in lists, are rounded as float64."""
    y = quantize(x, "e4m3")
    assert same(y, by_reference(np.array(x, np.float64), "e4m3", "RNE"))


@both_carriers
def test_every_special_value_has_a_result(carrier: np.dtype) -> None:
    """Infinities, NaNs with payloads, zeros, subnormals and the largest numbers give results without a warning."""
    x = np.array([np.inf, np.nan, 0.0, np.finfo(carrier).smallest_subnormal, np.finfo(carrier).max], carrier)
    signalling = (x[:1].view(CARRIERS[carrier].word) + CARRIERS[carrier].word(1)).view(carrier)
    x = np.concatenate([x, -x, signalling])
    for fmt in ("e4m3", "e5m2", "e4m3fnuz", "e2m1", "int8"):
        for scale in ("none", "pow2", "absmax", 2.0**-100, 2.0**100):
            with np.errstate(over="ignore", invalid="ignore"):
                s = 1 if scale == "none" else derive_scale(x.reshape(1, -1), Quantizer(fmt, scale=scale))
                expected = by_reference(np.reshape(x / s, -1), fmt, "RNE") * np.reshape(s, -1)[:1].astype(carrier)
                if not get_format(fmt).has_inf and scale != "none":  # what saturates does not overflow on the way back
                    expected = np.clip(expected, -np.finfo(carrier).max, np.finfo(carrier).max)
            assert same(quantize(x, fmt, scale=scale), expected)


# --- out= ------------------------------------------------------------------------------------------------------------


@both_carriers
def test_out(carrier: np.dtype) -> None:
    """`out` of any layout takes the result and is returned; it may be x itself, a part of it, or overlap it."""
    x = numbers(24, carrier).reshape(4, 6)
    expected = quantize(x, "e4m3")
    wide = np.zeros((8, 12), carrier)
    for out in (np.empty_like(x), np.empty_like(x, order="F"), wide[::2, ::-2], swapped(x), x.copy()):
        assert quantize(x, "e4m3", out=out) is out
        assert np.array_equal(out, expected)
    assert not wide[1::2].any()
    itself = x.copy()
    assert quantize(itself, "e4m3", out=itself) is itself
    assert same(itself, expected)
    line = numbers(24, carrier)
    quantize(line[:-1], "e4m3", out=line[1:])
    assert same(line[1:], quantize(numbers(24, carrier)[:-1], "e4m3"))
    scalar = np.empty((), carrier)
    assert quantize(x[0, 0], "e4m3", out=scalar) is scalar
    assert scalar == expected[0, 0]


@pytest.mark.parametrize(
    ("out", "fragment"),
    [
        (np.zeros(5, np.float32), "float32 (5,); it must be an array of float32 (4,)"),
        (np.zeros((4, 1), np.float32), "float32 (4, 1)"),
        (np.zeros(4, np.float64), "float64 (4,)"),
        (np.zeros(4, np.int32), "int32 (4,)"),
        ([0.0] * 4, "out is list"),
        (read_only(np.zeros(4, np.float32)), "read-only"),
    ],
    ids=["size", "shape", "precision", "type", "list", "read-only"],
)
def test_wrong_out_is_refused(out: Any, fragment: str) -> None:
    """An `out` that does not fit is refused, and nothing is written."""
    with pytest.raises(InputError, match=re.escape(fragment)):
        quantize(np.ones(4, np.float32), "e4m3", out=out)
    assert not np.any(out)


# --- Which element takes which word ----------------------------------------------------------------------------------

SIZES = [0, 1, 2, 3, 4, 5, 7, 511, 512, 513, 1023, 1024, 1025, 3001]


@both_carriers
@pytest.mark.parametrize("offset", range(10))
def test_a_slice_continues(offset: int, carrier: np.dtype) -> None:
    """x[k:] with offset k rounds as the whole of x does there, for every k and for sizes around the buffer's."""
    for size in SIZES:
        x = numbers(size + offset, carrier)
        whole = quantize(x, "e4m3", "SR", key=Key(SEED, STREAM))
        assert same(quantize(x[offset:], "e4m3", "SR", key=Key(SEED, STREAM, offset)), whole[offset:])


KEYS = [
    Key(0), Key(1), Key(SEED, STREAM), Key(SEED, STREAM, 3), Key(SEED, STREAM, (1 << 32) - 2),
    Key((1 << 64) - 1, (1 << 64) - 1, (1 << 63) + 1), Key(SEED, STREAM, (1 << 64) - 9),
]  # fmt: skip


@pytest.mark.parametrize("key", KEYS, ids=str)
def test_words_by_the_promise(key: Key) -> None:
    """Element i takes word i % 4 of block i // 4 of its stream, whatever the seed, the stream and the offset."""
    assert random_words(key, 9).tolist() == words(key, 9, FLOAT32)


@both_carriers
@pytest.mark.parametrize("key", KEYS, ids=str)
def test_rounding_takes_the_words_of_the_promise(key: Key, carrier: np.dtype) -> None:
    """Rounding with a key is rounding with its words given: one of 32 bits an element, for float64 two, high first."""
    width = 8 * carrier.itemsize
    x = numbers(9, carrier)
    drawn = words(key, 9, carrier)
    rbits = np.array(drawn, np.uint64)
    expected = by_reference(x, "e4m3", "SR", width, drawn)
    assert same(quantize(x, "e4m3", "SR", key=key), expected)
    assert same(quantize(x, "e4m3", "SR", sr_bits=width, rbits=rbits), expected)
    for n in (0, 1, 7, width):  # SRA takes the top bits of the same word
        top = [word >> (width - n) for word in drawn]
        expected = by_reference(x, "e4m3", "SRA", n, top)
        assert same(quantize(x, "e4m3", "SRA", sr_bits=n, key=key), expected)
        assert same(quantize(x, "e4m3", "SRA", sr_bits=n, rbits=np.array(top, np.uint64)), expected)


def test_streams_and_seeds_differ() -> None:
    """Another seed or stream gives other words; float32 and float64 arrays of one key read the same blocks."""
    lots = [tuple(random_words(key, 40)) for key in (Key(0), Key(1), Key(1 << 32), Key(0, 1), Key(0, 1 << 32))]
    assert len({word for lot in lots for word in lot}) == 5 * 40
    pairs = np.array(words(Key(0), 20, FLOAT64), np.uint64)
    assert np.stack([pairs >> 32, pairs & 0xFFFFFFFF], 1).ravel().tolist() == list(lots[0])


def test_words_broadcast() -> None:
    """One word, or one a column, stands for all that it is broadcast to."""
    x = numbers(12, FLOAT32).reshape(3, 4)
    for rbits in (5, [5, 0, 7, 3], [[1], [2], [7]], np.full((3, 4), 6, np.int8)):
        each = np.broadcast_to(rbits, x.shape).ravel().tolist()
        assert same(quantize(x, "e4m3", "SRA", sr_bits=3, rbits=rbits), by_reference(x, "e4m3", "SRA", 3, each))


def test_threads_do_not_matter() -> None:
    """Threads that round parts of one array at the same time give the bits of one thread."""
    x = numbers(100_000, FLOAT32)
    whole, parts = quantize(x, "e4m3", "SR", key=Key(7)), np.empty_like(x)

    def work(start: int) -> None:
        quantize(x[start : start + 9999], "e4m3", "SR", key=Key(7, 0, start), out=parts[start : start + 9999])

    threads = [threading.Thread(target=work, args=(start,)) for start in range(0, x.size, 9999)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert same(parts, whole)


# --- Draws and counts ------------------------------------------------------------------------------------------------


@both_carriers
@pytest.mark.parametrize("q", ["e4m3:SR", Quantizer("e4m3", "SRA", sr_bits=5, scale="absmax"), "int4:SR"], ids=str)
def test_draws_are_rows(q: Any, carrier: np.dtype) -> None:
    """Row k of a draw is the rounding with stream k alone, whether x is one row for all draws or one for each."""
    q = Quantizer.parse(q)
    streams = [3, 1 << 40, 5]
    for x in (numbers(700 * 3, carrier).reshape(3, 7, 100), numbers(1300, carrier).reshape(1, 1300)):
        y, _ = quantize_draws(x, q, SEED, streams)
        assert y.shape == (3, *x.shape[1:])
        for k, stream in enumerate(streams):
            assert same(y[k], quantize(x[min(k, len(x) - 1)], q, key=Key(SEED, stream)))


def test_draws_without_chance_are_one() -> None:
    """A deterministic rounding does not repeat a single row; it rounds each of several."""
    x = numbers(60, FLOAT32).reshape(3, 20)
    for rows in (x, x[:1]):
        y, counts = quantize_draws(rows, Quantizer("e4m3"), 0, range(3))
        assert same(y, quantize(rows, "e4m3"))
        assert counts.elements == rows.size


def test_draws_must_match_streams() -> None:
    """Two rows of x for three streams are refused; the last row does not stand for a third."""
    with pytest.raises(InputError, match="2 draws and there are 3 streams"):
        quantize_draws(numbers(8, FLOAT32).reshape(2, 4), Quantizer.parse("e4m3:SR"), 0, [1, 2, 3])


@given(st.data())
def test_counts_by_brute_force(data: st.DataObject) -> None:
    """Saturated, underflowed, NaN and unchanged elements are those that a loop over the numbers finds."""
    carrier = data.draw(st.sampled_from([FLOAT32, FLOAT64]))
    fmt = data.draw(formats(carrier))
    x = np.array(data.draw(st.lists(inputs(fmt, carrier), max_size=20)), carrier)
    y, counts = quantize_draws(x.reshape(1, -1), Quantizer(fmt), 0, [0])
    pairs = [(float(a), float(b)) for a, b in zip(x, y[0], strict=True)]
    assert counts == Counts(
        elements=len(pairs),
        saturated=sum(math.isfinite(a) and not fmt.min <= a <= fmt.max for a, _ in pairs),
        underflowed=sum(math.isfinite(a) and a != 0 == b for a, b in pairs),
        nan=sum(math.isnan(a) for a, _ in pairs),
        on_grid=sum(math.isfinite(a) and a == b for a, b in pairs),
    )


def test_counts_add_up() -> None:
    """Counts of several roundings are added field by field; those of all rows are in one."""
    assert Counts(1, 2, 3, 4, 5) + Counts(10, 20, 30, 40, 50) == Counts(11, 22, 33, 44, 55)
    x = np.array([[1, 500, 1e-9, np.nan], [2, -500, 449, 1.01]], np.float32)
    _, counts = quantize_draws(x, Quantizer("e4m3", "SRA", sr_bits=0), 0, [0, 1])
    assert counts == Counts(elements=8, saturated=3, underflowed=1, nan=1, on_grid=2)
    _, counts = quantize_draws(np.array([[-128, -129, 127, 128, -0.0, -0.5]]), Quantizer("int8"), 0, [0])
    assert counts == Counts(elements=6, saturated=2, underflowed=1, nan=0, on_grid=3)


# --- Scales ----------------------------------------------------------------------------------------------------------


@both_carriers
@pytest.mark.parametrize("scale", [3.0, 0.1, "absmax", "pow2"])
def test_order_of_operations(scale: Any, carrier: np.dtype) -> None:
    """Dividing by the scale, rounding, and multiplying back happen in this order, in the precision of x."""
    x = numbers(200, carrier) * carrier.type(77.7)
    for fmt in ("e4m3", "int8", "e5m2", str(carrier)):  # the last keeps every bit of the quotient
        (s,) = derive_scale(x[None], Quantizer(fmt, scale=scale))[0]
        assert s.dtype == carrier
        key = Key(1)
        quotients = np.array([value / s for value in x])
        rounded = by_reference(quotients, fmt, "SR", 8 * carrier.itemsize, words(key, x.size, carrier))
        assert same(quantize(x, fmt, "SR", key=key, scale=scale), np.array([value * s for value in rounded]))
        codes = encode(x, fmt, "SR", key=key, scale=scale)
        assert np.array_equal(decode(codes, fmt, carrier), rounded)


def test_scale_of_three() -> None:
    """A worked case: 10 / 3 is 3.3333 and rounds to 3.25, which times 3 is 9.75."""
    assert quantize(np.float32([10]), "e4m3", scale=3).tolist() == [9.75]
    assert decode(encode(np.float32([10]), "e4m3", scale=3), "e4m3").tolist() == [3.25]


@given(st.data())
def test_derived_scales(data: st.DataObject) -> None:
    """The scale absmax is fl(max|x| / max), or the next float if that leaves max|x| above; pow2 the least power of two."""
    carrier = data.draw(st.sampled_from([FLOAT32, FLOAT64]))
    fmt = data.draw(formats(carrier))
    x = np.array(data.draw(st.lists(inputs(fmt, carrier), min_size=1, max_size=5)), carrier)
    largest = max([abs(Fraction(float(value))) for value in x if np.isfinite(value)], default=Fraction(0))
    tiny, huge = np.finfo(carrier).smallest_normal, np.finfo(carrier).max
    s = derive_scale(x[None], Quantizer(fmt, scale="pow2"))
    assert s.shape == (1, 1)
    assert s.dtype == carrier
    power = Fraction(float(s[0, 0]))
    assert math.frexp(power)[0] == 0.5
    wanted = largest / Fraction(fmt.max)
    if tiny <= wanted and 2 * wanted <= huge:
        assert power / 2 < wanted <= power
    if largest == 0 or wanted < Fraction(float(tiny)) / 2:
        assert power == 1
    (absmax,) = derive_scale(x[None], Quantizer(fmt, scale="absmax"))[0]
    with np.errstate(over="ignore"):
        quotient = carrier.type(float(largest)) / carrier.type(fmt.max)
        if quotient and carrier.type(float(largest)) / quotient > fmt.max:
            quotient = np.nextafter(quotient, carrier.type(np.inf))
            assert carrier.type(float(largest)) / quotient <= fmt.max
    assert absmax == (quotient if largest and tiny <= quotient < np.inf else 1)


def test_scales_of_rows() -> None:
    """Each row of draws has its own scale; rows of zeros, NaN and infinities alone have scale 1."""
    rows = np.array([[1, -896], [0, -0.0], [np.nan, np.inf], [np.inf, 448.5], [1e-45, 0]], np.float32)
    assert derive_scale(rows, Quantizer("e4m3", scale="pow2")).ravel().tolist() == [2, 1, 1, 2, 1]
    assert derive_scale(rows, Quantizer("e4m3", scale=0.5)).tolist() == [[0.5]]
    assert derive_scale(rows, Quantizer("e4m3")) is None


@both_carriers
def test_power_of_two_scales_are_exact(carrier: np.dtype) -> None:
    """Scaling by a power of two shifts the format's range: scaled inputs give scaled results."""
    x = numbers(500, carrier)
    plain = quantize(x, "e4m3", scale="pow2")
    assert same(quantize(x * carrier.type(2**20), "e4m3", scale="pow2"), plain * carrier.type(2**20))


# --- Codes -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("fmt", [fmt for fmt in CATALOGUE if fmt.bits <= 16], ids=str)
def test_codes_round_trip(fmt: Any) -> None:
    """Every code decodes to a value that encodes to it; codes of NaN all become the one that results have."""
    codes = np.arange(1 << fmt.bits, dtype=np.uint32)
    for dtype in (np.float32, np.float64):
        values = decode(codes, fmt, dtype)
        assert values.dtype == dtype
        assert same(values, fmt.values().astype(dtype))
        again = encode(values, fmt, "RNE", saturation="SatNone" if fmt.has_inf else None)
        nan = np.isnan(values)
        assert np.array_equal(again[~nan], codes[~nan])
        assert (again[nan] == fmt.nan_code).all() if fmt.has_nan else not nan.any()


@pytest.mark.parametrize(
    ("name", "dtype"), [("int2", "u1"), ("e4m3", "u1"), ("int9", "u2"), ("tf32", "u4"), ("float64", "u8")]
)
def test_codes_take_the_smallest_type(name: str, dtype: str) -> None:
    """Codes have the smallest unsigned type that holds them."""
    assert encode(np.ones(3), name).dtype == np.dtype(dtype)


def test_codes_are_the_references() -> None:
    """Codes of small formats are those of the definition, for float32 and float64 alike."""
    for fmt in (*SMALL, *PARAMETRIC[::17]):
        for carrier in (FLOAT32, FLOAT64):
            if CARRIERS[carrier].holds(fmt):
                x = numbers(40, carrier)
                assert encode(x, fmt).tolist() == [reference.encode(value, fmt) for value in x.tolist()]


def test_decoding_wide_formats() -> None:
    """Formats without a table are decoded as well; those that float32 cannot hold come as float64."""
    x = numbers(40, FLOAT32)
    assert same(decode(encode(x, "float32"), "float32"), x)
    assert same(decode(encode(x, "tf32").reshape(5, 8), "tf32"), quantize(x, "tf32").reshape(5, 8))
    y = numbers(40, FLOAT64)
    assert same(decode(encode(y, "float64"), "float64"), y)
    assert decode(encode(y, "e10m5"), "e10m5").dtype == np.float64
    assert decode(np.zeros((2, 0), np.uint8), "e4m3").shape == (2, 0)


# --- Spellings and refusals ------------------------------------------------------------------------------------------


def test_spellings_of_one_rounding() -> None:
    """Format and mode as two names, as one, or as a quantizer are one rounding."""
    x, key = numbers(100, FLOAT32), Key(3)
    expected = quantize(x, "float8_e4m3fn", "SR", key=key)
    for spelled in (("e4m3:SR",), (Quantizer("e4m3", "SR"),), (get_format("e4m3"), "Stochastic")):
        assert same(quantize(x, *spelled, key=key), expected)
    q = Quantizer("e5m2", "SRA", sr_bits=8, saturation="SatFinite", scale=2.0)
    spelled_out = quantize(x, "e5m2", "SRA", sr_bits=8, saturation="SatFinite", scale=2.0, key=key)
    assert same(quantize(x, q, key=key), spelled_out)
    assert same(quantize(x, q, key=key, sr_bits=8), spelled_out)


X = np.ones(4, np.float32)


@pytest.mark.parametrize(
    ("arguments", "options", "fragment"),
    [
        ((X, "e4m4m"), {}, "no format is called 'e4m4m'"),
        ((X, "e4m3", "RNX"), {}, "no rounding mode is called 'RNX'"),
        ((X, "e4m3", "SR"), {}, "SR needs its random words: key=qsim.Key(seed), or rbits= with sr_bits="),
        ((X, "e4m3", "SRA"), {"key": Key(0)}, "SRA needs sr_bits"),
        (
            (X, "e4m3", "SRA"),
            {"key": Key(0), "sr_bits": 33},
            "sr_bits = 33: SRA of float32 input takes 0 to 32 random bits",
        ),
        (
            (X, "e4m3", "SRB"),
            {"key": Key(0), "sr_bits": 32},
            "sr_bits = 32: SRB of float32 input takes at most 31 random",
        ),
        ((X, "e4m3", "SRC"), {"key": Key(0)}, "SRC needs sr_bits, the number of random bits N"),
        ((X, "e4m3", "SRE"), {"rbits": 0, "sr_bits": 0}, "sr_bits = 0: SRE of float32 input takes 1 to 32 random bits"),
        ((X, "e4m3", "RUP"), {"rbits": 0, "sr_bits": 1}, "RUP takes no random bits"),
        ((X.astype(float), "e4m3", "SRA"), {"key": Key(0), "sr_bits": 65}, "sr_bits = 65"),
        ((X, "e4m3", "SR"), {"key": Key(0), "sr_bits": 31}, "SR takes 32 random bits of float32 input, not 31"),
        ((X.astype(float), "e4m3", "SR"), {"key": Key(0), "sr_bits": 32}, "SR takes 64 random bits of float64 input"),
        ((X, "e4m3", "SR"), {"rbits": 1}, "rbits needs sr_bits"),
        ((X, "e4m3", "SRA"), {"rbits": 1, "sr_bits": 8, "key": Key(0)}, "takes the place of key"),
        ((X, "e4m3", "SRA"), {"rbits": 256, "sr_bits": 8}, "rbits of 8 bits are 0 .. 255, not 256 .. 256"),
        ((X, "e4m3", "SRA"), {"rbits": [0, -1, 2, 3], "sr_bits": 8}, "rbits of 8 bits are 0 .. 255, not -1 .. 3"),
        ((X, "e4m3", "SRA"), {"rbits": 0.5, "sr_bits": 8}, "rbits are integers, not float64"),
        ((X, "e4m3", "SRA"), {"rbits": True, "sr_bits": 8}, "rbits are integers, not bool"),
        ((X, "e4m3", "SRA"), {"rbits": [1, 2, 3], "sr_bits": 8}, "shape (3,) do not broadcast to the shape (4,)"),
        ((X, "e4m3", "RNE"), {"sr_bits": 8}, "RNE takes no random bits"),
        ((X, "e4m3", "RNE"), {"rbits": 8}, "RNE takes no random bits"),
        ((X, "e4m3"), {"saturation": "SatNone"}, "SatNone makes no sense for float8_e4m3fn"),
        ((X, "e4m3"), {"scale": "absmean"}, "no scale is called 'absmean'"),
        ((X, "e4m3"), {"scale": -1}, "scale = -1"),
        ((X, "e4m3"), {"scale": 1e-60}, "scale = 1e-60 is beyond the range of float32"),
        ((X, "e4m3"), {"scale": 1e60}, "scale = 1e+60 is beyond the range of float32"),
        ((X, Quantizer("e4m3"), "SR"), {}, "a Quantizer says mode"),
        ((X, Quantizer("e4m3")), {"scale": 2.0}, "a Quantizer says mode"),
        ((X, Quantizer("e4m3")), {"saturation": "OvfNaN"}, "a Quantizer says mode"),
        ((X, Quantizer("e4m3", "SRA", sr_bits=8)), {"sr_bits": 4, "key": Key(0)}, "sr_bits = 4 contradicts the 8"),
        ((X, "float64"), {}, "float32 cannot hold the values of float64; convert the input to float64"),
        ((X, "float64"), {"scale": "pow2"}, "float32 cannot hold the values of float64"),
        ((X, "e8m7fnuz"), {}, "float32 cannot hold the values of e8m7fnuz"),
        ((X.astype(np.float16), "e4m3"), {}, "not float16; convert the input first"),
        ((X.astype(int), "e4m3"), {}, "not int64"),
        ((X > 0, "e4m3"), {}, "not bool"),
        ((X + 1j, "e4m3"), {}, "not complex64"),
        (("1.0", "e4m3"), {}, "not <U3"),
        ((None, "e4m3"), {}, "not object"),
    ],
)
def test_refusals(arguments: tuple[Any, ...], options: dict[str, Any], fragment: str) -> None:
    """What cannot be done is refused in one sentence with what would do, by `quantize` and by `encode`."""
    for function in (quantize, encode):
        with pytest.raises(InputError, match=re.escape(fragment)) as caught:
            function(*arguments, **options)
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("codes", "fragment"),
    [
        ([256], "codes of float8_e4m3fn are 0 .. 255, not 256 .. 256"),
        ([3, -1], "not -1 .. 3"),
        ([1.0], "codes are integers, not float64"),
        ([True], "codes are integers, not bool"),
    ],
)
def test_wrong_codes_are_refused(codes: list[Any], fragment: str) -> None:
    """What is no code of the format is refused."""
    with pytest.raises(InputError, match=re.escape(fragment)):
        decode(codes, "e4m3")


# --- The cache of compiled kernels -----------------------------------------------------------------------------------


def test_an_edit_of_the_core_is_noticed(tmp_path: Path) -> None:
    """A warm cache serves the kernels it was made from, and no others: an edit of the core alone changes results."""
    shutil.copytree(Path(qsim.__file__).parent, tmp_path / "qsim", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copytree(folder("formats"), tmp_path / "formats")
    (tmp_path / "pyproject.toml").touch()
    cache, file = tmp_path / "cache", tmp_path / "qsim" / "kernels" / "core.py"
    environment = os.environ | {
        "PYTHONPATH": str(tmp_path), "NUMBA_CACHE_DIR": str(cache), "PYTHONDONTWRITEBYTECODE": "1",
    }  # fmt: skip
    program = "import numpy, qsim; print(qsim.quantize(numpy.float32([1.0625, 1.1875, 1.2]), 'e4m3').tolist())"

    def ask() -> tuple[str, dict[Path, int]]:
        done = subprocess.run(
            [sys.executable, "-c", program], cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=180,
            check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        return done.stdout.strip(), {path: path.stat().st_mtime_ns for path in cache.rglob("*") if path.is_file()}

    cold, first = ask()
    assert cold == "[1.0, 1.25, 1.25]"
    assert first
    assert ask() == (cold, first)  # nothing was compiled anew
    source = file.read_text(encoding="utf-8")
    decision = "else f > t)"
    assert source.count(decision) == 1
    file.write_text(source.replace(decision, "else f >= t)"), encoding="utf-8")
    edited, second = ask()
    assert edited == "[1.125, 1.25, 1.25]"
    assert first.items() < second.items()


def test_without_a_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where no folder can be written, kernels are compiled without a cache rather than not at all."""
    (tmp_path / "file").touch()
    monkeypatch.setenv("NUMBA_CACHE_DIR", str(tmp_path / "file"))
    assert compiled.cache_directory.__wrapped__() is None
