"""Formats of files: entries and their keys, formats by path, and what is refused by file, entry and key."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path

import numpy as np
import pytest
from strategies import P3109

from qsim import encode, quantize
from qsim.errors import InputError
from qsim.formats import Format, Table, get_format, load_formats
from qsim.formats.catalogue import _collect
from qsim.rounding import Quantizer

# --- Files -----------------------------------------------------------------------------------------------------------

GOOD = {"name": '"a"', "kind": '"float"', "exp_bits": "4", "man_bits": "3", "specials": '"fn"', "source": '"a test"'}
WIDTHS = {"name": '"i{bits}"', "kind": '"integer"', "bits": "[3, 5]", "source": '"a test"'}
TABLE = {"name": '"t"', "kind": '"table"', "values": "[-1, 0.5, 2]", "zero_to": '"min"', "source": '"a test"'}
FAMILY = {"name": '"p"', "kind": '"p3109"', "bits": "[3]", "source": '"a test"'}


def entry(fields: dict[str, str], **changes: str | None) -> str:
    """Return an entry of a format file: `fields` with `changes`, `None` for one that is left out."""
    lines = [f"{key} = {value}" for key, value in {**fields, **changes}.items() if value is not None]
    return "\n".join(["[[format]]", *lines, ""])


def write(path: Path, text: str) -> Path:
    """Write `text` to `path` and return the path."""
    path.write_text(text, encoding="utf-8")
    return path


def read(path: Path, text: str) -> Format:
    """Return the one format of a file with `text`."""
    (fmt,) = load_formats(write(path, text))
    return fmt


def test_a_file_of_formats(tmp_path: Path) -> None:
    """A file gives its formats in order: one a float entry, one a width of an integer entry, with their aliases."""
    text = entry(GOOD, aliases='["b", "c"]') + entry(WIDTHS, aliases='["j{bits}"]') + entry(TABLE, aliases='["u"]')
    found = load_formats(write(tmp_path / "f.toml", text))
    assert [(fmt.name, fmt.aliases, fmt.bits) for fmt in found] == [
        ("a", ("b", "c"), 8), ("i3", ("j3",), 3), ("i5", ("j5",), 5), ("t", ("u",), 2),
    ]  # fmt: skip
    assert found[0] == dataclasses.replace(get_format("e4m3"), name="a")


@pytest.mark.parametrize(
    ("text", "same_as"),
    [
        (entry(GOOD, bias="11", specials='"fnuz"'), "float8_e4m3b11fnuz"),
        (entry(GOOD, signed="false"), "float7_e4m3fnu"),
        (entry(GOOD, exp_bits="8", man_bits="0", signed="false", zero="false", zero_to='"min"'), "float8_e8m0fnu"),
        (entry(GOOD, exp_bits="6", man_bits="9", subnormals='"normal"'), "dlfloat16"),
        (entry(GOOD, specials='"f"', subnormals='"half"'), "cfloat8_1_4_3_half"),
        (entry(GOOD, specials='"f"', subnormals='"gradual"', signed="true", zero="true", bias="11"), "e4m3b11f"),
        (entry(WIDTHS, bits="[8]", name='"a"'), "int8"),
        (entry(WIDTHS, bits="[8]", name='"a"', symmetric="true"), "int8sym"),
        (entry(WIDTHS, bits="[8]", name='"a"', signed="false"), "uint8"),
        (entry(WIDTHS, bits="[8]", name='"a"', frac_bits="4"), "Q3.4"),
        (entry(WIDTHS, bits="[8]", name='"a"', frac_bits="8", signed="false"), "UQ0.8"),
        (entry(TABLE, name='"a"', values="[-1, 1]", nan_to='"max"', zero_to='"max"', bits="1"), "binary"),
    ],
)
def test_entries_say_what_the_catalogue_says(text: str, same_as: str, tmp_path: Path) -> None:
    """Each key means in a user's file what it means in the catalogue and in a spelling."""
    fmt = read(tmp_path / "f.toml", text)
    assert dataclasses.replace(fmt, name=same_as, family="") == dataclasses.replace(get_format(same_as), family="")


def test_tables_in_files(tmp_path: Path) -> None:
    """Values may be integers, floats, NaN or C99's hexadecimal strings; codes, width and where the line goes on as said."""
    text = entry(
        TABLE, values='["-0x1.8p-1", 0, 3.5, nan, "0x1p-1074"]', codes="[9, 8, 0, 1, 2]", bits="5", above="7",
        below='"-0x1p+3"', nan_to='"zero"', zero_to=None,
    )  # fmt: skip
    fmt = read(tmp_path / "f.toml", text)
    assert isinstance(fmt, Table)
    assert fmt.points == (-0.75, 0.0, 5e-324, 3.5)
    assert (fmt.codes, fmt.nan_code, fmt.bits) == ((9, 8, 2, 0), 1, 5)
    assert (fmt.above, fmt.below, fmt.nan_to) == (7.0, -8.0, "zero")


def test_families_in_files(tmp_path: Path) -> None:
    """A p3109 entry stands for all the formats of its widths, whose names are the standard's."""
    found = load_formats(write(tmp_path / "f.toml", entry(FAMILY, bits="[3, 4]")))
    assert [fmt.name for fmt in found] == [fmt.name for fmt in P3109 if fmt.bits in (3, 4)]
    assert found == [dataclasses.replace(fmt, family="p") for fmt in P3109 if fmt.bits in (3, 4)]
    assert {fmt.family for fmt in found} == {"p"}


def variant(**changes: str | None) -> str:
    """Return the text of a [[variant]] entry, with keys changed or left out."""
    return entry(VARIANT, **changes).replace("[[format]]", "[[variant]]")


VARIANT = {"of": '["a"]', "name": '"chip"', "source": '"a test"'}

BAD = {
    "unknown key": (entry(GOOD, man_bit="3"), ["format 1 (a)", "'man_bit'", "man_bits"]),
    "key of another kind": (entry(GOOD, bits="[3]"), ["format 1 (a)", "'bits'"]),
    "missing kind": (
        entry(GOOD, kind=None),
        ["format 1 (a)", "kind", "'float', 'integer', 'p3109', 'posit' or 'table'"],
    ),
    "unknown kind": (
        entry(GOOD, kind='"flout"'),
        ["kind", "'flout'", "'float', 'integer', 'p3109', 'posit' or 'table'"],
    ),
    "kind of wrong type": (entry(GOOD, kind='["float"]'), ["kind", "['float']"]),
    "missing name": (entry(GOOD, name=None), ["format 1", "'name'", "missing"]),
    "empty name": (entry(GOOD, name='""'), ["format 1", "name is empty"]),
    "name of wrong type": (entry(GOOD, name="3"), ["format 1", "name = 3", "str"]),
    "missing source": (entry(GOOD, source=None), ["format 1 (a)", "'source'", "missing"]),
    "missing width": (entry(GOOD, exp_bits=None), ["'exp_bits'", "missing"]),
    "width as a string": (entry(GOOD, exp_bits='"4"'), ["exp_bits", "'4'", "int"]),
    "width as a truth": (entry(GOOD, exp_bits="true"), ["exp_bits", "True", "int"]),
    "width as a float": (entry(GOOD, man_bits="3.0"), ["man_bits", "3.0", "int"]),
    "second entry": (entry(GOOD) + entry(GOOD, name='"z"', man_bits=None), ["format 2 (z)", "'man_bits'"]),
    "unknown specials": (entry(GOOD, specials='"fnux"'), ["format 1 (a)", "'fnux'", "fnuz"]),
    "specials without room": (entry(GOOD, specials='"ieee"', man_bits="0"), ["format 1 (a)", "e4m0fn"]),
    "too wide": (entry(GOOD, exp_bits="17"), ["format 1 (a)", "17"]),
    "alias of wrong type": (entry(GOOD, aliases="[1]"), ["format 1 (a)", "aliases = 1", "str"]),
    "aliases of wrong type": (entry(GOOD, aliases='"b"'), ["format 1 (a)", "aliases", "'b'"]),
    "bias of wrong type": (entry(GOOD, bias="7.0"), ["format 1 (a)", "bias = 7.0", "int"]),
    "bias beyond floats": (entry(GOOD, bias="99999"), ["format 1 (a)", "bias 99999"]),
    "sign as a number": (entry(GOOD, signed="1"), ["format 1 (a)", "signed = 1", "bool"]),
    "zero as a word": (entry(GOOD, zero='"no"'), ["format 1 (a)", "zero = 'no'", "bool"]),
    "no zero, with a sign": (entry(GOOD, zero="false"), ["format 1 (a)", "can do without a zero"]),
    "unknown subnormals": (entry(GOOD, subnormals='"none"'), ["'none'", "gradual, normal or half"]),
    "subnormals as a truth": (entry(GOOD, subnormals="false"), ["subnormals = False", "str"]),
    "unsigned FNUZ": (entry(GOOD, signed="false", specials='"fnuz"'), ["no code of -0"]),
    "symmetric float": (entry(GOOD, symmetric="true"), ["unknown key 'symmetric'"]),
    "integer of wrong width": (entry(WIDTHS, bits="[3, 33]"), ["i33", "2 to 32"]),
    "integer without widths": (entry(WIDTHS, bits=None), ["'bits'", "missing"]),
    "integer with one width": (entry(WIDTHS, bits="3"), ["bits = 3", "list"]),
    "integer with no width": (entry(WIDTHS, bits="[]"), ["bits = []", "list", "not empty"]),
    "width that is no integer": (entry(WIDTHS, bits="[3, true]"), ["bits = ", "True", "int"]),
    "integer with mantissa": (entry(WIDTHS, man_bits="3"), ["'man_bits'"]),
    "unsigned and symmetric": (
        entry(WIDTHS, symmetric="true", signed="false"),
        ["unsigned integer cannot be symmetric"],
    ),
    "symmetric as a word": (entry(WIDTHS, symmetric='"yes"'), ["symmetric = 'yes'", "bool"]),
    "half a fraction bit": (entry(WIDTHS, frac_bits="0.5"), ["frac_bits = 0.5", "int"]),
    "fraction beyond floats": (entry(WIDTHS, frac_bits="2000"), ["2000 fraction bits"]),
    "integer with a NaN": (entry(WIDTHS, nan_to='"nan"'), ["nan_to = 'nan'", "'max', 'min', 'zero' or 'error'"]),
    "signed, negatives elsewhere": (entry(WIDTHS, negative_to='"min"'), ["negative_to = 'min'", "left out"]),
    "zero elsewhere": (entry(WIDTHS, zero_to='"min"'), ["zero_to = 'min'", "left out"]),
    "unsigned, negatives NaN": (entry(WIDTHS, signed="false", negative_to='"nan"'), ["negative_to = 'nan'", "'min'"]),
    "unknown nan_to": (
        entry(GOOD, nan_to='"inf"'),
        ["nan_to = 'inf'", "'nan', 'max', 'min', 'zero', 'neg_zero', 'opposite_zero' or 'error'"],
    ),
    "nan_to of wrong type": (entry(GOOD, nan_to="0"), ["nan_to = 0", "str"]),
    "nan_to a missing zero": (
        entry(TABLE, nan_to='"zero"'),
        ["format 1 (t)", "nan_to = 'zero'", "'max', 'min' or 'error'"],
    ),
    "two signs, no zero": (
        entry(TABLE, zero_to=None),
        ["format 1 (t)", "zero_to says which it becomes, 'min' (-1.0) or 'max' (2.0)"],
    ),
    "zero_to without NaN": (entry(TABLE, zero_to='"nan"'), ["format 1 (t)", "zero_to = 'nan'", "'min' or 'max'"]),
    "table without values": (entry(TABLE, values=None), ["format 1 (t)", "'values'", "missing"]),
    "table of nothing": (entry(TABLE, values="[]"), ["values = []", "not empty"]),
    "table that is no list": (entry(TABLE, values='"nf4"'), ["values = 'nf4'", "list"]),
    "value that is no number": (entry(TABLE, values='[0, "one"]'), ["values", "'one'", "no number that a float64"]),
    "value that is a truth": (entry(TABLE, values="[0, true]"), ["values", "True", "float"]),
    "decimal in a string": (entry(TABLE, values='[0, "10"]'), ["values", "'10'", "no number"]),
    "integer beyond floats": (
        entry(TABLE, values="[0, 9007199254740993]"),
        ["9007199254740993", "no number that a float64"],
    ),
    "string beyond floats": (entry(TABLE, values='[0, "0x1p+1024"]'), ["'0x1p+1024'", "no number that a float64"]),
    "string of too many digits": (
        entry(TABLE, values='[0, "0x1.00000000000001p0"]'),
        ["'0x1.00000000000001p0'", "float64"],
    ),
    "infinite value": (entry(TABLE, values="[0, inf]"), ["format 1 (t)", "finite values"]),
    "value twice": (entry(TABLE, values="[0, 1, 1.0]"), ["format 1 (t)", "all different"]),
    "too few codes": (entry(TABLE, codes="[0, 1]"), ["format 1 (t)", "3 values need as many codes"]),
    "codes as floats": (entry(TABLE, codes="[0, 1, 2.0]"), ["codes = 2.0", "int"]),
    "codes beyond the width": (entry(TABLE, codes="[0, 1, 4]", bits="2"), ["codes of 2 bits are 0 .. 3"]),
    "width as a list": (entry(TABLE, bits="[2]"), ["bits = [2]", "int"]),
    "above within": (entry(TABLE, above="1.5"), ["format 1 (t)", "above and below", "1.5"]),
    "below within": (entry(TABLE, below="-1"), ["format 1 (t)", "above and below", "-1.0"]),
    "table with a sign": (entry(TABLE, signed="true"), ["unknown key 'signed'"]),
    "family with a bias": (entry(FAMILY, bias="3"), ["format 1 (p)", "unknown key 'bias'"]),
    "family beyond the standard": (entry(FAMILY, bits="[3, 17]"), ["format 1 (p)", "'Binary17p1se'", "K is 3 to 16"]),
    "stray top-level key": ("format_version = 2\n" + entry(GOOD), ["'format_version'"]),
    "no entry": ("", ["no [[format]] and no [[variant]] entry"]),
    "zero_to NaN, which is none": (
        entry(GOOD, man_bits="0", signed="false", zero="false", zero_to='"nan"', nan_to='"max"'),
        ["format 1 (a)", "zero_to = 'nan' with nan_to = 'max'; 0 can"],
    ),
    "rows of different length": (
        entry(GOOD, elsewhere='[["a", "b"], ["c"]]'),
        ["format 1 (a)", "elsewhere has rows of 1 or 2 cells"],
    ),
    "unknown revision": (entry(FAMILY, revision='"4"'), ["format 1 (p)", "revision '4'", "p3109-2026-07 or p3109-4.0"]),
    "variant without a name": (entry(GOOD) + variant(name=None), ["variant 1", "'name'", "missing"]),
    "variant of nothing": (entry(GOOD) + variant(of="[]"), ["variant 1", "of = []", "not empty"]),
    "variant of one": (entry(GOOD) + variant(of='"a"'), ["variant 1", "of = 'a'", "list"]),
    "variant with a space": (entry(GOOD) + variant(name='"my chip"'), ["variant 1", "'my chip'", "letters, digits"]),
    "variant of other values": (entry(GOOD) + variant(exp_bits="3"), ["variant 1", "unknown key 'exp_bits'"]),
    "variant that is no table": (
        entry(GOOD).replace("[[format]]", "variant = [3]\n[[format]]"),
        ["variant 1", "[[variant]]"],
    ),
    "entry that is no table": ("format = [3]", ["format 1", "[[format]]"]),
    "one table": ("[format]\nname = 'a'", ["[[format]]"]),
    "too many digits": (entry(GOOD, bias="9" * 5001), ["more than 4300 digits"]),
    "too many hexadecimal digits": (entry(GOOD, bias="0x" + "f" * 5001), ["more than 4300 digits"]),
    "too many brackets": (entry(GOOD, aliases="[" * 3000), ["nested too deeply"]),
    "too many tables": (entry({"kind." + "a." * 5000 + "a": "1"}), []),  # how deep is too deep is Python's
    "broken TOML": ("[[format]\n", ["not valid TOML", "line 1"]),
    "400 digits": (entry(GOOD, bias="9" * 400), ["bias 99999999999999999999... (400 digits) is beyond"]),
    "400 digits of a value": (entry(TABLE, values=f"[{'9' * 400}]"), ["values has ~1.000e+400, which is no number"]),
    "a list where a text is": (
        entry(GOOD, specials=f"[{'1, ' * 5000}]"),
        ["specials = [1, 1, 1, 1, 1, 1, ...] must be"],
    ),
    "a long key": (entry(GOOD, **{"k" * 5000: "1"}), ["unknown key 'kkkkk", "did you mean"]),
    "a long name": (entry(GOOD, name=f'"{"n" * 101}"'), ["name = 'nnnnn", "must be at most 100 printable characters"]),
    "a name of two lines": (entry(GOOD, name=r'"a\nb"'), [r"name = 'a\nb' must be at most 100 printable"]),
    "a key of many parts": ("x." * 300 + "y = 1\n", ["line 1 has a key of more than 200 parts"]),
    "a key of many parts within": (
        "a = [{b = 1, " + "x." * 300 + "y = 1}]\n",
        ["line 1 has a key of more than 200 parts"],
    ),
    "a key of many parts with blanks": ("x . " * 3000 + "y = 1\n", ["line 1 has a key of more than 2000 parts"]),
    "a quoted key of many parts": ("\n" + '"x".' * 300 + "y = 1\n", ["line 2 has a key of more than 200 parts"]),
    "too many values": (
        entry(TABLE, values=f"[{'1, ' * 70_000}]"),
        ["values has 70000 entries, and a format has at most 65536"],
    ),
    "too many widths": (entry(WIDTHS, bits=f"[{'8, ' * 99}]"), ["bits has 99 widths; there are 32"]),
    "too many bytes": ("# " + "x" * (3 << 20), ["has more than 3 MiB; divide it into several files"]),
}


@pytest.mark.parametrize(("text", "fragments"), BAD.values(), ids=BAD)
def test_wrong_entries_are_refused(text: str, fragments: list[str], tmp_path: Path) -> None:
    """A wrong entry is refused in one line that names the file, the entry, the key and the value."""
    path = write(tmp_path / "bad.toml", text)
    for ask in (lambda: load_formats(path), lambda: get_format(f"{path}#a")):
        with pytest.raises(InputError) as caught:
            ask()
        message = str(caught.value)
        assert message.startswith(f"{path}: ")
        assert len(message) < 500 + len(str(path))
        assert "\n" not in message
        for fragment in fragments:
            assert fragment in message


def test_every_key_is_refused_by_type(tmp_path: Path) -> None:
    """Every key of every kind refuses a value of another type, by its name."""
    keys = {
        "float": (
            GOOD,
            ["name", "source", "exp_bits", "man_bits", "specials", "aliases", "bias", "signed", "zero", "subnormals"],
        ),
        "integer": (WIDTHS, ["name", "source", "bits", "aliases", "signed", "symmetric", "frac_bits"]),
        "table": (TABLE, ["name", "source", "values", "aliases", "bits", "codes", "above", "below"]),
        "p3109": (FAMILY, ["name", "source", "bits"]),
    }
    for kind, (fields, names) in keys.items():
        for name in (*names, *(("nan_to", "negative_to", "zero_to") if kind != "p3109" else ())):
            text = entry(fields, **{name: "1979-05-27"})  # a date is of no key's type
            with pytest.raises(InputError, match=rf"f.toml: format 1.*{name} = datetime.date"):
                load_formats(write(tmp_path / "f.toml", text))


def test_braces_in_a_name(tmp_path: Path) -> None:
    """In an integer's name only {bits} stands for something; other braces are letters like others."""
    found = load_formats(write(tmp_path / "f.toml", entry(WIDTHS, name='"{i{x}{bits}"')))
    assert [fmt.name for fmt in found] == ["{i{x}3", "{i{x}5"]


def test_unreadable_files_are_refused(tmp_path: Path) -> None:
    """A file that is not there, is a folder, or is not UTF-8 is refused by its name."""
    (tmp_path / "folder.toml").mkdir()
    (tmp_path / "latin.toml").write_bytes(b"# caf\xe9\n")
    for name, problem in (("none", "No such file"), ("folder", "directory"), ("latin", "not valid TOML")):
        for ask in (load_formats, lambda path: get_format(str(path)), lambda path: get_format(f"{path}#a")):
            with pytest.raises(InputError, match=f"{name}.toml: .*{problem}"):
                ask(tmp_path / f"{name}.toml")
    for name in ("a\0b", "a\ud800b"):
        with pytest.raises(InputError, match=r"^'a\\(x00|ud800)b.toml' cannot be the name of a file"):
            get_format(f"{name}.toml")


def test_a_byte_order_mark_is_passed_over(tmp_path: Path) -> None:
    """A file that an editor saved as UTF-8 with a byte order mark is read like one without."""
    assert read(tmp_path / "f.toml", "\ufeff" + entry(GOOD)) == read(tmp_path / "f.toml", entry(GOOD))


@pytest.mark.parametrize("one", [entry(GOOD), entry(GOOD, name='"b"', aliases='["a"]')], ids=["name", "alias"])
@pytest.mark.parametrize("two", [entry(GOOD), entry(GOOD, name='"c"', aliases='["a"]')], ids=["name", "alias"])
def test_names_are_taken_once(one: str, two: str, tmp_path: Path) -> None:
    """A name or alias that another file has, as either, is refused with both files."""
    first, other = write(tmp_path / "1.toml", one), write(tmp_path / "2.toml", two)
    with pytest.raises(InputError) as caught:
        _collect([first, other])
    assert str(caught.value) == f"{other}: the name 'a' is already taken by an entry of {first}"


def test_names_are_taken_once_in_a_file(tmp_path: Path) -> None:
    """A name that the same file has already is refused, also when a width repeats, and when the file is a user's own."""
    path = write(tmp_path / "f.toml", entry(WIDTHS, bits="[3, 3]"))
    for ask in (lambda: _collect([path]), lambda: get_format(f"{path}#i3")):
        with pytest.raises(InputError, match="'i3' is already taken"):
            ask()


# --- Formats by path -------------------------------------------------------------------------------------------------


@pytest.fixture
def own(tmp_path: Path) -> Path:
    """Return a file with a float, two integers and a table."""
    return write(tmp_path / "own.toml", entry(GOOD, aliases='["alias"]') + entry(WIDTHS) + entry(TABLE))


def test_formats_by_path(own: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """FILE.toml#NAME is an entry of a user's file, by a full or a relative path, wherever a format is named."""
    assert get_format(f"{own}#a") == dataclasses.replace(get_format("e4m3"), name="a")
    assert get_format(f"{own}#alias") == get_format(f"{own}#a")
    assert get_format(f"{own}#i5").bits == 5
    assert get_format(f"{own}#t").max == 2.0
    monkeypatch.chdir(own.parent)
    assert get_format("own.toml#t") == get_format("./own.toml#t") == get_format(f"{own}#t")
    x = np.array([0.4, 1.3, -2.0])
    assert quantize(x, "own.toml#t").tolist() == quantize(x, "own.toml#t:RNE").tolist() == [0.5, 2.0, -1.0]
    assert encode(x, f"{own}#t").tolist() == [1, 2, 0]
    assert Quantizer("own.toml#a", "SR").format.name == "a"


def test_the_only_format_of_a_file(tmp_path: Path) -> None:
    """FILE.toml is the file's only format; of several none is it, and some are named."""
    path = write(tmp_path / "one.toml", entry(TABLE))
    assert get_format(f"{path}").name == get_format(f"{path}#").name == "t"
    write(path, entry(TABLE, name='"other"'))
    assert get_format(f"{path}").name == "other", "a file that changed is read again"
    write(path, entry(TABLE) + entry(WIDTHS))
    with pytest.raises(InputError, match=re.escape(f"{path}: has 3 formats; name one, such as {path}#t, ")):
        get_format(f"{path}")


def test_missing_entries_are_refused(own: Path) -> None:
    """A name that the file has not is refused with names that it has."""
    with pytest.raises(InputError) as caught:
        get_format(f"{own}#i")
    message = str(caught.value)
    assert message.startswith(f"{own}: has no format called 'i'; name one, such as {own}#i3, {own}#i5")
    assert "\n" not in message
    with pytest.raises(InputError, match="has no format called 'float8_e4m3fn'"):  # the catalogue is not in the file
        get_format(f"{own}#float8_e4m3fn")


@pytest.mark.parametrize(
    ("tail", "mode", "argument"),
    [
        ("", "RNE", None),
        (":SR", "SR", None),
        (":SRA(8)", "SRA", 8),
        (":Threshold(0.25)", "THR", 0.25),
        (":RTN", "RNE", None),
    ],
)
def test_quantizers_by_path(tail: str, mode: str, argument: float | None, own: Path) -> None:
    """A path with a mode behind it spells a quantizer, also where the path holds colons and brackets of its own."""
    folder = own.parent / "a:b (1) #2"
    folder.mkdir()
    for path in (own, write(folder / "own.toml", own.read_text(encoding="utf-8"))):
        q = Quantizer.parse(f"{path}#a{tail}")
        assert (q.format.name, q.mode.name) == ("a", mode)
        assert argument in (q.sr_bits, q.eps)


def test_paths_with_toml_in_a_folder(own: Path) -> None:
    """A folder may be called like a file of formats."""
    folder = own.parent / "my.toml.d"
    folder.mkdir()
    path = write(folder / "own.toml", own.read_text(encoding="utf-8"))
    assert get_format(f"{path}#a").name == "a"


def test_the_largest_table_of_values_fits_a_file(tmp_path: Path) -> None:
    """A table of 2^16 values with all their digits, and its codes, is read; so is a text of many sentences in one line."""
    values = ", ".join(f'"{(1 + k / 2**52).hex()}"' for k in range(1 << 16))
    codes = ", ".join(map(str, range(1 << 16)))
    path = write(
        tmp_path / "f.toml", entry(TABLE, values=f"[{values}]", codes=f"[{codes}]", source='"' + "Yes. " * 300 + '"')
    )
    assert get_format(f"{path}#t").bits == 16
