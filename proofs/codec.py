"""Codes and values are each other's image, in order.

code      ... 0x37   0x38   0x39 ...        sign and magnitude; two's complement for integers and posits
ordinal   ...   55     56     57 ...        the number of a value along the line
value     ... 0.9375   1    1.125 ...
"""

import itertools
import math

import numpy as np

from qsim.arrays import decode, encode
from qsim.errors import InputError
from qsim.formats import catalogue
from qsim.prove import Method, Theorem, settle

THEOREM = Theorem(
    statement="For every catalogue format of up to 16 bits: the ordinals -bottom .. top, their values and their codes are in "
    "bijection, and values ascend with ordinals; every code is one of these, -0, an infinity, a NaN or unused; decode gives "
    "the value of each, and encode gives back the code (of a NaN, the one that results have)",
    hypotheses=("for the arrays' encode and decode: float64 holds the values of the format",),
    idea="Every code of every format is tried: at most 2^16 for each.",
    method=Method.EXHAUSTIVE,
    reference="the standards that the entries of formats/ cite; IEEE 754-2019, 3.4; IEEE P3109 interim report 4.0, 4.7.2",
)

WIDEST, QUICK = 16, 10


def in_floats(fmt):
    """Return whether float64 holds the values, those of full precision as such."""
    try:
        encode(1.0, fmt)
    except InputError:
        return False
    return True


def failures(fmt):
    """Yield what is wrong with a format."""
    ordinals = range(-fmt.bottom, fmt.top + 1)
    values = [fmt.value(ordinal) for ordinal in ordinals]
    codes = [fmt.code(ordinal) for ordinal in ordinals]
    if any(a >= b for a, b in itertools.pairwise(values)):
        yield f"{fmt}: the values do not ascend with their ordinals"
    if len(set(codes)) != len(codes) or not all(0 <= code < 1 << fmt.bits for code in codes):
        yield f"{fmt}: two values have one code, or one has a code of too many bits"
    for ordinal, value in zip(ordinals, values, strict=True):
        if fmt.split(value) != (ordinal, 0) and (value or fmt.has_zero):
            yield f"{fmt}: {value} is the value of {ordinal}, but is found at {fmt.split(value)}"
    if not in_floats(fmt):
        return
    every = np.arange(1 << fmt.bits)
    table = fmt.values()
    expected = np.full(every.size, math.nan)
    expected[codes] = [float(value) for value in values]
    if fmt.has_neg_zero:
        expected[fmt.code(0, negative_zero=True)] = -0.0
    for negative in (False, True) if fmt.signed else (False,):
        if fmt.has_inf:
            expected[fmt.code_of_inf(negative=negative)] = -math.inf if negative else math.inf
    nan = np.isnan(table) & np.isnan(expected)
    for code in every[~nan & ((table != expected) | (np.signbit(table) != np.signbit(expected)))]:
        yield f"{fmt}: code {code:#x} decodes to {table[code]!r}, not {expected[code]!r}"
    named = ~np.isnan(table)
    back = encode(table[named], fmt, saturation="SatPropagate" if fmt.has_inf else None)
    for code in every[named][back != every[named]]:
        yield f"{fmt}: code {code:#x}, {table[code]!r}, is not what encode gives back"
    if decode(every[named], fmt, np.float64).tobytes() != table[named].tobytes():
        yield f"{fmt}: decode and the table of values differ"
    if fmt.has_nan and fmt.nan_to == "nan" and encode(math.nan, fmt) != fmt.nan_code:
        yield f"{fmt}: a NaN is not encoded as {fmt.nan_code:#x}"


def prove(*, quick=False):
    """Try every code of every catalogue format; in a quick run of up to 10 bits."""
    widest = QUICK if quick else WIDEST
    chosen = [fmt for fmt in catalogue().values() if fmt.bits <= widest]
    tail = f" of up to {widest} bits (a quick run)" if quick else f" of up to {widest} bits"
    floats = sum(map(in_floats, chosen))
    return settle(
        (failure for fmt in chosen for failure in failures(fmt)),
        f"every code of {len(chosen)} formats{tail}; encode and decode of the {floats} that float64 holds",
    )
