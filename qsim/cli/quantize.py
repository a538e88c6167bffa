"""`qsim quantize IN -f FORMAT -r MODE -o OUT`: round the numbers of a file, and count what the rounding did to them."""

from __future__ import annotations

import argparse
import dataclasses
import sys
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

import qsim
from qsim.cli.files import check_output, converted, pieces, read_floats, read_words, scratch, writing
from qsim.cli.show import HELP, entries
from qsim.cli.text import as_json, number
from qsim.errors import InputError
from qsim.rounding import LIMITED, Key, Mode, Quantizer, mode_fields, split_spelling

if TYPE_CHECKING:
    from qsim.arrays import Counts

__all__ = ["add", "run"]


def integer(text: str) -> int:
    """Return an integer, decimal or 0x hexadecimal."""
    return int(text, 0)


def scale(text: str) -> str | float:
    """Return a number, or the name of a rule."""
    try:
        return float(text)
    except ValueError:
        return text


def axes(text: str) -> str | int | tuple[int, ...]:
    """Return the number of an axis, or several, or a name."""
    try:
        numbers = tuple(map(int, text.split(",")))
    except ValueError:
        return text
    return numbers if len(numbers) > 1 else numbers[0]


FLAG: Mapping[str, Any] = {"action": "store_true", "default": None}

OPTIONS: tuple[tuple[str, str, Mapping[str, Any], str], ...] = (
    ("--sr-bits", "sr_bits", {"metavar": "N", "type": integer}, "random bits an element, of SRA, SRB and SRC"),
    ("--eps", "eps", {"metavar": "E", "type": float}, "the fraction above which Threshold rounds up"),
    ("--saturation", "saturation", {"metavar": "RULE"}, "what becomes of values beyond the range, see `qsim show`"),
    ("--scale", "scale", {"metavar": "S", "type": scale},
     "none, pow2, absmax, absmax_nearest, absmean or a number: s round(x / s)"),
    ("--per", "per", {"metavar": "AXES", "type": axes},
     "a scale for each: tensor, channel, token, sample, or an index of an axis, 1, or of several, 0,2"),
    ("--order", "order", {"metavar": "ORDER"}, "divide, reciprocal, exact or input: how x / s is computed"),
    ("--ftz-in", "ftz_in", FLAG, "flush subnormal inputs to zero"),
    ("--ftz-out", "ftz_out", FLAG, "flush subnormal results to zero"),
    ("--nan", "nan", {"metavar": "RULE"}, "canonical or signed: which NaN results have"),
)  # fmt: skip
"""The options that are keywords of `qsim.quantize` and `qsim.encode`: flags, keyword, how it is parsed, help."""


def add(parser: argparse.ArgumentParser) -> None:
    """Say what the command takes."""
    parser.description = (
        "Round the numbers of a file, and count what saturated, underflowed or was NaN. Files are .npy (float16, "
        "float32 or float64), or text: .txt, .csv, or - for standard input and output, a row a line, in decimals or "
        "hexadecimal floats such as 0x1.8p-3. OUT is written whole or not at all; it may be IN."
    )
    parser.add_argument("input", metavar="IN", help="the numbers: .npy, .txt, .csv, or - for text on standard input")
    parser.add_argument("-f", "--format", metavar="FORMAT", required=True, help=f"{HELP}; FORMAT:MODE says both")
    parser.add_argument("-o", "--output", metavar="OUT", required=True, help="the result: .npy, .txt, .csv or -")
    parser.add_argument(
        "-r",
        "--rounding",
        metavar="MODE",
        help="rounding mode (default RNE); SRA(8) and Threshold(0.25) say N and E too",
    )
    for flags, keyword, how, text in OPTIONS:
        parser.add_argument(*flags.split(), dest=keyword, **how, help=text)
    parser.add_argument("--seed", metavar="S", type=integer, help="draw random words by this seed")
    parser.add_argument("--stream", metavar="T", type=integer, help="of this stream (default 0)")
    parser.add_argument("--offset", metavar="K", type=integer, help="from this word on (default 0)")
    parser.add_argument("--rbits", metavar="FILE", help="the random words themselves, integers of --sr-bits bits")
    parser.add_argument("--dtype", choices=("float32", "float64"), help="read text so (default float64), or widen .npy")
    parser.add_argument("--codes", action="store_true", help="write codes instead of values")
    parser.add_argument(
        "--pack", nargs="?", choices=("little", "big"), const="little",
        help="with --codes: bytes, the codes of each row (last axis) without gaps, from the least (little) or most "
        "significant bit on",
    )  # fmt: skip
    parser.add_argument("--json", action="store_true", help="print the summary as a JSON object")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Round one file into another, and print a summary: to stderr if the result goes to stdout."""
    name, spelled = (args.format, args.rounding) if args.rounding else split_spelling(args.format)
    given = {name: getattr(args, name) for _, name, _, _ in OPTIONS if getattr(args, name) is not None}
    given["mode"] = spelled or "RNE"
    q, n = quantizer(name, given)
    key = checked_key(args, q.mode, n)
    if args.pack and not args.codes:
        raise InputError("--pack packs codes; give --codes too")
    check_output(args.output)
    from qsim.rounder import code_dtype  # which brings the kernels, that a refusal does without

    with scratch(args.output) as make:
        given_x = read_floats(args.input, args.dtype, make)
        swapped = not given_x.dtype.isnative
        x = converted(given_x, given_x.dtype.newbyteorder("="), make) if swapped else given_x
        words: dict[str, Any] = {} if key is None else {"key": key}
        if args.rbits is not None:
            words["rbits"] = read_words(args.rbits, n or 0)
        with writing(args.output, *form(given_x, q, codes=args.codes, packed=bool(args.pack))) as written:
            out = written if written.dtype.isnative else make(written.shape, x.dtype)
            codes = None
            if not args.codes:
                qsim.quantize(x, q.format, **given, **words, out=out)
            if args.codes or q.scale != "none":
                codes = out if args.codes and not args.pack else make(x.shape, code_dtype(q.format))
                qsim.encode(x, q.format, **given, **words, out=codes)
            if args.pack and codes is not None:
                pack(codes, q, args.pack, out)
            s, counts = count(x, q, out if codes is None else codes, coded=codes is not None)
            if out is not written:
                for place in pieces(x.shape):
                    written[place] = out[place]
            shaped, dtype = list(written.shape), str(written.dtype)
    facts = {
        "input": args.input, "dtype": str(given_x.dtype), "shape": list(x.shape), "elements": x.size,
        **q.describe(), "random_bits": random_bits(q.mode, n, x),
        "key": dataclasses.asdict(key) if key else None, "rbits": args.rbits,
        "scale_value": None if s is None else s.item() if s.size == 1 else s.tolist(),
        "counts": dataclasses.asdict(counts),
        "output": args.output, "holds": "codes" if args.codes else "values", "packed": args.pack,
        "output_dtype": dtype, "output_shape": shaped,
    }  # fmt: skip
    print(as_json(facts) if args.json else summary(facts, q, s), file=sys.stderr if args.output == "-" else None)
    return 0


def quantizer(fmt: str, given: Mapping[str, Any]) -> tuple[Quantizer, int | None]:
    """Return the rounding that the options spell, and the number of random bits if one was stated."""
    settings = {**given, **mode_fields(given["mode"])}
    n = settings.get("sr_bits")
    if settings["mode"] not in LIMITED:
        settings.pop("sr_bits", None)  # `qsim.quantize` says which modes take it beside random words
    return Quantizer(fmt, **settings), n


def checked_key(args: argparse.Namespace, mode: Mode, n: int | None) -> Key | None:
    """Return the key of the random words, if one was given; refuse words that are missing, too many, or of no use."""
    parts = {name: getattr(args, name) for name in ("stream", "offset") if getattr(args, name) is not None}
    if parts and args.seed is None:
        raise InputError(f"--{next(iter(parts))} counts from a seed; give --seed S too")
    if not mode.stochastic:
        for name in ("seed", "rbits", "sr_bits"):
            if getattr(args, name) is not None:
                option = name.replace("_", "-")
                raise InputError(f"{mode} takes no random words; drop --{option}, or name a stochastic mode with -r")
        return None
    if args.rbits is None:
        if args.seed is None:
            raise InputError(f"{mode} needs random words; give --seed S, or --rbits FILE with --sr-bits N")
        return Key(args.seed, **parts)
    if args.seed is not None:
        raise InputError("--rbits takes the place of --seed; give one of them")
    if n is None or not 0 <= n <= 64:
        raise InputError("--rbits needs --sr-bits N, the number of bits of each word, 0 to 64")
    if args.rbits == args.input == "-":
        raise InputError("standard input cannot be both IN and the words of --rbits; put one into a file")
    return None


def random_bits(mode: Mode, n: int | None, x: NDArray[Any]) -> int | None:
    """Return the number of random bits an element: as many as the input has, and 32 at least, unless the options say it."""
    if not mode.stochastic:
        return None
    return 8 * max(x.dtype.itemsize, 4) if n is None else n


def form(x: NDArray[Any], q: Quantizer, *, codes: bool, packed: bool) -> tuple[tuple[int, ...], np.dtype[Any]]:
    """Return the shape and type of the result."""
    from qsim.rounder import code_dtype

    if not codes:
        return x.shape, x.dtype
    if not packed or not x.ndim:  # of a single number there is no row to pack, and packing says so
        return x.shape, code_dtype(q.format)
    return (*x.shape[:-1], -(-x.shape[-1] * q.format.bits // 8)), np.dtype(np.uint8)


def pack(codes: NDArray[Any], q: Quantizer, order: Any, out: NDArray[Any]) -> None:
    """Pack the codes of each row into `out`, a piece at a time: pieces of a row begin with a whole byte."""
    for place in pieces(codes.shape):
        packed = qsim.pack(codes[place], q.format, order=order)
        begin = place[-1].start * q.format.bits // 8
        out[(*place[:-1], slice(begin, begin + packed.shape[-1]))] = packed


@np.errstate(over="ignore", invalid="ignore")  # infinities and NaNs are results like any other
def count(x: NDArray[Any], q: Quantizer, found: NDArray[Any], *, coded: bool) -> tuple[NDArray[Any] | None, Counts]:
    """Return the scale s, if there is one, and the counts of the rounding of x / s, computed as for it, to `found`.

    `found` are values, or codes. Both arrays are looked at in pieces, for they may be larger than memory.
    """
    from qsim.arrays import Counts, quantize
    from qsim.scales import apply_scale, derive_scale

    s = derive_scale(x, q)
    scales = None if s is None else np.broadcast_to(s, x.shape)
    total = Counts()
    for place in pieces(x.shape):
        part, values = np.asarray(x[place]), np.asarray(found[place])
        if coded:
            values = qsim.decode(values, q.format, np.float64)
        y = (
            quantize(part, x.dtype.name, ftz_in=True) if q.ftz_in else part
        )  # to its own type: flushed, and nothing else
        if scales is not None:
            y = apply_scale(y, scales[place], q, 0)  # what it refuses, the rounding refused before
        y = y.astype(np.float64)
        finite = np.isfinite(part)
        underflowed = finite & (part != 0) & (values == 0)
        total += Counts(
            elements=part.size,
            saturated=int(np.count_nonzero(finite & ((y > q.format.max) | (y < q.format.min)))),
            underflowed=int(np.count_nonzero(underflowed)),
            nan=int(np.count_nonzero(np.isnan(part))),
            on_grid=int(np.count_nonzero(finite & (y == values) & ~underflowed)),
        )
    return s, total


def summary(facts: Mapping[str, Any], q: Quantizer, s: NDArray[Any] | None) -> str:
    """Return what was in force, and what came of it, for reading."""
    lines = [("read", f"{facts['input']}: {facts['elements']} elements ({shape(facts['shape'])}), {facts['dtype']}")]
    lines.append(("rounding", str(q)))
    if facts["random_bits"] is not None:
        words = "seed {seed}, stream {stream}, offset {offset}"
        source = words.format(**facts["key"]) if facts["key"] else f"from {facts['rbits']}"
        lines.append(("random words", f"{facts['random_bits']} bits an element, {source}"))
    if s is not None and s.size:
        ends = [str(end).removesuffix(".0") for end in (s.min(), s.max())]  # the digits that its own type needs
        found = ends[0] if s.size == 1 else f"{s.size} of them ({shape(s.shape)}), {ends[0]} .. {ends[1]}"
        lines.append(("scale s", f"{found}; the counts are of x / s"))
    counts = facts["counts"]
    lines += [
        ("saturated", f"{counts['saturated']} beyond {number(q.format.min)} .. {number(q.format.max)}"),
        ("underflowed", f"{counts['underflowed']} to zero"),
        ("NaN", f"{counts['nan']}"),
        ("on the grid", f"{counts['on_grid']} already"),
    ]
    packed = f" packed to {shape(facts['output_shape'])}, {facts['packed']} order" if facts["packed"] else ""
    return entries([*lines, ("written", f"{facts['output']}: {facts['holds']}{packed}, {facts['output_dtype']}")])


def shape(sizes: Sequence[int]) -> str:
    """Return the shape of an array for reading."""
    return " x ".join(map(str, sizes)) or "a single number"
