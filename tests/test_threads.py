"""Large arrays on several threads: the same bits, whoever calls, and nothing left behind."""

from __future__ import annotations

import itertools
import os
import subprocess
import sys
import textwrap
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

import qsim
from qsim.errors import InputError
from qsim.kernels import threads

COUNT = 3 * threads.MANY + 1237
"""Elements of an array of several parts, whose last is no whole number of blocks."""
X = (np.random.default_rng(0).standard_normal(COUNT) * 8).astype(np.float32)
KEY = qsim.Key(seed=3, stream=5, offset=7)


@pytest.fixture(autouse=True)
def as_before() -> Iterator[None]:
    """Leave the number of threads as it was."""
    yield
    qsim.set_threads(None)


def every_way() -> list[np.ndarray]:
    """Round one array in each of the ways that are shared among threads."""
    strided, table = np.stack([X, X], axis=1)[:, 1], X[: 4 * (COUNT // 4)].reshape(4, -1)
    place, codes = X.copy(), qsim.encode(X, "e4m3")
    qsim.quantize(place, "e4m3", "SR", key=KEY, out=place)
    return [
        qsim.quantize(X, "e4m3"),
        qsim.quantize(X, "e5m2", "SR", key=KEY),
        qsim.quantize(X.astype(np.float64), "e5m2", "SR", key=KEY),
        qsim.quantize(X.astype(np.float16), "e4m3", "SR", key=KEY),
        qsim.quantize(strided, "e4m3", "SRC(8)", key=KEY),
        qsim.quantize(strided, "int8", scale="absmax"),
        qsim.quantize(X, "int8", scale="absmax"),
        qsim.quantize(table, "int4", scale="absmax", per="channel"),
        qsim.encode(table, "int4", scale="absmax", per="channel"),
        qsim.quantize(X, "nf4", "SR", key=KEY),
        qsim.decode(codes, "e4m3"),
        codes,
        place,
    ]


def same(results: list[np.ndarray], others: list[np.ndarray]) -> bool:
    """Return whether the results have the same bytes."""
    return all(a.tobytes() == b.tobytes() for a, b in zip(results, others, strict=True))


def test_the_bits_do_not_depend_on_threads() -> None:
    """One thread, two, three and seven give the same bytes in every way that an array is rounded."""
    qsim.set_threads(1)
    alone = every_way()
    for count in (2, 3, 7):
        qsim.set_threads(count)
        assert qsim.get_threads() == count
        assert same(every_way(), alone), count


def test_several_threads_may_call() -> None:
    """Calls from several threads of the program at once, all of which share the pool, give what one call gives."""
    qsim.set_threads(1)
    alone = every_way()
    qsim.set_threads(3)
    with ThreadPoolExecutor(4) as callers:
        assert all(same(found, alone) for found in callers.map(lambda _: every_way(), range(4)))


FORK = """
    import os, numpy as np, qsim
    qsim.set_threads(2)
    x = np.linspace(-9, 9, 1 << 20, dtype=np.float32)
    before = qsim.quantize(x, "e4m3", "SR", key=qsim.Key(1)).tobytes()
    child = os.fork()
    if not child:
        os._exit(0 if qsim.quantize(x, "e4m3", "SR", key=qsim.Key(1)).tobytes() == before else 1)
    after = qsim.quantize(x, "e4m3", "SR", key=qsim.Key(1)).tobytes()
    print(os.waitpid(child, 0)[1], after == before)
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork on this system")
def test_a_forked_child_goes_on() -> None:
    """After a fork the child, whose pool has no threads, rounds as before, and so does its parent."""
    program = [sys.executable, "-W", "ignore", "-c", textwrap.dedent(FORK)]
    done = subprocess.run(program, capture_output=True, text=True, timeout=120, check=True)
    assert done.stdout.split() == ["0", "True"]


@pytest.mark.parametrize(
    ("variables", "count"),
    [
        ({"NUMBA_NUM_THREADS": "3"}, 3),
        ({"OMP_NUM_THREADS": "4,2"}, 4),
        ({"NUMBA_NUM_THREADS": "2", "OMP_NUM_THREADS": "5"}, 2),
        ({"OMP_NUM_THREADS": "many"}, None),
        ({"OMP_NUM_THREADS": "0"}, None),
        ({}, None),
    ],
    ids=str,
)
def test_the_environment_is_respected(variables, count, monkeypatch) -> None:
    """NUMBA_NUM_THREADS and then OMP_NUM_THREADS say how many threads there are; else there is one for each core."""
    for name in ("NUMBA_NUM_THREADS", "OMP_NUM_THREADS"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(threads, "wanted", None)
    cores = threads.available()
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert qsim.get_threads() == (cores if count is None else count)
    assert cores >= 1


def test_small_arrays_stay_here(monkeypatch) -> None:
    """An array below the limit is handed to no other thread, and one above it is."""
    handed: list[tuple[int, int]] = []
    monkeypatch.setattr(
        threads, "submit", lambda work, begin, end: handed.append((begin, end)) or Done(work, begin, end)
    )
    monkeypatch.setattr(threads, "wait", lambda _: None)
    qsim.set_threads(2)
    qsim.quantize(X[: threads.MANY - 1], "e4m3")
    assert not handed
    qsim.quantize(X[: threads.MANY], "e4m3")
    assert handed == [(0, threads.MANY // 2)]


class Done:
    """Stands for a part that was done at once."""

    def __init__(self, work, begin, end) -> None:
        work(begin, end)

    def result(self) -> None:
        """Return nothing."""


def test_parts_make_up_the_whole() -> None:
    """Whatever the numbers of elements and threads, each element is in one part, and parts begin at a multiple of a block."""
    for count in (threads.MANY, threads.MANY + 1, COUNT, 10 * threads.LEAST + 63):
        for number in (2, 3, 4, 9):
            qsim.set_threads(number)
            seen: list[tuple[int, int]] = []
            threads.in_parts(count, lambda begin, end, seen=seen: seen.append((begin, end)))
            seen.sort()
            assert seen[0][0] == 0
            assert seen[-1][1] == count
            assert all(end == begin for (_, end), (begin, _) in itertools.pairwise(seen))
            assert all(begin % threads.ALIGNMENT == 0 for begin, _ in seen)
            assert 1 < len(seen) <= number


def test_an_error_waits_for_the_others() -> None:
    """What goes wrong in a part, here or elsewhere, is raised when no other part is at work any more."""
    qsim.set_threads(3)
    for wrong in (0, 1, 2):
        begins, running = [], threading.Semaphore(0)

        def work(begin, end, begins=begins, running=running, wrong=wrong):
            begins.append(begin)
            if begin // (end - begin) == wrong:
                raise ValueError(f"part {wrong}")
            running.release()

        with pytest.raises(ValueError, match=f"part {wrong}"):
            threads.in_parts(3 * threads.LEAST, work)
        assert len(begins) == 3
        assert running.acquire(blocking=False)
        assert running.acquire(blocking=False)


@pytest.mark.parametrize("count", [0, -1, 2000, 1.5, "two"])
def test_a_wrong_number_is_refused(count) -> None:
    """The number of threads is a positive integer."""
    before = qsim.get_threads()
    with pytest.raises(InputError, match="number of threads"):
        qsim.set_threads(count)
    assert qsim.get_threads() == before
