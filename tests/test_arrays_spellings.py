"""How users spell a rounding: formats by dtypes and aliases, keys by seeds, numbers of every type in, quantizers called."""

from __future__ import annotations

from typing import Any

import ml_dtypes
import numpy as np
import pytest

import qsim
from qsim import InputError, Key, Quantizer
from qsim.rounding import Mode, parse_mode

X = np.random.default_rng(0).standard_normal(64).astype(np.float32)
E4M3 = qsim.quantize(X, "float8_e4m3fn")


@pytest.mark.parametrize(
    "fmt",
    ["e4m3", "E4M3", "fp8_e4m3", "FP8_E4M3", ml_dtypes.float8_e4m3fn, np.dtype(ml_dtypes.float8_e4m3fn)],
    ids=str,
)
def test_a_format_has_many_names(fmt: Any) -> None:
    """OCP's short name in either case, with the bits before it, and types of ml_dtypes and NumPy are one format."""
    assert np.array_equal(qsim.quantize(X, fmt), E4M3)


@pytest.mark.parametrize(
    ("name", "is_"),
    [("half", "float16"), ("single", "float32"), ("double", "float64"), ("fp4", "float4_e2m1fn"), ("BF16", "bfloat16"),
     ("fp6_e2m3", "float6_e2m3fn"), ("fp4_e2m1", "float4_e2m1fn"), ("fp8_e4m3fnuz", "float8_e4m3fnuz")],
)  # fmt: skip
def test_aliases(name: str, is_: str) -> None:
    """Words of other packages for formats."""
    assert qsim.get_format(name).name == is_


def test_bits_that_contradict_the_fields_are_refused() -> None:
    """An e3m2 has 6 bits, not 8."""
    with pytest.raises(InputError, match="no format is called 'fp8_e3m2'"):
        qsim.get_format("fp8_e3m2")


@pytest.mark.parametrize(
    ("name", "mode"), [("nearest", Mode.RNE), ("stochastic", Mode.SR), ("rne", Mode.RNE), ("toOdd", Mode.RTO)]
)
def test_modes_in_any_case(name: str, mode: Mode) -> None:
    """Upper and lower case of a mode are one, and the plain words mean the usual modes."""
    assert parse_mode(name) is mode


# --- What goes in ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["bool", "int8", "uint8", "int16", "uint16", "int32", "uint32", "int64", "uint64"])
def test_integers_are_exact_numbers(kind: str) -> None:
    """Arrays of integers and booleans are rounded as the float64 of the same value, to float64."""
    info = np.iinfo(kind) if kind != "bool" else None
    x = np.array([0, 1], kind) if info is None else np.array([info.min, 0, 1, 17, info.max - info.max % 4096], kind)
    y = qsim.quantize(x, "e4m3")
    assert y.dtype == np.float64
    assert np.array_equal(y, qsim.quantize(x.astype(np.float64), "e4m3"))
    assert np.array_equal(qsim.encode(x, "e4m3"), qsim.encode(x.astype(np.float64), "e4m3"))


@pytest.mark.parametrize("whole", [2**53 + 1, -(2**53) - 1, 2**63 - 1])
def test_integers_beyond_float64_are_refused(whole: int) -> None:
    """An integer that no float64 is equal to is named."""
    with pytest.raises(InputError, match=f"{whole} does not fit a float64 exactly"):
        qsim.quantize(np.array([1, whole]), "e4m3")
    assert qsim.quantize(np.array([1 << 62]), "float32") == 2.0**62


NARROW = sorted(n for n in dir(ml_dtypes) if n.startswith("float"))


@pytest.mark.parametrize("name", NARROW)
def test_every_float_of_ml_dtypes_goes_in_and_comes_out(name: str) -> None:
    """Its numbers are rounded as float32; the values return in its type where it holds the format, else it is said."""
    kind = np.dtype(getattr(ml_dtypes, name))
    bits = qsim.get_format(name).bits
    x = np.arange(1 << bits, dtype=np.uint8).view(kind)
    wide = x.astype(np.float32)
    assert np.array_equal(qsim.encode(x, "int4"), qsim.encode(wide, "int4"))
    with np.errstate(all="ignore"):
        y = qsim.quantize(x, name, saturation=None)
    assert y.dtype == kind
    finite = np.isfinite(wide)
    assert np.array_equal(y[finite].astype(np.float32), wide[finite])
    with pytest.raises(InputError, match=f"{name} does not hold the values of bfloat16; convert x to float32 first"):
        qsim.quantize(x, "bfloat16")
    codes = np.arange(1 << bits, dtype=np.uint8)
    decoded = qsim.decode(codes, name, kind)
    assert decoded.dtype == kind
    assert np.array_equal(decoded.astype(np.float32), wide, equal_nan=True)
    out = np.empty(codes.shape, kind)
    assert qsim.decode(codes, name, kind, out=out) is out
    assert np.array_equal(out.view(np.uint8), decoded.view(np.uint8))
    with pytest.raises(InputError, match=f"{name} does not hold the values of float16; decode to float32"):
        qsim.decode(codes, "float16", kind)


@pytest.mark.parametrize("x", [0.3, 3, np.float16(0.3), np.float32(0.3), ml_dtypes.bfloat16(0.3), np.int8(3)], ids=repr)
def test_a_scalar_gives_a_scalar(x: Any) -> None:
    """Python's numbers and scalars of NumPy give scalars, arrays without axes arrays."""
    for y, kind in (
        (qsim.quantize(x, "e4m3"), np.float64 if isinstance(x, int | float | np.integer) else type(x)),
        (qsim.encode(x, "e4m3"), np.uint8),
        (qsim.decode(qsim.encode(x, "e4m3"), "e4m3"), np.float32),
    ):
        assert type(y) is (np.float64 if kind is float else kind)
    if not isinstance(x, int | float | np.integer):
        assert isinstance(qsim.quantize(np.array(x), "e4m3"), np.ndarray)


# --- Random words, axes, quantizers ----------------------------------------------------------------------------------


def test_a_seed_or_a_generator_is_a_key() -> None:
    """An integer is the key of that seed; a generator of NumPy gives a seed of 64 bits, another one at each call."""
    assert np.array_equal(qsim.quantize(X, "e4m3", "SR", key=7), qsim.quantize(X, "e4m3", "SR", key=Key(7)))
    assert np.array_equal(qsim.encode(X, "e4m3", "SR", key=np.int64(7)), qsim.encode(X, "e4m3", "SR", key=Key(7)))
    seeds = np.random.default_rng(1).integers(0, 1 << 64, 2, np.uint64).tolist()
    rng = np.random.default_rng(1)
    for seed in seeds:
        assert np.array_equal(qsim.quantize(X, "e4m3", "SR", key=rng), qsim.quantize(X, "e4m3", "SR", key=Key(seed)))
    for wrong in (True, 0.5, "0", [1]):
        with pytest.raises(InputError, match=r"a seed or a np\.random\.Generator, not"):
            qsim.quantize(X, "e4m3", "SR", key=wrong)
    with pytest.raises(InputError, match="seed of a Key must be an integer of 64 bits"):
        qsim.quantize(X, "e4m3", "SR", key=-1)


def test_axis_is_per() -> None:
    """Of a format without blocks `axis` names the axis of scales, as `per` does; both together are refused."""
    w = X.reshape(4, 16)
    for axis in (0, 1, (0, 1)):
        assert np.array_equal(
            qsim.quantize(w, "int4", scale="absmax", axis=axis), qsim.quantize(w, "int4", scale="absmax", per=axis)
        )
    assert np.array_equal(qsim.encode(w, "int4", scale="absmax", axis=1), qsim.encode(w, "int4", scale="absmax", per=1))
    with pytest.raises(InputError, match="axis = 1 and per = 0 both say which elements share a scale; drop one"):
        qsim.quantize(w, "int4", scale="absmax", axis=1, per=0)


def test_a_quantizer_is_called() -> None:
    """It rounds as `quantize` does with it."""
    q = Quantizer("e4m3:SR", scale="absmax")
    assert np.array_equal(q(X, key=3), qsim.quantize(X, q, key=Key(3)))
    out = np.empty_like(X)
    assert Quantizer("int8")(X, out=out) is out
    r = np.arange(64)
    assert np.array_equal(Quantizer("e4m3:SRA(8)")(X, rbits=r), qsim.quantize(X, "e4m3", "SRA", sr_bits=8, rbits=r))


@pytest.mark.parametrize(
    "text",
    ["Quantizer('int4:RNE', scale='absmax')", "Quantizer('float8_e4m3fn:SRA(8)', saturation='OvfNaN')",
     "Quantizer('bfloat16:THR(0.25)', ftz_in=True, ftz_out='after', nan='signed')",
     "Quantizer('int8:RNE', scale=0.5, per=(0, 1), order='reciprocal')"],
)  # fmt: skip
def test_a_quantizer_prints_as_the_call_that_makes_it(text: str) -> None:
    """`repr` gives the arguments that are not the usual ones, and evaluates to an equal quantizer."""
    q = eval(text, {"Quantizer": Quantizer})  # noqa: S307 - a text of this file
    assert repr(q) == text


def test_a_spelling_and_its_arguments_must_agree() -> None:
    """The mode and its number may be said once each."""
    assert Quantizer("e4m3", "SRA(8)") == Quantizer("e4m3:SRA(8)") == Quantizer("e4m3", "SRA", sr_bits=8)
    with pytest.raises(InputError, match="the mode is SR in the spelling of the format, and RTZ; drop one"):
        Quantizer("e4m3:SR", "RTZ")
    with pytest.raises(InputError, match=r"sr_bits = 9 contradicts the 8 of SRA\(8\); drop one"):
        Quantizer("e4m3:SRA(8)", sr_bits=9)


def test_dir_has_what_users_want() -> None:
    """Names of the package and its modules for users, each once, and nothing of the inside; every one is there."""
    assert {*qsim.__all__, "nn", "optim", "testing", "reference", "blocks", "dot", "golden"} <= set(dir(qsim))
    assert len(dir(qsim)) == len(set(dir(qsim)))
    assert not {"HOME", "Any", "TYPE_CHECKING", "importlib", "rounder"} & set(dir(qsim))
    assert all(getattr(qsim, name) is not None for name in dir(qsim))
