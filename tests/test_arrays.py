"""Rounding over arrays: any layout and type, which type holds which format, `out`, and codes."""

from __future__ import annotations

import itertools
import math
import re
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from alike import same, same_values
from definition import by_reference, codes_by_reference, width, words
from enumeration import exactly
from strategies import (
    BFLOAT16,
    BIASED,
    CATALOGUE,
    FIXED,
    FLOAT32,
    FLOAT64,
    GAPPED,
    KINDS,
    LAYOUTS,
    NAMED,
    P3109,
    PARAMETRIC,
    SMALL,
    TABLES,
    TOO_FAR,
    UNSIGNED,
    edges,
    every_kind,
    held,
    numbers,
    read_only,
    some_numbers,
    swapped,
    taken,
)

from qsim import reference
from qsim.arrays import decode, encode, quantize
from qsim.errors import InputError
from qsim.formats import float_format, get_format, integer_format
from qsim.rounding import Key, saturations

SEED, STREAM = 0x0123456789ABCDEF, 0xFEDCBA9876543210

# --- Shapes and layouts ----------------------------------------------------------------------------------------------


LAYOUTS_OF_NUMBERS = {
    "0-d": lambda x: x[7:8].reshape(()),
    "empty": lambda x: x[:0],
    "empty 3-d": lambda x: x[:0].reshape(2, 0, 3),
    "1-d": lambda x: x,
    **LAYOUTS,
    "byte-swapped and strided": lambda x: swapped(x).reshape(4, 6)[:, ::2],
}


@every_kind
@pytest.mark.parametrize("layout", LAYOUTS_OF_NUMBERS.values(), ids=LAYOUTS_OF_NUMBERS)
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

OTHERS = [
    *FIXED, *BIASED, *P3109[::5], *PARAMETRIC[::9], *UNSIGNED[::9], *GAPPED,
    *(fmt for fmt in TABLES if fmt.name not in TOO_FAR),
]  # fmt: skip


@pytest.mark.in_part(2)
@every_kind
@pytest.mark.parametrize("named", [True, False], ids=["named", "others"])
def test_every_type_and_every_kind_of_format(kind: np.dtype, named: bool) -> None:
    """Every type rounds to every format; as values where it holds these, and with one sentence of refusal where not."""
    for fmt in {fmt.name: fmt for fmt in (CATALOGUE if named else OTHERS)}.values():
        x = some_numbers(fmt, kind)
        if not taken(fmt):
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
    """What has values that no float64 holds, or too many that are subnormal there, is refused; the reference rounds to it."""
    for fmt in (
        get_format("Binary12p1ue"),
        get_format("e11m20fn"),
        float_format("far", 5, 3, "f", "a test", bias=1080),
        float_format("without zero", 5, 0, "fn", "a test", bias=1030, signed=False, zero=False),
    ):
        with pytest.raises(InputError, match="values beyond float64, or fewer exact bits"):
            encode(np.ones(2), fmt)
        assert reference.encode(1.0, fmt) >= 0


def test_formats_at_the_ends_of_float64() -> None:
    """Formats of few values, some of them subnormal in float64, or with 2^1024 as the next after the largest, are taken."""
    for fmt in (
        get_format("Binary11p1ue"),
        get_format("Binary12p1sf"),
        get_format("Binary13p2sf"),
        float_format("far", 5, 3, "f", "a test", bias=1050),
        float_format("to the end", 11, 1, "ieee", "a test"),
        float_format("to the end, with a gap", 11, 2, "ieee", "a test", subnormals="normal"),
    ):
        x = np.concatenate([edges(fmt, FLOAT64, 40), [1.7976931348623157e308, 5e-324, -5e-324, 1.5 * 2.0**-1023]])
        for mode, rule in itertools.product(("RNE", "RUP", "RTO"), saturations(fmt)):
            expected = codes_by_reference(x, fmt, mode, saturation=rule)
            codes = encode(x, fmt, mode, saturation=rule)
            assert codes.tolist() == expected.tolist()
            assert same_values(quantize(x, fmt, mode, saturation=rule), decode(codes, fmt, FLOAT64))
        word = np.random.default_rng(0).integers(0, 1 << 8, x.size)
        drawn = codes_by_reference(x, fmt, "SRC", sr_bits=8, rbits=word.tolist())
        assert encode(x, fmt, "SRC", sr_bits=8, rbits=word).tolist() == drawn.tolist()


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
        (np.ma.masked_array(np.zeros(4, np.float32), hard_mask=True), "out is a masked array; give its data"),
        (read_only(np.zeros(4, np.float32)), "read-only"),
        (np.lib.stride_tricks.as_strided(np.zeros(1, np.float32), (4,), (0,)), "elements that share memory"),
    ],
    ids=["size", "shape", "precision", "bfloat16", "type", "list", "masked", "read-only", "broadcast"],
)
def test_wrong_out_is_refused(out: Any, fragment: str) -> None:
    """An `out` that does not fit is refused, and nothing is written."""
    with pytest.raises(InputError, match=re.escape(fragment)):
        quantize(np.ones(4, np.float32), "e4m3", out=out)
    assert not np.any(out)


@every_kind
def test_out_of_codes_and_values(kind: np.dtype) -> None:
    """`encode` and `decode` take `out` as `quantize` does: of any layout, and of the type of their results."""
    x = numbers(24, kind).reshape(4, 6)
    codes, wide = encode(x, "e4m3"), np.zeros((8, 12), np.uint8)
    for out in (np.empty_like(codes), np.empty_like(codes, order="F"), wide[::2, ::-2]):
        assert encode(x, "e4m3", out=out) is out
        assert np.array_equal(out, codes)
    values = decode(codes, "e4m3", kind)
    for place in (
        np.empty_like(values),
        np.empty_like(values, order="F"),
        np.empty((4, 12), kind)[:, ::2],
        swapped(values),
    ):
        assert decode(codes, "e4m3", kind, out=place) is place
        assert np.array_equal(place, values, equal_nan=True)
    same_memory = x.copy()
    assert encode(same_memory, "e4m3", out=same_memory.view(np.uint8)[:, :6]).tolist() == codes.tolist()
    with pytest.raises(InputError, match=re.escape("out is uint16 (4, 6); it must be an array of uint8 (4, 6)")):
        encode(x, "e4m3", out=np.zeros((4, 6), np.uint16))
    with pytest.raises(InputError, match=re.escape("it must be an array of float32 (4, 6)")):
        decode(codes, "e4m3", out=np.zeros((4, 6)))
    with pytest.raises(InputError, match="is no code of"):
        decode(np.array([1, 2]), "ternary", out=(kept := np.full(2, 7, np.float32)))
    assert kept.tolist() == [7, 7]


@every_kind
@pytest.mark.filterwarnings("ignore:the matrix subclass")
def test_out_of_a_subclass(kind: np.dtype) -> None:
    """A matrix, whose rows stay matrices, is written as the array that it is, and returned."""
    x = numbers(24, kind).reshape(4, 6)
    codes = encode(x, "e4m3")
    for options in ({}, {"mode": "SR", "key": Key(3)}, {"scale": 0.5}):
        out = np.matrix(np.zeros_like(x))
        assert quantize(x, "e4m3", out=out, **options) is out
        assert same(np.asarray(out), quantize(x, "e4m3", **options))
    out = np.matrix(np.zeros_like(codes))
    assert encode(x, "e4m3", out=out) is out
    assert same(np.asarray(out), codes)
    for fmt in ("e4m3", "int4"):
        out = np.matrix(np.zeros_like(x))
        assert decode(codes % 16, fmt, kind, out=out) is out
        assert same(np.asarray(out), decode(codes % 16, fmt, kind))


def test_out_may_hold_the_words() -> None:
    """Random words, thresholds and scales that lie where the result goes are read before they are overwritten."""
    x = np.repeat(numbers(1 << 10, FLOAT32), 64)
    words = np.random.default_rng(0).integers(0, 1 << 32, x.size, dtype=np.uint32)
    expected = quantize(x, "e4m3", "SRA", sr_bits=32, rbits=words[::-1])
    quantize(x, "e4m3", "SRA", sr_bits=32, rbits=words[::-1], out=words.view(np.float32))
    assert same(words.view(np.float32), expected)


def test_out_is_not_written_on_refusal() -> None:
    """A refusal that comes late, of a NaN that the format has no place for, leaves `out` as it was."""
    fmt, out = integer_format("strict", 8, "a test", nan_to="error"), np.full(2, 7.0)
    with pytest.raises(InputError, match="is NaN"):
        quantize(np.array([1.0, math.nan]), fmt, out=out)
    assert out.tolist() == [7.0, 7.0]


# --- Codes -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("group", ["named", "P3109", "spelled", "others"])
def test_codes_round_trip(group: str) -> None:
    """Every code decodes to a value that encodes to it; codes of NaN all become the one that results have; others are none."""
    groups = {
        "named": NAMED, "P3109": P3109, "spelled": [*PARAMETRIC[::6], *UNSIGNED[::6]],
        "others": [*FIXED[:5], *BIASED, *(fmt for fmt in TABLES if fmt.name not in TOO_FAR), *GAPPED],
    }  # fmt: skip
    for fmt in {fmt.name: fmt for fmt in groups[group] if fmt.bits <= 16}.values():
        if not taken(fmt):
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
        if fmt.name not in TOO_FAR and taken(fmt):
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
