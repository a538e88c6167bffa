"""Measure how fast qsim is beside a copy and other packages, and write the table: `python benchmarks`.

    python benchmarks [--only ROW ...] [--full] [--quick] [--list] [--render] [-o FOLDER]

It writes `results.json`, a suite of pyperf (`python -m pyperf show` reads it), the page `results.md`, and its chart
`results.svg`. Rows that are measured take the place of those that were; a quick run, which shows only that everything
runs, writes `quick.json` and so on. Packages that are not installed are left out; `tox -e bench` installs them.
"""

from __future__ import annotations

import contextlib
import fnmatch
import importlib.metadata
import io
import os
import sys
import tempfile
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import llvmlite.binding
import numpy as np
import psutil
import pyperf
from threadpoolctl import threadpool_limits

import page
import qsim
from page import FACTS
from qsim.cli import Parser
from qsim.errors import InputError, enumerate_names, nearest
from qsim.files import whole
from rows import ROWS, Measure, Row
from work import Call, Data

LEAST, MOST = 7, 41
"""Rounds of a row, each of which times every candidate once."""
ENOUGH = 10.0
"""Seconds of a row after which the least number of rounds is enough."""
REST = 0.02
"""Seconds that the threads of others are given to come to rest."""
SHORT = 0.005
"""Seconds that a timing takes at least: shorter calls are repeated."""
QUICK = 1 << 14
"""Elements of a row in a quick run, at most."""
REFUSED = ("OPENBLAS_CORETYPE", "OPENBLAS_L2_SIZE")
"""They choose other kernels of OpenBLAS than this machine's."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line `argv`; return 0, or 2 where it is refused."""
    try:
        return run(sys.argv[1:] if argv is None else argv)
    except InputError as error:
        print(f"benchmarks: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130


def run(argv: Sequence[str]) -> int:
    """Measure the rows that are asked for, and write the page."""
    parser = Parser(prog="python benchmarks", description=__doc__.splitlines()[0])
    parser.add_argument("--only", nargs="+", metavar="ROW", help="these rows, by name or pattern (`sr-*`)")
    parser.add_argument("--full", action="store_true", help="the longest rows too, of up to 2^30 elements")
    parser.add_argument("--quick", action="store_true", help="small arrays and few rounds: shows that everything runs")
    parser.add_argument("--list", action="store_true", help="name the rows and their goals, and measure nothing")
    parser.add_argument(
        "--render", action="store_true", help="write the page of the results that are there, and measure nothing"
    )
    parser.add_argument("-o", "--output", type=Path, default=Path(__file__).parent, metavar="FOLDER",
                        help="where the results are (default: beside this script)")  # fmt: skip
    args = parser.parse_args(argv)
    chosen = named(args.only) if args.only else [row for row in ROWS.values() if args.full or not row.long]
    if args.list:
        for row in chosen:
            print(f"{row.name:28} {page.goal(row):>12}  {row.what}")
        return 0
    stem = "quick" if args.quick else "results"
    if args.render:
        write(load(args.output / f"{stem}.json"), args.output, stem)
        return 0
    for name in REFUSED:
        if name in os.environ:
            raise InputError(f"{name} is set, and chooses kernels of OpenBLAS that are not this machine's; unset it")
    args.output.mkdir(parents=True, exist_ok=True)
    machine = facts() | ({"quick": "yes"} if args.quick else {})
    found = earlier(args.output / f"{stem}.json", machine, partial=args.only is not None)
    try:
        for row in chosen:
            measured, notes = measure(row, row.elements, quick=args.quick)
            for note in notes:
                print(f"{row.name}: {note}", flush=True)
            if measured:
                found[row.name] = [one for name, about in measured.items() for one in kept(row, name, *about, machine)]
                print(f"{row.name}: {page.line(row, in_order(found))}", flush=True)
    finally:  # an interrupt loses the row that it interrupts, and no other
        if found:
            write(in_order(found), args.output, stem)
    print(args.output / f"{stem}.md")
    return 0


def in_order(found: Mapping[str, list[pyperf.Benchmark]]) -> pyperf.BenchmarkSuite:
    """Return the suite of the rows that were measured, as in the table."""
    return pyperf.BenchmarkSuite([one for name in ROWS for one in found.get(name, ())])


def named(patterns: Sequence[str]) -> list[Row]:
    """Return the rows that have these names, or names of these patterns, and what they stand beside, as in the table."""
    for pattern in patterns:
        if not fnmatch.filter(ROWS, pattern):
            raise InputError(f"no row is called {pattern!r}; did you mean {nearest(pattern, ROWS)}? --list names all")
    found = {name for pattern in patterns for name in fnmatch.filter(ROWS, pattern)}
    found |= {ROWS[name].beside for name in found}  # without which they have no figure
    return [row for name, row in ROWS.items() if name in found]


# --- Measuring --------------------------------------------------------------------------------------------------------


def measure(row: Row, elements: int, *, quick: bool = False) -> tuple[dict[str, tuple[Any, ...]], list[str]]:
    """Time a row at so many elements; return what `kept` wants of each candidate, and who was left out and why.

    pyperf runs one benchmark after another, each in processes of its own, and the bandwidth of memory may double between
    them. So the rounds are ours: in each of them every candidate is timed right after the reference, and what counts is
    the median over rounds of one divided by the other. The clock, the facts about the machine and the file are pyperf's.
    """
    qsim.set_threads(None)
    if row.threads > qsim.get_threads():
        return {}, [f"left out: it needs {row.threads} threads, and there are {qsim.get_threads()}"]
    elements = min(elements, QUICK) if quick else elements
    with tempfile.TemporaryDirectory() as folder, threads(row.threads), quiet():
        data = Data(row.data, elements, row.threads, Path(folder))
        calls, notes = prepared(row, data)
        if "qsim" not in calls:
            return {}, notes
        try:
            reference = row.reference(data) if row.reference else None
        except ImportError as error:
            return {}, [f"left out: what it is held against is not there: {error}"]
        again = repeats(reference) if reference else 1
        loops = {name: 1 if row.measure is Measure.BYTES else repeats(call) for name, call in calls.items()}
        times: dict[str, list[tuple[float, float | None]]] = {name: [] for name in calls}
        start, taken = pyperf.perf_counter(), by_others()
        for done in range(2 if quick else MOST):
            if done >= LEAST and pyperf.perf_counter() - start > ENOUGH:
                break
            for name, call in calls.items():
                before = after_rest(reference, again, row.threads) if reference else None
                own = float(max(1, call())) if row.measure is Measure.BYTES else timed(call, loops[name])
                times[name].append((own, before))
        others = (by_others() - taken) / (pyperf.perf_counter() - start)
    return {name: (of, loops[name], elements, others) for name, of in times.items()}, notes


def prepared(row: Row, data: Data) -> tuple[dict[str, Call], list[str]]:
    """Return the calls of a row that can be made, each made once, and a note for each of the others."""
    calls, notes = {}, []
    for name, make in {"qsim": row.ours, **row.peers}.items():
        try:
            call = make(data)
            call()  # compiles, loads, and maps pages
        except ImportError as error:
            notes.append(f"{name} left out: {error}")
        except Exception as error:
            if name == "qsim":
                raise
            notes.append(f"{name} left out: it fails with {type(error).__name__}: {str(error).partition(chr(10))[0]}")
        else:
            calls[name] = call
    return calls, notes


def timed(call: Call, loops: int) -> float:
    """Return the seconds that a call takes, the mean of so many."""
    start = pyperf.perf_counter()
    for _ in range(loops):
        call()
    return (pyperf.perf_counter() - start) / loops


def after_rest(reference: Call, loops: int, threads: int) -> float:
    """Return the seconds that the reference takes, once the threads of the candidate before it have come to rest.

    A pool of OpenMP, torch's say, spins for some milliseconds on the core that the reference wants.
    """
    start = pyperf.perf_counter()
    while threads > 1 and pyperf.perf_counter() - start < REST:
        reference()
    return timed(reference, loops)


def repeats(call: Call) -> int:
    """Return how often a call is repeated so that the clock, and the loop around it, do not matter."""
    call()
    loops = 1
    while timed(call, loops) * loops < SHORT:
        loops *= 2
    return loops


def by_others() -> float:
    """Return the seconds that the cores of this machine have worked for processes other than this one and its children."""
    machine, own = psutil.cpu_times(), psutil.Process().cpu_times()
    idle = machine.idle + getattr(machine, "iowait", 0.0)
    return sum(machine) - idle - sum((own.user, own.system, own.children_user, own.children_system))


@contextlib.contextmanager
def threads(count: int) -> Any:
    """Let qsim, and BLAS, take so many threads."""
    with threadpool_limits(count, "blas"):
        qsim.set_threads(count)
        try:
            yield
        finally:
            qsim.set_threads(None)


@contextlib.contextmanager
def quiet() -> Any:
    """Keep back what packages print and warn of: NaNs, infinities, and their own future."""
    with np.errstate(all="ignore"), contextlib.redirect_stdout(io.StringIO()), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


# --- What is kept -----------------------------------------------------------------------------------------------------


def facts() -> dict[str, Any]:
    """Return what a figure depends on: the machine, its instructions, the versions, and what the environment sets."""
    known = pyperf.Run([1.0]).get_metadata()
    simd = np.show_config(mode="dicts")["SIMD Extensions"]
    pools = ("MKL_", "NUMBA_", "OMP_", "OPENBLAS_")
    here = {name: value for name, value in os.environ.items() if name.startswith(pools) and name != "NUMBA_CACHE_DIR"}
    settings = sorted(f"{name}={value}" for name, value in here.items())
    return {
        **{name: known[name] for name in FACTS if name in known},
        "llvm_cpu": llvmlite.binding.get_host_cpu_name(),
        "simd": " ".join(simd.get("baseline", []) + simd.get("found", [])),
        **{name: importlib.metadata.version(name) for name in ("numpy", "numba", "llvmlite")},
        **({"environment": " ".join(settings)} if settings else {}),
    }


def kept(
    row: Row, name: str, times: list[tuple[float, float | None]], loops: int, elements: int, others: float,
    machine: Mapping[str, Any],
) -> list[pyperf.Benchmark]:  # fmt: skip
    """Return a candidate's times, and the reference's beside them, as pyperf keeps them: value by value of one round."""
    version = qsim.__version__ if name == "qsim" else importlib.metadata.version(name)
    about = {**machine, "version": version, "loops": loops, "elements": elements, "threads": row.threads,
             "others": round(max(others, 0.0), 3)}  # fmt: skip
    if row.measure is Measure.BYTES:
        about["unit"] = "byte"
    own, before = zip(*times, strict=True)
    columns = {f"{row.name}/{name}": own, f"{row.name}/{name}/reference": before}
    runs = [
        pyperf.Run([rounded(v) for v in values], metadata={"name": label, **about}, collect_metadata=False)
        for label, values in columns.items()
        if None not in values
    ]
    return [pyperf.Benchmark([run]) for run in runs]


def rounded(value: float) -> float:
    """Return a time in six digits, more than it has."""
    return float(f"{value:.6g}")


def earlier(file: Path, machine: Mapping[str, Any], *, partial: bool) -> dict[str, list[pyperf.Benchmark]]:
    """Return, by row, what is in a file and still holds: all, or nothing if it is from elsewhere; then a part is refused."""
    if not file.exists():
        return {}
    suite = load(file)
    known = suite.get_metadata()
    other = [name for name in FACTS if known.get(name) != machine.get(name)]
    if other and partial:
        names = enumerate_names(f"{name} {known.get(name)!r}" for name in other)
        raise InputError(f"{file} holds figures of {names}, not of this machine as it is; measure all rows, or give "
                         "another folder with -o")  # fmt: skip
    found: dict[str, list[pyperf.Benchmark]] = {}
    for one in () if other else suite.get_benchmarks():
        found.setdefault(one.get_name().partition("/")[0], []).append(one)
    return found


def load(file: Path) -> pyperf.BenchmarkSuite:
    """Return the suite in a file."""
    try:
        return pyperf.BenchmarkSuite.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise InputError(f"{file}: there is no such file; measure something first") from None
    except (ValueError, LookupError, TypeError, AttributeError) as error:
        raise InputError(f"{file}: is no suite of pyperf ({error}); give another folder with -o") from None


def write(suite: pyperf.BenchmarkSuite, folder: Path, stem: str) -> None:
    """Write the suite, its page and the chart, the suite last."""
    for name, content in page.render(suite, stem).items():
        with whole(folder / name) as file:
            file.write(content)


if __name__ == "__main__":
    sys.exit(main())
