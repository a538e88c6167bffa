"""Mutants of the scalar core: one fault each, by fixed operators, made from its syntax tree.

The operators: a relation for its neighbour (> for >=, == for !=), a constant or a shift one more or one less, a term dropped,
AND for OR and + for -, the operands of - or of a shift swapped, the first two arguments of a call, the arms of a conditional,
`min` for `max`.
"""

from __future__ import annotations

import ast
import zlib
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from types import ModuleType

from mutants import module_of

from qsim.kernels import core

SOURCE = Path(core.__file__).read_text(encoding="utf-8")
FUNCTIONS = (
    "addend", "eps_addend", "last_to_zero", "exceeds", "negative", "of_sign", "binade", "along", "deterministic",
    "counting", "stochastic", "signed", "ranged", "unless_nan", "sign_unless_zero", "sign_always", "clamped", "bounded",
    "counted", "mirrored", "reflected", "round_bits", "round_word",
)  # fmt: skip
"""What a rounding to values and to codes is made of; Philox has its known answers."""

RELATIONS = {
    ast.Gt: (ast.GtE, ast.Lt), ast.GtE: (ast.Gt, ast.LtE), ast.Lt: (ast.LtE, ast.Gt), ast.LtE: (ast.Lt, ast.GtE),
    ast.Eq: (ast.NotEq,), ast.NotEq: (ast.Eq,),
}  # fmt: skip
OPERATORS = {
    ast.Add: (ast.Sub, ast.BitOr), ast.Sub: (ast.Add,), ast.BitAnd: (ast.BitOr,), ast.BitOr: (ast.BitAnd, ast.Add),
    ast.BitXor: (ast.BitOr,), ast.LShift: (ast.RShift,), ast.RShift: (ast.LShift,),
}  # fmt: skip


@dataclass(frozen=True)
class Mutant:
    """Hold one faulty core: where the fault is, what it is, and the source."""

    name: str
    function: str
    source: str

    def module(self, folder: Path) -> ModuleType:
        """Write the source into `folder` and import it."""
        path = folder / f"mutant_{zlib.crc32(self.name.encode())}.py"
        path.write_text(self.source, encoding="utf-8")
        return module_of(path)


def changes(node: ast.AST) -> Iterator[ast.AST]:
    """Yield what may stand in place of `node`, each one fault away."""
    match node:
        case ast.Compare(ops=[relation]):
            for other in RELATIONS[type(relation)]:
                yield ast.Compare(left=node.left, ops=[other()], comparators=node.comparators)
        case ast.BinOp():
            for operator in OPERATORS[type(node.op)]:
                yield ast.BinOp(left=node.left, op=operator(), right=node.right)
            if isinstance(node.op, ast.Sub | ast.LShift | ast.RShift):
                yield ast.BinOp(left=node.right, op=node.op, right=node.left)
            yield node.left
            if not isinstance(node.op, ast.LShift | ast.RShift):
                yield node.right
            else:
                for operator in (ast.Add(), ast.Sub()):
                    yield ast.BinOp(left=node.left, op=node.op, right=_word(node.right, operator))
        case ast.Constant(value=int(value)):
            yield ast.Constant(value=value + 1)
            if value:
                yield ast.Constant(value=value - 1)
        case ast.IfExp():
            yield ast.IfExp(test=node.test, body=node.orelse, orelse=node.body)
        case ast.UnaryOp(op=ast.Invert()):
            yield node.operand
        case ast.Call(func=ast.Name(id=("min" | "max") as name)):
            yield ast.Call(func=ast.Name(id="max" if name == "min" else "min"), args=node.args, keywords=[])
        case ast.Call(args=[first, second, *rest]) if len(rest):
            yield ast.Call(func=node.func, args=[second, first, *rest], keywords=[])


def _word(term: ast.expr, operator: ast.operator) -> ast.expr:
    """Return word(`term` +- word(1)), as every intermediate must be written."""
    one = ast.Call(func=ast.Name(id="word"), args=[ast.Constant(value=1)], keywords=[])
    shifted = ast.BinOp(left=term, op=operator, right=one)
    return ast.Call(func=ast.Name(id="word"), args=[shifted], keywords=[])


def mutants() -> list[Mutant]:
    """Return all mutants of the functions, in the order of the source.

    A name says the function, the variable and the change, and the node's number where one line has the change in two places.
    """
    tree = ast.parse(SOURCE)
    texts = [ast.unparse(statement) for statement in tree.body]
    found = []
    for number, function in enumerate(tree.body):
        if not (isinstance(function, ast.FunctionDef) and function.name in FUNCTIONS):
            continue
        nodes = [(line, node) for line in function.body[1:] for node in ast.walk(line)]
        for at, (line, node) in enumerate(nodes):
            place = ast.unparse(line.targets[0]) if isinstance(line, ast.Assign) else "return"
            for change in changes(node):
                name = f"{function.name}, {place}: {ast.unparse(node)} -> {ast.unparse(change)}"
                _Replace(node, change).visit(function)  # and back: a copy of the tree for each would take seconds
                source = "\n".join([*texts[:number], ast.unparse(function), *texts[number + 1 :], ""])
                _Replace(change, node).visit(function)
                found.append((name, at, Mutant(name, function.name, source)))
    times = Counter(name for name, _, _ in found)
    return [mutant if times[name] == 1 else replace(mutant, name=f"{name} [{at}]") for name, at, mutant in found]


class _Replace(ast.NodeTransformer):
    """Put `change` in place of the node `target`."""

    def __init__(self, target: ast.AST, change: ast.AST) -> None:
        self.target, self.change = target, change

    def visit(self, node: ast.AST) -> ast.AST:
        return self.change if node is self.target else self.generic_visit(node)
