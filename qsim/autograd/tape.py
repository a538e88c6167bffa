"""A tape of coarse operations: each returns its value and how to send a cotangent back.

Inside, every array has a leading axis of draws. It has length 1 until a stochastic site touches it, so what no site has
touched is computed once.
"""

from __future__ import annotations

import contextvars
import functools
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from qsim.autograd.context import Numerics, current, in_force
from qsim.errors import InputError, enumerate_names
from qsim.processes import keep_freed_memory

__all__ = ["Tape", "Var", "add", "leaves_of", "op", "owe", "tree_map", "value_and_grad"]

Array = NDArray[Any]

CACHE = 1 << 21
"""Bytes of parameters and activations, over all draws of one pass: as many go along the tape at a time as a cache holds."""

ACTIVATIONS = 4
"""Bytes of activations for one of the batch, about; how many draws go together changes no bit."""

# --- The tape ------------------------------------------------------------------------------------------------


@dataclass(slots=True, eq=False)
class Var:
    """Hold a value on the tape: what it was made from, and how to send its cotangent back."""

    value: Array
    inputs: tuple[Any, ...] = ()
    vjp: Callable[[Array, tuple[bool, ...]], tuple[Array | None, ...]] | None = None
    cotangent: Array | None = None
    #: What the cotangent is still to be divided by: the b of a mean whose errors are rounded per sample.
    owed: float = 1.0
    #: How many operations read the value.
    uses: int = 0


@dataclass(slots=True)
class Tape:
    """Hold the operations of one loss in order, what the cotangents sent back now owe, and the layers that were met."""

    nodes: list[Var] = field(default_factory=list)
    owed: float = 1.0
    layers: set[str] = field(default_factory=set)

    def meet(self, layer: str) -> None:
        """Note that `layer` was met; refuse a second time, when it would take the same random words for another tensor."""
        if layer in self.layers:
            raise InputError(f"two layers of one loss are called {layer!r}; each needs a name, and words, of its own")
        self.layers.add(layer)


_TAPE: contextvars.ContextVar[Tape] = contextvars.ContextVar("tape")


def owe(samples: int) -> None:
    """Say, in a vjp, that the cotangents it returns are still to be divided by `samples`, besides what theirs owed."""
    tape().owed *= samples


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
        for arg in args:
            if isinstance(arg, Var):
                arg.uses += 1
        tape().nodes.append(out)
        return out

    functools.update_wrapper(run, function)
    run.is_operation = True  # type: ignore[attr-defined] # a test asks which are checked
    return run


@op
def add(x: Array, y: Array) -> tuple[Array, Any]:
    """Return x + y, of one shape but for the axis of draws: a residual. Raise `InputError` for other shapes."""
    if x.shape[1:] != y.shape[1:]:
        raise InputError(f"add takes arrays of one shape, not {x.shape[1:]} and {y.shape[1:]}")
    return x + y, lambda g, _: (g, g)


def value_and_grad(
    loss: Callable[[Any, Any], Var], *, batch_per_draw: bool = False
) -> Callable[[Any, Any], tuple[Any, Any]]:
    """Return a function of (params, batch) that gives the loss and its gradient with respect to params.

    `params` and `batch` are arrays or nested dicts, lists and tuples of them; the gradient has the structure of `params`.
    Under `numerics(draws=K)` losses have shape (K,) and every gradient a leading axis of length K.
    `batch_per_draw`: the arrays of `batch` have that axis already (a batch of its own for each draw).
    """
    keep_freed_memory()

    def run(params: Any, batch: Any) -> tuple[Any, Any]:
        context = current()
        if in_force() is None:  # one for the whole pass, so that its sites have numbers of their own
            with context:
                return run(params, batch)
        draws = _draws_of(batch, context) if batch_per_draw else context.draws
        size = sum(np.asarray(array).nbytes for array in leaves_of(params))
        size += ACTIVATIONS * sum(np.asarray(array).nbytes for array in leaves_of(batch))
        together = max(1, CACHE // max(size, 1))
        if draws is None or draws <= together or batch_per_draw:  # who brings a batch for each has cut them already
            out, leaves = _along(loss, context, params, batch, batch_per_draw)
            draws = draws or max(len(out), *(len(_cotangent(leaf)) for leaf in leaves))
            one = not context.draws and not batch_per_draw
            owed = [leaf.owed * context.loss_scale for leaf in leaves]
            grads = iter(
                [_divided(_cotangent(leaf), by, draws, one=one) for leaf, by in zip(leaves, owed, strict=True)]
            )
            value = _repeated(out, draws)[0] if one else _repeated(out, draws)
            return (value if value.ndim else float(value)), tree_map(lambda _: next(grads), params)
        losses: list[Array] = []
        whole = [np.empty((draws, *np.shape(a)), np.asarray(a).dtype) for a in leaves_of(params)]
        for first in range(0, draws, together):
            some = slice(first, min(first + together, draws))
            count = some.stop - first
            with context.some_draws(first, count) as part:
                out, leaves = _along(loss, part, params, batch, batch_per_draw=False)
            context.take(part, count)
            losses.append(_repeated(out, count))
            for array, leaf in zip(whole, leaves, strict=True):
                g = _cotangent(leaf)
                np.divide(g, g.dtype.type(leaf.owed), out=array[some])
                if context.loss_scale != 1:
                    array[some] /= g.dtype.type(context.loss_scale)
        grads = iter(whole)
        return np.concatenate(losses), tree_map(lambda _: next(grads), params)

    return run


def _draws_of(batch: Any, context: Numerics) -> int:
    """Return how many draws a batch has that has one for each, or one for all; refuse another number than the context's."""
    counts = {len(np.asarray(array)) for array in leaves_of(batch)}
    several = counts - {1}
    draws = context.draws or max(several, default=1)
    if not several <= {draws}:
        raise InputError(
            f"a batch for each of {draws} draws: its arrays hold {enumerate_names(map(str, sorted(counts)))} of them"
        )
    return draws


def _repeated(array: Array, draws: int) -> Array:
    """Return `array` with all draws, where one stands for all."""
    return array if len(array) == draws else np.repeat(array, draws, 0)


def _divided(leaf: Array, owed: float, draws: int, *, one: bool) -> Array:
    """Return a cotangent less what the tape owes, with all draws or that of the only one."""
    gradient = leaf if owed == 1 else (leaf / leaf.dtype.type(owed)).astype(leaf.dtype, copy=False)
    return _repeated(gradient, draws)[0] if one else _repeated(gradient, draws)


def _along(
    loss: Callable[[Any, Any], Var], context: Numerics, params: Any, batch: Any, batch_per_draw: bool
) -> tuple[Array, list[Var]]:
    """Go along the tape and back: return the loss, and the parameters with their cotangents."""
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
        if not isinstance(out, Var):
            raise InputError("the loss does not depend on the parameters; operations of the tape make one that does")
        if out.value.ndim != 1:
            raise InputError(
                f"the loss of each draw is a number, not an array of shape {out.value.shape[1:]}; take a mean"
            )
        _backward(written, out, context.loss_scale)
    finally:
        _TAPE.reset(token)
    if context.seen is not None:
        context.seen["divisors"] = [leaf.owed * context.loss_scale for leaf in leaves]
        context.seen["uses"] = [leaf.uses for leaf in leaves]
    return out.value, leaves


def _cotangent(leaf: Var) -> Array:
    return np.zeros_like(leaf.value) if leaf.cotangent is None else leaf.cotangent


def _backward(written: Tape, out: Var, loss_scale: float) -> None:
    """Send cotangents from `out` back along the tape, which is in topological order as written; what is done with is let go."""
    out.cotangent = np.full_like(out.value, loss_scale)
    while written.nodes:
        node = written.nodes.pop()
        if node.cotangent is None or node.vjp is None:
            continue
        written.owed = node.owed
        wanted = tuple(isinstance(arg, Var) for arg in node.inputs)
        for arg, g in zip(node.inputs, node.vjp(node.cotangent, wanted), strict=True):
            if isinstance(arg, Var) and g is not None:
                _receive(arg, g, written.owed)
        node.cotangent = node.vjp = None


def _receive(arg: Var, g: Array, owed: float) -> None:
    """Add a cotangent to what came before: if they owe different amounts, both as owing the larger one."""
    if arg.cotangent is None:
        arg.cotangent, arg.owed = g, owed
        return
    most = max(arg.owed, owed)
    before = arg.cotangent if arg.owed == most else arg.cotangent * g.dtype.type(most / arg.owed)
    arg.cotangent = before + (g if owed == most else g * g.dtype.type(most / owed))
    arg.owed = most


def tree_map(function: Callable[..., Any], tree: Any, *others: Any) -> Any:
    """Apply `function` to the leaves of nested dicts, lists and tuples, in order; `others` have the same structure."""
    if isinstance(tree, dict):
        return {name: tree_map(function, branch, *(other[name] for other in others)) for name, branch in tree.items()}
    if isinstance(tree, list | tuple):
        branches = (tree_map(function, *branch) for branch in zip(tree, *others, strict=True))
        return type(tree)(branches)
    return function(tree, *others)


def leaves_of(tree: Any) -> list[Any]:
    """Return the leaves of nested dicts, lists and tuples, in order."""
    found: list[Any] = []
    tree_map(found.append, tree)
    return found
