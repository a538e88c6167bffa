"""A process that is forked beside a thread which imports or compiles answers; it does not wait for a lock that nobody holds."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

pytestmark = [
    pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork"),
    pytest.mark.xdist_group("forks"),  # one process, so that the folder of kernels is filled once
]

BEGIN = """
    import os, signal, sys, threading
    import numpy as np
    import qsim
    from qsim import forks

    x = np.float32([1.06, 1.2])

    def fork(work):
        child = os.fork()
        if not child:
            signal.alarm(60)  # ends a child that waits for ever
            try:
                work()
            except qsim.InputError as error:
                assert "forked while another thread" in str(error)
                os._exit(7)
            os._exit(0)
        print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)  # a child leaves by os._exit

    def check(mode="RNE"):
        assert qsim.quantize(x, "e4m3", mode).tolist() == [1.0, 1.25]

    def beside(work):
        inside, over = threading.Event(), threading.Event()

        def hold():
            with forks.undivided():
                inside.set()
                over.wait()

        thread = threading.Thread(target=hold)
        thread.start()
        inside.wait()
        fork(work)
        over.set()
        thread.join()
"""

PROGRAMS = {
    "nobody compiles": ("check(); fork(check); fork(lambda: fork(check))", "0 0 0"),
    "a thread compiles": ("beside(check); check()", "7"),
    "and what is needed is there": ("check(); beside(check)", "0"),
    "this thread compiles": ("with forks.undivided(): fork(check)", "0"),
    "a signal handler forks": (
        """
signal.signal(signal.SIGUSR1, lambda *_: fork(check))
with forks.counting:
    signal.raise_signal(signal.SIGUSR1)
beside(check)
""",
        "0 7",
    ),
    "in a child of a child": ("beside(lambda: fork(check))", "7 0"),
    "a first call": (
        """
thread = threading.Thread(target=check)  # imports, compiles and loads
thread.start()
while thread.is_alive():
    fork(check)
thread.join()
check()
""",
        None,
    ),
}


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder for kernels, which the first of the programs fills."""
    return tmp_path_factory.mktemp("kernels")


@pytest.mark.parametrize("name", PROGRAMS)
def test_a_child_answers(name: str, cache: Path, tmp_path: Path) -> None:
    """It computes, or says that its parent was forked at the wrong moment: 7."""
    body, expected = PROGRAMS[name]
    command = [sys.executable, "-W", "ignore", "-c", textwrap.dedent(BEGIN) + body]
    environment = os.environ | {"NUMBA_CACHE_DIR": str(tmp_path if expected is None else cache)}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=240, check=False)
    assert done.returncode == 0, done.stderr
    if expected is None:
        assert set(done.stdout.split()) <= {"0", "7"}
    else:
        assert done.stdout.split() == expected.split()
