"""`qsim decode IN -f FORMAT -o OUT`: the values of codes, unpacked and scaled, as `qsim quantize` wrote them."""

from __future__ import annotations

import argparse
import sys
from typing import Any

import numpy as np
from numpy.typing import NDArray

import qsim
from qsim.cli.files import Stored, check_output, in_hex, read_floats, read_patterns, read_words, whole_array, writing
from qsim.cli.notice import compiling
from qsim.cli.quantize import shape
from qsim.cli.show import HELP, entries
from qsim.cli.text import as_json
from qsim.errors import InputError
from qsim.formats import get_format
from qsim.rounding import Quantizer

__all__ = ["add", "run"]


def add(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments to its parser."""
    parser.description = (
        "Decode the codes of a file: with --pack unpack them first, and with --scales multiply their values by the scales, so "
        "that the result is that of `qsim quantize` without --codes. Files are named as for `qsim quantize`; a model file, "
        ".safetensors, holds its formats and scales."
    )
    parser.add_argument("input", metavar="IN", help="the codes, integers: .npy, .txt, .csv, .hex, .mem, or -")
    parser.add_argument("-f", "--format", metavar="FORMAT", help=f"{HELP}; a model file says it itself")
    parser.add_argument(
        "-o", "--output", metavar="OUT", required=True, help="the result: .npy, .txt, .csv, .hex, .mem or -"
    )
    parser.add_argument("--scales", metavar="FILE", help="the scales s, as `qsim quantize --scales` wrote them")
    parser.add_argument(
        "--pack", nargs="?", choices=("little", "big"), const="little",
        help="IN holds packed bytes, from the least (little) or most significant bit on",
    )  # fmt: skip
    parser.add_argument("--count", type=int, metavar="N", help="with --pack: the number of codes in a row (last axis)")
    parser.add_argument("--dtype", choices=("float16", "float32", "float64"),
                        help="type of the values (default: that of the scales, or float32)")  # fmt: skip
    parser.add_argument("--codes", action="store_true", help="write the codes, unpacked, instead of values")
    parser.add_argument("--hex", action="store_true", help="words of text are in hexadecimal, in IN and OUT")
    parser.add_argument("--json", action="store_true", help="print the summary as a JSON object")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Write the values of the codes of a file, and print a summary: to stderr if the result goes to stdout."""
    if args.input.endswith(".safetensors"):
        from qsim.cli import tensors

        return tensors.decode(args)
    if args.format is None:
        raise InputError(f"{args.input}: the codes of an array do not say their format; give -f FORMAT")
    fmt = get_format(args.format)
    check_output(args.output)
    if (args.pack is None) != (args.count is None):
        raise InputError("--pack and --count N go together: the bytes do not say how many codes a row has")
    if args.codes and (args.scales or args.dtype):
        raise InputError(
            f"--codes writes codes, which {'--scales' if args.scales else '--dtype'} does not change; drop one"
        )
    if args.scales == args.input == "-":
        raise InputError("standard input cannot be both IN and the scales; put one into a file")
    hint = "; give --pack and --count N if these are packed bytes" if fmt.bits < 8 and not args.pack else ""
    codes = whole_array(read_words(args.input, 8 if args.pack else fmt.bits, "code", hexadecimal=args.hex, hint=hint))
    if args.pack:
        codes = qsim.unpack(codes.astype(np.uint8), fmt, args.count, order=args.pack)
    s = None if args.scales is None else scales(args, codes.ndim)
    if args.codes:
        from qsim.rounder import code_dtype

        qsim.decode(codes, fmt)  # which refuses those that stand for nothing
        found: NDArray[Any] = codes.astype(code_dtype(fmt))
    else:
        with compiling(quiet=args.json):
            found = values(args, codes, s)
    bits = 0 if not in_hex(args.output, asked=args.hex) else fmt.bits if args.codes else 8 * found.dtype.itemsize
    with writing(args.output, found.shape, found.dtype, bits) as out:
        out[...] = found
    facts = {
        "input": args.input, "format": fmt.name, "packed": args.pack, "scales": args.scales,
        "output": args.output, "holds": "codes" if args.codes else "values", "output_dtype": str(found.dtype),
        "output_shape": list(found.shape),
    }  # fmt: skip
    print(as_json(facts) if args.json else entries([
        ("read", f"{args.input}: {'packed ' if args.pack else ''}codes of {fmt.name}"),
        ("written", f"{args.output}: {facts['holds']} ({shape(found.shape)}), {found.dtype}"),
    ]), file=sys.stderr if args.output == "-" else None)  # fmt: skip
    return 0


def scales(args: argparse.Namespace, axes: int) -> NDArray[Any]:
    """Return the scales of a file; in a text, whose lines are rows, a number a line is a scale a row."""
    read = read_patterns if args.hex or in_hex(args.scales) else read_floats
    found = read(args.scales)
    s = whole_array(found)
    if not isinstance(found, Stored) and s.ndim == 1 and axes > 1:
        s = s.reshape(-1, 1)
    return s


def values(args: argparse.Namespace, codes: NDArray[Any], s: NDArray[Any] | None) -> NDArray[Any]:
    """Return decode(codes), or decode(codes) s rounded once; a finite value does not become infinite by its scale."""
    from qsim.scales import remove_scale

    dtype = np.dtype(args.dtype or (np.float32 if s is None else s.dtype))
    decoded = qsim.decode(codes, args.format, dtype)
    if s is None:
        if decoded.dtype != dtype and args.dtype:
            raise InputError(
                f"{dtype} does not hold the values of {args.format}; leave --dtype out, which writes {decoded.dtype}"
            )
        return decoded
    try:
        fits = np.broadcast_shapes(s.shape, codes.shape) == codes.shape
    except ValueError:
        fits = False
    if not fits:
        raise InputError(
            f"{args.scales}: scales of shape {s.shape} do not broadcast to the shape {codes.shape} of the codes"
        )
    with np.errstate(over="ignore", under="ignore", invalid="ignore"):
        return remove_scale(decoded, s, Quantizer(args.format, scale="absmax"), dtype)
