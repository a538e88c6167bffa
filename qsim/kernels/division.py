"""Division rounded to odd: a quotient of float64 that a second rounding, to fewer bits, cannot tell from the true one.

A number rounded to odd is on the same side of every float64 with an even last bit, and equals it iff the true quotient does
(Boldo and Melquiond 2008). So whatever is decided at such numbers, with one bit fewer than a float64, is decided rightly.
"""

from __future__ import annotations

from typing import Any

from numpy import int64, uint64

from qsim.kernels.compiled import Array, kernel, portable

__all__ = ["divide_all", "divide_to_odd"]

FRACTION, SIGN, INF = uint64(52), uint64(1 << 63), uint64(0x7FF << 52)
HIDDEN = uint64(1 << 52)
ZERO, ONE = uint64(0), uint64(1)


@portable
def normalized(a: Any) -> Any:
    """Return the 53-bit significand m and the exponent e of a positive finite pattern: its value is m 2^(e - 1074)."""
    field = uint64(a >> FRACTION)
    m = uint64(a & uint64(HIDDEN - ONE)) | (HIDDEN if field > ZERO else ZERO)
    e = int64(max(field, ONE)) - int64(1)
    while m < HIDDEN:
        m = uint64(m << ONE)
        e -= int64(1)
    return m, e


@portable
def divide_to_odd(x: Any, s: Any) -> Any:
    """Return the pattern of x / s rounded to odd, for patterns `x`, not NaN, and `s`, a positive finite number.

    A quotient beyond the largest float64 is the largest, whose last bit is odd.
    """
    sign, a = uint64(x & SIGN), uint64(x & ~SIGN)
    if a == ZERO or a >= INF:
        return x
    m, e = normalized(a)
    n, g = normalized(s)
    e -= g
    if m < n:
        m = uint64(m << ONE)
        e -= int64(1)
    # 1 <= m / n < 2: 53 bits of it, the first of them set, and whether anything is left.
    quotient = ZERO
    for _ in range(53):
        step = ONE if m >= n else ZERO
        quotient = uint64(uint64(quotient << ONE) | step)
        m = uint64(uint64(m - uint64(n * step)) << ONE)
    quotient |= ONE if m > ZERO else ZERO
    field = e + int64(1023)  # the quotient is its 53 bits, read as 1.b...b, times 2^e
    if field >= int64(2047):
        return uint64(sign | uint64(INF - ONE))
    if field >= int64(1):
        return uint64(sign | uint64(uint64(uint64(field) << FRACTION) | uint64(quotient & uint64(HIDDEN - ONE))))
    drop = uint64(min(int64(1) - field, int64(63)))
    kept = uint64(quotient >> drop)
    left = ONE if uint64(kept << drop) != quotient else ZERO
    return uint64(sign | uint64(kept | left))


@kernel()
def divide_all(x: Array, s: Array, y: Array) -> None:
    """Write the patterns of `x` / `s`, rounded to odd, into `y`; NaN stays as it is."""
    for i in range(x.size):
        y[i] = divide_to_odd(x[i], s[i])
