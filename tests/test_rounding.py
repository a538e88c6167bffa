"""The vocabulary of rounding: spellings, saturation rules, random words, and the whole of one rounding."""

from __future__ import annotations

import copy
import dataclasses
import itertools
import pickle
import re
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from qsim.errors import InputError
from qsim.formats import Format, get_format
from qsim.rounding import (
    SHARED_RANK,
    STREAM_FIELDS,
    Key,
    Mode,
    Quantizer,
    Saturation,
    parse_mode,
    parse_saturation,
    saturations,
    stream,
)

# --- Modes -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", Mode)
def test_modes_by_either_name(mode: Mode) -> None:
    """A mode is named by its alias, its canonical name or itself, and prints as its alias."""
    assert parse_mode(mode.name) is parse_mode(mode.value) is parse_mode(mode) is mode
    assert str(mode) == mode.name


def test_rtn_is_rne() -> None:
    """The training papers' RTN means round to nearest, ties to even, and is printed so."""
    assert str(parse_mode("RTN")) == "RNE"
    assert str(Quantizer.parse("e4m3:RTN")) == "float8_e4m3fn:RNE, SatFinite"


@pytest.mark.parametrize("mode", ["", "rne", "RNEE", "stochastic", "SRX"])
def test_unknown_modes_are_refused(mode: str) -> None:
    """Another name is refused with one that exists."""
    with pytest.raises(InputError, match=r"did you mean .*(R[A-Z]{2}|SR|Stochastic|ToOdd|Zero)"):
        parse_mode(mode)


def test_which_modes_are_stochastic() -> None:
    """The stochastic modes take a random word, the others none."""
    assert [mode.name for mode in Mode if mode.stochastic] == ["SRA", "SRB", "SRC", "SRE", "SR"]


def test_which_overflows_stay_inside() -> None:
    """An overflow becomes the extremum in the modes that never round beyond it, for the sign they do not."""
    assert [mode.name for mode in Mode if mode.inward(negative=False)] == ["RTZ", "RDN", "RTO"]
    assert [mode.name for mode in Mode if mode.inward(negative=True)] == ["RTZ", "RUP", "RTO"]


# --- Saturation ------------------------------------------------------------------------------------------------------

ALLOWED = {
    "float8_e5m2": ["SatNone", "SatFinite", "SatPropagate"],
    "bfloat16": ["SatNone", "SatFinite", "SatPropagate"],
    "float8_e4m3fn": ["SatFinite", "OvfNaN"],
    "e4m3fnuz": ["SatFinite", "OvfNaN"],
    "float4_e2m1fn": ["SatFinite"],
    "int8": ["saturate"],
}
"""The rules that make sense, the default first."""


@pytest.mark.parametrize(("fmt", "rule"), [*itertools.product(ALLOWED, Saturation)], ids=str)
def test_saturation_by_kind_of_format(fmt: str, rule: Saturation) -> None:
    """A rule that makes sense for a format is accepted by name; any other is refused with those that make sense."""
    allowed, target = ALLOWED[fmt], get_format(fmt)
    if rule.value in allowed:
        assert parse_saturation(rule.value, target) is parse_saturation(rule, target) is rule
    else:
        for spelling in (rule, rule.value):
            with pytest.raises(InputError, match=f"{rule} makes no sense for {fmt}; .*{allowed[0]}"):
                parse_saturation(spelling, target)


@pytest.mark.parametrize(("fmt", "allowed"), ALLOWED.items())
def test_saturation_defaults(fmt: str, allowed: list[str]) -> None:
    """Nothing said means infinity for formats that have one, and the largest value elsewhere."""
    target = get_format(fmt)
    assert [rule.value for rule in saturations(target)] == allowed
    assert parse_saturation(None, target).value == allowed[0]


def test_unknown_saturation_is_refused() -> None:
    """A rule that does not exist is refused with those of the format."""
    with pytest.raises(
        InputError, match="no saturation is called 'satfinite'; float8_e4m3fn takes SatFinite or OvfNaN"
    ):
        parse_saturation("satfinite", get_format("e4m3"))


# --- Random words ----------------------------------------------------------------------------------------------------

FIELDS = {name: st.integers(0, (1 << bits) - 1) for name, bits in STREAM_FIELDS.items()}


@given(st.fixed_dictionaries(FIELDS))
def test_stream_numbers_are_injective(fields: dict[str, int]) -> None:
    """The four fields can be read back from a stream number of 64 bits, so no two of them share one."""
    number = stream(**fields)
    assert 0 <= number < 1 << 64
    for name, bits in reversed(STREAM_FIELDS.items()):
        number, field = divmod(number, 1 << bits)
        assert field == fields[name]
    assert number == 0


@pytest.mark.parametrize(("name", "bits"), STREAM_FIELDS.items())
def test_stream_fields_have_bounds(name: str, bits: int) -> None:
    """The largest number of a field is taken, the next one and -1 are refused by name and value."""
    assert stream(**{name: (1 << bits) - 1})
    for number in (1 << bits, -1):
        with pytest.raises(InputError, match=f"{name} {number} does not fit the {bits} bits"):
            stream(**{name: number})


def test_shared_rank() -> None:
    """Without a rank all ranks share the words, and that differs from rank 0."""
    assert stream(3, 5, 7) == stream(3, 5, 7, SHARED_RANK) != stream(3, 5, 7, 0)
    assert sum(STREAM_FIELDS.values()) == 64


@pytest.mark.parametrize("name", ["seed", "stream", "offset"])
def test_keys_have_bounds(name: str) -> None:
    """A field of a key holds 64 bits; more, less than none, and what is no integer is refused by name."""
    fields = {"seed": 1, "stream": 2, "offset": 3}
    assert getattr(Key(**fields | {name: (1 << 64) - 1}), name) == (1 << 64) - 1
    for number in (1 << 64, -1, 1.0, "1", None):
        with pytest.raises(InputError, match=f"{name} of a Key .* not {number!r}"):
            Key(**fields | {name: number})  # type: ignore[arg-type]


# --- Quantizers ------------------------------------------------------------------------------------------------------


def test_short_form() -> None:
    """FORMAT:MODE and FORMAT spell a quantizer, and a quantizer spells itself."""
    q = Quantizer.parse("e5m2:SR")
    assert (q.format.name, q.mode, q.scale, q.saturation) == ("float8_e5m2", Mode.SR, "none", Saturation.SatNone)
    assert Quantizer.parse("int8") == Quantizer("int8", "RNE")
    assert Quantizer.parse(q) is q


@pytest.mark.parametrize("spelling", ["e4m4m:SR", "e4m3:XX", ":SR", "", "e4m3:SR:2"])
def test_wrong_short_forms_are_refused(spelling: str) -> None:
    """A short form without a format or with another mode is refused."""
    with pytest.raises(InputError, match="is called"):
        Quantizer.parse(spelling)


Q = Quantizer("e5m2", "SRA", sr_bits=8, scale="pow2", saturation="SatFinite")


def test_quantizers_are_values() -> None:
    """A quantizer cannot be changed, equals its copies, keys a dictionary, and prints everything in force."""
    with pytest.raises(dataclasses.FrozenInstanceError):
        Q.mode = Mode.RNE  # type: ignore[misc]
    for twin in (pickle.loads(pickle.dumps(Q)), copy.deepcopy(Q)):  # noqa: S301 - made a moment ago
        assert twin == Q
        assert {Q: 1}[twin] == 1
    assert Quantizer("e5m2", "SRA", sr_bits=9, scale="pow2", saturation="SatFinite") != Q
    assert str(Q) == "float8_e5m2:SRA(8), scale pow2, SatFinite"
    assert Q.describe() == {
        "format": "float8_e5m2", "mode": "SRA", "sr_bits": 8, "scale": "pow2", "saturation": "SatFinite",
    }  # fmt: skip


@pytest.mark.parametrize("scale", [0.5, 3, Fraction(1, 3), np.float32(0.25), "none", "pow2", "absmax"], ids=str)
def test_scales(scale: Any) -> None:
    """A scale is one of three names or a positive number of any kind."""
    assert Quantizer("e4m3", scale=scale).scale == scale


@pytest.mark.parametrize(
    ("arguments", "fragment"),
    [
        ({"mode": "SRA"}, "SRA needs sr_bits"),
        ({"mode": "SRA", "sr_bits": -1}, "sr_bits = -1"),
        ({"mode": "SRA", "sr_bits": 65}, "sr_bits = 65"),
        ({"mode": "SRA", "sr_bits": 8.0}, "sr_bits = 8.0"),
        ({"mode": "SR", "sr_bits": 8}, "sr_bits = 8 with SR"),
        ({"mode": "RNE", "sr_bits": 8}, "sr_bits = 8 with RNE"),
        ({"scale": "absmean"}, "'absmean'; it is none, pow2 or absmax"),
        ({"scale": 0}, "scale = 0 "),
        ({"scale": -1.0}, "scale = -1.0"),
        ({"scale": float("nan")}, "scale = nan"),
        ({"scale": float("inf")}, "scale = inf"),
        ({"scale": None}, "scale = None"),
        ({"scale": [1.0]}, "scale = [1.0]"),
        ({"saturation": "SatNone"}, "SatNone makes no sense for float8_e4m3fn"),
        ({"mode": "RNX"}, "RNX"),
    ],
    ids=str,
)
def test_senseless_quantizers_are_refused(arguments: dict[str, Any], fragment: str) -> None:
    """What makes no sense is refused in a sentence that names it."""
    with pytest.raises(InputError, match=re.escape(fragment)):
        Quantizer("e4m3", **arguments)


@pytest.mark.parametrize("bits", [0, 1, 64])
def test_numbers_of_random_bits(bits: int) -> None:
    """SRA takes from 0 to 64 random bits."""
    assert Quantizer("e4m3", "SRA", sr_bits=bits).sr_bits == bits


def test_formats_are_accepted_as_objects() -> None:
    """A format may be given itself, also one that has no name."""
    own = Format(
        name="mine", kind="float", bits=8, exp_bits=4, man_bits=3, emin=-6, top=126, bottom=126, specials="fn",
        nan_to="nan", source="a test",
    )  # fmt: skip
    assert str(Quantizer(own)) == "mine:RNE, SatFinite"
