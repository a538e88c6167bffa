"""The `qsim` command: one argparse tree, one file a command.

The file of a command has `add(parser)`, which adds its arguments, and `run(args)`, which returns the exit code.
"""

from __future__ import annotations

import argparse
import importlib
import io
import os
import re
import sys
from collections.abc import Mapping, Sequence
from typing import Any, NoReturn

import qsim
from qsim.errors import InputError, close_names, enumerate_names, nearest
from qsim.underflow import gradual_underflow

__all__ = ["main", "options_of"]

EPILOG = """\
exit codes: 0 done, and every verdict as expected; 1 a mismatch, or another verdict;
2 bad usage or input. Every command takes --json."""

COMMANDS: Mapping[str, str] = {
    "formats": "list the number formats",
    "show": "show one format, and its values",
    "plot": "draw the values of formats on a number line",
    "models": "list the converters of other packages",
    "quantize": "round the numbers of a file",
    "decode": "return codes of a file to values",
    "explain": "show how one number is rounded, and what a wrong answer comes from",
    "vectors": "write inputs and right answers of a converter for a bench",
    "check": "hold a device's answers to a converter",
    "identify": "say which converter, or which fault, answers come from",
    "rtl-spec": "write a converter as a table in Verilog or C",
    "dpi": "write a converter in C, and what imports it by DPI",
    "prove": "check the theorems",
    "report": "run a study and write its report",
    "completion": "print what completes command lines in bash, zsh or fish",
}
"""Each command in a line; its file is imported only where it is named, for the libraries of the others take long."""

OTHERS: Mapping[str, str] = {
    "compare": "`qsim report --diff A B` compares two results, and `qsim show FORMAT` shows a format",
    "convert": "did you mean quantize?",
    "encode": "`qsim quantize --codes` writes codes, and in Python qsim.encode(x, FORMAT, MODE) returns them",
    "info": "did you mean show?",
    "list": "did you mean formats, models or report?",
    "pack": "`qsim quantize --codes --pack` does that, and in Python qsim.pack(codes, FORMAT)",
    "round": "did you mean quantize?",
    "study": "did you mean report?",
    "test": "in Python, qsim.testing.check_quantizer(function, FORMAT, MODE) does that",
    "train": "`qsim report` runs studies, and in Python qsim.numerics and qsim.value_and_grad train",
    "unpack": "`qsim decode --pack --count N --codes` does that, and in Python qsim.unpack(data, FORMAT, N)",
    "verify": "did you mean prove? In Python, qsim.testing.check_quantizer(function, FORMAT, MODE) tests a function",
}
"""What a word that is no command may have been meant for."""

KINDS: Mapping[str, str] = {
    "int": "an integer",
    "integer": "an integer, decimal or 0x hexadecimal",
    "float": "a number",
    "skipped": "a number of lines",
}
"""What an option takes, by the name of the function that reads it."""


class Parser(argparse.ArgumentParser):
    """Treat bad usage as bad input: one sentence, and no abbreviated options that a later option could take away."""

    def __init__(self, **options: Any) -> None:
        super().__init__(allow_abbrev=False, **options)

    def error(self, message: str) -> NoReturn:
        """Refuse the command line."""
        raise InputError(f"{self._said(message)}; `{self.prog} --help` shows how it is used")

    def _said(self, message: str) -> str:
        """Return a sentence of argparse in the words of the other errors."""
        if message.startswith("the following arguments are required: "):
            return f"missing: {message.partition(': ')[2]}"
        found = re.fullmatch(r"argument (\S+): (.*)", message, re.DOTALL)
        action = next((one for one in self._actions if found and found[1] in _names(one)), None)
        if found is None or action is None:
            return message
        name, problem = (action.option_strings or [found[1]])[-1], found[2]
        values = [action.metavar] if isinstance(action.metavar, str) else list(action.metavar or ())
        if problem.startswith("expected"):
            count = {1: "a value"}.get(len(values), f"{len(values)} values")
            return f"{name} needs {count}: {' '.join([name, *values])}" if values else f"{name} needs a value"
        if match := re.fullmatch(r"invalid (\w+) value: (.*)", problem, re.DOTALL):
            return f"{name} takes {KINDS.get(match[1], 'another value')}, not {match[2]}"
        if action.choices and (match := re.match(r"invalid choice: (.*) \(choose", problem, re.DOTALL)):
            return f"{name} is {enumerate_names(map(str, action.choices))}, not {match[1]}"
        if match := re.fullmatch(r"not allowed with argument (\S+)", problem):
            return f"{name} and {match[1].rpartition('/')[2]} exclude each other; give one of them"
        if match := re.fullmatch(r"ignored explicit argument (.*)", problem, re.DOTALL):
            return f"{name} takes no value, not {match[1]}"
        return f"{name}: {problem}"


def _names(action: argparse.Action) -> tuple[str, ...]:
    """Return how argparse may name an argument in a sentence."""
    return "/".join(action.option_strings), str(action.metavar), action.dest


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line `argv` (by default that of the process) and return its exit code."""
    try:
        _prepare_output()
        code = _run(sys.argv[1:] if argv is None else argv)
        print(end="", flush=True)  # so that a reader who has gone away is noticed here
    except InputError as error:
        return _refuse(str(error))
    except KeyboardInterrupt:
        return 130  # as a shell reports a process that SIGINT ended
    except BrokenPipeError:
        _drop_output()
        return 141  # likewise SIGPIPE: `qsim formats | head -1` is no error
    except MemoryError:
        return _refuse("there is not enough memory; give it less to do, or raise the limit (ulimit -v)")
    except OSError as error:
        _drop_output()
        reason = error.strerror or str(error)
        return _refuse(str(InputError(f"{error.filename}: {reason}" if error.filename else reason)))
    return code


@gradual_underflow
def _run(argv: Sequence[str]) -> int:
    argv = _without_help(argv)
    parser = Parser(
        prog="qsim", description="Bit-accurate low-precision arithmetic, with proofs.", epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    parser.add_argument("--version", action="version", version=f"qsim {qsim.__version__}")
    subparsers = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    named = next((word for word in argv if not word.startswith("-")), "")  # no option before it takes a value
    for name, line in COMMANDS.items():
        command = subparsers.add_parser(name, help=line)
        if name == named:
            importlib.import_module(f"qsim.cli.{name.replace('-', '_')}").add(command)
    if not argv:
        parser.print_help()
        return 2
    if not argv[0].startswith("-") and argv[0] not in COMMANDS:
        raise InputError(f"no command is called {argv[0]!r}; {_elsewhere(argv[0])}")
    args, rest = parser.parse_known_args(argv)
    if rest:
        chosen = subparsers.choices[args.command]
        if not rest[0].startswith("-"):
            raise InputError(
                f"{chosen.prog} does not take {rest[0]!r} here; `{chosen.prog} --help` shows how it is used"
                if args.command != "formats"
                else f"qsim formats does not take {rest[0]!r}, for it lists all; `qsim show {rest[0]}` shows one"
            )
        options = nearest(rest[0], re.findall(r"--[a-z-]+", chosen.format_usage()))
        raise InputError(f"{chosen.prog} does not take {rest[0]!r}; did you mean {options}?")
    args.argv = argv
    code: int = args.run(args)
    return code


def options_of(name: str) -> list[str]:
    """Return the options of a command, as its parser has them."""
    parser = Parser(prog=f"qsim {name}")
    importlib.import_module(f"qsim.cli.{name.replace('-', '_')}").add(parser)
    return sorted(option for action in parser._actions for option in action.option_strings)  # noqa: SLF001


def _without_help(argv: Sequence[str]) -> Sequence[str]:
    """Return the options that `qsim help [COMMAND]` and `qsim version` stand for; any other command line as it is."""
    match list(argv):
        case ["version"]:
            return ["--version"]
        case ["help", *words] if len(words) <= 1:
            return [*words, "--help"]
    return argv


def _elsewhere(word: str) -> str:
    """Suggest commands for a word that is none."""
    near = close_names(word, COMMANDS)
    if word.casefold() in OTHERS and word.casefold() not in near:
        return OTHERS[word.casefold()]
    return f"did you mean {enumerate_names(near)}?" if near else "`qsim help` lists the commands"


def _prepare_output() -> None:
    """See that whatever will be printed can be, before any work is done; refuse a standard output that is closed."""
    if sys.stderr is None:
        sys.stderr = io.StringIO()  # else print() would take standard output in its place
        _occupy(2)
    if sys.stdout is None:
        raise InputError(
            "standard output is closed, so that what is printed would be lost; use >/dev/null if that is meant"
        )
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # the names of files and formats may hold any character


def _occupy(number: int) -> None:
    """See that no file which is opened gets the number of a closed standard stream, where processes write their errors."""
    try:
        os.fstat(number)
    except OSError:
        os.dup2(os.open(os.devnull, os.O_RDWR), number)
        os.set_inheritable(number, True)


def _refuse(sentence: str) -> int:
    # A name may hold what would begin a new line, or command the terminal.
    shown = "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in sentence)
    print(f"qsim: {shown}", file=sys.stderr)
    return 2


def _drop_output() -> None:
    """Point standard output at nothing, or the interpreter's own flush at exit would fail once more, aloud."""
    stdout = sys.__stdout__
    if stdout is not None and sys.stdout is stdout:  # else somebody else holds it, and closes it as they see fit
        os.dup2(os.open(os.devnull, os.O_WRONLY), stdout.fileno())
