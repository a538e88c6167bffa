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
from definition import scale_kind
from enumeration import floats
from hypothesis import given, settings
from hypothesis import strategies as st
from strategies import BFLOAT16, FLOAT16, FLOAT32, FLOAT64, KINDS, every_kind, formats, inputs, numbers

from qsim import reference
from qsim.arrays import decode, encode, quantize, quantize_draws
from qsim.errors import InputError
from qsim.formats import Format, get_format
from qsim.rounding import ORDERS, Key, Quantizer
from qsim.scales import derive_scale, given_scale

# --- Derived scales --------------------------------------------------------------------------------------------------


NAMED = ["pow2", "absmax", "absmax_nearest", "absmean"]


def largest_quotient(fmt: Format, kind: np.dtype, order: str) -> Fraction:
    """Return the magnitude that both signs of a format have, as a number of the type that is computed in, or the one below."""
    ends = [fmt.value(fmt.top), -fmt.value(-fmt.bottom)]
    wide, number = get_format(str(scale_kind(kind))), get_format(str(scale_kind(kind, order)))
    end = min((end for end in ends if end > 0), default=Fraction(0))
    return min(wide.value(min(wide.split(end)[0], wide.top)), Fraction(number.max))


def check_scale(q: Quantizer, x: list[float], kind: np.dtype, s: float) -> None:
    """Hold the scale of the numbers `x` against what `derive_scale` says of it, in exact arithmetic."""
    number, limit = get_format(str(scale_kind(kind, q.order))), largest_quotient(q.format, kind, q.order)
    finite = [abs(Fraction(value)) for value in x if math.isfinite(value)]
    largest = max(finite, default=Fraction(0))
    if not largest:
        assert s == 1
        return
    least, most = number.smallest_normal, number.max
    assert least <= s <= most
    if q.scale == "pow2":
        assert math.frexp(s)[0] == 0.5
        assert s * limit >= largest or s * 2 > most
        assert s == least or Fraction(s) / 2 * limit < largest
        return
    mean = sum(finite) / len(finite)
    exact = mean if q.scale == "absmean" else largest / limit if limit else Fraction(most)
    nearest = reference.quantize(min(max(exact, Fraction(least)), Fraction(most)), number)
    if q.scale == "absmax":
        below = float(number.value(number.split(Fraction(s))[0] - 1))
        fit, tight = (reference.scaled(float(largest), scale, q.order, str(kind)) <= limit for scale in (s, below))
        assert fit or s == most
        assert s == nearest or (s > nearest and not tight)
    else:
        assert s == nearest


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
    """A scale is what its name says, in any order: of numbers of any bit pattern, for any format. So says the definition."""
    kind = data.draw(st.sampled_from(KINDS))
    fmt = data.draw(formats(FLOAT64))
    order = data.draw(st.sampled_from([*ORDERS]))
    x = np.array(data.draw(st.lists(inputs(fmt, kind), max_size=6)), kind)
    for name in NAMED:
        q = Quantizer(fmt, scale=name, order=order)
        s = derive_scale(x, q)
        assert s is not None
        assert s.dtype == scale_kind(kind, order)
        assert s.shape == (1,)
        check_scale(q, floats(x), kind, floats(s)[0])
        assert floats(s) == [reference.derived_scale(floats(x), fmt, name, str(kind), order)]


def test_flushed_numbers_do_not_count() -> None:
    """With FTZ-in a scale is derived from the numbers that are left, as `quantize` divides by it."""
    q, x = Quantizer("int8", scale="absmean", ftz_in=True), np.float32([4e-38, 1.1e-38])
    scale = derive_scale(x, q)
    assert scale == np.float32(4e-38) / 2
    assert quantize(x, q).tolist() == (decode(encode(x, q), "int8") * scale).tolist()


@pytest.mark.parametrize(
    "arguments", [([1.0], Quantizer("int8")), (np.arange(3), Quantizer("int8")), (np.ones(2), "int8")]
)
def test_what_has_no_scale_is_refused(arguments: tuple) -> None:
    """Lists, integers, and what is no quantizer."""
    with pytest.raises(InputError, match="derive_scale takes an array of float16"):
        derive_scale(*arguments)


def test_a_mean_is_rounded_once() -> None:
    """The mean of float16 is a float32, or with the order "input" does not become one first; no sum of float64 overflows."""
    x = np.array([4, 2**-9, 2**-24, 0], FLOAT16)
    assert derive_scale(x, Quantizer("ternary", scale="absmean")) == np.float32(1 + 2**-11 + 2**-26)
    assert derive_scale(x, Quantizer("ternary", scale="absmean", order="input")) == FLOAT16.type(1.001)
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


def test_scales_by_hand() -> None:
    """NaN and infinities do not count, and rows of zeros have scale 1; the mean is over the finite elements."""
    rows = np.array([[1, -896], [0, -0.0], [np.nan, np.inf], [np.inf, 448.5], [1e-45, 0]], np.float32)

    def scales(name: Any) -> list[float]:
        s = derive_scale(rows, Quantizer("e4m3", scale=name, per="token"))
        assert s is not None
        return s.ravel().tolist()

    assert scales("pow2") == [2, 1, 1, 2, 2.0**-126]
    assert scales("absmax") == [2, 1, 1, np.float32(448.5) / np.float32(448), 2.0**-126]
    assert scales("absmax_nearest") == scales("absmax")
    assert scales("absmean") == [448.5, 1, 1, 448.5, 2.0**-126]
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
    assert given_scale([[1.0], [2.0]], x, "divide", lead=1).shape == (1, 2, 1)


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
        (X, {"scale": "pow3"}, "no scale is called 'pow3'; it is none, pow2, absmax, absmax_nearest or absmean, or a"),
        (X, {"scale": -1}, "scale = -1 must be a positive finite number"),
        (X, {"scale": math.inf}, "scale = inf must be"),
        (X, {"scale": math.nan}, "scale = nan must be"),
        (X, {"scale": 1e-60}, "scale = 1e-60 must be positive, and within the range of float32"),
        (X, {"scale": 1e60}, "scale = 1e+60 must be positive, and within the range of float32"),
        (X.astype(np.float16), {"scale": 1e-9, "order": "input"}, "within the range of float16, in which x is divided by it"),
        (X.astype(np.float16), {"scale": 7e4, "order": "input"}, "within the range of float16"),
        (X.astype(np.float16), {"scale": 1e-46}, "within the range of float32, in which x is divided by it"),
        (X, {"scale": [[1.0], [1e-60]]}, "scale = 1e-60 must be positive"),
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
