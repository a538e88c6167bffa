"""The RTL of examples/rtl against golden models, and twenty faulty copies of it: refuted, and the fault named."""

from __future__ import annotations

import importlib.util
import shutil
import sys
from pathlib import Path
from types import ModuleType

import pytest
from conftest import NO_ICARUS, ROOT

RTL = ROOT / "examples/rtl"
NEAR, SAT_OFF, SR = "torch-2.13/float8_e4m3fn", "ml_dtypes-0.6/float8_e4m3fn", "e4m3@torch:SRA(8)"
PARAMETERS = {NEAR: {}, SAT_OFF: {"SATURATE": 0}, SR: {"STOCHASTIC": 1}}

Change = tuple[str, str, str]
"""A file, a text in it, and what stands there instead."""

NEAREST = "fraction[23] & ((|fraction[22:0]) | sticky | steps[0])"
CODE = "else y = {sign, code[6:0]};"
SUM = "{1'b0, fraction[23-:R]} + {1'b0, rbits}"
TIES_AWAY: Change = ("fp8_round.sv", NEAREST, "fraction[23]")
CUT: Change = ("fp8_round.sv", NEAREST, "1'b0")
NO_MINUS_ZERO: Change = ("fp8_round.sv", CODE, "else y = {sign & (|code[6:0]), code[6:0]};")
FLUSH: Change = ("fp8_round.sv", CODE, "else y = {sign, code[6:0] & {7{|code[6:3]}}};")
TOP_240: Change = ("fp8_round.sv", "7'h7e", "7'h77")
COMPLEMENT: Change = ("fp8_round.sv", SUM, SUM.replace("rbits", "~rbits"))

FAULTS: dict[str, tuple[str, list[Change], list[str]]] = {
    "ties away": (NEAR, [TIES_AWAY], ["ties go away from zero"]),
    "ties toward zero": (NEAR, [("fp8_round.sv", " | steps[0]", "")], ["ties go toward zero"]),
    "truncation": (NEAR, [CUT], ["RTZ"]),
    "lost sticky bits": (NEAR, [("fp8_round.sv", "|fraction[22:0]", "|fraction[22:20]")], ["the sticky bit is lost"]),
    "dropped carry": (
        NEAR, [("fp8_round.sv", "{1'b0, steps} + {4'd0, away}", "{1'b0, steps[3], steps[2:0] + {2'd0, away}}")], ["carry"],
    ),
    "subnormal shift": (NEAR, [("fp8_align.sv", "DROP + LEAST - e :", "DROP + LEAST - e - 9'd1 :")], ["subnormal"]),
    "range first": (
        SAT_OFF, [("fp8_round.sv", "beyond = code >", "beyond = (code - {15'd0, away} == {9'd0, TOP}) & (|fraction) | code >")],
        ["before"],
    ),
    "240 for 448": (NEAR, [TOP_240], ["240"]),
    "sign of zero": (NEAR, [NO_MINUS_ZERO], ["loses the sign of zero"]),
    "NaN is 0": (NEAR, [("fp8_round.sv", "(nan) y = {sign, NAN}", "(nan) y = 8'h00")], ["NaN becomes 0"]),
    "flushed results": (NEAR, [FLUSH], ["subnormal"]),
    "word off by one": (SR, [("fp8_round.sv", SUM, SUM + " + 1'b1")], ["one more than the word"]),
    "> for >=": (SR, [("fp8_round.sv", "? sum[R]", "? sum[R] & (|sum[R-1:0])")], ["compares with > instead of >="]),
    "word reversed": (
        SR, [("fp8_round.sv", SUM, SUM.replace("rbits", ", ".join(f"rbits[{bit}]" for bit in range(8))))],
        ["bits reversed"],
    ),
    "word complemented": (SR, [COMPLEMENT], ["complemented"]),
    "too few bits": (SR, [("fp8_round.sv", SUM, SUM.replace("rbits", "rbits[R-1:4], 4'd0"))], ["top 4"]),
    "a stuck bit": (SR, [("fp8_round.sv", SUM, SUM.replace("rbits", "rbits[R-1:1], 1'b1"))], ["bit 0 of the word is always 1"]),
    "ties away, no -0": (NEAR, [TIES_AWAY, NO_MINUS_ZERO], ["RNA", "sign of zero"]),
    "cut, 240": (NEAR, [CUT, TOP_240], ["RTZ", "240"]),
    "complemented, no -0": (SR, [COMPLEMENT, NO_MINUS_ZERO], ["complemented", "sign of zero"]),
}  # fmt: skip
"""Twenty devices: the model they should be, what is planted, and words of what should be told first."""


@pytest.fixture(scope="module")
def rtl() -> ModuleType:
    """Return examples/rtl/run.py as a module; skip where there is no simulator."""
    if shutil.which("iverilog") is None:
        pytest.skip(NO_ICARUS)
    spec = importlib.util.spec_from_file_location("rtl_run", RTL / "run.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules["rtl_run"] = module
    spec.loader.exec_module(module)
    return module


@pytest.mark.in_part(3)
@pytest.mark.parametrize("model", [NEAR, SAT_OFF, SR, "torch-2.13/float8_e5m2", "gemmlowp-2026/requantize_int8_single"])
def test_the_rtl_is_the_model(model: str, rtl: ModuleType, tmp_path: Path) -> None:
    """Every answer to the directed vectors is right, and the pipeline's is that of the combinational one."""
    assert rtl.simulate(model, rtl.BENCHES[model], tmp_path) == ""


@pytest.mark.in_part(5)
@pytest.mark.parametrize("name", FAULTS)
def test_faulty_devices_are_named(name: str, rtl: ModuleType, tmp_path: Path) -> None:
    """The default vectors refute each, and the first thing that is told is what was planted."""
    model, changes, words = FAULTS[name]
    sources = tmp_path / "rtl"
    shutil.copytree(RTL, sources)
    for file, old, new in changes:
        text = (sources / file).read_text()
        assert text.count(old) == 1, old
        (sources / file).write_text(text.replace(old, new))
    report = rtl.simulate(model, PARAMETERS[model], tmp_path, sources)
    assert "answers are wrong" in report
    told = report.partition("as if:\n")[2].splitlines()
    assert told[0].strip().startswith("a rounding to float8_e4m3fn"), told
    assert all(word in told[1] for word in words), told
