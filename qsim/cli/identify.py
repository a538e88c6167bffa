"""`qsim identify FILE`: which converter, or which fault, answers come from."""

from __future__ import annotations

import argparse
import dataclasses

from qsim.cli.show import HELP
from qsim.cli.text import as_json
from qsim.errors import InputError

__all__ = ["add", "run"]

WIDTHS = {4: "float16", 8: "float32", 16: "float64"}
"""The type of inputs with so many digits, where none is named."""


def add(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments to its parser."""
    parser.description = (
        "Say which converter of the registry, or which known fault, or two of them, gives the answers of a file: lines of x "
        "[rbits] code. Exit 1 if none does. With --dots, which accumulators and matrix instructions give measured dot products."
    )
    parser.add_argument("file", metavar="FILE", help="as for `qsim check`; fields apart, or .csv, .jsonl, .npz")
    parser.add_argument("-f", "--format", metavar="FORMAT", help=f"the format of the codes: {HELP}")
    parser.add_argument("--dtype", choices=("float16", "bfloat16", "float32", "float64", "int32"),
                        help="the type of the inputs (default: by the number of digits, 4 are float16)")  # fmt: skip
    parser.add_argument("--sr-bits", type=int, metavar="N", help="the bits of a random word, where there is one")
    parser.add_argument("--dots", action="store_true",
                        help="FILE holds measured dot products, see `qsim vectors tensor-core-probe`")  # fmt: skip
    parser.add_argument("--json", action="store_true", help="print a JSON object")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Print the finding; return 1 where nothing fits."""
    from qsim.golden.identify import identify_answers
    from qsim.golden.vectors import read_unknown

    if args.dots:
        return _dots(args)
    if args.sr_bits is not None and not 1 <= args.sr_bits <= 64:
        raise InputError(f"--sr-bits {args.sr_bits}: a random word has 1 to 64 bits")
    answers = read_unknown(args.file, args.dtype or "", args.sr_bits or 0, WIDTHS)
    found = identify_answers(answers, args.format, sr_bits=args.sr_bits or 0)
    print(as_json(dataclasses.asdict(found)) if args.json else found)
    return 0 if found.equal or found.faults else 1


def _dots(args: argparse.Namespace) -> int:
    """Print which accumulators explain the dot products of each instruction; return 1 where none does."""
    from pathlib import Path

    from qsim.dot import identify_accumulator, read_measured

    if args.format or args.dtype or args.sr_bits is not None:
        raise InputError("--dots: each line names its format; drop --format, --dtype and --sr-bits")
    measured = read_measured(Path(args.file))
    if not measured:
        raise InputError(f"{args.file}: holds no measured rows")
    found = {
        f"{name} {form}": identify_accumulator(rows.a, rows.b, rows.c, rows.d, inputs=form)
        for (name, form), rows in measured.items()
    }
    if args.json:
        print(as_json({name: one.describe() for name, one in found.items()}))
    else:
        print("\n\n".join(f"{name}: {one}" for name, one in found.items()))
    return 0 if all(one.explaining for one in found.values()) else 1
