"""The scalar core: bits of a float in, bits of the rounded float (or its code) out.

One source serves four readers: Python, `numba.njit`, PTX through `numba.cuda`, and an SMT solver (`qsim.prove.smt`
reads this file's syntax tree). So it is if-free (conditional expressions, `min`, `max`), integers only, and typed: the
type of the argument, uint32 for float32 and uint64 for float64, is the *word* of the whole computation, and every
intermediate is wrapped in it. (Numba types uint32 + uint32 as uint64; an unwrapped sum would keep its carry there and
lose it elsewhere.) Shifts never reach the width of the word: most are masked to it, so that a compiler can see it too
and takes the vector shifts of that width.

The picture, for |x| with bit pattern a, and a grid whose lowest bit lies s places above the lowest bit of x:

    a = EEEEEEEEFFFFFFFFFFFFFFFFFFFFFFF        pattern: exponent field, fraction field
                     |<----- s ------>|        s bits are discarded
    r =              |rrrrrrrrrrrrrrrr|rrr     a word, its top s bits below the grid: what is added
    n = (a + (r >> (W - s))) >> s              the neighbour that x goes to, counted along the grid

Every rounding is this addition: x goes up iff f + r carries out of a word, f the s discarded bits at the top of one. The
addend r depends on the mode, the sign, the random word, and on whether the lower neighbour's code is even or odd. With
h half of a word's range and w the random word's top N bits:

    RNE   h - 1 (even), h (odd)    exactly half carries with h, and does not with h - 1; likewise RNA h, RNZ h - 1,
                                   RNP and RNN one of both by sign
    RTZ   0                        nothing carries; RAZ the largest word: all but 0 does; RUP and RDN one of both by
                                   sign; RTO the largest word (even) or 0 (odd)
    SRA   w                        f + w carries iff floor(nu 2^N) + R >= 2^N
    SRB   w + q, q half of the     2R + 1 is w + q in units of half of w's last bit
          last bit of w
    SRC   w + q, - 1 if odd        f rounds to at least 2^N - R iff f >= 2^N - R - 1/2, and > if that is odd
    SRE   0 or the largest word    by the top bit of w

A carry out of the fraction field runs into the exponent field, as a carry should. Below the grid's smallest
value only that and zero are left to choose from. A deterministic mode then compares patterns; a random word is added to
the fraction as above, as many of its bits as a word has. Bits that are dropped so count for odd SRC, SRE and Threshold:
`sticky` says that x goes up as well where f + r is the largest word, and something was lost.

The result is a pattern or a code, as the parameters say. Codes of a sign count the values of a format, and n, less
where its binade begins along the grid, is that count. The ends of the range are patterns, or codes, likewise.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from numpy import uint64

from qsim.kernels.compiled import portable

__all__ = [
    "Addends",
    "Parameters",
    "Stochastic",
    "addend",
    "bounded",
    "clamped",
    "counted",
    "counting",
    "deterministic",
    "eps_addend",
    "flush",
    "last_to_zero",
    "mirrored",
    "of_sign",
    "philox4x32_10",
    "ranged",
    "reflected",
    "round_bits",
    "round_word",
    "stochastic",
]


class Parameters(NamedTuple):
    """Hold the parameters of carrier, format and result; every field is a word of the carrier's width.

    "Position" counts bits upwards from the lowest bit of the carrier's subnormals, which is position 1. A result is a
    pattern of the carrier, or a code.
    """

    # the carrier
    fraction_bits: Any  # stored fraction bits: 23 or 52
    last: Any  # word width - 1, the largest shift of a word
    sign: Any  # the sign bit
    inf: Any  # pattern of infinity
    # what a result is
    keep: Any  # for patterns `last`: n goes back to its place; for codes 0
    count: Any  # for codes all bits: n is counted from the beginning of its binade; for patterns 0
    skip: Any  # for codes of a format without a zero 1: the smallest value has code 0; else 0
    flip: Any  # for two's complement codes all bits of a code: those that a minus sign turns; else 0
    minus: Any  # what a minus sign adds then: the sign bit, of a pattern or a code; for two's complement 1
    # the grid
    largest: Any  # the largest word; no constant of the loops, or LLVM takes a comparison for an overflow it cannot vectorize
    floor: Any  # position of the grid's lowest bit in its even part
    lowest: Any  # position where a normal number of the format begins: the spacing grows from here; `floor` if it never does
    parity: Any  # what the lowest bit of an exponent field must be added to be the code's: that bit, or 0
    quantum: Any  # pattern of the smallest positive value
    halfway: Any  # pattern of half of it, rounded down
    tiny: (
        Any  # largest pattern of which no bit of the exponent field is left in n; the largest word where there is none
    )
    smallest: Any  # the smallest positive value, as a result
    # the range; signed results, but for the ends, which are magnitudes
    top: Any  # end of the positive numbers
    bottom: Any  # of the negative ones
    over_pos: Any  # result of an overflow
    over_neg: Any
    inf_pos: Any  # of an infinity
    inf_neg: Any
    nan_pos: Any  # of a NaN
    nan_neg: Any
    zero_pos: Any  # of a positive number that rounds to zero
    zero_neg: Any  # of a negative one


class Addends(NamedTuple):
    """Hold the addends of a deterministic mode: by sign of the input, and by parity of the lower code."""

    even_pos: Any
    odd_pos: Any
    even_neg: Any
    odd_neg: Any


class Stochastic(NamedTuple):
    """Say how the bits of a random word make an addend."""

    mask: Any  # the bits that count: the top N
    half: Any  # half of the last of them; 0 where SRA or SRE
    last: Any  # SRC: the last of them; else 0
    flip: Any  # SRC with N = 0, whose target 2^0 - 0 is odd although no bit says so: 1; else 0
    all_or_none: Any  # SRE: all bits set; else 0


# --- What is added -----------------------------------------------------------------------------------------


@portable
def addend(bits: Any, source: Any) -> Any:
    """Return the addend of the random word `bits`, its N bits at the top, and whether it is sticky; see `Stochastic`."""
    word = type(bits)
    kept = word(bits & source.mask)
    spread = (source.all_or_none if kept > word(0) else word(0)) if source.all_or_none > word(0) else kept
    odd = word(word(kept & source.last) ^ source.flip) > word(0)
    less = word(1) if odd else word(0)
    sticky = less if source.all_or_none == word(0) else (word(1) if kept > word(0) else word(0))
    return word(word(spread | source.half) - less), sticky


@portable
def eps_addend(eps: Any, negative: Any) -> Any:
    """Return the addend of Threshold(eps / 2^W), with W the word's width, and whether it is sticky.

    The fraction is that of the way from the lesser neighbour: it exceeds eps iff f + ~eps carries, or a bit below was lost. For
    a negative number it is 1 - nu, and that does not exceed eps iff the word of nu reaches 2^W - eps, lost bits or not.
    """
    word = type(eps)
    return (eps if negative else word(~eps)), (word(0) if negative else word(1))


@portable
def last_to_zero(even: Any, p: Any) -> Any:
    """Return the largest pattern below the smallest value that goes to zero, by a deterministic mode's addend for even codes.

    The largest word takes all to the smallest value, 0 none; those from half of it on go there by h, those above it by h - 1.
    """
    word = type(even)
    tie = word(max(p.halfway, word(1)) - word(1)) if even >= p.sign else p.halfway
    near = tie if even > word(0) else word(p.quantum - word(1))
    return word(0) if even == p.largest else near


# --- Comparisons that are cheaper in vectors -----------------------------------------------------------------


@portable
def exceeds(a: Any, limit: Any, p: Any) -> Any:
    """Return whether `a`, without a sign bit, is above `limit`, likewise or the largest word, which stands for -1.

    The difference has a sign bit then, which selects in a vector without a comparison, and unsigned vectors have none.
    """
    word = type(a)
    return word(limit - a) >= p.sign


@portable
def negative(u: Any, p: Any) -> Any:
    """Return a word of ones where `u` has a sign bit, else 0."""
    word = type(u)
    return word(word(0) - word(u >> p.last))


@portable
def of_sign(mask: Any, pos: Any, neg: Any) -> Any:
    """Return `neg` where `mask` is a word of ones, `pos` where it is 0: two operations, whatever else depends on the sign."""
    word = type(mask)
    return word(pos ^ word(mask & word(pos ^ neg)))


# --- From a magnitude to its neighbour ---------------------------------------------------------------------


@portable
def binade(a: Any, p: Any) -> Any:
    """Return the position of the magnitude `a`, or `lowest` where that is less: the bits below `floor` of it are discarded."""
    word = type(a)
    return min(max(word(a >> p.fraction_bits), word(1)), p.lowest)


@portable
def along(a: Any, even: Any, odd: Any, p: Any) -> Any:
    """Return the neighbour of the magnitude `a` that the addend for its parity leads to, as a result without sign or range.

    Some of the exponent field must be left of n, or a = 0. Where it is the last bit of n, the code's is that plus parity.
    """
    word = type(a)
    e = binade(a, p)
    s = word(word(p.floor - e) & p.last)
    rest = word(p.last ^ s)
    r = odd if word(word(a ^ p.parity) << rest) >= p.sign else even
    n = word(word(a + word(word(r >> word(1)) >> rest)) >> s)
    begins = word(word(e - word(1)) << word(word(p.fraction_bits - s) & p.last))
    return word(word(n << word(s & p.keep)) - word(begins & p.count))


@portable
def deterministic(a: Any, even: Any, odd: Any, small: Any, p: Any) -> Any:
    """Round the magnitude `a` as `along` does; patterns up to `small`, that of `last_to_zero`, go to zero."""
    word = type(a)
    return along(max(a, p.quantum) if exceeds(a, small, p) else word(0), even, odd, p)


@portable
def counting(a: Any, even: Any, odd: Any, _: Any, p: Any) -> Any:
    """Return the code that `deterministic` does, of a format that has a zero: how many values lie below.

    The beginning of the binade is taken off before the shift, so that the bits of the whole significand are shifted: those of a
    number nearer to zero than any exponent field says are shifted out, and nothing of it need be asked.
    """
    word = type(a)
    e = binade(a, p)
    m = word(a - word(word(e - word(1)) << p.fraction_bits))
    s = min(word(p.floor - e), p.last)
    rest = word(p.last ^ s)
    r = odd if word(m << rest) >= p.sign else even
    return word(word(m + word(word(r >> word(1)) >> rest)) >> s)


@portable
def stochastic(a: Any, r: Any, sticky: Any, p: Any) -> Any:
    """Round the magnitude `a` by the addend `r` of a random word, as `along` does.

    Up to `tiny` the fraction is the significand, its top bit that of a word, shifted down by k. From k = W on all is lost.
    """
    word = type(a)
    position = max(word(a >> p.fraction_bits), word(1))
    k = word(word(p.floor - min(position, p.lowest)) - word(p.fraction_bits + word(1)))
    hidden = word(min(word(a >> p.fraction_bits), word(1)) << p.last)
    m = word(word(a << word(p.last - p.fraction_bits)) | hidden)
    shifted = word(m >> word(k & p.last))
    inside = k <= p.last
    f = shifted if inside else word(0)
    back = word(f << word(k & p.last))
    more = sticky if back != m else word(0)
    up = word(f + more) > word(p.largest ^ r)
    small = p.smallest if up else word(0)
    near = along(a, r, r, p)
    return near if exceeds(a, p.tiny, p) else small


# --- From a magnitude to the result ------------------------------------------------------------------------


@portable
def signed(y: Any, mask: Any, p: Any) -> Any:
    """Return the magnitude `y` of a result with the sign that `mask` says."""
    word = type(y)
    return word(word(y ^ word(mask & p.flip)) + word(mask & p.minus))


@portable
def ranged(y: Any, u: Any, p: Any) -> Any:
    """Return the result for the pattern `u`, whose magnitude rounds to `y`: with its sign, inside the range."""
    word = type(u)
    a = word(u & word(p.sign - word(1)))
    mask = negative(u, p)
    inside = signed(word(y - p.skip), mask, p)
    z = of_sign(mask, p.zero_pos, p.zero_neg) if y == word(0) else inside
    z = of_sign(mask, p.over_pos, p.over_neg) if exceeds(y, of_sign(mask, p.top, p.bottom), p) else z
    z = of_sign(mask, p.inf_pos, p.inf_neg) if a == p.inf else z
    return of_sign(mask, p.nan_pos, p.nan_neg) if a > p.inf else z


@portable
def unless_nan(z: Any, u: Any, p: Any) -> Any:
    """Return `z`, or the result of a NaN, whatever its sign."""
    word = type(u)
    return p.nan_pos if word(u & word(p.sign - word(1))) > p.inf else z


@portable
def sign_unless_zero(y: Any, u: Any, p: Any) -> Any:
    """Return the magnitude `y`, unless it is 0, with the sign of `u`; or the NaN."""
    word = type(u)
    return unless_nan(signed(y, negative(word(u & word(word(0) - y)), p), p), u, p)


@portable
def sign_always(y: Any, u: Any, p: Any) -> Any:
    """Return the magnitude `y` with the sign of `u`, in a bit of its own; or the NaN."""
    word = type(u)
    return unless_nan(word(y | word(negative(u, p) & p.minus)), u, p)


@portable
def clamped(y: Any, u: Any, p: Any) -> Any:
    """Return the result of `ranged` where all beyond an end, infinities too, becomes that end, and there is no -0."""
    return sign_unless_zero(min(y, p.bottom if u >= p.sign else p.top), u, p)


@portable
def bounded(y: Any, u: Any, p: Any) -> Any:
    """Return the result of `ranged` where all beyond becomes an end likewise, the ends are mirror images, and there is -0."""
    return sign_always(min(y, p.top), u, p)


@portable
def counted(y: Any, u: Any, p: Any) -> Any:
    """Return the result of `clamped` for codes in two's complement, of which -0 is 0 as it stands."""
    word = type(u)
    mask = negative(u, p)
    z = word(word(word(min(y, of_sign(mask, p.top, p.bottom)) ^ mask) - mask) & p.flip)
    return unless_nan(z, u, p)


@portable
def mirrored(y: Any, u: Any, p: Any) -> Any:
    """Return the result of `ranged` where overflows and infinities have one result and its mirror image, without -0."""
    return sign_unless_zero(p.over_pos if exceeds(y, p.top, p) else y, u, p)


@portable
def reflected(y: Any, u: Any, p: Any) -> Any:
    """Return the result of `ranged` where overflows and infinities are mirror images likewise, and there is -0."""
    return sign_always(p.over_pos if exceeds(y, p.top, p) else y, u, p)


# --- The whole ---------------------------------------------------------------------------------------------


@portable
def round_bits(u: Any, even: Any, odd: Any, small: Any, p: Any) -> Any:
    """Return the result of the pattern `u` by a deterministic mode: its addends for even and odd codes, and `last_to_zero`."""
    word = type(u)
    return ranged(deterministic(word(u & word(p.sign - word(1))), even, odd, small, p), u, p)


@portable
def round_word(u: Any, r: Any, sticky: Any, p: Any) -> Any:
    """Return the result of the pattern `u` by the addend `r` of a random word, sticky or not."""
    word = type(u)
    return ranged(stochastic(word(u & word(p.sign - word(1))), r, sticky, p), u, p)


@portable
def flush(u: Any, limit: Any, p: Any) -> Any:
    """Return pattern `u`, or the zero of its sign (`p.zero_neg` or `p.zero_pos`) where its magnitude is below `limit`."""
    word = type(u)
    small = word(u & word(p.sign - word(1))) < limit
    return (p.zero_neg if u >= p.sign else p.zero_pos) if small else u


M0, M1 = uint64(0xD2511F53), uint64(0xCD9E8D57)
W0, W1 = uint64(0x9E3779B9), uint64(0xBB67AE85)
LOW, HALF = uint64(0xFFFFFFFF), uint64(32)


@portable
def philox4x32_10(c0: Any, c1: Any, c2: Any, c3: Any, k0: Any, k1: Any) -> Any:
    """Return the four 32-bit words of one Philox4x32-10 block, in uint64 lanes, as all arguments are.

    (c0, c1, c2, c3) is the counter, (k0, k1) the key. In 64-bit lanes the widening multiply needs no shuffles, and reads the
    lower halves alone: the upper ones need not be cleared before, and do not enter the result.
    Source: Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", SC 2011; Random123 philox.h.
    """
    for _ in range(10):
        p0 = uint64(M0 * uint64(c0 & LOW))
        p1 = uint64(M1 * uint64(c2 & LOW))
        c0 = uint64(uint64(p1 >> HALF) ^ uint64(c1 ^ k0))
        c2 = uint64(uint64(p0 >> HALF) ^ uint64(c3 ^ k1))
        c1, c3 = p1, p0
        k0 = uint64(uint64(k0 + W0) & LOW)
        k1 = uint64(uint64(k1 + W1) & LOW)
    return uint64(c0 & LOW), uint64(c1 & LOW), uint64(c2 & LOW), uint64(c3 & LOW)
