"""One SQLite file of the spool: each change is on the disk before it counts, readers do not wait
for it, and what is damaged is told apart from what is only out of reach.
"""

from __future__ import annotations

import contextlib
import sqlite3
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

_OUT_OF_REACH = {
    sqlite3.SQLITE_BUSY,
    sqlite3.SQLITE_CANTOPEN,
    sqlite3.SQLITE_FULL,
    sqlite3.SQLITE_IOERR,
    sqlite3.SQLITE_LOCKED,
    sqlite3.SQLITE_PERM,
    sqlite3.SQLITE_READONLY,
}


class DatabaseDamaged(Exception):
    """Its content cannot be used."""


class DatabaseUnavailable(OSError):
    """The disk is full, or does not let it be read or written; its content is as it was."""


class Database:
    """Opens or makes the file, readable for its owner only; safe under threads.

    Args:
        schema: statements that may run again on a file that has them.
        probe: a query that fails on a file with other columns.

    Raises:
        DatabaseDamaged: it is there and cannot be used.
        DatabaseUnavailable: it cannot be read or written now.
    """

    def __init__(self, file: Path, schema: str, probe: str) -> None:
        self._lock = threading.RLock()
        self._reading = threading.Lock()
        with contextlib.ExitStack() as on_failure:
            try:
                file.touch(mode=0o600, exist_ok=True)
                self._db = _connect(file)
                on_failure.callback(self._db.close)
                self._db.execute("PRAGMA busy_timeout=10000")
                self._db.execute("PRAGMA journal_mode=WAL")
                self._db.execute("PRAGMA synchronous=FULL")
                with contextlib.closing(self._db.execute("PRAGMA quick_check(1)")) as check:
                    found = check.fetchone()
                if found is None or found[0] != "ok":
                    raise DatabaseDamaged(f"{file.name} is damaged: its check failed")
                self._db.executescript(schema)
                self._db.execute(probe)
                # Readers do not wait for a transaction that waits for the disk.
                self._reader = _connect(file)
                on_failure.callback(self._reader.close)
                self._reader.execute("PRAGMA query_only=1")
            except sqlite3.DatabaseError as error:
                if _out_of_reach(error):
                    raise _unavailable(file.name, error) from error
                raise DatabaseDamaged(f"{file.name} is damaged: {type(error).__name__}") from error
            on_failure.pop_all()
        self._name = file.name

    def close(self) -> None:
        with self._lock, self._reading:
            self._reader.close()
            self._db.close()

    @contextlib.contextmanager
    def transaction(self) -> Iterator[sqlite3.Connection]:
        """All of it is on the disk after the block, or nothing of it.

        Raises:
            DatabaseUnavailable: the disk is full, or does not take it.
        """
        with self._lock:
            try:
                self._db.execute("BEGIN IMMEDIATE")
                try:
                    yield self._db
                    self._db.execute("COMMIT")
                except BaseException:
                    # A full disk has rolled it back already.
                    if self._db.in_transaction:
                        self._db.execute("ROLLBACK")
                    raise
            except sqlite3.DatabaseError as error:
                if _out_of_reach(error):
                    raise _unavailable(self._name, error) from error
                raise

    def rows(self, sql: str, *parameters: object) -> list[tuple[Any, ...]]:
        """What a query gives; it sees what was committed before."""
        with self._reading:
            return self._reader.execute(sql, parameters).fetchall()


def _connect(file: Path) -> sqlite3.Connection:
    return sqlite3.connect(file, isolation_level=None, check_same_thread=False)


def _out_of_reach(error: sqlite3.DatabaseError) -> bool:
    # The low byte is the primary result code; errors of the module itself have none.
    return getattr(error, "sqlite_errorcode", 0) & 0xFF in _OUT_OF_REACH


def _unavailable(name: str, error: sqlite3.DatabaseError) -> DatabaseUnavailable:
    return DatabaseUnavailable(f"{name} cannot be read or written: {error}")
