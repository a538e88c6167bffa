"""The scalar core with one fault in its source, and modules of files that a test wrote."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType

from qsim.kernels import core


def module_of(path: Path) -> ModuleType:
    """Return the module that the file at `path` is."""
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def mutant(folder: Path, old: str, new: str) -> ModuleType:
    """Return the scalar core with `old` in its source replaced by `new`."""
    source = Path(core.__file__).read_text(encoding="utf-8")
    assert source.count(old) == 1
    path = folder / "mutant.py"
    path.write_text(source.replace(old, new), encoding="utf-8")
    return module_of(path)


MUTANTS = {
    "tie rule flipped": ("t = odd if is_odd else even", "t = even if is_odd else odd"),
    "threshold off by one": ("else f > t)", "else f >= t)"),
    "parity of the code dropped": ("(p.parity if s == p.fraction_bits else word(0))", "word(0)"),
    "never odd": ("(word(1) if inside else word(0))", "word(0)"),
    "fraction one bit low": ("word(m << word(1)) <<", "word(m << word(0)) <<"),
    "hidden bit forgotten": ("word(field | (hidden if a >= hidden else word(0)))", "field"),
    "grid one place low": ("word(position + p.discard)", "word(position + word(p.discard - word(1)))"),
    "grid without floor": ("word(max(p.floor, word(position + p.discard)) - position)", "p.discard"),
    "last value before zero lost": ("(p.quantum if up > word(0) else word(0))", "word(0)"),
    "no carry": ("word(word(low + up) << places)", "word(word(low | up) << places)"),
    "limit excluded": ("if y > limit", "if y >= limit"),
    "sign lost": ("word(y | word(u & p.sign))", "y"),
    "negative zero lost": ("> word(0) else (p.zero_neg if negative else p.zero_pos)", "> word(0) else p.zero_pos"),
    "infinity taken for NaN": ("word(u & p.nan_sign)) if a > p.inf", "word(u & p.nan_sign)) if a >= p.inf"),
    "NaN taken for a number": ("return word(p.nan | word(u & p.nan_sign)) if a > p.inf else finite", "return finite"),
    "wrong bias in the code": ("- p.rebias)", "+ p.rebias)"),
    "subnormal codes shifted": ("min(word(max(p.floor, position) - position), p.last)", "p.discard"),
    "all codes negative": ("signed = mirrored if negative else ranged", "signed = mirrored"),
}  # fmt: skip
"""What stands in the core, and what a fault puts in its place."""
