"""The laws of rounding for your own quantizer: a Python function, a compiled library, a kernel.

    qsim.testing.check_quantizer(my_function, "float8_e4m3fn", "SRA", sr_bits=8)

`check_quantizer` returns a verdict, `assert_quantizer` is for test suites. `qsim.testing.strategies` has Hypothesis strategies
of formats, numbers near thresholds, codes and words (`pip install 'qsim-numerics[testing]'`).
"""

from qsim.testing.check import assert_quantizer, check_quantizer, elementwise
from qsim.testing.laws import LAWS

__all__ = ["LAWS", "assert_quantizer", "check_quantizer", "elementwise"]
