"""What several tests try: formats, types, floats of every pattern, thresholds and words, as lists and as strategies."""

from __future__ import annotations

import functools
import importlib.metadata
import math
from collections.abc import Callable, Iterable, Iterator
from fractions import Fraction

import ml_dtypes
import numpy as np
import pytest
from hypothesis import strategies as st

from qsim.errors import InputError
from qsim.formats import SUFFIX, Format, Grid, Table, catalogue, float_format, get_format, table_format
from qsim.kernels.parameters import CARRIERS

FLOAT16, BFLOAT16, FLOAT32, FLOAT64 = map(np.dtype, (np.float16, ml_dtypes.bfloat16, np.float32, np.float64))
KINDS = [FLOAT16, BFLOAT16, FLOAT32, FLOAT64]
"""The types of numbers that arrays have."""

ML_DTYPES = tuple(map(int, importlib.metadata.version("ml_dtypes").split(".")[:2]))
"""The version of ml_dtypes at hand; 0.7 converts otherwise to E8M0 and to integers, and from float64."""

every_kind = pytest.mark.parametrize("kind", KINDS, ids=str)
both_kinds = pytest.mark.parametrize("kind", [FLOAT16, BFLOAT16], ids=str)
both_carriers = pytest.mark.parametrize("carrier", [FLOAT32, FLOAT64], ids=str)

# --- Formats ---------------------------------------------------------------------------------------------------------

P3109_FAMILY = get_format("Binary8p4se").family


def _spellings(unsigned: str = "") -> list[Format]:
    """Return the formats of all spellings eXmY of up to 16 bits that can exist and have no name of their own."""
    found = {}
    for exp_bits in range(1, 12):
        for man_bits in range(16 - exp_bits):
            for letters in SUFFIX:
                bits = (not unsigned) + exp_bits + man_bits
                try:
                    fmt = get_format(f"float{bits}_e{exp_bits}m{man_bits}{letters}{unsigned}")
                except InputError:
                    continue
                found[fmt.name] = fmt
    return [fmt for name, fmt in found.items() if name not in catalogue()]


CATALOGUE = [fmt for fmt in catalogue().values() if fmt.family != P3109_FAMILY]
"""The named formats, but for the family of P3109."""
NAMED = [fmt for fmt in CATALOGUE if fmt.bits <= 16]
"""Those of up to 16 bits."""
P3109 = [fmt for fmt in catalogue().values() if fmt.family == P3109_FAMILY and fmt.bits <= 8]
"""The formats of P3109 of up to 8 bits."""
WIDE_P3109 = [fmt for fmt in catalogue().values() if fmt.family == P3109_FAMILY and fmt.bits > 8]
"""Those of 9 to 16 bits."""
INTEGERS = [fmt for fmt in CATALOGUE if fmt.family == "int{bits}"]
PARAMETRIC = _spellings()
UNSIGNED = _spellings("u")
BIASED = [*map(get_format, ("e4m3b11f", "e4m3b20fn", "e3m2b-3fnuz", "e2m3b9", "e5m2b0fu", "e4m0b30fnu", "e3m4b126fn"))]
"""Spellings with a bias, one so large that float32 holds the values as subnormal numbers."""
FIXED = [*map(get_format, ("Q3.4", "Q0.7", "Q2.1", "Q7.8", "Q0.31", "UQ0.8", "UQ2.3", "UQ8.8", "UQ0.1"))]
TABLES = [
    *(fmt for fmt in CATALOGUE if isinstance(fmt, Table)),
    table_format("shuffled", [0.5, -3.0, 0.0, 1e6, -0.03], "a test", codes=[3, 0, 6, 5, 1]),
    table_format("open ends", [-1.0, 0.0, 1.0], "a test", above=2.5, below=-7.0),
    table_format("positive", [0.25, 0.5, 4.0, float("nan")], "a test", above=8.0, zero_to="nan"),
    table_format("all below zero", [-2.0, -1.0, -0.125], "a test", bits=5, zero_to="min"),
    table_format("neighbours", [1.0, 1 + 2.0**-52, 1 + 2.0**-51, 0.9], "a test", nan_to="max"),
]
"""The named tables; codes in any order; lines that go on; without zero; on one side of it; of neighbouring floats."""
FAR_TABLES = [table_format("far", [0.5, -3.0, 0.0, 1e30, -1e-30, 5e-324], "a test", codes=[3, 0, 6, 5, 1, 4])]
"""Tables with neighbours of very different magnitude: only the reference rounds to them."""
GAPPED = [
    get_format("dlfloat16"),
    get_format("cfloat8_1_4_3_half"),
    float_format("e3m2 normal", 3, 2, "fn", "a test", subnormals="normal"),
    float_format("e3m2 half", 3, 2, "ieee", "a test", subnormals="half"),
    float_format("e2m3u normal", 2, 3, "f", "a test", subnormals="normal", signed=False),
]
"""Formats whose lowest binade is not gradual."""
EXTENDED = [
    float_format("e3m2 extended", 3, 2, "extended", "a test", bias=2),
    float_format("e3m2u extended", 3, 2, "extended", "a test", bias=6, signed=False),
    float_format("e4m0u extended", 4, 0, "extended", "a test", bias=5, signed=False),
    float_format("e4m0u extended without zero", 4, 0, "extended", "a test", bias=5, signed=False, zero=False),
]
"""Formats like the extended ones of P3109, with other biases, and one without a zero."""
_SPELLED = (
    "e4m2fn", "e4m1fn", "e4m0fn", "e2m3fnuz", "e5m0fn", "e4m2", "e3m0f", "e1m2fn", "e2m2fnuz",
    "e3m3u", "e4m0fu", "e3m2fnu", "e3m0fnu", "e4m2b3fn", "e5m0b9fnuz", "Q3.4", "Q0.5", "UQ2.3",
)  # fmt: skip
SMALL = [
    *(fmt for fmt in CATALOGUE if fmt.bits <= 8),
    *map(get_format, _SPELLED),
    *(fmt for fmt in (*TABLES, *GAPPED, *EXTENDED) if fmt.bits <= 8 and fmt.name not in catalogue()),
]
"""Formats of up to 8 bits: the named ones, and others with every kind of special values and of line; none twice or of P3109."""

assert len({fmt.name for fmt in SMALL}) == len(SMALL)

TOO_FAR = {"shuffled", "neighbours"}
"""Tables whose values are too far apart for the kernels."""
ROUNDED = [fmt for fmt in SMALL if fmt.name not in TOO_FAR]
"""The small formats, but for these."""


@st.composite
def any_floats(draw: st.DrawFn) -> Grid:
    """Return a float format of up to 16 bits: any exponent and mantissa bits, bias and policy for special values."""
    exp_bits = draw(st.integers(1, 11))
    man_bits = draw(st.integers(0, 15 - exp_bits))
    signed, specials = draw(st.booleans()), draw(st.sampled_from(["ieee", "fn", "fnuz", "f", "extended"]))
    zero = signed or man_bits > 0 or draw(st.booleans())
    subnormals = draw(st.sampled_from(["gradual"] * 3 + ["normal", "half"])) if man_bits else "gradual"
    nan_to, negative_to, zero_to = (draw(st.sampled_from([None, *words])) for words in WORDS)
    usual = 1 << (exp_bits - 1)
    bias = draw(st.one_of(st.none(), st.integers(usual - 60, usual + 60)))
    words = {
        "nan_to": nan_to,
        "negative_to": None if signed else negative_to,
        "zero_to": None if zero else zero_to,
    }
    name = f"drawn e{exp_bits}m{man_bits}b{bias} {specials} {signed=} {zero=} {subnormals}"
    try:
        return float_format(
            name,
            exp_bits,
            man_bits,
            specials,
            "a test",
            bias=bias,
            signed=signed,
            zero=zero,
            subnormals=subnormals,
            **words,
        )
    except InputError:  # these fields contradict each other; this one exists for all
        return float_format(name, exp_bits, man_bits + 1, "f", "a test", bias=bias)


WORDS = (("max", "zero"), ("min",), ("min", "max"))
"""What a NaN, a negative number and 0 may become, in most formats that do not hold them."""


@functools.cache
def held(carrier: np.dtype, fmt: Format) -> bool:
    """Return whether every value of `fmt` is a number of `carrier`, by its values at the ends and of most digits."""
    number = get_format(carrier.name)
    if isinstance(fmt, Table):
        values = [Fraction(value) for value in fmt.points]
    else:
        whole = 1 << fmt.man_bits
        inner = [
            n for n in (1, whole - 1, whole, 2 * whole - 1, fmt.gap_at, fmt.gap_at + 1, fmt.top - 1) if 0 < n < fmt.top
        ]
        values = [fmt.value(ordinal) for ordinal in (*inner, fmt.top, -fmt.bottom)]
    return all(abs(value) <= number.max and not number.split(value)[1] for value in values)


def by_list(fmt: Format) -> bool:
    """Return whether arrays are rounded to a format by a list of its values, if at all: the core does not round to it.

    It is a table or has a gap, or some of its values are no normal numbers of float64.
    """
    return isinstance(fmt, Table) or bool(fmt.gap) or not CARRIERS[FLOAT64].holds(fmt)


def taken(fmt: Format) -> bool:
    """Return whether arrays can be rounded to a format at all: by the core, or by a list, which has at most 16 bits."""
    in_full = isinstance(fmt, Table) or bool(fmt.gap) or CARRIERS[FLOAT64].holds(fmt)
    return in_full or (fmt.bits <= 16 and fmt.has_zero and held(FLOAT64, fmt))


def rounded_in(carrier: np.dtype, fmt: Format) -> bool:
    """Return whether numbers of `carrier` can be rounded to values of `fmt`: it holds them, and arrays take the format."""
    return held(carrier, fmt) and taken(fmt)


_GROUPS = {
    "floats": [fmt for fmt in CATALOGUE if fmt.kind == "float"],
    "integers": [*FIXED, *(fmt for fmt in CATALOGUE if fmt.kind == "integer")],
    "spelled": PARAMETRIC,
    "unsigned": [*UNSIGNED, *BIASED, *EXTENDED],
    "P3109": P3109,
    "lines": [*TABLES, *GAPPED],
}


@functools.cache
def formats(carrier: np.dtype = FLOAT64) -> st.SearchStrategy[Format]:
    """Return any format that numbers of `carrier` can be rounded to: of every kind, named, spelled and drawn."""
    groups = ([fmt for fmt in group if rounded_in(carrier, fmt)] for group in _GROUPS.values())
    drawn = any_floats().filter(lambda fmt: rounded_in(carrier, fmt))
    return st.one_of(*map(st.sampled_from, groups), drawn)


@functools.cache
def core_formats(carrier: np.dtype = FLOAT64) -> st.SearchStrategy[Grid]:
    """Return any format that the core itself rounds to in `carrier`, a type of 32 or 64 bits: no table and no gap."""
    groups = ([fmt for fmt in group if CARRIERS[carrier].holds(fmt)] for group in _GROUPS.values())
    drawn = any_floats().filter(CARRIERS[carrier].holds)
    return st.one_of(*(st.sampled_from(group) for group in groups if group), drawn)


def drawn_formats() -> st.SearchStrategy[Format]:
    """Return random float formats, and spelled ones, of up to 16 bits; those with a gap of up to 8, other lists of up to 12."""
    floats = any_floats().filter(lambda fmt: not by_list(fmt) or fmt.bits <= (8 if fmt.gap else 12))
    return st.one_of(floats, st.sampled_from([*PARAMETRIC, *P3109, *GAPPED[1:]]))


# --- Numbers and words -----------------------------------------------------------------------------------------------


def words(bits: int) -> st.SearchStrategy[int]:
    """Return any random word of `bits` bits."""
    return st.integers(0, (1 << bits) - 1)


def patterns(carrier: np.dtype) -> st.SearchStrategy[np.generic]:
    """Return a float of any bit pattern: NaNs with payloads, infinities, signed zeros and subnormals included."""
    word = np.dtype(f"u{carrier.itemsize}").type
    return words(8 * carrier.itemsize).map(lambda pattern: word(pattern).view(carrier))


def ordinals(fmt: Format) -> range:
    """Return the ordinals from a step beyond the smallest to a step beyond the largest that are followed by a value."""
    if isinstance(fmt, Table):  # whose line ends where its entry says so
        return range(-fmt.bottom - (fmt.below is not None), fmt.top + (fmt.above is not None))
    return range(-fmt.bottom - 2, fmt.top + 2)


def between(fmt: Format, parts: int, at: Iterable[int] | None = None) -> Iterator[Fraction]:
    """Return the points that divide each interval into `parts`, from the first beyond one end to that beyond the other."""
    for ordinal in ordinals(fmt) if at is None else at:
        low, high = fmt.value(ordinal), fmt.value(ordinal + 1)
        yield from (low + (high - low) * Fraction(k, parts) for k in range(parts))


def nearest_float(value: Fraction) -> float:
    """Return the float64 nearest to `value`; the largest one for what lies beyond it."""
    most = Fraction(np.finfo(np.float64).max)
    return float(max(-most, min(value, most)))


def edges(fmt: Format, kind: np.dtype, most: int = 1 << 12) -> np.ndarray:
    """Return zeros, infinities, NaN, and all (or `most`) values and middles of a format, each with the floats beside it."""
    numbers = ordinals(fmt)
    if numbers.stop - numbers.start > most:
        far = np.unique(np.geomspace(1, fmt.top + 1, most // 2).astype(np.int64)).tolist()
        some = {*far, *(-n for n in far), 0, fmt.top - 1, fmt.top, -fmt.bottom - 1, -fmt.bottom}
        numbers = sorted(n for n in some if n in numbers)
    ends = [(fmt.value(n), fmt.value(n + 1)) for n in numbers]
    at = [nearest_float(value) for low, high in ends for value in (low, high, (low + high) / 2)]
    with np.errstate(over="ignore", under="ignore"):
        near = np.unique(np.array([*at, 0.0]).astype(kind))
        inf = kind.type(np.inf)
        near = np.concatenate([near, np.nextafter(near, inf), np.nextafter(near, -inf), np.array([inf, np.nan], kind)])
    return np.concatenate([near, -near])


def some_numbers(fmt: Format, kind: np.dtype, most: int = 12) -> np.ndarray:
    """Return special values, and numbers at and between some values of a format, as near as the type has them."""
    at = ordinals(fmt)
    step = max(1, (at.stop - at.start) // most)
    ends = [(fmt.value(n), fmt.value(n + 1)) for n in range(at.start, at.stop, step)]
    exact = [low + (high - low) * part for low, high in ends for part in (0, Fraction(1, 2), Fraction(5, 7))]
    found = [nearest_float(value) for value in exact]
    with np.errstate(over="ignore", under="ignore"):
        return np.array([*found, 0.0, -0.0, math.inf, -math.inf, math.nan, -1.5, 1e-40, 7e6]).astype(kind)


def numbers(count: int, kind: np.dtype) -> np.ndarray:
    """Return `count` numbers of all sizes that e4m3 tells apart, most of them between two of its values."""
    random = np.random.default_rng(0)
    return (random.standard_normal(count) * np.exp2(random.integers(-10, 9, count))).astype(kind)


def any_pattern(kind: np.dtype, count: int) -> np.ndarray:
    """Return `count` floats of random bits."""
    return np.frombuffer(np.random.default_rng(2).bytes(count * kind.itemsize), kind)


@st.composite
def near_thresholds(draw: st.DrawFn, fmt: Format, carrier: np.dtype) -> np.generic:
    """Return a value of `fmt`, the middle of an interval or a float next to these, up to a step beyond the range.

    Or its negative, whatever the format is; as near as `carrier` holds it.
    """
    at = ordinals(fmt)
    ordinal = draw(st.integers(at.start, at.stop - 1))
    lower, upper = fmt.value(ordinal), fmt.value(ordinal + 1)
    exact = draw(st.sampled_from([lower, (lower + upper) / 2, upper]))
    steps = draw(st.integers(-1, 1))
    with np.errstate(over="ignore", under="ignore"):  # what lies beyond the largest float is infinity
        value = np.array(nearest_float(exact)).astype(carrier)[()]
        value = np.nextafter(value, carrier.type(steps * np.inf)) if steps else value
    return draw(st.sampled_from([value, -value]))


def inputs(fmt: Format, carrier: np.dtype) -> st.SearchStrategy[np.generic]:
    """Return what a rounding of `carrier` numbers to `fmt` should be tried on."""
    return st.one_of(patterns(carrier), near_thresholds(fmt, carrier))


# --- Layouts of arrays -----------------------------------------------------------------------------------------------


def swapped(x: np.ndarray) -> np.ndarray:
    """Return `x` in the other byte order; bfloat16 has one only."""
    return x if x.dtype == BFLOAT16 else x.astype(x.dtype.newbyteorder())


def read_only(x: np.ndarray) -> np.ndarray:
    """Return `x` as an array that cannot be written."""
    x.flags.writeable = False
    return x


LAYOUTS: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "3-d": lambda x: x.reshape(2, 3, 4),
    "Fortran order": lambda x: np.asfortranarray(x.reshape(4, 6)),
    "transposed": lambda x: x.reshape(2, 3, 4).transpose(1, 2, 0),
    "strided": lambda x: x[1::3],
    "reversed": lambda x: x.reshape(4, 6)[::-1, ::-2],
    "broadcast": lambda x: np.broadcast_to(x[:3], (4, 3)),
    "read-only": read_only,
    "byte-swapped": swapped,
}
"""What may be made of an array of 24 elements."""


# --- A definition of its own -----------------------------------------------------------------------------------------


def posit(code: int, bits: int = 8) -> Fraction | None:
    """Return the value of a posit (es = 2), `None` for NaR: sign, regime, exponent, fraction, as the standard (2022) reads.

    A negative code is decoded as minus its two's complement. A run of k ones (zeros) means the regime k - 1 (-k), which
    counts four binades each; then two exponent bits and the fraction follow, and bits that are cut off are zeros.
    """
    if code == 0:
        return Fraction(0)
    if code == 1 << (bits - 1):
        return None
    if code >> (bits - 1):
        magnitude = posit((1 << bits) - code, bits)
        assert magnitude is not None
        return -magnitude
    digits = f"{code:0{bits - 1}b}"
    run = len(digits) - len(digits.lstrip(digits[0]))
    rest = digits[run + 1 :]
    regime = run - 1 if digits[0] == "1" else -run
    exponent = int(f"{rest[:2]:0<2}", 2)
    fraction = Fraction(int(rest[2:] or "0", 2), 1 << len(rest[2:]))
    return Fraction(2) ** (4 * regime + exponent) * (1 + fraction)
