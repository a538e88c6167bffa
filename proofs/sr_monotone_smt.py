"""Stochastic rounding with one word for all keeps the order, and moves no value of the format.

Of two inputs in one interval, the larger leaves the larger fraction, and both meet the same threshold:

    lo ---- x ---- y ---------- hi        f(x) <= f(y), so f(x) > t implies f(y) > t
    0     f(x)   f(y)  t        1

The comparison must be strict: a value of the format has f = 0, and the largest word has the threshold 0.
"""

from qsim.formats import get_format
from qsim.kernels import core
from qsim.kernels.parameters import stochastic
from qsim.prove import Method, Theorem, all_held
from qsim.prove.specification import FLOAT32, evaluate, pair, value
from qsim.rounding import Mode, saturations

THEOREM = Theorem(
    statement="For float32 x <= y and any random word, shared by the two, round_bits gives x a value that is not above y's; "
    "and a value of the format is rounded to itself by every word",
    hypotheses=("x and y are not NaN", "the format is E4M3 or INT4; SRA, SRB or SRC"),
    idea="The kernel's source is read as terms over bit-vectors, for two inputs and one word.",
    method=Method.SMT,
    reference="IEEE P3109 interim report 4.0, 4.7.4; Tenstorrent's SFPSTOCHRND compares with >= and moves exact values",
    needs=("z3",),
)

FORMATS = ("float8_e4m3fn", "int4")
MODES = ((Mode.SR, 32), (Mode.SRA, 8), (Mode.SRB, 8), (Mode.SRC, 8))


def key(z3, u, sign):
    """Return a term that ascends with the number whose pattern is `u`; both zeros have one."""
    magnitude = u & (sign - 1)
    return z3.If(z3.UGE(u, sign), -magnitude, magnitude)


def rounding(fmt, mode, n, word):
    """Return the reader, its constants, and the rounding of a term by the random `word`."""
    from qsim.prove import smt

    both = pair(fmt, saturations(fmt)[0])
    reader, words = smt.Reader(), smt.constants(both.value)
    r, sticky = reader.call(core.addend, word, smt.constants(stochastic(mode, n, FLOAT32.dtype)))
    return reader, words, r, sticky, both


def monotone(fmt, mode, n):
    """Ask for x <= y and a word that round x above y."""
    import z3

    from qsim.prove import smt

    x, y, w = z3.BitVecs("x y w", 32)
    reader, words, r, sticky, both = rounding(fmt, mode, n, w)
    a, b = (reader.call(core.round_word, u, r, sticky, words) for u in (x, y))
    sign = words.sign
    numbers = [z3.ULE(u & (sign - 1), words.inf) for u in (x, y)]
    claim = z3.Implies(z3.And(*numbers, key(z3, x, sign) <= key(z3, y, sign)), key(z3, a, sign) <= key(z3, b, sign))

    def counterexample(at):
        found = [value(evaluate(core, at(u), at(r), at(r), both, at(sticky)).value) for u in (x, y)]
        return (
            f"{value(at(x))!r} <= {value(at(y))!r} become {found[0]!r} and {found[1]!r} to {fmt} by the word {at(w):#x}"
        )

    return smt.decide(claim, reader, covered=f"{fmt}, {mode}", counterexample=counterexample)


def fixed(fmt, mode, n):
    """Ask for a result and a word that round it to something else."""
    import z3

    from qsim.prove import smt

    x, w, v = z3.BitVecs("x w v", 32)
    reader, words, r, sticky, _ = rounding(fmt, mode, n, w)
    first, source = reader.call(core.addend, v, smt.constants(stochastic(mode, n, FLOAT32.dtype)))
    on_grid = reader.call(core.round_word, x, first, source, words)
    again = reader.call(core.round_word, on_grid, r, sticky, words)

    def counterexample(at):
        return f"{value(at(on_grid))!r}, a value of {fmt}, becomes {value(at(again))!r} by the word {at(w):#x}"

    return smt.decide(again == on_grid, reader, covered=f"{fmt}, {mode}", counterexample=counterexample)


def prove(*, quick=False):
    """Prove both for each format and mode; in a quick run for E4M3 and all 32 bits."""
    cases = [(get_format(name), *choice) for name in FORMATS for choice in MODES]
    cases = cases[:1] if quick else cases
    tail = "E4M3 with 32 random bits (a quick run)" if quick else "E4M3 and INT4 by SR, and by SRA, SRB, SRC with N = 8"
    return all_held(
        (part(*case) for case in cases for part in (monotone, fixed)), f"all pairs of float32, all words: {tail}"
    )
