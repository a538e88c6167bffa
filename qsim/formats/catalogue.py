"""Where formats come from: the files of `formats/*.toml`, a user's own file, and spellings that say their fields.

A file has two kinds of entries: [[format]], a format or a family of them, and [[variant]], a converter's treatment of numbers
that formats of other entries cannot hold: FORMAT@VARIANT.
"""

from __future__ import annotations

import dataclasses
import functools
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

from qsim.errors import InputError, close_names, enumerate_names, nearest, shown
from qsim.files import hexadecimal, read_toml
from qsim.folders import folder
from qsim.formats.build import (
    SUFFIX,
    fixed_format,
    float_format,
    integer_format,
    p3109_format,
    posit_format,
    table_format,
    variant_format,
)
from qsim.formats.format import SPECIALS, WIDEST_TABLE, Format, Grid
from qsim.underflow import gradual_underflow

__all__ = ["Variant", "catalogue", "get_format", "load_formats", "short_name", "variants", "variants_of"]

# --- From a TOML file to formats ---------------------------------------------------------------------------

COMMON: Mapping[str, Any] = {"name": str, "kind": str, "source": str}
CANNOT_HOLD: Mapping[str, Any] = {"nan_to": str, "negative_to": str, "zero_to": str}

NOTES: Mapping[str, Any] = {"warning": str, "elsewhere": list[list[str]]}

NEEDED: Mapping[str, Mapping[str, Any]] = {
    "float": {"exp_bits": int, "man_bits": int, "specials": str},
    "integer": {"bits": list[int]},
    "p3109": {"bits": list[int]},
    "posit": {"bits": list[int]},
    "table": {"values": list[float]},
}
OPTIONAL: Mapping[str, Mapping[str, Any]] = {
    "float": {
        "aliases": list[str],
        "bias": int,
        "signed": bool,
        "zero": bool,
        "subnormals": str,
        **CANNOT_HOLD,
        **NOTES,
    },
    "integer": {"aliases": list[str], "signed": bool, "symmetric": bool, "frac_bits": int, **CANNOT_HOLD},
    "p3109": {"revision": str},
    "posit": {"aliases": list[str]},
    "table": {
        "aliases": list[str],
        "bits": int,
        "codes": list[int],
        "above": float,
        "below": float,
        "thresholds": list[float],
        **CANNOT_HOLD,
        **NOTES,
    },
}
"""The keys of an entry, by kind, with their types. A number may be written as a string in C99's hexadecimal notation."""

LONGEST_NAME = 100
"""Characters of a name: it stands in sentences, tables and the names of files."""

MOST_WIDTHS = 32
"""Of a family; a width that is there twice is refused by the name that it would make twice."""

MOST_ENTRIES = 1 << WIDEST_TABLE
"""Of a list: a table of values has no more of them."""

CHANGES: Mapping[str, Any] = {
    **CANNOT_HOLD, "ties": str, "nan": str, "nan_code": int, "saturation": str, "revision": str,
}  # fmt: skip
VARIANT: Mapping[str, Any] = {"of": list[str], "name": str, "source": str, **CHANGES}
"""The keys of a [[variant]] entry, of which those of `CHANGES` may be left out."""

HEXADECIMAL = re.compile(r"[+-]?0x[0-9a-f]*\.?[0-9a-f]*(p[+-]?\d{1,5})?", re.IGNORECASE | re.ASCII)


@dataclass(frozen=True, slots=True)
class Variant:
    """Hold an entry for a converter's treatment of numbers that some formats cannot hold.

    `of` are names of formats or of families, `changes` the fields of `Format` that differ.
    """

    of: tuple[str, ...]
    name: str
    source: str
    changes: Mapping[str, Any]
    #: The file and the entry.
    where: str

    def fits(self, fmt: Format) -> bool:
        """Return whether `fmt` is one of the formats."""
        return fmt.name in self.of or (bool(fmt.family) and fmt.family in self.of)

    def format(self, base: Format) -> Format:
        """Return the variant of `base`, called BASE@NAME; raise `InputError` for a change that it cannot have."""
        try:
            return variant_format(base, f"{base.name}@{self.name}", self.source, **self.changes)
        except InputError as error:
            raise InputError(f"{self.where}: {error}") from None


@gradual_underflow
def load_formats(path: Path) -> list[Format]:
    """Read the formats of one TOML file; raise `InputError` naming the file, the entry and the key that is wrong."""
    return _load(path)[0]


def _load(path: Path) -> tuple[list[Format], list[Variant]]:
    """Read the formats and the variants of one TOML file."""
    data = read_toml(path)
    found = {kind: data.pop(kind, []) for kind in ("format", "variant")}
    if data or not all(isinstance(entries, list) for entries in found.values()) or not any(found.values()):
        stray = f"unknown key {next(iter(data))!r}" if data else "no [[format]] and no [[variant]] entry"
        raise InputError(f"{path}: {stray}; a format file holds [[format]] and [[variant]] entries only")
    formats = [fmt for number, entry in enumerate(found["format"], 1) for fmt in _entry(path, number, entry)]
    return formats, [_variant_entry(path, number, entry) for number, entry in enumerate(found["variant"], 1)]


def _variant_entry(path: Path, number: int, entry: Any) -> Variant:
    where = f"{path}: variant {number}"
    if not isinstance(entry, dict):
        raise InputError(f"{where} is not a table of keys; write [[variant]] above its keys")
    fields = _typed_fields(where, entry, VARIANT, [key for key in VARIANT if key not in CHANGES])
    name = fields.pop("name")
    if not re.fullmatch(r"[\w.-]+", name):
        raise InputError(
            f"{where}: name = {shown(name)}; it has letters, digits, '.', '-' and '_', as in FORMAT@{name or 'chip'}"
        )
    return Variant(fields.pop("of"), name, fields.pop("source"), MappingProxyType(fields), f"{where} ({name})")


def _typed_fields(
    where: str, entry: Mapping[str, Any], types: Mapping[str, Any], needed: Iterable[str]
) -> dict[str, Any]:
    """Return the keys of an entry with values of the right types; refuse others, and one that is missing."""
    fields = {}
    for key, value in entry.items():
        if key not in types:
            raise InputError(f"{where}: unknown key {shown(key)}; did you mean {nearest(key, types)}?")
        fields[key] = _typed(where, key, value, types[key])
    for key in needed:
        if key not in fields:
            raise InputError(f"{where}: key {key!r} is missing")
    return fields


def _entry(path: Path, number: int, entry: Any) -> Iterator[Format]:
    where = f"{path}: format {number}"
    if not isinstance(entry, dict):
        raise InputError(f"{where} is not a table of keys; write [[format]] above its keys")
    name = entry.get("name")
    if isinstance(name, str):
        if len(name) > LONGEST_NAME or not name.isprintable():
            raise InputError(f"{where}: name = {shown(name)} must be at most {LONGEST_NAME} printable characters")
        where += f" ({name})"
    kind = entry.get("kind")
    if not isinstance(kind, str) or kind not in NEEDED:
        raise InputError(f"{where}: kind is {shown(kind)}; it must be {enumerate_names(map(repr, NEEDED))}")
    types = {**COMMON, **NEEDED[kind], **OPTIONAL[kind]}
    fields = _typed_fields(where, entry, types, (*COMMON, *NEEDED[kind]))
    if not fields["name"]:
        raise InputError(f"{where}: name is empty; give it one")
    if isinstance(widths := fields.get("bits"), tuple) and len(widths) > MOST_WIDTHS:
        raise InputError(f"{where}: bits has {len(widths)} widths; there are {MOST_WIDTHS}, and each makes a format")
    del fields["kind"]
    try:
        yield from _formats(kind, fields)
    except InputError as error:
        raise InputError(f"{where}: {error}") from None


def _typed(where: str, key: str, value: Any, expected: Any) -> Any:
    """Return `value` if it is of the type `expected`; numbers as floats where floats are expected."""
    item = expected.__args__[0] if hasattr(expected, "__args__") else expected
    if item is not expected:
        if not isinstance(value, list) or not value:
            raise InputError(f"{where}: {key} = {shown(value)} must be a list of {item.__name__} that is not empty")
        if len(value) > MOST_ENTRIES:
            raise InputError(f"{where}: {key} has {len(value)} entries, and a format has at most {MOST_ENTRIES} values")
        return tuple(_typed(where, key, one, item) for one in value)
    if expected is float and type(value) in (int, float, str):
        try:
            number = _hexadecimal(value) if isinstance(value, str) else float(value)
        except (ValueError, OverflowError):
            hint = "; a string is hexadecimal, such as '0x1.8p-3'" if isinstance(value, str) else ""
            raise InputError(
                f"{where}: {key} has {shown(value)}, which is no number that a float64 can hold{hint}"
            ) from None
        if isinstance(value, int) and int(number) != value:
            raise InputError(f"{where}: {key} has {shown(value)}, which is no number that a float64 can hold")
        return number
    if type(value) is not expected:
        raise InputError(f"{where}: {key} = {shown(value)} must be of type {expected.__name__}")
    return value


def _hexadecimal(text: str) -> float:
    """Return the number in C99's hexadecimal notation; refuse decimals, and digits that a float64 has no room for."""
    if not HEXADECIMAL.fullmatch(text):
        raise ValueError(text)
    number = float.fromhex(text)
    if number != hexadecimal(text):
        raise ValueError(text)
    return number


def _formats(kind: str, fields: dict[str, Any]) -> Iterator[Format]:
    """Yield the formats of one entry: one, or one a width."""
    notes = {key: fields.pop(key) for key in NOTES if key in fields}
    rows = notes.get("elsewhere", ())
    if len(set(map(len, rows))) > 1:
        raise InputError(
            f"elsewhere has rows of {enumerate_names(sorted({str(len(row)) for row in rows}))} cells; give all alike"
        )
    match kind:
        case "float":
            yield dataclasses.replace(float_format(**fields), **notes)
        case "table":
            yield dataclasses.replace(table_format(**fields), **notes)
        case "p3109":
            for width in fields["bits"]:
                for signed in (True, False):
                    for precision in range(1, width + (not signed)):
                        for extended in (True, False):
                            yield p3109_format(
                                width, precision, signed=signed, extended=extended, source=fields["source"],
                                family=fields["name"], revision=fields.get("revision", ""),
                            )  # fmt: skip
        case _:
            name, aliases = fields.pop("name"), fields.pop("aliases", ())
            for bits in fields.pop("bits"):
                named, *others = (text.replace("{bits}", str(bits)) for text in (name, *aliases))
                family = name if named != name else ""
                build = posit_format if kind == "posit" else integer_format
                yield build(named, bits, aliases=tuple(others), family=family, **fields)


@functools.cache
def catalogue() -> Mapping[str, Format]:
    """Return the formats of the `formats/` folder by name, in file order; refuse a name or alias used twice."""
    return MappingProxyType(_shipped()[0])


def variants() -> tuple[Variant, ...]:
    """Return the variants of the `formats/` folder, in file order."""
    return _shipped()[1]


def variants_of(fmt: Format) -> list[Format]:
    """Return the variants that the `formats/` folder has of a format."""
    return [variant.format(fmt) for variant in variants() if variant.fits(fmt)]


@functools.cache
def _shipped() -> tuple[dict[str, Format], tuple[Variant, ...]]:
    return _collect(sorted(folder("formats").glob("*.toml")))


def _collect(paths: list[Path]) -> tuple[dict[str, Format], tuple[Variant, ...]]:
    formats: dict[str, Format] = {}
    found: list[Variant] = []
    owner: dict[str, Path] = {}
    for path in paths:
        loaded, several = _load(path)
        names = [*((fmt, name) for fmt in loaded for name in (fmt.name, *fmt.aliases))]
        for fmt, name in names:
            if name in owner:
                raise InputError(f"{path}: the name {name!r} is already taken by an entry of {owner[name]}")
            owner[name] = path
            formats[fmt.name] = fmt
        for variant in several:
            for name in (f"{of}@{variant.name}" for of in variant.of):
                if name in owner:
                    raise InputError(f"{path}: the variant {name!r} is already taken by an entry of {owner[name]}")
                owner[name] = path
        found += several
    return formats, tuple(found)


@functools.cache
def _aliases() -> Mapping[str, Format]:
    return {alias: fmt for fmt in catalogue().values() for alias in fmt.aliases}


@functools.cache
def _folded() -> Mapping[str, Format]:
    """Return the formats by their names and aliases in lower case, those that two share left out."""
    found: dict[str, Format] = {}
    shared = set()
    for name, fmt in (*catalogue().items(), *_aliases().items()):
        if found.setdefault(name.lower(), fmt) is not fmt:
            shared.add(name.lower())
    return {name: fmt for name, fmt in found.items() if name not in shared}


def short_name(name: str) -> str:
    """Return the shortest name of the format called `name`, for figures and tables; a file's stays as it is spelled.

    No two formats have one, and `get_format` takes it.
    """
    if FILE.fullmatch(name):
        return name
    fmt = get_format(name)
    return min((fmt.name, *fmt.aliases), key=len)


# --- From a spelling to a format ---------------------------------------------------------------------------

FLOAT = re.compile(
    r"(?:float(?P<bits>\d{1,3})_)?e(?P<exp>\d{1,3})m(?P<man>\d{1,3})(?:b(?P<bias>-?\d{1,5}))?"
    r"(?P<suffix>fnuz|fn|f|)(?P<unsigned>u?)", re.ASCII,
)  # fmt: skip
FILE = re.compile(r"(?P<path>.+?\.toml)(?:#(?P<entry>.*))?", re.DOTALL)
WITH_BITS = re.compile(r"fp(?P<bits>\d{1,2})_(?P<rest>e\d+m\d+\w*)", re.ASCII)
FIXED = re.compile(r"(?P<unsigned>u?)q(?P<int>\d{1,3})\.(?P<frac>\d{1,3})", re.ASCII)


def get_format(name: str | Format) -> Format:
    """Return the format called `name`: a catalogue name or alias, a spelling that says its fields, or a file.

    eXmY[bB][fn|fnuz|f][u] is sign + X exponent bits + Y mantissa bits, the exponent bias B if it is not the usual one, with
    LLVM's suffix letters: none for IEEE-like specials, `fn` (no infinity, all-ones NaN), `fnuz` (and unsigned zero), `f`
    (finite only), and `u` for no sign. Qm.n is sign + m integer + n fraction bits, UQm.n the same without a sign.
    "fp8_e4m3" is e4m3, as some write it. FORMAT@VARIANT is a format as somebody converts to it, an entry of `variants()`.
    `FILE.toml#NAME` is an entry of a file of your own, and `FILE.toml` its only entry; NAME may have a VARIANT of that file.
    Of all names but those in a file, upper and lower case are one where only one format is meant: E4M3 is e4m3.
    Raise `InputError` for any other spelling, with the nearest ones that exist.
    """
    if isinstance(name, Format):
        return name
    if not isinstance(name, str):
        name = _name_of_dtype(name)
    known = catalogue().get(name) or _aliases().get(name)
    if known:
        return known
    if match := FILE.fullmatch(name):
        return _of_file(Path(match["path"]), match["entry"] or "")
    if "@" in name:
        return _named_variant(name)
    known = _folded().get(name.lower()) if name.isascii() else None
    if not known and (match := WITH_BITS.fullmatch(name.lower())):
        known = _folded().get(match["rest"])
        known = known if known and known.bits == int(match["bits"]) else None
    return known or _spelled(name)


def _name_of_dtype(dtype: Any) -> str:
    """Return the name of a type of NumPy, ml_dtypes or torch, such as np.float16 and torch.float8_e4m3fn."""
    text = getattr(dtype, "__name__", None) if isinstance(dtype, type) else getattr(dtype, "name", None)
    if text is None and type(dtype).__module__ == "torch":
        text = str(dtype).removeprefix("torch.")
    if not isinstance(text, str) or text not in catalogue().keys() | _aliases().keys():
        kind = type(dtype).__name__
        raise InputError(f"a format is named by a string, a dtype of its name, or is a qsim.Format, not {kind}")
    return text


@functools.lru_cache(maxsize=1024)
def _named_variant(name: str) -> Format:
    base, _, variant = name.rpartition("@")
    if ".toml" in base:
        raise InputError(
            f"no format is called {name!r}; a variant of a file's format stands in it, FILE.toml#NAME@VARIANT"
        )
    return _variant(get_format(base), variant, variants())


def _variant(base: Format, name: str, known: Iterable[Variant]) -> Format:
    """Return the variant of `base` that has this name; refuse a name that none of the `known` has."""
    for variant in known:
        if variant.name == name and variant.fits(base):
            return variant.format(base)
    choices = [f"{base.name}@{variant.name}" for variant in known if variant.fits(base)]
    there = f"did you mean {enumerate_names(choices)}?" if choices else "it has none"
    raise InputError(f"no variant of {base.name} is called {name!r}; {there}")


@gradual_underflow
def _of_file(path: Path, name: str) -> Format:
    """Return the format called `name` of the file at `path`; "" means its only one."""
    formats, own = _collect([path])
    base, at, variant = name.rpartition("@")
    if at:
        return _variant(_of_own(base, formats), variant, own)
    for fmt in formats.values():
        if name in (fmt.name, *fmt.aliases) or (not name and len(formats) == 1):
            return fmt
    problem = f"has no format called {name!r}" if name else f"has {len(formats)} formats"
    choices = enumerate_names(f"{path}#{known}" for known in nearest_keys(name, formats))
    raise InputError(f"{path}: {problem}; name one, such as {choices}")


def _of_own(name: str, formats: Mapping[str, Format]) -> Format:
    """Return the format that an entry of a file may have variants of: one of the same file, or any that has a name."""
    own = {known: fmt for fmt in formats.values() for known in (fmt.name, *fmt.aliases)}
    return own.get(name) or get_format(name)


def nearest_keys(name: str, formats: Mapping[str, Format]) -> list[str]:
    """Return at most three names of `formats`, those that contain `name` first."""
    return sorted(formats, key=lambda known: name not in known)[:3]


@functools.lru_cache(maxsize=1024)
def _spelled(name: str) -> Format:
    folded = name.lower() if name.isascii() else name
    if match := FIXED.fullmatch(folded):
        unsigned = bool(match["unsigned"])
        layout = f"{'' if unsigned else 'sign, '}{match['int']} integer and {match['frac']} fraction bits"
        source = f"parametric: {layout}, two's complement" if not unsigned else f"parametric: {layout}"
        name = f"{'U' * unsigned}Q{match['int']}.{match['frac']}"
        return fixed_format(name, int(match["int"]), int(match["frac"]), source, signed=not unsigned)
    match = FLOAT.fullmatch(folded)
    if not match:
        raise InputError(f"no format is called {name!r}; {_hint(name)}")
    exp_bits, man_bits, signed = int(match["exp"]), int(match["man"]), not match["unsigned"]
    bits = signed + exp_bits + man_bits
    bias = f"b{int(match['bias'])}" if match["bias"] else ""
    short = f"e{exp_bits}m{man_bits}{bias}{match['suffix']}{match['unsigned']}"
    if match["bits"] and int(match["bits"]) != bits:
        layout = f"sign + {exp_bits} + {man_bits}" if signed else f"{exp_bits} + {man_bits}"
        raise InputError(
            f"no format is called {name!r}: {layout} bits are {bits}, which is spelled float{bits}_{short}"
        )
    source = f"parametric: {'sign, ' if signed else ''}{exp_bits} exponent and {man_bits} mantissa bits"
    specials = SUFFIX[match["suffix"]]
    fmt = float_format(
        short, exp_bits, man_bits, specials, f"{source}{f', bias {bias[1:]}' if bias else ''}; {SPECIALS[specials]}",
        bias=int(match["bias"]) if match["bias"] else None, signed=signed, zero=signed or man_bits > 0,
    )  # fmt: skip
    for known in catalogue().values():  # float8_e4m3fn and e4m3fn are one format, under its catalogue name
        if isinstance(known, Grid) and known.family == "" and _same(fmt, known):
            return known
    if short in _aliases():  # float8_e4m3 is IEEE-like, while e4m3 is OCP's
        return dataclasses.replace(fmt, name=f"float{bits}_{short}")
    return fmt


BLOCKS: Mapping[str, tuple[str, str]] = {
    "mxfp4": ("e2m1", "e8m0"), "mxfp6": ("e2m3 or e3m2", "e8m0"), "mxfp8": ("e4m3 or e5m2", "e8m0"),
    "mxint8": ("Q1.6", "e8m0"), "nvfp4": ("e2m1", "e4m3"),
}  # fmt: skip
"""Formats of blocks, which are not there: those of their elements, and of the scale that a block shares."""


def _hint(name: str) -> str:
    """Return the names that `name` may have been meant for, or how such formats are spelled."""
    folded = name.lower()
    for block, (element, scale) in BLOCKS.items():
        if folded.startswith(block):
            return f"{block} is a block format, and there are none yet: its elements are {element}, its scales {scale}"
    if match := re.fullmatch(r"(u?)int\d+", folded):
        return "integers are uint1 to uint32" if match[1] else "integers are int2 to int32"
    if re.fullmatch(r"u?q\d*[._]?\d*", folded):
        return "fixed point is spelled Qm.n or UQm.n, m integer and n fraction bits, such as Q3.4"
    known = {**catalogue(), **_aliases()}
    if re.fullmatch(r"posit[\d_,.]+", folded):
        posits = [fmt for fmt in known if re.fullmatch(r"posit\d+", fmt)]
        return f"posits have 2 exponent bits, by the standard of 2022; did you mean {enumerate_names(posits)}?"
    near = close_names(name, known)
    return f"did you mean {enumerate_names(near)}?" if near else "`qsim formats` lists the names and spellings"


def _same(fmt: Grid, known: Grid) -> bool:
    """Return whether two formats have the same values with the same codes."""
    fields = ("kind", "bits", "exp_bits", "man_bits", "emin", "specials", "top", "bottom", "gap")
    return all(getattr(fmt, field) == getattr(known, field) for field in fields)
