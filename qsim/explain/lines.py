"""Many conversions of one kind as arrays: inputs, answers, and the parts of the reference's answers.

An **answer** is the result of a quantizer, or of a faulty one: an array of codes where codes were returned, and of values
where values were. A code that no value has is -1.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Sequence
from fractions import Fraction
from functools import cached_property
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from qsim.errors import InputError
from qsim.explain.case import NUMBERS, Case, Nan, alike, landing, make_case
from qsim.explain.oracle import (
    Codes,
    Expected,
    Flags,
    Floats,
    Part,
    Places,
    away,
    decode,
    encode_values,
    ends,
    expect,
    first_word,
    is_nan_code,
    place,
    points_at,
    tiny,
    wide,
)  # fmt: skip
from qsim.formats import Format, Grid
from qsim.rounding import Flush, Mode, Saturation, parse_mode, parse_saturation

__all__ = ["Answers", "Lines", "exactly", "lines_of", "make_lines"]

Answers = NDArray[Any]
"""int64 codes, or values: float64, or Python's numbers where a format reaches beyond it."""


class Lines:
    """Hold many conversions that differ in input, word and answer only.

    `kind` is a case of the same kind: its format, mode and options are those of all lines. `x` holds the numbers as they came,
    float64 or, for rationals, objects; `pattern` their bits in the input's own type. `words` is `None` where nobody knows the
    random words; else each is an int64, or one of Python's integers where words have more than 62 bits. `at` and `expected`
    may be given where they are known already.
    """

    def __init__(
        self,
        kind: Case,
        x: NDArray[Any],
        pattern: NDArray[np.uint64],
        words: NDArray[Any] | None,
        got: Answers,
        *,
        entering: NDArray[Any] | None = None,
        expected: Expected | None = None,
    ) -> None:
        self.kind, self.x, self.pattern, self.given_words, self.got = kind, x, pattern, words, got
        #: The numbers that are converted, x or the zeros that subnormal ones are flushed to; and those that are rounded,
        #: without their signs if these are dropped.
        self.flushed = self.flush(x, to=kind.ftz_in)
        self.entering = _signed(kind.format, self.flushed) if entering is None else entering
        self._expected = expected

    def __len__(self) -> int:
        return len(self.x)

    def pick(self, chosen: Any) -> Lines:
        """Return a part of the lines."""
        words = None if self.given_words is None else self.given_words[chosen]
        return Lines(self.kind, self.x[chosen], self.pattern[chosen], words, self.got[chosen],
                     entering=self.entering[chosen], expected=self.expected[chosen])  # fmt: skip

    def ways(self) -> list[Lines]:
        """Return the lines with their words; where these are unknown, with the lowest for all, and with the highest."""
        if self.given_words is not None:
            return [self]
        kind = object if wide(self.n) else np.int64
        ends = [np.full(len(self), word, kind) for word in sorted({0, (1 << self.n) - 1})]
        return [
            Lines(self.kind, self.x, self.pattern, words, self.got, entering=self.entering, expected=self.expected)
            for words in ends
        ]

    # --- What went in ------------------------------------------------------------------------------------------------

    @property
    def fmt(self) -> Format:
        """The format."""
        return self.kind.format

    @property
    def mode(self) -> Mode:
        """The rounding mode."""
        return self.kind.mode

    @property
    def n(self) -> int:
        """The number of random bits; 0 for a deterministic mode."""
        return self.kind.sr_bits

    @cached_property
    def words(self) -> NDArray[Any]:
        """The random words; 0 for a deterministic mode."""
        assert self.given_words is not None  # of lines as `ways` returns them
        return self.given_words

    @cached_property
    def expected(self) -> Expected:
        """The right answers."""
        kind = self.kind
        return self._expected or expect(
            kind.format, kind.mode, kind.saturation, self.entering, place(kind.format, self.entering), n=kind.sr_bits,
            eps=kind.eps, ftz_out=kind.ftz_out, nan=kind.nan,
        )  # fmt: skip

    @property
    def at(self) -> Places:
        """Where the numbers lie, as the mode has it."""
        return self.expected.places

    @cached_property
    def floats(self) -> Floats:
        """The numbers that are rounded, as float64; of a rational its sign: -1, 0 or 1."""
        if self.entering.dtype != object:
            return self.entering
        return np.array([v if isinstance(v, float) else (v > 0) - (v < 0) for v in self.entering], np.float64)

    @cached_property
    def negative(self) -> Flags:
        """Whether a number is negative, or the zero of that sign."""
        return np.signbit(self.floats)

    @cached_property
    def nan(self) -> Flags:
        """Whether a number is a NaN."""
        return np.isnan(self.floats)

    @cached_property
    def infinite(self) -> Flags:
        """Whether a number is an infinity."""
        return np.isinf(self.floats)

    @cached_property
    def zero(self) -> Flags:
        """Whether a number is 0."""
        return np.asarray(self.floats == 0)

    @cached_property
    def sized(self) -> Flags:
        """Whether a number is finite, and not 0."""
        return np.asarray(np.isfinite(self.floats) & ~self.zero)

    @cached_property
    def finite(self) -> Flags:
        """Whether a number is rounded: all but NaN, infinities, 0 where the format has none, and flushed numbers."""
        held = np.isfinite(self.floats) & (self.fmt.has_zero | ~self.zero)
        return np.asarray(held & ~tiny(self.fmt, self.entering, self.kind.ftz_out))

    @cached_property
    def exact(self) -> Flags:
        """Whether a number is a point of the line other than 0."""
        return np.asarray(self.finite & self.at.nu.zero & ~self.zero)

    @cached_property
    def outward(self) -> NDArray[np.int64]:
        """The step of ordinals away from zero."""
        return np.where(self.at.negative, -1, 1)

    @cached_property
    def subnormal(self) -> Flags:
        """Whether a number, as it came, is a subnormal number of its own type."""
        if self.kind.number is None:
            return np.zeros(len(self), bool)
        size = np.abs(self.x)
        return np.asarray((size > 0) & (size < self.kind.number.smallest_normal))

    def flush(self, x: NDArray[Any], *, to: bool) -> NDArray[Any]:
        """Return the numbers `x` as they came with the subnormal ones `to` zero, or as they are."""
        return np.where(self.subnormal, np.copysign(0.0, x), x) if to and self.kind.number is not None else x

    # --- Which way it goes -------------------------------------------------------------------------------------------

    def goes(
        self, *, mode: Mode | None = None, nu: Part | None = None, odd: Flags | None = None, negative: Flags | None = None,
        words: NDArray[Any] | None = None, n: int | None = None,
    ) -> Flags:  # fmt: skip
        """Return which numbers go away from zero, by the mode or another, at another fraction, parity, sign or word."""
        at, mode = self.at, mode or self.mode
        nu = at.nu if nu is None else nu
        if not mode.stochastic:
            odd, negative = at.odd if odd is None else odd, at.negative if negative is None else negative
            return away(mode, self.kind.eps, Places(at.ordinal, nu, odd, negative))
        turn = first_word(mode, self.n if n is None else n, nu)
        return np.asarray((self.words if words is None else words) >= turn).astype(bool)

    @cached_property
    def away(self) -> Flags:
        """Which numbers should go away from zero."""
        return np.asarray(self.words >= self.expected.first_word).astype(bool)

    @cached_property
    def rounded(self) -> NDArray[np.int64]:
        """The ordinals to which numbers should be rounded, on a line that goes on beyond the range; 0 for special ones."""
        return np.where(self.finite, self.at.ordinal + self.away * self.outward, 0)

    @cached_property
    def beyond(self) -> Flags:
        """Whether a number is rounded to a point beyond the range."""
        inside = (self.rounded >= -self.fmt.bottom) & (self.rounded <= self.fmt.top)
        underflow = (self.rounded == 0) & (self.fmt.bottom < 0) & ~self.negative  # a grid without zero
        return np.asarray(self.finite & ~inside & ~underflow)

    @cached_property
    def low(self) -> Flags:
        """Whether a number is not 0, and below the smallest normal value of a float format."""
        if not isinstance(self.fmt, Grid) or self.fmt.even:
            return np.zeros(len(self), bool)
        small = np.abs(self.at.ordinal) < self.fmt.first_normal
        return np.asarray(self.sized & small)

    @cached_property
    def tie(self) -> Flags:
        """Whether a number is in the middle of an interval."""
        return np.asarray(self.finite & (self.at.nu.word == 1 << 63) & (self.at.nu.tail == 0))

    @cached_property
    def sort(self) -> NDArray[np.int64]:
        """A label of the sort of number, by which faults tell numbers apart: NaN, infinity, tie, ...; and its sign."""
        past = (np.abs(self.at.ordinal) > np.abs(self.end)) | ((self.at.ordinal == self.end) & ~self.at.nu.zero)
        unheld = np.asarray([v < 0 for v in self.flushed]) if self.flushed.dtype == object else np.signbit(self.flushed)
        unheld &= not self.fmt.signed
        sorts = [self.nan, self.infinite, self.zero, unheld, past, self.subnormal, self.low, self.tie, self.exact]
        return np.asarray(np.select(sorts, range(len(sorts)), len(sorts)) + (len(sorts) + 1) * self.negative)

    @property
    def end(self) -> NDArray[np.int64]:
        """The ordinal of the last value on each number's side."""
        return np.where(self.at.negative, -self.fmt.bottom, self.fmt.top)

    @property
    def outside(self) -> NDArray[np.int64]:
        """The first ordinal beyond the range on each number's side."""
        return np.where(self.at.negative, min(-self.fmt.bottom, 0) - 1, self.fmt.top + 1)

    # --- What it becomes ---------------------------------------------------------------------------------------------

    @cached_property
    def right_codes(self) -> Codes:
        """The reference's codes."""
        return np.where(self.away, self.expected.outer, self.expected.inner)

    @cached_property
    def right_values(self) -> NDArray[Any]:
        """The values of these codes."""
        return decode(self.fmt, self.right_codes)

    @cached_property
    def right(self) -> Answers:
        """The reference's answers."""
        return self.right_codes if self.coded else self.right_values

    @property
    def coded(self) -> bool:
        """Whether the answers are codes."""
        return self.got.dtype == np.int64

    def of_codes(self, codes: Codes) -> Answers:
        """Return codes as answers."""
        return codes if self.coded else decode(self.fmt, codes)

    def of_values(self, values: NDArray[Any]) -> Answers:
        """Return values as answers, whether the format holds them or not."""
        values = np.broadcast_to(values, self.x.shape)
        return encode_values(self.fmt, values) if self.coded else values

    def go(self, goes: Flags) -> Answers:
        """Return the answers of going away from zero where `goes`, and of staying elsewhere; special numbers as they should."""
        return self.of_codes(np.where(goes, self.expected.outer, self.expected.inner))

    def land(self, ordinal: NDArray[np.int64]) -> Answers:
        """Return the answers at the points of the line numbered `ordinal`; for special numbers anything."""
        if self.kind.saturation is Saturation.wrap:  # the codes are the low bits of the ordinals, of any size
            return self.of_codes(ordinal & ((1 << self.fmt.bits) - 1))
        # All points beyond an end become the same.
        ordinal = np.where(np.isfinite(self.floats), np.clip(ordinal, *ends(self.fmt)), 0)
        points = points_at(self.fmt, ordinal)
        if np.isfinite(points).all() and (self.fmt.has_zero or (points != 0).all()):
            return self.round(np.where(points == 0, np.where(self.at.negative, -0.0, 0.0), points))
        sides = zip(ordinal.tolist(), self.at.negative.tolist(), strict=True)
        return self.round(np.array([landing(self.fmt, at, negative=negative) for at, negative in sides], object))

    def round(
        self, x: NDArray[Any], *, fmt: Format | None = None, mode: Mode | None = None,
        saturation: Saturation | None = None, ftz_out: Flush | Literal[False] | None = None, nan: Nan | None = None,
    ) -> Answers:  # fmt: skip
        """Return the answers for numbers `x` in place of the lines' own, by the same rounding or a changed one."""
        codes = self.encode(x, fmt=fmt, mode=mode, saturation=saturation, ftz_out=ftz_out, nan=nan)
        return codes if self.coded else decode(fmt or self.fmt, codes)

    def encode(
        self, x: NDArray[Any], *, fmt: Format | None = None, mode: Mode | None = None,
        saturation: Saturation | None = None, ftz_out: Flush | Literal[False] | None = None, nan: Nan | None = None,
    ) -> Codes:  # fmt: skip
        """Return the codes of `round`."""
        kind = self.kind
        mode = mode or parse_mode(self.mode, fmt)  # of a variant, RNE may mean that ties go away
        if saturation is None:
            saturation = kind.saturation if fmt is None else parse_saturation(None, fmt)
        known = x is self.entering and fmt is None and ftz_out is None
        fmt = fmt or kind.format
        x = x if known else _signed(fmt, x)
        found = expect(
            fmt, mode, saturation, x, self.expected.placed if known else place(fmt, x),
            n=self.n if mode.stochastic else 0, eps=kind.eps, ftz_out=kind.ftz_out if ftz_out is None else ftz_out,
            nan=nan or kind.nan,
        )  # fmt: skip
        words = self.words if mode.stochastic else 0
        return np.where(np.asarray(words >= found.first_word).astype(bool), found.outer, found.inner)

    # --- What came out -----------------------------------------------------------------------------------------------

    @cached_property
    def got_values(self) -> NDArray[Any]:
        """The values that came out; NaN for a code that no value has."""
        return decode(self.fmt, self.got) if self.coded else self.got

    @cached_property
    def got_nan(self) -> Flags:
        """Whether a NaN came out, or a code that no value has."""
        return np.asarray(self.got_values != self.got_values).astype(bool)

    def matches(self, answers: Answers) -> Flags:
        """Return where `answers` equal the answers at hand."""
        if not self.coded:
            return same(answers, self.got)
        equal = np.asarray(answers == self.got)
        if self.kind.nan == "any":
            equal |= is_nan_code(self.fmt, answers) & is_nan_code(self.fmt, self.got)
        return equal

    @cached_property
    def refused(self) -> Flags:
        """Where no answer is right: NaNs that the format refuses."""
        return np.asarray(self.expected.inner < 0)


def _signed(fmt: Format, x: NDArray[Any]) -> NDArray[Any]:
    """Return the numbers `x` as they are rounded to a format: without their signs where it drops these."""
    return np.abs(x) if fmt.negative_to == "magnitude" else x


def same(a: NDArray[Any], b: NDArray[Any]) -> Flags:
    """Return where two values are the same: both NaN, or equal, with the same sign if they are zeros."""
    if object in (a.dtype, b.dtype):
        return np.array([alike(left, right) for left, right in zip(a.tolist(), b.tolist(), strict=True)], bool)
    equal = (a == b) & ((a != 0) | (np.signbit(a) == np.signbit(b)))
    return np.asarray(equal | (np.isnan(a) & np.isnan(b)))


def lines_of(cases: Iterable[Case]) -> list[Lines]:
    """Return cases as lines, those of one kind together; each has an answer."""
    groups: dict[Any, list[Case]] = {}
    for case in cases:
        kind = dataclasses.replace(case, x=0.0, rbits=None if case.rbits is None else 0, pattern=0, got=None)
        groups.setdefault((kind, isinstance(case.got, int)), []).append(case)
    return [_grouped(kind, group) for (kind, _), group in groups.items()]


def _grouped(kind: Case, cases: Sequence[Case]) -> Lines:
    rational = any(not isinstance(case.x, float) for case in cases)
    x = np.array([case.x for case in cases], object if rational else np.float64)
    words = None
    if kind.rbits is not None:
        words = np.array([case.rbits for case in cases], object if wide(kind.sr_bits) else np.int64)
    got: list[Any] = [case.got for case in cases]
    if isinstance(got[0], int):
        answers: Answers = np.array(got, np.int64)
    else:
        answers = np.array(got, object if any(isinstance(value, Fraction) for value in got) else np.float64)
    return Lines(kind, x, np.array([case.pattern for case in cases], np.uint64), words, answers)


def make_lines(x: Any, got: Any, fmt: str | Format, mode: str | Mode, *, rbits: Any = None, **options: Any) -> Lines:
    """Return arrays as lines: of one dimension or more, all of one shape; raise `InputError` for what contradicts itself."""
    numbers, answers = np.asarray(x), np.asarray(got)
    if numbers.dtype.name not in NUMBERS:
        size = numbers.dtype.itemsize
        bits = f"; x.view(np.float{8 * size}) if these are bits" if numbers.dtype.kind in "iu" and size > 1 else ""
        raise InputError(f"x holds {numbers.dtype}; numbers of float16, bfloat16, float32 or float64 go in{bits}")
    if answers.shape != numbers.shape:
        raise InputError(f"got has the shape {answers.shape}, and x {numbers.shape}: an answer to each number")
    kind = make_case(numbers.dtype.type(0), fmt, mode, rbits=None if rbits is None else 0, **options)
    numbers, answers, words = numbers.reshape(-1), answers.reshape(-1), None
    if not kind.mode.stochastic:
        words = np.zeros(len(numbers), np.int64)
    elif rbits is not None:
        words = _words(rbits, kind.sr_bits, np.shape(x))
    if answers.dtype.kind in "iu":
        wrong = np.flatnonzero((answers < 0) | (answers > (1 << kind.format.bits) - 1))
        if len(wrong):
            raise InputError(
                f"got[{wrong[0]}] = {answers[wrong[0]]}: codes of {kind.format.name} are 0 .. {(1 << kind.format.bits) - 1}; "
                "give values as floats"
            )
        answers = answers.astype(np.int64)
    else:
        answers = exactly(answers)
    pattern = numbers.view(f"u{numbers.dtype.itemsize}").astype(np.uint64)
    return Lines(kind, exactly(numbers), pattern, words, answers)


def _words(rbits: Any, n: int, shape: tuple[int, ...]) -> NDArray[Any]:
    """Return random words as lines hold them."""
    words = np.asarray(rbits)
    if words.dtype.kind not in "iu" or words.shape != shape:
        raise InputError(
            f"rbits holds {words.dtype} of shape {words.shape}; it is a word of {n} bits, an integer, for each number"
        )
    wrong = np.flatnonzero((words.reshape(-1) < 0) | (words.reshape(-1) > (1 << n) - 1))
    if len(wrong):
        raise InputError(f"rbits[{wrong[0]}] = {words.reshape(-1)[wrong[0]]} is no word of sr_bits = {n} bits")
    return words.reshape(-1).astype(object if wide(n) else np.int64)


def exactly(x: NDArray[Any]) -> Floats:
    """Return floats of any type as float64, which holds them all."""
    with np.errstate(invalid="ignore"):  # of signalling NaNs
        return np.asarray(x.astype(np.float64))
