"""`qsim prove [NAME ...]`: check the theorems of proofs/, and print the ledger."""

from __future__ import annotations

import argparse
import contextlib
import textwrap
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING

from qsim.cli.text import WIDTH, as_json, table
from qsim.errors import InputError
from qsim.interrupts import terminable

if TYPE_CHECKING:
    from qsim.prove import Entry, Proof

__all__ = ["add", "run"]


def add(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments to its parser."""
    parser.description = (
        "Check theorems about rounding: every input, every outcome, or a solver's word for it. "
        "Without a name, all of them. Exit 1 if a verdict is not the one that the theorem's file expects."
    )
    parser.add_argument("name", nargs="*", metavar="NAME", help="a theorem, as --list names it")
    parser.add_argument("--quick", action="store_true", help="where the full check is long, only a part; it says which")
    parser.add_argument(
        "--jobs", type=int, metavar="N",
        help="processes to use (default: one a core for --quick, else 1, since a walk over all inputs uses all cores itself)",
    )  # fmt: skip
    parser.add_argument("--list", action="store_true", help="say what the theorems are; check nothing")
    parser.add_argument("--json", action="store_true", help="print a JSON list of objects")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Check the theorems of the command line; return 1 if one did not come out as expected."""
    from qsim import prove
    from qsim.processes import cores

    if args.jobs is not None and args.jobs < 1:
        raise InputError(f"--jobs {args.jobs}: give at least 1 process")
    proofs = prove.find(args.name)
    if args.list:
        print(as_json([proof.describe() for proof in proofs]) if args.json else listing(proofs))
        return 0
    start, entries = time.monotonic(), []
    jobs = args.jobs or (cores() if args.quick else 1)
    with terminable(), contextlib.closing(prove.run(proofs, quick=args.quick, jobs=jobs)) as found:
        for entry in found:
            entries.append(entry)
            if not args.json:
                print(report(entry), flush=True)
    print(as_json([entry.describe() for entry in entries]) if args.json else summary(entries, time.monotonic() - start))
    return 0 if all(entry.as_expected for entry in entries) else 1


def listing(proofs: Sequence[Proof]) -> str:
    """Return the theorems as a table."""
    rows = [(proof.name, proof.title) for proof in proofs]
    return table(("name", "title"), rows) + "\n\nqsim prove NAME checks one; --list --json has the statements."


def report(entry: Entry) -> str:
    """Return one theorem's line, the inputs covered below it, and the counterexample or traceback if there is one."""
    outcome = "broken" if entry.verdict is None else str(entry.verdict.outcome)
    remark = "" if entry.as_expected else f"  [expected: {entry.proof.theorem.expected}]"
    lines = [f"{outcome:8}  {entry.proof.name}  {entry.seconds:.1f} s{remark}"]
    if entry.verdict is None:
        return "\n".join([*lines, textwrap.indent(entry.error.rstrip(), "          ")])
    for text in (entry.verdict.covered, entry.verdict.counterexample):
        lines += textwrap.wrap(text, WIDTH, initial_indent=" " * 10, subsequent_indent=" " * 10)
    return "\n".join(lines)


def summary(entries: Sequence[Entry], seconds: float) -> str:
    """Return the ledger's last line; `seconds` went by meanwhile, which is less than the sum where several processes work."""
    expected = sum(entry.as_expected for entry in entries)
    noun = "theorem" if len(entries) == 1 else "theorems"
    others = [entry.proof.name for entry in entries if not entry.as_expected]
    tail = f", not as expected: {', '.join(others)}" if others else ""
    return f"\n{len(entries)} {noun}: {expected} as expected{tail} ({seconds:.1f} s)"
