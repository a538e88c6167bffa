"""The multilayer perceptron."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from qsim.autograd import cross_entropy, linear, relu
from qsim.autograd.tape import evaluable
from qsim.errors import InputError

__all__ = ["MLP"]

Array = NDArray[Any]


@dataclass(frozen=True, slots=True)
class MLP:
    """A multilayer perceptron with ReLU between its layers `layer0`, `layer1`, ..., and softmax cross-entropy.

    `widths`: input, hidden ..., classes. Parameters: {"layer0": {"w": (m, n), "b": (m,)}, ...}.
    """

    widths: Sequence[int]

    def __post_init__(self) -> None:
        if len(self.widths) < 2 or any(not isinstance(width, int | np.integer) or width < 1 for width in self.widths):
            raise InputError(
                f"widths = {self.widths!r} of an MLP are at least two positive integers: inputs ..., classes"
            )

    @property
    def layers(self) -> tuple[str, ...]:
        """The names of the linear layers, from the input on."""
        return tuple(f"layer{i}" for i in range(len(self.widths) - 1))

    def init(self, rng: np.random.Generator, dtype: Any = np.float64) -> dict[str, dict[str, Array]]:
        """Return random parameters: w normal with variance 2/n (He et al. 2015), b zero."""
        return {
            name: {"w": (rng.standard_normal((m, n)) * np.sqrt(2 / n)).astype(dtype), "b": np.zeros(m, dtype)}
            for name, n, m in zip(self.layers, self.widths[:-1], self.widths[1:], strict=True)
        }

    @evaluable("layer0.w", 2)
    def logits(self, params: Any, x: Any) -> Any:
        """Return the class scores of the samples `x`."""
        hidden = x
        for name in self.layers:
            hidden = linear(hidden, params[name]["w"], params[name]["b"], name=name)
            if name != self.layers[-1]:
                hidden = relu(hidden)
        return hidden

    @evaluable("layer0.w", 2)
    def loss(self, params: Any, batch: tuple[Any, Any]) -> Any:
        """Return the mean cross-entropy of a batch (x, labels)."""
        x, labels = batch
        return cross_entropy(self.logits(params, x), labels)
