"""The scalar core with one fault in its source, theorems to plant it in, and modules of files that a test wrote."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

from qsim.kernels import core
from qsim.prove import Proof, find


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


def loaded(name: str) -> tuple[Proof, ModuleType]:
    """Return a theorem, and its module, loaded anew, to plant a fault in."""
    (proof,) = find([name])
    return proof, sys.modules[f"qsim_proof_{name}"]


OF_WORDS = {
    "carry off by one": ("up = word(f + more) >", "up = word(f + more) >="),
    "hidden bit forgotten": ("word(min(word(a >> p.fraction_bits), word(1)) << p.last)", "word(0)"),
    "fraction one bit high": ("word(m >> word(k & p.last))", "word(word(m << word(1)) >> word(k & p.last))"),
    "all of a word lost": ("f = shifted if inside else word(0)", "f = word(0)"),
    "first value by a word lost": ("small = p.smallest if up else word(0)", "small = word(0)"),
    "no step below the grid": ("near if exceeds(a, p.tiny, p) else small", "near"),
}  # fmt: skip
"""Faults that matter to random words alone: what stands in the core, and what a fault puts in its place."""

OF_SHORTCUTS = {
    "clamped to the other end": ("p.bottom if u >= p.sign else p.top", "p.top if u >= p.sign else p.bottom"),
    "not clamped": ("min(y, p.bottom if u >= p.sign else p.top)", "y"),
    "not bounded": ("sign_always(min(y, p.top)", "sign_always(y"),
    "not mirrored": ("sign_unless_zero(p.over_pos if exceeds(y, p.top, p) else y", "sign_unless_zero(y"),
    "limit of a mirror excluded": ("sign_unless_zero(p.over_pos if exceeds(y, p.top, p)",
                                   "sign_unless_zero(p.over_pos if y >= p.top"),
    "not reflected": ("sign_always(p.over_pos if exceeds(y, p.top, p) else y", "sign_always(y"),
    "limit of a reflection excluded": ("sign_always(p.over_pos if exceeds(y, p.top, p)",
                                       "sign_always(p.over_pos if y >= p.top"),
    "negative zero lost on the short way": ("word(y | word(negative(u, p) & p.minus))", "word(y | word(negative(u, p) & y))"),
    "zero with a sign": ("negative(word(u & word(word(0) - y)), p)", "negative(u, p)"),
    "code without its sign": ("^ mask) - mask) & p.flip)", "^ mask) - word(0)) & p.flip)"),
    "code with bits above it": ("^ mask) - mask) & p.flip)", "^ mask) - mask) & p.largest)"),
    "NaN taken for an end": ("return p.nan_pos if word(u & word(p.sign - word(1))) > p.inf else z", "return z"),
    "infinity for a NaN": ("if word(u & word(p.sign - word(1))) > p.inf", "if word(u & word(p.sign - word(1))) >= p.inf"),
}  # fmt: skip
"""Faults of the short ways to the ends of a range."""

OF_CODES = {
    "binade left in": ("m = word(a - word(word(e - word(1)) << p.fraction_bits))", "m = a"),
    "binade off with its hidden bit": ("m = word(a - word(word(e - word(1)) << p.fraction_bits))",
                                       "m = word(a - word(e << p.fraction_bits))"),
    "codes never odd": ("r = odd if word(m << rest) >= p.sign else even", "r = even"),
    "no carry of codes": ("word(m + word(word(r >> word(1)) >> rest))", "word(m | word(word(r >> word(1)) >> rest))"),
    "addend of codes one bit high": ("word(m + word(word(r >> word(1)) >> rest))", "word(m + word(r >> rest))"),
    "shifted too far": ("s = min(word(p.floor - e), p.last)", "s = p.last"),
}  # fmt: skip
"""Faults of the short way to a code."""

MUTANTS = {
    "tie rule flipped": ("r = odd if word(word(a ^ p.parity) << rest) >= p.sign else even",
                         "r = even if word(word(a ^ p.parity) << rest) >= p.sign else odd"),
    "addend off by one": ("word(a + word(word(r >> word(1)) >> rest))",
                          "word(word(a + word(word(r >> word(1)) >> rest)) + word(1))"),
    "parity of the code dropped": ("word(a ^ p.parity)", "a"),
    "never odd": ("r = odd if word(word(a ^ p.parity) << rest) >= p.sign else even", "r = even"),
    "addend one bit high": ("word(a + word(word(r >> word(1)) >> rest))", "word(a + word(r >> rest))"),
    "grid one place low": ("s = word(word(p.floor - e) & p.last)", "s = word(word(word(p.floor - e) - word(1)) & p.last)"),
    "grid without floor": ("min(max(word(a >> p.fraction_bits), word(1)), p.lowest)", "p.lowest"),
    "last value before zero lost": ("exceeds(a, small, p)", "exceeds(a, word(p.quantum - word(1)), p)"),
    "no smallest value": ("max(a, p.quantum) if exceeds", "a if exceeds"),
    "no carry": ("word(a + word(word(r >> word(1)) >> rest))", "word(a | word(word(r >> word(1)) >> rest))"),
    "not put back in place": ("word(n << word(s & p.keep))", "n"),
    "limit excluded": ("if exceeds(y, of_sign(mask, p.top, p.bottom), p) else z",
                       "if exceeds(word(y + word(1)), of_sign(mask, p.top, p.bottom), p) else z"),
    "no limit": ("z = of_sign(mask, p.over_pos, p.over_neg) if exceeds(y, of_sign(mask, p.top, p.bottom), p) else z", "z = z"),
    "sign lost": ("inside = signed(word(y - p.skip), mask, p)", "inside = word(y - p.skip)"),
    "negative zero lost": ("of_sign(mask, p.zero_pos, p.zero_neg)", "p.zero_pos"),
    "infinity taken for NaN": ("if a > p.inf else z", "if a >= p.inf else z"),
    "NaN taken for a number": ("return of_sign(mask, p.nan_pos, p.nan_neg) if a > p.inf else z", "return z"),
    "wrong bias in the code": ("- word(begins & p.count))", "+ word(begins & p.count))"),
    "binade begins late": ("word(word(e - word(1)) << word(", "word(e << word("),
    "all codes negative": ("+ word(mask & p.minus))", "+ p.minus)"),
    **OF_WORDS,
    **OF_SHORTCUTS,
    **OF_CODES,
}  # fmt: skip
"""What stands in the core, and what a fault puts in its place."""
