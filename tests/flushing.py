"""The flags by which a thread has its processor make zeros of subnormal numbers, set and read by machine code of our own."""

from __future__ import annotations

import contextlib
import ctypes
import dataclasses
import functools
import hashlib
import io
import json
import platform
import struct
import sys
import tempfile
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from llvmlite import binding, ir

X86 = ("x86_64", "AMD64")
FLAGS = {"ftz": 1 << 15, "daz": 1 << 6} if platform.machine() in X86 else {"fz": 1 << 24}
"""The bits of MXCSR, or of FPCR."""


@functools.cache
def register() -> tuple[Any, Callable[[], int], Callable[[int], None]]:
    """Return the engine that holds the machine code, and the functions that read and write the control register."""
    module = ir.Module()
    byte, half, word, none = ir.IntType(8).as_pointer(), ir.IntType(32), ir.IntType(64), ir.VoidType()
    get = ir.IRBuilder(ir.Function(module, ir.FunctionType(word, []), "get").append_basic_block())
    put = ir.IRBuilder(ir.Function(module, ir.FunctionType(none, [word]), "put").append_basic_block())
    (given,) = put.function.args
    if platform.machine() in X86:  # the instructions take the register from memory, and leave it there
        store, load = (
            ir.Function(module, ir.FunctionType(none, [byte]), f"llvm.x86.sse.{name}")
            for name in ("stmxcsr", "ldmxcsr")
        )
        at = get.alloca(half)
        get.call(store, [get.bitcast(at, byte)])
        get.ret(get.zext(get.load(at), word))
        at = put.alloca(half)
        put.store(put.trunc(given, half), at)
        put.call(load, [put.bitcast(at, byte)])
    else:
        get.ret(get.call(ir.Function(module, ir.FunctionType(word, []), "llvm.aarch64.get.fpcr"), []))
        put.call(ir.Function(module, ir.FunctionType(none, [word]), "llvm.aarch64.set.fpcr"), [given])
    put.ret_void()
    binding.initialize_native_target()
    binding.initialize_native_asmprinter()
    machine = binding.Target.from_default_triple().create_target_machine()
    engine = binding.create_mcjit_compiler(binding.parse_assembly(str(module)), machine)
    engine.finalize_object()
    return (
        engine,
        ctypes.CFUNCTYPE(ctypes.c_int64)(engine.get_function_address("get")),
        ctypes.CFUNCTYPE(None, ctypes.c_int64)(engine.get_function_address("put")),
    )


def flags() -> int:
    """Return which flags of this thread are set."""
    return register()[1]() & sum(FLAGS.values())


def set_flags(bits: int) -> None:
    """Set these flags of this thread and clear the others."""
    _, get, put = register()
    put(get() & ~sum(FLAGS.values()) | bits)


@contextlib.contextmanager
def flushing(*names: str) -> Iterator[None]:
    """Set the named flags, or all, inside the block; fail unless they are still set at its end."""
    wanted, before = sum(FLAGS[name] for name in names or FLAGS), flags()
    set_flags(wanted)
    try:
        yield
        assert flags() == wanted, "the flags of the thread were not restored"
    finally:
        set_flags(before)


@contextlib.contextmanager
def cleared() -> Iterator[None]:
    """Clear the flags inside the block."""
    before = flags()
    set_flags(0)
    try:
        yield
    finally:
        set_flags(before)


# --- What must not depend on them ---------------------------------------------------------------------------
#
# Modules are imported by each case, and numbers are made of their bits: a process may have set the flags before all else.

SPECIAL32 = [0, 1, 2, 0x8000, 0x123456, 0x400000, 0x7FFFFF, 0x800000, 0x800001, 0x1000000, 0x3F800000, 0x42C80000, 0x7F000000,
             0x7F7FFFFF, 0x7F800000, 0x7FC00000]  # fmt: skip
SPECIAL64 = [0, 1, 1 << 50, (1 << 52) - 1, 1 << 52, (1 << 52) + 1, 896 << 52, 870 << 52, 897 << 52, 1023 << 52, 1040 << 52,
             2046 << 52, 2047 << 52, (2047 << 52) + 1]  # fmt: skip


def numbers(dtype: str, count: int = 4096) -> Any:
    """Return numbers of a type, most of them small, and their negatives: a few that are special, others drawn."""
    import ml_dtypes
    import numpy as np

    rng = np.random.default_rng(1)
    if dtype in ("float16", "bfloat16"):
        bits = rng.permutation(np.arange(1 << 16, dtype=np.uint16))[:count]
        return bits.view(np.float16 if dtype == "float16" else ml_dtypes.bfloat16)
    wide = dtype == "float64"
    word, special = (np.uint64, SPECIAL64) if wide else (np.uint32, SPECIAL32)
    drawn = rng.integers(0, 1 << (64 if wide else 32), count, word)
    few = drawn & word((1 << 53) - 1 if wide else (1 << 24) - 1)  # in the two lowest binades
    every = np.concatenate([np.array(special, word), drawn[::2], few[1::2]])[:count]
    return np.concatenate([every, every ^ word(1 << (63 if wide else 31))]).view(dtype)


def bits_of(value: Any) -> bytes:
    """Return the bytes of arrays, and of trees and rows of them; text of anything else."""
    import numpy as np

    if isinstance(value, dict):
        return b"".join(f"{name}:".encode() + bits_of(part) for name, part in value.items())
    if isinstance(value, list | tuple):
        return b"".join(map(bits_of, value))
    if isinstance(value, np.ndarray | np.generic):
        return value.tobytes()
    return struct.pack("d", value) if isinstance(value, float) else str(value).encode()


def arrays(dtype: str, formats: str) -> list[Any]:
    """Round and encode without a scale."""
    import qsim

    x, key = numbers(dtype), qsim.Key(3)
    found = []
    for name in formats.split():
        for mode in ("RNE", "RUP", "RTO", "SR", "Threshold(0.25)"):
            stochastic = {"key": key} if mode == "SR" else {}
            ways = [{}, {"ftz_in": True}, {"ftz_out": "result"}] if mode == "RNE" else [{}]
            for way in ways:
                found.append(qsim.encode(x, name, mode, **stochastic, **way))
                try:
                    found.append(qsim.quantize(x, name, mode, **stochastic, **way))
                except qsim.InputError:  # the type holds fewer values than the format
                    continue
    return found


def decoded(formats: str) -> list[Any]:
    """Decode every code."""
    import numpy as np

    import qsim

    found = []
    for name in formats.split():
        fmt = qsim.get_format(name)
        codes = np.arange(1 << fmt.bits, dtype=np.uint32)
        if not (fmt.has_nan or fmt.kind != "table"):
            codes = codes[: len(fmt.codes)]
        found += [qsim.decode(codes, name, dtype) for dtype in (np.float32, np.float64, "bfloat16", np.float16)]
    return found


def scaled(dtype: str) -> list[Any]:
    """Round with a scale that is given, in each order, or derived."""
    import numpy as np

    import qsim

    x = numbers(dtype, 512).reshape(8, -1)
    tiny = np.array([1, 1 << 22, 1 << 23, 254 << 23, 1 << 30, 3, 0x7FFFFF, 2 << 23], np.uint32).view(np.float32)[
        :, None
    ]
    found = []
    for fmt in ("e4m3", "int8", "e5m2"):
        for order in ("divide", "reciprocal", "exact"):
            for scale in (2.0**127, 2.0**-126, 2.0**-127, 0.1, tiny, "absmax", "pow2", "absmean"):
                for way in (qsim.quantize, qsim.encode):
                    try:
                        found.append(way(x, fmt, scale=scale, order=order))
                        found.append(way(x[:, :7], fmt, scale=scale, order=order, ftz_in=True))
                    except qsim.InputError as error:  # scales that the type does not hold
                        found.append(str(error))
        q = qsim.Quantizer(fmt, scale="absmax", per="channel")
        found += [
            qsim.derive_scale(x, q),
            qsim.quantize(x, q),
            qsim.derive_scale(np.repeat(x[:, :1], x.shape[1], axis=1), q),
        ]
    return found


def halves() -> list[Any]:
    """Round arrays that are shared among threads."""
    import numpy as np

    import qsim

    qsim.set_threads(3)
    x = np.resize(numbers("float32"), 3 << 18)
    wide = np.resize(numbers("float64"), 3 << 18)
    with_zeros = x.reshape(2, -1)
    found = [
        qsim.quantize(x, "e4m3", scale=2.0**-127),
        qsim.quantize(x, "e4m3", scale=2.0**127, order="reciprocal"),
        qsim.quantize(x, "e5m2", "SR", key=qsim.Key(1), scale=2.0**-126),
        qsim.quantize(with_zeros, "int8", scale="absmax", per="channel"),
        qsim.encode(x, "bfloat16"),
        qsim.quantize(x, "tf32", ftz_in=True),
        qsim.quantize(wide, "float32"),
        qsim.quantize(wide, "nf4"),
        qsim.quantize(x[::-1], "e4m3", scale="pow2"),
        qsim.decode(qsim.encode(x, "bfloat16"), "bfloat16"),
    ]
    qsim.set_threads(None)
    return found


def definition() -> list[Any]:
    """Ask the reference, and the formats."""
    import numpy as np

    import qsim
    from qsim import reference

    small = struct.unpack("4d", struct.pack("4Q", 1, 1 << 50, 3 << 51, 1 << 52))
    narrow, wide = numbers("float32")[:40], numbers("float64")[:40]
    found: list[Any] = [
        reference.encode(x, fmt, "RUP") for x in (*narrow, *wide) for fmt in ("bfloat16", "e11m4", "e8m0")
    ]
    for x in (*small, *wide.tolist()):
        for fmt in ("bfloat16", "float32", "float64", "e11m4", "e4m3", "e8m0"):
            found += [reference.encode(x, fmt, "RUP"), reference.quantize(x, fmt, "RAZ"), reference.flushed(x, fmt)]
        for order in ("divide", "reciprocal", "exact"):
            found.append(reference.scaled(x, small[2], order, "float64"))
            found.append(reference.scaled(x, 2.0**-127, order, "float32"))
    for name in ("float32", "float64", "e11m4", "bfloat16"):
        fmt = qsim.get_format(name)
        found += [fmt.smallest_subnormal, fmt.smallest_normal, fmt.max, fmt.eps, str(fmt.landmarks())]
        found += [fmt.ordinal(fmt.smallest_subnormal), *fmt.neighbours(fmt.smallest_subnormal)]
        found += [fmt.decode(1), fmt.decode(2), fmt.neighbours(-fmt.smallest_normal)]
    found += [qsim.get_format("e11m4").values(), reference.sr_moments(small[1], "e11m4")]
    found += [str(qsim.Quantizer("e11m4", scale=small[1])), np.array(qsim.Quantizer("e11m4", scale=small[2]).scale)]
    return found


def own_format() -> list[Any]:
    """Round to a table of the user's, with subnormal values."""
    import qsim

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "own.toml"
        path.write_text(
            '[[format]]\nname = "small"\nkind = "table"\nsource = "a test"\n'
            'values = [0.0, 4.9e-324, 1e-310, "0x1p-1022", "0x1p-1000", -3e-310]\n',
            encoding="utf-8",
        )
        name, fmt = f"{path}#small", qsim.get_format(f"{path}#small")
        x = numbers("float64")
        found = [qsim.quantize(x, name), qsim.encode(x, name, "RUP"), qsim.decode([0, 1, 2, 3, 4, 5], name, "float64")]
        return [*found, fmt.values(), fmt.min, fmt.smallest_subnormal, str(fmt.landmarks()), fmt.neighbours(fmt.min)]


def pictures() -> list[str]:
    """Explain conversions, right and wrong ones."""
    from qsim import explain

    x, wide = numbers("float32")[:8], numbers("float64")[:6]
    found = [str(explain.explain(v, fmt, "RUP")) for v in (*x, *wide) for fmt in ("bfloat16", "e4m3", "float64")]
    found += [str(explain.explain(v, "bfloat16", got=0.0)) for v in x]
    return found + [str(explain.causes(v, 0.0, "tf32")) for v in x]


def verdicts() -> list[str]:
    """Check quantizers and devices."""
    import numpy as np

    import qsim
    from qsim import testing

    def check(fn: Any, fmt: str, **options: Any) -> str:
        laws = ("subnormals", "specials", "edges", "sign of zero")
        return str(testing.check_quantizer(fn, fmt, **options, laws=laws, examples=64))

    found = [check(lambda x: qsim.encode(x, "bfloat16"), "bfloat16", codes=True)]
    found.append(check(lambda x: qsim.quantize(x, "e8m3"), "e8m3"))
    found.append(check(
        lambda x, rbits: qsim.encode(x, "e8m3", "SRA", sr_bits=8, rbits=rbits), "e8m3", mode="SRA", sr_bits=8, codes=True
    ))  # fmt: skip
    plan = testing.plan_device_check("e8m7", "SR", bias=1 / 8, calls=16, inputs=8, bits=4)
    device = lambda x: qsim.quantize(x, "e8m7", "SR", key=qsim.Key(5))  # noqa: E731
    found += [str(plan), bits_of(plan.x).hex(), str(testing.check_stochastic_device(device, plan))]
    words = np.random.default_rng(0).integers(0, 256, (64, 16))
    return [*found, str(testing.audit_rbits(words, 8))]


def gradients() -> list[Any]:
    """Run every operation of the tape forward and back on small numbers, and models."""
    import numpy as np

    import qsim
    from qsim import autograd as ag
    from qsim.nn import MLP

    x = numbers("float32", 512)
    x = x[x.view(np.uint32) & 0x7FFFFFFF <= 0x3F800000][:240]
    with cleared():
        less = x * np.array(1 << 22, np.uint32).view(np.float32)
    found: list[Any] = []
    images = x[:192].reshape(1, 2, 4, 4, 6)
    gain, shift = x[:6].reshape(1, 6), x[6:12].reshape(1, 6)
    heads = x[:192].reshape(1, 2, 4, 2, 12)
    found += [
        ag.add(x[None], x[None]), ag.relu(x[None]), ag.silu(x[None]), ag.gelu(x[None]), ag.swiglu(x[None]),
        ag.max_pool(images, size=2), ag.average_pool(images, size=2), ag.global_average_pool(images),
        ag.rope(heads), ag.attention(heads, heads, heads), ag.rms_norm(images, gain), ag.layer_norm(images, gain, shift),
        ag.group_norm(images, gain, shift, groups=2),
        ag.linear(x[:192].reshape(1, 16, 12), x[:60].reshape(1, 5, 12), name="l"),
        ag.conv2d(images, x[:108].reshape(1, 2, 3, 3, 6), name="c"),
    ]  # fmt: skip
    model = MLP((12, 8, 3))
    params = {
        "layer0": {"w": x[:96].reshape(8, 12), "b": x[:8]},
        "layer1": {"w": x[100:124].reshape(3, 8), "b": x[20:23]},
    }
    batch = less[:192].reshape(16, 12), np.arange(16) % 3
    for policy in ({}, {"bwd_act": "e4m3:SR", "bwd_grad": qsim.Quantizer("e5m2", "SR", scale="absmax")}):
        with qsim.numerics(policy, draws=4, clamp="stop", loss_scale=2.0**-100):
            found.append(qsim.value_and_grad(model.loss)(params, batch))
    delayed, memory = ag.Delayed(qsim.Quantizer("e5m2", scale="absmax"), 4), {}
    found += [delayed.at(memory, "s", step, less[None])[1] for step in range(3)]
    big = np.resize(x, (1, 600, 64))
    return [*found, ag.linear(big, np.resize(x, (1, 512, 64)), name="b")]


def steps() -> list[Any]:
    """Take steps of optimizers with small parameters and gradients."""
    import numpy as np

    import qsim
    from qsim import optim

    params = {"w": numbers("float32", 60)[:96].reshape(8, 12), "b": numbers("float32", 60)[60:70].copy()}
    params = {k: np.where(np.isfinite(p), p, np.float32(1)) for k, p in params.items()}
    grads = {"w": params["w"][::-1].copy(), "b": params["b"][::-1].copy()}
    found: list[Any] = [optim.global_norm(grads)]
    for optimizer in (
        optim.sgd(0.5, momentum=0.5, nesterov=True, weight_decay=0.1),
        optim.adamw(1e-3, rounding={"update": "bfloat16:SR", "moment": "bfloat16"}),
        optim.adafactor(rounding={"update": "bfloat16:SR"}),
        optim.chain(optim.scale(0.5), optim.clip_by_global_norm(1.0), optim.write_back("bfloat16", kahan=True)),
        optim.master_weights(optim.sgd(0.1)),
        optim.sharded(optim.sgd(0.1), 3),
    ):
        now, state = params, optimizer.init(params)
        for _ in range(2):
            updates, state = optimizer.update(grads, state, now)
            now = optim.apply_updates(now, updates)
        found += [now, state]
    accumulator = optim.Accumulator("bfloat16")
    state = accumulator.add(grads, accumulator.add(grads, accumulator.init(params)))
    found += [accumulator.mean(state)[0], optim.all_reduce([grads, params, grads], "bfloat16:SR", divide="before")]
    found.append(optim.LossScale(first=10).unscale(grads, {"scale": 10, "good": 0})[0])
    found.append(optim.cast(params, "bfloat16"))
    weights = {"w": numbers("float32", 64)[:64].view(np.uint32) & 0x807FFFFF}
    weights = {"w": weights["w"].view(np.float32).reshape(8, 8)}
    with cleared():
        half = {"w": weights["w"] * np.float32(0.5)}
    dqt = optim.DQT("int4", scale="absmax", rescale="updated")
    stored = dqt.store(weights)
    optimizer = dqt.optimizer(optim.sgd(0.5))
    updates, _ = optimizer.update(half, optimizer.init(stored), stored)
    return [
        *found,
        stored,
        dqt.weights(stored),
        dqt.saturated(weights),
        optim.apply_updates(stored, updates),
        qsim.__version__,
    ]


def measures() -> list[Any]:
    """Estimate small numbers, and evaluate the closed forms of them."""
    import numpy as np

    import qsim
    from qsim import measure, theory

    x = numbers("float64", 256)
    x = x[np.isfinite(x) & (np.abs(x) < 1)][:64]
    small = np.array([1 << 50, 1 << 51, 3 << 50], np.uint64).view(np.float64)
    estimates = [measure.Estimate(float(v), 2.0**-500 * k) for k, v in enumerate(small, 1)]
    q = qsim.Quantizer("e11m4", "SR")
    bias = measure.GroupedBias(4, 8)
    bias.add(0, x.reshape(8, 8))
    found: list[Any] = [
        measure.sample_mean(x),
        measure.pool(estimates),
        measure.quotient(*estimates[:2]),
        bias.squared(),
    ]
    found += [measure.Family(0.01, 3).interval(estimate) for estimate in estimates]
    found = [dataclasses.astuple(value) for value in found]
    return [*found, theory.interval_around(x, q), theory.sr_variance(x, q), theory.batch_ratio(*small)]


def commands() -> list[str]:
    """Run commands in this process."""
    import numpy as np

    from qsim.cli import main

    with tempfile.TemporaryDirectory() as folder:
        np.save(Path(folder) / "x.npy", numbers("float32", 64))
        (Path(folder) / "x.txt").write_text("1e-310 4.9e-324 1e-40 2\n", encoding="utf-8")
        found = []
        for line in (
            "show e11m4", "quantize {}/x.npy -f e4m3 --scale absmax -o {}/y.npy", "quantize {}/x.txt -f e11m4 -o -",
            "quantize {}/x.npy -f bfloat16 --json -o {}/z.npy",
        ):  # fmt: skip
            with contextlib.redirect_stdout(io.StringIO()) as printed, contextlib.redirect_stderr(io.StringIO()):
                assert main(line.replace("{}", folder).split()) == 0
            found.append(printed.getvalue().replace(folder, ""))
        return [*found, *(bits_of(np.load(Path(folder) / f"{name}.npy")).hex() for name in "yz")]


NARROW = "e4m3 e5m2 bfloat16 float16 int8 nf4 posit8"
CASES: dict[str, Callable[[], Any]] = {
    "float16": lambda: arrays("float16", NARROW + " tf32 float32"),
    "bfloat16": lambda: arrays("bfloat16", NARROW + " e8m0 tf32 float32"),
    "float32": lambda: arrays("float32", NARROW + " e8m0 tf32 float32 e8m3fn Q3.4 UQ0.8"),
    "float64": lambda: arrays("float64", NARROW + " e8m0 tf32 float32 float64 e11m4"),
    "decoding": lambda: decoded("bfloat16 e8m3 e8m7f e8m0 e4m3 e11m4 e10m5 nf4 posit8 Q3.4"),
    "scaled float16": lambda: scaled("float16"),
    "scaled bfloat16": lambda: scaled("bfloat16"),
    "scaled float32": lambda: scaled("float32"),
    "scaled float64": lambda: scaled("float64"),
    "threads": halves,
    "definition": definition,
    "own format": own_format,
    "explanations": pictures,
    "verdicts": verdicts,
    "gradients": gradients,
    "optimizers": steps,
    "measures": measures,
    "commands": commands,
}


def digest(name: str) -> str:
    """Return a fingerprint of what a case returns; infinities and NaNs are results, whatever NumPy says of them."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        value = CASES[name]()
    with contextlib.nullcontext() if not flags() else cleared():  # the bits are what counts, and text shows them
        return hashlib.sha256(bits_of(value)).hexdigest()


if __name__ == "__main__":  # the flags that are named, before anything else is imported; then all cases
    set_flags(sum(FLAGS[name] for name in sys.argv[1:]))
    sys.stdout.write(json.dumps({name: digest(name) for name in CASES}))
