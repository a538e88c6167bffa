"""Arrays of which a piece is at hand at a time."""

from __future__ import annotations

import abc
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

__all__ = ["Pieces", "Place"]

Place = tuple[slice, ...]
"""Where a piece lies: a slice of each axis."""


class Pieces(abc.ABC):
    """An array of which only pieces are at hand at a time, as one in a file."""

    shape: tuple[int, ...]
    ndim: int
    size: int
    dtype: np.dtype[Any]

    @abc.abstractmethod
    def __getitem__(self, place: Place) -> NDArray[Any]:
        """Return the elements at a slice of each axis."""
