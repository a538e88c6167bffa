"""`qsim quantize` on arrays that lie in files: the same bytes as in memory, and not much of the array in memory."""

from __future__ import annotations

import os
import resource
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from command import process

from qsim.cli import files, main, quantize

WAYS: dict[str, list[str]] = {
    "values": ["-f", "e4m3"],
    "stochastic": ["-f", "e4m3:SR", "--seed", "7", "--stream", "3", "--offset", "5"],
    "codes": ["-f", "e4m3", "--codes"],
    "packed": ["-f", "int3", "--scale", "absmax", "--codes", "--pack"],
    "packed the other way": ["-f", "e5m2", "--codes", "--pack", "big"],
    "scaled by channel": ["-f", "int4:SR", "--seed", "1", "--scale", "absmean", "--per", "channel"],
    "scaled by column, flushed": ["-f", "int8", "--scale", "pow2", "--per", "1", "--ftz-in"],
    "words": ["-f", "e4m3:SRA(8)", "--rbits", "r.npy"],
    "widened": ["-f", "e4m3", "--dtype", "float64"],
    "text": ["-f", "e4m3", "-o", "y.csv"],
    "scaled by the mean": ["-f", "int4", "--scale", "absmean", "--codes"],
    "scaled by token, exactly": ["-f", "e2m1", "--scale", "absmax", "--per", "token", "--order", "exact"],
    "scaled by a number": ["-f", "int8:RUP", "--scale", "0.37", "--order", "reciprocal"],
    "with the scales": ["-f", "int4", "--scale", "absmax", "--per", "1", "--scales", "s.npy"],
    "a table": ["-f", "nf4", "--scale", "absmax", "--per", "channel", "--codes", "--pack"],
    "by a threshold": ["-f", "e5m2:Threshold(0.25)", "--saturation", "SatFinite"],
    "with all 64 bits": ["-f", "e4m3:SR", "--seed", "1", "--dtype", "float64", "--offset", "18446744073709551000"],
    "with words of a row": ["-f", "e4m3:SRC(8)", "--rbits", "row.npy"],
    "with words of a column": ["-f", "e4m3:SRB(8)", "--rbits", "column.npy"],
}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("kind", ["rows", "one row", "column order", "swapped bytes", "half", "three axes"])
def test_an_array_in_a_file_is_rounded_as_one_in_memory(
    way: str, kind: str, here: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Mapped and in pieces of 24 elements, result and counts have the bytes that they have in one piece in memory."""
    x = (np.random.default_rng(0).standard_normal((10, 40)) * 300).astype(np.float32)
    x[3, 4:9] = [np.nan, np.inf, -0.0, 1e-40, -1e-3]
    if kind == "one row":
        x = x.reshape(1, -1)
    if kind == "half":
        x = x.astype(np.float16)
    if kind == "three axes":
        if "text" in way:
            return
        x = np.asfortranarray(x.reshape(5, 4, 20))
    np.save("x.npy", {"column order": np.asfortranarray(x), "swapped bytes": x.astype(">f4")}.get(kind, x))
    np.save("r.npy", np.random.default_rng(1).integers(0, 256, x.shape, dtype=np.uint8))
    np.save("row.npy", np.random.default_rng(1).integers(0, 256, x.shape[-1:]))
    np.save("column.npy", np.asfortranarray(np.random.default_rng(1).integers(0, 256, (*x.shape[:-1], 1))))
    argv = ["quantize", "x.npy", "-o", "y.npy", *WAYS[way]]
    assert main(argv) == 0
    results = [name for name in ("y.npy", "y.csv", "s.npy") if Path(name).exists()]
    in_memory, told = [Path(name).read_bytes() for name in results], capsys.readouterr().out
    monkeypatch.setattr(files, "LARGE", 0)
    monkeypatch.setattr(files, "PIECE", 24)
    monkeypatch.setattr(quantize, "LARGE", 0)
    monkeypatch.setattr("qsim.scales.PIECE", 100)
    monkeypatch.setattr("qsim.scales.READ", 50)
    assert main(argv) == 0
    assert [Path(name).read_bytes() for name in results] == in_memory
    assert capsys.readouterr().out == told
    assert {path.name for path in here.iterdir()} == {"x.npy", "r.npy", "row.npy", "column.npy", *results}


@pytest.mark.parametrize("shape", [(), (0,), (5,), (3, 0), (7, 3), (4, 50), (2, 3, 30), (1, 1, 100)], ids=str)
def test_pieces_make_up_an_array(shape: tuple[int, ...], monkeypatch: pytest.MonkeyPatch) -> None:
    """Every element lies in one piece, pieces follow in C order, and none is larger than asked for."""
    monkeypatch.setattr(files, "PIECE", 16)
    x = np.arange(np.prod(shape, dtype=int)).reshape(shape)
    found = [x[place].reshape(-1) for place in files.pieces(shape)]
    assert np.concatenate([[], *found]).tolist() == x.reshape(-1).tolist()
    assert all(part.size <= 16 for part in found)


LIMITED = """
import re, resource, sys
import qsim.cli.quantize
from pathlib import Path
import numpy as np, qsim
qsim.set_threads(1)
from qsim.cli import main
np.save('small.npy', np.ones((2, 9), np.float32))
assert main(['quantize', 'small.npy', '-o', 'small.npy', *sys.argv[4:]]) == 0
name, kind = {'data': ('VmData', resource.RLIMIT_DATA), 'space': ('VmSize', resource.RLIMIT_AS)}[sys.argv[1]]
held = 1024 * int(re.search(name + r':\\s*(\\d+)', Path('/proc/self/status').read_text())[1])
resource.setrlimit(kind, (held + (int(sys.argv[3]) << 20),) * 2)
raise SystemExit(main(['quantize', sys.argv[2], '-o', 'y.npy', *sys.argv[4:]]))
"""
"""Round a file with so many MiB of memory, or of addresses, beside those that the program itself has."""


@pytest.mark.skipif(sys.platform != "linux", reason="the limit is Linux's")
@pytest.mark.parametrize(
    ("limit", "way", "order"),
    [("data", "packed", "C"), ("space", "stochastic", "C"), ("space", "scaled by column, flushed", "F")],
)
def test_a_file_larger_than_the_memory_allowed(limit: str, way: str, order: Any, here: Path) -> None:
    """With 48 MiB for data, or for addresses as `ulimit -v` has it, a file of 96 MiB is rounded, in any order of its axes."""
    rows, columns = 96, 1 << 18
    file = np.lib.format.open_memmap("x.npy", "w+", np.float32, (rows, columns), fortran_order=order == "F")
    file[0], file[-1] = 1.0, np.linspace(-3, 3, columns)
    del file
    done = process("-c", LIMITED, limit, "x.npy", "48", *WAYS[way], cwd=here, timeout=300)
    assert done.returncode == 0, done.stderr
    found = np.load("y.npy", mmap_mode="r")
    assert found.shape[0] == rows
    assert found[0].any()
    assert not found[1:-1].any()


@pytest.mark.skipif(sys.platform != "linux", reason="the limit is Linux's")
@pytest.mark.parametrize("limit", ["data", "space"])
def test_a_text_larger_than_the_memory_allowed_is_refused_with_a_way_out(limit: str, here: Path) -> None:
    """A text has to be held: where there is no room for its numbers the sentence names the file, and what would do."""
    Path("x.txt").write_text(("0 " * 1000 + "\n") * 2000, encoding="utf-8")  # 16 MB as numbers
    done = process("-c", LIMITED, limit, "x.txt", "8", "-f", "e4m3", cwd=here)
    assert (done.returncode, done.stderr.count("\n")) == (2, 1), done.stderr
    assert "x.txt: there is not enough memory for it; a .npy is read in pieces" in done.stderr
    assert {path.name for path in here.iterdir()} == {"x.txt", "small.npy"}


def test_a_file_that_is_cut_while_it_is_read_is_refused(
    here: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Where another program shortens the input, the sentence says so, and the older result stays."""
    np.save("x.npy", np.ones(1000))
    Path("y.npy").write_text("mine")
    monkeypatch.setattr(files, "LARGE", 0)
    monkeypatch.setattr(quantize, "LARGE", 0)
    monkeypatch.setattr(files, "PIECE", 100)
    usual = quantize.count

    def cut(*arguments: Any, **options: Any) -> Any:
        os.truncate("x.npy", 4000)
        return usual(*arguments, **options)

    monkeypatch.setattr(quantize, "count", cut)
    assert main(["quantize", "x.npy", "-f", "e4m3", "-o", "y.npy"]) == 2
    assert "x.npy cannot be read as .npy (it was cut while it was read)" in capsys.readouterr().err
    assert Path("y.npy").read_text() == "mine"
    assert {path.name for path in here.iterdir()} == {"x.npy", "y.npy"}


def test_a_disk_without_room_is_said_before_a_process_is_ended_by_it(
    here: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A mapped result that finds no room is refused in a sentence, and leaves the old file and no part of a new one."""
    monkeypatch.setattr(files, "LARGE", 0)
    np.save("x.npy", np.ones(100_000))
    Path("y.npy").write_text("mine")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, hard))
    try:
        assert main(["quantize", "x.npy", "-f", "e4m3", "-o", "y.npy"]) == 2
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert "y.npy: cannot be written (File too large)" in capsys.readouterr().err
    assert Path("y.npy").read_text() == "mine"
    assert {path.name for path in here.iterdir()} == {"x.npy", "y.npy"}


def test_the_disk_of_a_mapped_file_is_taken_before_it_is_filled(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file that is mapped has its blocks: one with holes would end the process when the disk is full."""
    monkeypatch.setattr(files, "LARGE", 0)
    with files.writing("y.npy", (1000, 1000), np.dtype(np.float32)):
        (part,) = here.iterdir()
        assert 512 * part.stat().st_blocks >= 4_000_000
