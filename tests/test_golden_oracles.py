"""Models against the pinned implementations that they are of: tox -e oracles installs these, elsewhere the tests skip."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import shutil
import subprocess
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import NO_COMPILER, ORACLES, no_package
from strategies import ML_DTYPES

import qsim
from qsim.golden import Converter, Operands, every, model, operands
from qsim.golden.directed import directed
from qsim.models import models


def codes(y: Any) -> np.ndarray:
    """Return the codes of an array of whatever type."""
    y = np.asarray(y)
    return y.astype(np.int64) if "int" in str(y.dtype) else y.view(f"u{y.dtype.itemsize}").astype(np.int64)


def by_jax(x: np.ndarray, name: str) -> np.ndarray:
    """Return what JAX makes of an array, compiled."""
    import jax
    import jax.numpy as jnp

    return codes(jax.jit(lambda v: v.astype(getattr(jnp, name)))(x))


def onnx_model(name: str, *, back: bool = False) -> Any:
    """Return a model of one node, Cast or QuantizeLinear, and with `back` of a second that returns to float32."""
    from onnx import TensorProto as T
    from onnx import helper as h

    base = name.replace("_nosat", "").replace("cast_", "").replace("quantize_", "")
    kind = {"e4m3fn": T.FLOAT8E4M3FN, "e4m3fnuz": T.FLOAT8E4M3FNUZ, "e5m2": T.FLOAT8E5M2, "e5m2fnuz": T.FLOAT8E5M2FNUZ,
            "int8": T.INT8, "uint8": T.UINT8, "int4": T.INT4, "uint4": T.UINT4, "e2m1": T.FLOAT4E2M1}[base]  # fmt: skip
    initial = [h.make_tensor("s", T.FLOAT, [], [1.0])]
    if name.startswith("quantize_"):
        nodes = [h.make_node("QuantizeLinear", ["x", "s"], ["y"], output_dtype=kind)]
    else:
        nodes = [h.make_node("Cast", ["x"], ["y"], to=kind, **({"saturate": 0} if name.endswith("_nosat") else {}))]
    if back:
        nodes.append(h.make_node("DequantizeLinear", ["y", "s"], ["z"]))
    output = h.make_tensor_value_info("z" if back else "y", T.FLOAT if back else kind, [None])
    graph = h.make_graph(nodes, "g", [h.make_tensor_value_info("x", T.FLOAT, [None])], [output], initial)
    return h.make_model(graph, opset_imports=[h.make_opsetid("", 25)], ir_version=11)


def by_onnx(x: np.ndarray, name: str) -> np.ndarray:
    """Return what the reference evaluator of ONNX makes of an array."""
    from onnx.reference import ReferenceEvaluator

    return codes(ReferenceEvaluator(onnx_model(name)).run(None, {"x": x})[0])


def by_onnxruntime(x: np.ndarray, name: str) -> np.ndarray:
    """Return the values that ONNX Runtime makes of an array, read back by itself: it gives no codes of most types."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    program = onnx_model(name, back=True).SerializeToString()
    session = onnxruntime.InferenceSession(program, options, providers=["CPUExecutionProvider"])
    return session.run(None, {"x": x})[0]


def by_tinygrad(x: np.ndarray, name: str) -> np.ndarray:
    """Return what tinygrad makes of numbers."""
    from tinygrad.dtype import dtypes, float_to_fp8

    return np.array([float_to_fp8(float(v), getattr(dtypes, name)) for v in x], np.int64)


def by_tensorstore(x: np.ndarray, name: str) -> np.ndarray:
    """Return what TensorStore makes of an array."""
    import tensorstore

    return codes(tensorstore.cast(tensorstore.array(x), getattr(tensorstore, name)).read().result())


def by_faiss(x: np.ndarray, name: str) -> np.ndarray:
    """Return what the bfloat16 quantizer of faiss makes of an array."""
    import faiss

    quantizer = faiss.ScalarQuantizer(1, getattr(faiss.ScalarQuantizer, name.replace("qt_", "QT_")))
    return quantizer.compute_codes(x.reshape(-1, 1)).view("<u2").reshape(-1).astype(np.int64)


def by_numcodecs(x: np.ndarray, name: str) -> np.ndarray:
    """Return the upper halves of what BitRound makes of an array."""
    import numcodecs

    found = numcodecs.BitRound(keepbits=int(name.removeprefix("bitround"))).encode(x.copy())
    return (np.frombuffer(found, np.uint32) >> 16).astype(np.int64)


def by_apytypes(x: np.ndarray, name: str) -> np.ndarray:
    """Return what APyFixed makes of numbers."""
    import apytypes

    return np.array([apytypes.APyFixed.from_float(float(v), int_bits=4, frac_bits=4).to_bits() for v in x])


def by_fxpmath(x: np.ndarray, name: str) -> np.ndarray:
    """Return what Fxp makes of an array."""
    import fxpmath

    return np.asarray(fxpmath.Fxp(x, True, 8, 4, rounding=name.partition("_")[0]).val).astype(np.int64) & 255


def by_spfpm(x: np.ndarray, name: str) -> np.ndarray:
    """Return what FXnum makes of numbers."""
    from FixedPoint import FXfamily, FXnum

    family = FXfamily(4, 4)
    return np.array([int(FXnum(float(v), family).scaledval) & 255 for v in x])


CONVERTERS: dict[str, Callable[[np.ndarray, str], np.ndarray]] = {
    "jax": by_jax, "onnx": by_onnx, "onnxruntime": by_onnxruntime, "tinygrad": by_tinygrad, "tensorstore": by_tensorstore,
    "faiss-cpu": by_faiss, "numcodecs": by_numcodecs, "apytypes": by_apytypes, "fxpmath": by_fxpmath, "spfpm": by_spfpm,
}  # fmt: skip
SLOW = ("tinygrad", "apytypes", "spfpm")
"""Packages that convert one number at a time: of these a part of the inputs is enough."""


def package_of(name: str) -> str:
    """Return the package of a model."""
    return name.partition("/")[0].rpartition("-")[0]


def inputs(converter: Converter) -> Operands:
    """Return the directed inputs, and of a converter of float32 all float16 and all bfloat16 numbers, too."""
    kind = converter.input or "float32"
    bits = directed(converter, kind)[0].bits
    if kind == "float32":
        bits = np.concatenate([bits, *(operands(every(half).exact, kind).bits for half in ("float16", "bfloat16"))])
    return Operands(kind, np.unique(bits))


@pytest.mark.parametrize("name", [name for name in models() if package_of(name) in CONVERTERS])
def test_the_package_is_its_model(name: str) -> None:
    """Code by code, NaNs included, as far as the package tells them apart."""
    package = package_of(name)
    if importlib.util.find_spec(ORACLES[package]) is None:
        pytest.skip(no_package(ORACLES[package]))
    version = name.partition("/")[0].rpartition("-")[2]
    installed = importlib.metadata.version(package)
    assert (installed + ".").startswith(version + "."), f"the entry is of {version}, and {installed} is installed"
    converter = model(name)
    assert converter.entry.status == "oracle-verified"
    x = inputs(converter)
    if package in SLOW:
        x = x[:: max(len(x) // 2000, 1)]
        if package != "tinygrad":  # infinities and NaNs are errors there, and so is an overflow in spfpm
            x = x[np.abs(x.exact) < (7.9 if package == "spfpm" else np.inf)]
    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore")
        theirs = CONVERTERS[package](x.values, name.partition("/")[2])
    if package == "onnx" and name.endswith(("cast_int4", "cast_uint4")) and ML_DTYPES >= (0, 7):
        converter = model(f"ml_dtypes-0.7/{name.rpartition('_')[2]}")  # by which that evaluator casts
    ours = converter.convert(x)
    if theirs.dtype.kind == "f":
        values = qsim.decode(ours.astype(np.uint8), converter.format)
        differ = (values != theirs) & ~(np.isnan(values) & np.isnan(theirs)) | (
            (np.signbit(values) != np.signbit(theirs)) & (values == 0)
        )
    else:
        differ = theirs & ((1 << converter.format.bits) - 1) != ours
    assert not differ.any(), [(hex(x.bits[at]), theirs[at], ours[at]) for at in np.flatnonzero(differ)[:3]]


# --- NVIDIA's headers ------------------------------------------------------------------------------------------------

CUDA = [name for name in models() if package_of(name) == "cuda"]


@pytest.fixture(scope="module")
def header(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a program of the headers, compiled for the host."""
    if importlib.util.find_spec("nvidia") is None:
        pytest.skip(no_package(ORACLES["cuda"]))
    if shutil.which("g++") is None:
        pytest.skip(NO_COMPILER)
    (root,) = importlib.util.find_spec("nvidia").submodule_search_locations
    include = Path(root) / "cu13/include"
    path = tmp_path_factory.mktemp("cuda") / "convert"
    source = Path(__file__).with_name("cuda_header.cpp")
    argv = ["g++", "-O2", "-std=c++17", f"-I{include}", f"-I{include}/cccl", str(source), "-o", str(path)]
    subprocess.run(argv, check=True)
    return path


def by_header(header: Path, name: str, x: Operands) -> np.ndarray:
    """Return the codes that the header makes."""
    if x.kind == "bfloat16":
        x = Operands("float32", x.bits << np.uint64(16))
    given = x.bits.astype("<u8" if x.kind == "float64" else "<u4").tobytes()
    done = subprocess.run([str(header), name.partition("/")[2]], input=given, capture_output=True, check=True)
    return np.frombuffer(done.stdout, np.uint8).astype(np.int64)


@pytest.mark.parametrize("name", CUDA)
def test_the_header_is_its_model(name: str, header: Path) -> None:
    """Each conversion of the header, for the directed inputs and all numbers of 16 bits."""
    converter = model(name)
    x = inputs(converter)
    theirs, ours = by_header(header, name, x), converter.convert(x)
    differ = theirs != ours
    assert not differ.any(), [(hex(x.bits[at]), theirs[at], ours[at]) for at in np.flatnonzero(differ)[:3]]


@pytest.mark.exhaustive
@pytest.mark.parametrize("name", [name for name in CUDA if model(name).input == "float32"])
def test_the_header_is_its_model_for_all_float32(name: str, header: Path) -> None:
    """All 2^32 patterns."""
    converter = model(name)
    for start in range(0, 1 << 32, 1 << 24):
        x = Operands("float32", np.arange(start, start + (1 << 24), dtype=np.uint64))
        assert (by_header(header, name, x) == converter.convert(x)).all(), hex(start)
