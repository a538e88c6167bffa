"""Predictions of theory for a gradient under roundings: exact variances of parameters, and bounds."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from qsim import theory
from qsim.autograd import Numerics, leaves_of
from qsim.autograd.sites import paths
from qsim.formats import Grid
from qsim.measure.estimates import Estimate, sample_mean
from qsim.nn import MLP
from qsim.rounding import DERIVED, Quantizer
from qsim.scales import derive_scale

__all__ = ["ALL", "Known", "Prediction"]

Floats = NDArray[np.float64]

ALL = "all"
"""The name under which the statistics of all parameters together stand."""


@dataclass(frozen=True, slots=True)
class Prediction:
    """Hold the variance that theory gives a parameter's gradient, and by which theorem.

    `by`: "A-T1" or "A-T2", exact, evaluated on the unrounded tensors; "martingale", exact as an expectation over rounded
    errors, hence itself an estimate; "untouched", 0. `bound`: an upper bound that needs no draw; infinite where the scale is
    derived from errors that are rounded themselves.
    """

    by: str
    variance: Estimate
    bound: float
    #: Elements that roundings of the draws clamped: where there are any the hypothesis of unbiasedness is broken.
    saturated: int = 0


@dataclass(slots=True)
class Known:
    """Predict the gradient's variance under a policy from the unrounded tensors, and from errors as they are drawn."""

    model: Any
    params: Any
    seen: Mapping[str, Any]
    policy: Mapping[str, Any]
    plain: Numerics
    chain: Chain | None = field(init=False)
    martingale: bool = field(init=False)
    sites: dict[str, Quantizer] = field(init=False)
    stochastic: bool = field(init=False)
    #: Whether all that is in force is known to be unbiased, and nothing else draws.
    covered: bool = field(init=False)
    #: What a gradient is divided by that the errors are not: b and the loss scale.
    divisor: float = field(init=False)
    samples: dict[str, list[Floats]] = field(init=False)

    def __post_init__(self) -> None:
        asked = Numerics(
            {k: v if v is None or not isinstance(v, str) else Quantizer.parse(v) for k, v in self.policy.items()}
        )
        in_force = {site: asked.rounding(*site.rsplit(".", 1)) for site in self.plain.numbers}
        self.sites = {site: q for site, q in in_force.items() if isinstance(q, Quantizer)}
        self.stochastic = any((q if isinstance(q, Quantizer) else q.q).mode.stochastic for q in in_force.values() if q)
        usual = self.plain.error_draws == "shared" and self.plain.sample_draws == "per_sample"
        masked = any(site.endswith(".mask") for site in in_force)  # dropout draws too
        divisors = set(self.seen["divisors"])
        self.covered = (
            usual
            and not masked
            and len(divisors) == 1
            and all(q is None or exactly_unbiased(q, self.params) for q in in_force.values())
        )
        self.divisor = divisors.pop()
        self.chain = Chain.of(self.model, self.params, self.seen) if self.covered else None
        points = {site.rpartition(".")[2] for site in self.sites}
        self.martingale = (
            self.chain is not None and bool(points) and points <= {"bwd_act", "bwd_grad"} and len(self.sites) > 1
        )
        self.samples = {}

    def look(self, context: Numerics) -> None:
        """Note, draw by draw, the sum that the martingale identity takes the mean of, parameter by parameter."""
        if not self.martingale:
            return
        assert self.chain is not None
        assert context.seen is not None
        draws = context.draws or 1
        for name, values in self.chain.terms(self.sites, context.seen, draws, self.divisor).items():
            self.samples.setdefault(name, []).append(values)

    def predictions(self) -> dict[str, Prediction]:
        """Return the predictions by parameter, of those for which theory has an exact answer."""
        if not self.covered:
            return {}
        if self.martingale:
            assert self.chain is not None
            bounds = self.chain.bounds(self.sites, self.divisor)
            found = {
                name: Prediction("martingale", sample_mean(np.concatenate(values)), bounds[name])
                for name, values in self.samples.items()
            }
        elif len(self.sites) == 1:
            found = self._alone(*next(iter(self.sites.items())))
        else:
            return {}
        uses = dict(zip(paths(self.params), self.seen["uses"], strict=True))  # a shared weight has other gradients too
        return {name: p for name, p in found.items() if (uses[name] == 1 if name != ALL else set(uses.values()) == {1})}

    def _alone(self, site: str, q: Quantizer) -> dict[str, Prediction]:
        """Return the exact predictions for one site that rounds alone."""
        layer, _, point = site.rpartition(".")
        names = paths(self.params)
        if point.startswith("fwd_") or f"{layer}.w" not in names or f"{layer}.bwd_act" not in self.seen:
            return {}  # forward roundings go through nonlinear layers; a weight of another name has other gradients too
        found: dict[str, Prediction] = {}
        untouched = [name for name in names if name != f"{layer}.w"] if point == "bwd_act" else []
        if point != "bwd_weight":
            v = variance_of(self.seen[site], q)
            errors, rows = self.seen[f"{layer}.bwd_grad"], self.seen[layer]
            v_errors, v_inputs = (
                (v, np.zeros_like(self.seen[f"{layer}.bwd_act"])) if point == "bwd_grad" else (np.zeros_like(errors), v)
            )
            flat = [
                a.reshape(1, -1, a.shape[-1])
                for a in (errors, rows(self.seen[f"{layer}.bwd_act"]), v_errors, rows(v_inputs))
            ]
            found[f"{layer}.w"] = exactly("A-T1", float(theory.row_variance(*flat)[0]) / self.divisor / self.divisor)
            if point == "bwd_grad" and f"{layer}.b" in names:
                found[f"{layer}.b"] = exactly("A-T1", float(v.sum()) / self.divisor / self.divisor)
        if self.chain is not None and point != "bwd_act":
            found |= (
                self.chain.below(layer, variance_of(self.seen[site], q)[0], self.divisor)
                if point == "bwd_grad"
                else self.chain.under_weight(layer, q, self.divisor)
            )
            untouched = [name for name in names if self.chain.is_above(name, layer, point)]
        found |= {name: exactly("untouched", 0.0) for name in untouched}
        if set(found) == set(names):
            by = next((p.by for p in found.values() if p.by != "untouched"), "untouched")
            found[ALL] = exactly(by, sum(p.variance.value for p in found.values()))
        return found


def exactly(by: str, variance: float) -> Prediction:
    """Return a variance that theory gives without an error, and so its own bound."""
    return Prediction(by, Estimate(variance, 0.0), variance)


def exactly_unbiased(q: Any, params: Any) -> bool:
    """Return whether a rounding is stochastic, and unbiased on the grid that `theory.sr_variance` knows."""
    if not isinstance(q, Quantizer):
        return False
    wide = max(np.asarray(leaf).dtype.itemsize for leaf in leaves_of(params)) >= 4
    return q.mode.name == "SR" and isinstance(q.format, Grid) and not q.format.gap and wide


def variance_of(x: NDArray[Any], q: Quantizer) -> Floats:
    """Return the variance of rounding each element of `x`, (draws, ...)."""
    scale = derive_scale(x, q, lead=1)
    return theory.sr_variance(x.astype(np.float64), q, 1.0 if scale is None else scale.astype(np.float64))


@dataclass(frozen=True, slots=True)
class Chain:
    """Hold a chain of linear layers with ReLU between them, unrounded, and the sensitivities to the errors of each."""

    layers: tuple[str, ...]
    weights: list[Floats]
    inputs: list[Floats]
    errors: list[Floats]
    sensitivities: dict[str, list[list[Floats]]]

    @classmethod
    def of(cls, model: Any, params: Any, seen: Mapping[str, Any]) -> Chain | None:
        """Return the chain that an `MLP` is; `None` for another model."""
        if type(model) is not MLP:  # a subclass may compute something else
            return None
        weights = [params[name]["w"] for name in model.layers]
        inputs = [seen[f"{name}.bwd_act"][0] for name in model.layers]
        errors = [seen[f"{name}.bwd_grad"][0] for name in model.layers]
        return cls(
            model.layers, weights, inputs, errors,
            {part: theory.error_sensitivities(weights, inputs, biases=part == "b") for part in ("w", "b")},
        )  # fmt: skip

    def below(self, layer: str, v: Floats, divisor: float) -> dict[str, Prediction]:
        """Return the variance of every parameter at and below a layer whose errors alone round, with variances `v`."""
        at = self.layers.index(layer)
        found = {}
        for part, table in self.sensitivities.items():
            for j in range(at + 1):
                value = float((v * table[at][j]).sum()) / divisor / divisor
                found[f"{self.layers[j]}.{part}"] = exactly("A-T1", value)
        return found

    def under_weight(self, layer: str, q: Quantizer, divisor: float) -> dict[str, Prediction]:
        """Return the variance of the weights just below a layer whose backward weights alone round, drawn once (A-T2)."""
        at = self.layers.index(layer)
        if not at:
            return {}
        v = variance_of(self.weights[at][None], q)[0]
        mask = (self.inputs[at] > 0).astype(np.float64)
        m = theory.mean_of_shared_products(self.errors[at], mask, self.inputs[at - 1])
        share = len(mask) / divisor  # the mean over samples, or their sum where the errors have the 1/b
        value = float(np.einsum("mn,mnk,mnk->", v, m, m)) * share * share
        bias = np.swapaxes(self.errors[at], 0, 1) @ mask / len(mask)
        of_bias = float((v * bias**2).sum()) * share * share
        below = self.layers[at - 1]
        return {
            f"{below}.w": exactly("A-T2", value),
            f"{below}.b": exactly("A-T2", of_bias),
        }

    def is_above(self, name: str, layer: str, point: str) -> bool:
        """Return whether a parameter's gradient is computed before anything of the point reaches it."""
        own, at = self.layers.index(name.rpartition(".")[0]), self.layers.index(layer)
        return own > at or (own == at and point == "bwd_weight")

    def terms(
        self, sites: Mapping[str, Quantizer], seen: Mapping[str, Any], draws: int, divisor: float
    ) -> dict[str, Floats]:
        """Return for each parameter and draw the sum whose mean is the variance: errors by errors, inputs with their errors."""
        zero = np.zeros(draws)
        found = {f"{layer}.{part}": zero.copy() for layer in self.layers for part in ("w", "b")}
        for at, layer in enumerate(self.layers):
            errors = seen[f"{layer}.bwd_grad"].astype(np.float64)
            v = np.zeros_like(errors)
            if (q := sites.get(f"{layer}.bwd_grad")) is not None:
                v = variance_of(seen[f"{layer}.bwd_grad"], q)
                for part, table in self.sensitivities.items():
                    for j in range(at + 1):
                        found[f"{self.layers[j]}.{part}"] += (v * table[at][j]).sum((1, 2)) / divisor / divisor
            if (q := sites.get(f"{layer}.bwd_act")) is not None:
                noise = variance_of(self.inputs[at][None], q)[0].sum(-1)
                found[f"{layer}.w"] += (((errors**2) + v).sum(-1) * noise).sum(-1) / divisor / divisor
        return found | {ALL: np.sum(list(found.values()), axis=0)}

    def bounds(self, sites: Mapping[str, Quantizer], divisor: float) -> dict[str, float]:
        """Return upper bounds on the same variances, without a draw."""
        derived = any(q.scale in DERIVED for site, q in sites.items() if site.endswith(".bwd_grad"))
        if derived:
            return dict.fromkeys([*(f"{layer}.{part}" for layer in self.layers for part in ("w", "b")), ALL], math.inf)
        limits: list[tuple[float, float] | None] = []
        for layer in self.layers:
            q = sites.get(f"{layer}.bwd_grad")
            limits.append(None if q is None else limit_of(q))
        limited = theory.second_moment_bound(self.errors[-1], self.weights, self.inputs, limits)
        found = {f"{layer}.{part}": 0.0 for layer in self.layers for part in ("w", "b")}
        for at, (layer, (moments, v)) in enumerate(zip(self.layers, limited, strict=True)):
            for part, table in self.sensitivities.items():
                for j in range(at + 1):
                    found[f"{self.layers[j]}.{part}"] += float((v * table[at][j]).sum()) / divisor / divisor
            if (q := sites.get(f"{layer}.bwd_act")) is not None:
                noise = variance_of(self.inputs[at][None], q)[0].sum(-1)
                found[f"{layer}.w"] += float(((moments + v).sum(-1) * noise).sum()) / divisor / divisor
        return found | {ALL: sum(found.values())}


def limit_of(q: Quantizer) -> tuple[float, float]:
    """Return (c, a) with v(e) <= c e^2 + a for a rounding whose scale is a number."""
    assert isinstance(q.format, Grid)
    scale = 1.0 if q.scale == "none" else float(q.scale)
    if q.format.even:
        return 0.0, (scale * q.format.smallest_subnormal) ** 2 / 4
    u = 2.0**-q.format.precision
    return u * u / (1 + 2 * u), (scale * q.format.smallest_subnormal) ** 2 / 4
