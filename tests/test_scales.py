"""Which scale an array gets: how scales are derived, who shares one, and what is refused."""

from __future__ import annotations

import itertools
import math
import re
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from alike import identical
from definition import fl
from enumeration import exactly, floats, nearest_codes, quotient
from hypothesis import given, settings
from hypothesis import strategies as st
from strategies import BFLOAT16, FLOAT16, FLOAT32, FLOAT64, KINDS, every_kind, formats, inputs, numbers

from qsim.arrays import decode, encode, quantize, quantize_draws
from qsim.errors import InputError
from qsim.formats import get_format
from qsim.rounding import Key, Quantizer
from qsim.scales import derive_scale, given_scale

# --- Derived scales --------------------------------------------------------------------------------------------------


def expected_scale(q: Quantizer, x: list[float], kind: np.dtype) -> float:
    """Return the scale of the numbers `x` by the words of `derive_scale`, in exact arithmetic."""
    fmt, number = q.format, get_format(str(kind))
    finite = [abs(Fraction(value)) for value in x if math.isfinite(value)]
    largest = max(finite, default=Fraction(0))
    limit = Fraction(fmt.max if fmt.max > 0 else -fmt.min)
    if kind != FLOAT64:  # as a number of the type that is computed in, or the one below it
        single = get_format("float32")
        limit = single.value(min(single.split(limit)[0], single.top))
    limit = min(limit, Fraction(number.max))
    if not largest or limit < get_format("float64" if kind == FLOAT64 else "float32").smallest_normal:
        return 1.0
    if q.scale == "pow2":
        exponent = 0
        while Fraction(2) ** exponent * limit < largest:
            exponent += 1
        while Fraction(2) ** (exponent - 1) * limit >= largest:
            exponent -= 1
        if not number.emin <= exponent <= number.emax:
            return 1.0
        return 2.0**exponent
    if q.scale == "absmean":
        derived = fl(sum(finite) / len(finite), kind)
    else:
        derived = fl(largest / limit, kind)
        if math.isfinite(derived) and derived and fl(largest / Fraction(derived), kind) > limit:
            derived = float(np.nextafter(np.array(derived, kind), kind.type(np.inf)))
    return derived if number.smallest_normal <= derived <= number.max else 1.0


NAMED = ["pow2", "absmax", "absmean"]


@pytest.mark.filterwarnings("ignore:the matrix subclass")
@pytest.mark.parametrize("scale", NAMED)
def test_the_scale_of_a_matrix_is_that_of_its_array(scale: str) -> None:
    """A subclass of arrays, of which sums have other axes, is taken for the array that it is."""
    x = np.float32([[1, -2, 4], [0.5, 8, 3]])
    for per in ("tensor", "channel"):
        q = Quantizer("int4", scale=scale, per=per)
        assert np.asarray(derive_scale(np.matrix(x), q)).tolist() == derive_scale(x, q).tolist()


@settings(max_examples=300)
@given(st.data())
def test_derived_scales(data: st.DataObject) -> None:
    """A scale is what its name says, in the type of x: of numbers of any bit pattern, for any format."""
    kind = data.draw(st.sampled_from(KINDS))
    fmt = data.draw(formats(FLOAT64))
    x = np.array(data.draw(st.lists(inputs(fmt, kind), max_size=6)), kind)
    for name in NAMED:
        q = Quantizer(fmt, scale=name)
        s = derive_scale(x, q)
        assert s is not None
        assert s.dtype == kind
        assert s.shape == (1,)
        assert floats(s) == [expected_scale(q, floats(x), kind)]


def test_flushed_numbers_do_not_count() -> None:
    """With FTZ-in a scale is derived from the numbers that are left, as `quantize` divides by it."""
    q, x = Quantizer("int8", scale="absmean", ftz_in=True), np.float32([4e-38, 1.1e-38])
    scale = derive_scale(x, q)
    assert scale == np.float32(4e-38) / 2
    assert quantize(x, q).tolist() == (decode(encode(x, q), "int8") * scale).tolist()


@pytest.mark.parametrize("scale", NAMED)
def test_no_scale_reaches_values_below_the_type(scale: str) -> None:
    """Where the largest value of the format is below the type that is computed in, the scale is 1."""
    for name in ("e7m1b738", "e2m16b227"):
        assert scale == "absmean" or derive_scale(np.float32([1e-41, 1]), Quantizer(name, scale=scale)) == 1


@pytest.mark.parametrize(
    "arguments", [([1.0], Quantizer("int8")), (np.arange(3), Quantizer("int8")), (np.ones(2), "int8")]
)
def test_what_has_no_scale_is_refused(arguments: tuple) -> None:
    """Lists, integers, and what is no quantizer."""
    with pytest.raises(InputError, match="derive_scale takes an array of float16"):
        derive_scale(*arguments)


def test_a_mean_is_rounded_once() -> None:
    """The mean of float16 does not become a float32 first, nor its sum a float64 that overflows."""
    assert derive_scale(
        np.array([4, 2**-9, 2**-24, 0], FLOAT16), Quantizer("ternary", scale="absmean")
    ) == FLOAT16.type(1.001)
    largest = np.full(5, 1.75 * 2.0**1023)
    assert derive_scale(largest, Quantizer("ternary", scale="absmean")) == largest[0]


@pytest.mark.parametrize(
    "scale",
    [0.5, np.array(0.5), np.float16(0.5), BFLOAT16.type(0.5), np.array(0.5, BFLOAT16)],
    ids=lambda scale: f"{type(scale).__name__} {np.asarray(scale).dtype}",
)
def test_one_number_is_a_scale_however_it_is_held(scale: object) -> None:
    """Python's numbers, NumPy's, and arrays without axes are one scale."""
    assert quantize(np.float32([1.2, -1.6]), "int4", scale=scale).tolist() == [1.0, -1.5]


@pytest.mark.parametrize("kind", [FLOAT16, BFLOAT16], ids=str)
@pytest.mark.parametrize(
    "name", ["e4m3", "e5m2", "e2m1", "int8", "uint4", "nf4", "Q3.4", "Binary8p3se", "e8m0", "posit8"]
)
def test_the_largest_element_fits(name: str, kind: np.dtype) -> None:
    """For every largest element of 16 bits, the scaled one does not exceed the largest value, nor is it less than half of it.

    For all numbers of the type, where the scale is a normal number: fl(max|x| / s) <= max; by absmax it misses max by a few
    last places. Of a format beyond the type's range it is the type's largest number that counts.
    """
    fmt, number = get_format(name), get_format(str(kind))
    every, limit = np.arange(1, number.inf_code, dtype=np.uint16).view(kind), min(fmt.max, number.max)
    for scale, least in ("absmax", 1 - 2.0 ** (2 - number.man_bits)), ("pow2", 0.5):
        s = derive_scale(every.reshape(-1, 1), Quantizer(fmt, scale=scale, per="token"))
        assert s is not None
        usable = s.ravel() != 1
        scaled = exactly(nearest_codes(kind, quotient(every[usable], s.ravel()[usable])).view(kind))
        assert np.all(scaled <= limit)
        assert np.all(scaled >= limit * least)
        assert usable.sum() > 14_000


def test_scales_by_hand() -> None:
    """NaN and infinities do not count, and rows of zeros have scale 1; the mean is over the finite elements."""
    rows = np.array([[1, -896], [0, -0.0], [np.nan, np.inf], [np.inf, 448.5], [1e-45, 0]], np.float32)

    def scales(name: Any) -> list[float]:
        s = derive_scale(rows, Quantizer("e4m3", scale=name, per="token"))
        assert s is not None
        return s.ravel().tolist()

    assert scales("pow2") == [2, 1, 1, 2, 1]
    assert scales("absmax") == [2, 1, 1, np.float32(448.5) / np.float32(448), 1]
    assert scales("absmean") == [448.5, 1, 1, 448.5, 1]
    frozen = derive_scale(rows, Quantizer("e4m3", scale=0.5))
    assert frozen is not None
    assert frozen.tolist() == [[0.5]]
    assert derive_scale(rows, Quantizer("e4m3")) is None


def test_bitnets_weights() -> None:
    """BitNet b1.58: weights over their mean magnitude, rounded to -1, 0, +1, times the mean."""
    w = np.array([[0.9, -0.2, 0.05], [-1.3, 0.4, -0.6]], np.float32)
    mean = np.float32(np.abs(w.astype(np.float64)).sum() / 6)
    expected = np.clip(np.rint(w / mean), -1, 1) * mean
    assert np.array_equal(quantize(w, "ternary", scale="absmean"), expected.astype(np.float32))


@every_kind
def test_power_of_two_scales_are_exact(kind: np.dtype) -> None:
    """Scaling by a power of two shifts the format's range: scaled inputs give scaled results."""
    x = numbers(500, kind)
    plain = quantize(x, "e4m3", scale="pow2")
    for shift in (2.0**5, 2.0**-3):
        assert identical(quantize(x * kind.type(shift), "e4m3", scale="pow2"), floats(plain * kind.type(shift)))


# --- Who shares a scale ----------------------------------------------------------------------------------------------

PERS: dict[Any, tuple[int, ...]] = {
    "tensor": (), "sample": (0,), "channel": (0,), "token": (0, 1), 0: (0,), 1: (1,), -1: (2,), (0, 2): (0, 2), (1,): (1,),
    (-1, 0): (0, 2), (0, 1, 2): (0, 1, 2),
}  # fmt: skip
"""The axes of a 3-d array along which scales differ."""


@every_kind
@pytest.mark.parametrize("scale", NAMED)
@pytest.mark.parametrize("per", PERS, ids=str)
def test_who_shares_a_scale(per: Any, scale: Any, kind: np.dtype) -> None:
    """Each part of an array that `per` names is rounded as it would be alone, whatever the layout."""
    x = numbers(2 * 3 * 5, kind).reshape(2, 3, 5)
    q = Quantizer("int4", scale=scale, per=per)
    s = derive_scale(x, q)
    assert s is not None
    assert s.shape == tuple(size if axis in PERS[per] else 1 for axis, size in enumerate(x.shape))
    y = quantize(x, q)
    for index in itertools.product(*(range(x.shape[axis]) for axis in PERS[per])):
        part: list[Any] = [slice(None)] * 3
        for axis, at in zip(PERS[per], index, strict=True):
            part[axis] = at
        alone = quantize(np.array(x[tuple(part)]), "int4", scale=scale)
        assert y[tuple(part)].tobytes() == alone.tobytes()
    turned = np.asfortranarray(x)[:, ::-1]
    assert quantize(turned, q).tobytes() == quantize(turned.copy(), q).tobytes()


def test_frozen_scales_are_shared_by_shape() -> None:
    """An array of scales is shared as its shape broadcasts, whatever type it has."""
    x = numbers(12, FLOAT32).reshape(3, 4)
    for scale in ([[0.5], [3.0], [0.1]], [1.0, 2.0, 3.0, 4.0], np.full((3, 4), 3), np.array([[2.0]], BFLOAT16)):
        each = np.broadcast_to(np.array(scale).astype(np.float32), x.shape)
        expected = [quantize(x[at], "e4m3", scale=float(each[at]))[()] for at in np.ndindex(x.shape)]
        assert quantize(x, "e4m3", scale=scale).ravel().tolist() == expected
        codes = [int(encode(x[at], "e4m3", scale=float(each[at]))) for at in np.ndindex(x.shape)]
        assert encode(x, "e4m3", scale=scale).ravel().tolist() == codes


@pytest.mark.parametrize("per", ["tensor", "sample", "token", 1])
@pytest.mark.parametrize("scale", [*NAMED, 3.0])
def test_each_draw_has_its_scale(scale: Any, per: Any) -> None:
    """With a leading axis of draws, each draw is scaled as it is alone."""
    q = Quantizer("e4m3", "SR", scale=scale, per=per)
    x = numbers(3 * 2 * 5, FLOAT32).reshape(3, 2, 5)
    s = derive_scale(x, q, lead=1)
    assert s is not None
    for k in range(3):
        alone = derive_scale(x[k], q)
        assert alone is not None
        assert np.array_equal(np.broadcast_to(s, (3, *s.shape[1:]))[k], alone)
    y, _ = quantize_draws(x, q, 5, [7, 8, 9])
    for k, stream in enumerate((7, 8, 9)):
        assert y[k].tobytes() == quantize(x[k], q, key=Key(5, stream)).tobytes()
    assert given_scale([[1.0], [2.0]], x, lead=1).shape == (1, 2, 1)


@every_kind
@pytest.mark.parametrize("scale", [*NAMED, 2.0])
@pytest.mark.parametrize("per", ["tensor", "channel", "token", 1])
@pytest.mark.parametrize("shape", [(0, 3), (3, 0), (2, 0, 3)], ids=str)
def test_empty_arrays_have_scales(shape: tuple[int, ...], per: Any, scale: Any, kind: np.dtype) -> None:
    """An array without elements is scaled and rounded to one."""
    x = np.zeros(shape, kind)
    assert quantize(x, "e4m3", scale=scale, per=per).shape == shape
    assert encode(x, "e4m3", scale=scale, per=per).shape == shape


@every_kind
def test_numbers_alone_have_scales(kind: np.dtype) -> None:
    """A 0-d array is a tensor of its own; absmax takes it to the largest value and back."""
    x = np.array(10, kind)
    for scale in NAMED:
        y = quantize(x, "e4m3", scale=scale)
        assert y.shape == ()
        assert y == 10


# --- Refusals --------------------------------------------------------------------------------------------------------

X = np.ones((2, 3), np.float32)


@pytest.mark.parametrize(
    ("x", "options", "fragment"),
    [
        (X, {"scale": "pow3"}, "no scale is called 'pow3'; it is none, pow2, absmax or absmean, or a number"),
        (X, {"scale": -1}, "scale = -1 must be a positive finite number"),
        (X, {"scale": 0}, "scale = 0 must be"),
        (X, {"scale": math.inf}, "scale = inf must be"),
        (X, {"scale": math.nan}, "scale = nan must be"),
        (X, {"scale": 1e-60}, "scale = 1e-60 must be positive, and within the range of float32"),
        (X, {"scale": 1e60}, "scale = 1e+60 must be positive, and within the range of float32"),
        (X.astype(np.float16), {"scale": 1e-9}, "within the range of float16, in which x is divided by it"),
        (X.astype(np.float16), {"scale": 7e4}, "within the range of float16"),
        (X, {"scale": [[1.0], [0.0]]}, "scale = 0.0 must be positive"),
        (X, {"scale": [[1.0], [-2.0]]}, "must be positive"),
        (X, {"scale": [[1.0], [math.nan]]}, "must be positive"),
        (X, {"scale": [[1.0], [math.inf]]}, "must be positive"),
        (X, {"scale": np.ones((2, 3), bool)}, "scale of bool must be positive finite numbers"),
        (X, {"scale": np.ones((2, 3), complex)}, "scale of complex128 must be positive finite numbers"),
        (X, {"scale": ["a"]}, "must be positive finite numbers"),
        (X, {"scale": [1.0, 2.0]}, "scale of shape (2,) does not broadcast to the shape (2, 3) of x"),
        (X, {"scale": np.ones((1, 2, 3))}, "scale of shape (1, 2, 3) does not broadcast to the shape (2, 3) of x"),
        (X[0, 0], {"scale": [1.0]}, "scale of shape (1,) does not broadcast to the shape () of x"),
        (X, {"scale": [1.0, 2.0, 3.0], "per": "channel"}, "per = 'channel' with an array of scales"),
        (X, {"scale": "absmax", "per": "row"}, "per = 'row'; it is tensor, sample, channel or token, or the number of"),
        (X, {"scale": "absmax", "per": ()}, "per = ()"),
        (X, {"scale": "absmax", "per": True}, "per = True"),
        (X, {"scale": "absmax", "per": 1.0}, "per = 1.0"),
        (X, {"scale": "absmax", "per": (0, 1.0)}, "per = (0, 1.0)"),
        (X, {"scale": "absmax", "per": 2}, "per = 2 names the axis 2 of an array of 2 axes"),
        (X, {"scale": "absmax", "per": (0, -3)}, "names the axis -3 of an array of 2 axes"),
        (X[0, 0], {"scale": "absmax", "per": "token"}, "per = 'token' needs an array with axes"),
        (X, {"scale": 2.0, "order": "backwards"}, "no order of operations is called 'backwards'; it is divide, reciprocal"),
        (X, {"scale": 2.0, "order": "exact", "mode": "THR", "eps": 0.5}, "order = 'exact' divides to 53 bits, too few"),
        (X, {"scale": 2.0, "order": "exact", "fmt": "nf4"}, "order = 'exact' divides to 53 bits, too few"),
        (X, {"scale": 2.0, "order": "exact", "mode": "SRA", "sr_bits": 64, "key": Key(0)}, "64"),
        (X, {"scale": 2.0, "order": "exact", "fmt": "int8", "saturation": "wrap"}, "too few for a large number that wraps"),
    ],
    ids=str,
)  # fmt: skip
def test_refusals(x: np.ndarray, options: dict[str, Any], fragment: str) -> None:
    """A scale that cannot be is refused in one sentence, by `quantize` and by `encode`."""
    options = {"fmt": "e4m3", **options}
    for function in (quantize, encode):
        with pytest.raises(InputError, match=re.escape(fragment)) as caught:
            function(x, **options)
        assert "\n" not in str(caught.value)
