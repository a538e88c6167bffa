"""Matrix instructions of tensor cores and matrix cores as data: the accumulator of each, and how it is known.

Each file of `models/dot/` is one vendor. An entry is an instruction, not a device: on one H100 `mma.sync` and `wgmma` give
different sums of the same FP8 products. `status` is one of `STATUSES`; `undecided` names the questions that no measured row
answers.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from qsim.arrays import quantize
from qsim.dot.accumulator import Accumulator
from qsim.dot.elementwise import as_float64
from qsim.dot.products import dots_of, matmul
from qsim.errors import InputError, enumerate_names, integer, nearest, shown
from qsim.files import read_toml
from qsim.folders import folder
from qsim.formats import Format, get_format
from qsim.rounding import Quantizer

__all__ = ["STATUSES", "Instruction", "get_instruction", "instructions", "load_instructions"]

STATUSES: Mapping[str, str] = {
    "measured": "a test holds it to 5,000 measured dot products, all of which match",
    "reproduced": "measured dot products, which are not part of the tests, all matched",
    "derived": "it follows from the compiler's output and a measured instruction",
    "claimed": "public models say so; no measured row was looked at here",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Instruction:
    """Describe one matrix instruction: the format of its operands, and its accumulator."""

    #: "ARCHITECTURE-INSTRUCTION/RESULT.OPERANDS"
    name: str
    vendor: str
    devices: str
    instruction: str
    inputs: Format
    #: Products that one instruction adds to c.
    products: int
    accumulator: Accumulator
    #: The format of the scales that neighbouring operands share, and how many do; "" and 0 where there is none.
    scale: str = ""
    scale_group: int = 0
    #: Whether subnormal operands, sums and results are flushed to zero.
    flush_subnormals: bool = False
    status: str
    source: str
    revision: str
    undecided: str = ""

    @property
    def result(self) -> Format:
        """The format of results."""
        last = self.accumulator.start == "last" or self.accumulator.group
        return (self.accumulator.outer_rounding if last else self.accumulator.format).format

    @property
    def start(self) -> Format:
        """The format of c: float16 where results are, else float32."""
        return self.result if self.result.name == "float16" else get_format("float32")

    def dots(
        self, a: ArrayLike, b: ArrayLike, c: ArrayLike = 0.0, *, scales: tuple[ArrayLike, ArrayLike] | None = None
    ) -> NDArray[np.float64]:
        """Return c + sum_k a_k b_k of the rows of a and b, (R, K), as the instruction gives them, float64 (R,).

        c is rounded to `start` first, to nearest even. Rows of more products than one instruction takes are
        added by several, in ascending order. An instruction with a `scale` takes those of a and b, both (R, K / `scale_group`).
        Raise `InputError` for operands that are no numbers of `inputs`, or scales that are none.
        """
        x, y, start = self._operand(a), self._operand(b), self._start(c)
        return dots_of(x, y, self.accumulator, c=start, inputs=self.inputs, scales=self._scales(scales, x.shape[-1]))

    def matmul(
        self,
        a: ArrayLike,
        b: ArrayLike,
        c: ArrayLike | None = None,
        *,
        scales: tuple[ArrayLike, ArrayLike] | None = None,
    ) -> NDArray[Any]:
        """Return c + a b as the instruction gives it; see `qsim.dot.matmul`, and `dots` for c."""
        start = None if c is None else self._start(c)
        x, y = self._operand(a), self._operand(b)
        checked = self._scales(scales, x.shape[-1], -2)
        return matmul(x, y, self.accumulator, c=start, inputs=self.inputs, scales=checked).values

    def _scales(
        self, scales: tuple[ArrayLike, ArrayLike] | None, products: int, axis: int = -1
    ) -> tuple[ArrayLike, ArrayLike] | None:
        """Return the scales; refuse them where there are none, and others than there are."""
        if not self.scale:
            if scales is not None:
                raise InputError(f"{self.name} has no scales; drop them")
            return None
        if scales is None:
            raise InputError(f"{self.name} takes scales = (of a, of b), numbers of {self.scale}")
        for name, given, along in (("a", scales[0], -1), ("b", scales[1], axis)):
            array = as_float64(given, f"the scales of {name}")
            if array.ndim < 2 or array.shape[along] * self.scale_group != products:
                raise InputError(
                    f"the scales of {name} have shape {array.shape}; {self.scale_group} of {products} products share one"
                )
            if not (quantize(array, self.scale) == array).all() or (array <= 0).any():
                raise InputError(f"the scales of {name} are positive numbers of {self.scale}")
        return scales

    def _operand(self, x: ArrayLike) -> NDArray[np.float64]:
        array = as_float64(x, "an operand")
        if not self.flush_subnormals:
            return array
        return np.where(np.abs(array) < self.inputs.smallest_normal, np.copysign(0.0, array), array)

    def _start(self, c: ArrayLike) -> NDArray[np.float64]:
        rounded = quantize(as_float64(c, "c"), Quantizer(self.start))
        if not self.flush_subnormals:
            return rounded
        return np.where(np.abs(rounded) < self.start.smallest_normal, np.copysign(0.0, rounded), rounded)

    def __str__(self) -> str:
        return f"{self.name} ({self.devices}; {self.status}): {self.inputs}, {self.accumulator}"


@functools.cache
def instructions() -> Mapping[str, Instruction]:
    """Return all instructions by name, in the order of the files."""
    paths = sorted((folder("models") / "dot").glob("*.toml"))
    return MappingProxyType({entry.name: entry for path in paths for entry in load_instructions(path)})


def get_instruction(name: str) -> Instruction:
    """Return the instruction called `name`; raise `InputError` with the nearest names if there is none."""
    known = instructions()
    if not isinstance(name, str) or name not in known:
        raise InputError(f"no instruction is called {name!r}; did you mean {nearest(str(name), known)}?")
    return known[name]


TEXTS = ("name", "devices", "instruction", "inputs", "status", "source", "revision")
ROUNDINGS = ("format", "product", "outer", "output")


def load_instructions(path: Path) -> list[Instruction]:
    """Read the instructions of one file; raise `InputError` naming the file, the entry and the key that is wrong."""
    data = read_toml(path)
    entries, vendor = data.pop("instruction", []), data.pop("vendor", None)
    if data or not isinstance(vendor, str) or not isinstance(entries, list):
        raise InputError(f"{path}: it holds a vendor and [[instruction]] tables, and nothing else")
    return [_load(f"{path}: instruction {i}", entry, vendor) for i, entry in enumerate(entries, 1)]


def _load(where: str, entry: Any, vendor: str) -> Instruction:
    """Return the instruction that one table describes."""
    if not isinstance(entry, dict):
        raise InputError(f"{where} is no table of keys")
    known = (*TEXTS, "undecided", "products", "flush_subnormals", "scale", "scale_group", "accumulator")
    for key, value in entry.items():
        if key not in known:
            raise InputError(f"{where}: unknown key {key!r}; did you mean {nearest(key, known)}?")
        if key in (*TEXTS, "undecided", "scale") and (not isinstance(value, str) or not value):
            raise InputError(f"{where}: {key} = {shown(value)} must be a text")
    missing = [key for key in (*TEXTS, "products", "accumulator") if key not in entry]
    if missing:
        raise InputError(f"{where}: key {missing[0]!r} is missing")
    if entry["status"] not in STATUSES:
        raise InputError(f"{where}: status is {entry['status']!r}; it is {enumerate_names(STATUSES)}")
    flush = entry.pop("flush_subnormals", False)
    if not isinstance(flush, bool):
        raise InputError(f"{where}: flush_subnormals = {shown(flush)} must be true or false")
    fields = entry.pop("accumulator")
    if not isinstance(fields, dict):
        raise InputError(f"{where}: accumulator is a table of the fields of an Accumulator")
    if flush:  # flushed after rounding; where tiny is told before it, numbers next to the smallest normal one differ
        for name in ROUNDINGS:
            if name in fields:
                q = Quantizer.parse(fields[name])
                fields[name] = Quantizer(q.format, q.mode, ftz_out=True)
    try:
        accumulator = Accumulator(**fields)
    except TypeError:
        wrong = next(key for key in fields if key not in Accumulator.__dataclass_fields__)
        raise InputError(f"{where}: an Accumulator has no field {wrong!r}") from None
    except InputError as error:
        raise InputError(f"{where}: {error}") from None
    number = integer(f"{where}: products", entry.pop("products"))
    group = integer(f"{where}: scale_group", entry.pop("scale_group", 0))
    if bool(group) != ("scale" in entry):
        raise InputError(f"{where}: scale, a format, and scale_group, the products that share one, go together")
    inputs = get_format(entry.pop("inputs"))
    return Instruction(
        **entry, vendor=vendor, inputs=inputs, products=number, scale_group=group, accumulator=accumulator,
        flush_subnormals=flush,
    )  # fmt: skip
