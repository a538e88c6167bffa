"""Patches of images: the operands of a convolution, laid out as the rows of a matrix, and added up again.

An image (H, W, C), channels innermost, becomes a row a pixel of the result: the kh kw C numbers that its kernel covers, zeros
where that reaches over the edge. Row y Wo + x holds image[y stride - pad + i, x stride - pad + j, c] in column
(i kw + j) C + c. A line i of it lies in one piece in the image too, but for the parts cut off at the left and the right.
"""

from __future__ import annotations

import functools
from typing import Any

import numpy as np
from numpy import uint64
from numpy.typing import NDArray

from qsim.kernels.compiled import Array, kernel, portable

__all__ = ["add_patches", "layout", "take_patches"]


@functools.lru_cache(256)
def layout(
    shape: tuple[int, ...], kernel: tuple[int, int], stride: int, pad: int, size: tuple[int, int]
) -> NDArray[np.int64]:
    """Return the geometry for kernels: (n, H, W, C), (kh, kw), stride, pad, patches of an image, (Ho, Wo)."""
    return np.array([*shape, *kernel, stride, pad, *size], np.int64)


@portable
def numbers(layout: Any) -> Any:
    """Return the numbers of a `layout`."""
    return (
        layout[0], layout[1], layout[2], layout[3], layout[4], layout[5], layout[6], layout[7], layout[8], layout[9],
    )  # fmt: skip


@portable
def cut(x: Any, kw: Any, stride: Any, pad: Any, width: Any) -> Any:
    """Return where a line of the kernel begins in the image, and which of its columns lie inside."""
    left = x * stride - pad
    return left, min(max(-left, 0), kw), max(min(width - left, kw), 0)


@kernel()
def take_patches(images: Array, rows: Array, layout: Array) -> None:
    """Write the patches of flat `images`, of a `layout`, into flat `rows`."""
    count, height, width, channels, kh, kw, stride, pad, high, wide = numbers(layout)
    piece = uint64(kw * channels)
    at = uint64(0)
    for n in range(count):
        for y in range(high):
            for x in range(wide):
                left, first, end = cut(x, kw, stride, pad, width)
                zeros, some = uint64(first * channels), uint64(max(end - first, 0) * channels)
                for i in range(kh):
                    line = y * stride - pad + i
                    if line < 0 or line >= height:
                        for c in range(piece):
                            rows[at + uint64(c)] = 0
                    else:
                        begin = uint64(((n * height + line) * width + left + first) * channels)
                        if some == piece:
                            for c in range(piece):
                                rows[at + uint64(c)] = images[begin + uint64(c)]
                        else:
                            for c in range(piece):
                                rows[at + uint64(c)] = 0
                            for c in range(some):
                                rows[at + zeros + uint64(c)] = images[begin + uint64(c)]
                    at += piece


@kernel()
def add_patches(rows: Array, images: Array, layout: Array) -> None:
    """Add flat `rows` to the pixels of flat `images` that they were taken from, in the order of the rows."""
    count, height, width, channels, kh, kw, stride, pad, high, wide = numbers(layout)
    piece = uint64(kw * channels)
    at = uint64(0)
    for n in range(count):
        for y in range(high):
            for x in range(wide):
                left, first, end = cut(x, kw, stride, pad, width)
                zeros, some = uint64(first * channels), uint64(max(end - first, 0) * channels)
                for i in range(kh):
                    line = y * stride - pad + i
                    if line >= 0 and line < height:
                        begin = uint64(((n * height + line) * width + left + first) * channels)
                        for c in range(some):
                            images[begin + uint64(c)] += rows[at + zeros + uint64(c)]
                    at += piece
