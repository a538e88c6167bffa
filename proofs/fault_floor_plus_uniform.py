"""A production fault: floor(x + u) in float32 moves integers; comparing the fraction with the word does not.

A uniform u just below 1 rounds away when it is added to a large x: the sum of two float32 is a float32.

    x = 127    u = 1 - 2^-24        127 + u = 127.99999994..., between the float32 127.99999237 and 128: it becomes 128
"""

import numpy as np

from qsim.formats import get_format
from qsim.kernels import cpu
from qsim.kernels.parameters import parameters, stochastic
from qsim.prove import Method, Theorem, settle
from qsim.prove.specification import FLOAT32
from qsim.rounding import Mode, Saturation

THEOREM = Theorem(
    statement="Let u be uniform on the 2^24 numbers k / 2^24, and x = 1 .. 127 an integer. In float32 floor(x + u) is x + 1 "
    "for 2^e of them, where 2^e <= x < 2^(e+1) (for 64 <= x with probability 2^-18), so that stochastic rounding by it moves "
    "values that it should leave, always up. The kernel to INT8 leaves each of them by every word",
    hypotheses=(),
    idea="All 2^24 uniforms are added to every x. The kernel adds the word to the discarded fraction, which is 0; "
    "so the largest word is the one that could go up, and words of all magnitudes are tried.",
    method=Method.EXHAUSTIVE,
    reference="torchao's stochastic rounding to INT8, floor(x + rand); peers' survey in 2026",
)

BITS = 24


def failures(values):
    """Yield an x for which another number of uniforms goes up than the statement says, or that the kernel moves."""
    u = np.arange(1 << BITS, dtype=np.float32) / np.float32(1 << BITS)
    words = np.array([0, *(1 << k for k in range(32)), *((1 << k) - 1 for k in range(33))], np.uint32)
    p = parameters(get_format("int8"), Saturation.saturate, FLOAT32.dtype)
    for x in values:
        up = int(np.count_nonzero(np.floor(np.float32(x) + u) != x))
        expected = 1 << (x.bit_length() - 1)
        if up != expected:
            yield f"x = {x}: {up} of the uniforms go up, not {expected}"
        for sign in (1, -1):
            patterns = np.full(words.size, sign * x, np.float32).view(np.uint32)
            y = np.empty_like(patterns)
            cpu.round_by_words(patterns, words, y, stochastic(Mode.SR, 32, FLOAT32.dtype), p)
            for word in words[y != patterns]:
                yield f"x = {sign * x}: the kernel moves it by the word {word:#x}"


def prove(*, quick=False):
    """Add all 2^24 uniforms to each x; in a quick run to five of them."""
    values = (1, 2, 7, 63, 126) if quick else range(1, 128)
    shown = "1, 2, 7, 63, 126 (a quick run)" if quick else "1 .. 127"
    return settle(failures(values), f"all 2^24 uniforms added to x = {shown}; the kernel on x and -x")
