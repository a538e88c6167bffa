"""Packing of codes to bytes: `pack` and `unpack` for codes of 1 to 32 bits, in two orders of the bits.

The codes along the axis form one stream of bits, which is cut into bytes; the last byte is filled up with zeros.
Codes a, b, c of 3 bits, a2 the most significant bit of a (`.` is padding):

    bit of the byte      7  6  5  4  3  2  1  0    7  6  5  4  3  2  1  0
                         -------- byte 0 -------   -------- byte 1 -------
    order="little"       c1 c0 b2 b1 b0 a2 a1 a0   .  .  .  .  .  .  .  c2
    order="big"          a2 a1 a0 b2 b1 b0 c2 c1   c0 .  .  .  .  .  .  .

"little" is the order of ONNX (tensors of 2, 4 and 6 bits, flattened to one row, and operator Pack), of PyTorch's
`float4_e2m1fn_x2`, of GPTQ's weights (whose 32-bit words are such bytes, little-endian) and of
`numpy.packbits(bitorder="little")`. "big" is that of bitsandbytes' 4-bit types (the first of two in the high nibble) and
of `numpy.packbits` by default. llama.cpp's Q4_0 has neither: it pairs element i of a block of 32 with element i + 16.
"""

from __future__ import annotations

import math
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from qsim.arrays import as_array
from qsim.errors import InputError, integer
from qsim.formats import Format, get_format

__all__ = ["pack", "unpack"]

Order = Literal["little", "big"]

WIDEST = 32
"""Bits of the widest codes that are packed."""


def pack(codes: ArrayLike, fmt: str | Format | int, *, axis: int = -1, order: Order = "little") -> NDArray[np.uint8]:
    """Return the bytes that hold codes without gaps.

    Args:
        codes: Integers in 0 .. 2^b - 1, of any shape with an axis.
        fmt: A format, whose codes have b bits, or b itself, 1 to 32.
        axis: The axis along which codes are packed.
        order: Code i takes the bits b i ... b i + b - 1 of the stream. "little": from its least significant bit to its most;
            bit k of the stream is bit k % 8 of byte k // 8, bit 0 the least significant. "big": from its most significant bit
            to its least; bit k is bit 7 - k % 8 of byte k // 8. The bits after the last code are zero.

    Returns:
        Bytes of the shape of `codes`, with ceil(n b / 8) for n along `axis`.

    Raises:
        InputError: for codes that are not integers in 0 .. 2^b - 1, or an argument that makes no sense.
    """
    bits = _bits(fmt)
    parts = _parts(bits, order)
    array = as_array(codes, "codes")
    if array.dtype.kind not in "iu":
        raise InputError(f"codes are integers, not {array.dtype}")
    if array.size and not 0 <= int(array.min()) <= int(array.max()) < 1 << bits:
        raise InputError(f"codes of {bits} bits are 0 .. {(1 << bits) - 1}, not {array.min()} .. {array.max()}")
    axis = _axis(axis, array.ndim, "codes")
    rows = np.moveaxis(array, axis, -1)
    count = rows.shape[-1]
    per_group, bytes_per_group, groups = _groups(bits, count)
    padded = np.zeros((*rows.shape[:-1], groups * per_group), _code_dtype(bits))
    padded[..., :count] = rows
    packed = np.zeros((*rows.shape[:-1], groups * bytes_per_group), np.uint8)
    source, target = padded.reshape(-1, per_group), packed.reshape(-1, bytes_per_group)
    for i, j, left in parts:
        target[:, j] |= _shift(source[:, i], left).astype(np.uint8)
    return np.ascontiguousarray(np.moveaxis(packed[..., : _bytes(bits, count)], -1, axis))


def unpack(
    data: NDArray[np.uint8], fmt: str | Format | int, count: int, *, axis: int = -1, order: Order = "little"
) -> NDArray[Any]:
    """Return the codes that `pack` made bytes of.

    Args:
        data: Bytes, uint8.
        fmt: The format, or the bits of a code, as in `pack`.
        count: The number of codes along `axis`, which the bytes do not say: 3 codes of 2 bits and 4 take one byte each.
        axis: The axis along which codes are packed.
        order: The order of bits, as in `pack`.

    Returns:
        The codes in the smallest unsigned type that holds them.

    Raises:
        InputError: if `data` are not uint8, not the bytes of so many codes, or hold a bit after the last code.
    """
    bits = _bits(fmt)
    parts = _parts(bits, order)
    array = as_array(data, "data")
    if array.dtype != np.uint8:
        raise InputError(f"packed codes are bytes (uint8), not {array.dtype}")
    count = integer("count", count)
    axis = _axis(axis, array.ndim, "data")
    rows = np.moveaxis(array, axis, -1)
    size = rows.shape[-1]
    if count < 0:
        raise InputError(f"count = {count} must be 0 or more, the number of codes along the axis")
    if size != _bytes(bits, count):
        raise InputError(
            f"{count} codes of {bits} bits take {_bytes(bits, count)} bytes, not the {size} along the axis"
        )
    per_group, bytes_per_group, groups = _groups(bits, count)
    padded = np.zeros((*rows.shape[:-1], groups * bytes_per_group), np.uint8)
    padded[..., :size] = rows
    codes = np.zeros((*rows.shape[:-1], groups * per_group), _code_dtype(bits))
    source, target = padded.reshape(-1, bytes_per_group), codes.reshape(-1, per_group)
    for i, j, left in parts:
        target[:, i] |= _shift(source[:, j].astype(codes.dtype), -left)
    codes &= codes.dtype.type((1 << bits) - 1)  # the neighbours' bits, which came along above the code
    if codes[..., count:].any():
        raise InputError(f"bits after the last of {count} codes of {bits} bits are set; count, fmt or order is another")
    return np.ascontiguousarray(np.moveaxis(codes[..., :count], -1, axis))


# --- Behind the border ---------------------------------------------------------------------------------------------


def _groups(bits: int, count: int) -> tuple[int, int, int]:
    """Return the fewest codes that fill whole bytes, their bytes, and the number of such groups for `count` codes."""
    common = math.gcd(bits, 8)
    return 8 // common, bits // common, -(-count // (8 // common))


def _parts(bits: int, order: Order) -> list[tuple[int, int, int]]:
    """Return where the codes of a group lie: (i, j, left) if code i, shifted left, gives its bits in byte j.

    The least significant bit of code i is bit b i of the stream for "little", hence bit b i - 8 j of byte j, and bit
    b (i + 1) - 1 for "big", hence bit 8 (j + 1) - b (i + 1) of byte j. Out of 0 .. 7 it is a bit of another byte, and the
    shift, to the right if negative, drops it.
    """
    if order not in ("little", "big"):
        raise InputError(f"order = {order!r} must be 'little' or 'big'")
    per_group, bytes_per_group, _ = _groups(bits, 0)
    return [
        (i, j, bits * i - 8 * j if order == "little" else 8 * (j + 1) - bits * (i + 1))
        for i in range(per_group)
        for j in range(bytes_per_group)
        if bits * i < 8 * (j + 1) and 8 * j < bits * (i + 1)
    ]


def _shift(words: NDArray[Any], left: int) -> NDArray[Any]:
    return words << left if left >= 0 else words >> -left


def _bytes(bits: int, count: int) -> int:
    return -(-bits * count // 8)


def _code_dtype(bits: int) -> np.dtype[Any]:
    return np.min_scalar_type((1 << bits) - 1)


def _bits(fmt: str | Format | int) -> int:
    if not isinstance(fmt, str | Format) and (isinstance(fmt, bool) or not hasattr(fmt, "__index__")):
        raise InputError(f"fmt = {fmt!r} must be a format or a number of bits")
    bits = get_format(fmt).bits if isinstance(fmt, str | Format) else integer("fmt", fmt)
    if not 1 <= bits <= WIDEST:
        raise InputError(f"fmt = {fmt}: codes of {bits} bits cannot be packed; those of 1 to {WIDEST} bits can")
    return bits


def _axis(axis: int, ndim: int, what: str) -> int:
    if not ndim:
        raise InputError(f"{what} without an axis are a single number; give an array of one axis or more")
    axis = integer("axis", axis)
    if not -ndim <= axis < ndim:
        raise InputError(f"axis = {axis} is not one of the {ndim} of the {what}: {-ndim} .. {ndim - 1}")
    return axis
