"""`qsim dpi MODEL -o FOLDER`: a converter in C, with a header, and a package that imports it by DPI."""

from __future__ import annotations

import argparse
from pathlib import Path

from qsim.cli.text import as_json
from qsim.errors import InputError

__all__ = ["add", "run"]


def add(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments to its parser."""
    parser.description = (
        "Write a golden model in C99 for a simulator: NAME.c, NAME.h and NAME.sv, a package with the imports of DPI-C. A "
        "shortreal is a double there, so the number itself goes in as a real, and bits as an unsigned integer."
    )
    parser.add_argument("model", metavar="MODEL", help="a name that `qsim models` lists, or FORMAT:MODE")
    parser.add_argument("-o", "--output", metavar="FOLDER", required=True, help="where to write; it must exist")
    parser.add_argument("--dtype", choices=("float16", "bfloat16", "float32", "float64"),
                        help="the type of the inputs, where the model takes several (default float32)")  # fmt: skip
    parser.add_argument("--json", action="store_true", help="print a JSON object of what was written")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Write the three files."""
    from qsim.files import whole
    from qsim.golden.converter import named
    from qsim.golden.emit import as_c, as_dpi, as_header, spec_of

    folder = Path(args.output)
    if not folder.is_dir():
        raise InputError(f"{folder}: is no folder")
    spec = spec_of(named(args.model), args.dtype or "")
    paths = {
        folder / f"{spec.name}{end}": make(spec) for end, make in ((".c", as_c), (".h", as_header), (".sv", as_dpi))
    }
    for path, text in paths.items():
        with whole(path) as file:
            file.write(text.encode())
    if args.json:
        print(
            as_json(
                {"model": spec.converter.name, "name": spec.name, "input": spec.kind, "files": [str(p) for p in paths]}
            )
        )
    else:
        print("\n".join(map(str, paths)))
    return 0
