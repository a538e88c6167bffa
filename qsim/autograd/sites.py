"""Sites: where a training step rounds, by name and by number.

A site is "<layer>.<point>" for the five quantization points of a layer, "<parameter>.<role>" for the roundings of an optimizer.
Its number is a field of the stream that its random words come from (`qsim.rounding.stream`), so numbers never collide:

    0 ..              the first 1,024 points of the layers, in order of first use, whether they round or not
    1024 ..           the second draw of the same site, where a tensor is rounded twice
    2048 + 8 p + k    role k of parameter p, in the order of the parameters' tree, for the first 256 parameters
    4096 j + ...      the next 1,024 points and 256 parameters, for j = 1, 2, ..., in the same places
"""

from __future__ import annotations

from typing import Any

from qsim.errors import InputError, enumerate_names
from qsim.rounding import SITE_BITS, STREAM_FIELDS

__all__ = [
    "ENDS", "PARAMETER_ROLES", "POINTS", "ROLES", "SECOND", "layer_site", "parameter_site", "parameter_sites", "paths", "sites",
]  # fmt: skip

POINTS = ("fwd_act", "fwd_weight", "bwd_act", "bwd_weight", "bwd_grad")
"""The five quantization points of a layer (Liu et al. 2025): inputs and weights of the forward product, inputs of the weight
gradient, weights of the data gradient, and the error both of these take."""

PARAMETER_ROLES = ("update", "moment", "moment2", "grad_acc", "comm")
"""The roundings of a parameter outside a layer: its write-back, the two moments of an optimizer, gradients that add up
over micro-batches, and those that add up over ranks."""

ROLES = POINTS + PARAMETER_ROLES

ENDS = ("embedding", "head")
"""The layers at both ends of a language model: a policy may leave them unrounded whether a model has them or not."""

SECOND, PARAMETERS, EACH = 1 << 10, 1 << 11, 8
PAGE = 1 << STREAM_FIELDS["site"]
PAGES = 1 << SITE_BITS - STREAM_FIELDS["site"]


def layer_site(index: int) -> int:
    """Return the number of the layers' point number `index`; its second draw has a number larger by `SECOND`.

    Raise `InputError` for point number 2^25: a key has no number for it.
    """
    page, low = divmod(index, SECOND)
    if not 0 <= page < PAGES:
        raise InputError(f"point {index} of the layers has no site: a key has room for {PAGES * SECOND} points")
    return PAGE * page + low


def parameter_site(index: int, role: str) -> int:
    """Return the number of the site where parameter number `index` is rounded in this role.

    Raise `InputError` for parameter number 2^23: a key has no number for it.
    """
    each = PARAMETERS // EACH
    page, low = divmod(index, each)
    if not 0 <= page < PAGES:
        raise InputError(f"parameter {index} has no site: a key has room for those of {PAGES * each} parameters")
    return PAGE * page + PARAMETERS + EACH * low + PARAMETER_ROLES.index(role)


def paths(tree: Any, prefix: str = "") -> list[str]:
    """Return the names of the leaves of nested dicts, lists and tuples, "layer0.w", in order."""
    if isinstance(tree, dict):
        branches = [(str(name), branch) for name, branch in tree.items()]
    elif isinstance(tree, list | tuple):
        branches = [(str(number), branch) for number, branch in enumerate(tree)]
    else:
        return [prefix]
    return [path for name, branch in branches for path in paths(branch, f"{prefix}.{name}" if prefix else name)]


def sites(model: Any, params: Any = None) -> dict[str, int]:
    """Return the sites of `model` and their numbers: the five points of each of its layers, and the roles of `params`.

    `model.layers` names its linear and convolution layers in the order in which they are used. Without `params` only the
    layers' sites are listed. Raise `InputError` for a model without `layers`.
    """
    layers = getattr(model, "layers", None)
    if layers is None or isinstance(layers, str):
        raise InputError(f"{type(model).__name__} has no `layers`, the names of its linear and convolution layers")
    found = {f"{layer}.{point}": 0 for layer in layers for point in POINTS}
    numbered = {site: layer_site(number) for number, site in enumerate(found)}
    return numbered if params is None else numbered | parameter_sites(params)


def parameter_sites(params: Any) -> dict[str, int]:
    """Return the sites of an optimizer and their numbers: "<path>.update", "<path>.moment", ... of every parameter."""
    return {
        f"{path}.{role}": parameter_site(index, role)
        for index, path in enumerate(paths(params))
        for role in PARAMETER_ROLES
    }


def check_name(name: str) -> None:
    """Refuse a name of a policy that spells no point, site or layer: those it might have meant are said."""
    if not isinstance(name, str):
        raise InputError(f"{name!r} is the name of no point, layer or site; names are strings")
    last = name.rpartition(".")[2]
    if not name or ("_" in last and last.partition("_")[0] in {"fwd", "bwd"} and last not in POINTS):
        raise InputError(f"no quantization point is called {name!r}; they are {enumerate_names(POINTS)}")
