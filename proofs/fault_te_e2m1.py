"""A production rounding: E2M1 by adding u step(|x|) in float32, u = k / 256, is StochasticA with 8 bits, but for ties.

    x just below 1/4, k = 128      x + 1/4 = 1/2 - 2^-26, half way between two float32: the sum is 1/2, and x goes up

So it is biased toward zero by up to 2^-8 of an interval, as StochasticA with few bits is, and not unbiased.
"""

from fractions import Fraction

from qsim import reference
from qsim.formats import get_format
from qsim.prove import Method, Theorem, settle
from qsim.rounding import Mode

THEOREM = Theorem(
    statement="Let x be a float32 in [0, 6], k a word of 8 bits, j = fl(x + k / 256 step(x)), and the result j rounded toward "
    "zero to E2M1. It is a neighbour of x, a value of E2M1 stays, and it is StochasticA(8) of x and k for every x but those "
    "for which x + k / 256 step(x) is within half a unit in the last place below the next value: these go up. So P(up) is "
    "floor(256 nu) / 256 up to these, and the mean is below x by less than 2^-8 of the interval",
    hypotheses=("0 <= x <= 6",),
    idea="For one k both are monotone step functions of x, so that all that matters in an interval is the first x that goes "
    "up: it is found among the float32 patterns by bisection, with exact rationals and the reference's rounding to float32.",
    method=Method.EXHAUSTIVE,
    reference="TransformerEngine, stochastic_round_fp4_e2m1 in common/util/ptx.cuh (pull request 3281), read as described "
    "above: one fused multiply-add in float32, then truncation",
)

E2M1, FLOAT32 = get_format("float4_e2m1fn"), get_format("float32")


def goes_up(x, k, low, high):
    """Return whether x in [low, high) gets to `high` by the word k."""
    jittered = reference.quantize(x + Fraction(k, 256) * (high - low), "float32")
    return reference.quantize(jittered, "float4_e2m1fn", "RTZ") >= high


def first_up(k, low, high):
    """Return the ordinal of the first float32 of [low, high) that goes up by k; that of `high` if none does."""
    below, above = FLOAT32.ordinal(low) - 1, FLOAT32.ordinal(high)
    while above - below > 1:
        middle = (below + above) // 2
        below, above = (below, middle) if goes_up(FLOAT32.value(middle), k, low, high) else (middle, above)
    return above


def failures(words, early):
    """Yield where the statement is wrong; note in `early` the thresholds at which an x too small goes up."""
    for n in range(E2M1.top):
        low, high = E2M1.value(n), E2M1.value(n + 1)
        for k in words:
            first = first_up(k, low, high)
            exact = low + (high - low) * Fraction(256 - k, 256)  # the first x that StochasticA(8) takes up
            at = FLOAT32.ordinal(exact)
            if first == FLOAT32.ordinal(low):
                yield f"{float(low)!r} is moved by k = {k}"
            sum_of_first = FLOAT32.value(first) + Fraction(k, 256) * (high - low)
            last_place = high - FLOAT32.value(FLOAT32.ordinal(high) - 1)
            if first > at or high - sum_of_first > last_place / 2:
                yield f"k = {k}: the first to go up in [{float(low)!r}, {float(high)!r}) is {float(FLOAT32.value(first))!r}"
            if first < at:
                early.append((float(FLOAT32.value(first)), k))
            if reference.encode(exact, E2M1, Mode.SRA, sr_bits=8, rbits=k) != E2M1.code(n + 1):
                yield f"k = {k}: {float(exact)!r} does not go up by StochasticA(8)"


def prove(*, quick=False):
    """Find the first x to go up in every interval for every word; in a quick run for every 16th word and its neighbour."""
    words = [k for k in range(256) if not quick or k % 16 in (0, 15)]
    early = []
    found = list(failures(words, early))
    x, k = early[0] if early else (0.0, 0)
    tail = f" ({len(words)} words, a quick run)" if quick else ""
    remark = f"; {len(early)} thresholds let an x below them up, the first {x!r} by k = {k}" if early else ""
    return settle(found, f"every interval of E2M1 and every word{tail}{remark}")
