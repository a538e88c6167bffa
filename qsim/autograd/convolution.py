"""Convolution of images, channels innermost, as products of matrices of patches."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from qsim.autograd.matmul import FivePoints
from qsim.autograd.tape import op
from qsim.errors import InputError
from qsim.kernels.patches import add_patches, layout, take_patches
from qsim.kernels.threads import in_chunks

__all__ = ["conv2d"]

Array = NDArray[Any]

TOGETHER = 1 << 18
"""Bytes of patches that are made and multiplied at a time: they fit a second-level cache, beside the result."""


@op(alone=(1, 4))
def conv2d(x: Array, w: Array, *, name: str, stride: int = 1, pad: int = 0) -> tuple[Array, Any]:
    """Return the cross-correlation of images with kernels, and the five quantization points at the sites of layer `name`.

    x: (draws, samples, H, W, C), w: (draws, m, kh, kw, C), result: (draws, samples, Ho, Wo, m), Ho = floor((H + 2 pad - kh) /
    stride) + 1. With zeros beyond the edge, and with i, j the pixel, o the output,

        y[s, i, j, o] = sum over u, v, c of x[s, i stride - pad + u, j stride - pad + v, c] w[o, u, v, c].

    The points are those of `linear`, the operands being the images, the kernels and the errors.
    Raise `InputError` for kernels that do not fit the images.
    """
    if x.ndim != 5 or w.ndim != 5 or stride < 1 or pad < 0:
        raise InputError(
            f"{name}: images (samples, H, W, C) are convolved with kernels (m, kh, kw, C), stride >= 1 and pad >= 0, "
            f"not {x.shape[1:]} with {w.shape[1:]}, stride {stride}, pad {pad}"
        )
    kh, kw, channels = w.shape[2:]
    high, wide = ((size + 2 * pad - k) // stride + 1 for size, k in zip(x.shape[2:4], (kh, kw), strict=True))
    if x.shape[-1] != channels or high < 1 or wide < 1:
        raise InputError(
            f"{name}: kernels of {kh}x{kw} pixels and {channels} channels, stride {stride}, pad {pad}, do not fit images of "
            f"{x.shape[2]}x{x.shape[3]} pixels and {x.shape[-1]} channels"
        )
    x = x.astype(np.result_type(x, w), copy=False)
    patches = Patches(x.shape[1:], (kh, kw), stride, pad, (high, wide), x.dtype)
    points = FivePoints(name, x, w, patches.rows)
    y = patches.convolve(points.x_forward, points.w_forward)

    def vjp(g: Array, wanted: tuple[bool, ...]) -> tuple[Array | None, ...]:
        for_x, for_w = points.errors(g)
        to_x = patches.to_images(for_x, points.weight()) if wanted[0] else None
        to_w = patches.to_kernels(for_w, points.act()).reshape(-1, *w.shape[1:]) if wanted[1] else None
        return points.through(to_x, to_w)

    return y, vjp


class Patches:
    """Multiply by patches, a few images at a time; how many depends on their shape alone, and so does every digit."""

    def __init__(
        self, shape: Any, kernel: tuple[int, int], stride: int, pad: int, size: tuple[int, int], dtype: Any
    ) -> None:
        self.samples, self.image = shape[0], shape[1:]
        self.kernel, self.stride, self.pad, self.size = kernel, stride, pad, size
        self.pixels, self.columns = size[0] * size[1], kernel[0] * kernel[1] * shape[-1]
        self.dtype = dtype
        self.together = max(1, min(self.samples, TOGETHER // max(self.pixels * self.columns * dtype.itemsize, 1)))
        self.chunks = -(-self.samples // self.together)
        # A kernel of one pixel that steps by one reads the image as it lies.
        self.plain = kernel == (1, 1) and stride == 1 and pad == 0

    def some(self, k: int) -> slice:
        """Return the samples of chunk k."""
        return slice(k * self.together, min((k + 1) * self.together, self.samples))

    def of(self, images: Array) -> Array:
        """Return the patches of some images, one a row."""
        if self.plain:
            return images.reshape(-1, self.columns)
        rows = np.empty((len(images) * self.pixels, self.columns), self.dtype)
        take_patches(images.reshape(-1), rows.reshape(-1), self.layout(len(images)))
        return rows

    def layout(self, images: int) -> Array:
        """Return the layout of so many images."""
        return layout((images, *self.image), self.kernel, self.stride, self.pad, self.size)

    def rows(self, x: Array) -> Array:
        """Return all patches of all draws, (draws, samples, pixels, kh kw C)."""
        return np.stack([self.of(images).reshape(len(images), self.pixels, -1) for images in np.ascontiguousarray(x)])

    def each(self, draws: int, work: Any) -> None:
        """Call work(d, chunk, samples) for all chunks of all draws."""

        def go(k: int) -> None:
            d, chunk = divmod(k, self.chunks)
            work(d, chunk, self.some(chunk))

        in_chunks(draws * self.chunks, draws * self.samples * self.pixels * self.columns, go)

    def convolve(self, x: Array, w: Array) -> Array:
        """Return the convolution of images x with kernels w."""
        draws, outputs = max(len(x), len(w)), w.shape[1]
        y = np.empty((draws, self.samples, self.pixels, outputs), self.dtype)
        x = np.ascontiguousarray(x)
        flat = w.reshape(len(w), outputs, -1)

        def work(d: int, _: int, some: slice) -> None:
            np.matmul(self.of(_at(x, d)[some]), _at(flat, d).T, out=y[d, some].reshape(-1, outputs))

        self.each(draws, work)
        return y.reshape(draws, self.samples, *self.size, outputs)

    def to_images(self, e: Array, w: Array) -> Array:
        """Return the gradient with respect to the images, given errors e and kernels w."""
        draws, outputs = max(len(e), len(w)), w.shape[1]
        e = np.ascontiguousarray(e)
        flat = w.reshape(len(w), outputs, -1)
        to_x = (np.empty if self.plain else np.zeros)((draws, self.samples, *self.image), self.dtype)

        def work(d: int, _: int, some: slice) -> None:
            errors, target = _at(e, d)[some].reshape(-1, outputs), to_x[d, some]
            if self.plain:
                np.matmul(errors, _at(flat, d), out=target.reshape(-1, self.columns))
                return
            rows = errors @ _at(flat, d)
            add_patches(rows.reshape(-1), target.reshape(-1), self.layout(len(target)))

        self.each(draws, work)
        return to_x

    def to_kernels(self, e: Array, x: Array) -> Array:
        """Return the gradient with respect to the kernels, given errors e and inputs x: the chunks' sums, in order."""
        draws, outputs = max(len(e), len(x)), e.shape[-1]
        e, x = np.ascontiguousarray(e), np.ascontiguousarray(x)
        parts = np.empty((draws, self.chunks, outputs, self.columns), self.dtype)

        def work(d: int, chunk: int, some: slice) -> None:
            np.matmul(_at(e, d)[some].reshape(-1, outputs).T, self.of(_at(x, d)[some]), out=parts[d, chunk])

        self.each(draws, work)
        total: Array = parts.sum(1)
        return total


def _at(array: Array, draw: int) -> Array:
    """Return the first draw of an array that may be the same for all draws."""
    one: Array = array[min(draw, len(array) - 1)]
    return one
