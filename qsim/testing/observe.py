"""The answers of a user's quantizer, compared with the right ones."""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from qsim.errors import InputError
from qsim.explain.case import Case, Nan, make_case
from qsim.explain.lines import Lines, exactly
from qsim.explain.oracle import Expected, Places, decode, expect, is_nan_code, place, wide
from qsim.formats import WIDEST_TABLE, Format, get_format
from qsim.rounding import Flush, Mode, Saturation

__all__ = [
    "Base", "Flags", "Indices", "Seen", "Task", "Watch", "ask", "call", "filled", "judge", "takes_words", "turning_words",
]  # fmt: skip

Flags = NDArray[np.bool_]
Indices = NDArray[np.intp]

CHUNK = 1 << 20
"""The largest array that a quantizer is given."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """Hold the arguments of `check_quantizer`, settled."""

    fn: Callable[..., Any]
    name: str
    fmt: Format
    mode: Mode
    rule: Saturation
    #: The number of random bits; 0 for a deterministic mode.
    n: int
    eps: float | None
    codes: bool
    dtype: np.dtype[Any]
    ftz_in: bool
    ftz_out: Flush | Literal[False]
    nan: Nan
    seed: int
    laws: tuple[str, ...]
    examples: int
    #: Whether random words are given to the quantizer.
    words: bool
    #: What it does to arrays beside its answers.
    watch: Watch = field(default_factory=lambda: Watch(), compare=False)  # noqa: PLW0108 - it is defined below

    @property
    def unknown(self) -> bool:
        """Whether the mode takes words that nobody knows."""
        return self.mode.stochastic and not self.words

    @property
    def word_type(self) -> type[np.uint32 | np.uint64]:
        """The type that words have when they are given to the quantizer."""
        return np.uint32 if self.n <= 32 else np.uint64

    def case(self, x: Any, word: int | None, got: float | None) -> Case:
        """Return one conversion as a case: `x` is a number of `dtype`, `got` an integer if it is a code."""
        case = make_case(
            x, self.fmt, self.mode, sr_bits=self.n if self.mode.stochastic else None, rbits=word, eps=self.eps,
            saturation=self.rule, ftz_in=self.ftz_in, ftz_out=self.ftz_out, nan=self.nan,
        )  # fmt: skip
        return dataclasses.replace(case, got=got)  # whatever it is: a quantizer may return what is no code

    @property
    def kind(self) -> Case:
        """The options that all its conversions share."""
        known = None if self.unknown or not self.mode.stochastic else 0
        return self.case(self.dtype.type(0), known, None)

    def __str__(self) -> str:
        argument = f"({self.n})" if self.mode.stochastic else "" if self.eps is None else f"({self.eps})"
        flags = f"{', ftz_in' * self.ftz_in}{f', ftz_out {self.ftz_out}' * bool(self.ftz_out)}"
        return f"{self.fmt.name}:{self.mode}{argument}, {self.rule}{flags}, from {self.dtype}"


def takes_words(fn: Callable[..., Any]) -> bool:
    """Return whether a function has an argument called rbits."""
    try:
        arguments = inspect.signature(fn).parameters.values()
    except (TypeError, ValueError):  # a builtin that does not say
        return False
    return any(argument.name == "rbits" or argument.kind is argument.VAR_KEYWORD for argument in arguments)


# --- What goes in ----------------------------------------------------------------------------------------------------


class Base:
    """Hold numbers, where they lie, and their right answers."""

    def __init__(self, task: Task, x: NDArray[Any], exact: NDArray[np.float64] | None = None) -> None:
        fmt = task.fmt
        self.task, self.x = task, x
        #: The numbers as float64, and as they are after flushing, and without their signs if these are dropped.
        self.exact = exactly(x) if exact is None else exact
        small = (self.exact != 0) & (np.abs(self.exact) < get_format(task.dtype.name).smallest_normal)
        self.entering = np.where(small & task.ftz_in, np.copysign(0.0, self.exact), self.exact)
        self.entering = np.abs(self.entering) if fmt.negative_to == "magnitude" else self.entering
        at: Places = place(fmt, self.entering)
        self.expected: Expected = expect(
            fmt, task.mode, task.rule, self.entering, at, n=task.n, eps=task.eps or 0.0, ftz_out=task.ftz_out, nan=task.nan
        )  # fmt: skip
        #: The values that a number may become, the latter if it goes away from zero.
        self.inner, self.outer = (decode(fmt, codes) for codes in (self.expected.inner, self.expected.outer))
        finite = np.isfinite(self.entering) & ((self.entering != 0) | fmt.has_zero)
        #: NaNs, infinities, and 0 in a format without it.
        self.special = ~finite
        #: Those for which no answer is right: NaNs where the format refuses them.
        self.refused = self.expected.inner < 0
        self.within = finite & (self.entering >= fmt.min) & (self.entering <= fmt.max)
        self.beyond = finite & ~self.within
        self.on_grid = self.within & at.nu.zero
        #: Subnormal, or below the smallest normal value of the format.
        self.low = self.within & (small | ((fmt.kind == "float") & (np.abs(self.entering) < fmt.smallest_normal)))
        #: Numbers that tell how many bits are kept on the way; a trial knows which they are.
        self.fine = np.zeros(len(x), bool)

    def __len__(self) -> int:
        return len(self.x)


def filled(n: int, count: int, word: int) -> NDArray[Any]:
    """Return `count` times the same word of `n` bits."""
    return np.full(count, word, object if wide(n) else np.int64)


def turning_words(n: int, first: NDArray[Any], *, ends: bool = True) -> list[NDArray[Any]]:
    """Return the words just below those at which numbers turn, these, and with `ends` the lowest and the highest word."""
    last = (1 << n) - 1
    near = [np.clip(first - 1, 0, last), np.clip(first, 0, last)]
    return [*near, *(filled(n, len(first), word) for word in sorted({0, last}) if ends)]


# --- What comes out --------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Seen:
    """Hold a quantizer's answers for some of the numbers of a base, each with a word."""

    base: Base
    #: Which numbers, as indices into the base.
    at: Indices
    #: Their words; `None` where it was given none.
    words: NDArray[Any] | None
    #: What came out, as float64, and the codes if there are.
    value: NDArray[np.float64]
    code: NDArray[np.int64] | None
    #: What should have come out; where the words are unknown, one of two things that may.
    want: NDArray[np.float64]
    #: Where something else came out, the signs of zeros aside; and where only the sign of a zero is another.
    wrong: Flags
    wrong_zero: Flags

    def __len__(self) -> int:
        return len(self.at)

    @property
    def neighbour(self) -> Flags:
        """Where the result is one of the two that the number may become."""
        return np.asarray((self.value == self.base.inner[self.at]) | (self.value == self.base.outer[self.at]))

    def word(self, i: int) -> int | None:
        """Return the word of the i-th conversion."""
        return None if self.words is None else int(self.words[i])

    def pick(self, chosen: Flags | Indices) -> Seen:
        """Return a part."""
        words, code = (None if array is None else array[chosen] for array in (self.words, self.code))
        return Seen(self.base, self.at[chosen], words, self.value[chosen], code, self.want[chosen], self.wrong[chosen],
                    self.wrong_zero[chosen])  # fmt: skip

    def case(self, i: int, *, signs: bool) -> Case:
        """Return the i-th conversion as a case; without `signs` a zero has the sign that it should have."""
        got = self.value[i].item() if self.code is None else self.code[i].item()
        if self.wrong_zero[i] and not signs:
            got = self.want[i].item()
        return self.base.task.case(self.base.x[self.at[i]], self.word(i), got)

    def lines(self, chosen: Indices, *, signs: bool) -> Lines:
        """Return the chosen conversions as lines; without `signs` zeros have the signs that they should have."""
        base, task, here = self.base, self.base.task, self.at[chosen]
        e = base.expected
        inner, outer = e.inner[here], e.outer[here]
        got = self.value[chosen] if self.code is None else self.code[chosen]
        if not signs:
            zero = np.where(base.inner[here] == 0, inner, outer)
            got = np.where(self.wrong_zero[chosen], zero if self.code is not None else decode(task.fmt, zero), got)
        words = None if self.words is None else self.words[chosen]
        if not task.mode.stochastic:
            words = np.zeros(len(here), np.int64)
        pattern = base.x[here].view(f"u{base.x.dtype.itemsize}").astype(np.uint64)
        return Lines(task.kind, base.exact[here], pattern, words, got, entering=base.entering[here], expected=e[here])


def ask(base: Base, at: Indices, words: NDArray[Any] | None) -> Seen:
    """Call the quantizer, and compare its answers with the right ones."""
    task = base.task
    if not len(at):  # many a function does not expect an empty array
        return judge(base, at, words, np.empty(0, np.int64 if task.codes else np.float64))
    chunks = [slice(start, start + CHUNK) for start in range(0, len(at), CHUNK)]
    got = np.concatenate([call(task, base.x[at[c]], None if words is None else words[c]) for c in chunks])
    return judge(base, at, words, got)


def judge(base: Base, at: Indices, words: NDArray[Any] | None, got: NDArray[Any]) -> Seen:
    """Compare a quantizer's answers with the right ones."""
    task, fmt, expected = base.task, base.task.fmt, base.expected
    code, valid, value = None, np.ones(len(at), bool), got
    if task.codes:
        negative = got < 0 if got.dtype.kind == "i" else np.zeros(len(at), bool)  # in two's complement
        code = got.astype(np.int64)
        code = np.where(negative & (code >= -1 << (fmt.bits - 1)), code & ((1 << fmt.bits) - 1), code)
        value = decode(fmt, code)
        valid = (code >= 0) & (code < 1 << fmt.bits) & (~np.isnan(value) | is_nan_code(fmt, code))
    first = expected.first_word[at]
    want = np.where((first <= (0 if words is None else words)).astype(bool), expected.outer[at], expected.inner[at])
    options = [(want, valid)]
    if task.unknown:  # either neighbour that some word leads to
        options = [
            (expected.inner[at], valid & (first > 0).astype(bool)),
            (expected.outer[at], valid & (first < 1 << task.n).astype(bool)),
        ]
    same, signed_same = np.zeros(len(at), bool), np.zeros(len(at), bool)
    for wanted, possible in options:
        target = decode(fmt, wanted)
        alike = possible & ((value == target) | _same_nan(base, at, value, code, target, wanted))
        same |= alike
        signed_same |= alike & ((target != 0) | (np.signbit(value) == np.signbit(target)))
    known = ~base.refused[at]
    return Seen(base, at, words if task.words else None, value, code, decode(fmt, want), known & ~same,
                known & same & ~signed_same)  # fmt: skip


def _same_nan(
    base: Base, at: Indices, value: NDArray[np.float64], code: NDArray[np.int64] | None, target: NDArray[np.float64],
    wanted: NDArray[np.int64],
) -> Flags:  # fmt: skip
    """Return where a NaN came out that may: any, or the one of the right sign and, of codes, payload."""
    task = base.task
    both = np.isnan(value) & np.isnan(target)
    if task.nan == "any":
        return both
    if code is not None:
        return np.asarray(both & (code == wanted))
    given = np.isnan(base.exact[at])  # and not made by an overflow
    kept = {"signed": given | ~given, "signed_overflow": ~given}.get(task.nan, given & ~given)
    sign = np.signbit(base.exact[at]) & kept & task.fmt.has_neg_zero
    return np.asarray(both & (np.signbit(value) == sign))


def call(task: Task, x: NDArray[Any], words: NDArray[Any] | None) -> NDArray[Any]:
    """Return the quantizer's answers for an array: codes as they are, values as float64; refuse anything else."""
    drawn = {} if not task.words or words is None else {"rbits": words.astype(task.word_type)}
    given = {"x": x.copy(), **{name: array.copy() for name, array in drawn.items()}}
    with np.errstate(all="ignore"):  # infinities and NaNs go in on purpose
        try:
            answer = task.fn(given["x"], **{name: given[name] for name in drawn})
        except Exception as error:
            few = smallest_failing(task, x, drawn)
            numbers = "the number" if len(few) == 1 else f"{len(few):,} of the numbers"
            listed = f"{', '.join(map(repr, few[:3].tolist()))}{', ...' if len(few) > 3 else ''}"
            error.add_note(
                f"{task.name} was given {len(x):,} numbers of {task.dtype}, NaNs and infinities among them; it fails for "
                f"{numbers} {listed} alone"
            )
            hint = _hint(error)
            if hint:
                error.add_note(hint)
            raise
    got = _array(task, answer)
    task.watch.look(task.name, given, {"x": x, **drawn}, got)
    if got.shape != x.shape:
        raise InputError(f"{task.name} returned an array of shape {got.shape} for one of shape {x.shape}")
    if task.codes and got.dtype.kind not in "iu":
        raise InputError(
            f"{task.name} returned {got.dtype}; codes are integers, such as a view of unsigned ones; "
            "for values, leave codes out"
        )
    if got.dtype.kind in "OUSMmc":
        raise InputError(f"{task.name} returned {got.dtype}; values are real numbers")
    if not task.codes and _are_codes(task, got):
        raise InputError(
            f"{task.name} returned {got.dtype}, some of which are no values of {task.fmt.name}: "
            "if they are codes, say codes=True"
        )
    return got if task.codes else exactly(got)


class Watch:
    """Detect changes that a quantizer makes to arrays: to its inputs, and to results it has returned."""

    def __init__(self) -> None:
        #: What it did first, in words: to an array it was given, and to one it had returned; empty if it did not.
        self.overwrites = ""
        self.recycles = ""
        self._returned: tuple[NDArray[Any], NDArray[Any]] | None = None

    def look(
        self, name: str, given: dict[str, NDArray[Any]], before: dict[str, NDArray[Any]], got: NDArray[Any]
    ) -> None:  # fmt: skip
        """Compare the arrays `given` with their contents `before`, and the last result with its copy; keep this one."""
        for argument, array in given.items() if not self.overwrites else ():
            self.overwrites = _overwritten(name, argument, array, before[argument])
            if self.overwrites:
                break
        if self._returned is not None and not self.recycles:
            array, copy = self._returned
            changed = np.flatnonzero(~_same_bits(array, copy))
            if len(changed):
                i = int(changed[0])
                self.recycles = (
                    f"the array that {name} returned was changed by its next call: element {i} was {copy.reshape(-1)[i]}, and "
                    f"became {array.reshape(-1)[i]}; return a new array"
                )
        # An object may be anything, and what lies in the array it was given is looked at above.
        own = got.dtype.kind != "O" and not any(np.may_share_memory(got, array) for array in given.values())
        self._returned = (got, got.copy()) if own else None


def _overwritten(name: str, argument: str, array: NDArray[Any], before: NDArray[Any]) -> str:
    """Say which element of an array is another one than before, if any is."""
    if array.shape != before.shape or array.dtype != before.dtype:
        return f"{name} made of {argument} an array of {array.dtype} of shape {array.shape}; work on a copy"
    changed = np.flatnonzero(~_same_bits(array, before))
    if not len(changed):
        return ""
    i = int(changed[0])
    return (
        f"{name} wrote into {argument}: {argument}[{i}] was {before[i]!r} and became {array[i]!r}, as did {len(changed):,} "
        f"of {len(before):,} elements; work on a copy"
    )


def _same_bits(a: NDArray[Any], b: NDArray[Any]) -> Flags:
    """Return where the elements of two arrays of one type and shape have the same bytes."""
    size = a.dtype.itemsize
    if size in (1, 2, 4, 8):
        left, right = (np.ascontiguousarray(array).reshape(-1).view(f"u{size}") for array in (a, b))
        return np.asarray(left == right)
    rows = [np.ascontiguousarray(array).reshape(-1).view(np.uint8).reshape(-1, size) for array in (a, b)]
    return np.asarray((rows[0] == rows[1]).all(axis=1))


def _hint(error: Exception) -> str:
    """Suggest a remedy for errors of functions that expect something else than an array."""
    says = str(error)
    if "numpy.ndarray" in says or "ndarray" in type(error).__name__:
        return "x is a NumPy array; a function of torch tensors is given as lambda x: fn(torch.from_numpy(x)).numpy()"
    if isinstance(error, TypeError) and "required positional argument" in says:
        return "it is called as fn(x), or as fn(x, rbits=...) if it has an argument of that name for the random words"
    return ""


def smallest_failing(task: Task, x: NDArray[Any], drawn: dict[str, NDArray[Any]]) -> NDArray[Any]:
    """Return few of the numbers, one as a rule, for which the quantizer raises an error too: by halves, while a half does."""

    def fails(part: slice) -> bool:
        try:
            task.fn(x[part].copy(), **{name: words[part] for name, words in drawn.items()})
        except Exception:  # noqa: BLE001 - its own, whatever it is
            return True
        return False

    plain = int(np.argmax(exactly(x) == 1))  # one that fails for 1 fails for all, as a rule
    if x[plain] == 1 and fails(slice(plain, plain + 1)):
        return x[plain : plain + 1]
    some = slice(0, len(x))
    while some.stop - some.start > 1:
        middle = (some.start + some.stop) // 2
        halves = (slice(some.start, middle), slice(middle, some.stop))
        failing = next((half for half in halves if fails(half)), None)
        if failing is None:
            break
        some = failing
    return x[some]


def _array(task: Task, answer: Any) -> NDArray[Any]:
    """Return an answer as an array; refuse an object that NumPy takes for a single thing."""
    try:
        got = np.asarray(answer)
    except Exception as error:
        raise InputError(
            f"{task.name} returned a {type(answer).__name__}, of which NumPy makes no array: {error}{_instead(answer)}"
        ) from error
    if got.ndim == 0 and got.dtype == object:
        raise InputError(
            f"{task.name} returned a {type(answer).__name__}, of which NumPy makes no array; return one, such as tensor.numpy()"
        )
    return got


def _instead(answer: Any) -> str:
    """Suggest a result in place of a tensor whose type NumPy does not have."""
    kind = str(getattr(answer, "dtype", "")).lower()
    if "float8" in kind or "float4" in kind:
        return "; return its codes, tensor.view(torch.uint8).numpy(), and say codes=True"
    return "; return tensor.float().numpy()" if "bfloat16" in kind else ""


def _are_codes(task: Task, got: NDArray[Any]) -> bool:
    """Return whether unsigned integers where values are due may be codes: some are no value, and all are codes."""
    if got.dtype.kind != "u" or not got.size or task.fmt.bits > WIDEST_TABLE:
        return False
    return bool(got.max() < 1 << task.fmt.bits) and not bool(np.isin(got, task.fmt.values()).all())
