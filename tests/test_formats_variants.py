"""The variants of formats: that each does what its source says, in the definition and in arrays, and how they are named."""

from __future__ import annotations

import importlib.util
import itertools
import math
import re
from importlib import metadata
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest
from alike import alike, same_values
from definition import codes_by_reference
from enumeration import codes, exactly, goes_away, place, roundings
from strategies import BFLOAT16, FLOAT16, FLOAT32, FLOAT64, KINDS, ML_DTYPES, edges

import qsim
from qsim import reference
from qsim.errors import InputError
from qsim.explain import explain
from qsim.formats import Format, Table, Variant, catalogue, get_format, variants, variants_of
from qsim.formats.catalogue import CHANGES
from qsim.rounding import NANS, Mode, Quantizer, saturations
from qsim.testing import check_quantizer
from qsim.verdicts import Outcome

NAMED = [get_format(f"{of}@{variant.name}") for variant in variants() for of in variant.of if "{" not in of]
REPORT = [
    get_format(f"{name}@p3109-4.0")
    for name in ("Binary6p3sf", "Binary6p3uf", "Binary6p3se", "Binary6p3ue", "Binary4p1uf")
]
VARIANTS = [*NAMED, *REPORT]
MAGNITUDES = [fmt for fmt in VARIANTS if fmt.negative_to == "magnitude"]

every_variant = pytest.mark.parametrize("fmt", VARIANTS, ids=str)
every_entry = pytest.mark.parametrize("variant", variants(), ids=lambda variant: f"{variant.of[0]}@{variant.name}")

SOME = (Mode.RNE, Mode.RTZ, Mode.RUP, Mode.RDN, Mode.RTO, Mode.SRA, Mode.THR)
"""The modes in which every saturation is tried."""

DETOUR = (2.0**-127, 2.0**-126)
"""Numbers between these are rounded by the bits of a subnormal float32 in torch, ml_dtypes 0.6 and JAX: all to 2^-126."""


# --- What an entry says ----------------------------------------------------------------------------------------------


@every_entry
def test_every_entry_fits_its_formats(variant: Variant) -> None:
    """An entry is of formats that exist, says how it was seen, and makes a format with rules that the format takes."""
    families = {fmt.family for fmt in catalogue().values()} - {""}
    for of in variant.of:
        assert of in catalogue() or of in families
    for base in catalogue().values():
        if variant.fits(base):
            fmt = variant.format(base)
            assert (fmt.name, fmt.variant_of, fmt.source) == (f"{base.name}@{variant.name}", base.name, variant.source)
            assert get_format(fmt.name) == fmt
            assert fmt in variants_of(base)
            assert fmt.saturation in {"", str(saturations(fmt)[0])}
            for alias in base.aliases[:1]:
                assert get_format(f"{alias}@{variant.name}") == fmt
    assert re.search(r"(; run( on the host)?|read, not run)$", variant.source) or "P3109" in variant.source
    assert set(variant.changes) <= set(CHANGES)


@every_variant
def test_a_variant_has_the_values_and_codes_of_its_format(fmt: Format) -> None:
    """Codes decode to the same values, and every value of the format encodes to its own code."""
    base = get_format(fmt.variant_of)
    every = [code for code in range(1 << fmt.bits) if fmt.is_code(code)]
    assert same_values(qsim.decode(every, fmt, FLOAT64), qsim.decode(every, base, FLOAT64))
    values = qsim.decode(every, fmt, FLOAT64)
    finite = np.isfinite(values)
    assert np.array_equal(qsim.encode(values[finite], fmt), np.array(every)[finite])
    changed = {key for key in (*CHANGES, "nan_code") if getattr(fmt, key) != getattr(base, key)}
    assert changed, f"{fmt} is {base}"


@every_variant
def test_arrays_do_what_the_definition_does(fmt: Format) -> None:
    """At and beside all values and middles, in every mode and saturation, with NaNs of every sign, codes are an oracle's."""
    x = edges(fmt, FLOAT16, 60)
    exact = exactly(x)
    at = place(fmt, exact)
    for mode, rule in itertools.product(Mode, saturations(fmt)):
        if rule is not saturations(fmt)[0] and mode not in SOME:
            continue
        oracle_mode = Mode.RNA if mode is Mode.RNE and fmt.ties == "away" else mode
        nan = NANS[(list(Mode).index(mode) + list(saturations(fmt)).index(rule)) % 3]
        toward, away = codes(fmt, rule, oracle_mode, exact, at, nan=nan)
        for drawn in roundings(mode, at, (8,), 32):
            up = goes_away(oracle_mode, at, drawn.get("sr_bits", 0), drawn.get("rbits", 0), drawn.get("eps", 0.0))
            found = qsim.encode(x, fmt, mode, saturation=rule, nan=nan, **drawn)
            assert np.array_equal(found, np.where(up, away, toward)), (mode, rule, nan, drawn)
            if not isinstance(fmt, Table) and fmt.bits <= 8:
                values = (
                    qsim.quantize(exact, fmt, mode, saturation=rule, nan=nan, **drawn) if mode is not Mode.SR else None
                )
                assert values is None or same_values(values, qsim.decode(found, fmt, FLOAT64))


@every_variant
def test_the_definition_does_what_the_oracle_does(fmt: Format) -> None:
    """So does the definition: special numbers, ends and some others, with the default rule and the others."""
    x = np.concatenate([edges(fmt, FLOAT64, 12), [1e300, -1e300, 1e-300, -1e-300, 5e-324, -5e-324, -math.nan]])
    at = place(fmt, x)
    for mode, rule in itertools.product((Mode.RNE, Mode.RUP, Mode.RTZ, Mode.RTO), (None, *saturations(fmt))):
        oracle_mode = Mode.RNA if mode is Mode.RNE and fmt.ties == "away" else mode
        toward, away = codes(fmt, rule or saturations(fmt)[0], oracle_mode, x, at, nan=fmt.nan)
        expected = np.where(goes_away(oracle_mode, at), away, toward)
        assert np.array_equal(codes_by_reference(x, fmt, mode, saturation=rule), expected)
        assert np.array_equal(qsim.encode(x, fmt, mode, saturation=rule), expected)


# --- What others do --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "fmt",
    [fmt for fmt in NAMED if fmt.name.endswith("@ml_dtypes") and hasattr(ml_dtypes, fmt.variant_of)],
    ids=str,
)
@pytest.mark.parametrize("kind", [FLOAT16, BFLOAT16, FLOAT32], ids=str)
def test_ml_dtypes(fmt: Format, kind: np.dtype) -> None:
    """All float16 and bfloat16, and float32 of random bits and beside thresholds, become what ml_dtypes makes of them."""
    bits = 8 * min(kind.itemsize, 2)
    x = np.arange(1 << bits, dtype="u2").view(kind if kind.itemsize == 2 else FLOAT16)
    if kind == FLOAT32:
        drawn = np.random.default_rng(3).integers(0, 1 << 32, 1 << 16, np.uint32).view(FLOAT32)
        x = np.concatenate([drawn, edges(fmt, FLOAT32)])
    with np.errstate(all="ignore"):
        theirs = x.astype(getattr(ml_dtypes, fmt.variant_of)).view(np.uint8)
    magnitude, negative = np.abs(exactly(x)), np.signbit(exactly(x))
    detour = (
        (DETOUR[0] < magnitude) & (magnitude < DETOUR[1]) & (fmt.variant_of == "float8_e8m0fnu") & (ML_DTYPES < (0, 7))
    )
    tiny = (magnitude > 0) & (magnitude <= 2.0**-18) & negative & (fmt.variant_of == "float8_e5m3fnu")
    different = qsim.encode(x, fmt) != theirs
    assert not different[~detour & ~tiny].any(), x[different & ~detour & ~tiny][:8]
    assert (theirs[detour & ~negative] == 1).all()
    assert (theirs[tiny] == fmt.nan_code).all()


def test_cuda(qsim_data: Path) -> None:
    """At every number at which the code of CUDA's conversions changes, and just below, the variants have that code."""
    for name, fmt, rule, kind in (
        ("bfloat16-e8m0_nearest_sat", "float8_e8m0fnu@cuda", "SatFinite", BFLOAT16),
        ("float-e4m3_sat", "float8_e4m3fn@cuda", "SatFinite", FLOAT32),
        ("float-e4m3_nosat", "float8_e4m3fn@cuda", "OvfNaN", FLOAT32),
        ("float-e5m2_sat", "float8_e5m2@cuda", "SatFinite", FLOAT32),
        ("float-e5m2_nosat", "float8_e5m2@cuda", "SatNone", FLOAT32),
    ):
        lines = (qsim_data / "converters" / f"cuda-13.5.37-{name}.txt").read_text(encoding="utf-8").splitlines()
        rows = np.array(
            [[int(word, 16) for word in line.split()] for line in lines if not line.startswith("#")], np.uint64
        )
        first, code = rows[:, 0].astype(f"u{kind.itemsize}"), rows[:, 1]
        assert qsim.encode(first.view(kind), fmt, saturation=rule).tolist() == code.tolist()
        assert (
            qsim.encode((first[1:] - first.dtype.type(1)).view(kind), fmt, saturation=rule).tolist()
            == code[:-1].tolist()
        )


BY_HAND: dict[str, list[tuple[float, int]]] = {
    "float8_e8m0fnu@cuda": [
        (1.25, 0x7F), (1.5, 0x80), (3.0, 0x81), (-3.0, 0x81),
        (0.0, 0), (math.inf, 0xFE), (1.5 * 2.0**-127, 1), (1e-45, 0),
    ],
    "float8_e8m0fnu@torch": [
        (0.75, 0x7F), (3.0, 0x81), (-1.0, 0x7F), (-0.0, 0),
        (math.inf, 0xFF), (3e38, 0xFF), (1e-45, 0), (-1e-38, 1),
    ],
    "float8_e8m0fnu@ml_dtypes": [
        (0.75, 0x7F), (3.0, 0x81), (-1.0, 0xFF), (0.0, 0xFF),
        (-0.0, 0xFF), (3e38, 0xFF), (1e-45, 0), (-1e-40, 0xFF),
    ],
    "float8_e8m0fnu@onnxruntime": [
        (0.75, 0x7F), (3.0, 0x81), (-1.0, 0), (0.0, 0),
        (-0.0, 0), (3e38, 0xFE), (1.25 * 2.0**-127, 0), (-1e-40, 0),
    ],
    "float8_e5m3fnu@cuda": [
        (0.3, 0x6A), (-0.3, 0x6A), (118784.0, 0xFE),
        (2.0**-18, 0), (1.001 * 2.0**-18, 1), (-math.inf, 0xFE),
    ],
    "float8_e5m3fnu@ml_dtypes": [(0.3, 0x6A), (-0.3, 0xFF), (-0.0, 0), (118784.0, 0xFE), (118785.0, 0xFF), (math.inf, 0xFF)],
    "float8_e5m3fnu@llvm": [(0.3, 0x6A), (-0.3, 0), (-0.0, 0), (-math.inf, 0), (math.nan, 0xFF), (-math.nan, 0xFF)],
    "float7_e4m3fnu@cutlass": [(1.0, 0x38), (-1.0, 0x38), (-1e9, 0x7E), (-math.inf, 0x7E), (-math.nan, 0x7F)],
    "float8_e4m3fn@cuda": [
        (464.0, 0x7E), (465.0, 0x7E), (math.inf, 0x7E),
        (-math.inf, 0xFE), (math.nan, 0x7F), (-math.nan, 0x7F),
    ],
    "float8_e5m2@cuda": [(61440.0, 0x7B), (-math.inf, 0xFB), (math.nan, 0x7F), (-math.nan, 0x7F)],
    "float8_e4m3fn@cuda_double": [(-math.nan, 0xFF), (math.nan, 0x7F), (1.0625, 0x38), (1.0625 + 2.0**-40, 0x39)],
    "float8_e4m3fn@torch": [(465.0, 0x7E), (math.inf, 0x7E), (-math.nan, 0xFF)],
    "float8_e5m2@torch": [(61440.0, 0x7C), (math.inf, 0x7C), (math.nan, 0x7F), (-math.nan, 0xFF)],
    "float4_e2m1fn@ml_dtypes": [(math.nan, 8), (-math.nan, 0), (math.inf, 7), (-math.inf, 15), (-0.0, 8)],
    "float4_e2m1fn@jax": [(math.nan, 8), (-math.nan, 8), (math.inf, 7)],
    "int8@onnx": [(math.nan, 0x80), (-math.nan, 0x80), (math.inf, 0x7F), (-math.inf, 0x80), (2.5, 2)],
    "int4@onnx": [(math.nan, 8), (7.6, 7)],
    "nf4@openvino": [(math.nan, 0), (math.inf, 15), (0.0, 7)],
}  # fmt: skip
"""Codes that came out when each was run."""


@pytest.mark.parametrize(("name", "rows"), BY_HAND.items(), ids=BY_HAND)
def test_variants_by_hand(name: str, rows: list[tuple[float, int]]) -> None:
    """What each converter made of some numbers, from float64 and from narrower types alike, alone and in arrays."""
    for x, code in rows:
        assert reference.encode(x, name) == code, x
        for kind in KINDS:
            with np.errstate(all="ignore"):
                same = float(np.array(x).astype(kind)) == x or math.isnan(x)
            if same:
                assert qsim.encode(np.array([x], kind), name).tolist() == [code], (x, kind)


def test_a_nan_of_an_overflow_alone_keeps_its_sign() -> None:
    """CUDA's conversions from float without saturation: a negative overflow has the sign, a NaN with a sign loses it."""
    for fmt, nan in (("float8_e4m3fn@cuda", None), ("e4m3", "signed_overflow")):
        for ask in (reference.encode, lambda x, *a, **k: int(qsim.encode(np.array([x]), *a, **k)[0])):
            made = {x: ask(x, fmt, saturation="OvfNaN", nan=nan) for x in (1e6, -1e6, math.inf, -math.inf, -466.0)}
            assert made == {1e6: 0x7F, -1e6: 0xFF, math.inf: 0x7F, -math.inf: 0xFF, -466.0: 0xFF}
            assert [ask(x, fmt, saturation="OvfNaN", nan=nan) for x in (math.nan, -math.nan)] == [0x7F, 0x7F]
    signs = np.signbit(qsim.quantize(np.array([-1e6, -math.inf, -math.nan, 1e6]), "e4m3@cuda", saturation="OvfNaN"))
    assert signs.tolist() == [True, True, False, False]
    assert str(Quantizer("e4m3@cuda")) == "float8_e4m3fn@cuda:RNE, SatFinite, signed overflow NaN"
    assert explain(-1e6, "e4m3@cuda", saturation="OvfNaN").code == 0xFF


# --- The table of E8M0 -----------------------------------------------------------------------------------------------


def number(text: str) -> float:
    """Return the number that a cell of a table says."""
    factor, _, power = text.rpartition("2^") if "2^" in text else (text, "", "")
    return float(factor.rstrip("*") or 1) * 2.0 ** int(power or 0)


def test_the_table_of_e8m0() -> None:
    """Each row is what the entry or the variant that it names gives, but for the numbers that some round by a detour."""
    fmt = get_format("e8m0")
    assert "no two libraries agree" in fmt.warning
    head, *rows = fmt.elsewhere
    inputs = head[1:-1]
    named = {"this entry": "", "none here": None}
    for who, *cells, which in rows:
        variant = named.get(which, which)
        if variant is None:
            continue
        for x, cell in zip(inputs, cells, strict=True):
            ours = reference.quantize(number(x), f"{fmt.name}{variant}")
            if x == "5*2^-129" and cell == "2^-126":  # ml_dtypes 0.7 has mended it
                assert which in ("@torch", "@ml_dtypes")
                assert DETOUR[0] == ours < number(x) < number(cell) == DETOUR[1]
            else:
                assert alike(ours, number(cell)), (who, x)
    used = {which for *_, which in rows}
    assert used == {*named, *(f"@{variant.name}" for variant in variants() if fmt.name in variant.of)}


def test_the_table_of_e8m0_against_packages() -> None:
    """The rows of the packages at hand are what they do, where their version is that of the row."""
    head, *rows = get_format("e8m0").elsewhere
    x = np.array([number(text) for text in head[1:-1]], FLOAT32)
    seen = []
    for who, *cells, _ in rows:
        package, _, version = who.partition(" ")
        if package not in ("ml_dtypes", "torch") or not importlib.util.find_spec(package):
            continue
        if package == "ml_dtypes":
            with np.errstate(all="ignore"):
                found = x.astype(ml_dtypes.float8_e8m0fnu).astype(np.float64)
        else:
            import torch

            found = torch.from_numpy(x).to(torch.float8_e8m0fnu).to(torch.float64).numpy()
        if metadata.version(package).split("+")[0] == version:
            assert same_values(found, np.array([number(cell) for cell in cells])), who
        seen.append(package)
    assert "ml_dtypes" in seen


def test_where_bitsandbytes_rounds_nf4_otherwise() -> None:
    """The numbers that the entry of NF4 names are the least that go to a code: there bitsandbytes gives the one below."""
    warning = get_format("nf4").warning
    x = np.array([float(text) for text in re.findall(r"-?0\.\d{6,}", warning)], FLOAT32)
    assert len(x) == 10
    codes_at = qsim.encode(x, "nf4").astype(int)
    assert (qsim.encode(np.nextafter(x, FLOAT32.type(-2)), "nf4") == codes_at - 1).all()
    assert str(codes_at.tolist()) == "[1, 2, 4, 5, 8, 10, 12, 13, 14, 15]"


# --- Magnitudes ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("fmt", MAGNITUDES, ids=str)
def test_magnitudes(fmt: Format) -> None:
    """Where the sign is dropped, -x becomes what x becomes: any mode, saturation, type, layout, scale, word and flush."""
    key = qsim.Key(5)
    for kind, mode in itertools.product(KINDS, (Mode.RNE, Mode.RDN, Mode.SRA, Mode.SR, Mode.THR)):
        x = np.concatenate([edges(fmt, kind, 30), np.array([1e-40, -1e-40, 0.0, -0.0], kind)])
        drawn = {"key": key} if mode.stochastic else {"eps": 0.3} if mode is Mode.THR else {}
        drawn |= {"sr_bits": 7} if mode is Mode.SRA else {}
        for options in (
            {},
            {"saturation": "OvfNaN"},
            {"ftz_in": True},
            {"scale": "absmax"},
            {"scale": 0.5, "order": "reciprocal"},
        ):
            plus, minus = (
                qsim.encode(np.copysign(x, x.dtype.type(sign)), fmt, mode, **drawn, **options) for sign in (1, -1)
            )
            assert np.array_equal(plus, minus), (kind, mode, options)
        out = x.copy()
        if kind != FLOAT16 and fmt.bits == 8:
            qsim.quantize(out, fmt, mode, out=out, **drawn)
            assert same_values(exactly(out), qsim.decode(qsim.encode(x, fmt, mode, **drawn), fmt, FLOAT64))


def test_magnitudes_in_draws() -> None:
    """The engine's roundings drop the sign likewise, and count a magnitude beyond the range as saturated."""
    q = Quantizer("ue5m3@cuda")
    x = np.array([[-0.3, 0.3, -1e9, -0.0, math.nan]], FLOAT32)
    from qsim.arrays import quantize_draws

    for scaled in (q, Quantizer("ue5m3@cuda", scale=1.0), Quantizer("ue5m3@cuda", ftz_in=True)):
        y, counts = quantize_draws(x, scaled, 0, np.zeros(1, np.uint64))
        assert same_values(y, np.array([[0.3125, 0.3125, 114688.0, 0.0, math.nan]], FLOAT32))
        assert (counts.saturated, counts.nan, counts.underflowed) == (1, 1, 0)
    y, _ = quantize_draws(x, Quantizer("ue5m3@cuda", "SR"), 0, np.arange(4, dtype=np.uint64))
    assert (y[:, :2] >= 0.25).all()


def test_zero_to_what_is_not_the_smallest() -> None:
    """0 becomes NaN as ml_dtypes has it, in every path: scales that make a zero of a number, flushing, draws, and views."""
    fmt = "e8m0@ml_dtypes"
    x = np.array([0.0, -0.0, 1e-45, 1e-40, 1.0], FLOAT32)
    assert same_values(qsim.quantize(x, fmt), np.array([math.nan, math.nan, 2.0**-127, 2.0**-127, 1.0], FLOAT32))
    assert qsim.encode(x, fmt, ftz_in=True).tolist() == [255, 255, 255, 255, 127]
    assert qsim.encode(x[::2], fmt).tolist() == [255, 0, 127]
    assert qsim.encode(np.array([1e-40], FLOAT32), fmt, scale=1e30).tolist() == [255]  # fl(x / s) is 0
    from qsim.arrays import quantize_draws

    y, _ = quantize_draws(x[None], Quantizer(fmt, "SR"), 0, np.arange(3, dtype=np.uint64))
    assert np.isnan(y[:, :2]).all()
    assert (y[:, 2:] == np.array([2.0**-127, 2.0**-127, 1.0])).all()


# --- Names -----------------------------------------------------------------------------------------------------------


def test_variants_are_named_everywhere() -> None:
    """A variant is taken wherever a format is; a name that does not exist is refused with those that do."""
    assert get_format("e8m0@torch").name == "float8_e8m0fnu@torch"
    assert str(Quantizer.parse("e8m0@torch:RNE")) == "float8_e8m0fnu@torch:RNA, OvfNaN"
    assert qsim.quantize([3.0, -3.0], "e8m0@torch:RNE").tolist() == [4.0, 4.0]
    assert qsim.quantize([3.0], "e8m0@torch:RUP").tolist() == [4.0]
    for name, sentence in (
        ("e8m0@tensorflow", "no variant of float8_e8m0fnu is called 'tensorflow'; did you mean float8_e8m0fnu@cuda, "),
        ("bfloat16@torch", "no variant of bfloat16 is called 'torch'; it has none"),
        ("e8m0@torch@torch", "no variant of float8_e8m0fnu@torch is called 'torch'; it has none"),
        ("e9m9q@torch", "no format is called 'e9m9q'"),
        ("mine.toml@chip", "a variant of a file's format stands in it, FILE.toml#NAME@VARIANT"),
    ):
        with pytest.raises(InputError, match=re.escape(sentence)):
            get_format(name)


OWN = """
[[format]]
name = "scale5"
kind = "float"
exp_bits = 5
man_bits = 0
specials = "fn"
signed = false
zero = false
source = "a test"

[[variant]]
of = ["scale5", "float8_e8m0fnu"]
name = "chip"
negative_to = "magnitude"
ties = "away"
source = "a test"

[[variant]]
of = ["e4m3x", "int{bits}"]
name = "chip"
CHANGE
source = "a test"
"""


def test_variants_of_a_file(tmp_path: Path) -> None:
    """A file has variants of its own formats and of those with a name; what a format cannot have is refused with the entry."""
    path = tmp_path / "own.toml"
    path.write_text(OWN.replace("CHANGE", 'nan_to = "min"'), encoding="utf-8")
    for name in ("scale5@chip", "float8_e8m0fnu@chip", "e8m0@chip"):
        assert qsim.quantize([3.0, -3.0, 0.75], f"{path}#{name}").tolist() == [4.0, 4.0, 1.0]
    assert qsim.encode([math.nan], f"{path}#int5@chip").tolist() == [16]
    with pytest.raises(InputError, match="no variant of int8sym is called 'chip'; it has none"):
        get_format(f"{path}#int8sym@chip")
    for change, sentence in (
        ('ties = "away"', "ties = 'away'; for this format it is 'even'"),
        ('negative_to = "magnitude"', "negative_to = 'magnitude'; for this format it is left out"),
        ("nan_code = 3", "nan_code = 3; it is the code of a NaN of int8"),
        ('nan = "signed"', "nan = 'signed'; for this format it is 'canonical'"),
        ('revision = "p3109-4.0"', "revision = 'p3109-4.0'; for this format it is left out"),
    ):
        path.write_text(OWN.replace("CHANGE", change), encoding="utf-8")
        with pytest.raises(InputError, match=re.escape(f"{path}: variant 2 (chip): int8@chip: {sentence}")):
            get_format(f"{path}#int8@chip")
    path.write_text(OWN.replace("CHANGE", 'saturation = "OvfNaN"'), encoding="utf-8")
    with pytest.raises(InputError, match="OvfNaN makes no sense for int8@chip; int8@chip takes saturate or wrap"):
        qsim.quantize([1.0], f"{path}#int8@chip")
    path.write_text(OWN.replace("CHANGE", "") + OWN[OWN.index("[[variant]]") :].replace("CHANGE", ""), encoding="utf-8")
    with pytest.raises(InputError, match=r"the variant 'scale5@chip' is already taken by an entry of .*own.toml"):
        get_format(f"{path}#scale5@chip")


# --- Checks and explanations -----------------------------------------------------------------------------------------


def theirs(x: np.ndarray) -> np.ndarray:
    """Return the codes of ml_dtypes."""
    return x.astype(ml_dtypes.float8_e8m0fnu).view(np.uint8)


def test_a_converter_is_known_by_its_variant() -> None:
    """A conversion of a package holds against its variant; against the entry it is refuted, and the variant is the cause."""
    verdict = check_quantizer(theirs, "e8m0", codes=True, dtype=FLOAT16, examples=0, laws="specials")
    assert verdict.outcome is Outcome.REFUTED
    assert "converts as float8_e8m0fnu@ml_dtypes does, OvfNaN" in str(verdict.counterexample)
    for fmt, nan in (("float8_e8m0fnu@ml_dtypes", "any"), ("float8_e4m3fn@ml_dtypes", "signed")):
        kind = getattr(ml_dtypes, get_format(fmt).variant_of)
        verdict = check_quantizer(
            lambda x, kind=kind: x.astype(kind).view(np.uint8), fmt, codes=True, dtype=FLOAT16, nan=nan, examples=0
        )
        assert verdict.outcome is Outcome.HELD, verdict.counterexample
    assert "ties go away from zero (RNA instead of RNE)" in explain(3.0, "e8m0", got=0x81).causes
    assert "converts as float8_e8m0fnu@cuda does, SatFinite" in explain(-3.0, "e8m0", got=0x81).causes


@pytest.mark.parametrize("fmt", VARIANTS, ids=str)
def test_our_own_conversions_hold(fmt: Format) -> None:
    """The arrays hold against the independent rules of the checks."""
    nan = fmt.nan
    verdict = check_quantizer(lambda x: qsim.encode(x, fmt), fmt, codes=True, nan=nan, dtype=FLOAT16, examples=0)
    assert verdict.outcome is Outcome.HELD, verdict.counterexample


def test_explanations_say_what_the_variant_does() -> None:
    """A dropped sign, a tie that goes away, and a NaN that becomes a zero are said."""
    text = str(explain(-3.0, "e8m0@cuda"))
    assert "a minus sign, which is dropped first" in text
    assert "RNA (NearestTiesToAway)" in text
    assert "nu = 1/2, a tie: away from zero" in text
    assert "result       4, code 0x81" in text
    assert "a NaN becomes -0 (nan_to of the format is 'opposite_zero')" in str(explain(math.nan, "e2m1@ml_dtypes"))
    assert "below the smallest value: becomes" in str(explain(1e-300, "e8m0@ml_dtypes"))
    assert "0 becomes NaN (zero_to of the format is 'nan')" in str(explain(0.0, "e8m0@ml_dtypes"))
    text = " ".join(str(explain(1e6, "Binary8p4ue@p3109-4.0", "RTO")).split())
    assert "becomes 53248 under SatNone, since RTO rounds no further" in text
    for name, x in itertools.product(
        ("e8m0", "e8m0@torch", "e8m0@ml_dtypes"), (-1e-38, -1e-40, -0.0, 1e-40, 0.0, -3.0)
    ):
        for rule in ("SatFinite", "OvfNaN"):
            found = explain(x, name, saturation=rule)
            assert found.code == reference.encode(x, name, saturation=rule), (name, x, rule)
