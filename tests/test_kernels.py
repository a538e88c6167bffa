"""The kernels: the core's rules of writing, random words, and every result against the definition, by enumeration."""

from __future__ import annotations

import ast
import itertools
import math
import re
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

import numba
import numpy as np
import pytest
from covered import covers
from enumeration import Place, codes, exactly, first_word, goes_away, place, sixteen_bits
from hypothesis import given, settings
from hypothesis import strategies as st
from strategies import (
    BFLOAT16,
    FLOAT16,
    FLOAT32,
    FLOAT64,
    GAPPED,
    P3109,
    PARAMETRIC,
    SMALL,
    any_floats,
    held,
    inputs,
    nearest_float,
    ordinals,
    rounded_in,
    words,
)

from qsim import reference
from qsim.arrays import encode, quantize
from qsim.errors import InputError
from qsim.formats import Format, Grid, Table, float_format, get_format, table_format
from qsim.kernels import core, cpu, table
from qsim.kernels.division import divide_all, divide_to_odd
from qsim.kernels.parameters import CARRIERS, parameters, stochastic, thresholds
from qsim.rounding import LIMITED, Mode, Saturation, saturations

both_carriers = pytest.mark.parametrize("carrier", [FLOAT32, FLOAT64], ids=str)
both_kinds = pytest.mark.parametrize("kind", [FLOAT16, BFLOAT16], ids=str)

# --- How the core is written -----------------------------------------------------------------------------------------

WRAPS = {"word", "uint64"}
CALLS = {*WRAPS, "type", "min", "max", "shift", "significand", "discarded", "lost"}
ALLOWED = (
    ast.Assign, ast.Return, ast.Name, ast.Attribute, ast.Tuple, ast.IfExp, ast.Compare, ast.BinOp, ast.UnaryOp,
    ast.Call, ast.Constant, ast.operator, ast.unaryop, ast.cmpop, ast.expr_context,
)  # fmt: skip


def portable(source: str) -> Iterator[ast.stmt]:
    """Return the statements of the functions of `source`, which must all be portable, without their docstrings."""
    for function in ast.parse(source).body:
        if isinstance(function, ast.FunctionDef):
            assert [ast.unparse(decorator) for decorator in function.decorator_list] == ["portable"]
            yield from function.body[1 if ast.get_docstring(function) else 0 :]


def complaints(node: ast.AST, *, wrapped: bool = False) -> Iterator[str]:
    """Say what below `node` one of the core's readers would read in another way; `wrapped`: directly in word(...)."""
    within, wraps = ast.iter_child_nodes(node), False
    match node:
        case ast.For(iter=ast.Call(func=ast.Name(id="range"), args=[ast.Constant(value=int())])):
            within = iter(node.body)
        case ast.Call(func=ast.Name(id=name), keywords=[]) if name in CALLS:
            wraps = name in WRAPS
        case ast.Call():
            yield f"{ast.unparse(node)} is no call that every reader knows"
        case ast.Constant() if type(node.value) is not int:
            yield f"{ast.unparse(node)} is no integer"
        case ast.Constant() if not wrapped:
            yield f"{ast.unparse(node)} has no type"
        case ast.BinOp() | ast.UnaryOp() if not wrapped:
            yield f"{ast.unparse(node)} is not wrapped"
        case _ if not isinstance(node, ALLOWED):
            yield f"{type(node).__name__} is not for the core"
    for child in within:
        yield from complaints(child, wrapped=wraps)


def test_the_core_is_portable() -> None:
    """The core has no statement `if` or `while`, no float, no untyped constant and no unwrapped operation."""
    statements = list(portable(Path(core.__file__).read_text(encoding="utf-8")))
    assert len(statements) > 30
    assert [complaint for statement in statements for complaint in complaints(statement)] == []


@pytest.mark.parametrize(
    ("statement", "problem"),
    [
        ("if a > b: return a", "If is not"),
        ("while a: pass", "While is not"),
        ("a += b", "AugAssign is not"),
        ("return a + b", "a + b is not wrapped"),
        ("return word(a + b >> c)", "a + b is not wrapped"),
        ("return word(min(a + b, c))", "a + b is not wrapped"),
        ("return ~a", "~a is not wrapped"),
        ("return -a", "-a is not wrapped"),
        ("return word(1.0)", "1.0 is no integer"),
        ("return a > 1", "1 has no type"),
        ("return word(a << 1)", "1 has no type"),
        ("for _ in range(n): a = b", "For is not"),
        ("for _ in b: a = b", "For is not"),
        ("for _ in range(10): a = b + c", "b + c is not wrapped"),
        ("for _ in range(10): print(a)", "is no call"),
        ("return math.floor(a)", "is no call"),
        ("return abs(a)", "is no call"),
        ("return [a][0]", "List is not"),
        ("return a[b]", "Subscript is not"),
        ("return a and b", "BoolOp is not"),
        ("return lambda: a", "Lambda is not"),
    ],
)
def test_the_rules_catch(statement: str, problem: str) -> None:
    """Each rule of writing is noticed when it is broken."""
    (parsed,) = portable(f"@portable\ndef f(a, b, c, n):\n    {statement}\n")
    assert any(problem in complaint for complaint in complaints(parsed))


# --- Random words ----------------------------------------------------------------------------------------------------

KNOWN = [
    ((0, 0, 0, 0), (0, 0), (0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8)),
    ((0xFFFFFFFF,) * 4, (0xFFFFFFFF,) * 2, (0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD)),
    (
        (0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344), (0xA4093822, 0x299F31D0),
        (0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1),
    ),
]  # fmt: skip
"""Counter, key and block of philox4x32-10 in Random123's tests/kat_vectors."""


@numba.njit
def compiled_block(c0, c1, c2, c3, k0, k1):
    """Return one block, compiled."""
    return core.philox4x32_10(c0, c1, c2, c3, k0, k1)


@pytest.mark.parametrize("block", [core.philox4x32_10, compiled_block], ids=["python", "compiled"])
@pytest.mark.parametrize(("counter", "key", "answer"), KNOWN, ids=["zeros", "ones", "pi"])
def test_known_answers_of_philox(block, counter, key, answer) -> None:
    """Random123's known answers come out, as Python and as machine code."""
    assert tuple(int(word) for word in block(*map(np.uint64, (*counter, *key)))) == answer


@pytest.mark.parametrize(("counter", "key", "answer"), KNOWN, ids=["zeros", "ones", "pi"])
def test_known_answers_in_an_array(counter, key, answer) -> None:
    """The same answers fill an array: the counter is block number and stream, the key the seed, low halves first."""
    block, stream, seed = (low | high << 32 for low, high in (counter[:2], counter[2:], key))
    words = np.empty(4, np.uint32)
    cpu.fill(words, np.uint64(block), np.uint64(seed), np.uint64(stream))
    assert tuple(words.tolist()) == answer


# --- Every mode against the oracle, and the oracle against the definition --------------------------------------------

DIRECTED = (Mode.RTZ, Mode.RUP, Mode.RDN)
"""The modes whose direction counts beyond the range; the others are all alike there."""

CARRY_BITS = (8, 32)
"""Numbers of random bits whose words are tried where they turn."""


def roundings(mode: Mode, at: Place, bits: tuple[int, ...], width: int) -> Iterator[dict[str, Any]]:
    """Yield the ways to ask for a mode: one; words, for each number the first that takes it away from zero, and the one before.

    Or thresholds: for each number the fraction it has, and a little less; and some numbers.
    """
    if mode is Mode.THR:
        fraction = np.where(at.negative, ~at.word + np.uint64(1), at.word) >> np.uint64(11)  # of 53 bits
        for steps in fraction, fraction - (fraction > 0):
            yield {"eps": np.ldexp(steps.astype(np.float64), -53)}
        for eps in 0.0, 1 / 3:
            yield {"eps": eps}
    elif mode.stochastic:
        some = {Mode.SR: (width,), Mode.SRE: (1, width)}.get(mode, bits)
        for n in some:
            last = np.uint64((1 << n) - 1)
            first = ~at.word + np.uint64(1) if n == 64 else first_word(mode, at, n)
            for r in np.minimum(first, last), np.minimum(first - (first > 0), last):
                yield {"sr_bits": n, "rbits": r}
    else:
        yield {}


def check(fmt: Format, x: np.ndarray, bits: tuple[int, ...], modes: tuple[Mode, ...] = tuple(Mode)) -> None:
    """Hold codes against the oracle, in every mode of `modes` by every rule, with words of `bits` bits where they turn.

    And values, in some modes, or their refusal where the type of `x` does not hold them.
    """
    exact = exactly(x)
    at, width = place(fmt, exact), 8 * max(x.dtype.itemsize, 4)
    for rule in saturations(fmt):
        known = {mode: codes(fmt, rule, mode, exact, at) for mode in (*DIRECTED, Mode.RNE)}
        for mode in modes:
            toward, away = known[mode if mode in DIRECTED else Mode.RNE]
            for rounding in roundings(mode, at, bits, width):
                n, r, eps = (rounding.get(name, 0) for name in ("sr_bits", "rbits", "eps"))
                expected = np.where(goes_away(mode, at, n, r, eps), away, toward)
                got = encode(x, fmt, mode, saturation=rule, **rounding)
                wrong = got != expected
                assert not wrong.any(), (rule, mode, x[wrong][0], got[wrong][0], expected[wrong][0], n, np.ravel(r)[-1])
                if mode in {Mode.RNE, Mode.SR}:
                    check_values(fmt, x, expected, mode, saturation=rule, **rounding)


def check_values(fmt: Format, x: np.ndarray, expected: np.ndarray, mode: Mode, **rounding: Any) -> None:
    """Hold `quantize` against the values of codes: a number of the type of x for each, or one sentence of refusal."""
    if not held(x.dtype, fmt):
        with pytest.raises(InputError, match=f"{x.dtype} cannot hold the values of {re.escape(str(fmt))}; convert"):
            quantize(x[:1], fmt)
        return
    y = quantize(x, fmt, mode, **rounding)
    values = fmt.values()[expected] if fmt.bits <= 16 else fmt.decode_array(expected)
    values = np.where(np.isnan(values), np.nan, values).astype(x.dtype)  # the one NaN that results have
    assert y.dtype == x.dtype
    assert y.tobytes() == values.tobytes()


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


def any_pattern(kind: np.dtype, count: int) -> np.ndarray:
    """Return `count` floats of random bits."""
    return np.frombuffer(np.random.default_rng(2).bytes(count * kind.itemsize), kind)


NUMBERS, CARRY = "all 65,536 float16 and all bfloat16", "at the word of the carry and the one below"
ROUNDED = [fmt for fmt in SMALL if fmt.name not in {"shuffled", "neighbours"}]
"""The small formats, but for two tables whose values are too far apart for the kernels."""


SOME_P3109 = [*map(get_format, ("Binary8p4se", "Binary8p1uf", "Binary8p3sf", "Binary7p5ue", "Binary3p1se"))]
EVERY_RUN = [*ROUNDED, *(fmt for fmt in SOME_P3109 if fmt not in ROUNDED)]


@covers("enumerated", formats=EVERY_RUN, modes=Mode, inputs=f"{NUMBERS}; {CARRY}")
@both_kinds
@pytest.mark.parametrize("fmt", EVERY_RUN, ids=str)
def test_all_numbers_of_16_bits(fmt: Format, kind: np.dtype) -> None:
    """All 65,536 numbers of float16 and of bfloat16 round right, in every mode, by every rule.

    The words of the stochastic modes are, for each number, the first that takes it away from zero and the one before.
    """
    check(fmt, sixteen_bits(kind), CARRY_BITS)


@covers(
    "enumerated",
    formats=P3109,
    modes=Mode,
    inputs=f"float16 and bfloat16 at and beside every value and midpoint; {CARRY}",
)
@both_kinds
@pytest.mark.parametrize("fmt", [fmt for fmt in P3109 if fmt not in ROUNDED], ids=str)
def test_all_thresholds_of_p3109(fmt: Format, kind: np.dtype) -> None:
    """At all values and middles, and at the numbers of 16 bits beside these, the formats of P3109 are right as well."""
    check(fmt, edges(fmt, kind), CARRY_BITS)


EVERY_WORD = {
    "float8_e4m3fn": FLOAT16, "float8_e5m2": BFLOAT16, "float8_e8m0fnu": BFLOAT16, "int4": FLOAT16, "Binary8p4se": FLOAT16,
    "ternary": BFLOAT16,
}  # fmt: skip


@covers(
    "enumerated",
    formats=[*map(get_format, EVERY_WORD)],
    modes=(*LIMITED, Mode.SRE),
    saturations="default",
    inputs="all 65,536 float16 or bfloat16, all words of N = 0 .. 8 bits",
)
@pytest.mark.parametrize(("name", "kind"), [*EVERY_WORD.items()], ids=str)
def test_every_word_of_up_to_8_bits(name: str, kind: np.dtype) -> None:
    """All 65,536 numbers round right with each of the 2^N words, in each stochastic mode, N = 0 to 8."""
    check_words(get_format(name), sixteen_bits(kind), range(9))


def check_words(fmt: Format, x: np.ndarray, bits: range) -> None:
    """Hold the stochastic modes against the oracle with every word of so many bits."""
    exact = exactly(x)
    at, rule = place(fmt, exact), saturations(fmt)[0]
    toward, away = codes(fmt, rule, Mode.SRA, exact, at)
    for mode in (*LIMITED, Mode.SRE):
        for n in bits[mode is Mode.SRE :]:
            first = first_word(mode, at, n)
            for r in range(1 << n):
                wrong = encode(x, fmt, mode, sr_bits=n, rbits=r) != np.where(first <= r, away, toward)
                assert not wrong.any(), (mode, n, r, x[wrong][0])


@covers(
    "enumerated",
    formats=[*ROUNDED, *P3109],
    modes=Mode,
    inputs=f"{NUMBERS}, also as float32 and float64; all words of N = 0 .. 8 bits, {CARRY} beyond",
    when="on demand",
)
@pytest.mark.exhaustive
@both_kinds
@pytest.mark.parametrize("fmt", [*ROUNDED, *(fmt for fmt in P3109 if fmt not in ROUNDED)], ids=str)
def test_everything_of_16_bits(fmt: Format, kind: np.dtype) -> None:
    """All 65,536 numbers of both types, in every format of up to 8 bits, every mode and rule, with every word.

    Every word means: of N = 0 to 8 bits all, in each stochastic mode; of 16, 31 and 32 bits, and by each rule, the words
    where numbers turn. And the same numbers as float32 and as float64, which go through the kernels of these.
    """
    x = sixteen_bits(kind)
    check(fmt, x, (*range(9), 16, 31, 32))
    check_words(fmt, x, range(9))
    with np.errstate(invalid="ignore"):  # of signalling NaNs
        check(fmt, x.astype(np.float32), (0, 8, 23, 32))
        check(fmt, x.astype(np.float64), (0, 8, 53, 63))


@covers(
    "enumerated",
    formats=ROUNDED,
    modes=Mode,
    inputs=f"float32 and float64 at and beside every value and midpoint; {CARRY}",
)
@both_carriers
@pytest.mark.parametrize("fmt", ROUNDED, ids=str)
def test_all_thresholds(fmt: Format, carrier: np.dtype) -> None:
    """At all values and middles, at the float32 and float64 beside these, far below, and at random, every mode is right."""
    far = np.array([1e-30, 3e-38, 1e-44, -2e-40, 7e-12], carrier)
    x = np.concatenate([edges(fmt, carrier), far, any_pattern(carrier, 500)])
    check(fmt, x, (0, 5, 8 * carrier.itemsize - (carrier == FLOAT64)))


WIDE = [
    "bfloat16", "float16", "tf32", "float32", "float64", "int16", "int24", "int31", "int32", "uint32", "int32sym", "Q0.31",
    "Q7.8", "UQ8.8", "e8m0fn", "e8m7fnuz", "e5m7fn", "e7m8f", "e10m5", "e5m10u", "dlfloat16", "e10m20fn", "e2m40f",
    "Binary10p1se", "Binary12p3uf", "Binary16p8se",
]  # fmt: skip


@covers(
    "sampled", formats=[*map(get_format, WIDE)], modes=Mode, inputs="float32 and float64 beside values and midpoints"
)
@both_carriers
@pytest.mark.parametrize("fmt", [*map(get_format, WIDE)], ids=str)
def test_wide_formats(fmt: Format, carrier: np.dtype) -> None:
    """Formats of up to 64 bits, some wider than the input, are right at thresholds and at random patterns."""
    modes = tuple(Mode) if fmt.name != "dlfloat16" else (Mode.RNE, Mode.RUP, Mode.SRC)  # each takes a second to prepare
    x = np.concatenate([edges(fmt, carrier, 300), any_pattern(carrier, 1000)])
    check(fmt, x, (9, 8 * carrier.itemsize - (carrier == FLOAT64)), modes)


def test_the_processor_agrees() -> None:
    """Rounding to float16 and float32 is the processor's own conversion, for a million random patterns."""
    for carrier in (FLOAT32, FLOAT64):
        x = any_pattern(carrier, 1_000_000)
        for name in "float16", "float32":
            with np.errstate(over="ignore", invalid="ignore"):
                theirs = x.astype(name).astype(carrier)
            y = quantize(x, name)
            assert np.array_equal(y, theirs, equal_nan=True)
            assert np.array_equal(np.signbit(y)[~np.isnan(y)], np.signbit(theirs)[~np.isnan(y)])


# --- The oracle against the definition -------------------------------------------------------------------------------


def hold_oracle(fmt: Format, x: np.ndarray, modes: tuple[Mode, ...] = tuple(Mode), shift: int = 0) -> None:
    """Compare the oracle with the definition: all of `x` in each mode, or (with `shift`) each number in one of them.

    Half the words are such where a number turns, or the one before, as are half the thresholds. Number of bits, flushing and
    the sign of NaN change from mode to mode.
    """
    exact, random = exactly(x), np.random.default_rng(3)
    at, numbers = place(fmt, exact), exact.tolist()
    for rule in saturations(fmt):
        for m, mode in enumerate(modes):
            usual = (10, 1, 63, 0, 32)[(m + shift + len(str(rule))) % 5]
            n = {Mode.SRE: 1, Mode.SR: 32}.get(mode, usual)
            last = np.uint64((1 << n) - 1)
            turn = np.minimum(first_word(mode, at, n) - random.integers(0, 2, x.shape, np.uint64), last)
            word = np.where(
                random.integers(0, 2, x.shape), turn, random.integers(0, last, x.shape, np.uint64, endpoint=True)
            )
            eps = random.choice([0.0, 0.25, 1 / 3, 1 - 2**-53], x.shape)
            for rounding in roundings(Mode.THR, at, (), 0):
                eps = np.where(random.integers(0, 4, x.shape) == 0, rounding["eps"], eps)
            words, thresholds = word.tolist(), eps.tolist()
            flags = {"ftz_out": m % 2 == 1, "nan": ("canonical", "signed")[m // 2 % 2]}
            mine = np.where(goes_away(mode, at, n, word, eps), *codes(fmt, rule, mode, exact, at, **flags)[::-1])
            for i in range(m if shift else 0, x.size, len(modes) if shift else 1):
                if fmt.nan_to == "error" and math.isnan(numbers[i]):
                    continue
                code = reference.encode(
                    numbers[i], fmt, mode, sr_bits=n, rbits=words[i], eps=thresholds[i], saturation=rule, **flags
                )
                assert code == mine[i], (numbers[i], mode, rule, n, words[i], thresholds[i], flags)


@pytest.mark.parametrize("fmt", [*SMALL, *(fmt for fmt in P3109 if fmt not in SMALL)], ids=str)
def test_the_oracle_is_the_reference(fmt: Format) -> None:
    """The oracle gives the codes of the definition: in all modes, at thresholds and across the numbers of 16 bits.

    For the family of P3109 each of the numbers in one of the modes.
    """
    some = np.concatenate([exactly(sixteen_bits(kind))[shift::4001] for kind, shift in ((FLOAT16, 1), (BFLOAT16, 2))])
    near, special = edges(fmt, FLOAT64, 400), [math.inf, -math.inf, math.nan, 0.0, -0.0]
    if fmt in P3109:
        hold_oracle(fmt, np.concatenate([near[:: max(1, near.size // 600)], some, special]), shift=3)
    else:
        hold_oracle(fmt, np.concatenate([near[:: max(1, near.size // 40)], some, special]))


@pytest.mark.parametrize("name", ["float8_e4m3fn", "float8_e8m0fnu", "nf4"])
def test_the_oracle_is_the_reference_for_float16(name: str) -> None:
    """The oracle gives the codes of the definition for all numbers of float16, each in one of the modes."""
    hold_oracle(get_format(name), sixteen_bits(FLOAT16), shift=5)


LARGE_CHECK = ("float8_e4m3fn", "float8_e5m2", "Binary8p3se", "Binary8p1uf", "int8", "float8_e8m0fnu", "posit8")


@pytest.mark.exhaustive
@both_kinds
@pytest.mark.parametrize("name", LARGE_CHECK)
def test_the_oracle_is_the_reference_everywhere(name: str, kind: np.dtype) -> None:
    """The oracle gives the codes of the definition for all numbers of both types, in every mode and by every rule."""
    hold_oracle(get_format(name), sixteen_bits(kind))


# --- Lists of values -------------------------------------------------------------------------------------------------


@st.composite
def tables(draw: st.DrawFn) -> Table:
    """Return a table of any values: integers of up to 53 bits times powers of two, of any sizes and in any order.

    With codes of their own, a NaN, and points beyond the ends, or without.
    """
    least = draw(st.integers(-1074, 900))
    spread = draw(st.sampled_from([0, 3, 9, 40]))
    digits = st.one_of(st.integers(-8, 8), st.integers(-(2**53) + 1, 2**53 - 1))
    value = st.tuples(digits, st.integers(0, spread)).map(lambda pair: math.ldexp(pair[0], least + pair[1]))
    values = draw(st.lists(value, min_size=4, max_size=12, unique=True))
    ends = {}
    for name, end in ("below", min(values)), ("above", max(values)):
        if draw(st.booleans()):
            ends[name] = end
            values.remove(end)
    if draw(st.booleans()):
        values.append(math.nan)
    numbers = draw(st.lists(st.integers(0, 31), min_size=len(values), max_size=len(values), unique=True))
    return table_format("drawn", values, "a test", codes=numbers, bits=5, **ends)


def near_table(fmt: Table, draw: st.DrawFn) -> list[float]:
    """Return floats that a table may round wrong: points, numbers between them at all fractions, and beside these."""
    line = fmt.line
    found = [0.0, -0.0, math.inf, -math.inf, math.nan, 5e-324, -5e-324, 1.7e308]
    for low, high in itertools.pairwise(line):
        part = draw(
            st.sampled_from([Fraction(1, 2), Fraction(1, 3), Fraction(1, 4), Fraction(1, 2**53), Fraction(3, 7)])
        )
        middle = float(Fraction(low) + (Fraction(high) - Fraction(low)) * part)
        found += [low, middle, math.nextafter(middle, high), math.nextafter(low, high)]
    return [*found, line[-1], math.nextafter(line[0], -math.inf), math.nextafter(line[-1], math.inf)]


def too_far_apart(fmt: Table) -> bool:
    """Return whether two neighbours, as integers in units of the last place of both, do not fit 62 bits."""
    for pair in itertools.pairwise(fmt.line):
        (a, b), (c, d) = (end.as_integer_ratio() for end in pair)
        common = max(b, d)  # powers of two
        low, high = a * (common // b), c * (common // d)
        shared = math.gcd(low, high)
        power = shared & -shared
        if max(abs(low), abs(high)) // power >= 1 << 62:
            return True
    return False


@covers("sampled", formats="any table of values", modes=Mode, inputs="any float, any word")
@settings(max_examples=150)
@given(st.data())
def test_any_table(data: st.DataObject) -> None:
    """Numbers round to a table of any values as the definition says, in every mode, words of up to 63 or 64 bits.

    Where two neighbours are of too different magnitude, that is said.
    """
    fmt = data.draw(tables())
    x = np.array(near_table(fmt, data.draw))
    if too_far_apart(fmt):
        with pytest.raises(InputError, match="are neighbours of too different magnitude"):
            encode(x, fmt)
        return
    hold_kernel(fmt, x, data.draw)


def hold_kernel(fmt: Format, x: np.ndarray, draw: st.DrawFn) -> None:
    """Compare codes with the definition's: each mode with one rule, random words and thresholds, or those where x turns."""
    random = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    rule = draw(st.sampled_from(saturations(fmt)))
    flags = {"ftz_out": draw(st.booleans()), "nan": draw(st.sampled_from(["canonical", "signed"]))}
    width = 8 * max(x.dtype.itemsize, 4)
    numbers = exactly(x).tolist()
    at = place(fmt, exactly(x)) if fmt.bits <= 8 else None  # only to find words that are worth a try
    for mode in Mode:
        each: list[dict[str, Any]] = [{} for _ in numbers]
        whole: dict[str, Any] = {}
        if mode is Mode.THR:
            eps = np.ldexp(
                random.integers(0, 1 << random.integers(1, 54), x.size).astype(float), -int(random.choice([53, 64]))
            )
            if at is not None and random.integers(0, 2):
                eps = next(roundings(mode, at, (), 0))["eps"]
            whole, each = {"eps": eps}, [{"eps": value} for value in eps.tolist()]
        elif mode.stochastic:
            most = width - (width == 64 and mode in {Mode.SRB, Mode.SRC})
            n = width if mode is Mode.SR else int(random.integers(mode is Mode.SRE, most + 1))
            word = (
                random.integers(0, 1 << n, x.size, np.uint64)
                if n < 64
                else random.integers(0, 2**64, x.size, np.uint64)
            )
            if at is not None and n < 64 and random.integers(0, 2):
                word = np.minimum(
                    first_word(mode, at, n) - random.integers(0, 2, x.size, np.uint64), np.uint64((1 << n) - 1)
                )
            whole, each = {"sr_bits": n, "rbits": word}, [{"sr_bits": n, "rbits": r} for r in word.tolist()]
        got = encode(x, fmt, mode, saturation=rule, **flags, **whole).tolist()
        for number, code, one in zip(numbers, got, each, strict=True):
            expected = reference.encode(number, fmt, mode, saturation=rule, **flags, **one)
            assert code == expected, (number, mode, rule, one)


# --- Any format ------------------------------------------------------------------------------------------------------

KINDS = [FLOAT16, BFLOAT16, FLOAT32, FLOAT64]


def drawn_formats() -> st.SearchStrategy[Format]:
    """Return random float formats, and spelled ones, of up to 16 bits; those with a gap of up to 8."""
    floats = any_floats().filter(lambda fmt: not fmt.gap or fmt.bits <= 8)
    return st.one_of(floats, st.sampled_from([*PARAMETRIC, *P3109, *GAPPED[1:]]))


@covers(
    "sampled",
    formats="any exponent, mantissa, bias and special values, up to 16 bits",
    modes=Mode,
    inputs="any float16, bfloat16, float32, float64, any word",
)
@settings(max_examples=300)
@given(st.data())
def test_any_format_any_number_any_mode(data: st.DataObject) -> None:
    """Numbers of any bit pattern and any type round to a random format as the definition says, in every mode.

    A format beyond float64's normal range is refused, and says so.
    """
    fmt, kind = data.draw(drawn_formats()), data.draw(st.sampled_from(KINDS))
    x = np.array(data.draw(st.lists(inputs(fmt, kind), min_size=1, max_size=8)), kind)
    if isinstance(fmt, Grid) and not (fmt.gap or CARRIERS[FLOAT64].holds(fmt)):
        with pytest.raises(InputError, match="has values beyond float64, or fewer exact bits there"):
            encode(x, fmt)
        return
    hold_kernel(fmt, x, data.draw)


# --- Laws ------------------------------------------------------------------------------------------------------------

ONE_SIDED = {Mode.RUP, Mode.RDN, Mode.RNP, Mode.RNN, Mode.THR}
"""The modes that tell left from right."""


def one_rounding(draw: st.DrawFn, fmt: Format, kind: np.dtype) -> dict[str, Any]:
    """Return a mode, with one word or one threshold for all numbers, and a rule; nothing wraps around."""
    mode = draw(st.sampled_from([*Mode]))
    rule = draw(st.sampled_from([rule for rule in saturations(fmt) if rule is not Saturation.wrap]))
    rounding: dict[str, Any] = {"mode": mode, "saturation": rule}
    if mode is Mode.THR:
        rounding["eps"] = draw(st.integers(0, 2**20 - 1)) / 2**20
    if mode.stochastic:
        width = 8 * max(kind.itemsize, 4)
        n = width if mode is Mode.SR else draw(st.integers(1, width - 1))
        rounding |= {"sr_bits": n, "rbits": np.array(draw(words(n)), np.uint64)}
    return rounding


def laws(draw: st.DrawFn) -> tuple[Format, np.ndarray, dict[str, Any]]:
    """Return a format, numbers of a type that holds its values, and a rounding."""
    kind = draw(st.sampled_from(KINDS))
    rounded = [fmt for fmt in (*ROUNDED, *P3109) if rounded_in(kind, fmt)]
    fmt = draw(st.one_of(st.sampled_from(rounded), drawn_formats().filter(lambda fmt: rounded_in(kind, fmt))))
    x = np.array(draw(st.lists(inputs(fmt, kind), min_size=1, max_size=12)), kind)
    return fmt, exactly(x).astype(kind), one_rounding(draw, fmt, kind)  # NumPy warns of NaN with a payload


def test_values_are_fixed() -> None:
    """Every value of a format is what it rounds to, in every mode, by every rule, with any word; infinities too, if held."""
    for fmt in (*ROUNDED, *P3109):
        numbers = range(-fmt.bottom, fmt.top + 1)
        x = np.array([float(fmt.value(n)) for n in numbers] + ([-0.0] if fmt.has_neg_zero else []))
        code = [fmt.code(n) for n in numbers] + ([fmt.code(0, negative_zero=True)] if fmt.has_neg_zero else [])
        for rule in saturations(fmt):
            keeps = rule in {Saturation.SatNone, Saturation.SatPropagate} and fmt.has_inf
            signs = (False, True) if fmt.signed else (False,)
            ends = np.array([-math.inf if sign else math.inf for sign in signs if keeps])
            values, kept = (
                np.concatenate([x, ends]),
                [*code, *(fmt.code_of_inf(negative=sign) for sign in signs if keeps)],
            )
            for mode in Mode:
                for rounding in roundings(mode, place(fmt, values), (7,), 64):
                    assert encode(values, fmt, mode, saturation=rule, **rounding).tolist() == kept


@given(st.data())
def test_rounding_twice_is_rounding_once(data: st.DataObject) -> None:
    """What a rounding gives, it gives again, whatever the second one's word; a NaN result where that is what NaN becomes."""
    fmt, x, rounding = laws(data.draw)
    y = quantize(x, fmt, **rounding)
    y = y[~np.isnan(y) | (fmt.nan_to == "nan")]
    if "rbits" in rounding:
        rounding["rbits"] = np.array(data.draw(words(rounding["sr_bits"])), np.uint64)
    assert quantize(y, fmt, **rounding).tobytes() == y.tobytes()


@given(st.data())
def test_order_is_kept(data: st.DataObject) -> None:
    """With one word for all, a smaller number never rounds to a greater value, infinities included; NaN set aside.

    Without a zero that is so on either side of it, and where no small number becomes the largest value with it.
    """
    fmt, x, rounding = laws(data.draw)
    x = np.sort(x[~np.isnan(x)] if fmt.has_zero else x[exactly(x) > 0])
    y = quantize(x, fmt, **rounding)
    kept = exactly(y[~np.isnan(y)])
    if fmt.has_zero or (isinstance(fmt, Grid) and fmt.zero_to != "max"):
        assert np.all(kept[:-1] <= kept[1:])


@given(st.data())
def test_sign_is_symmetric(data: st.DataObject) -> None:
    """Of a format that is its own mirror, -x rounds to the negative of what x rounds to, by modes that are as well."""
    fmt, x, rounding = laws(data.draw)
    numbers = range(min(fmt.top, 200))
    mirror = fmt.top == fmt.bottom and all(fmt.value(n) == -fmt.value(-n) for n in numbers)
    if not mirror or rounding["mode"] in ONE_SIDED or not all(fmt.is_odd(n) == fmt.is_odd(-n) for n in numbers):
        return
    x = x[~np.isnan(x)]
    y, mirrored = quantize(x, fmt, **rounding), quantize(-x, fmt, **rounding)
    y, mirrored = exactly(y), exactly(mirrored)
    assert np.array_equal(y, -mirrored, equal_nan=True)
    assert not fmt.has_neg_zero or np.array_equal(np.signbit(y), ~np.signbit(mirrored) ^ np.isnan(y))


@given(st.data())
def test_results_are_neighbours(data: st.DataObject) -> None:
    """Within the range the result is one of the two values beside x, x itself if it is a value."""
    fmt, x, rounding = laws(data.draw)
    inside = x[np.isfinite(x) & (exactly(x) >= fmt.min) & (exactly(x) <= fmt.max)]
    inside = inside if fmt.has_zero else inside[inside != 0]
    for value, y in zip(exactly(inside).tolist(), exactly(quantize(inside, fmt, **rounding)).tolist(), strict=True):
        assert y in fmt.neighbours(value)


@given(st.data())
def test_zero_keeps_its_sign(data: st.DataObject) -> None:
    """-0, and a negative number that rounds to zero, is -0 where the format has one, and +0 where it has not."""
    fmt, x, rounding = laws(data.draw)
    x = np.concatenate([x, np.array([0.0, -0.0], x.dtype)])
    y = quantize(x, fmt, **rounding)
    zero = (y == 0) & ~np.isnan(x)
    assert np.array_equal(np.signbit(y)[zero], (np.signbit(x) & fmt.has_neg_zero)[zero])
    assert not fmt.has_zero or zero[-2:].all()


# --- Division --------------------------------------------------------------------------------------------------------


def rounded_to_odd(q: Fraction) -> int:
    """Return the pattern of the float64 that |q| is, or of that of the two beside it whose last bit is set."""
    below, rest = get_format("float64").split(abs(q))
    largest = (0x7FF << 52) - 1
    return min(below | (rest > 0), largest)


def positive(low: int = 1, high: int = (0x7FF << 52) - 1) -> st.SearchStrategy[int]:
    """Return the pattern of a positive float64: any, one beside a power of two, or a small integer."""
    powers = st.tuples(st.integers(0, 0x7FE), st.integers(-2, 2)).map(lambda pair: (pair[0] << 52) + pair[1])
    small = st.integers(1, 1000).map(lambda n: int(np.float64(n).view(np.uint64)))
    return st.one_of(st.integers(low, high), powers, small).filter(lambda pattern: low <= pattern <= high)


@settings(max_examples=500)
@given(st.integers(0, 1), positive(), positive())
def test_division_rounds_to_odd(sign: int, x: int, s: int) -> None:
    """The result is the quotient where a float64 holds it, else the neighbour whose last bit is set, subnormal or largest."""
    a, b = (Fraction(float(np.uint64(pattern).view(np.float64))) for pattern in (x, s))
    x |= sign << 63
    y = np.empty(1, np.uint64)
    divide_all(np.array([x], np.uint64), np.array([s], np.uint64), y)
    assert y[0] == rounded_to_odd(a / b) | sign << 63
    with np.errstate(over="ignore"):  # wrapping is meant
        assert divide_to_odd(np.uint64(x), np.uint64(s)) == y[0]


def test_division_of_what_is_no_number() -> None:
    """Zeros, infinities and NaN stay as they are."""
    x = np.array([0.0, -0.0, math.inf, -math.inf, math.nan])
    y = np.empty(5, np.uint64)
    divide_all(x.view(np.uint64), np.array([3.0, 5e-324, 1.0, 2.0, 7.0]).view(np.uint64), y)
    assert y.tobytes() == x.tobytes()


# --- Python and machine code -----------------------------------------------------------------------------------------


@both_carriers
@pytest.mark.parametrize("name", ["float8_e4m3fn", "e4m0fn", "e5m2fnuz", "int8", "bfloat16", "e4m0b30fnu", "UQ2.3"])
def test_python_and_machine_code_agree(name: str, carrier: np.dtype) -> None:
    """The core called as plain Python on NumPy scalars gives the bits of its compiled form."""
    fmt, kind = get_format(name), CARRIERS[carrier]
    x = np.concatenate([edges(fmt, carrier, 30)[::5], any_pattern(carrier, 50)]).view(kind.word)
    p = parameters(fmt, saturations(fmt)[-1], carrier)
    limit = kind.word(kind.pattern(fmt.smallest_normal))
    with np.errstate(over="ignore"):  # wrapping is meant
        for mode in Mode.RNE, Mode.RTO, Mode.RUP:
            t, y = thresholds(mode, carrier), np.empty(x.size, kind.word)
            cpu.round_by_thresholds(x, y, t, p)
            code, flushed = np.empty(x.size, np.uint64), np.empty(x.size, kind.word)
            cpu.encode(y, code, p)
            cpu.flush_all(y, flushed, limit, p)
            for i, u in enumerate(x):
                sides = (t.even_neg, t.odd_neg) if u >= p.sign else (t.even_pos, t.odd_pos)
                ours = core.round_bits(u, *sides, t.sticky, p)
                assert type(ours) is kind.word
                assert ours == y[i]
                assert core.encode_bits(ours, p) == code[i]
                assert core.flush(ours, limit, p) == flushed[i]
        random = any_pattern(carrier, x.size).view(kind.word)
        y = np.empty(x.size, kind.word)
        for mode, n in (Mode.SRA, 8), (Mode.SRB, 3), (Mode.SRC, 5), (Mode.SRC, 0), (Mode.SRE, 1):
            source = stochastic(mode, n, carrier)
            cpu.round_by_words(x, random, y, source, p)
            for u, word, rounded in zip(x, random, y, strict=True):
                threshold, sticky = core.stochastic_threshold(word, source)
                assert core.round_bits(u, threshold, threshold, sticky, p) == rounded
        cpu.round_by_eps(x, random, y, p)
        for u, word, rounded in zip(x, random, y, strict=True):
            threshold, sticky = core.eps_threshold(word, u >= p.sign)
            assert core.round_bits(u, threshold, threshold, sticky, p) == rounded


@pytest.mark.parametrize("name", ["nf4", "posit8", "binary", "cfloat8_1_4_3_half"])
def test_python_and_machine_code_agree_on_tables(name: str) -> None:
    """So does the kernel of tables."""
    fmt = get_format(name)
    x = np.concatenate([edges(fmt, FLOAT64, 30)[::7], any_pattern(FLOAT64, 30)]).view(np.uint64)
    p = table.line(fmt, saturations(fmt)[0])
    random = any_pattern(FLOAT64, x.size).view(np.uint64)
    y = np.empty(x.size, np.uint64)
    source = stochastic(Mode.SRC, 8, FLOAT64)
    table.round_by_words(x, random, y, source, p)
    with np.errstate(over="ignore"):  # wrapping is meant
        for u, word, rounded in zip(x, random, y, strict=True):
            threshold, sticky = core.stochastic_threshold(word, source)
            ours = table.round_bits(u, threshold, threshold, np.uint64(3 * int(sticky)), p)
            assert ours == rounded


@pytest.mark.parametrize("zero_to", ["min", "max", "nan"])
def test_below_the_smallest_value_of_a_format_without_zero(zero_to: str) -> None:
    """Half of the smallest value, a subnormal float32, becomes what zero does, and anything more the value."""
    given = {"signed": False, "zero": False, "zero_to": zero_to, "specials": "fn", "source": "a test"}
    fmt = float_format("lowest", 7, 0, bias=126, **given)
    half = np.float32(fmt.min / 2)
    x = np.array([half, np.nextafter(half, np.float32(1)), half / 2, fmt.min, 3 * half, 1], np.float32)
    for mode in Mode:
        if not mode.stochastic and mode is not Mode.THR:
            assert encode(x, fmt, mode).tolist() == [reference.encode(float(v), fmt, mode) for v in x], mode
    with pytest.raises(InputError, match=r"qsim\.reference rounds to it"):
        encode(x.astype(np.float64), float_format("lowest64", 7, 0, bias=1022, **given))


def test_the_division_of_tables() -> None:
    """Quotient and remainder are those of Python's integers, for divisors of all widths and digits that are hard to guess."""
    random, word = np.random.default_rng(8), np.uint64
    for bits in range(1, 64):
        low, high = 1 << (bits - 1), 1 << bits
        sizes = {low, high - 1, *(int(random.integers(low, high, dtype=word)) for _ in range(20))}
        sizes |= {size for k in (1, 2, 1 << 32) for size in (low + k, high - k) if low <= size < high}
        for size in sizes:
            for d in {0, size - 1, size // 2, int(random.integers(0, size, dtype=word))}:
                for fraction in (0, 1, (1 << 64) - 1, int(random.integers(0, 1 << 63, dtype=word))):
                    with np.errstate(over="ignore"):
                        found = table.divide(word(d), word(fraction), word(size), word(64 - bits))
                    quotient, rest = divmod((d << 64) + fraction, size)
                    assert tuple(map(int, found)) == (quotient, rest > 0), (d, fraction, size)


@both_carriers
def test_bits_below_the_word_do_not_count(carrier: np.dtype) -> None:
    """Of a random word the top N bits count, whatever stands below them."""
    kind = CARRIERS[carrier]
    x, fmt = any_pattern(carrier, 3000).view(kind.word), get_format("float8_e4m3fn")
    p, random = parameters(fmt, Saturation.SatFinite, carrier), any_pattern(carrier, 3000)[::-1].copy().view(kind.word)
    for mode in (*LIMITED, Mode.SRE):
        for n in (1, 5, kind.width - 1):
            kept = kind.word((1 << kind.width) - (1 << (kind.width - n)))
            y, z = np.empty_like(x), np.empty_like(x)
            cpu.round_by_words(x, random, y, stochastic(mode, n, carrier), p)
            cpu.round_by_words(x, random & kept, z, stochastic(mode, n, carrier), p)
            assert np.array_equal(y, z)
