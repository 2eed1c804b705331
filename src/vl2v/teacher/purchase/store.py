"""The store of purchased embeddings and the ledger, in one SQLite file."""

from __future__ import annotations

import sqlite3
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from vl2v.errors import AccessError, TeacherError
from vl2v.locking import file_lock
from vl2v.progress import Progress, Silent, warn
from vl2v.sqlite import migrate, open_file
from vl2v.teacher.base import TeacherCard, Vectors

Digests = NDArray[np.uint8]

MIGRATIONS = (  # a group of statements for every later form of the file; see `vl2v.sqlite.migrate`
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
        "ALTER TABLE ledger ADD COLUMN members BLOB",  # what such a batch holds, until its vectors are kept
        "ALTER TABLE ledger ADD COLUMN view INTEGER NOT NULL DEFAULT 0",
        "ALTER TABLE ledger ADD COLUMN attempts INTEGER NOT NULL DEFAULT 1",
        "ALTER TABLE ledger ADD COLUMN note TEXT NOT NULL DEFAULT ''",  # why the last attempt brought nothing
    ),
)
KEY_LIFE = 23 * 3600.0  # seconds that a vendor surely remembers a key for; ours does for a day


@dataclass(frozen=True)
class Pending:
    """A batch that was sent under an idempotency key and never came back.

    Attributes:
        entry: its number in the ledger.
        key: the key.
        members: SHA-256 of each image, one after the other; or a JSON list of texts.
        run: the run on whose account it is booked.
        cost: what is reserved for it.
    """

    entry: int
    key: str
    members: bytes
    run: str
    cost: Decimal


class EmbeddingStore:
    """Purchased embeddings by SHA-256 of the sent bytes, teacher (identity, revision, dimension) and view.

    A batch of embeddings and its ledger entry are committed together, so a killed process loses nothing.
    One process buys at a time (`alone`), so that no image is bought twice.

    Args:
        path: the SQLite file; its folder is created if necessary.
        read_only: only read the file, also on a read-only disk.

    Raises:
        AccessError: if the file belongs to another program or a newer version.
        sqlite3.Error: if it is damaged or cannot be opened; it is never deleted.
    """

    def __init__(self, path: Path, *, read_only: bool = False) -> None:
        self.path = path
        self._lock = threading.RLock()  # the threads that send book their attempts here
        # synchronous FULL, since money was paid for every row
        self._db = open_file(path, "FULL", check_same_thread=False, read_only=read_only)
        try:
            migrate(self._db, MIGRATIONS, "teachers", "a store of purchased embeddings", "--store", read_only=read_only)
        except BaseException:
            self._db.close()
            raise

    @classmethod
    def reading(cls, path: Path) -> EmbeddingStore:
        """Open what is there to look at it, from a read-only disk too.

        Raises:
            AccessError: if there is none.
        """
        if not path.exists():
            found, step = "no such file or folder", "correct --store"
            raise AccessError(
                f"{path} is missing.", expected="a store of purchased embeddings", found=found, next_step=step
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
        """Keep every other process from buying meanwhile.

        Args:
            progress: told where another process buys for longer.
        """
        lock = self.path.with_suffix(".lock")

        def busy() -> None:
            text = f"another process is buying into {self.path}; waiting for it ({lock} is locked)"
            warn(progress or Silent(), text)

        with file_lock(lock, busy):
            yield

    def teacher_id(self, card: TeacherCard) -> int:
        """The row of a teacher, made if new."""
        key = (card.identity, card.revision, card.dimension)
        self._db.execute("INSERT OR IGNORE INTO teachers (identity, revision, dimension) VALUES (?, ?, ?)", key)
        query = "SELECT id FROM teachers WHERE identity = ? AND revision = ? AND dimension = ?"
        return int(self._db.execute(query, key).fetchone()[0])

    def knows_images(self, card: TeacherCard, digests: Digests, view: int = 0) -> NDArray[np.bool_]:
        """Which of [N, 32] contents have a vector of this view, [N] bool."""
        teacher = self.teacher_id(card)
        query = "SELECT 1 FROM images WHERE teacher = ? AND view = ? AND digest = ?"
        look = self._db.execute
        found = (look(query, (teacher, view, row.tobytes())).fetchone() is not None for row in digests)
        return np.fromiter(found, dtype=np.bool_, count=len(digests))

    def lacks(self, card: TeacherCard, digests: Digests, view: int = 0) -> list[int]:
        """Positions of the distinct contents without a vector, in an order shuffled by content."""
        known = self.knows_images(card, digests, view)
        _, first = np.unique(digests, axis=0, return_index=True)  # sorted by content: a shuffled order
        return [int(i) for i in first[~known[first]]]

    def knows_texts(self, card: TeacherCard, texts: Sequence[str]) -> list[bool]:
        """Which texts have a vector."""
        teacher = self.teacher_id(card)
        query = "SELECT 1 FROM texts WHERE teacher = ? AND text = ?"
        return [self._db.execute(query, (teacher, text)).fetchone() is not None for text in texts]

    def images(self, card: TeacherCard, digests: Digests, view: int = 0) -> Vectors:
        """The vectors of [N, 32] contents, [N, D] float32 in their order.

        Raises:
            TeacherError: if one was never bought.
        """
        teacher = self.teacher_id(card)
        out = np.empty((len(digests), card.dimension), np.float32)
        for start in range(0, len(digests), 500):  # below SQLite's bound on variables
            keys = [row.tobytes() for row in digests[start : start + 500]]
            marks = ",".join("?" * len(keys))
            query = f"SELECT digest, vector FROM images WHERE teacher = ? AND view = ? AND digest IN ({marks})"
            found = dict(self._db.execute(query, (teacher, view, *keys)))
            for i, key in enumerate(keys, start):
                if key not in found:
                    raise _missing(card, f"image {key.hex()[:16]}, view {view}")
                out[i] = np.frombuffer(found[key], np.float32)
        return out

    def texts(self, card: TeacherCard, texts: Sequence[str]) -> Vectors:
        """The vectors of texts, [N, D] float32 in their order.

        Raises:
            TeacherError: if one was never bought.
        """
        teacher = self.teacher_id(card)
        out = np.empty((len(texts), card.dimension), np.float32)
        for i, text in enumerate(texts):
            query = "SELECT vector FROM texts WHERE teacher = ? AND text = ?"
            row = self._db.execute(query, (teacher, text)).fetchone()
            if row is None:
                raise _missing(card, f"text '{text}'")
            out[i] = np.frombuffer(row[0], np.float32)
        return out

    def lengths(self, card: TeacherCard, kind: str, count: int) -> NDArray[np.float64]:
        """The lengths of at most `count` of a teacher's embeddings of a kind, ``image`` or ``text``."""
        table = {"image": "images", "text": "texts"}[kind]
        query = f"SELECT vector FROM {table} WHERE teacher = ? LIMIT ?"
        with self._lock:
            rows = self._db.execute(query, (self.teacher_id(card), count)).fetchall()
        return np.array([np.linalg.norm(np.frombuffer(row[0], np.float32)) for row in rows], np.float64)

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
        """Write into the ledger that a batch is about to be sent; returns the entry's number.

        Args:
            card: who is asked.
            run: for which run.
            kind: ``image`` or ``text``.
            purpose: what for.
            queries: how many.
            cost: the most that it may cost; counts as spent until it is settled.
            key: the batch's idempotency key, if the vendor charges a key once.
            members: what the batch holds, so that it can be sent again under its key; see `Pending`.
            view: of the images.
        """
        names = "time, run, teacher, kind, purpose, queries, cost, currency, state, key, members, view"
        with self._lock:
            row = (time.time(), run, self.teacher_id(card), kind, purpose, queries, str(cost), card.price.currency)
            statement = f"INSERT INTO ledger ({names}) VALUES ({', '.join('?' * 12)})"
            return int(self._db.execute(statement, (*row, "sent", key, members, view)).lastrowid or 0)

    def sent_again(self, entry: int) -> None:
        """Count another attempt under the same entry, because the vendor charges its key once."""
        with self._lock:
            self._db.execute("UPDATE ledger SET attempts = attempts + 1 WHERE id = ?", (entry,))

    def note(self, entry: int, why: str, *, refused: bool = False) -> None:
        """Write down why an entry's attempt brought nothing.

        Args:
            entry: its number.
            why: in a few words.
            refused: whether the vendor surely charged nothing; the entry then costs nothing.
        """
        change = ", state = 'refused', cost = '0', members = NULL" if refused else ""
        with self._lock:
            self._db.execute(f"UPDATE ledger SET note = ?{change} WHERE id = ?", (why, entry))

    def write_off(self, entry: int, why: str, cost: Decimal | None) -> None:
        """Keep an entry as spent, at `cost` if that is known, and never send its batch again under its key."""
        with self._lock:
            change = "note = ?, members = NULL, cost = coalesce(?, cost)"
            self._db.execute(f"UPDATE ledger SET {change} WHERE id = ?", (why, cost and str(cost), entry))

    def settle(self, entry: int, cost: Decimal | None) -> None:
        """Confirm an entry whose vectors are not kept, at what it cost in the end; None leaves what was reserved."""
        with self._transaction():
            self._settle(entry, cost)

    def pending(self, card: TeacherCard, kind: str | None = None, view: int | None = None) -> list[Pending]:
        """Batches under a key that may still be answered without being charged again, oldest first."""
        query = (
            "SELECT id, key, members, run, cost FROM ledger WHERE state = 'sent' AND key != '' AND members IS NOT NULL"
            " AND teacher = ? AND time > ? AND (? IS NULL OR kind = ?) AND (? IS NULL OR view = ?) ORDER BY id"
        )
        with self._lock:
            values = (self.teacher_id(card), time.time() - KEY_LIFE, kind, kind, view, view)
            rows = self._db.execute(query, values).fetchall()
        return [Pending(entry, key, members, run, Decimal(cost)) for entry, key, members, run, cost in rows]

    def keep_images(
        self,
        card: TeacherCard,
        digests: Digests,
        vectors: Vectors,
        view: int = 0,
        entry: int | None = None,
        cost: Decimal | None = None,
    ) -> None:
        """Keep [N, D] float32 vectors for [N, 32] contents and settle their ledger entry, all or nothing.

        Args:
            card: who answered.
            digests: of the contents.
            vectors: row i for content i.
            view: which view the contents are.
            entry: the ledger's, if they were bought.
            cost: what the vendor charged in the end; None leaves what was reserved.
        """
        teacher = self.teacher_id(card)
        rows = [(teacher, view, d.tobytes(), v.tobytes()) for d, v in zip(digests, vectors, strict=True)]
        with self._transaction():
            self._db.executemany("INSERT OR REPLACE INTO images VALUES (?, ?, ?, ?)", rows)
            self._settle(entry, cost)

    def keep_texts(
        self,
        card: TeacherCard,
        texts: Sequence[str],
        vectors: Vectors,
        entry: int | None = None,
        cost: Decimal | None = None,
    ) -> None:
        """Keep [N, D] float32 vectors for texts and settle their ledger entry, all or nothing; see `keep_images`."""
        teacher = self.teacher_id(card)
        rows = [(teacher, text, v.tobytes()) for text, v in zip(texts, vectors, strict=True)]
        with self._transaction():
            self._db.executemany("INSERT OR REPLACE INTO texts VALUES (?, ?, ?)", rows)
            self._settle(entry, cost)

    def entries(self, run: str | None = None) -> list[tuple[float, str, str, str, str, int, Decimal, str, int, str]]:
        """Ledger entries, oldest first: time, run, teacher, kind, purpose, queries, cost, currency, attempts, state."""
        query = (
            "SELECT time, run, identity, kind, purpose, queries, cost, currency, attempts, state FROM ledger"
            " JOIN teachers ON teachers.id = ledger.teacher WHERE ? IS NULL OR run = ? ORDER BY ledger.id"
        )
        with self._lock:
            rows = self._db.execute(query, (run, run)).fetchall()
        return [(*row[:6], Decimal(row[6]), *row[7:]) for row in rows]

    def costs(self) -> list[tuple[str, str, Decimal]]:
        """Of every entry: its label, its run, and what it costs or may cost."""
        with self._lock:
            rows = self._db.execute("SELECT id, time, run, cost FROM ledger ORDER BY id").fetchall()
        return [(_label(entry, time), run, Decimal(cost)) for entry, time, run, cost in rows]

    def label(self, entry: int) -> str:
        """A name for an entry that no entry of another store has."""
        with self._lock:
            (at,) = self._db.execute("SELECT time FROM ledger WHERE id = ?", (entry,)).fetchone()
        return _label(entry, at)

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

    def _settle(self, entry: int | None, cost: Decimal | None) -> None:
        if entry is not None:
            change = "state = 'kept', members = NULL, cost = coalesce(?, cost)"
            self._db.execute(f"UPDATE ledger SET {change} WHERE id = ?", (None if cost is None else str(cost), entry))


def _label(entry: int, at: float) -> str:
    return f"{at!r}-{entry}"


def _missing(card: TeacherCard, what: str) -> TeacherError:
    return TeacherError(
        f"{card.identity} has no stored embedding of {what}.",
        expected="an embedding that was bought before",
        found="none in the store",
        next_step="run vl2v distill, which buys missing embeddings within its budget",
    )
