"""Models and their layers: operations of the tape, with the roundings that the numerics context puts at their sites."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from qsim.autograd import Var, current, op, owe
from qsim.errors import InputError

__all__ = ["MLP", "cross_entropy", "linear", "relu"]

Array = NDArray[Any]


@op
def linear(x: Array, w: Array, b: Array, *, name: str) -> tuple[Array, Any]:
    """Return x w^T + b, with the five quantization points of Liu et al. at the sites of layer `name`.

    x: (draws, samples, n), w: (draws, m, n), b: (draws, m). Forward: Q(x; fwd_act) Q(w; fwd_weight)^T + b. Backward, with
    the error e = Q(g; bwd_grad): x gets e Q(w; bwd_weight), w gets e^T Q(x; bwd_act), b gets the sum of e.
    """
    context = current()
    context.enrol(name)
    x_forward = context.round(name, "fwd_act", x)
    w_forward = context.round(name, "fwd_weight", w)

    def vjp(g: Array, wanted: tuple[bool, ...]) -> tuple[Array | None, ...]:
        e = context.round(name, "bwd_grad", g)
        to_x = e @ context.round(name, "bwd_weight", w, otherwise=w_forward) if wanted[0] else None
        to_w = e.swapaxes(-1, -2) @ context.round(name, "bwd_act", x, otherwise=x_forward) if wanted[1] else None
        return to_x, to_w, e.sum(-2) if wanted[2] else None

    return x_forward @ w_forward.swapaxes(-1, -2) + b[..., None, :], vjp


@op
def relu(x: Array) -> tuple[Array, Any]:
    """Return max(x, 0); its derivative at 0 is 0."""
    mask = x > 0
    return x * mask, lambda g, _: (g * mask,)


@op
def cross_entropy(logits: Array, labels: Array) -> tuple[Array, Any]:
    """Return the mean over the samples of -log softmax(logits)[label], shape (draws,).

    logits: (draws, samples, classes), labels: (draws, samples), integers. Where the context rounds errors per sample the
    errors sent back are those of the samples, softmax - onehot, and the 1/b of the mean is owed to the tape, which
    divides the gradients by b at the end.
    Raise `InputError` for labels that are none.
    """
    classes = logits.shape[-1]
    if labels.shape[-1] != logits.shape[-2] or not labels.size:
        raise InputError(
            f"{labels.shape[-1]} labels for {logits.shape[-2]} samples; give one label a sample, and a sample"
        )
    if labels.dtype.kind not in "iu" or not 0 <= labels.min() <= labels.max() < classes:
        raise InputError(f"labels must be integers in 0 .. {classes - 1}")
    shifted = logits - logits.max(-1, keepdims=True)
    log_p = shifted - np.log(np.exp(shifted).sum(-1, keepdims=True))
    onehot = labels[..., None] == np.arange(classes)
    samples = logits.shape[-2]
    per_sample = current().errors == "per_sample"

    def vjp(g: Array, _: tuple[bool, ...]) -> tuple[Array | None, ...]:
        if per_sample:
            owe(samples)
        return (np.exp(log_p) - onehot) * (g if per_sample else g / samples)[:, None, None], None

    return -(log_p * onehot).sum(-1).mean(-1), vjp


@dataclass(frozen=True, slots=True)
class MLP:
    """A multilayer perceptron with ReLU between its layers `layer0`, `layer1`, ..., and softmax cross-entropy.

    `widths`: input, hidden ..., classes. Parameters: {"layer0": {"w": (m, n), "b": (m,)}, ...}.
    """

    widths: Sequence[int]

    @property
    def layers(self) -> tuple[str, ...]:
        """The names of the linear layers, from the input on."""
        return tuple(f"layer{i}" for i in range(len(self.widths) - 1))

    def init(self, rng: np.random.Generator) -> dict[str, dict[str, Array]]:
        """Return random float64 parameters: w normal with variance 2/n (He et al. 2015), b zero."""
        return {
            name: {"w": rng.standard_normal((m, n)) * np.sqrt(2 / n), "b": np.zeros(m)}
            for name, n, m in zip(self.layers, self.widths[:-1], self.widths[1:], strict=True)
        }

    def logits(self, params: Any, x: Any) -> Any:
        """Return the class scores of the samples `x`."""
        hidden = x
        for name in self.layers:
            hidden = linear(hidden, params[name]["w"], params[name]["b"], name=name)
            if name != self.layers[-1]:
                hidden = relu(hidden)
        return hidden

    def loss(self, params: Any, batch: tuple[Any, Any]) -> Var:
        """Return the mean cross-entropy of a batch (x, labels)."""
        x, labels = batch
        loss: Var = cross_entropy(self.logits(params, x), labels)
        return loss
