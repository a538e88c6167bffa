"""Products with a weight: the five quantization points, linear layers, and looking up rows."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from qsim.autograd.context import Numerics, current
from qsim.autograd.tape import op, tape
from qsim.errors import InputError
from qsim.kernels.threads import product

__all__ = ["FivePoints", "embedding", "linear"]

Array = NDArray[Any]


class FivePoints:
    """Round the operands of a layer's three products, forward, data gradient and weight gradient, as the context says."""

    def __init__(self, name: str, x: Array, w: Array, rows: Callable[[Array], Array] = lambda x: x) -> None:
        self.context: Numerics = current()
        tape().meet(name)
        self.name, self.x, self.w = name, x, w
        self.context.enrol(name)
        if self.context.seen is not None:
            self.context.seen[name] = rows
        self.x_forward = self.context.round(name, "fwd_act", x)
        self.w_forward = self.context.round(name, "fwd_weight", w)

    def errors(self, g: Array) -> tuple[Array, Array]:
        """Return the error that the data gradient takes, and the one that the weight gradient and the bias take."""
        rounded = self.context.round(self.name, "bwd_grad", g)
        if self.context.error_draws == "shared":
            return rounded, rounded
        return rounded, self.context.round(self.name, "bwd_grad", g, second=True)

    def weight(self) -> Array:
        """Return the weight of the data gradient."""
        words_of = "fwd_weight" if self.context.weight_draws == "shared" else None
        return self.context.round(self.name, "bwd_weight", self.w, otherwise=self.w_forward, words_of=words_of)

    def act(self) -> Array:
        """Return the input of the weight gradient."""
        return self.context.round(self.name, "bwd_act", self.x, otherwise=self.x_forward)

    def through(self, to_x: Array | None, to_w: Array | None) -> tuple[Array | None, Array | None]:
        """Return the cotangents of x and w as they pass the forward roundings: straight through, but where one clamped."""
        for_x = self.context.passes(self.name, "fwd_act", self.x)
        for_w = self.context.passes(self.name, "fwd_weight", self.w)
        return (
            to_x if to_x is None or for_x is None else stopped(to_x, for_x),
            to_w if to_w is None or for_w is None else stopped(to_w, for_w),
        )


def stopped(g: Array, passed: Array) -> Array:
    """Return a cotangent where it passes, and 0 elsewhere, of an infinite one too."""
    return np.where(passed, g, g.dtype.type(0))


@op(alone=(1, 2))
def linear(x: Array, w: Array, b: Array | None = None, *, name: str) -> tuple[Array, Any]:
    """Return x w^T + b, with the five quantization points of Liu et al. at the sites of layer `name`.

    x: (draws, ..., n), w: (draws, m, n), b: (draws, m) or none; outside a tape without the axis of draws, or with it.
    Forward: Q(x; fwd_act) Q(w; fwd_weight)^T + b. Backward, with the error e = Q(g; bwd_grad): x gets e Q(w; bwd_weight), w
    gets e^T Q(x; bwd_act), b gets the sum of e.
    """
    middle = x.shape[1:-1]
    if x.ndim < 3 or w.ndim != 3 or x.shape[-1] != w.shape[-1] or (b is not None and b.shape[1:] != w.shape[1:2]):
        of_bias = "" if b is None else f" and a bias of shape {b.shape[1:]}"
        raise InputError(f"{name}: inputs of shape {x.shape[1:]} do not fit a weight of shape {w.shape[1:]}{of_bias}")
    rows = math.prod(middle)
    points = FivePoints(name, x.reshape(len(x), rows, x.shape[-1]), w)
    y = product(points.x_forward, points.w_forward.swapaxes(-1, -2))
    if b is not None:
        y = y + b[..., None, :]

    def vjp(g: Array, wanted: tuple[bool, ...]) -> tuple[Array | None, ...]:
        for_x, for_w = points.errors(g.reshape(len(g), rows, g.shape[-1]))
        to_x = product(for_x, points.weight()) if wanted[0] else None
        to_w = product(for_w.swapaxes(-1, -2), points.act()) if wanted[1] else None
        to_x, to_w = points.through(to_x, to_w)
        to_x = to_x if to_x is None else to_x.reshape(len(to_x), *middle, to_x.shape[-1])
        return (to_x, to_w) if b is None else (to_x, to_w, for_w.sum(-2) if wanted[2] else None)

    return y.reshape(len(y), *middle, y.shape[-1]), vjp


@op(alone=(1, 2))
def embedding(codes: Array, table: Array, *, name: str) -> tuple[Array, Any]:
    """Return the rows of `table` that `codes` name, with the points fwd_weight and bwd_grad at the sites of layer `name`.

    codes: (draws, ...), integers; table: (draws, rows, n); result: (draws, ..., n); outside a tape without the axis of draws,
    or with it. Backward, with e = Q(g; bwd_grad), row r gets the sum of e over the places that name it. Raise `InputError` for
    a code that names no row.
    """
    if table.ndim != 3:
        raise InputError(f"{name}: a table is (rows, n), not an array of shape {table.shape[1:]}")
    if codes.dtype.kind not in "iu" or (codes.size and not 0 <= codes.min() <= codes.max() < table.shape[1]):
        raise InputError(f"codes of {name} must be integers in 0 .. {table.shape[1] - 1}")
    context = current()
    tape().meet(name)
    context.enrol(name)
    rounded = context.round(name, "fwd_weight", table)
    draws = max(len(codes), len(rounded))
    count = math.prod(codes.shape[1:])
    places = np.broadcast_to(codes, (draws, *codes.shape[1:])).reshape(draws, count)
    y = np.stack([rounded[min(d, len(rounded) - 1)][places[d]] for d in range(draws)])

    def vjp(g: Array, _: tuple[bool, ...]) -> tuple[Array | None, ...]:
        e = context.round(name, "bwd_grad", g.reshape(len(g), count, g.shape[-1]))
        rows, n = table.shape[1:]
        to_table = np.zeros((len(e), rows, n), e.dtype)
        for d in range(len(e)):
            np.add.at(to_table[d], places[min(d, draws - 1)], e[d])
        passed = context.passes(name, "fwd_weight", table)
        return None, to_table if passed is None else stopped(to_table, passed)

    return y.reshape(draws, *codes.shape[1:], table.shape[-1]), vjp
