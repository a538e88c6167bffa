"""The arms of a comparison of BF16 training: parameters as stored, their update, and the model's type.

Values of bfloat16 are held in float32 arrays, which hold them exactly.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from qsim.errors import InputError, nearest
from qsim.optim.adamw import adamw
from qsim.optim.chain import Transform, chain
from qsim.optim.rounding import Spelling, cast
from qsim.optim.schedules import Schedule
from qsim.optim.writeback import master_weights, round_gradients

__all__ = ["ARMS", "Arm", "bf16_adamw"]

BF16 = "bfloat16:RNE"
POLICY = {"fwd_act": BF16, "fwd_weight": BF16, "bwd_grad": BF16}
"""Operands of products in bfloat16: a numerics policy for the model."""

ARMS: Mapping[str, str] = {
    "fp32": "everything in float32",
    "o1": "float32 parameters, gradients and states; products of bfloat16 operands (torch.amp)",
    "o2": "bfloat16 parameters and gradients; float32 master copy and states (Megatron)",
    "nearest": "parameters, gradients and states in bfloat16, all rounded to nearest",
    "kahan": "as nearest, and a bfloat16 compensation of the write-back",
    "sr": "as nearest, but the write-back is stochastic",
}


@dataclass(frozen=True, slots=True)
class Arm:
    """Hold one arm: its optimizer, the policy for `qsim.numerics`, and the format of the stored parameters."""

    name: str
    optimizer: Transform
    policy: Mapping[str, str]
    stored: str | None
    bytes_per_parameter: int
    """Of parameter, gradient, master copy, moments and compensation."""

    def begin(self, params: Any) -> Any:
        """Return the parameters that training begins with: rounded to nearest in the format that stores them."""
        return params if self.stored is None else cast(params, self.stored)


def bf16_adamw(
    arm: str,
    learning_rate: Schedule | float,
    b1: float = 0.9,
    b2: float = 0.999,
    eps: float = 1e-8,
    *,
    weight_decay: float = 0.0,
    clip: float | None = None,
    seed: int = 0,
) -> Arm:
    """Return the arm of AdamW that `arm` names; see `ARMS`.

    Source of "sr": Ozkara, Yu, Park, "Stochastic Rounding for LLM Training: Theory and Practice", AISTATS 2025. Its moments
    round to nearest, so that b2 >= 1 - 2^-9 freezes the second moment (`scale_by_adam`).
    """
    if arm not in ARMS:
        raise InputError(f"no arm is called {arm!r}; did you mean {nearest(arm, ARMS)}?")
    write = {"sr": "bfloat16:SR", "nearest": BF16, "kahan": BF16}.get(arm)
    rounding: Spelling = None if write is None else {"update": write, "moment": BF16}
    adam = adamw(
        learning_rate,
        b1,
        b2,
        eps,
        weight_decay=weight_decay,
        clip=clip,
        rounding=rounding,
        kahan=arm == "kahan",
        seed=seed,
    )
    if arm == "o2":
        adam = master_weights(adam, BF16)
    narrow = arm not in ("fp32", "o1")
    optimizer = chain(round_gradients(BF16), adam) if narrow else adam
    size = {"fp32": 16, "o1": 16, "o2": 16, "nearest": 8, "kahan": 10, "sr": 8}[arm]
    return Arm(arm, optimizer, {} if arm == "fp32" else POLICY, BF16 if narrow else None, size)
