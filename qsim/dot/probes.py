"""Directed dot products: few rows that tell accumulators apart, and the files by which the owner of a device measures them.

A line of a probe file is FORMAT K c a_1 .. a_K b_1 .. b_K, numbers being bit patterns of binary32 in hexadecimal; a line of a
file of measured rows is the same between the name of an instruction and the result.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from qsim.arrays import quantize
from qsim.dot.accumulator import Accumulator
from qsim.dot.instructions import Instruction, instructions
from qsim.dot.products import dots_of
from qsim.errors import InputError
from qsim.files import whole
from qsim.formats import Format, Grid, get_format

__all__ = ["Rows", "directed_rows", "probe_rows", "read_measured", "split", "write_probes"]

Floats: TypeAlias = NDArray[np.float64]

MOST = 6
"""Rows of a probe at most."""
TERMS = {"float16": 16, "bfloat16": 16, "tf32": 8, "float8_e4m3fn": 32, "float8_e5m2": 32}
"""The formats that are probed, and the products of a row: those of one instruction of `templates/probe.cu`."""
POOL = 300
"""Directed rows from which those of a probe are chosen."""


@dataclass(frozen=True, slots=True)
class Rows:
    """Hold dot products: operands a and b, (R, K), starts c, and results d, (R,), as float64."""

    a: Floats
    b: Floats
    c: Floats
    d: Floats | None = None

    def __len__(self) -> int:
        return len(self.c)

    def __getitem__(self, some: slice | list[int]) -> Rows:
        return Rows(self.a[some], self.b[some], self.c[some], None if self.d is None else self.d[some])


def directed_rows(fmt: Format, terms: int, count: int, seed: int = 0) -> Rows:
    """Return `count` rows of `terms` products of numbers of `fmt`, at which accumulators differ.

    Each holds a large number, as c or as a product, often its negative, and products a random number of bits below, some of
    which are at least 2 before they are normalized; products lie at random places, so that blocks and their order show. All are
    numbers of `fmt`, c is one of float16, and no sum is beyond it. Where `fmt` reaches so far, some sums are subnormal.
    """
    assert isinstance(fmt, Grid)
    rng = np.random.default_rng(seed)
    a, b, c = np.zeros((count, terms)), np.zeros((count, terms)), np.zeros(count)
    reach = min(fmt.man_bits - fmt.emin - 1, 20)  # exponents that every operand may have below 0
    for i in range(count):
        places = rng.permutation(terms)
        used = min(terms, int(rng.integers(3, max(4, terms))))
        below = int(rng.integers(0, 12)) if rng.random() < 0.4 else 0  # c is the largest then
        high = int(rng.integers(0, min(fmt.emax, 5))) if rng.random() < 0.3 else 0
        for n, k in enumerate(places[:used]):
            depth = below + (0 if n == 0 else int(rng.integers(0, 2 * min(reach, 15))))
            up = high if n == 0 else 0
            left = min(depth // 2, reach)
            a[i, k] = _number(rng, fmt, up - left)
            b[i, k] = _number(rng, fmt, up - min(depth - left, reach))
        if used >= 2 and rng.random() < 0.7:  # what cancels the first product
            k, j = places[0], places[1]
            a[i, j], b[i, j] = -a[i, k], b[i, k]
        if rng.random() < 0.7:
            scale = 2.0 ** -int(rng.integers(-high - 2, 8))
            c[i] = float(np.float16(rng.choice([-1, 1]) * (1 + rng.integers(0, 1024) / 1024) * scale))
        elif fmt.emin < -100 and rng.random() < 0.5:  # down to the subnormal numbers of float32
            a[i] = quantize(a[i] * 2.0**-112, fmt, "RTZ")
            b[i] = quantize(b[i] * 2.0**-12, fmt, "RTZ")
    return Rows(a, b, c)


def _number(rng: np.random.Generator, fmt: Grid, exponent: int) -> float:
    """Return a number of the format with this exponent, or a subnormal one."""
    bits = max(0, min(fmt.man_bits, exponent - (fmt.emin - fmt.man_bits)))
    significand = 1 + int(rng.integers(0, 1 << bits)) / (1 << bits) if rng.random() < 0.6 else 1.0
    return float(rng.choice([-1, 1])) * significand * 2.0**exponent


def split(results: Floats, chosen: Sequence[int] = (), most: int = MOST) -> tuple[list[int], int]:
    """Return at most `most` columns of results, (models, rows), that tell the most models apart, and into how many groups.

    The greedy choice: each row is the one that makes the most groups, with those before it and those that are `chosen`.
    """
    codes = [np.unique(column, return_inverse=True)[1] for column in results.T]
    group = np.unique(results[:, list(chosen)], axis=0, return_inverse=True)[1].reshape(-1) if chosen else codes[0] * 0
    count = int(group.max(initial=0)) + 1
    chosen = list(chosen)
    while len(chosen) < most and codes:
        counts = [len(np.unique(group * len(results) + code)) for code in codes]
        best = int(np.argmax(counts))
        if counts[best] == count:
            break
        chosen.append(best)
        group = np.unique(group * len(results) + codes[best], return_inverse=True)[1]
        count = counts[best]
    return chosen, count


# --- Probes ----------------------------------------------------------------------------------------------------


@functools.cache
def probe_rows(fmt: str | Format) -> Rows:
    """Return at most six rows that tell apart all instructions with operands of `fmt` that directed rows tell apart.

    One or two rows do; the others tell these from accumulators that differ in one parameter, as many as they can. Raise
    `InputError` for a format that no instruction has.
    """
    form = get_format(fmt)
    if form.name not in TERMS:
        raise InputError(f"no probe has operands of {form}; there are {', '.join(TERMS)}")
    pool = directed_rows(form, TERMS[form.name], POOL)
    known = np.array([entry.dots(pool.a, pool.b, pool.c) for entry in probed(form)])
    chosen, _ = split(known)
    near = {other for entry in probed(form) for other in neighbours(entry.accumulator)}
    more = [dots_of(pool.a, pool.b, acc, c=pool.c, inputs=form) for acc in sorted(near, key=str)]
    return pool[split(np.array([*known, *more]), chosen)[0]]


def probed(fmt: Format) -> list[Instruction]:
    """Return the instructions with operands of this format."""
    return [entry for entry in instructions().values() if entry.inputs == fmt and not entry.scale]


def neighbours(acc: Accumulator) -> list[Accumulator]:
    """Return block fused multiply-adds that differ from this one in one parameter."""
    if not acc.block or acc.align is None:
        return []
    changes: list[dict[str, Any]] = [{"align": acc.align + 1}, {"align": acc.align - 1}, {"align_mode": "RDN"}]
    changes += [{"normalize": True}] * (acc.align_mode == "RTZ")
    changes += [{"block": acc.block // 2}, {"start": "after" if acc.start == "term" else "term"}]
    changes[-1] |= {"outer": None, "join": None, "join_mode": None}
    return [acc.replace(**change) for change in changes]


def write_probes(folder: Path) -> list[Path]:
    """Write `probe.txt`, and the programs that measure it, `probe.cu` and `probe_torch.py`, into a folder; return the paths."""
    templates = Path(__file__).parent / "templates"
    lines = ["# FORMAT K c a_1 .. a_K b_1 .. b_K; bit patterns of binary32"]
    for name in TERMS:
        rows = probe_rows(name)
        for a, b, c in zip(rows.a, rows.b, rows.c, strict=True):
            lines.append(" ".join([name, str(len(a)), *_patterns(np.concatenate([[c], a, b]))]))
    texts = {
        "probe.txt": "\n".join(lines) + "\n",
        "probe.cu": (templates / "probe.cu").read_text(encoding="utf-8"),
        "probe_torch.py": (templates / "probe_torch.txt").read_text(encoding="utf-8"),
    }
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in texts.items():
        with whole(folder / name) as stream:
            stream.write(text.encode())
    return [folder / name for name in texts]


def read_measured(path: Path) -> dict[tuple[str, str], Rows]:
    """Return the rows of a file of measured dot products, by instruction and format of the operands.

    Raise `InputError` naming the file and the line that is wrong.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: cannot be read ({getattr(error, 'strerror', None) or 'not a text'})") from None
    found: dict[tuple[str, str], list[Floats]] = {}
    for number, line in enumerate(text.splitlines(), 1):
        if not line.startswith("#") and line.strip():
            name, form, values = _row(f"{path}: line {number}", line.split())
            found.setdefault((name, form), []).append(values)
    measured = {}
    for (name, form), rows in found.items():
        terms = {len(row) for row in rows}
        if len(terms) > 1:
            raise InputError(f"{path}: rows of {name} {form} have different numbers of products")
        table = np.array(rows)
        k = (table.shape[1] - 2) // 2
        measured[name, form] = Rows(table[:, 1 : k + 1], table[:, k + 1 : -1], table[:, 0], table[:, -1])
    return measured


def _row(where: str, words: list[str]) -> tuple[str, str, Floats]:
    """Return instruction, format and numbers of one measured row."""
    if len(words) < 6 or not words[2].isdecimal() or len(words) != 2 * int(words[2]) + 5:
        raise InputError(f"{where} is not INSTRUCTION FORMAT K c a_1 .. a_K b_1 .. b_K d")
    try:
        patterns = [int(word, 16) for word in words[3:]]
    except ValueError:
        raise InputError(f"{where}: numbers are bit patterns of binary32 in hexadecimal, such as 3f800000") from None
    if max(patterns) >> 32:
        raise InputError(f"{where}: a bit pattern of binary32 has 8 digits")
    return words[0], words[1], np.array(patterns, np.uint32).view(np.float32).astype(np.float64)


def _patterns(values: Floats) -> Iterator[str]:
    """Yield the bit patterns of numbers of float32."""
    return (f"{int(word):08x}" for word in values.astype(np.float32).view(np.uint32))
