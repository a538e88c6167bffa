"""`qsim report [STUDY]`: run a study, render what it found, and print a short summary."""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from qsim.errors import InputError
from qsim.verdicts import Outcome

if TYPE_CHECKING:
    from qsim.studies import Result, Study
    from qsim.studies.result import Claim

__all__ = ["add", "run"]


def add(parser: argparse.ArgumentParser) -> None:
    """Say what the command takes."""
    parser.description = (
        "Run a study and write its report: report.html, report.md, result.json and figures. "
        "Without a study, list those that there are."
    )
    parser.add_argument("study", nargs="*", metavar="STUDY", help="a study's name, or the path of a study.toml")
    parser.add_argument("--quick", action="store_true", help="a smaller grid and fewer draws: does it run?")
    parser.add_argument("--jobs", type=int, metavar="N", help="processes to use (default: one a core)")
    parser.add_argument("-o", "--output", type=Path, metavar="DIR", help="where to write (default: qsim-reports/STUDY)")
    parser.add_argument("--json", action="store_true", help="print the verdicts as JSON instead of a summary")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Run the studies of the command line; return 1 if a verdict is other than expected."""
    from qsim.studies import available, check, find

    if not args.study:
        return list_studies({name: find(name).title for name in available()}, as_json=args.json)
    if args.jobs is not None and args.jobs < 1:
        raise InputError(f"--jobs {args.jobs}: give at least 1 process")
    if args.output and len(args.study) > 1:
        raise InputError("-o names the folder of one report; give one study, or leave it out")
    studies = [find(name) for name in args.study]
    for study in studies:
        check(study)
    folders = [prepared(args.output or Path("qsim-reports") / study.name) for study in studies]
    results = [
        report(study, folder, quick=args.quick, jobs=args.jobs, as_json=args.json)
        for study, folder in zip(studies, folders, strict=True)
    ]
    return 0 if all(as_expected(claim, quick=args.quick) for result in results for claim in result.claims) else 1


def as_expected(claim: Claim, *, quick: bool) -> bool:
    """Return whether a verdict is the one expected; a quick run may leave it undecided, since it has not the draws."""
    return claim.outcome is claim.expected or (quick and claim.outcome is Outcome.NOT_DECIDED)


def list_studies(titles: dict[str, str], *, as_json: bool) -> int:
    """Print the studies that come with qsim."""
    if as_json:
        print(json.dumps([{"study": name, "title": title} for name, title in titles.items()], indent=1))
        return 0
    width = max(map(len, titles), default=0)
    for name, title in titles.items():
        print(f"{name:{width}}  {title}")
    print("\nqsim report STUDY runs one; --quick shows in a minute whether it runs.")
    return 0


def prepared(folder: Path) -> Path:
    """Make `folder` and see that it can be written before an hour of work goes into it."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        probe = folder / f".qsim-{os.getpid()}"
        probe.touch()
        probe.unlink()
    except OSError as error:
        raise InputError(f"{folder}: cannot be written ({error.strerror}); name another folder with -o") from None
    return folder


def report(study: Study, folder: Path, *, quick: bool, jobs: int | None, as_json: bool) -> Result:
    """Run one study, write its report to `folder`, and print the verdicts."""
    import qsim.report
    import qsim.studies

    with progress(study.name) as start:
        result = qsim.studies.run(study, "quick" if quick else "full", jobs=jobs, start=start)
    try:
        written = qsim.report.write(result, folder)
    except OSError as error:
        raise InputError(f"{folder}: the report cannot be written ({error.strerror}); name another with -o") from None
    if as_json:
        verdicts = {claim.id: {"expected": claim.expected, "outcome": claim.outcome} for claim in result.claims}
        print(json.dumps({"study": study.name, "run": result.run, "folder": str(folder), "claims": verdicts}, indent=1))
        return result
    from rich.console import Console

    Console().print(qsim.report.summary(result))
    print(f"\n{written['report.html']}")
    return result


@contextmanager
def progress(name: str) -> Iterator[Callable[[float], Callable[[float], None]]]:
    """Show a progress bar with the time left on stderr while the body runs; a line at either end if it is no terminal."""
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        Progress,
        TaskProgressColumn,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    console = Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), TaskProgressColumn(), TimeElapsedColumn(),
               TextColumn("left:"), TimeRemainingColumn())  # fmt: skip
    if not console.is_terminal:
        print(f"{name}: running", file=sys.stderr)
    with Progress(*columns, console=console, disable=not console.is_terminal) as bar:

        def start(total: float) -> Callable[[float], None]:
            task = bar.add_task(name, total=total)
            return lambda done: bar.advance(task, done)

        yield start
