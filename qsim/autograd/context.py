"""The numerics context: which sites round and how, which words they take, what they remember, and what they counted."""

from __future__ import annotations

import contextvars
import copy
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Literal, Self, get_args

import numpy as np
from numpy.typing import NDArray

from qsim.arrays import Counts, quantize_draws
from qsim.autograd.scaling import Delayed, Frozen, Memory
from qsim.autograd.sites import ENDS, PARAMETER_ROLES, POINTS, ROLES, SECOND, check_name, layer_site
from qsim.errors import InputError, enumerate_names, integer
from qsim.rounding import SHARED_RANK, STREAM_FIELDS, Key, Quantizer, number, split_site, stream
from qsim.scales import derive_scale

__all__ = ["Numerics", "Rounding", "current", "in_force", "numerics"]

Array = NDArray[Any]
Rounding = Quantizer | Delayed | Frozen

Errors = Literal["per_sample", "mean"]
Draws = Literal["separate", "shared"]
SampleDraws = Literal["per_sample", "shared"]
Clamp = Literal["pass", "stop"]


@dataclass(slots=True)
class Numerics:
    """Say which sites round, and how; enter it with `with` to put it in force. `numerics` makes one, and says what each means.

    The words of draw k at a site come from (seed, stream(site number, step, draw, rank)), so they do not depend on which other
    sites round, nor on how many draws are taken at a time: draws are numbered from `first_draw`.
    """

    policy: Mapping[str, Rounding | None]
    seed: int = 0
    step: int = 0
    draws: int | None = None
    first_draw: int = 0
    rank: int = SHARED_RANK
    errors: Errors = "per_sample"
    weight_draws: Draws = "separate"
    error_draws: Draws = "shared"
    sample_draws: SampleDraws = "per_sample"
    clamp: Clamp = "pass"
    loss_scale: float = 1.0
    memory: Memory = field(default_factory=dict)
    counts: dict[str, Counts] = field(default_factory=dict)
    numbers: dict[str, int] = field(default_factory=dict)
    #: What normalizations over the batch saw: layer -> (mean, variance), each (draws, channels).
    observed: dict[str, tuple[Array, Array]] = field(default_factory=dict)
    #: What each site was given, where somebody asks: a dict to fill, site -> (draws, ...); layer -> how its input becomes rows.
    seen: dict[str, Any] | None = None
    _tokens: list[contextvars.Token[Numerics]] = field(default_factory=list)

    def enrol(self, layer: str, points: tuple[str, ...] = POINTS) -> None:
        """Give the sites of `layer` their numbers, in order of first use, whether they round or not."""
        if f"{layer}.{points[0]}" in self.numbers:
            return
        for point in points:
            self.numbers[f"{layer}.{point}"] = layer_site(len(self.numbers))

    def rounding(self, layer: str, point: str) -> Rounding | None:
        """Return the rounding in force at a site: the site's own, else the layer's, else the point's; `None` for none."""
        for name in (f"{layer}.{point}", layer, point):
            if name in self.policy:
                return self.policy[name]
        return None

    def streams(self, site: str, draws: range, *, second: bool = False) -> NDArray[np.uint64]:
        """Return the stream number of each draw at `site`, or of its second draw."""
        number = split_site(self.numbers[site])[0] + SECOND * second
        first = np.uint64(stream(site=number, step=self.step, draw=draws[0], rank=self.rank))
        if len(draws) == 1:
            return np.array([first])
        stream(draw=draws[-1])  # refuses one that does not fit
        spacing = 1 << STREAM_FIELDS["rank"]  # the draw stands just above the rank
        return first + np.arange(len(draws), dtype=np.uint64) * np.uint64(spacing)

    def offset(self, site: str) -> int:
        """Return the offset of the first element of an array at `site`: 0 for the first 1,024 sites."""
        return split_site(self.numbers[site])[1]

    def round(
        self,
        layer: str,
        point: str,
        x: Array,
        otherwise: Array | None = None,
        *,
        words_of: str | None = None,
        second: bool = False,
    ) -> Array:
        """Return `x`, shape (1 or draws, ...), as the site sees it: rounded, or `otherwise` (`x`) where nothing is in force.

        The words are those of the site itself, of its second draw, or of another point of the layer, `words_of`.
        """
        rounding, site = self.rounding(layer, point), f"{layer}.{point}"
        if self.seen is not None:
            self.seen[site] = x
        if rounding is None:
            return x if otherwise is None else otherwise
        scale: Array | float | None = None
        if isinstance(rounding, Quantizer):
            q = rounding
        else:
            if (self.draws or 1) > 1:
                raise InputError(
                    f"{site} remembers its scale, which belongs to one run of training; take its draws one at a time, or give "
                    "the scale as a number"
                )
            q, scale = rounding.at(self.memory, site, self.step, x)
        draws = range(self.first_draw, self.first_draw + (self.draws or 1))
        words = f"{layer}.{words_of or point}"
        streams, offset = self.streams(words, draws, second=second), self.offset(words)
        shared = self.sample_draws == "shared" and q.mode.stochastic and not point.endswith("_weight")
        y, counts = (_by_first_words if shared else quantize_draws)(x, q, self.seed, streams, scale, offset)
        alike = 1 if shared else len(draws) // len(y)  # a deterministic rounding of what all draws share is done once
        self.counts[site] = self.counts.get(site, Counts()) + counts * alike
        return y

    def passes(self, layer: str, point: str, x: Array) -> Array | None:
        """Return where the derivative of a rounding of `x` is 1: everywhere (`None`), or with clamp = "stop" inside the range.

        The ends belong to the range, and so does what rounds to an end from within. A rounding never met has none.
        """
        rounding = self.rounding(layer, point)
        if self.clamp == "pass" or rounding is None:
            return None
        scale: Array | float | None
        if isinstance(rounding, Quantizer):
            q, scale = rounding, derive_scale(x, rounding, lead=1)
        else:
            q, scale = rounding.at(self.memory, f"{layer}.{point}", self.step, x)
        scaled = x if scale is None else x / np.asarray(scale, x.dtype)  # what was rounded
        inside: Array = (scaled >= q.format.min) & (scaled <= q.format.max)
        return inside

    def some_draws(self, first: int, count: int) -> Numerics:
        """Return this context for `count` of its draws, from number `first` on; what it counts is counted here."""
        part = copy.copy(self)
        part.seen, part.observed = (None if self.seen is None else {}), {}
        part.draws, part.first_draw, part._tokens = count, self.first_draw + first, []  # noqa: SLF001 - its own kind
        return part

    def take(self, part: Numerics, count: int) -> None:
        """Add what was seen and observed in `count` more draws to that of those before."""
        kinds: tuple[tuple[Any, Any], ...] = ((self.seen, part.seen), (self.observed, part.observed))
        for mine, theirs in kinds:
            for name, some in (theirs or {}).items():
                several = some if isinstance(some, tuple) else (some,)
                if not all(isinstance(array, np.ndarray) for array in several):
                    mine[name] = some
                    continue
                whole = [np.broadcast_to(array, (count, *array.shape[1:])) for array in several]
                if name in mine:
                    before = mine[name] if isinstance(some, tuple) else (mine[name],)
                    whole = [np.concatenate(pair) for pair in zip(before, whole, strict=True)]
                mine[name] = tuple(whole) if isinstance(some, tuple) else whole[0]

    def __enter__(self) -> Self:
        self._tokens.append(_CURRENT.set(self))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        _CURRENT.reset(self._tokens.pop())
        if error is not None or not self.numbers or self._tokens:
            return
        layers = dict.fromkeys(site.rpartition(".")[0] for site in self.numbers)
        for name in self.policy:
            role = name.rpartition(".")[2]
            if name in ROLES or name in self.numbers or name in layers or role in PARAMETER_ROLES:
                continue
            if self.policy[name] is None and name.rpartition(".")[0] in ENDS:
                continue
            what = "site" if role in POINTS else "name"
            raise InputError(f"no layer met the {what} {name!r}; the layers were {enumerate_names(layers)}")


def _by_first_words(
    x: Array, q: Quantizer, seed: int, streams: NDArray[np.uint64], scale: Array | float | None, offset: int
) -> tuple[Array, Counts]:
    """Round as `quantize_draws` does, but every sample of a draw takes the words of the first."""
    draws, samples = len(streams), x.shape[1]
    scale = derive_scale(x, q, lead=1) if scale is None else scale  # of all samples of a draw together

    def rows(array: Array) -> Array:
        return np.broadcast_to(array, (draws, samples, *array.shape[2:])).reshape(draws * samples, 1, *array.shape[2:])

    scales = rows(scale) if isinstance(scale, np.ndarray) else scale
    y, counts = quantize_draws(rows(x), q, seed, np.repeat(streams, samples), scales, offset)
    return y.reshape(draws, *x.shape[1:]), counts


_CURRENT: contextvars.ContextVar[Numerics] = contextvars.ContextVar("numerics")


def current() -> Numerics:
    """Return the numerics in force: without a `with qsim.numerics(...)`, nothing rounds."""
    return in_force() or Numerics({})


def in_force() -> Numerics | None:
    """Return the numerics that somebody entered, `None` where nobody did."""
    return _CURRENT.get(None)


def numerics(
    policy: Mapping[str, str | Rounding | None] | None = None,
    /,
    *,
    seed: int = 0,
    step: int = 0,
    draws: int | None = None,
    first_draw: int = 0,
    rank: int = SHARED_RANK,
    errors: Errors = "per_sample",
    weight_draws: Draws = "separate",
    error_draws: Draws = "shared",
    sample_draws: SampleDraws = "per_sample",
    clamp: Clamp = "pass",
    loss_scale: float = 1.0,
    memory: Memory | None = None,
    **points: str | Rounding | None,
) -> Numerics:
    """Return a numerics context that rounds at the points (of all layers), layers and sites ("layer0.bwd_act") named.

    A rounding is a `Quantizer`, "FORMAT:MODE", `Delayed` or `Frozen`; `None` leaves a site unrounded. A site's own rounding
    goes before its layer's, and that before its point's. A backward point that nothing names takes what the forward pass
    used: the rounded weight, say, if `fwd_weight` rounds. One that is named rounds the unrounded tensor.
    What is another estimator is a choice:

    `weight_draws`: `fwd_weight` and `bwd_weight` take words of their own ("separate"), or one draw serves both ("shared").
    `error_draws`: the data gradient and the weight gradient take one rounded error ("shared"), or one each ("separate").
    `sample_draws`: activations and errors take words for each sample, or all samples of a batch those of the first ("shared").
    `errors`: round them per sample, before the 1/b of the mean (the default), or after it ("mean").
    `clamp`: a rounding is straight-through, its derivative 1 everywhere ("pass"), or 0 where it clamped x to an end ("stop").
    `loss_scale`: errors are those of this multiple of the loss; gradients are divided by it. A power of two.

    `draws`: how many Monte-Carlo draws; gradients then have a leading axis of that length. `None`: one, and no axis.
    `first_draw`: the number of the first draw. The micro-batches of one step are draws of it: number them, or they share words.
    `rank`: the data-parallel worker whose words are taken; without it, words shared by all.
    `memory`: what `Delayed` and `Frozen` saw so far; the same dict is given at every step. They take one draw at a time.
    Raise `InputError` for a point that does not exist, and at the end of the block for a layer that was not met.
    """
    merged = {**(policy or {}), **points}
    for name, rounding in merged.items():
        check_name(name)
        if not isinstance(rounding, str | Quantizer | Delayed | Frozen | None):
            raise InputError(
                f"{name} = {rounding!r} is no rounding: a Quantizer, 'FORMAT:MODE', Delayed, Frozen or None"
            )
    draws = draws if draws is None else integer("draws", draws)
    if draws is not None and draws < 1:
        raise InputError(f"draws = {draws!r} must be an integer of at least 1")
    Key(seed)  # refuses what is no seed
    stream(step=integer("step", step), draw=integer("first_draw", first_draw), rank=integer("rank", rank))
    for name, given, kind in (
        ("errors", errors, Errors), ("weight_draws", weight_draws, Draws), ("error_draws", error_draws, Draws),
        ("sample_draws", sample_draws, SampleDraws), ("clamp", clamp, Clamp),
    ):  # fmt: skip
        if given not in get_args(kind):
            raise InputError(f"{name} = {given!r} must be {enumerate_names(map(repr, get_args(kind)))}")
    scale = number(loss_scale)
    if not (0 < scale < math.inf and math.frexp(scale)[0] == 0.5):
        raise InputError(f"loss_scale = {loss_scale!r} must be a power of two: no other leaves the digits as they are")
    parsed = {
        name: q if q is None or isinstance(q, Delayed | Frozen) else Quantizer.parse(q) for name, q in merged.items()
    }
    return Numerics(
        parsed, seed=seed, step=step, draws=draws, first_draw=first_draw, rank=rank, errors=errors, weight_draws=weight_draws,
        error_draws=error_draws, sample_draws=sample_draws, clamp=clamp, loss_scale=scale,
        memory={} if memory is None else memory,
    )  # fmt: skip
