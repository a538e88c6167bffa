"""Affine quantization and requantization: each rule equals its text in Python's integers, and they part where they should."""

from __future__ import annotations

import math
from fractions import Fraction

import numpy as np
import pytest

import qsim
from qsim import InputError
from qsim.blocks.integers import affine, affine_parameters, affine_values, multiplier_of, requantize

LOW, HIGH = -(1 << 31), (1 << 31) - 1


def accumulators(seed: int = 0) -> np.ndarray:
    """Return int32 numbers of all sizes, ends, and ties of small shifts."""
    rng = np.random.default_rng(seed)
    several = [rng.integers(-(1 << bits), 1 << bits, 300) for bits in (4, 8, 16, 24, 31)]
    return np.concatenate([*several, [LOW, LOW + 1, HIGH, HIGH - 1, 0, 1, -1], np.arange(-40, 40) * 4 + 2])


FACTORS = [2.0**-31, 0.001, 0.1, 0.25, 0.3, 0.5, 1 / 3, 0.75, 0.999999, 1.0, 1.5, 3.0, 7.25]


def gemmlowp(x: int, m: int, shift: int) -> int:
    """Multiply as the text of fixedpoint.h does, with C's int32 and int64."""
    left, right = max(shift, 0), max(-shift, 0)
    a = ((x << left) + (1 << 31)) % (1 << 32) - (1 << 31)
    product = a * m
    nudge = (1 << 30) if product >= 0 else 1 - (1 << 30)
    high = int(Fraction(product + nudge, 1 << 31))  # toward zero
    rounded = math.floor(abs(Fraction(high, 1 << right)) + Fraction(1, 2))
    return int(math.copysign(1, high)) * rounded if high else 0


@pytest.mark.parametrize("factor", FACTORS)
def test_requantization_is_what_its_text_says(factor) -> None:
    """Each rule on int32 numbers, in Python's integers and rationals; the result is one int32 apart at most."""
    m, shift = multiplier_of(factor)
    n = 31 - shift
    x = accumulators()
    x = x[np.abs(x) * factor < 2.0**30]
    own = {
        rule: requantize(x, m, shift, rule=rule)
        for rule in ("gemmlowp", "tflite-single", "tosa", "tosa-double", "exact")
    }
    for k, value in enumerate(x.tolist()):
        exact = Fraction(value * m, 1 << n)
        assert own["exact"][k] == round(exact)
        assert own["tflite-single"][k] == own["tosa"][k] == math.floor(exact + Fraction(1, 2))
        assert own["gemmlowp"][k] == gemmlowp(value, m, shift)
        assert abs(own["gemmlowp"][k] - exact) <= 1
    assert np.array_equal(own["tosa-double"], own["gemmlowp"])


def test_two_roundings_are_not_one() -> None:
    """The smallest accumulators where gemmlowp's two roundings, the single one and the exact one part."""
    several = {factor: {rule: requantize([1, -1, 3, -3, 5, -6], *multiplier_of(factor), rule=rule).tolist()
               for rule in ("gemmlowp", "tflite-single", "tosa-double", "exact")} for factor in (0.5, 0.25)}  # fmt: skip
    assert several[0.5]["gemmlowp"] == several[0.5]["tflite-single"] == [1, 0, 2, -1, 3, -3]  # ties up
    assert several[0.5]["exact"] == [0, 0, 2, -2, 2, -3]
    assert several[0.25]["gemmlowp"] == [1, 0, 1, -1, 2, -2]  # 1/4 becomes 1/2's 1, and half of that 1
    assert several[0.25]["tflite-single"] == [0, 0, 1, -1, 1, -1]
    assert several[0.25]["exact"] == [0, 0, 1, -1, 1, -2]
    assert several[0.25]["tosa-double"] == several[0.25]["gemmlowp"]
    m, shift = multiplier_of(0.3)
    x = np.arange(-2000, 2000)
    twice, once = (requantize(x, m, shift, rule=rule) for rule in ("gemmlowp", "exact"))
    assert (twice != once).sum() > 0
    assert np.abs(twice - once).max() == 1


def test_multipliers() -> None:
    """M has 31 bits, M 2^(shift - 31) is the factor to 2^-31, and 1 - 2^-33 is carried into the next shift."""
    for factor in [*FACTORS, 1e-6, 123.456, 1 - 2.0**-33]:
        m, shift = multiplier_of(factor)
        assert 1 << 30 <= m < 1 << 31
        assert abs(Fraction(m) * Fraction(2) ** (shift - 31) / Fraction(factor) - 1) <= Fraction(1, 1 << 31)
    assert multiplier_of(1 - 2.0**-33) == (1 << 30, 1)
    assert multiplier_of(0.0) == multiplier_of(2.0**-40) == (0, 0)


def test_affine() -> None:
    """Three rules on ties and on quotients that are no numbers of float32; per channel; and back."""
    x = np.float32([2.5, -2.5, 0.5, 1000, -1000, np.nan, np.inf])
    assert affine(x, "int8", 1.0).tolist() == [2, -2, 0, 127, -128, 0, 127]
    assert affine(x, "int8", 1.0, rule="tflite").tolist() == [3, -3, 1, 127, -128, 0, 127]
    assert affine(x, "uint8", 1.0, 128).tolist() == [130, 126, 128, 255, 0, 128, 255]
    parted = np.float32(np.arange(1, 4000)) * np.float32(0.15)
    assert (affine(parted, "int16", 0.3) != affine(parted, "int16", 0.3, rule="torch")).any()
    rows = np.random.default_rng(0).uniform(-1.1, 1.1, (3, 50)).astype(np.float32)
    q = affine(rows, "int8", [0.01, 0.02, 0.03], [0, 5, -5], axis=0)
    for k, (s, z) in enumerate(zip([0.01, 0.02, 0.03], [0, 5, -5], strict=True)):
        assert np.array_equal(q[k], affine(rows[k], "int8", s, z))
        assert np.abs(affine_values(q[k], s, z) - rows[k]).max() <= np.float32(s) / 2 * (1 + 1e-6)
    assert np.array_equal(affine_values(q, [0.01, 0.02, 0.03], [0, 5, -5], axis=0)[1], affine_values(q[1], 0.02, 5))
    code = qsim.encode(rows, "int8", scale=0.02)
    assert np.array_equal(affine(rows, "int8", 0.02), code.view(np.int8).astype(np.int64))


def test_parameters_of_a_range() -> None:
    """0 is always in the range; onnxruntime's scale of zeros is 1; [2, 4, 6] has the scale 6/255 and the zero point 0."""
    assert affine_parameters(0, 0, "uint8") == (1.0, 0)
    assert affine_parameters(2, 6, "uint8") == (float(np.float32(6) / np.float32(255)), 0)
    s, z = affine_parameters(-1, 3, "int8")
    assert affine([-1.0, 0.0, 3.0], "int8", s, z).tolist() == [-128, z, 127]


def test_refusals() -> None:
    """Parameters that make no sense."""
    for call, told in [
        (lambda: requantize([1], 1 << 31, 0), "0 .. 2.31 - 1"),
        (lambda: requantize([1.5], 1, 0), "accumulators are integers"),
        (lambda: requantize([1 << 31], 1, 0), "accumulators have 32 bits"),
        (lambda: requantize([1], 1, 0, rule="gemlowp"), "no rule of requantization"),
        (lambda: affine([1.0], "e4m3", 1.0), "holds no integers"),
        (lambda: affine([1.0], "int8", 0.0), "scale must be positive"),
        (lambda: affine([1.0], "int8", [1.0, 2.0]), "need axis"),
        (lambda: affine([1.0], "int8", 1.0, 0.5), "zero_point must be integers"),
        (lambda: affine([1.0], "int8", [1.0, 2.0], axis=0), "must have 1 entries"),
        (lambda: multiplier_of(-1.0), "not negative"),
    ]:
        with pytest.raises(InputError, match=told):
            call()
