"""What a format is: its values, codes and ordinals, and the files and spellings it comes from."""

from __future__ import annotations

import dataclasses
import functools
import math
import pickle
import re
from fractions import Fraction
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from strategies import CATALOGUE, PARAMETRIC, formats

from qsim.errors import InputError
from qsim.formats import SUFFIX, Format, _collect, catalogue, get_format, integer_format, load_formats

TABLES = [fmt for fmt in CATALOGUE if fmt.bits <= 16]
NARROW = [fmt for fmt in PARAMETRIC if fmt.bits <= 10]

GROUPS = {"named": TABLES, "parametric": NARROW}

by_name = pytest.mark.parametrize("fmt", TABLES, ids=str)


def same(a: np.ndarray, b: np.ndarray) -> bool:
    """Return whether two tables agree value by value, zeros in their sign too."""
    nan = np.isnan(a) & np.isnan(b)
    return bool(np.all(nan | ((a == b) & (np.signbit(a) == np.signbit(b)))))


@functools.cache
def finite(fmt: Format) -> np.ndarray:
    """Return the finite values of `fmt` in ascending order, zero once."""
    table = fmt.values()
    return np.unique(table[np.isfinite(table)])


# --- Values and codes ------------------------------------------------------------------------------------------------

PEERS = {
    "bfloat16": "bfloat16",
    "float16": "float16",
    "float8_e3m4": "float8_e3m4",
    "float8_e4m3": "float8_e4m3",
    "float8_e4m3fn": "float8_e4m3fn",
    "float8_e4m3fnuz": "float8_e4m3fnuz",
    "float8_e5m2": "float8_e5m2",
    "float8_e5m2fnuz": "float8_e5m2fnuz",
    "float6_e2m3fn": "float6_e2m3fn",
    "float6_e3m2fn": "float6_e3m2fn",
    "float4_e2m1fn": "float4_e2m1fn",
    "e2m3f": "float6_e2m3fn",
    "e3m2f": "float6_e3m2fn",
    "e2m1f": "float4_e2m1fn",
    "int2": "int2",
    "int4": "int4",
    "int8": "int8",
    "int16": "int16",
}
"""Our spelling, and the type of ml_dtypes or NumPy. (float8_e4m3b11fnuz has a bias of its own: no spelling here.)"""


@pytest.mark.parametrize(("ours", "theirs"), PEERS.items())
def test_tables_of_ml_dtypes(ours: str, theirs: str) -> None:
    """Every code has the value it has in ml_dtypes or NumPy; LLVM's names mean what LLVM means by them."""
    fmt = get_format(ours)
    dtype = np.dtype(getattr(ml_dtypes, theirs, None) or theirs)
    codes = np.arange(1 << fmt.bits, dtype=f"u{dtype.itemsize}")
    table = codes.view(dtype)
    if fmt.kind == "integer" and fmt.bits < 8:  # the spare bits of the byte repeat the sign
        table = (codes.astype(np.int8) << (8 - fmt.bits) >> (8 - fmt.bits)).view(dtype)
    with np.errstate(invalid="ignore"):  # signalling NaNs are codes as well
        assert same(fmt.values(), table.astype(np.float64))


def textbook(fmt: Format, code: int) -> float:
    """Return the value of `code` by the formula of the standards, (-1)^s 2^(E - bias) (1 + F / 2^m)."""
    sign = -1.0 if code >> (fmt.bits - 1) else 1.0
    exponent = code >> fmt.man_bits & ((1 << fmt.exp_bits) - 1)
    fraction = code & ((1 << fmt.man_bits) - 1)
    ones = exponent == (1 << fmt.exp_bits) - 1
    bias = 2 ** (fmt.exp_bits - 1) - (fmt.specials != "fnuz")
    match fmt.specials:
        case "ieee" if ones:
            return math.nan if fraction else sign * math.inf
        case "fn" if ones and fraction == (1 << fmt.man_bits) - 1:
            return math.nan
        case "fnuz" if code == 1 << (fmt.bits - 1):
            return math.nan
    whole = 1 if exponent else 0
    return sign * math.ldexp(whole + fraction / 2**fmt.man_bits, (exponent or 1) - bias)


@pytest.mark.parametrize("letters", SUFFIX)
def test_tables_of_the_textbook(letters: str) -> None:
    """Every code of every parametric format of up to 10 bits has the value that the standards' formula gives it."""
    chosen = [fmt for fmt in NARROW if fmt.specials == SUFFIX[letters]]
    assert len(chosen) > 20
    for fmt in chosen:
        expected = np.array([textbook(fmt, code) for code in range(1 << fmt.bits)])
        assert same(fmt.values(), expected), fmt


@by_name
def test_code_and_ordinal_round_trip(fmt: Format) -> None:
    """From a code to its value, to the value's ordinal and back to the code, nothing is lost, for every code."""
    for code, value in enumerate(fmt.values().tolist()):
        if math.isfinite(value):
            ordinal = fmt.ordinal(value)
            assert fmt.code(ordinal, negative_zero=math.copysign(1, value) < 0) == code
            assert fmt.decode(code) == value == fmt.value(ordinal)


@pytest.mark.parametrize("group", GROUPS.values(), ids=GROUPS)
def test_ordinals_are_the_order(group: list[Format]) -> None:
    """The finite values in ascending order are those of the ordinals -bottom .. top in ascending order."""
    for fmt in group:
        numbered = [float(fmt.value(ordinal)) for ordinal in range(-fmt.bottom, fmt.top + 1)]
        assert numbered == finite(fmt).tolist(), fmt


@pytest.mark.parametrize("group", GROUPS.values(), ids=GROUPS)
def test_landmarks(group: list[Format]) -> None:
    """Largest, smallest and smallest positive values, eps and the special codes are those of the table of values."""
    for fmt in group:
        table, grid = fmt.values(), finite(fmt)
        assert (fmt.min, fmt.max) == (grid[0], grid[-1])
        assert fmt.smallest_subnormal == grid[grid > 0][0]
        if fmt.max > 1:
            assert fmt.eps == grid[grid > 1][0] - (1 if 1 in grid else 0)
        assert fmt.emax == math.floor(math.log2(fmt.max))
        if fmt.kind == "float":  # the normal numbers start where the even part of the grid, from zero on, has 2^m steps
            assert fmt.smallest_normal == fmt.smallest_subnormal * 2**fmt.man_bits
        assert fmt.has_nan == bool(np.isnan(table).any()) == (fmt.nan_code is not None)
        assert fmt.has_inf == bool(np.isinf(table).any()) == (fmt.inf_code is not None)
        assert fmt.has_neg_zero == bool(((table == 0) & np.signbit(table)).any())
        assert fmt.nan_code is None or math.isnan(table[fmt.nan_code])
        assert fmt.inf_code is None or table[fmt.inf_code] == math.inf


@given(st.data())
def test_neighbours_by_search(data: st.DataObject) -> None:
    """The neighbours of a number are the ones that a search of the sorted values finds, itself where it is one."""
    fmt = data.draw(st.sampled_from([*TABLES, *NARROW]))
    x = data.draw(st.floats(fmt.min, fmt.max))
    grid = finite(fmt)
    lower, upper = fmt.neighbours(x)
    assert lower == grid[np.searchsorted(grid, x, "right") - 1]
    assert upper == grid[np.searchsorted(grid, x, "left")]


@given(st.data())
def test_floor_ordinal_is_exact(data: st.DataObject) -> None:
    """The lower ordinal and the rest give back the magnitude exactly, also above the largest value."""
    fmt = data.draw(formats())
    x = Fraction(data.draw(st.floats(0, min(fmt.max, 2.0**1000) * 4)))
    ordinal, rest = fmt.floor_ordinal(x)
    assert 0 <= rest < 1
    lower, upper = fmt.value(ordinal), fmt.value(ordinal + 1)
    assert x == lower + rest * (upper - lower)


def test_what_has_no_place_is_refused() -> None:
    """NaN, infinities, numbers off the grid or beyond the range, and codes that are too large are refused by name."""
    fmt = get_format("e4m3")
    for value in (math.nan, math.inf, -math.inf, 0.1, 480.0, -480.0, Fraction(1, 3), Fraction(10) ** 400):
        with pytest.raises(InputError, match="float8_e4m3fn"):
            fmt.ordinal(value)
    for value in (math.nan, math.inf, -math.inf, 448.5, -448.5, Fraction(10) ** 400):
        with pytest.raises(InputError, match="range"):
            fmt.neighbours(value)
    for code in (-1, 256):
        with pytest.raises(InputError, match=r"0 \.\. 255"):
            fmt.decode(code)
    with pytest.raises(InputError, match="16 bits"):
        get_format("tf32").values()


# --- Objects ---------------------------------------------------------------------------------------------------------


@by_name
def test_formats_are_values(fmt: Format) -> None:
    """A format cannot be changed, is equal to its pickled copy, and keys a dictionary."""
    with pytest.raises(dataclasses.FrozenInstanceError):
        fmt.bits = 3  # type: ignore[misc]
    copy = pickle.loads(pickle.dumps(fmt))  # noqa: S301 - made a moment ago
    assert copy == fmt
    assert {fmt: 1}[copy] == 1
    assert str(fmt) == fmt.name


def test_tables_cannot_be_changed() -> None:
    """The shared table of values is read-only."""
    with pytest.raises(ValueError, match="read-only"):
        get_format("e4m3").values()[0] = 1


# --- Spellings -------------------------------------------------------------------------------------------------------


def test_a_name_means_its_format() -> None:
    """The name and the aliases of a format, and the format itself, are spellings of it and of no other."""
    for fmt in (*CATALOGUE, *PARAMETRIC):
        for name in (fmt.name, *fmt.aliases, fmt):
            assert get_format(name) == fmt
        assert fmt.source


@pytest.mark.parametrize(
    ("spelling", "name"),
    [
        ("e8m23", "float32"), ("e11m52", "float64"), ("float16_e5m10", "float16"), ("e8m7", "bfloat16"),
        ("float19_e8m10", "tf32"), ("e4m3fn", "float8_e4m3fn"), ("e4m3", "float8_e4m3fn"), ("e5m2", "float8_e5m2"),
        ("e2m3", "float6_e2m3fn"), ("e3m2", "float6_e3m2fn"), ("e2m1", "float4_e2m1fn"), ("e2m1f", "float4_e2m1fn"),
        ("e2m1fn", "float4_e2m1fn"), ("float8_e4m3fnuz", "e4m3fnuz"), ("float7_e4m2fn", "e4m2fn"),
    ],
)  # fmt: skip
def test_spellings_of_one_format(spelling: str, name: str) -> None:
    """A parametric spelling of a named format is that format, and OCP's short names are OCP's formats."""
    assert get_format(spelling).name == name


def test_ieee_like_namesakes_of_ocp() -> None:
    """float8_e4m3 is LLVM's IEEE-like format, not OCP's e4m3, and says so in its name."""
    fmt = get_format("float8_e4m3")
    assert fmt.specials == "ieee"
    assert fmt.name == "float8_e4m3" != get_format("e4m3").name


@pytest.mark.parametrize(
    ("spelling", "fragment"),
    [
        ("e4m0", "e4m0fn, e4m0fnuz or e4m0f can exist"),
        ("e1m3", "e1m3fn, e1m3fnuz or e1m3f can exist"),
        ("e1m0", "e1m0fnuz or e1m0f can exist"),
        ("e1m0fn", "e1m0fnuz or e1m0f can exist"),
        ("e11m3fn", "e11m3 can exist"),
        ("e11m52fnuz", "e11m52 can exist"),
        ("e11m0", "IEEE-like"),
        ("e0m3fn", "1 to 11 exponent bits"),
        ("e12m3fn", "1 to 11 exponent bits"),
        ("e8m53", "0 to 52 mantissa bits"),
        ("float9_e4m3fn", "spelled float8_e4m3fn"),
        ("E4M3", "e4m3"),
        ("bfloat", "bfloat16"),
        ("e4m3fnu", "e4m3fn"),
        ("e" + 5000 * "9" + "m1", "did you mean"),
        ("e٤m3fn", "did you mean"),
        ("", "did you mean"),
    ],
)
def test_spellings_that_cannot_exist(spelling: str, fragment: str) -> None:
    """A spelling without a format is refused with ones that have one."""
    with pytest.raises(InputError, match=re.escape(fragment)) as caught:
        get_format(spelling)
    for suggested in re.findall(r"\be\d+m\d+[fnuz]*\b", fragment):
        assert get_format(suggested)
    assert repr(spelling)[1:-1] in str(caught.value)


def test_only_names_are_names() -> None:
    """What is neither a string nor a format is refused."""
    with pytest.raises(InputError, match="not int"):
        get_format(8)  # type: ignore[arg-type]


@pytest.mark.parametrize("bits", [1, 33])
def test_integers_have_bounds(bits: int) -> None:
    """Integers of fewer than 2 or more than 32 bits are refused."""
    with pytest.raises(InputError, match="2 to 32 bits"):
        integer_format(f"int{bits}", bits, "a test")


# --- Files -----------------------------------------------------------------------------------------------------------

GOOD = {"name": '"a"', "kind": '"float"', "exp_bits": "4", "man_bits": "3", "specials": '"fn"', "source": '"a test"'}
WIDTHS = {"name": '"i{bits}"', "kind": '"integer"', "bits": "[3, 5]", "source": '"a test"'}


def entry(fields: dict[str, str], **changes: str | None) -> str:
    """Return an entry of a format file: `fields` with `changes`, `None` for one that is left out."""
    lines = [f"{key} = {value}" for key, value in {**fields, **changes}.items() if value is not None]
    return "\n".join(["[[format]]", *lines, ""])


def write(path: Path, text: str) -> Path:
    """Write `text` to `path` and return the path."""
    path.write_text(text, encoding="utf-8")
    return path


def test_a_file_of_formats(tmp_path: Path) -> None:
    """A file gives its formats in order: one a float entry, one a width of an integer entry, with their aliases."""
    text = entry(GOOD, aliases='["b", "c"]') + entry(WIDTHS, aliases='["j{bits}"]')
    found = load_formats(write(tmp_path / "f.toml", text))
    assert [(fmt.name, fmt.aliases, fmt.bits) for fmt in found] == [
        ("a", ("b", "c"), 8), ("i3", ("j3",), 3), ("i5", ("j5",), 5),
    ]  # fmt: skip
    assert found[0] == dataclasses.replace(get_format("e4m3"), name="a")


BAD = {
    "unknown key": (entry(GOOD, man_bit="3"), ["format 1 (a)", "'man_bit'", "man_bits"]),
    "key of another kind": (entry(GOOD, bits="[3]"), ["format 1 (a)", "'bits'"]),
    "missing kind": (entry(GOOD, kind=None), ["format 1 (a)", "kind", "'float' or 'integer'"]),
    "unknown kind": (entry(GOOD, kind='"flout"'), ["kind", "'flout'", "'float' or 'integer'"]),
    "kind of wrong type": (entry(GOOD, kind='["float"]'), ["kind", "['float']"]),
    "missing name": (entry(GOOD, name=None), ["format 1", "'name'", "missing"]),
    "name of wrong type": (entry(GOOD, name="3"), ["format 1", "name = 3", "str"]),
    "missing source": (entry(GOOD, source=None), ["format 1 (a)", "'source'", "missing"]),
    "missing width": (entry(GOOD, exp_bits=None), ["'exp_bits'", "missing"]),
    "width as a string": (entry(GOOD, exp_bits='"4"'), ["exp_bits", "'4'", "int"]),
    "width as a truth": (entry(GOOD, exp_bits="true"), ["exp_bits", "True", "int"]),
    "width as a float": (entry(GOOD, man_bits="3.0"), ["man_bits", "3.0", "int"]),
    "second entry": (entry(GOOD) + entry(GOOD, name='"z"', man_bits=None), ["format 2 (z)", "'man_bits'"]),
    "unknown specials": (entry(GOOD, specials='"fnux"'), ["format 1 (a)", "'fnux'", "fnuz"]),
    "specials without room": (entry(GOOD, specials='"ieee"', man_bits="0"), ["format 1 (a)", "e4m0fn"]),
    "too wide": (entry(GOOD, exp_bits="12"), ["format 1 (a)", "12"]),
    "alias of wrong type": (entry(GOOD, aliases="[1]"), ["format 1 (a)", "aliases", "[1]"]),
    "aliases of wrong type": (entry(GOOD, aliases='"b"'), ["format 1 (a)", "aliases", "'b'"]),
    "integer of wrong width": (entry(WIDTHS, bits="[3, 33]"), ["i33", "2 to 32"]),
    "integer without widths": (entry(WIDTHS, bits=None), ["'bits'", "missing"]),
    "integer with one width": (entry(WIDTHS, bits="3"), ["bits = 3", "list"]),
    "width that is no integer": (entry(WIDTHS, bits="[3, true]"), ["bits = [3, True]", "list"]),
    "integer with mantissa": (entry(WIDTHS, man_bits="3"), ["'man_bits'"]),
    "stray top-level key": ("format_version = 2\n" + entry(GOOD), ["'format_version'"]),
    "no entry": ("", ["no [[format]] entry"]),
    "entry that is no table": ("format = [3]", ["format 1", "[[format]]"]),
    "one table": ("[format]\nname = 'a'", ["[[format]]"]),
    "broken TOML": ("[[format]\n", ["not valid TOML", "line 1"]),
}


@pytest.mark.parametrize(("text", "fragments"), BAD.values(), ids=BAD)
def test_wrong_entries_are_refused(text: str, fragments: list[str], tmp_path: Path) -> None:
    """A wrong entry is refused in one line that names the file, the entry, the key and the value."""
    path = write(tmp_path / "bad.toml", text)
    with pytest.raises(InputError) as caught:
        load_formats(path)
    message = str(caught.value)
    assert message.startswith(f"{path}: ")
    assert "\n" not in message
    for fragment in fragments:
        assert fragment in message


def test_braces_in_a_name(tmp_path: Path) -> None:
    """In an integer's name only {bits} stands for something; other braces are letters like others."""
    found = load_formats(write(tmp_path / "f.toml", entry(WIDTHS, name='"{i{x}{bits}"')))
    assert [fmt.name for fmt in found] == ["{i{x}3", "{i{x}5"]


def test_unreadable_files_are_refused(tmp_path: Path) -> None:
    """A file that is not there, is a folder, or is not UTF-8 is refused by its name."""
    (tmp_path / "folder.toml").mkdir()
    (tmp_path / "latin.toml").write_bytes(b"# caf\xe9\n")
    for name, problem in (("none", "No such file"), ("folder", "directory"), ("latin", "not valid TOML")):
        with pytest.raises(InputError, match=f"{name}.toml: .*{problem}"):
            load_formats(tmp_path / f"{name}.toml")


@pytest.mark.parametrize("one", [entry(GOOD), entry(GOOD, name='"b"', aliases='["a"]')], ids=["name", "alias"])
@pytest.mark.parametrize("two", [entry(GOOD), entry(GOOD, name='"c"', aliases='["a"]')], ids=["name", "alias"])
def test_names_are_taken_once(one: str, two: str, tmp_path: Path) -> None:
    """A name or alias that another file has, as either, is refused with both files."""
    first, other = write(tmp_path / "1.toml", one), write(tmp_path / "2.toml", two)
    with pytest.raises(InputError) as caught:
        _collect([first, other])
    assert str(caught.value) == f"{other}: the name 'a' is already taken by an entry of {first}"


def test_names_are_taken_once_in_a_file(tmp_path: Path) -> None:
    """A name that the same file has already is refused, also when a width repeats."""
    with pytest.raises(InputError, match="'i3' is already taken"):
        _collect([write(tmp_path / "f.toml", entry(WIDTHS, bits="[3, 3]"))])


def test_the_catalogue_is_complete() -> None:
    """The formats of the standards that the other floors speak of by name are there."""
    assert {"float64", "float32", "float16", "bfloat16", "tf32", "float8_e4m3fn", "float8_e5m2", "int8"} <= set(
        catalogue()
    )
