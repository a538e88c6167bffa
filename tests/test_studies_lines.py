"""On which line a key of a study file stands, and that every refusal says it."""

from __future__ import annotations

import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qsim.folders import folder
from qsim.studies.lines import Place, lines_of

NASTY = '''a.b = 1
"x # y".'z = 1' = """
 # no comment
 k = 2 \\""""
c = [ # of several lines
 1, {d = 2, e.f = [3]},
 "]",
 ]
[t . u]
v = '#'
[[arr.one]]
[arr.one.sub]
k = 1979-05-27 07:32:00
[[arr.one]]
"\\u0061" = """a"""""
'''


def paths(value: Any, keys: tuple[str | int, ...] = ()) -> Iterator[tuple[str | int, ...]]:
    """Yield the keys that lead to every table, value and entry."""
    if keys:
        yield keys
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, part in items:
        yield from paths(part, (*keys, key))


def test_all_kinds_of_toml_have_their_lines() -> None:
    """Dotted and quoted keys, texts of several lines, lists, inline tables and arrays of tables are found where they are."""
    lines = lines_of(NASTY)
    assert set(lines) == set(paths(tomllib.loads(NASTY)))
    found = {keys: lines[keys] for keys in [("a", "b"), ("x # y", "z = 1"), ("c",), ("c", 1, "e", "f", 0), ("c", 2)]}
    assert list(found.values()) == [1, 2, 5, 6, 7]
    assert [lines["t", "u", "v"], lines["arr", "one", 0], lines["arr", "one", 0, "sub", "k"]] == [10, 11, 13]
    assert [lines["arr", "one", 1], lines["arr", "one", 1, "a"]] == [14, 15]


@pytest.mark.parametrize(
    "path",
    [*sorted(folder("formats").glob("*.toml")), *folder("reports").glob("*/study.toml")],
    ids=lambda p: f"{p.parent.name}-{p.name}",
)
def test_the_files_of_the_project_have_their_lines(path: Path) -> None:
    """Of every key of every bundled file the line is known, and the key stands on it."""
    text = path.read_text(encoding="utf-8")
    lines = lines_of(text)
    assert set(lines) == set(paths(tomllib.loads(text)))
    written = text.split("\n")
    assert not [(keys, n) for keys, n in lines.items() if isinstance(keys[-1], str) and keys[-1] not in written[n - 1]]


VALUES = st.recursive(
    st.integers(-9, 9).map(str) | st.sampled_from(["true", "1e3", '"#]}"', "'[{,'", '"""\n]"""', "1979-05-27"]),
    lambda inner: (
        st.lists(inner, max_size=3).map(lambda parts: f"[ # }}\n{', '.join(parts)} ]")
        | st.lists(inner, max_size=3).map(
            lambda parts: "{" + ", ".join(f"k{i} = {part}" for i, part in enumerate(parts)) + "}"
        )
    ),
    max_leaves=8,
)


@given(st.lists(VALUES, max_size=4), st.lists(VALUES, max_size=4))
def test_any_values_are_passed_over_as_tomllib_reads_them(top: list[str], below: list[str]) -> None:
    """Whatever is nested in what, the keys found are those that tomllib finds."""
    pairs = [f"v{i} = {value}" for i, value in enumerate(top)]
    text = "\n".join([*pairs, "[[t]]", *(f"v{i} = {value}" for i, value in enumerate(below))])
    try:
        wanted = tomllib.loads(text)
    except tomllib.TOMLDecodeError:
        return  # an inline table of several lines, which TOML 1.0 has not
    assert set(lines_of(text)) == set(paths(wanted))


def test_what_is_missing_is_refused_at_the_table_it_is_missed_in() -> None:
    """A key that is not there is told on the line of the nearest table that is."""
    place = Place(Path("s.toml"), lines_of("x = 1\n[model]\n"), label="")
    assert str(place.at("model", label="[model]").refuse("no", "seed")) == "s.toml, line 2: [model]: no"
    assert str(place.refuse("no", "title")) == "s.toml, line 1: no"
