"""Elementwise operations: exactly computed, rounded once, and the exceptions that go with it."""

from __future__ import annotations

import itertools
import math
from fractions import Fraction

import numpy as np
import pytest

import qsim
from qsim import InputError, Key, Quantizer
from qsim import reference as rounding
from qsim.arrays import random_words
from qsim.dot import add, div, elementwise, fma, mul, reference, sqrt, sub
from qsim.formats import get_format

BINARY = {"add": add, "sub": sub, "mul": mul, "div": div}


def same(x: np.ndarray, y: np.ndarray) -> bool:
    """Return whether two arrays hold the same numbers, zeros by their sign."""
    signs = np.signbit(x) == np.signbit(y)
    return np.array_equal(x, y, equal_nan=True) and bool((signs | np.isnan(x)).all())


def exactly(name: str, x: float, y: float) -> Fraction | float:
    """Return x o y by Python's fractions, or what IEEE 754 says of zeros, infinities and NaN, by float64."""
    if name == "div" and not y and math.isfinite(x):
        return (
            math.nan if not x or math.isnan(x) else math.copysign(math.inf, math.copysign(1, x) * math.copysign(1, y))
        )
    if not (math.isfinite(x) and math.isfinite(y)):
        with np.errstate(all="ignore"):
            numbers = np.float64(x), np.float64(y)
            return float({"add": np.add, "sub": np.subtract, "mul": np.multiply, "div": np.divide}[name](*numbers))
    u, v = Fraction(x), Fraction(y)
    exact = {"add": u + v, "sub": u - v, "mul": u * v}.get(name) if name != "div" else u / v
    if exact:
        return exact
    if name in {"mul", "div"}:
        return math.copysign(0.0, math.copysign(1, x) * math.copysign(1, y))
    return x + y if name == "add" else x - y  # of zeros; what cancels is +0


def table(name: str, fmt: str, target: str, mode: str) -> None:
    """Hold one operation over all pairs of codes of an 8-bit format to exact rationals."""
    values = get_format(fmt).values()
    found = BINARY[name](values[:, None], values[None, :], f"{target}:{mode}")
    known: dict[object, float] = {}
    for i, x in enumerate(values.tolist()):
        for j, y in enumerate(values.tolist()):
            exact = exactly(name, x, y)
            if isinstance(exact, float) and not exact and mode == "RDN" and name in {"add", "sub"}:
                z = y if name == "add" else -y
                exact = 0.0 if math.copysign(1, x) > 0 < math.copysign(1, z) else -0.0
            key = (exact.numerator, exact.denominator) if isinstance(exact, Fraction) else str(exact)
            if key not in known:
                known[key] = rounding.quantize(exact, target, mode)
            wanted = known[key]
            got = float(found[i, j])
            alike = got == wanted and math.copysign(1, got) == math.copysign(1, wanted)
            assert alike or (math.isnan(got) and math.isnan(wanted)), (name, x, y, got, wanted)


TABLES = [
    (name, fmt, target, mode)
    for name in BINARY
    for fmt, target in (
        ("float8_e4m3fn", "float8_e4m3fn"), ("float8_e5m2", "float8_e5m2"), ("float8_e5m2", "float8_e4m3fnuz"),
        ("float8_e4m3fnuz", "float8_e4m3fnuz"), ("Binary8p3se", "Binary8p3se"), ("int8", "int8"), ("float8_e4m3fn", "bfloat16"),
        ("Q3.4", "Q3.4"), ("posit8", "float8_e4m3fn"),
    )
    for mode in ("RNE", "RTZ", "RDN", "RTO", "RNA")
]  # fmt: skip


@pytest.mark.in_part(90)
@pytest.mark.parametrize(("name", "fmt", "target", "mode"), TABLES)
def test_all_pairs_of_8_bits(name: str, fmt: str, target: str, mode: str) -> None:
    """Each operation on every pair of codes is the exact rational, rounded once, with IEEE 754's zeros, infinities and NaN."""
    table(name, fmt, target, mode)


@pytest.mark.parametrize("fmt", ["float8_e4m3fn", "float8_e5m2", "Binary8p3se", "float16"])
@pytest.mark.parametrize("mode", ["RNE", "RUP"])
def test_square_roots(fmt: str, mode: str) -> None:
    """The square root of every code is the nearest value, or the next one above: by squares of the neighbours' midpoint."""
    values = get_format(fmt).values()
    if fmt == "float16":
        values = values[:: 7 if mode == "RNE" else 11]
    found = sqrt(values, f"{fmt}:{mode}")
    form = get_format(fmt)
    for x, y in zip(values.tolist(), found.tolist(), strict=True):
        if not x > 0 or math.isinf(x):
            wanted = x if x in {0, math.inf} else math.nan
            assert (math.isnan(y) and math.isnan(wanted)) or (
                y == wanted and math.copysign(1, y) == math.copysign(1, x)
            )
            continue
        ordinal = form.ordinal(y)
        below, at, above = (form.value(ordinal + step) for step in (-1, 0, 1))
        if mode == "RUP":
            assert below**2 < x <= at**2
        else:
            assert ((below + at) / 2) ** 2 <= x <= ((at + above) / 2) ** 2


def test_fused_multiply_add() -> None:
    """X y + z rounds once: over all triples of FP4 to FP4 and FP8, and where two roundings would differ."""
    v = get_format("float4_e2m1fn").values()
    for target, mode in (("float4_e2m1fn", "RNE"), ("float8_e5m2", "RDN")):
        found = fma(v[:, None, None], v[None, :, None], v[None, None, :], f"{target}:{mode}")
        for (i, x), (j, y), (k, z) in itertools.product(*(enumerate(v.tolist()) for _ in range(3))):
            product = x * y  # exact, signed zeros too
            exact = Fraction(product) + Fraction(z)
            number = exact or (
                -0.0 if mode == "RDN" and not math.copysign(1, product) > 0 < math.copysign(1, z) else product + z
            )
            assert same(found[i, j, k], np.float64(rounding.quantize(number, target, mode))), (x, y, z)
    rng = np.random.default_rng(0)
    x, y, z = (np.float32(rng.standard_normal(500)) for _ in range(3))
    rest = [
        Fraction(a) * Fraction(b) - Fraction(c) for a, b, c in zip(*(v.tolist() for v in (x, y, x * y)), strict=True)
    ]
    assert (fma(x, y, -(x * y), "float32:RNE") == np.array([float(exact) for exact in rest])).all()
    assert (fma(x, y, z, "float32:RNE") != np.float32(np.float32(x * y) + z)).any()


def test_every_number_of_binary16() -> None:
    """With one operand any number of binary16, and some others, operations are NumPy's, whose float32 rounds innocuously."""
    x = np.arange(1 << 16, dtype=np.uint16).view(np.float16)
    for y in np.array([1, -3, 0.1, 6e-8, 6.1e-5, 65504, 0, np.inf, 1.0009765625], np.float16):
        with np.errstate(all="ignore"):
            for found, wanted in (
                (add(x, y, "float16"), x + y), (sub(y, x, "float16"), y - x), (mul(x, y, "float16"), x * y),
                (div(x, y, "float16"), x / y), (div(y, x, "float16"), y / x), (sqrt(x, "float16"), np.sqrt(x)),
            ):  # fmt: skip
                assert same(found, wanted.astype(np.float32))


def test_float32_and_float64_are_the_processors() -> None:
    """With operands and results in float32, and in float64, all operations to nearest even are those of the processor."""
    rng = np.random.default_rng(1)
    for dtype, count in ((np.float32, 3000), (np.float64, 300)):
        x = (rng.standard_normal(count) * 2.0 ** rng.integers(-140, 120, count)).astype(dtype)
        y = (rng.standard_normal(count) * 2.0 ** rng.integers(-140, 120, count)).astype(dtype)
        near = (x * dtype(1 + 2**-12)).astype(dtype)
        name = f"{np.dtype(dtype).name}:RNE"
        with np.errstate(all="ignore"):
            for found, wanted in (
                (add(x, y, name), x + y), (sub(x, near, name), x - near), (mul(x, y, name), x * y), (div(x, y, name), x / y),
                (sqrt(np.abs(x), name), np.sqrt(np.abs(x))),
            ):  # fmt: skip
                assert found.dtype == dtype
                assert same(found, wanted)


@pytest.mark.parametrize("mode", ["SR", "SRA(5)", "SRC(8)", "SRB(3)"])
def test_random_words(mode: str) -> None:
    """Element i takes the top N bits of word i + offset of the key; odd numbers and the reference agree."""
    rng = np.random.default_rng(2)
    x, y = (rng.choice(get_format("float16").values()[:0x7C00], 300) for _ in range(2))
    key = Key(3, 4, 17)
    words = random_words(key, 300)
    for target in ("bfloat16", "float32", "float8_e5m2"):  # float32 with 32 bits by the reference
        q = Quantizer.parse(f"{target}:{mode}")
        found = sub(x, y, q, key=key)
        wanted = [
            reference.rounded(Fraction(u) - Fraction(v) or 0.0, q, int(w))
            for u, v, w in zip(x.tolist(), y.tolist(), words, strict=True)
        ]
        assert (found == np.array(wanted)).all()
    with pytest.raises(InputError, match="give key"):
        add(x, y, f"bfloat16:{mode}")


# --- Exceptions ------------------------------------------------------------------------------------------------


def test_exceptions_of_all_pairs() -> None:
    """The flags of every pair of E5M2 follow from the exact result, and those of float32 are the processor's."""
    values = get_format("float8_e5m2").values()[::3]
    q = Quantizer("float8_e5m2")
    largest, tiny = Fraction(57344), Fraction(q.format.smallest_normal)
    for name, operation in BINARY.items():
        result, flags = operation(values[:, None], values[None, :], q, flags=True)
        for (i, x), (j, y) in itertools.product(enumerate(values.tolist()), enumerate(values.tolist())):
            exact = exactly(name, x, y)
            zero = name == "div" and y == 0 and x != 0 and math.isfinite(x)
            invalid = isinstance(exact, float) and math.isnan(exact) and not (math.isnan(x) or math.isnan(y))
            size = abs(exact) if isinstance(exact, Fraction) else Fraction(0)
            over = size >= largest + Fraction(4096)  # half of the step to 65536, a tie that goes out
            inexact = isinstance(exact, Fraction) and (over or exact != Fraction(float(result[i, j])))
            # Rounded to three bits, it is below 2^-14: so it is below 2^-14 (1 - 2^-4), the last tie.
            under = inexact and not over and size < tiny * (1 - Fraction(1, 16))
            got = [
                bool(getattr(flags, flag)[i, j])
                for flag in ("inexact", "underflow", "overflow", "div_by_zero", "invalid")
            ]
            assert got == [inexact, under, over, zero, invalid], (name, x, y)


def test_exceptions_where_the_range_saturates_and_modes_point_inward() -> None:
    """An overflow is told from the largest value whatever becomes of it, in every mode, by the reference too."""
    for mode, over in (
        ("RNE", [False, False, True, True]),
        ("RTZ", [False, False, False, True]),
        ("RUP", [False, True, True, True]),
    ):
        x = np.array([448.0, 449.0, 464.0001, 480.0])
        _, flags = add(x, 0.0, f"float8_e4m3fn:{mode}", flags=True)
        assert flags.overflow.tolist() == over
        assert flags.inexact.tolist() == [False, True, True, True]
        _, slow = add(x.astype(np.float64) * (1 + 2.0**-52), 0.0, f"float8_e4m3fn:{mode}", flags=True)
        assert slow.overflow.tolist()[1:] == over[1:]
    _, flags = div([1.0, 0.0, -1.0], [0.0, 0.0, 3.0], "int8", flags=True)
    assert flags.div_by_zero.tolist() == [True, False, False]
    assert flags.invalid.tolist() == [False, True, False]
    assert flags.underflow.tolist() == [False] * 3
    assert flags.inexact.tolist() == [False, False, True]


# --- Arrays ----------------------------------------------------------------------------------------------------


def test_operators_round() -> None:
    """`+ - * / @`, sums and means of an array are those operations, rounded each; numbers beside it are rounded first."""
    rng = np.random.default_rng(4)
    q = Quantizer("float8_e4m3fn")
    x, y = qsim.fparray(rng.standard_normal((3, 4)), q), qsim.fparray(rng.standard_normal((3, 4)), "float8_e4m3fn:RNE")
    for found, wanted in (
        (x + y, add(x, y, q)), (x - y, sub(x, y, q)), (x * y, mul(x, y, q)), (x / y, div(x, y, q)),
        (1.1 - x, sub(qsim.quantize(1.1, q), x, q)), (x + 1.1, add(x, qsim.quantize(1.1, q), q)), (2 / x, div(2, x, q)),
        (np.float32(3) * x, mul(x, 3, q)), (x @ y[:2].values.T, qsim.dot.matmul(x, y.values[:2].T, q).values),
        (abs(x).sqrt(), sqrt(np.abs(x.values), q)), (-x, -x.values),
    ):  # fmt: skip
        assert same(found.values, np.asarray(wanted))
        assert found.format is q.format
        assert (qsim.encode(found.values, q) == found.codes).all()
    total = 0.0
    for value in x.values.ravel().tolist():
        total = rounding.quantize(Fraction(total) + Fraction(value), q.format)
    assert x.sum().values == total
    assert x.mean().values == rounding.quantize(Fraction(total) / 12, q.format)
    assert x.sum(axis=0).shape == (4,)
    assert x.dot(y[0]).shape == (3,)
    assert (x[0] @ y[0]).values == qsim.dot.matmul(x.values[:1], y.values[:1].T, q).values[0, 0]
    assert (np.asarray(x) == x.values).all()
    assert (x == qsim.fparray(x, q)).all()
    assert len(x) == 3
    assert repr(qsim.fparray([1.0], "bfloat16")).startswith("fparray([1.]")
    assert (x.astype("float8_e5m2").values == qsim.quantize(x.values, "float8_e5m2")).all()
    for call, sentence in (
        (lambda: x + x.astype("float8_e5m2"), "astype makes them alike"),
        (lambda: qsim.fparray(1.0, "bfloat16:SR"), "take a key"),
        (lambda: x @ 3, "no single numbers"), (lambda: add("a", 1, q), "real numbers"),
        (lambda: add(1, 1, Quantizer("int8", scale=2.0)), "has no scale"),
    ):  # fmt: skip
        with pytest.raises(InputError, match=sentence):
            call()


def test_what_is_lost_beyond_53_bits_counts() -> None:
    """A sum next to a tie, or to a value, by less than float64 sees, rounds as the exact one; so do quotients and roots."""
    tie, step = 1 + 2.0**-8, 2.0**-7
    for small, wanted in ((2.0**-60, 1 + step), (-(2.0**-60), 1.0), (0.0, 1.0)):
        assert add(tie, small, "bfloat16:RNE") == wanted
        assert add(-tie, -small, "bfloat16:RNE") == -wanted
        assert fma(tie, 1.0, small, "bfloat16:RNE") == wanted
        assert add(1.0, small, "bfloat16:RUP") == (1 + step if small > 0 else 1.0)
        assert add(1.0, small, "bfloat16:RDN") == (1 - step / 2 if small < 0 else 1.0)
        found = qsim.dot.matmul([[1.0]], [[small]], "bfloat16:RNA", c=[[tie]]).values
        assert found == (wanted if small else 1 + step)
    assert div(np.float32(1 + 2.0**-20), 1.0, "bfloat16:RUP") == 1 + step
    assert sqrt(np.float32(1 + 2.0**-20), "bfloat16:RUP") == 1 + step


def test_odd_numbers() -> None:
    """The exact result lies between an odd number and its neighbours, and is itself unless its last bit is set."""
    rng = np.random.default_rng(5)
    x, y = (
        rng.standard_normal(400).astype(np.float32).astype(float) * 2.0 ** rng.integers(-60, 60, 400) for _ in range(2)
    )
    for odd, exact in (
        (elementwise.odd_sum(x, y), [Fraction(u) + Fraction(v) for u, v in zip(x.tolist(), y.tolist(), strict=True)]),
        (
            elementwise.odd_quotient(x, y),
            [Fraction(u) / Fraction(v) for u, v in zip(x.tolist(), y.tolist(), strict=True)],
        ),
    ):
        for found, number in zip(odd.tolist(), exact, strict=True):
            if Fraction(found) != number:
                assert abs(Fraction(found) - number) < abs(number) / 2**37
    roots = elementwise.odd_root(np.abs(x))
    for found, number in zip(roots.tolist(), np.abs(x).tolist(), strict=True):
        assert Fraction(found) ** 2 == number or abs(Fraction(found) ** 2 - Fraction(number)) < Fraction(number) / 2**29
