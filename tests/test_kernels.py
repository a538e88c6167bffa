"""How the kernels are written: the core's rules, Philox's known answers, the same bits as Python and as machine code."""

from __future__ import annotations

import ast
import itertools
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from strategies import FLOAT64, any_pattern, both_carriers, edges

from qsim.formats import get_format
from qsim.kernels import core, cpu, lowering, table
from qsim.kernels.parameters import CARRIERS, addends, parameters, route, shortcut, stochastic
from qsim.rounding import LIMITED, Mode, Saturation, saturations

# --- The core --------------------------------------------------------------------------------------------------------

WRAPS = {"word", "uint64"}
PARTS = {
    "exceeds", "negative", "of_sign", "binade", "along", "deterministic", "stochastic", "signed", "ranged", "unless_nan",
    "sign_unless_zero", "sign_always",
}  # fmt: skip
CALLS = {*WRAPS, "type", "min", "max", *PARTS}
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
    assert len(statements) > 60
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


@lowering.njit
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
    cpu.fill(words, block, seed, stream)
    assert tuple(words.tolist()) == answer


@pytest.mark.parametrize("block", [(1 << 32) - 2, (5 << 32) - 1, 7 << 32, (1 << 64) - 3])
def test_the_counter_carries(block) -> None:
    """Words come from one block after the other, also where the lower half of a block's number runs over."""
    seed, stream = 0x0123456789ABCDEF, 0xFEDCBA9876543210
    words = np.empty(16, np.uint32)
    cpu.fill(words, block, seed, stream)
    for k in range(4):
        number = (block + k) % (1 << 64)
        halves = (part for whole in (number, stream, seed) for part in (whole % (1 << 32), whole >> 32))
        assert words[4 * k : 4 * k + 4].tolist() == [*map(int, core.philox4x32_10(*map(np.uint64, halves)))]


@both_carriers
def test_bits_below_the_word_do_not_count(carrier: np.dtype) -> None:
    """Of a random word the top N bits count, whatever stands below them."""
    kind = CARRIERS[carrier]
    x, fmt = any_pattern(carrier, 3000).view(kind.word), get_format("float8_e4m3fn")
    random = any_pattern(carrier, 3000)[::-1].copy().view(kind.word)
    for mode, codes in itertools.product((*LIMITED, Mode.SRE), (False, True)):
        p = parameters(fmt, Saturation.SatFinite, carrier, codes=codes)
        for n in (1, 5, kind.width - 1):
            kept = kind.word((1 << kind.width) - (1 << (kind.width - n)))
            y, z = np.empty_like(x), np.empty_like(x)
            cpu.round_by_words(x, random, y, stochastic(mode, n, carrier), p, codes=codes)
            cpu.round_by_words(x, random & kept, z, stochastic(mode, n, carrier), p, codes=codes)
            assert np.array_equal(y, z)


# --- Python and machine code -----------------------------------------------------------------------------------------


@pytest.mark.in_part(4)
@both_carriers
@pytest.mark.parametrize("codes", [False, True], ids=["values", "codes"])
@pytest.mark.parametrize(
    "name", ["float8_e4m3fn", "e4m0fn", "e5m2fnuz", "int8", "bfloat16", "Binary8p3se", "e4m0b30fnu", "UQ2.3"]
)
def test_python_and_machine_code_agree(name: str, codes: bool, carrier: np.dtype) -> None:
    """The core called as plain Python on NumPy scalars gives the bits of its compiled form, by either way to an end."""
    fmt, kind = get_format(name), CARRIERS[carrier]
    x = np.concatenate([edges(fmt, carrier, 30)[::5], any_pattern(carrier, 50)]).view(kind.word)
    random = any_pattern(carrier, x.size).view(kind.word)
    limit = kind.word(kind.pattern(fmt.smallest_normal))
    y = np.empty(x.size, np.uint64 if codes else kind.word)
    for rule in {saturations(fmt)[0], saturations(fmt)[-1]}:
        p = parameters(fmt, rule, carrier, codes=codes)
        how = shortcut(p)
        finish, neighbour = getattr(core, how), getattr(core, route(how, codes=codes))
        with np.errstate(over="ignore"):  # wrapping is meant
            for mode in Mode.RNE, Mode.RTO, Mode.RUP:
                t = addends(mode, carrier)
                cpu.round_by_addends(x, y, t, p, codes=codes)
                for u, rounded in zip(x, y, strict=True):
                    even, odd = (t.even_neg, t.odd_neg) if u >= p.sign else (t.even_pos, t.odd_pos)
                    small = core.last_to_zero(even, p)
                    ours = core.round_bits(u, even, odd, small, p)
                    assert type(ours) is kind.word
                    assert ours == rounded
                    magnitude = kind.word(u & (p.sign - kind.word(1)))
                    short = finish(neighbour(magnitude, even, odd, small, p), u, p)
                    assert type(short) is kind.word
                    assert short == rounded
            for mode, n in (Mode.SRA, 8), (Mode.SRB, 3), (Mode.SRC, 5), (Mode.SRC, 0), (Mode.SRE, 1):
                source = stochastic(mode, n, carrier)
                cpu.round_by_words(x, random, y, source, p, codes=codes)
                for u, word, rounded in zip(x, random, y, strict=True):
                    r, sticky = core.addend(word, source)
                    assert type(r) is type(sticky) is kind.word
                    assert core.round_word(u, r, sticky, p) == rounded
                    magnitude = kind.word(u & (p.sign - kind.word(1)))
                    assert finish(core.stochastic(magnitude, r, sticky, p), u, p) == rounded
            cpu.by_eps(codes=codes)(x, random, y, cpu.words_of(p))
            for u, word, rounded in zip(x, random, y, strict=True):
                r, sticky = core.eps_addend(word, u >= p.sign)
                assert core.round_word(u, r, sticky, p) == rounded
            for eps in random[:3]:
                cpu.by_threshold(p, codes=codes)(x, y, cpu.words_of(p, (eps,)))
                for u, rounded in zip(x, y, strict=True):
                    assert core.round_word(u, *core.eps_addend(eps, u >= p.sign), p) == rounded
            if not codes:
                cpu.flush_all(x, y, int(limit), cpu.words_of(p))
                assert [core.flush(u, limit, p) for u in x] == y.tolist()


@pytest.mark.parametrize("name", ["nf4", "posit8", "binary", "cfloat8_1_4_3_half"])
def test_python_and_machine_code_agree_on_tables(name: str) -> None:
    """So does the kernel of tables."""
    fmt = get_format(name)
    x = np.concatenate([edges(fmt, FLOAT64, 30)[::7], any_pattern(FLOAT64, 30)]).view(np.uint64)
    p = table.line(fmt, saturations(fmt)[0])
    random = any_pattern(FLOAT64, x.size).view(np.uint64)
    y = np.empty(x.size, np.uint64)
    source = stochastic(Mode.SRC, 8, FLOAT64)
    table.round_by_words(x, random, y, *table.packed(p, *source))
    with np.errstate(over="ignore"):  # wrapping is meant
        for u, word, rounded in zip(x, random, y, strict=True):
            r, sticky = core.addend(word, source)
            ours = table.round_bits(u, r, r, np.uint64(3 * int(sticky)), p)
            assert ours == rounded
