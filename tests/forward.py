"""Every operation and model of the engine written a second time, from its paper, over any kind of number.

`Forward(math)` computes with Python's floats, `Forward(mpmath.mp)` with as many digits as mpmath is asked for. Arrays are
object arrays without the axis of draws. Nothing is shared with `qsim.autograd` or `qsim.nn`.
"""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np

EPS = 1e-5
"""What a normalization adds to the variance."""


def sigma(terms: Any) -> Any:
    """Return the sum of a row of numbers, from the left."""
    return sum(terms[1:], terms[0])


class Forward:
    """The operations over the numbers of `m`, a module with exp, log, sqrt, cos, sin, erf and pi."""

    def __init__(self, m: Any) -> None:
        self.m = m
        self.number = getattr(m, "mpf", float)
        self.exp, self.sqrt, self.log = (np.frompyfunc(getattr(m, name), 1, 1) for name in ("exp", "sqrt", "log"))

    def array(self, x: Any) -> Any:
        """Return float64 numbers as those that are computed with; integers stay."""
        x = np.asarray(x)
        return x if x.dtype.kind in "iu" else np.frompyfunc(lambda v: self.number(float(v)), 1, 1)(x)

    def fraction(self, p: int, q: int) -> Any:
        """Return p / q."""
        return self.number(p) / self.number(q)

    # --- each number alone ---------------------------------------------------------------------------------------------

    def relu(self, x: Any) -> Any:
        """Return max(x, 0)."""
        return np.frompyfunc(lambda v: v if v > 0 else self.number(0), 1, 1)(x)

    def silu(self, x: Any) -> Any:
        """Return x / (1 + e^-x)."""
        return x / (1 + self.exp(-x))

    def gelu(self, x: Any) -> Any:
        """Return x Phi(x), with Phi(x) = (1 + erf(x / sqrt 2)) / 2 (Hendrycks and Gimpel, 2016; not the form with tanh)."""
        root = self.m.sqrt(self.number(2))
        return np.frompyfunc(lambda v: v * (1 + self.m.erf(v / root)) / 2, 1, 1)(x)

    def swiglu(self, x: Any) -> Any:
        """Return silu(a) b for the first half a and the second half b."""
        n = x.shape[-1] // 2
        return self.silu(x[..., :n]) * x[..., n:]

    def add(self, x: Any, y: Any) -> Any:
        """Return x + y."""
        return x + y

    # --- products ------------------------------------------------------------------------------------------------------

    def linear(self, x: Any, w: Any, b: Any = None) -> Any:
        """Return y[..., m] = b[m] + the sum over n of x[..., n] w[m, n]."""
        y = np.empty((*x.shape[:-1], len(w)), object)
        for at in np.ndindex(y.shape):
            y[at] = sigma(x[at[:-1]] * w[at[-1]]) + (0 if b is None else b[at[-1]])
        return y

    def conv2d(self, x: Any, w: Any, *, stride: int = 1, pad: int = 0) -> Any:
        """Return the sum over u, v, c of x[s, i stride + u - pad, j stride + v - pad, c] w[o, u, v, c]; 0 outside."""
        samples, high, wide, _ = x.shape
        outputs, kh, kw, _ = w.shape
        y = np.empty(
            (samples, (high + 2 * pad - kh) // stride + 1, (wide + 2 * pad - kw) // stride + 1, outputs), object
        )
        for s, i, j, o in np.ndindex(y.shape):
            total = self.number(0)
            for u, v in itertools.product(range(kh), range(kw)):
                row, column = i * stride + u - pad, j * stride + v - pad
                if 0 <= row < high and 0 <= column < wide:
                    total = total + sigma(x[s, row, column] * w[o, u, v])
            y[s, i, j, o] = total
        return y

    def embedding(self, codes: Any, table: Any) -> Any:
        """Return the rows of the table that the codes name."""
        return np.stack([table[int(code)] for code in codes.reshape(-1)]).reshape(*codes.shape, table.shape[1])

    def rope(self, x: Any, base: float = 10000.0) -> Any:
        """Return each pair (j, j + n/2) at position t, as a complex number, times e^(i t base^(-2 j / n)) (RoFormer, 2021)."""
        y, half = np.empty_like(x), x.shape[-1] // 2
        for s, t, h, j in np.ndindex(*x.shape[:-1], half):
            angle = t * self.number(base) ** (-2 * self.fraction(j, x.shape[-1]))
            cos, sin = self.m.cos(angle), self.m.sin(angle)
            a, b = x[s, t, h, j], x[s, t, h, j + half]
            y[s, t, h, j], y[s, t, h, j + half] = a * cos - b * sin, a * sin + b * cos
        return y

    def attention(self, q: Any, k: Any, v: Any) -> Any:
        """Return at position t the mean of v up to t, weighted by e^(q_t k_u / sqrt n) (Vaswani et al., 2017)."""
        y, root = np.empty_like(q), self.m.sqrt(self.number(q.shape[-1]))
        for s, t, h in np.ndindex(q.shape[:-1]):
            weights = [self.m.exp(sigma(q[s, t, h] * k[s, u, h]) / root) for u in range(t + 1)]
            total = sigma(weights)
            y[s, t, h] = sigma([w / total * v[s, u, h] for u, w in enumerate(weights)])
        return y

    # --- normalizations ------------------------------------------------------------------------------------------------

    def standard(self, x: Any, *, centred: bool = True) -> Any:
        """Return x less its mean over sqrt(variance + eps), or x over sqrt(mean square + eps)."""
        flat = list(x.reshape(-1))
        mean = sigma(flat) / len(flat) if centred else self.number(0)
        variance = sigma([(v - mean) ** 2 for v in flat]) / len(flat)
        return (x - mean) / self.m.sqrt(variance + self.number(EPS))

    def layer_norm(self, x: Any, gain: Any, shift: Any) -> Any:
        """Normalize over the last axis."""
        return np.stack([self.standard(row) for row in x.reshape(-1, x.shape[-1])]).reshape(x.shape) * gain + shift

    def rms_norm(self, x: Any, gain: Any) -> Any:
        """Normalize over the last axis, without a mean."""
        rows = [self.standard(row, centred=False) for row in x.reshape(-1, x.shape[-1])]
        return np.stack(rows).reshape(x.shape) * gain

    def group_norm(self, x: Any, gain: Any, shift: Any, *, groups: int, relu: bool = False) -> Any:
        """Normalize over the pixels and the neighbouring channels of a group, sample by sample."""
        y, each = np.empty_like(x), x.shape[-1] // groups
        for s, g in np.ndindex(len(x), groups):
            part = slice(g * each, (g + 1) * each)
            y[s, ..., part] = self.standard(x[s, ..., part])
        return self.relu(y * gain + shift) if relu else y * gain + shift

    def batch_norm(self, x: Any, gain: Any, shift: Any, *, statistics: Any = None, relu: bool = False) -> Any:
        """Normalize by channel, over all pixels of all samples, or with a mean and a variance that are known."""
        y = np.empty_like(x)
        for c in range(x.shape[-1]):
            if statistics is None:
                y[..., c] = self.standard(x[..., c])
            else:
                mean, variance = (self.number(float(s[c])) for s in statistics)
                y[..., c] = (x[..., c] - mean) / self.m.sqrt(variance + self.number(EPS))
        return self.relu(y * gain + shift) if relu else y * gain + shift

    # --- pooling and losses --------------------------------------------------------------------------------------------

    def _squares(self, x: Any, size: int, of: Any) -> Any:
        samples, high, wide, channels = x.shape
        y = np.empty((samples, high // size, wide // size, channels), object)
        for s, i, j, c in np.ndindex(y.shape):
            y[s, i, j, c] = of(list(x[s, i * size : (i + 1) * size, j * size : (j + 1) * size, c].reshape(-1)))
        return y

    def max_pool(self, x: Any, *, size: int) -> Any:
        """Return the largest of each square."""
        return self._squares(x, size, max)

    def average_pool(self, x: Any, *, size: int) -> Any:
        """Return the mean of each square."""
        return self._squares(x, size, lambda square: sigma(square) / size**2)

    def global_average_pool(self, x: Any) -> Any:
        """Return the mean over the pixels."""
        samples, high, wide, channels = x.shape
        flat = x.reshape(samples, high * wide, channels)
        return np.stack([sigma(list(image)) / (high * wide) for image in flat])

    def cross_entropy(self, logits: Any, labels: Any) -> Any:
        """Return the mean of log(sum of e^z) - z[label]."""
        rows, which = logits.reshape(-1, logits.shape[-1]), np.asarray(labels).reshape(-1)
        losses = [self.m.log(sigma([self.m.exp(z) for z in row])) - row[k] for row, k in zip(rows, which, strict=True)]
        return sigma(losses) / len(losses)

    def mean_squared_error(self, y: Any, target: Any) -> Any:
        """Return the mean over the samples of half the squared distance."""
        return sigma([sigma(list((row**2).reshape(-1))) for row in y - target]) / (2 * len(y))

    # --- models --------------------------------------------------------------------------------------------------------

    def mlp(self, params: Any, x: Any) -> Any:
        """Return the scores of an MLP: ReLU between linear layers, none after the last."""
        *hidden, last = params.values()
        for layer in hidden:
            x = self.relu(self.linear(x, layer["w"], layer["b"]))
        return self.linear(x, last["w"], last["b"])

    def wideresnet(self, params: Any, x: Any, *, groups: int | None, blocks: int) -> Any:
        """Return the scores of a WRN: a stem, three stages of pre-activation blocks, and a linear head.

        The second and third stage halve the image. A block is conv(relu(norm(conv(relu(norm(x)))))) + x, where x goes through a
        1x1 convolution of relu(norm(x)) if the shapes differ (He et al. 2016, Zagoruyko and Komodakis 2016).
        """

        def active(x: Any, part: Any) -> Any:
            if groups is None:
                return self.batch_norm(x, part["gain"], part["shift"], relu=True)
            return self.group_norm(x, part["gain"], part["shift"], groups=groups, relu=True)

        x = self.conv2d(x, params["stem"]["w"], pad=1)
        for stage, block in itertools.product(range(3), range(blocks)):
            part = params[f"stage{stage}"][f"block{block}"]
            stride = 2 if stage > 0 and block == 0 else 1
            before = active(x, part["norm0"])
            inner = active(self.conv2d(before, part["conv0"]["w"], stride=stride, pad=1), part["norm1"])
            inner = self.conv2d(inner, part["conv1"]["w"], pad=1)
            same = stride == 1 and x.shape[-1] == inner.shape[-1]
            x = inner + (x if same else self.conv2d(before, part["shortcut"]["w"], stride=stride))
        pooled = self.global_average_pool(active(x, params["norm"]))
        return self.linear(pooled, params["head"]["w"], params["head"]["b"])

    def llama(self, params: Any, codes: Any, *, blocks: int, heads: int) -> Any:
        """Return the scores of a decoder (Touvron et al. 2023).

        RMSNorm and causal attention of rotated queries and keys, then RMSNorm and SwiGLU, are each added to the stream.
        """
        x = self.embedding(codes, params["embedding"]["w"])
        for number in range(blocks):
            part = params[f"block{number}"]
            normed = self.rms_norm(x, part["attention_norm"]["gain"])
            split = (*x.shape[:-1], heads, x.shape[-1] // heads)
            q, k, v = (self.linear(normed, part[name]["w"]).reshape(split) for name in ("query", "key", "value"))
            seen = self.attention(self.rope(q), self.rope(k), v).reshape(x.shape)
            x = x + self.linear(seen, part["output"]["w"])
            normed = self.rms_norm(x, part["mlp_norm"]["gain"])
            x = x + self.linear(self.swiglu(self.linear(normed, part["up"]["w"])), part["down"]["w"])
        head = params["head"] if "head" in params else params["embedding"]
        return self.linear(self.rms_norm(x, params["norm"]["gain"]), head["w"])
