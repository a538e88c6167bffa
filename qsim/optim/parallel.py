"""Data parallel training, simulated: the all-reduce with its roundings, replicas, and updates cut into shards."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from qsim.errors import InputError
from qsim.optim.chain import Transform, Written, apply_updates
from qsim.optim.checks import check_parts
from qsim.optim.rounding import WHOLE, Place, Roundings, Spelling
from qsim.optim.tree import Parameter, computing_type, parameters, tree_map, widen
from qsim.rounding import SHARED_RANK

__all__ = ["all_reduce", "sharded", "update_replicas"]

Array = NDArray[Any]
Draws = Literal["shared", "independent"]
Send = Callable[[Array, int, int, int], Array]
"""send(x, rank, hop, offset): `x` as it arrives from `rank` at this hop, `offset` its first element's index."""


def all_reduce(
    grads: Sequence[Any],
    comm: Spelling = None,
    *,
    order: Literal["ring", "tree"] = "ring",
    divide: Literal["before", "after"] = "after",
    draws: Draws = "independent",
    step: int = 0,
    seed: int = 0,
) -> Any:
    """Return the mean of the gradients of W ranks as all ranks receive it; every message is rounded at the sites `comm`.

    "ring": of W nearly equal chunks of the flattened parameter, chunk c starts at rank c and goes around: the next rank adds
    its own, ((g_c + g_(c+1)) + g_(c+2)) + ..., each partial sum rounded as it is sent. "tree": in round l = 0, 1, ... rank
    r, a multiple of 2^(l+1), receives from rank r + 2^l, where there is one, and adds. At the end the total is divided by W
    and sent, hence rounded once more, and the sender keeps the message it sent, so that all ranks hold the same bits. `divide`
    "before": each rank divides by W first. Sums are in the type of the gradients, or in
    float32 for gradients of 16 bits.
    The words of a message are those of its hop (the draw) and of its sender, or with "shared" draws those that all ranks share.
    Raise `InputError` for gradients that do not go together.
    """
    if not grads:
        raise InputError("all_reduce takes the gradients of at least one rank")
    for name, choice, choices in (("order", order, ORDERS), ("divide", divide, DIVIDES), ("draws", draws, DRAWS)):
        if choice not in choices:
            raise InputError(f"{name} = {choice!r}; it is {' or '.join(choices)}")
    roundings = Roundings.parse(comm, ("comm",), seed)
    if not roundings.elementwise:
        raise InputError("a scale re-derived from each message is not simulated by all_reduce; freeze it")
    roundings.check(grads[0])
    ranks = len(grads)

    def reduce(parameter: Parameter, *each: Array) -> Array:
        def send(x: Array, rank: int, hop: int, offset: int) -> Array:
            place = Place(SHARED_RANK if draws == "shared" else rank)
            return roundings.round(parameter, "comm", x, step, place, draw=hop, offset=offset)

        number = computing_type(each[0]).type(ranks)
        flat = [(widen(g) / number if divide == "before" else widen(g)).reshape(-1) for g in each]
        after = number if divide == "after" else number / number
        total = _ring(flat, send, after) if order == "ring" else _tree(flat, send, after)
        return total.reshape(each[0].shape)

    return tree_map(reduce, *grads)


ORDERS, DIVIDES, DRAWS = ("ring", "tree"), ("before", "after"), ("shared", "independent")


def _ring(flat: Sequence[Array], send: Send, divisor: Any) -> Array:
    total, ranks = np.empty_like(flat[0]), len(flat)
    for chunk, (begin, end) in enumerate(cuts(flat[0].size, ranks)):
        partial = flat[chunk][begin:end]
        for hop in range(ranks - 1):
            sender = (chunk + hop) % ranks
            partial = send(partial, sender, hop, begin) + flat[(sender + 1) % ranks][begin:end]
        total[begin:end] = send(partial / divisor, (chunk - 1) % ranks, ranks - 1, begin)
    return total


def _tree(flat: Sequence[Array], send: Send, divisor: Any) -> Array:
    sums, distance, hop = dict(enumerate(flat)), 1, 0
    while distance < len(flat):
        for rank in range(0, len(flat) - distance, 2 * distance):
            sums[rank] = sums[rank] + send(sums[rank + distance], rank + distance, hop, 0)
        distance, hop = 2 * distance, hop + 1
    return send(sums[0] / divisor, 0, hop, 0)


def cuts(size: int, parts: int) -> list[tuple[int, int]]:
    """Return where `parts` contiguous parts of `size` elements begin and end; the first ones have one element more."""
    ends = [part * (size // parts) + min(part, size % parts) for part in range(parts + 1)]
    return list(itertools.pairwise(ends))


def update_replicas(
    optimizer: Transform, grads: Any, states: Sequence[Any], replicas: Sequence[Any], *, draws: Draws = "shared"
) -> tuple[list[Any], list[Any]]:
    """Return the new parameters and states of W replicas that each update themselves with the same reduced gradients.

    With "shared" draws they stay equal, bit for bit; with "independent" ones, rank r's own, stochastic roundings make them
    drift apart (Ozkara, Yu, Park 2025, section 3).
    """
    if draws not in DRAWS:
        raise InputError(f"draws = {draws!r}; it is {' or '.join(DRAWS)}")
    if len(states) != len(replicas):
        raise InputError(f"{len(states)} states go with {len(replicas)} replicas; each replica has one")
    new_params, new_states = [], []
    for rank, (state, params) in enumerate(zip(states, replicas, strict=True)):
        place = Place(SHARED_RANK if draws == "shared" else rank)
        updates, state = optimizer.update(grads, state, params, place)  # noqa: PLW2901 - the replica's next
        new_params.append(apply_updates(params, updates))
        new_states.append(state)
    return new_params, new_states


def sharded(inner: Transform, ranks: int) -> Transform:
    """Return `inner` as ZeRO runs it: each rank keeps the states of its contiguous part of every parameter and updates that.

    The result has the same bits as `inner` on whole parameters, since elements keep their own random words.
    Raise `InputError` for an `inner` in which elements depend on others: such links (clipping by the norm, Adafactor) come
    before, as in chain(clip_by_global_norm(1.0), sharded(adamw(1e-3), 8)).
    Source: Rajbhandari et al., "ZeRO: Memory Optimizations Toward Training Trillion Parameter Models", SC 2020, section 5.
    """
    if ranks < 1:
        raise InputError(f"sharded over {ranks} ranks; give 1 or more")
    if not inner.elementwise:
        raise InputError(
            "sharded takes an optimizer in which elements do not depend on each other; put clipping by the norm before it, and "
            "leave Adafactor, DQT and scales that are re-derived whole"
        )

    def part(tree: Any, rank: int) -> Any:
        def cut(_: Parameter, leaf: Any) -> Any:
            begin, end = cuts(leaf.size, ranks)[rank]
            return leaf.reshape(-1)[begin:end]

        return tree_map(cut, tree)

    def init(params: Any) -> dict[str, Any]:
        return {f"rank{rank}": inner.init(part(params, rank)) for rank in range(ranks)}

    def update(updates: Any, state: Any, params: Any, place: Place = WHOLE) -> tuple[Any, Any]:
        check_parts("sharded", state, *(f"rank{rank}" for rank in range(ranks)))
        pieces, new = [], {}
        for rank in range(ranks):
            begins = {name.path: cuts(p.size, ranks)[rank][0] for name, p in parameters(params)}
            here = Place(place.rank, {path: place.offset(path) + begin for path, begin in begins.items()})
            piece, new[f"rank{rank}"] = inner.update(
                part(updates, rank), state[f"rank{rank}"], part(params, rank), here
            )
            pieces.append(piece)

        # Flat pieces go with the parameters by name, not by shape: hence the lists.
        names = [[leaf for _, leaf in parameters(piece)] for piece in pieces]
        joined = (_join(parts) for parts in zip(*names, strict=True))
        return tree_map(lambda _, p: _shaped(next(joined), p.shape), params), new

    return Transform(init, update, rounds=inner.rounds)


def _join(parts: Sequence[Any]) -> Any:
    """Return the shards of one update together; values already written stay."""
    if isinstance(parts[0], Written):
        return Written(np.concatenate([part.value for part in parts]))
    return np.concatenate(parts)


def _shaped(u: Any, shape: tuple[int, ...]) -> Any:
    return Written(u.value.reshape(shape)) if isinstance(u, Written) else u.reshape(shape)
