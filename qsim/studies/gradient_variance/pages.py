"""The pages of the study: answer, setup, method and the meaning of words, with the figures and the tables."""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import PurePath
from typing import Any, Literal

from qsim.formats import get_format, short_name
from qsim.measure import Family
from qsim.rounding import Mode
from qsim.studies.gradient_variance.answer import answer
from qsim.studies.gradient_variance.claims import (
    Judged,
    gradient_norm,
    noisy,
)
from qsim.studies.gradient_variance.columns import columns
from qsim.studies.gradient_variance.figures import draw_figures
from qsim.studies.gradient_variance.plan import Plan
from qsim.studies.gradient_variance.point import ModelSpec, Point
from qsim.studies.gradient_variance.tables import make_tables
from qsim.studies.result import Claim, Result
from qsim.studies.study import Study
from qsim.verdicts import Outcome

__all__ = ["result"]

Record = dict[str, Any]
TERMS = (
    ("fwd_act", "the inputs of each layer, rounded in the forward pass"),
    ("fwd_weight", "the weights of each layer, rounded in the forward pass: one rounding serves all samples of a batch"),
    ("bwd_act", "the inputs of each layer, rounded before they are multiplied by the errors to the weight gradient"),
    ("bwd_weight", "the weights, rounded before errors are passed back through them: one rounding serves all samples"),
    ("bwd_grad", "the errors, the derivatives of the loss by the outputs of each layer, rounded for each sample"),
    ("SR", "stochastic rounding: to one of the two neighbours, up with the chance that makes the mean exact"),
    ("RNE", "rounding to the nearest value of the format, ties to the even code; it draws nothing"),
    ("|g|", "the norm of the gradient of the whole data set without rounding, all weights"),
    ("q²/b", ("the noise of rounding at batch size b: Var(g | batch), the mean squared distance of the gradient of a batch "
     "from its mean over the random words; q² is that of one sample. The papers on the subject write it so")),
    ("σ²/b", ("the noise of sampling at batch size b: the variance of the gradient, without rounding, over the choice of the "
     "batch; σ² is that of one sample, exact over the set")),
    ("b'/b", "the factor by which a batch must grow so that rounding to one bit fewer costs no noise"),
    ("A-T1", ("theorem, exact: with random words that are independent between elements, and no saturation, a weight gradient "
     "G = (1/b) sum over the samples s of SR(d_s) SR(x_s) has the mean (1/b) sum d_s x_s and the variance (1/b²) sum of "
     "d_s² v(x_s) + x_s² v(d_s) + v(x_s) v(d_s), with v(z) = (hi - z)(z - lo), lo and hi the neighbours of z in its "
     "format. Proof: proofs/at1_weight_gradient_variance.py")),
    ("A-T2", ("law of total variance: where the samples of a batch share the rounded weights W, Var(g) = Var(E[g | W]) + "
     "(1/b) E Var(g_s | W); the first term does not fall with b. For backward weights alone and the layer below the last it "
     "is exactly the sum over i, j of v(w_ij) |M_ij|², M_ij the mean over the batch of error i, the mask of unit j and "
     "the layer's input")),
    ("A-T4", ("definition: b'/b = (σ² + q² at k-1 bits) / (σ² + q² at k bits), with q² by A-T1; where all values lie in dense "
     "cells v is on the average a sixth of the squared step, and q² grows 4 times with each bit less")),
    ("dense cells", "the values spread over many steps of the format, so that any place between two neighbours is as likely"),
    ("below one step", "all values are smaller than the smallest step of the format, so that each rounds to 0 or to that step"),
    ("proofs/at1_weight_gradient_variance.py", ("the machine-checked proof of A-T1: exact sums over every combination of "
     "outcomes of all roundings in a layer; qsim prove at1_weight_gradient_variance runs it")),
    ("proofs/stochastic_rounding_moments.py", ("E SR(z) = z and Var SR(z) = (hi - z)(z - lo), checked exactly over formats, "
     "values and random words by qsim prove stochastic_rounding_moments")),
)  # fmt: skip
"""What the page says in signs and short words. Those that a report does not use are left out."""

METHOD = """
A cell is one format, rounding, set of quantization points and batch size. It takes many batches, drawn with replacement
and alike for all cells of one batch size, and a few draws of all random words for each. Errors are rounded per sample,
before the 1/b of the mean. Scales are frozen for the study, but for the arm that says otherwise.

Var(g | batch) is estimated from the draws of each batch and averaged over batches. Where A-T1 or A-T2 is exact, the
squared distance of every draw from the unrounded gradient of its batch is compared with the prediction for that batch,
so that the choice of batches adds no noise. The entries of one gradient are correlated, its draws are not: every number
is a sum over the entries, and every interval is over draws or batches.

The squared norm of a mean is too large by its own noise, so |bias|² is the mean product of the means of different groups
of batches, with the jackknife's error over the groups; it may come out negative. It does not depend on the batch size
when every sample is rounded by itself, and is pooled over batch sizes.

Intervals are Student's t (Welch and Satterthwaite where estimates are pooled). Those that claims rest on hold all
together at the stated false-alarm rate, by Bonferroni's inequality; the others in figures and tables are as wide, each
for itself. Held: the whole interval lies inside the margin. Refuted: wholly outside. Where theory predicts a number
exactly, a claim is refuted when an interval excludes it, and held only if every interval is also as short as the margin
asks.

The random words are Philox4x32-10, keyed by a seed made of the cell's parameters and by site, draw and element, so that
any cell can be computed again alone, in any number of processes.
"""


STANDARDIZED = {"set": "all numbers of the set alike", "columns": "each column by itself", "none": "not"}

WEIGHT_DRAWS = {
    "shared": "shared: a weight is rounded once a step, and the forward and the backward pass read the same value",
    "separate": "separate: a weight that both passes round takes random words of its own in each",
}


def result(
    study: Study,
    run: Literal["full", "quick"],
    plan: Plan,
    at: Point,
    records: Sequence[Record],
    claims: Sequence[Claim],
    judged: Mapping[str, Sequence[Judged]],
    family: Family,
) -> Result:
    """Return the result of the study as plain data."""
    sound = [r for r in records if not (r["fault"] or r["network"])]  # of the one network that figures are about
    telling = [r for r in sound if noisy(r)]
    figures = draw_figures(telling, at, plan, judged, family)
    every = [r for r in records if not r["fault"]]
    tables = make_tables(every, telling, at, plan, judged, family)
    there = {figure.id for figure in figures}, {table.id for table in tables}
    claims = [_placed(claim, *there, judged) for claim in claims]
    found = Result(
        study=study.name,
        title=study.title,
        question=study.question,
        answer=answer([r for r in records if not r["fault"] and noisy(r)], plan, at, claims, family),
        lead="overview" if "overview" in there[0] else "",
        run=run,
        command=study.command + (" --quick" if run == "quick" else ""),
        setup=(*_setup(plan, at, sound), *_silent(sound)),
        claims=tuple(claims),
        figures=figures,
        tables=(*tables, columns(dict.fromkeys(name for r in records for name in r))),
        method=tuple(" ".join(paragraph.split()) for paragraph in METHOD.split("\n\n")),
        cells=tuple(records),
        main="main" if "main" in there[1] else "",
    )
    return dataclasses.replace(found, terms=tuple(_used(found)))


FIGURES = {"variance-exact": "ratios", "weight-exact": "ratios"}
TABLES = {"weight-exact": "shared"}
"""The figure and the table of a claim, where they are others than the claim itself names."""


def _placed(claim: Claim, figures: set[str], tables: set[str], judged: Mapping[str, Sequence[Judged]]) -> Claim:
    """Return `claim` with the figure and the table of this report, and the number of draws that would decide it."""
    figure, table = FIGURES.get(claim.id, claim.figure), TABLES.get(claim.id, claim.table)
    key = next((key for key in judged if key.replace(", ", "--").replace(" ", "-") == claim.id), "")
    return dataclasses.replace(
        claim,
        figure=figure if figure in figures else "",
        table=table if table in tables else "",
        evidence=claim.evidence + _wanting(judged.get(key, ())),
    )


def _wanting(judged: Sequence[Judged]) -> str:
    """Return how many times the draws would decide the open claims, or nothing where no number of them can be told.

    The half of an interval falls with the root of the draws, and must fit between the estimate and the nearest margin.
    """
    factors = []
    for j in judged:
        if j.outcome is not Outcome.NOT_DECIDED:
            continue
        check, i = j.check, j.interval
        room = check.reach if check.equal is not None else min(abs(i.value - check.low), abs(check.high - i.value))
        if not (math.isfinite(i.half_width) and room > 0):
            return ""
        factors.append((i.half_width / room) ** 2)
    if not factors or max(factors) > 1e6:
        return ""
    times = f"{max(factors):.2g}" if max(factors) < 100 else f"{max(factors):,.0f}"
    return (
        f". With {times} times the draws, all {len(factors)} open intervals would be short enough, if their estimates stay"
        if len(factors) > 1 else
        f". With {times} times the draws, the open interval would be short enough, if its estimate stays"
    )  # fmt: skip


def _used(found: Result) -> Iterable[tuple[str, str]]:
    """Yield the terms that the words of a report use, those used by other terms included."""
    words = [found.question, found.answer, *found.method, *itertools.chain.from_iterable(found.setup)]
    words += [w for c in found.claims for w in (c.statement, c.margin, c.theorem, c.evidence)]
    for figure in found.figures:
        words += [figure.title, figure.caption, *(w for p in figure.panels for w in (p.title, p.ylabel))]
        words += [role for p in figure.panels for s in p.series for role in (s.role, s.label)]
    for table in found.tables:
        words += [table.title, table.note, *table.columns, *(str(cell) for row in table.rows for cell in row)]
    text = "\n".join(words)
    wanted: set[str] = set()
    while True:
        more = {name for name, says in TERMS if name not in wanted and name in text}
        if not more:
            break
        wanted |= more
        text += "\n".join(says for name, says in TERMS if name in more)
    return [(name, says) for name, says in TERMS if name in wanted]


def _setup(plan: Plan, at: Point, records: Sequence[Record]) -> tuple[tuple[str, str], ...]:
    model, names = plan.model, dict.fromkeys(r["format"] for r in records)
    draws = sum(r["batches"] * r["draws"] for r in records)
    sigma2 = sum(at.sampling_variance(layer) for layer in at.layers)
    formats = []
    for name in names:
        q = at.quantizer(at.site_layers[-1], "bwd_grad", get_format(name), Mode.SR, "frozen")
        fmt = get_format(name)
        words = (
            f"{name}: largest {fmt.max:.6g}, smallest {fmt.smallest_subnormal:.4g}, NaN becomes {fmt.nan_to}, "
            f"{q.saturation}; frozen scale of the last layer's errors {q.scale}"
        )
        formats.append((f"format {short_name(name)}", words))
    reached = (
        f"after {model.train_steps} steps of SGD, batch {model.train_batch}, rate {model.learning_rate}, seed {model.seed}: "
        f"loss {at.loss:.4f}" + (f", accuracy {at.accuracy:.1%}" if at.accuracy is not None else "")
    )
    return (
        ("data", f"{at.data.source}; {len(at.x)} samples, standardized: {STANDARDIZED[model.data.standardize]}"),
        ("SHA-256 of the data", at.data.sha256),
        ("model", f"{model_words(model)}, float64, biases not rounded"),
        ("the point", reached),
        (
            "gradient there",
            f"|g| = {gradient_norm(at):.4g}; sampling variance of a batch of one sigma^2 = {sigma2:.4g}",
        ),
        (
            "random bits",
            "SR is StochasticA with 64 random bits (float64 input): no bias where at most 64 bits are discarded",
        ),
        ("straight-through", "the derivative of a rounding is taken as 1, also where it saturates"),
        ("draws of weights", WEIGHT_DRAWS[plan.cells[0].weight_draws]),
        ("size", f"{len(records)} cells and those of the planted faults, {draws:,} gradients"),
        *formats,
    )


def model_words(model: ModelSpec) -> str:
    """Describe the model in words."""
    if model.kind == "mlp":
        return f"MLP {'-'.join(map(str, model.widths))}, ReLU, softmax cross-entropy"
    if model.kind == "wideresnet":
        return f"WRN-{model.depth}-{model.widen}, group norm, softmax cross-entropy"
    return f"{model.kind} of {PurePath(model.file).name}, SHA-256 {model.sha256}"


def _silent(records: Sequence[Record]) -> Iterable[tuple[str, str]]:
    """Yield the sentences on formats to which a rounding changes nothing."""
    names = dict.fromkeys(short_name(r["format"]) for r in records if not noisy(r))
    if names:
        yield (
            "no noise",
            f"in some cells of {', '.join(names)}, whose numbers are in result.json and in no claim or figure",
        )


# --- Figures -------------------------------------------------------------------------------------------------
