"""What a clamp lets through: the gradient of a rounding at the ends of its range, held against the definition."""

from __future__ import annotations

from fractions import Fraction
from typing import Any

import numpy as np
import pytest

import qsim
from qsim import autograd as ag
from qsim.arrays import inside_draws, quantize, quantize_draws, random_words
from qsim.formats import Format, Table, get_format
from qsim.reference import away
from qsim.rounding import Key, Mode, Quantizer

SEED, STREAM = 7, 3


def passed(x: np.ndarray, q: Any, clamp: Any = "stop", **choices: Any) -> list[int]:
    """Return where the gradient of a layer passes the rounding of its weights."""
    with qsim.numerics(fwd_weight=q, clamp=clamp, **choices):
        loss = ag.value_and_grad(lambda w, b: ag.mean_squared_error(ag.linear(b, w, name="l"), np.full((1, 1, 1), 1e6)))
        gradient = loss(x[None], np.ones((1, x.size), x.dtype))[1][0]
    return (gradient != 0).astype(int).tolist()


def test_the_derivative_is_that_of_fake_quantization() -> None:
    """INT8 with step 1: the mask is that of torch.fake_quantize_per_tensor_affine(x, 1.0, 0, -128, 127), version 2.13."""
    x = np.array([126.9, 127, 127.4, 127.49, 127.5, 127.6, -128, -128.4, -128.5, -128.6, 200, -200], np.float32)
    assert passed(x, "int8") == [1, 1, 1, 1, 0, 0, 1, 1, 1, 0, 0, 0]
    assert passed(x, "int8", "stop_unrounded") == [1, 1, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0]
    assert passed(x, "int8", "pass") == [1] * 12
    for scale in (0.25, 3.0):
        q = Quantizer("int8", scale=scale)
        assert passed(x * np.float32(scale), q) == passed(x, "int8")


@pytest.mark.parametrize("clamp", ["stop", "stop_unrounded"])
def test_what_is_no_number_does_not_pass(clamp: Any) -> None:
    """A NaN and infinities do not pass, in a format that makes a number of a NaN neither, and stop an infinite error."""
    for name in ("int8", "e4m3", "e5m2", "uint8", "e2m1", "nf4"):
        with qsim.numerics(fwd_act=name, clamp=clamp) as context:
            ag.linear(np.zeros((1, 1, 1)), np.ones((1, 1, 1)), name="l")
            for bad in (np.nan, np.inf, -np.inf):
                assert not context.passes("l", "fwd_act", np.array([[[bad]]])).any()
    with qsim.numerics(fwd_weight="int8", clamp=clamp):
        grad = ag.value_and_grad(lambda w, b: ag.mean_squared_error(ag.linear(b, w, name="l"), np.zeros((1, 1, 1))))(
            np.array([[1.0, 1e9]]), np.array([[np.inf, np.inf]])
        )[1]
    assert grad.tolist() == [[np.inf, 0.0]]


FORMATS = [
    "int8", "int2", "int8sym", "uint4", "ternary", "Q1.2", "UQ0.8", "int24", "e4m3", "e5m2", "e2m1", "e3m2", "e4m0fn", "e1m2f",
    "float8_e4m3fnuz", "e8m0", "float16", "bfloat16", "Binary8p4se", "Binary8p3uf", "Binary8p1se", "cfloat8_1_4_3_half",
]  # fmt: skip
MODES = [
    *(mode for mode in Mode if not mode.stochastic and mode is not Mode.THR),
    Mode.THR, Mode.SR, Mode.SRA, Mode.SRB, Mode.SRC, Mode.SRE,
]  # fmt: skip


def around_the_ends(fmt: Format, dtype: Any) -> np.ndarray:
    """Return numbers beside both ends of the range, up to two steps beyond, on midpoints and beside them, and zeros."""
    found = []
    for ordinal, outward in ((fmt.top, 1), (-fmt.bottom, -1)):
        inner, end = fmt.value(ordinal - outward), fmt.value(ordinal)
        step = abs(end - inner) if isinstance(fmt, Table) else abs(fmt.value(ordinal + outward) - end)
        found += [end + outward * step * Fraction(k, 16) for k in range(-20, 40)]
        found.append(inner)
    with np.errstate(over="ignore"):
        x = np.array([*map(float, found), 0.0, -0.0, 1.0, -1.0], np.float64).astype(dtype)
        x = np.concatenate([x, np.nextafter(x, dtype(np.inf)), np.nextafter(x, dtype(-np.inf))])
    return x[np.isfinite(x)]


def by_definition(x: float, q: Quantizer, bits: int, word: int) -> bool:
    """Return whether x, rounded on the line that has no end, lies between the ends: `qsim.reference` before the range."""
    fmt = q.format
    ordinal, nu = fmt.split(Fraction(x))
    negative = np.signbit(x)
    if away(q.mode, nu, fmt.is_odd(ordinal), bool(negative), bits, word, q.eps or 0.0):
        ordinal += -1 if negative else 1
    return bool(-fmt.bottom <= ordinal <= fmt.top)


@pytest.mark.in_part(4)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("name", FORMATS)
def test_what_rounds_into_the_range_passes(name: str, dtype: Any) -> None:
    """In every mode, with the words that the rounding itself takes: equal to the definition at and beside both ends."""
    fmt = get_format(name)
    x = around_the_ends(fmt, dtype)
    bits = 8 * x.itemsize
    words = random_words(Key(SEED, STREAM), x.size * bits // 32).astype(object)
    drawn = words if bits == 32 else words[0::2] * 2**32 + words[1::2]
    for mode in MODES:
        n = {Mode.SR: bits, Mode.SRA: 3, Mode.SRB: 3, Mode.SRC: 3, Mode.SRE: 1}.get(mode, 0)
        fields = {"sr_bits": n} if mode in (Mode.SRA, Mode.SRB, Mode.SRC) else {"eps": 0.25} if mode is Mode.THR else {}
        q = Quantizer(fmt, mode, **fields)
        got = inside_draws(x[None], q, SEED, [STREAM])[0][0]
        expected = [by_definition(float(v), q, n, int(w) >> (bits - n)) for v, w in zip(x, drawn, strict=True)]
        assert got.tolist() == expected, mode


@pytest.mark.parametrize("name", ["nf4", "posit8", "binary"])
def test_a_table_ends_with_its_values(name: str) -> None:
    """Beyond the last value of a table there is nothing that could round back to it: no rule lets it pass."""
    fmt = get_format(name)
    x = around_the_ends(fmt, np.float64)
    for mode in MODES[:-4]:
        q = Quantizer(fmt, mode, **({"eps": 0.25} if mode is Mode.THR else {}))
        for rounded in (True, False):
            got = inside_draws(x[None], q, SEED, [STREAM], rounded=rounded)[0][0]
            assert got.tolist() == ((x >= fmt.min) & (x <= fmt.max)).tolist()


def test_a_table_whose_line_goes_on(tmp_path: Any) -> None:
    """Where an entry says what the next value would be, what rounds to the last one passes; at its other end nothing does."""
    path = tmp_path / "mine.toml"
    path.write_text(
        '[[format]]\nname = "t"\nkind = "table"\nvalues = [-1.0, 0.0, 1.0, 2.0]\nabove = 4.0\nsource = "a test"\n',
        encoding="utf-8",
    )
    x = np.array([[-1.1, -1.0, 2.0, 2.9, 3.0, 3.1, 4.0, 9.0]])
    for mode, inside in (
        ("RNE", [0, 1, 1, 1, 0, 0, 0, 0]),
        ("RNZ", [0, 1, 1, 1, 1, 0, 0, 0]),
        ("RTZ", [0, 1, 1, 1, 1, 1, 0, 0]),
        ("RUP", [0, 1, 1, 0, 0, 0, 0, 0]),
    ):
        q = Quantizer(f"{path}#t", mode)
        assert inside_draws(x, q, 0, [0])[0][0].astype(int).tolist() == inside


def test_the_words_are_those_of_the_rounding() -> None:
    """A stochastic rounding that went up beyond the end stops, one that went down to it passes, draw by draw."""
    x = np.full((1, 1, 2000), 127.5)
    with qsim.numerics(fwd_act="int8:SR", clamp="stop", seed=5, draws=3) as context:
        ag.linear(x, np.ones((1, 1, 2000)), name="l")
        through = context.passes("l", "fwd_act", x)
        streams = context.streams("l.fwd_act", range(3))
    wider = quantize_draws(x, Quantizer("int16", "SR"), 5, streams)[0]  # the same grid, with room above
    assert np.array_equal(through, wider == 127)
    assert abs(through.mean() - 0.5) < 5 * np.sqrt(0.25 / through.size)


@pytest.mark.parametrize("order", ["divide", "reciprocal", "exact"])
def test_the_quotient_is_that_of_the_rounding(order: Any) -> None:
    """With a scale what counts is the quotient in the order of operations that the rounding has: codes say where it clamped."""
    rng = np.random.default_rng(1)
    for scale in (0.1, 1 / 3, 0.7):
        x = (rng.integers(-1100, 1100, 4000) / 8 * scale).astype(np.float32)
        q = Quantizer("int8", scale=scale, order=order)
        wide = quantize(x, Quantizer("int16", scale=scale, order=order))
        code = np.rint(wide.astype(np.float64) / np.float64(np.float32(scale)))
        expected = (code >= -128) & (code <= 127)
        assert np.array_equal(inside_draws(x[None], q, 0, [0])[0][0], expected)


def test_shared_words_of_samples_are_shared_here_too() -> None:
    """Where the samples of a batch take one draw, equal samples pass alike, as they round alike."""
    x = np.full((1, 50, 40), 127.5)
    masks = {}
    for choice in ("shared", "per_sample"):
        with qsim.numerics(fwd_act="int8:SR", clamp="stop", sample_draws=choice) as context:
            ag.linear(x, np.ones((1, 1, 40)), name="l")
            masks[choice] = context.passes("l", "fwd_act", x)[0]
    assert (masks["shared"] == masks["shared"][0]).all()
    assert not (masks["per_sample"] == masks["per_sample"][0]).all()


def test_subnormal_numbers_that_are_flushed_are_zeros() -> None:
    """With `ftz_in` a subnormal number below an unsigned range is the zero that it is rounded as."""
    x = np.array([[-1e-40, -1.0]], np.float32)
    assert inside_draws(x, Quantizer("uint8", "RDN", ftz_in=True), 0, [0])[0][0].tolist() == [True, False]
    assert inside_draws(x, Quantizer("uint8", "RDN"), 0, [0])[0][0].tolist() == [False, False]
