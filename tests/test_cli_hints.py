"""The hints of the command line: which word is proposed, where else something is, and in whose words."""

from __future__ import annotations

import pytest
from command import refused

import qsim
from qsim.cli import COMMANDS, OTHERS, main
from qsim.errors import close_names
from qsim.rounding import SPELLINGS, parse_mode


@pytest.mark.parametrize("mode", SPELLINGS)
@pytest.mark.parametrize("turn", [str.lower, str.upper, str.swapcase])
def test_upper_and_lower_case_are_one(mode: str, turn: object) -> None:
    """A mode that differs in case alone is that mode."""
    assert parse_mode(turn(mode)) is SPELLINGS[mode]  # type: ignore[operator]


def test_close_names() -> None:
    """Twins come first, all of them, then longer words, then words that look alike; nothing that is like none."""
    assert close_names("E4M2", ["e4m2", "E4m2", "e5m2", "e4m2fn"]) == ["E4m2", "e4m2", "e4m2fn"]
    assert close_names("near", ["NearestTiesToEven", "bear", "other"]) == ["NearestTiesToEven", "bear"]
    assert close_names("zzz", ["show", "plot"]) == close_names("", ["show"]) == []


@pytest.mark.parametrize(
    ("line", "sentence"),
    [
        ("show int99", "no format is called 'int99'; integers are int2 to int32"),
        ("show INT1", "integers are int2 to int32"),
        ("show uint0", "integers are uint1 to uint32"),
        ("show posit8_0", "did you mean posit8?"),
        ("show Q3.", "fixed point is spelled Qm.n or UQm.n"),
        ("show UQ4", "fixed point is spelled Qm.n or UQm.n"),
        ("show mxfp4", "its elements are e2m1, its scales e8m0"),
        ("show MXFP8_e4m3", "its elements are e4m3 or e5m2, its scales e8m0"),
        ("show nvfp4", "its elements are e2m1, its scales e4m3"),
        ("formats e4m3", "`qsim show e4m3` shows one"),
        ("Show e4m3", "did you mean show?"),
        ("help nosuch", "no command is called 'nosuch'; `qsim help` lists the commands"),
        ("prove nosuch", "no theorem is called 'nosuch'; `qsim prove --list` names them"),
        ("prove AT1", "did you mean at1_weight_gradient_variance?"),
        ("report --diff a", "--diff needs 2 values: --diff A B; `qsim report --help` shows how it is used"),
        ("plot e4m3 -o x.svg --range a b", "--range takes a number, not 'a'"),
        ("plot e4m3 -o", "--output needs a value: --output FILE"),
        ("prove --jobs x", "--jobs takes an integer, not 'x'"),
        ("quantize x.npy -f e4m3 -o y.npy --seed z", "--seed takes an integer, decimal or 0x hexadecimal, not 'z'"),
        ("quantize x.npy -f e4m3 -o y.npy --dtype int8", "--dtype is float16, float32 or float64, not 'int8'"),
        ("report --json --quiet", "--quiet and --json exclude each other"),
        ("show e4m3 --json=3", "--json takes no value, not '3'"),
        ("quantize", "missing: IN, -f/--format, -o/--output; "),
        ("show e4m3 --JSON", "did you mean --json?"),
    ],
)
def test_sentences(line: str, sentence: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Each of these says what is right, in our words."""
    assert sentence in refused(capsys, *line.split())


@pytest.mark.parametrize("word", OTHERS)
def test_words_that_are_no_command(word: str, capsys: pytest.CaptureFixture[str]) -> None:
    """A word for something that is elsewhere is answered with the place, and what the answer names is there."""
    hint = refused(capsys, word).partition("; ")[2]
    for name in hint.replace("(", " ").replace("`", " ").split():
        if name.startswith("qsim."):
            found = qsim
            for part in name.split(".")[1:]:
                found = getattr(found, part)
    assert any(command in hint for command in COMMANDS) or "in Python" in hint


def test_help_and_version(capsys: pytest.CaptureFixture[str]) -> None:
    """`qsim help [COMMAND]` and `qsim version` are what --help and --version are."""
    for words, options in (
        (("help",), ("--help",)),
        (("help", "show"), ("show", "--help")),
        (("version",), ("--version",)),
    ):
        said = []
        for line in (words, options):
            with pytest.raises(SystemExit) as caught:
                main(line)
            assert caught.value.code == 0
            said.append(capsys.readouterr())
        assert said[0] == said[1]
