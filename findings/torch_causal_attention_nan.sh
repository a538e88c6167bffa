#!/usr/bin/env bash
# PyTorch 2.13.0 on a CPU: in causal attention an infinite value of a later token makes earlier outputs NaN; how many, the kernel says.
#
# Expected: with is_causal=True token i sees tokens 0 to i alone ("attn_mask ... lower triangular"): an infinity or NaN in the value
#           of the last token, as an overflow in a narrow format leaves it, changes the last output and no other.
# Seen:     masked weights are 0, and 0 times infinity is NaN: every earlier token of the same block comes out NaN. The math backend
#           has one block, so all 1023 earlier tokens are lost; the flash kernel, the default, has blocks of 512, so 511 are. The
#           same model is NaN at other places by its length and by the kernel that was chosen, and a NaN cannot be traced to
#           its token.
# Source:   https://docs.pytorch.org/docs/2.13/generated/torch.nn.functional.scaled_dot_product_attention.html
#
# Look for infinities in q, k and v before the attention, not after it.
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet torch==2.13.0 numpy==2.4.6

"$folder/venv/bin/python" - <<'PYTHON'
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.functional import scaled_dot_product_attention

print("torch", torch.__version__)
torch.manual_seed(0)
seen = {}
for length in (64, 1024):
    q, k, v = (torch.randn(1, 1, length, 8) for _ in range(3))
    v[0, 0, -1] = torch.inf
    for backend in (SDPBackend.MATH, SDPBackend.FLASH_ATTENTION):
        with sdpa_kernel(backend):
            y = scaled_dot_product_attention(q, k, v, is_causal=True)
        lost = y[0, 0, :-1].isnan().any(-1)
        seen[length, backend] = int(lost.sum())
        print(f"{length} tokens, the last value infinite, {backend.name}: {seen[length, backend]} earlier tokens are NaN")
        v_finite = v.clone()
        v_finite[0, 0, -1] = 1e30  # any finite value leaves them as they are
        with sdpa_kernel(backend):
            assert scaled_dot_product_attention(q, k, v_finite, is_causal=True)[0, 0, :-1].isfinite().all()
assert seen[64, SDPBackend.MATH] == seen[64, SDPBackend.FLASH_ATTENTION] == 63
assert seen[1024, SDPBackend.MATH] == 1023
assert seen[1024, SDPBackend.FLASH_ATTENTION] == 511
print("as found")
PYTHON
