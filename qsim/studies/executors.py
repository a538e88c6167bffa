"""Where cells are computed: in this process, in several of this machine, or on a Dask cluster; with the same bytes.

BLAS runs on one thread in a cell, wherever it is, so that no sum depends on it; a process that works beside others shares
no array among threads either.
"""

from __future__ import annotations

import collections
import contextlib
import functools
import importlib
import json
import math
import os
import re
import sys
import threading
import time
import traceback
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from typing import Any, Protocol

from qsim.errors import InputError
from qsim.interrupts import unheard
from qsim.kernels.threads import libraries, one_blas_thread, set_threads
from qsim.processes import begin, keep_freed_memory, kill
from qsim.studies.machine import memory
from qsim.studies.source import source_of
from qsim.underflow import gradual_underflow

__all__ = ["Compute", "Dask", "Done", "Executor", "Here", "Processes"]

Compute = Callable[[Any], dict[str, Any]]
"""Takes a cell and returns its record."""

Task = tuple[int, Any]
"""The number of a cell, and the cell."""

LOST = "the process that computed it ended without a word"

LONGEST = 1000
"""Characters of an error that go into a line; the traceback has all of them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Done:
    """Hold the outcome of a cell: a record as JSON, or an error in a line with its traceback."""

    index: int
    record: str = ""
    error: str = ""
    trace: str = ""
    seconds: float = 0.0


class Executor(Protocol):
    """Compute cells."""

    @property
    def name(self) -> str:
        """The name in a report of the run."""
        ...

    @property
    def workers(self) -> int:
        """How many cells it computes at a time."""
        ...

    def run(self, compute: Compute, tasks: Sequence[Task]) -> Generator[Done, None, None]:
        """Yield the outcome of each task, as they end; leave no process behind, also when closed early."""
        ...


@gradual_underflow
def attempt(compute: Compute, index: int, cell: Any) -> Done:
    """Compute a cell, and catch its exceptions; its prints go to standard error, where no reader of JSON is."""
    started = time.perf_counter()
    try:
        with contextlib.redirect_stdout(sys.stderr):
            record = json.dumps(compute(cell), ensure_ascii=False, allow_nan=False)
        record.encode()  # fails for half of a surrogate pair, which no file could hold
    except BaseException as error:  # whatever a cell raises, SystemExit too, the others go on
        if isinstance(error, KeyboardInterrupt) and hears_interrupts():
            raise
        return failed(index, error, time.perf_counter() - started)
    return Done(index=index, record=record, seconds=time.perf_counter() - started)


deaf = False
"""Whether this is a worker process, which no Ctrl-C reaches."""


def hears_interrupts() -> bool:
    """Return whether this thread may be interrupted from outside; else an interrupt is the cell's own."""
    return not deaf and threading.current_thread() is threading.main_thread()


def failed(index: int, error: BaseException, seconds: float = 0.0) -> Done:
    """Return that a cell failed with `error`, in a line that can be written anywhere, and with the traceback."""
    try:
        words = str(error)
    except Exception:  # noqa: BLE001 - an error may raise another when it is asked what it is
        words = ""
    line = " ".join(f"{type(error).__name__}: {words}".split()).removesuffix(":")
    line = line if len(line) <= LONGEST else f"{line[:LONGEST]} ..."
    return Done(
        index=index, error=written(line), trace=written("".join(traceback.format_exception(error))), seconds=seconds
    )


def written(text: str) -> str:
    """Return a text as it can be written in UTF-8."""
    return text.encode(errors="backslashreplace").decode()


Pooled = Callable[[Compute, Sequence[Task], int, list[tuple[Task, Done]]], Generator[Done, None, None]]
"""Computes tasks, so many at a time, and adds to a list those whose process died, or another's beside them, and how."""


def patiently(pooled: Pooled, compute: Compute, tasks: Sequence[Task], width: int) -> Generator[Done, None, None]:
    """Yield the outcome of each task: one whose process died is tried twice more, alone, and lost if it dies again."""
    suspects: list[tuple[Task, Done]] = []
    yield from pooled(compute, tasks, width, suspects)
    for suspect in suspects:
        waiting = [suspect]
        for _ in range(2):
            again: list[tuple[Task, Done]] = []
            if waiting:
                yield from pooled(compute, [task for task, _ in waiting], 1, again)
            waiting = again
        yield from (done for _, done in waiting)


def lost(index: int, how: str = "") -> Done:
    """Return that the process of a cell ended: `how`, if that is known."""
    line = f"{LOST}, killed or out of memory" if not how or "SIGKILL" in how else f"{LOST}: {how}"
    return Done(index=index, error=line, trace=line + "\n")


# --- Here ------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Here:
    """Compute cells one after another in this process."""

    name: str = "this process"
    workers: int = 1

    def run(self, compute: Compute, tasks: Sequence[Task]) -> Generator[Done, None, None]:
        """Yield the outcome of each task, in order."""
        keep_freed_memory()
        find_libraries()
        for index, cell in tasks:
            with one_blas_thread():
                done = attempt(compute, index, cell)
            yield done


# --- In several processes --------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Processes:
    """Compute cells in `workers` processes of this machine, kept by joblib's loky."""

    workers: int

    @property
    def name(self) -> str:
        """The name in a report of the run."""
        return f"{self.workers} processes"

    def run(self, compute: Compute, tasks: Sequence[Task]) -> Generator[Done, None, None]:
        """Yield the outcome of each task, as they end.

        When a process dies, those that were under way are computed again, each alone (`patiently`).
        """
        yield from patiently(self._pooled, compute, tasks, 2 * self.workers)

    @contextlib.contextmanager
    def warm(self, module: str) -> Iterator[None]:
        """Let the processes start, and import `module`, while the body plans; end them with it."""
        pool = self._pool()
        with unheard():
            futures = [pool.submit(imported, module) for _ in range(self.workers)]
        try:
            yield
        finally:
            kill(pool, futures)

    def _pool(self) -> Any:
        from joblib.externals.loky import get_reusable_executor

        return get_reusable_executor(max_workers=self.workers, initializer=begin_worker, initargs=(os.getpid(),))

    def _pooled(
        self, compute: Compute, tasks: Sequence[Task], width: int, suspects: list[tuple[Task, Done]]
    ) -> Generator[Done, None, None]:
        """Yield the outcomes of tasks, `width` of them at a time; add to `suspects` those under way when a process died."""
        wanted = source_of(compute.__module__).digest
        waiting = collections.deque(tasks)
        under_way: dict[Future[Done | None], Task] = {}
        pool = None
        finished = False
        try:
            while waiting or under_way:
                try:
                    pool = pool or self._pool()
                    while waiting and len(under_way) < width:
                        with unheard():
                            future = pool.submit(attempt_there, wanted, compute, *waiting[0])
                        under_way[future] = waiting.popleft()
                    for future in wait(under_way, return_when=FIRST_COMPLETED).done:
                        error = future.exception()
                        if isinstance(error, BrokenProcessPool):
                            raise error
                        index, _ = under_way.pop(future)
                        done = failed(index, error) if error else future.result()  # an error: it cannot be pickled
                        if done is None:  # of a process that began after an edit
                            raise InputError(
                                "the source of the cells was edited while they were computed; those finished before are kept, "
                                "and the same command computes by the new source what that changes"
                            )
                        yield done
                except BrokenProcessPool as error:
                    suspects += [(task, broken(task[0], error)) for task in under_way.values()]
                    under_way.clear()
                    pool = None  # the next one is made anew
            finished = True
        finally:
            if pool is not None and finished:
                pool.shutdown(wait=True)
            elif pool is not None:
                kill(pool, list(under_way))


def broken(index: int, error: BrokenProcessPool) -> Done:
    """Return loky's reason why a process ended, an unreadable message among them."""
    if error.__cause__ is not None:
        trace = str(error.__cause__).strip('\n"') + "\n"
        line = f"a process could not read the cell that it was sent: {trace.splitlines()[-1]}"
        return Done(index=index, error=written(line), trace=written(trace))
    codes = re.search(r"exit codes of the workers are \{(.*)\}", str(error))
    return lost(index, codes[1] if codes else "")


def imported(module: str) -> None:
    """Import the module of a kind of study, which takes seconds where it brings compiled code, and read its source."""
    source_of(importlib.import_module(module).compute.__module__)


def begin_worker(parent: int) -> None:
    """Prepare a worker process for cells: deaf to Ctrl-C, gone when `parent` is."""
    global deaf  # noqa: PLW0603 - a process has one way to answer a signal
    deaf = True
    with contextlib.suppress(OSError):
        os.dup2(2, 1)  # what a cell's own children print goes where its own words go
    begin(parent)


def attempt_there(wanted: str, compute: Compute, index: int, cell: Any) -> Done | None:
    """Compute a cell in a process that works beside others; `None` if its source is not the one with the digest `wanted`."""
    single(compute.__module__)
    return attempt(compute, index, cell) if source_of(compute.__module__).digest == wanted else None


@functools.cache
def single(module: str) -> None:
    """Let this process compute on one thread from now on, in the BLAS that `module` brings and in our own loops.

    Others take the other cores. It is never undone: a cell of another thread might be in the middle of a sum.
    """
    importlib.import_module(module)
    keep_freed_memory()
    set_threads(1)
    find_libraries()
    for library in libraries().lib_controllers:
        library.set_num_threads(1)


def find_libraries() -> None:
    """Find the BLAS libraries anew, for a kind of study may have brought one."""
    libraries.cache_clear()
    libraries()


# --- On a cluster ----------------------------------------------------------------------------------------------------

PATIENCE = 10.0
"""Seconds within which a scheduler must answer, and have a worker."""


ADDRESS = re.compile(r"((tcp|tls|wss?|ucx)://)?[^/]+:\d+")
"""Where a scheduler may be."""


class Dask:
    """Compute cells on the cluster whose scheduler is at `address`, tcp://HOST:PORT."""

    def __init__(self, address: str) -> None:
        try:
            from distributed import Client
        except ImportError:
            raise InputError('--dask needs dask.distributed; pip install "qsim-numerics[cluster]"') from None
        sentence = "start `dask scheduler` and `dask worker ADDRESS`, and give --dask tcp://HOST:PORT"
        if not ADDRESS.fullmatch(address):  # of which a client would make something that it cannot close
            raise InputError(f"no Dask scheduler with a worker answers at {address!r}, which is no address; {sentence}")
        try:
            self._client = Client(address, timeout=PATIENCE, set_as_default=False)
            self._client.wait_for_workers(1, timeout=PATIENCE)
        except (OSError, ValueError, TimeoutError) as error:
            with contextlib.suppress(AttributeError):
                self._client.close()
            reason = " ".join(str(error).split()) or type(error).__name__
            raise InputError(f"no Dask scheduler with a worker answers at {address!r} ({reason}); {sentence}") from None
        self._address = address
        threads = self._client.nthreads()
        self.workers = sum(threads.values())
        there = self._everywhere(memory_there)
        self.memory = min((found / threads.get(name, 1) for name, found in there.items()), default=math.inf)
        """The bytes that there are for each thread of a worker, at least."""
        self.name = f"a Dask cluster of {self.workers} threads"

    def _everywhere(self, function: Callable[..., Any], *args: Any) -> dict[str, Any]:
        """Call a function once in each worker, beside its threads, and return the results by the workers' names."""
        try:
            found: dict[str, Any] = self._client.run(function, *args)
        except Exception as error:  # noqa: BLE001 - whatever a worker raises that has no qsim, or a broken one
            self.close()
            raise InputError(
                f"a worker of the cluster cannot run qsim ({failed(0, error).error}); install the same there as here"
            ) from None
        return found

    def run(self, compute: Compute, tasks: Sequence[Task]) -> Generator[Done, None, None]:
        """Yield the outcome of each task, as they end.

        The scheduler gives the tasks of a dead worker to another one; those that it gives up, since several workers died with
        them, are computed again, each alone (`patiently`). Raise `InputError` where a worker has another
        source than this process.
        """
        self._everywhere(single, compute.__module__)  # the search for libraries is not for threads that import others
        yield from patiently(self._pooled, compute, tasks, 4 * self.workers)

    def _pooled(
        self, compute: Compute, tasks: Sequence[Task], width: int, suspects: list[tuple[Task, Done]]
    ) -> Generator[Done, None, None]:
        """Yield the outcomes of tasks, `width` of them at a time; add to `suspects` those that the scheduler gives up."""
        from distributed import CancelledError, KilledWorker, as_completed

        wanted = source_of(compute.__module__).digest
        waiting = collections.deque(tasks)
        under_way: dict[Any, Task] = {}

        def submit() -> Any:
            task = waiting.popleft()
            future = self._client.submit(attempt_there, wanted, compute, *task, pure=False)
            under_way[future] = task
            return future

        futures = as_completed([submit() for _ in range(min(len(waiting), width))], loop=self._client.loop)
        try:
            for future in futures:
                task = under_way.pop(future)
                try:
                    done = future.result()
                except KilledWorker:
                    suspects.append((task, lost(task[0])))
                except (CancelledError, OSError):  # nobody here cancels any
                    raise InputError(
                        f"the Dask scheduler at {self._address!r} does not answer any more; the cells finished before are "
                        "kept, and the same command goes on from them once it does"
                    ) from None
                except Exception as error:  # noqa: BLE001 - the cell, or the function, cannot be pickled or unpickled
                    yield failed(task[0], error)
                else:
                    if done is None:
                        raise InputError(
                            "a worker of the cluster has another qsim, or other libraries, than this process, and would give "
                            "other bits; install the same there"
                        )
                    yield done
                if waiting:
                    futures.add(submit())
        finally:
            self._client.cancel(list(under_way))

    def close(self) -> None:
        """Leave the cluster."""
        self._client.close()


def memory_there(dask_worker: Any) -> float:
    """Return how many bytes a worker may use: its limit, or the memory of its machine."""
    return min(memory().total, dask_worker.memory_manager.memory_limit or math.inf)
