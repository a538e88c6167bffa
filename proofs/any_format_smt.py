"""Any format at all: the kernel with unknown parameters is the definition, by SMT."""

from qsim.kernels import core
from qsim.kernels.parameters import stochastic, thresholds
from qsim.prove import Method, Theorem, all_held
from qsim.prove import specification as spec
from qsim.prove.specification import FLOAT32
from qsim.rounding import Mode

THEOREM = Theorem(
    statement="Let the parameters of the kernel be unknown: man_bits 0 .. 23, emin -126 .. 127, any ends of the range, any "
    "results of overflows, infinities, NaNs and zeros, any bias of codes. For every such float format or even grid, every "
    "float32 x, every deterministic mode and every word of SRA(8), SRA(32), SRB(8) and SRC(8): with P the exponent of the "
    "spacing at x, round_bits returns N 2^P, N = n or n + 1 as the mode's rule says of nu and of the parity of the lower code, "
    "compared with the range after that; and encode_bits returns the ordinal of the value, less 1 without a zero",
    hypotheses=(
        "man_bits <= 23 and emin >= -126, so that float32 holds the normal numbers",
        "no zero only where man_bits = 0 and emin > -126",
    ),
    idea="|x| = m 2^pos in units of float32's smallest number, m of 24 bits. The grid's spacing there is 2^P, P = max(pos, "
    "emin's) + 23 - man_bits, so n and nu are quotient and remainder of m by 2^(P - pos): words of 64 bits suffice, once "
    "P - pos is cut where nothing more can change. The source of the kernel is read with variables for its parameters.",
    method=Method.SMT,
    reference="IEEE 754-2019, 3.3 and 4.3; IEEE P3109 interim report 4.0, 4.7.4",
    needs=("z3",),
)

DETERMINISTIC = tuple(mode for mode in Mode if not mode.stochastic and mode is not Mode.THR)
RANDOM = ((Mode.SRA, 8), (Mode.SRA, 32), (Mode.SRB, 8), (Mode.SRC, 8))
FRACTION, FAR = 23, 58
"""Fraction bits of float32; and P - pos from which on 24 bits are less than half of the last of 32 random ones."""


def unknown(z3, *, even):
    """Return parameters that are variables, what is known of them, and man_bits, the position of emin, and has_zero.

    Position counts exponents as fields of float32 do. `even` is for integers and fixed point.
    """
    fields = {name: z3.BitVec(name, 32) for name in core.Parameters._fields}
    known = {
        "fraction_bits": FRACTION, "last": 31, "sign": 1 << 31, "inf": FLOAT32.infinity, "twos": int(even),
    }  # fmt: skip
    fields |= {name: z3.BitVecVal(value, 32) for name, value in known.items()}
    man, low = z3.BitVecs("man_bits emin", 32)
    zero = z3.BitVec("has_zero", 1)
    has_zero = z3.ZeroExt(31, zero)
    d = FRACTION - man
    floor = low + d
    fields["floor"] = floor
    fields["discard"] = z3.BitVecVal(0, 32) if even else d
    fields["parity"] = (floor + FRACTION + has_zero) & 1
    fields["quantum"] = z3.If(
        z3.ULE(floor, FRACTION), z3.BitVecVal(1, 32) << (floor - 1), (floor - FRACTION) << FRACTION
    )
    fields["normal"] = z3.BitVecVal(FLOAT32.infinity, 32) if even else low << FRACTION
    fields["rebias"] = z3.BitVecVal(0, 32) if even else (low - has_zero) << man
    given = [
        z3.ULE(man, FRACTION),
        z3.UGE(low, 1),
        z3.ULE(low, 254),
        z3.Or(zero == 1, z3.And(man == 0, z3.UGT(low, 1), not even)),
    ]
    # An even grid has the spacing of its lowest part everywhere, and codes for every value up to its ends.
    if even:
        given += [z3.ULE(floor, 254)]
    return core.Parameters(**fields), given, man, low, has_zero


def parts(z3, a):
    """Return the position and the significand of the pattern of a magnitude."""
    field, fraction = z3.LShR(a, FRACTION), a & ((1 << FRACTION) - 1)
    return z3.If(field == 0, z3.BitVecVal(1, 32), field), z3.If(field == 0, fraction, fraction | 1 << FRACTION)


def prove_one(mode, n=0, *, even, man_bits=None):
    """Ask for a format, with these `man_bits` if they are given, an input and a word for which kernel and definition differ."""
    import z3

    from qsim.prove import smt

    p, given, man, low, has_zero = unknown(z3, even=even)
    given += [man == man_bits] if man_bits is not None else []
    reader = smt.Reader()
    u, w = z3.BitVecs("u w", 32)
    negative, a = z3.UGE(u, 1 << 31), u & ((1 << 31) - 1)
    if mode.stochastic:
        t, sticky = reader.call(core.stochastic_threshold, w, smt.constants(stochastic(mode, n, FLOAT32.dtype)))
        tie_even = tie_odd = t
        away = spec.stochastic(smt.word(n, 64), z3.ZeroExt(32, z3.LShR(w, 32 - n)), mode)
    else:
        chosen = smt.constants(thresholds(mode, FLOAT32.dtype))
        tie_even, tie_odd = (
            z3.If(negative, *pair) for pair in ((chosen.even_neg, chosen.even_pos), (chosen.odd_neg, chosen.odd_pos))
        )
        sticky, away = chosen.sticky, spec.deterministic(mode)
    y = reader.call(core.round_bits, u, tie_even, tie_odd, sticky, p)
    endless = p._replace(
        top=smt.word((1 << 31) - 1, 32), bottom=smt.word((1 << 31) - 1, 32), zero_pos=smt.word(0, 32), zero_neg=p.sign
    )
    unbounded = reader.call(core.round_bits, u, tie_even, tie_odd, sticky, endless)
    magnitude = unbounded & ((1 << 31) - 1)

    # The definition. `steps` ordinals lie below those of x's binade that n does not count.
    pos, m = parts(z3, a)
    binade = smt.word(0, 32) if even else z3.If(z3.UGT(pos, low), pos - low, smt.word(0, 32))
    spacing = low + (FRACTION - man) + binade
    distance = z3.If(z3.UGT(spacing, pos), spacing - pos, smt.word(0, 32))
    k = z3.ZeroExt(32, z3.If(z3.ULT(distance, FAR), distance, smt.word(FAR, 32)))
    wide = z3.ZeroExt(32, m)
    number = z3.LShR(wide, k)
    steps = binade << man
    ordinal = z3.Extract(31, 0, number) + steps
    odd = z3.And(ordinal != 0, (ordinal - (1 - has_zero)) & 1 == 1)
    up = away(wide - (number << k), k, odd, negative)
    chosen_number = z3.If(up, number + 1, number)
    fine = z3.ULT(spacing, pos)  # an even grid so fine that x is on it

    # Without a range the result is that number of spacings, with the sign of x.
    at, significand = parts(z3, magnitude)
    rise = z3.ZeroExt(32, at - pos)
    least = z3.If(
        z3.ULE(spacing, FRACTION), smt.word(1, 32) << (spacing - 1), (spacing - FRACTION) << FRACTION
    )  # the pattern of one spacing
    multiple = z3.If(
        number == 0,
        magnitude == z3.If(up, least, smt.word(0, 32)),
        z3.And(z3.ULE(rise, 1), z3.ZeroExt(32, significand) << rise == chosen_number << k),
    )
    rounded = z3.And(z3.If(fine, magnitude == a, multiple), (unbounded ^ u) & 1 << 31 == 0)

    # Then comes the range.
    inside = z3.If(magnitude == 0, z3.If(negative, p.zero_neg, p.zero_pos), unbounded)
    limit = z3.If(negative, p.bottom, p.top)
    ranged = z3.If(z3.UGT(magnitude, limit), z3.If(negative, p.over_neg, p.over_pos), inside)
    infinite = z3.If(negative, p.inf_neg, p.inf_pos)
    special = z3.If(a == FLOAT32.infinity, infinite, p.nan | (u & p.nan_sign))
    finite = z3.ULT(a, FLOAT32.infinity)
    value = z3.And(z3.Implies(finite, rounded), y == z3.If(finite, ranged, special))

    # The code of a positive value on the grid is its ordinal.
    code = reader.call(core.encode_bits, magnitude, p)
    counted = z3.Extract(31, 0, chosen_number) + steps - (1 - has_zero)
    on_grid = z3.And(finite, magnitude != 0, z3.Not(fine), z3.ULT(magnitude, FLOAT32.infinity))
    coded = z3.Implies(on_grid, code == counted)

    def counterexample(at):
        grid = f"man_bits = {at(man)}, emin = {at(low) - FLOAT32.bias}{', even' if even else ''}, has_zero = {at(has_zero)}"
        return f"{grid}, {mode}: {spec.value(at(u))!r} becomes pattern {at(y):#010x} with code {at(code):#x}, word {at(w):#x}"

    kind = "even grids" if even else "float formats"
    return smt.decide(
        z3.And(value, coded),
        reader,
        covered=f"{kind}, {mode}({n})",
        counterexample=counterexample,
        given=z3.And(*given),
    )


def prove(*, quick=False):
    """Prove it for float formats and for even grids, in every mode; in a quick run to nearest, for man_bits = 3."""
    if quick:
        return all_held(
            (prove_one(Mode.RNE, even=even, man_bits=3) for even in (False, True)),
            "all formats with man_bits = 3 and emin >= -126, all float32, RNE (a quick run)",
        )
    modes = [*((mode,) for mode in DETERMINISTIC), *RANDOM]
    names = ", ".join(f"{mode}({n[0]})" if n else str(mode) for mode, *n in modes)
    return all_held(
        (prove_one(*choice, even=even) for even in (False, True) for choice in modes),
        f"all formats with man_bits <= 23 and emin >= -126, all float32, {names}",
    )
