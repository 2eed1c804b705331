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
from vl2v.sqlite import migrate, open_file, rows_of
from vl2v.teacher.base import TeacherCard, Vectors

Digests = NDArray[np.uint8]

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
KEY_LIFE = 23 * 3600.0  # seconds for which vendors remember an idempotency key; vl2v's server does so for a day


@dataclass(frozen=True)
class Pending:
    """A batch that was sent with an idempotency key and has no response.

    Attributes:
        entry: number of its ledger entry.
        key: idempotency key.
        members: the concatenated SHA-256 of the images, or a JSON list of the texts.
        run: name of the run that pays for it.
        cost: the reserved cost.
    """

    entry: int
    key: str
    members: bytes
    run: str
    cost: Decimal


class EmbeddingStore:
    """A SQLite file with purchased embeddings and the ledger.

    Embeddings are identified by the SHA-256 of the sent bytes, the teacher (identity, revision and dimension) and the
    view. A batch of embeddings and its ledger entry are committed together, so a killed process loses nothing. Only one
    process buys at a time (`alone`), so no image is bought twice.

    Args:
        path: path of the file; its folder is created if necessary.
        read_only: only read the file, which also works on a read-only disk.

    Raises:
        AccessError: if the file belongs to another program or a newer version of vl2v.
        sqlite3.Error: if the file is damaged or cannot be opened. It is never deleted.
    """

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
    def reading(cls, path: Path) -> EmbeddingStore:
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
        self._db.execute("INSERT OR IGNORE INTO teachers (identity, revision, dimension) VALUES (?, ?, ?)", key)
        query = "SELECT id FROM teachers WHERE identity = ? AND revision = ? AND dimension = ?"
        return int(self._db.execute(query, key).fetchone()[0])

    def knows_images(self, card: TeacherCard, digests: Digests, view: int = 0) -> NDArray[np.bool_]:
        """Return which images have a stored embedding.

        Args:
            card: description of the teacher.
            digests: [N, 32] uint8, the SHA-256 of each image.
            view: number of the view.

        Returns:
            [N] bool.
        """
        teacher = self.teacher_id(card)
        query = "SELECT digest FROM images WHERE teacher = ? AND view = ? AND digest IN"
        keys = [row.tobytes() for row in digests]
        known = {row[0] for row in rows_of(self._db, query, keys, teacher, view)}
        return np.fromiter((key in known for key in keys), dtype=np.bool_, count=len(keys))

    def lacks(self, card: TeacherCard, digests: Digests, view: int = 0) -> list[int]:
        """Return the indices of the distinct images without a stored embedding, shuffled by content.

        Args:
            card: description of the teacher.
            digests: [N, 32] uint8, the SHA-256 of each image.
            view: number of the view.
        """
        known = self.knows_images(card, digests, view)
        _, first = np.unique(digests, axis=0, return_index=True)  # sorted by digest, which shuffles the images
        return [int(i) for i in first[~known[first]]]

    def knows_texts(self, card: TeacherCard, texts: Sequence[str]) -> list[bool]:
        """Return which texts have a stored embedding, in their order."""
        teacher = self.teacher_id(card)
        query = "SELECT 1 FROM texts WHERE teacher = ? AND text = ?"
        return [self._db.execute(query, (teacher, text)).fetchone() is not None for text in texts]

    def images(self, card: TeacherCard, digests: Digests, view: int = 0) -> Vectors:
        """Return the stored embeddings of images.

        Args:
            card: description of the teacher.
            digests: [N, 32] uint8, the SHA-256 of each image.
            view: number of the view.

        Returns:
            [N, D] float32, row i for image i.

        Raises:
            TeacherError: if an embedding is not stored.
        """
        teacher = self.teacher_id(card)
        out = np.empty((len(digests), card.dimension), np.float32)
        for start in range(0, len(digests), 500):  # below SQLite's limit on the number of variables
            keys = [row.tobytes() for row in digests[start : start + 500]]
            marks = ",".join("?" * len(keys))
            query = f"SELECT digest, vector FROM images WHERE teacher = ? AND view = ? AND digest IN ({marks})"
            rows = dict(self._db.execute(query, (teacher, view, *keys)))
            for i, key in enumerate(keys, start):
                if key not in rows:
                    raise _missing(card, f"image {key.hex()[:16]}, view {view}")
                out[i] = np.frombuffer(rows[key], np.float32)
        return out

    def texts(self, card: TeacherCard, texts: Sequence[str]) -> Vectors:
        """Return the stored embeddings of texts, [N, D] float32, row i for text i.

        Raises:
            TeacherError: if an embedding is not stored.
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
        """Return the norms of at most `count` stored embeddings of a kind, ``image`` or ``text``."""
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
        """Add a ledger entry for a batch that is about to be sent.

        Args:
            card: description of the teacher.
            run: name of the run.
            kind: ``image`` or ``text``.
            purpose: purpose of the queries.
            queries: number of queries.
            cost: maximum cost, which counts as spent until the entry is settled.
            key: idempotency key of the batch, if the vendor charges a key only once.
            members: contents of the batch, so that it can be sent again with its key; see `Pending`.
            view: number of the view of the images.

        Returns:
            The number of the entry.
        """
        names = "time, run, teacher, kind, purpose, queries, cost, currency, state, key, members, view"
        with self._lock:
            row = (time.time(), run, self.teacher_id(card), kind, purpose, queries, str(cost), card.price.currency)
            statement = f"INSERT INTO ledger ({names}) VALUES ({', '.join('?' * 12)})"
            return int(self._db.execute(statement, (*row, "sent", key, members, view)).lastrowid or 0)

    def sent_again(self, entry: int) -> None:
        """Count another attempt of an entry whose key the vendor charges only once."""
        with self._lock:
            self._db.execute("UPDATE ledger SET attempts = attempts + 1 WHERE id = ?", (entry,))

    def note(self, entry: int, why: str, *, refused: bool = False) -> None:
        """Record why an attempt failed.

        Args:
            entry: number of the ledger entry.
            why: the reason in a few words.
            refused: whether the vendor certainly charged nothing; the cost of the entry is then set to 0.
        """
        change = ", state = 'refused', cost = '0', members = NULL" if refused else ""
        with self._lock:
            self._db.execute(f"UPDATE ledger SET note = ?{change} WHERE id = ?", (why, entry))

    def write_off(self, entry: int, why: str, cost: Decimal | None) -> None:
        """Count an entry as spent, at `cost` if that is known, and never send its batch again with its key."""
        with self._lock:
            change = "note = ?, members = NULL, cost = coalesce(?, cost)"
            self._db.execute(f"UPDATE ledger SET {change} WHERE id = ?", (why, cost and str(cost), entry))

    def settle(self, entry: int, cost: Decimal | None) -> None:
        """Confirm an entry whose embeddings are not saved, at the charged cost; None confirms the reserved cost."""
        with self._transaction():
            self._settle(entry, cost)

    def pending(self, card: TeacherCard, kind: str | None = None, view: int | None = None) -> list[Pending]:
        """Return the batches without a response that can be sent again free of charge, oldest first.

        Args:
            card: description of the teacher.
            kind: ``image`` or ``text``; None for both.
            view: number of the view; None for all.
        """
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
        """Save image embeddings and settle their ledger entry, in one transaction.

        Args:
            card: description of the teacher.
            digests: [N, 32] uint8, the SHA-256 of each image.
            vectors: [N, D] float32, row i for image i.
            view: number of the view.
            entry: number of the ledger entry; None if the embeddings were not bought.
            cost: the charged cost; None confirms the reserved cost.
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
        """Save text embeddings, [N, D] float32, and settle their ledger entry; see `keep_images`."""
        teacher = self.teacher_id(card)
        rows = [(teacher, text, v.tobytes()) for text, v in zip(texts, vectors, strict=True)]
        with self._transaction():
            self._db.executemany("INSERT OR REPLACE INTO texts VALUES (?, ?, ?)", rows)
            self._settle(entry, cost)

    def entries(self, run: str | None = None) -> list[tuple[float, str, str, str, str, int, Decimal, str, int, str]]:
        """Return the ledger entries, oldest first, of all runs or of one.

        The columns are time, run, teacher, kind, purpose, queries, cost, currency, attempts and state.
        """
        query = (
            "SELECT time, run, identity, kind, purpose, queries, cost, currency, attempts, state FROM ledger"
            " JOIN teachers ON teachers.id = ledger.teacher WHERE ? IS NULL OR run = ? ORDER BY ledger.id"
        )
        with self._lock:
            rows = self._db.execute(query, (run, run)).fetchall()
        return [(*row[:6], Decimal(row[6]), *row[7:]) for row in rows]

    def costs(self) -> list[tuple[str, str, Decimal]]:
        """Return the label, the run and the actual or maximum cost of every ledger entry."""
        with self._lock:
            rows = self._db.execute("SELECT id, time, run, cost FROM ledger ORDER BY id").fetchall()
        return [(_label(entry, time), run, Decimal(cost)) for entry, time, run, cost in rows]

    def label(self, entry: int) -> str:
        """Return a name of a ledger entry that is unique across stores."""
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
        expected="an embedding that has been bought",
        found="none in the store",
        next_step="run vl2v distill, which buys missing embeddings within its budget",
    )
