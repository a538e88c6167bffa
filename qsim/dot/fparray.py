"""Arrays whose operators round: `fparray(x, fmt)`."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from qsim.arrays import encode, quantize
from qsim.dot import elementwise
from qsim.dot.accumulator import Accumulator
from qsim.dot.elementwise import as_float64, parse_rounding, result_dtype
from qsim.dot.products import matmul
from qsim.errors import InputError
from qsim.formats import Format
from qsim.rounding import Quantizer

__all__ = ["FPArray", "fparray"]


class FPArray:
    """Hold an array of numbers of one format; `+ - * / @` and `sqrt` are exact operations, rounded once each.

    Both operands are arrays of the same rounding, or one is an array or a number of NumPy or Python, which is rounded to the
    format first. Products of matrices, `@`, round each partial sum, in order, as `qsim.dot.matmul` does. `values` are the
    numbers, `codes` their codes; NumPy takes the array as its values.
    """

    __slots__ = ("rounding", "values")
    __array_priority__ = 100.0
    __array_ufunc__ = None  # an array of NumPy on the left leaves the operation to this class

    def __init__(self, values: NDArray[Any], rounding: Quantizer) -> None:
        self.values = values
        self.rounding = rounding

    @property
    def format(self) -> Format:
        """The format of the numbers."""
        return self.rounding.format

    @property
    def codes(self) -> NDArray[Any]:
        """The codes of the numbers."""
        return encode(self.values, self.rounding)

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of the array."""
        return self.values.shape

    def sqrt(self) -> FPArray:
        """Return the square roots."""
        return FPArray(elementwise.sqrt(self.values, self.rounding), self.rounding)

    def sum(self, axis: int | None = None) -> FPArray:
        """Return the sum along an axis, or of all elements, each partial sum rounded, in order."""
        return FPArray(_total(self.values, self.rounding, axis), self.rounding)

    def mean(self, axis: int | None = None) -> FPArray:
        """Return the sum, as `sum` has it, divided by the number of elements, rounded once more."""
        count = self.values.size if axis is None else self.values.shape[axis]
        total = _total(self.values, self.rounding, axis)
        return FPArray(elementwise.div(total, count, self.rounding), self.rounding)

    def dot(self, other: FPArray | ArrayLike) -> FPArray:
        """Return the product of matrices, or the inner product of vectors, each partial sum rounded, in order."""
        return self @ other

    def astype(self, fmt: str | Quantizer) -> FPArray:
        """Return the array rounded to another format."""
        return fparray(self.values, fmt)

    def _other(self, other: Any) -> NDArray[Any]:
        """Return the values of the other operand, rounded to the format if it is no array of one."""
        if not isinstance(other, FPArray):
            return fparray(other, self.rounding).values
        if other.rounding != self.rounding:
            raise InputError(
                f"the operands are {self.rounding} and {other.rounding}; astype makes them alike, or qsim.dot.add and the "
                "like take any"
            )
        return other.values

    def _operate(self, name: str, left: Any, right: Any) -> FPArray:
        return FPArray(getattr(elementwise, name)(left, right, self.rounding), self.rounding)

    def __add__(self, other: Any) -> FPArray:
        return self._operate("add", self.values, self._other(other))

    __radd__ = __add__

    def __sub__(self, other: Any) -> FPArray:
        return self._operate("sub", self.values, self._other(other))

    def __rsub__(self, other: Any) -> FPArray:
        return self._operate("sub", self._other(other), self.values)

    def __mul__(self, other: Any) -> FPArray:
        return self._operate("mul", self.values, self._other(other))

    __rmul__ = __mul__

    def __truediv__(self, other: Any) -> FPArray:
        return self._operate("div", self.values, self._other(other))

    def __rtruediv__(self, other: Any) -> FPArray:
        return self._operate("div", self._other(other), self.values)

    def __matmul__(self, other: Any) -> FPArray:
        return self._product(self.values, self._other(other))

    def __rmatmul__(self, other: Any) -> FPArray:
        return self._product(self._other(other), self.values)

    def _product(self, left: NDArray[Any], right: NDArray[Any]) -> FPArray:
        if not left.ndim or not right.ndim:
            raise InputError("@ takes vectors and matrices, no single numbers; * multiplies them")
        x, y = (left[None] if left.ndim == 1 else left), (right[:, None] if right.ndim == 1 else right)
        found = matmul(x, y, Accumulator(self.rounding)).values
        found = found[..., 0] if right.ndim == 1 else found
        if left.ndim == 1:
            found = found[..., 0] if right.ndim == 1 else found[..., 0, :]
        return FPArray(found, self.rounding)

    def __neg__(self) -> FPArray:
        return fparray(-self.values, self.rounding)

    def __abs__(self) -> FPArray:
        return fparray(np.abs(self.values), self.rounding)

    def __getitem__(self, index: Any) -> FPArray:
        return FPArray(self.values[index], self.rounding)

    def __len__(self) -> int:
        return len(self.values)

    def __eq__(self, other: object) -> Any:
        return self.values == (other.values if isinstance(other, FPArray) else other)

    __hash__ = None  # type: ignore[assignment]

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> NDArray[Any]:
        return np.array(self.values, dtype=dtype, copy=bool(copy)) if copy or dtype is not None else self.values

    def __repr__(self) -> str:
        return f"fparray({np.array2string(self.values, separator=', ', prefix='fparray(')}, '{self.rounding}')"


def fparray(x: ArrayLike, fmt: str | Quantizer) -> FPArray:
    """Return x, rounded to `fmt`, a "FORMAT:MODE" or a `Quantizer`, as an array whose operators round so.

    x holds real numbers of any type of NumPy or ml_dtypes. Raise `InputError` for a stochastic mode: an operator cannot
    name its words, but `qsim.dot.add` and the like take a key.
    """
    q = parse_rounding(fmt)
    if q.mode.stochastic:
        raise InputError(f"{q}: an operator has no way to name random words; qsim.dot.add and the like take a key")
    values = x.values if isinstance(x, FPArray) else as_float64(x, "x")
    return FPArray(np.asarray(quantize(values.astype(np.float64), q)).astype(result_dtype(q.format)), q)


def _total(values: NDArray[Any], rounding: Quantizer, axis: int | None) -> NDArray[Any]:
    """Return the sum along an axis, each partial sum rounded."""
    rows = values.reshape(1, -1) if axis is None else np.moveaxis(values, axis, -1)
    lead = rows.shape[:-1]
    ones = np.ones((rows.shape[-1], 1))
    total = matmul(rows.reshape(-1, rows.shape[-1]), ones, Accumulator(rounding)).values
    return total.reshape(() if axis is None else lead)
