"""A production fault: a shift of 64 or more, which x86 takes modulo 64, makes 2^-6 of 2^-70.

The significand of a small number is aligned to the subnormal grid by a right shift of d = -6 - e places:

    x = 1.m 2^e        d = 64 for e = -70        m >> 64 is m on x86, not 0, and 1.m 2^-70 is taken for 1.m 2^-6
"""

import numpy as np

from qsim.formats import get_format
from qsim.kernels import cpu
from qsim.kernels.parameters import addends, parameters
from qsim.prove import Method, Theorem, settle
from qsim.prove.specification import FLOAT32
from qsim.rounding import Mode, Saturation

THEOREM = Theorem(
    statement="Round a positive float32 below 2^-6 to E4M3, to nearest even, by a shift of its significand of 20 + d places, "
    "d = -6 - e. With d taken modulo 64 the result is wrong for every x in [2^-70, 2^-69), and differs from zero, which is "
    "right, for some x of each exponent -70 .. -74 and of no other down to -126. With min(d, 40) it is the kernel's for all x",
    hypotheses=("x > 0 and x < 2^-6",),
    idea="Every fraction of every exponent is rounded in both ways and compared with the kernel.",
    method=Method.EXHAUSTIVE,
    reference="amd_hip_ocp_host.hpp and cast_to_f8 of HIP, run on a host: shift by the exponent difference; ROCm issue 10591",
)

P = parameters(get_format("float8_e4m3fn"), Saturation.SatFinite, FLOAT32.dtype)
SMALLEST = 2.0**-9


def to_nearest(m, d):
    """Return m / 2^(20 + d) to the nearest integer, ties to even; m has 24 bits, d <= 40."""
    places = np.uint64(20 + d)
    low = m >> places
    rest, half = m - (low << places), np.uint64(1) << (places - np.uint64(1))
    return low + ((rest > half) | ((rest == half) & (low % 2 == 1)))


def failures(step):
    """Yield the exponents at which one of the two ways is not as the statement says; every `step`-th fraction is tried."""
    fractions = np.unique(np.r_[0 : 1 << 23 : step, 1, (1 << 22) - 1, 1 << 22, (1 << 22) + 1, (1 << 23) - 1])
    for e in range(-126, -6):
        patterns = (fractions + ((e + 127) << 23)).astype(np.uint32)
        y = np.empty_like(patterns)
        cpu.round_by_addends(patterns, y, addends(Mode.RNE, FLOAT32.dtype), P)
        kernel = (y.view(np.float32) / np.float32(SMALLEST)).astype(np.uint64)
        m = (fractions + (1 << 23)).astype(np.uint64)
        d = -6 - e
        if (to_nearest(m, min(d, 40)) != kernel).any():
            yield f"exponent {e}: the bounded shift is not the kernel's"
        wrong = to_nearest(m, min(d % 64, 40)) != kernel
        if wrong.any() != (-74 <= e <= -70) or (e == -70 and not wrong.all()):
            yield f"exponent {e}: {np.count_nonzero(wrong)} of {wrong.size} fractions are wrong with the shift modulo 64"
    # Subnormal numbers have the exponent -126 at most, in steps of 2^-149: the shift of their significand is 20 + 120.
    if to_nearest(np.uint64((1 << 23) - 1), 40):
        yield "a subnormal number does not become zero"


def prove(*, quick=False):
    """Try every fraction of every exponent; in a quick run every 2^10th, and those at the ends and the middle."""
    step = 1 << 10 if quick else 1
    part = "every 2^10th fraction, and those beside 0, 1/2 and 1 (a quick run)" if quick else "all 2^23 fractions"
    return settle(failures(step), f"{part} of the exponents -126 .. -7, and the largest subnormal number")
