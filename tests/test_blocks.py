"""Blocks: scales and elements along any axis equal the definition in rationals, and the value packs, decodes and is saved."""

from __future__ import annotations

import itertools
import math
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

import qsim
from qsim import InputError, Key
from qsim.blocks import Encoded, block_formats, from_ggml, get_block_format, get_recipe, load_block_formats, to_ggml
from qsim.blocks.compare import bfloat16_maxima
from qsim.blocks.reference import decode_element, encode_block
from qsim.blocks.scales import RULES, exact_scale, fits, scales_of

ALL = list(block_formats().values())
POWERS = [(fmt, rule) for fmt in ALL for rule in RULES if fits(rule, fmt.scale) and len(fmt.size) == 1]


@pytest.mark.in_part(5)
@pytest.mark.parametrize("part", range(16))
@pytest.mark.parametrize(("fmt", "rule"), POWERS, ids=str)
def test_scales_of_all_bfloat16_maxima(fmt, rule, part) -> None:
    """The scale of each bfloat16 maximum, zero too, is the one of the rule's definition in rationals."""
    m = np.concatenate([np.zeros(1, np.float32), bfloat16_maxima()])[part::16]
    with np.errstate(all="ignore"):
        got = scales_of(m, fmt, rule)
    expected = [float(exact_scale(Fraction(float(one)), fmt, rule)) for one in m[::8]]
    assert got[::8].tolist() == expected


def test_a_rule_that_never_clamps_never_clamps() -> None:
    """Under ceil and rceil every bfloat16 maximum is within the largest element; under floor half of them or fewer are."""
    m = bfloat16_maxima(2.0**100)[2000:]
    for name, clamped in {
        "mxfp4_e2m1": Fraction(63, 128),
        "mxfp8_e4m3": Fraction(31, 128),
        "mxint8": Fraction(1, 128),
    }.items():
        fmt = get_block_format(name)
        limit = float(fmt.largest)
        for rule in ("ceil", "rceil"):
            assert (m <= scales_of(m, fmt, rule) * limit).all()
        one = m[(m >= 1) & (m < 2)]
        assert Fraction(int((one > scales_of(one, fmt, "floor") * limit).sum()), 128) == clamped


def test_three_quarters_make_clamping_impossible() -> None:
    """The factor max/2^(emax+1) = 3/4 takes every bfloat16 maximum into the range of E2M1 under floor."""
    m = bfloat16_maxima(2.0**100)[2000:]
    fmt = get_block_format("mxfp4_e2m1")
    factor = float(fmt.largest / Fraction(2) ** (fmt.emax + 1))
    assert factor == 0.75
    assert (m * np.float32(factor) <= scales_of(m, fmt, "floor") * 6).all()


CASES = [
    ("mxfp4_e2m1", "floor", (3, 70), -1), ("mxfp8_e4m3", "even", (70, 3), 0), ("mxfp6_e3m2", "rceil", (2, 33, 3), 1),
    ("mxint8", "midmax", (64,), 0), ("mxfp8_e5m2", "ceil", (2, 40), 1), ("nvfp4", "nearest", (3, 35), 1),
    ("nvfp4", "up", (35, 3), 0), ("fp4_ue5m3", "nearest", (2, 20), -1), ("mxfp4_e2m1_32x32", "floor", (40, 33), (0, 1)),
    ("nvfp4_16x16", "nearest", (2, 20, 17), (1, 2)), ("nvfp4_16x16", "nearest", (20, 2, 17), (2, 0)),
]  # fmt: skip


@pytest.mark.parametrize(("name", "rule", "shape", "axis"), CASES)
@pytest.mark.parametrize("mode", ["RNE", "SR"])
def test_arrays_are_the_definition(name, rule, shape, axis, mode) -> None:
    """Codes, scales and values of an array, its last blocks shorter, are those of each block in rationals."""
    rng = np.random.default_rng(5)
    x = (rng.normal(size=shape) * np.exp2(rng.integers(-3, 4, shape))).astype(np.float32)
    x.flat[:4] = [0.0, -0.0, 1.5, -2.5]
    words = rng.integers(0, 1 << 32, shape, np.uint32)
    more = {"sr_bits": 32, "rbits": words} if mode == "SR" else {}
    e = qsim.encode(x, name, mode, scale_rule=rule, axis=axis, **more)
    y = qsim.quantize(x, name, mode, scale_rule=rule, axis=axis, **more)
    assert np.array_equal(e.decode(), y)
    assert (y.dtype, y.shape) == (x.dtype, x.shape)
    fmt, recipe = get_block_format(name), get_recipe(get_block_format(name), rule)
    axes = tuple(one % x.ndim for one in (axis if isinstance(axis, tuple) else (axis,)))
    tensor = float(np.abs(x).max())
    for at in itertools.product(*(range(n) for n in e.scales.shape)):
        place = tuple(
            slice(k * fmt.size[axes.index(i)], (k + 1) * fmt.size[axes.index(i)]) if i in axes else slice(k, k + 1)
            for i, k in enumerate(at)
        )
        stochastic = {"sr_bits": 32, "rbits": words[place].reshape(-1)} if mode == "SR" else {}
        block = encode_block(x[place].reshape(-1).tolist(), recipe, mode, tensor=tensor, **stochastic)
        assert e.codes[place].reshape(-1).tolist() == list(block.codes)
        assert e.scales[at] == block.scale
        assert e.tensor_scale == block.tensor_scale
        values = [decode_element(code, block, recipe) for code in block.codes]
        assert y[place].reshape(-1).tolist() == values


def test_random_words_are_those_of_the_element() -> None:
    """A slice continues with the offset of its first element, whatever the pieces."""
    x = np.random.default_rng(0).normal(size=(6, 64)).astype(np.float32)
    whole = qsim.quantize(x, "mxfp4_e2m1", "SR", key=Key(3, 1))
    assert np.array_equal(whole[2:], qsim.quantize(x[2:], "mxfp4_e2m1", "SR", key=Key(3, 1, 128)))
    s = qsim.encode(x, "mxfp4_e2m1").decode() * 0 + 1
    assert not np.array_equal(whole, qsim.quantize(x, "mxfp4_e2m1", "SR", key=Key(4, 1)) * s)
    turned = np.ascontiguousarray(x.T)
    assert np.array_equal(qsim.quantize(turned, "mxfp4_e2m1", axis=0).T, qsim.quantize(x, "mxfp4_e2m1"))


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float64", ">f4"])
def test_types_of_input(dtype) -> None:
    """Each type of input has the scales and codes of its numbers, and values of its own type."""
    import ml_dtypes

    own = np.dtype(ml_dtypes.bfloat16) if dtype == "bfloat16" else np.dtype(dtype)
    x = np.random.default_rng(1).normal(size=(2, 64)).astype(own)
    wide = x.astype(np.float32 if own.itemsize < 8 else np.float64)
    for name in ("mxfp4_e2m1", "nvfp4", "mxfp8_e4m3"):
        e, f = qsim.encode(x, name), qsim.encode(wide, name)
        assert e == f
        y = qsim.quantize(x, name)
        assert y.dtype == own.newbyteorder("=")
        assert np.array_equal(y.astype(np.float64), e.decode(own.newbyteorder("=")).astype(np.float64))


@pytest.mark.parametrize(("name", "rule"), [("mxfp4_e2m1", "floor"), ("mxint8", "rceil"), ("nvfp4", "nearest")])
@pytest.mark.parametrize("power", [-60, 0, 60])
def test_float64_is_the_definition(name, rule, power, tmp_path: Path) -> None:
    """Numbers beyond float32's range, and random words of 64 bits; the tensor's scale is a float32 and is saved whole."""
    rng = np.random.default_rng(power + 99)
    fmt = get_block_format(name)
    x = rng.normal(size=(3, fmt.size[0])) * 10.0**power
    words = rng.integers(0, 1 << 63, x.shape, np.uint64)
    options = {"scale_rule": rule, "sr_bits": 64, "rbits": words}
    e = qsim.encode(x, name, "SRA", **options)
    for k, row in enumerate(x):
        block = encode_block(
            row.tolist(), get_recipe(name, rule), "SRA", tensor=float(np.abs(x).max()), precision="float64", sr_bits=64,
            rbits=words[k].tolist(),
        )  # fmt: skip
        assert (list(block.codes), block.scale) == (e.codes[k].tolist(), e.scales[k, 0])
    y = qsim.quantize(x, name, "SRA", **options)
    assert np.array_equal(e.decode(np.float64), y)
    e.save(tmp_path / "x.npz")
    assert np.array_equal(Encoded.load(tmp_path / "x.npz").decode(np.float64), y)


def test_strange_arrays() -> None:
    """Strides, read-only arrays, none at all, and `out`."""
    x = np.random.default_rng(2).normal(size=(8, 64)).astype(np.float32)
    y = qsim.quantize(x, "mxfp4_e2m1")
    assert np.array_equal(qsim.quantize(x[::2], "mxfp4_e2m1"), y[::2])
    x.flags.writeable = False
    out = np.empty_like(y)
    assert qsim.quantize(x, "mxfp4_e2m1", out=out) is out
    assert np.array_equal(out, y)
    for shape in ((0,), (3, 0), (0, 32)):
        assert qsim.quantize(np.empty(shape, np.float32), "nvfp4").shape == shape


def test_nan_and_infinity() -> None:
    """A block with a NaN or an infinity has the scale NaN, and all its values are NaN; the others stay."""
    x = np.ones((2, 3, 32), np.float32)
    x[0, 0, 5], x[1, 2, 31] = np.nan, -np.inf
    for rule in ("floor", "ceil", "rceil", "even", "midmax"):
        e = qsim.encode(x, "mxfp4_e2m1", scale_rule=rule)
        assert (e.scales == 255)[..., 0].tolist() == [[True, False, False], [False, False, True]]
        nans = np.isnan(e.decode()).all(-1)
        assert nans.tolist() == [[True, False, False], [False, False, True]]


def test_nan_and_infinity_ignored(tmp_path: Path) -> None:
    """With nonfinite = "ignore" they do not count: the others keep their values, an infinity is clamped, NaN is E2M1's +6."""
    own = tmp_path / "own.toml"
    own.write_text(
        '[[block]]\nname = "b"\nelement = "e2m1"\nscale = "e8m0"\nsize = [32]\nnonfinite = "ignore"\nsource = "mine"\n'
        '[[block]]\nname = "n"\nelement = "e2m1"\nscale = "ue4m3"\nsize = [16]\ntensor_scale = true\nrule = "up"\n'
        'nonfinite = "ignore"\nsource = "mine"\n',
        encoding="utf-8",
    )
    x = np.random.default_rng(0).normal(size=(3, 32)).astype(np.float32)
    clean = x.copy()
    x[0, 3], x[1, 4], x[1, 5], clean[0, 3], clean[1, 4:6] = np.nan, -np.inf, np.inf, 0, 0
    for name in ("b", "n"):
        e, f = qsim.encode(x, f"{own}#{name}"), qsim.encode(clean, f"{own}#{name}")
        assert np.array_equal(e.scales, f.scales)
        same = np.isfinite(x)
        assert np.array_equal(e.codes[same], f.codes[same])
        assert e.codes[~same].tolist() == [7, 15, 7]
        fmt = get_block_format(f"{own}#{name}")
        block = encode_block(x[1, : fmt.size[0]].tolist(), fmt, tensor=float(np.abs(clean).max()))
        assert list(block.codes) == e.codes[1, : fmt.size[0]].tolist()


def test_zero_and_tiny_blocks() -> None:
    """Zeros have the smallest scale and keep their signs; subnormal maxima have scales of the format."""
    x = np.zeros((3, 32), np.float32)
    x[0, 1], x[1], x[2, 0] = -0.0, 2.0**-149, 2.0**-126
    e = qsim.encode(x, "mxfp4_e2m1")
    assert e.scales.ravel().tolist() == [0, 0, 0]
    assert e.codes[0, :3].tolist() == [0, 8, 0]
    assert e.codes[2, 0] == 4
    assert e.decode()[2, 0] == np.float32(2.0**-126)
    assert qsim.encode(x[:1], "nvfp4").scales.ravel().tolist() == [0, 0]


def test_the_largest_numbers_stay_finite() -> None:
    """A maximum whose nearest element is beyond float32 becomes the largest number."""
    most = np.finfo(np.float32).max
    x = np.full(32, most)
    assert qsim.quantize(x, "mxfp4_e2m1", scale_rule="rceil")[0] == most
    assert qsim.quantize(x, "mxfp4_e2m1", scale_rule="floor")[0] == np.float32(6 * 2.0**125)


@pytest.mark.parametrize("name", [fmt.name for fmt in ALL])
def test_it_packs_and_is_saved(name, tmp_path: Path) -> None:
    """What was packed or saved comes back equal, by the format's own number of bits."""
    shape = (33, 40) if len(get_block_format(name).size) == 2 else (3, 70)
    x = np.random.default_rng(3).normal(size=shape).astype(np.float32)
    e = qsim.encode(x, name)
    codes, scales = e.pack()
    assert codes.shape[-1] == math.ceil(shape[-1] * e.format.element.bits / 8)
    back = Encoded.unpack(codes, scales, name, shape[-1], tensor_scale=e.tensor_scale)
    assert back == e
    e.save(tmp_path / "x.npz")
    loaded = Encoded.load(tmp_path / "x.npz")
    assert loaded == e
    assert np.array_equal(loaded.decode(), e.decode())
    assert e != qsim.encode(2 * x + 1, name)


@pytest.mark.parametrize(("name", "size"), [("mxfp4_e2m1", 17), ("q4_0", 18), ("q8_0", 34)])
def test_bytes_of_ggml(name, size) -> None:
    """Blocks of 17, 18 and 34 bytes, which come back; elements i and i + 16 share one, and -8 is 0 in Q4_0."""
    x = np.random.default_rng(6).normal(size=(2, 3, 64)).astype(np.float32)
    e = qsim.encode(x, name)
    data = to_ggml(e)
    assert data.shape == (2, 3, 2 * size)
    back = from_ggml(data, name)
    assert back == e
    assert np.array_equal(back.decode(), e.decode())
    if name == "q4_0":
        block = np.zeros((1, 32), np.float32)
        block[0, 0], block[0, 16] = -8.0, 7.0
        assert to_ggml(qsim.encode(block, name)).tolist()[0][:4] == [0, 0x3C, 0xF0, 0x88]
    for wrong, told in [(lambda: to_ggml(qsim.encode(x, "nvfp4")), "no blocks of nvfp4"),
                        (lambda: to_ggml(qsim.encode(x, name, axis=0)), "along the last axis"),
                        (lambda: from_ggml(data[..., 1:], name), "each along the last axis")]:  # fmt: skip
        with pytest.raises(InputError, match=told):
            wrong()


def test_formats_of_a_file(tmp_path: Path) -> None:
    """An own format is a block of a TOML file, and a wrong entry is refused with its place."""
    own = tmp_path / "own.toml"
    entry = 'name = "b8"\nelement = "e3m2"\nscale = "e8m0"\nsize = [8]\nsource = "mine"\n'
    own.write_text(f"[[block]]\n{entry}", encoding="utf-8")
    x = np.random.default_rng(3).normal(size=(3, 20)).astype(np.float32)
    assert qsim.encode(x, f"{own}#b8").scales.shape == (3, 3)
    for wrong, told in {
        entry.replace('"e3m2"', '"e99"'): "block 1 .b8.: no format is called",
        entry.replace("[8]", "[0]"): r"size = \[0\] must be one or two whole numbers",
        entry + "rule = 'up'": "rule = 'up' is no rule for a scale of float8_e8m0fnu; floor, ceil",
        entry.replace('source = "mine"', ""): "key 'source' is missing",
        entry + "blocks = 3": "unknown key 'blocks'",
    }.items():
        own.write_text(f"[[block]]\n{wrong}", encoding="utf-8")
        with pytest.raises(InputError, match=told):
            load_block_formats(own)


def test_refusals() -> None:
    """What does not go together is refused in a sentence."""
    x = np.ones(64, np.float32)
    for arguments, options, told in [
        (("mxfp4_e2m1",), {"scale_rule": "flor"}, "no scale rule is called 'flor'; did you mean floor"),
        (("nvfp4",), {"scale_rule": "floor"}, "makes no sense for nvfp4, which takes nearest, up"),
        (("e4m3",), {"scale_rule": "floor"}, "no recipe is called 'e4m3'"),
        (("mxfp4_e2m1",), {"axis": 1}, "must name 1 of the 1 axes"),
        (("nvfp4_16x16",), {}, "x has 1 axes; nvfp4_16x16 has blocks along 2"),
        (("mxfp4_e2m1",), {"scale": 2.0}, "scale does not go with a block format"),
        (("mxfp4_e2m1",), {"saturation": "SatFinite"}, "saturation does not go with a block format"),
        (("mxfp4_e2m1", "SR"), {}, "SR needs its random words"),
        (("nvfp4/torchao-0.18",), {"scale_rule": "up"}, "which has its own; drop it"),
        (("mxfp4",), {"key": Key(0)}, None),
    ]:
        if told is None:
            qsim.quantize(x, *arguments, **options)
            continue
        with pytest.raises(InputError, match=told):
            qsim.quantize(x, *arguments, **options)
    with pytest.raises(InputError, match="computes in float32; convert the float64 input"):
        qsim.quantize(x.astype(np.float64), "nvfp4/torchao-0.18")
