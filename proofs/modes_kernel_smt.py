"""Every rounding mode: the kernel is the reference on all float32, by SMT."""

from qsim.formats import get_format
from qsim.kernels import core
from qsim.prove import Method, Theorem, all_held
from qsim.prove import specification as spec
from qsim.prove.specification import FLOAT32, evaluate, pair, read, rounded
from qsim.rounding import Mode, Saturation, saturations

THEOREM = Theorem(
    statement="With the addends of each deterministic mode, with those that `addend` makes of the N top bits of a word for "
    "SRA, SRB, SRC and SRE, and with that which eps_addend makes of eps for Threshold, the source of round_bits, or "
    "round_word, means the value and the code of qsim.reference for every float32, under every saturation of "
    "the format but wrap; and no shift in it reaches 64",
    hypotheses=("SRB and SRC have N < 32 random bits, SRE has N >= 1", "eps is a multiple of 2^-32"),
    idea="As for nearest rounding: the source is read as terms over bit-vectors, the reference written over an exact integer, "
    "and a solver shows that no input, and no word, tells the two apart.",
    method=Method.SMT,
    reference="IEEE 754-2019, 4.3; IEEE P3109 interim report 4.0, 4.7.4 (StochasticA, B, C; ToOdd)",
    needs=("z3",),
)

FORMATS = (
    "float8_e4m3fn", "float8_e5m2", "e4m0fn", "int4", "uint4", "Binary6p3ue", "float8_e4m3fnuz", "float6_e2m3fn",
    "Binary6p3ue@p3109-4.0", "Binary6p3uf@p3109-4.0",
)  # fmt: skip
DETERMINISTIC = tuple(mode for mode in Mode if not mode.stochastic and mode is not Mode.THR)
RANDOM = ((Mode.SRA, 8), (Mode.SRB, 0), (Mode.SRB, 8), (Mode.SRC, 0), (Mode.SRC, 8), (Mode.SRC, 31), (Mode.SRE, 8))
SIGNED = ((Mode.RNE, 0, "signed"), (Mode.RNE, 0, "signed_overflow"))


def prove_one(fmt, saturation, mode, n=0, nan="canonical"):
    """Ask for an input, and a word of `n` bits, that the kernel and the reference treat differently."""
    import z3

    from qsim.prove import smt

    both, reader = pair(fmt, saturation, FLOAT32, mode, nan=nan), smt.Reader()
    u, w = z3.BitVecs("u w", 32)
    r = z3.LShR(w, smt.word(32 - n, 32))
    even, odd, sticky, away = spec.added(core, reader, mode, n, w, z3.UGE(u, smt.word(1 << 31, 32)))
    y, code = read(reader, core, u, even, odd, [*map(smt.constants, both)], sticky)
    right_value, right_code = rounded(u, fmt, saturation, away, FLOAT32, mode, nan)

    def counterexample(at):
        got = evaluate(core, at(u), at(even), at(odd), both, None if sticky is None else at(sticky))
        drawn = {"sr_bits": n, "rbits": at(r)} if mode.stochastic else {}
        drawn |= {"eps": at(w) / 2**32} if mode is Mode.THR else {}
        drawn |= {"nan": nan} if nan != "canonical" else {}
        return spec.contrast(at(u), got, fmt, mode, saturation, **drawn)

    return smt.decide(
        z3.And(y == right_value, code == right_code), reader, covered=f"{fmt}, {mode}", counterexample=counterexample
    )


def prove(*, quick=False):
    """Prove it for each format, saturation and mode; in a quick run for E4M3 with its default saturation."""
    names = FORMATS[:1] if quick else FORMATS
    cases = [
        (fmt, rule, *choice)
        for fmt in map(get_format, names)
        for rule in saturations(fmt)[: 1 if quick else None]
        if rule is not Saturation.wrap  # which comes after the kernel
        for choice in (*((mode,) for mode in (*DETERMINISTIC, Mode.THR)), *RANDOM, *SIGNED)
    ]
    words = (
        f"{len(DETERMINISTIC)} deterministic modes, Threshold with all eps, {len(RANDOM)} stochastic ones with all words, "
        f"NaNs of every sign"
    )
    tail = " (a quick run)" if quick else ""
    return all_held(
        (prove_one(*case) for case in cases), f"all 2^32 float32 inputs, {words}, to {', '.join(names)}{tail}"
    )
