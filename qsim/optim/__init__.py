"""Optimizers in low precision: pairs of (init, update), chained as in optax, with every rounding at a named site."""

from qsim.optim.accumulate import Accumulator
from qsim.optim.adafactor import adafactor, clip_by_rms, scale_by_factored_rms, scale_by_parameter_rms
from qsim.optim.adamw import adamw, scale_by_adam
from qsim.optim.arms import ARMS, Arm, bf16_adamw
from qsim.optim.bitnet import ABSMEAN_TERNARY, BITNET, TOKEN_INT8
from qsim.optim.chain import Transform, Written, apply_updates, chain, scale
from qsim.optim.checkpoint import load, save
from qsim.optim.clipping import clip_by_global_norm, global_norm
from qsim.optim.dqt import DQT, matrices, stored_bytes
from qsim.optim.loss_scale import LossScale
from qsim.optim.parallel import all_reduce, sharded, update_replicas
from qsim.optim.rounding import Place, cast
from qsim.optim.schedules import constant, cosine, scale_by_learning_rate, warmup
from qsim.optim.sgd import add_decayed_weights, sgd, trace
from qsim.optim.writeback import all_finite, master_weights, round_gradients, skip_nonfinite, write_back

__all__ = [
    "ABSMEAN_TERNARY",
    "ARMS",
    "BITNET",
    "DQT",
    "TOKEN_INT8",
    "Accumulator",
    "Arm",
    "LossScale",
    "Place",
    "Transform",
    "Written",
    "adafactor",
    "adamw",
    "add_decayed_weights",
    "all_finite",
    "all_reduce",
    "apply_updates",
    "bf16_adamw",
    "cast",
    "chain",
    "clip_by_global_norm",
    "clip_by_rms",
    "constant",
    "cosine",
    "global_norm",
    "load",
    "master_weights",
    "matrices",
    "round_gradients",
    "save",
    "scale",
    "scale_by_adam",
    "scale_by_factored_rms",
    "scale_by_learning_rate",
    "scale_by_parameter_rms",
    "sgd",
    "sharded",
    "skip_nonfinite",
    "stored_bytes",
    "trace",
    "update_replicas",
    "warmup",
    "write_back",
]
