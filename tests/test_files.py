"""Files appear whole or not at all, also across a power cut, and what killed writers left goes, but nothing else does."""

from __future__ import annotations

import os
import signal
import stat
import subprocess
import sys
import time
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from command import ENVIRONMENT

from qsim import files, optim
from qsim.errors import InputError

DIGITS = "0123456789abcdef"


def parts(folder: Path) -> list[str]:
    """Return the names of unfinished files."""
    return sorted(path.name for path in folder.iterdir() if path.name.startswith("."))


def stopped_in_the_middle(folder: Path, write: str) -> subprocess.Popen[str]:
    """Return a process that is writing a file in `folder`, and waits where it would synchronize it with the disk."""
    code = f"""
import os, sys, time
from pathlib import Path
import numpy as np
from qsim import files, optim

def wait(descriptor):
    print("waiting", flush=True)
    time.sleep(60)

os.fsync = wait
folder = Path(sys.argv[1])
{write}
"""
    process = subprocess.Popen(
        [sys.executable, "-c", code, str(folder)], stdout=subprocess.PIPE, text=True, env=ENVIRONMENT
    )
    assert process.stdout is not None
    if process.stdout.readline() != "waiting\n":
        process.kill()
        process.communicate()
        pytest.fail("the process did not come to the end of its writing")
    return process


SAVE = 'optim.save(folder / "c.npz", {"w": np.ones(100_000)})'


def test_files_of_killed_writers_are_removed_by_the_next(tmp_path: Path) -> None:
    """A save that is killed leaves the old checkpoint and a part; the next save of any file in the folder removes the part."""
    path = tmp_path / "c.npz"
    optim.save(path, {"step": 1})
    process = stopped_in_the_middle(tmp_path, SAVE)
    try:
        assert len(parts(tmp_path)) == 1
        optim.save(path, {"step": 2})
        assert len(parts(tmp_path)) == 1  # of a writer that lives
        assert optim.load(path) == {"step": 2}
    finally:
        process.send_signal(signal.SIGKILL)
        process.communicate()
    assert len(parts(tmp_path)) == 1
    assert optim.load(path) == {"step": 2}
    optim.save(tmp_path / "other.npz", {"step": 3})
    assert sorted(path.name for path in tmp_path.iterdir()) == ["c.npz", "other.npz"]


def test_files_of_writers_in_this_process_stay(tmp_path: Path) -> None:
    """Two files that are written at a time do not remove each other, and a failing body removes its own."""
    with files.whole(tmp_path / "a") as one:
        with files.whole(tmp_path / "b") as other:
            files.remove_unfinished(tmp_path)
            assert len(parts(tmp_path)) == 2
            other.write(b"b")
        one.write(b"a")
        with pytest.raises(KeyError), files.whole(tmp_path / "a"):
            raise KeyError
        assert len(parts(tmp_path)) == 1
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == {"a": b"a", "b": b"b"}


def mine(folder: Path, digits: str = DIGITS) -> Path:
    """Return a path as this machine names unfinished files."""
    with files.whole(folder / "x"):
        name = parts(folder)[-1]
    (folder / "x").unlink()
    return folder / f"{name[:14]}{digits}.part"


def test_only_parts_of_this_user_are_removed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of all that stands in a folder only regular files by the names that `whole` gives go, and those of others stay."""
    part = mine(tmp_path)
    kept = [tmp_path / name for name in (
        ".qsim-notes", ".qsim-1.part", f".qsim-{DIGITS}.npz", f"qsim-{DIGITS}.part", f".qsim-{DIGITS}.part~",
        f".qsim-{DIGITS.upper()}.part", f".qsim-{DIGITS}{DIGITS}.part", f".{part.name}",
    )]  # fmt: skip
    for path in kept:
        path.write_text("mine")
    below = tmp_path / "below"
    below.mkdir()
    (below / part.name).write_text("not here")
    link, folder, pipe, twice = (part.with_name(part.name.replace(DIGITS, digit * 16)) for digit in "abcd")
    link.symlink_to(tmp_path / ".qsim-notes")
    folder.mkdir()
    os.mkfifo(pipe)
    twice.write_text("has another name")
    os.link(twice, tmp_path / "another")
    part.write_text("left")
    with monkeypatch.context() as patch:
        patch.setattr(os, "geteuid", lambda: os.getuid() + 1)
        files.remove_unfinished(tmp_path)
    assert part.exists()
    files.remove_unfinished(tmp_path)
    assert not part.exists()
    assert all(path.read_text() == "mine" for path in kept)
    assert link.is_symlink()
    assert folder.is_dir()
    assert stat.S_ISFIFO(pipe.lstat().st_mode)
    assert twice.exists()
    assert (below / part.name).exists()
    files.remove_unfinished(tmp_path / "no folder")


@pytest.mark.parametrize("machine", ["", "01234567"])
def test_parts_of_other_machines_are_a_day_old(machine: str, tmp_path: Path) -> None:
    """A lock of another machine may not be seen, so its part stays for a day after it was last written to."""
    part = tmp_path / f".qsim-{machine}{DIGITS}.part"
    part.write_text("left")
    for age, stays in ((0, True), (86_000, True), (86_500, False)):
        now = time.time()
        os.utime(part, (now - age, now - age))
        files.remove_unfinished(tmp_path)
        assert part.exists() == stays


def test_a_part_removed_before_its_lock_is_begun_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where another process locks or removes a part between its beginning and its lock, the writer takes another name."""
    lock, seen = files._lock, []

    def late(descriptor: int) -> bool | None:
        seen.append(descriptor)
        if len(seen) == 1:
            return False  # another has it
        if len(seen) == 2:
            for name in parts(tmp_path):
                (tmp_path / name).unlink()
        return lock(descriptor)

    monkeypatch.setattr(files, "_lock", late)
    with files.whole(tmp_path / "a") as file:
        file.write(b"a")
    assert len(seen) == 3
    assert (tmp_path / "a").read_bytes() == b"a"


@pytest.mark.parametrize("error", [None, OSError(95, "Operation not supported")])
def test_file_systems_without_locks_are_written_to(
    error: OSError | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where files cannot be locked they are written all the same, and nothing is removed."""

    def fail(*_: Any) -> None:
        assert error is not None
        raise error

    part = mine(tmp_path)
    part.write_text("left")
    if error is None:
        monkeypatch.setattr(files, "fcntl", None)
    else:
        assert files.fcntl is not None
        monkeypatch.setattr(files.fcntl, "flock", fail)
    with files.whole(tmp_path / "a") as file:
        file.write(b"a")
    assert (tmp_path / "a").read_bytes() == b"a"
    assert parts(tmp_path) == [part.name]


def test_the_disk_has_a_file_before_it_takes_its_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The part is synchronized with all that was written, then renamed, then the folder is synchronized."""
    happened: list[tuple[str, Any]] = []
    synchronize, replace = os.fsync, Path.replace

    def fsync(descriptor: int) -> None:
        about = os.fstat(descriptor)
        happened.append(("folder", about.st_ino) if stat.S_ISDIR(about.st_mode) else ("file", about.st_size))
        synchronize(descriptor)

    def rename(part: Path, target: Path) -> Path:
        happened.append(("rename", target))
        return replace(part, target)

    monkeypatch.setattr(os, "fsync", fsync)
    monkeypatch.setattr(Path, "replace", rename)
    with files.whole(tmp_path / "a") as file:
        file.write(b"12345")
    assert happened == [("file", 5), ("rename", tmp_path / "a"), ("folder", tmp_path.stat().st_ino)]


@pytest.mark.parametrize("failing", ["file", "folder"])
def test_a_disk_that_cannot_synchronize(failing: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """If a file does not reach the disk, the old one stays; a folder that cannot be synchronized is no reason to fail."""
    path = tmp_path / "a"
    path.write_bytes(b"old")

    def fsync(descriptor: int) -> None:
        if stat.S_ISDIR(os.fstat(descriptor).st_mode) == (failing == "folder"):
            raise OSError(5, "Input/output error")

    monkeypatch.setattr(os, "fsync", fsync)
    if failing == "folder":
        with files.whole(path) as file:
            file.write(b"new")
    else:
        with pytest.raises(OSError, match="Input/output error"), files.whole(path) as file:
            file.write(b"new")
        with pytest.raises(InputError, match="cannot be written"):
            optim.save(path, {"a": 1})
    assert path.read_bytes() == (b"new" if failing == "folder" else b"old")
    assert not parts(tmp_path)


# --- Archives --------------------------------------------------------------------------------------------------------


def test_archives_hold_what_numpy_saves(tmp_path: Path) -> None:
    """Compressed or not, every array of numbers that `numpy.savez` writes is read as `numpy.load` reads it."""
    arrays = {
        "a": np.arange(6.0).reshape(2, 3),
        "f": np.asfortranarray(np.arange(6, dtype=">i2").reshape(2, 3)),
        "none": np.zeros((3, 0), bool),
        "one": np.array(2.5, np.float16),
        "many": np.zeros((1,) * 30, np.uint8),
    }
    for save in (np.savez, np.savez_compressed):
        save(tmp_path / "a.npz", **arrays)
        found, comment = files.read_npz(tmp_path / "a.npz", "arrays")
        assert comment == b""
        assert list(found) == list(arrays)
        for name, x in arrays.items():
            assert found[name].dtype == x.dtype
            assert found[name].shape == x.shape
            assert (found[name] == x).all()
            assert found[name].flags.writeable


def test_archives_do_not_expand_without_bounds(tmp_path: Path) -> None:
    """Compressed members of 384 MiB together, in a file of a thousandth of that, are refused before they are expanded."""
    path, header = tmp_path / "a.npz", b"{'descr': '|u1', 'fortran_order': False, 'shape': (201326462,), }"
    content = b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name in "ab":
            with archive.open(f"{name}.npy", "w", force_zip64=True) as member:
                member.write(content)
                for _ in range(192):
                    member.write(bytes(1 << 20))
    assert path.stat().st_size < 1 << 19
    begin = time.process_time()
    with pytest.raises(InputError, match=r"a\.npz: expands to over 100 times its size; expected arrays"):
        files.read_npz(path, "arrays")
    assert time.process_time() - begin < 0.5  # expanding takes longer


def test_members_do_not_overlap(tmp_path: Path) -> None:
    """An archive in which a member lies within another, so that they are longer than the file, is refused."""
    path, entry, end = tmp_path / "a.npz", b"PK\x01\x02", b"PK\x05\x06"
    np.savez(path, b=np.arange(1000, dtype=np.uint8))
    inner = path.read_bytes()
    np.savez(path, a=np.frombuffer(inner[: inner.index(entry)], np.uint8))
    outer = path.read_bytes()
    at = outer.index(b"PK\x03\x04", 4)  # where the member b begins, within the member a
    first = outer[outer.rindex(entry) : outer.index(end)]
    second = bytearray(inner[inner.index(entry) : inner.index(end)])
    second[42:46] = at.to_bytes(4, "little")
    closing = bytearray(outer[outer.index(end) :])
    closing[8:16] = b"\2\0\2\0" + len(first + second).to_bytes(4, "little")
    path.write_bytes(outer[: outer.rindex(entry)] + first + bytes(second) + bytes(closing))
    with zipfile.ZipFile(path) as archive:
        assert archive.namelist() == ["a.npy", "b.npy"]
    with pytest.raises(InputError, match="damaged, or another file"):
        files.read_npz(path, "arrays")
