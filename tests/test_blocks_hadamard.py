"""Random Hadamard transforms: the matrix is SciPy's, signs are bits of the key, and rounding of a rotated block is unbiased."""

from __future__ import annotations

import ml_dtypes
import numpy as np
import pytest
import scipy.linalg

import qsim
from qsim import InputError, Key
from qsim.blocks import expect
from qsim.blocks.hadamard import hadamard, hadamard_back, signs


@pytest.mark.parametrize("size", [1, 2, 16, 32, 128])
@pytest.mark.parametrize("axis", [0, -1])
def test_the_matrix(size, axis) -> None:
    """Each block is multiplied by Sylvester's matrix over sqrt(size) and the signs, and comes back."""
    x = np.random.default_rng(0).normal(size=(128, 256))
    d = signs(size, Key(1))
    y = hadamard(x, size, key=Key(1), axis=axis)
    matrix = scipy.linalg.hadamard(size) / np.sqrt(size) * d
    moved = np.moveaxis(x, axis, -1).reshape(-1, size)
    expected = np.moveaxis((moved @ matrix.T).reshape(np.moveaxis(x, axis, -1).shape), -1, axis)
    assert np.allclose(y, expected, atol=1e-13)
    assert np.allclose(hadamard_back(y, size, key=Key(1), axis=axis), x, atol=1e-13)
    assert np.allclose(np.linalg.norm(y), np.linalg.norm(x), rtol=1e-13)


def test_signs_are_bits_of_the_key() -> None:
    """Sign i is the top bit of word i, so that a longer vector begins with the shorter one."""
    words = qsim.arrays.random_words(Key(5, 2), 64)
    assert np.array_equal(signs(64, Key(5, 2)), 1 - 2.0 * (words >> np.uint32(31)))
    assert np.array_equal(signs(16, Key(5, 2)), signs(64, Key(5, 2))[:16])
    assert signs(8, None).tolist() == [1.0] * 8


def test_exact_by_powers_of_four() -> None:
    """Of small integers the sixteenth is exact, in every type, and 0 stays 0."""
    x = np.random.default_rng(1).integers(-8, 8, (4, 32))
    wide = hadamard(x.astype(np.float64), 16)
    for dtype in (np.float32, np.float16, ml_dtypes.bfloat16):
        y = hadamard(x.astype(dtype), 16)
        assert y.dtype == np.dtype(dtype)
        assert np.array_equal(y.astype(np.float64), wide)
    assert not hadamard(np.zeros((2, 16)), 16).any()


def test_a_rotated_block_is_rounded_without_bias() -> None:
    """The mean over the words of SR under rceil, rotated back, is the block: the transform is linear."""
    x = np.random.default_rng(2).normal(size=(4, 64)).astype(np.float32)
    turned = hadamard(x, 32, key=Key(3))
    mean = hadamard_back(expect(turned, "mxfp4_e2m1", scale_rule="rceil"), 32, key=Key(3))
    assert np.abs(mean - x).max() < 2e-7


def test_refusals() -> None:
    """A size that is no power of two, does not divide, and an axis that is not there."""
    for size, axis, told in [
        (12, -1, "size = 12 must be a power of two"),
        (32, -1, "divides the 48"),
        (16, 2, "axis = 2"),
    ]:
        with pytest.raises(InputError, match=told):
            hadamard(np.ones((2, 48)), size, axis=axis)
