"""Compare a batch of embeddings with the training domains of a student, with numpy only."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from vl2v_runtime.numbers import number, numbers, whole

Floats = NDArray[np.float64]
LARGEST = 1e6  # bound on numbers in a file; embeddings have length one
LONGEST_NAME = 1_000


@dataclass(frozen=True)
class Drift:
    """Deviation of a batch from the training domains.

    Attributes:
        nearest: the most similar training domain; empty for an empty batch.
        distance: length of the mean residual, see `Reference`; embeddings have length one.
        expected: median distance of the same number of images of the training domains.
        limit: distance above which the batch is unusual.
        unusual: whether `distance` is above `limit`.
    """

    nearest: str
    distance: float
    expected: float
    limit: float
    unusual: bool
    images: int

    @property
    def text(self) -> str:
        """One line of text."""
        if not self.images:
            return "there is no image to compare with the training domains"
        what = "1 image" if self.images == 1 else f"{self.images:,} images"
        head = "unlike the training domains" if self.unusual else "similar to the training domains"
        return (
            f"{head}: {what}, distance {self.distance:.3f} (nearest: {self.nearest}), "
            f"usual {self.expected:.3f}, limit {self.limit:.3f}"
        )


@dataclass(frozen=True)
class Reference:
    """Summary of the training domains with which batches are compared.

    Each class in each domain has a centre, the mean of its embeddings. The residual of an image is its embedding minus
    the nearest centre, and the distance of a batch is the length of its mean residual. A mixture of training domains or
    a batch of a single class is therefore not unusual. By chance alone, this length shrinks with the square root of the
    batch size N, so `expected` and `limit` are given in units of spread / sqrt(N).

    Attributes:
        names: M training domains.
        images: number of validation images of each domain.
        spreads: [M], root mean square length of the residuals.
        centres: [C, D], centres of all domains.
        domain: [C] int64, the domain of each centre.
        level: share of batches from the training domains that are reported as unusual.
        sizes: [S] increasing batch sizes at which the next two were measured. Larger batches use the last one.
        expected: [S] medians of the distance.
        limit: [S] quantiles 1 - level of the distance.
    """

    names: tuple[str, ...]
    images: tuple[int, ...]
    spreads: Floats
    centres: Floats
    domain: NDArray[np.int64]
    level: float
    sizes: tuple[int, ...]
    expected: tuple[float, ...]
    limit: tuple[float, ...]

    def of(self, embeddings: ArrayLike) -> Drift:
        """Compare a batch with the training domains.

        Args:
            embeddings: [N, D] finite, rows of length one. N may be 0.

        Raises:
            ValueError: if the shape is different, or a value is not finite.
        """
        rows = np.asarray(embeddings, dtype=np.float64)
        dimension = self.centres.shape[1]
        if rows.ndim != 2 or rows.shape[1] != dimension or not np.isfinite(rows).all():
            raise ValueError(f"expected finite embeddings [N, {dimension}], found {list(rows.shape)} or not finite")
        if not len(rows):
            return Drift("", 0.0, 0.0, 0.0, False, 0)
        centre, residual = residuals(rows, self.centres)
        like = self.domain[centre]
        distance = float(np.linalg.norm(residual.mean(axis=0)))
        counted = min(len(rows), self.sizes[-1])
        unit = float(np.sqrt((self.spreads[like] ** 2).mean() / counted))
        expected, limit = (
            float(np.interp(np.log(counted), np.log(self.sizes), row)) * unit for row in (self.expected, self.limit)
        )
        nearest = self.names[int(np.bincount(like).argmax())]
        return Drift(nearest, distance, expected, limit, distance > limit, len(rows))

    @classmethod
    def from_dict(cls, domains: Mapping[str, Any], drift: Mapping[str, Any]) -> Reference:
        """Read the parts ``domains`` and ``drift`` of trust.json.

        Raises:
            KeyError, TypeError, ValueError: if a part is missing or inconsistent.
        """
        parts = list(domains.values())
        centres = [_centres(part["centres"]) for part in parts]
        reference = cls(
            tuple(str(name)[:LONGEST_NAME] for name in domains),
            tuple(whole(part["images"], "images", 0, 10**12) for part in parts),
            np.array([number(part["spread"], "spread", 0, LARGEST) for part in parts], dtype=np.float64),
            np.concatenate(centres),
            np.repeat(np.arange(len(parts)), [len(part) for part in centres]),
            number(drift["level"], "level", 0, 1),
            tuple(whole(size, "sizes", 1, 10**9) for size in drift["sizes"]),
            tuple(numbers(drift["expected"], "expected", 0, LARGEST)),
            tuple(numbers(drift["limit"], "limit", 0, LARGEST)),
        )
        sizes = reference.sizes
        rising = sizes[:1] >= (1,) and all(a < b for a, b in pairwise(sizes))
        if not rising or not len(sizes) == len(reference.expected) == len(reference.limit):
            raise ValueError("the parts of the drift reference are inconsistent")
        return reference

    def to_dict(self) -> tuple[dict[str, Any], dict[str, Any]]:
        """Return the parts ``domains`` and ``drift`` of trust.json as plain values."""
        domains = {
            name: {
                "images": self.images[place],
                "spread": float(self.spreads[place]),
                "centres": self.centres[self.domain == place].tolist(),
            }
            for place, name in enumerate(self.names)
        }
        batches = {"sizes": list(self.sizes), "expected": list(self.expected), "limit": list(self.limit)}
        return domains, {"level": self.level, **batches}


def _centres(rows: Any) -> Floats:
    """Read centres, [C, D] with C and D of at least 1."""
    table = np.asarray(rows)
    if table.ndim != 2 or not table.size or table.dtype.kind not in "fi" or not (np.abs(table) <= LARGEST).all():
        raise ValueError(f"centres of shape {list(table.shape)[:4]} and type {table.dtype}, or not finite")
    return table.astype(np.float64)


def residuals(embeddings: Floats, centres: Floats) -> tuple[NDArray[np.int64], Floats]:
    """Return the indices, [N], of the nearest of [C, D] centres to [N, D] embeddings, and the residuals, [N, D]."""
    nearest = (embeddings @ centres.T - (centres**2).sum(axis=1) / 2).argmax(axis=1)
    return nearest, embeddings - centres[nearest]
