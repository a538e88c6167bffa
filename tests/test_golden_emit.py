"""Tables of converters in C and Verilog: compiled, run, and compared with the converter, code by code."""

from __future__ import annotations

import ctypes
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
from command import printed, refused
from conftest import NO_COMPILER, NO_ICARUS

from qsim.golden import named
from qsim.golden.directed import directed, random, type_of
from qsim.golden.emit import Spec, as_c, as_dpi, as_header, as_verilog, spec_of
from qsim.golden.operands import Operands

MODELS = [
    ("cuda-13.5/float_e4m3_nosat", ""), ("e4m3:RNE", "float16"), ("x86-2026/ace.vcvtps2bf8", ""), ("e2m1:RTZ", "bfloat16"),
    ("cuda-13.5/double_e5m2_sat", ""), ("onnxruntime-1.32/e4m3fn_nosat", "float32"), ("vhdl-2008/float_pkg_e4m3_f32", ""),
    ("torch-2.13/float8_e8m0fnu", "float32"), ("systemc-2.3.4/fixed4_4_trn_wrap_sm", "bfloat16"), ("posit8:RNE", "float32"),
    ("amd-hip-f9f995c/from_float_sr_e4m3", ""), ("amd-hip-f9f995c/cast_to_f8_sr_e4m3", ""), ("intel-xe-2026/srnd_hf_bf8", ""),
    ("ptx-9.5/cvt.rs.satfinite.e2m1x4.f32", ""), ("int4:SRA(8)", "float32"), ("Q3.4:SRA(16)", "bfloat16"),
]  # fmt: skip
"""Converters of every kind that has a table, and the type of their inputs."""


def compiled(spec: Spec, folder: Path) -> ctypes.CDLL:
    """Compile a model, without a warning, and load it."""
    if shutil.which("gcc") is None:
        pytest.skip(NO_COMPILER)
    (folder / "m.c").write_text(as_c(spec))
    (folder / "m.h").write_text(as_header(spec))
    both = '#include "m.h"\n#include "m.c"\n'
    (folder / "both.c").write_text(both)
    flags = ["-std=c99", "-O2", "-Wall", "-Wextra", "-Werror", "-Wno-parentheses", "-shared", "-fPIC"]
    subprocess.run(["gcc", *flags, "both.c", "-o", "m.so"], cwd=folder, check=True)
    return ctypes.CDLL(str(folder / "m.so"))


def asked(spec: Spec) -> tuple[Operands, np.ndarray | None]:
    """Return directed and random inputs."""
    x, words = directed(spec.converter, spec.kind)
    more, others = random(spec.converter, 1 << 15, 1, spec.kind)
    both = Operands(x.kind, np.concatenate([x.bits, more.bits]))
    return both, None if words is None else np.concatenate([words, others])


@pytest.mark.parametrize(("name", "kind"), MODELS)
def test_c_is_the_converter(name: str, kind: str, tmp_path: Path) -> None:
    """The compiled model gives the codes of the converter, for directed inputs and random ones, and for numbers as double."""
    converter = named(name)
    spec = spec_of(converter, kind)
    library = compiled(spec, tmp_path)
    x, words = asked(spec)
    right = converter.convert(x, words)
    inputs = x.bits.astype(f"u{spec.width // 8}")
    codes = np.zeros(len(x), np.uint8 if spec.code_bits <= 8 else np.uint16)
    rbits = [] if words is None else [np.ascontiguousarray(words, np.uint32).ctypes]
    library[f"{spec.name}_array"](inputs.ctypes, *rbits, codes.ctypes, ctypes.c_size_t(len(x)))
    assert (codes == right).all(), np.flatnonzero(codes != right)[:5]
    real = library[f"{spec.name}_real"]
    real.restype = ctypes.c_uint8 if spec.code_bits <= 8 else ctypes.c_uint16
    some = np.flatnonzero(np.isfinite(x.exact))[:: max(len(x) // 300, 1)]
    for at in some.tolist():
        word = [] if words is None else [ctypes.c_uint32(int(words[at]))]
        assert real(ctypes.c_double(x.exact[at]), *word) == right[at], x.exact[at]


BENCH = """\
module bench;
  reg [{total}:0] vectors [0:{last}];
  integer i, wrong;
  reg [{w}:0] x; reg [{n}:0] rbits; reg [{c}:0] code;
  wire [{c}:0] y;
  {name} dut (.x(x){word}, .y(y));
  initial begin
    wrong = 0;
    $readmemh("v.hex", vectors);
    for (i = 0; i <= {last}; i = i + 1) begin
      {{x, {fill}code}} = vectors[i]; #1;
      if (^vectors[i] === 1'bx || y !== code) wrong = wrong + 1;
    end
    $display("%0d wrong of %0d", wrong, {last} + 1);
  end
endmodule
"""


@pytest.mark.parametrize(("name", "kind"), MODELS[::3])
def test_verilog_is_the_converter(name: str, kind: str, tmp_path: Path) -> None:
    """Icarus, told to take Verilog-2005 alone, simulates the table: no code differs."""
    if shutil.which("iverilog") is None:
        pytest.skip(NO_ICARUS)
    converter = named(name)
    spec = spec_of(converter, kind)
    x, words = asked(spec)
    codes = converter.convert(x, words)
    n = converter.word_bits
    fields = [x.bits.tolist(), *([] if words is None else [words.tolist()]), codes.tolist()]
    sizes = [spec.width, *([n] if n else []), spec.code_bits]
    rows = []
    for row in zip(*fields, strict=True):
        word = 0
        for value, size in zip(row, sizes, strict=True):
            word = word << size | value
        rows.append(f"{word:x}")
    (tmp_path / "v.hex").write_text("\n".join(rows) + "\n")
    (tmp_path / "spec.v").write_text(as_verilog(spec))
    (tmp_path / "bench.v").write_text(
        BENCH.format(
            total=sum(sizes) - 1, last=len(rows) - 1, w=spec.width - 1, n=max(n, 1) - 1, c=spec.code_bits - 1, name=spec.name,
            word=", .rbits(rbits)" if n else "", fill="rbits, " if n else "",
        )
    )  # fmt: skip
    subprocess.run(
        ["iverilog", "-g2005", "-Wall", "-Wno-timescale", "-o", "b", "spec.v", "bench.v"], cwd=tmp_path, check=True
    )
    done = subprocess.run(["vvp", "b"], cwd=tmp_path, check=True, capture_output=True, text=True)
    assert done.stdout.splitlines()[-1] == f"0 wrong of {len(rows)}"


def test_the_commands_write(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Files appear as they are called; what has no table is refused, and nothing is written."""
    name = "cuda-13.5/float_e4m3_sat"
    assert "qsim_cuda_13_5_float_e4m3_sat" in printed(capsys, "rtl-spec", name, "-o", "s.v")
    assert "runs of one code" in printed(capsys, "rtl-spec", name, "-o", "s.c")
    printed(capsys, "dpi", name, "-o", ".")
    ends = sorted(path.suffix for path in here.iterdir())
    assert ends == [".c", ".c", ".h", ".sv", ".v"]
    assert 'import "DPI-C" function byte unsigned' in as_dpi(spec_of(named(name)))
    assert "neither .v nor .c" in refused(capsys, "rtl-spec", name, "-o", "s.x")
    assert "is no folder" in refused(capsys, "dpi", name, "-o", "none")
    assert "takes integers" in refused(capsys, "rtl-spec", "gemmlowp-2026/requantize_int8", "-o", "t.v")
    assert "more than 8,192 runs" in refused(capsys, "rtl-spec", "ptx-9.5/cvt.rn.bf16x2.f32", "-o", "t.v")
    assert "no StochasticA" in refused(capsys, "rtl-spec", "x86-2026/vcvtbiasph2bf8@raw", "-o", "t.v")
    assert not (here / "t.v").exists()
    assert type_of(named(name)) == "float32"
