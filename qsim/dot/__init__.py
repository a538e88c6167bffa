"""Products and sums whose every rounding is known: accumulators as hardware has them.

acc = qsim.dot.Accumulator("bfloat16:SR")
y = qsim.dot.matmul(a, b, acc, key=qsim.Key(0)).values
d = qsim.dot.get_instruction("sm90-wgmma/f32.e4m3").dots(a, b, c)
"""

from __future__ import annotations

from qsim.dot.accumulator import Accumulator
from qsim.dot.elementwise import Flags, add, div, fma, mul, sqrt, sub
from qsim.dot.fparray import FPArray, fparray
from qsim.dot.identify import Candidate, Identification, identify_accumulator
from qsim.dot.instructions import Instruction, get_instruction, instructions
from qsim.dot.probes import Rows, probe_rows, read_measured, write_probes
from qsim.dot.products import Product, dots_of, matmul

__all__ = [
    "Accumulator", "Candidate", "FPArray", "Flags", "Identification", "Instruction", "Product", "Rows", "add", "div",
    "dots_of", "fma", "fparray", "get_instruction", "identify_accumulator", "instructions", "matmul", "mul", "probe_rows",
    "read_measured", "sqrt", "sub", "write_probes",
]  # fmt: skip
