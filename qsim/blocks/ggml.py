"""Bytes of blocks as llama.cpp stores them in GGUF files: the scale, then the codes of 32 elements.

    mxfp4    1 byte E8M0, 16 bytes: element i in the low half of byte i, element i + 16 in the high one
    q4_0     2 bytes float16, 16 bytes likewise, of codes in offset binary: -8 is 0
    q8_0     2 bytes float16, 32 bytes int8

Numbers of several bytes are little-endian. Source: ggml, ggml-common.h, block_mxfp4, block_q4_0, block_q8_0.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from qsim.blocks.encoded import Encoded
from qsim.blocks.formats import BlockFormat, get_block_format
from qsim.blocks.recipes import Recipe, get_recipe
from qsim.errors import InputError

__all__ = ["from_ggml", "to_ggml"]

OFFSET = {"mxfp4_e2m1": 0, "q4_0": 8, "q8_0": 0}
"""What the codes of a format are turned by, bit for bit."""


def to_ggml(e: Encoded) -> NDArray[np.uint8]:
    """Return the bytes of blocks along the last axis: the shape of the scales, their last axis times the bytes of a block."""
    bits = _bits(e.format)
    if e.axes != (e.codes.ndim - 1,) or e.shape[-1] % 32:
        raise InputError("ggml has blocks of 32 along the last axis, all of them whole")
    scales = np.ascontiguousarray(e.scales)[..., None]
    head = scales.astype("<u2").view(np.uint8) if e.format.scale.bits == 16 else scales.astype(np.uint8)
    codes = (e.codes.reshape(*e.scales.shape, 32) ^ OFFSET[e.format.name]).astype(np.uint8)
    body = codes if bits == 8 else codes[..., :16] | codes[..., 16:] << 4
    return np.concatenate([head, body], -1).reshape(*e.scales.shape[:-1], -1)


def from_ggml(data: NDArray[np.uint8], fmt: str | BlockFormat, recipe: str | Recipe | None = None) -> Encoded:
    """Return the blocks that these bytes hold, along the last axis."""
    found = get_block_format(fmt)
    bits = _bits(found)
    head = -(-found.scale.bits // 8)
    size = head + 4 * bits
    if data.dtype != np.uint8 or not data.ndim or data.shape[-1] % size:
        raise InputError(f"blocks of {found} are bytes, {size} each along the last axis, not {data.dtype} {data.shape}")
    blocks = np.ascontiguousarray(data).reshape(*data.shape[:-1], data.shape[-1] // size, size)
    scales = np.ascontiguousarray(blocks[..., :head]).view("<u2" if head == 2 else np.uint8)[..., 0]
    body = blocks[..., head:]
    codes = body if bits == 8 else np.concatenate([body & 15, body >> 4], -1)
    codes = (codes ^ np.uint8(OFFSET[found.name])).reshape(*data.shape[:-1], -1)
    made = found.recipe if recipe is None else recipe
    return Encoded(
        found, codes, scales.astype(np.uint16 if head == 2 else np.uint8), axes=(data.ndim - 1,),
        recipe=get_recipe(made) if made else None,
    )  # fmt: skip


def _bits(fmt: BlockFormat) -> int:
    if fmt.name not in OFFSET:
        raise InputError(f"ggml has no blocks of {fmt}; it has {', '.join(OFFSET)}")
    return fmt.element.bits
