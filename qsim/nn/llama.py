"""A decoder in the style of LLaMA: RMSNorm before each part, rotary positions, SwiGLU, no biases."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from qsim.autograd import add, attention, cross_entropy, embedding, linear, reshape, rms_norm, rope, swiglu
from qsim.autograd.tape import evaluable
from qsim.errors import InputError

__all__ = ["Llama"]

Array = NDArray[Any]


@dataclass(frozen=True, slots=True)
class Llama:
    """A causal language model over `vocabulary` codes; softmax cross-entropy of the next one.

    Batches are (codes, next codes), each (samples, T). Parameters: {"embedding": {"w": (vocabulary, width)}, "block0":
    {"attention_norm": {"gain"}, "query", "key", "value", "output": {"w": (width, width)}, "mlp_norm": {"gain"}, "up": {"w": (2
    hidden, width)}, "down": {"w": (width, hidden)}}, ..., "norm": {"gain"}, "head": {"w": (vocabulary, width)}}; no "head" if
    `tied`, which takes the embedding for it. Raise `InputError` for a width that the heads do not divide into even parts.
    Source: Touvron et al., "LLaMA", arXiv 2302.13971.
    """

    vocabulary: int
    width: int
    blocks: int
    heads: int
    hidden: int | None = None
    tied: bool = False

    def __post_init__(self) -> None:
        for name in ("vocabulary", "width", "blocks", "heads"):
            if getattr(self, name) < 1:
                raise InputError(f"{name} = {getattr(self, name)} of a Llama must be at least 1")
        if self.width % (2 * self.heads):
            raise InputError(f"width = {self.width} does not divide into {self.heads} heads of an even size")
        if self.hidden is None:  # LLaMA's: 2/3 of four widths, up to a multiple of 16
            object.__setattr__(self, "hidden", -(-8 * self.width // 3 // 16) * 16)

    @property
    def layers(self) -> tuple[str, ...]:
        """The names of the embedding and the linear layers, in order of use."""
        parts = ("query", "key", "value", "output", "up", "down")
        return ("embedding", *(f"block{i}.{part}" for i in range(self.blocks) for part in parts), "head")

    def init(self, rng: np.random.Generator, dtype: Any = np.float64) -> dict[str, Any]:
        """Return random parameters: normal with deviation 0.02, by sqrt(2 blocks) less where a residual ends; gains 1."""

        def weight(outputs: int, inputs: int, spread: float = 0.02) -> dict[str, Array]:
            return {"w": (rng.standard_normal((outputs, inputs)) * spread).astype(dtype)}

        def gain() -> dict[str, Array]:
            return {"gain": np.ones(self.width, dtype)}

        width, hidden = self.width, self.hidden
        assert hidden is not None
        last = 0.02 / np.sqrt(2 * self.blocks)
        params: dict[str, Any] = {"embedding": weight(self.vocabulary, width)}
        for i in range(self.blocks):
            params[f"block{i}"] = {
                "attention_norm": gain(),
                "query": weight(width, width), "key": weight(width, width), "value": weight(width, width),
                "output": weight(width, width, last),
                "mlp_norm": gain(),
                "up": weight(2 * hidden, width),
                "down": weight(width, hidden, last),
            }  # fmt: skip
        params["norm"] = gain()
        if not self.tied:
            params["head"] = weight(self.vocabulary, width)
        return params

    @evaluable("embedding.w", 2)
    def logits(self, params: Any, codes: Any) -> Any:
        """Return the scores of the code that follows each, (samples, T, vocabulary); `codes` are (samples, T)."""
        stream = embedding(codes, params["embedding"]["w"], name="embedding")
        length = codes.shape[-1]
        for i in range(self.blocks):
            name, part = f"block{i}", params[f"block{i}"]
            x = rms_norm(stream, part["attention_norm"]["gain"])
            q, k, v = (
                reshape(
                    linear(x, part[which]["w"], name=f"{name}.{which}"),
                    shape=(-1, length, self.heads, self.width // self.heads),
                )
                for which in ("query", "key", "value")
            )
            seen = reshape(attention(rope(q), rope(k), v), shape=(-1, length, self.width))
            stream = add(stream, linear(seen, part["output"]["w"], name=f"{name}.output"))
            x = rms_norm(stream, part["mlp_norm"]["gain"])
            x = swiglu(linear(x, part["up"]["w"], name=f"{name}.up"))
            stream = add(stream, linear(x, part["down"]["w"], name=f"{name}.down"))
        head = params["embedding" if self.tied else "head"]["w"]
        return linear(rms_norm(stream, params["norm"]["gain"]), head, name="head")

    @evaluable("embedding.w", 2)
    def loss(self, params: Any, batch: tuple[Any, Any]) -> Any:
        """Return the mean over all characters of the cross-entropy of the next."""
        codes, following = batch
        return cross_entropy(self.logits(params, codes), following)
