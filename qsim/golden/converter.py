"""The converter of an entry of the registry: bits in, codes out, the random word an argument."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

import qsim
from qsim.errors import InputError
from qsim.formats import Format, get_format
from qsim.golden.operands import Operands, operands
from qsim.golden.rules import RULES
from qsim.models import Model, get_model
from qsim.rounding import Mode, Quantizer, mode_fields, parse_ftz_out, parse_nan, split_spelling

__all__ = ["Converter", "model", "of_format"]

SMALLEST = 2.0**-126


def _raise_subnormals(x: NDArray[Any]) -> NDArray[Any]:
    """Make 2^-126 of numbers between it and 2^-127."""
    return np.where((np.abs(x) > SMALLEST / 2) & (np.abs(x) < SMALLEST), np.copysign(SMALLEST, x), x).astype(x.dtype)


STEPS: dict[str, Callable[[NDArray[Any]], NDArray[Any]]] = {
    "relu": lambda x: np.where((x < 0) | ((x == 0) & np.signbit(x)), np.zeros_like(x), x),
    "magnitude": np.abs,
    "raise_subnormals": _raise_subnormals,
}
"""What may be done to numbers before they are rounded, beside rounding them to a format."""


def step(words: str) -> Callable[[NDArray[Any]], NDArray[Any]]:
    """Return the function of an entry's step; raise `InputError` for one that is none."""
    if words in STEPS:
        return STEPS[words]
    if words.startswith("times "):
        factor = math.ldexp(1.0, int(words.removeprefix("times 2^")))
        return lambda x: x.astype(np.float64) * factor
    return functools.partial(_through, Quantizer.parse(words))


def _through(q: Quantizer, x: NDArray[Any]) -> NDArray[Any]:
    if q.format.name == x.dtype.name:
        return x
    found: NDArray[Any] = qsim.quantize(x, q)
    return found


@dataclass(frozen=True, eq=False)
class Converter:
    """Convert as an entry says. Call it with numbers, or with bits as unsigned integers, to get codes."""

    entry: Model

    @property
    def name(self) -> str:
        """The name."""
        return self.entry.name

    @functools.cached_property
    def format(self) -> Format:
        """The format of the codes."""
        return get_format(self.entry.format)

    @property
    def word_bits(self) -> int:
        """How many bits a random word has; 0 for a conversion without one."""
        return self.entry.word_bits

    @property
    def input(self) -> str:
        """The type that goes in, where only one does."""
        return self.entry.input

    @functools.cached_property
    def quantizer(self) -> Quantizer:
        """The rounding, without the steps before and after it."""
        entry = self.entry
        fields: dict[str, Any] = mode_fields(entry.mode)
        if entry.sr_bits:
            fields["sr_bits"] = entry.sr_bits
        nan = parse_nan(entry.nan or None, self.format)
        return Quantizer(self.format, **fields, saturation=entry.saturation, ftz_out=_flush(entry.ftz_out), nan=nan)

    @functools.cached_property
    def _steps(self) -> list[Callable[[NDArray[Any]], NDArray[Any]]]:
        return [step(words) for words in self.entry.first]

    def __call__(self, inputs: Any, rbits: Any = None, *, dtype: str = "") -> NDArray[Any]:
        """Return the codes of `inputs`, in their shape.

        `inputs` are floats, or the bits of numbers as unsigned integers; `dtype` names their type where several go in.
        `rbits` are the random words, as many as inputs or one for all; a conversion that takes none refuses them.
        Raise `InputError` for inputs of another type, and for words that are none.
        """
        shape = np.shape(inputs)
        x = operands(inputs, self.input or dtype)
        codes = self.convert(x, self.words(rbits, len(x)))
        return codes.astype(np.min_scalar_type((1 << self.format.bits) - 1)).reshape(shape)

    def words(self, rbits: Any, count: int) -> NDArray[np.uint64] | None:
        """Return random words, checked, one for each of `count` inputs; `None` for a conversion without."""
        if not self.word_bits:
            if rbits is not None:
                raise InputError(f"{self.name} takes no random words; leave rbits out")
            return None
        if rbits is None:
            raise InputError(f"{self.name} needs rbits, a word of {self.word_bits} bits for each input")
        words = np.asarray(rbits)
        if words.dtype.kind not in "iu" or (words.size not in (1, count)):
            raise InputError(f"rbits holds {words.size} of {words.dtype}; it is an integer for each of {count} inputs")
        if words.size and not 0 <= int(words.min()) <= int(words.max()) < 1 << self.word_bits:
            raise InputError(f"rbits holds {words.min()} .. {words.max()}; words of {self.word_bits} bits go in")
        return np.broadcast_to(words.reshape(-1).astype(np.uint64), (count,))

    def convert(self, x: Operands, words: NDArray[np.uint64] | None = None) -> NDArray[np.int64]:
        """Return the codes of operands, with their words."""
        entry = self.entry
        if entry.rule:
            given = np.zeros(len(x), np.uint64) if words is None else words
            how = {"saturation": entry.saturation, **entry.parameters}
            codes = RULES[entry.rule](x, given, self.format, how)
        else:
            codes = self._rounded(x, words)
        for kind, code in entry.becomes.items():
            codes = self._become(codes, x, kind, code)
        return codes

    def _rounded(self, x: Operands, words: NDArray[np.uint64] | None) -> NDArray[np.int64]:
        entry, q, values = self.entry, self.quantizer, x.values
        if entry.ftz_in:
            values = np.where(x.subnormal, np.copysign(values.dtype.type(0), values), values)
        with np.errstate(all="ignore"):
            for do in self._steps:
                values = do(values)
        if words is not None and q.mode.stochastic:
            if entry.word_part == "low":
                words = words & np.uint64((1 << entry.sr_bits) - 1)
            elif entry.word_bits > entry.sr_bits:
                words = words >> np.uint64(entry.word_bits - entry.sr_bits)
            return qsim.encode(values, q, rbits=words).astype(np.int64)
        return qsim.encode(values, q).astype(np.int64)

    def _become(self, codes: NDArray[np.int64], x: Operands, kind: str, code: int) -> NDArray[np.int64]:
        """Return the codes with another one for inputs of a kind, of its sign or, if both have it, with the sign set."""
        name = kind.removeprefix("-")
        size = np.abs(x.exact)
        if name == "nan":
            here = np.isnan(size)
        elif name.startswith("nan:"):
            here = np.isnan(size) & (x.bits >> np.uint64(int(name.removeprefix("nan:"))) & np.uint64(1) == 1)
        elif name == "infinity":
            here = np.isinf(size)
        elif name == "zero":
            here = size == 0
        elif name == "subnormal":
            here = x.subnormal
        else:
            low, high = name.split("..")
            here = (size >= _number(low)) & (size < _number(high))
        if kind != name:
            return np.where(here & x.negative, code, codes)
        if f"-{name}" in self.entry.becomes:
            return np.where(here & ~x.negative, code, codes)
        sign = np.where(x.negative & self.format.has_neg_zero, 1 << (self.format.bits - 1), 0)
        return np.where(here, code | sign, codes)


def _flush(word: Any) -> Any:
    return parse_ftz_out(word or False)


def _number(text: str) -> float:
    return float.fromhex(text) if "x" in text else float(text)


@functools.cache
def model(name: str) -> Converter:
    """Return the converter called `name`; raise `InputError` with the nearest names if there is none."""
    return Converter(get_model(name))


def of_format(format: str | Format, mode: str = "RNE", input: str = "") -> Converter:
    """Return the converter that is a plain rounding to a format: a device that follows no entry is held to it."""
    fmt = get_format(format)
    q = Quantizer(fmt, **mode_fields(mode))
    bits = q.sr_bits or 0
    if q.mode is Mode.SR:
        raise InputError("SR takes as many bits as the input has; say SRA(N), N being the bits of the device's words")
    entry = Model(
        name=f"{fmt.name}:{mode}", format=fmt.name, mode=mode, saturation=str(q.saturation), status="spec-only",
        source="qsim.reference", input=input, sr_bits=bits, word_bits=bits,
    )  # fmt: skip
    return Converter(entry)


def named(spelling: str) -> Converter:
    """Return the model of a name, or the plain rounding that "FORMAT:MODE" spells."""
    from qsim.models import models

    if spelling in models():
        return model(spelling)
    if "/" in spelling:
        get_model(spelling)
    try:
        fmt, mode = split_spelling(spelling)
        return of_format(fmt, mode or "RNE")
    except InputError as error:
        if ":" in spelling:
            raise
        raise InputError(f"{error}; a model is one of those that `qsim models` lists, or FORMAT:MODE") from None
