"""How one converter differs from another of the same format: counted, and the smallest input first."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from qsim.errors import InputError
from qsim.golden.converter import Converter, model
from qsim.golden.directed import directed, type_of
from qsim.golden.operands import Operands, every, operands
from qsim.models import models

__all__ = ["Difference", "differences", "fits", "inputs_for", "place_of_smallest", "same_codes", "words_for"]


@dataclass(frozen=True, slots=True)
class Difference:
    """Say on how many of the inputs two converters differ, and where first."""

    name: str
    count: int
    total: int
    #: The bits of the smallest input, its type, its word, and the two codes.
    bits: int = 0
    kind: str = ""
    word: int | None = None
    ours: int = 0
    theirs: int = 0


def same_codes(a: Converter, b: Converter) -> bool:
    """Return whether two converters have codes of one meaning: the same format, or a variant of it."""
    return base_of(a) == base_of(b)


def base_of(converter: Converter) -> str:
    """Return the name of the format, of which the converter's may be a variant."""
    return converter.format.variant_of or converter.format.name


def fits(converter: Converter, kind: str) -> bool:
    """Return whether a converter takes numbers of a type."""
    if converter.input in ("", kind):
        return kind != "int32" or converter.input == "int32"
    return (kind, converter.input) in {
        ("float16", "float32"), ("float16", "float64"), ("bfloat16", "float32"), ("bfloat16", "float64"),
        ("float32", "float64"),
    }  # fmt: skip


def as_input(converter: Converter, x: Operands) -> Operands:
    """Return operands as the converter takes them: a wider type where it takes only that."""
    if converter.input in ("", x.kind):
        return x
    return operands(x.exact, converter.input)


def inputs_for(converter: Converter) -> Operands:
    """Return the inputs that are enumerated: all float16 and all bfloat16 numbers, and the inputs at which the code changes."""
    kind = type_of(converter)
    own = directed(converter)[0]
    if kind in ("float16", "bfloat16"):
        return every(kind)
    if kind == "int32":
        return own
    wide = [operands(every(half).exact, kind).bits for half in ("float16", "bfloat16")]
    return Operands(kind, np.unique(np.concatenate([*wide, own.bits])))


def words_for(converter: Converter, x: Operands) -> NDArray[np.uint64] | None:
    """Return words for operands: spread over their range, the ends included."""
    if not converter.word_bits:
        return None
    last = (1 << converter.word_bits) - 1
    spread = np.random.default_rng(0).integers(0, last, len(x), np.uint64, endpoint=True)
    at = np.arange(len(x)) % 4
    return np.where(at == 0, np.uint64(0), np.where(at == 1, np.uint64(last), spread))


def place_of_smallest(x: Operands, differ: NDArray[np.bool_]) -> int:
    """Return the index of the smallest number that differs: finite ones first, then positive ones, then by size."""
    at = np.flatnonzero(differ)
    size = np.abs(x.exact[at])
    order = np.lexsort((x.negative[at], np.where(np.isfinite(size), size, 0.0), ~np.isfinite(size)))
    return int(at[order[0]])


def differences(converter: Converter) -> list[Difference]:
    """Return how each other model of the same format differs, the nearest first; those that take other inputs are left out."""
    x = inputs_for(converter)
    words = words_for(converter, x)
    ours = converter.convert(x, words)
    found = []
    for name in models():
        other = model(name)
        if other.name == converter.name or not same_codes(converter, other):
            continue
        if other.word_bits != converter.word_bits or not fits(other, x.kind):
            continue
        try:
            theirs = other.convert(as_input(other, x), words)
        except InputError:
            continue
        differ = theirs != ours
        if not differ.any():
            found.append(Difference(name, 0, len(x)))
            continue
        at = place_of_smallest(x, differ)
        word = None if words is None else int(words[at])
        found.append(
            Difference(name, int(differ.sum()), len(x), int(x.bits[at]), x.kind, word, int(ours[at]), int(theirs[at]))
        )
    return sorted(found, key=lambda one: one.count)
