"""The store of purchased embeddings and the ledger, in one SQLite file."""

from __future__ import annotations

from collections.abc import Sequence
from decimal import Decimal

import numpy as np
from numpy.typing import NDArray

from vl2v.digests import distinct
from vl2v.errors import TeacherError
from vl2v.sqlite import VARIABLES, keys_of, rows_of
from vl2v.teacher.base import Embeddings, TeacherCard
from vl2v.teacher.purchase.ledger_table import LedgerTable

Digests = NDArray[np.uint8]  # [N, 32], SHA-256 of the bytes of each image


class EmbeddingStore(LedgerTable):
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

    def knows_images(self, card: TeacherCard, digests: Digests, view: int = 0) -> NDArray[np.bool_]:
        """Return which images have a stored embedding, [N] bool."""
        teacher = self.teacher_id(card)
        query = "SELECT digest FROM images WHERE teacher = ? AND view = ? AND digest IN"
        mask = np.zeros(len(digests), np.bool_)
        for start in range(0, len(digests), VARIABLES):
            keys = keys_of(digests[start : start + VARIABLES])
            stored_keys = {row[0] for row in rows_of(self._db, query, keys, teacher, view)}
            mask[start : start + len(keys)] = [key in stored_keys for key in keys]
        return mask

    def lacks(self, card: TeacherCard, digests: Digests, view: int = 0) -> list[int]:
        """Return the indices of the distinct images without a stored embedding, shuffled by content."""
        stored = self.knows_images(card, digests, view)
        first = distinct(digests)  # sorted by digest, which shuffles the images
        rows: list[int] = first[~stored[first]].tolist()
        return rows

    def knows_texts(self, card: TeacherCard, texts: Sequence[str]) -> list[bool]:
        """Return which texts have a stored embedding, in their order."""
        teacher = self.teacher_id(card)
        query = "SELECT 1 FROM texts WHERE teacher = ? AND text = ?"
        return [self._db.execute(query, (teacher, text)).fetchone() is not None for text in texts]

    def lacks_texts(self, card: TeacherCard, texts: Sequence[str]) -> list[str]:
        """Return the distinct texts without a stored embedding, in their order."""
        distinct = list(dict.fromkeys(texts))
        return [text for text, stored in zip(distinct, self.knows_texts(card, distinct), strict=True) if not stored]

    def images(self, card: TeacherCard, digests: Digests, view: int = 0) -> Embeddings:
        """Return the stored embeddings of images, [N, D] float32, row i for image i.

        Raises:
            TeacherError: if an embedding is not stored.
        """
        teacher = self.teacher_id(card)
        out = np.empty((len(digests), card.dimension), np.float32)
        query = "SELECT digest, vector FROM images WHERE teacher = ? AND view = ? AND digest IN"
        for start in range(0, len(digests), VARIABLES):
            keys = keys_of(digests[start : start + VARIABLES])
            rows = dict(rows_of(self._db, query, keys, teacher, view))
            for i, key in enumerate(keys, start):
                if key not in rows:
                    raise _missing(card, f"image {key.hex()[:16]}, view {view}")
                out[i] = np.frombuffer(rows[key], np.float32)
        return out

    def texts(self, card: TeacherCard, texts: Sequence[str]) -> Embeddings:
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
        query = f"SELECT vector FROM {kind}s WHERE teacher = ? LIMIT ?"
        rows = self._execute(query, self.teacher_id(card), count)
        return np.array([np.linalg.norm(np.frombuffer(row[0], np.float32)) for row in rows], np.float64)

    def keep_images(
        self,
        card: TeacherCard,
        digests: Digests,
        embeddings: Embeddings,
        view: int = 0,
        entry: int | None = None,
        cost: Decimal | None = None,
    ) -> None:
        """Save image embeddings and settle their ledger entry, in one transaction.

        Args:
            entry: number of the ledger entry; None if the embeddings were not bought.
            cost: the charged cost; None confirms the reserved cost.
        """
        teacher = self.teacher_id(card)
        rows = [(teacher, view, d.tobytes(), v.tobytes()) for d, v in zip(digests, embeddings, strict=True)]
        with self._transaction():
            self._db.executemany("INSERT OR REPLACE INTO images VALUES (?, ?, ?, ?)", rows)
            self._settle(entry, cost, len(rows))  # a batch job may have refused some of its images

    def keep_texts(
        self,
        card: TeacherCard,
        texts: Sequence[str],
        embeddings: Embeddings,
        entry: int | None = None,
        cost: Decimal | None = None,
    ) -> None:
        """Save text embeddings, [N, D] float32, and settle their ledger entry; see `keep_images`."""
        teacher = self.teacher_id(card)
        rows = [(teacher, text, v.tobytes()) for text, v in zip(texts, embeddings, strict=True)]
        with self._transaction():
            self._db.executemany("INSERT OR REPLACE INTO texts VALUES (?, ?, ?)", rows)
            self._settle(entry, cost)


def _missing(card: TeacherCard, what: str) -> TeacherError:
    return TeacherError(
        f"{card.identity} has no stored embedding of {what}.",
        expected="an embedding that has been bought",
        found="none in the store",
        next_step="run vl2v distill, which buys missing embeddings within its budget",
    )
