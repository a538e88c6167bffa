"""The rows of the table: what is timed, against what, and the goal. A row is an entry of this list and no more.

Goals are for 2^24 elements that come from memory and go there, in arrays that exist: shares of the speed of a copy of the
same array by as many threads, timed in turn with it.
"""

from __future__ import annotations

import enum
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

import engine
import peers
import qsim
import work
from work import KEY, NEAREST, STOCHASTIC, Maker, codes, copy, decoded, fill, memory, process, swept, values


class Measure(enum.StrEnum):
    """What the figure of a row is, and so whether its goal is a least or a most one."""

    SHARE = "of its speed"
    """The time of the reference divided by that of the candidate: at least the goal."""
    TIMES = "times as long"
    """The time of the candidate divided by that of the reference: at most the goal."""
    SECONDS = "seconds"
    """The time of a call: at most the goal."""
    ELEMENT = "seconds an element"
    """The time of a call divided by the number of elements: at most the goal."""
    BYTES = "bytes"
    """What the call returns: at most the goal."""


@dataclass(frozen=True, kw_only=True)
class Row:
    """Hold one row: the work, what it is held against, and the goal."""

    name: str
    what: str
    ours: Maker
    #: What the time is divided by, or divides; `None` where time, or memory, stands for itself.
    reference: Maker | None = copy
    measure: Measure = Measure.SHARE
    #: `None`: only to be looked at.
    goal: float | None
    peers: Mapping[str, Maker] = field(default_factory=dict)
    #: The kind of input, of those that `Data.x` knows.
    data: str = "ordinary"
    elements: int = 1 << 24
    threads: int = 1
    #: The row whose share this one's is divided by, or "".
    beside: str = ""
    #: Whether it is left out unless all is asked for.
    long: bool = False
    #: Whether every peer returns what qsim does, bit for bit.
    alike: bool = True

    def meets(self, reached: float) -> bool:
        """Return whether a figure is as good as the goal, if there is one."""
        if self.goal is None:
            return True
        return reached >= self.goal if self.measure is Measure.SHARE else reached <= self.goal


FLOATS = ("float8_e4m3fn", "float8_e5m2", "bfloat16", "float16", "float4_e2m1fn")
MIB = 1 << 20


def nearest() -> Iterator[Row]:
    """Yield rounding to nearest even."""
    for fmt in FLOATS:
        others = peers.to_values(fmt)
        yield Row(name=f"rne-{fmt}", what=f"RNE to {fmt}", ours=values(fmt), peers=others, goal=0.92)
        yield Row(
            name=f"rne-{fmt}-2", what=f"RNE to {fmt}", ours=values(fmt), peers=peers.threaded(others),
            threads=2, goal=0.92,
        )  # fmt: skip
    for fmt in ("float8_e4m3fn", "float8_e5m2", "float4_e2m1fn"):
        others, ours = peers.to_codes(fmt), codes(fmt)
        yield Row(name=f"codes-{fmt}", what=f"RNE to 8-bit codes of {fmt}", ours=ours, peers=others, goal=1.35)
        yield Row(
            name=f"codes-{fmt}-2", what=f"RNE to 8-bit codes of {fmt}", ours=ours, peers=peers.threaded(others),
            threads=2, goal=1.35,
        )  # fmt: skip


def stochastic() -> Iterator[Row]:
    """Yield stochastic rounding."""
    for fmt in ("float8_e4m3fn", "float8_e5m2", "bfloat16"):
        ours = values(fmt, "SR", key=KEY)
        yield Row(
            name=f"sr-{fmt}", what=f"SR to {fmt}", ours=ours, peers=peers.stochastically(fmt), alike=False, goal=0.55
        )
        yield Row(name=f"sr-{fmt}-2", what=f"SR to {fmt}", ours=ours, threads=2, goal=0.55)
    yield Row(
        name="sr-codes", what="SR to 8-bit codes of float8_e4m3fn",
        ours=codes("float8_e4m3fn", "SR", key=KEY), goal=0.55,
    )  # fmt: skip


def inputs() -> Iterator[Row]:
    """Yield roundings of other inputs."""
    for mode, options, goal in (("RNE", {}, 0.92), ("SR", {"key": KEY}, 0.55)):
        ours = values("float8_e4m3fn", mode, **options)
        name = mode.lower()
        yield Row(
            name=f"{name}-patterns", what=f"{mode} of all bit patterns, against ordinary numbers",
            ours=ours, reference=work.on_ordinary(ours), data="patterns", goal=0.9,
        )  # fmt: skip
        yield Row(
            name=f"{name}-float64", what=f"{mode} of float64, against a copy of float64",
            ours=ours, data="float64", goal=goal,
        )  # fmt: skip
        yield Row(
            name=f"{name}-strided", what=f"{mode} of x[::2], against a copy of it",
            ours=ours, data="strided", goal=0.5,
        )  # fmt: skip


def integers() -> Iterator[Row]:
    """Yield roundings to INT8."""
    for scale, goal in ((peers.SCALE, 1.0), ("absmax", 0.75)):
        absmax = scale == "absmax"
        name, how = ("absmax", "with the abs-max found first") if absmax else ("scaled", "with a given scale")
        for threads, end in ((1, ""), (2, "-2")):
            others = peers.to_int8(absmax=absmax)
            yield Row(
                name=f"int8-{name}{end}", what=f"RNE to int8 {how}", ours=values("int8", scale=scale),
                peers=others if threads == 1 else peers.threaded(others), threads=threads, goal=goal,
            )  # fmt: skip
        yield Row(
            name=f"int8-{name}-codes", what=f"RNE to codes of int8 {how}", ours=codes("int8", scale=scale),
            peers={} if absmax else peers.to_int8_codes(), goal=goal,
        )  # fmt: skip


def decoding() -> Iterator[Row]:
    """Yield decoding."""
    for fmt in ("float8_e4m3fn", "float8_e5m2", "int8"):
        others = {} if fmt == "int8" else peers.decoding(fmt)
        for threads, end in ((1, ""), (2, "-2")):
            yield Row(
                name=f"decode-{fmt}{end}", what=f"decoding codes of {fmt}, against writing float32",
                ours=decoded(fmt), reference=fill,
                peers=others if threads == 1 else peers.threaded(others), threads=threads, goal=0.95,
            )  # fmt: skip


def modes() -> Iterator[Row]:
    """Yield the other modes."""
    for mode in ("RNA", "RNZ", "RNP", "RNN", "RTZ", "RUP", "RDN", "RAZ", "RTO", "Threshold(0.25)"):
        yield Row(name=mode.partition("(")[0].lower(), what=mode, ours=values("float8_e4m3fn", mode), goal=0.9)
    for mode in ("SRA(8)", "SRB(8)", "SRC(8)", "SRE"):
        name = mode.partition("(")[0].lower()
        yield Row(name=name, what=mode, ours=values("float8_e4m3fn", mode, key=KEY), goal=0.55)
    for mode in ("SRA(8)", "SRC(8)"):
        for bits in (16, 8):
            yield Row(
                name=f"{mode[:3].lower()}-{bits}", what=f"{mode}, with words of {bits} bits, of that with words of 32",
                ours=values("float8_e4m3fn", mode, key=qsim.Key(1, bits=bits)),
                reference=values("float8_e4m3fn", mode, key=KEY), goal=2.0 if bits == 16 else 2.5,
            )  # fmt: skip
    given = work.by_words("float8_e4m3fn", "SRA")
    yield Row(name="rbits", what="SRA with 8 random bits that are given", ours=given, goal=0.55)


def cached() -> Iterator[Row]:
    """Yield loops over arrays in a second-level cache, which show what is computed and not what memory has."""
    cases = {
        "copy": ("a copy", copy),
        "rne": ("RNE to values of E4M3", work.looped("float8_e4m3fn")),
        "codes": ("RNE to codes of E4M3", work.looped("float8_e4m3fn", codes=True)),
        "words": ("drawing 32 random bits", work.drawn),
        "sr": ("SR to values of E4M3", work.looped("float8_e4m3fn", "SR")),
        "src": ("SRC(8) to values of E4M3", work.looped("float8_e4m3fn", "SRC", sr_bits=8)),
        "threshold": ("Threshold(0.25) to values of E4M3", work.looped("float8_e4m3fn", "THR", eps=0.25)),
        "int8": ("RNE to int8 with a given scale", work.looped("int8", scale=peers.SCALE)),
        "int8-codes": ("RNE to codes of int8 with a given scale", work.looped("int8", scale=peers.SCALE, codes=True)),
        "decode": ("decoding codes of E4M3", decoded("float8_e4m3fn")),
    }
    for name, (what, ours) in cases.items():
        yield Row(
            name=f"cache-{name}", what=what, ours=ours, elements=1 << 15, reference=None, measure=Measure.ELEMENT, goal=None,
        )  # fmt: skip


def small() -> Iterator[Row]:
    """Yield calls of few elements."""
    cases = {
        "rne": ("RNE to values", values("float8_e4m3fn"), peers.to_values("float8_e4m3fn")),
        "sr": ("SR to values", values("float8_e4m3fn", "SR", key=KEY), {}),
        "codes": ("RNE to codes", codes("float8_e4m3fn"), peers.to_codes("float8_e4m3fn")),
        "decode": ("decoding", decoded("float8_e4m3fn"), peers.decoding("float8_e4m3fn")),
    }
    for name, (what, ours, others) in cases.items():
        for elements in (64, 4096):
            yield Row(
                name=f"small-{name}-{elements}", what=f"{what}, {elements:,} elements", ours=ours, peers=others,
                elements=elements, reference=None, measure=Measure.SECONDS, goal=5e-6,
            )  # fmt: skip


def growth() -> Iterator[Row]:
    """Yield sizes, and the peak of memory."""
    for mode, options in (("RNE", {}), ("SR", {"key": KEY})):
        name, ours = mode.lower(), values("float8_e4m3fn", mode, **options)
        for log in (24, 18, 20, 22, 26, 28, 30):  # what the others stand beside comes first
            yield Row(
                name=f"growth-{name}-{log}", what=f"{mode}, 2^{log} elements", ours=ours, elements=1 << log, long=log > 26,
                goal=None if log == 24 else 0.9, beside="" if log == 24 else f"growth-{name}-24",
            )  # fmt: skip
        yield Row(
            name=f"growth-{name}-mapped", what=f"{mode}, 2^26 elements in files", ours=ours, elements=1 << 26,
            data="mapped", beside=f"growth-{name}-24", goal=0.9,
        )  # fmt: skip
    how = {"rne": "'e4m3'", "sr": "'e4m3', 'SR', key=qsim.Key(0)", "absmax": "'int8', scale='absmax'"}
    for name, arguments in how.items():
        yield Row(
            name=f"memory-{name}", what=f"memory beside the output, 2^26 elements, {arguments}",
            ours=memory(f"qsim.quantize(x, {arguments})"), reference=None, measure=Measure.BYTES,
            elements=1 << 26, goal=64 * MIB,
        )  # fmt: skip


def training() -> Iterator[Row]:
    """Yield training steps."""
    for name, torch in (("numpy", False), ("torch", True)):
        for threads, end in ((1, ""), (2, "-2")):
            yield Row(
                name=f"training-{name}{end}", what=f"roundings in turn with products of {name}, against the sum of both",
                ours=work.training(alternating=True, torch=torch),
                reference=work.training(alternating=False, torch=torch), threads=threads, goal=0.95,
            )  # fmt: skip


def gradients() -> Iterator[Row]:
    """Yield losses and gradients of the engine."""
    for threads, end in ((1, ""), (2, "-2")):
        for name, model, cost, beside in (("wrn", engine.WRN, 1.4, 2.8), ("mlp", engine.MLP_784, 1.3, 1.5)):
            what = "WRN-16-1, batch 64" if name == "wrn" else "MLP 784-256-256-10, batch 128"
            plain, rounded, torch = engine.step(model), engine.step(model, rounded=True), engine.torch_step(model)
            yield Row(
                name=f"{name}-torch{end}", what=f"{what}, float32, against PyTorch", ours=plain, reference=torch,
                measure=Measure.TIMES, threads=threads, goal=2.0 if name == "wrn" else None,
            )  # fmt: skip
            yield Row(
                name=f"{name}-rounded{end}", what=f"{what}, five points by SR to E4M3, against float32", ours=rounded,
                reference=plain, measure=Measure.TIMES, threads=threads, goal=cost,
            )  # fmt: skip
            yield Row(
                name=f"{name}-rounded-torch{end}", what=f"{what}, five points by SR to E4M3, against PyTorch's float32",
                ours=rounded, reference=torch, measure=Measure.TIMES, threads=threads, goal=beside,
            )  # fmt: skip
    for name, model, goal in (("784-256-10", engine.TWO_LAYERS, 1.0), ("8-16-4", engine.SMALL, 1 / 40)):
        yield Row(
            name=f"draws-{name}", what=f"64 draws of the gradient of an MLP {name}, against 64 calls of one",
            ours=engine.step(model, rounded=True, draws=64),
            reference=engine.shared(engine.step(model, rounded=True, draws=1), 64), measure=Measure.TIMES, goal=goal,
        )  # fmt: skip


def start() -> Iterator[Row]:
    """Yield processes that start."""
    numpy = process("-c", "import numpy")
    times = {"import": ("import qsim", ("-c", "import qsim"), 1.5), "formats": ("qsim formats", ("-m", "qsim", "formats"), 2.0),
             "show": ("qsim show", ("-m", "qsim", "show", "float8_e4m3fn"), 2.0)}  # fmt: skip
    for name, (what, argv, goal) in times.items():
        yield Row(
            name=f"start-{name}", what=f"{what}, against import numpy", ours=process(*argv), reference=numpy,
            measure=Measure.TIMES, goal=goal,
        )  # fmt: skip
    for mode, call in (("RNE", NEAREST), ("SR", STOCHASTIC)):
        for cache, goal in (("warm", 0.35), ("cold", 1.0)):
            yield Row(
                name=f"first-{mode.lower()}-{cache}", what=f"a process that rounds once by {mode}, its cache {cache}",
                ours=process("-c", call, cache=cache), peers=peers.first_calls() if mode == "RNE" else {},
                reference=None, measure=Measure.SECONDS, goal=goal, alike=False,
            )  # fmt: skip


def sweeps() -> Iterator[Row]:
    """Yield exhaustive sweeps."""
    for fmt, mode, goal in (
        ("float8_e4m3fn", "RNE", 1.5), ("float8_e4m3fn", "RTO", 1.5), ("bfloat16", "RNE", 1.5), ("int8", "RNE", 1.5),
        ("float8_e4m3fn", "SR", 4.0), ("bfloat16", "SR", 4.0),
    ):  # fmt: skip
        yield Row(
            name=f"sweep-{mode.lower()}-{fmt}", what=f"all 2^32 inputs, {mode} to {fmt}", ours=swept(fmt, mode),
            reference=None, measure=Measure.SECONDS, elements=1 << 32, threads=2, goal=goal,
        )  # fmt: skip


GROUPS = {
    "To nearest even, to values and codes": (*nearest(),),
    "Stochastically, 32 random bits an element": (*stochastic(),),
    "Other inputs: all bit patterns alike, float64, every other element": (*inputs(),),
    "INT8, with a scale": (*integers(),),
    "Decoding, against writing as many values": (*decoding(),),
    "The other modes, to values of E4M3": (*modes(),),
    "Small arrays, from a cache: the time of a call": (*small(),),
    "In a second-level cache, without the call: the time of an element": (*cached(),),
    "Growth: the share of a copy at each size, against that at 2^24; and memory": (*growth(),),
    "A training step: roundings and products in turn, against one after the other": (*training(),),
    "The engine: loss and gradient of a batch": (*gradients(),),
    "Starting: whole processes, from the start of Python to its end": (*start(),),
    "All 2^32 float32, held against the reference's thresholds on all cores": (*sweeps(),),
}
"""The rows, by what they are about."""
ROWS = {row.name: row for rows in GROUPS.values() for row in rows}

LIMITS: dict[str, str] = {
    "training-*": "In turn, roundings and products evict each other's arrays from the caches; in the sum of the parts "
    "they do not.",
    "mlp-*": "A step rounds 735,000 elements, each with a word of its own, which takes {cache-sr} an element in a cache, and "
    "counts what saturates.",
    "wrn-*": "PyTorch gains more from a second core than the products here, which are many and small.",
    "draws-*": "At the goal, within its quartiles.",
    "first-*-cold": "Importing Numba and filling its registries takes some 0.5 s; the rest compiles about twenty "
    "functions, half of it in LLVM. No entries for Python or C are made, which saved a sixth. Tried: to inline the parts "
    "before types are inferred, which takes ten to thirty times as long; to optimize them only as parts of the whole, "
    "which takes as long and loses the vectors of some loops; to make no machine code of them alone, which saves nothing; to "
    "write the parts into the loop by its syntax tree before Numba sees it, a trial that took a fifth to a third less, for a "
    "hundred lines of a compiler of our own.",
    "sweep-*": "Value and code of each input are computed and compared. Sharing what both compute, "
    "vectors of 512 bits, and differences collected in words as wide as the inputs have halved it.",
    "small-*": "Of a call of 64 elements a quarter is ctypes and the loop; the rest is Python that looks "
    "the rounding up and checks `out`. To round 4,096 elements takes 4,096 times {cache-rne} besides, with random words "
    "{cache-sr}.",
    "growth-*": "A rounding takes what it takes at every size, {cache-rne} an element in a cache and {cache-sr} with random "
    "words; a copy takes {cache-copy} there, and less at 2^30 than at 2^24 too.",
    "*-strided": "Elements are gathered by NumPy, a piece at a time, and rounded then: two passes, the first as long as "
    "the copy, the second {cache-sr} an element. To read them where they are would take a second compilation of each loop.",
    "decode-*": "Five bytes an element are moved where the reference writes four: 0.8 is the whole of what memory has. "
    "Arithmetic on the bits of a code took the place of a table, and half its time; lists of values keep that.",
    "*-2": "Two threads copy twice as fast where memory has room for both, and arithmetic stays what it is on "
    "each: {cache-rne} an element to values in a cache, {cache-codes} to codes, {cache-sr} with random words.",
    "codes-*": "Twenty-six instructions an element, {cache-codes} in a cache, against a copy of which one element takes what "
    "memory gives. Memory is asked for elements 512 before their turn: without that a loop of this length waited for it four "
    "fifths of its time. Four vectors are under way at a time, which gained a tenth. Tried besides: other distances and "
    "blocks, asking for the output too, vectors of 256 bits, two and eight vectors at a time.",
    "sr-*": "Philox4x32-10 takes 18 multiplications and 18 shifts for 32 words in vectors of 512 bits, {cache-words} a "
    "word in a cache; with the rounding it is {cache-sr}. Four vectors are under way at a time, since each of the ten rounds "
    "waits for the one before, which gained an eighth. Tried besides: two and eight, and buffers of 128 to 1024 words.",
    "int8-*": "A division, forty instructions and a multiplication an element, {cache-int8} in a cache, and {cache-int8-codes} "
    "to codes, which are counted in thirty; the abs-max reads the array once more. Tried: to count values as codes and convert "
    "them, which takes nine tenths as long. PyTorch's codes are of x times 1 / s, which saves the division and rounds some x "
    "otherwise.",
    "threshold": "The whole fraction is compared, as with random words, and bits lost below the word are asked for, for "
    "which LLVM widens to 64 bits: {cache-threshold} in a cache. Tried: five other ways to ask, none faster.",
    "s??-*": "Half or a quarter of Philox is saved, which takes {cache-words} of {cache-sr} an element in a cache with words "
    "of 32 bits; the rounding stays, and to cut the words takes a pass of its own. Were both free, twice the speed would be "
    "out of reach. Tried: to cut each word as its element is rounded, by its index, which is no faster than words of 32 bits.",
    "s??": "As SR. SRC and SRE ask besides whether bits were lost below the word, for which LLVM widens to 64 bits: "
    "{cache-src} in a cache. Tried: five other ways to ask, none faster.",
    "rbits": "Words are read twice, to check them before anything is written and to use them: 16 bytes an element against "
    "8 of the copy, of which 0.5 is the whole. They are lifted to the top of a word in a buffer, with no copy of them.",
    "r*": "{cache-rne} an element in a cache, which is the whole of a copy where that takes as long.",
}
"""By pattern of names: why rows are where they are if they miss their goals, and what was tried. A row takes the first.

The name of a row in braces stands for its figure.
"""
