"""Gradients under a numerics context: a tape of coarse operations whose roundings stand at named sites.

With this package one can take gradients of a model written with its operations, decide by name which of the five quantization
points of each layer round and how, and get many Monte-Carlo draws of the gradient in one call:

    with qsim.numerics(bwd_act="float8_e4m3fn:SR", draws=256, seed=0):
        loss, grads = qsim.value_and_grad(model.loss)(params, batch)      # grads["layer0"]["w"]: (256, out, in)

Rounding is straight-through: its derivative is taken as 1; beyond the range too, or with clamp = "stop" as 0 there.

The operations are functions of arrays whose first axis is that of draws. Called by themselves, outside `value_and_grad` and
`value`, they also take arrays without it.
"""

from __future__ import annotations

from qsim.autograd.attention import attention, rope
from qsim.autograd.context import Numerics, Rounding, current, numerics
from qsim.autograd.convolution import conv2d
from qsim.autograd.losses import cross_entropy, mean_squared_error
from qsim.autograd.matmul import embedding, linear
from qsim.autograd.norms import batch_norm, group_norm, layer_norm, rms_norm
from qsim.autograd.pointwise import dropout, gelu, relu, reshape, silu, swiglu
from qsim.autograd.pooling import average_pool, global_average_pool, max_pool
from qsim.autograd.scaling import Delayed, Frozen
from qsim.autograd.sites import PARAMETER_ROLES, POINTS, ROLES, parameter_site, parameter_sites, sites
from qsim.autograd.tape import (
    SameWords,
    Tape,
    Var,
    add,
    leaves_of,
    op,
    owe,
    tree_map,
    value,
    value_and_grad,
)

__all__ = [
    "PARAMETER_ROLES", "POINTS", "ROLES", "Delayed", "Frozen", "Numerics", "Rounding", "SameWords", "Tape", "Var", "add",
    "attention", "average_pool", "batch_norm", "conv2d", "cross_entropy", "current", "dropout", "embedding", "gelu",
    "global_average_pool", "group_norm", "layer_norm", "leaves_of", "linear", "max_pool", "mean_squared_error", "numerics",
    "op", "owe", "parameter_site", "parameter_sites", "relu", "reshape", "rms_norm", "rope", "silu", "sites", "swiglu",
    "tree_map", "value", "value_and_grad",
]  # fmt: skip
