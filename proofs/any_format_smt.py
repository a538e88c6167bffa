"""Any format at all: the kernel with unknown parameters is the definition, by SMT."""

from qsim.kernels import core
from qsim.prove import Method, Theorem, all_held
from qsim.prove import specification as spec
from qsim.prove.specification import FLOAT32, FLOAT64, Pair, read, unknown
from qsim.rounding import Mode
from qsim.verdicts import Outcome

THEOREM = Theorem(
    statement="Let the parameters of the kernel be unknown: man_bits 0 .. 23, emin -126 .. 127, any ends of the range, any "
    "results of overflows, infinities, NaNs and zeros. For every such float format or even grid, every "
    "float32 x, every deterministic mode, Threshold with every eps, and every word of SRA(8), SRA(32), SRB(8), SRC(8) and "
    "SRE(8): with P the exponent of the spacing at x, round_bits, or round_word, returns N 2^P, N = n or n + 1 as the mode's "
    "rule says of nu and of the parity of the lower code, compared with the range after that; and with parameters for codes "
    "the ordinal of that value, less 1 without a zero, compared with the range likewise. So it is with every float64 x, "
    "man_bits 0 .. 52, emin -1022 .. 1023, and SRA(64) in place of SRA(32)",
    hypotheses=(
        "man_bits <= 23 and emin >= -126 (52 and -1022), so that float32 (float64) holds the normal numbers",
        "no zero only where man_bits = 0",
        "eps is a multiple of 2^-32 (2^-64)",
    ),
    idea="|x| = m 2^pos in units of the carrier's smallest number, m of 24 (53) bits. The grid's spacing there is 2^P, P = "
    "max(pos, emin's) + 23 - man_bits (52), so n and nu are quotient and remainder of m by 2^(P - pos): words of twice the "
    "carrier's width suffice (thrice, for eps), once P - pos is cut where nothing more can change. The source of the kernel is "
    "read with variables for its parameters.",
    method=Method.SMT,
    reference="IEEE 754-2019, 3.3 and 4.3; IEEE P3109 interim report 4.0, 4.7.4",
    needs=("z3", "bitwuzla"),
)

FIXED = tuple(mode for mode in Mode if not mode.stochastic)
RANDOM = ((Mode.SRA, 8), (Mode.SRB, 8), (Mode.SRC, 8), (Mode.SRE, 8))


def parts(z3, a, carrier):
    """Return the position and the significand of the pattern of a magnitude."""
    hidden = 1 << carrier.fraction_bits
    field, fraction = z3.LShR(a, carrier.fraction_bits), a & (hidden - 1)
    return z3.If(field == 0, z3.BitVecVal(1, a.size()), field), z3.If(field == 0, fraction, fraction | hidden)


def prove_one(mode, n=0, *, even, man_bits=None, carrier=FLOAT32):
    """Ask for a format, with these `man_bits` if they are given, an input and a word for which kernel and definition differ."""
    import z3

    from qsim.prove import smt

    width, fraction = carrier.width, carrier.fraction_bits
    both, given, man, low, has_zero = unknown(z3, carrier, even=even)
    p, q = both
    given += [man == man_bits] if man_bits is not None else []
    reader, none = smt.Reader(), smt.word(0, width)
    extra = (2 if mode is Mode.THR else 1) * width  # bits beside a word's: eps has a word's, and is shifted as well
    u, w = z3.BitVecs("u w", width)
    below_sign = (1 << (width - 1)) - 1
    negative, a = z3.UGT(u, below_sign), u & below_sign
    tie_even, tie_odd, sticky, away = spec.added(core, reader, mode, n, w, negative, carrier)
    y, code = read(reader, core, u, tie_even, tie_odd, both, sticky)
    everything = smt.word(below_sign, width)
    endless = p._replace(top=everything, bottom=everything, zero_pos=none, zero_neg=p.sign)
    unbounded, _ = read(reader, core, u, tie_even, tie_odd, Pair(endless, q), sticky)
    magnitude = unbounded & below_sign

    # The definition. `steps` ordinals lie below those of x's binade that n does not count.
    pos, m = parts(z3, a, carrier)
    binade = none if even else z3.If(z3.UGT(pos, low), pos - low, none)
    spacing = low + (fraction - man) + binade
    distance = z3.If(z3.UGT(spacing, pos), spacing - pos, none)
    far = fraction + 1 + width + 2  # from here on m is less than half of the last of `width` random bits
    k = z3.ZeroExt(extra, z3.If(z3.ULT(distance, far), distance, smt.word(far, width)))
    wide = z3.ZeroExt(extra, m)
    number = z3.LShR(wide, k)
    steps = binade << man
    ordinal = z3.Extract(width - 1, 0, number) + steps
    odd = z3.And(ordinal != 0, (ordinal - (1 - has_zero)) & 1 == 1)
    up = away(wide - (number << k), k, odd, negative)
    chosen_number = z3.If(up, number + 1, number)
    fine = z3.ULT(spacing, pos)  # an even grid so fine that x is on it

    # Without a range the result is that number of spacings, with the sign of x.
    position, significand = parts(z3, magnitude, carrier)
    rise = z3.ZeroExt(extra, position - pos)
    one_spacing = z3.If(
        z3.ULE(spacing, fraction), smt.word(1, width) << (spacing - 1), (spacing - fraction) << fraction
    )  # as a pattern
    multiple = z3.If(
        number == 0,
        magnitude == z3.If(up, one_spacing, none),
        z3.And(z3.ULE(rise, 1), z3.ZeroExt(extra, significand) << rise == chosen_number << k),
    )
    rounded = z3.And(z3.If(fine, magnitude == a, multiple), z3.UGT(unbounded, below_sign) == negative)

    # Then comes the range.
    inside = z3.If(magnitude == 0, z3.If(negative, p.zero_neg, p.zero_pos), unbounded)
    limit = z3.If(negative, p.bottom, p.top)
    ranged = z3.If(z3.UGT(magnitude, limit), z3.If(negative, p.over_neg, p.over_pos), inside)
    infinite = z3.If(negative, p.inf_neg, p.inf_pos)
    special = z3.If(a == carrier.infinity, infinite, z3.If(negative, p.nan_neg, p.nan_pos))
    finite = z3.ULT(a, carrier.infinity)
    value = z3.And(z3.Implies(finite, rounded), y == z3.If(finite, ranged, special))

    # So does the code, which is the ordinal. A minus sign turns the bits of `flip` and adds `minus`.
    count = z3.Extract(width - 1, 0, chosen_number) + steps
    signed = count - (1 - has_zero)
    signed = z3.If(negative, (signed ^ q.flip) + q.minus, signed)
    inside = z3.If(count == 0, z3.If(negative, q.zero_neg, q.zero_pos), signed)
    ranged = z3.If(z3.UGT(count, z3.If(negative, q.bottom, q.top)), z3.If(negative, q.over_neg, q.over_pos), inside)
    infinite = z3.If(negative, q.inf_neg, q.inf_pos)
    special = z3.If(a == carrier.infinity, infinite, z3.If(negative, q.nan_neg, q.nan_pos))
    coded = z3.And(
        z3.Implies(z3.And(finite, z3.Not(fine)), code == ranged), z3.Implies(z3.Not(finite), code == special)
    )

    def counterexample(at):
        grid = f"man_bits = {at(man)}, emin = {at(low) - carrier.bias}{', even' if even else ''}, has_zero = {at(has_zero)}"
        x = spec.value(at(u), carrier)
        return f"{grid}, {mode}: {x!r} becomes pattern {at(y):#x} with code {at(code):#x}, word {at(w):#x}"

    covered = f"{'even grids' if even else 'float formats'}, {carrier.dtype}, {mode}({n})"
    # The longest question takes three minutes on a quiet core, and the limit is one of wall time.
    asked = {
        "covered": covered,
        "counterexample": counterexample,
        "given": z3.And(*given),
        "solver": "bitwuzla",
        "timeout": 3600,
    }
    verdict = smt.decide(value, reader, **asked)  # and then the code: both at once take twice the time
    return smt.decide(coded, reader, **asked) if verdict.outcome is Outcome.HELD else verdict


def prove(*, quick=False):
    """Prove it of float formats and even grids, of both carriers, in every mode; in a quick run of float32, to nearest."""
    if quick:
        return all_held(
            (prove_one(Mode.RNE, even=even) for even in (False, True)),
            "all formats with man_bits <= 23 and emin >= -126, all float32, RNE (a quick run)",
        )
    cases = [
        (carrier, even, *choice)
        for carrier in (FLOAT32, FLOAT64)
        for even in (False, True)
        for choice in (*((mode,) for mode in FIXED), (Mode.SRA, carrier.width), *RANDOM)
    ]
    return all_held(
        (prove_one(*choice, even=even, carrier=carrier) for carrier, even, *choice in cases),
        f"all formats with man_bits <= 23 and emin >= -126, all float32; with man_bits <= 52 and emin >= -1022, all float64; "
        f"{len(FIXED)} modes without words, Threshold with all eps, SRA(32) or SRA(64), and "
        f"{', '.join(f'{mode}({n})' for mode, n in RANDOM)}",
    )
