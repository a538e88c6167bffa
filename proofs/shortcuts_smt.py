"""The short ways from a magnitude to a result, `clamped` and others, are `ranged` where the library takes them, by SMT."""

from typing import get_args

from qsim.kernels import core
from qsim.kernels.parameters import CARRIERS, Shortcut
from qsim.prove import Method, Theorem, all_held

THEOREM = Theorem(
    statement="For every magnitude y of a result, every pattern u and all parameters, patterns or codes: where every overflow "
    "and infinity becomes the end of the range on its side, clamped(y, u) = ranged(y, u), and so are counted(y, u) for codes "
    "in two's complement, and bounded(y, u) if there is -0 and the ends are mirror images; where they have one other result "
    "each side, with and without a minus sign, and the ends are mirror images, mirrored(y, u) = ranged(y, u), and so is "
    "reflected(y, u) if there is -0",
    hypotheses=(
        "there is a zero: +0 for positive numbers, for negative ones +0 too; -0 where bounded or reflected is taken",
        "all NaNs have one result; y, where x is a number, and the ends of the range are below the sign bit",
        "the y of an infinity is beyond the range",
        "codes in two's complement have the bits of `flip`, which hold the ends",
        "where there is -0, results have a bit for the sign, `minus`, above all magnitudes",
    ),
    idea="The source of the functions is read with variables for all their arguments. `qsim.kernels.parameters.shortcut` "
    "asks for these conditions, of numbers.",
    method=Method.SMT,
    reference="qsim.kernels.core",
    needs=("z3",),
)


def conditions(z3, p, y, u, how):
    """Return what `shortcut` establishes, and that y is what an infinity rounds to where u is one."""
    sign, none = p.sign, 0 * p.sign

    def signed(magnitude):
        return (magnitude ^ p.flip) + p.minus

    minus_zero = how in ("bounded", "reflected")
    bottom = signed(p.bottom) if minus_zero else z3.If(p.bottom == 0, none, signed(p.bottom))
    mirror = p.top == p.bottom
    clamped = z3.And(p.over_pos == p.top, p.inf_pos == p.top, p.over_neg == bottom, p.inf_neg == bottom)
    mirrored = z3.And(
        mirror, p.inf_pos == p.over_pos, z3.UGT(p.over_pos, 0), z3.ULT(p.over_pos, sign), p.over_neg == signed(p.over_pos),
        p.inf_neg == p.over_neg,
    )  # fmt: skip
    bit = z3.And(p.flip == 0, p.minus & (p.minus - 1) == 0, *(z3.ULT(word, p.minus) for word in (p.top, p.over_pos)))
    twos = z3.And(p.minus == 1, p.flip & (p.flip + 1) == 0, *(z3.ULE(word, p.flip) for word in (p.top, p.bottom)))
    ends = {
        "clamped": clamped,
        "counted": z3.And(clamped, twos),
        "bounded": z3.And(clamped, mirror, bit),
        "mirrored": mirrored,
        "reflected": z3.And(mirrored, bit),
    }[how]
    infinite, nan = u & (sign - 1) == p.inf, z3.UGT(u & (sign - 1), p.inf)
    return z3.And(
        ends,
        p.skip == 0,
        p.zero_pos == 0,
        p.zero_neg == (signed(none) if minus_zero else none),
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
    """Prove it for each, and for words of both widths."""
    cases = [(how, carrier) for how in get_args(Shortcut) if how != "ranged" for carrier in CARRIERS.values()]
    return all_held(
        (prove_one(*case) for case in cases), "all magnitudes, patterns and parameters, words of 32 and 64 bits"
    )
