"""Negative texts: names of things that are not classes of the student, to detect images of unknown classes."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from vl2v_runtime.numbers import number, whole

Floats = NDArray[np.float64]
MAX_TEXTS = 100_000
MAX_TEXT = 1_000  # characters
MAX_DIMENSION = 100_000
LEAST, GREATEST = 1e-9, 1e6  # logit scales that a file may have


@dataclass(frozen=True)
class Negatives:
    """Embeddings of negative texts in the space of the student's embeddings.

    Attributes:
        texts: M names, as in the list.
        embeddings: [M, D] float16, rows of length one up to rounding. M is at least 1.
        scale: logit scale of the student, above 0.
        limit: largest cosine between one of the texts and one of the classes that the student had when they were
            selected, in [-1, 1]. Texts that are more similar to a new class are removed.
    """

    texts: tuple[str, ...]
    embeddings: NDArray[np.float16]
    scale: float
    limit: float

    def scores(self, logits: ArrayLike, embeddings: ArrayLike, temperature: float) -> Floats:
        """Compute how much more similar an image is to the classes than to the negative texts.

        The score is log sum over classes of exp(logit / T) minus log sum over negative texts of
        exp(scale * cosine / T). It orders images as the score of NegLabel (Jiang et al., ICLR 2024) does.

        Args:
            logits: [N, K] of the student, not divided by T.
            embeddings: [N, D] of the same images, rows of length one.
            temperature: T > 0.

        Returns:
            [N] float64, higher for images that are more similar to the classes.

        Raises:
            ValueError: if the shapes do not fit.
        """
        class_logits, rows = np.asarray(logits, np.float64), np.asarray(embeddings, np.float64)
        expected = (len(class_logits), self.embeddings.shape[1])
        if class_logits.ndim != 2 or rows.shape != expected:
            raise ValueError(f"expected logits [N, K] and embeddings {list(expected)}, found {list(rows.shape)}")
        others = self.scale * rows @ self.embeddings.T.astype(np.float64)
        return _log_sum_exp(class_logits / temperature) - _log_sum_exp(others / temperature)

    def keep(self, mask: NDArray[np.bool_]) -> Negatives | None:
        """Return those that are chosen, [M] bool, or None if there are none."""
        if not mask.any():
            return None
        texts = tuple(text for text, stays in zip(self.texts, mask, strict=True) if stays)
        return Negatives(texts, self.embeddings[mask], self.scale, self.limit)

    @classmethod
    def from_dict(cls, content: Mapping[str, Any]) -> Negatives:
        """Read what `to_dict` returned.

        Raises:
            KeyError, TypeError, ValueError: if something is missing or invalid.
        """
        texts = content["texts"]
        if not isinstance(texts, list) or not 1 <= len(texts) <= MAX_TEXTS:
            raise ValueError(f"negative texts that are not a list of 1 to {MAX_TEXTS:,}")
        if not all(isinstance(text, str) and len(text) <= MAX_TEXT for text in texts):
            raise ValueError(f"a negative text that is not a string of at most {MAX_TEXT:,} characters")
        dimension = whole(content["dimension"], "dimension of the negative texts", 1, MAX_DIMENSION)
        try:
            data = base64.b64decode(content["float16"], validate=True)
        except binascii.Error as error:
            raise ValueError("embeddings of the negative texts that are not base64") from error
        if len(data) != 2 * len(texts) * dimension:
            raise ValueError(f"{len(data):,} bytes of embeddings for {len(texts):,} texts of dimension {dimension:,}")
        embeddings = np.frombuffer(data, "<f2").astype(np.float16).reshape(len(texts), dimension)
        if not np.isfinite(embeddings).all():
            raise ValueError("embeddings of the negative texts that are not finite")
        scale = number(content["scale"], "scale of the negative texts", LEAST, GREATEST)
        return cls(tuple(texts), embeddings, scale, number(content["limit"], "limit of the negative texts", -2, 2))

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for JSON. The embeddings are little-endian float16, row by row, as base64."""
        data = base64.b64encode(self.embeddings.astype("<f2").tobytes()).decode("ascii")
        return {
            "texts": list(self.texts),
            "scale": self.scale,
            "limit": self.limit,
            "dimension": self.embeddings.shape[1],
            "float16": data,
        }


def _log_sum_exp(rows: Floats) -> Floats:
    top: Floats = rows.max(axis=1, initial=-1e300)
    sums: Floats = top + np.log(np.exp(rows - top[:, None]).sum(axis=1))
    return sums
