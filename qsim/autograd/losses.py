"""Losses: means over the samples, and their gradients."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from qsim.autograd.context import current
from qsim.autograd.tape import op, owe
from qsim.errors import InputError

__all__ = ["cross_entropy", "mean_squared_error"]

Array = NDArray[Any]


def _share(g: Array, samples: int) -> Array:
    """Return each sample's share of the cotangent g of a mean: all of it where the tape divides by b later, or g / b.

    Where the context rounds errors per sample they are those of the samples, and the gradients are divided by b at the end.
    """
    if current().errors == "per_sample":
        owe(samples)
        return g
    part: Array = g / g.dtype.type(samples)
    return part


@op(alone=(0, 2))
def cross_entropy(logits: Array, labels: Array) -> tuple[Array, Any]:
    """Return the mean over the samples of -log softmax(logits)[label], shape (draws,).

    logits: (draws, ..., classes), labels: (draws, ...), integers. A sample is an element of labels: the character, of a text.
    Outside a tape: (samples, classes) and (samples,), or with the axis of draws.
    Where the context rounds errors per sample those sent back are softmax - onehot, and the 1/b of the mean is owed to the
    tape, which divides the gradients by b at the end. A class whose logit is -inf has probability 0, and a sample of that label
    the loss inf; an infinite logit, or none that is above -inf, makes the loss of the sample NaN, as in PyTorch.
    Raise `InputError` for labels that are none.
    """
    if logits.ndim < 2:
        raise InputError(f"logits are (samples, classes), not an array of shape {logits.shape[1:]}")
    classes = logits.shape[-1]
    if labels.shape[1:] != logits.shape[1:-1] or not labels.size or not classes:
        asked, found = math.prod(logits.shape[1:-1]), math.prod(labels.shape[1:])
        said = f"{found} labels for {asked} samples"
        if asked == found:
            said = f"labels of shape {labels.shape[1:]} for logits of shape {logits.shape[1:]}"
        raise InputError(f"{said}; give one label a sample, and a sample")
    if labels.dtype.kind not in "iu" or not 0 <= labels.min() <= labels.max() < classes:
        raise InputError(f"labels must be integers in 0 .. {classes - 1}")
    samples = math.prod(logits.shape[1:-1])
    flat = logits.reshape(len(logits), samples, classes)
    which = labels.reshape(len(labels), samples)
    shifted = flat - flat.max(-1, keepdims=True)
    log_p = shifted - np.log(np.exp(shifted).sum(-1, keepdims=True))
    draw: Any = np.arange(len(log_p))[:, None] if len(log_p) > 1 else 0
    of_label = log_p[draw, np.arange(samples), which]

    def vjp(g: Array, _: tuple[bool, ...]) -> tuple[Array | None, ...]:
        onehot = which[..., None] == np.arange(classes)
        errors = (np.exp(log_p) - onehot) * _share(g, samples)[:, None, None]
        return errors.reshape(len(errors), *logits.shape[1:]), None

    return -of_label.mean(-1), vjp


@op(alone=(0, 2))
def mean_squared_error(y: Array, target: Array) -> tuple[Array, Any]:
    """Return the mean over the samples of |y - target|^2 / 2, shape (draws,).

    y and target: (draws, samples, n); outside a tape (samples, n), or with the axis of draws. Errors are y - target, the 1/b of
    the mean as in `cross_entropy`. Raise `InputError` for shapes that differ.
    """
    if y.ndim < 2 or y.shape[1:] != target.shape[1:] or not target.size:
        raise InputError(f"targets of shape {target.shape[1:]} for results of shape {y.shape[1:]}")
    difference = y - target
    samples = y.shape[1]

    def vjp(g: Array, _: tuple[bool, ...]) -> tuple[Array | None, ...]:
        share = _share(g, samples)
        return difference * share.reshape(-1, *(1,) * (difference.ndim - 1)), None

    return (difference**2).sum(tuple(range(2, y.ndim))).mean(-1) / 2, vjp
