"""Faults of format: a number goes through another one first, is taken for another one, or is rounded in its own pattern."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from fractions import Fraction

import numpy as np

from qsim.errors import InputError
from qsim.explain.case import Nan
from qsim.explain.faults.rules import Named, Rule, where
from qsim.explain.lines import Answers, Lines
from qsim.explain.oracle import Flags, decode, is_nan_code, quantize
from qsim.formats import SUFFIX, Format, Grid, Specials, catalogue, float_format, get_format, variants_of
from qsim.rounding import Mode, Saturation, saturations

__all__ = ["of_detours", "of_other_formats", "of_patterns", "of_variants"]

INTERMEDIATE = ("float32", "bfloat16", "float16", "tf32")
"""The formats through which a number may have gone first."""

LETTERS: Mapping[Specials, str] = {
    **{special: letters for letters, special in SUFFIX.items()},
    "extended": " extended",
}


def of_detours(fmt: Format) -> Named:
    """Yield double rounding: a number goes through another format first."""
    for name in INTERMEDIATE:
        through = get_format(name)
        if through.bits > fmt.bits:
            yield f"double rounding: goes through {name} first", _through(through, Mode.RNE)
            yield f"double rounding: goes through {name} first, truncated", _through(through, Mode.RTZ)


def _through(through: Format, mode: Mode) -> Rule:
    return where(lambda v: v.finite, lambda v: v.round(quantize(through, np.where(v.finite, v.entering, 1.0), mode)))


def of_variants(fmt: Format) -> Named:
    """Yield the variants of the format and its base: other treatments of numbers that it cannot hold."""
    base = catalogue().get(fmt.variant_of, fmt)
    for other in (base, *variants_of(base)):
        if dataclasses.replace(other, name=fmt.name) != fmt:
            rule = saturations(other)[0]
            yield f"converts as {other.name} does, {rule}", _as_other(other, rule, nan=other.nan)


def of_patterns(fmt: Format, mode: Mode, n: int, *, known: bool) -> Named:
    """Yield the ways to add a word to the pattern of the input and to mask the bits below; `n` is the number of its bits.

    Which bits of a word are added shows only where the words are `known`.
    """
    if not isinstance(fmt, Grid) or fmt.even or not fmt.man_bits or fmt.gap or mode not in (Mode.SR, Mode.SRA):
        return
    words: list[tuple[str, bool]] = [("the word", False), ("the word's low bits", True)]
    for word, low in words if known else words[:1]:
        adds = f"adds {word} below the kept bits, masks"
        yield f"{adds}: no subnormals, no range", where(lambda v: ~v.nan, _masked(n, low=low))
        yield f"{adds}: no subnormals, no range, no NaNs", _masked(n, low=low)
        yield f"{adds}, then converts to nearest", where(lambda v: v.finite, _masked(n, low=low, converts=True))


def _masked(n: int, *, low: bool, converts: bool = False) -> Rule:
    """Return the rule of a quantizer that adds a word of `n` bits to a pattern, and clears the discarded bits.

    The word is cut to, or filled up to, as many bits as are cleared: at its end, or at its start where the `low` bits count.
    """

    def rule(v: Lines) -> Answers:
        number = v.kind.number
        assert isinstance(v.fmt, Grid)  # by the family
        dropped = 0 if number is None else number.man_bits - v.fmt.man_bits
        if number is None or dropped <= 0 or (low and n <= dropped):
            return v.right
        words = (
            v.words & ((1 << dropped) - 1)
            if low
            else v.words >> (n - dropped)
            if n > dropped
            else v.words << (dropped - n)
        )
        mask = np.uint64((1 << number.bits) - (1 << dropped))
        values = number.decode_array((v.pattern + words.astype(np.uint64)) & mask)
        return v.round(values, mode=Mode.RNE) if converts else v.of_values(values)

    return rule


def of_other_formats(fmt: Format) -> Named:
    """Yield the formats of the same layout that differ in bias or special values."""
    if not isinstance(fmt, Grid) or fmt.even or fmt.gap or not fmt.has_zero:
        return
    yield "the result is doubled: an exponent bias is off by one", _times(Fraction(2))
    yield "the result is halved: an exponent bias is off by one", _times(Fraction(1, 2))
    for special, letters in LETTERS.items():
        usual = (1 << (fmt.exp_bits - 1)) - (special not in ("fnuz", "extended"))
        for bias in sorted({usual, fmt.bias, fmt.bias - 1, fmt.bias + 1}):
            try:
                other = float_format("", fmt.exp_bits, fmt.man_bits, special, "a fault", bias=bias, signed=fmt.signed)
            except InputError:
                continue
            if (special, bias) != (fmt.specials, fmt.bias):
                layout = f"e{fmt.exp_bits}m{fmt.man_bits}{letters}{'' if fmt.signed else 'u'} with bias {bias}"
                for rule in saturations(other):
                    yield f"takes the format for {layout}, {rule}", _as_other(other, rule)


def _times(factor: Fraction) -> Rule:
    def finite(v: Lines) -> Flags:
        values = v.right_values
        held = np.asarray((values != 0) & (abs(values) != np.inf) & (values == values)).astype(bool)  # noqa: PLR0124
        return np.asarray(v.finite & held)

    def rule(v: Lines) -> Answers:
        exact = v.right_values.dtype == object
        return v.of_values(np.where(finite(v), v.right_values, 0) * (factor if exact else float(factor)))

    return where(finite, rule)


def _as_other(other: Format, saturation: Saturation, nan: Nan | None = None) -> Rule:
    """Return the rule of the same rounding into another format: its code or its value, as the lines have it."""

    def rule(v: Lines) -> Answers:
        codes = v.encode(v.flushed, fmt=other, saturation=saturation, nan=nan)
        if not v.coded:
            return decode(other, codes)
        nans = is_nan_code(other, codes) & is_nan_code(other, v.got) & (v.kind.nan == "any")
        return np.where(nans, v.got, codes)

    return rule
