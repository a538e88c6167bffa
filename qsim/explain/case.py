"""One conversion: its input, the rounding asked for, the answer, and the reference's result, in parts."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from fractions import Fraction
from typing import Any, Literal, cast, get_args

import numpy as np

from qsim import reference
from qsim.errors import InputError, enumerate_names
from qsim.formats import Format, Grid, Table, get_format
from qsim.rounding import Flush, Mode, Saturation, check_eps, parse_ftz_out, parse_mode, parse_saturation
from qsim.underflow import gradual_underflow

__all__ = [
    "Answer", "Case", "Nan", "View", "alike", "code_of_value", "is_code", "landing", "look", "make_case", "own_format",
    "parse_nan", "point", "value_of",
]  # fmt: skip

Answer = int | float | Fraction
"""The answer of a quantizer: an `int` is a code, anything else a value."""

Nan = Literal["canonical", "signed", "signed_overflow", "any"]
"""Which NaN is right: the one without sign, the one with the sign of the input, that for overflows alone, or any."""

NUMBERS = ("float16", "bfloat16", "float32", "float64")
"""The types whose numbers have bits to show, each named as its format."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """Hold one conversion. `make_case` builds one from a user's arguments."""

    x: float | Fraction
    format: Format
    mode: Mode
    saturation: Saturation
    sr_bits: int = 0
    #: The random word; `None` where it is unknown.
    rbits: int | None = 0
    eps: float = 0.0
    ftz_in: bool = False
    ftz_out: Flush | Literal[False] = False
    nan: Nan = "canonical"
    #: The format of the input's own type; `None` for a rational.
    number: Grid | None = None
    #: The bit pattern of the input in that type.
    pattern: int = 0
    #: What somebody's quantizer returned; `None` where nobody's was asked.
    got: Answer | None = None

    @property
    def entering(self) -> float | Fraction:
        """The number that is converted: x, or the zero that a subnormal x is flushed to."""
        return math.copysign(0.0, self.x) if self.ftz_in and self.subnormal else self.x

    @property
    @gradual_underflow
    def subnormal(self) -> bool:
        """Whether x is a subnormal number of its own type."""
        return self.number is not None and 0 < abs(float(self.x)) < self.number.smallest_normal

    @property
    def underflows(self) -> bool:
        """Whether the number is flushed to zero whichever way it would go, so that it is not rounded."""
        x = self.entering
        if not isinstance(self.format, Grid) or self.format.even or (isinstance(x, float) and not math.isfinite(x)):
            return False
        magnitude = abs(Fraction(x))
        if not magnitude or self.ftz_out not in ("before", "after"):
            return False
        if self.ftz_out == "before":
            return magnitude < self.format.value(self.format.first_normal)
        return magnitude <= self.format.below_normal

    @gradual_underflow
    def code(self, **changed: Any) -> int:
        """Return the reference's code for x; `changed` are arguments of `reference.encode`, and x, to ask for another."""
        how: dict[str, Any] = {
            "x": self.entering, "fmt": self.format, "mode": self.mode, "sr_bits": self.sr_bits,
            "rbits": self.rbits or 0, "eps": self.eps, "saturation": self.saturation, "ftz_out": self.ftz_out,
            "nan": "canonical" if self.nan == "any" else self.nan, **changed,
        }  # fmt: skip
        return reference.encode(how.pop("x"), **how)


def own_format(x: Any) -> Grid | None:
    """Return the format of the type of the number `x`: float64 for Python's floats, `None` for rationals."""
    if isinstance(x, np.generic) and x.dtype.name in NUMBERS:
        return _float_type(x.dtype.name)
    return _float_type("float64") if isinstance(x, float) else None


def _float_type(name: str) -> Grid:
    number = get_format(name)
    assert isinstance(number, Grid)
    return number


@gradual_underflow
def make_case(
    x: Any,
    fmt: str | Format,
    mode: str | Mode = Mode.RNE,
    *,
    sr_bits: int | None = None,
    rbits: Any = None,
    eps: float | None = None,
    saturation: str | Saturation | None = None,
    ftz_in: bool = False,
    ftz_out: bool | Flush = False,
    nan: Nan | None = None,
    dtype: Any = None,
    got: Any = None,
) -> Case:
    """Return the case that the arguments of `explain` spell; raise `InputError` for arguments that contradict each other."""
    fmt = get_format(fmt)
    mode = parse_mode(mode, fmt)
    rbits, got = _word("rbits", rbits), _word("got", got)
    number, pattern = own_format(x), 0
    if isinstance(x, str):
        x, number, pattern = _of_bits(x, dtype)
    elif dtype is not None:
        raise InputError(
            f"dtype = {dtype!r} with x = {x!r}: it is the type whose bits a word such as x = '0x3e99999a' has"
        )
    elif number is not None:
        scalar = np.float64(x) if isinstance(x, float) and not isinstance(x, np.generic) else x
        pattern = int(np.asarray(scalar).view(f"u{number.bits // 8}")[()])
        x = float(x)
    elif isinstance(x, int | np.integer) and not isinstance(x, bool):
        x = Fraction(int(x))
    if not isinstance(x, float | Fraction):
        raise InputError(
            f"x = {x!r} is no number; give a float, a NumPy float, a Fraction, or the bits of a float as '0x...'"
        )
    if mode.stochastic:
        if sr_bits is None and mode in (Mode.SR, Mode.SRE):
            sr_bits = 32 if number is not None and number.bits <= 32 else 64
        if sr_bits is None:
            raise InputError(f"{mode} needs sr_bits, the number of random bits N")
        if sr_bits < 0 or (rbits is not None and not 0 <= rbits < 1 << sr_bits):
            raise InputError(f"rbits = {rbits} is no word of sr_bits = {sr_bits} bits")
    elif sr_bits is not None or rbits is not None:
        raise InputError(f"{mode} takes no random word; drop sr_bits and rbits")
    if (mode is Mode.THR) != (eps is not None):
        raise InputError(f"eps = {eps!r} with {mode}: it is the threshold of the mode Threshold, 0 <= eps < 1")
    if eps is not None:
        check_eps(eps)
    return Case(
        x=x, format=fmt, mode=mode, saturation=parse_saturation(saturation, fmt), sr_bits=sr_bits or 0,
        rbits=None if rbits is None and mode.stochastic else int(rbits or 0), eps=float(eps or 0.0), ftz_in=ftz_in,
        ftz_out=parse_ftz_out(ftz_out), nan=parse_nan(fmt.nan if nan is None else nan), number=number, pattern=pattern,
        got=None if got is None else _answer(fmt, got),
    )  # fmt: skip


def parse_nan(nan: Any) -> Nan:
    """Return which NaN is right."""
    if not isinstance(nan, str) or nan not in get_args(Nan):
        raise InputError(f"nan = {nan!r}; it is {enumerate_names(map(repr, get_args(Nan)))}")
    return cast("Nan", nan)


def _word(name: str, given: Any) -> Any:
    """Return an integer that is spelled "0x..."; anything else as it is."""
    if not isinstance(given, str) or not given.lower().startswith("0x"):
        return given
    try:
        return int(given, 16)
    except ValueError:
        raise InputError(f"{name} = {given!r} is no hexadecimal number") from None


def _of_bits(text: str, dtype: Any) -> tuple[float, Grid, int]:
    """Return the float whose bits are spelled "0x...", its type and the bits."""
    pattern = _word("x", text)
    if not isinstance(pattern, int):
        raise InputError(
            f"x = {text!r} is no number; give a float, a NumPy float, a Fraction, or the bits of a float as '0x...'"
        )
    digits = len(text) - 2
    name = {8: "float32", 16: "float64"}.get(digits, "") if dtype is None else getattr(dtype, "__name__", str(dtype))
    if name not in NUMBERS or pattern >> _float_type(name).bits:
        types = "dtype, one of float16, bfloat16, float32 and float64," if dtype is None else f"dtype = {dtype!r}"
        raise InputError(
            f"x = {text!r} has {digits} digits: 8 are a float32, 16 a float64; {types} says which bits they are"
        )
    number = _float_type(name)
    return number.decode(pattern), number, pattern


def _answer(fmt: Format, got: Any) -> Answer:
    """Return a code as an `int`, a value as a `float` or `Fraction`; refuse anything else."""
    if isinstance(got, int | np.integer) and not isinstance(got, bool):
        if not 0 <= got < 1 << fmt.bits:
            raise InputError(
                f"got = {got}: codes of {fmt.name} are 0 .. {(1 << fmt.bits) - 1}; give a value as a float"
            )
        return int(got)
    if isinstance(got, float | Fraction):
        return got
    try:
        return float(got)
    except (TypeError, ValueError):
        raise InputError(f"got = {got!r} is neither a code (an integer) nor a value (a float)") from None


# --- What the reference makes of it, in parts ------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class View:
    """Hold a case with its random word, and the parts of the reference's answer."""

    case: Case
    #: The number that is rounded.
    x: float | Fraction
    negative: bool
    #: The neighbour toward zero; `None` for what is not rounded: NaN, infinities, 0 where the format has none, and what is
    #: flushed whichever way it would go.
    ordinal: int | None
    #: The discarded fraction as the mode has it: 1/2 at the format's threshold, if it has one and the mode rounds to nearest.
    nu: Fraction
    odd: bool
    #: Where the rounding goes, on the line that goes on beyond the range.
    rounded: int | None
    #: The reference's code.
    right: int

    @property
    def fmt(self) -> Format:
        """The format."""
        return self.case.format

    @property
    def rbits(self) -> int:
        """The random word; 0 where the mode takes none."""
        return self.case.rbits or 0

    @property
    def nan(self) -> bool:
        """Whether x is a NaN."""
        return isinstance(self.x, float) and math.isnan(self.x)

    @property
    def infinite(self) -> bool:
        """Whether x is an infinity."""
        return isinstance(self.x, float) and math.isinf(self.x)

    @property
    def threshold(self) -> Fraction | None:
        """Where a rounding to nearest turns between the neighbours, if the format says so; `None`: in their middle."""
        if not isinstance(self.fmt, Table) or not self.fmt.thresholds or not self.case.mode.nearest:
            return None
        return self.fmt.threshold(self.ordinal - self.negative) if self.ordinal is not None and self.nu else None

    @property
    def unbounded(self) -> bool:
        """Whether the inner neighbour is `Grid.below_normal`, no value of the format: one is flushed after the rounding."""
        fmt, tiny = self.fmt, self.case.ftz_out == "after"
        at = (
            self.ordinal is not None
            and isinstance(fmt, Grid)
            and not fmt.even
            and abs(self.ordinal) == fmt.first_normal - 1
        )
        return tiny and at and bool(self.nu)

    def goes(self, rbits: int) -> bool:
        """Return whether x goes away from zero with another word."""
        case = self.case
        return reference.away(case.mode, self.nu, self.odd, self.negative, case.sr_bits, rbits, case.eps)


@gradual_underflow
def look(case: Case) -> list[View]:
    """Return the view of a case, or those for the lowest and the highest word where the word is unknown."""
    if case.rbits is None:
        words = sorted({0, (1 << case.sr_bits) - 1})
        return [view for word in words for view in look(dataclasses.replace(case, rbits=word))]
    fmt = case.format
    x = case.entering
    if fmt.negative_to == "magnitude":
        x = math.fabs(x) if isinstance(x, float) else abs(x)
    negative = math.copysign(1.0, x) < 0 if isinstance(x, float) else x < 0
    ordinal, nu, odd, rounded = None, Fraction(0), False, None
    if not (isinstance(x, float) and not math.isfinite(x)) and (x or fmt.has_zero) and not case.underflows:
        ordinal, odd, nu = reference.locate(fmt, Fraction(x), case.mode, case.ftz_out)
        away = reference.away(case.mode, nu, odd, negative, case.sr_bits, case.rbits, case.eps)
        rounded = ordinal + away * (-1 if negative else 1)
    view = View(case=case, x=x, negative=negative, ordinal=ordinal, nu=nu, odd=odd, rounded=rounded, right=case.code())
    return [view]


def point(fmt: Format, ordinal: int) -> Fraction:
    """Return the point of the line that `ordinal` numbers; beyond the end of a table, some number there."""
    if isinstance(fmt, Table):
        line = fmt.line
        at = ordinal + fmt.bottom + (fmt.below is not None)
        if not 0 <= at < len(line):
            return Fraction(line[-1]) + 1 if at > 0 else Fraction(line[0]) - 1
    return fmt.value(ordinal)


def landing(fmt: Format, ordinal: int, *, negative: bool) -> float | Fraction:
    """Return a number that stands for those rounded to `ordinal` from one side of zero: the point of the line, or a zero.

    In a grid without zero that is a number near to it, which becomes the same in every mode.
    """
    at = point(fmt, ordinal)
    if at:
        return at
    near = 0.0 if fmt.has_zero else fmt.value(1) / 4
    return -near if negative else near


def value_of(fmt: Format, answer: Answer) -> float | Fraction:
    """Return the value of an answer; NaN for a code that nothing has."""
    if not isinstance(answer, int):
        return answer
    if not is_code(fmt, answer):
        return math.nan
    try:
        return fmt.decode(answer)
    except InputError:  # a float format that reaches beyond float64, and at one of its finite values
        magnitude = answer & ((1 << (fmt.bits - fmt.signed)) - 1)
        return fmt.value(-magnitude if magnitude < answer else magnitude)


def is_code(fmt: Format, code: int) -> bool:
    """Return whether an integer stands for something in the format."""
    return 0 <= code < 1 << fmt.bits and fmt.is_code(code)


def alike(a: float | Fraction, b: float | Fraction) -> bool:
    """Return whether two values are the same: both NaN, or equal, with the same sign if they are zeros."""
    nans = [isinstance(v, float) and math.isnan(v) for v in (a, b)]
    if any(nans):
        return all(nans)
    return a == b and (bool(a) or math.copysign(1.0, a) == math.copysign(1.0, b))


def code_of_value(fmt: Format, value: float | Fraction) -> int | None:
    """Return the code of a value; `None` where the format does not hold it."""
    if isinstance(value, float) and math.isnan(value):
        return fmt.nan_code
    if isinstance(value, float) and math.isinf(value):
        return fmt.code_of_inf(negative=value < 0) if fmt.has_inf and (fmt.signed or value > 0) else None
    try:
        ordinal = fmt.ordinal(value)
    except InputError:
        return None
    return fmt.code(ordinal, negative_zero=not value and math.copysign(1.0, value) < 0)
