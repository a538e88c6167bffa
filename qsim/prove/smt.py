"""Read a portable kernel as terms of an SMT solver, from its own source.

`Reader.call` walks the syntax tree of a function of `qsim.kernels.core` and gives every expression a bit-vector term,
so that a theorem about the term is a theorem about the file that Numba compiles, and not about a copy of it. The reader
knows the few constructs of which Numba, NumPy and bit-vectors say the same, and refuses the rest by line:

    + - * & | ^ << >> ~   only as word(a + b). Numba computes in 64 bits and NumPy in the word; they agree on the low
                          bits, so on the word, and on nothing else.
    word(5), word(x)      an unsigned constant that fits; a word of the same width, unchanged
    < <= > >= == !=       of two words of one width, unsigned; `and`, `or`, `not` of such
    a if c else b         both arms are words of one width (or both truth values)
    min(a, b), max(a, b)  of two words, unsigned
    type(a)               the word of a; uint32, uint64 and constants of these types from the module
    p.field, f(a, p)      a field of the parameters; a function marked @portable
    x = ..., x, y = ...   for _ in range(10), and one return at the end

A shift by the width or more gives 0 in NumPy, in SMT-LIB, and in Numba as long as the amount is below 64. That last
condition is collected for every shift, on every path, in `Reader.obligations`: a proof must show it too.
"""

from __future__ import annotations

import ast
import functools
import inspect
import operator
import textwrap
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import FunctionType
from typing import Any

import numpy as np
import z3

from qsim.prove.solvers import SOLVERS, UndecidedError
from qsim.verdicts import Outcome, Verdict

__all__ = ["Reader", "UnreadableError", "Word", "constants", "decide", "word"]

SHIFT_LIMIT = 64
"""Numba shifts in 64 bits; LLVM leaves a shift by 64 or more undefined."""

TIMEOUT = 300
"""Seconds after which a solver is told to give up."""

BINARY: Mapping[type[ast.operator], Callable[[Any, Any], Any]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.BitAnd: operator.and_,
    ast.BitOr: operator.or_,
    ast.BitXor: operator.xor,
    ast.LShift: operator.lshift,
    ast.RShift: z3.LShR,
}
COMPARISONS: Mapping[type[ast.cmpop], Callable[[Any, Any], Any]] = {
    ast.Lt: z3.ULT,
    ast.LtE: z3.ULE,
    ast.Gt: z3.UGT,
    ast.GtE: z3.UGE,
    ast.Eq: operator.eq,
    ast.NotEq: operator.ne,
}
EXTREMES: Mapping[Any, Callable[[Any, Any], Any]] = {
    min: lambda a, b: z3.If(z3.ULE(a, b), a, b),
    max: lambda a, b: z3.If(z3.ULE(a, b), b, a),
}
BUILTINS: Mapping[str, Any] = {"min": min, "max": max, "type": type}


class UnreadableError(ValueError):
    """Name the line of a kernel, and the construct on it that the reader does not know."""


@dataclass(frozen=True, slots=True)
class Word:
    """Stand for the type of an unsigned word: the reader's counterpart of `type(a)` and `uint64`."""

    width: int


@dataclass(frozen=True, slots=True)
class Obligation:
    """Hold the conditions, beside a claim, under which a term is Numba's result."""

    place: str
    condition: Any


def word(value: int, width: int) -> Any:
    """Return the constant bit-vector of `width` bits."""
    return z3.BitVecVal(value, width)


def constants(parameters: Any) -> Any:
    """Return a named tuple of NumPy words as the same named tuple of constant bit-vectors."""
    return type(parameters)(*(word(int(value), 8 * value.dtype.itemsize) for value in parameters))


# --- From source to terms ----------------------------------------------------------------------------------


@dataclass(slots=True)
class Reader:
    """Turn calls of portable functions into terms, and collect the assumptions of these terms."""

    obligations: list[Obligation] = field(default_factory=list)

    def call(self, function: Callable[..., Any], *arguments: Any) -> Any:
        """Return the term of `function(*arguments)`: a bit-vector, a truth value, or a tuple of them.

        Arguments are bit-vectors, or named tuples of them. Raise `UnreadableError` for constructs that the reader does not
        know.
        """
        assert isinstance(function, FunctionType)
        definition, file = _definition(function)
        names = [argument.arg for argument in definition.args.args]
        if len(names) != len(arguments):
            raise UnreadableError(f"{file}: {function.__name__} takes {len(names)} arguments, not {len(arguments)}")
        scope = dict(zip(names, arguments, strict=True))
        return _Call(reader=self, file=file, scope=scope, module=function.__globals__).run(definition)


@functools.cache
def _definition(function: FunctionType) -> tuple[ast.FunctionDef, str]:
    """Return the syntax tree of `function`, with the line numbers of its file, and the file's name."""
    lines, first = inspect.getsourcelines(function)
    tree = ast.parse(textwrap.dedent("".join(lines)))
    ast.increment_lineno(tree, first - 1)
    definition = tree.body[0]
    assert isinstance(definition, ast.FunctionDef)
    return definition, Path(function.__code__.co_filename).name


@dataclass(slots=True)
class _Call:
    """Read one call of one function: `scope` maps its names to terms so far."""

    reader: Reader
    file: str
    scope: dict[str, Any]
    module: Mapping[str, Any]

    def run(self, definition: ast.FunctionDef) -> Any:
        marks = [ast.unparse(mark) for mark in definition.decorator_list]
        simple = ast.arguments(posonlyargs=[], args=definition.args.args, kwonlyargs=[], kw_defaults=[], defaults=[])
        if marks != ["portable"] or ast.dump(simple) != ast.dump(definition.args):
            raise self.unreadable(definition, f"{definition.name} is not a @portable function of plain arguments")
        *body, last = definition.body
        for statement in body[ast.get_docstring(definition) is not None :]:
            self.execute(statement)
        if not (isinstance(last, ast.Return) and last.value):
            raise self.unreadable(last, "a portable function ends in its only return")
        return self.result(last.value)

    def execute(self, statement: ast.stmt) -> None:
        match statement:
            case ast.Assign(targets=[ast.Name(id=name)], value=value):
                self.scope[name] = self.term(value)
            case ast.Assign(targets=[ast.Tuple(elts=targets)], value=value):
                self.unpack(statement, targets, self.result(value))
            case ast.For(
                target=ast.Name(),
                iter=ast.Call(func=ast.Name(id="range"), args=[ast.Constant(value=int(count))], keywords=[]),
                body=body,
                orelse=[],
            ):
                for _ in range(count):  # the loop variable has no value: a body that reads it is refused
                    for inner in body:
                        self.execute(inner)
            case _:
                raise self.unreadable(statement, "no statement of a portable function")

    def unpack(self, statement: ast.stmt, targets: list[ast.expr], values: Any) -> None:
        if not isinstance(values, tuple) or len(values) != len(targets):
            raise self.unreadable(statement, "needs as many results as names")
        for target, value in zip(targets, values, strict=True):
            if not isinstance(target, ast.Name):
                raise self.unreadable(target, "is no plain name")
            self.scope[target.id] = value

    def result(self, node: ast.expr) -> Any:
        """Return the term of `node`, or a tuple of terms where it is a tuple or calls a function that returns one."""
        return tuple(self.term(element) for element in node.elts) if isinstance(node, ast.Tuple) else self.term(node)

    def term(self, node: ast.expr) -> Any:
        match node:
            case ast.Name(id=name):
                return self.look_up(node, name)
            case ast.Attribute(value=ast.Name(id=name), attr=attribute):
                holder = self.scope.get(name)
                if attribute not in getattr(holder, "_fields", ()):
                    raise self.unreadable(node, "is no field of the parameters")
                return getattr(holder, attribute)
            case ast.IfExp(test=test, body=body, orelse=orelse):
                return z3.If(self.truth(test), *self.alike(node, self.term(body), self.term(orelse)))
            case ast.Compare(left=left, ops=[op], comparators=[right]) if type(op) in COMPARISONS:
                return COMPARISONS[type(op)](*self.words(node, left, right))
            case ast.BoolOp(op=op, values=values):
                return (z3.And if isinstance(op, ast.And) else z3.Or)(*(self.truth(value) for value in values))
            case ast.UnaryOp(op=ast.Not(), operand=operand):
                return z3.Not(self.truth(operand))
            case ast.Call(func=ast.Name(id=name) as function, args=arguments, keywords=[]):
                return self.called(node, self.look_up(function, name), arguments)
            case ast.BinOp() | ast.UnaryOp(op=ast.Invert()):
                raise self.unreadable(node, "must be wrapped at once: word(...)")
            case ast.Constant():
                raise self.unreadable(node, "has no type; write word(...) around an integer")
            case _:
                raise self.unreadable(node, "no expression of a portable function")

    def called(self, node: ast.Call, function: Any, arguments: list[ast.expr]) -> Any:
        match function, arguments:
            case Word(), [argument]:
                return self.wrapped(argument, function)
            case _, [argument] if function is type:
                return Word(self.word(argument).size())
            case _, [left, right] if function in {min, max}:
                return EXTREMES[function](*self.words(node, left, right))
            case FunctionType(), _:
                return self.reader.call(function, *(self.term(argument) for argument in arguments))
            case _:
                raise self.unreadable(node, "no call of a portable function")

    def wrapped(self, node: ast.expr, kind: Word) -> Any:
        """Return the term of word(`node`), where `kind` is that word."""
        match node:
            case ast.Constant(value=int(value)) if not isinstance(value, bool) and 0 <= value < 1 << kind.width:
                return word(value, kind.width)
            case ast.Constant():
                raise self.unreadable(node, f"is no constant of {kind.width} bits")
            case ast.BinOp(left=left, op=op, right=right) if type(op) in BINARY:
                a, b = self.words(node, left, right)
                if isinstance(op, ast.LShift | ast.RShift):
                    self.reader.obligations.append(Obligation(self.place(node), z3.ULT(b, SHIFT_LIMIT)))
                term = BINARY[type(op)](a, b)
            case ast.UnaryOp(op=ast.Invert(), operand=operand):
                term = ~self.word(operand)
            case _:
                term = self.term(node)
        if not z3.is_bv(term) or term.size() != kind.width:
            raise self.unreadable(node, f"is no word of {kind.width} bits")
        return term

    def look_up(self, node: ast.expr, name: str) -> Any:
        """Look up `name`: a term, a word type, a function."""
        if name in self.scope:
            return self.scope[name]
        known = self.module.get(name, BUILTINS.get(name))
        if isinstance(known, np.uint32 | np.uint64):
            return word(int(known), 8 * known.dtype.itemsize)
        if known in {np.uint32, np.uint64}:
            return Word(8 * np.dtype(known).itemsize)
        if isinstance(known, FunctionType) or known in BUILTINS.values():
            return known
        raise self.unreadable(node, "stands for nothing a portable function may use")

    def word(self, node: ast.expr) -> Any:
        term = self.term(node)
        if not z3.is_bv(term):
            raise self.unreadable(node, "is no word")
        return term

    def words(self, node: ast.expr, left: ast.expr, right: ast.expr) -> tuple[Any, Any]:
        return self.alike(node, self.word(left), self.word(right))

    def truth(self, node: ast.expr) -> Any:
        term = self.term(node)
        if not z3.is_bool(term):
            raise self.unreadable(node, "is no comparison")
        return term

    def alike(self, node: ast.expr, a: Any, b: Any) -> tuple[Any, Any]:
        if not (z3.is_expr(a) and z3.is_expr(b) and a.sort() == b.sort()):
            raise self.unreadable(node, "mixes things of different types")
        return a, b

    def place(self, node: ast.AST) -> str:
        return f"{self.file}, line {getattr(node, 'lineno', '?')}"

    def unreadable(self, node: ast.AST, reason: str) -> UnreadableError:
        text = ast.unparse(node).splitlines()[0]
        return UnreadableError(f"{self.place(node)}: `{text}` {reason}; see qsim.prove.smt for what can be read")


# --- From terms to verdicts --------------------------------------------------------------------------------


def decide(
    claim: Any,
    reader: Reader,
    *,
    covered: str,
    counterexample: Callable[[Any], str],
    given: Any = True,
    timeout: float = TIMEOUT,
    solver: str = "z3",
) -> Verdict:
    """Ask a solver whether `claim` and all obligations of `reader` hold whatever the variables are, if `given` does.

    `counterexample` describes a failure of the claim; it is given a function from a variable to the integer it has
    there. After `timeout` seconds the verdict is "not decided". `solver` is a name of `qsim.prove.solvers.SOLVERS`.
    """
    safe = [obligation.condition for obligation in reader.obligations]
    try:
        # SMT-LIB's `and` has two arguments or more.
        model = SOLVERS[solver](z3.And(given, z3.Not(z3.And(True, claim, *safe))), timeout)
    except UndecidedError as error:
        return Verdict(outcome=Outcome.NOT_DECIDED, covered=f"nothing: {error}")
    if model is None:
        shifts = f", and the {len(safe)} shifts stay below {SHIFT_LIMIT}" if safe else ""
        return Verdict(outcome=Outcome.HELD, covered=covered + shifts)
    broken = [obligation for obligation in reader.obligations if z3.is_false(model.eval(obligation.condition, True))]
    if broken:
        text = f"{broken[0].place}: a shift by {SHIFT_LIMIT} or more"
    else:
        text = counterexample(lambda term: model.eval(term, True).as_long())
    return Verdict(outcome=Outcome.REFUTED, covered=covered, counterexample=text)
