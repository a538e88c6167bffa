"""`qsim models`: converters of hardware and software, in qsim's terms, and how they pack codes."""

from __future__ import annotations

import argparse
import dataclasses
from collections.abc import Mapping, Sequence

from qsim.cli.show import entries
from qsim.cli.text import as_json, table
from qsim.errors import InputError, nearest
from qsim.models import STATUSES, Layout, Model, layouts, models
from qsim.rounding import Quantizer

__all__ = ["add", "run", "told"]

MORE = "+: more than a rounding is done; *: some inputs become something else. `qsim models NAME` says what, and the source"
"""The last column of the table."""

SHORT: Mapping[str, str] = {
    "hardware-verified": "device", "oracle-verified": "oracle", "run": "run", "spec-only": "spec", "provisional": "open",
    "disputed": "two",
}  # fmt: skip
"""The statuses in a word that a column has room for."""

FIRST: Mapping[str, str] = {
    "relu": "negative numbers become 0",
    "magnitude": "the sign is dropped",
    "raise_subnormals": "numbers between 2^-127 and 2^-126 become 2^-126",
}
"""The steps that are no rounding."""


def add(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments to its parser."""
    parser.description = (
        "List converters of hardware and software, which qsim.golden.model(NAME) and the commands vectors, check and identify "
        "take: the format, mode and saturation of each, and how it was verified; and layouts of packed codes. "
        "`qsim show NAME` says how a model differs from each other one."
    )
    parser.add_argument(
        "name", metavar="NAME", nargs="?", default="", help="show this one, or list those that contain it"
    )
    parser.add_argument("--json", action="store_true", help="print a JSON list of objects, one for each")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Print one model or layout, or list several."""
    known: dict[str, Model | Layout] = {**models(), **layouts()}
    found = [known[args.name]] if args.name in known else [one for name, one in known.items() if args.name in name]
    if not found:
        raise InputError(f"no model is called {args.name!r}; did you mean {nearest(args.name, known)}?")
    if args.json:
        print(as_json([dataclasses.asdict(one) for one in found]))
    elif args.name in known:
        print(details(found[0]))
    else:
        print(
            listed([one for one in found if isinstance(one, Model)], [one for one in found if isinstance(one, Layout)])
        )
    return 0


def listed(converters: Sequence[Model], packings: Sequence[Layout]) -> str:
    """Return a table of models, and layouts with the line that makes them."""
    rows = [(m.name, m.format.partition("@")[0], _mode(m), m.saturation, SHORT[m.status], _more(m)) for m in converters]
    blocks = [table(("model", "format", "mode", "saturation", "status", "more"), rows), legend()] if rows else []
    blocks += [
        entries([("layout", p.name), ("of codes of", p.format), ("", p.about), ("recipe", p.recipe)]) for p in packings
    ]
    return "\n\n".join(blocks)


def legend() -> str:
    """Return the meanings of the words of the table."""
    return entries([*((SHORT[status], f"{status}: {words}") for status, words in STATUSES.items()), ("more", MORE)])


def _mode(one: Model) -> str:
    return f"{one.mode}({one.sr_bits})" if one.sr_bits else one.mode


def _more(one: Model) -> str:
    steps = one.first or one.becomes or one.rule or one.ftz_in or one.ftz_out
    return ("+" if steps else "") + ("*" if one.differs else "")


def details(one: Model | Layout) -> str:
    """Return all that is known of one model or layout."""
    seen = [("status", f"{one.status}: {STATUSES[one.status]}"), ("source", one.source)]
    if isinstance(one, Layout):
        return entries([("layout", one.name), ("format", one.format), ("", one.about), ("recipe", one.recipe), *seen])
    return entries([("model", one.name), *rules_of(one), *seen, ("in Python", f'qsim.golden.model("{one.name}")')])


def rules_of(one: Model) -> list[tuple[str, str]]:
    """Return the steps of a model, in order."""
    rows = [("vendor", one.vendor), ("takes", one.input or "any float type")]
    if one.word_bits:
        part = f", of which it takes the {one.word_part} {one.sr_bits}" if one.sr_bits not in (0, one.word_bits) else ""
        rows.append(("random word", f"{one.word_bits} bits{part}"))
    rows += [("first", "subnormal inputs become zeros")] if one.ftz_in else []
    rows += [("first", FIRST.get(step, f"rounded to {step}")) for step in one.first]
    if one.rule:
        from qsim.golden.rules import RULES  # which needs NumPy, as the others do not

        text = (RULES[one.rule].__doc__ or "").strip().partition("\n\n")
        rows += [("rule", " ".join(text[0].split())), ("", " ".join(text[2].split()))]
        rows += [("", f"{key} = {value}") for key, value in one.parameters.items()]
        rows.append(("format", one.format))
    else:
        rows.append(("rounding", str(Quantizer.preset(one.name))))
    rows += [("then", f"{_kind(kind)} becomes code 0x{code:02x}") for kind, code in one.becomes.items()]
    rows += [("", one.about)] if one.about else []
    rows += [(f"but {kind}", words) for kind, words in one.differs.items()]
    return [(label, words) for label, words in rows if words] + ([("probe", one.probe)] if one.probe else [])


def _kind(kind: str) -> str:
    name = kind.removeprefix("-")
    if name.startswith("nan:"):
        return f"a NaN whose bit {name.removeprefix('nan:')} is set"
    said = f"a magnitude {name}" if ".." in name else {"nan": "NaN"}.get(name, name)
    return f"negative {said}" if kind != name else said


def told(name: str) -> str:
    """Return all of a model, and how it differs from each other one of the same format."""
    from qsim.golden.converter import model
    from qsim.golden.differences import differences
    from qsim.golden.operands import operands, width

    converter = model(name)
    rows, same = [], []
    digits = -(-converter.format.bits // 4)
    for one in differences(converter):
        if not one.count:
            same.append(one.name)
            continue
        width_of = width(one.kind) // 4
        word = "" if one.word is None else f"0x{one.word:x}"
        x = operands([one.bits], one.kind).exact[0]
        rows.append(
            (one.name, f"{one.count:,}", f"{x:.9g}", f"0x{one.bits:0{width_of}x}", word, f"0x{one.ours:0{digits}x}",
             f"0x{one.theirs:0{digits}x}")
        )  # fmt: skip
    blocks = [details(converter.entry)]
    if same:
        blocks.append(entries([("equal to", one) if at == 0 else ("", one) for at, one in enumerate(same)]))
    if rows:
        blocks.append(
            table(("differs from", "inputs", "smallest", "bits", "word", "here", "there"), rows, "inputs smallest")
        )
    return "\n\n".join(blocks)
