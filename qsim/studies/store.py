"""Where finished cells are kept: one SQLite file, written a transaction a cell, held by one run at a time.

A killed run loses the cells that were being computed and no other. The file is opened for one process alone: SQLite's
own lock says that another run is there, and the operating system drops it however that run ends. In that mode the
write-ahead log needs no shared memory, so that the file may lie on a network's disk too.
"""

from __future__ import annotations

import contextlib
import hashlib
import sqlite3
from collections.abc import Container, Iterator
from pathlib import Path
from types import TracebackType
from typing import Self

from qsim.errors import InputError

__all__ = ["Kept", "Store"]

APPLICATION = 0x7173696D
"""SQLite's mark of whose file it is: "qsim"."""

LAYOUT = 1
"""Raised whenever an older version of qsim would misread the table."""

TABLE = """CREATE TABLE cells (
    key TEXT PRIMARY KEY, label TEXT NOT NULL, record TEXT NOT NULL, seconds REAL NOT NULL, digest TEXT NOT NULL
)"""

LARGEST = 1 << 24
"""Bytes of a record: one is a row of numbers, and what is larger was put there by somebody else."""

KEPT = f"""SELECT key, record, seconds, digest FROM cells
    WHERE typeof(key) = 'text' AND typeof(record) = 'text' AND typeof(digest) = 'text' AND typeof(seconds) = 'real'
    AND seconds >= 0 AND seconds < 9e999 AND length(CAST(record AS BLOB)) <= {LARGEST}"""  # noqa: S608 - of a number
"""The rows that may be ours: another program that wrote to the table may have put anything there."""

Kept = tuple[str, float]
"""A record as JSON, and the seconds that it took."""


class Store:
    """Keep the records of cells by their keys; enter it to hold the file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __enter__(self) -> Self:
        """Open the file, made if missing; refuse one that another run holds, that is damaged or that is none of ours."""
        with self._in_a_sentence():
            self._db = sqlite3.connect(self.path, timeout=1.0, isolation_level=None)
            self._db.text_factory = bytes  # a text may be none
            try:
                self._open()
            except BaseException:
                self._db.close()
                raise
        return self

    def _open(self) -> None:
        run = self._db.execute
        run("PRAGMA locking_mode = EXCLUSIVE")
        run("BEGIN IMMEDIATE")  # from here on the file is this run's; nothing is written to it before it is known
        (mark,), (layout,) = run("PRAGMA application_id").fetchone(), run("PRAGMA user_version").fetchone()
        if run("SELECT count(*) FROM sqlite_master").fetchone() == (0,) and not (mark or layout):
            run(f"PRAGMA application_id = {APPLICATION}")
            run(f"PRAGMA user_version = {LAYOUT}")
            run(TABLE)
        elif (mark, layout) != (APPLICATION, LAYOUT):
            raise InputError(
                f"{self.path} is no store of finished cells of this version of qsim; move it away, or name another "
                "folder with -o"
            )
        run("COMMIT")
        run("PRAGMA journal_mode = WAL")
        run("PRAGMA synchronous = FULL")  # a cell that is told to be finished is on the disk
        run("BEGIN EXCLUSIVE")  # takes the log too, for as long as the file is open
        run("COMMIT")

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with contextlib.suppress(sqlite3.Error):  # of a full disk the caller knows; what was committed is in the log
            self._db.close()

    def kept(self, keys: Container[str]) -> Iterator[tuple[str, Kept]]:
        """Yield those of `keys` whose records are kept and whole, with the records."""
        with self._in_a_sentence():
            for key, record, seconds, digest in self._db.execute(KEPT):
                with contextlib.suppress(UnicodeDecodeError):
                    name, text = key.decode(), record.decode()
                    if name in keys and digest == _digest(text).encode():
                        yield name, (text, seconds)

    def put(self, key: str, label: str, record: str, seconds: float) -> None:
        """Keep a record; it is on the disk when this returns."""
        with self._in_a_sentence():
            row = (key, label, record, seconds, _digest(record))
            self._db.execute("INSERT OR REPLACE INTO cells VALUES (?, ?, ?, ?, ?)", row)

    def clear(self) -> None:
        """Forget all records."""
        with self._in_a_sentence():
            self._db.execute("DELETE FROM cells")

    @contextlib.contextmanager
    def _in_a_sentence(self) -> Iterator[None]:
        """Turn errors of SQLite into advice for the user."""
        try:
            yield
        except sqlite3.Error as error:
            code = getattr(error, "sqlite_errorcode", sqlite3.SQLITE_CORRUPT) & 0xFF
            if code in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
                raise InputError(
                    f"{self.path.parent}: another run is writing there; wait for its end, or name another folder with -o"
                ) from None
            if code in (
                sqlite3.SQLITE_CORRUPT,
                sqlite3.SQLITE_NOTADB,
                sqlite3.SQLITE_ERROR,
            ):  # as for a table that is gone
                raise InputError(
                    f"{self.path} is damaged, or no store of finished cells; move it away to start again, or name "
                    "another folder with -o"
                ) from None
            raise InputError(
                f"{self.path}: cannot be written ({error}); the cells finished before are kept, and the same command "
                "goes on from them once there is room"
            ) from None


def _digest(record: str) -> str:
    return hashlib.sha256(record.encode()).hexdigest()
