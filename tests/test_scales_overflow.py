"""Arrays scaled by their own abs-max or power of two do not overflow: in any order, any mode, at any end of a type."""

from __future__ import annotations

import functools
import itertools
import math
from typing import Any

import numpy as np
import pytest
from alike import identical
from definition import scale_kind
from enumeration import exactly, floats, nearest_codes, quotient, sixteen_bits
from hypothesis import given, settings
from hypothesis import strategies as st
from strategies import BFLOAT16, FLOAT16, FLOAT32, FLOAT64, TABLES, formats, held

from qsim import reference
from qsim.arrays import decode, encode, quantize, quantize_draws
from qsim.errors import InputError
from qsim.formats import Format, get_format
from qsim.rounding import LIMITED, ORDERS, Mode, Quantizer, Saturation, saturations
from qsim.scales import derive_scale

SIXTEEN = [FLOAT16, BFLOAT16]
FITTED = ["absmax", "pow2"]
NAMES = ["e4m3", "e5m2", "e2m1", "int8", "uint4", "nf4", "Q3.4", "UQ0.8", "Binary8p3se", "e8m0", "posit8", "int32"]
"""Floats with and without infinity, integers, tables, formats that end below 1, beyond float16, and at a number of 31 bits."""


def scale_of(x: np.ndarray, q: Quantizer) -> np.ndarray:
    """Return the scale that is derived for `x`."""
    s = derive_scale(x, q)
    assert s is not None
    return s


@functools.cache
def maxima(kind: np.dtype) -> np.ndarray:
    """Return all positive finite numbers of a type of 16 bits, one a row."""
    return sixteen_bits(kind)[1 : get_format(str(kind)).inf_code].reshape(-1, 1)


def largest_quotient(fmt: Format, number: np.dtype) -> float:
    """Return the largest float32 that a format has in both signs, and at most the largest `number`."""
    end = min(end for end in (fmt.max, -fmt.min) if end > 0)
    limit = np.float32(end)
    limit = np.nextafter(limit, np.float32(0)) if float(limit) > end else limit
    return min(float(limit), get_format(str(number)).max)


def most_of(number: np.dtype, scale: str) -> float:
    """Return the largest scale."""
    most = get_format(str(number)).max
    return most if scale == "absmax" else math.ldexp(1.0, math.frexp(most)[1] - 1)


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("kind", SIXTEEN, ids=str)
@pytest.mark.parametrize("name", NAMES)
def test_the_largest_element_fits(name: str, kind: np.dtype, order: str) -> None:
    """For every largest element of 16 bits: scaled in the order in force it is at most the largest value, and little less.

    Less by a few last places of absmax, by a factor of two of pow2; but where that needed a scale below the normal numbers.
    The processor divides. Only where no number (or power of two) is large enough, for a format that ends below 1 (or 2), may an
    element stay above.
    """
    x, number = maxima(kind), scale_kind(kind, order)
    fmt, limit = get_format(str(number)), largest_quotient(get_format(name), number)
    for scale, least in ("absmax", 1 - 2.0 ** (3 - fmt.man_bits)), ("pow2", 0.5):
        s = scale_of(x, Quantizer(name, scale=scale, per="token", order=order))
        assert s.dtype == number
        if order == "input":
            scaled = exactly(nearest_codes(kind, quotient(x, s)).view(kind))
        else:
            with np.errstate(over="ignore", under="ignore"):
                wide = x.astype(np.float32)
                scaled = exactly(wide * (np.float32(1) / s) if order == "reciprocal" else wide / s)
        s = exactly(s)
        fits = exactly(x) <= s * limit if order == "exact" else scaled <= limit  # products of 24 bits each
        assert np.all((s >= fmt.smallest_normal) & (s <= most_of(number, scale)))
        assert np.all(fits | (s == most_of(number, scale)))
        assert fits.all() or limit < (1 if scale == "absmax" else 2)
        assert np.mean(fits) > 0.95
        tight = scaled >= limit * least
        assert np.all(tight | (s == fmt.smallest_normal))
        assert np.all(tight | (exactly(x) < 2 * fmt.smallest_normal * limit))


MODES: dict[Mode, dict[str, Any]] = {
    Mode.RUP: {}, Mode.RAZ: {}, Mode.RTO: {}, Mode.RNA: {}, Mode.SRA: {"sr_bits": 8, "rbits": np.uint8(255)},
    Mode.SRE: {"sr_bits": 1, "rbits": np.uint8(1)},
}  # fmt: skip
"""Modes that go beyond the largest value from a number just above it, with the words that take them there."""


@pytest.mark.parametrize("step", [16, pytest.param(1, marks=pytest.mark.exhaustive)])
@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("kind", SIXTEEN, ids=str)
@pytest.mark.parametrize("name", ["e4m3", "e5m2", "int8", "e4m3fnuz", "Binary8p3se", "e2m1"])
def test_no_mode_overflows(name: str, kind: np.dtype, order: str, step: int) -> None:
    """For every largest element of 16 bits, of either sign: no rule about numbers beyond the range applies, in any mode.

    The code is that under saturation, and the value times the scale is the exact product rounded once, and finite. Every day
    each sixteenth number, from another one on for each order, and the largest and smallest.
    """
    fmt, x = get_format(name), maxima(kind)
    x = np.concatenate([x[list(ORDERS).index(order) :: step], x[:40], x[-40:]])
    x = np.concatenate([x, -x[::3]])
    clamping = next(rule for rule in saturations(fmt) if rule in (Saturation.SatFinite, Saturation.saturate))
    largest = get_format(str(kind)).max
    for scale, (mode, words) in itertools.product(FITTED, MODES.items()):
        rounding: dict[str, Any] = {"scale": scale, "per": "token", "order": order, **words}
        clamped = encode(x, fmt, mode, saturation=clamping, **rounding)
        s = scale_of(x, Quantizer(fmt, scale=scale, per="token", order=order))
        product = np.minimum(abs(exactly(decode(clamped, fmt)) * exactly(s)), largest)
        expected = nearest_codes(kind, product.ravel()).view(kind)
        for rule in saturations(fmt):
            if rule is Saturation.wrap and order == "exact":
                continue
            assert np.array_equal(encode(x, fmt, mode, saturation=rule, **rounding), clamped), (mode, rule)
            y = quantize(x, fmt, mode, saturation=rule, **rounding)
            assert y.dtype == kind
            assert np.array_equal(abs(exactly(y)).ravel(), exactly(expected)), (mode, rule)
            assert np.all((np.sign(exactly(y)) == np.sign(exactly(x))) | (exactly(y) == 0))


@pytest.mark.parametrize("kind", SIXTEEN, ids=str)
@pytest.mark.parametrize("name", ["int8", "e4m3", "e5m2", "uint4", "e2m1"])
def test_the_largest_element_comes_back(name: str, kind: np.dtype) -> None:
    """By absmax every largest element of 16 bits comes back as itself, but where it would need a scale below 2^-126."""
    x = maxima(kind)
    y = quantize(x, name, scale="absmax", per="token")
    normal = scale_of(x, Quantizer(name, scale="absmax", per="token")).ravel() > 2.0**-126
    assert np.array_equal(x[normal], y[normal])
    assert normal.all() if kind == FLOAT16 else 0.9 < normal.mean() < 1


@st.composite
def sizes(draw: st.DrawFn, kind: np.dtype) -> np.generic:
    """Return a positive finite number of any bit pattern, often one of the smallest or the largest."""
    fmt, word = get_format(str(kind)), np.dtype(f"u{kind.itemsize}").type
    assert fmt.inf_code is not None
    last, normal = fmt.inf_code - 1, fmt.ordinal(fmt.smallest_normal)
    near = st.integers(0, 40)
    pattern = draw(
        st.one_of(
            st.integers(1, last), st.integers(1, normal), near.map(lambda n: n + 1), near.map(lambda n: normal + n),
            near.map(lambda n: last - n), st.integers(last - 8 * normal, last),
        )
    )  # fmt: skip
    return word(pattern).view(kind)


@settings(max_examples=100)
@given(st.data())
def test_nothing_overflows(data: st.DataObject) -> None:
    """For any type, format, order, mode and rule, and elements of any size: codes and values of the definition, all inside.

    The words are those that go outward. Where even the largest scale is too small the rule beyond the range holds.
    """
    kind = data.draw(st.sampled_from([FLOAT32, FLOAT64, FLOAT32, FLOAT64, *SIXTEEN]))
    fmt = data.draw(formats(FLOAT64))
    order, scale = data.draw(st.sampled_from([*ORDERS])), data.draw(st.sampled_from(FITTED))
    mode, rule = data.draw(st.sampled_from([*{*Mode} - {Mode.THR}])), data.draw(st.sampled_from(saturations(fmt)))
    n = (64 if kind == FLOAT64 else 32) if mode is Mode.SR else data.draw(st.integers(1, 24))
    words = {"sr_bits": n, "rbits": (1 << n) - 1} if mode.stochastic else {}
    x = np.array(data.draw(st.lists(sizes(kind), min_size=1, max_size=4)), kind)
    x = -x if fmt.signed and data.draw(st.booleans()) else x
    q = Quantizer(fmt, mode, scale=scale, order=order, saturation=rule, sr_bits=n if mode in LIMITED else None)
    s = floats(scale_of(x, q))[0]
    rounding = {"sr_bits": n, "rbits": np.uint64(words["rbits"])} if words else {}
    try:
        codes = encode(x, q, **rounding)
    except InputError as refusal:
        assert order == "exact"
        assert "'exact' divides to 53 bits" in str(refusal)  # noqa: PT017
        return
    scaled = [reference.scaled(a, s, order, str(kind)) for a in floats(x)]
    assert codes.tolist() == [reference.encode(value, fmt, mode, saturation=rule, **words) for value in scaled]
    if s == most_of(scale_kind(kind, order), scale):
        return
    values = [fmt.decode(code) for code in codes.tolist()]
    assert all(abs(value) <= min(end for end in (fmt.max, -fmt.min) if end > 0) for value in scaled)
    assert all(map(math.isfinite, values)) or not fmt.has_zero
    if held(kind, fmt):
        y = quantize(x, q, **rounding)
        assert np.isfinite(exactly(y)).all() or not fmt.has_zero
        assert identical(y, [reference.restored(value, s, str(kind), finite=True) for value in values])


@pytest.mark.parametrize("kind", [FLOAT32, FLOAT64], ids=str)
def test_products_of_finite_values_are_finite(kind: np.dtype) -> None:
    """The largest numbers of a type round up to a value that, times a derived scale, is beyond it: the largest stands for it.

    An infinity stays one, and so does the overflow of a given scale. One row's scale decides for itself alone.
    """
    most, inf = get_format(str(kind)).max, math.inf
    x = np.array([[most, -most, inf, 1.0], [1.0, -1.0, -inf, 0.5]], kind)
    expected = [most, -most, inf, 0.0, 1.0, -1.0, -inf, 0.5]
    q = Quantizer("e5m2", scale="pow2", per="token")
    assert floats(quantize(x, q)) == expected
    assert floats(quantize(x, q, out=np.empty((4, 2), kind).T)) == expected
    assert floats(quantize_draws(x[None], q, 0, [0])[0]) == expected
    assert floats(quantize(x[0], "e5m2", scale=scale_of(x, q)[0])) == [inf, -inf, inf, 0.0]
    absmax = quantize(np.array([most, -most], kind), "e5m2", "RAZ", scale="absmax")
    assert floats(absmax) == [most, -most]


# --- Worked cases ----------------------------------------------------------------------------------------------------


def test_small_numbers_are_not_destroyed() -> None:
    """Numbers below a format's largest value times the type's smallest normal number have a scale that fits them."""
    x = np.float16([0.005, 0.0025, 0.00025])
    s = np.float32(x[0]) / np.float32(127)
    assert floats(quantize(x, "int8", scale="absmax")) == floats(np.float16(np.float32([127, 63, 6]) * s))
    y = quantize(np.float16([0.027, 0.0001]), "e4m3", scale="absmax")
    assert floats(abs(y / np.float16([0.027, 0.0001]) - 1) <= 2**-4) == [1, 1]
    tiny = quantize(np.float32([3e-36, -5e-37]), "float8_e5m2", scale="absmax")
    assert floats(tiny) == [256 * 2.0**-126, -40 * 2.0**-126]
    block = np.array([1e-36, -5e-37], BFLOAT16)
    assert floats(quantize(block, "e4m3", scale="pow2")) == [88 * 2.0**-126, -44 * 2.0**-126]
    random = np.random.default_rng(0).standard_normal(4096) * 1e-4
    for name, largest_error in ("int8", 0.02), ("e4m3", 0.04), ("float8_e5m2", 0.08):
        for kind in SIXTEEN:
            part = random.astype(kind)
            error = exactly(quantize(part, name, scale="absmax")) - exactly(part)
            assert np.linalg.norm(error) <= largest_error * np.linalg.norm(exactly(part))


def test_quotients_of_bfloat16_are_rounded_once() -> None:
    """113 / 0.98046875 is 115.25 and rounds to 115; in bfloat16 it is 115.5 first, and then 116."""
    x, s = np.array([113.0, 99.0], BFLOAT16), [0.98046875, 0.99609375]
    assert encode(x, "int8", scale=s).tolist() == [115, 99]
    assert encode(x, "int8", scale=s, order="input").tolist() == [116, 100]


def test_directed_modes_by_other_orders() -> None:
    """0x1.a84396p-1 is the abs-max of an array that the reciprocal took to 57344.004, which RUP made infinite."""
    x = np.float32([float.fromhex("0x1.a84396p-1"), 0.27])
    for order, mode in itertools.product(ORDERS, ["RUP", "RAZ"]):
        y = quantize(x, "float8_e5m2", mode, scale="absmax", order=order)
        assert 1 <= floats(y)[0] / floats(x)[0] < 1 + 2**-22


def test_the_nearest_abs_max_may_not_fit() -> None:
    """The scale "absmax_nearest" is fl(max|x| / 127) as NumPy divides; "absmax" is the next where the quotient exceeds 127.

    That is so for one array in six or seven (int8).
    """
    x = np.abs(np.random.default_rng(0).standard_normal((4096, 1))).astype(np.float32)
    nearest, fitted = (
        scale_of(x, Quantizer("int8", scale=scale, per="token")).ravel() for scale in ("absmax_nearest", "absmax")
    )
    assert nearest.tolist() == (x / np.float32(127)).ravel().tolist()
    above = x.ravel() / nearest > 127
    assert 1 / 8 < above.mean() < 1 / 5
    assert fitted.tolist() == np.where(above, np.nextafter(nearest, np.float32(np.inf)), nearest).tolist()
    up = quantize(x, "int8", "RUP", scale="absmax_nearest", per="token", saturation="wrap")
    assert np.array_equal(up.ravel() < 0, above)


def test_the_ends_of_a_table() -> None:
    """Of a table whose ends differ, the one nearer to zero is what the largest magnitude is scaled to."""
    shuffled = next(fmt for fmt in TABLES if fmt.name == "shuffled")
    assert (shuffled.min, shuffled.max) == (-3, 1e6)
    for sign in 1, -1:
        s = scale_of(sign * np.float32([6, -1]), Quantizer(shuffled, scale="absmax"))
        assert s.tolist() == [2]
