"""Test vectors as files: written for benches in six formats with a manifest, and read back from devices, strictly.

Fields are x (the bits of the input), rbits (the random word, of a converter that takes one) and code. In `$readmemh` files a
line is one word, x in the high digits and the code in the low ones, each field in whole hexadecimal digits.
"""

from __future__ import annotations

import csv
import dataclasses
import hashlib
import io
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from qsim.errors import InputError, enumerate_names
from qsim.files import whole
from qsim.golden.converter import Converter
from qsim.golden.operands import Operands, width

__all__ = ["SUFFIXES", "Answers", "Vectors", "fields_of", "manifest_of", "read", "read_unknown", "write"]

Bits = NDArray[np.uint64]

SUFFIXES = (".hex", ".mem", ".memh", ".tv", ".csv", ".jsonl", ".npz", ".h")
"""How the names of files end that hold vectors."""

LARGEST = 1 << 30
"""Bytes of a text that is read."""


@dataclass(frozen=True, eq=False)
class Vectors:
    """Hold inputs, words and right codes for a converter."""

    converter: Converter
    x: Operands
    words: Bits | None
    codes: NDArray[np.int64]

    @property
    def fields(self) -> list[tuple[str, int]]:
        """The fields, high digits first, and the bits of each."""
        rbits = [("rbits", self.converter.word_bits)] if self.words is not None else []
        return [("x", width(self.x.kind)), *rbits, ("code", self.converter.format.bits)]

    @property
    def columns(self) -> list[NDArray[Any]]:
        """The fields' numbers."""
        return [self.x.bits, *([] if self.words is None else [self.words]), self.codes.astype(np.uint64)]


@dataclass(frozen=True, eq=False)
class Answers:
    """Hold a device's answers to inputs."""

    x: Operands
    words: Bits | None
    codes: NDArray[np.int64]
    #: The lines of the file, if it has lines.
    lines: NDArray[np.int64] | None = None


def digits(bits: int) -> int:
    """Return the hexadecimal digits of a field."""
    return -(-bits // 4)


# --- Writing ---------------------------------------------------------------------------------------------------------


def write(vectors: Vectors, path: str | Path, **how: Any) -> Path:
    """Write vectors as the end of the name says, and their manifest beside it; return where that is. Both appear whole."""
    path = Path(path)
    suffix = path.suffix
    if suffix not in SUFFIXES:
        raise InputError(
            f"{path}: the name ends in none of {enumerate_names(SUFFIXES)}, which say how vectors are written"
        )
    content = _npz(vectors) if suffix == ".npz" else _text(vectors, suffix).encode()
    manifest = manifest_of(vectors, content, path.name, **how)
    beside = path.with_name(path.name + ".manifest.json")
    with whole(path) as file:
        file.write(content)
    with whole(beside) as file:
        file.write((json.dumps(manifest, indent=1) + "\n").encode())
    return beside


def manifest_of(vectors: Vectors, content: bytes, name: str, **how: Any) -> dict[str, Any]:
    """Return the manifest: the model, its version and parameters, the field map, the number of lines, the SHA-256."""
    import qsim

    entry = vectors.converter.entry
    low, fields = 0, {}
    for field, bits in reversed(vectors.fields):
        fields[field] = {"bits": bits, "lsb": low, "msb": low + bits - 1}
        low += 4 * digits(bits)
    return {
        "file": name, "qsim": qsim.__version__, "model": entry.name, "status": entry.status, "source": entry.source,
        "entry": {key: value for key, value in dataclasses.asdict(entry).items() if value not in ("", {}, (), 0, False)},
        "input": vectors.x.kind, "format": vectors.converter.format.name, **how, "fields": fields, "word_bits": low,
        "lines": len(vectors.x), "sha256": hashlib.sha256(content).hexdigest(),
    }  # fmt: skip


def _text(vectors: Vectors, suffix: str) -> str:
    names = [name for name, _ in vectors.fields]
    widths = [digits(bits) for _, bits in vectors.fields]
    columns = [
        [f"{number:0{count}x}" for number in column.tolist()]
        for column, count in zip(vectors.columns, widths, strict=True)
    ]
    rows = zip(*columns, strict=True)
    match suffix:
        case ".tv":
            return "".join(" ".join(row) + "\n" for row in rows)
        case ".csv":
            return ",".join(names) + "\n" + "".join(",".join("0x" + word for word in row) + "\n" for row in rows)
        case ".jsonl":
            return "".join(json.dumps(dict(zip(names, row, strict=True))) + "\n" for row in rows)
        case ".h":
            return _header(vectors, names, columns)
        case _:
            return "".join("".join(row) + "\n" for row in rows)


def _header(vectors: Vectors, names: Sequence[str], columns: Sequence[Sequence[str]]) -> str:
    lines = [
        f"/* Golden vectors of {vectors.converter.name}: {', '.join(names)}. */",
        "#include <stdint.h>", f"#define QSIM_VECTORS {len(vectors.x)}",
    ]  # fmt: skip
    for (name, bits), column in zip(vectors.fields, columns, strict=True):
        kind = next(size for size in (8, 16, 32, 64) if bits <= size)
        lines.append(f"static const uint{kind}_t qsim_{name}[QSIM_VECTORS] = {{")
        lines += [f"  {', '.join('0x' + word for word in column[at : at + 8])}," for at in range(0, len(column), 8)]
        lines.append("};")
    return "\n".join(lines) + "\n"


def _npz(vectors: Vectors) -> bytes:
    kinds = {8: np.uint8, 16: np.uint16, 32: np.uint32, 64: np.uint64}
    arrays: dict[str, Any] = {
        name: column.astype(kinds[next(size for size in kinds if bits <= size)])
        for (name, bits), column in zip(vectors.fields, vectors.columns, strict=True)
    }
    buffer = io.BytesIO()
    np.savez(buffer, **arrays)
    return buffer.getvalue()


# --- Reading ---------------------------------------------------------------------------------------------------------


def read(
    path: str | Path, fields: Sequence[tuple[str, int]], kind: str, against: Vectors | Answers | None = None
) -> Answers:
    """Return a device's answers: pairs of input and code, with words where the fields have them.

    Given the vectors that were asked (`against`), a file of codes alone is their answers in order, and one with inputs
    must have the same. Raise `InputError` with file and line for words that are short or long, have x or z digits or another
    width, mixed line ends, no line, or bytes that are no text.
    """
    path = Path(path)
    if path.suffix in (".npz", ".npy"):
        columns, lines = _arrays(path, fields), None
    else:
        columns, lines = _lines(path, fields)
    if "code" not in columns:
        raise InputError(f"{path}: has no answers; a field is called code")
    count = len(columns["code"])
    if against is not None:
        return _beside(path, columns, lines, kind, against)
    for name, _ in fields:
        if name not in columns:
            raise InputError(
                f"{path}: has no {name}; give the vectors that the device was asked with --vectors, or a file of "
                f"{enumerate_names([field for field, _ in fields])} together"
            )
    if not count:
        raise InputError(f"{path}: is empty; an answer a line")
    words = columns.get("rbits")
    return Answers(Operands(kind, columns["x"]), words, columns["code"].astype(np.int64), lines)


def _beside(
    path: Path, columns: dict[str, Bits], lines: NDArray[np.int64] | None, kind: str, asked: Vectors | Answers
) -> Answers:
    """Return answers to the inputs that were asked; refuse another number of them, and other inputs."""
    count, wanted = len(columns["code"]), len(asked.x)
    if count != wanted:
        word = "short" if count < wanted else "long"
        at = "" if lines is None else f":{int(lines[min(count, wanted) - 1]) if min(count, wanted) else 1}"
        raise InputError(f"{path}{at}: is too {word}: {count} answers to {wanted} vectors")
    for name, ours in (("x", asked.x.bits), ("rbits", asked.words)):
        theirs = columns.get(name)
        if theirs is None or ours is None:
            continue
        other = np.flatnonzero(theirs != ours)
        if len(other):
            first = int(other[0])
            size = width(kind) // 8 if name == "x" else 0
            swapped = size and (_swapped(theirs, size) == ours).all()
            hint = "; the bytes of all inputs are in the other order" if swapped else ""
            where = f"{path}:{int(lines[first])}" if lines is not None else f"{path}: entry {first}"
            raise InputError(
                f"{where}: {name} is 0x{int(theirs[first]):x}, and the vector that was asked is 0x{int(ours[first]):x}{hint}"
            )
    return Answers(asked.x, asked.words, columns["code"].astype(np.int64), lines)


def _swapped(bits: Bits, size: int) -> Bits:
    """Return numbers of `size` bytes with these in the other order."""
    return bits.byteswap() >> np.uint64(64 - 8 * size)


def _arrays(path: Path, fields: Sequence[tuple[str, int]]) -> dict[str, Bits]:
    loaded: Any
    try:
        loaded = np.load(path, allow_pickle=False)
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror or error})") from None
    except (ValueError, EOFError, KeyError) as error:
        raise InputError(f"{path}: is no array of NumPy ({str(error).splitlines()[0]})") from None
    except Exception as error:  # noqa: BLE001 - a damaged archive raises what zipfile and zlib have
        raise InputError(f"{path}: is damaged ({type(error).__name__})") from None
    sizes = dict(fields)
    if isinstance(loaded, np.ndarray):
        found = {"code": loaded} if loaded.ndim == 1 else {}
        if loaded.ndim == 2 and loaded.shape[1] == len(fields):
            found = {name: loaded[:, at] for at, (name, _) in enumerate(fields)}
        if not found:
            names = ", ".join(name for name, _ in fields)
            raise InputError(
                f"{path}: has the shape {loaded.shape}; codes are of one dimension, {names} of shape (n, {len(fields)})"
            )
    else:
        try:
            found = {name: loaded[name].reshape(-1) for name in loaded.files if name in sizes}
        except Exception as error:  # noqa: BLE001 - likewise
            raise InputError(f"{path}: is damaged ({type(error).__name__})") from None
    columns = {}
    for name, array in found.items():
        own = array
        if own.dtype.kind == "f" and name == "x":
            own = own.astype(own.dtype.newbyteorder("=")).view(f"u{own.dtype.itemsize}")
        if own.dtype.kind not in "iu":
            raise InputError(f"{path}: {name} holds {array.dtype}; bits go in, as integers")
        if own.size and not 0 <= int(own.min()) <= int(own.max()) < 1 << sizes[name]:
            wrong = int(np.flatnonzero((own < 0) | (own.astype(object) >= 1 << sizes[name]))[0])
            raise InputError(f"{path}: {name}[{wrong}] = {own[wrong]} has more than {sizes[name]} bits")
        columns[name] = own.astype(np.uint64)
    lengths = {name: len(column) for name, column in columns.items()}
    if len(set(lengths.values())) > 1:
        raise InputError(f"{path}: its arrays have different lengths: {lengths}")
    return columns


def _lines(path: Path, fields: Sequence[tuple[str, int]]) -> tuple[dict[str, Bits], NDArray[np.int64]]:
    try:
        with path.open("rb") as file:
            content = file.read(LARGEST + 1)
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror})") from None
    if len(content) > LARGEST:
        raise InputError(f"{path}: has more than {LARGEST >> 20} MiB; write a .npz")
    _check_text(path, content)
    text = content.decode("ascii")
    if path.suffix == ".csv":
        return _table(path, text, fields)
    if path.suffix == ".jsonl":
        return _objects(path, text, fields)
    fast = _fast(text, fields)
    return fast if fast is not None else _words(path, text, fields)


def _check_text(path: Path, content: bytes) -> None:
    """Refuse a text that is not ASCII, has line ends of two kinds, or is empty."""
    if not content.strip():
        raise InputError(f"{path}: is empty; an answer a line")
    junk = re.search(rb"[^\t\n\r\x20-\x7e]", content)
    if junk:
        line = content[: junk.start()].count(b"\n") + 1
        raise InputError(f"{path}:{line}: the byte 0x{junk[0][0]:02x} is no text; hexadecimal digits go in, or a .npz")
    ends = content.count(b"\n"), content.count(b"\r\n"), content.count(b"\r")
    if ends[1] not in (0, ends[0]) or ends[2] != ends[1]:
        first = b"\r\n" if content.find(b"\r") == content.find(b"\n") - 1 and b"\r" in content else b"\n"
        other = re.search(rb"(?<!\r)\n|\r(?!\n)" if first == b"\r\n" else rb"\r", content)
        line = content[: other.start()].count(b"\n") + 1 if other else 1
        raise InputError(
            f"{path}:{line}: the line ends otherwise than those before it (\\r\\n and \\n); it may be two files"
        )


def _fast(text: str, fields: Sequence[tuple[str, int]]) -> tuple[dict[str, Bits], NDArray[np.int64]] | None:
    """Return the fields of a text of equally long lines of hexadecimal digits, or `None` where it is not so plain."""
    row = text.find("\n") + 1
    raw = np.frombuffer(text.encode(), np.uint8)
    if row <= 0 or len(raw) % row or not (raw[row - 1 :: row] == 10).all():
        return None
    body = raw.reshape(-1, row)[:, :-1]
    sizes = [digits(bits) for _, bits in fields]
    if body.shape[1] == sum(sizes):
        starts = np.cumsum([0, *sizes[:-1]])
    elif body.shape[1] == sum(sizes) + len(sizes) - 1:
        starts = np.cumsum([0, *(size + 1 for size in sizes[:-1])])
        if not all((body[:, start - 1] == 32).all() for start in starts[1:]):
            return None
    elif body.shape[1] == sizes[-1]:
        fields, sizes, starts = fields[-1:], sizes[-1:], np.array([0])
    else:
        return None
    value = np.full(256, 255, np.uint8)
    for at, letter in enumerate("0123456789abcdef"):
        value[ord(letter)] = value[ord(letter.upper())] = at
    found = {}
    for (name, bits), start, size in zip(fields, starts.tolist(), sizes, strict=True):
        part = value[body[:, start : start + size]]
        if (part == 255).any():
            return None
        number = np.zeros(len(body), np.uint64)
        for at in range(size):
            number = number << np.uint64(4) | part[:, at]
        if bits % 4 and (number >> np.uint64(bits)).any():
            return None
        found[name] = number
    return found, np.arange(1, len(body) + 1)


def _words(path: Path, text: str, fields: Sequence[tuple[str, int]]) -> tuple[dict[str, Bits], NDArray[np.int64]]:
    """Return the fields of lines of one word or of a word a field, with comments, or say which line has something else."""
    rows, lines = [], []
    kept = [fields, fields[-1:]]
    for number, line in enumerate(text.splitlines(), 1):
        tokens = re.split(r"//|#", line, maxsplit=1)[0].split()
        if not tokens:
            continue
        where = f"{path}:{number}"
        if tokens[0].startswith("@"):
            raise InputError(f"{where}: {tokens[0]} is an address; a line is a word, in order")
        kept = [some for some in kept if len(tokens) == len(some) or (len(tokens) == 1 and len(some) > 1)]
        if not kept:
            raise InputError(f"{where}: has {len(tokens)} words; {_wanted(fields)}")
        rows.append((where, tokens))
        lines.append(number)
    if not rows:
        raise InputError(f"{path}: is empty; an answer a line")
    packed = sum(digits(bits) for _, bits in fields)
    alone = len(rows[0][1]) == 1 and len(fields) > 1 and len(_plain(rows[0][1][0])) != packed
    some = fields[-1:] if alone or (len(kept) == 1 and len(kept[0]) == 1) else fields
    columns: list[list[int]] = [[] for _ in some]
    for where, tokens in rows:
        parts = tokens
        if len(tokens) == 1 and len(some) > 1:
            word = _plain(tokens[0])
            if len(word) != packed:
                raise InputError(f"{where}: {_short(word)} has {len(word)} digits; {_wanted(fields)}")
            parts, at = [], 0
            for _, bits in some:
                parts.append(word[at : at + digits(bits)])
                at += digits(bits)
        for column, (name, bits), token in zip(columns, some, parts, strict=True):
            column.append(_number(where, name, token, bits))
    return {name: np.array(column, np.uint64) for (name, _), column in zip(some, columns, strict=True)}, np.array(lines)


def _plain(token: str) -> str:
    return token.replace("_", "").removeprefix("0x").removeprefix("0X")


def _short(token: str) -> str:
    return token if len(token) <= 40 else f"{token[:40]}..."


def _wanted(fields: Sequence[tuple[str, int]]) -> str:
    named = ", ".join(f"{name} of {digits(bits)}" for name, bits in fields)
    return f"a line has the digits of {named}, together or apart, or those of the code alone"


def _number(where: str, name: str, token: str, bits: int) -> int:
    """Return a field of exactly its digits."""
    word = _plain(token)
    unknown = re.search(r"[xXzZ?]", word)
    if unknown:
        raise InputError(
            f"{where}: {name} = {_short(token)} has the digit {unknown[0]}: the device drove no value there"
        )
    if not re.fullmatch(r"[\da-fA-F]+", word):
        raise InputError(f"{where}: {name} = {_short(token)} is no hexadecimal number")
    if len(word) != digits(bits):
        raise InputError(f"{where}: {name} = {_short(token)} has {len(word)} digits; {bits} bits have {digits(bits)}")
    if int(word, 16) >> bits:
        raise InputError(f"{where}: {name} = {_short(token)} has more than {bits} bits")
    return int(word, 16)


def _table(path: Path, text: str, fields: Sequence[tuple[str, int]]) -> tuple[dict[str, Bits], NDArray[np.int64]]:
    rows = csv.reader(io.StringIO(text))
    head = [word.strip() for word in next(rows, [])]
    sizes = dict(fields)
    if "code" not in head:
        raise InputError(f"{path}:1: the first line names the columns, {enumerate_names(sizes)}")
    columns: dict[str, list[int]] = {name: [] for name in head if name in sizes}
    lines = []
    for row in rows:
        if not row:
            continue
        where = f"{path}:{rows.line_num}"
        if len(row) != len(head):
            raise InputError(f"{where}: has {len(row)} columns, and the first line {len(head)}")
        for name, token in zip(head, row, strict=True):
            if name in sizes:
                columns[name].append(_number(where, name, token.strip(), sizes[name]))
        lines.append(rows.line_num)
    return {name: np.array(column, np.uint64) for name, column in columns.items()}, np.array(lines)


def _objects(path: Path, text: str, fields: Sequence[tuple[str, int]]) -> tuple[dict[str, Bits], NDArray[np.int64]]:
    sizes = dict(fields)
    columns: dict[str, list[int]] = {}
    lines = []
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip():
            continue
        where = f"{path}:{number}"
        try:
            row = json.loads(line)
        except (json.JSONDecodeError, RecursionError):
            raise InputError(f"{where}: is no JSON object") from None
        if not isinstance(row, dict) or "code" not in row:
            raise InputError(f"{where}: is no JSON object with a code")
        names = [name for name in row if name in sizes]
        if columns and names != list(columns):
            raise InputError(f"{where}: has the fields {', '.join(names)}, and those before it {', '.join(columns)}")
        for name in names:
            if not isinstance(row[name], str):
                raise InputError(f"{where}: {name} = {row[name]!r} must be a text of hexadecimal digits")
            columns.setdefault(name, []).append(_number(where, name, row[name], sizes[name]))
        lines.append(number)
    return {name: np.array(column, np.uint64) for name, column in columns.items()}, np.array(lines)


def read_unknown(path: str | Path, kind: str, sr_bits: int, kinds: Mapping[int, str]) -> Answers:
    """Return answers without a description: the widths are those of the first line, or of the arrays.

    `kind` is the type of the inputs, by default the one of `kinds` with as many digits; `sr_bits` the bits of a word.
    """
    path = Path(path)
    names, sizes = _layout(path)
    size = sizes[0]
    if kind and digits(width(kind)) != size:
        raise InputError(f"{path}: x has {size} digits, and {kind} has {digits(width(kind))}")
    if not kind and size not in kinds:
        raise InputError(
            f"{path}: x has {size} digits; numbers have {enumerate_names(map(str, kinds))}, in .tv or .csv x comes first"
        )
    fields = [("x", 4 * size), *((name, 4 * count) for name, count in zip(names[1:], sizes[1:], strict=True))]
    if sr_bits:
        fields = [(name, sr_bits if name == "rbits" else bits) for name, bits in fields]
    return read(path, fields, kind or kinds[size])


def _layout(path: Path) -> tuple[list[str], list[int]]:
    """Return the fields of a file and the digits of each."""
    if path.suffix in (".npz", ".npy"):
        wide = [("x", 64), ("rbits", 64), ("code", 64)]
        if path.suffix == ".npy":
            raise InputError(f"{path}: an array has no names; give x and code in a .npz")
        found = _arrays(path, wide)
        with np.load(path) as loaded:
            names = [name for name, _ in wide if name in found]
            sizes = [2 * loaded[name].dtype.itemsize for name in names]
        return _named(path, names), sizes
    try:
        with path.open("rb") as file:
            head = file.read(1 << 16)
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror})") from None
    _check_text(path, head if len(head) < 1 << 16 else head[: head.rfind(b"\n") + 1] or head)
    lines = [re.split(r"//|#", line, maxsplit=1)[0].strip() for line in head.decode("ascii").splitlines()]
    lines = [line for line in lines if line]
    if not lines:
        raise InputError(f"{path}: is empty; an answer a line")
    if path.suffix == ".csv":
        names = [word.strip() for word in lines[0].split(",")]
        tokens = lines[1].split(",") if len(lines) > 1 else []
        pairs = [pair for pair in zip(names, tokens, strict=False) if pair[0] in ("x", "rbits", "code")]
    elif path.suffix == ".jsonl":
        try:
            row = json.loads(lines[0])
            pairs = [(name, str(row[name])) for name in ("x", "rbits", "code") if name in row]
        except (json.JSONDecodeError, TypeError):
            raise InputError(f"{path}:1: is no JSON object") from None
    else:
        tokens = lines[0].split()
        names = {2: ["x", "code"], 3: ["x", "rbits", "code"]}.get(len(tokens), [])
        pairs = list(zip(names, tokens, strict=False))
        if not names and len(tokens) == 1:
            raise InputError(
                f"{path}:1: is one word; write the fields apart, x [rbits] code, or say the model: `qsim check`"
            )
    return _named(path, [name for name, _ in pairs]), [len(_plain(token.strip())) for _, token in pairs]


def _named(path: Path, names: list[str]) -> list[str]:
    if names not in (["x", "code"], ["x", "rbits", "code"]):
        raise InputError(
            f"{path}: has {enumerate_names(names) or 'no field'}; it has x and code, and rbits between them if there are any"
        )
    return names


def fields_of(converter: Converter, kind: str) -> Iterator[tuple[str, int]]:
    """Yield the fields of vectors for a converter."""
    yield "x", width(kind)
    if converter.word_bits:
        yield "rbits", converter.word_bits
    yield "code", converter.format.bits
