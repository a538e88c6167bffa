"""The columns of cells.csv: parameters of a cell, estimates with their standard errors, counts."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from qsim.studies.result import Cell, Table

__all__ = ["columns"]

PARAMETERS: Mapping[str, str] = {
    "arm": "the arm of study.toml",
    "format": "what is rounded to",
    "mode": "the rounding mode",
    "points": "the quantization points that round, joined by +, or all",
    "scale": "frozen, full-range, underflow, absmax or none, see study.toml",
    "batch": "b, the samples of a batch",
    "batches": "how many batches were drawn",
    "draws": "draws of all roundings for each batch",
    "groups": "groups of batches, of which a bias has its error",
    "fault": "the planted fault, or empty",
    "weight_draws": "whether forward and backward weights share a draw",
    "network": "which network of an arm with several, or empty",
    "train_seed": "the seed of the network's start",
    "train_steps": "the steps it was trained",
}

ESTIMATES: Mapping[str, str] = {
    "bias_squared": "|E g - g|^2, noise taken out; may be negative",
    "variance": "mean over batches of Var(g | batch), the papers' q^2 / b where each sample is rounded by itself",
    "between": "mean squared distance of E(g | batch) from the whole set's gradient, the papers' sigma^2 / b",
    "theory": "Var(g | batch) by the theorems A-T1 (variance) or A-T2 (shared weights), over the same batches",
    "ratio": "measured variance over that of theory",
    "gradient_squared": "|g|^2 of the whole set, unrounded",
    "noise": "q^2 of the whole set by the variance theorem (A-T1)",
    "error": "the standard error of the column before it",
}

OTHERS: Mapping[str, str] = {
    "clamped.share": "the share of all rounded elements that was clamped",
    "count.elements": "how many elements were rounded",
    "count.saturated": "how many were clamped to an end of the range",
    "count.underflowed": "how many became zero and were none",
    "count.nan": "how many became NaN",
    "count.on_grid": "how many were values of the format before",
}


def columns(names: Iterable[str]) -> Table:
    """Return the table of the columns `names`, each with its meaning."""
    rows: list[tuple[Cell, ...]] = []
    for name in names:
        part, _, what = name.rpartition(".")
        if name in PARAMETERS or name in OTHERS:
            words = {**PARAMETERS, **OTHERS}[name]
        elif part == "clamped":
            words = f"the share of the elements of {what} that was clamped"
        elif what == "error" or what not in ESTIMATES:
            words = f"the standard error of {part}" if what == "error" else what
        else:
            whose = {"all": "all weights whose gradient is taken", "whole": "all weights of the model"}.get(
                part, f"the weights of {part}"
            )
            words = f"{ESTIMATES[what]}; {whose}"
        rows.append((name, words))
    return Table(id="columns", title="Columns of cells.csv", columns=("column", "what it is"), rows=tuple(rows))
