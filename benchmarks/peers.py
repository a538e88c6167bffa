"""The same work by other packages: each function returns the calls that can do it, by the name of the package.

A package is imported when its call is made, and one that is not installed raises `ImportError` there. What comes out are
the same values or codes as qsim's, bit for bit on numbers within the range (a test looks), but for random words, which
are each package's own.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

import qsim
from work import Call, Data, Maker, process

SCALE = 0.25
"""Of the integers with a given scale."""


@dataclass(frozen=True)
class Names:
    """Hold what a format is called elsewhere; "" and () where it is not known."""

    ml_dtypes: str = ""
    torch: str = ""
    gfloat: str = ""
    #: Bits of exponent and mantissa, for packages whose formats all have infinities and NaNs as IEEE's.
    ieee: tuple[int, int] | tuple[()] = ()


NAMES = {
    # Their E4M3 has infinities, and ends at 240.
    "float8_e4m3fn": Names("float8_e4m3fn", "float8_e4m3fn", "format_info_ocp_e4m3", (4, 3)),
    "float8_e5m2": Names("float8_e5m2", "float8_e5m2", "format_info_ocp_e5m2", (5, 2)),
    "bfloat16": Names("bfloat16", "bfloat16", "format_info_bfloat16", (8, 7)),
    "float16": Names("", "float16", "format_info_binary16", (5, 10)),
    "float4_e2m1fn": Names("float4_e2m1fn", "", "format_info_ocp_e2m1"),
}

Peers = dict[str, Maker]


def to_values(fmt: str) -> Peers:
    """Round to the nearest value, ties to even."""
    names = NAMES[fmt]
    found: Peers = {}
    if fmt == "float16":
        found["numpy"] = lambda data: lambda: data.x.astype(np.float16).astype(np.float32)
    if names.ml_dtypes:
        found["ml_dtypes"] = with_ml_dtypes(names, lambda x, dtype: x.astype(dtype).astype(np.float32))
    if names.torch:
        found["torch"] = with_torch(names, lambda x, dtype, torch: x.to(dtype).to(torch.float32))
    if names.ieee:
        found["qtorch"] = by_qtorch(*names.ieee, "nearest")
        found["apytypes"] = by_apytypes(*names.ieee)
        found["pychop"] = by_pychop(*names.ieee, 1)
    found["gfloat"] = with_gfloat(fmt, lambda g, info, x, saturate: g.round_ndarray(info, x, nearest(g), saturate))
    return found


def to_codes(fmt: str) -> Peers:
    """Round to the code of the nearest value, ties to even."""
    names = NAMES[fmt]
    found: Peers = {"ml_dtypes": with_ml_dtypes(names, lambda x, dtype: x.astype(dtype))}
    if names.torch:
        found["torch"] = with_torch(names, lambda x, dtype, _: x.to(dtype))
    found["gfloat"] = with_gfloat(
        fmt,
        lambda g, info, x, saturate: g.encode_ndarray(info, g.round_ndarray(info, x, nearest(g), saturate)),
    )
    return found


def stochastically(fmt: str) -> Peers:
    """Round to values stochastically, the drawing of random words included."""
    e, m = NAMES[fmt].ieee
    rng = np.random.default_rng(5)

    def gfloat(g: Any, info: Any, x: np.ndarray, saturate: bool) -> Any:
        words = rng.integers(0, 1 << 16, x.size)
        return g.round_ndarray(info, x, g.RoundMode.Stochastic, saturate, words, 16)

    return {
        "qtorch": by_qtorch(e, m, "stochastic"),
        "gfloat": with_gfloat(fmt, gfloat),
        "apytypes": by_apytypes_stochastically(e, m),
        "pychop": by_pychop(e, m, 5),
    }


def decoding(fmt: str) -> Peers:
    """Return the values of codes."""
    names = NAMES[fmt]

    def ml_dtypes(data: Data) -> Call:
        import ml_dtypes

        given = qsim.encode(data.x, fmt).view(getattr(ml_dtypes, names.ml_dtypes))
        return lambda: given.astype(np.float32)

    def torch(data: Data) -> Call:
        library = torch_of(data)
        given = library.from_numpy(qsim.encode(data.x, fmt)).view(getattr(library, names.torch))
        return lambda: given.to(library.float32)

    def gfloat(data: Data) -> Call:
        import gfloat
        from gfloat import formats

        given, info = qsim.encode(data.x, fmt), getattr(formats, names.gfloat)
        return lambda: gfloat.decode_ndarray(info, given)

    return {"ml_dtypes": ml_dtypes, "torch": torch, "gfloat": gfloat}


def to_int8(*, absmax: bool = False) -> Peers:
    """Round to INT8 values with one scale: a given one, or the largest magnitude divided by 127."""

    def numpy(data: Data) -> Call:
        def call() -> np.ndarray:
            scale = np.abs(data.x).max() / np.float32(127) if absmax else np.float32(SCALE)
            y = data.x / scale
            np.rint(y, out=y)
            np.clip(y, -128, 127, out=y)
            y *= scale
            return y

        return call

    def torch(data: Data) -> Call:
        x, library = data.x, torch_of(data)
        tensor = library.from_numpy(x)

        def call() -> Any:
            scale = float(tensor.abs().max() / 127) if absmax else SCALE
            return library.fake_quantize_per_tensor_affine(tensor, scale, 0, -128, 127)

        return call

    return {"numpy": numpy, "torch": torch}


def to_int8_codes() -> Peers:
    """Round to INT8 codes with a given scale."""

    def torch(data: Data) -> Call:
        library = torch_of(data)
        x = library.from_numpy(data.x)
        return lambda: library.quantize_per_tensor(x, SCALE, 0, library.qint8)

    return {"torch": torch}


def first_calls() -> Peers:
    """Start a process that rounds once."""
    x = "numpy.ones(1 << 16, numpy.float32)"
    return {
        "ml_dtypes": process("-c", f"import ml_dtypes, numpy; {x}.astype(ml_dtypes.float8_e4m3fn)", needs="ml_dtypes"),
        "torch": process("-c", f"import numpy, torch; torch.from_numpy({x}).to(torch.float8_e4m3fn)", needs="torch"),
    }


def threaded(peers: Peers) -> Peers:
    """Return those that use threads."""
    return {name: make for name, make in peers.items() if name == "torch"}


# --- One package each -------------------------------------------------------------------------------------------------


def with_ml_dtypes(names: Names, convert: Callable[..., Any]) -> Maker:
    """Return the call of a conversion that takes an array and a type."""

    def make(data: Data) -> Call:
        import ml_dtypes

        return functools.partial(convert, data.x, getattr(ml_dtypes, names.ml_dtypes))

    return make


def with_torch(names: Names, convert: Callable[..., Any]) -> Maker:
    """Return the call of a conversion that takes a tensor, a type, and torch."""

    def make(data: Data) -> Call:
        library = torch_of(data)
        return functools.partial(convert, library.from_numpy(data.x), getattr(library, names.torch), library)

    return make


def torch_of(data: Data) -> Any:
    """Return torch, with as many threads as the row is about."""
    import torch

    torch.set_num_threads(data.threads)
    return torch


def with_gfloat(fmt: str, convert: Callable[..., Any]) -> Maker:
    """Return the call of a conversion that takes gfloat, a format, an array, and whether what is too large saturates."""

    def make(data: Data) -> Call:
        import gfloat
        from gfloat import formats

        return functools.partial(
            convert, gfloat, getattr(formats, NAMES[fmt].gfloat), data.x, not qsim.get_format(fmt).has_nan
        )

    return make


def nearest(gfloat: Any) -> Any:
    """Return what gfloat calls rounding to nearest, ties to even."""
    return gfloat.RoundMode.TiesToEven


def by_qtorch(e: int, m: int, mode: str) -> Maker:
    """Return the call of QPyTorch."""

    def make(data: Data) -> Call:
        x = torch_of(data).from_numpy(data.x)
        from qtorch.quant import float_quantize  # compiles itself when it is first imported

        return functools.partial(float_quantize, x, e, m, mode)

    return make


def by_apytypes(e: int, m: int) -> Maker:
    """Return the call of APyTypes, whose arrays give float64."""

    def make(data: Data) -> Call:
        import apytypes

        return lambda: apytypes.APyFloatArray.from_array(data.x, e, m).to_numpy()

    return make


def by_apytypes_stochastically(e: int, m: int) -> Maker:
    """Return the call of APyTypes that draws, from one of its arrays."""

    def make(data: Data) -> Call:
        import apytypes

        given, mode = apytypes.APyFloatArray.from_array(data.x, 8, 23), apytypes.QuantizationMode.STOCH_WEIGHTED
        return lambda: given.cast(e, m, quantization=mode).to_numpy()

    return make


def by_pychop(e: int, m: int, mode: int) -> Maker:
    """Return the call of pychop."""

    def make(data: Data) -> Call:
        import pychop

        chop = pychop.Chop(e, m, rmode=mode)
        return lambda: chop(data.x)

    return make
