"""What holds of every rounding, whatever the format, the mode and the word."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from enumeration import exactly, place, roundings
from hypothesis import given
from hypothesis import strategies as st
from strategies import KINDS, P3109, ROUNDED, drawn_formats, inputs, rounded_in, words

from qsim.arrays import encode, quantize
from qsim.formats import Format, Grid
from qsim.rounding import Mode, Saturation, saturations

ONE_SIDED = {Mode.RUP, Mode.RDN, Mode.RNP, Mode.RNN, Mode.THR}
"""The modes that tell left from right."""


def one_rounding(draw: st.DrawFn, fmt: Format, kind: np.dtype) -> dict[str, Any]:
    """Return a mode, with one word or one threshold for all numbers, and a rule; nothing wraps around."""
    mode = draw(st.sampled_from([*Mode]))
    rule = draw(st.sampled_from([rule for rule in saturations(fmt) if rule is not Saturation.wrap]))
    rounding: dict[str, Any] = {"mode": mode, "saturation": rule}
    if mode is Mode.THR:
        rounding["eps"] = draw(st.integers(0, 2**20 - 1)) / 2**20
    if mode.stochastic:
        width = 8 * max(kind.itemsize, 4)
        n = width if mode is Mode.SR else draw(st.integers(1, width - 1))
        rounding |= {"sr_bits": n, "rbits": np.array(draw(words(n)), np.uint64)}
    return rounding


def laws(draw: st.DrawFn) -> tuple[Format, np.ndarray, dict[str, Any]]:
    """Return a format, numbers of a type that holds its values, and a rounding."""
    kind = draw(st.sampled_from(KINDS))
    rounded = [fmt for fmt in (*ROUNDED, *P3109) if rounded_in(kind, fmt)]
    fmt = draw(st.one_of(st.sampled_from(rounded), drawn_formats().filter(lambda fmt: rounded_in(kind, fmt))))
    x = np.array(draw(st.lists(inputs(fmt, kind), min_size=1, max_size=12)), kind)
    return fmt, exactly(x).astype(kind), one_rounding(draw, fmt, kind)  # NumPy warns of NaN with a payload


def test_values_are_fixed() -> None:
    """Every value of a format is what it rounds to, in every mode, by every rule, with any word; infinities too, if held."""
    for fmt in (*ROUNDED, *P3109):
        numbers = range(-fmt.bottom, fmt.top + 1)
        x = np.array([float(fmt.value(n)) for n in numbers] + ([-0.0] if fmt.has_neg_zero else []))
        code = [fmt.code(n) for n in numbers] + ([fmt.code(0, negative_zero=True)] if fmt.has_neg_zero else [])
        for rule in saturations(fmt):
            keeps = rule in {Saturation.SatNone, Saturation.SatPropagate} and fmt.has_inf
            signs = (False, True) if fmt.signed else (False,)
            ends = np.array([-math.inf if sign else math.inf for sign in signs if keeps])
            values, kept = (
                np.concatenate([x, ends]),
                [*code, *(fmt.code_of_inf(negative=sign) for sign in signs if keeps)],
            )
            for mode in Mode:
                for rounding in roundings(mode, place(fmt, values), (7,), 64):
                    assert encode(values, fmt, mode, saturation=rule, **rounding).tolist() == kept


@given(st.data())
def test_rounding_twice_is_rounding_once(data: st.DataObject) -> None:
    """What a rounding gives, it gives again, whatever the second one's word; a NaN result where that is what NaN becomes."""
    fmt, x, rounding = laws(data.draw)
    y = quantize(x, fmt, **rounding)
    y = y[~np.isnan(y) | (fmt.nan_to == "nan")]
    if "rbits" in rounding:
        rounding["rbits"] = np.array(data.draw(words(rounding["sr_bits"])), np.uint64)
    assert quantize(y, fmt, **rounding).tobytes() == y.tobytes()


@given(st.data())
def test_order_is_kept(data: st.DataObject) -> None:
    """With one word for all, a smaller number never rounds to a greater value, infinities included; NaN set aside.

    Without a zero that is so on either side of it, and where no small number becomes the largest value with it.
    """
    fmt, x, rounding = laws(data.draw)
    x = np.sort(x[~np.isnan(x)] if fmt.has_zero else x[exactly(x) > 0])
    y = quantize(x, fmt, **rounding)
    kept = exactly(y[~np.isnan(y)])
    if fmt.has_zero or (isinstance(fmt, Grid) and fmt.zero_to != "max"):
        assert np.all(kept[:-1] <= kept[1:])


@given(st.data())
def test_sign_is_symmetric(data: st.DataObject) -> None:
    """Of a format that is its own mirror, -x rounds to the negative of what x rounds to, by modes that are as well."""
    fmt, x, rounding = laws(data.draw)
    numbers = range(min(fmt.top, 200))
    mirror = fmt.top == fmt.bottom and all(fmt.value(n) == -fmt.value(-n) for n in numbers)
    if not mirror or rounding["mode"] in ONE_SIDED or not all(fmt.is_odd(n) == fmt.is_odd(-n) for n in numbers):
        return
    x = x[~np.isnan(x)]
    y, mirrored = quantize(x, fmt, **rounding), quantize(-x, fmt, **rounding)
    y, mirrored = exactly(y), exactly(mirrored)
    assert np.array_equal(y, -mirrored, equal_nan=True)
    assert not fmt.has_neg_zero or np.array_equal(np.signbit(y), ~np.signbit(mirrored) ^ np.isnan(y))


@given(st.data())
def test_results_are_neighbours(data: st.DataObject) -> None:
    """Within the range the result is one of the two values beside x, x itself if it is a value."""
    fmt, x, rounding = laws(data.draw)
    inside = x[np.isfinite(x) & (exactly(x) >= fmt.min) & (exactly(x) <= fmt.max)]
    inside = inside if fmt.has_zero else inside[inside != 0]
    for value, y in zip(exactly(inside).tolist(), exactly(quantize(inside, fmt, **rounding)).tolist(), strict=True):
        assert y in fmt.neighbours(value)


@given(st.data())
def test_zero_keeps_its_sign(data: st.DataObject) -> None:
    """-0, and a negative number that rounds to zero, is -0 where the format has one, and +0 where it has not."""
    fmt, x, rounding = laws(data.draw)
    x = np.concatenate([x, np.array([0.0, -0.0], x.dtype)])
    y = quantize(x, fmt, **rounding)
    zero = (y == 0) & ~np.isnan(x)
    assert np.array_equal(np.signbit(y)[zero], (np.signbit(x) & fmt.has_neg_zero)[zero])
    assert not fmt.has_zero or zero[-2:].all()
