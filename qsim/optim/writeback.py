"""Links that round: gradients as they come, and parameters as they are written back, with or without compensation."""

from __future__ import annotations

from typing import Any

import numpy as np

from qsim.arrays import quantize
from qsim.errors import InputError
from qsim.optim.chain import Transform, Written, apply_updates, differences
from qsim.optim.checks import check_parts, next_step
from qsim.optim.rounding import WHOLE, Place, Roundings, Spelling, cast
from qsim.optim.tree import tree_map, unzip
from qsim.rounding import STREAM_FIELDS, Quantizer

__all__ = ["all_finite", "master_weights", "round_gradients", "skip_nonfinite", "write_back"]


LAST_DRAW = (1 << STREAM_FIELDS["draw"]) - 1


def round_gradients(rounding: Spelling, *, seed: int = 0) -> Transform:
    """Return the link that rounds what comes in at the sites `grad_acc`: gradients that are held in a narrow format.

    It takes the words of the last draw; the first ones are those of an `Accumulator`'s micro-batches.
    """
    roundings = Roundings.parse(rounding, ("grad_acc",), seed)

    def init(params: Any) -> dict[str, Any]:
        roundings.check(params)
        return {"step": 0}

    def update(updates: Any, state: Any, params: Any, place: Place = WHOLE) -> tuple[Any, Any]:
        step = next_step("the rounding of gradients", state)
        rounded = tree_map(
            lambda name, _, u: roundings.round(name, "grad_acc", differences(u), step, place, draw=LAST_DRAW),
            params,
            updates,
        )
        return rounded, {"step": step + 1}

    return Transform(init, update, roundings.elementwise, (roundings,))


def write_back(rounding: Spelling, *, kahan: bool = False, seed: int = 0) -> Transform:
    """Return the last link of a chain: it writes Q(fl(p + u)) at the sites `update`, fl in the type of the parameters.

    A parameter without a rounding takes fl(p + u). With `kahan` the state has a compensation c for each parameter, rounded to
    the same format to nearest even: y = fl(u + c), p' = Q(fl(p + y)), c' = RNE(fl(y - fl(p' - p))).
    Stochastic rounding is exactly unbiased about fl(p + u) while it discards no more bits than its word has.
    Sources: Ozkara, Yu, Park, "Stochastic Rounding for LLM Training: Theory and Practice", AISTATS 2025; for Kahan's sum
    Zamirai et al., "Revisiting BFloat16 Training", arXiv 2010.06192.
    """
    roundings = Roundings.parse(rounding, ("update",), seed)

    def nearest(path: str, y: Any) -> Any:
        q = roundings.at(path, "update")
        return y if q is None else quantize(y, Quantizer(q.format, saturation=q.saturation))

    def init(params: Any) -> dict[str, Any]:
        roundings.check(params)
        state: dict[str, Any] = {"step": 0}
        return state | ({"compensation": tree_map(lambda _, p: np.zeros_like(p), params)} if kahan else {})

    def update(updates: Any, state: Any, params: Any, place: Place = WHOLE) -> tuple[Any, Any]:
        step = next_step("the write-back", state, *(["compensation"] if kahan else []))

        def written(name: Any, p: Any, u: Any) -> Written:
            return Written(roundings.round(name, "update", p + differences(u), step, place))

        def compensated(name: Any, p: Any, u: Any, c: Any) -> tuple[Written, Any]:
            y = differences(u) + c
            new = written(name, p, y)
            return new, nearest(name.path, y - (new.value - p))

        if not kahan:
            return tree_map(written, params, updates), {"step": step + 1}
        new, left = unzip(tree_map(compensated, params, updates, state["compensation"]), 2)
        return new, {"step": step + 1, "compensation": left}

    return Transform(init, update, roundings.elementwise, (roundings,))


def master_weights(inner: Transform, rounding: str | Quantizer = "bfloat16:RNE") -> Transform:
    """Return `inner` working on a master copy of the parameters, in their full type; what is written is the copy, rounded.

    This is mixed precision as Megatron's O2: the model sees narrow parameters, master and moments are float32.
    Source: Micikevicius et al., "Mixed Precision Training", ICLR 2018, section 3.1.
    """
    q = Quantizer.parse(rounding)
    if q.mode.stochastic:
        raise InputError(f"a cast of master weights by {q.mode} has no site of its own; take a deterministic mode")

    def init(params: Any) -> dict[str, Any]:
        return {"master": tree_map(lambda _, p: p.copy(), params), "inner": inner.init(params)}

    def update(updates: Any, state: Any, params: Any, place: Place = WHOLE) -> tuple[Any, Any]:
        del params  # only the copy counts
        check_parts("master weights", state, "master", "inner")
        updates, inside = inner.update(updates, state["inner"], state["master"], place)
        master = apply_updates(state["master"], updates)
        written = tree_map(lambda _, p: Written(p), cast(master, q))
        return written, {"master": master, "inner": inside}

    elementwise = inner.elementwise and (q.scale == "none" or not isinstance(q.scale, str))
    return Transform(init, update, elementwise, inner.rounds)


def skip_nonfinite(inner: Transform) -> Transform:
    """Return `inner`, but for gradients with an infinity or NaN: then parameters and state stay as they are, and it counts.

    What a dynamic loss scale asks for (Micikevicius et al. 2018, section 3.2).
    """

    def update(updates: Any, state: Any, params: Any, place: Place = WHOLE) -> tuple[Any, Any]:
        check_parts("skip_nonfinite", state, "skipped", "inner")
        if all_finite(updates):
            updates, inside = inner.update(updates, state["inner"], params, place)
            return updates, {"skipped": state["skipped"], "inner": inside}
        return tree_map(lambda _, p: Written(p), params), {"skipped": state["skipped"] + 1, "inner": state["inner"]}

    def init(params: Any) -> dict[str, Any]:
        return {"skipped": 0, "inner": inner.init(params)}

    return Transform(init, update, elementwise=False, rounds=inner.rounds)


def all_finite(tree: Any) -> bool:
    """Return whether no element of the tree is an infinity or NaN."""
    if isinstance(tree, dict):
        return all(all_finite(branch) for branch in tree.values())
    return bool(np.isfinite(tree).all())
