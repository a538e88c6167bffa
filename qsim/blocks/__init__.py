"""Block formats (MX, NVFP4, ggml's): elements that share a scale, and the recipes by which packages compute them.

qsim.quantize(x, "mxfp4_e2m1", "SR", key=qsim.Key(0), scale_rule="floor", axis=-1)
qsim.encode(x, "nvfp4/torchao-0.18")        # codes, scales and the tensor's scale as torchao makes them
qsim.compare_recipes("mxfp4/torchao-0.18-floor", "mxfp4/modelopt-0.47")
"""

from __future__ import annotations

from typing import Any

from qsim.blocks.compare import Comparison, Difference, compare_recipes, gaussian_share
from qsim.blocks.encoded import Encoded
from qsim.blocks.formats import BlockFormat, block_formats, find_block_format, get_block_format, load_block_formats
from qsim.blocks.gaussian import Judgement, clipped_maxima, judge
from qsim.blocks.ggml import from_ggml, to_ggml
from qsim.blocks.hadamard import hadamard, hadamard_back
from qsim.blocks.moments import Outcomes, expect, outcomes, variance
from qsim.blocks.recipes import Recipe, get_recipe, load_recipes, recipes
from qsim.blocks.rounding import encode, quantize
from qsim.errors import InputError

__all__ = [
    "BlockFormat", "Comparison", "Difference", "Encoded", "Judgement", "Outcomes", "Recipe", "block_formats",
    "clipped_maxima", "compare_recipes", "encode", "expect", "from_ggml", "gaussian_share", "get_block_format",
    "get_recipe", "hadamard", "hadamard_back", "judge", "load_block_formats", "load_recipes", "names_blocks",
    "outcomes", "quantize", "recipes", "to_ggml", "variance",
]  # fmt: skip


def names_blocks(fmt: Any) -> bool:
    """Return whether `fmt` is a block format or a recipe, or names one, in a file too."""
    if isinstance(fmt, Recipe) or find_block_format(fmt) is not None or (isinstance(fmt, str) and fmt in recipes()):
        return True
    if isinstance(fmt, str) and ".toml" in fmt:
        try:
            get_recipe(fmt)
        except (InputError, OSError, UnicodeDecodeError):
            return False
        return True
    return False
