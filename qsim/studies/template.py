"""A study to begin with: written to a folder, and edited there."""

from __future__ import annotations

from pathlib import Path

from qsim.errors import InputError
from qsim.files import whole

__all__ = ["TEMPLATE", "begin"]

TEMPLATE = """\
title = "My study"
kind = "gradient_variance"
question = "How much noise and bias do these roundings give the gradient?"

[data] # name = "digits" or "cifar10"; or a .csv (with a header) or .npz beside this file, and its column or array of classes:
name = "digits" # file = "samples.csv", label = "class", standardize = "columns" (or "set", "none")

[model] # kind = "wideresnet" (depth, widen), or "file.py:Class" with init(rng) and loss(params, batch) as in qsim.nn
kind = "mlp"
widths = [64, 32, 10] # numbers of a sample, hidden layers, classes
train_steps = 100 # of plain SGD in float64, before gradients are measured
train_batch = 64
learning_rate = 0.1
seed = 0

[statistics] # of all intervals of the report together; groups of batches, for the error of a bias
false_alarm_rate = 1e-3
groups = 32
seed = 1

[full] # samples / batch batches, within [fewest, most], and as many draws of each, at least 2, as give `draws` in all
batch_sizes = [4, 16, 64, 256]
medium = { samples = 8192, fewest = 32, most = 1024, draws = 640 }

[quick]
batch_sizes = [4, 16, 64]
medium = { samples = 1024, fewest = 32, most = 128, draws = 64 }

[[arm]] # every format x mode x point x batch size; several arms may follow
name = "backward"
draws = "medium" # or light, coarse, wide, fine, many: a size of [full] and [quick]
formats = ["e4m3", "int4"] # `qsim formats` lists them
modes = ["SR", "RNE"] # also RTZ, SRA(8), ...: `qsim quantize --help`
points = ["bwd_act", "bwd_grad", "all"] # of fwd_act, fwd_weight, bwd_act, bwd_weight, bwd_grad, joined by +; or all
scale = "frozen" # of the whole set's abs-max; or full-range, absmax (of each batch), none

[claims.sr-unbiased] # optional; the margins are stated before the run
bias = 0.02 # |bias| at most this share of |gradient|
"""


def begin(folder: Path, *, minimal: bool = False) -> Path:
    """Write study.toml to `folder`, made if missing; without its comments if `minimal`. Raise `InputError` if one is there."""
    path = folder / "study.toml"
    if path.exists():
        raise InputError(f"{path} is there; name another folder, or edit that")
    text = TEMPLATE
    if minimal:
        lines = (line.partition(" #")[0].rstrip() for line in TEMPLATE.split("\n"))
        text = "\n".join(line for line in lines if line) + "\n"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with whole(path) as file:
            file.write(text.encode())
    except OSError as error:
        raise InputError(f"{folder}: cannot be written ({error.strerror})") from None
    return path
