"""No result depends on the flags by which a thread has its processor make zeros of subnormal numbers, and none is changed."""

from __future__ import annotations

import contextlib
import functools
import json
import subprocess
import sys
import threading
from concurrent.futures import wait

import flushing
import numpy as np
import pytest
from flushing import FLAGS, flags, set_flags

import qsim
from qsim import testing, underflow
from qsim.kernels import threads
from qsim.verdicts import Outcome

SETTINGS = [(name,) for name in FLAGS] + ([tuple(FLAGS)] if len(FLAGS) > 1 else [])
SMALLEST = np.array([1, 1 << 22, 0x7FFFFF, 0x80000001], np.uint32).view(np.float32)


@functools.cache
def expected(case: str) -> str:
    """Return what a case gives where nothing is flushed."""
    assert not flags()
    return flushing.digest(case)


@pytest.mark.parametrize("case", flushing.CASES)
def test_results_do_not_depend_on_the_flags(case: str) -> None:
    """Every public way to compute gives the same bits with flags as without, and leaves the flags as they were."""
    known = expected(case)
    for names in SETTINGS:
        with flushing.flushing(*names):
            assert flushing.digest(case) == known, names


def test_flags_set_before_all_else() -> None:
    """A process whose flags were set before it imported NumPy, whose BLAS then flushes for ever, gives the same bits."""
    program = [sys.executable, flushing.__file__, *FLAGS]
    done = subprocess.run(program, capture_output=True, text=True, timeout=300, check=True)
    found = json.loads(done.stdout)
    assert found == {case: expected(case) for case in flushing.CASES}


def test_the_cases_would_show_it() -> None:
    """NumPy itself gives other results with the flags: the tests here see what they are to see."""
    with flushing.flushing():
        sums = SMALLEST + SMALLEST
        assert underflow.flushed()
    assert not sums.view(np.uint32)[[0, 1, 3]].any() or sums.view(np.uint32)[3] == 1 << 31
    assert (SMALLEST + SMALLEST).all()


@pytest.mark.parametrize("names", SETTINGS, ids=" ".join)
def test_threads_of_the_pool_with_flags(names: tuple[str, ...]) -> None:
    """A thread of the pool computes as the one that called, whatever its own flags are; so the halves of an array agree."""
    known = expected("threads")
    wanted = sum(FLAGS[name] for name in names)
    qsim.set_threads(3)
    barrier = threading.Barrier(2)

    def poison(*_: int) -> None:
        set_flags(wanted)
        barrier.wait(60)

    try:
        with threads.lock:
            pool = threads.ThreadPoolExecutor(2, initializer=set_flags, initargs=(wanted,))
        wait([pool.submit(poison), pool.submit(poison)])
        threads.pool = pool
        assert flushing.digest("threads") == known
        assert not flags()
    finally:
        qsim.set_threads(None)


def test_errors_restore_the_flags() -> None:
    """What is refused leaves the flags as they were."""
    with flushing.flushing():
        for refused in (
            lambda: qsim.quantize(SMALLEST, "e4m33"),
            lambda: qsim.encode(SMALLEST, "e4m3", scale=-1.0),
            lambda: qsim.decode([999], "e4m3"),
            lambda: qsim.reference.encode(1.0, "nothing"),
            lambda: qsim.value_and_grad(lambda p, _: p["x"])({"x": SMALLEST}, {}),
        ):
            with pytest.raises(qsim.InputError):
                refused()
            assert flags()


def test_the_function_under_test_runs_as_its_caller_would_run_it() -> None:
    """A quantizer is called with the flags that the caller of the check had, each time; those that it leaves are cleared."""
    seen: list[int] = []

    def leaves_them(x: np.ndarray) -> np.ndarray:
        seen.append(flags())
        set_flags(sum(FLAGS.values()))
        codes = qsim.encode(x, "e8m3")
        assert flags() == sum(FLAGS.values())
        return codes

    verdict = testing.check_quantizer(leaves_them, "e8m3", codes=True, examples=64)
    assert verdict.outcome is Outcome.HELD, verdict
    assert set(seen) == {0}
    assert not flags()
    with flushing.flushing():
        assert testing.check_quantizer(leaves_them, "e8m3", codes=True, examples=64) == verdict
        assert seen[-1] == sum(FLAGS.values())
    words = lambda lanes: seen.append(flags()) or set_flags(sum(FLAGS.values())) or np.arange(lanes)  # noqa: E731
    testing.audit_rbits(words, 8, lanes=64, calls=2)
    assert seen[-2:] == [0, 0]
    assert not flags()


def test_a_quantizer_that_the_flags_break_is_refuted() -> None:
    """Where NumPy's own arithmetic is the quantizer, the flags make it wrong, and the verdict says so."""
    unit = np.array(1 << 20, np.uint32).view(np.float32)  # 2^-129, the smallest value of e8m3

    def by_division(x: np.ndarray) -> np.ndarray:
        small = (x.view(np.uint32) & 0x7FFFFFFF) < 0x800000
        with np.errstate(all="ignore"):
            return np.where(small, np.rint(x / unit) * unit, qsim.quantize(x, "e8m3"))

    check = functools.partial(testing.check_quantizer, by_division, "e8m3", examples=64, laws="fixed points")
    assert check().outcome is Outcome.HELD
    with flushing.flushing():
        assert check().outcome is Outcome.REFUTED


def test_where_flags_cannot_be_cleared_they_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """A system whose C library is unknown computes while no flag is set, and says what is wrong where one is."""
    monkeypatch.setattr(underflow, "c", lambda: None)
    assert qsim.quantize(SMALLEST, "float32").tobytes() == SMALLEST.tobytes()
    with flushing.flushing(), pytest.raises(qsim.InputError, match="make zeros of subnormal numbers"):
        qsim.quantize(SMALLEST, "float32")
    with flushing.flushing(), pytest.raises(qsim.InputError, match="clear the flag"):
        qsim.reference.quantize(1.0, "float32")


def test_calls_within_calls() -> None:
    """Flags are restored level by level: what we call back, and what that calls of us."""
    outer: list[int] = []

    @underflow.gradual_underflow
    def ours(function) -> int:
        underflow.as_caller(function)()
        return flags()

    with flushing.flushing():
        assert ours(lambda: outer.append(flags()) or outer.append(ours(lambda: outer.append(flags())))) == 0
        assert flags() == sum(FLAGS.values())
    assert outer == [sum(FLAGS.values()), sum(FLAGS.values()), 0]
    with pytest.raises(ZeroDivisionError), flushing.flushing(), contextlib.ExitStack():
        ours(lambda: 1 // 0)
    assert not flags()
