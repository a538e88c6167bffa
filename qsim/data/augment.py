"""Order and augmentation of images by a counter-based generator: the same for a seed and a step, whoever asks and when.

Words are raw 64-bit words of NumPy's Philox4x64-10 with key (seed, step), whose stream is fixed, unlike that of
`numpy.random.Generator`'s methods. The last word of the counter names their purpose: 0 augmentation, 1 order; so both may
have one seed and one step.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from qsim.errors import InputError, integer

__all__ = ["augment", "shuffled", "standardize"]


AUGMENTATION, ORDER = 0, 1


def _words(seed: int, step: int, count: int, use: int) -> NDArray[np.uint64]:
    """Return the first `count` words of (seed, step) for this use."""
    numbers = {"seed": integer("seed", seed), "step": integer("step", step)}
    for name, number in numbers.items():
        if not 0 <= number < 1 << 64:
            raise InputError(f"{name} = {number} must be an integer of 64 bits")
    key, counter = np.array(list(numbers.values()), np.uint64), np.array([0, 0, 0, use], np.uint64)
    words: NDArray[np.uint64] = np.random.Philox(key=key, counter=counter).random_raw(count)
    return words


def shuffled(count: int, seed: int, epoch: int) -> NDArray[np.int64]:
    """Return the numbers 0 ... count - 1 in the order of their words of (seed, epoch)."""
    if integer("count", count) < 0:
        raise InputError(f"count = {count} must be at least 0: so many samples are put in order")
    return np.argsort(_words(seed, epoch, count, ORDER), kind="stable")


def augment(x: NDArray[Any], seed: int, step: int, *, pad: int = 4, flip: bool = True) -> NDArray[Any]:
    """Return images (n, height, width, channels) padded by `pad` zeros on each side, cropped at random, and mirrored at random.

    The standard augmentation of 32x32 images. With K = 2 pad + 1 and k = w % (2 K^2), w being word i of (seed, step), image i
    is cropped at row k % K and column k // K % K of the padded image, and with `flip` mirrored, left to right, iff k >= K^2.
    The remainder favours no outcome by more than 2^-64.
    Source: Lee et al., "Deeply-Supervised Nets", AISTATS 2015, section 4; He et al. 2016.
    """
    if x.ndim != 4 or integer("pad", pad) < 0:
        raise InputError(f"augment takes images (n, height, width, channels) and pad >= 0, not {x.shape} and {pad}")
    reach = 2 * pad + 1
    k = (_words(seed, step, len(x), AUGMENTATION) % np.uint64(2 * reach * reach)).astype(np.int64)
    height, width = x.shape[1:3]
    padded = np.pad(x, ((0, 0), (pad, pad), (pad, pad), (0, 0)))
    rows = (k % reach)[:, None] + np.arange(height)
    columns = np.arange(width)[None].repeat(len(x), 0)
    if flip:
        columns = np.where((k >= reach * reach)[:, None], columns[:, ::-1], columns)
    columns = columns + (k // reach % reach)[:, None]
    cropped: NDArray[Any] = padded[np.arange(len(x))[:, None, None], rows[:, :, None], columns[:, None, :]]
    return cropped


def standardize(x: NDArray[np.uint8], like: NDArray[np.uint8], dtype: Any = np.float32) -> NDArray[Any]:
    """Return pixels less the channel means of `like` (the training images), divided by its channel deviations.

    Both are computed in float64 from exact integer sums of bytes, then rounded to `dtype`, in which the result is computed.
    """
    for name, pixels in (("x", x), ("like", like)):
        if not isinstance(pixels, np.ndarray) or pixels.dtype != np.uint8 or not pixels.ndim:
            found = pixels.dtype if isinstance(pixels, np.ndarray) else type(pixels).__name__
            raise InputError(f"{name} is {found}; standardize takes pixels as arrays of uint8, channels last")
    if x.shape[-1] != like.shape[-1] or not like.size:
        raise InputError(
            f"x of shape {x.shape} has no channel means in `like` of shape {like.shape}; both have the same channels, last"
        )
    axes = tuple(range(like.ndim - 1))
    count = like.size // like.shape[-1]
    total = like.sum(axes, dtype=np.int64)
    squares = np.square(like, dtype=np.uint16).sum(axes, dtype=np.int64)
    mean = total / count
    deviation = np.sqrt((count * squares.astype(object) - total.astype(object) ** 2).astype(np.float64)) / count
    deviation = np.where(deviation > 0, deviation, 1.0)
    number = np.dtype(dtype).type
    standardized: NDArray[Any] = (x.astype(dtype) - mean.astype(number)) / deviation.astype(number)
    return standardized
