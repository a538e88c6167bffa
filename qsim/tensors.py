"""Model files: the named tensors of a `.safetensors` file, read and written one at a time.

A file is the length of its header as 8 bytes, the header, a JSON object that has the type, shape and place of each tensor, and
the tensors, without gaps. One tensor is in memory at a time, so that a file may be larger than memory. Types that NumPy does
not have are read as codes. Source: the format's description in the package safetensors 0.8.
"""

from __future__ import annotations

import json
import math
import weakref
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from qsim.arrays import decode, encode
from qsim.errors import InputError, shown
from qsim.files import whole
from qsim.formats import get_format

__all__ = ["FLOATS", "PLAIN", "Tensor", "TensorFile", "TensorWriter", "stored"]

FLOATS: Mapping[str, str] = {
    "F64": "float64", "F32": "float32", "F16": "float16", "BF16": "bfloat16", "F8_E4M3": "float8_e4m3fn",
    "F8_E5M2": "float8_e5m2", "F8_E4M3FNUZ": "float8_e4m3fnuz", "F8_E5M2FNUZ": "float8_e5m2fnuz",
    "F8_E8M0": "float8_e8m0fnu",
}  # fmt: skip
"""The types of floats of whole bytes, and their formats. Codes of fewer bits are U8 here, packed as the metadata say."""

PLAIN: Mapping[str, str] = {
    "BOOL": "|b1", "U8": "|u1", "I8": "|i1", "U16": "<u2", "I16": "<i2", "U32": "<u4", "I32": "<i4", "U64": "<u8", "I64": "<i8",
    "F16": "<f2", "F32": "<f4", "F64": "<f8",
}  # fmt: skip
"""The types that NumPy has too."""

BITS = {"F4": 4, "F6_E2M3": 6, "F6_E3M2": 6, "C64": 64}
"""Bits of an element of further types, which are copied as they are."""

LARGEST_HEADER = 100_000_000
"""Bytes of a header, as the package has it."""


@dataclass(frozen=True, slots=True)
class Tensor:
    """Describe one tensor of a file: its name, type and shape, and where its bytes are."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    begin: int
    end: int

    @property
    def is_float(self) -> bool:
        """Whether its elements are floats of whole bytes."""
        return self.dtype in FLOATS


def _bytes_of(dtype: str, shape: tuple[int, ...]) -> int | None:
    """Return the bytes of a tensor; `None` for a type that is not known."""
    bits = 8 * np.dtype(PLAIN[dtype]).itemsize if dtype in PLAIN else BITS.get(dtype)
    if bits is None and dtype in FLOATS:
        bits = get_format(FLOATS[dtype]).bits
    return None if bits is None else -(-math.prod(shape) * bits // 8)


def _alignment(dtype: str) -> int:
    """Return the bytes of an element, 1 for those of fewer bits."""
    return max((_bytes_of(dtype, (8,)) or 8) // 8, 1)


class TensorFile:
    """Read a `.safetensors` file: `tensors` describes its tensors by name, in the order of their bytes."""

    def __init__(self, path: str | Path) -> None:
        """Read the header; raise `InputError` for a file that is none, or shorter or longer than its header says."""
        self.path = Path(path)
        try:
            self.file = self.path.open("rb")  # closed with this object
        except OSError as error:
            raise InputError(f"{path}: cannot be read ({error.strerror})") from None
        weakref.finalize(self, self.file.close)
        size = self.file.seek(0, 2)
        self.file.seek(0)
        length = int.from_bytes(self.file.read(8), "little")
        if size < 8 or not 2 <= length <= min(LARGEST_HEADER, size - 8):
            raise self._none("its first 8 bytes are no length of a header")
        try:
            header = json.loads(self.file.read(length))
        except (ValueError, RecursionError):
            raise self._none("its header is no JSON") from None
        if not isinstance(header, dict):
            raise self._none("its header is no JSON object")
        metadata = header.pop("__metadata__", {})
        if not isinstance(metadata, dict) or not all(isinstance(text, str) for text in metadata.values()):
            raise self._none("its metadata are no texts by name")
        self.metadata: dict[str, str] = metadata
        found = sorted((self._tensor(name, entry) for name, entry in header.items()), key=lambda t: (t.begin, t.end))
        self.tensors = {tensor.name: tensor for tensor in found}
        self.first, end = 8 + length, 0
        for tensor in found:
            if tensor.begin != end:
                raise self._none(f"the bytes of {shown(tensor.name)} do not follow those before")
            end = tensor.end
        if self.first + end != size:
            raise self._none(f"it has {size - self.first} bytes of tensors, and its header {end}")

    def _none(self, reason: str) -> InputError:
        return InputError(f"{self.path} cannot be read as .safetensors ({reason})")

    def _tensor(self, name: str, entry: Any) -> Tensor:
        try:
            dtype, shape, (begin, end) = entry["dtype"], tuple(entry["shape"]), entry["data_offsets"]
            whole_numbers = all(type(number) is int and number >= 0 for number in (*shape, begin, end))
        except (KeyError, TypeError, ValueError):
            raise self._none(f"the entry of {shown(name)} lacks dtype, shape or data_offsets") from None
        if not whole_numbers or not isinstance(dtype, str):
            raise self._none(f"the entry of {shown(name)} has other things than integers for shape and data_offsets")
        needed = _bytes_of(dtype, shape)
        if end < begin or (needed is not None and end - begin != needed):
            raise self._none(f"{shown(name)} has {end - begin} bytes, and its type and shape take {needed}")
        return Tensor(name, dtype, shape, begin, end)

    def bytes(self, name: str) -> bytes:
        """Return the bytes of a tensor."""
        tensor = self.tensors[name]
        self.file.seek(self.first + tensor.begin)
        return self.file.read(tensor.end - tensor.begin)

    def read(self, name: str) -> NDArray[Any]:
        """Return a tensor of a type in `FLOATS` or `PLAIN`: floats that NumPy lacks as float32, which holds them."""
        tensor = self.tensors[name]
        if tensor.dtype in PLAIN:
            return np.frombuffer(self.bytes(name), PLAIN[tensor.dtype]).reshape(tensor.shape)
        if tensor.dtype not in FLOATS:
            raise InputError(f"{self.path}: {shown(name)} is of type {tensor.dtype}, whose numbers are not read")
        fmt = get_format(FLOATS[tensor.dtype])
        codes = np.frombuffer(self.bytes(name), f"<u{fmt.bits // 8}")
        return decode(codes, fmt).reshape(tensor.shape)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.file.close()


class TensorWriter:
    """Write a `.safetensors` file, whole or not at all: its tensors are declared first, then written in any order."""

    def __init__(
        self, path: str | Path, declared: Mapping[str, tuple[str, tuple[int, ...]]], metadata: Mapping[str, str]
    ) -> None:
        """Write the header of tensors of these types and shapes."""
        header: dict[str, Any] = {"__metadata__": dict(metadata)} if metadata else {}
        self.places: dict[str, tuple[int, int]] = {}
        at = 0
        for name in sorted(declared, key=lambda name: -_alignment(declared[name][0])):  # every tensor is aligned then
            dtype, shape = declared[name]
            size = _bytes_of(dtype, shape)
            assert size is not None  # types are those of files that were read, and ours
            header[name] = {"dtype": dtype, "shape": list(shape), "data_offsets": [at, at + size]}
            self.places[name] = at, size
            at += size
        text = json.dumps(header, separators=(",", ":")).encode()
        text += b" " * (-len(text) % 8)  # tensors begin at a multiple of 8 bytes, as the package has them
        self.head, self.path = len(text).to_bytes(8, "little") + text, Path(path)

    def __enter__(self) -> Self:
        self._whole = whole(self.path)
        self._file = self._whole.__enter__()
        self._file.write(self.head)
        return self

    def write(self, name: str, data: NDArray[Any] | bytes) -> None:
        """Write a tensor: bytes, or an array of the type in the file."""
        at, size = self.places.pop(name)
        given = data if isinstance(data, bytes) else data.tobytes()
        assert len(given) == size
        self._file.seek(len(self.head) + at)
        self._file.write(given)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert kind is not None or not self.places
        self._whole.__exit__(kind, error, trace)


def stored(x: NDArray[Any], dtype: str) -> NDArray[Any]:
    """Return numbers as a file has them: in the type of NumPy, or as the codes of a type that NumPy lacks."""
    if dtype in PLAIN:
        return x.astype(PLAIN[dtype], copy=False)
    fmt = get_format(FLOATS[dtype])
    return encode(x, fmt, nan="signed" if fmt.has_neg_zero else None).astype(f"<u{fmt.bits // 8}", copy=False)
