"""One conversion as a picture: bits, neighbours, threshold, the rule that decided; and what a wrong answer comes from.

    print(qsim.explain.explain(np.float32(0.3), "float8_e4m3fn", "SRA", sr_bits=8, rbits=103))
    qsim.explain.causes(np.float32(1.0625), 1.125, "e4m3")  # the faults that give 1.125 instead of 1.0

`case` holds one conversion, `picture` draws it, `faults` lists what quantizers are known to do wrong, `search` finds the faults
that give the answers at hand. All of it asks `qsim.reference`, and nothing else.
"""

import sys
from types import ModuleType
from typing import Any

from qsim.explain.case import Answer, Case, make_case
from qsim.explain.picture import Explanation, Neighbour, explain
from qsim.explain.search import causes, common_causes, explaining, plainest

__all__ = [
    "Answer", "Case", "Explanation", "Neighbour", "causes", "common_causes", "explain", "explaining", "make_case",
    "plainest",
]  # fmt: skip


class _Module(ModuleType):
    def __call__(self, *args: Any, **options: Any) -> Explanation:
        """Return `explain(...)`, for who writes `qsim.explain(0.3, "e4m3")`."""
        return explain(*args, **options)


sys.modules[__name__].__class__ = _Module
