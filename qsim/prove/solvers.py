"""Ask a solver whether a term can be true: z3, or Bitwuzla, which reads z3's terms as SMT-LIB.

The terms are bit-vectors and truth values alone, so that any solver of these reads the same question. Where the amounts of
shifts are unknown, Bitwuzla answers in seconds where z3 takes more than five minutes. A model that Bitwuzla finds is z3's to
check.
"""

from __future__ import annotations

import signal
from collections.abc import Callable, Mapping
from typing import Any

import z3

from qsim.interrupts import kept_for_the_end

__all__ = ["SOLVERS", "UndecidedError", "script"]


class UndecidedError(Exception):
    """Say why a solver has no answer."""


def by_z3(question: Any, timeout: float) -> Any:
    """Return a model in which `question` is true, or `None` where it never is; give up after `timeout` seconds.

    It goes straight to propositional logic: on these terms three times as fast as z3's own choice of steps.
    """
    solver = z3.TryFor(z3.Then("simplify", "bit-blast", "sat"), milliseconds(timeout)).solver()
    solver.add(question)
    answer = solver.check()
    if answer == z3.unknown and "interrupted" in solver.reason_unknown():  # z3 takes Ctrl-C for itself
        signal.raise_signal(signal.SIGINT)
    if answer == z3.unknown:
        raise UndecidedError(f"z3 gave up ({solver.reason_unknown()})")
    return solver.model() if answer == z3.sat else None


def by_bitwuzla(question: Any, timeout: float) -> Any:
    """Ask Bitwuzla, and answer as `by_z3` does."""
    import bitwuzla

    options = bitwuzla.Options()
    options.set("produce-models", True)
    options.set("time-limit-per", milliseconds(timeout))
    text = script(question)
    parser = bitwuzla.Parser(bitwuzla.TermManager(), options)
    parser.parse(text, parse_only=True, parse_file=False)
    solver = parser.bitwuzla()
    with kept_for_the_end() as seen:  # it asks between its steps whether to go on
        solver.configure_terminator(lambda: bool(seen))
        answer = solver.check_sat()
    if answer == bitwuzla.Result.UNKNOWN:
        raise UndecidedError(f"Bitwuzla gave up (after {timeout:g} s)")
    if answer == bitwuzla.Result.UNSAT:
        return None
    known = (f"(assert (= {name.symbol()} {solver.get_value(name)}))" for name in parser.get_declared_funs())
    model = by_z3(z3.And(z3.parse_smt2_string(text + "\n".join(known))), timeout)
    assert model is not None  # else one of the two is wrong
    return model


def milliseconds(timeout: float) -> int:
    """Return a limit as solvers take it, to which 0 is none."""
    return max(int(1000 * timeout), 1)


SOLVERS: Mapping[str, Callable[[Any, float], Any]] = {"z3": by_z3, "bitwuzla": by_bitwuzla}


def script(question: Any) -> str:
    """Return the question as a script of SMT-LIB 2, which ends by asking whether it can be true."""
    solver = z3.SolverFor("QF_BV")
    solver.add(question)
    return f"(set-logic QF_BV)\n{solver.to_smt2()}"
