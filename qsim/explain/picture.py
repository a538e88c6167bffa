"""One conversion, drawn: input, neighbours, threshold, the rule that decided, and the effect of the range."""

from __future__ import annotations

import itertools
import math
import textwrap
from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

from qsim import reference
from qsim.errors import InputError
from qsim.explain.case import Answer, Case, Nan, View, is_code, look, make_case
from qsim.explain.search import common_causes, wrong
from qsim.formats import Format, Grid
from qsim.rounding import Flush, Mode, Saturation
from qsim.underflow import gradual_underflow

__all__ = ["Explanation", "Neighbour", "explain"]

WIDTH = 100
LABEL = 13
"""Columns of the page, and of the labels at its left."""

RULER = 61
"""Columns of the interval between the neighbours, its ends included."""

NEAREST = (Mode.RNE, Mode.RNA, Mode.RNZ, Mode.RNP, Mode.RNN)

MOST_CAUSES = 6
"""How many causes are printed; the tuple has them all."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Neighbour:
    """Hold one end of the interval that x lies in."""

    ordinal: int
    value: Fraction
    #: Its code; `None` beyond the range, and for the zero of a format without one.
    code: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Explanation:
    """Say how one number is rounded, step by step; `str` prints it.

    "Inner" is toward zero, "outer" away from it. Where the random word is not known, `away`, `rounded`, `code` and `value`
    are `None` unless all words give the same.
    """

    case: Case
    #: The neighbours; `None` for what is not rounded. Of a point of the line both are that.
    inner: Neighbour | None
    outer: Neighbour | None
    #: The fraction of the way from `inner` to `outer`.
    nu: Fraction | None
    #: Where a rounding to nearest turns between them, if the format says so; `None`: in their middle.
    threshold: Fraction | None
    #: Stochastic modes: the least word with which x goes away from zero; 2^N where none does.
    first_word: int | None
    #: The rule that decided, in words, and as an inequality with its numbers.
    rule: str
    inequality: str
    #: Whether x goes to `outer`.
    away: bool | None
    #: The result before the range was looked at, and what the range made of it, in words.
    rounded: Fraction | None
    range: str
    #: The result.
    code: int | None
    value: float | None
    #: Whether what somebody else's quantizer returned is right; `None` where nobody's was asked.
    right: bool | None
    #: The known faults that give that answer if it is wrong.
    causes: tuple[str, ...]

    @gradual_underflow
    def __str__(self) -> str:
        return "\n".join(_lines(self))


@gradual_underflow
def explain(
    x: Any,
    fmt: str | Format,
    mode: str | Mode = Mode.RNE,
    *,
    sr_bits: int | None = None,
    rbits: int | str | None = None,
    eps: float | None = None,
    saturation: str | Saturation | None = None,
    ftz_in: bool = False,
    ftz_out: bool | Flush = False,
    nan: Nan | None = None,
    dtype: Any = None,
    got: Any = None,
) -> Explanation:
    """Return how the number `x` is rounded to `fmt`, and, if `got` is a wrong answer, the faults that give it.

    `x` is a Python float (a float64), a NumPy or ml_dtypes scalar, whose bits are shown, or any rational; an integer is a
    number, not bits. The bits of a float are given as a string: "0x3e99999a" is a float32, and 16 digits are a float64; the
    digits of another type need `dtype`: "float16" or "bfloat16". `rbits` is the random word of `sr_bits` bits, an integer or
    "0x..."; without it the explanation says which words go which way. `got` is the answer of another quantizer: a code if it
    is an integer or "0x...", a value if it is a float. `ftz_in` takes a subnormal number of the input's type for
    a zero; `nan` says which NaN is right, "any" takes them all. The other arguments are those of `qsim.reference.encode`.
    Raise `InputError` for arguments that contradict each other.
    """
    return of_case(make_case(x, fmt, mode, sr_bits=sr_bits, rbits=rbits, eps=eps, saturation=saturation, ftz_in=ftz_in,
                             ftz_out=ftz_out, nan=nan, dtype=dtype, got=got))  # fmt: skip


@gradual_underflow
def of_case(case: Case, known: tuple[str, ...] | None = None) -> Explanation:
    """Return the explanation of a case; `known` are its causes where they were found from more cases than this one."""
    views = look(case)
    view, finite = views[0], views[0].ordinal is not None
    inner, outer = _neighbours(view) if finite else (None, None)
    ways = {v.rounded != v.ordinal for v in views}
    away = ways.pop() if finite and len(ways) == 1 else None
    faulty = case.got is not None and wrong(case)
    code = view.right if all(v.right == view.right for v in views) else None
    return Explanation(
        case=case, inner=inner, outer=outer, nu=_way(view) if finite else None, threshold=view.threshold,
        first_word=first_word(view) if finite and case.mode.stochastic else None, rule=_rule(view),
        inequality=_inequality(view, away=away, known=case.rbits is not None) if finite else "", away=away,
        rounded=None if away is None or outer is None or inner is None else (outer if away else inner).value,
        range="; or ".join(dict.fromkeys(map(_range, views))), code=code,
        value=None if code is None else _decoded(case.format, code), right=None if case.got is None else not faulty,
        causes=() if not faulty else tuple(common_causes([case])) if known is None else known,
    )  # fmt: skip


def _way(view: View) -> Fraction:
    """Return the fraction of the way from the neighbour toward zero, by distance."""
    return view.nu if view.threshold is None else view.fmt.split(Fraction(view.x))[1]


def first_word(view: View) -> int:
    """Return the least word of N bits with which x goes away from zero; 2^N where none does.

    The words that do are a run up to the last: StochasticA goes away iff R >= 2^N - floor(nu 2^N), and so on.
    """
    n = view.case.sr_bits
    low, high = 0, 1 << n
    while low < high:
        middle = (low + high) // 2
        low, high = (low, middle) if view.goes(middle) else (middle + 1, high)
    return low


def _neighbours(view: View) -> tuple[Neighbour, Neighbour]:
    assert view.ordinal is not None  # of finite numbers only
    fmt = view.fmt
    ends = []
    for ordinal in (view.ordinal, view.ordinal + bool(view.nu) * (-1 if view.negative else 1)):
        held = -fmt.bottom <= ordinal <= fmt.top
        if view.unbounded and ordinal == view.ordinal and isinstance(fmt, Grid):
            ends.append(Neighbour(ordinal=ordinal, value=fmt.below_normal * (-1 if view.negative else 1), code=None))
            continue
        try:
            value = fmt.value(ordinal)
        except InputError:  # beyond the end of a table
            value = Fraction(view.x)
        code = fmt.code(ordinal, negative_zero=view.negative and not value) if held else None
        ends.append(Neighbour(ordinal=ordinal, value=value, code=code))
    return ends[0], ends[1]


def _decoded(fmt: Format, code: int) -> float | None:
    try:
        return fmt.decode(code)
    except InputError:  # beyond the range of a float64
        return None


# --- Which rule decided ----------------------------------------------------------------------------------------------

WORDS = {
    Mode.RNE: "to the nearer neighbour; a tie goes to the one with the even code",
    Mode.RNA: "to the nearer neighbour; a tie goes away from zero",
    Mode.RNZ: "to the nearer neighbour; a tie goes toward zero",
    Mode.RNP: "to the nearer neighbour; a tie goes to the greater one",
    Mode.RNN: "to the nearer neighbour; a tie goes to the lesser one",
    Mode.RTZ: "to the neighbour toward zero",
    Mode.RUP: "to the greater neighbour",
    Mode.RDN: "to the lesser neighbour",
    Mode.RAZ: "to the neighbour away from zero",
    Mode.RTO: "to the neighbour with the odd code",
    Mode.SRA: "away from zero iff floor(nu 2^N) + R >= 2^N",
    Mode.SR: "away from zero iff floor(nu 2^N) + R >= 2^N, with the widest word that the input has",
    Mode.SRB: "away from zero iff floor(nu 2^(N+1)) + 2R + 1 >= 2^(N+1)",
    Mode.SRC: "away from zero iff nu 2^N, to the nearest integer with ties to even, plus R >= 2^N",
    Mode.SRE: "away from zero iff nu > 0 and the top bit of R is set",
    Mode.THR: "to the greater neighbour iff the fraction from the lesser one exceeds eps",
}


FLUSHED: Mapping[Flush, str] = {
    "after": "and stays so, rounded to as many bits: it is tiny",
    "before": "before it is rounded: it is tiny",
    "result": "",
}
"""Why a number is flushed whichever way it would go."""


def _tiny(v: View) -> str:
    assert isinstance(v.fmt, Grid)  # no other format flushes
    return f"x is below the smallest normal number {number(v.fmt.value(v.fmt.first_normal))}"


def _rule(v: View) -> str:
    if v.case.underflows:
        return f"none: {_tiny(v)} {FLUSHED[v.case.ftz_out or 'result']}"
    if v.ordinal is None:
        what = "a NaN" if v.nan else "an infinity" if v.infinite else "0, for which the format has no code,"
        return f"none: {what} is not rounded"
    if v.threshold is not None:
        return WORDS[v.case.mode].replace(
            "to the nearer neighbour; a tie", "to the neighbour on its side of the threshold; a tie"
        )
    return WORDS[v.case.mode]


def _inequality(v: View, *, away: bool | None, known: bool) -> str:
    """Return the comparison with the numbers of this case; where the word is not `known`, which words go which way."""
    case, mode = v.case, v.case.mode
    goes = "away from zero" if away else "toward zero"
    if mode.stochastic:
        first, whole = first_word(v), 1 << case.sr_bits
        words = f"{whole - first} of the 2^{case.sr_bits} words go away from zero"
        words += f", those from {first} on" if 0 < first < whole else ""
        return f"{_sum(v, away=bool(away))}: {goes}; {words}" if known else words
    if not v.nu:
        return f"nu = 0, x is a point of the grid: {goes}"
    sign = f"and x is {'negative' if v.negative else 'positive'}"
    parity = f"and the code toward zero is {'odd' if v.odd else 'even'}"
    if mode is Mode.THR:
        share, name = (1 - v.nu, "1 - nu") if v.negative else (v.nu, "nu")
        return f"{name} = {fraction(share)} {'>' if share > case.eps else '<='} {number(case.eps)} = eps: {goes}"
    if mode in NEAREST:
        half = Fraction(1, 2)
        if v.threshold is not None and v.nu != half:
            return f"x {'>' if v.x > v.threshold else '<'} {number(v.threshold)}, the threshold: {goes}"
        if v.nu != half:
            return f"nu = {fraction(v.nu)} {'>' if v.nu > half else '<'} 1/2: {goes}"
        decides = {Mode.RNE: f", {parity}", Mode.RNP: f", {sign}", Mode.RNN: f", {sign}"}
        where = "nu = 1/2" if v.threshold is None else f"x is the threshold {number(v.threshold)}"
        return f"{where}, a tie{decides.get(mode, '')}: {goes}"
    decides = {Mode.RTO: f", {parity}", Mode.RUP: f", {sign}", Mode.RDN: f", {sign}"}
    return f"nu = {fraction(v.nu)} > 0{decides.get(mode, '')}: {goes}"


def _sum(v: View, *, away: bool) -> str:
    """Return the two sides of a stochastic mode's comparison."""
    n, r, whole = v.case.sr_bits, v.rbits, 1 << v.case.sr_bits
    if v.case.mode is Mode.SRE:
        return f"nu = {fraction(v.nu)}, and the top bit of R = {r} is {int(2 * r >= whole)}"
    kept, drawn, limit, name = math.floor(v.nu * whole), str(r), whole, f"2^{n}"
    if v.case.mode is Mode.SRC:
        kept = round(v.nu * whole)
    if v.case.mode is Mode.SRB:
        kept, r, limit = math.floor(v.nu * 2 * whole), 2 * r + 1, 2 * whole
        drawn, name = f"2 * {v.rbits} + 1", f"2^{n + 1}"
    return f"{kept} + {drawn} = {kept + r} {'>=' if away else '<'} {name}{f' = {limit}' if n < 64 else ''}"


def _range(v: View) -> str:
    """Describe the effect of the range on the rounded number, or the result of a special one."""
    fmt, case, rule = v.fmt, v.case, v.case.saturation
    result = _decoded(fmt, v.right)
    becomes = f"becomes {'the value of its code' if result is None else number(result)}"
    if v.nan:
        return f"a NaN {becomes} (nan_to of the format is {fmt.nan_to!r})"
    if v.infinite:
        return f"an infinity {becomes} under {rule}"
    if v.case.underflows:
        return f"tiny: {becomes} (ftz_out = {case.ftz_out!r})"
    if v.rounded is None:
        return f"0 {becomes} (zero_to of the format is {fmt.zero_to!r})"
    if not v.rounded and fmt.bottom < 0 and not v.negative:
        return f"below the smallest value: {becomes}, for there is no zero"
    below = v.rounded < -fmt.bottom
    if below or v.rounded > fmt.top:
        end = f"below the smallest value {number(fmt.value(-fmt.bottom))}"
        end = end if below else f"beyond the largest value {number(fmt.value(fmt.top))}"
        inward = case.mode.inward(fmt, negative=below) and rule in (Saturation.SatNone, Saturation.OvfNaN)
        return f"{end}: {becomes} under {rule}{f', since {case.mode} rounds no further' if inward else ''}"
    if case.ftz_out and reference.tiny(fmt, Fraction(v.x), v.rounded, case.ftz_out) and v.x:
        kind = "tiny" if v.unbounded else "a subnormal value"
        return f"{kind}: {becomes} (ftz_out = {case.ftz_out!r})"
    if not v.rounded and v.negative and not fmt.has_neg_zero:
        return "inside; a zero of the format has no sign"
    return "inside"


# --- On the page -----------------------------------------------------------------------------------------------------


def _lines(e: Explanation) -> list[str]:
    case, fmt = e.case, e.case.format
    lines = _input(case)
    how = [f"{case.mode} ({case.mode.value})"]
    if case.mode.stochastic:
        how += [f"N = {case.sr_bits}", "R unknown" if case.rbits is None else f"R = {case.rbits}"]
    if case.mode is Mode.THR:
        how.append(f"eps = {number(case.eps)}")
    how += [
        str(case.saturation),
        *(["ftz_in"] if case.ftz_in else []),
        *([f"ftz_out {case.ftz_out}"] if case.ftz_out else []),
    ]
    lines += _labelled("rounding", f"to {fmt.name} by {', '.join(how)}")
    if case.ftz_in and case.subnormal:
        lines += _labelled("", "a subnormal number of its type, taken for a zero (ftz_in)")
    if fmt.negative_to == "magnitude" and math.copysign(1.0, case.x) < 0:
        lines += _labelled("", "a minus sign, which is dropped first (negative_to of the format is 'magnitude')")
    if e.inner and e.outer and e.nu is not None:
        if e.nu:
            lines += _labelled("toward zero", _point(fmt, e.inner))
            lines += _labelled("away", _point(fmt, e.outer))
            lines += [" " * LABEL + line for line in _ruler(e)]
            lines += _labelled("nu", _nu(e.nu))
        else:
            lines += _labelled("neighbours", f"none: x is a point of the grid, {_point(fmt, e.inner)}")
    lines += _labelled("rule", e.rule)
    if e.inequality:
        lines += _labelled("decides", e.inequality)
    if e.rounded is not None:
        lines += _labelled("rounded", number(e.rounded))
    lines += _labelled("range", e.range)
    if e.code is not None:
        lines += _labelled("result", _result(fmt, e.code))
    else:
        low, high = (_result(fmt, view.right) for view in look(case))
        lines += _labelled("result", low) + _labelled("", f"from R = {e.first_word} on {high}")
    if case.got is not None:
        lines += _labelled("got", f"{_answer(fmt, case.got)}: {'right' if e.right else 'wrong'}")
    if e.right is False:
        lines += _labelled("causes", e.causes[0] if e.causes else "none of the known faults gives this answer")
        for cause in e.causes[1:MOST_CAUSES]:
            lines += _labelled("", cause)
        if len(e.causes) > MOST_CAUSES:
            lines += _labelled("", f"and {len(e.causes) - MOST_CAUSES} more: more answers would narrow them")
    return lines


def _labelled(label: str, text: str) -> list[str]:
    hang = " " * LABEL
    return textwrap.wrap(text, WIDTH, initial_indent=f"{label:{LABEL}}", subsequent_indent=hang, break_on_hyphens=False)


def _input(case: Case) -> list[str]:
    if case.number is None:
        return _labelled("input", f"{number(case.x)} (a rational)")
    spelled = f"{number(case.x)} = {case.number.name} {case.pattern:#0{case.number.bits // 4 + 2}x}"
    fields = _fields(case.number, case.pattern)
    if LABEL + len(f"{spelled} = {fields}") <= WIDTH:
        return _labelled("input", f"{spelled} = {fields}")
    return [*_labelled("input", spelled), *_labelled("", f"= {fields}")]


def _fields(fmt: Format, code: int) -> str:
    """Return the bits of a code: sign, exponent and significand apart where the format has them."""
    bits = f"{code:0{fmt.bits}b}"
    if not isinstance(fmt, Grid) or fmt.even:
        return bits
    cuts = [0, *([1] if fmt.signed else []), fmt.bits - fmt.man_bits, fmt.bits]
    return " ".join(bits[start:stop] for start, stop in itertools.pairwise(cuts) if start < stop)


def _point(fmt: Format, neighbour: Neighbour) -> str:
    if neighbour.code is not None:
        return f"{number(neighbour.value)}, code {_code(fmt, neighbour.code)}"
    outside = not min(-fmt.bottom, 0) <= neighbour.ordinal <= fmt.top
    return f"{number(neighbour.value)}, {'beyond the range' if outside else 'not a value of the format'}"


def _code(fmt: Format, code: int) -> str:
    return f"{code:#0{-(-fmt.bits // 4) + 2}x} = {_fields(fmt, code)}"


def _result(fmt: Format, code: int) -> str:
    value = _decoded(fmt, code)
    return f"{'beyond float64' if value is None else number(value)}, code {_code(fmt, code)}"


def _answer(fmt: Format, got: Answer) -> str:
    if isinstance(got, int):
        return _result(fmt, got) if is_code(fmt, got) else f"code {_code(fmt, got)}, which nothing has"
    return number(got) + ("" if _holds(fmt, got) else ", which is no value of the format")


def _holds(fmt: Format, value: float | Fraction) -> bool:
    """Return whether the format has this value."""
    if isinstance(value, float) and not math.isfinite(value):
        return fmt.has_nan if math.isnan(value) else fmt.has_inf
    try:
        fmt.ordinal(value)
    except InputError:
        return False
    return True


def _ruler(e: Explanation) -> list[str]:
    """Return the interval as a line, toward zero at the left, with x and the place where the rounding turns."""
    assert e.nu is not None  # drawn for numbers between two points
    places = {0: "|", RULER - 1: "|"}
    names = []
    turn = _turn(e)
    if turn is not None:
        places[_place(turn[0])] = "T"
        names.append(turn[1])
    at = _place(e.nu)
    places[at] = "X" if places.get(at) == "T" else "x"
    line = "".join(places.get(i, "-") for i in range(RULER))
    return [f"0 {line} 1", *(f"  {name}" for name in names)]


def _turn(e: Explanation) -> tuple[Fraction, str] | None:
    """Return the fraction at which the rounding turns to the outer neighbour, and a sentence about it."""
    case = e.case
    if e.threshold is not None and e.inner and e.outer:
        share = (e.threshold - e.inner.value) / (e.outer.value - e.inner.value)
        return share, f"T: the threshold, {number(e.threshold)}"
    if case.mode in NEAREST:
        return Fraction(1, 2), "T: the tie, nu = 1/2"
    if case.mode is Mode.THR:
        eps = Fraction(case.eps)
        down = case.x < 0 and case.format.negative_to != "magnitude"
        return (1 - eps, "T: nu = 1 - eps") if down else (eps, "T: nu = eps")
    if case.mode.stochastic and case.mode is not Mode.SRE and case.rbits is not None and case.sr_bits:
        return 1 - Fraction(case.rbits, 1 << case.sr_bits), "T: where this word carries, nu = 1 - R/2^N"
    return None


def _place(share: Fraction) -> int:
    """Return the column of a fraction of the interval; only 0 and 1 are at the very ends."""
    if share in (0, 1):
        return 0 if not share else RULER - 1
    return min(max(round(share * (RULER - 1)), 1), RULER - 2)


def _nu(nu: Fraction) -> str:
    exact, decimal = fraction(nu), _decimal(nu)
    if exact in (decimal, f"about {decimal}"):
        return exact
    same = " " not in decimal and Fraction(decimal) == nu
    return f"{exact} {'=' if same else '~'} {decimal}"


def fraction(nu: Fraction) -> str:
    """Return a fraction of an interval: exactly if that is short, else to nine digits."""
    p, q = nu.as_integer_ratio()
    if q <= 4096:
        return str(nu)
    if q & (q - 1) == 0 and p.bit_length() <= 64:
        return f"{p}/2^{q.bit_length() - 1}"
    return f"about {_decimal(nu)}"


def _decimal(nu: Fraction) -> str:
    """Return nine digits of a fraction, or its distance from 1/2 or 1 where these would not tell it from them."""
    for landmark, name in ((Fraction(1, 2), "1/2"), (Fraction(1), "1")):
        off = nu - landmark
        if off and abs(off) < Fraction(1, 10**9):
            return f"{name} {'+' if off > 0 else '-'} {float(abs(off)):.3g}"
    return f"{float(nu):.9g}"


def number(value: float | Fraction) -> str:
    """Return a number as the shortest decimal that a float64 reads as it; a number that no float64 holds as a quotient."""
    try:
        held = float(value)
    except OverflowError:
        held = math.inf
    if math.isnan(held):
        return "NaN"
    if held == value:
        return repr(held).removesuffix(".0")
    p, q = Fraction(value).as_integer_ratio()
    return f"{p}/{q}" if len(f"{p}{q}") <= 60 else "a rational of many digits"
