"""Golden models of converters by name: the answers of hardware and software to every number, bit for bit.

    cvt = qsim.golden.model("cuda-13.5/float_e4m3_nosat")
    codes = cvt(x)                                   # floats, or their bits as unsigned integers
    codes = qsim.golden.model("x86-avx10.2/vcvtbiasph2bf8@raw")(halves, rbits=words)

`qsim models` lists them. An entry of `models/*.toml` is data; `converter` makes a function of it, from qsim's rounding and
steps before and after it; `rules` has the conversions that are no rounding.
"""

from qsim.golden.converter import Converter, model, named, of_format
from qsim.golden.identify import Identity, identify
from qsim.golden.operands import Operands, every, operands

__all__ = ["Converter", "Identity", "Operands", "every", "identify", "model", "named", "of_format", "operands"]
