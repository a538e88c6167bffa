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
from qsim.formats import catalogue, float_format, get_format, table_format
from qsim.rounding import (
    ORDERS,
    SHARED_RANK,
    STREAM_FIELDS,
    Key,
    Mode,
    Quantizer,
    Saturation,
    check_eps,
    mode_fields,
    parse_mode,
    parse_saturation,
    saturations,
    split_spelling,
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


@pytest.mark.parametrize("mode", ["", "RNEE", "nearer", "SRX"])
def test_unknown_modes_are_refused(mode: str) -> None:
    """Another name is refused with one that exists."""
    with pytest.raises(InputError, match=r"did you mean .*(R[A-Z]{2}|SR|Stochastic|ToOdd|Zero)"):
        parse_mode(mode)


def test_which_modes_are_stochastic() -> None:
    """The stochastic modes take a random word, the others none."""
    assert [mode.name for mode in Mode if mode.stochastic] == ["SRA", "SRB", "SRC", "SRE", "SR"]


def test_which_overflows_stay_inside() -> None:
    """An overflow becomes the extremum in the modes that never round beyond it, for the sign they do not.

    To odd is one of them in interim report 4.0 of P3109, for the unsigned formats with infinity, whose last code is odd.
    """
    for name in (
        "e4m3",
        "int8",
        "Binary8p4se",
        "Binary8p4ue",
        "Binary8p4uf",
        "Binary8p4se@p3109-4.0",
        "Binary8p4uf@p3109-4.0",
    ):
        fmt = get_format(name)
        assert [mode.name for mode in Mode if mode.inward(fmt, negative=False)] == ["RTZ", "RDN"]
        assert [mode.name for mode in Mode if mode.inward(fmt, negative=True)] == ["RTZ", "RUP"]
    fmt = get_format("Binary8p4ue@p3109-4.0")
    assert [mode.name for mode in Mode if mode.inward(fmt, negative=False)] == ["RTZ", "RDN", "RTO"]
    assert [mode.name for mode in Mode if mode.inward(fmt, negative=True)] == ["RTZ", "RUP"]


def test_there_is_every_mode() -> None:
    """The modes of the field are there, in order."""
    names = "RNE RNA RNZ RNP RNN RTZ RUP RDN RAZ RTO SRA SRB SRC SRE SR THR"
    assert [mode.name for mode in Mode] == names.split()
    assert parse_mode("Threshold") is Mode.THR


# --- Saturation ------------------------------------------------------------------------------------------------------

OWN_TABLE = table_format("with a NaN", [0.0, 1.0, float("nan")], "a test")

ALLOWED = {
    "float8_e5m2": ["SatNone", "SatFinite", "SatPropagate"],
    "bfloat16": ["SatNone", "SatFinite", "SatPropagate"],
    "Binary8p4se": ["SatNone", "SatFinite", "SatPropagate"],
    "Binary8p4ue": ["SatNone", "SatFinite", "SatPropagate"],
    "Binary8p4sf": ["SatFinite", "OvfNaN", "InfNaN"],
    "Binary8p4uf": ["SatFinite", "OvfNaN", "InfNaN"],
    "Binary8p4se@p3109-4.0": ["SatNone", "SatFinite", "SatPropagate"],
    "Binary8p4sf@p3109-4.0": ["SatFinite", "SatNone", "OvfNaN", "InfNaN"],
    "Binary8p4uf@p3109-4.0": ["SatFinite", "SatNone", "OvfNaN", "InfNaN"],
    "Binary8p4uf@p3109-2026-07": ["SatFinite", "OvfNaN", "InfNaN"],
    "float8_e4m3fn": ["SatFinite", "OvfNaN", "InfNaN"],
    "float8_e4m3fnuz": ["SatFinite", "OvfNaN", "InfNaN"],
    "float8_e8m0fnu": ["SatFinite", "OvfNaN", "InfNaN"],
    "float8_e8m0fnu@cuda": ["SatFinite", "OvfNaN", "InfNaN"],
    "float8_e8m0fnu@torch": ["OvfNaN", "SatFinite", "InfNaN"],
    "float8_e5m2@cuda": ["SatFinite", "SatNone", "SatPropagate"],
    "dlfloat16": ["SatFinite", "OvfNaN", "InfNaN"],
    "float4_e2m1fn": ["SatFinite"],
    "e3m3fu": ["SatFinite"],
    "posit8": ["InfNaN", "SatFinite", "OvfNaN"],
    "nf4": ["SatFinite"],
    "int8": ["saturate", "wrap"],
    "uint8": ["saturate", "wrap"],
    "Q3.4": ["saturate", "wrap"],
    "UQ0.8": ["saturate", "wrap"],
    "int8sym": ["saturate"],
    "ternary": ["saturate"],
}
"""The rules that make sense, the default first."""

SYNONYMS = {"SatNone": "OvfNaN", "SatPropagate": "SatFinite"}
"""What these names of P3109 stand for in a format with a NaN and without infinity, unless it takes them itself."""


@pytest.mark.parametrize(("fmt", "rule"), [*itertools.product(ALLOWED, Saturation)], ids=str)
def test_saturation_by_kind_of_format(fmt: str, rule: Saturation) -> None:
    """A rule that makes sense for a format is accepted by name; any other is refused with those that make sense.

    P3109's rules make sense for every format with a NaN; without infinity SatPropagate is SatFinite, and SatNone OvfNaN, as
    the formal model of July 2026 has it for P3109's own, but for the formats of interim report 4.0.
    """
    allowed, target = ALLOWED[fmt], get_format(fmt)
    spellings = (rule, rule.value)
    if rule.value in allowed:
        assert {parse_saturation(spelling, target) for spelling in spellings} == {rule}
    elif "OvfNaN" in allowed and rule.value in SYNONYMS:
        assert {parse_saturation(spelling, target).value for spelling in spellings} == {SYNONYMS[rule.value]}
    else:
        for spelling in spellings:
            with pytest.raises(InputError, match=f"{rule} makes no sense for {fmt}; .*{allowed[0]}"):
                parse_saturation(spelling, target)


@pytest.mark.parametrize(("fmt", "allowed"), ALLOWED.items())
def test_saturation_defaults(fmt: str, allowed: list[str]) -> None:
    """Nothing said means infinity for formats that have one, NaN for that of a posit, and the largest value elsewhere."""
    target = get_format(fmt)
    assert [rule.value for rule in saturations(target)] == allowed
    assert parse_saturation(None, target).value == allowed[0]


def test_every_format_has_rules() -> None:
    """The rules of a format follow from its kind, its infinities and its NaN; one of its own is no exception."""
    for fmt in (*catalogue().values(), OWN_TABLE):
        rules = [rule.value for rule in saturations(fmt)]
        if fmt.kind in ("integer", "fixed"):
            assert rules == (["saturate"] if "sym" in fmt.name or fmt.name == "ternary" else ["saturate", "wrap"])
        elif fmt.has_inf:
            assert rules == ["SatNone", "SatFinite", "SatPropagate"]
        else:
            expected = ["SatFinite", "OvfNaN", "InfNaN"] if fmt.has_nan else ["SatFinite"]
            assert rules == (expected[2:] + expected[:2] if fmt.name == "posit8" else expected)


def test_unknown_saturation_is_refused() -> None:
    """A rule that does not exist is refused with those of the format."""
    with pytest.raises(
        InputError, match="no saturation is called 'satfinite'; float8_e4m3fn takes SatFinite, OvfNaN or InfNaN"
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
    for number in (1 << 64, -1):
        with pytest.raises(InputError, match=f"{name} of a Key .* not {number!r}"):
            Key(**fields | {name: number})
    for other in (1.0, "1", None, True):
        with pytest.raises(InputError, match=f"{name} of a Key = {other!r} must be an integer"):
            Key(**fields | {name: other})  # type: ignore[arg-type]


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


@pytest.mark.parametrize(
    ("spelling", "mode", "fields"),
    [
        ("e4m3:SRA(8)", "SRA", {"sr_bits": 8}),
        ("e4m3:StochasticC(0)", "SRC", {"sr_bits": 0}),
        ("int8:Threshold(0.25)", "THR", {"eps": 0.25}),
        ("int8:THR(0)", "THR", {"eps": 0.0}),
        ("int8:THR(1e-3)", "THR", {"eps": 0.001}),
        ("Q3.4:RNE", "RNE", {}),
    ],
)
def test_arguments_in_brackets(spelling: str, mode: str, fields: dict[str, Any]) -> None:
    """The number of random bits and the threshold stand in brackets; the short form is what a quantizer prints first."""
    q = Quantizer.parse(spelling)
    assert q == Quantizer(spelling.split(":", maxsplit=1)[0], mode, **fields)
    assert {"sr_bits": q.sr_bits, "eps": q.eps} == {"sr_bits": None, "eps": None, **fields}
    assert Quantizer.parse(str(q).split(",")[0]) == q


@pytest.mark.parametrize(
    ("mode", "fragment"),
    [
        ("SRA", "SRA needs sr_bits"),
        ("SRA()", "'SRA()'; such a spelling is SRA(8) or Threshold(0.25)"),
        ("SRA(8.0)", "'SRA(8.0)'"),
        ("SRA(x)", "'SRA(x)'"),
        ("SRA(65)", "sr_bits = 65"),
        ("SR(8)", "sr_bits = 8 with SR"),
        ("RNE(8)", "sr_bits = 8 with RNE"),
        ("Threshold", "Threshold needs eps, 0 <= eps < 1, as in Threshold(0.25)"),
        ("Threshold(half)", "'Threshold(half)'"),
        ("Threshold(1)", "eps = 1.0"),
        ("SRA(8", "'SRA(8'"),
        ("SRA(8))", "'SRA(8))'"),
        ("XX(8)", "'XX'"),
    ],
)
def test_wrong_brackets_are_refused(mode: str, fragment: str) -> None:
    """A mode with an argument that is none, or that is not its own, is refused."""
    with pytest.raises(InputError, match=re.escape(fragment)):
        Quantizer.parse(f"int8:{mode}")


@pytest.mark.parametrize(
    ("spelling", "parts"),
    [
        ("e4m3:SR", ("e4m3", "SR")),
        ("e4m3", ("e4m3", "")),
        ("a.toml#b:SRA(8)", ("a.toml#b", "SRA(8)")),
        ("a.toml", ("a.toml", "")),
        ("C:/x/a.toml#b", ("C:/x/a.toml#b", "")),
        ("C:/x/a.toml#b:RNE", ("C:/x/a.toml#b", "RNE")),
        ("C:/x/a.toml:RNE", ("C:/x/a.toml", "RNE")),
    ],
)
def test_where_a_mode_begins(spelling: str, parts: tuple[str, str]) -> None:
    """A mode stands behind the last colon, unless that belongs to a path."""
    assert split_spelling(spelling) == parts


def test_modes_with_and_without_brackets() -> None:
    """A mode's spelling gives the fields of a quantizer."""
    assert mode_fields("TowardZero") == {"mode": Mode.RTZ}
    assert mode_fields("SRB(3)") == {"mode": Mode.SRB, "sr_bits": 3}
    assert mode_fields("THR(0.5)") == {"mode": Mode.THR, "eps": 0.5}


# --- Thresholds ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "eps", [0, 0.0, 0.25, 1 / 3, 2.0**-64, 1 - 2.0**-53, Fraction(1, 4), np.float32(0.1), 2.0**-12 * 1.1]
)
def test_thresholds(eps: Any) -> None:
    """A threshold is a number in [0, 1) of any kind, a multiple of 2^-64."""
    check_eps(eps)
    assert Quantizer("e4m3", "Threshold", eps=eps).eps == eps


@pytest.mark.parametrize(
    ("eps", "fragment"),
    [
        (1, "0 <= eps < 1; RDN is the rounding that never goes up"),
        (1.5, "eps = 1.5"),
        (-0.25, "eps = -0.25"),
        (float("nan"), "eps = nan"),
        (float("inf"), "eps = inf"),
        (True, "eps = True"),
        ("0.5", "eps = '0.5'"),
        ([0.5], "eps = [0.5]"),
        (2.0**-65, "no multiple of 2^-64"),
        (2.0**-13 * (1 + 2.0**-52), "no multiple of 2^-64"),
    ],
    ids=str,
)
def test_wrong_thresholds_are_refused(eps: Any, fragment: str) -> None:
    """What is no threshold, or one finer than a comparison of 64-bit fractions, is refused."""
    with pytest.raises(InputError, match=re.escape(fragment)):
        Quantizer("e4m3", "Threshold", eps=eps)


# --- Everything in force ---------------------------------------------------------------------------------------------

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


ALL = Quantizer(
    "e4m3", "Threshold", eps=0.25, scale="absmean", per="channel", order="exact", saturation="OvfNaN", ftz_in=True,
    ftz_out=True, nan="signed",
)  # fmt: skip


def test_everything_is_printed() -> None:
    """What differs from most roundings is printed and described, each with its name."""
    assert str(ALL) == (
        "float8_e4m3fn:THR(0.25), scale absmean, per channel, order exact, OvfNaN, ftz_in, ftz_out after, signed NaN"
    )
    assert ALL.describe() == {
        "format": "float8_e4m3fn", "mode": "THR", "sr_bits": None, "scale": "absmean", "saturation": "OvfNaN", "eps": 0.25,
        "per": "channel", "order": "exact", "ftz_in": True, "ftz_out": "after", "nan": "signed",
    }  # fmt: skip
    fields = ALL.describe()
    assert Quantizer(**fields) == ALL


FIELDS_OF_A_QUANTIZER = {
    "format": "e4m3fnuz", "mode": "RTZ", "scale": "absmax", "per": "tensor", "order": "divide", "saturation": "SatFinite",
    "ftz_in": False, "ftz_out": False, "nan": "canonical", "eps": 0.5,
}  # fmt: skip


@pytest.mark.parametrize("field", FIELDS_OF_A_QUANTIZER)
def test_every_field_tells_quantizers_apart(field: str) -> None:
    """Quantizers that differ in one field differ, in what they print as well."""
    given = {key: getattr(ALL, key) for key in FIELDS_OF_A_QUANTIZER} | {field: FIELDS_OF_A_QUANTIZER[field]}
    if field == "mode":
        given["eps"] = None
    other = Quantizer(**given)
    assert other != ALL
    assert str(other) != str(ALL)
    assert other.describe() != ALL.describe()


@pytest.mark.parametrize(
    "scale",
    [0.5, 3, Fraction(1, 3), np.float32(0.25), np.float64(3), "none", "pow2", "absmax", "absmean", "absmax_nearest"],
    ids=str,
)
def test_scales(scale: Any) -> None:
    """A scale is one of five names or a positive number of any kind."""
    assert Quantizer("e4m3", scale=scale).scale == (scale if isinstance(scale, str) else float(scale))


@pytest.mark.parametrize("per", ["tensor", "sample", "channel", "token", 0, -1, 3, (0, 2), (1,)], ids=str)
def test_who_shares_a_scale(per: Any) -> None:
    """A scale is shared as one of four words says, or by one index of an axis, or of several."""
    assert Quantizer("e4m3", scale="absmax", per=per).per == per


@pytest.mark.parametrize("order", ORDERS)
def test_orders(order: Any) -> None:
    """Each order of operations is stated in words."""
    assert Quantizer("e4m3", scale=0.3, order=order).order == order
    assert ORDERS[order]


@pytest.mark.parametrize(
    ("arguments", "fragment"),
    [
        ({"mode": "SRA"}, "SRA needs sr_bits"),
        ({"mode": "SRA", "sr_bits": -1}, "sr_bits = -1"),
        ({"mode": "SRA", "sr_bits": 65}, "sr_bits = 65"),
        ({"mode": "SRA", "sr_bits": 8.0}, "sr_bits = 8.0"),
        ({"mode": "SRA", "sr_bits": True}, "sr_bits = True"),
        ({"mode": "SR", "sr_bits": 8}, "sr_bits = 8 with SR"),
        ({"mode": "SRE", "sr_bits": 8}, "sr_bits = 8 with SRE"),
        ({"mode": "RNE", "sr_bits": 8}, "sr_bits = 8 with RNE"),
        ({"mode": "Threshold"}, "Threshold needs eps, 0 <= eps < 1, as in Threshold(0.25)"),
        ({"mode": "RNE", "eps": 0.5}, "eps = 0.5 with RNE"),
        ({"mode": "Threshold", "eps": 0.5, "sr_bits": 3}, "sr_bits = 3 with THR"),
        ({"scale": "absmin"}, "'absmin'; it is none, pow2, absmax, absmax_nearest or absmean, or a"),
        ({"scale": 0}, "scale = 0 "),
        ({"scale": -1.0}, "scale = -1.0"),
        ({"scale": float("nan")}, "scale = nan"),
        ({"scale": float("inf")}, "scale = inf"),
        ({"scale": None}, "scale = None"),
        ({"scale": True}, "scale = True"),
        ({"scale": [1.0]}, "scale = [1.0]"),
        ({"per": "row"}, "per = 'row'; it is tensor, sample, channel or token, or the number of an axis"),
        ({"per": 1.0}, "per = 1.0"),
        ({"per": True}, "per = True"),
        ({"per": ()}, "per = ()"),
        ({"per": (0, "token")}, "per = (0, 'token')"),
        ({"per": None}, "per = None"),
        ({"per": [0]}, "per = [0]"),
        ({"order": "multiply"}, "'multiply'; it is divide, reciprocal, exact or input"),
        ({"order": None}, "None; it is divide, reciprocal, exact or input"),
        ({"nan": "quiet"}, "nan = 'quiet'; it is canonical, signed or signed_overflow"),
        ({"ftz_in": 1}, "ftz_in = 1 must be True or False"),
        ({"ftz_out": "yes"}, "ftz_out = 'yes'; it is 'after', 'before' or 'result', True (which is 'after') or False"),
        ({"saturation": "saturate"}, "saturate makes no sense for float8_e4m3fn"),
        ({"saturation": "wrap"}, "wrap makes no sense for float8_e4m3fn"),
        ({"mode": "RNX"}, "RNX"),
        ({"mode": None}, "None"),
    ],
    ids=str,
)
def test_senseless_quantizers_are_refused(arguments: dict[str, Any], fragment: str) -> None:
    """What makes no sense is refused in a sentence that names it."""
    with pytest.raises(InputError, match=re.escape(fragment)) as caught:
        Quantizer("e4m3", **arguments)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("bits", [0, 1, 64])
def test_numbers_of_random_bits(bits: int) -> None:
    """SRA takes from 0 to 64 random bits."""
    assert Quantizer("e4m3", "SRA", sr_bits=bits).sr_bits == bits


def test_formats_are_accepted_as_objects() -> None:
    """A format may be given itself, also one that has no name."""
    own = float_format("mine", 4, 3, "fn", "a test", bias=5)
    assert str(Quantizer(own)) == "mine:RNE, SatFinite"
    assert str(Quantizer(OWN_TABLE, "RTZ", saturation="SatNone")) == "with a NaN:RTZ, OvfNaN"
