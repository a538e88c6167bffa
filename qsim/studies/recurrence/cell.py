"""One cell: the state of a recurrence, its exact distribution over all random words, and chains rounded by the kernels.

Over all random words the state is a Markov chain on the values of its format. Its distribution is propagated step by step,
without sampling; simulated chains, whose words are those of Philox, are compared with it.
"""

from __future__ import annotations

import functools
import hashlib
import math
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from scipy import stats

import qsim
from qsim.formats import Format, get_format, short_name
from qsim.rounding import Key, Mode, Quantizer, mode_fields
from qsim.underflow import gradual_underflow

__all__ = ["ROUNDS", "Cell", "compute", "exact_distribution", "fit", "grid_of", "philox", "simulate"]

Floats = NDArray[np.float64]

FEWEST = 25.0
"""Chains that a bin of the chi-square test is expected to hold at least: states that hold fewer share one."""
CHUNK = 64
"""Steps whose random words are drawn at a time."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Cell:
    """Describe one recurrence: format and rounding of its state, its memory, its input, and how words are drawn."""

    format: str
    mode: str
    decay: int
    input: Literal["charge", "decay"]
    rounds: int
    fault: str
    target: float
    spans: int
    chains: int
    seed: int

    @property
    def label(self) -> str:
        """The words that tell it from the others."""
        more = (f", {self.rounds} rounds" if self.rounds != ROUNDS else "") + (f", {self.fault}" if self.fault else "")
        return f"{short_name(self.format)} {self.mode}, a = 1 - 2^-{self.decay}, {self.input}{more}"

    @property
    def steps(self) -> int:
        """The number of steps."""
        return self.spans << self.decay

    @property
    def cost(self) -> float:
        """The work: steps, and those whose words are drawn by Python are dearer."""
        return self.steps * (3.0 if self.rounds != ROUNDS else 1.0)

    @property
    def memory(self) -> int:
        """The bytes that a process needs: the libraries, and the words of a few steps."""
        return (200 << 20) + 64 * self.chains * CHUNK

    @property
    def fields(self) -> dict[str, Any]:
        """The mode and its number of random bits."""
        return mode_fields(self.mode)

    @property
    def bits(self) -> int:
        """N, the number of random bits; 0 of a deterministic mode."""
        return int(self.fields.get("sr_bits", 32)) if self.fields["mode"].stochastic else 0

    @property
    def quantizer(self) -> Quantizer:
        """The rounding of the state, integers with the step 2^(1 - bits)."""
        fmt = get_format(self.format)
        return Quantizer(fmt, **self.fields, scale=step_of(fmt) or "none")

    @property
    def key(self) -> int:
        """A number that tells the cell from others: its random words are a stream of their own."""
        words = (self.format, self.mode, self.decay, self.input, self.rounds, self.fault)
        return int.from_bytes(hashlib.sha256(repr(words).encode()).digest()[:5], "little")


ROUNDS = 10
"""The rounds of Philox4x32 in the kernels."""


def step_of(fmt: Format) -> float:
    """Return the step of an integer state, 2^(1 - bits), and 0 of a float."""
    return 2.0 ** (1 - fmt.bits) if fmt.kind == "integer" else 0.0


# --- Theory: the exact distribution over all random words ------------------------------------------------------------


@functools.lru_cache(maxsize=8)
def grid_of(fmt: Format) -> Any:
    """Return the values of a format from 0 to 1, ascending: their numbers are their ordinals."""
    if fmt.kind == "integer":
        return np.arange((1 << (fmt.bits - 1)), dtype=np.float64) * step_of(fmt)
    top = fmt.ordinal(1.0)
    return np.array([float(fmt.value(k)) for k in range(top + 1)])


def coefficients(cell: Cell) -> tuple[np.float32, np.float32]:
    """Return a and u, numbers of float32: u takes the state to the target, or is 0."""
    a = np.float32(1 - 2.0**-cell.decay)
    u = np.float32(cell.target * 2.0**-cell.decay) if cell.input == "charge" else np.float32(0)
    return a, u


def up_probability(nu: Floats, odd: NDArray[np.bool_], cell: Cell) -> Floats:
    """Return the share of the 2^N words that take a fraction nu up: 0 or 1 for rounding to nearest."""
    if cell.fields["mode"] is Mode.RNE:
        nearest: Floats = ((nu > 0.5) | ((nu == 0.5) & odd)).astype(np.float64)
        return nearest
    share: Floats = np.floor(np.ldexp(nu, cell.bits)) * 2.0**-cell.bits
    return share


def first_state(cell: Cell, grid: Floats) -> int:
    """Return the ordinal of the state at first: 0, or the target to nearest."""
    if cell.input == "charge":
        return 0
    at = int(np.searchsorted(grid, cell.target))
    lower, upper = cell.target - grid[at - 1], grid[at] - cell.target
    return at - 1 if lower < upper or (lower == upper and (at - 1) % 2 == 0) else at


@gradual_underflow
def exact_distribution(cell: Cell, *, wide: bool = False) -> tuple[Floats, Floats]:
    """Return the values of the state's format, and the probability of each after the last step, over all random words.

    y = fl(fl(a h) + u) in float32, or float64 with `wide`, for each value h; of the 2^N words floor(nu 2^N) take it up, nu the
    fraction of the interval below y. Words of different steps are independent, so the distribution is that of a Markov chain.
    """
    grid = grid_of(get_format(cell.format))
    a, u = coefficients(cell)
    y: Floats = float(a) * grid + float(u) if wide else (a * grid.astype(np.float32) + u).astype(np.float64)
    low = np.clip(np.searchsorted(grid, y, side="right") - 1, 0, len(grid) - 2)
    nu = (y - grid[low]) / (grid[low + 1] - grid[low])  # exact: an interval is a power of two
    up = nu if wide else up_probability(nu, low % 2 == 1, cell)
    p: Any = np.zeros(len(grid))
    p[first_state(cell, grid)] = 1
    for _ in range(cell.steps):
        here = np.flatnonzero(p)
        q = p[here]
        rising = q * up[here]
        p = np.bincount(low[here], q - rising, len(grid)) + np.bincount(low[here] + 1, rising, len(grid))
    return grid, p


def unrounded(cell: Cell) -> float:
    """Return the state after the last step without rounding, from the same first state."""
    a, u = map(float, coefficients(cell))
    h = float(grid_of(get_format(cell.format))[first_state(cell, grid_of(get_format(cell.format)))])
    for _ in range(cell.steps):
        h = a * h + u
    return h


# --- Simulation ------------------------------------------------------------------------------------------------------

M0: Any = np.uint64(0xD2511F53)
M1: Any = np.uint64(0xCD9E8D57)
W0: Any = np.uint64(0x9E3779B9)
W1: Any = np.uint64(0xBB67AE85)
LOW: Any = np.uint64(0xFFFFFFFF)
HALF: Any = np.uint64(32)


def philox(first: int, count: int, key: Key, rounds: int) -> NDArray[np.uint32]:
    """Return the words of `count` blocks of Philox4x32 with so many `rounds`, from block `first` on, in the layout of `Key`.

    Source: Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", SC 2011, section 3.3.
    """
    blocks: Any = np.arange(first, first + count, dtype=np.uint64)
    c: Any = [blocks & LOW, blocks >> HALF, np.uint64(key.stream) & LOW, np.uint64(key.stream) >> HALF]
    k0, k1 = np.uint64(key.seed) & LOW, np.uint64(key.seed) >> HALF
    for _ in range(rounds):
        p0, p1 = M0 * c[0], M1 * c[2]
        c = [(p1 >> HALF) ^ c[1] ^ k0, p1 & LOW, (p0 >> HALF) ^ c[3] ^ k1, p0 & LOW]
        k0, k1 = (k0 + W0) & LOW, (k1 + W1) & LOW
    return np.stack(np.broadcast_arrays(*c), 1).astype(np.uint32).reshape(-1)


@gradual_underflow
def simulate(cell: Cell) -> NDArray[np.float32]:
    """Return the states of independent chains after the last step.

    In step t chain i takes the word i + t `chains` of the cell's stream.
    """
    a, u = coefficients(cell)
    q, grid = cell.quantizer, grid_of(get_format(cell.format))
    h = np.full(cell.chains, grid[first_state(cell, grid)], np.float32)
    key = Key(cell.seed, cell.key)
    blocks = cell.chains // 4
    drawn = np.zeros(0, np.uint32)
    for step in range(cell.steps):
        y = a * h + u
        if not q.mode.stochastic:
            qsim.quantize(y, q, out=h)
        elif cell.rounds == ROUNDS:
            qsim.quantize(y, q, key=key if cell.fault else key.after(step * cell.chains), out=h)
        else:
            if step % CHUNK == 0:
                drawn = philox(step * blocks, min(CHUNK, cell.steps - step) * blocks, key, cell.rounds)
            at = step % CHUNK * cell.chains
            qsim.quantize(y, q, sr_bits=cell.bits, rbits=drawn[at : at + cell.chains] >> (32 - cell.bits), out=h)
    return h


def compute(cell: Cell) -> dict[str, Any]:
    """Return the exact mean, deviation and drift of a cell, what its chains came to, and how likely so much is by chance."""
    grid, p = exact_distribution(cell)
    h = simulate(cell).astype(np.float64)
    wide = None
    if cell.fields["mode"] is Mode.SR and not cell.fault:  # what is left is no fault of its words
        grid, exact = exact_distribution(cell, wide=True)
        wide = (float(exact @ grid) - unrounded(cell)) / unrounded(cell)
    linear = unrounded(cell)
    mean = float(p @ grid)
    variance = float(p @ (grid - mean) ** 2)
    counts = np.bincount(np.searchsorted(grid, h), minlength=len(grid))[: len(grid)]
    z, bins = fit(counts, p * cell.chains)
    return {
        "format": cell.format, "mode": cell.mode, "bits": cell.bits, "decay": cell.decay, "input": cell.input,
        "rounds": cell.rounds, "fault": cell.fault, "steps": cell.steps, "chains": cell.chains,
        "unrounded.state": linear, "exact.mean": mean, "exact.deviation": math.sqrt(max(variance, 0.0)),
        "exact.drift": (mean - linear) / linear, "wide.drift": wide, "simulated.mean": float(h.mean()),
        "simulated.mean.error": math.sqrt(max(variance, 0.0) / cell.chains), "simulated.deviation": float(h.std()),
        "fit.z": z, "fit.bins": bins,
    }  # fmt: skip


def fit(counts: NDArray[np.int64], expected: Floats) -> tuple[float, int]:
    """Return how far counts are from what is expected, as a normal deviate of Pearson's chi-square, and its number of bins.

    States that are expected to hold fewer than `FEWEST` chains share a bin with their neighbours.
    """
    if counts[expected == 0].any():
        return IMPOSSIBLE, 0
    there = expected > 0
    counts, expected = counts[there], expected[there]
    ends = np.flatnonzero(
        np.diff(np.floor(np.cumsum(expected) / FEWEST), prepend=0) > 0
    )  # a bin ends where it has enough
    bins = np.zeros(len(expected), np.int64)
    bins[ends[:-1] + 1] = 1
    number = np.cumsum(bins)
    wanted, found = np.bincount(number, expected), np.bincount(number, counts)
    if len(wanted) == 1:
        return 0.0, 1
    square = float(((found - wanted) ** 2 / wanted).sum())
    freedom = len(wanted) - 1
    log = float(stats.chi2.logsf(square, freedom))
    above = log > math.log(0.5)
    z = (
        float(stats.norm.ppf(stats.chi2.cdf(square, freedom)))
        if above
        else -float(stats.norm.ppf(math.exp(max(log, -700))))
    )
    return max(min(z, IMPOSSIBLE), -IMPOSSIBLE), len(wanted)


IMPOSSIBLE = 1e3
"""The deviate of what cannot be: a chain in a state that no word leads to."""
