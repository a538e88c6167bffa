"""Theorem files and the ledger: find the files, load them, run them, compare with the expected verdicts.

A file of `proofs/` is one theorem. Its docstring's first line is the title; `THEOREM` is the header (statement,
hypotheses, idea, method, reference, expected verdict); `prove()` is the machine check and returns a `Verdict`. Where it
takes long it is `prove(*, quick=False)`: a quick run covers a part, and the verdict says which.
"""

from __future__ import annotations

import collections
import contextlib
import enum
import functools
import importlib.util
import inspect
import sys
import time
import traceback
from collections.abc import Callable, Generator, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from qsim.errors import InputError, close_names, enumerate_names
from qsim.folders import folder
from qsim.processes import finished
from qsim.underflow import gradual_underflow
from qsim.verdicts import Outcome, Verdict

__all__ = ["Entry", "Method", "Proof", "Theorem", "all_held", "find", "run", "settle"]

INSTALL = "pip install 'qsim-numerics[prove]'"
"""Installs the packages that theorems may need beyond the library."""


class Method(enum.StrEnum):
    """How a theorem is checked; all but the last leave no chance of error."""

    EXHAUSTIVE = "exhaustive"
    """Every input, one by one."""
    EXACT = "exact rational"
    """Every outcome, added up in exact rational arithmetic; equality, no tolerance."""
    SMT = "SMT"
    """A solver shows that no input breaks the statement."""
    INTERVAL = "interval"
    """Arithmetic with outward rounding encloses both sides."""
    STATISTICAL = "statistical"
    """Random inputs, with a stated rate of false alarms."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Theorem:
    """State a theorem: the claim, its hypotheses, the idea, the method of its check, and the expected verdict."""

    statement: str
    #: What must be true of inputs and words; empty where the statement holds for all.
    hypotheses: tuple[str, ...]
    #: The proof in one or two sentences.
    idea: str
    method: Method
    #: Where the claim or its proof comes from.
    reference: str
    expected: Outcome = Outcome.HELD
    #: Modules the check imports that the library does without.
    needs: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for name in ("statement", "idea", "reference"):
            text = getattr(self, name)
            if not isinstance(text, str) or not text.strip():
                raise InputError(f"{name} of THEOREM must be a sentence, not {text!r}")
        for name, values, kind in (("hypotheses", self.hypotheses, str), ("needs", self.needs, str)):
            if not isinstance(values, tuple) or not all(isinstance(value, kind) for value in values):
                raise InputError(f"{name} of THEOREM must be a tuple of strings, not {values!r}")
        for name, value, choices in (("method", self.method, Method), ("expected", self.expected, Outcome)):
            if not isinstance(value, choices):
                raise InputError(f"{name} of THEOREM must be one of {choices.__name__}, not {value!r}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Proof:
    """Hold a loaded theorem file."""

    name: str
    title: str
    path: Path
    theorem: Theorem
    prove: Callable[..., Verdict]

    def run(self, *, quick: bool = False) -> Verdict:
        """Check the theorem; "not testable here" where a module it needs is not installed."""
        for module in self.theorem.needs:
            if importlib.util.find_spec(module) is None:
                return Verdict(outcome=Outcome.NOT_TESTABLE, covered=f"nothing: no module {module}; {INSTALL}")
        verdict = self.prove(quick=quick) if "quick" in inspect.signature(self.prove).parameters else self.prove()
        if not isinstance(verdict, Verdict):
            raise TypeError(f"prove() of {self.name} returned {type(verdict).__name__}, not a Verdict")
        return verdict

    def describe(self) -> dict[str, Any]:
        """Return the title and the header as plain data, for JSON."""
        theorem = self.theorem
        return {
            "name": self.name, "title": self.title, "statement": theorem.statement,
            "hypotheses": list(theorem.hypotheses), "idea": theorem.idea, "method": str(theorem.method),
            "reference": theorem.reference, "expected": str(theorem.expected),
        }  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """Hold one line of the ledger: the verdict, or the traceback of a check that broke."""

    proof: Proof
    verdict: Verdict | None
    #: The traceback where `verdict` is `None`.
    error: str = ""
    seconds: float

    @property
    def as_expected(self) -> bool:
        """Whether the verdict is the one that the file expects."""
        return self.verdict is not None and self.verdict.outcome is self.proof.theorem.expected

    def describe(self) -> dict[str, Any]:
        """Return the entry as plain data, for JSON."""
        found = {name: getattr(self.verdict, name, "") for name in ("outcome", "covered", "counterexample")}
        return {
            **self.proof.describe(), **found, "as_expected": self.as_expected, "error": self.error,
            "seconds": round(self.seconds, 3),
        }  # fmt: skip


def find(names: Iterable[str] = (), place: Path | None = None) -> list[Proof]:
    """Load the theorems called `names`, in that order, or all in alphabetical order where none is named.

    `place` is the folder of theorem files, by default `proofs/`. Raise `InputError` for a name that is none, and for a
    file that is not as a theorem file should be.
    """
    files = {path.stem: path for path in sorted((place or folder("proofs")).glob("*.py"))}
    asked = list(dict.fromkeys(names))
    for name in asked:
        if name not in files:
            near = enumerate_names(close_names(name, files))
            hint = f"did you mean {near}?" if near else "`qsim prove --list` names them"
            raise InputError(f"no theorem is called {name!r}; {hint}")
    return [load(files[name]) for name in asked or files]


def load(path: Path) -> Proof:
    """Load the theorem file `path` as module `qsim_proof_STEM`; raise `InputError` if it is not one."""
    name = f"qsim_proof_{path.stem}"
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None  # the name ends in .py
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # so that worker processes find what they unpickle
    try:
        spec.loader.exec_module(module)
        theorem, prove = getattr(module, "THEOREM", None), getattr(module, "prove", None)
        if not isinstance(theorem, Theorem):
            raise InputError("has no THEOREM = qsim.prove.Theorem(...)")
        if not inspect.isfunction(prove) or not set(inspect.signature(prove).parameters) <= {"quick"}:
            raise InputError("has no function prove() or prove(*, quick=False)")
        if not (module.__doc__ or "").strip():
            raise InputError("has no docstring, whose first line would be the title")
    except Exception as error:
        del sys.modules[name]
        found = str(error) if isinstance(error, InputError) else f"cannot be loaded ({type(error).__name__}: {error})"
        raise InputError(f"{path}: {found}") from error
    return Proof(name=path.stem, title=inspect.cleandoc(module.__doc__ or "").splitlines()[0].rstrip("."),
                 path=path, theorem=theorem, prove=prove)  # fmt: skip


Finding = tuple[Verdict | None, str, float]
"""A verdict, or `None` and a traceback; and the seconds it took."""


def run(proofs: Sequence[Proof], *, quick: bool = False, jobs: int = 1) -> Generator[Entry, None, None]:
    """Check theorems by `jobs` processes, and yield the entries of the ledger in the order of `proofs`.

    Each is yielded as soon as it and those before it are there. The processes load the files anew; they are ended before this
    returns, also on Ctrl-C. With one job the theorems are checked here, as they are loaded.
    """
    jobs = min(jobs, len(proofs))
    if jobs <= 1:
        yield from (entry(proof, check(proof, quick=quick)) for proof in proofs)
        return
    # The solver's theorems take longest, and what starts last should be short.
    first = sorted(proofs, key=lambda proof: proof.theorem.method is not Method.SMT)
    found: dict[str, Finding] = {}
    waiting = collections.deque(proofs)
    check_one = functools.partial(check_file, quick=quick)
    with contextlib.closing(finished(jobs, check_one, [(proof.path,) for proof in first])) as ended:
        for index, future in ended:
            error = future.exception()  # a worker that died is the finding
            trace = "".join(traceback.format_exception(error)) if error else ""
            found[first[index].name] = (None, trace, 0.0) if error else future.result()
            while waiting and waiting[0].name in found:
                proof = waiting.popleft()
                yield entry(proof, found[proof.name])


def entry(proof: Proof, finding: Finding) -> Entry:
    """Return the line of the ledger for the result of a theorem."""
    verdict, error, seconds = finding
    return Entry(proof=proof, verdict=verdict, error=error, seconds=seconds)


def check_file(path: Path, *, quick: bool) -> Finding:
    """Load and check a theorem in a process of its own."""
    return check(load(path), quick=quick)


@gradual_underflow
def check(proof: Proof, *, quick: bool) -> Finding:
    """Check a theorem, and return the verdict or the traceback."""
    start = time.perf_counter()
    verdict, error = None, ""
    try:
        verdict = proof.run(quick=quick)
    except Exception:  # noqa: BLE001 - whatever broke is the finding; the other theorems still run
        error = traceback.format_exc()
    return verdict, error, time.perf_counter() - start


def settle(failures: Iterable[str], covered: str) -> Verdict:
    """Return "held" where there are no failures, else "refuted" by the first; `covered` describes the inputs tried."""
    for failure in failures:
        return Verdict(outcome=Outcome.REFUTED, covered=covered, counterexample=failure)
    return Verdict(outcome=Outcome.HELD, covered=covered)


def all_held(verdicts: Iterable[Verdict], covered: str) -> Verdict:
    """Return the first of `verdicts` that is not "held", else "held" over `covered`: a theorem in several parts."""
    held = Verdict(outcome=Outcome.HELD, covered=covered)
    return next((verdict for verdict in verdicts if verdict.outcome is not Outcome.HELD), held)
