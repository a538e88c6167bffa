"""The models of `qsim.nn` once more in PyTorch, with the same parameters: what engine and training are held against."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from qsim.nn import MLP, Llama, WideResNet

__all__ = ["images", "twin"]


def twin(model: MLP | WideResNet | Llama, params: Any) -> nn.Module:
    """Return the twin of a model, which starts at `params`."""
    made = {MLP: Perceptron, WideResNet: Wide, Llama: Decoder}[type(model)](model)
    made.load(params)
    return made


def images(x: np.ndarray) -> torch.Tensor:
    """Return images (n, H, W, C) as the tensor that PyTorch's convolutions want, channels last in memory."""
    return torch.from_numpy(x).permute(0, 3, 1, 2).contiguous(memory_format=torch.channels_last)


def put(parameter: torch.Tensor, array: np.ndarray) -> None:
    """Copy an array of ours into a parameter."""
    with torch.no_grad():
        parameter.copy_(torch.from_numpy(np.ascontiguousarray(array)))


def put_kernel(layer: nn.Conv2d, part: Any) -> None:
    """Copy a kernel (m, kh, kw, n)."""
    put(layer.weight, part["w"].transpose(0, 3, 1, 2))


def put_affine(layer: nn.BatchNorm2d, part: Any) -> None:
    """Copy gain and shift of a normalization."""
    put(layer.weight, part["gain"])
    put(layer.bias, part["shift"])


class Perceptron(nn.Module):
    """The multilayer perceptron."""

    def __init__(self, model: MLP) -> None:
        super().__init__()
        self.layers = nn.ModuleList(nn.Linear(n, m) for n, m in zip(model.widths[:-1], model.widths[1:], strict=True))

    def load(self, params: Any) -> None:
        """Take the parameters of ours."""
        for layer, part in zip(self.layers, params.values(), strict=True):
            put(layer.weight, part["w"])
            put(layer.bias, part["b"])

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return the class scores."""
        for layer in self.layers[:-1]:
            x = functional.relu(layer(x))
        return self.layers[-1](x)


class Wide(nn.Module):
    """The wide residual network, with batch normalization."""

    def __init__(self, model: WideResNet) -> None:
        super().__init__()
        self.places = list(model.blocks())
        self.stem = nn.Conv2d(3, 16, 3, 1, 1, bias=False)
        self.blocks = nn.ModuleList()
        for block in self.places:
            parts = {
                "norm0": nn.BatchNorm2d(block.inputs),
                "conv0": nn.Conv2d(block.inputs, block.outputs, 3, block.stride, 1, bias=False),
                "norm1": nn.BatchNorm2d(block.outputs),
                "conv1": nn.Conv2d(block.outputs, block.outputs, 3, 1, 1, bias=False),
            }
            if block.projects:
                parts["shortcut"] = nn.Conv2d(block.inputs, block.outputs, 1, block.stride, bias=False)
            self.blocks.append(nn.ModuleDict(parts))
        self.norm = nn.BatchNorm2d(64 * model.widen)
        self.head = nn.Linear(64 * model.widen, model.classes)
        self.to(memory_format=torch.channels_last)

    def load(self, params: Any) -> None:
        """Take the parameters of ours."""
        put_kernel(self.stem, params["stem"])
        for place, block in zip(self.places, self.blocks, strict=True):
            part = params[place.stage][place.name]
            for name, layer in block.items():
                (put_affine if name.startswith("norm") else put_kernel)(layer, part[name])
        put_affine(self.norm, params["norm"])
        put(self.head.weight, params["head"]["w"])
        put(self.head.bias, params["head"]["b"])

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return the class scores."""
        x = self.stem(x)
        for block in self.blocks:
            before = functional.relu(block["norm0"](x))
            inner = functional.relu(block["norm1"](block["conv0"](before)))
            x = block["conv1"](inner) + (block["shortcut"](before) if "shortcut" in block else x)
        return self.head(functional.relu(self.norm(x)).mean((2, 3)))


class Decoder(nn.Module):
    """The decoder in the style of LLaMA."""

    def __init__(self, model: Llama) -> None:
        super().__init__()
        self.model = model
        width, hidden = model.width, model.hidden
        self.embedding = nn.Embedding(model.vocabulary, width)
        self.blocks = nn.ModuleList(
            nn.ModuleDict(
                {
                    **{name: nn.Linear(width, width, bias=False) for name in ("query", "key", "value", "output")},
                    "attention_norm": nn.RMSNorm(width, eps=1e-5),
                    "mlp_norm": nn.RMSNorm(width, eps=1e-5),
                    "up": nn.Linear(width, 2 * hidden, bias=False),
                    "down": nn.Linear(hidden, width, bias=False),
                }
            )
            for _ in range(model.blocks)
        )
        self.norm = nn.RMSNorm(width, eps=1e-5)
        self.head = nn.Linear(width, model.vocabulary, bias=False)
        if model.tied:
            self.head.weight = self.embedding.weight

    def load(self, params: Any) -> None:
        """Take the parameters of ours."""
        put(self.embedding.weight, params["embedding"]["w"])
        for number, block in enumerate(self.blocks):
            for name, layer in block.items():
                part = params[f"block{number}"][name]
                put(layer.weight, part["gain" if "norm" in name else "w"])
        put(self.norm.weight, params["norm"]["gain"])
        if not self.model.tied:
            put(self.head.weight, params["head"]["w"])

    def turn(self, x: torch.Tensor) -> torch.Tensor:
        """Return pairs of halves turned by the angle of their position."""
        half = x.shape[-1] // 2
        angle = torch.arange(x.shape[-2], dtype=torch.float64)[:, None] * 10000.0 ** (
            -2 * torch.arange(half) / (2 * half)
        )
        cos, sin = (part.to(x.dtype) for part in (angle.cos(), angle.sin()))
        a, b = x[..., :half], x[..., half:]
        return torch.cat([a * cos - b * sin, b * cos + a * sin], -1)

    def forward(self, codes: torch.Tensor) -> torch.Tensor:
        """Return the scores of the code that follows each."""
        samples, length = codes.shape
        heads = self.model.heads
        x = self.embedding(codes)
        for block in self.blocks:
            before = block["attention_norm"](x)
            q, k, v = (
                block[name](before).view(samples, length, heads, -1).transpose(1, 2)
                for name in ("query", "key", "value")
            )
            seen = functional.scaled_dot_product_attention(self.turn(q), self.turn(k), v, is_causal=True)
            x = x + block["output"](seen.transpose(1, 2).reshape(samples, length, -1))
            gate, up = block["up"](block["mlp_norm"](x)).chunk(2, -1)
            x = x + block["down"](functional.silu(gate) * up)
        return self.head(self.norm(x))
