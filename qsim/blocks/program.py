"""The steps of a recipe: lines "name = expression", in which every operation is one rounding.

A line is an expression of Python: + - * /, comparisons, `a if c else b`, and the functions below. Each operation rounds to
nearest even in float32. The names that it may use: m, the largest magnitude of the block, A, that of the tensor, x, an
element, all of them as they are in the input, and the names of lines before it. Functions:

    min, max, clamp(v, low, high), abs, floor, ceil; isnan(v)     as arrays of floats have them; NaN stays
    log2(v), ln(v)          rounded once
    exponent(v)             the exponent field of a float32, 0 .. 255
    fraction(v)             its fraction field, 0 .. 2^23 - 1
    add_to_bits(v, n)       the float32 whose pattern is n more
    power(k)                2^k for a whole number k, -127 .. 127; NaN for others
    scale(v, "rule")        the scale by a rule of `qsim.blocks.scales`
    FORMAT(v), FORMAT(v, "MODE")     v rounded to a format by its name or alias, saturating: e4m3(v), bf16(v), e4m3(v, "RUP")

Two interpreters read the same lines: `Arrays`, by NumPy, and `Rationals`, by exact fractions, each rounded by
`qsim.reference`.
"""

from __future__ import annotations

import ast
import decimal
import functools
import math
import struct
from dataclasses import dataclass
from fractions import Fraction
from typing import Any, Protocol

import numpy as np

from qsim import reference
from qsim.arrays import quantize
from qsim.blocks.formats import BlockFormat, floor_log2
from qsim.blocks.scales import exact_scale, scales_of
from qsim.errors import InputError, shown
from qsim.formats import get_format

__all__ = ["Arithmetic", "Arrays", "Program", "Rationals", "parse"]

FUNCTIONS = {
    "min": 2, "max": 2, "clamp": 3, "abs": 1, "floor": 1, "ceil": 1, "isnan": 1, "log2": 1, "ln": 1,
    "exponent": 1, "fraction": 1, "add_to_bits": 2, "power": 1,
}  # fmt: skip
"""The functions that are no formats, with the number of their arguments."""

GIVEN = frozenset({"x", "m", "A", "top"})
"""What every program knows; `top` is the value onto which a choice of several scales maps the maximum."""

OPERATORS = {ast.Add: "add", ast.Sub: "sub", ast.Mult: "mul", ast.Div: "div"}
COMPARISONS = {ast.Eq: "eq", ast.NotEq: "ne", ast.Lt: "lt", ast.LtE: "le", ast.Gt: "gt", ast.GtE: "ge"}


class Arithmetic(Protocol):
    """An interpreter of programs: constants, operations, choices and functions."""

    def constant(self, value: float) -> Any:
        """Return a number of a line."""

    def operate(self, name: str, a: Any, b: Any) -> Any:
        """Return the rounded result of add, sub, mul or div."""

    def compare(self, name: str, a: Any, b: Any) -> Any:
        """Return whether eq, ne, lt, le, gt or ge holds."""

    def choose(self, condition: Any, a: Any, b: Any) -> Any:
        """Return `a` where the condition holds, else `b`."""

    def call(self, name: str, arguments: list[Any]) -> Any:
        """Return the value of one of `FUNCTIONS`."""

    def convert(self, fmt: str, mode: str, v: Any) -> Any:
        """Return v rounded to a format, saturating."""

    def scale(self, v: Any, rule: str) -> Any:
        """Return the scale by a rule."""


@dataclass(frozen=True, slots=True)
class Program:
    """Hold the lines of a recipe, each parsed."""

    lines: tuple[str, ...]
    steps: tuple[tuple[str, ast.expr], ...]
    #: The names that depend on the element x, and on the block's maximum m.
    of_element: frozenset[str]
    of_block: frozenset[str]
    #: The names, of whatever level, that the lines of elements use.
    for_elements: frozenset[str] = frozenset()

    def run(self, by: Arithmetic, known: dict[str, Any], level: str) -> None:
        """Add to `known` the names of one level: "tensor", "block" or "element"."""
        for name, expression in self.steps:
            own = "element" if name in self.of_element else "block" if name in self.of_block else "tensor"
            if own == level:
                known[name] = _value(expression, by, known)

    def has(self, name: str) -> bool:
        """Return whether a line makes `name`."""
        return any(name == own for own, _ in self.steps)


@functools.lru_cache(maxsize=512)
def parse(lines: tuple[str, ...], where: str, more: frozenset[str] = frozenset()) -> Program:
    """Return the program of these lines; raise `InputError` naming the line and its fault."""
    steps: list[tuple[str, ast.expr]] = []
    known = set(GIVEN | more)
    of_element, of_block = {"x", "q"}, {"m", "top", "s"} if "q" in more else {"m", "top"}
    for line in lines:
        try:
            tree = ast.parse(line).body
        except SyntaxError:
            tree = []
        node = tree[0] if len(tree) == 1 else None
        if not isinstance(node, ast.Assign) or len(node.targets) != 1 or not isinstance(node.targets[0], ast.Name):
            raise InputError(f"{where}: {shown(line)} must be one line 'name = expression'")
        name = node.targets[0].id
        if name in GIVEN:
            raise InputError(f"{where}: {shown(line)} changes {name}, which is given; take another name")
        used = _check(node.value, f"{where}: {shown(line)}", known)
        if used & of_element:
            of_element.add(name)
        elif used & of_block:
            of_block.add(name)
        known.add(name)
        steps.append((name, node.value))
    used_there = {
        inner.id
        for name, expression in steps
        if name in of_element
        for inner in ast.walk(expression)
        if isinstance(inner, ast.Name)
    }
    return Program(lines, tuple(steps), frozenset(of_element), frozenset(of_block), frozenset(used_there))


def _check(node: ast.expr, where: str, known: set[str]) -> set[str]:
    """Return the names that an expression uses; refuse other syntax."""
    match node:
        case ast.Constant(value=int() | float()):
            return set()
        case ast.UnaryOp(op=ast.USub(), operand=operand):
            return _check(operand, where, known)
        case ast.Name(id=name):
            if name not in known:
                raise InputError(f"{where}: {name} is not known here; {', '.join(sorted(known))} are")
            return {name}
        case ast.BinOp(left=ast.Constant(), op=ast.Pow(), right=right):
            return _check(right, where, set())
        case ast.BinOp(left=left, op=op, right=right) if type(op) in OPERATORS:
            return _check(left, where, known) | _check(right, where, known)
        case ast.Compare(left=left, ops=[op], comparators=[right]) if type(op) in COMPARISONS:
            return _check(left, where, known) | _check(right, where, known)
        case ast.IfExp(test=test, body=body, orelse=orelse):
            return _check(test, where, known) | _check(body, where, known) | _check(orelse, where, known)
        case ast.Call(func=ast.Name(id=name), args=arguments, keywords=[]):
            words = [one.value for one in arguments if isinstance(one, ast.Constant) and isinstance(one.value, str)]
            values = [one for one in arguments if not (isinstance(one, ast.Constant) and isinstance(one.value, str))]
            if name in FUNCTIONS:
                if words or len(values) != FUNCTIONS[name]:
                    raise InputError(f"{where}: {name} takes {FUNCTIONS[name]} numbers")
            elif len(values) != 1 or len(words) > 1 or (name == "scale" and not words):
                raise InputError(f"{where}: {name} takes one number" + (" and a rule" if name == "scale" else ""))
            elif name != "scale":
                try:
                    get_format(name)
                except InputError:
                    raise InputError(f"{where}: {name} is no function and no format") from None
            return set().union(*(_check(one, where, known) for one in values))
        case _:
            raise InputError(f"{where}: {ast.unparse(node)} is nothing that a step may hold")


def _constant(node: ast.expr) -> float:
    """Return the number of a constant expression: powers have numbers alone."""
    value = ast.literal_eval(node) if not isinstance(node, ast.BinOp) else None
    if value is None:
        assert isinstance(node, ast.BinOp)
        value = ast.literal_eval(node.left) ** ast.literal_eval(node.right)
    return float(value)


def _value(node: ast.expr, by: Arithmetic, known: dict[str, Any]) -> Any:
    match node:
        case ast.Constant():
            return by.constant(_constant(node))
        case ast.UnaryOp(operand=operand):
            if isinstance(operand, ast.Constant):
                return by.constant(-_constant(operand))
            return by.operate("mul", _value(operand, by, known), by.constant(-1.0))
        case ast.Name(id=name):
            return known[name]
        case ast.BinOp(op=ast.Pow()):
            return by.constant(_constant(node))
        case ast.BinOp(left=left, op=op, right=right):
            return by.operate(OPERATORS[type(op)], _value(left, by, known), _value(right, by, known))
        case ast.Compare(left=left, ops=[op], comparators=[right]):
            return by.compare(COMPARISONS[type(op)], _value(left, by, known), _value(right, by, known))
        case ast.IfExp(test=test, body=body, orelse=orelse):
            return by.choose(_value(test, by, known), _value(body, by, known), _value(orelse, by, known))
        case ast.Call(func=ast.Name(id=name), args=arguments):
            words = [one.value for one in arguments if isinstance(one, ast.Constant) and isinstance(one.value, str)]
            if name in FUNCTIONS:
                return by.call(name, [_value(one, by, known) for one in arguments])
            v = _value(arguments[0], by, known)
            return by.scale(v, words[0]) if name == "scale" else by.convert(name, (words or ["RNE"])[0], v)
        case _:
            raise AssertionError(ast.dump(node))


# --- By arrays -------------------------------------------------------------------------------------------------------


class Arrays:
    """Run programs over arrays of float32, or of float64 for such an input, each operation one of NumPy's."""

    def __init__(self, fmt: BlockFormat, dtype: np.dtype[Any]) -> None:
        self.fmt, self.dtype = fmt, dtype
        self.word = np.dtype(f"u{dtype.itemsize}")
        self.fraction_bits = 23 if dtype.itemsize == 4 else 52

    def constant(self, value: float) -> Any:
        """Return a number of a line."""
        return self.dtype.type(value)

    def operate(self, name: str, a: Any, b: Any) -> Any:
        """Return the rounded result of add, sub, mul or div."""
        return {"add": np.add, "sub": np.subtract, "mul": np.multiply, "div": np.divide}[name](a, b)

    def compare(self, name: str, a: Any, b: Any) -> Any:
        """Return whether eq, ne, lt, le, gt or ge holds."""
        by = {
            "eq": np.equal, "ne": np.not_equal, "lt": np.less, "le": np.less_equal,
            "gt": np.greater, "ge": np.greater_equal,
        }  # fmt: skip
        return by[name](a, b)

    def choose(self, condition: Any, a: Any, b: Any) -> Any:
        """Return `a` where the condition holds, else `b`."""
        return np.where(condition, a, b)

    def call(self, name: str, arguments: list[Any]) -> Any:
        """Return the value of one of `FUNCTIONS`."""
        v = np.asarray(arguments[0], self.dtype)
        match name:
            case "min":
                return np.minimum(v, arguments[1])
            case "max":
                return np.maximum(v, arguments[1])
            case "clamp":
                return np.minimum(np.maximum(v, arguments[1]), arguments[2])
            case "isnan":
                return np.isnan(v)
            case "log2":  # of 53 bits, rounded to 24
                return np.log2(v.astype(np.float64)).astype(self.dtype)
            case "ln":
                return np.log(v.astype(np.float64)).astype(self.dtype)
            case "exponent":
                field = v.view(self.word) << self.word.type(1) >> self.word.type(self.fraction_bits + 1)
                return field.astype(self.dtype)
            case "fraction":
                return (v.view(self.word) & self.word.type((1 << self.fraction_bits) - 1)).astype(self.dtype)
            case "add_to_bits":
                return (v.view(self.word) + self.word.type(int(arguments[1]))).view(self.dtype)
            case "power":
                whole = np.isfinite(v) & (np.abs(v) <= 127)
                return np.where(whole, np.ldexp(self.dtype.type(1), np.where(whole, v, 0).astype(np.int32)), np.nan)
            case _:
                return {"abs": np.abs, "floor": np.floor, "ceil": np.ceil}[name](v)

    def convert(self, fmt: str, mode: str, v: Any) -> Any:
        """Return v rounded to a format, saturating."""
        return quantize(np.asarray(v, self.dtype), fmt, mode, saturation="SatFinite" if clamps(fmt) else None)

    def scale(self, v: Any, rule: str) -> Any:
        """Return the scale by a rule."""
        m = np.asarray(v, self.dtype)
        finite = np.isfinite(m)
        return np.where(finite, scales_of(np.where(finite, m, 0), self.fmt, rule), self.dtype.type(np.nan))


@functools.cache
def clamps(fmt: str) -> bool:
    """Return whether a conversion of a recipe clamps: to the narrow formats, as their instructions do, but not to 16 bits."""
    own = get_format(fmt)
    return own.kind == "float" and own.bits <= 8


# --- By rationals ----------------------------------------------------------------------------------------------------


class Rationals:
    """Run programs over single Python floats, each operation exact and then rounded by `qsim.reference`."""

    def __init__(self, fmt: BlockFormat, precision: str = "float32") -> None:
        self.fmt, self.precision = fmt, precision

    def _rounded(self, exact: Fraction, negative: bool) -> float:
        y = reference.quantize(exact, self.precision)
        return math.copysign(y, -1.0 if negative else 1.0)

    def constant(self, value: float) -> float:
        """Return a number of a line."""
        return reference.quantize(value, self.precision)

    def operate(self, name: str, a: float, b: float) -> float:
        """Return the rounded result of add, sub, mul or div."""
        if not (math.isfinite(a) and math.isfinite(b)) or (name == "div" and not b):
            return _special(name, a, b)
        p, q = Fraction(a), Fraction(b)
        exact = p + q if name == "add" else p - q if name == "sub" else p * q if name == "mul" else p / q
        if name in ("mul", "div"):
            return self._rounded(exact, math.copysign(1.0, a) * math.copysign(1.0, b) < 0)
        if not exact:  # of zeros, or of opposite numbers
            return a + b if name == "add" else a - b
        return self._rounded(exact, exact < 0)

    def compare(self, name: str, a: float, b: float) -> bool:
        """Return whether eq, ne, lt, le, gt or ge holds."""
        return {"eq": a == b, "ne": a != b, "lt": a < b, "le": a <= b, "gt": a > b, "ge": a >= b}[name]

    def choose(self, condition: bool, a: float, b: float) -> float:
        """Return `a` where the condition holds, else `b`."""
        return a if condition else b

    def call(self, name: str, arguments: list[Any]) -> Any:
        """Return the value of one of `FUNCTIONS`."""
        v = arguments[0]
        match name:
            case "min" | "max":
                return math.nan if any(map(math.isnan, arguments)) else (min if name == "min" else max)(arguments)
            case "clamp":
                return math.nan if math.isnan(v) else min(max(v, arguments[1]), arguments[2])
            case "isnan":
                return math.isnan(v)
            case "log2" | "ln":
                if math.isnan(v) or v < 0:
                    return math.nan
                if not v or math.isinf(v):
                    return -math.inf if not v else math.inf
                return self._logarithm(Fraction(v), name)
            case "exponent" | "fraction" | "add_to_bits":
                return self._field(name, *arguments)
            case "power":
                return math.ldexp(1.0, int(v)) if math.isfinite(v) and abs(v) <= 127 else math.nan
            case "abs":
                return abs(v)
            case _:
                whole = (math.floor if name == "floor" else math.ceil)(v) if math.isfinite(v) else v
                return math.copysign(whole, v) if not whole else float(whole)

    def _logarithm(self, x: Fraction, name: str) -> float:
        if x == 1:
            return 0.0
        exponent = floor_log2(x)
        if name == "log2" and x == Fraction(2) ** exponent:
            return self._rounded(Fraction(exponent), exponent < 0)
        with decimal.localcontext() as context:
            context.prec = 40  # no logarithm of a number of 53 bits lies so close to a midpoint of theirs
            significand = x / Fraction(2) ** exponent
            y = (decimal.Decimal(significand.numerator) / decimal.Decimal(significand.denominator)).ln()
            two = decimal.Decimal(2).ln()
            y = y / two + exponent if name == "log2" else y + exponent * two
        return self._rounded(Fraction(y), y < 0)

    def _field(self, name: str, v: float, n: float = 0.0) -> float:
        small = self.precision == "float32"
        pattern = struct.unpack("<I" if small else "<Q", struct.pack("<f" if small else "<d", v))[0]
        bits = 23 if small else 52
        if name == "exponent":
            return float((pattern >> bits) & (0xFF if small else 0x7FF))
        if name == "fraction":
            return float(pattern & ((1 << bits) - 1))
        moved = pattern + int(n)
        return float(struct.unpack("<f" if small else "<d", struct.pack("<I" if small else "<Q", moved))[0])

    def convert(self, fmt: str, mode: str, v: float) -> float:
        """Return v rounded to a format, saturating."""
        return reference.quantize(v, fmt, mode, saturation="SatFinite" if clamps(fmt) else None)

    def scale(self, v: float, rule: str) -> float:
        """Return the scale by a rule."""
        if not math.isfinite(v):
            return math.nan
        return float(exact_scale(Fraction(v), self.fmt, rule, self.precision))


def _special(name: str, a: float, b: float) -> float:
    """Return the result of an operation with an infinity, a NaN or a division by zero, as IEEE 754 has it."""
    with np.errstate(all="ignore"):
        p, q = np.float64(a), np.float64(b)
        return float(p + q if name == "add" else p - q if name == "sub" else p * q if name == "mul" else p / q)
