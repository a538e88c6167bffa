"""Recipes against the packages themselves, where they are installed: every scale and every code, on inputs that part them."""

from __future__ import annotations

import importlib
from types import ModuleType
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from conftest import NO_TORCH, no_package

import qsim
from qsim.blocks import Encoded, to_ggml

BINADES = (-100, -60, -20, -10, 0, 1, 10, 20, 40, 100, 120)
STEPS = (1, 1.125, 1.25, 1.5, 1.75, 1.875, 1.9375, 1.99)


def installed(name: str, *parts: str) -> list[Any]:
    """Return modules of a package; skip where it is not installed."""
    pytest.importorskip(name, reason=no_package(name))
    if name not in ("gguf", "mlx"):
        pytest.importorskip("torch", reason=NO_TORCH)
    return [importlib.import_module(part) for part in parts]


def torch() -> ModuleType:
    """Return PyTorch."""
    return importlib.import_module("torch")


def sets(size: int) -> dict[str, np.ndarray]:
    """Return rows of blocks: Gaussian, rounded to bfloat16, small, of all magnitudes, at thresholds and beside them, zeros."""
    rng = np.random.default_rng(1)
    g = rng.normal(size=(2048, size)).astype(np.float32)
    narrow = g.astype(ml_dtypes.bfloat16).astype(np.float32)
    narrow *= np.float32(1.75) / np.abs(narrow).max()  # a maximum of 7 times a power of two
    narrow = narrow.astype(ml_dtypes.bfloat16).astype(np.float32)
    edge = np.array([step * 2.0**k for k in BINADES for step in STEPS], np.float32)
    edge = np.concatenate([edge, np.nextafter(edge, np.float32(0)), np.nextafter(edge, np.float32(np.inf))])
    at_edges = rng.uniform(-1, 1, (len(edge), size)).astype(np.float32) * edge[:, None]
    at_edges[:, 3] = edge
    zeros = np.zeros((3, size), np.float32)
    zeros[1], zeros[2, 0] = -0.0, 1.0
    wide = (g * np.exp2(rng.integers(-100, 100, (len(g), 1)))).astype(np.float32)
    return {"gaussian": g, "bfloat16": narrow, "weights": narrow / 64, "wide": wide, "edges": at_edges, "zeros": zeros}


def same(recipe: str, x: np.ndarray, scales: np.ndarray, codes: np.ndarray) -> Encoded:
    """Hold the scales and codes of a package against the recipe's."""
    e = qsim.encode(x, recipe)
    assert np.array_equal(e.scales.reshape(-1), scales.reshape(-1))
    assert np.array_equal(e.codes.reshape(codes.shape), codes)
    return e


def pairs(packed: Any) -> np.ndarray:
    """Return the codes of 4 bits, the first in the low ones."""
    packed = np.asarray(packed)
    return qsim.unpack(
        packed.view(np.uint8).reshape(packed.shape[0], -1), 4, 2 * packed.view(np.uint8).size // len(packed)
    )


@pytest.mark.parametrize("kind", list(sets(32)))
@pytest.mark.parametrize("rule", ["floor", "ceil", "even", "rceil"])
def test_torchao_mx(kind, rule) -> None:
    """MXFP4 and MXFP8 of torchao in eager mode."""
    mx, config = installed("torchao", *(f"torchao.prototype.mx_formats.{part}" for part in ("mx_tensor", "config")))
    x, mode = sets(32)[kind], getattr(config.ScaleCalculationMode, rule.upper())
    s, c = mx.to_mx(torch().from_numpy(x.copy()), torch().float4_e2m1fn_x2, 32, mode)
    same(f"mxfp4_e2m1/torchao-0.18-{rule}", x, s.view(torch().uint8).numpy(), pairs(c.view(torch().uint8).numpy()))
    if rule != "ceil":
        s, c = mx.to_mx(torch().from_numpy(x.copy()), torch().float8_e4m3fn, 32, mode)
        codes = c.view(torch().uint8).numpy()
        same(f"mxfp8_e4m3/torchao-0.18-{rule}", x, s.view(torch().uint8).numpy(), codes)


@pytest.mark.parametrize("kind", list(sets(16)))
def test_torchao_nvfp4(kind) -> None:
    """NVFP4 of torchao, with and without the scale of the tensor; the NaN of a tensor of zeros has a sign in its byte."""
    (nv,) = installed("torchao", "torchao.prototype.mx_formats.nvfp4_tensor")
    x = sets(16)[kind]
    t = torch().from_numpy(x.copy())
    s, c = nv.nvfp4_quantize(t, 16, None)
    same("nvfp4_one_level/torchao-0.18", x, s.view(torch().uint8).numpy(), pairs(c.view(torch().uint8).numpy()))
    T = nv.per_tensor_amax_to_scale(t.abs().max())
    s, c = nv.nvfp4_quantize(t, 16, T)
    e = same("nvfp4/torchao-0.18", x, s.view(torch().uint8).numpy() & 127, pairs(c.view(torch().uint8).numpy()))
    assert np.float32(e.tensor_scale) == T.numpy()


@pytest.mark.parametrize("kind", list(sets(32)))
def test_modelopt(kind) -> None:
    """MXFP4 and NVFP4 of NVIDIA's model optimizer."""
    mx, nv = installed(
        "modelopt", *(f"modelopt.torch.quantization.qtensor.{part}_tensor" for part in ("mxfp4", "nvfp4"))
    )
    x = sets(32)[kind]
    q, s = mx.MXFP4QTensor.quantize(torch().from_numpy(x.copy()), 32)
    same("mxfp4_e2m1/modelopt-0.47", x, s.numpy(), pairs(q._quantized_data.numpy().reshape(len(x), -1)))
    x = sets(16)[kind]
    q, s, T = nv.NVFP4QTensor.quantize(torch().from_numpy(x.copy()), 16)
    codes = pairs(q._quantized_data.numpy().reshape(len(x), -1))
    e = same("nvfp4/modelopt-0.47", x, s.view(torch().uint8).numpy() & 127, codes)
    assert np.float32(e.tensor_scale) == T.numpy()


@pytest.mark.parametrize("kind", ["gaussian", "bfloat16", "weights", "zeros"])
def test_gguf(kind) -> None:
    """MXFP4, Q8_0 and Q4_0 of gguf, short of the scales that wrap around; elements i and i + 16 share a byte."""
    (quants,) = installed("gguf", "gguf.quants")
    kinds = importlib.import_module("gguf").GGMLQuantizationType
    x = sets(32)[kind]
    y = np.asarray(quants.quantize(x.copy(), kinds.MXFP4)).reshape(len(x), 17)
    e = same("mxfp4_e2m1/gguf-0.19", x, y[:, 0], np.concatenate([y[:, 1:] & 15, y[:, 1:] >> 4], 1))
    assert np.array_equal(to_ggml(e), y)
    y = np.asarray(quants.quantize(x.copy(), kinds.Q8_0)).reshape(len(x), 34)
    e = same("q8_0/gguf-0.19", x, y[:, :2].copy().view(np.uint16), y[:, 2:])
    assert np.array_equal(to_ggml(e), y)
    y = np.asarray(quants.quantize(x.copy(), kinds.Q4_0)).reshape(len(x), 18)
    codes = np.concatenate([y[:, 2:] & 15, y[:, 2:] >> 4], 1) ^ 8  # offset binary
    e = same("q4_0/gguf-0.19", x, y[:, :2].copy().view(np.uint16), codes)
    assert np.array_equal(to_ggml(e), y)
    back = quants.dequantize(y.reshape(-1), kinds.Q4_0).reshape(x.shape)
    assert np.array_equal(e.decode(), back)


@pytest.mark.parametrize("kind", ["gaussian", "bfloat16", "weights", "edges", "zeros"])
def test_mlx(kind) -> None:
    """MXFP4 and NVFP4 of MLX on a CPU; of NVFP4 short of quotients beyond an integer of 32 bits, which become 0 there."""
    (mx,) = installed("mlx", "mlx.core")
    x = sets(32)[kind]
    w, s = mx.quantize(mx.array(x), mode="mxfp4", group_size=32, bits=4)
    same("mxfp4_e2m1/mlx-0.32", x, np.array(s), pairs(np.array(w)))
    if kind != "edges":
        w, s = mx.quantize(mx.array(x), mode="nvfp4", group_size=16, bits=4)
        same("nvfp4_one_level/mlx-0.32", x, np.array(s), pairs(np.array(w)))


@pytest.mark.parametrize("kind", list(sets(16)))
def test_compressed_tensors(kind) -> None:
    """Scales of compressed-tensors: MXFP4, MXFP8 and NVFP4, the last of float32 and bfloat16 tensors."""
    helpers, mx, quantization = installed(
        "compressed_tensors", "compressed_tensors.quantization.utils.helpers",
        "compressed_tensors.quantization.utils.mxfp_utils", "compressed_tensors.quantization",
    )  # fmt: skip
    x = sets(32)[kind]
    m = torch().from_numpy(x.copy()).abs().amax(1)
    for bits, name in ((4, "mxfp4_e2m1"), (8, "mxfp8_e4m3")):
        s = mx.generate_mx_scales(m, bits).clamp(0, 255).to(torch().uint8).numpy()
        assert np.array_equal(qsim.encode(x, f"{name}/compressed-tensors-0.20").scales[:, 0], s)
    f8 = torch().float8_e4m3fn
    args = quantization.QuantizationArgs(
        num_bits=4, type="float", strategy="tensor_group", symmetric=True, group_size=16, scale_dtype=f8, zp_dtype=f8
    )
    x = sets(16)[kind]
    for dtype, suffix in ((torch().float32, ""), (torch().bfloat16, "-bfloat16")):
        t = torch().from_numpy(x.copy()).to(dtype)
        m = t.abs().amax(1)
        g = helpers.generate_gparam(-m.max(), m.max())
        s, _ = helpers.calculate_qparams(-m, m, args, global_scale=g)
        e = qsim.encode(t.float().numpy(), f"nvfp4/compressed-tensors-0.20{suffix}")
        assert np.float32(e.tensor_scale) == g.numpy()
        assert np.array_equal(e.scales[:, 0], s.to(f8).view(torch().uint8).numpy())


def test_the_tensor_scales_of_compressed_tensors() -> None:
    """The scale of every bfloat16 tensor maximum of two binades: a bfloat16 reciprocal, times 2688, rounded to bfloat16."""
    (helpers,) = installed("compressed_tensors", "compressed_tensors.quantization.utils.helpers")
    for A in (np.arange(0x3F80, 0x4080, dtype=np.uint32) << np.uint32(16)).view(np.float32):
        for dtype, suffix in ((torch().float32, ""), (torch().bfloat16, "-bfloat16")):
            one = torch().tensor(float(A)).to(dtype)
            x = np.full((1, 16), A)
            e = qsim.encode(x, f"nvfp4/compressed-tensors-0.20{suffix}")
            assert e.tensor_scale == helpers.generate_gparam(-one, one).item(), float(A)


@pytest.mark.parametrize("kind", list(sets(64)))
def test_bitsandbytes(kind) -> None:
    """NF4 of bitsandbytes in blocks of 64; the first code is in the high bits."""
    (functional,) = installed("bitsandbytes", "bitsandbytes.functional")
    x = sets(64)[kind]
    q, state = functional.quantize_4bit(torch().from_numpy(x.copy()), blocksize=64, quant_type="nf4")
    codes = qsim.unpack(q.numpy().reshape(len(x), -1), 4, 64, order="big")
    same("nf4/bitsandbytes-0.50", x, state.absmax.numpy().view(np.uint32), codes)
