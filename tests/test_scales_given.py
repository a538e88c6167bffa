"""Which arrays are taken, as scales and as numbers: types of other packages, zeros, and arrays of other libraries."""

from __future__ import annotations

import itertools
import math
import re
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from alike import identical, same_bits
from enumeration import exactly, floats
from strategies import BFLOAT16, FLOAT16, FLOAT32, KINDS, every_kind, numbers

from qsim import reference
from qsim.arrays import decode, encode, quantize
from qsim.errors import InputError
from qsim.formats import get_format
from qsim.packing import pack
from qsim.rounding import ORDERS, Key, Quantizer

# --- Scales of other types -------------------------------------------------------------------------------------------

FOREIGN = [
    np.dtype(getattr(ml_dtypes, name))
    for name in (
        "bfloat16", "float8_e8m0fnu", "float8_e4m3fn", "float8_e4m3", "float8_e3m4", "float8_e5m2", "float8_e4m3fnuz",
        "float8_e4m3b11fnuz", "float8_e5m2fnuz", "float6_e2m3fn", "float6_e3m2fn", "float4_e2m1fn",
    )
]  # fmt: skip


@pytest.mark.parametrize("foreign", FOREIGN, ids=str)
def test_every_scale_of_a_foreign_type(foreign: np.dtype) -> None:
    """Each positive finite number of a type of ml_dtypes is the scale that it is as a float32, E8M0's 2^-127 among them."""
    word = np.uint16 if foreign.itemsize == 2 else np.uint8
    used = 1 << {4: 4, 6: 6}.get(ml_dtypes.finfo(foreign).bits, 8 * foreign.itemsize)
    every = np.arange(used, dtype=word).view(foreign)
    with np.errstate(invalid="ignore"):
        some = every[(exactly(every) > 0) & np.isfinite(exactly(every))].reshape(-1, 1)
    assert len(some) > used // 2 - 130
    for kind in FLOAT32, FLOAT16:
        with np.errstate(over="ignore", under="ignore"):
            x = (exactly(some) * np.array([0.3, -1.0, 5.7, 440.0])).astype(kind)
        for function in quantize, encode:
            assert same_bits(function(x, "e4m3", scale=some), function(x, "e4m3", scale=exactly(some)))
    one, expected = np.float32([0.3, 7.0]), quantize(np.float32([0.3, 7.0]), "e4m3", scale=float(some[5, 0]))
    for alone in some[5, 0], some[5].reshape(()):
        assert same_bits(quantize(one, "e4m3", scale=alone), expected)


X = np.ones((2, 2), np.float32)
E8M0, E4M3 = np.dtype(ml_dtypes.float8_e8m0fnu), np.dtype(ml_dtypes.float8_e4m3fn)


@pytest.mark.parametrize(
    ("scale", "fragment"),
    [
        (np.array([1, math.nan], E8M0), "scale = nan must be positive, and within the range of float32"),
        (np.array([1, math.nan], E4M3), "scale = nan must be positive"),
        (np.array([1, -0.5], E4M3), "scale = -0.5 must be positive"),
        (np.array([1, math.inf], ml_dtypes.float8_e5m2), "scale = inf must be positive"),
        (np.zeros(2, "V2"), "scale of |V2 must be positive finite numbers"),
        (np.zeros(2, [("s", np.float32)]), "must be positive finite numbers"),
        (np.zeros(2, "M8[s]"), "must be positive finite numbers"),
        (np.array([1, None]), "scale of object must be positive finite numbers"),
    ],
    ids=str,
)
def test_foreign_scales_that_are_refused(scale: np.ndarray, fragment: str) -> None:
    """A NaN, a negative number or an infinity among scales, and what are no numbers, get one sentence."""
    for function in quantize, encode:
        with pytest.raises(InputError, match=re.escape(fragment)) as caught:
            function(X, "e4m3", scale=scale)
        assert "\n" not in str(caught.value)


def test_thresholds_of_foreign_types() -> None:
    """Arrays of thresholds may be of the same types."""
    eps = np.array([0.25, 0.5], E4M3)
    x = np.float32([0.3, 0.3])
    assert floats(quantize(x, "int4", "Threshold", eps=eps)) == [1.0, 0.0]


# --- Scales of zero --------------------------------------------------------------------------------------------------

SPECIAL = [0.0, -0.0, 1.0, -1.5, math.inf, -math.inf, math.nan, 1e-6]


@every_kind
@pytest.mark.parametrize("name", ["e4m3", "e5m2", "e2m1", "int8", "uint4", "nf4", "e8m0", "binary", "bfloat16"])
def test_a_scale_of_zero_makes_zeros(name: str, kind: np.dtype) -> None:
    """In place of a number whose scale is 0 a zero of its sign is rounded, by every order, and its value is times 0.

    A NaN stays one. Other elements are as they are without it; so is a -0 among scales.
    """
    fmt, x = get_format(name), np.array([SPECIAL, SPECIAL], kind)
    for order, zero in itertools.product(ORDERS, (0.0, -0.0)):
        if order == "exact" and fmt.kind == "table":
            continue
        scale = np.array([[zero], [0.5]])
        expected = [reference.encode(reference.scaled(v, 0.0, order, str(kind)), fmt) for v in floats(x[0])]
        codes = encode(x, fmt, scale=scale, order=order)
        assert codes[0].tolist() == expected
        assert codes[1].tolist() == encode(x[1], fmt, scale=0.5, order=order).tolist()
        try:
            y = quantize(x, fmt, scale=scale, order=order)
        except InputError as refusal:
            assert "cannot hold the values" in str(refusal)  # noqa: PT017
            continue
        assert identical(y[0], [reference.restored(fmt.decode(code), 0.0, str(kind)) for code in expected])
        assert same_bits(y[1], quantize(x[1], fmt, scale=0.5, order=order))


def test_one_scale_of_zero() -> None:
    """A single scale of 0 is one too, however it is held; a Quantizer, which is for many arrays, takes none."""
    x = np.float32([3, -2, math.nan])
    for zero in (0, 0.0, np.float32(0), np.zeros(()), np.zeros(1), np.zeros((), E4M3), [0.0, 0.0, 0.0]):
        assert identical(quantize(x, "e4m3", scale=zero), [0.0, -0.0, math.nan])
        assert encode(x, "e2m1", "SR", key=Key(0), scale=zero).tolist() == [0, 8, 7]
    with pytest.raises(InputError, match="scale = 0 must be a positive finite number"):
        Quantizer("e4m3", scale=0)
    with pytest.raises(InputError, match="scale = False must be"):
        quantize(x, "e4m3", scale=False)


def test_zeros_in_place() -> None:
    """The result may be the input, and what is not contiguous."""
    x = numbers(12, FLOAT32).reshape(3, 4)
    scale = np.float32([[1], [0], [2]])
    expected = quantize(x, "e4m3", scale=scale)
    y = x.copy()
    assert quantize(y, "e4m3", scale=scale, out=y) is y
    assert same_bits(y, expected)
    turned = np.asfortranarray(x)
    quantize(turned, "e4m3", scale=scale, out=turned)
    assert np.array_equal(turned, expected)
    assert same_bits(quantize(x[:, ::-1], "e4m3", scale=scale), np.ascontiguousarray(expected[:, ::-1]))


@pytest.mark.parametrize("kind", KINDS, ids=str)
def test_nvfp4_with_tiny_blocks(kind: np.dtype) -> None:
    """Blocks whose scale, abs-max / 6 in E4M3, is 0 become zeros; values are codes times scales in every block."""
    z = numbers(64, kind).reshape(4, 16)
    z[1] = 0
    z[2] = (exactly(z[2]) * 2.0**-22).astype(kind)
    amax = abs(exactly(z)).max(1, keepdims=True).astype(np.float32)
    scale = quantize(amax / 6, "e4m3")
    assert (scale == 0).ravel().tolist() == [False, True, True, False]
    y, codes = quantize(z, "e2m1", scale=scale), encode(z, "e2m1", scale=scale)
    assert not y[1:3].any()
    assert np.array_equal(np.signbit(y[2]), np.signbit(z[2]))
    assert set(codes[1:3].ravel().tolist()) <= {0, 8}
    assert np.array_equal(exactly(y), exactly(decode(codes, "e2m1")) * exactly(scale))  # 2 bits by 4: exact
    stored = scale.astype(E4M3)
    assert same_bits(quantize(z, "e2m1", scale=stored), y)
    for block, one, expected in zip(z, scale, y, strict=True):
        assert same_bits(quantize(block, "e2m1", scale=one[0]), expected)
        assert same_bits(quantize(block, "e2m1", scale=one.reshape(())), expected)


# --- Arrays of other libraries ---------------------------------------------------------------------------------------


class Foreign:
    """Stand for an array of another library, which refuses to become one of NumPy as that library does."""

    def __init__(self, error: Exception) -> None:
        self.error = error

    def __array__(self, *arguments: Any, **options: Any) -> np.ndarray:
        raise self.error


REFUSALS = [
    TypeError("Got unsupported ScalarType BFloat16"),  # torch
    RuntimeError("Can't call numpy() on Tensor that requires grad. Use tensor.detach().numpy() instead."),
    TypeError("can't convert cuda:0 device type tensor to numpy.\nUse Tensor.cpu() first."),
    TypeError("Implicit conversion to a NumPy array is not allowed."),  # CuPy
    NotImplementedError("Cannot convert a symbolic tf.Tensor to a numpy array."),  # TensorFlow
    BufferError("Cannot export readonly array"),
    ValueError("not a plain array"),
]


@pytest.mark.parametrize("error", REFUSALS, ids=lambda error: str(error)[:24])
def test_what_numpy_cannot_read_is_refused(error: Exception) -> None:
    """An array that NumPy cannot read is named with its reason in one sentence, wherever arrays are taken."""
    foreign, x = Foreign(error), np.float32([1, 2])
    calls = {
        "x": lambda: quantize(foreign, "e4m3"),
        "scale": lambda: quantize(x, "e4m3", scale=foreign),
        "eps": lambda: quantize(x, "e4m3", "Threshold", eps=foreign),
        "rbits": lambda: encode(x, "e4m3", "SRA", sr_bits=2, rbits=foreign),
        "codes": lambda: decode(foreign, "e4m3"),
        "codes of pack": lambda: pack(foreign, "e4m3"),
    }
    reason = str(error).partition("\n")[0].rstrip(".")
    for name, call in calls.items():
        with pytest.raises(InputError) as caught:
            call()
        assert str(caught.value) == (
            f"{name.partition(' ')[0]} is a {__name__}.Foreign that NumPy cannot read ({reason}); give it as a NumPy array"
        )
    with pytest.raises(
        InputError, match="x is a list that NumPy cannot read" if not isinstance(error, ValueError) else "ragged"
    ):
        quantize([foreign, foreign], "e4m3")


def test_a_tensor_of_torch_is_told_how() -> None:
    """A tensor that NumPy cannot read is told of the call that makes an array of it."""
    tensor = type("Tensor", (Foreign,), {"__module__": "torch"})(TypeError("Got unsupported ScalarType BFloat16"))
    with pytest.raises(InputError, match=re.escape("give it as a NumPy array, x.detach().cpu().float().numpy()")):
        quantize(tensor, "e4m3")


def test_bfloat16_scales() -> None:
    """A scale of bfloat16 is that number as a float32 for every type of input."""
    for kind in FLOAT16, BFLOAT16, FLOAT32:
        x = numbers(6, kind)
        assert same_bits(
            quantize(x, "int8", scale=BFLOAT16.type(0.1)), quantize(x, "int8", scale=float(BFLOAT16.type(0.1)))
        )
