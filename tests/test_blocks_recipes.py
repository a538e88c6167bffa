"""Recipes: arrays equal rationals, rows seen in the packages come out, and comparisons find what is known to differ."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest

import qsim
from qsim import InputError
from qsim.blocks import compare_recipes, gaussian_share, get_recipe, load_recipes, recipes
from qsim.blocks.compare import bfloat16_maxima
from qsim.blocks.program import Arrays, Rationals
from qsim.blocks.reference import encode_block
from qsim.blocks.rounding import scales_by

P = "mxfp4_e2m1/"
FLOOR, EVEN, UP = (f"{P}torchao-0.18-{rule}" for rule in ("floor", "even", "rceil"))


def _same(a: float, b: float) -> bool:
    return (math.isnan(a) and math.isnan(b)) or (a == b and math.copysign(1, a) == math.copysign(1, b))


@pytest.mark.in_part(8)
@pytest.mark.parametrize("part", range(16))
@pytest.mark.parametrize("name", list(recipes()))
def test_arrays_are_rationals(name, part) -> None:
    """For bfloat16 maxima of every binade, 0, NaN and infinity, NumPy's operations are the exact ones, rounded."""
    recipe = get_recipe(name)
    m = np.concatenate([np.zeros(1, np.float32), bfloat16_maxima(), np.float32([np.nan, np.inf])])[part::16][
        part % 7 :: 41
    ]
    for A, top in [(one, top) for one in (1.75, 2688.0) for top in recipe.tops or (math.nan,)]:
        some = m[~(m > A)] if recipe.format.tensor_scale else m
        with np.errstate(all="ignore"):
            known = scales_by(recipe, some, np.float32(A), top)
            x = (some * np.float32(0.3)).astype(np.float32)
            elements = {**known, "x": x}
            recipe.program.run(Arrays(recipe.format, np.dtype(np.float32)), elements, "element")
        for i in range(len(some)):
            exact = {"m": float(some[i]), "A": A, "top": top, "x": float(x[i])}
            by = Rationals(recipe.format)
            for level in ("tensor", "block", "element"):
                recipe.program.run(by, exact, level)
            for step, _ in recipe.program.steps:
                got = np.broadcast_to(elements[step], some.shape)[i]
                assert _same(float(got), float(exact[step])), (step, float(some[i]))


@pytest.mark.parametrize("name", [name for name, one in recipes().items() if one.choose])
def test_choices_are_rationals(name) -> None:
    """The scale that is chosen by the error of a block is the one that rationals choose."""
    recipe = get_recipe(name)
    x = np.random.default_rng(0).normal(size=(12, recipe.format.size[0])).astype(np.float32)
    e = qsim.encode(x, name)
    tensor = float(np.abs(x).max())
    chosen = set()
    for row, codes, scale in zip(x, e.codes, e.scales[:, 0], strict=True):
        block = encode_block(row.tolist(), recipe, tensor=tensor)
        assert (list(block.codes), block.scale) == (codes.tolist(), scale)
        chosen.add(max(code & 7 for code in block.codes))
    assert chosen >= {6, 7}  # some blocks map their maximum onto 4


def test_two_orders_of_the_error_choose_otherwise() -> None:
    """((q s) A) / 2688 and (q s) T part on near ties: some of 2^17 bfloat16 blocks map their maximum onto another value."""
    x = (np.random.default_rng(2).normal(size=(1 << 17, 16)).astype(np.float32).view(np.uint32) & 0xFFFF0000).view(
        np.float32
    )
    te, fi = (qsim.encode(x, f"nvfp4/{name}-4over6-mae{end}") for name, end in (
        ("transformer-engine-2.20", "-448"), ("flashinfer-0.7", ""),
    ))  # fmt: skip
    unlike = (te.scales != fi.scales).sum()
    assert 0 < unlike < 200
    assert te.tensor_scale == fi.tensor_scale


ZEROS = {  # the byte of the scale of a block of zeros
    f"{P}torchao-0.18-floor": 0, f"{P}torchao-0.18-rceil": 0, f"{P}compressed-tensors-0.20": 0, f"{P}modelopt-0.47": 0,
    f"{P}gguf-0.19": 0, f"{P}mlx-0.32": 127, f"{P}qwix-0.1-bfloat16": 127, f"{P}auto-round-0.16": 126,
    f"{P}auto-round-0.16-rceil": 128, f"{P}deepgemm-vllm-0.33": 112, f"{P}qwantize-0.1-naive": 25,
    "nvfp4/torchao-0.18": 0x08, "nvfp4/compressed-tensors-0.20": 0x20, "nvfp4/modelopt-0.47": 0x38,
    "nvfp4_one_level/qwix-0.1": 0x38, "nvfp4/deepgemm-vllm-0.33": 1, "nvfp4/auto-round-0.16": 0,
    "nvfp4/fouroversix-1.0-static-6": 0, "nvfp4_one_level/mlx-0.32": 0, "nvfp4/transformer-engine-2.20": 0,
}  # fmt: skip


@pytest.mark.parametrize("name", list(ZEROS))
def test_blocks_of_zeros(name) -> None:
    """The scale of a block of zeros in a tensor that has others."""
    x = np.zeros((2, 64), np.float32)
    x[1] = 1.75
    assert qsim.encode(x, name).scales[0, 0] == ZEROS[name]


def test_zeros_have_the_sign_of_the_recipe() -> None:
    """+0, -0 and what rounds to a zero of either sign."""
    x = np.zeros((1, 32), np.float32)
    x[0, :5] = 6.0, 0.0, -0.0, 0.1, -0.1
    for name, codes in {
        FLOOR: [0, 8, 0, 8], f"{P}modelopt-0.47": [8, 8, 0, 8], f"{P}gguf-0.19": [0, 0, 0, 0], f"{P}mlx-0.32": [0, 0, 0, 0],
        f"{P}deepgemm-vllm-0.33": [0, 0, 0, 0], "nvfp4/modelopt-0.47": [0, 0, 0, 8], "nvfp4/torchao-0.18": [0, 8, 0, 8],
    }.items():  # fmt: skip
        assert qsim.encode(x, name).codes[0, 1:5].tolist() == codes, name
    y = qsim.quantize(x, f"{P}modelopt-0.47")
    assert np.signbit(y[0, 1:5]).tolist() == [True, True, False, True]


def test_three_rules_for_ties() -> None:
    """2.5 and 3.5 with the scale 1 go to even, to zero, and away."""
    x = np.zeros((1, 32), np.float32)
    x[0, :3] = 6.0, 2.5, 3.5
    for name, values in {
        f"{P}fouroversix-1.0": [2, 4], f"{P}mlx-0.32": [2, 3], f"{P}triton-kernels-vllm-0.33-up": [3, 4],
    }.items():  # fmt: skip
        assert qsim.quantize(x, name)[0, 1:3].tolist() == values, name


def test_four_rules_for_scales() -> None:
    """The smallest maxima on which floor, even and up part: 6.5 and 7.5."""
    for m, bytes_ in {6.5: (127, 127, 128), 7.5: (127, 128, 128), 6.0: (127, 127, 127)}.items():
        x = np.full((1, 32), m, np.float32)
        assert tuple(qsim.encode(x, name).scales[0, 0] for name in (FLOOR, EVEN, UP)) == bytes_
    assert qsim.encode(np.ones(32, np.float32), f"{P}triton-kernels-vllm-0.33-down").decode()[0] == 0.75


SEEN = 131_072
"""Blocks of a set of which the shares were counted."""

MATRIX = {  # shares in percent, of Gaussian float32 and of Gaussian / 50
    (FLOOR, EVEN): (16.85, 14.31), (FLOOR, UP): (29.67, 42.33), (EVEN, UP): (12.82, 28.02),
    (FLOOR, f"{P}triton-kernels-vllm-0.33-down"): (70.3, 57.7), (EVEN, f"{P}triton-kernels-vllm-0.33-down"): (87.2, 72.0),
    (UP, f"{P}triton-kernels-vllm-0.33-down"): (100, 100), (UP, f"{P}torchao-0.18-ceil"): (70, 58),
}  # fmt: skip


@pytest.mark.parametrize("pair", list(MATRIX), ids=lambda pair: f"{pair[0][11:]}-{pair[1][11:]}")
def test_the_divergence_matrix(pair) -> None:
    """The exact shares lie within 4.5 standard deviations, and the last digit, of those that were counted on the packages."""
    for seen, sigma in zip(MATRIX[pair], (1.0, 0.02), strict=True):
        share = gaussian_share(*pair, sigma)
        digit = 0.5 if isinstance(seen, int) else 0.05 if round(seen, 1) == seen else 0.005
        assert abs(100 * share - seen) <= 450 * math.sqrt(share * (1 - share) / SEEN) + digit


MATRIX8 = {  # of Gaussian float32 and bfloat16, and bfloat16 of Gaussian / 50
    ("floor", "rceil"): (16.85, 16.31, 13.84),
    ("even", "rceil"): (11.9, 11.4, 11.0),
}


@pytest.mark.parametrize("pair", list(MATRIX8))
def test_the_divergence_matrix_of_mxfp8(pair) -> None:
    """The same of MXFP8; compressed-tensors and RCEIL differ at maxima of 1.75 * 2^k alone."""
    a, b = (f"mxfp8_e4m3/torchao-0.18-{rule}" for rule in pair)
    for seen, sigma, narrow in zip(MATRIX8[pair], (1.0, 1.0, 0.02), (False, True, True), strict=True):
        share = gaussian_share(a, b, sigma, bfloat16=narrow)
        assert abs(100 * share - seen) <= 450 * math.sqrt(share * (1 - share) / SEEN) + 0.05
    ct = "mxfp8_e4m3/compressed-tensors-0.20"
    for seen, sigma, narrow in ((0.0, 1.0, False), (0.41, 1.0, True), (0.63, 0.02, True)):
        share = gaussian_share(ct, b, sigma, bfloat16=narrow)
        assert abs(100 * share - seen) <= 450 * math.sqrt(share * (1 - share) / SEEN) + 0.005


SCALES = {  # of 131,072 bfloat16 blocks of Gaussian / 50 with a maximum of 7/64, scales that were counted to differ
    ("torchao-0.18", "compressed-tensors-0.20-bfloat16"): 639,
    ("torchao-0.18", "modelopt-0.47"): 1656,
    ("modelopt-0.47", "modelopt-0.47-static"): 1190,
    ("modelopt-0.47", "fouroversix-1.0-static-6"): 0,
    ("modelopt-0.47", "deepgemm-vllm-0.33"): 980,
    ("torchao-0.18", "auto-round-0.16"): 5938,
    ("modelopt-0.47", "auto-round-0.16"): 4282,
}


@pytest.mark.parametrize("pair", list(SCALES), ids="-".join)
def test_the_divergence_matrix_of_nvfp4(pair) -> None:
    """The exact shares lie within 4.5 standard deviations of what was counted; at 4.96875 none but CT's differ."""
    a, b = (f"nvfp4/{name}" for name in pair)
    share = gaussian_share(a, b, 0.02, bfloat16=True, tensor=7 / 64)
    assert abs(SEEN * share - SCALES[pair]) <= 4.5 * math.sqrt(SEEN * share)
    other = SEEN * gaussian_share(a, b, 1.0, bfloat16=True, tensor=4.96875)
    seen = 4098 if "bfloat16" in b else 0
    assert abs(other - seen) <= 4.5 * math.sqrt(other) + 1e-9


def test_nvfp4_differs_where_sevens_meet() -> None:
    """Scales of torchao and modelopt part at a tensor maximum of 7 * 2^k, but at 4.96875 the smallest ones alone."""
    found = compare_recipes("nvfp4/torchao-0.18", "nvfp4/modelopt-0.47", tensor_maxima=[7 / 64])
    assert (seen := found["scale"]) is not None
    assert seen.count > 10
    none = compare_recipes("nvfp4/torchao-0.18", "nvfp4/modelopt-0.47", tensor_maxima=[4.96875])
    assert none["scale"] is None
    assert none["code"] is not None  # x * fl(1/..) against x / ..
    ct = compare_recipes(
        "nvfp4/compressed-tensors-0.20", "nvfp4/compressed-tensors-0.20-bfloat16", tensor_maxima=[4.96875]
    )
    assert (T := ct["tensor scale"]) is not None
    assert (round(T.a, 2), T.b) == (540.98, 540)
    assert ct["scale"] is not None


def test_a_comparison_is_complete() -> None:
    """What is found for E2M1 equals what all pairs of maxima and elements of two binades give, one by one."""
    a, b = get_recipe(UP), get_recipe(f"{P}modelopt-0.47")
    found = compare_recipes(a, b)
    count = signs = 0
    m = bfloat16_maxima(4.0)
    elements = np.concatenate([[0.0], m]).astype(np.float32)
    for maximum in m[(m >= 1.75) & (m < 2)]:
        x = elements[elements <= maximum]
        x = np.concatenate([x, -x])
        rows = np.zeros((len(x), 32), np.float32)
        rows[:, 0], rows[:, 1] = maximum, x
        p, q = (qsim.encode(rows, one).codes[:, 1] for one in (a, b))
        zeros = ((p | q) & 7) == 0
        count += int(((p != q) & ~zeros).sum())
        signs += int(((p != q) & zeros).sum())
    own = compare_recipes(a, b, maxima=[float(one) for one in m[(m >= 1.75) & (m < 2)]])
    assert (own["code"].count, own["sign of zero"].count) == (count, signs)
    assert found["code"].count > count > 0
    assert found["scale"] is None
    assert compare_recipes(a, a).equal


def test_recipes_that_cannot_be_compared() -> None:
    """Other formats, and choices by error, are refused."""
    with pytest.raises(InputError, match="are recipes for different formats"):
        compare_recipes(FLOOR, "nvfp4/torchao-0.18")
    with pytest.raises(InputError, match="looks at more of a block than its maximum"):
        compare_recipes("nvfp4/transformer-engine-2.20", "nvfp4/transformer-engine-2.20-4over6-mse")


def test_recipes_of_a_file(tmp_path: Path) -> None:
    """An own recipe rounds, and a wrong one is refused with its place."""
    own = tmp_path / "own.toml"
    entry = (
        'name = "mxfp4_e2m1/mine-1"\nformat = "mxfp4_e2m1"\nsteps = ["s = power(floor(log2(m)) - 2)", "v = x / s"]\n'
        'source = "mine"\nstatus = "defined"\n'
    )
    own.write_text(f"[[recipe]]\n{entry}", encoding="utf-8")
    x = np.random.default_rng(0).normal(size=64).astype(np.float32)
    assert np.array_equal(qsim.quantize(x, f"{own}#mxfp4_e2m1/mine-1"), qsim.quantize(x, FLOOR))
    for old, new, told in [
        ('"v = x / s"', '"v = y / s"', "y is not known here"),
        ('"v = x / s"', '"v = x ** s"', "is nothing that a step may hold"),
        ('"v = x / s"', '"v = __import__(s)"', "__import__ is no function and no format"),
        ('"v = x / s"', '"m = x / s"', "changes m, which is given"),
        ('"v = x / s"', '"x / s"', "must be one line 'name = expression'"),
        (', "v = x / s"', "", "no step makes v"),
        ("floor(log2(m))", "floor(log2(m), 2)", "floor takes 1 numbers"),
        ('"defined"', '"seen"', "status is 'seen'"),
        ('"mxfp4_e2m1"\nsteps', '"mxfp5"\nsteps', "no block format is called 'mxfp5'"),
        ("mxfp4_e2m1/mine-1", "mine", "name must be FORMAT/PACKAGE-VERSION"),
    ]:
        own.write_text(f"[[recipe]]\n{entry.replace(old, new)}", encoding="utf-8")
        with pytest.raises(InputError, match=told):
            load_recipes(own)
    with pytest.raises(InputError, match=r"no recipe is called 'nvfp4/torchao'; did you mean nvfp4/torchao-0.18"):
        get_recipe("nvfp4/torchao")
