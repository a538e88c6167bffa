"""Codes of integers and fixed point by the shorter way, `counted` of `evenly`, are those of the whole way, by SMT."""

from qsim.kernels import core
from qsim.kernels.parameters import addends
from qsim.prove import Method, Theorem, all_held
from qsim.prove.specification import FLOAT32, FLOAT64
from qsim.rounding import Mode

THEOREM = Theorem(
    statement="Let the parameters for codes of an even grid be unknown: its spacing, the ends of the range, and what becomes "
    "of overflows, infinities, NaNs and zeros. For every float32 x, every float64 x, and every deterministic mode, "
    "ranged(evenly(|x|), x) = round_bits(x)",
    hypotheses=(
        "the spacing is 2^p times the smallest number of float32, p from 0 to 253 (float64, to 2045)",
        "both ends of the range are below 2^23 (2^52) spacings; there is a zero",
    ),
    idea="The source of both is read with variables for the parameters. The one shifts the significand, the other the pattern, "
    "less where its binade begins, and asks before whether the number is nearer to zero than to the smallest value. That "
    "counted = ranged is a case of shortcuts_smt.",
    method=Method.SMT,
    reference="qsim.kernels.core",
    needs=("z3", "bitwuzla"),
)

FIXED = tuple(mode for mode in Mode if not mode.stochastic and mode is not Mode.THR)


def prove_one(mode, carrier):
    """Ask for a grid, a range and an input of which the two ways make different codes."""
    import z3

    from qsim.prove import smt

    width, fraction = carrier.width, carrier.fraction_bits
    everything, sign = (1 << width) - 1, 1 << (width - 1)
    floor, u = z3.BitVecs("floor u", width)
    one = smt.word(1, width)
    fields = {name: z3.BitVec(name, width) for name in core.Parameters._fields}
    known = {
        "fraction_bits": fraction, "last": width - 1, "sign": sign, "inf": carrier.infinity, "largest": everything, "keep": 0,
        "count": everything, "skip": 0, "smallest": 1, "floor": floor, "lowest": floor,
        "parity": ((floor + fraction + 1) & 1) << fraction,
        "quantum": z3.If(z3.ULE(floor, fraction), one << (floor - 1), (floor - fraction) << fraction),
        "halfway": z3.If(z3.ULE(floor, fraction + 1), (one << (floor - 1)) >> 1, (floor - fraction - 1) << fraction),
    }  # fmt: skip
    p = core.Parameters(
        **fields | {name: smt.word(it, width) if isinstance(it, int) else it for name, it in known.items()}
    )
    chosen = smt.constants(addends(mode, carrier.dtype))
    below_sign = sign - 1
    negative, a = z3.UGT(u, below_sign), u & below_sign
    even, odd = (
        z3.If(negative, *two) for two in ((chosen.even_neg, chosen.even_pos), (chosen.odd_neg, chosen.odd_pos))
    )
    reader = smt.Reader()
    small = reader.call(core.last_to_zero, even, p)
    whole = reader.call(core.round_bits, u, even, odd, small, p)
    short = reader.call(core.ranged, reader.call(core.evenly, a, even, odd, small, p), u, p)
    return smt.decide(
        short == whole,
        reader,
        covered=f"all even grids of up to 2^{fraction} spacings each side, all {carrier.dtype}, {mode}",
        counterexample=lambda at: (
            f"{mode}, {carrier.dtype}, floor = {at(floor)}: pattern {at(u):#x} becomes code {at(short):#x}, not {at(whole):#x}"
        ),
        given=z3.And(
            z3.UGE(floor, 1),
            z3.ULE(floor, 2 * carrier.bias),
            *(z3.ULT(end, 1 << fraction) for end in (p.top, p.bottom)),
        ),
        solver="bitwuzla",
    )


def prove(*, quick=False):
    """Prove it of every deterministic mode, for float32 and for float64; in a quick run of RNE and float32."""
    if quick:
        return all_held(
            [prove_one(Mode.RNE, FLOAT32)],
            "all even grids of up to 2^23 spacings each side, all float32, RNE (a quick run)",
        )
    cases = [(mode, carrier) for carrier in (FLOAT32, FLOAT64) for mode in FIXED]
    return all_held(
        (prove_one(*case) for case in cases),
        f"all even grids of up to 2^23 spacings (2^52) each side, all float32, all float64, {len(FIXED)} modes",
    )
