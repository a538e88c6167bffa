"""A-T1: a weight gradient's mean and variance under stochastic rounding.

For a batch of b samples, with output errors d (b x m) and input activations x (b x n), a quantized backward pass
computes

    G_ij = (1/b) sum_s SR(d_si) SR(x_sj)
"""

import itertools
import math
from collections import Counter
from fractions import Fraction

from qsim import reference
from qsim.formats import get_format
from qsim.prove import Method, Theorem, settle

THEOREM = Theorem(
    statement="E G_ij = (1/b) sum_s d_si x_sj, and Var G_ij = (1/b^2) sum_s [d_si^2 v(x_sj) + x_sj^2 v(d_si) + "
    "v(x_sj) v(d_si)] with v(z) = (hi - z)(z - lo), lo and hi the neighbours of z in its format. An operand that is "
    "not rounded has v = 0: only the first term is left where only activations are rounded, only the second where "
    "only errors are",
    hypotheses=(
        "the random words of all elements, of both operands, are independent and uniform",
        "no element is beyond the largest value of its format",
        "the discarded bits D of each element are at most N, the bits of its random word",
    ),
    idea="SR(z) has mean z and variance v(z); for independent P and Q, Var PQ = (E P)^2 Var Q + (E Q)^2 Var P + "
    "Var P Var Q; samples are independent, so variances add, and 1/b comes out squared. Checked by adding over every "
    "combination of outcomes of all roundings in a layer.",
    method=Method.EXACT,
    reference="derived; the setting, and the decay of this variance as 1/b, are those of Liu, Andronic, Gunduz and "
    "Constantinides, Training with Fewer Bits, Findings of EMNLP 2025, arXiv 2511.00874",
)

N = 5
"""Bits of a random word; an outcome's probability is the number of words that give it, of 2^N."""

LAYERS = (  # (format of the errors, errors, format of the activations, activations), one row a sample
    # two binades apart, a zero, a value on the grid (0.3125), a subnormal (0.00439453125)
    ("float8_e5m2", [[0.3125, -1.40625], [0.0, 6.5]], "float8_e4m3fn", [[1.03125, 0.00439453125], [-3.3125, 17.0]]),
    # an even grid, down to 1/32 of an interval
    ("int4", [[-7.75, 0.5], [2.25, -3.0]], "int4", [[6.96875, -0.03125], [1.5, 4.0]]),
    # three samples; powers of two, where each interval is twice the last
    ("e4m0fn", [[3.0], [-0.0068359375], [40.0]], "e4m2fn", [[1.875, -1.0], [0.125, 0.0], [-9.5, 0.01171875]]),
    # one sample: half of the smallest value, and the largest
    ("float8_e4m3fn", [[-0.0009765625, 448.0]], "e2m1f", [[5.0, -0.25]]),
)


def outcomes(z, fmt):
    """Return what `z` rounds to by the reference, with probabilities: [(value, probability), ...]."""
    if fmt is None:
        return [(Fraction(z), Fraction(1))]
    counts = Counter(reference.quantize(z, fmt, "SRA", sr_bits=N, rbits=r) for r in range(2**N))
    return [(Fraction(value), Fraction(count, 2**N)) for value, count in counts.items()]


def v(z, fmt):
    """Return Var SR(z) as the statement has it."""
    if fmt is None:
        return Fraction(0)
    lo, hi = map(Fraction, get_format(fmt).neighbours(z))
    return (hi - Fraction(z)) * (Fraction(z) - lo)


def enumerated(d_format, errors, x_format, activations):
    """Return {(i, j): (E G_ij, Var G_ij)} by adding over every combination of outcomes."""
    b, m, n = len(errors), len(errors[0]), len(activations[0])
    laws = [outcomes(z, d_format) for row in errors for z in row]
    laws += [outcomes(z, x_format) for row in activations for z in row]
    mean, square = Counter(), Counter()
    for combination in itertools.product(*laws):
        probability = math.prod(p for _, p in combination)
        values = [value for value, _ in combination]
        d, x = values[: b * m], values[b * m :]
        for i, j in itertools.product(range(m), range(n)):
            g = sum(d[s * m + i] * x[s * n + j] for s in range(b)) / b
            mean[i, j] += probability * g
            square[i, j] += probability * g**2
    return {ij: (mean[ij], square[ij] - mean[ij] ** 2) for ij in mean}


def stated(d_format, errors, x_format, activations):
    """Return {(i, j): (E G_ij, Var G_ij)} by the closed form."""
    b = len(errors)
    moments = {}
    for i, j in itertools.product(range(len(errors[0])), range(len(activations[0]))):
        pairs = [(Fraction(errors[s][i]), Fraction(activations[s][j])) for s in range(b)]
        terms = [
            d**2 * v(x, x_format) + x**2 * v(d, d_format) + v(x, x_format) * v(d, d_format)
            for d, x in pairs
        ]  # fmt: skip
        moments[i, j] = sum(d * x for d, x in pairs) / b, sum(terms) / b**2
    return moments


def cases():
    """Yield every layer with both operands rounded, with only activations, and with only errors."""
    for d_format, errors, x_format, activations in LAYERS:
        for formats in ((d_format, x_format), (None, x_format), (d_format, None)):
            yield formats[0], errors, formats[1], activations


def failures():
    """Yield each entry of a gradient whose moments are not the stated ones."""
    for case in cases():
        found, claimed = enumerated(*case), stated(*case)
        for ij, moments in found.items():
            if moments != claimed[ij]:
                yield f"G_{ij} of {case}: mean and variance are {moments}, stated are {claimed[ij]}"


def prove():
    """Enumerate all outcomes of all layers."""
    return settle(failures(), f"every rounding outcome of {len(LAYERS)} layers of 1 to 3 samples, three ways each")
