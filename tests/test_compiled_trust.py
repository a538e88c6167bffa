"""Machine code is taken from nobody but this user and root: of which folders and files, and what happens without."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest

from qsim.kernels import compiled

modes = pytest.mark.skipif(not hasattr(os, "geteuid"), reason="this system has no owners and modes of files")
ME = os.geteuid() if hasattr(os, "geteuid") else 0


def mode_of(path: Path) -> int:
    """Return the permissions of a file or folder."""
    return stat.S_IMODE(path.lstat().st_mode)


# --- Which files are trusted ---------------------------------------------------------------------------------


@modes
@pytest.mark.parametrize("kind", [stat.S_IFREG, stat.S_IFDIR], ids=["file", "folder"])
def test_nobody_else_may_write(kind: int) -> None:
    """Of all modes those are trusted that give neither the group nor others the right to write."""
    for mode in range(0o1000):
        others = f"{mode:03o}"[1:]
        expected = not set(others) & set("2367")
        assert compiled.trusted(SimpleNamespace(st_uid=ME, st_mode=kind | mode)) is expected, oct(mode)


@modes
@pytest.mark.parametrize(
    ("owner", "expected"), [(ME, True), (0, True), (ME + 1, False)], ids=["this user", "root", "another"]
)
def test_the_owner(owner: int, expected: bool) -> None:
    """A file of another user is not trusted, whatever its mode; one of root is."""
    for mode in (0o400, 0o600, 0o755):
        assert compiled.trusted(SimpleNamespace(st_uid=owner, st_mode=stat.S_IFREG | mode)) is expected


@modes
def test_the_owner_is_the_effective_user(monkeypatch: pytest.MonkeyPatch) -> None:
    """A program that runs with another user's rights trusts that user's files, not those of who started it."""
    monkeypatch.setattr(os, "geteuid", lambda: 1001)
    monkeypatch.setattr(os, "getuid", lambda: 1002, raising=False)
    assert compiled.trusted(SimpleNamespace(st_uid=1001, st_mode=stat.S_IFDIR | 0o700))
    assert not compiled.trusted(SimpleNamespace(st_uid=1002, st_mode=stat.S_IFDIR | 0o700))


# --- Files ---------------------------------------------------------------------------------------------------

KEPT = ("symbol", b"\x7fELF\0code")


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """Return a file that holds `KEPT`."""
    place = tmp_path / "kernels-0"
    place.mkdir(mode=0o700)
    compiled.write(place / "loop-1.o", *KEPT)
    return place / "loop-1.o"


def test_a_file_is_read_as_it_was_written(file: Path) -> None:
    """The symbol and the code come back, and nothing else is left in the folder."""
    assert compiled.read(file) == KEPT
    assert list(file.parent.iterdir()) == [file]
    assert compiled.read(file.with_name("loop-2.o")) is None  # there is none


@modes
def test_a_file_is_its_owners_alone(file: Path) -> None:
    """It has the mode 0600, with any umask, and where it replaces one that others might write to."""
    assert mode_of(file) == 0o600
    before = os.umask(0)
    try:
        compiled.write(file.with_name("loop-2.o"), *KEPT)
        file.chmod(0o666)
        compiled.write(file, *KEPT)
    finally:
        os.umask(before)
    assert mode_of(file.with_name("loop-2.o")) == mode_of(file) == 0o600


@modes
@pytest.mark.parametrize("mode", [0o620, 0o602, 0o660, 0o666, 0o777], ids=oct)
def test_a_file_that_others_may_write_is_not_loaded(mode: int, file: Path) -> None:
    """Its content is right, and could be anybody's."""
    file.chmod(mode)
    assert compiled.read(file) is None
    file.chmod(0o644)
    assert compiled.read(file) == KEPT


@modes
def test_a_file_of_another_user_is_not_loaded(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The status is that of the opened file: one of its path could be of another file by then."""
    real = os.fstat

    def foreign(descriptor: int) -> SimpleNamespace:
        return SimpleNamespace(st_uid=ME + 1, st_mode=real(descriptor).st_mode)

    monkeypatch.setattr(compiled, "os", SimpleNamespace(**vars(os) | {"fstat": foreign}))
    assert compiled.read(file) is None


@modes
def test_a_link_is_not_followed(file: Path) -> None:
    """A symbolic link in a file's place is none, even if it leads to a file that would be loaded."""
    elsewhere = file.parent.parent / "elsewhere" / file.parent.name
    elsewhere.mkdir(parents=True)
    target = file.rename(elsewhere / file.name)
    assert compiled.read(target) == KEPT
    file.symlink_to(target)
    assert compiled.read(file) is None
    compiled.write(file, *KEPT)  # takes the place of the link
    assert compiled.read(file) == KEPT
    assert not file.is_symlink()


@pytest.mark.parametrize("name", ["kernels-0/loop-2.o", "kernels-0/pool-1.o", "kernels-1/loop-1.o"])
def test_a_file_is_bound_to_its_name(name: str, file: Path) -> None:
    """A copy under another kernel's name, for other types, or in the folder of another version is not loaded."""
    copy = file.parent.parent / name
    copy.parent.mkdir(exist_ok=True)
    copy.write_bytes(file.read_bytes())
    copy.chmod(0o600)
    assert compiled.read(copy) is None


def test_a_damaged_file_is_not_loaded(file: Path) -> None:
    """Neither with any byte changed, nor cut at any place, nor longer."""
    content = file.read_bytes()
    for at in range(len(content)):
        for damaged in (content[:at], content[:at] + bytes([content[at] ^ 1]) + content[at + 1 :]):
            file.write_bytes(damaged)
            assert compiled.read(file) is None
    file.write_bytes(content + b"\0")
    assert compiled.read(file) is None
    file.write_bytes(content)
    assert compiled.read(file) == KEPT


# --- The folder ----------------------------------------------------------------------------------------------


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Return the folder that NUMBA_CACHE_DIR names; what was said before is forgotten."""
    monkeypatch.setenv("NUMBA_CACHE_DIR", str(tmp_path / "root"))
    compiled.say_once.cache_clear()
    yield tmp_path / "root"
    compiled.say_once.cache_clear()


def place(times: int = 1) -> Path | None:
    """Return what `cache_directory` finds, looked for anew so many times."""
    (found,) = {compiled.cache_directory.__wrapped__() for _ in range(times)}
    return found


def the_warning(caplog: pytest.LogCaptureFixture) -> str:
    """Return what the logger "qsim" said, which is one warning."""
    (record,) = caplog.records
    assert (record.name, record.levelname) == ("qsim", "WARNING")
    return record.getMessage()


def test_a_folder_is_made(root: Path, caplog: pytest.LogCaptureFixture) -> None:
    """It is made once, for its owner alone, and found again without a word."""
    before = os.umask(0)
    try:
        made = place(2)
    finally:
        os.umask(before)
    assert made is not None
    assert made.parent == root
    assert made.is_dir()
    if hasattr(os, "geteuid"):
        assert mode_of(made) == 0o700
    assert not caplog.records


@modes
@pytest.mark.parametrize("mode", [0o720, 0o702, 0o770, 0o777, 0o1777], ids=oct)
def test_a_folder_that_others_may_write_is_not_used(mode: int, root: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Nor is it changed; a warning names it, once, and says how to name another."""
    made = place()
    assert made is not None
    made.chmod(mode)
    assert place(3) is None
    assert mode_of(made) == mode
    assert f"{made} belongs to another user, or others may write to it" in the_warning(caplog)
    assert "NUMBA_CACHE_DIR" in the_warning(caplog)
    made.chmod(0o755)
    assert place() == made
    assert made.parent == root


@modes
def test_a_folder_of_another_user_is_not_used(
    root: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One that was there before may be anybody's."""
    made = place()
    monkeypatch.setattr(compiled, "trusted", lambda status: status.st_uid != ME)
    assert place(2) is None
    assert f"{made} belongs to another user" in the_warning(caplog)
    assert made is not None
    assert made.parent == root


@pytest.mark.parametrize("kind", ["file", "link"])
def test_what_is_no_folder_is_not_used(kind: str, root: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A file in its place, or a link to a folder that would be used."""
    made = place()
    assert made is not None
    if kind == "file":
        made.rmdir()
        made.touch(0o600)
    else:
        made.symlink_to(made.rename(root / "elsewhere"))
    assert place(2) is None
    assert f"{made} is no folder" in the_warning(caplog)


def test_a_root_that_cannot_be_made(root: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Where a file has the name of the folder above, the warning gives the system's reason."""
    root.touch()
    assert place(2) is None
    assert "cannot be made (File exists)" in the_warning(caplog)


def test_an_empty_variable_is_none(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An empty NUMBA_CACHE_DIR names no folder, least of all the current one: the user's is taken, as without it."""
    monkeypatch.setattr(compiled, "user_cache_path", lambda name: root.parent / "user" / name)
    monkeypatch.setenv("NUMBA_CACHE_DIR", "")
    empty = place()
    monkeypatch.delenv("NUMBA_CACHE_DIR")
    assert empty is not None
    assert empty == place()
    assert empty.parent == root.parent / "user" / "qsim"


# --- Processes -----------------------------------------------------------------------------------------------

ROUND = """
    import sys
    import numpy as np
    import qsim
    x = np.float32([1.06, 1.2, -0.3, 0.7])
"""
ALL = """
    from qsim import autograd as ag
    images = np.linspace(-1, 1, 64, dtype=np.float32).reshape(1, 1, 4, 4, 4)
    w = np.linspace(-1, 1, 72, dtype=np.float32).reshape(1, 2, 3, 3, 4)
    gain = np.ones((1, 4), np.float32)
    results = [
        qsim.quantize(x, "nf4"),
        qsim.quantize(x, "int4", scale=0.5),
        ag.group_norm(images, gain, 0 * gain, groups=2)[0],
        ag.conv2d(images, w, name="c", pad=1)[0],
    ]
    print([np.asarray(result).tobytes().hex() for result in results], "numba" in sys.modules)
"""


def run(program: str, **environment: str) -> tuple[str, str]:
    """Return what a process printed, and what it printed as errors."""
    command = [sys.executable, "-c", textwrap.dedent(ROUND) + textwrap.dedent(program)]
    done = subprocess.run(
        command, env=os.environ | environment, capture_output=True, text=True, timeout=240, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip(), done.stderr


def test_every_kind_of_kernel_is_kept(tmp_path: Path) -> None:
    """Tables, scales, norms and patches: a second process imports no Numba, and has the same bits."""
    first, _ = run(ALL, NUMBA_CACHE_DIR=str(tmp_path))
    second, said = run(ALL, NUMBA_CACHE_DIR=str(tmp_path))
    assert first.endswith("] True")
    assert second == first.removesuffix("True") + "False"
    assert not said
    if hasattr(os, "geteuid"):
        assert {mode_of(path) for path in tmp_path.rglob("*.o")} == {0o600}


def test_numba_may_be_disabled(tmp_path: Path) -> None:
    """NUMBA_DISABLE_JIT, which debuggers and coverage set, changes no result."""
    program = 'print(qsim.quantize(x, "e4m3").tolist(), qsim.encode(x, "nf4").tolist())'
    printed, _ = run(program, NUMBA_CACHE_DIR=str(tmp_path), NUMBA_DISABLE_JIT="1")
    # The values of NF4 around these are 0.7230, 1; -0.3949, -0.2844; 0.5626, 0.7230: codes 15, 15, 4, 14.
    assert printed == "[1.0, 1.25, -0.3125, 0.6875] [15, 15, 4, 14]"
