"""Every deterministic mode: the kernel is the reference on all float32, to every named format, by exhaustion."""

from qsim.kernels import core
from qsim.kernels.parameters import addends
from qsim.prove import Method, Theorem, settle
from qsim.prove.exhaustive import ALL, Meter, directed_difference, first_difference
from qsim.prove.specification import FLOAT32, FLOAT64, contrast, evaluate, pair
from qsim.prove.sweep import DETERMINISTIC, directed, disagreement, named, tiles
from qsim.rounding import Saturation, saturations

THEOREM = Theorem(
    statement="round_bits with the addends of each deterministic mode but Threshold, to values and to codes, returns the value "
    "and the code of qsim.reference.encode(x, format, mode) for every float32 x and every named format of up to 16 bits that "
    "float32 holds, under its default saturation: signed zeros, subnormals, overflow, infinities and all NaNs included",
    hypotheses=(),
    idea="Rounding is a step function of the pattern, with a step a code, from each point at which the mode turns to the "
    "next; each of the 2^32 patterns is rounded and compared with the step it lies in, and the reference itself is asked at "
    "both ends of every step. Float64 inputs and the other saturations (wrap has its own test) are tried at and beside each "
    "value and midpoint.",
    method=Method.EXHAUSTIVE,
    reference="IEEE 754-2019, 4.3; IEEE P3109 interim report 4.0, 4.7.4 (ToOdd), and its formal model of July 2026, ieee-p3109 "
    "7b6f5ba, wSaturate (saturation)",
)

FORMATS, MODES = tuple(named(FLOAT64)), DETERMINISTIC
"""Float64 holds one format more than float32, to which the smallest value of E8M0 is a subnormal number."""
SAMPLE = 8
"""Steps at which the reference is asked where it is not asked at all of them, beside those at the ends of each sign."""


def failures(fmt, meter):
    """Yield what is wrong with the rounding to one format; without a `meter` only chosen patterns are looked at."""
    rules = [rule for rule in saturations(fmt) if rule is not Saturation.wrap]
    for carrier in (FLOAT32, FLOAT64):
        if not carrier.holds(fmt):
            continue
        patterns = directed(fmt, carrier)
        everywhere = None if carrier is FLOAT32 and (meter or fmt.bits <= 8) else SAMPLE
        for mode in MODES:
            for rule in rules:
                right = tiles(fmt, mode, rule, carrier)
                if problem := disagreement(right, fmt, mode, rule, everywhere if rule is rules[0] else 0):
                    yield problem
                both, t = pair(fmt, rule, carrier, mode), addends(mode, carrier.dtype)
                found = directed_difference(right, patterns, t, both)
                if found is None and meter and carrier is FLOAT32 and rule is rules[0]:
                    meter.begin(f"{fmt}, {mode}")
                    found = first_difference(right, t, both, advance=meter.advance)
                if found is not None:
                    even, odd = (t.even_neg, t.odd_neg) if found >> (carrier.width - 1) else (t.even_pos, t.odd_pos)
                    got = evaluate(core, found, even, odd, both)
                    yield f"{fmt}: {contrast(found, got, fmt, mode, rule, carrier)}"


def prove(*, quick=False):
    """Walk all patterns; in a quick run those at and beside each value and midpoint, and wherever else faults are likely."""
    held = [fmt for fmt in FORMATS if FLOAT32.holds(fmt)]
    chosen = "at and beside each value and midpoint, and elsewhere"
    covered = f"to {len(held)} formats in {len(MODES)} modes"
    if quick:
        found = (problem for fmt in FORMATS for problem in failures(fmt, None))
        return settle(found, f"float32 and float64 {chosen}, {covered} (a quick run)")
    with Meter(len(held) * len(MODES) * (ALL[1] + 1.0)) as meter:
        found = (problem for fmt in FORMATS for problem in failures(fmt, meter))
        return settle(found, f"all 2^32 float32 inputs, {covered}; float64 and other saturations {chosen}")
