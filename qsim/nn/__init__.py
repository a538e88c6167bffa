"""Models: the order of their layers, and their parameters; all arithmetic is `qsim.autograd`'s.

A model has `init(rng) -> params`, nested dicts of arrays; `loss(params, batch) -> scalar`; and `layers`, the names of its
linear and convolution layers in the order in which they are used. A layer has the name of its place in the parameters.
`loss` and `logits(params, x)` can be called by themselves too, on arrays as they are: the forward points then round as the
numerics in force say.
"""

from __future__ import annotations

from qsim.nn.llama import Llama
from qsim.nn.mlp import MLP
from qsim.nn.wideresnet import WideResNet

__all__ = ["MLP", "Llama", "WideResNet"]
