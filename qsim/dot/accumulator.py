"""`Accumulator`: everything that decides the bits of a dot product, in one frozen value."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any, Literal, get_args

from qsim.errors import InputError, enumerate_names, integer, shown
from qsim.formats import Grid
from qsim.rounding import Mode, Quantizer

__all__ = ["STEP_BITS", "WORD_BITS", "Accumulator", "parse_accumulator"]

Order = Literal["sequential", "pairwise", "kahan", "exact"]
Start = Literal["term", "after", "last"]
Lanes = Literal["ascending", "pairs", "even-odd"]
AlignMode = Literal["RTZ", "RDN", "RNE"]

WORD_BITS = 32
"""Bits of the random word of a step."""
STEP_BITS = 40
"""Step t of output element i takes the word of element i + t 2^STEP_BITS of the key."""


@dataclass(frozen=True, slots=True)
class Accumulator:
    """Say how the products of a dot product are added, and where and how each partial sum is rounded.

    `format` is the rounding of each partial sum, "FORMAT:MODE"; stochastic modes take N <= 32 random bits a step. `product` is
    a deterministic rounding of each product before it is added (multiply, then add); without it products are exact and each
    step rounds once (FMA). The products p_1 .. p_K and the start c (0 if not given) are added in an `order`:

    "sequential"  s = c, then s = round(s + p_k) for k = 1 .. K
    "pairwise"    neighbours are added, then neighbours of the sums, an odd one out moving up, to the root t; round(c + t)
    "kahan"       s = c, e = 0; then for each k, every operation rounded: y = p_k - e, t = s + y, e = (t - s) - y, s = t
    "exact"       round(c + p_1 + ... + p_K): the sum in fixed point of unlimited width (Kulisch)

    `group` is the number of products of a partial sum, which begins at 0, follows `order`, and is then added to the outer sum,
    which begins at c and is rounded by `outer` (by `format` if there is none): blocked summation, or two-level accumulation
    with partial sums promoted to float32. `output` is one more rounding, of the result.

    `block` is the number of products of a block fused multiply-add, as tensor cores have them. Every block takes its products
    exactly and the sum so far as terms, aligns all to 2^(m - align), where m is the largest exponent, cuts bits below by
    `align_mode`, adds exactly, and rounds once by `format`; `align = None` cuts nothing. An exponent of a product is the sum of
    those of its operands, unless `normalize`: then it is that of the product's leading bit. m is at least `least_exponent`.
    `start` says where the sum so far, s, enters: as a "term" of the block; "after", where t, the sum of the cut products, and s
    are cut once more, by `join_mode` (`align_mode` if there is none), t to a multiple of 2^(m' - `join`) (`align` if there is
    none) and s to one of 2^(m' - align), m' the larger of m and the exponent of s; or "last", c added once to the whole sum,
    and rounded by `outer`. `lanes` is the order in which products fill blocks: "ascending"; "pairs", k mod 4 in {0, 1} before
    {2, 3} in every 2 `block` products; or "even-odd", the even ones first likewise.
    `merge` products of block-scaled operands are first added exactly, times their two scales, and are one term then, whose
    exponent is the sum of those of the scales, as FP4 has it.
    Source of the block model: Khattak and Mikaitis, arXiv 2512.07004; of Kahan's sum: Higham, Accuracy and Stability of
    Numerical Algorithms, 4.3.
    """

    format: Quantizer
    product: Quantizer | None
    order: Order
    group: int
    outer: Quantizer | None
    output: Quantizer | None
    block: int
    align: int | None
    align_mode: AlignMode
    start: Start
    join: int | None
    join_mode: AlignMode | None
    normalize: bool
    least_exponent: int | None
    lanes: Lanes
    merge: int

    def __init__(
        self,
        format: str | Quantizer = "float32",
        *,
        product: str | Quantizer | None = None,
        order: Order = "sequential",
        group: int = 0,
        outer: str | Quantizer | None = None,
        output: str | Quantizer | None = None,
        block: int = 0,
        align: int | None = None,
        align_mode: AlignMode = "RTZ",
        start: Start = "term",
        join: int | None = None,
        join_mode: AlignMode | None = None,
        normalize: bool = False,
        least_exponent: int | None = None,
        lanes: Lanes = "ascending",
        merge: int = 0,
    ) -> None:
        fields: dict[str, Any] = {"format": _rounding("format", format)}
        for name, rounding in {"product": product, "outer": outer, "output": output}.items():
            fields[name] = None if rounding is None else _rounding(name, rounding)
        for name, word, words in (
            ("order", order, get_args(Order)), ("start", start, get_args(Start)), ("lanes", lanes, get_args(Lanes)),
            ("align_mode", align_mode, get_args(AlignMode)), ("join_mode", join_mode, (None, *get_args(AlignMode))),
        ):  # fmt: skip
            if word not in words:
                raise InputError(f"{name} = {shown(word)}; it is {enumerate_names(filter(None, words))}")
            fields[name] = word
        for name, number, least, most in (
            ("group", group, 0, 1 << 24), ("block", block, 0, 64), ("merge", merge, 0, 64),
            ("align", align, 1, 48), ("join", join, 1, 48), ("least_exponent", least_exponent, -400, 400),
        ):  # fmt: skip
            fields[name] = None if number is None else integer(name, number)
            if number is not None and not least <= fields[name] <= most:
                raise InputError(f"{name} = {number} of an Accumulator is {least} to {most}")
        if not isinstance(normalize, bool):
            raise InputError(f"normalize = {shown(normalize)} must be True or False")
        fields["normalize"] = normalize
        for name, value in fields.items():
            object.__setattr__(self, name, value)
        self._refuse_contradictions()

    def _refuse_contradictions(self) -> None:
        """Raise `InputError` for fields that make no sense together."""
        if self.product is not None and (self.product.mode.stochastic or self.product.mode is Mode.THR):
            raise InputError(f"product = {self.product}: products are rounded by a deterministic mode")
        if self.order == "exact" and self.block:
            raise InputError("the order exact takes no blocks; drop block")
        if not self.block:
            usual = (
                self.align,
                self.align_mode,
                self.start,
                self.join,
                self.join_mode,
                self.normalize,
                self.least_exponent,
            )
            if (*usual, self.lanes, self.merge) != (None, "RTZ", "term", None, None, False, None, "ascending", 0):
                raise InputError(
                    "align, align_mode, start, join, join_mode, normalize, least_exponent, lanes and merge are those of a "
                    "block fused multiply-add; say its number of products, block = 8"
                )
            if self.outer is not None and not self.group:
                raise InputError("outer is the rounding of an outer sum; say how many products a group has, group = 32")
            return
        if self.order != "sequential" or self.product is not None:
            raise InputError("a block fused multiply-add adds exact products in one order; drop order and product")
        if self.align is None and (self.start != "term" or self.normalize or self.least_exponent is not None):
            raise InputError("a block without align cuts nothing; drop start, normalize and least_exponent")
        if (self.join, self.join_mode) != (None, None) and self.start != "after":
            raise InputError("join and join_mode cut a block's own sum and the sum so far; say start = 'after'")
        if self.merge and (
            self.align is None or self.normalize or self.lanes != "ascending" or self.block % self.merge
        ):
            raise InputError("merge divides block, and takes align, and neither normalize nor other lanes")
        if self.outer is not None and not self.group and self.start != "last":
            raise InputError("outer rounds a sum of groups, or of c where start = 'last'; say which")

    @property
    def roundings(self) -> tuple[Quantizer, ...]:
        """The roundings in use, the products' first."""
        return tuple(q for q in (self.product, self.format, self.outer, self.output) if q is not None)

    @property
    def stochastic(self) -> bool:
        """Whether any rounding takes random words."""
        return any(q.mode.stochastic for q in self.roundings)

    @property
    def outer_rounding(self) -> Quantizer:
        """The rounding of the outer sum."""
        return self.format if self.outer is None else self.outer

    def replace(self, **changes: Any) -> Accumulator:
        """Return the same accumulator with some fields changed."""
        fields = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        return Accumulator(**(fields | changes))

    def describe(self) -> dict[str, Any]:
        """Return the fields that are not at their defaults as plain data, roundings as "FORMAT:MODE"."""
        usual = {
            "product": None, "order": "sequential", "group": 0, "outer": None, "output": None, "block": 0, "align": None,
            "align_mode": "RTZ", "start": "term", "join": None, "join_mode": None, "normalize": False, "least_exponent": None,
            "lanes": "ascending", "merge": 0,
        }  # fmt: skip
        fields = {"format": spell(self.format)}
        for name, default in usual.items():
            value = getattr(self, name)
            if value != default:
                fields[name] = spell(value) if isinstance(value, Quantizer) else value
        return fields

    def __str__(self) -> str:
        fields = self.describe()
        return ", ".join([str(fields.pop("format")), *(f"{name} {value}" for name, value in fields.items())])


def spell(q: Quantizer) -> str:
    """Return "FORMAT:MODE" of a rounding, or all its words where that is not all."""
    argument = q.sr_bits if q.sr_bits is not None else q.eps
    short = f"{q.format}:{q.mode}" + ("" if argument is None else f"({argument})")
    return short if Quantizer.parse(short) == q else str(q)


def random_bits(q: Quantizer) -> int:
    """Return N of a stochastic rounding of a partial sum."""
    return WORD_BITS if q.sr_bits is None else q.sr_bits


def _rounding(name: str, spelling: Any) -> Quantizer:
    """Return the rounding that `spelling` names, if it can round a partial sum."""
    if not isinstance(spelling, str | Quantizer):
        raise InputError(f"{name} = {shown(spelling)} of an Accumulator is 'FORMAT:MODE' or a Quantizer")
    q = Quantizer.parse(spelling)
    if q.scale != "none" or q.ftz_in:
        raise InputError(f"{name} = {q}: partial sums have no scale, and ftz_in is about the operands; drop them")
    if not isinstance(q.format, Grid):
        raise InputError(f"{name} = {q}: sums are rounded to floats, integers or fixed point, not to a table")
    if q.mode.stochastic and random_bits(q) > WORD_BITS:
        raise InputError(f"{name} = {q}: a step has {WORD_BITS} random bits")
    return q


def parse_accumulator(acc: str | Quantizer | Accumulator) -> Accumulator:
    """Return the accumulator that `acc` is, or that rounds every sum by the "FORMAT:MODE" that it spells."""
    return acc if isinstance(acc, Accumulator) else Accumulator(acc)
