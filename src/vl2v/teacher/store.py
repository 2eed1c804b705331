"""What was bought is kept: one SQLite file of vectors and of what was paid for them."""

from __future__ import annotations

import fcntl
import sqlite3
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from decimal import Decimal
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from vl2v.errors import TeacherError
from vl2v.teacher.base import TeacherCard, Vectors

Digests = NDArray[np.uint8]

SCHEMA = """
CREATE TABLE IF NOT EXISTS teachers (
    id INTEGER PRIMARY KEY, identity TEXT NOT NULL, revision TEXT NOT NULL, dimension INTEGER NOT NULL,
    UNIQUE (identity, revision, dimension));
CREATE TABLE IF NOT EXISTS images (
    teacher INTEGER NOT NULL, view INTEGER NOT NULL, digest BLOB NOT NULL, vector BLOB NOT NULL);
CREATE UNIQUE INDEX IF NOT EXISTS images_by_content ON images (teacher, view, digest);
CREATE TABLE IF NOT EXISTS texts (
    teacher INTEGER NOT NULL, text TEXT NOT NULL, vector BLOB NOT NULL, PRIMARY KEY (teacher, text));
CREATE TABLE IF NOT EXISTS ledger (
    id INTEGER PRIMARY KEY, time REAL NOT NULL, run TEXT NOT NULL, teacher INTEGER NOT NULL, kind TEXT NOT NULL,
    purpose TEXT NOT NULL, queries INTEGER NOT NULL, cost TEXT NOT NULL, currency TEXT NOT NULL, state TEXT NOT NULL);
"""


class EmbeddingStore:
    """Bought vectors, keyed by the SHA-256 of the bytes sent, the teacher (identity, revision, dimension) and the view.

    A batch of vectors and its ledger entry are committed together, so a killed process loses nothing that was kept.
    One process at a time buys (`alone`), so that no two buy the same image.

    Args:
        path: the SQLite file; its folder is made if missing.
    """

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self.path = path
        self._db = sqlite3.connect(path, timeout=60, isolation_level=None)
        self._db.execute("PRAGMA journal_mode=WAL")
        self._db.execute("PRAGMA synchronous=FULL")  # money was paid for every row
        self._db.executescript(SCHEMA)

    def close(self) -> None:
        """Close the file."""
        self._db.close()

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Keep every other process from buying meanwhile."""
        with self.path.with_suffix(".lock").open("w") as handle:
            fcntl.flock(handle, fcntl.LOCK_EX)
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

    def open_entry(self, card: TeacherCard, run: str, kind: str, purpose: str, queries: int, cost: Decimal) -> int:
        """Write into the ledger that a batch is about to be sent; returns the entry's number."""
        row = (time.time(), run, self.teacher_id(card), kind, purpose, queries, str(cost), card.price.currency)
        statement = (
            "INSERT INTO ledger (time, run, teacher, kind, purpose, queries, cost, currency, state)"
            " VALUES (?, ?, ?, ?, ?, ?, ?, ?, 'sent')"
        )
        return int(self._db.execute(statement, row).lastrowid or 0)

    def keep_images(
        self, card: TeacherCard, digests: Digests, vectors: Vectors, view: int = 0, entry: int | None = None
    ) -> None:
        """Keep [N, D] float32 vectors for [N, 32] contents and settle their ledger entry, all or nothing."""
        teacher = self.teacher_id(card)
        rows = [(teacher, view, d.tobytes(), v.tobytes()) for d, v in zip(digests, vectors, strict=True)]
        with self._transaction():
            self._db.executemany("INSERT OR REPLACE INTO images VALUES (?, ?, ?, ?)", rows)
            self._settle(entry)

    def keep_texts(self, card: TeacherCard, texts: Sequence[str], vectors: Vectors, entry: int | None = None) -> None:
        """Keep [N, D] float32 vectors for texts and settle their ledger entry, all or nothing."""
        teacher = self.teacher_id(card)
        rows = [(teacher, text, v.tobytes()) for text, v in zip(texts, vectors, strict=True)]
        with self._transaction():
            self._db.executemany("INSERT OR REPLACE INTO texts VALUES (?, ?, ?)", rows)
            self._settle(entry)

    def entries(self, run: str | None = None) -> list[tuple[float, str, str, str, str, int, Decimal, str, str]]:
        """Ledger entries, oldest first: time, run, teacher, kind, purpose, queries, cost, currency, state."""
        query = (
            "SELECT time, run, identity, kind, purpose, queries, cost, currency, state FROM ledger"
            " JOIN teachers ON teachers.id = ledger.teacher WHERE ? IS NULL OR run = ? ORDER BY ledger.id"
        )
        return [(*row[:6], Decimal(row[6]), *row[7:]) for row in self._db.execute(query, (run, run))]

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        self._db.execute("BEGIN IMMEDIATE")
        try:
            yield
        except BaseException:
            self._db.execute("ROLLBACK")
            raise
        self._db.execute("COMMIT")

    def _settle(self, entry: int | None) -> None:
        if entry is not None:
            self._db.execute("UPDATE ledger SET state = 'kept' WHERE id = ?", (entry,))


def _missing(card: TeacherCard, what: str) -> TeacherError:
    return TeacherError(
        f"{card.identity} was never asked for {what}.",
        expected="a vector that was bought before",
        found="none in the store",
        next_step="run vl2v distill, which buys what is missing, within its budget",
    )
