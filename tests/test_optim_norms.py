"""Norms are those of exact arithmetic whatever the size of the elements, and clipping keeps finite gradients finite."""

from __future__ import annotations

import math
from fractions import Fraction

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from qsim import optim
from qsim.optim.clipping import root_mean_square

MOST = Fraction(np.finfo(np.float64).max.item())


def square_root(x: Fraction, bits: int = 80) -> Fraction:
    """Return the square root of x > 0 with a relative error below 2^-bits."""
    shift = 2 * bits - x.numerator.bit_length() + x.denominator.bit_length()
    shift += shift % 2
    scaled = x * Fraction(2) ** shift  # at least 2^(2 bits - 1)
    return Fraction(math.isqrt(math.floor(scaled))) / Fraction(2) ** (shift // 2)


def exact_norm(tree: dict[str, np.ndarray]) -> Fraction:
    """Return the Euclidean norm of all finite elements."""
    total = sum((Fraction(float(x)) ** 2 for leaf in tree.values() for x in leaf.flat), Fraction(0))
    return square_root(total) if total else Fraction(0)


def error(count: int) -> Fraction:
    """Return a bound of the relative error of a norm of so many elements computed in float64.

    Each square and each of the at most `count` additions behind it round by 2^-53, and the root halves their sum and adds
    one; a square that underflows adds 2^-67 at most. One more covers second-order terms.
    """
    return Fraction(count + 4, 1 << 53)


TREES = {
    "two sizes": {"a": np.array([1e200, 1.0])},
    "huge": {"a": np.full(9, 1e308), "b": np.array([-1e308])},
    "the largest": {"a": np.array([np.finfo(np.float64).max])},
    "tiny": {"a": np.array([3e-200, -4e-200])},
    "where squares are subnormal": {"a": np.full(50, 2.0**-530), "b": np.full(3, 1e-160)},
    "subnormal": {"a": np.array([5e-324, 1e-310]), "b": np.zeros(2)},
    "one subnormal": {"a": np.array([5e-324])},
    "large float32": {"a": np.array([3e38, 3e38], np.float32)},
    "small float32": {"a": np.array([1e-45, 1e-40], np.float32)},
    "float16": {"a": np.array([6e4, 6e4], np.float16)},
    "bfloat16": {"a": np.array([1e38, 3e38], ml_dtypes.bfloat16)},
    "mixed": {"a": np.array([1e38], np.float32), "b": np.array([1e200]), "c": np.array([1e-5], ml_dtypes.bfloat16)},
    "mixed tiny": {"a": np.array([1e-30], np.float32), "b": np.array([1e-200]), "c": np.zeros(4, np.float16)},
    "without axes": {"a": np.array(3e200), "b": np.array(4e200)},
    "empty": {"a": np.zeros((0, 3)), "b": np.array([2e-300])},
    "ordinary": {"a": np.random.default_rng(0).normal(size=(7, 9)), "b": np.ones(3, np.float32)},
}


@pytest.mark.parametrize("name", TREES)
def test_norms_are_those_of_exact_arithmetic(name: str) -> None:
    """The norm of any finite elements differs from the exact one by the rounding of float64 alone."""
    tree = TREES[name]
    exact, found = exact_norm(tree), optim.global_norm(tree)
    if exact > MOST:
        assert found == math.inf
    else:
        assert abs(Fraction(found) - exact) <= error(sum(x.size for x in tree.values())) * exact


@given(st.lists(st.floats(allow_nan=False, allow_infinity=False), max_size=8), st.integers(-1000, 1000))
def test_norms_of_any_numbers(numbers: list[float], exponent: int) -> None:
    """So do those of any eight float64 numbers, and of their multiples by a power of two."""
    with np.errstate(all="ignore"):
        scaled = np.ldexp(np.array(numbers), exponent)
    for x in (np.array(numbers), scaled[np.isfinite(scaled)]):
        exact, found = exact_norm({"x": x}), optim.global_norm({"x": x})
        bound = error(x.size) * exact
        # Near 2^1024 a norm may round to infinity, and below 2^-1022 to the nearest multiple of 2^-1074.
        assert (
            found == math.inf
            if exact - bound > MOST
            else abs(Fraction(min(found, MOST)) - exact) <= bound + Fraction(1, 1 << 1075)
        )


@pytest.mark.parametrize(
    ("elements", "norm"),
    [
        ([np.inf, 1.0], math.inf),
        ([-np.inf, 1e308], math.inf),
        ([np.nan, 1.0], math.nan),
        ([np.nan, np.inf], math.nan),
        ([np.nan, 1e200], math.nan),
        ([0.0, -0.0], 0.0),
        ([], 0.0),
    ],
)
@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_norms_of_infinities_and_nan(elements: list[float], norm: float, dtype: type) -> None:
    """An infinite element makes the norm infinite, a NaN makes it NaN, and no warning is given."""
    with np.errstate(all="ignore"):
        x = np.array(elements, dtype)
    if dtype is np.float32 and np.isinf(x).any() and not np.isinf(elements).any():
        return
    assert np.array_equal(optim.global_norm({"x": x}), norm, equal_nan=True)


def test_norms_of_ordinary_elements_are_plain_sums() -> None:
    """Where no square over- or underflows, the norm is the root of the sum of squares in float64, parameter by parameter."""
    rng = np.random.default_rng(2)
    tree = {"a": rng.normal(size=1000), "b": rng.normal(size=1000).astype(np.float32)}
    plain = math.sqrt(sum(float(np.square(x.astype(np.float64)).sum()) for x in tree.values()))
    assert optim.global_norm(tree) == plain
    assert optim.global_norm({}) == 0


# --- Clipping --------------------------------------------------------------------------------------------------------


def clipped(updates: dict[str, np.ndarray], most: float, params: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Return the clipped updates."""
    return optim.clip_by_global_norm(most).update(updates, {}, params)[0]


@pytest.mark.parametrize("most", [1.0, 1e-200, 1e-320, 1e-3])
@pytest.mark.parametrize("name", TREES)
def test_finite_gradients_are_clipped_to_finite_ones(name: str, most: float) -> None:
    """Each clipped element is u most / norm in the type of its parameter, within the roundings of norm, factor and product."""
    tree = TREES[name]
    params = {leaf: np.ones_like(u) for leaf, u in tree.items()}
    norm = exact_norm(tree)
    if norm <= Fraction(most):
        assert clipped(tree, most, params) is tree
        return
    found = clipped(tree, most, params)
    for leaf, u in tree.items():
        dtype = np.dtype(np.float32) if u.itemsize == 2 else u.dtype
        assert found[leaf].dtype == dtype
        # The norm, its quotient, the factor and the product; and half a subnormal step.
        relative = error(sum(x.size for x in tree.values())) + 4 * Fraction(float(np.finfo(dtype).eps))
        smallest = Fraction(float(np.finfo(dtype).smallest_subnormal))
        for before, after in zip(u.flat, found[leaf].flat, strict=True):
            exact = Fraction(float(before)) * Fraction(most) / norm
            assert abs(Fraction(float(after)) - exact) <= relative * abs(exact) + smallest


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.float16, ml_dtypes.bfloat16])
def test_ordinary_gradients_are_multiplied_by_the_rounded_factor(dtype: type) -> None:
    """Where the factor is a normal number of the type, each update is fl(u fl(most / norm)), to the bit."""
    updates = {"a": np.random.default_rng(0).normal(size=200).astype(dtype)}
    number = np.float64 if dtype is np.float64 else np.float32
    for most in (1.0, 1e-3, 2.0**-100):
        expected = updates["a"].astype(number) * number(most / optim.global_norm(updates))
        found = clipped(updates, most, {"a": np.ones(200, dtype)})["a"]
        assert found.tobytes() == expected.tobytes()


@pytest.mark.parametrize("dtype", [np.float32, np.float16, ml_dtypes.bfloat16])
def test_wide_gradients_of_narrow_parameters_are_clipped_first(dtype: type) -> None:
    """Float64 gradients beyond the range of their parameters come out of clipping as numbers of the parameters' type."""
    found = clipped({"w": np.array([3e200, -4e200])}, 1.0, {"w": np.zeros(2, dtype)})["w"]
    assert found.dtype == np.float32
    assert (found == np.array([0.6, -0.8], np.float32)).all()


@pytest.mark.parametrize("bad", [np.inf, -np.inf, np.nan])
@pytest.mark.parametrize("dtype", [np.float32, np.float64, ml_dtypes.bfloat16])
def test_clipping_shows_infinities_and_nan(bad: float, dtype: type) -> None:
    """One infinity or NaN makes all updates NaN, and no warning is given."""
    updates = {"a": np.array([bad, 1.0], dtype), "b": np.array([0.0], dtype)}
    found = clipped(updates, 1.0, {"a": np.ones(2, np.float32), "b": np.ones(1)})
    assert np.isnan(found["a"]).all()
    assert np.isnan(found["b"]).all()
    assert found["a"].dtype == np.float32
    assert found["b"].dtype == np.float64


# --- Root mean squares -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "x",
    [
        np.array([1e30, -1e30, 3.0], np.float32),
        np.array([1e-30, 3e-30], np.float32),
        np.array([1e-45, 0.0], np.float32),
        np.array([1e300, 2e300]),
        np.array([1e-300, 5e-324]),
        np.array(3e200),
        np.full((3, 4), 1e-25, np.float32),
        np.random.default_rng(0).normal(size=(5, 6)).astype(np.float32),
    ],
    ids=lambda x: f"{x.dtype} {x.flat[0]:.0e}",
)
def test_root_mean_squares_are_those_of_exact_arithmetic(x: np.ndarray) -> None:
    """The RMS of any finite elements differs from the exact one by roundings of the type, and has the type."""
    exact = square_root(sum((Fraction(float(number)) ** 2 for number in x.flat), Fraction(0)) / x.size)
    found = root_mean_square(x)
    assert found.dtype == x.dtype
    # Squares, sums, the quotient and the root.
    bound = Fraction(float(np.finfo(x.dtype).eps)) * (x.size + 4) * exact
    assert abs(Fraction(float(found)) - exact) <= bound + Fraction(float(np.finfo(x.dtype).smallest_subnormal)) / 2


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_root_mean_squares_of_ordinary_elements_are_plain(dtype: type) -> None:
    """Where squares are far from the ends of the type, the RMS is the root of their mean, each operation in the type."""
    for exponent in (-30, 0, 30):
        x = np.ldexp(np.random.default_rng(0).normal(size=333).astype(dtype), exponent)
        assert root_mean_square(x) == np.sqrt(np.mean(np.square(x)))


def test_root_mean_squares_of_what_has_none() -> None:
    """Of no elements and of zeros the RMS is 0, of an infinity infinite, of a NaN NaN, without a warning."""
    for x, expected in (([], 0), ([0.0], 0), ([np.inf, 1], np.inf), ([np.nan, np.inf], np.nan)):
        assert np.array_equal(root_mean_square(np.array(x, np.float32)), np.float32(expected), equal_nan=True)


def test_adafactor_clips_and_scales_updates_of_any_size() -> None:
    """Updates of 1e30 in float32 have an RMS of 1 after clipping, and parameters of 1e25 their relative steps."""
    u = np.full((2, 3), 1e30, np.float32)
    found, _ = optim.clip_by_rms(1.0).update({"w": u}, {}, {"w": u})
    assert (found["w"] == 1).all()
    p = np.full((2, 3), 2.0**100, np.float32)
    found, _ = optim.scale_by_parameter_rms().update({"w": np.ones_like(p)}, {}, {"w": p})
    assert (found["w"] == 2.0**100).all()
