"""Roundings of an optimizer: which site rounds how, and which random words it takes.

The site of parameter p (its index in the order of the tree) and of a kind has a number and a name, "layer0.w.update". Element i
of the unsharded parameter takes word i of `qsim.rounding.site_key(seed, site, step, draw, rank)`, so the bits do not depend on
how the parameters are cut into shards.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from qsim.arrays import Counts, count_elements, quantize
from qsim.autograd import PARAMETER_ROLES, POINTS, Delayed, Frozen, Rounding, parameter_site
from qsim.autograd.context import in_force
from qsim.autograd.sites import check_name, paths
from qsim.errors import InputError, nearest
from qsim.optim.tree import Parameter, check_params, tree_map
from qsim.rounding import OFFSET_BITS, SHARED_RANK, Key, Quantizer, site_key
from qsim.scales import apply_scale, derive_scale, flush_input

__all__ = ["WHOLE", "Place", "Roundings", "Spelling", "cast"]

Spelling = str | Quantizer | Mapping[str, str | Rounding | None] | None
"""One rounding for all sites that a link has, or roundings by kind ("update") or by site ("layer0.w.update")."""


@dataclass(frozen=True, slots=True)
class Place:
    """Say where an update happens: on which rank, and where the arrays stand in the unsharded parameters.

    `rank` chooses the random words; the default is the one shared by all ranks. `offsets` maps the path of a parameter to the
    index, in C order, of the first element of its shard; `None` where the parameters are whole.
    """

    rank: int = SHARED_RANK
    offsets: Mapping[str, int] | None = None

    def offset(self, path: str) -> int:
        """Return the index of the first element of the array at `path`."""
        return 0 if self.offsets is None else self.offsets[path]


WHOLE = Place()


@dataclass(frozen=True, slots=True)
class Roundings:
    """Hold the roundings of the kinds that one link has, by site, by kind, or one for all; a site's own goes first."""

    kinds: tuple[str, ...]
    policy: Mapping[str, Quantizer | None]
    seed: int = 0

    @classmethod
    def parse(cls, spelling: Spelling, kinds: tuple[str, ...], seed: int = 0) -> Self:
        """Return the roundings that `spelling` says for `kinds`; "moment" also stands for "moment2" where that is not named.

        A mapping may name other kinds, which are other links' business, and layers and their points, which are the context's
        (`qsim.numerics`), whatever they say.
        Raise `InputError` for a point that does not exist, for a misspelled kind, and for a remembered scale.
        """
        Key(seed)  # refuses what is no seed
        if not isinstance(spelling, Mapping):
            one = None if spelling is None else Quantizer.parse(spelling)
            return cls(kinds, dict.fromkeys(kinds, one), seed)
        parsed: dict[str, Quantizer | None] = {}
        for name, q in spelling.items():
            if not _is_ours(name):
                continue
            if isinstance(q, Delayed | Frozen):
                raise InputError(
                    f"{name!r} has a {type(q).__name__} scale, which sites of layers remember; an optimizer takes a Quantizer"
                )
            parsed[name] = None if q is None else Quantizer.parse(q)
        return cls(kinds, {name: q for name, q in parsed.items() if _family(name) & set(kinds)}, seed)

    def at(self, path: str, kind: str) -> Quantizer | None:
        """Return the rounding of a site, `None` where it rounds nothing."""
        first = "moment" if kind == "moment2" else kind
        for name in (f"{path}.{kind}", f"{path}.{first}", kind, first):
            if name in self.policy:
                return self.policy[name]
        return None

    def shared_words(self, other: Roundings) -> list[str]:
        """Return the kinds that both round stochastically, at any parameter, with words of the same seed."""
        if self.seed != other.seed:
            return []
        # Any parameter that neither names is rounded as one called "".
        paths = {"", *(name.rpartition(".")[0] for name in (*self.policy, *other.policy))}

        def drawn(roundings: Roundings, path: str, kind: str) -> bool:
            q = roundings.at(path, kind)
            return q is not None and q.mode.stochastic

        kinds = [kind for kind in self.kinds if kind in other.kinds]
        return [kind for kind in kinds if any(drawn(self, path, kind) and drawn(other, path, kind) for path in paths)]

    @property
    def elementwise(self) -> bool:
        """Whether each element is rounded by itself: no scale is derived from the others."""
        return all(q is None or q.scale == "none" or not isinstance(q.scale, str) for q in self.policy.values())

    def check(self, params: Any) -> None:
        """Refuse parameters that are no arrays, and sites that no parameter has."""
        check_params(params)
        known = {f"{path}.{role}" for path in paths(params) for role in PARAMETER_ROLES}
        for name in self.policy:
            if "." in name and name not in known:
                raise InputError(f"no parameter has the site {name!r}; did you mean {nearest(name, known)}?")

    def round(
        self,
        parameter: Parameter,
        kind: str,
        x: NDArray[Any],
        step: int,
        place: Place = WHOLE,
        *,
        draw: int = 0,
        offset: int | None = None,
    ) -> NDArray[Any]:
        """Return `x` rounded as its site says, with the words of this step, draw and rank; `x` itself if it says nothing.

        A numerics context in force counts the elements that broke a hypothesis of the rounding, under the name of the site.
        """
        q = self.at(parameter.path, kind)
        if q is None:
            return x
        key = None
        if q.mode.stochastic:
            key = self.key(parameter, kind, step, place, draw=draw, offset=offset)
            if x.size and (key.offset + x.size - 1) >> OFFSET_BITS & 1:  # an index that reaches the bit above its own
                raise InputError(f"the elements of {parameter.path} have indices that do not fit {OFFSET_BITS} bits")
        y = quantize(x, q, key=key)
        note(f"{parameter.path}.{kind}", x, y, q)
        return y

    def key(
        self,
        parameter: Parameter,
        kind: str,
        step: int,
        place: Place = WHOLE,
        *,
        draw: int = 0,
        offset: int | None = None,
    ) -> Key:
        """Return the key of the words that a site takes."""
        offset = place.offset(parameter.path) if offset is None else offset
        site = parameter_site(parameter.index, kind)
        return site_key(self.seed, site, step=step, draw=draw, rank=place.rank, offset=offset)


def note(site: str, x: NDArray[Any], y: NDArray[Any], q: Quantizer) -> None:
    """Add the `Counts` of `y`, the rounding of `x`, to the numerics context in force, if there is one."""
    context = in_force()
    if context is None:
        return
    with np.errstate(all="ignore"):
        seen = flush_input(x, q)
        scale, kept = derive_scale(seen, q), y
        if scale is not None:  # the quotient is rounded, and rounding to nearest keeps a value of the format
            seen = apply_scale(seen, scale, q, 0)
            kept = quantize(seen, Quantizer(q.format, saturation=q.saturation, ftz_out=q.ftz_out))
            kept = np.where(y == 0, 0, np.where(kept == 0, np.nan, kept))  # 0 is what it became, and nothing else
        counts = count_elements(x, seen, kept, q)
    context.counts[site] = context.counts.get(site, Counts()) + counts


def _is_ours(name: str) -> bool:
    """Return whether a name of a policy is that of an optimizer's site or kind; refuse one that only nearly is."""
    if not isinstance(name, str):
        raise InputError(f"{name!r} names no site of a rounding; names are strings, as 'update' or 'layer0.w.update'")
    last = name.rpartition(".")[2]
    if last in PARAMETER_ROLES:
        return True
    check_name(name)
    if last not in POINTS and difflib.get_close_matches(last, PARAMETER_ROLES, n=1, cutoff=NEAR):
        raise InputError(
            f"no rounding of an optimizer is called {name!r}; did you mean {nearest(last, PARAMETER_ROLES, 1)}?"
        )
    return False


NEAR = 0.75
"""From this likeness on a name is a misspelt kind: "updte", "momentum" and "moments" are, "mom" and the layer "gate" not."""


def _family(name: str) -> set[str]:
    """Return the kinds that a name of a policy speaks of."""
    kind = name.rpartition(".")[2]
    return {"moment", "moment2"} if kind == "moment" else {kind}


def cast(params: Any, rounding: str | Quantizer) -> Any:
    """Return `params` rounded once, deterministically: how a training run in a narrow format begins.

    Raise `InputError` for a stochastic rounding, which needs words that no site of an optimizer has before its first step.
    """
    q = Quantizer.parse(rounding)
    if q.mode.stochastic:
        raise InputError(
            f"{q.mode} cannot cast parameters before the first step; take a deterministic mode such as RNE"
        )
    return tree_map(lambda _, p: quantize(p, q), params)
