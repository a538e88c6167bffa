"""Vectors: what is written is what is read, the directed ones show every fault, and malformed files are refused."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import numpy as np
import pytest
from command import printed, refused

from qsim.cli import main
from qsim.golden import Operands, model, named
from qsim.golden.directed import changes, directed, exhaustive, first_words, random
from qsim.golden.vectors import SUFFIXES, Vectors, fields_of, read, write

E4 = "cuda-13.5/float_e4m3_sat"
SR = "amd-hip-f9f995c/from_float_sr_e4m3"


def made(name: str) -> Vectors:
    """Return the directed vectors of a model."""
    converter = named(name)
    x, words = directed(converter)
    return Vectors(converter, x, words, converter.convert(x, words))


@pytest.mark.parametrize("suffix", [suffix for suffix in SUFFIXES if suffix != ".h"])
@pytest.mark.parametrize("name", [E4, SR, "ptx-9.5/cvt.rs.f16x2.f32", "systemc-2.3.4/fixed4_4_trn_wrap_sm"])
def test_what_is_written_is_read(name: str, suffix: str, here: Path) -> None:
    """Each format gives back inputs, words and codes; the manifest has the count and the checksum."""
    vectors = made(name)
    if len(vectors.x) > 4000:
        some = slice(None, None, 37)
        words = None if vectors.words is None else vectors.words[some]
        vectors = Vectors(vectors.converter, vectors.x[some], words, vectors.codes[some])
    manifest = json.loads(write(vectors, f"v{suffix}").read_text())
    content = (here / f"v{suffix}").read_bytes()
    assert manifest["sha256"] == hashlib.sha256(content).hexdigest()
    assert (manifest["lines"], manifest["model"]) == (len(vectors.x), name)
    if suffix in (".hex", ".mem", ".memh", ".tv"):
        assert content.count(b"\n") == manifest["lines"]
    answers = read(f"v{suffix}", list(fields_of(vectors.converter, vectors.x.kind)), vectors.x.kind)
    assert (answers.x.bits == vectors.x.bits).all()
    assert (answers.codes == vectors.codes).all()
    assert (answers.words is None) == (vectors.words is None)
    assert vectors.words is None or (answers.words == vectors.words).all()


def test_the_field_map_cuts_a_line(here: Path) -> None:
    """The bits that the manifest names are the fields of a packed line."""
    vectors = made("ptx-9.5/cvt.rs.f16x2.f32")  # 13 bits of a word stand in four digits
    fields = json.loads(write(vectors, "v.hex").read_text())["fields"]
    word = int((here / "v.hex").read_text().splitlines()[77], 16)
    cut = {name: (word >> at["lsb"]) & ((1 << at["bits"]) - 1) for name, at in fields.items()}
    assert cut == {"x": vectors.x.bits[77], "rbits": vectors.words[77], "code": vectors.codes[77]}


def test_a_c_header_compiles(here: Path) -> None:
    """It is C99, and has as many numbers as it says."""
    write(made(E4), "v.h")
    text = (here / "v.h").read_text()
    count = int(text.split("QSIM_VECTORS ")[1].split()[0])
    assert text.count("0x") == 2 * count == 2 * len(made(E4).x)


@pytest.mark.parametrize("name", [E4, "ofp8", "x86-2026/ace.vcvtrops2hf8", "xla-0.10/reduce_precision_4_3"])
def test_changes_are_all_of_them(name: str) -> None:
    """By bisection come the same changes as by enumeration of all bfloat16 patterns."""
    converter = named("e4m3:RNA" if name == "ofp8" else name)
    half = named(converter.entry.format + ":" + converter.entry.mode) if converter.input else converter
    at = changes(half, "bfloat16")
    bits = np.arange(1 << 16, dtype=np.uint64)
    codes = half.convert(Operands("bfloat16", bits))
    finite = (bits & np.uint64(0x7FFF)) <= 0x7F80
    differ = np.append(False, codes[1:] != codes[:-1]) & finite & ((bits & np.uint64(0x7FFF)) > 0)
    assert at.tolist() == bits[differ].tolist()


def test_directed_vectors_have_both_sides_and_specials() -> None:
    """Every change with the pattern before it; zeros, subnormals, infinities and NaNs of both signs."""
    converter = model(E4)
    bits = set(directed(converter)[0].bits.tolist())
    at = changes(converter, "float32").tolist()
    assert len(at) == 252
    assert bits >= {*at, *(one - 1 for one in at)}
    assert bits >= {
        0,
        1,
        0x80000000,
        0x7FFFFF,
        0x800000,
        0x7F7FFFFF,
        0x7F800000,
        0xFF800000,
        0x7FC00000,
        0x7F800001,
        0xFFFFFFFF,
    }
    assert 1500 < len(bits) < 4000


def test_words_stand_at_the_carry() -> None:
    """Of every number that may go either way both the last word at which it stays and the first at which it goes are there."""
    converter = model(SR)
    x, words = directed(converter)
    numbers = Operands("float32", np.unique(x.bits))
    first = first_words(converter, numbers)
    pairs = set(zip(x.bits.tolist(), words.tolist(), strict=True))
    for bits, word in zip(numbers.bits.tolist(), first.tolist(), strict=True):
        if word < 1 << 32:
            assert {(bits, word), (bits, word - 1)} <= pairs
            codes = converter(np.array([bits, bits], np.uint64), np.array([word - 1, word], np.uint64))
            assert codes[0] != codes[1]


def test_random_and_exhaustive() -> None:
    """Random vectors depend on the seed alone; all of float16 are 65,536."""
    converter = named("e4m3:RNE")
    assert (random(converter, 100, 7)[0].bits == random(converter, 100, 7)[0].bits).all()
    assert (random(converter, 100, 7)[0].bits != random(converter, 100, 8)[0].bits).any()
    x, words = exhaustive(converter, "float16")
    assert words is None
    assert x.bits.tolist() == list(range(1 << 16))
    x, words = exhaustive(named("e4m3:SRA(4)"), "bfloat16")
    assert (x.bits << np.uint64(4) | words).tolist() == list(range(1 << 20))


def test_the_command_writes(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """It says what it wrote; what cannot be is refused, and nothing is written."""
    assert "2,5" in printed(capsys, "vectors", E4, "-o", "v.hex")
    assert (
        json.loads(
            printed(capsys, "vectors", "e4m3:RNE", "-o", "w.npz", "--dtype", "float16", "--exhaustive", "--json")
        )["lines"]
        == 65536
    )
    assert "2^32" in refused(capsys, "vectors", E4, "-o", "x.hex", "--exhaustive")
    assert "ends in none of" in refused(capsys, "vectors", E4, "-o", "x.bin")
    assert "takes float32, not float16" in refused(capsys, "vectors", E4, "-o", "x.hex", "--dtype", "float16")
    assert "no model is called" in refused(capsys, "vectors", "torch/none", "-o", "x.hex")
    assert "--random 0" in refused(capsys, "vectors", E4, "-o", "x.hex", "--random", "0")
    assert {path.name for path in here.iterdir()} == {"v.hex", "v.hex.manifest.json", "w.npz", "w.npz.manifest.json"}


# --- Files of devices ------------------------------------------------------------------------------------------------

TV = "3f800000 38\n3f900000 39\n40000000 40\n"

MALFORMED = {
    "x digit": ("d.tv", TV.replace("39", "3x"), "d.tv:2: code = 3x has the digit x: the device drove no value there"),
    "z digit": ("d.tv", TV.replace("40\n", "zz\n"), "d.tv:3: code = zz has the digit z"),
    "wide": ("d.tv", TV.replace(" 39", " 139"), "d.tv:2: code = 139 has 3 digits; 8 bits have 2"),
    "narrow": ("d.tv", TV.replace("3f900000", "3f9"), "d.tv:2: x = 3f9 has 3 digits; 32 bits have 8"),
    "no digit": ("d.tv", TV.replace("39", "3g"), "d.tv:2: code = 3g is no hexadecimal number"),
    "signed": ("d.tv", TV.replace(" 39", " -1"), "d.tv:2: code = -1 is no hexadecimal number"),
    "field missing": ("d.tv", TV.replace(" 39", ""), "d.tv:2"),
    "field too many": ("d.tv", TV.replace("39", "39 00"), "d.tv:2: has 3 words"),
    "line ends": ("d.tv", TV.replace("38\n", "38\r\n"), "d.tv:2: the line ends otherwise"),
    "empty": ("d.tv", "", "d.tv: is empty"),
    "blank": ("d.tv", "\n \n", "d.tv: is empty"),
    "comments": ("d.tv", "// nothing\n", "d.tv: is empty"),
    "junk": ("d.tv", TV + "\x00\x01", "d.tv:4: the byte 0x00 is no text"),
    "utf-16": ("d.tv", "\u00ff\u00fe3", "d.tv:1: the byte 0xc3 is no text"),
    "address": ("d.hex", "@0\n3f80000038\n", "d.hex:1: @0 is an address"),
    "packed short": ("d.hex", "3f80000038\n3f900000\n", "d.hex:2: 3f900000 has 8 digits"),
    "csv head": ("d.csv", "0x3f800000,0x38\n", "d.csv:1: the first line names the columns"),
    "csv row": ("d.csv", "x,code\n0x3f800000\n", "d.csv:2: has 1 columns"),
    "csv x": ("d.csv", "x,code\n0x3f800000,0xzz\n", "d.csv:2: code = 0xzz has the digit z"),
    "json": ("d.jsonl", '{"x": "3f800000", "code": "38"}\n[\n', "d.jsonl:2: is no JSON object"),
    "json number": ("d.jsonl", '{"x": "3f800000", "code": 56}\n', "d.jsonl:1: code = 56 must be a text"),
    "npz": ("d.npz", "PK junk", "d.npz: is"),
    "npy": ("d.npy", "junk", "d.npy: is no array of NumPy"),
}  # fmt: skip


@pytest.mark.parametrize("kind", MALFORMED)
def test_malformed_files_are_refused(kind: str, here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """In a sentence with file and line; nothing is compared."""
    name, text, words = MALFORMED[kind]
    (here / name).write_bytes(text.encode())
    assert words in refused(capsys, "check", E4, name)


@pytest.mark.parametrize(
    ("lines", "words"),
    [
        (lambda codes: codes[:-1], "d.hex:2514: is too short: 2514 answers to 2515 vectors"),
        (lambda codes: [*codes, "00"], "d.hex:2515: is too long: 2516 answers to 2515 vectors"),
        (lambda codes: ["xx", *codes[1:]], "d.hex:1: code = xx has the digit x"),
        (lambda codes: [*codes[:-1], "000"], "d.hex:2515: code = 000 has 3 digits"),
    ],
)
def test_answers_alone(lines: object, words: str, here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A file of codes alone answers the vectors in order; another number of them is refused."""
    vectors = made(E4)
    assert len(vectors.x) == 2515
    write(vectors, "v.hex")
    codes = [f"{code:02x}" for code in vectors.codes.tolist()]
    (here / "d.hex").write_text("\n".join(codes) + "\n")
    assert main(["check", E4, "d.hex", "--vectors", "v.hex"]) == 0
    capsys.readouterr()
    (here / "d.hex").write_text("\n".join(lines(codes)) + "\n")
    assert words in refused(capsys, "check", E4, "d.hex", "--vectors", "v.hex")
    (here / "d.hex").write_text("\n".join(codes) + "\n")
    assert "has no x" in refused(capsys, "check", E4, "d.hex")


def test_other_inputs_than_asked(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Bytes in the other order, and another input, are refused with the line; vectors of another model, too."""
    vectors = made(E4)
    write(vectors, "v.tv")
    swapped = Vectors(
        vectors.converter,
        Operands("float32", vectors.x.bits.astype(np.uint32).byteswap().astype(np.uint64)),
        None,
        vectors.codes,
    )
    write(swapped, "d.tv")
    assert "the bytes of all inputs are in the other order" in refused(capsys, "check", E4, "d.tv", "--vectors", "v.tv")
    rows = (here / "v.tv").read_text().splitlines()
    rows[10] = "3f800000 38"
    (here / "d.tv").write_text("\n".join(rows) + "\n")
    assert "d.tv:11: x is 0x3f800000, and the vector that was asked is" in refused(
        capsys, "check", E4, "d.tv", "--vectors", "v.tv"
    )
    assert "the vectors are of another model" in refused(capsys, "check", "e4m3:RTZ", "d.tv", "--vectors", "v.tv")


def test_arrays_that_are_no_answers(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Types, shapes and sizes of arrays are refused; big-endian arrays are read by their type."""
    x, code = np.array([0x3F800000], ">u4"), np.array([0x38], np.uint8)
    np.savez("d.npz", x=x, code=code)
    assert main(["check", E4, "d.npz"]) == 0
    capsys.readouterr()
    np.savez("d.npz", x=np.float32([1, 2]), code=code)
    assert "different lengths" in refused(capsys, "check", E4, "d.npz")
    np.savez("d.npz", x=x, code=np.array([256]))
    assert "code[0] = 256 has more than 8 bits" in refused(capsys, "check", E4, "d.npz")
    np.savez("d.npz", x=x, code=np.array([-1]))
    assert "code[0] = -1" in refused(capsys, "check", E4, "d.npz")
    np.savez("d.npz", x=x, code=np.array([0.5]))
    assert "code holds float64" in refused(capsys, "check", E4, "d.npz")
    np.save("d.npy", np.zeros((3, 5), np.uint8))
    assert "shape (3, 5)" in refused(capsys, "check", E4, "d.npy")
    np.savez("d.npz", x=x)
    assert "has no answers" in refused(capsys, "check", E4, "d.npz")
