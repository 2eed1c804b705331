"""Stop a purchase early if the embeddings are useless."""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from vl2v.errors import TeacherError
from vl2v.teacher.base import Embeddings
from vl2v.teacher.purchase.agreement import Agreement
from vl2v.teacher.purchase.store import Digests

SEEN = 512  # number of responses that are checked; later ones are trusted
EVERY = 64  # number of responses between two checks
SAME = 1e-4  # distance of two unit embeddings below which they count as equal
MANY, SHARE = 4, 0.1  # number and share of images with an equal embedding that together count as a fault
FEW = 3  # minimum number of responses for a check
THUMB, VISIBLE = 16, 2.0  # side of the thumbnails, and the mean difference (of 255) of images that look different
ACCEPT = (
    "check the teacher with vl2v teacher check. The embeddings bought so far are stored: when the teacher is fixed, "
    "use another --store. If this is what you expect, continue with --accept-teacher"
)

Read = Callable[[int], bytes]


@dataclass
class TeacherWatch:
    """A check of a teacher's responses during a purchase.

    Args:
        labels: class index by SHA-256 of each labelled source image; other images are not compared with labels.
        head: returns the text head, [K, D] float32; called after the texts have been bought.
    """

    identity: str
    labels: Mapping[bytes, int]
    head: Callable[[], NDArray[np.float32]]
    _texts: dict[str, NDArray[np.float64]] = field(default_factory=dict)
    _rows: list[NDArray[np.float64]] = field(default_factory=list)
    _reads: list[Callable[[], bytes]] = field(default_factory=list)
    _agreement: Agreement | None = None
    _next: int = EVERY

    def texts(self, texts: Sequence[str], embeddings: Embeddings) -> None:
        """Check text embeddings, [N, D] float32.

        Raises:
            TeacherError: if most of the texts so far have the same embedding.
        """
        self._texts.update(zip((text.casefold() for text in texts), _units(embeddings), strict=True))
        count = len(self._texts)
        rows = np.stack([*self._texts.values()])
        largest = int((_distances(rows, rows) < SAME).sum(1).max()) if count >= FEW else 0
        if largest > count / 2:
            raise TeacherError(
                f"{self.identity} returned the same embedding for different texts.",
                expected="different embeddings for different texts",
                found=f"one embedding for {largest} of {count} texts",
                next_step=ACCEPT,
            )

    def images(self, digests: Digests, embeddings: Embeddings, read: Read, *, ordered: bool = True) -> None:
        """Check the response to one request.

        Args:
            read: returns the bytes of image i.
            ordered: whether the rows are in the order in which they were received.

        Raises:
            TeacherError: if the embeddings are unusable.
        """
        if len(self._rows) >= SEEN:
            return
        rows = _units(embeddings)
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
        """Check all responses so far; called at intervals and at the end of a purchase.

        Raises:
            TeacherError: if the embeddings are unusable.
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


def _units(embeddings: Embeddings) -> NDArray[np.float64]:
    rows = np.asarray(embeddings, np.float64)
    return np.asarray(rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-12))


def _distances(one: NDArray[np.float64], two: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.asarray(np.sqrt(np.maximum(2 - 2 * one @ two.T, 0)))


def _look_different(one: bytes, two: bytes) -> bool:
    """Whether two image files look different to a person; unreadable files do if their bytes differ."""
    try:
        thumbs = [_thumb(content) for content in (one, two)]
    except Exception:  # Pillow raises many types of exceptions for broken images
        return one != two
    return float(np.abs(thumbs[0] - thumbs[1]).mean()) > VISIBLE


def _thumb(content: bytes) -> NDArray[np.float64]:
    with Image.open(io.BytesIO(content)) as image:
        small = image.convert("RGB").resize((THUMB, THUMB), Image.Resampling.BOX)
    return np.asarray(small, np.float64)
