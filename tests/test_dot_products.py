"""Matrix products by an accumulator: every way that is taken gives the bits of the definition, and says which it was."""

from __future__ import annotations

import itertools
from fractions import Fraction

import numpy as np
import pytest

import qsim
from qsim import InputError, Key, Quantizer
from qsim import reference as rounding
from qsim.arrays import random_words
from qsim.dot import Accumulator, dots_of, matmul, products, reference
from qsim.dot.exactness import bits_of, blas_dtype, extent_of, is_conventional, never_rounds
from qsim.formats import get_format

KEY = Key(5, 9, 3)


def operands(rng: np.random.Generator, fmt: str, shape: tuple[int, ...], *, special: bool = False) -> np.ndarray:
    """Return numbers of a format, half of them small, so that sums stay in its range."""
    values = get_format(fmt).values()
    values = values if special else values[np.isfinite(values)]
    small = values[np.abs(values) <= 4]
    return np.where(rng.random(shape) < 0.5, rng.choice(values, shape), rng.choice(small, shape))


def same(x: np.ndarray, y: np.ndarray) -> bool:
    """Return whether two arrays hold the same numbers, zeros by their sign."""
    signs = np.signbit(x) == np.signbit(y)
    return np.array_equal(x, y, equal_nan=True) and bool((signs | np.isnan(x)).all())


def by_definition(a, b, c, acc: Accumulator, formats=(None, None)) -> np.ndarray:
    """Return the product by the reference."""
    rows = [(float(c[i, j]), a[i].tolist(), b[:, j].tolist()) for i in range(len(a)) for j in range(b.shape[1])]
    sums = [reference.dot(u, v, s, acc, formats=formats, key=KEY, element=i) for i, (s, u, v) in enumerate(rows)]
    return np.array(sums).reshape(c.shape)


SCALAR = [
    {}, {"order": "pairwise"}, {"order": "kahan"}, {"order": "exact"}, {"group": 3, "outer": "float32:RDN"},
    {"product": "float8_e5m2:RTZ"}, {"order": "pairwise", "group": 4, "output": "float16:RUP"},
]  # fmt: skip
MODES = ["RNE", "RDN", "RTO", "SR", "SRA(3)", "SRC(5)", "Threshold(0.25)"]
CASES = [*(("bfloat16", mode) for mode in MODES), ("float8_e4m3fn", "RNE"), ("float8_e4m3fn", "SR"), ("Q5.4", "RNE")]


@pytest.mark.parametrize(("fmt", "mode"), CASES)
def test_sums_that_are_rounded_at_each_step(fmt: str, mode: str) -> None:
    """Of every order, mode and kind of format the loops give the bits of the reference, infinities and NaN included."""
    rng = np.random.default_rng(len(mode) + len(fmt))
    for fields in SCALAR:
        if "product" in fields and mode not in {"RNE", "RDN"}:
            continue
        acc = Accumulator(f"{fmt}:{mode}", **fields)
        a, b = operands(rng, "float8_e5m2", (2, 7), special=True), operands(rng, "float8_e4m3fn", (7, 3), special=True)
        c = operands(rng, "float16", (2, 3))
        c[0, 0] = -0.0
        a[1, 0], b[0, :] = -0.0, np.abs(b[0, :])
        found = matmul(a, b, acc, c=c, key=KEY)
        assert found.path == ("reference" if acc.order == "exact" else "kernel")
        assert same(found.values, by_definition(a, b, c, acc)), str(acc)
        rows = dots_of(a, np.ascontiguousarray(b.T[:2]), acc, c=c[:, 0], key=KEY)
        wanted = [
            reference.dot(u, v, s, acc, key=KEY, element=i)
            for i, (u, v, s) in enumerate(zip(a.tolist(), b.T[:2].tolist(), c[:, 0].tolist(), strict=True))
        ]
        assert same(rows, np.array(wanted)), str(acc)


BLOCKS = [
    {"align": 7}, {"align": 24}, {}, {"align": 10, "start": "after"},
    {"align": 10, "start": "after", "join": 17, "join_mode": "RDN"},
    {"align": 10, "start": "after", "join": 8, "join_mode": "RNE", "align_mode": "RDN"},
    {"align": 25, "start": "last", "outer": "float16:RNE"}, {"align": 9, "normalize": True}, {"align": 9, "lanes": "pairs"},
    {"align": 9, "lanes": "even-odd", "group": 5}, {"align": 5, "least_exponent": -3, "align_mode": "RDN"},
    {"align": 6, "align_mode": "RNE"},
]  # fmt: skip


@pytest.mark.parametrize("fields", BLOCKS, ids=str)
def test_block_fused_multiply_adds(fields: dict[str, object]) -> None:
    """Of every parameter of a block the loop gives the bits of the reference, subnormal operands and overflow included."""
    rng = np.random.default_rng(3)
    for rounding_, inputs in (
        ("float32:RTZ", "float8_e4m3fn"),
        ("float16:RNE", "float16"),
        ("e8m13:RTZ", "float8_e5m2"),
    ):
        acc = Accumulator(rounding_, block=4, **fields)
        fmt = get_format(inputs)
        a, b, c = (
            operands(rng, name, shape) for name, shape in ((inputs, (4, 11)), (inputs, (11, 3)), ("float16", (4, 3)))
        )
        found = matmul(a, b, acc, c=c, inputs=inputs)
        assert found.path == ("kernel" if "align" in fields else "reference")
        assert same(found.values, by_definition(a, b, c, acc, (fmt, fmt)))
        a[0, 0], b[0, :] = np.inf if fmt.has_inf else np.nan, 1.0
        assert same(matmul(a, b, acc, c=c, inputs=inputs).values, by_definition(a, b, c, acc, (fmt, fmt)))


@pytest.mark.parametrize("mode", ["RNE"])
def test_one_step_of_every_number(mode: str) -> None:
    """S + a b is the exact number, rounded once, for sums s of FP6, and products of FP4, and for products rounded before."""
    values, sums = get_format("float4_e2m1fn").values(), get_format("float6_e2m3fn").values()[::6]
    a, b = values[:, None], values[None, :]
    for target in ("float6_e2m3fn", "float4_e2m1fn"):
        for product in (None, "float4_e2m1fn:RTZ"):
            for s in sums.tolist():
                c = np.full((16, 16), s)
                found = matmul(a, b, Accumulator(f"{target}:{mode}", product=product), c=c)
                for i, j in itertools.product(range(0, 16, 3), range(16)):
                    exact = Fraction(a[i, 0]) * Fraction(b[0, j])
                    part = exact if product is None else Fraction(rounding.quantize(exact, "float4_e2m1fn", "RTZ"))
                    assert found.values[i, j] == rounding.quantize(Fraction(s) + part, target, mode), (s, i, j)


def test_random_words_of_the_steps() -> None:
    """A word is named by seed, stream, output and step: rows may be computed apart, and halves serve 16 bits and fewer."""
    rng = np.random.default_rng(1)
    a, b = operands(rng, "float8_e4m3fn", (3, 5)), operands(rng, "float8_e4m3fn", (5, 4))
    for mode in ("SR", "SRA(16)"):
        whole = matmul(a, b, f"bfloat16:{mode}", key=KEY).values
        rest = matmul(a[1:], b, f"bfloat16:{mode}", key=Key(KEY.seed, KEY.stream, KEY.offset + 4)).values
        assert same(whole[1:], rest)
    for step, n in itertools.product(range(4), (8, 16, 17, 32)):
        half = n <= 16
        place = 3 + 7 + ((step // 2 if half else step) << 40)
        word = int(random_words(Key(5, 9, place), 1)[0])
        wanted = (word & 0xFFFF if step % 2 else word >> 16) >> (16 - n) if half else word >> (32 - n)
        assert reference.step_word(KEY, 7, step, n) >> (32 - n) == wanted
    total, q = 0.0, Quantizer("bfloat16", "SRA", sr_bits=32)
    for k in range(5):  # and one sum by hand
        word = int(random_words(Key(5, 9, 3 + 2 + (k << 40)), 1)[0])
        exact = Fraction(total) + Fraction(a[0, k]) * Fraction(b[k, 2])
        total = rounding.quantize(exact, q.format, "SRA", sr_bits=32, rbits=word)
    assert matmul(a, b, "bfloat16:SR", key=KEY).values[0, 2] == total


def test_integers_saturate_or_wrap() -> None:
    """INT8 times INT8 is added in INT32, or in fewer bits, which saturate at each step or wrap around."""
    rng = np.random.default_rng(2)
    a, b = rng.integers(-128, 128, (3, 40), np.int8), rng.integers(-128, 128, (40, 2), np.int8)
    exact = a.astype(np.int64) @ b.astype(np.int64)
    found = matmul(a, b, "int32")
    assert found.path == "blas"
    assert found.exact
    assert (np.asarray(found) == exact).all()
    wrapped = matmul(a, b, Quantizer("int16", saturation="wrap")).values
    assert (wrapped == (exact + 2**15) % 2**16 - 2**15).all()
    total = np.zeros((3, 2), np.int64)
    for k in range(40):
        total = np.clip(total + a[:, k, None].astype(np.int64) * b[k].astype(np.int64), -(2**15), 2**15 - 1)
    assert (np.abs(exact) > 2**15 - 1).any()
    assert (matmul(a, b, "int16").values == total).all()


# --- The exact path --------------------------------------------------------------------------------------------


def test_a_blas_is_exact_where_it_says_so() -> None:
    """Where no sum needs more bits than the accumulator and BLAS have, BLAS computes it; one bit more, and it does not."""
    a = np.full((2, 8), 255.0)
    for most, path in ((8224, "blas"), (8225, "kernel")):  # 8 * 255 * 8224 <= 2^24 < 8 * 255 * 8225
        b = np.full((8, 2), float(most))
        b[0, 0] -= 1  # odd, or odd: u = 1
        b[1, 0] = 1.0
        found = matmul(a, b, "float32")
        assert found.path == path
        assert (found.values[:, 1] == np.float32(8 * 255 * most)).all()
        assert matmul(a, b, "float32:RNE", c=np.zeros((2, 2))).path == path
    assert matmul(a, b, Accumulator("float32", order="exact")).path == "reference"
    assert matmul(a / 2**80, b / 2**60, "float32").path == "kernel"  # below the normal numbers
    assert matmul(a * 2**60, b * 2.0**50, "float32").path == "kernel"  # overflows
    fast = matmul(a, b, "fast")
    assert (fast.path, fast.exact) == ("fast", False)
    assert is_conventional(np.float32)
    assert is_conventional(np.float64)


@pytest.mark.parametrize("acc", [
    Accumulator("bfloat16"), Accumulator("float16:RTZ", order="pairwise"), Accumulator("float16:SR", order="kahan"),
    Accumulator("float32", group=2, outer="float16"), Accumulator("float16:RTZ", block=4, align=9),
    Accumulator("float16:RUP", block=4, align=9, start="after", join=6), Accumulator("Q9.2:RNE"),
], ids=str)  # fmt: skip
def test_what_never_rounds_is_what_the_definition_says(acc: Accumulator) -> None:
    """Where the test says that nothing rounds, the reference gives the exact sum; it says so for some operands, not for all."""
    rng = np.random.default_rng(7)
    said = set()
    for scale in range(10):
        a, b = rng.integers(-(2**scale), 2**scale + 1, (2, 2, 6)).astype(float)[:, :, :]
        c = rng.integers(-4, 5, (2, 2)).astype(float)
        extent = extent_of(a, b.T, c)
        assert extent is not None
        clean = never_rounds(acc, extent, (None, None)) and blas_dtype(extent) is not None
        said.add(clean)
        if clean:
            assert (by_definition(a, b.T, c, acc) == c + a @ b.T).all()
            assert matmul(a, b.T, acc, c=c, key=KEY).path == "blas"
    assert said == {True, False}


def test_a_block_is_exact_down_to_its_last_bit() -> None:
    """1024 + 1 needs an alignment of 10 bits; with 9 the 1 is cut, and no BLAS is taken."""
    for align, path, wanted in ((10, "blas", 1025.0), (9, "kernel", 1024.0)):
        found = matmul([[1024.0]], [[1.0]], Accumulator("float32:RTZ", block=4, align=align), c=[[1.0]])
        assert (found.path, found.values) == (path, wanted)


def test_the_extent_of_sums() -> None:
    """The lowest bit, the largest sum and the exponents are those of the operands; specials and -0 in c have none."""
    a, b = np.array([[1.5, -0.375]]), np.array([[2.0], [24.0]])
    extent = extent_of(a, b, None)
    assert extent is not None
    assert (extent.unit, extent.most, extent.exponents) == (-3 + 1, Fraction(2 * 1.5 * 24), (0, 4))
    assert extent_of(a, b, np.array([[-0.0]])) is None
    assert extent_of(a * np.inf, b, None) is None
    assert extent.bits == 2 + 2
    assert bits_of(np.array([0.75, -3.5, 0.0])) == (-2, 3)
    assert bits_of(np.array([5e-324])) == (-1074, 53)
    assert extent.short
    for far in (2.0**130, 2.0**-130):
        spread = extent_of(a * far, b / far, None)
        assert spread is not None
        assert not spread.short
        assert same(matmul(a * far, b / far, "bfloat16").values, matmul(a, b, "bfloat16").values)
    assert bits_of(np.zeros(3)) is None
    nothing = extent_of(a * 0, b, None)
    assert nothing is not None
    assert nothing.most == 0


# --- Input -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("call", "sentence"), [
    (lambda: matmul(np.ones((2, 3)), np.ones((2, 3))), r"a of shape \(2, 3\) and b of shape \(2, 3\)"),
    (lambda: matmul(np.ones((2, 3)), np.ones((3, 2)), c=np.ones(3)), "does not broadcast to the result's"),
    (lambda: matmul(np.ones((1, 1)), np.ones((1, 1)), "bfloat16:SR"), "give key = qsim.Key"),
    (lambda: matmul(np.full((1, 1), 1.1), np.ones((1, 1)), inputs="e4m3"), r"a\[0, 0\] = 1.1 is no number"),
    (lambda: matmul(np.ones((1, 1), complex), np.ones((1, 1))), "a is an array of complex128"),
    (lambda: Accumulator("float32", align=3), "say its number of products"),
    (lambda: Accumulator("float32", order="tree"), "order = 'tree'; it is sequential, pairwise, kahan or exact"),
    (lambda: Accumulator("float32", block=4, join=3), "say start = 'after'"),
    (lambda: Accumulator("float32", product="float16:SR"), "deterministic"),
    (lambda: Accumulator("float32:SRA(40)"), "a step has 32 random bits"),
    (lambda: Accumulator("float32", block=65), "block = 65 of an Accumulator is 0 to 64"),
    (lambda: Accumulator("float32", outer="float32"), "how many products a group has"),
    (lambda: Accumulator(3), "is 'FORMAT:MODE' or a Quantizer"),
])  # fmt: skip
def test_what_makes_no_sense_is_refused(call, sentence: str) -> None:
    """One sentence says what was wrong."""
    with pytest.raises(InputError, match=sentence):
        call()


def test_shapes_and_types() -> None:
    """Leading axes broadcast, types of NumPy and ml_dtypes are read exactly, and empty products are c."""
    ml_dtypes = pytest.importorskip("ml_dtypes")
    rng = np.random.default_rng(0)
    a, b = operands(rng, "float8_e4m3fn", (2, 1, 3, 4)), operands(rng, "float8_e4m3fn", (5, 4, 2))
    found = matmul(a.astype(ml_dtypes.float8_e4m3fn), b.astype(np.float16), "bfloat16").values
    assert found.shape == (2, 5, 3, 2)
    assert found.dtype == np.float32
    for i, j in itertools.product(range(2), range(5)):
        assert same(found[i, j], matmul(a[i, 0], b[j], "bfloat16").values)
    drawn = matmul(a, b, "bfloat16:SR", key=KEY).values
    assert same(drawn[0, 1], matmul(a[0, 0], b[1], "bfloat16:SR", key=Key(5, 9, 3 + 6)).values)
    assert (
        matmul(np.ones((2, 0)), np.ones((0, 3)), "bfloat16", c=np.full((2, 3), 0.3)).values == np.float32(0.3)
    ).all()
    assert matmul(np.ones((0, 2)), np.ones((2, 3)), "bfloat16").values.shape == (0, 3)
    assert products.result_dtype(get_format("float64")) is np.float64
    acc = Accumulator("bfloat16:SRA(8)", group=4, outer="float32")
    assert str(acc) == "bfloat16:SRA(8), group 4, outer float32:RNE"
    assert acc.replace(group=8) == Accumulator("bfloat16:SRA(8)", group=8, outer="float32")
    assert qsim.dot.matmul is matmul


# --- Shortcuts -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", ["RNE", "RNA", "RNZ", "RTZ", "SR", "SRA(16)", "SRA(5)"])
@pytest.mark.parametrize("inputs", ["float8_e4m3fn"])
def test_short_sums_are_the_general_ones(mode: str, inputs: str) -> None:
    """The loops that only add and cut give the bits of the reference, ties, cancellation and small sums included."""
    rng = np.random.default_rng(8)
    values = get_format(inputs).values()
    values = values[np.isfinite(values) & (np.abs(values) <= 8) & ((np.abs(values) >= 2.0**-4) | (values == 0))]
    a, b = rng.choice(values, (3, 41)), rng.choice(values, (41, 5))
    a[0, 1::2], b[1::2] = -a[0, ::2][:20], b[::2][:20]  # row 0 cancels, over and over
    for fmt in ("float16", "e8m10") if mode == "SR" else ("float16",):
        acc = Accumulator(f"{fmt}:{mode}")
        extent = extent_of(a, b, np.zeros(1))
        sums = products.Sums(a, b, acc, (None, None), KEY, paired=False)
        assert extent is not None
        assert extent.bits == (6 if inputs == "float8_e5m2" else 8)
        assert sums.short(extent, sums.carrier(extent), 41) is not None or mode == "RTZ"
        assert same(matmul(a, b, acc, key=KEY).values, by_definition(a, b, np.zeros((3, 5)), acc))


def test_short_sums_are_not_taken_where_they_would_be_wrong() -> None:
    """Products of more bits than the sum, sums below its numbers, and sums beyond its range take the general loop."""
    for a, b, fmt in (
        (np.array([[2.0**-10 + 1, 2.0**-30]]), np.array([[1.0 + 2**-10], [2.0**-30]]), "bfloat16"),
        (np.array([[2.0**-20, 1.0]]), np.array([[2.0**-20], [2.0**-9]]), "float16"),
        (np.array([[240.0, 240.0]]), np.array([[200.0], [200.0]]), "float16"),
    ):
        extent = extent_of(a, b, np.zeros(1))
        sums = products.Sums(a, b, Accumulator(fmt), (None, None), None, paired=False)
        assert sums.short(extent, np.dtype(np.float32), 2) is None
        assert same(matmul(a, b, fmt).values, by_definition(a, b, np.zeros((1, 1)), Accumulator(fmt)))


# --- Scales ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("inputs", "scale", "fields"), [
    ("float8_e4m3fn", "pow2", {"block": 32, "align": 25}), ("float8_e5m2", "pow2", {"block": 8, "align": 13}),
    ("float4_e2m1fn", "e4m3", {"block": 64, "align": 35, "merge": 16}),
    ("float4_e2m1fn", "pow2", {"block": 32, "align": 9, "merge": 16}),
    ("float4_e2m1fn", "e4m3", {"order": "sequential"}), ("float4_e2m1fn", "e4m3", {"block": 16, "align": 20}),
], ids=str)  # fmt: skip
def test_operands_with_block_scales(inputs: str, scale: str, fields: dict[str, object]) -> None:
    """MX and NVFP4 operands: scales take part in exponents, or multiply exact sums of 16 products, or the operands."""
    rng = np.random.default_rng(6)
    acc = Accumulator("float32:RTZ", **fields)
    fmt = get_format(inputs)
    a, b = operands(rng, inputs, (3, 64)), operands(rng, inputs, (64, 2))
    numbers = 2.0 ** np.arange(-9, 10) if scale == "pow2" else get_format("float8_e4m3fn").values()[8:120]
    s, t = rng.choice(numbers, (3, 4)), rng.choice(numbers, (4, 2))
    c = operands(rng, "float16", (3, 2))
    found = matmul(a, b, acc, c=c, inputs=inputs, scales=(s, t))
    assert found.path == ("reference" if fields == {"block": 16, "align": 20} else "kernel")
    wide, high = np.repeat(s, 16, axis=1), np.repeat(t, 16, axis=0)
    wanted = [
        reference.dot(a[i].tolist(), b[:, j].tolist(), float(c[i, j]), acc, formats=(fmt, fmt),
                      scales=(wide[i].tolist(), high[:, j].tolist()))
        for i in range(3) for j in range(2)
    ]  # fmt: skip
    assert same(found.values, np.array(wanted).reshape(3, 2))
    rows = dots_of(a[:2], b.T, acc, c=c[0], inputs=inputs, scales=(s[:2], t.T))
    assert rows[0] == found.values[0, 0]
    with pytest.raises(InputError, match="K / G neighbours share a scale"):
        matmul(a, b, acc, scales=(s[:, :3], t))


def test_scales_by_hand() -> None:
    """Scaled FP4: 16 products are added before anything is cut, and their scales' significands count."""
    a, b = np.zeros((1, 32)), np.zeros((1, 32))
    a[0, :3], b[0, :3] = (6.0, -6.0, 0.5), (6.0, 6.0, 0.5)  # 36 - 36 + 1/4: nothing is cut where F = 3
    a[0, 16], b[0, 16] = 1.0, 2.0
    acc = Accumulator("float32:RTZ", block=32, align=3, merge=16)
    s, t = np.array([[1.5, 1.0]]), np.array([[1.0, 1.25]])
    assert dots_of(a, b, acc, scales=(s, t)) == 0.375 + 2.5
    assert dots_of(a, b, acc, c=8.0, scales=(s, t)) == 8.0 + 2.0  # of 0.375 and 2.5 the multiples of 2^(3 - 3) are left
    for refused in ({"merge": 3}, {"merge": 16, "normalize": True}):
        with pytest.raises(InputError, match="merge divides block"):
            Accumulator(block=32, align=3, **refused)
    with pytest.raises(InputError, match="give scales"):
        dots_of(a, b, acc)


def test_threads_do_not_matter(monkeypatch: pytest.MonkeyPatch) -> None:
    """Rows that several threads share have the same sums and words as on one."""
    from qsim.kernels import threads

    rng = np.random.default_rng(9)
    a, b = operands(rng, "float8_e4m3fn", (67, 96)), operands(rng, "float8_e4m3fn", (96, 90))
    for acc in ("bfloat16", "bfloat16:SR", "float8_e4m3fn:RNE", Accumulator("float32:RTZ", block=16, align=13)):
        found = []
        for count in (1, 3):
            monkeypatch.setattr(threads, "wanted", count)
            found.append(matmul(a, b, acc, key=KEY).values)
        assert same(*found)
