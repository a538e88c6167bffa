"""Tests of a quantizer of your own. Copy this file and put your function in place of `to_e4m3` and `to_e4m3_stochastic`.

    pip install 'qsim-numerics[testing]' pytest
    pytest test_my_quantizer.py

A failure prints the simplest input that goes wrong, the rule that should have decided, and what kind of mistake gives all the
answers that were seen: ties, a lost sticky bit or carry, the range checked before the rounding, the word used backwards, ...
"""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

import qsim
from qsim.testing import (
    WITHOUT_WORDS,
    assert_quantizer,
    audit_rbits,
    check_quantizer,
    check_stochastic_device,
    plan_device_check,
)  # fmt: skip
from qsim.testing import strategies as qst
from qsim.verdicts import Outcome

E4M3 = qsim.get_format("float8_e4m3fn")

# --- The quantizers under test: float32 to the codes of OCP's E4M3, saturating ----------------------------------------


def to_e4m3(x):
    """Round float32s to the nearest value of E4M3, ties to even; return codes."""
    return _convert(x, lambda kept, rest, unit: 2 * rest + (kept & 1) > unit)


def to_e4m3_stochastic(x, rbits):
    """Round float32s stochastically: add the 8-bit word below the last bit kept, and see whether it carries."""
    r = rbits.astype(np.int64)
    return _convert(x, lambda _, rest, unit: (rest << 8) // unit + r >= 256)


def _convert(x, goes_up):
    u = x.view(np.uint32).astype(np.int64)
    sign, magnitude = u >> 31, u & 0x7FFFFFFF
    field = magnitude >> 23
    significand = (magnitude & 0x7FFFFF) | (field > 0) << 23
    exponent = np.maximum(field, 1) - 127
    shift = np.minimum(20 + np.maximum(-6 - exponent, 0), 40)  # E4M3 has 20 bits fewer, and no normal number below 2^-6
    kept, unit = significand >> shift, 1 << shift
    up = goes_up(kept, significand & (unit - 1), unit)
    code = kept + up + (np.maximum(exponent + 6, 0) << 3)  # a carry into the exponent is in order
    code = np.minimum(code, 0x7E)  # 448; infinities too
    code = np.where(magnitude > 0x7F800000, 0x7F, code)  # NaN
    return (code | sign << 7).astype(np.uint8)


# --- The tests --------------------------------------------------------------------------------------------------------


def test_nearest():
    """Every law, at and next to all thresholds of the format."""
    assert_quantizer(to_e4m3, E4M3, "RNE", codes=True)


def test_stochastic():
    """The same for given random words; bias and variance are exact, since all 2^8 words are tried."""
    assert_quantizer(to_e4m3_stochastic, E4M3, "SRA", sr_bits=8, codes=True)


def test_bias():
    """The bias and the variance of your own function, exactly: StochasticA loses less than 2^-8 of an interval."""
    verdict = check_quantizer(to_e4m3_stochastic, E4M3, "SRA", sr_bits=8, codes=True)
    print(verdict.bias)  # in words; pandas.DataFrame(verdict.moments.rows()) is the table
    assert all(-1 / 256 < cell.bias <= 0 for cell in verdict.moments)


def test_stochastic_with_words_of_its_own():
    """Without an argument `rbits` nothing shows that it is unbiased: these laws hold for every word, `test_device` asks on.

    Without `laws` the verdict is "not decided", and `assert_quantizer` raises.
    """
    rng = np.random.default_rng(0)

    def quantizer(x):
        return to_e4m3_stochastic(x, rng.integers(0, 256, x.shape))

    assert_quantizer(quantizer, E4M3, "SRA", sr_bits=8, codes=True, laws=WITHOUT_WORDS)
    assert check_quantizer(quantizer, E4M3, "SRA", sr_bits=8, codes=True).outcome is Outcome.NOT_DECIDED


def test_device():
    """A device that draws its own words: support, frequencies and independence, at a rate of false alarms of 1e-6.

    The plan says how much is drawn, what is found with which probability, and what cannot be seen; pytest -s shows it.
    """
    rng = np.random.default_rng(0)

    def device(x):
        return to_e4m3_stochastic(x, rng.integers(0, 256, x.shape))

    plan = plan_device_check(E4M3, "SRA", sr_bits=8, bias=1 / 16, alpha=1e-6, power=0.99, bits=8, codes=True)
    print(plan)
    verdict = check_stochastic_device(device, plan)
    assert verdict.outcome is Outcome.HELD, verdict


def test_words():
    """The words themselves, where they can be had: each bit, each lane, the time, and whether they come again."""
    rng = np.random.default_rng(0)
    verdict = audit_rbits(lambda lanes: rng.integers(0, 256, lanes), bits=8)
    assert verdict.outcome is Outcome.HELD, verdict


@given(qst.codes(E4M3))
def test_code_round_trip(code):
    """A code decoded and rounded again is that code."""
    assert to_e4m3(np.array([E4M3.decode(code)], np.float32))[0] in {code, code & 0x7F}  # a NaN may lose its sign


@given(st.data())
def test_error_is_less_than_the_interval(data):
    """A law of your own: a result is no further from x than the neighbours are from each other."""
    x = data.draw(qst.values(E4M3, np.float32).filter(lambda x: abs(x) <= 448))
    word = data.draw(qst.words(8))
    y = E4M3.decode(int(to_e4m3_stochastic(np.array([x]), np.array([word]))[0]))
    low, high = E4M3.neighbours(float(x))
    assert abs(y - float(x)) <= high - low
