"""The numerics context: which sites round and how, which words they take, their memory and their counts."""

from __future__ import annotations

import contextvars
import copy
import functools
import math
import os
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Literal, Self, get_args

import numpy as np
from numpy.typing import NDArray

from qsim.arrays import Counts, inside_draws, quantize_draws
from qsim.autograd.scaling import Delayed, Frozen, Memory
from qsim.autograd.sites import ENDS, PARAMETER_ROLES, POINTS, ROLES, SECOND, check_name, layer_site
from qsim.errors import InputError, enumerate_names, integer
from qsim.rounding import SHARED_RANK, STREAM_FIELDS, Key, Quantizer, number, split_site, stream
from qsim.scales import derive_scale
from qsim.underflow import SMALLER, SUBNORMAL, cleared, gradual_underflow

__all__ = ["Numerics", "Rounding", "current", "in_force", "numerics"]

Array = NDArray[Any]
Rounding = Quantizer | Delayed | Frozen

Errors = Literal["per_sample", "mean"]
Draws = Literal["separate", "shared"]
SampleDraws = Literal["per_sample", "shared"]
Clamp = Literal["pass", "stop", "stop_unrounded"]
CHOICES = {
    "errors": get_args(Errors), "weight_draws": get_args(Draws), "error_draws": get_args(Draws),
    "sample_draws": get_args(SampleDraws), "clamp": get_args(Clamp),
}  # fmt: skip


@dataclass(slots=True)
class Numerics:
    """Say which sites round, and how; enter it with `with` to put it in force. `numerics` makes one, and explains each field.

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
    weight_draws: Draws = "shared"
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
    #: Whether a site took random words, and what the latest pass took them for.
    drew: bool = False
    taken: Any = field(default=None, repr=False, compare=False)

    def enrol(self, layer: str, points: tuple[str, ...] = POINTS) -> None:
        """Give the sites of `layer` their numbers, in order of first use, whether they round or not."""
        if f"{layer}.{points[-1]}" in self.numbers:
            return
        with _LOCK:  # several threads may carry one context, and two sites must never have one number
            for point in points:
                count = len(self.numbers)
                self.numbers.setdefault(f"{layer}.{point}", count if count < SECOND else layer_site(count))

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
        site = f"{layer}.{point}"
        if self.seen is not None:
            self.seen[site] = x
        rounding = self.rounding(layer, point)
        if rounding is None:
            return x if otherwise is None else otherwise
        if not SUBNORMAL - SMALLER:
            with cleared():
                return self.round(layer, point, x, otherwise, words_of=words_of, second=second)
        words = site if words_of is None else f"{layer}.{words_of}"
        y, counts = self._at(quantize_draws, rounding, site, words, x, second=second)
        alike = (self.draws or 1) // (len(y) or 1)  # a deterministic rounding of what all draws share is done once
        if alike > 1:
            counts = counts * alike
        with _LOCK:
            before = self.counts.get(site)
            self.counts[site] = counts if before is None else before + counts
        return y

    def passes(self, layer: str, point: str, x: Array) -> Array | None:
        """Return where the derivative of a rounding of `x` is 1: everywhere (`None`), or as `clamp` says.

        "stop": where the rounded x lies in the range of the format, rounded as if that had no end, by the words of the
        rounding itself. "stop_unrounded": where x does, divided by its scale. The ends belong to the range; a NaN does not.
        """
        rounding = self.rounding(layer, point)
        if self.clamp == "pass" or rounding is None:
            return None
        site, how = f"{layer}.{point}", functools.partial(inside_draws, rounded=self.clamp == "stop")
        inside: Array = gradual_underflow(self._at)(how, rounding, site, site, x)[0]
        return inside

    def _at(
        self,
        how: Callable[..., tuple[Array, Counts]],
        rounding: Rounding,
        site: str,
        words: str,
        x: Array,
        *,
        second: bool = False,
    ) -> tuple[Array, Counts]:
        """Round `x` at a site by `how`, a function like `quantize_draws`, with the words of the site `words`."""
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
        streams, offset = self.streams(words, draws, second=second), self.offset(words)
        if q.mode.stochastic:
            self.drew = True
            if self.sample_draws == "shared" and not site.endswith("_weight"):
                return _by_first_words(how, x, q, self.seed, streams, scale, offset)
        return how(x, q, self.seed, streams, scale, offset)

    def _says_something(self) -> bool:
        """Return whether a pass that misses this context would come out otherwise: it rounds, or names words."""
        words = (self.seed, self.step, self.draws, self.first_draw, self.rank)
        return words != (0, 0, None, 0, SHARED_RANK) or any(q is not None for q in self.policy.values())

    def some_draws(self, first: int, count: int) -> Numerics:
        """Return this context for `count` of its draws, from number `first` on; its counts are added to this one's."""
        part = copy.copy(self)
        part.seen, part.observed = (None if self.seen is None else {}), {}
        part.draws, part.first_draw = count, self.first_draw + first
        return part

    def take(self, part: Numerics, count: int) -> None:
        """Add the tensors seen and observed in `count` more draws to the earlier ones."""
        self.drew |= part.drew
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
        _ENTERED.set((*_ENTERED.get(), self))
        if self._says_something():
            with _LOCK:
                _EVERYWHERE[:] = [entry for entry in _EVERYWHERE if entry[1].is_alive()]
                _EVERYWHERE.append((self, threading.current_thread()))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        entered = _ENTERED.get()
        before = entered[:-1]
        if entered and entered[-1] is not self:  # whatever was entered in the block is left with it
            outer = (k for k in reversed(range(len(entered))) if entered[k] is self)
            before = entered[: next(outer, 0)]
        _ENTERED.set(before)
        if _EVERYWHERE:
            here = threading.current_thread()
            with _LOCK:
                mine = [k for k, (context, thread) in enumerate(_EVERYWHERE) if context is self and thread is here]
                if mine:
                    del _EVERYWHERE[mine[-1]]
        if error is not None or not self.policy or not self.numbers or any(context is self for context in before):
            return
        named = [name for name in self.policy if name not in ROLES and name not in self.numbers]
        layers = dict.fromkeys(site.rpartition(".")[0] for site in self.numbers) if named else {}
        for name in named:
            role = name.rpartition(".")[2]
            if name in layers or role in PARAMETER_ROLES:
                continue
            if self.policy[name] is None and name.rpartition(".")[0] in ENDS:
                continue
            what = "site" if role in POINTS else "name"
            raise InputError(f"no layer met the {what} {name!r}; the layers were {enumerate_names(layers)}")


def _by_first_words(
    how: Callable[..., tuple[Array, Counts]],
    x: Array,
    q: Quantizer,
    seed: int,
    streams: NDArray[np.uint64],
    scale: Array | float | None,
    offset: int,
) -> tuple[Array, Counts]:
    """Do as `how`, a function like `quantize_draws`, but let every sample of a draw take the words of the first."""
    draws, samples = len(streams), x.shape[1]
    scale = derive_scale(x, q, lead=1) if scale is None else scale  # of all samples of a draw together

    def rows(array: Array) -> Array:
        return np.broadcast_to(array, (draws, samples, *array.shape[2:])).reshape(draws * samples, 1, *array.shape[2:])

    scales = rows(scale) if isinstance(scale, np.ndarray) else scale
    y, counts = how(rows(x), q, seed, np.repeat(streams, samples), scales, offset)
    return y.reshape(draws, *x.shape[1:]), counts


# --- What is in force ----------------------------------------------------------------------------------------

_ENTERED: contextvars.ContextVar[tuple[Numerics, ...]] = contextvars.ContextVar("numerics", default=())
_EVERYWHERE: list[tuple[Numerics, threading.Thread]] = []
"""The contexts that say something and are entered, in any thread, each with the thread that entered it."""
_LOCK = threading.Lock()


def _renew_lock() -> None:
    """Take a lock, in a forked child, that no thread of the parent holds."""
    global _LOCK  # noqa: PLW0603 - one for the process
    _LOCK = threading.Lock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_renew_lock)


def current() -> Numerics:
    """Return the numerics in force: without a `with qsim.numerics(...)`, nothing rounds.

    Raise `InputError` in a thread that has none while another thread has: a new thread does not inherit them.
    """
    context = in_force()
    if context is not None:
        return context
    here = threading.current_thread()
    if any(thread is not here and thread.is_alive() for _, thread in tuple(_EVERYWHERE)):
        raise InputError(
            "numerics are in force in another thread and none in this one, where nothing would be rounded: let the thread "
            "run contextvars.copy_context().run(function, ...), a copy a call, or enter qsim.numerics() in it to round nothing"
        )
    return Numerics({})


def in_force() -> Numerics | None:
    """Return the numerics that somebody entered, `None` where nobody did."""
    entered = _ENTERED.get()
    return entered[-1] if entered else None


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
    weight_draws: Draws = "shared",
    error_draws: Draws = "shared",
    sample_draws: SampleDraws = "per_sample",
    clamp: Clamp = "pass",
    loss_scale: float = 1.0,
    memory: Memory | None = None,
    **points: str | Rounding | None,
) -> Numerics:
    """Return a numerics context that rounds at the points (of all layers), layers and sites ("layer0.bwd_act") named.

    A rounding is a `Quantizer`, "FORMAT:MODE", `Delayed` or `Frozen`; `None` leaves a site unrounded. A site's own rounding
    goes before its layer's, and that before its point's. A backward point without an entry takes what the forward pass
    used: the rounded weight, say, if `fwd_weight` rounds. One that is named rounds the unrounded tensor.
    Each choice below makes another estimator:

    `weight_draws`: one draw serves `fwd_weight` and `bwd_weight` ("shared"), as in Liu et al. 2025, where a weight is rounded
    once a step: the words are those of `fwd_weight`, whether it rounds or not. Or each takes words of its own ("separate").
    `error_draws`: the data gradient and the weight gradient take one rounded error ("shared"), or one each ("separate").
    `sample_draws`: activations and errors take words for each sample, or all samples of a batch those of the first ("shared").
    `errors`: round them per sample, before the 1/b of the mean (the default), or after it ("mean"). PyTorch's errors have the
    1/b in them; a narrow float that has neither a scale nor a loss scale then loses the small ones to zero.
    `clamp`: a rounding is straight-through, its derivative 1 everywhere ("pass"), or 0 where it clamped x to an end. "stop": it
    is 1 where the rounded value is in range, as in PyTorch's fake quantization, ONNX Runtime and Brevitas: 127.4 passes int8.
    "stop_unrounded": it is 1 where x, divided by the scale, is in range: 127.4 does not pass. NaN and infinities never do.
    `loss_scale`: errors are those of this multiple of the loss; gradients are divided by it. A power of two, in the range of
    the parameters' type.

    `seed`, `step`, `first_draw` and `rank` name the random words: the same names give the same words, in any context.
    `step`: the number of the step of training.
    `draws`: how many Monte-Carlo draws; gradients then have a leading axis of that length. `None`: one, and no axis.
    `first_draw`: the number of the first draw. The micro-batches of one step are draws of it: number them, or they share words.
    `rank`: the data-parallel worker whose words are taken; without it, words shared by all.
    `memory`: the state of `Delayed` and `Frozen`; the same dict is given at every step. They take one draw at a time.

    `value_and_grad` warns (`qsim.autograd.SameWords`) where two passes of one context take the same words for losses that
    differ, and where two passes do so with an update of `qsim.optim` between them. It does not warn of a pass that is
    repeated, of two policies on the same words, and of passes with `draws`, which are measurements.
    Threads do not inherit the context: see `current`.
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
    given = (errors, weight_draws, error_draws, sample_draws, clamp)
    for choice, (name, choices) in zip(given, CHOICES.items(), strict=True):
        if choice not in choices:
            raise InputError(f"{name} = {choice!r} must be {enumerate_names(map(repr, choices))}")
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
