"""Faults of the random word: taken otherwise than it should be, or compared with something else."""

from __future__ import annotations

import functools
import operator
from collections.abc import Callable
from fractions import Fraction
from typing import Any

import numpy as np
from numpy.typing import NDArray

from qsim.explain.faults.directions import floored
from qsim.explain.faults.fractions import complement
from qsim.explain.faults.rules import PARTS, Named, Rule, of_sign, turning
from qsim.explain.lines import Lines
from qsim.explain.oracle import Flags, Part, wide
from qsim.rounding import Mode

__all__ = ["FEW", "FLOOR", "FROM_LESSER", "of_signed_words", "of_unknown_words", "of_words"]

FLOOR = (
    "adds the word in the input's own precision: floor(|x| + u) in floats",
    "adds the word in the input's own precision: floor(x + u) in floats",
)
COMPLEMENTED = "uses the complemented word"
COMPLEMENT_OF_NEGATIVES = "for negative numbers the word is complemented (floor(x + u) on signed values)"
FROM_LESSER = "measures the fraction from the lesser neighbour, as floor(x + u) does"

FEW = "goes away iff u < nu, u of few random bits: with the probability ceil(nu 2^k) / 2^k"

Words = NDArray[Any]
"""int64, or Python's integers in an array of objects."""


def of_words(mode: Mode, n: int) -> Named:
    """Yield the ways to use a random word of `n` bits wrongly."""
    whole = 1 << n
    yield "compares with > instead of >=, as if the word were one less", turning(lambda v: _margin(v) > 0)
    yield "adds one more than the word (R + 1, the carry kept)", turning(lambda v: _margin(v) >= -_step(mode))
    yield "uses the word R + 1, and 0 after the last", _by_word(lambda r: (r + 1) % whole)
    yield "uses the word R + 1, and the last one as it is", _by_word(lambda r: np.minimum(r + 1, whole - 1))
    yield "uses the word R - 1, and the last before 0", _by_word(lambda r: (r - 1) % whole)
    yield (
        f"{COMPLEMENTED}: goes away from zero for small words (rand < frac)",
        _by_word(lambda r: whole - 1 - r),
    )
    yield (
        "goes away from zero iff R <= nu 2^N: the complemented word, and one more",
        turning(lambda v: v.words <= floor_of(v.at.nu, n)),
    )
    yield (
        "goes away from zero iff R <= nu 2^N, exact values aside",
        turning(lambda v: (v.words <= floor_of(v.at.nu, n)) & ~v.at.nu.zero),
    )
    for k in range(n, 0, -1):
        yield (
            f"goes away iff u < nu, u of {k} bits: with the probability ceil(nu 2^{k}) / 2^{k}",
            turning(functools.partial(_less, n, k)),
        )
        yield (
            f"rounds the fraction up to {k} bits: with the probability ceil(nu 2^{k}) / 2^{k}",
            turning(functools.partial(_rounded_up, n, k)),
        )
    yield "divides the word by 2^N - 1 instead of 2^N", turning(_one_short)
    yield (
        "uses the word with its top bit inverted, as if it were a signed number",
        _by_word(lambda r: r ^ whole // 2),
    )
    yield "uses the word with its bits reversed", _by_word(functools.partial(_reversed, n, 1))
    if n % 8 == 0 and n > 8:
        yield "uses the word with its bytes reversed", _by_word(functools.partial(_reversed, n, 8))
    for k in range(n - 1, 0, -1):
        ending = ": N is one smaller" if k == n - 1 else ""
        yield f"uses only the top {k} of the word's {n} bits{ending}", _by_top(n, k)
        yield f"uses the low {k} of the word's {n} bits instead of the top ones", _by_low(k)
    if n < 64:
        yield "takes the word for one of N + 1 bits, its top bit 0: N is one larger", _by_word(lambda r: r, n + 1)
    yield FROM_LESSER, turning(_from_lesser)
    for k in range(n):
        yield f"bit {k} of the word is always 1", _by_word(functools.partial(operator.or_, 1 << k))
        if k:  # without its last bit a word has N - 1
            yield f"bit {k} of the word is always 0", _by_word(functools.partial(operator.and_, ~(1 << k)))
    for k in range(n):
        for other in (k - 1, k + 1):
            if 0 <= other < n:
                yield f"bit {k} of the word reads bit {other}", _by_word(functools.partial(_reads, k, other))
    yield (
        "never uses the word 0, but 1, as a shift register that has no 0",
        _by_word(lambda r: np.maximum(r, min(1, whole - 1))),
    )
    yield "never uses the last word, but the one before", _by_word(lambda r: np.minimum(r, max(whole - 2, 0)))
    for limited in (Mode.SRB, Mode.SRC, Mode.SRA) if mode is not Mode.SRE else ():
        if limited is not mode and not (limited is Mode.SRA and mode is Mode.SR):
            name = f"rounds by {limited} ({limited.value}) of the top"
            for k in range(n - 1, 0, -1):
                yield f"{name} {k} of the word's {n} bits", _by_top(n, k, limited)
    yield FLOOR[0], floored(None, signed=False)
    yield FLOOR[1], floored(None, signed=True)


def of_signed_words(mode: Mode, n: int) -> Named:
    """Yield the same for one of the two signs."""
    for name, rule in of_words(mode, n):
        if name in (FROM_LESSER, *FLOOR) or name.startswith(
            ("rounds by", "goes away iff u < nu", "rounds the fraction")
        ):
            continue
        both = name.startswith(COMPLEMENTED)
        yield COMPLEMENT_OF_NEGATIVES if both else name + PARTS[1], of_sign(rule, negative=True)
        yield name + PARTS[2], of_sign(rule, negative=False)


def of_unknown_words() -> Named:
    """Yield the ways to draw a word that show in a single answer: lines have the lowest and the highest word."""
    yield FEW, turning(lambda v: (v.words == 0) & ~v.at.nu.zero)


# --- In integers -----------------------------------------------------------------------------------------------------


def floor_of(nu: Part, k: int) -> Words:
    """Return floor(nu 2^k), 0 <= k <= 65."""
    if wide(k):
        return np.asarray((nu.word.astype(object) * 2 + (nu.tail >> 1)) >> (65 - k))
    return (nu.word >> np.uint64(64 - k) if k else np.zeros_like(nu.word)).astype(np.int64)


def ceil_of(nu: Part, k: int) -> Words:
    """Return ceil(nu 2^k), 0 <= k <= 64."""
    left = nu.word << np.uint64(k) if k < 64 else np.zeros_like(nu.word)
    return np.asarray(floor_of(nu, k) + ((left > 0) | nu.more))


def _step(mode: Mode) -> int:
    """Return by how much one more of the word raises the sum that a mode compares."""
    return 2 if mode in (Mode.SRB, Mode.SRE) else 1


def _margin(v: Lines) -> Words:
    """Return a stochastic mode's sum, less the sum at which x goes away from zero."""
    n, whole = v.n, 1 << v.n
    match v.mode:
        case Mode.SRB:
            return np.asarray(floor_of(v.at.nu, n + 1) + 2 * v.words + 1 - 2 * whole)
        case Mode.SRE:
            return np.where(v.at.nu.zero, -2 - whole, 2 * v.words - whole)
        case _:  # the first word with which x goes away is 2^N less the fraction in units of 2^-N
            return np.asarray(v.words - v.expected.first_word)


def _less(n: int, k: int, v: Lines) -> Flags:
    return np.asarray((v.words >> (n - k)) < ceil_of(v.at.nu, k)).astype(bool)


def _rounded_up(n: int, k: int, v: Lines) -> Flags:
    return np.asarray((v.words >> (n - k)) + ceil_of(v.at.nu, k) >= 1 << k).astype(bool)


def _one_short(v: Lines) -> Flags:
    """Return where nu (2^N - 1) + R >= 2^N - 1: where nu 2^N + R less 2^N - 1, an integer and a fraction, is at least nu."""
    n, whole = v.n, 1 << v.n
    over = np.asarray(floor_of(v.at.nu, n) + v.words - (whole - 1))
    goes = np.asarray(over > 0).astype(bool)
    for i in np.flatnonzero(np.asarray(over == 0) & v.finite).tolist():
        nu = v.fmt.split(Fraction(v.entering[i]))[1]
        goes[i] = nu * whole % 1 >= nu
    return goes


def _from_lesser(v: Lines) -> Flags:
    flipped = v.at.negative & ~v.at.nu.zero
    other = complement(v.at.nu)
    nu = Part(np.where(flipped, other.word, v.at.nu.word), np.where(flipped, other.tail, v.at.nu.tail))
    return np.asarray(v.goes(nu=nu) ^ flipped)


def _reversed(n: int, size: int, r: Words) -> Words:
    """Return words of `n` bits with their groups of `size` bits in reverse order."""
    mask = (1 << size) - 1
    return sum((((r >> k) & mask) << (n - size - k) for k in range(0, n, size)), start=0 * r)


def _reads(k: int, other: int, r: Words) -> Words:
    """Return the words r with their bit `other` in place of bit k."""
    return r & ~(1 << k) | ((r >> other & 1) << k)


def _by_word(change: Callable[[Words], Words], n: int | None = None, mode: Mode | None = None) -> Rule:
    return turning(lambda v: v.goes(words=change(v.words), n=n, mode=mode))


def _by_top(n: int, k: int, mode: Mode | None = None) -> Rule:
    return _by_word(lambda r: r >> (n - k), k, mode)


def _by_low(k: int) -> Rule:
    return _by_word(functools.partial(operator.and_, (1 << k) - 1), k)
