"""Training steps of the engine: loss and gradient, unrounded and with all five points rounded, and PyTorch's."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

import qsim
from qsim.autograd import POINTS, tree_map
from qsim.nn import MLP, WideResNet
from work import Call, Data, Maker

__all__ = ["MLP_784", "SMALL", "TWO_LAYERS", "WRN", "shared", "step", "torch_step"]

ROUNDED: Mapping[str, str] = dict.fromkeys(POINTS, "float8_e4m3fn:SR")
"""All five points, stochastically to E4M3: each with words of its own."""

WRN = WideResNet(16, 1), 64
MLP_784 = MLP((784, 256, 256, 10)), 128
TWO_LAYERS = MLP((784, 256, 10)), 64
SMALL = MLP((8, 16, 4)), 8
"""Models, and the samples of a batch."""

Work = tuple[Any, int]


def point(work: Work) -> tuple[Any, tuple[np.ndarray, np.ndarray]]:
    """Return float32 parameters and a batch of a model."""
    model, samples = work
    rng = np.random.default_rng(6)
    params = tree_map(lambda a: a.astype(np.float32), model.init(rng))
    shape = (32, 32, 3) if isinstance(model, WideResNet) else (model.widths[0],)
    classes = model.classes if isinstance(model, WideResNet) else model.widths[-1]
    return params, (rng.standard_normal((samples, *shape), np.float32), np.arange(samples) % classes)


def step(work: Work, *, rounded: bool = False, draws: int | None = None) -> Maker:
    """Return loss and gradient of one batch; `draws` of them in one call."""

    def make(_: Data) -> Call:
        params, batch = point(work)
        both = qsim.value_and_grad(work[0].loss)

        def call() -> Any:
            with qsim.numerics(ROUNDED if rounded else {}, draws=draws):
                return both(params, batch)[1]

        return call

    return make


def shared(maker: Maker, count: int) -> Maker:
    """Return the same call `count` times: what so many draws are held against that are taken one at a time."""

    def make(data: Data) -> Call:
        call: Callable[[], Any] = maker(data)

        def often() -> Any:
            for _ in range(count):
                result = call()
            return result

        return often

    return make


def torch_step(work: Work) -> Maker:
    """Return loss and gradient of the same network in PyTorch, unrounded, its images with channels last."""

    def make(data: Data) -> Call:
        import torch
        from torch.nn import functional

        from twins import images, twin

        torch.set_num_threads(data.threads)
        params, (x, labels) = point(work)
        model = twin(work[0], params)
        inputs = images(x) if x.ndim == 4 else torch.from_numpy(x)
        wanted = torch.from_numpy(labels)

        def call() -> Any:
            model.zero_grad()
            functional.cross_entropy(model(inputs), wanted).backward()
            return [parameter.grad for parameter in model.parameters()]

        return call

    return make
