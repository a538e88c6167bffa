"""A tape of coarse operations: each returns its value and how to send a cotangent back.

Inside, every array has a leading axis of draws. It has length 1 until a stochastic site touches it, so what no site has
touched is computed once.
"""

from __future__ import annotations

import contextvars
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from qsim.autograd.context import Numerics, current
from qsim.errors import InputError

__all__ = ["Tape", "Var", "add", "leaves_of", "op", "owe", "tree_map", "value_and_grad"]

Array = NDArray[Any]

CACHE = 1 << 21
"""Bytes of parameters, over all draws of one pass: as many draws go along the tape at a time as leave it in a cache."""

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
    run.is_operation = True  # type: ignore[attr-defined] # a test asks which are checked
    return run


@op
def add(x: Array, y: Array) -> tuple[Array, Any]:
    """Return x + y, of one shape but for the axis of draws: a residual."""
    return x + y, lambda g, _: (g, g)


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
        size = sum(np.asarray(array).nbytes for array in leaves_of(params))
        together = max(1, CACHE // max(size, 1))
        if context.draws is None or context.draws <= together:
            out, leaves, owed = _along(loss, context, params, batch, batch_per_draw)
            draws = context.draws or max(len(out), *map(len, leaves))
            one = not context.draws and not batch_per_draw
            grads = iter([_divided(leaf, owed, draws, one=one) for leaf in leaves])
            value = _repeated(out, draws)[0] if one else _repeated(out, draws)
            return (value if value.ndim else float(value)), tree_map(lambda _: next(grads), params)
        losses: list[Array] = []
        whole = [np.empty((context.draws, *np.shape(a)), np.asarray(a).dtype) for a in leaves_of(params)]
        for first in range(0, context.draws, together):
            some = slice(first, min(first + together, context.draws))
            count = some.stop - first
            data = tree_map(lambda a: np.asarray(a)[some], batch) if batch_per_draw else batch  # noqa: B023
            with context.some_draws(first, count) as part:
                out, leaves, owed = _along(loss, part, params, data, batch_per_draw)
            _put_together(context.seen, part.seen, count)
            losses.append(_repeated(out, count))
            for array, leaf in zip(whole, leaves, strict=True):
                np.divide(leaf, leaf.dtype.type(owed), out=array[some])
        grads = iter(whole)
        return np.concatenate(losses), tree_map(lambda _: next(grads), params)

    return run


def _repeated(array: Array, draws: int) -> Array:
    """Return `array` with all draws, where one stands for all."""
    return array if len(array) == draws else np.repeat(array, draws, 0)


def _divided(leaf: Array, owed: float, draws: int, *, one: bool) -> Array:
    """Return a cotangent less what the tape owes, with all draws or that of the only one."""
    gradient = leaf if owed == 1 else leaf / leaf.dtype.type(owed)
    return _repeated(gradient, draws)[0] if one else _repeated(gradient, draws)


def _put_together(seen: dict[str, Any] | None, part: dict[str, Any] | None, count: int) -> None:
    """Add what the sites were given in `count` more draws to what they were given before."""
    if seen is None or part is None:
        return
    for name, some in part.items():
        if isinstance(some, np.ndarray):
            whole = np.broadcast_to(some, (count, *some.shape[1:]))
            seen[name] = np.concatenate([seen[name], whole]) if name in seen else whole
        else:
            seen[name] = some


def _along(
    loss: Callable[[Any, Any], Var], context: Numerics, params: Any, batch: Any, batch_per_draw: bool
) -> tuple[Array, list[Array], float]:
    """Go along the tape and back: return the loss, the cotangents of the parameters, and what these are to be divided by."""
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
        _backward(written, out, context.loss_scale)
    finally:
        _TAPE.reset(token)
    if context.seen is not None:
        context.seen["divisor"] = written.divisor
    return out.value, [_cotangent(leaf) for leaf in leaves], written.divisor * context.loss_scale


def _cotangent(leaf: Var) -> Array:
    return np.zeros_like(leaf.value) if leaf.cotangent is None else leaf.cotangent


def _backward(written: Tape, out: Var, loss_scale: float) -> None:
    """Send cotangents from `out` back along the tape, which is in topological order as written; what is done with is let go."""
    out.cotangent = np.full_like(out.value, loss_scale)
    while written.nodes:
        node = written.nodes.pop()
        if node.cotangent is None or node.vjp is None:
            continue
        wanted = tuple(isinstance(arg, Var) for arg in node.inputs)
        for arg, g in zip(node.inputs, node.vjp(node.cotangent, wanted), strict=True):
            if isinstance(arg, Var) and g is not None:
                arg.cotangent = g if arg.cotangent is None else arg.cotangent + g
        node.cotangent = node.vjp = None


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
