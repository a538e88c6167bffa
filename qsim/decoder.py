"""How arrays of codes are decoded: by arithmetic, by a table of all values, or code by code.

As `qsim.rounder` does, everything here trusts its arguments but for facts that only the codes themselves can tell.
"""

from __future__ import annotations

import functools
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from qsim.errors import InputError
from qsim.formats import WIDEST_TABLE, Format, get_format
from qsim.kernels.decoding import Decoder, decoder, narrowed
from qsim.kernels.parameters import CARRIERS
from qsim.kernels.threads import in_parts
from qsim.rounder import can_hold
from qsim.scales import INPUTS, number_format

__all__ = ["Way", "decode_array", "known_way", "way_of"]


class Way(NamedTuple):
    """Hold how the codes of a format are decoded."""

    format: Format
    dtype: np.dtype[Any]
    #: The values of all codes, if there are few.
    line: NDArray[Any] | None
    #: The loop for arrays in C order, if there is one for values of this type.
    loop: Decoder | None
    #: Whether some codes have no value.
    gaps: bool


def way_of(fmt: str | Format, dtype: Any) -> Way:
    """Return how codes of a format are decoded to a type, or to float64 where that does not hold it."""
    fmt = get_format(fmt)
    try:
        wanted = np.dtype(dtype)
    except TypeError:
        raise InputError(f"dtype = {dtype!r} is no type of NumPy; float32 is one") from None
    if wanted.name not in INPUTS:
        raise InputError(f"values are decoded to float16, bfloat16, float32 or float64, not {wanted}")
    native = wanted.newbyteorder("=") if wanted.kind == "f" else wanted
    wanted, native = (wanted, native) if can_hold(number_format(native), fmt) else (np.dtype(np.float64),) * 2
    if fmt.bits > WIDEST_TABLE:
        return Way(fmt, wanted, None, None, gaps=False)
    line = narrowed(fmt.values(), native)
    loop = decoder(fmt, line) if wanted in CARRIERS and wanted.isnative else None
    return Way(fmt, wanted, line, loop, gaps=not fmt.has_nan and bool(np.isnan(line).any()))


known_way = functools.lru_cache(maxsize=256)(way_of)
"""Looks a way up where it was asked for before."""


def decode_array(codes: NDArray[Any], values: NDArray[Any], way: Way) -> None:
    """Write the value of every code into `values`; refuse codes that have none."""
    if way.line is None:
        wide = way.format.decode_array(codes.reshape(-1)).reshape(codes.shape)
        _refuse_unused(codes, wide, way.format)
        values[...] = wide
        return
    if way.gaps:
        _refuse_unused(codes, way.line[codes], way.format)
    loop = way.loop
    plain = codes.flags.c_contiguous and values.flags.c_contiguous and values.dtype.isnative
    if loop is not None and plain and codes.dtype.kind == "u" and codes.dtype.isnative:
        flat, out = codes.reshape(-1), values.reshape(-1)
        in_parts(flat.size, lambda begin, end: loop(flat[begin:end], out[begin:end]))
    else:
        values[...] = way.line[codes]


def _refuse_unused(codes: NDArray[Any], values: NDArray[Any], fmt: Format) -> None:
    """Refuse codes without a value, of a format without a NaN."""
    unused = np.isnan(values)
    if not fmt.has_nan and unused.any():
        raise InputError(f"{codes[unused][0]} is no code of {fmt.name}: no value has it")
