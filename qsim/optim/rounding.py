"""Roundings of an optimizer: which site rounds how, and which random words it takes.

The site of parameter p (its index in the order of the tree) and of a kind has a number and a name, "layer0.w.update". Element i
of the unsharded parameter takes the word of `qsim.Key(seed, stream(site, step, draw, rank))` at i, so the bits do not depend
on how the parameters are cut into shards.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

from numpy.typing import NDArray

from qsim.arrays import quantize
from qsim.autograd import PARAMETER_ROLES, ROLES, parameter_site, parameter_sites
from qsim.errors import InputError, enumerate_names, nearest
from qsim.optim.tree import Parameter, tree_map
from qsim.rounding import SHARED_RANK, Key, Quantizer, stream

__all__ = ["WHOLE", "Place", "Roundings", "Spelling", "cast"]

Spelling = str | Quantizer | Mapping[str, str | Quantizer | None] | None
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

        A mapping may name other kinds, which are other links' business, and the points of layers, which are the context's.
        Raise `InputError` for a kind that does not exist.
        """
        Key(seed)  # refuses what is no seed
        if not isinstance(spelling, Mapping):
            one = None if spelling is None else Quantizer.parse(spelling)
            return cls(kinds, dict.fromkeys(kinds, one), seed)
        for name in spelling:
            if name.rpartition(".")[2] not in ROLES:
                raise InputError(
                    f"no rounding of an optimizer is called {name!r}; a name is or ends in {enumerate_names(PARAMETER_ROLES)}"
                )
        parsed = {name: None if q is None else Quantizer.parse(q) for name, q in spelling.items()}
        return cls(kinds, {name: q for name, q in parsed.items() if _family(name) & set(kinds)}, seed)

    def at(self, path: str, kind: str) -> Quantizer | None:
        """Return the rounding of a site, `None` where it rounds nothing."""
        first = "moment" if kind == "moment2" else kind
        for name in (f"{path}.{kind}", f"{path}.{first}", kind, first):
            if name in self.policy:
                return self.policy[name]
        return None

    @property
    def elementwise(self) -> bool:
        """Whether each element is rounded by itself: no scale is derived from the others."""
        return all(q is None or q.scale == "none" or not isinstance(q.scale, str) for q in self.policy.values())

    def check(self, params: Any) -> None:
        """Refuse names of sites that no parameter has, and parameters beyond the site numbers."""
        known = parameter_sites(params)
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
        """Return `x` rounded as its site says, with the words of this step, draw and rank; `x` itself if it says nothing."""
        q = self.at(parameter.path, kind)
        if q is None:
            return x
        key = self.key(parameter, kind, step, place, draw=draw, offset=offset) if q.mode.stochastic else None
        return quantize(x, q, key=key)

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
        number = stream(site=parameter_site(parameter.index, kind), step=step, draw=draw, rank=place.rank)
        return Key(self.seed, number, place.offset(parameter.path) if offset is None else offset)


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
