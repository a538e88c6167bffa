"""How the cells of a study are run: in this process or in several, with the same numbers."""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Protocol, TypeVar

from qsim.processes import cores, workers

__all__ = ["cores", "run_cells"]

C = TypeVar("C", bound="Costed")


class Costed(Protocol):
    """A cell that can say how long it will take, in any unit."""

    @property
    def cost(self) -> float:
        """How much work the cell is, relative to the others."""
        ...


def run_cells(
    cells: Sequence[C],
    compute: Callable[[C], dict[str, Any]],
    jobs: int,
    advance: Callable[[float], None] = lambda _: None,
) -> list[dict[str, Any]]:
    """Return the records of `cells`, in order, computed by `jobs` processes; `advance` is told each finished cost.

    BLAS runs on one thread in a cell, whatever the executor, so that no sum depends on it. The longest cells start
    first. Worker processes are ended before this returns, also on Ctrl-C.
    """
    order = sorted(range(len(cells)), key=lambda i: -cells[i].cost)
    records: list[dict[str, Any]] = [{}] * len(cells)
    results = _here(cells, compute, order) if jobs == 1 else _processes(cells, compute, order, jobs)
    for i, record in results:
        records[i] = record
        advance(cells[i].cost)
    return records


def keep_freed_memory() -> None:
    """Tell glibc to keep freed arrays, rather than give their pages back and fault them in again at the next step.

    Elsewhere than on glibc nothing happens.
    """
    trim_threshold, top_pad, mmap_threshold = -1, -2, -3  # malloc.h
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):
        return
    for parameter, size in ((trim_threshold, 1 << 30), (top_pad, 1 << 26), (mmap_threshold, 1 << 25)):
        mallopt(parameter, size)


def _one(compute: Callable[[C], dict[str, Any]], i: int, cell: C) -> tuple[int, dict[str, Any]]:
    from threadpoolctl import threadpool_limits

    keep_freed_memory()
    with threadpool_limits(1):
        return i, compute(cell)


def _here(
    cells: Sequence[C], compute: Callable[[C], dict[str, Any]], order: Sequence[int]
) -> Iterator[tuple[int, dict[str, Any]]]:
    for i in order:
        yield _one(compute, i, cells[i])


def _processes(
    cells: Sequence[C], compute: Callable[[C], dict[str, Any]], order: Sequence[int], jobs: int
) -> Iterator[tuple[int, dict[str, Any]]]:
    from concurrent.futures import as_completed

    with workers(jobs) as executor:
        for future in as_completed([executor.submit(_one, compute, i, cells[i]) for i in order]):
            yield future.result()
