"""One cell: a format, a rounding, the points that round, a batch size; many batches, a few draws of the gradient each.

No gradient is kept. With a_k = g_k - ref, the distances of the K draws of one batch from its unrounded gradient, their sum
A and the sum n of their squared norms give (n - |A|^2 / K) / (K - 1), whose mean is Var(g | batch), and with the distance
c of ref from the gradient of the whole set, the products of different draws, whose mean is the batch's own part. Batches
are drawn with replacement, and alike for all cells of one batch size, so that cells differ by their roundings alone.
"""

from __future__ import annotations

import dataclasses
import hashlib
import itertools
import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from qsim import theory
from qsim.arrays import Counts
from qsim.autograd import POINTS, Numerics, Var, tree_map, value_and_grad
from qsim.errors import InputError
from qsim.formats import get_format
from qsim.measure import Estimate, GroupedBias, ratio, sample_mean
from qsim.rounding import Mode, Quantizer, mode_fields
from qsim.scales import derive_scale
from qsim.studies.gradient_variance.point import ModelSpec, Point, leaf, point, replaced

__all__ = ["ALL", "LAST", "Cell", "Fault", "compute", "estimate", "predicted_noise", "variance_of"]

Floats = NDArray[np.float64]
Fault = Literal["", "reused draw", "shared word", "after the mean"]

ALL = "all"
"""The part of a record that stands for the weights of all layers together."""

LAST = "last layer: "
"""Prefix of a point set that rounds at the last layer only, and takes its gradient only."""

CHUNK_BYTES = 1 << 23
"""Working set of one chunk of draws. The draws do not depend on it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Cell:
    """Name one cell; its numbers are a pure function of these fields."""

    model: ModelSpec
    arm: str
    format: str
    #: As everywhere, "SRA(8)".
    mode: str
    #: Quantization points joined by "+", or "all"; after "last layer: " those of the last layer alone.
    points: str
    scale: Literal["frozen", "full-range", "underflow", "absmax", "none"]
    batch: int
    batches: int
    #: Draws of each batch; 1 for a deterministic mode, which has no more.
    draws: int
    groups: int
    seed: int
    fault: Fault = ""
    #: Whether a forward and a backward weight take one draw, or words of their own.
    weight_draws: Literal["shared", "separate"] = "shared"
    #: Where an arm has several networks, which one this is: "seed 3, 20 steps".
    network: str = ""

    @property
    def sites(self) -> tuple[str, ...]:
        """Return the quantization points that round."""
        names = self.points.removeprefix(LAST)
        return POINTS if names == ALL else tuple(names.split("+"))

    def layers(self, at: Point) -> tuple[str, ...]:
        """Return the layers whose gradient is taken."""
        return at.site_layers[-1:] if self.points.startswith(LAST) else at.layers

    def rounded(self, at: Point) -> tuple[str, ...]:
        """Return the layers whose points round."""
        return at.site_layers[-1:] if self.points.startswith(LAST) else at.site_layers

    @property
    def stochastic(self) -> bool:
        """Whether the mode draws."""
        mode: Mode = mode_fields(self.mode)["mode"]
        return mode.stochastic

    @property
    def cost(self) -> float:
        """Return the work of the cell in sample-draws, about: a draw of a small batch costs as much as 30 samples."""
        shared = 0.25 if self.points.startswith(LAST) else 1.0
        return self.batches * (self.draws + 1) * (30 + self.batch * shared)

    @property
    def memory(self) -> int:
        """Return the bytes that a process needs for the cell, at most: libraries, a chunk of draws, the numbers kept.

        A chunk has its tensors forward, backward, rounded and as gradients, some eight times its size (`CHUNK_BYTES`, or that
        of one draw where this is larger).
        """
        widths, weights, layers = sum(self.model.widths), self.model.parameters, 8
        if self.model.kind == "mlp":
            weights = sum(n * m for n, m in itertools.pairwise(self.model.widths))
            layers = len(self.model.widths)
        else:
            widths = 2 * self.model.elements
        chunk = max(CHUNK_BYTES, 8 * (self.batch * widths + 2 * weights))
        kept = 8 * (layers * self.batches * (2 * self.draws + 4) + 2 * self.groups * weights)
        return (400 << 20) + 8 * chunk + kept + 8 * self.batches * self.batch

    @property
    def key(self) -> int:
        """Return a 64-bit seed made of all fields, so that no two cells share random words.

        But for `weight_draws`: a study has one choice, and two studies that differ in it alone have the same words. And but for
        `network`, which only names the model again.
        """
        fields = dataclasses.asdict(self)
        del fields["weight_draws"], fields["network"]
        fields["model"] = self.model.identity()
        text = json.dumps(fields, sort_keys=True)
        return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "little")

    @property
    def label(self) -> str:
        """Return the words that tell this cell from others in a report."""
        fault = f", {self.fault}" if self.fault else ""
        network = f", {self.network}" if self.network else ""
        return f"{self.format} {self.mode} {self.points} b={self.batch} ({self.arm}{network}{fault})"


class Faulty(Numerics):
    """Numerics with a planted fault, to show that the claims of the study can be refuted."""

    fault: Fault = ""

    def streams(self, site: str, draws: range, *, second: bool = False) -> NDArray[np.uint64]:
        """Reused draw: the inputs of a weight gradient take the words of its errors."""
        if self.fault == "reused draw":
            site = site.replace("bwd_act", "bwd_grad")
        return Numerics.streams(self, site, draws, second=second)


def policy(cell: Cell, at: Point) -> dict[str, Quantizer]:
    """Return the rounding of every site of the cell."""
    fmt = get_format(cell.format)
    return {
        f"{layer}.{name}": at.quantizer(layer, name, fmt, cell.mode, cell.scale)
        for layer in cell.rounded(at)
        for name in cell.sites
    }


def batch_indices(cell: Cell, samples: int) -> NDArray[np.int64]:
    """Return which samples form each batch, shape (batches, batch); a function of seed and batch size alone."""
    words = np.random.Philox(key=np.array([cell.seed, cell.batch], np.uint64))
    return np.random.Generator(words).integers(0, samples, (cell.batches, cell.batch))


def compute(cell: Cell) -> dict[str, Any]:
    """Return the record of the cell: parameters, estimates (value and standard error) a part, and counts."""
    at = point(cell.model)
    rounds = policy(cell, at)
    chosen = batch_indices(cell, len(at.x))
    layers, seed = cell.layers(at), cell.key
    parts = _parts(at, layers)
    whole = np.concatenate([at.gradient(layer).ravel() for layer in layers])
    fixed = tree_map(lambda array: array[None], at.params)  # constants, with the axis of draws that weights get
    weights = {layer: leaf(at.params, at.weights[layer]) for layer in layers}

    def loss(free: dict[str, Var], batch: Any) -> Any:
        params = fixed
        for name, w in free.items():
            params = replaced(params, at.weights[name], w)
        return at.model.loss(params, batch)

    step = value_and_grad(loss, batch_per_draw=True)
    samples = {layer: Samples(cell) for layer in layers}
    bias = GroupedBias(cell.groups, len(whole))
    counts: dict[str, Counts] = {}
    batches, draws = _chunk(cell, _elements(cell, len(layers)), len(whole))
    for first in range(0, cell.batches, batches):
        ids = chosen[first : first + batches]
        x, y = at.x[ids], at.y[ids]
        with Numerics({}):  # nothing rounds, whatever other threads of the process do
            ref = _flatten(step(weights, (x, y))[1])
        total = np.zeros_like(ref)
        for done in range(0, cell.draws, draws):
            with _numerics(cell, seed, rounds, draws * len(ids), first * cell.draws + done) as numerics:
                # One batch alone is not repeated: what no site has touched is then computed once for all its draws.
                _, grads = step(weights, (x, y) if len(ids) == 1 else (np.repeat(x, draws, 0), np.repeat(y, draws, 0)))
            found = _flatten(grads).reshape(len(ids), draws, -1)
            if not np.isfinite(found).all():
                raise InputError(_not_finite(cell))
            a = found - ref[:, None]
            total += a.sum(1)
            for layer, part in samples.items():
                mine = a[..., parts[layer]]
                part.around[first : first + len(ids), done : done + draws] = np.einsum("jkw,jkw->jk", mine, mine)
            for site, number in numerics.counts.items():
                counts[site] = counts.get(site, Counts()) + number
        bias.add(first, total / cell.draws)
        for layer, part in samples.items():
            part.finish(slice(first, first + len(ids)), total[:, parts[layer]], (ref - whole)[:, parts[layer]])
    samples[ALL] = Samples.together(cell, list(samples.values()))
    return _record(cell, at, rounds, chosen, parts, samples, bias, counts)


def _not_finite(cell: Cell) -> str:
    """Say that the gradient of a draw is infinite or NaN, why, and the remedy."""
    says = f"the gradient has infinities or NaN under {cell.format} at {cell.points}"
    if not get_format(cell.format).has_inf:
        return says
    return f"{says}, which overflows to infinity; take a format that ends in its largest number, as e4m2fn does"


class Samples:
    """Hold, for one part of the gradient, the independent numbers that estimates are made of."""

    def __init__(self, cell: Cell) -> None:
        self.around = np.empty((cell.batches, cell.draws))  # |g_k - ref|^2
        self.within = np.empty(cell.batches)  # estimates Var(g | batch)
        self.between = np.empty(cell.batches)  # estimates |E(g | batch) - whole|^2

    @classmethod
    def together(cls, cell: Cell, parts: Sequence[Samples]) -> Samples:
        """Return the numbers of several parts as one: squared norms and products add."""
        whole = cls(cell)
        for name in ("around", "within", "between"):
            np.sum([getattr(part, name) for part in parts], axis=0, out=getattr(whole, name))
        return whole

    def finish(self, rows: slice, total: Floats, c: Floats) -> None:
        """Turn the sums of some batches, `total` = A and the distance `c`, into their numbers."""
        draws = self.around.shape[1]
        n, size = self.around[rows].sum(1), np.einsum("jw,jw->j", total, total)
        products = size - n  # the sum of a_k . a_l over k != l
        if draws > 1:
            self.within[rows] = (n - size / draws) / (draws - 1)
            products /= draws * (draws - 1)
        else:
            products = size  # deterministic: every draw is this one
        self.between[rows] = products + np.einsum("jw,jw->j", 2 * total / draws + c, c)


def _elements(cell: Cell, layers: int) -> int:
    """Return how many numbers of a sample are held at a time, about."""
    model = cell.model
    return sum(model.widths[-1 - layers :]) if model.kind == "mlp" else 2 * model.elements


def _chunk(cell: Cell, widths: int, weights: int) -> tuple[int, int]:
    """Return how many batches and how many draws of each to take at a time: as many as fit `CHUNK_BYTES`."""
    fit = max(1, CHUNK_BYTES // (8 * (cell.batch * widths + 2 * weights)))
    if fit >= cell.draws:
        return fit // cell.draws, cell.draws
    return 1, next(draws for draws in range(fit, 0, -1) if cell.draws % draws == 0)


def _numerics(cell: Cell, seed: int, rounds: dict[str, Quantizer], draws: int, first_draw: int) -> Numerics:
    errors: Literal["per_sample", "mean"] = "mean" if cell.fault == "after the mean" else "per_sample"
    words: Literal["per_sample", "shared"] = "shared" if cell.fault == "shared word" else "per_sample"
    kind = Faulty if cell.fault == "reused draw" else Numerics
    numerics = kind(
        rounds, seed=seed, draws=draws, first_draw=first_draw, errors=errors, sample_draws=words,
        weight_draws=cell.weight_draws,
    )  # fmt: skip
    if isinstance(numerics, Faulty):
        numerics.fault = cell.fault
    return numerics


def _parts(at: Point, layers: tuple[str, ...]) -> dict[str, slice]:
    """Return where each layer's weights stand in a flat gradient, and all of them together."""
    parts, start = {}, 0
    for layer in layers:
        parts[layer] = slice(start, start + at.sizes[layer])
        start += at.sizes[layer]
    return {**parts, ALL: slice(0, start)}


def _flatten(grads: Any) -> Floats:
    """Return the weights' gradients of each draw in a row, shape (draws, weights)."""
    return np.concatenate([w.reshape(len(w), -1) for w in grads.values()], axis=1)


# --- What theory says of the same batches --------------------------------------------------------------------


def predicted(cell: Cell, at: Point, rounds: dict[str, Quantizer], chosen: NDArray[np.int64]) -> dict[str, Floats]:
    """Return Var(g | batch) of each batch and each part for which theory is exact, shape (batches,).

    A-T1 is exact for the inputs rounded alone, at any layer, and for errors rounded alone or with them at the last layer,
    whose errors nothing has rounded before. A-T2 is exact for backward weights alone, at the layer below the last. (Where
    all layers round their errors the last layer's gradient has the same law as where it alone does; those cells have the
    draws for it.)
    """
    if cell.mode != "SR" or not at.exact or cell.scale == "full-range":  # which may clamp, and then A-T1 is not exact
        return {}
    last = at.layers[-1]
    if cell.points == "bwd_act":
        each = {layer: _at1(cell, at, rounds, chosen, layer) for layer in at.layers}
        return {**each, ALL: np.sum(list(each.values()), axis=0)}
    if cell.points in (f"{LAST}bwd_grad", f"{LAST}bwd_act+bwd_grad"):
        exact = _at1(cell, at, rounds, chosen, last)
        return {last: exact, ALL: exact}
    if cell.points == "bwd_weight" and len(at.layers) > 1:
        below = at.layers[-2]
        return {below: _at2(at, rounds[f"{last}.bwd_weight"], chosen, below, last)}
    return {}


def _at1(cell: Cell, at: Point, rounds: dict[str, Quantizer], chosen: NDArray[np.int64], layer: str) -> Floats:
    if cell.scale != "absmax":  # a sample's part does not depend on its batch: compute it once a sample
        parts = theory.per_sample_variance(
            at.errors[layer], at.inputs[layer],
            *(variance_of(at.tensor(layer, name), rounds.get(f"{layer}.{name}")) for name in ("bwd_grad", "bwd_act")),
        )  # fmt: skip
        result: Floats = parts[chosen].mean(1) / cell.batch
        return result
    out = np.empty(len(chosen))
    for j, ids in enumerate(chosen):
        operands = [at.tensor(layer, name)[ids] for name in ("bwd_grad", "bwd_act")]
        noise = [
            variance_of(t, rounds.get(f"{layer}.{name}"))
            for t, name in zip(operands, ("bwd_grad", "bwd_act"), strict=True)
        ]
        out[j] = theory.per_sample_variance(*operands, *noise).mean() / cell.batch
    return out


def variance_of(x: Floats, q: Quantizer | None) -> Floats | float:
    """Return the variance of a site's rounding of the tensor `x`; a re-derived scale is that of `x`."""
    if q is None:
        return 0.0
    scale = derive_scale(x, q)
    return theory.sr_variance(x, q, 1.0 if scale is None else scale)


def _at2(at: Point, q: Quantizer, chosen: NDArray[np.int64], below: str, last: str) -> Floats:
    v = np.asarray(variance_of(at.params[last]["w"], q))
    out = np.empty(len(chosen))
    width = at.inputs[below].shape[1]
    at_a_time = max(1, CHUNK_BYTES // (8 * v.size * (chosen.shape[1] + width)))
    for first in range(0, len(chosen), at_a_time):
        ids = chosen[first : first + at_a_time]
        mask = (at.inputs[last][ids] > 0).astype(np.float64)
        m = theory.mean_of_shared_products(at.errors[last][ids], mask, at.inputs[below][ids])
        out[first : first + at_a_time] = np.einsum("mn,jmnk,jmnk->j", v, m, m)
    return out


def predicted_noise(at: Point, record: dict[str, Any]) -> float:
    """Return q^2 of the last layer's gradient by A-T1, over the whole set."""
    layer = at.layers[-1]
    points = record["points"].removeprefix(LAST).split("+")
    fmt, mode = get_format(record["format"]), record["mode"]
    v = [
        variance_of(
            at.tensor(layer, name), at.quantizer(layer, name, fmt, mode, record["scale"]) if name in points else None
        )
        for name in ("bwd_grad", "bwd_act")
    ]
    return float(theory.per_sample_variance(at.errors[layer], at.inputs[layer], v[0], v[1]).mean())


# --- The record ----------------------------------------------------------------------------------------------


def _record(
    cell: Cell,
    at: Point,
    rounds: dict[str, Quantizer],
    chosen: NDArray[np.int64],
    parts: dict[str, slice],
    samples: dict[str, Samples],
    bias: GroupedBias,
    counts: dict[str, Counts],
) -> dict[str, Any]:
    fields = {name: getattr(cell, name) for name in Cell.__slots__ if name not in ("model", "seed")}
    record: dict[str, Any] = {**fields, "train_seed": cell.model.seed, "train_steps": cell.model.train_steps}
    theory_says = predicted(cell, at, rounds, chosen)

    if ALL in theory_says and cell.points.startswith(LAST) and cell.scale != "absmax":
        record["whole.noise"] = significant(predicted_noise(at, record))

    def put(name: str, e: Estimate) -> None:
        record[name], record[f"{name}.error"] = significant(e.value), significant(e.error)

    record["whole.gradient_squared"] = significant(sum(squared_norm(at, layer) for layer in at.layers))
    for part, where in parts.items():
        record[f"{part}.gradient_squared"] = significant(
            sum(squared_norm(at, layer) for layer in ([part] if part != ALL else cell.layers(at)))
        )
        put(f"{part}.bias_squared", bias.squared(where))
        if part == ALL:
            put(f"{part}.between", sample_mean(samples[part].between))
        if not cell.stochastic:
            continue
        put(f"{part}.variance", sample_mean(samples[part].within))
        if part in theory_says:
            reference = theory_says[part]
            record[f"{part}.theory"] = significant(float(reference.mean()))
            # E g is the unrounded gradient of the batch wherever theory is exact; given the batches, the squared
            # distances of all draws from it are independent, each with the mean that theory says.
            if reference.mean() > 0:
                around = samples[part].around
                put(f"{part}.ratio", ratio(around.ravel(), np.repeat(reference, cell.draws)))
    for name in cell.sites:
        there = sum((number for site, number in counts.items() if site.endswith(f".{name}")), Counts())
        record[f"clamped.{name}"] = significant(there.saturated / there.elements) if there.elements else 0.0
    total = sum(counts.values(), Counts())
    record["clamped.share"] = significant(total.saturated / total.elements) if total.elements else 0.0
    record.update({f"count.{name}": getattr(total, name) for name in Counts.__slots__})
    return record


def squared_norm(at: Point, layer: str) -> float:
    """Return |g|^2 of the whole set's gradient with respect to a layer's weights."""
    return float((at.gradient(layer) ** 2).sum())


def significant(value: float, digits: int = 10) -> float:
    """Return `value` to 10 significant digits: far more than its error leaves, and half the size in a file."""
    return float(f"{value:.{digits - 1}e}")


def estimate(record: dict[str, Any], name: str) -> Estimate:
    """Return the estimate `name` of a record; its degrees of freedom follow from the sizes of the cell.

    One less than the independent units: draws for a ratio to theory, groups for a bias, else batches.
    """
    kind = name.partition(".")[2]
    units = {"ratio": record["batches"] * record["draws"], "bias_squared": record["groups"]}.get(
        kind, record["batches"]
    )
    return Estimate(record[name], record[f"{name}.error"], units - 1)
