"""SR to E4M3: the kernel is the reference for all floats and all random words, by SMT."""

from qsim.formats import get_format
from qsim.kernels import core
from qsim.prove import Method, Theorem, all_held
from qsim.prove.specification import FLOAT32, FLOAT64, contrast, evaluate, pair, read, rounded, stochastic
from qsim.rounding import Mode, Saturation

THEOREM = Theorem(
    statement="For N random bits, the source of round_word with the addend w, the word whose top N bits are R "
    "and whose other bits are 0, means the value and the code of "
    "qsim.reference.encode(x, 'float8_e4m3fn', 'SRA', sr_bits=N, rbits=R), for every float32 x, N <= 32 and R at "
    "once, and for every float64 x and R with N = 64, under SatFinite and under OvfNaN. N = 32 and N = 64 are SR",
    hypotheses=(),
    idea="As for rounding to nearest, with R and N further unknowns: the reference goes up iff "
    "floor((X - V_n) 2^N / (V_(n+1) - V_n)) + R >= 2^N over exact integers. Hence floor(nu 2^N) of the 2^N words go "
    "up, which is unbiased where nu has at most N bits.",
    method=Method.SMT,
    reference="IEEE P3109 interim report 4.0, 4.7.4 (StochasticA); OCP OFP8 revision 1.0, 2023, table 1 (E4M3)",
    needs=("z3",),
)

FORMAT = get_format("float8_e4m3fn")
SATURATIONS = (Saturation.SatFinite, Saturation.OvfNaN)


def prove_one(carrier, saturation, sr_bits=None):
    """Ask for an input and a word of N bits that the kernel and the reference treat differently; `None`: any N."""
    import z3

    from qsim.prove import smt

    width = carrier.width
    both, reader = pair(FORMAT, saturation, carrier), smt.Reader()
    u, w = z3.BitVecs("u w", width)
    n = z3.BitVec("N", width) if sr_bits is None else smt.word(sr_bits, width)
    r = z3.LShR(w, width - n)
    none = smt.word(0, width)
    source = core.Stochastic(mask=~none << (width - n), half=none, last=none, flip=none, all_or_none=none)
    added, sticky = reader.call(core.addend, w, source)
    y, code = read(reader, core, u, added, added, [*map(smt.constants, both)], sticky)
    right_value, right_code = rounded(u, FORMAT, saturation, stochastic(n, r), carrier)

    def counterexample(at):
        got = evaluate(core, at(u), at(added), at(added), both, at(sticky))
        return contrast(at(u), got, FORMAT, Mode.SRA, saturation, carrier, sr_bits=at(n), rbits=at(r))

    return smt.decide(
        z3.Implies(z3.ULE(n, width), z3.And(y == right_value, code == right_code)),
        reader,
        covered=f"all {carrier.dtype} inputs and words, {'any N' if sr_bits is None else f'N = {sr_bits}'}, {saturation}",
        counterexample=counterexample,
    )


def prove(*, quick=False):
    """Prove it under both saturations; in a quick run for float32 with N = 32, which is SR, and N = 8."""
    parts = ((FLOAT32, 32), (FLOAT32, 8)) if quick else ((FLOAT32, None), (FLOAT64, 64))
    verdicts = (prove_one(carrier, saturation, n) for carrier, n in parts for saturation in SATURATIONS)
    if quick:
        covered = "all 2^32 float32 inputs and all 2^N words for N = 32 and N = 8 (a quick run)"
    else:
        covered = "all 2^32 float32 inputs and all 2^N words for N = 0 .. 32, all 2^64 float64 inputs and 2^64 words"
    return all_held(verdicts, f"{covered}, every shift, SatFinite and OvfNaN")
