"""A converter as a table of steps, in Verilog-2005 and in C99.

Ordered by their bit patterns, both signs and NaNs included, inputs fall into runs of one code: a table of the first pattern of
each run, searched in halves, is the converter. With a random word there are two tables, for the word 0 and for the last, and
an input takes the code of the second from its first word on: 2^N less the top N bits of the discarded fraction, which shifts of
the significand give.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from qsim.errors import InputError
from qsim.formats import Grid
from qsim.golden.converter import Converter
from qsim.golden.directed import specials, type_of
from qsim.golden.operands import Operands, every, width
from qsim.rounding import Mode

__all__ = ["Spec", "as_c", "as_dpi", "as_header", "as_verilog", "spec_of"]

Bits = NDArray[np.uint64]

MOST = 1 << 13
"""Runs of a table; that to bfloat16 has 65,280 of them, which no tool reads in a reasonable time."""


@dataclass(frozen=True, eq=False)
class Spec:
    """Hold the tables of a converter."""

    converter: Converter
    kind: str
    name: str
    #: The first patterns of the runs, and their codes, with the word 0 (or without one) and with the last word.
    low: tuple[Bits, NDArray[np.int64]]
    high: tuple[Bits, NDArray[np.int64]] | None

    @property
    def width(self) -> int:
        """The bits of an input."""
        return width(self.kind)

    @property
    def code_bits(self) -> int:
        """The bits of a code."""
        return self.converter.format.bits

    @property
    def n(self) -> int:
        """The bits of the word that are used."""
        return self.converter.entry.sr_bits


def spec_of(converter: Converter, kind: str = "") -> Spec:
    """Return the tables of a converter; raise `InputError` where it has none."""
    kind = type_of(converter, kind)
    if kind == "int32":
        raise InputError(f"{converter.name} takes integers, of which no table of steps is made")
    name = "qsim_" + re.sub(r"\W+", "_", converter.name).strip("_")
    last = (1 << converter.word_bits) - 1
    if not converter.word_bits:
        return Spec(converter, kind, name, _runs(converter, kind, None), None)
    mode, fmt = converter.quantizer.mode if not converter.entry.rule else None, converter.format
    if mode is not Mode.SRA or not isinstance(fmt, Grid) or fmt.gap or converter.entry.first:
        raise InputError(f"{converter.name} is no StochasticA of a grid, of which alone a table with words is made")
    if converter.word_bits > 32 or kind == "float64":
        raise InputError(
            f"{converter.name} has words of {converter.word_bits} bits for {kind}; 32 bits of each are written"
        )
    return Spec(converter, kind, name, _runs(converter, kind, 0), _runs(converter, kind, last))


def _runs(converter: Converter, kind: str, word: int | None) -> tuple[Bits, NDArray[np.int64]]:
    """Return the first pattern of each run of one code, ascending, and the codes."""
    bits = width(kind)

    def codes(at: Bits) -> NDArray[np.int64]:
        words = None if word is None else np.full(len(at), word, np.uint64)
        return converter.convert(Operands(kind, at), words)

    if bits == 16:
        points = every(kind).bits
    else:
        points = np.arange(1 << 16, dtype=np.uint64) << np.uint64(bits - 16)
        near = specials(kind)
        last = np.uint64((1 << bits) - 1) if bits < 64 else np.uint64(0xFFFFFFFFFFFFFFFF)
        points = np.unique(
            np.concatenate([points, near, np.where(near < last, near + np.uint64(1), near), np.array([last])])
        )
    low, high = points[:-1], points[1:]
    at_low, at_high = codes(low), codes(high)
    starts = [np.zeros(1, np.uint64)]
    while len(low):
        keep = at_low != at_high
        low, high, at_low, at_high = low[keep], high[keep], at_low[keep], at_high[keep]
        near = high - low == 1
        starts.append(high[near])
        low, high, at_low, at_high = low[~near], high[~near], at_low[~near], at_high[~near]
        if sum(map(len, starts)) + len(low) > MOST:
            raise InputError(
                f"{converter.name} has more than {MOST:,} runs of one code; a table is for codes of up to about 10 bits"
            )
        middle = low + (high - low) // np.uint64(2)
        at = codes(middle)
        low, high = np.concatenate([low, middle]), np.concatenate([middle, high])
        at_low, at_high = np.concatenate([at_low, at]), np.concatenate([at, at_high])
    first = np.unique(np.concatenate(starts))
    return first, codes(first)


# --- Verilog ---------------------------------------------------------------------------------------------------------


def as_verilog(spec: Spec) -> str:
    """Return a module of Verilog-2005: combinational, a tree of comparisons, every input defined."""
    w, c, entry = spec.width, spec.code_bits, spec.converter.entry
    ports = [f"input wire [{w - 1}:0] x"]
    if spec.high is not None:
        ports.append(f"input wire [{spec.converter.word_bits - 1}:0] rbits")
    ports.append(f"output reg [{c - 1}:0] y")
    lines = [
        f"// {entry.name}: {entry.format}, {entry.mode}, {entry.saturation}; {entry.status}.",
        f"// {len(spec.low[0])} runs of one code. Written by qsim rtl-spec; words are bits, x is {spec.kind}.",
        f"module {spec.name} ({', '.join(ports)});",
    ]
    if spec.high is None:
        lines += ["  always @* begin", *_tree(spec, spec.low, "y"), "  end", "endmodule"]
        return "\n".join(lines) + "\n"
    lines += [f"  reg [{c - 1}:0] stays, goes;", "  always @* begin", *_tree(spec, spec.low, "stays"), "  end"]
    lines += ["  always @* begin", *_tree(spec, spec.high, "goes"), "  end", *_first_word(spec)]
    lines += ["  always @* y = away ? goes : stays;", "endmodule"]
    return "\n".join(lines) + "\n"


def _tree(spec: Spec, table: tuple[Bits, NDArray[np.int64]], target: str) -> list[str]:
    """Return nested comparisons that set `target` to the code of x."""
    first, codes = table

    def part(low: int, high: int, depth: int) -> list[str]:
        pad = "  " * depth
        if high - low == 1:
            return [f"{pad}{target} = {spec.code_bits}'h{int(codes[low]):x};"]
        middle = (low + high) // 2
        return [
            f"{pad}if (x < {spec.width}'h{int(first[middle]):x}) begin", *part(low, middle, depth + 1), f"{pad}end else begin",
            *part(middle, high, depth + 1), f"{pad}end",
        ]  # fmt: skip

    return part(0, len(first), 2)


@dataclass(frozen=True, slots=True)
class Shape:
    """Say how the fraction of an input is found: fields of its pattern, and the exponents of its and the format's bits."""

    man: int
    exp: int
    #: The exponent of the last bit of a subnormal input, of that of the format, and the bits of the format's fraction.
    lsb: int
    fmt_lsb: int
    fmt_man: int
    even: bool


def _shape(spec: Spec) -> Shape:
    number, fmt = Operands(spec.kind, np.zeros(0, np.uint64)).number, spec.converter.format
    assert isinstance(fmt, Grid)  # by `spec_of`
    return Shape(number.man_bits, number.exp_bits, number.lsb, fmt.lsb, fmt.man_bits, fmt.even)


def _chosen(spec: Spec) -> tuple[int, int]:
    """Return the bits of the word that are used, the highest and the lowest."""
    entry = spec.converter.entry
    low = 0 if entry.word_part == "low" else entry.word_bits - entry.sr_bits
    return low + entry.sr_bits - 1, low


def _first_word(spec: Spec) -> list[str]:
    """Return the lines that compare the word with the fraction.

    With e the exponent field (1 for subnormal inputs), the last bit of the significand is 2^(lsb + e - 1), that of the result
    2^q, q = max(lsb + e - 1 + man - fmt_man, fmt_lsb), or fmt_lsb on an even grid: s = q - (lsb + e - 1) bits are discarded.
    """
    at, n = _shape(spec), spec.n
    top, low = _chosen(spec)
    wide = at.man + 1 + n
    least = at.fmt_lsb - at.lsb + 1  # s + e where the format's last bit decides
    drop = at.man - at.fmt_man
    size = max(at.exp, 8) + 3
    shift = f"{least} - e" if at.even else f"({least} - e > {drop}) ? ({least} - e) : {drop}"
    return [
        f"  wire [{at.exp - 1}:0] field = x[{at.man + at.exp - 1}:{at.man}];",
        f"  wire signed [{size}:0] e = (field == 0) ? 1 : $signed({{1'b0, field}});",
        f"  wire [{at.man}:0] m = {{field != 0, x[{at.man - 1}:0]}};",
        f"  wire signed [{size}:0] s = {shift};",
        f"  wire [{wide - 1}:0] scaled = (s <= 0) ? {wide}'d0 : (s > {wide - 1}) ? {wide}'d0 : ({{m, {n}'d0}} >> s);",
        f"  wire [{n}:0] sum = {{1'b0, scaled[{n - 1}:0]}} + {{1'b0, rbits[{top}:{low}]}};",
        f"  wire away = sum[{n}];",
    ]


# --- C ---------------------------------------------------------------------------------------------------------------


def _types(spec: Spec) -> tuple[str, str]:
    return tuple(
        f"uint{next(size for size in (8, 16, 32, 64) if bits <= size)}_t" for bits in (spec.width, spec.code_bits)
    )  # type: ignore[return-value]


def as_header(spec: Spec) -> str:
    """Return the header of the C model."""
    x, y = _types(spec)
    word = ", uint32_t rbits" if spec.high is not None else ""
    words = ", const uint32_t *rbits" if spec.high is not None else ""
    guard = spec.name.upper() + "_H"
    return f"""\
/* {spec.converter.name}: bits of {spec.kind} to codes of {spec.converter.format.name}. Written by qsim. */
#ifndef {guard}
#define {guard}
#include <stddef.h>
#include <stdint.h>
#ifdef __cplusplus
extern "C" {{
#endif
{y} {spec.name}({x} x{word});
/* The number itself: a shortreal argument of DPI is a double, which must be a number of {spec.kind}. */
{y} {spec.name}_real(double value{word});
void {spec.name}_array(const {x} *x{words}, {y} *code, size_t count);
#ifdef __cplusplus
}}
#endif
#endif
"""


def as_c(spec: Spec) -> str:
    """Return the model in C99, without its header: a search in halves without branches."""
    x, y = _types(spec)
    entry, stochastic = spec.converter.entry, spec.high is not None
    tables, searches = "", ""
    for suffix, table in (("low", spec.low), ("high", spec.high)):
        if table is None:
            continue
        first, codes = table
        size = 1 << max(len(first) - 1, 1).bit_length()
        last = (1 << spec.width) - 1
        padded = [*first.tolist(), *[last] * (size - len(first))]
        filled = [*codes.tolist(), *[int(spec_code(codes))] * (size - len(first))]
        tables += f"static const {x} first_{suffix}[{size}] = {_list(padded, spec.width)};\n"
        tables += f"static const {y} code_{suffix}[{size}] = {_list(filled, spec.code_bits)};\n"
        steps = "".join(
            f"    at += (unsigned)(x >= first_{suffix}[at + {half}u]) * {half}u;\n" for half in _halves(size)
        )
        searches += (
            f"static {y} search_{suffix}({x} x)\n{{\n    unsigned at = 0;\n{steps}    return code_{suffix}[at];\n}}\n"
        )
    word = ", uint32_t rbits" if stochastic else ""
    words = ", const uint32_t *rbits" if stochastic else ""
    given = ", rbits[i]" if stochastic else ""
    body = _c_body(spec) if stochastic else "    return search_low(x);\n"
    return f"""\
/* {entry.name}: {entry.format}, {entry.mode}, {entry.saturation}; {entry.status}. Written by qsim. C99. */
#include <stddef.h>
#include <stdint.h>
#include <string.h>

{tables}
{searches}
{y} {spec.name}({x} x{word});
{y} {spec.name}({x} x{word})
{{
{body}}}

{_c_real(spec, y, word)}
void {spec.name}_array(const {x} *x{words}, {y} *code, size_t count);
void {spec.name}_array(const {x} *x{words}, {y} *code, size_t count)
{{
    for (size_t i = 0; i < count; i++)
        code[i] = {spec.name}(x[i]{given});
}}
"""


def spec_code(codes: NDArray[np.int64]) -> int:
    """Return the code of the last pattern, which fills up a table."""
    return int(codes[-1])


def _halves(size: int) -> list[int]:
    return [size >> step for step in range(1, size.bit_length())]


def _c_body(spec: Spec) -> str:
    at, n = _shape(spec), spec.n
    top, low = _chosen(spec)
    least, drop = at.fmt_lsb - at.lsb + 1, at.man - at.fmt_man
    shift = f"{least} - e" if at.even else f"{least} - e > {drop} ? {least} - e : {drop}"
    return f"""\
    int field = (int)(x >> {at.man}) & {(1 << at.exp) - 1};
    int e = field ? field : 1;
    uint64_t m = ((uint64_t)(field != 0) << {at.man}) | (x & {(1 << at.man) - 1}u);
    int s = {shift};
    uint64_t scaled = s <= 0 || s > 63 ? 0 : (m << {n}) >> s;
    uint64_t word = (rbits >> {low}) & {(1 << (top - low + 1)) - 1}u;
    return (scaled & {(1 << n) - 1}u) + word >> {n} ? search_high(x) : search_low(x);
"""


def _c_real(spec: Spec, y: str, word: str) -> str:
    head = f"{y} {spec.name}_real(double value{word});\n{y} {spec.name}_real(double value{word})\n{{\n"
    given = ", rbits" if word else ""
    match spec.kind:
        case "float64":
            copy = "    uint64_t x;\n    memcpy(&x, &value, sizeof x);\n"
        case "float32":
            copy = "    float single = (float)value;\n    uint32_t x;\n    memcpy(&x, &single, sizeof x);\n"
        case "bfloat16":
            copy = (
                "    float single = (float)value;\n    uint32_t wide;\n    memcpy(&wide, &single, sizeof wide);\n"
                "    uint16_t x = (uint16_t)(wide >> 16);\n"
            )
        case _:
            copy = (
                "    uint64_t wide;\n    memcpy(&wide, &value, sizeof wide);\n"
                "    uint64_t size = wide & 0x7fffffffffffffffu;\n    int e = (int)(size >> 52) - 1008;\n"
                "    uint64_t m = (size & 0xfffffffffffffu) | 0x10000000000000u;\n"
                "    uint16_t x = size >= 0x7ff0000000000000u ? (uint16_t)(0x7c00 | (size & 0xfffffffffffffu ? 0x200 : 0))\n"
                "        : e > 0 ? (uint16_t)((e << 10) + (int)((m >> 42) & 0x3ff))\n"
                "        : e > -11 ? (uint16_t)(m >> (43 - e)) : (uint16_t)0;\n"
                "    x |= (uint16_t)(wide >> 48 & 0x8000);\n"
            )
    return f"{head}{copy}    return {spec.name}(x{given});\n}}\n"


def _list(numbers: list[int], bits: int) -> str:
    suffix = "u" if bits <= 32 else "ull"
    words = [f"0x{number:0{-(-bits // 4)}x}{suffix}" for number in numbers]
    return "{\n" + "".join(f"    {', '.join(words[at : at + 8])},\n" for at in range(0, len(words), 8)) + "}"


# --- DPI -------------------------------------------------------------------------------------------------------------


def as_dpi(spec: Spec) -> str:
    """Return a SystemVerilog package that imports the C model."""
    names = {
        "uint8_t": "byte unsigned",
        "uint16_t": "shortint unsigned",
        "uint32_t": "int unsigned",
        "uint64_t": "longint unsigned",
    }
    x, y = (names[one] for one in _types(spec))
    word = ", input int unsigned rbits" if spec.high is not None else ""
    return f"""\
// {spec.converter.name}: bits of {spec.kind} to codes of {spec.converter.format.name}. Written by qsim.
package {spec.name}_pkg;
  import "DPI-C" function {y} {spec.name}(input {x} x{word});
  import "DPI-C" function {y} {spec.name}_real(input real value{word});
endpackage
"""
