"""The scalar core: its rules of writing, its random words, and its results against the definition, bit for bit."""

from __future__ import annotations

import ast
import math
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path

import ml_dtypes
import numba
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from strategies import FLOAT32, FLOAT64, INTEGERS, SMALL, formats, inputs, words

from qsim import reference
from qsim.errors import InputError
from qsim.formats import Format, get_format
from qsim.kernels import core, cpu
from qsim.kernels.parameters import CARRIERS, parameters, stochastic, thresholds
from qsim.rounding import Mode, Saturation, saturations

both_carriers = pytest.mark.parametrize("carrier", [FLOAT32, FLOAT64], ids=str)

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


# --- An oracle for arrays: floor and compare, in float64, where every step is exact ----------------------------------


def split(fmt: Format, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return, for each |x|, the ordinal of the lower grid value and the discarded fraction in [0, 1).

    Scaling by a power of two, floor, and the difference from the floor are exact. NaN and infinities give zeros.
    """
    magnitude = np.where(np.isfinite(x), np.abs(x), 0)
    exponent = np.where(magnitude > 0, np.maximum(np.frexp(magnitude)[1].astype(np.int64) - 1, fmt.emin), fmt.emin)
    scaled = np.ldexp(magnitude, fmt.man_bits - exponent)
    steps = np.floor(scaled)
    return steps.astype(np.int64) + (exponent - fmt.emin << fmt.man_bits), scaled - steps


def nearest(ordinal: np.ndarray, nu: np.ndarray) -> np.ndarray:
    """Return where RNE goes up."""
    return (nu > 0.5) | ((nu == 0.5) & (ordinal % 2 == 1))


def goes_up(
    mode: Mode, ordinal: np.ndarray, nu: np.ndarray, negative: np.ndarray, n: int, word: np.ndarray
) -> np.ndarray:
    """Return where a mode goes to the larger magnitude, by the sentence that defines it; `word` has `n` bits."""
    tie, more, inexact, odd = nu == 0.5, nu > 0.5, nu > 0, ordinal % 2 == 1
    last = np.uint64((1 << n) - 1)
    match mode:
        case Mode.RNA:
            return more | tie
        case Mode.RNZ:
            return more
        case Mode.RNP:
            return more | (tie & ~negative)
        case Mode.RNN:
            return more | (tie & negative)
        case Mode.RTZ:
            return np.zeros_like(tie)
        case Mode.RUP:
            return inexact & ~negative
        case Mode.RDN:
            return inexact & negative
        case Mode.RAZ:
            return inexact
        case Mode.RTO:
            return inexact & ~odd
        case Mode.SRB:  # floor(nu 2^(n+1)) + 2 word + 1 >= 2^(n+1)
            return np.ldexp(nu, n + 1).astype(np.uint64) >= np.uint64(2) * (last - word) + np.uint64(1)
        case Mode.SRC:  # nearest(nu 2^n) + word >= 2^n
            return np.rint(np.ldexp(nu, n)).astype(np.uint64) >= last - word + np.uint64(1)
        case Mode.SRE:
            return inexact & (word > last // np.uint64(2))
    return nearest(ordinal, nu) if mode is Mode.RNE else carry(nu, n, word)


def expected(
    fmt: Format, rule: Saturation, x: np.ndarray, ordinal: np.ndarray, mode: Mode = Mode.RNE
) -> tuple[np.ndarray, np.ndarray]:
    """Return values and codes of the rounded magnitudes that `ordinal` numbers; beyond the range ask the reference."""
    mode = Mode.RNE if mode.stochastic else mode  # none of these stays inside
    negative = np.signbit(x)
    far = 4 * Fraction(max(fmt.max, -fmt.min))
    beyond, infinite = (
        np.array([reference.encode(sign * edge, fmt, mode, saturation=rule) for sign in (-1, 1)], np.uint64)
        for edge in (far, math.inf)
    )
    sign = np.uint64(1 << (fmt.bits - 1))
    codes = ordinal.astype(np.uint64)
    if fmt.kind == "integer":
        codes = np.where(negative, -ordinal, ordinal).astype(np.uint64) & np.uint64((1 << fmt.bits) - 1)
    else:
        codes = np.where(negative & (fmt.has_neg_zero | (ordinal > 0)), codes | sign, codes)
    codes = np.where(ordinal > np.where(negative, fmt.bottom, fmt.top), np.where(negative, *beyond), codes)
    codes = np.where(np.isinf(x), np.where(negative, *infinite), codes)
    codes = np.where(np.isnan(x), reference.encode(math.nan, fmt, saturation=rule), codes).astype(np.uint64)
    if fmt.bits <= 16:
        return fmt.values()[codes], codes
    known = {code: fmt.decode(code) for code in np.unique(codes).tolist()}
    return np.array([known[code] for code in codes.tolist()]), codes


def carry(nu: np.ndarray, n: int, word: np.ndarray) -> np.ndarray:
    """Return where floor(nu 2^n) + word >= 2^n, in unsigned integers without overflow."""
    return np.ldexp(nu, n).astype(np.uint64) > np.uint64((1 << n) - 1) - word


def run(fmt: Format, rule: Saturation, x: np.ndarray, n: int | None = None, word: np.ndarray | None = None):
    """Return the bit patterns and the codes that the kernels make of `x`: RNE, or SRA with `word` of `n` bits."""
    carrier = CARRIERS[x.dtype]
    p = parameters(fmt, rule, x.dtype)
    y, codes = np.empty(x.size, carrier.word), np.empty(x.size, np.uint64)
    if n is None:
        cpu.round_by_thresholds(x.view(carrier.word), y, thresholds(Mode.RNE, x.dtype), p)
    else:
        spare = carrier.width - n
        low = np.uint64(0x5A5A5A5A5A5A5A5A & ((1 << spare) - 1))  # bits that the mask must take away
        lifted = (word << np.uint64(spare % 64)) | low  # a word of no bits is 0, wherever it stands
        cpu.round_by_words(x.view(carrier.word), lifted.astype(carrier.word), y, stochastic(Mode.SRA, n, x.dtype), p)
    cpu.encode(y, codes, p)
    return y, codes


def check(fmt: Format, x: np.ndarray, bits: tuple[int, ...]) -> None:
    """Hold the kernels against the oracle: RNE, and SRA with words of `bits` bits at and beside where they carry."""
    carrier = CARRIERS[x.dtype]
    with np.errstate(invalid="ignore"):  # of signalling NaNs
        exact = x.astype(np.float64)
    ordinal, nu = split(fmt, exact)
    choices = [(None, None, nearest(ordinal, nu))]
    random = np.random.default_rng(1)
    for n in bits:
        last = np.uint64((1 << n) - 1)
        fraction = np.ldexp(nu, n).astype(np.uint64)
        below = last - fraction  # the largest word that does not carry
        others = random.integers(0, last, below.shape, np.uint64, endpoint=True)
        some = (np.zeros_like(below), np.full_like(below, last), below, below + (below < last), others)
        choices += [(n, word, carry(nu, n, word)) for word in some]
    for rule in saturations(fmt):
        for n, word, up in choices:
            y, codes = run(fmt, rule, x, n, word)
            values, numbers = expected(fmt, rule, exact, ordinal + up)
            wrong = (y != values.astype(x.dtype).view(carrier.word)) | (codes != numbers)
            assert not wrong.any(), (fmt, rule, n, x[wrong][0], y[wrong][0], codes[wrong][0], values[wrong][0])


def check_modes(fmt: Format, x: np.ndarray) -> None:
    """Hold every mode against its sentence: the stochastic ones with words at and beside where they turn, and others."""
    carrier = CARRIERS[x.dtype]
    with np.errstate(invalid="ignore"):  # of signalling NaNs
        exact = x.astype(np.float64)
    (ordinal, nu), negative = split(fmt, exact), np.signbit(exact)
    u, random = x.view(carrier.word), np.random.default_rng(4)
    for mode in Mode:
        words: list[tuple[int, np.ndarray]] = [(0, np.zeros(x.size, np.uint64))]
        if mode.stochastic:
            widths = {Mode.SR: (carrier.width,), Mode.SRE: (1, 8, 20)}.get(mode, (0, 1, 8, carrier.width - 1))
            words = []
            for n in widths:
                last = np.uint64((1 << n) - 1)
                turn = last - np.minimum(np.ldexp(nu, n).astype(np.uint64), last)
                others = random.integers(0, last, turn.shape, np.uint64, endpoint=True)
                words += [(n, w) for w in (turn, turn - (turn > 0), turn + (turn < last), others)]
        for rule in saturations(fmt):
            p = parameters(fmt, rule, x.dtype, mode)
            for n, word in words:
                y, codes = np.empty_like(u), np.empty(x.size, np.uint64)
                if mode.stochastic:
                    lifted = (word << np.uint64((carrier.width - n) % 64)).astype(carrier.word)
                    cpu.round_by_words(u, lifted, y, stochastic(mode, n, x.dtype), p)
                else:
                    cpu.round_by_thresholds(u, y, thresholds(mode, x.dtype), p)
                cpu.encode(y, codes, p)
                up = goes_up(mode, ordinal, nu, negative, n, word)
                values, numbers = expected(fmt, rule, exact, ordinal + up, mode)
                wrong = (y != values.astype(x.dtype).view(carrier.word)) | (codes != numbers)
                assert not wrong.any(), (fmt, mode, rule, n, x[wrong][0], word[wrong][0], values[wrong][0])


def edges(fmt: Format, carrier: np.dtype, most: int = 1 << 12) -> np.ndarray:
    """Return zeros, infinities, NaNs, and all (or `most`) grid values and middles, each with the floats beside it."""
    last = max(fmt.top, fmt.bottom) + 2
    ordinals = range(last) if last <= most else np.unique(np.geomspace(1, last, most).astype(np.int64)).tolist()
    with np.errstate(over="ignore"):
        lower, upper = (np.array([float(min(fmt.value(n + up), 2**1000)) for n in ordinals], carrier) for up in (0, 1))
        at = np.concatenate([lower, lower / 2 + upper / 2])
        inf = carrier.type(np.inf)
        near = np.concatenate([at, np.nextafter(at, inf), np.nextafter(at, -inf), [0, inf, np.nan]])
    return np.concatenate([near, -near]).astype(carrier)


def sixteen_bits(carrier: np.dtype) -> np.ndarray:
    """Return all numbers of binary16 and of bfloat16 as `carrier`."""
    codes = np.arange(1 << 16, dtype=np.uint16)
    with np.errstate(invalid="ignore"):
        return np.concatenate([codes.view(kind).astype(carrier) for kind in (np.float16, ml_dtypes.bfloat16)])


def any_pattern(carrier: np.dtype, count: int) -> np.ndarray:
    """Return `count` floats of random bits."""
    return np.frombuffer(np.random.default_rng(2).bytes(count * carrier.itemsize), carrier)


# --- The kernels against the oracle, and the oracle against the definition -------------------------------------------


@both_carriers
@pytest.mark.parametrize("fmt", SMALL, ids=str)
def test_all_numbers_of_16_bits(fmt: Format, carrier: np.dtype) -> None:
    """All numbers of binary16 and bfloat16 round right, by every rule, with words just below a carry, at it, others."""
    check(fmt, sixteen_bits(carrier), (8 * carrier.itemsize, 5))


@both_carriers
@pytest.mark.parametrize("fmt", SMALL, ids=str)
def test_all_thresholds(fmt: Format, carrier: np.dtype) -> None:
    """At every value and every middle of a small format, and at the floats beside these, results are right."""
    check(fmt, np.concatenate([edges(fmt, carrier), any_pattern(carrier, 2000)]), (8 * carrier.itemsize, 23, 1, 0))


@both_carriers
@pytest.mark.parametrize("fmt", SMALL, ids=str)
def test_every_mode_at_all_thresholds(fmt: Format, carrier: np.dtype) -> None:
    """In every mode the results are right at every value and middle of a small format and beside these, and far below."""
    tiny = np.array([1e-30, 3e-38, 1e-44, -2e-40, 7e-12], carrier)
    check_modes(fmt, np.concatenate([edges(fmt, carrier, 300), any_pattern(carrier, 500), tiny]))


@pytest.mark.parametrize("name", ["float8_e4m3fn", "e4m0fn", "int4"])
def test_every_mode_on_all_numbers_of_16_bits(name: str) -> None:
    """In every mode all numbers of binary16 and of bfloat16 round as the mode's sentence says."""
    check_modes(get_format(name), sixteen_bits(FLOAT32))


@pytest.mark.exhaustive
@both_carriers
@pytest.mark.parametrize("fmt", SMALL, ids=str)
def test_every_mode_on_all_numbers_of_16_bits_everywhere(fmt: Format, carrier: np.dtype) -> None:
    """The same in every small format and both carriers."""
    check_modes(fmt, sixteen_bits(carrier))


WIDE = ["bfloat16", "float16", "tf32", "float32", "int16", "e8m0fn", "e8m7fnuz", "e5m7fn", "e7m8f", "e10m5", "float64"]


@both_carriers
@pytest.mark.parametrize("fmt", [*map(get_format, WIDE), *INTEGERS[-3:]], ids=str)
def test_wide_formats(fmt: Format, carrier: np.dtype) -> None:
    """Formats near or beyond the carrier's own width are right at thresholds and at random patterns, or refused."""
    if CARRIERS[carrier].holds(fmt):
        check(fmt, np.concatenate([edges(fmt, carrier, 500), any_pattern(carrier, 3000)]), (8 * carrier.itemsize, 9))
    else:
        assert carrier == FLOAT32
        with pytest.raises(InputError, match=f"float32 cannot hold the values of {fmt}; convert the input to float64"):
            parameters(fmt, saturations(fmt)[0], carrier)


@pytest.mark.parametrize("carrier", [FLOAT32, FLOAT64], ids=str)
def test_the_processor_agrees(carrier: np.dtype) -> None:
    """Rounding to binary16 and binary32 is the processor's own conversion, for a million random patterns."""
    x = any_pattern(carrier, 1_000_000)
    for name, dtype in ("float16", np.float16), ("float32", np.float32):
        y, _ = run(get_format(name), Saturation.SatNone, x)
        with np.errstate(over="ignore", invalid="ignore"):
            theirs = x.astype(dtype).astype(carrier)
        same = (y.view(carrier) == theirs) & (np.signbit(y.view(carrier)) == np.signbit(theirs))
        assert np.all(same | (np.isnan(theirs) & np.isnan(y.view(carrier))))


@pytest.mark.parametrize("fmt", SMALL, ids=str)
def test_the_oracle_is_the_reference(fmt: Format) -> None:
    """The oracle of this file gives the codes of the definition, at thresholds and across the numbers of 16 bits."""
    hold_oracle(fmt, np.concatenate([edges(fmt, FLOAT64, 100), sixteen_bits(FLOAT64)[::499]]))


@pytest.mark.exhaustive
@pytest.mark.parametrize("fmt", SMALL, ids=str)
def test_the_oracle_is_the_reference_everywhere(fmt: Format) -> None:
    """The oracle of this file gives the codes of the definition for all numbers of binary16 and bfloat16."""
    hold_oracle(fmt, sixteen_bits(FLOAT64))


def hold_oracle(fmt: Format, x: np.ndarray) -> None:
    """Compare the oracle with the definition at all of `x`."""
    ordinal, nu = split(fmt, x)
    random = np.random.default_rng(3)
    for rule in saturations(fmt):
        word, n = random.integers(0, 1 << 10, x.shape, np.uint64), 10
        for mode in Mode:
            up = goes_up(mode, ordinal, nu, np.signbit(x), n, word)
            values, codes = expected(fmt, rule, x, ordinal + up, mode)
            for at, r in enumerate(word.tolist()):
                code = reference.encode(float(x[at]), fmt, mode, sr_bits=n, rbits=r, saturation=rule)
                assert code == codes[at], (x[at], mode, r, rule)
                assert np.array_equal(fmt.decode(code), values[at], equal_nan=True)


@settings(max_examples=500)
@given(st.data())
def test_any_format_any_number_any_word(data: st.DataObject) -> None:
    """A random number of any bit pattern rounds to a random format as the definition says, with any word and rule."""
    carrier = data.draw(st.sampled_from([FLOAT32, FLOAT64]))
    fmt = data.draw(formats(carrier))
    rule = data.draw(st.sampled_from(saturations(fmt)))
    x = np.array([data.draw(inputs(fmt, carrier))])
    n = data.draw(st.integers(0, 8 * carrier.itemsize))
    r = data.draw(words(n))
    for mode, bits, word in ("RNE", None, None), ("SRA", n, np.array([r], np.uint64)):
        y, codes = run(fmt, rule, x, bits, word)
        code = reference.encode(float(x[0]), fmt, mode, sr_bits=n, rbits=r, saturation=rule)
        assert codes[0] == code
        assert y[0] == np.array(fmt.decode(code)).astype(carrier).view(y.dtype)


@both_carriers
@pytest.mark.parametrize("name", ["float8_e4m3fn", "e4m0fn", "e5m2fnuz", "int8", "bfloat16"])
def test_python_and_machine_code_agree(name: str, carrier: np.dtype) -> None:
    """The core called as plain Python on NumPy scalars gives the bits of its compiled form."""
    fmt, kind = get_format(name), CARRIERS[carrier]
    x = np.concatenate([edges(fmt, carrier, 30), any_pattern(carrier, 100)])
    p = parameters(fmt, saturations(fmt)[-1], carrier)
    half = kind.word(1 << (kind.width - 1))
    with np.errstate(over="ignore"):  # wrapping is meant
        for even, odd in (half, half - kind.word(1)), (kind.word(12345),) * 2:
            y = np.empty(x.size, kind.word)
            cpu.round_by_thresholds(x.view(kind.word), y, core.Thresholds(even, odd, even, odd, kind.word(0)), p)
            codes = np.empty(x.size, np.uint64)
            cpu.encode(y, codes, p)
            for u, rounded, code in zip(x.view(kind.word), y, codes, strict=True):
                ours = core.round_bits(u, even, odd, kind.word(0), p)
                assert type(ours) is kind.word
                assert ours == rounded
                assert core.encode_bits(ours, p) == code
