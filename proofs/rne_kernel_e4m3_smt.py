"""RNE to E4M3: the kernel is the reference on all float32 and all float64, by SMT."""

from qsim.formats import get_format
from qsim.kernels import core
from qsim.prove import Method, Theorem, all_held
from qsim.prove.specification import FLOAT32, FLOAT64, contrast, evaluate, nearest_even, pair, read, rounded
from qsim.rounding import Mode, Saturation

THEOREM = Theorem(
    statement="The source of round_bits with the addends (half - 1, half) means the value and "
    "the code of qsim.reference.encode(x, 'float8_e4m3fn', 'RNE') for every float32 and every float64 x, under "
    "SatFinite and under OvfNaN; and no shift in it reaches 64, where Numba's shifts end",
    hypotheses=(),
    idea="The source is read as terms over bit-vectors. The reference is written over an exact integer: X = |x| 2^149 "
    "for a float32, which has 277 bits, |x| 2^1074 for a float64. Up iff 2 (X - V_n) > V_(n+1) - V_n, or both are "
    "equal and n is odd. A solver shows that no x tells the two apart.",
    method=Method.SMT,
    reference="IEEE 754-2019, 4.3.1 (roundTiesToEven); OCP OFP8 revision 1.0, 2023, table 1 (E4M3)",
    needs=("z3",),
)

FORMAT = get_format("float8_e4m3fn")
SATURATIONS = (Saturation.SatFinite, Saturation.OvfNaN)


def prove_one(carrier, saturation):
    """Ask for an input that the kernel and the reference treat differently."""
    import z3

    from qsim.prove import smt

    both, reader = pair(FORMAT, saturation, carrier), smt.Reader()
    u = z3.BitVec("u", carrier.width)
    half = 1 << (carrier.width - 1)
    even, odd = half - 1, half  # exactly half carries with half, and not with half - 1
    addends = (smt.word(number, carrier.width) for number in (even, odd))
    y, code = read(reader, core, u, *addends, [*map(smt.constants, both)])
    right_value, right_code = rounded(u, FORMAT, saturation, nearest_even, carrier)
    return smt.decide(
        z3.And(y == right_value, code == right_code),
        reader,
        covered=f"all {carrier.dtype} inputs, {saturation}",
        counterexample=lambda at: contrast(
            at(u), evaluate(core, at(u), even, odd, both), FORMAT, Mode.RNE, saturation, carrier
        ),
    )


def prove(*, quick=False):
    """Prove it for both carriers and saturations; in a quick run for float32."""
    carriers = (FLOAT32,) if quick else (FLOAT32, FLOAT64)
    verdicts = (prove_one(carrier, saturation) for carrier in carriers for saturation in SATURATIONS)
    inputs = "all 2^32 float32 inputs (a quick run)" if quick else "all 2^32 float32 and all 2^64 float64 inputs"
    return all_held(verdicts, f"{inputs} and every shift, SatFinite and OvfNaN")
