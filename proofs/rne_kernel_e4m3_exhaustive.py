"""RNE to E4M3: the kernel is the reference on all float32, by exhaustion.

The walk is along the patterns. Here it is around 1, where E4M3 steps by 1/8 and codes go ... 0x38, 0x39, 0x3a:

    pattern   3f78....  3f800000      3f880000        3f900000      3f980000        3fa00000
    value        ...       1          1 + 1/16         1 + 1/8      1 + 3/16         1 + 1/4
    result    ---------- 0x38 -----------] [------------ 0x39 ------------) [--------- 0x3a ---

A midpoint belongs to the even code: to 0x38 on the left, to 0x3a on the right.
"""

import itertools

from qsim import reference
from qsim.formats import get_format
from qsim.kernels import core
from qsim.kernels.parameters import parameters
from qsim.prove import Method, Theorem, settle
from qsim.prove.exhaustive import first_difference
from qsim.prove.specification import FLOAT32, contrast, evaluate, steps, value
from qsim.rounding import Mode, Saturation

THEOREM = Theorem(
    statement="round_bits with the thresholds (half, half - 1), then encode_bits, returns the value and the code of "
    "qsim.reference.encode(x, 'float8_e4m3fn', 'RNE') for every float32 x: signed zeros, subnormals, overflow, "
    "infinities and all NaNs included, under SatFinite and under OvfNaN",
    hypotheses=(),
    idea="Rounding to nearest even is a step function of the pattern, with a step from each exact midpoint to the "
    "next; each of the 2^32 patterns is rounded and compared with the step it lies in, and the reference itself is "
    "asked at both ends of every step.",
    method=Method.EXHAUSTIVE,
    reference="IEEE 754-2019, 4.3.1 (roundTiesToEven); OCP OFP8 revision 1.0, 2023, table 1 (E4M3)",
)

FORMAT = get_format("float8_e4m3fn")
EVEN, ODD = 1 << 31, (1 << 31) - 1
"""Exactly half is above half - 1, and not above half."""


def failures(reach: int | None):
    """Yield what is wrong, under either saturation."""
    for saturation in (Saturation.SatFinite, Saturation.OvfNaN):
        expected = list(steps(FORMAT, saturation))
        tiles = [0, *(step.last + 1 for step in expected)]
        if [step.first for step in expected] != tiles[:-1] or tiles[-1] != 1 << 32:
            yield "the steps do not tile the patterns 0 .. 2^32 - 1"
        for step, pattern in itertools.product(expected, ("first", "last")):
            x = value(getattr(step, pattern))
            if reference.encode(x, FORMAT, Mode.RNE, saturation=saturation) != step.result.code:
                yield f"{saturation}: the reference and the step function disagree on {x!r}"
        p = parameters(FORMAT, saturation, FLOAT32.dtype)
        difference = first_difference(expected, EVEN, ODD, p, reach)
        if difference is not None:
            yield contrast(difference, evaluate(core, difference, EVEN, ODD, p), FORMAT, Mode.RNE, saturation)


def prove(*, quick=False):
    """Walk all patterns; in a quick run those within 2^18 of the ends of each step."""
    part = "the float32 inputs within 2^18 patterns of either end of a step (a quick run)"
    covered = part if quick else "all 2^32 float32 inputs"
    return settle(failures(1 << 18 if quick else None), f"{covered}, SatFinite and OvfNaN")
