"""The scalar core: bits of a float in, bits of the rounded float (or its code) out.

One source serves four readers: Python, `numba.njit`, PTX through `numba.cuda`, and an SMT solver (`qsim.prove.smt`
reads this file's syntax tree). So it is if-free (conditional expressions, `min`, `max`), integers only, and typed: the
type of the argument, uint32 for float32 and uint64 for float64, is the *word* of the whole computation, and every
intermediate is wrapped in it. (Numba types uint32 + uint32 as uint64; an unwrapped sum would keep its carry there and
lose it elsewhere.) Shifts never reach 64, which no reader but Python defines.

The picture, for |x| with bit pattern a, and a grid whose lowest bit lies s places above the lowest bit of x:

    a = EEEEEEEEFFFFFFFFFFFFFFFFFFFFFFF        pattern: exponent field, fraction field
                     |<----- s ------>|        s bits are discarded
    low = a >> s                               the lower neighbour, counted along the grid
    f = the s discarded bits, as a fraction of the interval, in the top bits of a word

Every rounding is one comparison: up iff f > t. The threshold t depends on the mode, the sign, the random word, and on
whether the lower neighbour's code is even or odd. With h half of a word's range and r the random word's top N bits:

    RNE   h (even), h - 1 (odd)    exactly half is above h - 1, and not above h; likewise RNA h - 1, RNZ h,
                                   RNP and RNN one of both by sign
    RTZ   the largest word         nothing is above it; RAZ 0; RUP and RDN one of both by sign; RTO 0 (even) or it (odd)
    SRA   ~r                       f + r carries out of the word iff f > ~r
    SRB   ~(r + q), q half of the  2R + 1 is r + q in units of half of r's last bit
          last bit of r
    SRC   ~(r + q), + 1 if odd     f rounds to at least 2^N - R iff f >= 2^N - R - 1/2, and > if that is odd
    SRE   0 or the largest word    by the top bit of r

A fraction longer than a word loses its low bits. Where they count, for RAZ and its like and for odd SRC, `sticky` says
so: then up iff f > t, or f = t and something was lost.

The result is (low + up) << s: a carry out of the fraction field runs into the exponent field, which is what a carry
should do. Where s exceeds the fraction field, only zero and the grid's first value are left to choose from.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from numba.extending import register_jitable as portable
from numpy import uint64

__all__ = [
    "Parameters",
    "Stochastic",
    "Thresholds",
    "encode_bits",
    "eps_threshold",
    "flush",
    "philox4x32_10",
    "round_bits",
    "stochastic_threshold",
]


class Parameters(NamedTuple):
    """Hold what the core must know of carrier and format; every field is a word of the carrier's width.

    "Position" counts bits upwards from the lowest bit of the carrier's subnormals, which is position 1.
    """

    # the carrier
    fraction_bits: Any  # stored fraction bits: 23 or 52
    last: Any  # word width - 1, the largest shift of a word
    sign: Any  # the sign bit
    inf: Any  # pattern of infinity
    # the grid
    discard: Any  # bits discarded from a number in the format's normal range; 0 for an even grid, which has none
    floor: Any  # position of the grid's lowest bit in its even part
    parity: Any  # added to an exponent field, its last bit is that of the code
    quantum: Any  # pattern of the smallest positive value
    # the range; each pattern with its sign
    top: Any  # largest magnitude of a positive result
    bottom: Any  # largest magnitude of a negative result, without its sign
    over_pos: Any  # result of an overflow
    over_neg: Any
    inf_pos: Any  # result of an infinity
    inf_neg: Any
    nan: Any  # result of a NaN
    nan_sign: Any  # the sign bit where a NaN keeps its sign; else 0
    zero_pos: Any  # result of a positive value that rounds to zero
    zero_neg: Any  # of a negative one
    # the codes
    normal: Any  # pattern of the smallest normal value; above all patterns for integers and fixed point
    rebias: Any  # exponent field of the carrier less that of the code, times 2^man_bits
    code_sign: Any  # the code's sign bit
    code_mask: Any  # all bits of a code
    code_inf: Any
    code_nan: Any
    code_nan_sign: Any  # the code's sign bit where NaNs have one; else 0
    twos: Any  # 1 where negative codes are two's complement, 0 for sign and magnitude


class Thresholds(NamedTuple):
    """Hold the thresholds of a deterministic mode: by sign of the input, and by parity of the lower code."""

    even_pos: Any
    odd_pos: Any
    even_neg: Any
    odd_neg: Any
    sticky: Any


class Stochastic(NamedTuple):
    """Say how the bits of a random word set a threshold."""

    mask: Any  # the bits that count: the top N
    half: Any  # half of the last of them; 0 where SRA or SRE
    last: Any  # SRC: the last of them; else 0
    flip: Any  # SRC with N = 0, whose target 2^0 - 0 is odd although no bit says so: 1; else 0
    all_or_none: Any  # SRE: all bits set; else 0


@portable
def shift(a: Any, p: Any) -> Any:
    """Return s, the number of low bits of |x| that lie below the grid; `a` is the pattern of |x|.

    The grid's lowest bit stands `discard` above that of x, but never below `floor`.
    """
    word = type(a)
    position = max(word(a >> p.fraction_bits), word(1))
    return word(max(p.floor, word(position + p.discard)) - position)


@portable
def significand(a: Any, p: Any) -> Any:
    """Return the significand of |x| as an integer, hidden bit included."""
    word = type(a)
    hidden = word(word(1) << p.fraction_bits)
    field = word(a & word(hidden - word(1)))
    return word(field | (hidden if a >= hidden else word(0)))


@portable
def discarded(m: Any, s: Any, p: Any) -> Any:
    """Return the fraction (m mod 2^s) / 2^s, its first bits filling a word; what falls below the word is dropped.

    For s <= W - 1, with W the width, that is m << (W - s), in two shifts since s may be 0; above, m >> (s - W).
    """
    word = type(m)
    near = word(word(m << word(1)) << word(p.last - min(s, p.last)))
    beyond = word(max(s, word(p.last + word(1))) - word(p.last + word(1)))
    far = word(m >> min(beyond, p.last))
    return near if s <= p.last else far


@portable
def lost(m: Any, s: Any, p: Any) -> Any:
    """Return 1 if `discarded` dropped a set bit of m, which it can where s exceeds the word's width, else 0."""
    word = type(m)
    beyond = min(word(max(s, word(p.last + word(1))) - word(p.last + word(1))), p.last)
    return word(0) if word(word(m >> beyond) << beyond) == m else word(1)


@portable
def stochastic_threshold(bits: Any, source: Any) -> Any:
    """Return the threshold that the random word `bits`, its N bits at the top, sets, and whether it is sticky.

    `source` says which bits count and how; see `Stochastic`.
    """
    word = type(bits)
    kept = word(bits & source.mask)
    spread = (source.all_or_none if kept > word(0) else word(0)) if source.all_or_none > word(0) else kept
    odd = word(word(kept & source.last) ^ source.flip) > word(0)
    extra = word(1) if odd else word(0)
    sticky = extra if source.all_or_none == word(0) else (word(1) if kept > word(0) else word(0))
    return word(word(~word(spread | source.half)) + extra), sticky


@portable
def round_bits(u: Any, even: Any, odd: Any, sticky: Any, p: Any) -> Any:
    """Return the pattern of the value that pattern `u` rounds to, up iff the discarded fraction exceeds the threshold.

    `even` and `odd` are the thresholds for a lower neighbour with an even and with an odd code; where `sticky` is 1, a
    fraction equal to the threshold but for bits lost below the word is above it.
    """
    word = type(u)
    a = word(u & word(p.sign - word(1)))
    negative = u >= p.sign
    s = shift(a, p)
    inside = s <= p.fraction_bits
    places = min(s, p.fraction_bits)
    low = word(a >> places)
    # At s = fraction_bits the last bit of `low` is the exponent field's, and the code's last bit is that plus parity.
    code = word(low + (p.parity if s == p.fraction_bits else word(0)))
    is_odd = word(code & (word(1) if inside else word(0))) > word(0)
    m = significand(a, p)
    f = discarded(m, s, p)
    t = odd if is_odd else even
    more = word(lost(m, s, p) & sticky)
    up = word(1) if (f >= t if more > word(0) else f > t) else word(0)
    y = word(word(low + up) << places) if inside else (p.quantum if up > word(0) else word(0))
    limit = p.bottom if negative else p.top
    signed = word(y | word(u & p.sign)) if y > word(0) else (p.zero_neg if negative else p.zero_pos)
    ranged = (p.over_neg if negative else p.over_pos) if y > limit else signed
    finite = (p.inf_neg if negative else p.inf_pos) if a == p.inf else ranged
    return word(p.nan | word(u & p.nan_sign)) if a > p.inf else finite


@portable
def encode_bits(u: Any, p: Any) -> Any:
    """Return the code of pattern `u`, a value of the format.

    Normal values shift their exponent and fraction fields into place and change the bias; even-spaced ones are counted.
    """
    word = type(u)
    a = word(u & word(p.sign - word(1)))
    position = max(word(a >> p.fraction_bits), word(1))
    counted = word(significand(a, p) >> min(word(max(p.floor, position) - position), p.last))
    magnitude = word(word(a >> p.discard) - p.rebias) if a >= p.normal else counted
    ranged = p.code_inf if a == p.inf else magnitude
    mirrored = word(word(word(0) - ranged) & p.code_mask) if p.twos > word(0) else word(ranged | p.code_sign)
    negative = u >= p.sign
    signed = mirrored if negative else ranged
    return word(p.code_nan | (p.code_nan_sign if negative else word(0))) if a > p.inf else signed


@portable
def eps_threshold(eps: Any, negative: Any) -> Any:
    """Return the threshold of Threshold(eps / 2^W), with W the word's width, and whether it is sticky.

    The fraction is that of the way from the lesser neighbour. For a negative number it is 1 - nu, and that does not exceed
    eps iff the word of nu reaches 2^W - eps, lost bits or not.
    """
    word = type(eps)
    return (word(~eps) if negative else eps), (word(0) if negative else word(1))


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

    (c0, c1, c2, c3) is the counter, (k0, k1) the key. In 64-bit lanes the widening multiply needs no shuffles.
    Source: Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", SC 2011; Random123 philox.h.
    """
    for _ in range(10):
        p0 = uint64(M0 * c0)
        p1 = uint64(M1 * c2)
        c0 = uint64(uint64(p1 >> HALF) ^ uint64(c1 ^ k0))
        c2 = uint64(uint64(p0 >> HALF) ^ uint64(c3 ^ k1))
        c1 = uint64(p1 & LOW)
        c3 = uint64(p0 & LOW)
        k0 = uint64(uint64(k0 + W0) & LOW)
        k1 = uint64(uint64(k1 + W1) & LOW)
    return c0, c1, c2, c3
