"""Links that round: gradients as they come, and parameters as they are written back, with or without compensation."""

from __future__ import annotations

from typing import Any

import numpy as np

from qsim.arrays import quantize
from qsim.errors import InputError
from qsim.optim.chain import Transform, Written, apply_updates, differences
from qsim.optim.checks import check_parts, next_step
from qsim.optim.rounding import WHOLE, Place, Roundings, Spelling, cast
from qsim.optim.tree import store_as, tree_map, unzip, widen, zeros
from qsim.rounding import STREAM_FIELDS, Quantizer

__all__ = ["all_finite", "master_weights", "round_gradients", "skip_nonfinite", "write_back"]


LAST_DRAW = (1 << STREAM_FIELDS["draw"]) - 1


def round_gradients(rounding: Spelling, *, seed: int = 0) -> Transform:
    """Return the link that rounds incoming gradients at the sites `grad_acc`: those that are held in a narrow format.

    It takes the words of the last draw; the first ones are those of an `Accumulator`'s micro-batches.
    """
    roundings = Roundings.parse(rounding, ("grad_acc",), seed)

    def init(params: Any) -> dict[str, Any]:
        roundings.check(params)
        return {"step": 0}

    def update(updates: Any, state: Any, params: Any, place: Place = WHOLE) -> tuple[Any, Any]:
        step = next_step("the rounding of gradients", state)
        rounded = tree_map(
            lambda name, p, u: roundings.round(name, "grad_acc", differences(u, p), step, place, draw=LAST_DRAW),
            params,
            updates,
        )
        return rounded, {"step": step + 1}

    return Transform(init, update, roundings.elementwise, (roundings,))


def write_back(rounding: Spelling, *, kahan: bool = False, seed: int = 0) -> Transform:
    """Return the last link of a chain: it writes Q(fl(p + u)) at the sites `update`, fl in the type of the parameters.

    Stochastic rounding is exactly unbiased about fl(p + u) while it discards no more bits than its word has.

    Args:
        rounding: Formats by the site `update` or its names with a parameter before; a parameter without one takes fl(p + u).
        kahan: Whether the state has a compensation c for each parameter, rounded to the same format to nearest even:
            y = fl(u + c), p' = Q(fl(p + y)), c' = RNE(fl(y - fl(p' - p))). Begin with init after replacing parameters, for c
            belongs to the old ones.
        seed: Of the random words of stochastic roundings.

    Returns:
        A `Transform`: init(params) -> state, update(updates, state, params) -> (updates, state).

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
        return state | ({"compensation": tree_map(lambda _, p: zeros(p), params)} if kahan else {})

    def update(updates: Any, state: Any, params: Any, place: Place = WHOLE) -> tuple[Any, Any]:
        step = next_step("the write-back", state, *(["compensation"] if kahan else []))

        def written(name: Any, p: Any, u: Any) -> Written:
            new = roundings.round(name, "update", widen(p) + differences(u, p), step, place)
            return Written(store_as(new, p.dtype))

        def compensated(name: Any, p: Any, u: Any, c: Any) -> tuple[Written, Any]:
            y = differences(u, p) + c
            new = written(name, p, y)
            return new, nearest(name.path, y - (widen(new.value) - widen(p)))

        if not kahan:
            return tree_map(written, params, updates), {"step": step + 1}
        new, left = unzip(tree_map(compensated, params, updates, state["compensation"]), 2)
        return new, {"step": step + 1, "compensation": left}

    return Transform(init, update, roundings.elementwise, (roundings,))


def master_weights(inner: Transform, rounding: str | Quantizer = "bfloat16:RNE") -> Transform:
    """Return `inner` working on a master copy of the parameters, in their full type; the parameters are the copy, rounded.

    This is mixed precision as Megatron's O2: the model sees narrow parameters, master and moments are float32. An element of
    the parameters that is not the rounding of its master was replaced since the last step, by loading or pruning, say: the
    master takes its value, as by Megatron's `reload_model_params`, which need not be called here.
    Source: Micikevicius et al., "Mixed Precision Training", ICLR 2018, section 3.1.
    """
    q = Quantizer.parse(rounding)
    if q.mode.stochastic:
        raise InputError(f"a cast of master weights by {q.mode} has no site of its own; take a deterministic mode")

    def init(params: Any) -> dict[str, Any]:
        master = tree_map(lambda _, p: np.array(widen(p)), params)
        return {"master": master, "inner": inner.init(master)}

    def current(_: Any, p: Any, m: Any) -> Any:
        """Return the master copy of a parameter, with the value of each element that somebody replaced."""
        kept = store_as(quantize(m, q), p.dtype)
        same = kept == p
        if same.all():
            return m
        return np.where(same | (np.isnan(kept) & np.isnan(p)), m, p.astype(m.dtype))

    def update(updates: Any, state: Any, params: Any, place: Place = WHOLE) -> tuple[Any, Any]:
        check_parts("master weights", state, "master", "inner")
        master = tree_map(current, params, state["master"])
        updates, inside = inner.update(updates, state["inner"], master, place)
        master = apply_updates(master, updates)
        written = tree_map(lambda _, p, new: Written(store_as(new, p.dtype)), params, cast(master, q))
        return written, {"master": master, "inner": inside}

    elementwise = inner.elementwise and (q.scale == "none" or not isinstance(q.scale, str))
    return Transform(init, update, elementwise, inner.rounds)


def skip_nonfinite(inner: Transform) -> Transform:
    """Return `inner`, but for gradients with an infinity or NaN: then parameters and state stay as they are, and it counts.

    A dynamic loss scale needs it (Micikevicius et al. 2018, section 3.2).
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
