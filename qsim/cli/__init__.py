"""The `qsim` command: one argparse tree, one file a command.

The file of a command has `add(parser)`, which says what it takes, and `run(args)`, which returns the exit code.
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
from qsim.errors import InputError, nearest
from qsim.underflow import gradual_underflow

__all__ = ["main"]

EPILOG = """\
exit codes: 0 done, and every verdict as expected; 1 a mismatch, or another verdict;
2 bad usage or input. Every command takes --json."""

COMMANDS: Mapping[str, str] = {
    "formats": "list the number formats",
    "show": "show one format, and its values",
    "plot": "draw the values of formats on a number line",
    "models": "list the converters of other packages",
    "quantize": "round the numbers of a file",
    "prove": "check the theorems",
    "report": "run a study and write its report",
}
"""Each command in a line; its file is imported only where it is named, for the libraries of the others take long."""


class Parser(argparse.ArgumentParser):
    """Treat bad usage as bad input: one sentence, and no abbreviated options that a later option could take away."""

    def __init__(self, **options: Any) -> None:
        super().__init__(allow_abbrev=False, **options)

    def error(self, message: str) -> NoReturn:
        """Refuse the command line."""
        raise InputError(f"{message}; `{self.prog} --help` shows how it is used")


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
            importlib.import_module(f"qsim.cli.{name}").add(command)
    if not argv:
        parser.print_help()
        return 2
    if not argv[0].startswith("-") and argv[0] not in COMMANDS:
        raise InputError(f"no command is called {argv[0]!r}; did you mean {nearest(argv[0], COMMANDS)}?")
    args, rest = parser.parse_known_args(argv)
    if rest:
        chosen = subparsers.choices[args.command]
        options = nearest(rest[0], re.findall(r"--[a-z-]+", chosen.format_usage()))
        raise InputError(f"{chosen.prog} does not take {rest[0]!r}; did you mean {options}?")
    args.argv = argv
    code: int = args.run(args)
    return code


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
    """See that no file which is opened gets the number of a closed standard stream, where processes write what goes wrong."""
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
