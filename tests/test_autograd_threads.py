"""Numerics and threads: a thread does not inherit what is in force, and no thread rounds nothing in silence."""

from __future__ import annotations

import contextvars
import os
import threading
import warnings
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest

import qsim
from qsim import autograd as ag
from qsim.autograd import value_and_grad
from qsim.nn import MLP

MODEL = MLP((4, 3, 2))
PARAMS = MODEL.init(np.random.default_rng(0))
BATCH = np.random.default_rng(1).standard_normal((6, 4)), np.arange(6) % 2
STEP = value_and_grad(MODEL.loss)
SAID = "numerics are in force in another thread and none in this one"


def in_a_thread(function: Callable[..., Any], *arguments: Any) -> Any:
    """Return what the function returns, or raise what it raises, in a thread of its own."""
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(function, *arguments).result()


CALLS: dict[str, Callable[[], Any]] = {
    "value_and_grad": lambda: STEP(PARAMS, BATCH),
    "loss": lambda: MODEL.loss(PARAMS, BATCH),
    "logits": lambda: MODEL.logits(PARAMS, BATCH[0]),
    "value": lambda: ag.value(lambda p, b: ag.linear(b, p["w"], name="l"))({"w": PARAMS["layer0"]["w"]}, BATCH[0]),
    "linear": lambda: ag.linear(BATCH[0], PARAMS["layer0"]["w"], name="l"),
    "conv2d": lambda: ag.conv2d(np.ones((1, 3, 3, 2)), np.ones((1, 1, 1, 2)), name="c"),
    "embedding": lambda: ag.embedding(np.array([0]), np.ones((2, 2)), name="e"),
    "dropout": lambda: ag.dropout(np.ones((3, 4)), rate=0.5, name="d"),
    "current": ag.current,
}


@pytest.mark.parametrize("name", CALLS)
@pytest.mark.parametrize("policy", [{"fwd_act": "e4m3"}, {"bwd_grad": "e4m3:SR"}])
def test_a_thread_without_the_context_says_so(name: str, policy: Any) -> None:
    """Inside `with numerics`, a worker thread that did not inherit them refuses to round nothing, and says what to do."""
    with qsim.numerics(policy), ThreadPoolExecutor(2) as pool:
        for future in [pool.submit(CALLS[name]) for _ in range(4)]:
            with pytest.raises(qsim.InputError, match=SAID) as caught:
                future.result()
            assert "contextvars.copy_context().run(function, ...)" in str(caught.value)
        CALLS[name]()
    in_a_thread(CALLS[name])  # and afterwards nothing is in force anywhere


@pytest.mark.parametrize("choices", [{"seed": 3}, {"step": 1}, {"draws": 2}, {"rank": 0}, {"first_draw": 1}])
def test_what_words_are_taken_is_a_context_too(choices: Any) -> None:
    """A context that names random words alone would be missed by a dropout."""
    with qsim.numerics(**choices), pytest.raises(qsim.InputError, match=SAID):
        in_a_thread(CALLS["dropout"])


def test_a_carried_context_rounds() -> None:
    """By the recipe of the message every worker gives the bits of the main thread; counts add up, sites are numbered once."""
    policy = dict.fromkeys(ag.POINTS, "e4m1fn:SR")
    with qsim.numerics(policy, seed=1) as alone:
        expected = STEP(PARAMS, BATCH)
    with qsim.numerics(policy, seed=1) as shared, ThreadPoolExecutor(4) as pool:
        futures = [pool.submit(contextvars.copy_context().run, STEP, PARAMS, BATCH) for _ in range(40)]
        results = [future.result() for future in futures]
    for loss, grads in results:
        assert loss == expected[0]
        assert all(np.array_equal(grads[k]["w"], expected[1][k]["w"]) for k in grads)
    assert shared.numbers == alone.numbers
    assert {site: counts.elements for site, counts in shared.counts.items()} == {
        site: 40 * counts.elements for site, counts in alone.counts.items()
    }


def test_sites_of_threads_have_numbers_of_their_own() -> None:
    """Threads that meet layers at the same time give no two sites one number."""
    for _ in range(20):
        context = ag.Numerics({})
        barrier = threading.Barrier(8)

        def enrol(first: int, context: ag.Numerics = context, barrier: threading.Barrier = barrier) -> None:
            barrier.wait()
            for layer in range(first, first + 20):
                context.enrol(f"layer{layer}")

        threads = [threading.Thread(target=enrol, args=(10 * k,)) for k in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert sorted(context.numbers.values()) == list(range(5 * 90))


def test_threads_with_contexts_of_their_own() -> None:
    """Each thread enters its own, that rounds, or one that rounds nothing, and none is in another's way."""
    plain, rounded = STEP(PARAMS, BATCH)[0], {}
    for name in ("e4m3", "int4", "e5m2"):
        with qsim.numerics(fwd_act=name):
            rounded[name] = STEP(PARAMS, BATCH)[0]
    barrier = threading.Barrier(4)

    def work(name: str | None) -> float:
        with qsim.numerics({} if name is None else {"fwd_act": name}):
            barrier.wait()
            loss = float(STEP(PARAMS, BATCH)[0])
            barrier.wait()
            return loss

    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(work, [None, *rounded]))
    assert found == [plain, *rounded.values()]


def test_one_context_entered_in_several_threads() -> None:
    """The same object may be entered in many threads at once; each leaves what it entered."""
    context = qsim.numerics(fwd_act="int4")
    with context:
        expected = STEP(PARAMS, BATCH)[0]
    barrier = threading.Barrier(3)

    def work(_: int) -> Any:
        with context, context:
            barrier.wait()
            loss = STEP(PARAMS, BATCH)[0]
            barrier.wait()
        return loss, ag.context.in_force()

    with ThreadPoolExecutor(3) as pool:
        assert list(pool.map(work, range(3))) == [(expected, None)] * 3
    assert in_a_thread(STEP, PARAMS, BATCH)[0] != expected


def test_unrounded_threads_do_not_disturb_each_other() -> None:
    """A pass without a context, or in an empty one, is nothing that another thread would miss."""
    inside, leave = threading.Event(), threading.Event()

    def waits(_: Any, batch: Any) -> Any:
        inside.set()
        leave.wait(30)
        return ag.mean_squared_error(ag.linear(batch, _["w"], name="l"), np.zeros((1, 2, 3)))

    with ThreadPoolExecutor(1) as pool:
        for context in (None, qsim.numerics()):
            inside.clear()
            leave.clear()

            def run(context: Any = context) -> Any:
                params = {"w": np.ones((3, 4))}
                if context is None:
                    return value_and_grad(waits)(params, np.ones((2, 4)))
                with context:
                    return value_and_grad(waits)(params, np.ones((2, 4)))

            future = pool.submit(run)
            assert inside.wait(30)
            STEP(PARAMS, BATCH)
            leave.set()
            future.result()


def test_threads_that_ended_hold_nothing() -> None:
    """A pool whose workers begin by entering a context rounds in it, and is nobody's business once it is gone."""
    with qsim.numerics(fwd_act="int4"):
        expected = STEP(PARAMS, BATCH)[0]
    context = qsim.numerics(fwd_act="int4")
    with ThreadPoolExecutor(2, initializer=context.__enter__) as pool:
        assert [future.result()[0] for future in [pool.submit(STEP, PARAMS, BATCH) for _ in range(4)]] == [expected] * 4
        with pytest.raises(qsim.InputError, match=SAID):
            STEP(PARAMS, BATCH)
    STEP(PARAMS, BATCH)
    with context:
        assert STEP(PARAMS, BATCH)[0] == expected


def test_a_context_that_ends_in_an_error_is_left() -> None:
    """After an error inside the block, and after one at its end, no thread is told of it."""
    with pytest.raises(qsim.InputError, match="labels"), qsim.numerics(fwd_act="e4m3"):
        STEP(PARAMS, (BATCH[0], BATCH[1][:1]))
    in_a_thread(STEP, PARAMS, BATCH)
    with pytest.raises(qsim.InputError, match="no layer met"), qsim.numerics({"layer9.fwd_act": "e4m3"}):
        STEP(PARAMS, BATCH)
    in_a_thread(STEP, PARAMS, BATCH)


def test_a_forked_child_has_no_threads_of_its_parent() -> None:
    """A process that is forked while another thread rounds may round nothing: that thread is not in it."""
    ready, leave = threading.Event(), threading.Event()

    def hold() -> None:
        with qsim.numerics(fwd_act="int4"):
            ready.set()
            leave.wait(60)

    thread = threading.Thread(target=hold)
    thread.start()
    try:
        assert ready.wait(30)
        with pytest.raises(qsim.InputError, match=SAID):
            ag.current()
        reading, writing = os.pipe()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # of newer Pythons, about threads and fork
            child = os.fork()
        if not child:
            try:
                answer = repr(ag.current().policy)
            except qsim.InputError as error:
                answer = str(error)
            os.write(writing, answer.encode())
            os._exit(0)
        os.waitpid(child, 0)
        assert os.read(reading, 4096) == b"{}"
    finally:
        leave.set()
        thread.join()
    os.close(reading)
    os.close(writing)
