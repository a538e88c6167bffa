"""Normalizations: over groups of channels, over the batch, over the last axis."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from qsim.autograd.context import current
from qsim.autograd.tape import op
from qsim.errors import InputError, enumerate_names
from qsim.kernels import normalization
from qsim.kernels.threads import in_chunks

__all__ = ["batch_norm", "group_norm", "layer_norm", "rms_norm"]

Array = NDArray[Any]
Vjp = Any

EPS = 1e-5


@op(alone=(1, 1))
def group_norm(
    x: Array, gain: Array, shift: Array, *, groups: int, relu: bool = False, eps: float = EPS
) -> tuple[Array, Vjp]:
    """Return gain h + shift, h being `x` less its mean over sqrt(variance + eps), over the pixels and channels of a group.

    x: (draws, samples, H, W, C), gain and shift: (draws, C). C is a multiple of `groups`, which take neighbouring channels.
    With `relu` the result is max(., 0), in the same pass. Raise `InputError` for groups that do not divide the channels.
    Source: Wu and He, "Group Normalization", ECCV 2018.
    """
    _check(x, 5, gain, shift)
    channels = x.shape[-1]
    if groups < 1 or channels % groups:
        raise InputError(f"groups = {groups} does not divide {channels} channels")
    draws = max(len(x), len(gain), len(shift))
    images = _images(x, draws)
    samples = images.shape[1]
    y = np.empty_like(images)
    mean, scale = (np.empty((draws, samples, channels)) for _ in range(2))

    def go(k: int) -> None:
        d, n = divmod(k, samples)
        normalization.moments(images[d, n], groups, mean[d, n], scale[d, n], eps)
        normalization.forward(images[d, n], y[d, n], mean[d, n], scale[d, n], _of(gain, d), _of(shift, d), relu)

    in_chunks(draws * samples, images.size, go)

    def vjp(g: Array, wanted: tuple[bool, ...]) -> tuple[Array | None, ...]:
        errors = _images(g, max(len(g), draws))
        to_x = np.empty(errors.shape, x.dtype)
        to_gain, to_shift = np.empty((len(errors), samples, channels)), np.empty((len(errors), samples, channels))

        def back(k: int) -> None:
            e, n = divmod(k, samples)
            d = min(e, draws - 1)  # draws of errors may share one of images
            own = images[d, n], y[d, n], errors[e, n]
            known = mean[d, n], scale[d, n]
            normalization.gradient_sums(*own, *known, relu, to_gain[e, n], to_shift[e, n])
            weight = _of(gain, d)
            means = (_group_means(weight * sums[e, n], groups, len(own[0])) for sums in (to_shift, to_gain))
            normalization.backward(*own, to_x[e, n], *known, weight, relu, *means)

        in_chunks(len(errors) * samples, errors.size, back)
        return (
            to_x.reshape(len(to_x), *x.shape[1:]),
            to_gain.sum(1).astype(gain.dtype) if wanted[1] else None,
            to_shift.sum(1).astype(shift.dtype) if wanted[2] else None,
        )

    return y.reshape(draws, *x.shape[1:]), vjp


@op(alone=(1, 1))
def batch_norm(
    x: Array,
    gain: Array,
    shift: Array,
    *,
    name: str,
    statistics: tuple[Array, Array] | None = None,
    relu: bool = False,
    eps: float = EPS,
) -> tuple[Array, Vjp]:
    """Return gain h + shift, h being `x` less its mean over sqrt(variance + eps), by channel over all pixels of all samples.

    x: (draws, samples, H, W, C), gain and shift: (draws, C). `statistics`: a mean and a variance, each (C,), taken for
    constants in place of the batch's own. The batch's own are left in `Numerics.observed[name]`, the variance with the
    divisor n - 1 as running averages want it; an empty batch has none. With `relu` the result is max(., 0), in the same pass.
    Source: Ioffe and Szegedy, "Batch Normalization", ICML 2015.
    """
    _check(x, 5, gain, shift, *(np.asarray(s)[None] for s in statistics or ()))
    channels = x.shape[-1]
    draws = max(len(x), len(gain), len(shift))
    images = _images(x, draws)
    samples, pixels = images.shape[1:3]
    total = samples * pixels
    y = np.empty_like(images)
    mean, scale = np.zeros((draws, channels)), np.empty((draws, channels))

    def sums(count: int, work: Any) -> tuple[Array, Array]:
        first, second = (np.empty((count, samples, channels)) for _ in range(2))
        in_chunks(count * samples, images.size, lambda k: work(*divmod(k, samples), first, second))
        return first.sum(1), second.sum(1)

    def of_channel(d: int, n: int, first: Array, second: Array) -> None:
        normalization.channel_sums(images[d, n], mean[d], first[d, n], second[d, n])

    if statistics is None:
        mean = sums(draws, of_channel)[0] / total
        variance = sums(draws, of_channel)[1] / total
        if total:
            current().observed[name] = (mean, variance * (total / max(total - 1, 1)))
    else:
        mean, variance = (np.broadcast_to(np.asarray(s, np.float64), (draws, channels)).copy() for s in statistics)
    scale = 1 / np.sqrt(variance + eps)

    def go(k: int) -> None:
        d, n = divmod(k, samples)
        normalization.forward(images[d, n], y[d, n], mean[d], scale[d], _of(gain, d), _of(shift, d), relu)

    in_chunks(draws * samples, images.size, go)

    def vjp(g: Array, wanted: tuple[bool, ...]) -> tuple[Array | None, ...]:
        errors = _images(g, max(len(g), draws))
        to_x = np.empty(errors.shape, x.dtype)

        def of_error(e: int, n: int, first: Array, second: Array) -> None:
            d = min(e, draws - 1)  # draws of errors may share one of images
            own = images[d, n], y[d, n], errors[e, n]
            normalization.gradient_sums(*own, mean[d], scale[d], relu, first[e, n], second[e, n])

        to_gain, to_shift = sums(len(errors), of_error)
        own = statistics is None
        means = [gain * part / total if own else np.zeros_like(part) for part in (to_shift, to_gain)]

        def back(k: int) -> None:
            e, n = divmod(k, samples)
            d = min(e, draws - 1)
            normalization.backward(
                images[d, n], y[d, n], errors[e, n], to_x[e, n], mean[d], scale[d], _of(gain, d), relu,
                means[0][e], means[1][e],
            )  # fmt: skip

        in_chunks(len(errors) * samples, errors.size, back)
        return (
            to_x.reshape(len(to_x), *x.shape[1:]),
            to_gain.astype(gain.dtype) if wanted[1] else None,
            to_shift.astype(shift.dtype) if wanted[2] else None,
        )

    return y.reshape(draws, *x.shape[1:]), vjp


def _check(x: Array, axes: int, *weights: Array) -> None:
    """Refuse weights that are not one a channel, and arrays of too few axes."""
    if x.ndim < axes or not x.shape[-1] or any(w.ndim != 2 or w.shape[1] != x.shape[-1] for w in weights):
        shapes = enumerate_names(str(w.shape[1:]) for w in weights)
        raise InputError(f"a normalization of {x.shape[1:]} takes {x.shape[-1]} numbers a weight, not shapes {shapes}")


def _images(x: Array, draws: int) -> Array:
    """Return `x` as (draws, samples, pixels, C), contiguous."""
    shape = draws, x.shape[1], math.prod(x.shape[2:-1]), x.shape[-1]
    whole = np.broadcast_to(x, (draws, *x.shape[1:])).reshape(shape)
    return np.ascontiguousarray(whole)


def _of(weights: Array, draw: int) -> Array:
    return np.ascontiguousarray(weights[min(draw, len(weights) - 1)], np.float64)


def _group_means(sums: Array, groups: int, pixels: int) -> Array:
    """Return for each channel the mean over its group, of which `sums` has the sums by channel."""
    each = len(sums) // groups
    return np.repeat(sums.reshape(groups, each).sum(1) / (pixels * each), each)


@op(alone=(1, 1))
def layer_norm(x: Array, gain: Array, shift: Array, *, eps: float = EPS) -> tuple[Array, Vjp]:
    """Return gain h + shift, h being `x` less its mean over sqrt(variance + eps), over the last axis.

    x: (draws, ..., n), gain and shift: (draws, n). Source: Ba, Kiros and Hinton, "Layer Normalization", 2016.
    """
    _check(x, 2, gain, shift)
    centred = x - x.mean(-1, keepdims=True)
    r = 1 / np.sqrt((centred**2).mean(-1, keepdims=True) + x.dtype.type(eps))
    h = centred * r
    weight = _like(gain, x)

    def vjp(g: Array, wanted: tuple[bool, ...]) -> tuple[Array | None, ...]:
        s = g * weight
        to_x = r * (s - s.mean(-1, keepdims=True) - h * (s * h).mean(-1, keepdims=True))
        return to_x, _over_samples(g * h) if wanted[1] else None, _over_samples(g) if wanted[2] else None

    return h * weight + _like(shift, x), vjp


@op(alone=(1, 1))
def rms_norm(x: Array, gain: Array, *, eps: float = EPS) -> tuple[Array, Vjp]:
    """Return gain x / sqrt(mean(x^2) + eps), the mean over the last axis.

    x: (draws, ..., n), gain: (draws, n). Source: Zhang and Sennrich, "Root Mean Square Layer Normalization", NeurIPS 2019.
    """
    _check(x, 2, gain)
    r = 1 / np.sqrt((x**2).mean(-1, keepdims=True) + x.dtype.type(eps))
    h = x * r
    weight = _like(gain, x)

    def vjp(g: Array, wanted: tuple[bool, ...]) -> tuple[Array | None, ...]:
        s = g * weight
        to_x = r * (s - h * (s * h).mean(-1, keepdims=True))
        return to_x, _over_samples(g * h) if wanted[1] else None

    return h * weight, vjp


def _like(weights: Array, x: Array) -> Array:
    """Return weights (draws, n) with the axes of `x` between."""
    return weights.reshape(len(weights), *(1,) * (x.ndim - 2), weights.shape[-1])


def _over_samples(g: Array) -> Array:
    """Return the sum over all axes between draws and the last one."""
    total: Array = g.reshape(len(g), math.prod(g.shape[1:-1]), g.shape[-1]).sum(1)
    return total
