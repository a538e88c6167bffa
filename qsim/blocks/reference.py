"""The definition: one block by a recipe, in exact rationals, each operation rounded by `qsim.reference`.

The arrays of `qsim.blocks` are right when they equal this.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

from qsim import reference
from qsim.blocks.formats import BlockFormat
from qsim.blocks.program import Rationals
from qsim.blocks.recipes import Recipe, get_recipe
from qsim.rounding import Mode
from qsim.underflow import gradual_underflow

__all__ = ["Block", "encode_block"]


@dataclass(frozen=True, slots=True)
class Block:
    """Hold one block: the codes of its elements, the code of its scale, the scale of the tensor, and the rounded numbers."""

    codes: tuple[int, ...]
    scale: int
    tensor_scale: float
    #: The numbers that were rounded to elements, and the scale as a number.
    scaled: tuple[float, ...]
    s: float


@gradual_underflow
def encode_block(
    x: Sequence[float],
    recipe: str | Recipe | BlockFormat,
    mode: str | Mode | None = None,
    *,
    tensor: float | None = None,
    precision: str = "float32",
    sr_bits: int | None = None,
    rbits: Sequence[int] | None = None,
) -> Block:
    """Return the codes and the scale of one block of numbers that `precision` holds.

    `tensor` is the largest magnitude of the tensor, by default that of the block. `rbits` are the random words of the
    elements, of `sr_bits` bits, for a stochastic mode. Of several tops it takes the one of least error, as the recipe says.
    """
    own = get_recipe(recipe)
    numbers = [float(value) for value in x]
    best: tuple[float, Block] | None = None
    for top in own.tops or (math.nan,):
        by = Rationals(own.format, precision)
        known = _levels(numbers, own, by, top, tensor)
        block = _rounded(numbers, own, by, known, own.mode if mode is None else mode, sr_bits, rbits)
        if not own.choose:
            return block
        error = _error(numbers, own, by, known, block)
        if best is None or error < best[0]:
            best = error, block
    assert best is not None
    return best[1]


def _levels(x: list[float], recipe: Recipe, by: Rationals, top: float, tensor: float | None) -> dict[str, Any]:
    """Return the names of the tensor and of the block."""
    if recipe.format.nonfinite == "ignore":
        x = [value if math.isfinite(value) else 0.0 for value in x]
    if any(map(math.isnan, x)):
        m = math.nan
    elif recipe.signed_maximum:
        m = max(x, key=abs)
    else:
        m = max(map(abs, x))
    known: dict[str, Any] = {"m": m, "A": abs(m) if tensor is None else tensor, "top": top}
    recipe.program.run(by, known, "tensor")
    recipe.program.run(by, known, "block")
    return known


def _rounded(
    x: list[float],
    recipe: Recipe,
    by: Rationals,
    known: dict[str, Any],
    mode: str | Mode,
    sr_bits: int | None,
    rbits: Any,
) -> Block:
    element = recipe.format.element
    saturation = "SatFinite" if element.kind == "float" and element.has_inf else None
    codes, scaled = [], []
    for i, value in enumerate(x):
        here = dict(known, x=value)
        recipe.program.run(by, here, "element")
        word: dict[str, Any] = {} if rbits is None else {"sr_bits": sr_bits, "rbits": int(rbits[i])}
        code = reference.encode(here["v"], element, mode, saturation=saturation, **word)
        minus = 1 << (element.bits - 1)
        if recipe.zero != "signed" and element.has_neg_zero and not code & (minus - 1):
            negative = {"positive": False, "inexact": here["v"] < 0, "negative": here["v"] <= 0}[recipe.zero]
            code = minus if negative else 0
        codes.append(code)
        scaled.append(here["v"])
    s = known["s"]
    scale = reference.encode(s, recipe.format.scale)
    T = float(known["T"]) if recipe.format.tensor_scale else 1.0
    return Block(tuple(codes), scale, T, tuple(scaled), s)


def _error(x: list[float], recipe: Recipe, by: Rationals, known: dict[str, Any], block: Block) -> float:
    """Return the error by which one of several scales is chosen: its terms in order, each operation rounded."""
    total = 0.0
    for k, (value, code) in enumerate(zip(x, block.codes, strict=True)):
        y = decode_element(code, block, recipe, known["A"], erring=True)
        e = abs(by.operate("sub", y, value))
        e = by.operate("mul", e, e) if recipe.choose == "mse" else e
        total = e if not k else max(total, e) if recipe.choose == "max" else by.operate("add", total, e)
    return total


@gradual_underflow
def decode_element(
    code: int, block: Block, recipe: Recipe, tensor: float | None = None, *, erring: bool = False
) -> float:
    """Return the value of one code of a block, as a float32."""
    q, s = recipe.format.element.decode(code), recipe.format.scale.decode(block.scale)
    program = recipe.erring if erring else recipe.decoding
    if program is not None:
        known: dict[str, Any] = {"q": q, "s": s, "T": block.tensor_scale, "A": tensor}
        for level in ("tensor", "block", "element"):
            program.run(Rationals(recipe.format), known, level)
        return float(known["y"])
    if not math.isfinite(q) or not math.isfinite(s) or not math.isfinite(block.tensor_scale):
        return q * s * block.tensor_scale
    y = reference.quantize(Fraction(q) * Fraction(s) * Fraction(block.tensor_scale), "float32", saturation="SatFinite")
    return math.copysign(y, q)
