"""A device's answers against a converter: mismatches by class, one explained, coverage, and the causes."""

from __future__ import annotations

import html
from dataclasses import dataclass
from typing import Any
from xml.sax.saxutils import quoteattr

import numpy as np
from numpy.typing import NDArray

import qsim
from qsim.explain.search import spread
from qsim.golden.classes import CLASSES, classes_of
from qsim.golden.converter import Converter
from qsim.golden.differences import place_of_smallest
from qsim.golden.directed import changes, first_words
from qsim.golden.identify import Identity, identify_answers
from qsim.golden.operands import Operands, width
from qsim.golden.vectors import Answers

__all__ = ["Report", "check"]

Flags = NDArray[np.bool_]

LOOKED = 1 << 17
"""Answers whose class is looked for, of all and of the wrong ones."""

TURNS = 1 << 13
"""Inputs of a stochastic conversion whose turning words are looked for."""


@dataclass(frozen=True, eq=False)
class Report:
    """Report the right and wrong answers."""

    converter: Converter
    answers: Answers
    right: NDArray[np.int64]
    #: The answers whose class was looked for: all, or the wrong ones and a part of the others; and their classes.
    looked: NDArray[np.intp]
    classes: NDArray[np.str_]
    #: Where the answers come from, if some are wrong.
    identity: Identity | None
    #: The inputs at which the code changes that were asked on both sides, all of them, and the first that were not.
    reached: int
    turns: int
    missing: list[int]

    @property
    def wrong(self) -> Flags:
        """Which answers are wrong."""
        return np.asarray(self.answers.codes != self.right)

    @property
    def held(self) -> bool:
        """Whether all are right."""
        return not self.wrong.any()

    def bins(self) -> list[tuple[str, int, int]]:
        """Return class, how many inputs it had, and how many answers were wrong."""
        wrong = self.wrong[self.looked]
        found = [
            (name, int((self.classes == name).sum()), int((wrong & (self.classes == name)).sum())) for name in CLASSES
        ]
        own = {"integer"} if self.answers.x.kind == "int32" else set(CLASSES) - {"integer"}
        return [row for row in found if row[0] in own]

    def first(self) -> int:
        """Return the index of the wrong answer that is told: that of the smallest number."""
        return place_of_smallest(self.answers.x, self.wrong)

    def __str__(self) -> str:
        return "\n".join(_lines(self))

    def data(self) -> dict[str, Any]:
        """Return the report as plain data."""
        wrong = self.wrong
        found: dict[str, Any] = {
            "model": self.converter.name, "answers": len(self.right), "wrong": int(wrong.sum()),
            "classes": [{"class": name, "inputs": count, "wrong": bad} for name, count, bad in self.bins()],
            "changes": {"reached": self.reached, "all": self.turns, "missing": [f"0x{at:x}" for at in self.missing]},
        }  # fmt: skip
        if not self.held:
            found["first"] = _case(self, self.first())
            found["triage"] = str(self.identity).splitlines()
        return found

    def junit(self) -> str:
        """Return the report as JUnit XML, a test case for each class of input."""
        bins = self.bins()
        bad = sum(1 for _, _, wrong in bins if wrong)
        skipped = sum(1 for _, count, _ in bins if not count)
        name = quoteattr(self.converter.name)
        lines = [
            '<?xml version="1.0" encoding="UTF-8"?>',
            f'<testsuite name={name} tests="{len(bins)}" failures="{bad}" errors="0" skipped="{skipped}">',
        ]
        for label, count, wrong in bins:
            head = f"  <testcase classname={name} name={quoteattr(label)}"
            if wrong:
                at = self.looked[np.flatnonzero(self.wrong[self.looked] & (self.classes == label))[0]]
                words = html.escape(_sentence(self, int(at)))
                lines.append(f'{head}><failure message="{wrong} of {count} wrong">{words}</failure></testcase>')
            else:
                lines.append(f"{head}/>" if count else f'{head}><skipped message="no input of this class"/></testcase>')
        return "\n".join([*lines, "</testsuite>", ""])


def check(converter: Converter, answers: Answers, *, triage: bool = True) -> Report:
    """Hold answers to a converter."""
    right = converter.convert(answers.x, answers.words)
    wrong = right != answers.codes
    identity = identify_answers(answers, converter.format, converter) if triage and wrong.any() else None
    looked = np.arange(len(right))
    if len(right) > LOOKED:
        looked = np.unique(np.concatenate([spread(looked, LOOKED), spread(np.flatnonzero(wrong), LOOKED)]))
    classes = classes_of(converter, answers.x[looked])
    reached, turns, missing = _covered(converter, answers)
    return Report(converter, answers, right, looked, classes, identity, reached, turns, missing)


def _covered(converter: Converter, answers: Answers) -> tuple[int, int, list[int]]:
    """Return how many changes of the code were asked on both sides, of how many, and the first that were not.

    Of a stochastic converter: of how many inputs that may go either way the last word at which they stay and the first at
    which they go.
    """
    x = answers.x
    if x.kind == "int32":
        return 0, 0, []
    if answers.words is None:
        at = changes(converter, x.kind)
        both = _among(at, x.bits) & _among(at - np.uint64(1), x.bits)
        return int(both.sum()), len(at), at[~both][:3].tolist()
    inputs = np.unique(x.bits)[:TURNS]
    numbers = Operands(x.kind, inputs)
    first = first_words(converter, numbers)
    open_ = first < np.uint64(1 << converter.word_bits) if converter.word_bits < 64 else np.ones(len(inputs), bool)
    pairs = set(zip(x.bits.tolist(), answers.words.tolist(), strict=True))
    both = np.array(
        [(b, w) in pairs and (b, w - 1) in pairs for b, w in zip(inputs.tolist(), first.tolist(), strict=True)], bool
    )
    return int((both & open_).sum()), int(open_.sum()), inputs[open_ & ~both][:3].tolist()


def _among(some: NDArray[np.uint64], many: NDArray[np.uint64]) -> Flags:
    """Return which of a few ascending numbers are among many, without sorting these."""
    at = np.minimum(np.searchsorted(some, many), max(len(some) - 1, 0))
    found = np.zeros(len(some), bool)
    found[at[some[at] == many] if len(some) else []] = True
    return found


def _case(report: Report, at: int) -> dict[str, Any]:
    answers, digits = report.answers, width(report.answers.x.kind) // 4
    found: dict[str, Any] = {"x": f"0x{int(answers.x.bits[at]):0{digits}x}", "value": float(answers.x.exact[at])}
    if answers.words is not None:
        found["rbits"] = f"0x{int(answers.words[at]):x}"
    if answers.lines is not None:
        found["line"] = int(answers.lines[at])
    code = -(-report.converter.format.bits // 4)
    return found | {"right": f"0x{int(report.right[at]):0{code}x}", "got": f"0x{int(answers.codes[at]):0{code}x}",
                    "class": str(classes_of(report.converter, answers.x[at : at + 1])[0])}  # fmt: skip


def _sentence(report: Report, at: int) -> str:
    case = _case(report, at)
    line = f"line {case['line']}: " if "line" in case else ""
    word = f" with the word {case['rbits']}" if "rbits" in case else ""
    return f"{line}{case['x']} ({case['value']:.9g}){word} gives {case['got']}, it should be {case['right']} ({case['class']})"


def _explained(report: Report, at: int) -> str:
    """Return the picture of one conversion; of a converter with steps or a rule, its bits."""
    converter, answers = report.converter, report.answers
    entry = converter.entry
    if entry.rule or entry.first or entry.becomes or entry.word_bits != entry.sr_bits or answers.x.kind == "int32":
        return ""
    q, x = converter.quantizer, answers.x
    value = x.bits[at : at + 1].astype(np.uint16).view(np.float16)[0] if x.kind == "float16" else x.values[at]
    words = {"rbits": int(answers.words[at]), "sr_bits": entry.sr_bits} if answers.words is not None else {}
    return str(
        qsim.explain.explain(
            value, q.format, q.mode, saturation=q.saturation, ftz_in=entry.ftz_in, ftz_out=q.ftz_out, nan=q.nan,
            got=int(answers.codes[at]), **words,
        )
    )  # fmt: skip


def _lines(report: Report) -> list[str]:
    wrong, total = int(report.wrong.sum()), len(report.right)
    if report.held:
        lines = [f"{report.converter.name}: all {total:,} answers are right"]
    else:
        lines = [f"{report.converter.name}: {wrong:,} of {total:,} answers are wrong"]
        lines += [f"  {name}: {bad:,} of {count:,}" for name, count, bad in report.bins() if bad]
        at = report.first()
        lines += ["", f"the smallest: {_sentence(report, at)}"]
        picture = _explained(report, at)
        lines += ["", picture] if picture else []
        lines += ["", "as if:", *(f"  {line}" for line in str(report.identity).splitlines())] if report.identity else []
    lines += ["", f"covered: {_cover(report)}"]
    empty = [name for name, count, _ in report.bins() if not count]
    lines += [f"without an input: {', '.join(empty)}"] if empty else []
    if len(report.looked) < total:
        lines.append(f"the classes are those of {len(report.looked):,} answers")
    return lines


def _cover(report: Report) -> str:
    if not report.turns:
        return f"{len(report.right):,} inputs"
    what = (
        "inputs on both sides of the word at which they turn"
        if report.answers.words is not None
        else "changes of the code on both sides"
    )
    lost = f"; missing: {', '.join(f'0x{at:x}' for at in report.missing)}" if report.missing else ""
    return f"{report.reached:,} of {report.turns:,} {what}{lost}"
