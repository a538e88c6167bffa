"""Hold other packages' roundings to the laws, and print what is found, with one line of Python that shows each fault.

    python check_peers.py [--markdown FILE] [PACKAGE ...]

Of ml_dtypes, gfloat, apytypes, pychop and qtorch those are asked that are installed (`tox -e peers` installs them). A rounding
is a Python expression, so that a fault can be seen by pasting its line after the imports that the table begins with.

Where standards leave a choice, each package is held to its own: which NaN comes out, and whether what is too large saturates.
A fault is what is then neither the right value nor a documented limit.
"""

from __future__ import annotations

import argparse
import importlib
import importlib.metadata
import io
import re
import sys
import warnings
from collections.abc import Iterator
from contextlib import redirect_stdout
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

import qsim
from qsim.testing import LAWS, OF_WORDS, check_quantizer, check_stochastic_device, plan_device_check
from qsim.verdicts import Outcome, Verdict

IMPORTS = ("numpy as np", "ml_dtypes", "gfloat", "gfloat.formats", "apytypes", "pychop", "qtorch.quant")

# --- The roundings ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Rounding:
    """Hold one rounding of a package, and what it should be."""

    package: str
    expression: str
    format: str
    mode: str = "RNE"
    dtype: str = "float32"
    #: Draws its own words: the device check is made as well.
    device: bool = False
    options: dict[str, Any] = field(default_factory=dict)


def roundings() -> Iterator[Rounding]:
    """Yield all roundings that are checked."""
    yield from of_ml_dtypes()
    yield from of_gfloat()
    yield from of_apytypes()
    yield from of_pychop()
    yield from of_qtorch()


def of_ml_dtypes() -> Iterator[Rounding]:
    """Yield the conversions of ml_dtypes: to nearest even, from each type."""
    names = (
        "bfloat16", "float8_e3m4", "float8_e4m3", "float8_e4m3fn", "float8_e4m3fnuz", "float8_e4m3b11fnuz", "float8_e5m2",
        "float8_e5m2fnuz", "float6_e2m3fn", "float6_e3m2fn", "float4_e2m1fn",
    )  # fmt: skip
    for name in names:
        fmt = qsim.get_format(name)
        rule = "SatNone" if fmt.has_inf else "OvfNaN" if fmt.has_nan else "SatFinite"
        options: dict[str, Any] = {"saturation": rule}
        if not fmt.has_nan:  # a NaN becomes -0 there: the standard leaves it open
            options["laws"] = [law for law in LAWS if law != "specials"]
        for dtype in ("float16", "float32", "float64"):
            yield Rounding("ml_dtypes", f"lambda x: x.astype(ml_dtypes.{name})", name, dtype=dtype, options=options)


def of_gfloat() -> Iterator[Rounding]:
    """Yield the roundings of gfloat: five directions, and three kinds of random words."""
    formats = {"ocp_e4m3": "float8_e4m3fn", "ocp_e5m2": "float8_e5m2", "bfloat16": "bfloat16", "binary16": "float16"}
    modes = {
        "TiesToEven": "RNE",
        "TiesToAway": "RNA",
        "TowardZero": "RTZ",
        "TowardPositive": "RUP",
        "TowardNegative": "RDN",
    }
    words = {"StochasticFastest": "SRA", "StochasticFast": "SRB", "Stochastic": "SRC"}
    for ours, name in formats.items():
        call = f"gfloat.round_ndarray(gfloat.formats.format_info_{ours}, x, gfloat.RoundMode."
        options: dict[str, Any] = {"saturation": "SatNone" if qsim.get_format(name).has_inf else "OvfNaN"}
        for theirs, mode in modes.items():
            for dtype in ("float32", "float64"):
                yield Rounding("gfloat", f"lambda x: {call}{theirs}, False)", name, mode, dtype, options=options)
        for theirs, mode in words.items():
            expression = f"lambda x, rbits: {call}{theirs}, False, rbits, 5)"
            yield Rounding("gfloat", expression, name, mode, options=options | {"sr_bits": 5})


def of_apytypes() -> Iterator[Rounding]:
    """Yield casts of apytypes: formats with infinities, all its modes that have a name here, and words of its own."""
    modes = {"TIES_EVEN": "RNE", "TIES_AWAY": "RNA", "TIES_ZERO": "RNZ", "TIES_POS": "RNP", "TIES_NEG": "RNN",
             "TO_ZERO": "RTZ", "TO_POS": "RUP", "TO_NEG": "RDN", "TO_AWAY": "RAZ", "JAM_UNBIASED": "RTO"}  # fmt: skip
    for name, e, m in (("float8_e5m2", 5, 2), ("float8_e4m3", 4, 3), ("float16", 5, 10)):
        for theirs, mode in {**modes, "STOCH_WEIGHTED": "SR", "STOCH_EQUAL": "SRE"}.items():
            if name == "float16" and mode not in ("RNE", "SR"):
                continue
            quantization = f"quantization=apytypes.QuantizationMode.{theirs}"
            expression = (
                f"lambda x: apytypes.APyFloatArray.from_float(x, 8, 23).cast({e}, {m}, {quantization}).to_numpy()"
            )
            options = {"saturation": "SatPropagate"} if mode == "RTO" else {}  # as in SoftFloat; in P3109 it overflows
            yield Rounding("apytypes", expression, name, mode, device=mode in ("SR", "SRE"), options=options)


def of_pychop() -> Iterator[Rounding]:
    """Yield `Chop` of pychop in its deterministic modes and with words of its own, and `FaultChop` to nearest."""
    modes = {1: "RNE", 2: "RUP", 3: "RDN", 4: "RTZ", 7: "RNZ", 8: "RNA", 9: "RTO", 5: "SR", 6: "SRE"}
    for name, e, m in (("float8_e5m2", 5, 2), ("float8_e4m3", 4, 3), ("float16", 5, 10)):
        for theirs, mode in modes.items():
            if name == "float16" and mode != "RNE":
                continue
            if mode.startswith("SR"):  # one object for all calls: it has its generator
                expression = f"(lambda chop: lambda x: chop(x))(pychop.Chop({e}, {m}, rmode={theirs}))"
            else:
                expression = f"lambda x: pychop.Chop({e}, {m}, rmode={theirs})(x)"
            yield Rounding("pychop", expression, name, mode, "float64", device=mode.startswith("SR"))
    for name, prec in (("float8_e5m2", "q52"), ("float16", "h"), ("bfloat16", "b")):
        yield Rounding("pychop", f"lambda x: pychop.FaultChop({prec!r}, subnormal=True)(x)", name, "RNE", "float64")


def of_qtorch() -> Iterator[Rounding]:
    """Yield the roundings of QPyTorch, whose formats saturate and whose nearest is to even on the CPU."""
    for name, e, m in (("float8_e5m2", 5, 2), ("float8_e4m3", 4, 3)):
        for theirs, mode in (("nearest", "RNE"), ("stochastic", "SR")):
            call = f"qtorch.quant.float_quantize(torch.from_numpy(x), {e}, {m}, {theirs!r})"
            options = {"saturation": "SatFinite", "laws": [law for law in LAWS if law != "specials"]}
            yield Rounding("qtorch", f"lambda x: {call}.numpy()", name, mode, device=mode == "SR", options=options)


# --- The checks -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Fault:
    """Hold one fault: what it is, which laws it breaks, and what shows it."""

    #: The one known cause of all wrong answers; where there is none, or there are several faults, what is wrong.
    name: str
    laws: tuple[str, ...]
    says: str
    shown: str


def check(rounding: Rounding, names: dict[str, Any]) -> list[Fault]:
    """Return the faults of one rounding, one for each name."""
    fn = eval(rounding.expression, names)  # noqa: S307 - the expressions above
    fn.__name__ = f"({rounding.expression})"
    how: dict[str, Any] = {"dtype": rounding.dtype, "nan": "any", **rounding.options}
    found: dict[str, Fault] = {}
    laws = how.pop("laws", list(LAWS))
    held = check_quantizer(fn, rounding.format, rounding.mode, laws=laws, **how).outcome is Outcome.HELD
    for law in () if held else laws:  # one by one, so that each broken law shows its own first failure
        if law in OF_WORDS and not rounding.mode.startswith("SR"):
            continue
        verdict = check_quantizer(fn, rounding.format, rounding.mode, laws=[law], **how)
        if verdict.outcome is Outcome.REFUTED:
            fault = explained(law, rounding.mode, verdict)
            first = found.get(fault.name, fault)
            found[fault.name] = replace(first, laws=(*first.laws, *(() if first is fault else fault.laws)))
    faults = list(found.values())
    if rounding.device and not any("neighbours" in fault.laws for fault in faults):  # else frequencies say nothing
        options = {name: how[name] for name in ("dtype", "saturation", "sr_bits") if name in how}
        plan = plan_device_check(rounding.format, rounding.mode, **options)
        verdict = check_stochastic_device(fn, plan)
        if verdict.outcome is Outcome.REFUTED:
            first_line, *_ = verdict.counterexample.splitlines()
            faults.append(
                Fault("the random words", ("device",), first_line, f"{rounding.expression}  # {plan.draws:,} draws")
            )
    return faults


def explained(law: str, mode: str, verdict: Verdict) -> Fault:
    """Return a refutation in parts; where no cause explains all answers, its name is the law or the mode."""
    lines = verdict.counterexample.splitlines()
    shown = next((line.removeprefix("reproduce: ") for line in lines if line.startswith("reproduce: ")), "")
    causes = [line.removeprefix("causes").strip() for line in lines if line.startswith("causes")]
    kind = law if law in {"fixed points", "saturation", "specials", "sign of zero"} else f"wrong values by {mode}"
    whole = causes and not re.search(r"\([\d,]+ of", causes[0]) and not causes[0].startswith("none of the known")
    return Fault(causes[0] if whole else kind, (law,), lines[0].split(": ", 1)[1], shown)


# --- The table --------------------------------------------------------------------------------------------------------


def main() -> int:
    """Check the packages that are named, or all; return 0 whatever is found in them."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--markdown", type=Path, metavar="FILE", help="write the table there")
    parser.add_argument("package", nargs="*", help="check these only")
    arguments = parser.parse_args()
    names: dict[str, Any] = {}
    for line in IMPORTS:
        module, _, alias = line.partition(" as ")
        try:
            with redirect_stdout(io.StringIO()), warnings.catch_warnings():
                warnings.simplefilter("ignore")
                imported = importlib.import_module(module)
        except ImportError:
            continue
        top = module.partition(".")[0]
        names[alias or top] = imported if alias else sys.modules[top]
    if "qtorch" in names:
        names["torch"] = importlib.import_module("torch")
    rows: dict[tuple[str, str], list[tuple[Rounding, Fault]]] = {}
    counts: dict[str, list[int]] = {}
    missing = set()
    for rounding in roundings():
        if arguments.package and rounding.package not in arguments.package:
            continue
        if rounding.package not in names:
            missing.add(rounding.package)
            continue
        with np.errstate(all="ignore"), redirect_stdout(io.StringIO()), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            faults = check(rounding, names)
        count = counts.setdefault(rounding.package, [0, 0])
        count[0] += 1
        count[1] += not faults
        for fault in faults:
            rows.setdefault((rounding.package, fault.name), []).append((rounding, fault))
    for (package, name), found in rows.items():
        print(f"{package}: {name}, in {where(found)}")
        print(f"    {found[0][1].says}\n    {found[0][1].shown}")
    for package, (count, held) in counts.items():
        print(f"{package} {importlib.metadata.version(package)}: {held} of {count} roundings hold")
    for package in sorted(missing):
        print(f"{package}: not installed")
    if arguments.markdown:
        arguments.markdown.write_text(markdown(rows, counts, missing), encoding="utf-8")
    return 0


def where(found: list[tuple[Rounding, Fault]]) -> str:
    """Return the roundings that have a fault, by the type they start from."""
    by_type: dict[str, list[str]] = {}
    for rounding, _ in found:
        by_type.setdefault(rounding.dtype, []).append(f"{rounding.format}:{rounding.mode}")
    return "; ".join(f"{', '.join(names)} from {dtype}" for dtype, names in by_type.items())


def markdown(
    rows: dict[tuple[str, str], list[tuple[Rounding, Fault]]], counts: dict[str, list[int]], missing: set[str]
) -> str:
    """Return the table as Markdown."""
    lines = [
        "# What the laws find in other packages",
        "",
        f"Made by `examples/check_peers.py` with NumPy {np.__version__}: each rounding is tried at and next to all thresholds.",
        "",
        "| package | roundings | hold |",
        "| --- | --- | --- |",
        *(
            f"| {name} {importlib.metadata.version(name)} | {count} | {held} |"
            for name, (count, held) in counts.items()
        ),
        *(f"| {name} | not installed | |" for name in sorted(missing)),
        "",
        "To see a fault, paste its line after the imports:",
        "",
        "```python",
        *(f"import {line}" for line in IMPORTS if line.partition(".")[0].partition(" ")[0] in {"numpy", *counts}),
        "```",
    ]
    for (package, name), found in rows.items():
        fault = found[0][1]
        laws = ", ".join(dict.fromkeys(law for _, other in found for law in other.laws))
        lines += [
            "",
            f"**{package}: {name}**, in {where(found)}. Laws broken: {laws}. {fault.says[0].upper()}{fault.says[1:]}:",
            "",
            "```text",  # a formatter of Python would break the line
            fault.shown,
            "```",
        ]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    sys.exit(main())
