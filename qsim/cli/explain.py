"""`qsim explain X -f FORMAT -r MODE`: one conversion, step by step, and the causes of a wrong answer."""

from __future__ import annotations

import argparse
import re
from fractions import Fraction
from typing import TYPE_CHECKING, Any

import numpy as np

from qsim.cli.quantize import OPTIONS, integer
from qsim.cli.show import HELP, plain
from qsim.cli.text import as_json
from qsim.errors import InputError
from qsim.files import hexadecimal
from qsim.formats import get_format
from qsim.rounding import mode_fields, split_spelling

if TYPE_CHECKING:
    from qsim.explain import Answer, Explanation

__all__ = ["add", "run"]

DIGITS = {4: "float16 or bfloat16", 8: "float32", 16: "float64"}
"""Which numbers have so many digits in hexadecimal."""

KEPT = ("--sr-bits", "--eps", "--saturation", "--ftz-in", "--ftz-out", "--nan")


def add(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments to its parser."""
    parser.description = (
        "Show how one number is rounded: bits, neighbours, the rule that decided. With --got, say whether an answer is right "
        "(exit 1 if not) and which known faults give it."
    )
    parser.add_argument(
        "x", metavar="X", help="a number: decimal, 0x1.8p-3, or 3e99999a with 0x before it, the bits of a float32"
    )
    parser.add_argument("-f", "--format", metavar="FORMAT", required=True, help=f"{HELP}; FORMAT:MODE says both")
    parser.add_argument("-r", "--rounding", metavar="MODE", help="rounding mode (default RNE); SRA(8) says N too")
    for flags, keyword, how, text in OPTIONS:
        if flags in KEPT:
            parser.add_argument(flags, dest=keyword, **how, help=text)
    parser.add_argument("--rbits", type=integer, metavar="R", help="the random word, decimal or 0x (default: any)")
    parser.add_argument("--dtype", choices=("float16", "bfloat16", "float32", "float64"),
                        help="the type of X (default float64, and by the number of digits for bits)")  # fmt: skip
    parser.add_argument("--got", metavar="ANSWER", help="what a quantizer returned: a code, 0x47, or a value, 0.3125")
    parser.add_argument("--json", action="store_true", help="print a JSON object")
    # argparse takes -1e-3 and -inf for options, as its own pattern of a negative number knows neither.
    parser._negative_number_matcher = re.compile(r"-(\d|\.\d|inf|nan)")  # noqa: SLF001
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Print the explanation; return 1 if the answer is wrong."""
    name, mode = (args.format, args.rounding) if args.rounding else split_spelling(args.format)
    fmt = get_format(name)
    given = {key: getattr(args, key) for _, key, _, _ in OPTIONS if getattr(args, key, None) is not None}
    fields = mode_fields(mode or "RNE")
    for key in given.keys() & fields.keys():
        if given[key] != fields[key]:
            raise InputError(f"{mode} says {key} = {fields[key]}, and --{key.replace('_', '-')} {given[key]}; drop one")
    got = None if args.got is None else answer(args.got)
    x = number(args.x, args.dtype)
    from qsim.explain import explain  # by which a refusal does not wait for it

    found = explain(x, fmt, **(given | fields), rbits=args.rbits, got=got)
    print(as_json(data(found)) if args.json else found)
    return 1 if found.right is False else 0


def number(text: str, dtype: str | None) -> Any:
    """Return the number that a text spells, as a scalar of `dtype`; raise `InputError` for another text."""
    if match := re.fullmatch(r"0x([\da-f_]+)", text, re.IGNORECASE):
        digits = match[1].replace("_", "")
        own = DIGITS.get(len(digits))
        if own is None:
            raise InputError(f"X = {text} has {len(digits)} digits; the bits of a number have 4, 8 or 16")
        name = dtype or own
        if name not in own.split(" or "):
            raise InputError(f"X = {text} is the bits of {own}; say so with --dtype")
        return np.array([int(digits, 16)], f"u{len(digits) // 2}").view(_type(name))[0]
    try:
        exact = hexadecimal(text) if re.fullmatch(r"[+-]?0x.*p.*", text, re.IGNORECASE) else Fraction(text)
        value = float(exact)
        if Fraction(value) != exact and dtype not in (None, "float64"):
            value = _odd(value, exact)
    except (ValueError, OverflowError, ZeroDivisionError):
        try:
            value = float(text)  # inf and nan
        except ValueError:
            raise InputError(
                f"X = {text!r} is no number; write a decimal, 0x1.8p-3, or the bits with 0x before them"
            ) from None
    with np.errstate(over="ignore", under="ignore"):
        return np.array([value]).astype(_type(dtype or "float64"))[0]


def _odd(value: float, exact: Fraction) -> float:
    """Return the float64 beside `exact` whose last bit is set, so that rounding it once more is rounding `exact` once."""
    if int(np.float64(value).view(np.uint64)) & 1:
        return value
    return float(np.nextafter(value, np.inf if exact > Fraction(value) else -np.inf))


def _type(name: str) -> Any:
    if name != "bfloat16":
        return np.dtype(name)
    try:
        import ml_dtypes
    except ModuleNotFoundError:
        raise InputError("bfloat16 numbers need ml_dtypes: pip install ml_dtypes") from None
    return np.dtype(ml_dtypes.bfloat16)


def answer(text: str) -> Answer:
    """Return a code, which begins with 0x, or a value."""
    try:
        if text[:2] not in ("0x", "0X"):
            return float(text)
        return float.fromhex(text) if "p" in text.lower() else int(text, 16)
    except (ValueError, OverflowError):
        raise InputError(f"--got {text}: give a code with 0x before it, as 0x47, or a value, as 0.3125") from None


def data(found: Explanation) -> dict[str, Any]:
    """Return an explanation as plain data; exact numbers are strings, "5/8", where no float64 is that."""
    case = found.case

    def end(neighbour: Any) -> Any:
        return None if neighbour is None else {"value": plain(neighbour.value), "code": neighbour.code}

    return {
        "x": plain(case.x), "x_type": None if case.number is None else case.number.name, "x_bits": case.pattern,
        "format": case.format.name, "mode": case.mode.name, "saturation": str(case.saturation), "sr_bits": case.sr_bits,
        "rbits": case.rbits, "eps": case.eps, "inner": end(found.inner), "outer": end(found.outer),
        "nu": None if found.nu is None else str(found.nu), "first_word": found.first_word, "rule": found.rule,
        "inequality": found.inequality, "away": found.away,
        "rounded": None if found.rounded is None else plain(found.rounded), "range": found.range, "code": found.code,
        "value": found.value, "got": case.got if not isinstance(case.got, Fraction) else str(case.got),
        "right": found.right, "causes": list(found.causes),
    }  # fmt: skip
