"""The one exception for faults that a user can mend, and the hint that goes with it."""

from __future__ import annotations

import difflib
import operator
import re
import reprlib
from collections.abc import Iterable
from decimal import Context, Decimal
from typing import Any

__all__ = ["InputError", "close_names", "integer", "nearest", "shown"]

LONG = re.compile(r"\d{61,}|'[^'\s]{201,}'|\"[^\"\s]{201,}\"|[^\s/\\:;,]{256,}")
"""Texts that are cut in a sentence: a number of hundreds of digits, a word of hundreds of letters that is no file's name."""

WIDEST = 4096
"""Bits of an integer that is still taken for one: Python converts none of more than 4,300 digits to text."""


class InputError(ValueError):
    """Name in one sentence the fault, its place and the remedy; the command exits 2 with it.

    Long numbers and long quoted words in the sentence are cut.
    """

    def __init__(self, sentence: object = "") -> None:
        super().__init__(LONG.sub(lambda found: _cut(found[0]), str(sentence)))


def _cut(word: str) -> str:
    """Return the beginning of a word, closed by its quote if it has one, and how long it is."""
    if word.isdigit():
        return f"{word[:20]}... ({len(word)} digits)"
    if word[0] == word[-1] and word[0] in "'\"":
        return f"{word[:61]}...{word[-1]} ({len(word) - 2} characters)"
    return f"{word[:60]}... ({len(word)} characters)"


class _Short(reprlib.Repr):
    """Write a value in a few dozen characters, on one line."""

    def __init__(self) -> None:
        super().__init__()
        self.maxstring = self.maxother = 60
        self.maxlist = self.maxtuple = self.maxdict = 6

    def repr_int(self, x: int, level: int) -> str:  # noqa: ARG002 - as the class it is of wants it
        bits = x.bit_length()
        if bits <= 200:
            return repr(x)
        digits = Context(prec=20, Emax=10**15, Emin=-(10**15))
        return f"~{digits.multiply(Decimal(x >> (bits - 100)), digits.power(Decimal(2), bits - 100)):.3e}"

    def repr_instance(self, x: Any, level: int) -> str:  # noqa: ARG002 - likewise
        try:
            text = " ".join(repr(x).split())
        except ValueError:  # a number of too many digits within
            return f"a {type(x).__name__}"
        return text if len(text) <= self.maxother else f"{text[: self.maxother]}..."


_SHORT = _Short()


def shown(value: Any) -> str:
    """Return the `repr` of a value for a sentence: on one line, and cut if long."""
    text = _SHORT.repr(value)
    return text if len(text) <= 120 else f"{text[:120]}..."


COMMON = 1 << 64
"""Integers below it are taken without a further question: a key asks for three of them at every call."""


def integer(name: str, value: Any) -> int:
    """Return an integer of Python or NumPy as Python's; refuse all else, truth values and thousands of digits too."""
    if type(value) is int and -COMMON < value < COMMON:
        return value
    try:
        number = None if isinstance(value, bool) else operator.index(value)
    except TypeError:  # arrays have the method, whatever they hold
        number = None
    if number is None:
        raise InputError(f"{name} = {shown(value)} must be an integer")
    if number.bit_length() > WIDEST:
        raise InputError(f"{name} = {shown(number)} must be an integer of at most {WIDEST} bits")
    return number


def close_names(word: str, known: Iterable[str], count: int = 3) -> list[str]:
    """Return the names in `known` most like `word`: those that differ only in case, that begin with it, that look like it."""
    names, folded = sorted(set(known)), word.casefold()
    twins = [name for name in names if name.casefold() == folded]
    longer = [name for name in names if len(word) > 2 and name.casefold().startswith(folded)]
    by_fold = {name.casefold(): name for name in names}
    alike = [by_fold[found] for found in difflib.get_close_matches(folded, by_fold, n=count, cutoff=0.5)]
    return list(dict.fromkeys([*twins, *sorted(longer, key=len), *alike]))[:count]


def nearest(word: str, known: Iterable[str], count: int = 3) -> str:
    """Return `close_names` as "a, b or c"; the first few names where none is like `word`."""
    names = sorted(set(known))
    return enumerate_names(close_names(word, names, count) or names[: 2 * count])


def enumerate_names(names: Iterable[str]) -> str:
    """Join names as a reader would: "a", "a or b", "a, b or c"."""
    listed = list(names)
    return " or ".join([", ".join(listed[:-1]), listed[-1]] if len(listed) > 1 else listed)
