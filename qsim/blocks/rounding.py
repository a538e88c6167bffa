"""Rounding of arrays by blocks: scales and codes by a recipe, any axis, any size, in pieces that stay in a cache."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from qsim import arrays
from qsim.blocks.encoded import Encoded, grid, parse_axes, spread, values_of
from qsim.blocks.formats import BlockFormat
from qsim.blocks.program import Arrays
from qsim.blocks.recipes import Recipe, get_recipe
from qsim.errors import InputError
from qsim.kernels.maxima import largest_of_rows
from qsim.kernels.threads import in_parts
from qsim.rounder import code_dtype
from qsim.rounding import Mode, as_key, parse_mode
from qsim.underflow import gradual_underflow

__all__ = ["block_maxima", "encode", "quantize", "scales_by"]

PIECE = 1 << 18
"""Elements of a piece."""


def block_maxima(
    x: NDArray[Any], axes: tuple[int, ...], size: tuple[int, ...], *, signed: bool = False
) -> NDArray[Any]:
    """Return the largest magnitude of each block, NaN where there is one; with its sign, that of the first, if `signed`."""
    if not signed and axes == (x.ndim - 1,) and _in_rows(x, size[0]):
        largest = np.empty(x.size // size[0], np.float32)
        rows, patterns = x.view(np.uint32).reshape(-1, size[0]), largest.view(np.uint32)
        in_parts(len(largest), lambda begin, end: largest_of_rows(rows[begin:end], patterns[begin:end]))
        return largest.reshape(*x.shape[:-1], x.shape[-1] // size[0])
    wide = x if signed else np.abs(x)
    for axis, length in sorted(zip(axes, size, strict=True)):
        wide = _along(wide, axis, length, signed=signed)
    return wide


def _in_rows(x: NDArray[Any], length: int) -> bool:
    """Return whether the blocks of the last axis are rows of float32 numbers that follow each other."""
    return bool(x.size and x.dtype == np.float32 and x.flags.c_contiguous and x.shape[-1] % length == 0)


def _along(x: NDArray[Any], axis: int, length: int, *, signed: bool) -> NDArray[Any]:
    n = x.shape[axis]
    if not n:
        return x
    if not signed:
        if n % length == 0 and length > 1:
            split = x.reshape(*x.shape[:axis], n // length, length, *x.shape[axis + 1 :])
            largest: NDArray[Any] = split.max(axis=axis + 1)
        else:
            largest = np.maximum.reduceat(x, np.arange(0, n, length), axis)
        return largest
    parts = [x[(slice(None),) * axis + (slice(begin, begin + length),)] for begin in range(0, n, length)]
    first = [np.take_along_axis(part, np.abs(part).argmax(axis, keepdims=True), axis) for part in parts]
    return np.concatenate(first, axis)


def scales_by(recipe: Recipe, m: NDArray[Any], A: Any, top: float | None = None) -> dict[str, Any]:
    """Return the names that the steps of a recipe make of the maxima of blocks, and of that of their tensor.

    `m` and `A` are of float32 or float64, and of any shapes that broadcast.
    """
    known: dict[str, Any] = {"m": m, "A": A, "top": m.dtype.type(top if top is not None else float("nan"))}
    by = Arrays(recipe.format, m.dtype)
    recipe.program.run(by, known, "tensor")
    recipe.program.run(by, known, "block")
    known["s"] = np.asarray(known["s"], m.dtype)
    return known


def with_zeros(y: NDArray[Any], v: NDArray[Any], recipe: Recipe, *, codes: bool) -> NDArray[Any]:
    """Return the values or codes of the rounded numbers `v`, with the zeros that a recipe gives."""
    element, zero = recipe.format.element, recipe.zero
    if zero == "signed" or not element.has_neg_zero:
        return y
    minus = 1 << (element.bits - 1)
    is_zero = (y & (minus - 1)) == 0 if codes else y == 0
    if zero == "positive":
        negative: Any = False
    else:
        negative = v < 0 if zero == "inexact" else v <= 0
    zeros = np.where(negative, minus, 0) if codes else np.where(negative, -0.0, 0.0)
    return np.where(is_zero, zeros, y).astype(y.dtype)


class Rounding:
    """Hold the parts that round one array by one recipe."""

    def __init__(
        self,
        x: ArrayLike,
        fmt: str | Recipe | BlockFormat,
        mode: str | Mode | None,
        scale_rule: str | None,
        axis: int | tuple[int, ...] | None,
        options: dict[str, Any],
    ) -> None:
        self.recipe = get_recipe(fmt, scale_rule)
        self.format = self.recipe.format
        self.x = arrays.as_floats(x)
        self.axes = parse_axes(axis, self.x.ndim, self.format)
        self.work = np.dtype(np.float64 if self.x.dtype.itemsize == 8 else np.float32)
        if self.work.itemsize == 8 and self.recipe.status != "defined":
            raise InputError(f"{self.recipe} computes in float32; convert the float64 input, or give a scale rule")
        stated = self.recipe.mode if mode is None else mode
        if options.get("key") is not None:
            options["key"] = as_key(options["key"])
        self.options = options
        self.element: Any = self.format.element
        self.mode = stated
        if self.format.element.kind == "float" and self.format.element.has_inf:
            options["saturation"] = "SatFinite"

    def known(self) -> list[dict[str, Any]]:
        """Return the names of tensor and blocks, once for each value onto which a maximum may be mapped."""
        x = self.x.astype(self.work, copy=False) if self.x.dtype.itemsize > 2 else self.x
        if x.dtype != self.work:
            x = x.astype(self.work)
        if self.format.nonfinite == "ignore" and not (finite := np.isfinite(x)).all():
            x = np.where(finite, x, self.work.type(0))
        m = block_maxima(x, self.axes, self.format.size, signed=self.recipe.signed_maximum)
        A = np.asarray(np.abs(m).max() if m.size else self.work.type(0), self.work)
        with np.errstate(all="ignore"):
            return [scales_by(self.recipe, m, A, top) for top in self.recipe.tops or (None,)]

    def _pieces(self) -> Iterator[tuple[int, int, slice]]:
        """Yield the elements along the first axis, begin and end, and the blocks that they are of, piece by piece."""
        length = dict(zip(self.axes, self.format.size, strict=True)).get(0, 1)
        step = max(PIECE // max(math.prod(self.x.shape[1:]), 1) // length, 1) * length
        for begin in range(0, self.x.shape[0], step):
            end = min(begin + step, self.x.shape[0])
            yield begin, end, slice(begin // length, -(-end // length))

    def _scaled(self, known: dict[str, Any], begin: int, end: int, blocks: slice) -> NDArray[Any]:
        """Return the numbers that are rounded in place of a piece."""
        piece = self.x[begin:end].astype(self.work, copy=False)
        program = self.recipe.program
        rows = self.axes == (piece.ndim - 1,) and _in_rows(piece, self.format.size[0])
        here = {"x": piece.reshape(*piece.shape[:-1], -1, self.format.size[0]) if rows else piece}
        for name in program.for_elements & known.keys():
            value = np.asarray(known[name])
            if value.ndim and rows:
                value = value[blocks][..., None]
            elif value.ndim:
                value = spread(value[blocks], piece.shape, self.axes, self.format.size)
            here[name] = value
        with np.errstate(all="ignore"):
            program.run(Arrays(self.format, self.work), here, "element")
        v = here["v"].reshape(piece.shape) if rows and np.shape(here["v"]) == here["x"].shape else here["v"]
        return np.ascontiguousarray(np.broadcast_to(v, piece.shape), self.work)

    def scaled(self, known: dict[str, Any]) -> NDArray[Any]:
        """Return the numbers that are rounded in place of the elements, for these scales."""
        v = np.empty(self.x.shape, self.work)
        for begin, end, blocks in self._pieces():
            v[begin:end] = self._scaled(known, begin, end, blocks)
        return v

    def divided(self, known: dict[str, Any], *, codes: bool) -> NDArray[Any] | None:
        """Return codes, or the values s q, of blocks that are rows, in one pass; `None` where something else is asked."""
        s, length = known["s"], self.format.size[0]
        if self.recipe.steps[-1] != "v = x / s" or self.recipe.zero != "signed" or parse_mode(self.mode).stochastic:
            return None
        if self.axes != (self.x.ndim - 1,) or not _in_rows(self.x, length):
            return None
        if s.shape != (*self.x.shape[:-1], self.x.shape[-1] // length) or not ((s > 0) & (s < np.inf)).all():
            return None
        if not codes and (self.recipe.decode or self.format.tensor_scale):
            return None
        rows, scales = self.x.reshape(-1, length), np.ascontiguousarray(s).reshape(-1, 1)
        round_ = arrays.encode if codes else arrays.quantize
        y: NDArray[Any] = round_(rows, self.element, self.mode, scale=scales, **self.options)
        return y.reshape(self.x.shape)

    def rounded(self, known: dict[str, Any], *, codes: bool) -> NDArray[Any]:
        """Return the elements as values or codes of their format, for these scales."""
        if codes and (whole := self.divided(known, codes=True)) is not None:
            return whole
        out = np.empty(self.x.shape, code_dtype(self.format.element) if codes else self.work)
        key, rbits = self.options.get("key"), self.options.get("rbits")
        rest = {name: value for name, value in self.options.items() if name not in ("key", "rbits")}
        if rbits is not None:
            rbits = np.broadcast_to(arrays.as_array(rbits, "rbits"), self.x.shape)
        row = math.prod(self.x.shape[1:])
        for begin, end, blocks in self._pieces():
            v = self._scaled(known, begin, end, blocks)
            words: dict[str, Any] = {}
            if key is not None:
                words["key"] = key.after(begin * row)
            if rbits is not None:
                words["rbits"] = rbits[begin:end]
            round_ = arrays.encode if codes else arrays.quantize
            out[begin:end] = with_zeros(
                round_(v, self.element, self.mode, **rest, **words), v, self.recipe, codes=codes
            )
        return out

    def tensor(self, known: dict[str, Any]) -> float:
        return float(known["T"]) if self.format.tensor_scale else 1.0

    def chosen(self) -> tuple[dict[str, Any], NDArray[Any] | None]:
        """Return the names of tensor and blocks; of a choice those with the least error, and the values they give."""
        several = self.known()
        if len(several) == 1:
            return several[0], None
        best, least, elements = several[0], None, None
        for known in several:
            q = self.rounded(known, codes=False)
            error = self._errors(q, known)
            if least is None:
                best, least, elements = dict(known), error, q
                continue
            assert elements is not None
            better = error < least
            least = np.where(better, error, least)
            best = {
                name: np.where(better, known[name], best[name]) if np.ndim(known[name]) else known[name]
                for name in known
            }
            wide = spread(better, self.x.shape, self.axes, self.format.size)
            elements = np.where(wide, q, elements)
        return best, elements

    @np.errstate(all="ignore")
    def _errors(self, q: NDArray[Any], known: dict[str, Any]) -> NDArray[Any]:
        """Return the error of each block, its elements in order, each operation rounded to float32."""
        s = spread(known["s"], self.x.shape, self.axes, self.format.size)
        y = values_of(q, s, self.tensor(known), self.recipe, self.format, self.work, known["A"])
        e = np.abs(y - self.x.astype(self.work))
        if self.recipe.choose == "mse":
            e = e * e
        for axis, length in sorted(zip(self.axes, self.format.size, strict=True)):
            n = e.shape[axis]
            padded = np.zeros((*e.shape[:axis], -(-n // length) * length, *e.shape[axis + 1 :]), e.dtype)
            padded[(slice(None),) * axis + (slice(n),)] = e
            split = padded.reshape(*e.shape[:axis], -1, length, *e.shape[axis + 1 :])
            total = np.take(split, 0, axis + 1)
            for k in range(1, length):
                one = np.take(split, k, axis + 1)
                total = np.maximum(total, one) if self.recipe.choose == "max" else total + one
            e = total
        errors: NDArray[Any] = e
        return errors


@gradual_underflow
def encode(
    x: ArrayLike,
    fmt: str | Recipe | BlockFormat,
    mode: str | Mode | None = None,
    *,
    scale_rule: str | None = None,
    axis: int | tuple[int, ...] | None = None,
    **options: Any,
) -> Encoded:
    """Return the codes and the scales of `x` by a block format, or by a recipe.

    `fmt` names a block format, whose scales follow `scale_rule` or its own recipe, or a recipe. Blocks lie along `axis`, the
    last one by default (two of them for two-dimensional blocks); the last block of an axis may be shorter. `mode` rounds the
    elements, in place of the recipe's own; `key`, or `sr_bits` and `rbits`, are its random words, numbered as in
    `qsim.quantize`. Raise `InputError` for arguments that do not go together.
    """
    r = Rounding(x, fmt, mode, scale_rule, axis, options)
    known, elements = r.chosen()
    codes = r.rounded(known, codes=True) if elements is None else arrays.encode(elements, r.element)
    scales = arrays.encode(known["s"], r.format.scale, nan="canonical")
    blocks = grid(r.x.shape, r.axes, r.format.size)
    return Encoded(r.format, codes, np.broadcast_to(scales, blocks).copy(), r.tensor(known), r.axes, r.recipe)


@gradual_underflow
def quantize(
    x: ArrayLike,
    fmt: str | Recipe | BlockFormat,
    mode: str | Mode | None = None,
    *,
    scale_rule: str | None = None,
    axis: int | tuple[int, ...] | None = None,
    out: NDArray[Any] | None = None,
    **options: Any,
) -> NDArray[Any]:
    """Return the values that `encode` stands for, with the shape and dtype of `x`.

    Arguments and errors are those of `encode`; `out` takes the result.
    """
    r = Rounding(x, fmt, mode, scale_rule, axis, options)
    known, elements = r.chosen()
    y = r.divided(known, codes=False) if elements is None else None
    if y is None:
        q = r.rounded(known, codes=False) if elements is None else elements
        s = np.broadcast_to(known["s"], grid(r.x.shape, r.axes, r.format.size))
        if r.axes == (r.x.ndim - 1,) and r.x.size and r.x.shape[-1] % r.format.size[0] == 0:
            q, s = q.reshape(*s.shape, -1), s[..., None]
        else:
            s = spread(s, r.x.shape, r.axes, r.format.size)
        y = values_of(q, s, r.tensor(known), r.recipe, r.format, r.x.dtype).reshape(r.x.shape)
    if out is None:
        return y
    if not isinstance(out, np.ndarray) or out.shape != y.shape or out.dtype != y.dtype or not out.flags.writeable:
        raise InputError(f"out must be a writeable array of {y.dtype} {y.shape}, the shape of x")
    out[...] = y
    return out
