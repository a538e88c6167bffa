"""`qsim models`: what converters of other packages do, in the words of this one, and how they pack codes."""

from __future__ import annotations

import argparse
import dataclasses
from collections.abc import Sequence

from qsim.cli.show import entries
from qsim.cli.text import as_json, table
from qsim.errors import InputError, nearest
from qsim.models import STATUSES, Layout, Model, layouts, models
from qsim.rounding import Quantizer

__all__ = ["add", "run"]

LEGEND = """\
differs: inputs that become something else there; `qsim models NAME` says what, and how it was seen"""


def add(parser: argparse.ArgumentParser) -> None:
    """Say what the command takes."""
    parser.description = (
        "List converters of other packages: the format, mode and saturation that do the same here, as "
        "qsim.Quantizer.preset(NAME), and layouts of packed codes."
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
    rows = [(m.name, m.format, m.mode, m.saturation, ", ".join(m.differs)) for m in converters]
    blocks = [table(("model", "format", "mode", "saturation", "differs"), rows), LEGEND] if rows else []
    blocks += [
        entries([("layout", p.name), ("of codes of", p.format), ("", p.about), ("recipe", p.recipe)]) for p in packings
    ]
    return "\n\n".join(blocks)


def details(one: Model | Layout) -> str:
    """Return all that is known of one model or layout."""
    seen = [("status", f"{one.status}: {STATUSES[one.status]}"), ("source", one.source)]
    if isinstance(one, Layout):
        return entries([("layout", one.name), ("format", one.format), ("", one.about), ("recipe", one.recipe), *seen])
    differs = [(f"but {kind}", words) for kind, words in one.differs.items()]
    line = f'qsim.Quantizer.preset("{one.name}")'
    return entries(
        [("model", one.name), ("rounding", str(Quantizer.preset(one.name))), *differs, *seen, ("in Python", line)]
    )
