"""Hold the RTL of this folder to golden models: by files, by cocotb, and by proof.

python examples/rtl/run.py bench      vectors in, answers out, `qsim check` (Icarus)
python examples/rtl/run.py cocotb     a scoreboard in Python (Icarus and cocotb 2)
python examples/rtl/run.py prove      yosys: equal to the table of `qsim rtl-spec` for every input and every word
python examples/rtl/run.py            all of them; what is not installed is said, and makes the exit code 1
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

from qsim.golden import named
from qsim.golden.check import check
from qsim.golden.directed import directed
from qsim.golden.emit import as_verilog, spec_of
from qsim.golden.vectors import Vectors, fields_of, read, write

HERE = Path(__file__).resolve().parent
QUANTIZER = ("fp8_align.sv", "fp8_round.sv", "fp8_quantize.sv", "fp8_quantize_pipelined.sv")

E5M2 = {"MAN": 2, "BIAS": 15, "IEEE": 1}
BENCHES: dict[str, dict[str, int]] = {
    "torch-2.13/float8_e4m3fn": {},
    "ml_dtypes-0.6/float8_e4m3fn": {"SATURATE": 0},
    "torch-2.13/float8_e5m2": {"SATURATE": 0, **E5M2},
    "e4m3@torch:SRA(8)": {"STOCHASTIC": 1},
    "e4m3@torch:SRA(16)": {"STOCHASTIC": 1, "R": 16},
    "gemmlowp-2026/requantize_int8_single": {},
}
"""Models, and the parameters with which the RTL should equal them."""


def run(*argv: str, folder: Path) -> None:
    """Run a program, which must succeed."""
    subprocess.run(argv, cwd=folder, check=True)  # noqa: S603 - our own programs


def simulate(model: str, parameters: dict[str, int], folder: Path, sources: Path = HERE) -> str:
    """Return what `qsim check` says of the RTL's answers to the directed vectors of a model; "" if all are right."""
    converter = named(model)
    kind = converter.input or "float32"
    x, words = directed(converter, kind)
    vectors = Vectors(converter, x, words, converter.convert(x, words))
    manifest = json.loads(write(vectors, folder / "vectors.hex").read_text(encoding="utf-8"))
    integers = kind == "int32"
    bench, design = ("bench_requantize", ["int8_requantize.sv"]) if integers else ("bench", QUANTIZER)
    defined = [f"-P{bench}.{name}={value}" for name, value in parameters.items()]
    files = [str(sources / name) for name in (f"{bench}.sv", *design)]
    run("iverilog", "-g2012", "-Wall", *defined, "-s", bench, "-o", "bench", *files, folder=folder)
    given = (f"+vectors={manifest['file']}", "+answers=answers.hex", f"+lines={manifest['lines']}")
    run("vvp", "-n", "bench", *given, folder=folder)
    report = check(converter, read(folder / "answers.hex", list(fields_of(converter, kind)), kind, vectors))
    return "" if report.held else str(report)


def bench(folder: Path) -> list[str]:
    """Simulate every configuration with files, and return what is wrong."""
    wrong = []
    for model, parameters in BENCHES.items():
        found = simulate(model, parameters, folder)
        print(f"bench    {model}: {'wrong' if found else 'all answers are right'}")
        wrong += [found] if found else []
    return wrong


def cosimulate(folder: Path) -> list[str]:
    """Run the cocotb test, and return what failed: the runner itself returns normally all the same."""
    from cocotb_tools.check_results import get_results
    from cocotb_tools.runner import get_runner

    os.environ["PYTHONPATH"] = os.pathsep.join([str(HERE), *sys.path])
    runner = get_runner("icarus")
    sources = [HERE / name for name in QUANTIZER]
    runner.build(sources=sources, hdl_toplevel="fp8_quantize_pipelined", build_dir=folder, build_args=["-g2012"], always=True,
                 timescale=("1ns", "1ps"))  # fmt: skip
    results = runner.test(hdl_toplevel="fp8_quantize_pipelined", test_module="cocotb_quantize", test_dir=folder,
                          build_dir=folder, results_xml=str(folder / "results.xml"))  # fmt: skip
    tests, failures = get_results(Path(results))
    print(f"cocotb   {tests} tests, {failures} failed")
    return [] if tests and not failures else [f"cocotb: {failures} of {tests} tests failed"]


MITER = """\
module miter(input [31:0] x, input [7:0] rbits, output wrong);
  wire [7:0] y, right;
  fp8_quantize dut(.x(x), .stochastic(1'b{stochastic}), .saturate(1'b1), .rbits(rbits), .y(y));
  {spec} spec(.x(x){word}, .y(right));
  assign wrong = y != right;
endmodule
"""

SCRIPT = """\
read_verilog -sv {sources} spec.v miter.v
hierarchy -top miter
proc; flatten; opt -full; techmap; opt -fast; opt_clean
sat -verify -prove wrong 0 -enable_undef -set-def-inputs -show-inputs miter
"""


def prove(folder: Path) -> list[str]:
    """Prove the combinational quantizer equal to the table of a model, and return what was refuted."""
    wrong = []
    for model in ("torch-2.13/float8_e4m3fn", "e4m3@torch:SRA(8)"):
        spec = spec_of(named(model), "float32")
        word = ", .rbits(rbits)" if spec.high else ""
        (folder / "spec.v").write_text(as_verilog(spec), encoding="utf-8")
        (folder / "miter.v").write_text(
            MITER.format(stochastic=int(bool(word)), spec=spec.name, word=word), encoding="utf-8"
        )
        sources = " ".join(str(HERE / name) for name in QUANTIZER[:3])
        (folder / "prove.ys").write_text(SCRIPT.format(sources=sources), encoding="utf-8")
        done = subprocess.run(["yosys", "-q", "prove.ys"], cwd=folder, check=False)  # noqa: S607 - as found on the path
        print(f"prove    {model}: {'refuted' if done.returncode else 'equal for every input and every word'}")
        wrong += [f"yosys refuted {model}"] if done.returncode else []
    return wrong


PARTS: dict[str, tuple[Callable[[Path], list[str]], str]] = {
    "bench": (bench, "iverilog"), "cocotb": (cosimulate, "iverilog"), "prove": (prove, "yosys"),
}  # fmt: skip


def main(argv: Sequence[str]) -> int:
    """Run the named parts, or all; return 1 if one fails, or has not the program it needs."""
    wrong: list[str] = []
    for name in argv or PARTS:
        part, program = PARTS[name]
        if shutil.which(program) is None:
            wrong.append(f"{name}: {program} is not installed")
            continue
        with tempfile.TemporaryDirectory() as folder:
            wrong += part(Path(folder))
    print("\n".join(wrong), end="\n" if wrong else "")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
