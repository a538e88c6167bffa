"""What `ftz_out` and `ftz_in` flush: held against this machine's processor, against the sentence that defines each, and arrays.

A processor rounds a float64 to a float32, or a product of two, under any of its four rounding directions, with flush-to-zero
(FTZ) and denormals-are-zero (DAZ) set in its control register, MXCSR.
"""

from __future__ import annotations

import ctypes
import functools
import math
import platform
import re
from collections.abc import Callable
from fractions import Fraction

import llvmlite.binding as llvm
import numpy as np
import pytest
from conftest import NO_MXCSR
from covered import covers
from enumeration import codes, exactly, goes_away, place, sixteen_bits
from strategies import FLOAT32, FLOAT64, both_kinds

import qsim
from qsim import InputError, Quantizer, reference
from qsim.formats import Format, Grid, float_format, get_format
from qsim.rounding import FLUSHES, Mode, saturations

# --- The processor ---------------------------------------------------------------------------------------------------

MASKED, FTZ, DAZ = 0x1F80, 1 << 15, 1 << 6
DIRECTIONS = {Mode.RNE: 0, Mode.RDN: 1 << 13, Mode.RUP: 2 << 13, Mode.RTZ: 3 << 13}
"""The bits of MXCSR: all exceptions masked, flush-to-zero, denormals-are-zero, and the rounding direction."""

LOOP = """
declare void @llvm.x86.sse.ldmxcsr(i8*)
declare void @llvm.x86.sse.stmxcsr(i8*)

define void @work({type}* %x, {type}* %z, float* %y, i64 %count, i32 %control) {{
start:
  %saved = alloca i8, i32 4
  %own = alloca i32
  %control_bytes = bitcast i32* %own to i8*
  call void @llvm.x86.sse.stmxcsr(i8* %saved)
  store i32 %control, i32* %own
  call void @llvm.x86.sse.ldmxcsr(i8* %control_bytes)
  br label %test
test:
  %i = phi i64 [0, %start], [%next, %body]
  %more = icmp slt i64 %i, %count
  br i1 %more, label %body, label %end
body:
  %from = getelementptr {type}, {type}* %x, i64 %i
  %by = getelementptr {type}, {type}* %z, i64 %i
  %to = getelementptr float, float* %y, i64 %i
  %a = load volatile {type}, {type}* %from
  %b = load volatile {type}, {type}* %by
  %r = {operation}
  store volatile float %r, float* %to
  %next = add i64 %i, 1
  br label %test
end:
  call void @llvm.x86.sse.ldmxcsr(i8* %saved)
  ret void
}}
"""
"""A loop between two writes of MXCSR; all its loads and stores are volatile, so that none moves across them."""

OPERATIONS = {"cast": ("double", "fptrunc double %a to float"), "product": ("float", "fmul float %a, %b")}


@functools.cache
def compiled(operation: str) -> Callable[..., None]:
    """Return the loop of one operation, compiled."""
    if platform.machine() not in {"x86_64", "AMD64"}:
        pytest.skip(NO_MXCSR)
    llvm.initialize_native_target()
    llvm.initialize_native_asmprinter()
    kind, text = OPERATIONS[operation]
    loop = LOOP.format(type=kind, operation=text)
    if llvm.llvm_version_info >= (17,):  # pointers have no types any more
        loop = re.sub(r"\w+\*", "ptr", loop)
    module = llvm.parse_assembly(loop)
    engine = llvm.create_mcjit_compiler(module, llvm.Target.from_default_triple().create_target_machine(opt=0))
    engine.finalize_object()
    work = ctypes.CFUNCTYPE(None, *[ctypes.c_void_p] * 3, ctypes.c_int64, ctypes.c_uint32)(
        engine.get_function_address("work")
    )
    work.engine = engine  # which owns the code
    return work


def processor(operation: str, x: np.ndarray, z: np.ndarray, mode: Mode, bits: int) -> np.ndarray:
    """Return the patterns of float32 that the processor makes of the numbers `x`, or of their products with `z`."""
    y = np.empty(x.size, np.float32)
    compiled(operation)(x.ctypes.data, z.ctypes.data, y.ctypes.data, x.size, MASKED | bits | DIRECTIONS[mode])
    return y.view(np.uint32)


def near_normal() -> np.ndarray:
    """Return float64 numbers: all that have 26 bits next to +-2^-126, some of all magnitudes around, and special ones."""
    steps = np.arange(-129, 130) * 2.0**-26
    random = np.random.default_rng(0)
    drawn = np.ldexp(1 + random.random(4000), random.integers(-160, -115, 4000))
    fine = 2.0**-126 * (1 - random.integers(0, 1 << 12, 1000) * 2.0**-36)
    ends = [
        0.0,
        5e-324,
        2.0**-1022,
        2.0**-149,
        2.0**-150,
        1.5 * 2.0**-149,
        1e39,
        3.4028235677973366e38,
        math.inf,
        1.0,
        1 / 3,
    ]
    x = np.concatenate([2.0**-126 * (1 + steps), drawn, fine, np.array(ends)])
    return np.concatenate([x, -x])


@pytest.mark.parametrize("mode", DIRECTIONS, ids=str)
def test_casts_are_the_processors(mode: Mode) -> None:
    """From float64 to float32 the processor's FTZ is ftz_out = "after", its DAZ ftz_in, in all four rounding directions."""
    x = near_normal()
    for ftz, daz in ((False, False), (True, False), (False, True), (True, True)):
        got = processor("cast", x, x, mode, FTZ * ftz | DAZ * daz)
        expected = qsim.encode(x, "float32", mode, ftz_out=ftz and "after", ftz_in=daz)
        assert (got == expected).all(), x[got != expected][:3]
        definition = [
            reference.encode(reference.flushed(v, "float64") if daz else v, "float32", mode, ftz_out=ftz)
            for v in x[::9].tolist()
        ]
        assert got[::9].tolist() == definition
    flushed = processor("cast", x, x, mode, FTZ)
    for kind in ("before", "result"):  # unless nothing becomes normal by rounding
        assert (flushed != qsim.encode(x, "float32", mode, ftz_out=kind)).any() == (mode is not Mode.RTZ), kind


@pytest.mark.parametrize("mode", DIRECTIONS, ids=str)
def test_products_are_the_processors(mode: Mode) -> None:
    """A product of two float32 under FTZ is its exact value rounded with ftz_out = "after"; under DAZ factors are flushed."""
    random = np.random.default_rng(1)
    x = np.ldexp(1 + random.integers(0, 1 << 23, 3000) * 2.0**-23, -63).astype(np.float32)
    z = (2.0**-126 / x.astype(np.float64) * (1 + random.integers(-3, 4, 3000) * 2.0**-24)).astype(np.float32)
    tiny = np.float32([2.0**-126 * (1 - 2.0**-23), 2.0**-149, 1.5 * 2.0**-126, 2.0**-70, -(2.0**-70)])
    x, z = np.concatenate([x, -x, tiny]), np.concatenate([z, z, np.float32([1.5, 2.0**100, 0.5, 2.0**-60, 2.0**-60])])
    for ftz, daz in ((False, False), (True, False), (True, True)):
        got = processor("product", x, z, mode, FTZ * ftz | DAZ * daz)
        pairs = [
            [reference.flushed(v, "float32") if daz else v for v in pair]
            for pair in zip(x.astype(float).tolist(), z.astype(float).tolist(), strict=True)
        ]
        for (a, b), code in zip(pairs, got.tolist(), strict=True):
            product = Fraction(a) * Fraction(b) or a * b  # a zero has a sign
            assert reference.encode(product, "float32", mode, ftz_out=ftz and "after") == code, (a, b)


def test_a_product_that_rounds_up_to_a_normal_number_only_if_it_is_subnormal_first() -> None:
    """(1 - 2^-24) 2^-126 has 24 bits: it is tiny by x86, by Arm, and not as a tie of subnormal numbers."""
    x = np.float64((1 - 2.0**-24) * 2.0**-126)
    assert [float(qsim.quantize(x, "float32", ftz_out=kind)) for kind in ("after", "before", "result", True, False)] == [
        0.0, 0.0, 2.0**-126, 0.0, 2.0**-126,
    ]  # fmt: skip
    y = np.float64((1 - 2.0**-26) * 2.0**-126)
    assert [float(qsim.quantize(y, "float32", ftz_out=kind)) for kind in ("after", "before")] == [2.0**-126, 0.0]


def test_reduce_precision() -> None:
    """XLA's reduce_precision(x, 4, 3) flushes "after": 0.0151 becomes 0, and so do 128 float16 that "result" keeps."""
    assert qsim.quantize(np.float32(0.0151), "float8_e4m3", ftz_out="after") == 0
    assert qsim.quantize(np.float32(0.0151), "float8_e4m3", ftz_out="result") == 2.0**-6
    x = sixteen_bits(np.dtype(np.float16))
    after, result = (qsim.encode(x, "float8_e4m3", ftz_out=kind) for kind in ("after", "result"))
    assert np.count_nonzero(after != result) == 128


# --- The definition --------------------------------------------------------------------------------------------------

ALL = [
    "float8_e4m3fn", "float4_e2m1fn", "dlfloat16", "cfloat8_1_4_3_half", "e4m0fn", "ue4m3", "Binary6p6uf", "e8m0",
]  # fmt: skip


def by_sentence(x: Fraction, fmt: Grid, mode: Mode, kind: str, r: int, eps: float) -> float | None:
    """Return what a number below twice the smallest normal one becomes, by the sentences of `FLUSHES`; `None`: as without."""
    normal = fmt.value(fmt.first_normal)
    if kind == "before":
        return 0.0 if abs(x) < normal else None
    if kind == "result":
        plain = reference.quantize(x, fmt, mode, sr_bits=4, rbits=r, eps=eps)
        return 0.0 if 0 < abs(plain) < normal else plain
    unit = Fraction(1)  # of the last of `precision` bits
    while unit * 2**fmt.man_bits > abs(x):
        unit /= 2
    while unit * 2 ** (fmt.man_bits + 1) <= abs(x):
        unit *= 2
    steps, nu = divmod(abs(x) / unit, 1)
    odd = steps % 2 == 1
    if not fmt.man_bits:  # codes alternate from binade to binade
        binades = math.log2(normal / unit)
        odd = fmt.is_odd(fmt.first_normal) ^ (binades % 2 == 1)
    y = (steps + reference.away(mode, nu, odd, x < 0, 4, r, eps)) * unit
    return 0.0 if y < normal else float(math.copysign(1, x) * y)


@pytest.mark.parametrize("name", ALL)
def test_each_kind_is_what_its_sentence_says(name: str) -> None:
    """Near the smallest normal number, and far below it, in every mode, with some words and thresholds."""
    fmt = get_format(name)
    assert isinstance(fmt, Grid)
    normal, unit = fmt.value(fmt.first_normal), fmt.value(fmt.first_normal + 1) - fmt.value(fmt.first_normal)
    near = [normal + step * unit / 16 for step in (*range(-20, 2, 2), -1, -3, -5)]
    far = [normal * part / 64 for part in range(1, 64, 7)] + [normal / 10**k for k in range(1, 9, 2)]
    signs = (1, -1) if fmt.signed else (1,)
    for x in (sign * v for v in {v for v in near + far if v > 0} for sign in signs):
        for mode in Mode:
            for r, eps in ((0, 0.0), (7, 0.25), (12, 0.75)) if mode.stochastic or mode is Mode.THR else ((0, 0.0),):
                for kind in FLUSHES:
                    got = reference.quantize(x, fmt, mode, sr_bits=4, rbits=r, eps=eps, ftz_out=kind)
                    expected = by_sentence(x, fmt, mode, kind, r, eps)
                    if expected is None:
                        expected = reference.quantize(x, fmt, mode, sr_bits=4, rbits=r, eps=eps)
                    if not expected and not fmt.has_zero:
                        expected = fmt.smallest_subnormal  # zero_to is "min"
                    assert got == expected, (x, mode, kind, r, eps)
                    assert math.copysign(1, got) == (-1 if x < 0 and (got or fmt.has_neg_zero) else 1)


def test_negative_numbers_and_unsigned_formats() -> None:
    """Tiny is tiny whatever its sign: what is flushed before its sign matters becomes 0, not what a negative number does."""
    normal = get_format("ue4m3").smallest_normal
    for kind, expected in (("after", 0.0), ("before", 0.0), ("result", math.nan)):
        found = reference.quantize(-0.9 * normal, "ue4m3", saturation="OvfNaN", ftz_out=kind)
        assert found == expected or (math.isnan(found) and math.isnan(expected))
        assert math.isnan(reference.quantize(-1.01 * normal, "ue4m3", saturation="OvfNaN", ftz_out=kind))


def test_formats_without_subnormal_numbers_of_their_own() -> None:
    """Integers, fixed point and tables flush nothing, of whatever kind; where no input is below it neither does e4m3."""
    x = np.linspace(-3, 3, 97)
    for fmt in ("int4", "Q1.6", "nf4", "uint4", "ternary"):
        for kind in FLUSHES:
            assert (qsim.encode(x, fmt, ftz_out=kind) == qsim.encode(x, fmt)).all()


# --- Arrays ----------------------------------------------------------------------------------------------------------

ARRAYS = ["float8_e4m3fn", "float8_e5m2", "bfloat16", "cfloat8_1_4_3_half", "ue4m3", "e8m0", "Binary8p1se", "e4m0fn"]


@covers(
    "enumerated",
    formats="8 float formats of up to 16 bits, flushed before and after rounding",
    modes=Mode,
    saturations="default",
    inputs="all 65,536 float16 and all bfloat16; random words",
)
@pytest.mark.in_part(2)
@both_kinds
@pytest.mark.parametrize("name", ARRAYS)
def test_arrays_are_the_oracles(name: str, kind: np.dtype) -> None:
    """All numbers of 16 bits become the oracle's codes by every mode and kind of flush."""
    fmt, x = get_format(name), sixteen_bits(kind)
    exact, random = exactly(x), np.random.default_rng(5)
    for flush in FLUSHES:
        at = place(fmt, exact, unbounded=flush == "after")
        for mode in Mode:
            for rule in saturations(fmt) if mode in (Mode.RNE, Mode.SRA) else saturations(fmt)[:1]:
                given, n, eps = {}, {Mode.SR: 32, Mode.SRE: 1}.get(mode, 6), random.choice([0.0, 0.25, 1 / 3], x.size)
                r = random.integers(0, 1 << n, x.size, np.uint64)
                if mode.stochastic:
                    given = {"sr_bits": n, "rbits": r}
                if mode is Mode.THR:
                    given = {"eps": eps}
                toward, away = codes(fmt, rule, mode, exact, at, ftz_out=flush)
                expected = np.where(goes_away(mode, at, n, r, eps), away, toward)
                got = qsim.encode(x, fmt, mode, saturation=rule, ftz_out=flush, **given)
                assert (got == expected).all(), (flush, mode, rule, x[got != expected][:3])


@pytest.mark.parametrize("kind", [FLOAT32, FLOAT64])
@pytest.mark.parametrize("name", ["float32", "float64", "bfloat16", "e8m22"])
def test_values_codes_and_draws_agree(name: str, kind: np.dtype) -> None:
    """What arrays return as values, codes or draws is the definition's, scaled too, where a type has no binade to spare."""
    fmt = get_format(name)
    if name == "float64" and kind == FLOAT32:
        name, fmt = "float32", get_format("float32")
    part = np.concatenate([1 - 2.0 ** -np.arange(1, 56), np.linspace(0.4, 1.1, 50)])
    x = (fmt.smallest_normal * np.concatenate([part, -part])).astype(kind)
    for flush in FLUSHES:
        for mode in ("RNE", "RUP"):
            q = Quantizer(name, mode, ftz_out=flush)
            expected = [reference.encode(v, name, mode, ftz_out=flush) for v in x.astype(float).tolist()]
            assert qsim.encode(x, q).tolist() == expected
            assert qsim.encode(qsim.quantize(x, q), fmt).tolist() == expected
            drawn, counts = qsim.arrays.quantize_draws(x[None], q, 0, [0])
            assert qsim.encode(drawn[0], fmt).tolist() == expected
            assert counts.underflowed == np.count_nonzero((x != 0) & (drawn[0] == 0))
            assert qsim.encode(x * 4, Quantizer(name, mode, scale=4.0, ftz_out=flush)).tolist() == expected


def test_what_arrays_cannot_flush_is_refused() -> None:
    """A format whose smallest normal number is float64's own has no binade below it to round in; the definition has."""
    fmt = float_format("own", 11, 20, "ieee", "a test")
    with pytest.raises(InputError, match=r"own, with ftz_out = 'after', has values .*; qsim.reference rounds to it"):
        qsim.quantize(np.array([1.0]), fmt, ftz_out="after")
    x = (1 - 2.0**-22) * 2.0**-1022
    assert reference.quantize(x, fmt, ftz_out="after") == 2.0**-1022
    assert reference.quantize(x, fmt, ftz_out="before") == qsim.quantize(np.array([x]), fmt, ftz_out="before")[0] == 0


# --- What is said ----------------------------------------------------------------------------------------------------


def test_the_kind_is_said() -> None:
    """A quantizer prints and describes when it flushes; True is "after"; what is no kind is refused with the kinds."""
    assert Quantizer("e4m3", ftz_out=True) == Quantizer("e4m3", ftz_out="after")
    assert str(Quantizer("e4m3", ftz_out=True)) == "float8_e4m3fn:RNE, SatFinite, ftz_out after"
    assert Quantizer("e4m3", ftz_out="before").describe()["ftz_out"] == "before"
    assert "ftz_out" not in Quantizer("e4m3").describe()
    for wrong in ("yes", 1, None, "After"):
        with pytest.raises(
            InputError, match=r"ftz_out = .*; it is 'after', 'before' or 'result', True \(which is 'after'\)"
        ):
            Quantizer("e4m3", ftz_out=wrong)
        with pytest.raises(InputError, match="ftz_out = "):
            reference.encode(1.0, "e4m3", ftz_out=wrong)


NAMES = {
    "after": "flushes to zero what is tiny after it is rounded with an unbounded exponent", False: "does not flush",
    "before": "flushes what is below the smallest normal value before rounding",
    "result": "flushes subnormal results to zero",
}  # fmt: skip


@pytest.mark.in_part(2)
@pytest.mark.parametrize(
    ("kind", "meant"),
    [
        ("after", False),
        ("before", "after"),
        ("result", "after"),
        (False, "after"),
        ("after", "before"),
        ("after", "result"),
    ],
)
def test_a_quantizer_of_another_kind_is_refuted_and_named(kind: str | bool, meant: str | bool) -> None:
    """`check_quantizer` tells the kinds apart, and names the one that it finds."""

    def device(x: np.ndarray) -> np.ndarray:
        return qsim.encode(x, "e4m3", ftz_out=kind)

    verdict = qsim.testing.check_quantizer(device, "e4m3", codes=True, ftz_out=meant, examples=0, laws=["subnormals"])
    assert NAMES[kind] in verdict.counterexample


@pytest.mark.parametrize(("mode", "kind"), [("SRA", "after"), ("SRC", "before"), ("SRB", "result")])
def test_words_hold_with_every_kind(kind: str, mode: str) -> None:
    """All laws of stochastic modes hold of arrays that flush, those of words and moments included."""

    def device(x: np.ndarray, rbits: np.ndarray) -> np.ndarray:
        return qsim.encode(x, "e4m3", mode, sr_bits=6, rbits=rbits, ftz_out=kind)

    verdict = qsim.testing.check_quantizer(device, "e4m3", mode, sr_bits=6, codes=True, ftz_out=kind, examples=256)
    assert str(verdict.outcome) == "held", verdict.counterexample
    assert f"ftz_out {kind}" in verdict.covered


def test_what_an_explanation_says() -> None:
    """The neighbours are those that the rounding had; what is flushed whichever way it would go is not rounded."""
    normal = 2.0**-6

    def told(x: float, kind: str) -> str:
        return " ".join(str(qsim.explain.explain(x, "float8_e4m3", ftz_out=kind)).split())

    assert "0.0146484375, not a value of the format away 0.015625" in told(0.9999 * normal, "after")
    assert "result 0.015625" in told(0.9999 * normal, "after")
    assert "tiny: becomes 0 (ftz_out = 'after')" in told(0.95 * normal, "after")
    for kind, words in (("after", "and stays so, rounded to as many bits"), ("before", "before it is rounded")):
        found = told(-0.5 * normal, kind)
        assert f"none: x is below the smallest normal number 0.015625 {words}: it is tiny" in found
        assert f"tiny: becomes -0 (ftz_out = '{kind}')" in found
    assert "a subnormal value: becomes 0 (ftz_out = 'result')" in told(0.6 * normal, "result")


def test_the_deepened_grid_has_the_values_of_its_own_range() -> None:
    """Two more binades hold every value of the format, and numbers of full precision between zero and the normal ones."""
    for name in ("e4m3", "e2m1", "e4m0fn", "dlfloat16", "cfloat8_1_4_3_half", "e8m0"):
        fmt: Format = get_format(name)
        assert isinstance(fmt, Grid)
        deep = fmt.deepened()
        assert (deep.max, deep.min) == (fmt.max, fmt.min)
        shift = deep.ordinal(fmt.smallest_normal) - fmt.first_normal
        assert shift % 2 == 0
        for ordinal in range(fmt.first_normal, min(fmt.top, 500) + 1):
            assert deep.value(ordinal + shift) == fmt.value(ordinal)
        assert deep.value(fmt.first_normal + shift - 1) == fmt.below_normal
