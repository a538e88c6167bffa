"""Block formats: elements that share a scale, as data of `formats/blocks/*.toml` or of a user's own file."""

from __future__ import annotations

import functools
import math
from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from types import MappingProxyType
from typing import Any

from qsim.errors import InputError, enumerate_names, nearest, shown
from qsim.files import read_toml
from qsim.folders import folder
from qsim.formats import Format, get_format
from qsim.underflow import gradual_underflow

__all__ = ["BlockFormat", "block_formats", "find_block_format", "get_block_format", "load_block_formats"]

LARGEST_BLOCK = 1 << 16
"""Elements of a block along one axis."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BlockFormat:
    """Describe a block format: the format of its elements, that of its scales, and how many elements share one.

    The value of an element is q s T: q of the `element` format, s the scale of its block, a value of the format `scale`, and T
    the scale of the tensor, a float32 (1 without `tensor_scale`).
    """

    name: str
    element: Format
    scale: Format
    #: Elements of a block along each blocked axis, one number or two.
    size: tuple[int, ...]
    source: str
    tensor_scale: bool = False
    #: The recipe that rounds to it where none is named; "" for the scale rule `rule`.
    recipe: str = ""
    #: The scale rule where none is named, see `qsim.blocks.scales.RULES`.
    rule: str = "floor"
    #: What a NaN or an infinity does: "nan" makes the scale of its block NaN, where a scale rule is followed; "ignore": it does
    #: not count for the maximum, and becomes what the element's format makes of it.
    nonfinite: str = "nan"
    aliases: tuple[str, ...] = ()

    @property
    def bits(self) -> float:
        """Bits an element takes, its share of the block's scale included."""
        return self.element.bits + self.scale.bits / math.prod(self.size)

    @property
    def largest(self) -> Fraction:
        """The largest magnitude that an element has in both signs."""
        top = self.element.value(self.element.top)
        return min(top, abs(self.element.value(-self.element.bottom))) if self.element.signed else top

    @property
    def emax(self) -> int:
        """The exponent of the binade of `largest`."""
        return floor_log2(self.largest)

    def __str__(self) -> str:
        return self.name


def floor_log2(x: Fraction) -> int:
    """Return the exponent of the binade of x > 0."""
    exponent = x.numerator.bit_length() - x.denominator.bit_length()
    return exponent - (Fraction(2) ** exponent > x)


KEYS: Mapping[str, Any] = {"name": str, "element": str, "scale": str, "size": list, "source": str}
OPTIONAL: Mapping[str, Any] = {"tensor_scale": bool, "recipe": str, "rule": str, "aliases": list, "nonfinite": str}
NONFINITE = ("nan", "ignore")


@gradual_underflow
def load_block_formats(path: Path) -> list[BlockFormat]:
    """Read the [[block]] entries of a TOML file; raise `InputError` naming the file, the entry and the key that is wrong."""
    data = read_toml(path)
    entries = data.pop("block", None)
    if data or not isinstance(entries, list) or not entries:
        stray = f"unknown key {next(iter(data))!r}" if data else "no [[block]] entry"
        raise InputError(f"{path}: {stray}; a file of block formats holds [[block]] entries only")
    return [_entry(f"{path}: block {number}", entry) for number, entry in enumerate(entries, 1)]


def _entry(where: str, entry: Any) -> BlockFormat:
    if not isinstance(entry, dict):
        raise InputError(f"{where} is not a table of keys; write [[block]] above its keys")
    if isinstance(entry.get("name"), str):
        where += f" ({entry['name']})"
    types = {**KEYS, **OPTIONAL}
    for key, value in entry.items():
        if key not in types:
            raise InputError(f"{where}: unknown key {shown(key)}; did you mean {nearest(key, types)}?")
        if type(value) is not types[key] or value in ("", []):
            if key == "recipe" and value == "":
                continue
            raise InputError(f"{where}: {key} = {shown(value)} must be of type {types[key].__name__}, and not empty")
    for key in KEYS:
        if key not in entry:
            raise InputError(f"{where}: key {key!r} is missing")
    fields = dict(entry)
    try:
        fields["element"], fields["scale"] = get_format(fields["element"]), get_format(fields["scale"])
    except InputError as error:
        raise InputError(f"{where}: {error}") from None
    size = fields["size"]
    if len(size) > 2 or not all(type(one) is int and 1 <= one <= LARGEST_BLOCK for one in size):
        raise InputError(f"{where}: size = {shown(size)} must be one or two whole numbers, 1 to {LARGEST_BLOCK}")
    fields["size"] = tuple(size)
    fields["aliases"] = tuple(fields.get("aliases", ()))
    if fields["scale"].signed and fields["scale"].kind != "float":
        raise InputError(f"{where}: scale = {fields['scale'].name} must be a float format")
    if fields.get("nonfinite", "nan") not in NONFINITE:
        raise InputError(
            f"{where}: nonfinite = {shown(fields['nonfinite'])}; it is {enumerate_names(map(repr, NONFINITE))}"
        )
    from qsim.blocks.scales import RULES, fits

    rule = fields.get("rule", "floor")
    if rule not in RULES or not fits(rule, fields["scale"]):
        allowed = ", ".join(name for name in RULES if fits(name, fields["scale"]))
        raise InputError(
            f"{where}: rule = {shown(rule)} is no rule for a scale of {fields['scale'].name}; {allowed} are"
        )
    return BlockFormat(**fields)


@functools.cache
def block_formats() -> Mapping[str, BlockFormat]:
    """Return the block formats of `formats/blocks/` by name, in file order."""
    found: dict[str, BlockFormat] = {}
    for path in sorted((folder("formats") / "blocks").glob("*.toml")):
        for fmt in load_block_formats(path):
            if fmt.name in found:
                raise InputError(f"{path}: the name {fmt.name!r} is taken")
            found[fmt.name] = fmt
    return MappingProxyType(found)


@functools.cache
def _names() -> Mapping[str, BlockFormat]:
    named = {name.lower(): fmt for fmt in block_formats().values() for name in (*fmt.aliases, fmt.name)}
    return MappingProxyType(named)


def find_block_format(name: Any) -> BlockFormat | None:
    """Return the block format called `name`, or the one of a file, "FILE.toml#NAME"; `None` where there is none."""
    if isinstance(name, BlockFormat):
        return name
    return _names().get(name.lower()) if isinstance(name, str) else None


def get_block_format(name: str | BlockFormat) -> BlockFormat:
    """Return the block format called `name`, an alias, or an entry of a file of your own, `FILE.toml#NAME`.

    Raise `InputError` for any other name, with the nearest that exist.
    """
    found = find_block_format(name)
    if found is not None:
        return found
    if isinstance(name, str) and ".toml" in name:
        file, _, entry = name.partition("#")
        own = {fmt.name: fmt for fmt in load_block_formats(Path(file))}
        if not entry and len(own) == 1:
            return next(iter(own.values()))
        if entry in own:
            return own[entry]
        raise InputError(f"{file} has no block format called {entry!r}; it has {', '.join(own)}")
    raise InputError(f"no block format is called {shown(name)}; did you mean {nearest(str(name), block_formats())}?")
