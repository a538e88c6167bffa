"""The sentences that refuse: what they show of a value, and how they are cut where nobody would read on."""

from __future__ import annotations

import copy
import pickle
from fractions import Fraction
from typing import Any

import numpy as np
import pytest

import qsim
from qsim.errors import InputError, integer, shown

SHOWN = [
    (5, "5"),
    (True, "True"),
    (None, "None"),
    (0.1, "0.1"),
    ("a\nb", r"'a\nb'"),
    (2**64, "18446744073709551616"),
    (10**60, "1" + "0" * 60),
    (10**61, "~1.000e+61"),
    (-(10**400), "~-1.000e+400"),
    (10**5000, "~1.000e+5000"),  # of which Python makes no text
    (7 * 10**1_000_000, "~7.000e+1000000"),
    ([1] * 100, "[1, 1, 1, 1, 1, 1, ...]"),
    ({"a": 10**500}, "{'a': ~1.000e+500}"),
    (Fraction(1, 3), "Fraction(1, 3)"),
    (Fraction(10**5000, 3), "a Fraction"),
    (np.float32(0.5), repr(np.float32(0.5))),
]


@pytest.mark.parametrize(("value", "text"), SHOWN, ids=range(len(SHOWN)))
def test_what_a_sentence_shows_of_a_value(value: Any, text: str) -> None:
    """Short values are shown as Python writes them, long ones by their beginning or their size."""
    assert shown(value) == text


LONG = [
    "a" * 5000, [["x"] * 50] * 50, np.arange(10_000.0), np.eye(100), dict.fromkeys(range(99), "v" * 99), {*range(999)},
    Fraction(10**300, 7), bytes(9999), ["a" * 99] * 99,
]  # fmt: skip


@pytest.mark.parametrize("value", LONG, ids=range(len(LONG)))
def test_no_value_takes_more_than_a_line(value: Any) -> None:
    """Whatever it is, what is shown of it has one line, and no more than a few dozen characters."""
    assert len(shown(value)) <= 123
    assert "\n" not in shown(value)


def test_a_sentence_cuts_what_nobody_reads() -> None:
    """Hundreds of digits, and quoted words of hundreds of letters, are cut in every sentence; paths and sentences are not."""
    path = "/a" * 300
    error = InputError(
        f"{path}: {'9' * 61} and {'9' * 60} of {'n' * 201!r} or {'n' * 200!r}: 'no word' {'of this ' * 99}'sort'"
    )
    assert str(error) == (
        f"{path}: {'9' * 20}... (61 digits) and {'9' * 60} of '{'n' * 60}...' (201 characters) or '{'n' * 200}': 'no word' "
        f"{'of this ' * 99}'sort'"
    )
    assert str(InputError(f"a/{'n' * 256}.npy: gone")) == f"a/{'n' * 60}... (260 characters): gone"
    assert str(pickle.loads(pickle.dumps(error))) == str(copy.copy(error)) == str(error)  # noqa: S301 - our own
    assert error.args == (str(error),)


ASKED = [
    qsim.Key,
    lambda n: qsim.Key(0, offset=n),
    lambda n: qsim.quantize([1.0], "e4m3", "SRA", sr_bits=n, key=qsim.Key(0)),
    lambda n: qsim.quantize([1.0], "e4m3", "Threshold", eps=n),
    lambda n: qsim.quantize([1.0], "e4m3", scale=n),
    lambda n: qsim.quantize([1.0], "e4m3", scale="absmax", per=n),
    lambda n: qsim.quantize([1.0], "e4m3", scale="absmax", per=(0, n)),
    lambda n: qsim.quantize([1.0], "e4m3", ftz_in=n),
    lambda n: qsim.get_format("e4m3").decode(n),
    lambda n: qsim.unpack(np.zeros(1, np.uint8), "int4", n),
    qsim.set_threads,
]


@pytest.mark.parametrize("value", [10**400, -(10**400), 10**5000], ids=["400", "-400", "5000"])
@pytest.mark.parametrize("ask", ASKED, ids=range(len(ASKED)))
def test_an_integer_of_any_length_is_refused_in_a_sentence(ask: Any, value: int) -> None:
    """Thousands of digits, of which Python makes no text, are refused like others, and hundreds are not printed."""
    with pytest.raises(InputError) as caught:
        ask(value)
    assert len(str(caught.value)) < 300


def test_an_integer_is_python_s() -> None:
    """NumPy's integers become Python's; others are named."""
    assert integer("n", np.uint8(3)) == 3
    for wrong in (True, 1.0, "1", None):
        with pytest.raises(InputError, match=f"n = {wrong!r} must be an integer"):
            integer("n", wrong)
