#!/usr/bin/env bash
# polars 2.1.0, Float16: the sum of a group depends on how the rows of the group lie, and conversion from Float64 rounds twice.
#
# Expected: one sum of the same numbers for every way of asking, and for every order of the rows; a conversion that rounds once.
# Seen:     Series.sum and `over` add 5,000 ones to 5000. group_by(...).agg(sum) of one group of adjacent rows gives 2048, where
#           adding one more to a binary16 sum changes nothing; of two groups whose rows alternate it gives 5000 for both. A
#           rolling sum that overflows once is NaN for all later windows, also those of small numbers: the window is updated by
#           subtraction. 1 + 2^-11 + 2^-40 becomes 1, by way of Float32; NumPy's binary16, rounded once, is 1 + 2^-10.
# Source:   https://docs.pola.rs/api/python/stable/reference/expressions/api/polars.Expr.sum.html, which says of small
#           integers that they are summed as Int64, and nothing of Float16.
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet polars==2.1.0 numpy==2.4.6

"$folder/venv/bin/python" - <<'PYTHON'
import math

import numpy as np
import polars as pl

print("polars", pl.__version__)


def sums(groups: list[int]) -> list[float]:
    """Return the sums of 5,000 ones a group, in Float16, the rows being in groups as given."""
    ones = pl.Series(np.ones(len(groups))).cast(pl.Float16)
    frame = pl.DataFrame({"group": groups, "x": ones})
    return frame.group_by("group").agg(pl.col("x").sum()).sort("group")["x"].to_list()


ones = pl.Series(np.ones(5000)).cast(pl.Float16)
print("Series.sum of 5,000 ones:", ones.sum())
print("group_by sum, one group:", sums([1] * 5000))
print("group_by sum, two groups, rows alternating:", sums([1, 2] * 5000))
assert ones.sum() == 5000
assert sums([1] * 5000) == [2048]
assert sums([1, 2] * 5000) == [5000, 5000]

rolling = pl.Series([60000.0, 60000, 1, 1, 1, 1]).cast(pl.Float16).rolling_sum(2).to_list()
print("rolling sums of 2 of [60000, 60000, 1, 1, 1, 1]:", rolling)
assert rolling[1] == math.inf
assert all(math.isnan(value) for value in rolling[2:])

x = 1 + 2**-11 + 2**-40
converted = pl.Series([x]).cast(pl.Float16)[0]
print(f"{x!r} as Float16: {converted}; by NumPy: {float(np.float16(x))}")
assert converted == 1
assert float(np.float16(x)) == 1 + 2**-10
print("as found")
PYTHON
