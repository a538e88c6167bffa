"""Which element takes which random word, and draws: many roundings of one array, with counts."""

from __future__ import annotations

import math
import threading
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from alike import same
from definition import block, by_reference, codes_by_reference, width, words
from enumeration import exactly
from hypothesis import given
from hypothesis import strategies as st
from strategies import (
    FLOAT16,
    FLOAT32,
    FLOAT64,
    TOO_FAR,
    both_carriers,
    every_kind,
    formats,
    inputs,
    numbers,
    some_numbers,
)

import qsim
from qsim.arrays import Counts, encode, quantize, quantize_draws, random_words
from qsim.errors import InputError
from qsim.formats import get_format
from qsim.rounding import Key, Mode, Quantizer

SEED, STREAM = 0x0123456789ABCDEF, 0xFEDCBA9876543210

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


# --- Words of 16 and 8 bits ------------------------------------------------------------------------------------------

CUT = [(16, 0), (16, 1), (16, 9), (16, 16), (8, 0), (8, 3), (8, 8)]
"""Bits of a word, and how many of them count."""


def cut_words(key: Key, count: int) -> list[int]:
    """Return the words of a key with `bits`, as the promise states them: the 32-bit words cut, the lowest bits first."""
    each = 32 // key.bits
    at = range(key.offset, key.offset + count)
    whole = [block(i // each // 4, key.seed, key.stream)[i // each % 4] for i in at]
    return [word >> key.bits * (i % each) & ((1 << key.bits) - 1) for i, word in zip(at, whole, strict=True)]


@every_kind
@pytest.mark.parametrize(("bits", "n"), CUT)
@pytest.mark.parametrize("key", KEYS, ids=str)
def test_cut_words_by_the_promise(key: Key, bits: int, n: int, kind: np.dtype) -> None:
    """Element i of any type takes the top N bits of part i of the stream's words, whatever the seed, stream and offset."""
    key = Key(key.seed, key.stream, key.offset, bits)
    x = numbers(9, kind)
    drawn = cut_words(key, 9)
    assert random_words(key, 9).tolist() == drawn
    top = [word >> (bits - n) for word in drawn]
    for mode in ("SRA", "SRB", "SRC"):
        assert same(quantize(x, "e4m3", mode, sr_bits=n, key=key), by_reference(x, "e4m3", mode, n, top))
    codes = encode(x, "nf4", "SRA", sr_bits=n, key=key)
    assert codes.tolist() == codes_by_reference(x, "nf4", "SRA", sr_bits=n, rbits=top).tolist()
    top = [word >> (bits - 1) for word in drawn]
    assert same(quantize(x, "e4m3", "SRE", key=key), by_reference(x, "e4m3", "SRE", 1, top))


@every_kind
@pytest.mark.parametrize("bits", [16, 8])
def test_a_slice_continues_with_cut_words(bits: int, kind: np.dtype) -> None:
    """x[k:] with offset k rounds as the whole of x does there, strided too, and in as many threads as there are."""
    for offset in (*range(18), 257):
        for size in (*SIZES, 1 << 19):
            if size > 3001 and (offset != 5 or kind != FLOAT32):
                continue
            x = numbers(size + offset, kind)
            key = Key(SEED, STREAM, bits=bits)
            whole = quantize(x, "e4m3", "SRA", sr_bits=8, key=key)
            rest = quantize(x[offset:], "e4m3", "SRA", sr_bits=8, key=key.after(offset))
            assert same(rest, whole[offset:])
            strided = quantize(np.repeat(x, 2)[::2], "e4m3", "SRA", sr_bits=8, key=key)
            assert same(strided, whole)


def test_scales_and_blocks_take_cut_words() -> None:
    """Element i takes its word with a scale, by pieces, and in blocks, as without."""
    x = numbers(96, FLOAT32).reshape(3, 32)
    key = Key(SEED, STREAM, 11, 16)
    given = {"sr_bits": 16, "rbits": random_words(key, 96).reshape(3, 32)}
    for options in ({"scale": "absmax"}, {"scale": "pow2", "per": "channel"}, {"scale": 0.3, "order": "reciprocal"}):
        by_key = quantize(x, "e4m3", "SRA", sr_bits=16, key=key, **options)
        assert same(by_key, quantize(x, "e4m3", "SRA", **given, **options))
    assert same(quantize(x, "mxfp4_e2m1", "SRA", sr_bits=16, key=key), quantize(x, "mxfp4_e2m1", "SRA", **given))


def test_cut_words_are_refused_where_they_do_not_do() -> None:
    """SR takes all bits the input has; a count beyond the word's, other widths, and sums are refused."""
    x, key = numbers(3, FLOAT32), Key(0, bits=16)
    with pytest.raises(
        InputError, match=r"SR takes 32 random bits of float32 input, and the key has words of 16; SRA\(16\)"
    ):
        quantize(x, "e4m3", "SR", key=key)
    with pytest.raises(InputError, match="sr_bits = 17: SRA of 16-bit words takes 0 to 16 random bits"):
        encode(x, "e4m3", "SRA", sr_bits=17, key=key)
    for bits in (0, 12, 64):
        with pytest.raises(InputError, match="bits of a Key, those of a random word, are 8, 16 or 32"):
            Key(0, bits=bits)
    with pytest.raises(InputError, match="random words of sums have 32 bits, and those of the key 16; leave bits out"):
        qsim.dot.add(x, x, "e4m3:SR", key=key)
    assert repr(key) == "Key(seed=0, stream=0, offset=0, bits=16)"
    assert key.after(3) == Key(0, 0, 3, 16)


WIDENED = ["nf4", "posit8", "cfloat8_1_4_3_half", "e10m5", "int32", "e8m0", "e4m3"]
"""Formats that float32 is made a float64 for, or not (the last)."""


@pytest.mark.in_part(3)
@every_kind
@pytest.mark.parametrize("name", WIDENED)
@pytest.mark.parametrize("key", [KEYS[3], KEYS[4], Key(SEED, STREAM, (1 << 64) - 64)], ids=str)
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
        rest = Key(key.seed, key.stream, key.offset + offset)
        whole = encode(x, fmt, "SR", key=key)
        assert encode(x[offset:], fmt, "SR", key=rest).tolist() == whole[offset:].tolist()


@every_kind
def test_words_are_taken_once(kind: np.dtype) -> None:
    """The last word of a stream may be taken, and none after it: numbers beyond 2^64 would be those of words that were used."""
    for size in (1, 9, 3000):
        last = Key(SEED, STREAM, (1 << 64) - size)
        x = numbers(size + 1, kind)
        assert quantize(x[1:], "e4m3", "SR", key=last).shape == (size,)
        for go in (quantize, encode):
            with pytest.raises(InputError, match=f"leaves {size} words of its stream for {size + 1} elements"):
                go(x, "e4m3", "SR", key=last)
    assert quantize(x, "e4m3", key=last).shape == x.shape  # which takes no words
    assert len(random_words(Key(0, 0, (1 << 64) - 5), 5)) == 5
    with pytest.raises(InputError, match="leaves 5 words of its stream for 6 elements"):
        random_words(Key(0, 0, (1 << 64) - 5), 6)


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
            # One is the carrier's word, and the kernel reads the array itself.
            for wide in (np.uint64,) if n > 32 else (np.uint32, np.uint64):
                given = np.array(rbits, wide)
                assert encode(x, fmt, mode, sr_bits=n, rbits=given).tolist() == expected.tolist()


def test_streams_and_seeds_differ() -> None:
    """Another seed or stream gives other words; float32 and float64 arrays of one key read the same blocks."""
    lots = [tuple(random_words(key, 40)) for key in (Key(0), Key(1), Key(1 << 32), Key(0, 1), Key(0, 1 << 32))]
    assert len({word for lot in lots for word in lot}) == 5 * 40
    pairs = np.array(words(Key(0), 20, FLOAT64), np.uint64)
    assert np.stack([pairs >> 32, pairs & 0xFFFFFFFF], 1).ravel().tolist() == list(lots[0])


@both_carriers
@pytest.mark.parametrize("size", SIZES)
def test_given_words_are_read_in_order(carrier: np.dtype, size: int) -> None:
    """However long the array, element i takes word i, be the words of the carrier's type, of another, or in another order."""
    x, rng = numbers(size, carrier), np.random.default_rng(size)
    given = rng.integers(0, 1 << 11, size)
    expected = by_reference(x, "e4m3", "SRA", 11, given.tolist())
    twice = np.repeat(given.astype(np.uint32 if carrier == FLOAT32 else np.uint64), 2)
    for rbits in (twice[::2].copy(), given.astype(">u4"), given.astype(np.uint16), given, twice[::2]):
        assert same(quantize(x, "e4m3", "SRA", sr_bits=11, rbits=rbits), expected)
        assert same(quantize(x[:, None], "e4m3", "SRA", sr_bits=11, rbits=rbits[:, None])[:, 0], expected)


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
