"""How the kernels are written: the core's rules, Philox's known answers, the same bits as Python and as machine code."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import numba
import numpy as np
import pytest
from strategies import FLOAT64, any_pattern, both_carriers, edges

from qsim.formats import get_format
from qsim.kernels import core, cpu, table
from qsim.kernels.parameters import CARRIERS, parameters, stochastic, thresholds
from qsim.rounding import LIMITED, Mode, Saturation, saturations

# --- The core --------------------------------------------------------------------------------------------------------

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
