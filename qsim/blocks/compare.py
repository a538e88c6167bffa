"""Comparison of two recipes by enumeration: every bfloat16 maximum of a block, and every bfloat16 element of it.

For a maximum m (and a maximum A of the tensor) a recipe's scale is one number, and the code of an element grows with the
element: it is enough to know where it changes. Intervals of elements at whose ends neither recipe's code differs are constant;
all others are divided until they have no inner element.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from qsim import arrays
from qsim.blocks.encoded import values_of
from qsim.blocks.formats import BlockFormat
from qsim.blocks.program import Arrays
from qsim.blocks.recipes import Recipe, get_recipe
from qsim.blocks.rounding import scales_by, with_zeros
from qsim.errors import InputError
from qsim.rounding import parse_mode
from qsim.underflow import gradual_underflow

__all__ = ["Comparison", "Difference", "bfloat16_maxima", "compare_recipes", "gaussian_share"]

CHUNK = 1 << 12
"""Maxima whose elements are looked at together."""


@dataclass(frozen=True, slots=True)
class Difference:
    """Hold one class of inputs on which two recipes differ: how many there are, and the smallest.

    `kind` is "tensor scale", "scale", "scale of a small block" (up to the smallest normal scale), "scale of zeros", "code"
    (where the scales are equal), "sign of zero", "value" (of equal codes and scales), "NaN" or "infinity". The smallest is the
    one whose maximum has the fewest significant bits, then the least exponent, positive or negative.
    """

    kind: str
    count: int
    of: int
    #: Maxima of the tensor and the block, and the element, as far as they matter.
    tensor: float | None
    maximum: float | None
    element: float | None
    #: What the two recipes make of it.
    a: float
    b: float

    def __str__(self) -> str:
        where = ", ".join(
            f"{name} {value:g}"
            for name, value in (("A", self.tensor), ("m", self.maximum), ("x", self.element))
            if value is not None
        )
        return f"{self.kind}: {self.count:,} of {self.of:,} differ; smallest {where or 'everywhere'}: {self.a!r}, {self.b!r}"


@dataclass(frozen=True, slots=True)
class Comparison:
    """Hold the differences of two recipes."""

    a: Recipe
    b: Recipe
    differences: tuple[Difference, ...]
    #: The maxima of blocks at which the scales differ, for each maximum of the tensor (`None` without).
    scales: dict[float | None, NDArray[Any]] = field(default_factory=dict)

    @property
    def equal(self) -> bool:
        """Whether no input was found on which they differ."""
        return not self.differences

    def __getitem__(self, kind: str) -> Difference | None:
        return next((one for one in self.differences if one.kind == kind), None)

    def __str__(self) -> str:
        head = f"{self.a} and {self.b}"
        if self.equal:
            return f"{head}: equal for every bfloat16 maximum and element"
        return "\n".join([head, *(f"    {one}" for one in self.differences)])


def bfloat16_maxima(below: float = math.inf) -> NDArray[np.float32]:
    """Return all positive finite bfloat16 numbers up to `below`, as float32, in ascending order."""
    patterns = np.arange(1, 0x7F80, dtype=np.uint32) << np.uint32(16)
    values = patterns.view(np.float32)
    return values[values <= below]


@gradual_underflow
def compare_recipes(
    a: str | Recipe | BlockFormat,
    b: str | Recipe | BlockFormat,
    *,
    tensor_maxima: Iterable[float] | None = None,
    maxima: Iterable[float] | None = None,
) -> Comparison:
    """Return every class of bfloat16 inputs on which two recipes for one block format differ, with the smallest example.

    All bfloat16 maxima m are enumerated (or the `maxima` that are given), and all bfloat16 elements |x| <= m; where there is a
    scale of the tensor, for each of `tensor_maxima`: by default the 128 bfloat16 numbers of a binade for scales, and 1, 1.5,
    1.75 and 1.3125 (3, 7 and 21 times a power of two) for codes. Recipes that choose between several scales by the error of a
    block cannot be enumerated by its maximum; they are refused.
    """
    first, second = get_recipe(a), get_recipe(b)
    alike = (first.format.element, first.format.size, first.format.tensor_scale, first.format.scale)
    if alike != (second.format.element, second.format.size, second.format.tensor_scale, second.format.scale):
        raise InputError(f"{first} and {second} are recipes for different formats, {first.format} and {second.format}")
    for one in (first, second):
        if parse_mode(one.mode).stochastic:
            raise InputError(f"{one} rounds by random words; compare expect and variance of two such recipes")
        if one.choose or one.signed_maximum:
            raise InputError(f"{one} looks at more of a block than its maximum, which is what is enumerated")
    found: list[Difference] = []
    if first.format.tensor_scale:
        binade = bfloat16_maxima(2)
        every = [float(one) for one in binade[(binade >= 1) & (binade < 2)]]
        tensors = every if tensor_maxima is None else [float(np.float32(one)) for one in tensor_maxima]
        deep = [1.0, 1.5, 1.75, 1.3125] if tensor_maxima is None else tensors
        found += _tensor_scales(first, second, tensors)
    else:
        tensors = deep = [None]  # type: ignore[list-item]
    some = bfloat16_maxima() if maxima is None else np.array(sorted(set(maxima)), np.float32)
    differing, scale = _scales(first, second, tensors, some)
    found += scale
    found += _elements(first, second, deep, some)
    found += _values(first, second, deep)
    found += _nans(first, second)
    return Comparison(first, second, tuple(found), differing)


def _known(recipe: Recipe, m: NDArray[np.float32], A: float | None) -> dict[str, Any]:
    with np.errstate(all="ignore"):
        largest = np.float32(A) if A is not None else m.max() if m.size else np.float32(0)
        return scales_by(recipe, m, np.asarray(largest, np.float32))


def _codes(recipe: Recipe, known: dict[str, Any], x: NDArray[np.float32]) -> NDArray[Any]:
    """Return the codes of elements, whose blocks have these scales: all of one shape."""
    here = dict(known, x=x)
    with np.errstate(all="ignore"):
        recipe.program.run(Arrays(recipe.format, np.dtype(np.float32)), here, "element")
    v = np.ascontiguousarray(np.broadcast_to(here["v"], x.shape), np.float32)
    element = recipe.format.element
    options = {"saturation": "SatFinite"} if element.kind == "float" and element.has_inf else {}
    mode = recipe.mode
    return with_zeros(arrays.encode(v, element, mode, **options), v, recipe, codes=True)  # type: ignore[arg-type]


def _scale_codes(recipe: Recipe, s: Any, shape: tuple[int, ...]) -> NDArray[Any]:
    return arrays.encode(np.ascontiguousarray(np.broadcast_to(s, shape), np.float32), recipe.format.scale)


def simplicity(m: NDArray[np.float32]) -> NDArray[np.int64]:
    """Return how simple numbers are: by their significant bits, then by the size of their exponent."""
    fraction, exponent = np.frexp(np.abs(m).astype(np.float64))
    whole = (fraction * 2.0**24).astype(np.int64)
    low = np.where(whole == 0, 0, np.log2((whole & -whole).astype(np.float64) + (whole == 0)).astype(np.int64))
    simple: NDArray[np.int64] = (24 - low) * 4096 + np.abs(exponent.astype(np.int64) - 1) * 2 + (exponent < 1)
    return simple


def _simplest(m: NDArray[np.float32]) -> int:
    return int(np.argmin(simplicity(m)))


def _tensor_scales(a: Recipe, b: Recipe, tensors: list[float]) -> Iterator[Difference]:
    one = np.ones(1, np.float32)
    pairs = [(A, float(_known(a, one, A)["T"]), float(_known(b, one, A)["T"])) for A in tensors]
    if bool(a.decode) != bool(b.decode):  # one stores what the other stores the reciprocal of
        return
    other = [pair for pair in pairs if pair[1] != pair[2]]
    if other:
        A, p, q = other[_simplest(np.array([pair[0] for pair in other], np.float32))]
        yield Difference("tensor scale", len(other), len(pairs), A, None, None, p, q)


def _scales(
    a: Recipe, b: Recipe, tensors: list[float], maxima: NDArray[np.float32]
) -> tuple[dict[float | None, NDArray[Any]], list[Difference]]:
    differing: dict[float | None, NDArray[Any]] = {}
    kinds = ("scale", "scale of a small block")
    best: dict[str, tuple[int, Difference]] = {}
    counts = dict.fromkeys(kinds, 0)
    total = 0
    zeros: Difference | None = None
    normal = getattr(a.format.scale, "first_normal", 1)
    for A in tensors:
        m = np.concatenate([np.zeros(1, np.float32), maxima if A is None else maxima[maxima <= A]])
        p, q = (_scale_codes(one, _known(one, m, A)["s"], m.shape) for one in (a, b))
        if p[0] != q[0] and zeros is None:
            zeros = Difference("scale of zeros", 1, 1, A, None, None, int(p[0]), int(q[0]))
        unlike = np.flatnonzero(p[1:] != q[1:]) + 1
        total += len(m) - 1
        differing[A] = m[unlike]
        small = np.minimum(p[unlike], q[unlike]) <= normal
        for kind, some in zip(kinds, (unlike[~small], unlike[small]), strict=True):
            if not len(some):
                continue
            counts[kind] += len(some)
            at = some[_simplest(m[some])]
            rank = int(simplicity(m[at : at + 1])[0])
            if kind not in best or rank < best[kind][0]:
                best[kind] = rank, Difference(kind, 0, 0, A, float(m[at]), None, int(p[at]), int(q[at]))
    found = [dataclasses.replace(best[kind][1], count=counts[kind], of=total) for kind in kinds if kind in best]
    return differing, [*found, *([] if zeros is None else [zeros])]


@dataclass(slots=True)
class _Tally:
    """Count elements whose codes differ, and keep the smallest."""

    kind: str
    count: int = 0
    rank: int = 1 << 62
    example: tuple[float | None, float, float, int, int] | None = None

    def add(self, n: int, A: float | None, m: NDArray[Any], x: NDArray[Any], p: NDArray[Any], q: NDArray[Any]) -> None:
        self.count += n
        ranks = simplicity(m) * (1 << 24) + simplicity(x)
        at = int(np.argmin(ranks))
        if ranks[at] < self.rank:
            self.rank = int(ranks[at])
            self.example = (A, float(m[at]), float(x[at]), int(p[at]), int(q[at]))


def _elements(a: Recipe, b: Recipe, tensors: list[float], every: NDArray[np.float32]) -> list[Difference]:
    minus = 1 << (a.format.element.bits - 1) if a.format.element.has_neg_zero else 0
    tallies = {kind: _Tally(kind) for kind in ("code", "sign of zero")}
    total = 0
    for A in tensors:
        maxima = every if A is None else every[every <= A]
        for begin in range(0, len(maxima), CHUNK):
            m = maxima[begin : begin + CHUNK]
            first, second = _known(a, m, A), _known(b, m, A)
            same = _scale_codes(a, first["s"], m.shape) == _scale_codes(b, second["s"], m.shape)
            m = m[same]
            if not len(m):
                continue
            first, second = _known(a, m, A), _known(b, m, A)
            ends = (m.view(np.uint32) >> np.uint32(16)).astype(np.int64)
            total += 2 * int((ends + 1).sum())
            for negative in (False, True):
                for parts in _intervals(a, b, first, second, ends, negative=negative):
                    unlike = parts[3] != parts[4]
                    if not unlike.any():
                        continue
                    block, low, length, p, q = (one[unlike] for one in parts)
                    zeros = ((p | q) & (minus - 1)) == 0 if minus else np.zeros(len(p), bool)
                    for kind, some in (("code", ~zeros), ("sign of zero", zeros)):
                        if some.any():
                            x = _numbers(low[some], negative=negative)
                            n = int(length[some].sum())
                            tallies[kind].add(n, A, m[block[some]], x, p[some], q[some])
    return [
        Difference(tally.kind, tally.count, total, *tally.example)
        for tally in tallies.values()
        if tally.example is not None
    ]


def _numbers(pattern: NDArray[np.int64], *, negative: bool) -> NDArray[np.float32]:
    """Return bfloat16 numbers of these patterns without sign, as float32."""
    return (pattern.astype(np.uint32) << np.uint32(16) | np.uint32(negative << 31)).view(np.float32)


def _intervals(
    a: Recipe, b: Recipe, first: dict[str, Any], second: dict[str, Any], ends: NDArray[np.int64], *, negative: bool
) -> Iterator[tuple[NDArray[Any], ...]]:
    """Yield (block, first element, number of elements, code of a, code of b): together all elements 0 .. m of each block."""

    def looked(block: NDArray[Any], x: NDArray[np.int64]) -> tuple[NDArray[Any], NDArray[Any]]:
        numbers = _numbers(x, negative=negative)
        return tuple(  # type: ignore[return-value]
            _codes(recipe, {name: v[block] if np.ndim(v) else v for name, v in known.items()}, numbers)
            for recipe, known in ((a, first), (b, second))
        )

    block = np.arange(len(ends))
    p, q = looked(block, ends)
    yield block, ends, np.ones(len(ends), np.int64), p, q
    # half-open intervals [low, high), whose codes at both ends are known
    low, high = np.zeros(len(ends), np.int64), ends
    (lp, lq), (hp, hq) = looked(block, low), (p, q)
    while len(block):
        done = ((lp == hp) & (lq == hq)) | (high - low == 1)
        if done.any():
            yield block[done], low[done], (high - low)[done], lp[done], lq[done]
        block, low, high, lp, lq, hp, hq = (one[~done] for one in (block, low, high, lp, lq, hp, hq))
        if not len(block):
            return
        middle = (low + high) // 2
        mp, mq = looked(block, middle)
        block = np.concatenate([block, block])
        low, high = np.concatenate([low, middle]), np.concatenate([middle, high])
        lp, hp = np.concatenate([lp, mp]), np.concatenate([mp, hp])
        lq, hq = np.concatenate([lq, mq]), np.concatenate([mq, hq])


def _values(a: Recipe, b: Recipe, tensors: list[float]) -> list[Difference]:
    """Compare the values that equal codes and scales are decoded to, where both store the same scale of the tensor."""
    element, scale = a.format.element, a.format.scale
    if scale.bits > 8 or element.bits > 8:
        return []
    q = arrays.decode(np.arange(1 << element.bits), element) if _all_codes(element) else None
    if q is None:
        return []
    s = arrays.decode(np.arange(1 << scale.bits), scale)
    grid_q, grid_s = (np.ascontiguousarray(one) for one in np.broadcast_arrays(q[None, :], s[:, None]))
    one = np.ones(1, np.float32)
    count = total = 0
    example: Difference | None = None
    for A in tensors:
        values = [
            values_of(
                grid_q, grid_s, float(_known(recipe, one, A)["T"]) if recipe.format.tensor_scale else 1.0,
                recipe, recipe.format, np.dtype(np.float32),
            )
            for recipe in (a, b)
        ]  # fmt: skip
        unlike = (values[0] != values[1]) & ~(np.isnan(values[0]) & np.isnan(values[1]))
        count, total = count + int(unlike.sum()), total + unlike.size
        if unlike.any() and example is None:
            row, column = np.argwhere(unlike)[0]
            example = Difference(
                "value", 0, 0, A, None, float(q[column]), float(values[0][row, column]), float(values[1][row, column])
            )
    if example is None:
        return []
    return [Difference("value", count, total, example.tensor, None, example.element, example.a, example.b)]


def _all_codes(element: Any) -> bool:
    try:
        arrays.decode(np.arange(1 << element.bits), element)
    except InputError:
        return False
    return True


def _nans(a: Recipe, b: Recipe) -> list[Difference]:
    """Compare the scales of blocks whose maximum is NaN or infinite."""
    found = []
    for kind, m in (("NaN", math.nan), ("infinity", math.inf)):
        maxima = np.array([m], np.float32)
        p, q = (int(_scale_codes(one, _known(one, maxima, m)["s"], (1,))[0]) for one in (a, b))
        if p != q:
            found.append(Difference(kind, 1, 1, None, m, None, p, q))
    return found


@gradual_underflow
def gaussian_share(
    a: str | Recipe, b: str | Recipe, sigma: float = 1.0, *, bfloat16: bool = False, tensor: float | None = None
) -> float:
    """Return the probability that two recipes give a block of independent Gaussian elements different scales.

    The maximum m of n elements of standard deviation sigma has the distribution (2 Phi(m / sigma) - 1)^n, which is summed over
    the bfloat16 maxima at which the scales differ: those that round to each (`bfloat16`), or, of unrounded elements, those
    from each to the next, for rules that change at bfloat16 numbers alone. `tensor` is the maximum of the tensor.
    """
    from scipy.special import ndtr

    first, second = get_recipe(a), get_recipe(b)
    n = math.prod(first.format.size)
    m = bfloat16_maxima()
    wide = m.astype(np.float64)
    if bfloat16:
        edges = np.concatenate([[0.0], (wide[1:] + wide[:-1]) / 2, [np.inf]])
        points = m
    else:
        edges = np.concatenate([wide, [np.inf]])
        points = np.concatenate([((wide[1:] + wide[:-1]) / 2), wide[-1:]]).astype(np.float32)
    below = (2 * ndtr(edges / sigma) - 1) ** n
    p, q = (_scale_codes(one, _known(one, points, tensor)["s"], points.shape) for one in (first, second))
    return float((np.diff(below))[p != q].sum())
