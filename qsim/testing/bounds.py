"""Tail bounds that hold for every number of draws: no test of a device or of random words rests on a limit theorem.

Each bound is on the natural logarithm of a probability, so that a share of 1e-300 is still told from one of 1e-30.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["by_chance", "chernoff", "chernoff_size", "divergence", "hoeffding", "hoeffding_limit"]

Floats = NDArray[np.float64]

BISECTIONS = 100
"""Halvings of an interval of [0, 1]: more than a float64 can tell apart."""


def divergence(q: Any, p: Any) -> Floats:
    """Return KL(q || p) = q ln(q/p) + (1-q) ln((1-q)/(1-p)) of two coins in nats; infinite where q may and p may not be."""
    q, p = np.broadcast_arrays(np.asarray(q, np.float64), np.asarray(p, np.float64))
    with np.errstate(divide="ignore", invalid="ignore"):
        heads = np.where(q > 0, q * np.log(q / p), 0.0)
        tails = np.where(q < 1, (1 - q) * (np.log1p(-q) - np.log1p(-p)), 0.0)
    return np.asarray(np.maximum(heads + tails, 0.0))  # it is never negative, its floats may be


def chernoff(successes: Any, draws: Any, p: Any) -> Floats:
    """Return a bound on ln P for a count as far from its mean as this one, on its side, doubled for two sides.

    k successes of n independent draws with the probability p: P(K >= k) <= exp(-n KL(k/n || p)) for k >= n p, and alike below
    (Chernoff 1952; Hoeffding 1963, theorem 1). So P(KL(K/n || p) >= c) <= 2 exp(-n c), for every n.
    """
    draws = np.asarray(draws, np.float64)
    return np.asarray(np.minimum(math.log(2) - draws * divergence(np.asarray(successes) / draws, p), 0.0))


def chernoff_size(p: Any, q: Any, alpha: float, beta: float) -> NDArray[np.int64]:
    """Return how many draws tell a coin q from a coin p: false alarms at most `alpha`, misses at most `beta`.

    `alpha` is that of `chernoff`, which alarms where n KL(k/n || p) >= a = ln(2/alpha). Let r lie between p and q with
    n KL(r || p) >= a and n KL(r || q) >= b = ln(1/beta). KL(. || p) grows away from p, so no alarm means that k/n lies on p's
    side of r, which for a coin q has a probability of at most exp(-n KL(r || q)) <= beta. The least n is that at which
    b KL(r || p) = a KL(r || q): from p to q the left side grows, and the right side falls.
    """
    a, b = math.log(2 / alpha), math.log(1 / beta)
    p, q = np.broadcast_arrays(np.asarray(p, np.float64), np.asarray(q, np.float64))
    near, far = p.copy(), q.copy()
    for _ in range(BISECTIONS):
        middle = (near + far) / 2
        further = b * divergence(middle, p) < a * divergence(middle, q)
        near, far = np.where(further, middle, near), np.where(further, far, middle)
    # At `far` the second condition may miss by what the bisection left: the draws are those that both ends ask for.
    with np.errstate(divide="ignore"):
        needed = np.minimum(
            np.maximum(a / divergence(near, p), b / divergence(near, q)),
            np.maximum(a / divergence(far, p), b / divergence(far, q)),
        )
    return np.ceil(needed).astype(np.int64)


def hoeffding(total: Any, squares: Any) -> Floats:
    """Return a bound on ln P(|S| >= |total|), for a sum S of martingale differences of which the i-th has a range of c_i.

    `squares` is the sum of the c_i^2: P(|S| >= t) <= 2 exp(-2 t^2 / sum c_i^2) (Hoeffding 1963, theorem 2; for differences
    that lie, given the past, in an interval of length c_i: Azuma 1967, McDiarmid 1989).
    """
    squares = np.asarray(squares, np.float64)
    with np.errstate(divide="ignore", invalid="ignore"):
        exponent = np.where(squares > 0, 2 * np.square(total) / squares, 0.0)
    return np.asarray(np.minimum(math.log(2) - exponent, 0.0))


def hoeffding_limit(squares: Any, rate: float) -> Any:
    """Return the t from which one side of that bound, exp(-2 t^2 / sum c_i^2), is at most `rate`."""
    return np.sqrt(np.asarray(squares, np.float64) * math.log(1 / rate) / 2)


def by_chance(log: float) -> str:
    """Say, in brackets, how likely something is by chance, from the logarithm of a bound; nothing for impossible events."""
    if math.isinf(log):
        return ""
    ten = log / math.log(10)
    return f" (by chance at most {math.exp(log):.2g})" if ten > -300 else " (by chance < 10^-300)"
