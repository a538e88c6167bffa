"""Rounding over arrays: any type and layout, the words each element takes, thresholds, flushing, codes, and what is refused."""

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
from enumeration import exactly
from hypothesis import given
from hypothesis import strategies as st
from strategies import (
    BFLOAT16,
    BIASED,
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
    held,
    inputs,
    ordinals,
)

import qsim
from qsim import reference
from qsim.arrays import Counts, decode, encode, quantize, quantize_draws, random_words
from qsim.errors import InputError
from qsim.folders import folder
from qsim.formats import Format, float_format, get_format, integer_format
from qsim.kernels import compiled, core
from qsim.kernels.parameters import CARRIERS
from qsim.rounding import Key, Mode, Quantizer, saturations

KINDS = [FLOAT16, BFLOAT16, FLOAT32, FLOAT64]
every_kind = pytest.mark.parametrize("kind", KINDS, ids=str)
both_carriers = pytest.mark.parametrize("carrier", [FLOAT32, FLOAT64], ids=str)

SEED, STREAM = 0x0123456789ABCDEF, 0xFEDCBA9876543210


def numbers(count: int, kind: np.dtype) -> np.ndarray:
    """Return `count` numbers of all sizes that e4m3 tells apart, most of them between two of its values."""
    random = np.random.default_rng(0)
    return (random.standard_normal(count) * np.exp2(random.integers(-10, 9, count))).astype(kind)


def same(a: np.ndarray, b: np.ndarray) -> bool:
    """Return whether two arrays agree in shape, type (byte order aside) and every bit."""
    native = a.dtype if a.dtype == BFLOAT16 else a.dtype.newbyteorder("=")
    return a.shape == b.shape and native == b.dtype and a.astype(b.dtype).tobytes() == b.tobytes()


@functools.cache
def block(number: int, seed: int, stream: int) -> tuple[int, ...]:
    """Return the four words of a Philox block, by the function that the known answers test, in plain Python."""
    halves = [half for whole in (number, stream, seed) for half in (whole & 0xFFFFFFFF, whole >> 32)]
    return tuple(int(word) for word in core.philox4x32_10(*map(np.uint64, halves)))


def width(kind: np.dtype) -> int:
    """Return how many random bits an element of a type takes: 64 where it has 64, else 32."""
    return 64 if kind == FLOAT64 else 32


def words(key: Key, count: int, kind: np.dtype) -> list[int]:
    """Return the random word of each element as the promise states it, N = 32 or 64 bits."""
    at = range(key.offset, key.offset + count)
    if kind != FLOAT64:
        return [block(i // 4, key.seed, key.stream)[i % 4] for i in at]
    blocks = [block(i // 2, key.seed, key.stream)[2 * (i % 2) :] for i in at]
    return [high << 32 | low for high, low, *_ in blocks]


def codes_by_reference(
    x: np.ndarray, fmt: str | Format, mode: str | Mode = "RNE", *, rbits: list[int] | None = None,
    eps: np.ndarray | float = 0.0, **rounding: Any,
) -> np.ndarray:  # fmt: skip
    """Return the codes of `x`, element by element, by the definition."""
    each, thresholds = rbits or [0] * x.size, np.broadcast_to(eps, x.shape).ravel().tolist()
    flat = exactly(x).ravel().tolist()
    return np.array(
        [
            reference.encode(value, fmt, mode, rbits=r, eps=threshold, **rounding)
            for value, r, threshold in zip(flat, each, thresholds, strict=True)
        ],
        np.uint64,
    ).reshape(x.shape)


def by_reference(
    x: np.ndarray, fmt: str | Format, mode: str | Mode = "RNE", n: int = 0, rbits: list[int] | None = None, **rounding: Any
) -> np.ndarray:  # fmt: skip
    """Round `x` element by element by the definition."""
    codes = codes_by_reference(x, fmt, mode, sr_bits=n, rbits=rbits, **rounding)
    return np.array([get_format(fmt).decode(code) for code in codes.ravel().tolist()], x.dtype).reshape(x.shape)


# --- Shapes and layouts ----------------------------------------------------------------------------------------------


def swapped(x: np.ndarray) -> np.ndarray:
    """Return `x` in the other byte order; bfloat16 has one only."""
    return x if x.dtype == BFLOAT16 else x.astype(x.dtype.newbyteorder())


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


@every_kind
@pytest.mark.parametrize("layout", LAYOUTS.values(), ids=LAYOUTS)
def test_layouts(layout: Callable[[np.ndarray], np.ndarray], kind: np.dtype) -> None:
    """Whatever the layout, the result has shape and dtype of x, is writable, and element i in C order takes word i."""
    x = layout(numbers(24, kind))
    before = x.tobytes()
    key = Key(SEED, STREAM, 5)
    plain = np.array(x, kind, order="C")
    nearest, stochastic = quantize(x, "e4m3"), quantize(x, "e4m3", "SR", key=key)
    above = quantize(x, "e4m3", "Threshold", eps=0.25)
    drawn = words(key, plain.size, kind)
    assert same(nearest, by_reference(plain, "e4m3"))
    assert same(stochastic, by_reference(plain, "e4m3", "SR", width(kind), drawn))
    assert same(above, by_reference(plain, "e4m3", "THR", eps=0.25))
    codes = encode(x, "e4m3", "SR", key=key)
    assert codes.shape == x.shape
    decoded = decode(codes, "e4m3", kind)
    assert same(decoded, stochastic.astype(kind))
    for y in (nearest, stochastic, above, codes, decoded):
        assert isinstance(y, np.ndarray)
        assert y.flags.writeable
    assert nearest.dtype == x.dtype
    assert x.tobytes() == before


@pytest.mark.parametrize("x", [1.3, 3, [1.3, -2, 700], [[1], [2]], [], (0.5, math.nan)], ids=str)
def test_python_numbers_are_float64(x: Any) -> None:
    """Python's numbers, alone or in lists, are rounded as float64."""
    y = quantize(x, "e4m3")
    assert same(y, by_reference(np.array(x, np.float64), "e4m3"))


# --- Which type holds which format -----------------------------------------------------------------------------------


def some_numbers(fmt: Format, kind: np.dtype, most: int = 12) -> np.ndarray:
    """Return special values, and numbers at and between some values of a format, as near as the type has them."""
    at = ordinals(fmt)
    step = max(1, (at.stop - at.start) // most)
    ends = [(fmt.value(n), fmt.value(n + 1)) for n in range(at.start, at.stop, step)]
    exact = [low + (high - low) * part for low, high in ends for part in (0, Fraction(1, 2), Fraction(5, 7))]
    largest = Fraction(np.finfo(np.float64).max)
    found = [float(max(-largest, min(value, largest))) for value in exact]
    with np.errstate(over="ignore", under="ignore"):
        return np.array([*found, 0.0, -0.0, math.inf, -math.inf, math.nan, -1.5, 1e-40, 7e6]).astype(kind)


TOO_FAR = {"shuffled", "neighbours"}
"""Tables whose values are too far apart for the kernels."""

OTHERS = [
    *FIXED, *BIASED, *P3109[::5], *PARAMETRIC[::9], *UNSIGNED[::9], *GAPPED,
    *(fmt for fmt in TABLES if fmt.name not in TOO_FAR),
]  # fmt: skip


@every_kind
@pytest.mark.parametrize("named", [True, False], ids=["named", "others"])
def test_every_type_and_every_kind_of_format(kind: np.dtype, named: bool) -> None:
    """Every type rounds to every format; as values where it holds these, and with one sentence of refusal where not."""
    for fmt in {fmt.name: fmt for fmt in (CATALOGUE if named else OTHERS)}.values():
        x = some_numbers(fmt, kind)
        if not (fmt.kind == "table" or fmt.gap or CARRIERS[FLOAT64].holds(fmt)):
            with pytest.raises(InputError, match="has values beyond float64, or fewer exact bits there"):
                encode(x, fmt)
            continue
        key = Key(1, 2, 3)
        word = [r >> (width(kind) - 11) for r in words(key, x.size, kind)]
        expected = codes_by_reference(x, fmt)
        assert encode(x, fmt).tolist() == expected.tolist()
        if fmt.name != "dlfloat16":  # which takes a second for each mode to prepare
            drawn = codes_by_reference(x, fmt, "SRA", sr_bits=11, rbits=word)
            assert encode(x, fmt, "SRA", sr_bits=11, key=key).tolist() == drawn.tolist()
        if held(kind, fmt):
            values = np.array([fmt.decode(code) for code in expected.tolist()])
            assert same(quantize(x, fmt), values.astype(kind))
        else:
            with pytest.raises(InputError) as caught:
                quantize(x, fmt)
            sentence = f"{kind} cannot hold the values of {fmt}; convert the input to float64, or encode"
            assert str(caught.value) == sentence


HOLDS = {
    "float16": "float16 e4m3 e5m2 e2m1 e4m3fnuz int2 int8 int12 uint11 int12sym ternary binary Q3.4 UQ0.8 Binary8p4se",
    "bfloat16": "bfloat16 e4m3 e5m2 int8 int9 uint8 int9sym ternary binary e8m0 ue5m3 posit8 Q3.4 Binary8p1uf",
    "float32": "float32 float16 bfloat16 tf32 nf4 int24 int25 uint24 int25sym e8m0 dlfloat16 Q0.23 e8m7fnuz",
    "float64": "float64 float32 int32 uint32 int32sym Q0.31 nf4 log4_sqrt2 e10m5 e11m4 Binary10p1ue",
}
DOES_NOT_HOLD = {
    "float16": "bfloat16 tf32 float32 e8m0 nf4 posit8 int13 uint12 dlfloat16 e8m7fnuz Q8.8 Binary8p1uf e5m11",
    "bfloat16": "float16 tf32 int10 uint9 nf4 log4_sqrt2 dlfloat16 Q8.8 UQ8.8 e8m8",
    "float32": "float64 int26 uint25 int32 Q0.31 e10m5 log4_sqrt2 e8m23fnuz Binary10p1ue",
    "float64": "",
}


@every_kind
def test_what_holds_what(kind: np.dtype) -> None:
    """A type holds a format if its exponents reach and its digits suffice: int9 is in bfloat16, and int10 is not."""
    for name in HOLDS[str(kind)].split():
        fmt = get_format(name)
        assert held(kind, fmt)
        ends = np.array([fmt.max, fmt.min, fmt.smallest_subnormal]).astype(kind)
        assert same(quantize(ends, fmt), ends)
    for name in DOES_NOT_HOLD[str(kind)].split():
        assert not held(kind, get_format(name))
        with pytest.raises(InputError, match="convert the input to float64, or encode"):
            quantize(np.ones(1, kind), name)


def test_formats_beyond_float64_are_refused() -> None:
    """What has values that no float64 holds, or holds as subnormal numbers, is refused; the reference rounds to it."""
    for fmt in (
        get_format("Binary12p1ue"),
        get_format("e11m20fn"),
        float_format("far", 5, 3, "f", "a test", bias=1050),
    ):
        with pytest.raises(InputError, match="values beyond float64, or fewer exact bits"):
            encode(np.ones(2), fmt)
        assert reference.encode(1.0, fmt) >= 0


# --- out= ------------------------------------------------------------------------------------------------------------


@every_kind
def test_out(kind: np.dtype) -> None:
    """`out` of any layout takes the result and is returned; it may be x itself, a part of it, or overlap it."""
    x = numbers(24, kind).reshape(4, 6)
    expected = quantize(x, "e4m3")
    wide = np.zeros((8, 12), kind)
    for out in (np.empty_like(x), np.empty_like(x, order="F"), wide[::2, ::-2], swapped(x), x.copy()):
        assert quantize(x, "e4m3", out=out) is out
        assert np.array_equal(out, expected)
    assert not wide[1::2].any()
    itself = x.copy()
    assert quantize(itself, "e4m3", out=itself) is itself
    assert same(itself, expected)
    line = numbers(24, kind)
    quantize(line[:-1], "e4m3", out=line[1:])
    assert same(line[1:], quantize(numbers(24, kind)[:-1], "e4m3"))
    scalar = np.empty((), kind)
    assert quantize(x[0, 0], "e4m3", out=scalar) is scalar
    assert scalar == expected[0, 0]
    empty = np.empty((0, 3), kind)
    assert quantize(x[:0, :3], "e4m3", out=empty) is empty


@pytest.mark.parametrize(
    ("out", "fragment"),
    [
        (np.zeros(5, np.float32), "float32 (5,); it must be an array of float32 (4,)"),
        (np.zeros((4, 1), np.float32), "float32 (4, 1)"),
        (np.zeros(4, np.float64), "float64 (4,)"),
        (np.zeros(4, BFLOAT16), "bfloat16 (4,)"),
        (np.zeros(4, np.int32), "int32 (4,)"),
        ([0.0] * 4, "out is list"),
        (read_only(np.zeros(4, np.float32)), "read-only"),
        (np.lib.stride_tricks.as_strided(np.zeros(1, np.float32), (4,), (0,)), "elements that share memory"),
    ],
    ids=["size", "shape", "precision", "bfloat16", "type", "list", "read-only", "broadcast"],
)
def test_wrong_out_is_refused(out: Any, fragment: str) -> None:
    """An `out` that does not fit is refused, and nothing is written."""
    with pytest.raises(InputError, match=re.escape(fragment)):
        quantize(np.ones(4, np.float32), "e4m3", out=out)
    assert not np.any(out)


def test_out_is_not_written_on_refusal() -> None:
    """A refusal that comes late, of a NaN that the format has no place for, leaves `out` as it was."""
    fmt, out = integer_format("strict", 8, "a test", nan_to="error"), np.full(2, 7.0)
    with pytest.raises(InputError, match="is NaN"):
        quantize(np.array([1.0, math.nan]), fmt, out=out)
    assert out.tolist() == [7.0, 7.0]


# --- Which element takes which word ----------------------------------------------------------------------------------

SIZES = [0, 1, 2, 3, 4, 5, 7, 511, 512, 513, 1023, 1024, 1025, 3001]


@every_kind
@pytest.mark.parametrize("offset", range(10))
def test_a_slice_continues(offset: int, kind: np.dtype) -> None:
    """x[k:] with offset k rounds as the whole of x does there, for every k and for sizes around the buffer's."""
    for size in SIZES:
        x = numbers(size + offset, kind)
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


@every_kind
@pytest.mark.parametrize("key", KEYS, ids=str)
def test_rounding_takes_the_words_of_the_promise(key: Key, kind: np.dtype) -> None:
    """Rounding with a key is rounding with its words given: one of 32 bits an element, for float64 two, high first."""
    all_bits = width(kind)
    x = numbers(9, kind)
    drawn = words(key, 9, kind)
    rbits = np.array(drawn, np.uint64)
    expected = by_reference(x, "e4m3", "SR", all_bits, drawn)
    assert same(quantize(x, "e4m3", "SR", key=key), expected)
    assert same(quantize(x, "e4m3", "SR", sr_bits=all_bits, rbits=rbits), expected)
    for n in (0, 1, 7, all_bits):  # SRA takes the top bits of the same word
        top = [word >> (all_bits - n) for word in drawn]
        expected = by_reference(x, "e4m3", "SRA", n, top)
        assert same(quantize(x, "e4m3", "SRA", sr_bits=n, key=key), expected)
        assert same(quantize(x, "e4m3", "SRA", sr_bits=n, rbits=np.array(top, np.uint64)), expected)


WIDENED = ["nf4", "posit8", "cfloat8_1_4_3_half", "e10m5", "int32", "e8m0", "e4m3"]
"""Formats that float32 is made a float64 for, or not (the last)."""


@every_kind
@pytest.mark.parametrize("name", WIDENED)
@pytest.mark.parametrize("key", [KEYS[3], KEYS[4], KEYS[6]], ids=str)
def test_the_words_are_those_of_the_input(key: Key, name: str, kind: np.dtype) -> None:
    """Whatever it is computed in, an element of up to 32 bits takes one word of 32 bits, and float64 two of them."""
    x, fmt = some_numbers(get_format(name), kind, 6), get_format(name)
    drawn, all_bits = words(key, x.size, kind), width(kind)
    for mode, n in ("SR", all_bits), ("SRB", all_bits - (all_bits == 64)), ("SRC", 5), ("SRE", 1):
        top = [word >> (all_bits - n) for word in drawn]
        expected = codes_by_reference(x, fmt, mode, sr_bits=n, rbits=top)
        stated = {} if mode == "SR" else {"sr_bits": n}
        assert encode(x, fmt, mode, key=key, **stated).tolist() == expected.tolist()
    for offset in (1, 2, 5):  # a slice continues
        rest = Key(key.seed, key.stream, (key.offset + offset) % (1 << 64))
        if rest.offset > key.offset:
            whole = encode(x, fmt, "SR", key=key)
            assert encode(x[offset:], fmt, "SR", key=rest).tolist() == whole[offset:].tolist()


@pytest.mark.parametrize("mode", [Mode.SRA, Mode.SRB, Mode.SRC, Mode.SRE])
@every_kind
def test_every_number_of_random_bits(kind: np.dtype, mode: Mode) -> None:
    """Words of every number of bits are read right: N = 0 to 32, for float64 to 64 (SRB, SRC: 63); SRE from 1 on.

    Among the numbers are some so far below the format's spacing that their fractions have all these bits and more. The words
    are those where SRA turns and those beside, which is where the others do.
    """
    most = 64 - (mode in {Mode.SRB, Mode.SRC}) if kind == FLOAT64 else 32
    fmt = get_format("e3m2")
    tiny = np.ldexp(numbers(12, kind), [-12, -20, -24, -28] * 3 if kind != FLOAT64 else [-12, -25, -50, -60] * 3)
    x = np.concatenate(
        [numbers(20, kind), np.array([1.1, 1.125, -1.375, 1.75, 2.0**-7]).astype(kind), tiny.astype(kind)]
    )
    each = [fmt.split(Fraction(value))[1] for value in exactly(x).tolist()]
    for n in range(mode is Mode.SRE, most + 1):
        for step in (-1, 0, 1):
            rbits = [max(0, min((1 << n) - math.floor(nu * (1 << n)) + step, (1 << n) - 1)) for nu in each]
            expected = codes_by_reference(x, fmt, mode, sr_bits=n, rbits=rbits)
            assert encode(x, fmt, mode, sr_bits=n, rbits=np.array(rbits, np.uint64)).tolist() == expected.tolist()


def test_streams_and_seeds_differ() -> None:
    """Another seed or stream gives other words; float32 and float64 arrays of one key read the same blocks."""
    lots = [tuple(random_words(key, 40)) for key in (Key(0), Key(1), Key(1 << 32), Key(0, 1), Key(0, 1 << 32))]
    assert len({word for lot in lots for word in lot}) == 5 * 40
    pairs = np.array(words(Key(0), 20, FLOAT64), np.uint64)
    assert np.stack([pairs >> 32, pairs & 0xFFFFFFFF], 1).ravel().tolist() == list(lots[0])


def test_words_broadcast() -> None:
    """One word, or one a column, stands for all that it is broadcast to."""
    for fmt in ("e4m3", "nf4"):
        x = numbers(12, FLOAT32).reshape(3, 4)
        for rbits in (5, [5, 0, 7, 3], [[1], [2], [7]], np.full((3, 4), 6, np.int8)):
            each = np.broadcast_to(rbits, x.shape).ravel().tolist()
            assert same(quantize(x, fmt, "SRA", sr_bits=3, rbits=rbits), by_reference(x, fmt, "SRA", 3, each))


def test_threads_do_not_matter() -> None:
    """Threads that round parts of one array at the same time give the bits of one thread."""
    for fmt, size in ("e4m3", 100_000), ("posit8", 20_000):
        x, part = numbers(size, FLOAT32), size // 10 - 1
        whole, parts = quantize(x, fmt, "SR", key=Key(7)), np.empty_like(x)

        def work(start: int, x: np.ndarray = x, parts: np.ndarray = parts, fmt: str = fmt, part: int = part) -> None:
            quantize(x[start : start + part], fmt, "SR", key=Key(7, 0, start), out=parts[start : start + part])

        threads = [threading.Thread(target=work, args=(start,)) for start in range(0, x.size, part)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert same(parts, whole)


# --- Draws and counts ------------------------------------------------------------------------------------------------

DRAWS = [
    "e4m3:SR", Quantizer("e4m3", "SRA", sr_bits=5, scale="absmax"), "int4:SR", "nf4:SRC(6)", "posit8:SR",
    Quantizer("e5m2", "SRB", sr_bits=32, scale="absmean", per="token"), Quantizer("int8", "SR", saturation="wrap"),
    Quantizer("e4m3", "SRA", sr_bits=7, scale=3.0, order="exact"), Quantizer("e4m3", "SR", ftz_in=True, ftz_out=True),
]  # fmt: skip


@both_carriers
@pytest.mark.parametrize("q", DRAWS, ids=str)
def test_draws_are_rows(q: Any, carrier: np.dtype) -> None:
    """Row k of a draw is the rounding with stream k alone, whether x is one row for all draws or one for each."""
    q = Quantizer.parse(q)
    streams = [3, 1 << 40, 5]
    for x in (numbers(700 * 3, carrier).reshape(3, 7, 100), numbers(1300, carrier).reshape(1, 1300)):
        y, _ = quantize_draws(x, q, SEED, streams)
        assert y.shape == (3, *x.shape[1:])
        for k, stream in enumerate(streams):
            assert same(y[k], quantize(x[min(k, len(x) - 1)], q, key=Key(SEED, stream)))


@pytest.mark.parametrize("q", [Quantizer("e4m3"), Quantizer("nf4"), Quantizer("e4m3", "THR", eps=0.3)], ids=str)
def test_draws_without_chance_are_one(q: Quantizer) -> None:
    """A deterministic rounding does not repeat a single row; it rounds each of several."""
    x = numbers(60, FLOAT32).reshape(3, 20)
    for rows in (x, x[:1]):
        y, counts = quantize_draws(rows, q, 0, range(3))
        assert same(y, quantize(rows, q))
        assert counts.elements == rows.size


def test_draws_must_match_streams() -> None:
    """Two rows of x for three streams are refused; the last row does not stand for a third."""
    with pytest.raises(InputError, match="2 draws and there are 3 streams"):
        quantize_draws(numbers(8, FLOAT32).reshape(2, 4), Quantizer.parse("e4m3:SR"), 0, [1, 2, 3])


@pytest.mark.parametrize(
    ("kind", "name", "fragment"),
    [
        (FLOAT16, "e4m3", "tensors of float32 and float64 can be rounded, not float16"),
        (FLOAT32, "int32", "float32 cannot hold the values of int32; convert the model to float64"),
    ],
)
def test_draws_that_are_refused(kind: np.dtype, name: str, fragment: str) -> None:
    """A model is of float32 or float64, and its type must hold the values."""
    with pytest.raises(InputError, match=fragment):
        quantize_draws(np.ones((1, 2), kind), Quantizer(name), 0, [0])


@given(st.data())
def test_counts_by_brute_force(data: st.DataObject) -> None:
    """Saturated, underflowed, NaN and unchanged elements are those that a loop over the numbers finds."""
    carrier = data.draw(st.sampled_from([FLOAT32, FLOAT64]))
    fmt = data.draw(formats(carrier).filter(lambda fmt: fmt.has_zero and fmt.name not in {*TOO_FAR, "dlfloat16"}))
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
    assert Counts(1, 2, 3, 4, 5) * 3 == Counts(3, 6, 9, 12, 15)
    x = np.array([[1, 500, 1e-9, np.nan], [2, -500, 449, 1.01]], np.float32)
    _, counts = quantize_draws(x, Quantizer("e4m3", "SRA", sr_bits=0), 0, [0, 1])
    assert counts == Counts(elements=8, saturated=3, underflowed=1, nan=1, on_grid=2)
    _, counts = quantize_draws(np.array([[-128, -129, 127, 128, -0.0, -0.5]]), Quantizer("int8"), 0, [0])
    assert counts == Counts(elements=6, saturated=2, underflowed=1, nan=0, on_grid=3)


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


@every_kind
@pytest.mark.parametrize("name", FLUSHED)
def test_subnormal_results_are_flushed(name: str, kind: np.dtype) -> None:
    """With ftz_out a subnormal result is a zero of its sign, if the format has one; integers and tables have no such thing."""
    fmt = get_format(name)
    small = fmt.smallest_normal * np.array([1, 0.99, 0.5, 0.26, 0.01, 1.01, 0.9999])
    x = np.concatenate([some_numbers(fmt, kind, 30), small.astype(kind), -small.astype(kind)])
    for mode, more in ("RNE", {}), ("RAZ", {}), ("THR", {"eps": 0.2}), ("SRA", {"sr_bits": 0, "rbits": [0] * x.size}):
        stated = {"sr_bits": 0, "rbits": 0} if mode == "SRA" else more
        for rule in saturations(fmt):
            codes = encode(x, fmt, mode, ftz_out=True, saturation=rule, **stated)
            expected = codes_by_reference(x, fmt, mode, ftz_out=True, saturation=rule, **more)
            assert codes.tolist() == expected.tolist()
    if fmt.kind == "float" and fmt.has_zero:
        values = np.abs(fmt.values()[encode(x, fmt, ftz_out=True)])
        assert not ((values > 0) & (values < fmt.smallest_normal)).any()


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


# --- Codes -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("group", ["named", "P3109", "spelled", "others"])
def test_codes_round_trip(group: str) -> None:
    """Every code decodes to a value that encodes to it; codes of NaN all become the one that results have; others are none."""
    groups = {
        "named": [fmt for fmt in CATALOGUE if fmt.bits <= 16], "P3109": P3109, "spelled": [*PARAMETRIC[::6], *UNSIGNED[::6]],
        "others": [*FIXED[:5], *BIASED, *(fmt for fmt in TABLES if fmt.name not in TOO_FAR), *GAPPED],
    }  # fmt: skip
    for fmt in {fmt.name: fmt for fmt in groups[group] if fmt.bits <= 16}.values():
        if not (fmt.kind == "table" or fmt.gap or CARRIERS[FLOAT64].holds(fmt)):
            continue
        every = np.arange(1 << fmt.bits, dtype=np.uint32)
        codes = every[[fmt.is_code(code) for code in every.tolist()]]
        for dtype in KINDS:
            values = decode(codes, fmt, dtype)
            assert values.dtype == (dtype if held(dtype, fmt) else FLOAT64)
            assert same(exactly(values), fmt.values()[codes])
        again = encode(values, fmt, saturation="SatNone" if fmt.has_inf else None)
        nan = np.isnan(values)
        assert np.array_equal(again[~nan], codes[~nan])
        assert (again[nan] == fmt.nan_code).all() if fmt.has_nan else not nan.any()
        for unused in np.setdiff1d(every, codes)[:1].tolist():
            with pytest.raises(InputError, match=f"{unused} is no code of {re.escape(fmt.name)}: no value has it"):
                decode([int(codes[0]), unused], fmt)


@pytest.mark.parametrize(
    ("name", "dtype"),
    [
        ("int2", "u1"),
        ("binary", "u1"),
        ("e4m3", "u1"),
        ("int9", "u2"),
        ("tf32", "u4"),
        ("Q8.8", "u4"),
        ("float64", "u8"),
    ],
)
def test_codes_take_the_smallest_type(name: str, dtype: str) -> None:
    """Codes have the smallest unsigned type that holds them, whatever the input's type."""
    for kind in KINDS:
        assert encode(np.ones(3, kind), name).dtype == np.dtype(dtype)


def test_codes_are_the_references() -> None:
    """Codes of small formats are those of the definition, for every type alike."""
    for fmt in (*SMALL, *P3109[::3], *PARAMETRIC[::17]):
        if fmt.name not in TOO_FAR and (fmt.kind == "table" or fmt.gap or CARRIERS[FLOAT64].holds(fmt)):
            for kind in KINDS:
                x = numbers(15, kind)
                assert encode(x, fmt).tolist() == codes_by_reference(x, fmt).tolist()


def test_decoding_wide_formats() -> None:
    """Formats without a table are decoded as well, all their special values too; what a type cannot hold comes as float64."""
    x = numbers(40, FLOAT32)
    assert same(decode(encode(x, "float32"), "float32"), x)
    assert same(decode(encode(x, "tf32").reshape(5, 8), "tf32"), quantize(x, "tf32").reshape(5, 8))
    y = np.concatenate([numbers(40, FLOAT64), [math.inf, -math.inf, math.nan, -0.0, 5e-324, 1.7e308, -1.7e308]])
    assert same(decode(encode(y, "float64"), "float64"), y)
    assert decode(encode(y, "e10m5"), "e10m5").dtype == np.float64
    assert decode(np.zeros((2, 0), np.uint8), "e4m3").shape == (2, 0)
    for fmt in ("int32", "uint32", "int32sym", "int17", "uint17", "Q0.31"):
        f = get_format(fmt)
        codes = np.array([0, 1, f.code(f.top), f.code(-f.bottom), f.code(f.top) - 1])
        assert decode(codes, fmt).tolist() == [f.decode(code) for code in codes.tolist()]


# --- Spellings and refusals ------------------------------------------------------------------------------------------


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
        ((X, "e4m3", "SR"), {"key": 7}, "key must be a qsim.Key, such as qsim.Key(seed=0), not 7"),
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
        ((X, "e4m3"), {"nan": "quiet"}, "nan = 'quiet'; it is canonical or signed"),
        ((X, "e4m3"), {"ftz_in": 1}, "ftz_in = 1 must be True or False"),
        ((X, "e4m3"), {"ftz_out": "yes"}, "ftz_out = 'yes' must be True or False"),
        ((X, Quantizer("e4m3"), "SR"), {}, "a Quantizer says mode"),
        ((X, Quantizer("e4m3")), {"scale": 2.0}, "a Quantizer says mode"),
        ((X, Quantizer("e4m3")), {"ftz_in": True}, "a Quantizer says mode"),
        ((X, Quantizer("e4m3")), {"nan": "signed"}, "a Quantizer says mode"),
        ((X, Quantizer("e4m3")), {"saturation": "OvfNaN"}, "a Quantizer says mode"),
        ((X, Quantizer("e4m3", "SRA", sr_bits=8)), {"sr_bits": 4, "key": Key(0)}, "sr_bits = 4 contradicts the 8"),
        ((X.astype(int), "e4m3"), {}, "not int64; convert the input first"),
        ((X.astype(np.longdouble), "e4m3"), {}, "float64 can be rounded, not float128; convert the input first"),
        ((X > 0, "e4m3"), {}, "not bool"),
        ((X + 1j, "e4m3"), {}, "not complex64"),
        (("1.0", "e4m3"), {}, "not <U3"),
        ((None, "e4m3"), {}, "not object"),
        (([[1.0], [2.0, 3.0]], "e4m3"), {}, "x is a ragged list; its rows must be of one length"),
        (([1 << 60, 1], "e4m3"), {}, "does not fit a float64 exactly"),
        ((np.ma.masked_array(X, X > 0), "e4m3"), {}, "a masked array has no rounding of its masked elements"),
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


def test_values_are_of_a_float_type() -> None:
    """Codes are decoded to the four types that can be rounded."""
    for dtype in (np.int32, np.complex64, np.longdouble):
        with pytest.raises(InputError, match="values are decoded to float16, bfloat16, float32 or float64, not"):
            decode([1], "e4m3", dtype)


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
