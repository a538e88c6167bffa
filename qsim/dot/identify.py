"""Which accumulator made these dot products: all that explain them, the open questions, and the rows that would decide it."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray

from qsim.arrays import quantize
from qsim.dot.accumulator import Accumulator, AlignMode, Lanes, Start, spell
from qsim.dot.elementwise import as_float64
from qsim.dot.instructions import Instruction, instructions
from qsim.dot.probes import Rows, directed_rows, split
from qsim.dot.products import Sums, dots_of, has_kernel
from qsim.errors import InputError
from qsim.formats import Format, get_format
from qsim.rounding import Quantizer

__all__ = ["Candidate", "Identification", "identify_accumulator"]

Floats: TypeAlias = NDArray[np.float64]

INPUTS = ("float8_e4m3fn", "float8_e5m2", "float16", "bfloat16", "tf32", "float32")
"""Formats that operands are taken for, the first that holds them all, where the caller names none."""
ALIGNMENTS = range(7, 37)
BLOCKS = (1, 2, 4, 8, 16, 32, 64)
MODES = ("RTZ", "RNE", "RNA", "RDN", "RUP")
FIRST = 24
"""Rows by which most candidates are told to be wrong."""
KEPT = 4
"""Rows of these that a candidate that is looked at further may miss."""
SHOWN = 12


@dataclass(frozen=True, slots=True)
class Candidate:
    """Hold an accumulator, and how many of the rows it explains."""

    accumulator: Accumulator
    matched: int
    rows: int

    def __str__(self) -> str:
        return f"{self.matched} of {self.rows}: {self.accumulator}"


@dataclass(frozen=True, slots=True)
class Identification:
    """Hold the finding of `identify_accumulator`; printed, it is the answer in a few lines."""

    inputs: Format
    #: The accumulators that explain the most rows, best first; those that explain all come before all others.
    candidates: tuple[Candidate, ...]
    #: Those among them that explain all rows.
    explaining: tuple[Accumulator, ...]
    #: The instructions that explain all rows, and have these operands; measured ones first.
    instructions: tuple[Instruction, ...]
    #: Of the accumulators that explain all rows, the fields that differ, with the values that they have.
    ambiguous: Mapping[str, tuple[Any, ...]]
    #: Rows to measure next, which tell these accumulators apart: (a, b, c); empty where there is nothing to tell apart.
    next_rows: Rows
    #: Into how many groups of accumulators these rows divide them.
    next_groups: int

    def describe(self) -> dict[str, Any]:
        """Return the finding as plain data, for a report."""
        rows = zip(self.next_rows.a.tolist(), self.next_rows.b.tolist(), self.next_rows.c.tolist(), strict=True)
        return {
            "inputs": self.inputs.name,
            "rows": self.candidates[0].rows if self.candidates else 0,
            "explaining": [acc.describe() for acc in self.explaining[:SHOWN]],
            "explaining_count": len(self.explaining),
            "nearest": [{"matched": c.matched} | c.accumulator.describe() for c in self.candidates[:3]],
            "instructions": [entry.name for entry in self.instructions],
            "ambiguous": {name: list(values) for name, values in self.ambiguous.items()},
            "next_rows": [{"a": a, "b": b, "c": c} for a, b, c in rows],
            "next_groups": self.next_groups,
        }

    def __str__(self) -> str:
        rows = self.candidates[0].rows if self.candidates else 0
        lines = [f"{len(self.explaining)} accumulators explain all {rows} rows (operands: {self.inputs})"]
        lines += [f"  {acc}" for acc in self.explaining[:SHOWN]]
        if len(self.explaining) > SHOWN:
            lines.append(f"  and {len(self.explaining) - SHOWN} more")
        if not self.explaining:
            lines += [f"  the nearest: {candidate}" for candidate in self.candidates[:3]]
        if self.instructions:
            names = ", ".join(f"{entry.name} ({entry.devices})" for entry in self.instructions)
            lines.append(f"instructions that explain all rows: {names}")
        else:
            lines.append("no known instruction explains all rows")
        for name, values in self.ambiguous.items():
            lines.append(f"not decided: {name} is {', '.join(map(str, values))}")
        if len(self.explaining) > 1 and not len(self.next_rows):
            lines.append("none of the rows that were tried tells these apart")
        if len(self.next_rows):
            lines.append(f"measure next, which divides them into {self.next_groups} groups:")
            for a, b, c in zip(self.next_rows.a, self.next_rows.b, self.next_rows.c, strict=True):
                terms = [f"a[{k}] b[{k}] = {a[k]!s} * {b[k]!s}" for k in np.flatnonzero((a != 0) & (b != 0))]
                lines.append(f"  c = {c!s}, " + ", ".join(terms))
        return "\n".join(lines)


def identify_accumulator(
    a: ArrayLike, b: ArrayLike, c: ArrayLike, d: ArrayLike | None, *, inputs: str | Format | None = None
) -> Identification:
    """Rank the accumulators that explain measured dot products d = c + sum_k a_k b_k, and say which rows to measure next.

    a and b are (R, K), c and d (R,): finite numbers. `inputs` is the operands' format; without it, the narrowest of the usual
    ones that holds them. Looked through are block fused multiply-adds (alignments of 7 to 36 bits, cut or rounded, blocks of
    1 to 64 products in three orders, the place of c, product normalization, the final rounding in five modes to as many bits as
    the results show), exact sums of blocks, and sums that are rounded at each step or in a tree. Raise `InputError` for rows
    that are none.
    """
    x, y = as_float64(a, "a"), as_float64(b, "b")
    if x.ndim != 2 or x.shape != y.shape or not x.size:
        raise InputError(
            f"a of shape {x.shape} and b of shape {y.shape}; both are (rows, products), with at least one of each"
        )
    if d is None:
        raise InputError("the rows have no results d; measure them first")
    start, result = (np.array(np.broadcast_to(as_float64(v, n), (len(x),))) for v, n in ((c, "c"), (d, "d")))
    for name, array in (("a", x), ("b", y), ("c", start), ("d", result)):
        if not np.isfinite(array).all():
            raise InputError(f"{name} holds an infinity or a NaN; rows of finite numbers tell accumulators apart")
    rows = Rows(x, y, start, result)
    fmt = _inputs(inputs, rows)
    tried = list(_search(rows, fmt))
    tried.sort(key=lambda candidate: (-candidate.matched, _simplicity(candidate.accumulator)))
    explaining = tuple(candidate.accumulator for candidate in tried if candidate.matched == len(rows))
    named = [
        entry for entry in instructions().values() if entry.inputs == fmt and not entry.scale and _explains(entry, rows)
    ]
    named.sort(key=lambda entry: ("measured", "reproduced", "derived", "claimed").index(entry.status))
    told, groups = _next_rows(explaining, fmt, x.shape[1])
    return Identification(fmt, tuple(tried[:100]), explaining, tuple(named), _ambiguous(explaining), told, groups)


def _inputs(inputs: str | Format | None, rows: Rows) -> Format:
    """Return the format of the operands; refuse operands that it does not hold."""
    both = np.concatenate([rows.a.ravel(), rows.b.ravel()])

    def held(fmt: Format) -> bool:
        rounded = quantize(both, fmt, saturation="SatNone" if fmt.has_inf else None)
        return bool((rounded == both).all())

    if inputs is not None:
        fmt = get_format(inputs)
        if not held(fmt):
            raise InputError(f"the operands are no numbers of {fmt}; name another format, or none")
        return fmt
    for name in INPUTS:
        if held(get_format(name)):
            return get_format(name)
    raise InputError("the operands are no numbers of float32, hence of no format that a matrix instruction takes")


def _explains(entry: Instruction, rows: Rows) -> bool:
    """Return whether an instruction has these results."""
    assert rows.d is not None
    if entry.result.name == "float16" and not (quantize(rows.d, entry.result, saturation="SatFinite") == rows.d).all():
        return False
    return bool((entry.dots(rows.a, rows.b, rows.c) == rows.d).all())


def _roundings(rows: Rows) -> list[str]:
    """Return the roundings of sums that are tried: to the bits that the results show, as float32 or float16 have them."""
    assert rows.d is not None
    d = rows.d[rows.d != 0]
    m, _ = np.frexp(d)
    whole = np.ldexp(np.abs(m), 53).astype(np.int64)
    bits = 53 - int(np.frexp((whole & -whole).astype(np.float64))[1].min()) if d.size else 1
    names = ["float32"] if bits > 13 else ["float16", "e8m13"] if bits <= 10 else ["e8m13"]
    if bits <= 10 and not (quantize(rows.d, "float16", saturation="SatFinite") == rows.d).all():
        names = ["e8m13"]
    if bits <= 13 and len(rows) < FIRST:  # so few rows may happen to show no more bits
        names.append("float32")
    if 13 < bits < 23 and f"e8m{bits}" not in names and len(rows) >= FIRST:
        names.append(f"e8m{bits}")
    return names


@functools.lru_cache(maxsize=16)
def _settings(names: tuple[str, ...], terms: int) -> tuple[Accumulator, ...]:
    """Return the accumulators that are tried for sums in these formats, of so many terms."""
    found: list[Accumulator] = []
    for name, mode in itertools.product(names, MODES):
        q, nearest = Quantizer(name, mode), Quantizer(name)
        found += [Accumulator(q), Accumulator(q, product=q), Accumulator(q, order="exact")]
        for group in (0, 2, 4, 8, 16):
            if group < terms:
                found.append(Accumulator(q, order="pairwise", group=group))
                found.append(Accumulator(q, product=q, order="pairwise", group=group))
        for width in (width for width in BLOCKS if width == 1 or width // 2 < terms):
            found.append(Accumulator(q, block=width))
            lanes: tuple[Lanes, ...] = ("ascending", "pairs", "even-odd") if width < terms else ("ascending",)
            starts: tuple[tuple[Start, Quantizer | None], ...] = (("term", None), ("after", None), ("last", nearest))
            cuts: tuple[tuple[AlignMode, bool], ...] = (("RTZ", False), ("RDN", False), ("RNE", False), ("RTZ", True))
            for align, lane, (start, outer), (cut, normal) in itertools.product(ALIGNMENTS, lanes, starts, cuts):
                found.append(
                    Accumulator(
                        q,
                        block=width,
                        align=align,
                        lanes=lane,
                        start=start,
                        align_mode=cut,
                        normalize=normal,
                        outer=outer,
                    )
                )
    return tuple(found)


def _search(rows: Rows, fmt: Format) -> Iterator[Candidate]:
    """Yield the candidates that explain most of the first rows, with the number of all that they explain."""
    allowed = min(KEPT, len(rows) // 3)
    whole, few = Tried(rows, fmt), Tried(rows[:FIRST], fmt)
    known = (entry.accumulator for entry in instructions().values() if entry.inputs == fmt and not entry.scale)
    for acc in dict.fromkeys([*_settings(tuple(_roundings(rows)), rows.a.shape[1]), *known]):
        if few.misses(acc, allowed) <= allowed:
            yield Candidate(acc, len(rows) - whole.misses(acc), len(rows))


class Tried:
    """Try accumulators on the same rows."""

    def __init__(self, rows: Rows, fmt: Format) -> None:
        self.rows, self.fmt = rows, fmt
        self.sums = Sums(rows.a, rows.b, Accumulator(), (fmt, fmt), None, paired=True)
        self.starts: dict[str, Floats] = {}
        self.kernels: dict[Any, bool] = {}

    def results(self, acc: Accumulator) -> Floats:
        """Return the dot products of the rows by an accumulator; c is rounded to float16 where sums are, else to float32."""
        name = acc.format.format.name
        if name not in self.starts:
            self.starts[name] = quantize(self.rows.c, "float16" if name == "float16" else "float32")
        c = self.starts[name]
        if self.by_kernel(acc):
            return self.sums.again(acc).whole(c[:, None])[:, 0]
        return dots_of(self.rows.a, self.rows.b, acc, c=c, inputs=self.fmt)

    def by_kernel(self, acc: Accumulator) -> bool:
        """Return whether there is a loop for the accumulator."""
        kind = (acc.order, acc.align, acc.block)
        if kind not in self.kernels:
            self.kernels[kind] = has_kernel(acc, self.rows.a, self.rows.b, self.rows.c)
        return self.kernels[kind]

    def misses(self, acc: Accumulator, most: int | None = None) -> int:
        """Return how many rows an accumulator does not explain; beyond `most` they need not be counted."""
        if most is None or self.by_kernel(acc):
            return int((self.results(acc) != self.rows.d).sum())
        missed = 0
        for i in range(len(self.rows)):  # the reference is slow, and most candidates miss the first rows
            missed += Tried(self.rows[i : i + 1], self.fmt).misses(acc)
            if missed > most:
                break
        return missed


def _simplicity(acc: Accumulator) -> tuple[Any, ...]:
    """Return the sort key of accumulators that explain equally many rows: known hardware first."""
    return (
        bool(acc.block) is False, acc.lanes != "ascending", acc.start != "term", acc.align_mode != "RTZ", acc.normalize,
        MODES.index(acc.format.mode.name), acc.align or 99, acc.block,
    )  # fmt: skip


def _ambiguous(explaining: tuple[Accumulator, ...]) -> dict[str, tuple[Any, ...]]:
    """Return the fields in which accumulators differ, and their values."""
    found: dict[str, tuple[Any, ...]] = {}
    for name in ("format", "product", "order", "group", "block", "align", "align_mode", "start", "normalize", "lanes"):
        values = [getattr(acc, name) for acc in explaining]
        words = dict.fromkeys(spell(v) if hasattr(v, "mode") else "none" if v is None else v for v in values)
        if len(words) > 1:
            found[name] = tuple(words)
    return found


def _next_rows(explaining: tuple[Accumulator, ...], fmt: Format, terms: int) -> tuple[Rows, int]:
    """Return at most six rows that tell accumulators apart, and into how many groups."""
    none = Rows(np.zeros((0, terms)), np.zeros((0, terms)), np.zeros(0))
    if len(explaining) < 2:
        return none, len(explaining)
    pool = directed_rows(fmt, terms, 400)
    tried = Tried(pool, fmt)
    some = explaining[:400]
    results = np.array([tried.results(acc) for acc in some])
    chosen, groups = split(results)
    return pool[chosen], groups
