"""Codes back to values by arithmetic: what it must give, for which formats it is taken, and for which the table is."""

from __future__ import annotations

import contextlib
import ctypes
import itertools
import platform
from collections.abc import Iterator

import ml_dtypes
import numpy as np
import pytest
from strategies import NAMED, SMALL

import qsim
from qsim import decoder
from qsim.formats import format as format_module
from qsim.formats import get_format
from qsim.kernels import decoding
from qsim.kernels.parameters import CARRIERS

FORMATS = sorted({fmt for fmt in {*NAMED, *SMALL} if fmt.bits <= 16}, key=str)
carriers = pytest.mark.parametrize("carrier", CARRIERS.values(), ids=lambda carrier: str(carrier.dtype))


@pytest.fixture
def tables(monkeypatch) -> list[int]:
    """Return a list of how many values each table had that was read since."""
    read: list[int] = []

    def noted(codes, values, y):
        read.append(values.size)
        y[...] = values[codes]

    monkeypatch.setattr(decoding, "look_up", noted)
    return read


@pytest.mark.parametrize("fmt", FORMATS, ids=str)
@carriers
def test_every_code_has_its_value(fmt, carrier) -> None:
    """Every code becomes its value, bit for bit: zeros, infinities and NaNs with their signs; codes of any unsigned type."""
    codes = np.arange(1 << fmt.bits)
    with np.errstate(over="ignore", under="ignore"):
        line = fmt.values().astype(carrier.dtype)
    codes = codes if fmt.has_nan else codes[~np.isnan(line)]
    for kind in (np.uint8, np.uint16, np.uint64):
        if codes.max() <= np.iinfo(kind).max:
            values = qsim.decode(codes.astype(kind), fmt, carrier.dtype)
            assert values.tobytes() == fmt.values()[codes].astype(values.dtype).tobytes()


@carriers
def test_most_formats_need_no_table(carrier, tables) -> None:
    """By a table come lists, formats without a zero or with a gap, and values that are subnormal numbers of the carrier."""
    by_table = set()
    for fmt in (fmt for fmt in NAMED if fmt.bits <= 16):
        with np.errstate(over="ignore", under="ignore"):
            line = fmt.values().astype(carrier.dtype)
        tables.clear()
        decoding.decoder(fmt, line)(np.zeros(1, np.uint16), np.empty(1, carrier.dtype))
        by_table |= {fmt.name} if tables else set()
    lists = {"binary", "log4_sqrt2", "nf4", "nf4_bitsandbytes", "posit8"}
    others = {"cfloat8_1_4_3_half", "dlfloat16", "float8_e8m0fnu"} | ({"bfloat16"} if carrier.width == 32 else set())
    assert by_table == lists | others


@carriers
def test_no_result_is_a_subnormal_number(carrier, tables) -> None:
    """A thread may have set its subnormal numbers to become 0; arithmetic is not taken where there are such values."""
    least = np.finfo(carrier.dtype).tiny
    for fmt in FORMATS:
        with np.errstate(over="ignore", under="ignore"):
            line = fmt.values().astype(carrier.dtype)
        if (np.abs(line[line != 0]) < least).any():
            tables.clear()
            decoding.decoder(fmt, line)(np.zeros(1, np.uint16), np.empty(1, carrier.dtype))
            assert tables, fmt


def test_arithmetic_that_is_wrong_of_one_code_is_not_taken(monkeypatch, tables) -> None:
    """Words that give another value for a single code leave the format to its table."""
    e4m3 = get_format("e4m3")
    line = e4m3.values().astype(np.float32)
    honest = decoding.by_arithmetic

    def off(fmt, carrier):
        def loop(codes, values):
            honest(fmt, carrier)(codes, values)
            values[codes == 0x7E] = 447

        return loop

    decoding.decoder(e4m3, line)(np.zeros(1, np.uint8), np.empty(1, np.float32))
    assert not tables
    monkeypatch.setattr(decoding, "by_arithmetic", off)
    decoding.decoder(e4m3, line)(np.zeros(1, np.uint8), np.empty(1, np.float32))
    assert tables == [256]


@contextlib.contextmanager
def processor_set(bits: int) -> Iterator[None]:
    """Set bits of the word that controls this thread's vectors, as glibc keeps it on x86-64; put it back afterwards."""
    if platform.machine() != "x86_64" or platform.libc_ver()[0] != "glibc":
        pytest.skip("what is set is a word of x86-64, by glibc")
    library, before = ctypes.CDLL("libm.so.6"), ctypes.create_string_buffer(32)
    library.fegetenv(before)
    word = int.from_bytes(before.raw[28:32], "little") | bits
    library.fesetenv(ctypes.create_string_buffer(before.raw[:28] + word.to_bytes(4, "little"), 32))
    try:
        yield
    finally:
        library.fesetenv(before)


@pytest.mark.parametrize("dtype", ["float32", ml_dtypes.bfloat16], ids=str)
@pytest.mark.parametrize("name", ["bfloat16", "float8_e8m0fnu", "e4m3b127", "e4m3"])
@pytest.mark.parametrize("bits", [0x8040, 0x2000, 0x4000, 0x6000], ids=["flush", "down", "up", "to zero"])
def test_the_processor_may_be_set_otherwise(bits, name, dtype) -> None:
    """The bits are the same where a thread's subnormal numbers become 0, or its sums are rounded in another direction."""
    codes = np.arange(1 << get_format(name).bits)
    right = qsim.decode(codes, name, dtype).tobytes()

    def decoded() -> tuple[bytes, bytes]:
        return tuple(qsim.decode(codes.astype(kind), name, dtype).tobytes() for kind in (np.int64, np.uint16))

    with processor_set(bits):
        later = decoded()
        for known in (decoder.known_way, format_module._values):
            known.cache_clear()
        first = decoded()
    assert {*later, *first} == {right}


@pytest.mark.parametrize("name", ["nf4", "int8", "e4m3"])
@pytest.mark.parametrize(("kind", "dtype"), [("u1", "f4"), ("u4", "f8"), ("u8", "f4"), ("u4", "f4")])
def test_out_may_share_the_memory_of_the_codes(name, kind, dtype) -> None:
    """Codes are read before a value is written over them."""
    raw = np.zeros(8000, np.uint8)
    codes = raw[: 1000 * np.dtype(kind).itemsize].view(kind)
    codes[:] = np.arange(codes.size) % 7
    right = qsim.decode(codes.copy(), name, dtype)
    out = raw[: 1000 * np.dtype(dtype).itemsize].view(dtype)
    assert qsim.decode(codes, name, dtype, out=out).tobytes() == right.tobytes()


def test_out_may_be_of_the_order_of_bytes_that_is_asked_for() -> None:
    """An `out` is of the type of the values, in either order of bytes."""
    for wanted, given in itertools.product((">f4", "<f4"), repeat=2):
        out = np.zeros(3, given)
        assert qsim.decode(np.array([0x38, 0x39, 0xB8]), "e4m3", wanted, out=out).tolist() == [1, 1.125, -1]
