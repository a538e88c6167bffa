"""How many random words go up: the laws of few random bits.

With D = 3 discarded bits and N = 2 random ones, nu = 5/8 is 2.5 quarters. Of the four words 0 .. 3

    A  floor(2.5) = 2 go up        B  floor(2.5 + 1/2) = 3        C  2.5 to nearest, ties to even = 2

A never errs upwards; B and C are off by half a word at most, and C is right on average over nu.
"""

import math
from fractions import Fraction

from qsim.prove import Method, Theorem, settle
from qsim.reference import away
from qsim.rounding import Mode

THEOREM = Theorem(
    statement="Let nu = i / 2^D be the discarded fraction and R uniform on 0 .. 2^N - 1. The number of words that go up is "
    "floor(nu 2^N) for A, floor(nu 2^N + 1/2) for B, and nu 2^N to nearest with ties to even for C; these are the largest "
    "words, whatever the sign and the parity. Hence, in units of the interval and away from zero: the bias of A is in "
    "(-2^-N, 0], at worst -(2^-N - 2^-D) for D > N, that of B and C at most 2^-(N+1) either way; the rounding is unbiased for "
    "every nu iff N >= D; the mean bias over the 2^D fractions is (2^-D - 2^-N)/2 for A with D >= N, 2^-(D+1) for B with "
    "D > N, 0 for C with N >= 1, and 0 for all with N >= D; and no word goes up iff nu < 2^-N (A), nu < 2^-(N+1) (B), "
    "nu <= 2^-(N+1) (C)",
    hypotheses=("D and N are at most 10",),
    idea="Integers only: every D, N, i and R is put to the reference's rule and counted.",
    method=Method.EXHAUSTIVE,
    reference="IEEE P3109 interim report 4.0, 4.7.4 (StochasticA, B, C); the table is derived here",
)

LARGEST, QUICK = 10, 5
HALF = Fraction(1, 2)

UP = {
    Mode.SRA: math.floor,
    Mode.SRB: lambda scaled: math.floor(scaled + HALF),
    Mode.SRC: round,  # Python rounds a Fraction's ties to even
}


def failures(d, n, every_word):
    """Yield what is wrong with D = `d` and N = `n`: every word is counted, or the two on either side of the first."""
    words, whole = 1 << n, 1 << d
    for mode, law in UP.items():
        biases = []
        for i in range(whole):
            nu = Fraction(i, whole)
            count = law(nu * words)
            first = words - count  # the smallest word that goes up
            tried = range(words) if every_word else {0, words - 1, *range(max(first - 1, 0), min(first + 1, words))}
            for r in tried:
                if away(mode, nu, bool(i & 1), bool(r & 1), n, r) != (r >= first):
                    yield f"{mode} with N = {n}: nu = {nu} and R = {r}, of the words {count} should go up, the largest"
            biases.append(Fraction(count, words) - nu)
            yield from stagnation(mode, nu, n, count)
        yield from bias(mode, d, n, biases)


def stagnation(mode, nu, n, count):
    """Yield if no word goes up for another fraction than the law says."""
    none = {
        Mode.SRA: nu < Fraction(1, 1 << n),
        Mode.SRB: nu < Fraction(1, 2 << n),
        Mode.SRC: nu <= Fraction(1, 2 << n),
    }[mode]
    if (count == 0) != none:
        yield f"{mode} with N = {n}: {count} words go up at nu = {nu}"


def bias(mode, d, n, biases):
    """Yield what is wrong with the biases at the 2^D fractions."""
    last, finest = Fraction(1, 1 << n), Fraction(1, 1 << d)
    least, most = {Mode.SRA: (min(finest - last, Fraction(0)), 0)}.get(mode, (-last / 2, last / 2))
    if not least <= min(biases) <= max(biases) <= most or (mode is Mode.SRA and min(biases) != least):
        yield f"{mode} with D = {d}, N = {n}: the biases are {min(biases)} .. {max(biases)}, not {least} .. {most}"
    if any(biases) == (n >= d):
        yield f"{mode} with D = {d}, N = {n}: {'biased' if any(biases) else 'unbiased'}"
    mean = {
        Mode.SRA: (finest - last) / 2,
        Mode.SRB: finest / 2,
        Mode.SRC: Fraction(0) if n else None,
    }[mode]
    mean = Fraction(0) if n >= d else mean
    if mean is not None and sum(biases) != mean * len(biases):
        yield f"{mode} with D = {d}, N = {n}: the mean bias is {sum(biases) / len(biases)}, not {mean}"


def prove(*, quick=False):
    """Count all words for D, N <= 10; in a quick run for D, N <= 5, and the words around the first that goes up beyond."""
    every = QUICK if quick else LARGEST
    found = (
        failure
        for d in range(LARGEST + 1)
        for n in range(LARGEST + 1)
        for failure in failures(d, n, every_word=max(d, n) <= every)
    )
    words = "every word" if not quick else f"every word for D, N <= {every}, else those beside the first that goes up"
    return settle(found, f"A, B and C, every D, N <= {LARGEST} and every nu = i / 2^D: {words}")
