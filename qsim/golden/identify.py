"""Which converter answers come from: a model of the registry, a rounding with one known fault, or with two.

The answers are held against every model of the format, exactly. Where none gives all of them, the faults of
`qsim.explain.faults` are tried: on the plain rounding, then on roundings that differ from it in one choice (another tie, a
flush, another range, a detour), which makes a pair. Whatever is named gives all answers.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

import qsim
from qsim.errors import InputError
from qsim.explain.faults import faults
from qsim.explain.lines import Lines, make_lines
from qsim.explain.oracle import encode_values
from qsim.explain.search import Judged, diagnose
from qsim.formats import Format, Grid, get_format
from qsim.golden.classes import classes_of
from qsim.golden.converter import Converter, model, named, of_format
from qsim.golden.differences import as_input, base_of, fits, place_of_smallest
from qsim.golden.directed import directed
from qsim.golden.operands import Operands
from qsim.golden.vectors import Answers
from qsim.models import models
from qsim.rounding import Mode, saturations
from qsim.underflow import gradual_underflow

__all__ = ["Fit", "Identity", "identify", "identify_answers"]

Codes = NDArray[np.int64]
Words = NDArray[np.uint64]

LINES = 1 << 12
"""Answers against which pairs of faults are tried first; what is left is held against all."""

PAIRS = 4
"""Pairs of faults that are told at most."""

TRIED = 8
"""Variants on which a second fault is looked for."""

NEAR = 0.25
"""The share of the answers that a model may miss and still be told as near."""


@dataclass(frozen=True, slots=True)
class Fit:
    """Say how far a model is from the answers."""

    name: str
    wrong: int
    #: The classes of input on which it is wrong, with how many of each.
    classes: Mapping[str, int] = field(default_factory=dict)
    #: The smallest of them: its bits, its word, what the model says and what the answer was.
    bits: int = 0
    word: int | None = None
    right: int = 0
    got: int = 0


@dataclass(frozen=True, slots=True)
class Identity:
    """Say which converters give all answers, which faults do, the nearest ones, and the next inputs to ask."""

    total: int
    kind: str
    format: str
    #: The models that give every answer.
    equal: list[str]
    #: Faults that give every answer, one each, or two together.
    faults: list[str]
    #: The models that miss fewest, nearest first.
    near: list[Fit]
    #: Inputs, and words, on which what is named gives different codes.
    ask: list[tuple[int, int | None]]

    @property
    def ambiguous(self) -> bool:
        """Whether more than one model gives all answers, and some input tells them apart."""
        return bool(self.ask)

    def __str__(self) -> str:
        return "\n".join(_sentences(self))


def identify(fn: Callable[..., Any], format: str | Format, *, sr_bits: int = 0, dtype: str = "float32") -> Identity:
    """Return which converter the function `fn` is: fn(x), or fn(x, rbits) where `sr_bits` says how many bits a word has.

    It is asked for inputs at which the codes of the format change, and returns codes as integers or values as floats; x
    is an array of `dtype`. Raise `InputError` for anything else.
    """
    fmt = get_format(format)
    x, words = questions(fmt, sr_bits, dtype)
    values = x.values if dtype != "float16" else x.bits.astype(np.uint16).view(np.float16)
    got = np.asarray(fn(values) if words is None else fn(values, words))
    if got.shape != values.shape:
        raise InputError(f"fn returned the shape {got.shape} of {len(x)} inputs; it returns an answer to each")
    if got.dtype.kind in "iu":
        codes = got.astype(np.int64)
        if codes.size and not 0 <= int(codes.min()) <= int(codes.max()) < 1 << fmt.bits:
            raise InputError(
                f"fn returned {codes.min()} .. {codes.max()}; codes of {fmt.name} are 0 .. {(1 << fmt.bits) - 1}"
            )
    else:
        codes = encode_values(fmt, got.astype(np.float64))
    return identify_answers(Answers(x, words, codes), fmt, sr_bits=sr_bits)


def questions(fmt: Format, sr_bits: int, dtype: str) -> tuple[Operands, Words | None]:
    """Return inputs that tell converters to a format apart: those of the plain roundings, of every rule for the range."""
    if sr_bits:
        return directed(of_format(fmt, f"SRA({sr_bits})"), dtype)
    parts = [directed(of_format(fmt, mode), dtype)[0].bits for mode in ("RNE", "RTZ", "RUP")]
    return Operands(dtype, np.unique(np.concatenate(parts))), None


@gradual_underflow
def identify_answers(
    answers: Answers, format: str | Format | None = None, like: Converter | None = None, *, sr_bits: int = 0
) -> Identity:
    """Return which converters give the answers; `like` is the model that they should have come from.

    `sr_bits` is how many bits a random word has; 0 for as many as the longest word of the answers.
    """
    x, words, codes = answers.x, answers.words, answers.codes
    fmt = get_format(format) if format is not None else None
    if words is not None and not sr_bits:
        sr_bits = like.word_bits if like else max(int(words.max(initial=1)).bit_length(), 1)
    fits_ = sorted(_registry(x, words, codes, fmt, sr_bits), key=lambda one: one.wrong)
    equal = [one.name for one in fits_ if not one.wrong]
    near = [one for one in fits_ if one.wrong and one.wrong <= NEAR * len(x)][:3] or fits_[: 0 if equal else 1]
    found: list[str] = []
    own = fmt
    if own is None and fits_:
        first = named(fits_[0].name).format
        own = get_format(first.variant_of or first.name)
    if not equal and own is not None and x.kind != "int32":
        found = _faults(x, words, codes, _bases(own, near, like, sr_bits, words is not None))
    ask = _ask(equal, x.kind) if len(equal) > 1 else []
    return Identity(len(x), x.kind, own.name if own else "", equal, found, near, ask)


# --- The registry ----------------------------------------------------------------------------------------------------


def _registry(x: Operands, words: Words | None, codes: Codes, fmt: Format | None, sr_bits: int) -> Iterator[Fit]:
    """Yield how far each model, and each plain rounding of the format, is from the answers."""
    most = int(codes.max(initial=0))
    wanted = None if fmt is None else fmt.variant_of or fmt.name
    for name in models():
        converter = model(name)
        if wanted is None and most >> converter.format.bits:
            continue
        if wanted is None and converter.format.bits > max(8, most.bit_length()):
            continue
        if (wanted is not None and base_of(converter) != wanted) or not fits(converter, x.kind):
            continue
        if (converter.word_bits > 0) != (words is not None) or (words is not None and converter.word_bits < sr_bits):
            continue
        try:
            yield _fit(converter, x, words, codes)
        except InputError:  # an input that the model cannot take, or a word too wide for it
            continue
    if fmt is not None and x.kind != "int32":
        for mode in (f"SRA({sr_bits})", f"SRB({sr_bits})", f"SRC({sr_bits})") if words is not None else ("RNE",):
            yield _fit(of_format(fmt, mode), x, words, codes)


def _fit(converter: Converter, x: Operands, words: Words | None, codes: Codes) -> Fit:
    right = converter.convert(as_input(converter, x), words)
    differ = right != codes
    count = int(differ.sum())
    if not count:
        return Fit(converter.name, 0)
    at = place_of_smallest(x, differ)
    word = None if words is None else int(words[at])
    some = np.flatnonzero(differ)[: 1 << 14]
    names, counts = np.unique(classes_of(converter, x[some]), return_counts=True)
    classes = dict(sorted(zip(names.tolist(), counts.tolist(), strict=True), key=lambda pair: -pair[1]))
    return Fit(converter.name, count, classes, int(x.bits[at]), word, int(right[at]), int(codes[at]))


# --- Faults ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Base:
    """Hold a rounding on which faults are tried, and the fault it already has; "" for the plain one."""

    format: Format
    options: Mapping[str, Any]
    says: str = ""

    def lines(self, x: Operands, words: Words | None, codes: Codes) -> Lines:
        """Return answers as lines of this rounding."""
        options = dict(self.options)
        shuffle, through = options.pop("words", None), options.pop("through", None)
        clip, restore = options.pop("clip", None), options.pop("restore", None)
        codes = codes if restore is None else restore(x, codes)
        numbers = x.values
        if x.kind == "float16":
            numbers = x.bits.astype(np.uint16).view(np.float16)
        if clip is not None:
            numbers = np.clip(numbers, numbers.dtype.type(-clip), numbers.dtype.type(clip))
        if through is not None:
            with np.errstate(all="ignore"):
                numbers = qsim.quantize(numbers, through)
        rbits = words if words is None or shuffle is None else shuffle(words)
        if rbits is not None:
            rbits = (rbits & np.uint64((1 << options["sr_bits"]) - 1)).astype(np.int64)
        return make_lines(numbers, codes, self.format, rbits=rbits, **options)


def _plain(fmt: Format, sr_bits: int, stochastic: bool) -> Iterator[Base]:
    for rule in saturations(fmt):
        for nan in ("canonical", "signed") if fmt.has_nan and fmt.has_neg_zero else ("canonical",):
            options: dict[str, Any] = {"mode": Mode.RNE, "saturation": rule, "nan": nan}
            if stochastic:
                options |= {"mode": Mode.SRA, "sr_bits": sr_bits}
            yield Base(fmt, options)


def _bases(fmt: Format, near: list[Fit], like: Converter | None, sr_bits: int, stochastic: bool) -> list[Base]:
    """Return the roundings that the answers may be meant to be: that of the model, those near, and the plain ones."""
    found: list[Base] = []
    for converter in [*([like] if like else []), *(named(one.name) for one in near)]:
        entry = converter.entry
        if entry.rule or entry.first or entry.becomes:
            continue
        q = converter.quantizer
        options: dict[str, Any] = {"mode": q.mode, "saturation": q.saturation, "nan": q.nan, "ftz_out": q.ftz_out,
                                   "ftz_in": entry.ftz_in}  # fmt: skip
        if entry.sr_bits:
            if entry.word_bits != entry.sr_bits:
                continue
            options["sr_bits"] = entry.sr_bits
        base = Base(q.format, options)
        if base not in found:
            found.append(base)
    found += [base for base in _plain(fmt, sr_bits, stochastic) if base not in found]
    return found


def _variants(base: Base) -> Iterator[Base]:
    """Yield roundings that differ from another in one choice."""
    mode, fmt = base.options["mode"], base.format
    if not mode.stochastic:
        for other in (
            Mode.RNA,
            Mode.RTZ,
            Mode.RNZ,
            Mode.RNP,
            Mode.RNN,
            Mode.RNE,
            Mode.RUP,
            Mode.RDN,
            Mode.RAZ,
            Mode.RTO,
        ):
            if other is not mode:
                yield _changed(base, f"rounds by {other} instead of {mode}", mode=other)
    if isinstance(fmt, Grid) and not fmt.even:
        if not base.options.get("ftz_out"):
            for flush in ("result", "after", "before"):
                yield _changed(base, f"flushes subnormal results to zero ({flush})", ftz_out=flush)
        if not base.options.get("ftz_in"):
            yield _changed(base, "takes subnormal inputs for zero", ftz_in=True)
    for rule in saturations(fmt):
        if rule is not base.options["saturation"]:
            yield _changed(base, f"has the range rule {rule} instead of {base.options['saturation']}", saturation=rule)
    for nan in ("canonical", "signed", "signed_overflow"):
        if nan != base.options["nan"] and fmt.has_nan and fmt.has_neg_zero:
            yield _changed(base, f"its NaNs are {nan.replace('_', ' ')}", nan=nan)
    for through in ("float16", "bfloat16"):
        if get_format(through).bits > fmt.bits:
            yield _changed(base, f"double rounding: goes through {through} first", through=through)
    if fmt.has_neg_zero:
        yield _changed(base, "loses the sign of zero", restore=functools.partial(_signed_zeros, 1 << (fmt.bits - 1)))
    if isinstance(fmt, Grid) and fmt.bits <= 16:
        for top in _tops(fmt):
            yield _changed(base, f"its largest value is {top:g} instead of {float(fmt.max):g}", clip=top)
    if mode.stochastic:
        yield from _lanes(base)


def _tops(fmt: Grid) -> list[float]:
    """Return largest values that a format may be given by mistake: one less, that below the top binade, and those near it."""
    ordinals = {fmt.top - 1, fmt.top - 2} | {
        ((fmt.top >> fmt.man_bits) << fmt.man_bits) - step for step in (0, 1) if not fmt.even
    }
    return [float(fmt.value(at)) for at in sorted(ordinals, reverse=True) if 0 < at < fmt.top]


def _signed_zeros(minus: int, x: Operands, codes: Codes) -> Codes:
    """Return codes with the sign of the input at zeros, if no zero has one: the codes of a device before it lost them."""
    return codes if (codes == minus).any() else np.where((codes == 0) & x.negative, minus, codes)


def _lanes(base: Base) -> Iterator[Base]:
    """Yield the ways to take a word that another lane has."""
    yield _changed(base, "two lanes share a word: that of the first", words=lambda w: np.repeat(w[::2], 2)[: len(w)])
    yield _changed(
        base,
        "two lanes share a word: that of the second",
        words=lambda w: w[np.minimum(np.arange(len(w)) | 1, len(w) - 1)],
    )
    yield _changed(base, "four lanes share a word", words=lambda w: np.repeat(w[::4], 4)[: len(w)])
    yield _changed(base, "all lanes take the word of the first", words=lambda w: np.full_like(w, w[0]))
    yield _changed(base, "takes the word of the conversion before", words=lambda w: np.concatenate([w[:1], w[:-1]]))


def _changed(base: Base, says: str, **options: Any) -> Base:
    return Base(base.format, {**base.options, **options}, says)


def _faults(x: Operands, words: Words | None, codes: Codes, bases: list[Base]) -> list[str]:
    """Return the faults that give all answers: single ones, or pairs where there is no single one."""
    singles: list[str] = []
    for base in bases:
        singles += [name for name in _whole(base, x, words, codes) if name not in singles]
        if singles and base is bases[0]:
            break
    if singles:
        return singles
    some = _some(bases[0], x, words, codes)
    few = (x[some], None if words is None else words[some], codes[some])
    variants = [variant for base in bases[:2] for variant in _variants(base)]
    alone = [variant.says for variant in variants if _gives(variant, "", x, words, codes)]
    if alone:
        return list(dict.fromkeys(alone))
    pairs: list[str] = []
    likely = _likely(bases[:2], x, words, codes)
    for variant in likely:
        for other in _variants(variant):
            told = {variant.says, other.says}
            plain = len(told) == 2 and not any(told == set(pair.split(", and ")) for pair in pairs)
            if plain and _gives(other, "", *few) and _gives(other, "", x, words, codes):
                pairs.append(f"{variant.says}, and {other.says}")
    if pairs:
        return pairs[:PAIRS]
    for variant in likely:
        whole_run = "words" in variant.options  # of words of other lanes no part can be looked at
        for name in _whole(variant, *((x, words, codes) if whole_run else few)):
            both = f"{variant.says}, and {name}"
            if name and both not in pairs and _gives(variant, name, x, words, codes):
                pairs.append(both)
        if len(pairs) >= PAIRS:
            break
    return pairs


def _likely(bases: list[Base], x: Operands, words: Words | None, codes: Codes) -> list[Base]:
    """Return variants that may be one half of a pair: they mend wrong answers; those first that break fewest right ones."""
    found: list[tuple[int, int, Base]] = []
    for base in bases:
        before = Judged(base.lines(x, words, codes)).wrong
        for variant in _variants(base):
            try:
                after = Judged(variant.lines(x, words, codes)).wrong
            except InputError:  # a combination that makes no sense
                continue
            if (before & ~after).any():
                found.append((int((after & ~before).sum()), len(found), variant))
    return [variant for _, _, variant in sorted(found, key=lambda one: one[:2])[:TRIED]]


def _some(base: Base, x: Operands, words: Words | None, codes: Codes) -> NDArray[np.intp]:
    """Return answers of every sort, wrong ones and right ones, as many as pairs of faults are tried on first."""
    if len(x) <= LINES:
        return np.arange(len(x))
    lines = base.lines(x, words, codes)
    wrong = np.flatnonzero(Judged(lines).wrong)
    rng = np.random.default_rng(0)
    sorts = lines.sort
    parts = [rng.permutation(wrong)[: LINES // 2], rng.permutation(len(x))[: LINES // 4]]
    parts += [rng.permutation(np.flatnonzero(sorts == kind))[:64] for kind in np.unique(sorts)]
    return np.unique(np.concatenate(parts))


def _whole(base: Base, x: Operands, words: Words | None, codes: Codes) -> list[str]:
    """Return the faults of a rounding that give all answers; [""] where it gives them itself."""
    try:
        lines = base.lines(x, words, codes)
    except InputError:  # a combination that makes no sense
        return []
    judged = Judged(lines)
    if not judged.wrong.any():
        return [""]
    return diagnose([judged]).whole


def _gives(base: Base, name: str, x: Operands, words: Words | None, codes: Codes) -> bool:
    """Return whether a rounding, with a fault if one is named, gives all answers."""
    try:
        lines = base.lines(x, words, codes)
    except InputError:
        return False
    return bool(lines.matches(faults(lines.kind)[name](lines) if name else lines.right).all())


# --- What to ask next ------------------------------------------------------------------------------------------------


def _ask(names: list[str], kind: str) -> list[tuple[int, int | None]]:
    """Return inputs on which models that give the same answers differ, the smallest first; one for each that it parts."""
    found: list[tuple[int, int | None]] = []
    for name in names:
        x, words = directed(named(name), kind if not named(name).input else "")
        for other in names:
            try:
                if other == name or not fits(named(other), x.kind):
                    continue
                ours, theirs = (c.convert(as_input(c, x), words) for c in (named(name), named(other)))
            except InputError:
                continue
            differ = ours != theirs
            if differ.any():
                at = place_of_smallest(x, differ)
                pair = (int(x.bits[at]), None if words is None else int(words[at]))
                if pair not in found:
                    found.append(pair)
        if len(found) >= 3:
            break
    return found[:3]


# --- In words --------------------------------------------------------------------------------------------------------


def _sentences(one: Identity) -> Iterator[str]:
    total = f"{one.total:,} {one.kind} inputs"
    if one.equal:
        yield f"equals {one.equal[0]} on all {total}"
        for name in one.equal[1:]:
            yield f"equals {name} on all of them, too"
    elif one.faults:
        yield f"a rounding to {one.format} with a fault that gives all {total}:"
        yield from (
            f"  {fault}" if fault else f"  none: {one.format}, with a range rule of another package"
            for fault in one.faults
        )
    else:
        yield f"none fits: no known model or fault gives all {total}"
    for near in one.near:
        if one.equal and len(near.classes) > 1:
            continue
        classes = ", ".join(f"{name} ({count:,})" for name, count in list(near.classes.items())[:3])
        says = (
            f"equals {near.name} but for {classes}"
            if len(near.classes) == 1
            else f"nearest: {near.name}, {near.wrong:,} differ: {classes}"
        )
        word = "" if near.word is None else f", word 0x{near.word:x}"
        yield f"{says}; the smallest: 0x{near.bits:x}{word} gives 0x{near.got:x}, there 0x{near.right:x}"
    for bits, with_word in one.ask:
        yield f"ask next: 0x{bits:x}" + ("" if with_word is None else f" with the word 0x{with_word:x}")
    if len(one.equal) > 1 and not one.ask:
        yield "no input tells these apart"
