"""Model files: `qsim quantize` and `qsim decode` of .safetensors, held to the package's own reader and to `qsim.quantize`."""

from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest
import safetensors
from command import refused
from safetensors.numpy import save_file

import qsim
from qsim.cli import main
from qsim.tensors import FLOATS, TensorFile

pytestmark = pytest.mark.usefixtures("here")

RNG = np.random.default_rng(0)
W = RNG.standard_normal((6, 40)).astype(np.float32)
MODEL = {
    "a.w": W,
    "a.half": (W[:, :8] * 3).astype(np.float16),
    "b.w": (RNG.standard_normal((3, 33)) * 0.02).astype(ml_dtypes.bfloat16),
    "wide": RNG.standard_normal((2, 5)),
    "norm": np.ones(40, np.float32),
    "scalar": np.array(1.7, np.float32),
    "ids": np.arange(7),
    "empty": np.zeros((0, 4), np.float32),
}


@pytest.fixture
def model(here: Path) -> Path:
    """Write a model file with the package."""
    save_file(MODEL, here / "model.safetensors", metadata={"format": "pt"})
    return here / "model.safetensors"


def tensors(path: str | Path) -> dict[str, dict[str, Any]]:
    """Return type, shape and bytes of the tensors of a file, as the package reads them."""
    return dict(safetensors.deserialize(Path(path).read_bytes()))


def array(path: str | Path, name: str, kind: Any) -> np.ndarray:
    """Return a tensor in a type of NumPy or ml_dtypes."""
    entry = tensors(path)[name]
    return np.frombuffer(bytes(entry["data"]), kind).reshape(entry["shape"])


@pytest.mark.usefixtures("model")
def test_values_are_those_of_quantize() -> None:
    """Each tensor of floats holds what `qsim.quantize` makes of it in its own type; others, and metadata, are as before."""
    assert main(["quantize", "model.safetensors", "-f", "e4m3", "--scale", "absmax", "-o", "out.safetensors"]) == 0
    for name, x in MODEL.items():
        y = array("out.safetensors", name, x.dtype)
        expected = x if name == "ids" else qsim.quantize(x, "e4m3", scale="absmax")
        assert y.tobytes() == np.asarray(expected).tobytes(), name
    with safetensors.safe_open("out.safetensors", "np") as file:
        assert file.metadata()["format"] == "pt"
        assert json.loads(file.metadata()["qsim"])["rounding"]["format"] == "float8_e4m3fn"


ROUNDINGS = [
    "-f e4m3", "-f e5m2 --scale pow2", "-f int8 --scale absmax --per channel", "-f int4 --scale absmax --per token",
    "-f nf4 --scale absmax", "-f e2m1 --scale 0.25", "-f bfloat16", "-f int8:SR --seed 3 --scale absmax", "-f Q3.4",
    "-f e4m3 -r SRA --sr-bits 6 --seed 9", "-f e3m2 -r SRC(4) --seed 9", "-f float16 --scale absmean",
]  # fmt: skip
BLOCKS = [
    "-f mxfp4_e2m1", "-f mxfp8_e5m2 --scale-rule rceil", "-f nvfp4 --tensors a.w --tensors b.*", "-f mxint8",
    "-f mxfp6_e2m3 --axis 0", "-f mxfp4_e2m1:SR --seed 5", "-f nvfp4/torchao-0.18 --tensors *.w",
]  # fmt: skip


@pytest.mark.usefixtures("model")
@pytest.mark.parametrize("options", ROUNDINGS + BLOCKS)
def test_codes_are_decoded_to_the_same_values(options: str) -> None:
    """What `qsim decode` makes of --codes is what `qsim quantize` writes without, bit for bit, in the same types."""
    argv = ["quantize", "model.safetensors", *options.split()]
    assert main([*argv, "-o", "values.safetensors"]) == 0
    assert main([*argv, "--codes", "-o", "codes.safetensors"]) == 0
    assert main(["decode", "codes.safetensors", "-o", "decoded.safetensors"]) == 0
    values, decoded = tensors("values.safetensors"), tensors("decoded.safetensors")
    assert values.keys() == decoded.keys() == MODEL.keys()
    rounded = json.loads(TensorFile("codes.safetensors").metadata["qsim"])["tensors"]
    for name in rounded:
        assert values[name] == decoded[name], name
    assert values["ids"] == decoded["ids"]


@pytest.mark.usefixtures("model")
def test_codes_have_the_types_of_the_file() -> None:
    """E4M3 and E8M0 have types of their own; narrower codes are packed along the last axis; scales stand beside."""
    assert main(["quantize", "model.safetensors", "-f", "mxfp8_e4m3", "--codes", "-o", "8.safetensors"]) == 0
    assert main(["quantize", "model.safetensors", "-f", "nvfp4", "--codes", "-o", "4.safetensors"]) == 0
    eight, four = tensors("8.safetensors"), tensors("4.safetensors")
    e = qsim.encode(W, "mxfp8_e4m3")
    assert (eight["a.w"]["dtype"], eight["a.w"]["shape"]) == ("F8_E4M3", [6, 40])
    assert bytes(eight["a.w"]["data"]) == e.codes.tobytes()
    assert (eight["a.w_scale"]["dtype"], eight["a.w_scale"]["shape"]) == ("F8_E8M0", [6, 2])
    assert bytes(eight["a.w_scale"]["data"]) == e.scales.tobytes()
    e = qsim.encode(W, "nvfp4")
    assert (four["a.w"]["dtype"], four["a.w"]["shape"]) == ("U8", [6, 20])
    assert bytes(four["a.w"]["data"]) == e.pack()[0].tobytes()
    assert (four["a.w_scale"]["dtype"], four["a.w_scale"]["shape"]) == ("F8_E4M3", [6, 3])
    assert array("4.safetensors", "a.w_tensor_scale", "f4") == np.float32(e.tensor_scale)
    assert four["scalar"]["dtype"] == "F32"  # without an axis there are no blocks, and nothing to pack


@pytest.mark.usefixtures("model")
def test_every_tensor_is_aligned() -> None:
    """A tensor begins at a multiple of its element's bytes, which PyTorch's reader asks for."""
    assert main(["quantize", "model.safetensors", "-f", "mxfp4_e2m1", "--codes", "-o", "out.safetensors"]) == 0
    data = Path("out.safetensors").read_bytes()
    first = 8 + struct.unpack("<Q", data[:8])[0]
    assert first % 8 == 0
    size = {"F64": 8, "I64": 8, "F32": 4, "F16": 2, "BF16": 2}
    for tensor in TensorFile("out.safetensors").tensors.values():
        assert tensor.begin % size.get(tensor.dtype, 1) == 0


@pytest.mark.usefixtures("model")
def test_random_words_have_a_stream_a_tensor() -> None:
    """Tensor i, in the order of the file, takes the words of stream T + i."""
    argv = ["-f", "e4m3:SR", "--seed", "4", "--stream", "10", "-o", "out.safetensors"]
    assert main(["quantize", "model.safetensors", *argv]) == 0
    for number, name in enumerate(TensorFile("model.safetensors").tensors):
        x = MODEL[name]
        if name != "ids" and x.dtype != ml_dtypes.bfloat16:
            expected = qsim.quantize(x, "e4m3", "SR", key=qsim.Key(4, 10 + number))
            assert array("out.safetensors", name, x.dtype).tobytes() == np.asarray(expected).tobytes()


def test_the_report_counts(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Clipped, lost and NaN elements and the error are those of a tensor written down; the picture is a bar a tensor."""
    x = np.array([[1000.0, -500.0, 1e-9, 3.0, np.nan, np.inf, 0.0, 1.0]], np.float32)
    save_file({"x": x, "fine": np.ones((1, 8), np.float32)}, here / "m.safetensors")
    assert main(["quantize", "m.safetensors", "-f", "e4m3", "-o", "o.safetensors", "--json"]) == 0
    fine, row = json.loads(capsys.readouterr().out)["tensors"]
    assert (row["clipped"], row["underflowed"], row["nan"], row["elements"]) == (2, 1, 1, 8)
    finite = np.isfinite(x)
    y = qsim.quantize(x, "e4m3")[finite].astype(float)
    error = np.sqrt(((y - x[finite]) ** 2).sum() / (x[finite].astype(float) ** 2).sum())
    assert row["error"] == pytest.approx(error, rel=1e-12)  # of ten operations in float64
    assert fine["error"] == 0
    assert main(["quantize", "m.safetensors", "-f", "e4m3", "-o", "o.safetensors", "--report"]) == 0
    out = capsys.readouterr().out
    assert any(line.startswith("x ") and line.endswith("#" * 20) for line in out.splitlines())
    assert "rounded  2 of 2 tensors, 16 elements" in out


def test_types_of_eight_bits_are_read(here: Path) -> None:
    """Every type of floats that the format has comes in as its numbers."""
    codes = np.arange(256, dtype=np.uint8)
    header = {"t": {"dtype": "", "shape": [256], "data_offsets": [0, 256]}}
    for dtype, name in FLOATS.items():
        if qsim.get_format(name).bits != 8:
            continue
        header["t"]["dtype"] = dtype
        text = json.dumps(header).encode()
        (here / "x.safetensors").write_bytes(struct.pack("<Q", len(text)) + text + codes.tobytes())
        assert np.array_equal(TensorFile("x.safetensors").read("t"), qsim.decode(codes, name), equal_nan=True)


GOOD = {"t": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}}
BROKEN = {
    "empty": b"",
    "short": b"\x02\x00",
    "length": struct.pack("<Q", 1 << 40) + b"{}",
    "text": struct.pack("<Q", 4) + b"{a:}",
    "nested": struct.pack("<Q", 100_000) + b"[" * 100_000,
    "list": struct.pack("<Q", 2) + b"[]",
    **{
        name: struct.pack("<Q", len(text)) + text + bytes(8)
        for name, text in {
            "key": json.dumps({"t": {"dtype": "F32", "shape": [2]}}).encode(),
            "shape": json.dumps({"t": GOOD["t"] | {"shape": [3]}}).encode(),
            "sign": json.dumps({"t": GOOD["t"] | {"shape": [-2]}}).encode(),
            "fraction": json.dumps({"t": GOOD["t"] | {"shape": [2.0]}}).encode(),
            "type": json.dumps({"t": GOOD["t"] | {"dtype": 4}}).encode(),
            "gap": json.dumps({"t": GOOD["t"] | {"shape": [1], "data_offsets": [4, 8]}}).encode(),
            "overlap": json.dumps({"s": GOOD["t"], **GOOD}).encode(),
            "end": json.dumps({"t": GOOD["t"] | {"shape": [1], "data_offsets": [0, 4]}}).encode(),
            "metadata": json.dumps({"__metadata__": {"a": 1}, **GOOD}).encode(),
        }.items()
    },
}


@pytest.mark.parametrize("name", BROKEN)
def test_broken_files_are_refused(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    """A file that is none, or not as long as its header says, is refused by name, and nothing is written."""
    Path("x.safetensors").write_bytes(BROKEN[name])
    told = refused(capsys, "quantize", "x.safetensors", "-f", "e4m3", "-o", "y.safetensors")
    assert "x.safetensors cannot be read as .safetensors (" in told
    assert [path.name for path in Path().iterdir()] == ["x.safetensors"]


@pytest.mark.usefixtures("model")
@pytest.mark.parametrize(
    ("line", "sentence"),
    [
        ("quantize model.safetensors -f e4m3 -o y.npy", "y.npy: the result of a model file is one too"),
        ("quantize model.safetensors -f e4m3 --scale-rule floor -o y.safetensors", "are for block formats"),
        (
            "quantize model.safetensors -f mxfp4_e2m1 --scale absmax -o y.safetensors",
            "--scale does not go with a block format",
        ),
        ("quantize model.safetensors -f e4m3 --tensors z* -o y.safetensors", "--tensors 'z*' fits no tensor of floats"),
        ("quantize model.safetensors -f e4m3 --pack -o y.safetensors", "--pack is for arrays"),
        ("quantize model.safetensors -f e4m3:SR -o y.safetensors", "needs random words; give --seed S"),
        ("quantize gone.safetensors -f e4m3 -o y.safetensors", "gone.safetensors: cannot be read (No such file"),
        ("quantize x.txt -f e4m3 --report -o y.txt", "--report is for model files, .safetensors; drop it"),
        ("decode model.safetensors -o y.safetensors", "its metadata do not say what the codes are"),
        ("decode model.safetensors -f e4m3 -o y.safetensors", "--format is for arrays"),
        ("decode x.npy -o y.npy", "the codes of an array do not say their format; give -f FORMAT"),
    ],
)
def test_refusals(line: str, sentence: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Options that do not fit are refused in a sentence, and nothing is written."""
    assert sentence in refused(capsys, *line.split())
    assert [path.name for path in Path().iterdir()] == ["model.safetensors"]


@pytest.mark.usefixtures("model")
def test_a_file_may_take_its_own_place() -> None:
    """OUT may be IN: tensors are read before the file is replaced."""
    assert main(["quantize", "model.safetensors", "-f", "e4m3", "-o", "other.safetensors"]) == 0
    assert main(["quantize", "model.safetensors", "-f", "e4m3", "-o", "model.safetensors"]) == 0
    assert Path("model.safetensors").read_bytes() == Path("other.safetensors").read_bytes()
