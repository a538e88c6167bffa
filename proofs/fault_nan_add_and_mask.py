"""A production fault: adding a word to a bfloat16's tail and masking it off makes numbers of NaN.

    NaN       0 11111111 1111111 1111111111111111      7fffffff
    + word                       0000000000000001
    masked    1 00000000 0000000 0000000000000000      80000000, which is -0

And a NaN whose payload lies in the tail alone becomes an infinity. With a guard, as in the kernel, NaN stays NaN.
"""

from qsim.formats import get_format
from qsim.kernels import core
from qsim.kernels.parameters import parameters, stochastic
from qsim.prove import Method, Theorem, settle
from qsim.prove.specification import FLOAT32
from qsim.rounding import Mode, Saturation
from qsim.verdicts import Outcome, Verdict

THEOREM = Theorem(
    statement="(u + r) & 0xffff0000 with 0 <= r < 2^16 and u the pattern of a float32: for every number u, infinities "
    "included, it is stochastic rounding to bfloat16 with N = 16, as the kernel does it; but it takes some NaN to -0 and some "
    "to infinity. The kernel takes every NaN to NaN, by every word",
    hypotheses=("overflow becomes infinity",),
    idea="Both are terms over bit-vectors; a solver shows that they agree where u is no NaN, and finds the NaN that are lost.",
    method=Method.SMT,
    reference="add-and-mask as in widespread PyTorch implementations of bfloat16 updates; found by SMT in 2026",
    needs=("z3",),
)


def prove():
    """Prove the agreement and the guard, and find both faults."""
    import z3

    from qsim.prove import smt

    p = parameters(get_format("bfloat16"), Saturation.SatNone, FLOAT32.dtype)
    reader, words = smt.Reader(), smt.constants(p)
    u, w = z3.BitVecs("u w", 32)
    r, sticky = reader.call(core.addend, w, smt.constants(stochastic(Mode.SRA, 16, FLOAT32.dtype)))
    kernel = reader.call(core.round_word, u, r, sticky, words)
    masked = (u + z3.LShR(w, 16)) & smt.word(0xFFFF0000, 32)
    magnitude = u & smt.word(0x7FFFFFFF, 32)
    nan = z3.UGT(magnitude, words.inf)

    def counterexample(at):
        results = f"{at(masked):#010x} by add-and-mask, {at(kernel):#010x} by the kernel"
        return f"pattern {at(u):#010x}, word {at(w) >> 16:#06x}: {results}"

    claims = {
        "they agree on numbers": z3.Implies(z3.Not(nan), kernel == masked),
        "the kernel keeps NaN": z3.Implies(nan, z3.UGT(kernel & smt.word(0x7FFFFFFF, 32), words.inf)),
    }
    for covered, claim in claims.items():
        verdict = smt.decide(claim, reader, covered=covered, counterexample=counterexample)
        if verdict.outcome is not Outcome.HELD:
            return verdict
    lost = {}
    for name, pattern in {"-0": 0x80000000, "infinity": 0x7F800000}.items():
        claim = z3.Implies(nan, masked != smt.word(pattern, 32))
        verdict = smt.decide(claim, smt.Reader(), covered=name, counterexample=counterexample)
        if verdict.outcome is not Outcome.REFUTED:
            return Verdict(
                outcome=Outcome.REFUTED, covered="all", counterexample=f"no NaN becomes {name} by add-and-mask"
            )
        lost[name] = verdict.counterexample
    return settle(
        (), "all float32 and all 16-bit words; " + "; ".join(f"to {name}: {case}" for name, case in lost.items())
    )
