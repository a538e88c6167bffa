"""Stochastic rounding is unbiased, with variance (hi - x)(x - lo).

One interval of a format, with N = 2 random bits and an input that has D = 3 bits below the format's last:

    lo . . . . . x . hi        nu = 5/8: of the words R = 0, 1, 2, 3, two have floor(4 nu) + R = 2 + R >= 4
                               (nu itself is 2.5 of 4: what D has beyond N is lost, toward zero)
"""

from fractions import Fraction

import numpy as np

from qsim import reference
from qsim.formats import get_format
from qsim.kernels import cpu
from qsim.kernels.parameters import parameters, stochastic
from qsim.prove import Method, Theorem, settle
from qsim.prove.specification import FLOAT32
from qsim.rounding import Mode, saturations

THEOREM = Theorem(
    statement="Let lo <= x <= hi be neighbours in a format, D the number of bits of x below the format's last, and R "
    "uniform on 0 .. 2^N - 1. With D <= N: E SR(x) = x and Var SR(x) = (hi - x)(x - lo). With any D: of the 2^N words "
    "exactly floor(nu 2^N) take |x| up, nu the fraction of the interval below |x|, so the bias is in (-2^-N, 0] of the "
    "interval, toward zero",
    hypotheses=("x is not beyond the largest value of the format", "D <= N, for the two equalities"),
    idea="|x| goes up iff floor(nu 2^N) + R >= 2^N, and every word R is tried. The kernel's words have 32 bits, R on "
    "top; it makes one addition f + w, whose carry is monotone in the word w. So each R is tried with the other bits all "
    "0 and all 1, and what both give, every word between them gives.",
    method=Method.EXHAUSTIVE,
    reference="IEEE P3109 interim report 4.0, 4.7.4 (StochasticA); the moments follow from P(hi) = (x - lo)/(hi - lo)",
)

FORMATS = ("float8_e4m3fn", "float8_e5m2", "int4", "e4m0fn", "e2m1f", "e3m2fnuz")

BEYOND = 2
"""Inputs have up to N + BEYOND bits below the format's last; for D > N only the count of words is claimed."""

WITHIN = slice(None, None, 2**BEYOND)
"""Those of the inputs that have at most N."""


def intervals(fmt):
    """Yield the ends of every interval of `fmt`, that nearer to zero first."""
    for sign, limit in ((1, fmt.top), (-1, fmt.bottom)):
        for n in range(limit):
            yield sign * fmt.value(n), sign * fmt.value(n + 1)


def by_reference(x, fmt, n):
    """Yield what the reference gives, one row an input, one column a word of `n` bits; and which inputs it is for."""
    rows = [[reference.quantize(z, fmt, "SRA", sr_bits=n, rbits=r) for r in range(2**n)] for z in x.tolist()]
    yield slice(None), np.array(rows)


def by_kernel(x, fmt, n):
    """Yield the same of the kernel, with the bits below R all 0 and all 1: by SRA, and by SR for inputs with D <= N.

    SR reads all 32 bits of the word; what is below R cannot matter to an input that has no bits there.
    """
    p = parameters(fmt, saturations(fmt)[0], FLOAT32.dtype)
    below = (1 << (32 - n)) - 1
    sources = stochastic(Mode.SRA, n, FLOAT32.dtype), stochastic(Mode.SR, 32, FLOAT32.dtype)
    for inputs, source in zip((slice(None), WITHIN), sources, strict=True):
        patterns = x[inputs].astype(np.float32).view(np.uint32)
        on_top = np.tile(np.arange(2**n, dtype=np.uint32) << np.uint32(32 - n), patterns.size)
        patterns = np.repeat(patterns, 2**n)
        for rest in (0, below):
            y = np.empty_like(patterns)
            cpu.round_by_words(patterns, on_top | np.uint32(rest), y, source, p)
            yield inputs, y.view(np.float32).reshape(-1, 2**n)


def failures(method, fmt, n):
    """Yield the inputs whose `n`-bit words do not do what the statement says."""
    nu = [Fraction(i, 2 ** (n + BEYOND)) for i in range(2 ** (n + BEYOND))]
    floors = np.array([fraction * 2**n // 1 for fraction in nu], np.int64)
    for inner, outer in intervals(fmt):
        x = [inner + (outer - inner) * fraction for fraction in nu]
        for inputs, results in method(np.array(x, np.float64), fmt, n):
            up, down = results == float(outer), results == float(inner)
            wrong = (up.sum(axis=1) != floors[inputs]) | ~(up | down).all(axis=1)
            for i in np.flatnonzero(wrong):
                yield f"{float(x[inputs][i])!r} to {fmt}: not floor(nu 2^{n}) of the 2^{n} words give {float(outer)!r}"
        for z, floor in zip(x[WITHIN], floors[WITHIN].tolist(), strict=True):
            share = Fraction(floor, 2**n)
            mean = (1 - share) * inner + share * outer
            variance = (1 - share) * inner**2 + share * outer**2 - mean**2
            if mean != z or variance != (outer - z) * (z - inner):
                yield f"{float(z)!r} to {fmt}: mean {mean} and variance {variance} over 2^{n} words"


def prove(*, quick=False):
    """Count the words of every interval of six formats."""
    sizes = {by_reference: 2 if quick else 4, by_kernel: 6 if quick else 8}
    found = (
        failure
        for method, n in sizes.items()
        for fmt in map(get_format, FORMATS)
        for failure in failures(method, fmt, n)
    )
    words = " and ".join(f"N = {n} by the {method.__name__.removeprefix('by_')}" for method, n in sizes.items())
    return settle(
        found,
        f"every word, and every input with D <= N + {BEYOND} in every interval of {', '.join(FORMATS)}; {words}",
    )
