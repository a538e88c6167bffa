"""Packing: every bit where it is said to be, against big integers and what peers publish; layouts, and refusals."""

from __future__ import annotations

import itertools
import math
import re
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from strategies import LAYOUTS, read_only

from qsim.errors import InputError
from qsim.formats import get_format
from qsim.packing import pack, unpack

ORDERS = ("little", "big")

both_orders = pytest.mark.parametrize("order", ORDERS)
every_width = pytest.mark.parametrize("bits", range(1, 33))


def stream(codes: list[int], bits: int, order: str) -> bytes:
    """Return the bytes of one row of codes, put together as a single integer of Python."""
    size = math.ceil(len(codes) * bits / 8)
    if order == "little":
        return sum(code << (bits * i) for i, code in enumerate(codes)).to_bytes(size, "little")
    return sum(code << (8 * size - bits * (i + 1)) for i, code in enumerate(codes)).to_bytes(size, "big")


def rows_of(array: np.ndarray, axis: int) -> list[list[int]]:
    """Return the rows of `array` along `axis` as lists, in C order of the other axes."""
    moved = np.moveaxis(array, axis, -1)
    return [moved[index].tolist() for index in np.ndindex(moved.shape[:-1])]


def smallest(bits: int) -> np.dtype:
    """Return the smallest unsigned type that holds `bits` bits."""
    return np.dtype(np.uint8 if bits <= 8 else np.uint16 if bits <= 16 else np.uint32)


def check(codes: np.ndarray, bits: int, order: str, axis: int = -1) -> None:
    """Hold `pack` against the streams of the rows, and `unpack` against `codes`."""
    packed = pack(codes, bits, axis=axis, order=order)
    assert packed.dtype == np.uint8
    count = codes.shape[axis]
    expected = list(codes.shape)
    expected[axis] = math.ceil(count * bits / 8)
    assert list(packed.shape) == expected
    assert [bytes(row) for row in rows_of(packed, axis)] == [stream(row, bits, order) for row in rows_of(codes, axis)]
    back = unpack(packed, bits, count, axis=axis, order=order)
    assert back.dtype == smallest(bits)
    assert back.shape == codes.shape
    assert np.array_equal(back, codes)
    for result in (packed, back):
        assert result.flags.c_contiguous
        assert result.flags.writeable


# --- Every bit in its place ------------------------------------------------------------------------------------------


@every_width
def test_each_bit_alone(bits: int) -> None:
    """Bit k of code i is bit (b i + k) % 8 of byte (b i + k) // 8; for "big" both count from the most significant."""
    count = 2 * (8 // math.gcd(bits, 8)) + 1  # two groups of whole bytes, and one code more
    size = math.ceil(count * bits / 8)
    place = np.arange(count * bits)
    i, k = divmod(place, bits)
    for order, bit, bit_of_byte in (("little", k, place % 8), ("big", bits - 1 - k, 7 - place % 8)):
        codes = np.zeros((len(place), count), np.uint64)
        codes[place, i] = np.uint64(1) << bit.astype(np.uint64)
        expected = np.zeros((len(place), size), np.uint8)
        expected[place, place // 8] = 1 << bit_of_byte
        assert np.array_equal(pack(codes, bits, order=order), expected)
        assert np.array_equal(unpack(expected, bits, count, order=order), codes)


@both_orders
def test_all_pairs_of_nibbles(order: str) -> None:
    """All 256 pairs of 4-bit codes give all 256 bytes."""
    pairs = np.array(list(itertools.product(range(16), repeat=2)))
    packed = pack(pairs, 4, order=order)
    first, second = pairs.T
    assert np.array_equal(packed[:, 0], first + 16 * second if order == "little" else 16 * first + second)
    assert len(np.unique(packed)) == 256
    assert np.array_equal(unpack(packed, "int4", 2, order=order), pairs)


@both_orders
@pytest.mark.parametrize("bits", range(1, 7))
def test_all_neighbours_at_every_offset(bits: int, order: str) -> None:
    """Any two codes next to each other, at every place in the bytes, between zeros and between ones."""
    pairs = np.array(list(itertools.product(range(1 << bits), repeat=2)))
    places = 8 // math.gcd(bits, 8)
    for place, others in itertools.product(range(places), (0, (1 << bits) - 1)):
        codes = np.full((len(pairs), places + 2), others)
        codes[:, place : place + 2] = pairs
        check(codes, bits, order)


@st.composite
def arrays_of_codes(draw: st.DrawFn) -> tuple[np.ndarray, int, int]:
    """Return codes of any shape, empty ones too, with the number of bits and an axis."""
    bits = draw(st.integers(1, 32))
    shape = draw(st.lists(st.integers(0, 5), min_size=1, max_size=3))
    axis = draw(st.integers(-len(shape), len(shape) - 1))
    shape[axis] = draw(st.integers(0, 40))
    size = math.prod(shape)
    codes = draw(st.lists(st.integers(0, (1 << bits) - 1), min_size=size, max_size=size)) if size <= 100 else None
    if codes is None:
        codes = np.random.default_rng(draw(st.integers(0, 1 << 32))).integers(0, 1 << bits, size)
    return np.array(codes, np.int64).reshape(shape), bits, axis


@given(arrays_of_codes(), st.sampled_from(ORDERS))
def test_any_shape_axis_and_width(drawn: tuple[np.ndarray, int, int], order: str) -> None:
    """Each row along the axis is its own stream, and comes back."""
    codes, bits, axis = drawn
    check(codes, bits, order, axis)


@both_orders
def test_the_largest_codes(order: str) -> None:
    """All ones and all zeros of every width, in every number up to two groups."""
    for bits, count in itertools.product(range(1, 33), range(17)):
        check(np.full(count, (1 << bits) - 1), bits, order)
        check(np.zeros(count, np.uint8), bits, order)


# --- What peers write ------------------------------------------------------------------------------------------------


def test_numpy() -> None:
    """One bit a code is what `numpy.packbits` does; the example of its manual."""
    ones = np.array([[[1, 0, 1], [0, 1, 0]], [[1, 1, 0], [0, 0, 1]]])
    assert pack(ones, 1, order="big").tolist() == [[[160], [64]], [[192], [32]]]
    many = np.random.default_rng(0).integers(0, 2, (5, 21))
    for order, axis in itertools.product(ORDERS, (0, 1)):
        assert np.array_equal(pack(many, 1, axis=axis, order=order), np.packbits(many, axis=axis, bitorder=order))


def test_onnx() -> None:
    """ONNX stores the first element in the low bits, the rest of the last byte zero.

    onnx/onnx, docs/docsgen/source/technical: int4.md (pack(x, y) = y << 4 | x & 0x0F, the same in float4.md), int2.md
    (x3 << 6 | x2 << 4 | x1 << 2 | x0), float6.md (4 values into 3 bytes, little-endian bit order).
    """
    assert pack([0x1, 0x2, 0xF], "int4").tolist() == [0x21, 0x0F]
    assert pack([0x3, 0xC], "float4_e2m1fn").tolist() == [0xC3]
    assert pack([0b01, 0b10, 0b11, 0b00, 0b10], "int2").tolist() == [0b00_11_10_01, 0b10]
    assert pack([0b000001, 0b100010, 0b110011, 0b011100], "float6_e2m3fn").tolist() == [
        0b10_000001, 0b0011_1000, 0b011100_11,
    ]  # fmt: skip


def test_keras() -> None:
    """The example of Keras' manual, keras.quantizers.pack_int2: [-2, 1, 0, -1, 1] becomes the int8 [-58, 1]."""
    values = np.array([-2, 1, 0, -1, 1], np.int8)
    assert pack(values & 3, 2).view(np.int8).tolist() == [-58, 1]


def test_pytorch() -> None:
    """`float4_e2m1fn_x2`: value 0 in bits 3210, value 1 in bits 7654 (torch/headeronly/util/Float4_e2m1fn_x2.h)."""
    assert pack([0b0111, 0b1010], "e2m1").tolist() == [0b1010_0111]


def test_gptq() -> None:
    """GPTQ packs 32 codes of 3 bits into three 32-bit words; code 10 lies across the first two, code 21 the others."""
    codes = np.zeros(32, np.uint8)
    codes[[0, 9, 10, 11, 21, 31]] = 0b111, 0b001, 0b101, 0b011, 0b110, 0b100
    words = pack(codes, 3).view("<u4")
    assert words.tolist() == [7 | 1 << 27 | (0b01 << 30), 0b1 | 0b011 << 1, 0b11 | 0b100 << 29]


def test_bitsandbytes() -> None:
    """The 4-bit types of bitsandbytes have the first of two in the high nibble (csrc/kernels.cu, kQuantizeBlockwise)."""
    assert pack([0x1, 0x2, 0xF, 0x0], 4, order="big").tolist() == [0x12, 0xF0]


# --- Arguments -------------------------------------------------------------------------------------------------------


LAYOUTS_OF_CODES = {
    "empty": lambda x: x[:0],
    "empty rows": lambda x: x[:0].reshape(3, 0),
    "no rows": lambda x: x[:0].reshape(0, 3),
    "one": lambda x: x[:1],
    **LAYOUTS,
}


@both_orders
@pytest.mark.parametrize(
    "dtype", [np.int8, np.uint8, np.int16, np.uint32, np.int64, np.uint64], ids=lambda t: t.__name__
)
@pytest.mark.parametrize("layout", LAYOUTS_OF_CODES.values(), ids=LAYOUTS_OF_CODES)
def test_layouts(layout: Callable[[np.ndarray], np.ndarray], dtype: type, order: str) -> None:
    """Whatever the layout and integer type of the codes, the bytes are the same; the input stays as it is."""
    codes = layout(np.arange(24).astype(dtype))
    before = codes.tobytes()
    for axis, bits in itertools.product(range(-codes.ndim, codes.ndim), (5, 7, 8, 11)):
        check(codes, bits, order, axis)
    assert codes.tobytes() == before


@both_orders
def test_layouts_of_the_bytes(order: str) -> None:
    """`unpack` reads any layout of the bytes, and leaves them as they are."""
    codes = np.arange(24, dtype=np.uint8).reshape(3, 8)
    packed = pack(codes, 5, order=order)
    wide = np.zeros((3, 10), np.uint8)
    wide[:, ::2] = packed
    for data in (np.asfortranarray(packed), wide[:, ::2], read_only(packed.copy())):
        before = data.tobytes()
        assert np.array_equal(unpack(data, 5, 8, order=order), codes)
        assert data.tobytes() == before
    assert np.array_equal(unpack(packed.T, 5, 8, axis=0, order=order), codes.T)


@pytest.mark.parametrize("name", ["int3", "e2m1", "float6_e3m2fn", "e4m2fn", "int11", "bfloat16", "tf32", "float32"])
def test_formats(name: str) -> None:
    """A format, by name or itself, stands for its number of bits, NumPy's integers too."""
    fmt = get_format(name)
    codes = np.random.default_rng(0).integers(0, 1 << fmt.bits, 13)
    packed = pack(codes, fmt.bits)
    for spelt in (name, fmt, np.int64(fmt.bits)):
        assert np.array_equal(pack(codes, spelt), packed)
        assert np.array_equal(unpack(packed, spelt, np.int64(13)), codes)


def test_results_share_no_memory() -> None:
    """Codes of 8 bits are their own bytes, but a copy."""
    codes = np.arange(8, dtype=np.uint8)
    assert not np.shares_memory(codes, pack(codes, 8))
    assert not np.shares_memory(codes, unpack(codes, 8, 8))


@both_orders
def test_bits_after_the_last_code_are_refused(order: str) -> None:
    """Each bit of the padding, set alone in one of the rows, shows that there were other codes."""
    for bits, count in itertools.product(range(1, 33), range(1, 9)):
        packed = pack(np.full((2, count), (1 << bits) - 1), bits, order=order)
        for spare in range(8 * packed.shape[1] - bits * count):
            other = packed.copy()
            other[1, -1] ^= 1 << (7 - spare if order == "little" else spare)
            with pytest.raises(InputError, match=f"bits after the last of {count} codes of {bits} bits are set"):
                unpack(other, bits, count, order=order)


DATA = np.zeros((2, 3), np.uint8)


@pytest.mark.parametrize(
    ("call", "fragment"),
    [
        (lambda: pack([16], 4), "codes of 4 bits are 0 .. 15, not 16 .. 16"),
        (lambda: pack([3, -1], "int4"), "codes of 4 bits are 0 .. 15, not -1 .. 3"),
        (
            lambda: pack(np.array([1 << 63], np.uint64), 32),
            "codes of 32 bits are 0 .. 4294967295, not 9223372036854775808",
        ),
        (lambda: pack([1.0], 4), "codes are integers, not float64"),
        (lambda: pack([True], 1), "codes are integers, not bool"),
        (lambda: pack([1 << 64], 4), "codes are integers, not object"),
        (lambda: pack("1", 4), "codes are integers, not <U1"),
        (lambda: pack(3, 4), "codes without an axis are a single number"),
        (lambda: pack(np.uint8(3), 4), "a single number; give an array of one axis or more"),
        (lambda: pack(DATA, 4, axis=2), "axis = 2 is not one of the 2 of the codes: -2 .. 1"),
        (lambda: pack(DATA, 4, axis=-3), "axis = -3 is not one of the 2"),
        (lambda: pack(DATA, 4, axis=None), "axis = None must be an integer"),
        (lambda: pack(DATA, 4, axis=True), "axis = True must be an integer"),
        (lambda: pack(DATA, 4, order="lsb"), "order = 'lsb' must be 'little' or 'big'"),
        (lambda: pack(DATA, 4, order=None), "order = None must be 'little' or 'big'"),
        (lambda: pack(DATA, 0), "fmt = 0: codes of 0 bits cannot be packed; those of 1 to 32 bits can"),
        (lambda: pack(DATA, 33), "fmt = 33: codes of 33 bits"),
        (lambda: pack(DATA, -4), "fmt = -4: codes of -4 bits"),
        (lambda: pack(DATA, "float64"), "fmt = float64: codes of 64 bits cannot be packed"),
        (lambda: pack(DATA, 4.0), "fmt = 4.0 must be a format or a number of bits"),
        (lambda: pack(DATA, True), "fmt = True must be a format or a number of bits"),
        (lambda: pack(DATA, None), "fmt = None must be a format or a number of bits"),
        (lambda: pack(DATA, "int4s"), "no format is called 'int4s'"),
        (lambda: unpack(DATA, 4, 4), "4 codes of 4 bits take 2 bytes, not the 3 along the axis"),
        (lambda: unpack(DATA, 4, 7), "7 codes of 4 bits take 4 bytes, not the 3"),
        (lambda: unpack(DATA, 4, 5, axis=0), "5 codes of 4 bits take 3 bytes, not the 2"),
        (lambda: unpack(DATA, 4, -1), "count = -1 must be 0 or more"),
        (lambda: unpack(DATA, 4, 6.0), "count = 6.0 must be an integer"),
        (lambda: unpack(DATA, 4, True), "count = True must be an integer"),
        (lambda: unpack(DATA, 4, 10**30), f"{10**30} codes of 4 bits take {10**30 // 2} bytes"),
        (lambda: unpack(DATA.astype(int), 4, 6), "packed codes are bytes (uint8), not int64"),
        (lambda: unpack(DATA.view(np.int8), 4, 6), "packed codes are bytes (uint8), not int8"),
        (lambda: unpack(b"\0", 4, 2), "packed codes are bytes (uint8), not |S1"),
        (lambda: unpack(DATA[0, 0], 4, 2), "data without an axis are a single number"),
        (lambda: unpack(DATA, 4, 6, axis=2), "axis = 2 is not one of the 2 of the data"),
        (lambda: unpack(DATA, 4, 6, order="msb"), "order = 'msb' must be 'little' or 'big'"),
        (lambda: unpack(DATA, "float64", 6), "fmt = float64: codes of 64 bits"),
    ],
)
def test_refusals(call: Callable[[], Any], fragment: str) -> None:
    """What makes no sense is refused in one sentence that says what would."""
    with pytest.raises(InputError, match=re.escape(fragment)) as caught:
        call()
    assert "\n" not in str(caught.value)
