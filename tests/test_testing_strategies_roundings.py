"""Strategies of numbers inside a range, of arrays, modes and quantizers, and formats named by dtypes."""

from __future__ import annotations

from typing import Any

import ml_dtypes
import numpy as np
import pytest
from hypothesis import HealthCheck, find, given, settings
from hypothesis import strategies as st

import qsim
from qsim.rounding import Mode, Quantizer
from qsim.testing import strategies as qst
from qsim.testing.inputs import exactly

SETTINGS = settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
DTYPES = (np.float16, ml_dtypes.bfloat16, np.float32, np.float64)


@given(x=qst.values("e4m3", inside=True))
def test_result_is_a_neighbour(x: Any) -> None:
    """The test that a newcomer types: every number inside the range has neighbours, and is rounded to one of them."""
    low, high = qsim.get_format("e4m3").neighbours(float(x))
    assert qsim.quantize(x, "e4m3") in (low, high)


@SETTINGS
@given(data=st.data(), fmt=qst.formats(), dtype=st.sampled_from(DTYPES))
def test_inside_is_inside(data: st.DataObject, fmt: Any, dtype: Any) -> None:
    """Whatever the format and type, numbers inside are in its range, and finite ones finite, in the type asked for."""
    if dtype in DTYPES[2:]:  # half the formats have no value but 0 among the numbers of 16 bits
        x = data.draw(qst.values(fmt, dtype, inside=True))
        assert fmt.min <= float(x) <= fmt.max
        assert x.dtype == dtype
    assert np.isfinite(float(data.draw(qst.values(fmt, dtype, finite=True))))


@pytest.mark.parametrize("dtype", DTYPES)
def test_both_ends_and_zero_are_found(dtype: Any) -> None:
    """The ends of the range are drawn, a failure shrinks to 0, and without a word of it there are NaNs."""
    drawn = qst.values("e4m3", dtype, inside=True)
    assert find(drawn, lambda x: x == 448) == 448
    assert find(drawn, lambda x: x == -448) == -448
    assert find(qst.values("e4m3", dtype, finite=True), lambda x: abs(float(x)) > 448)
    assert find(qst.values("e4m3", dtype), lambda x: bool(np.isnan(float(x)))) is not None


@SETTINGS
@given(
    x=qst.arrays("e5m2", inside=True),
    y=qst.arrays("int4", np.float64, (2, 3)),
    z=qst.arrays("e8m0", shape=4, finite=True),
)
def test_arrays(x: Any, y: Any, z: Any) -> None:
    """Arrays have the shape and type asked for, and elements as `values` has them."""
    assert np.abs(x).max() <= 57344
    assert 1 <= x.ndim <= 3
    assert (x.dtype, y.dtype, y.shape, z.shape) == (np.float32, np.float64, (2, 3), (4,))
    assert np.isfinite(exactly(z)).all()


@SETTINGS
@given(q=qst.quantizers(dtype=np.float32), x=qst.arrays("e4m3", shape=3, finite=True))
def test_quantizers(q: Quantizer, x: Any) -> None:
    """Each is a rounding that takes arrays: its results are values of its format."""
    key = {"key": qsim.Key(0)} if q.mode.stochastic else {}
    own = {"sr_bits": q.sr_bits} if q.mode.stochastic and q.sr_bits is not None else {}
    own |= {"eps": q.eps} if q.mode is Mode.THR else {}
    y = qsim.quantize(x, q.format, q.mode, saturation=q.saturation, **own, **key)
    held = qsim.quantize(y, q.format, saturation=q.saturation)
    np.testing.assert_array_equal(y[np.isfinite(y)], held[np.isfinite(y)])


def test_modes() -> None:
    """All modes, or those with or without a random word."""
    for stochastic in (None, True, False):
        for mode in Mode:
            wanted = stochastic in (None, mode.stochastic)
            drawn = qst.modes(stochastic=stochastic)
            if wanted:
                assert find(drawn, lambda m, mode=mode: m is mode) is mode
    assert set(qst.__all__) == {"arrays", "codes", "formats", "modes", "quantizers", "values", "words"}


@pytest.mark.parametrize(
    "name", ["float8_e4m3fn", "float8_e5m2", "bfloat16", "float8_e8m0fnu", "float4_e2m1fn", "int4"]
)
def test_a_dtype_names_its_format(name: str) -> None:
    """A type of ml_dtypes, or its dtype, is the format of that name."""
    kind = getattr(ml_dtypes, name)
    assert qsim.get_format(kind) == qsim.get_format(np.dtype(kind)) == qsim.get_format(name)


def test_other_dtypes() -> None:
    """So are the types of NumPy; what names no format is refused in a sentence."""
    assert qsim.get_format(np.float16) == qsim.get_format(np.dtype(np.float16)) == qsim.get_format("float16")
    for wrong in (np.complex64, np.dtype("S3"), float, 8, None, object()):
        with pytest.raises(qsim.InputError, match="a format is named by a string"):
            qsim.get_format(wrong)
