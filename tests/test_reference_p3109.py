"""The definition against the text of IEEE P3109: projection, in every mode and saturation."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable
from fractions import Fraction
from typing import Any

import pytest
from alike import alike
from strategies import P3109, between

from qsim import reference
from qsim.formats import Format

INF, NAN = math.inf, math.nan


class Standard:
    """A format of IEEE P3109, by the text of the interim report 4.0: projection, in the words of its sections.

    A row that some texts between 3.x and 4.0 have, (SatNone, ToOdd, X, Unsigned) -> Mhi, is in no edition of 4.0.
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

    def round_to_precision(self, x: Fraction, mode: str, n: int, r: int) -> Fraction:
        """4.7.4: Q = max(floor(log2|X|), 1 - B) - P + 1, S = floor(|X| 2^-Q), one more if RoundAway."""
        if x == 0:
            return x
        exponent = abs(x).numerator.bit_length() - x.denominator.bit_length()
        exponent -= Fraction(2) ** exponent > abs(x)
        q = max(exponent, 1 - self.bias) - self.p + 1
        significand = abs(x) / Fraction(2) ** q
        whole = math.floor(significand)
        v = significand - whole
        even = whole % 2 == 0 if self.p > 1 else whole == 0 or (q + self.bias) % 2 == 0
        scaled = v * 2**n
        nearest = math.floor(scaled) + (
            scaled % 1 > Fraction(1, 2) or (scaled % 1 == Fraction(1, 2) and scaled // 1 % 2 == 1)
        )
        away = {
            "RTZ": False,
            "RUP": v > 0 and x > 0,
            "RDN": v > 0 and x < 0,
            "RNA": v >= Fraction(1, 2),
            "RNE": v > Fraction(1, 2) or (v == Fraction(1, 2) and not even),
            "RTO": v > 0 and even,
            "SRA": math.floor(v * 2**n) + r >= 2**n,
            "SRB": math.floor(v * 2 ** (n + 1)) + 2 * r + 1 >= 2 ** (n + 1),
            "SRC": nearest + r >= 2**n,
        }[mode]
        rounded = (whole + away) * Fraction(2) ** q
        return rounded if x > 0 else -rounded

    def saturate(self, rule: str, mode: str, x: Any) -> Any:
        """4.7.5, row by row in its order; the first that matches is it."""
        infinite = isinstance(x, float)
        if x is None or (not infinite and self.low <= x <= self.high):
            return x
        above, below = x > self.high, x < self.low
        match rule:
            case "SatFinite":
                return self.high if above else self.low
            case "SatPropagate":
                if x == INF:
                    return INF if self.extended else self.high
                if x == -INF:
                    return -INF if self.signed and self.extended else self.low
                return self.low if below else self.high
        if mode in {"RTZ", "RDN"} and above and x != INF:
            return self.high
        if mode in {"RTZ", "RUP"} and below and x != -INF:
            return self.low
        if not self.extended:
            return None
        if x == INF:
            return INF
        if x == -INF:
            return -INF if self.signed else None
        if below:
            return -INF if self.signed else None
        return INF

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


P3109_MODES = ["RNE", "RNA", "RTZ", "RUP", "RDN", "RTO", "SRA", "SRB", "SRC"]
"""The modes of P3109, by our aliases."""


def check_projection(fmt: Format, parts: int, n: int, at: Iterable[int]) -> None:
    """Hold every mode, word of `n` bits and saturation against the text, at points that divide some intervals."""
    standard = Standard(fmt.name)
    x: list[Any] = [*between(fmt, parts, at)]
    x += [sign * far * standard.high for sign in (1, -1) for far in (3, 1 << 40)]
    x += [None, INF, -INF, Fraction(0)]
    for mode in P3109_MODES:
        bits = n if mode.startswith("S") else 0
        for v, r in itertools.product(x, range(1 << bits)):
            rounded = standard.round_to_precision(v, mode, bits, r) if isinstance(v, Fraction) else v
            for rule in ("SatFinite", "SatPropagate", "SatNone"):
                expected = standard.encode(standard.saturate(rule, mode, rounded))
                given = NAN if v is None else v
                ours = reference.encode(given, fmt, mode, sr_bits=bits, rbits=r, saturation=rule)
                assert ours == expected, (fmt.name, v, mode, r, rule)
                if v == 0:  # -0 is 0 (4.8.1)
                    assert reference.encode(-0.0, fmt, mode, sr_bits=bits, rbits=r, saturation=rule) == expected == 0


@pytest.mark.parametrize("k", range(3, 9))
def test_projection_of_p3109(k: int) -> None:
    """Near zero, near the ends and beyond, every format of P3109 projects as the text says, in every mode and saturation."""
    for fmt in P3109:
        if fmt.bits == k:
            check_projection(
                fmt, 4, 1, [-fmt.top - 3, -fmt.top - 1, -fmt.top, -1, 0, 1, fmt.top - 1, fmt.top, fmt.top + 2]
            )


@pytest.mark.exhaustive
@pytest.mark.parametrize("fmt", P3109, ids=str)
def test_whole_projection_of_p3109(fmt: Format) -> None:
    """The same at all eighths of all intervals, with 2 random bits, and negative numbers as far as there are positive ones."""
    check_projection(fmt, 8, 2, range(-fmt.top - 2, fmt.top + 2))


def test_saturation_of_p3109_by_hand() -> None:
    """The rows of 4.7.5 as numbers: the largest value, infinity or NaN, by saturation, direction, sign and domain."""
    big, low = 1e9, -1e9
    for name, rule, mode, x, expected in (
        ("Binary8p4se", "SatNone", "RNE", big, INF), ("Binary8p4se", "SatNone", "RTZ", big, 224.0),
        ("Binary8p4se", "SatNone", "RDN", big, 224.0), ("Binary8p4se", "SatNone", "RUP", big, INF),
        ("Binary8p4se", "SatNone", "RTO", big, INF), ("Binary8p4se", "SatNone", "RUP", low, -224.0),
        ("Binary8p4se", "SatNone", "RDN", low, -INF), ("Binary8p4se", "SatNone", "RTZ", INF, INF),
        ("Binary8p4se", "SatPropagate", "RNE", big, 224.0), ("Binary8p4se", "SatPropagate", "RTZ", -INF, -INF),
        ("Binary8p4se", "SatFinite", "RUP", INF, 224.0), ("Binary8p4sf", "SatNone", "RNE", big, NAN),
        ("Binary8p4sf", "SatNone", "RTZ", big, 240.0), ("Binary8p4sf", "SatNone", "RTZ", INF, NAN),
        ("Binary8p4sf", "SatPropagate", "RNE", INF, 240.0), ("Binary8p4ue", "SatNone", "RNE", -1.0, NAN),
        ("Binary8p4ue", "SatNone", "RTZ", -1.0, 0.0), ("Binary8p4ue", "SatNone", "RUP", -1.0, 0.0),
        ("Binary8p4ue", "SatNone", "RDN", -1.0, NAN), ("Binary8p4ue", "SatNone", "RDN", -1e-30, NAN),
        ("Binary8p4ue", "SatNone", "RNE", -1e-30, 0.0), ("Binary8p4ue", "SatNone", "RTZ", -INF, NAN),
        ("Binary8p4ue", "SatPropagate", "RNE", -INF, 0.0), ("Binary8p4ue", "SatFinite", "RDN", -1.0, 0.0),
        ("Binary8p4uf", "SatNone", "RNE", -1.0, NAN), ("Binary8p4uf", "SatNone", "RTZ", -1.0, 0.0),
    ):  # fmt: skip
        assert alike(reference.quantize(x, name, mode, saturation=rule), expected), (name, rule, mode, x)
