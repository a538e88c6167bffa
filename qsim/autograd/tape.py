"""A tape of coarse operations: each returns its value and how to send a cotangent back.

Inside, every array has a leading axis of draws. It has length 1 until a stochastic site touches it, so whatever no site has
touched is computed once. Outside, arrays have no such axis: `value_and_grad` and `value` put it on and take it off again, and
so does an operation that is called by itself.

Infinities and NaN are results, here as everywhere in the library: no operation warns of them, forward or backward.
"""

from __future__ import annotations

import contextlib
import contextvars
import functools
import math
import warnings
import weakref
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from qsim.arrays import as_array
from qsim.autograd.context import Numerics, current, in_force
from qsim.autograd.sites import paths
from qsim.errors import InputError, enumerate_names
from qsim.kernels.threads import new_pass
from qsim.processes import keep_freed_memory
from qsim.underflow import gradual_underflow

__all__ = [
    "SameWords", "Tape", "Var", "add", "evaluable", "leaves_of", "note_update", "op", "owe", "tree_map", "value",
    "value_and_grad",
]  # fmt: skip

Array = NDArray[Any]

CACHE = 1 << 21
"""Bytes of parameters and activations, over all draws of one pass: as many go along the tape at a time as a cache holds."""

ACTIVATIONS = 4
"""Bytes of activations for one of the batch, about; how many draws go together changes no bit."""

# --- The tape ------------------------------------------------------------------------------------------------


@dataclass(slots=True, eq=False)
class Var:
    """Hold a value on the tape: its operands, and the function that sends its cotangent back to them."""

    value: Array
    inputs: tuple[Any, ...] = ()
    vjp: Callable[[Array, tuple[bool, ...]], tuple[Array | None, ...]] | None = None
    cotangent: Array | None = None
    #: What the cotangent is still to be divided by: the b of a mean whose errors are rounded per sample.
    owed: float = 1.0
    #: How many operations read the value.
    uses: int = 0

    def __getitem__(self, key: Any) -> Any:
        raise InputError(
            f"an array of shape {self.value.shape[1:]} is asked for its part {key!r}; on the tape an array is read by "
            "operations alone, and parameters that have names stand in dicts"
        )


@dataclass(slots=True)
class Tape:
    """Hold the operations of one loss in order, the divisor still due to the cotangents sent back now, and the layers seen."""

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
    """Note in a vjp that the cotangents it returns are still to be divided by `samples`, beside earlier divisors."""
    tape().owed *= samples


def tape() -> Tape:
    """Return the tape being written; outside `value_and_grad` one that nobody reads."""
    return _TAPE.get(None) or Tape()


@contextlib.contextmanager
def _pass(written: Tape) -> Iterator[None]:
    """Let operations stand on a tape inside the block, and NumPy say nothing of infinities and NaN."""
    token = _TAPE.set(written)
    new_pass()
    try:
        with np.errstate(all="ignore"):
            yield
    finally:
        _TAPE.reset(token)


# --- Operations ----------------------------------------------------------------------------------------------


def op(
    function: Callable[..., tuple[Array, Any]] | None = None,
    *,
    alone: tuple[int, int] | Callable[[Array], bool] | None = None,
) -> Callable[..., Any]:
    """Make an operation of a function of arrays that returns (y, vjp).

    vjp(g, wanted) returns the cotangent of each positional argument, or `None` where `wanted` is false: an argument
    that is not a `Var` is a constant, and its cotangent need not be computed. Of constants alone the result is one.
    `alone`: which array tells, where an operation is called outside a tape, that its arrays lack the axis of draws, and how
    many axes it then has at most; or a function of the first one that says so. The axis is put on, and taken off the result.
    Without `alone` arrays are taken as they are. Raise `InputError` for anything else than an array of real numbers.
    """
    if function is None:
        return functools.partial(op, alone=alone)

    def lack_draws(values: list[Any]) -> bool:
        if alone is None:
            return False
        return alone(values[0]) if callable(alone) else len(values) > alone[0] and np.ndim(values[alone[0]]) <= alone[1]

    name = function.__name__

    def run(*args: Any, **options: Any) -> Any:
        if _TAPE.get(None) is None:
            return by_itself(args, options)
        # In a pass, which has cleared the flags and silenced NumPy.
        y, vjp = function(*[arg.value if isinstance(arg, Var) else _constant(arg, name) for arg in args], **options)
        return written(y, args, vjp)

    @gradual_underflow
    def by_itself(args: tuple[Any, ...], options: dict[str, Any]) -> Any:
        values = [arg.value if isinstance(arg, Var) else _constant(arg, name) for arg in args]
        lone = not any(isinstance(arg, Var) for arg in args) and lack_draws(values)
        if lone:
            values = [None if each is None else each[None] for each in values]
        new_pass()
        with np.errstate(all="ignore"):
            y, vjp = function(*values, **options)
        return _alone(y, current()) if lone else written(y, args, vjp)

    def written(y: Array, args: tuple[Any, ...], vjp: Any) -> Any:
        variables = [arg for arg in args if isinstance(arg, Var)]
        if not variables:
            return y
        out = Var(y, args, vjp)
        for arg in variables:
            arg.uses += 1
        tape().nodes.append(out)
        return out

    functools.update_wrapper(run, function)
    run.is_operation = True  # type: ignore[attr-defined] # a test asks which are checked
    return run


def _constant(given: Any, name: str) -> Any:
    """Return an argument of an operation as an array of real numbers; `None` stays."""
    if given is None or _is_plain(given):
        return given
    if _TAPE.get(None) is not None:
        if isinstance(given, bool | int | float):
            return given
        if isinstance(given, list | tuple | dict):
            raise InputError(f"{name} takes arrays, not a {type(given).__name__}; make an array of it first")
    array = _array(given, f"an argument of {name}")
    if array.dtype.kind not in "fiub":
        raise InputError(f"{name} takes arrays of real numbers, not of {array.dtype}")
    return array


def _is_plain(given: Any) -> bool:
    """Return whether `given` is an array as operations want it; most are, and this is soon said."""
    return type(given) is np.ndarray and given.dtype.char in "fdlLqQ" and given.dtype.isnative


def _array(given: Any, what: str) -> Array:
    """Return `given` as an array, numbers of 16 bits as float32, which holds them; refuse objects that NumPy cannot read."""
    if _is_plain(given):
        return given  # type: ignore[no-any-return]
    array = as_array(given, what)
    if array.dtype.name in ("float16", "bfloat16"):
        return array.astype(np.float32)
    return array if array.dtype.isnative else array.astype(array.dtype.newbyteorder("="))


def _alone(y: Array, context: Numerics) -> Any:
    """Return a result without the axis of draws, or with all draws where their number was said; one number as a float."""
    if not isinstance(y, np.ndarray):
        return y
    if context.draws is not None:
        return _repeated(y, context.draws)
    return y[0] if y.ndim > 1 else float(y[0])


@op
def add(x: Array, y: Array) -> tuple[Array, Any]:
    """Return x + y, of one shape but for the axis of draws: a residual. Raise `InputError` for other shapes."""
    if x.shape[1:] != y.shape[1:] or x.ndim != y.ndim or (x.ndim and len({1, len(x), len(y)}) > 2):
        shapes = (x.shape[1:], y.shape[1:]) if x.shape[1:] != y.shape[1:] else (x.shape, y.shape)
        raise InputError(f"add takes arrays of one shape, not {shapes[0]} and {shapes[1]}")
    return x + y, lambda g, _: (g, g)


# --- Passes --------------------------------------------------------------------------------------------------


class SameWords(UserWarning):
    """Warn that two passes, one after the other, took the same random words for different losses or parameters."""


def value_and_grad(
    loss: Callable[[Any, Any], Var], *, batch_per_draw: bool = False
) -> Callable[[Any, Any], tuple[Any, Any]]:
    """Return a function of (params, batch) that gives the loss and its gradient with respect to params.

    `params` and `batch` are arrays or nested dicts, lists and tuples of them; the gradient has the structure of `params`.
    Parameters are float32 or float64; float16 and bfloat16 (of ml_dtypes) are taken as float32, which holds them, and have
    float32 gradients. Under `numerics(draws=K)` losses have shape (K,) and every gradient a leading axis of length K.
    `batch_per_draw`: the arrays of `batch` have that axis already (a batch of its own for each draw).
    Warn with `SameWords` where the pass takes the random words of the pass before it, see `numerics`.
    Raise `InputError` for parameters that are none, for one that the loss asks for and that is not there, and for a loss scale
    that their type does not hold.
    """
    keep_freed_memory()

    @gradual_underflow
    def run(params: Any, batch: Any) -> tuple[Any, Any]:
        context = current()
        if in_force() is None:  # one for the whole pass, so that its sites have numbers of their own
            with context:
                return both(context, params, batch)
        found, grads = both(context, params, batch)
        if context.drew and context.draws is None and not batch_per_draw:
            _note_words(loss, context, found)
        return found, grads

    def both(context: Numerics, params: Any, batch: Any) -> tuple[Any, Any]:
        params, batch = _parameters(params), _data(batch)
        if context.loss_scale != 1:
            for name, leaf in zip(paths(params), leaves_of(params), strict=True):
                _check_scale(context.loss_scale, leaf.dtype, f"parameter {name!r}")
        draws = _draws_of(batch, context) if batch_per_draw else context.draws
        # Who brings a batch for each has cut them already.
        if draws is None or batch_per_draw or draws <= (together := _together(params, batch)):
            out, gradients = _along(loss, context, params, batch, batch_per_draw)
            draws = draws or max(len(out), *map(len, gradients))
            one = not context.draws and not batch_per_draw
            grads = iter([_repeated(gradient, draws) for gradient in gradients])
            found = _repeated(out, draws)[0] if one else _repeated(out, draws)
            return (found if found.ndim else float(found)), tree_map(
                lambda _: next(grads)[0] if one else next(grads), params
            )
        losses: list[Array] = []
        whole = [np.empty((draws, *a.shape), a.dtype) for a in leaves_of(params)]
        for first, count in _parts(draws, together):
            with context.some_draws(first, count) as part:
                out, gradients = _along(loss, part, params, batch, batch_per_draw=False)
            context.take(part, count)
            losses.append(_repeated(out, count))
            for array, gradient in zip(whole, gradients, strict=True):
                array[first : first + count] = gradient
        grads = iter(whole)
        return np.concatenate(losses), tree_map(lambda _: next(grads), params)

    return run


def value(function: Callable[..., Any]) -> Callable[..., Any]:
    """Return a function of (params, data, ...) that gives the value of `function`: a loss, scores, any chain of operations.

    Arrays of `params` and `data` have no axis of draws, nor has the result; under `numerics(draws=K)` it has one of length K.
    Further arguments are handed on unchanged. The forward points round as the numerics in force say. Errors are those of
    `value_and_grad`.
    """

    @functools.wraps(function)
    @gradual_underflow
    def run(params: Any, data: Any, *rest: Any, **options: Any) -> Any:
        if _TAPE.get(None) is not None:
            return function(params, data, *rest, **options)
        context = current()
        if in_force() is None:
            with context:
                return run(params, data, *rest, **options)
        params, data = _parameters(params), _data(data)
        draws = context.draws

        def forward() -> Any:
            with _pass(Tape()):
                return function(_named(lambda array: array[None], params), _lifted(data), *rest, **options)

        if draws is None or draws <= (together := _together(params, data)):
            return tree_map(lambda y: _alone(y, context), forward())
        found = []
        for first, count in _parts(draws, together):
            with context.some_draws(first, count) as part:
                some = forward()
            context.take(part, count)
            found.append(tree_map(lambda y, part=part: _alone(y, part), some))
        return tree_map(lambda *several: np.concatenate(several) if several[0] is not None else None, *found)

    return run


def evaluable(weight: str, axes: int) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Make a method (self, params, data, ...) of a model one that can be called outside a tape, as `value` calls a function.

    The parameter `weight` has so many `axes`; where it has one more, all arrays have the axis of draws already.
    """

    def decorated(function: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(function)
        @gradual_underflow
        def run(self: Any, params: Any, data: Any, *rest: Any, **options: Any) -> Any:
            if _TAPE.get(None) is not None:
                return function(self, params, data, *rest, **options)
            found = params
            for name in weight.split("."):
                if not isinstance(found, dict) or name not in found:
                    raise InputError(f"no parameter is called {weight!r}; give those that `init` of the model makes")
                found = found[name]
            if np.ndim(found) == axes:
                return value(functools.partial(function, self))(params, data, *rest, **options)
            with _pass(Tape()):
                return function(self, params, data, *rest, **options)

        return run

    return decorated


def _parts(draws: int, together: int) -> list[tuple[int, int]]:
    """Return the first draw of each part of all draws, and how many it has."""
    return [(first, min(together, draws - first)) for first in range(0, draws, together)]


def _together(params: Any, data: Any) -> int:
    """Return how many draws go along the tape at a time."""
    size: int = sum(leaf.nbytes for leaf in leaves_of(params))
    size += ACTIVATIONS * sum(leaf.nbytes for leaf in leaves_of(data) if leaf is not None)
    return max(1, CACHE // max(size, 1))


def _draws_of(batch: Any, context: Numerics) -> int:
    """Return how many draws a batch has that has one for each, or one for all; refuse another number than the context's."""
    leaves = [leaf for leaf in leaves_of(batch) if leaf is not None]
    if not all(leaf.ndim for leaf in leaves):
        raise InputError("a batch for each draw has arrays with an axis of draws; one of them is a single number")
    counts = {len(leaf) for leaf in leaves}
    several = counts - {1}
    draws = int(context.draws or max(several, default=1))
    if not several <= {draws}:
        raise InputError(
            f"a batch for each of {draws} draws: its arrays hold {enumerate_names(map(str, sorted(counts)))} of them"
        )
    return draws


def _repeated(array: Array, draws: int) -> Array:
    """Return `array` with all draws, where one stands for all."""
    return array if len(array) == draws else np.repeat(array, draws, 0)


def _gradient(leaf: Var, loss_scale: float) -> Array:
    """Divide a cotangent by the loss scale, a power of two, and by the tape's pending divisor.

    One after the other: their product may be beyond the range, and the first division is exact short of underflow.
    """
    gradient, number = _cotangent(leaf), leaf.value.dtype.type
    if loss_scale != 1:
        gradient = gradient / number(loss_scale)
    return gradient if leaf.owed == 1 else (gradient / number(leaf.owed)).astype(number, copy=False)


def _check_scale(scale: float, dtype: np.dtype[Any], what: str) -> None:
    """Refuse a loss scale that is none in the type in which a loss or a gradient is computed."""
    with np.errstate(all="ignore"):
        held = float(dtype.type(scale)) == scale
    if not held:
        raise InputError(
            f"loss_scale = 2^{math.frexp(scale)[1] - 1} is beyond the range of {dtype}, the type of {what}; take a smaller "
            "power, or convert the model to float64"
        )


def _along(
    loss: Callable[[Any, Any], Var], context: Numerics, params: Any, batch: Any, batch_per_draw: bool
) -> tuple[Array, list[Array]]:
    """Go along the tape and back: return the loss, and its gradients."""
    leaves: list[Var] = []

    def lift(array: Array) -> Var:
        leaves.append(Var(array[None]))
        return leaves[-1]

    lifted = _named(lift, params)
    data = batch if batch_per_draw else _lifted(batch)
    written = Tape()
    with _pass(written):
        out = loss(lifted, data)
        if not isinstance(out, Var):
            raise InputError("the loss does not depend on the parameters; operations of the tape make one that does")
        if out.value.ndim != 1:
            raise InputError(
                f"the loss of each draw is a number, not an array of shape {out.value.shape[1:]}; take a mean"
            )
        if context.loss_scale != 1:
            _check_scale(context.loss_scale, out.value.dtype, "the loss")
        _backward(written, out, context.loss_scale)
        gradients = [_gradient(leaf, context.loss_scale) for leaf in leaves]
    if context.seen is not None:
        context.seen["divisors"] = [leaf.owed * context.loss_scale for leaf in leaves]
        context.seen["uses"] = [leaf.uses for leaf in leaves]
    return out.value, gradients


def _cotangent(leaf: Var) -> Array:
    return np.zeros_like(leaf.value) if leaf.cotangent is None else leaf.cotangent


def _backward(written: Tape, out: Var, loss_scale: float) -> None:
    """Send cotangents from `out` back along the tape, which is in topological order as written; finished nodes are released."""
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
    """Add a cotangent to the sum so far; where their pending divisors differ, both take the larger one."""
    if arg.cotangent is None:
        arg.cotangent, arg.owed = g, owed
        return
    most = max(arg.owed, owed)
    before = arg.cotangent if arg.owed == most else arg.cotangent * g.dtype.type(most / arg.owed)
    arg.cotangent = before + (g if owed == most else g * g.dtype.type(most / owed))
    arg.owed = most


# --- Words that two passes share -----------------------------------------------------------------------------

_UPDATED = 0
"""How many updates of parameters there have been."""
_LATEST: tuple[Any, ...] | None = None
"""The purpose of the random words of the latest pass, and the number of parameter updates before it."""


def note_update() -> None:
    """Count an update of parameters: the next pass is one of another step."""
    global _UPDATED  # noqa: PLW0603 - of the process
    _UPDATED += 1


def _note_words(loss: Callable[..., Any], context: Numerics, found: float) -> None:
    """Warn if the pass took words that another pass took for another step or micro-batch.

    That is one of the same context, or the one before it, if parameters were updated since, with the same rounding of the same
    loss by the same words, and with another value of it.
    """
    global _LATEST
    words = (context.seed, context.step, context.first_draw, context.rank)
    choices = (words, context.weight_draws, context.error_draws, context.sample_draws, context.policy)
    owner, method = getattr(loss, "__self__", loss), getattr(loss, "__func__", None)
    taken = (_referred(owner), method, choices, repr(found))
    earlier = [context.taken, *([_LATEST[0]] if _LATEST is not None and _LATEST[1] != _UPDATED else [])]
    context.taken, _LATEST = taken, (taken, _UPDATED)
    for before in earlier:
        if before is not None and before[0]() is owner and before[1:3] == taken[1:3] and before[3] != taken[3]:
            warnings.warn(
                f"two passes took the same random words, those of seed = {context.seed}, step = {context.step}, first_draw = "
                f"{context.first_draw}, and had different losses; give numerics(step=...) the number of the step, and "
                "first_draw that of the micro-batch",
                SameWords,
                stacklevel=4,
            )
            return


def _referred(owner: Any) -> Callable[[], Any]:
    """Return a function that gives `owner` while it exists; one without room for that is kept."""
    try:
        return weakref.ref(owner)
    except TypeError:
        return lambda: owner


# --- Trees ---------------------------------------------------------------------------------------------------


def tree_map(function: Callable[..., Any], tree: Any, *others: Any) -> Any:
    """Apply `function` to the leaves of nested dicts, lists and tuples, in order; `others` have the same structure."""
    if isinstance(tree, dict):
        if not others:
            return {name: tree_map(function, branch) for name, branch in tree.items()}
        return {name: tree_map(function, branch, *(other[name] for other in others)) for name, branch in tree.items()}
    if isinstance(tree, list | tuple):
        branches = (tree_map(function, *branch) for branch in zip(tree, *others, strict=True))
        return type(tree)(*branches) if hasattr(tree, "_fields") else type(tree)(branches)  # a named tuple takes each
    return function(tree, *others)


def leaves_of(tree: Any) -> list[Any]:
    """Return the leaves of nested dicts, lists and tuples, in order."""
    found: list[Any] = []
    tree_map(found.append, tree)
    return found


def _parameters(params: Any) -> Any:
    """Return parameters as arrays of float32 or float64; refuse other objects, by name."""

    def checked(leaf: Any) -> Array:
        if type(leaf) is np.ndarray and leaf.dtype.char in "fd" and leaf.dtype.isnative:
            return leaf
        # Few have this type, and their names are looked for then: one leaf may stand in several places.
        name = next(name for name, other in zip(paths(params), leaves_of(params), strict=True) if other is leaf)
        what = f"parameter {name!r}" if name else "the parameter"
        array = _array(leaf, what)
        if array.dtype not in (np.float32, np.float64):
            raise InputError(f"{what} is {array.dtype}; parameters are arrays of float32 or float64")
        return array

    return tree_map(checked, params)


def _data(batch: Any) -> Any:
    """Return a batch as arrays; `None` stays."""
    return tree_map(lambda leaf: None if leaf is None else _array(leaf, "an array of the batch"), batch)


def _lifted(tree: Any) -> Any:
    """Return a tree of arrays with an axis of draws before their own."""
    return tree_map(lambda array: None if array is None else array[None], tree)


class _Named(dict[str, Any]):
    """Hold parameters by name; asked for one that is not there it says which are."""

    __slots__ = ("prefix",)
    prefix: str

    def __missing__(self, name: str) -> Any:
        there = enumerate_names(repr(f"{self.prefix}{known}") for known in self) or "none"
        raise InputError(
            f"no parameter is called {f'{self.prefix}{name}'!r}, which the loss asks for; those there are {there}"
        )


def _named(lift: Callable[[Array], Any], tree: Any, prefix: str = "") -> Any:
    """Return `tree_map` of a function of arrays, whose dicts are typed by their contents."""
    if isinstance(tree, dict):
        named = _Named({name: _named(lift, branch, f"{prefix}{name}.") for name, branch in tree.items()})
        named.prefix = prefix
        return named
    if isinstance(tree, list | tuple):
        branches = (_named(lift, branch, f"{prefix}{number}.") for number, branch in enumerate(tree))
        return type(tree)(*branches) if hasattr(tree, "_fields") else type(tree)(branches)
    return lift(tree)
