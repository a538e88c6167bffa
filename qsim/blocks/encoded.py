"""The result of encoding by blocks: codes and scales as one value, which decodes, packs, and is saved."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from qsim import arrays
from qsim.blocks.formats import BlockFormat, get_block_format
from qsim.blocks.program import Arrays
from qsim.blocks.recipes import Recipe, get_recipe
from qsim.errors import InputError, integer
from qsim.files import read_npz, whole
from qsim.packing import pack, unpack
from qsim.scales import largest_number
from qsim.underflow import gradual_underflow

__all__ = ["Encoded", "recipe_called", "spread"]


def spread(
    per_block: NDArray[Any], shape: tuple[int, ...], axes: tuple[int, ...], size: tuple[int, ...]
) -> NDArray[Any]:
    """Return values of blocks as an array of this shape: each is that of the elements of its block."""
    wide = per_block
    for axis, length in zip(axes, size, strict=True):
        wide = np.repeat(wide, length, axis)
        if wide.shape[axis] != shape[axis]:
            wide = wide[(slice(None),) * axis + (slice(shape[axis]),)]
    return wide


@dataclass(frozen=True, slots=True, eq=False)
class Encoded:
    """Hold an array of block-scaled codes: `codes` has its shape, `scales` the codes of the scales, one a block.

    The blocks lie along `axes`, the last ones of which may be shorter than the others. `tensor_scale` is the scale of the
    tensor, a float32 number, 1 in a format without one. `recipe` says how it was made, and how it is decoded.
    """

    format: BlockFormat
    codes: NDArray[Any]
    scales: NDArray[Any]
    tensor_scale: float = 1.0
    axes: tuple[int, ...] = (-1,)
    recipe: Recipe | None = None

    def __post_init__(self) -> None:
        shape = self.codes.shape
        axes = tuple(axis % max(len(shape), 1) for axis in self.axes)
        object.__setattr__(self, "axes", axes)
        blocks = grid(shape, axes, self.format.size)
        if self.scales.shape != blocks:
            raise InputError(
                f"scales of shape {self.scales.shape} do not fit codes of shape {shape}: "
                f"blocks of {'x'.join(map(str, self.format.size))} need {blocks}"
            )

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of the codes."""
        return self.codes.shape

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Encoded):
            return NotImplemented
        alike = self.format == other.format and self.axes == other.axes
        return (
            alike
            and np.array_equal(self.codes, other.codes)
            and np.array_equal(self.scales, other.scales)
            and np.float32(self.tensor_scale).tobytes() == np.float32(other.tensor_scale).tobytes()
        )

    __hash__ = None  # type: ignore[assignment]

    @gradual_underflow
    def decode(self, dtype: Any = np.float32) -> NDArray[Any]:
        """Return the values, as `dtype` (float16, bfloat16, float32 or float64).

        By the recipe's own steps, in float32 and rounded once more to a narrower type, where it has some; else q s T rounded
        once. A finite product beyond the range becomes the largest number.
        """
        q = arrays.decode(self.codes, self.format.element, np.float32)
        s = spread(arrays.decode(self.scales, self.format.scale, np.float32), self.shape, self.axes, self.format.size)
        return values_of(q, s, self.tensor_scale, self.recipe, self.format, np.dtype(dtype))

    def pack(self, order: str = "little") -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
        """Return the bytes of the codes and of the scales, each packed along the last axis, see `qsim.pack`."""
        scale_bits = -(-self.format.scale.bits // 8) * 8  # a scale has bytes of its own
        return pack(self.codes, self.format.element, order=order), pack(self.scales, scale_bits, order=order)  # type: ignore[arg-type]

    @classmethod
    def unpack(
        cls,
        codes: NDArray[np.uint8],
        scales: NDArray[np.uint8],
        fmt: str | BlockFormat,
        count: int,
        *,
        tensor_scale: float = 1.0,
        axes: int | tuple[int, ...] | None = None,
        order: str = "little",
        recipe: str | Recipe | None = None,
    ) -> Self:
        """Undo `pack`; `count` is the number of codes along the last axis."""
        fmt = get_block_format(fmt)
        count = integer("count", count)
        placed = parse_axes(axes, codes.ndim, fmt)
        blocked = dict(zip(placed, fmt.size, strict=True)).get(codes.ndim - 1, 1)
        scale_bits = -(-fmt.scale.bits // 8) * 8
        return cls(
            fmt,
            unpack(codes, fmt.element, count, order=order),  # type: ignore[arg-type]
            unpack(scales, scale_bits, -(-count // blocked), order=order),  # type: ignore[arg-type]
            float(np.float32(tensor_scale)),
            placed,
            None if recipe is None else get_recipe(recipe),
        )

    def save(self, path: str | Path) -> None:
        """Write the value to a `.npz` file, whole or not at all: codes, scales, tensor_scale, and `about`, a JSON text."""
        about = {
            "format": self.format.name,
            "axes": list(self.axes),
            "recipe": None if self.recipe is None else self.recipe.name,
        }
        parts: dict[str, Any] = {
            "codes": self.codes,
            "scales": self.scales,
            "tensor_scale": np.float32(self.tensor_scale),
            "about": np.array(json.dumps(about)),
        }
        with whole(Path(path)) as file:
            np.savez(file, **parts)

    @classmethod
    def load(cls, path: str | Path) -> Self:
        """Read a file that `save` wrote; raise `InputError` naming the fault of another."""
        parts, _ = read_npz(Path(path), "block-scaled codes of qsim.blocks", texts=True)
        try:
            about = json.loads(str(parts["about"]))
            fmt, axes, recipe = get_block_format(about["format"]), tuple(about["axes"]), about["recipe"]
            return cls(
                fmt, parts["codes"], parts["scales"], float(parts["tensor_scale"]), axes,
                None if recipe is None else recipe_called(recipe, fmt),
            )  # fmt: skip
        except (KeyError, TypeError, json.JSONDecodeError) as error:
            raise InputError(f"{path}: is no file of block-scaled codes ({error})") from None


def recipe_called(name: str, fmt: BlockFormat) -> Recipe:
    """Return the recipe of a name that `Encoded.save` wrote: a named one, or a scale rule of the format."""
    own, _, rule = name.partition("/")
    try:
        return get_recipe(name)
    except InputError:
        if own != fmt.name:
            raise
        return get_recipe(fmt, rule)


def grid(shape: tuple[int, ...], axes: tuple[int, ...], size: tuple[int, ...]) -> tuple[int, ...]:
    """Return the number of blocks along each axis."""
    lengths = dict(zip(axes, size, strict=True))
    return tuple(-(-n // lengths.get(axis, 1)) for axis, n in enumerate(shape))


def parse_axes(axes: Any, ndim: int, fmt: BlockFormat) -> tuple[int, ...]:
    """Return the axes along which blocks lie, none negative: the last ones by default."""
    needed = len(fmt.size)
    if ndim < needed:
        raise InputError(
            f"x has {ndim} axes; {fmt.name} has blocks along {needed}, so give an array of {needed} or more"
        )
    given = tuple(range(ndim - needed, ndim)) if axes is None else axes if isinstance(axes, tuple) else (axes,)
    placed = tuple(integer("axis", axis) for axis in given)
    if len(placed) != needed or not all(-ndim <= axis < ndim for axis in placed):
        raise InputError(f"axis = {axes} must name {needed} of the {ndim} axes of x, for {fmt.name}")
    placed = tuple(axis % ndim for axis in placed)
    if len(set(placed)) != needed:
        raise InputError(f"axis = {axes} names an axis twice")
    return placed


@np.errstate(all="ignore")
def values_of(
    q: NDArray[Any],
    s: NDArray[Any],
    tensor: float,
    recipe: Recipe | None,
    fmt: BlockFormat,
    dtype: np.dtype[Any],
    A: Any = None,
) -> NDArray[Any]:
    """Return the values of elements `q` with the scales `s`, which broadcasts to them; with `A` those of the error."""
    decoding = None if recipe is None else recipe.decoding if A is None else recipe.erring
    if decoding is not None:
        known = {"q": q, "s": s, "T": np.float32(tensor), "A": A}
        by = Arrays(fmt, np.dtype(np.float32))
        for level in ("tensor", "block", "element"):
            decoding.run(by, known, level)
        return _narrowed(np.asarray(known["y"], np.float32).astype(np.float64), dtype)
    if tensor == 1.0 and dtype.itemsize == 4 and fmt.scale.bits <= 8:
        y = np.asarray(q, np.float32) * s
        return _clamped(y, q, s)
    y = np.asarray(q, np.float64) * s
    y *= tensor  # exact: no more than 53 bits
    return _clamped(_narrowed(y, dtype), q, s)


def _clamped(y: NDArray[Any], q: NDArray[Any], s: NDArray[Any]) -> NDArray[Any]:
    """Return `y` with the largest number where a finite product overflows."""
    over = np.isinf(y)
    if over.any():
        over &= np.isfinite(q) & np.isfinite(s)
        most = largest_number(y.dtype)
        y[over] = np.where(y[over] > 0, most, -most)
    return y


def _narrowed(y: NDArray[np.float64], dtype: np.dtype[Any]) -> NDArray[Any]:
    if dtype.itemsize == 2:
        return arrays.encode(y, "float16" if dtype.kind == "f" else "bfloat16", nan="signed").view(dtype)
    return y.astype(dtype, copy=False)
