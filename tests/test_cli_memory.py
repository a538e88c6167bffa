"""`qsim quantize` on arrays that lie in files: the same bytes as in memory, and not much of the array in memory."""

from __future__ import annotations

import resource
import sys
from pathlib import Path

import numpy as np
import pytest
from command import process

from qsim.cli import files, main

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
}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("kind", ["rows", "one row", "column order", "swapped bytes"])
def test_an_array_in_a_file_is_rounded_as_one_in_memory(
    way: str, kind: str, here: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Mapped and in pieces of 24 elements, result and counts have the bytes that they have in one piece in memory."""
    x = (np.random.default_rng(0).standard_normal((10, 40)) * 300).astype(np.float32)
    x[3, 4:9] = [np.nan, np.inf, -0.0, 1e-40, -1e-3]
    if kind == "one row":
        x = x.reshape(-1) if "--per" not in WAYS[way] else x.reshape(1, -1)
    np.save("x.npy", {"column order": np.asfortranarray(x), "swapped bytes": x.astype(">f4")}.get(kind, x))
    np.save("r.npy", np.random.default_rng(1).integers(0, 256, x.shape, dtype=np.uint8))
    assert main(["quantize", "x.npy", "-o", "y.npy", *WAYS[way]]) == 0
    in_memory, told = Path("y.npy").read_bytes(), capsys.readouterr().out
    monkeypatch.setattr(files, "MAPPED", 0)
    monkeypatch.setattr(files, "PIECE", 24)
    assert main(["quantize", "x.npy", "-o", "y.npy", *WAYS[way]]) == 0
    assert Path("y.npy").read_bytes() == in_memory
    assert capsys.readouterr().out == told
    assert {path.name for path in here.iterdir()} == {"x.npy", "y.npy", "r.npy"}


@pytest.mark.parametrize("shape", [(), (0,), (5,), (3, 0), (7, 3), (4, 50), (2, 3, 30), (1, 1, 100)], ids=str)
def test_pieces_make_up_an_array(shape: tuple[int, ...], monkeypatch: pytest.MonkeyPatch) -> None:
    """Every element lies in one piece, pieces follow in C order, and none is larger than asked for."""
    monkeypatch.setattr(files, "PIECE", 16)
    x = np.arange(np.prod(shape, dtype=int)).reshape(shape)
    found = [x[place].reshape(-1) for place in files.pieces(shape)]
    assert np.concatenate([[], *found]).tolist() == x.reshape(-1).tolist()
    assert all(part.size <= 16 for part in found)


@pytest.mark.skipif(sys.platform != "linux", reason="the limit is Linux's")
@pytest.mark.parametrize("way", ["stochastic", "packed"])
def test_a_file_larger_than_the_memory_allowed(way: str, here: Path) -> None:
    """With 48 MiB for data beside what the program itself has, a file of 128 MiB is rounded."""
    rows, columns = 128, 1 << 18
    file = np.lib.format.open_memmap("x.npy", "w+", np.float32, (rows, columns))
    file[0], file[-1] = 1.0, np.linspace(-3, 3, columns)
    del file
    code = (
        "import re, resource, sys\nimport qsim.cli.quantize\nfrom pathlib import Path\n"
        "import numpy as np, qsim\nqsim.set_threads(1)\nfrom qsim.cli import main\n"
        "np.save('small.npy', np.ones((2, 9), np.float32))\n"
        "assert main(['quantize', 'small.npy', '-o', 'small.npy', *sys.argv[1:]]) == 0\n"
        "held = 1024 * int(re.search(r'VmData:\\s*(\\d+)', Path('/proc/self/status').read_text())[1])\n"
        "resource.setrlimit(resource.RLIMIT_DATA, (held + (48 << 20),) * 2)\n"
        "raise SystemExit(main(['quantize', 'x.npy', '-o', 'y.npy', *sys.argv[1:]]))"
    )
    done = process("-c", code, *WAYS[way], cwd=here, timeout=120)
    assert done.returncode == 0, done.stderr
    found = np.load("y.npy", mmap_mode="r")
    assert found.shape[0] == rows
    assert not found[1:-1].any()


def test_a_disk_without_room_is_said_before_a_process_is_ended_by_it(
    here: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A mapped result that finds no room is refused in a sentence, and leaves the old file and no part of a new one."""
    monkeypatch.setattr(files, "MAPPED", 0)
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
    monkeypatch.setattr(files, "MAPPED", 0)
    with files.writing("y.npy", (1000, 1000), np.dtype(np.float32)):
        (part,) = here.iterdir()
        assert 512 * part.stat().st_blocks >= 4_000_000
