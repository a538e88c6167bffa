"""The property pack: its laws, its oracle and inputs, what a failure says, and what is refused."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from devices import device, named, unwrapped
from hypothesis import given
from hypothesis import strategies as st
from strategies import FLOAT32, FLOAT64, SMALL, held, inputs

from qsim import arrays, reference
from qsim.errors import InputError
from qsim.explain import oracle
from qsim.explain.lines import exactly
from qsim.formats import Format, get_format
from qsim.rounding import FLUSHES, LIMITED, Mode, Saturation, saturations
from qsim.testing import assert_quantizer, check_quantizer
from qsim.testing import strategies as qst
from qsim.testing.inputs import make_inputs, step
from qsim.verdicts import Outcome, Verdict

ROOT = Path(__file__).resolve().parents[1]


# --- The failure -----------------------------------------------------------------------------------------------------


def test_shrunk_and_reproduced() -> None:
    """The failure shown is the simplest, and the line that reproduces it does so when it is run."""
    away = device("e4m3", fault="ties away")
    verdict = check_quantizer(away, "e4m3", codes=True)
    first, call, *_ = verdict.counterexample.splitlines()
    assert first == "thresholds: 1.0625 becomes code 0x39 (1.125), it should be code 0x38 (1)"
    assert call == "reproduce: unit_under_test(np.array([1.0625], np.float32))"
    assert eval(call.removeprefix("reproduce: "), {"np": np, "unit_under_test": away}) == 0x39  # noqa: S307 - our own line
    late = device("e4m3", "SRA", 8, "greater")
    verdict = check_quantizer(late, "e4m3", "SRA", sr_bits=8, codes=True)
    first, call, *_ = verdict.counterexample.splitlines()
    assert first == (
        "thresholds: 1.0625 with the word 128 of 8 bits becomes code 0x38 (1), it should be code 0x39 (1.125)"
    )
    assert eval(call.removeprefix("reproduce: "), {"np": np, "stochastic_unit": late}) == 0x38  # noqa: S307 - our own line


@pytest.mark.parametrize("dtype", [np.float32, ml_dtypes.bfloat16])
def test_special_failure_is_reproduced(dtype: Any) -> None:
    """A NaN is written as its pattern, since there are many; that of fewest bits is shown."""
    verdict = check_quantizer(
        lambda x: np.where(np.isnan(x), 0, x).astype(ml_dtypes.float8_e4m3fn), "e4m3", saturation="OvfNaN", dtype=dtype
    )
    call = verdict.counterexample.splitlines()[1].removeprefix("reproduce: ")
    array = eval(call.removeprefix("<lambda>"), {"np": np, "ml_dtypes": ml_dtypes})  # noqa: S307 - our own line
    assert array.dtype == dtype
    assert np.isnan(exactly(array)).all()


def test_no_word_is_known() -> None:
    """Without `rbits` only what holds for every word is checked; a result that is no neighbour is seen all the same."""
    rng = np.random.default_rng(3)
    right, moving = device("e4m3", "SRA", 8), device("e4m3", "SRA", 8, "word plus one")
    verdict = check_quantizer(lambda x: right(x, rng.integers(0, 256, len(x))), "e4m3", "SRA", sr_bits=8, codes=True)
    assert verdict.outcome is Outcome.NOT_DECIDED
    unknown = "not testable here: words unknown (thresholds, monotone, symmetric, words, word order, moments)"
    assert unknown in verdict.covered
    assert "not tried: other inputs than these" in verdict.covered
    verdict = check_quantizer(lambda x: moving(x, rng.integers(0, 256, len(x))), "e4m3", "SRA", sr_bits=8, codes=True)
    assert verdict.outcome is Outcome.REFUTED
    assert verdict.counterexample.startswith("fixed points: ")
    assert "no known fault gives all" in unwrapped(
        verdict
    )  # only one word of 256 moves a value, and no rule knows the word
    verdict = check_quantizer(lambda x: right(x, x), "e4m3", "SRA", sr_bits=8, codes=True, laws=["moments", "words"])
    assert verdict.outcome is Outcome.NOT_TESTABLE


# --- Each law --------------------------------------------------------------------------------------------------------


def broken_laws(verdict: Verdict) -> set[str]:
    """Return the laws that a verdict says are broken."""
    text = unwrapped(verdict)
    listed = text.partition("laws broken: ")[2].partition("as many words")[0]
    return set(re.findall(r"(?:^|, )([a-z ]+) \(", listed))


@pytest.mark.in_part(2)
@pytest.mark.parametrize(
    ("mode", "fault", "laws"),
    [
        ("RNE", "", set()),
        ("SRA", "", set()),
        ("RNE", "ties away", {"thresholds", "subnormals", "edges"}),
        ("RNE", "carry lost", {"neighbours", "thresholds", "subnormals", "edges", "saturation", "monotone"}),
        ("RNE", "overflow becomes 0", {"saturation", "monotone"}),
        ("RNE", "zero loses its sign", {"sign of zero"}),
        ("RNE", "NaN becomes 0", {"specials"}),
        ("RNE", "negative side floors", {"thresholds", "subnormals", "edges", "symmetric"}),
        ("RNE", "subnormals shifted too far", {"neighbours", "fixed points", "subnormals", "edges", "idempotent"}),
        ("SRA", "word reversed", {"thresholds", "subnormals", "edges", "words", "word order"}),
        ("SRA", "greater", {"thresholds", "subnormals", "edges", "words", "moments"}),
    ],
)  # fmt: skip
def test_laws_apart(mode: str, fault: str, laws: set[str]) -> None:
    """Each law sees its own faults, and no others: a lost sign of zero breaks one law, ties break no neighbours."""
    fn, n = device("e4m3", mode, 8, fault), 8 if mode == "SRA" else None
    assert broken_laws(check_quantizer(fn, "e4m3", mode, sr_bits=n, codes=True)) == laws


def test_nan_is_in_no_order() -> None:
    """A NaN that becomes -0 in a format without NaN breaks what is said of NaNs, and no order of numbers."""
    verdict = check_quantizer(lambda x: x.astype(ml_dtypes.float4_e2m1fn), "float4_e2m1fn")
    assert broken_laws(verdict) == {"specials"}


def test_one_law() -> None:
    """A law asked for alone is the one that is checked: it refutes what breaks it, and holds for the rest."""
    fn = device("e4m3", fault="carry lost")
    for law in ("neighbours", "thresholds", "subnormals", "edges", "saturation", "monotone"):
        assert broken_laws(check_quantizer(fn, "e4m3", codes=True, laws=law, examples=0)) == {law}
    rest = {"fixed points", "specials", "sign of zero", "idempotent", "symmetric"}
    assert check_quantizer(fn, "e4m3", codes=True, laws=rest).outcome is Outcome.HELD


def test_nan_policies() -> None:
    """The canonical NaN has no sign, a signed one that of its input, and by default any will do."""
    kept = device("e4m3")  # whose NaN is 0x7f

    def signed(x: np.ndarray) -> np.ndarray:
        return np.where(np.isnan(x) & np.signbit(x), 0xFF, kept(x))

    held = {
        (name, nan)
        for name, fn in (("kept", kept), ("signed", signed))
        for nan in ("any", "canonical", "signed")
        if check_quantizer(fn, "e4m3", codes=True, nan=nan).outcome is Outcome.HELD
    }
    assert held == {("kept", "any"), ("kept", "canonical"), ("signed", "any"), ("signed", "signed")}
    verdict = check_quantizer(signed, "e4m3", codes=True, nan="canonical")
    assert named(verdict)[0] == "a NaN keeps its sign"


def test_invalid_codes() -> None:
    """A code beyond the format, or of no value, is wrong; negative codes are read in two's complement."""
    right = device("e4m3")
    for offset in (256, -256 - 128):
        verdict = check_quantizer(lambda x, offset=offset: right(x) + offset, "e4m3", codes=True)
        assert "which nothing has: wrong" in verdict.counterexample
    assert_quantizer(lambda x: right(x).astype(np.uint8).view(np.int8), "e4m3", codes=True)
    verdict = check_quantizer(lambda x: np.full(len(x), 2), "ternary", codes=True)
    assert "code 0x2 = 10, which nothing has: wrong" in verdict.counterexample


# --- Our own kernels -------------------------------------------------------------------------------------------------


def kernel(fmt: Format, mode: Mode, rule: Saturation, n: int, *, codes: bool, **options: Any) -> Callable[..., Any]:
    """Return `qsim.quantize` or `qsim.encode` as a user would give it to the check."""
    convert = arrays.encode if codes else arrays.quantize

    def stochastic(x: np.ndarray, rbits: np.ndarray) -> np.ndarray:
        return convert(x, fmt, mode, sr_bits=n, rbits=rbits, saturation=rule, **options)

    def deterministic(x: np.ndarray) -> np.ndarray:
        return convert(x, fmt, mode, saturation=rule, **options)

    return stochastic if mode.stochastic else deterministic


def assert_kernel_holds(
    fmt: Format, mode: Mode, rule: Saturation, dtype: Any, n: int, *, codes: bool, **options: Any
) -> None:
    """Hold our kernel to all laws."""
    if mode is Mode.THR:
        options["eps"] = 0.25
    fn = kernel(fmt, mode, rule, n, codes=codes, **options)
    bits = n if mode.stochastic else None
    assert_quantizer(fn, fmt, mode, sr_bits=bits, saturation=rule, codes=codes, dtype=dtype, examples=128, **options)


@pytest.mark.in_part(4)
@pytest.mark.parametrize("fmt", SMALL, ids=str)
def test_kernels_of_small_formats(fmt: Format) -> None:
    """All modes hold for every small format, from float32 where it holds the format, values and codes in turns."""
    dtype = FLOAT32 if held(FLOAT32, fmt) else FLOAT64
    for i, mode in enumerate(Mode):
        rules = saturations(fmt)
        assert_kernel_holds(
            fmt, mode, rules[i % len(rules)], dtype, 5 if mode in LIMITED else 8 * dtype.itemsize, codes=i % 2 == 0
        )


@pytest.mark.exhaustive
@pytest.mark.parametrize("dtype", [np.dtype(np.float16), np.dtype(ml_dtypes.bfloat16), FLOAT32, FLOAT64], ids=str)
@pytest.mark.parametrize("fmt", SMALL, ids=str)
def test_kernels_in_full(fmt: Format, dtype: np.dtype) -> None:
    """All modes hold for every small format under every saturation rule, from every type, flushed or not."""
    for mode in Mode:
        for rule in (
            saturations(fmt) if dtype.itemsize > 2 else saturations(fmt)[:1]
        ):  # of 16 bits all numbers are tried
            for flushed, nan in ((False, "canonical"), ("after", "signed"), ("before", "signed"), ("result", "signed")):
                n = 8 if mode in LIMITED else 64 if dtype == FLOAT64 else 32
                assert_kernel_holds(
                    fmt, mode, rule, dtype, n, codes=True, ftz_in=bool(flushed), ftz_out=flushed, nan=nan
                )


@pytest.mark.parametrize(
    ("name", "mode", "n"),
    [("bfloat16", "RNE", 0), ("float16", "SRC", 6), ("Q7.8", "RUP", 0), ("tf32", "RTO", 0), ("int24", "SRB", 4)],
)
def test_kernels_of_wide_formats(name: str, mode: str, n: int) -> None:
    """Formats of 16 bits are checked at every threshold, wider ones at a choice of them."""
    fmt = get_format(name)
    dtype = FLOAT32 if held(FLOAT32, fmt) else FLOAT64
    assert_kernel_holds(fmt, Mode[mode], saturations(fmt)[0], dtype, n, codes=False)


@pytest.mark.parametrize(
    ("mode", "n"), [("SR", 64), ("SRA", 64), ("SRA", 63), ("SRB", 40), ("SRC", 62), ("SRE", 64), ("SRA", 0)]
)
def test_kernels_with_long_words(mode: str, n: int) -> None:
    """Words of any number of bits are compared exactly."""
    fmt = get_format("e4m3")
    assert_kernel_holds(fmt, Mode[mode], saturations(fmt)[0], FLOAT64, n, codes=True)


# --- The oracle ------------------------------------------------------------------------------------------------------

WIDE = [*map(get_format, ("bfloat16", "float16", "tf32", "int24", "Q0.31", "dlfloat16", "float32", "UQ8.8"))]


@given(st.data())
def test_oracle_is_the_reference(data: st.DataObject) -> None:
    """Both answers to a number, and the word at which one gives way to the other, are those of `reference.encode`."""
    fmt = data.draw(st.sampled_from([*SMALL, *WIDE]))
    mode = data.draw(st.sampled_from(list(Mode)))
    rule = data.draw(st.sampled_from(saturations(fmt)))
    n = data.draw(st.integers(mode is Mode.SR, 64)) if mode.stochastic else 0
    eps = data.draw(st.sampled_from([0.0, 0.25, 0.5, 0.7, 2.0**-12])) if mode is Mode.THR else 0.0
    ftz_out, nan = data.draw(st.sampled_from([False, *FLUSHES])), data.draw(st.sampled_from(["canonical", "signed"]))
    x = data.draw(st.lists(inputs(fmt, FLOAT64).map(float), min_size=1, max_size=8))
    array = np.array(x)
    at = oracle.place(fmt, array)
    found = oracle.expect(fmt, mode, rule, array, at, n=n, eps=eps, ftz_out=ftz_out, nan=nan)
    for i, value in enumerate(x):
        turn, last = int(found.first_word[i]), (1 << n) - 1
        for word in {0, last, min(max(turn - 1, 0), last), min(turn, last)}:
            right = reference.encode(
                value, fmt, mode, sr_bits=n, rbits=word, eps=eps, saturation=rule, ftz_out=ftz_out, nan=nan
            )
            assert (found.outer[i] if word >= turn else found.inner[i]) == right


@pytest.mark.parametrize("mode", [mode for mode in Mode if mode.stochastic])
@pytest.mark.parametrize("n", [1, 2, 6, 9, 62, 63, 64])
def test_first_words(mode: Mode, n: int) -> None:
    """The word at which a number turns is right at every 1024th of an interval, and just beside it."""
    fmt = get_format("int8")
    x = np.arange(1024) / 1024 + 3
    x = np.concatenate([x, np.nextafter(x, np.inf), np.nextafter(x, -np.inf)])
    at = oracle.place(fmt, x)
    first = oracle.expect(fmt, mode, Saturation.saturate, x, at, n=n).first_word
    for value, turn in zip(x.tolist(), first.tolist(), strict=True):
        nu, last = Fraction(value) % 1, (1 << n) - 1
        for word in {max(turn - 1, 0), min(turn, last)}:
            assert reference.away(mode, nu, odd=True, negative=False, sr_bits=n, rbits=word) == (word >= turn)


def test_oracle_uses_no_kernel() -> None:
    """A check runs without numba: what it says of our kernels it does not know from them."""
    code = (
        "import sys, numpy as np; from qsim.testing import check_quantizer;"
        "print(check_quantizer(np.rint, 'int8').outcome, any('numba' in name for name in sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["refuted", "False"]


# --- Inputs and strategies -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("fmt", SMALL, ids=str)
def test_every_threshold_is_tried(fmt: Format) -> None:
    """On either side of every midpoint that float32 separates from its neighbours stand two float32s with nothing between."""
    tried = make_inputs(fmt, FLOAT32, (Fraction(0), Fraction(1, 2)), 0, 0)
    numbers = tried.exact[~np.isnan(tried.exact)]
    assert (np.diff(numbers) >= 0).all()
    assert np.array_equal(numbers, -numbers[::-1])
    known = set(numbers.tolist())
    for ordinal in range(-fmt.bottom, fmt.top):
        middle = (fmt.value(ordinal) + fmt.value(ordinal + 1)) / 2
        near = np.float32(float(middle))
        if np.isfinite(near):
            around = {float(np.nextafter(near, np.float32(side))) for side in (-np.inf, np.inf)}
            assert {float(near), *around} <= known


def test_inputs_are_fixed() -> None:
    """The same seed gives the same inputs, another seed others; 16-bit types are tried in full."""
    fmt, shares = get_format("e4m3"), (Fraction(0), Fraction(1, 2))
    first, again, other = (make_inputs.__wrapped__(fmt, FLOAT32, shares, seed, 100).x for seed in (0, 0, 1))
    assert np.array_equal(first.view(np.uint32), again.view(np.uint32))
    assert not np.array_equal(first.view(np.uint32), other.view(np.uint32))
    assert len(make_inputs(fmt, np.dtype(np.float16), shares, 0, 0).x) == 1 << 16


@pytest.mark.parametrize("dtype", [np.float16, ml_dtypes.bfloat16, np.float32, np.float64])
def test_step(dtype: Any) -> None:
    """A step is that of nextafter, through zero and up to the infinities."""
    x = _every(np.dtype(dtype))
    for side, steps in ((np.inf, 1), (-np.inf, -1)):
        with np.errstate(over="ignore"):
            assert np.array_equal(step(x, steps), np.nextafter(x, np.dtype(dtype).type(side)))


def _every(dtype: np.dtype) -> np.ndarray:
    """Return numbers of all sizes, no NaN."""
    if dtype.itemsize == 2:
        x = np.arange(1 << 16, dtype=np.uint16).view(dtype)
    else:
        x = np.random.default_rng(0).integers(0, 1 << 64, 10_000, np.uint64).astype(f"u{dtype.itemsize}").view(dtype)
    special = np.array([0.0, -0.0, np.inf, -np.inf]).astype(dtype)
    return np.concatenate([x[~np.isnan(exactly(x))], special, step(special, -1), step(special, 1)])


@given(st.data())
def test_strategies(data: st.DataObject) -> None:
    """Formats are as wide as asked, their codes stand for something, numbers have the type, words their bits."""
    bits = data.draw(st.integers(2, 16))
    fmt = data.draw(qst.formats(bits))
    assert fmt.bits <= bits
    narrow = data.draw(qst.formats(bits, kinds=("float", "table"), dtype=np.float16))
    assert narrow.kind in ("float", "table")
    assert (
        narrow.values()[~np.isnan(narrow.values())].astype(np.float16) == narrow.values()[~np.isnan(narrow.values())]
    ).all()
    assert fmt.is_code(data.draw(qst.codes(fmt)))
    dtype = data.draw(st.sampled_from([np.float16, ml_dtypes.bfloat16, np.float32, np.float64]))
    x = data.draw(qst.values(fmt, dtype))
    assert x.dtype == dtype
    n = data.draw(st.integers(0, 64))
    assert 0 <= data.draw(qst.words(n)) < 1 << n


@pytest.mark.parametrize(
    ("what", "message"),
    [
        (lambda: qst.formats(17), "max_bits = 17 must be 1 to 16"),
        (lambda: qst.formats(8, kinds=["posit"]), "no format is of the kind 'posit'"),
        (lambda: qst.formats(8, kinds=()), "no format is of the kind ''; it is one of float, integer, fixed, table"),
        (lambda: qst.words(65), "bits = 65: a random word has 0 to 64"),
        (lambda: qst.values("e4m3", np.int32), "numbers of float16, bfloat16, float32 or float64 go in, not of int32"),
    ],
)  # fmt: skip
def test_strategies_refuse(what: Callable[[], Any], message: str) -> None:
    """A strategy that nothing could come of is refused."""
    with pytest.raises(InputError, match=re.escape(message)):
        what()


def test_strategies_name_what_they_need() -> None:
    """Without Hypothesis the rest of the pack works, and the strategies say what to install."""
    code = (
        "import sys; sys.modules['hypothesis'] = None; import qsim.testing\n"
        "try: import qsim.testing.strategies\n"
        "except ModuleNotFoundError as error: print(error)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "pip install 'qsim-numerics[testing]'" in done.stdout


def test_example() -> None:
    """The file that a user would copy passes, and fails with an explanation when its quantizer is broken."""
    path = ROOT / "examples" / "test_my_quantizer.py"
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-c", os.devnull, "--rootdir"]
    done = subprocess.run([*command, str(path.parent), str(path)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout
    assert "8 passed" in done.stdout


def test_broken_example(tmp_path: Path) -> None:
    """A user who breaks ties otherwise reads so in the output of pytest."""
    source = (ROOT / "examples" / "test_my_quantizer.py").read_text(encoding="utf-8")
    broken = source.replace("2 * rest + (kept & 1) > unit", "2 * rest >= unit")
    assert broken != source
    path = tmp_path / "test_my_quantizer.py"
    path.write_text(broken, encoding="utf-8")
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-c", os.devnull, "-k", "nearest"]
    done = subprocess.run(
        [*command, "--rootdir", str(tmp_path), str(path)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 1
    assert "ties go away from zero (RNA instead of RNE)" in done.stdout


class Unwilling:
    """Stand for a tensor on a device, of which NumPy makes no array."""

    def __array__(self, dtype: Any = None, copy: Any = None) -> np.ndarray:
        """Refuse."""
        raise TypeError("use Tensor.cpu()")


# --- What is refused -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"mode": "SRA"}, "SRA needs sr_bits"),
        ({"sr_bits": 8}, "sr_bits = 8 with RNE: RNE takes no random bits"),
        ({"fn": lambda x: arrays.encode(x, "e4m3")}, "if they are codes, say codes=True"),
        ({"fn": lambda x: arrays.quantize(x, "e4m3"), "codes": True}, "for values, leave codes out"),
        ({"fn": lambda _: object()}, "returned a object, of which NumPy makes no array"),
        ({"fn": lambda _: 0.0}, "returned an array of shape () for one of shape"),
        ({"fn": lambda _: Unwilling()}, "returned a Unwilling, of which NumPy makes no array: use Tensor.cpu()"),
        ({"mode": "SRA", "sr_bits": 65}, "sr_bits = 65 with SRA"),
        ({"mode": "SR", "sr_bits": 0}, "sr_bits = 0 with SR"),
        ({"mode": "THR"}, "eps = None with THR"),
        ({"eps": 0.5}, "eps = 0.5 with RNE"),
        ({"mode": "THR", "eps": 1.5}, "eps = 1.5 must be a number"),
        ({"laws": ["threshold"]}, "no law is called 'threshold'; did you mean thresholds"),
        ({"laws": ["moments"]}, "no law is left for RNE"),
        ({"nan": "quiet"}, "nan = 'quiet'"),
        ({"dtype": np.int8}, "numbers of float16, bfloat16, float32 or float64 go in, not of int8"),
        ({"dtype": Unwilling()}, "it is a type of NumPy's or ml_dtypes', such as np.float32"),
        ({"examples": -1}, "examples = -1"),
        ({"fmt": "float64"}, "float64 has 64 bits"),
        ({"fmt": "Binary12p1ue"}, "reaches beyond the range of a float64"),
        ({"saturation": "wrap"}, "wrap makes no sense for float8_e4m3fn"),
        ({"fn": 3}, "fn is of type int"),
        ({"fn": lambda x: x[:1]}, "returned an array of shape (1,) for one of shape"),
        ({"fn": lambda x: x, "codes": True}, "returned float32; codes are integers"),
        ({"fn": lambda x: x.astype("U")}, "values are real numbers"),
    ],
)  # fmt: skip
def test_refused(options: dict[str, Any], message: str) -> None:
    """What contradicts itself, and a result that is no array of numbers, is refused in one sentence."""
    arguments = {"fn": device("e4m3"), "fmt": "e4m3", **options}
    with pytest.raises(InputError, match=re.escape(message)):
        check_quantizer(arguments.pop("fn"), arguments.pop("fmt"), **arguments)


@pytest.mark.parametrize("options", [{"mode": "RNE"}, {"mode": "SRA", "sr_bits": 8}], ids=["RNE", "SRA"])
def test_errors_of_the_quantizer(options: dict[str, Any]) -> None:
    """An exception of the quantizer's own comes through, with a note of what it was given, and for which number it fails."""
    right = device("e4m3", options["mode"])

    def fails(x: np.ndarray, rbits: np.ndarray | None = None) -> np.ndarray:
        if (x == 3).any():
            raise KeyError("mine")
        return right(x) if rbits is None else right(x, rbits=rbits)

    with pytest.raises(KeyError) as caught:
        check_quantizer(fails, "e4m3", codes=True, **options)
    given = (
        r"fails was given [\d,]+ numbers of float32, NaNs and infinities among them; it fails for the number 3.0 alone"
    )
    assert re.fullmatch(given, caught.value.__notes__[0])


def test_errors_of_many_numbers() -> None:
    """Where no single number makes it fail, the note has as few of them as halving finds."""

    def fails(x: np.ndarray) -> np.ndarray:
        if x.size > 100:
            raise KeyError("mine")
        return x

    with pytest.raises(KeyError) as caught:
        check_quantizer(fails, "e4m3")
    assert re.search(r"it fails for 1\d\d of the numbers .*, \.\.\. alone", caught.value.__notes__[0])


def test_assertion() -> None:
    """The asserting twin says nothing of a right quantizer, and raises the whole explanation of a wrong one."""
    assert_quantizer(device("e4m3"), "e4m3", codes=True)
    with pytest.raises(AssertionError, match="ties go away from zero") as caught:
        assert_quantizer(device("e4m3", fault="ties away"), "e4m3", codes=True)
    assert str(caught.value).startswith("refuted: thresholds: 1.0625 becomes")
    assert "covered: float8_e4m3fn:RNE, SatFinite, from float32" in str(caught.value)


def test_threshold_mode() -> None:
    """Threshold is checked at eps and at 1 - eps; one that measures from zero is told so."""

    def from_zero(x: np.ndarray) -> np.ndarray:
        whole = np.trunc(np.where(np.isfinite(x), x, 0))
        up = np.abs(np.where(np.isfinite(x), x, 0) - whole) > 0.25
        y = np.where(np.isinf(x), x, whole + np.where(up, np.sign(x), 0))
        return np.clip(np.where(np.isnan(x), 0, y), -128, 127) + 0.0

    verdict = check_quantizer(from_zero, "int8", "THR", eps=0.25)
    assert named(verdict)[0] == "measures the fraction from zero, not from the lesser neighbour"
