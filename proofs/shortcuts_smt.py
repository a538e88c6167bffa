"""The short ways from a magnitude to a result, `clamped`, `counted`, `mirrored`, are `ranged` where they are taken, by SMT."""

from qsim.kernels import core
from qsim.kernels.parameters import CARRIERS
from qsim.prove import Method, Theorem, all_held

THEOREM = Theorem(
    statement="For every magnitude y of a result, every pattern u and all parameters, patterns or codes: where every overflow "
    "and infinity becomes the end of the range on its side, clamped(y, u) = ranged(y, u), and counted(y, u) if codes are in "
    "two's complement; where they have one other result each side, with and without a minus sign, and the ends are mirror "
    "images, mirrored(y, u) = ranged(y, u)",
    hypotheses=(
        "there is a zero: +0 for positive numbers, for negative ones -0, or +0 where `edge` is 0",
        "all NaNs have one result; y, where x is a number, and the ends of the range are below the sign bit",
        "the y of an infinity is beyond the range",
        "codes in two's complement have the bits of `flip`, which hold the ends",
    ),
    idea="The source of the four functions is read with variables for all their arguments. `qsim.kernels.parameters.shortcut` "
    "asks for these conditions, of numbers.",
    method=Method.SMT,
    reference="qsim.kernels.core",
    needs=("z3",),
)


def conditions(z3, p, y, u, how):
    """Return what `shortcut` establishes, and that y is what an infinity rounds to where u is one."""
    sign, none, everything = p.sign, 0 * p.sign, ~(0 * p.sign)

    def signed(magnitude):
        return (magnitude ^ p.flip) + p.minus

    minus_zero = z3.If(p.edge == 0, none, signed(none))
    bottom = z3.If(z3.And(p.edge == 0, p.bottom == 0), none, signed(p.bottom))
    clamped = z3.And(p.over_pos == p.top, p.inf_pos == p.top, p.over_neg == bottom, p.inf_neg == bottom)
    ends = {
        "clamped": clamped,
        "counted": z3.And(
            clamped, p.edge == 0, p.minus == 1, p.flip & (p.flip + 1) == 0, z3.ULE(p.top, p.flip), z3.ULE(p.bottom, p.flip)
        ),
        "mirrored": z3.And(
            p.top == p.bottom, p.inf_pos == p.over_pos, z3.UGT(p.over_pos, 0), z3.ULT(p.over_pos, sign),
            p.over_neg == signed(p.over_pos), p.inf_neg == p.over_neg,
        ),
    }[how]  # fmt: skip
    infinite, nan = u & (sign - 1) == p.inf, z3.UGT(u & (sign - 1), p.inf)
    return z3.And(
        ends,
        z3.Or(p.edge == 0, p.edge == everything),
        p.skip == 0,
        p.zero_pos == 0,
        p.zero_neg == minus_zero,
        p.nan_neg == p.nan_pos,
        *(z3.ULT(word, sign) for word in (p.top, p.bottom)),
        z3.Or(z3.ULT(y, sign), nan),
        z3.Implies(infinite, z3.And(z3.UGT(y, p.top), z3.UGT(y, p.bottom))),
    )


def prove_one(how, carrier):
    """Ask for a magnitude, a pattern and parameters for which the short way is another."""
    import z3

    from qsim.prove import smt

    width = carrier.width
    fields = {name: z3.BitVec(name, width) for name in core.Parameters._fields}
    known = {"last": width - 1, "sign": 1 << (width - 1), "inf": carrier.infinity, "largest": (1 << width) - 1}
    p = core.Parameters(**fields | {name: smt.word(value, width) for name, value in known.items()})
    y, u = z3.BitVecs("y u", width)
    reader = smt.Reader()
    short, whole = reader.call(getattr(core, how), y, u, p), reader.call(core.ranged, y, u, p)
    return smt.decide(
        short == whole,
        reader,
        covered=f"{how}, {carrier.dtype}",
        counterexample=lambda at: (
            f"{how}, {carrier.dtype}: y = {at(y):#x} of pattern {at(u):#x} becomes {at(short):#x}, not {at(whole):#x}"
        ),
        given=conditions(z3, p, y, u, how),
    )


def prove():
    """Prove it for both, and for words of both widths."""
    cases = [(how, carrier) for how in ("clamped", "counted", "mirrored") for carrier in CARRIERS.values()]
    return all_held(
        (prove_one(*case) for case in cases), "all magnitudes, patterns and parameters, words of 32 and 64 bits"
    )
