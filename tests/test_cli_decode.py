"""`qsim decode`: that codes, packed or not, and their scales are the values of `qsim quantize`; words in hexadecimal."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from alike import same_bits
from command import X, refused

import qsim
from qsim.cli import main

pytestmark = pytest.mark.usefixtures("here")


def run(capsys: pytest.CaptureFixture[str], line: str) -> str:
    """Run a command line that must do, and return what it printed."""
    assert main(line.split()) == 0
    out, err = capsys.readouterr()
    assert err == ""
    return out


NUMBERS = np.random.default_rng(3).standard_normal((4, 5)) * 2.0 ** np.arange(-2, 3)

ROUNDINGS = (
    "int4 --scale absmax --per channel", "int4 --scale absmax --per token", "e4m3 --scale pow2", "int8 --scale absmean",
    "e2m1 -r SRA(8) --seed 4 --scale 0.37", "nf4 --scale absmax --per 0,1", "e5m2 --scale absmax", "e2m3", "uint4",
    "posit8", "e4m3 --scale absmax --order exact", "int3 --scale absmax --order reciprocal",
)  # fmt: skip


CASES = [
    (rounding, dtype, ("npy", "txt", "csv", "hex")[(row + column) % 4])
    for row, rounding in enumerate(ROUNDINGS)
    for column, dtype in enumerate((np.float16, np.float32, np.float64))
]
"""Each rounding of each type, in files of three kinds of the four."""


@pytest.mark.parametrize(("rounding", "dtype", "name"), CASES)
def test_codes_and_scales_are_the_values(
    rounding: str, dtype: Any, name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """Codes and scales in files of any kind give, bit for bit, what quantize writes without --codes; packed codes too."""
    if dtype is np.float16 and rounding.startswith(("nf4", "posit8")):
        return  # whose values are no float16, so that quantize refuses them
    np.save("x.npy", NUMBERS.astype(dtype))
    run(capsys, f"quantize x.npy -f {rounding} -o y.npy")
    scaled = "--scale" in rounding
    take = f"--scales s.{name}" if scaled else ""
    own = f"--dtype {np.dtype(dtype)}"
    form = rounding.split(maxsplit=1)[0]
    run(capsys, f"quantize x.npy -f {rounding} -o c.{name} --codes {take}")
    run(capsys, f"decode c.{name} -f {form} -o v.npy {take} {own}")
    same_bits(np.load("v.npy"), np.load("y.npy"))
    for order in "little", "big":
        run(capsys, f"quantize x.npy -f {rounding} -o p.{name} --codes --pack {order} {take}")
        run(capsys, f"decode p.{name} -f {form} -o v.npy {take} {own} --pack {order} --count 5")
        same_bits(np.load("v.npy"), np.load("y.npy"))
        run(capsys, f"decode p.{name} -f {form} -o u.{name} --pack {order} --count 5 --codes")
        assert Path(f"u.{name}").read_bytes() == Path(f"c.{name}").read_bytes()


def test_hex_there_and_back(capsys: pytest.CaptureFixture[str]) -> None:
    """Every code of a format goes to the bits of its value, and these to the code, in files as $readmemh reads them."""
    Path("codes.mem").write_text("// all\n@0 " + "\n".join(f"{code:02x}" for code in range(256)), encoding="utf-8")
    run(capsys, "decode codes.mem -f e4m3 -o values.hex")
    words = Path("values.hex").read_text(encoding="utf-8").split()
    right = qsim.decode(np.arange(256), "e4m3")
    assert words == [f"{word:08x}" for word in right.view(np.uint32).tolist()]
    run(capsys, "quantize values.hex -f e4m3 -o again.hex --codes --nan signed")
    assert Path("again.hex").read_text(encoding="utf-8").split() == [f"{code:02x}" for code in range(256)]


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_words_as_bits(dtype: Any, capsys: pytest.CaptureFixture[str]) -> None:
    """Words with or without 0x, of a text or an unsigned .npy, are the bits of numbers where --hex says so."""
    x = X.astype(dtype)
    bits = x.view(f"u{x.itemsize}")
    np.save("bits.npy", bits)
    for start in "", "0x":
        lines = [" ".join(f"{start}{word:0{2 * x.itemsize}x}" for word in row) for row in bits.tolist()]
        Path("x.txt").write_text("\n".join(lines), encoding="utf-8")
        for source in "x.txt", "bits.npy":
            run(capsys, f"quantize {source} --hex --dtype {x.dtype} -f e5m2 -o y.npy")
            same_bits(np.load("y.npy"), qsim.quantize(x, "e5m2"))
    run(capsys, f"quantize x.txt --hex --dtype {x.dtype} -f e5m2 -o y.csv")
    words = [[int(word, 16) for word in line.split(",")] for line in Path("y.csv").read_text(encoding="utf-8").split()]
    assert words == qsim.quantize(x, "e5m2").view(bits.dtype).tolist()


def test_comments_and_addresses(capsys: pytest.CaptureFixture[str]) -> None:
    """Comments of Verilog are none of the words, nor are addresses and underscores."""
    Path("x.hex").write_text("@0 3e99_999a // 0.3\n/* two\n lines */ @1\n3F800000\n", encoding="utf-8")
    run(capsys, "quantize x.hex -f e4m3 -o y.npy")
    same_bits(np.load("y.npy"), np.array([0.3125, 1], np.float32))


def test_a_pipe_and_json(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """The result can go to standard output, and the summary then to stderr."""
    Path("c.txt").write_text("0x2a 64\n", encoding="utf-8")
    assert main(["decode", "c.txt", "-f", "e4m3", "-o", "-", "--json"]) == 0
    out, err = capsys.readouterr()
    assert out == "0.3125 2\n"
    assert json.loads(err)["output_shape"] == [1, 2]


@pytest.mark.parametrize(
    ("line", "sentence"),
    [
        ("decode c.npy -f int4 -o y.npy --pack", "--pack and --count N go together"),
        ("decode c.npy -f int4 -o y.npy --count 3", "--pack and --count N go together"),
        ("decode c.npy -f int4 -o y.npy --pack --count 9", "9 codes of 4 bits take 5 bytes, not the 2"),
        ("decode c.npy -f int4 -o y.npy", "c.npy, index 1: 255 is not in 0 .. 15"),
        ("decode x.npy -f int4 -o y.npy", "x.npy holds float64; codes are integers"),
        ("decode c.npy -f int4 -o y.npy --codes --dtype float32", "--codes writes codes"),
        ("decode c.npy -f e4m3 -o y.npy --scales x.npy", "scales of shape (3,) do not broadcast to the shape (2,)"),
        ("decode c.npy -f int32 -o y.npy --dtype float16", "float16 does not hold the values of int32"),
        ("decode c.npy -f e4m3 -o y.bin", "y.bin: a file of numbers is called"),
        ("decode big.hex -f e4m3 -o y.npy", "big.hex, line 1: '123' is no code of 8 bits, 0 .. 255"),
        ("decode gap.hex -f e4m3 -o y.npy", "gap.hex, line 2: '@4' is not @1"),
        ("decode bad.hex -f e4m3 -o y.npy", "bad.hex, line 1: '1z' is not a word in hexadecimal"),
        ("quantize big.hex -f e4m3 -o y.npy", "big.hex: say of which numbers the words are the bits, with --dtype"),
        ("quantize long.hex -f e4m3 -o y.npy --dtype float16", "a word of 8 digits is no float16"),
        ("quantize u.npy -f e4m3 -o y.npy", "give --hex if these are the bits of floats"),
        ("quantize u.npy -f e4m3 -o y.npy --hex --dtype float64", "u.npy holds the bits of float32, not of float64"),
    ],
)
def test_refusals(line: str, sentence: str, capsys: pytest.CaptureFixture[str]) -> None:
    """What contradicts itself, or is no word, is refused in a sentence, and nothing is written."""
    np.save("c.npy", np.array([1, 255], np.uint8))
    np.save("x.npy", np.ones(3))
    np.save("u.npy", np.ones(3, np.uint32))
    for name, text in {"big": "123", "gap": "01\n@4 02", "bad": "1z", "long": "3e99999a"}.items():
        Path(f"{name}.hex").write_text(text, encoding="utf-8")
    assert sentence in refused(capsys, *line.split())
    assert not [path for path in Path().iterdir() if path.name.startswith(("y", "."))]


@pytest.mark.parametrize(
    "options", ["", "--scale absmax --per channel --scales s.npy", "--pack", "--pack=big --scale 0.5 --scales s.npy"]
)
def test_the_summary_says_how_codes_are_read_back(options: str, capsys: pytest.CaptureFixture[str]) -> None:
    """The command that the summary of `qsim quantize --codes` names gives the values that `qsim quantize` gives without."""
    np.save("x.npy", np.linspace(-3, 3, 21, dtype=np.float32).reshape(3, 7))
    line = f"quantize x.npy -f int4 {options}".split()
    assert main([*line, "--codes", "-o", "c.npy"]) == 0
    told = capsys.readouterr().out
    command = shlex.split(re.search(r"read back by +qsim (.*)", told)[1].replace("OUT", "y.npy"))
    assert main(command) == 0
    capsys.readouterr()
    plain = [word for word in line if "--pack" not in word]
    assert main([*plain, "-o", "z.npy"]) == 0
    np.testing.assert_array_equal(np.load("y.npy"), np.load("z.npy"))
    capsys.readouterr()
    if "--pack" in options:
        assert main(["decode", "c.npy", "-f", "int4", "-o", "y.npy"]) == 2
        assert "give --pack and --count N if these are packed bytes" in capsys.readouterr().err
