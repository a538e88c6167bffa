"""On which line of a TOML file a table, a key or an entry of a list stands: `tomllib` reads values, not places."""

from __future__ import annotations

import bisect
import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from qsim.errors import InputError

__all__ = ["Place", "lines_of"]

Keys = tuple[str | int, ...]

BLANK = re.compile(r"(?:[ \t\r\n]|#[^\n]*)*")
BARE = re.compile(r"[A-Za-z0-9_-]+")
TEXT = re.compile(
    r'"""(?:\\.|[^\\])*?"{3,5}' + r"|'''.*?'{3,5}" + r'|"(?:\\.|[^"\\])*"' + r"|'[^']*'",
    re.DOTALL,
)
SCALAR = re.compile(r"[^,\]}#\n]+")


def lines_of(text: str) -> dict[Keys, int]:
    """Return the line, from 1 on, of every table, key and entry of the valid TOML document `text`.

    Keys are those that lead to the value in the result of `tomllib.loads`: ("arm", 0, "formats", 2).
    """
    reader = _Reader(text)
    reader.document()
    return reader.lines


class _Reader:
    """Walk through a document that is known to be valid, noting where each value begins."""

    def __init__(self, text: str) -> None:
        self.text, self.at = text, 0
        self.newlines = [match.start() for match in re.finditer("\n", text)]
        self.lines: dict[Keys, int] = {}
        self.counts: dict[Keys, int] = {}

    def document(self) -> None:
        table: Keys = ()
        while self.skip():
            if self.text[self.at] != "[":
                self.pair(table)
                continue
            brackets = 2 if self.text.startswith("[[", self.at) else 1
            line, self.at = self.line, self.at + brackets
            keys = self.key()
            self.at += brackets
            table = (*self.resolved(keys[:-1], line), keys[-1])
            if brackets == 2:
                self.lines.setdefault(table, line)
                self.counts[table] = self.counts.get(table, 0) + 1
            table = self.resolved((keys[-1],), line, table[:-1])

    @property
    def line(self) -> int:
        return bisect.bisect_left(self.newlines, self.at) + 1

    def skip(self) -> bool:
        """Pass blanks and comments over; return whether anything follows."""
        match = BLANK.match(self.text, self.at)
        assert match is not None
        self.at = match.end()
        return self.at < len(self.text)

    def resolved(self, keys: Keys, line: int, start: Keys = ()) -> Keys:
        """Return where `keys` lead from `start`: through an array of tables to the last of them."""
        for key in keys:
            start = (*start, key)
            self.lines.setdefault(start, line)
            if start in self.counts:
                start = (*start, self.counts[start] - 1)
                self.lines.setdefault(start, line)
        return start

    def key(self) -> Keys:
        """Read a key with its dots."""
        parts: list[str] = []
        while True:
            self.skip()
            match = BARE.match(self.text, self.at)
            if match:
                parts.append(match[0])
            else:
                match = TEXT.match(self.text, self.at)
                assert match is not None
                parts.append(tomllib.loads(f"key = {match[0]}")["key"])
            self.at = match.end()
            self.skip()
            if self.text[self.at] != ".":
                return tuple(parts)
            self.at += 1

    def pair(self, table: Keys) -> None:
        """Read a key and its value."""
        line = self.line
        keys = self.key()
        self.at += 1  # the sign of equality
        self.resolved(keys, line, table)
        self.value((*table, *keys))

    def value(self, keys: Keys) -> None:
        """Read a value, and note where its parts are."""
        self.skip()
        self.lines.setdefault(keys, self.line)
        opening = self.text[self.at]
        if opening not in "[{":
            match = (TEXT if opening in "\"'" else SCALAR).match(self.text, self.at)
            assert match is not None
            self.at = match.end()
            return
        self.at += 1
        number = 0
        while self.skip() and self.text[self.at] not in "]}":
            if opening == "{":
                self.pair(keys)
            else:
                self.value((*keys, number))
            number += 1
            self.skip()
            self.at += self.text[self.at] == ","
        self.at += 1


@dataclass(frozen=True, slots=True)
class Place:
    """Hold a place in a study file, for error messages: the file, the line, the table."""

    path: Path
    lines: Mapping[Keys, int] = field(repr=False)
    keys: Keys = ()
    label: str = ""

    def at(self, *keys: str | int, label: str = "") -> Place:
        """Return the place of a table or key below this one; `label` is its name for a reader."""
        return Place(self.path, self.lines, (*self.keys, *keys), label or self.label)

    def refuse(self, message: str, *keys: str | int) -> InputError:
        """Return the error that says `message` of the key or entry `keys` below this place, or of the nearest that is there."""
        whole = (*self.keys, *keys)
        while whole and whole not in self.lines:
            whole = whole[:-1]
        label = f"{self.label}: " if self.label else ""
        return InputError(f"{self.path}, line {self.lines.get(whole, 1)}: {label}{message}")
