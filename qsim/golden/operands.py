"""Operands of a converter: numbers of one type, with their bits."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from qsim.errors import InputError, enumerate_names
from qsim.formats import Grid, get_format
from qsim.models import OPERANDS

__all__ = ["Operands", "every", "operands", "width"]

Flags = NDArray[np.bool_]


@dataclass(frozen=True, eq=False)
class Operands:
    """Hold numbers of one type: `bits` their patterns, `values` the same numbers as float32, or float64 where they are that."""

    kind: str
    bits: NDArray[np.uint64]

    def __len__(self) -> int:
        return len(self.bits)

    def __getitem__(self, chosen: Any) -> Operands:
        """Return some of them."""
        return Operands(self.kind, self.bits[chosen])

    @cached_property
    def values(self) -> NDArray[Any]:
        """The numbers as float32, which holds float16 and bfloat16 exactly; float64 and integers as float64."""
        match self.kind:
            case "bfloat16":
                return (self.bits << np.uint64(16)).astype(np.uint32).view(np.float32)
            case "float16":
                with np.errstate(invalid="ignore"):  # of signalling NaNs
                    return self.bits.astype(np.uint16).view(np.float16).astype(np.float32)
            case "float32":
                return self.bits.astype(np.uint32).view(np.float32)
            case "float64":
                return self.bits.view(np.float64)
            case _:
                return self.integers.astype(np.float64)

    @cached_property
    def exact(self) -> NDArray[np.float64]:
        """The numbers as float64."""
        with np.errstate(invalid="ignore"):
            return np.asarray(self.values.astype(np.float64))

    @cached_property
    def integers(self) -> NDArray[np.int64]:
        """The numbers of an integer type."""
        return self.bits.astype(np.uint32).view(np.int32).astype(np.int64)

    @property
    def number(self) -> Grid:
        """The format of a float type."""
        found = get_format(self.kind)
        assert isinstance(found, Grid)
        return found

    @cached_property
    def negative(self) -> Flags:
        """Whether the sign bit is set."""
        return np.asarray(self.bits >> np.uint64(width(self.kind) - 1) == 1)

    @cached_property
    def subnormal(self) -> Flags:
        """Whether a number is a subnormal one of its own type."""
        if self.kind == "int32":
            return np.zeros(len(self), bool)
        size = np.abs(self.exact)
        return np.asarray((size > 0) & (size < float(self.number.smallest_normal)))


def width(kind: str) -> int:
    """Return how many bits a number of a type has."""
    return {"float16": 16, "bfloat16": 16, "float32": 32, "float64": 64, "int32": 32}[kind]


def operands(inputs: Any, kind: str = "") -> Operands:
    """Return numbers, or their bits, as operands.

    Floats are numbers of their own type, or of `kind` where that is named and holds them exactly; unsigned integers are bits
    of a `kind`; integers for int32 are its numbers where they are signed.
    """
    array = np.asarray(inputs).reshape(-1)
    name = array.dtype.name
    if name in OPERANDS and name != "int32":
        if kind and name != kind:
            return Operands(kind, _exactly(array, name, kind))
        array = array.astype(array.dtype.newbyteorder("="), copy=False)
        return Operands(name, array.view(f"u{array.dtype.itemsize}").astype(np.uint64))
    if array.dtype.kind == "i" and kind == "int32":
        if array.size and not -(1 << 31) <= int(array.min()) <= int(array.max()) < 1 << 31:
            raise InputError(f"inputs hold {array.min()} .. {array.max()}; numbers of int32 go in")
        return Operands("int32", array.astype(np.int32).view(np.uint32).astype(np.uint64))
    if array.dtype.kind in "iu":
        if not kind:
            raise InputError(
                f"inputs hold {name}, which are the bits of numbers; say of which type: {enumerate_names(OPERANDS)}"
            )
        if array.size and not 0 <= int(array.min()) <= int(array.max()) < 1 << width(kind):
            raise InputError(f"inputs hold {array.min()} .. {array.max()}, which are no bits of {kind}")
        return Operands(kind, array.astype(np.uint64))
    raise InputError(f"inputs hold {name}; numbers of {enumerate_names(OPERANDS)} go in, or their bits as integers")


def _exactly(array: NDArray[Any], name: str, kind: str) -> NDArray[np.uint64]:
    """Return the bits of numbers in another type, which must hold them all."""
    if kind == "int32":
        raise InputError(f"inputs hold {name}; integers of int32 go in")
    with np.errstate(all="ignore"):
        wide = np.asarray(array.astype(np.float64))
        if kind in ("float32", "float64", "float16"):
            held = wide.astype(kind)
            bits, back = held.view(f"u{held.dtype.itemsize}").astype(np.uint64), held.astype(np.float64)
        else:
            single = wide.astype(np.float32)
            word = single.view(np.uint32)
            cut = (word & 0xFFFF0000) | np.where(np.isnan(single), np.uint32(0x00400000), np.uint32(0))
            bits, back = cut.astype(np.uint64) >> np.uint64(16), cut.view(np.float32).astype(np.float64)
    lost = np.flatnonzero((back != wide) & ~np.isnan(wide))
    if len(lost):
        raise InputError(f"inputs[{lost[0]}] = {array[lost[0]]} is no number of {kind}; round it first")
    return bits


def every(kind: str) -> Operands:
    """Return all numbers of a type of 16 bits."""
    return Operands(kind, np.arange(1 << 16, dtype=np.uint64))
