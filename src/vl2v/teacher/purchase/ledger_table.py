"""The SQLite file of a store: its tables, versions and locks, and the ledger with one row per batch that was sent."""

from __future__ import annotations

import sqlite3
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

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


JOB = "job:"  # start of the key of a batch job; the rest is its label, and then the vendor's name of it
JOB_LIFE = 30 * 86400.0  # seconds for which the answers of a job are looked for; then it counts as spent
KEY_LIFE = 23 * 3600.0  # seconds for which vendors remember an idempotency key; vl2v's server does so for a day


@dataclass(frozen=True)
class LedgerEntry:
    """A batch of queries that was sent.

    Attributes:
        time: time of sending, in UTC.
        kind: ``image`` or ``text``.
        attempts: number of times the batch was sent; above 1 only if the vendor charges an idempotency key once.
        state: ``kept`` if the embeddings are saved; ``sent`` if there was no usable response, which counts as spent
            since it may have been charged; ``refused`` if the vendor rejected the batch and charged nothing.
    """

    time: datetime
    run: str
    teacher: str
    kind: str
    purpose: str
    queries: int
    cost: Decimal
    currency: str
    attempts: int
    state: str


@dataclass(frozen=True)
class Pending:
    """A batch that was sent with an idempotency key, or as a job, and has no response.

    Attributes:
        key: idempotency key, or `JOB` and the job.
        members: the concatenated SHA-256 of the images, or a JSON list of the texts.
        run: name of the run that pays for it.
    """

    entry: int
    key: str
    members: bytes
    run: str
    cost: Decimal
    view: int = 0

    @property
    def images(self) -> NDArray[np.uint8]:
        """The SHA-256 of each image, [N, 32] uint8."""
        return np.frombuffer(self.members, np.uint8).reshape(-1, 32)


class LedgerTable(StoreFile):
    """Writes and reads the ledger of a store; `vl2v.teacher.purchase.ledger.Ledger` is the view for users."""

    def open_entry(
        self,
        card: TeacherCard,
        run: str,
        kind: str,
        purpose: str,
        queries: int,
        cost: Decimal,
        *,
        key: str = "",
        members: bytes | None = None,
        view: int = 0,
    ) -> int:
        """Add a ledger entry for a batch that is about to be sent; return its number.

        Args:
            kind: ``image`` or ``text``.
            cost: maximum cost, which counts as spent until the entry is settled.
            key: idempotency key of the batch, if the vendor charges a key only once.
            members: contents of the batch, so that it can be sent again with its key; see `Pending`.
        """
        names = "time, run, teacher, kind, purpose, queries, cost, currency, state, key, members, view"
        with self._lock:
            row = (time.time(), run, self.teacher_id(card), kind, purpose, queries, str(cost), card.price.currency)
            statement = f"INSERT INTO ledger ({names}) VALUES ({', '.join('?' * 12)})"
            return int(self._db.execute(statement, (*row, "sent", key, members, view)).lastrowid or 0)

    def sent_again(self, entry: int) -> None:
        """Count another attempt of an entry whose key the vendor charges only once."""
        self._execute("UPDATE ledger SET attempts = attempts + 1 WHERE id = ?", entry)

    def set_key(self, entry: int, key: str) -> None:
        """Replace the key of an entry, for a job that now has a name."""
        self._execute("UPDATE ledger SET key = ? WHERE id = ?", key, entry)

    def note(self, entry: int, why: str, *, refused: bool = False) -> None:
        """Record why an attempt failed.

        Args:
            why: the reason in a few words.
            refused: whether the vendor certainly charged nothing; the cost of the entry is then set to 0.
        """
        change = ", state = 'refused', cost = '0', members = NULL" if refused else ""
        self._execute(f"UPDATE ledger SET note = ?{change} WHERE id = ?", why, entry)

    def write_off(self, entry: int, why: str, cost: Decimal | None) -> None:
        """Count an entry as spent, at `cost` if that is known, and never send its batch again with its key."""
        change = "note = ?, members = NULL, cost = coalesce(?, cost)"
        self._execute(f"UPDATE ledger SET {change} WHERE id = ?", why, None if cost is None else str(cost), entry)

    def settle(self, entry: int, cost: Decimal | None) -> None:
        """Confirm an entry whose embeddings are not saved, at the charged cost; None confirms the reserved cost."""
        with self._transaction():
            self._settle(entry, cost)

    def pending(self, card: TeacherCard, kind: str | None = None, view: int | None = None) -> list[Pending]:
        """Return the batches without a response that cost nothing more, oldest first.

        They are jobs, and requests that are recent enough to be sent again free of charge.

        Args:
            kind: ``image`` or ``text``; None for both.
            view: number of the view; None for all.
        """
        query = (
            "SELECT id, key, members, run, cost, view FROM ledger WHERE state = 'sent' AND key != ''"
            " AND members IS NOT NULL AND teacher = ? AND time > ? - CASE WHEN key LIKE ? THEN ? ELSE ? END"
            " AND (? IS NULL OR kind = ?) AND (? IS NULL OR view = ?) ORDER BY id"
        )
        life = (f"{JOB}%", JOB_LIFE, KEY_LIFE)
        rows = self._execute(query, self.teacher_id(card), time.time(), *life, kind, kind, view, view)
        return [Pending(entry, key, members, run, Decimal(cost), at) for entry, key, members, run, cost, at in rows]

    def entries(self, run: str | None = None) -> list[LedgerEntry]:
        """Return the ledger entries, oldest first, of all runs or of one."""
        query = (
            "SELECT time, run, identity, kind, purpose, queries, cost, currency, attempts, state FROM ledger"
            " JOIN teachers ON teachers.id = ledger.teacher WHERE ? IS NULL OR run = ? ORDER BY ledger.id"
        )
        rows = self._execute(query, run, run)
        return [
            LedgerEntry(datetime.fromtimestamp(at, UTC), name, teacher, kind, purpose, queries, Decimal(cost), *rest)
            for at, name, teacher, kind, purpose, queries, cost, *rest in rows
        ]

    def costs(self) -> list[tuple[str, str, Decimal]]:
        """Return the label, the run and the actual or maximum cost of every ledger entry."""
        rows = self._execute("SELECT id, time, run, cost FROM ledger ORDER BY id")
        return [(_label(entry, time), run, Decimal(cost)) for entry, time, run, cost in rows]

    def label(self, entry: int) -> str:
        """Return a name of a ledger entry that is unique across stores."""
        ((at,),) = self._execute("SELECT time FROM ledger WHERE id = ?", entry)
        return _label(entry, at)

    def _settle(self, entry: int | None, cost: Decimal | None, queries: int | None = None) -> None:
        if entry is not None:
            change = "state = 'kept', members = NULL, cost = coalesce(?, cost), queries = coalesce(?, queries)"
            charged = None if cost is None else str(cost)
            self._execute(f"UPDATE ledger SET {change} WHERE id = ?", charged, queries, entry)


def _label(entry: int, at: float) -> str:
    return f"{at!r}-{entry}"
