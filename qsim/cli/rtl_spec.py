"""`qsim rtl-spec MODEL -o FILE`: a converter as a table, in Verilog or C."""

from __future__ import annotations

import argparse
from pathlib import Path

from qsim.cli.text import as_json
from qsim.errors import InputError

__all__ = ["add", "run"]


def add(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments to its parser."""
    parser.description = (
        "Write a converter as a table of the inputs at which its code changes: a combinational module of Verilog-2005 (.v), to "
        "which yosys can prove a block equal, or C99 (.c). With yosys pass -enable_undef to sat: without it, undefined bits "
        "such as missing words of a ROM are proved equal to 0."
    )
    parser.add_argument("model", metavar="MODEL", help="a name that `qsim models` lists, or FORMAT:MODE")
    parser.add_argument("-o", "--output", metavar="FILE", required=True, help="where to write: .v or .c")
    parser.add_argument("--dtype", choices=("float16", "bfloat16", "float32", "float64"),
                        help="the type of the inputs, where the model takes several (default float32)")  # fmt: skip
    parser.add_argument("--json", action="store_true", help="print a JSON object of what was written")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Write the table."""
    from qsim.files import whole
    from qsim.golden.converter import named
    from qsim.golden.emit import as_c, as_verilog, spec_of

    path = Path(args.output)
    if path.suffix not in (".v", ".c"):
        raise InputError(f"{path}: the name ends in neither .v nor .c, which say what is written")
    spec = spec_of(named(args.model), args.dtype or "")
    text = as_verilog(spec) if path.suffix == ".v" else as_c(spec)
    with whole(path) as file:
        file.write(text.encode())
    runs = len(spec.low[0])
    if args.json:
        print(
            as_json(
                {"file": str(path), "model": spec.converter.name, "name": spec.name, "input": spec.kind, "runs": runs}
            )
        )
    else:
        print(f"{path}: {spec.name}, {runs:,} runs of one code, {spec.kind} to {spec.converter.format.name}")
    return 0
