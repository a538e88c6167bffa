"""Lists of values, grids with a gap, and E8M0: the array is the reference on all float32, by exhaustion."""

import numpy as np

import qsim
from qsim import reference
from qsim.formats import Table
from qsim.kernels import cpu, table
from qsim.kernels.parameters import addends, parameters
from qsim.prove import Method, Theorem, settle
from qsim.prove.exhaustive import ALL, Meter, beside_wide_difference, first_wide_difference
from qsim.prove.specification import FLOAT32, FLOAT64, value
from qsim.prove.sweep import DETERMINISTIC, disagreement, searched, tiles, unheld, widened
from qsim.rounding import Mode, saturations

THEOREM = Theorem(
    statement="What rounds an array of float32 to a named format of up to 16 bits that float32 cannot be rounded to in place "
    "(lists of values, grids with a gap, E8M0) returns the value and the code of qsim.reference.encode(x, format, mode) for "
    "every float32 x and each deterministic mode but Threshold, under the default saturation: signed zeros, subnormals, "
    "overflow, infinities and all NaNs included",
    hypotheses=(),
    idea="The input is widened to float64, exactly, and rounded there: lists by a search among steps that were found by "
    "bisection with the dividing kernel. Each of the 2^32 results is compared with the step that the reference gives; of a "
    "list these steps are found by asking the reference alone.",
    method=Method.EXHAUSTIVE,
    reference="qsim.reference; formats/tables.toml, formats/configurable.toml and formats/ocp_mx.toml name the documents",
)

FORMATS, MODES = tuple(unheld(FLOAT32)), DETERMINISTIC
EVERYWHERE = 10
"""Formats of more bits than this are asked for at a sample of their steps; those of a list are asked for anyway."""
QUICK = {"dlfloat16": (Mode.RNE,), "posit8": (Mode.RNE, Mode.RUP)}
"""The modes of a quick run where a mode takes a second to prepare."""


def steps(fmt, mode, rule):
    """Return what the reference makes of every float32, and what is wrong with that where it was found by arithmetic."""
    if isinstance(fmt, Table):
        return searched(fmt, mode, rule), None
    found = tiles(fmt, mode, rule)
    return widened(found, fmt), disagreement(found, fmt, mode, rule, None if fmt.bits <= EVERYWHERE else 200)


def driver(fmt, mode, rule):
    """Return the loop of the library that rounds float64 patterns to the format."""
    if FLOAT64.holds(fmt):
        t, p = addends(mode, FLOAT64.dtype), parameters(fmt, rule, FLOAT64.dtype, mode)
        return lambda x, y: cpu.round_by_addends(x, y, t, p)
    runs = table.steps(fmt, rule, mode)
    return lambda x, y: table.round_by_steps(x, y, runs)


def failures(fmt, meter):
    """Yield what is wrong with the rounding to one format; without a `meter` only at and beside each step."""
    for mode in QUICK.get(fmt.name, MODES) if meter is None else MODES:
        for rule in saturations(fmt):
            right, problem = steps(fmt, mode, rule)
            if problem:
                yield problem
            to = driver(fmt, mode, rule)
            found = beside_wide_difference(right, to)
            if found is None and meter and rule is saturations(fmt)[0]:
                meter.begin(f"{fmt}, {mode}")
                found = first_wide_difference(right, to, advance=meter.advance)
            if found is not None:
                x = value(found)
                got = float(qsim.quantize(x, fmt, mode, saturation=rule))
                wanted = reference.quantize(x, fmt, mode, saturation=rule)
                yield f"{fmt}, {mode}, {rule}: {x!r} (pattern {found:#010x}) becomes {got!r}; the reference has {wanted!r}"
    # The code is a function of the value, so each value is enough.
    codes = np.array([code for code in range(1 << fmt.bits) if fmt.is_code(code)])
    values = fmt.values()[codes]
    numbers = ~np.isnan(values)
    for code, got in zip(codes[numbers].tolist(), qsim.encode(values[numbers], fmt).tolist(), strict=True):
        if code != got:
            yield f"{fmt}: the value of code {code:#x} is encoded as {got:#x}"


def prove(*, quick=False):
    """Walk all patterns; in a quick run those at and beside each step."""
    covered = f"to {len(FORMATS)} formats in {len(MODES)} modes"
    if quick:
        found = (problem for fmt in FORMATS for problem in failures(fmt, None))
        fewer = " and ".join(f"{name} in {len(modes)}" for name, modes in QUICK.items())
        return settle(found, f"float32 at and beside each step, {covered}, but {fewer} (a quick run)")
    with Meter(len(FORMATS) * len(MODES) * (ALL[1] + 1.0)) as meter:
        found = (problem for fmt in FORMATS for problem in failures(fmt, meter))
        return settle(found, f"all 2^32 float32 inputs, {covered}; the other saturations at and beside each step")
