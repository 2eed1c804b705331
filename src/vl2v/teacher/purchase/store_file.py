"""The SQLite file of a store: its tables, its versions, its locks."""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Self

from vl2v.errors import AccessError
from vl2v.locking import file_lock
from vl2v.progress import Progress, Silent, warn
from vl2v.sqlite import migrate, open_file
from vl2v.teacher.base import TeacherCard

MIGRATIONS = (  # one group of statements per version of the file format; see `vl2v.sqlite.migrate`
    (
        """CREATE TABLE IF NOT EXISTS teachers (
        id INTEGER PRIMARY KEY, identity TEXT NOT NULL, revision TEXT NOT NULL, dimension INTEGER NOT NULL,
        UNIQUE (identity, revision, dimension))""",
        """CREATE TABLE IF NOT EXISTS images (
        teacher INTEGER NOT NULL, view INTEGER NOT NULL, digest BLOB NOT NULL, vector BLOB NOT NULL)""",
        "CREATE UNIQUE INDEX IF NOT EXISTS images_by_content ON images (teacher, view, digest)",
        """CREATE TABLE IF NOT EXISTS texts (
        teacher INTEGER NOT NULL, text TEXT NOT NULL, vector BLOB NOT NULL, PRIMARY KEY (teacher, text))""",
        """CREATE TABLE IF NOT EXISTS ledger (
        id INTEGER PRIMARY KEY, time REAL NOT NULL, run TEXT NOT NULL, teacher INTEGER NOT NULL, kind TEXT NOT NULL,
        purpose TEXT NOT NULL, queries INTEGER NOT NULL, cost TEXT NOT NULL, currency TEXT NOT NULL,
        state TEXT NOT NULL)""",
        "ALTER TABLE ledger ADD COLUMN key TEXT NOT NULL DEFAULT ''",  # if the vendor charges an idempotency key once
        "ALTER TABLE ledger ADD COLUMN members BLOB",  # contents of such a batch, until its embeddings are saved
        "ALTER TABLE ledger ADD COLUMN view INTEGER NOT NULL DEFAULT 0",
        "ALTER TABLE ledger ADD COLUMN attempts INTEGER NOT NULL DEFAULT 1",
        "ALTER TABLE ledger ADD COLUMN note TEXT NOT NULL DEFAULT ''",  # why the last attempt failed
    ),
)


class StoreFile:
    """The file of an `EmbeddingStore`, opened; arguments and errors are those of the store."""

    def __init__(self, path: Path, *, read_only: bool = False) -> None:
        self.path = path
        self._lock = threading.RLock()  # sending threads record their attempts concurrently
        # synchronous FULL, because every row was paid for
        self._db = open_file(path, "FULL", check_same_thread=False, read_only=read_only)
        try:
            migrate(self._db, MIGRATIONS, "teachers", "a store of purchased embeddings", "--store", read_only=read_only)
        except BaseException:
            self._db.close()
            raise

    @classmethod
    def reading(cls, path: Path) -> Self:
        """Open an existing store, also on a read-only disk.

        Raises:
            AccessError: if the file does not exist.
        """
        if not path.exists():
            raise AccessError(
                f"{path} is missing.",
                expected="a store of purchased embeddings",
                found="no such file or folder",
                next_step="correct --store",
            )
        try:
            return cls(path)
        except (OSError, sqlite3.OperationalError):
            return cls(path, read_only=True)

    def close(self) -> None:
        """Close the file."""
        self._db.close()

    @contextmanager
    def alone(self, progress: Progress | None = None) -> Iterator[None]:
        """Lock the store, so that no other process buys until the block ends.

        Args:
            progress: progress callback; it gets a warning if another process has locked the store for some time.
        """
        lock = self.path.with_suffix(".lock")

        def busy() -> None:
            text = f"another process is buying into {self.path}; waiting for it ({lock} is locked)"
            warn(progress or Silent(), text)

        with file_lock(lock, busy):
            yield

    def teacher_id(self, card: TeacherCard) -> int:
        """Return the row number of a teacher, which is added if it is new."""
        key = (card.identity, card.revision, card.dimension)
        self._execute("INSERT OR IGNORE INTO teachers (identity, revision, dimension) VALUES (?, ?, ?)", *key)
        query = "SELECT id FROM teachers WHERE identity = ? AND revision = ? AND dimension = ?"
        return int(self._execute(query, *key)[0][0])

    def _execute(self, statement: str, *values: Any) -> list[Any]:
        """Execute a statement in any thread, and return its rows."""
        with self._lock:
            rows: list[Any] = self._db.execute(statement, values).fetchall()
        return rows

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        with self._lock:
            self._db.execute("BEGIN IMMEDIATE")
            try:
                yield
            except BaseException:
                self._db.execute("ROLLBACK")
                raise
            self._db.execute("COMMIT")
