"""The frame of the theorems, each theorem in its quick form, and faults that each kind of proof must notice."""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import pickle
import re
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path
from types import ModuleType
from typing import get_args

import numpy as np
import pytest
import z3
from covered import covers
from hypothesis import given, settings
from hypothesis import strategies as st
from mutants import MUTANTS, OF_CODES, OF_SHORTCUTS, OF_WORDS, loaded, module_of, mutant
from strategies import NAMED, SMALL, inputs

from qsim import reference
from qsim.cli import main
from qsim.errors import InputError
from qsim.formats import Format, get_format
from qsim.kernels import core, cpu
from qsim.kernels.parameters import Shortcut, shortcut, stochastic
from qsim.prove import Proof, find, frame, run, settle, smt, specification
from qsim.prove.specification import FLOAT32, FLOAT64
from qsim.rounding import NANS, Mode, Saturation, saturations
from qsim.verdicts import Outcome, Verdict

SWEEPS = ("deterministic_kernel_exhaustive", "wide_kernel_exhaustive")
"""The theorem that tests/test_sweeps.py runs: format by format, and in full with a bar."""
THEOREMS = [proof.name for proof in find() if proof.name not in SWEEPS]
SMT = sys.modules["qsim_proof_modes_kernel_smt"]
SMT_FORMATS = [get_format(name) for name in SMT.FORMATS]
SMT_MODES = {*SMT.DETERMINISTIC, Mode.THR, *(mode for mode, _ in SMT.RANDOM), Mode.SR}
"""SR is a theorem of its own, to E4M3 of float32 and float64."""
ANY_FORMAT = sys.modules["qsim_proof_any_format_smt"]
ANY_MODES = {*ANY_FORMAT.FIXED, Mode.SR, *(mode for mode, _ in ANY_FORMAT.RANDOM)}
SMT_INPUTS = "all float32 and all words, eps and N of a list"
GRIDS = [fmt for fmt in SMALL if specification.FLOAT32.holds(fmt)]
"""The small formats that the core rounds float32 to."""


def rules(fmt: Format) -> list[Saturation]:
    """Return the saturation rules that are the kernel's business: wrapping around comes after it."""
    return [rule for rule in saturations(fmt) if rule is not Saturation.wrap]


# --- The frame -------------------------------------------------------------------------------------------------------

HEADER = """\
    statement="One and one are two.", hypotheses=(), idea="Count.", method=Method.EXACT, reference="common knowledge",
"""
FILE = f'''\
"""One and one.

More about it.
"""

from qsim.prove import Method, Theorem
from qsim.verdicts import Outcome, Verdict

THEOREM = Theorem(
{HEADER})


def prove(*, quick=False):
    return Verdict(outcome=Outcome.HELD, covered="a part" if quick else "all")
'''
PROVE = FILE[FILE.index("def prove") :]


def written(folder: Path, name: str = "one_and_one", text: str = FILE, **replaced: str) -> Path:
    """Write a theorem file, some of its texts replaced, and return its folder."""
    for old, new in replaced.items():
        assert old in text
        text = text.replace(old, new)
    (folder / f"{name}.py").write_text(text, encoding="utf-8")
    return folder


def only(folder: Path) -> Proof:
    """Return the one theorem of `folder`."""
    (proof,) = find(place=folder)
    return proof


def test_a_theorem_is_loaded_and_run(tmp_path) -> None:
    """A theorem file becomes a name, a title, a header and a verdict."""
    proof = only(written(tmp_path))
    assert (proof.name, proof.title, proof.theorem.idea) == ("one_and_one", "One and one", "Count.")
    assert proof.run() == Verdict(outcome=Outcome.HELD, covered="all")
    assert proof.run(quick=True).covered == "a part"


def test_a_theorem_without_a_quick_form(tmp_path) -> None:
    """A check that has nothing to leave out is prove(), and runs in a quick run as it is."""
    text = FILE.replace("*, quick=False", "").replace('"a part" if quick else "all"', '"all"')
    assert only(written(tmp_path, text=text)).run(quick=True).covered == "all"


def test_theorem_files_can_be_unpickled(tmp_path) -> None:
    """What a theorem file defines survives pickling, as worker processes need."""
    proof = only(written(tmp_path))
    assert pickle.loads(pickle.dumps(proof.prove)) is proof.prove  # noqa: S301 - its own bytes


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        (FILE.replace("THEOREM", "OTHER"), "has no THEOREM"),
        (FILE.replace("THEOREM = Theorem(", "THEOREM = dict("), "has no THEOREM"),
        (FILE.replace("def prove", "def other"), "has no function prove"),
        (FILE.replace("*, quick=False", "x"), "has no function prove"),
        (FILE[FILE.index("from qsim.prove") :], "has no docstring"),
        (FILE.replace("def prove(*", "def prove(*)"), "line 14"),
        (FILE.replace('idea="Count.", ', ""), "idea"),
        (FILE.replace('"Count."', '""'), "idea of THEOREM must be a sentence"),
        (FILE.replace("hypotheses=()", 'hypotheses="none"'), "hypotheses of THEOREM must be a tuple"),
        (FILE.replace("Method.EXACT", '"exact"'), "method of THEOREM must be one of Method"),
        (FILE.replace("reference=", 'expected="held", reference='), "expected of THEOREM must be one of Outcome"),
        (FILE.replace("import Method", "import Way"), "ImportError"),
        ("1 / 0", "ZeroDivisionError"),
    ],
)
def test_a_malformed_theorem_is_refused(tmp_path, text, problem) -> None:
    """A file that is no theorem is refused in one sentence, which names the file and what is wrong with it."""
    with pytest.raises(InputError, match=re.escape(problem)) as refusal:
        find(place=written(tmp_path, text=text))
    assert str(tmp_path / "one_and_one.py") in str(refusal.value)
    assert "qsim_proof_one_and_one" not in sys.modules


def test_unknown_names_get_the_nearest() -> None:
    """A name that is no theorem is refused with names that are."""
    with pytest.raises(InputError, match=r"did you mean .*stochastic_rounding_moments"):
        find(["stochastic_moments"])


def test_names_choose_and_order() -> None:
    """Named theorems come in the order of the names, each once."""
    names = ["stochastic_rounding_moments", "at1_weight_gradient_variance", "stochastic_rounding_moments"]
    assert [proof.name for proof in find(names)] == names[:2]


def test_a_check_that_breaks_is_reported(tmp_path) -> None:
    """An exception in one theorem is that theorem's entry, with the traceback; the others still run."""
    written(tmp_path, "a", **{"return": "raise KeyError('lost')  #"})
    written(tmp_path, "b", **{"return Verdict": "return dict"})
    written(tmp_path, "c")
    a, b, c = run(find(place=tmp_path))
    assert "KeyError: 'lost'" in a.error
    assert "not a Verdict" in b.error
    assert [entry.as_expected for entry in (a, b, c)] == [False, False, True]
    assert a.verdict is None


def test_processes_find_the_same(tmp_path) -> None:
    """Theorems that two processes check have the entries of one, in the order asked for, whatever ends first or breaks."""
    written(tmp_path, "a", **{"return": "__import__('time').sleep(0.5); return"})
    written(tmp_path, "b", **{"return": "raise KeyError('lost')  #"})
    written(tmp_path, "c", **{"EXACT": "SMT", "HELD, ": 'REFUTED, counterexample="1 + 1 = 3", '})
    proofs = find(["c", "a", "b"], tmp_path)
    here, there = ([entry.describe() for entry in run(proofs, quick=True, jobs=jobs)] for jobs in (1, 2))
    for one, other in zip(here, there, strict=True):
        assert one.pop("seconds") >= 0
        assert other.pop("seconds") >= 0
        assert one.pop("error").splitlines()[-1:] == other.pop("error").splitlines()[-1:]  # the call stack is another
        assert one == other


def test_a_process_that_dies_is_reported(tmp_path) -> None:
    """A check that takes its process with it is broken, and is no theorem that held."""
    written(tmp_path, "a", **{"return": "__import__('os')._exit(1)  #"})
    written(tmp_path, "b", **{"return": "__import__('time').sleep(60)  #"})
    for entry in run(find(place=tmp_path), jobs=2):
        assert not entry.as_expected
        assert "TerminatedWorkerError" in entry.error


def test_a_refutation_can_be_expected(tmp_path) -> None:
    """What counts is whether the verdict is the one the file expects, be it a refutation."""
    changes = {"Outcome.HELD": "Outcome.REFUTED", "reference=": "expected=Outcome.REFUTED, reference="}
    (entry,) = run([only(written(tmp_path, **changes))])
    assert entry.as_expected
    assert entry.describe()["outcome"] == "refuted"


def test_without_the_solver(monkeypatch) -> None:
    """Where z3 is missing its theorems are not testable here, and the verdict says what to install."""
    monkeypatch.setitem(sys.modules, "z3", None)
    for name in ("rne_kernel_e4m3_smt", "sr_kernel_e4m3_smt"):
        verdict = find([name])[0].run(quick=True)
        assert verdict.outcome is Outcome.NOT_TESTABLE
        assert "pip install 'qsim-numerics[prove]'" in verdict.covered


def test_settle_takes_the_first_failure() -> None:
    """The first failure is the counterexample, and no more are looked for."""
    assert settle(iter(()), "all").outcome is Outcome.HELD
    failures = iter(["first", "second"])
    assert settle(failures, "all").counterexample == "first"
    assert next(failures) == "second"


# --- The command -----------------------------------------------------------------------------------------------------


@pytest.fixture
def proofs(tmp_path, monkeypatch) -> Path:
    """Let `qsim prove` look for theorems in an empty folder."""
    monkeypatch.setattr(frame, "folder", lambda _: tmp_path)
    return tmp_path


def test_the_command_prints_the_ledger(proofs, capsys) -> None:
    """Each theorem is shown with verdict, name, time and what was covered; 0 means all came out as expected."""
    written(proofs)
    assert main(["prove", "--quick"]) == 0
    out = capsys.readouterr().out
    assert re.search(r"held +one_and_one +\d+\.\d s\n +a part\n\n1 theorem: 1 as expected", out)


def test_the_command_fails_with_a_theorem(proofs, capsys) -> None:
    """Exit code 1 and the counterexample, or the traceback, if a theorem did not come out as expected."""
    written(proofs, "a", **{"HELD, ": 'REFUTED, counterexample="1 + 1 = 3", '})
    written(proofs, "b", **{"return": "raise KeyError('lost')  #"})
    written(proofs, "c")
    assert main(["prove"]) == 1
    out = capsys.readouterr().out
    assert re.search(r"refuted +a .*\[expected: held\]\n +all\n +1 \+ 1 = 3\n", out)
    assert re.search(r"broken +b .*\n +Traceback", out)
    assert "3 theorems: 1 as expected, not as expected: a, b" in out


def test_the_command_writes_json(proofs, capsys) -> None:
    """With --json the ledger is a list of objects, with the statements."""
    written(proofs)
    assert main(["prove", "one_and_one", "--json"]) == 0
    (entry,) = json.loads(capsys.readouterr().out)
    assert entry["outcome"] == entry["expected"] == "held"
    assert (entry["covered"], entry["method"], entry["as_expected"]) == ("all", "exact rational", True)


def test_the_command_lists(proofs, capsys) -> None:
    """--list shows the theorems and checks none."""
    written(proofs, **{"return": "raise KeyError('lost')  #"})
    assert main(["prove", "--list"]) == 0
    assert "one_and_one  One and one" in capsys.readouterr().out
    assert main(["prove", "--list", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)[0]["statement"] == "One and one are two."


def test_the_command_refuses(proofs, capsys) -> None:
    """Exit code 2 for a theorem that there is not, and for a file that is none."""
    written(proofs)
    assert main(["prove", "one_and_won"]) == 2
    assert "did you mean one_and_one?" in capsys.readouterr().err
    written(proofs, "two", "import nothing_of_this_name")
    assert main(["prove"]) == 2
    assert "two.py: cannot be loaded (ModuleNotFoundError" in capsys.readouterr().err


def test_the_number_of_processes(proofs, capsys) -> None:
    """--jobs takes a positive number of processes."""
    written(proofs)
    assert main(["prove", "--jobs", "0"]) == 2
    assert capsys.readouterr().err == "qsim: --jobs 0: give at least 1 process\n"
    assert main(["prove", "--jobs", "3"]) == 0


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM], ids=lambda how: how.name)
@pytest.mark.parametrize("moment", ["while they start", "at work"])
def test_an_interrupt_ends_the_processes(moment, how, tmp_path) -> None:
    """Ctrl-C, which all processes get, and SIGTERM, which the command gets, end it with 130 and 143, and not a word."""
    for name in "abcdefgh":  # more than are handed over at a time
        written(tmp_path, name, **{"return": "print('working', flush=True); __import__('time').sleep(60); return"})
    program = (
        "import pathlib, signal, sys\nfrom qsim.cli import main\nfrom qsim import processes\nfrom qsim.prove import frame\n"
        # A shell that starts the tests in the background has them ignore the signal, and a child inherits that.
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n"
        "submitted = processes.submitted\n"
        "def handed_over(*task):\n    future = submitted(*task)\n    print('handed over', flush=True)\n    return future\n"
        "processes.submitted = handed_over\n"
        f"frame.folder = lambda _: pathlib.Path({str(tmp_path)!r})\nsys.exit(main(['prove', '--jobs', '2']))"
    )
    run = subprocess.Popen([sys.executable, "-c", program], start_new_session=True, text=True,
                           stdout=subprocess.PIPE, stderr=subprocess.PIPE)  # fmt: skip
    try:
        assert run.stdout is not None
        assert [run.stdout.readline() for _ in range(4)] == ["handed over\n"] * 4
        if moment == "at work":
            assert run.stdout.readline() == run.stdout.readline() == "working\n"
        else:
            time.sleep(0.1)  # they import for longer than that
        (os.killpg if how is signal.SIGINT else os.kill)(run.pid, how)
        assert run.communicate(timeout=30) == ("", "")  # which waits for all who hold the pipes, the processes too
        assert run.returncode == 128 + how
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(run.pid, signal.SIGKILL)


# --- The theorems ----------------------------------------------------------------------------------------------------


@covers("proved", formats=SMT_FORMATS[:1], modes=SMT_MODES, saturations="default", inputs=SMT_INPUTS)
@covers(
    "proved", formats="any float format or even grid that float32 holds", modes=[Mode.RNE], saturations="any ends and results",
    inputs="all float32",
)  # fmt: skip
@pytest.mark.parametrize("name", THEOREMS)
def test_the_theorem_holds(name) -> None:
    """The theorem comes out as its file expects, in a quick run."""
    (entry,) = run(find([name]), quick=True)
    assert entry.as_expected, entry.error or str(entry.verdict)


@covers("proved", formats=SMT_FORMATS, modes=SMT_MODES, saturations="all but wrap", inputs=SMT_INPUTS, when="on demand")
@covers(
    "proved", formats="any float format or even grid that float32, or float64, holds", modes=ANY_MODES,
    saturations="any ends and results", inputs="all float32 and float64; all eps and all words of SR and of N = 8",
    when="on demand",
)  # fmt: skip
@pytest.mark.exhaustive
@pytest.mark.parametrize("name", THEOREMS)
def test_the_theorem_holds_in_full(name) -> None:
    """The theorem comes out as its file expects."""
    (entry,) = run(find([name]))
    assert entry.as_expected, entry.error or str(entry.verdict)


def refuted(proof: Proof) -> str:
    """Return the counterexample of a theorem that must be refuted."""
    verdict = proof.run(quick=True)
    assert verdict.outcome is Outcome.REFUTED, str(verdict)
    return verdict.counterexample


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("(hi - Fraction(z)) * (Fraction(z) - lo)", "(hi - lo) ** 2 / 4"),
        ("(hi - Fraction(z)) * (Fraction(z) - lo)", "(hi - lo) ** 2 / 6"),
        (" + v(x, x_format) * v(d, d_format)", ""),
        ("d**2 * v(x, x_format) + ", ""),
        ("x**2 * v(d, d_format) + ", ""),
        ("sum(terms) / b**2", "sum(terms) / b"),
    ],
    ids=["bound", "average", "no cross term", "no activations", "no errors", "decay"],
)
def test_another_variance_of_the_gradient_is_refuted(old, new, tmp_path) -> None:
    """A-T1 with another closed form is refuted, so its cases tell the right one from its neighbours."""
    _, module = loaded("at1_weight_gradient_variance")
    text = Path(module.__file__).read_text(encoding="utf-8")
    assert "mean and variance are" in refuted(only(written(tmp_path, text=text, **{old: new})))


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("1 << (fmt.precision + 1)), F", "1 << (fmt.precision + 2)), F"),
        ("1 << (fmt.precision + 1)), F", "1 << fmt.precision), F"),
        (", Fraction(1, 1 << fmt.precision)\n", ", Fraction(1, (1 << fmt.precision) + 1)\n"),
        ("(1 << fmt.precision) + 2)", "(1 << fmt.precision) + 3)"),
        ("(1 << fmt.precision) + 2)", "(1 << fmt.precision) + 1)"),
    ],
    ids=["too small", "too large", "seen too early", "moved too early", "moved too late"],
)
def test_other_constants_of_stagnation_are_refuted(old, new, tmp_path) -> None:
    """Both constants, and that of the moving average, are the only ones: any other is not held, or not met."""
    _, module = loaded("nearest_stagnation")
    text = Path(module.__file__).read_text(encoding="utf-8")
    assert refuted(only(written(tmp_path, text=text, **{old: new})))


@pytest.mark.parametrize("side", ["reference", "kernel"])
def test_a_biased_rounding_is_refuted(side, monkeypatch) -> None:
    """A word too many that goes up is noticed, in the reference and in the kernel."""
    proof, module = loaded("stochastic_rounding_moments")
    if side == "reference":
        honest = reference.away

        def away(mode, nu, odd, negative, sr_bits, rbits, eps):
            return honest(mode, nu, odd, negative, sr_bits, min(rbits + 1, 2**sr_bits - 1), eps)

        monkeypatch.setattr(reference, "away", away)
    else:

        def round_by_words(x, words, y, source, p):
            r = words & source.mask
            for i, u in enumerate(x):
                more = min(int(r[i]), int(p.largest) - 1) + 1
                y[i] = specification.evaluate(core, u, more, more, specification.Pair(p, p), sticky=0).value

        module.cpu = ModuleType("cpu")
        module.cpu.round_by_words = round_by_words
        module.FORMATS = ("e2m1f",)
    assert "of the 2^" in refuted(proof)


def test_a_biased_kernel_word_matters_below_r() -> None:
    """A kernel that reads bits below R differs between words with those bits all 0 and all 1, and is noticed."""
    proof, module = loaded("stochastic_rounding_moments")
    module.cpu = ModuleType("cpu")
    module.cpu.round_by_words = lambda x, words, y, _, p: cpu.round_by_words(
        x, words, y, stochastic(Mode.SR, 32, x.view(np.float32).dtype), p
    )
    assert "of the 2^" in refuted(proof)


faults_of_modes = pytest.mark.parametrize(
    ("mode", "n", "old", "new"),
    [
        (Mode.RAZ, 0, "word(0) if even == p.largest else near", "near"),
        (Mode.RTZ, 0, "tie if even > word(0) else word(p.quantum - word(1))", "tie"),
        (Mode.RNA, 0, "word(max(p.halfway, word(1)) - word(1)) if even >= p.sign else p.halfway", "p.halfway"),
        (Mode.RTO, 0, "r = odd if word(word(a", "r = even if word(word(a"),
        (Mode.SRB, 8, "word(word(spread | source.half) - less)", "word(spread - less)"),
        (Mode.SRC, 8, "word(word(spread | source.half) - less)", "word(spread | source.half)"),
        (Mode.SRC, 0, "word(word(kept & source.last) ^ source.flip)", "word(kept & source.last)"),
        (Mode.SRC, 31, "more = sticky if back != m else word(0)", "more = word(0)"),
        (Mode.SRE, 8, "less if source.all_or_none == word(0) else (word(1) if kept > word(0) else word(0))", "less"),
        (Mode.THR, 0, "(word(0) if negative else word(1))", "word(0)"),
        (Mode.THR, 0, "(eps if negative else word(~eps))", "word(~eps)"),
    ],
    ids=str,
)
"""A term dropped from what a mode needs."""


@pytest.mark.in_part(2)
@faults_of_modes
def test_a_fault_in_a_mode_is_refuted(mode, n, old, new, tmp_path) -> None:
    """A term dropped from what a mode needs is refuted by a counterexample that fails when it is evaluated."""
    _, module = loaded("modes_kernel_smt")
    module.core = mutant(tmp_path, old, new)
    verdict = module.prove_one(get_format("float8_e4m3fn"), Saturation.SatFinite, mode, n)
    assert verdict.outcome is Outcome.REFUTED
    assert contradiction(verdict.counterexample)


def contradiction(text: str) -> bool:
    """Whether a counterexample names a kernel's result that is not the reference's; the kernel's was evaluated."""
    found = re.search(r"the kernel gives (\S+) with code (\S+), the reference (\S+) with code (\S+)", text)
    assert found, text
    return found.group(1, 2) != found.group(3, 4)


# --- Mutants of the kernel, for the solver ---------------------------------------------------------------------------


@pytest.mark.in_part(2)
@pytest.mark.parametrize("name", [name for name in MUTANTS if name not in OF_WORDS | OF_SHORTCUTS | OF_CODES])
def test_a_mutant_is_refuted(name, tmp_path) -> None:
    """A kernel with one fault in its source is refuted by a counterexample that fails when it is evaluated."""
    proof, module = loaded("rne_kernel_e4m3_smt")
    module.core = mutant(tmp_path, *MUTANTS[name])
    assert contradiction(refuted(proof))


@pytest.mark.parametrize("name", ["addend off by one", "addend one bit high", "no carry", *OF_WORDS])
def test_a_stochastic_mutant_is_refuted(name, tmp_path) -> None:
    """So it is with stochastic rounding, by an input together with a word."""
    proof, module = loaded("sr_kernel_e4m3_smt")
    module.core = mutant(tmp_path, *MUTANTS[name])
    text = refuted(proof)
    assert contradiction(text)
    assert "rbits = " in text


@pytest.mark.parametrize(
    ("name", "man_bits"),
    [
        ("parity of the code dropped", 0),
        ("grid one place low", 3),
        ("no carry", 3),
        ("limit excluded", 3),
        ("sign lost", 3),
        ("binade begins late", 3),
    ],
)
def test_a_mutant_is_refuted_for_formats_unknown(name, man_bits, tmp_path) -> None:
    """So it is where the format is unknown as well, and the counterexample names one."""
    _, module = loaded("any_format_smt")
    module.core = mutant(tmp_path, *MUTANTS[name])
    verdict = module.prove_one(Mode.RNE, even=False, man_bits=man_bits)
    assert verdict.outcome is Outcome.REFUTED
    assert f"man_bits = {man_bits}, emin = " in verdict.counterexample


@pytest.mark.in_part(3)
@pytest.mark.parametrize("carrier", [FLOAT32, FLOAT64], ids=lambda carrier: str(carrier.dtype))
@faults_of_modes
def test_a_fault_in_a_mode_is_refuted_for_formats_unknown(mode, n, old, new, carrier, tmp_path) -> None:
    """So are faults of modes, for either carrier and with all numbers of mantissa bits at once."""
    _, module = loaded("any_format_smt")
    module.core = mutant(tmp_path, old, new)
    verdict = module.prove_one(mode, n, even=False, carrier=carrier)
    assert verdict.outcome is Outcome.REFUTED
    assert f", {mode}: " in verdict.counterexample


@pytest.mark.in_part(3)
@pytest.mark.parametrize("name", OF_SHORTCUTS)
def test_a_mutant_of_a_shortcut_is_refuted(name, tmp_path) -> None:
    """A short way to the ends of a range with one fault is not the whole one: there is a magnitude, a pattern and an end."""
    proof, module = loaded("shortcuts_smt")
    module.core = mutant(tmp_path, *MUTANTS[name])
    assert re.search(r"y = 0x[0-9a-f]+ of pattern 0x[0-9a-f]+ becomes (0x[0-9a-f]+), not (?!\1\b)0x", refuted(proof))


@pytest.mark.parametrize("name", OF_CODES)
def test_a_mutant_of_the_way_to_a_code_is_refuted(name, tmp_path) -> None:
    """The short way to a code with one fault is not the whole one: there is a format and an input, in one of two modes."""
    _, module = loaded("counting_smt")
    module.core = mutant(tmp_path, *MUTANTS[name])
    verdicts = (module.prove_one(mode, even=False) for mode in (Mode.RNE, Mode.RAZ))
    assert any(verdict.outcome is Outcome.REFUTED and "becomes code" in verdict.counterexample for verdict in verdicts)


@pytest.mark.parametrize("carrier", [FLOAT32, FLOAT64], ids=lambda carrier: str(carrier.dtype))
def test_the_shortcuts_are_taken_where_the_theorem_allows(carrier) -> None:
    """Of every format, saturation, direction and result the short way that is chosen is one of which the theorem speaks."""
    _, module = loaded("shortcuts_smt")
    taken = set()
    none = carrier.word(0)
    for fmt in (fmt for fmt in {*SMALL, *NAMED} if carrier.holds(fmt)):
        choices = itertools.product(saturations(fmt), (Mode.RNE, Mode.RTZ, Mode.RUP, Mode.RDN), NANS)
        pairs = [specification.pair(fmt, rule, carrier, mode, nan=nan) for rule, mode, nan in choices]
        for p in {p for both in pairs for p in both}:
            how = shortcut(p)
            taken.add(how)
            if how == "ranged":
                continue
            with np.errstate(over="ignore"):
                small = core.last_to_zero(none, p)
                least = (core.deterministic(p.inf, none, none, small, p), core.stochastic(p.inf, none, none, p))
            words = smt.constants(p)
            for u, y in ((none, none), *((p.inf, y) for y in least)):
                given = module.conditions(z3, words, *(smt.word(int(word), carrier.width) for word in (y, u)), how)
                assert z3.is_true(z3.simplify(given)), f"{fmt}, {how}: {p}"
    assert taken == set(get_args(Shortcut))


@pytest.mark.parametrize("choice", [(Mode.RNE,), (Mode.RAZ,), (Mode.SRC, 8)], ids=str)
def test_a_format_without_zero_may_end_where_float32_does(choice) -> None:
    """Half of its smallest value is a subnormal float32, which lies between no two codes, and the kernel has it so."""
    _, module = loaded("any_format_smt")
    honest = module.unknown

    def at_the_end(z3, carrier, *, even):
        both, known, man, low, has_zero = honest(z3, carrier, even=even)
        return both, [*known, low == 1, has_zero == 0], man, low, has_zero

    module.unknown = at_the_end
    verdict = module.prove_one(*choice, even=False)
    assert verdict.outcome is Outcome.HELD, str(verdict)


@pytest.mark.parametrize("choice", [(Mode.RNE,), (Mode.SRC, 8)], ids=str)
def test_no_shift_reaches_the_width(choice, monkeypatch) -> None:
    """Whatever the format, all shifts of a word of 32 bits stay below 32, so that a vector's shift is the same.

    That the results are right is the theorem's business: here the solver is asked about the shifts alone.
    """
    _, module = loaded("any_format_smt")
    decide = smt.decide
    monkeypatch.setattr(smt, "SHIFT_LIMIT", 32)
    monkeypatch.setattr(smt, "decide", lambda _, *given, **asked: decide(z3.BoolVal(True), *given, **asked))
    for even in (False, True):
        verdict = module.prove_one(*choice, even=even, man_bits=3)
        assert verdict.outcome is Outcome.HELD, str(verdict)
        assert "shifts stay below 32" in verdict.covered


@pytest.mark.parametrize(
    ("name", "old", "new", "line"),
    [
        (
            "rne_kernel_e4m3_smt",
            "s = word(word(p.floor - e) & p.last)",
            "s = word(p.floor - e)",
            "    r = odd if word(word(a ^ p.parity) << rest) >= p.sign else even",
        ),
        ("sr_kernel_e4m3_smt", "word(m >> word(k & p.last))", "word(m >> k)", "    shifted = word(m >> k)"),
    ],
)
def test_a_shift_of_64_is_refuted(name, old, new, line, tmp_path) -> None:
    """A kernel whose results are right but that shifts by 64 somewhere is refuted, with the line."""
    proof, module = loaded(name)
    module.core = mutant(tmp_path, old, new)
    number = Path(module.core.__file__).read_text(encoding="utf-8").splitlines().index(line) + 1
    assert refuted(proof) == f"mutant.py, line {number}: a shift by 64 or more"


# --- The reader ------------------------------------------------------------------------------------------------------

both_carriers = pytest.mark.parametrize("carrier", [FLOAT32, FLOAT64], ids=lambda carrier: str(carrier.dtype))


def number(term: z3.ExprRef) -> int:
    """Return the value of a term without unknowns."""
    return z3.simplify(term).as_long()


def read(u: int, even: int, odd: int, both: specification.Pair, sticky: int | None = None) -> specification.Result:
    """Return what the reader makes of the core on one pattern."""
    reader, width = smt.Reader(), 8 * both.value.sign.dtype.itemsize
    more = None if sticky is None else smt.word(sticky, width)
    terms = specification.read(
        reader, core, *(smt.word(value, width) for value in (u, even, odd)), [*map(smt.constants, both)], more
    )
    assert all(z3.is_true(z3.simplify(obligation.condition)) for obligation in reader.obligations)
    return specification.Result(*map(number, terms))


@both_carriers
@settings(max_examples=50)
@given(data=st.data())
def test_the_reader_agrees_with_python_and_numba(carrier, data) -> None:
    """A term of the core has the value that Python and Numba compute, whatever the pattern, the addend and the word."""
    fmt = data.draw(st.sampled_from(GRIDS))
    x = data.draw(inputs(fmt, carrier.dtype))
    u, whole = int(x.view(carrier.word)), 1 << carrier.width
    both = specification.pair(fmt, data.draw(st.sampled_from(rules(fmt))), carrier)
    half = whole >> 1
    t = core.Addends(*map(carrier.word, data.draw(st.tuples(*[st.sampled_from([0, half - 1, half, whole - 1])] * 4))))
    even, odd = (int(t.even_neg), int(t.odd_neg)) if u & half else (int(t.even_pos), int(t.odd_pos))
    y, codes = np.empty(1, carrier.word), np.empty(1, np.uint8)
    at = np.array([u], carrier.word)
    if t[:2] != t[2:]:  # no mode looks at the sign and at the lower code, so no loop does
        t, odd = t._replace(odd_pos=t.even_pos, odd_neg=t.even_neg), even
    cpu.round_by_addends(at, y, t, both.value)
    cpu.round_by_addends(at, codes, t, both.code, codes=True)
    assert read(u, even, odd, both) == specification.evaluate(core, u, even, odd, both) == (int(y[0]), int(codes[0]))

    w = data.draw(st.integers(0, whole - 1))
    mode, n = data.draw(st.sampled_from([(Mode.SRA, carrier.width), (Mode.SRB, 8), (Mode.SRC, 0), (Mode.SRE, 1)]))
    source = stochastic(mode, n, carrier.dtype)
    r, sticky = map(int, core.addend(carrier.word(w), source))
    cpu.round_by_words(at, np.array([w], carrier.word), y, source, both.value)
    cpu.round_by_words(at, np.array([w], carrier.word), codes, source, both.code, codes=True)
    found = read(u, r, r, both, sticky)
    assert found == specification.evaluate(core, u, r, r, both, sticky) == (int(y[0]), int(codes[0]))
    # Of any addend, sticky or not, that no mode has, the term has the value of Python.
    for sticky in (0, 1):
        assert read(u, w, w, both, sticky) == specification.evaluate(core, u, w, w, both, sticky)


def test_the_reader_reads_philox() -> None:
    """Loops, tuples and constants of the module are read as well: the known answer for zeros comes out."""
    block = smt.Reader().call(core.philox4x32_10, *[smt.word(0, 64)] * 6)
    assert [number(term) for term in block] == [0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8]


def test_the_reader_reads_truth_values(tmp_path) -> None:
    """`and`, `or` and `not` of comparisons are read."""
    f = function(tmp_path, "return word(1) if (a > word(2) and not a == word(5)) or a < word(1) else word(0)")
    answers = [number(smt.Reader().call(f, smt.word(a, 32))) for a in range(8)]
    assert answers == [1, 0, 0, 1, 1, 0, 1, 1]


def test_shifts_by_the_width_or_more_give_zero(tmp_path) -> None:
    """A shift by 32 .. 63 gives 0 to a uint32, as NumPy and Numba have it."""
    f = function(tmp_path, "return word(word(a << a) | word(a >> a))")
    for amount in (0, 1, 31, 32, 33, 63):
        a = np.uint32(amount)
        assert number(smt.Reader().call(f, smt.word(amount, 32))) == int((a << a) | (a >> a))


def function(folder: Path, body: str, before: str = "@portable\ndef f(a):"):
    """Return a portable function f of a file with this body."""
    path = folder / "example.py"
    lines = ["from numba.extending import register_jitable as portable", "from numpy import uint32", "", before]
    text = "\n".join([*lines, "    word = type(a)", textwrap.indent(body, "    "), ""])
    path.write_text(text, encoding="utf-8")
    return module_of(path).f


@pytest.mark.parametrize(
    ("body", "problem"),
    [
        ("return a + a", "`a + a` must be wrapped at once"),
        ("return word(a + a + a)", "`a + a` must be wrapped at once"),
        ("return word(max(a >> a, a))", "`a >> a` must be wrapped at once"),
        ("return ~a", "`~a` must be wrapped at once"),
        ("return word(-a)", "no expression"),
        ("return word(a // a)", "must be wrapped at once"),
        ("return word(1.5)", "`1.5` is no constant of 32 bits"),
        ("return word(True)", "`True` is no constant of 32 bits"),
        ("return word(4294967296)", "is no constant of 32 bits"),
        ("return word(a << 3)", "`3` has no type"),
        ("return word(1) if a > 1 else a", "`1` has no type"),
        ("return a if a else word(1)", "`a` is no comparison"),
        ("return word(0) if word(0) < a < word(5) else a", "no expression"),
        ("return word(a > a)", "is no word of 32 bits"),
        ("return a if a > a else a > a", "mixes things of different types"),
        ("return word(uint32(1) + word(2)) if a > word else a", "`word` is no word"),
        ("if a > a:\n    a = word(1)\nreturn a", "no statement"),
        ("while a > a:\n    a = word(1)\nreturn a", "no statement"),
        ("a += word(1)\nreturn a", "no statement"),
        ("return a\nreturn a", "no statement"),
        ("for i in range(3):\n    a = word(a + i)\nreturn a", "`i` stands for nothing"),
        ("for _ in range(a):\n    a = word(1)\nreturn a", "no statement"),
        ("b = a", "ends in its only return"),
        ("a, b = a\nreturn a", "as many results as names"),
        ("return g(a)", "`g` stands for nothing"),
        ("return abs(a)", "`abs` stands for nothing"),
        ("return min(a, a, a)", "no call of a portable function"),
        ("return min(a, key=a)", "no expression"),
        ("return a.real", "is no field of the parameters"),
        ("return (lambda: a)()", "no expression"),
        ("return [a][0]", "no expression"),
    ],
)
def test_the_reader_refuses(tmp_path, body, problem) -> None:
    """What Python, Numba and bit-vectors could read differently is refused, with file, line and construct."""
    with pytest.raises(smt.UnreadableError, match=re.escape(problem)) as refusal:
        smt.Reader().call(function(tmp_path, body), z3.BitVec("a", 32))
    assert re.match(r"example\.py, line [678]: `", str(refusal.value))


@pytest.mark.parametrize("before", ["def f(a):", "@portable\ndef f(a=None):", "@portable\ndef f(*, a):"])
def test_the_reader_wants_portable_functions(tmp_path, before) -> None:
    """A function that is not marked, or has other than plain arguments, is refused."""
    with pytest.raises(smt.UnreadableError, match=r"not a @portable function|takes 0 arguments"):
        smt.Reader().call(function(tmp_path, "return a", before), z3.BitVec("a", 32))


# --- The specification -----------------------------------------------------------------------------------------------


@both_carriers
@settings(max_examples=30)
@given(data=st.data())
def test_the_term_is_the_reference(carrier, data) -> None:
    """The specification as a term has the value of the reference, rounded to nearest and stochastically."""
    fmt = data.draw(st.sampled_from(GRIDS))
    x = data.draw(inputs(fmt, carrier.dtype))
    saturation = data.draw(st.sampled_from(rules(fmt)))
    n = data.draw(st.integers(0, carrier.width))
    r = data.draw(st.integers(0, (1 << n) - 1))
    u = smt.word(int(x.view(carrier.word)), carrier.width)
    cases = {
        Mode.RNE: (specification.nearest_even, {}),
        Mode.SRA: (specification.stochastic(smt.word(n, 8), smt.word(r, 64)), {"sr_bits": n, "rbits": r}),
    }
    for mode, (away, word) in cases.items():
        value, code = map(number, specification.rounded(u, fmt, saturation, away, carrier))
        assert code == reference.encode(float(x), fmt, mode, saturation=saturation, **word)
        decoded = fmt.decode(code)
        assert value == (carrier.nan if np.isnan(decoded) else carrier.pattern(decoded))
