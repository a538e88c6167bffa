"""The definition and the arrays against the texts of IEEE P3109: projection, in every mode, saturation and revision."""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Iterable, Iterator
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from alike import alike
from strategies import P3109, between

import qsim
from qsim import reference
from qsim.errors import InputError
from qsim.formats import Format, catalogue, get_format
from qsim.rounding import Quantizer

INF, NAN = math.inf, math.nan
HALF = Fraction(1, 2)

MODES = ["RNE", "RNA", "RTZ", "RUP", "RDN", "RTO", "SRA", "SRB", "SRC"]
"""The modes of P3109, by our aliases."""
RULES = ["SatFinite", "SatPropagate", "SatNone"]
REVISIONS = ["p3109-4.0", "p3109-2026-07"]


class Standard:
    """A format of IEEE P3109, by the text of interim report 4.0: projection, in the words of its sections.

    The formal model of the working group (github.com/imandra-ai/ieee-p3109, commit 7b6f5ba of 14 July 2026,
    specification/specification.iml) says the same in wDecode, wRoundToPrecision and wEncode, and another thing in wSaturate.
    """

    def __init__(self, name: str) -> None:
        self.k, self.p = map(int, name[6:-2].split("p"))
        self.signed, self.extended = name[-2] == "s", name[-1] == "e"
        self.bias = 1 << (self.k - self.p - 1) if self.signed else 1 << (self.k - self.p)
        self.half = 1 << (self.k - 1)
        self.nan = self.half if self.signed else 2 * self.half - 1
        self.inf = self.half - 1 if self.signed else 2 * self.half - 2
        self.high = self.decode(self.inf - self.extended)
        self.low = -self.high if self.signed else Fraction(0)
        self.codes: dict[Fraction, int] = {}

    def decode(self, code: int) -> Fraction:
        """4.7.2, for a code that is not negative."""
        e, t = divmod(code, 1 << (self.p - 1))
        whole = t * Fraction(2) ** (1 - self.p)
        return whole * Fraction(2) ** (1 - self.bias) if e == 0 else (1 + whole) * Fraction(2) ** (e - self.bias)

    def split(self, x: Fraction) -> tuple[int, int, Fraction, bool]:
        """4.7.4: Q = max(floor(log2|X|), 1 - B) - P + 1, floor(S) and nu of S = |X| 2^-Q, and CodeIsEven."""
        if x == 0:
            return 1, 0, Fraction(0), True
        exponent = abs(x).numerator.bit_length() - x.denominator.bit_length()
        exponent -= Fraction(2) ** exponent > abs(x)
        q = max(exponent, 1 - self.bias) - self.p + 1
        significand = abs(x) / Fraction(2) ** q
        whole = math.floor(significand)
        even = whole % 2 == 0 if self.p > 1 else whole == 0 or (q + self.bias) % 2 == 0
        return q, whole, significand - whole, even

    def inside(self, x: Any) -> bool:
        """4.7.5, the first two rows: return whether wSaturate leaves a rounded number as it is, or the NaN, which is `None`."""
        return x is None or (not isinstance(x, float) and self.low <= x <= self.high)

    def saturate(self, revision: str, rule: str, mode: str, x: Any) -> Any:
        """Return what wSaturate makes of a rounded number or an infinity."""
        if self.inside(x):
            return x
        if rule == "SatFinite":
            return self.high if x > self.high else self.low
        if rule == "SatPropagate":
            if x == INF:
                return INF if self.extended else self.high
            if x == -INF:
                return -INF if self.signed and self.extended else self.low
            return self.low if x < self.low else self.high
        return (self.none_of_the_report if revision == "p3109-4.0" else self.none_of_the_model)(mode, x)

    def none_of_the_report(self, mode: str, x: Any) -> Any:
        """Interim report 4.0 of 26 June 2026, 4.7.5: the rows of SatNone; the first that matches is it."""
        if x == INF:
            return INF if self.extended else self.high
        if x == -INF and self.signed:
            return -INF if self.extended else self.low
        if x == -INF:
            return None
        if mode == "RTO" and x > self.high and not self.signed and self.extended:
            return self.high
        if mode in {"RTZ", "RDN"} and x > self.high:
            return self.high
        if mode in {"RTZ", "RUP"} and x < self.low:
            return self.low
        if x < self.low and self.signed:
            return -INF if self.extended else self.low
        if x < self.low:
            return None
        return INF if self.extended else self.high

    def none_of_the_model(self, mode: str, x: Any) -> Any:
        """The formal model of 14 July 2026, internal_wSaturate: the rows of SatNone; the first that matches is it."""
        if mode in {"RTZ", "RDN"} and x > self.high and x != INF:
            return self.high
        if mode in {"RTZ", "RUP"} and x < self.low and x != -INF:
            return self.low
        if x == INF and self.extended:
            return INF
        if x == -INF and self.extended:
            return -INF if self.signed else None
        if x < self.low and self.extended:
            return -INF if self.signed else None
        if x > self.high and self.extended:
            return INF
        return None

    def encode(self, x: Any) -> int:
        """4.7.6; `None` is NaN."""
        if x is None:
            return self.nan
        if x < 0:
            return self.half + self.encode(-x)
        if isinstance(x, float):
            return self.inf
        if x not in self.codes:
            self.codes |= {self.decode(code): code for code in range(self.inf + 1 - self.extended)}
        return self.codes[x]


def round_away(mode: str, v: Fraction, positive: bool, n: int, r: int, *, even: bool) -> bool:
    """4.7.4, RoundAway: `v` is nu."""
    match mode:
        case "RTZ":
            return False
        case "RUP":
            return v > 0 and positive
        case "RDN":
            return v > 0 and not positive
        case "RNA":
            return v >= HALF
        case "RNE":
            return v > HALF or (v == HALF and not even)
        case "RTO":
            return v > 0 and even
        case "SRA":
            return math.floor(v * 2**n) + r >= 2**n
        case "SRB":
            return math.floor(v * 2 ** (n + 1)) + 2 * r + 1 >= 2 ** (n + 1)
    scaled = v * 2**n
    floor = math.floor(scaled)
    nearest = floor + (scaled - floor > HALF or (scaled - floor == HALF and floor % 2 == 1))
    return nearest + r >= 2**n


def inputs(fmt: Format, parts: int, at: Iterable[int] | None = None) -> list[Any]:
    """Return points that divide some intervals, or all and some beyond the range; far numbers, infinities and NaN."""
    reach = range(-fmt.top - 3, fmt.top + 3) if at is None else at
    far = [sign * times * fmt.value(fmt.top) for sign in (1, -1) for times in (3, 1 << 40)]
    return [*between(fmt, parts, reach), *far, None, INF, -INF]


def projections(
    standard: Standard, revision: str, x: list[Any], most: int
) -> Iterator[tuple[str, int, int, str, np.ndarray]]:
    """Yield mode, N, R, saturation, and the codes that the text gives for `x`, for words of 1 to `most` bits."""
    parts = [standard.split(v) if isinstance(v, Fraction) else None for v in x]
    # RoundAway looks at nu, the parity and the sign: numbers that agree in these go one way.
    kinds = [None if found is None else (found[2], found[3], v > 0) for v, found in zip(x, parts, strict=True)]
    different = list(dict.fromkeys(kinds))
    kind = np.array([different.index(k) for k in kinds])

    rounded = {
        away: [
            v if s is None else (s[1] + away) * Fraction(2) ** s[0] * (1 if v > 0 else -1)
            for v, s in zip(x, parts, strict=True)
        ]
        for away in (True, False)
    }
    inside = {away: [standard.inside(v) for v in values] for away, values in rounded.items()}
    held = {
        away: np.array([standard.encode(v) if keep else 0 for v, keep in zip(rounded[away], inside[away], strict=True)])
        for away in rounded
    }

    @functools.cache
    def codes(direction: str, rule: str, *, away: bool) -> np.ndarray:
        """Return the codes of all numbers if they go away from zero, or not; of the mode the direction counts."""
        found = held[away].copy()
        for at, keep in enumerate(inside[away]):
            if not keep:
                found[at] = standard.encode(standard.saturate(revision, rule, direction, rounded[away][at]))
        return found

    for mode in MODES:
        direction = mode if mode in {"RTZ", "RUP", "RDN", "RTO"} else "RNE"
        for n in range(1, most + 1) if mode.startswith("S") else (0,):
            for r in range(1 << n):
                goes = [k is not None and round_away(mode, k[0], k[2], n, r, even=k[1]) for k in different]
                away = np.array(goes)[kind]
                for rule in RULES:
                    both = (codes(direction, rule, away=up) for up in (True, False))
                    yield mode, n, r, rule, np.where(away, *both)


def check_projection(fmt: Format, revision: str, x: list[Any], most: int, every: int) -> None:
    """Hold the arrays, and each `every`-th time the definition, against the text."""
    standard, variant = Standard(fmt.name), get_format(f"{fmt.name}@{revision}")
    given = [NAN if v is None else v if isinstance(v, float) else float(v) for v in x]
    assert all(not isinstance(v, Fraction) or v == g for v, g in zip(x, given, strict=True))
    array, count = np.array(given), 0
    for mode, n, r, rule, expected in projections(standard, revision, x, most):
        drawn = {"sr_bits": n, "rbits": r} if n else {}
        found = qsim.encode(array, variant, mode, saturation=rule, **drawn)
        wrong = array[found != expected].tolist()
        assert not wrong, (fmt.name, revision, mode, n, r, rule, wrong)
        for i in range(-count % every, len(x), every):
            value = given[i] if x[i] is None else x[i]
            ours = reference.encode(value, variant, mode, saturation=rule, **drawn)
            assert ours == expected[i], (fmt.name, revision, value, mode, r, rule)
        count += len(x)


@pytest.mark.parametrize("revision", REVISIONS)
@pytest.mark.parametrize("k", [3, 4, 5, 6])
def test_whole_projection_of_p3109(k: int, revision: str) -> None:
    """Every format of 3 to 6 bits projects as its text says: all quarters of all intervals, all modes and saturations.

    The stochastic modes with all words of 1, 2 and 3 bits; the arrays everywhere, the definition at a sample of it.
    """
    for fmt in P3109:
        if fmt.bits == k:
            check_projection(fmt, revision, inputs(fmt, 4), 3, 499)


@pytest.mark.parametrize("revision", REVISIONS)
@pytest.mark.parametrize("k", [7, 8])
def test_projection_of_p3109(k: int, revision: str) -> None:
    """Near zero, near the ends and beyond, every format of 7 and 8 bits projects as the text says likewise."""
    for fmt in P3109:
        if fmt.bits == k:
            at = [-fmt.top - 3, -fmt.top - 1, -fmt.top, -1, 0, 1, fmt.top - 1, fmt.top, fmt.top + 2]
            check_projection(fmt, revision, inputs(fmt, 4, at), 1, 7)


@pytest.mark.exhaustive
@pytest.mark.parametrize("revision", REVISIONS)
@pytest.mark.parametrize("fmt", P3109, ids=str)
def test_all_of_the_projection_of_p3109(fmt: Format, revision: str) -> None:
    """The same of all formats at all eighths of all intervals, the definition at all of them too."""
    check_projection(fmt, revision, inputs(fmt, 8), 3, 1 if fmt.bits < 7 else 7)


def test_where_the_revisions_differ() -> None:
    """They differ in SatNone: finite formats beyond their range, and to odd above that of unsigned extended ones."""
    for fmt in P3109:
        report, model = (get_format(f"{fmt.name}@{revision}") for revision in REVISIONS)
        x = inputs(fmt, 2, [-fmt.top - 2, 0, fmt.top, fmt.top + 1])
        for value, mode, rule in itertools.product(x, MODES[:6], RULES):
            ours = [
                reference.encode(NAN if value is None else value, of, mode, saturation=rule) for of in (report, model)
            ]
            beyond = value is not None and (
                value > fmt.value(fmt.top) or (value < fmt.value(-fmt.bottom) and fmt.signed)
            )
            apart = (
                rule == "SatNone"
                and beyond
                and (not fmt.has_inf or (mode == "RTO" and not fmt.signed and value != INF))
            )
            assert apart or ours[0] == ours[1], (fmt, value, mode, rule)
            if apart and abs(value) > 2 * fmt.value(fmt.top) and mode in ("RNE", "RTO"):
                assert ours[0] == report.code(report.top if value > 0 else -report.bottom), (fmt, value, mode, rule)
                assert ours[1] == (model.inf_code if fmt.has_inf else model.nan_code)


BY_HAND = (
    ("Binary8p4se", "SatNone", "RNE", 1e9, INF), ("Binary8p4se", "SatNone", "RTZ", 1e9, 224.0),
    ("Binary8p4se", "SatNone", "RDN", 1e9, 224.0), ("Binary8p4se", "SatNone", "RUP", 1e9, INF),
    ("Binary8p4se", "SatNone", "RTO", 1e9, INF), ("Binary8p4se", "SatNone", "RUP", -1e9, -224.0),
    ("Binary8p4se", "SatNone", "RDN", -1e9, -INF), ("Binary8p4se", "SatNone", "RTZ", INF, INF),
    ("Binary8p4se", "SatPropagate", "RNE", 1e9, 224.0), ("Binary8p4se", "SatPropagate", "RTZ", -INF, -INF),
    ("Binary8p4se", "SatFinite", "RUP", INF, 224.0), ("Binary8p4sf", "SatNone", "RTZ", 1e9, 240.0),
    ("Binary8p4sf", "SatPropagate", "RNE", INF, 240.0), ("Binary8p4ue", "SatNone", "RNE", -1.0, NAN),
    ("Binary8p4ue", "SatNone", "RTZ", -1.0, 0.0), ("Binary8p4ue", "SatNone", "RUP", -1.0, 0.0),
    ("Binary8p4ue", "SatNone", "RDN", -1.0, NAN), ("Binary8p4ue", "SatNone", "RDN", -1e-30, NAN),
    ("Binary8p4ue", "SatNone", "RNE", -1e-30, 0.0), ("Binary8p4ue", "SatNone", "RTZ", -INF, NAN),
    ("Binary8p4ue", "SatPropagate", "RNE", -INF, 0.0), ("Binary8p4ue", "SatFinite", "RDN", -1.0, 0.0),
    ("Binary8p4uf", "SatNone", "RNE", -1.0, NAN), ("Binary8p4uf", "SatNone", "RTZ", -1.0, 0.0),
    ("Binary8p4uf", "SatNone", "RNE", -INF, NAN), ("Binary8p4ue", "SatNone", "RTO", INF, INF),
)  # fmt: skip
"""The largest value, infinity or NaN, by saturation, direction, sign and domain: what both revisions say."""

APART = (
    ("Binary8p4sf", "RNE", 1000.0, 240.0, NAN), ("Binary8p4sf", "RNE", -1000.0, -240.0, NAN),
    ("Binary8p4sf", "RNE", INF, 240.0, NAN), ("Binary8p4sf", "RTZ", -INF, -240.0, NAN),
    ("Binary8p4sf", "RUP", 1000.0, 240.0, NAN), ("Binary8p4uf", "RNE", 1e9, 57344.0, NAN),
    ("Binary8p4uf", "RTZ", INF, 57344.0, NAN), ("Binary8p4ue", "RTO", 1e6, 53248.0, INF),
    ("Binary4p2ue", "RTO", 8.0, 6.0, INF),
)  # fmt: skip
"""What interim report 4.0 and the model of July 2026 say of SatNone."""


def test_saturation_of_p3109_by_hand() -> None:
    """The rows of the two texts as numbers; a name without a revision means the later one."""
    for (name, rule, mode, x, expected), revision in itertools.product(BY_HAND, ["", *(f"@{r}" for r in REVISIONS)]):
        assert alike(reference.quantize(x, name + revision, mode, saturation=rule), expected), (name, rule, mode, x)
    for name, mode, x, *expected in APART:
        for revision, y in zip([*REVISIONS, ""], [*expected, expected[-1]], strict=True):
            spelled = f"{name}@{revision}".removesuffix("@")
            assert alike(reference.quantize(x, spelled, mode, saturation="SatNone"), y), (spelled, mode, x)
            assert alike(qsim.quantize(np.array([x]), spelled, mode, saturation="SatNone").item(), y), (
                spelled,
                mode,
                x,
            )


def test_revisions_by_name() -> None:
    """Every format of P3109 has both revisions by name, in spellings of roundings too; other formats have none."""
    for fmt in catalogue().values():
        names = [f"{fmt.name}@{revision}" for revision in REVISIONS]
        if fmt.family.startswith("Binary"):
            assert fmt.revision == REVISIONS[1]
            assert [get_format(name).revision for name in names] == REVISIONS
        else:
            assert not fmt.revision
            with pytest.raises(InputError, match=f"no variant of {fmt.name} is called 'p3109-4.0'"):
                get_format(names[0])
    q = Quantizer.parse("Binary8p4uf@p3109-4.0:RTO")
    assert (q.format.name, q.format.revision, q.mode.name, str(q.saturation)) == (
        "Binary8p4uf@p3109-4.0",
        "p3109-4.0",
        "RTO",
        "SatFinite",
    )
    assert str(Quantizer(q.format, saturation="SatNone")) == "Binary8p4uf@p3109-4.0:RNE, SatNone"
    assert str(Quantizer("Binary8p4uf", saturation="SatNone").saturation) == "OvfNaN"
