"""What a number format is: a finite set of values with codes. Nothing here knows how to round.

Every format of this module lives on one *binary grid*: the non-negative values are numbered 0, 1, 2, ...
(their **ordinals**), evenly spaced by 2^(emin - man_bits) below 2^(emin + 1), then with a spacing that doubles
in every binade. A negative value has the negative of its mirror's ordinal. Floats and integers differ in the
constants and in how an ordinal becomes a code: sign and magnitude for floats, two's complement for integers
(an integer format is a float whose values are all subnormal).

Formats are data: the files of `formats/*.toml`, and the parametric spellings eXmY (LLVM's suffix letters).
"""

from __future__ import annotations

import functools
import math
import re
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from qsim.errors import InputError, enumerate_names, nearest
from qsim.folders import folder

__all__ = ["Format", "catalogue", "get_format", "load_formats"]

Specials = Literal["ieee", "fn", "fnuz", "f"]

SPECIALS: Mapping[str, str] = {
    "ieee": "infinities and NaNs in the top binade, as in IEEE 754",
    "fn": "no infinity; the all-ones code is NaN (LLVM: FN)",
    "fnuz": "no infinity, no negative zero; the code of -0 is NaN, bias one larger (LLVM: FNUZ)",
    "f": "finite values only",
}

SUFFIX: Mapping[str, Specials] = {"": "ieee", "fn": "fn", "fnuz": "fnuz", "f": "f"}
"""The letters of a parametric spelling."""

WIDEST_TABLE = 16
"""Formats of more bits than this have no `values()`: the table would not fit a page of memory."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Format:
    """Describe a number format: its grid, its range, its special values and its codes.

    Two formats are equal when all their fields are. `man_bits` counts stored bits (no hidden bit),
    `precision` = man_bits + 1.
    """

    name: str
    kind: Literal["float", "integer"]
    bits: int
    #: Stored exponent bits; 0 for integers.
    exp_bits: int
    #: Stored mantissa bits; for integers the bits below the sign.
    man_bits: int
    #: Exponent of the smallest normal number; the grid is even below 2^(emin + 1).
    emin: int
    #: Ordinals of the largest and (negated) of the smallest finite value.
    top: int
    bottom: int
    #: How special values are coded; "" for integers.
    specials: Specials | Literal[""]
    #: What a NaN becomes: "nan", "max" (the largest value), "zero".
    nan_to: Literal["nan", "max", "zero"]
    #: The standard or document that defines it.
    source: str = field(compare=False)
    aliases: tuple[str, ...] = field(default=(), compare=False)

    @property
    def precision(self) -> int:
        """Significand bits, the hidden one included."""
        return self.man_bits + 1

    @property
    def bias(self) -> int:
        """Exponent bias: emin = 1 - bias for floats."""
        return 1 - self.emin

    @property
    def emax(self) -> int:
        """Exponent of the largest finite value."""
        return _log2(Fraction(self.max))

    @property
    def has_inf(self) -> bool:
        """Whether the format holds infinities."""
        return self.specials == "ieee"

    @property
    def has_nan(self) -> bool:
        """Whether the format holds a NaN."""
        return self.specials in ("ieee", "fn", "fnuz")

    @property
    def has_neg_zero(self) -> bool:
        """Whether the format tells -0 from +0; where it does not, -0 becomes +0."""
        return self.specials in ("ieee", "fn", "f")

    @property
    def max(self) -> float:
        """Largest finite value."""
        return float(self.value(self.top))

    @property
    def min(self) -> float:
        """Smallest finite value (the most negative)."""
        return float(self.value(-self.bottom))

    @property
    def smallest_subnormal(self) -> float:
        """Smallest positive value, the spacing of the even part of the grid."""
        return float(self.value(1))

    @property
    def smallest_normal(self) -> float:
        """Smallest positive value of full precision; for integers the spacing."""
        return float(Fraction(2) ** self.emin) if self.kind == "float" else 1.0

    @property
    def eps(self) -> float:
        """Spacing of the values just above 1: for floats 2^-man_bits, twice that if 1 is subnormal; for integers 1."""
        return float(Fraction(2) ** (max(self.emin, 0) - self.man_bits)) if self.kind == "float" else 1.0

    def value(self, ordinal: int) -> Fraction:
        """Return the exact value on the format's grid that `ordinal` numbers, range or not.

        With n = |ordinal| and M = 2^man_bits: n 2^(emin - man_bits) while n < M, and
        (M + n mod M) 2^(emin + n div M - 1 - man_bits) above.
        """
        whole = 1 << self.man_bits
        binade, step = divmod(abs(ordinal), whole)
        magnitude = step * Fraction(2) ** (self.emin - self.man_bits)
        if binade:
            magnitude = (whole + step) * Fraction(2) ** (self.emin + binade - 1 - self.man_bits)
        return -magnitude if ordinal < 0 else magnitude

    def floor_ordinal(self, magnitude: Fraction) -> tuple[int, Fraction]:
        """Return the ordinal of the largest grid value <= `magnitude` (>= 0), and the rest in units of the interval.

        The grid goes on above `max`, so that rounding comes first and range second. The rest is in [0, 1).
        """
        spacing_exponent = max(_log2(magnitude), self.emin) - self.man_bits if magnitude else self.emin - self.man_bits
        steps, rest = divmod(magnitude / Fraction(2) ** spacing_exponent, 1)
        binades = spacing_exponent - (self.emin - self.man_bits)
        # Within binade b >= 1 the steps run from M to 2M - 1 while the ordinals run from M b to M (b + 1) - 1.
        return int(steps) + binades * (1 << self.man_bits), rest

    def ordinal(self, value: float | Fraction) -> int:
        """Return the ordinal of `value`; raise `InputError` if the format does not hold it."""
        if isinstance(value, float) and not math.isfinite(value):
            raise InputError(f"{value!s} has no ordinal; the finite values of {self.name} have")
        exact = Fraction(value)
        number, rest = self.floor_ordinal(abs(exact))
        if rest or number > (self.bottom if exact < 0 else self.top):
            raise InputError(f"{self.name} does not hold {value!s}; qsim.quantize rounds a value to it")
        return -number if exact < 0 else number

    def neighbours(self, value: float | Fraction) -> tuple[float, float]:
        """Return the largest value of the format <= `value` and the smallest >= `value`.

        Both are `value` itself where the format holds it. Raise `InputError` outside [min, max].
        """
        if not self.min <= value <= self.max:
            raise InputError(f"{value!s} is outside the range [{self.min!r}, {self.max!r}] of {self.name}")
        exact = Fraction(value)
        number, rest = self.floor_ordinal(abs(exact))
        inner, outer = (float(self.value(n)) for n in (number, number + bool(rest)))
        return (-outer, -inner) if exact < 0 else (inner, outer)

    def code(self, ordinal: int, *, negative_zero: bool = False) -> int:
        """Return the code of the finite value that `ordinal` numbers."""
        if self.kind == "integer":
            return ordinal & ((1 << self.bits) - 1)
        sign = (ordinal < 0 or (negative_zero and self.has_neg_zero)) << (self.bits - 1)
        return int(sign) | abs(ordinal)

    @property
    def nan_code(self) -> int | None:
        """The code a NaN is given: the quiet NaN without payload; `None` where the format has no NaN."""
        match self.specials:
            case "ieee":
                quiet = (1 << self.man_bits) >> 1
                return (((1 << self.exp_bits) - 1) << self.man_bits) | quiet
            case "fn":
                return (1 << (self.bits - 1)) - 1
            case "fnuz":
                return 1 << (self.bits - 1)
            case _:
                return None

    @property
    def inf_code(self) -> int | None:
        """The code of +infinity; `None` where the format has none."""
        return ((1 << self.exp_bits) - 1) << self.man_bits if self.has_inf else None

    def decode(self, code: int) -> float:
        """Return the value of `code` (0 <= code < 2^bits), exactly; NaN and infinities as such."""
        if not 0 <= code < 1 << self.bits:
            raise InputError(f"{code} is no code of {self.name}: codes are 0 .. {(1 << self.bits) - 1}")
        half = 1 << (self.bits - 1)
        if self.kind == "integer":
            return float(code - 2 * half if code >= half else code)
        magnitude, negative = code % half, code >= half
        if self.specials == "fnuz" and code == half:
            return float("nan")
        if magnitude > self.top:
            return float("nan") if magnitude != self.inf_code else float("-inf" if negative else "inf")
        result = float(self.value(magnitude))
        return -result if negative else result

    def values(self) -> NDArray[np.float64]:
        """Return all values in code order, shape (2^bits,), float64: index i holds the value of code i."""
        if self.bits > WIDEST_TABLE:
            raise InputError(f"{self.name} has 2^{self.bits} values; a table is made up to {WIDEST_TABLE} bits")
        return _values(self)

    def __str__(self) -> str:
        return self.name


@functools.lru_cache(maxsize=256)
def _values(fmt: Format) -> NDArray[np.float64]:
    table = np.array([fmt.decode(code) for code in range(1 << fmt.bits)])
    table.flags.writeable = False
    return table


def _log2(value: Fraction) -> int:
    """Return floor(log2(value)) for value > 0, exactly."""
    guess = value.numerator.bit_length() - value.denominator.bit_length()
    return guess if Fraction(2) ** guess <= value else guess - 1


# --- From fields to a format -------------------------------------------------------------------------------


def float_format(
    name: str, exp_bits: int, man_bits: int, specials: Specials, source: str, aliases: tuple[str, ...] = ()
) -> Format:
    """Return the float format of these fields; raise `InputError` if they contradict each other."""
    if specials not in SPECIALS:
        raise InputError(f"{name}: specials {specials!r} is not one of {enumerate_names(SPECIALS)}")
    problem = _impossible(exp_bits, man_bits, specials)
    if problem:
        possible = [f"e{exp_bits}m{man_bits}{s}" for s in SUFFIX if not _impossible(exp_bits, man_bits, SUFFIX[s])]
        raise InputError(f"{name}: {problem}" + (f"; {enumerate_names(possible)} can exist" if possible else ""))
    codes = 1 << (exp_bits + man_bits)  # magnitudes, from zero
    unusable = {"ieee": 1 << man_bits, "fn": 1, "fnuz": 0, "f": 0}[specials]
    bias = (1 << (exp_bits - 1)) - (0 if specials == "fnuz" else 1)
    return Format(
        name=name, kind="float", bits=1 + exp_bits + man_bits, exp_bits=exp_bits, man_bits=man_bits, emin=1 - bias,
        top=codes - unusable - 1, bottom=codes - unusable - 1, specials=specials,
        nan_to="max" if specials == "f" else "nan", source=source, aliases=aliases,
    )  # fmt: skip


def _impossible(exp_bits: int, man_bits: int, specials: Specials) -> str:
    """Say why no float format has these fields; "" if one can."""
    if not 1 <= exp_bits <= 11 or not 0 <= man_bits <= 52:
        return f"needs 1 to 11 exponent bits and 0 to 52 mantissa bits, not {exp_bits} and {man_bits}"
    if specials == "ieee" and (exp_bits < 2 or man_bits < 1):
        return "IEEE-like specials need 2 exponent bits, for a finite normal value, and 1 mantissa bit, for a NaN"
    if specials != "ieee" and exp_bits == 11:
        return "with 11 exponent bits only IEEE-like specials leave every value a float64"
    if specials == "fn" and exp_bits + man_bits < 2:
        return "no positive value is left beside NaN"
    return ""


def integer_format(name: str, bits: int, source: str, aliases: tuple[str, ...] = ()) -> Format:
    """Return the two's complement integer of `bits` bits."""
    if not 2 <= bits <= 32:
        raise InputError(f"{name}: integers have 2 to 32 bits, not {bits}")
    half = 1 << (bits - 1)
    return Format(
        name=name, kind="integer", bits=bits, exp_bits=0, man_bits=bits - 1, emin=bits - 1, top=half - 1, bottom=half,
        specials="", nan_to="zero", source=source, aliases=aliases,
    )  # fmt: skip


# --- From a TOML file to formats ---------------------------------------------------------------------------

KEYS: Mapping[str, Mapping[str, type]] = {
    "float": {"exp_bits": int, "man_bits": int, "specials": str},
    "integer": {"bits": list},
}
COMMON: Mapping[str, type] = {"name": str, "kind": str, "source": str}
OPTIONAL: Mapping[str, type] = {"aliases": list}


def load_formats(path: Path) -> list[Format]:
    """Read the formats of one TOML file; raise `InputError` naming the file, the entry and the key that is wrong."""
    try:
        data = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror})") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: not valid TOML: {error}") from None
    entries = data.pop("format", None)
    if data or not isinstance(entries, list):
        stray = f"unknown key {next(iter(data))!r}" if data else "no [[format]] entry"
        raise InputError(f"{path}: {stray}; a format file holds [[format]] entries only")
    return [fmt for number, entry in enumerate(entries, 1) for fmt in _entry(path, number, entry)]


def _entry(path: Path, number: int, entry: Any) -> Iterator[Format]:
    where = f"{path}: format {number}"
    if not isinstance(entry, dict):
        raise InputError(f"{where} is not a table of keys; write [[format]] above its keys")
    if isinstance(entry.get("name"), str):
        where += f" ({entry['name']})"
    kind = entry.get("kind")
    if not isinstance(kind, str) or kind not in KEYS:
        raise InputError(f"{where}: kind is {kind!r}; it must be {enumerate_names(map(repr, KEYS))}")
    needed = {**COMMON, **KEYS[kind]}
    for key, value in entry.items():
        expected = needed.get(key) or OPTIONAL.get(key)
        if expected is None:
            raise InputError(f"{where}: unknown key {key!r}; did you mean {nearest(key, {**needed, **OPTIONAL})}?")
        if type(value) is not expected:
            raise InputError(f"{where}: {key} = {value!r} must be of type {expected.__name__}")
    for key in needed:
        if key not in entry:
            raise InputError(f"{where}: key {key!r} is missing")
    for key, item in (("bits", int), ("aliases", str)):
        if not all(type(value) is item for value in entry.get(key, ())):
            raise InputError(f"{where}: {key} = {entry[key]!r} must be a list of {item.__name__}")
    name, aliases = entry["name"], tuple(entry.get("aliases", ()))
    try:
        if kind == "float":
            yield float_format(name, entry["exp_bits"], entry["man_bits"], entry["specials"], entry["source"], aliases)
        else:
            for bits in entry["bits"]:
                named, *others = (text.replace("{bits}", str(bits)) for text in (name, *aliases))
                yield integer_format(named, bits, entry["source"], tuple(others))
    except InputError as error:
        raise InputError(f"{where}: {error}") from None


@functools.cache
def catalogue() -> Mapping[str, Format]:
    """Return the formats of the `formats/` folder by name, in file order; refuse a name or alias used twice."""
    return _collect(sorted(folder("formats").glob("*.toml")))


def _collect(paths: list[Path]) -> dict[str, Format]:
    formats: dict[str, Format] = {}
    owner: dict[str, Path] = {}
    for path in paths:
        for fmt in load_formats(path):
            for name in (fmt.name, *fmt.aliases):
                if name in owner:
                    raise InputError(f"{path}: the name {name!r} is already taken by an entry of {owner[name]}")
                owner[name] = path
            formats[fmt.name] = fmt
    return formats


@functools.cache
def _aliases() -> Mapping[str, Format]:
    return {alias: fmt for fmt in catalogue().values() for alias in fmt.aliases}


# --- From a spelling to a format ---------------------------------------------------------------------------

PARAMETRIC = re.compile(
    r"(?:float(?P<bits>\d{1,3})_)?e(?P<exp>\d{1,3})m(?P<man>\d{1,3})(?P<suffix>fnuz|fn|f|)", re.ASCII
)


def get_format(name: str | Format) -> Format:
    """Return the format called `name`: a catalogue name or alias, or a parametric spelling such as `e4m2fn`.

    eXmY is sign + X exponent bits + Y mantissa bits, with LLVM's suffix letters: none for IEEE-like specials,
    `fn` (no infinity, all-ones NaN), `fnuz` (and unsigned zero), `f` (finite only).
    Raise `InputError` for any other spelling, with the nearest ones that exist.
    """
    if isinstance(name, Format):
        return name
    if not isinstance(name, str):
        raise InputError(f"a format is named by a string or is a qsim.Format, not {type(name).__name__}")
    known = catalogue().get(name) or _aliases().get(name)
    if known:
        return known
    return _parametric(name)


@functools.lru_cache(maxsize=1024)
def _parametric(name: str) -> Format:
    match = PARAMETRIC.fullmatch(name)
    if not match:
        raise InputError(f"no format is called {name!r}; did you mean {nearest(name, {**catalogue(), **_aliases()})}?")
    exp_bits, man_bits = int(match["exp"]), int(match["man"])
    if match["bits"] and int(match["bits"]) != 1 + exp_bits + man_bits:
        raise InputError(
            f"no format is called {name!r}: sign + {exp_bits} + {man_bits} bits are {1 + exp_bits + man_bits}, "
            f"which is spelled float{1 + exp_bits + man_bits}_e{exp_bits}m{man_bits}{match['suffix']}"
        )
    specials = SUFFIX[match["suffix"]]
    for fmt in catalogue().values():  # float8_e4m3fn and e4m3fn are one format, under its catalogue name
        if fmt.kind == "float" and (fmt.exp_bits, fmt.man_bits, fmt.specials) == (exp_bits, man_bits, specials):
            return fmt
    short = f"e{exp_bits}m{man_bits}{match['suffix']}"
    if short in _aliases():  # float8_e4m3 is IEEE-like, while e4m3 is OCP's
        short = f"float{1 + exp_bits + man_bits}_{short}"
    return float_format(short, exp_bits, man_bits, specials, f"parametric: sign, {exp_bits} exponent and {man_bits} "
                        f"mantissa bits; {SPECIALS[specials]}")  # fmt: skip
