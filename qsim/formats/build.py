"""From the few fields that define a format to the `Format`: floats, integers, fixed point, P3109, tables."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any, Literal, get_args

from qsim.errors import InputError, enumerate_names
from qsim.formats.format import SPECIALS, WIDEST_TABLE, Format, Grid, Nans, NanTo, Specials, Table

__all__ = [
    "REVISIONS", "SUBNORMALS", "SUFFIX", "fixed_format", "float_format", "integer_format", "p3109_format", "posit_format",
    "table_format", "variant_format", "why_not_float",
]  # fmt: skip

SUFFIX: Mapping[str, Specials] = {"": "ieee", "fn": "fn", "fnuz": "fnuz", "f": "f"}
"""The letters of a parametric spelling."""

Subnormals = Literal["gradual", "normal", "half"]

SUBNORMALS: Mapping[str, str] = {
    "gradual": "exponent field 0 means 0.m 2^(1 - bias), as in IEEE 754",
    "normal": "exponent field 0 means 1.m 2^(-bias), but for m = 0, which is zero (DLFloat)",
    "half": "exponent field 0 means 0.m 2^(-bias), as the CFloat8 whitepaper prints it: a gap below the smallest normal number",
}

REVISIONS: Mapping[str, str] = {
    "p3109-2026-07": "SatNone makes NaN of what overflows a finite format, and of its infinities",
    "p3109-4.0": (
        "SatNone makes the extremum of what overflows a finite format, and of its infinities, but NaN of a negative number "
        "and an unsigned format; ToOdd does not overflow an unsigned extended format"
    ),
}
"""The texts of IEEE P3109 whose projections differ, the default first."""


def float_format(
    name: str,
    exp_bits: int,
    man_bits: int,
    specials: Specials,
    source: str,
    aliases: tuple[str, ...] = (),
    *,
    bias: int | None = None,
    signed: bool = True,
    zero: bool = True,
    subnormals: Subnormals = "gradual",
    family: str = "",
    revision: str = "",
    **cannot_hold: Any,
) -> Grid:
    """Return the float format of these fields; raise `InputError` if they contradict each other.

    `bias` is by default 2^(exp_bits - 1) - 1, one more for "fnuz" and "extended". With `signed` false there is no sign bit;
    with `zero` false, for unsigned formats, the code 0 is the smallest power of two (E8M0). `subnormals` says what exponent
    field 0 means, see `SUBNORMALS`; all but "gradual" leave a gap, for which there are 16 bits at most. `family`, `nan_to`,
    `negative_to`, `zero_to` and the rest are as in `Format`.
    """
    if specials not in SPECIALS:
        raise InputError(f"{name}: specials {specials!r} is not one of {enumerate_names(SPECIALS)}")
    problem = why_not_float(exp_bits, man_bits, specials, signed=signed)
    if problem:
        unsigned = "" if signed else "u"
        possible = [
            f"e{exp_bits}m{man_bits}{letters}{unsigned}"
            for letters, special in SUFFIX.items()
            if not why_not_float(exp_bits, man_bits, special, signed=signed)
        ]
        raise InputError(f"{name}: {problem}" + (f"; {enumerate_names(possible)} can exist" if possible else ""))
    if subnormals not in SUBNORMALS:
        raise InputError(f"{name}: subnormals {subnormals!r} is not one of {enumerate_names(SUBNORMALS)}")
    if not zero and (signed or man_bits or subnormals != "gradual"):
        raise InputError(f"{name}: only an unsigned format without mantissa bits can do without a zero")
    if subnormals != "gradual" and not man_bits:
        raise InputError(f"{name}: without mantissa bits there are no subnormals to be {subnormals!r}")
    bits = signed + exp_bits + man_bits
    if subnormals != "gradual" and bits > WIDEST_TABLE:
        raise InputError(
            f"{name}: {subnormals!r} subnormals leave a gap, and formats with a gap are rounded by a list of their values, "
            f"so that they have at most {WIDEST_TABLE} bits, not {bits}"
        )
    if bias is None:
        bias = (1 << (exp_bits - 1)) - (specials not in ("fnuz", "extended"))
    if not -4096 <= bias <= 32768:
        raise InputError(f"{name}: bias {bias} is beyond -4096 .. 32768, far outside the exponents of a float64")
    codes = 1 << (exp_bits + man_bits)  # magnitudes, from zero
    all_ones = {"ieee": 1 << man_bits, "fn": 1, "fnuz": 0, "f": 0, "extended": 1 if signed else 2}[specials]
    top = codes - all_ones - 1
    inf_code = {"ieee": codes - (1 << man_bits), "extended": top + 1}.get(specials)
    nan_code = {
        "ieee": codes - (1 << man_bits) // 2,  # the quiet NaN without payload
        "fn": codes - 1,
        "fnuz": codes,  # the code of -0
        "extended": codes if signed else codes - 1,
    }.get(specials)
    whole = 1 << man_bits
    cannot_hold = _cannot_hold(
        name, cannot_hold, nan=nan_code is not None, signed=signed, zero=zero,
        neg_zero=signed and specials in ("ieee", "fn", "f"), default="max",
    )  # fmt: skip
    return Grid(
        name=name, kind="float", bits=bits, exp_bits=exp_bits, man_bits=man_bits,
        emin=(1 - bias if subnormals == "gradual" else -bias) - (not zero), top=top + (not zero),
        bottom=top if signed else -int(not zero), specials=specials, nan_code=nan_code, inf_code=inf_code,
        has_zero=zero, has_neg_zero=signed and specials in ("ieee", "fn", "f"), source=source, aliases=aliases,
        family=family, gap=0 if subnormals == "gradual" else whole, gap_at=whole - 1 if subnormals == "half" else 0,
        revision=revision, **cannot_hold,
    )  # fmt: skip


def why_not_float(exp_bits: int, man_bits: int, specials: Specials, *, signed: bool = True) -> str:
    """Say why no float format has these fields; "" if one can."""
    if not 1 <= exp_bits <= 16 or not 0 <= man_bits <= 52 or exp_bits + man_bits > 63:
        return f"needs 1 to 11 exponent bits and 0 to 52 mantissa bits, not {exp_bits} and {man_bits}"
    if exp_bits > 11 and specials not in ("fn", "fnuz", "extended"):  # P3109 has up to 16
        return f"needs 1 to 11 exponent bits and 0 to 52 mantissa bits, not {exp_bits} and {man_bits}"
    if specials == "ieee" and (exp_bits < 2 or man_bits < 1):
        return "IEEE-like specials need 2 exponent bits, for a finite normal value, and 1 mantissa bit, for a NaN"
    if specials in ("fn", "extended") and exp_bits + man_bits < 2:
        return "no positive value is left beside the special ones"
    if specials == "fnuz" and not signed:
        return "a format without sign has no code of -0 for NaN to take"
    return ""


def p3109_format(
    width: int, precision: int, *, signed: bool, extended: bool, source: str, family: str = "", revision: str = ""
) -> Grid:
    """Return IEEE P3109's Binary{K}p{P}{s|u}{e|f}: K = `width` bits, precision P, one zero, one NaN.

    The bias is 2^(K - P - 1), or 2^(K - P) without sign. NaN is the code of -0, or all ones without sign; the infinities of
    an extended format are the largest codes below it. `revision` is one of `REVISIONS`, by default the first.
    """
    domain = "e" if extended else "f"
    name = f"Binary{width}p{precision}{'s' if signed else 'u'}{domain}"
    if not 3 <= width <= 16 or not 1 <= precision <= width - signed:
        raise InputError(f"no format is called {name!r}: K is 3 to 16, and P 1 to {'K - 1' if signed else 'K'}")
    specials: Specials = "extended" if extended else ("fnuz" if signed else "fn")
    exp_bits = width - precision + (not signed)
    revision = revision or next(iter(REVISIONS))
    if revision not in REVISIONS:
        raise InputError(f"{name}: revision {revision!r} is not one of {enumerate_names(REVISIONS)}")
    return float_format(
        name, exp_bits, precision - 1, specials, source, bias=1 << (exp_bits - 1), signed=signed, family=family,
        revision=revision,
    )  # fmt: skip


def integer_format(
    name: str,
    bits: int,
    source: str,
    aliases: tuple[str, ...] = (),
    *,
    signed: bool = True,
    symmetric: bool = False,
    frac_bits: int = 0,
    family: str = "",
    **cannot_hold: Any,
) -> Grid:
    """Return the integer of `bits` bits, in two's complement if `signed`; `symmetric` leaves out the most negative value.

    With `frac_bits` it is a fixed-point number: code times 2^-frac_bits.
    """
    if not 2 - (not signed) <= bits <= 32:
        raise InputError(f"{name}: integers have 2 to 32 bits (1 to 32 without sign), not {bits}")
    if symmetric and not signed:
        raise InputError(f"{name}: an unsigned integer cannot be symmetric")
    if not -1000 <= frac_bits <= 1000:
        raise InputError(f"{name}: {frac_bits} fraction bits are far outside the exponents of a float64")
    man_bits = bits - signed
    top = (1 << man_bits) - 1
    return Grid(
        name=name, kind="fixed" if frac_bits else "integer", bits=bits, exp_bits=0, man_bits=man_bits,
        emin=man_bits - frac_bits, top=top, bottom=top + (not symmetric) if signed else 0, specials="", nan_code=None,
        inf_code=None, has_zero=True, has_neg_zero=False, source=source, aliases=aliases, family=family,
        **_cannot_hold(name, cannot_hold, nan=False, signed=signed, zero=True, neg_zero=False, default="zero"),
    )  # fmt: skip


def fixed_format(name: str, int_bits: int, frac_bits: int, source: str, *, signed: bool) -> Grid:
    """Return the fixed-point format Qm.n (sign + m + n bits) or UQm.n (m + n bits): m = `int_bits`, n = `frac_bits`."""
    if not 1 <= int_bits + frac_bits <= 32 - signed:
        least = "at least one bit beside the sign" if signed else "at least one bit"
        raise InputError(f"no format is called {name!r}: it needs {least}, and 32 at most in all")
    return integer_format(name, signed + int_bits + frac_bits, source, signed=signed, frac_bits=frac_bits)


def table_format(
    name: str,
    values: Sequence[float],
    source: str,
    aliases: tuple[str, ...] = (),
    *,
    codes: Sequence[int] | None = None,
    bits: int | None = None,
    above: float | None = None,
    below: float | None = None,
    thresholds: Sequence[float] = (),
    family: str = "",
    saturation: str = "",
    **cannot_hold: Any,
) -> Table:
    """Return the format of any finite list of float64 values; value i has code i, or `codes[i]`; a NaN marks the NaN's code.

    `bits` is by default as many as the largest code needs. `above` and `below` say where the line would go on beyond the
    ends, for the rounding of numbers between; by default everything beyond an end is out of range. `thresholds` say where a
    rounding to nearest turns between each two values, in ascending order; by default in the middle. `nan_to`, `negative_to`,
    `zero_to` and `saturation` are as in `Format`; `zero_to` must be given where 0 lies between two values and is none.
    """
    codes = range(len(values)) if codes is None else codes
    if len(codes) != len(values) or len(set(codes)) != len(values):
        raise InputError(f"{name}: {len(values)} values need as many codes, all different; there are {len(set(codes))}")
    if bits is None:
        bits = max(max(codes, default=0).bit_length(), 1)
    if not 1 <= bits <= WIDEST_TABLE or not all(0 <= code < 1 << bits for code in codes):
        raise InputError(f"{name}: codes of {bits} bits are 0 .. {(1 << min(max(bits, 1), WIDEST_TABLE)) - 1}")
    nans = [code for value, code in zip(values, codes, strict=True) if math.isnan(value)]
    pairs = sorted((value, code) for value, code in zip(values, codes, strict=True) if not math.isnan(value))
    points = tuple(value + 0.0 for value, _ in pairs)  # + 0.0 makes -0 a plain 0
    if any(map(math.isinf, points)) or len(nans) > 1:
        raise InputError(f"{name}: a table has finite values, and at most one NaN")
    if len(points) < 2 or len(set(points)) != len(points):
        raise InputError(f"{name}: a table has at least two values, all different")
    if (above is not None and not points[-1] < above < math.inf) or (
        below is not None and not -math.inf < below < points[0]
    ):
        raise InputError(f"{name}: above and below are finite and lie beyond the values, not {above!r} and {below!r}")
    if thresholds and len(thresholds) != len(points) - 1:
        raise InputError(
            f"{name}: {len(points)} values have {len(points) - 1} thresholds between them, not {len(thresholds)}"
        )
    for low, turn, high in zip(points, thresholds, points[1:], strict=False):
        if not low <= turn <= high:
            raise InputError(
                f"{name}: the threshold {turn!r} does not lie between {low!r} and {high!r}, its neighbours"
            )
    bottom = sum(value < 0 for value in points)
    zero = 0.0 in points
    if points[0] < 0 < points[-1] and not zero and cannot_hold.get("zero_to") is None:
        choices = [f"'min' ({points[0]!r})", f"'max' ({points[-1]!r})", *(["'nan'"] if nans else [])]
        raise InputError(
            f"{name}: 0 is no value, and lies between two; zero_to says which it becomes, {enumerate_names(choices)}"
        )
    return Table(
        name=name, kind="table", bits=bits, top=len(points) - bottom - 1, bottom=bottom, points=points,
        codes=tuple(code for _, code in pairs), nan_code=nans[0] if nans else None, inf_code=None, has_zero=zero,
        has_neg_zero=False, above=above, below=below, thresholds=tuple(turn + 0.0 for turn in thresholds), source=source,
        aliases=aliases, family=family, saturation=saturation,
        **_cannot_hold(
            name, cannot_hold, nan=bool(nans), signed=bottom > 0, zero=zero, neg_zero=False,
            default="zero" if zero else "max",
        ),
    )  # fmt: skip


def posit_format(name: str, bits: int, source: str, aliases: tuple[str, ...] = (), *, family: str = "") -> Table:
    """Return the posit of `bits` bits, with 2 exponent bits; its codes are two's complement, and 2^(bits - 1) is NaR.

    A rounding to nearest turns at the posit of one bit more that lies between two neighbours, but next to 0 at 0, so that no
    nonzero number becomes 0; it ends at the largest value. NaN and infinities become NaR.
    Source: Standard for Posit Arithmetic (2022), sections 3, 4.1 and 6.
    """
    if not 3 <= bits <= WIDEST_TABLE:
        raise InputError(f"{name}: posits have 3 to {WIDEST_TABLE} bits here, not {bits}")
    half = 1 << (bits - 1)
    ascending = range(1 - half, half)  # signed codes; they ascend with the values
    return table_format(
        name, [*(_posit(code, bits) for code in ascending), math.nan], source, aliases,
        codes=[*(code % (2 * half) for code in ascending), half], bits=bits, family=family, saturation="InfNaN",
        thresholds=[_posit(2 * code + 1, bits + 1) if code not in (-1, 0) else 0.0 for code in ascending[:-1]],
    )  # fmt: skip


def _posit(code: int, bits: int) -> float:
    """Return the value of a signed code: sign, a run of equal bits (the regime), its end, 2 exponent bits, a fraction.

    A run of k ones stands for the factor 16^(k - 1), a run of k zeros for 16^-k; bits beyond the end of the code are 0.
    """
    if code <= 0:
        return -_posit(-code, bits) if code else 0.0
    body = f"{code:0{bits - 1}b}"
    run = len(body) - len(body.lstrip(body[0]))
    exponent, fraction = body[run + 1 : run + 3].ljust(2, "0"), body[run + 3 :]
    power = 4 * (run - 1 if body[0] == "1" else -run) + int(exponent, 2)
    return math.ldexp(1 + int(fraction or "0", 2) / (1 << len(fraction)), power)


def variant_format(base: Format, name: str, source: str, **changes: Any) -> Format:
    """Return the format with the values and codes of `base`, and other rules for numbers that it cannot hold.

    `changes` are fields of `Format`: `nan_to`, `negative_to`, `zero_to`, `ties`, `nan`, `nan_code`, `saturation` and
    `revision`. Raise `InputError` for one that the format cannot have; whether it takes the saturation, `qsim.Quantizer` says.
    """
    where, power = name, isinstance(base, Grid) and base.kind == "float" and not base.man_bits and not base.has_zero
    words = {key: changes.pop(key) for key in ("nan_to", "negative_to", "zero_to") if key in changes}
    said = {key: getattr(base, key) or None for key in ("nan_to", "negative_to", "zero_to")}
    fields = _cannot_hold(
        where, said | words, nan=base.has_nan, signed=base.signed, zero=base.has_zero, neg_zero=base.has_neg_zero,
        default="max",
    )  # fmt: skip
    ranges = {
        "ties": ("even", "away") if power else ("even",),
        "nan": get_args(Nans) if base.has_neg_zero and base.has_nan else ("canonical",),
        "revision": tuple(REVISIONS) if base.revision else ("",),
    }
    for key, allowed in ranges.items():
        if changes.get(key, allowed[0]) not in allowed:
            choices = enumerate_names(map(repr, allowed)) if allowed[0] else "left out"
            raise InputError(f"{where}: {key} = {changes[key]!r}; for this format it is {choices}")
    code = changes.get("nan_code", base.nan_code)
    if code != base.nan_code and not (
        isinstance(base, Grid) and code is not None and 0 <= code < 1 << (base.bits - base.signed)
        and math.isnan(base.decode(code))
    ):  # fmt: skip
        raise InputError(f"{where}: nan_code = {code}; it is the code of a NaN of {base.name}, its sign bit clear")
    return dataclasses.replace(
        base,
        name=name,
        source=source,
        aliases=(),
        family="",
        variant_of=base.name,
        warning="",
        elsewhere=(),
        **fields,
        **changes,
    )


def _cannot_hold(
    name: str,
    given: Mapping[str, Any],
    *,
    nan: bool,
    signed: bool,
    zero: bool,
    neg_zero: bool,
    default: str,
) -> dict[str, Any]:
    """Return the rules for numbers that the format cannot hold: `given`, and defaults."""
    held = {"nan": nan, "zero": zero, "neg_zero": neg_zero, "opposite_zero": neg_zero}
    allowed = {
        "nan_to": tuple(word for word in get_args(NanTo) if held.get(word, True)),
        "negative_to": () if signed else ("nan", "min", "magnitude") if nan else ("min", "magnitude"),
        "zero_to": () if zero else ("min", "max", "nan") if nan else ("min", "max"),
    }
    fields = {
        "nan_to": "nan" if nan else default,
        "negative_to": next(iter(allowed["negative_to"]), ""),
        "zero_to": next(iter(allowed["zero_to"]), ""),
    }
    for key, word in given.items():
        if word is None:
            continue
        if key not in allowed:
            raise TypeError(f"{key} is no field of a format")
        if word not in allowed[key]:
            choices = enumerate_names(map(repr, allowed[key])) if allowed[key] else "left out"
            raise InputError(f"{name}: {key} = {word!r}; for this format it is {choices}")
        fields[key] = word
    if fields["zero_to"] == "nan" != fields["nan_to"]:
        raise InputError(
            f"{name}: zero_to = 'nan' with nan_to = {fields['nan_to']!r}; 0 can become a NaN where a NaN stays one"
        )
    return fields
