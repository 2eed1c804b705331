"""The teacher protocol: embeds images and texts, and describes its model and price."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from decimal import Decimal
from pathlib import Path
from typing import Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from vl2v.errors import TeacherError
from vl2v_runtime.imaging import UnreadableImageError, decode

Embeddings = NDArray[np.float32]  # [N, D], row i for input i


@dataclass(frozen=True)
class Price:
    """Price per thousand queries, in `currency`."""

    per_1000_images: Decimal = Decimal(0)
    per_1000_texts: Decimal = Decimal(0)
    currency: str = "USD"

    def of(self, images: int = 0, texts: int = 0) -> Decimal:
        """Return the exact cost of a number of image and text queries."""
        return (self.per_1000_images * images + self.per_1000_texts * texts) / 1000

    @property
    def free(self) -> bool:
        """Whether all queries are free."""
        return not (self.per_1000_images or self.per_1000_texts)


@dataclass(frozen=True)
class TeacherCard:
    """Description of a teacher: model, dimension, logit scale and price.

    Embeddings are never mixed if identity, revision or dimension differ.

    Attributes:
        identity: name of the model, e.g. ``open_clip:ViT-B-16/openai``.
        revision: version of the model; it changes whenever embeddings may change.
        dimension: D, the length of every embedding.
        logit_scale: s in ``s * cos(image, text)``, above 0.
        batch_size: maximum number of inputs per call.
    """

    identity: str
    revision: str
    dimension: int
    logit_scale: float
    price: Price = field(default_factory=Price)
    batch_size: int = 64


@runtime_checkable
class Teacher(Protocol):
    """A model that maps images and texts to embeddings in one shared space."""

    def describe(self) -> TeacherCard:
        """Return the description of the teacher. This call is free."""
        ...

    def embed_images(self, images: list[bytes]) -> Embeddings:
        """Embed image files, passed as bytes. Returns [N, D] float32, row i for image i."""
        ...

    def embed_texts(self, texts: list[str]) -> Embeddings:
        """Embed texts. Returns [N, D] float32, row i for text i."""
        ...


def checked(answer: object, count: int, card: TeacherCard, kind: str) -> Embeddings:
    """Validate the response of a teacher and convert it to [N, D] float32.

    Args:
        answer: the value that the teacher returned.
        count: N, the number of inputs.
        kind: kind of the inputs, ``image`` or ``text``, for the message.

    Raises:
        TeacherError: if the shape is wrong, or a row contains NaN or infinity or has length zero.
    """
    expected = f"[{count}, {card.dimension}] finite numbers, no row of length zero, row i for {kind} i"
    step = "nothing of this response was saved; contact the vendor, or check the teacher's adapter"

    def refuse(found: str) -> TeacherError:
        problem = f"{card.identity} returned an unusable response."
        return TeacherError(problem, expected=expected, found=found, next_step=step)

    try:
        embeddings = np.ascontiguousarray(np.asarray(answer), dtype=np.float32)
    except (TypeError, ValueError) as error:
        raise refuse(f"not an array of numbers ({error})") from error
    if embeddings.shape != (count, card.dimension):
        raise refuse(f"shape {list(embeddings.shape)}")
    finite = np.isfinite(embeddings).all(axis=1)
    if not finite.all():
        raise refuse(f"NaN or infinity in row {int(np.argmin(finite))}")
    norms = np.linalg.norm(embeddings.astype(np.float64), axis=1)
    if count and norms.min() < 1e-6:
        raise refuse(f"an embedding of norm {norms.min():.1g} in row {int(np.argmin(norms))}")
    return embeddings


def open_image(data: bytes) -> Image.Image:
    """Decode an image file for a local teacher; see `vl2v_runtime.imaging.decode`.

    Raises:
        TeacherError: if the image is unreadable.
    """
    try:
        return decode(data)
    except UnreadableImageError as error:
        problem, step = "An image was rejected.", "remove this file, or save it as PNG or JPEG"
        raise TeacherError(problem, expected="a readable image", found=str(error), next_step=step) from error


def file_digest(path: Path) -> str:
    """Return the SHA-256 of a file in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def unit_rows(embeddings: NDArray[np.floating]) -> Embeddings:
    """Scale every row of [N, D] to length one; zero rows remain zero."""
    norms = np.linalg.norm(embeddings, axis=-1, keepdims=True)
    return np.asarray(embeddings / np.maximum(norms, 1e-12), dtype=np.float32)
