"""How a scale is applied and taken back: the division by each order of operations, the exact quotient, and the way back."""

from __future__ import annotations

import itertools
import math
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from alike import identical
from definition import fl, scale_kind
from enumeration import exactly, floats, nearest_codes, quotient
from hypothesis import given, settings
from hypothesis import strategies as st
from strategies import BFLOAT16, CATALOGUE, FLOAT16, FLOAT64, KINDS, P3109, every_kind, held, inputs, numbers, patterns

from qsim import reference
from qsim.arrays import decode, encode, quantize
from qsim.errors import InputError
from qsim.formats import Grid, get_format
from qsim.kernels.parameters import CARRIERS
from qsim.rounding import LIMITED, ORDERS, Mode, Saturation, saturations


def product(y: float, s: float, kind: np.dtype, *, clamped: bool) -> float:
    """Return fl(y s); where the rounding saturates, the largest number of the type in place of an overflow."""
    if not math.isfinite(y) or not y:
        return y
    exact = Fraction(y) * Fraction(s)
    rounded = math.copysign(fl(exact, kind), y)
    largest = get_format(str(kind)).max
    return max(-largest, min(rounded, largest)) if clamped else rounded


# --- The division, by each order -------------------------------------------------------------------------------------


def significands(kind: np.dtype) -> np.ndarray:
    """Return the numbers of a type of 16 bits in [1, 2)."""
    steps = 1 << get_format(str(kind)).man_bits
    return (1 + np.arange(steps) / steps).astype(kind)


def divided(x: np.ndarray, s: np.ndarray, order: str, kind: np.dtype) -> np.ndarray:
    """Return the patterns, of the type of 16 bits, of what is rounded in place of x, and then to that type.

    The processor multiplies float32 numbers. A quotient of two numbers of 16 bits that is rounded to float32 and then to their
    type is the quotient rounded once, so that "divide" and "input" are alike here.
    """
    if order != "reciprocal":
        return nearest_codes(kind, quotient(x, s))
    with np.errstate(over="ignore", under="ignore"):
        product = x.astype(np.float32) * (np.float32(1) / s.astype(np.float32))
    return nearest_codes(kind, np.minimum(exactly(product), 2.0**300))


EXPONENTS = {
    FLOAT16: [(0, 0), (-3, 10), *((-14, e) for e in range(-1, 14)), (15, -1), (15, 0), (-14, 15)],
    BFLOAT16: [
        (0, 0),
        (-100, 20),
        *((-126, e) for e in range(-1, 11)),
        (127, -1),
        (127, 0),
        (60, -66),
        (-126, 127),
        (-63, 63),
    ],
}
"""Exponents of x and s: quotients of the normal range, at every place of the subnormal one, and beyond either end."""


@pytest.mark.parametrize("order", ["reciprocal", "input"])
@pytest.mark.parametrize(
    ("kind", "step"), [(FLOAT16, 8), (BFLOAT16, 1), pytest.param(FLOAT16, 1, marks=pytest.mark.exhaustive)], ids=str
)
def test_all_pairs_of_significands(kind: np.dtype, step: int, order: str) -> None:
    """The quotient of any two numbers of 16 bits is rounded once, by either order, in the normal range and below it.

    All pairs of significands (2^20 of float16, 2^14 of bfloat16), with exponents that put the quotient anywhere; of float16
    every day those with each eighth divisor, from another one on for other exponents, and all for exponents of 0.
    """
    for k, (a, b) in enumerate(EXPONENTS[kind]):
        some = significands(kind)[k % step :: step] if a or b else significands(kind)
        x, s = (part.ravel() for part in np.meshgrid(significands(kind), some))
        u, v = ((exactly(part) * 2.0**e).astype(kind) for part, e in ((x, a), (s, b)))
        expected = divided(u, v, order, kind)
        assert np.array_equal(encode(u, str(kind), scale=v, order=order), expected), (a, b)


@pytest.mark.parametrize("order", ["reciprocal", "input"])
@pytest.mark.parametrize("kind", [FLOAT16, BFLOAT16], ids=str)
def test_subnormal_numbers_are_divided(kind: np.dtype, order: str) -> None:
    """All subnormal numbers of 16 bits divided by each other, and by some others and they by them, are rounded once."""
    fmt = get_format(str(kind))
    tiny = np.arange(1, fmt.ordinal(fmt.smallest_normal), dtype=np.uint16).view(kind)
    tiny = tiny[:: 7 if kind == FLOAT16 else 1]
    others = np.concatenate(
        [tiny, np.array([1, 1.5, 3, fmt.max, fmt.smallest_normal]).astype(kind), significands(kind)[::5]]
    )
    for u, v in itertools.chain(itertools.product([tiny], [others]), [(others, tiny)]):
        x, s = (part.ravel() for part in np.meshgrid(u, v))
        assert np.array_equal(encode(x, str(kind), scale=s, order=order), divided(x, s, order, kind))


@pytest.mark.parametrize("kind", [FLOAT16, BFLOAT16], ids=str)
def test_the_division_oracle_is_the_reference(kind: np.dtype) -> None:
    """The oracle of the tests above is what the definition says, for numbers of all sizes."""
    random = np.random.default_rng(1)
    top = get_format(str(kind)).inf_code
    for order in ("divide", "reciprocal", "input"):
        x, s = random.integers(1, top, (2, 2000), np.uint16).view(kind)
        exact = [reference.scaled(a, b, order, str(kind)) for a, b in zip(floats(x), floats(s), strict=True)]
        assert divided(x, s, order, kind).tolist() == [reference.encode(value, str(kind)) for value in exact]


SCALED = ["e4m3", "e5m2", "int8", "e4m3fnuz", "e5m3fnu", "Q3.4", "nf4", "e8m0", "ternary", "cfloat8_1_4_3_half"]
SOME_SCALES = [1.0, 2.0, 3.0, 0.1, 7e-5, 2.0**-14, 1000.0, 6e4, 0.3333]


def awkward(kind: np.dtype) -> np.ndarray:
    """Return numbers of all sizes, subnormal and largest ones, both zeros, infinities and NaN."""
    fmt = get_format(str(kind))
    ends = np.array([fmt.smallest_subnormal, fmt.smallest_normal, fmt.max, 0.0, math.inf, math.nan, 1.0, 0.3]).astype(
        kind
    )
    return np.concatenate([numbers(24, kind), ends, -ends, numbers(6, kind) * kind.type(fmt.smallest_normal)])


@pytest.mark.in_part(3)
@every_kind
@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("name", SCALED)
def test_every_order(name: str, order: str, kind: np.dtype) -> None:
    """The code is that of what the definition divides, by the named order; the value is multiplied back in the type of x.

    One scale for all, and one for each element; infinities, NaN and zeros pass through as they are.
    """
    fmt, x = get_format(name), awkward(kind)
    if order == "exact" and (not isinstance(fmt, Grid) or fmt.gap):
        with pytest.raises(InputError, match="order = 'exact' divides to 53 bits, too few"):
            encode(x, fmt, scale=3.0, order=order)
        return
    number = scale_kind(kind, order)
    each = np.resize(np.array(SOME_SCALES, number), x.shape)
    for scale in (3.0, 2.0**-14, each):
        s = floats(np.broadcast_to(np.array(scale, number), x.shape))
        divided = [reference.scaled(a, b, order, str(kind)) for a, b in zip(floats(x), s, strict=True)]
        for mode in ("RNE", "RUP"):
            for rule in saturations(fmt):
                if order == "exact" and rule is Saturation.wrap:
                    continue
                codes = encode(x, fmt, mode, scale=scale, order=order, saturation=rule)
                # An exact quotient that is a fraction has lost the sign of a zero, which scaled() keeps.
                expected = [reference.encode(value, fmt, mode, saturation=rule) for value in divided]
                assert codes.tolist() == expected
                if held(kind, fmt):
                    clamped = rule in (Saturation.SatFinite, Saturation.InfNaN, Saturation.saturate)
                    values = [
                        product(fmt.decode(c), b, kind, clamped=clamped) for c, b in zip(expected, s, strict=True)
                    ]
                    y = quantize(x, fmt, mode, scale=scale, order=order, saturation=rule)
                    assert y.dtype == kind
                    assert identical(y, values)


@settings(max_examples=200)
@given(st.data())
def test_any_number_any_scale(data: st.DataObject) -> None:
    """Any number of any type, divided by any scale in any order, rounds as the definition says, to any format and mode."""
    kind = data.draw(st.sampled_from(KINDS))
    fmt = data.draw(
        st.sampled_from([*CATALOGUE, *P3109]).filter(lambda f: CARRIERS[FLOAT64].holds(f) or f.kind == "table")
    )
    order, mode = data.draw(st.sampled_from([*ORDERS])), data.draw(st.sampled_from([*Mode]))
    x = np.array(data.draw(st.lists(inputs(fmt, kind), min_size=1, max_size=6)), kind)
    number = scale_kind(kind, order)
    positive = patterns(number).map(abs).filter(lambda s: 0 < float(s) < math.inf)
    s = np.array(data.draw(st.lists(positive, min_size=x.size, max_size=x.size)), number)
    rounding: dict[str, Any] = {}
    if mode is Mode.THR:
        rounding = {"eps": data.draw(st.integers(0, 255)) / 256}
    elif mode.stochastic:
        n = (64 if kind == FLOAT64 else 32) if mode is Mode.SR else data.draw(st.integers(1, 32))
        rounding = {"sr_bits": n, "rbits": np.array(data.draw(st.integers(0, (1 << n) - 1)), np.uint64)}
    try:
        codes = encode(x, fmt, mode, scale=s, order=order, **rounding)
    except InputError as refusal:
        bits = rounding.get("sr_bits", 1)
        assert order == "exact"
        assert fmt.kind == "table" or mode is Mode.THR or fmt.man_bits + bits > 48 or fmt.lsb - bits < -1000
        assert "'exact' divides to 53 bits" in str(refusal)  # noqa: PT017
        return
    rounding |= {"rbits": int(rounding["rbits"])} if "rbits" in rounding else {}
    divided = [reference.scaled(a, b, order, str(kind)) for a, b in zip(floats(x), floats(s), strict=True)]
    assert codes.tolist() == [reference.encode(value, fmt, mode, **rounding) for value in divided]
    if held(kind, fmt):
        rule = saturations(fmt)[0]
        finite = rule in (Saturation.SatFinite, Saturation.saturate)
        values = [
            reference.restored(fmt.decode(code), b, str(kind), finite=finite)
            for code, b in zip(codes.tolist(), floats(s), strict=True)
        ]
        rounding |= {"rbits": np.array(rounding["rbits"], np.uint64)} if "rbits" in rounding else {}
        assert identical(quantize(x, fmt, mode, scale=s, order=order, **rounding), values)


@every_kind
def test_the_way_back_is_rounded_once(kind: np.dtype) -> None:
    """The product y s of two numbers of any size is rounded to nearest even in the type of x, once: s has 24 bits or 53."""
    fmt, number = get_format(str(kind)), scale_kind(kind)
    some = significands(kind)[:: 16 if kind == FLOAT16 else 1] if kind.itemsize == 2 else abs(numbers(60, kind))
    scales = 1 + np.random.default_rng(3).random(100)
    for a, b in ((0, 0), (fmt.emin, -1), (fmt.emin + 2, -8), (-fmt.man_bits, fmt.emin + 3)):
        y, s = (part.ravel() for part in np.meshgrid(some, [*exactly(some)[::4], *scales]))
        with np.errstate(under="ignore"):
            y, s = ((exactly(part) * 2.0**e).astype(type_) for part, e, type_ in ((y, a, kind), (s, b, number)))
        y, s = y[s > 0], s[s > 0]
        x = np.array(
            [fl(Fraction(u) * Fraction(v), kind) for u, v in zip(floats(y)[::7], floats(s)[::7], strict=True)], kind
        )
        codes = encode(x, fmt, scale=s[::7])
        expected = [
            product(v, w, kind, clamped=False)
            for v, w in zip(floats(decode(codes, fmt, kind)), floats(s)[::7], strict=True)
        ]
        assert identical(quantize(x, fmt, scale=s[::7]), expected)


def test_scale_of_three() -> None:
    """A worked case: 10 / 3 is 3.3333 and rounds to 3.25, which times 3 is 9.75; a third of 3 is 1 by one order only."""
    assert quantize(np.float32([10]), "e4m3", scale=3).tolist() == [9.75]
    assert decode(encode(np.float32([10]), "e4m3", scale=3), "e4m3").tolist() == [3.25]
    x = np.float32([41])  # 41 fl(1 / 41) is less than 1
    down = {
        order: encode(x, "float32", "RTZ", scale=41, order=order).view(np.float32)[0]
        for order in ("divide", "reciprocal")
    }
    assert down == {"divide": 1, "reciprocal": np.float32(41) * (np.float32(1) / np.float32(41))}
    assert down["reciprocal"] < 1


@every_kind
def test_saturated_results_stay_finite(kind: np.dtype) -> None:
    """Where the rounding saturates, the product with the scale does not overflow either; elsewhere it may."""
    fmt = get_format(str(kind))
    x = np.array([fmt.max, -fmt.max, math.inf, -math.inf]).astype(kind)
    s = fmt.max / 440  # 448 s is beyond the range
    assert floats(quantize(x, "e4m3", scale=s)) == [fmt.max, -fmt.max, fmt.max, -fmt.max]
    assert floats(quantize(x, "e5m2", "RUP", scale=fmt.max / 1.3)) == [
        math.inf,
        product(-1.25, fl(fmt.max / 1.3, scale_kind(kind)), kind, clamped=False),
        math.inf,
        -math.inf,
    ]


def test_wrapping_and_scales() -> None:
    """With a scale, what wraps around is the rounded quotient: 10^20 / 3 as a float64, modulo 256."""
    x = np.array([1e20, -1e20, 400.0, 3e5])
    expected = [round(Fraction(value / 3)) % 256 for value in x.tolist()]
    assert encode(x, "int8", scale=3.0, saturation="wrap").tolist() == expected


@every_kind
def test_the_format_may_be_the_inputs_own(kind: np.dtype) -> None:
    """A rounding to the input's own type with a scale changes nothing but what the division and the product round."""
    x = numbers(200, kind)
    for order in ("divide", "input"):
        s = fl(3.3, scale_kind(kind, order))
        quotients = [reference.scaled(v, s, order, str(kind)) for v in floats(x)]
        expected = [product(fl(v, kind), s, kind, clamped=False) for v in quotients]
        assert identical(quantize(x, str(kind), scale=3.3, order=order), expected)


# --- The exact quotient ----------------------------------------------------------------------------------------------


@every_kind
@pytest.mark.parametrize("name", ["e3m2", "int4", "Binary5p2ue", "e8m0"])
def test_exact_quotients_with_every_word(name: str, kind: np.dtype) -> None:
    """In the order "exact" the true quotient, a fraction, is rounded once: every mode, and words of 0 to 5 bits, all."""
    fmt = get_format(name)
    x = np.array([1, 5, 7, -1, -3, 22, 1e-3, -0.0, 0.0]).astype(kind)
    for scale in (3.0, 0.1):
        s = Fraction(fl(scale, scale_kind(kind)))
        exact = [Fraction(value) / s if value else value for value in floats(x)]
        for mode in Mode:
            if mode is Mode.THR or mode.stochastic:
                continue
            codes = encode(x, fmt, mode, scale=scale, order="exact")
            assert codes.tolist() == [reference.encode(value, fmt, mode) for value in exact]
        for mode in (*LIMITED, Mode.SRE):
            for n in range(mode is Mode.SRE, 6):
                for r in range(1 << n):
                    codes = encode(x, fmt, mode, scale=scale, order="exact", sr_bits=n, rbits=r)
                    expected = [reference.encode(value, fmt, mode, sr_bits=n, rbits=r) for value in exact]
                    assert codes.tolist() == expected, (mode, n, r)


def test_exact_quotients_are_unbiased() -> None:
    """Over all words, 2^N times the mean of SRA is the true quotient's fraction, cut to N bits: 1/3 is 85/256 at N = 8."""
    codes = [
        int(encode(np.float32([1]), "int8", "SRA", scale=3.0, order="exact", sr_bits=8, rbits=r)[0]) for r in range(256)
    ]
    assert sum(codes) == 85
    cut = [
        int(encode(np.float16([1]), "int8", "SRA", scale=3.0, order="input", sr_bits=20, rbits=(1 << 20) - r)[0])
        for r in (349440, 349441)
    ]
    assert cut == [1, 0]  # fl(1 / 3) in float16 is 0.333251953125, which is 349440 / 2^20


@pytest.mark.parametrize("mode", ["RNE", "SRA", "SRB", "SRC"])
def test_the_most_bits_of_exact_quotients(mode: str) -> None:
    """As many random bits as the 53 of the division allow are right, where the number turns; one more is refused."""
    refused = 0
    for fmt in (get_format("e4m3"), get_format("int16"), get_format("e5m2")):
        x, scale = np.array([1.0, 5.0, -10.0, 2.0**-9, 33.0]), 3.0
        for n in [1] if mode == "RNE" else range(34, 52):
            stated = {} if mode == "RNE" else {"sr_bits": n}
            for step in (-1, 0, 1):
                nus = [fmt.split(Fraction(value) / 3)[1] for value in x.tolist()]
                rbits = [min(max((1 << n) - math.floor(nu * (1 << n)) + step, 0), (1 << n) - 1) for nu in nus]
                words = {} if mode == "RNE" else {"rbits": np.array(rbits, np.uint64)}
                try:
                    codes = encode(x, fmt, mode, scale=scale, order="exact", **stated, **words)
                except InputError:
                    refused += 1
                    assert fmt.man_bits + n > 49
                    continue
                each = [{} if mode == "RNE" else {"sr_bits": n, "rbits": r} for r in rbits]
                exact = [Fraction(value) / 3 for value in x.tolist()]
                expected = [reference.encode(value, fmt, mode, **one) for value, one in zip(exact, each, strict=True)]
                assert codes.tolist() == expected
    assert (refused > 0) == (mode != "RNE")
