"""`qsim quantize IN -f FORMAT -r MODE -o OUT`: round the numbers of a file, and count clipped, underflowed and exact ones."""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import shlex
import sys
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

import qsim
from qsim.cli.files import (
    LARGE,
    Stored,
    check_output,
    in_hex,
    pieces,
    read_floats,
    read_patterns,
    read_words,
    same_file,
    writing,
)
from qsim.cli.notice import compiling
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


def skipped(text: str) -> int:
    """Return a number of lines; raise `ValueError` for less than none."""
    if (count := int(text)) < 0:
        raise ValueError(text)
    return count


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
    ("--ftz-out", "ftz_out", {"metavar": "WHEN"},
     "flush to zero what is tiny after rounding (as x86), before it (as Arm), or a subnormal result: after, before, result"),
    ("--nan", "nan", {"metavar": "RULE"}, "canonical, signed or signed_overflow: which NaN results have"),
)  # fmt: skip
"""The options that are keywords of `qsim.quantize` and `qsim.encode`: flags, keyword, how it is parsed, help."""


def add(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments to its parser."""
    parser.description = (
        "Round the numbers of a file, and count what saturated, underflowed or was NaN. Files are .npy (float16, "
        "float32 or float64), or text: .txt, .csv, or - for standard input and output, a row a line, in decimals or "
        "hexadecimal floats such as 0x1.8p-3; or .hex and .mem, whose words are bit patterns as $readmemh reads them. OUT is "
        "written whole or not at all; it may be IN. Of a model file, .safetensors, each tensor of floats is rounded, to "
        "block formats too, and OUT is a model file: values in their own types, or with --codes codes, packed where they have "
        "fewer than 8 bits, and NAME_scale."
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
    parser.add_argument("--dtype", choices=("float16", "float32", "float64"),
                        help="read text so (default float64), or widen .npy; float16 is for bit patterns")  # fmt: skip
    parser.add_argument("--skip", metavar="N", type=skipped, default=0,
                        help="leave out the first N lines of a text: names of columns, say")  # fmt: skip
    parser.add_argument("--hex", action="store_true", help="words of text and unsigned .npy are the bits of numbers, or "
                        "codes, in hexadecimal, in IN and OUT; in .hex and .mem they always are")  # fmt: skip
    parser.add_argument("--codes", action="store_true", help="write codes instead of values")
    parser.add_argument(
        "--pack", nargs="?", choices=("little", "big"), const="little",
        help="with --codes: bytes, the codes of each row (last axis) without gaps, from the least (little) or most "
        "significant bit on",
    )  # fmt: skip
    parser.add_argument("--scales", metavar="FILE", help="write the scales s too: decode(codes) * s is the result")
    parser.add_argument("--tensors", metavar="PATTERN", action="append", help="of a model file: round these alone, as in "
                        "'*.weight'; may be given several times (default: all floats)")  # fmt: skip
    parser.add_argument("--report", action="store_true", default=None, help="of a model file: a line for each tensor")
    parser.add_argument("--scale-rule", metavar="RULE", help="of a block format: floor, ceil, rceil, even, midmax, ...")
    parser.add_argument(
        "--axis", metavar="AXIS", type=axes, help="of a block format: along which blocks lie (default -1)"
    )
    parser.add_argument("--json", action="store_true", help="print the summary as a JSON object")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Round one file into another, and print a summary: to stderr if the result goes to stdout."""
    name, spelled = (args.format, args.rounding) if args.rounding else split_spelling(args.format)
    given = {name: getattr(args, name) for _, name, _, _ in OPTIONS if getattr(args, name) is not None}
    given["mode"] = spelled or "RNE"
    if args.input.endswith(".safetensors"):
        return run_model(args, name, given)
    for option in ("tensors", "report", "scale_rule", "axis"):
        if getattr(args, option) is not None:
            raise InputError(f"--{option.replace('_', '-')} is for model files, .safetensors; drop it")
    q, n = quantizer(name, given)
    key = checked_key(args, q.mode, n)
    if args.pack and not args.codes:
        raise InputError("--pack packs codes; give --codes too")
    check_output(args.output)
    if args.scales is not None:
        if q.scale == "none":
            raise InputError("--scales takes the scales; give --scale too")
        check_output(args.scales)
        if same_file(args.scales, args.output):
            raise InputError(
                f"{args.scales} cannot take both the result and the scales; name another file with --scales"
            )
    try:
        with compiling(quiet=args.json):
            return convert(args, q, n, key, given)
    except MemoryError:
        raise InputError(
            f"{args.input}: there is not enough memory for it; a .npy is read in pieces, so make one of a text, or raise the "
            "limit (ulimit -v)"
        ) from None


def run_model(args: argparse.Namespace, name: str, given: Mapping[str, Any]) -> int:
    """Round a model file."""
    from qsim.cli import tensors

    fields = mode_fields(given["mode"])
    n = fields.get("sr_bits", given.get("sr_bits"))
    try:
        return tensors.run(args, name, given, n, checked_key(args, fields["mode"], n))
    except MemoryError:
        raise InputError(f"{args.input}: there is not enough memory for its largest tensor") from None


def convert(args: argparse.Namespace, q: Quantizer, n: int | None, key: Key | None, given: Mapping[str, Any]) -> int:
    """Round the numbers of a file into another, those of a large one a piece at a time."""
    from qsim.arrays import Counts, round_piece  # which bring the kernels, that a refusal does without
    from qsim.rounder import check_words
    from qsim.scales import derive_scale

    lost: list[int] = []
    x: Any
    if args.hex or in_hex(args.input):
        x = read_patterns(args.input, args.dtype, args.skip)
    else:
        if args.dtype == "float16":
            raise InputError(
                "--dtype float16 is for bit patterns; give --hex too, or read a text as float32 or float64"
            )
        x = read_floats(args.input, args.dtype, lost, args.skip)
    kind = x.given if isinstance(x, Stored) else x.dtype
    words = None if args.rbits is None else read_words(args.rbits, n or 0, hexadecimal=args.hex)
    if words is not None:
        refuse_words(words, x)
    places: list[tuple[slice, ...]] = [tuple(slice(0, size) for size in x.shape)]
    if whole := x.size * x.dtype.itemsize <= LARGE:
        x = x[places[0]]
    else:
        places = list(pieces(x.shape))
        if key is not None:
            check_words(key, x.size)
        x, words = (array.in_c_order(args.output) if isinstance(array, Stored) else array for array in (x, words))
    s, total, begin, zeros = derive_scale(x, q), Counts(), 0, np.array(lost, np.int64)
    with contextlib.ExitStack() as files:
        shape_of, type_of = form(x, kind, q, codes=args.codes, packed=bool(args.pack))
        width = q.format.bits if args.codes and not args.pack else 8 * type_of.itemsize
        bits = width if in_hex(args.output, asked=args.hex) else 0
        written = files.enter_context(writing(args.output, shape_of, type_of, bits))
        if args.scales is not None and s is not None:
            bits = 8 * s.dtype.itemsize if in_hex(args.scales, asked=args.hex) else 0
            files.enter_context(writing(args.scales, s.shape, s.dtype, bits))[...] = s
        for place in places:
            part = x[place]
            own = None if s is None else s[over(s.shape, place)]
            random: dict[str, Any] = {} if key is None else {"key": key}
            if words is not None:
                random["rbits"] = words[over(words.shape, place)]
            if whole:
                values, codes = round_whole(part, q, given, random, coded=args.codes)
            else:
                refuse_nan(part, q, place)
                values, codes = (
                    round_piece(part, own, begin, q, n=n, codes=coded, **random) if wanted else None
                    for coded, wanted in ((False, not args.codes), (True, args.codes or s is not None))
                )
            tiny = None
            if lost:
                tiny = np.zeros(part.shape, np.bool_)
                tiny.flat[zeros[slice(*np.searchsorted(zeros, [begin, begin + part.size]))] - begin] = True
            found = values if codes is None else codes
            total += count(part, own, q, found, tiny, coded=codes is not None)
            if args.pack and codes is not None:
                found = qsim.pack(codes, q.format, order=args.pack)  # a piece of a row begins with a whole byte
                first = place[-1].start * q.format.bits // 8
                written[*place[:-1], first : first + found.shape[-1]] = found
            else:
                written[place] = codes if args.codes else values
            begin += part.size
    facts = {
        "input": args.input, "dtype": str(kind), "shape": list(x.shape), "elements": x.size,
        **q.describe(), "random_bits": random_bits(q.mode, n, x.dtype),
        "key": dataclasses.asdict(key) if key else None, "rbits": args.rbits,
        "scale_value": None if s is None else s.item() if s.size == 1 else s.tolist(),
        "counts": dataclasses.asdict(total), **({"read_as_zero": len(lost)} if lost else {}),
        "output": args.output, "holds": "codes" if args.codes else "values", "packed": args.pack,
        "output_dtype": str(written.dtype), "output_shape": list(written.shape),
        **({} if args.scales is None else {"scales": args.scales}),
        **({"decode": decoding(args, q, x.shape, scaled=s is not None)} if args.codes else {}),
    }  # fmt: skip
    told = as_json(facts) if args.json else summary(facts, q, s)
    print(told, file=sys.stderr if "-" in (args.output, args.scales) else None)
    return 0


def round_whole(
    x: NDArray[Any], q: Quantizer, given: Mapping[str, Any], words: Mapping[str, Any], *, coded: bool
) -> tuple[NDArray[Any] | None, NDArray[Any] | None]:
    """Return values, unless codes alone are wanted, and codes, if they or the counts of a scaled array need them."""
    from qsim.rounder import code_dtype

    values = codes = None
    if not coded:
        values = np.empty(x.shape, x.dtype)
        qsim.quantize(x, q.format, **given, **words, out=values)
    if coded or q.scale != "none":
        codes = np.empty(x.shape, code_dtype(q.format))
        qsim.encode(x, q.format, **given, **words, out=codes)
    return values, codes


def over(shape: tuple[int, ...], place: tuple[slice, ...]) -> tuple[slice, ...]:
    """Return where in an array of this shape, which is broadcast to that of another, the piece of that one lies at `place`."""
    last = place[len(place) - len(shape) :]
    return tuple(slice(0, 1) if size == 1 else part for size, part in zip(shape, last, strict=True))


def refuse_words(words: Any, x: Any) -> None:
    """Refuse words that do not broadcast to the shape of `x`."""
    with contextlib.suppress(ValueError):
        if np.broadcast_shapes(words.shape, x.shape) == x.shape:
            return
    raise InputError(f"rbits of shape {words.shape} do not broadcast to the shape {x.shape} of x")


def refuse_nan(part: NDArray[Any], q: Quantizer, place: tuple[slice, ...]) -> None:
    """Refuse a NaN in a piece where the format says that it is an error, by its place in the whole."""
    if q.format.nan_to == "error" and np.isnan(part).any():
        first = np.unravel_index(int(np.argmax(np.isnan(part))), part.shape)
        at = ", ".join(str(axis.start + k) for axis, k in zip(place, first, strict=True))
        raise InputError(f"x[{at}] is NaN, which has no place in {q.format}")


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


def random_bits(mode: Mode, n: int | None, dtype: np.dtype[Any]) -> int | None:
    """Return the number of random bits an element: as many as the input has, and 32 at least, unless the options say it."""
    if not mode.stochastic:
        return None
    return 8 * max(dtype.itemsize, 4) if n is None else n


def form(
    x: Any, kind: np.dtype[Any], q: Quantizer, *, codes: bool, packed: bool
) -> tuple[tuple[int, ...], np.dtype[Any]]:
    """Return the shape and type of the result."""
    from qsim.rounder import code_dtype

    if not codes:
        return x.shape, kind
    if not packed or not x.ndim:  # of a single number there is no row to pack, and packing says so
        return x.shape, code_dtype(q.format)
    return (*x.shape[:-1], -(-x.shape[-1] * q.format.bits // 8)), np.dtype(np.uint8)


@np.errstate(over="ignore", invalid="ignore")  # infinities and NaNs are results like any other
def count(
    x: NDArray[Any], s: NDArray[Any] | None, q: Quantizer, found: Any, tiny: NDArray[np.bool_] | None, *, coded: bool
) -> Counts:
    """Return the counts of the rounding of x / s, computed as for it, to `found`, which are values, or codes.

    `tiny` are zeros that were numbers before they were read. A large array is looked at in pieces.
    """
    from qsim.arrays import Counts, count_elements, quantize
    from qsim.scales import apply_scale

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
        some = None if tiny is None else (part != 0) | tiny[place]
        total += count_elements(part, y.astype(np.float64), values, q, some)
    return total


def decoding(args: argparse.Namespace, q: Quantizer, sizes: Sequence[int], *, scaled: bool) -> str:
    """Return the command that makes values of the codes; OUT stands for the file it writes."""
    words = ["qsim", "decode", args.output, "-f", q.format.name]
    if args.pack:
        words += ["--pack", *([args.pack] if args.pack != "little" else []), "--count", str(sizes[-1])]
    if scaled:
        words += ["--scales", args.scales or "SCALES"]
    if args.hex and not in_hex(args.output):
        words.append("--hex")
    return shlex.join([*words, "-o", "OUT"])


def summary(facts: Mapping[str, Any], q: Quantizer, s: NDArray[Any] | None) -> str:
    """Return the options in force, and the counts, for reading."""
    lines = [("read", f"{facts['input']}: {facts['elements']} elements ({shape(facts['shape'])}), {facts['dtype']}")]
    if facts.get("read_as_zero"):
        lines.append(("read as zero", f"{facts['read_as_zero']} that are smaller than the numbers of {facts['dtype']}"))
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
    lines.append(("written", f"{facts['output']}: {facts['holds']}{packed}, {facts['output_dtype']}"))
    if s is not None and "scales" in facts:
        lines.append(("", f"{facts['scales']}: scales ({shape(s.shape)}), {s.dtype}"))
    if facts["holds"] == "codes":
        lines.append(("read back by", facts["decode"]))
    return entries(lines)


def shape(sizes: Sequence[int]) -> str:
    """Return the shape of an array for reading."""
    return " x ".join(map(str, sizes)) or "a single number"
