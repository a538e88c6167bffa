"""`qsim quantize MODEL.safetensors`: round the tensors of a model file one by one, and say what became of each."""

from __future__ import annotations

import argparse
import fnmatch
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

import qsim
from qsim.blocks import Encoded, get_block_format, get_recipe, names_blocks
from qsim.blocks.encoded import recipe_called
from qsim.cli.files import check_output
from qsim.cli.notice import compiling
from qsim.cli.quantize import count as counts_of
from qsim.cli.text import as_json
from qsim.errors import InputError, enumerate_names, shown
from qsim.formats import Format, get_format
from qsim.rounder import can_hold
from qsim.rounding import Key, Quantizer
from qsim.scales import number_format, remove_scale
from qsim.tensors import FLOATS, PLAIN, Tensor, TensorFile, TensorWriter, stored

__all__ = ["decode", "is_model", "run"]

NATIVE = {name: dtype for dtype, name in FLOATS.items()} | {"int8": "I8", "uint8": "U8", "float7_e4m3fnu": "F8_E4M3"}
"""The types of a file that hold codes of a format as they are; other codes are packed into U8, along the last axis."""

PIECE = 1 << 22
"""Elements of which the counts are made at a time."""


def is_model(path: str) -> bool:
    """Return whether a path names a model file."""
    return path.endswith(".safetensors")


@dataclass(slots=True)
class Row:
    """Hold the counts of one tensor."""

    tensor: str
    shape: tuple[int, ...]
    dtype: str
    elements: int = 0
    #: Finite elements beyond the largest value times the scale, and others than 0 that became 0; NaN.
    clipped: int = 0
    underflowed: int = 0
    nan: int = 0
    #: sqrt(sum (y - x)^2 / sum x^2) over the finite elements.
    error: float = 0.0


class Rounding:
    """Hold the rounding of every tensor: by a format with or without a scale, or by blocks."""

    def __init__(
        self, fmt: str, given: Mapping[str, Any], n: int | None, key: Key | None, args: argparse.Namespace
    ) -> None:
        self.key, self.n = key, n
        self.blocks = names_blocks(fmt)
        self.recipe: Any = None
        self.q: Quantizer | None = None
        if self.blocks:
            self.recipe = get_recipe(fmt, args.scale_rule)
            extra = [name for name in given if name not in ("mode", "sr_bits")]
            if extra:
                option = extra[0].replace("_", "-")
                raise InputError(f"--{option} does not go with a block format, whose recipe says it; drop it")
            self.mode = given["mode"] if args.rounding or ":" in args.format else None
            self.axis = args.axis
        else:
            if args.scale_rule is not None or args.axis is not None:
                raise InputError(
                    f"--scale-rule and --axis are for block formats, and {fmt} is none; --scale and --per are for it"
                )
            self.q = Quantizer(
                fmt, **{k: v for k, v in given.items() if k != "sr_bits" or "(" not in str(given["mode"])}
            )

    @property
    def element(self) -> Format:
        """The format of the codes."""
        return self.q.format if self.q is not None else self.recipe.format.element

    def axes_needed(self) -> int:
        """Return how many axes a tensor must have; those of fewer are copied."""
        if self.q is None:
            named = () if self.axis is None else self.axis if isinstance(self.axis, tuple) else (self.axis,)
            needed: list[int] = [axis + 1 if axis >= 0 else -axis for axis in named]
            needed.append(len(self.recipe.format.size))
            return max(needed)
        if isinstance(self.q.per, str):
            return int(self.q.scale != "none" and self.q.per != "tensor")
        named = self.q.per if isinstance(self.q.per, tuple) else (self.q.per,)
        return max(axis + 1 if axis >= 0 else -axis for axis in named)

    def describe(self) -> dict[str, Any]:
        """Return the rounding as plain data, which the file keeps."""
        if self.q is not None:
            return self.q.describe()
        axes = {} if self.axis is None else {"axes": self.axis if isinstance(self.axis, tuple) else [self.axis]}
        return {
            "format": self.recipe.format.name, "recipe": self.recipe.name, "mode": self.mode or self.recipe.mode, **axes,
        }  # fmt: skip

    def words(self, number: int) -> dict[str, Any]:
        """Return the random words of tensor `number`: each has a stream of its own."""
        if self.key is None:
            return {}
        stream = (self.key.stream + number) % (1 << 64)
        words: dict[str, Any] = {"key": Key(self.key.seed, stream, self.key.offset)}
        return words if self.n is None else words | {"sr_bits": self.n}

    def encode(self, x: NDArray[Any], number: int, dtype: str) -> tuple[NDArray[Any], NDArray[Any], Any]:
        """Return the values as a file of `dtype` has them, the codes, and the scales: `Encoded` blocks, an array or `None`."""
        words = self.words(number)
        if self.q is None:
            e: Any = qsim.encode(x, self.recipe, self.mode, axis=self.axis, **words)
            return values_of(e, None, self.element, dtype), e.codes, e
        codes, s = qsim.encode(x, self.q, **words), qsim.derive_scale(x, self.q)
        if holds(dtype, self.element):
            return qsim.quantize(x, self.q, **words), codes, s
        return values_of(codes, s, self.element, dtype), codes, s

    def count(self, row: Row, x: NDArray[Any], y: NDArray[Any], codes: NDArray[Any], scales: Any) -> Row:
        """Count the elements of a tensor that were clipped, lost or NaN, and measure the error of its values `y`."""
        row.elements = x.size
        values = read_back(y, row.dtype)
        row.error = relative_error(x, values)
        if self.q is not None:
            found = counts_of(x, scales, self.q, codes, None, coded=True)
            row.clipped, row.underflowed, row.nan = found.saturated, found.underflowed, found.nan
            return row
        largest = self.largest(scales, x.shape)
        finite = np.isfinite(x)
        row.clipped = int(np.count_nonzero(finite & (np.abs(x) > largest)))
        row.underflowed = int(np.count_nonzero(finite & (x != 0) & (values == 0)))
        row.nan = int(np.count_nonzero(np.isnan(x)))
        return row

    def largest(self, scales: Encoded, shape: tuple[int, ...]) -> NDArray[Any]:
        """Return the largest magnitude of each element of blocks."""
        fmt = self.element
        top = np.full(shape, fmt.code(fmt.top), scales.codes.dtype)
        return Encoded(scales.format, top, scales.scales, scales.tensor_scale, scales.axes).decode(np.float64)


def holds(dtype: str, fmt: Format) -> bool:
    """Return whether a type of NumPy holds the values of a format; else they are rounded once more, to that type."""
    return dtype in PLAIN and can_hold(number_format(np.dtype(PLAIN[dtype])), fmt)


@np.errstate(all="ignore")
def values_of(codes: Any, s: NDArray[Any] | None, fmt: Format, dtype: str) -> NDArray[Any]:
    """Return the values of codes, or of `Encoded` blocks, rounded once to the type `dtype` of a file, as it has them."""
    if isinstance(codes, Encoded):
        y = codes.decode(PLAIN.get(dtype, np.float32) if dtype != "BF16" else np.float64)
    else:
        y = qsim.decode(codes, fmt, np.float64)
        y = y if s is None else y * s.astype(np.float64)  # exact: 16 bits times 24, or float64
    return stored(y, dtype)


def read_back(y: NDArray[Any], dtype: str) -> NDArray[Any]:
    """Return the numbers of an array as a file of this type has them."""
    return y if dtype in PLAIN else qsim.decode(y, FLOATS[dtype])


@np.errstate(all="ignore")
def relative_error(x: NDArray[Any], y: NDArray[Any]) -> float:
    """Return sqrt(sum (y - x)^2 / sum x^2) over the finite elements, which are looked at in pieces."""
    wrong = power = 0.0
    for begin in range(0, x.size, PIECE):
        a, b = (array.reshape(-1)[begin : begin + PIECE].astype(np.float64) for array in (x, y))
        finite = np.isfinite(a) & np.isfinite(b)
        wrong += float(np.square(np.where(finite, b - a, 0)).sum())
        power += float(np.square(np.where(finite, a, 0)).sum())
    return math.sqrt(wrong / power) if power else 0.0


def chosen(file: TensorFile, patterns: Sequence[str] | None) -> set[str]:
    """Return the names of the tensors that are rounded: floats, those that a pattern fits if there are any."""
    floats = [name for name, tensor in file.tensors.items() if tensor.is_float]
    if not patterns:
        return set(floats)
    for pattern in patterns:
        if not fnmatch.filter(floats, pattern):
            some = enumerate_names(floats[:3]) if floats else "no tensor of floats"
            raise InputError(f"{file.path}: --tensors {shown(pattern)} fits no tensor of floats; it has {some}, ...")
    return {name for name in floats if any(fnmatch.fnmatchcase(name, pattern) for pattern in patterns)}


def parts(tensor: Tensor, rounding: Rounding) -> dict[str, tuple[str, tuple[int, ...]]]:
    """Return type and shape of the tensors that hold the codes and the scales of one tensor."""
    fmt, shape = rounding.element, tensor.shape
    name = tensor.name
    if fmt.name in NATIVE:
        found = {name: (NATIVE[fmt.name], shape)}
    else:
        found = {name: ("U8", (*shape[:-1], -(-shape[-1] * fmt.bits // 8)) if shape else (1,))}
    if rounding.q is None:
        blocks = rounding.recipe.format
        axes = rounding.axis if rounding.axis is not None else tuple(range(len(shape) - len(blocks.size), len(shape)))
        axes = tuple(axis % len(shape) for axis in (axes if isinstance(axes, tuple) else (axes,)))
        lengths = dict(zip(axes, blocks.size, strict=True))
        own = tuple(-(-n // lengths.get(axis, 1)) for axis, n in enumerate(shape))
        found[f"{name}_scale"] = (NATIVE.get(blocks.scale.name, "U8"), own)
        if blocks.tensor_scale:
            found[f"{name}_tensor_scale"] = ("F32", ())
    elif rounding.q.scale != "none":
        kind = "F64" if tensor.dtype == "F64" else "F32"
        probe = qsim.derive_scale(np.ones(shape, np.float64 if kind == "F64" else np.float32), rounding.q)
        found[f"{name}_scale"] = (kind, () if probe is None else probe.shape)
    return found


class Codes:
    """Read the codes of a model file, by the rounding that its metadata name."""

    def __init__(self, file: TensorFile, rounding: Mapping[str, Any], lengths: Mapping[str, int]) -> None:
        self.file, self.lengths = file, lengths
        self.axes = rounding.get("axes")
        if "recipe" in rounding:
            self.recipe: Any = recipe_called(rounding["recipe"], get_block_format(rounding["format"]))
            self.element = self.recipe.format.element
        else:
            self.recipe, self.element = None, get_format(rounding["format"])

    def shape(self, name: str) -> tuple[int, ...]:
        """Return the shape of the values of a tensor."""
        return (*self.file.tensors[name].shape[:-1], self.lengths[name])

    def _codes(self, name: str, fmt: Format, length: int) -> NDArray[Any]:
        tensor = self.file.tensors[name]
        found = np.frombuffer(self.file.bytes(name), f"<u{max(fmt.bits // 8, 1)}").reshape(tensor.shape)
        return found if fmt.name in NATIVE else qsim.unpack(found, fmt, length)

    def values(self, name: str, dtype: str) -> NDArray[Any]:
        """Return the values of a tensor, as a file of this type has them."""
        codes = self._codes(name, self.element, self.lengths[name])
        there = self.file.tensors
        if self.recipe is None:
            s = self.file.read(f"{name}_scale") if f"{name}_scale" in there else None
            if s is None or not holds(dtype, self.element):
                return values_of(codes, s, self.element, dtype)
            decoded = qsim.decode(codes, self.element, PLAIN[dtype])
            with np.errstate(all="ignore"):
                return remove_scale(decoded, s, Quantizer(self.element, scale="absmax"), np.dtype(PLAIN[dtype]))
        blocks = self.recipe.format
        scales = np.frombuffer(self.file.bytes(f"{name}_scale"), "u1").reshape(there[f"{name}_scale"].shape)
        wide = f"{name}_tensor_scale"
        tensor_scale = float(self.file.read(wide)) if wide in there else 1.0
        axes = tuple(self.axes) if self.axes is not None else tuple(range(-len(blocks.size), 0))
        return values_of(Encoded(blocks, codes, scales, tensor_scale, axes, self.recipe), None, self.element, dtype)


def run(args: argparse.Namespace, fmt: str, given: Mapping[str, Any], n: int | None, key: Key | None) -> int:
    """Round the tensors of a model file into another, and print a row for each."""
    for name in ("rbits", "dtype", "hex", "skip", "scales", "pack"):
        if getattr(args, name):
            raise InputError(
                f"--{name} is for arrays; a model file has its own types, and keeps scales beside the codes"
            )
    if not is_model(args.output):
        raise InputError(f"{args.output}: the result of a model file is one too; name it .safetensors")
    check_output(args.output, [".safetensors"])
    rounding = Rounding(fmt, given, n, key, args)
    rows: list[Row] = []
    with TensorFile(args.input) as file, compiling(quiet=args.json):
        names = chosen(file, args.tensors)
        needs = max(rounding.axes_needed(), 1 if args.codes else 0)
        names = {name for name in names if len(file.tensors[name].shape) >= needs}
        declared: dict[str, tuple[str, tuple[int, ...]]] = {}
        for name, tensor in file.tensors.items():
            if name in names and args.codes:
                declared |= parts(tensor, rounding)
            else:
                declared[name] = tensor.dtype, tensor.shape
        about: dict[str, Any] = {
            "rounding": rounding.describe(),
            "holds": "codes" if args.codes else "values",
            "tensors": {name: tensor.dtype for name, tensor in file.tensors.items() if name in names},
        }
        if args.codes:  # a packed row does not say how many codes it has
            about["lengths"] = {name: file.tensors[name].shape[-1] for name in about["tensors"]}
        metadata = {**file.metadata, "qsim": json.dumps(about, sort_keys=True)}
        with TensorWriter(args.output, declared, metadata) as out:
            for number, (name, tensor) in enumerate(file.tensors.items()):
                if name not in names:
                    out.write(name, file.bytes(name))
                    continue
                x = file.read(name)
                values, codes, scales = rounding.encode(x, number, tensor.dtype)
                rows.append(rounding.count(Row(name, tensor.shape, tensor.dtype), x, values, codes, scales))
                if not args.codes:
                    out.write(name, values)
                    continue
                own = parts(tensor, rounding)
                out.write(name, codes if rounding.element.name in NATIVE else qsim.pack(codes, rounding.element))
                if isinstance(scales, Encoded):
                    out.write(f"{name}_scale", scales.scales)
                    if rounding.recipe.format.tensor_scale:
                        out.write(f"{name}_tensor_scale", np.float32(scales.tensor_scale).tobytes())
                elif scales is not None:
                    kind, shape = own[f"{name}_scale"]
                    out.write(f"{name}_scale", np.broadcast_to(scales.astype(FLOATS[kind]), shape).tobytes())
    if args.json:
        print(as_json({"input": args.input, "output": args.output, **about, "tensors": [asdict(row) for row in rows]}))
    else:
        print("\n".join(table(rows, args.output, len(file.tensors), full=args.report)))
    return 0


def decode(args: argparse.Namespace) -> int:
    """Write the values of a model file that `qsim quantize --codes` wrote, in the types of the file before it."""
    for name in ("format", "scales", "pack", "count", "dtype", "codes", "hex"):
        if getattr(args, name):
            raise InputError(f"--{name} is for arrays; a model file says what its codes are")
    if not is_model(args.output):
        raise InputError(f"{args.output}: the values of a model file are one too; name it .safetensors")
    check_output(args.output, [".safetensors"])
    with TensorFile(args.input) as file:
        try:
            about = json.loads(file.metadata["qsim"])
            if about["holds"] != "codes":
                raise InputError(f"{args.input} holds values already; there is nothing to decode")
            types, rounding = about["tensors"], about["rounding"]
            read = Codes(file, rounding, about["lengths"])
        except (KeyError, TypeError, ValueError):
            raise InputError(
                f"{args.input}: its metadata do not say what the codes are; give a file of `qsim quantize --codes`"
            ) from None
        kept = {f"{name}{suffix}" for name in types for suffix in ("_scale", "_tensor_scale")}
        plain = {name: tensor for name, tensor in file.tensors.items() if name not in types and name not in kept}
        declared = {name: (dtype, read.shape(name)) for name, dtype in types.items()}
        declared |= {name: (tensor.dtype, tensor.shape) for name, tensor in plain.items()}
        metadata = {name: text for name, text in file.metadata.items() if name != "qsim"}
        with TensorWriter(args.output, declared, metadata) as out:
            for name in plain:
                out.write(name, file.bytes(name))
            for name, dtype in types.items():
                out.write(name, read.values(name, dtype))
    facts = {"input": args.input, "output": args.output, "tensors": types}
    print(as_json(facts) if args.json else f"decoded  {len(types)} of {len(declared)} tensors\nwritten  {args.output}")
    return 0


BAR = 20
"""Characters of the longest bar."""


def table(rows: Sequence[Row], output: str, tensors: int, *, full: bool) -> Iterator[str]:
    """Yield the lines of the summary: with `full` a row a tensor with a bar of its error, then all together."""
    if full and rows:
        wide = min(max(len(row.tensor) for row in rows), 48)
        largest = max(row.error for row in rows) or 1.0
        yield f"{'tensor':{wide}}  {'type':8} {'shape':>14} {'clipped':>9} {'to zero':>9} {'error':>9}"
        for row in rows:
            name = row.tensor if len(row.tensor) <= wide else "..." + row.tensor[3 - wide :]
            bar = "#" * round(BAR * row.error / largest)
            sizes = "x".join(map(str, row.shape)) or "scalar"
            clipped, lost = (percent(k, row.elements) for k in (row.clipped, row.underflowed))
            yield f"{name:{wide}}  {row.dtype:8} {sizes:>14} {clipped:>9} {lost:>9} {row.error:9.2e} {bar}".rstrip()
        yield ""
    elements = sum(row.elements for row in rows)
    yield f"rounded  {len(rows)} of {tensors} tensors, {elements} elements"
    clipped, lost, nan = (sum(getattr(row, name) for row in rows) for name in ("clipped", "underflowed", "nan"))
    yield f"clipped  {clipped}, to zero {lost}, NaN {nan}"
    if rows:
        worst = max(rows, key=lambda row: row.error)
        yield f"error    at most {worst.error:.2e} of the root mean square of a tensor, in {worst.tensor}"
    yield f"written  {output}"


def percent(part: int, whole: int) -> str:
    """Return a share in per cent, 0 only where it is."""
    return "0" if not part else f"{100 * part / whole:.2g} %"
