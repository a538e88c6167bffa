"""The shorter way to a code, which counts the values below, is the whole way, by SMT."""

from qsim.kernels import core
from qsim.prove import Method, Theorem, all_held
from qsim.prove.specification import FLOAT32, FLOAT64, added, unknown
from qsim.rounding import Mode

THEOREM = Theorem(
    statement="Let the parameters for codes of a float format or an even grid be unknown: man_bits 0 .. 23, emin -126 .. 127, "
    "any ends of the range, any results of overflows, infinities, NaNs and zeros. For every float32 x and every deterministic "
    "mode ranged(counting(|x|), x) = round_bits(x). So it is with every float64 x, man_bits 0 .. 52, emin -1022 .. 1023",
    hypotheses=(
        "man_bits <= 23 and emin >= -126 (52 and -1022), so that float32 (float64) holds the normal numbers",
        "there is a zero",
    ),
    idea="The source of both is read with variables for the parameters. The one takes the beginning of x's binade off before "
    "the shift, the other after it, and asks before whether x is nearer to zero than to the smallest value. That the shorter "
    "ways from there are ranged is what shortcuts_smt says.",
    method=Method.SMT,
    reference="qsim.kernels.core",
    needs=("z3", "bitwuzla"),
)

FIXED = tuple(mode for mode in Mode if not mode.stochastic and mode is not Mode.THR)


def prove_one(mode, *, even, carrier=FLOAT32):
    """Ask for a format and an input of which the two ways make different codes; `even` is for integers and fixed point."""
    import z3

    from qsim.prove import smt

    both, given, man, low, has_zero = unknown(z3, carrier, even=even)
    p, u = both.code, z3.BitVec("u", carrier.width)
    a, reader = u & (p.sign - 1), smt.Reader()
    even_added, odd_added, *_ = added(core, reader, mode, 0, None, z3.UGE(u, p.sign), carrier)
    small = reader.call(core.last_to_zero, even_added, p)
    whole = reader.call(core.round_bits, u, even_added, odd_added, small, p)
    short = reader.call(core.ranged, reader.call(core.counting, a, even_added, odd_added, small, p), u, p)
    grid = "even grids" if even else "float formats"
    return smt.decide(
        short == whole,
        reader,
        covered=f"{grid}, {carrier.dtype}, {mode}",
        counterexample=lambda at: (
            f"{grid}, man_bits = {at(man)}, emin = {at(low) - carrier.bias}, {mode}: pattern {at(u):#x} becomes code "
            f"{at(short):#x}, not {at(whole):#x}"
        ),
        given=z3.And(*given, has_zero == 1),
        solver="bitwuzla",
        timeout=3600,
    )


def prove(*, quick=False):
    """Prove it of float formats and even grids, of both carriers, in every mode; in a quick run of float32, to nearest."""
    if quick:
        return all_held(
            (prove_one(Mode.RNE, even=even) for even in (False, True)),
            "all formats with man_bits <= 23 and emin >= -126, all float32, RNE (a quick run)",
        )
    return all_held(
        (
            prove_one(mode, even=even, carrier=carrier)
            for carrier in (FLOAT32, FLOAT64)
            for even in (False, True)
            for mode in FIXED
        ),
        f"all formats with man_bits <= 23 and emin >= -126, all float32; with man_bits <= 52 and emin >= -1022, all float64; "
        f"{len(FIXED)} modes",
    )
