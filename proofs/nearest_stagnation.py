"""Nearest rounding stagnates: which small updates are lost, and when a moving average freezes.

A weight w is updated by d and rounded to nearest even, precision p. Between the midpoints beside w every update is lost:

    w-      m-  w          m+          w+         w = 2^e: m- is 2^-(p+1) w away, m+ 2^-p w
    |-------:---|----------:-----------|
"""

from fractions import Fraction

from qsim.formats import get_format
from qsim.prove import Method, Theorem, settle
from qsim.reference import quantize

THEOREM = Theorem(
    statement="Let w be a normal number of precision p, in the range with room for its neighbours. RNE(w + d) = w for every "
    "|d| <= 2^-(p+1) |w|, and RNE(w + d) != w for every |d| > 2^-p |w|; neither constant can be moved: at powers of two the "
    "one fails just above it downwards, and d = 2^-p w is lost upwards. A moving average w <- RNE(beta w) keeps every w iff "
    "1 - beta <= 2^-(p+1), and changes every w iff 1 - beta >= 1 / (2^p + 2), p >= 2. So bfloat16 (p = 8) never decays at "
    "beta >= 0.998046875, and always does at beta <= 1 - 1/258",
    hypotheses=("0 < beta < 1", "w is above the smallest normal number, below which the spacing stays"),
    idea="Every w is put to the reference with d at both constants and just beyond; rounding is monotone, so what holds there "
    "holds on either side. For beta between the two constants some w moves and another does not.",
    method=Method.EXHAUSTIVE,
    reference="Ozkara, Yu and Park, arXiv 2502.20566, for the stagnation of nearest updates; the constants are derived here",
)

FORMATS = ("float8_e4m3fn", "float8_e5m2", "float6_e2m3fn", "Binary8p3se", "float16", "bfloat16")
QUICK = FORMATS[:4]
JUST = 1 + Fraction(1, 1 << 60)


def kept(fmt, w, d):
    """Return whether the update `d` of `w` is lost."""
    return Fraction(quantize(w + d, fmt)) == w


def failures(fmt):
    """Yield what is wrong with the normal numbers of a format; negative ones mirror them."""
    lost, seen = Fraction(1, 1 << (fmt.precision + 1)), Fraction(1, 1 << fmt.precision)
    frozen, moved = lost, Fraction(1, (1 << fmt.precision) + 2)
    tight = set()
    for ordinal in range(fmt.first_normal + 1, fmt.top):
        w = fmt.value(ordinal)
        for sign in (1, -1):
            for here in (w, -w):
                if not kept(fmt, here, sign * lost * w):
                    yield f"{fmt}: {float(here)!r} does not lose an update of {sign} 2^-{fmt.precision + 1} of it"
                if kept(fmt, here, sign * seen * w * JUST):
                    yield f"{fmt}: {float(here)!r} loses an update just above 2^-{fmt.precision} of it"
            tight |= {("lost", sign)} if not kept(fmt, w, sign * lost * w * JUST) else set()
            tight |= {("seen", sign)} if kept(fmt, w, sign * seen * w) else set()
        if not kept(fmt, w, -frozen * w) or kept(fmt, w, -moved * w):
            yield f"{fmt}: {float(w)!r} does not stay at 1 - beta = {frozen}, or stays at {moved}"
        tight |= {"moves"} if not kept(fmt, w, -frozen * w * JUST) else set()
        tight |= {"stays"} if kept(fmt, w, -moved * w / JUST) else set()
    if tight != {("lost", -1), ("seen", 1), "moves", "stays"}:
        yield f"{fmt}: the constants are met by {sorted(map(str, tight))} alone"


def prove(*, quick=False):
    """Put every normal number to the reference; in a quick run of four small formats."""
    names = QUICK if quick else FORMATS
    found = (failure for name in names for failure in failures(get_format(name)))
    return settle(found, f"every normal number of {', '.join(names)}" + (" (a quick run)" if quick else ""))
