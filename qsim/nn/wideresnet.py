"""Wide residual networks for small images."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from qsim.autograd import add, batch_norm, conv2d, cross_entropy, global_average_pool, group_norm, linear
from qsim.autograd.tape import evaluable
from qsim.errors import InputError

__all__ = ["WideResNet"]

Array = NDArray[Any]
Statistics = Mapping[str, tuple[Array, Array]]


@dataclass(frozen=True, slots=True)
class Block:
    """Describe one residual block: its place, and its numbers of channels."""

    stage: str
    name: str
    inputs: int
    outputs: int
    stride: int

    @property
    def path(self) -> str:
        """The name of the block among the parameters."""
        return f"{self.stage}.{self.name}"

    @property
    def projects(self) -> bool:
        """Whether the shortcut is a convolution of its own: where shapes differ."""
        return self.inputs != self.outputs or self.stride != 1


@dataclass(frozen=True, slots=True)
class WideResNet:
    """WRN-d-k: three stages of (d - 4) / 6 pre-activation blocks with 16 k, 32 k and 64 k channels; softmax cross-entropy.

    Images are (samples, 32, 32, 3), or of any other size; labels are (samples,). `norm`: "batch", or "group" with `groups`
    groups, under which no sample sees another. Parameters: {"stem": {"w": (16, 3, 3, 3)}, "stage0": {"block0": {"norm0":
    {"gain": (16,), "shift": (16,)}, "conv0": {"w": (m, 3, 3, n)}, ...}}, ..., "norm": ..., "head": {"w", "b"}}.
    Raise `InputError` for a depth that is not 6 n + 4. Source: Zagoruyko and Komodakis, "Wide Residual Networks", BMVC 2016.
    """

    depth: int
    widen: int
    classes: int = 10
    norm: Literal["batch", "group"] = "batch"
    groups: int = 8

    def __post_init__(self) -> None:
        if self.depth < 10 or (self.depth - 4) % 6:
            raise InputError(f"depth = {self.depth} of a WideResNet must be 6 n + 4: 10, 16, 22, 28, ...")
        if self.widen < 1 or self.classes < 2 or self.norm not in ("batch", "group") or self.groups < 1:
            raise InputError(
                f"a WideResNet has a widening of at least 1, at least 2 classes, and the norm 'batch' or 'group', not "
                f"{self.widen}, {self.classes} and {self.norm!r} with {self.groups} groups"
            )

    def blocks(self) -> Iterator[Block]:
        """Yield the blocks, from the input on."""
        inputs = 16
        for stage in range(3):
            outputs = 16 * self.widen << stage
            for number in range((self.depth - 4) // 6):
                stride = 2 if stage and not number else 1
                yield Block(f"stage{stage}", f"block{number}", inputs, outputs, stride)
                inputs = outputs

    @property
    def layers(self) -> tuple[str, ...]:
        """The names of the convolution and linear layers, in order of use."""
        inner = (
            f"{block.path}.{name}"
            for block in self.blocks()
            for name in (*(("shortcut",) if block.projects else ()), "conv0", "conv1")
        )
        return ("stem", *inner, "head")

    def init(self, rng: np.random.Generator, dtype: Any = np.float64) -> dict[str, Any]:
        """Return random parameters: convolutions normal with variance 2/(kh kw m) (He et al. 2015), the head with 1/n."""

        def kernel(outputs: int, size: int, inputs: int) -> dict[str, Array]:
            spread = np.sqrt(2 / (size * size * outputs))
            return {"w": (rng.standard_normal((outputs, size, size, inputs)) * spread).astype(dtype)}

        def affine(channels: int) -> dict[str, Array]:
            return {"gain": np.ones(channels, dtype), "shift": np.zeros(channels, dtype)}

        params: dict[str, Any] = {"stem": kernel(16, 3, 3)}
        for block in self.blocks():
            parts = {"norm0": affine(block.inputs)}
            if block.projects:
                parts["shortcut"] = kernel(block.outputs, 1, block.inputs)
            parts["conv0"] = kernel(block.outputs, 3, block.inputs)
            parts["norm1"] = affine(block.outputs)
            parts["conv1"] = kernel(block.outputs, 3, block.outputs)
            params.setdefault(block.stage, {})[block.name] = parts
        channels = 64 * self.widen
        params["norm"] = affine(channels)
        head = rng.standard_normal((self.classes, channels)) / np.sqrt(channels)
        params["head"] = {"w": head.astype(dtype), "b": np.zeros(self.classes, dtype)}
        return params

    @evaluable("stem.w", 4)
    def logits(self, params: Any, x: Any, statistics: Statistics | None = None) -> Any:
        """Return the class scores of images; `statistics` are means and variances by layer in place of the batch's own."""
        hidden = conv2d(x, params["stem"]["w"], name="stem", pad=1)
        for block in self.blocks():
            part = params[block.stage][block.name]
            before = self._norm(hidden, part["norm0"], f"{block.path}.norm0", statistics)
            if block.projects:
                hidden = conv2d(before, part["shortcut"]["w"], name=f"{block.path}.shortcut", stride=block.stride)
            inner = conv2d(before, part["conv0"]["w"], name=f"{block.path}.conv0", stride=block.stride, pad=1)
            inner = self._norm(inner, part["norm1"], f"{block.path}.norm1", statistics)
            inner = conv2d(inner, part["conv1"]["w"], name=f"{block.path}.conv1", pad=1)
            hidden = add(hidden, inner)
        pooled = global_average_pool(self._norm(hidden, params["norm"], "norm", statistics))
        return linear(pooled, params["head"]["w"], params["head"]["b"], name="head")

    @evaluable("stem.w", 4)
    def loss(self, params: Any, batch: tuple[Any, Any]) -> Any:
        """Return the mean cross-entropy of a batch (images, labels)."""
        x, labels = batch
        return cross_entropy(self.logits(params, x), labels)

    def _norm(self, x: Any, part: Any, name: str, statistics: Statistics | None) -> Any:
        """Normalize, and apply ReLU."""
        if self.norm == "group":
            return group_norm(x, part["gain"], part["shift"], groups=self.groups, relu=True)
        known = None if statistics is None else statistics[name]
        return batch_norm(x, part["gain"], part["shift"], name=name, statistics=known, relu=True)
