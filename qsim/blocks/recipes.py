"""Recipes: the order of operations in which one package computes the scales and codes of a block format, as data."""

from __future__ import annotations

import functools
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal, get_args

from qsim.blocks.formats import BlockFormat, find_block_format, get_block_format
from qsim.blocks.program import Program, parse
from qsim.blocks.scales import parse_rule
from qsim.errors import InputError, enumerate_names, nearest, shown
from qsim.files import read_toml
from qsim.folders import folder
from qsim.rounding import parse_mode
from qsim.underflow import gradual_underflow

__all__ = ["Recipe", "get_recipe", "load_recipes", "recipe_of", "recipes"]

Zero = Literal["signed", "positive", "inexact", "negative"]
"""The code of a zero result, of a number v that is rounded: with the sign of v; always +0; -0 for v < 0, not for -0; -0 for
v <= 0, both zeros among them."""

Choice = Literal["", "mse", "mae", "max"]

STATUSES: Mapping[str, str] = {
    "tested": "a test holds the recipe to the package, where that is installed",
    "run": "the recipe was held to the package once: five sets of 131,072 blocks each, no scale and no code differed",
    "read": "from the package's source; it was not run",
    "defined": "qsim's own, or a text's, definition",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """Describe how the scales and codes of a block format are computed: every operation, its precision and its order.

    `steps` are lines of `qsim.blocks.program` that make T (the tensor's scale, where there is one), s (the block's) and v (what
    is rounded to the element's format by `mode`); `decode` may make y, the value of an element q; else y is q s T, rounded
    once. With several `tops` each block is rounded once for each value onto which its maximum may be mapped, and the one with
    the least error by `choose` is taken, the first of equal ones.
    """

    name: str
    format: BlockFormat
    steps: tuple[str, ...]
    source: str
    status: str
    mode: str = "RNE"
    zero: Zero = "signed"
    decode: tuple[str, ...] = ()
    #: What makes y where errors are compared, of q, s, T and A; () for that of decoding.
    error: tuple[str, ...] = ()
    tops: tuple[float, ...] = ()
    choose: Choice = ""
    #: What becomes of a block with a NaN or an infinity, in words.
    nonfinite: str = "what the steps make of it"
    revision: str = ""
    #: The type of the input that the recipe is for, "" for any.
    input: str = ""
    #: Whether the maximum of a block has the sign of its element.
    signed_maximum: bool = False

    @property
    def program(self) -> Program:
        """The steps, parsed."""
        return parse(self.steps, self.name)

    @property
    def decoding(self) -> Program | None:
        """The steps of decoding, parsed; `None` where y is q s T, rounded once."""
        return parse(self.decode, self.name, frozenset({"q", "s", "T"})) if self.decode else None

    @property
    def erring(self) -> Program | None:
        """The steps of the error, parsed; `None` where they are those of decoding."""
        return parse(self.error, self.name, frozenset({"q", "s", "T"})) if self.error else self.decoding

    def __str__(self) -> str:
        return self.name


TEXTS = ("name", "format", "source", "status", "mode", "zero", "choose", "nonfinite", "revision", "input")
LISTS = ("steps", "decode", "error")
NEEDED = ("name", "format", "steps")


@gradual_underflow
def load_recipes(path: Path) -> list[Recipe]:
    """Read the [[recipe]] entries of a TOML file; raise `InputError` naming the file, the entry and the key that is wrong.

    `source`, `status` and `revision` above the entries hold for each.
    """
    data = read_toml(path)
    entries = data.pop("recipe", None)
    if not isinstance(entries, list) or not entries:
        raise InputError(f"{path}: no [[recipe]] entry")
    for key, value in data.items():
        if key not in ("source", "status", "revision") or not isinstance(value, str):
            raise InputError(f"{path}: unknown key {key!r}; above the entries stand texts source, status and revision")
    return [_entry(f"{path}: recipe {number}", {**data, **entry}) for number, entry in enumerate(entries, 1)]


def _entry(where: str, entry: dict[str, Any]) -> Recipe:
    known = {**dict.fromkeys(TEXTS, str), **dict.fromkeys(LISTS, list), "tops": list, "signed_maximum": bool}
    if isinstance(entry.get("name"), str):
        where += f" ({entry['name']})"
    for key, value in entry.items():
        if key not in known:
            raise InputError(f"{where}: unknown key {shown(key)}; did you mean {nearest(key, known)}?")
        if type(value) is not known[key]:
            raise InputError(f"{where}: {key} = {shown(value)} must be of type {known[key].__name__}")
    for key in (*NEEDED, "source", "status"):
        if not entry.get(key):
            raise InputError(f"{where}: key {key!r} is missing")
    if not re.fullmatch(r"[\w.-]+/[\w.-]+", entry["name"]):
        raise InputError(f"{where}: name must be FORMAT/PACKAGE-VERSION, of letters, digits, '.', '-' and '_'")
    if entry["status"] not in STATUSES:
        raise InputError(f"{where}: status is {entry['status']!r}; it is {enumerate_names(STATUSES)}")
    for word, words in (("zero", get_args(Zero)), ("choose", get_args(Choice))):
        if entry.get(word, words[0]) not in words:
            raise InputError(f"{where}: {word} is {shown(entry[word])}; it is {enumerate_names(map(repr, words))}")
    fields = dict(entry)
    try:
        fmt = get_block_format(fields["format"])
        parse_mode(fields.get("mode", "RNE"), fmt.element)
    except InputError as error:
        raise InputError(f"{where}: {error}") from None
    fields["format"] = fmt
    for several in (*LISTS, "tops"):
        fields[several] = tuple(fields.get(several, ()))
    recipe = Recipe(**fields)
    program = parse(recipe.steps, where)
    for name in ("s", "v", *(("T",) if fmt.tensor_scale else ())):
        if not program.has(name):
            raise InputError(f"{where}: no step makes {name}")
    for part, lines in (("decode", recipe.decode), ("error", recipe.error)):
        if lines and not parse(lines, where, frozenset({"q", "s", "T"})).has("y"):
            raise InputError(f"{where}: no step of {part} makes y")
    if bool(recipe.choose) != (len(recipe.tops) > 1):
        raise InputError(f"{where}: a choice needs several tops, and several tops a choice")
    return recipe


@functools.cache
def recipes() -> Mapping[str, Recipe]:
    """Return the recipes of `models/recipes/` by name, in the order of the files."""
    found: dict[str, Recipe] = {}
    for path in sorted((folder("models") / "recipes").glob("*.toml")):
        for recipe in load_recipes(path):
            if recipe.name in found:
                raise InputError(f"{path}: the name {recipe.name!r} is taken")
            found[recipe.name] = recipe
    return MappingProxyType(found)


def get_recipe(name: str | Recipe | BlockFormat, scale_rule: str | None = None) -> Recipe:
    """Return the recipe called `name`, or the one of a block format by its scale rule.

    A recipe of a file of your own is "FILE.toml#NAME". Raise `InputError` for any other name, with the nearest that exist, and
    for a scale rule that the format does not take.
    """
    if isinstance(name, Recipe):
        found: Recipe | None = name
    elif isinstance(name, str) and name in recipes():
        found = recipes()[name]
    else:
        found = None
    if found is not None:
        if scale_rule is not None:
            raise InputError(f"scale_rule = {scale_rule!r} with the recipe {found}, which has its own; drop it")
        return found
    fmt = find_block_format(name)
    if fmt is None and isinstance(name, str) and ".toml" in name:
        file, _, entry = name.partition("#")
        if "[[recipe]]" in Path(file).read_text(encoding="utf-8"):
            own = {recipe.name: recipe for recipe in load_recipes(Path(file))}
            if entry in own:
                return own[entry]
            raise InputError(f"{file} has no recipe called {entry!r}; it has {', '.join(own)}")
        fmt = get_block_format(name)
    if fmt is None:
        raise InputError(f"no recipe is called {shown(name)}; did you mean {nearest(str(name), recipes())}?")
    return recipe_of(fmt, scale_rule)


@functools.lru_cache(maxsize=512)
def recipe_of(fmt: BlockFormat, scale_rule: str | None = None) -> Recipe:
    """Return the recipe of a block format: that of its entry, or for a scale rule the definition of the rule.

    The definition: T = fl(A / (M S)), a float32, with S the largest scale, and 1 where that is no positive number; s by the
    rule from fl(m / T), v = fl(fl(x / T) / s). A block with a NaN or an infinity has the scale NaN.
    """
    if scale_rule is None and fmt.recipe:
        return get_recipe(fmt.recipe)
    rule = parse_rule(scale_rule, fmt)
    if fmt.tensor_scale:
        most = fmt.largest * fmt.scale.value(fmt.scale.top)
        steps: tuple[str, ...] = (
            f"t = float32(A / {float(most)!r})",
            "u = t if t > 0 else 1",
            "T = u if u - u == 0 else 1",
            f's = scale(m / T, "{rule}")',
            "v = (x / T) / s if s > 0 else x * 0",
        )
    elif fmt.scale.has_zero:
        steps = (f's = scale(m, "{rule}")', "v = x / s if s > 0 else x * 0")
    else:
        steps = (f's = scale(m, "{rule}")', "v = x / s")
    return Recipe(
        name=f"{fmt.name}/{rule}", format=fmt, steps=steps, source=fmt.source, status="defined",
        nonfinite="the scale of the block is NaN" if fmt.nonfinite == "nan" else "it does not count for the maximum",
    )  # fmt: skip
