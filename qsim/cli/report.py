"""`qsim report [STUDY]`: run a study, render its result, and print a short summary; list and compare reports."""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import shlex
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from qsim.errors import InputError, shown
from qsim.interrupts import terminable
from qsim.verdicts import Outcome

if TYPE_CHECKING:
    from qsim.cli.progress import Tally
    from qsim.studies import Executor, Finished, Result, Study
    from qsim.studies.result import Claim
    from qsim.studies.run import Size

__all__ = ["add", "run"]

REPORTS = Path("qsim-reports")
STORE = "cells.sqlite"
"""Where finished cells are kept, in the folder of the report."""

PAGES = ("report.html", "report.md", "cells.csv", "provenance.json", "result.json")
"""What a report writes there, beside the files of `FOLDERS`."""

FOLDERS = ("figures", "failures")

MOST = 1024
"""The processes that may be asked for; each takes a hundred megabytes before it computes anything."""


def add(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments to its parser."""
    parser.description = (
        "Run a study and write its report: report.html, report.md, figures, result.json, cells.csv and provenance.json. "
        "Finished cells are kept in cells.sqlite beside them, and the same command goes on from there. "
        "Without a study, list those that there are."
    )
    parser.add_argument("study", nargs="*", metavar="STUDY", help="a study's name, or the path of a study.toml")
    parser.add_argument("--quick", action="store_true", help="a smaller grid and fewer draws: does it run?")
    parser.add_argument("--fresh", action="store_true", help="forget the cells that are kept, and start again")
    where = parser.add_mutually_exclusive_group()
    where.add_argument("--jobs", type=int, metavar="N", help="processes to use (default: one a core)")
    where.add_argument(
        "--dask",
        type=given,
        metavar="ADDRESS",
        help="compute on the Dask cluster whose scheduler is at tcp://HOST:PORT",
    )
    parser.add_argument(
        "-o", "--output", type=a_path, metavar="DIR", help="where to write (default: qsim-reports/STUDY)"
    )
    parser.add_argument("--minimal", action="store_true", help="with --init: without the comments")
    how = parser.add_mutually_exclusive_group()
    how.add_argument("--json", action="store_true", help="print a JSON object a cell, and the verdicts at the end")
    how.add_argument("--quiet", action="store_true", help="print nothing but errors")
    instead = parser.add_mutually_exclusive_group()
    instead.add_argument("--list", action="store_true", help="list the studies that come with qsim")
    instead.add_argument(
        "--diff", nargs=2, metavar=("A", "B"), type=Path,
        help="compare two results of a study, folders or result.json; exit 1 if a verdict differs",
    )  # fmt: skip
    instead.add_argument(
        "--index", type=Path, metavar="DIR", help="write DIR/index.html over the reports in the folders of DIR"
    )
    instead.add_argument("--init", type=a_path, metavar="DIR", help="write DIR/study.toml, a study to edit")
    instead.add_argument("--schema", action="store_true", help="print the JSON Schema of result.json")
    parser.set_defaults(run=run)


def given(text: str) -> str:
    """Return a text; one that is empty, as of a shell's variable that is not set, is none."""
    if not text:
        raise argparse.ArgumentTypeError("it is empty; leave the option out, or give it a value")
    return text


def a_path(text: str) -> Path:
    """Return a path."""
    return Path(given(text))


def run(args: argparse.Namespace) -> int:
    """Run the studies of the command line; return 1 if a verdict is other than expected, or a cell failed."""
    began = time.perf_counter()
    other = next((name for name in ("list", "diff", "index", "init", "schema") if getattr(args, name)), "")
    if other and args.study:
        raise InputError(f"--{other} takes no study; leave {args.study[0]!r} out")
    if args.minimal and other != "init":
        raise InputError("--minimal says how --init writes a study; give --init DIR, or leave it out")
    if other == "init":
        from qsim.studies.template import begin

        path = begin(args.init, minimal=args.minimal)
        print(f"{path}\n\nEdit it, then: qsim report {shlex.quote(str(path))}")
        return 0
    if other == "diff":
        return compare(*args.diff, as_json=args.json)
    if other == "index":
        return index(args.index)
    if other == "schema":
        from qsim.studies.schema import schema

        print(json.dumps(schema(), indent=1))
        return 0
    from qsim.processes import cores
    from qsim.studies import available, find

    if not args.study:
        return list_studies({name: find(name).title for name in available()}, as_json=args.json)
    if args.jobs is not None and not 1 <= args.jobs <= MOST:
        raise InputError(f"--jobs {args.jobs}: give 1 to {MOST} processes")
    if args.output and len(args.study) > 1:
        raise InputError("-o names the folder of one report; give one study, or leave it out")
    studies = [find(name) for name in args.study]
    names = [folder_of(study).name for study in studies]
    twice = next((name for name in names if names.count(name) > 1), "")
    if twice:
        raise InputError(
            f"two of the studies are called {twice!r}, and would be written to one folder; give each its own -o"
        )
    if not args.output:
        from qsim.report.index import is_ours

        if not is_ours(REPORTS / "index.html"):
            raise InputError(
                f"{REPORTS / 'index.html'} is there, and is no index of qsim's; move it away, or name a folder with -o"
            )
    jobs = 0 if args.dask else args.jobs or cores()
    if sys.stderr.isatty() and not (args.json or args.quiet):  # before libraries are loaded, which takes seconds
        print(f"{', '.join(names)}: planning", file=sys.stderr, flush=True)
    with terminable(), warmed(studies, jobs):
        results = run_all(studies, jobs, args, began)
    if not args.output:
        import qsim.report

        try:
            qsim.report.write_index(REPORTS)
        except OSError as error:
            print(
                f"qsim: {REPORTS / 'index.html'}: cannot be written ({error.strerror}); the reports are",
                file=sys.stderr,
            )
    expected = all(as_expected(claim, quick=args.quick) for result in results for claim in result.claims)
    return 0 if expected and not any(result.failures for result in results) else 1


def run_all(studies: Sequence[Study], jobs: int, args: argparse.Namespace, began: float) -> list[Result]:
    """Run studies one after another, once all of them can be planned, and return their results."""
    from qsim.studies import Dask, check, needs

    size: Size = "quick" if args.quick else "full"
    with contextlib.redirect_stdout(sys.stderr):  # a model of the user's may print
        for study in studies:
            check(study)
        memory = max(needs(study, size) for study in studies) if jobs else 0
    results = []
    with executor(args.dask, jobs, memory, quiet=args.quiet) as chosen:
        if isinstance(chosen, Dask):
            for study in studies:
                needs(study, size, chosen.memory)
        folders = [args.output or folder_of(study) for study in studies]
        for study, folder in zip(studies, folders, strict=True):
            refuse_another(folder, study)
        for folder in folders:
            prepared(folder)
        for study, folder in zip(studies, folders, strict=True):
            results.append(report(study, folder, chosen, args, began))
            began = time.perf_counter()
    return results


def folder_of(study: Study) -> Path:
    """Return the folder of a report: qsim-reports/STUDY, and of the study a/my/study.toml qsim-reports/a-my."""
    folder = study.path.parent
    if folder.is_absolute() or study.path.name != "study.toml" or not place_of(study, folder):
        return REPORTS / study.name
    above = [part for part in folder.parts[:-1] if part != ".."]
    return REPORTS / "-".join((*above, study.name))


def warmed(studies: Sequence[Study], jobs: int) -> contextlib.AbstractContextManager[None]:
    """Let processes start while this one plans."""
    from qsim.studies import Processes
    from qsim.studies.study import KINDS

    return Processes(jobs).warm(KINDS[studies[0].kind]) if jobs > 1 else contextlib.nullcontext()


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
    print("\nqsim report STUDY runs one; --quick shows in a minute whether it runs. --init DIR writes one to edit.")
    return 0


def prepared(folder: Path) -> Path:
    """Make `folder` and see that it can be written before an hour of work goes into it."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise InputError(f"{folder}: cannot be written ({error.strerror}); name another folder with -o") from None
    return folder


def refuse_another(folder: Path, study: Study) -> None:
    """Refuse a folder in which the report would take the place of something else than an earlier report on this study."""
    for name in (*PAGES, STORE, *FOLDERS):
        path = folder / name
        if os.path.lexists(path) and not (path.is_dir() if name in FOLDERS else path.is_file()):
            kind = "folder" if name in FOLDERS else "file"
            raise InputError(f"{path} is there and is no {kind}; move it away, or name another folder with -o")
    there = next((folder / name for name in PAGES if (folder / name).exists()), None)
    if there is None:
        return
    other, file = read_json(folder / "result.json").get("study"), read_json(folder / "provenance.json").get("file")
    if not isinstance(other, str):
        if not (folder / STORE).is_file():
            raise InputError(f"{there} is there, and is no part of a report of qsim's; name another folder with -o")
    elif other != study.name:
        raise InputError(f"{folder} holds the report on the study {shown(other)}; name another folder with -o")
    elif isinstance(file, str) and file != place_of(study, folder) and (folder / file).exists():
        which = os.path.normpath(folder / file) if file else "the one that comes with qsim"
        raise InputError(
            f"{folder} holds the report on another study of that name, {which}; name another folder with -o"
        )


def read_json(path: Path) -> dict[str, Any]:
    """Return the object that a file holds; an empty one if it holds none or cannot be read."""
    from qsim.files import read_text
    from qsim.studies.result import LARGEST

    try:
        plain = json.loads(read_text(path, LARGEST))
    except (ValueError, RecursionError, MemoryError):
        return {}
    return plain if isinstance(plain, dict) else {}


def place_of(study: Study, folder: Path) -> str:
    """Return where a study's file lies, as seen from the folder of its report; "" for one that comes with qsim."""
    from qsim.studies import available

    file, known = study.path.resolve(), available().get(study.name)
    return "" if known and known.resolve() == file else os.path.relpath(file, folder.resolve())


@contextlib.contextmanager
def executor(dask: str | None, jobs: int, memory: int, *, quiet: bool) -> Iterator[Executor]:
    """Open the executor of the cells: a cluster, or as many processes as are wanted and as there is memory for."""
    from qsim.studies import Dask, Here, Processes
    from qsim.studies.machine import memory as available

    if dask:
        cluster = Dask(dask)
        try:
            yield cluster
        finally:
            cluster.close()
        return
    fit = int(max(1, min(jobs, available().free // max(memory, 1))))
    if fit < jobs and not quiet:
        print(f"{fit} processes of {jobs}, for a cell may need {memory / 2**30:.1f} GiB of memory", file=sys.stderr)
    yield Processes(fit) if fit > 1 else Here()


def report(study: Study, folder: Path, executor: Executor, args: argparse.Namespace, began: float) -> Result:
    """Run one study, write its report to `folder`, and print the verdicts."""
    import qsim.report
    import qsim.studies
    from qsim.files import remove_unfinished

    watch = watcher(study.name, args)
    with qsim.studies.Store(folder / STORE) as store:
        for place in (folder, *(folder / name for name in FOLDERS)):
            remove_unfinished(place)  # what a killed run left
        if args.fresh:
            store.clear()
        try:
            with explained(folder), contextlib.redirect_stdout(sys.stderr):
                finished = qsim.studies.run(
                    study, "quick" if args.quick else "full", executor=executor, store=store, watch=watch
                )
        except KeyboardInterrupt:
            kept = f"{watch.finished} of {watch.cells} cells" if watch.cells else "the cells finished before"
            print(
                f"qsim: stopped; {kept} are kept in {folder / STORE}, and the same command goes on from them",
                file=sys.stderr,
            )
            raise
        with told(folder), explained(folder):
            written = qsim.report.write(finished.result, folder, beside(study, folder, finished, began, args.argv))
    tell(study, finished, folder, written["report.html"], args)
    return finished.result


def watcher(name: str, args: argparse.Namespace) -> Tally:
    """Return the progress display of the run."""
    from qsim.cli.progress import Bars, JsonLines, Lines, Tally

    if args.json:
        return JsonLines()
    if args.quiet:
        return Tally()
    return Bars(name) if sys.stderr.isatty() else Lines(name)


def beside(
    study: Study, folder: Path, finished: Finished, began: float, argv: Sequence[str]
) -> Callable[[], Mapping[str, str]]:
    """Return a function that makes the files of this run alone: its provenance, and tracebacks."""
    from qsim.studies.machine import provenance

    def files() -> Mapping[str, str]:
        facts = provenance(study, finished, shlex.join(["qsim", *argv]), time.perf_counter() - began)
        facts["file"] = place_of(study, folder)
        return {**finished.traces, "provenance.json": json.dumps(facts, indent=1, allow_nan=False) + "\n"}

    return files


def tell(study: Study, finished: Finished, folder: Path, page: Path, args: argparse.Namespace) -> None:
    """Print the result."""
    result = finished.result
    if args.json:
        verdicts = {claim.id: {"expected": claim.expected, "outcome": claim.outcome} for claim in result.claims}
        told = {"study": study.name, "run": result.run, "folder": str(folder), "claims": verdicts}
        print(json.dumps({**told, "failed": [failure.label for failure in result.failures]}))
        return
    if args.quiet:
        return
    from rich.console import Console

    import qsim.report

    Console().print(qsim.report.summary(result))
    print(f"\n{page}")


@contextlib.contextmanager
def told(folder: Path) -> Iterator[None]:
    """Say in a sentence that a file could not be written."""
    try:
        yield
    except FileExistsError as error:
        raise InputError(
            f"{error.filename} {error.strerror}; the cells are kept, and the same command writes the report once it is gone"
        ) from None
    except OSError as error:
        raise InputError(
            f"{folder}: the report cannot be written ({error.strerror}); the cells are kept, and the same command writes it "
            "once there is room"
        ) from None


@contextlib.contextmanager
def explained(folder: Path) -> Iterator[None]:
    """Say in a sentence that the cells could not be made a report of, and leave the traceback: a fault of ours, not theirs."""
    from qsim.files import whole
    from qsim.report import is_trace
    from qsim.studies.result import TRACE

    try:
        yield
    except (InputError, OSError):
        raise
    except Exception as error:  # noqa: BLE001 - a fault of ours must not take a week's cells with it
        trace = folder / "failures" / "report.txt"
        if trace.exists() and not is_trace(trace):  # of somebody else
            trace = trace.with_name("report-of-qsim.txt")
        trace.parent.mkdir(exist_ok=True)
        with whole(trace) as file:
            file.write(f"{TRACE}\n\n{traceback.format_exc()}".encode(errors="backslashreplace"))
        reason = " ".join(f"{type(error).__name__}: {error}".split())
        raise InputError(
            f"{folder}: no report could be made ({reason}); the cells that finished are kept, and {trace} says more, which "
            "please report as a fault of qsim"
        ) from None


def compare(a: Path, b: Path, *, as_json: bool) -> int:
    """Print the differences between two results of one study; return 1 if a verdict does."""
    import qsim.report

    found = qsim.report.difference(loaded(a), loaded(b))
    print(json.dumps(found.plain(), indent=1) if as_json else found.text(str(a), str(b)))
    return 1 if found.verdicts else 0


def loaded(path: Path) -> Result:
    """Return the result in a folder, or in a file; raise `InputError` if there is none."""
    from qsim.studies.result import read_result

    try:
        return read_result(path / "result.json" if path.is_dir() else path)
    except InputError as error:
        raise InputError(f"{error}; give the folder of a report") from None


def index(folder: Path) -> int:
    """Write an index over the reports in the folders of `folder`."""
    import qsim.report

    if not folder.is_dir():
        raise InputError(f"{folder} is no folder; give the one that holds the folders of reports")
    with told(folder):
        print(qsim.report.write_index(folder))
    return 0
