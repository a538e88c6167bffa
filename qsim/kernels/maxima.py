"""The largest magnitudes of rows, from which the scales of blocks are derived."""

from __future__ import annotations

from numpy import uint32

from qsim.kernels.compiled import Array, kernel

__all__ = ["largest_of_rows"]


@kernel()
def largest_of_rows(x: Array, y: Array) -> None:
    """Write the pattern of the largest magnitude of each row of `x`, patterns of float32, into `y`.

    Patterns without sign are in the order of the magnitudes; that of a NaN is above all others.
    """
    for i in range(x.shape[0]):
        row = x[i]
        largest = uint32(0)
        for j in range(row.size):
            largest = max(largest, uint32(row[j] & uint32(0x7FFFFFFF)))
        y[i] = largest
