#!/usr/bin/env bash
# ml_dtypes 0.6.0 under NumPy 2.4.6: one NaN in an array leaves the other values unsorted, and set operations lose elements.
#
# Expected: np.sort puts NaN last and sorts the rest, as for float16, float32 and float64 (NumPy's documentation of sort), so
#           that np.unique, np.searchsorted and np.intersect1d are right.
# Seen:     for bfloat16 and the 8-bit types a NaN compares as equal to every number. np.sort leaves what stands before the NaN
#           and what stands after it in runs of their own, np.argsort alike; np.unique returns a value twice, and
#           np.intersect1d misses common values. No warning. argmax, max and isnan do see the NaN.
# Source:   https://numpy.org/doc/2.4/reference/generated/numpy.sort.html, "the sort order for ... real: [R, nan]".
#
# Sort what is narrow as float32: the conversion is exact.
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet ml_dtypes==0.6.0 numpy==2.4.6

"$folder/venv/bin/python" - <<'PYTHON'
import ml_dtypes
import numpy as np

print("ml_dtypes", ml_dtypes.__version__, "numpy", np.__version__)
given = [np.nan, 1, 2, 0.5, 4, 1]
right = [0.5, 1, 1, 2, 4, np.nan]
assert np.array_equal(np.sort(np.float16(given)), right, equal_nan=True)
for name in ("bfloat16", "float8_e4m3fn", "float8_e5m2", "float8_e8m0fnu"):
    x = np.array(given, getattr(ml_dtypes, name))
    found = np.sort(x).astype(float)
    print(f"np.sort of {given} as {name}: {found.tolist()}")
    assert not np.array_equal(found, right, equal_nan=True), name

x = np.array([1, np.nan, 2, 1], ml_dtypes.bfloat16)
unique = np.unique(x).astype(float).tolist()
print(f"np.unique of [1, nan, 2, 1] as bfloat16: {unique}")
assert unique.count(1) == 2, unique
common = np.intersect1d(
    np.array([3, 1, np.nan, 2], ml_dtypes.bfloat16), np.array([1, 2, 3], ml_dtypes.bfloat16)
).astype(float)
print(f"np.intersect1d of [3, 1, nan, 2] and [1, 2, 3] as bfloat16: {common.tolist()}")
assert common.tolist() == [2], common

rng = np.random.default_rng(0)
wrong = 0
for _ in range(200):
    x = rng.standard_normal(50)
    x[rng.integers(50)] = np.nan
    found = np.sort(x.astype(ml_dtypes.bfloat16)).astype(float)
    wrong += bool((np.diff(found[~np.isnan(found)]) < 0).any())
print(f"of 200 arrays of 50 normal numbers with one NaN, {wrong} come out unsorted")
assert wrong > 100, wrong
print("as found")
PYTHON
