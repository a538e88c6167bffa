"""Normalizations of images with the ReLU that follows them, forward and backward, each in few passes of the memory.

An image is flat, pixels before channels. With h = (x - mean) r, r = 1 / sqrt(variance + eps), over the numbers that are
normalized together, the result is y = gain h + shift, or max(y, 0). Backward, with s = gain g where y > 0 (g without a ReLU):

    to x: r (s - mean(s) - h mean(s h))      to gain: sum of g h      to shift: sum of g, both where y > 0

Sums run channel by channel in float64, over the pixels in order, so that no number of threads changes a bit.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from qsim.kernels.compiled import jitted, portable

__all__ = ["backward", "channel_sums", "forward", "gradient_sums", "moments"]


@portable
def sum_channels(x: Any, mean: Any, first: Any, second: Any) -> None:
    """Do as `channel_sums`."""
    pixels, channels = x.shape
    first[:] = 0
    second[:] = 0
    for p in range(pixels):
        row = x[p]
        for c in range(channels):
            d = np.float64(row[c]) - mean[c]
            first[c] += d
            second[c] += d * d


@jitted
def channel_sums(x: Any, mean: Any, first: Any, second: Any) -> None:
    """Write into `first` and `second` the sums over the pixels of x (pixels, C) of x - mean and of its square, by channel."""
    sum_channels(x, mean, first, second)


@jitted
def moments(x: Any, groups: Any, mean: Any, scale: Any, eps: Any) -> None:
    """Write the mean of each group of channels of x (pixels, C), and r, both by channel, into `mean` and `scale`.

    Twice over the image: squares of differences from the mean lose no digits.
    """
    pixels, channels = x.shape
    each = channels // groups
    sums, squares = np.empty(channels), np.empty(channels)
    mean[:] = 0
    sum_channels(x, mean, sums, squares)
    for g in range(groups):
        mean[g * each : (g + 1) * each] = sums[g * each : (g + 1) * each].sum() / (pixels * each)
    sum_channels(x, mean, sums, squares)
    for g in range(groups):
        variance = squares[g * each : (g + 1) * each].sum() / (pixels * each)
        scale[g * each : (g + 1) * each] = 1 / np.sqrt(variance + eps)


@jitted
def forward(x: Any, y: Any, mean: Any, scale: Any, gain: Any, shift: Any, relu: Any) -> None:
    """Write gain (x - mean) scale + shift into y (pixels, C), or what of it is positive."""
    pixels, channels = x.shape
    slope, start = np.empty(channels, x.dtype), np.empty(channels, x.dtype)
    for c in range(channels):
        slope[c] = gain[c] * scale[c]
        start[c] = shift[c] - gain[c] * scale[c] * mean[c]
    least = x.dtype.type(0 if relu else -np.inf)
    for p in range(pixels):
        row, out = x[p], y[p]
        for c in range(channels):
            z = row[c] * slope[c] + start[c]
            out[c] = max(z, least)


@jitted
def gradient_sums(x: Any, y: Any, g: Any, mean: Any, scale: Any, relu: Any, to_gain: Any, to_shift: Any) -> None:
    """Write the sums over the pixels of g h and of g, by channel, where y > 0 if there is a ReLU."""
    pixels, channels = x.shape
    to_gain[:] = 0
    to_shift[:] = 0
    least = x.dtype.type(0 if relu else -np.inf)
    zero = x.dtype.type(0)
    for p in range(pixels):
        row, out, error = x[p], y[p], g[p]
        for c in range(channels):
            e = np.float64(error[c] if out[c] > least else zero)
            to_shift[c] += e
            to_gain[c] += e * ((np.float64(row[c]) - mean[c]) * scale[c])


@jitted
def backward(
    x: Any, y: Any, g: Any, to_x: Any, mean: Any, scale: Any, gain: Any, relu: Any, mean_s: Any, mean_sh: Any
) -> None:
    """Write the cotangent of x; `mean_s` and `mean_sh` are the means of s and of s h by channel, those of its group."""
    pixels, channels = x.shape
    a, b, d = np.empty(channels, x.dtype), np.empty(channels, x.dtype), np.empty(channels, x.dtype)
    for c in range(channels):  # r (gain g - mean(s) - (x - mean) r mean(s h)) = a g + b x + d
        a[c] = scale[c] * gain[c]
        b[c] = -scale[c] * scale[c] * mean_sh[c]
        d[c] = scale[c] * (scale[c] * mean_sh[c] * mean[c] - mean_s[c])
    least = x.dtype.type(0 if relu else -np.inf)
    zero = x.dtype.type(0)
    for p in range(pixels):
        row, out, error, result = x[p], y[p], g[p], to_x[p]
        for c in range(channels):
            e = error[c] if out[c] > least else zero
            result[c] = a[c] * e + b[c] * row[c] + d[c]
