"""`qsim.finfo` has the numbers of `np.finfo` and `ml_dtypes.finfo`."""

from __future__ import annotations

import ml_dtypes
import numpy as np
import pytest

import qsim
from qsim import InputError

NAMES = ("bits", "nexp", "iexp", "nmant", "max", "min", "eps", "epsneg", "machep", "negep", "minexp", "maxexp",
         "smallest_normal", "smallest_subnormal", "tiny")  # fmt: skip
NUMPY = ("float16", "float32", "float64")
ML_DTYPES = sorted(name for name in dir(ml_dtypes) if name.startswith(("float", "bfloat")) and name != "float8_e8m0fnu")


@pytest.mark.parametrize("name", [*NUMPY, *ML_DTYPES])
def test_the_numbers_are_theirs(name: str) -> None:
    """Every attribute that NumPy or ml_dtypes has is the same number; digits go by NumPy, ml_dtypes has one for E5M2."""
    theirs = np.finfo(name) if name in NUMPY else ml_dtypes.finfo(getattr(ml_dtypes, name))
    ours = qsim.finfo(name)
    assert {key: getattr(ours, key) for key in NAMES} == {key: float(getattr(theirs, key)) for key in NAMES}
    if name in NUMPY:
        assert ours.precision == theirs.precision
        assert ours.resolution == pytest.approx(float(theirs.resolution), rel=2**-10)  # of float16, 1e-3 has 11 bits


def test_formats_that_are_no_floats_are_refused() -> None:
    """The sentence names what has the range instead."""
    for name in ("int8", "Q3.4", "nf4", "posit8"):
        with pytest.raises(InputError, match=rf"{name} is no float format; qsim.get_format\('{name}'\) has its max"):
            qsim.finfo(name)
