"""Matrix instructions as data: measured dot products match bit for bit, and each entry is its accumulator."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from qsim import InputError
from qsim.dot import Accumulator, dots_of, get_instruction, instructions, reference
from qsim.dot.instructions import STATUSES, load_instructions
from qsim.formats import get_format

MEASURED = {
    "A100/fp16/d_binary32": "sm80-mma/f32.f16", "A100/fp16/d_binary16": "sm80-mma/f16.f16",
    "A100/bf16/d_binary32": "sm80-mma/f32.bf16", "A100/tf32/d_binary32": "sm80-mma/f32.tf32",
    "H100/fp16/d_binary32": "sm90-mma/f32.f16", "H100/fp16/d_binary16": "sm90-mma/f16.f16",
    "H100/bf16/d_binary32": "sm90-mma/f32.bf16", "H100/tf32/d_binary32": "sm90-mma/f32.tf32",
    "H100/e4m3/d_binary32": "sm90-wgmma/f32.e4m3", "H100/e4m3/d_binary16": "sm90-mma/f16.e4m3",
    "H100/e5m2/d_binary32": "sm90-wgmma/f32.e5m2", "H100/e5m2/d_binary16": "sm90-mma/f16.e5m2",
}  # fmt: skip
"""Each set of measured dot products, and the instruction that made it; the wgmma ones were made with c = 0."""


def rows_of(path: Path, name: str) -> tuple[np.ndarray, ...]:
    """Return a, b, c and d of a measured set, float64."""
    head = name.rpartition("/")[0]
    with np.load(path / "tensor-core-dot.npz") as data:
        keys = (f"{head}/a", f"{head}/b", f"{head}/c", name)
        a, b, c, d = (data[key].view(np.float32).astype(np.float64) for key in keys)
    return a, b, c * ("wgmma" not in MEASURED[name]), d


@pytest.mark.parametrize("name", MEASURED)
def test_every_measured_dot_product_matches(qsim_data: Path, name: str) -> None:
    """Of the 5,000 measured dot products of a set all match, and a neighbouring alignment or block fails."""
    a, b, c, d = rows_of(qsim_data, name)
    entry = get_instruction(MEASURED[name])
    assert entry.status == "measured"
    assert (entry.dots(a, b, c).view(np.uint64) == d.view(np.uint64)).sum() == 5000
    if entry.result.name == "float16":  # whose rows allow several F
        return
    acc, fmt = entry.accumulator, entry.inputs
    assert acc.align is not None
    for other in (
        acc.replace(align=acc.align - 1),
        acc.replace(align=acc.align + 1),
        acc.replace(block=acc.block // 2),
    ):
        assert (dots_of(a, b, other, c=c, inputs=fmt) == d).sum() < 4990


def test_measured_means_tested() -> None:
    """The entries that say "measured" are those that have a set."""
    assert {name for name, entry in instructions().items() if entry.status == "measured"} == set(MEASURED.values())


def bits(x: float) -> str:
    """Return a float32 in hexadecimal."""
    return f"{int(np.float32(x).view(np.uint32)):08x}"


def test_rows_by_hand() -> None:
    """The rows that tell alignments, block lengths and normalisation apart have the results that follow by hand."""

    def dot(terms: dict[int, tuple[float, float]], c: float, acc: Accumulator) -> str:
        a, b = np.zeros((1, 16)), np.zeros((1, 16))
        for k, (x, y) in terms.items():
            a[0, k], b[0, k] = x, y
        return bits(dots_of(a, b, acc, c=c, inputs="float16")[0])

    def unit(align: int, rounding: str = "float32:RTZ", block: int = 8) -> Accumulator:
        return Accumulator(rounding, block=block, align=align)

    # 1 - 2^-24: cut to nothing at F = 23, held at F = 24; 1 - 2^-25 needs F = 25, and rounds back to 1 to nearest.
    for exponent, align, rounding, wanted in (
        (24, 23, "float32:RTZ", "3f800000"), (24, 24, "float32:RTZ", "3f7fffff"), (25, 24, "float32:RTZ", "3f800000"),
        (25, 25, "float32:RTZ", "3f7fffff"), (25, 25, "float32:RNE", "3f800000"),
    ):  # fmt: skip
        half = exponent // 2
        small = (-(2.0**-half), 2.0 ** (half - exponent))
        assert dot({0: small}, 1.0, unit(align, rounding)) == wanted, (exponent, align, rounding)
    # 1 - 1 + 2^-26: in blocks of 4 the small product comes after the cancellation; in one block it is cut.
    terms = {0: (-1.0, 1.0), 4: (2.0**-13, 2.0**-13)}
    assert dot(terms, 1.0, unit(24, block=4)) == "32800000"
    for block in (8, 16):
        assert dot(terms, 1.0, unit(25, block=block)) == "00000000"
    # 1.5 1.5 is 2.25 at exponent 0: normalised, its exponent is 1, and one bit more of the small products is cut.
    h = [float(np.uint16(word).view(np.float16)) for word in (0x3E00, 0x1400, 0x3C00, 0x0C00)]
    terms = {0: (h[0], h[0]), 1: (h[1], h[2]), 2: (h[3], h[2])}
    acc = Accumulator("float16:RNE", block=8, align=24)
    assert dot(terms, 0.0, acc) == "40102000"


@pytest.mark.parametrize("name", instructions())
def test_each_instruction_is_its_accumulator(name: str) -> None:
    """The fast way is the definition for 24 rows of two instructions each, with large, small and zero operands."""
    entry = get_instruction(name)
    assert entry.status in STATUSES
    rng = np.random.default_rng(len(name))
    values = get_format(entry.inputs.name if entry.inputs.bits <= 16 else "bfloat16").values()
    values = values[np.isfinite(values) & (np.abs(values) < 2.0**12)]
    values = np.append(values[np.abs(values) > 2.0**-16], [0.0, entry.inputs.smallest_subnormal])
    a, b = (rng.choice(values, (12, 2 * entry.products)) for _ in range(2))
    c = np.float16(rng.standard_normal(12) * 2.0 ** rng.integers(-8, 8, 12)).astype(float)
    scales, wide = None, [None] * 12
    if entry.scale:
        numbers = get_format(entry.scale).values()
        numbers = numbers[(numbers > 2.0**-6) & (numbers < 2.0**6)]
        s, t = (rng.choice(numbers, (12, a.shape[1] // entry.scale_group)) for _ in range(2))
        scales = s, t
        wide = list(zip(*(np.repeat(v, entry.scale_group, axis=1).tolist() for v in scales), strict=True))
    found = entry.dots(a, b, c, scales=scales)
    if entry.flush_subnormals:
        a, b = (np.where(np.abs(x) < entry.inputs.smallest_normal, 0.0, x) for x in (a, b))
    pair = (entry.inputs, entry.inputs)
    rows = zip(a.tolist(), b.tolist(), c.tolist(), wide, strict=True)
    wanted = np.array([reference.dot(u, v, r, entry.accumulator, formats=pair, scales=w) for u, v, r, w in rows])
    assert np.array_equal(found, wanted)
    first = None if scales is None else (scales[0][:1], scales[1][:1].T)
    assert (entry.matmul(a[:1], b[:1].T, c[:1], scales=first) == found[0]).all()


def test_scales_are_looked_at() -> None:
    """Scales go with the instructions that have them, as many as they say, and are positive numbers of their format."""
    entry, plain = get_instruction("sm100-tcgen05/f32.nvfp4"), get_instruction("sm80-mma/f32.f16")
    ones = np.ones((1, 64))
    assert entry.dots(ones, ones, scales=(np.full((1, 4), 1.5), np.ones((1, 4)))) == 96.0
    for call, sentence in (
        (lambda: entry.dots(ones, ones), "takes scales"),
        (lambda: plain.dots(ones, ones, scales=(ones, ones)), "has no scales"),
        (lambda: entry.dots(ones, ones, scales=(ones, ones)), "16 of 64 products share one"),
        (lambda: entry.dots(ones, ones, scales=(np.full((1, 4), 1.01), np.ones((1, 4)))), "positive numbers of float8_e4m3fn"),
    ):  # fmt: skip
        with pytest.raises(InputError, match=sentence):
            call()


def test_one_device_has_two_sums() -> None:
    """On one H100 mma.sync and wgmma give different sums of the same FP8 matrices: the entry is the instruction."""
    rng = np.random.default_rng(0)
    a, b = (rng.choice(get_format("e4m3").values()[:120], (50, 32)) for _ in range(2))
    sums = {name: get_instruction(f"sm90-{name}/f32.e4m3").dots(a, b) for name in ("mma", "wgmma")}
    assert (sums["mma"] != sums["wgmma"]).mean() > 0.5


@pytest.mark.parametrize(("text", "sentence"), [
    ("vendor = 'v'\nx = 1\n", "a vendor and"),
    ("vendor = 'v'\n[[instruction]]\nname = 'n'\n", "key 'devices' is missing"),
    ("vendor = 'v'\n[[instruction]]\nnaem = 'n'\n", "unknown key 'naem'; did you mean name"),
])  # fmt: skip
def test_a_file_that_is_wrong_is_refused(tmp_path: Path, text: str, sentence: str) -> None:
    """One sentence names the file, the entry and the key."""
    path = tmp_path / "own.toml"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(InputError, match=sentence):
        load_instructions(path)


def test_fields_of_the_accumulator_are_looked_at(tmp_path: Path) -> None:
    """A field that an Accumulator does not have, or refuses, is named with its entry."""
    head = "vendor = 'v'\n[[instruction]]\n" + "".join(
        f"{key} = '{value}'\n"
        for key, value in {
            "name": "n", "devices": "d", "instruction": "i", "inputs": "e4m3", "status": "claimed", "source": "s",
            "revision": "r",
        }.items()
    ) + "products = 4\n[instruction.accumulator]\nformat = 'float32'\n"  # fmt: skip
    path = tmp_path / "own.toml"
    for more, sentence in (("wdth = 3", "has no field 'wdth'"), ("align = 3", "instruction 1: align, align_mode")):
        path.write_text(head + more, encoding="utf-8")
        with pytest.raises(InputError, match=sentence):
            load_instructions(path)
    path.write_text(head + "block = 4\nalign = 20\n", encoding="utf-8")
    (entry,) = load_instructions(path)
    assert str(entry.accumulator) == "float32:RNE, block 4, align 20"
    with pytest.raises(InputError, match="no instruction is called 'H100'"):
        get_instruction("H100")
