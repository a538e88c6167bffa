"""Models of other packages: each makes a quantizer, and each that is tested is the package, where that is installed."""

from __future__ import annotations

import importlib.metadata
import json
import math
import re
from collections.abc import Callable
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest
from conftest import NO_TORCH
from enumeration import exactly, sixteen_bits
from packaging.version import Version
from strategies import BFLOAT16, FLOAT16

import qsim
from qsim import InputError, Quantizer
from qsim.cli import main
from qsim.formats import get_format
from qsim.models import STATUSES, Layout, Model, get_model, layouts, load_models, models

NEW = "[[model]]\nname = 'n'\nformat = 'e4m3'\nmode = 'RNE'\nsaturation = 'SatFinite'\n"
HEAD = "package = 'p'\nversion = '1'\nstatus = 'run'\nsource = 's'\n"


def test_every_model_is_a_quantizer() -> None:
    """Each name says package and version, each entry names a format by its own name, and the words go together."""
    assert len(models()) > 200
    for name, model in models().items():
        assert name == model.name
        assert re.fullmatch(r"[a-z0-9_-]+-[a-z0-9.]+/[a-z0-9_.@-]+", name)
        assert get_format(model.format).name == model.format
        assert model.status in STATUSES
        if model.rule:
            with pytest.raises(InputError, match="is more than a rounding"):
                Quantizer.preset(name)
            continue
        q = Quantizer.preset(name)
        ties_away = q.format.ties == "away" and model.mode == "RNE"
        assert (q.format.name, q.mode.name) == (model.format, "RNA" if ties_away else model.mode)
        assert (str(q.saturation), q.nan) == (model.saturation, model.nan or q.format.nan)
        assert q.nan == "canonical" or q.format.has_neg_zero  # else there is no sign to keep
    with pytest.raises(
        InputError, match=r"no model is called 'torch/float8_e4m3fn'; did you mean torch-2.13/float8_e4m3fn"
    ):
        Quantizer.preset("torch/float8_e4m3fn")
    with pytest.raises(InputError, match="no model is called 3"):
        get_model(3)  # type: ignore[arg-type]


# --- Packages that are installed -------------------------------------------------------------------------------------


def by_ml_dtypes(x: np.ndarray, name: str) -> np.ndarray:
    """Return the codes that ml_dtypes makes."""
    with np.errstate(all="ignore"):
        y = x.astype(getattr(ml_dtypes, name))
    bits = get_format(name).bits
    return y.view(f"u{y.dtype.itemsize}") & ((1 << bits) - 1)


def by_torch(x: np.ndarray, name: str) -> np.ndarray:
    """Return the codes that PyTorch makes."""
    torch = pytest.importorskip("torch", reason=NO_TORCH)
    words = torch.from_numpy(x.view(f"i{x.dtype.itemsize}"))
    return words.view(getattr(torch, x.dtype.name)).to(getattr(torch, name)).view(torch.uint8).numpy()


CONVERTERS: dict[str, Callable[[np.ndarray, str], np.ndarray]] = {"ml_dtypes": by_ml_dtypes, "torch": by_torch}


def named(model: Model) -> tuple[str, str, str]:
    """Return the package of an entry, its version, and the name of the type."""
    head, _, name = model.name.partition("/")
    package, _, version = head.rpartition("-")
    return package, version, name


def entries(package: str) -> list[Model]:
    """Return the entries of the installed version of a package, or of the newest one before it, or of the oldest."""
    found = [model for model in models().values() if named(model)[0] == package]
    versions = sorted({Version(named(model)[1]) for model in found})
    try:
        here = Version(importlib.metadata.version(package))
    except importlib.metadata.PackageNotFoundError:
        here = versions[-1]
    chosen = max((version for version in versions if version <= here), default=versions[0])
    return [model for model in found if Version(named(model)[1]) == chosen]


TESTED = [model for package in CONVERTERS for model in entries(package)]


def kinds(x: np.ndarray) -> dict[str, np.ndarray]:
    """Return where the inputs are of the kinds that an entry may name."""
    subnormal = (np.abs(x) < 2.0**-126) & (x != 0)  # of float32
    return {"nan": np.isnan(x), "infinity": np.isinf(x), "subnormal": subnormal, "finite": np.isfinite(x) & ~subnormal}


def same_version(model: Model) -> bool:
    """Return whether the installed package has the version of the entry; another one may have mended a difference."""
    package, version, _ = named(model)
    return (importlib.metadata.version(package) + ".").startswith(version + ".")


@pytest.mark.parametrize("kind", [FLOAT16, BFLOAT16, np.dtype(np.float32)], ids=str)
@pytest.mark.parametrize("model", TESTED, ids=lambda model: model.name)
def test_the_package_is_its_model(model: Model, kind: np.dtype) -> None:
    """All numbers of 16 bits, as such and as float32, have the same codes but for the inputs that the entry names."""
    package, _, name = named(model)
    if kind.itemsize == 2:
        x = sixteen_bits(kind)
    else:
        x = np.concatenate([exactly(sixteen_bits(k)) for k in (FLOAT16, BFLOAT16)])
        with np.errstate(invalid="ignore"):  # of signalling NaNs
            x = x.astype(np.float32)
        x = np.concatenate(
            [x, np.random.default_rng(0).integers(0, 1 << 32, 1 << 16, np.uint64).astype(np.uint32).view(np.float32)]
        )
    if kind.name == name:  # a type that is cast to itself keeps its NaNs as they are
        x = x[~np.isnan(exactly(x))]
    theirs = CONVERTERS[package](x, name)
    ours = qsim.encode(x, Quantizer.preset(model.name))
    differ = theirs != ours
    for kind_of, here in kinds(exactly(x)).items():
        if kind_of not in model.differs:
            assert not (differ & here).any(), (kind_of, x[differ & here][:3])
        elif same_version(model) and here.any():
            assert (differ & here).any() or kind == FLOAT16, f"{kind_of} no longer differs; its line can go"


@pytest.mark.parametrize(
    "model", [model for model in TESTED if "float64" in model.differs], ids=lambda model: model.name
)
def test_float64_is_rounded_twice(model: Model) -> None:
    """Just above a tie a float64 becomes a float32 first, which is the tie."""
    package, _, name = named(model)
    fmt = get_format(model.format)
    ordinal = fmt.ordinal(1.0) + fmt.ordinal(1.0) % 2  # an even code, from which a tie does not go up
    tie = float((fmt.value(ordinal) + fmt.value(ordinal + 1)) / 2)
    x = np.array([tie * (1 + 2.0**-40), tie * (1 + 2.0**-20)])
    q = Quantizer.preset(model.name)
    theirs = CONVERTERS[package](x, name) if package != "torch" else torch_of_float64(x, name)
    if same_version(model):
        assert theirs.tolist() == qsim.encode(x.astype(np.float32), q).tolist() != qsim.encode(x, q).tolist()


def torch_of_float64(x: np.ndarray, name: str) -> np.ndarray:
    """Return the codes that PyTorch makes of float64."""
    torch = pytest.importorskip("torch", reason=NO_TORCH)
    return torch.from_numpy(x).to(getattr(torch, name)).view(torch.uint8).numpy()


# --- What was seen of the others -------------------------------------------------------------------------------------

INF, NAN = math.inf, math.nan
SEEN: dict[str, dict[float, float]] = {
    "torch-2.13/float8_e4m3fn": {464: 448, 465: 448, 1e6: 448, INF: 448, NAN: NAN},
    "torch-2.13/float8_e4m3fnuz": {500: NAN, INF: NAN},
    "torch-2.13/float8_e5m2": {61440: INF, 1e6: INF},
    "ml_dtypes-0.6/float8_e4m3fn": {464: 448, 465: NAN, INF: NAN},
    "jax-0.10/float8_e4m3fn": {464: 448, 465: NAN, INF: NAN},
    "onnxruntime-1.32/e4m3fn": {500: 448, INF: 448},
    "onnxruntime-1.32/e5m2": {1e6: 57344, INF: 57344},
    "onnx-1.23/e4m3fn_nosat": {465: NAN, INF: NAN},
    "openvino-2026.4/f8e4m3": {465: NAN, 1e6: NAN, INF: NAN},
    "openvino-2026.4/f8e5m2": {61440: INF, 1e6: INF},
    "tensorstore-0.1/float8_e4m3fn": {500: NAN, 1e9: NAN},
    "tinygrad-0.14/fp8e4m3": {500: 448, 1e9: 448, INF: NAN, -INF: NAN, NAN: NAN},
    "tinygrad-0.14/fp8e5m2": {1e9: 57344, 61440: 57344, INF: INF},
    "mlx-0.32/fp8": {460: 448, 500: 448, 1000: 448, INF: 448},
    "ml_dtypes-0.7/float8_e4m3fn": {464: 448, 465: NAN, INF: NAN},
    "ml_dtypes-0.6/int4": {7.5: 7, 8.0: -8, 100.0: 4, -9.0: 7, NAN: 0},
    "tensorstore-0.1/int4": {100.6: 4, -9: 7},
    "openvino-2026.4/i4": {8: -8, 100: 4},
    "onnx-1.23/cast_int4": {8: -8, 100: 4, 2.5: 2},
    "onnxruntime-1.32/cast_int4": {8: -8, 100: 4, 2.5: 3, -2.5: -3},
    "jax-0.10/int4": {8: 7, 100: 7, 7.9: 7, -2.9: -2, NAN: 0},
    "onnxruntime-1.32/quantize_int4": {8: 7, 2.5: 2, 3.5: 4, -9: -8},
    "bitsandbytes-0.50/nf4": {0.03979014977812767: 0.0, 0.5016634464263916: 0.44070982933044434},
    "universal-dtypes-2.5/posit8": {1e9: 2.0**24, 1e-9: 2.0**-24, INF: NAN},
}
"""What the packages made of some numbers when they were run; all but where a line says that it differs."""


@pytest.mark.parametrize("name", SEEN)
def test_what_was_seen(name: str) -> None:
    """A preset makes of these numbers what the package did."""
    x, y = np.array([*SEEN[name]], np.float64), np.array([*SEEN[name].values()])
    assert np.array_equal(qsim.quantize(x, Quantizer.preset(name)), y, equal_nan=True)


def test_infinity_alone_may_become_nan() -> None:
    """The E4M3 of tinygrad is InfNaN: neither SatFinite, which clamps infinities, nor OvfNaN, which has NaN beyond 464."""
    x = np.array([465.0, -1e6, INF])
    results = {rule: qsim.quantize(x, "e4m3", saturation=rule).tolist() for rule in ("SatFinite", "OvfNaN")}
    found = qsim.quantize(x, Quantizer.preset("tinygrad-0.14/fp8e4m3")).tolist()
    assert found[:2] == results["SatFinite"][:2] == [448.0, -448.0]
    assert math.isnan(found[2])
    assert all(map(math.isnan, results["OvfNaN"]))


# --- Layouts ---------------------------------------------------------------------------------------------------------

BLOCK = np.arange(32) * 7 % 16


def halves(codes: list[int]) -> list[int]:
    """Return the bytes of which each holds elements i (low) and i + 16."""
    return [codes[i] | codes[i + 16] << 4 for i in range(16)]


LAID_OUT = {
    "bitsandbytes-0.50/nf4": ([15, 0, 3], [0xF0, 0x30]),
    "gguf-0.19/q4_0": (BLOCK, halves([int(code) ^ 8 for code in BLOCK])),
    "gguf-0.19/mxfp4": (BLOCK, halves(BLOCK.tolist())),
    "compressed-tensors-0.20/int4": ([8, 7, 0, 1, 15, 2, 3, 4], list(0xCBA798F0.to_bytes(4, "little"))),
}


def test_recipes_of_layouts() -> None:
    """The line of each layout makes the bytes that the package does, of codes one after another."""
    assert layouts().keys() == LAID_OUT.keys()
    for name, (codes, expected) in LAID_OUT.items():
        layout = layouts()[name]
        assert isinstance(layout, Layout)
        assert get_format(layout.format).bits == 4
        made = eval(layout.recipe, {"qsim": qsim, "codes": np.array(codes, np.uint8)})  # noqa: S307 - our own line
        assert np.ascontiguousarray(made).view(np.uint8).reshape(-1).tolist() == expected, name


# --- The files -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (HEAD.replace("'run'", "'guessed'") + NEW, "status is 'guessed'; it is hardware-verified, oracle-verified"),
        (HEAD.replace("version = '1'\n", "") + NEW, "key 'version' is missing"),
        (HEAD + NEW.replace("mode =", "modus ="), "model 1: unknown key 'modus'; did you mean mode"),
        (HEAD + NEW.replace("mode = 'RNE'\n", ""), "model 1: key 'mode' is missing"),
        (HEAD + NEW.replace("'RNE'", "3"), "model 1: mode = 3 must be a text"),
        (HEAD + NEW + "[model.differs]\ninfinite = 'x'\n", "differs: unknown key 'infinite'; did you mean"),
        (HEAD + NEW + "differs = 3\n", "differs is no table of keys"),
        (HEAD + "model = [3]\n", "model 1 is no table of keys"),
        (HEAD + "[[layout]]\nname = 'n'\n", "layout 1: key 'format' is missing"),
    ],
)
def test_wrong_files_are_refused(text: str, words: str, tmp_path: Path) -> None:
    """What is wrong in a file is refused in one sentence with the file, the entry and the key."""
    path = tmp_path / "own.toml"
    path.write_text(text)
    with pytest.raises(InputError, match=re.escape(words)) as caught:
        load_models(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


# --- The command -----------------------------------------------------------------------------------------------------


def test_the_command_lists_and_shows(capsys: pytest.CaptureFixture[str]) -> None:
    """Without a name all are listed, with a part of one those that have it; one is shown with what differs and the source."""
    assert main(["models"]) == 0
    out = capsys.readouterr().out
    assert all(name in out for name in (*models(), *layouts()))
    assert max(map(len, out.splitlines())) <= 100
    assert main(["models", "torch"]) == 0
    out = capsys.readouterr().out
    assert "torch-2.13/float8_e4m3fn" in out
    assert "ml_dtypes" not in out
    assert main(["models", "torch-2.13/float8_e5m2"]) == 0
    out = capsys.readouterr().out
    for words in (
        "float8_e5m2@torch:RNE, SatNone",
        "signed NaN",
        "PyTorch 2.13.0",
        'model("torch-2.13/float8_e5m2")',
    ):
        assert words in out
    assert main(["models", "gguf-0.19/q4_0"]) == 0
    assert "swapaxes(1, 2)" in capsys.readouterr().out
    assert main(["models", "torch-2.13/float8_e5m2", "--json"]) == 0
    (found,) = json.loads(capsys.readouterr().out)
    assert (found["mode"], found["saturation"], found["differs"].keys()) == ("RNE", "SatNone", {"float64"})
    assert main(["models", "tensorflow"]) == 2
    assert "no model is called 'tensorflow'; did you mean" in capsys.readouterr().err
