"""Plans for testing a stochastic device: the draws, the errors found with which power, and those that cannot be seen."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import numpy as np
from numpy.typing import NDArray

from qsim.errors import InputError
from qsim.formats import Format, Grid, get_format
from qsim.rounding import Mode, Saturation, parse_mode
from qsim.testing.bounds import chernoff_size, hoeffding_limit
from qsim.testing.check import make_task
from qsim.testing.observe import Base, Flags, Task
from qsim.underflow import gradual_underflow

__all__ = ["FAMILIES", "PAIRED", "WITHIN", "DevicePlan", "Floats", "plan_device_check", "reach_of_lanes"]

Floats = NDArray[np.float64]

STEADY = (0.25, 0.75)
"""Probabilities between which an outcome says enough of its word to be compared with another one's."""

PAIRED = 1024
"""The lanes of which every two are compared: the first so many steady ones."""

SHARES = (*(Fraction(k, 4) for k in (2, 1, 3)), *(Fraction(k, 16) for k in (1, 15, 5, 11, 3, 13, 7, 9)))
"""Fractions of an interval at which inputs lie; the first three, which lie in the steady lanes, are taken more often."""

FAMILIES = {
    "repeat": "any two calls, whether they are the same in every lane",
    "calls": "any two calls, over all lanes",
    "lanes": f"any two of the first {PAIRED:,} steady lanes, over all calls",
    "lag of lanes": "lanes of any distance, over all lanes and calls",
    "lag of calls": "calls of any distance, lane by lane, over all of them",
    "shift": "successive calls, one shifted by any number of lanes, over all of them",
    "mirror": "successive calls, one reversed and shifted by any number of lanes, over all of them",
}
"""The tests of independence: each compares the outcomes of many pairs of conversions."""

WITHIN = ("lanes", "lag of lanes")
"""The tests of elements of the same call; the others compare calls."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DevicePlan:
    """Hold the questions to a device, and the conclusions from the answers; `str` prints it. `plan_device_check` makes one."""

    #: The rounding; its function is nobody's yet.
    task: Task
    #: The false-alarm rate of all tests together, and the probability with which is found what is said to be.
    alpha: float
    power: float
    #: The least error of a probability that is to be found, in units of the interval.
    bias: float
    #: The random bits that are to be told from fewer.
    bits: int
    #: How often the device is called.
    calls: int
    #: The array that it is given each time: one number a lane.
    x: NDArray[Any]
    #: The cell of each lane: lanes of one cell hold the same number.
    cell: NDArray[np.intp]
    #: Of each cell: its number, the probability to go away from zero, and whether it is a value of the format.
    value: Floats
    p: Floats
    fixed: Flags
    #: The least error of its probability that is found with `power`; infinite where there is nothing to find.
    found: Floats

    @property
    def lanes(self) -> int:
        """The number of elements of the array."""
        return len(self.x)

    @property
    def draws(self) -> int:
        """The number of conversions, all calls and lanes."""
        return self.calls * self.lanes

    @property
    def open(self) -> Flags:
        """The cells with two outcomes."""
        return np.asarray((self.p > 0) & (self.p < 1))

    @property
    def steady(self) -> Flags:
        """The lanes whose outcomes are compared with each other's."""
        p = self.p[self.cell]
        return np.asarray((p >= STEADY[0]) & (p <= STEADY[1]))

    @property
    def per_cell(self) -> float:
        """The false-alarm rate of the test of one cell: half of the whole goes to frequencies, two tests being of all."""
        return self.alpha / 2 / (int(self.open.sum()) + 2)

    @property
    def common(self) -> float:
        """The least error common to all cells that is found with the stated power.

        The mean of the `n` outcomes less their probabilities has a mean of the error e. There is an alarm where it reaches
        t = sqrt(ln(2/alpha) / 2n), and none where it falls short of e by u = sqrt(ln(1/beta) / 2n) or more, with a probability
        of at most beta (`hoeffding`); so e = t + u is enough.
        """
        n = self.calls * int(self.open[self.cell].sum())
        return float(hoeffding_limit(n, self.per_cell / 2) + hoeffding_limit(n, 1 - self.power)) / max(n, 1)

    @property
    def rare(self) -> float:
        """The least rate of results that are no neighbour which is found: (1 - r)^n <= exp(-r n) <= beta."""
        return math.log(1 / (1 - self.power)) / self.draws

    def tests(self, family: str) -> int:
        """Return the number of comparisons of a family."""
        paired = min(int(self.steady.sum()), PAIRED)
        return {
            "repeat": self.calls * (self.calls - 1) // 2,
            "calls": self.calls * (self.calls - 1) // 2,
            "lanes": paired * (paired - 1) // 2,
            "lag of lanes": self.lanes - 1,
            "lag of calls": self.calls - 1,
            "shift": self.lanes - 1,
            "mirror": self.lanes,
        }[family]

    def per_test(self, family: str) -> float:
        """Return the false-alarm rate of one comparison: the other half of the whole, split evenly over families."""
        return self.alpha / 2 / len(FAMILIES) / max(self.tests(family), 1)

    @property
    def repeat(self) -> float:
        """Return ln P that two calls are the same in every lane: independent lanes agree with p^2 + (1 - p)^2 each."""
        p = self.p[self.cell]
        return float(np.log(p**2 + (1 - p) ** 2).sum())

    @property
    def shared_calls(self) -> float:
        """The least share of lanes in which two calls may take the same words and are found; above 1 where none is.

        See `_limits` for the test. In a lane that takes one word twice the product of two outcomes has the mean
        p (1 - p) >= 3/16, elsewhere 0; its range is at most that of the test, c = max(p, 1 - p), so the same bound holds
        below the mean: 3/16 s L must exceed the test's limit by that for the misses.
        """
        squares = float((reach_of_lanes(self) ** 2).sum())
        limit = hoeffding_limit(squares, self.per_test("calls") / 2) + hoeffding_limit(squares, 1 - self.power)
        lanes = int(self.steady.sum())
        return float(limit) / (3 / 16 * lanes) if lanes else math.inf

    @property
    def shared_lanes(self) -> float:
        """The least share of the pairs of lanes one step apart that may share their words and are found; above 1 where none is.

        A pair with one word for both has a covariance min(p, q) - p q >= 1/16, another pair 0. Where pairs share their
        words, take them one after another: the word of a pair settles at most two products, that within it and the one with the
        outcome before it, whose range together is at most 2. So 4 times the number of pairs, at most half of the products,
        takes the place of the sum of the c_i^2; a lane with its own word settles one product.
        """
        n = int((self.steady[1:] & self.steady[:-1]).sum()) * self.calls
        squares = self.calls * float((reach_of_lanes(self)[:-1] ** 2 * self.steady[1:]).sum())
        limit = hoeffding_limit(squares, self.per_test("lag of lanes") / 2)
        return float(limit + hoeffding_limit(2 * n, 1 - self.power)) / (n / 16) if n else math.inf

    @property
    def twins(self) -> bool:
        """Whether any two steady lanes with p = 1/2 that always share their words are found, with certainty: T/4 is the sum."""
        halves = int((self.p[self.cell[np.flatnonzero(self.steady)[:PAIRED]]] == 0.5).sum())
        return halves > 1 and bool(self.calls / 4 >= hoeffding_limit(self.calls / 4, self.per_test("lanes") / 2))

    def __str__(self) -> str:
        fine = self.p[self.open & (self.found == self.p)].min(initial=1.0)
        families = ", ".join(f"{name} {self.tests(name):,}" for name in FAMILIES)
        rates = f"{self.alpha / 2:g} for frequencies ({int(self.open.sum())} inputs and 2 sums)"
        moves = f"a value of the format that moves, if it does {self._rare_moves:.2g} times a draw"
        lines = [
            f"{self.task}: {self.calls:,} calls of {self.lanes:,} lanes, {self.draws:,} draws, {len(self.p)} different inputs",
            f"false alarms: at most {self.alpha:g} in all, {rates}, {self.alpha / 2:g} for dependence ({families})",
            f"found with a probability of at least {self.power:.6g}:",
            f"  a result that is no neighbour, if it comes {self.rare:.2g} times a draw; {moves}",
        ]
        lines.append(
            f"  a probability that is off by {self.bias:g} at one of the inputs, or by {self.common:.2g} at all of them"
        )
        if fine < 1:
            lines.append(
                f"  a probability of {fine:.3g} that is 0, or twice as large: fewer random bits than {self.bits}"
            )
        if self.repeat <= math.log(self.per_test("repeat")):
            lines.append("  two calls that take the same words in all lanes")
        if self.shared_calls <= 1:
            lines.append(f"  two calls that take the same words in {self.shared_calls:.2g} of the lanes")
        if self.shared_lanes <= 1:
            lines.append(f"  neighbouring lanes that share their words, {self.shared_lanes:.2g} of the pairs")
        if self.twins:
            lines.append(f"  any two of the first {PAIRED:,} steady lanes with p = 1/2 that always share their words")
        return "\n".join([*lines, f"cannot be seen: {self.blind}"])

    @property
    def blind(self) -> str:
        """The errors that the plan cannot see, in one sentence."""
        return (
            f"a smaller bias or rarer error than these; what happens at other inputs ({self._asked}), or after "
            f"{self.calls:,} calls; "
            f"random bits beyond the first {self.bits}; dependence that shows only among three or more conversions, or in "
            "fewer of them; and which word went where, as long as every conversion has its own: "
            "for this the words must be given (check_quantizer)"
        )

    @property
    def _asked(self) -> str:
        """Where the inputs lie."""
        fmt = self.task.fmt
        normal = ", from the smallest normal value on" if isinstance(fmt, Grid) and not fmt.even else ""
        sides = "of either sign, " if fmt.signed else ""
        return (
            f"asked are, {sides}the intervals next to zero{normal} and at the ends of the range, each at "
            f"{', '.join(str(share) for share in sorted(SHARES[:3]))}, and intervals all over the range, seldom twice in one"
        )

    @property
    def _rare_moves(self) -> float:
        fixed = int(self.fixed[self.cell].sum()) * self.calls
        return math.log(1 / (1 - self.power)) / fixed if fixed else math.inf


@gradual_underflow
def plan_device_check(
    fmt: str | Format,
    mode: str | Mode = Mode.SR,
    *,
    sr_bits: int | None = None,
    bias: float = 1 / 32,
    bits: int = 10,
    alpha: float = 1e-6,
    power: float = 0.99,
    calls: int = 256,
    inputs: int = 64,
    saturation: str | Saturation | None = None,
    codes: bool = False,
    dtype: Any = np.float32,
    seed: int = 0,
    most_draws: int = 1 << 27,
) -> DevicePlan:
    """Plan the inputs and draws by which an error of `bias` is found in a device that rounds stochastically.

    `fmt`, `mode`, `sr_bits`, `saturation`, `codes` and `dtype` are those of `check_quantizer`. `bias` is the least error of the
    probability of one input, in units of the interval, that must be found; a device with fewer than `bits` random bits must
    be, too. `inputs` inputs lie all over the range, and others always next to zero, from the smallest normal value on, and at
    the ends of the range. `alpha` bounds the false-alarm rate of all tests together; errors that the plan lists as found have
    the probability `power`. The device is called `calls` times with the same array, in which every input stands as often as its
    test needs, in an order that `seed` determines. Raise `InputError` where that takes more than `most_draws` draws.
    """
    mode = parse_mode(mode)
    if not mode.stochastic:
        raise InputError(f"{mode} is not stochastic; check_quantizer checks a deterministic rounding")
    for name, rate in (("alpha", alpha), ("power", power), ("bias", bias)):
        if not 0 < rate < 1:
            raise InputError(f"{name} = {rate!r} must lie between 0 and 1")
    for name, least, count in (("calls", 2, calls), ("inputs", 1, inputs), ("bits", 1, bits)):
        if type(count) is not int or count < least:
            raise InputError(f"{name} = {count!r} must be an integer of at least {least}")
    task = make_task(_nobody, get_format(fmt), mode, sr_bits, None, saturation, dtype, "any", None, codes=codes, ftz_in=False,
                     ftz_out=False, seed=seed, examples=0)  # fmt: skip
    task = dataclasses.replace(task, words=False)
    finest = min(bits, task.n)
    base, fine = _cells(task, inputs, finest)
    p = _probabilities(base)
    if not ((p > 0) & (p < 1)).any():
        raise InputError(
            f"{task} is never random: no {task.dtype} has two outcomes there; check_quantizer checks the rest"
        )
    off = np.where((p > 0) & (p < 1), np.where(fine, np.minimum(np.minimum(p, 1 - p), bias), bias), np.inf)
    plan = DevicePlan(
        task=task, alpha=alpha, power=power, bias=bias, bits=finest, calls=calls, x=base.x, cell=np.arange(len(p)),
        value=base.exact, p=p, fixed=base.on_grid, found=off,
    )  # fmt: skip
    copies = -(-_draws(plan) // calls)
    lanes = int(copies.sum())
    if lanes * calls > most_draws:
        raise InputError(
            f"bias = {bias:g} with bits = {bits} takes {lanes * calls:.2g} draws, more than most_draws = {most_draws:.2g}"
        )
    rng = np.random.Generator(np.random.PCG64(seed))
    # The many lanes of small probabilities come last: they say little of each other, and would stand between those that do.
    cell = np.concatenate([rng.permutation(np.repeat(np.flatnonzero(some), copies[some])) for some in (~fine, fine)])
    return dataclasses.replace(plan, x=base.x[cell], cell=cell)


def _nobody(_: NDArray[Any]) -> NDArray[Any]:
    """Stand for the device that a plan does not know; `check_stochastic_device` puts it in its place."""
    raise InputError("a plan has no device of its own; give it to check_stochastic_device together with one")


def _cells(task: Task, inputs: int, finest: int) -> tuple[Base, Flags]:
    """Return the inputs, each once, and which of them are there for their small probability, or that of staying.

    They lie in intervals all over the range, at `SHARES`, an eighth more being values of the format; in the intervals where
    units differ most, `_ends`; and two for every power of two down to 2^-finest lie so near to an end.
    """
    fmt = task.fmt
    shares = [SHARES[k % 3] if k % 2 else SHARES[3 + k // 2 % 8] for k in range(inputs)]
    shares += [Fraction(0)] * (-(-inputs // 8))
    near = [share for k in range(2, finest + 1) for share in (Fraction(1, 1 << k), 1 - Fraction(1, 1 << k))]
    first, last = -fmt.bottom, fmt.top
    golden = (5**0.5 - 1) / 2
    chosen = []
    for group in (shares, near):  # multiples of the golden ratio are spread evenly, and out of step with the shares
        for k, share in enumerate(group):
            ordinal = first + int((k + 1) * golden % 1 * (last - first))
            chosen.append(fmt.value(ordinal) + share * (fmt.value(ordinal + 1) - fmt.value(ordinal)))
    between = [
        fmt.value(ordinal) + share * (fmt.value(ordinal + 1) - fmt.value(ordinal))
        for ordinal in _ends(fmt)
        for share in SHARES[:3]
    ]
    with np.errstate(over="ignore", under="ignore"):
        x = np.array([float(value) for value in between + chosen]).astype(task.dtype)
    fine = np.arange(len(x)) >= len(between) + len(shares)
    _, once = np.unique(x.view(f"u{task.dtype.itemsize}"), return_index=True)
    base = Base(task, x[once])
    kept = base.within & ((base.inner != base.outer) | base.on_grid) & (base.exact != 0)
    return Base(task, base.x[kept]), fine[once][kept]


def _ends(fmt: Format) -> list[int]:
    """Return the lesser ends of the intervals next to zero, from the smallest normal value on, and at the ends of the range."""
    first, last = -fmt.bottom, fmt.top - 1
    starts = [0] if not isinstance(fmt, Grid) or fmt.even else [0, fmt.first_normal]
    both = [ordinal for start in starts for ordinal in (start, -start - 1)]
    return sorted({first, last, *(ordinal for ordinal in both if first <= ordinal <= last)})


def _probabilities(base: Base) -> Floats:
    """Return the probability with which each number goes away from zero: the words from the first one on, of 2^n.

    A float64 holds it where n <= 53; else it is off by up to 2^-53 of itself, far less than any draw could show.
    """
    whole = 1 << base.task.n
    return np.array([float(Fraction(whole - int(first), whole)) for first in base.expected.first_word])


def _draws(plan: DevicePlan) -> NDArray[np.int64]:
    """Return how many draws each cell needs, to find an error of size `found`, on either side."""
    p, off = plan.p, plan.found
    needed = np.full(len(p), 1, np.int64)
    for q in (p - off, p + off):
        possible = plan.open & (q >= 0) & (q <= 1)
        sized = chernoff_size(p[possible], q[possible], plan.per_cell, 1 - plan.power)
        needed[possible] = np.maximum(needed[possible], sized)
    # Values of the format have one outcome: as often as the others in the middle.
    needed[~plan.open] = int(np.median(needed[plan.open]))
    return needed


def reach_of_lanes(plan: DevicePlan) -> Floats:
    """Return the greatest |e| of each lane."""
    p = plan.p[plan.cell]
    return np.where(plan.steady, np.maximum(p, 1 - p), 0.0)
