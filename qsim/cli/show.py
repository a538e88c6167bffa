"""`qsim show FORMAT`: everything that is in force for one format, and up to 8 bits all its values."""

from __future__ import annotations

import argparse
import dataclasses
import itertools
import math
import textwrap
from fractions import Fraction
from typing import Any

from qsim import reference
from qsim.cli.formats import SPELLINGS, count, describe
from qsim.cli.text import WIDTH, as_float, as_json, columns, exact, number, spans, table
from qsim.errors import InputError
from qsim.formats import SPECIALS, WIDEST_TABLE, Format, Grid, Table, get_format, variants_of
from qsim.formats.build import REVISIONS, SUBNORMALS
from qsim.models import models
from qsim.rounding import WITHOUT_INFINITY, Mode, Saturation, saturations

__all__ = ["HELP", "add", "becomes", "entries", "run", "show"]

HELP = f"a name that `qsim formats` lists, or {SPELLINGS}"
"""What may stand where a command takes a format."""

WIDEST_LISTED = 8
"""Formats of more bits than this are shown without their values."""


def add(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments to its parser."""
    parser.description = (
        "Show one format: its range, its special values, what becomes of what it cannot hold, and up to 8 bits "
        "all its values. Of several formats, show what and how far they are side by side. Of a model that `qsim models` "
        "lists, show its rules, its status, and how it differs from each other model of the same format."
    )
    parser.add_argument("format", nargs="+", metavar="FORMAT", help=HELP)
    parser.add_argument(
        "--json", action="store_true", help='print a JSON object, a list of several; NaN is "nan", infinity "inf"'
    )
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Print the format, or several side by side."""
    if len(args.format) == 1 and args.format[0] in models():
        print(_model(args.format[0], as_data=args.json))
        return 0
    formats = [get_format(name) for name in args.format]
    if args.json:
        found = [data(fmt, asked) for fmt, asked in zip(formats, args.format, strict=True)]
        print(as_json(found if len(found) > 1 else found[0]))
    else:
        print(show(formats[0], args.format[0]) if len(formats) == 1 else side_by_side(formats))
    return 0


def _model(name: str, *, as_data: bool) -> str:
    """Return a model, and how it differs from others."""
    from qsim.cli.models import told  # which imports this module
    from qsim.golden import model
    from qsim.golden.differences import differences

    if not as_data:
        return told(name)
    found = [dataclasses.asdict(one) for one in differences(model(name))]
    return as_json({**dataclasses.asdict(models()[name]), "differences": found})


def side_by_side(formats: list[Format]) -> str:
    """Return the main facts of several formats as tables with a column for each, of as many formats as fit a line."""
    rows = {fmt.name: _column(fmt) for fmt in formats}
    labels = list(dict.fromkeys(label for column in rows.values() for label in column))
    tables, names = [], list(rows)
    while names:
        count = len(names)
        while True:
            cells = [[label, *(rows[name].get(label, "-") for name in names[:count])] for label in labels]
            block = table(("format", *names[:count]), cells)
            if count == 1 or max(map(len, block.splitlines())) <= WIDTH:
                break
            count -= 1
        tables.append(block)
        names = names[count:]
    return "\n\n".join(tables)


def _column(fmt: Format) -> dict[str, str]:
    facts_of = describe(fmt)
    landmarks = {label: text.partition("  = ")[0].strip() for label, text in range_of(fmt) if label != "arrays"}
    split = f"{int(fmt.signed)}/{fmt.exp_bits}/{fmt.man_bits}" if isinstance(fmt, Grid) and fmt.kind == "float" else "-"
    return {
        "bits": str(fmt.bits), "s/e/m": split, **landmarks, "codes of NaN": str(sum(b - a + 1 for a, b in nan_codes(fmt))),
        "infinity": "yes" if fmt.has_inf else "no", "overflow": str(saturations(fmt)[0]),
    } | ({"kind": str(facts_of["kind"])} if "kind" in facts_of else {})  # fmt: skip


def data(fmt: Format, asked: str) -> dict[str, Any]:
    """Return `fmt` as plain data: the fields of `qsim formats`, special codes, the rules for other numbers, the values.

    In "values" stands, for each code, a number, or a string where JSON or a float64 has none, or `None` for an unused code.
    """
    return {
        "asked": asked,
        **describe(fmt),
        "nan_code": fmt.nan_code,
        "nan_codes": [list(span) for span in nan_codes(fmt)],
        "inf_code": fmt.inf_code,
        "unused_codes": [list(span) for span in unused_codes(fmt)],
        "becomes": becomes(fmt),
        "elsewhere": [list(row) for row in fmt.elsewhere],
        "values": [plain(value) for value in decoded(fmt)] if fmt.bits <= WIDEST_LISTED else None,
    }


def plain(value: Fraction | float | None) -> float | str | None:
    """Return a value for JSON: a float, or the product that is exact where no float64 is."""
    if not isinstance(value, Fraction):
        return value
    held = as_float(value)
    return exact(value) if held is None else held


def show(fmt: Format, asked: str) -> str:
    """Return everything in force for `fmt`, which was asked for as `asked`, for reading."""
    paragraphs = [entries(facts(fmt, asked)), entries(range_of(fmt)), entries(specials(fmt)), conversions(fmt)]
    if fmt.elsewhere:
        paragraphs.append(table(fmt.elsewhere[0], fmt.elsewhere[1:]))
    if fmt.bits <= WIDEST_LISTED:
        paragraphs.append(values(fmt))
    return "\n\n".join(paragraphs)


def entries(pairs: list[tuple[str, str]]) -> str:
    """Return label and text a line, the texts aligned and wrapped."""
    hang = " " * 20
    return "\n".join(
        textwrap.fill(f"{label:20}{text}", WIDTH, subsequent_indent=hang, break_on_hyphens=False)
        for label, text in pairs
    )


# --- What it is ------------------------------------------------------------------------------------------------------


def facts(fmt: Format, asked: str) -> list[tuple[str, str]]:
    """Return the kind and parameters of `fmt`."""
    lines = [("format", fmt.name + (f", which {asked} stands for" if asked != fmt.name else ""))]
    if fmt.aliases:
        lines.append(("also called", ", ".join(fmt.aliases)))
    if fmt.family:
        lines.append(("one of", fmt.family))
    if fmt.variant_of:
        lines.append(("variant of", f"{fmt.variant_of}: the same values and codes"))
    lines.append(("converts as" if fmt.variant_of else "defined by", fmt.source))
    if fmt.warning:
        lines.append(("warning", fmt.warning))
    if fmt.revision:
        lines.append(("revision", f"{fmt.revision}: {REVISIONS[fmt.revision]}"))
    if names := ", ".join(variant.name for variant in variants_of(fmt)):
        lines.append(("variants", names))
    lines.append(("bits", layout(fmt)))
    if isinstance(fmt, Table):
        how = "to nearest is by distance" if not fmt.thresholds else "to nearest turns at thresholds, not in the middle"
        others = "stochastic is linear between neighbours; ties to even, and to odd, go by the codes as given"
        lines.append(("rounding", f"{how}; {others}"))
        if turns := _turns(fmt):
            lines.append(("", turns))
        if beyond := [f"{word} at {number(end)}" for word, end in (("above", fmt.above), ("below", fmt.below)) if end]:
            lines.append(("", f"the line goes on {' and '.join(beyond)}"))
    elif isinstance(fmt, Grid) and fmt.kind == "float":
        facts_of = describe(fmt)
        lines += [
            ("precision", f"{fmt.precision} (significant bits, the hidden one included)"),
            ("exponent", "emin {emin}, emax {emax}, bias {bias}".format(**facts_of)),
            ("exponent field 0", field_0(fmt)),
        ]
    return lines


def _turns(fmt: Table) -> str:
    """Say where a rounding to nearest turns, if not in the middle; of many thresholds those next to zero and the ends."""
    if not fmt.thresholds:
        return ""
    middles = [(Fraction(low) + Fraction(high)) / 2 for low, high in itertools.pairwise(fmt.points)]
    other = [turn for turn, middle in zip(fmt.thresholds, middles, strict=True) if turn != middle]
    shown = other if len(other) <= 8 else [turn for turn in other if turn >= 0]
    words = [exact(turn) if len(exact(turn)) <= 8 else number(turn) for turn in dict.fromkeys(shown)]
    never = "; nothing but 0 becomes 0" if fmt.has_zero and fmt.thresholds.count(0.0) == 2 else ""
    mirrored = "" if shown == other else ", and likewise below 0"
    return f"{len(other)} of {len(middles)} are not the middle: {', '.join(words)}{mirrored}{never}"


def layout(fmt: Format) -> str:
    """Return the width of `fmt` and the fields of its bits."""
    if isinstance(fmt, Table):
        return f"{fmt.bits}, a code for each of a list of values"
    assert isinstance(fmt, Grid)
    if fmt.kind == "float":
        return f"{fmt.bits}: {'sign' if fmt.signed else 'no sign'}, {fmt.exp_bits} exponent, {fmt.man_bits} mantissa"
    complement = "two's complement" if fmt.signed else "unsigned"
    symmetric = " without the most negative number" if fmt.signed and fmt.top == fmt.bottom else ""
    times = f"; the value is the integer times 2^{fmt.lsb}" if fmt.kind == "fixed" else ""
    return f"{fmt.bits}, {complement}{symmetric}{times}"


def field_0(fmt: Grid) -> str:
    """Return the meaning of exponent field 0."""
    if not fmt.has_zero:
        return f"2^{fmt.emin}, the smallest value, for there is no zero"
    if not fmt.man_bits:
        return "zero; without mantissa bits there are no subnormal numbers"
    kind = "gradual" if not fmt.gap else "half" if fmt.gap_at else "normal"
    return SUBNORMALS[kind].removeprefix("exponent field 0 means ")


def range_of(fmt: Format) -> list[tuple[str, str]]:
    """Return the landmarks of the range: as decimals that read back exactly, and by powers of two."""
    marks = dict(fmt.landmarks())
    names = {"max": "max", "min": "min", "smallest_subnormal": "smallest positive", "eps": "eps"}
    if isinstance(fmt, Grid) and fmt.even:
        del names["smallest_subnormal"]
        marks["eps"] = marks["smallest_subnormal"]
        names["eps"] = "spacing"
    elif fmt.kind == "float":
        names |= {"smallest_normal": "smallest normal", "smallest_subnormal": "smallest subnormal"}
        if marks["smallest_normal"] == marks["smallest_subnormal"]:
            del names["smallest_subnormal"]
    order = ("max", "min", "smallest_normal", "smallest_subnormal", "eps")
    found = [(names[key], value) for key in order if key in names and (value := marks[key]) is not None]
    shown = [number(value) for _, value in found]
    width = max(map(len, shown))
    lines = [
        (name, f"{text:{width}}  = {exact(value)}" if value else text)
        for (name, value), text in zip(found, shown, strict=True)
    ]
    lines.append(("finite values", f"{count(fmt)}" + " (0 and -0 are one)" * fmt.has_neg_zero))
    if not in_float64(fmt):
        why = "for it reaches beyond float64"
        lines.append(("arrays", f"none are rounded to it, {why}; qsim.reference rounds to it, exactly"))
    return lines


def in_float64(fmt: Format) -> bool:
    """Return whether arrays can be rounded to `fmt`: its values are numbers of a float64, normal ones unless they are few."""
    if not isinstance(fmt, Grid) or fmt.kind != "float":
        return True
    widest = get_format("float64")
    assert isinstance(widest, Grid)
    few = fmt.bits <= WIDEST_TABLE and fmt.has_zero and fmt.lsb >= widest.lsb
    return (fmt.emin >= widest.emin or few) and fmt.emax <= widest.emax


# --- Codes -----------------------------------------------------------------------------------------------------------


def nan_codes(fmt: Format) -> list[tuple[int, int]]:
    """Return the codes that are NaN, as (first, last) of each run."""
    if fmt.nan_code is None:
        return []
    half = 1 << (fmt.bits - fmt.signed)
    first = (fmt.code(fmt.top) if fmt.inf_code is None else fmt.inf_code) + 1
    if isinstance(fmt, Table) or first >= half:
        return [(fmt.nan_code, fmt.nan_code)]
    return [(sign | first, sign | (half - 1)) for sign in ((0, half) if fmt.signed else (0,))]


def unused_codes(fmt: Format) -> list[tuple[int, int]]:
    """Return the codes that stand for nothing, as (first, last) of each run."""
    if isinstance(fmt, Table):
        return spans([code for code in range(1 << fmt.bits) if not fmt.is_code(code)])
    half = 1 << (fmt.bits - 1)
    return [(half, half)] if not fmt.is_code(half) else []  # of symmetric integers


def decoded(fmt: Format) -> list[Fraction | float | None]:
    """Return the meaning of every code: a number, exactly; -0.0, an infinity or a NaN as a float; `None` for nothing."""
    table: list[Fraction | float | None] = [None] * (1 << fmt.bits)
    for first, last in nan_codes(fmt):
        table[first : last + 1] = [math.nan] * (last - first + 1)
    for ordinal in range(-fmt.bottom, fmt.top + 1):
        table[fmt.code(ordinal)] = fmt.value(ordinal)
    if fmt.has_neg_zero:
        table[fmt.code(0, negative_zero=True)] = -0.0
    if fmt.has_inf:
        for negative in (True, False):  # of an unsigned format both are the one infinity
            table[fmt.code_of_inf(negative=negative)] = -math.inf if negative else math.inf
    return table


def code(fmt: Format, number: int) -> str:
    """Return a code in hexadecimal, all digits of the format's width."""
    return f"0x{number:0{-(-fmt.bits // 4)}x}"


def runs(fmt: Format, spans: list[tuple[int, int]]) -> str:
    """Return runs of codes for reading."""
    return ", ".join(code(fmt, a) + (f" .. {code(fmt, b)}" if b > a else "") for a, b in spans)


def specials(fmt: Format) -> list[tuple[str, str]]:
    """Return the codes of the special values."""
    special = SPECIALS[fmt.specials] if isinstance(fmt, Grid) and fmt.specials else "a NaN" if fmt.has_nan else "none"
    lines = [("special values", special)]
    if not fmt.has_zero:
        lines.append(("zero", "there is none"))
    elif fmt.has_neg_zero:
        lines.append(("zero", f"+0 is {code(fmt, fmt.code(0))}, -0 is {code(fmt, fmt.code(0, negative_zero=True))}"))
    else:
        lines.append(("zero", f"{code(fmt, fmt.code(0))}; there is no -0"))
    if fmt.has_inf:
        negative = (
            f", -infinity {code(fmt, fmt.code_of_inf(negative=True))}" if fmt.signed else "; there is no -infinity"
        )
        lines.append(("infinity", code(fmt, fmt.code_of_inf(negative=False)) + negative))
    if fmt.nan_code is not None:
        lines.append(("NaN", f"{runs(fmt, nan_codes(fmt))}; results have {code(fmt, fmt.nan_code)}"))
    if unused := unused_codes(fmt):
        lines.append(("unused codes", runs(fmt, unused)))
    return lines


# --- What it cannot hold ---------------------------------------------------------------------------------------------


def conversions(fmt: Format) -> str:
    """Return the results for numbers that the format may not hold, a column a saturation, with the sources."""
    found = becomes(fmt)
    rules = [f"{rule} (default)" if not at else rule for at, rule in enumerate(found)]
    rows = [
        [name, *cells]
        for name, *cells in zip(next(iter(found.values())), *map(dict.values, found.values()), strict=True)
    ]
    lines = [table(["in", *rules], rows), ""]
    usual = {"nan_to": "", "zero_to": "", "negative_to": "", "ties": "even", "nan": "canonical"}
    fields = [f'{key} = "{word}"' for key, unsaid in usual.items() if (word := getattr(fmt, key)) != unsaid]
    pairs = [("as data", ", ".join(fields))]
    if fmt.ties == "away":
        pairs.append(("RNE", "is RNA: a tie goes to the greater power, as IEEE 754-2019, 4.3.1, has it for one digit"))
    if Saturation.OvfNaN in saturations(fmt):
        names = [
            f"{name} for {rule}" for name, rule in WITHOUT_INFINITY.items() if Saturation(name) not in saturations(fmt)
        ]
        because = f", as {fmt.revision} has it for formats without infinity" if fmt.revision else ""
        pairs.append(("also taken", ", ".join(names) + because))
    if Saturation.wrap in saturations(fmt):
        pairs.append(("wrap", f"the low {fmt.bits} bits of the rounded integer"))
    return "\n".join([*lines, entries(pairs)])


def becomes(fmt: Format) -> dict[str, dict[str, str]]:
    """Return, for each saturation, the default first, and each input, the result of `qsim.reference`, in words.

    The words are "NaN", "infinity", "0", "max", "min", their like with "-", "magnitude" (the result for |x|), "refused" and
    "wrapped".
    """
    span = fmt.value(fmt.top) - fmt.value(-fmt.bottom)
    line = (
        [Fraction(end) for end in fmt.line] if isinstance(fmt, Table) else [fmt.value(-fmt.bottom), fmt.value(fmt.top)]
    )
    above, below = line[-1] + 8 * span, line[0] - 8 * span
    over, under = "rounds above max", "rounds below min"
    if isinstance(fmt, Grid) and not fmt.signed:
        under = "rounds below 0" if fmt.has_zero else "has a minus sign, -0 too"
    inward = [" ".join(str(mode) for mode in Mode if mode.inward(fmt, negative=negative)) for negative in (False, True)]
    inputs: dict[str, tuple[float | Fraction, Mode]] = {
        "NaN": (math.nan, Mode.RNE),
        "infinity": (math.inf, Mode.RNE),
        over: (above, Mode.RNE),
        f"{over}, {inward[0]}": (above, Mode.RTZ),
        "-0, or rounds to it" if fmt.has_zero else "0": (-0.0 if fmt.has_zero else 0.0, Mode.RNE),
        **({"between 0 and min": (fmt.value(1) / 4, Mode.RNE)} if isinstance(fmt, Grid) and not fmt.has_zero else {}),
        under: (below, Mode.RNE),
        f"{under}, {inward[1]}": (below, Mode.RTZ),
        "-infinity": (-math.inf, Mode.RNE),
    }
    found = {
        str(rule): {name: outcome(fmt, x, mode, rule) for name, (x, mode) in inputs.items()}
        for rule in saturations(fmt)
    }
    for general in (over, under):
        special = next(name for name in inputs if name.startswith(f"{general}, "))
        if all(words[special] == words[general] for words in found.values()):
            found = {
                rule: {name: word for name, word in words.items() if name != special} for rule, words in found.items()
            }
    return found


def outcome(fmt: Format, x: float | Fraction, mode: Mode, rule: Saturation) -> str:
    """Return the result for `x` in a word."""
    if fmt.negative_to == "magnitude" and x < 0 and math.isfinite(x):
        return "magnitude"
    if rule is Saturation.wrap and isinstance(x, Fraction):
        return "wrapped"
    try:
        found = reference.encode(x, fmt, mode, saturation=rule)
    except InputError:
        return "refused"
    words: dict[int, str] = {fmt.code(-fmt.bottom): "min", fmt.code(fmt.top): "max"}
    if fmt.has_zero:
        words |= {fmt.code(0, negative_zero=True): "-0", fmt.code(0): "0"}
    if fmt.has_inf:
        words |= {fmt.code_of_inf(negative=True): "-infinity", fmt.code_of_inf(negative=False): "infinity"}
    if fmt.has_nan:
        words |= {fmt.code_of_nan(negative=negative): "NaN" for negative in (False, True)}
    return words[found]


# --- Its values ------------------------------------------------------------------------------------------------------


def values(fmt: Format) -> str:
    """Return the table of all values, in code order down the columns."""
    fields = {"bits": fmt.bits}
    if isinstance(fmt, Grid) and fmt.kind == "float":
        fields = {"s": int(fmt.signed), "exp": fmt.exp_bits, "man": fmt.man_bits}
        fields = {name: width for name, width in fields.items() if width}
    powers = isinstance(fmt, Grid) and fmt.kind == "float" and not fmt.man_bits
    rows = []
    for at, value in enumerate(decoded(fmt)):
        bits = iter(f"{at:0{fmt.bits}b}")
        split = ("".join(itertools.islice(bits, width)) for width in fields.values())
        rows.append((code(fmt, at), *split, shown(value, powers=powers)))
    return columns(table(("code", *fields, "value"), rows, right="value" if fmt.kind == "integer" else ""))


def shown(value: Fraction | float | None, *, powers: bool) -> str:
    """Return one value of the table, a blank for the sign of a positive one; as a power of two if all are."""
    if value is None:
        return " unused"
    by_powers = isinstance(value, Fraction) and (powers or as_float(value) is None)
    text = exact(value) if by_powers else number(value)
    return text if text.startswith("-") else f" {text}"
