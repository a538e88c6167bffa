"""A signal that comes where an exception would be lost is answered a moment later."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from types import FrameType

import pytest
import threadpoolctl

import qsim
from qsim.interrupts import SIGNALS, kept_for_the_end
from qsim.kernels import threads


class StoppedError(Exception):
    """What the signals raise here."""


@pytest.fixture(params=SIGNALS, ids=lambda number: number.name)
def number(request: pytest.FixtureRequest) -> Iterator[signal.Signals]:
    """Answer a signal by an exception, and leave its answer as it was."""

    def stop(*_: object) -> None:
        raise StoppedError

    before = signal.signal(request.param, stop)
    yield request.param
    signal.signal(request.param, before)


def test_a_signal_is_answered_after_the_block(number: signal.Signals) -> None:
    """The block sees it, and ends; then it is answered as before, also where the block itself raises."""
    ended = []

    def work(error: Exception | None) -> None:
        with kept_for_the_end() as seen:
            signal.raise_signal(number)
            assert seen == [number]
            ended.append(error)
            if error:
                raise error

    answer, errors = signal.getsignal(number), [None, ValueError()]
    for error in errors:
        with pytest.raises(StoppedError):
            work(error)
        assert signal.getsignal(number) is answer
    assert ended == errors


def test_what_no_function_answers_stays_so(number: signal.Signals) -> None:
    """A signal that is ignored, as in the background, or ends the process, is left to the system."""
    for answer in (signal.SIG_IGN, signal.SIG_DFL):
        signal.signal(number, answer)
        with kept_for_the_end():
            assert signal.getsignal(number) is answer


def test_another_thread_changes_no_answer(number: signal.Signals) -> None:
    """Only the main thread may, and only it is interrupted."""
    answers = []

    def work() -> None:
        with kept_for_the_end():
            answers.append(signal.getsignal(number))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert answers == [signal.getsignal(number)]


def test_no_signal_stops_the_search_for_libraries(number: signal.Signals, capsys: pytest.CaptureFixture[str]) -> None:
    """The loader may call it back, to which an exception is nothing; so it goes to its end before one is raised."""
    called = []

    def interrupted(frame: FrameType, event: str, _: object) -> None:
        if event == "call" and frame.f_code.co_filename == threadpoolctl.__file__:
            called.append(frame.f_code.co_name)
            signal.raise_signal(number)

    threads.libraries.cache_clear()
    sys.setprofile(interrupted)
    try:
        with pytest.raises(StoppedError):
            threads.libraries()
    finally:
        sys.setprofile(None)
    assert "select" in called
    assert capsys.readouterr().err == ""


def test_sigterm_in_a_string_of_code_is_not_taken_for_ctrl_c(tmp_path: Path) -> None:
    """Python ends itself by SIGINT where a KeyboardInterrupt came from `exec`, as imports have it; a shell would read 130."""
    (tmp_path / "stopped.py").write_text(
        "import signal\nfrom qsim.interrupts import terminable\n"
        "with terminable():\n    exec('signal.raise_signal(signal.SIGTERM)')\n",
        encoding="utf-8",
    )
    path = os.pathsep.join([str(tmp_path), str(Path(qsim.__file__).parents[1])])
    command = [sys.executable, "-m", "stopped"]
    done = subprocess.run(command, env=os.environ | {"PYTHONPATH": path}, check=False, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (128 + signal.SIGTERM, "")
