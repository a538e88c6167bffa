"""The laws of rounding, held against somebody's quantizer; the first failure is made simple, and explained.

The right answers come from `qsim.explain.oracle`, that is from the rule of `qsim.reference` in exact integers: our own
kernels have no part in them, and are checked like any other quantizer.
"""

from __future__ import annotations

import textwrap
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from qsim.errors import InputError, enumerate_names, nearest
from qsim.explain.case import Nan, parse_nan
from qsim.formats import Format, get_format
from qsim.rounding import LIMITED, Flush, Mode, Saturation, check_eps, parse_ftz_out, parse_mode, parse_saturation
from qsim.testing.inputs import number_type
from qsim.testing.laws import LAWS, MOST_ENUMERATED, OF_WORDS, WITHOUT_WORDS, Trial
from qsim.testing.moments import Bias, Moments
from qsim.testing.observe import Task, takes_words
from qsim.testing.report import report
from qsim.underflow import as_caller, gradual_underflow
from qsim.verdicts import WIDTH, Outcome, Verdict

__all__ = ["QuantizerVerdict", "assert_quantizer", "check_quantizer", "elementwise", "make_task"]

UNKNOWN_WORDS = "not testable here: words unknown"

UNTRIED = (
    "not tried: other inputs than these, arrays of other shapes, orders and lengths, calls at the same time, and what only "
    "shows after many calls"
)
"""The limits of a check, stated for a quantizer that held."""

WIDEST = 32
"""Formats of more bits than this are not checked."""


@dataclass(frozen=True, slots=True, kw_only=True)
class QuantizerVerdict(Verdict):
    """State the outcome of a check of a quantizer, and the moments that were counted on the way."""

    moments: Moments | None = field(default=None, repr=False)
    """The exact mean and variance of the quantizer's own results at each of many numbers; `None` where they were not counted:
    of a deterministic mode, of unknown words, or where the law of moments was not asked for."""

    @property
    def bias(self) -> Bias | None:
        """The quantizer's own bias over these numbers, in intervals, beside that of the mode."""
        return None if self.moments is None else self.moments.bias

    @property
    def notes(self) -> list[str]:
        """The bias, in words."""
        return [] if self.bias is None else [textwrap.fill(str(self.bias), WIDTH)]


@gradual_underflow
def check_quantizer(
    fn: Callable[..., Any],
    fmt: str | Format,
    mode: str | Mode = Mode.RNE,
    *,
    sr_bits: int | None = None,
    eps: float | None = None,
    saturation: str | Saturation | None = None,
    codes: bool = False,
    dtype: Any = np.float32,
    ftz_in: bool = False,
    ftz_out: bool | Flush = False,
    nan: Nan = "any",
    seed: int = 0,
    laws: Iterable[str] | None = None,
    examples: int = 2048,
) -> QuantizerVerdict:
    """Hold `fn` to the laws of rounding to `fmt` by `mode`, and explain the first failure.

    `fn(x)` takes a one-dimensional array of `dtype` (float16, bfloat16, float32 or float64) and returns as many values, or
    codes if `codes` is true, negative integers being codes in two's complement. For a stochastic mode it is called as
    `fn(x, rbits=r)`, one random word of N = `sr_bits` bits a number (uint32 up to 32 bits, else uint64); SR and
    StochasticEqual take 32 bits, or 64 for float64, unless `sr_bits` says otherwise. `verdict.bias` and `verdict.moments` are
    then the exact bias and variance of `fn` itself. `elementwise` makes such a function of one that takes a single number.

    A function without an argument called `rbits` draws its own words. It is refuted where a result is none that a word leads
    to, or where so many numbers go away from zero as would by chance at most once in 10^9 checks; else the verdict is "not
    decided", for that it is unbiased has not been shown: `check_stochastic_device` asks for that. Where `laws` names some of
    `qsim.testing.WITHOUT_WORDS` only, the verdict is about these, and may be "held".

    `saturation`, `eps`, `ftz_in` and `ftz_out` are those of `qsim.Quantizer`. `nan` says which NaN is right, for standards
    differ: "any", or one of those of `qsim.Quantizer`. `laws` names some of `LAWS`. The inputs are the same in every run: the
    numbers at and next to every threshold (of formats of more than 16 bits, a choice), powers of two, special ones, and
    `examples` more that `seed` determines. Raise `InputError` for arguments that contradict each other, and for a result that
    is no array of numbers of the right shape.
    """
    task = make_task(fn, fmt, mode, sr_bits, eps, saturation, dtype, nan, laws, codes=codes, ftz_in=ftz_in, ftz_out=ftz_out,
                     seed=seed, examples=examples)  # fmt: skip
    wanted = [law for law in task.laws if (law in WITHOUT_WORDS if task.unknown else law != "frequencies")]
    missing = [law for law in task.laws if law not in wanted and law not in ("frequencies", "repeatable")]
    unknown = [f"{UNKNOWN_WORDS} ({', '.join(missing)})"] if missing else []
    if not wanted:
        outcome = Outcome.NOT_TESTABLE
        return QuantizerVerdict(outcome=outcome, covered="; ".join([str(task), *unknown]), reason=_reason(task))
    trial = Trial(task)
    # What shows over many calls is looked at last, and told in its place.
    late = ("repeatable", "inputs kept", "results kept")
    broken = [found for law in sorted(wanted, key=late.__contains__) for found in trial.broken(law)]
    broken.sort(key=lambda found: list(LAWS).index(found.law))
    laws_broken = {found.law for found in broken}
    if (
        "moments" in wanted
        and task.n > MOST_ENUMERATED
        and not laws_broken & {"repeatable", "neighbours", "word order"}
    ):
        trial.moments = trial.turned()
    conversions = sum(map(len, trial.pool))
    looked = [f"{task}: {len(wanted)} laws ({', '.join(wanted)}), {conversions:,} conversions", trial.inputs.says]
    looked += [*trial.notes, *unknown]
    if broken:
        covered, text = "; ".join(looked), report(trial, broken)
        return QuantizerVerdict(outcome=Outcome.REFUTED, covered=covered, counterexample=text, moments=trial.moments)
    covered = "; ".join([*looked, UNTRIED])
    if missing:
        return QuantizerVerdict(outcome=Outcome.NOT_DECIDED, covered=covered, reason=_reason(task))
    return QuantizerVerdict(outcome=Outcome.HELD, covered=covered, moments=trial.moments)


def _reason(task: Task) -> str:
    """Say why a quantizer of unknown words is not decided, and how to decide it."""
    return (
        f"unbiasedness was not tested, since {task.name} draws its own random words: give it an argument rbits, or use "
        "check_stochastic_device"
    )


def assert_quantizer(fn: Callable[..., Any], fmt: str | Format, mode: str | Mode = Mode.RNE, **options: Any) -> None:
    """Raise `AssertionError` with the explained failure unless `check_quantizer`, with the same arguments, says "held".

    So it raises for a stochastic quantizer that draws its own random words, too, of which nothing more can be decided;
    `laws=qsim.testing.WITHOUT_WORDS` asserts the laws that hold for every word.
    """
    __tracebackhide__ = True  # pytest then shows the caller's line
    verdict = check_quantizer(fn, fmt, mode, **options)
    if verdict.outcome is not Outcome.HELD:
        raise AssertionError(str(verdict))


def elementwise(fn: Callable[..., Any]) -> Callable[..., NDArray[Any]]:
    """Return a function of arrays that calls `fn`, a function of one number, for each element.

    `fn(x)`, or `fn(x, rbits)`, gets a NumPy scalar, and the word as an int.
    """

    def each(x: NDArray[Any]) -> NDArray[Any]:
        return np.array([fn(value) for value in x])

    def each_with_word(x: NDArray[Any], rbits: NDArray[Any]) -> NDArray[Any]:
        return np.array([fn(value, rbits=word) for value, word in zip(x, rbits.tolist(), strict=True)])

    wrapped = each_with_word if takes_words(fn) else each
    wrapped.__name__ = getattr(fn, "__name__", "fn")
    return wrapped


def make_task(
    fn: Callable[..., Any],
    fmt: str | Format,
    mode: str | Mode,
    sr_bits: int | None,
    eps: float | None,
    saturation: str | Saturation | None,
    dtype: Any,
    nan: Nan,
    laws: Iterable[str] | None,
    *,
    codes: bool,
    ftz_in: bool,
    ftz_out: bool | Flush,
    seed: int,
    examples: int,
) -> Task:
    """Return the arguments as a task; raise `InputError` for those that do not go together."""
    if not callable(fn):
        raise InputError(f"fn is of type {type(fn).__name__}; it must be a function fn(x) or fn(x, rbits=None)")
    fmt, kind = get_format(fmt), number_type(dtype)[0]
    mode = parse_mode(mode, fmt)
    if fmt.bits > WIDEST:
        raise InputError(f"{fmt.name} has {fmt.bits} bits; quantizers are checked into formats of up to {WIDEST}")
    _ = fmt.max, fmt.smallest_subnormal  # refuses what a float64 does not reach
    least = int(mode is Mode.SR)
    if sr_bits is not None and not mode.stochastic:
        raise InputError(f"sr_bits = {sr_bits!r} with {mode}: {mode} takes no random bits")
    if sr_bits is not None and not (mode.stochastic and type(sr_bits) is int and least <= sr_bits <= 64):
        raise InputError(f"sr_bits = {sr_bits!r} with {mode}: it is the number of bits of a random word, {least} to 64")
    if mode in LIMITED and sr_bits is None:
        raise InputError(f"{mode} needs sr_bits, the number of random bits N")
    if (mode is Mode.THR) != (eps is not None):
        raise InputError(f"eps = {eps!r} with {mode}: it is the threshold of the mode Threshold, 0 <= eps < 1")
    if eps is not None:
        check_eps(eps)
    if type(examples) is not int or examples < 0:
        raise InputError(f"examples = {examples!r} must be the number of drawn inputs, 0 or more")
    width = 32 if kind.itemsize <= 4 else 64
    return Task(
        fn=as_caller(fn), name=getattr(fn, "__name__", "fn"), fmt=fmt, mode=mode, rule=parse_saturation(saturation, fmt),
        n=(width if sr_bits is None else sr_bits) if mode.stochastic else 0, eps=eps, codes=codes, dtype=kind,
        ftz_in=ftz_in, ftz_out=parse_ftz_out(ftz_out), nan=parse_nan(nan), seed=seed, laws=_laws(laws, mode), examples=examples,
        words=mode.stochastic and takes_words(fn),
    )  # fmt: skip


def _laws(names: Iterable[str] | None, mode: Mode) -> tuple[str, ...]:
    """Return the named laws that a mode has, in the order of `LAWS`."""
    chosen = tuple(LAWS) if names is None else (names,) if isinstance(names, str) else tuple(names)
    for law in chosen:
        if law not in LAWS:
            raise InputError(f"no law is called {law!r}; did you mean {nearest(str(law), LAWS)}?")
    own = tuple(law for law in LAWS if law in chosen and (mode.stochastic or law not in OF_WORDS))
    if not own:
        raise InputError(f"no law is left for {mode}; name one of {enumerate_names(LAWS)}")
    return own
