"""BitNet b1.58's quantizers, which a numerics policy takes; the weight's gradient is straight-through, as everywhere.

with qsim.numerics(BITNET):
    loss, grads = qsim.value_and_grad(model.loss)(params, batch)      # params stay float: the latent weights
"""

from __future__ import annotations

from collections.abc import Mapping

from qsim.rounding import Quantizer

__all__ = ["ABSMEAN_TERNARY", "BITNET", "TOKEN_INT8"]

ABSMEAN_TERNARY = Quantizer("ternary", "RNE", scale="absmean", order="reciprocal")
"""s clip(round(w fl(1 / s)), -1, 1), s the mean of |w| over the tensor: BitNet b1.58's weights.

Source: Ma et al., "The Era of 1-bit LLMs", arXiv 2402.17764, equations 1 to 3. The published code divides by fl(1 / s) where
this multiplies by s, and takes s = 1e-5 for a mean below that; this takes s = 1 for weights that are all zero, with the
same result.
"""

TOKEN_INT8 = Quantizer("int8", "RNE", scale="absmax", per="token")
"""s clip(round(x / s), -128, 127), s = max|x| / 127 over the last axis: the activations of BitNet b1.58 and of DQT.

Source: as above, and the published code, which multiplies by fl(127 / max|x|) where this divides by s.
"""

BITNET: Mapping[str, Quantizer | None] = {
    "fwd_weight": ABSMEAN_TERNARY,
    "fwd_act": TOKEN_INT8,
    "embedding.fwd_weight": None,
    "head.fwd_weight": None,
    "head.fwd_act": None,
}
"""The numerics policy of a BitNet b1.58 model; of a DQT model it is `TOKEN_INT8` at `fwd_act` alone.

BitNet rounds the projections of attention and feed-forward blocks. Embedding, head and norms keep their precision, so the
layers of these names are left out; a model without them may have the policy too. To round embedding and head as well, give
the first two entries alone: {"fwd_weight": ABSMEAN_TERNARY, "fwd_act": TOKEN_INT8}. All layers of a `qsim.nn.MLP` are
projections; {**BITNET, "layer2.fwd_weight": None, "layer2.fwd_act": None} leaves out its layer 2.
Source: Wang et al., "BitNet: Scaling 1-bit Transformers for Large Language Models", arXiv 2310.11453, section 2, which
BitNet b1.58 (arXiv 2402.17764) follows.
"""
