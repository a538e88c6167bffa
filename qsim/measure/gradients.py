"""What roundings do to a gradient: bias, variance and direction by parameter and by site, beside what theory says of them."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from qsim import theory
from qsim.arrays import Counts
from qsim.autograd import Numerics, Rounding, leaves_of, numerics, tree_map, value_and_grad
from qsim.autograd.sites import paths
from qsim.autograd.tape import ACTIVATIONS
from qsim.errors import InputError, enumerate_names, integer
from qsim.formats import Grid
from qsim.kernels.threads import one_blas_thread
from qsim.measure.estimates import Estimate, Family, GroupedBias, Interval, sample_mean
from qsim.nn import MLP
from qsim.rounding import Quantizer
from qsim.scales import derive_scale

__all__ = ["GradientStatistics", "ParameterStatistics", "Prediction", "gradient_statistics"]

Floats = NDArray[np.float64]

ALL = "all"
"""The name under which the statistics of all parameters together stand."""

CHOICES = {"step", "rank", "errors", "weight_draws", "error_draws", "sample_draws", "clamp", "loss_scale"}

CHUNK_BYTES = 1 << 21
"""Bytes of gradients of the draws that are taken at a time. The draws do not depend on it."""

GROUPS = 16

LEAST = 64
"""Pairs of draws that must make up a variance before Student's t is trusted with it, or a quarter of all if these are fewer."""


@dataclass(frozen=True, slots=True)
class Prediction:
    """Hold the variance that theory gives a parameter's gradient, and by what.

    `by`: "A-T1" or "A-T2", exact, evaluated on the unrounded tensors; "martingale", exact as an expectation over rounded
    errors, hence itself an estimate; "untouched", 0. `bound`: an upper bound that needs no draw; infinite where the scale is
    derived from errors that are rounded themselves.
    """

    by: str
    variance: Estimate
    bound: float
    #: Elements that roundings of the draws clamped: where there are any the hypothesis of unbiasedness is broken.
    saturated: int = 0


@dataclass(frozen=True, slots=True)
class ParameterStatistics:
    """Hold the statistics of one parameter's gradient g_k over draws k, against the unrounded float64 gradient.

    All are intervals that hold at once: |E g - ref|^2 with the noise taken out, sum of the entries' variances, mean cosine
    of g_k and ref, mean |g_k| / |ref|.
    """

    reference_norm: float
    bias_squared: Interval
    variance: Interval
    cosine: Interval
    norm_ratio: Interval
    theory: Prediction | None

    @property
    def bias(self) -> Interval:
        """The length of the bias over that of the gradient."""
        low, value, high = (
            math.sqrt(max(part, 0.0)) / self.reference_norm if self.reference_norm else math.nan
            for part in (self.bias_squared.low, self.bias_squared.value, self.bias_squared.high)
        )
        return Interval(value, low, high)


@dataclass(frozen=True, slots=True)
class GradientStatistics:
    """Hold statistics by parameter ("layer0.w", and "all" for the whole), with all roundings in force and by site alone."""

    together: Mapping[str, ParameterStatistics]
    alone: Mapping[str, Mapping[str, ParameterStatistics]]
    #: What broke a hypothesis at each site, with all roundings in force.
    counts: Mapping[str, Counts]
    draws: int
    rate: float

    def rows(self) -> list[dict[str, Any]]:
        """Return plain data, a dict a parameter and a set of sites: for a table, or JSON."""
        found = []
        for sites, parameters in {"": self.together, **self.alone}.items():
            for name, s in parameters.items():
                row: dict[str, Any] = {"site": sites or "all in force", "parameter": name, "norm": s.reference_norm}
                for what in ("bias_squared", "variance", "cosine", "norm_ratio"):
                    interval = getattr(s, what)
                    row |= {what: interval.value, f"{what}_low": interval.low, f"{what}_high": interval.high}
                if s.theory is not None:
                    row |= {"theory": s.theory.by, "theory_variance": s.theory.variance.value}
                    row |= {
                        "theory_error": s.theory.variance.error,
                        "bound": s.theory.bound,
                        "saturated": s.theory.saturated,
                    }
                found.append(row)
        return found


def gradient_statistics(
    model: Any,
    params: Any,
    batch: Any,
    policy: Mapping[str, str | Rounding | None],
    *,
    seeds: range | int = 256,
    seed: int = 0,
    alone: bool = True,
    rate: float = 1e-3,
    **choices: Any,
) -> GradientStatistics:
    """Return how the gradient of `model.loss` at `params` on `batch` is distributed under the roundings of `policy`.

    `policy` and `choices` are those of `qsim.numerics`; `seeds` numbers the independent draws of every rounding (a range, or
    how many from 0 on; an even number, at least 32); `seed` is the key's. With `alone` each site that rounds is also switched
    on alone, on the same words. `rate` is that at which any interval of all may miss, together (Bonferroni; Student's t over
    draws). No gradient is kept: a few draws at a time go into running sums, whatever their number.

    What theory says (`Prediction`) is exact for a point switched on alone: `bwd_act` and `bwd_grad` at their own layer, in a
    model that uses each parameter once and has no dropout, and in an `MLP` also below it. For `bwd_act` and `bwd_grad` of an
    `MLP` all together it is the martingale identity: the backward pass is linear in the error, so the variance is the sum over
    layers of E sum_i v(e_i) |J_i|^2, J_i what error i leads to, plus the parts of rounded inputs. Everywhere else there is
    none. An interval is infinite where a few of the draws make up all of the variance that was seen.
    Raise `InputError` for a number of draws that makes no groups.
    """
    draws = seeds if isinstance(seeds, range) else range(integer("seeds", seeds))
    if draws.step != 1 or len(draws) % 2 or len(draws) < 2 * GROUPS:
        raise InputError(f"seeds = {seeds} must be an even number of at least {2 * GROUPS} neighbouring draws")
    for name in ("draws", "first_draw"):
        if name in choices:
            raise InputError(f"{name} is said by seeds here")
    wrong = choices.keys() - CHOICES
    if wrong:
        raise InputError(f"no choice of numerics is called {min(wrong)!r}; they are {enumerate_names(sorted(CHOICES))}")
    if not 0 < rate < 1:
        raise InputError(f"rate = {rate!r} must be above 0 and below 1")
    step = value_and_grad(model.loss)
    exact = tree_map(lambda array: np.asarray(array, np.float64), params)
    seen: dict[str, Any] = {}
    with one_blas_thread(), numerics(seed=seed, **choices) as plain:
        plain.seen = seen
        reference = step(exact, _float64(batch))[1]
    with numerics(policy, seed=seed, **choices) as context:
        sites = [site for site in plain.numbers if context.rounding(*site.rsplit(".", 1)) is not None]
    names = paths(params)
    family = Family(rate, 4 * (len(names) + 1) * (1 + len(sites) * alone))

    def measured(some: Mapping[str, Any]) -> tuple[dict[str, ParameterStatistics], dict[str, Counts]]:
        known = Known(model, exact, seen, some, plain)
        sums = Sums(names, [np.ravel(leaf) for leaf in leaves_of(reference)], len(draws))
        counts: dict[str, Counts] = {}
        size = sum(np.asarray(leaf).nbytes for leaf in (*leaves_of(params), *ACTIVATIONS * leaves_of(batch)))
        together = max(2, CHUNK_BYTES // max(size, 1) // 2 * 2)
        for first in range(draws.start, draws.stop, together):
            count = min(together, draws.stop - first)
            with (
                one_blas_thread(),
                numerics(some, seed=seed, draws=count, first_draw=first, **choices) as context,
            ):
                context.seen = {} if known.martingale else None
                grads = step(params, batch)[1]
            sums.add(first - draws.start, [np.reshape(g, (count, -1)) for g in leaves_of(grads)])
            known.look(context)
            for site, number in context.counts.items():
                counts[site] = counts.get(site, Counts()) + number
        saturated = sum(number.saturated for number in counts.values())
        said = {name: dataclasses.replace(p, saturated=saturated) for name, p in known.predictions().items()}
        return sums.statistics(family, said, stochastic=known.stochastic), counts

    whole, counts = measured(policy)
    each = {site: measured({site: context.rounding(*site.rsplit(".", 1))})[0] for site in sites} if alone else {}
    return GradientStatistics(whole, each, counts, len(draws), rate)


def _float64(batch: Any) -> Any:
    """Return a batch with its real numbers in float64; labels and codes stay."""
    return tree_map(lambda a: np.asarray(a, np.float64) if np.asarray(a).dtype.kind == "f" else np.asarray(a), batch)


class Sums:
    """Hold the running sums of draws of a gradient, parameter by parameter."""

    def __init__(self, names: Sequence[str], reference: Sequence[Floats], draws: int) -> None:
        self.names, self.reference = names, reference
        self.bias = [GroupedBias(GROUPS, len(leaf)) for leaf in reference]
        self.pairs, self.products, self.squares = (np.zeros((len(names) + 1, n)) for n in (draws // 2, draws, draws))

    def add(self, first: int, grads: Sequence[NDArray[Any]]) -> None:
        """Add draws first, first + 1, ..., an even number of them."""
        for j, (gradient, ref) in enumerate(zip(grads, self.reference, strict=True)):
            g = gradient.astype(np.float64)
            where = slice(first, first + len(g))
            self.bias[j].add(first, g - ref)
            half = g[0::2] - g[1::2]
            self.pairs[j, first // 2 : (first + len(g)) // 2] = (half**2).sum(1) / 2
            self.products[j, where], self.squares[j, where] = (g * ref).sum(1), (g**2).sum(1)

    def statistics(
        self, family: Family, predictions: Mapping[str, Prediction], *, stochastic: bool
    ) -> dict[str, ParameterStatistics]:
        """Return what the sums say, for every parameter and for all together.

        The variance is the mean over pairs of draws of |g_k - g_l|^2 / 2, independent numbers whatever the bias. Where a few of
        them make up the sum, as where a rounding rarely goes the other way, no interval is known: it is infinite.
        """
        for array in (self.pairs, self.products, self.squares):
            array[-1] = array[:-1].sum(0)
        squared = [bias.squared() for bias in self.bias]
        squared.append(self._whole_bias())
        norms = [float(np.linalg.norm(ref)) for ref in self.reference]
        norms.append(math.sqrt(sum(norm**2 for norm in norms)))
        found = {}
        for j, name in enumerate([*self.names, ALL]):
            length = np.sqrt(self.squares[j])
            with np.errstate(all="ignore"):
                cosine, ratio = self.products[j] / (length * norms[j]), length / norms[j]
            said = predictions.get(name)
            settled = not stochastic or (said is not None and said.by == "untouched")
            known = settled or effective(self.pairs[j]) >= min(LEAST, len(self.pairs[j]) / 4)
            bias, variance, along, longer = (
                family.interval(e if known else dataclasses.replace(e, error=math.inf))
                for e in (squared[j], sample_mean(self.pairs[j]), mean_where_there_is_one(cosine), sample_mean(ratio))
            )
            found[name] = ParameterStatistics(norms[j], bias, variance, along, longer, said)
        return found

    def _whole_bias(self) -> Estimate:
        whole = GroupedBias(GROUPS, 0)
        whole.sums = np.concatenate([bias.sums for bias in self.bias], axis=1)
        whole.counts = self.bias[0].counts
        return whole.squared()


def effective(samples: Floats) -> float:
    """Return (sum)^2 / sum of squares of positive numbers: how many of them make up the sum; 0 where all are 0."""
    squares = float((samples**2).sum())
    return float(samples.sum()) ** 2 / squares if squares else 0.0


def mean_where_there_is_one(cosine: Floats) -> Estimate:
    """Return the mean cosine; nothing is known of it where a gradient has no direction."""
    there = np.isfinite(cosine)
    return (
        sample_mean(cosine)
        if there.all()
        else Estimate(float(cosine[there].mean()) if there.any() else math.nan, math.inf)
    )


# --- What theory says ----------------------------------------------------------------------------------------


@dataclass(slots=True)
class Known:
    """Find what theory says of the gradient under a policy, from the unrounded tensors, and from errors as they are drawn."""

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
        """Return what theory says, by parameter; nothing where it has no exact answer."""
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
        """Return what is exact when one site rounds alone."""
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
            found[f"{layer}.w"] = exactly("A-T1", float(theory.row_variance(*flat)[0]) / self.divisor**2)
            if point == "bwd_grad" and f"{layer}.b" in names:
                found[f"{layer}.b"] = exactly("A-T1", float(v.sum()) / self.divisor**2)
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
    """Hold a chain of linear layers with ReLU between them, unrounded, and what errors of each lead to."""

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
                value = float((v * table[at][j]).sum()) / divisor**2
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
        value = float(np.einsum("mn,mnk,mnk->", v, m, m)) * share**2
        bias = np.swapaxes(self.errors[at], 0, 1) @ mask / len(mask)
        of_bias = float((v * bias**2).sum()) * share**2
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
                        found[f"{self.layers[j]}.{part}"] += (v * table[at][j]).sum((1, 2)) / divisor**2
            if (q := sites.get(f"{layer}.bwd_act")) is not None:
                noise = variance_of(self.inputs[at][None], q)[0].sum(-1)
                found[f"{layer}.w"] += (((errors**2) + v).sum(-1) * noise).sum(-1) / divisor**2
        return found | {ALL: np.sum(list(found.values()), axis=0)}

    def bounds(self, sites: Mapping[str, Quantizer], divisor: float) -> dict[str, float]:
        """Return upper bounds on the same variances, without a draw."""
        derived = any(
            q.scale in {"absmax", "absmean", "pow2"} for site, q in sites.items() if site.endswith(".bwd_grad")
        )
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
                    found[f"{self.layers[j]}.{part}"] += float((v * table[at][j]).sum()) / divisor**2
            if (q := sites.get(f"{layer}.bwd_act")) is not None:
                noise = variance_of(self.inputs[at][None], q)[0].sum(-1)
                found[f"{layer}.w"] += float(((moments + v).sum(-1) * noise).sum()) / divisor**2
        return found | {ALL: sum(found.values())}


def limit_of(q: Quantizer) -> tuple[float, float]:
    """Return (c, a) with v(e) <= c e^2 + a for a rounding whose scale is a number."""
    assert isinstance(q.format, Grid)
    scale = 1.0 if q.scale == "none" else float(q.scale)
    if q.format.even:
        return 0.0, (scale * q.format.smallest_subnormal) ** 2 / 4
    u = 2.0**-q.format.precision
    return u * u / (1 + 2 * u), (scale * q.format.smallest_subnormal) ** 2 / 4
