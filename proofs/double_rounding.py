"""A production fault: rounding to nearest twice, by way of a format in between.

Just above a midpoint of the target T, a number can round to that midpoint in the format I between, and then to even:

    T          1 ------------------ m ------------------ 1.125        m = 1.0625
    I          .    .    .    .    .|.    .    .    .    .
    x                               m + tiny                  -> m in I, -> 1 in T, though 1.125 is nearer
"""

import itertools
import math
from fractions import Fraction

from qsim import reference
from qsim.formats import catalogue, get_format
from qsim.prove import Method, Theorem, settle
from qsim.rounding import Mode

THEOREM = Theorem(
    statement="For a float format T of up to 8 bits, and numbers of the type S rounded to nearest even, first to I and then to "
    "T. From float64 by way of float32 or bfloat16, from float32 by way of bfloat16, float16 or tf32, and from tf32 by way of "
    "bfloat16 some number comes out wrong for every T that is not listed as harmless; where I holds all numbers of S, none "
    "does. If the first rounding is to odd instead, and I has at least two bits more than T and reaches as low and as high, "
    "none does",
    hypotheses=("overflow in I becomes infinity, for rounding to odd the largest number", "T saturates"),
    idea="Both ways of rounding are monotone step functions of x with values in T, and rounding once steps at the midpoints "
    "of T only. So they agree everywhere if they do at every midpoint, at the numbers of S next to it on either side, and at "
    "the values of T: all of these are tried, with the reference.",
    method=Method.EXHAUSTIVE,
    reference="Boldo and Melquiond 2008, Emulation of FMA and correctly rounded sums (rounding to odd); Figueroa 1995",
)

TARGETS = tuple(
    fmt.name for fmt in catalogue().values()
    if fmt.kind == "float" and fmt.bits <= 8 and fmt.signed and not fmt.family and not fmt.gap
)  # fmt: skip
CHAINS = (
    ("float64", "float32"), ("float64", "bfloat16"), ("float32", "bfloat16"), ("float32", "float16"), ("float32", "tf32"),
    ("tf32", "bfloat16"),
)  # fmt: skip
HARMLESS = (("float16", "float32"), ("bfloat16", "float32"), ("float16", "tf32"), ("bfloat16", "tf32"))
"""Pairs whose second format holds all numbers of the first."""


def candidates(source, target):
    """Yield the numbers where the two ways of rounding could part: all thresholds with their neighbours, both signs."""
    for n in range(target.top + 1):
        low, high = target.value(n), target.value(n + 1)
        middle = (low + high) / 2
        at, rest = source.split(middle)
        near = {at - 1, at, at + 1, at + 2 if rest else at, source.split(low)[0]}
        for ordinal, sign in itertools.product(sorted(k for k in near if 0 <= k <= source.top), (1, -1)):
            yield sign * source.value(ordinal)


def twice(x, between, target, first):
    """Return the code of x rounded to `between` by the mode `first`, and then to `target`."""
    y = reference.quantize(x, between, first, saturation="SatNone" if first is Mode.RNE else "SatFinite")
    return reference.encode(Fraction(y) if math.isfinite(y) else y, target, saturation="SatFinite")


def wrong(source, between, target, first):
    """Return a number that comes out otherwise by two roundings than by one, or `None`."""
    source, between, target = map(get_format, (source, between, target))
    for x in candidates(source, target):
        once = reference.encode(x, target, saturation="SatFinite")
        if twice(x, between, target, first) != once and x:
            return x
    return None


def failures(targets, harmless):
    """Yield where the statement is wrong; note in `harmless` the chains that do no harm."""
    for (source, between), target in itertools.product(CHAINS, targets):
        if wrong(source, between, target, Mode.RNE) is None:
            harmless.append(f"{source} to {between} to {target}")
    for (source, between), target in itertools.product(HARMLESS, targets):
        x = wrong(source, between, target, Mode.RNE)
        if x is not None:
            yield f"{float(x)!r} from {source} by way of {between} to {target}: not as at once"
    for (source, between), target in itertools.product(CHAINS, targets):
        i, t = get_format(between), get_format(target)
        if i.precision >= t.precision + 2 and i.emin <= t.emin - 2 and i.emax >= t.emax + 1:
            x = wrong(source, between, target, Mode.RTO)
            if x is not None:
                yield f"{float(x)!r} from {source} by way of {between}, to odd, to {target}: not as at once"


def prove(*, quick=False):
    """Try every threshold of every target; in a quick run of five."""
    targets = ("float8_e4m3fn", "float8_e5m2", "float8_e3m4", "float6_e2m3fn", "float4_e2m1fn") if quick else TARGETS
    harmless = []
    found = list(failures(targets, harmless))
    tail = " (a quick run)" if quick else ""
    listed = "; ".join(harmless) or "none"
    return settle(
        found, f"all thresholds of {len(targets)} targets{tail}. Chains of the first kind that do no harm: {listed}"
    )
