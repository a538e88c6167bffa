"""`qsim vectors MODEL -o FILE`: inputs and right answers of a converter, for a bench."""

from __future__ import annotations

import argparse
from typing import Any

from qsim.cli.text import as_json
from qsim.errors import InputError

__all__ = ["add", "run"]


def add(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments to its parser."""
    parser.description = (
        "Write test vectors: by default those that show faults, at and next to every input at which the code changes, values, "
        "ends of the ranges, zeros, subnormals, infinities and NaNs, and for a random word the last at which a number stays "
        "and the first at which it goes. FILE.manifest.json says what they are. The model tensor-core-probe makes a folder: "
        "dot products that tell the matrix instructions of GPUs apart, and programs that measure them."
    )
    parser.add_argument("model", metavar="MODEL", help="a name that `qsim models` lists, or FORMAT:MODE")
    parser.add_argument("-o", "--output", metavar="FILE", required=True,
                        help="where to write: .hex ($readmemh), .tv, .csv, .jsonl, .npz or .h")  # fmt: skip
    parser.add_argument("--dtype", choices=("float16", "bfloat16", "float32", "float64"),
                        help="the type of the inputs, where the model takes several (default float32)")  # fmt: skip
    parser.add_argument("--random", type=int, metavar="N", help="add N uniform bit patterns, with uniform words")
    parser.add_argument(
        "--exhaustive", action="store_true", help="all inputs with all words, if these are at most 2^24"
    )
    parser.add_argument("--seed", type=int, default=0, metavar="S", help="the seed of --random (default 0)")
    parser.add_argument("--json", action="store_true", help="print the manifest")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Write the vectors and their manifest."""
    import json

    import numpy as np

    from qsim.golden.converter import named
    from qsim.golden.directed import directed, exhaustive, random
    from qsim.golden.operands import Operands
    from qsim.golden.vectors import Vectors, write

    if args.model == "tensor-core-probe":
        return _probe(args)
    if args.random is not None and not 0 < args.random <= 1 << 27:
        raise InputError(f"--random {args.random}: take 1 to 2^27 vectors")
    if args.random is not None and args.exhaustive:
        raise InputError("--random and --exhaustive exclude each other; give one of them")
    if args.seed < 0:
        raise InputError(f"--seed {args.seed} must not be negative")
    converter = named(args.model)
    how: dict[str, Any] = {"chosen": "exhaustive" if args.exhaustive else "directed"}
    x, words = (exhaustive if args.exhaustive else directed)(converter, args.dtype or "")
    if args.random:
        more, others = random(converter, args.random, args.seed, args.dtype or "")
        x = Operands(x.kind, np.concatenate([x.bits, more.bits]))
        words = None if words is None or others is None else np.concatenate([words, others])
        how |= {"random": args.random, "seed": args.seed}
    beside = write(Vectors(converter, x, words, converter.convert(x, words)), args.output, **how)
    if args.json:
        print(as_json(json.loads(beside.read_text())))
    else:
        print(
            f"{args.output}: {len(x):,} vectors of {converter.name}, {x.kind} to {converter.format.name}; {beside.name}"
        )
    return 0


def _probe(args: argparse.Namespace) -> int:
    """Write the probe of tensor cores into a folder."""
    from pathlib import Path

    from qsim.dot import write_probes

    if args.random is not None or args.exhaustive or args.dtype:
        raise InputError("tensor-core-probe has rows of its own; drop --random, --exhaustive and --dtype")
    paths = [str(path) for path in write_probes(Path(args.output))]
    print(as_json(paths) if args.json else "\n".join([*paths, "measure, then: qsim identify --dots measured.txt"]))
    return 0
