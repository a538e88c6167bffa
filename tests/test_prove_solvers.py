"""Solvers: what becomes of a limit and of Ctrl-C, and whether several answer the questions of theorems alike."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from collections.abc import Callable
from types import ModuleType

import cvc5
import pytest
import z3
from mutants import MUTANTS, loaded, mutant

from qsim.prove import smt
from qsim.prove.solvers import SOLVERS, script
from qsim.rounding import Mode
from qsim.verdicts import Outcome


@pytest.mark.parametrize("timeout", [0.2, 0.0001])
@pytest.mark.parametrize("solver", SOLVERS)
def test_a_solver_that_gives_up_decides_nothing(solver, timeout) -> None:
    """Where the time is not enough the verdict is "not decided"."""
    a, b, c = z3.BitVecs("a b c", 64)
    claim = a * (b + c) * (b - c) == (b * b - c * c) * a
    verdict = smt.decide(claim, smt.Reader(), covered="all", counterexample=str, timeout=timeout, solver=solver)
    assert verdict.outcome is Outcome.NOT_DECIDED
    assert "gave up" in verdict.covered


@pytest.mark.parametrize("solver", SOLVERS)
def test_a_search_ends_on_an_interrupt(solver) -> None:
    """Ctrl-C ends a long search, in which no Python runs, and is no answer of the solver."""
    search = (
        "import signal, z3\n"
        "from qsim.prove.solvers import SOLVERS\n"
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n"
        "a, b, c = z3.BitVecs('a b c', 64)\n"
        "print('begins', flush=True)\n"
        f"SOLVERS['{solver}'](a * (b + c) * (b - c) != (b * b - c * c) * a, 60)\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", search], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as run:
        try:
            assert run.stdout is not None
            assert run.stdout.readline() == "begins\n"
            time.sleep(0.5)
            run.send_signal(signal.SIGINT)
            assert run.communicate(timeout=30)[1].endswith("KeyboardInterrupt\n")
        finally:
            run.kill()


def questions(name: str, monkeypatch: pytest.MonkeyPatch, prove: Callable[[ModuleType], object]) -> list[z3.ExprRef]:
    """Return what a theorem asks of solvers, when all say that a counterexample is never true."""
    asked: list[z3.ExprRef] = []
    with monkeypatch.context() as patched:
        for solver in SOLVERS:
            patched.setitem(SOLVERS, solver, lambda question, _: asked.append(question))
        prove(loaded(name)[1])
    return asked


def by_cvc5(question: z3.ExprRef) -> str:
    """Return what cvc5 makes of the script: `sat` or `unsat`."""
    solver = cvc5.Solver(cvc5.TermManager())
    parser = cvc5.InputParser(solver)
    parser.setStringInput(cvc5.InputLanguage.SMT_LIB_2_6, script(question), "question")
    said, symbols = "", parser.getSymbolManager()
    while not (command := parser.nextCommand()).isNull():
        said += command.invoke(solver, symbols)
    return said.strip()


@pytest.mark.parametrize(
    ("name", "prove", "solvers"),
    [
        ("rne_kernel_e4m3_smt", lambda module: module.prove(quick=True), SOLVERS),
        ("sr_kernel_e4m3_smt", lambda module: module.prove(quick=True), SOLVERS),
        pytest.param(
            "any_format_smt",
            lambda module: module.prove_one(Mode.RNE, even=False, man_bits=1),
            (*SOLVERS, "cvc5"),
            marks=pytest.mark.exhaustive,
        ),
    ],
    ids=lambda it: it if isinstance(it, str) else "",
)
def test_solvers_agree(name, prove, solvers, monkeypatch, tmp_path) -> None:
    """Solvers by several groups answer the same questions alike, of the kernel and of one with a fault.

    cvc5 is not asked where the exact integer of the reference has hundreds of bits, on which it takes long.
    """

    def planted(module):
        module.core = mutant(tmp_path, *MUTANTS["no carry"])
        prove(module)

    def answer(solver, question):
        if solver == "cvc5":
            return by_cvc5(question)
        model = SOLVERS[solver](question, 60)
        assert model is None or z3.is_true(model.eval(question, True))
        return "unsat" if model is None else "sat"

    answers = [
        {answer(solver, question) for solver in solvers}
        for question in questions(name, monkeypatch, prove) + questions(name, monkeypatch, planted)
    ]
    assert {"sat"} in answers
    assert {"unsat"} in answers
    assert all(len(found) == 1 for found in answers)
