"""Stop a purchase early if the embeddings are useless."""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from vl2v.errors import TeacherError
from vl2v.teacher.base import Vectors
from vl2v.teacher.purchase.agreement import Agreement
from vl2v.teacher.purchase.store import Digests

SEEN = 512  # answers that are looked at; a teacher that was good for so many is not doubted
EVERY = 64  # answers between two looks
SAME = 1e-4  # distance of two unit embeddings below which they are the same
MANY, SHARE = 4, 0.1  # images, and their share of all, that may not share an embedding with one that looks different
FEW = 3  # answers from which on all of them being the same is a fault
THUMB, VISIBLE = 16, 2.0  # side of the thumbnails, and the mean difference of 255 from which two images look different
ACCEPT = (
    "check the teacher with vl2v teacher check. What was bought is stored: when the teacher is fixed, use another "
    "--store. If this is what you expect, continue with --accept-teacher"
)

Read = Callable[[int], bytes]


@dataclass
class TeacherWatch:
    """Looks at a teacher's answers as they are bought.

    Args:
        identity: whose answers.
        labels: class by SHA-256 of the source images whose labels are known; other images are not compared with any.
        head: [K, D] float32, the text head; asked for once the texts are bought.
    """

    identity: str
    labels: Mapping[bytes, int]
    head: Callable[[], NDArray[np.float32]]
    _texts: dict[str, NDArray[np.float64]] = field(default_factory=dict)
    _rows: list[NDArray[np.float64]] = field(default_factory=list)
    _reads: list[Callable[[], bytes]] = field(default_factory=list)
    _agreement: Agreement | None = None
    _next: int = EVERY

    def texts(self, texts: Sequence[str], vectors: Vectors) -> None:
        """Look at [N, D] embeddings of texts.

        Raises:
            TeacherError: if most of the texts so far share one embedding.
        """
        self._texts.update(zip((text.casefold() for text in texts), _units(vectors), strict=True))
        count = len(self._texts)
        rows = np.stack([*self._texts.values()])
        most = int((_distances(rows, rows) < SAME).sum(1).max()) if count >= FEW else 0
        if most > count / 2:
            raise TeacherError(
                f"{self.identity} returned the same embedding for different texts.",
                expected="different embeddings for different texts",
                found=f"one embedding for {most} of {count} texts",
                next_step=ACCEPT,
            )

    def images(self, digests: Digests, vectors: Vectors, read: Read, *, ordered: bool = True) -> None:
        """Look at the answers to one request.

        Args:
            digests: [N, 32], SHA-256 of what was sent.
            vectors: [N, D], what came back.
            read: gives the bytes of the n-th of them.
            ordered: whether the rows stand in the order in which they came back.

        Raises:
            TeacherError: if they are of no use.
        """
        if len(self._rows) >= SEEN:
            return
        rows = _units(vectors)
        self._rows += list(rows)
        self._reads += [lambda i=i: read(i) for i in range(len(rows))]  # type: ignore[misc]
        labels = np.array([self.labels.get(digest.tobytes(), -1) for digest in digests], np.int64)
        if self._agreement is None:
            self._agreement = Agreement(_units(self.head()))
        self._agreement.add(rows, labels, ordered)
        if len(self._rows) >= self._next:
            self._next = len(self._rows) + EVERY
            self.look()

    def look(self) -> None:
        """Judge what was seen so far; called now and then, and once everything is bought.

        Raises:
            TeacherError: if it is of no use.
        """
        self._distinct()
        if self._agreement is not None and (fault := self._agreement.fault()) is not None:
            raise TeacherError(
                f"{self.identity} {fault.problem}",
                expected=fault.expected,
                found=fault.found,
                next_step=f"{fault.step}; {ACCEPT}",
            )

    def _distinct(self) -> None:
        count = len(self._rows)
        if count < FEW:
            return
        rows = np.stack(self._rows[:SEEN])
        near = _distances(rows, rows) < SAME
        np.fill_diagonal(near, False)
        twins = np.flatnonzero(near.any(1))
        if len(twins) < count and (len(twins) < MANY or len(twins) < SHARE * count):
            return
        pairs = [(int(i), int(np.flatnonzero(near[i])[0])) for i in twins[:: max(1, len(twins) // 8)]]
        different = sum(_look_different(self._reads[i](), self._reads[j]()) for i, j in pairs)
        if different > len(pairs) / 2:
            raise TeacherError(
                f"{self.identity} returned the same embedding for different images.",
                expected="different embeddings for images that look different",
                found=f"{len(twins)} of {count} images have the embedding of another image",
                next_step=ACCEPT,
            )


def _units(vectors: Vectors) -> NDArray[np.float64]:
    rows = np.asarray(vectors, np.float64)
    return np.asarray(rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-12))


def _distances(one: NDArray[np.float64], two: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.asarray(np.sqrt(np.maximum(2 - 2 * one @ two.T, 0)))


def _look_different(one: bytes, two: bytes) -> bool:
    """Whether a person would tell two image files apart; files that cannot be read are."""
    try:
        thumbs = [_thumb(content) for content in (one, two)]
    except Exception:  # Pillow raises many kinds for what is no image
        return one != two
    return float(np.abs(thumbs[0] - thumbs[1]).mean()) > VISIBLE


def _thumb(content: bytes) -> NDArray[np.float64]:
    with Image.open(io.BytesIO(content)) as image:
        small = image.convert("RGB").resize((THUMB, THUMB), Image.Resampling.BOX)
    return np.asarray(small, np.float64)
