"""One conversion as a picture: bits, neighbours, threshold, the rule that decided; and the causes of a wrong answer.

    print(qsim.explain(np.float32(0.3), "float8_e4m3fn", "SRA", sr_bits=8, rbits=103))
    print(qsim.explain("0x3e99999a", "e4m3"))  # the bits of a float32
    qsim.explain.causes(np.float32(1.0625), 1.125, "e4m3")  # the faults that give 1.125 instead of 1.0
    qsim.explain.causes(x, codes, "e4m3", "SRA", sr_bits=8, rbits=r)  # those that give all lines of a device's file

`case` holds one conversion, `picture` draws it; `lines` holds many, `oracle` has the reference's answers for them, `faults`
lists known faults of quantizers, `search` finds the faults that give the answers at hand. All of it asks
`qsim.reference`, and nothing else. The module itself can be called: it is `qsim.explain.explain` then.
"""

import sys
from types import ModuleType
from typing import Any

from qsim.explain.case import Answer, Case, make_case
from qsim.explain.picture import Explanation, Neighbour, explain
from qsim.explain.search import causes, common_causes

__all__ = ["Answer", "Case", "Explanation", "Neighbour", "causes", "common_causes", "explain", "make_case"]


class _Module(ModuleType):
    def __call__(self, *args: Any, **options: Any) -> Explanation:
        """Return `explain(...)`, for who writes `qsim.explain(0.3, "e4m3")`."""
        return explain(*args, **options)


sys.modules[__name__].__class__ = _Module
