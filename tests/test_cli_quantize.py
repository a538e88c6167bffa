"""`qsim quantize`: that it writes what the library returns, what it counts and says, and which options it refuses."""

from __future__ import annotations

import json
import math
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from alike import same_bits
from command import X
from command import quantize as run
from command import quantize_refused as refused

import qsim
from qsim import reference
from qsim.arrays import quantize_draws
from qsim.cli import main
from qsim.rounding import Key, Quantizer

pytestmark = pytest.mark.usefixtures("here")

# --- The result ------------------------------------------------------------------------------------------------------

ROUNDINGS: dict[str, tuple[list[str], dict[str, Any]]] = {
    "default": ([], {}),
    "RTZ": (["-r", "TowardZero"], {"mode": "RTZ"}),
    "SR": (["-r", "SR", "--seed", "7"], {"mode": "SR", "key": Key(7)}),
    "SRA": (
        ["-r", "SRA", "--sr-bits", "5", "--seed", "0xff", "--stream", "2", "--offset", "3"],
        {"mode": "SRA", "sr_bits": 5, "key": Key(255, 2, 3)},
    ),
    "saturation": (["--saturation", "OvfNaN"], {"saturation": "OvfNaN"}),
    "pow2": (["--scale", "pow2"], {"scale": "pow2"}),
    "absmax, SR": (["--scale", "absmax", "-r", "SR", "--seed", "1"], {"scale": "absmax", "mode": "SR", "key": Key(1)}),
    "number": (["--scale", "0.37"], {"scale": 0.37}),
    "SRA(8)": (["-r", "SRA(8)", "--seed", "3"], {"mode": "SRA(8)", "key": Key(3)}),
    "SRA(8), said twice": (["-r", "SRA(8)", "--sr-bits", "8", "--seed", "3"], {"mode": "SRA(8)", "key": Key(3)}),
    "Threshold": (["-r", "Threshold", "--eps", "0.25"], {"mode": "Threshold", "eps": 0.25}),
    "Threshold(eps)": (["-r", "Threshold(0.75)"], {"mode": "THR", "eps": 0.75}),
    "absmean, an axis": (["--scale", "absmean", "--per", "-1"], {"scale": "absmean", "per": -1}),
    "absmax, axes": (["--scale", "absmax", "--per=-1,-2"], {"scale": "absmax", "per": (-2, -1)}),
    "reciprocal": (["--scale", "0.37", "--order", "reciprocal"], {"scale": 0.37, "order": "reciprocal"}),
    "exact": (["--scale", "0.37", "--order", "exact", "-r", "RUP"], {"scale": 0.37, "order": "exact", "mode": "RUP"}),
    "flushed": (["--ftz-in", "--ftz-out", "after"], {"ftz_in": True, "ftz_out": "after"}),
    "signed NaN": (["--nan", "signed"], {"nan": "signed"}),
}


@pytest.mark.parametrize("codes", [False, True], ids=["values", "codes"])
@pytest.mark.parametrize("rounding", ROUNDINGS)
def test_it_writes_what_the_library_returns(rounding: str, codes: bool, capsys: pytest.CaptureFixture[str]) -> None:
    """Values and codes have every bit, the shape and the type that `qsim.quantize` and `qsim.encode` give them."""
    options, keywords = ROUNDINGS[rounding]
    for x in (X, X.astype(np.float32), np.asfortranarray(X), X.reshape(2, 1, 4), X.astype(">f4"), X[0, 0], X[:0]):
        if x.ndim < 2 and "per" in keywords:
            continue
        np.save("x.npy", x)
        run(capsys, "x.npy", "-f", "e4m3", "-o", "y.npy", *options, *["--codes"] * codes)
        assert same_bits(np.load("y.npy"), (qsim.encode if codes else qsim.quantize)(x, "e4m3", **keywords))


def test_float16_stays_float16(capsys: pytest.CaptureFixture[str]) -> None:
    """A float16 array is rounded as such, also where it is divided by a scale; --dtype widens it."""
    half = np.array([0.1, 65504, 2.0**-24, math.inf, math.nan, 0], np.float16)
    half[-1:].view(np.uint16)[:] = 0x7C01  # a signalling NaN
    np.save("x.npy", half)
    for options, keywords in (
        (["--scale", "3"], {"scale": 3.0}),
        (["-r", "SR", "--seed", "1"], {"mode": "SR", "key": Key(1)}),
    ):
        out = run(capsys, "x.npy", "-f", "e5m2", "-o", "y.npy", *options)
        assert same_bits(np.load("y.npy"), qsim.quantize(half, "e5m2", **keywords))
        assert ("32 bits an element" in out) == ("key" in keywords)
        with np.errstate(invalid="ignore"):
            wide = half.astype(np.float64)
        run(capsys, "x.npy", "-f", "e5m2", "-o", "y.npy", *options, "--dtype", "float64")
        assert same_bits(np.load("y.npy"), qsim.quantize(wide, "e5m2", **keywords))


@pytest.mark.parametrize("spelled", ["e4m3:RUP", "e4m3:SRA(8)", "e4m3:Threshold(0.25)", "nf4:RTN"])
def test_format_and_mode_in_one(spelled: str, capsys: pytest.CaptureFixture[str]) -> None:
    """FORMAT:MODE is taken as everywhere else, where -r does not say the mode."""
    np.save("x.npy", X)
    words = ["--seed", "4"] if "SR" in spelled else []
    run(capsys, "x.npy", "-f", spelled, "-o", "y.npy", *words)
    assert same_bits(np.load("y.npy"), qsim.quantize(X, spelled, key=Key(4) if words else None))


def test_a_format_of_a_file(capsys: pytest.CaptureFixture[str]) -> None:
    """FILE.toml#NAME is a format like any other, also with a mode; what is not there is refused."""
    Path("mine.toml").write_text(
        '[[format]]\nname = "thirds"\nkind = "table"\nvalues = [-1.0, 0.0, 0.375, 1.0]\nsource = "a test"\n'
        '[[format]]\nname = "strict"\nkind = "integer"\nbits = [5]\nnan_to = "error"\nsource = "a test"\n',
        encoding="utf-8",
    )
    np.save("x.npy", X)
    for spelled in ("mine.toml#thirds", str(Path("mine.toml").resolve()) + "#thirds:RDN"):
        out = run(capsys, "x.npy", "-f", spelled, "-o", "y.npy")
        assert same_bits(np.load("y.npy"), qsim.quantize(X, spelled))
        assert "thirds:R" in out
    argv = ["x.npy", "-o", "y.npy", "-f"]
    Path("y.npy").unlink()
    assert "mine.toml: has no format called 'halves'" in refused(capsys, *argv, "mine.toml#halves")
    assert "gone.toml: cannot be read (No such file" in refused(capsys, *argv, "gone.toml#thirds")
    assert "x[1, 0] is NaN, which has no place in strict" in refused(capsys, *argv, "mine.toml#strict")


@pytest.mark.parametrize("order", ["little", "big"])
@pytest.mark.parametrize("fmt", ["int4", "e2m3", "ternary", "e4m3"])
def test_packed_codes(fmt: str, order: str, capsys: pytest.CaptureFixture[str]) -> None:
    """With --pack the bytes are those of `qsim.pack` along the last axis, little where no order is named."""
    x = np.random.default_rng(0).standard_normal((3, 2, 7))
    np.save("x.npy", x)
    out = run(capsys, "x.npy", "-f", fmt, "--scale", "absmax", "-o", "y.npy", "--codes", f"--pack={order}")
    codes = qsim.encode(x, fmt, scale="absmax")
    packed = np.load("y.npy")
    assert same_bits(packed, qsim.pack(codes, fmt, order=order))
    assert same_bits(qsim.unpack(packed, fmt, 7, order=order), codes)
    shape = " x ".join(map(str, packed.shape))
    assert f"\nwritten             y.npy: codes packed to {shape}, {order} order, uint8\n" in out
    if order == "little":
        run(capsys, "x.npy", "-f", fmt, "--scale", "absmax", "-o", "z.npy", "--codes", "--pack")
        assert same_bits(np.load("z.npy"), packed)


@pytest.mark.parametrize("name", ["s.npy", "s.csv"])
@pytest.mark.parametrize(
    "options",
    [["--scale", "absmax"], ["--scale", "absmax", "--per", "channel"], ["--scale", "absmean", "--per", "1"],
     ["--scale", "pow2", "--per", "token"], ["--scale", "0.37"]],
    ids=" ".join,
)  # fmt: skip
@pytest.mark.parametrize("carrier", [np.float32, np.float64])
def test_codes_and_scales_are_the_values(
    carrier: type, options: list[str], name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """With --scales the scales are written with all their digits, so that decode(codes) * s is the array of values."""
    x = np.random.default_rng(0).standard_normal((4, 5)).astype(carrier)
    np.save("x.npy", x)
    run(capsys, "x.npy", "-f", "int4", *options, "-o", "y.npy")
    out = run(capsys, "x.npy", "-f", "int4", *options, "--codes", "--pack", "-o", "c.npy", "--scales", name)
    s = np.load(name) if name == "s.npy" else np.loadtxt(name, carrier, delimiter=",", ndmin=2)
    if name == "s.npy":
        assert s.dtype == carrier
        assert s.ndim == 2
        assert f"{' ' * 20}s.npy: scales ({' x '.join(map(str, s.shape))}), {s.dtype}\n" in out
    if "--per" in options and options[-1] != "1":  # a text of one column has a line a number
        s = s.reshape(4, 1)
    codes = qsim.unpack(np.load("c.npy"), "int4", 5)
    assert same_bits(qsim.decode(codes, "int4", carrier) * s.astype(carrier), np.load("y.npy"))
    told = json.loads(run(capsys, "x.npy", "-f", "int4", *options, "-o", "c.npy", "--scales", name, "--json"))
    assert told["scales"] == name


def test_scales_may_go_to_standard_output(capsys: pytest.CaptureFixture[str]) -> None:
    """--scales - is text on standard output, and the summary then on standard error."""
    np.save("x.npy", np.array([[7.0, 1], [14, 2]], np.float32))
    argv = ["quantize", "x.npy", "-f", "int4", "--scale", "absmax", "--per", "channel", "-o", "y.npy", "--scales", "-"]
    assert main(argv) == 0
    out, err = capsys.readouterr()
    assert len(out.split()) == 2
    assert "-: scales (2 x 1), float32" in err


@pytest.mark.parametrize("name", ["r.npy", "r.txt", "r.csv"])
def test_given_words(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    """The words of --rbits are those of `rbits`, from a .npy or as text, decimal or hexadecimal, broadcast to x."""
    words = np.array([0, 200, 255, 17])
    np.save("x.npy", X)
    if name == "r.npy":
        np.save(name, words)
    else:
        Path(name).write_text(("," if name == "r.csv" else " ").join(["0", "0xC8", "255", "017"]), encoding="utf-8")
    out = run(capsys, "x.npy", "-f", "e4m3", "-r", "SRC", "--rbits", name, "--sr-bits", "8", "-o", "y.npy")
    assert same_bits(np.load("y.npy"), qsim.quantize(X, "e4m3", "SRC", sr_bits=8, rbits=words))
    assert f"8 bits an element, from {name}" in out


def test_only_given_options_are_passed_on(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """What was not said is left to the library, what was is a keyword."""
    np.save("x.npy", X)
    seen: list[dict[str, Any]] = []
    library = qsim.quantize

    def quantize(x: Any, fmt: Any, *, out: Any, **words: Any) -> Any:
        seen.append(words)
        return library(x, fmt, out=out, **words)

    monkeypatch.setattr(qsim, "quantize", quantize)
    run(capsys, "x.npy", "-f", "e4m3", "-o", "y.npy")
    assert seen == [{"mode": "RNE"}]
    options = [
        "--scale",
        "pow2",
        "--per",
        "-1",
        "--order",
        "divide",
        "--ftz-in",
        "--ftz-out",
        "before",
        "--nan",
        "canonical",
    ]
    run(capsys, "x.npy", "-f", "e4m3", "-o", "y.npy", *options)
    further = {"scale": "pow2", "per": -1, "order": "divide", "ftz_in": True, "ftz_out": "before", "nan": "canonical"}
    assert seen[1:] == [{"mode": "RNE", **further}]


# --- The summary -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("carrier", [np.float32, np.float64])
@pytest.mark.parametrize("fmt", ["e4m3", "e5m2", "e2m1", "int8"])
@pytest.mark.parametrize("scale", ["none", "pow2", "absmax", "3.7"])
def test_counts(fmt: str, scale: str, carrier: type, capsys: pytest.CaptureFixture[str]) -> None:
    """The counts are those of `quantize_draws`, which the kernels make, whatever the scale and the words."""
    random = np.random.default_rng(0)
    x = (random.standard_normal(500) * np.exp2(random.integers(-20, 20, 500))).astype(carrier)
    x = np.concatenate([x, np.arange(-130, 130, dtype=carrier), X.reshape(-1).astype(carrier)])
    np.save("x.npy", x)
    q = Quantizer(fmt, "SR", scale=scale if scale in ("none", "pow2", "absmax") else float(scale))
    _, counts = quantize_draws(x[None], q, 5, [9])
    options = ["-r", "SR", "--seed", "5", "--stream", "9", "--scale", scale, "-o", "y.npy", "--json"]
    for more in ([], ["--codes"]):
        found = json.loads(run(capsys, "x.npy", "-f", fmt, *options, *more))["counts"]
        assert found == {name: getattr(counts, name) for name in counts.__slots__}
    assert counts.nan
    assert counts.on_grid or scale == "absmax"


def counted(x: np.ndarray, s: np.ndarray, q: Quantizer) -> dict[str, int]:
    """Return the counts by the reference, one element at a time, of x divided by s."""
    found = dict.fromkeys(("elements", "saturated", "underflowed", "nan", "on_grid"), 0)
    tiny = float(np.finfo(x.dtype).smallest_normal)
    for number, scale in zip(x.reshape(-1).tolist(), np.broadcast_to(s, x.shape).reshape(-1).tolist(), strict=True):
        found["elements"] += 1
        found["nan"] += math.isnan(number)
        if math.isfinite(number):
            flushed = math.copysign(0.0, number) if q.ftz_in and abs(number) < tiny else number
            y = reference.scaled(flushed, scale, q.order, x.dtype.name)
            result = reference.quantize(y, q.format, q.mode, saturation=q.saturation, ftz_out=q.ftz_out)
            underflowed = number != 0 and result == 0
            found["saturated"] += not q.format.min <= y <= q.format.max
            found["underflowed"] += underflowed
            found["on_grid"] += y == result and not underflowed
    return found


@pytest.mark.parametrize("carrier", [np.float16, np.float32, np.float64])
@pytest.mark.parametrize(
    ("fmt", "options"),
    [
        ("e4m3", {"scale": "absmax", "per": "channel"}),
        ("e2m1", {"scale": "absmean", "per": 1, "order": "reciprocal"}),
        ("int4", {"scale": "absmax", "per": (0, 2), "order": "exact"}),
        ("int4", {"scale": 0.3, "order": "exact", "mode": "RAZ"}),
        ("nf4", {"scale": "absmax", "per": "token"}),
        ("UQ0.8", {"scale": "pow2", "per": "sample", "saturation": "wrap"}),
        ("float16", {"scale": 0.7, "ftz_in": True, "ftz_out": "after"}),
        ("e4m3", {"ftz_in": True}),
        ("cfloat8_1_4_3_half", {"mode": "RTO", "ftz_out": "result"}),
    ],
    ids=str,
)
def test_counts_with_any_scale(
    fmt: str, options: dict[str, Any], carrier: type, capsys: pytest.CaptureFixture[str]
) -> None:
    """The counts are of what was rounded, x / s by the order in force with the scale of each element, by the reference."""
    random = np.random.default_rng(0)
    x = (random.standard_normal((3, 4, 5)) * np.exp2(random.integers(-8, 8, (3, 4, 1)))).astype(carrier)
    x[0, 0] = [math.nan, math.inf, -0.0, 0.75, np.finfo(carrier).smallest_subnormal]
    np.save("x.npy", x)
    q = Quantizer(fmt, **options)
    flushed = np.where(np.abs(x) < np.finfo(carrier).smallest_normal, carrier(0), x) if q.ftz_in else x
    s = qsim.derive_scale(flushed, q)
    named = {"mode": "-r"} | {name: f"--{name.replace('_', '-')}" for name in options if name != "mode"}
    argv = []
    for name, value in options.items():
        text = ",".join(map(str, value)) if isinstance(value, tuple) else str(value)
        argv += [named[name]] if value is True else [named[name], text]
    expected = counted(x, np.ones((), carrier) if s is None else s, q)
    for more in (
        [["--codes"]] if (fmt, carrier) == ("nf4", np.float16) else [[], ["--codes"]]
    ):  # whose values it cannot hold
        found = json.loads(run(capsys, "x.npy", "-f", fmt, "-o", "y.npy", "--json", *argv, *more))
        assert found["counts"] == expected
        assert s is None or np.array_equal(np.array(found["scale_value"], s.dtype), s if s.size > 1 else s.item())
    out = run(capsys, "x.npy", "-f", fmt, "-o", "y.npy", "--codes", *argv)
    if s is not None and s.size > 1:
        shape = " x ".join(map(str, s.shape))
        ends = re.search(rf"scale s +{s.size} of them \({shape}\), (\S+) \.\. ([^;]+);", out)
        assert ends
        assert [s.dtype.type(end) for end in ends.groups()] == [s.min(), s.max()]


def test_a_flushed_input_is_not_counted_as_it_was(capsys: pytest.CaptureFixture[str]) -> None:
    """A subnormal number over a smaller scale is beyond the range, but underflows where it is flushed first."""
    np.save("x.npy", [1e-310])
    argv = ["x.npy", "-f", "e4m3", "-o", "y.npy", "--scale", "1e-320", "--json"]
    for more, expected in (([], (1, 0)), (["--ftz-in"], (0, 1))):
        found = json.loads(run(capsys, *argv, *more))["counts"]
        assert (found["saturated"], found["underflowed"]) == expected


def test_the_summary_says_what_was_in_force(capsys: pytest.CaptureFixture[str]) -> None:
    """Format, mode, random bits, words, saturation, scale and counts are there, for reading and as JSON."""
    np.save("x.npy", X)
    options = ["-f", "e4m3", "-r", "SRA", "--sr-bits", "8", "--seed", "3", "--scale", "2", "-o", "y.npy"]
    out = run(capsys, "x.npy", *options)
    assert out.isascii()
    assert max(map(len, out.splitlines())) <= 100
    lines = dict(re.split(r"  +", line, maxsplit=1) for line in out.splitlines())
    assert lines == {
        "read": "x.npy: 8 elements (2 x 4), float64",
        "rounding": "float8_e4m3fn:SRA(8), scale 2.0, SatFinite",
        "random words": "8 bits an element, seed 3, stream 0, offset 0",
        "scale s": "2; the counts are of x / s",
        "saturated": "0 beyond -448 .. 448",
        "underflowed": "1 to zero",
        "NaN": "1",
        "on the grid": "2 already",
        "written": "y.npy: values, float64",
    }
    assert json.loads(run(capsys, "x.npy", *options, "--json")) == {
        "input": "x.npy", "dtype": "float64", "shape": [2, 4], "elements": 8,
        **Quantizer("e4m3", "SRA", sr_bits=8, scale=2.0).describe(),
        "random_bits": 8, "key": {"seed": 3, "stream": 0, "offset": 0, "bits": 32}, "rbits": None, "scale_value": 2.0,
        "counts": {"elements": 8, "saturated": 0, "underflowed": 1, "nan": 1, "on_grid": 2},
        "output": "y.npy", "holds": "values", "packed": None, "output_dtype": "float64", "output_shape": [2, 4],
    }  # fmt: skip


def test_sr_says_how_many_bits_the_input_has(capsys: pytest.CaptureFixture[str]) -> None:
    """SR takes 32 random bits of float32 and 64 of float64, and the summary says which."""
    for carrier, bits in ((np.float32, 32), (np.float64, 64)):
        np.save("x.npy", X.astype(carrier))
        out = run(capsys, "x.npy", "-f", "e4m3", "-r", "SR", "--seed", "0", "-o", "y.npy")
        assert f" {bits} bits an element" in out


# --- What is refused -------------------------------------------------------------------------------------------------

OK = "x.npy -f e4m3 -o y.npy"
"""A command line that does."""


@pytest.mark.parametrize(
    ("line", "fragment"),
    [
        ("x.npy -f e4m4m -o y.npy", "no format is called 'e4m4m'; did you mean"),
        ("x.npy -o y.npy", "-f/--format; `qsim quantize --help`"),
        ("x.npy -f e4m3", "-o/--output"),
        (f"{OK} -r RNX", "no rounding mode is called 'RNX'"),
        (f"{OK} -r SR", "SR needs random words; give --seed S"),
        (f"{OK} -r SRA --seed 1", "SRA needs sr_bits"),
        (f"{OK} -r SR --seed 1 --sr-bits 8", "SR takes 64 random bits"),
        (f"{OK} -r SR --stream 1", "--stream counts from a seed"),
        (f"{OK} --offset 1", "--offset counts from a seed; give --seed S"),
        (f"{OK} --seed 1", "RNE takes no random words; drop --seed, or name"),
        (f"{OK} --rbits x.npy", "drop --rbits"),
        (f"{OK} --sr-bits 8", "drop --sr-bits"),
        (f"{OK} -r SR --seed -1", "seed of a Key must be an integer of 64"),
        (f"{OK} -r SR --seed one", "--seed takes an integer, decimal or 0x hexadecimal, not 'one'"),
        (f"{OK} -r SR --rbits r.txt", "--rbits needs --sr-bits N"),
        (f"{OK} -r SR --seed 1 --rbits r.txt --sr-bits 64", "--rbits takes the place of --seed"),
        ("- -f e4m3 -o y.npy -r SRE --rbits - --sr-bits 1", "cannot be both IN and"),
        (f"{OK} --saturation saturate", "saturate makes no sense for float8_e4m3fn"),
        (f"{OK} --scale absmux", "no scale is called 'absmux'"),
        (f"{OK} --scale -1", "scale = -1.0 must be"),
        (f"{OK} -r SRA(8) --seed 1 --sr-bits 9", "sr_bits = 9 contradicts the 8 of SRA(8)"),
        (f"{OK} -r SRA(x) --seed 1", "no rounding mode is called 'SRA(x)'; such a spelling is SRA(8)"),
        (f"{OK} -r Threshold", "Threshold needs eps, 0 <= eps < 1, as in Threshold(0.25)"),
        (f"{OK} -r Threshold --eps 1", "eps = 1.0 must be a number with 0 <= eps < 1"),
        (f"{OK} --eps 0.5", "eps = 0.5 with RNE"),
        (f"{OK} --eps half", "--eps takes a number, not 'half'"),
        (f"{OK} --scale pow2 --per 2", "per = 2 names the axis 2 of an array of 2 axes"),
        (f"{OK} --scale pow2 --per 0,2", "per = (0, 2) names the axis 2 of"),
        (
            f"{OK} --scale pow2 --per row",
            "per = 'row'; it is tensor, sample, channel or token, or the number of an axis",
        ),
        (
            f"{OK} --scale 3 --order other",
            "no order of operations is called 'other'; it is divide, reciprocal, exact or input",
        ),
        (f"{OK} --nan quiet", "nan = 'quiet'; it is canonical, signed or signed_overflow"),
        (f"{OK} --pack", "--pack packs codes; give --codes too"),
        (f"{OK} --codes --pack middle", "--pack is little or big, not 'middle'"),
        ("zero.npy -f e4m3 -o y.npy --codes --pack", "codes without an axis are a single number"),
        ("x.npy -f Binary16p1se -o y.npy", "cannot hold the values of Binary16p1se"),
        (f"{OK} --dtype float16", "--dtype float16 is for bit patterns"),
        (f"{OK} --dtype float32", "x.npy holds float64, which --dtype float32"),
        (f"{OK} --code", "did you mean --codes"),
        ("x.npz -f e4m3 -o y.npy", "x.npz is an archive of several arrays; save the one to round as .npy"),
        ("x.bin -f e4m3 -o y.npy", "x.bin: a file of numbers is called .npy, .txt, .csv, .hex or .mem; - is text"),
        ("gone.npy -f e4m3 -o y.npy", "gone.npy: No such file"),
        ("gone.txt -f e4m3 -o y.npy", "gone.txt: No such file"),
        ("x.npy -f e4m3 -o y.dat", "y.dat: a file of numbers is called"),
        ("x.npy -f e4m3 -o /dev/null", "/dev/null: a file of numbers is called"),
        ("x.npy -f e4m3 -o folder.npy", "folder.npy is there and is no file"),
        ("x.npy -f e4m3 -o no/where/y.npy", "no/where/y.npy: cannot be written, for there is no folder"),
        ("cube.npy -f e4m3 -o y.txt", "y.txt cannot take an array of shape (1, 2, 4), for text has rows"),
        ("cube.npy -f e4m3 -o -", "standard output cannot take an array of shape"),
        ("single.npy -f e11m2 -o y.npy", "float32 cannot hold the values of"),
        (f"{OK} --scales s.npy", "--scales takes the scales; give --scale too"),
        (f"{OK} --scale absmax --scales y.npy", "y.npy cannot take both the result and the scales; name another"),
        (f"{OK} --scale absmax --scales ./y.npy", "./y.npy cannot take both the result and the scales; name another"),
        ("x.npy -f e4m3 -o - --scale absmax --scales -", "- cannot take both the result and the scales"),
        (f"{OK} --scale absmax --scales s.dat", "s.dat: a file of numbers is called .npy, .txt, .csv, .hex or .mem"),
        (f"{OK} --scale absmax --scales no/s.npy", "no/s.npy: cannot be written, for there is no folder"),
        ("cube.npy -f e4m3 -o y.npy --scale absmax --scales s.txt", "s.txt cannot take an array of shape (1, 1, 1)"),
        (f"{OK} --seed 0x{'f' * 5000}", "RNE takes no random words"),
        (f"{OK} -r SR --seed 0x{'f' * 5000}", "seed of a Key = ~3.980e+6020 must be an integer of at most 4096 bits"),
        (f"{OK} -r SR --seed {'9' * 400}", "not 99999999999999999999... (400 digits)"),
        (f"{OK} -r SR --seed 1 --offset 0x{'f' * 5000}", "offset of a Key = ~3.980e+6020 must be"),
        (f"{OK} -r SRA --seed 1 --sr-bits 0x{'f' * 5000}", "sr_bits = ~3.980e+6020 must be an integer of at most"),
        (f"{OK} -r SRA --seed 1 --sr-bits {'9' * 400}", "sr_bits = 99999999999999999999... (400 digits)"),
        (f"{OK} --scale pow2 --per {'9' * 400}", "names the axis 99999999999999999999... (400 digits)"),
        (f"{OK} --scale pow2 --per {'9' * 5000}", "per = '999999999999999999999999999...9999999999"),
        (f"{OK} --scale {'9' * 400}", "scale = inf must be a positive finite number"),
        (f"{OK} --eps {'9' * 5000}", "eps = inf with RNE"),
        (f"x.npy -f {'n' * 5000} -o y.npy", "no format is called 'nnnnn"),
        (f"{OK} -r {'n' * 5000}", "(5000 characters)"),
    ],
)
def test_bad_usage_is_refused(line: str, fragment: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Options and files that do not fit are refused with a sentence that names them, and nothing is written."""
    np.save("x.npy", X)
    np.save("cube.npy", X[None])
    np.save("single.npy", X.astype(np.float32))
    np.save("zero.npy", X[0, 0])
    Path("folder.npy").mkdir()
    Path("r.txt").write_text("1\n", encoding="utf-8")
    sentence = refused(capsys, *line.split())
    assert fragment in sentence
    assert len(sentence) < 700
