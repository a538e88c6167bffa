"""Number formats: their properties, how they are built from a few fields, and how they are named.

`format` has the two kinds of format, `build` makes them from their fields, `catalogue` finds them by name: the entries of
`formats/*.toml`, spellings such as e4m2fn or Q3.4, and files of the user's own; `limits` has the
names of `np.finfo` for a float format.
"""

from qsim.formats.build import (
    SUFFIX,
    fixed_format,
    float_format,
    integer_format,
    p3109_format,
    posit_format,
    table_format,
)
from qsim.formats.catalogue import Variant, catalogue, get_format, load_formats, short_name, variants, variants_of
from qsim.formats.format import SPECIALS, WIDEST_TABLE, Format, Grid, Specials, Table
from qsim.formats.limits import FloatInfo, finfo

__all__ = [
    "SPECIALS", "SUFFIX", "WIDEST_TABLE", "FloatInfo", "Format", "Grid", "Specials", "Table", "Variant", "catalogue", "finfo",
    "fixed_format", "float_format", "get_format", "integer_format", "load_formats", "p3109_format", "posit_format",
    "short_name", "table_format", "variants", "variants_of",
]  # fmt: skip
