"""Normalizations of images with the ReLU that follows them, forward and backward, each in few passes of the memory.

An image is flat, pixels before channels. With h = (x - mean) r, r = 1 / sqrt(variance + eps), over the numbers that are
normalized together, the result is y = gain h + shift, or max(y, 0). Backward, with s = gain g where y > 0 (g without a ReLU):

    to x: r (s - mean(s) - h mean(s h))      to gain: sum of g h      to shift: sum of g, both where y > 0

Sums run channel by channel in float64, over the pixels in order, so that no number of threads changes a bit.
"""

from __future__ import annotations

import numpy as np
from numpy import uint64

from qsim.kernels import compiled
from qsim.kernels.compiled import F64, I64, Array, kernel

__all__ = ["backward", "channel_sums", "forward", "gradient_sums", "moments"]


@kernel()
def channel_sums(x: Array, mean: Array, first: Array, second: Array) -> None:
    """Write into `first` and `second` the sums over the pixels of x (pixels, C) of x - mean and of its square, by channel."""
    pixels, channels = x.shape
    first[:] = 0
    second[:] = 0
    for p in range(pixels):
        row = x[p]
        for c in range(channels):
            d = np.float64(row[c]) - mean[c]
            first[c] += d
            second[c] += d * d


@kernel()
def moments(x: Array, groups: I64, mean: Array, scale: Array, eps: F64) -> None:
    """Write the mean of each group of channels of x (pixels, C), and r, both by channel, into `mean` and `scale`.

    Twice over the image: squares of differences from the mean lose no digits. Until the end `scale` has the sums.
    """
    pixels, channels = x.shape
    each = channels // groups
    scale[:] = 0
    for p in range(pixels):
        row = x[p]
        for c in range(channels):
            scale[c] += np.float64(row[c])
    for g in range(groups):
        total = 0.0
        for c in range(g * each, (g + 1) * each):
            total += scale[c]
        mean[g * each : (g + 1) * each] = total / (pixels * each)
    scale[:] = 0
    for p in range(pixels):
        row = x[p]
        for c in range(channels):
            d = np.float64(row[c]) - mean[c]
            scale[c] += d * d
    for g in range(groups):
        total = 0.0
        for c in range(g * each, (g + 1) * each):
            total += scale[c]
        scale[g * each : (g + 1) * each] = 1 / np.sqrt(total / (pixels * each) + eps)


@kernel()
def forward(x: Array, y: Array, mean: Array, scale: Array, gain: Array, shift: Array, relu: I64) -> None:
    """Write gain (x - mean) scale + shift into y (pixels, C), or its positive part.

    As many channels go together as there is room for on the stack.
    """
    pixels, channels = x.shape
    slope, start = compiled.room_like(x), compiled.room_like(x)
    least = x.dtype.type(0.0 if relu else -np.inf)
    for begin in range(0, channels, slope.size):
        count = min(slope.size, channels - begin)
        for c in range(count):
            k = uint64(begin) + uint64(c)
            slope[c] = gain[k] * scale[k]
            start[c] = shift[k] - gain[k] * scale[k] * mean[k]
        for p in range(pixels):
            row, out = x[p], y[p]
            for c in range(count):
                k = uint64(begin) + uint64(c)
                z = row[k] * slope[c] + start[c]
                out[k] = max(z, least)


@kernel()
def gradient_sums(
    x: Array, y: Array, g: Array, mean: Array, scale: Array, relu: I64, to_gain: Array, to_shift: Array
) -> None:
    """Write the sums over the pixels of g h and of g, by channel, where y > 0 if there is a ReLU."""
    pixels, channels = x.shape
    to_gain[:] = 0
    to_shift[:] = 0
    least = x.dtype.type(0.0 if relu else -np.inf)
    zero = x.dtype.type(0)
    for p in range(pixels):
        row, out, error = x[p], y[p], g[p]
        for c in range(channels):
            e = np.float64(error[c] if out[c] > least else zero)
            to_shift[c] += e
            to_gain[c] += e * ((np.float64(row[c]) - mean[c]) * scale[c])


@kernel()
def backward(
    x: Array, y: Array, g: Array, to_x: Array, mean: Array, scale: Array, gain: Array, relu: I64, mean_s: Array,
    mean_sh: Array,
) -> None:  # fmt: skip
    """Write the cotangent of x; `mean_s` and `mean_sh` are the means of s and of s h by channel, those of its group."""
    pixels, channels = x.shape
    a, b, d = compiled.room_like(x), compiled.room_like(x), compiled.room_like(x)
    least = x.dtype.type(0.0 if relu else -np.inf)
    zero = x.dtype.type(0)
    for begin in range(0, channels, a.size):
        count = min(a.size, channels - begin)
        for c in range(count):  # r (gain g - mean(s) - (x - mean) r mean(s h)) = a g + b x + d
            k = uint64(begin) + uint64(c)
            a[c] = scale[k] * gain[k]
            b[c] = -scale[k] * scale[k] * mean_sh[k]
            d[c] = scale[k] * (scale[k] * mean_sh[k] * mean[k] - mean_s[k])
        for p in range(pixels):
            row, out, error, result = x[p], y[p], g[p], to_x[p]
            for c in range(count):
                k = uint64(begin) + uint64(c)
                e = error[k] if out[k] > least else zero
                result[k] = a[c] * e + b[c] * row[k] + d[c]
