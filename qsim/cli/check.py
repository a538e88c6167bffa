"""`qsim check MODEL FILE`: a device's answers against a converter."""

from __future__ import annotations

import argparse
from pathlib import Path

from qsim.cli.text import as_json
from qsim.errors import InputError

__all__ = ["add", "run"]

DTYPES = ("float16", "bfloat16", "float32", "float64")


def add(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments to its parser."""
    parser.description = (
        "Hold the answers of a device to a converter: mismatches by class of input, the first explained, what was "
        "covered, and which model or fault gives the answers. Exit 1 if one is wrong, 2 if the file is malformed."
    )
    parser.add_argument("model", metavar="MODEL", help="a name that `qsim models` lists, or FORMAT:MODE")
    parser.add_argument("file", metavar="FILE",
                        help="lines of x [rbits] code in hexadecimal; .csv, .jsonl, .npz or .npy")  # fmt: skip
    parser.add_argument("--vectors", metavar="FILE", help="the vectors that were asked; FILE may then hold codes alone")
    parser.add_argument("--dtype", choices=DTYPES, help="the type of the inputs, where the model takes several")
    parser.add_argument("--junit", metavar="FILE", help="write JUnit XML, a test case for each class of input")
    parser.add_argument("--no-triage", action="store_true", help="do not ask where wrong answers come from")
    parser.add_argument("--json", action="store_true", help="print a JSON object")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Print the report; return 1 if an answer is wrong."""
    from qsim.files import whole
    from qsim.golden.check import check
    from qsim.golden.converter import named
    from qsim.golden.directed import type_of
    from qsim.golden.vectors import fields_of, read

    converter = named(args.model)
    kind = type_of(converter, args.dtype or "")
    fields = list(fields_of(converter, kind))
    asked = read(args.vectors, fields, kind) if args.vectors else None
    if asked is not None and (asked.codes != converter.convert(asked.x, asked.words)).any():
        raise InputError(
            f"{args.vectors}: holds other codes than {converter.name} gives; the vectors are of another model"
        )
    report = check(converter, read(args.file, fields, kind, asked), triage=not args.no_triage)
    if args.junit:
        with whole(Path(args.junit)) as file:
            file.write(report.junit().encode())
    print(as_json(report.data()) if args.json else report)
    return 0 if report.held else 1
