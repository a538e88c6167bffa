"""qsim: bit-accurate low-precision arithmetic, with proofs.

    import qsim
    f = qsim.get_format("float8_e4m3fn")
    y = qsim.quantize(x, f, "SR", key=qsim.Key(seed=0))

Names are imported at first use, so that `import qsim` and the commands that only read formats pay for neither NumPy nor Numba.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from qsim.errors import InputError  # a child that may not import must be able to name it
from qsim.forks import undivided

if TYPE_CHECKING:
    from qsim.arrays import decode, encode, quantize
    from qsim.autograd import numerics, value_and_grad
    from qsim.blocks import compare_recipes
    from qsim.dot.fparray import fparray
    from qsim.formats import Format, catalogue, finfo, get_format
    from qsim.kernels.threads import get_threads, set_threads
    from qsim.packing import pack, unpack
    from qsim.rounding import Key, Mode, Quantizer, Saturation
    from qsim.scales import derive_scale

__version__ = "0.1.0"

HOME = {
    "Format": "formats", "catalogue": "formats", "finfo": "formats", "get_format": "formats",
    "InputError": "errors",
    "Key": "rounding", "Mode": "rounding", "Quantizer": "rounding", "Saturation": "rounding",
    "compare_recipes": "blocks",
    "decode": "arrays", "encode": "arrays", "quantize": "arrays",
    "derive_scale": "scales",
    "get_threads": "kernels.threads", "set_threads": "kernels.threads",
    "pack": "packing", "unpack": "packing",
    "fparray": "dot.fparray",
    "numerics": "autograd", "value_and_grad": "autograd",
}  # fmt: skip

__all__ = [
    "Format", "InputError", "Key", "Mode", "Quantizer", "Saturation", "catalogue", "compare_recipes", "decode",
    "derive_scale", "encode", "finfo", "fparray", "get_format", "get_threads", "numerics", "pack", "quantize", "set_threads",
    "unpack", "value_and_grad",
]  # fmt: skip

PACKAGES = (
    "autograd", "blocks", "data", "dot", "explain", "formats", "golden", "measure", "models", "nn", "optim", "reference",
    "report", "rounding", "studies", "testing", "theory", "verdicts",
)  # fmt: skip
"""The modules for users, which are imported at first use too."""


def __getattr__(name: str) -> Any:
    if name in HOME:
        with undivided():
            found = globals()[name] = getattr(importlib.import_module(f"qsim.{HOME[name]}"), name)
        return found
    if name.startswith("_"):
        raise AttributeError(f"module 'qsim' has no attribute {name!r}")
    try:  # qsim.reference, qsim.theory, ...
        with undivided():
            return importlib.import_module(f"qsim.{name}")
    except ModuleNotFoundError as error:
        if error.name != f"qsim.{name}":
            raise
        raise AttributeError(f"module 'qsim' has no attribute {name!r}") from None


def __dir__() -> list[str]:
    return sorted([*__all__, *PACKAGES, "__version__"])
