#!/usr/bin/env bash
# torch 2.13.0, CPU, x86-64: torch.set_flush_denormal(True) flushes a part of a tensor.
#
# Expected: after the call returns True, every element of an operation's result is flushed alike.
# Seen:     the flag is set in the calling thread alone. An operation on a large tensor is shared with PyTorch's pool of
#           threads, which keep theirs: the pieces of the caller come out as 0, the others as the subnormal numbers they are.
#           Which elements these are depends on the number of threads and on the size of the tensor, not on the values.
# Source:   https://docs.pytorch.org/docs/2.13/generated/torch.set_flush_denormal.html, which names no thread.
#
# To compare bits with PyTorch, leave the flag alone, or compute with one thread.
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet torch==2.13.0 numpy==2.4.6

"$folder/venv/bin/python" - <<'PYTHON'
import platform
import sys

import torch

if platform.machine() not in {"x86_64", "AMD64"}:
    sys.exit("this finding is about x86-64")


def zeros_by_quarter() -> list[int]:
    """Return how many results of x * 1 are zero in each quarter of 2^22 equal subnormal numbers, read as integers."""
    bits = (x * 1).view(torch.int32)
    return [int((part == 0).sum()) for part in bits.reshape(4, -1)]


torch.set_num_threads(2)
x = torch.full((1 << 22,), 1e-40)  # before the flag, which would make 0 of the number
before = zeros_by_quarter()
accepted = torch.set_flush_denormal(True)
two = zeros_by_quarter()
torch.set_num_threads(1)
one = zeros_by_quarter()
print("torch", torch.__version__)
print("zeros in each quarter of 2^22 elements, without the flag, two threads:", before)
print("with the flag, two threads:                                           ", two)
print("with the flag, one thread:                                            ", one)
quarter = 1 << 20
assert before == [0, 0, 0, 0], before
assert accepted
assert one == [quarter] * 4, one
assert two == [quarter, quarter, 0, 0], two
print("as found: the flag holds for the half that the calling thread computes")
PYTHON
