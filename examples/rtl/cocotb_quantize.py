"""A scoreboard of cocotb: every number goes through the pipeline, and its code is the golden model's, as bits.

cocotb's == holds for "1111" and 15 as well as -1, and an x only makes it false: the codes are compared as texts of 0 and 1.
"""

from __future__ import annotations

import cocotb
from cocotb.triggers import Timer

from qsim.golden import Operands, named
from qsim.golden.compare import same_bits
from qsim.golden.directed import directed

LATENCY = 2
COUNT = 4000


async def clock(dut) -> None:
    """Give the device one clock."""
    dut.clk.value = 0
    await Timer(1, unit="ns")
    dut.clk.value = 1
    await Timer(1, unit="ns")


async def stream(dut, model: str, *, stochastic: int, saturate: int) -> None:
    """Send the directed vectors of a model, one a clock, and compare what comes out two clocks later."""
    converter = named(model)
    x, words = directed(converter, "float32")
    some = slice(None, None, max(len(x) // COUNT, 1))
    x = Operands(x.kind, x.bits[some])
    words = None if words is None else words[some]
    right = converter.convert(x, words).tolist()
    dut.stochastic.value, dut.saturate.value = stochastic, saturate
    sent = list(zip(x.bits.tolist(), [0] * len(x) if words is None else words.tolist(), strict=True))
    for at in range(len(sent) + LATENCY):
        bits, word = sent[min(at, len(sent) - 1)]
        dut.x.value, dut.rbits.value = bits, word
        await clock(dut)
        if at >= LATENCY - 1 and at - LATENCY + 1 < len(sent):
            done = at - LATENCY + 1
            assert same_bits(dut.y.value, right[done], 8), (
                f"{sent[done][0]:#010x}: {dut.y.value}, not {right[done]:08b}"
            )


@cocotb.test()
async def to_nearest(dut) -> None:
    """Round to nearest and saturate as PyTorch."""
    await stream(dut, "torch-2.13/float8_e4m3fn", stochastic=0, saturate=1)


@cocotb.test()
async def to_nearest_without_saturation(dut) -> None:
    """Round to nearest with an overflow to NaN, as ml_dtypes."""
    await stream(dut, "ml_dtypes-0.6/float8_e4m3fn", stochastic=0, saturate=0)


@cocotb.test()
async def stochastically(dut) -> None:
    """Go the way that the word says."""
    await stream(dut, "e4m3@torch:SRA(8)", stochastic=1, saturate=1)
