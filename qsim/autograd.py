"""A tape of coarse operations under a numerics context with named rounding sites.

With this module one can take gradients of a model written with `qsim.nn`, decide by name which of Liu et al.'s five
quantization points of each layer round and how, and get many Monte-Carlo draws of the gradient in one call:

    with qsim.numerics(bwd_act="float8_e4m3fn:SR", draws=256, seed=0):
        loss, grads = qsim.value_and_grad(model.loss)(params, batch)      # grads["layer0"]["w"]: (256, out, in)

Inside, every array has a leading axis of draws. It has length 1 until a stochastic site touches it, so what no site has
touched is computed once. Rounding is straight-through: its derivative is taken as 1 everywhere, also where it saturates.
"""

from __future__ import annotations

import contextvars
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Literal, Self

import numpy as np
from numpy.typing import NDArray

from qsim.arrays import Counts, quantize_draws
from qsim.errors import InputError, enumerate_names
from qsim.rounding import STREAM_FIELDS, Key, Quantizer, stream

__all__ = ["POINTS", "Numerics", "Var", "current", "numerics", "op", "value_and_grad"]

POINTS = ("fwd_act", "fwd_weight", "bwd_act", "bwd_weight", "bwd_grad")
"""The five quantization points of a linear layer (Liu et al. 2025): inputs and weights of the forward product, inputs of
the weight gradient, weights of the data gradient, and the error both of these take."""

Array = NDArray[Any]


@dataclass(slots=True)
class Numerics:
    """Say which sites round, and how; enter it with `with` to put it in force.

    A site is "<layer>.<point>". `policy` maps a point, or a full site name (which wins), to a `Quantizer`. The words of
    draw k at a site come from (seed, stream(site number, step, draw, rank)), so they do not depend on which other
    sites round, nor on how many draws are taken at a time: draws are numbered from `first_draw`.
    """

    policy: Mapping[str, Quantizer]
    seed: int = 0
    step: int = 0
    draws: int | None = None
    first_draw: int = 0
    errors: Literal["per_sample", "mean"] = "per_sample"
    counts: dict[str, Counts] = field(default_factory=dict)
    numbers: dict[str, int] = field(default_factory=dict)
    _tokens: list[contextvars.Token[Numerics]] = field(default_factory=list)

    def enrol(self, layer: str) -> None:
        """Give the five sites of `layer` their numbers, in order of first use, whether they round or not."""
        for point in POINTS:
            self.numbers.setdefault(f"{layer}.{point}", len(self.numbers))

    def quantizer(self, layer: str, point: str) -> Quantizer | None:
        """Return the rounding in force at a site, `None` where there is none."""
        return self.policy.get(f"{layer}.{point}") or self.policy.get(point)

    def streams(self, site: str, draws: range) -> NDArray[np.uint64]:
        """Return the stream number of each draw at `site`."""
        first, last = (stream(site=self.numbers[site], step=self.step, draw=n) for n in (draws[0], draws[-1]))
        spacing = 1 << STREAM_FIELDS["rank"]  # the draw stands just above the rank
        return np.uint64(first) + np.arange(0, last - first + 1, spacing, dtype=np.uint64)

    def round(self, layer: str, point: str, x: Array, otherwise: Array | None = None) -> Array:
        """Return `x`, shape (1 or draws, ...), as the site sees it: rounded, or `otherwise` (`x`) where nothing is in force."""
        q = self.quantizer(layer, point)
        if q is None:
            return x if otherwise is None else otherwise
        site = f"{layer}.{point}"
        draws = range(self.first_draw, self.first_draw + (self.draws or 1))
        y, counts = quantize_draws(x, q, self.seed, self.streams(site, draws))
        shared = len(draws) // len(y)  # a deterministic rounding of what all draws share is done, and counted, once
        self.counts[site] = self.counts.get(site, Counts()) + counts * shared
        return y

    def __enter__(self) -> Self:
        self._tokens.append(_CURRENT.set(self))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        _CURRENT.reset(self._tokens.pop())
        if error is None and self.numbers:
            for name in self.policy:
                if "." in name and name not in self.numbers:
                    layers = dict.fromkeys(site.rpartition(".")[0] for site in self.numbers)
                    raise InputError(f"no layer met the site {name!r}; the layers were {enumerate_names(layers)}")


_CURRENT: contextvars.ContextVar[Numerics] = contextvars.ContextVar("numerics")


def current() -> Numerics:
    """Return the numerics in force: without a `with qsim.numerics(...)`, nothing rounds."""
    return _CURRENT.get(None) or Numerics({})


def numerics(
    policy: Mapping[str, str | Quantizer] | None = None,
    /,
    *,
    seed: int = 0,
    step: int = 0,
    draws: int | None = None,
    first_draw: int = 0,
    errors: Literal["per_sample", "mean"] = "per_sample",
    **points: str | Quantizer | None,
) -> Numerics:
    """Return a numerics context that rounds at the named points (all layers) and sites of `policy` ("layer0.bwd_act").

    A rounding is a `Quantizer` or "FORMAT:MODE". A backward point that is not named takes what the forward pass used: the
    rounded weight, say, if `fwd_weight` rounds. One that is named rounds the unrounded tensor, with words of its own. The
    error is rounded once; both products that need it share that draw.
    `draws`: how many Monte-Carlo draws; gradients then have a leading axis of that length. `None`: one, and no axis.
    `errors`: round them per sample, before the 1/b of the mean (the default), or after it ("mean").
    Raise `InputError` for a point that does not exist.
    """
    merged = {**(policy or {}), **points}
    for name in merged:
        if name.rpartition(".")[2] not in POINTS:
            raise InputError(f"no quantization point is called {name!r}; they are {enumerate_names(POINTS)}")
    if draws is not None and (not isinstance(draws, int) or draws < 1):
        raise InputError(f"draws = {draws!r} must be an integer of at least 1")
    Key(seed)  # refuses what is no seed
    stream(step=step, draw=first_draw)  # and numbers that do not fit
    if errors not in ("per_sample", "mean"):
        raise InputError(f"errors = {errors!r} must be 'per_sample' or 'mean'")
    parsed = {name: Quantizer.parse(q) for name, q in merged.items() if q is not None}
    return Numerics(parsed, seed=seed, step=step, draws=draws, first_draw=first_draw, errors=errors)


# --- The tape ------------------------------------------------------------------------------------------------


@dataclass(slots=True, eq=False)
class Var:
    """Hold a value on the tape: what it was made from, and how to send its cotangent back."""

    value: Array
    inputs: tuple[Any, ...] = ()
    vjp: Callable[[Array, tuple[bool, ...]], tuple[Array | None, ...]] | None = None
    cotangent: Array | None = None


@dataclass(slots=True)
class Tape:
    """Hold the operations of one loss in order, and the divisor that its mean over the batch still owes."""

    nodes: list[Var] = field(default_factory=list)
    divisor: float = 1.0


_TAPE: contextvars.ContextVar[Tape] = contextvars.ContextVar("tape")


def owe(samples: int) -> None:
    """Say that the gradient is still to be divided by `samples`; the means of one loss must be over equally many."""
    written = tape()
    if written.divisor not in (1.0, samples):
        raise InputError(
            f"one loss takes means over {written.divisor:g} and over {samples} samples; errors = 'mean' can"
        )
    written.divisor = samples


def tape() -> Tape:
    """Return the tape being written; outside `value_and_grad` one that nobody reads."""
    return _TAPE.get(None) or Tape()


def op(function: Callable[..., tuple[Array, Any]]) -> Callable[..., Any]:
    """Make an operation of a function of arrays that returns (y, vjp).

    vjp(g, wanted) returns the cotangent of each positional argument, or `None` where `wanted` is false: an argument
    that is not a `Var` is a constant, and its cotangent need not be computed. Of constants alone the result is one.
    """

    def run(*args: Any, **options: Any) -> Any:
        values = [arg.value if isinstance(arg, Var) else arg for arg in args]
        y, vjp = function(*values, **options)
        if not any(isinstance(arg, Var) for arg in args):
            return y
        out = Var(y, args, vjp)
        tape().nodes.append(out)
        return out

    run.__name__, run.__doc__ = function.__name__, function.__doc__
    return run


def value_and_grad(
    loss: Callable[[Any, Any], Var], *, batch_per_draw: bool = False
) -> Callable[[Any, Any], tuple[Any, Any]]:
    """Return a function of (params, batch) that gives the loss and its gradient with respect to params.

    `params` and `batch` are arrays or nested dicts, lists and tuples of them; the gradient has the structure of `params`.
    Under `numerics(draws=K)` losses have shape (K,) and every gradient a leading axis of length K.
    `batch_per_draw`: the arrays of `batch` have that axis already (a batch of its own for each draw).
    """

    def run(params: Any, batch: Any) -> tuple[Any, Any]:
        context = current()
        leaves: list[Var] = []

        def lift(array: Array) -> Var:
            leaves.append(Var(np.asarray(array)[None]))
            return leaves[-1]

        lifted = tree_map(lift, params)
        data = batch if batch_per_draw else tree_map(lambda array: np.asarray(array)[None], batch)
        written = Tape()
        token = _TAPE.set(written)
        try:
            out = loss(lifted, data)
            _backward(written, out)
        finally:
            _TAPE.reset(token)
        draws = context.draws or max(len(out.value), *(len(_cotangent(leaf)) for leaf in leaves))

        def deliver(array: Array) -> Array:
            full = array if len(array) == draws else np.repeat(array, draws, 0)
            return full if context.draws or batch_per_draw else full[0]

        grads = iter(deliver(_cotangent(leaf) / written.divisor) for leaf in leaves)
        value = deliver(out.value)
        return (value if value.ndim else float(value)), tree_map(lambda _: next(grads), params)

    return run


def _cotangent(leaf: Var) -> Array:
    return np.zeros_like(leaf.value) if leaf.cotangent is None else leaf.cotangent


def _backward(written: Tape, out: Var) -> None:
    """Send cotangents from `out` back along the tape, which is in topological order as written."""
    out.cotangent = np.ones_like(out.value)
    for node in reversed(written.nodes):
        if node.cotangent is None or node.vjp is None:
            continue
        wanted = tuple(isinstance(arg, Var) for arg in node.inputs)
        for arg, g in zip(node.inputs, node.vjp(node.cotangent, wanted), strict=True):
            if isinstance(arg, Var) and g is not None:
                arg.cotangent = g if arg.cotangent is None else arg.cotangent + g


def tree_map(function: Callable[[Any], Any], tree: Any) -> Any:
    """Apply `function` to the leaves of nested dicts, lists and tuples, in order."""
    if isinstance(tree, dict):
        return {name: tree_map(function, branch) for name, branch in tree.items()}
    if isinstance(tree, list | tuple):
        return type(tree)(tree_map(function, branch) for branch in tree)
    return function(tree)
