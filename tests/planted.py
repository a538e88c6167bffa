"""Faults planted in the engine: one change of one expression each, by fixed operators, and the tests that must see it.

As a plugin of pytest (`-p planted`) it puts the source that `PLANTED` names in the place of its module, before a test imports
it.

The operators: + for -, * for /, and back; a term or a factor left out; a relation for its neighbour; a number one more; the
arms of a conditional expression swapped; a minus sign dropped; `max` for `min`, `maximum` for `minimum`, `argmax` for `argmin`,
a sum for a mean; the first two arguments of a call swapped; True for False; one key of a function for another. Checks of
arguments (`if ...: raise`) are left alone: the tests of refusals hold them.
"""

from __future__ import annotations

import ast
import importlib.util
import os
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from importlib.abc import MetaPathFinder
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
FOUND = importlib.util.find_spec("qsim")  # without importing it
assert FOUND is not None
assert FOUND.origin is not None
PACKAGE = Path(FOUND.origin).parent

AUTOGRAD = (
    "autograd_forward", "autograd_operations", "autograd_infinities", "autograd_evaluation", "autograd_inputs", "autograd",
    "autograd_choices",
)  # fmt: skip
TESTS: Mapping[str, tuple[str, ...]] = {
    "autograd/attention": AUTOGRAD,
    "autograd/context": (
        "autograd_choices",
        "autograd_clamp",
        "autograd",
        "autograd_operations",
        "autograd_threads",
        "autograd_inputs",
        "measure_gradients",
    ),
    "autograd/convolution": AUTOGRAD,
    "autograd/losses": AUTOGRAD,
    "autograd/matmul": AUTOGRAD,
    "autograd/norms": AUTOGRAD,
    "autograd/pointwise": AUTOGRAD,
    "autograd/pooling": AUTOGRAD,
    "autograd/scaling": ("autograd_choices", "autograd"),
    "autograd/tape": (
        "autograd",
        "autograd_operations",
        "autograd_evaluation",
        "autograd_inputs",
        "autograd_threads",
        "autograd_choices",
    ),
    "nn/llama": ("autograd_forward", "autograd_evaluation", "nn", "nn_models"),
    "nn/mlp": ("autograd_forward", "autograd_evaluation", "nn", "nn_models"),
    "nn/wideresnet": ("autograd_forward", "autograd_evaluation", "nn", "nn_models"),
    "optim/accumulate": ("optim_parallel", "optim_checkpoint", "optim_types"),
    "optim/adafactor": ("optim", "optim_rounding", "optim_norms", "optim_extremes"),
    "optim/adamw": ("optim", "optim_rounding", "optim_types"),
    "optim/clipping": ("optim_norms", "optim", "optim_extremes"),
    "optim/dqt": ("optim_dqt", "optim_extremes"),
    "optim/loss_scale": ("optim", "optim_checkpoint", "optim_refusals", "optim_types"),
    "optim/parallel": ("optim_parallel", "optim_types"),
    "optim/rounding": ("optim_rounding", "optim_sites", "optim_parallel", "optim_dqt"),
    "optim/schedules": ("optim",),
    "optim/sgd": ("optim", "optim_rounding"),
    "optim/writeback": ("optim_rounding", "optim", "optim_types"),
    "measure/estimates": ("measure", "measure_gradients"),
    "measure/gradients": ("measure_gradients",),
    "measure/predictions": ("measure_gradients",),
}
"""The modules in which faults are planted, and the test files that must see them, the likeliest first."""

OPERATORS: Mapping[type[ast.operator], tuple[type[ast.operator], ...]] = {
    ast.Add: (ast.Sub,), ast.Sub: (ast.Add,), ast.Mult: (ast.Div,), ast.Div: (ast.Mult,), ast.FloorDiv: (ast.Mult,),
    ast.BitAnd: (ast.BitOr,), ast.BitOr: (ast.BitAnd,),
}  # fmt: skip
RELATIONS: Mapping[type[ast.cmpop], tuple[type[ast.cmpop], ...]] = {
    ast.Gt: (ast.GtE, ast.Lt), ast.GtE: (ast.Gt, ast.LtE), ast.Lt: (ast.LtE, ast.Gt), ast.LtE: (ast.Lt, ast.GtE),
    ast.Eq: (ast.NotEq,), ast.NotEq: (ast.Eq,), ast.Is: (ast.IsNot,), ast.IsNot: (ast.Is,),
}  # fmt: skip
NAMES = {
    "max": "min",
    "min": "max",
    "maximum": "minimum",
    "minimum": "maximum",
    "argmax": "argmin",
    "mean": "sum",
    "sum": "mean",
}


@dataclass(frozen=True)
class Fault:
    """Hold one fault: its name, and the module's source with it."""

    name: str
    module: str
    source: str

    def survives(self, folder: Path, *, seconds: float = 120) -> bool:
        """Whether all tests of the module pass with it; one that runs for ever is seen too."""
        path = folder / "planted_source.py"
        path.write_text(self.source, encoding="utf-8")
        files = [str(HERE / f"test_{name}.py") for name in TESTS[self.module]]
        command = [
            sys.executable,
            "-m",
            "pytest",
            "-x",
            "-q",
            "-p",
            "planted",
            "-p",
            "no:cacheprovider",
            "-p",
            "no:xdist",
            *files,
        ]
        given = {name: value for name, value in os.environ.items() if name != "QSIM_OLDEST"}  # every case, also there
        given |= {"PLANTED": f"qsim.{self.module.replace('/', '.')}={path}", "PYTHONPATH": str(HERE)}
        with subprocess.Popen(
            command,
            env=given,
            cwd=HERE.parent,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        ) as run:
            try:
                told, _ = run.communicate(timeout=seconds)
            except subprocess.TimeoutExpired:
                os.killpg(run.pid, 9)
                return False
        assert run.returncode in {0, 1, 2}, told  # 2: the module cannot even be imported
        return run.returncode == 0


def changes(node: ast.AST, keys: Mapping[str, Sequence[str]]) -> Iterator[ast.AST]:
    """Yield the nodes one fault away from `node`; `keys` are the keys by which the function takes items of each mapping."""
    match node:
        case ast.Subscript(slice=ast.Constant(value=str(key))):
            all_keys = keys[ast.unparse(node.value)]
            other = all_keys[(all_keys.index(key) + 1) % len(all_keys)]
            yield ast.Subscript(value=node.value, slice=ast.Constant(value=other), ctx=node.ctx)
        case ast.BinOp(op=operator) if type(operator) in OPERATORS:
            for other in OPERATORS[type(operator)]:
                yield ast.BinOp(left=node.left, op=other(), right=node.right)
            yield node.left
            if isinstance(operator, ast.Add | ast.Mult):
                yield node.right
        case ast.Compare(ops=[relation]) if type(relation) in RELATIONS:
            for cmp in RELATIONS[type(relation)]:
                yield ast.Compare(left=node.left, ops=[cmp()], comparators=node.comparators)
        case ast.Constant(value=bool(value)):
            yield ast.Constant(value=not value)
        case ast.Constant(value=int(value) | float(value)):
            yield ast.Constant(value=value + 1)
        case ast.IfExp():
            yield ast.IfExp(test=node.test, body=node.orelse, orelse=node.body)
        case ast.UnaryOp(op=ast.USub() | ast.Not()):
            yield node.operand
        case ast.Call(func=ast.Name(id="max" | "min" as name)):
            yield ast.Call(func=ast.Name(id=NAMES[name]), args=node.args, keywords=node.keywords)
        case ast.Call(func=ast.Attribute(attr=name)) if name in NAMES:
            yield ast.Call(
                func=ast.Attribute(value=node.func.value, attr=NAMES[name]), args=node.args, keywords=node.keywords
            )
        case ast.Call(args=[first, second, *rest]) if not isinstance(first, ast.Starred) and not isinstance(
            second, ast.Starred
        ):
            yield ast.Call(func=node.func, args=[second, first, *rest], keywords=node.keywords)


def expressions(node: ast.AST) -> Iterator[ast.AST]:
    """Yield the nodes in which a fault may be planted: no annotation, text, decorator, check or message."""
    match node:
        case ast.JoinedStr() | ast.Raise() | ast.Assert() | ast.Import() | ast.ImportFrom():
            return
        case ast.If(body=[ast.Raise()], orelse=[]):
            return
        case ast.Call(func=ast.Name(id="isinstance" | "InputError" | "getattr" | "hasattr")):
            return
    yield node
    if isinstance(node, ast.UnaryOp) and isinstance(node.operand, ast.Constant):
        return  # of an axis, or of a length to be found, -2 is often as good as -1
    for name, value in ast.iter_fields(node):
        if name in {"annotation", "returns", "decorator_list", "type_params", "slice"} and not isinstance(
            node, ast.Subscript
        ):
            continue
        for child in value if isinstance(value, list) else [value]:
            if isinstance(child, ast.AST):
                yield from expressions(child)


def faults(module: str) -> list[Fault]:
    """Return all faults of a module, in the order of its source; a name says the function, the line's text and the change."""
    tree = ast.parse((PACKAGE / f"{module}.py").read_text(encoding="utf-8"))
    found: list[Fault] = []
    for function in ast.walk(tree):
        if not isinstance(function, ast.FunctionDef) or function.name.startswith("__"):
            continue
        if any(
            function is not other and function in ast.walk(other)
            for other in ast.walk(tree)
            if isinstance(other, ast.FunctionDef)
        ):
            continue  # an inner function is a part of its outer one
        keys: dict[str, list[str]] = {}
        for node in ast.walk(function):
            if (
                isinstance(node, ast.Subscript)
                and isinstance(node.slice, ast.Constant)
                and isinstance(node.slice.value, str)
            ):
                keys.setdefault(ast.unparse(node.value), []).append(node.slice.value)
        for node in [node for line in function.body for node in expressions(line)]:
            for change in changes(node, keys):
                before, after = ast.unparse(node), ast.unparse(change)
                if before == after:
                    continue
                name = f"{module}.{function.name}: {before} -> {after}"
                _Replace(node, change).visit(function)
                found.append(Fault(name, module, ast.unparse(ast.fix_missing_locations(tree))))
                _Replace(change, node).visit(function)
    times: Counter[str] = Counter()
    for number, fault in enumerate(found):
        times[fault.name] += 1
        if times[fault.name] > 1:
            found[number] = replace(fault, name=f"{fault.name} [{times[fault.name]}]")
    return found


def replaced(module: str, *pairs: tuple[str, str]) -> Fault:
    """Return the module with other texts in place of some of its own, each of which it must have."""
    source = (PACKAGE / f"{module}.py").read_text(encoding="utf-8")
    for old, new in pairs:
        assert old in source, old
        source = source.replace(old, new)
    return Fault(f"{module}: {pairs[0][0]}", module, source)


class _Replace(ast.NodeTransformer):
    """Put `change` in place of the node `target`."""

    def __init__(self, target: ast.AST, change: ast.AST) -> None:
        self.target, self.change = target, change

    def visit(self, node: ast.AST) -> ast.AST:
        return self.change if node is self.target else self.generic_visit(node)


class Planted(MetaPathFinder):
    """Find the source with the fault where its module is asked for."""

    def __init__(self, module: str, path: str) -> None:
        self.module, self.path = module, path

    def find_spec(self, fullname: str, path: Any = None, target: Any = None) -> Any:
        """Return the planted module's spec, or leave the search to others."""
        del path, target
        return importlib.util.spec_from_file_location(fullname, self.path) if fullname == self.module else None


if "PLANTED" in os.environ:
    sys.meta_path.insert(0, Planted(*os.environ["PLANTED"].split("=", 1)))
