"""Codes back to values by arithmetic: what it must give, for which formats it is taken, and for which the table is."""

from __future__ import annotations

import numpy as np
import pytest
from strategies import NAMED, SMALL

import qsim
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
    lists = {"binary", "log4_sqrt2", "nf4", "posit8"}
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
