"""The laws of rounding for your own quantizer: a Python function, a compiled library, a kernel, a device.

    qsim.testing.check_quantizer(my_function, "float8_e4m3fn", "SRA", sr_bits=8)

    plan = qsim.testing.plan_device_check("float8_e4m3fn", "SR", bias=1 / 32)
    print(plan)
    qsim.testing.check_stochastic_device(my_device, plan)

`check_quantizer` returns a verdict, `assert_quantizer` is for test suites. `check_stochastic_device` asks a quantizer that
draws its own random words, which nobody knows; `audit_rbits` looks at such words themselves. `qsim.testing.strategies` has
Hypothesis strategies of formats, numbers near thresholds, codes and words (`pip install 'qsim-numerics[testing]'`).
"""

from qsim.testing.audit import audit_rbits
from qsim.testing.check import QuantizerVerdict, assert_quantizer, check_quantizer, elementwise
from qsim.testing.device import check_stochastic_device
from qsim.testing.laws import LAWS, OF_WORDS, WITHOUT_WORDS
from qsim.testing.plan import DevicePlan, plan_device_check

__all__ = [
    "LAWS", "OF_WORDS", "WITHOUT_WORDS", "DevicePlan", "QuantizerVerdict", "assert_quantizer", "audit_rbits",
    "check_quantizer", "check_stochastic_device", "elementwise", "plan_device_check",
]  # fmt: skip
