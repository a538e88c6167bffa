"""Products and sums whose every rounding is known: accumulators as hardware has them.

acc = qsim.dot.Accumulator("bfloat16:SR")
y = qsim.dot.matmul(a, b, acc, key=qsim.Key(0)).values
d = qsim.dot.get_instruction("sm90-wgmma/f32.e4m3").dots(a, b, c)
"""

from __future__ import annotations

from qsim.dot.accumulator import Accumulator
from qsim.dot.elementwise import Flags, add, div, fma, mul, sqrt, sub
from qsim.dot.instructions import Instruction, get_instruction, instructions
from qsim.dot.products import Product, dots_of, matmul

__all__ = [
    "Accumulator", "Flags", "Instruction", "Product", "add", "div", "dots_of", "fma", "get_instruction", "instructions",
    "matmul", "mul", "sqrt", "sub",
]  # fmt: skip
