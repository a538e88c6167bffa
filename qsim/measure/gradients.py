"""The effect of roundings on a gradient: bias, variance and direction by parameter and site, beside theory."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from qsim.arrays import Counts
from qsim.autograd import Rounding, leaves_of, numerics, tree_map, value_and_grad
from qsim.autograd.sites import paths
from qsim.autograd.tape import ACTIVATIONS
from qsim.errors import InputError, enumerate_names, integer
from qsim.kernels.threads import one_blas_thread
from qsim.measure.estimates import Estimate, Family, GroupedBias, Interval, sample_mean
from qsim.measure.predictions import ALL, Known, Prediction
from qsim.underflow import gradual_underflow

__all__ = ["GradientStatistics", "ParameterStatistics", "Prediction", "gradient_statistics"]

Floats = NDArray[np.float64]

CHOICES = {"step", "rank", "errors", "weight_draws", "error_draws", "sample_draws", "clamp", "loss_scale"}

CHUNK_BYTES = 1 << 21
"""Bytes of gradients of the draws that are taken at a time. The draws do not depend on it."""

GROUPS = 16

LEAST = 64
"""Pairs of draws that must make up a variance before Student's t is trusted with it, or a quarter of all if these are fewer."""


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
        """The length of the bias over that of the gradient; nothing is known of it where that is 0."""
        if not self.reference_norm:
            return Interval(math.nan, 0.0, math.inf)
        low, value, high = (
            math.sqrt(max(part, 0.0)) / self.reference_norm
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


@gradual_underflow
@np.errstate(all="ignore")  # a draw that overflows is a result
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

    The prediction of theory (`Prediction`) is exact for a point switched on alone: `bwd_act` and `bwd_grad` at their own
    layer, in a model that uses each parameter once and has no dropout, and in an `MLP` also below it. For `bwd_act` and
    `bwd_grad` of an `MLP` all together it is the martingale identity: the backward pass is linear in the error, so the
    variance is the sum over layers of E sum_i v(e_i) |J_i|^2, J_i the gradient's derivative by error i, plus the parts of
    rounded inputs. Everywhere else there is none. An interval has no ends where a few of the draws make up all of the
    variance that was seen, and where a draw holds an infinity or NaN; it is a point where every element was on the grid, so
    that nothing was rounded. Raise `InputError` for a number of draws that makes no groups.
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
        unchanged = all(number.on_grid == number.elements for number in counts.values())
        return sums.statistics(family, said, stochastic=known.stochastic and not unchanged), counts

    whole, counts = measured(policy)
    each = {site: measured({site: context.rounding(*site.rsplit(".", 1))})[0] for site in sites} if alone else {}
    return GradientStatistics(whole, each, counts, len(draws), rate)


def _float64(batch: Any) -> Any:
    """Return a batch with its real numbers in float64; labels and codes stay."""

    def widened(leaf: Any) -> NDArray[Any]:
        array = np.asarray(leaf)
        return array.astype(np.float64) if array.dtype.kind == "f" or array.dtype.name == "bfloat16" else array

    return tree_map(widened, batch)


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
        """Return the statistics from the sums, for every parameter and for all together.

        The variance is the mean over pairs of draws of |g_k - g_l|^2 / 2, independent numbers whatever the bias. Where a few of
        them make up the sum, as where a rounding rarely goes the other way, no interval is known: it is infinite.
        """
        for array in (self.pairs, self.products, self.squares):
            array[-1] = array[:-1].sum(0)
        squared = [bias.squared() for bias in self.bias]
        squared.append(self._whole_bias())
        norms = [float(np.linalg.norm(ref)) for ref in self.reference]
        norms.append(math.sqrt(sum(norm * norm for norm in norms)))
        found = {}
        for j, name in enumerate([*self.names, ALL]):
            length = np.sqrt(self.squares[j])
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
    total, squares = float(samples.sum()), float((samples**2).sum())
    return total * total / squares if squares else 0.0


def mean_where_there_is_one(cosine: Floats) -> Estimate:
    """Return the mean cosine; nothing is known of it where a gradient has no direction."""
    there = np.isfinite(cosine)
    return (
        sample_mean(cosine)
        if there.all()
        else Estimate(float(cosine[there].mean()) if there.any() else math.nan, math.inf)
    )
