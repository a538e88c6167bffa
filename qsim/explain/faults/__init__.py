"""The faults that quantizers are known for: each a sentence, and a rule that gives its answers for many lines.

A module holds one family: `directions` (ties and other modes), `fractions` (of the interval), `words`, `grids` (carries and
subnormals), `ranges`, `specials` (zeros, NaNs, negative numbers), `formats` (detours, other layouts, patterns); `rules` has
their common parts. Sources: the peers' and the vendors' models, and textbooks on rounding units: a tie broken otherwise, a
sticky bit or a carry lost, subnormals shifted by one place too few, the range checked first, NaN taken for a number, a random
word used backwards.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import Literal

from qsim.explain.case import Case
from qsim.explain.faults import directions, formats, fractions, grids, ranges, specials, words
from qsim.explain.faults.rules import NEAREST, PARTS, Rule
from qsim.formats import Format
from qsim.rounding import Flush, Mode, Saturation

__all__ = ["ANYTHING", "INSTEAD", "PARTS", "Rule", "faults"]

ANYTHING = specials.ANYTHING

INSTEAD: Mapping[str, tuple[str, ...]] = {
    directions.HALF[0]: tuple(f"ties go to the greater value (RNP instead of {mode})" for mode in NEAREST),
    directions.HALF[1]: tuple(f"ties go away from zero (RNA instead of {mode})" for mode in NEAREST),
    words.FLOOR[1]: (words.FROM_LESSER,),
}
"""Faults that lose a little more than others, to be named only where none of these explains as much."""


def faults(kind: Case) -> Mapping[str, Rule]:
    """Return the known faults by name, the plainest first, for roundings of the kind of a case."""
    known = kind.rbits is not None
    return _faults(kind.format, kind.mode, kind.saturation, kind.sr_bits, known, kind.ftz_out)


@functools.lru_cache(maxsize=64)
def _faults(
    fmt: Format, mode: Mode, saturation: Saturation, sr_bits: int, known: bool, flush: Flush | Literal[False]
) -> Mapping[str, Rule]:
    """Return the known faults; `known` says whether the random words are."""
    groups = [directions.of_ties(fmt, mode), directions.of_modes(fmt, mode, known=known)]
    if mode.stochastic and sr_bits:
        groups += (
            [words.of_words(mode, sr_bits), words.of_signed_words(mode, sr_bits)]
            if known
            else [words.of_unknown_words()]
        )
    groups += [
        formats.of_detours(fmt), fractions.of_fractions(mode, sr_bits), grids.of_grids(fmt, mode),
        formats.of_patterns(fmt, mode, sr_bits, known=known), ranges.of_saturation(fmt, saturation), ranges.of_range(fmt),
        grids.of_subnormals(flush), specials.of_zeros(fmt), specials.of_unheld(fmt), specials.of_nans(),
        directions.of_parts(fmt, mode), formats.of_variants(fmt), formats.of_other_formats(fmt),
    ]  # fmt: skip
    return {name: rule for group in groups for name, rule in group}
