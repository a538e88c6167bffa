"""Every fault that fixed operators can put into the scalar core is refuted by the theorems, and by directed inputs.

A mutant that no theorem refutes computes the same as the core for every input, word and threshold of the theorems' formats: the
theorems are equalities with the reference, which the core satisfies too. Such survivors are listed by name, with the reason.
"""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
from mutation import Mutant, mutants

from qsim import reference
from qsim.formats import Format, get_format
from qsim.kernels.parameters import parameters, stochastic, thresholds
from qsim.prove import find
from qsim.prove.specification import FLOAT32, evaluate, value
from qsim.rounding import Mode, Saturation
from qsim.verdicts import Outcome

ALL = mutants()

CASES: tuple[tuple[str, Saturation, Mode, int, str], ...] = (
    ("float8_e4m3fn", Saturation.SatFinite, Mode.RNE, 0, "canonical"),
    ("int4", Saturation.saturate, Mode.RNE, 0, "canonical"),
    ("e4m0fn", Saturation.OvfNaN, Mode.RNE, 0, "signed"),
    ("float8_e5m2", Saturation.SatNone, Mode.RUP, 0, "signed"),
    ("float8_e4m3fn", Saturation.OvfNaN, Mode.SRA, 8, "canonical"),
    ("float8_e5m2", Saturation.SatPropagate, Mode.SRC, 31, "canonical"),
    ("int4", Saturation.saturate, Mode.SRC, 0, "canonical"),
    ("float8_e4m3fn", Saturation.SatFinite, Mode.SRB, 8, "canonical"),
    ("e4m0fn", Saturation.SatFinite, Mode.SRE, 8, "canonical"),
    ("float8_e4m3fn", Saturation.SatFinite, Mode.THR, 0, "canonical"),
    ("Binary6p3ue", Saturation.SatNone, Mode.RDN, 0, "canonical"),
    ("float8_e4m3fnuz", Saturation.OvfNaN, Mode.RTO, 0, "canonical"),
    ("uint4", Saturation.saturate, Mode.RAZ, 0, "canonical"),
    ("e8m0fn", Saturation.SatFinite, Mode.SRC, 8, "canonical"),
)
"""Formats, saturations and modes that together reach every line of the core, the quickest to refute first."""

SURVIVORS: dict[str, str] = {}
"""Mutants that compute what the core does, with the reason."""


# --- By theorems -----------------------------------------------------------------------------------------------------


@functools.cache
def theorem() -> ModuleType:
    """Return the module of the theorem that the kernel is the reference in every mode."""
    (proof,) = find(["modes_kernel_smt"])
    import sys

    return sys.modules[proof.prove.__module__]


def refuted_by_theorem(core: ModuleType) -> int | None:
    """Return the number of the first case by which the theorem refutes a core, `None` if there is none."""
    module = theorem()
    honest, module.core = module.core, core
    try:
        for at, (name, saturation, mode, n, nan) in enumerate(CASES):
            if module.prove_one(get_format(name), saturation, mode, n, nan).outcome is Outcome.REFUTED:
                return at
    finally:
        module.core = honest
    return None


# --- By directed inputs ----------------------------------------------------------------------------------------------


def directed(fmt: Format, n: int) -> Iterator[int]:
    """Yield patterns beside every threshold of a small format, and beside the landmarks of float32.

    Of `n` random bits the first thresholds above zero as well, so small that float32 has bits below the words of the core.
    """
    exact = []
    for ordinal in range(max(fmt.top, fmt.bottom) + 2):
        low, high = fmt.value(ordinal), fmt.value(ordinal + 1)
        exact += [low, low + (high - low) / 256, (low + high) / 2, low + (high - low) * 3 / 4]
    exact += [fmt.value(1) * odd / (2 << n) for odd in (1, 2, 3, 5)]
    near = [FLOAT32.pattern(float(np.float32(float(value)))) for value in exact if value < 2**128]
    near += [1, 1 << 22, 1 << 23, FLOAT32.infinity, FLOAT32.nan, FLOAT32.nan + 5, (1 << 31) - 2]
    yield from sorted({u + step for u in near for step in (-1, 0, 1) if u + step >= 0})


@functools.cache
def expected(case: int) -> list[tuple[int, int, float, int]]:
    """Return the directed inputs of a case, each with its word or eps, and the value and code that the reference gives."""
    name, saturation, mode, n, nan = CASES[case]
    fmt = get_format(name)
    words = (0, 1 << (32 - max(n, 1)), 1 << 31, (1 << 31) - 1, (1 << 32) - 1) if mode.stochastic else (0,)
    words = (0, 1 << 20, 1 << 31, 3 << 30, (1 << 32) - 1) if mode is Mode.THR else words
    found = []
    for u, sign, word in itertools.product(directed(fmt, n), (0, 1 << 31), words):
        drawn: dict[str, Any] = {"sr_bits": n, "rbits": word >> (32 - n) if n else 0} if mode.stochastic else {}
        drawn |= {"eps": word / 2**32} if mode is Mode.THR else {}
        code = reference.encode(value(u | sign), fmt, mode, saturation=saturation, nan=nan, **drawn)
        found.append((u | sign, word, fmt.decode(code), code))
    return found


def refuted_by_inputs(core: ModuleType, first: int) -> str:
    """Return a directed input on which a core and the reference differ, "" if there is none; `first` is tried first."""
    for at in (first, *(case for case in range(len(CASES)) if case != first)):
        name, saturation, mode, n, nan = CASES[at]
        p = parameters(get_format(name), saturation, FLOAT32.dtype, mode, signed_nan=nan == "signed")
        for u, word, right, code in expected(at):
            with np.errstate(all="ignore"):
                try:
                    got = evaluate(core, u, *limits(core, mode, n, u, word)[:2], p, limits(core, mode, n, u, word)[2])
                except (OverflowError, ValueError):
                    return f"{name} {mode} at {u:#x}: no word at all"
            back = value(got.value)
            same = back == right and math.copysign(1, back) == math.copysign(1, right)
            if got.code != code or not (same or (math.isnan(back) and math.isnan(right))):
                return f"{name} {mode} at {u:#x}, word {word:#x}"
    return ""


def limits(core: ModuleType, mode: Mode, n: int, u: int, word: int) -> tuple[int, int, int]:
    """Return the thresholds for an input, and whether they are sticky."""
    if mode.stochastic:
        t, sticky = core.stochastic_threshold(np.uint32(word), stochastic(mode, n, FLOAT32.dtype))
        return int(t), int(t), int(sticky)
    if mode is Mode.THR:
        t, sticky = core.eps_threshold(np.uint32(word), u >> 31 == 1)
        return int(t), int(t), int(sticky)
    t = thresholds(mode, FLOAT32.dtype)
    pair = (t.even_neg, t.odd_neg) if u >> 31 else (t.even_pos, t.odd_pos)
    return int(pair[0]), int(pair[1]), int(t.sticky)


# --- The verdict -----------------------------------------------------------------------------------------------------


def judge(mutant: Mutant, folder: Path) -> tuple[int | None, str]:
    """Return what refutes a mutant: the number of a case of the theorem, and a directed input."""
    core = mutant.module(folder)
    by_theorem = refuted_by_theorem(core)
    return by_theorem, refuted_by_inputs(core, by_theorem or 0)
