"""Malformed files and options: always exit code 2 with one sentence, never a traceback, a hang or a part of a file.

`nasty.json` is the corpus: each entry has a command line and the files that it names, as text, as base64, or, for a study, as
what is replaced by what in the file of the main study. An input that once made a command fail goes there.
"""

from __future__ import annotations

import base64
import contextlib
import io
import json
import re
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from qsim.cli import main
from qsim.errors import InputError
from qsim.folders import folder
from qsim.studies import check, find
from qsim.studies.result import Claim, Result, Table
from qsim.verdicts import Outcome

CORPUS = json.loads(Path(__file__).with_name("nasty.json").read_text(encoding="utf-8"))
STUDY = (folder("reports") / "variance-vs-batch" / "study.toml").read_text(encoding="utf-8")
SECONDS = 30


@contextlib.contextmanager
def no_hang() -> Iterator[None]:
    """Raise `TimeoutError` if the body takes longer than any refusal may."""

    def end(*_: object) -> None:
        raise TimeoutError(f"still at it after {SECONDS} seconds")

    before = signal.signal(signal.SIGALRM, end)
    signal.alarm(SECONDS)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def content(told: str | dict[str, str]) -> bytes:
    """Return the bytes of a file of the corpus."""
    return told.encode() if isinstance(told, str) else base64.b64decode(told["base64"])


def outcome(argv: list[str], here: Path, capsys: pytest.CaptureFixture[str]) -> int:
    """Run a command line in the folder `here`; if it is refused, see that it is in a sentence and that no file came of it."""
    before = {path: path.read_bytes() for path in here.rglob("*") if path.is_file()}
    with no_hang():
        code = main(argv)
    out, err = capsys.readouterr()
    assert code in (0, 1, 2)
    if code == 2:
        assert re.fullmatch(r"qsim: [^\n\r]+\n", err), err
        assert "Traceback" not in err
        assert out == ""
        assert {path: path.read_bytes() for path in here.rglob("*") if path.is_file()} == before
    return code


def test_the_corpus_is_large_and_its_entries_are_told_apart() -> None:
    """At least 200 nasty inputs are kept, of studies, formats, arrays, words, options and results."""
    names = [entry["what"] for entry in CORPUS]
    assert len(set(names)) == len(names) >= 200
    kinds = {name.partition(":")[0] for name in names}
    assert kinds == {"study", "format", "array", "text", "words", "option", "result"}


@pytest.mark.parametrize("entry", CORPUS, ids=lambda entry: re.sub(r"[^ -~]|[\[\]]", "?", entry["what"])[:60])
def test_nasty_inputs_are_refused_in_a_sentence(
    entry: dict[str, Any], here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Each entry of the corpus exits 2 with one sentence, and leaves nothing behind."""
    for name, told in entry.get("files", {}).items():
        Path(name).write_bytes(content(told))
    if "study" in entry:
        old, new = entry["study"]
        assert old in STUDY
        Path("s.toml").write_text(STUDY.replace(old, new), encoding="utf-8")
    assert outcome(entry["argv"], here, capsys) == 2


# --- Fuzz ------------------------------------------------------------------------------------------------------------

EDIT = st.tuples(
    st.integers(0, 1 << 20),
    st.integers(0, 40),
    st.binary(max_size=8)
    | st.sampled_from(
        [b"[", b"]", b"{", b'"', b"'", b"=", b"\n", b"nan", b"-1", b"1e999", b"[[", b"\0", b"\xff", b"#"]
    ),
)
"""Where an edit is, how many bytes it takes away, and what it puts there."""


def edited(data: bytes, edits: list[tuple[int, int, bytes]]) -> bytes:
    """Return `data` after some edits."""
    for at, gone, new in edits:
        place = at % (len(data) + 1)
        data = data[:place] + new + data[place + gone :]
    return data


def saved(array: Any) -> bytes:
    """Return the bytes of a .npy."""
    file = io.BytesIO()
    np.save(file, array)
    return file.getvalue()


TABLE = b'[[format]]\nname = "x"\nkind = "table"\nvalues = [-1.5, 0.0, 0.25, 1e3]\ncodes = [3, 0, 1, 2]\nsource = "s"\n'
RESULT = Result(
    study="s", title="t", question="q", answer="a", lead="", run="full", command="c", setup=(("a", "b"),),
    claims=(Claim(id="c", statement="s", margin="m", theorem="t", expected=Outcome.HELD, outcome=Outcome.HELD, covered="c",
                  evidence="e"),),
    figures=(), tables=(Table(id="t", title="t", columns=("c",), rows=((1.5,), (None,))),), method=("m",),
    cells=({"n": 1, "x.y": 0.5},),
).to_json().encode()  # fmt: skip

INTO = ["-f", "e4m3", "-o", "y.npy"]
TARGETS: dict[str, tuple[str, bytes, list[str]]] = {
    "array": ("f.npy", saved(np.linspace(-3, 3, 12, dtype=np.float32).reshape(3, 4)), ["quantize", "f.npy", *INTO]),
    "text": ("f.csv", b"1,2.5\n-0x1.8p3,nan\n", ["quantize", "f.csv", *INTO]),
    "words": ("r.txt", b"1\n0xff\n", ["quantize", "f.txt", "-f", "e4m3:SRA(8)", "--rbits", "r.txt", "-o", "y.npy"]),
    "format": ("f.toml", TABLE, ["show", "f.toml#x"]),
    "result": ("r.json", RESULT, ["report", "--diff", "r.json", "r.json"]),
}  # fmt: skip


@pytest.mark.parametrize("target", TARGETS)
@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(edits=st.lists(EDIT, min_size=1, max_size=4))
def test_an_edited_file_is_read_or_refused_in_a_sentence(
    target: str, edits: list[tuple[int, int, bytes]], here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Whatever bytes of a good file are changed, it is read as another good one or refused in a sentence."""
    name, data, argv = TARGETS[target]
    Path("f.txt").write_text("1\n2\n")
    Path("y.npy").unlink(missing_ok=True)
    Path(name).write_bytes(edited(data, edits))
    assert outcome(argv, here, capsys) in (0, 1, 2)


BEGIN, END = STUDY.index("[[arm]]"), STUDY.index("[[fault]]")
SMALL = STUDY[: STUDY.index("[[arm]]", BEGIN + 1)] + STUDY[END:]
"""The study with one arm, which is planned in a moment."""


@settings(max_examples=150)
@given(edits=st.lists(EDIT, min_size=1, max_size=4))
def test_an_edited_study_is_planned_or_refused_in_a_sentence(
    edits: list[tuple[int, int, bytes]], tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Whatever bytes of a study file are changed, it is planned or refused with the file and the line."""
    path = tmp_path_factory.mktemp("study") / "s.toml"
    path.write_bytes(edited(SMALL.encode(), edits))
    told = ""
    with no_hang():
        try:
            check(find(str(path)))
        except InputError as error:
            told = str(error)
    if told:
        assert told.startswith(str(path))
        assert "\n" not in told
        assert re.search(r"line \d+", told) or "not valid TOML" in told or "too deeply" in told
