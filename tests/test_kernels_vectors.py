"""What the compiler makes of the hot loops: packed instructions, and no gather or scatter, without which they are 9x slower."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from llvmlite import binding

from qsim.formats import get_format
from qsim.kernels import cpu
from qsim.kernels.compiled import I64, Array, kernel
from qsim.kernels.decoding import Decoding, decode_floats, decode_integers
from qsim.kernels.lowering import assembly
from qsim.kernels.parameters import addends, parameters, stochastic
from qsim.rounding import Mode, Saturation

AVX2 = binding.get_host_cpu_features().get("avx2", False)
pytestmark = pytest.mark.skipif(not AVX2, reason="the instructions that are looked for are those of AVX2")

ONE_BY_ONE = re.compile(r"v?(p?gather\w*|p?scatter\w*|pinsr[dq]|pextr[dq])\s")
"""What takes the elements of a vector from places of their own, or to them."""
SIZES = {np.dtype(np.float32): (np.uint32, "d"), np.dtype(np.float64): (np.uint64, "q")}
both_carriers = pytest.mark.parametrize("carrier", SIZES, ids=str)
E4M3, INT8, E5M2 = map(get_format, ("float8_e4m3fn", "int8", "float8_e5m2"))


def loops(text: str) -> list[list[str]]:
    """Return the instructions of every stretch from a label to a jump back to it, without other such stretches inside."""
    lines = [line.strip() for line in text.splitlines()]
    at = {line[:-1]: number for number, line in enumerate(lines) if re.fullmatch(r"\.?\w+:", line)}
    found: list[tuple[int, int]] = []
    for number, line in enumerate(lines):
        jump = re.fullmatch(r"j\w+\s+(\S+)", line)
        if jump and at.get(jump[1], number) < number:
            found.append((at[jump[1]], number))
    inner = [(a, b) for a, b in found if not any((a, b) != (c, d) and a <= c and d <= b for c, d in found)]
    return [lines[a:b] for a, b in inner]


def packed(text: str, instruction: str) -> bool:
    """Return whether an innermost loop has the instruction on vectors of at least 256 bits."""
    wanted = re.compile(rf"{instruction}\s.*%[yz]mm")
    return any(any(wanted.match(line) for line in loop) for loop in loops(text))


def in_order(text: str) -> bool:
    """Return whether no innermost loop that has vectors takes their elements one by one."""
    vectors = [loop for loop in loops(text) if any(re.search("%[yz]mm", line) for line in loop)]
    return not any(ONE_BY_ONE.match(line) for loop in vectors for line in loop)


def arrays(carrier: np.dtype[Any]) -> tuple[np.ndarray, np.ndarray]:
    """Return two arrays of words, too short to take time."""
    word = SIZES[carrier][0]
    return np.zeros(100, word), np.zeros(100, word)


def assert_vectors(loop: Callable[..., None], instruction: str, *arguments: Any) -> None:
    """Assert that the loop's own arithmetic is packed and that it takes its elements in order."""
    text = assembly(loop, *arguments)
    assert packed(text, instruction), f"no packed {instruction}"
    assert in_order(text)


@pytest.mark.in_part(3)
@both_carriers
@pytest.mark.parametrize("codes", [False, True], ids=["values", "codes"])
@pytest.mark.parametrize(
    ("fmt", "saturation", "mode"),
    [
        (E4M3, Saturation.SatFinite, Mode.RNE),
        (E4M3, Saturation.SatFinite, Mode.RUP),
        (E5M2, Saturation.SatNone, Mode.RNE),
        (E5M2, Saturation.SatPropagate, Mode.RTZ),
        (INT8, Saturation.saturate, Mode.RNE),
    ],
    ids=str,
)
def test_deterministic_loops(fmt, saturation, mode, codes, carrier) -> None:
    """Every shortcut, by parity and by sign, shifts whole vectors by amounts of their own, to values and to codes."""
    p, t = parameters(fmt, saturation, carrier, mode, codes=codes), addends(mode, carrier)
    x, y = arrays(carrier)
    out = y.astype(np.uint8) if codes else y
    instruction = f"vpsrlv{SIZES[carrier][1]}"
    assert_vectors(cpu.by_addends(p, t, codes=codes), instruction, x, out, cpu.words_of(p, t))


@both_carriers
@pytest.mark.parametrize("mode", [Mode.SRA, Mode.SRB, Mode.SRC, Mode.SRE], ids=str)
def test_loops_of_words(mode, carrier) -> None:
    """So do the loops that are given their random words, plain and sticky."""
    p, source = parameters(E4M3, Saturation.SatFinite, carrier, mode), stochastic(mode, 8, carrier)
    x, y = arrays(carrier)
    assert_vectors(cpu.by_words(p, source), f"vpsrlv{SIZES[carrier][1]}", x, x.copy(), y, 0, cpu.words_of(p, source))


@both_carriers
def test_the_loop_of_one_threshold(carrier) -> None:
    """So does that of Threshold with a single number."""
    p, eps = parameters(E4M3, Saturation.SatFinite, carrier), SIZES[carrier][0](5)
    assert_vectors(cpu.by_threshold(p), f"vpsrlv{SIZES[carrier][1]}", *arrays(carrier), cpu.words_of(p, (eps,)))


@both_carriers
def test_loops_that_draw(carrier) -> None:
    """The loop that draws its words multiplies and rounds in vectors."""
    p, source = parameters(E4M3, Saturation.SatFinite, carrier, Mode.SR), stochastic(Mode.SR, 32, carrier)
    x, y = arrays(carrier)
    streams = np.zeros(1, np.uint64)
    words = cpu.words_of(p, source)
    for text in (
        assembly(cpu.by_key(p, source), x, y, 0, 0, 0, 0, words),
        assembly(cpu.by_keys(p, source), x[np.newaxis], y[np.newaxis], 0, streams, 0, 0, words),
    ):
        assert packed(text, "vpmuludq")
        assert packed(text, f"vpsrlv{SIZES[carrier][1]}")
        assert in_order(text)


def test_the_loop_of_words_alone() -> None:
    """Random words are drawn in vectors."""
    assert_vectors(cpu.fill, "vpmuludq", np.zeros(400, np.uint32), 0, 0, 0)


@both_carriers
@pytest.mark.parametrize("codes", [False, True], ids=["values", "codes"])
def test_loops_with_scales(codes, carrier) -> None:
    """A scaled rounding divides and shifts in one packed loop."""
    p, t = parameters(INT8, Saturation.saturate, carrier, codes=codes), addends(Mode.RNE, carrier)
    x, s = np.zeros((2, 100), carrier), np.ones(2, carrier)
    y = np.zeros((2, 100), np.uint8 if codes else carrier)
    limit = () if codes else (np.inf,)
    text = assembly(cpu.by_scales(p, t, codes=codes), x, y, s, *limit, cpu.words_of(p, t))
    kind = {"d": "s", "q": "d"}[SIZES[carrier][1]]
    assert packed(text, f"vdivp{kind}")
    assert packed(text, f"vpsrlv{SIZES[carrier][1]}")
    assert in_order(text)


@both_carriers
def test_the_loop_of_the_largest_magnitude(carrier) -> None:
    """The maximum is found in vectors."""
    x, y = arrays(carrier)
    instruction = {4: "vpmaxud", 8: "v(pcmpgtq|pmaxuq)"}[x.itemsize]
    assert_vectors(cpu.largest, instruction, x[np.newaxis], y[:1], 0, 1, 1 << (8 * x.itemsize - 1))


@both_carriers
def test_loops_that_decode(carrier) -> None:
    """Codes of floats and of integers become values without a table, whose reading takes one element after the other."""
    codes, (y, _) = np.zeros(100, np.uint8), arrays(carrier)
    words = np.zeros(len(Decoding._fields), y.dtype)
    kind = {"d": "s", "q": "d"}[SIZES[carrier][1]]
    assert_vectors(decode_floats, f"vsubp{kind}", codes, y, words)
    assert packed(assembly(decode_floats, codes, y, words), f"vpsllv{SIZES[carrier][1]}"), "shifts of another width"
    assert_vectors(decode_integers, f"vmulp{kind}", codes, y.view(carrier), 128, 1.0)


def test_a_bad_shape_is_seen() -> None:
    """A loop whose index may be negative takes its elements one by one, or is not packed at all."""

    @kernel()
    def slow(x: Array, y: Array, first: I64, last: I64) -> None:
        for i in range(first, last):
            y[i] = np.uint32(np.uint32(x[i] << np.uint32(3)) ^ np.uint32(x[i] >> (x[i] & np.uint32(31))))

    @kernel()
    def fast(x: Array, y: Array) -> None:
        for i in range(x.size):
            y[i] = np.uint32(np.uint32(x[i] << np.uint32(3)) ^ np.uint32(x[i] >> (x[i] & np.uint32(31))))

    x, y = arrays(np.dtype(np.float32))
    good, bad = assembly(fast, x, y), assembly(slow, x, y, 0, 100)
    assert packed(good, "vpsrlvd")
    assert in_order(good)
    assert not in_order(bad) or not packed(bad, "vpsrlvd")
