"""The relative error of one stochastic rounding: E (SR(x) - x)^2 <= u^2 / (1 + 2u) x^2, and no better.

With u = 2^-p the unit roundoff, an interval of a binade starts at lo >= 2^(p-1) of its steps, so hi <= (1 + 2u) lo:

    lo ------- x ------------------ hi           E (SR(x) - x)^2 = (hi - x)(x - lo)
    1                               1 + 2u       largest against x^2 at the harmonic mean of lo and hi
"""

from fractions import Fraction

from qsim.formats import catalogue
from qsim.prove import Method, Theorem, settle
from qsim.reference import sr_moments

THEOREM = Theorem(
    statement="For x in the normal range of a float format of precision p, u = 2^-p: E (SR(x) - x)^2 <= u^2 / (1 + 2u) x^2, "
    "with equality exactly at the harmonic mean of a power of two and the next value. With lo = 1, hi = 1 + 2u the difference "
    "of the two sides is the square ((1 + u) x - (1 + 2u))^2 / (1 + 2u); a longer lo, against which the interval is shorter, "
    "only gains",
    hypotheses=("D <= N random bits", "|x| is at least the smallest normal number and at most the largest"),
    idea="The identity is between polynomials of degree 2 in x and at most 4 in u, so it holds if it does at three values of x "
    "for each of five of u. For each interval [m, m + 1] of a binade, 2^(p-1) <= m < 2^p, the largest ratio 1 / (4 m (m + 1)) "
    "is taken at the harmonic mean and compared exactly; the reference's moments are asked there.",
    method=Method.EXACT,
    reference="maximum of (hi - x)(x - lo) / x^2 at the harmonic mean; compare Connolly, Higham and Mary 2021, section 2 "
    "(|SR(x) - x| <= 2u |x|)",
)

WIDEST = 11


def identity():
    """Yield where u^2 x^2 - (1 + 2u)(1 + 2u - x)(x - 1) and ((1 + u) x - (1 + 2u))^2 differ."""
    for u in map(Fraction, (1, 2, 3, 4, 5)):
        for x in map(Fraction, (0, 1, 2, 3)):
            left = u**2 * x**2 - (1 + 2 * u) * (1 + 2 * u - x) * (x - 1)
            if left != ((1 + u) * x - (1 + 2 * u)) ** 2:
                yield f"u = {u}, x = {x}: the two polynomials differ"


def constants(p):
    """Yield intervals of precision `p` whose largest ratio exceeds the bound, or reaches it elsewhere than at the start."""
    u = Fraction(1, 1 << p)
    bound = u**2 / (1 + 2 * u)
    for m in range(1 << (p - 1), 1 << p):
        x = Fraction(2 * m * (m + 1), 2 * m + 1)
        ratio = (m + 1 - x) * (x - m) / x**2
        if ratio != Fraction(1, 4 * m * (m + 1)) or ratio > bound or (ratio == bound) != (m == 1 << (p - 1)):
            yield f"precision {p}: the largest ratio in [{m}, {m + 1}] is {ratio}, the bound {bound}"


def in_format(fmt):
    """Yield values of a format where the reference's variance at the harmonic mean is not what the constant says."""
    u = Fraction(1, 1 << fmt.precision)
    bound = u**2 / (1 + 2 * u)
    first = 1 << fmt.man_bits
    for ordinal in range(first, fmt.top):
        lo, hi = fmt.value(ordinal), fmt.value(ordinal + 1)
        x = 2 * lo * hi / (lo + hi)
        mean, variance = sr_moments(x, fmt)
        if mean != x or variance > bound * x**2 or (variance == bound * x**2) != (ordinal % first == 0):
            yield f"{fmt}: at {x} the variance is {variance}, the bound {bound * x**2}"


def prove():
    """Check the identity, every interval of a binade up to 11 bits of precision, and every interval of the 8-bit formats."""
    formats = [
        fmt for fmt in catalogue().values() if fmt.kind == "float" and fmt.bits <= 8 and fmt.has_zero and not fmt.gap
    ]
    found = (
        *identity(),
        *(failure for p in range(1, WIDEST + 1) for failure in constants(p)),
        *(failure for fmt in formats for failure in in_format(fmt)),
    )
    return settle(
        found,
        f"the identity as polynomials, every interval of a binade for p <= {WIDEST}, and every normal interval of "
        f"{len(formats)} formats of up to 8 bits",
    )
