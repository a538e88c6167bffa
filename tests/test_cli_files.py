"""The files of `qsim quantize`: how numbers and words are read, which are refused and where, and that OUT is written whole."""

from __future__ import annotations

import io
import json
import math
import os
import random
import re
import stat
import sys
from fractions import Fraction
from pathlib import Path
from typing import Any

import command
import numpy as np
import pytest
from alike import same_bits, same_values
from command import X, process
from command import quantize as run
from command import quantize_refused as refused
from hypothesis import given
from hypothesis import strategies as st

import qsim
from qsim.cli import files, main, quantize
from qsim.errors import InputError

pytestmark = pytest.mark.usefixtures("here")

# --- Text ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("1\n2.5\n-3e-1\n", [1, 2.5, -0.3]),
        ("1 2\n3 4\n", [[1, 2], [3, 4]]),
        ("1,2\r\n3,\t4\r\n", [[1, 2], [3, 4]]),
        ("\n  .5  5.\n\n+1E3,-1e+3\n\n", [[0.5, 5], [1000, -1000]]),
        ("1 2 3", [[1, 2, 3]]),
        ("0x1.8p-3 -0X.8P1 0x1p-1074", [[0.1875, -1, 5e-324]]),
        ("nan -0 inf -Infinity NaN", [[math.nan, -0.0, math.inf, -math.inf, math.nan]]),
        ("\ufeff0.1\n", [0.1]),
        ("1e-400\n0x1p-99999\n", [0, 0]),
        ("", []),
        ("\n\n", []),
    ],
)
def test_reading_text(text: str, expected: list[Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """Decimals and hexadecimal floats, separated by commas or blanks, a row a line; the same from standard input."""
    Path("x.txt").write_text(text, encoding="utf-8", newline="")
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(text.encode())))
    for path in ("x.txt", "-"):
        found = files.read_floats(path)
        assert found.dtype == np.float64
        assert same_values(found, np.array(expected, np.float64))


@given(st.integers(0, 0x7F7FFFFF), st.sampled_from([-1, 0, 1]), st.sampled_from([12, 20, 40]), st.booleans())
def test_float32_is_read_with_one_rounding(code: int, side: int, places: int, negative: bool) -> None:
    """A decimal a hair from halfway between two float32 goes to its side, though the nearest float64 may be halfway."""
    with np.errstate(over="ignore"):
        lower, upper = (float(np.uint32(c).view(np.float32)) for c in (code, code + 1))
    middle = (Fraction(lower) + (Fraction(2**128) if math.isinf(upper) else Fraction(upper))) / 2
    value = middle + side * middle / 10**places
    digits = value * 10**190  # of 150 binary places at most, times 10^40
    assert digits.denominator == 1
    token = f"{'-' * negative}{digits}e-190"
    expected = lower if side < 0 or (side == 0 and code % 2 == 0) else upper
    if math.isinf(expected):
        with pytest.raises(InputError, match="beyond the range of float32"):
            files._float32(token)
    else:
        assert files._float32(token) == (-expected if negative else expected)


def test_a_hexadecimal_float32_is_read_with_one_rounding() -> None:
    """So is a hexadecimal float of more digits than a float64 has."""
    for tail, expected in (("0", 1.0), ("00000000000001", 1 + 2.0**-23)):
        assert files._float32(f"0x1.000001{tail}p0") == expected
    assert files._float32("0." + "0" * 5000 + "1e5001") == 1.0


@pytest.mark.parametrize("carrier", [np.float32, np.float64])
@pytest.mark.parametrize("shape", [(1000,), (250, 4), (1, 1000)])
@pytest.mark.parametrize("suffix", ["txt", "csv"])
def test_text_reads_back_exactly(suffix: str, shape: tuple[int, ...], carrier: type) -> None:
    """Any float written as text is read back with every bit, as float64 and as the type that it was."""
    word = np.uint32 if carrier is np.float32 else np.uint64
    patterns = np.random.default_rng(0).integers(0, np.iinfo(word).max, 1000, dtype=word, endpoint=True)
    x = patterns.view(carrier)
    x[:6] = [np.nan, np.inf, -np.inf, -0.0, np.finfo(carrier).smallest_subnormal, np.finfo(carrier).max]
    x = x.reshape(shape)
    files.write(f"x.{suffix}", x)
    with np.errstate(invalid="ignore"):  # signalling NaNs
        assert same_values(files.read_floats(f"x.{suffix}"), x.astype(np.float64))
    back = files.read_floats(f"x.{suffix}", carrier.__name__)
    assert back.dtype == carrier
    assert same_values(back, x)


def test_from_text_to_text(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """With - for both, numbers go through as through a pipe, and the summary is on stderr."""
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"0.3, 500\nnan, -0\n")))
    assert main(["quantize", "-", "-f", "e4m3", "-o", "-"]) == 0
    out, err = capsys.readouterr()
    assert out == "0.3125 448\nnan -0\n"
    assert "rounding            float8_e4m3fn:RNE, SatFinite\n" in err
    Path("x.csv").write_text("0.3,500\n", encoding="utf-8")
    assert main(["quantize", "x.csv", "-f", "e4m3", "--codes", "--json", "-o", "-"]) == 0
    out, err = capsys.readouterr()
    assert out == "42 126\n"
    assert json.loads(err)["output_dtype"] == "uint8"
    run(capsys, "x.csv", "-f", "e4m3", "-o", "y.csv")
    assert Path("y.csv").read_text(encoding="utf-8") == "0.3125,448\n"


def test_nothing_is_no_error(capsys: pytest.CaptureFixture[str]) -> None:
    """An empty text and an empty array are rounded to such, with whatever scale and words."""
    Path("x.txt").touch()
    np.save("x.npy", np.empty((2, 0, 3), np.float32))
    for path in ("x.txt", "x.npy"):
        out = run(capsys, path, "-f", "e4m3", "-o", "y.npy", "--scale", "absmax", "-r", "SR", "--seed", "0")
        assert " 0 elements" in out
        assert np.load("y.npy").shape == ((2, 0, 3) if path == "x.npy" else (0,))
    run(capsys, "x.txt", "-f", "e4m3", "-o", "y.txt")
    assert Path("y.txt").read_bytes() == b""


@pytest.mark.parametrize(
    ("text", "options", "zeros", "underflowed", "on_grid"),
    [
        ("1e-400\n0\n-1e-400\n5e-324\n", [], 2, 3, 1),
        ("0x1p-2000\n0x0p9\n-0x.0001p-1074\n0x0.0p0\n", [], 2, 2, 2),
        ("0e-999999999 0.000e400 -0 .0 0.\n", [], 0, 0, 5),
        ("1e-999999999\n", [], 1, 1, 0),
        ("1e-46 1e-40 0\n", ["--dtype", "float32"], 1, 2, 1),
        ("1e-46 1e-40 0\n", [], 0, 2, 1),
        ("1e-400, 1, 2\n3, 1e-400, 0\n", ["--scale", "absmax", "--codes"], 2, 2, 2),
        ("1e-400\n1\n", ["-r", "SR", "--seed", "1"], 1, 1, 1),
        ("1e-400\n1\n", ["-r", "RUP"], 1, 1, 1),
    ],
)
def test_a_number_that_is_read_as_zero_is_counted_as_underflow(
    text: str, options: list[str], zeros: int, underflowed: int, on_grid: int,
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    """A text's number below the smallest of its type is no zero that was on the grid; the summary says how many there are."""
    Path("x.txt").write_text(text, encoding="utf-8")
    argv = ["x.txt", "-f", "e4m3", "-o", "y.npy", *options]
    for large in (files.LARGE, 0):  # in one piece, and in pieces of two
        monkeypatch.setattr(files, "LARGE", large)
        monkeypatch.setattr(quantize, "LARGE", large)
        monkeypatch.setattr(files, "PIECE", 2)
        told = json.loads(run(capsys, *argv, "--json"))
        assert told.get("read_as_zero", 0) == zeros
        assert (told["counts"]["underflowed"], told["counts"]["on_grid"]) == (underflowed, on_grid)
        of = "float32" if "float32" in options else "float64"
        line = f"read as zero        {zeros} that are smaller than the numbers of {of}\n"
        assert (line in run(capsys, *argv)) == bool(zeros)


def test_a_format_without_zero_has_no_underflow(capsys: pytest.CaptureFixture[str]) -> None:
    """Where 0 becomes another value, a number that is read as 0 neither underflowed nor was on the grid."""
    Path("x.txt").write_text("1e-400\n1\n", encoding="utf-8")
    told = json.loads(run(capsys, "x.txt", "-f", "e8m0", "-o", "y.npy", "--json"))
    assert (told["counts"]["underflowed"], told["counts"]["on_grid"], told["read_as_zero"]) == (0, 1, 1)


@pytest.mark.parametrize("name", ["-", "x.csv"])
def test_lines_are_left_out(name: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """The first lines of a text, of names and remarks, are left out where that is said; the next keep their numbers."""
    text = "a,b\n\n# units\n1,2\n3,x\n"
    Path("x.csv").write_text(text[:-2] + "4\n", encoding="utf-8")
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(text.replace("x", "4").encode())))
    run(capsys, name, "-f", "e4m3", "--skip", "3", "-o", "y.csv")
    assert Path("y.csv").read_text(encoding="utf-8") == "1,2\n3,4\n"
    Path("x.csv").write_text(text, encoding="utf-8")
    assert "x.csv, line 5: 'x' is not a number" in refused(capsys, "x.csv", "-f", "e4m3", "--skip", "3", "-o", "y.csv")
    assert "x.csv has 5 lines, and --skip 6 leaves none" in refused(
        capsys, "x.csv", "-f", "e4m3", "--skip", "6", "-o", "y.csv"
    )
    np.save("x.npy", np.ones(3))
    assert "leave --skip out" in refused(capsys, "x.npy", "-f", "e4m3", "--skip", "1", "-o", "y.csv")
    for wrong in ("-1", "x"):
        assert "--skip takes a number of lines" in refused(
            capsys, "x.csv", "-f", "e4m3", "--skip", wrong, "-o", "y.csv"
        )


# --- What is refused -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "fragment"),
    [
        ("1\n2\n1.2.3\n", "x.txt, line 3: '1.2.3' is not a number; write decimals, hex"),
        ("1\n\n\n1_000\n", "line 4: '1_000' is not"),
        ("a,b\n1,2\n", "line 1: 'a' is not a number; leave a line of names or a comment out with --skip 1"),
        ('\n"x"\ty\n1,2\n', "line 2: '\"x\"' is not a number; leave a line of names or a comment out with --skip 2"),
        ("_id\n1\n", "line 1: '_id' is not a number; leave a line of names"),
        ("# one\n1\n", "line 1: '#' is not a number; leave a line of names or a comment out"),
        ("a,2\n1,2\n", "line 1: 'a' is not a number; write decimals, hex"),
        ("1,2\na,b\n", "line 2: 'a' is not a number; write decimals, hex"),
        ("1;2\n", "'1;2' is not"),
        ("0x3f800000\n", "hexadecimal floats such as 0x1.8p-3, inf or nan; give --hex if it is the bits of one"),
        ("\u0661\n", "is not a number"),
        ("1,2,\n", "line 1: a number is missing beside a comma"),
        ("1,,2\n", "a number is missing"),
        ("1 2\n3\n", "line 2: a row of 1 numbers, where those above have 2; rows are of one length"),
        ("1\n2 3\n", "line 2: a row of 2 numbers"),
        ("1e400\n", "line 1: '1e400' is beyond the range of float64; write inf"),
        ("-0x1p1024\n", "'-0x1p1024' is beyond the range of float64"),
        ("x" * 100, f"'{'x' * 37}...' is not"),
    ],
)
def test_a_bad_number_is_named_with_its_line(
    text: str, fragment: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is no number, or one number too many, is refused with file and line, standard input by its name."""
    Path("x.txt").write_text(text, encoding="utf-8")
    assert fragment in refused(capsys, "x.txt", "-f", "e4m3", "-o", "y.txt")
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(text.encode())))
    assert refused(capsys, "-", "-f", "e4m3", "-o", "y.txt").startswith("qsim: standard input, line ")


@pytest.mark.parametrize("content", [b"1\n\xff\n", "1\n2\n".encode("utf-16"), b"\x93NUMPY\x01\x00\n"])
def test_text_that_is_none(content: bytes, capsys: pytest.CaptureFixture[str]) -> None:
    """Bytes that are no UTF-8 are shown in the sentence, by their codes."""
    Path("x.txt").write_bytes(content)
    assert re.search(r"line \d: '\\\\x[\w\\]+' is not a number", refused(capsys, "x.txt", "-f", "e4m3", "-o", "y.txt"))


@pytest.mark.parametrize(
    ("array", "fragment"),
    [
        (np.zeros(3, "V2"), "x.npy holds raw bytes (|V2), as an array of an ml_dtypes type is stored; save x.astype"),
        (np.arange(3), "x.npy holds int64; convert it to float16, float32 or float64 first"),
        (np.zeros(3, complex), "x.npy holds complex128; convert"),
        (np.zeros(3, np.longdouble), f"x.npy holds {np.dtype(np.longdouble)}; convert"),
        (np.zeros(3, [("a", "f4")]), "x.npy holds [('a', '<f4')]; convert"),
        (np.array([None]), "x.npy holds Python objects, which are not read; save an array of numbers"),
    ],
    ids=lambda part: str(part.dtype) if isinstance(part, np.ndarray) else "",
)
def test_other_arrays_are_refused(array: np.ndarray, fragment: str, capsys: pytest.CaptureFixture[str]) -> None:
    """An array that is not of floats is refused by the type that it holds."""
    np.save("x.npy", array, allow_pickle=True)
    assert fragment in refused(capsys, "x.npy", "-f", "e4m3", "-o", "y.npy")


def test_damaged_files_are_refused(capsys: pytest.CaptureFixture[str]) -> None:
    """Whatever is cut off or changed in the header of a .npy, the sentence names it."""
    np.save("x.npy", X)
    whole = Path("x.npy").read_bytes()
    cut = [whole[:n] for n in (0, 3, 9, 60, len(whole) - 1)]
    shapes = [b"(2, 1000000000)", b"(2, 9" + b"9" * 24 + b")", b"(-2, 4)", b"(True,)", b"(2, 4", b"(02, 4)"]
    changed = [whole.replace(b"(2, 4), }" + b" " * (len(shape) - 6), shape + b", }") for shape in shapes]
    huge = [npy(f"({2**62},)"), npy(f"({2**62}, 4)"), npy("-" * 9000 + "4"), npy("(" * 9000), npy("9" * 5000)]
    for content in (*cut, *changed, *huge, npy("(1,)" + " " * 20000), b"PK\x03\x04" + whole):
        assert content != whole
        Path("x.npy").write_bytes(content)
        sentence = refused(capsys, "x.npy", "-f", "e4m3", "-o", "y.npy")
        assert "x.npy cannot be read as .npy (" in sentence
        assert "allow_pickle" not in sentence
        assert len(sentence) < 200


def npy(shape: str) -> bytes:
    """Return a .npy without data, whose header has `shape`."""
    header = f"{{'descr': '<f4', 'fortran_order': False, 'shape': {shape}, }}\n".encode()
    return b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header


def test_a_header_of_python_2_is_read(capsys: pytest.CaptureFixture[str]) -> None:
    """A file that Python 2 wrote is one like others: nothing is said about it."""
    Path("x.npy").write_bytes(npy("(1L,)") + np.float32(0.3).tobytes())
    run(capsys, "x.npy", "-f", "e4m3", "-o", "y.npy")
    assert np.load("y.npy").tolist() == [0.3125]


@pytest.mark.parametrize(
    ("words", "fragment"),
    [
        ("1\n-1\n", "r.txt, line 2: '-1' is not a random word; write integers from 0 on"),
        ("1\n2.5\n", "r.txt, line 2: '2.5' is not a random word"),
        ("1\n16\n", "r.txt, line 2: '16' is no random word of 4 bits, 0 .. 15"),
        ("9" * 5000, "999...' is not a random word"),
        (np.array([1, 16]), "r.npy, index 1: 16 is not in 0 .. 15"),
        (np.array([-1, 1]), "r.npy, index 0: -1 is not in 0 .. 15"),
        (np.array([0.5]), "r.npy holds float64; random words are integers"),
        ("1\n2\n3\n", "rbits of shape (3,) do not broadcast to the shape (2, 4) of x"),
    ],
    ids=str,
)
def test_bad_words_are_refused(words: str | np.ndarray, fragment: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Random words that are none, have too many bits or do not fit the input are refused where they stand."""
    np.save("x.npy", X)
    if isinstance(words, str):
        Path("r.txt").write_text(words, encoding="utf-8")
    else:
        np.save("r.npy", words)
    name = "r.txt" if isinstance(words, str) else "r.npy"
    argv = ["x.npy", "-f", "e4m3", "-r", "SRA", "--rbits", name, "--sr-bits", "4", "-o", "y.npy"]
    assert fragment in refused(capsys, *argv)


# --- Whole or not at all ---------------------------------------------------------------------------------------------


def test_the_result_may_replace_the_input(capsys: pytest.CaptureFixture[str]) -> None:
    """OUT may be IN, though it is read as it is needed; a link is followed, and what it names is replaced."""
    x = np.random.default_rng(0).standard_normal(100_000)
    np.save("x.npy", x)
    Path("link.npy").symlink_to("x.npy")
    for name in ("x.npy", "link.npy"):
        run(capsys, name, "-f", "e4m3", "-o", name)
        assert Path("link.npy").is_symlink()
        assert same_bits(np.load("x.npy"), qsim.quantize(x, "e4m3"))


def test_permissions_are_kept(capsys: pytest.CaptureFixture[str]) -> None:
    """What replaces a file may be read and written by whom that file was, also while it is made; a new one by the usual."""
    np.save("x.npy", X)
    for mode in (0o600, 0o640, 0o444):
        Path("x.npy").chmod(mode)
        run(capsys, "x.npy", "-f", "e4m3", "-o", "x.npy")
        assert stat.S_IMODE(Path("x.npy").stat().st_mode) == mode
        with files.whole("x.npy") as file:
            assert stat.S_IMODE(os.fstat(file.fileno()).st_mode) == mode
            file.write(Path("x.npy").read_bytes())
    Path("usual").touch()
    Path("x.txt").touch()
    run(capsys, "x.txt", "-f", "e4m3", "-o", "y.npy")
    assert Path("y.npy").stat().st_mode == Path("usual").stat().st_mode


@pytest.mark.parametrize("argv", [["quantize", "x.npy", "-f", "e4m3"], ["plot", "e4m3"]], ids=" ".join)
@pytest.mark.parametrize("name", ["loop", "to"])
def test_a_link_without_an_end_is_refused(name: str, argv: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    """A link that leads to itself, at once or by way of another, is refused and stays."""
    np.save("x.npy", X)
    suffix = ".npy" if argv[0] == "quantize" else ".svg"
    for one, other in (("loop", "loop"), ("to", "fro"), ("fro", "to")):
        Path(one + suffix).symlink_to(other + suffix)
    sentence = command.refused(capsys, *argv, "-o", name + suffix)
    assert sentence == f"qsim: {name}{suffix} is a link that leads back to itself; name another file with -o\n"
    assert Path(name + suffix).is_symlink()


@pytest.mark.parametrize(
    "error", [OSError(28, "No space left on device"), OSError("2 requested and 1 written")], ids=str
)
def test_a_failure_keeps_the_old_file(
    error: OSError, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Where writing fails, an OUT that was there stays as it was, nothing else is left, and the sentence says why."""
    np.save("x.npy", X)
    Path("y.npy").write_bytes(b"old")

    def half(file: Any, *_: object, **__: object) -> None:
        file.write(b"half")
        raise error

    monkeypatch.setattr(np, "save", half)
    reason = error.strerror or str(error)
    assert f"y.npy: cannot be written ({reason}); name another" in refused(capsys, "x.npy", "-f", "e4m3", "-o", "y.npy")
    assert Path("y.npy").read_bytes() == b"old"


def test_an_interrupt_leaves_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ctrl-C while OUT is written ends with 130 and without a file."""
    np.save("x.npy", X)

    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(np, "save", interrupted)
    assert main(["quantize", "x.npy", "-f", "e4m3", "-o", "y.npy"]) == 130
    assert [path.name for path in Path().iterdir()] == ["x.npy"]


def test_a_killed_process_leaves_no_result() -> None:
    """A process that is killed with half of OUT written leaves no OUT, and an older one as it was."""
    np.save("x.npy", X)
    Path("old.npy").write_bytes(b"old")
    program = (
        "import os, signal, sys\nimport numpy as np\nfrom qsim.cli import main\n"
        "def half(file, *_, **__):\n    file.write(b'half')\n    file.flush()\n    os.kill(os.getpid(), signal.SIGKILL)\n"
        "np.save = half\nmain(sys.argv[1:])"
    )
    for output in ("new.npy", "old.npy"):
        done = process("-c", program, "quantize", "x.npy", "-f", "e4m3", "-o", output, timeout=120)
        assert (done.returncode, done.stdout) == (-9, "")
    assert not Path("new.npy").exists()
    assert Path("old.npy").read_bytes() == b"old"
    assert [path for path in Path().iterdir() if path.name.startswith(".qsim-")]
    theirs = [".qsim-notes", ".qsim-0123456789abcdef.part.txt", "deep/.qsim-0123456789abcdef.part"]
    Path("deep").mkdir()
    for name in theirs:
        Path(name).write_text("mine")
    done = process("-m", "qsim", "quantize", "x.npy", "-f", "e4m3", "-o", "new.npy")
    assert done.returncode == 0
    found = {str(path) for path in Path().rglob("*") if path.is_file()}
    assert found == {"x.npy", "old.npy", "new.npy", *theirs}


MURDER = """
import os, random, signal, sys, time
from qsim.cli import files, main, quantize
chance = random.Random(int(sys.argv[1]))
files.LARGE = quantize.LARGE = 0
files.PIECE = 1000
argv = ['quantize', 'x.npy', '-f', 'int4', '--scale', 'absmax', '--codes', '-o', 'y.npy', '--scales', 's.npy']
assert main(argv) == 0
killed = 0
while killed < 15:
    pid = os.fork()
    if not pid:
        os._exit(main(argv))
    time.sleep(chance.uniform(0, 0.1))
    os.kill(pid, signal.SIGKILL)
    _, status = os.waitpid(pid, 0)
    killed += os.WIFSIGNALED(status)
    parts = [name for name in os.listdir() if name.startswith('.')]
    assert len(parts) <= 2, parts
"""


def test_kills_leave_nothing_that_stays() -> None:
    """However often it is killed, there are whole results, and of unfinished files the last at most, until the next run."""
    np.save("x.npy", np.random.default_rng(0).standard_normal((100, 400)))
    seed = random.randrange(1 << 30)  # noqa: S311 - the moments of the kills
    done = process("-c", MURDER, str(seed), timeout=120)
    assert done.returncode == 0, (seed, done.stderr)
    x, s = np.load("x.npy"), np.load("s.npy")
    assert same_bits(s, qsim.derive_scale(x, qsim.Quantizer("int4", scale="absmax")))
    assert same_bits(np.load("y.npy"), qsim.encode(x, "int4", scale="absmax"))
    assert main(["quantize", "x.npy", "-f", "e4m3", "-o", "z.npy"]) == 0
    assert {path.name for path in Path().iterdir()} == {"x.npy", "y.npy", "s.npy", "z.npy"}, seed
