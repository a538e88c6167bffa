"""What becomes of what a format cannot hold: NaN, infinities, zeros, signs and numbers out of range, by the format's data."""

from __future__ import annotations

import itertools
import math
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from alike import alike, identical
from strategies import CATALOGUE, FIXED, GAPPED, P3109, SMALL, TABLES

import qsim
from qsim import reference
from qsim.errors import InputError
from qsim.formats import Format, float_format, get_format, load_formats
from qsim.rounding import FLUSHES, Mode, Saturation, saturations

INF, NAN = math.inf, math.nan

CLAMPED = {"SatFinite", "SatPropagate", "InfNaN", "saturate"}


def stated(fmt: Format, x: float, rule: str, mode: Mode) -> float | None:
    """Return what the data of `fmt` say becomes of a special or an out-of-range number; `None` where it is refused.

    nan_to, zero_to and negative_to are the words of the format's entry, `rule` the saturation.
    """
    if fmt.negative_to == "magnitude":
        x = math.fabs(x)
    negative = math.copysign(1.0, x) < 0
    ends = {"min": fmt.min, "max": fmt.max, "nan": NAN, "zero": 0.0, "neg_zero": -0.0, "opposite_zero": -0.0}
    if math.isnan(x):
        return (
            None if fmt.nan_to == "error" else 0.0 if fmt.nan_to == "opposite_zero" and negative else ends[fmt.nan_to]
        )
    if x == 0 and fmt.has_zero:
        return x if fmt.has_neg_zero else 0.0
    if x == 0 and (fmt.signed or not negative):  # without a sign, -0 is as negative as any number below it
        return ends[fmt.zero_to]
    end = fmt.min if negative else fmt.max
    if math.isinf(x):
        if rule == "SatPropagate" and negative and not fmt.signed:
            return end
        if rule in {"SatFinite", "saturate", "wrap"}:
            return end
    elif rule in CLAMPED or mode in ({Mode.RTZ, Mode.RUP} if negative else {Mode.RTZ, Mode.RDN}):
        return end
    if negative and not fmt.signed:
        return ends[fmt.negative_to]
    if fmt.revision == "p3109-4.0" and rule == "SatNone":
        finite_to_odd = mode is Mode.RTO and not fmt.signed and not math.isinf(x)
        return end if not fmt.has_inf or finite_to_odd else x * INF
    return NAN if rule in {"OvfNaN", "InfNaN"} else x * INF


ENDS = (Mode.RNE, Mode.RTZ, Mode.RUP, Mode.RDN, Mode.RTO)


def check_unheld(fmt: Format, modes: tuple[Mode, ...] = ENDS) -> None:
    """Hold definition and arrays against what the data of `fmt` say, for NaN, infinities, zeros and numbers out of range."""
    beyond = 4 * max(fmt.max, -fmt.min, 1.0) if max(fmt.max, -fmt.min) < 1e300 else INF
    x = np.array([NAN, -NAN, INF, -INF, 0.0, -0.0, beyond, -beyond])
    for rule, mode in itertools.product(saturations(fmt), modes):
        finite_wraps = rule is Saturation.wrap
        for value in x.tolist():
            expected = stated(fmt, value, rule.value, mode)
            if finite_wraps and math.isfinite(value) and value:
                low, high = fmt.value(-fmt.bottom), fmt.value(1) * (1 << fmt.bits)
                wrapped = abs(value) if fmt.negative_to == "magnitude" else value
                expected = float((Fraction(wrapped) - low) % high + low)
            if expected is None:
                with pytest.raises(InputError, match=f"a NaN has no place in {fmt}"):
                    reference.encode(value, fmt, mode, saturation=rule)
                with pytest.raises(InputError, match=f"is NaN, which has no place in {fmt}"):
                    qsim.encode(np.array([value]), fmt, mode, saturation=rule)
                continue
            code = reference.encode(value, fmt, mode, saturation=rule)
            assert alike(reference.quantize(value, fmt, mode, saturation=rule), expected), (fmt, value, rule, mode)
            assert alike(fmt.decode(code), expected)
            assert qsim.encode(np.array([value]), fmt, mode, saturation=rule).tolist() == [code], (
                fmt,
                value,
                rule,
                mode,
            )


@pytest.mark.parametrize(
    "fmt", {fmt.name: fmt for fmt in (*CATALOGUE, *P3109, *SMALL, *TABLES, *GAPPED, *FIXED)}.values(), ids=str
)
def test_what_a_format_cannot_hold(fmt: Format) -> None:
    """What the data of every format say becomes of NaN, infinities, zeros, negative and too large numbers, does."""
    check_unheld(fmt)


SAID = {
    "float16": ("nan", "", ""), "bfloat16": ("nan", "", ""), "float32": ("nan", "", ""), "float64": ("nan", "", ""),
    "float8_e4m3fn": ("nan", "", ""), "float8_e4m3fnuz": ("nan", "", ""), "dlfloat16": ("nan", "", ""),
    "float6_e2m3fn": ("max", "", ""), "float6_e3m2fn": ("max", "", ""), "float4_e2m1fn": ("max", "", ""),
    "cfloat8_1_4_3": ("max", "", ""), "cfloat8_1_5_2": ("max", "", ""), "cfloat8_1_4_3_half": ("max", "", ""),
    "float8_e8m0fnu": ("nan", "nan", "min"), "float7_e4m3fnu": ("nan", "nan", ""), "float8_e5m3fnu": ("nan", "nan", ""),
    "Binary8p4se": ("nan", "", ""), "Binary8p4ue": ("nan", "nan", ""), "Binary8p4uf": ("nan", "nan", ""),
    "int8": ("zero", "", ""), "uint8": ("zero", "min", ""), "int8sym": ("zero", "", ""), "ternary": ("zero", "", ""),
    "Q3.4": ("zero", "", ""), "UQ0.8": ("zero", "min", ""), "e4m3fu": ("max", "min", ""), "e4m0fu": ("max", "min", "min"),
    "binary": ("max", "", "max"), "nf4": ("zero", "", ""), "log4_sqrt2": ("zero", "", ""), "posit8": ("nan", "", ""),
}  # fmt: skip
"""nan_to, negative_to and zero_to: PTX's maximum where there is no NaN, a NaN for what is negative where there is one."""


@pytest.mark.parametrize(("name", "words_of"), SAID.items())
def test_what_the_catalogue_says(name: str, words_of: tuple[str, str, str]) -> None:
    """The catalogue and the spellings say what becomes of NaN, negatives and zero, and each says what it can mean."""
    fmt = get_format(name)
    assert (fmt.nan_to, fmt.negative_to, fmt.zero_to) == words_of
    assert bool(fmt.negative_to) == (not fmt.signed)
    assert bool(fmt.zero_to) == (not fmt.has_zero)


BASES = {
    "signed, a NaN": 'kind = "float"\nexp_bits = 3\nman_bits = 2\nspecials = "fn"',
    "signed, infinities": 'kind = "float"\nexp_bits = 3\nman_bits = 2\nspecials = "ieee"',
    "signed, finite only": 'kind = "float"\nexp_bits = 3\nman_bits = 2\nspecials = "f"',
    "unsigned, a NaN": 'kind = "float"\nexp_bits = 3\nman_bits = 2\nspecials = "fn"\nsigned = false',
    "unsigned, infinity": 'kind = "float"\nexp_bits = 3\nman_bits = 2\nspecials = "extended"\nsigned = false',
    "unsigned, finite only": 'kind = "float"\nexp_bits = 3\nman_bits = 2\nspecials = "f"\nsigned = false\nsubnormals = "half"',
    "no zero, a NaN": 'kind = "float"\nexp_bits = 4\nman_bits = 0\nspecials = "fn"\nsigned = false\nzero = false',
    "no zero, finite only": 'kind = "float"\nexp_bits = 4\nman_bits = 0\nspecials = "f"\nsigned = false\nzero = false',
    "integer": 'kind = "integer"\nbits = [5]',
    "unsigned integer": 'kind = "integer"\nbits = [5]\nsigned = false\nfrac_bits = 2',
    "symmetric integer": 'kind = "integer"\nbits = [5]\nsymmetric = true',
    "table": 'kind = "table"\nvalues = [-2, 0, 0.5]',
    "table with a NaN": 'kind = "table"\nvalues = [-2, 0, 0.5, nan]\nabove = 3',
    "table without zero": 'kind = "table"\nvalues = [-2, 1, nan]',
    "positive table": 'kind = "table"\nvalues = [0.5, nan, 1, 4]',
    "negative table": 'kind = "table"\nvalues = [-4, -1]\nbelow = -8',
}
NEEDED = {"table without zero": {"zero_to": "max"}}
ANY = {
    "nan_to": ("nan", "max", "min", "zero", "neg_zero", "opposite_zero", "error"),
    "negative_to": ("nan", "min", "magnitude"),
    "zero_to": ("min", "max", "nan"),
}


@pytest.mark.parametrize("base", BASES)
def test_what_a_users_format_cannot_hold(base: str, tmp_path: Path) -> None:
    """Every word that an entry may say about NaN, negatives and zero is what happens; the others are refused, with these."""
    text = f'[[format]]\nname = "own"\nsource = "a test"\n{BASES[base]}\n'
    path = tmp_path / "own.toml"

    def read(said: dict[str, str]) -> Format:
        words = {**NEEDED.get(base, {}), **said}
        path.write_text(text + "".join(f'{key} = "{word}"\n' for key, word in words.items()), encoding="utf-8")
        (fmt,) = load_formats(path)
        return fmt

    plain = read({})
    nan, zero, signed = plain.has_nan, plain.has_zero, plain.signed
    allowed = {
        "nan_to": {
            "max",
            "min",
            "error",
            *(["nan"] if nan else []),
            *(["zero"] if zero else []),
            *(["neg_zero", "opposite_zero"] if plain.has_neg_zero else []),
        },
        "negative_to": set() if signed else {"min", "magnitude", *(["nan"] if nan else [])},
        "zero_to": set() if zero else {"min", "max", *(["nan"] if nan else [])},
    }
    check_unheld(plain)
    choices = [[None, *words] for words in ANY.values()]
    for chosen in itertools.product(*choices):
        said = {key: word for key, word in zip(ANY, chosen, strict=True) if word}
        wrong = [(key, word) for key, word in said.items() if word not in allowed[key]]
        if not wrong and said.get("zero_to") == "nan" and said.get("nan_to", "nan") != "nan":
            with pytest.raises(InputError, match="0 can become a NaN where a NaN stays one"):
                read(said)
        elif not wrong:
            fmt = read(said)
            assert {key: getattr(fmt, key) for key in said} == said
            check_unheld(fmt, (Mode.RNE, Mode.RDN))
        elif len(said) == 1:
            key, word = wrong[0]
            with pytest.raises(
                InputError, match=rf"own.toml: format 1 \(own\): own: {key} = '{word}'; for this"
            ) as caught:
                read(said)
            assert "\n" not in str(caught.value)
            for good in allowed[key]:
                assert repr(good) in str(caught.value)


def test_small_numbers_without_a_zero() -> None:
    """Without a zero a positive number is at least the smallest value, whatever 0 becomes, and a negative one never is.

    What has a minus sign is negative, -0 too: a number that underflowed on the way here has no more than that left.
    """
    least = 2.0**-127
    for zero_to, zero in (("min", least), ("max", 2.0**127), ("nan", NAN)):
        fmt = float_format("own", 8, 0, "fn", "a test", signed=False, zero=False, zero_to=zero_to)
        for mode, rule in itertools.product(("RNE", "RNA", "RTZ", "RDN", "RUP", "RAZ", "RTO"), ("SatFinite", "OvfNaN")):
            below = least if rule == "SatFinite" or mode in ("RTZ", "RUP") else NAN
            x = np.array([part * least for part in (2.0**-60, 0.25, 0.49, 0.5, 0.51, 0.75, 0.99, 1.0)])
            for values, expected in (
                (x, least),
                (-x, below),
                (-x * 2.0**70, below),
                (x[:1] * 0, zero),
                (-x[:1] * 0, below),
            ):
                for value in values.tolist():
                    assert alike(reference.quantize(value, fmt, mode, saturation=rule), expected), (mode, rule, value)
                for codes in (True, False):
                    ask = qsim.encode if codes else qsim.quantize
                    found = ask(values, fmt, mode, saturation=rule)
                    found = qsim.decode(found, fmt, np.float64) if codes else found
                    assert identical(found, [expected] * len(values)), (mode, rule, zero_to)


@pytest.mark.parametrize("fmt", [*SMALL, *map(get_format, ("float16", "bfloat16", "dlfloat16"))], ids=str)
def test_flushing(fmt: Format) -> None:
    """Subnormal numbers become zeros, which keep their sign where zeros have one; the kinds differ next to the normal ones."""
    for ordinal in [*range(-min(fmt.bottom, 40), min(fmt.top, 40) + 1), fmt.top]:
        if not -fmt.bottom <= ordinal <= fmt.top:
            continue
        x = fmt.value(ordinal)
        if not x and not fmt.has_zero:
            continue
        tiny = fmt.kind == "float" and 0 < abs(x) < fmt.smallest_normal
        expected = (-0.0 if x < 0 and fmt.has_neg_zero else 0.0) if tiny else float(x)
        for kind in (True, *FLUSHES):
            assert alike(reference.quantize(x, fmt, ftz_out=kind), expected), (x, kind)
    if fmt.kind == "float" and fmt.has_zero and not fmt.gap:
        normal, half = fmt.value(fmt.first_normal), Fraction(1, 2) ** (fmt.man_bits + 2)
        below = fmt.value(fmt.first_normal - 1)
        for kind, edge in (
            ("before", normal), ("after", normal * (1 - half)), ("result", (normal + below) / 2), (True, normal * (1 - half)),
        ):  # fmt: skip
            assert reference.quantize(edge + Fraction(1, 1 << 300), fmt, ftz_out=kind) == fmt.smallest_normal
            assert reference.quantize(edge - Fraction(1, 1 << 300), fmt, ftz_out=kind) == 0


def test_signs_of_nans() -> None:
    """With nan = "signed" a NaN keeps its sign where NaNs have one, also one that an overflow made; else it is canonical."""
    cases = {"e4m3": (0x7F, 0xFF), "e5m2": (0x7E, 0xFE), "bfloat16": (0x7FC0, 0xFFC0), "float8_e4m3fnuz": (0x80, 0x80)}
    cases |= {"Binary8p4se": (0x80, 0x80), "e8m0": (0xFF, 0xFF), "posit8": (0x80, 0x80)}
    for name, (plus, minus) in cases.items():
        for nan, negative in (("canonical", plus), ("signed", minus)):
            assert reference.encode(NAN, name, nan=nan) == plus
            assert reference.encode(-NAN, name, nan=nan) == negative
    assert reference.encode(-1e9, "e4m3", saturation="OvfNaN", nan="signed") == 0xFF
    assert reference.encode(-INF, "e4m3", saturation="OvfNaN", nan="signed") == 0xFF
    assert reference.encode(-1e9, "e4m3", saturation="OvfNaN") == 0x7F
