"""`qsim identify`: models by their answers, planted faults by name, pairs of them, and what no hypothesis gives."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from command import refused

import qsim
from qsim.cli import main
from qsim.golden import identify, model
from qsim.golden.directed import directed
from qsim.golden.vectors import Vectors, write

Device = Callable[..., Any]


def code(x: Any, *how: Any, **options: Any) -> Any:
    """Return codes of E4M3 as int64."""
    return qsim.encode(x, "e4m3", *how, **options).astype(np.int64)


def clamped(x: Any) -> Any:
    """Return codes of which none is above 240."""
    codes = code(x)
    size = codes & 0x7F
    return np.where((size > 0x77) & (size < 0x7F), codes & 0x80 | 0x77, codes)


def early(x: Any) -> Any:
    """Return codes of a device that compares with 448 before it rounds, and makes NaN of what is above."""
    return np.where(np.abs(x) > 448, np.where(np.signbit(x), 0xFF, 0x7F), code(x, saturation="OvfNaN", nan="signed"))


def through(x: Any, fmt: str, *how: Any) -> Any:
    """Return codes of what was rounded to another format first."""
    with np.errstate(all="ignore"):
        return code(qsim.quantize(x, fmt), *how)


def unsigned_zero(codes: Any) -> Any:
    """Return codes without -0."""
    return np.where(codes == 0x80, 0, codes)


def without_low_bits(x: Any) -> Any:
    """Return codes of a device whose sticky bit misses the last bit of the input."""
    return code(np.where(np.isfinite(x), (x.view(np.uint32) & np.uint32(0xFFFFFFFE)).view(np.float32), x))


def sra(x: Any, words: Any, bits: int = 8) -> Any:
    """Return codes by StochasticA."""
    return code(x, "SRA", sr_bits=bits, rbits=words)


SINGLE: dict[str, tuple[Device, str]] = {
    "ties away": (lambda x: code(x, "RNA"), "ties go away from zero"),
    "truncation": (lambda x: code(x, "RTZ"), "RTZ"),
    "ties toward zero": (lambda x: code(x, "RNZ"), "ties go toward zero"),
    "through bfloat16": (lambda x: through(x, "bfloat16"), "goes through bfloat16 first"),
    "through float16": (lambda x: through(x, "float16"), "goes through float16 first"),
    "flushes results": (lambda x: code(x, ftz_out="result"), "subnormal"),
    "range first": (early, "before"),
    "240 for 448": (clamped, "largest value is 240"),
    "sign of zero": (lambda x: unsigned_zero(code(x)), "loses the sign of zero"),
    "bit 0": (without_low_bits, "bit 0 of the input is not looked at"),
}
"""Devices with one fault, and words of its name."""

STOCHASTIC: dict[str, tuple[Device, str]] = {
    "complemented": (lambda x, w: sra(x, 255 - w), "complemented"),
    "reversed": (lambda x, w: sra(x, np.array([int(f"{one:08b}"[::-1], 2) for one in w.tolist()])), "bits reversed"),
    "off by one": (lambda x, w: sra(x, np.maximum(w.astype(np.int64) - 1, 0)), ""),
    "few bits": (lambda x, w: sra(x, w >> np.uint64(4), 4), "top 4 of the word's 8 bits"),
    "low bits": (lambda x, w: sra(x, w & np.uint64(15), 4), "low 4 of the word's 8 bits"),
    "shared": (lambda x, w: sra(x, np.repeat(w[::2], 2)[: len(w)]), "two lanes share a word"),
}

PAIRS: dict[str, tuple[Device, tuple[str, str]]] = {
    "ties and flush": (lambda x: code(x, "RNA", ftz_out="result"), ("RNA", "flushes subnormal")),
    "ties and zero": (lambda x: unsigned_zero(code(x, "RNA")), ("RNA", "sign of zero")),
    "flush and zero": (lambda x: unsigned_zero(code(x, ftz_out="result")), ("flushes subnormal", "sign of zero")),
}


@pytest.mark.parametrize("name", SINGLE)
def test_single_faults_are_named_first(name: str) -> None:
    """The first fault that is told is the one that was planted."""
    device, words = SINGLE[name]
    found = identify(device, "e4m3")
    assert not found.equal
    assert words in found.faults[0], found.faults


@pytest.mark.parametrize("name", STOCHASTIC)
def test_faults_of_words_are_named_first(name: str) -> None:
    """Likewise of the random word."""
    device, words = STOCHASTIC[name]
    found = identify(device, "e4m3", sr_bits=8)
    assert "float8_e4m3fn:SRA(8)" not in found.equal
    assert found.faults
    assert words in found.faults[0], found.faults


@pytest.mark.parametrize("name", PAIRS)
def test_pairs_of_faults(name: str) -> None:
    """Two faults together are told as two."""
    device, (one, other) = PAIRS[name]
    found = identify(device, "e4m3")
    assert any(one in fault and other in fault for fault in found.faults), found.faults


def test_a_fault_that_nobody_knows() -> None:
    """None fits, and the nearest model is told with how many differ and the smallest input."""

    def device(x: Any) -> Any:
        codes = code(x)
        return np.where(codes == 0x35, 0x36, codes)

    found = identify(device, "e4m3")
    assert not found.equal
    assert not found.faults
    assert found.near[0].bits == 0x3F480001
    assert str(found).startswith("none fits: no known model or fault gives all")


MODELS = [
    "x86-2026/vcvtneps2bf16", "cuda-13.5/float_e4m3_nosat", "vhdl-2008/float_pkg_e4m3", "onnxruntime-1.32/e4m3fn_nosat",
    "openvino-2026.4/f8e4m3", "x86-2026/vcvtbiasph2bf8@normalised", "torch-2.13/float8_e8m0fnu", "tinygrad-0.14/fp8e4m3",
    "tenstorrent-3930471/sfpstochrnd_bf16", "gemmlowp-2026/requantize_int8_single",
]  # fmt: skip


@pytest.mark.parametrize("name", MODELS)
def test_files_without_names(name: str, here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """From the answers to its own directed vectors a model is identified, without format or name."""
    converter = model(name)
    x, words = directed(converter)
    write(Vectors(converter, x, words, converter.convert(x, words)), "d.tv")
    kind = ["--dtype", x.kind] if x.kind in ("bfloat16", "int32") else []
    bits = ["--sr-bits", str(converter.word_bits)] if words is not None else []
    assert main(["identify", "d.tv", "--json", *kind, *bits]) == 0
    found = json.loads(capsys.readouterr().out)
    assert name in found["equal"]
    others = {one.name: one.count for one in qsim.golden.differences.differences(converter)}
    assert not any(others.get(one) for one in found["equal"])


def test_what_to_ask_next(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Of answers that several models give the inputs are told that part them."""
    (here / "d.tv").write_text("3f800000 38\n43e80000 7e\n")
    assert main(["identify", "d.tv", "-f", "e4m3"]) == 0
    out = capsys.readouterr().out
    assert "ask next: 0x" in out
    assert "equals cuda-13.5/float_e4m3_sat" in out


def test_values_as_well_as_codes() -> None:
    """A function may return values."""
    found = identify(lambda x: qsim.quantize(x, "e4m3", "RNA"), "e4m3")
    assert "ties go away from zero" in found.faults[0]


def test_what_is_no_answer(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Refused in a sentence."""
    with pytest.raises(qsim.InputError, match="fn returned the shape"):
        identify(lambda x: x[:3], "e4m3")
    with pytest.raises(qsim.InputError, match=r"codes of float8_e4m3fn are 0 \.\. 255"):
        identify(lambda x: np.full(x.shape, 256), "e4m3")
    (here / "d.tv").write_text("3f80000038\n")
    assert "write the fields apart" in refused(capsys, "identify", "d.tv")
    (here / "d.tv").write_text("3f8 38\n")
    assert "x has 3 digits" in refused(capsys, "identify", "d.tv")
    (here / "d.tv").write_text("3f800000 38\n3f800000 3x\n")
    assert "d.tv:2: code = 3x has the digit x" in refused(capsys, "identify", "d.tv")
