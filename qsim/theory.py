"""The closed forms that measurements are held against, evaluated on the actual tensors in float64.

Names A-T1, A-T2 and A-T4 are this project's; the setting is that of Liu et al., "Training with Fewer Bits: Unlocking Edge LLMs
Training with Stochastic Rounding", Findings of EMNLP 2025, arXiv 2511.00874. They are derived, not quoted from the paper. A-T1
is checked in exact rationals by `proofs/at1_weight_gradient_variance.py`, A-T2 in one dimension by all outcomes in the
tests; A-T4 is the arithmetic of the two.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from qsim.errors import InputError
from qsim.formats import Grid
from qsim.rounding import Quantizer
from qsim.underflow import gradual_underflow

__all__ = [
    "batch_ratio",
    "error_sensitivities",
    "interval_around",
    "mean_of_shared_products",
    "per_sample_variance",
    "row_variance",
    "sampling_variance",
    "second_moment_bound",
    "shared_scalar_variance",
    "sr_variance",
]

Floats = NDArray[np.float64]


@gradual_underflow
def interval_around(x: Floats, q: Quantizer, scale: Floats | float = 1.0) -> tuple[Floats, Floats]:
    """Return the neighbours lo <= x <= hi of each element on the scaled grid of `q`, range or not.

    `scale` broadcasts against `x`. Exact where x / scale is. Raise `InputError` for a format without a grid.
    """
    if not isinstance(q.format, Grid) or q.format.gap:
        raise InputError(f"{q.format} has no binary grid, on which alone the interval around a number is computed here")
    scaled = np.abs(x) / scale
    exponent = np.maximum(np.frexp(scaled)[1] - 1, q.format.emin)
    spacing = np.ldexp(1.0, exponent - q.format.man_bits)
    lower = np.floor(scaled / spacing) * spacing
    upper = np.where(lower == scaled, lower, lower + spacing)
    inner, outer = lower * scale, upper * scale
    return np.where(x < 0, -outer, inner), np.where(x < 0, -inner, outer)


@gradual_underflow
def sr_variance(x: Floats, q: Quantizer, scale: Floats | float = 1.0) -> Floats:
    """Return v(x) = (hi - x)(x - lo), the variance of the stochastic rounding of each element.

    Beyond the largest value the result is always that value, so the variance is 0 there, and the rounding is biased.
    Source: theory F2; `proofs/stochastic_rounding_moments.py`.
    """
    lo, hi = interval_around(x, q, scale)
    inside = (x >= q.format.min * np.asarray(scale)) & (x <= q.format.max * np.asarray(scale))
    return np.where(inside, (hi - x) * (x - lo), 0.0)


@gradual_underflow
def per_sample_variance(errors: Floats, inputs: Floats, v_errors: Floats | float, v_inputs: Floats | float) -> Floats:
    """Return q_s^2, the variance that the roundings of sample s add to its weight gradient delta_s x_s^T (A-T1).

    `errors` has shape (..., samples, m), `inputs` (..., samples, n); `v_errors` and `v_inputs` are their `sr_variance`,
    0 for an operand that is not rounded. With independent stochastic rounding of both operands, summed over the
    entries of the gradient,

        q_s^2 = |delta_s|^2 sum_j v(x_sj) + |x_s|^2 sum_i v(delta_si) + sum_j v(x_sj) sum_i v(delta_si),

    and the gradient of a batch of b has the conditional variance (1/b^2) sum_s q_s^2. Result: shape (..., samples).
    """
    error_noise = np.broadcast_to(v_errors, errors.shape).sum(-1)
    input_noise = np.broadcast_to(v_inputs, inputs.shape).sum(-1)
    total: Floats = (
        (errors**2).sum(-1) * input_noise + (inputs**2).sum(-1) * error_noise + input_noise * error_noise
    )  # fmt: skip
    return total


@gradual_underflow
def sampling_variance(errors: Floats, inputs: Floats) -> float:
    """Return sigma^2 = E |g_s - E g_s|^2 over the samples, g_s = delta_s x_s^T: the variance of one sample's gradient.

    A batch of b drawn with replacement has sigma^2 / b.
    """
    mean = errors.T @ inputs / len(errors)
    second = float(((errors**2).sum(1) * (inputs**2).sum(1)).mean())
    return second - float((mean**2).sum())


@gradual_underflow
def mean_of_shared_products(errors: Floats, mask: Floats, inputs: Floats) -> Floats:
    """Return M_ijk = mean over s of delta_si mask_sj x_sk, shape (..., m, n, k) for arrays (..., samples, m or n or k).

    A rounded weight w_ij between two layers, drawn once and shared by the samples, enters the gradient of the layer below
    as sum_i w_ij M_ijk, so that its noise adds the variance sum_ij v(w_ij) sum_k M_ijk^2, whose limit for many samples is
    not zero (A-T2, exact for the layer just below the last).
    """
    samples = errors.shape[-2]
    pairs = errors[..., :, None] * mask[..., None, :]
    flat = pairs.reshape(*pairs.shape[:-2], -1)
    product: Floats = np.swapaxes(flat, -1, -2) @ inputs / samples
    return product.reshape(*flat.shape[:-2], errors.shape[-1], mask.shape[-1], inputs.shape[-1])


@gradual_underflow
def row_variance(errors: Floats, rows: Floats, v_errors: Floats | float, v_rows: Floats | float) -> Floats:
    """Return the variance that roundings of both operands add to errors^T rows, summed over its entries, by draw (A-T1).

    `errors` (draws, samples, ..., m) meet `rows` (draws, samples, ..., n), whose elements may stand in several rows, as those
    of an image do in several patches: no entry of the product meets an element twice. Result: shape (draws,).
    """
    each = per_sample_variance(errors, rows, v_errors, v_rows)
    total: Floats = each.reshape(len(each), -1).sum(-1)
    return total


@gradual_underflow
def error_sensitivities(
    weights: Sequence[Floats], inputs: Sequence[Floats], *, biases: bool = False
) -> list[list[Floats]]:
    """Return S with S[l][j][s, i] = |d G_j / d e_si|^2, e being the errors of layer l >= j, G_j the gradient sum of layer j.

    A chain of linear layers with ReLU between them: weights[l] is (m, n), inputs[l] (samples, n). With G_j = sum over s of
    e_j x_j^T (of e_j alone with `biases`) and e_{l-1} = D_l W_l^T e_l, D_l = diag(x_l > 0), the squared length of the
    derivative by one error leads to is a diagonal entry of A A^T, A = W_l D_l W_{l-1} ... D_{j+1}, times |x_j|^2 (or 1).
    """
    found: list[list[Floats]] = []
    for last in range(len(weights)):
        mine: list[Floats] = []
        for first in range(last + 1):
            own = np.ones(len(inputs[first])) if biases else (inputs[first] ** 2).sum(-1)
            if first == last:
                mine.append(np.broadcast_to(own[:, None], (len(own), len(weights[last]))))
                continue
            way = weights[last][None] * (inputs[last] > 0)[:, None, :]  # (samples, m of last, n of last)
            for layer in range(last - 1, first, -1):
                way = (way @ weights[layer]) * (inputs[layer] > 0)[:, None, :]
            mine.append((way**2).sum(-1) * own[:, None])
        found.append(mine)
    return found


@gradual_underflow
def second_moment_bound(
    error: Floats, weights: Sequence[Floats], inputs: Sequence[Floats], roundings: Sequence[tuple[float, float] | None]
) -> list[tuple[Floats, Floats]]:
    """Return upper bounds on E e^2 and E v(e) of each error, (samples, m), for every layer, without a draw.

    `error` (samples, m) is the error of the last layer. A rounding is (c, a): v(e) <= c e^2 + a, as a float format has
    c = u^2 / (1 + 2 u) and a = (smallest step)^2 / 4, and a fixed step (0, step^2 / 4); `None` is no rounding. Second moments
    of rounded errors are those before, plus the variances on the diagonal; then e_{l-1} = D_l W_l^T e_l.
    Source: `proofs/sr_relative_error.py`.
    """
    moments = error[:, :, None] * error[:, None, :]
    bounds: list[tuple[Floats, Floats]] = []
    for layer in range(len(weights) - 1, -1, -1):
        diagonal = np.einsum("smm->sm", moments)
        rounding = roundings[layer]
        v = np.zeros_like(diagonal) if rounding is None else rounding[0] * diagonal + rounding[1]
        bounds.append((diagonal.copy(), v))
        if layer:
            rounded = moments + v[:, :, None] * np.eye(v.shape[1])
            way = weights[layer][None] * (inputs[layer] > 0)[:, None, :]
            moments = np.swapaxes(way, -1, -2) @ rounded @ way
    return bounds[::-1]


@gradual_underflow
def shared_scalar_variance(x: Floats, v_weight: float) -> float:
    """Return (mean x^2)^2 v(w): the variance of the gradient of mean (w x - t)^2 / 2 when one draw of w serves all samples.

    It does not depend on the batch size (A-T2, the exact scalar instance).
    """
    return float(np.mean(x**2) ** 2 * v_weight)


@gradual_underflow
def batch_ratio(sigma2: Any, q2_fewer: Any, q2_more: Any) -> Any:
    """Return b'/b = (sigma^2 + q^2 at k-1 bits) / (sigma^2 + q^2 at k bits), the batch that buys back one bit (A-T4)."""
    return (sigma2 + q2_fewer) / (sigma2 + q2_more)
