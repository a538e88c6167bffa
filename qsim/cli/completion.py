"""`qsim completion bash|zsh|fish`: a script that completes command lines, made from the parsers; it needs no library.

Scripts hold the words themselves, so that a press of the tab key starts no process.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterable

from qsim import cli
from qsim.cli.text import as_json
from qsim.formats import catalogue, variants
from qsim.rounding import SPELLINGS

__all__ = ["add", "run"]

BASH = """\
# Completion of qsim: eval "$(qsim completion bash)"
_qsim() {
  local word=${COMP_WORDS[COMP_CWORD]} last=${COMP_WORDS[COMP_CWORD-1]} words
  case $COMP_CWORD:$last in
    1:*) words="%(commands)s" ;;
    *:-f|*:--format|*:show|*:plot) words="%(formats)s" ;;
    *:-r|*:--rounding) words="%(modes)s" ;;
    *:help) words="%(commands)s" ;;
    *) words= ;;
  esac
  if [[ $word == -* ]]; then
    case ${COMP_WORDS[1]} in
%(cases)s
    esac
  fi
  COMPREPLY=($(compgen -W "$words" -- "$word"))
}
complete -o default -F _qsim qsim"""

ZSH = """\
# Completion of qsim: eval "$(qsim completion zsh)"
autoload -Uz compinit bashcompinit && compinit && bashcompinit
%(bash)s"""

SHELLS = ("bash", "zsh", "fish")


def add(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments to its parser."""
    parser.description = (
        'Print a script that completes commands, options, formats and modes: eval "$(qsim completion bash)".'
    )
    parser.add_argument(
        "shell", metavar="SHELL", choices=SHELLS, help="bash, zsh or fish (qsim completion fish | source)"
    )
    parser.add_argument("--json", action="store_true", help="print the words as a JSON object")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Print the script."""
    options = {name: cli.options_of(name) for name in cli.COMMANDS}
    formats = sorted({*catalogue(), *(alias for fmt in catalogue().values() for alias in fmt.aliases)})
    formats += sorted(
        {f"{base}@{variant.name}" for variant in variants() for base in variant.of if base in catalogue()}
    )
    if args.json:
        print(as_json({"commands": options, "formats": formats, "modes": list(SPELLINGS)}))
    else:
        print((fish if args.shell == "fish" else bash)(options, formats, SPELLINGS, args.shell))
    return 0


def bash(options: dict[str, list[str]], formats: Iterable[str], modes: Iterable[str], shell: str) -> str:
    """Return the script for bash; that of zsh is the same, for zsh reads it."""
    script = BASH % {
        "commands": " ".join(options), "formats": " ".join(formats), "modes": " ".join(modes),
        "cases": "\n".join(f'      {name}) words="{" ".join(words)}" ;;' for name, words in options.items()),
    }  # fmt: skip
    return script if shell == "bash" else ZSH % {"bash": script}


def fish(options: dict[str, list[str]], formats: Iterable[str], modes: Iterable[str], _: str) -> str:
    """Return the script for fish."""
    lines = ["# Completion of qsim: qsim completion fish | source"]
    for name, words in options.items():
        lines.append(f"complete -c qsim -n __fish_use_subcommand -a {name} -d '{cli.COMMANDS[name]}'")
        here = f"complete -c qsim -n '__fish_seen_subcommand_from {name}'"
        for word in words:
            flag = f"-l {word[2:]}" if word.startswith("--") else f"-s {word[1:]}"
            values = {"--format": formats, "-f": formats, "--rounding": modes, "-r": modes}.get(word)
            lines.append(f"{here} {flag}" + (f" -x -a '{' '.join(values)}'" if values else ""))
        if name in ("show", "plot"):
            lines.append(f"{here} -a '{' '.join(formats)}'")
    return "\n".join(lines)
