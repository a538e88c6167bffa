"""Golden models: each entry converts, and those whose implementation is at hand, or whose answers are recorded, equal it."""

from __future__ import annotations

from pathlib import Path

import ml_dtypes
import numpy as np
import pytest
from conftest import NO_TORCH
from strategies import ML_DTYPES

import qsim
from qsim import InputError, reference
from qsim.golden import Converter, Operands, every, model, named, operands
from qsim.golden.differences import differences, fits
from qsim.golden.operands import width
from qsim.models import models

ALL = list(models())
PLAIN = [name for name, one in models().items() if not (one.rule or one.first or one.becomes or one.ftz_in)]


def sample(converter: Converter, kind: str, count: int = 64) -> Operands:
    """Return numbers of a type near the format's range, and any bits."""
    rng = np.random.default_rng(1)
    bits = rng.integers(0, (1 << width(kind)) - 1, count, np.uint64, endpoint=True)
    if kind in ("float32", "float64"):
        near = (rng.standard_normal(count) * 4.0 ** rng.integers(-8, 8, count)).astype(kind)
        bits = np.concatenate([bits, near.view(f"u{near.itemsize}").astype(np.uint64)])
    return Operands(kind, bits)


def test_every_entry_converts() -> None:
    """Each takes the types it says, and gives codes of its format; one with random words refuses to go without."""
    for name in ALL:
        converter = model(name)
        for kind in ("float16", "bfloat16", "float32", "float64", "int32"):
            if converter.input and kind != converter.input:
                continue
            if not fits(converter, kind):
                continue
            x = sample(converter, kind)
            words = 1 if converter.word_bits else None
            codes = converter(x.bits, words, dtype=kind)
            assert codes.max() < 1 << converter.format.bits, name
            if converter.word_bits:
                with pytest.raises(InputError, match="needs rbits"):
                    converter(x.bits, dtype=kind)
            else:
                with pytest.raises(InputError, match="takes no random words"):
                    converter(x.bits, 1, dtype=kind)


@pytest.mark.parametrize("name", PLAIN)
def test_a_plain_entry_is_the_reference(name: str) -> None:
    """An entry without steps is one rounding as `qsim.reference` has it, word for word."""
    converter, q = model(name), model(name).quantizer
    x = sample(converter, converter.input or "float32", 12)
    words = np.arange(len(x), dtype=np.uint64) * np.uint64(2654435761) % np.uint64(1 << max(converter.word_bits, 1))
    codes = converter.convert(x, words if converter.word_bits else None)
    for value, word, code in zip(x.exact.tolist(), words.tolist(), codes.tolist(), strict=True):
        entry = converter.entry
        n = entry.sr_bits
        low = word & ((1 << n) - 1) if entry.word_part == "low" else word >> (entry.word_bits - n)
        stochastic = {"sr_bits": n, "rbits": low} if n else {}
        right = reference.encode(
            value, q.format, q.mode, saturation=q.saturation, ftz_out=q.ftz_out, nan=q.nan, **stochastic
        )
        assert code == right, (value, word)


# --- Recorded answers ------------------------------------------------------------------------------------------------

CUDA = {
    "float-e2m1_rne": "float_e2m1", "float-e2m3_rne": "float_e2m3", "float-e3m2_rne": "float_e3m2",
    "float-e4m3_nosat": "float_e4m3_nosat", "float-e4m3_sat": "float_e4m3_sat", "float-e5m2_nosat": "float_e5m2_nosat",
    "float-e5m2_sat": "float_e5m2_sat", "bfloat16-e8m0_nearest_sat": "float_e8m0_nearest_sat",
}  # fmt: skip


@pytest.mark.parametrize("table", CUDA)
def test_cuda_tables(table: str, qsim_data: Path) -> None:
    """The header's code changes where the model's does, over all inputs, and to the same codes."""
    rows = [line.split() for line in (qsim_data / f"converters/cuda-13.5.37-{table}.txt").read_text().splitlines()]
    at, codes = np.array([int(a, 16) for a, _ in rows], np.uint64), np.array([int(b, 16) for _, b in rows])
    converter = model(f"cuda-13.5/{CUDA[table]}")
    last = np.uint64((1 << width(converter.input)) - 1)
    assert (converter(at) == codes).all()
    before = np.append(at[1:] - np.uint64(1), last)
    assert (converter(before) == codes).all()
    middle = at + (before - at) // np.uint64(2)
    assert (converter(middle) == codes).all()


def test_fixed_point_overflow_tables(qsim_data: Path) -> None:
    """The nine overflow modes of SystemC and ap_fixed, -20 to 20 at four bits."""
    path = qsim_data / "converters/systemc-2.3.4-and-ap_fixed-overflow-4bit.txt"
    head, *rows = [line.split() for line in path.read_text().splitlines()]
    x = np.array([float(row[0]) for row in rows])
    for at, mode in enumerate(head[1:], 1):
        right = [int(row[at]) & 15 for row in rows]
        for package in ("systemc-2.3.4", "ap_fixed-hls4ml1.3"):
            converter = model(f"{package}/fixed4_4_trn_{mode.lower().replace(',', '')}")
            assert converter(x).tolist() == right, (package, mode)


@pytest.mark.parametrize("package", ["systemc-2.3.4", "ac_types-4.8"])
def test_fixed_point_rounding_tables(package: str, qsim_data: Path) -> None:
    """The quantization modes of SystemC and AC on ties and beside them."""
    name = "ac_fixed-4.8-rounding" if package.startswith("ac") else "systemc-2.3.4-and-ap_fixed-rounding"
    count = 0
    for line in (qsim_data / f"converters/{name}.txt").read_text().splitlines():
        x, *pairs = line.split()
        for mode, right in zip(pairs[0::2], pairs[1::2], strict=True):
            got = model(f"{package}/fixed8_8_{mode.lower()}_sat")(np.array([float(x)]))
            assert got.tolist() == [int(right) & 255], (x, mode)
            count += 1
    assert count >= 70


SEEN = {
    "systemc-2.3.4/fixed4_4_trn_wrap_sm": {8.0: 7, 9.0: 6, 15.0: 0, -9.0: 8, 16.0: 15, -17.0: 0},
    "ac_types-4.8/fixed8_4_rnd_sat_sym": {-8.0: 0x81, -0.03125: 0},
    "cuda-13.5/double_e4m3_nosat": {1.0625: 0x38, 1.0625 + 2**-40: 0x39, 464.00000000000006: 0x7F, -np.nan: 0xFF},
    "cuda-13.5/double_e5m2_sat": {-np.nan: 0xFE, np.nan: 0x7E},
    "cuda-13.5/float_e8m0_nearest_sat": {1.25: 0x7F, 1.5: 0x80, 3.0: 0x81, -3.0: 0x81, 0.0: 0, np.nan: 0xFF},
    "cuda-13.5/float_ue5m3_sat": {-0.30000001192092896: 0x6A, 118784.0: 0xFE, 2**-18: 0, np.inf: 0xFE, np.nan: 0xFF},
    "ml_dtypes-0.6/float8_e8m0fnu": {0.0: 0xFF, -3.0: 0xFF, np.inf: 0xFF, 3.0: 0x81, 0.75: 0x7F, 1.25 * 2**-127: 1},
    "ml_dtypes-0.7/float8_e8m0fnu": {0.0: 0xFF, -3.0: 0xFF, 3.0: 0x81, 1.25 * 2**-127: 0, 1.5 * 2**-127: 1},
    "ml_dtypes-0.7/float8_e5m3fnu": {-1e-9: 0xFF, -(2.0**-18): 0xFF, -0.0: 0, 2.0**-18: 0, 118784.0: 0xFE, 118792.0: 0xFF},
    "ml_dtypes-0.7/int4": {7.9: 7, 8.0: 0, -8.9: 8, -9.0: 0, 100.0: 0, np.inf: 0, np.nan: 0, -1.5: 15},
    "ml_dtypes-0.7/uint4": {15.9: 15, 16.0: 0, -0.9: 0, -1.0: 0, np.inf: 0},
    "torch-2.13/float8_e8m0fnu": {-1.0: 0x7F, 0.0: 0, np.inf: 0xFF, 2.0**-130: 0, 1.25 * 2**-127: 1},
    "vhdl-2008/float_pkg_e4m3_f32": {1e-40: 0x78, -0.0: 0, np.nan: 0x79},
    "vhdl-2008/to_ufixed_real_3_0": {0.5 + 2.0**-20: 0, 1.5 - 2.0**-20: 1, 0.5625: 0, 0.625: 1},
    "vhdl-2008/resize_sfixed_2_-2": {-8.0: 0x10},
    "faiss-cpu-1.15.1/qt_bf16": {1 + 2**-8: 0x3F81},
    "triton-3.9/interpreter_bf16": {1 + 3 * 2**-8: 0x3F81, 3.4e38: 0x7F7F},
    "xla-0.10/reduce_precision_4_3": {0.0151: 0, 248.0: 0x78, 240.0: 0x77, 2**-8: 0},
    "apytypes-0.5.1/from_float_8_4": {9.0: 0x90},
    "fxpmath-0.4.10/trunc_8_4": {-2.03125: (-32) & 255, np.nan: 0x7F},
    "onnxruntime-1.32/e4m3fn_nosat": {480.0: 0x7E, 495.0: 0x7E, 496.0: 0x7F, 465.0: 0x7F},
    "mlx-0.32/fp8": {np.nan: 0x7E, 1000.0: 0x7E},
    "onnx-1.23/quantize_int8": {np.inf: 0x80, 2.0**31: 0x80, 200.0: 0x7F},
    "openvino-2026.4/f4e2m1": {np.nan: 7, -np.nan: 15, 2.5: 4},
    "x86-2026/vcvtneps2bf16": {2.0**-127: 0, 2.0**-126: 0x80},
    "x86-2026/cvtsd2ss_ftz": {(1 - 2**-24) * 2**-126: 0},
}  # fmt: skip
"""What the implementations made of some numbers when they were run."""


@pytest.mark.parametrize("name", SEEN)
def test_what_was_seen(name: str) -> None:
    """The models give the codes that were seen."""
    kind = model(name).input or "float32"
    with np.errstate(over="ignore"):
        x = np.array([*SEEN[name]]).astype(kind if kind != "bfloat16" else ml_dtypes.bfloat16)
    assert model(name)(x).tolist() == [*SEEN[name].values()]


# --- Implementations at hand -----------------------------------------------------------------------------------------


def test_scalars_of_ml_dtypes_round_once() -> None:
    """The scalar constructor rounds a float64 once, where an array goes through float32 before 0.7."""
    x = np.array([17 + 2.0**-40, 17.0, -17 - 2.0**-40])
    once = [int(ml_dtypes.float8_e4m3fn(value).view(np.uint8)) for value in x.tolist()]
    arrays = {
        version: model(f"ml_dtypes-{version}/float8_e4m3fn")(x, dtype="float64").tolist() for version in ("0.6", "0.7")
    }
    assert qsim.encode(x, "e4m3@ml_dtypes").tolist() == once == arrays["0.7"] != arrays["0.6"]
    here = "0.7" if ML_DTYPES >= (0, 7) else "0.6"
    assert x.astype(ml_dtypes.float8_e4m3fn).view(np.uint8).tolist() == arrays[here]


@pytest.mark.parametrize("kind", ["bfloat16", "float32", "float64"])
def test_numpy_converts_to_float16(kind: str) -> None:
    """All bfloat16 numbers, and next to every float16 threshold, as NumPy has them; NaNs keep their sign."""
    x = every("bfloat16")
    if kind != "bfloat16":
        ends = np.arange(0x7C00, dtype=np.uint16).view(np.float16).astype(np.float64)
        middle = (ends + np.append(ends[1:], 65536.0)) / 2
        values = np.concatenate(
            [np.nextafter(middle.astype(kind), side) for side in (0, np.inf)] + [middle.astype(kind)]
        )
        x = operands(np.concatenate([values, -values]).astype(kind), kind)
    converter = model("numpy-2.0/float16_from_float64" if kind == "float64" else "numpy-2.0/float16")
    values = x.values
    with np.errstate(all="ignore"):
        theirs = values.astype(np.float16).view(np.uint16)
    ours = converter(values)
    nan = np.isnan(values)
    assert (ours == theirs)[~nan].all()
    assert (ours >> 15 == theirs >> 15)[nan].all()


def test_torch_of_all_inputs() -> None:
    """All float16 and all bfloat16 numbers, and float64 next to ties, subnormals to E8M0 too."""
    torch = pytest.importorskip("torch", reason=NO_TORCH)
    for name in (one for one in ALL if one.startswith("torch-")):
        kind = getattr(torch, name.partition("/")[2])
        for source in ("float16", "bfloat16", "float32"):
            bits = every("bfloat16" if source == "float32" else source).bits.astype(np.uint16)
            words = torch.from_numpy(bits.view(np.int16)).view(
                getattr(torch, "bfloat16" if source == "float32" else source)
            )
            theirs = words.to(getattr(torch, source)).to(kind).view(torch.uint8).numpy()
            x = every(source) if source != "float32" else operands(every("bfloat16").exact, "float32")
            ours = model(name).convert(x)
            if "e8m0" in name and source == "bfloat16":
                continue  # the step for subnormals is of float32
            assert (ours == theirs).all(), (name, source)


# --- Rows that decide ------------------------------------------------------------------------------------------------


def test_the_two_models_of_the_bias_operand() -> None:
    """They differ on 86,016 of the 8,126,464 pairs of positive inputs; the raw sum is unbiased, the other is not."""
    x = Operands("float16", np.arange(0x7C00, dtype=np.uint64))
    raw, other = (model(f"x86-2026/vcvtbiasph2bf8@{name}") for name in ("raw", "normalised"))
    values = raw.format.values()
    pairs, inputs, sums = 0, np.zeros(len(x), bool), np.zeros((2, len(x)))
    for word in range(256):
        words = np.full(len(x), word, np.uint64)
        codes = [converter.convert(x, words) for converter in (raw, other)]
        differ = codes[0] != codes[1]
        pairs, inputs = pairs + int(differ.sum()), inputs | differ
        sums += values[np.array(codes)]
    low = x.exact < 2.0**-14
    error = (sums / 256 - x.exact)[:, low & (x.exact > 0)] / 2.0**-16
    assert (pairs, int(inputs.sum()), len(x) * 256) == (86_016, 1_020, 8_126_464)
    assert not error[0].any()
    assert round(float(error[1].mean()), 3) == -0.328
    assert error[1].min() == -0.875
    assert low[inputs].all()


def test_probes_tell_the_readings_apart() -> None:
    """The inputs that entries name have the codes that they say."""
    amd = "amd-hip-f9f995c"
    x, y = np.float32([1.9375]), np.float32([1.5625 * 2**-7])
    assert model(f"{amd}/v_cvt_sr_fp8_f32@manual")(x, 0xFFFFF) == 0x38
    assert model(f"{amd}/from_float_sr_e4m3")(x, 0xFFFFF << 12) == 0x40
    assert model(f"{amd}/v_cvt_sr_fp8_f32@whole_word")(y, 0xFFFFF) == 0x06
    assert model(f"{amd}/from_float_sr_e4m3")(y, 0xFFFFF << 12) == 0x07
    assert model("ptx-9.5/cvt.rs.satfinite.e4m3x4.f32")(np.float32([2**-7 * (1 + 2**-5)]), 0xFFFF) == 0x05


@pytest.mark.parametrize(("steps", "mean"), [(1, -0.25), (2, -0.375), (3, -0.4375), (4, -0.6875)])
def test_the_bias_of_ace_below_the_normal_numbers(steps: int, mean: float) -> None:
    """The mean error s binades below the smallest normal number: (2^-s - 1) / 2 down to the smallest value, then less."""
    x = Operands("float32", np.arange(1 << 12, dtype=np.uint64) << np.uint64(11) | np.uint64((121 - steps) << 23))
    converter = model("x86-2026/ace.vcvtbiasps2hf8s")
    rng = np.random.default_rng(0)
    words = rng.permutation(1 << 20)[: 64 * len(x)].astype(np.uint64).reshape(64, len(x))
    values = np.mean([converter.format.values()[converter.convert(x, row)] for row in words], 0)
    assert abs(float((values - x.exact).mean() / 2.0**-9) - mean) < 0.005


def test_stochastic_words_of_tenstorrent() -> None:
    """With the word 0 a value that is exact goes away; zeros lose their sign, NaN becomes infinity."""
    converter = model("tenstorrent-3930471/sfpstochrnd_bf16")
    x = np.float32([1.0, 1e-40, -0.0, np.nan, -np.inf])
    assert converter(x, 0).tolist() == [0x3F81, 0, 0, 0x7F80, 0xFF80]
    assert converter(x, 1).tolist() == [0x3F80, 0, 0, 0x7F80, 0xFF80]


@pytest.mark.parametrize("name", ["gemmlowp-2026/requantize_int8", "gemmlowp-2026/requantize_int8_single"])
def test_requantization_in_integers(name: str) -> None:
    """The vector form is the scalar one, in Python's integers with C's division."""
    m, shift = 1518500250, 8
    x = np.random.default_rng(0).integers(-(1 << 20), 1 << 20, 2000).astype(np.int32)
    x = np.concatenate([x, np.int32([-(1 << 31), (1 << 31) - 1, 0, 181, -181, 543])])

    def one(value: int) -> int:
        if name.endswith("single"):
            scaled = (value * m + (1 << (30 + shift))) >> (31 + shift)
        else:
            product = value * m
            nudged = product + ((1 << 30) if product >= 0 else 1 - (1 << 30))
            high = abs(nudged) // (1 << 31) * (1 if nudged >= 0 else -1)
            rest = high & ((1 << shift) - 1)
            scaled = (high >> shift) + (rest > ((1 << shift) - 1 >> 1) + (high < 0))
        return max(-128, min(127, scaled)) & 255

    assert model(name)(x).tolist() == [one(int(value)) for value in x]


# --- Differences, and refusals ---------------------------------------------------------------------------------------


def test_differences_are_those_of_the_converters() -> None:
    """Each count is that of the codes, and the example is the smallest finite input that differs."""
    found = {one.name: one for one in differences(model("cuda-13.5/float_e4m3_nosat"))}
    assert found["cuda-13.5/float_e4m3_sat"].bits == 0x43E80001
    assert (found["cuda-13.5/float_e4m3_sat"].ours, found["cuda-13.5/float_e4m3_sat"].theirs) == (0x7F, 0x7E)
    assert found["onnxruntime-1.32/e4m3fn_nosat"].bits == 0x43F00000  # 480
    assert found["cuda-13.5/double_e4m3_nosat"].bits >> 23 == 0x1FF  # negative NaNs alone
    equal = differences(model("x86-2026/vcvtbiasph2bf8@raw"))[0]
    assert (equal.name, equal.count) == ("intel-xe-2026/srnd_hf_bf8", 0)


def test_names_and_inputs_that_are_none() -> None:
    """What is wrong is refused in a sentence."""
    with pytest.raises(InputError, match=r"no model is called 'torch-2.12/float8_e5m2'; did you mean torch-2.13"):
        named("torch-2.12/float8_e5m2")
    with pytest.raises(InputError, match="SR takes as many bits as the input has"):
        named("e4m3:SR")
    converter = model("cuda-13.5/float_e4m3_sat")
    with pytest.raises(InputError, match=r"inputs\[1\] = 0.1 is no number of float32"):
        converter(np.array([0.5, 0.1]))
    with pytest.raises(InputError, match="which are no bits of float32"):
        converter(np.array([1 << 32]))
    with pytest.raises(InputError, match="say of which type"):
        model("torch-2.13/float8_e5m2")(np.array([1], np.uint16))
    with pytest.raises(InputError, match="words of 8 bits go in"):
        model("x86-2026/vcvtbiasph2bf8@raw")(np.float16([1]), 256)
    assert named("e4m3:RTZ")(np.float32([1.9]))[0] == 0x3F
