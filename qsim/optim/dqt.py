"""Direct Quantized Training: weights are stored as packed integer codes and a scale, and updated without a master copy.

    dqt = DQT("ternary")
    stored = dqt.store(params)                        # {"layer0": {"w": {"codes": ..., "step": ..., "shape": ...}, "b": ...}}
    optimizer = dqt.optimizer(sgd(0.1))
    state = optimizer.init(stored)
    loss, grads = qsim.value_and_grad(model.loss)(dqt.weights(stored), batch)
    updates, state = optimizer.update(grads, state, stored)
    stored = apply_updates(stored, updates)

A weight is code x step. An update u makes it W' = code x step + u, and the new code is the rounding of W' / step, which is
computed as code + fl(u / step) in float64: u = 0 changes no code, and small updates are not lost. While nothing saturates a
code changes with probability |u| / (distance to the next one).
Source: Zhao et al., "Direct Quantized Training of Language Models with Stochastic Rounding", ACML 2025, and its official code.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from qsim.arrays import decode, encode, quantize
from qsim.autograd.context import in_force
from qsim.errors import InputError, enumerate_names
from qsim.formats import Format, get_format
from qsim.optim.chain import Transform, Written
from qsim.optim.checks import check_parts, next_step
from qsim.optim.rounding import WHOLE, Place, Roundings, note
from qsim.optim.tree import ARRAYS, Parameter, check_params, parameters, tree_map, widen
from qsim.packing import pack, unpack
from qsim.rounding import Key, Quantizer
from qsim.underflow import gradual_underflow

__all__ = ["DQT", "matrices", "stored_bytes"]

Array = NDArray[Any]
PARTS = {"codes", "step", "shape"}
SMALLEST_MEAN = 1e-5
"""The official code takes no abs-mean below this."""


def matrices(path: str, w: Array) -> bool:  # noqa: ARG001 - a choice may look at the path
    """Return whether a parameter has two axes or more: weights, but no biases and no gains."""
    return w.ndim > 1


def everything(path: str, w: Array) -> bool:  # noqa: ARG001
    """Return true: the official code also quantizes the gains of norms, biases and embeddings."""
    return True


@dataclass(frozen=True, slots=True)
class DQT:
    """Say how weights are stored and written back.

    `format`: "ternary", "binary", or an integer format of up to 8 bits ("int2" ... "int8", or symmetric "int8sym").
    `scale`: the step is mean|W| / Qp ("absmean", Qp the largest code: with Gaussian weights 42.5 % of them saturate, whatever
    the format), max|W| / max|code| ("absmax"), or that of the official update, max(W) / Qp ("signed_max").
    `rescale`: the step is "frozen" at its first value; or re-derived from W' in every step ("updated"), where an "absmean"
    shrinks from step to step, since the stored weights lie within the mean; or from the weights before the update ("old"), as
    in the official code: then a range cannot grow, and codes leave the grid when the largest one falls. A "signed_max" is
    refused where no weight is positive (in the official code it gives infinity and NaN).
    `mode`: the rounding of the write-back, by name: "SR", "RNE", "SRA(8)", ... `select(path, w)` chooses the parameters.
    `storage`: the type in which the codes are read back. "codes" is exact; "float32", "float16" or "bfloat16" stores code x
    step rounded to that, as the official code does, and changes codes without an update.
    """

    format: str | Format = "ternary"
    scale: Literal["absmean", "absmax", "signed_max"] = "absmean"
    rescale: Literal["frozen", "updated", "old"] = "frozen"
    mode: str = "SR"
    select: Callable[[str, Array], bool] = matrices
    storage: Literal["codes", "float32", "float16", "bfloat16"] = "codes"
    seed: int = 0

    def __post_init__(self) -> None:
        fmt = get_format(self.format)
        if fmt.bits > 8 or not (fmt.kind == "integer" or fmt.name == "binary") or fmt.max <= 0 or fmt.min >= 0:
            raise InputError(
                f"{fmt.name} cannot hold DQT's codes; take ternary, binary or a signed integer of 2 to 8 bits"
            )
        for name, choices in CHOICES.items():
            if getattr(self, name) not in choices:
                raise InputError(f"{name} = {getattr(self, name)!r}; it is {enumerate_names(choices)}")
        if fmt.name == "binary" and self.scale == "signed_max":
            raise InputError(
                "scale = 'signed_max' with binary has no meaning: its largest code is always in use; take 'absmean'"
            )
        Quantizer.parse(f"{fmt.name}:{self.mode}")
        Key(self.seed)

    @classmethod
    def official(
        cls, format: str = "int3", *, storage: Literal["float32", "float16", "bfloat16"] = "float32", seed: int = 0
    ) -> DQT:
        """Return the published code's choices for a format ("int3" is its default, or "ternary"), every trap among them."""
        return cls(format, "signed_max", "old", "SR", everything, storage, seed)

    # --- Stored weights ---

    def store(self, params: Any) -> Any:
        """Return `params` with {"codes", "step", "shape"} in place of the chosen ones, rounded to nearest even.

        The first step is derived as `scale` says, but that "signed_max" begins, as the official code, with "absmean".
        """
        check_params(params)
        first = "absmean" if self.scale == "signed_max" else self.scale

        def coded(parameter: Parameter, w: Array) -> Any:
            if not self.select(parameter.path, w):
                return w
            if not np.isfinite(w).all():
                raise InputError(f"{parameter.path} holds an infinity or NaN, which no code stands for")
            w = widen(w)
            step = self._step(parameter.path, w, first)
            return self._stored(encode(w / step, self._quantizer("RNE")), step, w.shape)

        return tree_map(coded, params)

    @gradual_underflow
    def saturated(self, params: Any) -> dict[str, int]:
        """Return how many weights of each chosen parameter lie beyond the range when `store` rounds them."""
        fmt, first = get_format(self.format), "absmean" if self.scale == "signed_max" else self.scale
        found = {}
        for parameter, w in parameters(params):
            if self.select(parameter.path, w):
                with np.errstate(all="ignore"):
                    x = widen(w) / self._step(parameter.path, widen(w), first)
                found[parameter.path] = int(((x > fmt.max) | (x < fmt.min)).sum())
        return found

    @gradual_underflow
    def weights(self, stored: Any) -> Any:
        """Return the parameters that the model computes with: float arrays, made for one step and not kept."""

        def read(path: str, branch: Any) -> Any:
            if is_coded(branch):
                return self._values(branch, path)
            if not isinstance(branch, dict):
                return branch
            return {name: read(f"{path}.{name}" if path else name, below) for name, below in branch.items()}

        return read("", stored)

    @gradual_underflow
    def codes(self, weight: Any) -> Array:
        """Return the codes of one stored weight as integers (or -1 and 1), in its shape, float64."""
        shape = tuple(int(n) for n in weight["shape"])
        flat = unpack(weight["codes"], get_format(self.format), math.prod(shape))
        return decode(flat, get_format(self.format), np.float64).reshape(shape)

    # --- The update ---

    def optimizer(self, inner: Transform) -> Transform:
        """Return the transform that updates stored weights by the updates of `inner`; it is the outermost.

        `inner` sees the dequantized weights. Words are those of the sites `update`, two of 32 bits an element. The state
        counts, for each stored weight, how many codes the last step `changed`, how many it was `expected` to change by the
        update alone, the sum of min(1, |u| / distance to the next code), u as far as the range goes, and how many were
        `changed_so_far`.
        """
        roundings = Roundings.parse({"update": self._quantizer(self.mode)}, ("update",), self.seed)

        def init(stored: Any) -> dict[str, Any]:
            weights = self.weights(stored)
            roundings.check(weights)
            paths: list[str] = []
            tree_map(
                lambda name, _, kept: paths.append(name.path) if is_coded(kept) else None, weights, stored, deep=True
            )
            return {
                "step": 0,
                "changed": dict.fromkeys(paths, 0),
                "changed_so_far": dict.fromkeys(paths, 0),
                "expected": {path: np.zeros(()) for path in paths},
                "inner": inner.init(weights),
            }

        def update(updates: Any, state: Any, params: Any, place: Place = WHOLE) -> tuple[Any, Any]:
            step = next_step("DQT", state, "changed", "changed_so_far", "expected", "inner")
            updates, inside = inner.update(updates, state["inner"], self.weights(params), place)
            changed: dict[str, int] = {}
            expected: dict[str, Any] = {}

            def rewritten(parameter: Parameter, u: Any, weight: Any) -> Any:
                if not is_coded(weight):
                    return u
                if isinstance(u, Written):
                    raise InputError(
                        f"{parameter.path} is written back by DQT; leave the rounding of `update` out of its optimizer"
                    )
                key = roundings.key(parameter, "update", step, place)
                new, changed[parameter.path], expected[parameter.path] = self._rewritten(parameter.path, weight, u, key)
                return Written(new)

            new = tree_map(rewritten, updates, params, deep=True)
            check_parts("DQT, codes changed so far", state["changed_so_far"], *changed)
            so_far = {path: int(before) + changed[path] for path, before in state["changed_so_far"].items()}
            after = {
                "step": step + 1,
                "changed": changed,
                "changed_so_far": so_far,
                "expected": expected,
                "inner": inside,
            }
            return new, after

        return Transform(init, update, elementwise=False, rounds=(roundings, *inner.rounds))

    def _rewritten(self, path: str, weight: Any, u: Array, key: Key) -> tuple[Any, int, Any]:
        """Return the stored weight after an update, the number of codes that changed, and that expected."""
        problem = f"the update of {path} holds an infinity or NaN, which no code stands for; see skip_nonfinite"
        if not np.isfinite(u).all():
            raise InputError(problem)
        codes, old = self.codes(weight), checked_step(path, weight)
        x = codes if self.storage == "codes" else (self._values(weight, path) / old).astype(np.float64)
        delta = np.divide(u, old, dtype=np.float64)
        new = old
        if self.rescale == "old":
            new = self._step(path, self._values(weight, path), self.scale)
        elif self.rescale == "updated":
            new = self._step(path, self._values(weight, path) + u, self.scale)
        q = self._quantizer(self.mode)
        moved = x + delta if new == old else (x + delta) * (float(old) / float(new))
        if not np.isfinite(moved).all():
            raise InputError(problem)
        written = encode(moved, q, key=key if q.mode.stochastic else None)
        if in_force() is not None:
            note(f"{path}.update", moved, decode(written, q.format, np.float64), q)
        before = encode(codes, self._quantizer("RNE"))
        gap = 2.0 if q.format.name == "binary" else 1.0
        within = np.clip(codes + delta, q.format.min, q.format.max)  # beyond the range nothing changes
        expected = np.minimum(np.abs(within - codes) / gap, 1).sum()
        return self._stored(written, new, u.shape), int((written != before).sum()), np.asarray(expected)

    def _quantizer(self, mode: str) -> Quantizer:
        return Quantizer.parse(f"{get_format(self.format).name}:{mode}")

    def _stored(self, codes: Array, step: Any, shape: tuple[int, ...]) -> dict[str, Array]:
        packed = pack(codes.reshape(-1), get_format(self.format))
        return {"codes": packed, "step": np.asarray(step), "shape": np.array(shape, np.int64)}

    def _values(self, weight: Any, path: str) -> Array:
        """Return code x step, in the type of the step, as the storage has it."""
        step = checked_step(path, weight)
        with np.errstate(all="ignore"):
            limit = float(np.finfo(step.dtype).max)  # which the largest code times its rounded step may exceed
            values = np.clip(self.codes(weight) * step, -limit, limit).astype(step.dtype)
        return values if self.storage in ("codes", "float32") else quantize(values, self.storage)

    def _step(self, path: str, w: Array, scale: str) -> Array:
        """Return the step that `scale` derives from weights, an array without axes in their type."""
        if not w.size:
            raise InputError(f"{path} is empty, so there is no scale for its codes; leave it out by `select`")
        fmt, number = get_format(self.format), w.dtype.type
        if scale == "absmean":
            largest, top = max(np.abs(w).mean(dtype=np.float64), SMALLEST_MEAN), fmt.max
        elif scale == "absmax":
            largest, top = np.abs(w).max(initial=0), min(fmt.max, -fmt.min)
            largest = largest if largest > 0 else SMALLEST_MEAN
        else:
            largest, top = w.max(initial=-np.inf), fmt.max
            if not largest > 0:
                raise InputError(
                    f"{path} has no positive weight, and scale = 'signed_max' divides by the largest one; take 'absmax'"
                )
        # A subnormal step has few digits, and 0 none.
        step = max(number(largest / top), np.finfo(w.dtype).tiny)
        if not np.isfinite(step):
            raise InputError(
                f"{path} is too large for a scale: it would be {step}; parameters of float64 have more room"
            )
        return np.asarray(number(step))


CHOICES = {
    "scale": ("absmean", "absmax", "signed_max"),
    "rescale": ("frozen", "updated", "old"),
    "storage": ("codes", "float32", "float16", "bfloat16"),
}


def checked_step(path: str, weight: Any) -> Any:
    """Return the step of a stored weight; refuse one that no `store` and no update has left there."""
    step = weight["step"]
    number = isinstance(step, ARRAYS) and step.ndim == 0 and step.dtype.kind == "f"
    if not number or not 0 < step < math.inf:
        raise InputError(f"{path or 'a weight'} is stored with the step {step!r}; a step is a positive finite number")
    return step


def is_coded(branch: Any) -> bool:
    """Return whether a branch of stored parameters is one weight: codes, step and shape."""
    return isinstance(branch, dict) and branch.keys() == PARTS


def stored_bytes(stored: Any) -> int:
    """Return the bytes of all arrays of a tree: the memory kept between steps."""
    return sum(leaf.nbytes for _, leaf in parameters(stored))
