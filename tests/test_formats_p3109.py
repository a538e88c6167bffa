"""The formats of IEEE P3109 against the text of the standard and the tables that its group publishes."""

from __future__ import annotations

import math
import re
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from alike import same_values
from strategies import P3109, P3109_FAMILY, WIDE_P3109

import qsim
from qsim import reference
from qsim.errors import InputError
from qsim.formats import Grid, get_format, p3109_format

P3109_NAME = re.compile(r"Binary(\d+)p(\d+)([su])([ef])")


def standard(name: str) -> tuple[list[int], list[int], dict[int, float]]:
    """Return, for the code points of the format called `name`, S and Q with the value S 2^Q, and the special values.

    The text of IEEE P3109, interim report 4.0: B = 2^(K - P - 1), or 2^(K - P) without sign (3.1). Decode (4.7.2): T = x mod
    2^(P - 1), E = x div 2^(P - 1); E = 0: T 2^(1 - P) 2^(1 - B); else (1 + T 2^(1 - P)) 2^(E - B). NaN is 2^(K - 1), or 2^K - 1
    without sign; +inf 2^(K - 1) - 1, or 2^K - 2; -inf 2^K - 1; x + 2^(K - 1) is minus x.
    """
    match = P3109_NAME.fullmatch(name)
    assert match
    k, p, signed, extended = int(match[1]), int(match[2]), match[3] == "s", match[4] == "e"
    bias = 1 << (k - p - 1) if signed else 1 << (k - p)
    half = 1 << (k - 1)
    significands, exponents = [], []
    for code in range(1 << k):
        e, t = divmod(code - half if signed and code >= half else code, 1 << (p - 1))
        s = t if e == 0 else t + (1 << (p - 1))
        significands.append(-s if signed and code >= half else s)
        exponents.append((1 if e == 0 else e) - bias + 1 - p)
    special = {half if signed else 2 * half - 1: math.nan}
    if extended:
        special[half - 1 if signed else 2 * half - 2] = math.inf
        special |= {2 * half - 1: -math.inf} if signed else {}
    return significands, exponents, special


def test_every_format_of_p3109_is_there() -> None:
    """For K from 3 to 16 there are formats of every P, signed (P < K) and unsigned (P <= K), extended and finite."""
    expected = [
        f"Binary{k}p{p}{sign}{domain}"
        for k in range(3, 17) for sign in "su" for p in range(1, k + (sign == "u")) for domain in "ef"
    ]  # fmt: skip
    assert sorted(expected) == sorted(fmt.name for fmt in (*P3109, *WIDE_P3109))
    assert len(expected) == 504
    assert {fmt.family for fmt in (*P3109, *WIDE_P3109)} == {P3109_FAMILY}


@pytest.mark.in_part(3)
@pytest.mark.parametrize("fmt", [*P3109, *WIDE_P3109], ids=str)
def test_codes_of_p3109(fmt: Grid) -> None:
    """Every code point decodes to the value of the standard's text; formats beyond float64 say so, and are exact without."""
    significands, exponents, special = standard(fmt.name)
    assert {fmt.nan_code} == {code for code, value in special.items() if math.isnan(value)}
    assert {fmt.inf_code} - {None} == {code for code, value in special.items() if value == math.inf}
    assert not fmt.has_neg_zero
    try:
        values = fmt.values()
    except InputError as error:
        assert str(error) == f"{fmt} reaches beyond the range of a float64; `value` and `code` are exact"  # noqa: PT017 - some are in range
        assert max(exponents) > 1000 or min(exponents) < -1074
    else:
        expected = np.ldexp(np.array(significands, float), exponents)
        expected[list(special)] = list(special.values())
        assert same_values(values + 0.0, expected + 0.0)
        assert not np.signbit(values[values == 0]).any()
    step = 1 if fmt.bits <= 8 else (1 << fmt.bits) // 64 + 1
    check_p3109(fmt, significands, exponents, special, step)


@pytest.mark.exhaustive
@pytest.mark.parametrize("fmt", WIDE_P3109, ids=str)
def test_all_wide_codes_of_p3109(fmt: Grid) -> None:
    """The same, exactly, for every code point of the formats of 9 to 16 bits."""
    check_p3109(fmt, *standard(fmt.name), 1)


def check_p3109(fmt: Grid, significands: list[int], exponents: list[int], special: dict[int, float], step: int) -> None:
    """Hold every `step`-th code point, those beside the special ones and their neighbours against the standard."""
    at = {code + near for code in (0, *special, 1 << (fmt.bits - 1)) for near in range(-2, 3)}
    codes = sorted({*range(0, 1 << fmt.bits, step), *at} & {*range(1 << fmt.bits)} - {*special})
    for code in codes:
        exact = significands[code] * Fraction(2) ** exponents[code]
        ordinal = fmt.ordinal(exact)
        assert fmt.value(ordinal) == exact
        assert fmt.code(ordinal) == fmt.code(ordinal, negative_zero=True) == code
        assert fmt.is_odd(ordinal) == bool(code & 1)
        outer = code + 1
        if ordinal and outer < 1 << fmt.bits and outer not in special:  # the next code is the next value outward
            further = significands[outer] * Fraction(2) ** exponents[outer]
            assert abs(further) > abs(exact)
            assert fmt.split((3 * exact + further) / 4) == (ordinal, Fraction(1, 4))


@pytest.mark.parametrize("k", range(3, 9))
def test_published_tables_of_p3109(k: int, qsim_data: Path) -> None:
    """Every value of the value tables that the P3109 group publishes is ours, for all formats of up to 8 bits."""
    with np.load(qsim_data / "p3109-values-k3-k8.npz") as published:
        names = [name for name in published.files if name.startswith(f"Binary{k}p")]
        assert len(names) == 4 * k - 2
        for name in names:
            assert same_values(get_format(name).values(), published[name]), name


@pytest.mark.parametrize(
    ("k", "p", "signed"), [(2, 1, True), (17, 3, True), (8, 0, True), (8, 8, True), (8, 9, False), (8, -1, False)]
)
def test_formats_that_p3109_has_not(k: int, p: int, signed: bool) -> None:
    """K is 3 to 16 here and 0 < P < K, or P <= K without sign; anything else is refused by its name."""
    with pytest.raises(InputError, match=f"'Binary{k}p{p}{'s' if signed else 'u'}f'.* P 1 to K"):
        p3109_format(k, p, signed=signed, extended=False, source="a test")
    with pytest.raises(InputError, match="did you mean"):
        get_format(f"Binary{k}p{p}{'s' if signed else 'u'}f")


def refused(fmt: Grid) -> bool:
    """Return whether P, K and the sign say that no array is rounded to a format: it has 12 exponent bits or more."""
    match = P3109_NAME.fullmatch(fmt.name)
    assert match
    k, p = int(match[1]), int(match[2])
    return p <= k - (12 if match[3] == "s" else 11)


REACHING = [fmt for fmt in WIDE_P3109 if fmt.exp_bits == 11]
"""Formats with values that float64 has as subnormal numbers, to which arrays are rounded by a list."""


def test_the_formats_that_arrays_refuse() -> None:
    """They are those of 12 exponent bits and more, for codes as for values; README and changelog say so, and how many."""
    count = 0
    for fmt in (*P3109, *WIDE_P3109):
        assert refused(fmt) == (fmt.exp_bits >= 12)
        if refused(fmt):
            count += 1
            with pytest.raises(InputError, match="has values beyond float64"):
                qsim.encode(np.ones(1), fmt)
            with pytest.raises(InputError, match="reaches beyond the range of a float64"):
                qsim.decode(np.ones(1, int), fmt)
            assert reference.encode(1.0, fmt) == fmt.code(fmt.ordinal(Fraction(1)))
        elif fmt not in REACHING:
            assert qsim.encode(np.ones(1), fmt).tolist() == [fmt.code(fmt.ordinal(Fraction(1)))]
    root = Path(__file__).resolve().parents[1]
    readme, changes = (
        " ".join((root / name).read_text(encoding="utf-8").split()) for name in ("README.md", "CHANGELOG.md")
    )
    assert f"the {count} of 12 exponent bits and more (signed with P <= K - 12, unsigned with P <= K - 11)" in readme
    assert f"the {count} of 12 exponent bits and more by `qsim.reference` alone" in changes


@pytest.mark.parametrize("fmt", [fmt for fmt in REACHING if fmt.bits <= 12], ids=str)
def test_codes_of_formats_at_the_end_of_float64(fmt: Grid) -> None:
    """Every code decodes to a float64 that encodes to it, in modes that round by a list and by random words."""
    check_round_trip(fmt)


@pytest.mark.exhaustive
@pytest.mark.parametrize("fmt", [fmt for fmt in REACHING if fmt.bits > 12], ids=str)
def test_codes_of_wide_formats_at_the_end_of_float64(fmt: Grid) -> None:
    """The same of more bits."""
    check_round_trip(fmt)


def check_round_trip(fmt: Grid) -> None:
    """Hold that decode and encode are inverse, and that numbers between two values go to one of them."""
    codes = np.array([code for code in range(1 << fmt.bits) if fmt.is_code(code)])
    values = qsim.decode(codes, fmt, np.float64)
    numbers = np.isfinite(values)
    for mode in ("RNE", "RTO"):
        assert np.array_equal(qsim.encode(values, fmt, mode, saturation=None)[numbers], codes[numbers])
    word = np.arange(codes.size) % 16
    assert np.array_equal(qsim.encode(values, fmt, "SRA", sr_bits=4, rbits=word)[numbers], codes[numbers])
    ascending = np.sort(values[numbers])
    middle = ascending[:-1] / 2 + ascending[1:] / 2
    down, up = (qsim.quantize(middle, fmt, mode) for mode in ("RDN", "RUP"))
    exact = middle - ascending[:-1] == ascending[1:] - middle
    assert np.array_equal(down[exact], ascending[:-1][exact])
    assert np.array_equal(up[exact], ascending[1:][exact])
